//! A client of the chain that cannot hang, fault by fault.
//!
//! Each fault is a row of a table: what it does, how it is noticed, and how long it takes until the client is whole again.
//! The bounds are multiples of the settings' deadlines, which are short here. All rows hold at once: no call outlives its own
//! deadline, and no weight is sent twice. The test prints the table with what was measured; `docs/chain.md` has it for
//! operators, and is held to it.
//!
//! The node is a fake that misbehaves on request (`tests/subtensor/fake`), behind a wire that fails
//! (`tests/subtensor/proxy.rs`). It needs metadata of a subtensor runtime, version 15, which is other people's data:
//! `SUBTENSOR_METADATA` names the directory. Without it these tests are left out, and say so.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers fail the test")]

mod bench;
mod calls;
mod endpoints;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../subtensor/fake/mod.rs"]
mod fake;
#[path = "../subtensor/frames.rs"]
mod frames;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../subtensor/proxy.rs"]
mod proxy;
mod resources;
mod submissions;
mod table;
