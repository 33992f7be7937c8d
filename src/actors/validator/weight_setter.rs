//! Turns judgements into scores and weights, sets them on chain, and confirms that they are there.
//!
//! Invariants: scores are computed once for each judged epoch and stored with their arithmetic; the intent to set
//! weights is on disk, behind the scores that it follows from, before the chain is called; an epoch's weights are set at most once, and count as set only when
//! the chain shows them; between two settings the chain's rate limit is kept; once the chain shows weights of our hotkey
//! that were never meant to be set here, none are set any more until the next start.
//!
//! Design notes: a reconciler. What should be on the chain is the last scoreboard; every new block is a nudge to compare
//! and correct, at most one attempt a block, and later ones after refusals. An attempt that ended without an answer is
//! remembered until the chain shows its weights or others are set. On restart the journal tells the last weights and what
//! became of them; the scores come back with the judged epoch, which is told again with every block.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use crate::actors::exclusive::{Conflict, Exclusive};
use crate::actors::journal::Journal;
use crate::actors::validator::allocation_manager::AllocationManager;
use crate::actors::validator::lacks_permit;
use crate::chain::{Chain, ChainError, Neuron, Rejection, Weights};
use crate::clock::SharedClock;
use crate::evidence::canon::CanonError;
use crate::evidence::record::{ScoresBody, WeightsBody, WeightsStatusBody, digest, entry};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::{BlockNumber, DeviceId, Hotkey, Uid};
use crate::messages::chain_watcher::{ChainView, NewBlock};
use crate::messages::journal::{GetLastWeights, Note, Write};
use crate::messages::validator::allocation_manager::AllocatedDevices;
use crate::messages::validator::challenge_runner::{EpochJudged, MinerJudgement};
use crate::messages::validator::weight_setter::{GetScoreboard, ScoreRow, Scoreboard};
use crate::runtime::{Backoff, Ctx, Handle, Inspect, Supervised};
use crate::scoring::{self, Points, Score, WeightLimits};
use crate::settings::Live;
use crate::store::Record;
use crate::store::records::{
    DevicePart, ScoreParts, ScoreRecord, WeightEntry, WeightsRecord, WeightsStatus, WeightsStatusRecord,
};
use crate::telemetry::events::WeightsSubmitted;
use crate::telemetry::{NodeMetrics, error_chain};

/// How long the validator's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Newest intents that are known again when the chain shows them.
const INTENTS: usize = 16;

/// What the setter works with.
pub struct WeightSetterSetup {
    /// Our own key.
    pub hotkey: Hotkey,
    /// What is known of other nodes with it.
    pub exclusive: Arc<Exclusive>,
    /// Where weights go.
    pub chain: Arc<dyn Chain>,
    /// How long one setting may take until it is included.
    pub deadline: Duration,
    /// The version key sent with weights.
    pub version_key: u64,
    /// Least blocks between two settings, beyond the chain's own limit.
    pub interval_blocks: u64,
    /// Whether nothing is set without a validator permit.
    pub require_permit: bool,
    /// Wait after a failed attempt, and its cap; `window`, `max_failures` do not matter here.
    pub retry: Backoff,
    /// What is leased: it counts as allocated.
    pub allocations: Handle<AllocationManager>,
    /// Keeps scores and weights.
    pub journal: Handle<Journal>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// What the journal says of earlier settings.
#[derive(Debug, Clone, Copy, Default)]
struct Past {
    next_id: u64,
    /// Epoch of the last weights that were certainly or possibly set.
    epoch: Option<u64>,
}

/// An attempt that ended without an answer.
#[derive(Debug, Clone)]
struct Unclear {
    epoch: u64,
    id: u64,
    /// The head when it was sent.
    at: BlockNumber,
    entries: Vec<(Uid, u16)>,
}

/// The scores of the board for as long as the journal has not acknowledged them.
#[derive(Debug, Default)]
struct Unlogged(Option<(u64, Record)>);

impl Unlogged {
    fn scored(&mut self, epoch: u64, scores: Record) {
        self.0 = Some((epoch, scores));
    }

