//! Subtensor: a client for the real chain, on subxt.
//!
//! [`SubtensorChain`] is the edge. [`runtime`] and [`call`] say things in the words of the chain's runtime, [`neurons`] and
//! [`refusal`] read its answers: all pure. [`rpc`] is one connection, [`link`] the way over several endpoints; below them a
//! session follows a node's heads, a reader puts a view together and a submission is followed to its block.

pub mod call;
mod client;
mod config;
pub mod heads;
pub mod link;
pub mod neurons;
mod own_weights;
mod reader;
pub mod refusal;
pub mod rpc;
pub mod runtime;
mod session;
mod state;
mod submit;

pub use self::call::{Call, Mechanism};
pub use self::client::{ClientSettings, SubtensorChain};
pub use self::link::{Link, LinkSettings};
pub use self::runtime::{CodecError, Era, Extrinsic, Runtime};

#[cfg(test)]
mod tests;
