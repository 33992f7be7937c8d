//! The calling side: one signed request, one verified reply, all of it within one deadline.
//!
//! Design notes:
//! - `sent_at` is read just before the request is handed to the network and `received_at` when the last byte of the body
//!   was read, before any verifying or parsing; connecting lies between them and nothing is subtracted;
//! - no connection is kept: a request never goes out on one that the peer may have closed meanwhile, and so is never in
//!   doubt because of that; it is also never retried, since its nonce is used up;
//! - no redirect is followed and no proxy is taken from the environment: the peer is an address;
//! - what went wrong on our own side is told apart ([`CallError::Own`]), so that no peer is judged for it.

use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Response};
use tokio::time::{Instant, timeout};

use super::btauth;
use super::reply::{REPLY_SIGNATURE_HEADER, ReplyProof, body_sha256, verify_reply};
use super::synapse::{ErrorBody, ReplyBody, Synapse};
use crate::clock::SharedClock;
use crate::ids::Hotkey;
use crate::verdict::UnknownCause;
use crate::wallet::Keypair;

/// Connecting takes no longer than this, whatever the call's deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An error reply longer than this is not read.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// Characters of a peer's words that are kept.
const MAX_DETAIL_CHARS: usize = 300;

/// Whom to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The hotkey that must sign the reply.
    pub hotkey: Hotkey,
    /// Where its axon listens.
    pub addr: SocketAddr,
}

/// A reply whose signature held.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply<T> {
    /// The body.
    pub body: T,
    /// Just before the request went out.
    pub sent_at: Instant,
    /// When the last byte of the body was read.
    pub received_at: Instant,
    /// What shows others that the peer sent it.
    pub proof: ReplyProof,
}

impl<T> Reply<T> {
    /// From the request's start to the reply's last byte.
    pub fn elapsed(&self) -> Duration {
        self.received_at.duration_since(self.sent_at)
    }
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or it broke off.
    #[error("the peer could not be reached, or the connection broke off")]
    Unreachable(#[source] reqwest::Error),
    /// No complete reply in time.
    #[error("no complete reply within {0:?}")]
    Deadline(Duration),
    /// The reply is longer than asked for.
    #[error("the reply exceeds {0} bytes")]
    TooLarge(usize),
    /// The reply carries no signature.
    #[error("the reply with status {0} carries no signature")]
    UnsignedReply(u16),
    /// The reply's signature is not the peer's for this request.
    #[error("the signature of the reply with status {0} does not verify")]
    BadReplySignature(u16),
    /// The reply is not what was asked for.
    #[error("the reply could not be read: {0}")]
    Malformed(String),
    /// The peer answered with an error.
    #[error("the peer answered {code} {error}: {detail}")]
    Status {
        /// HTTP status.
        code: u16,
        /// Which error, as the peer names it.
        error: String,
        /// In the peer's words, shortened, without control characters.
        detail: String,
        /// Whether the peer signed it. Refusals before authentication cannot be.
        signed: bool,
    },
    /// The call could not be made from here.
    #[error("the call could not be made: {0}")]
    Own(String),
}

impl CallError {
    /// What this says about a verdict.
    pub fn cause(&self) -> UnknownCause {
        match self {
            CallError::Unreachable(_) => UnknownCause::Unreachable,
            CallError::Deadline(_) => UnknownCause::Timeout,
            CallError::UnsignedReply(_) => UnknownCause::UnsignedReply,
            CallError::BadReplySignature(_) => UnknownCause::BadReplySignature,
            CallError::TooLarge(_) | CallError::Malformed(_) => UnknownCause::MalformedReply,
            CallError::Status { .. } => UnknownCause::Refused,
            CallError::Own(_) => UnknownCause::OwnFault,
        }
    }
}

/// Makes signed calls as one hotkey. Clones share their nonces; one key must have one dendrite in a process.
#[derive(Clone)]
pub struct Dendrite(Arc<Inner>);

struct Inner {
    keypair: Keypair,
    client: Client,
    clock: SharedClock,
    last_nonce: AtomicU64,
}

impl std::fmt::Debug for Dendrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dendrite({})", self.hotkey())
    }
}

/// What came back, before anything in it is believed.
struct Received {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    sent_at: Instant,
    received_at: Instant,
}

impl Dendrite {
    /// A dendrite that signs as `keypair` and calls from `local_address`, or from where the system chooses.
    ///
    /// # Errors
    /// [`CallError::Own`] if the HTTP client cannot be set up.
    pub fn new(keypair: Keypair, clock: SharedClock, local_address: Option<IpAddr>) -> Result<Self, CallError> {
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(0)
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .local_address(local_address)
            .build()
            .map_err(|e| CallError::Own(chain(&e)))?;
        Ok(Dendrite(Arc::new(Inner { keypair, client, clock, last_nonce: AtomicU64::new(0) })))
    }

    /// The hotkey that calls.
    pub fn hotkey(&self) -> Hotkey {
        self.0.keypair.hotkey()
    }

