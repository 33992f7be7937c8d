//! What others may see of the leases.

use super::aside::told;
use super::*;
use crate::wire::synapse::{LeaseStatusReply, LeaseStatusRequest};

impl Handler<LeaseStatus> for AllocationManager {
    type Result = MessageResult<LeaseStatus>;
    fn handle(&mut self, LeaseStatus { caller, request }: LeaseStatus, ctx: &mut Ctx<Self>) -> Self::Result {
        let LeaseStatusRequest { lease: id, fencing_epoch, owner_token, receipt, reply_key, expires_at_ms } = request;
        let refuse = |reason, detail: String| MessageResult(LeaseStatusReply::Refused { reason, detail });
        // Not knowing is no answer: a renter takes an unknown lease for a lost one.
        if !*self.loaded.borrow() || self.book.is_opening(id) {
            let detail = "leases are not loaded, or this one is being made; ask again".to_owned();
            return refuse(LeaseRefusal::Degraded, detail);
        }
        let claim = Claim { lease: id, epoch: fencing_epoch, token: owner_token };
        let aside = self.aside_of(id, caller);
        let Some(known) = self.book.get(id).map(|e| &e.lease).filter(|l| l.renter == caller).cloned() else {
            // A container may be there all the same.
            return match aside {
                Some(aside) if claim.epoch < aside.fencing_epoch => {
                    let detail = format!("the lease's container belongs to fencing epoch {}", aside.fencing_epoch);
                    refuse(LeaseRefusal::StaleEpoch, detail)
                }
                Some(aside) => {
                    self.shown(&aside, &claim, expires_at_ms, ctx);
                    refuse(LeaseRefusal::Degraded, told(&aside))
                }
                None if !self.compared => refuse(LeaseRefusal::Degraded, NOT_COMPARED.to_owned()),
                None => MessageResult(LeaseStatusReply::UnknownLease),
            };
        };
        if let Err(error) = crate::lease::fencing::check(&known, &claim) {
            return refuse(fenced(&error), error.to_string());
        }
        let shown_now = aside.is_some_and(|aside| self.shown(&aside, &claim, expires_at_ms, ctx));
        // While it is taken back it is in no list.
        if shown_now || known.state == LeaseState::Lost && self.book.is_busy(id) {
            return refuse(LeaseRefusal::Degraded, "the lease was lost and is taken back; ask again".to_owned());
        }
        if let Some(receipt) = receipt {
            let outcome = self.receipts.take(receipt, &known, self.setup.hotkey, self.setup.clock.now_ms());
            self.setup.metrics.receipt(outcome);
        }
        MessageResult(LeaseStatusReply::Known {
            state: shown(known.state),
            expires_at_ms: known.expires_at_ms,
            // A key that seals nothing is the caller's: it learns the rest all the same.
            login: reply_key.and_then(|key| key.seal(&login(&known)?).ok()),
        })
    }
}

impl Handler<HeldReceipts> for AllocationManager {
    type Result = MessageResult<HeldReceipts>;
    fn handle(&mut self, _: HeldReceipts, _: &mut Ctx<Self>) -> Self::Result {
        let live = |id| self.book.get(id).is_some_and(|e| e.lease.state.is_live());
        MessageResult(self.receipts.valid(self.setup.clock.now_ms(), live))
    }
}

impl Handler<ListLeases> for AllocationManager {
    type Result = MessageResult<ListLeases>;
    fn handle(&mut self, _: ListLeases, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.book.open().cloned().collect())
    }
}

impl Handler<ListSetAside> for AllocationManager {
    type Result = MessageResult<ListSetAside>;
    fn handle(&mut self, _: ListSetAside, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.set_aside.clone())
    }
}

impl Handler<RentedDevices> for AllocationManager {
    type Result = ResponseActFuture<Self, Vec<(DeviceId, LeaseId)>>;
    fn handle(&mut self, _: RentedDevices, _: &mut Ctx<Self>) -> Self::Result {
        let mut loaded = self.loaded.subscribe();
        let known = async move {
            if loaded.wait_for(|known| *known).await.is_err() {
                // The sender lives in the actor that polls this future: it cannot be gone.
                std::future::pending::<()>().await;
            }
        };
        // The ledger, not the book: a device counts from the moment it is set aside, and in quarantine too.
        Box::pin(known.into_actor(self).map(|(), act, _| act.ledger.held().map(|(d, by)| (d, by.lease())).collect()))
    }
}
