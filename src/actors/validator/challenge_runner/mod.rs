//! Runs one challenge round an epoch, in this validator's own slot: asks every admitted miner at once (batch by batch, if
//! there are more), verifies, records the verdicts, tells the rest.
//!
//! Invariants: one round an epoch, and one draw per device and epoch, also across a restart: the round's intent is on
//! disk before the first challenge goes out, and a round that was begun and has no verdicts is *void*, never run again. A
//! round's verdicts are stored before anybody hears of them; every device that was planned gets exactly one verdict. An
//! epoch whose slot passes while this node looks on ends with verdicts: judged, or all unknown by its own fault.
//!
//! Design notes: a reconciler. A new block is the nudge; what is to be done follows from the epoch, the slots and what is
//! closed: [`mod@turn`], which is pure. The round itself is a plain async function, [`round::judge_all`], over
//! [`plan::plan`], which is pure; the past comes in through [`Judge`], which is pure too. On restart it is rebuilt from
//! the journal's verdicts. Nobody is told of a void epoch: it has no scores and no weights.

pub mod plan;
mod prepare;
mod receipts;
pub mod recorder;
pub mod round;
pub mod trace;
pub mod turn;
pub mod window;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::actors::Subscriber;
use crate::actors::blacklist_guard::BlacklistGuard;
use crate::actors::journal::Journal;
use crate::actors::validator::allocation_manager::AllocationManager;
use crate::actors::validator::lacks_permit;
use crate::actors::validator::specs_collector::SpecsCollector;
use crate::actors::validator::under_proof::UnderProof;
use crate::clock::SharedClock;
use crate::ids::{BlockNumber, Epoch, Hotkey};
use crate::messages::blacklist_guard::Penalise;
use crate::messages::chain_watcher::{ChainView, NewBlock};
use crate::messages::journal::{OpenRounds, RecentVerdicts, Rounds, Write};
use crate::messages::validator::challenge_runner::{EpochJudged, LastJudged};
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::scoring::receipt::ReceiptRules;
use crate::scoring::{Counted, DeviceFinding, DuePenalty, HistoryRules, Judge, Judged, MinerFinding, ScoreTable};
use crate::settings::Live;
use crate::store::records::{JudgeRecord, PenaltyRecord, PlannedVerdict, RoundOutcome, RoundRecord, VerdictRecord};
use crate::store::{Record, StoreError};
use crate::telemetry::events::ChallengeJudged;
use crate::telemetry::{NodeMetrics, error_chain};
use crate::verdict::{UnknownCause, Verdict};
use crate::wire::dendrite::Dendrite;

use serde::Deserialize as _;

use crate::evidence::record::{OutageBody, ReceiptsBody, Trace};
use plan::{PlannedMiner, WorkTable};
pub(crate) use prepare::memory_standings;
use prepare::{Found, NotBegun, Prepared, known, run};
use recorder::{Closed, Recorder};
use turn::{Due, Epochs, turn};

/// How long the validator's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Between two looks whether our turn has come although no block tells.
const RECKON: Duration = Duration::from_secs(1);
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
    /// Whether a device that failed its last canary rental fails until it passes one.
    pub canaries_count: bool,
    /// Which receipts of other validators count.
    pub receipts: ReceiptRules,
    /// Whether nobody is challenged without a validator permit.
    pub require_permit: bool,
    /// Whether miners are asked for their specs; if not, no device is known.
    pub ask_specs: bool,
    /// Longest a round of specs may take; a quarter of a slot at most.
    pub specs_deadline: Duration,
    /// The chain as it is seen now: the round in progress follows it.
    pub view: watch::Receiver<Option<Arc<ChainView>>>,
    /// Who may be asked.
    pub guard: Handle<BlacklistGuard>,
    /// What they offer.
    pub specs: Handle<SpecsCollector>,
    /// What this validator's own proofs and rentals tell each other.
    pub under_proof: UnderProof,
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

/// An epoch whose verdicts are decided but not yet on disk.
struct Unwritten {
    epoch: Epoch,
    records: Vec<VerdictRecord>,
    penalties: Vec<DuePenalty>,
    /// For the evidence log, and the judge's memory.
    evidence: Vec<Record>,
    /// What the rest is told.
    judged: EpochJudged,
    at_ms: u64,
}

impl Unwritten {
    fn outcome(&self) -> RoundOutcome {
        if self.judged.void { RoundOutcome::Void } else { RoundOutcome::Judged }
    }
}

