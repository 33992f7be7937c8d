//! The ways that weights take to the chain, as values that can be written down before anything is sent.
//!
//! A subnet takes weights in one of three ways ([`Route`]). In all of them [`PreparedWeights`] holds everything that the
//! sending needs, the secret salt or the sealed bytes too: a node that was killed between writing it down and hearing the
//! chain's answer finds out from [`WeightsShown`] whether they arrived, and can send the very same ones or reveal them.
//! [`intent`] is how: the life of one intent to set weights. [`divergence`](mod@divergence) compares vectors.

pub mod divergence;
pub mod intent;

use serde::{Deserialize, Serialize};

use super::types::Weights;
use super::{ChainError, Class};
use crate::ids::{BlockNumber, Hash32, Uid};

/// Blocks after [`PreparedWeights::at`] in which weights may be [sent](super::Chain::submit_weights). So it is known when the last
/// call of them can be included, also of a node that was killed.
pub const SENDING: u64 = 16;

/// How weights get to the chain. As `Debug` it shows no salt and no sealed bytes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "way", rename_all = "snake_case")]
pub enum Route {
    /// In the open: they count at once.
    Plain,
    /// Their hash first, the weights in a later epoch, sent by us.
    Hashed {
        /// What makes the hash unguessable. Secret until the weights are revealed.
        salt: Vec<u16>,
        /// What is committed to.
        hash: Hash32,
    },
    /// Sealed to a round of drand's beacon: the chain opens them by itself.
    Timelocked {
        /// The sealed weights.
        #[serde(with = "hex::serde")]
        commit: Vec<u8>,
        /// The round that opens them.
        round: u64,
        /// The version of the sealing, see [`super::commit::COMMIT_REVEAL_VERSION`].
        version: u16,
    },
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Route::Plain => f.write_str("Plain"),
            Route::Hashed { hash, .. } => f.debug_struct("Hashed").field("hash", hash).finish_non_exhaustive(),
            Route::Timelocked { round, version, .. } => {
                f.debug_struct("Timelocked").field("round", round).field("version", version).finish_non_exhaustive()
            }
        }
    }
}

impl Route {
    /// Its name in logs and metrics: `plain`, `hashed`, `timelocked`.
    pub fn label(&self) -> &'static str {
        match self {
            Route::Plain => "plain",
            Route::Hashed { .. } => "hashed",
            Route::Timelocked { .. } => "timelocked",
        }
    }
}

/// Weights ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedWeights {
    /// The weights.
    pub weights: Weights,
    /// The subnet's mechanism that they are for, 0 to 15.
    pub mechanism: u8,
    /// How they go.
    pub route: Route,
    /// The block whose rules they were prepared by.
    pub at: BlockNumber,
    /// For a commit that is included in the block after `at`: the blocks in which it is revealed, the first and the one after the
    /// last. `None` for plain weights.
    pub reveal: Option<(BlockNumber, BlockNumber)>,
}

impl PreparedWeights {
    /// What the chain shows of a commit that is not revealed: the committed hash, or the blake2b-256 hash of the sealed
    /// bytes. `None` for plain weights.
    pub fn digest(&self) -> Option<Hash32> {
        match &self.route {
            Route::Plain => None,
            Route::Hashed { hash, .. } => Some(*hash),
            Route::Timelocked { commit, .. } => Some(digest_of(commit)),
        }
    }

    /// The last head at which they may be signed.
    pub fn until(&self) -> BlockNumber {
        self.at.saturating_add(SENDING)
    }

    /// Whether they may be signed at this head.
    ///
    /// # Errors
    /// [`ChainError::Unsent`] if it is too late for that.
    pub fn in_time(&self, head: BlockNumber) -> Result<(), ChainError> {
        match head > self.until() {
            true => {
                let made = format!("these weights were made for block {} and the {SENDING} after it", self.at);
                Err(ChainError::Unsent { class: Class::Retry, why: format!("{made}, the chain is at {head}") })
            }
            false => Ok(()),
        }
    }
}

/// The blake2b-256 hash by which a sealed commit is recognised.
pub(crate) fn digest_of(commit: &[u8]) -> Hash32 {
    super::subtensor::heads::blake2b_256(commit)
}

/// A commit that is on the chain and not revealed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownCommit {
    /// See [`PreparedWeights::digest`].
    pub digest: Hash32,
    /// The block that holds it, where the chain tells.
    pub block: Option<BlockNumber>,
}

/// What the chain shows of our own weights, as of a finalised block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsShown {
    /// The finalised block.
    pub at: BlockNumber,
    /// The block in which we last set or committed weights, or registered.
    pub last_update: BlockNumber,
    /// The weights that count, after the chain's scaling (the largest is 65,535).
    pub entries: Vec<(Uid, u16)>,
    /// Commits that wait to be revealed.
    pub commits: Vec<ShownCommit>,
}
