//! Every change of a log is found, and found where it is.

use std::sync::Arc;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

use super::*;
use crate::evidence::{Entry, EvidenceRecord, Identity, Limits, Log};
use crate::ids::Netuid;
use crate::wallet::Keypair;

/// A log of so many epochs in a few segments.
fn make(dir: &Path, epochs: u64, segment_bytes: u64) -> Head {
    let identity = Identity { keypair: Keypair::from_uri("//Alice").unwrap(), netuid: Netuid(1), program: "t".into() };
    let (mut log, _) = Log::open(dir, identity, Limits { segment_bytes, keep_bytes: u64::MAX }, None).unwrap();
    for epoch in 0..epochs {
        let entry = |kind, body| Entry { kind, at_ms: epoch, body };
        let miner = json!({"epoch": epoch, "roots": ["aa", "\u{e9}\n"], "n": u64::MAX, "leased": false});
        let entries = vec![
            entry(Kind::Miner, miner),
            entry(Kind::Epoch, json!({"epoch": epoch})),
            entry(Kind::Weights, json!({"epoch": epoch, "entries": [[1, 65_535]]})),
        ];
        log.append(&EvidenceRecord { entries, state: Some(Arc::new(json!({"at": epoch}))), closes: Some(epoch) })
            .unwrap();
        log.flush().unwrap();
        log.settle();
    }
    log.head().unwrap()
}

/// Changes one byte of a file for as long as it lives.
struct Flipped<'a> {
    path: &'a Path,
    sound: &'a [u8],
}

impl<'a> Flipped<'a> {
    fn new(path: &'a Path, sound: &'a [u8], at: usize, mask: u8) -> Self {
        let mut bytes = sound.to_vec();
        bytes[at] ^= mask;
        fs::write(path, bytes).unwrap();
        Flipped { path, sound }
    }
}

impl Drop for Flipped<'_> {
    fn drop(&mut self) {
        fs::write(self.path, self.sound).unwrap();
    }
}

fn located(problems: &[Problem], segment: u64, at: usize) -> bool {
    problems.iter().any(|p| p.segment == segment && p.bytes.contains(&(at as u64)))
}

#[test]
fn every_single_flipped_byte_of_a_log_is_found_and_located() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 2, 1);
    for segment in [1, 2] {
        let path = dir.path().join(segment_name(segment));
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            // In turn: one bit, a letter's case, and what makes a line end of a byte.
            let mask = [1, 0x20, sound[at] ^ b'\n'][at % 3];
            let mask = if mask == 0 { 0x80 } else { mask };
            let _flipped = Flipped::new(&path, &sound, at, mask);
            let (_, problems) = verify(dir.path(), None, None).unwrap();
            assert!(located(&problems, segment, at), "segment {segment}, byte {at}, mask {mask:#x}: {problems:?}");
            // The neighbours are not accused: one damaged line, or the two halves of a split one.
            assert!(problems.len() <= 2, "segment {segment}, byte {at}, mask {mask:#x}: {problems:#?}");
        }
    }
    assert_eq!(verify(dir.path(), None, None).unwrap().1, []);
}

#[test]
fn flipped_bytes_of_a_larger_log_are_found_and_located() {
    let dir = tempfile::tempdir().unwrap();
    let head = make(dir.path(), 60, 20_000);
    let mut rng = SmallRng::seed_from_u64(7);
    let all = segments(dir.path()).unwrap();
    assert!(all.len() >= 2, "{all:?}");
    for _ in 0..40 {
        let segment = all[rng.random_range(0..all.len())];
        let path = dir.path().join(segment_name(segment));
        let sound = fs::read(&path).unwrap();
        let (at, mask) = (rng.random_range(0..sound.len()), 1 << rng.random_range(0..8));
        let _flipped = Flipped::new(&path, &sound, at, mask);
        let (_, problems) = verify(dir.path(), Some(head), None).unwrap();
        assert!(located(&problems, segment, at), "segment {segment}, byte {at}, mask {mask:#x}: {problems:?}");
    }
}

