//! Owns the rentals of this machine.
//!
//! Invariants: the intent is in the journal before the engine is called; a device has at most one lease; a release is
//! reported only when the container is gone; a container that another fencing epoch may own is set aside, not killed;
//! expiry is decided here, on this machine's clock.
//!
//! Design notes: a reconciler. Calls of validators write an intent and carry it out at once; a periodic comparison of
//! journal and engine finishes whatever was interrupted, also by a crash of this actor or of the process. Nothing is
//! served before the first comparison. On restart the journal is read again; containers are never touched by that.

mod machine;
mod replies;
mod steps;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;
use tokio::sync::watch;

use crate::actors::duty::Duty;
use crate::actors::journal::Journal;
use crate::actors::lease_book::{Entry, LeaseBook, REMEMBER_ENDED, StepError};
use crate::actors::miner::specs_collector::SpecsCollector;
use crate::clock::{SharedClock, millis};
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::decide::{self, CallError};
use crate::lease::health::{EngineView, Health, HealthPolicy, LeaseHealth, Observation};
use crate::lease::reconcile::{Action, QuarantineReason, ReconcileRules, reconcile};
use crate::lease::{
    Claim, Command, Container, ContainerEngine, DeviceLedger, EndReason, Event, Lease, LeaseState, LeaseTerms, Role,
};
use crate::messages::journal::{EndedLeases, LiveLeases};
use crate::messages::miner::allocation_manager::{
    Allocate, ForceError, ForceRelease, LeaseStatus, ListLeases, ListSetAside, MachineOffer, Reconcile, Release,
    RentedDevices, SetAside,
};
use crate::messages::miner::specs_collector::GetSpecs;
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::settings::Live;
use crate::telemetry::NodeMetrics;
use crate::telemetry::events::Recovered;
use crate::wire::synapse::{AllocateReply, LeaseRefusal, LeaseStatusReply, ReleaseReply};
use replies::{device_refused, fenced, refused, running, shown, terms_refused};
use steps::{Step, carry_out, with_deadline, write};

/// How long the miner's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Leases whose release was asked for before they were, of which so many are remembered.
const REMEMBER_WITHDRAWN: usize = 1024;

/// What the manager works with.
pub struct AllocationSetup {
    /// Our own key.
    pub hotkey: Hotkey,
    /// The containers.
    pub engine: Arc<dyn ContainerEngine>,
    /// The address renters log in at.
    pub host: IpAddr,
    /// The longest lease that is accepted.
    pub longest: Duration,
    /// Time between two comparisons with the engine.
    pub period: Duration,
    /// When a container that is not seen counts as lost.
    pub health: HealthPolicy,
    /// Graces of the comparison.
    pub rules: ReconcileRules,
    /// What this machine offers.
    pub specs: Handle<SpecsCollector>,
    /// Where this machine's offer is published; nothing until the leases are known.
    pub offer: watch::Sender<Option<MachineOffer>>,
    /// Where it is published which devices are rented, about to be, or set aside.
    pub held: watch::Sender<Vec<DeviceId>>,
    /// The operator's word on new leases.
    pub duty: watch::Receiver<Duty>,
    /// Keeps the leases.
    pub journal: Handle<Journal>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// The actor.
pub struct AllocationManager {
    /// What it works with, as the settings have it now.
    live: Live<Arc<AllocationSetup>>,
    setup: Arc<AllocationSetup>,
    book: LeaseBook,
    ledger: DeviceLedger,
    health: HashMap<LeaseId, Health>,
    loaded: watch::Sender<bool>,
    compared: bool,
    set_aside: Vec<SetAside>,
    comparing: bool,
    /// Released before they were asked for: a request that is late on its way must not make them after all.
    withdrawn: VecDeque<(Hotkey, LeaseId)>,
    /// To be ended, since nobody heard of them; until they have ended.
    abandoned: HashMap<LeaseId, Release>,
    last_problem: Option<String>,
}

impl AllocationManager {
    /// A manager that knows no lease yet.
    pub fn new(live: Live<Arc<AllocationSetup>>) -> Self {
        let setup = live.get();
        AllocationManager {
            live,
            setup,
            book: LeaseBook::default(),
            ledger: DeviceLedger::default(),
            health: HashMap::new(),
            loaded: watch::Sender::new(false),
            compared: false,
            set_aside: Vec::new(),
            comparing: false,
            withdrawn: VecDeque::new(),
            abandoned: HashMap::new(),
            last_problem: None,
        }
    }

