//! The machine as a whole, as callers of the original's protocol rent it: its offer, and the calls that name no lease but
//! show the token that owns one.

use super::*;
use crate::ids::Hash32;
use crate::messages::miner::allocation_manager::{
    Abandon, AllocateMachine, MachineHeard, NotKept, NotRented, ReleaseMachine,
};
use crate::wire::synapse::{ReleaseReply, ReleaseRequest};

/// Rentals to be ended, of which so many are remembered.
const REMEMBER_ABANDONED: usize = 1024;

impl AllocationManager {
    /// Publishes this machine's offer, and what is held. Until leases and engine have been compared nothing is free, and what was known
    /// before a restart of this actor stays.
    pub(super) fn publish(&self) {
        let running = || -> Vec<Hash32> {
            let running = self.book.open().filter(|l| l.state == LeaseState::Running);
            running.map(|l| l.owner_token_digest).collect()
        };
        let free = self.compared && self.ledger.devices().next().is_some() && self.ledger.held().next().is_none();
        // Before the leases are known the ledger is empty, and what was held before a restart still is.
        if *self.loaded.borrow() {
            let mut held: Vec<DeviceId> = self.ledger.held().map(|(device, _)| device).collect();
            held.sort_unstable();
            self.setup.held.send_if_modified(|known| {
                let changed = *known != held;
                *known = held;
                changed
            });
        }
        self.setup.offer.send_if_modified(|known| {
            let next = match self.compared {
                true => Some(MachineOffer { free, running: running() }),
                false => known.clone().map(|known| MachineOffer { free: false, ..known }),
            };
            let changed = *known != next;
            *known = next;
            changed
        });
    }
}

impl Handler<AllocateMachine> for AllocationManager {
    type Result = ResponseActFuture<Self, Result<Lease, NotRented>>;
    fn handle(&mut self, wish: AllocateMachine, _: &mut Ctx<Self>) -> Self::Result {
        let AllocateMachine { caller, lease: id, owner_token, ssh_key, image, lasts } = wish;
        if let Some(refusal) = self.cannot_open(caller, id) {
            return self.answer(Err(refusal));
        }
        let now = self.setup.clock.now_ms();
        let terms = LeaseTerms {
            id,
            role: Role::Provider,
            fencing_epoch: 1,
            renter: caller,
            miner: self.setup.hotkey,
            devices: self.ledger.devices().collect(),
            expires_at_ms: now.saturating_add(millis(lasts.min(self.setup.longest))),
            owner_token_digest: owner_token.digest(),
            ssh_public_key: ssh_key,
            image,
            wish: None,
            unheard: true,
        };
        self.open(terms, now)
    }
}

impl Handler<MachineHeard> for AllocationManager {
    type Result = ResponseActFuture<Self, Result<(), NotKept>>;
    fn handle(&mut self, MachineHeard { caller, lease: id }: MachineHeard, _: &mut Ctx<Self>) -> Self::Result {
        let answer = |act: &Self, problem: &str| act.answer(Err(NotKept(problem.to_owned())));
        if !self.compared {
            return answer(self, NOT_COMPARED);
        }
        match self.book.get(id) {
            Some(known) if known.lease.renter == caller => {}
            _ => return answer(self, "there is no such lease of this caller"),
        }
        let Some(entry) = self.book.take(id) else {
            return answer(self, "it is being changed");
        };
        let setup = self.setup.clone();
        let work = async move { write(&setup, &entry, &[Event::Heard]).await };
        let told = work.into_actor(self).map(move |written, act, ctx: &mut Ctx<Self>| {
            let (entry, told) = match written {
                Ok(entry) => (Some(entry), Ok(())),
                Err(error) => (None, Err(NotKept(error.to_string()))),
            };
            act.settle(id, Ok(entry));
            act.end_abandoned(ctx);
            told
        });
        Box::pin(told)
    }
}

impl Handler<Abandon> for AllocationManager {
    type Result = ();
    fn handle(&mut self, Abandon(release): Abandon, ctx: &mut Ctx<Self>) {
        let id = release.request.lease;
        if self.abandoned.len() >= REMEMBER_ABANDONED && !self.abandoned.contains_key(&id) {
            tracing::error!(lease = %id, "too many rentals wait for their end, a later comparison ends this one");
            return;
        }
        self.abandoned.insert(id, release);
        self.end_abandoned(ctx);
    }
}

impl AllocationManager {
    /// Ends the leases that nobody waits for any more, but for those that are being made or changed at the moment. What
    /// does not end is tried again after the next comparison.
    pub(super) fn end_abandoned(&mut self, ctx: &mut Ctx<Self>) {
        if !self.compared {
            return;
        }
        let due: Vec<Release> = self
            .abandoned
            .iter()
            .filter(|(id, _)| !self.book.is_busy(**id))
            .map(|(_, release)| release.clone())
            .collect();
        for release in due {
            let (lease, caller) = (release.request.lease, release.caller);
            let ended = self.end(release, EndReason::Unheard);
            ctx.spawn(ended.map(move |reply, act, _| match reply {
                ReleaseReply::Released => {
                    act.abandoned.remove(&lease);
                    tracing::warn!(%lease, %caller, "nobody heard of this rental, it is ended");
                }
                ReleaseReply::UnknownLease => {
                    act.abandoned.remove(&lease);
                    tracing::info!(%lease, %caller, "nobody waits for this rental, nothing was begun");
                }
                ReleaseReply::Refused { reason: reason @ LeaseRefusal::NotOwner, detail } => {
                    act.abandoned.remove(&lease);
                    tracing::error!(%lease, %caller, ?reason, detail, "a rental that nobody heard of is another's");
                }
                ReleaseReply::Refused { reason, detail } => {
                    tracing::warn!(%lease, %caller, ?reason, detail, "nobody heard of this rental, it has not ended yet");
                }
            }));
        }
    }
}

impl Handler<ReleaseMachine> for AllocationManager {
    type Result = ResponseActFuture<Self, ReleaseReply>;
    fn handle(&mut self, ReleaseMachine { caller, owner_token }: ReleaseMachine, ctx: &mut Ctx<Self>) -> Self::Result {
        let reply = match self.book.of_token(caller, owner_token.digest()) {
            _ if !self.compared => {
                ReleaseReply::Refused { reason: LeaseRefusal::Degraded, detail: NOT_COMPARED.to_owned() }
            }
            None => ReleaseReply::UnknownLease,
            Some(lease) => {
                let request = ReleaseRequest { lease: lease.id, fencing_epoch: lease.fencing_epoch, owner_token };
                return Handler::<Release>::handle(self, Release { caller, request }, ctx);
            }
        };
        self.answer(reply)
    }
}
