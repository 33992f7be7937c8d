//! The rules' order and their edges.

use std::net::IpAddr;
use std::time::Duration;

use std::sync::Arc;

use super::*;
use crate::ids::{Coldkey, Hotkey, Uid};

const NOW: u64 = 1_000_000;
const AGE: Duration = Duration::from_secs(60);

fn key(n: u8) -> Hotkey {
    Hotkey([n; 32])
}

/// A validator with permit and stake, as registered as can be.
fn peer(uid: u16) -> Peer {
    Peer {
        uid: Uid(uid),
        coldkey: Coldkey([uid as u8; 32]),
        stake_rao: policy::DEFAULT_MIN_STAKE_RAO,
        permit: true,
        ip: Some(IpAddr::from([127, 0, 1, uid as u8])),
        registered_at: u64::from(uid),
    }
}

fn snapshot(uids: impl IntoIterator<Item = u16>) -> Snapshot {
    let peers = Arc::new(uids.into_iter().map(|uid| (key(uid as u8), peer(uid))).collect());
    Snapshot { taken_block: 1, taken_at_ms: NOW, peers, ..Snapshot::default() }
}

fn ask(policy: &Policy, snapshot: &Snapshot, caller: u8, need: Need) -> Decision {
    admit_caller(policy, Some(snapshot), NOW, AGE, &key(caller), need)
}

fn refused(refusal: Refusal) -> Decision {
    Decision::Refused(refusal)
}

#[test]
fn the_rules_come_in_their_order() {
    // Caller 2 breaks every rule at once; each repair uncovers the next rule.
    let mut policy = Policy {
        deny_hotkeys: [key(2)].into(),
        deny_coldkeys: [Coldkey([2; 32])].into(),
        exploiter_hotkeys: [key(2)].into(),
        ..Policy::default()
    };
    let mut s = snapshot([1]);
    let penalty = Penalty { reason: "forged".into(), until_ms: NOW + 1 };
    s.penalties.insert(key(2), penalty);
    let check = |policy: &Policy, s: &Snapshot| ask(policy, s, 2, Need::Validator);

    assert_eq!(check(&policy, &s), refused(Refusal::NotRegistered));
    Arc::make_mut(&mut s.peers).insert(key(2), Peer { stake_rao: 0, permit: false, ip: peer(1).ip, ..peer(2) });
    assert_eq!(check(&policy, &s), refused(Refusal::NotEnoughStake));
    Arc::make_mut(&mut s.peers).insert(key(2), Peer { ip: peer(1).ip, ..peer(2) });
    assert_eq!(check(&policy, &s), refused(Refusal::DeniedHotkey));
    policy.deny_hotkeys.clear();
    assert_eq!(check(&policy, &s), refused(Refusal::DeniedColdkey));
    policy.deny_coldkeys.clear();
    assert_eq!(check(&policy, &s), refused(Refusal::Exploiter));
    policy.exploiters = false;
    assert_eq!(ask(&policy, &s, 2, Need::Any), refused(Refusal::DuplicateIp { first: Uid(1) }));
    policy.one_ip_per_uid = false;
    assert_eq!(check(&policy, &s), refused(Refusal::Penalised { until_ms: NOW + 1 }));
    s.penalties.clear();
    assert_eq!(check(&policy, &s), Decision::Admitted(Via::Permit));
}

#[test]
fn the_allow_list_comes_before_every_other_rule() {
    let mut s = snapshot([1]);
    s.penalties.insert(key(9), Penalty { reason: "x".into(), until_ms: NOW + 1 });
    let denied = Policy { deny_hotkeys: [key(9)].into(), exploiter_hotkeys: [key(9)].into(), ..Policy::default() };
    let listed = Policy { allow_hotkeys: [key(9)].into(), ..denied.clone() };
    assert_eq!(ask(&listed, &s, 9, Need::Validator), Decision::Admitted(Via::AllowList));
    let trusted = Policy { trusted_hotkeys: [key(9)].into(), ..denied };
    assert_eq!(ask(&trusted, &s, 9, Need::Validator), Decision::Admitted(Via::Trusted));
    let owner =
        Policy { allow_coldkeys: [Coldkey([1; 32])].into(), deny_hotkeys: [key(1)].into(), ..Policy::default() };
    assert_eq!(ask(&owner, &s, 1, Need::Validator), Decision::Admitted(Via::AllowList));
}

