//! Owns the rentals of this machine.
//!
//! Invariants: the intent is in the journal before the engine is called; a device has at most one lease; a release is
//! reported only when the container is gone; a container that another fencing epoch may own is set aside, not killed;
//! expiry is decided here, on this machine's clock.
//!
//! Design notes: a reconciler. Calls of validators write an intent and carry it out at once; a periodic comparison of
//! journal and engine finishes whatever was interrupted, also by a crash of this actor or of the process. Nothing is
//! served before the first comparison. On restart the journal is read again; containers are never touched by that.
//!
//! Read `open` (how a lease begins), `change` (how it is changed and ended), `compare` (what is done without being asked),
//! `aside` (containers that no record explains),
//! `machine` (callers of the original's protocol), `show` (who may see what).

mod aside;
mod change;
mod compare;
mod machine;
mod open;
mod receipts;
mod replies;
mod show;
mod steps;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::ready;
use tokio::sync::watch;

use crate::actors::duty::Duty;
use crate::actors::journal::Journal;
use crate::actors::lease_book::{self, Entry, LeaseBook, StepError};
use crate::actors::miner::specs_collector::SpecsCollector;
use crate::clock::{SharedClock, millis};
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::aside::Sightings;
use crate::lease::decide::{self, CallError};
use crate::lease::fencing::Repeats;
use crate::lease::health::{EngineView, Health, HealthPolicy, LeaseHealth, Observation};
use crate::lease::reconcile::ReconcileRules;
use crate::lease::revival::{Revival, RevivalPolicy, Revive};
use crate::lease::{
    Claim, Command, Container, ContainerEngine, DeviceLedger, EndReason, Event, Lease, LeaseState, LeaseTerms, Role,
};
use crate::messages::journal::ReadMeta;
use crate::messages::miner::allocation_manager::{
    Allocate, ForceError, ForceRelease, HeldReceipts, LeaseStatus, ListLeases, ListSetAside, MachineOffer, Reconcile,
    Release, RentedDevices, SetAside,
};
use crate::messages::miner::specs_collector::GetSpecs;
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::settings::Live;
use crate::telemetry::NodeMetrics;
use crate::telemetry::events::Recovered;
use crate::wire::synapse::{LeaseChangeReply, LeaseRefusal};
use receipts::Receipts;
use replies::{device_refused, engine_refused, fenced, login, not_rented, refused, running, shown, terms_refused};
use steps::{Step, called, carry_out, endpoint, write};

/// How long the miner's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Leases whose release was asked for before they were, of which so many are remembered.
const REMEMBER_WITHDRAWN: usize = 1024;
/// Answers to changes of leases that are remembered.
const REMEMBER_ANSWERS: usize = 1024;
/// The least time between two comparisons that changes of the engine ask for.
const CHANGES: Duration = Duration::from_millis(250);
/// What everybody is told before the first comparison.
const NOT_COMPARED: &str = "leases and engine have not been compared yet";

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
    /// How long a call of the engine may take that changes something; longer than its own deadlines add up to.
    pub engine_deadline: Duration,
    /// When a container that is not seen counts as lost.
    pub health: HealthPolicy,
    /// How often a container that ended is started again.
    pub revival: RevivalPolicy,
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
    /// The containers among them that their renters are ending at this moment.
    ending_aside: BTreeSet<String>,
    /// Since when they are; the journal keeps it.
    sightings: Sightings,
    comparing: bool,
    /// The engine changed while it was compared.
    compare_again: bool,
    /// A period is over, and what is seen next counts for the leases' health.
    round_due: bool,
    /// Released before they were asked for: a request that is late on its way must not make them after all.
    withdrawn: VecDeque<(Hotkey, LeaseId)>,
    /// To be ended, since nobody heard of them; until they have ended.
    abandoned: HashMap<LeaseId, Release>,
    /// What shows others that this machine is rented. A renter hands it over with every check, so none is kept on disk.
    receipts: Receipts,
    /// Starts of containers that had ended.
    revivals: HashMap<LeaseId, Revival>,
    /// Answers to changes of leases, for whoever asks again.
    answers: Repeats<LeaseChangeReply>,
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
            ending_aside: BTreeSet::new(),
            sightings: Sightings::default(),
            comparing: false,
            withdrawn: VecDeque::new(),
            abandoned: HashMap::new(),
            receipts: Receipts::default(),
            revivals: HashMap::new(),
            answers: Repeats::new(REMEMBER_ANSWERS),
            compare_again: false,
            round_due: false,
            last_problem: None,
        }
    }

    fn load(&mut self, ctx: &mut Ctx<Self>) {
        let setup = self.setup.clone();
        let work = async move {
            // What ended is known as ended: neither made again by a late request, nor a stranger's if its container shows up.
            let (mut entries, ended) = lease_book::stored(&setup.journal, ASK).await?;
            entries.extend(ended);
            let kept = setup.journal.ask(ReadMeta(aside::META_SET_ASIDE), ASK).await.map_err(|e| e.to_string())?;
            let kept = kept.map_err(|e| crate::telemetry::error_chain(&e))?;
            let specs = setup.specs.ask(GetSpecs, ASK).await.map_err(|e| e.to_string())?;
            let devices = specs.specs.devices.iter().map(|d| d.device);
            let ledger = DeviceLedger::from_leases(devices, entries.iter().map(|e| &e.lease))
                .map_err(|e| format!("the journal's leases contradict each other: {e}"))?;
            // What cannot be read is counted from now on.
            let kept: Sightings = kept.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            Ok::<_, String>((entries, ledger, kept.at_start(setup.clock.now_ms(), &setup.rules)))
        };
        ctx.spawn(work.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok((entries, ledger, sightings)) => {
                for entry in entries {
                    act.book.put(entry.lease.id, Some(entry));
                }
                act.ledger = ledger;
                act.sightings = sightings;
                act.setup.engine.offers(act.ledger.devices().count());
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

    /// Compares whenever the engine says that something changed, if it does.
    fn listen(&self, mut changes: watch::Receiver<u64>, ctx: &mut Ctx<Self>) {
        let changed = async move {
            let told = changes.changed().await;
            // A container that ends again and again must not keep this actor busy.
            tokio::time::sleep(CHANGES).await;
            told.is_ok().then_some(changes)
        };
        ctx.spawn(changed.into_actor(self).map(|changes, act, ctx| match changes {
            Some(changes) => {
                act.compare(ctx);
                act.listen(changes, ctx);
            }
            None => tracing::warn!("the engine tells of no changes any more; they are found every period"),
        }));
    }

    /// An answer that needs no work.
    fn answer<T: 'static>(&self, answer: T) -> ResponseActFuture<Self, T> {
        Box::pin(ready(answer).into_actor(self))
    }

    /// Compares every period, which is a setting.
    fn tick(&mut self, ctx: &mut Ctx<Self>) {
        self.setup = self.live.get();
        ctx.run_later(self.setup.period, |act, ctx| {
            act.tick(ctx);
            act.round_due = true;
            act.compare(ctx);
        });
    }
}

impl Actor for AllocationManager {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.publish();
        self.load(ctx);
        self.tick(ctx);
        if let Some(changes) = self.setup.engine.changes() {
            self.listen(changes, ctx);
        }
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
        "ChangeLease",
        "Renew",
        "ChangeMachine",
        "LeaseStatus",
        "HeldReceipts",
        "ListLeases",
        "ListSetAside",
        "RentedDevices",
        "Reconcile",
    ];
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