    fn acknowledged(&mut self, epoch: u64) {
        self.0.take_if(|(of, _)| *of == epoch);
    }

    /// What an intent is written with: never without the scores that it follows from. Twice in the log they do no harm.
    fn with(&self, intent: WeightsRecord, evidence: EvidenceRecord) -> Vec<Record> {
        let scores = self.0.iter().map(|(_, scores)| scores.clone());
        scores.chain([Record::Weights(intent), Record::Evidence(evidence)]).collect()
    }
}

/// The actor.
pub struct WeightSetter {
    /// What it works with, as the settings have it now.
    live: Live<Arc<WeightSetterSetup>>,
    setup: Arc<WeightSetterSetup>,
    board: Arc<Scoreboard>,
    unlogged: Unlogged,
    past: Option<Past>,
    working: bool,
    /// The judged epoch whose leases are being asked for.
    scoring: Option<u64>,
    attempted_at: Option<BlockNumber>,
    /// Refused attempts in a row, and until when there is no other.
    refused: usize,
    not_before: Option<Instant>,
    unclear: Option<Unclear>,
    /// The entries of the last intents, the newest last.
    intents: VecDeque<Vec<(Uid, u16)>>,
    /// The chain's last update of our weights when this actor first looked, or the block of our last inclusion: what is
    /// not newer is not judged.
    known_update: Option<BlockNumber>,
}

impl WeightSetter {
    /// A setter that knows no scores.
    pub fn new(live: Live<Arc<WeightSetterSetup>>) -> Self {
        let setup = live.get();
        WeightSetter {
            live,
            setup,
            board: Arc::default(),
            unlogged: Unlogged::default(),
            past: None,
            working: false,
            scoring: None,
            attempted_at: None,
            refused: 0,
            not_before: None,
            unclear: None,
            intents: VecDeque::with_capacity(INTENTS),
            known_update: None,
        }
    }

    fn intend(&mut self, entries: Vec<(Uid, u16)>) {
        if self.intents.len() == INTENTS {
            self.intents.pop_front();
        }
        self.intents.push_back(entries);
    }

    /// Whether another node is known to act with our hotkey, which is looked for here in the weights that the chain shows.
    fn conflicts(&mut self, own: &Neuron) -> bool {
        let known = *self.known_update.get_or_insert(own.last_update);
        // While an attempt of ours is unclear, what the chain shows may be about to become it.
        if self.unclear.is_none() && foreign(own, known, &self.intents) {
            self.setup.exclusive.report(Conflict::ForeignWeights { block: own.last_update });
        }
        let Some(problem) = self.setup.exclusive.problem() else { return false };
        if self.board.problem.as_ref() != Some(&problem) {
            Arc::make_mut(&mut self.board).problem = Some(problem);
        }
        true
    }

