//! Rents miners' devices for users, and gives them back.
//!
//! Invariants: only devices that were proved in the last judged epoch are rented; the intent is in the journal before
//! the miner is asked; a lease whose miner did not answer is released until the miner confirms or its time is long
//! over; a release is reported only when the miner confirmed it. Expiry is decided here too, on our own clock.
//!
//! Design notes: a reconciler. Calls carry out one step at once; a periodic round asks the miners how leases are,
//! finishes releases, and ends what is over. The owner's token of a lease is derived from one secret of this node and
//! never stored. On restart the journal tells the leases; a lease that was being made is released to be sure.
//!
//! Reading order: this file (what is owned, the messages), `rent` (what a user asks), `choice` (what is known of the
//! miners), `change` (what is done with a running lease), `steps` (one lease, step by step), `calls` (one miner, call by call), `watch` and `look` (the rounds), `hardware`
//! (what judged epochs say of rented devices), `releases` (what is not confirmed), `receipts` (what others are shown), `canary` (what is rented to look).

mod calls;
mod canary;
mod change;
mod choice;
mod hardware;
mod look;
mod receipts;
mod releases;
mod rent;
mod steps;
mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::watch as published;

use crate::actors::duty::Duty;
use crate::actors::journal::Journal;
use crate::actors::lease_book::{self, Entry, LeaseBook};
use crate::actors::validator::specs_collector::SpecsCollector;
use crate::actors::validator::under_proof::UnderProof;
use crate::clock::SharedClock;
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::Lease;
use crate::lease::health::{HealthPolicy, Observation, Outage};
use crate::messages::chain_watcher::ChainView;
use crate::messages::journal::HeldCanaries;
use crate::messages::validator::allocation_manager::{
    AllocatedDevices, LeasedDevices, ListLeases, Release, Rent, RentError, ShowCandidates, ShowLease,
};
use crate::messages::validator::challenge_runner::EpochJudged;
use crate::rental::{Candidate, Outcome, Record};
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::scoring::LeaseReceipt;
use crate::settings::Live;
use crate::telemetry::NodeMetrics;
use crate::telemetry::events::Recovered;
use crate::wallet::Keypair;
use crate::wire::dendrite::Dendrite;

use choice::proved;
use hardware::HardwareWatch;
use releases::Releases;
use rent::{Reply, not_loaded};
use watch::Watched;

/// How long the validator's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// How long, and how often, a call waits for a lease that is being looked after: 5 s in all.
const BUSY_WAIT: Duration = Duration::from_millis(50);
const BUSY_WAITS: u32 = 100;
/// Largest reply about a lease, in bytes.
const MAX_REPLY: usize = 64 * 1024;
/// Longest words kept of a miner, in bytes.
const MAX_DETAIL: usize = 300;
/// Miners asked about their leases at once.
const AT_ONCE: usize = 32;
/// A lease counts as allocated while fewer than so many checks in a row went without the miner confirming it. The lease
/// itself goes on for longer, see [`HealthPolicy`]; but nobody is paid for a machine that does not answer.
const UNCONFIRMED_CHECKS: u32 = 2;
/// The first fencing epoch of a lease; this node never hands one over.
const FIRST_EPOCH: u64 = 1;

