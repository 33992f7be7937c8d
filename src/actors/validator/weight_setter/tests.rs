//! What the setter decides, without a chain.

use super::board::Unlogged;
use super::foreign::{Intended, Known};
use super::rules::{Hold, Sender, entries, hold};
use super::*;
use crate::chain::{
    BlockHead, EpochClock, Hyperparameters, Metagraph, Neuron, PreparedWeights, Route, ShownCommit, Weights,
    WeightsShown,
};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::{Hash32, Netuid, Uid};
use crate::messages::chain_watcher::ChainView;
use crate::messages::validator::weight_setter::ScoreRow;
use crate::scoring::{Burn, Points, Scaling, Score};
use crate::store::Record;
use crate::store::records::WeightsRecord;

fn neuron(uid: u16, hotkey: u8) -> Neuron {
    Neuron { hotkey: Hotkey([hotkey; 32]), validator_permit: uid == 0, ..Neuron::idle(uid) }
}

fn view(neurons: Vec<Neuron>, hyperparameters: Hyperparameters) -> ChainView {
    let head = BlockHead { number: 10, hash: Hash32([0; 32]), timestamp_ms: 0 };
    let netuid = Netuid(1);
    let metagraph = Metagraph { netuid, head, epochs: EpochClock::Modulo { netuid, tempo: 5 }, neurons };
    ChainView::new(Arc::new(metagraph), Arc::new(hyperparameters), 10)
}

fn row(uid: u16, hotkey: u8, points: u64) -> ScoreRow {
    let total = Points(points * 1_000_000_000);
    let scaling = Scaling { max_devices: 8, max_base_micro: 4_000_000 };
    let score = Score { total, gpu: total, bonus: Points(0), scaling, parts: vec![] };
    ScoreRow { uid: Uid(uid), hotkey: Hotkey([hotkey; 32]), score }
}

#[test]
fn weights_are_written_behind_their_scores_in_one_batch_until_those_are_acknowledged() {
    let evidence = |kind| EvidenceRecord::one(kind, 1, serde_json::json!({ "epoch": 7 }));
    let intent = || WeightsRecord { id: 1, epoch: 7, block: 10, entries: vec![], prepared: None, at_ms: 1 };
    let kinds = |unlogged: &Unlogged| -> Vec<&'static str> {
        fn of(record: &Record) -> Vec<&'static str> {
            match record {
                Record::Batch(records) => records.iter().flat_map(of).collect(),
                Record::Evidence(evidence) => evidence.entries.iter().map(|e| e.kind.label()).collect(),
                _ => vec![],
            }
        }
        unlogged.with(intent(), evidence(Kind::Weights)).iter().flat_map(of).collect()
    };
    let mut unlogged = Unlogged::default();
    unlogged.scored(7, Record::Batch(vec![Record::Evidence(evidence(Kind::Scores))]));
    assert_eq!(kinds(&unlogged), ["scores", "weights"]);
    unlogged.acknowledged(6);
    assert_eq!(kinds(&unlogged), ["scores", "weights"], "that was an earlier epoch's");
    unlogged.acknowledged(7);
    assert_eq!(kinds(&unlogged), ["weights"]);
}

#[test]
fn weights_go_only_to_those_who_were_judged_in_the_slot() {
    let rows = [row(1, 1, 100), row(2, 2, 50), row(3, 3, 0)];
    let same = view(vec![neuron(0, 0), neuron(1, 1), neuron(2, 2), neuron(3, 3)], Hyperparameters::default());
    assert_eq!(entries(&rows, &same, None).unwrap(), [(Uid(1), 65_535), (Uid(2), 32_768)]);
    // Slot 1 went to another hotkey since.
    let other = view(vec![neuron(0, 0), neuron(1, 7), neuron(2, 2), neuron(3, 3)], Hyperparameters::default());
    assert_eq!(entries(&rows, &other, None).unwrap(), [(Uid(2), 65_535)]);
}

#[test]
fn the_subnets_least_number_and_largest_share_of_weights_are_kept() {
    let neurons = || vec![neuron(0, 0), neuron(1, 1), neuron(2, 2), neuron(3, 3)];
    let rows = [row(1, 1, 300), row(2, 2, 100), row(3, 3, 0)];
    let many = Hyperparameters { min_allowed_weights: 4, ..Hyperparameters::default() };
    assert_eq!(entries(&rows, &view(neurons(), many), None).unwrap().len(), 4);
    let flat = Hyperparameters { max_weights_limit: 32_768, ..Hyperparameters::default() };
    let weights = entries(&rows, &view(neurons(), flat), None).unwrap();
    let sum: u32 = weights.iter().map(|(_, w)| u32::from(*w)).sum();
    assert!(weights.iter().all(|(_, w)| u32::from(*w) * 2 <= sum + 2), "{weights:?}");
    let none = [row(1, 1, 0)];
    assert!(entries(&none, &view(neurons(), Hyperparameters::default()), None).unwrap().is_empty());
}

