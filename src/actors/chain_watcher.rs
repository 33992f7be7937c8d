//! Follows the chain: owns the view of the subnet, publishes it, and keeps our endpoints announced on it.
//!
//! Invariants: a view is published only when it was read whole, from one head; subscribers hear of each head at most
//! once; a failed read leaves the last view in place, and its age tells how old it is. The slots of an epoch are made from
//! the first of its blocks that is seen; they change if their beacon is replaced before that block is final, and else stay
//! as they are until the next. Which heads are followed is decided in
//! [`crate::chain::heads`]: an endpoint that is behind takes nobody back.
//!
//! The last view is kept in the database, once an epoch and when who is in the subnet has changed. If the first look at
//! the chain fails, a node starts from that one: it is published for those who read it and told to the guard, so that
//! leases go on. No block is told of it, so nobody's turn comes, nobody is judged and no weights are set.
//!
//! With each view it is published how our own neuron stands ([`crate::chain::standing`]), and what changed is told once.
//!
//! Design notes: a reconciler. It runs on a period and on a nudge ([`Poll`]), never twice at once, and does not retry
//! by itself. Announcing our axon is part of the same turn: what the chain shows is compared with what should be
//! there, and corrected, unless another node with our hotkey put it there ([`super::exclusive`]): before our axon takes
//! the place of another address, whoever answers there is asked, and once the chain had ours it is never taken back. Had
//! it ours in a block that was replaced, it is announced as for the first time once finality has passed that block. On
//! restart the first read rebuilds everything.

mod announce;
mod kept;
mod look;
mod stall;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use self::announce::Attempts;
pub(super) use self::look::differs;
use self::look::{Looked, look};
use self::stall::{Finality, FinalityNews, Stall};
use super::Subscriber;
use super::exclusive::{Exclusive, Rival};
use super::journal::Journal;
use crate::chain::heads::{Heads, Step};
use crate::chain::standing::{OwnStanding, standing};
use crate::chain::{BlockHead, Chain, ChainError, Metagraph};
use crate::clock::SharedClock;
use crate::ids::{BlockNumber, Hotkey};
use crate::messages::chain_watcher::{ChainView, MetagraphChanged, NewBlock, Poll};
use crate::messages::journal::{LastView, Note};
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::store::Record;
use crate::telemetry::NodeMetrics;
use crate::telemetry::events::{ChainReorganised, ChainStalled, StandingChanged};

/// How long the journal may take to answer.
const ASK: Duration = Duration::from_secs(5);
/// Heads from which the time between two blocks is taken.
const TIMED_HEADS: usize = 16;

/// An axon that the chain is to show.
pub struct AxonToAnnounce {
    /// Its address as others reach it.
    pub address: SocketAddr,
    /// The version it claims.
    pub version: u32,
    /// Asks the address that the chain shows instead.
    pub rival: Rival,
}

/// What the watcher works with.
pub struct ChainWatcherSetup {
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// Our own key.
    pub hotkey: Hotkey,
    /// Time between two looks at the head.
    pub period: Duration,
    /// How long one look may take in all.
    pub deadline: Duration,
    /// Time without a new block after which the chain counts as standing still.
    pub stalled_after: Duration,
    /// The axon to announce; a validator that serves none announces none.
    pub axon: Option<AxonToAnnounce>,
    /// What is known of other nodes with our hotkey.
    pub exclusive: Arc<Exclusive>,
    /// The metrics endpoint to announce, if it is public.
    pub prometheus: Option<(SocketAddr, u32)>,
    /// Announce the metrics endpoint once even if the chain has it.
    pub force_prometheus: bool,
    /// Who hears of every head.
    pub on_block: Vec<Subscriber<NewBlock>>,
    /// Who hears of changed neurons.
    pub on_metagraph: Vec<Subscriber<MetagraphChanged>>,
    /// Where the view is published for readers that are no actors.
    pub view: watch::Sender<Option<Arc<ChainView>>>,
    /// Where it is published how our own neuron stands, as of the last view that was read from the chain.
    pub standing: watch::Sender<Option<Arc<OwnStanding>>>,
    /// Whether this is a validator: it needs stake and a permit.
    pub validator: bool,
    /// The network's name: a view kept from another one is not used.
    pub network: String,
    /// Keeps the last view.
    pub journal: Handle<Journal>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// The actor.
pub struct ChainWatcher {
    setup: Arc<ChainWatcherSetup>,
    view: Option<Arc<ChainView>>,
    followed: Heads,
    heads: VecDeque<BlockHead>,
    looking: bool,
    last_error: Option<String>,
    /// The head of an endpoint that is behind.
    behind: Option<BlockNumber>,
    /// The metagraph that was kept last.
    kept: Option<Arc<Metagraph>>,
    /// Whether the journal was asked for the last view.
    recalled: bool,
    stall: Stall,
    finality: Finality,
    announcing: bool,
    axon_attempts: Attempts,
    prometheus_attempts: Attempts,
    forced: bool,
}

impl ChainWatcher {
    /// A watcher that has seen nothing yet.
    pub fn new(setup: Arc<ChainWatcherSetup>) -> Self {
        let forced = !setup.force_prometheus;
        ChainWatcher {
            stall: Stall::new(setup.stalled_after, Instant::now()),
            setup,
            view: None,
            followed: Heads::default(),
            heads: VecDeque::with_capacity(TIMED_HEADS),
            looking: false,
            last_error: None,
            behind: None,
            kept: None,
            recalled: false,
            finality: Finality::default(),
            announcing: false,
            axon_attempts: Attempts::default(),
            prometheus_attempts: Attempts::default(),
            forced,
        }
    }

