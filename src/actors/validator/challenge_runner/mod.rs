//! Runs one challenge round an epoch: asks every admitted miner at once (batch by batch, if there are more), verifies, records the verdicts, tells the rest.
//!
//! Invariants: one round an epoch, and one challenge per device and epoch, also across a restart (verdicts of the
//! epoch in the journal count as its round); a round's verdicts are stored before anybody hears of them; every device
//! that was planned gets exactly one verdict.
//!
//! Design notes: a reconciler. A new block is the nudge; what is to be done follows from the epoch alone. The round
//! itself is a plain async function, [`round::judge_all`], over [`plan::plan`], which is pure; the past comes in through
//! [`DeviceHistory`]. On restart the histories are rebuilt from the journal's verdicts.

pub mod plan;
pub mod round;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use crate::actors::Subscriber;
use crate::actors::blacklist_guard::BlacklistGuard;
use crate::actors::journal::Journal;
use crate::actors::validator::allocation_manager::AllocationManager;
use crate::actors::validator::lacks_permit;
use crate::actors::validator::specs_collector::SpecsCollector;
use crate::clock::SharedClock;
use crate::ids::{BlockNumber, DeviceId, Epoch, Hotkey};
use crate::messages::blacklist_guard::AdmitMiners;
use crate::messages::chain_watcher::{ChainView, NewBlock};
use crate::messages::journal::{RecentVerdicts, Write};
use crate::messages::validator::allocation_manager::LeasedDevices;
use crate::messages::validator::challenge_runner::{EpochJudged, LastJudged, MinerJudgement};
use crate::messages::validator::specs_collector::{CollectSpecs, Target};
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::scoring::{DeviceHistory, HistoryRules, ScoreTable};
use crate::store::Record;
use crate::store::records::VerdictRecord;
use crate::telemetry::events::ChallengeJudged;
use crate::telemetry::{NodeMetrics, error_chain};
use crate::verdict::Verdict;
use crate::wire::dendrite::Dendrite;

use plan::{PlannedMiner, Task, WorkTable};
use round::Finding;

/// How long the validator's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Epochs of verdicts that are read back at the start.
const REMEMBER_EPOCHS: u64 = 64;
/// Epochs after which a device without a verdict is forgotten.
const FORGET_EPOCHS: u64 = 64;

/// What the runner works with.
pub struct ChallengeRunnerSetup {
    /// Our own key.
    pub hotkey: Hotkey,
    /// Signs and sends the challenges.
    pub dendrite: Dendrite,
    /// The models and their rates.
    pub table: Arc<ScoreTable>,
    /// The work asked of each model.
    pub works: Arc<WorkTable>,
    /// How a challenge is run.
    pub rules: round::Rules,
    /// How verdicts hold over time.
    pub history: HistoryRules,
    /// Whether nobody is challenged without a validator permit.
    pub require_permit: bool,
    /// Whether miners are asked for their specs; if not, no device is known.
    pub ask_specs: bool,
    /// Longest a round of specs may take: batches × deadline.
    pub specs_deadline: Duration,
    /// Who may be asked.
    pub guard: Handle<BlacklistGuard>,
    /// What they offer.
    pub specs: Handle<SpecsCollector>,
    /// What is leased.
    pub allocations: Handle<AllocationManager>,
    /// Keeps the verdicts.
    pub journal: Handle<Journal>,
    /// Who hears of a judged epoch.
    pub on_judged: Vec<Subscriber<EpochJudged>>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// What a history is kept of: a device, or (`None`) a miner whose devices are not known.
type Judged = (Hotkey, Option<DeviceId>);

/// A round whose verdicts are decided but not yet on disk.
struct Unwritten {
    judged: EpochJudged,
    records: Vec<VerdictRecord>,
}

/// The actor.
pub struct ChallengeRunner {
    setup: Arc<ChallengeRunnerSetup>,
    /// `None` until the journal has told.
    histories: Option<HashMap<Judged, DeviceHistory>>,
    last_epoch: Option<Epoch>,
    running: Option<Epoch>,
    unwritten: Option<Unwritten>,
    last: Option<EpochJudged>,
    last_problem: Option<String>,
}

impl ChallengeRunner {
    /// A runner that remembers nothing yet.
    pub fn new(setup: Arc<ChallengeRunnerSetup>) -> Self {
        ChallengeRunner {
            setup,
            histories: None,
            last_epoch: None,
            running: None,
            unwritten: None,
            last: None,
            last_problem: None,
        }
    }

