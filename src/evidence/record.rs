//! What the records say: the bodies of each kind, as types. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canon::{self, CanonError};
use super::{Entry, Kind};
use crate::ids::{BlockNumber, ChallengeId, DeviceId, Epoch, Hash32, Hotkey, Uid};
use crate::proof::{Root, Work, memory};
use crate::scoring::{
    Burn, Counted, DuePenalty, HistoryRules, Judge, MinerFinding, Points, Presented, ReceiptStanding, ScoreRow,
    ScoreTable, WeightLimits,
};
use crate::store::records::WeightsStatus;
use crate::verdict::MemoryVerdict;
use crate::wire::reply::ReplyProof;

/// The digest of a value: BLAKE3 `derive_key("compute-evidence/1 digest", canonical text)`.
///
/// # Errors
/// [`CanonError`] if the value has no canonical form.
pub fn digest(thing: &impl Serialize) -> Result<Hash32, CanonError> {
    digest_of_value(&canon::value_of(thing)?)
}

/// [`digest`] of what is a value already.
///
/// # Errors
/// [`CanonError`] if the value has no canonical form.
pub fn digest_of_value(value: &Value) -> Result<Hash32, CanonError> {
    Ok(Hash32(blake3::derive_key("compute-evidence/1 digest", canon::encode(value)?.as_bytes())))
}

/// What a replay needs to begin at a segment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The judge before the segment's first epoch.
    pub judge: Judge,
    /// The table in force.
    pub table: ScoreTable,
}

/// `rules`: how verdicts become scores from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RulesBody {
    /// The digest of the table, by which `epoch` and `scores` name it.
    pub digest: Hash32,
    /// The table.
    pub table: ScoreTable,
    /// How verdicts hold over time, where the judge changes its rules too.
    pub history: Option<HistoryRules>,
}

/// `miner`: one miner in one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MinerBody {
    /// The epoch.
    pub epoch: Epoch,
    /// What was found out about it.
    pub finding: MinerFinding,
    /// How, where it was challenged.
    pub challenge: Option<Trace>,
}

/// What was exchanged with a miner over one challenge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trace {
    /// The challenge.
    pub id: ChallengeId,
    /// What the seeds were derived from.
    pub nonce: Hash32,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub sent_ms: u64,
    /// The miner's signature over its roots, if it sent roots.
    pub reply: Option<ReplyProof>,
    /// Each device that was asked, in the order asked.
    pub devices: Vec<DeviceTrace>,
}

/// What was exchanged over one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceTrace {
    /// The device.
    pub device: DeviceId,
    /// The work asked.
    pub work: Work,
    /// The roots it sent; none if it sent none.
    pub roots: Vec<Root>,
    /// From the challenge's first byte to the roots' last, in nanoseconds; 0 without roots.
    pub elapsed_ns: u64,
    /// What the positions were drawn from, once they were.
    pub seed: Option<Hash32>,
    /// How many positions were drawn.
    pub samples: u32,
    /// The BLAKE3 hash of all openings as they were received.
    pub openings: Option<Hash32>,
    /// What others can check without the openings.
    pub sample: Option<Sample>,
}

impl DeviceTrace {
    /// A device that was asked for this work and has not answered.
    pub fn asked(device: DeviceId, work: Work) -> Self {
        DeviceTrace {
            device,
            work,
            roots: Vec::new(),
            elapsed_ns: 0,
            seed: None,
            samples: 0,
            openings: None,
            sample: None,
        }
    }
}

/// `memory`: one miner's memory in one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryBody {
    /// The epoch.
    pub epoch: Epoch,
    /// The head when the round began.
    pub block: BlockNumber,
    /// The miner's uid.
    pub uid: Uid,
    /// The miner.
    pub hotkey: Hotkey,
    /// Each device that was planned, with its verdict.
    pub devices: Vec<MemoryDevice>,
    /// What was exchanged, where it was asked.
    pub challenge: Option<MemoryTrace>,
}

/// A verdict on a device's memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryDevice {
    /// The device.
    pub device: DeviceId,
    /// Its model as claimed.
    pub model: String,
    /// The verdict.
    pub verdict: MemoryVerdict,
}

/// What was exchanged with a miner over its memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryTrace {
    /// The challenge.
    pub id: ChallengeId,
    /// What the blocks were derived from.
    pub nonce: Hash32,
    /// When it was sent, in milliseconds since the Unix epoch.
    pub sent_ms: u64,
    /// The nonce of the first scan, once it was sent.
    pub scan_nonce: Option<Hash32>,
    /// The miner's signature over its roots, if it sent roots.
    pub reply: Option<ReplyProof>,
    /// Each device that was asked, in the order asked.
    pub devices: Vec<MemoryDeviceTrace>,
}

