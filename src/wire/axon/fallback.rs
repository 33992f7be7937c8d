//! Requests that no synapse is for, answered as the SDK's axon and its FastAPI answer them.

use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
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
pub async fn not_found(gate: &AxonGate, request: HttpRequest, payload: Payload, served: &[&str]) -> HttpResponse {
    let name = request.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    let known = served.contains(&name);
    let name: String = name.chars().filter(char::is_ascii_graphic).take(MAX_NAME).collect();
    answer(gate, request, payload, AxonOutcome::NotFound, |reply, unread| match known {
        true => fast_api(HttpResponse::NotFound(), "Not Found", unread),
        false => {
            let list: Vec<String> = served.iter().map(|name| format!("'{name}'")).collect();
            let message = format!("Synapse name '{name}' not found. Available synapses [{}]", list.join(", "));
            reply.error(404, &message, None, unread)
        }
    })
    .await
}

/// Answers a request with a method that no synapse is for.
pub async fn method_not_allowed(gate: &AxonGate, request: HttpRequest, payload: Payload) -> HttpResponse {
    answer(gate, request, payload, AxonOutcome::MethodNotAllowed, |_, unread| {
        fast_api(HttpResponse::MethodNotAllowed(), "Method Not Allowed", unread)
    })
    .await
}

/// Answers with `say`, or with what the door says. Nothing of the body is waited for before the door has let it in.
async fn answer(
    gate: &AxonGate,
    request: HttpRequest,
    payload: Payload,
    outcome: AxonOutcome,
    say: impl FnOnce(&Reply<'_>, Option<Payload>) -> HttpResponse,
) -> HttpResponse {
    let reply = Reply { gate, name: "", started: Instant::now(), echo: Echo::of(&request, None) };
    let entered = gate.enter(&request);
    let unread = body::discard(request.headers(), payload, gate.limits()).await;
    let (outcome, response) = match entered {
        Ok(()) => (outcome, say(&reply, unread)),
        Err(turned) => (turned.outcome, reply.error(turned.status, &turned.message, turned.retry_after_s, unread)),
    };
    gate.tell(&request, PATH, outcome, None, false);
    response
}

/// FastAPI's own refusal.
fn fast_api(mut response: HttpResponseBuilder, detail: &str, unread: Option<Payload>) -> HttpResponse {
    response.content_type("application/json");
    let body = serde_json::to_vec(&serde_json::json!({ "detail": detail })).unwrap_or_default();
    body::respond(response, body, unread)
}
