//! Messages of [`crate::actors::validator::allocation_manager::AllocationManager`].

use std::collections::HashMap;
use std::time::Duration;

use actix::Message;
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Hash32, Hotkey, LeaseId};
use crate::lease::Lease;
use crate::rental::{Candidate, Requirements};
use crate::wire::synapse::LeaseChange;

/// What a renter asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RentRequest {
    /// The lease, chosen at random by whoever asks, so that it can ask again: a repeat with the same id and the same
    /// wish is the same lease, also after a restart of the validator. Without one the validator draws it.
    pub id: Option<LeaseId>,
    /// On whose behalf.
    pub renter: Hotkey,
    /// Only this miner, if given.
    pub miner: Option<Hotkey>,
    /// What its machine must have.
    pub requirements: Requirements,
    /// How long, unless released or renewed before.
    pub duration: Duration,
    /// The container image.
    pub image: String,
    /// The renter's public SSH key, one line in OpenSSH format.
    pub ssh_key: String,
}

impl RentRequest {
    /// Digest of everything that is asked for but the id, each field with its length: it tells a repeat from another
    /// wish under the same id. What older versions could not ask for enters only where it is asked for, so that their
    /// wishes stay the same.
    pub fn wish(&self) -> Hash32 {
        let mut h = blake3::Hasher::new_derive_key("compute-lease/1 wish");
        let mut field = |bytes: &[u8]| {
            h.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        field(&self.renter.0);
        let Requirements { devices, model, gpu_memory_bytes, cpus, ram_bytes, disk_bytes } = &self.requirements;
        field(&[u8::from(model.is_some())]);
        field(model.as_deref().unwrap_or_default().as_bytes());
        field(&(*devices as u64).to_le_bytes());
        field(&self.duration.as_nanos().to_le_bytes());
        field(self.image.as_bytes());
        field(self.ssh_key.as_bytes());
        let later = [*gpu_memory_bytes, u64::from(*cpus), *ram_bytes, *disk_bytes];
        if later != [0; 4] || self.miner.is_some() {
            later.iter().for_each(|n| field(&n.to_le_bytes()));
            field(self.miner.as_ref().map_or(&[][..], |miner| &miner.0));
        }
        Hash32(h.finalize().into())
    }
}

/// Rent devices for a user. Replies when the container runs, or says why not. A repeat (same id, same wish) makes no
/// second lease: it is answered with the lease as it is now, ended ones included, or with why it never began.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Lease, RentError>")]
pub struct Rent(pub RentRequest);

/// Rent these devices of this miner for a canary. Replies when the container runs, or says why not. Unlike [`Rent`] it is
/// not repeated, and the devices need not be proved; the lease never counts as allocated.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Lease, RentError>")]
pub struct RentCanary {
    /// The lease: fresh, and on record as a canary.
    pub id: LeaseId,
    /// The miner.
    pub miner: Hotkey,
    /// The devices, each once.
    pub devices: Vec<DeviceId>,
    /// How long, should nobody release it.
    pub duration: Duration,
    /// The container image; empty for the miner's default.
    pub image: String,
    /// The public key that may log in.
    pub ssh_key: String,
}
/// Who would be asked for this rental now, in which order and why, and why the others would not be. Nothing is set aside.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Vec<Candidate>, RentError>")]
pub struct ShowCandidates(pub RentRequest);

/// End a lease. Replies when the miner has confirmed it; a repeat after that is answered the same.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Lease, RentError>")]
pub struct Release(pub LeaseId);

/// Change the container of a running lease. Replies when the miner has confirmed it.
#[derive(Debug, Clone, Message)]
#[rtype(result = "Result<Lease, RentError>")]
pub struct ChangeLease {
    /// Which.
    pub id: LeaseId,
    /// What to do.
    pub change: LeaseChange,
}

/// Let a lease last for so long from now, which is longer than it would. Replies when the miner has confirmed it.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Lease, RentError>")]
pub struct RenewLease {
    /// Which.
    pub id: LeaseId,
    /// How long, from now.
    pub lasts: Duration,
}

/// One lease of this validator, running or ended, as it is now.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Lease, RentError>")]
pub struct ShowLease(pub LeaseId);

/// Every lease of this validator that has not ended.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<Lease>")]
pub struct ListLeases;

/// The devices that leases of this validator hold, by miner, those that begin or end included: they are not challenged. Those of
/// a lease that ends because nothing is seen of it any more are, and those that a miner was asked to release and has not
/// confirmed for two attempts.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "HashMap<Hotkey, Vec<DeviceId>>")]
pub struct LeasedDevices;

/// The devices of live leases of this validator, by miner: only these count as allocated. A lease that is being released
/// does not, nor one that the miner has not confirmed in two checks running: a miner could be paid for as long as it
/// does not answer.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "HashMap<Hotkey, Vec<DeviceId>>")]
pub struct AllocatedDevices;

/// Why a rental was not made or not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "error", content = "detail")]
pub enum RentError {
    /// The request itself cannot be served.
    #[error("the request is not valid: {0}")]
    Invalid(String),
    /// No miner has enough proved and free devices.
    #[error("no proved and free devices that fit: {0}")]
    NoneFree(String),
    /// The miner refused, or the lease of this id never began. Final for this id.
    #[error("the lease did not begin: {0}")]
    Refused(String),
    /// The id belongs to another wish. Final for this id.
    #[error("lease {0} was asked for with another wish; choose a new id for a new one")]
    OtherWish(LeaseId),
    /// The validator makes no new leases at present: maintenance, or it is draining.
    #[error("no new leases: {0}")]
    Draining(String),
    /// The lease is being made or changed at this moment: ask again.
    #[error("the lease is being changed, ask again")]
    Busy,
    /// The validator itself does not answer; whether it did anything is not known: ask again with the same id.
    #[error("the validator does not answer: {0}")]
    Unavailable(String),
    /// The miner did not answer; the lease is being released in the background.
    #[error("the miner did not answer in time: {0}")]
    NoAnswer(String),
    /// The lease stays as it is: its miner refuses the change, or it is not running.
    #[error("the lease stays as it is: {0}")]
    NotChanged(String),
    /// There is no such lease.
    #[error("no lease with this id")]
    UnknownLease,
    /// The lease cannot be recorded, so nothing was started.
    #[error("the journal cannot record the lease: {0}")]
    Journal(String),
}

impl RentError {
    /// Whether asking again with the same id can lead to a lease.
    pub fn is_final(&self) -> bool {
        matches!(self, RentError::Invalid(_) | RentError::Refused(_) | RentError::OtherWish(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_the_same_under_any_id_and_another_with_any_other_field() {
        let wish = RentRequest {
            id: None,
            renter: Hotkey([1; 32]),
            miner: None,
            requirements: Requirements::any(1),
            duration: Duration::from_secs(60),
            image: "ubuntu".into(),
            ssh_key: "ssh-ed25519 AAAA".into(),
        };
        assert_eq!(RentRequest { id: Some(LeaseId([7; 16])), ..wish.clone() }.wish(), wish.wish());
        let with = |requirements| RentRequest { requirements, ..wish.clone() };
        let others = [
            RentRequest { renter: Hotkey([2; 32]), ..wish.clone() },
            RentRequest { miner: Some(Hotkey([1; 32])), ..wish.clone() },
            with(Requirements { model: Some(String::new()), ..Requirements::any(1) }),
            with(Requirements::any(2)),
            with(Requirements { gpu_memory_bytes: 1, ..Requirements::any(1) }),
            with(Requirements { cpus: 1, ..Requirements::any(1) }),
            with(Requirements { ram_bytes: 1, ..Requirements::any(1) }),
            with(Requirements { disk_bytes: 1, ..Requirements::any(1) }),
            RentRequest { duration: Duration::from_secs(61), ..wish.clone() },
            RentRequest { image: "ubuntus".into(), ssh_key: "sh-ed25519 AAAA".into(), ..wish.clone() },
            RentRequest { ssh_key: String::new(), ..wish.clone() },
        ];
        let digests: std::collections::HashSet<Hash32> = others.iter().chain([&wish]).map(RentRequest::wish).collect();
        assert_eq!(digests.len(), others.len() + 1);
    }

    #[test]
    fn a_wish_of_an_earlier_version_is_still_the_same() {
        let wish = RentRequest {
            id: None,
            renter: Hotkey([1; 32]),
            miner: None,
            requirements: Requirements { model: Some("cpu-1".into()), ..Requirements::any(2) },
            duration: Duration::from_secs(60),
            image: "ubuntu".into(),
            ssh_key: "ssh-ed25519 AAAA".into(),
        };
        assert_eq!(wish.wish().to_string(), "0c42c8cad2b673b17547ee9d5561c98a1e41c799eb96f9cef29c36a1837745c2");
    }
}
