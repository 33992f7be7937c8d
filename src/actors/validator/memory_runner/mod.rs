//! Runs one round of memory proofs in each epoch whose memory slot this validator owns: has every admitted miner fill the
//! memory of its devices, scan it and open blocks of the scans, and records a verdict for each device.
//!
//! Invariants: one round an epoch, also across a restart: the round's intent is on disk before the first request goes out,
//! and a round that was begun and not closed is *void*, all its verdicts our own fault, never run again. Verdicts and what
//! was exchanged are stored together. What a verdict costs is read from the store when work is planned
//! ([`crate::scoring::memory`]): this actor tells nobody.
//!
//! Design notes: a reconciler. A new block, or the end of a round of work, is the nudge; what is to be done follows from the
//! slot and from what the journal knows: [`mod@turn`], which is pure. The round itself is a plain async function,
//! [`round::judge_all`], over [`plan::plan`], which is pure. On restart everything is read from the journal again. A slot that
//! passes without a round (the node or the chain was away, nobody to ask) is not made up for: a proof that is missing
//! changes nothing.

pub mod plan;
pub mod round;
pub mod trace;
pub mod turn;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::actors::blacklist_guard::BlacklistGuard;
use crate::actors::journal::Journal;
use crate::actors::validator::allocation_manager::AllocationManager;
use crate::actors::validator::challenge_runner::memory_standings;
use crate::actors::validator::challenge_runner::turn::Turn;
use crate::actors::validator::lacks_permit;
use crate::actors::validator::specs_collector::SpecsCollector;
use crate::evidence::record::{MemoryBody, MemoryDevice, entry};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::{BlockNumber, DeviceId, Epoch, Hotkey};
use crate::messages::blacklist_guard::AdmitMiners;
use crate::messages::chain_watcher::{ChainView, NewBlock};
use crate::messages::journal::{GetMemoryRounds, MemoryRounds, Write};
use crate::messages::validator::allocation_manager::LeasedDevices;
use crate::messages::validator::challenge_runner::EpochJudged;
use crate::messages::validator::memory_runner::{LastMemory, MemoryJudged};
use crate::messages::validator::specs_collector::KnownSpecs;
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::scoring::ScoreTable;
use crate::settings::Live;
use crate::store::records::{MemoryVerdictRecord, PlannedVerdict, RoundRecord};
use crate::store::{Record, StoreError};
use crate::telemetry::error_chain;
use crate::telemetry::events::MemoryChecked;
use crate::verdict::{UnknownCause, Verdict};
use actix::prelude::*;
use plan::{MemoryTable, PlannedMiner};
use round::{Finding, RoundSetup};
use turn::{Slot, is_due, slot, turn};

/// How long the validator's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// What the runner works with.
pub struct MemoryRunnerSetup {
    /// Our own key.
    pub hotkey: Hotkey,
    /// What a round works with.
    pub round: Arc<RoundSetup>,
    /// The models.
    pub table: Arc<ScoreTable>,
    /// What is asked of each model's memory.
    pub memories: Arc<MemoryTable>,
    /// Whether nobody is asked without a validator permit.
    pub require_permit: bool,
    /// Who may be asked.
    pub guard: Handle<BlacklistGuard>,
    /// What they offer.
    pub specs: Handle<SpecsCollector>,
    /// What is leased.
    pub allocations: Handle<AllocationManager>,
    /// Keeps the verdicts.
    pub journal: Handle<Journal>,
}

/// A round that is over and not yet on disk.
struct Unwritten {
    epoch: Epoch,
    verdicts: Vec<MemoryVerdictRecord>,
    evidence: Option<Record>,
    at_ms: u64,
    /// It was begun and not ended.
    void: bool,
}

/// Why a round did not begin.
enum NotBegun {
    /// There is nobody to ask yet.
    Nobody,
    /// Somebody whose word is needed did not give it; another attempt may.
    Failed(String),
    /// The intent may be on disk: what the journal knows is read again.
    Unsure(String),
}

