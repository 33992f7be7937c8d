//! Answers challenges with provers, one for each device, and keeps the commitments until they are opened.
//!
//! Invariants: a validator is served in its own slot, once an epoch (`super::turn`); nothing is allocated before the
//! budget admits the challenge; one window is served at a time; a rented
//! device is never proved, and a proof under way ends when its device is rented (`rentals`); a commitment is opened only for the caller it was made for, and dropped (its prover with it)
//! when its deadline has passed, or when it was opened and another caller's challenge needs the memory; a challenge for
//! which there is no room costs its caller nothing.
//!
//! Design notes: proving takes seconds and runs in the prover's process; the actor only keeps the books. A prover that
//! crashes, hangs or writes garbage is a `ProverFailed` reply, which the validator judges as `Unknown`. GPUs are made ready before
//! a validator's turn (`readiness`). On restart the
//! kept commitments are gone with their provers; what was accepted is on record (`intents`), so a commitment that is
//! asked for within its time is made again, and the validator, which asks until its opening deadline, gets its bytes.
//! Proofs of memory are in `memory`; they share the budget, and so the window, with proofs of work.

mod intents;
mod memory;
mod readiness;
mod rentals;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actors::journal::Journal;
use crate::actors::miner::allocation_manager::AllocationManager;
use crate::actors::miner::specs_collector::SpecsCollector;
use crate::actors::miner::turn::{Asked, may_challenge};
use crate::clock::SharedClock;
use crate::ids::{ChallengeId, DeviceId, Epoch, Hotkey};
use crate::messages::chain_watcher::ChainView;
use crate::messages::miner::allocation_manager::RentedDevices;
use crate::messages::miner::challenge_runner::{Open, OpenError, Prove};
use crate::messages::miner::specs_collector::GetSpecs;
use crate::proof::budget::{self, Budget, BudgetLimits, Demand};
use crate::proof::prover::{Commitment, Prover, ProverError};
use crate::proof::{Challenge, Position, Work};
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::settings::Live;
use crate::telemetry::NodeMetrics;
use crate::verdict::UnknownCause;
use crate::wire::synapse::{ChallengeRefusal, ChallengeReply, ChallengeRequest, DeviceRoots, ProverFailure};
use intents::Intent;
use readiness::Readiness;

/// Most positions one opening may ask for; a validator asks for 66.
const MAX_POSITIONS: usize = 1024;
/// Most positions that one commitment is opened at, repeats included: a validator asks for the same 66, again while it
/// gets no answer.
const MAX_OPENED: usize = 16 * MAX_POSITIONS;
/// How long the miner's own actors may take to answer.
const ASK: Duration = Duration::from_secs(2);

