//! Rentals for canaries: devices that are named, returned within minutes, and never counted as allocated.

use actix::prelude::*;

use super::calls::token;
use super::rent::{Reply, not_loaded};
use super::steps::{Asked, Call, IN_PROOF, InProof, refuse, rent};
use super::{AllocationManager, FIRST_EPOCH};
use crate::clock::millis;
use crate::ids::DeviceId;
use crate::lease::Role;
use crate::lease::machine::LeaseTerms;
use crate::messages::validator::allocation_manager::{RentCanary, RentError};
use crate::runtime::Ctx;
use crate::wire::dendrite::Peer;

impl Handler<RentCanary> for AllocationManager {
    type Result = Reply;
    fn handle(
        &mut self,
        RentCanary { id, miner, devices, duration, image, ssh_key }: RentCanary,
        _: &mut Ctx<Self>,
    ) -> Reply {
        if !self.loaded {
            return self.reply(Err(not_loaded()));
        }
        if self.book.get(id).is_some() || self.book.is_busy(id) {
            return self.reply(Err(RentError::OtherWish(id)));
        }
        self.setup = self.live.get();
        if let Some(why) = self.setup.duty.borrow().refuses_leases() {
            return self.reply(Err(RentError::Draining(why)));
        }
        let held = self.devices(|l| l.state.holds_devices());
        let wanted = self.wanted.values().filter(|(of, _)| *of == miner).flat_map(|(_, wanted)| wanted);
        let taken =
            |device: &DeviceId| wanted.clone().chain(held.get(&miner).into_iter().flatten()).any(|d| d == device);
        if let Some(device) = devices.iter().find(|device| taken(device)) {
            return self.reply(Err(RentError::NoneFree(format!("{device} is rented already"))));
        }
        let view = self.setup.view.borrow().clone();
        let addr = view.filter(|v| !v.is_stored()).and_then(|v| v.metagraph.axon_address(&miner));
        let Some(addr) = addr else {
            return self.reply(Err(RentError::NoneFree("the miner's address is not known".into())));
        };
        let now = self.setup.clock.now_ms();
        let terms = LeaseTerms {
            id,
            role: Role::Renter,
            fencing_epoch: FIRST_EPOCH,
            renter: self.setup.hotkey,
            miner,
            devices: devices.clone(),
            expires_at_ms: now.saturating_add(millis(duration)),
            owner_token_digest: token(&self.setup, id).digest(),
            ssh_public_key: Some(ssh_key),
            image,
            wish: None,
            unheard: false,
        };
        if let Err(error) = terms.check(now, self.setup.longest) {
            return self.reply(Err(RentError::Invalid(error.to_string())));
        }
        self.wanted.insert(id, (miner, devices.clone()));
        self.canaries.insert(id);
        self.book.begin(id);
        let (setup, proved) = (self.setup.clone(), self.proved_of(&miner));
        let call = Call { peer: Peer { hotkey: miner, addr }, devices, renter: setup.hotkey, terms, proved };
        let work = async move {
            match rent(setup.clone(), call, None).await {
                Err(InProof(_)) => (None, Some(RentError::NoneFree(IN_PROOF.to_owned()))),
                Ok(Asked::Running(entry)) => (Some(*entry), None),
                Ok(Asked::Free { entry, error, .. }) => {
                    (Some(refuse(&setup, *entry, error.to_string()).await), Some(error))
                }
                Ok(Asked::Over { entry, error, .. }) => (entry.map(|entry| *entry), Some(error)),
            }
        };
        Box::pin(work.into_actor(self).map(move |(entry, error), act, _| {
            act.wanted.remove(&id);
            let lease = entry.as_ref().map(|e| e.lease.clone());
            if entry.is_none() {
                act.canaries.remove(&id);
            }
            act.changed(id, entry);
            match (error, lease) {
                (None, Some(lease)) => Ok(lease),
                (None, None) => Err(RentError::Journal("the lease is not on record".into())),
                (Some(error), _) => Err(error),
            }
        }))
    }
}
