//! The promises of the scoring rules, one test each.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::history::{DeviceHistory, HistoryRules, Sight};
use super::receipt::{Ineligible, Party, ReceiptProblem, ReceiptRules, Unsigned, count};
use super::*;
use crate::ids::{Coldkey, DeviceId, Hotkey, LeaseId, Uid};
use crate::verdict::{FailReason, PassEvidence, UnknownCause, Verdict};

const T: u64 = 1_000_000_000_000;

/// A row of this base, in hundredths, and nominal rate; its floor is 75 % of that.
fn row(name: &str, base: u64, nominal: u64) -> ModelRow {
    ModelRow {
        name: name.into(),
        base_micro: base * 10_000,
        nominal_ops: Some(nominal),
        floor_ops: Some(nominal / 4 * 3),
        timed: true,
        ..ModelRow::default()
    }
}

/// Bases of the mission's list; the rates are round numbers for the tests.
fn table() -> ScoreTable {
    let rows = vec![
        row("NVIDIA H200", 400, 1_600 * T),
        ModelRow { aliases: vec!["H100 SXM".into()], ..row("NVIDIA H100 80GB HBM3", 330, 1_500 * T) },
        row("NVIDIA A100-SXM4-80GB", 190, 500 * T),
        row("NVIDIA RTX A4500", 34, 150 * T),
        ModelRow { nominal_ops: None, floor_ops: None, ..row("NVIDIA L4", 20, 1) },
    ];
    ScoreTable::new(rows, DEFAULT_MAX_DEVICES).unwrap()
}

fn pass(rate: u64) -> Verdict {
    Verdict::Pass { evidence: PassEvidence { operations: rate, elapsed_ns: 1_000_000_000, samples: 66 } }
}

fn unknown(cause: UnknownCause) -> Verdict {
    Verdict::unknown(cause, "seen")
}

fn judged(device: u8, model: &str, verdict: Verdict) -> DeviceJudgement {
    DeviceJudgement { device: DeviceId([device; 16]), model: model.into(), verdict, rate: None, kept_rate: None }
}

fn machine(model: &str, count: u8, rate: u64) -> Vec<DeviceJudgement> {
    (1..=count).map(|i| judged(i, model, pass(rate))).collect()
}

/// Points as a person writes them.
fn points(text: &str) -> Points {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    Points(format!("{whole}{part:0<9}").parse().unwrap())
}

// === the table ===

#[test]
fn a_model_is_found_by_exact_name_or_alias_and_never_by_a_part() {
    let table = table();
    assert_eq!(table.find("H100 SXM").map(|r| r.base_micro), Some(3_300_000));
    for name in ["H100", "nvidia h200", "NVIDIA H200 NVL", ""] {
        assert_eq!(table.find(name), None, "{name:?}");
    }
}

#[test]
fn all_problems_of_a_table_are_reported_at_once() {
    let rows = vec![
        ModelRow { floor_ops: Some(50 * T), ..row("dear", 200, 100 * T) },
        row("cheap", 100, 120 * T),
        ModelRow { base_micro: 0, twins: vec!["nobody".into()], ..row("cheap", 100, 4) },
        ModelRow { nominal_ops: None, ..row("floor only", 300, 100 * T) },
        ModelRow { timed: false, ..row("cpu-1", 10, 100 * T) },
        ModelRow { base_micro: 1_000_000_001, nominal_ops: Some(0), ..row("beyond", 1, 4) },
        ModelRow {
            best_ops: Some(3),
            memory: Some(Limit { best: 100, floor: 69 }),
            bandwidth: Some(Limit { best: 100, floor: 101 }),
            ..row("odd", 1, 4)
        },
    ];
    let TableError(problems) = ScoreTable::new(rows, 0).unwrap_err();
    let has = |f: fn(&TableProblem) -> bool| problems.iter().any(f);
    assert!(has(|p| matches!(p, TableProblem::NoDevices)));
    assert!(has(|p| matches!(p, TableProblem::FloorShare { percent: 50, of: "the nominal rate", .. })));
    assert!(has(|p| matches!(p, TableProblem::FloorShare { percent: 69, of: "the memory", .. })));
    assert!(has(|p| matches!(p, TableProblem::FloorShare { percent: 101, of: "the bandwidth", .. })));
    assert!(has(|p| matches!(p, TableProblem::NominalAboveBest(m) if m == "odd")));
    assert!(has(
        |p| matches!(p, TableProblem::PassesAsTwo { model, cheaper, .. } if model == "dear" && cheaper == "cheap")
    ));
    assert!(has(|p| matches!(p, TableProblem::Name { name, .. } if name == "cheap")));
    assert!(has(|p| matches!(p, TableProblem::Base { model, base_micro: 0 } if model == "cheap")));
    assert!(has(|p| matches!(p, TableProblem::Base { model, .. } if model == "beyond")));
    assert!(has(|p| matches!(p, TableProblem::Rate { model, field: "nominal_ops" } if model == "beyond")));
    assert!(has(|p| matches!(p, TableProblem::Twin { .. })));
    assert!(has(|p| matches!(p, TableProblem::FloorWithoutNominal(m) if m == "floor only")));
    assert!(has(|p| matches!(p, TableProblem::FloorOnUntimed(m) if m == "cpu-1")));
    let text = TableError(problems).to_string();
    assert!(text.contains("dear: the floor is 50 % of the nominal rate"), "{text}");
    assert_eq!(ScoreTable::new(Vec::new(), 8).unwrap_err().0, [TableProblem::NoRows]);
}

