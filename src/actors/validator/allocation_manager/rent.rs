//! Renting and releasing, as users ask for it.
//!
//! One request asks one miner after the other: each time the best that is left, until one has a container, as many as the
//! settings allow. The lease's intent is on record before the first is asked, and names who is asked: the next one is
//! named only when the one before certainly holds nothing. Where that is not certain, the request ends.

use std::collections::HashSet;

use actix::prelude::*;
use tokio::time::Instant;

use super::calls::{peer, token};
use super::choice::{Facts, facts, none_free};
use super::steps::{Asked, Call, IN_PROOF, InProof, finish_release, on_record, refuse, rent, write};
use super::{AllocationManager, BUSY_WAIT, FIRST_EPOCH};
use crate::actors::lease_book::Entry;
use crate::clock::millis;
use crate::ids::{Hash32, Hotkey, LeaseId};
use crate::lease::machine::LeaseTerms;
use crate::lease::{EndReason, Event, Lease, LeaseState, Role};
use crate::messages::validator::allocation_manager::{RentError, RentRequest};
use crate::rental::{Candidate, Outcome};

pub(super) type Reply = ResponseActFuture<AllocationManager, Result<Lease, RentError>>;

/// A request that is on its way through the candidates.
pub(super) struct Asking {
    id: LeaseId,
    request: RentRequest,
    facts: Facts,
    began: Instant,
    /// Nobody further is asked from then on.
    until: Instant,
    /// Who was asked, what came of it, and whether it is the miner's doing.
    tried: Vec<(Hotkey, Outcome, bool)>,
    /// The lease, reserved at the miner that was asked last, which holds nothing of it.
    entry: Option<Entry>,
    /// What the last one said.
    error: Option<RentError>,
}

/// What a repeat of a rental is answered: the lease as it is now, or why it never began.
fn repeated(lease: &Lease, wish: Hash32) -> Result<Lease, RentError> {
    match lease.state {
        _ if lease.wish != Some(wish) => Err(RentError::OtherWish(lease.id)),
        _ if lease.began_at_ms.is_some() => Ok(lease.clone()),
        LeaseState::Requested | LeaseState::Reserving => Err(RentError::Busy),
        _ => Err(RentError::Refused(match (&lease.note, lease.end) {
            (Some(note), _) => note.clone(),
            (None, Some(why)) => why.label().to_owned(),
            (None, None) => lease.state.label().to_owned(),
        })),
    }
}

/// The answer to everybody until the leases are known: an id that is not in the book may be one of them.
pub(super) fn not_loaded() -> RentError {
    RentError::Journal("leases are not loaded yet".into())
}

/// The metric label of an answer.
fn result_label(result: &Result<Lease, RentError>) -> &'static str {
    match result {
        Ok(_) => "rented",
        Err(RentError::NoneFree(_)) => "none_free",
        Err(RentError::Refused(_)) => "refused",
        Err(RentError::NoAnswer(_)) => "no_answer",
        Err(RentError::Invalid(_)) => "invalid",
        Err(_) => "not_made",
    }
}

impl AllocationManager {
    pub(super) fn reply(&self, reply: Result<Lease, RentError>) -> Reply {
        Box::pin(async move { reply }.into_actor(self))
    }

    /// Rents under an id that was chosen by whoever asks: perhaps again.
    pub(super) fn rent_as(&mut self, id: LeaseId, request: RentRequest, patience: u32) -> Reply {
        let known = match self.book.get(id) {
            Some(known) => Some(repeated(&known.lease, request.wish())),
            None => self.book.is_busy(id).then_some(Err(RentError::Busy)),
        };
        match known {
            // It is being made: its own request says what comes of it.
            Some(Err(RentError::Busy)) if patience > 0 => {
                let wait = tokio::time::sleep(BUSY_WAIT).into_actor(self);
                return Box::pin(wait.then(move |(), act, _| act.rent_as(id, request, patience - 1)));
            }
            Some(reply) => return self.reply(reply),
            None => {}
        }
        // Nobody else may open it while the journal is asked.
        self.book.begin(id);
        let setup = self.setup.clone();
        let known = async move { on_record(&setup, id).await };
        Box::pin(known.into_actor(self).then(move |known, act, _| {
            act.book.put(id, None);
            match known {
                Ok(None) => act.open(id, request),
                Ok(Some(lease)) => act.reply(repeated(&lease, request.wish())),
                Err(error) => act.reply(Err(error)),
            }
        }))
    }

    /// Opens a lease under an id that no lease has.
    pub(super) fn open(&mut self, id: LeaseId, request: RentRequest) -> Reply {
        self.setup = self.live.get();
        let began = Instant::now();
        if let Some(why) = self.setup.duty.borrow().refuses_leases() {
            return self.answered(began, Err(RentError::Draining(why)));
        }
        if let Err(error) = request.requirements.check() {
            return self.answered(began, Err(RentError::Invalid(error.to_string())));
        }
        self.book.begin(id);
        let until = began + self.setup.rent_deadline;
        let (setup, needed) = (self.setup.clone(), request.requirements.needs_specs());
        let facts = async move { facts(&setup, needed).await };
        Box::pin(facts.into_actor(self).then(move |facts, act, _| match facts {
            Ok(facts) => {
                let (tried, entry, error) = (Vec::new(), None, None);
                act.ask_next(Asking { id, request, facts, began, until, tried, entry, error })
            }
            Err(error) => {
                act.book.put(id, None);
                act.answered(began, Err(error))
            }
        }))
    }