    fn load(&mut self, ctx: &mut Ctx<Self>) {
        let setup = self.setup.clone();
        let work = async move {
            let leases = setup.journal.ask(LiveLeases, ASK).await.map_err(|e| e.to_string())?;
            let mut leases = leases.map_err(|e| crate::telemetry::error_chain(&e))?;
            // What ended is known as ended: neither made again by a late request, nor a stranger's if its container shows up.
            let ended = setup.journal.ask(EndedLeases(REMEMBER_ENDED), ASK).await.map_err(|e| e.to_string())?;
            leases.extend(ended.map_err(|e| crate::telemetry::error_chain(&e))?);
            let specs = setup.specs.ask(GetSpecs, ASK).await.map_err(|e| e.to_string())?;
            let entries: Vec<Entry> = leases
                .iter()
                .map(|r| Entry::from_record(r).map_err(|e| format!("lease {}: {e}", r.id)))
                .collect::<Result<_, _>>()?;
            let devices = specs.specs.devices.iter().map(|d| d.device);
            let ledger = DeviceLedger::from_leases(devices, entries.iter().map(|e| &e.lease))
                .map_err(|e| format!("the journal's leases contradict each other: {e}"))?;
            Ok::<_, String>((entries, ledger))
        };
        ctx.spawn(work.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok((entries, ledger)) => {
                for entry in entries {
                    act.book.put(entry.lease.id, Some(entry));
                }
                act.ledger = ledger;
                act.loaded.send_replace(true);
                act.compare(ctx);
            }
            Err(problem) => {
                tracing::error!(problem, "leases cannot be loaded, nothing is rented until they can");
                act.last_problem = Some(problem);
                ctx.run_later(Duration::from_secs(1), |act, ctx| act.load(ctx));
            }
        }));
    }

    /// Compares every period, which is a setting.
    fn tick(&mut self, ctx: &mut Ctx<Self>) {
        self.setup = self.live.get();
        ctx.run_later(self.setup.period, |act, ctx| {
            act.tick(ctx);
            act.compare(ctx);
        });
    }

    /// Compares journal and engine, and carries out what follows.
    fn compare(&mut self, ctx: &mut Ctx<Self>) {
        if !*self.loaded.borrow() || self.comparing {
            return;
        }
        self.comparing = true;
        // The journal's side first, then the engine's list: a lease that appears in between is only seen next time.
        let leases: Vec<Lease> = self.book.open().filter(|l| !self.book.is_busy(l.id)).cloned().collect();
        let setup = self.setup.clone();
        let work = async move {
            let listed = with_deadline(setup.engine.list()).await;
            // A driver may come up, or a card drop out, long after this actor started.
            let specs = setup.specs.ask(GetSpecs, ASK).await;
            (leases, listed, specs)
        };
        ctx.spawn(work.into_actor(self).map(|(leases, listed, specs), act, ctx| {
            if let Ok(machine) = specs {
                act.ledger.set_devices(machine.specs.devices.iter().map(|d| d.device));
                act.publish();
            }
            match listed {
                Ok(containers) => act.carry_out(&leases, &containers, ctx),
                Err(error) => {
                    act.comparing = false;
                    act.last_problem = Some(error.to_string());
                    tracing::warn!(%error, "the container engine does not list its containers");
                }
            }
        }));
    }

    fn carry_out(&mut self, leases: &[Lease], containers: &[Container], ctx: &mut Ctx<Self>) {
        let now = self.setup.clock.now_ms();
        let still_there = containers.iter().map(|c| c.id.clone()).collect();
        self.ledger.end_quarantine(&still_there);
        let (leases, containers) = self.unchanged(leases, containers);
        let mut rules = self.setup.rules;
        if !self.compared {
            // Whoever waited for an answer of the actor or the process before this one does not get it any more.
            rules.unheard_grace = Duration::ZERO;
        }
        let mut steps = Vec::new();
        let mut recovered = Recovered::default();
        let mut set_aside = Vec::new();
        for action in reconcile(&leases, &containers, now, &rules) {
            match action {
                Action::Observe { lease, seen } => {
                    match seen {
                        EngineView::Gone | EngineView::NotSeen | EngineView::Unreachable => recovered.open += 1,
                        EngineView::Running | EngineView::Paused | EngineView::Exited => recovered.kept += 1,
                    }
                    let health = self.health.entry(lease).or_default();
                    if health.observe(self.setup.health, Observation::local(seen)) == LeaseHealth::Gone {
                        let note = "the container is gone without our doing".to_owned();
                        steps.push((lease, Step::Events(vec![Event::Lost { note, at_ms: now }])));
                    }
                }
                Action::Adopt { lease, container } => steps.push((lease, Step::Adopt(container))),
                Action::FinishCreate { lease, effect }
                | Action::FinishDestroy { lease, effect }
                | Action::SetPaused { lease, effect } => steps.push((lease, Step::Effect(effect))),
                Action::Record { lease, event } => steps.push((lease, Step::Events(vec![event]))),
                Action::Quarantine { container, why } => {
                    recovered.set_aside += 1;
                    self.ledger.quarantine(container.labels.lease, &container.id, &container.devices);
                    set_aside.push(self.aside(container, why));
                }
                Action::DestroyOrphan { container, effect } => {
                    tracing::warn!(container = container.id, lease = %container.labels.lease, "destroying a container that nobody owns");
                    steps.push((container.labels.lease, Step::Orphan(effect)));
                }
            }
        }
        self.set_aside = set_aside;
        self.publish();
        let work: Vec<_> = steps
            .into_iter()
            .filter_map(|(id, step)| {
                let entry = self.book.take(id);
                let taken = entry.is_some();
                // Somebody else has the lease in hand: it is his to put back.
                if !taken && !matches!(step, Step::Orphan(_)) {
                    return None;
                }
                let (setup, kind) = (self.setup.clone(), step.recovery());
                Some(async move { (id, taken, kind, carry_out(&setup, entry, step).await) })
            })
            .collect();
        ctx.spawn(join_all(work).into_actor(self).map(move |done, act, ctx| {
            let mut progress = false;
            for (id, taken, kind, result) in done {
                progress |= matches!(result, Ok(Some(_)));
                *if result.is_ok() { kind(&mut recovered) } else { &mut recovered.open } += 1;
                match result {
                    result if taken => act.settle(id, result),
                    Ok(_) => {}
                    Err(problem) => {
                        tracing::warn!(lease = %id, problem, "the container stays, it will be tried again");
                        act.last_problem = Some(problem);
                    }
                }
            }
            act.comparing = false;
            if !act.compared {
                act.compared = true;
                recovered.emit(&act.setup.metrics);
                act.publish();
            }
            act.end_abandoned(ctx);
            // A step that failed waits for the next period; it would fail again now.
            if progress {
                ctx.run_later(Duration::from_millis(200), |act, ctx| act.compare(ctx));
            }
        }));
    }

    /// A container that is set aside; the log hears of it the first time.
    fn aside(&self, container: Container, why: QuarantineReason) -> SetAside {
        let until_ms = self.setup.rules.orphan_until_ms(&container);
        let Container { id: container, labels, devices, .. } = container;
        let (lease, fencing_epoch, renter) = (labels.lease, labels.fencing_epoch, labels.renter);
        let aside = SetAside { container, lease, fencing_epoch, renter, devices, why, until_ms };
        if !self.set_aside.contains(&aside) {
            tracing::warn!(container = aside.container, %lease, fencing_epoch, ?why, until_ms, "container set aside");
        }
        aside
    }

    /// What a list of containers can be compared with: leases that are as they were when it was asked for, ended ones
    /// of which a container is listed, and containers of no lease that changed since.
    fn unchanged(&self, leases: &[Lease], containers: &[Container]) -> (Vec<Lease>, Vec<Container>) {
        let same = |l: &&Lease| !self.book.is_busy(l.id) && self.book.get(l.id).is_some_and(|e| e.lease == **l);
        let mut leases: Vec<Lease> = leases.iter().filter(same).cloned().collect();
        let mut kept = Vec::with_capacity(containers.len());
        for container in containers {
            let id = container.labels.lease;
            if self.book.is_busy(id) {
                continue;
            }
            match self.book.get(id) {
                Some(entry) if leases.iter().any(|l| l.id == entry.lease.id) => {}
                Some(entry) if entry.lease.state.is_final() => leases.push(entry.lease.clone()),
                Some(_) => continue,
                None => {}
            }
            kept.push(container.clone());
        }
        (leases, kept)
    }

    /// Puts a lease back after a step and frees what it no longer holds.
    fn settle(&mut self, id: LeaseId, result: Result<Option<Entry>, String>) {
        match result {
            Ok(entry) => {
                if let Some(entry) = &entry {
                    self.last_problem = None;
                    if entry.lease.state.is_final() {
                        self.ledger.release(id);
                        self.health.remove(&id);
                    }
                }
                self.book.put(id, entry);
            }
            Err(problem) => {
                tracing::warn!(lease = %id, problem, "the step was not taken, it will be tried again");
                self.last_problem = Some(problem);
                self.book.put(id, None);
            }
        }
        self.book.show(&self.setup.metrics);
        self.publish();
    }

    /// Opens a lease on these terms and makes its container.
    fn open(&mut self, terms: LeaseTerms, now: u64) -> ResponseActFuture<Self, AllocateReply> {
        let answer = |act: &Self, reply: AllocateReply| -> ResponseActFuture<Self, AllocateReply> {
            Box::pin(async move { reply }.into_actor(act))
        };
        let id = terms.id;
        if let Err(error) = terms.check(now, self.setup.longest) {
            return answer(self, refused(terms_refused(&error), error));
        }
        if let Err(error) = self.ledger.reserve(id, &terms.devices) {
            return answer(self, refused(device_refused(&error), error));
        }
        self.book.begin(id);
        self.publish();
        let setup = self.setup.clone();
        let work = async move {
            let entry = Entry::opened(Lease::open(&terms, now));
            let opened = [Event::Opened { terms, at_ms: now }, Event::Reserved];
            let entry = match write(&setup, &entry, &opened).await {
                Ok(entry) => entry,
                // Perhaps on record, so it is kept as if it were: what is on record must have somebody to end it.
                Err(StepError::Unclear { next, problem }) => return Err((Some(*next), problem)),
                Err(error) => return Err((None, error.to_string())),
            };
            let Some(effect) = decide::effect_of(&entry.lease) else {
                return Err((Some(entry), "nothing to create".to_owned()));
            };
            let made = carry_out(&setup, Some(entry.clone()), Step::Effect(effect)).await;
            match made {
                Ok(Some(entry)) => Ok(entry),
                Ok(None) => Err((Some(entry), "the lease moved on".to_owned())),
                Err(problem) => Err((Some(entry), problem)),
            }
        };
        Box::pin(work.into_actor(self).map(move |made, act, ctx| {
            let reply = match made {
                Ok(entry) => {
                    let reply = match entry.lease.state {
                        LeaseState::Running => running(&entry.lease),
                        _ => refused(
                            LeaseRefusal::Engine,
                            entry.lease.note.as_deref().unwrap_or("the container was not made"),
                        ),
                    };
                    act.settle(id, Ok(Some(entry)));
                    reply
                }
                // Nothing is on record: the devices are free again.
                Err((None, problem)) => {
                    act.ledger.release(id);
                    act.book.put(id, None);
                    act.publish();
                    refused(LeaseRefusal::Degraded, problem)
                }
                // The intent is on record: the next comparison finishes or ends it.
                Err((Some(entry), problem)) => {
                    act.settle(id, Ok(Some(entry)));
                    refused(LeaseRefusal::Other, problem)
                }
            };
            act.end_abandoned(ctx);
            reply
        }))
    }
}

