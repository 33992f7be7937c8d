//! A memory proof on a device: fills it, does the scans, and reads back what openings need.
//!
//! The blocks lie in one piece of plain device memory, or in several where one that large cannot be had. One scan is the
//! coefficients, the leaves of all groups, and the levels above them, all on the device; the host gets the root, from which the
//! next nonce follows. Of each scan one level of the tree is kept on the device. An opening scans the part below one
//! node of that level again, and reads the group's blocks: what it sends is what the device holds.
//!
//! All that a scan uses is allocated, and a whole scan has been done under a nonce of zeros, before the memory is said to
//! be ready: nothing but the scans lies between the first nonce and the roots.

use std::sync::atomic::{AtomicBool, Ordering};

use super::CudaError;
use super::device::{Device, at, hashes, settle};
use super::kernels::{Argument, Launch};
use crate::ids::Hash32;
use crate::proof::gemm::Kernel;
use crate::proof::keystream::Matrix;
use crate::proof::memory::block::{WORDS, Words};
use crate::proof::memory::keys::{self, ScanNonce};
use crate::proof::memory::scan::{Group, OTHERS_BYTES};
use crate::proof::memory::size::{BLOCK_BYTES, GROUP};
use crate::proof::memory::{Challenge, Position, Size};
use crate::proof::merkle::Tree;
use crate::proof::work::Root;

/// Bytes of a group's blocks.
const GROUP_BYTES: u64 = GROUP as u64 * BLOCK_BYTES;
/// Bytes of a hash.
const HASH: u64 = 32;
/// Bytes of a scan's coefficients.
const COEFFICIENTS: u32 = BLOCK_BYTES as u32;
/// Device memory that is left alone: for the kernels and their stacks.
const RESERVE: u64 = 64 << 20;

/// How the work is cut up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Iterations of all blocks of one launch of the fill: some milliseconds, so that a raised flag is soon seen.
    pub(super) fill: u64,
    /// Most bytes that are kept of the trees of all scans, but for one node each.
    pub(super) kept: u64,
    /// Bytes of the smallest piece that is tried.
    pub(super) piece: u64,
}

impl Cut {
    /// For GPUs. A fill's launch takes 6 ms where 1.7·10¹³ integer operations are done in a second.
    pub(super) const GPU: Cut = Cut { fill: 1 << 26, kept: 64 << 20, piece: 64 << 20 };
}

/// Device memory that a proof of this size takes, in bytes: the blocks, a scan's tree, the level kept of each, and what is
/// left alone.
pub fn memory_bytes(size: &Size) -> u64 {
    size.bytes() + Plan::of(size, &Cut::GPU).bytes() + RESERVE
}

/// The parts of the trees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plan {
    /// Leaves of a scan, padding included.
    leaves: u64,
    /// Nodes that are kept of each scan.
    nodes: u64,
    scans: u64,
}

impl Plan {
    fn of(size: &Size, cut: &Cut) -> Plan {
        let (leaves, scans) = (size.leaves(), u64::from(size.scans()));
        let most = cut.kept / (HASH * scans);
        // The largest power of two that is at most so many, and at least one.
        let nodes = leaves.min(1 << most.max(1).ilog2());
        Plan { leaves, nodes, scans }
    }

    /// Leaves, the levels above them by turns, the kept level of each scan: in bytes.
    fn parts(&self) -> [u64; 4] {
        let level = |count: u64| HASH * count.max(1);
        [level(self.leaves), level(self.leaves / 2), level(self.leaves / 4), level(self.nodes * self.scans)]
    }

    fn bytes(&self) -> u64 {
        u64::from(COEFFICIENTS) + self.parts().iter().sum::<u64>()
    }

    /// Levels from the leaves to the nodes that are kept.
    fn kept_level(&self) -> u32 {
        self.below_a_node().ilog2()
    }

    /// Leaves below each node that is kept.
    fn below_a_node(&self) -> u64 {
        self.leaves / self.nodes
    }
}

/// Blocks in one piece of memory.
struct Piece<M> {
    /// The first group.
    first: u64,
    groups: u64,
    memory: M,
}

/// Of the scan that is under way: coefficients, leaves, the levels above by turns. Of all: the kept level.
struct Trees<M> {
    coefficients: M,
    levels: [M; 3],
    kept: M,
}

/// Filled memory of a device.
pub(super) struct Filled<D: Device> {
    // Dropped in this order: memory before its device.
    pieces: Vec<Piece<D::Memory>>,
    trees: Trees<D::Memory>,
    plan: Plan,
    size: Size,
    /// Of each scan that was done.
    nonces: Vec<ScanNonce>,
    pub(super) device: D,
}

