//! The backend for processors: fills memory, scans it when the first nonce is there, and opens blocks of the scans.
//!
//! Memory is cut into chunks of 1,024 blocks, which are shared out among scoped threads; those end before the call
//! returns, and `cancel` is looked at for every block and chunk. Of each scan only the nodes above its chunks are kept
//! (32 bytes for 1 MiB); an opening reads its chunk again.

use std::sync::atomic::{AtomicBool, Ordering};

use super::block::{self, Words};
use super::keys::{self, ScanKeys, ScanNonce};
use super::scan::{Group, OTHERS_BYTES, PADDING};
use super::size::{Challenge, GROUP, Position, Size};
use crate::ids::Hash32;
use crate::proof::gemm::Kernel;
use crate::proof::merkle::Tree;
use crate::proof::work::Root;
use crate::proof::workers::{self, MAX_THREADS, filled, reserved, share_out};

/// Leaves of a chunk, where the tree has as many.
const CHUNK_LEAVES: u64 = 256;
/// Blocks of a chunk: 1 MiB.
const CHUNK_BLOCKS: u64 = CHUNK_LEAVES * GROUP as u64;

/// Why memory is not filled, scanned or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The cancel flag was raised.
    #[error("cancelled")]
    Cancelled,
    /// Memory could not be had.
    #[error("out of memory: {bytes} more bytes could not be had")]
    OutOfMemory {
        /// Bytes that were asked for.
        bytes: usize,
    },
    /// The challenge needs more than it may have.
    #[error("the challenge needs {needed} bytes of memory, at most {limit} are allowed")]
    OverLimit {
        /// Bytes needed, by [`memory_bytes`].
        needed: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// A position to open is not among the scans' blocks.
    #[error("no block at scan {}, block {}", .0.scan, .0.block)]
    NoSuchBlock(Position),
}

impl From<workers::Cancelled> for MemoryError {
    fn from(_: workers::Cancelled) -> Self {
        MemoryError::Cancelled
    }
}

impl From<workers::OutOfMemory> for MemoryError {
    fn from(error: workers::OutOfMemory) -> Self {
        MemoryError::OutOfMemory { bytes: error.bytes }
    }
}

/// Bytes that a proof of this size needs at most: the blocks, 32 bytes for each chunk and scan and for one scan's tree,
/// what the chunks are kept in, and 64 MiB for the process, its stacks and what its threads work on.
pub fn memory_bytes(size: &Size) -> u64 {
    let chunks = size.leaves().div_ceil(CHUNK_LEAVES);
    let nodes = chunks * 32 * (u64::from(size.scans()) + 2);
    size.bytes() + nodes + chunks * size_of::<Vec<Words>>() as u64 + (64 << 20)
}

/// Filled memory: the prover is ready.
pub struct Filled {
    size: Size,
    chunks: Vec<Vec<Words>>,
    threads: usize,
    kernel: Kernel,
}

/// Memory with its scans done, ready to be opened.
pub struct Scanned {
    filled: Filled,
    scans: Scans,
}

/// What is kept of the scans of a memory.
pub struct Scans {
    nonces: Vec<ScanNonce>,
    /// Of each scan, the node above each chunk.
    tops: Vec<Vec<Hash32>>,
    roots: Vec<Root>,
}

/// Fills memory with the challenge's blocks, with at most `threads` threads (at least one).
///
/// # Errors
/// [`MemoryError::OverLimit`] before anything is allocated, if [`memory_bytes`] is above `limit_bytes`;
/// [`MemoryError::OutOfMemory`]; [`MemoryError::Cancelled`] soon after `cancel` was raised.
pub fn fill(
    challenge: &Challenge,
    threads: usize,
    limit_bytes: u64,
    cancel: &AtomicBool,
) -> Result<Filled, MemoryError> {
    fill_with(challenge, threads, limit_bytes, Kernel::best(), cancel)
}

