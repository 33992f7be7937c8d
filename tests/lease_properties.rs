//! A miner that crashes between any two steps of any rental: what must hold, holds.
//!
//! The world below has what survives a crash (the journal of events, the engine's containers) and what does not (the
//! ledger of devices). A run is a random list of steps: wishes, crashes before, between and after their effects, time,
//! an engine that is away, loses answers or comes back with all containers ended, containers of nobody we know. After every step the invariants of the lease rules are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use compute_subnet::ids::{DeviceId, Hotkey, LeaseId};
use compute_subnet::lease::aside::Sightings;
use compute_subnet::lease::decide::{after_create, after_destroy, call};
use compute_subnet::lease::reconcile::{Action, ReconcileRules, reconcile};
use compute_subnet::lease::revival::{Revival, RevivalPolicy, Revive};
use compute_subnet::lease::{
    Claim, Command, Container, ContainerSpec, ContainerState, DeviceLedger, Effect, EndReason, EngineError, Event,
    Grant, Labels, Lease, LeaseState, LeaseTerms, OwnerToken, Role, apply,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const DEVICES: u8 = 4;
const RULES: ReconcileRules = ReconcileRules {
    request_grace: Duration::from_millis(50),
    unheard_grace: Duration::from_millis(50),
    orphan_grace: Duration::from_millis(100),
    claim_grace: Duration::from_millis(100),
};

const REVIVAL: RevivalPolicy = RevivalPolicy {
    attempts: 8,
    first_wait: Duration::from_millis(5),
    longest_wait: Duration::from_millis(50),
    calm: Duration::from_millis(1),
};

/// Where the miner dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Crash {
    Never,
    BeforeTheEffect,
    BeforeItsResultIsWritten,
}

#[derive(Debug, Clone)]
enum Step {
    /// A renter asks for a lease of these devices and wants it reserved.
    Rent { lease: u8, devices: BTreeSet<u8>, lasts_ms: u64, crash: Crash },
    /// A renter commands a lease, with a fencing epoch.
    Call { lease: u8, command: Command, epoch: u64, crash: Crash },
    /// The engine's next answer is lost, after the call was carried out or before.
    LoseNextReply { done: bool },
    /// The engine's daemon is away for so many calls, and changes nothing meanwhile.
    Away { calls: u8 },
    /// The daemon or the host went down: the processes of every container, or of one lease's, have ended.
    End { lease: Option<u8> },
    /// The miner boots on a host with a container that its journal does not explain.
    Stranger { lease: u8, epoch: u64, renter: u8, device: u8, lasts_ms: u64 },
    /// Time passes.
    Wait { ms: u64 },
    /// The miner compares journal and engine, at boot or in between.
    Reconcile { crash: Crash },
}

#[derive(Default)]
struct World {
    now_ms: u64,
    journal: BTreeMap<LeaseId, Vec<Event>>,
    containers: Vec<Container>,
    made: u64,
    lose_next_reply: Option<bool>,
    away: u8,
    revivals: BTreeMap<LeaseId, Revival>,
    strangers: BTreeMap<String, u64>,
    sightings: Sightings,
    ledger: DeviceLedger,
}

fn id(n: u8) -> LeaseId {
    LeaseId([n; 16])
}

fn token(lease: LeaseId) -> OwnerToken {
    OwnerToken::derive(&[1; 32], lease)
}

impl World {
    fn new() -> Self {
        World { now_ms: 1_000, ledger: DeviceLedger::new((0..DEVICES).map(DeviceId::cpu)), ..World::default() }
    }

    fn leases(&self) -> Vec<Lease> {
        self.journal.values().map(|events| Lease::replay(events).expect("the journal replays")).collect()
    }

    fn lease(&self, lease: LeaseId) -> Option<Lease> {
        self.journal.get(&lease).map(|events| Lease::replay(events).expect("the journal replays"))
    }

    /// Writes an event, as the journal does, and keeps the ledger in step.
    fn write(&mut self, lease: LeaseId, event: Event) {
        let before = self.lease(lease).expect("known");
        let after = apply(&before, &event).expect("the rules allow what they decided");
        if after != before {
            self.journal.entry(lease).or_default().push(event);
        }
        if after.state.is_final() {
            self.ledger.release(lease);
        }
    }