impl<D: Device> Filled<D> {
    /// Fills the device's memory with the challenge's blocks, and does one scan to make all ready.
    pub(super) fn fill(
        mut device: D,
        challenge: &Challenge,
        cut: &Cut,
        cancel: &AtomicBool,
    ) -> Result<Self, CudaError> {
        let size = challenge.size;
        let plan = Plan::of(&size, cut);
        let free = device.free_memory()?;
        let needed = size.bytes() + plan.bytes() + RESERVE;
        if needed > free {
            return Err(CudaError::OutOfMemory { needed, free });
        }
        let [leaves, above, higher, kept] = plan.parts();
        let trees = Trees {
            coefficients: device.allocate(u64::from(COEFFICIENTS))?,
            levels: [device.allocate(leaves)?, device.allocate(above)?, device.allocate(higher)?],
            kept: device.allocate(kept)?,
        };
        let pieces = pieces(&mut device, &size, cut)?;
        let mut filled = Filled { pieces, trees, plan, size, nonces: Vec::new(), device };
        let ready = filled.fill_pieces(challenge, cut, cancel).and_then(|()| filled.scan_once(0, &ScanNonce([0; 32])));
        filled.settled(ready)?;
        Ok(filled)
    }

    fn fill_pieces(&mut self, challenge: &Challenge, cut: &Cut, cancel: &AtomicBool) -> Result<(), CudaError> {
        let key = keys::fill_key(challenge);
        let iterations = self.size.iterations();
        // Blocks of one launch: whole groups, and far below 2³².
        let most = (cut.fill / u64::from(iterations) / GROUP as u64).clamp(1, 1 << 24) * GROUP as u64;
        let mut lane = 0;
        for piece in &self.pieces {
            let (first, blocks) = (GROUP as u64 * piece.first, GROUP as u64 * piece.groups);
            let mut done = 0;
            while done < blocks {
                if cancel.load(Ordering::Relaxed) {
                    return Err(CudaError::Cancelled);
                }
                let count = most.min(blocks - done);
                // All blocks of a size are below 2³².
                let (index, into) = ((first + done) as u32, at(&piece.memory, done * BLOCK_BYTES));
                self.device.launch(lane, &Launch::fill_blocks(&key, iterations, index, count as u32, into))?;
                done += count;
                // The other lane's launch is done when that of this one begins.
                lane = 1 - lane;
                self.device.wait(lane, &mut |_| {})?;
            }
        }
        self.device.wait(1 - lane, &mut |_| {})
    }

    /// Does all scans, the first with `nonce_0`; they replace those before.
    pub(super) fn scan(&mut self, nonce_0: ScanNonce, cancel: &AtomicBool) -> Result<Vec<Root>, CudaError> {
        self.nonces.clear();
        let mut roots = Vec::with_capacity(self.size.scans() as usize);
        let mut nonce = nonce_0;
        for scan in 0..self.size.scans() {
            let done =
                if cancel.load(Ordering::Relaxed) { Err(CudaError::Cancelled) } else { self.scan_once(scan, &nonce) };
            let root = self.settled(done)?;
            self.nonces.push(nonce);
            nonce = nonce.next(&root);
            roots.push(root);
        }
        Ok(roots)
    }

    /// One scan: its root.
    fn scan_once(&mut self, scan: u32, nonce: &ScanNonce) -> Result<Root, CudaError> {
        let keys = nonce.keys();
        let Filled { pieces, trees, plan, device, .. } = self;
        let depth = plan.leaves.ilog2();
        // Where each level lies.
        let kept = HASH * plan.nodes * u64::from(scan);
        let place = |level: u32| match level {
            _ if level == plan.kept_level() => at(&trees.kept, kept),
            0 => at(&trees.levels[0], 0),
            _ => at(&trees.levels[if level % 2 == 1 { 1 } else { 2 }], 0),
        };
        weigh(device, trees, nonce)?;
        leaves(device, pieces, &trees.coefficients, &keys.leaf, (0, plan.leaves), &place(0))?;
        for level in 1..=depth {
            let count = (plan.leaves >> level) as u32; // at most 2²⁹
            device.launch(0, &Launch::hash_nodes(&keys.node, place(level - 1), count, place(level)))?;
        }
        let Argument::Memory { memory, offset } = place(depth) else { return Ok(Hash32([0; 32])) };
        Ok(hashes(device, memory, offset, 1)?[0])
    }

    /// For each position, in the order asked, the digests of the group's three other blocks and the path. Positions are
    /// of scans that were done.
    pub(super) fn open(&mut self, positions: &[Position], cancel: &AtomicBool) -> Result<Vec<u8>, CudaError> {
        let one = self.size.opening_len();
        let mut out = vec![0; positions.len() * one];
        let mut openings: Vec<_> = positions.iter().zip(out.chunks_exact_mut(one)).collect();
        openings.sort_by_key(|(position, _)| **position);
        for same in openings.chunk_by_mut(|(a, _), (b, _)| a.scan == b.scan) {
            let done = self.open_in_scan(same, cancel);
            self.settled(done)?;
        }
        Ok(out)
    }

