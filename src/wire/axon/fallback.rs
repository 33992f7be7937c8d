//! Requests that no synapse is for, answered as the SDK's axon and its FastAPI answer them.

use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use tokio::time::Instant;

use super::body;
use super::classic_reply::{Echo, Reply};
use super::gate::AxonGate;
use super::outcome::AxonOutcome;

/// How these requests are named when they are counted.
const PATH: &str = "other";
/// Longest name of a caller that is repeated, in bytes.
const MAX_NAME: usize = 128;

/// Answers a request to a path that is not served; `served` are the names of all that are.
///
/// The SDK looks at the first part of the path only: with further parts it is FastAPI that does not know the path.
pub async fn not_found(gate: &AxonGate, request: HttpRequest, mut payload: Payload, served: &[&str]) -> HttpResponse {
    let all = body::discard(request.headers(), &mut payload, gate.limits()).await;
    let unread = (!all).then_some(payload);
    let reply = Reply { gate, name: "", started: Instant::now(), echo: Echo::of(&request, None) };
    if let Err(turned) = gate.enter(&request) {
        gate.tell(&request, PATH, turned.outcome, None, false);
        return reply.error(turned.status, &turned.message, turned.retry_after_s, unread);
    }
    let name = request.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    gate.tell(&request, PATH, AxonOutcome::NotFound, None, false);
    if served.contains(&name) {
        return HttpResponse::NotFound().json(serde_json::json!({ "detail": "Not Found" }));
    }
    let name: String = name.chars().filter(char::is_ascii_graphic).take(MAX_NAME).collect();
    let list: Vec<String> = served.iter().map(|name| format!("'{name}'")).collect();
    let message = format!("Synapse name '{name}' not found. Available synapses [{}]", list.join(", "));
    reply.error(404, &message, None, unread)
}

/// Answers a request with a method that no synapse is for.
pub async fn method_not_allowed(gate: &AxonGate, request: HttpRequest, mut payload: Payload) -> HttpResponse {
    let all = body::discard(request.headers(), &mut payload, gate.limits()).await;
    if let Err(turned) = gate.enter(&request) {
        gate.tell(&request, PATH, turned.outcome, None, false);
        let reply = Reply { gate, name: "", started: Instant::now(), echo: Echo::of(&request, None) };
        return reply.error(turned.status, &turned.message, turned.retry_after_s, (!all).then_some(payload));
    }
    gate.tell(&request, PATH, AxonOutcome::MethodNotAllowed, None, false);
    let mut response = HttpResponse::MethodNotAllowed();
    if !all {
        response.force_close();
    }
    response.json(serde_json::json!({ "detail": "Method Not Allowed" }))
}
