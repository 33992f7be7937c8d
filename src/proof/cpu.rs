//! The prover's backend for processors: commits to all rounds, keeps the hashes of their tiles, and recomputes the
//! tiles it is asked to open. The product itself is never stored.
//!
//! One round: fill `B` panel by panel; then, strip by strip of `A`, multiply with every panel and hash the tiles; then
//! the tree. Panels and strips are shared out among scoped threads, which end before the call returns; `cancel` is
//! looked at for every tile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::gemm::{self, Kernel, Strip};
use super::merkle::{self, Tree};
use super::seeds::{RoundKeys, Seed};
use super::tile::Tile;
use super::work::{Challenge, Position, Root, Work, WorkError};
use super::workers::{self, MAX_THREADS, filled, share_out};
use crate::ids::Hash32;

/// Why there is no commitment or no opening.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// The cancel flag was raised.
    #[error("cancelled")]
    Cancelled,
    /// Memory could not be had.
    #[error("out of memory: {bytes} more bytes could not be had")]
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: usize,
    },
    /// The challenge's work is out of range.
    #[error("the work is out of range")]
    Work(#[from] WorkError),
    /// A position to open is not in the product.
    #[error("no entry at round {}, row {}, column {}", .0.round, .0.row, .0.col)]
    NoSuchEntry(Position),
}

impl From<workers::Cancelled> for CpuError {
    fn from(_: workers::Cancelled) -> Self {
        CpuError::Cancelled
    }
}

impl From<workers::OutOfMemory> for CpuError {
    fn from(error: workers::OutOfMemory) -> Self {
        CpuError::OutOfMemory { bytes: error.bytes }
    }
}

/// What changes tiles on their way: the honest prover changes nothing. See [`super::prover::forging`].
pub(crate) trait Tamper: Send + Sync {
    /// A tile to use instead of the product's, which then is not computed.
    fn instead(&self, _round: u32, _tile: u64) -> Option<Tile> {
        None
    }
    /// Changes a computed tile.
    fn spoil(&self, _round: u32, _tile: u64, _content: &mut Tile) {}
    /// A root to commit to instead of the round's own, which then is not computed.
    fn made_up_root(&self, _round: u32) -> Option<Root> {
        None
    }
}

struct Honest;
impl Tamper for Honest {}

/// A commitment to all rounds, ready to be opened.
pub struct CpuCommitment {
    work: Work,
    keys: Vec<RoundKeys>,
    leaves: Vec<Vec<Hash32>>,
    roots: Vec<Root>,
    threads: usize,
    kernel: Kernel,
    tamper: Arc<dyn Tamper>,
}

/// Computes all rounds of the challenge with at most `threads` threads (at least one).
///
/// # Errors
/// [`CpuError::Cancelled`] soon after `cancel` was raised; [`CpuError::OutOfMemory`]; [`CpuError::Work`].
pub fn commit(challenge: &Challenge, threads: usize, cancel: &AtomicBool) -> Result<CpuCommitment, CpuError> {
    commit_with(challenge, threads, Kernel::best(), cancel)
}

/// [`commit`] with a kernel of choice, for measurements and tests.
///
/// # Errors
/// As [`commit`].
pub fn commit_with(
    challenge: &Challenge,
    threads: usize,
    kernel: Kernel,
    cancel: &AtomicBool,
) -> Result<CpuCommitment, CpuError> {
    commit_tampered(challenge, threads, kernel, cancel, Arc::new(Honest))
}

