//! How leases are: the rounds of checks, and what they come to.

use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::steps::{Looked, finish_release, look_after, write};
use super::{AT_ONCE, AllocationManager, UNCONFIRMED_CHECKS};
use crate::ids::{Hotkey, LeaseId};
use crate::lease::health::{EngineView, Health, HealthPolicy, LeaseHealth, Observation, ProbeView, unseen};
use crate::lease::{EndReason, Event, Lease, LeaseState};
use crate::runtime::Ctx;
use crate::telemetry::events::Recovered;

/// What the checks of a lease came to.
#[derive(Default)]
pub(super) struct Watched {
    health: Health,
    /// Checks in a row in which the miner was asked and did not confirm the lease.
    unconfirmed: u32,
    paused: bool,
}

impl Watched {
    /// Whether the miner is paid for the lease.
    pub(super) fn confirmed(&self) -> bool {
        self.unconfirmed < UNCONFIRMED_CHECKS
    }

    /// Whether the container was paused when it was seen last.
    pub(super) fn paused(&self) -> bool {
        self.paused
    }

    pub(super) fn observe(&mut self, policy: HealthPolicy, seen: Observation) -> LeaseHealth {
        match (seen.engine, seen.probe) {
            // We could not ask or look, which is not the miner's doing.
            (EngineView::NotSeen, _) => {}
            (EngineView::Paused, _) | (EngineView::Running, ProbeView::Answered | ProbeView::NotApplicable) => {
                self.unconfirmed = 0;
            }
            (_, ProbeView::NotSeen) => {}
            // What nobody can log in to is worth nothing, whatever its miner says.
            (EngineView::Running, ProbeView::NoAnswer)
            | (EngineView::Exited | EngineView::Gone | EngineView::Unreachable, _) => {
                self.unconfirmed = self.unconfirmed.saturating_add(1);
            }
        }
        match seen.engine {
            EngineView::Paused => self.paused = true,
            EngineView::Running | EngineView::Exited | EngineView::Gone => self.paused = false,
            EngineView::Unreachable | EngineView::NotSeen => {}
        }
        self.health.observe(policy, seen)
    }
}

impl AllocationManager {
    /// Looks after the leases every period, which is a setting.
    pub(super) fn tick(&mut self, ctx: &mut Ctx<Self>) {
        self.setup = self.live.get();
        ctx.run_later(self.setup.period, |act, ctx| {
            act.tick(ctx);
            act.round(ctx);
        });
    }

    /// One round: asks about running leases, finishes releases, ends what is over.
    pub(super) fn round(&mut self, ctx: &mut Ctx<Self>) {
        // Before the first block nobody can be asked, and not asking is no answer.
        if !self.loaded || self.looking > 0 || self.setup.view.borrow().is_none() {
            return;
        }
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        let now = Instant::now();
        let due = |l: &&Lease| l.state != LeaseState::Releasing || self.releases.is_due(l.id, now);
        let ids: Vec<LeaseId> = self.book.open().filter(due).map(|l| l.id).collect();
        self.looking = ids.len();
        for id in ids {
            // First its turn, then the lease: one that waits behind miners that do not answer is free to be released.
            let turn = at_once.clone().acquire_owned();
            ctx.spawn(turn.into_actor(self).then(move |permit, act, _| act.look_at(id, permit.ok())));
        }
        self.round_over(ctx);
    }

    /// Takes the next step of one lease, each by itself: a miner that does not answer must not hold up the others' releases.
    fn look_at(&mut self, id: LeaseId, permit: Option<OwnedSemaphorePermit>) -> ResponseActFuture<Self, ()> {
        let open = self.book.get(id).is_some_and(|known| !known.lease.state.is_final());
        let Some(entry) = Some(id).filter(|_| open).and_then(|id| self.book.take(id)) else {
            return Box::pin(fut::ready(()).map(|(), act: &mut Self, ctx| act.turn_over(ctx)));
        };
        let receipt = self.receipt(&entry.lease);
        let setup = self.setup.clone();
        let work = async move {
            let looked = look_after(&setup, entry, receipt).await;
            drop(permit);
            looked
        };
        Box::pin(work.into_actor(self).map(move |looked, act, ctx| {
            if let Some(recovered) = &mut act.recovered {
                *found(&looked, recovered) += 1;
            }
            act.looked(id, looked);
            act.turn_over(ctx);
        }))
    }

    /// The round has one lease less to look at.
    fn turn_over(&mut self, ctx: &mut Ctx<Self>) {
        self.looking -= 1;
        self.round_over(ctx);
    }

