//! An adversary, for tests and demonstrations only: provers that do less than they were asked, or lie about it.
//!
//! Each [`Forgery`] wraps the honest cpu backend and spoils one thing; [`Forgery::expected`] says what the verifier should
//! make of it. How often it is caught is predicted and measured in the table of cheats (`src/cheats.rs`).

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;

use super::held::{Backing, Held};
use super::in_process::{InProcessMemory, compute};
use super::{BackendError, Commitment, Filled, InProcessProver, Prover, ProverError};
use crate::ids::Hash32;
use crate::proof::cpu::{self, CpuCommitment, CpuError, Tamper};
use crate::proof::gemm::Kernel;
use crate::proof::memory;
use crate::proof::memory::forging::ForgedMemory;
use crate::proof::memory::keys::ScanNonce;
use crate::proof::tile::{TILE, TILE_ENTRIES, Tile};
use crate::proof::work::{Challenge, K_RANGE, N_RANGE, Position, ROUNDS_RANGE, Root, Work};
use crate::verdict::FailReason;

/// What of a challenge the seed of another one differs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedField {
    /// The nonce: an answer that was computed before, or a replayed one.
    Nonce,
    /// The epoch.
    Epoch,
    /// The miner's key: another miner's answer.
    Hotkey,
    /// The device.
    Device,
    /// The rows and columns of the product.
    N,
    /// The inner dimension.
    K,
    /// The number of rounds.
    Rounds,
}

/// How to cheat.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Forgery {
    /// Leaves this share of the tiles out and commits to zeros in their place: saves that share of the time.
    SkipTiles {
        /// Share of tiles, 0 to 1.
        ratio: f64,
    },
    /// Computes every tile, but this share of the entries of each is wrong.
    SkipEntries {
        /// Share of entries, 0 to 1.
        ratio: f64,
    },
    /// Commits to a product whose entries are all this number: saves all of the time.
    Constant {
        /// The number.
        entry: i32,
    },
    /// Computes so many of each 32 rows of the product and repeats them: a matrix of lower rank.
    LowRank {
        /// Rows of 32, at least 1.
        rows: u32,
    },
    /// Computes with less precision: of each entry only so many leading bits are right, the others are zeros, as sums in
    /// floating point would have them.
    LowPrecision {
        /// Bits that are kept, 1 to 31. Half precision keeps 11.
        bits: u32,
    },
    /// Makes up the root of the last round instead of computing it: saves one round in `rounds`.
    MadeUpRound,
    /// Computes all rounds at the same time, the later ones from a root that it guessed.
    GuessedRoots,
    /// Computes everything and sends random roots.
    RandomRoots,
    /// Computes the product of another seed, and answers in the form that was asked for.
    WrongSeed(SeedField),
    /// Sends one root too few.
    MissingRound,
    /// Sends one root too many.
    ExtraRound,
    /// Sends the roots, and never an opening.
    WithholdOpenings,
    /// Sends openings that end one byte early.
    ShortOpenings,
    /// Sends paths that lack the sibling below the root.
    ShortPaths,
    /// Sends paths with one sibling too many.
    LongPaths,
    /// Changes one bit of each path.
    ForgedPaths,
    /// Leaves the last opening out.
    MissingOpening,
    /// Sends the last opening twice.
    ExtraOpening,
    /// Sends the openings in the reverse order.
    ReversedOpenings,
    /// Answers every position with the first tile of its round.
    OneTileForAll,
    /// Answers every position with the tile after it, with that tile's own path.
    OtherTile,
    /// Answers every position with the same tile of the round after it.
    OtherRound,
    /// Sends openings of the right length, full of noise.
    Garbage,
    /// Does all the work, and cheats with its memory.
    Memory(memory::forging::Forgery),
}

