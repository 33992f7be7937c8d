//! A devnet whose sides agree, and each way in which they may not.

use super::*;
use crate::ids::{Hash32, Hotkey};
use crate::lease::engine::Done;
use crate::lease::{ContainerState, Labels, LeaseTerms, Role as Side, apply};

const RENTER: Hotkey = Hotkey([1; 32]);
const MINER: Hotkey = Hotkey([2; 32]);

fn id(n: u8) -> LeaseId {
    LeaseId([n; 16])
}

fn kept(n: u8, role: Side, from_ms: u64, rest: &[Event]) -> Kept {
    let terms = LeaseTerms {
        id: id(n),
        role,
        fencing_epoch: 1,
        renter: RENTER,
        miner: MINER,
        devices: vec![DeviceId::cpu(0)],
        expires_at_ms: 1_000_000,
        owner_token_digest: Hash32([n; 32]),
        ssh_public_key: None,
        image: String::new(),
        wish: None,
        unheard: false,
    };
    let mut lease = Lease::open(&terms, from_ms);
    let mut events = vec![(Event::Opened { terms, at_ms: from_ms }, from_ms)];
    let started = Event::Started { container: format!("sim-{n}"), endpoint: None, host_key: None, at_ms: from_ms };
    for (event, at_ms) in [Event::Reserved, started].iter().chain(rest).zip(from_ms..) {
        lease = apply(&lease, event).unwrap();
        events.push((event.clone(), at_ms));
    }
    Kept { lease, events }
}

fn released() -> [Event; 2] {
    [Event::ReleaseWanted { why: EndReason::Returned }, Event::Destroyed { at_ms: 0 }]
}

fn done(n: u8, deed: Deed) -> Done {
    Done { at_ms: 0, deed, lease: id(n), fencing_epoch: 1, devices: vec![DeviceId::cpu(0)] }
}

fn rented_line(n: u8) -> Line {
    Line::Rented { at_ms: 0, lease: id(n), miner: MINER, devices: vec![DeviceId::cpu(0)], fencing_epoch: 1 }
}

fn wanted_line(n: u8) -> Line {
    Line::Wanted {
        at_ms: 0,
        lease: id(n),
        model: None,
        devices: 1,
        duration_ms: 1,
        image: String::new(),
        ssh_key: String::new(),
    }
}

fn container(n: u8) -> Container {
    Container {
        id: format!("sim-{n}"),
        labels: Labels { lease: id(n), fencing_epoch: 1, expires_at_ms: 1_000_000, renter: RENTER },
        state: ContainerState::Running,
        ssh_port: 40_000,
        host_key: None,
        devices: vec![DeviceId::cpu(0)],
    }
}

/// Lease 1 was rented and released, lease 2 runs on the same device, lease 3 is wanted and nobody else has heard of it.
fn agreed() -> Sides {
    let node = |name: &str, role| Node {
        name: name.into(),
        leases: [(id(1), kept(1, role, 10, &released())), (id(2), kept(2, role, 20, &[]))].into(),
    };
    let ended = Line::Released { at_ms: 0, lease: id(1), state: LeaseState::Released, end: Some(EndReason::Returned) };
    Sides {
        renters: vec![
            vec![wanted_line(1), rented_line(1), ended, wanted_line(2), rented_line(2)],
            vec![wanted_line(3)],
        ],
        validators: vec![node("validator", Side::Renter)],
        miners: vec![node("miner-0", Side::Provider)],
        engines: vec![Engine {
            name: "miner-0".into(),
            containers: vec![container(2)],
            history: History {
                forgotten: 0,
                done: vec![done(1, Deed::Created), done(1, Deed::Destroyed), done(2, Deed::Created)],
            },
        }],
    }
}

/// What an audit finds after `change`, as text.
fn found(change: impl FnOnce(&mut Sides)) -> Vec<String> {
    let mut sides = agreed();
    change(&mut sides);
    compare(&sides).iter().map(ToString::to_string).collect()
}

fn lease(node: &mut Node, n: u8) -> &mut Lease {
    &mut node.leases.get_mut(&id(n)).unwrap().lease
}

