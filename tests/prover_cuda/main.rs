//! The prover of a machine with GPUs, on a driver that stands in for CUDA's; and all that can go wrong with a prover.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

mod children;
mod failures;
mod memory;
mod stage;
mod stand_in;
