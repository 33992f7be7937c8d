//! What the operator wants of callers and miners.

use std::collections::BTreeSet;

use crate::ids::{Coldkey, Hotkey};

/// The original's least stake of a validator, 1,024 τ, in rao (10⁻⁹ τ).
pub const DEFAULT_MIN_STAKE_RAO: u64 = 1_024_000_000_000;
/// The original's share of a group, in percent, above which earlier versions are left out.
pub const DEFAULT_UPDATED_THRESHOLD: u8 = 60;

/// The rules an operator sets. Lists are exact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Callers that pass at once, before every other rule: the operator's own list.
    pub allow_hotkeys: BTreeSet<Hotkey>,
    /// Owners whose registered hotkeys pass at once.
    pub allow_coldkeys: BTreeSet<Coldkey>,
    /// Callers that pass at once: the list that ships with the program.
    pub trusted_hotkeys: BTreeSet<Hotkey>,
    /// Hotkeys that are refused.
    pub deny_hotkeys: BTreeSet<Hotkey>,
    /// Owners whose hotkeys are refused.
    pub deny_coldkeys: BTreeSet<Coldkey>,
    /// Whether the exploiter lists are used.
    pub exploiters: bool,
    /// Hotkeys known to exploit.
    pub exploiter_hotkeys: BTreeSet<Hotkey>,
    /// Owners known to exploit.
    pub exploiter_coldkeys: BTreeSet<Coldkey>,
    /// The least stake of a caller that acts as a validator, in rao (10⁻⁹ τ).
    pub min_stake_rao: u64,
    /// Whether too little stake is forgiven.
    pub allow_not_enough_stake: bool,
    /// Whether a caller that acts as a validator needs a validator permit as well as the stake. Without this, either
    /// is enough.
    pub require_permit: bool,
    /// Whether only one miner for each IP address is asked.
    pub one_ip_per_uid: bool,
    /// The least version of validators, in the original's whole-number form; 0 asks for none.
    pub minimal_validator_version: u32,
    /// The share of validators, in percent, above which callers of earlier versions are refused.
    pub validators_updated_threshold: u8,
    /// Whether callers of earlier versions are served all the same.
    pub allow_not_updated: bool,
    /// The least version of miners, in the original's whole-number form; 0 asks for none.
    pub minimal_miner_version: u32,
    /// The share of miners, in percent, above which those of earlier versions are not asked.
    pub miners_updated_threshold: u8,
    /// Whether miners that announce no version are asked all the same.
    pub allow_unrecognised: bool,
}

impl Default for Policy {
    /// Empty lists, every switch on its safe side, the original's stake and thresholds, no least version.
    fn default() -> Self {
        Policy {
            allow_hotkeys: BTreeSet::new(),
            allow_coldkeys: BTreeSet::new(),
            trusted_hotkeys: BTreeSet::new(),
            deny_hotkeys: BTreeSet::new(),
            deny_coldkeys: BTreeSet::new(),
            exploiters: true,
            exploiter_hotkeys: BTreeSet::new(),
            exploiter_coldkeys: BTreeSet::new(),
            min_stake_rao: DEFAULT_MIN_STAKE_RAO,
            allow_not_enough_stake: false,
            require_permit: false,
            one_ip_per_uid: true,
            minimal_validator_version: 0,
            validators_updated_threshold: DEFAULT_UPDATED_THRESHOLD,
            allow_not_updated: false,
            minimal_miner_version: 0,
            miners_updated_threshold: DEFAULT_UPDATED_THRESHOLD,
            allow_unrecognised: false,
        }
    }
}
