//! Requests of the original's synapses, as the SDK's axon serves them.
//!
//! Under the classic scheme in this order, cheapest first; what is refused costs nothing of what comes after it:
//!
//! | step | status | text |
//! |---|---|---|
//! | the door | 403, 429, 431 | what was wrong, when to come again |
//! | headers, one for each field without default | 500 | `Internal Server Error #…` |
//! | admission of the hotkey that is claimed | 403, 503 | `Forbidden. Key is blacklisted: ….` |
//! | everything there and fresh, not seen before | 401 | `Not Verified with error: …` |
//! | the body, within its limits | 413, 408, 400 | what was wrong |
//! | signature, nonce, rate of the hotkey | 401, 429 (503 without room) | `Not Verified with error: …` |
//! | content type, fields, body hash | 500 (422 if it is not JSON) | `Internal Server Error #…` |
//! | the handler | 200 or its own | whole synapse |
//!
//! Admission comes before the signature, as in the SDK: whoever names a hotkey that is not admitted is refused by that
//! name. Nothing else follows from a name that is not proved; [`RequestSeen::caller`](super::RequestSeen) is set only after
//! the signature held.
//!
//! What went wrong inside is told by a number only, which is in our log with the details: at level debug where the
//! caller's bytes are at fault, since strangers must not be able to fill the log.

use std::borrow::Cow;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::body;
use super::classic_reply::{Echo, Reply};
use super::door::Turned;
use super::gate::{Accepts, AxonGate, WorkProblem};
use super::outcome::{AdmissionRefusal, AxonOutcome, Declined};
use super::own::{self, Answer};
use crate::ids::Hotkey;
use crate::wire::btauth::Caller;
use crate::wire::classic::{BodyError, ClassicError, ClassicHeaders, ClassicSynapse, Envelope, check_shape, verify};

/// How every header of `btauth/1` begins.
const BTAUTH_PREFIX: &str = "x-bittensor-";

