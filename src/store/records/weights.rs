//! Intents to set weights, and what became of them.

use serde::{Deserialize, Serialize};

use crate::chain::PreparedWeights;
use crate::ids::{BlockNumber, Epoch, Hotkey, Uid};

/// One entry of a weight vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightEntry {
    /// The slot it goes to.
    pub uid: Uid,
    /// Who held the slot.
    pub hotkey: Hotkey,
    /// The weight, relative to the vector's sum.
    pub weight: u16,
}

/// An intent to set weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsRecord {
    /// Chosen by the caller, unique; [`crate::store::queries::next_weights_id`] names the next one.
    pub id: u64,
    /// The epoch whose scores it expresses.
    pub epoch: Epoch,
    /// The block at which it was made.
    pub block: BlockNumber,
    /// The vector.
    pub entries: Vec<WeightEntry>,
    /// What is about to be sent, the salt of a commit included: a secret until the commit is revealed. `None` where nothing
    /// could be prepared, and for intents from before.
    pub prepared: Option<PreparedWeights>,
    /// When it was made.
    pub at_ms: u64,
}

/// What became of an intent to set weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightsStatus {
    /// Not known yet: look at the chain before another attempt.
    Pending,
    /// The chain said that a block holds the call; no finalised block has shown it yet.
    Sent,
    /// A finalised block shows the commit, which waits to be revealed.
    Committed,
    /// Seen on chain, set in the open.
    Included,
    /// Seen on chain, revealed after a commit.
    Revealed,
    /// Committed, and not revealed in its time.
    Missed,
    /// The chain shows other weights in their place.
    Unequal,
    /// Refused, or certainly not included.
    Failed,
    /// Only to compare with: never meant to be sent (`weights.mode`).
    Shadow,
}

impl WeightsStatus {
    /// Every status.
    pub const ALL: [WeightsStatus; 9] = {
        use WeightsStatus as S;
        [S::Pending, S::Sent, S::Committed, S::Included, S::Revealed, S::Missed, S::Unequal, S::Failed, S::Shadow]
    };

    /// The text in the database.
    pub fn label(self) -> &'static str {
        match self {
            WeightsStatus::Pending => "pending",
            WeightsStatus::Sent => "sent",
            WeightsStatus::Committed => "committed",
            WeightsStatus::Included => "included",
            WeightsStatus::Revealed => "revealed",
            WeightsStatus::Missed => "missed",
            WeightsStatus::Unequal => "unequal",
            WeightsStatus::Failed => "failed",
            WeightsStatus::Shadow => "shadow",
        }
    }

    /// Whether the end is still to come.
    pub fn is_open(self) -> bool {
        matches!(self, WeightsStatus::Pending | WeightsStatus::Sent | WeightsStatus::Committed)
    }

    /// The status with this text in the database.
    pub fn of_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.label() == label)
    }
}

/// A change of an intent's status. An unknown id is a `Conflict`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsStatusRecord {
    /// The intent.
    pub id: u64,
    /// Its status from now on.
    pub status: WeightsStatus,
    /// The block of inclusion, once known.
    pub included_block: Option<BlockNumber>,
    /// What was seen: the extrinsic's hash, or the chain's error.
    pub detail: String,
    /// When.
    pub at_ms: u64,
}

/// A stored intent with what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsRow {
    /// The intent.
    pub weights: WeightsRecord,
    /// Its status.
    pub status: WeightsStatus,
    /// The block of inclusion, once known.
    pub included_block: Option<BlockNumber>,
    /// What was seen last.
    pub detail: String,
    /// When the status changed last.
    pub updated_ms: u64,
}
