//! The promises of the lease rules, one test each.

use std::collections::BTreeSet;
use std::time::Duration;

use super::aside::{START_GRACE, Shown, Sightings, end_of, lost_lease, unknown_lease};
use super::decide::{after_create, after_destroy, call, decide, effect_of, expire};
use super::fencing::{Repeat, Repeats, Standing, check};
use super::health::{EngineView, Health, HealthPolicy, LeaseHealth, Observation, ProbeView};
use super::ledger::{Holder, LedgerError};
use super::machine::check_end;
use super::reconcile::{Action, QuarantineReason, ReconcileRules, reconcile};
use super::*;
use crate::ids::{DeviceId, Hash32, Hotkey, LeaseId};

const NOW: u64 = 1_000_000;
const END: u64 = 2_000_000;

fn token() -> OwnerToken {
    OwnerToken::from_bytes([7; 32])
}

fn terms(n: u8) -> LeaseTerms {
    LeaseTerms {
        id: LeaseId([n; 16]),
        role: Role::Provider,
        fencing_epoch: 1,
        renter: Hotkey([1; 32]),
        miner: Hotkey([2; 32]),
        devices: vec![DeviceId::cpu(n)],
        expires_at_ms: END,
        owner_token_digest: token().digest(),
        ssh_public_key: None,
        image: String::new(),
        wish: None,
        unheard: false,
    }
}

fn started() -> Event {
    Event::Started { container: "c1".into(), endpoint: None, host_key: None, at_ms: NOW }
}

fn lease_after(events: &[Event]) -> Lease {
    events.iter().fold(Lease::open(&terms(1), NOW), |l, e| apply(&l, e).unwrap())
}

fn running() -> Lease {
    lease_after(&[Event::Reserved, started()])
}

fn releasing() -> Lease {
    lease_after(&[Event::Reserved, started(), Event::ReleaseWanted { why: EndReason::Returned }])
}

fn container(lease: u8, epoch: u64, state: ContainerState) -> Container {
    Container {
        id: format!("c{lease}"),
        labels: Labels {
            lease: LeaseId([lease; 16]),
            fencing_epoch: epoch,
            expires_at_ms: END,
            renter: Hotkey([1; 32]),
        },
        state,
        ssh_port: 40_000,
        host_key: None,
        devices: vec![DeviceId::cpu(lease)],
    }
}

fn claim(epoch: u64) -> Claim {
    Claim { lease: LeaseId([1; 16]), epoch, token: token() }
}

// === the machine ===

#[test]
fn a_lease_moves_to_another_miner_only_while_it_is_reserving_and_only_on_its_renters_side() {
    let devices = vec![DeviceId::cpu(7)];
    let moved = Event::Moved { miner: Hotkey([9; 32]), devices: devices.clone() };
    let proved = Event::Proved { devices: vec![ProvedDevice { device: DeviceId::cpu(7), model: "cpu-1".into() }] };
    let renters = |lease: Lease| Lease { role: Role::Renter, ..lease };
    let reserving = renters(lease_after(&[Event::Reserved]));
    let known = apply(&reserving, &proved).unwrap();
    let next = apply(&known, &moved).unwrap();
    assert_eq!((next.miner, &next.devices, next.state), (Hotkey([9; 32]), &devices, LeaseState::Reserving));
    assert_eq!(next.proved, [], "what the one before had proved says nothing of it");
    assert_eq!(apply(&next, &moved), Ok(next.clone()), "a repeat");
    assert!(apply(&next, &Event::Moved { miner: Hotkey([9; 32]), devices: vec![] }).is_err());
    for elsewhere in [renters(Lease::open(&terms(1), NOW)), renters(running()), renters(releasing())] {
        assert!(apply(&elsewhere, &moved).is_err(), "{}", elsewhere.state);
    }
    let miners = lease_after(&[Event::Reserved]);
    assert!(miners.role == Role::Provider && apply(&miners, &moved).is_err() && apply(&miners, &proved).is_err());
}

#[test]
fn a_note_stays_on_the_lease_to_its_end_and_is_added_to_none_that_has_ended() {
    let noted = Event::Noted { note: "the device was changed".into() };
    let at_ms = NOW;
    let events = [noted.clone(), Event::ReleaseWanted { why: EndReason::HardwareChanged }, Event::Destroyed { at_ms }];
    let ended = events.iter().fold(running(), |lease, event| apply(&lease, event).unwrap());
    assert_eq!((ended.state, ended.end), (LeaseState::Released, Some(EndReason::HardwareChanged)));
    assert_eq!(ended.note.as_deref(), Some("the device was changed"));
    assert!(apply(&ended, &Event::Noted { note: "more".into() }).is_err());
}