    /// Asks the journal what was judged before; nothing runs until that is known.
    fn remember(&mut self, ctx: &mut Ctx<Self>) {
        let journal = self.setup.journal.clone();
        let load = async move { journal.ask(RecentVerdicts(REMEMBER_EPOCHS), ASK).await };
        ctx.spawn(load.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok(Ok(past)) => {
                let mut histories: HashMap<Judged, DeviceHistory> = HashMap::new();
                for v in past {
                    act.last_epoch = act.last_epoch.max(Some(v.epoch));
                    let history = histories.entry((v.hotkey, v.device)).or_default();
                    history.record(v.epoch, v.at_ms, v.verdict, &act.setup.history);
                }
                act.histories = Some(histories);
            }
            failed => {
                tracing::warn!(?failed, "the journal does not say what was judged, asking again");
                ctx.run_later(Duration::from_secs(1), |act, ctx| act.remember(ctx));
            }
        }));
    }

    fn on_block(&mut self, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        let epoch = view.epoch();
        if let Some(last) = &self.last {
            // Told again with every block: who was away when the epoch was judged, or failed in it, hears of it now.
            Subscriber::publish(&self.setup.on_judged, last);
        }
        if self.running.is_some() || self.histories.is_none() {
            return;
        }
        if let Some(unwritten) = self.unwritten.take() {
            self.write(unwritten, ctx);
            return;
        }
        if let Some(last) = self.last_epoch.filter(|last| *last >= epoch) {
            if last > epoch + 1 && self.last_problem.is_none() {
                let problem = format!("epoch {last} is judged already, but the chain is in epoch {epoch}");
                tracing::error!(problem, "nothing is judged: this data directory belongs to another chain");
                self.last_problem = Some(problem);
            }
            return;
        }
        if let Some(problem) = lacks_permit(&view, &self.setup.hotkey).filter(|_| self.setup.require_permit) {
            if self.last_problem.as_deref() != Some(problem) {
                tracing::warn!(epoch, problem, "nobody is challenged");
                self.last_problem = Some(problem.to_owned());
            }
            return;
        }
        self.running = Some(epoch);
        let begun = Instant::now();
        let block = view.metagraph.head.number;
        let work = run(self.setup.clone(), view);
        ctx.spawn(work.into_actor(self).map(move |done, act, ctx| {
            act.running = None;
            match done {
                Ok(Some(found)) => {
                    act.setup.metrics.challenge_stage("round", begun.elapsed());
                    let unwritten = act.judge(epoch, block, found);
                    act.write(unwritten, ctx);
                }
                Ok(None) => {}
                Err(problem) => {
                    tracing::warn!(epoch, problem, "the round was not run, trying again with the next block");
                    act.last_problem = Some(problem);
                }
            }
        }));
    }

    /// Takes the past into account: the verdicts as they count, and what each device brings to the score.
    fn judge(&mut self, epoch: Epoch, block: BlockNumber, found: Vec<Finding>) -> Unwritten {
        let at_ms = self.setup.clock.now_ms();
        let rules = &self.setup.history;
        let histories = self.histories.get_or_insert_with(HashMap::new);
        let mut records = Vec::new();
        let mut miners = Vec::with_capacity(found.len());
        for Finding { plan, verdicts } in found {
            let mut record = |device: Option<DeviceId>, model: &str, verdict: Verdict| {
                let history = histories.entry((plan.hotkey, device)).or_default();
                let verdict = history.record(epoch, at_ms, verdict, rules);
                records.push(VerdictRecord {
                    epoch,
                    uid: plan.uid,
                    hotkey: plan.hotkey,
                    device,
                    model: model.to_owned(),
                    verdict: verdict.clone(),
                    block,
                    at_ms,
                });
                verdict
            };
            let whole = plan.whole.map(|verdict| record(None, "", verdict));
            for (device, verdict) in plan.devices.iter().zip(verdicts) {
                if let Some(verdict) = verdict {
                    record(Some(device.device), &device.model, verdict);
                }
            }
            let devices = plan
                .devices
                .iter()
                .map(|d| {
                    let history = histories.entry((plan.hotkey, Some(d.device))).or_default();
                    let leased = d.task == Task::Leased;
                    history.judgement(d.device, &d.model, epoch, at_ms, leased, rules)
                })
                .collect();
            let PlannedMiner { uid, hotkey, coldkey, refused, .. } = plan;
            miners.push(MinerJudgement { uid, hotkey, coldkey, refused, whole, devices });
        }
        // Histories of those who are gone for good are forgotten, so that the map stays bounded.
        histories.retain(|_, h| h.latest().is_some_and(|(e, _)| e + FORGET_EPOCHS > epoch));
        Unwritten { judged: EpochJudged { epoch, block, miners: Arc::new(miners) }, records }
    }

    /// Stores the verdicts, then tells everybody.
    fn write(&mut self, unwritten: Unwritten, ctx: &mut Ctx<Self>) {
        let epoch = unwritten.judged.epoch;
        self.running = Some(epoch);
        let journal = self.setup.journal.clone();
        let batch = unwritten.records.iter().cloned().map(Record::Verdict).collect();
        let work = async move { journal.ask(Write(batch), ASK).await };
        ctx.spawn(work.into_actor(self).map(move |written, act, _| {
            act.running = None;
            let problem = match written {
                Ok(Ok(())) => return act.written(unwritten),
                Ok(Err(error)) => error_chain(&error),
                Err(error) => error.to_string(),
            };
            tracing::warn!(epoch, problem, "the verdicts are not stored yet, trying again with the next block");
            act.last_problem = Some(format!("journal: {problem}"));
            act.unwritten = Some(unwritten);
        }));
    }

    fn written(&mut self, Unwritten { judged, records }: Unwritten) {
        self.last_epoch = Some(judged.epoch);
        self.last_problem = None;
        for record in &records {
            let VerdictRecord { epoch, uid, hotkey, device, verdict, .. } = record;
            ChallengeJudged { epoch: *epoch, uid: *uid, hotkey: *hotkey, device: *device, verdict }
                .emit(&self.setup.metrics);
        }
        Subscriber::publish(&self.setup.on_judged, &judged);
        self.last = Some(judged);
    }
}

