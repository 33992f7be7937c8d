//! What a renter has done with its running lease: pause, resume, restart, other keys, more time.
//!
//! A pause is on record before the miner is asked, and taken back only where the miner certainly did not do it: from then on a
//! container that is paused is so by our wish, and not missed. What ends a pause is on record once the miner has confirmed it.

use std::time::Duration;

use actix::prelude::*;

use super::calls::{call_change, call_renew};
use super::rent::{Reply, not_loaded};
use super::steps::write;
use super::{AllocationManager, AllocationSetup, BUSY_WAIT, BUSY_WAITS};
use crate::actors::lease_book::Entry;
use crate::clock::millis;
use crate::ids::LeaseId;
use crate::lease::machine::check_end;
use crate::lease::{Event, Grant, LeaseState};
use crate::messages::validator::allocation_manager::{ChangeLease, RenewLease, RentError};
use crate::runtime::Ctx;
use crate::wire::synapse::{ContainerState, LeaseChange, LeaseRefusal};

/// What is asked of a miner about a running lease.
#[derive(Debug, Clone)]
enum Wish {
    Change(LeaseChange),
    /// The new end, in milliseconds since the Unix epoch.
    Renew(u64),
}

/// Why a miner did not do it.
pub(super) enum NotDone {
    /// It certainly did not, and why.
    Refused(String),
    /// It may have.
    Unclear(String),
}

impl NotDone {
    /// What a refusal says: of an engine that failed on the way nothing is certain.
    pub(super) fn refused(reason: LeaseRefusal, detail: String) -> Self {
        match reason {
            LeaseRefusal::Engine | LeaseRefusal::Other => NotDone::Unclear(detail),
            _ => NotDone::Refused(detail),
        }
    }
}

impl From<NotDone> for RentError {
    fn from(not_done: NotDone) -> Self {
        match not_done {
            NotDone::Refused(why) => RentError::NotChanged(why),
            NotDone::Unclear(why) => RentError::NoAnswer(why),
        }
    }
}

/// Carries a wish out: what the lease is then, and why it was not done, if it was not.
async fn carry_out(setup: &AllocationSetup, entry: Entry, wish: Wish) -> (Entry, Option<RentError>) {
    let journal = |entry: &Entry, problem| (entry.clone(), Some(RentError::Journal(problem)));
    let pausing = matches!(wish, Wish::Change(LeaseChange::Pause)) && entry.lease.state == LeaseState::Running;
    let entry = match pausing {
        false => entry,
        true => match write(setup, &entry, &[Event::Paused]).await {
            Ok(entry) => entry,
            Err(problem) => return journal(&entry, problem),
        },
    };
    let (event, error) = match wish {
        Wish::Renew(until_ms) => match call_renew(setup, &entry.lease, until_ms).await {
            // No longer than was asked for, whatever the miner says.
            Ok(told_ms) => {
                let expires_at_ms = told_ms.min(until_ms);
                ((expires_at_ms > entry.lease.expires_at_ms).then_some(Event::Extended { expires_at_ms }), None)
            }
            Err(not_done) => (None, Some(not_done.into())),
        },
        Wish::Change(change) => match call_change(setup, &entry.lease, change).await {
            Ok(ContainerState::Running) => ((entry.lease.state == LeaseState::Paused).then_some(Event::Unpaused), None),
            Ok(ContainerState::Paused) => (None, None),
            Ok(ContainerState::Gone) => {
                (None, Some(RentError::NotChanged("the miner says that the container is gone".into())))
            }
            Err(not_done @ NotDone::Refused(_)) => (pausing.then_some(Event::Unpaused), Some(not_done.into())),
            Err(not_done) => (None, Some(not_done.into())),
        },
    };
    let Some(event) = event else { return (entry, error) };
    match write(setup, &entry, &[event]).await {
        Ok(entry) => (entry, error),
        Err(problem) => journal(&entry, problem),
    }
}

impl AllocationManager {
    /// Has a wish carried out. While somebody else changes the lease it waits.
    fn change(&mut self, id: LeaseId, wish: Wish, patience: u32) -> Reply {
        let Some(known) = self.book.get(id) else {
            // Not in the book: ended long ago, or none at all.
            let known = self.look_up(id);
            return Box::pin(
                known.map(|known, _, _| Err(known.map_or_else(|error| error, |lease| not_live(lease.state)))),
            );
        };
        if !known.lease.state.is_live() {
            return self.reply(Err(not_live(known.lease.state)));
        }
        let Some(entry) = self.book.take(id) else {
            if patience == 0 {
                return self.reply(Err(RentError::Busy));
            }
            let wait = tokio::time::sleep(BUSY_WAIT).into_actor(self);
            return Box::pin(wait.then(move |(), act, _| act.change(id, wish, patience - 1)));
        };
        let setup = self.setup.clone();
        let work = async move { carry_out(&setup, entry, wish).await };
        Box::pin(work.into_actor(self).map(move |(entry, error), act, _| {
            let lease = entry.lease.clone();
            act.changed(id, Some(entry));
            error.map_or(Ok(lease), Err)
        }))
    }

    /// The wish for a lease that ends so much later than now; why there can be none otherwise.
    fn renewal(&self, id: LeaseId, lasts: Duration) -> Result<Wish, RentError> {
        if let Some(why) = self.setup.duty.borrow().refuses_leases() {
            return Err(RentError::Draining(why));
        }
        let now = self.setup.clock.now_ms();
        let until_ms = now.saturating_add(millis(lasts));
        check_end(until_ms, now, self.setup.longest).map_err(|error| RentError::Invalid(error.to_string()))?;
        match self.book.get(id) {
            Some(known) if known.lease.expires_at_ms >= until_ms => {
                let left = known.lease.expires_at_ms.saturating_sub(now) / 1_000;
                Err(RentError::Invalid(format!("the lease lasts for {left} s already, and is never made shorter")))
            }
            _ => Ok(Wish::Renew(until_ms)),
        }
    }
}

fn not_live(state: LeaseState) -> RentError {
    RentError::NotChanged(format!("the lease is {state}"))
}

impl Handler<ChangeLease> for AllocationManager {
    type Result = Reply;
    fn handle(&mut self, ChangeLease { id, change }: ChangeLease, _: &mut Ctx<Self>) -> Reply {
        if !self.loaded {
            return self.reply(Err(not_loaded()));
        }
        let grant = match &change {
            LeaseChange::UserKey { ssh_key } => Some(Grant::UserKey(ssh_key.clone())),
            LeaseChange::TerminalKey { ssh_key } => Some(Grant::TerminalKey(ssh_key.clone())),
            LeaseChange::Pause | LeaseChange::Resume | LeaseChange::Restart => None,
        };
        if let Some(Err(problem)) = grant.map(|grant| grant.check()) {
            return self.reply(Err(RentError::Invalid(problem.to_owned())));
        }
        self.change(id, Wish::Change(change), BUSY_WAITS)
    }
}

impl Handler<RenewLease> for AllocationManager {
    type Result = Reply;
    fn handle(&mut self, RenewLease { id, lasts }: RenewLease, _: &mut Ctx<Self>) -> Reply {
        if !self.loaded {
            return self.reply(Err(not_loaded()));
        }
        self.setup = self.live.get();
        match self.renewal(id, lasts) {
            Ok(wish) => self.change(id, wish, BUSY_WAITS),
            Err(error) => self.reply(Err(error)),
        }
    }
}