    /// The miner dies and boots: what it held in memory is built anew.
    fn crash(&mut self) {
        let devices = (0..DEVICES).map(DeviceId::cpu);
        let leases = self.leases();
        self.revivals.clear();
        self.ledger = DeviceLedger::from_leases(devices, &leases).expect("no device has two leases");
        for action in reconcile(&leases, &self.containers, self.now_ms, &RULES, &self.sightings) {
            if let Action::Quarantine { container, .. } = action {
                self.ledger.quarantine(container.labels.lease, &container.id, &container.devices);
            }
        }
    }

    // === the engine: as engine::simulated, in memory ===

    fn position(&self, lease: LeaseId, epoch: u64) -> Result<Option<usize>, EngineError> {
        let of_lease: Vec<usize> =
            (0..self.containers.len()).filter(|i| self.containers[*i].labels.lease == lease).collect();
        match of_lease.iter().find(|i| self.containers[**i].labels.fencing_epoch == epoch) {
            Some(found) => Ok(Some(*found)),
            None => match of_lease.first() {
                None => Ok(None),
                Some(i) => {
                    let present = self.containers[*i].labels.fencing_epoch;
                    Err(EngineError::OtherEpoch { lease, present, asked: epoch })
                }
            },
        }
    }

    /// Loses the reply if that was asked for; `done` tells the moment apart.
    fn reply_lost(&mut self, done: bool) -> Result<(), EngineError> {
        if !done && self.away > 0 {
            self.away -= 1;
            return Err(EngineError::Unavailable { why: "away".into(), source: None });
        }
        if self.lose_next_reply != Some(done) {
            return Ok(());
        }
        self.lose_next_reply = None;
        Err(EngineError::Unclear("lost".into()))
    }

    fn create(&mut self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        self.reply_lost(false)?;
        let made = match self.position(spec.lease, spec.fencing_epoch)? {
            Some(i) if self.containers[i].labels.renter != spec.renter => {
                return Err(EngineError::Refused("another renter's".into()));
            }
            Some(i) => self.containers[i].clone(),
            None => {
                for device in &spec.devices {
                    if let Some(user) = self.containers.iter().find(|c| c.devices.contains(device)) {
                        return Err(EngineError::DeviceInUse { device: *device, lease: user.labels.lease });
                    }
                }
                self.put(spec.clone())
            }
        };
        self.reply_lost(true)?;
        Ok(made)
    }

    fn put(&mut self, spec: ContainerSpec) -> Container {
        self.made += 1;
        let labels = Labels {
            lease: spec.lease,
            fencing_epoch: spec.fencing_epoch,
            expires_at_ms: spec.expires_at_ms,
            renter: spec.renter,
        };
        let id = format!("c{}", self.made);
        let host_key = Some(format!("ssh-ed25519 {id}"));
        let state = ContainerState::Running;
        let container = Container { id, labels, state, ssh_port: 1, devices: spec.devices, host_key };
        self.containers.push(container.clone());
        container
    }

    fn destroy(&mut self, lease: LeaseId, epoch: u64) -> Result<bool, EngineError> {
        self.reply_lost(false)?;
        let found = self.position(lease, epoch)?;
        if let Some(i) = found {
            self.containers.remove(i);
        }
        self.reply_lost(true)?;
        Ok(found.is_some())
    }

    /// `restart` runs a container that has ended, which a pause or its end cannot.
    fn set_state(
        &mut self,
        lease: LeaseId,
        epoch: u64,
        state: ContainerState,
        restart: bool,
    ) -> Result<(), EngineError> {
        self.reply_lost(false)?;
        let i = self.position(lease, epoch)?.ok_or(EngineError::NoContainer(lease))?;
        if self.containers[i].state == ContainerState::Exited && !restart {
            return Err(EngineError::Refused("it has ended".into()));
        }
        self.containers[i].state = state;
        self.reply_lost(true)
    }

    // === the miner ===