/// One round: who, what, the proofs. `None` if there is nobody to ask yet.
async fn run(setup: Arc<ChallengeRunnerSetup>, view: Arc<ChainView>) -> Result<Option<Vec<Finding>>, String> {
    let admitted = setup.guard.ask(AdmitMiners, ASK).await.map_err(|e| format!("blacklist guard: {e}"))?;
    if admitted.iter().all(|(_, _, admitted)| admitted.is_err()) {
        return Ok(None);
    }
    let leased = setup.allocations.ask(LeasedDevices, ASK).await.map_err(|e| format!("allocation manager: {e}"))?;
    let targets: Vec<Target> = admitted
        .iter()
        .filter(|(_, _, admitted)| admitted.is_ok())
        .filter_map(|(_, hotkey, _)| {
            let address = view.metagraph.axon_address(hotkey)?;
            Some(Target { hotkey: *hotkey, address })
        })
        .collect();
    let specs = if setup.ask_specs {
        let ask = CollectSpecs { targets, block: view.metagraph.head.number };
        setup.specs.ask(ask, setup.specs_deadline).await.map_err(|e| format!("specs collector: {e}"))?
    } else {
        HashMap::new()
    };
    let plans = plan::plan(&view.metagraph, &admitted, &specs, &leased, &setup.table, &setup.works);
    Ok(Some(round::judge_all(&setup, view.epoch(), plans).await))
}

impl Actor for ChallengeRunner {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.remember(ctx);
    }
}

impl Supervised for ChallengeRunner {
    const MESSAGES: &'static [&'static str] = &["NewBlock", "LastJudged"];
}

impl Handler<NewBlock> for ChallengeRunner {
    type Result = ();
    fn handle(&mut self, NewBlock(view): NewBlock, ctx: &mut Ctx<Self>) {
        self.on_block(view, ctx);
    }
}

impl Handler<LastJudged> for ChallengeRunner {
    type Result = MessageResult<LastJudged>;
    fn handle(&mut self, _: LastJudged, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.last.clone())
    }
}

impl Handler<Inspect> for ChallengeRunner {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        let verdicts = self.last.as_ref().map(|judged| {
            let mut counts: HashMap<&'static str, u32> = HashMap::new();
            for device in judged.miners.iter().flat_map(|m| &m.devices) {
                *counts.entry(device.verdict.kind()).or_default() += 1;
            }
            counts
        });
        MessageResult(serde_json::json!({
            "histories": self.histories.as_ref().map(HashMap::len),
            "running_epoch": self.running,
            "last_epoch": self.last_epoch,
            "last_verdicts": verdicts,
            "last_problem": self.last_problem,
        }))
    }
}
