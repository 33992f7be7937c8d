//! The serving side: what stands between an HTTP worker and a handler.
//!
//! [`handle`] reads the body within its size and time limits, verifies the signature, asks for admission, remembers the
//! nonce, parses the body, runs the handler and signs the reply. No actor is asked before all of that held, and a panic
//! on the way is this request's 500.
//!
//! | status | `error` | signed |
//! |---|---|---|
//! | 413, 408, 400 | `too_large`, `slow_body`, `broken_body` | no |
//! | 401 | `malformed_auth`, `wrong_receiver`, `stale_request`, `bad_signature`, `replayed_request` | no |
//! | 503 | `overloaded` (no room for another nonce) | no |
//! | 403, 503 | the admission's reason, `not_ready` | yes |
//! | 400 | `malformed_body` | yes |
//! | 503 | `overloaded` (too many handlers at work) | yes |
//! | 500, 503 | `panic`, `handler_deadline`, `encoding` | yes |
//! | the handler's | the handler's | yes |
//!
//! Design notes:
//! - a nonce is remembered after admission, so the table holds admitted hotkeys only, and strangers with keys made up on
//!   the spot cannot fill it;
//! - a replay's refusal is not signed: each nonce has one signed reply, and nobody can obtain a second one for it;
//! - handlers are counted, not connections: only admitted callers can use them up, and a slow sender holds none;
//! - all requests to one gate share one nonce table, so a gate must outlive the rebinding of its listener.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_LENGTH, HeaderMap};
use actix_web::web::{Bytes, Payload};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::btauth::{self, AuthError, AuthHeaders, AuthPolicy, Caller};
use super::nonces::{NonceLimits, NonceTable};
use super::reply::{REPLY_SIGNATURE_HEADER, sign_reply};
use super::synapse::{ErrorBody, ReplyBody, Synapse};
use crate::clock::SharedClock;
use crate::ids::Hotkey;
use crate::wallet::Keypair;

mod outcome;

pub use outcome::{AdmissionRefusal, AxonEvents, AxonOutcome, NoEvents, Refusal, RequestSeen};

/// Bounds on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AxonLimits {
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// From the first look at the request until its body has arrived.
    pub body_deadline: Duration,
    /// From calling the handler until its answer. Handlers have deadlines of their own; this one bounds them all.
    pub handler_deadline: Duration,
    /// Handlers at work at the same time, at least 1. Further requests are refused, not queued.
    pub at_once: usize,
}

impl Default for AxonLimits {
    /// 64 KiB, 5 s, 5 minutes, 64 at once.
    fn default() -> Self {
        AxonLimits {
            max_body_bytes: 64 * 1024,
            body_deadline: Duration::from_secs(5),
            handler_deadline: Duration::from_secs(300),
            at_once: 64,
        }
    }
}

/// What all requests to one axon share.
pub struct AxonGate {
    keypair: Keypair,
    policy: AuthPolicy,
    limits: AxonLimits,
    clock: SharedClock,
    nonces: Mutex<NonceTable>,
    handlers: Semaphore,
    events: Arc<dyn AxonEvents>,
}

impl AxonGate {
    /// A gate that answers as `keypair`. Requests signed before now are refused.
    pub fn new(
        keypair: Keypair,
        clock: SharedClock,
        policy: AuthPolicy,
        limits: AxonLimits,
        nonce_limits: NonceLimits,
        events: Arc<dyn AxonEvents>,
    ) -> Self {
        let nonces = Mutex::new(NonceTable::new(nonce_limits, policy, clock.now_ns()));
        let handlers = Semaphore::new(limits.at_once.max(1));
        AxonGate { keypair, policy, limits, clock, nonces, handlers, events }
    }

    /// The hotkey that requests must be signed for.
    pub fn hotkey(&self) -> Hotkey {
        self.keypair.hotkey()
    }

    fn authenticate(&self, request: &HttpRequest, body: &[u8]) -> Result<Caller, AuthError> {
        let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers = AuthHeaders::collect(headers)?;
        let target = request.uri().path_and_query().map_or("/", |t| t.as_str());
        let (now, us) = (self.clock.now_ns(), self.keypair.hotkey());
        btauth::verify(&headers, request.method().as_str(), target, body, now, &us, &self.policy)
    }