impl Actor for AllocationManager {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.publish();
        self.load(ctx);
        self.tick(ctx);
    }
}

impl Supervised for AllocationManager {
    const MESSAGES: &'static [&'static str] = &[
        "Allocate",
        "Release",
        "ForceRelease",
        "AllocateMachine",
        "MachineHeard",
        "Abandon",
        "ReleaseMachine",
        "PauseMachine",
        "LeaseStatus",
        "ListLeases",
        "ListSetAside",
        "RentedDevices",
        "Reconcile",
    ];
}

impl Handler<Allocate> for AllocationManager {
    type Result = ResponseActFuture<Self, AllocateReply>;
    fn handle(&mut self, Allocate { caller, request }: Allocate, _: &mut Ctx<Self>) -> Self::Result {
        let answer =
            |act: &Self, reply: AllocateReply| -> Self::Result { Box::pin(async move { reply }.into_actor(act)) };
        if !self.compared {
            return answer(self, refused(LeaseRefusal::Degraded, "leases and engine have not been compared yet"));
        }
        let id = request.lease;
        let token = request.owner_token.clone();
        if self.book.is_busy(id) {
            return answer(self, refused(LeaseRefusal::Other, "this lease is being changed, ask again"));
        }
        if self.withdrawn.contains(&(caller, id)) {
            return answer(self, refused(LeaseRefusal::Other, "this lease was released before it was asked for"));
        }
        if let Some(known) = self.book.get(id) {
            let claim = Claim { lease: id, epoch: request.fencing_epoch, token };
            let reply = match crate::lease::fencing::check(&known.lease, &claim) {
                Err(error) => refused(fenced(&error), error),
                Ok(_) if known.lease.renter != caller => {
                    refused(LeaseRefusal::NotOwner, "the lease belongs to another validator")
                }
                Ok(_) if known.lease.state == LeaseState::Running => running(&known.lease),
                Ok(_) => refused(LeaseRefusal::Other, format!("the lease is {}", known.lease.state)),
            };
            return answer(self, reply);
        }
        self.setup = self.live.get();
        if let Some(why) = self.setup.duty.borrow().refuses_leases() {
            return answer(self, refused(LeaseRefusal::Draining, why));
        }
        let now = self.setup.clock.now_ms();
        let terms = LeaseTerms {
            id,
            role: Role::Provider,
            fencing_epoch: request.fencing_epoch,
            renter: caller,
            miner: self.setup.hotkey,
            devices: request.devices,
            expires_at_ms: request.expires_at_ms,
            owner_token_digest: token.digest(),
            ssh_public_key: (!request.ssh_key.is_empty()).then_some(request.ssh_key),
            wish: None,
            unheard: false,
        };
        self.open(terms, now)
    }
}