/// The original accepted every caller that was *not* on a non-empty allow-list, before any other rule (its issue #147).
#[test]
fn not_being_on_the_allow_list_admits_nobody() {
    let policy = Policy {
        allow_hotkeys: [key(100)].into(),
        trusted_hotkeys: (101..112).map(key).collect(),
        deny_hotkeys: [key(2)].into(),
        exploiter_hotkeys: [key(3)].into(),
        ..Policy::default()
    };
    let mut s = snapshot([1, 2, 3, 4]);
    Arc::make_mut(&mut s.peers).insert(key(4), Peer { stake_rao: 0, permit: false, ..peer(4) });
    assert_eq!(ask(&policy, &s, 50, Need::Validator), refused(Refusal::NotRegistered));
    assert_eq!(ask(&policy, &s, 2, Need::Validator), refused(Refusal::DeniedHotkey));
    assert_eq!(ask(&policy, &s, 3, Need::Validator), refused(Refusal::Exploiter));
    assert_eq!(ask(&policy, &s, 4, Need::Validator), refused(Refusal::NotEnoughStake));
    assert!(ask(&policy, &s, 1, Need::Validator).is_admitted(), "a good caller needs no list");
    assert!(ask(&policy, &s, 105, Need::Validator).is_admitted(), "and a trusted one is not refused");
}

#[test]
fn stake_and_permit_follow_the_table() {
    // (permit needed, forgiven, permit, enough stake) → way in, or reason.
    use Refusal::{NoValidatorPermit, NotEnoughStake};
    let table = [
        (false, false, false, false, Err(NotEnoughStake)),
        (false, false, false, true, Ok(Via::Stake)),
        (false, false, true, false, Ok(Via::Permit)),
        (false, false, true, true, Ok(Via::Permit)),
        (false, true, false, false, Ok(Via::Forgiven)),
        (true, false, false, false, Err(NoValidatorPermit)),
        (true, false, false, true, Err(NoValidatorPermit)),
        (true, false, true, false, Err(NotEnoughStake)),
        (true, false, true, true, Ok(Via::Permit)),
        (true, true, false, true, Err(NoValidatorPermit)),
        (true, true, true, false, Ok(Via::Forgiven)),
    ];
    for (require_permit, allow_not_enough_stake, permit, enough, expected) in table {
        let policy = Policy { require_permit, allow_not_enough_stake, ..Policy::default() };
        let mut s = snapshot([1]);
        let stake_rao = policy.min_stake_rao - u64::from(!enough);
        Arc::make_mut(&mut s.peers).insert(key(1), Peer { permit, stake_rao, ..peer(1) });
        let expected = expected.map_or_else(Decision::Refused, Decision::Admitted);
        let row = (require_permit, allow_not_enough_stake, permit, enough);
        assert_eq!(ask(&policy, &s, 1, Need::Validator), expected, "{row:?}");
        assert_eq!(ask(&policy, &s, 1, Need::Any), Decision::Admitted(Via::Registered));
    }
}

#[test]
fn without_a_fresh_snapshot_everybody_is_asked_to_come_back() {
    let policy = Policy { allow_hotkeys: [key(1)].into(), ..Policy::default() };
    let none = admit_caller(&policy, None, NOW, AGE, &key(1), Need::Any);
    assert_eq!(none, refused(Refusal::SnapshotMissing));
    let at = |now| admit_caller(&policy, Some(&snapshot([1])), now, AGE, &key(1), Need::Any);
    assert!(at(NOW + 60_000).is_admitted());
    assert_eq!(at(NOW + 60_001), refused(Refusal::SnapshotStale { age_ms: 60_001 }));
    assert!(at(NOW - 5).is_admitted(), "a clock that was set back makes nothing stale");
    assert_eq!((Refusal::SnapshotMissing.http_status(), Refusal::NotRegistered.http_status()), (503, 403));
}

#[test]
fn a_penalty_runs_out() {
    let mut s = snapshot([1]);
    s.penalties.insert(key(1), Penalty { reason: "x".into(), until_ms: NOW });
    assert!(ask(&Policy::default(), &s, 1, Need::Any).is_admitted());
}

#[test]
fn the_ninth_miner_with_anothers_address_is_refused_with_that_reason() {
    let mut s = snapshot(0..9);
    Arc::make_mut(&mut s.peers).insert(key(8), Peer { ip: peer(3).ip, ..peer(8) });
    let verdicts = admit_miners(&Policy::default(), &s, NOW);
    let mut expected: Vec<_> = (0..8).map(|uid| (Uid(uid), Ok(()))).collect();
    expected.push((Uid(8), Err(Refusal::DuplicateIp { first: Uid(3) })));
    assert_eq!(verdicts, expected);
    assert_eq!(
        Refusal::DuplicateIp { first: Uid(3) }.to_string(),
        "another neuron came first at this IP address (uid 3)"
    );
    let off = Policy { one_ip_per_uid: false, ..Policy::default() };
    assert!(admit_miners(&off, &s, NOW).iter().all(|(_, v)| v.is_ok()));
}