// === what is sent ===

#[test]
fn the_burn_goes_to_the_owners_uid_unless_another_is_named() {
    let owned = |owner_hotkey| {
        let rules = Hyperparameters { owner_hotkey, ..Hyperparameters::default() };
        view(vec![neuron(0, 0), neuron(1, 1), neuron(2, 2)], rules)
    };
    let rule = |uid| BurnRule { share_ppb: 500_000_000, uid };
    let burn = |uid| Ok(Some(Burn { uid: Uid(uid), share_ppb: 500_000_000 }));
    assert_eq!(rule(None).resolve(&owned(Some(Hotkey([2; 32])))), burn(2));
    assert_eq!(rule(Some(Uid(1))).resolve(&owned(Some(Hotkey([2; 32])))), burn(1));
    assert_eq!(BurnRule::default().resolve(&owned(None)), Ok(None));
    for unknown in [None, Some(Hotkey([9; 32]))] {
        assert!(rule(None).resolve(&owned(unknown)).unwrap_err().contains("set weights.burn_uid"));
    }
}

fn ask(own: Neuron, rules: Hyperparameters, head: u64, sender: Sender) -> Option<Hold> {
    let mut view = view(vec![own.clone()], rules);
    Arc::get_mut(&mut view.metagraph).unwrap().head.number = head;
    hold(&view, &own, &sender)
}

const SENDER: Sender = Sender { hotkey: Hotkey([0; 32]), version_key: 183, interval_blocks: 1, require_permit: true };