    fn admit_nonce(&self, caller: &Caller) -> Result<(), AuthError> {
        // A panic inside would be between two whole operations of the table; what it holds stays true.
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        nonces.admit(caller, self.clock.now_ns())
    }
}

impl std::fmt::Debug for AxonGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AxonGate").field("hotkey", &self.hotkey()).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// An answer before it is signed and sent.
struct Answer {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
    outcome: AxonOutcome,
    /// Whose request it answers, if that is proved and the answer is to be signed.
    sign_for: Option<Caller>,
    /// A request body that is not read to its end, see [`Unread`].
    unread: Option<Payload>,
}

impl Answer {
    fn error(status: u16, outcome: AxonOutcome, error: &str, detail: impl Into<String>) -> Self {
        let body = ErrorBody { error: error.to_owned(), detail: detail.into() };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        Answer { status, content_type: "application/json", body, outcome, sign_for: None, unread: None }
    }

    fn signed_for(self, caller: Caller) -> Self {
        Answer { sign_for: Some(caller), ..self }
    }
}

/// Serves one request of type `S`. `admission` is a pure look at a snapshot; `handler` gets the proved caller.
pub async fn handle<S, A, H, F>(
    gate: &AxonGate,
    request: HttpRequest,
    payload: Payload,
    admission: A,
    handler: H,
) -> HttpResponse
where
    S: Synapse,
    A: FnOnce(&Hotkey) -> Result<(), AdmissionRefusal>,
    H: FnOnce(Caller, S) -> F,
    F: Future<Output = Result<S::Reply, Refusal>>,
{
    let mut caller = None;
    // Nothing that the closure leaves half done is looked at again: the caller is a plain value, the nonce table's
    // operations are whole.
    let work = AssertUnwindSafe(answer::<S, A, H, F>(gate, &request, payload, admission, handler, &mut caller));
    let answer = match work.catch_unwind().await {
        Ok(answer) => answer,
        Err(_) => {
            tracing::error!(path = S::PATH, ?caller, "handling a request panicked");
            let answer = Answer::error(500, AxonOutcome::Panic, "panic", "this request could not be handled");
            Answer { sign_for: caller, ..answer }
        }
    };
    let peer = request.peer_addr().map(|peer| peer.ip());
    let caller = caller.as_ref().map(|c| &c.hotkey);
    gate.events.request(RequestSeen { path: S::PATH, outcome: answer.outcome, caller, peer });
    respond(gate, answer)
}

async fn answer<S, A, H, F>(
    gate: &AxonGate,
    request: &HttpRequest,
    mut payload: Payload,
    admission: A,
    handler: H,
    proved: &mut Option<Caller>,
) -> Answer
where
    S: Synapse,
    A: FnOnce(&Hotkey) -> Result<(), AdmissionRefusal>,
    H: FnOnce(Caller, S) -> F,
    F: Future<Output = Result<S::Reply, Refusal>>,
{
    let body = match read_body(request.headers(), &mut payload, &gate.limits).await {
        Ok(body) => body,
        Err(answer) => return Answer { unread: Some(payload), ..answer },
    };
    let unauthorized = |error: AuthError| {
        let status = if matches!(error, AuthError::Overloaded(_)) { 503 } else { 401 };
        Answer::error(status, AxonOutcome::from(&error), error.label(), error.to_string())
    };
    let caller = match gate.authenticate(request, &body) {
        Ok(caller) => caller,
        Err(error) => return unauthorized(error),
    };
    *proved = Some(caller);

    match admission(&caller.hotkey) {
        Ok(()) => {}
        Err(AdmissionRefusal::Forbidden { reason, detail }) => {
            return Answer::error(403, AxonOutcome::NotAdmitted, reason, detail).signed_for(caller);
        }
        Err(AdmissionRefusal::NotReady { detail }) => {
            return Answer::error(503, AxonOutcome::NotReady, "not_ready", detail).signed_for(caller);
        }
    }
    if let Err(error) = gate.admit_nonce(&caller) {
        return unauthorized(error);
    }
    let answer = match serde_json::from_slice::<S>(&body) {
        Ok(synapse) => run::<S, H, F>(gate, caller, synapse, handler).await,
        Err(e) => {
            // The parser's words may quote a secret of the body: say where, not what.
            let detail = format!("not a {} request (line {}, column {})", S::PATH, e.line(), e.column());
            Answer::error(400, AxonOutcome::MalformedBody, "malformed_body", detail)
        }
    };
    answer.signed_for(caller)
}

