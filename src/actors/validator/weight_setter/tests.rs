//! What the setter decides, without a chain.

use super::board::Unlogged;
use super::foreign::foreign;
use super::reconcile::entries;
use super::*;
use crate::chain::{BlockHead, Hyperparameters, Metagraph, Neuron};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::{Coldkey, Hash32, Netuid};
use crate::messages::chain_watcher::ChainView;
use crate::messages::validator::weight_setter::ScoreRow;
use crate::scoring::{Points, Scaling, Score};
use crate::store::Record;
use crate::store::records::WeightsRecord;

fn neuron(uid: u16, hotkey: u8) -> Neuron {
    Neuron {
        uid: Uid(uid),
        hotkey: Hotkey([hotkey; 32]),
        coldkey: Coldkey([9; 32]),
        stake_rao: 0,
        validator_permit: uid == 0,
        active: true,
        axon: None,
        prometheus: None,
        registered_at: 1,
        last_update: 1,
        incentive: 0,
        dividends: 0,
        standing: crate::chain::Standing::default(),
        weights: vec![],
    }
}

fn view(neurons: Vec<Neuron>, hyperparameters: Hyperparameters) -> ChainView {
    let head = BlockHead { number: 10, hash: Hash32([0; 32]), timestamp_ms: 0 };
    let metagraph = Arc::new(Metagraph { netuid: Netuid(1), head, tempo: 5, neurons });
    ChainView {
        metagraph,
        hyperparameters: Arc::new(hyperparameters),
        slots: None,
        block_time: None,
        seen_at: Instant::now(),
    }
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
    let intent = || WeightsRecord { id: 1, epoch: 7, block: 10, entries: vec![], at_ms: 1 };
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
    assert_eq!(entries(&rows, &same).unwrap(), [(Uid(1), 65_535), (Uid(2), 32_768)]);
    // Slot 1 went to another hotkey since.
    let other = view(vec![neuron(0, 0), neuron(1, 7), neuron(2, 2), neuron(3, 3)], Hyperparameters::default());
    assert_eq!(entries(&rows, &other).unwrap(), [(Uid(2), 65_535)]);
}

#[test]
fn the_subnets_least_number_and_largest_share_of_weights_are_kept() {
    let neurons = || vec![neuron(0, 0), neuron(1, 1), neuron(2, 2), neuron(3, 3)];
    let rows = [row(1, 1, 300), row(2, 2, 100), row(3, 3, 0)];
    let many = Hyperparameters { min_allowed_weights: 4, ..Hyperparameters::default() };
    assert_eq!(entries(&rows, &view(neurons(), many)).unwrap().len(), 4);
    let flat = Hyperparameters { max_weights_limit: 32_768, ..Hyperparameters::default() };
    let weights = entries(&rows, &view(neurons(), flat)).unwrap();
    let sum: u32 = weights.iter().map(|(_, w)| u32::from(*w)).sum();
    assert!(weights.iter().all(|(_, w)| u32::from(*w) * 2 <= sum + 2), "{weights:?}");
    let none = [row(1, 1, 0)];
    assert!(entries(&none, &view(neurons(), Hyperparameters::default())).unwrap().is_empty());
}

#[test]
fn only_newer_weights_that_were_never_intended_are_somebody_elses() {
    let ours = vec![(Uid(1), 65_535), (Uid(2), 32_768)];
    let intents = VecDeque::from([vec![(Uid(3), 65_535)], ours.clone()]);
    let on_chain =
        |weights: &[(Uid, u16)], last_update| Neuron { last_update, weights: weights.to_vec(), ..neuron(0, 0) };
    let others = [(Uid(1), 65_535), (Uid(2), 1)];
    assert!(foreign(&on_chain(&others, 8), 7, &intents));
    assert!(!foreign(&on_chain(&others, 7), 7, &intents), "they were there when we first looked");
    assert!(!foreign(&on_chain(&ours, 8), 7, &intents));
    assert!(!foreign(&on_chain(&[(Uid(3), 65_535)], 8), 7, &intents), "an earlier intent that came late");
    assert!(!foreign(&on_chain(&[], 8), 7, &intents));
    let anew = Neuron { registered_at: 8, ..on_chain(&others, 8) };
    assert!(!foreign(&anew, 7, &intents), "registered anew");
}
