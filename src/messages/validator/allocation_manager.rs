//! Messages of [`crate::actors::validator::allocation_manager::AllocationManager`].

use std::collections::HashMap;
use std::time::Duration;

use actix::Message;
use serde::Serialize;

use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::Lease;

/// What a renter asks for.
#[derive(Debug, Clone)]
pub struct RentRequest {
    /// On whose behalf.
    pub renter: Hotkey,
    /// Only this model, if given.
    pub model: Option<String>,
    /// How many devices, all of one miner; at least 1.
    pub devices: usize,
    /// How long, unless released or renewed before.
    pub duration: Duration,
    /// The container image.
    pub image: String,
    /// The renter's public SSH key, one line in OpenSSH format.
    pub ssh_key: String,
}

/// Rent devices for a user. Replies when the container runs, or says why not.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Lease, RentError>")]
pub struct Rent(pub RentRequest);

/// End a lease. Replies when the miner has confirmed it; a repeat after that is answered the same.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Lease, RentError>")]
pub struct Release(pub LeaseId);

/// Every lease of this validator that has not ended.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<Lease>")]
pub struct ListLeases;

/// The devices that leases of this validator hold, by miner, those that begin or end included: they are not challenged.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "HashMap<Hotkey, Vec<DeviceId>>")]
pub struct LeasedDevices;

/// The devices of live leases of this validator, by miner: only these count as allocated. A lease that is being released
/// does not: a miner could be paid for as long as it does not confirm.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "HashMap<Hotkey, Vec<DeviceId>>")]
pub struct AllocatedDevices;

/// Why a rental was not made or not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "error", content = "detail")]
pub enum RentError {
    /// The request itself cannot be served.
    #[error("the request is not valid: {0}")]
    Invalid(String),
    /// No miner has enough proved and free devices.
    #[error("no proved and free devices that fit: {0}")]
    NoneFree(String),
    /// The miner refused.
    #[error("the miner refused: {0}")]
    Refused(String),
    /// The miner did not answer; the lease is being released in the background.
    #[error("the miner did not answer in time: {0}")]
    NoAnswer(String),
    /// There is no such lease.
    #[error("no lease with this id")]
    UnknownLease,
    /// The lease cannot be recorded, so nothing was started.
    #[error("the journal cannot record the lease: {0}")]
    Journal(String),
}