    /// Opens positions of one scan.
    fn open_in_scan(&mut self, openings: &mut [(&Position, &mut [u8])], cancel: &AtomicBool) -> Result<(), CudaError> {
        let outside = |position: &Position| CudaError::NoSuchBlock(*position);
        let Some((first, _)) = openings.first() else { return Ok(()) };
        let scan = first.scan;
        let nonce = *self.nonces.get(scan as usize).ok_or_else(|| outside(first))?;
        let keys = nonce.keys();
        let Filled { pieces, trees, plan, size, device, .. } = self;
        let kept = HASH * plan.nodes * u64::from(scan);
        let nodes = hashes(device, &trees.kept, kept, plan.nodes)?;
        let above = Tree::build(&keys.node, &nodes);
        weigh(device, trees, &nonce)?;
        for (position, opening) in openings {
            if cancel.load(Ordering::Relaxed) {
                return Err(CudaError::Cancelled);
            }
            let (leaf, below) = (position.leaf(), plan.below_a_node());
            let node = leaf / below;
            let piece = pieces.iter().find(|piece| (piece.first..piece.first + piece.groups).contains(&leaf));
            let piece = piece.filter(|_| position.is_within(size)).ok_or_else(|| outside(position))?;
            let scratch = &trees.levels[0];
            leaves(device, pieces, &trees.coefficients, &keys.leaf, (node * below, below), &at(scratch, 0))?;
            let part = hashes(device, scratch, 0, below)?;
            let blocks = blocks(device, &piece.memory, leaf - piece.first)?;
            let group = Group::of(Kernel::best(), &keys, &blocks);
            let (others, path) = opening.split_at_mut(OTHERS_BYTES);
            others.copy_from_slice(&group.others(position.within_group()));
            let siblings = Tree::build(&keys.node, &part).path(leaf % below).into_iter().chain(above.path(node));
            for (slot, sibling) in path.chunks_exact_mut(HASH as usize).zip(siblings) {
                slot.copy_from_slice(&sibling.0);
            }
        }
        Ok(())
    }

    /// After a failure, waits until nothing is under way that uses this memory.
    fn settled<T>(&mut self, done: Result<T, CudaError>) -> Result<T, CudaError> {
        if done.is_err() {
            settle(&mut self.device);
        }
        done
    }
}

/// Memory for all blocks: in one piece, or in more where that cannot be had.
fn pieces<D: Device>(device: &mut D, size: &Size, cut: &Cut) -> Result<Vec<Piece<D::Memory>>, CudaError> {
    let total = size.bytes() / GROUP_BYTES;
    let (mut pieces, mut largest, mut first) = (Vec::new(), total, 0);
    while first < total {
        let groups = largest.min(total - first);
        match device.allocate(GROUP_BYTES * groups) {
            Ok(memory) => {
                pieces.push(Piece { first, groups, memory });
                first += groups;
            }
            Err(CudaError::OutOfMemory { free, .. }) => {
                largest = groups.div_ceil(2);
                if GROUP_BYTES * groups <= cut.piece || largest == groups {
                    // What could be had, and what is free beside it.
                    let free = free.saturating_add(GROUP_BYTES * first);
                    return Err(CudaError::OutOfMemory { needed: size.bytes(), free });
                }
            }
            Err(other) => return Err(other),
        }
    }
    Ok(pieces)
}

/// Begins the coefficients of the scan with this nonce.
fn weigh<D: Device>(device: &mut D, trees: &Trees<D::Memory>, nonce: &ScanNonce) -> Result<(), CudaError> {
    let key = nonce.coefficients_key();
    device.launch(0, &Launch::fill_rows(&key, 0, Matrix::Scan as u32, 1, COEFFICIENTS, &trees.coefficients))
}

/// Begins the leaves from number `first` on, `count` of them: of groups, and padding behind the last one.
fn leaves<D: Device>(
    device: &mut D,
    pieces: &[Piece<D::Memory>],
    coefficients: &D::Memory,
    key: &[u8; 32],
    (first, count): (u64, u64),
    into: &Argument<'_, D::Memory>,
) -> Result<(), CudaError> {
    let end = first + count;
    let last = pieces.last().map_or(0, |piece| piece.first + piece.groups);
    for piece in pieces {
        let (begin, stop) = (first.max(piece.first), end.min(piece.first + piece.groups));
        if begin >= stop {
            continue;
        }
        // The last groups of all have the padding behind them.
        let padded = if stop == last { end - begin } else { stop - begin };
        let (groups, padded) = ((stop - begin) as u32, padded as u32); // at most 2³⁰
        let blocks = at(&piece.memory, GROUP_BYTES * (begin - piece.first));
        let to = into.after(HASH * (begin - first));
        device.launch(0, &Launch::scan_groups(key, coefficients, blocks, groups, padded, to))?;
    }
    Ok(())
}

/// The blocks of one group of a piece, as the device holds them.
fn blocks<D: Device>(device: &mut D, from: &D::Memory, group: u64) -> Result<Vec<Words>, CudaError> {
    let mut blocks = Vec::with_capacity(GROUP);
    device.fetch(0, from, GROUP_BYTES * group, GROUP_BYTES as usize)?;
    device.wait(0, &mut |bytes| {
        for block in bytes.as_chunks::<{ 4 * WORDS }>().0 {
            let mut words = Words::zero();
            for (word, bytes) in words.0.iter_mut().zip(block.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            blocks.push(words);
        }
    })?;
    Ok(blocks)
}

#[cfg(test)]
mod tests;
