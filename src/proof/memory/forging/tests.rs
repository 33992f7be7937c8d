//! The table of cheats: each forgery against the verifier, with the reason it fails for and how often it is caught.

use super::*;
use crate::ids::{DeviceId, Hotkey};
use crate::proof::binomial;
use crate::proof::memory::verifier::{check_openings, check_roots};
use crate::proof::memory::{cpu, sample_positions};

const NONCE: ScanNonce = ScanNonce([9; 32]);

static GO: AtomicBool = AtomicBool::new(false);

fn answer(forgery: Forgery, challenge: &Challenge) -> Forged {
    ForgedMemory::fill(forgery, challenge, &GO).unwrap().scan(&NONCE, &GO).unwrap()
}

fn challenge(blocks: u64, iterations: u32, scans: u32) -> Challenge {
    let size = Size::new(blocks, iterations, scans).unwrap();
    Challenge { nonce: [8; 32], epoch: 2, hotkey: Hotkey([3; 32]), device: DeviceId::cpu(0), size }
}

/// What the validator makes of this answer: `None` for a pass.
fn judge(answer: &Forged, challenge: &Challenge, q: usize, trial: u64) -> Option<FailReason> {
    if let Err(rejection) = check_roots(challenge, answer.roots()) {
        return Some(rejection.reason);
    }
    let positions = sample_positions(&challenge.size, q, blake3::hash(&trial.to_le_bytes()).as_bytes());
    let openings = answer.open(&positions);
    let checked = check_openings(challenge, &NONCE, answer.roots(), &positions, &openings);
    checked.err().map(|rejection| rejection.reason)
}

#[test]
fn each_certain_forgery_fails_with_its_own_reason() {
    let challenge = challenge(36, 2, 8);
    for forgery in [
        Forgery::GuessedDigests { ratio: 1.0 },
        Forgery::GuessedDigests { ratio: 0.25 },
        Forgery::HalfTheMemory,
        Forgery::MadeUpScan,
        Forgery::ThirtyOneBits,
        Forgery::FewerIterations,
        Forgery::FewerBlocks,
        Forgery::WrongSeed,
        Forgery::WrongNonce,
        Forgery::OneScanForAll,
        Forgery::MissingScan,
        Forgery::ForgedPath,
        Forgery::OpenedOtherScan,
        Forgery::ReversedOpenings,
        Forgery::OneBlockForAll,
        Forgery::ShortOpenings,
        Forgery::Garbage,
    ] {
        assert!(forgery.catch_probability(&challenge.size, 66) > 0.999, "{forgery:?}");
        let answer = answer(forgery, &challenge);
        assert_eq!(judge(&answer, &challenge, 66, 1), Some(forgery.expected()), "{forgery:?}");
    }
}

#[test]
fn openings_of_a_smaller_tree_are_too_short() {
    let challenge = challenge(36, 1, 1);
    let half = Challenge { size: Size::new(32, 1, 1).unwrap(), ..challenge.clone() };
    let answer = answer(Forgery::Honest, &half);
    let positions = sample_positions(&half.size, 8, &[1; 32]);
    let openings = answer.open(&positions);
    assert_eq!(check_openings(&half, &NONCE, answer.roots(), &positions, &openings).map(|c| c.samples), Ok(8));
    let rejection = check_openings(&challenge, &NONCE, answer.roots(), &positions, &openings).unwrap_err();
    assert_eq!(rejection.reason, FailReason::WrongLength);
}

#[test]
fn the_adversary_is_honest_when_nothing_is_forged() {
    let challenge = challenge(1100, 2, 2);
    let made = cpu::fill(&challenge, 2, u64::MAX, &GO).unwrap().scan(NONCE, &GO).unwrap();
    let positions = sample_positions(&challenge.size, 66, &[1; 32]);
    for forgery in [Forgery::Honest, Forgery::GuessedDigests { ratio: 0.0 }] {
        let answer = answer(forgery, &challenge);
        assert_eq!(answer.roots(), made.roots());
        assert_eq!(answer.open(&positions), made.open(&positions, &GO).unwrap());
        assert_eq!(judge(&answer, &challenge, 66, 1), None);
    }
}

#[test]
fn missing_memory_is_caught_at_the_predicted_rate() {
    const TRIALS: u64 = 1000;
    let challenge = challenge(200, 1, 4);
    for (forgery, q) in [
        (Forgery::GuessedDigests { ratio: 0.01 }, 66),
        (Forgery::GuessedDigests { ratio: 0.05 }, 66),
        (Forgery::GuessedDigests { ratio: 0.10 }, 66),
        (Forgery::GuessedDigests { ratio: 0.25 }, 4),
        (Forgery::HalfTheMemory, 2),
        (Forgery::MadeUpScan, 4),
    ] {
        let answer = answer(forgery, &challenge);
        let reasons: Vec<FailReason> = (0..TRIALS).filter_map(|trial| judge(&answer, &challenge, q, trial)).collect();
        assert!(reasons.iter().all(|reason| *reason == forgery.expected()), "{forgery:?}");
        let predicted = forgery.catch_probability(&challenge.size, q as u32);
        let (caught, band) = (reasons.len() as u64, binomial::band(TRIALS, predicted));
        println!("{forgery:?}, q {q}: caught {caught} of {TRIALS}, predicted {:.1}, band {band:?}", 1e3 * predicted);
        assert!(band.contains(&caught), "{forgery:?}: caught {caught} of {TRIALS}, predicted {band:?}");
    }
}

#[test]
fn a_prover_that_drops_a_bit_of_each_word_is_caught_by_fifteen_of_sixteen_positions() {
    let challenge = challenge(400, 1, 8);
    let size = challenge.size;
    let answer = answer(Forgery::ThirtyOneBits, &challenge);
    // Every position once, each a chance of its own.
    let places = u64::from(size.scans()) * size.blocks();
    let caught = (0..places)
        .map(|i| Position { scan: (i / size.blocks()) as u32, block: (i % size.blocks()) as u32 })
        .filter(|p| check_openings(&challenge, &NONCE, answer.roots(), &[*p], &answer.open(&[*p])).is_err())
        .count() as u64;
    let band = binomial::band(places, Forgery::ThirtyOneBits.catch_probability(&size, 1));
    println!("caught by {caught} of {places} positions, band {band:?}");
    assert!(band.contains(&caught), "caught by {caught} of {places} positions, predicted {band:?}");
}
