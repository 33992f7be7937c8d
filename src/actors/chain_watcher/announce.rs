//! Keeps our endpoints announced on chain: what it shows is compared with what should be there.

use std::net::SocketAddr;
use std::time::Duration;

use actix::prelude::*;

use super::{AxonToAnnounce, ChainWatcher, ChainWatcherSetup};
use crate::actors::exclusive::Conflict;
use crate::chain::serving::blocks_to_wait;
use crate::chain::{AxonInfo, ChainError, Neuron};
use crate::ids::BlockNumber;
use crate::messages::chain_watcher::ChainView;
use crate::runtime::Ctx;

/// Blocks after a first attempt before the next one; doubles with each that the chain does not show.
const FIRST: BlockNumber = 3;
/// The most blocks between two attempts: an hour.
const LONGEST: BlockNumber = 300;

/// The attempts to announce one kind of endpoint.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    tries: u32,
    next: BlockNumber,
    told: Option<String>,
}

impl Attempts {
    /// Whether another attempt may be made at this head. A reorganisation does not bring it forward.
    fn is_due(&self, head: BlockNumber) -> bool {
        head >= self.next
    }

    /// An attempt begins.
    fn begins(&mut self, head: BlockNumber) {
        let wait = FIRST.checked_shl(self.tries).unwrap_or(LONGEST).min(LONGEST);
        self.tries = self.tries.saturating_add(1).min(16);
        self.next = head.saturating_add(wait);
    }

    /// It failed; whether that is to be told, which it is once for each reason.
    fn failed(&mut self, why: &str) -> bool {
        let news = self.told.as_deref() != Some(why);
        self.told = Some(why.to_owned());
        news
    }

    /// The chain shows what it should.
    fn shown(&mut self) {
        *self = Attempts::default();
    }
}

impl ChainWatcher {
    /// Looks what became of our axon on chain; whether it is to be announced.
    fn axon(&mut self, own: &Neuron, finalized: BlockNumber) -> Option<Announce> {
        let AxonToAnnounce { address, version, .. } = self.setup.axon.as_ref()?;
        let exclusive = &self.setup.exclusive;
        let announce = match axon_step(own.axon.as_ref(), *address, *version, exclusive.shown_at(), finalized) {
            AxonStep::Shown { block } => {
                exclusive.axon_shown(block);
                self.axon_attempts.shown();
                None
            }
            AxonStep::Announce(announce) => Some(announce),
            AxonStep::Older => None,
            AxonStep::Retracted { there } => {
                tracing::info!(finalized, shown = %there, "our axon's announcement was in a block that was replaced");
                exclusive.axon_retracted();
                Some(Announce { ask: Some(there) })
            }
            AxonStep::Moved { to, block } => {
                exclusive.report(Conflict::AxonMoved { to, block });
                None
            }
        };
        announce.filter(|_| exclusive.problem().is_none())
    }

    /// Whether our metrics endpoint is to be announced.
    fn prometheus(&mut self, own: &Neuron) -> Option<(SocketAddr, u32)> {
        let (at, version) = self.setup.prometheus?;
        if own.serves_prometheus(at.ip(), at.port(), version) && self.forced {
            self.prometheus_attempts.shown();
            return None;
        }
        Some((at, version))
    }

    /// Corrects what the chain says of our endpoints, at most one turn at a time, and not before the chain's rate limit
    /// for that kind is over.
    pub(super) fn announce(&mut self, view: &ChainView, ctx: &mut Ctx<Self>) {
        let Some(own) = view.metagraph.by_hotkey(&self.setup.hotkey) else { return };
        let (head, limit) = (view.metagraph.head.number, view.hyperparameters.serving_rate_limit);
        let (axon, prometheus) = (self.axon(own, view.finalized), self.prometheus(own));
        if self.announcing {
            return;
        }
        let free = |stored: Option<BlockNumber>| blocks_to_wait(head, stored, limit) == 0;
        let axon = axon.filter(|_| self.axon_attempts.is_due(head) && free(own.axon.map(|a| a.block)));
        let prometheus =
            prometheus.filter(|_| self.prometheus_attempts.is_due(head) && free(own.prometheus.map(|p| p.block)));
        if axon.is_none() && prometheus.is_none() {
            return;
        }
        self.announcing = true;
        if axon.is_some() {
            self.axon_attempts.begins(head);
        }
        if prometheus.is_some() {
            self.prometheus_attempts.begins(head);
        }
        let setup = self.setup.clone();
        let work = async move {
            let served = match axon {
                Some(step) => Some(within(setup.deadline * 2, serve_axon(&setup, step)).await),
                None => None,
            };
            // Another node was found to serve this hotkey: this one announces nothing more.
            if setup.exclusive.problem().is_some() {
                return (served, None);
            }
            let metrics = match prometheus {
                Some((at, version)) => Some(within(setup.deadline * 2, serve_metrics(&setup, at, version)).await),
                None => None,
            };
            (served, metrics)
        };
        ctx.spawn(work.into_actor(self).map(|(axon, metrics), act, _| {
            act.announcing = false;
            if let Some(Err(error)) = axon {
                told("axon", &mut act.axon_attempts, &error);
            }
            match metrics {
                Some(Ok(())) => act.forced = true,
                Some(Err(error)) => told("metrics endpoint", &mut act.prometheus_attempts, &error),
                None => {}
            }
        }));
    }
}