/// What the runner works with.
pub struct ChallengeRunnerSetup {
    /// Our own key: it enters the proof's seed.
    pub hotkey: Hotkey,
    /// Makes the commitments.
    pub prover: Arc<dyn Prover>,
    /// What this machine is willing to spend.
    pub limits: BudgetLimits,
    /// How long a commitment is kept after its roots were sent.
    pub keep: Duration,
    /// How long memory may be filled, how long it waits for its scans, and how long those may take.
    pub fill_timeout: Duration,
    /// How long memory, or what was opened of it, is kept after its roots were sent.
    pub keep_memory: Duration,
    /// How long filled memory waits for its scans, if its slot is not over before.
    pub keep_ready: Duration,
    /// What this machine offers.
    pub specs: Handle<SpecsCollector>,
    /// What is rented.
    pub allocations: Handle<AllocationManager>,
    /// Which devices are rented, about to be, or set aside, as it changes.
    pub held: watch::Receiver<Vec<DeviceId>>,
    /// The chain as it is seen now: whose turn it is.
    pub view: watch::Receiver<Option<Arc<ChainView>>>,
    /// Keeps what was accepted.
    pub journal: Handle<Journal>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

struct Kept {
    work: Work,
    /// Memory of this machine that it holds, in bytes.
    host_bytes: u64,
    until: Instant,
    /// Positions asked for so far.
    opened: usize,
    /// `None` while an opening is being made, or the commitment itself is made again.
    commitment: Option<Box<dyn Commitment>>,
}

impl Kept {
    /// It was opened, and is not being opened now.
    fn is_opened(&self) -> bool {
        self.opened > 0 && self.commitment.is_some()
    }
}

/// The actor.
pub struct ChallengeRunner {
    /// What it works with, as the settings have it now.
    live: Live<Arc<ChallengeRunnerSetup>>,
    setup: Arc<ChallengeRunnerSetup>,
    budget: Budget,
    /// By caller: nobody reaches, or replaces, another's.
    kept: HashMap<(Hotkey, ChallengeId, DeviceId), Kept>,
    /// The last epoch for which a validator had its roots: it has one challenge an epoch.
    answered: HashMap<Hotkey, Epoch>,
    /// The proof of memory that is under way.
    memory: Option<memory::Held>,
    /// The proof of memory that a rental ended last, by one of its devices.
    ousted: Option<(Hotkey, ChallengeId, DeviceId)>,
    /// The last epoch for which a validator had memory filled.
    filled: HashMap<Hotkey, Epoch>,
    proofs: u64,
    refusals: u64,
    readiness: Readiness,
}

impl ChallengeRunner {
    /// A runner with an unspent budget.
    pub fn new(live: Live<Arc<ChallengeRunnerSetup>>) -> Self {
        let setup = live.get();
        let budget = Budget::new(setup.limits);
        ChallengeRunner {
            live,
            setup,
            budget,
            kept: HashMap::new(),
            answered: HashMap::new(),
            memory: None,
            ousted: None,
            filled: HashMap::new(),
            proofs: 0,
            refusals: 0,
            readiness: Readiness::default(),
        }
    }

    fn drop_expired(&mut self) {
        let now = Instant::now();
        self.kept.retain(|_, k| k.until > now);
    }

    /// Whether it is this caller's turn, and its first challenge of the epoch.
    fn admit(&mut self, caller: Hotkey, epoch: Epoch) -> Result<(), ChallengeReply> {
        may_challenge(self.setup.view.borrow().as_deref(), &caller, epoch, Asked::Work)?;
        // Callers are validators that were admitted, and older epochs are no use: the map stays small.
        self.answered.retain(|_, answered| *answered >= epoch);
        if self.answered.get(&caller) == Some(&epoch) {
            let detail = format!("the roots of this validator's challenge of epoch {epoch} were sent");
            return Err(refused(ChallengeRefusal::AlreadyChallenged, detail));
        }
        Ok(())
    }

    /// Makes room for a challenge; if there is none, says until when the caller has to wait. A caller's earlier commitments
    /// make room for its new ones: it has one challenge at a time. Another's make room once they were opened, the first to
    /// expire first: their validator has what it asked for, and if the answer was lost they are made again.
    fn make_room(&mut self, caller: Hotkey, bytes: u64) -> Result<(), ChallengeReply> {
        self.drop_expired();
        self.kept.retain(|(of, _, _), _| *of != caller);
        let over = self.memory_over(bytes);
        let mut opened: Vec<_> =
            self.kept.iter().filter(|(_, k)| k.is_opened()).map(|(key, k)| (k.until, *key, k.host_bytes)).collect();
        opened.sort_unstable_by_key(|(until, key, _)| (*until, *key));
        let mut freed = 0u64;
        opened.retain(|(_, _, bytes)| {
            let needed = freed < over;
            freed = freed.saturating_add(if needed { *bytes } else { 0 });
            needed
        });
        // Where even that is not enough, nothing is lost for nothing.
        if freed >= over {
            opened.iter().for_each(|(_, key, _)| drop(self.kept.remove(key)));
        }
        self.room(bytes)
    }

