//! The paths about leases.

use std::time::Duration;

use actix_web::web::{Json, Path, Payload, Query};

use super::api::{LeaseHistory, Leases, ReleaseWish, RentWish};
use super::caller::{Caller, body};
use super::{Code, ControlError, RoleActors};
use crate::actors::lease_book::Entry;
use crate::actors::miner::allocation_manager::AllocationManager as MinerAllocations;
use crate::ids::LeaseId;
use crate::lease::Lease;
use crate::messages::journal::LeaseWithEvents;
use crate::messages::miner::allocation_manager as miner;
use crate::messages::validator::allocation_manager as validator;
use crate::messages::validator::allocation_manager::{RentError, RentRequest};
use crate::runtime::Handle;
use crate::telemetry::{error_chain, printable};

/// How long the node's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// How long renting and releasing may take: longer than the longest `leases.request_timeout`, which bounds the work.
const WORK: Duration = Duration::from_secs(660);
/// Longest reason for ending a renter's lease, in bytes.
const MAX_REASON: usize = 300;

/// The operator of a miner ends a lease against its renter's will.
async fn force(
    allocations: &Handle<MinerAllocations>,
    lease: LeaseId,
    ReleaseWish { force, reason }: ReleaseWish,
) -> Result<Json<Lease>, ControlError> {
    let reason = printable(reason.trim(), MAX_REASON);
    if !force || reason.is_empty() {
        let message = "the lease belongs to its renter; ending it needs --force and a --reason";
        return Err(ControlError::new(Code::Refused, message, "ask the renting validator, or force it"));
    }
    let done = allocations.ask(miner::ForceRelease { lease, reason }, WORK).await?;
    done.map(Json).map_err(|error| match &error {
        miner::ForceError::Unknown => RentError::UnknownLease.into(),
        miner::ForceError::Busy(_) => ControlError::new(Code::Unavailable, error.to_string(), "ask again"),
        miner::ForceError::NotDone(_) => {
            ControlError::new(Code::Journal, error.to_string(), "look at the lease, see the node's log")
        }
    })
}

fn lease_id(text: &str) -> Result<LeaseId, ControlError> {
    text.parse().map_err(|error| ControlError::invalid(format!("'{text}' is not a lease: {error}")))
}

pub(super) async fn list(node: Caller) -> Result<Json<Leases>, ControlError> {
    let (mut leases, mut set_aside) = match node.actors()? {
        RoleActors::Miner { allocations } => {
            (allocations.ask(miner::ListLeases, ASK).await?, allocations.ask(miner::ListSetAside, ASK).await?)
        }
        RoleActors::Validator(actors) => (actors.allocations.ask(validator::ListLeases, ASK).await?, Vec::new()),
    };
    leases.sort_by_key(|lease| (lease.requested_at_ms, lease.id));
    set_aside.sort_by(|a, b| (a.until_ms, &a.container).cmp(&(b.until_ms, &b.container)));
    Ok(Json(Leases { leases, set_aside }))
}

pub(super) async fn show(node: Caller, id: Path<String>) -> Result<Json<LeaseHistory>, ControlError> {
    let id = lease_id(&id)?;
    let unreadable = |error: String| ControlError::new(Code::Journal, error, "see the node's log");
    let found = node.journal.ask(LeaseWithEvents(id), ASK).await?.map_err(|e| unreadable(error_chain(&e)))?;
    let Some((record, history)) = found else { return Err(RentError::UnknownLease.into()) };
    let entry = Entry::from_record(&record).map_err(|e| unreadable(format!("lease {id} cannot be read: {e}")))?;
    Ok(Json(LeaseHistory { lease: entry.lease, history }))
}

pub(super) async fn rent(node: Caller, payload: Payload) -> Result<Json<Lease>, ControlError> {
    let allocations = &node.validator()?.allocations;
    let wish: RentWish = body(payload).await?;
    let request = RentRequest {
        id: wish.id,
        renter: wish.renter,
        model: wish.model,
        devices: wish.devices,
        duration: Duration::from_secs(wish.duration_s),
        image: wish.image,
        ssh_key: wish.ssh_key,
    };
    Ok(Json(allocations.ask(validator::Rent(request), WORK).await??))
}

pub(super) async fn release(
    node: Caller,
    id: Path<String>,
    wish: Query<ReleaseWish>,
) -> Result<Json<Lease>, ControlError> {
    let id = lease_id(&id)?;
    let allocations = match node.actors()? {
        RoleActors::Validator(actors) => &actors.allocations,
        RoleActors::Miner { allocations } => return force(allocations, id, wish.into_inner()).await,
    };
    Ok(Json(allocations.ask(validator::Release(id), WORK).await??))
}
