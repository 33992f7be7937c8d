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
        axon_version: 183,
        prometheus_version: 183,
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
    s.validators = Quorum { minimal: 184, updated: 7, all: 10 };
    assert_eq!(check(&policy, &s), refused(Refusal::NotUpdated { version: 183, minimal: 184 }));
    policy.allow_not_updated = true;
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
        Refusal::NotUpdated { version: 182, minimal: 183 },
        Refusal::Unrecognised { minimal: 183 },
        Refusal::DuplicateIp { first: Uid(0) },
        Refusal::Penalised { until_ms: u64::MAX },
        Refusal::PenalisedAddress { until_ms: 7_000 },
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

/// Validators with these versions on uids 1, 2, …, counted against `minimal`.
fn validators(minimal: u32, versions: &[u32]) -> (Policy, Snapshot) {
    let policy = Policy { minimal_validator_version: minimal, ..Policy::default() };
    let mut s = snapshot(1..=versions.len() as u16);
    for (uid, version) in (1u16..).zip(versions) {
        let peer = Peer { prometheus_version: *version, ..peer(uid) };
        Arc::make_mut(&mut s.peers).insert(key(uid as u8), peer);
    }
    s.validators = Quorum::of_validators(&policy, &s.peers);
    (policy, s)
}

#[test]
fn validators_of_an_earlier_version_are_refused_above_the_threshold_and_not_at_it() {
    let outdated = Err(Refusal::NotUpdated { version: 182, minimal: 183 });
    // (least version, versions of uids 1…, flag, threshold) → what uid 1 is told.
    let table = [
        (183, &[182, 183, 183, 183, 182][..], false, 60, Ok(())), // exactly 60 %
        (183, &[182, 183, 183, 183, 184], false, 60, outdated.clone()),
        (183, &[182, 183, 183, 183, 184], true, 60, Ok(())),
        (183, &[183, 183, 183, 183, 182], false, 60, Ok(())),
        (183, &[182, 182], false, 0, Ok(())), // nobody is updated
        (183, &[182, 183], false, 0, outdated),
        (183, &[182, 183, 183, 183, 183], false, 100, Ok(())),
        (0, &[182, 183, 183, 183, 183], false, 60, Ok(())), // no least version is known
        (183, &[0, 183, 183, 183, 183], false, 60, Ok(())), // its version is not known to us
    ];
    for (minimal, versions, allow_not_updated, threshold, expected) in table {
        let (policy, s) = validators(minimal, versions);
        let policy = Policy { allow_not_updated, validators_updated_threshold: threshold, ..policy };
        let expected = expected.map_or_else(Decision::Refused, |()| Decision::Admitted(Via::Permit));
        assert_eq!(ask(&policy, &s, 1, Need::Validator), expected, "{minimal} {versions:?} {threshold}");
        assert!(ask(&policy, &s, 1, Need::Any).is_admitted(), "the rule is for validators");
    }
}

#[test]
fn a_quorum_of_validators_counts_permits_and_stakes_and_nobody_else() {
    let (policy, mut s) = validators(183, &[183, 183, 182, 0]);
    let peers = Arc::make_mut(&mut s.peers);
    peers.insert(key(1), Peer { stake_rao: 0, ..peers[&key(1)] });
    peers.insert(key(2), Peer { permit: false, ..peers[&key(2)] });
    peers.insert(key(9), Peer { permit: false, stake_rao: policy.min_stake_rao - 1, ..peer(9) });
    assert_eq!(Quorum::of_validators(&policy, &s.peers), Quorum { minimal: 183, updated: 2, all: 4 });
    assert_eq!(Quorum::of_validators(&policy, &Default::default()), Quorum { minimal: 183, updated: 0, all: 0 });
}

#[test]
fn a_trusted_validator_needs_no_version() {
    let (policy, s) = validators(183, &[182, 183, 183, 183, 183]);
    let policy = Policy { trusted_hotkeys: [key(1)].into(), ..policy };
    assert_eq!(ask(&policy, &s, 1, Need::Validator), Decision::Admitted(Via::Trusted));
}

/// Miners with these versions on uids 0, 1, …, counted against 183.
fn miners(policy: &Policy, versions: &[u32]) -> Vec<Result<(), Refusal>> {
    let mut s = snapshot(0..versions.len() as u16);
    for (uid, version) in (0u16..).zip(versions) {
        Arc::make_mut(&mut s.peers).insert(key(uid as u8), Peer { axon_version: *version, ..peer(uid) });
    }
    s.miners = Quorum::of_miners(policy, &s.peers);
    admit_miners(policy, &s, NOW).into_iter().map(|(_, verdict)| verdict).collect()
}