impl Forgery {
    /// The metric-safe name.
    pub fn label(&self) -> &'static str {
        match self {
            Forgery::SkipTiles { .. } => "skip_tiles",
            Forgery::SkipEntries { .. } => "skip_entries",
            Forgery::Constant { .. } => "constant",
            Forgery::LowRank { .. } => "low_rank",
            Forgery::LowPrecision { .. } => "low_precision",
            Forgery::MadeUpRound => "made_up_round",
            Forgery::GuessedRoots => "guessed_roots",
            Forgery::RandomRoots => "random_roots",
            Forgery::WrongSeed(_) => "wrong_seed",
            Forgery::MissingRound => "missing_round",
            Forgery::ExtraRound => "extra_round",
            Forgery::WithholdOpenings => "withhold_openings",
            Forgery::ShortOpenings => "short_openings",
            Forgery::ShortPaths => "short_paths",
            Forgery::LongPaths => "long_paths",
            Forgery::ForgedPaths => "forged_paths",
            Forgery::MissingOpening => "missing_opening",
            Forgery::ExtraOpening => "extra_opening",
            Forgery::ReversedOpenings => "reversed_openings",
            Forgery::OneTileForAll => "one_tile_for_all",
            Forgery::OtherTile => "other_tile",
            Forgery::OtherRound => "other_round",
            Forgery::Garbage => "garbage",
            Forgery::Memory(forgery) => forgery.label(),
        }
    }

    /// The reason a caught forgery fails for.
    pub fn expected(&self) -> FailReason {
        match self {
            Forgery::SkipTiles { .. }
            | Forgery::SkipEntries { .. }
            | Forgery::Constant { .. }
            | Forgery::LowRank { .. }
            | Forgery::LowPrecision { .. } => FailReason::EntryMismatch,
            Forgery::MissingRound | Forgery::ExtraRound => FailReason::WrongRounds,
            Forgery::WithholdOpenings => FailReason::OpeningWithheld,
            Forgery::ShortOpenings
            | Forgery::ShortPaths
            | Forgery::LongPaths
            | Forgery::MissingOpening
            | Forgery::ExtraOpening => FailReason::WrongLength,
            Forgery::MadeUpRound
            | Forgery::GuessedRoots
            | Forgery::RandomRoots
            | Forgery::WrongSeed(_)
            | Forgery::ForgedPaths
            | Forgery::ReversedOpenings
            | Forgery::OneTileForAll
            | Forgery::OtherTile
            | Forgery::OtherRound
            | Forgery::Garbage => FailReason::PathMismatch,
            Forgery::Memory(forgery) => forgery.expected(),
        }
    }

    /// The challenge that is computed in place of the one asked.
    fn computed(self, asked: &Challenge) -> Challenge {
        let mut other = asked.clone();
        let halved = |value: u32, least: u32| if value > least { value / 2 } else { value * 2 };
        match self {
            Forgery::WrongSeed(SeedField::Nonce) => other.nonce[0] ^= 1,
            Forgery::WrongSeed(SeedField::Epoch) => other.epoch ^= 1,
            Forgery::WrongSeed(SeedField::Hotkey) => other.hotkey.0[0] ^= 1,
            Forgery::WrongSeed(SeedField::Device) => other.device.0[0] ^= 1,
            Forgery::WrongSeed(SeedField::N) => other.work.n = halved(other.work.n, N_RANGE.0),
            Forgery::WrongSeed(SeedField::K) => other.work.k = halved(other.work.k, K_RANGE.0),
            Forgery::WrongSeed(SeedField::Rounds) => {
                other.work.rounds = if other.work.rounds < ROUNDS_RANGE.1 { other.work.rounds + 1 } else { 1 };
            }
            _ => {}
        }
        other
    }

    /// The positions that are opened in place of those asked.
    fn opened(self, work: &Work, positions: &[Position]) -> Vec<Position> {
        let mut opened = positions.to_vec();
        let tile = TILE as u32;
        match self {
            Forgery::ReversedOpenings => opened.reverse(),
            Forgery::OneTileForAll => {
                opened.iter_mut().for_each(|p| *p = Position { round: p.round, row: 0, col: 0 });
            }
            Forgery::OtherTile => opened.iter_mut().for_each(|p| p.col = (p.col + tile) % work.n),
            Forgery::OtherRound => opened.iter_mut().for_each(|p| p.round = (p.round + 1) % work.rounds),
            Forgery::MissingOpening => drop(opened.pop()),
            Forgery::ExtraOpening => opened.extend(positions.last()),
            Forgery::WrongSeed(_) => opened.iter_mut().for_each(|p| {
                (p.round, p.row, p.col) = (p.round % work.rounds, p.row % work.n, p.col % work.n);
            }),
            _ => {}
        }
        opened
    }

    /// The bytes that are sent in place of these true openings of `computed`, where `asked` was asked for.
    fn sent(self, computed: &Work, asked: &Work, mut openings: Vec<u8>) -> Vec<u8> {
        let each = |openings: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
            let mut all = Vec::with_capacity(openings.len() + openings.len() / 8);
            for one in openings.chunks_exact(computed.opening_len()) {
                let mut one = one.to_vec();
                change(&mut one);
                all.append(&mut one);
            }
            all
        };
        match self {
            Forgery::ShortOpenings => openings.truncate(openings.len().saturating_sub(1)),
            Forgery::Garbage => blake3::Hasher::new().update(&openings).finalize_xof().fill(&mut openings),
            Forgery::ShortPaths => return each(&openings, &|one| one.truncate(one.len() - 32)),
            Forgery::LongPaths => return each(&openings, &|one| one.extend([0; 32])),
            // Of a single tile there is no path: then it is the tile itself.
            Forgery::ForgedPaths => return each(&openings, &|one| one.iter_mut().rev().take(1).for_each(|b| *b ^= 1)),
            Forgery::WrongSeed(_) => return each(&openings, &|one| one.resize(asked.opening_len(), 0)),
            _ => {}
        }
        openings
    }
}

