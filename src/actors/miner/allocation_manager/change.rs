//! Changes of leases that exist: by their owner, by the operator, by a caller of the original's protocol. Each is a
//! decision of the lease rules, written, carried out and answered by [`AllocationManager::perform`].

use super::aside::told;
use super::*;
use crate::ids::Hash32;
use crate::lease::Grant;
use crate::lease::decide::Decision;
use crate::lease::fencing::{self, Repeat};
use crate::lease::machine::check_end;
use crate::messages::miner::allocation_manager::{ChangeError, ChangeLease, ChangeMachine, Renew};
use crate::wire::synapse::{LeaseChange, LeaseChangeReply, LeaseChangeRequest, ReleaseReply, RenewReply};

impl AllocationManager {
    /// Writes what was just decided of this lease, carries it out, and says what the lease is then.
    fn perform(&mut self, id: LeaseId, decision: Decision) -> ResponseActFuture<Self, Result<Lease, ChangeError>> {
        let Some(entry) = self.book.take(id) else {
            return self.answer(Err(ChangeError::Busy("this lease is being changed")));
        };
        let setup = self.setup.clone();
        let work = async move {
            let entry = match decision.events.is_empty() {
                true => entry,
                false => match write(&setup, &entry, &decision.events).await {
                    Ok(entry) => entry,
                    Err(error) => return (None, Err(ChangeError::NotRecorded(error.to_string()))),
                },
            };
            let Some(effect) = decision.effect else {
                let lease = entry.lease.clone();
                return (Some(entry), Ok(lease));
            };
            match carry_out(&setup, Some(entry.clone()), Step::Effect(effect)).await {
                Ok(next) => {
                    let next = next.unwrap_or(entry);
                    let lease = next.lease.clone();
                    (Some(next), Ok(lease))
                }
                Err(problem) => (Some(entry), Err(ChangeError::NotDone(problem.to_string()))),
            }
        };
        Box::pin(work.into_actor(self).map(move |(entry, done), act, _| {
            act.settle(id, Ok(entry));
            done
        }))
    }

    /// What a caller may command of a lease: its renter, with the token, in an epoch that is not over.
    fn decided(&self, caller: Hotkey, claim: &Claim, command: &Command) -> Result<Decision, NotDecided> {
        if !self.compared {
            return Err(NotDecided::Refused(LeaseRefusal::Degraded, NOT_COMPARED.to_owned()));
        }
        if self.book.is_opening(claim.lease) {
            return Err(NotDecided::Refused(LeaseRefusal::Other, "this lease is being made, ask again".into()));
        }
        let Some(known) = self.book.get(claim.lease) else { return Err(NotDecided::Unknown) };
        if known.lease.renter != caller {
            let detail = "the lease belongs to another validator".to_owned();
            return Err(NotDecided::Refused(LeaseRefusal::NotOwner, detail));
        }
        decide::call(&known.lease, claim, command, self.setup.clock.now_ms()).map_err(|error| match error {
            CallError::Fencing(error) => NotDecided::Refused(fenced(&error), error.to_string()),
            CallError::Transition(error) => NotDecided::Refused(LeaseRefusal::State, error.to_string()),
        })
    }

    /// Ends a lease for its owner.
    pub(super) fn end(
        &mut self,
        Release { caller, request }: Release,
        why: EndReason,
    ) -> ResponseActFuture<Self, ReleaseReply> {
        let id = request.lease;
        let claim = Claim { lease: id, epoch: request.fencing_epoch, token: request.owner_token };
        let decision = match self.decided(caller, &claim, &Command::Release { why }) {
            Ok(decision) => decision,
            Err(NotDecided::Refused(reason, detail)) => return self.answer(ReleaseReply::Refused { reason, detail }),
            Err(NotDecided::Unknown) => {
                if let Some(aside) = self.aside_of(id, caller) {
                    return self.end_set_aside(aside, claim.epoch);
                }
                if !self.withdrawn.contains(&(caller, id)) {
                    self.withdrawn.truncate(REMEMBER_WITHDRAWN - 1);
                    self.withdrawn.push_front((caller, id));
                }
                return self.answer(ReleaseReply::UnknownLease);
            }
        };
        if self.book.get(id).is_some_and(|known| known.lease.state.is_final()) {
            if self.book.is_busy(id) {
                let detail = "the lease is being taken back, ask again".to_owned();
                return self.answer(ReleaseReply::Refused { reason: LeaseRefusal::Other, detail });
            }
            // What is over on record may be there all the same: only what is seen to be gone is released.
            if let Some(aside) = self.aside_of(id, caller) {
                return self.end_set_aside(aside, claim.epoch);
            }
            return match self.container_of_lost(id) {
                Some(epoch) => self.end_lost(id, epoch),
                None => self.answer(ReleaseReply::Released),
            };
        }
        let begun = tokio::time::Instant::now();
        Box::pin(self.perform(id, decision).map(move |done, act, _| match done {
            Ok(lease) if lease.state.is_final() => {
                act.setup.metrics.lease_stage("release", begun.elapsed());
                ReleaseReply::Released
            }
            Ok(_) => {
                let detail = "the release is on record and will be finished".to_owned();
                ReleaseReply::Refused { reason: LeaseRefusal::Other, detail }
            }
            Err(error) => ReleaseReply::Refused { reason: LeaseRefusal::Other, detail: error.to_string() },
        }))
    }

