//! Rents miners now and then to see what a tenant gets: [`crate::canary`].
//!
//! Invariants: one canary at a time; its lease's id is on record before anything is rented, and stays among those to be given
//! back until a release is confirmed, over restarts too; nothing is begun at a miner that has something to be given back, and
//! such a miner keeps no other waiting. A canary never takes a device that is rented, and its lease never counts as allocated.
//!
//! Design notes: a reconciler. A block is the nudge; whose turn it is follows from the last judged epoch, the last canaries
//! and the settings ([`crate::canary::schedule`], which is pure). The canary itself is a plain async function,
//! [`crate::canary::drive()`]. On restart the canary under way is dropped with its connection: its record is open, so
//! it is ended as interrupted and released. What a canary cost is booked at its end, whatever becomes of the release.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use async_trait::async_trait;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use super::challenge_runner::plan::WorkTable;
use super::verifiers::Verifiers;
use crate::actors::duty::Duty;
use crate::actors::journal::Journal;
use crate::actors::validator::allocation_manager::AllocationManager;
use crate::canary::course::Course;
use crate::canary::original::Original;
use crate::canary::schedule::{Candidate, Rhythm, lasts, next, some};
use crate::canary::ssh::fresh_key;
use crate::canary::{
    Access, Fault, Landlord, Limits, Models, Others, Plan, Reason, Remote, Rented, Report, Task, Tools, drive,
};
use crate::clock::{SharedClock, millis};
use crate::ids::{DeviceId, Epoch, Hotkey, LeaseId};
use crate::messages::chain_watcher::{ChainView, NewBlock};
use crate::messages::journal::{CanaryTimes, HeldCanaries, Write};
use crate::messages::validator::allocation_manager::{ListLeases, Release, RentCanary, RentError};
use crate::messages::validator::canary_runner::{CanaryError, RunCanary};
use crate::messages::validator::challenge_runner::EpochJudged;
use crate::runtime::{AskError, Backoff, Ctx, Handle, Inspect, Supervised};
use crate::scoring::{ModelRow, ScoreTable};
use crate::settings::Live;
use crate::store::Record;
use crate::store::records::{CanaryRecord, CanaryRow, HeldCanary};
use crate::telemetry::events::CanaryEnded;
use crate::telemetry::{NodeMetrics, error_chain};
use crate::verdict::{FailReason, UnknownCause, Verdict};
use crate::wire::dendrite::{Dendrite, Peer};
use crate::wire::synapse::original::{PublicKey, RenterKey};

/// How long the validator's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Time between two attempts to learn what an earlier life left.
const RELOAD: Duration = Duration::from_secs(2);
/// The first and the longest wait between attempts to give back what a canary rented.
const RELEASE_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Nobody is asked any more for what was rented so long ago: our own leases are over before, and who rents by the original's
/// protocol ends a rental with the next one.
const GIVE_UP: Duration = Duration::from_secs(72 * 3_600);
/// What a lease lasts beyond all stages together.
const SPARE: Duration = Duration::from_secs(120);
/// The largest program that is uploaded, in bytes: a build for debugging has 70 MB.
const MAX_PROGRAM: u64 = 256 << 20;