    fn remember(&mut self, ctx: &mut Ctx<Self>) {
        let journal = self.setup.journal.clone();
        let work = async move { journal.ask(GetLastWeights, ASK).await };
        ctx.spawn(work.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok(Ok(past)) => {
                if let Some(row) = &past.included {
                    act.setup.metrics.weights_last_set_at(row.updated_ms as f64 / 1000.0);
                }
                for row in past.included.iter().chain(&past.last) {
                    act.intend(row.weights.entries.iter().map(|e| (e.uid, e.weight)).collect());
                }
                let epoch = past.included.map(|row| row.weights.epoch);
                act.past = Some(Past { next_id: past.next_id, epoch });
                Arc::make_mut(&mut act.board).epoch_on_chain = epoch;
                act.unclear = past.last.filter(|row| row.status == WeightsStatus::Pending).map(|row| Unclear {
                    epoch: row.weights.epoch,
                    id: row.weights.id,
                    at: row.weights.block,
                    entries: row.weights.entries.iter().map(|e| (e.uid, e.weight)).collect(),
                });
            }
            failed => {
                tracing::warn!(?failed, "the journal does not say which weights were set, asking again");
                ctx.run_later(Duration::from_secs(1), |act, ctx| act.remember(ctx));
            }
        }));
    }

    fn judged(&mut self, judged: EpochJudged, ctx: &mut Ctx<Self>) {
        if judged.void || self.board.epoch.max(self.scoring).is_some_and(|epoch| epoch >= judged.epoch) {
            return;
        }
        self.scoring = Some(judged.epoch);
        let allocations = self.setup.allocations.clone();
        let work = async move { (judged, allocations.ask(AllocatedDevices, ASK).await) };
        ctx.spawn(work.into_actor(self).map(|(judged, leased), act, ctx| {
            if act.scoring == Some(judged.epoch) {
                act.scoring = None;
            }
            match leased {
                _ if act.board.epoch.is_some_and(|epoch| epoch >= judged.epoch) => {}
                Ok(leased) => act.score(&judged, leased, ctx),
                Err(error) => {
                    tracing::warn!(epoch = judged.epoch, %error, "leases are not known, the epoch is scored when told again");
                }
            }
        }));
    }

    fn score(&mut self, judged: &EpochJudged, leased: HashMap<Hotkey, Vec<DeviceId>>, ctx: &mut Ctx<Self>) {
        let leased: BTreeMap<Hotkey, Vec<DeviceId>> = leased.into_iter().collect();
        let rows = scoring::score_all(&judged.table, &judged.miners, &leased);
        let scores = match self.records(judged, &rows, leased) {
            Ok(scores) => scores,
            Err(error) => {
                let (epoch, error) = (judged.epoch, error_chain(&error));
                tracing::error!(epoch, error, "scores that cannot be logged as evidence make no weights");
                Arc::make_mut(&mut self.board).problem = Some(format!("the scores cannot be logged: {error}"));
                return;
            }
        };
        let totals: Vec<(Uid, Points)> = rows.iter().map(|r| (r.uid, r.score.total)).collect();
        let weights = match scoring::weights(&totals) {
            Ok(weights) => weights,
            Err(error) => {
                tracing::error!(epoch = judged.epoch, %error, "the scores make no weights");
                Vec::new()
            }
        };
        // Metrics are floating point; nothing is computed from them.
        let shown: Vec<(Uid, f64)> = totals.iter().map(|(uid, points)| (*uid, points.0 as f64 / 1e9)).collect();
        self.setup.metrics.scores(&shown);
        let sum: u64 = weights.iter().map(|(_, w)| u64::from(*w)).sum();
        let share = |uid: Uid| weights.iter().find(|(u, _)| *u == uid).map_or(0.0, |(_, w)| f64::from(*w) / sum as f64);
        let by_uid: Vec<(Uid, f64)> = totals.iter().map(|(uid, _)| (*uid, share(*uid))).collect();
        self.setup.metrics.weights(&by_uid);
        self.unlogged.scored(judged.epoch, scores.clone());
        self.record(judged.epoch, scores, ctx);
        self.board = Arc::new(Scoreboard {
            epoch: Some(judged.epoch),
            rows,
            weights,
            included_at: None,
            epoch_on_chain: self.board.epoch_on_chain,
            problem: None,
        });
    }

    fn record(&self, epoch: u64, scores: Record, ctx: &mut Ctx<Self>) {
        let journal = self.setup.journal.clone();
        let work = async move { journal.ask(Write(vec![scores]), ASK).await };
        ctx.spawn(work.into_actor(self).map(move |written, act, _| match written {
            Ok(Ok(())) => act.unlogged.acknowledged(epoch),
            failed => tracing::warn!(epoch, ?failed, "scores not recorded yet, they go with the weights"),
        }));
    }

    fn records(
        &self,
        judged: &EpochJudged,
        rows: &[ScoreRow],
        leased: BTreeMap<Hotkey, Vec<DeviceId>>,
    ) -> Result<Record, CanonError> {
        let at_ms = self.setup.clock.now_ms();
        let mut records: Vec<Record> = judged
            .miners
            .iter()
            .zip(rows)
            .map(|(miner, row)| {
                Record::Score(ScoreRecord {
                    epoch: judged.epoch,
                    uid: row.uid,
                    hotkey: row.hotkey,
                    score: row.score.total,
                    parts: parts(miner, &row.score),
                    at_ms,
                })
            })
            .collect();
        records.push(Record::Evidence(evidence(judged, rows, leased, at_ms)?));
        Ok(Record::Batch(records))
    }

    /// Sets the board's weights if they are not on the chain yet and may be set now.
    fn reconcile(&mut self, view: &ChainView, ctx: &mut Ctx<Self>) {
        let (Some(past), false) = (self.past, self.working || view.is_stored()) else { return };
        self.setup = self.live.get();
        let Some(own) = view.metagraph.by_hotkey(&self.setup.hotkey) else { return };
        // An attempt ended without an answer: the chain itself says whether it was taken, now or in a later block.
        if let Some(Unclear { epoch, id, .. }) =
            self.unclear.take_if(|u| own.last_update > u.at && shows(own, &u.entries))
        {
            self.done(epoch, id, Ok(own.last_update));
            return;
        }
        if self.conflicts(own) {
            return;
        }
        let Some(epoch) = self.board.epoch.filter(|epoch| past.epoch.is_none_or(|set| set < *epoch)) else { return };
        let head = view.metagraph.head.number;
        if self.attempted_at == Some(head) || self.not_before.is_some_and(|at| Instant::now() < at) {
            return;
        }
        if let Some(problem) = lacks_permit(view, &self.setup.hotkey).filter(|_| self.setup.require_permit) {
            if self.board.problem.as_deref() != Some(problem) {
                tracing::warn!(epoch, problem, "weights are not set");
                Arc::make_mut(&mut self.board).problem = Some(problem.to_owned());
            }
            return;
        }
        let limit = view.hyperparameters.weights_rate_limit.max(self.setup.interval_blocks);
        if own.last_update > own.registered_at && head.saturating_sub(own.last_update) < limit {
            return;
        }
        let entries = match entries(&self.board.rows, view) {
            Ok(entries) if !entries.is_empty() => entries,
            Ok(_) => return,
            Err(error) => {
                tracing::error!(epoch, %error, "the scores make no weights within the subnet's limits");
                Arc::make_mut(&mut self.board).problem = Some(error.to_string());
                self.attempted_at = Some(head);
                return;
            }
        };
        Arc::make_mut(&mut self.board).weights = entries.clone();
        self.intend(entries.clone());
        let version_key = self.setup.version_key.max(view.hyperparameters.weights_version_key);
        self.attempted_at = Some(head);
        self.working = true;
        let names: HashMap<Uid, Hotkey> = self.board.rows.iter().map(|r| (r.uid, r.hotkey)).collect();
        let intent = WeightsRecord {
            id: past.next_id,
            epoch,
            block: head,
            entries: entries
                .iter()
                .filter_map(|(uid, weight)| {
                    // A neuron that was not judged has a weight only where the subnet asks for a least number of them.
                    let hotkey = names.get(uid).copied().or_else(|| Some(view.metagraph.by_uid(*uid)?.hotkey))?;
                    Some(WeightEntry { uid: *uid, hotkey, weight: *weight })
                })
                .collect(),
            at_ms: self.setup.clock.now_ms(),
        };
        let id = intent.id;
        if let Some(past) = &mut self.past {
            past.next_id += 1;
        }
        let attempt = Unclear { epoch, id, at: head, entries: entries.clone() };
        let body = WeightsBody {
            id,
            epoch,
            block: head,
            neurons: neurons(view),
            limits: limits(view),
            version_key,
            entries: entries.clone(),
        };
        let evidence = match entry(Kind::Weights, intent.at_ms, &body) {
            Ok(entry) => EvidenceRecord { entries: vec![entry], state: None, closes: None },
            Err(error) => {
                tracing::error!(epoch, error = error_chain(&error), "weights that cannot be logged are not set");
                self.working = false;
                return;
            }
        };
        let records = self.unlogged.with(intent, evidence);
        let work = set(self.setup.clone(), records, Weights { entries, version_key });
        ctx.spawn(work.into_actor(self).map(move |done, act, _| {
            if done.as_ref().map_or_else(|attempt| attempt.recorded, |_| true) {
                act.unlogged.acknowledged(epoch);
            }
            let unclear = done.as_ref().is_err_and(|attempt| attempt.unclear);
            if (unclear || done.is_ok())
                && let Some(old) = act.unclear.take()
            {
                let detail = "not seen on the chain before others were set".to_owned();
                act.settle(old.id, WeightsStatus::Failed, None, detail);
            }
            act.done(epoch, id, done);
            if unclear {
                act.unclear = Some(attempt);
            }
        }));
    }

    /// Records what became of an intent.
    fn settle(&self, id: u64, status: WeightsStatus, included_block: Option<BlockNumber>, detail: String) {
        let at_ms = self.setup.clock.now_ms();
        let body = WeightsStatusBody { id, status, block: included_block };
        let mut records =
            vec![Record::WeightsStatus(WeightsStatusRecord { id, status, included_block, detail, at_ms })];
        match entry(Kind::WeightsStatus, at_ms, &body) {
            Ok(entry) => {
                records.push(Record::Evidence(EvidenceRecord { entries: vec![entry], state: None, closes: None }));
            }
            Err(error) => tracing::error!(id, error = error_chain(&error), "what became of weights cannot be logged"),
        }
        if let Err(error) = self.setup.journal.tell(Note(Record::Batch(records))) {
            tracing::warn!(id, %error, "the result of setting weights is not recorded");
        }
    }

    fn done(&mut self, epoch: u64, id: u64, done: Result<BlockNumber, Attempt>) {
        self.working = false;
        let (result, detail) = match &done {
            Ok(block) => ("ok", format!("included in block {block}")),
            Err(Attempt { result, detail, .. }) => (*result, detail.clone()),
        };
        let neurons = self.board.weights.len();
        let block = done.as_ref().ok().copied().or(self.attempted_at).unwrap_or(0);
        WeightsSubmitted { block, neurons, result, detail: &detail }.emit(&self.setup.metrics);
        let board = Arc::make_mut(&mut self.board);
        match &done {
            Ok(block) => {
                (self.refused, self.not_before) = (0, None);
                self.known_update = self.known_update.max(Some(*block));
                board.epoch_on_chain = Some(epoch);
                board.problem = None;
                if board.epoch == Some(epoch) {
                    board.included_at = Some(*block);
                }
                if let Some(past) = &mut self.past {
                    past.epoch = Some(epoch);
                }
            }
            Err(attempt) => {
                board.problem = Some(attempt.detail.clone());
                // Too soon is a matter of blocks. Whatever else it is will hardly be over with the next one.
                if attempt.result != "too_soon" {
                    self.refused += 1;
                    self.not_before = Some(Instant::now() + self.setup.retry.delay(self.refused, 0.0, 0.0));
                }
            }
        }
        if done.as_ref().is_err_and(|attempt| !attempt.recorded) {
            return;
        }
        let status = match &done {
            Ok(_) => WeightsStatus::Included,
            Err(attempt) if attempt.unclear => WeightsStatus::Pending,
            Err(_) => WeightsStatus::Failed,
        };
        self.settle(id, status, done.ok(), detail);
    }
}

