//! An adversary, for tests and demonstrations only: provers that hold less memory than they were asked to, or lie about it.
//!
//! It shares blocks, digests and hashes with the honest backend, but not its chunks: it keeps the openings of all
//! positions, which only small memories allow. Without a forgery it is that backend's independent twin.

use std::sync::atomic::{AtomicBool, Ordering};

use super::block::{self, DIGEST_BYTES, Words};
use super::cpu::MemoryError;
use super::keys::{self, ScanKeys, ScanNonce};
use super::scan::{Group, OTHERS_BYTES, PADDING};
use super::size::{Challenge, GROUP, Position, Size};
use crate::ids::Hash32;
use crate::proof::gemm::Kernel;
use crate::proof::merkle::Tree;
use crate::proof::work::Root;
use crate::verdict::FailReason;

/// How to cheat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Forgery {
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
    /// Fills and scans four blocks fewer than asked: saves 4 in `N`.
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
    /// Sends the roots, and never an opening.
    WithholdOpenings,
    /// Sends openings that end one byte early.
    ShortOpenings,
    /// Sends openings of the right length, full of noise.
    Garbage,
}

impl Forgery {
    /// The metric-safe name.
    pub fn label(self) -> &'static str {
        match self {
            Forgery::Honest => "honest",
            Forgery::GuessedDigests { .. } => "guessed_digests",
            Forgery::HalfTheMemory => "half_the_memory",
            Forgery::MadeUpScan => "made_up_scan",
            Forgery::ThirtyOneBits => "thirty_one_bits",
            Forgery::FewerIterations => "fewer_iterations",
            Forgery::FewerBlocks => "fewer_blocks",
            Forgery::WrongSeed => "wrong_seed",
            Forgery::WrongNonce => "wrong_nonce",
            Forgery::OneScanForAll => "one_scan_for_all",
            Forgery::MissingScan => "missing_scan",
            Forgery::ForgedPath => "forged_path",
            Forgery::OpenedOtherScan => "opened_other_scan",
            Forgery::ReversedOpenings => "reversed_openings",
            Forgery::OneBlockForAll => "one_block_for_all",
            Forgery::WithholdOpenings => "withhold_openings",
            Forgery::ShortOpenings => "short_openings",
            Forgery::Garbage => "garbage",
        }
    }

    /// The reason a caught forgery fails for.
    pub fn expected(self) -> FailReason {
        match self {
            Forgery::WithholdOpenings => FailReason::OpeningWithheld,
            Forgery::MissingScan => FailReason::WrongScans,
            Forgery::ShortOpenings => FailReason::WrongLength,
            _ => FailReason::MemoryMismatch,
        }
    }

    /// The probability that `q` samples catch it, `q ≥ 1`: 1 for those that are certain.
    pub fn catch_probability(self, size: &Size, q: u32) -> f64 {
        let missed = |share: f64| (1.0 - share).powf(f64::from(q));
        let places = size.blocks() as f64 * f64::from(size.scans());
        match self {
            Forgery::Honest => 0.0,
            Forgery::GuessedDigests { ratio } => 1.0 - missed(ratio),
            Forgery::HalfTheMemory => 1.0 - missed(0.5),
            // Where that makes the tree no smaller, and with it all openings too short.
            Forgery::FewerBlocks if (size.blocks() / GROUP as u64 - 1).next_power_of_two() == size.leaves() => {
                1.0 - missed(GROUP as f64 / size.blocks() as f64)
            }
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

/// The memory of a prover that cheats.
pub struct ForgedMemory {
    forgery: Forgery,
    challenge: Challenge,
    blocks: Vec<Words>,
}

impl ForgedMemory {
    /// Fills, in the forgery's way.
    ///
    /// # Errors
    /// [`MemoryError::Cancelled`] soon after `cancel` was raised.
    pub fn fill(forgery: Forgery, challenge: &Challenge, cancel: &AtomicBool) -> Result<Self, MemoryError> {
        let mut asked = challenge.clone();
        let (mut count, mut iterations) = (challenge.size.blocks(), challenge.size.iterations());
        match forgery {
            Forgery::WrongSeed => asked.nonce[0] ^= 1,
            Forgery::FewerIterations => iterations -= 1,
            Forgery::FewerBlocks => count -= GROUP as u64,
            _ => {}
        }
        let key = keys::fill_key(&asked);
        let block = |index| {
            going(cancel)?;
            let mut words = block::fill(Kernel::best(), &key, index, iterations);
            if forgery == Forgery::ThirtyOneBits {
                words.0.iter_mut().for_each(|word| *word &= u32::MAX >> 1);
            }
            Ok(words)
        };
        let blocks = (0..=u32::MAX).zip(0..count).map(|(index, _)| block(index)).collect::<Result<_, MemoryError>>()?;
        Ok(ForgedMemory { forgery, challenge: challenge.clone(), blocks })
    }

    /// Scans, in the forgery's way.
    ///
    /// # Errors
    /// [`MemoryError::Cancelled`] soon after `cancel` was raised.
    pub fn scan(&self, nonce_0: &ScanNonce, cancel: &AtomicBool) -> Result<Forged, MemoryError> {
        let (forgery, size) = (self.forgery, self.challenge.size);
        let mut nonce = *nonce_0;
        if forgery == Forgery::WrongNonce {
            nonce.0[0] ^= 1;
        }
        let mut made = Forged { forgery, size, roots: Vec::new(), openings: Vec::new() };
        for scan in 0..size.scans() {
            going(cancel)?;
            let keys = nonce.keys();
            let groups = self.groups(scan, &keys);
            let mut leaves: Vec<Hash32> = groups.iter().map(|group| group.leaf(&keys)).collect();
            leaves.resize(size.leaves() as usize, PADDING);
            let tree = Tree::build(&keys.node, &leaves);
            let mut root = tree.root();
            if forgery == Forgery::MadeUpScan && scan + 1 == size.scans() {
                root = Hash32(noise(&self.challenge, scan, 0));
            }
            for block in 0..size.blocks() {
                let position = Position { scan, block: block as u32 }; // as all blocks of a size
                // Of blocks that were never filled it opens the last group.
                let group = groups.get(position.leaf() as usize).or(groups.last());
                let others = group.map_or([0; OTHERS_BYTES], |group| group.others(position.within_group()));
                let mut opening = others.to_vec();
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
        Ok(made)
    }

    /// The digests of one scan, in their groups; those of blocks that it does not hold are made up.
    fn groups(&self, scan: u32, keys: &ScanKeys) -> Vec<Group> {
        let missing = self.missing(scan);
        let group = |(number, four): (usize, &[Words])| {
            let mut group = Group::of(Kernel::best(), keys, four);
            for place in 0..GROUP {
                let block = GROUP * number + place;
                if missing.get(block) == Some(&true) {
                    let mut made_up = [0; DIGEST_BYTES];
                    made_up.copy_from_slice(&noise(&self.challenge, scan, block as u32)[..DIGEST_BYTES]);
                    group = Group::with_others(&made_up, place, &group.others(place));
                }
            }
            group
        };
        self.blocks.chunks_exact(GROUP).enumerate().map(group).collect()
    }

    /// Of each block, whether it is missing in this scan: the same each time.
    fn missing(&self, scan: u32) -> Vec<bool> {
        let blocks = self.challenge.size.blocks() as usize;
        let mut missing = vec![false; blocks];
        match self.forgery {
            Forgery::GuessedDigests { ratio } => {
                // Exactly this share, up to rounding: those whose noise is least.
                let share = (ratio * blocks as f64).round() as usize;
                let mut order: Vec<usize> = (0..blocks).collect();
                order.sort_by_cached_key(|block| noise(&self.challenge, scan, *block as u32));
                order.iter().take(share).for_each(|block| missing[*block] = true);
            }
            Forgery::HalfTheMemory => missing[blocks / 2..].fill(true),
            _ => {}
        }
        missing
    }
}

/// A prover that cheats, when it has answered: roots, and the opening of each position.
pub struct Forged {
    forgery: Forgery,
    size: Size,
    roots: Vec<Root>,
    /// By scan, then block.
    openings: Vec<Vec<u8>>,
}

impl Forged {
    /// The roots, in the forgery's way.
    pub fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The openings of these positions, in the forgery's way.
    pub fn open(&self, positions: &[Position]) -> Vec<u8> {
        let blocks = self.size.blocks() as usize;
        let opening = |p: &Position| {
            let (scan, block) = match self.forgery {
                Forgery::OpenedOtherScan => (p.scan.wrapping_add(1) % self.size.scans(), p.block),
                Forgery::OneBlockForAll => (p.scan, 0),
                _ => (p.scan, p.block),
            };
            let place = (scan as usize).saturating_mul(blocks).saturating_add(block as usize);
            let mut opening = self.openings.get(place).cloned().unwrap_or_default();
            if let Some(last) = opening.last_mut().filter(|_| self.forgery == Forgery::ForgedPath) {
                *last ^= 1;
            }
            opening
        };
        let mut openings: Vec<Vec<u8>> = positions.iter().map(opening).collect();
        if self.forgery == Forgery::ReversedOpenings {
            openings.reverse();
        }
        let mut bytes = openings.concat();
        match self.forgery {
            Forgery::ShortOpenings => bytes.truncate(bytes.len().saturating_sub(1)),
            Forgery::Garbage => blake3::Hasher::new().update(&bytes).finalize_xof().fill(&mut bytes),
            _ => {}
        }
        bytes
    }
}

fn going(cancel: &AtomicBool) -> Result<(), MemoryError> {
    if cancel.load(Ordering::Relaxed) { Err(MemoryError::Cancelled) } else { Ok(()) }
}

/// Bytes that depend on the arguments alone.
fn noise(challenge: &Challenge, scan: u32, block: u32) -> [u8; 32] {
    let mut hash = blake3::Hasher::new_keyed(&challenge.nonce);
    hash.update(&scan.to_le_bytes()).update(&block.to_le_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
