//! A replay follows an honest log through restarts, outages and segments, and names what does not follow.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::actors::validator::challenge_runner::memory;
use crate::actors::validator::challenge_runner::recorder::{Closed, Recorder};
use crate::evidence::record::{RulesBody, entry};
use crate::evidence::{EvidenceRecord, Identity, Limits, Log};
use crate::ids::{Coldkey, DeviceId, Hotkey, Netuid};
use crate::scoring::{Burn, DeviceFinding, HistoryRules, ModelRow, WeightLimits};
use crate::store::Record;
use crate::store::records::JudgeRecord;
use crate::verdict::{FailReason, PassEvidence, UnknownCause, Verdict};
use crate::wallet::Keypair;

fn table() -> ScoreTable {
    let row =
        |name: &str, base_micro| ModelRow { name: name.to_owned(), base_micro, timed: false, ..ModelRow::default() };
    ScoreTable::new(vec![row("cpu-1", 1_000_000), row("cpu-2", 2_000_000)], 8).unwrap()
}

/// What the round found about a miner: passes by default, now and then something else.
fn finding(epoch: Epoch, miner: u8) -> MinerFinding {
    let evidence = PassEvidence { operations: 1 << 30, elapsed_ns: 500_000_000 + epoch, samples: 66 };
    let verdict = match (epoch % 7, miner) {
        (3, 1) => Verdict::fail(FailReason::EntryMismatch, "tile 3"),
        (4 | 5, 2) => Verdict::unknown(UnknownCause::Timeout, "no roots"),
        _ => Verdict::Pass { evidence },
    };
    let device = DeviceFinding {
        device: DeviceId::cpu(miner),
        model: format!("cpu-{}", 1 + miner % 2),
        leased: miner == 0,
        verdict: if miner == 0 && epoch % 5 == 4 { None } else { Some(verdict) },
    };
    MinerFinding {
        uid: Uid(u16::from(miner) + 1),
        hotkey: Hotkey([miner; 32]),
        coldkey: Coldkey([9; 32]),
        refused: None,
        whole: None,
        devices: vec![device],
    }
}

/// A validator without its network: judge, recorder and log.
struct Validator {
    log: Log,
    judge: Judge,
    stored: Option<JudgeRecord>,
    rules: HistoryRules,
    recorder: Recorder,
}

impl Validator {
    fn start(dir: &Path, segment_bytes: u64) -> Self {
        let identity =
            Identity { keypair: Keypair::from_uri("//Alice").unwrap(), netuid: Netuid(1), program: "t".into() };
        let (log, _) = Log::open(dir, identity, Limits { segment_bytes, keep_bytes: u64::MAX }, None).unwrap();
        let judge = Judge::new(HistoryRules::default());
        let mut recorder = Recorder::default();
        recorder.remembered(&judge, None, 0).unwrap();
        Validator { log, judge, stored: None, rules: HistoryRules::default(), recorder }
    }

    /// A new process with what the database holds.
    fn restart(&mut self, rebuilt: Option<&str>) {
        self.judge = memory(Vec::new(), self.stored.as_ref(), &self.rules, &table()).0;
        self.recorder = Recorder::default();
        self.recorder.remembered(&self.judge, rebuilt, 0).unwrap();
    }

    fn write(&mut self, evidence: &EvidenceRecord) {
        self.log.append(evidence).unwrap();
        self.log.flush().unwrap();
        self.log.settle();
    }

    fn epoch(&mut self, epoch: Epoch) {
        self.epoch_with(epoch, |_| {}, |_| {});
    }

    /// Judges, scores and sets weights, and logs what the two functions make of the statements.
    fn epoch_with(&mut self, epoch: Epoch, scores: impl Fn(&mut ScoresBody), weights: impl Fn(&mut WeightsBody)) {
        let (table, at_ms) = (table(), 1_000_000 + epoch * 60_000);
        let findings: Vec<MinerFinding> = (0..4).map(|miner| finding(epoch, miner)).collect();
        self.judge.set_rules(self.rules.clone());
        let begun = self.recorder.begin(&self.judge, &table, at_ms).unwrap();
        let judged = self.judge.judge(epoch, at_ms, &table, &findings);
        let closed = Closed {
            epoch,
            block: epoch * 6,
            at_ms,
            receipts: None,
            findings: &findings,
            traces: HashMap::new(),
            judged: &judged,
            judge: &self.judge,
        };
        let [Record::Evidence(evidence), Record::Judge(stored)] = self.recorder.close(begun, closed).unwrap() else {
            panic!("an epoch is evidence and a judge");
        };
        self.stored = Some(stored);
        self.write(&evidence);
        let allocated = BTreeMap::from([(Hotkey([0; 32]), vec![DeviceId::cpu(0)])]);
        let rows = scoring::score_all(&table, &judged.miners, &allocated);
        let mut body =
            ScoresBody { epoch, rules: digest(&table).unwrap(), allocated, rows: ScoresBody::rows_of(&rows) };
        scores(&mut body);
        self.write(&EvidenceRecord {
            entries: vec![entry(Kind::Scores, at_ms, &body).unwrap()],
            state: None,
            closes: None,
        });
        let neurons: Vec<(Uid, Hotkey)> = findings.iter().map(|f| (f.uid, f.hotkey)).collect();
        let limits = WeightLimits { min_allowed: 1, max_weight: 40_000 };
        // Every third vector burns.
        let burn = (epoch % 3 == 2).then_some(Burn { uid: Uid(1), share_ppb: 300_000_000 });
        let entries = scoring::weigh_with(&rows, &neurons, &limits, burn.as_ref()).unwrap();
        let (block, mechanism) = (epoch * 6 + 3, 0);
        let mut body =
            WeightsBody { id: epoch, epoch, block, neurons, limits, version_key: 0, burn, mechanism, entries };
        weights(&mut body);
        self.write(&EvidenceRecord {
            entries: vec![entry(Kind::Weights, at_ms, &body).unwrap()],
            state: None,
            closes: None,
        });
    }
}

