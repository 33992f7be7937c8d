//! Turns judgements into scores and weights, sets them on chain, and confirms that they are there.
//!
//! Invariants: scores are computed once for each judged epoch and stored with their arithmetic; what is about to be sent is
//! on disk whole, behind the scores that it follows from, before the chain is called; an epoch's weights are set at most
//! once, and count as set only when a finalised block shows them; nothing is sent while it is not known whether something
//! else will still arrive; between two settings the chain's rate limit is kept; once the chain shows weights or commits
//! of our hotkey that were never meant to be here, none are set any more until the next start.
//!
//! Design notes: a reconciler. What should be on the chain is the last scoreboard; every new block is a nudge to look what
//! the chain shows of the open intents (`watch`, by [`chain::weights::intent`](crate::chain::weights::intent)), to reveal
//! what is due, and to send the board's weights if they may be sent (`rules`); at most one attempt a block, and later ones
//! after refusals. On restart the journal tells the open intents with all that is needed to go on; the scores come back
//! with the judged epoch, which is told again with every block. In `shadow` mode everything is done but sending.

mod board;
mod compare;
mod foreign;
mod reconcile;
mod rules;
mod send;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use self::board::Unlogged;
use self::foreign::Known;
pub use self::rules::BurnRule;
use self::watch::Open;
use crate::actors::exclusive::Exclusive;
use crate::actors::journal::Journal;
use crate::actors::validator::allocation_manager::AllocationManager;
use crate::chain::Chain;
use crate::clock::SharedClock;
use crate::ids::{BlockNumber, Epoch, Hotkey};
use crate::messages::chain_watcher::{ChainView, NewBlock};
use crate::messages::journal::{GetLastWeights, LastWeights};
use crate::messages::validator::challenge_runner::EpochJudged;
use crate::messages::validator::weight_setter::{GetScoreboard, Scoreboard};
use crate::runtime::{Backoff, Ctx, Handle, Inspect, Supervised};
use crate::settings::{Live, WeightsMode};
use crate::store::records::WeightsStatus;
use crate::telemetry::NodeMetrics;

/// How long the validator's own actors may take to answer.
const ASK: Duration = Duration::from_secs(5);

/// What the setter works with.
pub struct WeightSetterSetup {
    /// Our own key.
    pub hotkey: Hotkey,
    /// What is known of other nodes with it.
    pub exclusive: Arc<Exclusive>,
    /// Where weights go.
    pub chain: Arc<dyn Chain>,
    /// How long one call to the chain may take: for weights, until they are included.
    pub deadline: Duration,
    /// The version key sent with weights.
    pub version_key: u64,
    /// Least blocks between two settings, beyond the chain's own limit.
    pub interval_blocks: u64,
    /// Whether nothing is set without a validator permit.
    pub require_permit: bool,
    /// Whether weights are sent.
    pub mode: WeightsMode,
    /// The subnet's mechanism that they are for.
    pub mechanism: u8,
    /// The share that nobody earns.
    pub burn: BurnRule,
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
    /// The newest epoch that needs no other weights: they are on the chain, or their commit was missed.
    settled: Option<Epoch>,
    /// The newest epoch whose weights were prepared without sending them.
    shadowed: Option<Epoch>,
}

/// Failed calls in a row, and until when there is no other.
#[derive(Debug, Default)]
struct Pause {
    failed: usize,
    not_before: Option<Instant>,
}

impl Pause {
    fn over(&self) -> bool {
        self.not_before.is_none_or(|at| Instant::now() >= at)
    }

    fn longer(&mut self, retry: &Backoff) {
        self.failed += 1;
        self.not_before = Some(Instant::now() + retry.delay(self.failed, 0.0, 0.0));
    }

    fn end(&mut self) {
        *self = Pause::default();
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
    /// A call to the chain is on its way.
    working: bool,
    /// The judged epoch whose leases are being asked for.
    scoring: Option<u64>,
    /// The newest view of the chain.
    view: Option<Arc<ChainView>>,
    attempted_at: Option<BlockNumber>,
    /// After attempts to send, and to reveal.
    pause: Pause,
    reveal_pause: Pause,
    /// The intents whose end is not known, oldest first; at most one of them is in flight.
    open: Vec<Open>,
    /// The finalised block that was looked at last.
    looked_at: BlockNumber,
    /// The name of the error that the last look ended with.
    unseen: Option<&'static str>,
    /// What the chain may show of us.
    known: Known,
    /// A comparison with other validators is on its way.
    comparing: bool,
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
            view: None,
            attempted_at: None,
            pause: Pause::default(),
            reveal_pause: Pause::default(),
            open: Vec::new(),
            looked_at: 0,
            unseen: None,
            known: Known::default(),
            comparing: false,
        }
    }

    fn remember(&mut self, ctx: &mut Ctx<Self>) {
        let journal = self.setup.journal.clone();
        let work = async move { journal.ask(GetLastWeights, ASK).await };
        ctx.spawn(work.into_actor(self).map(|loaded, act, ctx| match loaded {
            Ok(Ok(past)) => act.remembered(past),
            failed => {
                let error = format!("{:?}", failed.map(|answer| answer.map(|_| ())));
                tracing::warn!(error, "the journal does not say which weights were set, asking again");
                ctx.run_later(Duration::from_secs(1), |act, ctx| act.remember(ctx));
            }
        }));
    }

    fn remembered(&mut self, past: LastWeights) {
        if let Some(row) = &past.included {
            self.setup.metrics.weights_last_set_at(row.updated_ms as f64 / 1000.0);
        }
        // The newest last.
        for row in past.included.iter().chain(past.recent.iter().rev()) {
            self.known.intended(row);
        }
        let shadowed = past.recent.iter().filter(|row| row.status == WeightsStatus::Shadow);
        let shadowed = shadowed.map(|row| row.weights.epoch).max();
        self.past = Some(Past { next_id: past.next_id, settled: past.settled, shadowed });
        self.open = past.open.iter().map(Open::read).collect();
        Arc::make_mut(&mut self.board).epoch_on_chain = past.included.map(|row| row.weights.epoch);
        self.show_open();
    }

    /// Shows a problem, and tells of it if it is another one than before.
    fn problem(&mut self, problem: String) {
        if self.board.problem.as_ref() != Some(&problem) {
            tracing::warn!(epoch = self.board.epoch, problem, "weights are not set");
            Arc::make_mut(&mut self.board).problem = Some(problem);
        }
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
        self.reconcile(view, ctx);
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
            "open": self.board.open,
            "looked_at": self.looked_at,
        }))
    }
}
