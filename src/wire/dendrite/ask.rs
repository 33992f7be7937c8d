//! Calls of the original's classes, to peers of any age.
//!
//! Invariants:
//! - what a reply says of identity is never read, nor what it says of the request's own fields. Of its body only the class's
//!   [`ClassicCall::Output`] is parsed, and two fields that state a status; whom we asked is what we know already. (The SDK's
//!   dendrite lets a reply overwrite all of it);
//! - a success is what the SDK's dendrite counts as one, and a complete output beside it;
//! - replies of old peers are not signed: where there is a signature it is checked and reported ([`ReplySigner`]), and where
//!   there is none, or a wrong one, whoever sits between us and the peer may have written the reply. The caller must not rest
//!   anything on it that such a one could want;
//! - a peer that has signed a reply is sent `btauth/1` only ([`Schemes::Both`]): nobody can strip the headers that sign the
//!   body and leave the classic ones, which do not.
//!
//! Design notes:
//! - no node asks: nodes of ours use [`Dendrite::call`] among themselves, `compute-register probe` asks;
//! - one nonce serves both schemes: a receiver judges by one of them only;
//! - a uuid is lent to one request at a time, see `uuids`;
//! - a connection that is refused or cannot be made within 5 s is "unavailable", where the SDK waits its whole timeout.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::exchange::{Failure, Received, shorten};
use super::{Dendrite, Peer, Signature, Uuids, single};
use crate::verdict::UnknownCause;
use crate::wire::classic::envelope::{TerminalJson, Whole};
use crate::wire::classic::headers::{AXON_PREFIX, Terminal};
use crate::wire::classic::{Base, ClassicSynapse, DENDRITE_VERSION, Outgoing, Ping, path, sign};
use crate::wire::content_type::is_json;
use crate::wire::reply::ReplyProof;

/// Longest body of a reply that is read, in bytes.
pub const MAX_CLASSIC_REPLY: usize = 1024 * 1024;
/// Longest value of a reply's header; the SDK's client refuses a reply with a longer one.
const MAX_HEADER_VALUE: usize = 8190;

/// A class that can be asked: what of its reply is read.
pub trait ClassicCall: ClassicSynapse {
    /// The fields that a reply fills in, and no others: none of the request's own, nothing of identity. Reading is lenient, as
    /// for a request.
    type Output: DeserializeOwned + Send + 'static;
}

/// The output of a class whose replies have nothing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct NoFields {}

impl ClassicCall for Ping {
    type Output = NoFields;
}

/// With what a request is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schemes {
    /// Both, for peers of unknown age; `btauth/1` only from the peer's first signed reply on.
    #[default]
    Both,
    /// That of SDK 6 to 10 only.
    Classic,
    /// `btauth/1` only.
    Btauth,
}

/// Who signed a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum ReplySigner {
    /// Nobody, as in every reply of the SDK.
    Nobody,
    /// The peer: what shows it to others.
    Peer(ReplyProof),
    /// There is a signature, and it is not the peer's for this request.
    Unknown,
}

/// What came of asking.
#[derive(Debug)]
pub struct ClassicReply<T> {
    /// The output, or why there is none.
    pub answer: Result<T, AskError>,
    /// Who signed what came back.
    pub signer: ReplySigner,
    /// From the request's start to the reply's last byte, or to the failure.
    pub elapsed: Duration,
}

impl<T> ClassicReply<T> {
    /// The status that the SDK's dendrite would show: 200 for an answer. `None` where the peer stated none, or the call could not
    /// be made here.
    pub fn code(&self) -> Option<u16> {
        match &self.answer {
            Ok(_) => Some(200),
            Err(error) => error.code(),
        }
    }

