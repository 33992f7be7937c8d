//! How a request can end, and who hears of it.

use std::net::IpAddr;

use crate::ids::Hotkey;
use crate::wire::btauth::AuthError;

macro_rules! outcomes {
    ($($(#[$doc:meta])* $variant:ident = $label:literal;)*) => {
        /// How a request ended, for counting.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum AxonOutcome { $($(#[$doc])* $variant,)* }
        impl AxonOutcome {
            /// Every outcome.
            pub const ALL: &'static [AxonOutcome] = &[$(AxonOutcome::$variant),*];
            /// The metric label: snake case, stable.
            pub fn label(self) -> &'static str { match self { $(AxonOutcome::$variant => $label),* } }
        }
    };
}

outcomes! {
    /// Answered with 200.
    Ok = "ok";
    /// The body exceeds the limit.
    TooLarge = "too_large";
    /// The body did not arrive in time.
    SlowBody = "slow_body";
    /// The body broke off.
    BrokenBody = "broken_body";
    /// Headers missing or unreadable.
    MalformedAuth = "malformed_auth";
    /// Signed for somebody else.
    WrongReceiver = "wrong_receiver";
    /// Outside the freshness window.
    StaleRequest = "stale_request";
    /// The signature does not hold.
    BadSignature = "bad_signature";
    /// Admitted before.
    ReplayedRequest = "replayed_request";
    /// No room for another nonce, or too many handlers at work.
    Overloaded = "overloaded";
    /// Not admitted by policy.
    NotAdmitted = "not_admitted";
    /// No snapshot to judge admission by.
    NotReady = "not_ready";
    /// Signed, but not the JSON expected.
    MalformedBody = "malformed_body";
    /// The handler refused.
    Refused = "refused";
    /// The handler did not answer in time.
    HandlerDeadline = "handler_deadline";
    /// The address has a penalty.
    AddressRefused = "address_refused";
    /// Too many requests from this address.
    TooManyOfAddress = "too_many_of_address";
    /// Too many requests of this hotkey.
    TooManyOfHotkey = "too_many_of_hotkey";
    /// Too many headers, or too large ones.
    HeadersTooLarge = "headers_too_large";
    /// Signed with a scheme that is not accepted here.
    SchemeRefused = "scheme_refused";
    /// The body hash that was signed is not the body's.
    BodyHash = "body_hash";
    /// The handler failed.
    Failed = "failed";
    /// No such path.
    NotFound = "not_found";
    /// The path is not for this method.
    MethodNotAllowed = "method_not_allowed";
    /// Something panicked.
    Panic = "panic";
    /// The reply has no JSON form.
    Encoding = "encoding";
}

impl From<&AuthError> for AxonOutcome {
    fn from(error: &AuthError) -> Self {
        match error {
            AuthError::MalformedAuth(_) => AxonOutcome::MalformedAuth,
            AuthError::WrongReceiver(_) => AxonOutcome::WrongReceiver,
            AuthError::StaleRequest(_) => AxonOutcome::StaleRequest,
            AuthError::BadSignature(_) => AxonOutcome::BadSignature,
            AuthError::ReplayedRequest => AxonOutcome::ReplayedRequest,
            AuthError::Overloaded(_) => AxonOutcome::Overloaded,
        }
    }
}

/// A request that was answered.
#[derive(Debug, Clone, Copy)]
pub struct RequestSeen<'a> {
    /// Where it went: [`Synapse::PATH`](crate::wire::synapse::Synapse::PATH) for ours,
    /// [`ClassicSynapse::NAME`](crate::wire::classic::ClassicSynapse::NAME) for the original's.
    pub path: &'static str,
    /// How it ended.
    pub outcome: AxonOutcome,
    /// Who sent it, known once the signature held and never before.
    pub caller: Option<&'a Hotkey>,
    /// Whether that signature covers the body as it came, as that of `btauth/1` does. The classic one covers a hash that only
    /// a body that can be read has: one that cannot may be somebody else's.
    pub body_signed: bool,
    /// The address it came from; none on a socket without addresses.
    pub peer: Option<IpAddr>,
}

/// Hears of every request once it is answered. Called in the HTTP worker: it must not block.
pub trait AxonEvents: Send + Sync {
    /// One request.
    fn request(&self, seen: RequestSeen<'_>);
}

/// Counts nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEvents;
impl AxonEvents for NoEvents {
    fn request(&self, _: RequestSeen<'_>) {}
}

/// Why a hotkey is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmissionRefusal {
    /// By policy: 403.
    Forbidden {
        /// Which rule, snake case, stable.
        reason: &'static str,
        /// For people.
        detail: String,
    },
    /// There is nothing, or nothing recent enough, to judge by: 503.
    NotReady {
        /// For people.
        detail: String,
    },
}

/// A handler's refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// Which refusal, snake case, stable.
    pub error: &'static str,
    /// For people.
    pub detail: String,
}

impl Refusal {
    /// A refusal with this status.
    pub fn new(status: u16, error: &'static str, detail: impl Into<String>) -> Self {
        Refusal { status, error, detail: detail.into() }
    }
    /// 400: the request makes no sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(400, "invalid", detail)
    }
    /// 404: the thing named is not here.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(404, "not_found", detail)
    }
    /// 503: too much to do right now.
    pub fn overloaded(detail: impl Into<String>) -> Self {
        Self::new(503, "overloaded", detail)
    }
    /// 503: what it takes is not there right now.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(503, "unavailable", detail)
    }
}

/// What a handler of the original's synapses answers instead of success.
#[derive(Debug, Clone, PartialEq)]
pub enum Declined<S> {
    /// The whole synapse goes back with this status and text, and the caller counts it as a failure: 429 `Busy`.
    With {
        /// HTTP status, 400 to 599.
        status: u16,
        /// For people.
        message: String,
        /// What goes back.
        synapse: S,
    },
    /// The caller hears a number only; this goes to our log.
    Failed(String),
}
