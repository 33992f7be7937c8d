//! Prepares and sends weights. The intent is on disk in between.

use std::sync::Arc;

use actix::prelude::*;

use super::watch::Open;
use super::{ASK, WeightSetter, WeightSetterSetup};
use crate::chain::weights::intent::{Intent, Stage};
use crate::chain::{ChainError, Inclusion, PreparedWeights, Rejection, Weights};
use crate::ids::{BlockNumber, Epoch};
use crate::messages::journal::Write;
use crate::runtime::Ctx;
use crate::settings::WeightsMode;
use crate::store::Record;
use crate::store::records::WeightsStatus;
use crate::telemetry::error_chain;
use crate::telemetry::events::WeightsSubmitted;

/// An intent, and what is written of it before it is sent.
pub(super) struct Shipment {
    pub(super) id: u64,
    pub(super) epoch: Epoch,
    pub(super) records: Vec<Record>,
}

/// Why an attempt did not set weights.
enum Failure {
    /// The intent is not on disk: nothing was sent.
    Unwritten(String),
    /// The chain did not take it, or did not answer.
    Chain(ChainError),
}

/// Has the chain's client make weights ready. Gives them back beside.
pub(super) async fn prepare(
    setup: &WeightSetterSetup,
    weights: Weights,
) -> (Weights, Result<PreparedWeights, ChainError>) {
    let prepared = tokio::time::timeout(setup.deadline, setup.chain.prepare_weights(&weights)).await;
    let prepared = prepared.unwrap_or(Err(ChainError::Deadline(setup.deadline))).and_then(|prepared| {
        let (is, should) = (prepared.mechanism, setup.mechanism);
        match is == should {
            true => Ok(prepared),
            false => Err(ChainError::Protocol(format!(
                "weights were prepared for mechanism {is}, weights.mechanism is {should}; restart this node"
            ))),
        }
    });
    (weights, prepared)
}

async fn write(setup: &WeightSetterSetup, records: Vec<Record>) -> Result<(), String> {
    match setup.journal.ask(Write(records), ASK).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("the intent is not recorded: {}", error_chain(&error))),
        Err(error) => Err(format!("the intent is not recorded: {error}")),
    }
}

async fn send(
    setup: Arc<WeightSetterSetup>,
    records: Vec<Record>,
    prepared: PreparedWeights,
) -> (PreparedWeights, Result<Inclusion, Failure>) {
    if let Err(unwritten) = write(&setup, records).await {
        return (prepared, Err(Failure::Unwritten(unwritten)));
    }
    let sent = tokio::time::timeout(setup.deadline, setup.chain.submit_weights(&prepared)).await;
    let sent = sent.unwrap_or(Err(ChainError::Deadline(setup.deadline))).map_err(Failure::Chain);
    (prepared, sent)
}

/// The result of an attempt within the chain's rate limit.
const TOO_SOON: &str = "too_soon";

/// The result of an attempt as the metrics have it.
fn result(error: &ChainError) -> &'static str {
    match error {
        ChainError::Deadline(_) => "timeout",
        ChainError::Rejected(
            Rejection::SettingWeightsTooFast | Rejection::CommittingWeightsTooFast | Rejection::RateLimitExceeded,
        ) => TOO_SOON,
        ChainError::Rejected(_) => "refused",
        _ => "error",
    }
}

impl WeightSetter {
    /// Writes an intent and sends it; in shadow mode only the former.
    pub(super) fn ship(
        &mut self,
        shipment: Shipment,
        prepared: Result<PreparedWeights, ChainError>,
        ctx: &mut Ctx<Self>,
    ) {
        match prepared {
            prepared if self.setup.mode == WeightsMode::Shadow => self.store(shipment, prepared.err(), ctx),
            Ok(prepared) => self.send(shipment, prepared, ctx),
            Err(error) => {
                self.working = false;
                self.setup.metrics.weights_error(&error);
                self.failed(result(&error), error_chain(&error));
            }
        }
    }