    /// How many of these bytes, with what is kept and held, are above the limit.
    fn memory_over(&self, bytes: u64) -> u64 {
        let kept = self.kept.values().map(|k| k.host_bytes);
        let all = kept.chain([self.memory_held(), bytes]).fold(0, u64::saturating_add);
        all.saturating_sub(self.setup.limits.memory_bytes)
    }

    /// Whether there is room for so many bytes beside what is kept.
    fn room(&self, bytes: u64) -> Result<(), ChallengeReply> {
        match self.kept.values().map(|k| k.until).min() {
            Some(first) if self.memory_over(bytes) > 0 => {
                let wait = first.saturating_duration_since(Instant::now()).as_millis() as u64;
                Err(ChallengeReply::Busy { until_ms: self.setup.clock.now_ms().saturating_add(wait) })
            }
            _ => Ok(()),
        }
    }
}

impl ChallengeRunner {
    /// A commitment that is not kept: if its challenge is on record and has time, it is made again, with those of the
    /// challenge's other devices. Whoever asked is told to ask again.
    fn resume(&mut self, key: (Hotkey, ChallengeId, DeviceId)) -> ResponseActFuture<Self, Result<Vec<u8>, OpenError>> {
        let (caller, challenge, _) = key;
        let journal = self.setup.journal.clone();
        let known = async move { intents::last(&journal, caller).await };
        Box::pin(known.into_actor(self).map(move |runs, act, ctx: &mut Ctx<Self>| {
            if act.kept.contains_key(&key) {
                return Err(OpenError::Busy);
            }
            let (now, keep) = (act.setup.clock.now_ms(), act.setup.keep);
            let runs = runs.map_err(OpenError::NotAgain)?;
            let found = intents::resumable(&runs, challenge, act.setup.hotkey, now, keep);
            let (jobs, left) =
                found.filter(|(jobs, _)| jobs.iter().any(|j| j.device == key.2)).ok_or(OpenError::Unknown)?;
            act.commit_again(caller, challenge, jobs, left, ctx)?;
            Err(OpenError::Busy)
        }))
    }

