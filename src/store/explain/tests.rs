//! What an operator reads. The texts are kept as snapshots: whoever changes one sees the whole page.

use super::super::apply::apply;
use super::super::fixtures::{self as fx, NOW, hotkey};
use super::super::records::Record;
use super::super::schema;
use super::text::ops;
use super::*;
use crate::ids::DeviceId;
use crate::verdict::UnknownCause;

fn database(records: impl IntoIterator<Item = Record>) -> Connection {
    let mut conn = Connection::open_in_memory().unwrap();
    for from in 0..schema::LATEST {
        schema::migrate_one(&mut conn, from, NOW).unwrap();
    }
    records.into_iter().for_each(|r| apply(&conn, &r).unwrap());
    conn
}

/// A part of base 2 at this rate, of 4 Gop/s.
fn part(device: u8, rate: u64, counted: bool) -> DevicePart {
    let factor_ppb = (rate / 4).min(1_000_000_000);
    DevicePart {
        device: DeviceId::cpu(device),
        model: "cpu-2".to_owned(),
        base_micro: 2_000_000,
        rate: Some(rate),
        judged: None,
        nominal: Some(4_000_000_000),
        factor_ppb,
        credit: 2_000_000 * factor_ppb,
        counted,
        verdict: "pass".to_owned(),
        reason: "none".to_owned(),
    }
}

fn scored(epoch: Epoch, devices: Vec<DevicePart>, bonus: &str, total: &str) -> Record {
    let (bonus, total) = (fx::points(bonus), fx::points(total));
    let gpu = Points(total.0 - bonus.0);
    let parts = ScoreParts { devices, scaling: fx::SCALING, gpu, bonus, total, notes: Vec::new() };
    Record::Score(ScoreRecord { score: total, parts, ..fx::score(epoch, 1, "0") })
}

fn registered(admission: Option<AdmissionNote>) -> Record {
    Record::Neurons(NeuronsRecord { block: 255, neurons: vec![NeuronEntry { admission, ..fx::neuron(1, 1) }] })
}

fn honest() -> Connection {
    let mut parts = ScoreParts {
        devices: vec![part(0, 4_400_000_000, true), part(1, 1_000_000_000, true)],
        scaling: fx::SCALING,
        gpu: fx::points("15.625"),
        bonus: fx::points("100"),
        total: fx::points("115.625"),
        notes: vec!["lease 0101… counts until block 300".to_owned()],
    };
    parts.devices[1].model = String::new();
    database([
        registered(Some(AdmissionNote {
            admitted: true,
            reason: "registered".to_owned(),
            text: "registered, with an address of its own".to_owned(),
            remedy: String::new(),
        })),
        Record::Score(ScoreRecord { parts, ..fx::score(42, 1, "115.625") }),
        Record::Verdict(fx::verdict(41, 1, 0, Verdict::unknown(UnknownCause::Timeout, "no roots within 4 s"))),
        Record::Verdict(fx::verdict(42, 1, 0, fx::pass(2_200_000_000))),
        Record::Verdict(fx::verdict(42, 1, 1, fx::pass(500_000_000))),
        Record::Lease(fx::lease(1, 0)),
        Record::Lease(fx::ended(fx::lease(2, 1))),
        Record::Weights(fx::weights(1, &[(1, 65535), (2, 32767)])),
        Record::WeightsStatus(fx::weights_status(1, WeightsStatus::Included, Some(250), "0xabc")),
        Record::Weights(fx::weights(2, &[(1, 65535)])),
        Record::WeightsStatus(fx::weights_status(2, WeightsStatus::Failed, None, "SettingWeightsTooFast")),
    ])
}