#[test]
fn every_state_takes_exactly_the_events_of_the_table() {
    use LeaseState as S;
    let at_ms = NOW;
    let refused = Event::Refused { why: EndReason::PeerRefused, note: "no".into(), at_ms };
    let lost = Event::Lost { note: "gone".into(), at_ms };
    let release = Event::ReleaseWanted { why: EndReason::Returned };
    let states = [
        Lease::open(&terms(1), NOW),
        lease_after(&[Event::Reserved]),
        running(),
        lease_after(&[Event::Reserved, started(), Event::Paused]),
        releasing(),
        apply(&releasing(), &Event::Destroyed { at_ms }).unwrap(),
        apply(&running(), &lost).unwrap(),
        lease_after(std::slice::from_ref(&refused)),
    ];
    assert_eq!(states.each_ref().map(|l| l.state).as_slice(), LeaseState::ALL);
    let extended = Event::Extended { expires_at_ms: END + 1 };
    let raised = Event::EpochRaised { epoch: 2 };
    let found = Event::Found { expires_at_ms: END + 1 };
    // Rows: events. Columns: the states in their order; `-` is refused, `=` changes nothing.
    let table: &[(Event, [Option<S>; 8])] = &[
        (Event::Reserved, [Some(S::Reserving), Some(S::Reserving), None, None, None, None, None, None]),
        (started(), [None, Some(S::Running), Some(S::Running), Some(S::Paused), None, None, None, None]),
        (refused, [Some(S::Refused), Some(S::Refused), None, None, None, None, None, Some(S::Refused)]),
        (Event::Paused, [None, None, Some(S::Paused), Some(S::Paused), None, None, None, None]),
        (Event::Unpaused, [None, None, Some(S::Running), Some(S::Running), None, None, None, None]),
        (extended, [None, None, Some(S::Running), Some(S::Paused), None, None, None, None]),
        (
            raised,
            [
                Some(S::Requested),
                Some(S::Reserving),
                Some(S::Running),
                Some(S::Paused),
                Some(S::Releasing),
                None,
                None,
                None,
            ],
        ),
        (
            release,
            [
                None,
                Some(S::Releasing),
                Some(S::Releasing),
                Some(S::Releasing),
                Some(S::Releasing),
                Some(S::Released),
                None,
                None,
            ],
        ),
        (Event::Destroyed { at_ms }, [None, None, None, None, Some(S::Released), Some(S::Released), None, None]),
        (lost, [None, None, Some(S::Lost), Some(S::Lost), None, None, Some(S::Lost), None]),
        (found, [None, None, None, None, None, None, Some(S::Running), None]),
    ];
    for (event, expected) in table {
        for (lease, expected) in states.iter().zip(expected) {
            let got = apply(lease, event).map(|l| l.state).ok();
            assert_eq!(got, *expected, "{} in {}", event.label(), lease.state);
        }
    }
}

#[test]
fn a_repeated_event_changes_nothing_and_another_containers_start_is_refused() {
    assert_eq!(apply(&running(), &started()), Ok(running()));
    let other = Event::Started { container: "c2".into(), endpoint: None, host_key: None, at_ms: NOW };
    assert!(matches!(apply(&running(), &other), Err(TransitionError::NotAllowed { .. })));
}

#[test]
fn a_lease_is_never_shortened() {
    let shorter = Event::Extended { expires_at_ms: END - 1 };
    assert!(apply(&running(), &shorter).is_err());
    let wish = decide(&running(), &Command::Extend { expires_at_ms: END - 1 }, NOW);
    assert_eq!(wish, Ok(Decision::default()));
}

#[test]
fn only_a_renter_may_lose_a_lease_it_is_releasing() {
    let lost = Event::Lost { note: "the miner is gone".into(), at_ms: NOW };
    assert!(apply(&releasing(), &lost).is_err());
    let renters = Lease { role: Role::Renter, ..releasing() };
    assert_eq!(apply(&renters, &lost).unwrap().state, LeaseState::Lost);
}

#[test]
fn a_journal_replays_to_the_same_lease_and_must_begin_with_the_opening() {
    let events = [Event::Opened { terms: terms(1), at_ms: NOW }, Event::Reserved, started()];
    let text = serde_json::to_string(&events).unwrap();
    let read: Vec<Event> = serde_json::from_str(&text).unwrap();
    assert_eq!(Lease::replay(&read), Ok(running()));
    assert_eq!(Lease::replay(&read[1..]), Err(TransitionError::NotOpened));
    let stored: Lease = serde_json::from_str(&serde_json::to_string(&running()).unwrap()).unwrap();
    assert_eq!(stored, running());
}

