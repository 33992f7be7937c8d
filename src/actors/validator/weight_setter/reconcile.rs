//! Makes the chain match the scoreboard: whether weights are to be set now, and which.

use std::collections::HashMap;
use std::sync::Arc;

use actix::prelude::*;
use tokio::time::Instant;

use super::foreign::shows;
use super::send::set;
use super::{Unclear, WeightSetter};
use crate::actors::validator::lacks_permit;
use crate::chain::Weights;
use crate::evidence::record::{WeightsBody, entry};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::{Hotkey, Uid};
use crate::messages::chain_watcher::ChainView;
use crate::messages::validator::weight_setter::ScoreRow;
use crate::runtime::Ctx;
use crate::scoring::{self, WeightLimits};
use crate::store::records::{WeightEntry, WeightsRecord, WeightsStatus};
use crate::telemetry::error_chain;

impl WeightSetter {
    /// Sets the board's weights if they are not on the chain yet and may be set now.
    pub(super) fn reconcile(&mut self, view: &ChainView, ctx: &mut Ctx<Self>) {
        let (Some(past), false) = (self.past, self.working) else { return };
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
}

/// The weights that the scores come to in this view: of neurons that still have the slot they were judged in, and
/// within the subnet's limits.
pub(super) fn entries(rows: &[ScoreRow], view: &ChainView) -> Result<Vec<(Uid, u16)>, scoring::WeightError> {
    scoring::weigh(rows, &neurons(view), &limits(view))
}

pub(super) fn neurons(view: &ChainView) -> Vec<(Uid, Hotkey)> {
    view.metagraph.neurons.iter().map(|n| (n.uid, n.hotkey)).collect()
}

pub(super) fn limits(view: &ChainView) -> WeightLimits {
    let rules = &view.hyperparameters;
    WeightLimits { min_allowed: rules.min_allowed_weights, max_weight: rules.max_weights_limit }
}
