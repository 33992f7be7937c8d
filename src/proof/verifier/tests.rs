use std::sync::atomic::AtomicBool;

use super::*;
use crate::ids::{DeviceId, Hash32, Hotkey};
use crate::proof::cpu::{self, CpuCommitment};
use crate::proof::{Work, sample_positions};

static GO: AtomicBool = AtomicBool::new(false);

/// An honest answer to a small challenge: 16 tiles, 2 rounds, 8 positions.
struct Answer {
    challenge: Challenge,
    made: CpuCommitment,
    positions: Vec<Position>,
    openings: Vec<u8>,
}

fn honest() -> Answer {
    let work = Work::new(128, 64, 2).unwrap();
    let challenge = Challenge { nonce: [5; 32], epoch: 1, hotkey: Hotkey([6; 32]), device: DeviceId::cpu(2), work };
    let made = cpu::commit(&challenge, 1, &GO).unwrap();
    let positions = sample_positions(&work, 8, &[1; 32]);
    let openings = made.open(&positions, &GO).unwrap();
    Answer { challenge, made, positions, openings }
}

impl Answer {
    fn check(&self) -> Result<Checked, Rejection> {
        check_openings(&self.challenge, self.made.roots(), &self.positions, &self.openings)
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
fn every_entry_of_a_small_product_is_accepted() {
    let work = Work::new(32, 64, 1).unwrap();
    let challenge = Challenge { work, ..honest().challenge };
    let made = cpu::commit(&challenge, 1, &GO).unwrap();
    let all: Vec<Position> = (0..32 * 32).map(|i| Position { round: 0, row: i / 32, col: i % 32 }).collect();
    let openings = made.open(&all[..64], &GO).unwrap();
    assert_eq!(check_openings(&challenge, made.roots(), &all[..64], &openings), Ok(Checked { samples: 64 }));
}

#[test]
fn any_single_bit_flipped_in_an_opening_is_a_path_mismatch_that_names_the_place() {
    let answer = honest();
    let one = answer.challenge.work.opening_len();
    for at in [0, 4095, 4096, one - 1] {
        let mut wrong = honest();
        wrong.openings[3 * one + at] ^= 0x10;
        let rejection = wrong.check().unwrap_err();
        assert_eq!(rejection.reason, FailReason::PathMismatch);
        let position = wrong.positions[3];
        let tile = position.tile_index(&wrong.challenge.work);
        let expected = format!("CPU-2, round {}, tile {tile}: the path does not lead to the root", position.round);
        assert_eq!(rejection.detail, expected);
    }
}

#[test]
fn a_true_tile_of_another_place_is_a_path_mismatch() {
    for change in [
        |p: &mut Position| p.row ^= 32,  // the bit of the first right-or-left turn but in rows
        |p: &mut Position| p.col ^= 32,  // the lowest bit of the tile's index
        |p: &mut Position| p.row ^= 64,  // the highest one
        |p: &mut Position| p.round ^= 1, // another round
    ] {
        let mut answer = honest();
        let mut elsewhere = answer.positions.clone();
        change(&mut elsewhere[0]);
        answer.openings = answer.made.open(&elsewhere, &GO).unwrap();
        assert_eq!(answer.reason(), FailReason::PathMismatch);
    }
}

#[test]
fn a_path_with_siblings_on_the_wrong_side_is_a_path_mismatch() {
    // The prover hashes as if its index had one side bit flipped: it would need the other child's place.
    let answer = honest();
    let work = answer.challenge.work;
    let position = answer.positions[0];
    let bytes = &answer.openings[..TILE_BYTES];
    let path = &answer.openings[TILE_BYTES..work.opening_len()];
    let mut seed = answer.challenge.seed_0();
    for root in &answer.made.roots()[..position.round as usize] {
        seed = seed.next(root);
    }
    let keys = seed.keys();
    let leaf = merkle::leaf(&keys.leaf, bytes);
    let index = position.tile_index(&work);
    let root = answer.made.roots()[position.round as usize];
    assert_eq!(merkle::walk(&keys.node, leaf, index, path), root);
    for bit in 0..work.depth() {
        assert_ne!(merkle::walk(&keys.node, leaf, index ^ (1 << bit), path), root, "bit {bit}");
    }
}

#[test]
fn lengths_that_are_not_exact_are_refused_before_anything_is_hashed() {
    for change in [
        |o: &mut Vec<u8>| o.truncate(o.len() - 1),
        |o: &mut Vec<u8>| o.push(0),
        |o: &mut Vec<u8>| o.clear(),
        |o: &mut Vec<u8>| o.extend_from_within(..4096 + 4 * 32),
    ] {
        let mut answer = honest();
        change(&mut answer.openings);
        assert_eq!(answer.reason(), FailReason::WrongLength);
    }
    let mut answer = honest();
    answer.openings.pop();
    let one = answer.challenge.work.opening_len();
    let expected = format!("CPU-2: {} bytes of openings, 8 positions take {} ({one} each)", 8 * one - 1, 8 * one);
    assert_eq!(answer.check().unwrap_err().detail, expected);
}

#[test]
fn roots_must_be_one_for_each_round() {
    let answer = honest();
    let roots = answer.made.roots();
    assert_eq!(check_roots(&answer.challenge, roots), Ok(()));
    for wrong in [&roots[..1], &[], &[Hash32([0; 32]); 3]] {
        let rejection = check_roots(&answer.challenge, wrong).unwrap_err();
        assert_eq!(rejection.reason, FailReason::WrongRounds);
        assert_eq!(rejection.detail, format!("CPU-2: {} roots for 2 rounds", wrong.len()));
        let openings = check_openings(&answer.challenge, wrong, &answer.positions, &answer.openings);
        assert_eq!(openings.unwrap_err().reason, FailReason::WrongRounds);
    }
}

#[test]
fn the_same_answer_to_another_challenge_fails() {
    let answer = honest();
    let mut others = vec![answer.challenge.clone(); 4];
    others[0].nonce[0] ^= 1;
    others[1].epoch += 1;
    others[2].hotkey = Hotkey([7; 32]);
    others[3].device = DeviceId::cpu(3);
    for other in others {
        let result = check_openings(&other, answer.made.roots(), &answer.positions, &answer.openings);
        assert_eq!(result.unwrap_err().reason, FailReason::PathMismatch, "{other:?}");
    }
}

#[test]
fn a_consistent_tree_over_a_wrong_entry_is_an_entry_mismatch_with_both_values() {
    // One tile, so that the root is its leaf: the smallest consistent lie.
    let work = Work::new(32, 64, 1).unwrap();
    let challenge = Challenge { work, ..honest().challenge };
    let made = cpu::commit(&challenge, 1, &GO).unwrap();
    let position = Position { round: 0, row: 3, col: 4 };
    let mut tile = made.open(&[position], &GO).unwrap();
    let at = 4 * position.within_tile();
    tile[at] ^= 1;
    let root = merkle::leaf(&challenge.seed_0().keys().leaf, &tile);
    let rejection = check_openings(&challenge, &[root], &[position], &tile).unwrap_err();
    assert_eq!(rejection.reason, FailReason::EntryMismatch);
    let right = entry(&challenge.seed_0().keys(), &position, work.k);
    let detail = format!("CPU-2, round 0, tile 0, row 3, column 4: the tile has {}, the product {right}", right ^ 1);
    assert_eq!(rejection.detail, detail);
    // A lie elsewhere in the tile is not seen from here.
    let elsewhere = Position { round: 0, row: 3, col: 5 };
    assert!(check_openings(&challenge, &[root], &[elsewhere], &tile).is_ok());
}