#[test]
fn terms_are_refused_with_what_is_wrong() {
    let longest = Duration::from_secs(3_600);
    let check = |change: fn(&mut LeaseTerms)| {
        let mut t = terms(1);
        change(&mut t);
        t.check(NOW, longest)
    };
    assert_eq!(check(|_| ()), Ok(()));
    assert_eq!(check(|t| t.devices.clear()), Err(TermsError::NoDevice));
    assert_eq!(check(|t| t.devices.push(DeviceId::cpu(1))), Err(TermsError::DeviceTwice(DeviceId::cpu(1))));
    assert_eq!(check(|t| t.devices = (0..65).map(DeviceId::cpu).collect()), Err(TermsError::TooManyDevices(65)));
    assert_eq!(check(|t| t.fencing_epoch = 0), Err(TermsError::NoEpoch));
    assert_eq!(check(|t| t.expires_at_ms = NOW), Err(TermsError::AlreadyOver(0)));
    assert_eq!(check(|t| t.ssh_public_key = Some("ssh-ed25519 A\ncommand".into())), Err(TermsError::SshKey));
    for image in ["a b", "x\ny", "$(id)", "ü", &"a".repeat(513)] {
        let terms = LeaseTerms { image: image.into(), ..terms(1) };
        assert_eq!(terms.check(NOW, longest), Err(TermsError::Image), "{image}");
    }
    let named = LeaseTerms { image: "ghcr.io/a_b/c:1.0-x@sha256:00".into(), ..terms(1) };
    assert_eq!(named.check(NOW, longest), Ok(()));
    assert_eq!(
        check_end(NOW + 3_600_001, NOW, longest),
        Err(TermsError::TooLong { asked_ms: 3_600_001, limit_ms: 3_600_000 })
    );
}

// === commands ===

#[test]
fn the_intent_is_written_before_the_engine_is_called() {
    let asked = decide(&Lease::open(&terms(1), NOW), &Command::Reserve, NOW).unwrap();
    assert_eq!(asked.events, [Event::Reserved]);
    let Some(Effect::Create(spec)) = asked.effect else { panic!("a creation follows") };
    assert_eq!((spec.lease, spec.fencing_epoch, spec.expires_at_ms), (LeaseId([1; 16]), 1, END));
    let returned = decide(&running(), &Command::Release { why: EndReason::Returned }, NOW).unwrap();
    assert_eq!(returned.events, [Event::ReleaseWanted { why: EndReason::Returned }]);
    assert_eq!(returned.effect, Some(Effect::Destroy { lease: LeaseId([1; 16]), fencing_epoch: 1 }));
}

#[test]
fn a_repeated_release_asks_the_engine_again_and_writes_nothing() {
    let again = decide(&releasing(), &Command::Release { why: EndReason::Operator }, NOW).unwrap();
    assert!(again.events.is_empty());
    assert_eq!(again.effect, effect_of(&releasing()));
    let released = apply(&releasing(), &Event::Destroyed { at_ms: NOW }).unwrap();
    assert_eq!(decide(&released, &Command::Release { why: EndReason::Returned }, NOW), Ok(Decision::default()));
}

#[test]
fn a_restarted_lease_runs_also_when_it_was_paused_and_a_grant_changes_no_record() {
    let lease = LeaseId([1; 16]);
    let restart = Some(Effect::Restart { lease, fencing_epoch: 1 });
    let again = decide(&running(), &Command::Restart, NOW).unwrap();
    assert_eq!(again, Decision { events: vec![], effect: restart.clone() });
    let paused = lease_after(&[Event::Reserved, started(), Event::Paused]);
    let again = decide(&paused, &Command::Restart, NOW).unwrap();
    assert_eq!(again, Decision { events: vec![Event::Unpaused], effect: restart });
    let grant = Grant::UserKey("ssh-ed25519 A".into());
    let wish = Command::Grant(grant.clone());
    for lease in [running(), paused] {
        let decision = decide(&lease, &wish, NOW).unwrap();
        let effect = Some(Effect::Grant { lease: lease.id, fencing_epoch: 1, grant: grant.clone() });
        assert_eq!(decision, Decision { events: vec![], effect });
    }
    for command in [Command::Restart, wish] {
        assert!(decide(&releasing(), &command, NOW).is_err());
        assert!(decide(&lease_after(&[Event::Reserved]), &command, NOW).is_err());
    }
}

#[test]
fn only_a_line_that_can_be_a_key_is_granted_and_no_hash_is_shown() {
    let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA";
    for good in [Grant::UserKey("ssh-ed25519 A".into()), Grant::TerminalKey(None), Grant::PasswordHash(hash.into())] {
        assert_eq!(good.check(), Ok(()), "{}", good.label());
        assert!(!format!("{good:?}").contains("argon2id"), "{good:?}");
    }
    let lines = "ssh-ed25519 A\nssh-ed25519 B";
    for bad in [
        Grant::UserKey(String::new()),
        Grant::UserKey(lines.into()),
        Grant::TerminalKey(Some(lines.into())),
        Grant::PasswordHash("a password".into()),
        Grant::PasswordHash(format!("{hash}\n")),
    ] {
        assert!(bad.check().is_err(), "{}", bad.label());
    }
}

#[test]
fn an_unclear_creation_is_destroyed_to_be_sure_and_a_refused_one_is_not() {
    let reserving = lease_after(&[Event::Reserved]);
    let unclear = Err(EngineError::Unclear("no answer".into()));
    let event = after_create(&reserving, &unclear, None, NOW).unwrap();
    assert_eq!(event, Event::ReleaseWanted { why: EndReason::CreateUnclear });
    // It may have been made before a crash, and the engine does not tell.
    let away = Err(EngineError::Unavailable { why: "restarting".into(), source: None });
    let event = after_create(&reserving, &away, None, NOW).unwrap();
    assert_eq!(event, Event::ReleaseWanted { why: EndReason::CreateUnclear });
    let in_use = Err(EngineError::DeviceInUse { device: DeviceId::cpu(1), lease: LeaseId([9; 16]) });
    let event = after_create(&reserving, &in_use, None, NOW).unwrap();
    assert!(matches!(event, Event::Refused { why: EndReason::DeviceNotFree, .. }));
    assert_eq!(after_create(&releasing(), &unclear, None, NOW), None);
}