    fn commit_again(
        &mut self,
        caller: Hotkey,
        challenge: ChallengeId,
        mut jobs: Vec<Challenge>,
        left: Duration,
        ctx: &mut Ctx<Self>,
    ) -> Result<(), OpenError> {
        self.drop_expired();
        jobs.retain(|j| !self.kept.contains_key(&(caller, challenge, j.device)));
        let demands = demands(self.setup.prover.as_ref(), &jobs);
        let now = self.setup.clock.now_ms();
        let ticket = match self.budget.admit(now, caller, &demands) {
            Ok(ticket) => ticket,
            Err(budget::Refusal::Busy { .. }) => return Err(OpenError::Busy),
            Err(refusal) => return Err(OpenError::NotAgain(refusal.to_string())),
        };
        if self.room(host_bytes(&demands)).is_err() {
            self.budget.withdraw(ticket);
            return Err(OpenError::Busy);
        }
        tracing::info!(%challenge, devices = jobs.len(), "the commitments of a challenge are made again");
        let until = Instant::now() + left;
        for (job, Demand { host_bytes, .. }) in jobs.iter().zip(demands) {
            let kept = Kept { work: job.work, host_bytes, until, opened: 0, commitment: None };
            self.kept.insert((caller, challenge, job.device), kept);
        }
        let (setup, begun) = (self.setup.clone(), Instant::now());
        let work = async move {
            check(&setup, needed(setup.prover.as_ref(), &jobs)).await.map_err(|reply| format!("{reply:?}"))?;
            Ok(commit(&setup, &jobs).await)
        };
        ctx.spawn(work.into_actor(self).map(move |made: Result<Proved, String>, act, _| {
            act.budget.finish(ticket, act.setup.clock.now_ms());
            let problem = match made {
                Ok(proved) => {
                    for (device, _, made) in proved {
                        let outcome = made.as_ref().err().map_or("ok", |e| e.cause().label());
                        act.setup.metrics.prover_run(outcome, begun.elapsed());
                        match (made, act.kept.get_mut(&(caller, challenge, device))) {
                            (Ok(commitment), Some(kept)) => kept.commitment = Some(commitment),
                            (Ok(_), None) => {}
                            (Err(error), _) => {
                                tracing::warn!(%device, error = crate::telemetry::error_chain(&error), "the prover failed");
                                act.kept.remove(&(caller, challenge, device));
                            }
                        }
                    }
                    return;
                }
                Err(problem) => problem,
            };
            tracing::warn!(%challenge, problem, "the commitments are not made again");
            act.kept.retain(|(of, id, _), _| (*of, *id) != (caller, challenge));
        }));
        Ok(())
    }
}

/// The memory of this machine that the provers need together.
fn host_bytes(demands: &[Demand]) -> u64 {
    demands.iter().map(|demand| demand.host_bytes).fold(0, u64::saturating_add)
}

fn refused(reason: ChallengeRefusal, detail: impl Into<String>) -> ChallengeReply {
    ChallengeReply::Refused { reason, detail: detail.into() }
}

fn taken(device: DeviceId) -> ChallengeReply {
    refused(ChallengeRefusal::Rented, format!("{device} is rented and is not disturbed"))
}

/// The reply to a challenge that the budget does not admit.
fn unaffordable(refusal: &budget::Refusal) -> ChallengeReply {
    match refusal {
        budget::Refusal::Busy { until_ms } => ChallengeReply::Busy { until_ms: *until_ms },
        budget::Refusal::Budget(reason) => refused(ChallengeRefusal::Budget, reason.to_string()),
    }
}

/// What the validator is told of a prover's failure.
fn failure(error: &ProverError) -> ProverFailure {
    match error.cause() {
        UnknownCause::ProverHung => ProverFailure::Hung,
        UnknownCause::ProverGarbage => ProverFailure::Garbage,
        UnknownCause::ProverCrashed => ProverFailure::Crashed,
        UnknownCause::DeviceFailed => ProverFailure::Device,
        _ => ProverFailure::Other,
    }
}

/// The challenge of each device, or why the request is not valid.
fn challenges(hotkey: Hotkey, request: &ChallengeRequest) -> Result<Vec<Challenge>, String> {
    let mut seen = std::collections::HashSet::new();
    if request.devices.is_empty() {
        return Err("no device asked".into());
    }
    request
        .devices
        .iter()
        .map(|d| {
            if !seen.insert(d.device) {
                return Err(format!("{} asked twice", d.device));
            }
            let work = Work::new(d.n, d.k, d.rounds).map_err(|e| format!("{}: {e}", d.device))?;
            Ok(Challenge { nonce: request.nonce.0, epoch: request.epoch, hotkey, device: d.device, work })
        })
        .collect()
}

/// What each of the jobs needs.
fn demands(prover: &dyn Prover, jobs: &[Challenge]) -> Vec<Demand> {
    needed(prover, jobs).map(|(_, demand)| demand).collect()
}

fn needed(prover: &dyn Prover, jobs: &[Challenge]) -> impl Iterator<Item = (DeviceId, Demand)> {
    jobs.iter().map(|job| (job.device, prover.needs(job.device, &job.work)))
}

type Proved = Vec<(DeviceId, Work, Result<Box<dyn Commitment>, ProverError>)>;

/// Checks by what the own actors know that these devices are offered, not rented, and have the memory that is needed.
async fn check(
    setup: &ChallengeRunnerSetup,
    asked: impl IntoIterator<Item = (DeviceId, Demand)>,
) -> Result<(), ChallengeReply> {
    let specs = setup.specs.ask(GetSpecs, ASK).await;
    let rented = setup.allocations.ask(RentedDevices, ASK).await;
    let (Ok(specs), Ok(rented)) = (specs, rented) else {
        return Err(refused(ChallengeRefusal::Draining, "the miner does not know its own devices yet"));
    };
    for (device, demand) in asked {
        let Some(offered) = specs.specs.devices.iter().find(|d| d.device == device) else {
            return Err(refused(ChallengeRefusal::NoDevice, format!("{device} is not offered here")));
        };
        if rented.iter().any(|(rented, _)| *rented == device) {
            return Err(taken(device));
        }
        demand.fits(offered.memory_bytes).map_err(|reason| unaffordable(&budget::Refusal::Budget(reason)))?;
    }
    Ok(())
}

/// Lets every device prove at once. A device that is rented meanwhile is given up, and its prover with it.
async fn commit(setup: &ChallengeRunnerSetup, jobs: &[Challenge]) -> Proved {
    let one = async |job: &Challenge| {
        let made = tokio::select! {
            made = setup.prover.commit(job) => made,
            () = rentals::taken(setup.held.clone(), job.device) => Err(ProverError::Refused("it is rented".to_owned())),
        };
        (job.device, job.work, made)
    };
    join_all(jobs.iter().map(one)).await
}

/// A challenge, from the checks to the roots. The intent is written while the provers work.
async fn prove(
    setup: Arc<ChallengeRunnerSetup>,
    intent: Intent,
    jobs: Vec<Challenge>,
) -> Result<Proved, ChallengeReply> {
    check(&setup, needed(setup.prover.as_ref(), &jobs)).await?;
    let begun = Instant::now();
    let proofs = async {
        let proved = commit(&setup, &jobs).await;
        (proved, begun.elapsed())
    };
    let ((proved, elapsed), ()) = tokio::join!(proofs, intent.record(&setup.journal, &jobs));
    intent.ended(&setup.journal, &jobs, &proved, elapsed);
    Ok(proved)
}

impl Actor for ChallengeRunner {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        ctx.run_interval(Duration::from_secs(1), |act, _| act.drop_expired());
        ctx.run_interval(readiness::PERIOD, Self::see_to_readiness);
        ctx.run_interval(memory::LOOK, |act, _| act.look_after_memory());
        self.follow_rentals(self.setup.held.clone(), ctx);
    }
}

