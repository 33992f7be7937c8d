//! Follows the chain: owns the view of the subnet, publishes it, and keeps our endpoints announced on it.
//!
//! Invariants: a view is published only when it was read whole, from one head; subscribers hear of each head at most
//! once; a failed read leaves the last view in place, and its age tells how old it is. The slots of an epoch are made once,
//! from the first of its blocks that is seen, and stay as they are until the next.
//!
//! Design notes: a reconciler. It runs on a period and on a nudge ([`Poll`]), never twice at once, and does not retry
//! by itself. Announcing our axon is part of the same turn: what the chain shows is compared with what should be
//! there, and corrected, unless another node with our hotkey put it there ([`super::exclusive`]): before our axon takes
//! the place of another address, whoever answers there is asked, and once the chain had ours it is never taken back. On
//! restart the first read rebuilds everything.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Subscriber;
use super::exclusive::{Conflict, Exclusive, Rival};
use crate::chain::slots::slots_of;
use crate::chain::{AxonInfo, BlockHead, Chain, ChainError, Hyperparameters, Metagraph, Neuron, SlotTable};
use crate::ids::{BlockNumber, Hotkey};
use crate::messages::chain_watcher::{ChainView, MetagraphChanged, NewBlock, Poll};
use crate::runtime::{Ctx, Inspect, Supervised};
use crate::telemetry::NodeMetrics;
use crate::telemetry::events::ChainStalled;

/// Blocks between two attempts to announce the same endpoint.
const ANNOUNCE_EVERY: BlockNumber = 3;
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
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// The actor.
pub struct ChainWatcher {
    setup: Arc<ChainWatcherSetup>,
    view: Option<Arc<ChainView>>,
    heads: VecDeque<BlockHead>,
    looking: bool,
    last_error: Option<String>,
    stall: Stall,
    announcing: bool,
    announced_at: Option<BlockNumber>,
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
            heads: VecDeque::with_capacity(TIMED_HEADS),
            looking: false,
            last_error: None,
            announcing: false,
            announced_at: None,
            forced,
        }
    }

    fn look(&mut self, ctx: &mut Ctx<Self>) {
        if self.looking {
            return;
        }
        self.looking = true;
        let setup = self.setup.clone();
        let last = self.view.clone();
        let work = async move {
            match tokio::time::timeout(setup.deadline, read(setup.chain.as_ref(), last.as_deref())).await {
                Ok(read) => read,
                Err(_) => Err(ChainError::Deadline(setup.deadline)),
            }
        };
        ctx.spawn(work.into_actor(self).map(|read, act, ctx| {
            act.looking = false;
            match read {
                Ok(Some(mut view)) => {
                    view.block_time = act.block_time(view.metagraph.head);
                    act.publish(Arc::new(view), ctx);
                }
                Ok(None) => act.recovered(),
                Err(error) => act.failed(&error),
            }
        }));
    }

    /// Tells once if no block has come for too long.
    fn check_age(&mut self) {
        if self.stall.is_news(Instant::now()) {
            let block = self.view.as_ref().map_or(0, |v| v.metagraph.head.number);
            let cause = self.last_error.as_deref().unwrap_or("the endpoint answers, but its head does not move");
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

    fn failed(&mut self, error: &ChainError) {
        let text = crate::telemetry::error_chain(error);
        if self.last_error.as_deref() != Some(&text) {
            tracing::warn!(error = text, "the chain cannot be read, the last view stays in use");
        }
        self.last_error = Some(text);
    }

    fn publish(&mut self, view: Arc<ChainView>, ctx: &mut Ctx<Self>) {
        self.recovered();
        if self.stall.moved(view.seen_at) {
            tracing::info!(block = view.metagraph.head.number, "the chain moves again");
        }
        let changed = self.view.as_ref().is_none_or(|old| differs(&old.metagraph, &view.metagraph));
        self.view = Some(view.clone());
        self.setup.metrics.block(view.metagraph.head.number);
        self.setup.view.send_replace(Some(view.clone()));
        if changed {
            Subscriber::publish(&self.setup.on_metagraph, &MetagraphChanged(view.clone()));
        }
        Subscriber::publish(&self.setup.on_block, &NewBlock(view.clone()));
        self.announce(&view, ctx);
    }

    /// Looks what became of our axon on chain; whether it is to be announced.
    fn axon(&self, own: &Neuron) -> Option<Announce> {
        let AxonToAnnounce { address, version, .. } = self.setup.axon.as_ref()?;
        let exclusive = &self.setup.exclusive;
        match axon_step(own.axon.as_ref(), *address, *version, exclusive.shown_at()) {
            AxonStep::Shown { block } => {
                exclusive.axon_shown(block);
                None
            }
            AxonStep::Announce(announce) => Some(announce).filter(|_| exclusive.problem().is_none()),
            AxonStep::Older => None,
            AxonStep::Moved { to, block } => {
                exclusive.report(Conflict::AxonMoved { to, block });
                None
            }
        }
    }

    /// Corrects what the chain says of our endpoints, at most one call at a time.
    fn announce(&mut self, view: &ChainView, ctx: &mut Ctx<Self>) {
        let Some(own) = view.metagraph.by_hotkey(&self.setup.hotkey) else { return };
        let axon = self.axon(own);
        let head = view.metagraph.head.number;
        if self.announcing || self.announced_at.is_some_and(|at| head.saturating_sub(at) < ANNOUNCE_EVERY) {
            return;
        }
        let again = !self.forced;
        let prometheus =
            self.setup.prometheus.filter(|(at, v)| again || !own.serves_prometheus(at.ip(), at.port(), *v));
        if axon.is_none() && prometheus.is_none() {
            return;
        }
        (self.announcing, self.announced_at) = (true, Some(head));
        let setup = self.setup.clone();
        let work = async move {
            let calls = async {
                if let (Some(step), Some(AxonToAnnounce { address: at, version, rival })) = (axon, &setup.axon) {
                    if let Some(there) = step.ask
                        && let Some(conflict) = rival.ask(there).await
                    {
                        setup.exclusive.report(conflict);
                        return Ok(());
                    }
                    let version = *version;
                    setup.chain.serve_axon(at.ip(), at.port(), version).await?;
                    tracing::info!(address = %at, version, "axon announced on chain");
                }
                if let Some((at, version)) = prometheus {
                    setup.chain.serve_prometheus(at.ip(), at.port(), version).await?;
                    tracing::info!(address = %at, version, "metrics endpoint announced on chain");
                }
                Ok::<_, ChainError>(())
            };
            tokio::time::timeout(setup.deadline * 4, calls).await.unwrap_or(Err(ChainError::Deadline(setup.deadline)))
        };
        ctx.spawn(work.into_actor(self).map(move |done, act, _| {
            act.announcing = false;
            match done {
                Ok(()) => act.forced |= prometheus.is_some(),
                Err(error) => {
                    let error = crate::telemetry::error_chain(&error);
                    tracing::warn!(error, "endpoint not announced, trying again");
                }
            }
        }));
    }
}

/// What the chain's word on our axon calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AxonStep {
    /// Nothing: it is there, announced in this block.
    Shown { block: BlockNumber },
    /// Announce it.
    Announce(Announce),
    /// Nothing: this is the chain as it was before it showed our axon.
    Older,
    /// Another node with our hotkey replaced it.
    Moved { to: SocketAddr, block: BlockNumber },
}