    fn look(&mut self, ctx: &mut Ctx<Self>) {
        if self.looking {
            return;
        }
        self.looking = true;
        let setup = self.setup.clone();
        let last = self.view.clone().filter(|view| !view.is_stored());
        let followed = self.followed.clone();
        let work = async move {
            match tokio::time::timeout(setup.deadline, look(setup.chain.as_ref(), &followed, last.as_deref())).await {
                Ok(looked) => looked,
                Err(_) => Err(ChainError::Deadline(setup.deadline)),
            }
        };
        ctx.spawn(work.into_actor(self).map(|looked, act, ctx| {
            act.looking = false;
            match looked {
                Ok(Looked::Seen(view, step)) => act.saw(*view, step, ctx),
                Ok(Looked::Same) => {
                    act.behind = None;
                    act.recovered();
                }
                Ok(Looked::Behind(head)) => {
                    if act.behind.replace(head).is_none() {
                        tracing::debug!(
                            head,
                            "the endpoint is behind, or on a shorter branch; the last view stays in use"
                        );
                    }
                    act.recovered();
                }
                Err(error) => act.failed(&error, ctx),
            }
        }));
    }

    /// Tells once if no block has come for too long.
    fn check_age(&mut self) {
        if self.stall.is_news(Instant::now()) {
            let block = self.view.as_ref().map_or(0, |v| v.metagraph.head.number);
            let behind = self.behind.map(|head| format!("the endpoint is behind, its head is {head}"));
            let cause = self.last_error.as_deref().or(behind.as_deref());
            let cause = cause.unwrap_or("the endpoint answers, but its head does not move");
            ChainStalled { block, cause }.emit(&self.setup.metrics);
        }
    }

    /// Time between two blocks by the clock of their authors, over the last heads, this one included.
    fn block_time(&mut self, head: BlockHead) -> Option<Duration> {
        if self.heads.len() == TIMED_HEADS {
            self.heads.pop_front();
        }
        self.heads.push_back(head);
        let first = self.heads.front()?;
        let blocks = u32::try_from(head.number.checked_sub(first.number)?).ok()?;
        Duration::from_millis(head.timestamp_ms.saturating_sub(first.timestamp_ms)).checked_div(blocks)
    }

    fn recovered(&mut self) {
        if self.last_error.take().is_some() {
            tracing::info!("the chain answers again");
        }
    }

    fn failed(&mut self, error: &ChainError, ctx: &mut Ctx<Self>) {
        let text = crate::telemetry::error_chain(error);
        if self.last_error.as_deref() != Some(&text) {
            tracing::warn!(error = text, "the chain cannot be read, the last view stays in use");
        }
        self.last_error = Some(text);
        // What the view's channel holds is from the chain, if by an earlier incarnation.
        if self.view.is_none() && !self.recalled && self.setup.view.borrow().is_none() {
            self.recall(ctx);
        }
    }

    /// The chain does not answer, and was never read: takes the last view of an earlier run from the database.
    fn recall(&mut self, ctx: &mut Ctx<Self>) {
        self.recalled = true;
        let journal = self.setup.journal.clone();
        let work = async move { journal.ask(LastView, ASK).await };
        ctx.spawn(work.into_actor(self).map(|read, act, _| {
            let record = match read {
                Ok(Ok(record)) => record,
                failed => {
                    tracing::warn!(?failed, "the journal does not say what the subnet was, asking again");
                    act.recalled = false;
                    return;
                }
            };
            let (Some(record), None) = (record, &act.view) else { return };
            let (setup, now_ms) = (&act.setup, act.setup.clock.now_ms());
            match kept::view(&record, &setup.network, setup.chain.netuid(), now_ms) {
                Ok(view) => act.publish_stored(Arc::new(view)),
                Err(why) => tracing::warn!(block = record.block, why, "the subnet as it was stored is not used"),
            }
        }));
    }