#[test]
fn two_damaged_places_are_two_problems_with_their_records() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 6, 1 << 20);
    let path = dir.path().join(segment_name(1));
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replacen("\"entries\":[[1,65535]],\"epoch\":1", "\"entries\":[[2,65535]],\"epoch\":1", 1);
    let text = text.replacen("\"entries\":[[1,65535]],\"epoch\":4", "\"entries\":[[3,65535]],\"epoch\":4", 1);
    fs::write(&path, text).unwrap();
    let (report, problems) = verify(dir.path(), None, None).unwrap();
    let places: Vec<_> = problems.iter().map(|p| (p.kind.as_deref(), p.epoch)).collect();
    assert_eq!(places, [(Some("weights"), Some(1)), (Some("weights"), Some(4))], "{problems:#?}");
    assert!(report.to_text().ends_with("the log is damaged in 2 places\n"));
    let line = problems[0].to_string();
    assert!(line.starts_with("0000000001.log, line 8, bytes "), "{line}");
    assert!(line.contains(", record 7 (weights of epoch 1): the hash does not follow"), "{line}");
}

#[test]
fn a_log_that_was_rewritten_with_new_hashes_is_betrayed_by_its_seals_and_its_database() {
    let dir = tempfile::tempdir().unwrap();
    let head = make(dir.path(), 3, 1 << 20);
    let path = dir.path().join(segment_name(1));
    let mut prev = chain::genesis(&Keypair::from_uri("//Alice").unwrap().hotkey());
    let mut forged = String::new();
    for line in fs::read_to_string(&path).unwrap().lines() {
        let text = line[65..].replace("[[1,65535]]", "[[2,65535]]");
        prev = chain::next(&prev, text.as_bytes());
        forged += &format!("{prev} {text}\n");
    }
    fs::write(&path, forged).unwrap();
    let (_, problems) = verify(dir.path(), None, None).unwrap();
    assert_eq!(problems.iter().filter(|p| p.fault == Fault::WrongSeal).count(), 3, "{problems:?}");
    let (_, problems) = verify(dir.path(), Some(head), None).unwrap();
    assert!(matches!(problems.last().unwrap().fault, Fault::EndsEarly { .. }), "{problems:?}");
}

/// Writes every segment again with new hashes, without the lines that `keep` refuses, in the name of `of` and with its seals.
fn rewrite(dir: &Path, of: &Keypair, keep: impl Fn(&str) -> bool) {
    let (mut prev, mut seq) = (chain::genesis(&of.hotkey()), 0);
    for segment in segments(dir).unwrap() {
        let path = dir.join(segment_name(segment));
        let mut forged = String::new();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let mut record: Value = serde_json::from_str(&line[65..]).unwrap();
            let kind = record["kind"].as_str().unwrap().to_owned();
            if !keep(&kind) {
                continue;
            }
            if kind == "segment" {
                record["body"]["hotkey"] = json!(of.hotkey());
                record["body"]["prev"] = json!(prev);
                record["body"]["first_seq"] = json!(seq);
            } else if kind == "seal" {
                record["body"] = chain::seal(of, seq - 1, &prev);
            }
            let text = chain::text(seq, record["at_ms"].as_u64().unwrap(), &kind, &record["body"]).unwrap();
            prev = chain::next(&prev, text.as_bytes());
            forged += &format!("{prev} {text}\n");
            seq += 1;
        }
        fs::write(&path, forged).unwrap();
    }
}

#[test]
fn a_log_rewritten_without_its_seals_is_refused_at_every_weights_but_the_very_last() {
    let (alice, dir) = (Keypair::from_uri("//Alice").unwrap(), tempfile::tempdir().unwrap());
    make(dir.path(), 3, 1);
    rewrite(dir.path(), &alice, |_| true);
    assert_eq!(verify(dir.path(), None, Some(alice.hotkey())).unwrap().1, [], "the rewriting itself is sound");
    rewrite(dir.path(), &alice, |kind| kind != "seal");
    let (report, problems) = verify(dir.path(), None, None).unwrap();
    assert_eq!(report.seals, 0);
    // In each segment the weights are last: what follows the first two is the next segment's header.
    let places: Vec<_> = problems.iter().map(|p| (p.segment, p.epoch, p.kind.as_deref(), &p.fault)).collect();
    let unsealed = |segment, epoch| (segment, Some(epoch), Some("weights"), &Fault::Unsealed);
    assert_eq!(places, [unsealed(1, 0), unsealed(2, 1)], "the reader of a running log may come before its last seal");
}