/// An axon that is to be announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Announce {
    /// Another address, which is asked first.
    ask: Option<SocketAddr>,
}

/// Compares the axon that the chain shows for our hotkey with ours. `shown_at` is the block of our newest announcement
/// that the chain has shown to this process.
fn axon_step(shown: Option<&AxonInfo>, at: SocketAddr, version: u32, shown_at: Option<BlockNumber>) -> AxonStep {
    // None after ours had been there: the neuron was registered anew.
    let Some(shown) = shown else { return AxonStep::Announce(Announce { ask: None }) };
    let there = SocketAddr::new(shown.ip, shown.port);
    if there == at {
        return match shown.version == version {
            true => AxonStep::Shown { block: shown.block },
            false => AxonStep::Announce(Announce { ask: None }),
        };
    }
    match shown_at {
        None => AxonStep::Announce(Announce { ask: Some(there) }),
        Some(ours) if shown.block > ours => AxonStep::Moved { to: there, block: shown.block },
        Some(_) => AxonStep::Older,
    }
}

/// Whether blocks keep coming; each standstill is told once.
struct Stall {
    after: Duration,
    since: Instant,
    told: bool,
}

impl Stall {
    fn new(after: Duration, now: Instant) -> Self {
        Stall { after, since: now, told: false }
    }

    /// Whether a standstill is to be told now.
    fn is_news(&mut self, now: Instant) -> bool {
        let standing = now.saturating_duration_since(self.since) >= self.after;
        standing && !std::mem::replace(&mut self.told, true)
    }

