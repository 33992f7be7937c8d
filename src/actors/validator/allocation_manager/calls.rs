//! What a miner is asked about its leases. Each call has a deadline, and none is repeated here.

use super::change::NotDone;
use super::{AllocationSetup, MAX_DETAIL, MAX_REPLY};
use crate::ids::{Hotkey, LeaseId};
use crate::lease::health::EngineView;
use crate::lease::{Lease, OwnerToken};
use crate::scoring::LeaseReceipt;
use crate::telemetry::printable;
use crate::wire::dendrite::CallError;
use crate::wire::dendrite::Peer;
use crate::wire::synapse::{
    ContainerState, LeaseChange, LeaseChangeReply, LeaseChangeRequest, LeaseStatusReply, LeaseStatusRequest,
    ReleaseReply, ReleaseRequest, RenewReply, RenewRequest,
};

pub(super) fn peer(setup: &AllocationSetup, miner: Hotkey) -> Result<Peer, String> {
    let view = setup.view.borrow().clone();
    let addr = view.as_ref().and_then(|v| v.metagraph.axon_address(&miner));
    addr.map(|addr| Peer { hotkey: miner, addr }).ok_or_else(|| "the miner announces no axon".to_owned())
}

/// Whether the chain was read since the start. If not, a miner may have moved to another address meanwhile: what it says
/// counts, for it is signed, and that it says nothing does not.
pub(super) fn knows_addresses(setup: &AllocationSetup) -> bool {
    setup.view.borrow().as_ref().is_some_and(|view| !view.is_stored())
}

pub(super) fn token(setup: &AllocationSetup, id: LeaseId) -> OwnerToken {
    use secrecy::ExposeSecret;
    OwnerToken::derive(setup.secret.expose_secret(), id)
}

