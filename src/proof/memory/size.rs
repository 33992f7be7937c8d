//! What is asked of a prover of memory: the size of fill and scans, the challenge, and positions in the scans.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Epoch, Hotkey};

/// Bytes of one block.
pub const BLOCK_BYTES: u64 = 1024;
/// Blocks whose digests are hashed together, into one leaf.
pub const GROUP: usize = 4;
/// Fewest and most blocks. The index of a block is 32 bits wide: at most 4 TiB.
pub const BLOCKS_RANGE: (u64, u64) = (4, 1 << 32);
/// Fewest and most iterations of the fill: a verifier of 66 blocks of the most needs a tenth of a second.
pub const ITERATIONS_RANGE: (u32, u32) = (1, 16_384);
/// Fewest and most scans: the roots of the most are 128 KiB.
pub const SCANS_RANGE: (u32, u32) = (1, 4096);

/// Why a size of memory is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// Too few or too many blocks, or no whole groups of four.
    #[error("blocks is {value}, expected a multiple of 4 from {} to {}", BLOCKS_RANGE.0, BLOCKS_RANGE.1)]
    Blocks {
        /// The value given.
        value: u64,
    },
    /// Too few or too many iterations, or no power of two.
    #[error("iterations is {value}, expected a power of two from {} to {}", ITERATIONS_RANGE.0, ITERATIONS_RANGE.1)]
    Iterations {
        /// The value given.
        value: u32,
    },
    /// Too few or too many scans.
    #[error("scans is {value}, expected {} to {}", SCANS_RANGE.0, SCANS_RANGE.1)]
    Scans {
        /// The value given.
        value: u32,
    },
}

/// The size of a memory proof: `N` blocks of 1 KiB, each made in `T` iterations, read in `S` scans. Always in range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "UncheckedSize")]
pub struct Size {
    blocks: u64,
    iterations: u32,
    scans: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedSize {
    blocks: u64,
    iterations: u32,
    scans: u32,
}

impl TryFrom<UncheckedSize> for Size {
    type Error = SizeError;
    fn try_from(size: UncheckedSize) -> Result<Self, SizeError> {
        Size::new(size.blocks, size.iterations, size.scans)
    }
}

impl Size {
    /// A memory of `blocks` (`N`), each of `iterations` (`T`), with `scans` (`S`).
    ///
    /// # Errors
    /// If `blocks` is no multiple of 4 from 4 to 2³², `iterations` no power of two from 1 to 16,384, or `scans` not from
    /// 1 to 4,096.
    pub fn new(blocks: u64, iterations: u32, scans: u32) -> Result<Self, SizeError> {
        if !(BLOCKS_RANGE.0..=BLOCKS_RANGE.1).contains(&blocks) || !blocks.is_multiple_of(GROUP as u64) {
            return Err(SizeError::Blocks { value: blocks });
        }
        if !(ITERATIONS_RANGE.0..=ITERATIONS_RANGE.1).contains(&iterations) || !iterations.is_power_of_two() {
            return Err(SizeError::Iterations { value: iterations });
        }
        if !(SCANS_RANGE.0..=SCANS_RANGE.1).contains(&scans) {
            return Err(SizeError::Scans { value: scans });
        }
        Ok(Size { blocks, iterations, scans })
    }

    /// `N`: blocks of 1 KiB, a multiple of 4 from 4 to 2³².
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// `T`: iterations of each block's fill, a power of two from 1 to 16,384.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// `S`: scans, 1 to 4,096.
    pub fn scans(&self) -> u32 {
        self.scans
    }

    /// Bytes that are filled and that each scan reads: `N·1 KiB`, at most 4 TiB.
    pub fn bytes(&self) -> u64 {
        self.blocks * BLOCK_BYTES
    }

    /// 32-bit operations of fill and scans: 16 columns of `T` double rounds (96 operations each) for each block, a product and
    /// a sum for each word of each scan. At most 1.2·10¹⁷.
    pub fn operations(&self) -> u64 {
        let fill = 16 * 96 * u64::from(self.iterations);
        let scans = 2 * (BLOCK_BYTES / 4) * u64::from(self.scans);
        self.blocks * (fill + scans)
    }