    /// The text that goes with it.
    pub fn text(&self) -> String {
        match &self.answer {
            Ok(_) => "Success".to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

/// Why there is no output, in the SDK's words.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum AskError {
    /// No connection.
    #[error("Service unavailable at {0}")]
    Unavailable(String),
    /// No complete reply in time.
    #[error("Request timeout after {0:?} seconds")]
    Timeout(f64),
    /// The connection was closed without an answer. The original's own axon does so where others answer 500.
    #[error("Service disconnected: Server disconnected")]
    Disconnected,
    /// The reply is not HTTP, or its head is too large.
    #[error("Client response error: {0}")]
    ClientResponse(String),
    /// The reply's body broke off.
    #[error("Payload error: {0}")]
    Payload(String),
    /// The reply is not what was asked for.
    #[error("Failed to parse response: {0}")]
    Parse(String),
    /// The peer says so.
    #[error("{message}")]
    Server {
        /// The status it states.
        code: u16,
        /// In its words, shortened, without control characters.
        message: String,
    },
    /// The reply states no status, which the SDK's dendrite does not count as a success.
    #[error("the reply states no status")]
    NoStatus,
    /// The call could not be made from here.
    #[error("the call could not be made: {0}")]
    Own(String),
}

impl AskError {
    /// The status that the SDK's dendrite gives it; `None` where it gives none.
    pub fn code(&self) -> Option<u16> {
        match self {
            AskError::Unavailable(_) | AskError::Disconnected => Some(503),
            AskError::Timeout(_) => Some(408),
            AskError::ClientResponse(_) | AskError::Payload(_) => Some(400),
            AskError::Parse(_) => Some(422),
            AskError::Server { code, .. } => Some(*code),
            AskError::NoStatus | AskError::Own(_) => None,
        }
    }

    /// Snake case, stable.
    pub fn label(&self) -> &'static str {
        match self {
            AskError::Unavailable(_) => "unavailable",
            AskError::Timeout(_) => "timeout",
            AskError::Disconnected => "disconnected",
            AskError::ClientResponse(_) => "client_response",
            AskError::Payload(_) => "payload",
            AskError::Parse(_) => "parse",
            AskError::Server { .. } => "server",
            AskError::NoStatus => "no_status",
            AskError::Own(_) => "own",
        }
    }

    /// What this says about a verdict.
    pub fn cause(&self) -> UnknownCause {
        match self {
            AskError::Unavailable(_) | AskError::Disconnected | AskError::Payload(_) => UnknownCause::Unreachable,
            AskError::Timeout(_) => UnknownCause::Timeout,
            AskError::ClientResponse(_) | AskError::Parse(_) | AskError::NoStatus => UnknownCause::MalformedReply,
            AskError::Server { .. } => UnknownCause::Refused,
            AskError::Own(_) => UnknownCause::OwnFault,
        }
    }

    fn of(failure: Failure, to: SocketAddr, class: &str) -> Self {
        match failure {
            Failure::Connect(_) => AskError::Unavailable(format!("{to}/{class}")),
            Failure::Closed(_) => AskError::Disconnected,
            Failure::Protocol(text) => AskError::ClientResponse(text),
            Failure::Cut(_) => AskError::Payload("the body broke off".to_owned()),
            Failure::TooLarge(limit) => AskError::Parse(format!("the reply exceeds {limit} bytes")),
            Failure::Own(text) => AskError::Own(text),
        }
    }
}

impl Dendrite {
    /// Asks a peer of any age, signed with [`Schemes::Both`]. `within` bounds the whole call.
    pub async fn ask<S: ClassicCall>(&self, peer: &Peer, synapse: &S, within: Duration) -> ClassicReply<S::Output> {
        self.ask_signed(peer, synapse, within, Schemes::Both).await
    }

    /// As [`ask`](Self::ask), signed as told.
    pub async fn ask_signed<S: ClassicCall>(
        &self,
        peer: &Peer,
        synapse: &S,
        within: Duration,
        schemes: Schemes,
    ) -> ClassicReply<S::Output> {
        let schemes = match schemes {
            Schemes::Both if self.0.signers.know(&peer.hotkey) => Schemes::Btauth,
            told => told,
        };
        let begun = Instant::now();
        let failed = |error| ClassicReply { answer: Err(error), signer: ReplySigner::Nobody, elapsed: begun.elapsed() };
        // Before the stamp: the nonces of one uuid must go out in their order.
        let Some(uuid) = self.0.uuids.lend(*peer) else {
            return failed(AskError::Own(format!("{} requests to this axon are under way", Uuids::AT_ONCE)));
        };
        let (stamp, timeout_s) = (self.stamp(), within.as_secs_f64());
        let (nonce, uuid_text) = (stamp.nonce, uuid.uuid(stamp).to_string());
        let route = path::<S>();
        let out = Outgoing { receiver: &peer.hotkey, to: peer.addr, nonce, uuid: &uuid_text, timeout_s };
        let mut headers = match schemes {
            Schemes::Both | Schemes::Classic => sign(&self.0.keypair, synapse, &out),
            Schemes::Btauth => Vec::new(),
        };
        let body = match self.whole(synapse, &out, &headers) {
            Ok(body) => body,
            Err(error) => return failed(AskError::Own(error.to_string())),
        };
        if schemes != Schemes::Classic {
            headers.extend(self.btauth(&route, &body, nonce, peer));
        }
        let exchange = self.0.exchanger.post(peer.addr, &route, headers, body, MAX_CLASSIC_REPLY);
        let received = match timeout(within, exchange).await {
            Ok(Ok(received)) => received,
            Ok(Err(failure)) => return failed(AskError::of(failure, peer.addr, S::NAME)),
            Err(_) => return failed(AskError::Timeout(timeout_s)),
        };
        let signer = match self.signature(peer, nonce, &received) {
            Signature::Absent => ReplySigner::Nobody,
            Signature::Holds(proof) => ReplySigner::Peer(proof),
            Signature::Wrong => ReplySigner::Unknown,
        };
        let elapsed = received.received_at.duration_since(received.sent_at);
        ClassicReply { answer: judge(&received), signer, elapsed }
    }

