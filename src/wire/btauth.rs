//! `btauth/1`, the request signature of Bittensor SDK 11: pure, no clock, no I/O.
//!
//! Signed are eight lines joined by LF without a trailing one: `btauth/1`, the signature scheme, the method in upper
//! case, the request target as sent (path and query, still percent-encoded), the lower-case hex SHA-256 of the body,
//! the nonce (nanoseconds since the Unix epoch, decimal), the sender's and the receiver's address.
//!
//! Checks run in this order, and the first that fails names the error: shape, receiver, freshness, signature, replay.
//! The last one lives in [`NonceTable`](super::nonces::NonceTable), since it alone needs memory.
//!
//! Stricter than the SDK in two points: the scheme is pinned to sr25519 (a header that names ed25519 is
//! [`AuthError::BadSignature`]; the SDK verifies under whatever the header names), and a request must be bound to its
//! receiver.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::signature::{parse_signature, show_signature};
use crate::ids::Hotkey;
use crate::wallet::{Keypair, verify as verify_signature};

/// The protocol's name, the first signed line.
const PROTOCOL: &str = "btauth/1";
/// What `X-Bittensor-Version` must say.
const VERSION: &str = "1";
/// The one scheme that is accepted.
const SCHEME: &str = "sr25519";

/// Header of the protocol's version.
pub const VERSION_HEADER: &str = "x-bittensor-version";
/// Header of the sender's address.
pub const HOTKEY_HEADER: &str = "x-bittensor-hotkey";
/// Header of the receiver's address.
pub const RECEIVER_HEADER: &str = "x-bittensor-receiver";
/// Header of the nonce.
pub const NONCE_HEADER: &str = "x-bittensor-nonce";
/// Header of the signature.
pub const SIGNATURE_HEADER: &str = "x-bittensor-signature";
/// Header of the signature scheme, absent for sr25519.
pub const CRYPTO_HEADER: &str = "x-bittensor-crypto";

/// Why a request is not admitted. The detail says which part, and is safe to send back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A header is missing, given twice or unreadable.
    #[error("{0}")]
    MalformedAuth(&'static str),
    /// Signed for somebody else, or for nobody in particular.
    #[error("{0}")]
    WrongReceiver(&'static str),
    /// The nonce is outside the freshness window.
    #[error("{0}")]
    StaleRequest(&'static str),
    /// The signature is not the claimed sender's over this request.
    #[error("{0}")]
    BadSignature(&'static str),
    /// This nonce of this sender was admitted before.
    #[error("this nonce was already accepted from this hotkey")]
    ReplayedRequest,
    /// There is no room to remember another nonce, and none may be forgotten.
    #[error("{0}")]
    Overloaded(&'static str),
}

impl AuthError {
    /// The metric label: snake case, stable.
    pub fn label(&self) -> &'static str {
        match self {
            AuthError::MalformedAuth(_) => "malformed_auth",
            AuthError::WrongReceiver(_) => "wrong_receiver",
            AuthError::StaleRequest(_) => "stale_request",
            AuthError::BadSignature(_) => "bad_signature",
            AuthError::ReplayedRequest => "replayed_request",
            AuthError::Overloaded(_) => "overloaded",
        }
    }
}

/// The freshness window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthPolicy {
    /// A nonce may be this old, exactly this age included.
    pub max_age: Duration,
    /// A nonce may lie this far ahead of our clock, exactly this far included.
    pub max_ahead: Duration,
}

impl Default for AuthPolicy {
    /// The SDK's window: 10 s back, 2 s ahead.
    fn default() -> Self {
        AuthPolicy { max_age: Duration::from_secs(10), max_ahead: Duration::from_secs(2) }
    }
}

/// Who sent a request, as its signature proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The key that signed.
    pub hotkey: Hotkey,
    /// The request's nonce, in nanoseconds since the Unix epoch.
    pub nonce: u64,
}

/// The values of the six headers, as they stand on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthHeaders {
    version: Option<String>,
    hotkey: Option<String>,
    receiver: Option<String>,
    nonce: Option<String>,
    signature: Option<String>,
    crypto: Option<String>,
}

impl AuthHeaders {
    /// Picks the six headers out of a request's headers, whatever their case.
    ///
    /// # Errors
    /// [`AuthError::MalformedAuth`] if one of them is given twice or is not visible ASCII: two readers of such a
    /// request could see two senders.
    pub fn collect<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, AuthError> {
        let mut found = AuthHeaders::default();
        for (name, value) in headers {
            let Some(slot) = found.slot(name) else { continue };
            if slot.is_some() {
                return Err(AuthError::MalformedAuth("an X-Bittensor header is given twice"));
            }
            let text = std::str::from_utf8(value).ok().filter(|t| t.bytes().all(|b| b.is_ascii_graphic()));
            let text = text.ok_or(AuthError::MalformedAuth("an X-Bittensor header is not visible ASCII"))?;
            *slot = Some(text.to_owned());
        }
        Ok(found)
    }