#[test]
fn a_cheaper_card_passes_as_two_only_with_twice_the_rate_the_memory_and_the_bandwidth() {
    let dear = ModelRow {
        memory: Some(Limit { best: 100, floor: 90 }),
        bandwidth: Some(Limit { best: 100, floor: 75 }),
        ..row("dear", 200, 100 * T)
    };
    let cheap = |rate, memory, bandwidth| ModelRow {
        best_ops: Some(rate),
        memory: Some(Limit { best: memory, floor: memory }),
        bandwidth: Some(Limit { best: bandwidth, floor: bandwidth }),
        ..row("cheap", 100, 90 * T)
    };
    let passes = |cheap: ModelRow| ScoreTable::new(vec![dear.clone(), cheap], 8).is_err();
    assert!(passes(cheap(150 * T, 180, 150)));
    assert!(!passes(cheap(150 * T - 1, 180, 150)));
    assert!(!passes(cheap(150 * T, 179, 150)));
    assert!(!passes(cheap(150 * T, 180, 149)));
    assert!(passes(ModelRow { memory: None, ..cheap(150 * T, 0, 150) }), "what is not known separates nothing");
}

#[test]
fn twins_are_paid_the_lowest_base_among_them_and_the_part_says_whose() {
    let twins = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let rows = vec![
        row("best", 400, 1_000 * T),
        ModelRow { twins: twins(&["b", "c"]), source: RateSource::Datasheet, ..row("a", 200, 100 * T) },
        ModelRow { twins: twins(&["a"]), ..row("b", 160, 100 * T) },
        ModelRow { twins: twins(&["a"]), nominal_ops: None, floor_ops: None, ..row("c", 100, 1) },
    ];
    let table = ScoreTable::new(rows, DEFAULT_MAX_DEVICES).unwrap();
    let part = |model| machine_score(&table, &machine(model, 1, 100 * T), false).parts.remove(0);
    assert_eq!((part("a").base_micro, part("a").twin.as_deref()), (1_000_000, Some("c")));
    assert_eq!((part("b").base_micro, part("b").twin), (1_600_000, None));
    assert_eq!((part("a").credit, part("a").source), (1_000_000_000_000_000, Some(RateSource::Datasheet)));
    assert_eq!(machine_score(&table, &machine("a", 8, 100 * T), false).total, points("25.0"));
    assert_eq!((part("c").reason.label(), part("c").source), ("uncalibrated_model", None));
}

#[test]
fn a_table_is_written_in_whole_numbers_and_checked_when_it_is_read() {
    let table = table().with_bonus(points("7.5"));
    let text = serde_json::to_string(&table).unwrap();
    assert!(!text.contains('.'), "{text}");
    assert_eq!(serde_json::from_str::<ScoreTable>(&text).unwrap(), table);
    let broken = text.replace("\"max_devices\":8", "\"max_devices\":0");
    assert!(serde_json::from_str::<ScoreTable>(&broken).unwrap_err().to_string().contains("0 devices would count"));
}

#[test]
fn nothing_between_a_verdict_and_a_weight_is_floating_point() {
    let (double, single) = (concat!("f", "64"), concat!("f", "32"));
    let mut directories = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/scoring")];
    let mut read = 0;
    while let Some(directory) = directories.pop() {
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains(double) && !text.contains(single), "{}", path.display());
                read += 1;
            }
        }
    }
    assert!(read >= 9, "{read} files");
}

// === the formula ===