/// Why a classic request gets no synapse back.
enum Stop {
    /// Status and text.
    Told { status: u16, outcome: AxonOutcome, message: String, retry_after_s: Option<u16> },
    /// A number; the details are for our log. `ours`: the fault is not the caller's.
    Internal { outcome: AxonOutcome, detail: Cow<'static, str>, ours: bool },
    /// FastAPI's own refusal.
    NotJson { line: usize, column: usize },
}

impl Stop {
    fn told(status: u16, outcome: AxonOutcome, message: String) -> Self {
        Stop::Told { status, outcome, message, retry_after_s: None }
    }
    fn theirs(outcome: AxonOutcome, detail: impl Into<Cow<'static, str>>) -> Self {
        Stop::Internal { outcome, detail: detail.into(), ours: false }
    }
    fn ours(outcome: AxonOutcome, detail: impl Into<Cow<'static, str>>) -> Self {
        Stop::Internal { outcome, detail: detail.into(), ours: true }
    }
}

impl From<Turned> for Stop {
    fn from(turned: Turned) -> Self {
        let Turned { status, outcome, message, retry_after_s, .. } = turned;
        Stop::Told { status, outcome, message, retry_after_s }
    }
}

impl From<ClassicError> for Stop {
    fn from(error: ClassicError) -> Self {
        match error {
            ClassicError::Headers(detail) => Stop::theirs(error.outcome(), detail),
            _ => Stop::told(error.status(), error.outcome(), error.message()),
        }
    }
}

impl From<AdmissionRefusal> for Stop {
    fn from(refusal: AdmissionRefusal) -> Self {
        match refusal {
            AdmissionRefusal::Forbidden { detail, .. } => {
                Stop::told(403, AxonOutcome::NotAdmitted, format!("Forbidden. Key is blacklisted: {detail}."))
            }
            AdmissionRefusal::NotReady { detail } => Stop::told(503, AxonOutcome::NotReady, detail),
        }
    }
}

/// Serves one request of the original's class `S`. `admission` is a pure look at a snapshot, asked once, before anything
/// is proved under the classic scheme; `handler` gets the proved hotkey, whatever the body says.
pub async fn handle_classic<S, A, H, F>(
    gate: &AxonGate,
    request: HttpRequest,
    mut payload: Payload,
    admission: A,
    handler: H,
) -> HttpResponse
where
    S: ClassicSynapse,
    A: FnOnce(&Hotkey) -> Result<(), AdmissionRefusal>,
    H: FnOnce(Hotkey, S) -> F,
    F: Future<Output = Result<S, Declined<S>>>,
{
    let started = Instant::now();
    let accepts = gate.accepts();
    let mut btauth = false;
    let headers = ClassicHeaders::collect(request.headers().iter().map(|(name, value)| {
        btauth |= name.as_str().starts_with(BTAUTH_PREFIX);
        (name.as_str(), value.as_bytes())
    }));
    let classic = || ClassicHeaders::present(request.headers().keys().map(|name| name.as_str()));
    let under_btauth_only = match (btauth, accepts) {
        (true, Accepts { btauth: true, .. }) => true,
        (true, Accepts { btauth: false, classic: true }) => !classic(),
        (true, Accepts { btauth: false, classic: false }) => true,
        (false, Accepts { classic: true, .. }) => false,
        (false, Accepts { classic: false, .. }) => !classic(),
    };
    if under_btauth_only {
        return under_btauth::<S, A, H, F>(gate, request, payload, admission, handler, started).await;
    }

    let mut proved = None;
    let mut body_read = false;
    let work = AssertUnwindSafe(async {
        gate.enter(&request)?;
        if !accepts.classic {
            let message = "Not Verified with error: the classic scheme is not accepted here, use btauth/1".to_owned();
            return Err(Stop::told(401, AxonOutcome::SchemeRefused, message));
        }
        let headers = headers.as_ref().map_err(|error| Stop::from(error.clone()))?;
        let body = prove::<S, A>(gate, &request, headers, &mut payload, admission, &mut proved, &mut body_read).await?;
        let Some(caller) = proved else { return Err(Stop::ours(AxonOutcome::Panic, "nobody was proved")) };
        let envelope = read::<S>(&request, headers, &body)?;
        let base = envelope.base;
        match gate.work(async { handler(caller, envelope.own).await }).await {
            Ok(Ok(own)) => Ok((200, Cow::Borrowed("Success"), AxonOutcome::Ok, base, own)),
            Ok(Err(Declined::With { status, message, synapse })) => {
                Ok((status, Cow::Owned(message), AxonOutcome::Refused, base, synapse))
            }
            Ok(Err(Declined::Failed(detail))) => Err(Stop::ours(AxonOutcome::Failed, detail)),
            Err(WorkProblem::Overloaded) => {
                let message = format!("{} requests are being worked on, ask again", gate.limits().at_once.max(1));
                Err(Stop::told(503, AxonOutcome::Overloaded, message))
            }
            Err(WorkProblem::Deadline) => {
                Err(Stop::ours(AxonOutcome::HandlerDeadline, "no answer of the handler in time"))
            }
        }
    });
    // What the closure leaves half done is a plain value, or a table whose operations are whole.
    let ended = work.catch_unwind().await;

    let echo = Echo::of(&request, headers.as_ref().ok());
    let reply = Reply { gate, name: S::NAME, started, echo };
    let ended = match ended {
        Err(_) => Err(Stop::ours(AxonOutcome::Panic, "handling the request panicked")),
        Ok(Err(stop)) => Err(stop),
        Ok(Ok((status, message, outcome, base, own))) => match reply.whole(status, &message, &base, &own) {
            Ok(response) => Ok((outcome, response)),
            Err(e) => Err(Stop::ours(AxonOutcome::Encoding, format!("a reply has no JSON form: {e}"))),
        },
    };
    let unread = match body_read {
        true => None,
        false => body::discard(request.headers(), payload, gate.limits()).await,
    };
    let (outcome, response) = ended.unwrap_or_else(|stop| match stop {
        Stop::Told { status, outcome, message, retry_after_s } => {
            (outcome, reply.error(status, &message, retry_after_s, unread))
        }
        Stop::NotJson { line, column } => (AxonOutcome::MalformedBody, reply.not_json(line, column)),
        Stop::Internal { outcome, detail, ours } => {
            let id = super::classic_reply::error_id();
            match ours {
                true => tracing::error!(synapse = S::NAME, caller = ?proved, id, %detail, "a request failed here"),
                false => tracing::debug!(synapse = S::NAME, caller = ?proved, id, %detail, "a request cannot be read"),
            }
            (outcome, reply.error(500, &format!("Internal Server Error #{id}"), None, unread))
        }
    });
    gate.tell(&request, S::NAME, outcome, proved.as_ref(), false);
    response
}

/// Everything up to the nonce. `proved` is set as soon as the signature held, `body_read` when the body was.
async fn prove<S, A>(
    gate: &AxonGate,
    request: &HttpRequest,
    headers: &ClassicHeaders,
    payload: &mut Payload,
    admission: A,
    proved: &mut Option<Hotkey>,
    body_read: &mut bool,
) -> Result<Vec<u8>, Stop>
where
    S: ClassicSynapse,
    A: FnOnce(&Hotkey) -> Result<(), AdmissionRefusal>,
{
    if let Some((field, _)) = S::REQUIRED.iter().find(|(field, _)| !headers.inputs.contains(*field)) {
        return Err(Stop::theirs(AxonOutcome::MalformedAuth, format!("no header for the field {field}")));
    }
    let claimed = check_shape(headers, gate.now_ns(), &gate.hotkey(), &gate.rules.classic);
    let named = match &claimed {
        Ok(claimed) => Some(claimed.caller.caller.hotkey),
        Err(_) => headers.dendrite.hotkey.as_deref().and_then(|address| address.parse().ok()),
    };
    if let Some(named) = named {
        admission(&named)?;
    }
    let claimed = claimed?;
    gate.look_endpoint(&claimed.caller)?;
    let body = body::read(request.headers(), payload, gate.limits())
        .await
        .map_err(|problem| Stop::told(problem.status(), problem.outcome(), problem.detail(gate.limits())))?;
    *body_read = true;
    let caller = verify(claimed)?;
    *proved = Some(caller.caller.hotkey);
    gate.admit_endpoint(&caller)?;
    // After the nonce: whoever repeats a request of this hotkey must not use up its rate.
    let counted = gate.limiters.hotkey(&caller.caller.hotkey);
    counted.map_err(|wait| Turned::too_many(AxonOutcome::TooManyOfHotkey, "hotkey", wait))?;
    Ok(body)
}

/// The body as its class, if it is what was signed.
fn read<S: ClassicSynapse>(request: &HttpRequest, headers: &ClassicHeaders, body: &[u8]) -> Result<Envelope<S>, Stop> {
    // Without a content type old FastAPI reads JSON and new does not; with another one neither does.
    let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    if content_type.is_some_and(|value| !is_json(value)) {
        return Err(Stop::theirs(AxonOutcome::MalformedBody, "the content type is not JSON"));
    }
    let envelope = Envelope::<S>::read(body).map_err(|e| match e {
        BodyError::NotJson { line, column } => Stop::NotJson { line, column },
        BodyError::Fields { .. } => Stop::theirs(AxonOutcome::MalformedBody, e.to_string()),
    })?;
    match headers.body_hash.as_deref() == Some(&envelope.body_hash()) {
        true => Ok(envelope),
        false => Err(Stop::theirs(AxonOutcome::BodyHash, "the body hash that was signed is not the body's")),
    }
}

/// `application/json` or `application/…+json`, with or without parameters.
fn is_json(value: &[u8]) -> bool {
    let essence = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    essence.strip_prefix(b"application/").is_some_and(|sub| sub == b"json" || sub.ends_with(b"+json"))
}

/// The same synapse for a caller of `btauth/1`, whose signature covers the body: refusals are those of our own synapses,
/// the reply is the classic one and signed.
async fn under_btauth<S, A, H, F>(
    gate: &AxonGate,
    request: HttpRequest,
    payload: Payload,
    admission: A,
    handler: H,
    started: Instant,
) -> HttpResponse
where
    S: ClassicSynapse,
    A: FnOnce(&Hotkey) -> Result<(), AdmissionRefusal>,
    H: FnOnce(Hotkey, S) -> F,
    F: Future<Output = Result<S, Declined<S>>>,
{
    let mut proved: Option<Caller> = None;
    let work = AssertUnwindSafe(async {
        let (caller, body) = own::prove(gate, &request, payload, admission, &mut proved).await?;
        let envelope = Envelope::<S>::read(&body).map_err(|e| {
            let (BodyError::NotJson { line, column } | BodyError::Fields { line, column }) = e;
            own::malformed(S::NAME, line, column).signed_for(caller)
        })?;
        let base = envelope.base;
        let (status, message, outcome, own) =
            match gate.work(async { handler(caller.hotkey, envelope.own).await }).await {
                Ok(Ok(own)) => (200, Cow::Borrowed("Success"), AxonOutcome::Ok, own),
                Ok(Err(Declined::With { status, message, synapse })) => {
                    (status, Cow::Owned(message), AxonOutcome::Refused, synapse)
                }
                Ok(Err(Declined::Failed(detail))) => {
                    tracing::error!(synapse = S::NAME, caller = %caller.hotkey, detail, "a request failed here");
                    let answer = Answer::error(500, AxonOutcome::Failed, "failed", "this request could not be handled");
                    return Err(answer.signed_for(caller));
                }
                Err(problem) => return Err(Answer::no_answer(gate, problem).signed_for(caller)),
            };
        let reply = Reply { gate, name: S::NAME, started, echo: Echo::of_btauth(&request, &caller) };
        reply.whole_signed(status, &message, &base, &own, &caller).map(|response| (outcome, response)).map_err(|e| {
            tracing::error!(synapse = S::NAME, error = %e, "a reply has no JSON form");
            let answer = Answer::error(500, AxonOutcome::Encoding, "encoding", "the reply could not be written");
            answer.signed_for(caller)
        })
    });
    let ended = work.catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(synapse = S::NAME, caller = ?proved, "handling a request panicked");
        Err(Answer::panicked(proved))
    });
    let (outcome, response) = match ended {
        Ok(done) => done,
        Err(answer) => (answer.outcome, answer.send(gate)),
    };
    gate.tell(&request, S::NAME, outcome, proved.as_ref().map(|c| &c.hotkey), true);
    response
}
