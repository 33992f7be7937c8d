//! Whom floods are held against, and when they are too much.

use super::*;

/// A whole number of windows since the Unix epoch.
const NOW: u64 = 1_800_000_000_000;
const WINDOW: u64 = 60_000;
const LIMITS: AnomalyLimits =
    AnomalyLimits { window_ms: WINDOW, bad_signatures: 20, replays: 5, malformed: 3, penalty_ms: 900_000 };

fn at(ip: &str) -> Address {
    Address::of(ip.parse().unwrap())
}

fn bad(ip: &str) -> Seen {
    Seen::BadSignature { from: at(ip) }
}

/// The findings of the same thing seen `count` times at one moment.
fn see(anomalies: &mut Anomalies, limits: &AnomalyLimits, now_ms: u64, seen: Seen, count: usize) -> Vec<Finding> {
    (0..count).filter_map(|_| anomalies.see(limits, now_ms, seen)).collect()
}

fn found(of: &mut Anomalies, now_ms: u64, seen: Seen, count: usize) -> bool {
    !see(of, &LIMITS, now_ms, seen, count).is_empty()
}

#[test]
fn each_kind_is_held_against_its_subject_above_its_limit_and_told_once() {
    let hotkey = Hotkey([9; 32]);
    let table = [
        (bad("203.0.113.9"), 20, Subject::Address(at("203.0.113.9")), Anomaly::BadSignatures),
        (Seen::Replay { from: at("203.0.113.9") }, 5, Subject::Address(at("203.0.113.9")), Anomaly::Replays),
        (Seen::Malformed { by: hotkey }, 3, Subject::Hotkey(hotkey), Anomaly::Malformed),
    ];
    for (seen, allowed, subject, anomaly) in table {
        let mut anomalies = Anomalies::new([]);
        assert_eq!(see(&mut anomalies, &LIMITS, NOW, seen, allowed), [], "{seen:?} at its limit");
        let finding = Finding { subject, anomaly, allowed: allowed as u64, window_ms: WINDOW };
        assert_eq!(see(&mut anomalies, &LIMITS, NOW, seen, 1000), [finding], "{seen:?} above it");
        assert!(finding.detail().contains(&format!("more than {allowed} ")), "{}", finding.detail());
        assert!(finding.detail().ends_with(" within 1m"), "{}", finding.detail());
    }
    let labels: std::collections::BTreeSet<_> = Anomaly::ALL.iter().map(|a| a.label()).collect();
    assert_eq!(labels.len(), Anomaly::ALL.len());
}

#[test]
fn a_limit_of_0_and_a_penalty_of_0_are_off() {
    let off = AnomalyLimits { bad_signatures: 0, ..LIMITS };
    let mut anomalies = Anomalies::new([]);
    assert_eq!(see(&mut anomalies, &off, NOW, bad("203.0.113.9"), 1000), []);
    assert!(found(&mut anomalies, NOW, Seen::Replay { from: at("203.0.113.9") }, 6), "the others are on");
    let none = AnomalyLimits { penalty_ms: 0, ..LIMITS };
    assert_eq!(see(&mut Anomalies::new([]), &none, NOW, bad("203.0.113.9"), 1000), []);
}

#[test]
fn windows_slide() {
    // Twenty late in a window and one early in the next are 21 in less than a minute.
    let mut anomalies = Anomalies::new([]);
    assert!(!found(&mut anomalies, NOW + WINDOW - 1, bad("203.0.113.9"), 20));
    assert!(found(&mut anomalies, NOW + WINDOW, bad("203.0.113.9"), 1));
    // Half a window later half of them count: ten more are just allowed.
    let mut anomalies = Anomalies::new([]);
    assert!(!found(&mut anomalies, NOW, bad("203.0.113.9"), 20));
    assert!(!found(&mut anomalies, NOW + WINDOW * 3 / 2, bad("203.0.113.9"), 10));
    assert!(found(&mut anomalies, NOW + WINDOW * 3 / 2, bad("203.0.113.9"), 1));
    // What is over is forgotten: twenty in every second window are never too much.
    let mut anomalies = Anomalies::new([]);
    for n in 0..100 {
        assert!(!found(&mut anomalies, NOW + n * 2 * WINDOW, bad("203.0.113.9"), 20), "window {n}");
    }
}

