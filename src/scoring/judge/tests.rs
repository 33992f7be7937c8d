//! The promises of judging over time, one test each.

use proptest::prelude::*;

use super::*;
use crate::scoring::table::DEFAULT_MAX_DEVICES;
use crate::scoring::{ModelRow, Points, machine_score};
use crate::verdict::PassEvidence;

const T: u64 = 1_000_000_000_000;
const HOUR: u64 = 3_600_000;

/// `gpu` and `other`: nominal 100 T, floor 75 T. `cpu-1`: no rates.
fn table() -> ScoreTable {
    let gpu = |name: &str| ModelRow {
        name: name.into(),
        base_micro: 1_000_000,
        nominal_ops: Some(100 * T),
        floor_ops: Some(75 * T),
        timed: true,
        ..ModelRow::default()
    };
    let cpu = ModelRow { timed: false, nominal_ops: None, floor_ops: None, ..gpu("cpu-1") };
    ScoreTable::new(vec![gpu("gpu"), gpu("other"), cpu], DEFAULT_MAX_DEVICES).unwrap()
}

fn pass(rate: u64) -> Verdict {
    Verdict::Pass { evidence: PassEvidence { operations: rate, elapsed_ns: 1_000_000_000, samples: 66 } }
}

fn unknown(cause: UnknownCause) -> Verdict {
    Verdict::unknown(cause, "seen")
}

fn forged() -> Verdict {
    Verdict::fail(FailReason::EntryMismatch, "tile 3")
}

fn gpu(n: u8) -> DeviceId {
    DeviceId([n.max(1); 16])
}

fn key(miner: u8) -> Hotkey {
    Hotkey([miner; 32])
}

fn finding(miner: u8, whole: Option<Verdict>, devices: Vec<DeviceFinding>) -> MinerFinding {
    let uid = Uid(miner.into());
    MinerFinding { uid, hotkey: key(miner), coldkey: Coldkey([miner; 32]), refused: None, whole, devices }
}

/// A miner with one GPU of its own.
fn one(miner: u8, verdict: Verdict) -> MinerFinding {
    claimed(miner, "gpu", verdict)
}

fn claimed(miner: u8, model: &str, verdict: Verdict) -> MinerFinding {
    let device = DeviceFinding { device: gpu(miner), model: model.into(), leased: false, verdict: Some(verdict) };
    finding(miner, None, vec![device])
}

fn leased(miner: u8) -> MinerFinding {
    let device = DeviceFinding { device: gpu(miner), model: "gpu".into(), leased: true, verdict: None };
    finding(miner, None, vec![device])
}

fn refused(miner: u8) -> MinerFinding {
    MinerFinding { refused: Some(Refusal::Penalised { until_ms: 1 }), ..finding(miner, None, Vec::new()) }
}

/// A judge whose epochs are an hour long.
struct Court(Judge, Epoch);

impl Court {
    fn new() -> Self {
        Court(Judge::new(HistoryRules::default()), 100)
    }
    fn all(&mut self, findings: &[MinerFinding]) -> Judged {
        self.1 += 1;
        self.0.judge(self.1, self.1 * HOUR, &table(), findings)
    }
    /// One miner's epoch, in company of two others, so that it is never alone in what happens to it.
    fn next(&mut self, finding: MinerFinding) -> Judged {
        self.all(&[finding, one(201, pass(100 * T)), one(202, pass(100 * T)), one(203, pass(100 * T))])
    }
    fn paid(&mut self, finding: MinerFinding) -> Points {
        let judged = self.next(finding);
        machine_score(&table(), &judged.miners[0].devices, false).total
    }
    /// The reason that counts for the first miner's first device.
    fn reason(&mut self, verdict: Verdict) -> &'static str {
        self.next(one(1, verdict)).counted[0].verdict.reason()
    }
    fn proved(&self, miner: u8, ahead: u64) -> bool {
        let history = self.0.history(key(miner), Some(gpu(miner))).unwrap();
        history.proved(self.1 + ahead, self.0.rules())
    }
}

/// What a full-rate device is paid, in parts of a hundred.
fn percent(of: u64) -> Points {
    Points(125_000_000 * of)
}

// === what rate is paid ===