async fn within(deadline: Duration, call: impl Future<Output = Result<(), ChainError>>) -> Result<(), ChainError> {
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(ChainError::Deadline(deadline)))
}

async fn serve_axon(setup: &ChainWatcherSetup, step: Announce) -> Result<(), ChainError> {
    let Some(AxonToAnnounce { address: at, version, rival }) = &setup.axon else { return Ok(()) };
    if let Some(there) = step.ask
        && let Some(conflict) = rival.ask(there).await
    {
        setup.exclusive.report(conflict);
        return Ok(());
    }
    let version = *version;
    setup.chain.serve_axon(at.ip(), at.port(), version).await?;
    tracing::info!(address = %at, version, "axon announced on chain");
    Ok(())
}

async fn serve_metrics(setup: &ChainWatcherSetup, at: SocketAddr, version: u32) -> Result<(), ChainError> {
    setup.chain.serve_prometheus(at.ip(), at.port(), version).await?;
    tracing::info!(address = %at, version, "metrics endpoint announced on chain");
    Ok(())
}

/// Tells that an endpoint was not announced, once for each reason. A refusal carries its remedy.
fn told(endpoint: &str, attempts: &mut Attempts, error: &ChainError) {
    let error = crate::telemetry::error_chain(error);
    let next = attempts.next;
    if attempts.failed(&error) {
        tracing::warn!(endpoint, error, next, "endpoint not announced; it is tried again from the named block on");
    } else {
        tracing::debug!(endpoint, error, next, "endpoint not announced again");
    }
}

/// What the chain's word on our axon calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AxonStep {
    /// Nothing: it is there, announced in this block.
    Shown { block: BlockNumber },
    /// Announce it.
    Announce(Announce),
    /// Nothing yet: this is the chain as it was before it showed our axon, or without the block that did.
    Older,
    /// Announce it as for the first time: no final block shows it, though the block that did would be final by now.
    Retracted { there: SocketAddr },
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
/// that the chain has shown to this process; `finalized` the newest final one.
fn axon_step(
    shown: Option<&AxonInfo>,
    at: SocketAddr,
    version: u32,
    shown_at: Option<BlockNumber>,
    finalized: BlockNumber,
) -> AxonStep {
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
        Some(ours) if finalized >= ours => AxonStep::Retracted { there },
        Some(_) => AxonStep::Older,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::actors::exclusive::Exclusive;
    use crate::clock::SystemClock;
    use crate::ids::Hotkey;
    use crate::telemetry::{BuildInfo, Labels, NodeMetrics};

    #[test]
    fn attempts_that_the_chain_does_not_show_become_rare_and_each_reason_is_told_once() {
        let (mut attempts, mut tried) = (Attempts::default(), Vec::new());
        for head in 10..2_000 {
            if attempts.is_due(head) {
                attempts.begins(head);
                tried.push(head);
            }
        }
        assert_eq!(tried[..8], [10, 13, 19, 31, 55, 103, 199, 391]);
        assert!(tried.windows(2).all(|w| w[1] - w[0] <= LONGEST) && tried.len() == 13, "{tried:?}");
        assert!(attempts.failed("too fast") && !attempts.failed("too fast") && attempts.failed("not registered"));
        attempts.shown();
        assert!(attempts.is_due(0) && attempts.failed("not registered"), "a new beginning");
    }

    #[test]
    fn an_axon_is_announced_once_asked_about_and_never_taken_back() {
        let at = |ip: u8| SocketAddr::from(([10, 0, 0, ip], 8091));
        let on = |ip: u8, version, block| AxonInfo { block, version, ip: at(ip).ip(), port: 8091, protocol: 4 };
        let step = |shown: Option<AxonInfo>, shown_at| axon_step(shown.as_ref(), at(1), 183, shown_at, 4);
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
    fn an_announcement_that_was_reorganised_away_for_good_is_made_again() {
        let at = |ip: u8| SocketAddr::from(([10, 0, 0, ip], 8091));
        let older = AxonInfo { block: 4, version: 183, ip: at(2).ip(), port: 8091, protocol: 4 };
        let newer = AxonInfo { block: 6, ..older };
        let exclusive = exclusive();
        exclusive.axon_shown(5);
        let step = |shown, finalized| axon_step(Some(shown), at(1), 183, exclusive.shown_at(), finalized);
        assert_eq!(step(&older, 4), AxonStep::Older, "another block may hold it yet");
        assert_eq!(step(&older, 5), AxonStep::Retracted { there: at(2) });
        assert_eq!(step(&newer, 7), AxonStep::Moved { to: at(2), block: 6 }, "whoever came after ours");
        exclusive.axon_retracted();
        assert_eq!(step(&older, 6), AxonStep::Announce(Announce { ask: Some(at(2)) }), "as for the first time");
    }

    fn exclusive() -> Exclusive {
        let (registry, build) = (prometheus::Registry::new(), BuildInfo::of("miner"));
        let metrics = NodeMetrics::register(&registry, &build, &Labels::default(), Arc::new(SystemClock)).unwrap();
        Exclusive::new(Hotkey([1; 32]), metrics)
    }
}