    /// Who is in the subnet may be taken from a stored view: it is published, but no block is told.
    fn publish_stored(&mut self, view: Arc<ChainView>) {
        let age = view.age();
        let (block, age_seconds) = (view.metagraph.head.number, age.as_secs());
        tracing::warn!(block, age_seconds, "the chain cannot be read: the subnet is taken from the database");
        self.setup.metrics.chain_view(age, true);
        self.view = Some(view.clone());
        self.setup.view.send_replace(Some(view.clone()));
        Subscriber::publish(&self.setup.on_metagraph, &MetagraphChanged(view));
    }

    /// Keeps the view for a start without the chain, once an epoch and when who is in the subnet has changed.
    fn keep(&mut self, view: &ChainView) {
        if !kept::is_due(self.kept.as_deref(), &view.metagraph) {
            return;
        }
        match kept::record(view, &self.setup.network, self.setup.clock.now_ms()) {
            Ok(record) => match self.setup.journal.tell(Note(Record::SubnetView(record))) {
                Ok(()) => self.kept = Some(view.metagraph.clone()),
                Err(error) => tracing::debug!(%error, "the view is not stored, trying again with the next block"),
            },
            Err(error) => tracing::warn!(%error, "the view cannot be stored"),
        }
    }

    /// A head that is to be followed.
    fn saw(&mut self, mut view: ChainView, step: Step, ctx: &mut Ctx<Self>) {
        let head = view.metagraph.head;
        if step == Step::Reorganised {
            let from = self.view.as_ref().map_or(0, |v| v.metagraph.head.number);
            ChainReorganised { from, to: head.number, finalized: view.finalized }.emit(&self.setup.metrics);
            self.heads.clear();
        }
        self.behind = None;
        self.followed.follow(&head, step);
        view.block_time = self.block_time(head);
        self.publish(Arc::new(view), ctx);
    }

    /// Publishes how our own neuron stands, and tells what changed. What was published survives this actor's end, so that
    /// nothing is told twice.
    fn stand(&self, view: &ChainView) {
        let setup = &self.setup;
        let before = setup.standing.borrow().clone();
        let now = standing(&view.metagraph, &view.hyperparameters, &setup.hotkey);
        let now = now.after(before.as_deref(), &view.metagraph);
        setup.metrics.standing(&now);
        for change in now.changes(before.as_deref(), setup.validator) {
            StandingChanged { change: &change, block: now.block, hotkey: now.hotkey }.emit(&setup.metrics);
        }
        setup.standing.send_replace(Some(Arc::new(now)));
    }

    /// Tells once if blocks come and do not become final, and when they do again.
    fn check_finality(&mut self, view: &ChainView) {
        let (block, finalized) = (view.metagraph.head.number, view.finalized);
        match self.finality.news(block, finalized) {
            Some(FinalityNews::Behind) => tracing::warn!(
                block,
                finalized,
                "blocks come, but do not become final: weights cannot be confirmed until they do; compare with another endpoint"
            ),
            Some(FinalityNews::CaughtUp) => tracing::info!(block, finalized, "blocks become final again"),
            None => {}
        }
    }

    fn publish(&mut self, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        self.recovered();
        if self.stall.moved(view.seen_at) {
            tracing::info!(block = view.metagraph.head.number, "the chain moves again");
        }
        self.check_finality(&view);
        let same = |old: &Arc<ChainView>| !old.is_stored() && !differs(&old.metagraph, &view.metagraph);
        let changed = !self.view.as_ref().is_some_and(same);
        self.view = Some(view.clone());
        self.setup.metrics.block(view.metagraph.head.number);
        self.setup.metrics.finalized(view.finalized);
        self.setup.metrics.chain_view(view.age(), false);
        self.setup.view.send_replace(Some(view.clone()));
        self.stand(&view);
        if changed {
            Subscriber::publish(&self.setup.on_metagraph, &MetagraphChanged(view.clone()));
        }
        Subscriber::publish(&self.setup.on_block, &NewBlock(view.clone()));
        self.keep(&view);
        self.announce(&view, ctx);
    }
}

impl Actor for ChainWatcher {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.look(ctx);
        ctx.run_interval(self.setup.period, |act, ctx| {
            act.check_age();
            act.look(ctx);
        });
    }
}

impl Supervised for ChainWatcher {
    const MESSAGES: &'static [&'static str] = &["Poll"];
}

impl Handler<Poll> for ChainWatcher {
    type Result = ();
    fn handle(&mut self, _: Poll, ctx: &mut Ctx<Self>) {
        self.look(ctx);
    }
}

impl Handler<Inspect> for ChainWatcher {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "block": self.view.as_ref().map(|v| v.metagraph.head.number),
            "epoch": self.view.as_ref().map(|v| v.epoch()),
            "finalized": self.view.as_ref().map(|v| v.finalized),
            "neurons": self.view.as_ref().map(|v| v.metagraph.neurons.len()),
            "view_age_seconds": self.view.as_ref().map(|v| v.age().as_secs_f64()),
            "view_stored": self.view.as_ref().map(|v| v.is_stored()),
            "endpoint_behind_at": self.behind,
            "last_error": self.last_error,
        }))
    }
}