#[test]
fn the_median_is_paid_so_a_fast_epoch_earns_nothing_more() {
    let mut court = Court::new();
    for rate in [80, 80, 80] {
        assert_eq!(court.paid(one(1, pass(rate * T))), percent(80));
    }
    assert_eq!(court.paid(one(1, pass(100 * T))), percent(80), "a spike");
    assert_eq!(court.paid(one(1, pass(80 * T))), percent(80));
    let paid: Vec<_> = (0..6).map(|_| court.paid(one(1, pass(100 * T)))).collect();
    let expected = [80, 80, 90, 100, 100, 100].map(percent);
    assert_eq!(paid, expected, "what lasts is paid once it is half of the window");
}

#[test]
fn an_epoch_far_below_the_median_is_paid_its_own_rate_and_one_nearby_the_median() {
    let mut court = Court::new();
    for _ in 0..5 {
        court.paid(one(1, pass(100 * T)));
    }
    // 1 % of the median counts as the least spread: 3 · 1.4826 % below is the edge.
    assert_eq!(court.paid(one(1, pass(95_553 * T / 1_000))), percent(100));
    assert_eq!(court.paid(one(1, pass(95_552 * T / 1_000))), Points(11_944_000_000));
    assert_eq!(court.paid(one(1, pass(100 * T * 7 / 8))), Points(10_937_500_000), "a card that is missing");
}

#[test]
fn with_few_rates_the_lower_of_the_present_one_and_the_median_is_paid() {
    let mut court = Court::new();
    assert_eq!(court.paid(one(1, pass(80 * T))), percent(80));
    assert_eq!(court.paid(one(1, pass(100 * T))), percent(90), "the mean of the two");
    let mut court = Court::new();
    court.paid(one(1, pass(100 * T)));
    assert_eq!(court.paid(one(1, pass(80 * T))), percent(80));
}

#[test]
fn how_a_rate_was_judged_is_kept_with_the_judgement() {
    let mut court = Court::new();
    for rate in [90, 100, 80, 100] {
        court.next(one(1, pass(rate * T)));
    }
    let rate = court.next(one(1, pass(95 * T))).miners[0].devices[0].rate.unwrap();
    assert_eq!((rate.present, rate.median, rate.mad, rate.of), (95 * T, 95 * T, 5 * T, 5));
    assert_eq!(rate.paid, 95 * T);
    let untimed = court.next(claimed(2, "cpu-1", pass(7)));
    assert_eq!(untimed.miners[0].devices[0].rate, None, "a class without rates is paid its base, whatever its rate");
    assert_eq!(machine_score(&table(), &untimed.miners[0].devices, false).total, percent(100));
}

#[test]
fn one_slow_epoch_is_no_fail_and_a_slow_card_is_one() {
    let mut court = Court::new();
    for _ in 0..8 {
        court.next(one(1, pass(100 * T)));
    }
    assert_eq!(court.paid(one(1, pass(30 * T))), percent(30), "below the floor, paid as it is");
    let reasons: Vec<_> = (0..5).map(|_| court.reason(pass(30 * T))).collect();
    // With 4 of 8 slow the median is 65 T.
    assert_eq!(reasons, ["none", "none", "below_floor", "below_floor", "below_floor"]);
    let judged = court.next(one(1, pass(30 * T)));
    let Verdict::Fail { detail, .. } = &judged.counted[0].verdict else { panic!("{judged:?}") };
    assert_eq!(detail, "30.000, the median of the last 8, the floor is 75.000 (10^12 operations a second)");
    let mut fresh = Court::new();
    assert_eq!(fresh.reason(pass(75 * T - 1)), "below_floor", "a new claim has to hold its floor at once");
    assert_eq!(fresh.reason(pass(75 * T)), "none");
}

#[test]
fn another_claim_inherits_nothing() {
    let mut court = Court::new();
    for _ in 0..8 {
        court.next(one(1, pass(100 * T)));
    }
    let judged = court.next(claimed(1, "other", pass(80 * T)));
    assert_eq!(judged.miners[0].devices[0].rate.unwrap().of, 1);
    assert_eq!(court.next(claimed(1, "other", pass(50 * T))).counted[0].verdict.reason(), "below_floor");
    // Nor does a leased device that is called something else all of a sudden.
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    assert_eq!(court.next(leased(1)).miners[0].devices[0].kept_rate, Some(100 * T));
    let mut renamed = leased(1);
    renamed.devices[0].model = "other".into();
    assert_eq!(court.next(renamed).miners[0].devices[0].kept_rate, None);
}

