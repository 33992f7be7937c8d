//! An adversary, for tests and demonstrations only: provers that do less than they were asked, or lie about it.
//!
//! Each [`Forgery`] wraps the honest cpu backend and spoils one thing; [`Forgery::expected`] and
//! [`Forgery::catch_probability`] say what the verifier should make of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;

use super::held::{Backing, Held};
use super::in_process::{InProcessMemory, compute};
use super::{BackendError, Commitment, Filled, InProcessProver, Prover, ProverError};
use crate::ids::Hash32;
use crate::proof::cpu::{self, CpuCommitment, Tamper};
use crate::proof::gemm::Kernel;
use crate::proof::memory;
use crate::proof::memory::forging::ForgedMemory;
use crate::proof::memory::keys::ScanNonce;
use crate::proof::tile::{TILE_ENTRIES, Tile};
use crate::proof::work::{Challenge, Position, Root, Work};
use crate::verdict::FailReason;

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
    /// Makes up the root of the last round instead of computing it: saves one round in `rounds`.
    MadeUpRound,
    /// Computes everything and sends random roots.
    RandomRoots,
    /// Computes the product of another seed, as for a replayed answer or another miner's.
    WrongSeed,
    /// Sends one root too few.
    MissingRound,
    /// Sends the roots, and never an opening.
    WithholdOpenings,
    /// Sends openings that end one byte early.
    ShortOpenings,
    /// Sends the openings in the reverse order.
    ReversedOpenings,
    /// Answers every position with the first tile of its round.
    OneTileForAll,
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
            Forgery::MadeUpRound => "made_up_round",
            Forgery::RandomRoots => "random_roots",
            Forgery::WrongSeed => "wrong_seed",
            Forgery::MissingRound => "missing_round",
            Forgery::WithholdOpenings => "withhold_openings",
            Forgery::ShortOpenings => "short_openings",
            Forgery::ReversedOpenings => "reversed_openings",
            Forgery::OneTileForAll => "one_tile_for_all",
            Forgery::Garbage => "garbage",
            Forgery::Memory(forgery) => forgery.label(),
        }
    }

    /// The reason a caught forgery fails for.
    pub fn expected(&self) -> FailReason {
        match self {
            Forgery::SkipTiles { .. } | Forgery::SkipEntries { .. } => FailReason::EntryMismatch,
            Forgery::MissingRound => FailReason::WrongRounds,
            Forgery::WithholdOpenings => FailReason::OpeningWithheld,
            Forgery::ShortOpenings => FailReason::WrongLength,
            Forgery::MadeUpRound
            | Forgery::RandomRoots
            | Forgery::WrongSeed
            | Forgery::ReversedOpenings
            | Forgery::OneTileForAll
            | Forgery::Garbage => FailReason::PathMismatch,
            Forgery::Memory(forgery) => forgery.expected(),
        }
    }

    /// The probability that `q` samples of the work catch it, `q ≥ 1`: 1 for those that are certain, 0 for one that cheats
    /// with its memory.
    pub fn catch_probability(&self, work: &Work, q: u32) -> f64 {
        let missed = |share: f64| (1.0 - share).powf(f64::from(q));
        match self {
            Forgery::SkipTiles { ratio } | Forgery::SkipEntries { ratio } => 1.0 - missed(*ratio),
            Forgery::MadeUpRound => 1.0 - missed(1.0 / f64::from(work.rounds)),
            // Lucky only if every position falls into the tile that is sent.
            Forgery::OneTileForAll => 1.0 - (1.0 / work.tiles() as f64).powf(f64::from(q)),
            // Lucky only if the positions' tiles read the same backwards: each pair has to agree.
            Forgery::ReversedOpenings => {
                1.0 - (1.0 / (work.tiles() as f64 * f64::from(work.rounds))).powf(f64::from(q / 2))
            }
            Forgery::Memory(_) => 0.0,
            _ => 1.0,
        }
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
        let mut asked = challenge.clone();
        if self.forgery == Forgery::WrongSeed {
            asked.nonce[0] ^= 1;
        }
        let tamper = Arc::new(Spoiler { forgery: self.forgery, rounds: asked.work.rounds, noise: asked.nonce });
        let threads = self.threads;
        let commit = move |cancel: &_| Ok(cpu::commit_tampered(&asked, threads, Kernel::best(), cancel, tamper)?);
        let made = compute(commit).await?;
        let mut roots = made.roots().to_vec();
        match self.forgery {
            Forgery::RandomRoots => roots.iter_mut().for_each(|root| *root = Hash32(blake3::hash(&root.0).into())),
            Forgery::MissingRound => roots.truncate(roots.len().saturating_sub(1)),
            _ => {}
        }
        Ok(Box::new(Forged { forgery: self.forgery, roots, made: Arc::new(made) }))
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
            _ => None,
        }
    }

    fn spoil(&self, round: u32, tile: u64, content: &mut Tile) {
        if let Forgery::SkipEntries { ratio } = self.forgery {
            // Whole entries of the tile, so that the share is exact up to rounding.
            let wrong = (ratio * TILE_ENTRIES as f64).round() as usize;
            let first = (self.draw(round, tile, 1) * TILE_ENTRIES as f64) as usize;
            for i in first..first + wrong.min(TILE_ENTRIES) {
                content.0[i % TILE_ENTRIES] ^= 1;
            }
        }
    }

    fn made_up_root(&self, round: u32) -> Option<Root> {
        let last = self.forgery == Forgery::MadeUpRound && round + 1 == self.rounds;
        last.then(|| Hash32(blake3::hash(&self.noise).into()))
    }
}

struct Forged {
    forgery: Forgery,
    roots: Vec<Root>,
    made: Arc<CpuCommitment>,
}

#[async_trait]
impl Commitment for Forged {
    fn roots(&self) -> &[Root] {
        &self.roots
    }

    async fn open(&mut self, positions: &[Position]) -> Result<Vec<u8>, ProverError> {
        let mut asked = positions.to_vec();
        match self.forgery {
            Forgery::WithholdOpenings => return Err(ProverError::Refused("no openings today".into())),
            Forgery::ReversedOpenings => asked.reverse(),
            Forgery::OneTileForAll => {
                asked.iter_mut().for_each(|p| *p = Position { round: p.round, row: 0, col: 0 });
            }
            _ => {}
        }
        let made = self.made.clone();
        let mut openings = compute(move |cancel| Ok(made.open(&asked, cancel)?)).await?;
        match self.forgery {
            Forgery::ShortOpenings => openings.truncate(openings.len().saturating_sub(1)),
            Forgery::Garbage => blake3::Hasher::new().update(&openings).finalize_xof().fill(&mut openings),
            _ => {}
        }
        Ok(openings)
    }
}

#[cfg(test)]
mod tests;