/// [`commit`] with tiles changed on their way.
pub(crate) fn commit_tampered(
    challenge: &Challenge,
    threads: usize,
    kernel: Kernel,
    cancel: &AtomicBool,
    tamper: Arc<dyn Tamper>,
) -> Result<CpuCommitment, CpuError> {
    let work = challenge.work;
    work.check()?;
    let threads = threads.clamp(1, MAX_THREADS);
    let rounds = work.rounds as usize;
    let mut made = CpuCommitment {
        work,
        keys: Vec::with_capacity(rounds),
        leaves: Vec::with_capacity(rounds),
        roots: Vec::with_capacity(rounds),
        threads,
        kernel,
        tamper,
    };
    let mut panels = zeroed::<u8>(work.side() as usize * gemm::panel_len(work.k as usize))?;
    let mut seed: Seed = challenge.seed_0();
    for round in 0..work.rounds {
        let keys = seed.keys();
        let (leaves, root) = match made.tamper.made_up_root(round) {
            Some(root) => (Vec::new(), root),
            None => {
                let leaves = made.round(round, &keys, &mut panels, cancel)?;
                let root = Tree::build_with::<CpuError>(&keys.node, &leaves, threads, cancel)?.root();
                (leaves, root)
            }
        };
        seed = seed.next(&root);
        made.keys.push(keys);
        made.leaves.push(leaves);
        made.roots.push(root);
    }
    Ok(made)
}

impl CpuCommitment {
    /// A commitment that another backend computed: keys, hashes of all tiles, and root of each round. This one opens it.
    pub(crate) fn of_rounds(work: Work, rounds: Vec<(RoundKeys, Vec<Hash32>, Root)>, threads: usize) -> Self {
        let mut made = CpuCommitment {
            work,
            keys: Vec::with_capacity(rounds.len()),
            leaves: Vec::with_capacity(rounds.len()),
            roots: Vec::with_capacity(rounds.len()),
            threads: threads.clamp(1, MAX_THREADS),
            kernel: Kernel::best(),
            tamper: Arc::new(Honest),
        };
        for (keys, leaves, root) in rounds {
            made.keys.push(keys);
            made.leaves.push(leaves);
            made.roots.push(root);
        }
        made
    }

    /// One root for each round.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// `tile ‖ path` of each position, in the order asked.
    ///
    /// # Errors
    /// [`CpuError::NoSuchEntry`] for a position outside the work, [`CpuError::Cancelled`], [`CpuError::OutOfMemory`].
    pub fn open(&self, positions: &[Position], cancel: &AtomicBool) -> Result<Vec<u8>, CpuError> {
        if let Some(outside) = positions.iter().find(|p| !p.is_within(&self.work)) {
            return Err(CpuError::NoSuchEntry(*outside));
        }
        let one = self.work.opening_len();
        let mut out = zeroed::<u8>(positions.len() * one)?;
        let mut by_round: Vec<Vec<(&Position, &mut [u8])>> = Vec::new();
        by_round.resize_with(self.work.rounds as usize, Vec::new);
        for (position, opening) in positions.iter().zip(out.chunks_exact_mut(one)) {
            by_round[position.round as usize].push((position, opening));
        }
        for (round, wanted) in by_round.into_iter().enumerate().filter(|(_, wanted)| !wanted.is_empty()) {
            let keys = &self.keys[round];
            let tree = Tree::build_with::<CpuError>(&keys.node, &self.leaves[round], self.threads, cancel)?;
            let workers = self.workers(wanted.len(), true)?;
            share_out(workers, wanted.into_iter(), cancel, |worker, (position, opening)| {
                let index = position.tile_index(&self.work);
                worker.open_tile(self, round as u32, index);
                let bytes = worker.tile.to_bytes();
                opening[..bytes.len()].copy_from_slice(&bytes);
                for (slot, sibling) in opening[bytes.len()..].chunks_exact_mut(32).zip(tree.path(index)) {
                    slot.copy_from_slice(&sibling.0);
                }
            })?;
        }
        Ok(out)
    }