#[test]
fn the_missions_scaling_is_3_125_and_a_full_machine_of_the_best_scores_100() {
    let table = table();
    assert_eq!(table.scaling().to_string(), "100 / (8 × 4.0000)");
    assert_eq!(table.scaling().points(1_000_000_000_000_000), points("3.125"), "of a credit of 1");
    assert_eq!(machine_score(&table, &machine("NVIDIA H200", 8, 1_600 * T), false).total, points("100.0"));
    assert_eq!(machine_score(&table, &machine("NVIDIA H200", 8, 1_600 * T), true).total, points("200.0"));
    assert_eq!(machine_score(&table, &machine("NVIDIA H200", 1, 1_600 * T), false).total, points("12.5"));
    let stingy = table.clone().with_bonus(points("7.5"));
    assert_eq!(machine_score(&stingy, &machine("NVIDIA H200", 1, 1_600 * T), true).total, points("20.0"));
    assert_eq!(machine_score(&stingy, &machine("NVIDIA H200", 1, 1_600 * T), false).total, points("12.5"));
    assert_eq!(machine_score(&table, &machine("H100 SXM", 8, 1_500 * T), false).total, points("82.5"));
    assert_eq!(machine_score(&table, &machine("NVIDIA A100-SXM4-80GB", 8, 500 * T), false).total, points("47.5"));
    assert_eq!(machine_score(&table, &machine("NVIDIA RTX A4500", 1, 150 * T), false).total, points("1.0625"));
}

/// The worked figures 3.90, 0.69 and 3.2051: with 3.90 the highest base, the scaling is 100 / (8 · 3.90) = 3.2051.
#[test]
fn the_worked_figures_are_cases_of_the_formula() {
    let rows = vec![row("best", 390, 1_000 * T), row("small", 69, 300 * T)];
    let table = ScoreTable::new(rows, DEFAULT_MAX_DEVICES).unwrap();
    assert_eq!(table.scaling().points(1_000_000_000_000_000).to_string(), "3.2051");
    let score = |model, count, rate, rented| machine_score(&table, &machine(model, count, rate), rented).total;
    assert_eq!(score("best", 8, 1_000 * T, false), points("100.0"));
    assert_eq!(score("best", 1, 1_000 * T, false), points("12.5"));
    assert_eq!(score("small", 1, 300 * T, false).to_string(), "2.2115");
    assert_eq!(score("small", 1, 300 * T, false), Points(2_211_538_461), "rounded down");
    assert_eq!(score("small", 2, 300 * T, true).to_string(), "104.4231");
    assert_eq!(score("small", 8, 300 * T, false), score("small", 9, 300 * T, false));
}

#[test]
fn credit_is_linear_in_the_rate_and_capped_at_nominal() {
    let table = table();
    let score = |rate: u64| machine_score(&table, &machine("NVIDIA H200", 8, rate), false).total;
    assert_eq!(score(1_400 * T), points("87.5"));
    assert_eq!(score(9_000 * T), points("100.0"));
    assert_eq!(score(1), Points(0), "rounded down");
    assert_eq!(score(u64::MAX), points("100"));
}

#[test]
fn seven_cards_that_answer_for_eight_are_paid_as_seven() {
    let table = table();
    let honest = machine_score(&table, &machine("NVIDIA H200", 7, 1_600 * T), false).total;
    let stretched = machine_score(&table, &machine("NVIDIA H200", 8, 1_600 * T * 7 / 8), false).total;
    assert_eq!(honest, stretched);
}

#[test]
fn the_eight_best_count_whatever_their_order() {
    let table = table();
    let mut devices = machine("NVIDIA RTX A4500", 6, 150 * T);
    devices.extend((10..14).map(|i| judged(i, "NVIDIA H200", pass(1_600 * T))));
    let score = machine_score(&table, &devices, false);
    assert_eq!(score.total, points("54.25"));
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
        judged(1, "NVIDIA B999", pass(9_000 * T)),
        judged(2, "NVIDIA L4", pass(100 * T)),
        judged(3, "NVIDIA H200", Verdict::fail(FailReason::EntryMismatch, "round 1")),
        judged(4, "NVIDIA H200", unknown(UnknownCause::Timeout)),
        judged(5, "NVIDIA H200", pass(1_600 * T)),
        judged(5, "NVIDIA H200", pass(1_600 * T)),
    ];
    let score = machine_score(&table, &devices, true);
    assert_eq!((score.total, score.counted()), (Points(0), 0), "and no bonus for a machine nobody can vouch for");
    let labels: Vec<_> =
        (1..6).map(|d| score.parts.iter().find(|p| p.device == DeviceId([d; 16])).unwrap().reason.label()).collect();
    assert_eq!(labels, ["uncalibrated_model", "uncalibrated_model", "entry_mismatch", "timeout", "duplicate_device"]);
}