/// What was exchanged over one device's memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryDeviceTrace {
    /// The device.
    pub device: DeviceId,
    /// What was asked.
    pub size: memory::Size,
    /// The roots it sent; none if it sent none.
    pub roots: Vec<Root>,
    /// From the first byte of the first scan's nonce to the roots' last, in nanoseconds; 0 without roots.
    pub elapsed_ns: u64,
    /// What the positions were drawn from, once they were.
    pub seed: Option<Hash32>,
    /// How many positions were drawn.
    pub samples: u32,
    /// The BLAKE3 hash of all openings as they were received.
    pub openings: Option<Hash32>,
    /// What others can check: an opening, of a pass the one that the seed names, of a fail the first wrong one.
    pub sample: Option<Sample>,
}

impl MemoryDeviceTrace {
    /// A device that was asked for this and has not answered.
    pub fn asked(device: DeviceId, size: memory::Size) -> Self {
        let (roots, elapsed_ns, seed, samples, openings, sample) = (Vec::new(), 0, None, 0, None, None);
        MemoryDeviceTrace { device, size, roots, elapsed_ns, seed, samples, openings, sample }
    }
}

/// What others can check without the openings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kept", deny_unknown_fields)]
pub enum Sample {
    /// Of a pass: the path of the sample that the seed names. Its tile follows from the challenge.
    Path {
        /// Which position, from 0.
        index: u64,
        /// The siblings from the bottom, as hex; of memory the three other digests before them.
        path: String,
    },
    /// Of a fail: the first wrong opening, whole.
    Opening {
        /// Which position, from 0.
        index: u64,
        /// Tile and path, as hex; of memory the three other digests and the path.
        opening: String,
    },
}

/// `receipts`: the lease receipts that miners presented in an epoch, where there are any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptsBody {
    /// The receipts, and all by which they are judged but the judge.
    pub presented: Presented,
    /// What became of each, in their order.
    pub standings: Vec<ReceiptStanding>,
}

/// `epoch`: what an epoch's verdicts came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochBody {
    /// The epoch.
    pub epoch: Epoch,
    /// The block at which its round began.
    pub block: BlockNumber,
    /// When it was judged, in milliseconds since the Unix epoch.
    pub judged_ms: u64,
    /// Why nobody was judged, if so.
    pub void: Option<String>,
    /// `miner` records of this epoch before this one.
    pub miners: u64,
    /// The digest of the table it was judged by.
    pub rules: Hash32,
    /// The digest of the judge before.
    pub before: Hash32,
    /// The digest of the judge after.
    pub after: Hash32,
    /// The digest of the verdicts as they count.
    pub counted: Hash32,
    /// The penalties that became due.
    pub penalties: Vec<DuePenalty>,
}

/// `scores`: the scores of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoresBody {
    /// The epoch.
    pub epoch: Epoch,
    /// The digest of the table.
    pub rules: Hash32,
    /// The devices of leases that count, by miner.
    pub allocated: BTreeMap<Hotkey, Vec<DeviceId>>,
    /// Every neuron's score, in the order of the epoch's `miner` records.
    pub rows: Vec<(Uid, Hotkey, Points)>,
}

impl ScoresBody {
    /// Scores without their parts.
    pub fn rows_of(rows: &[ScoreRow]) -> Vec<(Uid, Hotkey, Points)> {
        rows.iter().map(|r| (r.uid, r.hotkey, r.score.total)).collect()
    }
}

/// `weights`: weights that are about to be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsBody {
    /// The intent.
    pub id: u64,
    /// The epoch whose scores they express.
    pub epoch: Epoch,
    /// The head at that time.
    pub block: BlockNumber,
    /// The subnet's neurons at that block, in the order of their uids.
    pub neurons: Vec<(Uid, Hotkey)>,
    /// The subnet's limits at that block.
    pub limits: WeightLimits,
    /// The version key sent with them.
    pub version_key: u64,
    /// The share that nobody earns; not in the log where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burn: Option<Burn>,
    /// The subnet's mechanism that they are for; not in the log where it is 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mechanism: u8,
    /// The vector.
    pub entries: Vec<(Uid, u16)>,
}

fn is_zero(mechanism: &u8) -> bool {
    *mechanism == 0
}

/// `weights_status`: what became of weights.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsStatusBody {
    /// The intent.
    pub id: u64,
    /// Its status from now on.
    pub status: WeightsStatus,
    /// The block of inclusion, once known.
    pub block: Option<BlockNumber>,
}

/// `outage`: epochs in which this validator was out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutageBody {
    /// The first.
    pub from: Epoch,
    /// The last.
    pub to: Epoch,
    /// How long it was, in milliseconds.
    pub lost_ms: u64,
}

/// `state`: the judge as the validator has it, where that does not follow from the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateBody {
    /// Why it does not.
    pub why: String,
    /// The judge.
    pub judge: Judge,
}

/// An entry of this kind.
///
/// # Errors
/// [`CanonError`] if the body has no canonical form.
pub fn entry(kind: Kind, at_ms: u64, body: &impl Serialize) -> Result<Entry, CanonError> {
    Ok(Entry { kind, at_ms, body: canon::value_of(body)? })
}

/// The digest of verdicts as they count.
///
/// # Errors
/// As [`digest`].
pub fn counted_digest(counted: &[Counted]) -> Result<Hash32, CanonError> {
    digest(&counted)
}
