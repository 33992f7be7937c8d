//! The adversary as a prover. How each forgery fares against the verifier is in the table of cheats (`src/cheats.rs`).

use super::*;
use crate::ids::{DeviceId, Hotkey};
use crate::proof::sample_positions;
use crate::proof::verifier::{check_openings, check_roots};

fn challenge(n: u32, rounds: u32) -> Challenge {
    let work = Work::new(n, 64, rounds).unwrap();
    Challenge { nonce: [8; 32], epoch: 2, hotkey: Hotkey([3; 32]), device: DeviceId::cpu(0), work }
}

/// What the validator makes of this prover: `None` for a pass.
async fn judge(prover: &dyn Prover, challenge: &Challenge, q: usize) -> Option<FailReason> {
    let mut commitment = prover.commit(challenge).await.unwrap();
    if let Err(rejection) = check_roots(challenge, commitment.roots()) {
        return Some(rejection.reason);
    }
    let positions = sample_positions(&challenge.work, q, &[1; 32]);
    let Ok(openings) = commitment.open(&positions).await else { return Some(FailReason::OpeningWithheld) };
    check_openings(challenge, commitment.roots(), &positions, &openings).err().map(|rejection| rejection.reason)
}

#[tokio::test]
async fn a_forging_prover_fails_with_the_reason_of_its_forgery() {
    let challenge = challenge(128, 2);
    for forgery in [
        Forgery::MadeUpRound,
        Forgery::GuessedRoots,
        Forgery::WrongSeed(SeedField::N),
        Forgery::WithholdOpenings,
        Forgery::SkipTiles { ratio: 1.0 },
        Forgery::LowRank { rows: 1 },
    ] {
        let verdict = judge(&ForgingProver { forgery, threads: 1 }, &challenge, 32).await;
        assert_eq!(verdict, Some(forgery.expected()), "{forgery:?}");
    }
}

#[tokio::test]
async fn the_wrapped_backend_is_honest_when_nothing_is_forged() {
    let forgery = Forgery::SkipTiles { ratio: 0.0 };
    assert_eq!(judge(&ForgingProver { forgery, threads: 2 }, &challenge(128, 2), 16).await, None);
    let honest = super::super::InProcessProver { threads: 2 };
    assert_eq!(judge(&honest, &challenge(128, 2), 16).await, None);
}

#[test]
fn leading_bits_are_those_of_a_float() {
    for (number, bits, kept) in
        [(0, 3, 0), (7, 3, 7), (-9, 3, -8), (1023, 4, 960), (i32::MAX, 1, 1 << 30), (i32::MIN, 1, i32::MIN)]
    {
        assert_eq!(leading(number, bits), kept, "{number} {bits}");
    }
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
        assert_eq!(judge(&ForgingProver { forgery, threads: 1 }, &challenge(128, 2), 16).await, None);
    }
    for forgery in [Forgery::RandomRoots, Forgery::Memory(Cheat::Honest)] {
        assert_eq!(judge_memory(&ForgingProver { forgery, threads: 1 }).await, None);
    }
}