    fn change(&mut self, caller: Hotkey, request: LeaseChangeRequest) -> ResponseActFuture<Self, LeaseChangeReply> {
        let LeaseChangeRequest { lease: id, fencing_epoch, owner_token, key, change } = request;
        let refuse = |reason, detail: &str| LeaseChangeReply::Refused { reason, detail: detail.to_owned() };
        let claim = Claim { lease: id, epoch: fencing_epoch, token: owner_token };
        let owned = |known: &&Entry| known.lease.renter == caller && fencing::check(&known.lease, &claim).is_ok();
        let digest = digest(id, &change);
        // Only whoever owns the lease learns what was answered before.
        if self.book.get(id).filter(owned).is_some() {
            match self.answers.look_up(caller, key, digest) {
                Repeat::New => {}
                Repeat::Same(answer) => return self.answer(answer.clone()),
                Repeat::Conflict => {
                    let detail = "this call's key was used for another call; choose a new one";
                    return self.answer(refuse(LeaseRefusal::Reused, detail));
                }
            }
        }
        let command = match command(change) {
            Ok(command) => command,
            Err(problem) => return self.answer(refuse(LeaseRefusal::SshKey, problem)),
        };
        let decision = match self.decided(caller, &claim, &command) {
            Ok(decision) => decision,
            Err(NotDecided::Unknown) => {
                return self.answer(match self.aside_of(id, caller) {
                    Some(aside) => refuse(LeaseRefusal::Degraded, &told(&aside)),
                    None => LeaseChangeReply::UnknownLease,
                });
            }
            Err(NotDecided::Refused(reason, detail)) => return self.answer(refuse(reason, &detail)),
        };
        Box::pin(self.perform(id, decision).map(move |done, act, _| match done {
            Ok(lease) => {
                let answer = LeaseChangeReply::Done { state: shown(lease.state) };
                act.answers.remember(caller, key, digest, answer.clone());
                answer
            }
            Err(error) => {
                let reason = match error {
                    ChangeError::NotRecorded(_) => LeaseRefusal::Degraded,
                    ChangeError::NotDone(_) => LeaseRefusal::Engine,
                    _ => LeaseRefusal::Other,
                };
                refuse(reason, &error.to_string())
            }
        }))
    }
}

/// Why nothing is decided for a caller.
enum NotDecided {
    Unknown,
    Refused(LeaseRefusal, String),
}

/// The command that a change on the wire is.
fn command(change: LeaseChange) -> Result<Command, &'static str> {
    let command = match change {
        LeaseChange::Pause => Command::Pause,
        LeaseChange::Resume => Command::Unpause,
        LeaseChange::Restart => Command::Restart,
        LeaseChange::UserKey { ssh_key } => Command::Grant(Grant::UserKey(ssh_key)),
        LeaseChange::TerminalKey { ssh_key } => Command::Grant(Grant::TerminalKey(ssh_key)),
    };
    if let Command::Grant(grant) = &command {
        grant.check()?;
    }
    Ok(command)
}

/// What a call is known by, beside its key.
fn digest(lease: LeaseId, change: &LeaseChange) -> Hash32 {
    let mut h = blake3::Hasher::new_derive_key("compute-subnet/1 change of a lease");
    h.update(&lease.0);
    h.update(&serde_json::to_vec(change).unwrap_or_default());
    Hash32(*h.finalize().as_bytes())
}

impl Handler<Release> for AllocationManager {
    type Result = ResponseActFuture<Self, ReleaseReply>;
    fn handle(&mut self, release: Release, _: &mut Ctx<Self>) -> Self::Result {
        self.end(release, EndReason::Returned)
    }
}

impl Handler<ChangeLease> for AllocationManager {
    type Result = ResponseActFuture<Self, LeaseChangeReply>;
    fn handle(&mut self, ChangeLease { caller, request }: ChangeLease, _: &mut Ctx<Self>) -> Self::Result {
        self.change(caller, request)
    }
}