#[test]
fn an_address_belongs_to_the_earliest_registration_then_the_lowest_uid() {
    let shared = peer(1).ip;
    let mut s = snapshot([1, 2, 3]);
    Arc::make_mut(&mut s.peers).insert(key(1), Peer { ip: shared, registered_at: 50, ..peer(1) });
    Arc::make_mut(&mut s.peers).insert(key(2), Peer { ip: shared, registered_at: 40, ..peer(2) });
    Arc::make_mut(&mut s.peers).insert(key(3), Peer { ip: shared, registered_at: 40, ..peer(3) });
    let first = Err(Refusal::DuplicateIp { first: Uid(2) });
    let verdicts = admit_miners(&Policy::default(), &s, NOW);
    assert_eq!(verdicts, [(Uid(1), first.clone()), (Uid(2), Ok(())), (Uid(3), first)]);
}

#[test]
fn an_address_written_as_ipv6_is_the_same_address() {
    let mut s = snapshot([1, 2]);
    Arc::make_mut(&mut s.peers).insert(key(2), Peer { ip: "::ffff:127.0.1.1".parse().ok(), ..peer(2) });
    let verdicts = admit_miners(&Policy::default(), &s, NOW);
    assert_eq!(verdicts[1].1, Err(Refusal::DuplicateIp { first: Uid(1) }));
}

#[test]
fn a_denied_neuron_keeps_no_address_and_a_penalised_one_does() {
    let mut s = snapshot([1, 2]);
    Arc::make_mut(&mut s.peers).insert(key(2), Peer { ip: peer(1).ip, ..peer(2) });
    let denies = Policy { deny_hotkeys: [key(1)].into(), ..Policy::default() };
    assert_eq!(admit_miners(&denies, &s, NOW), [(Uid(1), Err(Refusal::DeniedHotkey)), (Uid(2), Ok(()))]);
    assert!(ask(&denies, &s, 2, Need::Any).is_admitted());
    s.penalties.insert(key(1), Penalty { reason: "forged".into(), until_ms: NOW + 9 });
    let penalised = Err(Refusal::Penalised { until_ms: NOW + 9 });
    let second = Err(Refusal::DuplicateIp { first: Uid(1) });
    assert_eq!(admit_miners(&Policy::default(), &s, NOW), [(Uid(1), penalised), (Uid(2), second)]);
}

#[test]
fn a_neuron_that_serves_nothing_is_not_asked_and_takes_no_address() {
    let mut s = snapshot([1, 2, 3]);
    for (uid, ip) in [(1, None), (2, "0.0.0.0".parse().ok()), (3, "0.0.0.0".parse().ok())] {
        Arc::make_mut(&mut s.peers).insert(key(uid as u8), Peer { ip, ..peer(uid) });
    }
    assert!(admit_miners(&Policy::default(), &s, NOW).iter().all(|(_, v)| *v == Err(Refusal::NoAxon)));
    assert!(ask(&Policy::default(), &s, 3, Need::Any).is_admitted(), "a caller needs no axon");
}

#[test]
fn callers_and_miners_agree_on_who_keeps_an_address() {
    let mut s = snapshot(0..6);
    for uid in 0..6u16 {
        let ip = Some(IpAddr::from([10, 0, 0, (uid % 2) as u8]));
        Arc::make_mut(&mut s.peers).insert(key(uid as u8), Peer { ip, registered_at: u64::from(6 - uid), ..peer(uid) });
    }
    let policy = Policy::default();
    for (uid, verdict) in admit_miners(&policy, &s, NOW) {
        assert_eq!(ask(&policy, &s, uid.0 as u8, Need::Any).is_admitted(), verdict.is_ok(), "uid {uid}");
    }
}

#[test]
fn every_reason_has_its_own_label_in_the_list() {
    let all = [
        Refusal::NotRegistered,
        Refusal::NotEnoughStake,
        Refusal::NoValidatorPermit,
        Refusal::DeniedHotkey,
        Refusal::DeniedColdkey,
        Refusal::Exploiter,
        Refusal::NoAxon,
        Refusal::DuplicateIp { first: Uid(0) },
        Refusal::Penalised { until_ms: u64::MAX },
        Refusal::SnapshotMissing,
        Refusal::SnapshotStale { age_ms: 1 },
    ];
    assert_eq!(all.each_ref().map(Refusal::label).as_slice(), Refusal::LABELS);
    for refusal in &all {
        assert!(!refusal.to_string().is_empty() && !refusal.remedy().is_empty());
        let text = serde_json::to_string(refusal).unwrap();
        assert_eq!(&serde_json::from_str::<Refusal>(&text).unwrap(), refusal);
    }
}