/// What the runner works with.
pub struct CanaryRunnerSetup {
    /// How often.
    pub rhythm: Rhythm,
    /// How long each stage may take.
    pub limits: Limits,
    /// The longest lease that is rented.
    pub longest: Duration,
    /// Images of which one is asked for.
    pub images: Vec<String>,
    /// Whether miners that speak only the original's protocol are rented.
    pub original: bool,
    /// Asks those.
    pub dendrite: Dendrite,
    /// Where the miners are.
    pub view: watch::Receiver<Option<Arc<ChainView>>>,
    /// The operator's word on new leases.
    pub duty: watch::Receiver<Duty>,
    /// The program that is uploaded; none = `compute-prover` beside this program.
    pub program: Option<PathBuf>,
    /// Logs in.
    pub remote: Arc<dyn Remote>,
    /// Where proofs are checked.
    pub verifiers: Verifiers,
    /// The models and their floors.
    pub table: Arc<ScoreTable>,
    /// The work asked of each model.
    pub works: Arc<WorkTable>,
    /// Rents and releases.
    pub allocations: Handle<AllocationManager>,
    /// Keeps the canaries.
    pub journal: Handle<Journal>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

type Answer = oneshot::Sender<Result<CanaryRow, CanaryError>>;

/// How a miner is rented.
#[derive(Debug, Clone)]
enum Way {
    /// As its proofs have shown it, some of these devices.
    Ours(Vec<Task>),
    /// Over the original's protocol: the devices are seen after the login.
    Original,
}

/// A canary that perhaps holds what it rented.
#[derive(Debug)]
struct Held {
    record: CanaryRecord,
    key: Option<PublicKey>,
    attempts: usize,
}

/// The actor.
pub struct CanaryRunner {
    /// What it works with, as the settings have it now.
    live: Live<Arc<CanaryRunnerSetup>>,
    setup: Arc<CanaryRunnerSetup>,
    /// The last judged epoch.
    judged: Option<EpochJudged>,
    /// When each miner's last canary began, in milliseconds since the Unix epoch, and whether it passed.
    last: HashMap<Hotkey, (u64, bool)>,
    /// Whether it is known what earlier lives left.
    loaded: bool,
    /// What is to be given back, one of a miner at most: nothing new is begun there meanwhile.
    held: HashMap<LeaseId, Held>,
    /// The miner at which one is under way, or about to be.
    running: Option<Hotkey>,
    /// How many were begun in the epoch of the last block.
    begun: (Epoch, u32),
    last_problem: Option<String>,
}

impl CanaryRunner {
    /// A runner that remembers nothing yet.
    pub fn new(live: Live<Arc<CanaryRunnerSetup>>) -> Self {
        let setup = live.get();
        CanaryRunner {
            live,
            setup,
            judged: None,
            last: HashMap::new(),
            loaded: false,
            held: HashMap::new(),
            running: None,
            begun: (0, 0),
            last_problem: None,
        }
    }

