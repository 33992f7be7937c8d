//! The promises of the scoring rules, one test each.

use std::time::Duration;

use proptest::prelude::*;

use super::history::{DeviceHistory, HistoryRules};
use super::receipt::{Ineligible, Party, ReceiptProblem, ReceiptRules, count};
use super::*;
use crate::ids::{Coldkey, DeviceId, Hotkey, LeaseId, Uid};
use crate::verdict::{FailReason, PassEvidence, UnknownCause, Verdict};

const T: f64 = 1e12;

fn row(name: &str, base: f64, nominal: f64) -> ModelRow {
    ModelRow {
        name: name.into(),
        base,
        nominal_ops: Some(nominal),
        floor_ops: Some(nominal * 0.75),
        aliases: Vec::new(),
        twin: None,
        timed: true,
    }
}

/// Bases of the mission's list; the rates are round numbers for the tests.
fn table() -> ScoreTable {
    let rows = vec![
        row("NVIDIA H200", 4.00, 1_600.0 * T),
        ModelRow { aliases: vec!["H100 SXM".into()], ..row("NVIDIA H100 80GB HBM3", 3.30, 1_500.0 * T) },
        row("NVIDIA A100-SXM4-80GB", 1.90, 500.0 * T),
        row("NVIDIA RTX A4500", 0.34, 150.0 * T),
        ModelRow { nominal_ops: None, floor_ops: None, ..row("NVIDIA L4", 0.20, 1.0) },
    ];
    ScoreTable::new(rows, DEFAULT_MAX_DEVICES).unwrap()
}

fn pass(rate: f64) -> Verdict {
    Verdict::Pass { evidence: PassEvidence { operations: rate as u64, elapsed_ns: 1_000_000_000, samples: 66 } }
}

fn unknown(cause: UnknownCause) -> Verdict {
    Verdict::unknown(cause, "seen")
}

fn judged(device: u8, model: &str, verdict: Verdict) -> DeviceJudgement {
    DeviceJudgement { device: DeviceId([device; 16]), model: model.into(), verdict, kept_rate: None }
}

