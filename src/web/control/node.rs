//! The paths about the node itself.

use actix_web::HttpResponse;

use super::api::{Status, Table};
use super::caller::Caller;
use super::{ControlError, read_table};
use crate::telemetry::BuildInfo;
use actix_web::web::Json;

pub(super) async fn status(node: Caller) -> Json<Status> {
    let view = node.chain.borrow().clone();
    let neuron = view.as_ref().and_then(|v| v.metagraph.by_hotkey(&node.hotkey));
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
    })
}

pub(super) async fn actors(node: Caller) -> HttpResponse {
    HttpResponse::Ok().json(crate::web::describe(&node.view).await)
}

pub(super) async fn table(node: Caller) -> Result<Json<Table>, ControlError> {
    Ok(Json(read_table(node.validator()?, &node.chain).await))
}
