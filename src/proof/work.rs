//! What is asked of a prover: the work's size, the challenge, and positions in the product.

use serde::{Deserialize, Serialize};

use super::seeds::Seed;
use super::tile::{TILE, TILE_BYTES};
use crate::ids::{DeviceId, Epoch, Hash32, Hotkey};

/// The root of one round's tree of tiles: what the prover is bound by.
pub type Root = Hash32;

/// Smallest and largest `n`.
pub const N_RANGE: (u32, u32) = (32, 131_072);
/// Smallest and largest `k`.
pub const K_RANGE: (u32, u32) = (64, 65_536);
/// Fewest and most rounds.
pub const ROUNDS_RANGE: (u32, u32) = (1, 256);

/// Why a size of work is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WorkError {
    /// `n` or `k` is out of range or no power of two.
    #[error("{name} is {value}, expected a power of two from {min} to {max}")]
    Dimension {
        /// `n` or `k`.
        name: &'static str,
        /// The value given.
        value: u32,
        /// Smallest allowed.
        min: u32,
        /// Largest allowed.
        max: u32,
    },
    /// Too few or too many rounds.
    #[error("rounds is {value}, expected 1 to {max}")]
    Rounds {
        /// The value given.
        value: u32,
        /// Most allowed.
        max: u32,
    },
}

/// The size of a proof: `rounds` products of an `n×k` by a `k×n` matrix, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "UncheckedWork")]
pub struct Work {
    /// Rows of `A` and columns of `B`: a power of two, 32 to 131,072.
    pub n: u32,
    /// The inner dimension: a power of two, 64 to 65,536.
    pub k: u32,
    /// Products, each seeded by the root of the one before: 1 to 256.
    pub rounds: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedWork {
    n: u32,
    k: u32,
    rounds: u32,
}

impl TryFrom<UncheckedWork> for Work {
    type Error = WorkError;
    fn try_from(w: UncheckedWork) -> Result<Self, WorkError> {
        Work::new(w.n, w.k, w.rounds)
    }
}

impl Work {
    /// A work of this size.
    ///
    /// # Errors
    /// If a dimension is no power of two or any value is out of its range.
    pub fn new(n: u32, k: u32, rounds: u32) -> Result<Self, WorkError> {
        let work = Work { n, k, rounds };
        work.check()?;
        Ok(work)
    }

    /// Checks the ranges, for a value that was not made by [`Work::new`].
    ///
    /// # Errors
    /// As [`Work::new`].
    pub fn check(&self) -> Result<(), WorkError> {
        for (name, value, (min, max)) in [("n", self.n, N_RANGE), ("k", self.k, K_RANGE)] {
            if !(min..=max).contains(&value) || !value.is_power_of_two() {
                return Err(WorkError::Dimension { name, value, min, max });
            }
        }
        if !(ROUNDS_RANGE.0..=ROUNDS_RANGE.1).contains(&self.rounds) {
            return Err(WorkError::Rounds { value: self.rounds, max: ROUNDS_RANGE.1 });
        }
        Ok(())
    }

    /// Operations of the plain product, `2·n²·k·rounds`: what "rate" means.
    pub fn operations(&self) -> u64 {
        2 * u64::from(self.n) * u64::from(self.n) * u64::from(self.k) * u64::from(self.rounds)
    }

    /// Tiles along one side of the product.
    pub fn side(&self) -> u32 {
        self.n / TILE as u32
    }

    /// Tiles of one round: `(n/32)²`.
    pub fn tiles(&self) -> u64 {
        u64::from(self.side()) * u64::from(self.side())
    }

    /// Levels of a round's tree above its leaves: `2·log₂(n/32)`.
    pub fn depth(&self) -> u32 {
        2 * self.side().max(1).ilog2()
    }

    /// Bytes of one opening: the tile and its path.
    pub fn opening_len(&self) -> usize {
        TILE_BYTES + 32 * self.depth() as usize
    }

    /// Bytes the cpu prover needs at most with up to 16 threads: `B` of one round, the tile hashes of all rounds and one
    /// round's tree; for each thread 32 rows of `A` in 16 bits and 32 of `B` (it opens tiles with those); and 64 MiB for
    /// the process and its stacks.
    pub fn memory_bytes(&self) -> u64 {
        let (n, k) = (u64::from(self.n), u64::from(self.k));
        let hashes = 32 * self.tiles() * (u64::from(self.rounds) + 2);
        n * k + hashes + 16 * (3 * TILE as u64 + 1) * k + (64 << 20)
    }
}

/// One device's challenge: everything the seed of its first round depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Challenge {
    /// 32 bytes from the operating system's generator, fresh for each challenge, secret until sent.
    #[serde(with = "hex::serde")]
    pub nonce: [u8; 32],
    /// The epoch of the proof.
    pub epoch: Epoch,
    /// The miner's public key.
    pub hotkey: Hotkey,
    /// The device that shall do the work.
    pub device: DeviceId,
    /// The size of the work.
    pub work: Work,
}