    fn send(&mut self, Shipment { id, epoch, records }: Shipment, prepared: PreparedWeights, ctx: &mut Ctx<Self>) {
        self.use_up(id);
        let work = send(self.setup.clone(), records, prepared);
        ctx.spawn(work.into_actor(self).map(move |(prepared, sent), act, ctx| {
            act.working = false;
            if !matches!(sent, Err(Failure::Unwritten(_))) {
                act.unlogged.acknowledged(epoch);
            }
            act.sent(Open { id, epoch, intent: Intent::written(prepared) }, sent, ctx);
        }));
    }

    fn sent(&mut self, mut open: Open, sent: Result<Inclusion, Failure>, ctx: &mut Ctx<Self>) {
        match sent {
            Ok(Inclusion { block, .. }) => {
                open.intent.stage = Stage::Sent { block };
                self.submitted(block, "ok", "");
                self.pause.end();
                Arc::make_mut(&mut self.board).problem = None;
                self.known.updated(block);
                self.settle(open.id, WeightsStatus::Sent, Some(block), format!("included in block {block}"));
                self.follow(open);
                // A chain that finalises at once shows them already.
                if let Some(view) = self.view.clone() {
                    self.look(view, ctx);
                }
            }
            Err(Failure::Unwritten(problem)) => self.failed("error", problem),
            Err(Failure::Chain(error)) => {
                self.setup.metrics.weights_error(&error);
                let detail = error_chain(&error);
                if error.is_unclear() {
                    open.intent.unanswered(self.newest_head());
                    self.settle(open.id, WeightsStatus::Pending, None, detail.clone());
                    self.follow(open);
                } else {
                    self.settle(open.id, WeightsStatus::Failed, None, detail.clone());
                }
                self.failed(result(&error), detail);
            }
        }
    }

    /// From now on the chain may show these weights.
    fn follow(&mut self, open: Open) {
        self.known.intended(&open.intent.prepared);
        self.open.push(open);
        self.show_open();
    }

    /// An attempt failed: told, and the next one is later.
    fn failed(&mut self, result: &'static str, detail: String) {
        self.submitted(self.attempted_at.unwrap_or(0), result, &detail);
        Arc::make_mut(&mut self.board).problem = Some(detail);
        // The rate limit is a matter of blocks. Whatever else it is will hardly be over with the next one.
        if result != TOO_SOON {
            self.pause.longer(&self.setup.retry);
        }
    }

    /// Writes weights that are not to be sent.
    fn store(&mut self, Shipment { id, epoch, records }: Shipment, refused: Option<ChainError>, ctx: &mut Ctx<Self>) {
        self.use_up(id);
        let setup = self.setup.clone();
        let work = async move { write(&setup, records).await };
        ctx.spawn(work.into_actor(self).map(move |written, act, _| {
            act.working = false;
            if let Err(problem) = written {
                return act.failed("error", problem);
            }
            act.unlogged.acknowledged(epoch);
            if let Some(past) = &mut act.past {
                past.shadowed = Some(epoch);
            }
            act.pause.end();
            let refused = refused.map(|error| error_chain(&error));
            let detail = refused.as_ref().map_or_else(
                || "weights.mode is shadow: not sent".to_owned(),
                |refused| format!("weights.mode is shadow: not sent, and could not be: {refused}"),
            );
            act.submitted(act.attempted_at.unwrap_or(0), "shadow", &detail);
            act.settle(id, WeightsStatus::Shadow, None, detail);
            Arc::make_mut(&mut act.board).problem = refused;
        }));
    }

    fn use_up(&mut self, id: u64) {
        if let Some(past) = &mut self.past {
            past.next_id = past.next_id.max(id + 1);
        }
    }

    fn newest_head(&self) -> BlockNumber {
        self.view.as_ref().map_or(0, |view| view.metagraph.head.number)
    }

    fn submitted(&self, block: BlockNumber, result: &'static str, detail: &str) {
        let neurons = self.board.weights.len();
        WeightsSubmitted { block, neurons, result, detail }.emit(&self.setup.metrics);
    }
}
