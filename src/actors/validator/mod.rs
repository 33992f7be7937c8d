//! The validator's actors.

pub mod allocation_manager;
pub mod challenge_runner;
pub mod node;
pub mod specs_collector;
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