/// A prover that cheats. For tests and demonstrations.
#[derive(Debug, Clone, Copy)]
pub struct ForgingProver {
    /// How.
    pub forgery: Forgery,
    /// Threads of the backend it wraps.
    pub threads: usize,
}

#[async_trait]
impl Prover for ForgingProver {
    async fn commit(&self, challenge: &Challenge) -> Result<Box<dyn Commitment>, ProverError> {
        let (forgery, threads, challenge) = (self.forgery, self.threads, challenge.clone());
        let forged = compute(move |cancel| Ok(Forged::make(forgery, &challenge, threads, cancel)?)).await?;
        Ok(Box::new(ForgedCommitment(Arc::new(forged))))
    }

    /// Honest memory, but for a [`Forgery::Memory`].
    async fn fill(&self, challenge: &memory::Challenge) -> Result<Box<dyn Filled>, ProverError> {
        let Forgery::Memory(forgery) = self.forgery else {
            return InProcessProver { threads: self.threads }.fill(challenge).await;
        };
        let challenge = challenge.clone();
        let made = compute(move |cancel| {
            let memory = ForgedMemory::fill(forgery, &challenge, cancel)?;
            Ok(Held::new(challenge.size, Box::new(OnForged { memory, answer: None })))
        });
        let filled = InProcessMemory::new(made.await?);
        Ok(match forgery {
            memory::forging::Forgery::WithholdOpenings => Box::new(Withholding(filled)),
            _ => Box::new(filled),
        })
    }
}

/// Forged memory, and what it answered last.
struct OnForged {
    memory: ForgedMemory,
    answer: Option<memory::forging::Forged>,
}

impl Backing for OnForged {
    fn scan(&mut self, nonce_0: ScanNonce, cancel: &AtomicBool) -> Result<Vec<Root>, BackendError> {
        let answer = self.memory.scan(&nonce_0, cancel)?;
        let roots = answer.roots().to_vec();
        self.answer = Some(answer);
        Ok(roots)
    }

