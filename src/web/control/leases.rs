//! The paths about leases.

use std::time::Duration;

use actix_web::web::{Json, Path, Payload, Query};

use super::api::{Candidates, LeaseHistory, Leases, ReleaseWish, RenewWish, RentWish};
use super::caller::{Caller, body};
use super::{Code, ControlError, RoleActors};
use crate::actors::lease_book::Entry;
use crate::actors::miner::allocation_manager::AllocationManager as MinerAllocations;
use crate::ids::LeaseId;
use crate::lease::Lease;
use crate::messages::journal::{EndedLeases, LeaseWithEvents};
use crate::messages::miner::allocation_manager as miner;
use crate::messages::validator::allocation_manager as validator;
use crate::messages::validator::allocation_manager::{RentError, RentRequest};
use crate::runtime::Handle;
use crate::telemetry::{error_chain, printable};
use crate::wire::synapse::LeaseChange;

/// How long the node's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// How long renting and releasing may take. What bounds the work is `leases.rent_timeout`, after which no further miner is
/// asked, and twice `leases.request_timeout` for the last one; each is 600 s at most.
const WORK: Duration = Duration::from_secs(1_860);
/// How long a choice may take: it asks the collector of specs and the journal.
const CHOICE: Duration = Duration::from_secs(15);
/// The ended leases that are listed.
const MAX_ENDED: u32 = 50;
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
    let (mut leases, mut set_aside, ended) = match node.actors()? {
        RoleActors::Miner { allocations } => {
            let set_aside = allocations.ask(miner::ListSetAside, ASK).await?;
            (allocations.ask(miner::ListLeases, ASK).await?, set_aside, Vec::new())
        }
        RoleActors::Validator(actors) => {
            let records = node.journal.ask(EndedLeases(MAX_ENDED), ASK).await?;
            let records =
                records.map_err(|e| ControlError::new(Code::Journal, error_chain(&e), "see the node's log"))?;
            // A record that cannot be read is shown by nobody; asked for by its id, it says why.
            let ended = records.iter().filter_map(|record| Some(Entry::from_record(record).ok()?.lease)).collect();
            (actors.allocations.ask(validator::ListLeases, ASK).await?, Vec::new(), ended)
        }
    };
    leases.sort_by_key(|lease| (lease.requested_at_ms, lease.id));
    set_aside.sort_by(|a, b| (a.until_ms, &a.container).cmp(&(b.until_ms, &b.container)));
    Ok(Json(Leases { leases, ended, set_aside }))
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
    Ok(Json(allocations.ask(validator::Rent(request(wish)), WORK).await??))
}

pub(super) async fn candidates(node: Caller, payload: Payload) -> Result<Json<Candidates>, ControlError> {
    let allocations = &node.validator()?.allocations;
    let wish: RentWish = body(payload).await?;
    let candidates = allocations.ask(validator::ShowCandidates(request(wish)), CHOICE).await??;
    Ok(Json(Candidates { candidates }))
}

fn request(wish: RentWish) -> RentRequest {
    let RentWish { id, renter, miner, requirements, duration_s, image, ssh_key } = wish;
    RentRequest { id, renter, miner, requirements, duration: Duration::from_secs(duration_s), image, ssh_key }
}

pub(super) async fn change(node: Caller, id: Path<String>, payload: Payload) -> Result<Json<Lease>, ControlError> {
    let allocations = &node.validator()?.allocations;
    let id = lease_id(&id)?;
    let change: LeaseChange = body(payload).await?;
    Ok(Json(allocations.ask(validator::ChangeLease { id, change }, WORK).await??))
}

pub(super) async fn renew(node: Caller, id: Path<String>, payload: Payload) -> Result<Json<Lease>, ControlError> {
    let allocations = &node.validator()?.allocations;
    let id = lease_id(&id)?;
    let RenewWish { duration_s } = body(payload).await?;
    let lasts = Duration::from_secs(duration_s);
    Ok(Json(allocations.ask(validator::RenewLease { id, lasts }, WORK).await??))
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
