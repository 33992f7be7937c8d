//! Sends weights, and records what became of them.

use std::sync::Arc;

use tokio::time::Instant;

use super::{ASK, WeightSetter, WeightSetterSetup};
use crate::chain::{ChainError, Rejection, Weights};
use crate::evidence::record::{WeightsStatusBody, entry};
use crate::evidence::{EvidenceRecord, Kind};
use crate::ids::BlockNumber;
use crate::messages::journal::{Note, Write};
use crate::store::Record;
use crate::store::records::{WeightsStatus, WeightsStatusRecord};
use crate::telemetry::error_chain;
use crate::telemetry::events::WeightsSubmitted;

impl WeightSetter {
    /// Records what became of an intent.
    pub(super) fn settle(&self, id: u64, status: WeightsStatus, included_block: Option<BlockNumber>, detail: String) {
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

    pub(super) fn done(&mut self, epoch: u64, id: u64, done: Result<BlockNumber, Attempt>) {
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
pub(super) struct Attempt {
    result: &'static str,
    detail: String,
    /// The intent is on disk.
    pub(super) recorded: bool,
    /// The chain may have taken them all the same.
    pub(super) unclear: bool,
}

pub(super) async fn set(
    setup: Arc<WeightSetterSetup>,
    records: Vec<Record>,
    weights: Weights,
) -> Result<BlockNumber, Attempt> {
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
