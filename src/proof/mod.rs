//! Exact integer proof of work: a prover commits to a large product, a verifier recomputes a few entries of it.
//!
//! The statement is "the prover computed `C = A·B` for matrices that a seed fixes, the seed did not exist before t₀,
//! and the prover was bound to all of `C` before t₁". Both times are the verifier's. `A` and `B` are ChaCha8
//! keystream ([`keystream`]), `C` is exact in `i32` ([`gemm`]), cut into tiles ([`tile`]) whose hashes form a tree
//! ([`merkle`]); each round's seed depends on the root before it ([`seeds`]). The verifier draws positions only after
//! it has the roots, and needs microseconds for each ([`verifier`]): no GPU, no tolerance, no number the prover prints.
//!
//! The proof of memory ([`memory`]) is its counterpart for capacity and bandwidth: slow fills, read under nonces that come
//! after them.
//!
//! Read in this order: [`work`] (the words), [`seeds`], [`keystream`], [`tile`], [`merkle`], [`gemm`], [`entry`], [`verifier`],
//! [`cpu`] (the backend for processors), [`frames`] and [`prover`] (a child process with limits), [`budget`] (what a
//! miner lets others make it do), [`size`] (how much is asked of a GPU), [`memory`], [`selftest`] (the definitions' test
//! vectors).
//!
//! Invariants: everything here but [`prover`] and [`frames`]'s read and write is a pure function of its arguments;
//! every SIMD kernel gives the same bits as its scalar twin; nothing panics on bytes from outside.

pub mod work;

pub mod gemm;
pub mod keystream;
pub mod merkle;
pub mod seeds;
pub mod tile;

pub mod cpu;
pub mod entry;
pub mod verifier;
mod workers;

pub mod memory;

pub mod frames;
pub mod prover;

pub mod budget;
pub mod selftest;
pub mod size;

#[cfg(test)]
pub(crate) mod binomial;

pub use work::{Challenge, Position, Root, Work, WorkError, kept_sample, sample_positions};