/// [`fill`] with a kernel of choice, for measurements and tests.
///
/// # Errors
/// As [`fill`].
pub fn fill_with(
    challenge: &Challenge,
    threads: usize,
    limit_bytes: u64,
    kernel: Kernel,
    cancel: &AtomicBool,
) -> Result<Filled, MemoryError> {
    let size = challenge.size;
    let needed = memory_bytes(&size);
    if needed > limit_bytes {
        return Err(MemoryError::OverLimit { needed, limit: limit_bytes });
    }
    let threads = threads.clamp(1, MAX_THREADS);
    let count = usize::try_from(size.blocks().div_ceil(CHUNK_BLOCKS)).unwrap_or(usize::MAX);
    let mut chunks: Vec<Vec<Words>> = filled(count, Vec::new())?;
    let key = keys::fill_key(challenge);
    share_out(vec![(); threads.min(count)], (0u64..).zip(&mut chunks), cancel, |(), (number, chunk)| {
        let first = number * CHUNK_BLOCKS;
        let end = size.blocks().min(first + CHUNK_BLOCKS);
        // Where there is no memory the chunk stays empty, which is seen below.
        let Ok(mut blocks) = reserved((end - first) as usize) else { return };
        for index in first..end {
            if cancel.load(Ordering::Relaxed) {
                return;
            }
            // Below 2³², as all blocks of a size are.
            blocks.push(block::fill(kernel, &key, index as u32, size.iterations()));
        }
        *chunk = blocks;
    })?;
    if chunks.iter().any(Vec::is_empty) {
        return Err(MemoryError::OutOfMemory { bytes: CHUNK_BLOCKS as usize * size_of::<Words>() });
    }
    Ok(Filled { size, chunks, threads, kernel })
}

impl Filled {
    /// Does all scans, the first with `nonce_0`, each later one with the nonce that the root before it gives.
    ///
    /// # Errors
    /// [`MemoryError::Cancelled`] soon after `cancel` was raised; [`MemoryError::OutOfMemory`].
    pub fn scan(self, nonce_0: ScanNonce, cancel: &AtomicBool) -> Result<Scanned, MemoryError> {
        let scans = self.scans(nonce_0, cancel)?;
        Ok(Scanned { filled: self, scans })
    }

    /// [`Filled::scan`], with the memory left to be scanned again.
    ///
    /// # Errors
    /// As [`Filled::scan`].
    pub fn scans(&self, nonce_0: ScanNonce, cancel: &AtomicBool) -> Result<Scans, MemoryError> {
        let scans = self.size.scans() as usize;
        let (mut nonces, mut tops, mut roots) =
            (Vec::with_capacity(scans), Vec::with_capacity(scans), Vec::with_capacity(scans));
        let mut nonce = nonce_0;
        for _ in 0..scans {
            let keys = nonce.keys();
            let top = self.top(&keys, cancel)?;
            let root = Tree::build(&keys.node, &top).root();
            nonces.push(nonce);
            nonce = nonce.next(&root);
            tops.push(top);
            roots.push(root);
        }
        Ok(Scans { nonces, tops, roots })
    }

    /// The size that was asked for.
    pub fn size(&self) -> Size {
        self.size
    }