async fn run<S, H, F>(gate: &AxonGate, caller: Caller, synapse: S, handler: H) -> Answer
where
    S: Synapse,
    H: FnOnce(Caller, S) -> F,
    F: Future<Output = Result<S::Reply, Refusal>>,
{
    let Ok(_working) = gate.handlers.try_acquire() else {
        let detail = format!("{} requests are being worked on, ask again", gate.limits.at_once.max(1));
        return Answer::error(503, AxonOutcome::Overloaded, "overloaded", detail);
    };
    match timeout(gate.limits.handler_deadline, handler(caller, synapse)).await {
        Err(_) => Answer::error(503, AxonOutcome::HandlerDeadline, "handler_deadline", "no answer in time"),
        Ok(Err(refusal)) => Answer::error(refusal.status, AxonOutcome::Refused, refusal.error, refusal.detail),
        Ok(Ok(reply)) => match reply.encode() {
            Ok(body) => Answer {
                status: 200,
                content_type: S::Reply::CONTENT_TYPE,
                body,
                outcome: AxonOutcome::Ok,
                sign_for: None,
                unread: None,
            },
            Err(e) => {
                tracing::error!(path = S::PATH, error = %e, "a reply has no JSON form");
                Answer::error(500, AxonOutcome::Encoding, "encoding", "the reply could not be written")
            }
        },
    }
}

async fn read_body(headers: &HeaderMap, payload: &mut Payload, limits: &AxonLimits) -> Result<Vec<u8>, Answer> {
    let too_large = || {
        let detail = format!("the body exceeds {} bytes", limits.max_body_bytes);
        Answer::error(413, AxonOutcome::TooLarge, "too_large", detail)
    };
    let stated = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if stated.is_some_and(|length| length > limits.max_body_bytes as u64) {
        return Err(too_large());
    }
    let deadline = Instant::now() + limits.body_deadline;
    let mut body = Vec::new();
    loop {
        let chunk = timeout_at(deadline, payload.next()).await.map_err(|_| {
            let detail = format!("the body did not arrive within {:?}", limits.body_deadline);
            Answer::error(408, AxonOutcome::SlowBody, "slow_body", detail)
        })?;
        let Some(chunk) = chunk else { return Ok(body) };
        let broken = |_| Answer::error(400, AxonOutcome::BrokenBody, "broken_body", "the body broke off");
        let chunk = chunk.map_err(broken)?;
        if body.len() + chunk.len() > limits.max_body_bytes {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
}

fn respond(gate: &AxonGate, answer: Answer) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = HttpResponseBuilder::new(status);
    response.content_type(answer.content_type);
    if let Some(caller) = answer.sign_for {
        let signature = sign_reply(&gate.keypair, status.as_u16(), &answer.body, caller.nonce, &caller.hotkey);
        response.insert_header((REPLY_SIGNATURE_HEADER, signature));
    }
    match answer.unread {
        None => response.body(answer.body),
        Some(payload) => {
            response.force_close();
            response.body(Unread { bytes: Some(Bytes::from(answer.body)), _payload: payload })
        }
    }
}

/// A reply to a request whose body was not read to its end.
///
/// actix-http goes on reading a chunked body that was dropped, for as long as the peer cares to send one. While the
/// body is held it closes the connection after the reply instead, with a time limit.
struct Unread {
    bytes: Option<Bytes>,
    _payload: Payload,
}

impl MessageBody for Unread {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        Poll::Ready(self.get_mut().bytes.take().map(Ok))
    }
}