    /// Learns what earlier lives left, and when each miner was looked at last; again until it is done.
    fn load(&mut self, ctx: &mut Ctx<Self>) {
        let setup = self.setup.clone();
        ctx.spawn(async move { load(&setup).await }.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok((held, times)) => {
                act.last = times.into_iter().map(|(miner, at_ms, passed)| (miner, (at_ms, passed))).collect();
                act.loaded = true;
                act.last_problem = None;
                for HeldCanary { row, original_key } in held {
                    act.hold(row.record, original_key, ctx);
                }
            }
            Err(problem) => {
                act.problem(problem, "canaries of an earlier run are not known yet, trying again");
                ctx.run_later(RELOAD, |act, ctx| act.load(ctx));
            }
        }));
    }

    fn problem(&mut self, problem: String, what: &str) {
        if self.last_problem.as_ref() != Some(&problem) {
            tracing::warn!(problem, "{what}");
        }
        self.last_problem = Some(problem);
    }

    /// Begins to give back what a canary rented.
    fn hold(&mut self, record: CanaryRecord, key: Option<PublicKey>, ctx: &mut Ctx<Self>) {
        let id = record.id;
        self.held.insert(id, Held { record, key, attempts: 0 });
        self.setup.metrics.canaries_held(self.held.len());
        self.give_back(id, ctx);
    }

    /// Asks for a release; again later if it is not confirmed. What is at one miner keeps no other waiting.
    fn give_back(&mut self, id: LeaseId, ctx: &mut Ctx<Self>) {
        let Some(held) = self.held.get(&id) else { return };
        let (setup, record, key) = (self.setup.clone(), held.record.clone(), held.key.clone());
        let over = held.attempts > 0 && self.setup.clock.now_ms() >= record.begun_ms.saturating_add(millis(GIVE_UP));
        let work = async move {
            let released = match landlord(&setup, &record, key) {
                Ok(landlord) => timeout(setup.limits.release, landlord.release(id)).await.unwrap_or_else(|_| {
                    Err(Fault::new(Reason::Deadline, format!("no answer within {:?}", setup.limits.release)))
                }),
                Err(fault) => Err(fault),
            };
            let confirmed = released.is_ok();
            if !confirmed && !over {
                return released.map_err(|fault| fault.to_string());
            }
            if let Err(fault) = released {
                tracing::warn!(canary = %id, miner = %record.miner, %fault, "what a canary rented is given up");
            }
            write(&setup, Record::CanaryReleased { id, confirmed }).await.map_err(|error| error.to_string())
        };
        ctx.spawn(work.into_actor(self).map(move |done, act, ctx| {
            let Some(held) = act.held.get_mut(&id) else { return };
            let Err(problem) = done else {
                act.held.remove(&id);
                act.setup.metrics.canaries_held(act.held.len());
                return;
            };
            held.attempts = held.attempts.saturating_add(1);
            let retry = Backoff { first: RELEASE_RETRY.0, cap: RELEASE_RETRY.1, ..Backoff::default() };
            let wait = retry.delay(held.attempts, 0.0, 0.0);
            tracing::info!(canary = %id, miner = %held.record.miner, problem, ?wait, "not given back yet, asking again");
            ctx.run_later(wait, move |act, ctx| act.give_back(id, ctx));
        }));
    }

    /// Whether something is to be given back at this miner.
    fn holds(&self, miner: &Hotkey) -> bool {
        self.held.values().any(|held| held.record.miner == *miner)
    }

    /// How each miner could be rented: its devices that are proved, or that failed nothing but a canary; or, if the settings
    /// want it, over the original's protocol, where it answers ours as those do who do not know it.
    fn ways(&self) -> HashMap<Hotkey, Way> {
        let Some(judged) = &self.judged else { return HashMap::new() };
        let rentable = |verdict: &Verdict| {
            matches!(verdict, Verdict::Pass { .. } | Verdict::Fail { reason: FailReason::CanaryFailed, .. })
        };
        let of = |m: &crate::scoring::MinerJudgement| {
            let rentable = m.devices.iter().filter(|d| rentable(&d.verdict));
            let tasks: Vec<Task> = rentable.filter_map(|d| self.setup.task(d.device, &d.model)).collect();
            match &m.whole {
                _ if !tasks.is_empty() => Some(Way::Ours(tasks)),
                Some(Verdict::Unknown { cause, .. }) if self.setup.original && knows_no_other(*cause) => {
                    Some(Way::Original)
                }
                _ => None,
            }
        };
        judged.miners.iter().filter_map(|m| Some((m.hotkey, of(m)?))).collect()
    }

    /// Where miners of other owners are that proved themselves in the last judged epoch: one owner could make all of its own
    /// silent.
    fn others(&self, miner: Hotkey) -> Vec<std::net::SocketAddr> {
        let view = self.setup.view.borrow().clone();
        let (Some(view), Some(judged)) = (view, &self.judged) else { return Vec::new() };
        let own = view.metagraph.axon_address(&miner).map(|addr| addr.ip());
        let owner = judged.miners.iter().find(|m| m.hotkey == miner).map(|m| m.coldkey);
        let proved = judged.miners.iter().filter(|m| {
            m.hotkey != miner
                && Some(m.coldkey) != owner
                && m.devices.iter().any(|d| matches!(d.verdict, Verdict::Pass { .. }))
        });
        let addrs = proved.filter_map(|m| view.metagraph.axon_address(&m.hotkey));
        addrs.filter(|addr| Some(addr.ip()) != own).collect()
    }

    /// Begins the canary that is due, if one is.
    fn go_on(&mut self, epoch: Epoch, ctx: &mut Ctx<Self>) {
        if self.begun.0 != epoch {
            self.begun = (epoch, 0);
        }
        self.setup = self.live.get();
        let off = self.setup.rhythm.interval.is_zero() || self.setup.duty.borrow().refuses_leases().is_some();
        if !self.loaded || self.running.is_some() || off {
            return;
        }
        let mut ways = self.ways();
        let candidate = |miner: &Hotkey| Candidate { miner: *miner, last: self.last.get(miner).copied() };
        let candidates: Vec<Candidate> = ways.keys().filter(|miner| !self.holds(miner)).map(candidate).collect();
        let now = self.setup.clock.now_ms();
        let due = next(&self.setup.rhythm, self.begun.1, now, &candidates);
        let Some((miner, way)) = due.and_then(|miner| Some((miner, ways.remove(&miner)?))) else { return };
        self.begun.1 += 1;
        self.begin(miner, way, false, None, ctx);
    }

    /// Runs a canary at this miner; `all`: on all devices that are free.
    fn begin(&mut self, miner: Hotkey, way: Way, all: bool, answer: Option<Answer>, ctx: &mut Ctx<Self>) {
        self.running = Some(miner);
        let setup = self.setup.clone();
        let others = Others::new(self.others(miner), setup.view.clone());
        let work = async move { run(&setup, miner, way, all, others).await };
        ctx.spawn(work.into_actor(self).map(move |done, act, ctx| {
            act.running = None;
            act.setup.metrics.canary_running(false);
            let done = done.map(|(row, key)| {
                if let Some(report) = &row.report {
                    act.last.insert(miner, (row.record.begun_ms, report.outcome.reason().is_none()));
                    if report.unreleased.is_some() {
                        act.hold(row.record.clone(), key, ctx);
                    }
                }
                row
            });
            match &done {
                Ok(_) => act.last_problem = None,
                // All its devices are rented: its turn comes again, after the others'.
                Err(CanaryError::NoDevice) => {
                    act.last.insert(miner, (act.setup.clock.now_ms(), false));
                }
                Err(error) => act.problem(error.to_string(), "a canary was not run"),
            }
            if let Some(answer) = answer {
                let _ = answer.send(done); // who asked may be gone
            }
        }));
    }
}