    fn open(&mut self, positions: &[memory::Position], _cancel: &AtomicBool) -> Result<Vec<u8>, BackendError> {
        Ok(self.answer.as_ref().map(|answer| answer.open(positions)).unwrap_or_default())
    }
}

/// Sends the roots, and never an opening.
struct Withholding(InProcessMemory);

#[async_trait]
impl Filled for Withholding {
    async fn scan(&mut self, nonce_0: &ScanNonce) -> Result<Vec<Root>, ProverError> {
        self.0.scan(nonce_0).await
    }

    async fn open(&mut self, _positions: &[memory::Position]) -> Result<Vec<u8>, ProverError> {
        Err(ProverError::Refused("no openings today".into()))
    }
}

/// What a prover that cheats has computed, and what it says of it.
pub(crate) struct Forged {
    forgery: Forgery,
    asked: Work,
    computed: Work,
    roots: Vec<Root>,
    made: CpuCommitment,
    /// Of [`Forgery::GuessedRoots`]: all rounds but the first.
    guessed: Option<CpuCommitment>,
}

impl Forged {
    /// Computes, in the forgery's way.
    ///
    /// # Errors
    /// As [`cpu::commit`].
    pub(crate) fn make(
        forgery: Forgery,
        asked: &Challenge,
        threads: usize,
        cancel: &AtomicBool,
    ) -> Result<Self, CpuError> {
        let commit = |challenge: &Challenge| {
            let tamper = Arc::new(Spoiler { forgery, rounds: challenge.work.rounds, noise: challenge.nonce });
            cpu::commit_tampered(challenge, threads, Kernel::best(), cancel, tamper)
        };
        let computed = forgery.computed(asked);
        let made = commit(&computed)?;
        let mut roots = made.roots().to_vec();
        let mut guessed = None;
        let made_up = |root: &Root| Hash32(blake3::hash(&root.0).into());
        match forgery {
            Forgery::RandomRoots => roots.iter_mut().for_each(|root| *root = made_up(root)),
            Forgery::MissingRound => roots.truncate(roots.len().saturating_sub(1)),
            Forgery::ExtraRound => roots.extend(roots.last().map(made_up)),
            // A wrong guess gives other keys, as another nonce does.
            Forgery::GuessedRoots => {
                let later = commit(&Forgery::WrongSeed(SeedField::Nonce).computed(asked))?;
                roots.splice(1.., later.roots().iter().skip(1).copied());
                guessed = Some(later);
            }
            Forgery::WrongSeed(_) => {
                let last = roots.last().copied().unwrap_or(Hash32([0; 32]));
                roots.resize(asked.work.rounds as usize, last);
            }
            _ => {}
        }
        Ok(Forged { forgery, asked: asked.work, computed: computed.work, roots, made, guessed })
    }

    /// The roots that it sends.
    pub(crate) fn roots(&self) -> &[Root] {
        &self.roots
    }

    /// The size of what it computed.
    #[cfg(all(test, feature = "node"))]
    pub(crate) fn computed(&self) -> &Work {
        &self.computed
    }

    /// What it sends for these positions, made of the true openings that `tiles` has of what was computed; `None` if it sends
    /// nothing.
    pub(crate) fn open_with<E>(
        &self,
        positions: &[Position],
        tiles: impl FnOnce(&[Position]) -> Result<Vec<u8>, E>,
    ) -> Result<Option<Vec<u8>>, E> {
        if self.forgery == Forgery::WithholdOpenings {
            return Ok(None);
        }
        let openings = tiles(&self.forgery.opened(&self.computed, positions))?;
        Ok(Some(self.forgery.sent(&self.computed, &self.asked, openings)))
    }