/// The actor.
pub struct ChallengeRunner {
    /// What it works with, as the settings have it now.
    live: Live<Arc<ChallengeRunnerSetup>>,
    setup: Arc<ChallengeRunnerSetup>,
    /// `None` until the journal has told.
    judge: Option<Judge>,
    recorder: Recorder,
    /// When the last verdicts were given, in milliseconds since the Unix epoch.
    last_at_ms: Option<u64>,
    epochs: Epochs,
    /// Rounds that were begun by an earlier life and never closed.
    open: VecDeque<RoundRecord>,
    /// A round whose intent may be on disk.
    prepared: Option<Prepared>,
    running: Option<Epoch>,
    unwritten: Option<Unwritten>,
    last: Option<EpochJudged>,
    turn: &'static str,
    last_problem: Option<String>,
}

impl ChallengeRunner {
    /// A runner that remembers nothing yet.
    pub fn new(live: Live<Arc<ChallengeRunnerSetup>>) -> Self {
        let setup = live.get();
        ChallengeRunner {
            live,
            setup,
            judge: None,
            recorder: Recorder::default(),
            last_at_ms: None,
            epochs: Epochs::default(),
            open: VecDeque::new(),
            prepared: None,
            running: None,
            unwritten: None,
            last: None,
            turn: turn::Turn::Wait.label(),
            last_problem: None,
        }
    }

    /// Asks the journal what was judged, and begun, before; nothing runs until that is known.
    fn remember(&mut self, ctx: &mut Ctx<Self>) {
        self.judge = None;
        let journal = self.setup.journal.clone();
        let load = async move {
            let past = journal.ask(RecentVerdicts(REMEMBER_EPOCHS), ASK).await;
            (past, journal.ask(OpenRounds, ASK).await)
        };
        ctx.spawn(load.into_actor(self).map(|loaded, act, ctx| match loaded {
            (Ok(Ok(past)), Ok(Ok(rounds))) => act.recall(past, rounds),
            failed => {
                tracing::warn!(?failed, "the journal does not say what was judged, asking again");
                ctx.run_later(Duration::from_secs(1), |act, ctx| act.remember(ctx));
            }
        }));
    }

    fn recall(&mut self, past: Vec<VerdictRecord>, rounds: Rounds) {
        let Rounds { open, last_closed: last, judge: stored } = rounds;
        self.last_at_ms = past.iter().map(|v| v.at_ms).max();
        let (judge, rebuilt) = memory(past, stored.as_ref(), &self.setup.history, &self.setup.table);
        if let Err(error) = self.recorder.remembered(&judge, rebuilt, self.setup.clock.now_ms()) {
            tracing::error!(error = error_chain(&error), "the judge cannot be logged");
        }
        self.epochs = Epochs::after(last.max(judge.last_epoch()));
        self.judge = Some(judge);
        for round in &open {
            let (epoch, planned) = (round.epoch, round.planned.len());
            tracing::warn!(
                epoch,
                planned,
                "this epoch's round was begun and not ended: it is void, nobody is asked again"
            );
        }
        self.open = open.into();
        self.prepared = None;
    }

    fn on_block(&mut self, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        if view.is_stored() {
            return;
        }
        if let Some(last) = &self.last {
            // Told again with every block: who was away when the epoch was judged, or failed in it, hears of it now.
            Subscriber::publish(&self.setup.on_judged, last);
        }
        self.go_on(view, ctx);
    }

    /// Looks at the last view again where the next one is overdue.
    fn reckon(&mut self, ctx: &mut Ctx<Self>) {
        let view = self.setup.view.borrow().clone();
        if let Some(view) = view.filter(|view| view.reckoned() > view.metagraph.head.number) {
            self.go_on(view, ctx);
        }
    }

    /// Does the next thing that is to be done, if none is on its way.
    fn go_on(&mut self, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        if self.running.is_some() || self.judge.is_none() {
            return;
        }
        if let Some(unwritten) = self.unwritten.take() {
            self.write(unwritten, ctx);
            return;
        }
        if let Some(round) = self.open.front() {
            const WHY: &str = "the validator was restarted during its window";
            let (epoch, block, findings) = (round.epoch, round.block, own_fault(&round.planned, WHY));
            let unwritten = self.judge(epoch, block, &findings, HashMap::new(), None);
            self.write(unwritten, ctx);
            return;
        }
        self.turn_to(view, ctx);
    }