    /// For each position in these scans of this memory, in the order asked, the digests of the group's three other blocks
    /// and the path.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchBlock`] for a position outside, [`MemoryError::Cancelled`], [`MemoryError::OutOfMemory`].
    pub fn open(&self, scans: &Scans, positions: &[Position], cancel: &AtomicBool) -> Result<Vec<u8>, MemoryError> {
        let size = &self.size;
        if let Some(outside) = positions.iter().find(|p| !p.is_within(size)) {
            return Err(MemoryError::NoSuchBlock(*outside));
        }
        let one = size.opening_len();
        let mut out = workers::filled(positions.len().saturating_mul(one), 0u8)?;
        let openings = positions.iter().zip(out.chunks_exact_mut(one));
        share_out(self.workers(positions.len()), openings, cancel, |(), (position, opening)| {
            let scan = position.scan as usize;
            let keys = scans.nonces[scan].keys();
            let number = position.block as usize / CHUNK_BLOCKS as usize;
            let chunk = &self.chunks[number];
            let leaf = position.leaf() % CHUNK_LEAVES;
            let group = &chunk[GROUP * leaf as usize..][..GROUP];
            let others = Group::of(self.kernel, &keys, group).others(position.within_group());
            let leaves = self.leaves(&keys, chunk);
            let below = Tree::build(&keys.node, &leaves).path(leaf);
            let above = Tree::build(&keys.node, &scans.tops[scan]).path(number as u64);
            opening[..OTHERS_BYTES].copy_from_slice(&others);
            let siblings = below.iter().chain(&above);
            for (slot, sibling) in opening[OTHERS_BYTES..].chunks_exact_mut(32).zip(siblings) {
                slot.copy_from_slice(&sibling.0);
            }
        })?;
        Ok(out)
    }

    /// One scan: the node above each chunk, padding included.
    fn top(&self, keys: &ScanKeys, cancel: &AtomicBool) -> Result<Vec<Hash32>, MemoryError> {
        let unused = Tree::build(&keys.node, &vec![PADDING; self.chunk_leaves()]).root();
        let count = self.size.leaves().div_ceil(CHUNK_LEAVES);
        let mut top = filled(usize::try_from(count).unwrap_or(usize::MAX), unused)?;
        share_out(self.workers(self.chunks.len()), self.chunks.iter().zip(&mut top), cancel, |(), (chunk, node)| {
            *node = Tree::build(&keys.node, &self.leaves(keys, chunk)).root();
        })?;
        Ok(top)
    }

    /// The leaves of one chunk, padding included.
    fn leaves(&self, keys: &ScanKeys, chunk: &[Words]) -> Vec<Hash32> {
        let mut leaves = Vec::with_capacity(self.chunk_leaves());
        leaves.extend(chunk.chunks_exact(GROUP).map(|blocks| Group::of(self.kernel, keys, blocks).leaf(keys)));
        leaves.resize(self.chunk_leaves(), PADDING);
        leaves
    }

    /// Leaves of a chunk: all of a tree that is smaller.
    fn chunk_leaves(&self) -> usize {
        self.size.leaves().min(CHUNK_LEAVES) as usize
    }

    fn workers(&self, items: usize) -> Vec<()> {
        vec![(); self.threads.min(items).max(1)]
    }
}

impl Scans {
    /// One root for each scan.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }
}

impl Scanned {
    /// One root for each scan.
    pub fn roots(&self) -> &[Root] {
        self.scans.roots()
    }