#[test]
fn a_release_is_reported_only_when_the_engine_said_so() {
    assert_eq!(after_destroy(&releasing(), 1, &Err(EngineError::Unclear("?".into())), NOW), None);
    assert_eq!(after_destroy(&releasing(), 2, &Ok(true), NOW), None, "another epoch's container");
    assert_eq!(after_destroy(&releasing(), 1, &Ok(false), NOW), Some(Event::Destroyed { at_ms: NOW }));
    assert_eq!(after_destroy(&running(), 1, &Ok(true), NOW), None);
}

#[test]
fn a_lease_expires_at_its_end_and_not_before() {
    assert_eq!(expire(&running(), END - 1), None);
    assert_eq!(expire(&running(), END), Some(Event::ReleaseWanted { why: EndReason::Expired }));
    assert_eq!(expire(&releasing(), END), None);
}

// === fencing ===

#[test]
fn only_the_owner_in_the_newest_epoch_commands() {
    let lease = Lease { fencing_epoch: 5, ..running() };
    assert_eq!(check(&lease, &claim(5)), Ok(Standing::Current));
    assert_eq!(check(&lease, &claim(6)), Ok(Standing::Newer));
    let stale = FencingError::StaleEpoch { lease: lease.id, presented: 4, current: 5 };
    assert_eq!(check(&lease, &claim(4)), Err(stale));
    let stranger = Claim { token: OwnerToken::from_bytes([8; 32]), ..claim(4) };
    assert_eq!(check(&lease, &stranger), Err(FencingError::WrongToken(lease.id)), "and learns nothing of epochs");
    let other = Claim { lease: LeaseId([2; 16]), ..claim(5) };
    assert_eq!(check(&lease, &other), Err(FencingError::UnknownLease(LeaseId([2; 16]))));
}

#[test]
fn a_newer_epoch_takes_the_lease_over_and_the_old_one_is_out() {
    let pause = call(&running(), &claim(2), &Command::Pause, NOW).unwrap();
    assert_eq!(pause.events, [Event::EpochRaised { epoch: 2 }, Event::Paused]);
    let lease = pause.events.iter().fold(running(), |l, e| apply(&l, e).unwrap());
    assert_eq!(
        pause.effect,
        Some(Effect::Pause { lease: lease.id, fencing_epoch: 1 }),
        "the container keeps its label"
    );
    let late = call(&lease, &claim(1), &Command::Release { why: EndReason::Returned }, NOW);
    assert!(matches!(late, Err(super::decide::CallError::Fencing(FencingError::StaleEpoch { .. }))));
}

#[test]
fn a_token_is_never_printed_and_is_derived_from_secret_and_lease() {
    assert_eq!(format!("{:?}", claim(1).token), "OwnerToken(redacted)");
    let derived = |s: u8, l: u8| OwnerToken::derive(&[s; 32], LeaseId([l; 16])).digest();
    assert_eq!(derived(1, 1), derived(1, 1));
    assert_eq!(BTreeSet::from([derived(1, 1), derived(1, 2), derived(2, 1)]).len(), 3);
    let read: OwnerToken = token().expose_hex().parse().unwrap();
    assert_eq!(read.digest(), token().digest());
    assert!("07".parse::<OwnerToken>().is_err());
}

#[test]
fn the_same_call_gets_the_same_answer_and_the_table_stays_small() {
    let (me, request, other) = (Hotkey([1; 32]), Hash32([1; 32]), Hash32([2; 32]));
    let mut calls = Repeats::new(2);
    assert_eq!(calls.look_up(me, [1; 16], request), Repeat::New);
    calls.remember(me, [1; 16], request, "first");
    calls.remember(me, [1; 16], request, "second");
    assert_eq!(calls.look_up(me, [1; 16], request), Repeat::Same(&"first"));
    assert_eq!(calls.look_up(me, [1; 16], other), Repeat::Conflict);
    assert_eq!(calls.look_up(Hotkey([2; 32]), [1; 16], request), Repeat::New, "keys are each caller's own");
    calls.remember(me, [2; 16], request, "2");
    calls.remember(me, [3; 16], request, "3");
    assert_eq!((calls.len(), calls.look_up(me, [1; 16], request)), (2, Repeat::New));
}

// === the ledger of devices ===