    /// Does what is due at this head.
    fn turn_to(&mut self, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        let epoch = view.epoch();
        if let Some(last) = self.epochs.last().filter(|last| *last > epoch + 1) {
            if self.last_problem.is_none() {
                let problem = format!("epoch {last} is judged already, but the chain is in epoch {epoch}");
                tracing::error!(problem, "nothing is judged: this data directory belongs to another chain");
                self.last_problem = Some(problem);
            }
            return;
        }
        // What holds for this epoch: a reload while the round runs is for the next one.
        self.setup = self.live.get();
        let permit = lacks_permit(&view, &self.setup.hotkey).filter(|_| self.setup.require_permit);
        let turn = if permit.is_some() { turn::Turn::NoSlot } else { turn(&view, &self.setup.hotkey) };
        self.turn = turn.label();
        self.setup.metrics.challenge_slot(turn.label());
        let no_slot = "this validator is not among the twelve permit holders with the highest stake";
        let problem = permit.or((turn == turn::Turn::NoSlot).then_some(no_slot));
        if let Some(problem) = problem.filter(|p| self.last_problem.as_deref() != Some(p)) {
            tracing::warn!(epoch, problem, "nobody is challenged");
            self.last_problem = Some(problem.to_owned());
        }
        let (due, outage) = self.epochs.look(&view, &turn);
        if let Some(outage) = outage {
            self.was_out(outage);
        }
        match due {
            Due::Nothing => {}
            Due::Round(epoch, slot) => self.begin(epoch, slot, view, ctx),
            Due::Missed(epoch) => self.missed(epoch, view, ctx),
        }
    }

    /// Nobody was judged in these epochs, because this validator was out: no clock of a proof ran.
    fn was_out(&mut self, epochs: Range<Epoch>) {
        let (first, count) = (epochs.start, epochs.end - epochs.start);
        tracing::info!(first, count, "no epoch was judged while this validator was out");
        let lost_ms = self.last_at_ms.map_or(0, |last| self.setup.clock.now_ms().saturating_sub(last));
        if let Some(judge) = &mut self.judge {
            judge.outage(epochs.start, epochs.end - 1, lost_ms);
            let outage = OutageBody { from: epochs.start, to: epochs.end - 1, lost_ms };
            if let Err(error) = self.recorder.outage(outage, self.setup.clock.now_ms()) {
                tracing::error!(error = error_chain(&error), "the outage cannot be logged");
            }
        }
    }

    fn begin(&mut self, epoch: Epoch, slot: Range<BlockNumber>, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        self.running = Some(epoch);
        let begun = Instant::now();
        let prepared = self.prepared.take().filter(|p| p.intent.epoch == epoch);
        let block = prepared.as_ref().map_or(view.metagraph.head.number, |p| p.intent.block);
        // The one before the epoch: nothing else changes it while a round runs.
        let mut judge = self.judge.clone().unwrap_or_else(|| Judge::new(self.setup.history.clone()));
        judge.set_rules(self.setup.history.clone());
        let work = run(self.setup.clone(), view, slot, prepared, self.epochs.last(), judge);
        ctx.spawn(work.into_actor(self).map(move |done, act, ctx| {
            act.running = None;
            let problem = match done {
                Ok(Found { findings: found, receipts, leased }) => {
                    act.setup.metrics.challenge_stage("round", begun.elapsed());
                    let traces = found.iter().filter_map(|f| Some((f.plan.hotkey, f.trace.clone()?))).collect();
                    let mut findings: Vec<MinerFinding> = found.into_iter().map(MinerFinding::from).collect();
                    round::rented_meanwhile(&mut findings, &leased);
                    let unwritten = act.judge(epoch, block, &findings, traces, receipts);
                    return act.write(unwritten, ctx);
                }
                Err(NotBegun::Nobody) => return,
                Err(NotBegun::Failed(problem)) => problem,
                Err(NotBegun::Unsure(prepared, problem)) => {
                    act.prepared = Some(*prepared);
                    problem
                }
                Err(NotBegun::Taken(problem)) => {
                    act.remember(ctx);
                    problem
                }
            };
            act.failed(epoch, problem, "the round was not run, trying again soon");
        }));
    }

    /// Keeps a problem, and tells of it if it is another one than before.
    fn failed(&mut self, epoch: Epoch, problem: String, what: &str) {
        if self.last_problem.as_ref() != Some(&problem) {
            tracing::warn!(epoch, problem, "{what}");
        }
        self.last_problem = Some(problem);
    }