    /// Posts a request to a peer and returns its verified reply. `within` bounds the whole call, `max_reply_bytes` the
    /// reply's body.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::cause`] says what it means for a verdict.
    pub async fn call<S: Synapse>(
        &self,
        peer: &Peer,
        request: &S,
        within: Duration,
        max_reply_bytes: usize,
    ) -> Result<Reply<S::Reply>, CallError> {
        let body = serde_json::to_vec(request).map_err(|e| CallError::Own(e.to_string()))?;
        let nonce = self.next_nonce();
        let exchange = self.exchange(peer, S::PATH, body, nonce, max_reply_bytes);
        let received = timeout(within, exchange).await.map_err(|_| CallError::Deadline(within))??;
        let Received { status, headers, body, sent_at, received_at } = received;

        let signed = self.check_signature(peer, nonce, status, &headers, &body)?;
        if status != 200 {
            return Err(refusal(status, &body, signed));
        }
        if !signed {
            return Err(CallError::UnsignedReply(status));
        }
        let proof = ReplyProof { nonce, body_sha256: body_sha256(&body), signature: signed_text(&headers) };
        let body = S::Reply::decode(body).map_err(|e| CallError::Malformed(shorten(&e.to_string())))?;
        Ok(Reply { body, sent_at, received_at, proof })
    }

    /// Nanoseconds of the wall clock, but never the same or an earlier value twice.
    fn next_nonce(&self) -> u64 {
        let now = self.0.clock.now_ns();
        let next = |last: u64| now.max(last.saturating_add(1));
        let last = self.0.last_nonce.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last)));
        next(last.unwrap_or_else(|last| last))
    }

    async fn exchange(
        &self,
        peer: &Peer,
        path: &'static str,
        body: Vec<u8>,
        nonce: u64,
        max_reply_bytes: usize,
    ) -> Result<Received, CallError> {
        let headers = btauth::sign(&self.0.keypair, "POST", path, &body, nonce, &peer.hotkey);
        let mut request = self.0.client.post(format!("http://{}{path}", peer.addr));
        for (name, value) in headers.iter() {
            request = request.header(name, value);
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(body).build();
        let request = request.map_err(|e| CallError::Own(chain(&e)))?;

        let sent_at = Instant::now();
        let response = self.0.client.execute(request).await.map_err(classify)?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let limit = if status == 200 { max_reply_bytes } else { MAX_ERROR_BYTES };
        let (body, received_at) = read_body(response, limit).await?;
        Ok(Received { status, headers, body, sent_at, received_at })
    }

    /// `Ok(false)` if there is no signature.
    fn check_signature(
        &self,
        peer: &Peer,
        nonce: u64,
        status: u16,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<bool, CallError> {
        let mut values = headers.get_all(REPLY_SIGNATURE_HEADER).iter();
        let Some(value) = values.next() else { return Ok(false) };
        let single = values.next().is_none();
        let holds = |text: &str| verify_reply(text, status, body, nonce, &peer.hotkey, &self.hotkey());
        if single && value.to_str().is_ok_and(holds) { Ok(true) } else { Err(CallError::BadReplySignature(status)) }
    }
}

/// The signature as it stands in the header, which was checked before.
fn signed_text(headers: &HeaderMap) -> String {
    let value = headers.get(REPLY_SIGNATURE_HEADER).and_then(|v| v.to_str().ok());
    value.unwrap_or_default().to_owned()
}

async fn read_body(mut response: Response, limit: usize) -> Result<(Vec<u8>, Instant), CallError> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(CallError::TooLarge(limit));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(classify)? {
        if body.len() + chunk.len() > limit {
            return Err(CallError::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, Instant::now()))
}

/// An error reply: in our form it is the peer's refusal, in any other form unsigned words of whoever is in between.
fn refusal(code: u16, body: &[u8], signed: bool) -> CallError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(ErrorBody { error, detail }) => {
            CallError::Status { code, error: shorten(&error), detail: shorten(&detail), signed }
        }
        Err(_) if signed => CallError::Malformed(format!("status {code} without an error body")),
        Err(_) => CallError::UnsignedReply(code),
    }
}

/// Tells our own faults and unreadable replies from an unreachable peer.
fn classify(error: reqwest::Error) -> CallError {
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && is_own_fault(io)
        {
            return CallError::Own(io.to_string());
        }
        // The HTTP library's parse errors ("invalid HTTP version parsed" and the like) have no public type.
        if cause.to_string().starts_with("invalid ") {
            return CallError::Malformed(shorten(&cause.to_string()));
        }
        source = cause.source();
    }
    if error.is_builder() { CallError::Own(chain(&error)) } else { CallError::Unreachable(error.without_url()) }
}

/// Out of file descriptors, memory or ports, or an address that is not ours.
fn is_own_fault(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    use io::ErrorKind::*;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
        || matches!(error.kind(), AddrNotAvailable | AddrInUse | OutOfMemory | PermissionDenied)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A peer's words, made safe to print: short, no control characters.
fn shorten(text: &str) -> String {
    text.chars().take(MAX_DETAIL_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