/// Why an attempt did not set weights.
struct Attempt {
    result: &'static str,
    detail: String,
    /// The intent is on disk.
    recorded: bool,
    /// The chain may have taken them all the same.
    unclear: bool,
}

async fn set(setup: Arc<WeightSetterSetup>, records: Vec<Record>, weights: Weights) -> Result<BlockNumber, Attempt> {
    let journal = |detail: String| Attempt { result: "error", detail, recorded: false, unclear: false };
    match setup.journal.ask(Write(records), ASK).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(journal(format!("the intent is not recorded: {}", error_chain(&error)))),
        Err(error) => return Err(journal(format!("the intent is not recorded: {error}"))),
    }
    let sent = tokio::time::timeout(setup.deadline, setup.chain.set_weights(&weights)).await;
    let error = match sent {
        Ok(Ok(inclusion)) => return Ok(inclusion.block),
        Ok(Err(error)) => error,
        Err(_) => ChainError::Deadline(setup.deadline),
    };
    let (result, unclear) = match &error {
        ChainError::Deadline(_) => ("timeout", true),
        ChainError::Rejected(Rejection::SettingWeightsTooFast) => ("too_soon", false),
        ChainError::Rejected(_) => ("refused", false),
        _ => ("error", true),
    };
    Err(Attempt { result, detail: error_chain(&error), recorded: true, unclear })
}

