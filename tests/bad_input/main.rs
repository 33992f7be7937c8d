//! Bad input against real nodes: each kind has its documented answer, is counted, and harms nothing.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "../common/mod.rs"]
mod common;

mod chain;
mod files;
mod provers;
mod requests;
mod world;