#[test]
fn whoever_goes_on_is_told_again_in_the_next_window_and_not_before() {
    let mut anomalies = Anomalies::new([]);
    let told = (0..180).filter(|second| found(&mut anomalies, NOW + second * 1000, bad("203.0.113.9"), 30));
    assert_eq!(told.count(), 3);
}

#[test]
fn a_clock_that_is_set_back_or_forward_accuses_nobody() {
    let mut anomalies = Anomalies::new([]);
    for jump in [0, 86_400_000, 0, WINDOW * 10] {
        assert!(!found(&mut anomalies, NOW - jump, bad("203.0.113.9"), 20), "{jump} ms back");
    }
    assert!(found(&mut anomalies, NOW - WINDOW * 10, bad("203.0.113.9"), 1), "and it still counts");
}

#[test]
fn an_address_that_also_sends_good_requests_needs_ten_times_as_much() {
    let mut anomalies = Anomalies::new([]);
    let good = |of: &mut Anomalies, now_ms| of.see(&LIMITS, now_ms, Seen::Good { from: at("203.0.113.9") });
    assert_eq!(good(&mut anomalies, NOW), None);
    assert!(!found(&mut anomalies, NOW, bad("203.0.113.9"), 200));
    assert!(found(&mut anomalies, NOW, bad("203.0.113.9"), 1));
    assert!(found(&mut anomalies, NOW, bad("203.0.113.10"), 21), "its neighbour does not");
    // A caller that asks once a day is still there; what is older says nothing any more.
    for (later, allowed) in [(REMEMBERED_MS - 1, 200), (REMEMBERED_MS, 20)] {
        let mut anomalies = Anomalies::new([]);
        assert_eq!(good(&mut anomalies, NOW), None);
        assert!(!found(&mut anomalies, NOW + later, bad("203.0.113.9"), allowed), "{later} ms later");
        assert!(found(&mut anomalies, NOW + later, bad("203.0.113.9"), 1), "{later} ms later");
    }
}

#[test]
fn loopback_and_our_own_addresses_are_held_against_nobody() {
    let own = ["198.51.100.7", "2001:db8::5", "0.0.0.0"].map(|ip| ip.parse().unwrap());
    let anomalies = Anomalies::new(own);
    let held = |ip: &str| anomalies.held_against(ip.parse().unwrap());
    for exempt in
        ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "198.51.100.7", "::ffff:198.51.100.7", "2001:db8::9"]
    {
        assert_eq!(held(exempt), None, "{exempt}");
    }
    assert_eq!(held("198.51.100.8"), Some(at("198.51.100.8")));
    assert_eq!(held("::2"), Some(at("::2")), "what shares a /64 with loopback is not loopback");
}

#[test]
fn a_million_addresses_cost_no_memory_and_hide_no_flood() {
    let mut anomalies = Anomalies::new([]);
    let size = |a: &Anomalies| (a.addresses.capacity(), a.good.capacity(), a.hotkeys.capacity());
    let before = size(&anomalies);
    let mut findings = Vec::new();
    for n in 0..1_000_000_u32 {
        let from = Address::of(IpAddr::from((0x0100_0000 + n).to_be_bytes()));
        assert_eq!(anomalies.see(&LIMITS, NOW, Seen::BadSignature { from }), None);
        if n % 1000 == 0 {
            findings.extend(anomalies.see(&LIMITS, NOW, bad("203.0.113.9")));
        }
        anomalies.see(&LIMITS, NOW, Seen::Good { from });
    }
    assert_eq!(size(&anomalies), before);
    assert_eq!(anomalies.addresses.len(), before.0);
    assert_eq!(findings.len(), 1, "the flood among them is found");
}