/// The weights that the scores come to in this view: of neurons that still have the slot they were judged in, and
/// within the subnet's limits.
fn entries(rows: &[ScoreRow], view: &ChainView) -> Result<Vec<(Uid, u16)>, scoring::WeightError> {
    scoring::weigh(rows, &neurons(view), &limits(view))
}

fn neurons(view: &ChainView) -> Vec<(Uid, Hotkey)> {
    view.metagraph.neurons.iter().map(|n| (n.uid, n.hotkey)).collect()
}

fn limits(view: &ChainView) -> WeightLimits {
    let rules = &view.hyperparameters;
    WeightLimits { min_allowed: rules.min_allowed_weights, max_weight: rules.max_weights_limit }
}

/// The scores for the evidence log. The table is in it: the epoch was judged by the same.
fn evidence(
    judged: &EpochJudged,
    rows: &[ScoreRow],
    allocated: BTreeMap<Hotkey, Vec<DeviceId>>,
    at_ms: u64,
) -> Result<EvidenceRecord, CanonError> {
    let rules = digest(&*judged.table)?;
    let body = ScoresBody { epoch: judged.epoch, rules, allocated, rows: ScoresBody::rows_of(rows) };
    Ok(EvidenceRecord { entries: vec![entry(Kind::Scores, at_ms, &body)?], state: None, closes: None })
}

