//! Signed HTTP between neurons.
//!
//! A request is a POST with a JSON body, signed by its sender with `btauth/1` ([`btauth`]) or with the scheme of Bittensor
//! SDK 6 to 10 ([`classic`]), and admitted once ([`nonces`]). The reply is signed by the responder ([`reply`]). [`synapse`] has the typed bodies, [`axon`] the
//! serving side, [`dendrite`] the calling side.
//!
//! Invariants:
//! - the caller is who signed the headers; nothing in a body names the caller;
//! - a request has an effect at most once, and only at the hotkey it was signed for;
//! - a body counts on either side only after its signature held, and only within its size and time limits;
//! - a panic while a peer's bytes are handled is that peer's 500 and nobody else's.

pub mod axon;
pub mod btauth;
pub mod classic;
mod content_type;
pub mod dendrite;
mod floor;
pub mod nonces;
pub mod reply;
pub mod resolver;
mod signature;
pub mod synapse;
mod uuid;

pub use axon::{
    Accepts, AdmissionRefusal, AxonEvents, AxonGate, AxonLimits, AxonOutcome, Declined, GateRules, Rate, Rates,
    Refusal, RequestSeen, handle, handle_classic,
};
pub use btauth::{AuthError, AuthHeaders, AuthPolicy, Caller};
pub use dendrite::{CallError, Dendrite, Peer, Reply};
pub use nonces::{NonceLimits, NonceTable};