    /// The headers that are set, as lower-case names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            (VERSION_HEADER, &self.version),
            (HOTKEY_HEADER, &self.hotkey),
            (RECEIVER_HEADER, &self.receiver),
            (NONCE_HEADER, &self.nonce),
            (SIGNATURE_HEADER, &self.signature),
            (CRYPTO_HEADER, &self.crypto),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<String>> {
        let is = |header: &str| name.eq_ignore_ascii_case(header);
        match () {
            () if is(VERSION_HEADER) => Some(&mut self.version),
            () if is(HOTKEY_HEADER) => Some(&mut self.hotkey),
            () if is(RECEIVER_HEADER) => Some(&mut self.receiver),
            () if is(NONCE_HEADER) => Some(&mut self.nonce),
            () if is(SIGNATURE_HEADER) => Some(&mut self.signature),
            () if is(CRYPTO_HEADER) => Some(&mut self.crypto),
            () => None,
        }
    }
}

/// Signs a request for one receiver. `nonce` must never repeat for this key; `target` is path and query as sent.
pub fn sign(keypair: &Keypair, method: &str, target: &str, body: &[u8], nonce: u64, receiver: &Hotkey) -> AuthHeaders {
    let sender = keypair.hotkey().to_string();
    let receiver = receiver.to_string();
    let nonce = nonce.to_string();
    let signature = keypair.sign(payload(method, target, body, &nonce, &sender, &receiver).as_bytes());
    AuthHeaders {
        version: Some(VERSION.to_owned()),
        hotkey: Some(sender),
        receiver: Some(receiver),
        nonce: Some(nonce),
        signature: Some(show_signature(&signature)),
        crypto: None,
    }
}

/// Checks shape, receiver, freshness and signature of a request, in this order. The caller must then pass the result to
/// [`NonceTable::admit`](super::nonces::NonceTable::admit) before anything is done.
///
/// `now_ns` is the wall clock in nanoseconds since the Unix epoch, `us` the hotkey that serves.
///
/// # Errors
/// The [`AuthError`] of the first check that fails.
pub fn verify(
    headers: &AuthHeaders,
    method: &str,
    target: &str,
    body: &[u8],
    now_ns: u64,
    us: &Hotkey,
    policy: &AuthPolicy,
) -> Result<Caller, AuthError> {
    use AuthError::*;
    // Shape.
    if headers.version.as_deref() != Some(VERSION) {
        return Err(MalformedAuth("missing or unsupported X-Bittensor-Version (expected '1')"));
    }
    let sender = headers.hotkey.as_deref().ok_or(MalformedAuth("missing X-Bittensor-Hotkey"))?;
    let nonce_text = headers.nonce.as_deref().ok_or(MalformedAuth("missing X-Bittensor-Nonce"))?;
    let signature = headers.signature.as_deref().ok_or(MalformedAuth("missing X-Bittensor-Signature"))?;
    let pinned = match headers.crypto.as_deref() {
        None | Some(SCHEME) => true,
        Some("ed25519") => false,
        Some(_) => return Err(MalformedAuth("unsupported X-Bittensor-Crypto")),
    };
    let nonce = parse_nonce(nonce_text)?;
    let hotkey: Hotkey = sender.parse().map_err(|_| MalformedAuth("X-Bittensor-Hotkey is not an SS58 address"))?;
    let bytes = parse_signature(signature).ok_or(MalformedAuth("X-Bittensor-Signature is not 128 hex digits"))?;

    // Receiver.
    let us = us.to_string();
    match headers.receiver.as_deref() {
        None => return Err(WrongReceiver("missing X-Bittensor-Receiver: requests must be bound to their receiver")),
        Some(receiver) if receiver != us => {
            return Err(WrongReceiver("request was signed for a different receiving hotkey"));
        }
        Some(_) => {}
    }

    check_freshness(nonce, now_ns, policy)?;

    // Signature.
    if !pinned {
        return Err(BadSignature("X-Bittensor-Crypto names a scheme other than sr25519, the only one accepted"));
    }
    let message = payload(method, target, body, nonce_text, sender, &us);
    if !verify_signature(&hotkey, message.as_bytes(), &bytes) {
        return Err(BadSignature("signature does not verify against the claimed hotkey"));
    }
    Ok(Caller { hotkey, nonce })
}

/// Whether a nonce lies in the window around `now_ns`.
pub(crate) fn check_freshness(nonce: u64, now_ns: u64, policy: &AuthPolicy) -> Result<(), AuthError> {
    if u128::from(now_ns.saturating_sub(nonce)) > policy.max_age.as_nanos() {
        return Err(AuthError::StaleRequest("nonce is older than the freshness window; check both clocks"));
    }
    if u128::from(nonce.saturating_sub(now_ns)) > policy.max_ahead.as_nanos() {
        return Err(AuthError::StaleRequest("nonce is too far in the future; check both clocks"));
    }
    Ok(())
}

/// Decimal digits without sign, space or leading zero: one number has one text.
fn parse_nonce(text: &str) -> Result<u64, AuthError> {
    let canonical = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    if !canonical {
        return Err(AuthError::MalformedAuth("X-Bittensor-Nonce is not a decimal integer"));
    }
    text.parse().map_err(|_| AuthError::MalformedAuth("X-Bittensor-Nonce is out of range"))
}

/// The signed bytes.
fn payload(method: &str, target: &str, body: &[u8], nonce: &str, sender: &str, receiver: &str) -> String {
    let method = method.to_ascii_uppercase();
    let body = hex::encode(Sha256::digest(body));
    [PROTOCOL, SCHEME, &method, target, &body, nonce, sender, receiver].join("\n")
}

#[cfg(test)]
#[path = "btauth_tests.rs"]
mod tests;
