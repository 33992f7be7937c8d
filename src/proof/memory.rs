//! The memory proof: a prover fills memory with blocks that are slow to make, then reads all of it several times under
//! keys that nobody knew before; a verifier makes a few blocks again and finds them under the roots of the reads.
//!
//! The statement is "between t₀ and t₁ the prover read `N` blocks of 1 KiB, `S` times over, which it had before t₀ or
//! made at more than the cost of reading". Both times are the verifier's. A block is a *slow* function of its index
//! ([`block`]): whoever did not keep it pays the cost of making it for each scan. A scan weighs every block with
//! coefficients that its nonce fixes ([`scan`]); each scan's nonce depends on the root before it. The verifier draws
//! blocks only after it has the roots ([`verifier`]).
//!
//! Read in this order: [`size`] (the words), [`keys`], [`block`], [`scan`], [`verifier`], [`figures`] (what the time
//! shows), [`cpu`] (the backend for processors), [`forging`] (adversaries).
//!
//! Order of a challenge: the verifier names [`Challenge`]; the prover fills and says it is ready; the verifier draws
//! `nonce_0`, starts the clock and sends it; the `S` roots in one message stop the clock; then positions and openings.
//!
//! Invariants: as in the rest of the proof; and a [`Size`] out of range cannot be had.

pub mod size;

pub mod block;
pub mod keys;
pub mod scan;

pub mod figures;
pub mod verifier;

pub mod cpu;

pub mod forging;

pub use figures::Evidence;
pub use size::{Challenge, Position, Size, SizeError, sample_positions};
