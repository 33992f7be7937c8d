//! The subnet as the chain shows it, and who of it is penalised.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admission::Subject;
use crate::ids::{BlockNumber, Coldkey, Hotkey, Uid};
use crate::scoring::DuePenalty;

/// The neurons of the subnet at a block. A slot belongs to whoever was seen in it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeuronsRecord {
    /// The block they were read at.
    pub block: BlockNumber,
    /// The neurons.
    pub neurons: Vec<NeuronEntry>,
}

/// One neuron as read from the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeuronEntry {
    /// Its slot.
    pub uid: Uid,
    /// Its key.
    pub hotkey: Hotkey,
    /// Its owner.
    pub coldkey: Coldkey,
    /// What admission says of it, where this node decides about it.
    pub admission: Option<AdmissionNote>,
}

/// What admission decided about a neuron.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionNote {
    /// Whether it takes part.
    pub admitted: bool,
    /// The label of the reason.
    pub reason: String,
    /// The reason, as a lower-case fragment.
    pub text: String,
    /// What its operator should do; empty when nothing.
    pub remedy: String,
}

/// A stored neuron.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeuronRow {
    /// The neuron as seen last.
    pub neuron: NeuronEntry,
    /// The block at which this node saw the hotkey first.
    pub first_seen_block: BlockNumber,
    /// The block at which this node saw the hotkey last.
    pub last_seen_block: BlockNumber,
}

/// A penalty and its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PenaltyRecord {
    /// Whom it is for.
    pub subject: Subject,
    /// The label of the reason.
    pub reason: String,
    /// What was seen, safe to publish.
    pub detail: String,
    /// From when.
    pub from_ms: u64,
    /// Until when; the penalty no longer holds at this time.
    pub until_ms: u64,
}

impl From<DuePenalty> for PenaltyRecord {
    fn from(due: DuePenalty) -> Self {
        let DuePenalty { hotkey, reason, detail, from_ms, until_ms } = due;
        PenaltyRecord { subject: hotkey.into(), reason, detail, from_ms, until_ms }
    }
}

/// The subnet as it was last read from the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct SubnetViewRecord {
    /// The head that it shows.
    pub block: BlockNumber,
    /// The watcher's own form, at most [`MAX_VIEW`](super::MAX_VIEW) bytes.
    pub json: std::sync::Arc<Value>,
    /// When it was read from the chain.
    pub at_ms: u64,
}