// === penalties ===

#[test]
fn three_fails_among_six_judgements_are_one_penalty_and_then_it_begins_anew() {
    let mut court = Court::new();
    let due = |judged: Judged| judged.penalties;
    for verdict in [forged(), pass(100 * T), forged(), pass(100 * T)] {
        assert_eq!(due(court.next(one(1, verdict))), []);
    }
    let from_ms = (court.1 + 1) * HOUR;
    let penalty = DuePenalty {
        hotkey: key(1),
        reason: "repeated_fails".into(),
        detail: format!("{} failed 3 of its last 6 judgements", gpu(1)),
        from_ms,
        until_ms: from_ms + 6 * HOUR,
    };
    assert_eq!(due(court.next(one(1, forged()))), [penalty]);
    for _ in 0..6 {
        assert_eq!(due(court.next(refused(1))), [], "one is in force");
    }
    // It is over: two more fails are two, not five.
    assert_eq!(due(court.next(one(1, forged()))), []);
    assert_eq!(due(court.next(one(1, forged()))), []);
    assert_eq!(due(court.next(one(1, forged()))).len(), 1);
    // A person lifts it: the miner is asked before it is over.
    assert_eq!(due(court.next(one(1, forged()))), []);
    assert_eq!(due(court.next(one(1, forged()))), []);
    assert_eq!(due(court.next(one(1, forged()))).len(), 1);
}

#[test]
fn fails_that_others_can_cause_and_a_duration_of_0_bring_no_penalty() {
    let mut court = Court::new();
    for _ in 0..10 {
        let copied = MinerFinding { devices: one(1, pass(100 * T)).devices, ..one(9, pass(1)) };
        let judged = court.all(&[one(1, pass(100 * T)), copied, one(3, unknown(UnknownCause::Unreachable))]);
        assert_eq!(judged.counted[0].verdict.reason(), "duplicate_device");
        assert_eq!(judged.penalties, []);
    }
    assert_eq!(court.next(one(3, unknown(UnknownCause::Unreachable))).counted[0].verdict.reason(), "unresponsive");
    let mut off = Court(Judge::new(HistoryRules { penalty_ms: 0, ..HistoryRules::default() }), 0);
    for _ in 0..10 {
        assert_eq!(off.next(one(1, forged())).penalties, []);
    }
}

/// Miner 1 with its GPU under the `n`-th name.
fn renamed(n: u8, verdict: Verdict) -> MinerFinding {
    let mut finding = one(1, verdict);
    finding.devices[0].device = gpu(100 + n);
    finding
}

#[test]
fn fails_count_for_the_miner_also_where_its_devices_change_their_names() {
    let mut court = Court::new();
    for n in 0..2 {
        assert_eq!(court.next(renamed(n, forged())).penalties, []);
        assert_eq!(court.next(renamed(10 + n, unknown(UnknownCause::OwnFault))).penalties, [], "no judgement");
    }
    let judged = court.next(renamed(3, forged()));
    assert_eq!(judged.penalties.len(), 1);
    assert_eq!(judged.penalties[0].detail, "the miner failed 3 of its last 6 judgements");
    // It is an epoch that counts, however many of its devices fail in it, and only the last ones.
    let mut court = Court::new();
    let two = |n| {
        let mut finding = renamed(n, forged());
        finding.devices.extend(renamed(50 + n, forged()).devices);
        finding
    };
    assert_eq!(court.next(two(0)).penalties, []);
    assert_eq!(court.next(two(1)).penalties, []);
    (2..6).for_each(|n| assert_eq!(court.next(renamed(n, pass(100 * T))).penalties, []));
    assert_eq!(court.next(two(6)).penalties, []);
}

// === leases ===

#[test]
fn another_device_id_does_not_spare_a_miner_the_first_judgement_after_a_lease() {
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    court.next(leased(1));
    court.next(renamed(1, unknown(UnknownCause::Timeout)));
    let judged = court.next(renamed(2, forged()));
    assert_eq!(judged.penalties.len(), 1);
    assert_eq!(judged.penalties[0].reason, RELEASE_PROOF_FAILED);
    // Beside the leased device that is still there, and for the second in its place, it is an ordinary Fail.
    let mut court = Court::new();
    court.next(leased(1));
    let mut both = leased(1);
    both.devices.extend(renamed(1, forged()).devices);
    assert_eq!(court.next(both).penalties, []);
    court.next(renamed(2, pass(100 * T)));
    assert_eq!(court.next(renamed(3, forged())).penalties, []);
}

