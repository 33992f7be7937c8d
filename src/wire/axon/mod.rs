//! The serving side: what stands between an HTTP worker and a handler.
//!
//! [`handle`] serves our own synapses, under `btauth/1` only, and signs every reply to a proved caller.
//! [`handle_classic`] serves the original's, under either scheme, and answers as the SDK's axon does. Both read the body
//! within its limits, check the signature, ask for admission, remember the nonce, parse the body and run the handler. No
//! actor is asked before all of that held, and a panic on the way is this request's 500.
//!
//! Which scheme a request is judged by:
//! - an `X-Bittensor-…` header makes it `btauth/1`, if that is accepted, and nothing falls back from there;
//! - else it is classic, if that is accepted and the synapse is one of the original's;
//! - a scheme that is not accepted is a 401 that names it.
//!
//! Before either, every request meets the door: a penalty of its address is a 403, one too many of its address a 429, a
//! head beyond the limits a 431.
//!
//! Replies of [`handle`]:
//!
//! | status | `error` | signed |
//! |---|---|---|
//! | 413, 408, 400 | `too_large`, `slow_body`, `broken_body` | no |
//! | 401 | `malformed_auth`, `wrong_receiver`, `stale_request`, `bad_signature`, `replayed_request`, `scheme_refused` | no |
//! | 503 | `overloaded` (no room for another nonce) | no |
//! | 403, 429, 431 | the admission's reason, `too_many_of_address`, `headers_too_large` | no |
//! | 403, 503 | the admission's reason, `not_ready` | yes |
//! | 429 | `too_many_of_hotkey` | yes |
//! | 400 | `malformed_body` | yes |
//! | 503 | `overloaded` (too many handlers at work) | yes |
//! | 500, 503 | `panic`, `handler_deadline`, `encoding` | yes |
//! | the handler's | the handler's | yes |
//!
//! Design notes:
//! - a nonce is remembered after admission, so the tables hold admitted hotkeys only, and strangers with keys made up on
//!   the spot cannot fill them;
//! - a replay's refusal is not signed: each nonce has one signed reply, and nobody can obtain a second one for it;
//! - handlers are counted, not connections: only admitted callers can use them up, and a slow sender holds none;
//! - all requests to one gate share the nonce tables, so a gate must outlive the rebinding of its listener.

mod body;
mod classic;
mod classic_reply;
mod door;
mod fallback;
mod gate;
mod outcome;
mod own;
mod rates;

pub use classic::handle_classic;
pub use fallback::{method_not_allowed, not_found};
pub use gate::{Accepts, AxonGate, AxonLimits, FromHere, GateRules};
pub use outcome::{AdmissionRefusal, AxonEvents, AxonOutcome, Declined, NoEvents, Refusal, RequestSeen};
pub use own::handle;
pub use rates::{Rate, Rates};