/// Asks the miner to release. `Ok` when it confirms that the container is gone, or that there is none.
pub(super) async fn release_at_miner(setup: &AllocationSetup, lease: &Lease) -> Result<(), String> {
    let peer = peer(setup, lease.miner)?;
    let request =
        ReleaseRequest { lease: lease.id, fencing_epoch: lease.fencing_epoch, owner_token: token(setup, lease.id) };
    match setup.dendrite.call(&peer, &request, setup.allocate_deadline, MAX_REPLY).await {
        Ok(reply) => match reply.body {
            ReleaseReply::Released | ReleaseReply::UnknownLease => Ok(()),
            ReleaseReply::Refused { detail, .. } => Err(printable(&detail, MAX_DETAIL)),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// What a call without an answer came to: nothing, if nothing was sent.
fn unanswered(error: &CallError) -> NotDone {
    match error {
        CallError::Unreachable(cause) if cause.is_connect() => NotDone::Refused(error.to_string()),
        _ => NotDone::Unclear(error.to_string()),
    }
}

/// Has the miner change a lease's container; what that is then.
pub(super) async fn call_change(
    setup: &AllocationSetup,
    lease: &Lease,
    change: LeaseChange,
) -> Result<ContainerState, NotDone> {
    let peer = peer(setup, lease.miner).map_err(NotDone::Refused)?;
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(|e| NotDone::Refused(format!("no randomness from the system: {e}")))?;
    let (fencing_epoch, owner_token) = (lease.fencing_epoch, token(setup, lease.id));
    let request = LeaseChangeRequest { lease: lease.id, fencing_epoch, owner_token, key, change };
    match setup.dendrite.call(&peer, &request, setup.allocate_deadline, MAX_REPLY).await {
        Ok(reply) => match reply.body {
            LeaseChangeReply::Done { state } => Ok(state),
            LeaseChangeReply::UnknownLease => Err(NotDone::Refused("the miner knows no such lease".into())),
            LeaseChangeReply::Refused { reason, detail } => {
                Err(NotDone::refused(reason, printable(&detail, MAX_DETAIL)))
            }
        },
        Err(error) => Err(unanswered(&error)),
    }
}

/// Has the miner let a lease run until then; until when it runs.
pub(super) async fn call_renew(setup: &AllocationSetup, lease: &Lease, expires_at_ms: u64) -> Result<u64, NotDone> {
    let peer = peer(setup, lease.miner).map_err(NotDone::Refused)?;
    let (fencing_epoch, owner_token) = (lease.fencing_epoch, token(setup, lease.id));
    let request = RenewRequest { lease: lease.id, fencing_epoch, owner_token, expires_at_ms };
    match setup.dendrite.call(&peer, &request, setup.call_deadline, MAX_REPLY).await {
        Ok(reply) => match reply.body {
            RenewReply::Renewed { expires_at_ms } => Ok(expires_at_ms),
            RenewReply::UnknownLease => Err(NotDone::Refused("the miner knows no such lease".into())),
            RenewReply::Refused { reason, detail } => Err(NotDone::refused(reason, printable(&detail, MAX_DETAIL))),
        },
        Err(error) => Err(unanswered(&error)),
    }
}

/// What a miner's word on a lease shows. A refusal shows nothing of the container, and is the miner's own doing: were it no look
/// at all, a miner would be paid for refusing.
fn told(reply: &LeaseStatusReply) -> EngineView {
    match reply {
        LeaseStatusReply::Known { state: ContainerState::Running, .. } => EngineView::Running,
        LeaseStatusReply::Known { state: ContainerState::Paused, .. } => EngineView::Paused,
        LeaseStatusReply::Known { state: ContainerState::Gone, .. } | LeaseStatusReply::UnknownLease => {
            EngineView::Gone
        }
        LeaseStatusReply::Refused { .. } => EngineView::Unreachable,
    }
}

/// How the lease is at its miner, which is handed the receipt.
pub(super) async fn status(setup: &AllocationSetup, lease: &Lease, receipt: Option<LeaseReceipt>) -> EngineView {
    let silent = if knows_addresses(setup) { EngineView::Unreachable } else { EngineView::NotSeen };
    let Ok(peer) = peer(setup, lease.miner) else { return silent };
    let request = LeaseStatusRequest {
        lease: lease.id,
        fencing_epoch: lease.fencing_epoch,
        owner_token: token(setup, lease.id),
        receipt,
        reply_key: None,
        expires_at_ms: Some(lease.expires_at_ms),
    };
    match setup.dendrite.call(&peer, &request, setup.call_deadline, MAX_REPLY).await {
        Ok(reply) => told(&reply.body),
        Err(error) if error.cause() == crate::verdict::UnknownCause::OwnFault => EngineView::NotSeen,
        Err(_) => silent,
    }
}

#[cfg(test)]
mod tests {
    use super::super::watch::Watched;
    use super::*;
    use crate::lease::health::{HealthPolicy, LeaseHealth, Observation, ProbeView};
    use crate::wire::synapse::LeaseRefusal;

    #[test]
    fn a_miner_that_refuses_to_tell_of_a_lease_is_not_paid_for_it_and_loses_it_where_its_port_is_closed_too() {
        let policy = HealthPolicy { misses: 3, rounds: 4 };
        let after = |probe| {
            let mut lease = Watched::default();
            let refused = LeaseStatusReply::Refused { reason: LeaseRefusal::Other, detail: String::new() };
            let seen = Observation::of_renter(told(&refused), probe, false);
            let last = (0..3).map(|_| lease.observe(policy, seen)).last();
            (lease.confirmed(), last.unwrap())
        };
        assert_eq!(after(ProbeView::NoAnswer), (false, LeaseHealth::Gone));
        assert_eq!(after(ProbeView::Answered), (false, LeaseHealth::Suspect), "the tenant can log in");
        assert_eq!(after(ProbeView::NotSeen), (true, LeaseHealth::Healthy), "we were cut off");
    }
}
