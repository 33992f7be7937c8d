//! Leases: allocate, look, change, renew, release.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::OwnerToken;
use crate::lease::fencing::CallKey;
use crate::scoring::LeaseReceipt;

use super::login::{ReplyKey, SealedLogin};

/// Asks a miner to run a renter's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateRequest {
    /// Which lease; repeats with the same lease and epoch are the same allocation.
    pub lease: LeaseId,
    /// The lease's fencing epoch; a request with an older one than the miner has seen is refused.
    pub fencing_epoch: u64,
    /// When the container ends unless renewed.
    pub expires_at_ms: u64,
    /// For whom.
    pub renter: Hotkey,
    /// The container image.
    pub image: String,
    /// The public key, in OpenSSH's one-line form, that may log in.
    pub ssh_key: String,
    /// The devices the container gets.
    pub devices: Vec<DeviceId>,
    /// The secret that later calls about this lease must show.
    pub owner_token: OwnerToken,
    /// The key under which the reply hides where to log in; renters of old versions send none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_key: Option<ReplyKey>,
}

/// The answer to an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AllocateReply {
    /// The container runs and its SSH port answers.
    Running {
        /// Host to log in to; empty where `login` tells it.
        ssh_host: String,
        /// Port to log in to; 0 where `login` tells it.
        ssh_port: u16,
        /// The container's identity at the engine.
        container: String,
        /// How to log in, for a caller that sent a key for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login: Option<SealedLogin>,
    },
    /// Nothing was started.
    Refused {
        /// Why not.
        reason: LeaseRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

/// Why a call about a lease is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseRefusal {
    /// A device has a lease already.
    DeviceBusy,
    /// A device named is not here.
    NoDevice,
    /// The fencing epoch is older than one seen.
    StaleEpoch,
    /// The token or the calling hotkey is not the owner's.
    NotOwner,
    /// The expiry is in the past or too far ahead.
    Expiry,
    /// The image is not one that this miner runs, or cannot be had.
    Image,
    /// The SSH key is not a single valid public key.
    SshKey,
    /// The container engine failed.
    Engine,
    /// The miner cannot record leases now.
    Degraded,
    /// The miner takes no new leases: maintenance, or it is about to end.
    Draining,
    /// The lease is not in a state that allows it.
    State,
    /// The key of the call was used for another one.
    Reused,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// Asks a miner to end a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing epoch.
    pub fencing_epoch: u64,
    /// Its secret.
    pub owner_token: OwnerToken,
}

/// The answer to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ReleaseReply {
    /// The container is gone.
    Released,
    /// This miner knows no such lease.
    UnknownLease,
    /// The lease goes on.
    Refused {
        /// Why.
        reason: LeaseRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

/// Asks a miner how a lease is, and hands it the lease's receipt while the lease is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatusRequest {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing epoch.
    pub fencing_epoch: u64,
    /// Its secret.
    pub owner_token: OwnerToken,
    /// The caller's word that it holds the lease, for the miner to show to others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<LeaseReceipt>,
    /// The key under which the reply hides where to log in; none where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_key: Option<ReplyKey>,
    /// When the lease ends, as its renter has it: a miner that lost its records takes the container that is there back until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<u64>,
}

/// How a lease is on its miner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum LeaseStatusReply {
    /// The miner holds it.
    Known {
        /// The engine's state of the container.
        state: ContainerState,
        /// When it ends.
        expires_at_ms: u64,
        /// How to log in, for a caller that sent a key for it and a lease that has a container.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        login: Option<SealedLogin>,
    },
    /// This miner knows no such lease.
    UnknownLease,
    /// The miner does not answer this caller about it.
    Refused {
        /// Why.
        reason: LeaseRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

/// The engine's state of a lease's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Runs.
    Running,
    /// Stopped for now; it is still there.
    Paused,
    /// No longer there.
    Gone,
}

/// Asks a miner to change a lease's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseChangeRequest {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing epoch.
    pub fencing_epoch: u64,
    /// Its secret.
    pub owner_token: OwnerToken,
    /// Random, the same for every attempt at the same call: a repeat gets the first answer, and restarts nothing twice.
    #[serde(with = "hex::serde")]
    pub key: CallKey,
    /// What to do.
    pub change: LeaseChange,
}

/// What is done to a lease's container. Its files, port and host key stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum LeaseChange {
    /// Freeze its processes.
    Pause,
    /// Let them run again.
    Resume,
    /// End them and start it again; a paused container runs afterwards.
    Restart,
    /// From the next login on this key logs in, and the renter's former one does not.
    UserKey {
        /// One line in OpenSSH's format.
        ssh_key: String,
    },
    /// From the next login on this second key logs in too, and the former second one does not.
    TerminalKey {
        /// One line in OpenSSH's format; `None` for no second key.
        #[serde(default)]
        ssh_key: Option<String>,
    },
}

/// The answer to a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum LeaseChangeReply {
    /// The engine did it.
    Done {
        /// The container's state since.
        state: ContainerState,
    },
    /// This miner knows no such lease.
    UnknownLease,
    /// Not done, or not known to be.
    Refused {
        /// Why.
        reason: LeaseRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

/// Asks a miner to let a lease run longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing epoch.
    pub fencing_epoch: u64,
    /// Its secret.
    pub owner_token: OwnerToken,
    /// The new end.
    pub expires_at_ms: u64,
}

/// The answer to a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RenewReply {
    /// The lease runs until then.
    Renewed {
        /// The end that now holds.
        expires_at_ms: u64,
    },
    /// This miner knows no such lease.
    UnknownLease,
    /// The old end stands.
    Refused {
        /// Why.
        reason: LeaseRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}