    /// Leaves of a scan's tree, padding included: `N/4`, rounded up to a power of two.
    pub fn leaves(&self) -> u64 {
        (self.blocks / GROUP as u64).next_power_of_two()
    }

    /// Levels of a scan's tree above its leaves: at most 30.
    pub fn depth(&self) -> u32 {
        self.leaves().ilog2()
    }

    /// Bytes of one opening: the digests of the group's three other blocks, and the path.
    pub fn opening_len(&self) -> usize {
        super::scan::OTHERS_BYTES + 32 * self.depth() as usize
    }
}

/// One device's challenge: everything that the content of its memory depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Challenge {
    /// 32 bytes from the operating system's generator, fresh for each challenge, secret until sent. Not the nonce of the
    /// first scan, which is drawn when the memory is filled.
    #[serde(with = "hex::serde")]
    pub nonce: [u8; 32],
    /// The epoch of the proof.
    pub epoch: Epoch,
    /// The miner's public key.
    pub hotkey: Hotkey,
    /// The device whose memory it is.
    pub device: DeviceId,
    /// How much, how slow, how often.
    pub size: Size,
}

/// One block in one scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The scan, from 0.
    pub scan: u32,
    /// The block, from 0.
    pub block: u32,
}

impl Position {
    /// Whether there is such a block and such a scan.
    pub fn is_within(&self, size: &Size) -> bool {
        self.scan < size.scans && u64::from(self.block) < size.blocks
    }

    /// The leaf that the block's digest goes into.
    pub fn leaf(&self) -> u64 {
        u64::from(self.block) / GROUP as u64
    }

    /// The block's place among the four of its leaf.
    pub fn within_group(&self) -> usize {
        self.block as usize % GROUP
    }
}

/// Context of [`sample_positions`].
const POSITIONS: &str = "compute-proof/1 memory positions";