#[test]
fn a_device_class_pays_its_base_for_a_pass_at_any_rate() {
    let class = |name: &str, base| ModelRow { timed: false, nominal_ops: None, floor_ops: None, ..row(name, base, 1) };
    let table = ScoreTable::new(vec![class("cpu-1", 100), class("cpu-2", 200)], 8).unwrap();
    assert_eq!(machine_score(&table, &machine("cpu-1", 1, 1), false).total, points("6.25"));
    assert_eq!(machine_score(&table, &machine("cpu-2", 1, 9_000_000_000), true).total, points("112.5"));
}

#[test]
fn a_rented_device_keeps_its_last_rate_and_an_unrented_one_does_not() {
    let table = table();
    let kept = |verdict| DeviceJudgement { kept_rate: Some(1_600 * T), ..judged(1, "NVIDIA H200", verdict) };
    let rented = machine_score(&table, &[kept(unknown(UnknownCause::Rented))], true);
    assert_eq!(rented.total, points("112.5"));
    assert_eq!(rented.parts[0].reason, PartReason::RentedPass);
    assert_eq!(machine_score(&table, &[kept(unknown(UnknownCause::Timeout))], false).total, Points(0));
    let failed = Verdict::fail(FailReason::BelowFloor, "x");
    assert_eq!(machine_score(&table, &[kept(failed)], true).total, Points(0));
    let too_old = judged(1, "NVIDIA H200", unknown(UnknownCause::Rented));
    assert_eq!(machine_score(&table, &[too_old], true).total, points("100.0"));
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
        rates in prop::collection::vec(prop_oneof![0..3_000 * T, Just(u64::MAX)], 0..12), which in 0usize..12,
        more in 0..3_000 * T, rented: bool, bonus in prop_oneof![0..=100_000_000_000u64, Just(u64::MAX)],
    ) {
        let table = table().with_bonus(Points(bonus));
        let devices: Vec<_> =
            rates.iter().enumerate().map(|(i, r)| judged(i as u8, "NVIDIA H200", pass(*r))).collect();
        let score = machine_score(&table, &devices, rented);
        prop_assert!(score.gpu <= Points::HUNDRED && score.counted() <= 8);
        let vouched = rented && !rates.is_empty();
        prop_assert_eq!(score.bonus.0, if vouched { bonus } else { 0 });
        prop_assert_eq!(score.total, Points(score.gpu.0.saturating_add(score.bonus.0)));
        let paid: u128 = score.parts.iter().filter(|p| p.counted).map(|p| u128::from(p.credit)).sum();
        prop_assert_eq!(score.scaling.points(paid), score.gpu);
        if let Some(rate) = rates.get(which) {
            let mut faster = devices.clone();
            faster[which].verdict = pass(rate.saturating_add(more));
            prop_assert!(machine_score(&table, &faster, rented).total >= score.total);
        }
    }

    #[test]
    fn weights_are_proportional_to_scores(scores in prop::collection::vec(0..=weights::MAX_SCORE.0, 1..64)) {
        let scores = uids(&scores);
        let highest = u128::from(scores.iter().map(|s| s.1.0).max().unwrap());
        let sent = weights(&scores).unwrap();
        prop_assert_eq!(sent.iter().map(|w| w.1).max(), (highest > 0).then_some(65_535));
        for (uid, weight) in sent {
            // |weight − score · 65535 / highest| ≤ ½
            let exact = u128::from(scores[usize::from(uid.0)].1.0) * 65_535;
            prop_assert!(weight > 0 && (u128::from(weight) * highest).abs_diff(exact) * 2 <= highest);
        }
    }

    #[test]
    fn fitted_values_keep_the_limits_and_the_order(
        scores in prop::collection::vec(prop_oneof![Just(0), 0..=200_000_000_000u64, Just(weights::MAX_SCORE.0)], 1..40),
        min in 0u16..50, max in 600u16..=65_535,
    ) {
        let scores = uids(&scores);
        let limits = WeightLimits { min_allowed: min, max_weight: max };
        let fitted = fit(&scores, &limits).unwrap();
        if scores.iter().any(|s| s.1.0 > 0) {
            let sum: u128 = fitted.iter().map(|s| s.1).sum();
            let n = fitted.len() as u128;
            // Exact but for the division by two whole numbers that the comparison itself makes.
            let limit = (u128::from(max) * sum / 65_535).max(sum / n) + 1;
            prop_assert!(fitted.iter().all(|s| s.1 <= limit), "{limit} {fitted:?}");
            prop_assert!(fitted.len() >= usize::from(min).min(scores.len()));
            let of = |uid: Uid| scores[usize::from(uid.0)].1;
            let ordered = |a: &(Uid, u128), b: &(Uid, u128)| of(a.0) < of(b.0) || a.1 >= b.1;
            prop_assert!(fitted.iter().all(|a| fitted.iter().all(|b| ordered(a, b))));
        } else {
            prop_assert!(fitted.is_empty());
        }
    }

    #[test]
    fn what_is_sent_keeps_the_highest_share_within_a_unit_of_each_weight(
        scores in prop::collection::vec(0..=200_000_000_000u64, 4..40), max in 20_000u16..=65_535,
    ) {
        let neurons: Vec<_> = (0..scores.len() as u16).map(|i| (Uid(i), Hotkey([i as u8; 32]))).collect();
        let rows: Vec<_> = neurons.iter().zip(&scores).map(|((u, h), s)| score_row(*u, *h, *s)).collect();
        let sent = weigh(&rows, &neurons, &WeightLimits { min_allowed: 1, max_weight: max }).unwrap();
        let sum: u64 = sent.iter().map(|(_, w)| u64::from(*w)).sum();
        let limit = (u64::from(max) * sum / 65_535).max(sum.div_ceil(sent.len().max(1) as u64));
        prop_assert!(sent.iter().all(|(_, w)| u64::from(*w) <= limit + sent.len() as u64), "{limit} {sent:?}");
    }
}