fn machine(model: &str, count: u8, rate: f64) -> Vec<DeviceJudgement> {
    (1..=count).map(|i| judged(i, model, pass(rate))).collect()
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

// === the table ===

#[test]
fn a_model_is_found_by_exact_name_or_alias_and_never_by_a_part() {
    let table = table();
    assert_eq!(table.find("H100 SXM").map(|r| r.base), Some(3.30));
    for name in ["H100", "nvidia h200", "NVIDIA H200 NVL", ""] {
        assert_eq!(table.find(name), None, "{name:?}");
    }
}

#[test]
fn all_problems_of_a_table_are_reported_at_once() {
    let rows = vec![
        ModelRow { floor_ops: Some(50.0 * T), ..row("dear", 2.0, 100.0 * T) },
        row("cheap", 1.0, 120.0 * T),
        ModelRow { base: f64::NAN, twin: Some("nobody".into()), ..row("cheap", 1.0, 1.0) },
        ModelRow { nominal_ops: None, ..row("floor only", 3.0, 100.0 * T) },
        ModelRow { timed: false, ..row("cpu-1", 0.1, 100.0 * T) },
    ];
    let TableError(problems) = ScoreTable::new(rows, 0).unwrap_err();
    let has = |f: fn(&TableProblem) -> bool| problems.iter().any(f);
    assert!(has(|p| matches!(p, TableProblem::NoDevices)));
    assert!(has(|p| matches!(p, TableProblem::FloorShare { share, .. } if *share == 0.5)));
    assert!(has(
        |p| matches!(p, TableProblem::PassesAsTwo { model, cheaper, .. } if model == "dear" && cheaper == "cheap")
    ));
    assert!(has(|p| matches!(p, TableProblem::Name { name, .. } if name == "cheap")));
    assert!(has(|p| matches!(p, TableProblem::Base { .. })));
    assert!(has(|p| matches!(p, TableProblem::Twin { .. })));
    assert!(has(|p| matches!(p, TableProblem::FloorWithoutNominal(m) if m == "floor only")));
    assert!(has(|p| matches!(p, TableProblem::FloorOnUntimed(m) if m == "cpu-1")));
    let text = TableError(problems).to_string();
    assert!(text.contains("dear: the floor is 0.50 of the nominal rate"), "{text}");
    assert_eq!(ScoreTable::new(Vec::new(), 8).unwrap_err().0, [TableProblem::NoRows]);
}

#[test]
fn a_claim_below_its_floor_fails_and_one_at_the_floor_does_not() {
    let row = row("m", 1.0, 100.0);
    assert_eq!(judge_rate(&row, 75.0), None);
    assert_eq!(judge_rate(&row, 74.9), Some(FailReason::BelowFloor));
    assert_eq!(judge_rate(&row, f64::NAN), Some(FailReason::BelowFloor));
    assert_eq!(judge_rate(&ModelRow { timed: false, ..row }, 1.0), None);
}

// === the formula ===

#[test]
fn the_missions_scaling_is_3_125_and_a_full_machine_of_the_best_scores_100() {
    let table = table();
    close(table.scaling(), 3.125);
    close(machine_score(&table, &machine("NVIDIA H200", 8, 1_600.0 * T), false).total, 100.0);
    close(machine_score(&table, &machine("NVIDIA H200", 8, 1_600.0 * T), true).total, 200.0);
    close(machine_score(&table, &machine("NVIDIA H200", 1, 1_600.0 * T), false).total, 12.5);
    let stingy = table.clone().with_bonus(7.5);
    close(machine_score(&stingy, &machine("NVIDIA H200", 1, 1_600.0 * T), true).total, 20.0);
    close(machine_score(&stingy, &machine("NVIDIA H200", 1, 1_600.0 * T), false).total, 12.5);
    close(machine_score(&table, &machine("H100 SXM", 8, 1_500.0 * T), false).total, 82.5);
    close(machine_score(&table, &machine("NVIDIA A100-SXM4-80GB", 8, 500.0 * T), false).total, 47.5);
    close(machine_score(&table, &machine("NVIDIA RTX A4500", 1, 150.0 * T), false).total, 1.0625);
}

/// The worked figures 3.90, 0.69 and 3.2051: with 3.90 the highest base, the scaling is 100 / (8 · 3.90) = 3.2051.
#[test]
fn the_worked_figures_are_cases_of_the_formula() {
    let rows = vec![row("best", 3.90, 1_000.0 * T), row("small", 0.69, 300.0 * T)];
    let table = ScoreTable::new(rows, DEFAULT_MAX_DEVICES).unwrap();
    assert_eq!(format!("{:.4}", table.scaling()), "3.2051");
    let score = |model, count, rate, rented| machine_score(&table, &machine(model, count, rate), rented).total;
    close(score("best", 8, 1_000.0 * T, false), 100.0);
    close(score("best", 1, 1_000.0 * T, false), 12.5);
    assert_eq!(format!("{:.4}", score("small", 1, 300.0 * T, false)), "2.2115");
    assert_eq!(format!("{:.4}", score("small", 2, 300.0 * T, true)), "104.4231");
    assert_eq!(score("small", 8, 300.0 * T, false), score("small", 9, 300.0 * T, false));
}

#[test]
fn credit_is_linear_in_the_rate_and_capped_at_nominal() {
    let table = table();
    let score = |rate: f64| machine_score(&table, &machine("NVIDIA H200", 8, rate), false).total;
    close(score(1_400.0 * T), 87.5);
    close(score(9_000.0 * T), 100.0);
    let low = machine_score(&table, &machine("NVIDIA H200", 8, 1_000.0 * T), false);
    assert_eq!(low.total, 0.0);
    assert!(low.parts.iter().all(|p| p.reason == PartReason::Failed(FailReason::BelowFloor)));
}

#[test]
fn seven_cards_that_answer_for_eight_are_paid_as_seven() {
    let table = table();
    let honest = machine_score(&table, &machine("NVIDIA H200", 7, 1_600.0 * T), false).total;
    let stretched = machine_score(&table, &machine("NVIDIA H200", 8, 1_600.0 * T * 7.0 / 8.0), false).total;
    close(honest, stretched);
}

#[test]
fn the_eight_best_count_whatever_their_order() {
    let table = table();
    let mut devices = machine("NVIDIA RTX A4500", 6, 150.0 * T);
    devices.extend((10..14).map(|i| judged(i, "NVIDIA H200", pass(1_600.0 * T))));
    let score = machine_score(&table, &devices, false);
    close(score.total, (4.0 * 4.0 + 4.0 * 0.34) * 3.125);
    assert_eq!(score.counted(), 8);
    let beyond: Vec<_> = score.parts.iter().filter(|p| p.reason == PartReason::BeyondLimit).collect();
    assert!(beyond.len() == 2 && beyond.iter().all(|p| p.model == "NVIDIA RTX A4500" && !p.counted));
    devices.reverse();
    assert_eq!(machine_score(&table, &devices, false), score);
}

#[test]
fn what_is_not_proved_pays_nothing_and_says_why() {
    let table = table();
    let devices = [
        judged(1, "NVIDIA B999", pass(9_000.0 * T)),
        judged(2, "NVIDIA L4", pass(100.0 * T)),
        judged(3, "NVIDIA H200", Verdict::fail(FailReason::EntryMismatch, "round 1")),
        judged(4, "NVIDIA H200", unknown(UnknownCause::Timeout)),
        judged(5, "NVIDIA H200", pass(1_600.0 * T)),
        judged(5, "NVIDIA H200", pass(1_600.0 * T)),
    ];
    let score = machine_score(&table, &devices, true);
    assert_eq!((score.total, score.counted()), (0.0, 0), "and no bonus for a machine nobody can vouch for");
    let labels: Vec<_> =
        (1..6).map(|d| score.parts.iter().find(|p| p.device == DeviceId([d; 16])).unwrap().reason.label()).collect();
    assert_eq!(labels, ["uncalibrated_model", "uncalibrated_model", "entry_mismatch", "timeout", "duplicate_device"]);
}

#[test]
fn a_device_class_pays_its_base_for_a_pass_at_any_rate() {
    let class =
        |name: &str, base| ModelRow { timed: false, nominal_ops: None, floor_ops: None, ..row(name, base, 1.0) };
    let table = ScoreTable::new(vec![class("cpu-1", 1.0), class("cpu-2", 2.0)], 8).unwrap();
    close(machine_score(&table, &machine("cpu-1", 1, 1.0), false).total, 6.25);
    close(machine_score(&table, &machine("cpu-2", 1, 9e9), true).total, 112.5);
}

#[test]
fn a_rented_device_keeps_its_last_rate_and_an_unrented_one_does_not() {
    let table = table();
    let kept = |verdict| DeviceJudgement { kept_rate: Some(1_600.0 * T), ..judged(1, "NVIDIA H200", verdict) };
    let rented = machine_score(&table, &[kept(unknown(UnknownCause::Rented))], true);
    close(rented.total, 112.5);
    assert_eq!(rented.parts[0].reason, PartReason::RentedPass);
    assert_eq!(machine_score(&table, &[kept(unknown(UnknownCause::Timeout))], false).total, 0.0);
    let failed = Verdict::fail(FailReason::BelowFloor, "x");
    assert_eq!(machine_score(&table, &[kept(failed)], true).total, 0.0);
    let too_old = judged(1, "NVIDIA H200", unknown(UnknownCause::Rented));
    close(machine_score(&table, &[too_old], true).total, 100.0);
}

#[test]
fn a_gpu_that_two_hotkeys_claim_is_named_and_cpus_are_not() {
    let (a, b) = (Hotkey([1; 32]), Hotkey([2; 32]));
    let (shared, own, cpu) = (DeviceId([1; 16]), DeviceId([2; 16]), DeviceId::cpu(0));
    let claims = [(&a, &shared), (&a, &shared), (&a, &own), (&a, &cpu), (&b, &cpu), (&b, &shared)];
    assert_eq!(duplicate_claims(claims), [shared].into());
}

proptest! {
    #[test]
    fn a_score_is_bounded_and_grows_with_each_rate(
        rates in prop::collection::vec(0.0..3_000.0f64, 0..12), which in 0usize..12, more in 0.0..3_000.0f64, rented: bool,
    ) {
        let table = table();
        let devices: Vec<_> =
            rates.iter().enumerate().map(|(i, r)| judged(i as u8, "NVIDIA H200", pass(r * T))).collect();
        let score = machine_score(&table, &devices, rented);
        prop_assert!((0.0..=100.0).contains(&score.gpu) && score.total <= 200.0 && score.counted() <= 8);
        let paid: f64 = score.parts.iter().filter(|p| p.counted).map(|p| p.credit).sum();
        prop_assert!((paid * score.scaling - score.gpu).abs() < 1e-9);
        if let Some(rate) = rates.get(which) {
            let mut faster = devices.clone();
            faster[which].verdict = pass((rate + more) * T);
            prop_assert!(machine_score(&table, &faster, rented).total >= score.total - 1e-9);
        }
    }

    #[test]
    fn weights_are_proportional_to_scores(scores in prop::collection::vec(0.0..200.0f64, 1..64)) {
        let scores: Vec<_> = scores.into_iter().enumerate().map(|(i, s)| (Uid(i as u16), s)).collect();
        let highest = scores.iter().map(|s| s.1).fold(0.0, f64::max);
        let sent = weights(&scores).unwrap();
        prop_assert_eq!(sent.iter().map(|w| w.1).max(), (highest > 0.0).then_some(65_535));
        for (uid, weight) in sent {
            let exact = scores[usize::from(uid.0)].1 / highest * 65_535.0;
            prop_assert!(weight > 0 && (f64::from(weight) - exact).abs() <= 0.5);
        }
    }

    #[test]
    fn fitted_shares_sum_to_one_and_keep_the_limit(
        scores in prop::collection::vec(prop_oneof![Just(0.0), 0.0..200.0f64], 1..40), min in 0u16..50, max in 0.01..=1.0f64,
    ) {
        let scores: Vec<_> = scores.into_iter().enumerate().map(|(i, s)| (Uid(i as u16), s)).collect();
        let fitted = fit(&scores, &WeightLimits { min_allowed: min, max_share: max }).unwrap();
        if scores.iter().any(|s| s.1 > 0.0) {
            prop_assert!((fitted.iter().map(|s| s.1).sum::<f64>() - 1.0).abs() < 1e-9);
            let limit = max.max(1.0 / fitted.len() as f64) + 1e-9;
            prop_assert!(fitted.iter().all(|s| s.1 <= limit));
            prop_assert!(fitted.len() >= usize::from(min).min(scores.len()));
        } else {
            prop_assert!(fitted.is_empty());
        }
    }
}

// === weights, by the SDK's vectors ===

fn uids(values: &[f64]) -> Vec<(Uid, f64)> {
    values.iter().enumerate().map(|(i, v)| (Uid(i as u16), *v)).collect()
}

#[test]
fn weights_are_those_of_the_sdk() {
    type Case = (&'static [(u16, f64)], &'static [(u16, u16)]);
    let cases: &[Case] = &[
        (&[(0, 0.1), (1, 0.2), (2, 0.3)], &[(0, 21_845), (1, 43_690), (2, 65_535)]),
        (&[(5, 1.0), (9, 0.0), (200, 3.0)], &[(5, 21_845), (200, 65_535)]),
        (&[(1, 0.5)], &[(1, 65_535)]),
        (&[(0, 0.0), (1, 0.0)], &[]),
        (&[(0, 1e-9), (1, 1.0), (2, 0.5), (3, 7.6e-6)], &[(1, 65_535), (2, 32_768)]),
        (&[(3, 10.0), (1, 20.0), (2, 5.0)], &[(3, 32_768), (1, 65_535), (2, 16_384)]),
        (
            &[(0, 1.0), (1, 0.500_007_629_394_531_2), (2, 0.499_992_370_605_468_75)],
            &[(0, 65_535), (1, 32_768), (2, 32_767)],
        ),
        (&[(1, 65_535.0), (2, 32_767.5)], &[(1, 65_535), (2, 32_768)]),
        (&[], &[]),
    ];
    for (scores, expected) in cases {
        let scores: Vec<_> = scores.iter().map(|(u, s)| (Uid(*u), *s)).collect();
        let expected: Vec<_> = expected.iter().map(|(u, w)| (Uid(*u), *w)).collect();
        assert_eq!(weights(&scores).unwrap(), expected, "{scores:?}");
    }
}

#[test]
fn scores_that_make_no_sense_are_errors() {
    assert_eq!(weights(&uids(&[-1.0, 1.0])), Err(WeightError::Negative { uid: Uid(0), score: -1.0 }));
    assert_eq!(weights(&uids(&[1.0, f64::NAN])), Err(WeightError::NotFinite(Uid(1))));
    assert_eq!(weights(&uids(&[f64::INFINITY])), Err(WeightError::NotFinite(Uid(0))));
    assert_eq!(weights(&[(Uid(3), 1.0), (Uid(3), 1.0)]), Err(WeightError::Twice(Uid(3))));
    let none = WeightLimits { min_allowed: 0, max_share: 0.0 };
    assert_eq!(fit(&uids(&[1.0]), &none), Err(WeightError::MaxShare(0.0)));
}

#[test]
fn the_highest_share_is_cut_as_the_sdk_cuts_it() {
    let cases: &[(&[f64], f64, &[f64])] = &[
        (&[0.5, 0.3, 0.2], 0.4, &[0.4, 0.36, 0.24]),
        (&[1.0, 1.0, 1.0, 1.0], 0.25, &[0.25, 0.25, 0.25, 0.25]),
        (&[0.9, 0.05, 0.05], 1.0, &[0.9, 0.05, 0.05]),
        (&[3.0, 2.0, 1.0], 0.34, &[0.34, 0.34, 0.32]),
        (&[0.7, 0.1, 0.1, 0.1], 0.5, &[0.5, 0.166_667, 0.166_667, 0.166_667]),
    ];
    for (scores, max_share, expected) in cases {
        let fitted = fit(&uids(scores), &WeightLimits { min_allowed: 1, max_share: *max_share }).unwrap();
        let near = fitted.iter().zip(*expected).all(|((_, got), want)| (got - want).abs() < 1e-6);
        assert!(near && fitted.len() == expected.len(), "{scores:?}: {fitted:?}");
    }
}

#[test]
fn too_few_weights_are_filled_up_as_the_sdk_fills_them() {
    let mut scores = uids(&[0.7, 0.0, 0.0, 0.3]);
    scores.extend((4..16).map(|i| (Uid(i), 0.0)));
    let fitted = fit(&scores, &WeightLimits { min_allowed: 3, max_share: 1.0 }).unwrap();
    assert_eq!(fitted.len(), 16);
    assert!((fitted[0].1 - 0.699_898_004).abs() < 1e-7 && (fitted[1].1 - 9.998_4e-6).abs() < 1e-9);
    assert_eq!(weights(&fitted).unwrap().len(), 16, "the floor survives the rounding");
}

#[test]
fn shares_of_weights_sum_to_one() {
    let got = shares(&[(Uid(1), 1), (Uid(2), 3)]);
    assert_eq!(got, [(Uid(1), 0.25), (Uid(2), 0.75)]);
    assert!(shares(&[]).is_empty());
}

// === verdicts over epochs ===

struct Watch(DeviceHistory, HistoryRules);
impl Watch {
    fn new() -> Self {
        Watch(DeviceHistory::default(), HistoryRules::default())
    }
    fn see(&mut self, epoch: u64, verdict: Verdict) -> Verdict {
        self.0.record(epoch, epoch * 1_000, verdict, &self.1)
    }
    fn proved(&self, epoch: u64) -> bool {
        self.0.proved(epoch, &self.1)
    }
    fn judgement(&self, epoch: u64, now_ms: u64, leased: bool) -> DeviceJudgement {
        self.0.judgement(DeviceId([1; 16]), "NVIDIA H200", epoch, now_ms, leased, &self.1)
    }
}

#[test]
fn a_pass_pays_in_its_epoch_and_proves_for_two() {
    let mut w = Watch::new();
    w.see(5, pass(1.0));
    assert_eq!([5, 6, 7].map(|e| w.proved(e)), [true, true, false]);
    assert_eq!(w.judgement(5, 5_000, false).verdict.kind(), "pass");
    assert_eq!(w.judgement(6, 6_000, false).verdict.kind(), "unknown", "the next epoch needs a verdict of its own");
}

#[test]
fn an_unknown_pays_nothing_renews_nothing_and_ends_nothing() {
    let mut w = Watch::new();
    w.see(5, pass(1.0));
    w.see(6, unknown(UnknownCause::Timeout));
    assert_eq!([6, 7].map(|e| w.proved(e)), [true, false]);
    let score = machine_score(&table(), &[w.judgement(6, 6_000, false)], false);
    assert_eq!(score.total, 0.0);
}

#[test]
fn a_fail_ends_the_proof_at_once() {
    let mut w = Watch::new();
    w.see(5, pass(1.0));
    w.see(6, Verdict::fail(FailReason::PathMismatch, "tile 3"));
    assert!(!w.proved(6));
    assert_eq!(w.judgement(6, 6_000, true).kept_rate, None);
}

#[test]
fn the_clock_of_a_pass_stands_still_while_the_validator_is_out() {
    let mut w = Watch::new();
    w.see(5, pass(1.0));
    w.see(6, unknown(UnknownCause::OwnFault));
    assert_eq!([7, 8].map(|e| w.proved(e)), [true, false]);
    let mut w = Watch::new();
    w.see(5, pass(1.0));
    w.0.freeze(15, 10, &HistoryRules::default());
    assert_eq!([16, 17].map(|e| w.proved(e)), [true, false]);
    let mut late = Watch::new();
    late.see(5, pass(1.0));
    late.0.freeze(15, 5, &HistoryRules::default());
    assert!(!late.proved(16), "what had run out before the outage stays so");
}

#[test]
fn one_verdict_counts_for_each_epoch() {
    let mut w = Watch::new();
    w.see(5, Verdict::fail(FailReason::EntryMismatch, "x"));
    assert_eq!(w.see(5, pass(1.0)).kind(), "fail", "there is no second draw");
    assert_eq!(w.see(4, pass(1.0)).kind(), "fail");
    assert!(!w.proved(5));
}

#[test]
fn the_third_miss_in_a_row_is_a_fail_and_the_validators_own_fault_is_no_miss() {
    let mut w = Watch::new();
    let kinds: Vec<_> = [
        UnknownCause::Timeout,
        UnknownCause::Refused,
        UnknownCause::OwnFault,
        UnknownCause::Rented,
        UnknownCause::Busy,
        UnknownCause::Busy,
    ]
    .into_iter()
    .enumerate()
    .map(|(e, cause)| w.see(e as u64, unknown(cause)).reason())
    .collect();
    assert_eq!(kinds, ["timeout", "refused", "own_fault", "rented", "unresponsive", "unresponsive"]);
    w.see(6, pass(1.0));
    assert_eq!(w.see(7, unknown(UnknownCause::Timeout)).kind(), "unknown", "an answer begins the count anew");
}

#[test]
fn a_penalty_needs_k_of_n_fails() {
    let mut w = Watch::new();
    let fail = || Verdict::fail(FailReason::EntryMismatch, "x");
    for (epoch, verdict) in [fail(), pass(1.0), fail(), pass(1.0)].into_iter().enumerate() {
        w.see(epoch as u64, verdict);
    }
    assert!(!w.0.penalty_due(&w.1));
    w.see(4, fail());
    assert!(w.0.penalty_due(&w.1));
    for epoch in 5..9 {
        w.see(epoch, pass(1.0));
    }
    assert!(!w.0.penalty_due(&w.1), "they go out of the window");
}

#[test]
fn a_rented_devices_pass_is_kept_for_a_day() {
    let mut w = Watch::new();
    w.see(5, pass(7.0));
    let day = 24 * 3_600_000;
    assert_eq!(w.judgement(50, 5_000 + day, true).kept_rate, Some(7.0));
    assert_eq!(w.judgement(50, 5_001 + day, true).kept_rate, None);
    assert_eq!(w.judgement(50, 6_000, false).kept_rate, None, "only while the lease holds");
    assert_eq!(w.judgement(50, 6_000, true).verdict.reason(), "rented");
}

#[test]
fn a_device_counts_for_a_lease_when_it_was_proved_before_the_lease_began() {
    let mut w = Watch::new();
    w.see(5, pass(1.0));
    w.see(6, pass(1.0));
    let before = |epoch, ms| w.0.proved_before(epoch, ms, &w.1);
    assert!(before(7, 7_000) && before(5, 5_000));
    assert!(!before(4, 4_999), "the proof came after");
    assert!(!before(8, 8_000), "the proof had run out");
    let text = serde_json::to_string(&w.0).unwrap();
    assert_eq!(serde_json::from_str::<DeviceHistory>(&text).unwrap(), w.0);
}

// === receipts ===

const TWO_EPOCHS: Duration = Duration::from_secs(8_640);

fn receipt(lease: u8) -> LeaseReceipt {
    LeaseReceipt {
        lease: LeaseId([lease; 16]),
        miner: Hotkey([lease; 32]),
        devices: vec![DeviceId([lease; 16])],
        fencing_epoch: 1,
        began_ms: 1_000 + u64::from(lease),
        issued_ms: 10_000,
        expires_ms: 20_000,
        validator: Hotkey([200; 32]),
        signature: [9; 64],
    }
}

fn verified(r: &LeaseReceipt, now_ms: u64) -> Result<(), ReceiptProblem> {
    r.verify(now_ms, TWO_EPOCHS, Duration::from_millis(500), |who, _, s| *who == Hotkey([200; 32]) && *s == [9; 64])
}

#[test]
fn a_receipt_is_valid_in_its_time_with_its_signature_only() {
    let r = receipt(1);
    assert_eq!(verified(&r, 10_000), Ok(()));
    assert_eq!(verified(&r, 9_500), Ok(()), "clocks differ a little");
    assert_eq!(verified(&r, 9_499), Err(ReceiptProblem::NotYet));
    assert_eq!(verified(&r, 20_000), Err(ReceiptProblem::Expired));
    let change = |f: fn(&mut LeaseReceipt)| {
        let mut r = receipt(1);
        f(&mut r);
        verified(&r, 10_000)
    };
    assert_eq!(change(|r| r.devices.clear()), Err(ReceiptProblem::Devices));
    assert_eq!(change(|r| r.devices.push(DeviceId([1; 16]))), Err(ReceiptProblem::Devices));
    assert_eq!(change(|r| r.began_ms = 10_001), Err(ReceiptProblem::Times));
    assert_eq!(change(|r| r.expires_ms = r.issued_ms + 8_640_001), Err(ReceiptProblem::TooLong));
    assert_eq!(change(|r| r.signature[0] = 0), Err(ReceiptProblem::Signature));
}

#[test]
fn the_signed_bytes_cover_every_field_and_nothing_else() {
    let base = receipt(1);
    assert_eq!(base.signed_bytes().len(), 30 + 16 + 32 + 8 + 16 + 4 * 8 + 32);
    let changes: [fn(&mut LeaseReceipt); 8] = [
        |r| r.lease = LeaseId([0; 16]),
        |r| r.miner = Hotkey([0; 32]),
        |r| r.devices = vec![DeviceId([0; 16])],
        |r| r.fencing_epoch += 1,
        |r| r.began_ms += 1,
        |r| r.issued_ms += 1,
        |r| r.expires_ms += 1,
        |r| r.validator = Hotkey([0; 32]),
    ];
    for change in changes {
        let mut changed = base.clone();
        change(&mut changed);
        assert_ne!(changed.signed_bytes(), base.signed_bytes());
    }
    let text = serde_json::to_string(&base).unwrap();
    let back: LeaseReceipt = serde_json::from_str(&text).unwrap();
    assert_eq!(back, base);
    assert_eq!(LeaseReceipt { signature: [0; 64], ..base.clone() }.signed_bytes(), base.signed_bytes());
}

const RULES: ReceiptRules = ReceiptRules { min_stake_rao: 100, max_per_validator_and_coldkey: 2 };

/// Everybody registered; miners 1 to 9 have one owner, the others their own.
fn metagraph(hotkey: &Hotkey) -> Option<Party> {
    let owner = if hotkey.0[0] < 10 { 1 } else { hotkey.0[0] };
    Some(Party { coldkey: Coldkey([owner; 32]), stake_rao: 100, permit: true })
}

#[test]
fn receipts_above_the_cap_or_for_the_same_lease_do_not_count() {
    let renewed = LeaseReceipt { issued_ms: 11_000, ..receipt(1) };
    let receipts = [receipt(3), receipt(1), renewed, receipt(2), receipt(30)];
    let counted = count(&receipts, &RULES, metagraph, |_, _, _| true);
    let expected = [Err(Ineligible::TooMany), Err(Ineligible::Superseded), Ok(()), Ok(()), Ok(())];
    assert_eq!(counted, expected, "the leases that began first count, a renewal replaces what it renews");
}

#[test]
fn one_device_has_one_lease_that_counts() {
    let second = LeaseReceipt { lease: LeaseId([9; 16]), began_ms: 5_000, ..receipt(1) };
    let counted = count(&[second, receipt(1)], &RULES, metagraph, |_, _, _| true);
    assert_eq!(counted, [Err(Ineligible::Superseded), Ok(())]);
}

#[test]
fn a_receipt_counts_for_proved_devices_of_another_owner_by_a_validator_of_standing() {
    let one = |party: &dyn Fn(&Hotkey) -> Option<Party>, proved: bool| {
        count(&[receipt(1)], &RULES, party, |_, _, began| proved && began == 1_001)[0]
    };
    let renter = |f: fn(&mut Party)| {
        move |h: &Hotkey| {
            let mut p = metagraph(h)?;
            if h.0[0] == 200 {
                f(&mut p);
            }
            Some(p)
        }
    };
    assert_eq!(one(&metagraph, true), Ok(()));
    assert_eq!(one(&metagraph, false), Err(Ineligible::NotProvedBefore));
    assert_eq!(one(&|_| None, true), Err(Ineligible::NotRegistered));
    assert_eq!(one(&renter(|p| p.permit = false), true), Err(Ineligible::NoPermit));
    assert_eq!(one(&renter(|p| p.stake_rao = 99), true), Err(Ineligible::NotEnoughStake));
    assert_eq!(one(&renter(|p| p.coldkey = Coldkey([1; 32])), true), Err(Ineligible::SelfRental));
}
