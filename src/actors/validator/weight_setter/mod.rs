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

mod board;
mod foreign;
mod reconcile;
mod send;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use self::board::Unlogged;
use crate::actors::exclusive::Exclusive;
use crate::actors::journal::Journal;
use crate::actors::validator::allocation_manager::AllocationManager;
use crate::chain::Chain;
use crate::clock::SharedClock;
use crate::ids::{BlockNumber, Hotkey, Uid};
use crate::messages::chain_watcher::NewBlock;
use crate::messages::journal::GetLastWeights;
use crate::messages::validator::challenge_runner::EpochJudged;
use crate::messages::validator::weight_setter::{GetScoreboard, Scoreboard};
use crate::runtime::{Backoff, Ctx, Handle, Inspect, Supervised};
use crate::settings::Live;
use crate::store::records::WeightsStatus;
use crate::telemetry::NodeMetrics;

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