    /// The best candidate that is left, or why there is none.
    fn next_candidate(&self, asking: &Asking) -> Result<Candidate, RentError> {
        let candidates = self.candidates(&asking.request, &asking.facts)?;
        let tried: HashSet<Hotkey> = asking.tried.iter().map(|(miner, ..)| *miner).collect();
        let left = candidates.iter().find(|c| c.fits() && !tried.contains(&c.hotkey));
        left.cloned().ok_or_else(|| RentError::NoneFree(none_free(&asking.request, &candidates, &tried)))
    }

    /// Asks the best miner that is left.
    fn ask_next(&mut self, mut asking: Asking) -> Reply {
        let more = asking.tried.len() < self.setup.candidates.max(1) && Instant::now() < asking.until;
        let next = match &asking.error {
            Some(error) if !more => Err(error.clone()),
            _ => self.next_candidate(&asking),
        };
        let call = next.and_then(|candidate| self.call_of(&asking, candidate));
        let call = match call {
            Ok(call) => call,
            // What the last miner said tells more than that nobody is left.
            Err(none) => {
                let error = asking.error.take().unwrap_or(none);
                return self.nobody(asking, error);
            }
        };
        let (id, miner) = (asking.id, call.peer.hotkey);
        self.wanted.insert(id, (miner, call.devices.clone()));
        let work = rent(self.setup.clone(), call, asking.entry.take());
        Box::pin(work.into_actor(self).then(move |asked, act, _| {
            act.wanted.remove(&id);
            let asked = match asked {
                Ok(asked) => asked,
                Err(InProof(entry)) => {
                    // It was not asked, and is not blamed.
                    asking.tried.push((miner, Outcome::NoAnswer, false));
                    asking.entry = entry.map(|entry| *entry);
                    asking.error.get_or_insert_with(|| RentError::NoneFree(IN_PROOF.to_owned()));
                    return act.ask_next(asking);
                }
            };
            match asked {
                Asked::Running(entry) => {
                    act.setup.metrics.rentals().candidate(None);
                    act.over(asking, Some(*entry), None)
                }
                Asked::Free { entry, outcome, blamed, error } => {
                    tracing::info!(lease = %id, %miner, %error, "a candidate is passed over");
                    act.setup.metrics.rentals().candidate(Some(outcome));
                    asking.tried.push((miner, outcome, blamed));
                    asking.entry = Some(*entry);
                    asking.error = Some(error);
                    act.ask_next(asking)
                }
                Asked::Over { entry, outcome, error } => {
                    if let Some(outcome) = outcome {
                        act.setup.metrics.rentals().candidate(Some(outcome));
                        asking.tried.push((miner, outcome, true));
                    }
                    act.over(asking, entry.map(|entry| *entry), Some(error))
                }
            }
        }))
    }

    /// What the candidate is asked.
    fn call_of(&self, asking: &Asking, candidate: Candidate) -> Result<Call, RentError> {
        let request = &asking.request;
        let now = self.setup.clock.now_ms();
        let peer = peer(&self.setup, candidate.hotkey).map_err(RentError::NoneFree)?;
        let expires_at_ms = match &asking.entry {
            Some(entry) => entry.lease.expires_at_ms,
            None => now.saturating_add(millis(request.duration)),
        };
        let terms = LeaseTerms {
            id: asking.id,
            role: Role::Renter,
            fencing_epoch: FIRST_EPOCH,
            renter: self.setup.hotkey,
            miner: peer.hotkey,
            devices: candidate.devices.clone(),
            expires_at_ms,
            owner_token_digest: token(&self.setup, asking.id).digest(),
            ssh_public_key: Some(request.ssh_key.clone()),
            image: request.image.clone(),
            wish: Some(request.wish()),
            unheard: false,
        };
        terms.check(now, self.setup.longest).map_err(|error| RentError::Invalid(error.to_string()))?;
        let proved = self.proved_of(&peer.hotkey);
        Ok(Call { peer, devices: candidate.devices, renter: request.renter, terms, proved })
    }

    /// Ends a request that no miner is left for. What was reserved is at nobody.
    fn nobody(&mut self, mut asking: Asking, error: RentError) -> Reply {
        let Some(entry) = asking.entry.take() else { return self.over(asking, None, Some(error)) };
        let (setup, note) = (self.setup.clone(), error.to_string());
        let work = async move { refuse(&setup, entry, note).await };
        Box::pin(work.into_actor(self).then(move |entry, act, _| act.over(asking, Some(entry), Some(error))))
    }