    /// The body: the whole object, as the SDK sends it. What it says of the two sides is informative, as everywhere.
    fn whole<S: ClassicCall>(
        &self,
        synapse: &S,
        out: &Outgoing<'_>,
        headers: &[(String, String)],
    ) -> Result<Vec<u8>, serde_json::Error> {
        let signature = headers.iter().find(|(name, _)| name == "bt_header_dendrite_signature");
        let dendrite = Terminal {
            version: Some(DENDRITE_VERSION),
            nonce: Some(out.nonce),
            uuid: Some(out.uuid.to_owned()),
            hotkey: Some(self.hotkey().to_string()),
            signature: signature.map(|(_, value)| value.clone()),
            ..Terminal::default()
        };
        let axon = Terminal {
            ip: Some(out.to.ip().to_string()),
            port: Some(out.to.port().into()),
            hotkey: Some(out.receiver.to_string()),
            ..Terminal::default()
        };
        let base = Base { timeout: out.timeout_s, total_size: 0, header_size: 0 };
        Whole::new(&base, TerminalJson::from(&dendrite), TerminalJson::from(&axon), synapse).encode()
    }
}

/// What is read of a reply's body beside its output.
#[derive(Deserialize)]
struct Around {
    #[serde(default)]
    axon: Value,
    #[serde(default)]
    message: Value,
    /// With `detail`: a refusal in the form of our own nodes.
    #[serde(default)]
    error: Value,
    #[serde(default)]
    detail: Value,
}

impl Around {
    /// What an error reply says, in either form.
    fn refusal(&self) -> Option<String> {
        let own = || Some(format!("{}: {}", self.error.as_str()?, self.detail.as_str()?));
        self.message.as_str().map(str::to_owned).or_else(own)
    }
}

/// The output, or why it does not count. A status in the headers wins over one in the body and over that of HTTP.
fn judge<T: DeserializeOwned>(received: &Received) -> Result<T, AskError> {
    let Received { status, headers, body, .. } = received;
    if headers.values().any(|value| value.len() > MAX_HEADER_VALUE) {
        return Err(AskError::ClientResponse(format!("a header of the reply exceeds {MAX_HEADER_VALUE} bytes")));
    }
    expect_json(headers)?;
    // A struct could be read from a list too, by position.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(AskError::Parse("the body is no JSON object".to_owned()));
    }
    let unreadable = |e: serde_json::Error| AskError::Parse(shorten(&e.to_string()));
    let around: Around = serde_json::from_slice(body).map_err(unreadable)?;
    let ok = *status == 200;
    let output: Option<T> = if ok { Some(serde_json::from_slice(body).map_err(unreadable)?) } else { None };

    let (code, message) = match ok {
        true => (number(&around.axon["status_code"])?, around.axon["status_message"].as_str().map(str::to_owned)),
        false => (Some(*status), around.refusal()),
    };
    let code = header(headers, "status_code")?.map(|text| int(&text)).transpose()?.or(code);
    let stated = header(headers, "status_message")?;
    match (code, output) {
        (None, _) => Err(AskError::NoStatus),
        (Some(200), Some(output)) => Ok(output),
        (Some(code), _) => {
            // An HTTP error whose headers say 200 has no output.
            let code = if code == 200 { *status } else { code };
            let message = stated.or(message).unwrap_or_default();
            Err(AskError::Server { code, message: shorten(&message) })
        }
    }
}

fn expect_json(headers: &HeaderMap) -> Result<(), AskError> {
    let stated = single(headers, CONTENT_TYPE.as_str()).ok().flatten().unwrap_or_default();
    match is_json(stated.as_bytes()) {
        true => Ok(()),
        false => Err(AskError::Parse(shorten(&format!("the content type is '{stated}', not JSON")))),
    }
}

/// A field of the axon's headers, if it is there once.
fn header(headers: &HeaderMap, field: &str) -> Result<Option<String>, AskError> {
    let name = format!("{AXON_PREFIX}{field}");
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match values.next() {
        None => Ok(Some(String::from_utf8_lossy(value.as_bytes()).into_owned())),
        Some(_) => Err(AskError::Parse(format!("{name} is given twice"))),
    }
}

fn number(value: &Value) -> Result<Option<u16>, AskError> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => int(text).map(Some),
        other => int(&other.to_string()).map(Some),
    }
}

fn int(text: &str) -> Result<u16, AskError> {
    text.trim().parse().map_err(|_| AskError::Parse(shorten(&format!("the axon's status code '{text}' is no status"))))
}