// === weights, by the SDK's vectors ===

fn uids(values: &[u64]) -> Vec<(Uid, Points)> {
    values.iter().enumerate().map(|(i, v)| (Uid(i as u16), Points(*v))).collect()
}

fn score_row(uid: Uid, hotkey: Hotkey, total: u64) -> ScoreRow {
    let scaling = Scaling { max_devices: 8, max_base_micro: 4_000_000 };
    let score = Score { total: Points(total), gpu: Points(total), bonus: Points(0), scaling, parts: Vec::new() };
    ScoreRow { uid, hotkey, score }
}

#[test]
fn weights_are_those_of_the_sdk() {
    type Case = (&'static [(u16, u64)], &'static [(u16, u16)]);
    let cases: &[Case] = &[
        (&[(0, 100), (1, 200), (2, 300)], &[(0, 21_845), (1, 43_690), (2, 65_535)]),
        (&[(5, 1), (9, 0), (200, 3)], &[(5, 21_845), (200, 65_535)]),
        (&[(1, 5)], &[(1, 65_535)]),
        (&[(0, 0), (1, 0)], &[]),
        (&[(0, 1), (1, 1_000_000_000), (2, 500_000_000), (3, 7_600)], &[(1, 65_535), (2, 32_768)]),
        (&[(3, 10), (1, 20), (2, 5)], &[(3, 32_768), (1, 65_535), (2, 16_384)]),
        // Halves go to the even neighbour: 32,768.5 and 32,766.5, 32,767.5.
        (&[(0, 131_070), (1, 65_537), (2, 65_533)], &[(0, 65_535), (1, 32_768), (2, 32_766)]),
        (&[(1, 131_070), (2, 65_535)], &[(1, 65_535), (2, 32_768)]),
        (&[], &[]),
    ];
    for (scores, expected) in cases {
        let scores: Vec<_> = scores.iter().map(|(u, s)| (Uid(*u), Points(*s))).collect();
        let expected: Vec<_> = expected.iter().map(|(u, w)| (Uid(*u), *w)).collect();
        assert_eq!(weights(&scores).unwrap(), expected, "{scores:?}");
    }
}

#[test]
fn scores_that_make_no_sense_are_errors() {
    let high = Points(weights::MAX_SCORE.0 + 1);
    assert_eq!(weights(&[(Uid(0), high)]), Err(WeightError::TooHigh { uid: Uid(0), score: high }));
    assert_eq!(weights(&[(Uid(3), Points(1)), (Uid(3), Points(1))]), Err(WeightError::Twice(Uid(3))));
    let none = WeightLimits { min_allowed: 0, max_weight: 0 };
    assert_eq!(fit(&uids(&[1]), &none), Err(WeightError::MaxShare));
}

/// Values as parts of a million of their sum, rounded down.
fn per_million(values: &[(Uid, u128)]) -> Vec<u128> {
    let sum: u128 = values.iter().map(|(_, v)| *v).sum();
    values.iter().map(|(_, v)| v * 1_000_000 / sum).collect()
}