impl Handler<Release> for AllocationManager {
    type Result = ResponseActFuture<Self, ReleaseReply>;
    fn handle(&mut self, release: Release, _: &mut Ctx<Self>) -> Self::Result {
        self.end(release, EndReason::Returned)
    }
}

impl AllocationManager {
    /// Ends a lease for its owner.
    fn end(&mut self, Release { caller, request }: Release, why: EndReason) -> ResponseActFuture<Self, ReleaseReply> {
        let answer = |act: &Self, reply: ReleaseReply| -> ResponseActFuture<Self, ReleaseReply> {
            Box::pin(async move { reply }.into_actor(act))
        };
        let id = request.lease;
        let refuse = |reason, detail: String| ReleaseReply::Refused { reason, detail };
        if !self.compared {
            return answer(self, refuse(LeaseRefusal::Degraded, "leases and engine have not been compared yet".into()));
        }
        if self.book.is_opening(id) {
            return answer(self, refuse(LeaseRefusal::Other, "this lease is being made, ask again".into()));
        }
        let Some(known) = self.book.get(id) else {
            if !self.withdrawn.contains(&(caller, id)) {
                self.withdrawn.truncate(REMEMBER_WITHDRAWN - 1);
                self.withdrawn.push_front((caller, id));
            }
            return answer(self, ReleaseReply::UnknownLease);
        };
        if known.lease.renter != caller {
            return answer(self, refuse(LeaseRefusal::NotOwner, "the lease belongs to another validator".into()));
        }
        let claim = Claim { lease: id, epoch: request.fencing_epoch, token: request.owner_token };
        let wish = Command::Release { why };
        let decision = match decide::call(&known.lease, &claim, &wish, self.setup.clock.now_ms()) {
            Ok(decision) => decision,
            Err(CallError::Fencing(error)) => return answer(self, refuse(fenced(&error), error.to_string())),
            Err(CallError::Transition(error)) => return answer(self, refuse(LeaseRefusal::Other, error.to_string())),
        };
        if known.lease.state.is_final() {
            return answer(self, ReleaseReply::Released);
        }
        let Some(entry) = self.book.take(id) else {
            return answer(self, refuse(LeaseRefusal::Other, "this lease is being changed, ask again".into()));
        };
        let setup = self.setup.clone();
        let work = async move {
            let entry = if decision.events.is_empty() {
                entry
            } else {
                match write(&setup, &entry, &decision.events).await {
                    Ok(entry) => entry,
                    Err(error) => return (None, Err(error.to_string())),
                }
            };
            let Some(effect) = decision.effect else { return (Some(entry), Ok(())) };
            match carry_out(&setup, Some(entry.clone()), Step::Effect(effect)).await {
                Ok(Some(entry)) => (Some(entry), Ok(())),
                Ok(None) => (Some(entry), Err("the engine has not destroyed the container yet".to_owned())),
                Err(problem) => (Some(entry), Err(problem)),
            }
        };
        Box::pin(work.into_actor(self).map(move |(entry, done), act, _| {
            let ended = entry.as_ref().is_some_and(|e| e.lease.state.is_final());
            act.settle(id, Ok(entry));
            match done {
                Ok(()) if ended => ReleaseReply::Released,
                Ok(()) => refuse(LeaseRefusal::Other, "the release is on record and will be finished".into()),
                Err(problem) => refuse(LeaseRefusal::Other, problem),
            }
        }))
    }
}

