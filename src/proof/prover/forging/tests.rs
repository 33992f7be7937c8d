//! The table of cheats: each forgery against the verifier, with the reason it fails for and how often it is caught.

use super::*;
use crate::ids::{DeviceId, Hotkey};
use crate::proof::binomial;
use crate::proof::verifier::{check_openings, check_roots};
use crate::proof::{sample_positions, work::Work};

fn challenge(n: u32, rounds: u32) -> Challenge {
    let work = Work::new(n, 64, rounds).unwrap();
    Challenge { nonce: [8; 32], epoch: 2, hotkey: Hotkey([3; 32]), device: DeviceId::cpu(0), work }
}

/// What the validator makes of this prover: `None` for a pass.
async fn judge(prover: &dyn Prover, challenge: &Challenge, q: usize, seed: u64) -> Option<FailReason> {
    let mut commitment = prover.commit(challenge).await.unwrap();
    if let Err(rejection) = check_roots(challenge, commitment.roots()) {
        return Some(rejection.reason);
    }
    let positions = sample_positions(&challenge.work, q, &[seed as u8; 32]);
    let Ok(openings) = commitment.open(&positions).await else { return Some(FailReason::OpeningWithheld) };
    check_openings(challenge, commitment.roots(), &positions, &openings).err().map(|rejection| rejection.reason)
}

#[tokio::test]
async fn each_certain_forgery_fails_with_its_own_reason() {
    let challenge = challenge(128, 2);
    for forgery in [
        Forgery::RandomRoots,
        Forgery::WrongSeed,
        Forgery::MissingRound,
        Forgery::WithholdOpenings,
        Forgery::ShortOpenings,
        Forgery::ReversedOpenings,
        Forgery::OneTileForAll,
        Forgery::Garbage,
        Forgery::MadeUpRound,
        Forgery::SkipTiles { ratio: 1.0 },
        Forgery::SkipEntries { ratio: 1.0 },
    ] {
        assert!(forgery.catch_probability(&challenge.work, 16) > 0.9999, "{forgery:?}");
        let verdict = judge(&ForgingProver { forgery, threads: 1 }, &challenge, 16, 1).await;
        assert_eq!(verdict, Some(forgery.expected()), "{forgery:?}");
    }
}

#[tokio::test]
async fn the_wrapped_backend_is_honest_when_nothing_is_forged() {
    let forgery = Forgery::SkipTiles { ratio: 0.0 };
    assert_eq!(judge(&ForgingProver { forgery, threads: 2 }, &challenge(128, 2), 16, 1).await, None);
    let honest = super::super::InProcessProver { threads: 2 };
    assert_eq!(judge(&honest, &challenge(128, 2), 16, 1).await, None);
}

/// How often `trials` draws of `q` positions catch a prover, over one commitment.
async fn caught(forgery: Forgery, challenge: &Challenge, q: usize, trials: u64) -> u64 {
    let work = challenge.work;
    let mut commitment = ForgingProver { forgery, threads: 1 }.commit(challenge).await.unwrap();
    let roots = commitment.roots().to_vec();
    // Every tile once; each trial's openings are copied from there.
    let (side, tiles, one) = (work.side(), work.tiles() as u32, work.opening_len());
    let every: Vec<Position> = (0..work.rounds * tiles)
        .map(|i| Position { round: i / tiles, row: i % tiles / side * 32, col: i % tiles % side * 32 })
        .collect();
    let all = commitment.open(&every).await.unwrap();
    let mut count = 0;
    for trial in 0..trials {
        let positions = sample_positions(&work, q, blake3::hash(&trial.to_le_bytes()).as_bytes());
        let openings: Vec<u8> = positions
            .iter()
            .flat_map(|p| {
                let index = p.round as usize * tiles as usize + p.tile_index(&work) as usize;
                all[index * one..(index + 1) * one].iter().copied()
            })
            .collect();
        if let Err(rejection) = check_openings(challenge, &roots, &positions, &openings) {
            assert_eq!(rejection.reason, forgery.expected());
            count += 1;
        }
    }
    count
}