#[test]
fn a_fail_in_the_first_judgement_after_a_lease_is_a_penalty_at_once() {
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    court.next(leased(1));
    // Nothing can be said: the first judgement is still to come.
    court.next(one(1, unknown(UnknownCause::Timeout)));
    let judged = court.next(one(1, forged()));
    assert_eq!(judged.penalties.len(), 1);
    assert_eq!(judged.penalties[0].reason, RELEASE_PROOF_FAILED);
    assert_eq!(court.0.history(key(1), Some(gpu(1))).unwrap().kept(), None, "the lease's credit is void");
    let mut proves = Court::new();
    proves.next(leased(2));
    proves.next(one(2, pass(100 * T)));
    assert_eq!(proves.next(one(2, forged())).penalties, [], "that is an ordinary fail");
}

#[test]
fn a_device_comes_back_from_a_lease_with_its_pass_as_old_as_it_was_and_is_paid_when_it_passes_again() {
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    for _ in 0..20 {
        assert_eq!(court.paid(leased(1)), percent(100));
    }
    assert!(court.proved(1, 1) && !court.proved(1, 2));
    assert_eq!(court.paid(one(1, unknown(UnknownCause::Timeout))), percent(0));
    assert_eq!(court.paid(one(1, pass(100 * T))), percent(100));
}

#[test]
fn a_lease_pays_for_a_day_after_the_last_pass_and_our_own_outage_is_not_counted() {
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    (0..24).for_each(|_| assert_eq!(court.paid(leased(1)), percent(100)));
    assert_eq!(court.paid(leased(1)), percent(0), "25 hours");

    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    (0..20).for_each(|_| assert_eq!(court.paid(leased(1)), percent(100)));
    court.0.outage(court.1 + 1, court.1 + 10, 10 * HOUR);
    court.1 += 10;
    (0..4).for_each(|_| assert_eq!(court.paid(leased(1)), percent(100)));
    assert_eq!(court.paid(leased(1)), percent(0));
}

// === our own outages ===

#[test]
fn an_outage_stops_every_clock_and_is_no_judgement() {
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    court.0.outage(court.1 + 1, court.1 + 50, 50 * HOUR);
    court.1 += 50;
    assert!(court.proved(1, 1) && !court.proved(1, 2));
    assert_eq!(court.0.last_epoch(), Some(court.1));
    let before = court.0.clone();
    court.0.outage(court.1 - 10, court.1, 10 * HOUR);
    assert_eq!(court.0, before, "what is known already is not subtracted twice");
    // Two fails, an outage, four passes: still two fails among the last six; own faults are no judgements either.
    let mut court = Court::new();
    court.next(one(1, forged()));
    court.next(one(1, forged()));
    for _ in 0..9 {
        court.next(one(1, unknown(UnknownCause::OwnFault)));
        court.0.outage(court.1 + 1, court.1 + 1, HOUR);
        court.1 += 1;
    }
    assert_eq!(court.next(one(1, forged())).penalties.len(), 1);
}

#[test]
fn an_own_fault_stops_the_clocks_of_that_device_for_an_epoch() {
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    (0..5).for_each(|_| assert_eq!(court.reason(unknown(UnknownCause::OwnFault)), "own_fault"));
    assert!(court.proved(1, 1) && !court.proved(1, 2));
    let kept = court.0.history(key(1), Some(gpu(1))).unwrap().kept().unwrap();
    assert_eq!(kept.at_ms, court.1 * HOUR, "as if it had been given now");
}

#[test]
fn an_epoch_of_own_faults_alone_is_void_and_stops_the_clock_of_all() {
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    let own = || unknown(UnknownCause::OwnFault);
    for _ in 0..3 {
        let judged = court.all(&[one(201, own()), finding(202, Some(own()), Vec::new()), refused(3), leased(1)]);
        assert!(judged.void.is_some());
        assert_eq!(judged.counted.len(), 2);
    }
    assert!(court.proved(1, 1) && court.proved(201, 1), "also of those that were not asked");
    assert_eq!(court.all(&[leased(1), refused(2)]).void, None, "an epoch in which nobody was to be asked is none");
    assert_eq!(court.all(&[one(201, own()), one(202, forged())]).void, None);
}