    /// Carries an effect out and writes what came of it; `false` when the miner died on the way.
    fn carry_out(&mut self, lease: LeaseId, effect: &Effect, crash: Crash) -> bool {
        if crash == Crash::BeforeTheEffect {
            self.crash();
            return false;
        }
        let (mut created, mut destroyed) = (None, None);
        match effect {
            Effect::Create(spec) => created = Some(self.create(spec)),
            Effect::Destroy { lease, fencing_epoch } => {
                destroyed = Some((*fencing_epoch, self.destroy(*lease, *fencing_epoch)));
            }
            Effect::Pause { lease, fencing_epoch } => {
                _ = self.set_state(*lease, *fencing_epoch, ContainerState::Paused, false);
            }
            Effect::Unpause { lease, fencing_epoch } => {
                _ = self.set_state(*lease, *fencing_epoch, ContainerState::Running, false);
            }
            Effect::Restart { lease, fencing_epoch } => {
                _ = self.set_state(*lease, *fencing_epoch, ContainerState::Running, true);
            }
            // Nothing that a crash could leave undone shows in the world.
            Effect::Grant { .. } => _ = self.reply_lost(false).and_then(|()| self.reply_lost(true)),
        }
        if crash == Crash::BeforeItsResultIsWritten {
            self.crash();
            return false;
        }
        let Some(now) = self.lease(lease) else { return true };
        let event = created
            .and_then(|outcome| after_create(&now, &outcome, None, self.now_ms))
            .or(destroyed.and_then(|(epoch, outcome)| after_destroy(&now, epoch, &outcome, self.now_ms)));
        if let Some(event) = event {
            self.write(lease, event);
        }
        true
    }

    fn command(&mut self, lease: LeaseId, command: &Command, epoch: u64, crash: Crash) {
        let Some(record) = self.lease(lease) else { return };
        let claim = Claim { lease, epoch, token: token(lease) };
        let Ok(decision) = call(&record, &claim, command, self.now_ms) else { return };
        if decision.events.contains(&Event::Reserved)
            && let Err(taken) = self.ledger.reserve(lease, &record.devices)
        {
            let why = EndReason::DeviceNotFree;
            self.write(lease, Event::Refused { why, note: taken.to_string(), at_ms: self.now_ms });
            return;
        }
        for event in decision.events {
            self.write(lease, event);
        }
        match decision.effect {
            Some(effect) => _ = self.carry_out(lease, &effect, crash),
            None if crash != Crash::Never => self.crash(),
            None => {}
        }
    }