#[test]
fn a_log_in_another_validators_name_is_refused_where_the_name_changes_or_one_is_demanded() {
    let (alice, mallory) = (Keypair::from_uri("//Alice").unwrap(), Keypair::from_uri("//Mallory").unwrap());
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), 3, 1);
    let sound = fs::read(dir.path().join(segment_name(1))).unwrap();
    rewrite(dir.path(), &mallory, |_| true);
    // Nothing contradicts itself; it says whose it is, and is not the demanded one's.
    let (report, problems) = verify(dir.path(), None, None).unwrap();
    assert_eq!((problems, report.hotkey), (vec![], Some(mallory.hotkey())));
    assert!(report.to_text().contains(&format!("validator {}\n", mallory.hotkey())), "{}", report.to_text());
    let (_, problems) = verify(dir.path(), None, Some(alice.hotkey())).unwrap();
    let fault = Fault::WrongHotkey { expected: alice.hotkey(), found: mallory.hotkey() };
    assert_eq!(problems.iter().map(|p| (p.segment, &p.fault)).collect::<Vec<_>>(), [(1, &fault)]);
    // Alice's first segment with Mallory's behind it, also where one between them is missing.
    fs::write(dir.path().join(segment_name(1)), sound).unwrap();
    let (_, problems) = verify(dir.path(), None, None).unwrap();
    assert!(problems.iter().any(|p| p.segment == 2 && p.fault == fault), "{problems:?}");
    fs::remove_file(dir.path().join(segment_name(2))).unwrap();
    let (_, problems) = verify(dir.path(), None, None).unwrap();
    assert!(problems.iter().any(|p| p.segment == 3 && p.fault == fault), "{problems:?}");
}

#[test]
fn a_log_that_ends_early_or_lacks_a_segment_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let head = make(dir.path(), 4, 1);
    let last = dir.path().join(segment_name(4));
    let content = fs::read_to_string(&last).unwrap();
    let cut: String = content.lines().take(2).map(|l| format!("{l}\n")).collect();
    fs::write(&last, &cut).unwrap();
    assert_eq!(verify(dir.path(), None, None).unwrap().1, [], "a log cut at a record's end looks whole by itself");
    let (_, problems) = verify(dir.path(), Some(head), None).unwrap();
    let end = cut.len() as u64;
    assert_eq!(problems.len(), 1);
    assert_eq!((problems[0].segment, problems[0].bytes.clone()), (4, end..end));
    assert_eq!(problems[0].fault, Fault::EndsEarly { seq: head.seq, hash: head.hash });

    fs::remove_file(dir.path().join(segment_name(2))).unwrap();
    let (_, problems) = verify(dir.path(), None, None).unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].fault, Fault::MissingSegments { from: 2, to: 2 });
    fs::remove_file(dir.path().join(segment_name(1))).unwrap();
    assert_eq!(verify(dir.path(), None, None).unwrap().1, [], "the oldest may go");
}

#[test]
fn segments_cannot_change_places_or_come_from_another_log() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make(dir.path(), 3, 1);
    make(other.path(), 3, 1);
    // Seals are randomised: the second segments differ, and each follows its own first.
    fs::copy(other.path().join(segment_name(2)), dir.path().join(segment_name(2))).unwrap();
    let (_, problems) = verify(dir.path(), None, None).unwrap();
    assert!(problems.iter().all(|p| matches!(p.fault, Fault::WrongLink { .. })), "{problems:?}");
    assert_eq!(problems.iter().map(|p| p.segment).collect::<Vec<_>>(), [2, 3]);
    fs::copy(dir.path().join(segment_name(1)), dir.path().join(segment_name(3))).unwrap();
    let (_, problems) = verify(dir.path(), None, None).unwrap();
    assert!(problems.iter().any(|p| p.segment == 3 && matches!(p.fault, Fault::WrongHeader(_))), "{problems:?}");
}

#[test]
fn arbitrary_bytes_are_problems_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = SmallRng::seed_from_u64(3);
    for length in [0, 1, 63, 64, 65, 66, 500] {
        let mut bytes = vec![0u8; length];
        rng.fill(&mut bytes[..]);
        fs::write(dir.path().join(segment_name(1)), &bytes).unwrap();
        assert!(!verify(dir.path(), None, None).unwrap().1.is_empty(), "{length}");
    }
}
