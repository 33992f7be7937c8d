//! The paths about the node itself.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{Json, Path, Payload};

use super::api::{Config, DrainWish, MaintenanceWish, Status, Table};
use super::caller::{Caller, body};
use super::penalties::{hotkey, journal};
use super::{Code, ControlError, read_table};
use crate::actors::duty::{Drain, Duty, META_MAINTENANCE, Maintenance};
use crate::actors::reloader::ReloadError;
use crate::chain::standing::OwnStanding;
use crate::messages::journal::{Explain, Write};
use crate::settings::reload::Changes;
use crate::store::Record;
use crate::store::explain::Explanation;
use crate::telemetry::{BuildInfo, printable};

/// How long the node's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Longest note, in bytes.
const MAX_NOTE: usize = 300;

pub(super) async fn status(node: Caller) -> Json<Status> {
    let view = node.chain.borrow().clone();
    let neuron = view.as_ref().and_then(|v| v.metagraph.by_hotkey(&node.hotkey));
    let open_leases = match node.actors.get() {
        Some(actors) => actors.open_leases().await,
        None => None,
    };
    Json(Status {
        role: node.role,
        hotkey: node.hotkey,
        uid: neuron.map(|n| n.uid),
        version: BuildInfo::of(node.role.label()).version,
        pid: std::process::id(),
        instance: node.instance.clone(),
        started_at_ms: node.started_at_ms,
        data_dir: node.data_dir.display().to_string(),
        block: view.as_ref().map(|v| v.metagraph.head.number),
        epoch: view.as_ref().map(|v| v.epoch()),
        readiness: node.health.readiness(&node.view),
        duty: node.duty.borrow().clone(),
        open_leases,
    })
}

pub(super) async fn standing(node: Caller) -> Result<Json<OwnStanding>, ControlError> {
    let standing = node.standing.borrow().clone();
    let unread = || {
        let remedy = "ask again in a moment; compute-register status says what keeps the node from the chain";
        ControlError::new(Code::Unavailable, "the chain was not read since the node started", remedy)
    };
    standing.map(|standing| Json(OwnStanding::clone(&standing))).ok_or_else(unread)
}

pub(super) async fn actors(node: Caller) -> HttpResponse {
    HttpResponse::Ok().json(crate::web::describe(&node.view).await)
}

pub(super) async fn table(node: Caller) -> Result<Json<Table>, ControlError> {
    Ok(Json(read_table(node.validator()?, &node.chain).await))
}

pub(super) async fn explain(node: Caller, of: Path<String>) -> Result<Json<Explanation>, ControlError> {
    node.validator()?;
    let wanted = Explain(hotkey(&of)?, node.clock.now_ms());
    node.journal.ask(wanted, ASK).await?.map(Json).map_err(|e| journal(&e))
}

pub(super) async fn config(node: Caller) -> Json<Config> {
    Json(Config { settings: node.reloader.lines().await })
}

pub(super) async fn reload(node: Caller) -> Result<Json<Changes>, ControlError> {
    let remedy = |error: &ReloadError| match error {
        ReloadError::Problems(_) | ReloadError::Unusable(_) => "nothing has changed; correct them and reload again",
        ReloadError::Fixed => "",
        ReloadError::Interrupted(_) => "ask again",
    };
    let done = node.reloader.reload().await;
    done.map(Json).map_err(|error| ControlError::new(Code::Refused, error.to_string(), remedy(&error)))
}

pub(super) async fn maintenance(node: Caller, payload: Payload) -> Result<Json<Duty>, ControlError> {
    let wish: MaintenanceWish = body(payload).await?;
    let since_ms = node.clock.now_ms();
    let wanted = wish.on.then(|| Maintenance { note: printable(wish.note.trim(), MAX_NOTE), since_ms });
    // On disk first: it must hold after a restart.
    let record = Record::Meta { key: META_MAINTENANCE.to_owned(), value: serde_json::json!(wanted).to_string() };
    node.journal.ask(Write(vec![record]), ASK).await?.map_err(|e| journal(&e))?;
    match &wanted {
        Some(Maintenance { note, .. }) => tracing::warn!(note, "maintenance begins: no new leases"),
        None => tracing::warn!("maintenance ends"),
    }
    node.metrics.maintenance(wanted.is_some());
    node.duty.send_modify(|duty| duty.maintenance = wanted);
    Ok(Json(node.duty.borrow().clone()))
}

pub(super) async fn drain(node: Caller, payload: Payload) -> Result<Json<Duty>, ControlError> {
    let DrainWish { wait_for_leases } = body(payload).await?;
    let now_ms = node.clock.now_ms();
    tracing::warn!(wait_for_leases, "drain: no new leases, then the node ends");
    node.duty.send_modify(|duty| {
        let since_ms = duty.drain.map_or(now_ms, |drain| drain.since_ms);
        duty.drain = Some(Drain { wait_for_leases, since_ms });
    });
    Ok(Json(node.duty.borrow().clone()))
}
