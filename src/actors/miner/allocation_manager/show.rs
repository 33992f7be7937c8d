//! What others may see of the leases.

use super::*;
use crate::wire::synapse::LeaseStatusReply;

impl Handler<LeaseStatus> for AllocationManager {
    type Result = MessageResult<LeaseStatus>;
    fn handle(&mut self, LeaseStatus { caller, request }: LeaseStatus, _: &mut Ctx<Self>) -> Self::Result {
        // Not knowing is no answer: a renter takes an unknown lease for a lost one.
        if !*self.loaded.borrow() || self.book.is_opening(request.lease) {
            let detail = "leases are not loaded, or this one is being made; ask again".to_owned();
            return MessageResult(LeaseStatusReply::Refused { reason: LeaseRefusal::Degraded, detail });
        }
        let Some(known) = self.book.get(request.lease).filter(|e| e.lease.renter == caller) else {
            // A container may be there all the same.
            let detail = match self.aside_of(request.lease, caller) {
                Some(aside) => {
                    format!("the records do not know this lease, its container {} is there", aside.container)
                }
                None if !self.compared => NOT_COMPARED.to_owned(),
                None => return MessageResult(LeaseStatusReply::UnknownLease),
            };
            return MessageResult(LeaseStatusReply::Refused { reason: LeaseRefusal::Degraded, detail });
        };
        let claim = Claim { lease: request.lease, epoch: request.fencing_epoch, token: request.owner_token };
        MessageResult(match crate::lease::fencing::check(&known.lease, &claim) {
            Ok(_) => {
                if let Some(receipt) = request.receipt {
                    let now = self.setup.clock.now_ms();
                    let outcome = self.receipts.take(receipt, &known.lease, self.setup.hotkey, now);
                    self.setup.metrics.receipt(outcome);
                }
                LeaseStatusReply::Known {
                    state: shown(known.lease.state),
                    expires_at_ms: known.lease.expires_at_ms,
                    // A key that seals nothing is the caller's: it learns the rest all the same.
                    login: request.reply_key.and_then(|key| key.seal(&login(&known.lease)?).ok()),
                }
            }
            Err(error) => LeaseStatusReply::Refused { reason: fenced(&error), detail: error.to_string() },
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
