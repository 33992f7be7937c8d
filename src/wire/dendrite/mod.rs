//! The calling side: one signed request, one judged reply, all of it within one deadline.
//!
//! [`Dendrite::call`] speaks to our own nodes: `btauth/1` out, and only a reply that the peer signed counts.
//! [`Dendrite::ask`] speaks the classes of the original to peers of any age: both schemes out until the peer has signed a
//! reply, and a reply is judged as the SDK's dendrite judges it. [`fan_out`] asks many peers at once.
//!
//! Design notes:
//! - `sent_at` is read just before the request is handed to the network and `received_at` when the last byte of the body
//!   was read, before any verifying or parsing; connecting lies between them, where no connection was kept, and nothing is
//!   subtracted;
//! - connections are kept for a few seconds, and a request goes out once all the same, since its nonce is used up; `exchange`
//!   has both, and the race that remains;
//! - no redirect is followed and no proxy is taken from the environment: the peer is an address;
//! - what went wrong on our own side is told apart ([`CallError::Own`], [`AskError::Own`]), so that no peer is judged for it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use tokio::time::{Instant, timeout};

use self::exchange::{Exchanger, Failure, Received, shorten};
use self::signers::Signers;
use self::stamps::{Stamp, Stamps};
use self::uuids::Uuids;
use super::btauth;
use super::reply::{REPLY_SIGNATURE_HEADER, ReplyProof, body_sha256, verify_reply};
use super::synapse::{ErrorBody, ReplyBody, Synapse};
use crate::clock::SharedClock;
use crate::ids::Hotkey;
use crate::verdict::UnknownCause;
use crate::wallet::Keypair;

mod ask;
mod exchange;
mod fan_out;
mod original;
mod signers;
mod stamps;
mod uuids;

pub use ask::{AskError, ClassicCall, ClassicReply, MAX_CLASSIC_REPLY, NoFields, ReplySigner, Schemes};
pub use exchange::Keep;
pub use fan_out::{APART, FanOut, Unanswered, fan_out};
pub use original::{OutputOnly, SpecsOutput};

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
    exchanger: Exchanger,
    uuids: Uuids,
    clock: SharedClock,
    stamps: Stamps,
    signers: Signers,
}

impl std::fmt::Debug for Dendrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dendrite({})", self.hotkey())
    }
}

/// Whether a reply carries the peer's signature.
enum Signature {
    Absent,
    Holds(ReplyProof),
    Wrong,
}

impl Dendrite {
    /// A dendrite that signs as `keypair` and calls from `local_address`, or from where the system chooses.
    ///
    /// # Errors
    /// [`CallError::Own`] if the HTTP client cannot be set up, or the system has no randomness.
    pub fn new(keypair: Keypair, clock: SharedClock, local_address: Option<IpAddr>) -> Result<Self, CallError> {
        Self::keeping(keypair, clock, local_address, Keep::default())
    }

    /// As [`new`](Self::new), with other connections kept than by default.
    ///
    /// # Errors
    /// [`CallError::Own`] if the HTTP client cannot be set up, or the system has no randomness.
    pub fn keeping(
        keypair: Keypair,
        clock: SharedClock,
        local_address: Option<IpAddr>,
        keep: Keep,
    ) -> Result<Self, CallError> {
        let exchanger = Exchanger::new(keep, local_address)?;
        let uuids = Uuids::new().map_err(|e| CallError::Own(format!("no randomness from the system: {e}")))?;
        Ok(Dendrite(Arc::new(Inner {
            keypair,
            exchanger,
            uuids,
            clock,
            stamps: Stamps::default(),
            signers: Signers::default(),
        })))
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
        let nonce = self.stamp().nonce;
        let headers = self.btauth(S::PATH, &body, nonce, peer);
        let exchange = self.0.exchanger.post(peer.addr, S::PATH, headers, body, max_reply_bytes);
        let received = timeout(within, exchange).await.map_err(|_| CallError::Deadline(within))??;
        let signature = self.signature(peer, nonce, &received);
        let Received { status, body, sent_at, received_at, .. } = received;
        let proof = match signature {
            Signature::Wrong => return Err(CallError::BadReplySignature(status)),
            Signature::Absent if status == 200 => return Err(CallError::UnsignedReply(status)),
            Signature::Absent => return Err(refusal(status, &body, false)),
            Signature::Holds(_) if status != 200 => return Err(refusal(status, &body, true)),
            Signature::Holds(proof) => proof,
        };
        let body = S::Reply::decode(body).map_err(|e| CallError::Malformed(shorten(&e.to_string())))?;
        Ok(Reply { body, sent_at, received_at, proof })
    }

    fn stamp(&self) -> Stamp {
        self.0.stamps.next(self.0.clock.now_ns())
    }

    /// The headers that sign a `POST` with `btauth/1`.
    fn btauth(&self, path: &str, body: &[u8], nonce: u64, peer: &Peer) -> Vec<(String, String)> {
        let headers = btauth::sign(&self.0.keypair, "POST", path, body, nonce, &peer.hotkey);
        headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Whether the peer signed this reply to the request with this nonce. A peer that did is remembered.
    fn signature(&self, peer: &Peer, nonce: u64, received: &Received) -> Signature {
        let Received { status, headers, body, .. } = received;
        match single(headers, REPLY_SIGNATURE_HEADER) {
            Ok(None) => Signature::Absent,
            Ok(Some(text)) if verify_reply(&text, *status, body, nonce, &peer.hotkey, &self.hotkey()) => {
                self.0.signers.learn(peer.hotkey);
                Signature::Holds(ReplyProof { nonce, body_sha256: body_sha256(body), signature: text })
            }
            _ => Signature::Wrong,
        }
    }
}

/// The one value of a header, in ASCII; an error if there are several or it is something else.
fn single(headers: &HeaderMap, name: &str) -> Result<Option<String>, ()> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (value.to_str(), values.next()) {
        (Ok(text), None) => Ok(Some(text.to_owned())),
        _ => Err(()),
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Connect(error) | Failure::Closed(error) | Failure::Cut(error) => CallError::Unreachable(error),
            Failure::Protocol(text) => CallError::Malformed(text),
            Failure::TooLarge(limit) => CallError::TooLarge(limit),
            Failure::Own(text) => CallError::Own(text),
        }
    }
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