    /// What the round as a whole says, once every lease was looked at.
    fn round_over(&mut self, ctx: &mut Ctx<Self>) {
        if self.looking > 0 {
            return;
        }
        if let Some(recovered) = self.recovered.take() {
            recovered.emit(&self.setup.metrics);
        }
        let (ids, mut seen): (Vec<LeaseId>, Vec<(Hotkey, Observation)>) =
            std::mem::take(&mut self.seen).into_iter().map(|(id, miner, seen)| (id, (miner, seen))).unzip();
        if self.outage.sift(&mut seen) {
            tracing::warn!(
                leases = seen.len(),
                "most SSH ports did not answer at once: put down to an outage of our own"
            );
        }
        // Few miners say nothing of our network together; the chain does.
        if self.setup.view.borrow().as_ref().is_some_and(|view| view.is_silent()) {
            tracing::warn!("the chain is silent: that SSH ports did not answer is put down to an outage of our own");
            unseen(&mut seen);
        }
        for (id, (_, seen)) in ids.into_iter().zip(seen) {
            // It may have been released while others were looked at.
            if self.book.get(id).is_none_or(|known| !known.lease.state.is_live()) {
                continue;
            }
            let health = self.health.entry(id).or_default();
            if health.observe(self.setup.health, seen) == LeaseHealth::Gone {
                self.lose(id, ctx);
            }
        }
        self.end_due(ctx);
    }

    fn looked(&mut self, id: LeaseId, (entry, seen): Looked) {
        let entry = match entry {
            Ok(entry) => entry,
            Err(problem) => {
                self.last_problem = Some(problem);
                self.book.put(id, None);
                return;
            }
        };
        let (ended, miner) = (entry.lease.state.is_final(), entry.lease.miner);
        self.changed(id, Some(entry));
        if let Some(seen) = seen.filter(|_| !ended) {
            self.seen.push((id, miner, seen));
        }
    }

    /// Ends a lease that neither vantage point has shown for too long. Its container may be there all the same, out of sight,
    /// and would hold the miner's devices: the miner is asked to release it, as for every other end, until it confirms.
    fn lose(&mut self, id: LeaseId, ctx: &mut Ctx<Self>) {
        let note = "neither its miner nor its SSH port has shown the container for several rounds".to_owned();
        tracing::warn!(lease = %id, note, "the lease ends");
        self.end_with(id, note, EndReason::Unhealthy, ctx);
    }

    /// Ends a lease that its renter did not return: says what was seen, and has the miner release it. Whoever changes it at this
    /// moment has it first.
    pub(super) fn end_with(&mut self, id: LeaseId, note: String, why: EndReason, ctx: &mut Ctx<Self>) {
        let Some(entry) = self.book.take(id) else { return };
        let setup = self.setup.clone();
        let work = async move {
            let events = [Event::Noted { note }, Event::ReleaseWanted { why }];
            match write(&setup, &entry, &events).await {
                // Not confirmed yet: the next round asks again.
                Ok(entry) => finish_release(&setup, entry.clone()).await.or(Ok(entry)),
                Err(problem) => Err(problem),
            }
        };
        ctx.spawn(work.into_actor(self).map(move |done: Result<_, String>, act, _| match done {
            Ok(entry) => act.changed(id, Some(entry)),
            Err(problem) => {
                act.last_problem = Some(problem);
                act.changed(id, None);
            }
        }));
    }
}

/// Where a recovery counts what was found of one lease.
fn found<'a>((entry, seen): &Looked, recovered: &'a mut Recovered) -> &'a mut u64 {
    match (entry, seen) {
        (Ok(_), Some(Observation { engine: EngineView::Running | EngineView::Paused, .. })) => &mut recovered.kept,
        (Ok(entry), None) if entry.lease.state.is_final() => &mut recovered.finished,
        _ => &mut recovered.open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_paid_for_until_two_checks_running_went_without_its_miner_and_again_when_it_is_back() {
        let policy = HealthPolicy::default();
        let mut lease = Watched::default();
        let mut paid = |seen| {
            assert_ne!(lease.observe(policy, Observation::local(seen)), LeaseHealth::Gone, "the lease itself goes on");
            lease.confirmed()
        };
        use EngineView as E;
        assert!(paid(E::Running) && paid(E::Unreachable) && paid(E::Running) && paid(E::Unreachable));
        // That we could not ask is not the miner's doing, and does not speak for it either.
        assert!(paid(E::NotSeen));
        assert!(!paid(E::Unreachable) && !paid(E::NotSeen));
        assert!(paid(E::Paused));
    }
    #[test]
    fn a_lease_that_nobody_can_log_in_to_is_not_paid_for_unless_it_is_paused_or_we_could_not_look() {
        let policy = HealthPolicy::default();
        let mut lease = Watched::default();
        let mut paid = |engine, probe| {
            lease.observe(policy, Observation { engine, probe });
            lease.confirmed()
        };
        use {EngineView as E, ProbeView as P};
        assert!(paid(E::Running, P::Answered) && paid(E::Running, P::NoAnswer));
        assert!(paid(E::Running, P::NotSeen) && paid(E::Unreachable, P::NotSeen));
        assert!(!paid(E::Running, P::NoAnswer));
        assert!(paid(E::Paused, P::NoAnswer));
    }
}