fn cheater() -> Connection {
    let caught = DevicePart {
        rate: None,
        factor_ppb: 0,
        verdict: "fail".to_owned(),
        reason: "entry_mismatch".to_owned(),
        ..part(0, 0, true)
    };
    database([
        registered(None),
        scored(42, vec![caught], "0", "0"),
        Record::Verdict(fx::verdict(40, 1, 0, fx::pass(2_200_000_000))),
        Record::Verdict(fx::verdict(41, 1, 0, fx::forged())),
        Record::Verdict(fx::verdict(42, 1, 0, fx::forged())),
        Record::Penalty(fx::penalty(1, NOW, NOW + 7_200_000)),
        Record::Weights(fx::weights(1, &[(2, 65535)])),
        Record::WeightsStatus(fx::weights_status(1, WeightsStatus::Included, Some(250), "0xabc")),
    ])
}

#[test]
fn an_honest_miner_sees_the_arithmetic_of_its_score_and_its_weight() {
    insta::assert_snapshot!(gather(&honest(), &hotkey(1), NOW).unwrap().to_text());
}

#[test]
fn a_cheater_sees_which_check_caught_it_and_what_to_do() {
    let text = gather(&cheater(), &hotkey(1), NOW).unwrap().to_text();
    assert!(text.contains("fail entry_mismatch"), "{text}");
    assert!(text.contains("tile 12, entry 7"), "{text}");
    insta::assert_snapshot!(text);
}

#[test]
fn a_miner_without_a_judgement_sees_what_keeps_it_out() {
    let refused = AdmissionNote {
        admitted: false,
        reason: "duplicate_ip".to_owned(),
        text: "another uid registered this address first: uid 3".to_owned(),
        remedy: "serve each hotkey from an address of its own".to_owned(),
    };
    let unreachable = VerdictRecord {
        device: None,
        model: String::new(),
        ..fx::verdict(42, 1, 0, Verdict::unknown(UnknownCause::Unreachable, "connection refused by 127.0.9.1:8091"))
    };
    let db = database([registered(Some(refused)), Record::Verdict(unreachable)]);
    insta::assert_snapshot!(gather(&db, &hotkey(1), NOW).unwrap().to_text());
}

#[test]
fn a_hotkey_nobody_has_seen_is_said_to_be_so() {
    let explanation = gather(&honest(), &hotkey(77), NOW).unwrap();
    assert!(explanation.is_empty());
    assert!(explanation.to_text().contains("never seen it registered"));
}

#[test]
fn the_json_says_the_same_as_the_text_and_reads_back() {
    let explanation = gather(&cheater(), &hotkey(1), NOW).unwrap();
    let json = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["verdicts"][0]["reason"], "entry_mismatch");
    assert_eq!(json["verdicts"][0]["text"], "an entry of an opened tile is not the product's");
    assert_eq!(json["score"]["parts"]["total"], 0);
    assert_eq!(json["weights"]["weight"], 0);
    assert_eq!(serde_json::from_value::<Explanation>(json).unwrap(), explanation);
}

#[test]
fn rates_are_written_with_the_prefix_that_fits() {
    let cases =
        [(0, "0 op/s"), (1_500, "1.500 kop/s"), (4_400_000_000, "4.400 Gop/s"), (1_979 * 10u64.pow(12), "1.979 Pop/s")];
    for (rate, text) in cases {
        assert_eq!(ops(rate), text);
    }
}

#[test]
fn a_peer_cannot_write_lines_or_colours_of_its_own_into_the_text() {
    let model = "cpu-1\n  total 200.0000\u{1b}[32m".to_owned();
    let part = DevicePart { model, ..part(0, 4_000_000_000, true) };
    let text = gather(&database([scored(42, vec![part], "0", "12.5")]), &hotkey(1), NOW).unwrap().to_text();
    assert_eq!(text.matches("\n  total ").count(), 1, "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn a_rented_device_that_is_paid_without_a_pass_shows_its_arithmetic() {
    let rented =
        DevicePart { verdict: "unknown".to_owned(), reason: "rented".to_owned(), ..part(0, 4_400_000_000, true) };
    let text = gather(&database([scored(42, vec![rented], "100", "112.5")]), &hotkey(1), NOW).unwrap().to_text();
    assert!(
        text.contains("CPU-0  cpu-2: unknown rented, base 2.0000 × min(1, 4.400 Gop/s / 4.000 Gop/s) = 2.0000"),
        "{text}"
    );
}