    /// See [`Filled::open`].
    ///
    /// # Errors
    /// As [`Filled::open`].
    pub fn open(&self, positions: &[Position], cancel: &AtomicBool) -> Result<Vec<u8>, MemoryError> {
        self.filled.open(&self.scans, positions, cancel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hotkey};
    use crate::proof::memory::{sample_positions, verifier};

    static GO: AtomicBool = AtomicBool::new(false);
    const NONCE: ScanNonce = ScanNonce([9; 32]);

    fn challenge(blocks: u64, iterations: u32, scans: u32) -> Challenge {
        let size = Size::new(blocks, iterations, scans).unwrap();
        Challenge { nonce: [4; 32], epoch: 3, hotkey: Hotkey([4; 32]), device: DeviceId::cpu(0), size }
    }

    #[test]
    fn roots_and_openings_do_not_depend_on_kernel_or_threads() {
        // Three chunks, the last one not whole, and padding to four.
        let challenge = challenge(2 * CHUNK_BLOCKS + 20, 1, 2);
        let positions = sample_positions(&challenge.size, 20, &[1; 32]);
        let answer = |threads, kernel| {
            let filled = fill_with(&challenge, threads, u64::MAX, kernel, &GO).unwrap();
            let scanned = filled.scan(NONCE, &GO).unwrap();
            (scanned.roots().to_vec(), scanned.open(&positions, &GO).unwrap())
        };
        let expected = answer(1, Kernel::scalar());
        for threads in [1, 2, 16] {
            assert_eq!(answer(threads, Kernel::best()), expected, "{threads} threads");
        }
    }

    #[test]
    fn every_block_of_small_memories_opens_to_the_root() {
        for blocks in [4, 8, 12, 16, 36, 1024, 1028] {
            let challenge = challenge(blocks, 1, 1);
            let scanned = fill(&challenge, 1, u64::MAX, &GO).unwrap().scan(NONCE, &GO).unwrap();
            let all: Vec<Position> = (0..blocks as u32).map(|block| Position { scan: 0, block }).collect();
            let asked = if blocks > 36 { &all[blocks as usize - 40..] } else { &all };
            let openings = scanned.open(asked, &GO).unwrap();
            let checked = verifier::check_openings(&challenge, &NONCE, scanned.roots(), asked, &openings);
            assert_eq!(checked.map(|c| c.samples as usize), Ok(asked.len()), "{blocks} blocks");
        }
    }

    #[test]
    fn the_tree_over_chunks_is_the_tree_over_all_leaves() {
        let challenge = challenge(CHUNK_BLOCKS + 12, 1, 1);
        let filled = fill(&challenge, 1, u64::MAX, &GO).unwrap();
        let keys = NONCE.keys();
        let blocks: Vec<Words> = filled.chunks.concat();
        let mut leaves: Vec<Hash32> =
            blocks.chunks_exact(4).map(|four| Group::of(Kernel::scalar(), &keys, four).leaf(&keys)).collect();
        leaves.resize(512, Hash32([0; 32]));
        let root = Tree::build(&keys.node, &leaves).root();
        assert_eq!(filled.scan(NONCE, &GO).unwrap().roots(), [root]);
    }

    #[test]
    fn more_than_the_limit_is_refused_with_both_numbers_before_anything_is_allocated() {
        let largest = challenge(1 << 32, 16_384, 4096);
        let needed = memory_bytes(&largest.size);
        assert!(needed > 1 << 42);
        let refused = fill(&largest, 1, 1 << 30, &GO).err();
        assert_eq!(refused, Some(MemoryError::OverLimit { needed, limit: 1 << 30 }));
        let small = challenge(16, 1, 1);
        assert_eq!(memory_bytes(&small.size), 16 * 1024 + 3 * 32 + 24 + (64 << 20));
        assert!(fill(&small, 1, memory_bytes(&small.size), &GO).is_ok());
    }

    #[test]
    fn a_raised_flag_ends_fill_scan_and_open() {
        let raised = AtomicBool::new(true);
        let challenge = challenge(16, 1, 1);
        assert_eq!(fill(&challenge, 2, u64::MAX, &raised).err(), Some(MemoryError::Cancelled));
        let ready = || fill(&challenge, 2, u64::MAX, &GO).unwrap();
        assert_eq!(ready().scan(NONCE, &raised).err(), Some(MemoryError::Cancelled));
        let scanned = ready().scan(NONCE, &GO).unwrap();
        assert_eq!(scanned.open(&[Position { scan: 0, block: 0 }], &raised), Err(MemoryError::Cancelled));
    }

    #[test]
    fn positions_outside_are_refused() {
        let scanned = fill(&challenge(16, 1, 1), 1, u64::MAX, &GO).unwrap().scan(NONCE, &GO).unwrap();
        for (scan, block) in [(1, 0), (0, 16), (u32::MAX, u32::MAX)] {
            let outside = Position { scan, block };
            assert_eq!(scanned.open(&[outside], &GO), Err(MemoryError::NoSuchBlock(outside)));
        }
        assert_eq!(scanned.open(&[], &GO), Ok(Vec::new()));
    }
}