impl CanaryRunnerSetup {
    /// What a device of this model is asked.
    fn task(&self, device: DeviceId, model: &str) -> Option<Task> {
        let row = self.table.find(model)?;
        let work = *self.works.get(&row.name)?;
        Some(Task { device, work, floor_ops: row.floor_ops.filter(|_| row.timed) })
    }

    /// What GPUs are asked, by the names that the driver tells.
    fn models(&self) -> Models {
        let of = |row: &ModelRow| Some((*self.works.get(&row.name)?, row.floor_ops.filter(|_| row.timed)));
        self.table.rows().iter().filter_map(|row| Some((row.name.clone(), of(row)?))).collect()
    }

    fn peer(&self, miner: Hotkey) -> Result<Peer, Fault> {
        let addr = self.view.borrow().as_ref().and_then(|view| view.metagraph.axon_address(&miner));
        let addr = addr.ok_or_else(|| Fault::new(Reason::NoAnswer, "the miner announces no axon"))?;
        Ok(Peer { hotkey: miner, addr })
    }
}

/// Whether a miner that was asked in our protocol answered as one that knows the original's only.
fn knows_no_other(cause: UnknownCause) -> bool {
    matches!(cause, UnknownCause::Refused | UnknownCause::UnsignedReply | UnknownCause::MalformedReply)
}

/// Who gives back what this canary rented.
fn landlord(
    setup: &CanaryRunnerSetup,
    record: &CanaryRecord,
    key: Option<PublicKey>,
) -> Result<Box<dyn Landlord>, Fault> {
    Ok(match key {
        Some(key) => Box::new(Original::returning(setup.dendrite.clone(), setup.peer(record.miner)?, key)),
        None => Box::new(Manager::of(setup, Duration::ZERO, String::new())),
    })
}

/// What perhaps holds something still, each ended at least as interrupted; and when each miner was looked at last.
async fn load(setup: &CanaryRunnerSetup) -> Result<(Vec<HeldCanary>, Vec<(Hotkey, u64, bool)>), String> {
    let held = setup.journal.ask(HeldCanaries, ASK).await.map_err(|e| e.to_string())?;
    let held = held.map_err(|e| error_chain(&e))?;
    for HeldCanary { row, .. } in held.iter().filter(|held| held.row.report.is_none()) {
        let mut course = Course::default();
        course.ended(Err(Fault::new(Reason::Interrupted, "")), Duration::ZERO);
        course.ended(Err(Fault::new(Reason::Interrupted, "")), Duration::ZERO);
        let report = course.report(row.record.devices.clone(), Vec::new(), Vec::new(), false);
        end(setup, &row.record, report).await.map_err(|error| error.to_string())?;
    }
    let times = setup.journal.ask(CanaryTimes, ASK).await.map_err(|e| e.to_string())?;
    Ok((held, times.map_err(|e| error_chain(&e))?))
}

async fn end(setup: &CanaryRunnerSetup, record: &CanaryRecord, report: Report) -> Result<CanaryRow, CanaryError> {
    let ended_ms = setup.clock.now_ms();
    let end = Record::CanaryEnded { id: record.id, ended_ms, report: Box::new(report.clone()) };
    write(setup, end).await?;
    CanaryEnded { miner: record.miner, report: &report }.emit(&setup.metrics);
    Ok(CanaryRow { record: record.clone(), ended_ms: Some(ended_ms), report: Some(report) })
}

async fn write(setup: &CanaryRunnerSetup, record: Record) -> Result<(), CanaryError> {
    let written = setup.journal.ask(Write(vec![record]), ASK).await;
    let written = written.map_err(|error| CanaryError::Journal(error.to_string()))?;
    written.map_err(|error| CanaryError::Journal(error_chain(&error)))
}