impl Handler<ForceRelease> for AllocationManager {
    type Result = ResponseActFuture<Self, Result<Lease, ForceError>>;
    fn handle(&mut self, ForceRelease { lease: id, reason }: ForceRelease, _: &mut Ctx<Self>) -> Self::Result {
        let answer = |act: &Self, reply: Result<Lease, ForceError>| -> Self::Result {
            Box::pin(async move { reply }.into_actor(act))
        };
        if !self.compared {
            return answer(self, Err(ForceError::Busy("leases and engine have not been compared yet")));
        }
        match self.book.get(id) {
            None if self.book.is_busy(id) => {
                return answer(self, Err(ForceError::Busy("the lease is being made")));
            }
            None => return answer(self, Err(ForceError::Unknown)),
            Some(known) if known.lease.state.is_final() => return answer(self, Ok(known.lease.clone())),
            Some(_) => {}
        }
        let Some(entry) = self.book.take(id) else {
            return answer(self, Err(ForceError::Busy("the lease is being changed")));
        };
        tracing::warn!(lease = %id, renter = %entry.lease.renter, reason, "the operator ends a lease");
        let wish = Command::Release { why: EndReason::Operator };
        let decision = match decide::decide(&entry.lease, &wish, self.setup.clock.now_ms()) {
            Ok(decision) => decision,
            Err(error) => {
                self.book.put(id, None);
                return answer(self, Err(ForceError::NotDone(error.to_string())));
            }
        };
        let setup = self.setup.clone();
        let work = async move {
            let entry = match decision.events.is_empty() {
                true => entry,
                false => match write(&setup, &entry, &decision.events).await {
                    Ok(entry) => entry,
                    Err(error) => return (None, Some(error.to_string())),
                },
            };
            // Wanted before this already: the effect is read off the state.
            let Some(effect) = decision.effect.or_else(|| decide::effect_of(&entry.lease)) else {
                return (Some(entry), None);
            };
            match carry_out(&setup, Some(entry.clone()), Step::Effect(effect)).await {
                Ok(Some(entry)) => (Some(entry), None),
                Ok(None) => (Some(entry), Some("the engine has not destroyed the container yet".to_owned())),
                Err(problem) => (Some(entry), Some(problem)),
            }
        };
        Box::pin(work.into_actor(self).map(move |(entry, problem), act, _| {
            let lease = entry.as_ref().map(|entry| entry.lease.clone());
            act.settle(id, Ok(entry));
            match (lease, problem) {
                (Some(lease), None) if lease.state.is_final() => Ok(lease),
                (_, Some(problem)) => Err(ForceError::NotDone(problem)),
                _ => Err(ForceError::NotDone("the release is on record and will be finished".into())),
            }
        }))
    }
}