/// Whether the chain shows weights as ours, set after the block `known`, that are none of our intents.
fn foreign(own: &Neuron, known: BlockNumber, intents: &VecDeque<Vec<(Uid, u16)>>) -> bool {
    // A registration counts as an update, and has no weights of its own.
    let set = own.last_update > known.max(own.registered_at) && !own.weights.is_empty();
    set && !intents.iter().any(|entries| shows(own, entries))
}

/// Whether the chain shows these weights as a neuron's. Both sides are scaled so that the largest is 65,535.
fn shows(neuron: &Neuron, weights: &[(Uid, u16)]) -> bool {
    let sorted = |weights: &[(Uid, u16)]| {
        let mut sorted: Vec<(Uid, u16)> = weights.iter().copied().filter(|(_, w)| *w > 0).collect();
        sorted.sort_unstable();
        sorted
    };
    sorted(&neuron.weights) == sorted(weights)
}

/// The arithmetic of a score in the form the database keeps.
fn parts(miner: &MinerJudgement, score: &Score) -> ScoreParts {
    let verdict_of = |device: DeviceId| miner.devices.iter().find(|d| d.device == device);
    let devices = score
        .parts
        .iter()
        .map(|p| DevicePart {
            device: p.device,
            model: p.model.clone(),
            base_micro: p.base_micro,
            rate: p.rate,
            judged: p.judged,
            nominal: p.nominal,
            factor_ppb: p.factor_ppb,
            credit: p.credit,
            counted: p.counted,
            verdict: verdict_of(p.device).map_or("unknown", |d| d.verdict.kind()).to_owned(),
            reason: p.reason.label().to_owned(),
        })
        .collect();
    let mut notes = Vec::new();
    if let Some(refusal) = &miner.refused {
        notes.push(format!("not asked: {}: {refusal}; {}", refusal.label(), refusal.remedy()));
    }
    if let Some(whole) = &miner.whole {
        notes.push(format!("the miner as a whole: {}: {}", whole.kind(), whole.reason()));
    }
    ScoreParts { devices, scaling: score.scaling, gpu: score.gpu, bonus: score.bonus, total: score.total, notes }
}

