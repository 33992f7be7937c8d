use std::sync::atomic::AtomicBool;

use super::*;
use crate::ids::{DeviceId, Hash32, Hotkey};
use crate::proof::memory::cpu::{self, Scanned};
use crate::proof::memory::{Size, sample_positions};
use proptest::prelude::*;

static GO: AtomicBool = AtomicBool::new(false);
const NONCE: ScanNonce = ScanNonce([9; 32]);

/// An honest answer to a small challenge: 36 blocks in 9 of 16 leaves, 3 scans, 8 positions.
struct Answer {
    challenge: Challenge,
    made: Scanned,
    positions: Vec<Position>,
    openings: Vec<u8>,
}

fn challenge(size: Size) -> Challenge {
    Challenge { nonce: [5; 32], epoch: 1, hotkey: Hotkey([6; 32]), device: DeviceId::cpu(2), size }
}

fn honest() -> Answer {
    let challenge = challenge(Size::new(36, 2, 3).unwrap());
    let made = cpu::fill(&challenge, 1, u64::MAX, &GO).unwrap().scan(NONCE, &GO).unwrap();
    let positions = sample_positions(&challenge.size, 8, &[1; 32]);
    let openings = made.open(&positions, &GO).unwrap();
    Answer { challenge, made, positions, openings }
}

impl Answer {
    fn check(&self) -> Result<Checked, Rejection> {
        check_openings(&self.challenge, &NONCE, self.made.roots(), &self.positions, &self.openings)
    }

    fn reason(&self) -> FailReason {
        self.check().unwrap_err().reason
    }
}

#[test]
fn an_honest_answer_passes_with_every_sample_counted() {
    assert_eq!(honest().check(), Ok(Checked { samples: 8 }));
}

#[test]
fn any_single_bit_flipped_in_an_opening_is_a_mismatch_that_names_the_place() {
    let one = honest().challenge.size.opening_len();
    assert_eq!(one, 48 + 4 * 32);
    for at in [0, 15, 16, 47, 48, one - 1] {
        let mut wrong = honest();
        wrong.openings[3 * one + at] ^= 0x10;
        let rejection = wrong.check().unwrap_err();
        assert_eq!((rejection.reason, rejection.opening), (FailReason::MemoryMismatch, Some(3)));
        let Position { scan, block } = wrong.positions[3];
        let expected =
            format!("CPU-2, scan {scan}, block {block}: the block and what was opened with it do not lead to the root");
        assert_eq!(rejection.detail, expected);
    }
}

#[test]
fn the_true_opening_of_another_place_is_a_mismatch() {
    for change in [
        |p: &mut Position| p.block ^= 1,                 // another of the same group
        |p: &mut Position| p.block = (p.block + 4) % 36, // the same place of another group
        |p: &mut Position| p.scan = (p.scan + 1) % 3,    // another scan
    ] {
        let mut answer = honest();
        let mut elsewhere = answer.positions.clone();
        change(&mut elsewhere[0]);
        answer.openings = answer.made.open(&elsewhere, &GO).unwrap();
        assert_eq!(answer.reason(), FailReason::MemoryMismatch);
    }
}

#[test]
fn lengths_that_are_not_exact_are_refused_before_anything_is_made() {
    for change in [
        |o: &mut Vec<u8>| o.truncate(o.len() - 1),
        |o: &mut Vec<u8>| o.push(0),
        |o: &mut Vec<u8>| o.clear(),
        |o: &mut Vec<u8>| o.extend_from_within(..48 + 4 * 32),
    ] {
        let mut answer = honest();
        change(&mut answer.openings);
        assert_eq!(answer.reason(), FailReason::WrongLength);
    }
    let mut answer = honest();
    answer.openings.pop();
    let expected = "CPU-2: 1407 bytes of openings, 8 positions take 1408 (176 each)";
    assert_eq!(answer.check().unwrap_err().detail, expected);
}

#[test]
fn roots_must_be_one_for_each_scan() {
    let answer = honest();
    let roots = answer.made.roots();
    assert_eq!(check_roots(&answer.challenge, roots), Ok(()));
    for wrong in [&roots[..2], &[], &[Hash32([0; 32]); 4]] {
        let rejection = check_roots(&answer.challenge, wrong).unwrap_err();
        assert_eq!(rejection.reason, FailReason::WrongScans);
        assert_eq!(rejection.detail, format!("CPU-2: {} roots for 3 scans", wrong.len()));
        let checked = check_openings(&answer.challenge, &NONCE, wrong, &answer.positions, &answer.openings);
        assert_eq!(checked.unwrap_err().reason, FailReason::WrongScans);
    }
}

#[test]
fn the_same_answer_to_another_challenge_or_nonce_fails() {
    let answer = honest();
    let check = |challenge: &Challenge, nonce: &ScanNonce| {
        check_openings(challenge, nonce, answer.made.roots(), &answer.positions, &answer.openings)
    };
    let mut others = vec![answer.challenge.clone(); 6];
    others[0].nonce[0] ^= 1;
    others[1].epoch += 1;
    others[2].hotkey = Hotkey([7; 32]);
    others[3].device = DeviceId::cpu(3);
    others[4].size = Size::new(40, 2, 3).unwrap();
    others[5].size = Size::new(36, 4, 3).unwrap();
    for other in others {
        assert_eq!(check(&other, &NONCE).unwrap_err().reason, FailReason::MemoryMismatch, "{other:?}");
    }
    let rejection = check(&answer.challenge, &ScanNonce([8; 32])).unwrap_err();
    assert_eq!(rejection.reason, FailReason::MemoryMismatch);
}

#[test]
fn kernels_agree_on_what_is_right() {
    let a = honest();
    for kernel in Kernel::all() {
        let checked = check_openings_with(kernel, &a.challenge, &NONCE, a.made.roots(), &a.positions, &a.openings);
        assert_eq!(checked, Ok(Checked { samples: 8 }));
    }
}

proptest! {
    #[test]
    fn no_bytes_from_outside_make_it_panic(
        roots in proptest::collection::vec(any::<[u8; 32]>(), 0..5),
        openings in proptest::collection::vec(any::<u8>(), 0..400),
        blocks in 1u64..40,
    ) {
        let challenge = challenge(Size::new(4 * blocks, 1, 3).unwrap());
        let roots: Vec<Root> = roots.into_iter().map(Hash32).collect();
        for q in 0..3 {
            let positions = sample_positions(&challenge.size, q, &[1; 32]);
            let checked = check_openings(&challenge, &NONCE, &roots, &positions, &openings);
            prop_assert_eq!(checked.is_ok(), roots.len() == 3 && q == 0 && openings.is_empty());
            let mut exact = openings.clone();
            exact.resize(q * challenge.size.opening_len(), 0);
            let checked = check_openings(&challenge, &NONCE, &roots, &positions, &exact);
            prop_assert_eq!(checked.is_ok(), roots.len() == 3 && q == 0);
        }
    }
}
