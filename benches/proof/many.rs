//! The proofs of a whole subnet, as a validator verifies them: 256 miners with 8 GPUs each, every one of a seed of its own.
//!
//! Of each opened tile the entry at the position is the product's, which is all that a verifier compares; the others are
//! arbitrary, or making the proofs would take an hour. Making them is not measured.

use std::io::Write;
use std::time::Duration;

use compute_subnet::actors::validator::verifiers::Verifiers;
use compute_subnet::proof::tile::TILE_BYTES;
use compute_subnet::proof::verifier::{self, check_openings};
use compute_subnet::proof::{Challenge, Position, Work, sample_positions};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::synthetic::{self, Proof};
use super::{Goal, Line, Result, SAMPLES, challenge};

const MINERS: u64 = 256;
const GPUS: u64 = 8;
/// Proofs in memory at a time: 81 MB of openings.
const AT_ONCE: u64 = 256;
/// Cores that the goal is set for.
const CORES: usize = 2;

struct Job {
    challenge: Challenge,
    positions: Vec<Position>,
    proof: Proof,
}

pub(crate) fn run(out: &mut impl Write) -> Result<Line> {
    let all = MINERS * GPUS;
    let cores = Verifiers::one_per_core().min(CORES);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let verifiers = Verifiers::new(cores);
    let mut took = Duration::ZERO;
    for first in (0..all).step_by(AT_ONCE as usize) {
        let jobs = jobs(first..first + AT_ONCE)?;
        let mut spoiled = job(first)?;
        let last = spoiled.proof.openings.len() - 1;
        spoiled.proof.openings[last] ^= 1;
        let start = Instant::now();
        let checked = runtime.block_on(join_all(jobs.into_iter().map(|job| verifiers.run(move || check(&job)))));
        took += start.elapsed();
        for passed in checked {
            assert!(passed?, "a proof that holds was rejected");
        }
        assert!(!check(&spoiled), "a proof that does not hold was taken");
    }
    let what = format!("{all} proofs of distinct seeds, {SAMPLES} samples, {cores} cores");
    let each = took.as_secs_f64() / all as f64 * 1e3 * cores as f64;
    writeln!(out, "verifier at scale\n  {what} {:.2} s ({each:.2} ms of a core each)", took.as_secs_f64())?;
    Ok(Line { what, unit: "s", goal: Goal::AtMost(10.0), reached: took.as_secs_f64() })
}

/// What a validator's task does with the openings of one device.
fn check(Job { challenge, positions, proof }: &Job) -> bool {
    let checked = check_openings(challenge, &[proof.root], positions, &proof.openings);
    checked.is_ok_and(|checked| checked.samples as usize == SAMPLES)
}

/// Makes these proofs, on all cores.
fn jobs(numbers: std::ops::Range<u64>) -> Result<Vec<Job>> {
    let threads = Verifiers::one_per_core() as u64;
    std::thread::scope(|scope| {
        let part = |thread| numbers.clone().filter(move |number| number % threads == thread);
        let made =
            |thread| scope.spawn(move || part(thread).map(|number| job(number).map_err(|e| e.to_string())).collect());
        let threads: Vec<_> = (0..threads).map(made).collect();
        let mut jobs = Vec::new();
        for thread in threads {
            let made: std::result::Result<Vec<Job>, String> = thread.join().map_err(|_| "a thread panicked")?;
            jobs.extend(made?);
        }
        Ok(jobs)
    })
}

fn job(number: u64) -> Result<Job> {
    let challenge = challenge(number, Work::new(65_536, 65_536, 1)?);
    let positions = sample_positions(&challenge.work, SAMPLES, &challenge.nonce);
    let keys = challenge.seed_0().keys();
    let proof = synthetic::proof(&challenge, &positions, |position| {
        let mut tile = [0; TILE_BYTES];
        blake3::Hasher::new_keyed(&keys.leaf).finalize_xof().fill(&mut tile);
        // Two positions in one tile are drawn now and then: both have to be right.
        let index = position.tile_index(&challenge.work);
        for own in positions.iter().filter(|other| other.tile_index(&challenge.work) == index) {
            let entry = verifier::entry(&keys, own, challenge.work.k);
            tile[4 * own.within_tile()..][..4].copy_from_slice(&entry.to_le_bytes());
        }
        Ok(tile)
    })?;
    Ok(Job { challenge, positions, proof })
}
