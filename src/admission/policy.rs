//! What the operator wants of callers and miners.

use std::collections::BTreeSet;

use crate::ids::{Coldkey, Hotkey};

/// The original's least stake of a validator, 1,024 τ, in rao (10⁻⁹ τ).
pub const DEFAULT_MIN_STAKE_RAO: u64 = 1_024_000_000_000;

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
}

impl Default for Policy {
    /// Empty lists, every switch on its safe side, the original's stake.
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
        }
    }
}
