//! Real Bittensor SDKs and real nodes of ours talk to each other: 9.0.0 and 10.5.0 with the classic headers, 11.3.0
//! with `btauth/1`. Nothing here imitates either side; the Python drivers beside this file only pass words on.
//!
//! Everything is on loopback and nothing asks a chain. The keys are the published development keys: a devnet's miner is
//! asked by `//Bob`, whom its operator admits with `--whitelist.hotkeys`, and by `//Charlie`, whom nobody knows.
//!
//! `scripts/python-sdks` installs the SDKs, `COMPUTE_TEST_PYTHON` names another directory of virtual environments.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test's helpers fail the test")]

mod body_hash;
mod btauth;
mod checks;
#[expect(dead_code, reason = "other tests use the rest")]
#[path = "../common/mod.rs"]
mod common;
mod driver;
mod node;
mod their_axon;
mod their_dendrite;

use common::wait;