fn temp() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_path_buf();
    (dir, path)
}

#[test]
fn an_honest_log_follows_through_segments_restarts_and_outages() {
    let (_guard, dir) = temp();
    let mut validator = Validator::start(&dir, 8_000);
    (0..12).for_each(|epoch| validator.epoch(epoch));
    validator.restart(None);
    (12..15).for_each(|epoch| validator.epoch(epoch));
    let outage = OutageBody { from: 15, to: 18, lost_ms: 240_000 };
    validator.judge.outage(outage.from, outage.to, outage.lost_ms);
    validator.recorder.outage(outage, 0).unwrap();
    (19..30).for_each(|epoch| validator.epoch(epoch));
    assert!(validator.log.head().unwrap().segment > 2, "the log went through segments");
    let all = replay(&dir, None).unwrap();
    assert!(all.holds(), "{}", all.to_text(99));
    assert_eq!((all.epochs.len(), all.vectors.len()), (26, 26));
    assert!(all.epochs.iter().all(|e| e.scores == Some(true) && e.weights == 1));
    assert_eq!(all.notes, Vec::<String>::new());
    let sentence = "the last weight vector (epoch 29, 4 entries, whether included is not known) follows from the log, bit for bit\n";
    assert!(all.to_text(1).ends_with(sentence), "{}", all.to_text(1));
    let alice = Keypair::from_uri("//Alice").unwrap().hotkey();
    assert_eq!(all.hotkey, Some(alice));
    assert!(all.to_text(1).starts_with(&format!("validator {alice}\n")), "{}", all.to_text(1));

    // Whose log it is can be demanded.
    assert!(replay(&dir, Some(alice)).unwrap().holds());
    let other = replay(&dir, Some(Hotkey([7; 32]))).unwrap();
    assert!(!other.holds() && other.epochs.is_empty(), "{}", other.to_text(99));

    // The oldest segments are gone: it begins where the log does, and only what hangs on the past is left out.
    std::fs::remove_file(dir.join("0000000001.log")).unwrap();
    std::fs::remove_file(dir.join("0000000002.log")).unwrap();
    let rest = replay(&dir, None).unwrap();
    assert!(rest.holds(), "{}", rest.to_text(99));
    assert!(rest.epochs.len() < all.epochs.len() && rest.epochs.last() == all.epochs.last());
}

#[test]
fn rules_that_changed_while_the_validator_was_out_hold_from_the_next_epoch_on() {
    let (_guard, dir) = temp();
    let mut validator = Validator::start(&dir, 1 << 20);
    // Miner 2's proof has just run out, by the rules of then.
    (0..=5).for_each(|epoch| validator.epoch(epoch));
    validator.rules.pass_epochs = 5;
    validator.restart(None);
    let outage = OutageBody { from: 6, to: 8, lost_ms: 180_000 };
    validator.judge.outage(outage.from, outage.to, outage.lost_ms);
    validator.recorder.outage(outage, 0).unwrap();
    (9..12).for_each(|epoch| validator.epoch(epoch));
    let all = replay(&dir, None).unwrap();
    assert!(all.holds(), "{}", all.to_text(99));
}