    /// The epoch's slot passed without a round, although this node was up.
    fn missed(&mut self, epoch: Epoch, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        const WHY: &str = "the validator missed its own slot";
        let block = view.metagraph.head.number;
        if let Some(prepared) = self.prepared.take().filter(|p| p.intent.epoch == epoch) {
            let unwritten = self.judge(epoch, block, &own_fault(&prepared.intent.planned, WHY), HashMap::new(), None);
            return self.write(unwritten, ctx);
        }
        self.running = Some(epoch);
        let setup = self.setup.clone();
        ctx.spawn(async move { known(&setup, &view).await }.into_actor(self).map(move |planned, act, ctx| {
            act.running = None;
            match planned {
                Ok(planned) => {
                    let planned: Vec<_> = planned.iter().flat_map(PlannedMiner::verdicts).collect();
                    let unwritten = act.judge(epoch, block, &own_fault(&planned, WHY), HashMap::new(), None);
                    act.write(unwritten, ctx);
                }
                Err(problem) => act.last_problem = Some(problem),
            }
        }));
    }

    /// Takes the past into account: the verdicts as they count, and what each device brings to the score.
    fn judge(
        &mut self,
        epoch: Epoch,
        block: BlockNumber,
        findings: &[MinerFinding],
        traces: HashMap<Hotkey, Trace>,
        receipts: Option<ReceiptsBody>,
    ) -> Unwritten {
        let at_ms = self.setup.clock.now_ms();
        let judge = self.judge.get_or_insert_with(|| Judge::new(self.setup.history.clone()));
        judge.set_rules(self.setup.history.clone());
        let begun = self.recorder.begin(judge, &self.setup.table, at_ms);
        let judged = judge.judge(epoch, at_ms, &self.setup.table, findings);
        let rented = receipts.as_ref().map(|r| r.presented.devices(&r.standings)).unwrap_or_default();
        let closed = Closed { epoch, block, at_ms, receipts, findings, traces, judged: &judged, judge };
        let evidence = begun.and_then(|begun| self.recorder.close(begun, closed)).map_err(|error| {
            // The verdicts count all the same; the next epoch's state shows the gap to whoever replays the log.
            tracing::error!(epoch, error = error_chain(&error), "the epoch cannot be logged as evidence");
        });
        let evidence = evidence.map_or_else(|()| Vec::new(), Vec::from);
        let Judged { miners, counted, penalties, void } = judged;
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
        let records: Vec<VerdictRecord> = counted.into_iter().map(record).collect();
        // Nothing is to be made of an epoch with nobody in it either.
        let void = void.is_some() || miners.is_empty();
        let (miners, receipts, table) = (Arc::new(miners), Arc::new(rented), self.setup.table.clone());
        let judged = EpochJudged { epoch, block, miners, receipts, void, table };
        Unwritten { epoch, records, penalties, evidence, judged, at_ms }
    }

    /// Stores the verdicts and closes the round, then tells everybody.
    fn write(&mut self, unwritten: Unwritten, ctx: &mut Ctx<Self>) {
        let epoch = unwritten.epoch;
        self.running = Some(epoch);
        let journal = self.setup.journal.clone();
        let closed = Record::RoundClosed { epoch, outcome: unwritten.outcome(), at_ms: unwritten.at_ms };
        let verdicts = unwritten.records.iter().cloned().map(Record::Verdict);
        let penalties = unwritten.penalties.iter().cloned().map(PenaltyRecord::from).map(Record::Penalty);
        let batch = verdicts.chain(penalties).chain(unwritten.evidence.iter().cloned()).chain([closed]).collect();
        let work = async move { journal.ask(Write(batch), ASK).await };
        ctx.spawn(work.into_actor(self).map(move |written, act, ctx| {
            act.running = None;
            let problem = match written {
                Ok(Ok(())) => return act.written(unwritten, ctx),
                Ok(Err(error @ StoreError::Conflict(_))) => {
                    // Somebody else's verdicts are there: they stay, and what is there is read again.
                    let problem = error_chain(&error);
                    tracing::error!(epoch, problem, "the epoch is judged already, by verdicts that are not these");
                    act.last_problem = Some(format!("journal: {problem}"));
                    act.remember(ctx);
                    return;
                }
                Ok(Err(error)) => error_chain(&error),
                Err(error) => error.to_string(),
            };
            act.failed(epoch, format!("journal: {problem}"), "the verdicts are not stored yet, trying again soon");
            act.unwritten = Some(unwritten);
        }));
    }

