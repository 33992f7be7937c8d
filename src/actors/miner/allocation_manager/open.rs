//! New leases: what a validator asks for by the protocol of our own, and the one way in which a lease begins.

use super::*;
use crate::messages::miner::allocation_manager::NotRented;
use crate::wire::synapse::{AllocateReply, ReplyKey};

/// A lease that runs, or why there is none.
pub(super) type Opened = Result<Lease, NotRented>;

impl AllocationManager {
    /// Why no lease can be opened under this id now, whoever asks; reads the settings anew.
    pub(super) fn cannot_open(&mut self, caller: Hotkey, id: LeaseId) -> Option<NotRented> {
        let refused = |reason, detail: &str| Some(NotRented { reason, detail: detail.to_owned() });
        if !self.compared {
            return refused(LeaseRefusal::Degraded, NOT_COMPARED);
        }
        if self.book.is_busy(id) {
            return refused(LeaseRefusal::Other, "this lease is being changed, ask again");
        }
        if self.withdrawn.contains(&(caller, id)) {
            return refused(LeaseRefusal::Other, "this lease was released before it was asked for");
        }
        if self.book.get(id).is_some() {
            return refused(LeaseRefusal::Other, "there was a lease of this id already");
        }
        self.setup = self.live.get();
        let why = self.setup.duty.borrow().refuses_leases()?;
        refused(LeaseRefusal::Draining, &why)
    }

    /// Opens a lease on these terms and makes its container.
    pub(super) fn open(&mut self, terms: LeaseTerms, now: u64) -> ResponseActFuture<Self, Opened> {
        let id = terms.id;
        if let Err(error) = terms.check(now, self.setup.longest) {
            return self.answer(Err(not_rented(terms_refused(&error), error)));
        }
        if let Err(error) = self.ledger.reserve(id, &terms.devices) {
            return self.answer(Err(not_rented(device_refused(&error), error)));
        }
        self.book.begin(id);
        self.publish();
        let setup = self.setup.clone();
        let work = async move {
            let entry = Entry::opened(Lease::open(&terms, now));
            let opened = [Event::Opened { terms, at_ms: now }, Event::Reserved];
            let begun = tokio::time::Instant::now();
            let entry = match write(&setup, &entry, &opened).await {
                Ok(entry) => entry,
                // Perhaps on record, so it is kept as if it were: what is on record must have somebody to end it.
                Err(StepError::Unclear { next, problem }) => return Err((Some(*next), problem)),
                Err(error) => return Err((None, error.to_string())),
            };
            setup.metrics.lease_stage("reserve", begun.elapsed());
            let Some(effect) = decide::effect_of(&entry.lease) else {
                return Err((Some(entry), "nothing to create".to_owned()));
            };
            let made = carry_out(&setup, Some(entry.clone()), Step::Effect(effect)).await;
            match made {
                Ok(Some(entry)) => {
                    setup.metrics.lease_stage("total", begun.elapsed());
                    Ok(entry)
                }
                Ok(None) => Err((Some(entry), "the lease moved on".to_owned())),
                Err(problem) => Err((Some(entry), problem.to_string())),
            }
        };
        Box::pin(work.into_actor(self).map(move |made, act, ctx| {
            let opened = match made {
                Ok(entry) => {
                    let lease = entry.lease.clone();
                    act.settle(id, Ok(Some(entry)));
                    match lease.state {
                        LeaseState::Running => Ok(lease),
                        _ => Err(not_rented(
                            engine_refused(&lease),
                            lease.note.as_deref().unwrap_or("the container was not made"),
                        )),
                    }
                }
                // Nothing is on record: the devices are free again.
                Err((None, problem)) => {
                    act.ledger.release(id);
                    act.book.put(id, None);
                    act.publish();
                    Err(not_rented(LeaseRefusal::Degraded, problem))
                }
                // The intent is on record: the next comparison finishes or ends it.
                Err((Some(entry), problem)) => {
                    act.settle(id, Ok(Some(entry)));
                    Err(not_rented(LeaseRefusal::Other, problem))
                }
            };
            act.end_abandoned(ctx);
            opened
        }))
    }

    /// The answer to whoever asks again for a lease that is known.
    fn opened_before(&self, known: &Lease, caller: Hotkey, claim: &Claim, key: Option<ReplyKey>) -> AllocateReply {
        match crate::lease::fencing::check(known, claim) {
            Err(error) => refused(fenced(&error), error),
            Ok(_) if known.renter != caller => {
                refused(LeaseRefusal::NotOwner, "the lease belongs to another validator")
            }
            Ok(_) if known.state == LeaseState::Running => running(known, key),
            Ok(_) => refused(LeaseRefusal::Other, format!("the lease is {}", known.state)),
        }
    }
}

impl Handler<Allocate> for AllocationManager {
    type Result = ResponseActFuture<Self, AllocateReply>;
    fn handle(&mut self, Allocate { caller, request }: Allocate, _: &mut Ctx<Self>) -> Self::Result {
        let (id, key) = (request.lease, request.reply_key);
        let token = request.owner_token.clone();
        if let Some(known) = self.book.get(id).filter(|_| self.compared && !self.book.is_busy(id)) {
            let claim = Claim { lease: id, epoch: request.fencing_epoch, token };
            return self.answer(self.opened_before(&known.lease, caller, &claim, key));
        }
        if let Some(NotRented { reason, detail }) = self.cannot_open(caller, id) {
            return self.answer(refused(reason, detail));
        }
        let now = self.setup.clock.now_ms();
        let terms = LeaseTerms {
            id,
            role: Role::Provider,
            fencing_epoch: request.fencing_epoch,
            renter: caller,
            miner: self.setup.hotkey,
            devices: request.devices,
            expires_at_ms: request.expires_at_ms,
            owner_token_digest: token.digest(),
            ssh_public_key: (!request.ssh_key.is_empty()).then_some(request.ssh_key),
            image: request.image,
            wish: None,
            unheard: false,
        };
        Box::pin(self.open(terms, now).map(move |opened, _, _| match opened {
            Ok(lease) => running(&lease, key),
            Err(NotRented { reason, detail }) => refused(reason, detail),
        }))
    }
}
