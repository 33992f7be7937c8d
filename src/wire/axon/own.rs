//! Requests of our own synapses: `btauth/1` only, and every reply to a proved caller is signed.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use futures_util::FutureExt;

use super::body;
use super::door::Turned;
use super::gate::{AxonGate, WorkProblem};
use super::outcome::{AdmissionRefusal, AxonOutcome, Refusal};
use crate::ids::Hotkey;
use crate::wire::btauth::{AuthError, Caller};
use crate::wire::reply::{REPLY_SIGNATURE_HEADER, sign_reply};
use crate::wire::synapse::{ErrorBody, ReplyBody, Synapse};

/// An answer before it is signed and sent.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) outcome: AxonOutcome,
    /// Whose request it answers, if that is proved and the answer is to be signed.
    pub(super) sign_for: Option<Caller>,
    /// Seconds until the caller may come again.
    pub(super) retry_after_s: Option<u16>,
    /// A request body that is not read to its end, see [`body::respond`].
    pub(super) unread: Option<Payload>,
}

impl Answer {
    pub(super) fn error(status: u16, outcome: AxonOutcome, error: &str, detail: impl Into<String>) -> Self {
        let body = ErrorBody { error: error.to_owned(), detail: detail.into() };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        Answer {
            status,
            content_type: "application/json",
            body,
            outcome,
            sign_for: None,
            retry_after_s: None,
            unread: None,
        }
    }

    pub(super) fn turned(turned: Turned) -> Self {
        let Turned { status, outcome, error, message, retry_after_s } = turned;
        Answer { retry_after_s, ..Answer::error(status, outcome, error, message) }
    }

    pub(super) fn signed_for(self, caller: Caller) -> Self {
        Answer { sign_for: Some(caller), ..self }
    }

    pub(super) fn panicked(caller: Option<Caller>) -> Self {
        let answer = Answer::error(500, AxonOutcome::Panic, "panic", "this request could not be handled");
        Answer { sign_for: caller, ..answer }
    }

    pub(super) fn no_answer(gate: &AxonGate, problem: WorkProblem) -> Self {
        match problem {
            WorkProblem::Overloaded => {
                let detail = format!("{} requests are being worked on, ask again", gate.limits().at_once.max(1));
                Answer::error(503, AxonOutcome::Overloaded, "overloaded", detail)
            }
            WorkProblem::Deadline => {
                Answer::error(503, AxonOutcome::HandlerDeadline, "handler_deadline", "no answer in time")
            }
        }
    }

    pub(super) fn send(self, gate: &AxonGate) -> HttpResponse {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponseBuilder::new(status);
        response.content_type(self.content_type);
        if let Some(caller) = self.sign_for {
            let signature = sign_reply(&gate.keypair, status.as_u16(), &self.body, caller.nonce, &caller.hotkey);
            response.insert_header((REPLY_SIGNATURE_HEADER, signature));
        }
        if let Some(seconds) = self.retry_after_s {
            response.insert_header((RETRY_AFTER, u64::from(seconds)));
        }
        body::respond(response, self.body, self.unread)
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
    let mut proved = None;
    // Nothing that the closure leaves half done is looked at again: the caller is a plain value, the nonce table's
    // operations are whole.
    let work = AssertUnwindSafe(answer::<S, A, H, F>(gate, &request, payload, admission, handler, &mut proved));
    let answer = work.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(path = S::PATH, caller = ?proved, "handling a request panicked");
        Answer::panicked(proved)
    });
    gate.tell(&request, S::PATH, answer.outcome, proved.as_ref().map(|c| &c.hotkey), true);
    answer.send(gate)
}

async fn answer<S, A, H, F>(
    gate: &AxonGate,
    request: &HttpRequest,
    payload: Payload,
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
    let (caller, body) = match prove(gate, request, payload, admission, proved).await {
        Ok(proved) => proved,
        Err(answer) => return answer,
    };
    let answer = match serde_json::from_slice::<S>(&body) {
        Ok(synapse) => run::<S>(gate, async { handler(caller, synapse).await }).await,
        Err(e) => malformed(S::PATH, e.line(), e.column()),
    };
    answer.signed_for(caller)
}

