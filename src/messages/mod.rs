//! Typed messages between actors, one file per actor, path for path as in [`crate::actors`].
//!
//! A message holds data and names its reply; it has no behaviour. Requests that wait on the outside world reply with
//! a `Result` whose error is a closed enum, so that a caller can tell a refusal from a fault.

pub mod auto_updater;
pub mod blacklist_guard;
pub mod chain_watcher;
pub mod journal;
pub mod listener;
pub mod miner;
pub mod validator;