/// One canary: what is free, the record, the stages, the end of the record. With it the key that owns the rental, if one does.
async fn run(
    setup: &CanaryRunnerSetup,
    miner: Hotkey,
    way: Way,
    all: bool,
    others: Others,
) -> Result<(CanaryRow, Option<PublicKey>), CanaryError> {
    let leases = setup.allocations.ask(ListLeases, ASK).await;
    let leases = leases.map_err(|_| CanaryError::Busy("the leases are not known at this moment"))?;
    // Also what ends and is not confirmed: it is proved again, and still rented to nobody.
    let held = leases.iter().filter(|lease| lease.miner == miner && lease.state.holds_devices());
    let taken: Vec<DeviceId> = held.flat_map(|lease| lease.devices.iter().copied()).collect();
    let program = program(setup.program.clone()).await.map_err(CanaryError::NoProgram)?;
    let randomness = |error: String| CanaryError::Journal(format!("no randomness from the system: {error}"));
    let id = LeaseId::random().map_err(|e| randomness(e.to_string()))?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|e| randomness(e.to_string()))?;
    let mut random = StdRng::from_seed(seed);
    let limits = setup.limits;
    let (tasks, landlord, key): (Vec<Task>, Arc<dyn Landlord>, Option<PublicKey>) = match way {
        Way::Ours(mut tasks) => {
            tasks.retain(|task| !taken.contains(&task.device));
            let chosen = if all { (0..tasks.len()).collect() } else { some(&mut random, tasks.len()) };
            let tasks = chosen.into_iter().filter_map(|at| tasks.get(at).cloned()).collect();
            let least = [limits.login, limits.upload, limits.run, limits.verify, limits.allocate, SPARE].iter().sum();
            let lasts = lasts(&mut random, least, setup.longest);
            let image = setup.images.choose(&mut random).cloned().unwrap_or_default();
            (tasks, Arc::new(Manager::of(setup, lasts, image)), None)
        }
        // Such a miner rents its whole machine.
        Way::Original if !taken.is_empty() => return Err(CanaryError::NoDevice),
        Way::Original => {
            let peer = setup.peer(miner).map_err(|_| CanaryError::NoDevice)?;
            let made = tokio::task::spawn_blocking(RenterKey::generate).await;
            let made = made.map_err(|error| CanaryError::Journal(format!("no key was made: {error}")))?;
            let made = made.map_err(|error| CanaryError::Journal(format!("no key was made: {error}")))?;
            let key = made.public().clone();
            let landlord = Original::renting(setup.dendrite.clone(), peer, Arc::new(made), limits.allocate);
            (Vec::new(), Arc::new(landlord), Some(key))
        }
    };
    if tasks.is_empty() && key.is_none() {
        return Err(CanaryError::NoDevice);
    }
    let plan = Plan { id, miner, tasks };
    let (devices, begun_ms) = (plan.devices(), setup.clock.now_ms());
    let record = CanaryRecord { id, miner, devices, begun_ms, original: key.is_some() };
    write(setup, Record::Canary(record.clone(), key.clone())).await?;
    setup.metrics.canary_running(true);
    let (remote, verifiers) = (setup.remote.clone(), setup.verifiers.clone());
    let models = Arc::new(setup.models());
    let tools = Tools { landlord, remote, program, verifiers, models, witness: Arc::new(others) };
    let report = drive(&tools, &limits, &plan).await;
    Ok((end(setup, &record, report).await?, key))
}

/// The program that is uploaded.
async fn program(named: Option<PathBuf>) -> Result<Arc<[u8]>, String> {
    let path = match named {
        Some(path) => path,
        None => {
            let own = std::env::current_exe().map_err(|e| format!("this program does not find itself: {e}"))?;
            own.with_file_name("compute-prover")
        }
    };
    let of = |error: std::io::Error| format!("{}: {error}", path.display());
    let length = tokio::fs::metadata(&path).await.map_err(of)?.len();
    if length > MAX_PROGRAM {
        return Err(format!("{}: {length} bytes, at most {MAX_PROGRAM} are uploaded", path.display()));
    }
    tokio::fs::read(&path).await.map(Arc::from).map_err(of)
}

/// Rents through the validator's own manager.
struct Manager {
    allocations: Handle<AllocationManager>,
    limits: Limits,
    lasts: Duration,
    image: String,
}

