//! Runs one challenge round an epoch: asks every admitted miner at once (batch by batch, if there are more), verifies, records the verdicts, tells the rest.
//!
//! Invariants: one round an epoch, and one challenge per device and epoch, also across a restart (verdicts of the
//! epoch in the journal count as its round); a round's verdicts are stored before anybody hears of them; every device
//! that was planned gets exactly one verdict.
//!
//! Design notes: a reconciler. A new block is the nudge; what is to be done follows from the epoch alone. The round
//! itself is a plain async function, [`round::judge_all`], over [`plan::plan`], which is pure; the past comes in through
//! [`Judge`], which is pure too. It is stored with the verdicts of each epoch, so that a restart changes nothing.

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
use crate::ids::{BlockNumber, Epoch, Hotkey};
use crate::messages::blacklist_guard::{AdmitMiners, Penalise};
use crate::messages::chain_watcher::{ChainView, NewBlock};
use crate::messages::journal::{PastJudgements, RecentVerdicts, Write};
use crate::messages::validator::allocation_manager::LeasedDevices;
use crate::messages::validator::challenge_runner::{EpochJudged, LastJudged};
use crate::messages::validator::specs_collector::{CollectSpecs, Target};
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::scoring::{Counted, DuePenalty, HistoryRules, Judge, Judged, MinerFinding, ScoreTable};
use crate::store::Record;
use crate::store::records::{JudgeRecord, PenaltyRecord, VerdictRecord};
use crate::telemetry::events::ChallengeJudged;
use crate::telemetry::{NodeMetrics, error_chain};
use crate::wire::dendrite::Dendrite;

use plan::WorkTable;
use round::Finding;

/// How long the validator's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Epochs of verdicts that are read back at the start.
const REMEMBER_EPOCHS: u64 = 64;

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

/// A round whose verdicts are decided but not yet on disk.
struct Unwritten {
    judged: EpochJudged,
    records: Vec<VerdictRecord>,
    penalties: Vec<DuePenalty>,
    /// The judge as it is once they are.
    judge: JudgeRecord,
}

/// The actor.
pub struct ChallengeRunner {
    setup: Arc<ChallengeRunnerSetup>,
    /// `None` until the journal has told.
    judge: Option<Judge>,
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
            judge: None,
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
                act.last_epoch = past.verdicts.iter().map(|v| v.epoch).max();
                act.judge = Some(recollect(&act.setup, past));
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
        if self.running.is_some() || self.judge.is_none() {
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
        let judge = self.judge.get_or_insert_with(|| Judge::new(self.setup.history.clone()));
        let findings: Vec<MinerFinding> = found.into_iter().map(MinerFinding::from).collect();
        let Judged { miners, counted, penalties, void } = judge.judge(epoch, at_ms, &self.setup.table, &findings);
        if let Some(why) = &void {
            tracing::warn!(epoch, why, "the epoch is void: nobody is judged, no weights are made of it");
        }
        let record = |Counted { uid, hotkey, device, model, verdict }| VerdictRecord {
            epoch,
            uid,
            hotkey,
            device,
            model,
            verdict,
            block,
            at_ms,
        };
        let records = counted.into_iter().map(record).collect();
        let judged = EpochJudged { epoch, block, miners: Arc::new(miners), void: void.is_some() };
        // A judge holds numbers and texts only, which are always JSON.
        let json = serde_json::to_string(judge).unwrap_or_default();
        Unwritten { judged, records, penalties, judge: JudgeRecord { epoch, json, at_ms } }
    }

    /// Stores the verdicts, then tells everybody.
    fn write(&mut self, unwritten: Unwritten, ctx: &mut Ctx<Self>) {
        let epoch = unwritten.judged.epoch;
        self.running = Some(epoch);
        let journal = self.setup.journal.clone();
        let penalty = |due: &DuePenalty| {
            let DuePenalty { hotkey, reason, detail, from_ms, until_ms } = due.clone();
            Record::Penalty(PenaltyRecord { hotkey, reason, detail, from_ms, until_ms })
        };
        let verdicts = unwritten.records.iter().cloned().map(Record::Verdict);
        let judge = Record::Judge(unwritten.judge.clone());
        let batch = verdicts.chain(unwritten.penalties.iter().map(penalty)).chain([judge]).collect();
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

    fn written(&mut self, Unwritten { judged, records, penalties, .. }: Unwritten) {
        self.last_epoch = Some(judged.epoch);
        self.last_problem = None;
        for record in &records {
            let VerdictRecord { epoch, uid, hotkey, device, verdict, .. } = record;
            ChallengeJudged { epoch: *epoch, uid: *uid, hotkey: *hotkey, device: *device, verdict }
                .emit(&self.setup.metrics);
        }
        for due in penalties {
            let hotkey = due.hotkey;
            if let Err(error) = self.setup.guard.tell(Penalise(due)) {
                tracing::warn!(%hotkey, %error, "the guard does not hear of a penalty before its next start");
            }
        }
        Subscriber::publish(&self.setup.on_judged, &judged);
        self.last = Some(judged);
    }
}

/// The judge as it was after the last stored epoch. Verdicts that it does not know, of a program that stored none, are
/// taken in one by one.
fn recollect(setup: &ChallengeRunnerSetup, past: PastJudgements) -> Judge {
    let stored = past.judge.and_then(|stored| {
        let read = serde_json::from_str::<Judge>(&stored.json);
        read.inspect_err(|error| {
            tracing::warn!(epoch = stored.epoch, %error, "the judge's memory cannot be read, it is rebuilt from the verdicts");
        })
        .ok()
    });
    let mut judge = stored.unwrap_or_else(|| Judge::new(setup.history.clone()));
    judge.set_rules(setup.history.clone());
    let known = judge.last_epoch();
    for v in past.verdicts.into_iter().filter(|v| Some(v.epoch) > known) {
        let VerdictRecord { epoch, uid, hotkey, device, model, verdict, at_ms, .. } = v;
        judge.recall(epoch, at_ms, &setup.table, &Counted { uid, hotkey, device, model, verdict });
    }
    judge
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
            "histories": self.judge.as_ref().map(Judge::histories),
            "running_epoch": self.running,
            "last_epoch": self.last_epoch,
            "last_verdicts": verdicts,
            "last_problem": self.last_problem,
        }))
    }
}