    /// The hashes of all tiles of one round.
    fn round(
        &self,
        round: u32,
        keys: &RoundKeys,
        panels: &mut [u8],
        cancel: &AtomicBool,
    ) -> Result<Vec<Hash32>, CpuError> {
        let (side, k) = (self.work.side(), self.work.k as usize);
        let workers = self.workers(side as usize, false)?;
        share_out(
            workers,
            (0u32..).zip(panels.chunks_exact_mut(gemm::panel_len(k))),
            cancel,
            |worker, (index, panel)| {
                gemm::fill_panel(&keys.entries, index, k, &mut worker.row, panel);
            },
        )?;
        let panels = &*panels;
        let mut leaves = filled(self.work.tiles() as usize, Hash32([0; 32]))?;
        let workers = self.workers(side as usize, false)?;
        share_out(workers, (0u32..).zip(leaves.chunks_exact_mut(side as usize)), cancel, |worker, (index, leaves)| {
            worker.strip.fill(&keys.entries, index, &mut worker.row);
            let first = u64::from(index) * u64::from(side);
            for ((number, panel), leaf) in (first..).zip(panels.chunks_exact(gemm::panel_len(k))).zip(leaves) {
                if cancel.load(Ordering::Relaxed) {
                    return;
                }
                worker.compute(self, round, number, panel);
                *leaf = merkle::leaf(&keys.leaf, &worker.tile.to_bytes());
            }
        })?;
        Ok(leaves)
    }

    /// Buffers for as many workers as there are items for; those that open tiles need a panel of their own.
    fn workers(&self, items: usize, with_panel: bool) -> Result<Vec<Worker>, CpuError> {
        let worker = |_| Worker::new(self.kernel, self.work.k as usize, with_panel);
        (0..self.threads.min(items).max(1)).map(worker).collect()
    }
}

/// One thread's buffers.
struct Worker {
    row: Vec<u8>,
    strip: Strip,
    panel: Vec<u8>,
    tile: Tile,
}

impl Worker {
    fn new(kernel: Kernel, k: usize, with_panel: bool) -> Result<Self, CpuError> {
        Ok(Worker {
            row: zeroed(k)?,
            strip: Strip::new(kernel, k)?,
            panel: zeroed(if with_panel { gemm::panel_len(k) } else { 0 })?,
            tile: Tile::zero(),
        })
    }

    /// Computes tile `number` from the strip that is in place and this panel.
    fn compute(&mut self, by: &CpuCommitment, round: u32, number: u64, panel: &[u8]) {
        if let Some(tile) = by.tamper.instead(round, number) {
            self.tile = tile;
            return;
        }
        self.strip.multiply(panel, &mut self.tile);
        by.tamper.spoil(round, number, &mut self.tile);
    }

    /// Computes tile `number` from nothing but the keys.
    fn open_tile(&mut self, by: &CpuCommitment, round: u32, number: u64) {
        let (side, k) = (u64::from(by.work.side()), by.work.k as usize);
        let key = &by.keys[round as usize].entries;
        let mut panel = std::mem::take(&mut self.panel);
        self.strip.fill(key, (number / side) as u32, &mut self.row);
        gemm::fill_panel(key, (number % side) as u32, k, &mut self.row, &mut panel);
        self.compute(by, round, number, &panel);
        self.panel = panel;
    }
}

/// One tile of a round's product, from nothing but the round's keys: for whoever checks a sample long afterwards.
///
/// # Errors
/// [`CpuError::OutOfMemory`]; [`CpuError::Work`] if the size is out of range; [`CpuError::NoSuchEntry`] if there is no such
/// tile.
pub fn tile(keys: &RoundKeys, work: &Work, number: u64) -> Result<Tile, CpuError> {
    work.check()?;
    let (side, k) = (u64::from(work.side()), work.k as usize);
    let (row, col) = (tile_place(number / side), tile_place(number % side));
    if number >= work.tiles() {
        let corner = |place: u32| place.saturating_mul(super::tile::TILE as u32);
        return Err(CpuError::NoSuchEntry(Position { round: 0, row: corner(row), col: corner(col) }));
    }
    let mut worker = Worker::new(Kernel::best(), k, true)?;
    let mut panel = std::mem::take(&mut worker.panel);
    worker.strip.fill(&keys.entries, row, &mut worker.row);
    gemm::fill_panel(&keys.entries, col, k, &mut worker.row, &mut panel);
    worker.strip.multiply(&panel, &mut worker.tile);
    Ok(worker.tile)
}