/// What the manager works with.
pub struct AllocationSetup {
    /// Our own key.
    pub hotkey: Hotkey,
    /// Signs receipts.
    pub keypair: Keypair,
    /// Signs and sends the calls.
    pub dendrite: Dendrite,
    /// Where the miners are.
    pub view: published::Receiver<Option<Arc<ChainView>>>,
    /// The secret that owner tokens are derived from.
    pub secret: Arc<secrecy::SecretBox<[u8; 32]>>,
    /// The longest lease that is rented.
    pub longest: Duration,
    /// How long a miner may take to start or release a container.
    pub allocate_deadline: Duration,
    /// How long a miner may take to answer anything else.
    pub call_deadline: Duration,
    /// Time between two rounds.
    pub period: Duration,
    /// When a lease counts as lost.
    pub health: HealthPolicy,
    /// How long after its end an unreachable miner's lease is given up.
    pub give_up: Duration,
    /// Whether the SSH ports of leases are dialled.
    pub ssh_probe: bool,
    /// Most miners asked for one request.
    pub candidates: usize,
    /// Time after which no further miner is asked.
    pub rent_deadline: Duration,
    /// Time in which a miner's trouble halves.
    pub half_life: Duration,
    /// Judged epochs that must show changed hardware.
    pub hardware_confirmations: u8,
    /// What this validator's own proofs and rentals tell each other.
    pub under_proof: UnderProof,
    /// What the miners told of themselves.
    pub specs: Handle<SpecsCollector>,
    /// The operator's word on new leases.
    pub duty: published::Receiver<Duty>,
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
    /// The last epoch that was judged and is not void.
    judged: Option<EpochJudged>,
    /// What earlier rentals at each miner came to.
    record: Record,
    hardware: HardwareWatch,
    /// Leases that are to end because their hardware was changed, with what was seen.
    due: HashMap<LeaseId, String>,
    health: HashMap<LeaseId, Watched>,
    /// Releases that no miner has confirmed yet.
    releases: Releases,
    /// The newest receipt of each lease.
    receipts: HashMap<LeaseId, LeaseReceipt>,
    /// The leases that are canaries.
    canaries: HashSet<LeaseId>,
    /// Devices that a rental in progress wants, before its intent is on record.
    wanted: HashMap<LeaseId, (Hotkey, Vec<DeviceId>)>,
    loaded: bool,
    /// Leases that the round in progress still looks after.
    looking: usize,
    /// What it saw so far.
    seen: Vec<(LeaseId, Hotkey, Observation)>,
    outage: Outage,
    /// What the first round finds, until it is over.
    recovered: Option<Recovered>,
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
            judged: None,
            record: Record::default(),
            hardware: HardwareWatch::default(),
            due: HashMap::new(),
            health: HashMap::new(),
            releases: Releases::default(),
            receipts: HashMap::new(),
            canaries: HashSet::new(),
            wanted: HashMap::new(),
            loaded: false,
            looking: 0,
            seen: Vec::new(),
            outage: Outage::default(),
            recovered: Some(Recovered::default()),
            last_problem: None,
        }
    }

    fn load(&mut self, ctx: &mut Ctx<Self>) {
        let journal = self.setup.journal.clone();
        let work = async move {
            let (leases, ended) = lease_book::stored(&journal, ASK).await?;
            let canaries = journal.ask(HeldCanaries, ASK).await.map_err(|e| e.to_string())?;
            Ok::<_, String>((leases, ended, canaries.map_err(|e| crate::telemetry::error_chain(&e))?))
        };
        ctx.spawn(work.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok((entries, ended, canaries)) => {
                act.canaries = canaries.iter().map(|canary| canary.row.record.id).collect();
                for Entry { lease, .. } in &ended {
                    if let (Some(outcome), Some(at_ms)) = (Outcome::of(lease), lease.ended_at_ms) {
                        act.record.take(lease.miner, outcome, at_ms, act.setup.half_life);
                    }
                }
                for entry in entries {
                    act.book.put(entry.lease.id, Some(entry));
                }
                act.book.show(&act.setup.metrics);
                act.loaded = true;
                act.round(ctx);
            }
            Err(problem) => {
                tracing::error!(problem, "leases cannot be loaded, nothing is rented until they can");
                act.last_problem = Some(problem);
                ctx.run_later(Duration::from_secs(1), |act, ctx| act.load(ctx));
            }
        }));
    }

    /// The devices of leases that are not over and count here, by miner.
    fn devices(&self, counts: impl Fn(&Lease) -> bool) -> HashMap<Hotkey, Vec<DeviceId>> {
        let mut leased: HashMap<Hotkey, Vec<DeviceId>> = HashMap::new();
        for lease in self.book.open().filter(|l| counts(l)) {
            leased.entry(lease.miner).or_default().extend(&lease.devices);
        }
        leased
    }
}