    /// The openings of what was computed.
    pub(crate) fn tiles(&self, positions: &[Position], cancel: &AtomicBool) -> Result<Vec<u8>, CpuError> {
        let Some(guessed) = &self.guessed else { return self.made.open(positions, cancel) };
        let mut openings = Vec::with_capacity(positions.len() * self.computed.opening_len());
        for position in positions {
            let made = if position.round == 0 { &self.made } else { guessed };
            openings.extend(made.open(std::slice::from_ref(position), cancel)?);
        }
        Ok(openings)
    }
}

/// Decides, the same way each time, which tiles and entries are wrong.
struct Spoiler {
    forgery: Forgery,
    rounds: u32,
    noise: [u8; 32],
}

impl Spoiler {
    /// A number from 0 to 1 that depends on the arguments alone.
    fn draw(&self, round: u32, tile: u64, entry: u32) -> f64 {
        let mut hash = blake3::Hasher::new_keyed(&self.noise);
        hash.update(&round.to_le_bytes()).update(&tile.to_le_bytes()).update(&entry.to_le_bytes());
        let mut eight = [0u8; 8];
        hash.finalize_xof().fill(&mut eight);
        u64::from_le_bytes(eight) as f64 / u64::MAX as f64
    }
}

impl Tamper for Spoiler {
    fn instead(&self, round: u32, tile: u64) -> Option<Tile> {
        match self.forgery {
            Forgery::SkipTiles { ratio } if self.draw(round, tile, 0) < ratio => Some(Tile::zero()),
            Forgery::Constant { entry } => Some(Tile([entry; TILE_ENTRIES])),
            _ => None,
        }
    }

    fn spoil(&self, round: u32, tile: u64, content: &mut Tile) {
        match self.forgery {
            Forgery::SkipEntries { ratio } => {
                // Whole entries of the tile, so that the share is exact up to rounding.
                let wrong = (ratio * TILE_ENTRIES as f64).round() as usize;
                let first = (self.draw(round, tile, 1) * TILE_ENTRIES as f64) as usize;
                for i in first..first + wrong.min(TILE_ENTRIES) {
                    content.0[i % TILE_ENTRIES] ^= 1;
                }
            }
            Forgery::LowRank { rows } => {
                let computed = rows.clamp(1, TILE as u32) as usize * TILE;
                for i in computed..TILE_ENTRIES {
                    content.0[i] = content.0[i % computed];
                }
            }
            Forgery::LowPrecision { bits } => content.0.iter_mut().for_each(|entry| *entry = leading(*entry, bits)),
            _ => {}
        }
    }

    fn made_up_root(&self, round: u32) -> Option<Root> {
        let last = self.forgery == Forgery::MadeUpRound && round + 1 == self.rounds;
        last.then(|| Hash32(blake3::hash(&self.noise).into()))
    }
}

/// The number with all but so many of its leading bits zero.
fn leading(number: i32, bits: u32) -> i32 {
    let size = number.unsigned_abs();
    let dropped = (u32::BITS - size.leading_zeros()).saturating_sub(bits);
    // At most |i32::MIN|, which only i32::MIN itself has.
    let kept = i64::from(size >> dropped << dropped) * i64::from(number.signum());
    i32::try_from(kept).unwrap_or(i32::MIN)
}

struct ForgedCommitment(Arc<Forged>);

#[async_trait]
impl Commitment for ForgedCommitment {
    fn roots(&self) -> &[Root] {
        self.0.roots()
    }

    async fn open(&mut self, positions: &[Position]) -> Result<Vec<u8>, ProverError> {
        let (forged, positions) = (self.0.clone(), positions.to_vec());
        let sent =
            compute(move |cancel| Ok(forged.open_with(&positions, |opened| forged.tiles(opened, cancel))?)).await?;
        sent.ok_or_else(|| ProverError::Refused("no openings today".into()))
    }
}

#[cfg(test)]
mod tests;