/// Draws `q` positions, each uniform over all blocks of all scans, with replacement: the same ones for the same seed.
///
/// The words are the output of BLAKE3's key derivation with the context `compute-proof/1 memory positions` over the seed,
/// read without end as little-endian `u32`. A position takes a scan, then a block, each `word mod m` of the first word
/// below the largest multiple of `m` that is at most 2³², with `m` the number of scans, then of blocks.
///
/// Draw the seed only after the roots have been received, where the prover cannot predict it. A prover that has a share ε
/// of digests wrong, in any pattern, passes with probability `(1−ε)^q`.
pub fn sample_positions(size: &Size, q: usize, seed: &[u8; 32]) -> Vec<Position> {
    let mut stream = blake3::Hasher::new_derive_key(POSITIONS).update(seed).finalize_xof();
    let mut below = move |bound: u64| {
        let even = (1u64 << 32) / bound * bound;
        loop {
            let mut bytes = [0u8; 4];
            stream.fill(&mut bytes);
            let word = u32::from_le_bytes(bytes);
            if u64::from(word) < even {
                break (u64::from(word) % bound) as u32; // at most the word itself
            }
        }
    };
    (0..q).map(|_| Position { scan: below(size.scans.into()), block: below(size.blocks) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_out_of_range_are_refused_with_the_value_and_the_range() {
        let say = |n, t, s| Size::new(n, t, s).unwrap_err().to_string();
        for blocks in [0, 3, 6, (1 << 32) + 4, u64::MAX] {
            assert_eq!(say(blocks, 1, 1), format!("blocks is {blocks}, expected a multiple of 4 from 4 to 4294967296"));
        }
        for iterations in [0, 3, 32_768, u32::MAX] {
            let expected = format!("iterations is {iterations}, expected a power of two from 1 to 16384");
            assert_eq!(say(4, iterations, 1), expected);
        }
        for scans in [0, 4097, u32::MAX] {
            assert_eq!(say(4, 1, scans), format!("scans is {scans}, expected 1 to 4096"));
        }
    }

    #[test]
    fn json_with_a_wrong_size_is_refused_when_it_is_read() {
        let read = serde_json::from_str::<Size>;
        assert_eq!(read(r#"{"blocks":16,"iterations":8,"scans":2}"#).unwrap(), Size::new(16, 8, 2).unwrap());
        for (text, told) in [
            (r#"{"blocks":18,"iterations":8,"scans":2}"#, "blocks is 18"),
            (r#"{"blocks":16,"iterations":3,"scans":2}"#, "iterations is 3"),
            (r#"{"blocks":16,"iterations":8,"scans":0}"#, "scans is 0"),
            (r#"{"blocks":16,"iterations":8,"scans":2,"more":1}"#, "unknown field `more`"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with(told), "{error}");
        }
    }

    #[test]
    fn a_challenge_reads_back_from_its_json() {
        let size = Size::new(16, 8, 2).unwrap();
        let challenge = Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId::cpu(1), size };
        let text = serde_json::to_string(&challenge).unwrap();
        assert!(text.contains(&"01".repeat(32)), "{text}");
        assert_eq!(serde_json::from_str::<Challenge>(&text).unwrap(), challenge);
    }

    #[test]
    fn derived_sizes_follow_the_definitions() {
        let sizes = |n| {
            let size = Size::new(n, 8, 2).unwrap();
            (size.leaves(), size.depth(), size.opening_len())
        };
        assert_eq!(sizes(4), (1, 0, 48));
        assert_eq!(sizes(16), (4, 2, 48 + 64));
        assert_eq!(sizes(20), (8, 3, 48 + 96));
        assert_eq!(sizes(1 << 32), (1 << 30, 30, 48 + 960));
        assert_eq!(Size::new(1 << 32, 1, 1).unwrap().bytes(), 1 << 42);
        assert_eq!(Size::new(16, 8, 2).unwrap().operations(), 16 * (16 * 8 * 8 * 12 + 2 * 2 * 256));
        assert_eq!(Size::new(1 << 32, 16_384, 4096).unwrap().operations(), 117_093_590_311_632_896);
    }

    proptest! {
        #[test]
        fn no_size_makes_anything_overflow(blocks in any::<u64>(), iterations in any::<u32>(), scans in any::<u32>()) {
            if let Ok(size) = Size::new(blocks & !3, iterations, scans) {
                prop_assert!(size.bytes() >= 4096 && size.opening_len() <= 1008);
                prop_assert!(sample_positions(&size, 4, &[1; 32]).iter().all(|p| p.is_within(&size)));
            }
        }
    }

    #[test]
    fn positions_cover_all_scans_and_blocks_evenly() {
        let size = Size::new(60, 1, 7).unwrap();
        let (mut blocks, mut scans) = ([0u32; 60], [0u32; 7]);
        for p in sample_positions(&size, 60_000, &[1; 32]) {
            blocks[p.block as usize] += 1;
            scans[p.scan as usize] += 1;
        }
        // 1,000 expected of each block, standard deviation 31: five of them on each side. 8,571 of each scan, 86.
        assert!(blocks.iter().all(|c| (840..1160).contains(c)), "{blocks:?}");
        assert!(scans.iter().all(|c| (8140..9000).contains(c)), "{scans:?}");
    }

    #[test]
    fn the_definition_redone_by_hand_gives_the_same_positions() {
        // 2³² = 3,221,225,472 + 1,073,741,824: a quarter of the words for blocks is passed over. No word for one scan
        // of a power of two is.
        let size = Size::new(3 << 30, 1, 64).unwrap();
        let mut stream = vec![0u8; 8192];
        let mut hasher = blake3::Hasher::new_derive_key("compute-proof/1 memory positions");
        hasher.update(&[9; 32]).finalize_xof().fill(&mut stream);
        let mut words = stream.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap()));
        let mut passed_over = 0;
        for position in sample_positions(&size, 66, &[9; 32]) {
            assert_eq!(position.scan, words.next().unwrap() & 63);
            let block = words.find(|w| {
                passed_over += u32::from(*w >= 3 << 30);
                *w < 3 << 30
            });
            assert_eq!(Some(position.block), block);
        }
        assert!(passed_over > 0);
        let largest = Size::new(1 << 32, 1, 1).unwrap();
        assert!(sample_positions(&largest, 1000, &[1; 32]).iter().any(|p| p.block > 3 << 30));
    }
}
