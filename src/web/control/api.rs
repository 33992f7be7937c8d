//! What is asked and answered on the control socket. Times are milliseconds since the Unix epoch.

use serde::{Deserialize, Serialize};

use crate::actors::duty::Duty;
use crate::admission::Subject;
use crate::ids::{BlockNumber, DeviceId, Epoch, Hotkey, LeaseId, Uid};
use crate::lease::Lease;
use crate::messages::miner::allocation_manager::SetAside;
use crate::messages::validator::memory_runner::MemoryJudged;
use crate::rental::{Candidate, Requirements};
use crate::scoring::Points;
use crate::settings::Line;
use crate::store::Role;
use crate::store::records::{CanaryRow, LeaseEventRecord, PenaltyRecord};
use crate::web::Readiness;

/// `GET /v1/status`: the node in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Miner or validator.
    pub role: Role,
    /// The key it acts with.
    pub hotkey: Hotkey,
    /// Its slot, once the chain shows one.
    pub uid: Option<Uid>,
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Random text that no other start of any node has.
    pub instance: String,
    /// When it started.
    pub started_at_ms: u64,
    /// Its data directory.
    pub data_dir: String,
    /// The chain's head as the node sees it.
    pub block: Option<BlockNumber>,
    /// The epoch of that head.
    pub epoch: Option<Epoch>,
    /// Whether it can do its work, and why not.
    pub readiness: Readiness,
    /// Maintenance and drain.
    pub duty: Duty,
    /// How many leases have not ended, if their actor says so now.
    pub open_leases: Option<usize>,
}

/// `GET /v1/config`: the settings in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// By key.
    pub settings: Vec<Line>,
}

/// `POST /v1/maintenance`: begin or end maintenance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceWish {
    /// Whether it is to be on.
    pub on: bool,
    /// Why, for whoever is refused.
    #[serde(default)]
    pub note: String,
}

/// `POST /v1/drain`: take no new leases, then end like after SIGTERM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainWish {
    /// Whether to wait until every lease has ended. Asked again without it, the node no longer waits.
    #[serde(default)]
    pub wait_for_leases: bool,
}

/// `GET /v1/penalties`: the penalties in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Penalties {
    /// In the order of their ends.
    pub penalties: Vec<PenaltyRecord>,
}

/// `POST /v1/penalties`: refuse a peer for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PenaltyWish {
    /// Whom: a hotkey or an address.
    pub subject: Subject,
    /// Why, safe to publish.
    pub reason: String,
    /// For how long, in seconds.
    pub duration_s: u64,
}

/// `DELETE /v1/penalties/{subject}`: what it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifted {
    /// Whether a penalty was in force.
    pub lifted: bool,
}

/// `GET /v1/leases`: the leases that have not ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    /// In the order they were asked for.
    pub leases: Vec<Lease>,
    /// On a validator: those that ended last, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<Lease>,
    /// On a miner: containers that no lease here explains, kept until somebody claims them or their time is over, in that
    /// order; `until_ms` says when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<SetAside>,
}

/// `GET /v1/leases/{id}`: one lease, ended or not, with its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseHistory {
    /// The lease as recorded last.
    pub lease: Lease,
    /// Its steps, oldest first.
    pub history: Vec<LeaseEventRecord>,
}

/// `POST /v1/leases`: rent devices. Validators only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RentWish {
    /// The lease's id, chosen by who asks, so that a repeat is the same wish; by default the node chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<LeaseId>,
    /// On whose behalf.
    pub renter: Hotkey,
    /// Only this miner, if given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miner: Option<Hotkey>,
    /// What its machine must have.
    #[serde(default)]
    pub requirements: Requirements,
    /// How long, in seconds, unless released before.
    pub duration_s: u64,
    /// The container image.
    pub image: String,
    /// The renter's public SSH key, one line in OpenSSH's format.
    pub ssh_key: String,
}

/// `POST /v1/leases/{id}/renew`: let a lease last longer. Validators only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewWish {
    /// For how long from now, in seconds: longer than it would last.
    pub duration_s: u64,
}

/// `GET /v1/canaries`: the last canary rentals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canaries {
    /// The latest first.
    pub canaries: Vec<CanaryRow>,
}

/// `POST /v1/candidates` with a [`RentWish`]: who would be asked for it now. Validators only; nothing is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidates {
    /// First those that fit, in the order in which they would be asked, then the others by uid.
    pub candidates: Vec<Candidate>,
}

/// The query of `DELETE /v1/leases/{id}`. A miner ends a lease only by force, with a reason; a validator needs neither.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseWish {
    /// Against the renter's will.
    #[serde(default)]
    pub force: bool,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// `GET /v1/table`: what the validator thinks of each neuron.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The chain's head as the validator sees it.
    pub block: Option<BlockNumber>,
    /// The epoch judged last.
    pub judged: Option<Epoch>,
    /// The epoch whose weights are on the chain.
    pub on_chain: Option<Epoch>,
    /// What the last round of memory proofs since the start came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryJudged>,
    /// Why weights were refused or failed last, until some are set.
    pub problem: Option<String>,
    /// The neurons that could be miners, by uid.
    pub rows: Vec<TableRow>,
}

/// One neuron in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRow {
    /// Its slot.
    pub uid: Uid,
    /// Its key.
    pub hotkey: Hotkey,
    /// The model of its first device, as claimed.
    pub model: Option<String>,
    /// How many devices it was judged on.
    pub devices: usize,
    /// `pass`, `fail: REASON`, `unknown: CAUSE`, `refused: REASON`, or what else there is to say of the first device; empty
    /// before the first judgement.
    pub verdict: String,
    /// The rate of the first device in operations a second, if it is proved or its last pass still counts.
    pub rate: Option<u64>,
    /// The score in 10⁻⁹ points.
    pub score: Option<Points>,
    /// The weight that follows, 0…65,535.
    pub weight: Option<u16>,
    /// Its leases at this validator.
    pub leases: Vec<TableLease>,
}

/// A lease in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableLease {
    /// The lease.
    pub id: LeaseId,
    /// Its state's name.
    pub state: String,
    /// The devices it holds.
    pub devices: Vec<DeviceId>,
}
