//! The validator's actors.

pub mod allocation_manager;
pub mod canary_runner;
pub mod challenge_runner;
pub mod memory_runner;
pub mod node;
pub mod specs_collector;
pub mod under_proof;
pub mod verifiers;
pub mod weight_setter;

use crate::ids::Hotkey;
use crate::messages::chain_watcher::ChainView;

/// Why a validator with this hotkey may not act now, if it acts with a permit only.
pub(crate) fn lacks_permit(view: &ChainView, hotkey: &Hotkey) -> Option<&'static str> {
    match view.metagraph.by_hotkey(hotkey) {
        None => Some("this validator's hotkey is not registered in the subnet"),
        Some(own) if !own.validator_permit => {
            Some("this validator's hotkey holds no validator permit; validator.require_permit waits for one")
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chain::ledger::GenesisConfig;
    use crate::chain::{BlockHead, EpochClock, Metagraph, Neuron};
    use crate::ids::{Hash32, Netuid};

    #[test]
    fn only_a_registered_hotkey_with_a_permit_may_act() {
        let hotkey = Hotkey([1; 32]);
        let netuid = Netuid(27);
        let view = |neurons: Vec<Neuron>| {
            let head = BlockHead { number: 1, hash: Hash32([0; 32]), timestamp_ms: 0 };
            let metagraph = Metagraph { netuid, head, epochs: EpochClock::Modulo { netuid, tempo: 5 }, neurons };
            ChainView::new(Arc::new(metagraph), Arc::new(GenesisConfig::new(netuid).hyperparameters), 1)
        };
        let own = |validator_permit| Neuron { hotkey, validator_permit, ..Neuron::idle(0) };
        assert!(lacks_permit(&view(Vec::new()), &hotkey).is_some_and(|why| why.contains("not registered")));
        assert!(lacks_permit(&view(vec![own(false)]), &hotkey).is_some_and(|why| why.contains("permit")));
        assert_eq!(lacks_permit(&view(vec![own(true)]), &hotkey), None);
    }
}