    /// Ends a request: `entry` is what the lease is now, without an error a running one.
    fn over(&mut self, asking: Asking, entry: Option<Entry>, error: Option<RentError>) -> Reply {
        let Asking { id, began, tried, .. } = asking;
        let lease = entry.as_ref().map(|e| e.lease.clone());
        self.put_back(id, entry);
        self.take_in(&tried);
        self.answered(
            began,
            match (error, lease) {
                (None, Some(lease)) => Ok(lease),
                (None, None) => Err(RentError::Journal("the lease is not on record".into())),
                (Some(error), _) => Err(error),
            },
        )
    }

    fn answered(&self, began: Instant, result: Result<Lease, RentError>) -> Reply {
        self.setup.metrics.rentals().request(result_label(&result), began.elapsed());
        self.reply(result)
    }

    /// Remembers what asking these miners came to. That nobody at all could be reached may be our own outage.
    fn take_in(&mut self, tried: &[(Hotkey, Outcome, bool)]) {
        let silent = |outcome: &Outcome| matches!(outcome, Outcome::Unreachable | Outcome::NoAnswer);
        if tried.len() > 1 && tried.iter().all(|(_, outcome, _)| silent(outcome)) {
            return;
        }
        let now = self.setup.clock.now_ms();
        for (miner, outcome, _) in tried.iter().filter(|(.., blamed)| *blamed) {
            self.record.take(*miner, *outcome, now, self.setup.half_life);
        }
    }

    /// Who would be asked for this, in which order and why.
    pub(super) fn show_candidates(
        &mut self,
        request: RentRequest,
    ) -> ResponseActFuture<Self, Result<Vec<Candidate>, RentError>> {
        self.setup = self.live.get();
        let setup = self.setup.clone();
        let facts = async move {
            request.requirements.check().map_err(|error| RentError::Invalid(error.to_string()))?;
            Ok::<_, RentError>((facts(&setup, true).await?, request))
        };
        Box::pin(facts.into_actor(self).map(|known, act, _| {
            let (facts, request) = known?;
            act.candidates(&request, &facts)
        }))
    }

    /// The lease as the journal has it; it is not in the book.
    pub(super) fn look_up(&self, id: LeaseId) -> Reply {
        if self.book.is_busy(id) {
            return self.reply(Err(RentError::Busy));
        }
        let setup = self.setup.clone();
        Box::pin(async move { on_record(&setup, id).await?.ok_or(RentError::UnknownLease) }.into_actor(self))
    }

    /// Ends a lease. While a round looks after it, which takes one call of the miner at most, the release waits.
    pub(super) fn release(&mut self, id: LeaseId, patience: u32) -> Reply {
        match self.book.get(id) {
            None if self.book.is_busy(id) => {}
            None => {
                let known = self.look_up(id);
                return Box::pin(known.map(|known, _, _| match known {
                    Ok(lease) if !lease.state.is_final() => Err(RentError::Busy),
                    other => other,
                }));
            }
            Some(known) if known.lease.state.is_final() => return self.reply(Ok(known.lease.clone())),
            Some(_) => {}
        }
        let Some(entry) = self.book.take(id) else {
            if patience == 0 {
                return self.reply(Err(RentError::Busy));
            }
            let wait = tokio::time::sleep(BUSY_WAIT).into_actor(self);
            return Box::pin(wait.then(move |(), act, _| act.release(id, patience - 1)));
        };
        let setup = self.setup.clone();
        let work = async move {
            let wanted = match entry.lease.state {
                LeaseState::Releasing => entry,
                _ => write(&setup, &entry, &[Event::ReleaseWanted { why: EndReason::Returned }]).await?,
            };
            finish_release(&setup, wanted).await
        };
        Box::pin(work.into_actor(self).map(move |done, act, _| {
            let reply = match &done {
                Ok(entry) if entry.lease.state.is_final() => Ok(entry.lease.clone()),
                Ok(_) => Err(RentError::NoAnswer("the release is on record and will be finished".into())),
                Err(problem) => Err(RentError::Journal(problem.clone())),
            };
            act.changed(id, done.ok());
            reply
        }))
    }

    /// Takes a lease back into the book after a change, and what its end means if it ended. `None`: it is as it was.
    pub(super) fn changed(&mut self, id: LeaseId, entry: Option<Entry>) {
        if let Some(entry) = entry.as_ref().filter(|entry| entry.lease.state.is_final()) {
            self.ended(&entry.lease);
        }
        self.put_back(id, entry);
    }

    fn put_back(&mut self, id: LeaseId, entry: Option<Entry>) {
        if let Some(entry) = &entry {
            self.releases.stands(&entry.lease, self.setup.period, Instant::now());
        }
        self.book.put(id, entry);
        self.book.show(&self.setup.metrics);
    }

    fn ended(&mut self, lease: &Lease) {
        self.health.remove(&lease.id);
        self.receipts.remove(&lease.id);
        self.canaries.remove(&lease.id);
        self.due.remove(&lease.id);
        self.hardware.ended(lease);
        // What never began was taken in when its miner was asked.
        if let Some(outcome) = Outcome::of(lease).filter(|_| lease.began_at_ms.is_some()) {
            let at_ms = lease.ended_at_ms.unwrap_or_else(|| self.setup.clock.now_ms());
            self.record.take(lease.miner, outcome, at_ms, self.setup.half_life);
        }
    }
}