impl Handler<Renew> for AllocationManager {
    type Result = ResponseActFuture<Self, RenewReply>;
    fn handle(&mut self, Renew { caller, request }: Renew, _: &mut Ctx<Self>) -> Self::Result {
        let refuse = |reason, detail: String| RenewReply::Refused { reason, detail };
        let (id, expires_at_ms) = (request.lease, request.expires_at_ms);
        let claim = Claim { lease: id, epoch: request.fencing_epoch, token: request.owner_token };
        let decision = match self.decided(caller, &claim, &Command::Extend { expires_at_ms }) {
            Ok(decision) => decision,
            Err(NotDecided::Unknown) => {
                return self.answer(match self.aside_of(id, caller) {
                    Some(aside) => refuse(LeaseRefusal::Degraded, told(&aside)),
                    None => RenewReply::UnknownLease,
                });
            }
            Err(NotDecided::Refused(reason, detail)) => return self.answer(refuse(reason, detail)),
        };
        self.setup = self.live.get();
        // Rentals are finished in maintenance, not made longer.
        if let Some(why) = self.setup.duty.borrow().refuses_leases() {
            return self.answer(refuse(LeaseRefusal::Draining, why.to_owned()));
        }
        if let Err(error) = check_end(expires_at_ms, self.setup.clock.now_ms(), self.setup.longest) {
            return self.answer(refuse(LeaseRefusal::Expiry, error.to_string()));
        }
        Box::pin(self.perform(id, decision).map(move |done, _, _| match done {
            Ok(lease) => RenewReply::Renewed { expires_at_ms: lease.expires_at_ms },
            Err(error @ ChangeError::NotRecorded(_)) => refuse(LeaseRefusal::Degraded, error.to_string()),
            Err(error) => refuse(LeaseRefusal::Other, error.to_string()),
        }))
    }
}

impl AllocationManager {
    /// The fencing epoch of the container that a lost lease had. Out of sight is not gone: an engine may have forgotten it while its
    /// processes run.
    fn container_of_lost(&self, id: LeaseId) -> Option<u64> {
        let lease = &self.book.get(id)?.lease;
        lease.container_epoch.filter(|_| lease.state == LeaseState::Lost)
    }

    /// Has the engine take away what there may be of a lost lease, and tells its release when nothing is left.
    fn end_lost(&mut self, id: LeaseId, epoch: u64) -> ResponseActFuture<Self, ReleaseReply> {
        let setup = self.setup.clone();
        let work = async move { called(&setup, "destroy", setup.engine.destroy(id, epoch)).await };
        Box::pin(work.into_actor(self).map(|gone, _, _| match gone {
            Ok(_) => ReleaseReply::Released,
            Err(error) => {
                let detail = format!("what the lost lease had may still be there: {error}");
                ReleaseReply::Refused { reason: LeaseRefusal::Other, detail }
            }
        }))
    }
}

impl Handler<ChangeMachine> for AllocationManager {
    type Result = ResponseActFuture<Self, Result<Lease, ChangeError>>;
    fn handle(&mut self, wish: ChangeMachine, _: &mut Ctx<Self>) -> Self::Result {
        let ChangeMachine { caller, owner_token, command } = wish;
        if !self.compared {
            return self.answer(Err(ChangeError::Busy(NOT_COMPARED)));
        }
        let Some(lease) = self.book.of_token(caller, owner_token.digest()) else {
            return self.answer(Err(ChangeError::Unknown));
        };
        if let Command::Grant(grant) = &command
            && let Err(problem) = grant.check()
        {
            return self.answer(Err(ChangeError::NotAllowed(problem.to_owned())));
        }
        let id = lease.id;
        match decide::decide(lease, &command, self.setup.clock.now_ms()) {
            Ok(decision) => self.perform(id, decision),
            Err(error) => self.answer(Err(ChangeError::NotAllowed(error.to_string()))),
        }
    }
}

impl Handler<ForceRelease> for AllocationManager {
    type Result = ResponseActFuture<Self, Result<Lease, ForceError>>;
    fn handle(&mut self, ForceRelease { lease: id, reason }: ForceRelease, _: &mut Ctx<Self>) -> Self::Result {
        if !self.compared {
            return self.answer(Err(ForceError::Busy(NOT_COMPARED)));
        }
        let known = match self.book.get(id) {
            None if self.book.is_busy(id) => return self.answer(Err(ForceError::Busy("the lease is being made"))),
            None if !self.set_aside.iter().any(|aside| aside.lease == id) => {
                return self.answer(Err(ForceError::Unknown));
            }
            known => known.map(|entry| &entry.lease),
        };
        if let Some(aside) = self.set_aside.iter().find(|aside| aside.lease == id) {
            let problem = format!(
                "its container {} is set aside, see docs/rentals.md; `docker rm -f {0}` ends it for good",
                aside.container
            );
            return self.answer(Err(ForceError::NotDone(problem)));
        }
        let Some(known) = known else { return self.answer(Err(ForceError::Unknown)) };
        if known.state.is_final() {
            return self.answer(Ok(known.clone()));
        }
        if self.book.is_busy(id) {
            return self.answer(Err(ForceError::Busy("the lease is being changed")));
        }
        tracing::warn!(lease = %id, renter = %known.renter, reason, "the operator ends a lease");
        let wish = Command::Release { why: EndReason::Operator };
        let decision = match decide::decide(known, &wish, self.setup.clock.now_ms()) {
            Ok(decision) => decision,
            Err(error) => return self.answer(Err(ForceError::NotDone(error.to_string()))),
        };
        Box::pin(self.perform(id, decision).map(|done, _, _| match done {
            Ok(lease) if lease.state.is_final() => Ok(lease),
            Ok(_) => Err(ForceError::NotDone("the release is on record and will be finished".into())),
            Err(error) => Err(ForceError::NotDone(error.to_string())),
        }))
    }
}