#[tokio::test]
async fn skipped_work_is_caught_at_the_predicted_rate() {
    let challenge = challenge(256, 4);
    let (q, trials) = (10, 1000);
    for (forgery, share) in [
        (Forgery::SkipTiles { ratio: 0.1 }, Some(skipped_tiles(0.1, &challenge))),
        (Forgery::SkipEntries { ratio: 0.125 }, None),
        (Forgery::MadeUpRound, None),
    ] {
        // A share of whole tiles can only be met roughly: predict from the tiles that were really left out.
        let predicted = match share {
            Some(ratio) => Forgery::SkipTiles { ratio }.catch_probability(&challenge.work, q),
            None => forgery.catch_probability(&challenge.work, q),
        };
        let caught = caught(forgery, &challenge, q as usize, trials).await;
        let band = binomial::band(trials, predicted);
        assert!(band.contains(&caught), "{forgery:?}: caught {caught} of {trials}, predicted {band:?}");
    }
}

/// The share of tiles that the spoiler leaves out of this challenge.
fn skipped_tiles(ratio: f64, challenge: &Challenge) -> f64 {
    let work = challenge.work;
    let spoiler = Spoiler { forgery: Forgery::SkipTiles { ratio }, rounds: work.rounds, noise: challenge.nonce };
    let skipped = (0..work.rounds)
        .flat_map(|round| (0..work.tiles()).map(move |tile| (round, tile)))
        .filter(|(round, tile)| spoiler.instead(*round, *tile).is_some())
        .count();
    skipped as f64 / (work.tiles() as f64 * f64::from(work.rounds))
}

#[test]
fn the_predictions_are_those_of_the_design() {
    let work = Work::new(128, 64, 1).unwrap();
    let caught = |ratio| Forgery::SkipTiles { ratio }.catch_probability(&work, 66);
    assert!((caught(0.01) - 0.485).abs() < 0.001);
    assert!((caught(0.05) - 0.966).abs() < 0.001);
    assert!((caught(0.10) - 0.9990).abs() < 0.0001);
}

/// What the validator makes of this prover's memory: `None` for a pass.
async fn judge_memory(prover: &dyn Prover) -> Option<FailReason> {
    use memory::verifier;
    let size = memory::Size::new(36, 2, 3).unwrap();
    let challenge =
        memory::Challenge { nonce: [8; 32], epoch: 2, hotkey: Hotkey([3; 32]), device: DeviceId::cpu(0), size };
    let nonce_0 = ScanNonce([9; 32]);
    let mut filled = prover.fill(&challenge).await.unwrap();
    let roots = filled.scan(&nonce_0).await.unwrap();
    if let Err(rejection) = verifier::check_roots(&challenge, &roots) {
        return Some(rejection.reason);
    }
    let positions = memory::sample_positions(&size, 66, &[1; 32]);
    let Ok(openings) = filled.open(&positions).await else { return Some(FailReason::OpeningWithheld) };
    let checked = verifier::check_openings(&challenge, &nonce_0, &roots, &positions, &openings);
    checked.err().map(|rejection| rejection.reason)
}

#[tokio::test]
async fn forged_memory_fails_with_its_own_reason_and_other_forgers_memory_is_honest() {
    use memory::forging::Forgery as Cheat;
    for cheat in [
        Cheat::HalfTheMemory,
        Cheat::GuessedDigests { ratio: 0.5 },
        Cheat::FewerIterations,
        Cheat::MissingScan,
        Cheat::WithholdOpenings,
        Cheat::ShortOpenings,
    ] {
        let forgery = Forgery::Memory(cheat);
        let verdict = judge_memory(&ForgingProver { forgery, threads: 1 }).await;
        assert_eq!(verdict, Some(forgery.expected()), "{forgery:?}");
        assert_eq!(judge(&ForgingProver { forgery, threads: 1 }, &challenge(128, 2), 16, 1).await, None);
    }
    for forgery in [Forgery::RandomRoots, Forgery::Memory(Cheat::Honest)] {
        assert_eq!(judge_memory(&ForgingProver { forgery, threads: 1 }).await, None);
    }
}