    /// Takes in a new block; whether that ends a standstill that was told.
    fn moved(&mut self, now: Instant) -> bool {
        self.since = now;
        std::mem::take(&mut self.told)
    }
}

/// Reads the subnet, or nothing if the head is still the one of `last`.
async fn read(chain: &dyn Chain, last: Option<&ChainView>) -> Result<Option<ChainView>, ChainError> {
    let head = chain.head().await?;
    if last.is_some_and(|v| v.metagraph.head.hash == head.hash) {
        return Ok(None);
    }
    let (finalized, metagraph) = tokio::try_join!(chain.finalized(), chain.metagraph())?;
    let same_epoch = last.filter(|v| v.metagraph.epoch() == metagraph.epoch());
    let hyperparameters: Arc<Hyperparameters> = match same_epoch {
        Some(v) => v.hyperparameters.clone(),
        None => Arc::new(chain.hyperparameters().await?),
    };
    let slots = match same_epoch.and_then(|v| v.slots.clone()) {
        Some(slots) => Some(slots),
        None => turns(chain, &metagraph).await.map(Arc::new),
    };
    Ok(Some(ChainView { slots, ..ChainView::new(metagraph, hyperparameters, finalized) }))
}

/// The slots of the epoch, if their beacon can be read; what else was read is good without them.
async fn turns(chain: &dyn Chain, metagraph: &Metagraph) -> Option<SlotTable> {
    let block = metagraph.epochs.beacon_block(metagraph.epoch());
    match chain.block_hash(block).await {
        Ok(Some(beacon)) => Some(slots_of(metagraph, beacon)),
        Ok(None) => {
            tracing::warn!(block, "the chain does not keep the epoch's beacon, nobody's turn is known");
            None
        }
        Err(error) => {
            let error = crate::telemetry::error_chain(&error);
            tracing::warn!(block, error, "the epoch's beacon cannot be read, trying again with the next block");
            None
        }
    }
}

/// Whether anything that admission or routing depends on differs.
pub(super) fn differs(a: &Metagraph, b: &Metagraph) -> bool {
    let key = |n: &Neuron| {
        (
            n.uid,
            n.hotkey,
            n.coldkey,
            n.stake_rao,
            n.validator_permit,
            n.registered_at,
            n.axon.as_ref().map(|x| (x.ip, x.port, x.version)),
            n.prometheus.as_ref().map(|x| x.version),
        )
    };
    a.neurons.len() != b.neurons.len() || a.neurons.iter().map(key).ne(b.neurons.iter().map(key))
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
            "neurons": self.view.as_ref().map(|v| v.metagraph.neurons.len()),
            "view_age_seconds": self.view.as_ref().map(|v| v.seen_at.elapsed().as_secs_f64()),
            "last_error": self.last_error,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axon_is_announced_once_asked_about_and_never_taken_back() {
        let at = |ip: u8| SocketAddr::from(([10, 0, 0, ip], 8091));
        let on = |ip: u8, version, block| AxonInfo { block, version, ip: at(ip).ip(), port: 8091, protocol: 4 };
        let step = |shown: Option<AxonInfo>, shown_at| axon_step(shown.as_ref(), at(1), 183, shown_at);
        let announce = |ask| AxonStep::Announce(Announce { ask });
        assert_eq!(step(None, None), announce(None));
        assert_eq!(step(Some(on(1, 183, 5)), None), AxonStep::Shown { block: 5 });
        assert_eq!(step(Some(on(1, 1, 5)), Some(5)), announce(None), "our address, an old version");
        assert_eq!(step(Some(on(2, 183, 5)), None), announce(Some(at(2))));
        assert_eq!(step(Some(on(2, 183, 6)), Some(5)), AxonStep::Moved { to: at(2), block: 6 });
        assert_eq!(step(Some(on(2, 183, 4)), Some(5)), AxonStep::Older, "an endpoint that is behind");
        assert_eq!(step(None, Some(5)), announce(None), "registered anew");
    }

    #[test]
    fn each_standstill_is_told_once_and_so_is_its_end() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut stall = Stall::new(Duration::from_secs(120), begin);
        assert!(!stall.is_news(at(119)));
        assert!(stall.is_news(at(120)), "also before the first block");
        assert!(!stall.is_news(at(500)));
        assert!(stall.moved(at(501)));
        assert!(!stall.moved(at(513)), "an ordinary block is no news");
        assert!(!stall.is_news(at(632)));
        assert!(stall.is_news(at(633)));
    }
}
