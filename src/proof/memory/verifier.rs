//! The verifier of memory: a pure function of challenge, first nonce, roots, positions and bytes.
//!
//! Order of use: wait until the prover is ready, draw `nonce_0`, start the clock, send it; read the roots and the clock,
//! [`check_roots`]; draw positions ([`super::sample_positions`]); read the openings, [`check_openings`].
//!
//! A block's own digest is never sent: it is recomputed, so a digest that was made up, a path that was, and the true
//! ones of another place all show as one and the same thing, a root that is not reached.

use super::block;
use super::keys::{self, ScanNonce};
use super::scan::{Group, OTHERS_BYTES};
use super::size::{Challenge, Position};
use crate::proof::gemm::Kernel;
use crate::proof::merkle;
use crate::proof::verifier::{Checked, Rejection};
use crate::proof::work::Root;
use crate::verdict::FailReason;

/// Checks that there is one root for each scan.
///
/// # Errors
/// [`FailReason::WrongScans`] if not.
pub fn check_roots(challenge: &Challenge, roots: &[Root]) -> Result<(), Rejection> {
    let asked = challenge.size.scans() as usize;
    if roots.len() == asked {
        return Ok(());
    }
    let detail = format!("{}: {} roots for {asked} scans", challenge.device, roots.len());
    Err(Rejection::new(FailReason::WrongScans, detail))
}

/// Checks the openings of `positions`, in their order: `three other digests ‖ path` of each, without anything between.
///
/// Each position's block is made again; its digest under the scan's coefficients, among the three others, must lead to
/// the scan's root by the block's index.
///
/// # Errors
/// The first of: [`FailReason::WrongScans`]; [`FailReason::WrongLength`]; then by position [`FailReason::MemoryMismatch`].
///
/// # Panics
/// If a position lies outside the challenge's size. Positions are the verifier's own draw, never a peer's bytes.
pub fn check_openings(
    challenge: &Challenge,
    nonce_0: &ScanNonce,
    roots: &[Root],
    positions: &[Position],
    openings: &[u8],
) -> Result<Checked, Rejection> {
    check_openings_with(Kernel::best(), challenge, nonce_0, roots, positions, openings)
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
    nonce_0: &ScanNonce,
    roots: &[Root],
    positions: &[Position],
    openings: &[u8],
) -> Result<Checked, Rejection> {
    check_roots(challenge, roots)?;
    let size = &challenge.size;
    let device = challenge.device;
    let one = size.opening_len();
    if positions.len().checked_mul(one) != Some(openings.len()) {
        let expected = positions.len().saturating_mul(one);
        let detail = format!(
            "{device}: {} bytes of openings, {} positions take {expected} ({one} each)",
            openings.len(),
            positions.len(),
        );
        return Err(Rejection::new(FailReason::WrongLength, detail));
    }
    let nonces = nonces_of_scans(nonce_0, roots);
    let fill_key = keys::fill_key(challenge);
    for (number, (position, opening)) in positions.iter().zip(openings.chunks_exact(one)).enumerate() {
        assert!(position.is_within(size), "the verifier drew {position:?} outside of {size:?}");
        let (others, path) = opening.split_at(OTHERS_BYTES);
        let scan = position.scan as usize;
        let keys = nonces[scan].keys();
        let words = block::fill(kernel, &fill_key, position.block, size.iterations());
        let own = block::digest(kernel, &keys.coefficients, &words);
        let leaf = Group::with_others(&own, position.within_group(), others).leaf(&keys);
        if merkle::walk(&keys.node, leaf, position.leaf(), path) != roots[scan] {
            let detail = format!(
                "{device}, scan {scan}, block {}: the block and what was opened with it do not lead to the root",
                position.block
            );
            return Err(Rejection::of_opening(number, FailReason::MemoryMismatch, detail));
        }
    }
    Ok(Checked { samples: u32::try_from(positions.len()).unwrap_or(u32::MAX) })
}

/// The nonce of every scan that the roots reach, from the first on.
fn nonces_of_scans(nonce_0: &ScanNonce, roots: &[Root]) -> Vec<ScanNonce> {
    let mut nonce = *nonce_0;
    roots
        .iter()
        .map(|root| {
            let here = nonce;
            nonce = here.next(root);
            here
        })
        .collect()
}

#[cfg(test)]
mod tests;
