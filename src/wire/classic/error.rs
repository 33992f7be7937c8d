//! Why a classic request is refused: HTTP status and text as the SDK (7.2 to 10.5) has them.

use crate::wire::axon::AxonOutcome;

/// Longest text of a peer that a refusal repeats, in bytes.
const MAX_ECHO: usize = 600;

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClassicError {
    /// A header cannot be read, or one of those that must be single is given twice. The detail is for our log only.
    #[error("a header cannot be read: {0}")]
    Headers(&'static str),
    /// No nonce.
    #[error("Missing Nonce")]
    MissingNonce,
    /// No signature.
    #[error("Missing Signature")]
    MissingSignature,
    /// No uuid. The SDK signs and accepts the text `None` instead.
    #[error("Missing UUID")]
    MissingUuid,
    /// No body hash. The SDK signs the text `None` instead and fails later.
    #[error("Missing Body Hash")]
    MissingBodyHash,
    /// No caller.
    #[error("No SS58 formatted address or public key provided.")]
    MissingHotkey,
    /// The caller is no address.
    #[error("Invalid SS58 address: {0}")]
    BadHotkey(&'static str),
    /// Not `0x` and hex digits.
    #[error("Invalid signature format. Expected hex string.")]
    SignatureFormat,
    /// Not 64 bytes.
    #[error("Invalid SR25519 signature.")]
    SignatureLength,
    /// The signature is not the caller's over this message.
    #[error("Signature mismatch with {message} and {signature}")]
    SignatureMismatch {
        /// What the signature should be over.
        message: String,
        /// What was sent.
        signature: String,
    },
    /// Signed too long ago.
    #[error("Nonce is too old: acceptable delta is {allowed_s:.2} seconds but request was {age_s:.2} seconds old")]
    TooOld {
        /// The age allowed, in seconds.
        allowed_s: f64,
        /// The request's age, in seconds.
        age_s: f64,
    },
    /// Signed in the future. Not in the SDK.
    #[error("Nonce is in the future: acceptable are {allowed_s:.2} seconds but request was {ahead_s:.2} seconds ahead")]
    TooFarAhead {
        /// What is allowed, in seconds.
        allowed_s: f64,
        /// How far ahead of our clock, in seconds.
        ahead_s: f64,
    },
    /// The last one of this caller and uuid, again.
    #[error("Nonce is too old, a newer one was last processed")]
    Replayed,
    /// Older than the last one of this caller and uuid, or than what this node remembers. Calls that overtook each other
    /// end here too, and what was under way when the node began: the text is that of a replay, the count is not.
    #[error("Nonce is too old, a newer one was last processed")]
    Overtaken,
    /// There is no room to remember another caller's nonce.
    #[error("{0}")]
    Overloaded(&'static str),
}

impl ClassicError {
    /// The HTTP status: 401, but 500 for headers that cannot be read (as the SDK) and 503 without room.
    pub fn status(&self) -> u16 {
        match self {
            ClassicError::Headers(_) => 500,
            ClassicError::Overloaded(_) => 503,
            _ => 401,
        }
    }

    /// How it is counted.
    pub fn outcome(&self) -> AxonOutcome {
        use ClassicError::*;
        match self {
            Headers(_) | MissingNonce | MissingSignature | MissingUuid | MissingBodyHash | MissingHotkey
            | BadHotkey(_) => AxonOutcome::MalformedAuth,
            SignatureFormat | SignatureLength | SignatureMismatch { .. } => AxonOutcome::BadSignature,
            TooOld { .. } | TooFarAhead { .. } | Overtaken => AxonOutcome::StaleRequest,
            Replayed => AxonOutcome::ReplayedRequest,
            Overloaded(_) => AxonOutcome::Overloaded,
        }
    }

    /// What the caller is told, except for [`Headers`](Self::Headers), of which it is told a number only: visible ASCII,
    /// short enough for a header.
    pub fn message(&self) -> String {
        match self {
            ClassicError::Overloaded(text) => (*text).to_owned(),
            other => format!("Not Verified with error: {}", echo(&other.to_string())),
        }
    }
}

/// A text that may hold a peer's words, made safe to send back.
fn echo(text: &str) -> String {
    let mut out: String = text.chars().filter(|c| *c == ' ' || c.is_ascii_graphic()).collect();
    out.truncate(MAX_ECHO);
    out
}
