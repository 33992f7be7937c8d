//! Messages of [`crate::actors::miner::allocation_manager::AllocationManager`].

use std::time::Duration;

use actix::Message;
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Hash32, Hotkey, LeaseId};
use crate::lease::reconcile::QuarantineReason;
use crate::lease::{Command, ContainerState, Lease, OwnerToken};
use crate::scoring::LeaseReceipt;
use crate::wire::synapse::{
    AllocateReply, AllocateRequest, LeaseChangeReply, LeaseChangeRequest, LeaseRefusal, LeaseStatusReply,
    LeaseStatusRequest, ReleaseReply, ReleaseRequest, RenewReply, RenewRequest,
};

/// A validator asks for a container; `caller` is the verified hotkey of the request's header.
#[derive(Debug, Message)]
#[rtype(result = "AllocateReply")]
pub struct Allocate {
    /// Who asks.
    pub caller: Hotkey,
    /// For what.
    pub request: AllocateRequest,
}

/// A validator gives a container back.
#[derive(Debug, Clone, Message)]
#[rtype(result = "ReleaseReply")]
pub struct Release {
    /// Who asks.
    pub caller: Hotkey,
    /// What to end.
    pub request: ReleaseRequest,
}

/// The operator of this machine ends a lease against its renter's will. Replies when the container is gone; the renting
/// validator sees that with its next check.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Lease, ForceError>")]
pub struct ForceRelease {
    /// Which lease.
    pub lease: LeaseId,
    /// The operator's reason, for the log.
    pub reason: String,
}

/// Why a lease was not ended by the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForceError {
    /// There is no such lease.
    #[error("no lease with this id")]
    Unknown,
    /// The lease, or all of them, cannot be changed at this moment.
    #[error("{0}, ask again")]
    Busy(&'static str),
    /// The step is not done; what is on record is finished by the next comparison with the engine.
    #[error("{0}")]
    NotDone(String),
}

/// A validator asks how a lease is.
#[derive(Debug, Message)]
#[rtype(result = "LeaseStatusReply")]
pub struct LeaseStatus {
    /// Who asks.
    pub caller: Hotkey,
    /// About what.
    pub request: LeaseStatusRequest,
}

/// The receipts of live leases that are still valid, the newest of each.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<LeaseReceipt>")]
pub struct HeldReceipts;
/// A validator changes a lease's container. A repeat with the same key gets the first answer again, as long as this actor
/// lives.
#[derive(Debug, Message)]
#[rtype(result = "LeaseChangeReply")]
pub struct ChangeLease {
    /// Who asks.
    pub caller: Hotkey,
    /// What to do.
    pub request: LeaseChangeRequest,
}

/// A validator lets a lease last longer.
#[derive(Debug, Message)]
#[rtype(result = "RenewReply")]
pub struct Renew {
    /// Who asks.
    pub caller: Hotkey,
    /// Until when.
    pub request: RenewRequest,
}

/// A caller of the original's protocol rents the whole machine; `caller` is the verified hotkey of the request's header.
/// The lease lasts only once [`MachineHeard`] was accepted for it.
#[derive(Debug, Message)]
#[rtype(result = "Result<Lease, NotRented>")]
pub struct AllocateMachine {
    /// Who asks.
    pub caller: Hotkey,
    /// The lease it becomes: a random one.
    pub lease: LeaseId,
    /// What later calls about the lease must show.
    pub owner_token: OwnerToken,
    /// The public key that may log in, if any.
    pub ssh_key: Option<String>,
    /// The image; empty for the one that the engine takes when nobody asks.
    pub image: String,
    /// For how long; the longest lease that is accepted if that is shorter.
    pub lasts: Duration,
}

/// Why the machine is not rented.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct NotRented {
    /// Why, in the words of the wire.
    pub reason: LeaseRefusal,
    /// For people.
    pub detail: String,
}

/// The renter of [`AllocateMachine`] is about to be told that it has the machine. Accepted means written to the journal:
/// what is not is ended with the next restart, or after a while.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<(), NotKept>")]
pub struct MachineHeard {
    /// Who asked for it.
    pub caller: Hotkey,
    /// The lease it became.
    pub lease: LeaseId,
}

/// Why a renter must not be told that it has the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the rental is not kept: {0}")]
pub struct NotKept(pub String);

/// Whoever asked for [`AllocateMachine`] will not hear the answer: the lease is ended, also if it is only being made, and
/// tried again with every comparison until it has.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Abandon(pub Release);

/// A caller of the original's protocol returns the machine that its token owns.
#[derive(Debug, Message)]
#[rtype(result = "ReleaseReply")]
pub struct ReleaseMachine {
    /// Who asks.
    pub caller: Hotkey,
    /// What it shows.
    pub owner_token: OwnerToken,
}

/// A caller of the original's protocol changes the container that its token owns: pauses it, lets it run again, restarts it,
/// changes who may log in. Replies what the lease is then.
#[derive(Debug, Message)]
#[rtype(result = "Result<Lease, ChangeError>")]
pub struct ChangeMachine {
    /// Who asks.
    pub caller: Hotkey,
    /// What it shows.
    pub owner_token: OwnerToken,
    /// What to do.
    pub command: Command,
}

/// Why a container stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The token owns no lease of this caller.
    #[error("no lease of this hotkey belongs to this key")]
    Unknown,
    /// The lease, or all of them, cannot be changed at this moment.
    #[error("{0}, ask again")]
    Busy(&'static str),
    /// The lease's state does not allow it, or what is wanted makes no sense.
    #[error("{0}")]
    NotAllowed(String),
    /// The journal did not take it.
    #[error("{0}")]
    NotRecorded(String),
    /// The engine did not do it, or did not say so; what is on record is finished by the next comparison with the engine.
    #[error("{0}")]
    NotDone(String),
}

/// What callers of the original's protocol may know of this machine; published, so that they cost the actor nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineOffer {
    /// Whether no device is rented, about to be, or set aside, so that the whole machine could be rented.
    pub free: bool,
    /// Digests of the tokens that own a running container.
    pub running: Vec<Hash32>,
}

/// Every lease of this machine that has not ended.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<Lease>")]
pub struct ListLeases;

/// The devices that are rented, about to be, or in use by a container that no record explains, with the lease. Waits until
/// the leases are known.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<(DeviceId, LeaseId)>")]
pub struct RentedDevices;

/// Containers that are set aside: nobody here owns them, but somebody may.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<SetAside>")]
pub struct ListSetAside;

/// A container that is set aside, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// The engine's name of it.
    pub container: String,
    /// The lease on its labels.
    pub lease: LeaseId,
    /// The fencing epoch on its labels.
    pub fencing_epoch: u64,
    /// The renting validator on its labels.
    pub renter: Hotkey,
    /// Its devices; no lease gets them meanwhile.
    pub devices: Vec<DeviceId>,
    /// What it does.
    pub state: ContainerState,
    /// The end on its labels, in milliseconds since the Unix epoch; its lease may have been extended since.
    pub expires_at_ms: u64,
    /// Why.
    pub why: QuarantineReason,
    /// When it is destroyed unless somebody claims it, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// Compare leases with the engine now.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Reconcile;