impl Supervised for ChallengeRunner {
    const MESSAGES: &'static [&'static str] = &["Prove", "Open", "FillMemory", "ScanMemory", "OpenMemory"];
}

impl Handler<Prove> for ChallengeRunner {
    type Result = ResponseActFuture<Self, ChallengeReply>;
    fn handle(&mut self, Prove { caller, request }: Prove, _: &mut Ctx<Self>) -> Self::Result {
        self.setup = self.live.get();
        self.budget.set_limits(self.setup.limits);
        self.look_after_memory();
        if let Err(reply) = self.admit(caller, request.epoch) {
            self.refusals += 1;
            return Box::pin(async move { reply }.into_actor(self));
        }
        let setup = self.setup.clone();
        let jobs = match challenges(setup.hotkey, &request) {
            Ok(jobs) => jobs,
            Err(detail) => {
                self.refusals += 1;
                return Box::pin(async move { refused(ChallengeRefusal::Invalid, detail) }.into_actor(self));
            }
        };
        self.goes_on(caller, request.epoch);
        let named: Vec<DeviceId> = jobs.iter().map(|job| job.device).collect();
        let demands = demands(setup.prover.as_ref(), &jobs);
        let ticket = match self.budget.admit(setup.clock.now_ms(), caller, &demands) {
            Ok(ticket) => ticket,
            Err(refusal) => {
                self.refusals += 1;
                let reply = unaffordable(&refusal);
                return Box::pin(async move { reply }.into_actor(self));
            }
        };
        if let Err(busy) = self.make_room(caller, host_bytes(&demands)) {
            self.refusals += 1;
            self.budget.withdraw(ticket);
            return Box::pin(async move { busy }.into_actor(self));
        }
        let begun = Instant::now();
        let intent = Intent { validator: caller, challenge: request.challenge, at_ms: setup.clock.now_ms() };
        let fut = prove(setup, intent, jobs).into_actor(self).map(move |proved, act, _| {
            act.budget.finish(ticket, act.setup.clock.now_ms());
            let proved = match proved {
                Ok(proved) => proved,
                Err(reply) => return reply,
            };
            // They were found to be offered.
            act.readiness.asked(named.into_iter());
            let mut devices = Vec::with_capacity(proved.len());
            let until = Instant::now() + act.setup.keep;
            for ((device, work, made), Demand { host_bytes, .. }) in proved.into_iter().zip(demands) {
                act.setup.metrics.prover_run(made.as_ref().err().map_or("ok", |e| e.cause().label()), begun.elapsed());
                match made {
                    Ok(commitment) => {
                        devices.push(DeviceRoots { device, roots: commitment.roots().to_vec() });
                        let kept = Kept { work, host_bytes, until, opened: 0, commitment: Some(commitment) };
                        act.kept.insert((caller, request.challenge, device), kept);
                    }
                    Err(error) => {
                        tracing::warn!(%device, error = crate::telemetry::error_chain(&error), "the prover failed");
                        let detail = error.to_string();
                        // Without roots nobody will ask for openings of the other devices.
                        act.kept.retain(|(of, challenge, _), _| (*of, *challenge) != (caller, request.challenge));
                        if act.setup.held.borrow().contains(&device) {
                            return taken(device);
                        }
                        return ChallengeReply::ProverFailed { device, kind: failure(&error), detail };
                    }
                }
            }
            act.proofs += 1;
            act.answered.insert(caller, request.epoch);
            ChallengeReply::Roots { devices }
        });
        Box::pin(fut)
    }
}