impl Manager {
    fn of(setup: &CanaryRunnerSetup, lasts: Duration, image: String) -> Self {
        Manager { allocations: setup.allocations.clone(), limits: setup.limits, lasts, image }
    }
}

fn refused(error: RentError) -> Fault {
    let reason = match &error {
        RentError::Refused(_) => Reason::Refused,
        RentError::NoAnswer(_) => Reason::NoAnswer,
        RentError::NoneFree(_) | RentError::Draining(_) => Reason::NotFree,
        _ => Reason::OwnFault,
    };
    Fault::new(reason, error.to_string())
}

fn unasked(error: AskError) -> Fault {
    Fault::new(Reason::OwnFault, format!("allocation manager: {error}"))
}

#[async_trait]
impl Landlord for Manager {
    async fn rent(&self, plan: &Plan) -> Result<Rented, Fault> {
        let (login, ssh_key) = fresh_key()?;
        let (id, miner, devices) = (plan.id, plan.miner, plan.devices());
        let image = self.image.clone();
        let ask = RentCanary { id, miner, devices, duration: self.lasts, image, ssh_key };
        let lease = self.allocations.ask(ask, self.limits.allocate).await.map_err(unasked)?.map_err(refused)?;
        let endpoint = lease.endpoint.ok_or_else(|| Fault::new(Reason::OwnFault, "the lease has no address"))?;
        let host_key = lease.host_key.ok_or_else(|| Fault::new(Reason::NoHostKey, ""))?;
        let addr = std::net::SocketAddr::new(endpoint.host, endpoint.ssh_port);
        Ok(Rented { access: Access { addr, user: "root".to_owned(), login, host_key: Some(host_key) } })
    }

    async fn release(&self, id: LeaseId) -> Result<(), Fault> {
        match self.allocations.ask(Release(id), self.limits.release).await.map_err(unasked)? {
            Ok(_) | Err(RentError::UnknownLease) => Ok(()),
            Err(error) => Err(refused(error)),
        }
    }
}

impl Actor for CanaryRunner {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.setup.metrics.canary_running(false);
        self.setup.metrics.canaries_held(0);
        self.load(ctx);
    }
}

impl Supervised for CanaryRunner {
    const MESSAGES: &'static [&'static str] = &["NewBlock", "EpochJudged", "RunCanary"];
}

impl Handler<NewBlock> for CanaryRunner {
    type Result = ();
    fn handle(&mut self, NewBlock(view): NewBlock, ctx: &mut Ctx<Self>) {
        if !view.is_stored() {
            self.go_on(view.epoch(), ctx);
        }
    }
}

impl Handler<EpochJudged> for CanaryRunner {
    type Result = ();
    fn handle(&mut self, judged: EpochJudged, _: &mut Ctx<Self>) {
        if !judged.void {
            self.judged = Some(judged);
        }
    }
}

impl Handler<RunCanary> for CanaryRunner {
    type Result = ResponseActFuture<Self, Result<CanaryRow, CanaryError>>;
    fn handle(&mut self, RunCanary(miner): RunCanary, ctx: &mut Ctx<Self>) -> Self::Result {
        self.setup = self.live.get();
        let (answer, answered) = oneshot::channel();
        let refusal = match self.ways().remove(&miner) {
            _ if !self.loaded => CanaryError::Busy("canaries of an earlier run are not known yet"),
            _ if self.running.is_some() => CanaryError::Busy("another canary is under way"),
            _ if self.holds(&miner) => CanaryError::Busy("what an earlier canary rented there is being given back"),
            _ if self.setup.duty.borrow().refuses_leases().is_some() => {
                CanaryError::Busy("this node takes no new leases at present")
            }
            None => CanaryError::NoDevice,
            Some(way) => {
                self.begin(miner, way, true, Some(answer), ctx);
                let ended =
                    async move { answered.await.unwrap_or(Err(CanaryError::Busy("the canary was interrupted"))) };
                return Box::pin(ended.into_actor(self));
            }
        };
        Box::pin(async move { Err(refusal) }.into_actor(self))
    }
}

impl Handler<Inspect> for CanaryRunner {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "loaded": self.loaded,
            "held": self.held.values().map(|held| format!("{} at {}", held.record.id, held.record.miner)).collect::<Vec<_>>(),
            "running": self.running.map(|miner| miner.to_string()),
            "begun_in_epoch": self.begun,
            "known_miners": self.last.len(),
            "last_problem": self.last_problem,
        }))
    }
}