/// A body that is not the JSON expected. The parser's words may quote a secret of the body: this says where, not what.
pub(super) fn malformed(path: &str, line: usize, column: usize) -> Answer {
    let detail = format!("not a {path} request (line {line}, column {column})");
    Answer::error(400, AxonOutcome::MalformedBody, "malformed_body", detail)
}

/// Everything up to the nonce: body, signature, admission. `proved` is set as soon as the signature held.
pub(super) async fn prove<A>(
    gate: &AxonGate,
    request: &HttpRequest,
    mut payload: Payload,
    admission: A,
    proved: &mut Option<Caller>,
) -> Result<(Caller, Vec<u8>), Answer>
where
    A: FnOnce(&Hotkey) -> Result<(), AdmissionRefusal>,
{
    let turned = match (gate.enter(request), gate.accepts().btauth) {
        (Err(turned), _) => Some(Answer::turned(turned)),
        (Ok(()), false) => {
            let detail = "btauth/1 is not accepted here";
            Some(Answer::error(401, AxonOutcome::SchemeRefused, "scheme_refused", detail))
        }
        (Ok(()), true) => None,
    };
    if let Some(answer) = turned {
        return Err(Answer { unread: body::discard(request.headers(), payload, gate.limits()).await, ..answer });
    }
    let body = match body::read(request.headers(), &mut payload, gate.limits()).await {
        Ok(body) => body,
        Err(problem) => {
            let (status, outcome) = (problem.status(), problem.outcome());
            let answer = Answer::error(status, outcome, outcome.label(), problem.detail(gate.limits()));
            return Err(Answer { unread: Some(payload), ..answer });
        }
    };
    let unauthorized = |error: AuthError| {
        let status = if matches!(error, AuthError::Overloaded(_)) { 503 } else { 401 };
        Answer::error(status, AxonOutcome::from(&error), error.label(), error.to_string())
    };
    let caller = gate.authenticate(request, &body).map_err(unauthorized)?;
    *proved = Some(caller);
    admission(&caller.hotkey).map_err(|refusal| {
        let answer = match refusal {
            AdmissionRefusal::Forbidden { reason, detail } => {
                Answer::error(403, AxonOutcome::NotAdmitted, reason, detail)
            }
            AdmissionRefusal::NotReady { detail } => Answer::error(503, AxonOutcome::NotReady, "not_ready", detail),
        };
        answer.signed_for(caller)
    })?;
    gate.use_up_twin(request, &caller).and_then(|()| gate.admit_nonce(&caller)).map_err(unauthorized)?;
    // After the nonce: whoever repeats a request of this hotkey must not use up its rate.
    let counted = gate.limiters.hotkey(&caller.hotkey);
    counted.map_err(|wait| {
        let turned = Turned::too_many(AxonOutcome::TooManyOfHotkey, "hotkey", wait);
        Answer::turned(turned).signed_for(caller)
    })?;
    Ok((caller, body))
}

async fn run<S: Synapse>(gate: &AxonGate, handler: impl Future<Output = Result<S::Reply, Refusal>>) -> Answer {
    match gate.work(handler).await {
        Err(problem) => Answer::no_answer(gate, problem),
        Ok(Err(refusal)) => Answer::error(refusal.status, AxonOutcome::Refused, refusal.error, refusal.detail),
        Ok(Ok(reply)) => match reply.encode() {
            Ok(body) => Answer {
                status: 200,
                content_type: S::Reply::CONTENT_TYPE,
                body,
                outcome: AxonOutcome::Ok,
                sign_for: None,
                retry_after_s: None,
                unread: None,
            },
            Err(e) => {
                tracing::error!(path = S::PATH, error = %e, "a reply has no JSON form");
                Answer::error(500, AxonOutcome::Encoding, "encoding", "the reply could not be written")
            }
        },
    }
}
