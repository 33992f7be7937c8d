//! An adversary, for tests only: provers that hold less memory than they were asked to, or lie about it.
//!
//! It shares blocks, digests and hashes with the honest backend, but not its chunks: it keeps the openings of all
//! positions, which only small memories allow. Without a forgery it is that backend's independent twin.

use super::block::{self, Words};
use super::keys::{self, ScanNonce};
use super::scan::{Group, PADDING};
use super::size::{Challenge, GROUP, Position, Size};
use crate::ids::Hash32;
use crate::proof::gemm::Kernel;
use crate::proof::merkle::Tree;
use crate::proof::work::Root;
use crate::verdict::FailReason;

/// How to cheat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Forgery {
    /// Nothing at all.
    Honest,
    /// Does not hold this share of the blocks, and makes their digests up, in each scan.
    GuessedDigests {
        /// Share of blocks, 0 to 1.
        ratio: f64,
    },
    /// Scans the first half of the blocks and makes up the digests of the others: 1/2, in one piece.
    HalfTheMemory,
    /// Makes up the root of the last scan instead of doing it: saves one scan in `S`.
    MadeUpScan,
    /// Keeps 31 bits of each word: saves 1/32 of the memory.
    ThirtyOneBits,
    /// Leaves the last iteration of each block out.
    FewerIterations,
    /// Fills and scans four blocks fewer than asked.
    FewerBlocks,
    /// Fills with another challenge's key, as for a replayed fill or another miner's.
    WrongSeed,
    /// Scans with another first nonce, as one that was known before.
    WrongNonce,
    /// Answers all scans with the first: what could be had if the nonces hung on nothing.
    OneScanForAll,
    /// Sends one root too few.
    MissingScan,
    /// Changes one bit of each path.
    ForgedPath,
    /// Opens each position in the scan after it.
    OpenedOtherScan,
    /// Sends the openings in the reverse order.
    ReversedOpenings,
    /// Answers every position with the first block of its scan.
    OneBlockForAll,
    /// Sends openings that end one byte early.
    ShortOpenings,
    /// Sends openings of the right length, full of noise.
    Garbage,
}

impl Forgery {
    /// The reason a caught forgery fails for.
    pub(super) fn expected(self) -> FailReason {
        match self {
            Forgery::MissingScan => FailReason::WrongScans,
            Forgery::ShortOpenings => FailReason::WrongLength,
            _ => FailReason::MemoryMismatch,
        }
    }

    /// The probability that `q` samples catch it, `q ≥ 1`: 1 for those that are certain.
    pub(super) fn catch_probability(self, size: &Size, q: u32) -> f64 {
        let missed = |share: f64| (1.0 - share).powf(f64::from(q));
        let places = size.blocks() as f64 * f64::from(size.scans());
        match self {
            Forgery::Honest => 0.0,
            Forgery::GuessedDigests { ratio } => 1.0 - missed(ratio),
            Forgery::HalfTheMemory => 1.0 - missed(0.5),
            Forgery::MadeUpScan => 1.0 - missed(1.0 / f64::from(size.scans())),
            Forgery::OneScanForAll => 1.0 - missed(1.0 - 1.0 / f64::from(size.scans())),
            // Each of four sums of bits is right by chance.
            Forgery::ThirtyOneBits => 1.0 - missed(15.0 / 16.0),
            // Lucky only if every position is the block that is opened.
            Forgery::OneBlockForAll => 1.0 - missed(1.0 - 1.0 / size.blocks() as f64),
            // Lucky only if the positions read the same backwards.
            Forgery::ReversedOpenings => 1.0 - (1.0 / places).powf(f64::from(q / 2)),
            _ => 1.0,
        }
    }
}

/// A prover that cheats, when it has answered: roots, and the opening of each position.
pub(super) struct Forged {
    forgery: Forgery,
    size: Size,
    roots: Vec<Root>,
    /// By scan, then block.
    openings: Vec<Vec<u8>>,
}