impl Handler<LeaseStatus> for AllocationManager {
    type Result = MessageResult<LeaseStatus>;
    fn handle(&mut self, LeaseStatus { caller, request }: LeaseStatus, _: &mut Ctx<Self>) -> Self::Result {
        // Not knowing is no answer: a renter takes an unknown lease for a lost one.
        if !*self.loaded.borrow() || self.book.is_opening(request.lease) {
            let detail = "leases are not loaded, or this one is being made; ask again".to_owned();
            return MessageResult(LeaseStatusReply::Refused { reason: LeaseRefusal::Degraded, detail });
        }
        let Some(known) = self.book.get(request.lease).filter(|e| e.lease.renter == caller) else {
            return MessageResult(LeaseStatusReply::UnknownLease);
        };
        let claim = Claim { lease: request.lease, epoch: request.fencing_epoch, token: request.owner_token };
        MessageResult(match crate::lease::fencing::check(&known.lease, &claim) {
            Ok(_) => {
                LeaseStatusReply::Known { state: shown(known.lease.state), expires_at_ms: known.lease.expires_at_ms }
            }
            Err(error) => LeaseStatusReply::Refused { reason: fenced(&error), detail: error.to_string() },
        })
    }
}

impl Handler<ListLeases> for AllocationManager {
    type Result = MessageResult<ListLeases>;
    fn handle(&mut self, _: ListLeases, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.book.open().cloned().collect())
    }
}