impl Actor for AllocationManager {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.load(ctx);
        let mut view = self.setup.view.clone();
        let first_view = async move { view.wait_for(Option::is_some).await.is_ok() };
        ctx.spawn(first_view.into_actor(self).map(|_, act, ctx| act.round(ctx)));
        self.tick(ctx);
    }
}

impl Supervised for AllocationManager {
    const MESSAGES: &'static [&'static str] = &[
        "Rent",
        "RentCanary",
        "ShowCandidates",
        "Release",
        "ChangeLease",
        "RenewLease",
        "ShowLease",
        "ListLeases",
        "LeasedDevices",
        "AllocatedDevices",
        "EpochJudged",
    ];
}

impl Handler<Rent> for AllocationManager {
    type Result = Reply;
    fn handle(&mut self, Rent(request): Rent, _: &mut Ctx<Self>) -> Self::Result {
        if !self.loaded {
            return self.reply(Err(not_loaded()));
        }
        match request.id {
            Some(id) => self.rent_as(id, request, BUSY_WAITS),
            None => match LeaseId::random() {
                Ok(id) => self.open(id, request),
                Err(error) => self.reply(Err(RentError::Journal(format!("no randomness from the system: {error}")))),
            },
        }
    }
}

impl Handler<ShowCandidates> for AllocationManager {
    type Result = ResponseActFuture<Self, Result<Vec<Candidate>, RentError>>;
    fn handle(&mut self, ShowCandidates(request): ShowCandidates, _: &mut Ctx<Self>) -> Self::Result {
        self.show_candidates(request)
    }
}

impl Handler<Release> for AllocationManager {
    type Result = Reply;
    fn handle(&mut self, Release(id): Release, _: &mut Ctx<Self>) -> Self::Result {
        if !self.loaded {
            return self.reply(Err(not_loaded()));
        }
        self.release(id, BUSY_WAITS)
    }
}

impl Handler<ShowLease> for AllocationManager {
    type Result = Reply;
    fn handle(&mut self, ShowLease(id): ShowLease, _: &mut Ctx<Self>) -> Self::Result {
        match self.book.get(id) {
            _ if !self.loaded => self.reply(Err(not_loaded())),
            Some(known) => self.reply(Ok(known.lease.clone())),
            None => self.look_up(id),
        }
    }
}

impl Handler<ListLeases> for AllocationManager {
    type Result = MessageResult<ListLeases>;
    fn handle(&mut self, _: ListLeases, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.book.open().cloned().collect())
    }
}

impl Handler<LeasedDevices> for AllocationManager {
    type Result = MessageResult<LeasedDevices>;
    fn handle(&mut self, _: LeasedDevices, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.devices(|l| self.releases.leave_alone(l)))
    }
}

impl Handler<AllocatedDevices> for AllocationManager {
    type Result = MessageResult<AllocatedDevices>;
    fn handle(&mut self, _: AllocatedDevices, _: &mut Ctx<Self>) -> Self::Result {
        let confirmed = |id| self.health.get(&id).is_none_or(Watched::confirmed);
        let rented = |id| !self.canaries.contains(&id);
        MessageResult(self.devices(|l| l.state.is_live() && rented(l.id) && confirmed(l.id)))
    }
}

impl Handler<EpochJudged> for AllocationManager {
    type Result = ();
    fn handle(&mut self, judged: EpochJudged, ctx: &mut Ctx<Self>) {
        if judged.void {
            // We were out: what was proved before is as good as it was.
            return;
        }
        let known = self.judged.as_ref().is_some_and(|known| known.epoch >= judged.epoch);
        if !known {
            self.judge_hardware(&judged, ctx);
            self.judged = Some(judged);
        }
    }
}

impl Handler<Inspect> for AllocationManager {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "loaded": self.loaded,
            "leases": self.book.open().map(|l| format!("{} {} at {}", l.id, l.state, l.miner)).collect::<Vec<_>>(),
            "proved_devices": self.judged.iter().flat_map(|j| j.miners.iter()).map(|m| proved(m).count()).sum::<usize>(),
            "miners_with_trouble": self.record.len(),
            "last_problem": self.last_problem,
        }))
    }
}
