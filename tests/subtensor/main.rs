//! The chain's client against a real subtensor runtime, over a wire that fails.
//!
//! Each test has a chain of its own on loopback ([`bed`]), a wire that fails on demand ([`proxy`]) where it needs one, and
//! asks nothing outside. Keys are the published development keys and junctions of them.
//!
//! `scripts/subtensor` makes what the chains need, of a raw chain spec that `SUBTENSOR_SPEC` names. Without one these
//! tests are left out: each says so, and `scripts/test` does in its table.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers fail the test")]

mod bed;
#[path = "../common/chain_vectors.rs"]
mod chain_vectors;
mod frames;
mod nodes;
mod proxy;
mod python;
mod rpc;
mod subnet;
mod the_bed;
mod the_client;
mod the_faults;
mod the_nodes;
mod the_subnet;
mod the_subnet_alone;
mod the_tool;
mod the_wire;
#[path = "../common/wait.rs"]
mod wait;

use wait::until;