impl Handler<ListSetAside> for AllocationManager {
    type Result = MessageResult<ListSetAside>;
    fn handle(&mut self, _: ListSetAside, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.set_aside.clone())
    }
}

impl Handler<RentedDevices> for AllocationManager {
    type Result = ResponseActFuture<Self, Vec<(DeviceId, LeaseId)>>;
    fn handle(&mut self, _: RentedDevices, _: &mut Ctx<Self>) -> Self::Result {
        let mut loaded = self.loaded.subscribe();
        let known = async move {
            if loaded.wait_for(|known| *known).await.is_err() {
                // The sender lives in the actor that polls this future: it cannot be gone.
                std::future::pending::<()>().await;
            }
        };
        // The ledger, not the book: a device counts from the moment it is set aside, and in quarantine too.
        Box::pin(known.into_actor(self).map(|(), act, _| act.ledger.held().map(|(d, by)| (d, by.lease())).collect()))
    }
}

impl Handler<Reconcile> for AllocationManager {
    type Result = ();
    fn handle(&mut self, _: Reconcile, ctx: &mut Ctx<Self>) {
        self.compare(ctx);
    }
}

impl Handler<Inspect> for AllocationManager {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "loaded": *self.loaded.borrow(),
            "compared": self.compared,
            "leases": self.book.open().map(|l| format!("{} {}", l.id, l.state)).collect::<Vec<_>>(),
            "set_aside": self.set_aside,
            "free_devices": self.ledger.free().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "last_problem": self.last_problem,
        }))
    }
}