/// Miners 1 to `of`, of which the first `silent` are unreachable, as a whole or with their device.
fn many(silent: u8, of: u8) -> Vec<MinerFinding> {
    let away = || unknown(UnknownCause::Unreachable);
    let miner = |i| match i {
        i if i > silent => one(i, pass(100 * T)),
        i if i % 2 == 0 => finding(i, Some(away()), Vec::new()),
        i => one(i, away()),
    };
    (1..=of).map(miner).collect()
}

#[test]
fn nearly_everybody_unreachable_at_once_is_our_own_outage() {
    let mut court = Court::new();
    court.all(&many(0, 10));
    let judged = court.all(&many(9, 10));
    let why = "9 of 10 miners unreachable at once: suspected own outage";
    assert_eq!(judged.void.as_deref(), Some(why));
    assert_eq!(judged.counted.len(), 10);
    for counted in &judged.counted {
        assert_eq!(counted.verdict, Verdict::unknown(UnknownCause::OwnFault, why), "nobody is judged");
    }
    assert!((1..10).all(|i| court.proved(i, 1)), "and no proof runs out");
    assert_eq!(court.all(&many(0, 10)).void, None);
    assert_eq!(court.all(&many(8, 10)).void, None, "80 % is not more than 80 %");
}

#[test]
fn an_own_outage_is_suspected_of_three_miners_that_passed_before_and_not_for_ever() {
    let mut few = Court::new();
    few.all(&many(0, 2));
    assert_eq!(few.all(&many(2, 2)).void, None, "two may well fail together");
    let mut never = Court::new();
    never.all(&[one(1, forged()), one(2, forged()), one(3, forged())]);
    assert_eq!(never.all(&many(10, 10)).void, None, "those never passed");
    let mut gone = Court::new();
    gone.all(&many(0, 5));
    let void: Vec<bool> = (0..8).map(|_| gone.all(&many(5, 5)).void.is_some()).collect();
    assert_eq!(void, [true, true, true, false, false, false, false, false]);
    let history = gone.0.history(key(1), Some(gpu(1))).unwrap();
    assert_eq!(history.misses(), 5, "a subnet that is really gone is judged then");
}

#[test]
fn an_own_outage_is_suspected_in_at_most_three_of_any_64_epochs() {
    let mut court = Court::new();
    let first = court.1 + 2;
    for _ in 0..100 {
        court.all(&many(0, 5));
        let void = court.all(&many(5, 5)).void.is_some();
        let at = court.1 - first;
        assert_eq!(void, at % 64 < 6, "in epoch {at} after the first");
    }
}

#[test]
fn a_judge_of_a_program_that_counted_its_suspicions_is_read() {
    let new = Judge::new(HistoryRules::default());
    let mut text = serde_json::to_value(&new).unwrap();
    text["suspected"] = 2.into();
    assert_eq!(serde_json::from_value::<Judge>(text).unwrap(), new);
}

#[test]
fn nearly_everybody_silent_after_the_roots_is_our_own_outage_but_one_alone_and_those_that_answer_fail() {
    let fail = |reason| move |i| one(i, Verdict::fail(reason, "seen"));
    let unanswered = fail(FailReason::OpeningUnanswered);
    let mut court = Court::new();
    court.all(&many(0, 10));
    let mut cut_off = many(5, 10);
    cut_off[5..].iter_mut().zip(6..).for_each(|(finding, i)| *finding = unanswered(i));
    let judged = court.all(&cut_off);
    assert!(judged.void.is_some());
    assert!(judged.counted.iter().all(|c| c.verdict.reason() == "own_fault"));
    assert!((1..=10).all(|i| court.proved(i, 1)));
    assert_eq!(court.next(unanswered(1)).counted[0].verdict.reason(), "opening_unanswered");

    let mut withheld = Court::new();
    withheld.all(&many(0, 10));
    let findings: Vec<_> = (1..=10).map(fail(FailReason::OpeningWithheld)).collect();
    assert_eq!(withheld.all(&findings).void, None, "a refusal came over the network");
}

// === rentals that begin while a proof is made ===