impl Handler<Open> for ChallengeRunner {
    type Result = ResponseActFuture<Self, Result<Vec<u8>, OpenError>>;
    fn handle(&mut self, Open { caller, request }: Open, _: &mut Ctx<Self>) -> Self::Result {
        let key = (caller, request.challenge, request.device);
        let taken = match self.kept.get_mut(&key) {
            Some(kept) if kept.opened.saturating_add(request.positions.len()) > MAX_OPENED => {
                Err(OpenError::Positions(format!("a commitment is opened at {MAX_OPENED} positions at most")))
            }
            Some(kept) => positions(&kept.work, &request.positions).and_then(|p| {
                let commitment = kept.commitment.take().ok_or(OpenError::Busy)?;
                kept.opened += p.len();
                Ok((commitment, p))
            }),
            None => return self.resume(key),
        };
        let (mut commitment, positions) = match taken {
            Ok(taken) => taken,
            Err(error) => return Box::pin(async move { Err(error) }.into_actor(self)),
        };
        let work = async move {
            let opened = commitment.open(&positions).await;
            (commitment, opened)
        };
        Box::pin(work.into_actor(self).map(move |(commitment, opened), act, _| match opened {
            Ok(bytes) => {
                if let Some(kept) = act.kept.get_mut(&key) {
                    kept.commitment = Some(commitment);
                }
                Ok(bytes)
            }
            Err(error) => {
                act.kept.remove(&key);
                Err(OpenError::Prover(error.to_string()))
            }
        }))
    }
}

fn positions(work: &Work, asked: &[[u32; 3]]) -> Result<Vec<Position>, OpenError> {
    if asked.is_empty() || asked.len() > MAX_POSITIONS {
        return Err(OpenError::Positions(format!("{} positions, from 1 to {MAX_POSITIONS} are served", asked.len())));
    }
    asked
        .iter()
        .map(|&[round, row, col]| {
            if round < work.rounds && row < work.n && col < work.n {
                Ok(Position { round, row, col })
            } else {
                Err(OpenError::Positions(format!("({round}, {row}, {col}) is outside the challenge")))
            }
        })
        .collect()
}

impl Handler<Inspect> for ChallengeRunner {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "commitments_kept": self.kept.len(), "memory_held": self.memory_held(), "proofs": self.proofs,
            "refusals": self.refusals, "devices": self.readiness.shown(),
        }))
    }
}