#[test]
fn a_device_has_one_lease_and_a_wish_is_granted_whole_or_not_at_all() {
    let mut ledger = DeviceLedger::new([0, 1, 2].map(DeviceId::cpu));
    let (a, b) = (LeaseId([1; 16]), LeaseId([2; 16]));
    let d = DeviceId::cpu;
    assert_eq!(ledger.reserve(a, &[d(1)]), Ok(()));
    assert_eq!(ledger.reserve(a, &[d(1)]), Ok(()), "a repeat is harmless");
    assert_eq!(ledger.reserve(b, &[d(0), d(1)]), Err(LedgerError::InUse { device: d(1), holder: a }));
    assert_eq!(ledger.free(), [d(0), d(2)]);
    assert_eq!(ledger.reserve(b, &[d(9)]), Err(LedgerError::NoSuchDevice(d(9))));
    assert_eq!(ledger.reserve(b, &[d(0), d(0)]), Err(LedgerError::Twice(d(0))));
    assert_eq!(ledger.reserve(b, &[]), Err(LedgerError::NoDevice));
    ledger.release(a);
    assert_eq!(ledger.reserve(b, &[d(0), d(1)]), Ok(()));
}

#[test]
fn a_quarantined_container_holds_its_devices_until_it_is_gone() {
    let mut ledger = DeviceLedger::new([0, 1].map(DeviceId::cpu));
    ledger.reserve(LeaseId([1; 16]), &[DeviceId::cpu(1)]).unwrap();
    ledger.quarantine(LeaseId([9; 16]), "x", &[DeviceId::cpu(0), DeviceId::cpu(1)]);
    assert!(ledger.free().is_empty());
    assert_eq!(ledger.holder(DeviceId::cpu(1)), Some(&Holder::Lease(LeaseId([1; 16]))));
    let confused = ledger.reserve(LeaseId([9; 16]), &[DeviceId::cpu(0)]);
    assert_eq!(confused, Err(LedgerError::Quarantined(LeaseId([9; 16]))), "its commands would reach the stranger");
    ledger.end_quarantine(&BTreeSet::from(["x".to_owned()]));
    assert!(ledger.free().is_empty());
    ledger.end_quarantine(&BTreeSet::new());
    assert_eq!(ledger.free(), [DeviceId::cpu(0)]);
}

#[test]
fn a_journal_with_two_leases_on_one_device_is_not_trusted() {
    let twin = Lease { id: LeaseId([2; 16]), ..running() };
    let ended = Lease { state: LeaseState::Released, ..twin.clone() };
    assert!(DeviceLedger::from_leases([DeviceId::cpu(1)], [&running(), &twin]).is_err());
    let ledger = DeviceLedger::from_leases([DeviceId::cpu(1)], [&running(), &ended]).unwrap();
    assert!(ledger.free().is_empty());
}

// === health ===

#[test]
fn a_lease_is_lost_after_k_of_n_rounds_that_both_vantage_points_missed() {
    use EngineView as E;
    use ProbeView as P;
    let policy = HealthPolicy { misses: 3, rounds: 4 };
    let see = |rounds: &[(E, P)]| {
        let mut health = Health::default();
        rounds
            .iter()
            .map(|(engine, probe)| health.observe(policy, Observation { engine: *engine, probe: *probe }))
            .last()
    };
    let miss = (E::Gone, P::NoAnswer);
    assert_eq!(see(&[miss, miss]), Some(LeaseHealth::Suspect));
    assert_eq!(see(&[miss, miss, miss]), Some(LeaseHealth::Gone));
    assert_eq!(see(&[miss, (E::Running, P::Answered), miss, miss]), Some(LeaseHealth::Gone));
    assert_eq!(see(&[miss, miss, miss, (E::Running, P::Answered)]), Some(LeaseHealth::Healthy));
    assert_eq!(see(&[(E::Gone, P::Answered); 9]), Some(LeaseHealth::Suspect), "one vantage point ends nothing");
    assert_eq!(see(&[(E::Running, P::NoAnswer); 9]), Some(LeaseHealth::Suspect));
    assert_eq!(see(&[(E::Unreachable, P::NoAnswer); 3]), Some(LeaseHealth::Gone), "a miner that vanished");
    assert_eq!(see(&[(E::Paused, P::NoAnswer); 9]), Some(LeaseHealth::Healthy), "paused is not gone");
    assert_eq!(see(&[miss, miss, (E::Gone, P::NotSeen), (E::NotSeen, P::NoAnswer)]), Some(LeaseHealth::Suspect));
}

#[test]
fn a_miner_trusts_its_own_engine_but_not_an_engine_it_could_not_ask() {
    let policy = HealthPolicy { misses: 2, rounds: 2 };
    let mut health = Health::default();
    for view in [EngineView::NotSeen, EngineView::Unreachable] {
        assert_eq!(health.observe(policy, Observation::local(view)), LeaseHealth::Healthy);
    }
    health.observe(policy, Observation::local(EngineView::Gone));
    assert_eq!(health.observe(policy, Observation::local(EngineView::Exited)), LeaseHealth::Gone);
}

// === reconciliation ===

/// All of these containers were first seen without a record then.
fn first_seen(at_ms: u64) -> Sightings {
    let names: Vec<String> = (0..4).map(|n| format!("c{n}")).collect();
    let mut seen = Sightings::default();
    seen.note(names.iter().map(String::as_str), &names.iter().cloned().collect(), at_ms);
    seen
}

