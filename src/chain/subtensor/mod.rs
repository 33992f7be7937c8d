//! Subtensor: a client for the real chain, on subxt.

pub mod call;
mod config;
pub mod heads;
pub mod link;
pub mod neurons;
pub mod rpc;
pub mod runtime;
mod session;

pub use self::call::{Call, Mechanism};
pub use self::runtime::{CodecError, Era, Extrinsic, Runtime};