#[test]
fn the_highest_share_is_cut_as_the_sdk_cuts_it() {
    let cases: &[(&[u64], u16, &[u128])] = &[
        (&[5, 3, 2], 26_214, &[400_000, 360_000, 240_000]),
        (&[1, 1, 1, 1], 16_384, &[250_000, 250_000, 250_000, 250_000]),
        (&[1, 1, 1, 1], 16_383, &[250_000, 250_000, 250_000, 250_000]),
        (&[90, 5, 5], 65_535, &[900_000, 50_000, 50_000]),
        (&[3, 2, 1], 22_282, &[340_000, 340_000, 320_000]),
        (&[7, 1, 1, 1], 32_768, &[500_007, 166_664, 166_664, 166_664]),
    ];
    for (scores, max_weight, expected) in cases {
        let fitted = fit(&uids(scores), &WeightLimits { min_allowed: 1, max_weight: *max_weight }).unwrap();
        let got = per_million(&fitted);
        let near = got.iter().zip(*expected).all(|(got, want)| got.abs_diff(*want) <= 5);
        assert!(near && fitted.len() == expected.len(), "{scores:?}: {got:?}");
    }
}

#[test]
fn too_few_weights_are_filled_up_as_the_sdk_fills_them() {
    let mut scores = uids(&[7, 0, 0, 3]);
    scores.extend((4..16).map(|i| (Uid(i), Points(0))));
    let limits = WeightLimits { min_allowed: 3, max_weight: u16::MAX };
    let fitted = fit(&scores, &limits).unwrap();
    assert_eq!(fitted.len(), 16);
    assert_eq!(per_million(&fitted)[..4], [699_898, 9, 9, 299_962]);
    let neurons: Vec<_> = scores.iter().map(|(uid, _)| (*uid, Hotkey([1; 32]))).collect();
    let rows: Vec<_> = scores.iter().map(|(uid, s)| score_row(*uid, Hotkey([1; 32]), s.0)).collect();
    assert_eq!(weigh(&rows, &neurons, &limits).unwrap().len(), 16, "the floor survives the rounding");
}

#[test]
fn weights_go_to_those_who_still_have_the_slot_they_were_judged_in() {
    let (a, b) = (Hotkey([1; 32]), Hotkey([2; 32]));
    let rows = [score_row(Uid(1), a, 100), score_row(Uid(2), b, 50)];
    let free = WeightLimits { min_allowed: 0, max_weight: u16::MAX };
    assert_eq!(weigh(&rows, &[(Uid(1), a), (Uid(2), b)], &free).unwrap(), [(Uid(1), 65_535), (Uid(2), 32_768)]);
    assert_eq!(weigh(&rows, &[(Uid(1), b), (Uid(2), b)], &free).unwrap(), [(Uid(2), 65_535)]);
    assert_eq!(weigh(&rows, &[(Uid(1), b)], &free).unwrap(), []);
    let unlimited = WeightLimits { min_allowed: 0, max_weight: 0 };
    assert_eq!(weigh(&rows, &[(Uid(1), a), (Uid(2), b)], &unlimited).unwrap(), [(Uid(1), 65_535), (Uid(2), 65_535)]);
}

// === verdicts over epochs ===