#[test]
fn a_device_whose_lease_began_in_the_round_is_paid_its_last_pass_as_if_it_had_been_leased_before() {
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    let mut given_up = one(1, unknown(UnknownCause::Rented));
    assert_eq!(court.paid(given_up.clone()), percent(0), "the word of a miner that no lease bears out");
    court.next(one(1, pass(100 * T)));
    given_up.devices[0].leased = true;
    assert_eq!(court.paid(given_up.clone()), percent(100));
    assert!(court.proved(1, 1), "the epoch does not use up its Pass");
    assert!(court.0.history(key(1), Some(gpu(1))).unwrap().is_after_lease());

    let another = MinerFinding { devices: claimed(1, "gpu", pass(80 * T)).devices, ..one(2, pass(1)) };
    let judged = court.all(&[given_up, another]);
    assert_eq!(judged.counted[1].verdict.reason(), "duplicate_device", "what we rent is no other's");
}

// === duplicates ===

#[test]
fn a_gpu_that_two_hotkeys_prove_credits_neither() {
    let copy = |verdict| MinerFinding { devices: claimed(1, "gpu", verdict).devices, ..one(2, pass(1)) };
    let reasons = |findings: &[MinerFinding]| {
        let judged = Court::new().all(findings);
        judged.counted.iter().map(|c| c.verdict.reason()).collect::<Vec<_>>()
    };
    let honest = || one(1, pass(100 * T));
    assert_eq!(reasons(&[honest(), copy(pass(80 * T))]), ["duplicate_device", "duplicate_device"]);
    assert_eq!(reasons(&[leased(1), copy(pass(80 * T))]), ["duplicate_device"], "what we rent is no other's");
    let claims =
        [(unknown(UnknownCause::Timeout), "timeout"), (forged(), "entry_mismatch"), (pass(74 * T), "below_floor")];
    for (claim, reason) in claims {
        assert_eq!(reasons(&[honest(), copy(claim)]), ["none", reason], "naming another's GPU costs it nothing");
    }
}

// === memory ===

#[test]
fn an_epoch_that_was_judged_gets_the_same_verdicts_again_and_changes_nothing() {
    let mut court = Court::new();
    let first = court.next(one(1, pass(100 * T)));
    let before = court.0.clone();
    let again = court.0.judge(court.1, 1, &table(), &[one(1, forged()), one(77, forged())]);
    assert_eq!(again.counted[0], first.counted[0]);
    assert_eq!(court.0, before);
}

#[test]
fn misses_of_a_whole_miner_are_not_in_a_row_when_its_devices_answered_in_between() {
    let mut court = Court::new();
    let away = || finding(1, Some(unknown(UnknownCause::Unreachable)), Vec::new());
    let reason = |judged: Judged| judged.counted[0].verdict.reason();
    court.next(away());
    court.next(away());
    court.next(one(1, pass(100 * T)));
    assert_eq!(reason(court.next(away())), "unreachable");
    assert_eq!(reason(court.next(away())), "unreachable");
    assert_eq!(reason(court.next(away())), "unresponsive");
}

#[test]
fn what_is_not_seen_for_long_is_forgotten_and_made_up_devices_are_bounded() {
    let mut court = Court::new();
    court.next(one(1, pass(100 * T)));
    (0..FORGET_EPOCHS - 1).for_each(|_| _ = court.next(one(2, pass(100 * T))));
    assert!(court.0.history(key(1), Some(gpu(1))).is_some());
    court.next(one(2, pass(100 * T)));
    assert!(court.0.history(key(1), Some(gpu(1))).is_none());
    (0..2 * FORGET_EPOCHS).for_each(|_| _ = court.next(leased(2)));
    assert!(court.0.history(key(2), Some(gpu(2))).is_some(), "a lease may be long");

    for epoch in 0..40u8 {
        let device = |i: u8| DeviceFinding {
            device: DeviceId([100 + i, epoch, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            model: "gpu".into(),
            leased: false,
            verdict: Some(forged()),
        };
        court.next(finding(7, None, (0..16).map(device).collect()));
    }
    assert_eq!(court.0.histories(), 4 + MAX_HISTORIES);
}

#[test]
fn verdicts_of_a_program_that_stored_no_judge_are_taken_in() {
    let mut court = Court::new();
    let mut recalled = Judge::new(HistoryRules::default());
    for rate in [100, 90, 80] {
        let judged = court.next(one(1, pass(rate * T)));
        judged.counted.iter().for_each(|c| recalled.recall(court.1, court.1 * HOUR, &table(), c));
    }
    assert_eq!(recalled, court.0);
    for n in 0..2 {
        let judged = court.next(renamed(n, forged()));
        judged.counted.iter().for_each(|c| recalled.recall(court.1, court.1 * HOUR, &table(), c));
    }
    let whole = |judge: &Judge| judge.history(key(1), None).cloned();
    assert!(whole(&recalled).is_some());
    assert_eq!(whole(&recalled), whole(&court.0));
}

fn holds_no_fraction(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(n) => n.is_u64() || n.is_i64(),
        serde_json::Value::Array(all) => all.iter().all(holds_no_fraction),
        serde_json::Value::Object(all) => all.values().all(holds_no_fraction),
        _ => true,
    }
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        4 => prop_oneof![Just(100 * T), 0..200 * T, Just(u64::MAX)].prop_map(pass),
        1 => proptest::sample::select(FailReason::ALL).prop_map(|r| Verdict::fail(r, "x")),
        2 => proptest::sample::select(UnknownCause::ALL).prop_map(unknown),
    ]
}