impl Actor for WeightSetter {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.remember(ctx);
    }
}

impl Supervised for WeightSetter {
    const MESSAGES: &'static [&'static str] = &["NewBlock", "EpochJudged", "GetScoreboard"];
}

impl Handler<NewBlock> for WeightSetter {
    type Result = ();
    fn handle(&mut self, NewBlock(view): NewBlock, ctx: &mut Ctx<Self>) {
        self.reconcile(&view, ctx);
    }
}

impl Handler<EpochJudged> for WeightSetter {
    type Result = ();
    fn handle(&mut self, judged: EpochJudged, ctx: &mut Ctx<Self>) {
        self.judged(judged, ctx);
    }
}

impl Handler<GetScoreboard> for WeightSetter {
    type Result = MessageResult<GetScoreboard>;
    fn handle(&mut self, _: GetScoreboard, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.board.clone())
    }
}

impl Handler<Inspect> for WeightSetter {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "epoch": self.board.epoch,
            "epoch_on_chain": self.board.epoch_on_chain,
            "included_at": self.board.included_at,
            "weights": self.board.weights.len(),
            "problem": self.board.problem,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{BlockHead, EpochClock, Hyperparameters, Metagraph};
    use crate::ids::{Coldkey, Hash32, Netuid};
    use crate::scoring::Scaling;

    fn neuron(uid: u16, hotkey: u8) -> Neuron {
        Neuron {
            uid: Uid(uid),
            hotkey: Hotkey([hotkey; 32]),
            coldkey: Coldkey([9; 32]),
            stake_rao: 0,
            validator_permit: uid == 0,
            active: true,
            axon: None,
            prometheus: None,
            registered_at: 1,
            last_update: 1,
            incentive: 0,
            dividends: 0,
            standing: crate::chain::Standing::default(),
            weights: vec![],
        }
    }

    fn view(neurons: Vec<Neuron>, hyperparameters: Hyperparameters) -> ChainView {
        let head = BlockHead { number: 10, hash: Hash32([0; 32]), timestamp_ms: 0 };
        let netuid = Netuid(1);
        let metagraph = Metagraph { netuid, head, epochs: EpochClock::Modulo { netuid, tempo: 5 }, neurons };
        ChainView::new(Arc::new(metagraph), Arc::new(hyperparameters), 10)
    }

    fn row(uid: u16, hotkey: u8, points: u64) -> ScoreRow {
        let total = Points(points * 1_000_000_000);
        let scaling = Scaling { max_devices: 8, max_base_micro: 4_000_000 };
        let score = Score { total, gpu: total, bonus: Points(0), scaling, parts: vec![] };
        ScoreRow { uid: Uid(uid), hotkey: Hotkey([hotkey; 32]), score }
    }