impl Challenge {
    /// The seed of the first round.
    pub fn seed_0(&self) -> Seed {
        Seed::first(self)
    }
}

/// One entry of one round's product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The round, from 0.
    pub round: u32,
    /// The row of `C`, from 0.
    pub row: u32,
    /// The column of `C`, from 0.
    pub col: u32,
}

impl Position {
    /// Whether the work has such an entry.
    pub fn is_within(&self, work: &Work) -> bool {
        self.round < work.rounds && self.row < work.n && self.col < work.n
    }

    /// The index of the tile that holds the entry: `I·(n/32) + J`.
    pub fn tile_index(&self, work: &Work) -> u64 {
        u64::from(self.row / TILE as u32) * u64::from(work.side()) + u64::from(self.col / TILE as u32)
    }

    /// The entry's place inside its tile, row-major.
    pub fn within_tile(&self) -> usize {
        (self.row as usize % TILE) * TILE + self.col as usize % TILE
    }
}

/// Context of [`sample_positions`].
const POSITIONS: &str = "compute-proof/1 positions";
/// Context of [`kept_sample`].
const KEPT: &str = "compute-proof/1 kept sample";

/// Draws `q` positions, each uniform over all entries of all rounds, with replacement: the same ones for the same seed,
/// so that whoever is told the seed afterwards can draw them again.
///
/// The words are the output of BLAKE3's key derivation with the context `compute-proof/1 positions` over the seed, read
/// without end as little-endian `u32`. A position takes a round, a row and a column, in this order: the round is
/// `word mod R` of the first word below the largest multiple of `R` that is at most 2³²; row and column are
/// `word mod n`, a mask, since `n` is a power of two.
///
/// Draw the seed only after the roots have been received, where the prover cannot predict it. A prover that has a share ε
/// of entries wrong, in any pattern, passes with probability `(1−ε)^q`.
pub fn sample_positions(work: &Work, q: usize, seed: &[u8; 32]) -> Vec<Position> {
    let (n, rounds) = (work.n.max(1), work.rounds.max(1));
    let mut stream = blake3::Hasher::new_derive_key(POSITIONS).update(seed).finalize_xof();
    let mut word = move || {
        let mut bytes = [0u8; 4];
        stream.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    };
    let even = (1u64 << 32) / u64::from(rounds) * u64::from(rounds);
    (0..q)
        .map(|_| {
            let round = loop {
                let word = word();
                if u64::from(word) < even {
                    break word % rounds;
                }
            };
            Position { round, row: word() % n, col: word() % n }
        })
        .collect()
}