    fn written(&mut self, unwritten: Unwritten, ctx: &mut Ctx<Self>) {
        let outcome = unwritten.outcome();
        let Unwritten { epoch, records, penalties, judged, at_ms, evidence: _ } = unwritten;
        self.epochs.close(epoch);
        self.open.retain(|round| round.epoch != epoch);
        self.last_problem = None;
        let empty = outcome == RoundOutcome::Void && records.is_empty();
        self.setup.metrics.epoch_closed(epoch, if empty { "empty" } else { outcome.label() });
        for record in &records {
            let VerdictRecord { epoch, uid, hotkey, device, verdict, .. } = record;
            ChallengeJudged { epoch: *epoch, uid: *uid, hotkey: *hotkey, device: *device, verdict }
                .emit(&self.setup.metrics);
        }
        for due in penalties {
            let hotkey = due.hotkey;
            if let Err(error) = self.setup.guard.tell(Penalise(due.into())) {
                tracing::warn!(%hotkey, %error, "the guard does not hear of a penalty before its next start");
            }
        }
        Subscriber::publish(&self.setup.on_judged, &judged);
        if !judged.void {
            // Told again with every block, which a void epoch is not worth.
            self.last = Some(judged);
        }
        self.last_at_ms = Some(at_ms);
        // What has become due meanwhile does not wait for another block.
        let view = self.setup.view.borrow().clone();
        if let Some(view) = view.filter(|_| self.judge.is_some()) {
            ctx.run_later(Duration::ZERO, move |act, ctx| act.on_block(view, ctx));
        }
    }
}

/// The judge that a validator begins with: the stored one, if it knows all verdicts of the `past` (oldest first), else one
/// that is made of them, and why it had to be. A stored one keeps the rules it was stored with until it judges again: an
/// outage is taken in before, here as in the evidence log.
pub(crate) fn memory(
    past: Vec<VerdictRecord>,
    stored: Option<&JudgeRecord>,
    rules: &HistoryRules,
    table: &ScoreTable,
) -> (Judge, Option<&'static str>) {
    let newest = past.iter().map(|v| v.epoch).max();
    match stored.map(|stored| (stored.epoch, Judge::deserialize(&*stored.json))) {
        // Verdicts of a later epoch than it knows were given without it.
        Some((_, Ok(judge))) if judge.last_epoch() >= newest => return (judge, None),
        Some((epoch, Err(error))) => tracing::warn!(epoch, %error, "the stored judge cannot be read"),
        Some((_, Ok(_))) | None => {}
    }
    let rebuilt = match past.is_empty() {
        true => "nothing was judged before",
        false => "rebuilt from the verdicts in the database, which holds no judge that knows all of them",
    };
    let mut judge = Judge::new(rules.clone());
    let mut last_at_ms: Option<u64> = None;
    for v in past {
        let VerdictRecord { epoch, uid, hotkey, device, model, verdict, at_ms, .. } = v;
        // An epoch without any verdict is one in which we were out.
        if let Some(before) = judge.last_epoch().filter(|before| before + 1 < epoch) {
            judge.outage(before + 1, epoch - 1, at_ms.saturating_sub(last_at_ms.unwrap_or(at_ms)));
        }
        last_at_ms = last_at_ms.max(Some(at_ms));
        judge.recall(epoch, at_ms, table, &Counted { uid, hotkey, device, model, verdict });
    }
    (judge, Some(rebuilt))
}

/// The findings of an epoch without a round: one unknown for everything that was to be judged, by our own fault.
fn own_fault(planned: &[PlannedVerdict], why: &str) -> Vec<MinerFinding> {
    let mut findings: Vec<MinerFinding> = Vec::new();
    for PlannedVerdict { uid, hotkey, coldkey, device, model } in planned {
        let at = findings.iter().rposition(|f| f.hotkey == *hotkey).unwrap_or_else(|| {
            let (uid, hotkey, coldkey) = (*uid, *hotkey, *coldkey);
            findings.push(MinerFinding { uid, hotkey, coldkey, refused: None, whole: None, devices: Vec::new() });
            findings.len() - 1
        });
        let verdict = Verdict::unknown(UnknownCause::OwnFault, why);
        match device {
            Some(device) => {
                let (device, model) = (*device, model.clone());
                findings[at].devices.push(DeviceFinding { device, model, leased: false, verdict: Some(verdict) });
            }
            None => findings[at].whole = Some(verdict),
        }
    }
    findings
}

impl Actor for ChallengeRunner {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.remember(ctx);
        ctx.run_interval(RECKON, Self::reckon);
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
            "last_epoch": self.epochs.last(),
            "turn": self.turn,
            "open_rounds": self.open.len(),
            "last_verdicts": verdicts,
            "last_problem": self.last_problem,
        }))
    }
}
