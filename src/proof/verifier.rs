//! The verifier: a pure function of challenge, roots, positions and bytes. It needs no GPU and microseconds a sample.
//!
//! Order of use: read the roots and the clock, [`check_roots`]; draw positions ([`super::sample_positions`]); read the
//! openings, [`check_openings`]. Every rejection names the check that failed and where; a prover is never asked twice.

use super::entry;
use super::gemm::Kernel;
use super::merkle;
use super::seeds::{RoundKeys, Seed};
use super::tile::{self, TILE_BYTES};
use super::work::{Challenge, Position, Root};
use crate::verdict::FailReason;

/// Why an answer is wrong. The detail names device, round and tile, and is safe to publish.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Rejection {
    /// The check that failed.
    pub reason: FailReason,
    /// What was found, where.
    pub detail: String,
    /// Which opening, in the order asked, showed it; `None` where it is not one of them alone.
    pub opening: Option<usize>,
}

impl Rejection {
    pub(super) fn new(reason: FailReason, detail: String) -> Self {
        Rejection { reason, detail, opening: None }
    }

    pub(super) fn of_opening(number: usize, reason: FailReason, detail: String) -> Self {
        Rejection { reason, detail, opening: Some(number) }
    }
}

/// What was checked, all of it right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Entries recomputed and found equal; for memory, blocks recomputed and found under their scans' roots.
    pub samples: u32,
}

/// Checks that there is one root for each round.
///
/// # Errors
/// [`FailReason::WrongRounds`] if not.
pub fn check_roots(challenge: &Challenge, roots: &[Root]) -> Result<(), Rejection> {
    let asked = challenge.work.rounds as usize;
    if roots.len() == asked {
        return Ok(());
    }
    let detail = format!("{}: {} roots for {asked} rounds", challenge.device, roots.len());
    Err(Rejection::new(FailReason::WrongRounds, detail))
}

/// Checks the openings of `positions`, in their order: `tile ‖ path` of each, without anything between.
///
/// For each position the tile's hash must lead to the round's root by the tile's index, and the entry at the position
/// must be the product's, exactly.
///
/// # Errors
/// The first of: [`FailReason::WrongRounds`]; [`FailReason::WrongLength`]; then by position
/// [`FailReason::PathMismatch`], [`FailReason::EntryMismatch`].
///
/// # Panics
/// If a position lies outside the challenge's work. Positions are the verifier's own draw, never a peer's bytes.
pub fn check_openings(
    challenge: &Challenge,
    roots: &[Root],
    positions: &[Position],
    openings: &[u8],
) -> Result<Checked, Rejection> {
    check_openings_with(Kernel::best(), challenge, roots, positions, openings)
}

/// [`check_openings`] with a kernel of choice, for measurements.
///
/// # Errors
/// As [`check_openings`].
///
/// # Panics
/// As [`check_openings`].
pub fn check_openings_with(
    kernel: Kernel,
    challenge: &Challenge,
    roots: &[Root],
    positions: &[Position],
    openings: &[u8],
) -> Result<Checked, Rejection> {
    check_roots(challenge, roots)?;
    let work = &challenge.work;
    let device = challenge.device;
    let one = work.opening_len();
    if positions.len().checked_mul(one) != Some(openings.len()) {
        let expected = positions.len().saturating_mul(one);
        let detail = format!(
            "{device}: {} bytes of openings, {} positions take {expected} ({one} each)",
            openings.len(),
            positions.len(),
        );
        return Err(Rejection::new(FailReason::WrongLength, detail));
    }
    let keys = keys_of_rounds(challenge, roots);
    for (number, (position, opening)) in positions.iter().zip(openings.chunks_exact(one)).enumerate() {
        assert!(position.is_within(work), "the verifier drew {position:?} outside of {work:?}");
        let round = position.round as usize;
        let (bytes, path) = opening.split_at(TILE_BYTES);
        let index = position.tile_index(work);
        let leaf = merkle::leaf(&keys[round].leaf, bytes);
        if merkle::walk(&keys[round].node, leaf, index, path) != roots[round] {
            let detail = format!("{device}, round {round}, tile {index}: the path does not lead to the root");
            return Err(Rejection::of_opening(number, FailReason::PathMismatch, detail));
        }
        let expected = entry::entry(kernel, &keys[round].entries, position.row, position.col, work.k as usize);
        let found = tile::entry(bytes, position.within_tile());
        if found != Some(expected) {
            let detail = format!(
                "{device}, round {round}, tile {index}, row {}, column {}: the tile has {}, the product {expected}",
                position.row,
                position.col,
                found.unwrap_or_default(),
            );
            return Err(Rejection::of_opening(number, FailReason::EntryMismatch, detail));
        }
    }
    Ok(Checked { samples: u32::try_from(positions.len()).unwrap_or(u32::MAX) })
}

/// The keys of every round that the roots reach, from the first round on.
pub fn keys_of_rounds(challenge: &Challenge, roots: &[Root]) -> Vec<RoundKeys> {
    let mut seed: Seed = challenge.seed_0();
    roots
        .iter()
        .map(|root| {
            let keys = seed.keys();
            seed = seed.next(root);
            keys
        })
        .collect()
}

/// The exact entry at a position of the product that these keys fix: what [`check_openings`] compares with.
pub fn entry(keys: &RoundKeys, position: &Position, k: u32) -> i32 {
    entry::entry(Kernel::best(), &keys.entries, position.row, position.col, k as usize)
}

#[cfg(test)]
mod tests;