#[test]
fn sides_that_agree_are_not_blamed_and_a_stop_in_the_middle_is_no_disagreement() {
    assert_eq!(found(|_| ()), [""; 0]);
    // The validator made lease 3, and nobody could tell the renter yet.
    assert_eq!(
        found(|s| {
            s.validators[0]
                .leases
                .insert(id(3), kept(3, Side::Renter, 30, &[Event::ReleaseWanted { why: EndReason::CreateUnclear }]));
            s.validators[0].leases.get_mut(&id(2)).unwrap().clone_from(&kept(2, Side::Renter, 20, &[]));
            lease(&mut s.validators[0], 3).devices = vec![DeviceId::cpu(1)];
            lease(&mut s.validators[0], 3).began_at_ms = None;
        }),
        [""; 0]
    );
    // A release that the miner carried out and the validator has not heard of.
    assert_eq!(
        found(|s| {
            let wanted = [Event::ReleaseWanted { why: EndReason::Returned }];
            s.validators[0].leases.insert(id(2), kept(2, Side::Renter, 20, &wanted));
            s.miners[0].leases.insert(id(2), kept(2, Side::Provider, 20, &released()));
            s.engines[0].containers.clear();
            s.engines[0].history.done.push(done(2, Deed::Destroyed));
        }),
        [""; 0]
    );
    // A history that no longer goes back to the beginning proves nothing about what it has forgotten.
    assert_eq!(
        found(|s| {
            s.engines[0].history.done.drain(..2);
            s.engines[0].history.forgotten = 2;
        }),
        [""; 0]
    );
}

#[test]
fn a_lease_that_one_side_does_not_know_is_named_with_that_side() {
    let one = id(1);
    assert_eq!(
        found(|s| {
            s.renters[0].drain(..3);
        }),
        [format!("lease {one}: validator knows it, every renter does not")]
    );
    assert_eq!(
        found(|s| {
            s.validators[0].leases.remove(&one);
        }),
        [
            format!("lease {one}: renter 0 knows it, a validator does not"),
            format!("lease {one}: renter 0 knows it, a validator does not"),
            format!("lease {one}: miner-0 knows it, every validator does not"),
        ]
    );
    assert_eq!(
        found(|s| {
            s.miners[0].leases.remove(&one);
        }),
        [format!("lease {one}: validator knows it, every miner does not")]
    );
    assert_eq!(
        found(|s| {
            s.engines[0].history.done.drain(..2);
        }),
        [format!("lease {one}: miner-0 knows it, the engine of miner-0 does not")]
    );
    assert_eq!(
        found(|s| s.renters[0][2] = Line::Forgotten { at_ms: 0, lease: one }),
        [format!("lease {one}: renter 0 knows it, the validator it asked does not")]
    );
}

#[test]
fn values_that_differ_are_told_with_both_sides() {
    let two = id(2);
    let differs = |what: &str, left: &str, right: &str| {
        format!("lease {two}: its {what} is {left} for validator and {right} for miner-0")
    };
    assert_eq!(found(|s| lease(&mut s.miners[0], 2).fencing_epoch = 2), [differs("fencing epoch", "1", "2")]);
    assert_eq!(
        found(|s| lease(&mut s.miners[0], 2).devices = vec![DeviceId::cpu(1)]),
        [differs("list of devices", "CPU-0", "CPU-1")]
    );
    let digests = [Hash32([2; 32]), Hash32([9; 32])].map(|d| d.to_string());
    assert_eq!(
        found(|s| lease(&mut s.miners[0], 2).owner_token_digest = Hash32([9; 32])),
        [differs("owner token's digest", &digests[0], &digests[1])]
    );
    let other = Hotkey([9; 32]);
    assert_eq!(
        found(|s| lease(&mut s.miners[0], 2).miner = other),
        [differs("miner", &MINER.to_string(), &other.to_string())]
    );
    let log = found(|s| {
        s.renters[0][4] = Line::Rented { at_ms: 0, lease: two, miner: MINER, devices: vec![], fencing_epoch: 7 }
    });
    assert_eq!(
        log,
        [
            format!("lease {two}: its fencing epoch is 7 for renter 0 and 1 for validator"),
            format!("lease {two}: its list of devices is  for renter 0 and CPU-0 for validator"),
        ]
    );
    assert_eq!(
        found(|s| s.engines[0].history.done[2].fencing_epoch = 5),
        [format!("lease {two}: its container's fencing epoch is 5 for the engine of miner-0 and 1 for miner-0")]
    );
    let refused = Line::Refused { at_ms: 0, lease: two, error: "no".into() };
    assert_eq!(
        found(|s| s.renters[0][4] = refused),
        [format!("lease {two}: its state is refused for renter 0 and running for validator")]
    );
}

