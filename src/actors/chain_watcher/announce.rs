//! Keeps our endpoints announced on chain: what it shows is compared with what should be there.

use std::net::SocketAddr;

use actix::prelude::*;

use super::{ANNOUNCE_EVERY, AxonToAnnounce, ChainWatcher};
use crate::actors::exclusive::Conflict;
use crate::chain::{AxonInfo, ChainError, Neuron};
use crate::ids::BlockNumber;
use crate::messages::chain_watcher::ChainView;
use crate::runtime::Ctx;

impl ChainWatcher {
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
    pub(super) fn announce(&mut self, view: &ChainView, ctx: &mut Ctx<Self>) {
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
}