/// The actor.
pub struct MemoryRunner {
    /// What it works with, as the settings have it now.
    live: Live<Arc<MemoryRunnerSetup>>,
    setup: Arc<MemoryRunnerSetup>,
    /// Whether the journal has told.
    remembered: bool,
    /// The newest epoch that has a round, whatever became of it.
    last: Option<Epoch>,
    /// The newest epoch whose proofs of work are judged.
    worked: Option<Epoch>,
    /// The devices that other validators rent, as they were judged last.
    rented: Arc<BTreeMap<Hotkey, Vec<DeviceId>>>,
    /// Rounds that were begun by an earlier life and never closed.
    open: VecDeque<RoundRecord>,
    busy: bool,
    unwritten: Option<Unwritten>,
    judged: Option<MemoryJudged>,
    turn: &'static str,
    last_problem: Option<String>,
}

impl MemoryRunner {
    /// A runner that remembers nothing yet.
    pub fn new(live: Live<Arc<MemoryRunnerSetup>>) -> Self {
        let setup = live.get();
        MemoryRunner {
            live,
            setup,
            remembered: false,
            last: None,
            worked: None,
            rented: Arc::default(),
            open: VecDeque::new(),
            busy: false,
            unwritten: None,
            judged: None,
            turn: Turn::Wait.label(),
            last_problem: None,
        }
    }

