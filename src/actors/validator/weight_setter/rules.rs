//! Whether weights may be sent now, by what the chain shows: its own rules, asked before it has to refuse. Pure.

use crate::actors::validator::lacks_permit;
use crate::chain::Neuron;
use crate::ids::{BlockNumber, Hotkey, Uid};
use crate::messages::chain_watcher::ChainView;
use crate::messages::validator::weight_setter::ScoreRow;
use crate::scoring::{self, Burn, WeightError, WeightLimits};

/// The share that nobody earns, as the settings have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BurnRule {
    /// The share, in 10⁻⁹; 0: none.
    pub share_ppb: u64,
    /// Who gets it; `None`: the subnet owner's hotkey.
    pub uid: Option<Uid>,
}

impl BurnRule {
    /// The rule for this subnet; `None` where nothing is burned.
    pub(super) fn resolve(&self, view: &ChainView) -> Result<Option<Burn>, String> {
        if self.share_ppb == 0 {
            return Ok(None);
        }
        let owner = view.hyperparameters.owner_hotkey;
        let owners = || view.metagraph.by_hotkey(owner.as_ref()?).map(|n| n.uid);
        match self.uid.or_else(owners) {
            Some(uid) => Ok(Some(Burn { uid, share_ppb: self.share_ppb })),
            None => Err(
                "weights.burn_share has nobody to go to: the subnet owner's hotkey is not known or has no uid; set \
                         weights.burn_uid"
                    .to_owned(),
            ),
        }
    }
}

/// Why nothing is sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    /// Too few blocks went by.
    TooSoon,
    /// The chain would refuse them; with what helps.
    Refused(String),
}

/// What of the settings the rules depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender {
    pub(super) hotkey: Hotkey,
    pub(super) version_key: u64,
    pub(super) interval_blocks: u64,
    pub(super) require_permit: bool,
}

/// Whether the chain would take weights in a block after this view's head: stake, version key, rate limit and permit, in its
/// order. The hotkey of the subnet's owner needs neither stake nor permit.
pub(super) fn hold(view: &ChainView, own: &Neuron, sender: &Sender) -> Option<Hold> {
    let rules = &view.hyperparameters;
    let owner = rules.owner_hotkey == Some(sender.hotkey);
    if !owner && own.stake_rao < rules.stake_threshold_rao {
        return Some(Hold::Refused(format!(
            "the stake behind this validator's hotkey is {} rao, the chain takes weights from {} rao on; add stake",
            own.stake_rao, rules.stake_threshold_rao
        )));
    }
    if rules.weights_version_key != 0 && sender.version_key < rules.weights_version_key {
        return Some(Hold::Refused(format!(
            "the subnet takes weights of version key {} or later, weights.version_key is {}; update this node, and set the \
             key to what its release names",
            rules.weights_version_key, sender.version_key
        )));
    }
    if too_soon(own, view.metagraph.head.number, rules.weights_rate_limit, sender.interval_blocks) {
        return Some(Hold::TooSoon);
    }
    let lacking = lacks_permit(view, &sender.hotkey).filter(|_| sender.require_permit && !owner);
    lacking.map(|lacking| Hold::Refused(lacking.to_owned()))
}

/// The chain counts from the last update, a registration included; 0 passes. Our own interval begins with the first weights.
fn too_soon(own: &Neuron, head: BlockNumber, rate_limit: u64, interval: u64) -> bool {
    let since = head.saturating_sub(own.last_update);
    let chains = own.last_update != 0 && since < rate_limit;
    chains || (own.last_update > own.registered_at && since < interval)
}

/// The weights that the scores come to in this view: of neurons that still have the slot they were judged in, and
/// within the subnet's limits.
pub(super) fn entries(
    rows: &[ScoreRow],
    view: &ChainView,
    burn: Option<&Burn>,
) -> Result<Vec<(Uid, u16)>, WeightError> {
    scoring::weigh_with(rows, &neurons(view), &limits(view), burn)
}

pub(super) fn neurons(view: &ChainView) -> Vec<(Uid, Hotkey)> {
    view.metagraph.neurons.iter().map(|n| (n.uid, n.hotkey)).collect()
}

pub(super) fn limits(view: &ChainView) -> WeightLimits {
    let rules = &view.hyperparameters;
    WeightLimits { min_allowed: rules.min_allowed_weights, max_weight: rules.max_weights_limit }
}
