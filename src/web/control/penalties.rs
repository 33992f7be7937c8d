//! The paths about penalties.

use std::time::Duration;

use actix_web::web::{Json, Path, Payload};

use super::api::{Lifted, Penalties, PenaltyWish};
use super::caller::{Caller, body};
use super::{Code, ControlError};
use crate::ids::Hotkey;
use crate::messages::blacklist_guard::{Lift, Penalise};
use crate::messages::journal::{PenaltiesAt, Write};
use crate::store::records::PenaltyRecord;
use crate::store::{Record, StoreError};
use crate::telemetry::{error_chain, printable};

/// How long the node's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// The label of the reason of a penalty that a person gives.
const OPERATOR: &str = "operator";
/// Longest reason, in bytes.
const MAX_REASON: usize = 300;
/// Longest penalty, in seconds: ten years.
const MAX_DURATION_S: u64 = 3650 * 86_400;

/// A hotkey from a path.
pub(super) fn hotkey(text: &str) -> Result<Hotkey, ControlError> {
    text.parse().map_err(|error| ControlError::invalid(format!("'{text}' is not a hotkey: {error}")))
}

pub(super) fn journal(error: &StoreError) -> ControlError {
    ControlError::new(Code::Journal, error_chain(error), "see the node's log and its disk")
}

pub(super) async fn list(node: Caller) -> Result<Json<Penalties>, ControlError> {
    in_force(&node).await.map(Json)
}

async fn in_force(node: &Caller) -> Result<Penalties, ControlError> {
    let stored = node.journal.ask(PenaltiesAt(node.clock.now_ms()), ASK).await?;
    let mut penalties = stored.map_err(|e| journal(&e))?;
    penalties.sort_by_key(|p| (p.until_ms, p.subject));
    Ok(Penalties { penalties })
}

pub(super) async fn add(node: Caller, payload: Payload) -> Result<Json<Penalties>, ControlError> {
    let wish: PenaltyWish = body(payload).await?;
    if wish.reason.trim().is_empty() || wish.reason.len() > MAX_REASON {
        return Err(ControlError::invalid(format!("a reason of 1 to {MAX_REASON} bytes is needed")));
    }
    if wish.duration_s == 0 || wish.duration_s > MAX_DURATION_S {
        return Err(ControlError::invalid(format!("a penalty lasts 1 to {MAX_DURATION_S} seconds")));
    }
    let from_ms = node.clock.now_ms();
    let penalty = PenaltyRecord {
        subject: wish.subject,
        reason: OPERATOR.to_owned(),
        detail: printable(wish.reason.trim(), MAX_REASON),
        from_ms,
        until_ms: from_ms.saturating_add(wish.duration_s.saturating_mul(1000)),
    };
    // On disk first, and acknowledged; the guard's own note is then a repeat.
    node.journal.ask(Write(vec![Record::Penalty(penalty.clone())]), ASK).await?.map_err(|e| journal(&e))?;
    node.guard.ask(Penalise(penalty), ASK).await?;
    in_force(&node).await.map(Json)
}

pub(super) async fn lift(node: Caller, of: Path<String>) -> Result<Json<Lifted>, ControlError> {
    let subject = of.parse().map_err(|error| ControlError::invalid(format!("'{of}' is {error}")))?;
    let lifted = node.guard.ask(Lift(subject), ASK).await?.map_err(|e| journal(&e))?;
    Ok(Json(Lifted { lifted }))
}