    /// Asks the journal which rounds there were; nothing runs until that is known.
    fn remember(&mut self, ctx: &mut Ctx<Self>) {
        self.remembered = false;
        let journal = self.setup.journal.clone();
        let load = async move { journal.ask(GetMemoryRounds, ASK).await };
        ctx.spawn(load.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok(Ok(MemoryRounds { open, last })) => {
                for RoundRecord { epoch, planned, .. } in &open {
                    let planned = planned.len();
                    tracing::warn!(
                        epoch,
                        planned,
                        "this epoch's round of memory proofs was begun and not ended: it is void"
                    );
                }
                (act.open, act.last, act.remembered) = (open.into(), last, true);
                act.go_on(ctx);
            }
            failed => {
                tracing::warn!(?failed, "the journal does not say which memory was proved, asking again");
                ctx.run_later(Duration::from_secs(1), |act, ctx| act.remember(ctx));
            }
        }));
    }

    /// Does the next thing that is to be done, if none is on its way.
    fn go_on(&mut self, ctx: &mut Ctx<Self>) {
        let view = self.setup.round.view.borrow().clone();
        let Some(view) = view.filter(|view| !view.is_stored()) else { return };
        // What holds for this epoch: a reload while the round runs is for the next one.
        let setup = self.live.get();
        let lacks = setup.require_permit && lacks_permit(&view, &setup.hotkey).is_some();
        let own = slot(&view, &setup.hotkey).filter(|_| !lacks);
        let turn = if lacks { Turn::NoSlot } else { turn(&view, own.as_ref()) };
        self.turn = turn.label();
        setup.round.metrics.memory_slot(turn.label());
        if self.busy || !self.remembered {
            return;
        }
        self.setup = setup;
        if let Some(unwritten) = self.unwritten.take() {
            return self.write(unwritten, ctx);
        }
        if let Some(round) = self.open.front() {
            let unwritten = self.void(round);
            return self.write(unwritten, ctx);
        }
        if let Some(slot) = own.filter(|slot| is_due(&view, slot, self.last, self.worked)) {
            self.begin(slot, view, ctx);
        }
    }

    fn begin(&mut self, slot: Slot, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        self.busy = true;
        let epoch = view.epoch();
        ctx.spawn(run(self.setup.clone(), view, slot, self.rented.clone()).into_actor(self).map(
            move |done, act, ctx| {
                act.busy = false;
                let problem = match done {
                    Ok((block, found)) => {
                        act.last = act.last.max(Some(epoch));
                        let unwritten = act.judged(epoch, block, found);
                        return act.write(unwritten, ctx);
                    }
                    Err(NotBegun::Nobody) => return,
                    Err(NotBegun::Failed(problem)) => problem,
                    Err(NotBegun::Unsure(problem)) => {
                        act.remember(ctx);
                        problem
                    }
                };
                act.failed(epoch, problem, "memory is not proved, trying again with the next block");
            },
        ));
    }

    /// Keeps a problem, and tells of it if it is another one than before.
    fn failed(&mut self, epoch: Epoch, problem: String, what: &str) {
        if self.last_problem.as_ref() != Some(&problem) {
            tracing::warn!(epoch, problem, "{what}");
        }
        self.last_problem = Some(problem);
    }

    /// What a round found, as it is stored.
    fn judged(&self, epoch: Epoch, block: BlockNumber, found: Vec<Finding>) -> Unwritten {
        let at_ms = self.setup.round.clock.now_ms();
        let mut verdicts = Vec::new();
        let mut entries = Vec::new();
        for Finding { plan, verdicts: of_miner, trace } in found {
            let PlannedMiner { uid, hotkey, devices, .. } = plan;
            let mut body = MemoryBody { epoch, block, uid, hotkey, devices: Vec::new(), challenge: trace };
            for (planned, verdict) in devices.into_iter().zip(of_miner) {
                let (device, model) = (planned.device, planned.model);
                body.devices.push(MemoryDevice { device, model: model.clone(), verdict: verdict.clone() });
                verdicts.push(MemoryVerdictRecord { epoch, uid, hotkey, device, model, verdict, block, at_ms });
            }
            match entry(Kind::Memory, at_ms, &body) {
                Ok(entry) => entries.push(entry),
                Err(error) => tracing::error!(epoch, error = error_chain(&error), "memory is not logged as evidence"),
            }
        }
        let evidence = EvidenceRecord { entries, state: None, closes: None };
        Unwritten { epoch, verdicts, evidence: Some(Record::Evidence(evidence)), at_ms, void: false }
    }

    /// A round that was begun and not ended: one unknown for everything that was to be judged, by our own fault.
    fn void(&self, round: &RoundRecord) -> Unwritten {
        let (epoch, block, at_ms) = (round.epoch, round.block, self.setup.round.clock.now_ms());
        let verdict = |planned: &PlannedVerdict| {
            let PlannedVerdict { uid, hotkey, device, model, .. } = planned.clone();
            let verdict = Verdict::unknown(UnknownCause::OwnFault, "the validator was restarted during its round");
            Some(MemoryVerdictRecord { epoch, uid, hotkey, device: device?, model, verdict, block, at_ms })
        };
        let verdicts = round.planned.iter().filter_map(verdict).collect();
        Unwritten { epoch, verdicts, evidence: None, at_ms, void: true }
    }

    /// Stores the verdicts, and closes the round.
    fn write(&mut self, unwritten: Unwritten, ctx: &mut Ctx<Self>) {
        self.busy = true;
        let Unwritten { epoch, at_ms, .. } = unwritten;
        let closed = Record::MemoryRoundClosed { epoch, verdicts: unwritten.verdicts.clone(), at_ms };
        let batch = [closed].into_iter().chain(unwritten.evidence.clone()).collect();
        let journal = self.setup.journal.clone();
        let work = async move {
            let written = journal.ask(Write(batch), ASK).await;
            (written, memory_standings(&journal).await)
        };
        ctx.spawn(work.into_actor(self).map(move |(written, standings), act, ctx| {
            act.busy = false;
            let problem = match written {
                Ok(Ok(())) => {
                    if let Ok(standings) = standings {
                        let proved = |v: &MemoryVerdictRecord| {
                            standings.get(v.hotkey, v.device).is_some_and(|standing| standing.is_proved())
                        };
                        let unproved = unwritten.verdicts.iter().filter(|v| !proved(v)).count();
                        act.setup.round.metrics.memory_unproved(unproved);
                    }
                    return act.written(unwritten, ctx);
                }
                // It was closed before: by an attempt of which nobody heard.
                Ok(Err(StoreError::Conflict(problem))) => {
                    act.remember(ctx);
                    problem
                }
                Ok(Err(error)) => {
                    act.unwritten = Some(unwritten);
                    error_chain(&error)
                }
                Err(error) => {
                    act.unwritten = Some(unwritten);
                    error.to_string()
                }
            };
            act.failed(epoch, format!("journal: {problem}"), "verdicts on memory are not stored, trying again soon");
        }));
    }

    fn written(&mut self, unwritten: Unwritten, ctx: &mut Ctx<Self>) {
        let Unwritten { epoch, verdicts, void, .. } = unwritten;
        self.open.retain(|round| round.epoch != epoch);
        self.last_problem = None;
        self.setup.round.metrics.memory_round(if void { "void" } else { "judged" });
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for MemoryVerdictRecord { epoch, uid, hotkey, device, verdict, .. } in &verdicts {
            let (epoch, uid, hotkey, device) = (*epoch, *uid, *hotkey, *device);
            MemoryChecked { epoch, uid, hotkey, device, verdict }.emit(&self.setup.round.metrics);
            let label = if verdict.kind() == "pass" { "pass" } else { verdict.reason() };
            *counts.entry(label.to_owned()).or_default() += 1;
        }
        tracing::info!(epoch, void, devices = verdicts.len(), ?counts, "memory was judged");
        self.judged = Some(MemoryJudged { epoch, counts });
        // What has become due meanwhile does not wait for another block.
        ctx.run_later(Duration::ZERO, |act, ctx| act.go_on(ctx));
    }
}

