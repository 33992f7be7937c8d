//! The keys of a devnet: all from one random seed that is kept in its directory, so that a devnet can be continued and
//! its nodes can also run as processes of their own.

use std::path::Path;

use secrecy::ExposeSecret as _;

use crate::actors::node::{NodeError, secret};
use crate::wallet::Keypair;

/// The file of the seed.
pub(crate) const SEED_FILE: &str = "devnet.seed";

/// The keys of a devnet.
pub struct DevnetKeys(secrecy::SecretBox<[u8; 32]>);

impl DevnetKeys {
    /// Reads the seed in `dir`, or makes one.
    ///
    /// # Errors
    /// [`NodeError::File`].
    pub fn load(dir: &Path) -> Result<Self, NodeError> {
        secret(&dir.join(SEED_FILE)).map(DevnetKeys)
    }

    fn key(&self, kind: &str, index: usize) -> Keypair {
        let mut hasher = blake3::Hasher::new_derive_key("compute-subnet devnet keys");
        hasher.update(self.0.expose_secret());
        hasher.update(format!("{kind}/{index}").as_bytes());
        Keypair::from_seed(hasher.finalize().as_bytes())
    }

    /// The hotkey of a miner.
    pub fn miner(&self, index: usize) -> Keypair {
        self.key("miner", index)
    }
    /// The coldkey of a miner.
    pub fn miner_owner(&self, index: usize) -> Keypair {
        self.key("miner-owner", index)
    }
    /// The hotkey of a validator.
    pub fn validator(&self, index: usize) -> Keypair {
        self.key("validator", index)
    }
    /// The coldkey of a validator.
    pub fn validator_owner(&self, index: usize) -> Keypair {
        self.key("validator-owner", index)
    }
    /// The key of the synthetic renter.
    pub fn renter(&self) -> Keypair {
        self.key("renter", 0)
    }
}