fn tile_place(place: u64) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

fn zeroed<T: Clone + Default>(length: usize) -> Result<Vec<T>, CpuError> {
    Ok(filled(length, T::default())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hotkey};

    fn challenge(n: u32, k: u32, rounds: u32) -> Challenge {
        let work = Work::new(n, k, rounds).unwrap();
        Challenge { nonce: [9; 32], epoch: 3, hotkey: Hotkey([4; 32]), device: DeviceId::cpu(0), work }
    }

    static GO: AtomicBool = AtomicBool::new(false);

    #[test]
    fn roots_do_not_depend_on_kernel_or_threads() {
        let challenge = challenge(128, 64, 3);
        let expected = commit_with(&challenge, 1, Kernel::scalar(), &GO).unwrap();
        for threads in [1, 2, 3, 16] {
            let made = commit(&challenge, threads, &GO).unwrap();
            assert_eq!(made.roots(), expected.roots(), "{threads} threads");
        }
    }

    #[test]
    fn openings_do_not_depend_on_threads() {
        let challenge = challenge(64, 64, 2);
        let positions: Vec<Position> =
            (0..10).map(|i| Position { round: i % 2, row: 6 * i, col: 63 - 5 * i }).collect();
        let one = commit(&challenge, 1, &GO).unwrap().open(&positions, &GO).unwrap();
        assert_eq!(one.len(), 10 * challenge.work.opening_len());
        assert_eq!(commit(&challenge, 4, &GO).unwrap().open(&positions, &GO).unwrap(), one);
    }

    #[test]
    fn a_single_tile_is_the_one_that_was_committed_to() {
        let challenge = challenge(64, 128, 2);
        let made = commit(&challenge, 1, &GO).unwrap();
        let position = Position { round: 1, row: 40, col: 3 };
        let opening = made.open(&[position], &GO).unwrap();
        let number = position.tile_index(&challenge.work);
        let alone = tile(&made.keys[1], &challenge.work, number).unwrap();
        assert_eq!(alone.to_bytes()[..], opening[..super::super::tile::TILE_BYTES]);
        assert!(matches!(tile(&made.keys[1], &challenge.work, 4), Err(CpuError::NoSuchEntry(_))));
    }

    #[test]
    fn a_raised_flag_ends_commit_and_open() {
        let raised = AtomicBool::new(true);
        let challenge = challenge(64, 64, 1);
        assert_eq!(commit(&challenge, 2, &raised).err(), Some(CpuError::Cancelled));
        let made = commit(&challenge, 1, &GO).unwrap();
        let positions = [Position { round: 0, row: 0, col: 0 }];
        assert_eq!(made.open(&positions, &raised).err(), Some(CpuError::Cancelled));
    }

    #[test]
    fn positions_outside_the_work_are_refused() {
        let made = commit(&challenge(32, 64, 1), 1, &GO).unwrap();
        for outside in [(1, 0, 0), (0, 32, 0), (0, 0, 32), (u32::MAX, u32::MAX, u32::MAX)] {
            let position = Position { round: outside.0, row: outside.1, col: outside.2 };
            assert_eq!(made.open(&[position], &GO).err(), Some(CpuError::NoSuchEntry(position)));
        }
    }

    #[test]
    fn work_that_was_never_checked_is_refused() {
        let mut bad = challenge(32, 64, 1);
        bad.work.n = 31;
        assert!(matches!(commit(&bad, 1, &GO).err(), Some(CpuError::Work(_))));
    }
}
