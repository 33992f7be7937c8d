//! Leases, step by step, and the rentals that are canaries.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canary::Report;
use crate::ids::{DeviceId, Hash32, Hotkey, LeaseId};
use crate::store::Role;
use crate::wire::synapse::original::PublicKey;

/// A lease as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The lease.
    pub id: LeaseId,
    /// Goes up with each takeover; an older one is refused.
    pub fencing_epoch: u64,
    /// Which side of the lease this node is.
    pub role: Role,
    /// Whose devices they are.
    pub miner: Hotkey,
    /// Who rents them.
    pub renter: Hotkey,
    /// The devices.
    pub devices: Vec<DeviceId>,
    /// The state's name, snake case.
    pub state: String,
    /// Whether the lease still holds its devices. Only live leases are returned at boot, and only they exclude each other.
    pub live: bool,
    /// When it ends.
    pub expires_at_ms: u64,
    /// Digest of the ownership token; the token itself is never stored.
    pub owner_token_digest: Hash32,
    /// The engine's name for the container, once there is one.
    pub container: Option<String>,
    /// The state machine's own form.
    pub json: Value,
    /// When it changed last.
    pub updated_ms: u64,
}

/// A step in a lease's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseEventRecord {
    /// The lease.
    pub lease: LeaseId,
    /// The step's number within the lease, from 0 or 1 on.
    pub seq: u64,
    /// The step.
    pub event: Value,
    /// When.
    pub at_ms: u64,
}

/// A canary rental.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRecord {
    /// Its lease.
    pub id: LeaseId,
    /// The miner.
    pub miner: Hotkey,
    /// The devices that are rented.
    pub devices: Vec<DeviceId>,
    /// When it began.
    pub begun_ms: u64,
    /// Whether it is made over the original's protocol, at a miner that speaks no other.
    #[serde(default)]
    pub original: bool,
}

/// A canary rental that perhaps holds what it rented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCanary {
    /// The rental, and what it came to if it has ended.
    pub row: CanaryRow,
    /// The key that owns the rental, where that was made over the original's protocol.
    pub original_key: Option<PublicKey>,
}

/// A canary rental and what it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRow {
    /// The rental.
    #[serde(flatten)]
    pub record: CanaryRecord,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// What it came to, once it has ended.
    pub report: Option<Report>,
}