    #[test]
    fn weights_are_written_behind_their_scores_in_one_batch_until_those_are_acknowledged() {
        let evidence = |kind| EvidenceRecord::one(kind, 1, serde_json::json!({ "epoch": 7 }));
        let intent = || WeightsRecord { id: 1, epoch: 7, block: 10, entries: vec![], at_ms: 1 };
        let kinds = |unlogged: &Unlogged| -> Vec<&'static str> {
            fn of(record: &Record) -> Vec<&'static str> {
                match record {
                    Record::Batch(records) => records.iter().flat_map(of).collect(),
                    Record::Evidence(evidence) => evidence.entries.iter().map(|e| e.kind.label()).collect(),
                    _ => vec![],
                }
            }
            unlogged.with(intent(), evidence(Kind::Weights)).iter().flat_map(of).collect()
        };
        let mut unlogged = Unlogged::default();
        unlogged.scored(7, Record::Batch(vec![Record::Evidence(evidence(Kind::Scores))]));
        assert_eq!(kinds(&unlogged), ["scores", "weights"]);
        unlogged.acknowledged(6);
        assert_eq!(kinds(&unlogged), ["scores", "weights"], "that was an earlier epoch's");
        unlogged.acknowledged(7);
        assert_eq!(kinds(&unlogged), ["weights"]);
    }

    #[test]
    fn weights_go_only_to_those_who_were_judged_in_the_slot() {
        let rows = [row(1, 1, 100), row(2, 2, 50), row(3, 3, 0)];
        let same = view(vec![neuron(0, 0), neuron(1, 1), neuron(2, 2), neuron(3, 3)], Hyperparameters::default());
        assert_eq!(entries(&rows, &same).unwrap(), [(Uid(1), 65_535), (Uid(2), 32_768)]);
        // Slot 1 went to another hotkey since.
        let other = view(vec![neuron(0, 0), neuron(1, 7), neuron(2, 2), neuron(3, 3)], Hyperparameters::default());
        assert_eq!(entries(&rows, &other).unwrap(), [(Uid(2), 65_535)]);
    }

    #[test]
    fn the_subnets_least_number_and_largest_share_of_weights_are_kept() {
        let neurons = || vec![neuron(0, 0), neuron(1, 1), neuron(2, 2), neuron(3, 3)];
        let rows = [row(1, 1, 300), row(2, 2, 100), row(3, 3, 0)];
        let many = Hyperparameters { min_allowed_weights: 4, ..Hyperparameters::default() };
        assert_eq!(entries(&rows, &view(neurons(), many)).unwrap().len(), 4);
        let flat = Hyperparameters { max_weights_limit: 32_768, ..Hyperparameters::default() };
        let weights = entries(&rows, &view(neurons(), flat)).unwrap();
        let sum: u32 = weights.iter().map(|(_, w)| u32::from(*w)).sum();
        assert!(weights.iter().all(|(_, w)| u32::from(*w) * 2 <= sum + 2), "{weights:?}");
        let none = [row(1, 1, 0)];
        assert!(entries(&none, &view(neurons(), Hyperparameters::default())).unwrap().is_empty());
    }

    #[test]
    fn only_newer_weights_that_were_never_intended_are_somebody_elses() {
        let ours = vec![(Uid(1), 65_535), (Uid(2), 32_768)];
        let intents = VecDeque::from([vec![(Uid(3), 65_535)], ours.clone()]);
        let on_chain =
            |weights: &[(Uid, u16)], last_update| Neuron { last_update, weights: weights.to_vec(), ..neuron(0, 0) };
        let others = [(Uid(1), 65_535), (Uid(2), 1)];
        assert!(foreign(&on_chain(&others, 8), 7, &intents));
        assert!(!foreign(&on_chain(&others, 7), 7, &intents), "they were there when we first looked");
        assert!(!foreign(&on_chain(&ours, 8), 7, &intents));
        assert!(!foreign(&on_chain(&[(Uid(3), 65_535)], 8), 7, &intents), "an earlier intent that came late");
        assert!(!foreign(&on_chain(&[], 8), 7, &intents));
        let anew = Neuron { registered_at: 8, ..on_chain(&others, 8) };
        assert!(!foreign(&anew, 7, &intents), "registered anew");
    }
}