impl Forged {
    /// Fills and scans, in the forgery's way.
    pub(super) fn answer(forgery: Forgery, challenge: &Challenge, nonce_0: &ScanNonce) -> Self {
        let size = challenge.size;
        let blocks = blocks(forgery, challenge);
        let mut nonce = *nonce_0;
        if forgery == Forgery::WrongNonce {
            nonce.0[0] ^= 1;
        }
        let mut made = Forged { forgery, size, roots: Vec::new(), openings: Vec::new() };
        for scan in 0..size.scans() {
            let keys = nonce.keys();
            let groups: Vec<Group> = (0..)
                .zip(blocks.chunks_exact(GROUP))
                .map(|(number, four)| {
                    let mut group = Group::of(Kernel::best(), &keys, four);
                    for place in 0..GROUP {
                        let block = GROUP as u32 * number + place as u32;
                        if is_missing(forgery, &size, challenge, scan, block) {
                            let made_up = *noise(challenge, scan, block).first_chunk().unwrap();
                            group = Group::with_others(&made_up, place, &group.others(place));
                        }
                    }
                    group
                })
                .collect();
            let mut leaves: Vec<Hash32> = groups.iter().map(|group| group.leaf(&keys)).collect();
            leaves.resize(size.leaves() as usize, PADDING);
            let tree = Tree::build(&keys.node, &leaves);
            let mut root = tree.root();
            if forgery == Forgery::MadeUpScan && scan + 1 == size.scans() {
                root = Hash32(noise(challenge, scan, 0));
            }
            for block in 0..size.blocks() as u32 {
                let position = Position { scan, block };
                // Of blocks that were never filled it opens the last group.
                let group = groups.get(position.leaf() as usize).or(groups.last()).unwrap();
                let mut opening = group.others(position.within_group()).to_vec();
                tree.path(position.leaf()).iter().for_each(|sibling| opening.extend_from_slice(&sibling.0));
                made.openings.push(opening);
            }
            made.roots.push(root);
            if forgery != Forgery::OneScanForAll {
                nonce = nonce.next(&root);
            }
        }
        if forgery == Forgery::MissingScan {
            made.roots.pop();
        }
        made
    }

    pub(super) fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The openings of these positions, in the forgery's way.
    pub(super) fn open(&self, positions: &[Position]) -> Vec<u8> {
        let blocks = self.size.blocks() as usize;
        let opening = |p: &Position| {
            let (scan, block) = match self.forgery {
                Forgery::OpenedOtherScan => ((p.scan + 1) % self.size.scans(), p.block),
                Forgery::OneBlockForAll => (p.scan, 0),
                _ => (p.scan, p.block),
            };
            let mut opening = self.openings[scan as usize * blocks + block as usize].clone();
            if self.forgery == Forgery::ForgedPath {
                *opening.last_mut().unwrap() ^= 1;
            }
            opening
        };
        let mut openings: Vec<Vec<u8>> = positions.iter().map(opening).collect();
        if self.forgery == Forgery::ReversedOpenings {
            openings.reverse();
        }
        let mut bytes = openings.concat();
        match self.forgery {
            Forgery::ShortOpenings => bytes.truncate(bytes.len() - 1),
            Forgery::Garbage => blake3::Hasher::new().update(&bytes).finalize_xof().fill(&mut bytes),
            _ => {}
        }
        bytes
    }
}

/// The blocks that it holds.
fn blocks(forgery: Forgery, challenge: &Challenge) -> Vec<Words> {
    let size = challenge.size;
    let mut asked = challenge.clone();
    let (mut count, mut iterations) = (size.blocks(), size.iterations());
    match forgery {
        Forgery::WrongSeed => asked.nonce[0] ^= 1,
        Forgery::FewerIterations => iterations -= 1,
        Forgery::FewerBlocks => count -= GROUP as u64,
        _ => {}
    }
    let key = keys::fill_key(&asked);
    (0..count as u32)
        .map(|index| {
            let mut words = block::fill(Kernel::best(), &key, index, iterations);
            if forgery == Forgery::ThirtyOneBits {
                words.0.iter_mut().for_each(|word| *word &= u32::MAX >> 1);
            }
            words
        })
        .collect()
}

/// Whether it does not hold the block, the same way each time.
fn is_missing(forgery: Forgery, size: &Size, challenge: &Challenge, scan: u32, block: u32) -> bool {
    match forgery {
        Forgery::GuessedDigests { ratio } => {
            // Exactly this share of each scan's blocks, up to rounding: those whose noise is least.
            let missing = (ratio * size.blocks() as f64).round() as usize;
            let own = noise(challenge, scan, block);
            missing > 0
                && (0..size.blocks() as u32).filter(|other| noise(challenge, scan, *other) < own).count() < missing
        }
        Forgery::HalfTheMemory => u64::from(block) >= size.blocks() / 2,
        _ => false,
    }
}

/// Bytes that depend on the arguments alone.
fn noise(challenge: &Challenge, scan: u32, block: u32) -> [u8; 32] {
    let mut hash = blake3::Hasher::new_keyed(&challenge.nonce);
    hash.update(&scan.to_le_bytes()).update(&block.to_le_bytes());
    hash.finalize().into()
}

mod tests;
