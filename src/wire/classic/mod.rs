//! The axon and dendrite scheme of Bittensor SDK 6 to 10: pure, no clock, no I/O.
//!
//! A synapse is posted to `/<ClassName>`. Who calls stands in the headers ([`headers`]) and is proved by an sr25519
//! signature over five texts joined by dots: nonce, caller, receiver, uuid, body hash ([`sign`], [`verify`]). The body hash
//! covers only the fields that a class names ([`mod@body_hash`]), as Python would print them ([`python`]); the original's
//! classes name none, so **their bodies are not authenticated**, and neither is any reply. [`envelope`] has the JSON
//! around a synapse's own fields, [`lax`] reads those as leniently as pydantic does.
//!
//! Stricter than the SDK:
//! - freshness is asked of every request: the SDK lets a caller switch it off by an old version number, or widen it without
//!   bound by its `timeout`, neither of which is signed;
//! - a nonce from the future is refused; the SDK has no upper bound;
//! - nonce, signature, uuid and body hash must all be there;
//! - a header that decides who calls may be given once only;
//! - the signature is checked under sr25519 only, and over the message itself only (`<Bytes>…</Bytes>` is not tried).
//!
//! The texts of refusals are the SDK's ([`ClassicError`]).

pub mod body_hash;
pub mod endpoints;
pub mod envelope;
mod error;
pub mod headers;
pub mod lax;
pub mod python;
mod sign;
mod verify;

pub use body_hash::{EMPTY_BODY_HASH, body_hash};
pub use endpoints::{EndpointLimits, Endpoints};
pub use envelope::{Base, BodyError, Envelope, Ping};
pub use error::ClassicError;
pub use headers::{ClassicHeaders, Terminal};
pub use python::PyValue;
pub use sign::{Outgoing, sign};
pub use verify::{ClassicCaller, ClassicPolicy, check_shape, twin, verify};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version integer that our dendrite sends: major · 10⁶ + minor · 10³ + patch of the SDK that we behave like. From
/// 7,002,000 on servers read the nonce as a time.
pub const DENDRITE_VERSION: u64 = 10_005_000;

/// The own fields of a synapse class. Reading is lenient ([`lax`], defaults for what is absent), writing gives every field,
/// in the class's order.
pub trait ClassicSynapse: Serialize + DeserializeOwned + Send + 'static {
    /// The class's name, which is also the route.
    const NAME: &'static str;

    /// The fields without a default, each with the base64 of the JSON of its type's zero value, see
    /// [`headers::zero`]. A caller must send one header for each.
    const REQUIRED: &'static [(&'static str, &'static str)] = &[];

    /// The values that the body hash covers, in the class's order. None unless the class names some.
    fn hashed(&self) -> Vec<PyValue> {
        Vec::new()
    }
}

/// `POST` path of a class.
pub fn path<S: ClassicSynapse>() -> String {
    format!("/{}", S::NAME)
}

#[cfg(test)]
mod tests;
