//! From a judged epoch to the scoreboard: scores with their arithmetic, recorded before anything is made of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use actix::prelude::*;

use super::{ASK, WeightSetter};
use crate::evidence::canon::CanonError;
use crate::evidence::record::{ScoresBody, digest, entry};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::{DeviceId, Hotkey, Uid};
use crate::messages::journal::Write;
use crate::messages::validator::allocation_manager::AllocatedDevices;
use crate::messages::validator::challenge_runner::{EpochJudged, MinerJudgement};
use crate::messages::validator::weight_setter::{ScoreRow, Scoreboard};
use crate::runtime::Ctx;
use crate::scoring::{self, Points, RateSource, Score};
use crate::store::Record;
use crate::store::records::{DevicePart, ScoreParts, ScoreRecord, WeightsRecord};
use crate::telemetry::error_chain;

/// The scores of the board for as long as the journal has not acknowledged them.
#[derive(Debug, Default)]
pub(super) struct Unlogged(Option<(u64, Record)>);

impl Unlogged {
    pub(super) fn scored(&mut self, epoch: u64, scores: Record) {
        self.0 = Some((epoch, scores));
    }

    pub(super) fn acknowledged(&mut self, epoch: u64) {
        self.0.take_if(|(of, _)| *of == epoch);
    }

    /// What an intent is written with: never without the scores that it follows from. Twice in the log they do no harm.
    pub(super) fn with(&self, intent: WeightsRecord, evidence: EvidenceRecord) -> Vec<Record> {
        let scores = self.0.iter().map(|(_, scores)| scores.clone());
        scores.chain([Record::Weights(intent), Record::Evidence(evidence)]).collect()
    }
}
impl WeightSetter {
    pub(super) fn judged(&mut self, judged: EpochJudged, ctx: &mut Ctx<Self>) {
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

    pub(super) fn score(&mut self, judged: &EpochJudged, leased: HashMap<Hotkey, Vec<DeviceId>>, ctx: &mut Ctx<Self>) {
        let mut leased: BTreeMap<Hotkey, Vec<DeviceId>> = leased.into_iter().collect();
        // What others rent counts as what we rent.
        for (miner, devices) in &*judged.receipts {
            let all = leased.entry(*miner).or_default();
            let more: Vec<DeviceId> = devices.iter().copied().filter(|device| !all.contains(device)).collect();
            all.extend(more);
        }
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
            open: self.board.open.clone(),
            comparison: self.board.comparison.clone(),
        });
    }

    pub(super) fn record(&self, epoch: u64, scores: Record, ctx: &mut Ctx<Self>) {
        let journal = self.setup.journal.clone();
        let work = async move { journal.ask(Write(vec![scores]), ASK).await };
        ctx.spawn(work.into_actor(self).map(move |written, act, _| match written {
            Ok(Ok(())) => act.unlogged.acknowledged(epoch),
            failed => tracing::warn!(epoch, ?failed, "scores not recorded yet, they go with the weights"),
        }));
    }

    pub(super) fn records(
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
}

/// The scores for the evidence log. The table is in it: the epoch was judged by the same.
pub(super) fn evidence(
    judged: &EpochJudged,
    rows: &[ScoreRow],
    allocated: BTreeMap<Hotkey, Vec<DeviceId>>,
    at_ms: u64,
) -> Result<EvidenceRecord, CanonError> {
    let rules = digest(&*judged.table)?;
    let body = ScoresBody { epoch: judged.epoch, rules, allocated, rows: ScoresBody::rows_of(rows) };
    Ok(EvidenceRecord { entries: vec![entry(Kind::Scores, at_ms, &body)?], state: None, closes: None })
}

/// What an operator should know about the figures that a device is paid by.
fn part_note(part: &scoring::DevicePart) -> Option<String> {
    let twin = part.twin.as_ref().map(|twin| format!("paid as its twin {twin}, which nothing proved tells it from"));
    let estimate = (part.source == Some(RateSource::Datasheet)).then(|| "rates estimated from a data sheet".to_owned());
    let said: Vec<String> = twin.into_iter().chain(estimate).collect();
    (!said.is_empty()).then(|| format!("{} as {}: {}", part.device, part.model, said.join("; ")))
}

/// The arithmetic of a score in the form the database keeps.
pub(super) fn parts(miner: &MinerJudgement, score: &Score) -> ScoreParts {
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
    let mut notes: Vec<String> = score.parts.iter().filter(|part| part.counted).filter_map(part_note).collect();
    if let Some(refusal) = &miner.refused {
        notes.push(format!("not asked: {}: {refusal}; {}", refusal.label(), refusal.remedy()));
    }
    if let Some(whole) = &miner.whole {
        notes.push(format!("the miner as a whole: {}: {}", whole.kind(), whole.reason()));
    }
    ScoreParts { devices, scaling: score.scaling, gpu: score.gpu, bonus: score.bonus, total: score.total, notes }
}
