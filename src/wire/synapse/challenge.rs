//! Specs, challenges and openings.

use serde::{Deserialize, Deserializer, Serialize};

use crate::ids::{ChallengeId, DeviceId, Epoch, Hash32, LeaseId};
use crate::scoring::LeaseReceipt;
use crate::scoring::presented::MAX_OF_ONE;
use crate::verdict::UnknownCause;

/// Asks a miner what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecsRequest {}

/// What a miner says it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpecsReply {
    /// Version of the miner's program.
    #[serde(default)]
    pub version: String,
    /// The hardware, in the JSON of [`crate::hardware`].
    #[serde(default)]
    pub specs: serde_json::Value,
    /// The devices it can be challenged on.
    #[serde(default)]
    pub devices: Vec<DeviceOffer>,
    /// The leases whose containers it holds.
    #[serde(default)]
    pub leases: Vec<LeaseId>,
    /// What shows that validators rent it: the newest receipt of each lease. One that this version cannot read is left out.
    #[serde(default, deserialize_with = "readable", skip_serializing_if = "Vec::is_empty")]
    pub receipts: Vec<LeaseReceipt>,
}

/// The receipts that can be read, the first ones: of what a peer sends no more is ever looked at.
fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<LeaseReceipt>, D::Error> {
    let all = Vec::<serde_json::Value>::deserialize(deserializer)?;
    Ok(all.into_iter().take(MAX_OF_ONE).filter_map(|one| serde_json::from_value(one).ok()).collect())
}

/// A device that a miner offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOffer {
    /// Which device.
    pub device: DeviceId,
    /// Its model, as NVML spells it, or the class of a CPU device.
    pub model: String,
    /// Its memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// A challenge: work for each device, all of them at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeRequest {
    /// Which challenge.
    pub challenge: ChallengeId,
    /// The fresh 32 bytes that the seeds are derived from.
    pub nonce: Hash32,
    /// The epoch it counts for.
    pub epoch: Epoch,
    /// The work of each device.
    pub devices: Vec<DeviceWork>,
}

/// The work of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWork {
    /// Which device.
    pub device: DeviceId,
    /// Side of the product matrix.
    pub n: u32,
    /// Length of the dot products.
    pub k: u32,
    /// Rounds, each seeded by the root of the one before.
    pub rounds: u32,
}

/// A challenge of memory: fill that of each device, all of them at once. Answered with [`ChallengeReply::Ready`]. The same
/// challenge again is answered as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryFillRequest {
    /// Which challenge.
    pub challenge: ChallengeId,
    /// The fresh 32 bytes that the blocks are derived from.
    pub nonce: Hash32,
    /// The epoch it counts for.
    pub epoch: Epoch,
    /// The memory of each device.
    pub devices: Vec<DeviceMemory>,
}

/// The memory of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// Which device.
    pub device: DeviceId,
    /// Blocks of 1 KiB.
    pub blocks: u64,
    /// Iterations of each block.
    pub iterations: u32,
    /// Scans.
    pub scans: u32,
}

/// Asks for the scans of the memory that a challenge filled, once. Answered with [`ChallengeReply::Roots`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryScanRequest {
    /// Of which challenge.
    pub challenge: ChallengeId,
    /// The fresh 32 bytes of the first scan.
    pub nonce: Hash32,
}

/// Asks for blocks of the scans. The reply is, for each position in this order, the three other digests of the block's
/// group followed by the path. Once the positions of all devices are opened the memory is given back; the same positions
/// may be asked for again, others not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryOpenRequest {
    /// Of which challenge.
    pub challenge: ChallengeId,
    /// Of which device.
    pub device: DeviceId,
    /// Scan and block, each from 0.
    pub positions: Vec<[u32; 2]>,
}

/// The answer to a challenge of work, to one of memory, and to the request for its scans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ChallengeReply {
    /// The memory is filled.
    Ready,
    /// The commitments: from here on the miner is answerable.
    Roots {
        /// One entry for each device asked.
        devices: Vec<DeviceRoots>,
    },
    /// Another window is being served.
    Busy {
        /// When to ask again.
        until_ms: u64,
    },
    /// The miner will not do this work.
    Refused {
        /// Why not.
        reason: ChallengeRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
    /// The miner's own prover failed.
    ProverFailed {
        /// On which device.
        device: DeviceId,
        /// How.
        kind: ProverFailure,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

impl ChallengeReply {
    /// Why this reply leaves the verdict unknown; `None` for roots, which are judged, and for filled memory.
    pub fn unknown_cause(&self) -> Option<UnknownCause> {
        match self {
            ChallengeReply::Ready | ChallengeReply::Roots { .. } => None,
            ChallengeReply::Busy { .. } => Some(UnknownCause::Busy),
            ChallengeReply::Refused { reason, .. } => Some(match reason {
                ChallengeRefusal::Budget => UnknownCause::BudgetRefused,
                ChallengeRefusal::NoDevice => UnknownCause::NoDevice,
                ChallengeRefusal::Rented => UnknownCause::Rented,
                ChallengeRefusal::Invalid
                | ChallengeRefusal::Draining
                | ChallengeRefusal::NoSlot
                | ChallengeRefusal::WrongEpoch
                | ChallengeRefusal::AlreadyChallenged
                | ChallengeRefusal::Gone
                | ChallengeRefusal::Other => UnknownCause::Refused,
            }),
            ChallengeReply::ProverFailed { kind, .. } => Some(match kind {
                ProverFailure::Crashed | ProverFailure::Other => UnknownCause::ProverCrashed,
                ProverFailure::Hung => UnknownCause::ProverHung,
                ProverFailure::Garbage => UnknownCause::ProverGarbage,
                ProverFailure::Device => UnknownCause::DeviceFailed,
            }),
        }
    }
}

/// The roots of one device, one for each round or scan, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRoots {
    /// Which device.
    pub device: DeviceId,
    /// Merkle roots of the rounds or scans.
    pub roots: Vec<Hash32>,
}

/// Why a miner refuses a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeRefusal {
    /// More operations, memory or time than the miner's own budget allows.
    Budget,
    /// A device named is not here.
    NoDevice,
    /// A device named is rented.
    Rented,
    /// The values are outside what a challenge may have.
    Invalid,
    /// The miner is shutting down.
    Draining,
    /// The caller has no slot in this epoch.
    NoSlot,
    /// The epoch is not the one that the miner sees.
    WrongEpoch,
    /// The caller had its challenge of this epoch: the roots were sent, or the memory was filled.
    AlreadyChallenged,
    /// The memory that was filled is held no longer: the miner was restarted, a rental took the device, or its time was over.
    Gone,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// How a prover failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProverFailure {
    /// Ended early.
    Crashed,
    /// Did not end in its time.
    Hung,
    /// Wrote something that is no answer.
    Garbage,
    /// The device cannot be used, failed, was lost, or has too little memory.
    Device,
    /// A failure that this version does not know.
    #[serde(other)]
    Other,
}

/// Asks for tiles of a commitment. The reply is, for each position in this order, the tile followed by its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningsRequest {
    /// Of which challenge.
    pub challenge: ChallengeId,
    /// Of which device.
    pub device: DeviceId,
    /// Round, row and column of an entry in the tile, each from 0.
    pub positions: Vec<[u32; 3]>,
}
