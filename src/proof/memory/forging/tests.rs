//! The adversary beside the honest backend. How each forgery fares is in the table of cheats (`src/cheats.rs`).

use super::*;
use crate::ids::{DeviceId, Hotkey};
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