#[test]
fn a_judge_that_was_rebuilt_is_taken_from_the_log_and_said_so() {
    let (_guard, dir) = temp();
    let mut validator = Validator::start(&dir, 1 << 20);
    validator.epoch(0);
    let lost = Judge::new(HistoryRules { misses: 5, ..HistoryRules::default() });
    validator.stored = Some(JudgeRecord { epoch: 0, json: serde_json::to_value(&lost).unwrap().into() });
    validator.restart(Some("the database was lost"));
    validator.epoch(1);
    let replay = replay(&dir, None).unwrap();
    assert!(replay.holds(), "{}", replay.to_text(9));
    assert!(replay.notes.iter().any(|n| n.contains("the database was lost")), "{:?}", replay.notes);

    // Without saying so it is a difference.
    let (_guard, dir) = temp();
    let mut validator = Validator::start(&dir, 1 << 20);
    validator.epoch(0);
    validator.stored = Some(JudgeRecord { epoch: 0, json: serde_json::to_value(&lost).unwrap().into() });
    validator.restart(None);
    validator.epoch(1);
    let replay = super::replay(&dir, None).unwrap();
    assert!(replay.differences.iter().any(|d| d.what.contains("was judged from the state")), "{}", replay.to_text(9));
}

#[test]
fn a_score_or_weight_that_does_not_follow_is_named_with_its_epoch_and_uid() {
    let (_guard, dir) = temp();
    let mut validator = Validator::start(&dir, 1 << 20);
    validator.epoch(0);
    validator.epoch_with(1, |scores| scores.rows[2].2.0 += 1, |_| {});
    validator.epoch_with(2, |_| {}, |weights| weights.entries[0].1 -= 1);
    let replay = replay(&dir, None).unwrap();
    let named: Vec<_> = replay.differences.iter().map(|d| (d.epoch, d.uid)).collect();
    assert_eq!(named, [(Some(1), Some(Uid(3))), (Some(2), Some(Uid(1)))], "{}", replay.to_text(9));
    assert!(replay.differences[1].what.starts_with("the weight: "), "{}", replay.to_text(9));
    assert!(!replay.holds());
    assert!(replay.verdict().contains(") does not follow"), "{}", replay.verdict());
}

#[test]
fn the_last_vector_is_named_with_what_the_log_says_became_of_it() {
    let (_guard, dir) = temp();
    let mut validator = Validator::start(&dir, 1 << 20);
    validator.epoch(0);
    for (status, block, said) in [
        (WeightsStatus::Pending, None, "entries, whether included is not known) follows"),
        (WeightsStatus::Failed, None, "entries, refused or not included) follows"),
        (WeightsStatus::Included, Some(77), "entries, included at block 77) follows"),
        (WeightsStatus::Committed, Some(78), "entries, committed, whether revealed is not known) follows"),
        (WeightsStatus::Revealed, Some(79), "entries, revealed by block 79) follows"),
        (WeightsStatus::Missed, None, "entries, committed and not revealed in time) follows"),
        (WeightsStatus::Unequal, None, "entries, the chain shows others in their place) follows"),
        (WeightsStatus::Shadow, None, "entries, never meant to be sent) follows"),
    ] {
        let body = WeightsStatusBody { id: 0, status, block };
        validator.write(&EvidenceRecord::one(Kind::WeightsStatus, 1, serde_json::to_value(&body).unwrap()));
        let verdict = replay(&dir, None).unwrap().verdict();
        assert!(verdict.contains(said), "{verdict}");
    }
}

#[test]
fn weights_at_the_end_of_a_log_that_bear_no_seal_do_not_hold() {
    let (_guard, dir) = temp();
    Validator::start(&dir, 1 << 20).epoch(0);
    assert!(replay(&dir, None).unwrap().holds());
    let path = dir.join("0000000001.log");
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.last().unwrap().contains("\"kind\":\"seal\""));
    std::fs::write(&path, lines[..lines.len() - 1].join("\n") + "\n").unwrap();
    let unsealed = replay(&dir, None).unwrap();
    assert!(!unsealed.holds(), "{}", unsealed.to_text(9));
    assert!(unsealed.verdict().ends_with("follows from the log, but bears no seal"), "{}", unsealed.verdict());
}

#[test]
fn rules_under_a_wrong_name_and_records_of_a_wrong_form_are_differences() {
    let (_guard, dir) = temp();
    let mut validator = Validator::start(&dir, 1 << 20);
    validator.epoch(0);
    let body = RulesBody { digest: Hash32([1; 32]), table: table(), history: None };
    validator.write(&EvidenceRecord::one(Kind::Rules, 1, serde_json::to_value(&body).unwrap()));
    validator.write(&EvidenceRecord::one(Kind::Outage, 1, json!({ "from": 1 })));
    let replay = replay(&dir, None).unwrap();
    assert_eq!(replay.differences.len(), 2, "{}", replay.to_text(9));
    assert!(replay.verdict().contains("but 2 other statements of it do not"), "{}", replay.verdict());
}

#[test]
fn an_empty_log_holds_nothing_and_says_so() {
    let (_guard, dir) = temp();
    let replay = replay(&dir, None).unwrap();
    assert!(!replay.holds());
    assert_eq!(replay.verdict(), "the log holds no weight vector yet");
}