/// One round: who, what, the intent, the proofs.
async fn run(
    setup: Arc<MemoryRunnerSetup>,
    view: Arc<ChainView>,
    slot: Slot,
    rented: Arc<BTreeMap<Hotkey, Vec<DeviceId>>>,
) -> Result<(BlockNumber, Vec<Finding>), NotBegun> {
    let failed = |who: &str, error: crate::runtime::AskError| NotBegun::Failed(format!("{who}: {error}"));
    let admitted = setup.guard.ask(AdmitMiners, ASK).await.map_err(|e| failed("blacklist guard", e))?;
    let mut leased = setup.allocations.ask(LeasedDevices, ASK).await.map_err(|e| failed("allocation manager", e))?;
    for (miner, devices) in &*rented {
        leased.entry(*miner).or_default().extend(devices);
    }
    let known = setup.specs.ask(KnownSpecs, ASK).await.map_err(|e| failed("specs collector", e))?;
    let plans = plan::plan(&view.metagraph, &admitted, &known, &leased, &setup.table, &setup.memories);
    if plans.is_empty() {
        return Err(NotBegun::Nobody);
    }
    let (epoch, block) = (view.epoch(), view.metagraph.head.number);
    let planned = plans.iter().flat_map(PlannedMiner::verdicts).collect();
    let intent = RoundRecord { epoch, block, planned, at_ms: setup.round.clock.now_ms() };
    // Before the first request goes out: whoever comes after us must know that this epoch had its round.
    match setup.journal.ask(Write(vec![Record::MemoryRound(intent)]), ASK).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(NotBegun::Unsure(format!("journal: {}", error_chain(&error)))),
        Err(error) => return Err(NotBegun::Unsure(format!("journal: {error}"))),
    }
    Ok((block, round::judge_all(&setup.round, epoch, &slot, plans).await))
}

impl Actor for MemoryRunner {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.remember(ctx);
    }
}

impl Supervised for MemoryRunner {
    const MESSAGES: &'static [&'static str] = &["NewBlock", "EpochJudged", "LastMemory"];
}

impl Handler<NewBlock> for MemoryRunner {
    type Result = ();
    fn handle(&mut self, _: NewBlock, ctx: &mut Ctx<Self>) {
        self.go_on(ctx);
    }
}

impl Handler<EpochJudged> for MemoryRunner {
    type Result = ();
    fn handle(&mut self, judged: EpochJudged, ctx: &mut Ctx<Self>) {
        self.worked = self.worked.max(Some(judged.epoch));
        self.rented = judged.receipts;
        self.go_on(ctx);
    }
}

impl Handler<LastMemory> for MemoryRunner {
    type Result = MessageResult<LastMemory>;
    fn handle(&mut self, _: LastMemory, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.judged.clone())
    }
}

impl Handler<Inspect> for MemoryRunner {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "turn": self.turn,
            "last_epoch": self.last,
            "running": self.busy,
            "open_rounds": self.open.len(),
            "last_verdicts": self.judged.as_ref().map(|judged| &judged.counts),
            "last_problem": self.last_problem,
        }))
    }
}
