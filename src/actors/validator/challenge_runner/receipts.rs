//! The lease receipts that miners presented with their specs, with what the chain says of who is named in them. Pure.

use std::collections::{BTreeMap, HashMap};

use super::ChallengeRunnerSetup;
use crate::admission::Refusal;
use crate::clock::millis;
use crate::ids::{Hotkey, Uid};
use crate::messages::chain_watcher::ChainView;
use crate::messages::validator::specs_collector::SpecsResult;
use crate::scoring::presented::MAX_OF_ONE;
use crate::scoring::receipt::Party;
use crate::scoring::{LeaseReceipt, Presented};

/// What is to be judged, in the order of `admitted`; `None` where there is nothing, or the chain's pace is not known yet.
/// A miner shows its own receipts alone, and none of ours: we know our leases.
pub(super) fn presented(
    setup: &ChallengeRunnerSetup,
    view: &ChainView,
    admitted: &[(Uid, Hotkey, Result<(), Refusal>)],
    specs: &HashMap<Hotkey, SpecsResult>,
) -> Option<Presented> {
    let of = |miner: Hotkey| {
        let reply = specs.get(&miner).and_then(|specs| specs.as_ref().ok());
        let receipts = reply.into_iter().flat_map(|reply| reply.receipts.iter()).take(MAX_OF_ONE);
        receipts.filter(move |r| r.miner == miner && r.validator != setup.hotkey).cloned()
    };
    let asked = admitted.iter().filter(|(_, _, admitted)| admitted.is_ok());
    let receipts: Vec<LeaseReceipt> = asked.flat_map(|(_, miner, _)| of(*miner)).collect();
    if receipts.is_empty() {
        return None;
    }
    let blocks = u32::try_from(view.metagraph.epochs.length()).unwrap_or(u32::MAX);
    let epoch = view.block_time?.saturating_mul(blocks);
    let party = |hotkey: &Hotkey| {
        let neuron = view.metagraph.by_hotkey(hotkey)?;
        let party = Party { coldkey: neuron.coldkey, stake_rao: neuron.stake_rao, permit: neuron.validator_permit };
        Some((*hotkey, party))
    };
    let parties: BTreeMap<Hotkey, Party> =
        receipts.iter().flat_map(|r| [r.miner, r.validator]).filter_map(|hotkey| party(&hotkey)).collect();
    let (epoch_ms, at_ms) = (millis(epoch), setup.clock.now_ms());
    Some(Presented { epoch: view.epoch(), at_ms, epoch_ms, rules: setup.receipts, parties, receipts })
}
