//! One look at the chain: is there a head to follow, and if so, the subnet as of it.

use std::sync::Arc;

use crate::chain::heads::{Heads, Step};
use crate::chain::slots::slots_of;
use crate::chain::{BlockHead, Chain, ChainError, Hyperparameters, Metagraph, Neuron, SlotTable};
use crate::ids::BlockNumber;
use crate::messages::chain_watcher::ChainView;

/// What a look came to.
pub(super) enum Looked {
    /// Nothing new.
    Same,
    /// The endpoint's head is not to be followed.
    Behind(BlockNumber),
    /// The subnet, and what its head is to those before.
    Seen(Box<ChainView>, Step),
}

/// Looks at the chain. `last` is the view that was read from it last, if any was.
pub(super) async fn look(chain: &dyn Chain, heads: &Heads, last: Option<&ChainView>) -> Result<Looked, ChainError> {
    let head = chain.head().await?;
    if last.is_some_and(|v| v.metagraph.head.hash == head.hash) {
        return Ok(Looked::Same);
    }
    let finalized = chain.finalized().await?;
    let mut step = judge(chain, heads, &head, finalized).await;
    let metagraph = match step {
        Step::Behind => return Ok(Looked::Behind(head.number)),
        _ => chain.metagraph().await?,
    };
    // Another block may have come meanwhile, or another endpoint answered.
    if metagraph.head.hash != head.hash {
        step = judge(chain, heads, &metagraph.head, finalized).await;
        match step {
            Step::Behind => return Ok(Looked::Behind(metagraph.head.number)),
            Step::Same if last.is_some() => return Ok(Looked::Same),
            _ => {}
        }
    }
    let same_epoch = last.filter(|v| v.metagraph.epoch() == metagraph.epoch());
    let hyperparameters: Arc<Hyperparameters> = match same_epoch {
        Some(v) => v.hyperparameters.clone(),
        None => Arc::new(chain.hyperparameters().await?),
    };
    let known = same_epoch.and_then(|v| v.slots.clone().map(|slots| (slots, v.finalized)));
    let slots = match known {
        Some((slots, finalized)) if finalized >= slots.epoch_start() => Some(slots),
        known => turns(chain, &metagraph, known.map(|(slots, _)| slots)).await,
    };
    // What is final stays so, also where the endpoint that answers now is behind with it.
    let before = last.filter(|_| step != Step::Reorganised).map_or(0, |v| v.finalized);
    let view = ChainView { slots, ..ChainView::new(metagraph, hyperparameters, finalized.max(before)) };
    Ok(Looked::Seen(Box::new(view), step))
}

async fn judge(chain: &dyn Chain, heads: &Heads, head: &BlockHead, finalized: BlockNumber) -> Step {
    let there = match heads.anchor(head) {
        // What else is read is good without it.
        Some(number) => chain.block_hash(number).await.ok().flatten(),
        None => None,
    };
    heads.judge(head, there, finalized)
}

/// The slots of the epoch, if their beacon can be read; what else was read is good without them. Those that are `known`
/// stay as they are unless their beacon was replaced.
async fn turns(chain: &dyn Chain, metagraph: &Metagraph, known: Option<Arc<SlotTable>>) -> Option<Arc<SlotTable>> {
    let block = metagraph.epochs.beacon_block(metagraph.epoch());
    match chain.block_hash(block).await {
        Ok(Some(beacon)) => {
            let same = known.filter(|slots| slots.beacon == beacon);
            same.or_else(|| Some(Arc::new(slots_of(metagraph, beacon))))
        }
        Ok(None) => {
            tracing::warn!(block, "the chain does not keep the epoch's beacon, whose turn it is cannot be told by it");
            known
        }
        Err(error) => {
            let error = crate::telemetry::error_chain(&error);
            tracing::warn!(block, error, "the epoch's beacon cannot be read, trying again with the next block");
            known
        }
    }
}

/// Whether anything that admission or routing depends on differs.
pub(in crate::actors) fn differs(a: &Metagraph, b: &Metagraph) -> bool {
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

#[cfg(test)]
mod tests;