#[test]
fn what_the_chain_would_refuse_is_not_sent_and_told_with_what_helps() {
    let rules = || Hyperparameters { weights_rate_limit: 0, ..Hyperparameters::default() };
    let refused = |own, rules, text: &str| match ask(own, rules, 500, SENDER) {
        Some(Hold::Refused(why)) => assert!(why.contains(text), "{why}"),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(ask(neuron(0, 0), rules(), 500, SENDER), None);
    let poor = || Hyperparameters { stake_threshold_rao: 5, ..rules() };
    refused(neuron(0, 0), poor(), "add stake");
    refused(neuron(0, 0), Hyperparameters { weights_version_key: 184, ..rules() }, "version key 184");
    let without = || Neuron { validator_permit: false, ..neuron(0, 0) };
    refused(without(), rules(), "no validator permit");
    assert_eq!(ask(without(), rules(), 500, Sender { require_permit: false, ..SENDER }), None);
    // The subnet's owner needs neither stake nor permit.
    let owner = Hyperparameters { owner_hotkey: Some(SENDER.hotkey), ..poor() };
    assert_eq!(ask(without(), owner, 500, SENDER), None);
}

#[test]
fn the_rate_limit_is_kept_to_the_block_as_the_chain_counts_it() {
    let rules = || Hyperparameters { weights_rate_limit: 100, ..Hyperparameters::default() };
    let own = |registered_at, last_update| Neuron { registered_at, last_update, ..neuron(0, 0) };
    let interval = |interval_blocks| Sender { interval_blocks, ..SENDER };
    assert_eq!(ask(own(1, 50), rules(), 149, interval(1)), Some(Hold::TooSoon));
    assert_eq!(ask(own(1, 50), rules(), 150, interval(1)), None);
    assert_eq!(ask(own(1, 50), rules(), 150, interval(200)), Some(Hold::TooSoon));
    // A registration counts for the chain's limit, not for our interval; an update of 0 is none.
    assert_eq!(ask(own(50, 50), rules(), 149, interval(1)), Some(Hold::TooSoon));
    assert_eq!(ask(own(50, 50), rules(), 150, interval(200)), None);
    assert_eq!(ask(own(0, 0), rules(), 5, interval(200)), None);
}

// === ours and others' ===

const OTHERS: [(Uid, u16); 2] = [(Uid(1), 65_535), (Uid(2), 1)];

fn ours() -> Vec<(Uid, u16)> {
    vec![(Uid(1), 65_535), (Uid(2), 32_768)]
}

fn prepared(entries: Vec<(Uid, u16)>, hash: Option<u8>) -> PreparedWeights {
    let route = hash.map_or(Route::Plain, |n| Route::Hashed { salt: vec![1], hash: Hash32([n; 32]) });
    PreparedWeights { weights: Weights { entries, version_key: 0 }, mechanism: 0, route, at: 5, reveal: None }
}

fn shown(last_update: u64, entries: &[(Uid, u16)], commits: &[(u8, u64)]) -> WeightsShown {
    let commit = |(n, block): &(u8, u64)| ShownCommit { digest: Hash32([*n; 32]), block: Some(*block) };
    let commits = commits.iter().map(commit).collect();
    WeightsShown { at: last_update + 1, last_update, entries: entries.to_vec(), commits }
}

/// Intends weights in the open and by the commit 1, and has looked first when the chain had an update in block 7.
fn known(there: &[(u8, u64)]) -> Known {
    let mut known = Known::default();
    known.intended(&prepared(vec![(Uid(3), 65_535)], None));
    known.intended(&prepared(ours(), Some(1)));
    assert!(known.is_news(&Neuron { last_update: 7, ..neuron(0, 0) }), "nothing was looked at yet");
    assert_eq!(known.judge(&shown(7, &OTHERS, there), &[], 1), None, "that was there before");
    known
}

#[test]
fn only_newer_weights_that_were_never_intended_are_somebody_elses() {
    assert_eq!(known(&[]).judge(&shown(8, &OTHERS, &[]), &[], 1), Some(8));
    assert_eq!(known(&[]).judge(&shown(7, &OTHERS, &[]), &[], 1), None, "they were there when we first looked");
    assert_eq!(known(&[]).judge(&shown(8, &ours(), &[]), &[], 1), None);
    assert_eq!(known(&[]).judge(&shown(8, &[(Uid(3), 65_535)], &[]), &[], 1), None, "an earlier intent that came late");
    assert_eq!(known(&[]).judge(&shown(8, &[], &[]), &[], 1), None);
    assert_eq!(known(&[]).judge(&shown(8, &OTHERS, &[]), &[], 8), None, "registered anew");
}

#[test]
fn a_commit_moves_the_update_and_not_the_weights_and_is_told_from_somebody_elses() {
    // Our commit in block 9 is shown beside the weights of before.
    let mut answered = known(&[]);
    answered.updated(9);
    assert_eq!(answered.judge(&shown(9, &OTHERS, &[(1, 9)]), &[], 1), None);
    assert_eq!(answered.judge(&shown(9, &ours(), &[]), &[], 1), None, "and revealed later, without another update");
    // The same without an answer.
    let mut late = known(&[]);
    assert_eq!(late.judge(&shown(9, &OTHERS, &[(1, 9)]), &[], 1), None);
    // Somebody else's is told before its weights are seen, one that was there at the first look never.
    assert_eq!(known(&[]).judge(&shown(9, &ours(), &[(1, 8), (2, 9)]), &[], 1), Some(9));
    let mut before = known(&[(2, 6)]);
    assert_eq!(before.judge(&shown(7, &OTHERS, &[(2, 6)]), &[], 1), None);
    assert_eq!(before.judge(&shown(7, &[(Uid(4), 65_535)], &[]), &[], 1), None, "its reveal moves no update");
}

#[test]
fn a_commit_that_waits_for_its_reveal_stays_ours_whatever_was_tried_since() {
    let (mut known, waiting) = (known(&[]), prepared(ours(), Some(7)));
    known.intended(&waiting);
    for n in 0..40 {
        known.intended(&prepared(vec![(Uid(n), 65_535)], None));
    }
    assert_eq!(known.judge(&shown(9, &OTHERS, &[(7, 9)]), &[Intended::from(&waiting)], 1), None);
    assert_eq!(known.judge(&shown(9, &OTHERS, &[(7, 9)]), &[], 1), Some(9), "an ended one is forgotten at last");
    known.stays(Hash32([7; 32]));
    assert_eq!(known.judge(&shown(9, &OTHERS, &[(7, 9)]), &[], 1), None, "but one that was missed and stays");
}

#[test]
fn what_another_program_did_before_the_first_look_is_not_held_against_it_while_finality_follows() {
    let mut known = Known::default();
    let own = Neuron { last_update: 9, ..neuron(0, 0) };
    assert!(known.is_news(&own));
    // Block 9 is not final yet: its commit is not shown.
    let before = WeightsShown { at: 8, ..shown(7, &OTHERS, &[]) };
    assert_eq!(known.judge(&before, &[], 1), None);
    assert!(known.is_news(&own), "looked at again");
    assert_eq!(known.judge(&shown(9, &OTHERS, &[(3, 9)]), &[], 1), None);
    assert!(!known.is_news(&own));
    assert_eq!(known.judge(&shown(9, &OTHERS, &[(3, 9)]), &[], 1), None);
    assert_eq!(known.judge(&shown(10, &OTHERS, &[(3, 9), (4, 10)]), &[], 1), Some(10));
}

#[test]
fn an_update_is_news_until_a_finalised_block_explains_it() {
    let mut known = known(&[]);
    let own = |last_update| Neuron { last_update, ..neuron(0, 0) };
    assert!(!known.is_news(&own(7)));
    assert!(known.is_news(&own(9)));
    assert_eq!(known.judge(&shown(9, &ours(), &[]), &[], 1), None);
    assert!(!known.is_news(&own(9)));
}