/// Which of `q` positions is kept as a sample for third parties: the first eight bytes of BLAKE3's key derivation with the
/// context `compute-proof/1 kept sample` over the seed, little-endian, modulo `q`. 0 where there is none.
pub fn kept_sample(q: usize, seed: &[u8; 32]) -> usize {
    let mut bytes = [0u8; 8];
    blake3::Hasher::new_derive_key(KEPT).update(seed).finalize_xof().fill(&mut bytes);
    let place = u64::from_le_bytes(bytes).checked_rem(q as u64).unwrap_or(0);
    usize::try_from(place).unwrap_or(0) // below q, which is a usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_out_of_range_are_refused_with_the_value_and_the_range() {
        let say = |n, k, r| Work::new(n, k, r).unwrap_err().to_string();
        assert_eq!(say(100, 64, 1), "n is 100, expected a power of two from 32 to 131072");
        assert_eq!(say(16, 64, 1), "n is 16, expected a power of two from 32 to 131072");
        assert_eq!(say(32, 131_072, 1), "k is 131072, expected a power of two from 64 to 65536");
        assert_eq!(say(32, 0, 1), "k is 0, expected a power of two from 64 to 65536");
        assert_eq!(say(32, 64, 0), "rounds is 0, expected 1 to 256");
        assert_eq!(say(32, 64, 257), "rounds is 257, expected 1 to 256");
        assert!(Work::new(131_072, 65_536, 256).is_ok());
    }

    #[test]
    fn json_with_a_wrong_size_is_refused_when_it_is_read() {
        let error = serde_json::from_str::<Work>(r#"{"n":33,"k":64,"rounds":1}"#).unwrap_err();
        assert!(error.to_string().starts_with("n is 33"), "{error}");
        assert_eq!(
            serde_json::from_str::<Work>(r#"{"n":32,"k":64,"rounds":1}"#).unwrap(),
            Work::new(32, 64, 1).unwrap()
        );
    }

    #[test]
    fn derived_sizes_follow_the_definitions() {
        let work = Work::new(1024, 4096, 3).unwrap();
        assert_eq!(work.operations(), 2 * 1024 * 1024 * 4096 * 3);
        assert_eq!((work.tiles(), work.depth(), work.opening_len()), (1024, 10, 4096 + 320));
        let smallest = Work::new(32, 64, 1).unwrap();
        assert_eq!((smallest.tiles(), smallest.depth(), smallest.opening_len()), (1, 0, 4096));
        let largest = Work::new(131_072, 65_536, 256).unwrap();
        assert_eq!(largest.operations(), 1 << 59);
        assert_eq!(largest.depth(), 24);
    }

    #[test]
    fn positions_cover_all_rounds_rows_and_columns_evenly() {
        let work = Work::new(64, 64, 4).unwrap();
        let positions = sample_positions(&work, 64_000, &[1; 32]);
        let mut rows = [0u32; 64];
        let mut rounds = [0u32; 4];
        for p in &positions {
            assert!(p.is_within(&work));
            rows[p.row as usize] += 1;
            rounds[p.round as usize] += 1;
        }
        // 1,000 expected in each row, standard deviation 31: five of them on each side.
        assert!(rows.iter().all(|c| (840..1160).contains(c)), "{rows:?}");
        assert!(rounds.iter().all(|c| (15_400..16_600).contains(c)), "{rounds:?}");
    }

    #[test]
    fn rounds_that_do_not_divide_the_words_are_drawn_evenly_too() {
        let work = Work::new(32, 64, 200).unwrap();
        let mut rounds = [0u32; 200];
        for p in sample_positions(&work, 200_000, &[2; 32]) {
            rounds[p.round as usize] += 1;
        }
        // 1,000 expected, standard deviation 31.5: five of them on each side.
        assert!(rounds.iter().all(|c| (840..1160).contains(c)), "{rounds:?}");
    }

    #[test]
    fn the_published_positions_are_drawn_from_their_seed() {
        let at = |work: Work, q| -> Vec<_> {
            sample_positions(&work, q, &[1; 32]).iter().map(|p| (p.round, p.row, p.col)).collect()
        };
        let drawn = at(Work::new(64, 128, 3).unwrap(), 3);
        assert_eq!(drawn, [(1, 63, 24), (0, 39, 51), (1, 14, 18)]);
        assert_eq!(kept_sample(66, &[1; 32]), 8);
        assert_eq!(kept_sample(0, &[1; 32]), 0);
    }

    #[test]
    fn the_definition_redone_by_hand_gives_the_same_positions() {
        let work = Work::new(1024, 64, 7).unwrap();
        let mut stream = vec![0u8; 4096];
        blake3::Hasher::new_derive_key("compute-proof/1 positions").update(&[9; 32]).finalize_xof().fill(&mut stream);
        let words: Vec<u32> = stream.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().unwrap())).collect();
        // 2³² = 7 · 613,566,756 + 4: the four highest words are passed over; none of them is in this stream.
        assert!(words.iter().all(|w| *w < u32::MAX - 3));
        let by_hand: Vec<Position> = words
            .chunks_exact(3)
            .take(66)
            .map(|w| Position { round: w[0] % 7, row: w[1] & 1023, col: w[2] & 1023 })
            .collect();
        assert_eq!(sample_positions(&work, 66, &[9; 32]), by_hand);
        let other = sample_positions(&work, 66, &[8; 32]);
        assert_ne!(other, by_hand);
    }

    #[test]
    fn a_challenge_reads_back_from_its_json() {
        let challenge = Challenge {
            nonce: [1; 32],
            epoch: 7,
            hotkey: Hotkey([2; 32]),
            device: DeviceId::cpu(1),
            work: Work::new(64, 128, 2).unwrap(),
        };
        let text = serde_json::to_string(&challenge).unwrap();
        assert!(text.contains(&"01".repeat(32)), "{text}");
        assert_eq!(serde_json::from_str::<Challenge>(&text).unwrap(), challenge);
    }
}
