//! How a ledger begins: its subnet, its rules, and who has money.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::blake2b_256;
use crate::chain::Hyperparameters;
use crate::ids::{Coldkey, Hash32, Hotkey, Netuid};

/// What a new ledger is made from. Everything but `block_time` enters the genesis hash, so that a directory is only
/// ever continued under the rules that it began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenesisConfig {
    /// The one subnet of the ledger.
    pub netuid: Netuid,
    /// Time between two blocks. Zero makes blocks only when asked, see [`LedgerHandle::produce_block`].
    ///
    /// [`LedgerHandle::produce_block`]: super::LedgerHandle::produce_block
    #[serde(skip, default = "default_block_time")]
    pub block_time: Duration,
    /// The subnet's rules, tempo among them.
    pub hyperparameters: Hyperparameters,
    /// Registrations that one block takes. The real chain's default is 1; here 256, for a devnet that starts at once.
    pub max_registrations_per_block: u16,
    /// Free balances, in rao.
    pub endowed: Vec<(Coldkey, u64)>,
    /// Stakes behind hotkeys, in rao, in force before the hotkey is registered.
    pub stakes: Vec<(Hotkey, u64)>,
}

/// Blocks of 12 s, as on the real chain.
const BLOCK_TIME: Duration = Duration::from_secs(12);

fn default_block_time() -> Duration {
    BLOCK_TIME
}

/// Why a ledger cannot begin like that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GenesisError {
    /// The root network has no miners.
    #[error("netuid 0 is the root network; choose another")]
    RootNetwork,
    /// With tempo 0 no epoch ever runs.
    #[error("tempo is 0, no epoch would ever run; choose at least 1")]
    ZeroTempo,
    /// A subnet needs slots.
    #[error("max_allowed_uids is 0, nobody could register; choose at least 1")]
    NoUids,
    /// The money does not fit.
    #[error("balances and stakes together exceed {} rao", u64::MAX)]
    TooMuchMoney,
}

impl GenesisConfig {
    /// A ledger with the real chain's rules, 12 s blocks, and nobody in it.
    pub fn new(netuid: Netuid) -> Self {
        GenesisConfig {
            netuid,
            block_time: BLOCK_TIME,
            hyperparameters: Hyperparameters::default(),
            max_registrations_per_block: 256,
            endowed: Vec::new(),
            stakes: Vec::new(),
        }
    }

    /// The same ledger with blocks `speed` times as often. A speed that is not a positive number changes nothing.
    pub fn sped_up(mut self, speed: f64) -> Self {
        if speed.is_finite() && speed > 0.0 {
            self.block_time = Duration::try_from_secs_f64(self.block_time.as_secs_f64() / speed)
                .unwrap_or(self.block_time)
                .max(Duration::from_millis(1));
        }
        self
    }

    /// All money that genesis gives out, in rao.
    ///
    /// # Errors
    /// Whatever makes a ledger impossible, see [`GenesisError`].
    pub fn validate(&self) -> Result<u64, GenesisError> {
        if self.netuid.0 == 0 {
            return Err(GenesisError::RootNetwork);
        }
        if self.hyperparameters.tempo == 0 {
            return Err(GenesisError::ZeroTempo);
        }
        if self.hyperparameters.max_allowed_uids == 0 {
            return Err(GenesisError::NoUids);
        }
        let amounts = self.endowed.iter().map(|(_, a)| *a).chain(self.stakes.iter().map(|(_, a)| *a));
        amounts.into_iter().try_fold(0u64, u64::checked_add).ok_or(GenesisError::TooMuchMoney)
    }

    /// The hash of block 0: blake2b-256 over this configuration as JSON and the time of creation. Two ledgers of one
    /// configuration differ, so that no call of one can be replayed on the other.
    pub fn hash(&self, timestamp_ms: u64) -> Hash32 {
        // Serialising plain structs, lists and numbers to memory cannot fail.
        let json = serde_json::to_vec(self).expect("a genesis configuration is always JSON");
        blake2b_256(&[b"compute-ledger/1 genesis", &timestamp_ms.to_le_bytes(), &json])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_ledgers_are_refused_with_what_to_change() {
        let mut c = GenesisConfig::new(Netuid(0));
        assert_eq!(c.validate(), Err(GenesisError::RootNetwork));
        c.netuid = Netuid(1);
        c.hyperparameters.tempo = 0;
        assert_eq!(c.validate(), Err(GenesisError::ZeroTempo));
        c.hyperparameters.tempo = 1;
        c.hyperparameters.max_allowed_uids = 0;
        assert_eq!(c.validate(), Err(GenesisError::NoUids));
        c.hyperparameters.max_allowed_uids = 1;
        c.endowed = vec![(Coldkey([1; 32]), u64::MAX)];
        c.stakes = vec![(Hotkey([1; 32]), 1)];
        assert_eq!(c.validate(), Err(GenesisError::TooMuchMoney));
    }

    #[test]
    fn the_hash_binds_the_rules_and_the_moment_but_not_the_pace() {
        let a = GenesisConfig::new(Netuid(27));
        assert_eq!(a.hash(1), a.clone().sped_up(12.0).hash(1));
        assert_ne!(a.hash(1), a.hash(2));
        let mut b = a.clone();
        b.hyperparameters.tempo = 5;
        assert_ne!(a.hash(1), b.hash(1));
    }

    #[test]
    fn speed_divides_the_block_time() {
        let c = GenesisConfig::new(Netuid(27));
        assert_eq!(c.clone().sped_up(12.0).block_time, Duration::from_secs(1));
        assert_eq!(c.clone().sped_up(0.0).block_time, Duration::from_secs(12));
        assert_eq!(c.clone().sped_up(f64::NAN).block_time, Duration::from_secs(12));
        assert_eq!(c.sped_up(f64::MAX).block_time, Duration::from_millis(1));
    }
}