struct Watch(DeviceHistory, HistoryRules);
impl Watch {
    fn new() -> Self {
        Watch(DeviceHistory::default(), HistoryRules::default())
    }
    fn see(&mut self, epoch: u64, verdict: Verdict) -> Verdict {
        let (table, model) = (table(), "NVIDIA H200");
        let row = table.find(model).map(|row| ModelRow { floor_ops: None, ..row.clone() });
        let sight = Sight { epoch, at_ms: epoch * 1_000, since_last_ms: 1_000, model, row: row.as_ref() };
        self.0.record(&sight, verdict, &self.1).verdict
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
    w.see(5, pass(1));
    assert_eq!([5, 6, 7].map(|e| w.proved(e)), [true, true, false]);
    assert_eq!(w.judgement(5, 5_000, false).verdict.kind(), "pass");
    assert_eq!(w.judgement(6, 6_000, false).verdict.kind(), "unknown", "the next epoch needs a verdict of its own");
}

#[test]
fn an_unknown_pays_nothing_renews_nothing_and_ends_nothing() {
    let mut w = Watch::new();
    w.see(5, pass(1));
    w.see(6, unknown(UnknownCause::Timeout));
    assert_eq!([6, 7].map(|e| w.proved(e)), [true, false]);
    let score = machine_score(&table(), &[w.judgement(6, 6_000, false)], false);
    assert_eq!(score.total, Points(0));
}

#[test]
fn a_fail_ends_the_proof_at_once() {
    let mut w = Watch::new();
    w.see(5, pass(1));
    w.see(6, Verdict::fail(FailReason::PathMismatch, "tile 3"));
    assert!(!w.proved(6));
    assert_eq!(w.judgement(6, 6_000, true).kept_rate, None);
}

#[test]
fn the_clock_of_a_pass_stands_still_while_the_validator_is_out() {
    let mut w = Watch::new();
    w.see(5, pass(1));
    w.see(6, unknown(UnknownCause::OwnFault));
    assert_eq!([7, 8].map(|e| w.proved(e)), [true, false]);
    let mut w = Watch::new();
    w.see(5, pass(1));
    w.0.freeze(15, 10, 0, &HistoryRules::default());
    assert_eq!([16, 17].map(|e| w.proved(e)), [true, false]);
    let mut late = Watch::new();
    late.see(5, pass(1));
    late.0.freeze(15, 5, 0, &HistoryRules::default());
    assert!(!late.proved(16), "what had run out before the outage stays so");
}

#[test]
fn one_verdict_counts_for_each_epoch() {
    let mut w = Watch::new();
    w.see(5, Verdict::fail(FailReason::EntryMismatch, "x"));
    assert_eq!(w.see(5, pass(1)).kind(), "fail", "there is no second draw");
    assert_eq!(w.see(4, pass(1)).kind(), "fail");
    assert!(!w.proved(5));
}

#[test]
fn the_third_miss_in_a_row_is_a_fail_and_the_validators_own_fault_is_no_miss() {
    let mut w = Watch::new();
    let kinds: Vec<_> = [
        UnknownCause::Timeout,
        UnknownCause::Refused,
        UnknownCause::OwnFault,
        UnknownCause::NoSpecs,
        UnknownCause::Busy,
        UnknownCause::Busy,
    ]
    .into_iter()
    .enumerate()
    .map(|(e, cause)| w.see(e as u64, unknown(cause)).reason())
    .collect();
    assert_eq!(kinds, ["timeout", "refused", "own_fault", "no_specs", "unresponsive", "unresponsive"]);
    w.see(6, pass(1));
    assert_eq!(w.see(7, unknown(UnknownCause::Timeout)).kind(), "unknown", "an answer begins the count anew");
}

#[test]
fn rented_to_another_is_believed_for_a_day_after_a_pass_and_is_a_miss_then() {
    let mut never = Watch::new();
    let seen: Vec<_> = (0..3).map(|e| never.see(e, unknown(UnknownCause::Rented)).reason()).collect();
    assert_eq!(seen, ["rented", "rented", "unresponsive"], "the word alone keeps nobody from being judged");
    let mut w = Watch::new();
    w.see(0, pass(1));
    // An epoch of this test is a second.
    for epoch in 1..=86_400 {
        assert_eq!(w.see(epoch, unknown(UnknownCause::Rented)).reason(), "rented");
    }
    let seen: Vec<_> = (86_401..86_404).map(|e| w.see(e, unknown(UnknownCause::Rented)).reason()).collect();
    assert_eq!(seen, ["rented", "rented", "unresponsive"]);
}

#[test]
fn a_penalty_needs_k_of_n_fails() {
    let mut w = Watch::new();
    let fail = || Verdict::fail(FailReason::EntryMismatch, "x");
    for (epoch, verdict) in [fail(), pass(1), fail(), pass(1)].into_iter().enumerate() {
        w.see(epoch as u64, verdict);
    }
    assert_eq!(w.0.penalty_due(&w.1), None);
    w.see(4, fail());
    assert_eq!(w.0.penalty_due(&w.1), Some(3));
    for epoch in 5..9 {
        w.see(epoch, pass(1));
    }
    assert_eq!(w.0.penalty_due(&w.1), None, "they go out of the window");
}

#[test]
fn a_rented_devices_pass_is_kept_for_a_day() {
    let mut w = Watch::new();
    w.see(5, pass(7));
    let day = 24 * 3_600_000;
    assert_eq!(w.judgement(50, 5_000 + day, true).kept_rate, Some(7));
    assert_eq!(w.judgement(50, 5_001 + day, true).kept_rate, None);
    assert_eq!(w.judgement(50, 6_000, false).kept_rate, None, "only while the lease holds");
    assert_eq!(w.judgement(50, 6_000, true).verdict.reason(), "rented");
}

#[test]
fn a_device_counts_for_a_lease_when_it_was_proved_before_the_lease_began() {
    let mut w = Watch::new();
    w.see(5, pass(1));
    w.see(6, pass(1));
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
    let says = Unsigned {
        lease: LeaseId([lease; 16]),
        miner: Hotkey([lease; 32]),
        devices: vec![DeviceId([lease; 16])],
        fencing_epoch: 1,
        began_ms: 1_000 + u64::from(lease),
        issued_ms: 10_000,
        expires_ms: 20_000,
        validator: Hotkey([200; 32]),
    };
    LeaseReceipt { says, signature: [9; 64] }
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
    assert_eq!(change(|r| r.says.devices.clear()), Err(ReceiptProblem::Devices));
    assert_eq!(change(|r| r.says.devices.push(DeviceId([1; 16]))), Err(ReceiptProblem::Devices));
    assert_eq!(change(|r| r.says.began_ms = 10_001), Err(ReceiptProblem::Times));
    assert_eq!(change(|r| r.says.expires_ms = r.issued_ms + 8_640_001), Err(ReceiptProblem::TooLong));
    assert_eq!(change(|r| r.signature[0] = 0), Err(ReceiptProblem::Signature));
}

#[test]
fn the_signed_bytes_cover_every_field_and_nothing_else() {
    let base = receipt(1);
    assert_eq!(base.signed_bytes().len(), 30 + 16 + 32 + 8 + 16 + 4 * 8 + 32);
    let changes: [fn(&mut Unsigned); 8] = [
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
        let mut changed = base.says.clone();
        change(&mut changed);
        assert_ne!(changed.signed_bytes(), base.signed_bytes());
    }
    assert_eq!(LeaseReceipt { signature: [0; 64], ..base.clone() }.signed_bytes(), base.signed_bytes());
}

#[test]
fn a_receipt_is_one_json_object_without_missing_unknown_or_repeated_fields() {
    let r = receipt(1);
    let (lease, miner, device) = (json!(r.lease), json!(r.miner), json!(r.devices[0]));
    let (validator, signature) = (json!(r.validator), json!("09".repeat(64)));
    let fields = [
        format!(r#""lease":{lease}"#),
        format!(r#""miner":{miner}"#),
        format!(r#""devices":[{device}]"#),
        r#""fencing_epoch":1"#.to_owned(),
        r#""began_ms":1001"#.to_owned(),
        r#""issued_ms":10000"#.to_owned(),
        r#""expires_ms":20000"#.to_owned(),
        format!(r#""validator":{validator}"#),
        format!(r#""signature":{signature}"#),
    ];
    let object = |fields: &[String]| format!("{{{}}}", fields.join(","));
    let read = |text: &str| serde_json::from_str::<LeaseReceipt>(text);
    assert_eq!(serde_json::to_string(&r).unwrap(), object(&fields));
    assert_eq!(read(&object(&fields)).unwrap(), r);
    let and = |further: &str| [&fields[..], &[further.to_owned()]].concat();
    for (at, field) in fields.iter().enumerate() {
        let missing = [&fields[..at], &fields[at + 1..]].concat();
        assert!(read(&object(&missing)).is_err(), "without {field}");
        assert!(read(&object(&and(field))).is_err(), "twice {field}");
    }
    let further = and(r#""paid":1"#);
    assert!(read(&object(&further)).is_err(), "what is not signed is not in it");
}

const RULES: ReceiptRules = ReceiptRules { min_stake_rao: 100, max_per_validator_and_coldkey: 2 };

/// Everybody registered; miners 1 to 9 have one owner, the others their own.
fn metagraph(hotkey: &Hotkey) -> Option<Party> {
    let owner = if hotkey.0[0] < 10 { 1 } else { hotkey.0[0] };
    Some(Party { coldkey: Coldkey([owner; 32]), stake_rao: 100, permit: true })
}

#[test]
fn receipts_above_the_cap_or_for_the_same_lease_do_not_count() {
    let mut renewed = receipt(1);
    renewed.says.issued_ms = 11_000;
    let receipts = [receipt(3), receipt(1), renewed, receipt(2), receipt(30)];
    let counted = count(&receipts, &RULES, metagraph, |_, _, _| true);
    let expected = [Err(Ineligible::TooMany), Err(Ineligible::Superseded), Ok(()), Ok(()), Ok(())];
    assert_eq!(counted, expected, "the leases that began first count, a renewal replaces what it renews");
}

#[test]
fn one_device_has_one_lease_that_counts() {
    let mut second = receipt(1);
    (second.says.lease, second.says.began_ms) = (LeaseId([9; 16]), 5_000);
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