#[test]
fn states_that_cannot_stand_beside_each_other_are_told() {
    let two = id(2);
    // Reported as released while it runs: the one thing that must never be.
    let early = found(|s| {
        s.validators[0].leases.insert(two, kept(2, Side::Renter, 20, &released()));
    });
    assert_eq!(early, [format!("lease {two}: its state is released for validator and running for miner-0")]);
    // Ended by the miner for another reason than time.
    let taken = found(|s| {
        s.miners[0].leases.insert(two, kept(2, Side::Provider, 20, &released()));
        s.engines[0].containers.clear();
    });
    assert_eq!(taken, [format!("lease {two}: its state is running for validator and released for miner-0")]);
    // Ended for the validator, and the renter was told otherwise.
    let told = found(|s| {
        s.renters[0][2] = Line::Released { at_ms: 0, lease: id(1), state: LeaseState::Lost, end: None };
    });
    assert_eq!(
        told,
        [
            format!("lease {}: its state is lost for renter 0 and released for validator", id(1)),
            format!("lease {}: its end is none for renter 0 and returned for validator", id(1)),
        ]
    );
}

#[test]
fn what_happens_once_must_not_happen_twice() {
    let one = id(1);
    assert_eq!(
        found(|s| s.renters[0].push(rented_line(1))),
        [format!("lease {one}: renter 0 tells that it was rented 2 times")]
    );
    let again = found(|s| {
        let events = &mut s.miners[0].leases.get_mut(&one).unwrap().events;
        events.push((Event::Destroyed { at_ms: 0 }, 15));
        events.push((Event::Started { container: "other".into(), endpoint: None, host_key: None, at_ms: 0 }, 15));
    });
    assert_eq!(
        again,
        [
            format!("lease {one}: miner-0 tells that it was created 2 times"),
            format!("lease {one}: miner-0 tells that it was destroyed 2 times"),
        ]
    );
    let engine = found(|s| {
        s.engines[0].history.done.insert(2, done(1, Deed::Destroyed));
        s.engines[0].history.done.insert(2, done(1, Deed::Created));
    });
    assert_eq!(
        engine,
        [
            format!("lease {one}: the engine of miner-0 tells that it was created 2 times"),
            format!("lease {one}: the engine of miner-0 tells that it was destroyed 2 times"),
        ]
    );
}

#[test]
fn containers_and_live_leases_belong_together() {
    let two = id(2);
    let orphan = |n: u8, why: &str| format!("miner-0: container sim-{n} of lease {} has no owner: {why}", id(n));
    assert_eq!(
        found(|s| s.engines[0].containers.push(container(1))),
        [orphan(1, "it is released for the miner, in fencing epoch 1")]
    );
    assert_eq!(found(|s| s.engines[0].containers.push(container(9))), [orphan(9, "the miner does not know it")]);
    assert_eq!(
        found(|s| s.engines[0].containers.clear()),
        [format!("lease {two}: it is running for miner-0, whose engine has no container of it")]
    );
    let other_epoch = found(|s| s.engines[0].containers[0].labels.fencing_epoch = 2);
    assert_eq!(other_epoch.len(), 2, "{other_epoch:?}");
}

#[test]
fn a_device_in_two_leases_at_a_time_is_found_in_events_and_in_the_engines_history() {
    let overlap = found(|s| {
        let lease = s.miners[0].leases.get_mut(&id(2)).unwrap();
        lease.events.iter_mut().for_each(|(_, at_ms)| *at_ms = 11);
    });
    assert_eq!(overlap, [format!("miner-0: CPU-0 was held by lease {} when lease {} got it", id(1), id(2))]);
    let history = found(|s| s.engines[0].history.done.swap(1, 2));
    assert_eq!(
        history,
        [format!("the engine of miner-0: CPU-0 was held by lease {} when lease {} got it", id(1), id(2))]
    );
}

#[test]
fn a_rented_lease_ends_by_release_expiry_or_loss_only() {
    let why = EndReason::CreateUnclear;
    let ended = found(|s| {
        lease(&mut s.validators[0], 1).end = Some(why);
        s.renters[0][2] = Line::Released { at_ms: 0, lease: id(1), state: LeaseState::Released, end: Some(why) };
    });
    let text =
        "it was rented and is released for validator because of create_unclear, which is no release, expiry or loss";
    assert_eq!(ended, [format!("lease {}: {text}", id(1))]);
}

#[test]
fn a_directory_is_read_and_what_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(audit(dir.path()), []);
    std::fs::write(dir.path().join("renter.log"), "{}\n").unwrap();
    std::fs::create_dir_all(dir.path().join("engine")).unwrap();
    std::fs::write(dir.path().join("engine/miner-0.json"), "none").unwrap();
    std::fs::create_dir_all(dir.path().join("validator")).unwrap();
    std::fs::write(dir.path().join("validator").join(DATABASE_FILE), "none").unwrap();
    let told: Vec<String> = audit(dir.path()).iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told.iter().all(|t| t.contains(" cannot be read: ")), "{told:?}");
    assert!(matches!(&audit(&dir.path().join("none"))[..], [Disagreement::Unreadable { .. }]));
}
