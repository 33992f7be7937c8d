//! The machine as a whole, as callers of the original's protocol rent it: its offer, and the calls that name no lease but
//! show the token that owns one.

use super::*;
use crate::ids::Hash32;
use crate::messages::miner::allocation_manager::{
    Abandon, AllocateMachine, MachineHeard, NotKept, PauseError, PauseMachine, ReleaseMachine,
};
use crate::wire::synapse::ReleaseRequest;

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
    type Result = ResponseActFuture<Self, AllocateReply>;
    fn handle(&mut self, wish: AllocateMachine, _: &mut Ctx<Self>) -> Self::Result {
        let AllocateMachine { caller, lease: id, owner_token, ssh_key, lasts } = wish;
        let answer =
            |act: &Self, reply: AllocateReply| -> Self::Result { Box::pin(async move { reply }.into_actor(act)) };
        if !self.compared {
            return answer(self, refused(LeaseRefusal::Degraded, "leases and engine have not been compared yet"));
        }
        if self.book.get(id).is_some() || self.book.is_busy(id) || self.withdrawn.contains(&(caller, id)) {
            return answer(self, refused(LeaseRefusal::Other, "there was a lease of this id already"));
        }
        self.setup = self.live.get();
        if let Some(why) = self.setup.duty.borrow().refuses_leases() {
            return answer(self, refused(LeaseRefusal::Draining, why));
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
            wish: None,
            unheard: true,
        };
        self.open(terms, now)
    }
}

impl Handler<MachineHeard> for AllocationManager {
    type Result = ResponseActFuture<Self, Result<(), NotKept>>;
    fn handle(&mut self, MachineHeard { caller, lease: id }: MachineHeard, _: &mut Ctx<Self>) -> Self::Result {
        let answer = |act: &Self, problem: &str| -> Self::Result {
            let error = NotKept(problem.to_owned());
            Box::pin(async move { Err(error) }.into_actor(act))
        };
        if !self.compared {
            return answer(self, "leases and engine have not been compared yet");
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
            _ if !self.compared => ReleaseReply::Refused {
                reason: LeaseRefusal::Degraded,
                detail: "leases and engine have not been compared yet".to_owned(),
            },
            None => ReleaseReply::UnknownLease,
            Some(lease) => {
                let request = ReleaseRequest { lease: lease.id, fencing_epoch: lease.fencing_epoch, owner_token };
                return Handler::<Release>::handle(self, Release { caller, request }, ctx);
            }
        };
        Box::pin(async move { reply }.into_actor(self))
    }
}

impl Handler<PauseMachine> for AllocationManager {
    type Result = ResponseActFuture<Self, Result<(), PauseError>>;
    fn handle(&mut self, wish: PauseMachine, _: &mut Ctx<Self>) -> Self::Result {
        let PauseMachine { caller, owner_token, paused } = wish;
        let answer =
            |act: &Self, error: PauseError| -> Self::Result { Box::pin(async move { Err(error) }.into_actor(act)) };
        if !self.compared {
            return answer(self, PauseError::Busy("leases and engine have not been compared yet"));
        }
        let id = match self.book.of_token(caller, owner_token.digest()) {
            None => return answer(self, PauseError::Unknown),
            Some(lease) => lease.id,
        };
        let Some(entry) = self.book.take(id) else {
            return answer(self, PauseError::Busy("this lease is being changed"));
        };
        let command = if paused { Command::Pause } else { Command::Unpause };
        let decision = match decide::decide(&entry.lease, &command, self.setup.clock.now_ms()) {
            Ok(decision) => decision,
            Err(error) => {
                self.book.put(id, None);
                return answer(self, PauseError::NotDone(error.to_string()));
            }
        };
        let setup = self.setup.clone();
        let work = async move {
            let entry = match decision.events.is_empty() {
                true => entry,
                false => match write(&setup, &entry, &decision.events).await {
                    Ok(entry) => entry,
                    Err(error) => return (None, Err(PauseError::NotDone(error.to_string()))),
                },
            };
            let Some(effect) = decision.effect else { return (Some(entry), Ok(())) };
            match carry_out(&setup, Some(entry.clone()), Step::Effect(effect)).await {
                Ok(next) => (next.or(Some(entry)), Ok(())),
                Err(problem) => (Some(entry), Err(PauseError::NotDone(problem))),
            }
        };
        Box::pin(work.into_actor(self).map(move |(entry, done), act, _| {
            act.settle(id, Ok(entry));
            done
        }))
    }
}