fn steps(leases: &[Lease], containers: &[Container], now_ms: u64) -> Vec<Action> {
    reconcile(leases, containers, now_ms, &ReconcileRules::default(), &first_seen(0))
}

#[test]
fn a_crash_between_create_and_journal_ends_in_adoption() {
    let reserving = lease_after(&[Event::Reserved]);
    let made = container(1, 1, ContainerState::Running);
    let adopted = Action::Adopt { lease: reserving.id, container: made.clone() };
    assert_eq!(steps(std::slice::from_ref(&reserving), &[made], NOW), [adopted]);
    let effect = effect_of(&reserving).unwrap();
    let finish = Action::FinishCreate { lease: reserving.id, effect };
    assert_eq!(steps(std::slice::from_ref(&reserving), &[], NOW), std::slice::from_ref(&finish));
    let half_made = container(1, 1, ContainerState::Exited);
    assert_eq!(steps(&[reserving], &[half_made], NOW), [finish], "one that was perhaps never started is finished");
}

#[test]
fn a_crash_while_releasing_ends_in_a_release() {
    let (lease, id) = (releasing(), LeaseId([1; 16]));
    let effect = Effect::Destroy { lease: id, fencing_epoch: 1 };
    let there = [container(1, 1, ContainerState::Running)];
    let finish = Action::FinishDestroy { lease: id, effect };
    assert_eq!(steps(std::slice::from_ref(&lease), &there, NOW), std::slice::from_ref(&finish));
    assert_eq!(steps(&[lease], &[], NOW), [finish], "its disk and its rules may be left");
}

#[test]
fn a_running_lease_is_observed_and_ends_by_expiry_only() {
    let (lease, id) = ([running()], LeaseId([1; 16]));
    let there = [container(1, 1, ContainerState::Running)];
    assert_eq!(steps(&lease, &there, NOW), [Action::Observe { lease: id, seen: EngineView::Running }]);
    assert_eq!(steps(&lease, &[], NOW), [Action::Observe { lease: id, seen: EngineView::Gone }]);
    let expired = Event::ReleaseWanted { why: EndReason::Expired };
    assert_eq!(steps(&lease, &there, END), [Action::Record { lease: id, event: expired }]);
    let frozen = [container(1, 1, ContainerState::Paused)];
    let effect = Effect::Unpause { lease: id, fencing_epoch: 1 };
    assert_eq!(steps(&lease, &frozen, NOW), [Action::SetPaused { lease: id, effect }]);
}

#[test]
fn what_another_epoch_may_own_is_set_aside_and_never_killed_before_its_time() {
    let newer = container(1, 2, ContainerState::Running);
    let unknown = container(3, 1, ContainerState::Running);
    let grace = ReconcileRules::default().orphan_grace.as_millis() as u64;
    let aside =
        |container: &Container, why| Action::Quarantine { container: container.clone(), why, until_ms: END + grace };
    let seen = Action::Observe { lease: LeaseId([1; 16]), seen: EngineView::Gone };
    let containers = [unknown.clone(), newer.clone()];
    let expected = [seen, aside(&newer, QuarantineReason::NewerEpoch), aside(&unknown, QuarantineReason::UnknownLease)];
    assert_eq!(steps(&[running()], &containers, NOW), expected);
    assert!(matches!(steps(&[], std::slice::from_ref(&unknown), END + grace - 1)[..], [Action::Quarantine { .. }]));
    assert!(matches!(steps(&[], &[unknown], END + grace)[..], [Action::DestroyOrphan { .. }]));
}

#[test]
fn the_container_of_a_lost_lease_that_is_back_is_set_aside_until_its_end() {
    let lost = apply(&running(), &Event::Lost { note: "gone".into(), at_ms: NOW }).unwrap();
    let back = container(1, 1, ContainerState::Running);
    let grace = ReconcileRules::default().orphan_grace.as_millis() as u64;
    let (why, until_ms) = (QuarantineReason::LostLease, END + grace);
    let aside = Action::Quarantine { container: back.clone(), why, until_ms };
    assert_eq!(steps(std::slice::from_ref(&lost), std::slice::from_ref(&back), NOW), [aside]);
    // The end on its label is the first one: what the journal knows counts, too.
    let renewed = Lease { expires_at_ms: 2 * END, ..lost.clone() };
    let there = std::slice::from_ref(&back);
    assert!(matches!(
        steps(std::slice::from_ref(&renewed), there, 2 * END + grace - 1)[..],
        [Action::Quarantine { .. }]
    ));
    assert!(matches!(steps(&[renewed], there, 2 * END + grace)[..], [Action::DestroyOrphan { .. }]));
    assert!(matches!(steps(&[lost], std::slice::from_ref(&back), END + grace)[..], [Action::DestroyOrphan { .. }]));
    // One that was released is over.
    let released = Lease { state: LeaseState::Released, ..running() };
    assert!(matches!(steps(&[released], &[back], NOW)[..], [Action::DestroyOrphan { .. }]));
}