    /// One pass; `true` when it changed something.
    fn reconcile(&mut self, crash: Crash) -> bool {
        // An engine that is away lists nothing, which is no empty list.
        if self.reply_lost(false).is_err() {
            return false;
        }
        let before = (self.leases(), self.containers.clone());
        let mut aside = Vec::new();
        for action in reconcile(&before.0, &before.1, self.now_ms, &RULES, &self.sightings) {
            match action {
                Action::Adopt { lease, container } => {
                    let Container { id: container, host_key, .. } = container;
                    self.write(lease, Event::Started { container, endpoint: None, host_key, at_ms: self.now_ms });
                }
                Action::Record { lease, event } => self.write(lease, event),
                Action::FinishCreate { lease, effect }
                | Action::FinishDestroy { lease, effect }
                | Action::SetPaused { lease, effect } => {
                    if !self.carry_out(lease, &effect, crash) {
                        return true;
                    }
                }
                Action::Revive { lease, effect } => {
                    let now = self.now_ms;
                    if self.revivals.entry(lease).or_default().ended(&REVIVAL, now) == Revive::Now
                        && !self.carry_out(lease, &effect, crash)
                    {
                        return true;
                    }
                }
                Action::DestroyOrphan { container, effect } => {
                    if !self.carry_out(container.labels.lease, &effect, crash) {
                        return true;
                    }
                }
                Action::Quarantine { container, .. } => {
                    self.ledger.quarantine(container.labels.lease, &container.id, &container.devices);
                    aside.push(container.id);
                }
                Action::Observe { .. } => {}
            }
        }
        let there = self.containers.iter().map(|c| c.id.clone()).collect();
        self.sightings.note(aside.iter().map(String::as_str), &there, self.now_ms);
        self.ledger.end_quarantine(&there);
        before != (self.leases(), self.containers.clone())
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Rent { lease, devices, lasts_ms, crash } => {
                let lease = id(*lease);
                if self.journal.contains_key(&lease) {
                    return;
                }
                let terms = LeaseTerms {
                    id: lease,
                    role: Role::Provider,
                    fencing_epoch: 1,
                    renter: Hotkey([1; 32]),
                    miner: Hotkey([2; 32]),
                    devices: devices.iter().map(|d| DeviceId::cpu(*d)).collect(),
                    expires_at_ms: self.now_ms + lasts_ms,
                    owner_token_digest: token(lease).digest(),
                    ssh_public_key: None,
                    image: String::new(),
                    wish: None,
                    unheard: false,
                };
                terms.check(self.now_ms, Duration::from_secs(1)).expect("good terms");
                self.journal.insert(lease, vec![Event::Opened { terms, at_ms: self.now_ms }]);
                self.command(lease, &Command::Reserve, 1, *crash);
            }
            Step::Call { lease, command, epoch, crash } => self.command(id(*lease), command, *epoch, *crash),
            Step::LoseNextReply { done } => self.lose_next_reply = Some(*done),
            Step::Away { calls } => self.away = *calls,
            Step::End { lease } => {
                let hit = |c: &&mut Container| lease.is_none_or(|lease| c.labels.lease == id(lease));
                self.containers.iter_mut().filter(hit).for_each(|c| c.state = ContainerState::Exited);
            }
            Step::Stranger { lease, epoch, renter, device, lasts_ms } => {
                let device = DeviceId::cpu(*device);
                // The journal knows each of the miner's own containers, and an engine has one for a lease and epoch.
                let known = self.lease(id(*lease)).is_some_and(|l| l.fencing_epoch >= *epoch);
                let in_the_way = |c: &Container| {
                    c.devices.contains(&device) || (c.labels.lease, c.labels.fencing_epoch) == (id(*lease), *epoch)
                };
                if known || self.containers.iter().any(in_the_way) {
                    return;
                }
                let expires_at_ms = self.now_ms + lasts_ms;
                let spec = ContainerSpec {
                    lease: id(*lease),
                    fencing_epoch: *epoch,
                    expires_at_ms,
                    renter: Hotkey([*renter; 32]),
                    devices: vec![device],
                    ssh_public_key: None,
                    image: String::new(),
                };
                let name = self.put(spec).id;
                self.strangers.insert(name, expires_at_ms + RULES.orphan_grace.as_millis() as u64);
                self.crash();
            }
            Step::Wait { ms } => self.now_ms += ms,
            Step::Reconcile { crash } => _ = self.reconcile(*crash),
        }
    }

    // === what must hold ===

    fn check_always(&self) {
        let leases = self.leases();
        let mut held = BTreeSet::new();
        for lease in leases.iter().filter(|l| l.state.holds_devices()) {
            assert!(lease.devices.iter().all(|d| held.insert(*d)), "a device has two leases");
        }
        let mut used = BTreeSet::new();
        assert!(
            self.containers.iter().flat_map(|c| &c.devices).all(|d| used.insert(*d)),
            "a device has two containers"
        );
        for lease in &leases {
            let there = self.containers.iter().any(|c| {
                c.labels.lease == lease.id
                    && Some(c.labels.fencing_epoch) == lease.container_epoch
                    && c.labels.renter == lease.renter
            });
            if lease.state.is_live() {
                assert!(there, "a running lease lost its container: {lease:?}");
            }
            if lease.state == LeaseState::Released {
                assert!(!there, "a release was reported that did not happen: {lease:?}");
            }
        }
    }

    /// Strangers stay until their time is over; but what a superseded epoch of the same renter's lease left may go.
    fn check_strangers(&self, before: &BTreeMap<String, Container>) {
        for (name, until_ms) in &self.strangers {
            let Some(was) = before.get(name) else { continue };
            let superseded = self
                .lease(was.labels.lease)
                .is_some_and(|l| l.renter == was.labels.renter && l.fencing_epoch >= was.labels.fencing_epoch);
            let there = self.containers.iter().any(|c| c.id == *name);
            assert!(there || superseded || self.now_ms >= *until_ms, "what another may own was killed: {was:?}");
        }
    }

    fn check_settled(&self) {
        for container in &self.containers {
            let owner = self
                .lease(container.labels.lease)
                .filter(|l| l.container_epoch == Some(container.labels.fencing_epoch) && l.state.holds_devices());
            let quarantined = self.strangers.contains_key(&container.id);
            assert!(owner.is_some() || quarantined, "a container has no owner: {container:?}");
        }
        for lease in self.leases() {
            let own = self
                .containers
                .iter()
                .find(|c| c.labels.lease == lease.id && Some(c.labels.fencing_epoch) == lease.container_epoch);
            match lease.state {
                LeaseState::Running => assert_eq!(own.map(|c| c.state), Some(ContainerState::Running), "{lease:?}"),
                LeaseState::Paused => assert_eq!(own.map(|c| c.state), Some(ContainerState::Paused), "{lease:?}"),
                _ => {}
            }
            let settled = lease.state.is_final() || lease.state.is_live();
            assert!(settled || lease.state == LeaseState::Requested || self.blocked(&lease), "unfinished: {lease:?}");
        }
    }

    /// A stranger of another epoch stands in the way of this lease's own container; the engine refuses to touch it.
    fn blocked(&self, lease: &Lease) -> bool {
        self.containers
            .iter()
            .any(|c| c.labels.lease == lease.id && Some(c.labels.fencing_epoch) != lease.container_epoch)
    }
}

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![
        3 => Just(Crash::Never),
        1 => Just(Crash::BeforeTheEffect),
        1 => Just(Crash::BeforeItsResultIsWritten),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => Just(Command::Release { why: EndReason::Returned }),
        1 => Just(Command::Reserve),
        1 => Just(Command::Pause),
        1 => Just(Command::Unpause),
        1 => Just(Command::Restart),
        1 => Just(Command::Grant(Grant::TerminalKey(None))),
        1 => (1_000u64..1_600).prop_map(|expires_at_ms| Command::Extend { expires_at_ms }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let lease = 0u8..6;
    let devices = prop::collection::btree_set(0..DEVICES, 1..3);
    prop_oneof![
        4 => (lease.clone(), devices, 1u64..400, crash())
            .prop_map(|(lease, devices, lasts_ms, crash)| Step::Rent { lease, devices, lasts_ms, crash }),
        4 => (lease.clone(), command(), 1u64..4, crash())
            .prop_map(|(lease, command, epoch, crash)| Step::Call { lease, command, epoch, crash }),
        1 => any::<bool>().prop_map(|done| Step::LoseNextReply { done }),
        1 => (1u8..4).prop_map(|calls| Step::Away { calls }),
        1 => prop::option::of(lease.clone()).prop_map(|lease| Step::End { lease }),
        1 => (0u8..8, 1u64..6, 1u8..3, 0..DEVICES, 0u64..200).prop_map(|(lease, epoch, renter, device, lasts_ms)| {
            Step::Stranger { lease, epoch, renter, device, lasts_ms }
        }),
        2 => (1u64..120).prop_map(|ms| Step::Wait { ms }),
        3 => crash().prop_map(|crash| Step::Reconcile { crash }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("COMPUTE_TEST_LONG").is_some() { 8_192 } else { 512 },
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_miner_that_crashes_anywhere_keeps_its_promises(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            let before = world.containers.iter().map(|c| (c.id.clone(), c.clone())).collect();
            world.step(step);
            world.check_always();
            world.check_strangers(&before);
        }
        // Left alone, journal and engine come to agree in a few passes, and then nothing changes any more.
        (world.lose_next_reply, world.away) = (None, 0);
        world.now_ms += REVIVAL.calm.as_millis() as u64;
        let passes = (0..8).take_while(|_| world.reconcile(Crash::Never)).count();
        prop_assert!(passes < 8, "reconciliation does not come to rest");
        world.check_always();
        world.check_settled();
        // When all time is over, nothing is left.
        world.now_ms += 10_000;
        let passes = (0..8).take_while(|_| world.reconcile(Crash::Never)).count();
        prop_assert!(passes < 8, "the end does not come to rest");
        prop_assert!(world.containers.is_empty(), "left behind: {:?}", world.containers);
        prop_assert!(world.leases().iter().all(|l| l.state.is_final()));
        prop_assert_eq!(world.ledger.free().len(), usize::from(DEVICES));
    }
}