#[test]
fn miners_of_an_earlier_or_no_version_are_left_out_above_the_threshold() {
    let policy = Policy { minimal_miner_version: 183, ..Policy::default() };
    let (old, none) = (Refusal::NotUpdated { version: 182, minimal: 183 }, Refusal::Unrecognised { minimal: 183 });
    assert_eq!(miners(&policy, &[183, 183, 183, 182, 0]), vec![Ok(()); 5], "exactly 60 %");
    let above = [183, 183, 183, 184, 182, 0];
    let told = [Ok(()), Ok(()), Ok(()), Ok(()), Err(old.clone()), Err(none)];
    assert_eq!(miners(&policy, &above), told);
    let recognises_all = Policy { allow_unrecognised: true, ..policy.clone() };
    assert_eq!(miners(&recognises_all, &above)[4..], [Err(old), Ok(())]);
    let never = Policy { miners_updated_threshold: 100, ..policy.clone() };
    assert_eq!(miners(&never, &above), vec![Ok(()); 6]);
    let unknown = Policy { minimal_miner_version: 0, miners_updated_threshold: 0, ..policy };
    assert_eq!(miners(&unknown, &above), vec![Ok(()); 6], "no least version is known");
}

/// The original divided the miners left after its other filters by all there had been at its start.
#[test]
fn the_share_of_updated_miners_is_of_all_miners_and_not_of_those_left() {
    let policy = Policy { minimal_miner_version: 183, deny_hotkeys: (0..4).map(key).collect(), ..Policy::default() };
    // Four of five updated ones are denied: still five of eight are updated, 62.5 %.
    let verdicts = miners(&policy, &[183, 183, 183, 183, 183, 182, 182, 182]);
    assert_eq!(verdicts[4], Ok(()));
    assert_eq!(verdicts[5..], vec![Err(Refusal::NotUpdated { version: 182, minimal: 183 }); 3]);
    // A neuron without an axon is no miner.
    let mut s = snapshot(0..3);
    Arc::make_mut(&mut s.peers).insert(key(2), Peer { ip: None, axon_version: 0, ..peer(2) });
    assert_eq!(Quorum::of_miners(&policy, &s.peers), Quorum { minimal: 183, updated: 2, all: 2 });
}

#[test]
fn an_outdated_miner_keeps_no_address_for_callers_and_miners_alike() {
    let policy = Policy { minimal_miner_version: 183, ..Policy::default() };
    let mut s = snapshot(0..6);
    Arc::make_mut(&mut s.peers).insert(key(0), Peer { axon_version: 182, ip: peer(1).ip, ..peer(0) });
    s.miners = Quorum::of_miners(&policy, &s.peers);
    let verdicts = admit_miners(&policy, &s, NOW);
    assert_eq!(verdicts[0].1, Err(Refusal::NotUpdated { version: 182, minimal: 183 }));
    assert_eq!(verdicts[1].1, Ok(()));
    assert!(ask(&policy, &s, 1, Need::Any).is_admitted());
}

#[test]
fn a_penalised_address_is_refused_until_the_penalty_ends_and_its_neighbours_are_not() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut s = snapshot([1]);
    let penalty = Penalty { reason: "replays".into(), until_ms: NOW + 5 };
    for address in ["203.0.113.9", "2001:db8:1:2::1"] {
        Arc::make_mut(&mut s.address_penalties).insert(Address::of(ip(address)), penalty.clone());
    }
    let told = |now, text| admit_address(Some(&s), now, ip(text));
    let refused = Err(Refusal::PenalisedAddress { until_ms: NOW + 5 });
    for same in ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8:1:2:ffff::"] {
        assert_eq!(told(NOW, same), refused);
        assert_eq!(told(NOW + 5, same), Ok(()));
    }
    for other in ["203.0.113.10", "2001:db8:1:3::1", "127.0.0.1"] {
        assert_eq!(told(NOW, other), Ok(()));
    }
    assert_eq!(admit_address(None, NOW, ip("203.0.113.9")), Ok(()));
    assert_eq!(Refusal::PenalisedAddress { until_ms: 0 }.http_status(), 403);
}