#[test]
fn a_container_whose_label_is_long_over_is_kept_until_its_renter_had_time_to_show_itself() {
    let there = [container(3, 1, ContainerState::Running)];
    let rules = ReconcileRules::default();
    let at = |now_ms, seen: &Sightings| reconcile(&[], &there, now_ms, &rules, seen);
    let (later, grace) = (END + 365 * 86_400_000, rules.claim_grace.as_millis() as u64);
    let aside = Action::Quarantine {
        container: there[0].clone(),
        why: QuarantineReason::UnknownLease,
        until_ms: later + grace,
    };
    assert_eq!(at(later, &Sightings::default()), [aside], "it may have been renewed, which the lost journal knew");
    let mut seen = first_seen(later);
    assert!(matches!(at(later + grace - 1, &seen)[..], [Action::Quarantine { .. }]));
    assert!(matches!(at(later + grace, &seen)[..], [Action::DestroyOrphan { .. }]), "but not for ever");
    assert!(seen.shown("c3", later + grace - 1), "its renter was heard of");
    assert!(matches!(at(later + grace, &seen)[..], [Action::Quarantine { .. }]));
}

#[test]
fn the_time_that_a_container_is_kept_goes_on_over_a_start_and_leaves_an_hour_after_it() {
    let rules = ReconcileRules::default();
    let (grace, hour) = (rules.claim_grace.as_millis() as u64, START_GRACE.as_millis() as u64);
    let since = |now_ms| first_seen(NOW).at_start(now_ms, &rules).since_ms("c1", now_ms);
    assert_eq!(since(NOW + 1), NOW);
    assert_eq!(since(NOW + 10 * grace) + grace, NOW + 10 * grace + hour, "it was away when the time ran out");
    let text = serde_json::json!(first_seen(NOW)).to_string();
    assert_eq!(serde_json::from_str::<Sightings>(&text).unwrap(), first_seen(NOW));
    let mut seen = first_seen(NOW);
    assert!(seen.note(std::iter::once("c1"), &["c1".to_owned()].into(), NOW + 1), "others are gone");
    assert_eq!((seen.since_ms("c1", 7), seen.since_ms("c2", 7)), (NOW, 7), "what is gone is forgotten");
    assert!(!seen.shown("c1", NOW + 1), "not worth a note so soon");
    assert!(!seen.shown("c2", NOW + 1) && seen.forget("c1") && !seen.forget("c1"));
}

#[test]
fn a_container_that_no_record_knows_becomes_the_lease_that_its_labels_and_its_renter_tell() {
    let paused = container(1, 2, ContainerState::Paused);
    let shown = Shown { lease: LeaseId([1; 16]), epoch: 5, token: token().digest(), expires_at_ms: 3 * END };
    let (opened, events) = unknown_lease(&paused, Hotkey([2; 32]), &shown, None, NOW);
    let lease = events.iter().fold(opened, |lease, event| apply(&lease, event).unwrap());
    assert_eq!((lease.state, lease.container_epoch, lease.fencing_epoch), (LeaseState::Paused, Some(2), 5));
    assert_eq!((lease.expires_at_ms, lease.renter, &lease.devices), (3 * END, Hotkey([1; 32]), &paused.devices));
    assert_eq!(check(&lease, &claim(5)), Ok(Standing::Current));
    assert_eq!(Lease::replay(&events), Ok(lease.clone()));
    assert!(matches!(steps(&[lease], &[paused], NOW)[..], [Action::Observe { seen: EngineView::Paused, .. }]));

    let day = Duration::from_secs(86_400);
    assert_eq!(end_of(END, 3 * END, NOW, day), Some(3 * END));
    assert_eq!(end_of(END, u64::MAX, NOW, day), Some(NOW + 86_400_000), "no longer than a renewal could give");
    assert_eq!(end_of(3 * END, 2 * END, NOW, day), Some(3 * END), "what is known is the least");
    assert_eq!(end_of(3 * END, NOW, NOW, day), None, "its renter says that it is over");
}

#[test]
fn a_lost_lease_goes_on_where_its_renter_says_so_and_a_renters_own_does_not() {
    let lost = apply(&running(), &Event::Lost { note: "gone".into(), at_ms: NOW }).unwrap();
    let back = container(1, 1, ContainerState::Running);
    let shown = Shown { lease: lost.id, epoch: 2, token: token().digest(), expires_at_ms: END + 1 };
    let events = lost_lease(&lost, &back, &shown);
    let found = events.iter().fold(lost.clone(), |lease, event| apply(&lease, event).unwrap());
    assert_eq!((found.state, found.fencing_epoch, found.expires_at_ms), (LeaseState::Running, 2, END + 1));
    assert_eq!((found.ended_at_ms, found.note), (None, None));
    let renters = Lease { role: Role::Renter, ..lost };
    assert!(apply(&renters, &events[0]).is_err());
}