fn any_finding(miner: u8) -> impl Strategy<Value = MinerFinding> {
    let model = proptest::sample::select(vec!["gpu", "other", "cpu-1", "nobody's"]);
    let device = (1u8..6, model, prop::option::weighted(0.9, any_verdict()));
    let devices = prop::collection::btree_map(1u8..6, device, 0..4).prop_map(|all| {
        all.into_iter()
            .map(|(id, (_, model, verdict))| DeviceFinding {
                device: gpu(id),
                model: model.into(),
                leased: verdict.is_none(),
                verdict,
            })
            .collect::<Vec<_>>()
    });
    (prop::option::weighted(0.1, any_verdict()), devices).prop_map(move |(whole, devices)| {
        let devices = if whole.is_some() { Vec::new() } else { devices };
        finding(miner, whole, devices)
    })
}

fn any_epochs() -> impl Strategy<Value = Vec<(u64, Vec<MinerFinding>)>> {
    let findings = (any_finding(1), any_finding(2), any_finding(3), any_finding(4));
    let epoch = (prop_oneof![9 => Just(0u64), 1 => 1u64..9], findings);
    prop::collection::vec(epoch.prop_map(|(out, (a, b, c, d))| (out, vec![a, b, c, d])), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a replay rests on: the next state follows from the state as it is written and from the findings, in
    /// whatever order they come.
    #[test]
    fn the_same_findings_give_the_same_judge_also_when_it_is_written_and_read_in_between(epochs in any_epochs()) {
        let table = table();
        let (mut live, mut replay) = (Judge::new(HistoryRules::default()), Judge::new(HistoryRules::default()));
        let mut epoch = 0;
        for (out, findings) in epochs {
            for judge in [&mut live, &mut replay] {
                judge.outage(epoch + 1, epoch + out, out * HOUR);
            }
            epoch += out + 1;
            let text = serde_json::to_string(&replay).unwrap();
            prop_assert!(holds_no_fraction(&serde_json::from_str(&text).unwrap()), "{}", text);
            replay = serde_json::from_str(&text).unwrap();
            let first = live.judge(epoch, epoch * HOUR, &table, &findings);
            let reversed: Vec<_> = findings.iter().rev().cloned().collect();
            let mut second = replay.judge(epoch, epoch * HOUR, &table, &reversed);
            second.miners.reverse();
            prop_assert_eq!(&first.miners, &second.miners);
            prop_assert_eq!(&first.void, &second.void);
            second.penalties.reverse();
            prop_assert_eq!(&first.penalties, &second.penalties);
            prop_assert_eq!(serde_json::to_string(&live).unwrap(), serde_json::to_string(&replay).unwrap());

            // One verdict counts for each that was found, and no score is out of bounds.
            let found: usize = findings.iter().map(|f| f.verdicts().count()).sum();
            prop_assert_eq!(first.counted.len(), found);
            for miner in &first.miners {
                let score = machine_score(&table, &miner.devices, true);
                prop_assert!(score.gpu <= Points::HUNDRED && score.total.0 <= 2 * Points::HUNDRED.0);
                let paid = miner.devices.iter().filter_map(|d| d.rate);
                prop_assert!(paid.into_iter().all(|r| r.paid <= r.median.max(r.present) && r.paid <= r.median.max(1) || r.paid == r.present));
            }
        }
    }
}
