//! Rounds of proofs, what they were judged to be, and the scores made of that.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{BlockNumber, Coldkey, DeviceId, Epoch, Hotkey, Uid};
use crate::scoring::{JudgedRate, Points, Scaling};
use crate::verdict::{MemoryVerdict, Verdict};

/// A round that is about to begin: whom and what it will challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// The epoch it is the round of.
    pub epoch: Epoch,
    /// The head when it began.
    pub block: BlockNumber,
    /// Everything that gets a verdict in it, also if this node does not live to give it; at most
    /// [`MAX_PLAN`](super::MAX_PLAN) bytes. Let go of once the round is closed.
    pub planned: Vec<PlannedVerdict>,
    /// When it began.
    pub at_ms: u64,
}

/// A verdict that an epoch will have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedVerdict {
    /// The miner's slot.
    pub uid: Uid,
    /// The miner.
    pub hotkey: Hotkey,
    /// Its owner.
    pub coldkey: Coldkey,
    /// The device; none for the miner as a whole.
    pub device: Option<DeviceId>,
    /// The device's model as claimed; empty when unknown.
    pub model: String,
}

/// What became of an epoch's round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoundOutcome {
    /// It was run and judged.
    Judged,
    /// It was begun and not ended, or not begun in its slot: all its verdicts are unknown, and it has no weights.
    Void,
}

impl RoundOutcome {
    /// Every outcome.
    pub const ALL: &'static [RoundOutcome] = &[RoundOutcome::Judged, RoundOutcome::Void];
    /// The label in the database and in metrics.
    pub fn label(self) -> &'static str {
        match self {
            RoundOutcome::Judged => "judged",
            RoundOutcome::Void => "void",
        }
    }
}

/// The judgement of one device, or of a whole miner, in one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// The epoch it counts for.
    pub epoch: Epoch,
    /// The miner's slot at that time.
    pub uid: Uid,
    /// The miner.
    pub hotkey: Hotkey,
    /// The device; none when the miner as a whole was judged (unreachable, no specs).
    pub device: Option<DeviceId>,
    /// The device's model as claimed; empty when unknown.
    pub model: String,
    /// The judgement.
    pub verdict: Verdict,
    /// The block whose hash the challenge was made from.
    pub block: BlockNumber,
    /// When it was decided.
    pub at_ms: u64,
}

/// The judgement of one device's memory in one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MemoryVerdictRecord {
    /// The epoch of the proof.
    pub epoch: Epoch,
    /// The miner's slot at that time.
    pub uid: Uid,
    /// The miner.
    pub hotkey: Hotkey,
    /// The device.
    pub device: DeviceId,
    /// The device's model as claimed.
    pub model: String,
    /// The judgement.
    pub verdict: MemoryVerdict,
    /// The head when the round began.
    pub block: BlockNumber,
    /// When it was decided.
    pub at_ms: u64,
}

/// A stored judgement of memory.
#[derive(Debug, Clone, PartialEq)]
pub struct MemoryVerdictRow {
    /// The judgement.
    pub record: MemoryVerdictRecord,
    /// The newest epoch whose round of work had begun when it was stored.
    pub after_round: Option<Epoch>,
}

/// The score of one miner in one epoch, with its arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRecord {
    /// The epoch.
    pub epoch: Epoch,
    /// The miner's slot at that time.
    pub uid: Uid,
    /// The miner.
    pub hotkey: Hotkey,
    /// The score, 0…200 points.
    pub score: Points,
    /// How it came about.
    pub parts: ScoreParts,
    /// When it was computed.
    pub at_ms: u64,
}

/// How a score came about: `gpu = Σ credit of counted devices · scaling`, `total = gpu + bonus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreParts {
    /// Every device of the miner.
    pub devices: Vec<DevicePart>,
    /// `100 / (8 · largest base of the table)`, as a fraction.
    pub scaling: Scaling,
    /// The points of the devices.
    pub gpu: Points,
    /// 100 points while a lease counts, else 0.
    pub bonus: Points,
    /// The score.
    pub total: Points,
    /// What else a reader should know, in sentences.
    pub notes: Vec<String>,
}

/// One device's share in a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DevicePart {
    /// The device.
    pub device: DeviceId,
    /// Its model as claimed.
    pub model: String,
    /// The model's base score in the table, in 10⁻⁶; 0 when it has no row.
    pub base_micro: u64,
    /// The rate that is paid, in operations a second.
    pub rate: Option<u64>,
    /// How that rate was judged over the last epochs, for a pass of a timed model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<JudgedRate>,
    /// The model's nominal rate in operations a second.
    pub nominal: Option<u64>,
    /// `min(1, rate / nominal)` in 10⁻⁹; 0 when not proved.
    pub factor_ppb: u64,
    /// `base · factor` in 10⁻¹⁵, before scaling.
    pub credit: u64,
    /// Whether it is one of the best eight, which are the ones that count.
    pub counted: bool,
    /// The kind of its verdict: `pass`, `fail` or `unknown`.
    pub verdict: String,
    /// The label of its verdict's reason; `none` for a pass.
    pub reason: String,
}

/// What the judge of a validator remembers after an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeRecord {
    /// The epoch.
    pub epoch: Epoch,
    /// The judge's own form.
    pub json: std::sync::Arc<Value>,
}