#[test]
fn the_devices_of_a_container_that_is_taken_back_are_its_leases_unless_another_has_one() {
    let mut ledger = DeviceLedger::new((0..2).map(DeviceId::cpu));
    let (id, devices) = (LeaseId([1; 16]), [DeviceId::cpu(0)]);
    ledger.quarantine(id, "c1", &devices);
    assert!(ledger.take_back(id, "c2", &devices).is_err(), "another container has it");
    ledger.take_back(id, "c1", &devices).unwrap();
    assert_eq!(ledger.holder(devices[0]), Some(&Holder::Lease(id)));
    ledger.reserve(LeaseId([2; 16]), &[DeviceId::cpu(1)]).unwrap();
    let both = [DeviceId::cpu(0), DeviceId::cpu(1)];
    assert!(matches!(ledger.take_back(id, "c1", &both), Err(LedgerError::InUse { .. })));
}

#[test]
fn a_container_of_another_renter_or_of_a_refused_lease_is_not_ours() {
    let other = Lease { renter: Hotkey([9; 32]), ..releasing() };
    let there = [container(1, 1, ContainerState::Running)];
    let [Action::Record { event: Event::Destroyed { .. }, .. }, Action::Quarantine { .. }] =
        steps(&[other], &there, NOW)[..]
    else {
        panic!("the container is none of that lease's")
    };
    let no = Event::Refused { why: EndReason::EngineRefused, note: "no".into(), at_ms: NOW };
    assert!(matches!(steps(&[lease_after(&[Event::Reserved, no])], &there, NOW)[..], [Action::Quarantine { .. }]));
}

#[test]
fn the_container_of_an_ended_lease_and_that_of_a_superseded_epoch_are_destroyed() {
    let ended = apply(&releasing(), &Event::Destroyed { at_ms: NOW }).unwrap();
    let left = container(1, 1, ContainerState::Running);
    assert!(matches!(steps(&[ended], &[left], NOW)[..], [Action::DestroyOrphan { .. }]));
    let second = LeaseTerms { fencing_epoch: 2, ..terms(1) };
    let current = [Event::Reserved, started()].iter().fold(Lease::open(&second, NOW), |l, e| apply(&l, e).unwrap());
    let both = [container(1, 1, ContainerState::Running), container(1, 2, ContainerState::Running)];
    let Effect::Destroy { fencing_epoch: 1, .. } = (match &steps(&[current], &both, NOW)[..] {
        [Action::Observe { seen: EngineView::Running, .. }, Action::DestroyOrphan { effect, .. }] => effect.clone(),
        other => panic!("{other:?}"),
    }) else {
        panic!("the older epoch's container is the one that goes")
    };
}

#[test]
fn a_forgotten_request_is_dropped_and_a_renters_record_is_left_alone() {
    let asked = Lease::open(&terms(1), NOW);
    assert!(steps(std::slice::from_ref(&asked), &[], NOW + 1).is_empty());
    let [Action::Record { event: Event::Refused { why: EndReason::Withdrawn, .. }, .. }] =
        steps(&[asked], &[], NOW + 60_001)[..]
    else {
        panic!("it is dropped")
    };
    assert!(steps(&[Lease { role: Role::Renter, ..running() }], &[], END).is_empty());
}

#[test]
fn a_lease_that_nobody_heard_of_ends_after_its_grace_and_one_that_was_heard_of_stays() {
    let terms = LeaseTerms { unheard: true, ..terms(1) };
    let after = |events: &[Event]| events.iter().fold(Lease::open(&terms, NOW), |l, e| apply(&l, e).unwrap());
    let there = [container(1, 1, ContainerState::Running)];
    let grace = ReconcileRules { unheard_grace: Duration::from_millis(100), ..ReconcileRules::default() };
    let ended = |lease: &Lease, now_ms| {
        let actions = reconcile(std::slice::from_ref(lease), &there, now_ms, &grace, &Sightings::default());
        matches!(actions[..], [Action::Record { event: Event::ReleaseWanted { why: EndReason::Unheard }, .. }])
    };
    let begun = [after(&[Event::Reserved]), after(&[Event::Reserved, started()])];
    assert_eq!(begun.each_ref().map(|lease| ended(lease, NOW + 99)), [false; 2]);
    assert_eq!(begun.each_ref().map(|lease| ended(lease, NOW + 100)), [true; 2]);
    assert!(apply(&begun[0], &Event::Heard).is_err(), "there is nothing to tell yet");
    let heard = apply(&begun[1], &Event::Heard).unwrap();
    assert_eq!((heard.unheard, apply(&heard, &Event::Heard)), (false, Ok(heard.clone())));
    assert!(!ended(&heard, NOW + 100));
    let releasing = apply(&begun[1], &Event::ReleaseWanted { why: EndReason::Unheard }).unwrap();
    assert!(apply(&releasing, &Event::Heard).is_err(), "too late");
}

#[test]
fn records_from_before_there_were_unheard_leases_are_of_leases_that_were_heard_of() {
    let without = |mut json: serde_json::Value| {
        json.as_object_mut().unwrap().remove("unheard").expect("a field of its own");
        json
    };
    let lease: Lease = serde_json::from_value(without(serde_json::json!(running()))).unwrap();
    assert_eq!(lease, running());
    let old: LeaseTerms = serde_json::from_value(without(serde_json::json!(terms(1)))).unwrap();
    assert_eq!(old, terms(1));
}
