//! What can be written: plain records, one struct per table, without behaviour of the domains they come from.
//!
//! Times are milliseconds since the Unix epoch. Identities are stored as the text they display, so that a person can read the
//! database with the `sqlite3` program. JSON columns hold serde's form of the struct or the value given.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Role;
use crate::admission::Subject;
use crate::canary::Report;
use crate::chain::PreparedWeights;
pub use crate::evidence::EvidenceRecord;
use crate::ids::{BlockNumber, ChallengeId, Coldkey, DeviceId, Epoch, Hash32, Hotkey, LeaseId, Uid};
use crate::scoring::{DuePenalty, JudgedRate, Points, Scaling};
use crate::verdict::{MemoryVerdict, Verdict};
use crate::wire::synapse::original::PublicKey;

/// Largest JSON text of one column, in bytes. What is longer is refused, not cut.
pub const MAX_JSON: usize = 1 << 20;
/// Largest JSON text of a round's plan, in bytes: 256 miners with 16 devices each, whose models have 64 bytes, need more than 1 MB.
pub const MAX_PLAN: usize = 8 << 20;
/// Largest JSON text of the judge's memory, in bytes: 256 miners with all the devices that are remembered.
pub const MAX_JUDGE: usize = 64 << 20;
/// Largest JSON text of a view of the subnet, in bytes: 4,096 neurons without their weights need less than 4 MB.
pub const MAX_VIEW: usize = 8 << 20;
/// Largest plain text of one column (detail, model, reason), in bytes.
pub const MAX_TEXT: usize = 16 << 10;
/// Specs of one hotkey that are kept, the latest ones.
pub const MAX_SPECS_OF_ONE: u32 = 16;
/// Prover runs of one validator that are kept, the latest ones: 8 devices over 64 epochs.
pub const MAX_RUNS_OF_ONE: u32 = 512;

/// One thing to remember.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A miner's specs, or this machine's.
    Specs(SpecsRecord),
    /// The intent to run an epoch's round, before the first challenge goes out. The same one again is accepted, another for the
    /// same epoch is a `Conflict`: there is one draw an epoch.
    Round(RoundRecord),
    /// An epoch's round is over, or will not be. Written together with its verdicts.
    RoundClosed {
        /// The epoch.
        epoch: Epoch,
        /// What became of it.
        outcome: RoundOutcome,
        /// When it was closed.
        at_ms: u64,
    },
    /// The judgement of a device in an epoch. The same one again is accepted, another of the same device in the same epoch is a
    /// `Conflict`: what was judged stays judged.
    Verdict(VerdictRecord),
    /// The intent to run an epoch's round of memory proofs, before the first request goes out. Another one for the same
    /// epoch is a `Conflict`, the same one again too: what was begun is not begun again.
    MemoryRound(RoundRecord),
    /// An epoch's round of memory proofs is over, with its verdicts. A round that is closed, or was never begun, is a
    /// `Conflict`.
    MemoryRoundClosed {
        /// The epoch.
        epoch: Epoch,
        /// Its verdicts, one for each device that was planned.
        verdicts: Vec<MemoryVerdictRecord>,
        /// When it was closed.
        at_ms: u64,
    },
    /// The score of a miner in an epoch. A later score of the same epoch replaces it.
    Score(ScoreRecord),
    /// The intent to set weights, before it goes to the chain.
    Weights(WeightsRecord),
    /// What became of an intent to set weights.
    WeightsStatus(WeightsStatusRecord),
    /// A lease's state: written as the intent before the container engine is called, and again after. A lower fencing epoch
    /// than the stored one, or a device that another live lease of the same miner holds, is a `Conflict`.
    Lease(LeaseRecord),
    /// A step in a lease's history. The same step again is accepted, another step under the same number is a `Conflict`.
    LeaseEvent(LeaseEventRecord),
    /// A peer is penalised. The same penalty (subject, reason, start) again moves its end.
    Penalty(PenaltyRecord),
    /// Every penalty of the hotkey or the address ends at this time.
    PenaltyLifted {
        /// Whose penalties end.
        subject: Subject,
        /// When, unless they end earlier.
        at_ms: u64,
    },
    /// The neurons of the subnet at a block.
    Neurons(NeuronsRecord),
    /// A challenge that this miner accepted for one device, before its roots are sent; later again, with how it ended. The
    /// last [`MAX_RUNS_OF_ONE`] of each validator are kept.
    ProverRun(ProverRunRecord),
    /// Records for the evidence log, on disk before the rest of their batch is committed. Refused by a node without a log.
    Evidence(EvidenceRecord),
    /// What the judge remembers after an epoch. An earlier epoch's never replaces a later one's.
    Judge(JudgeRecord),
    /// A canary rental is about to begin; an id is used once. With it the key that will own the rental, where that is made over
    /// the original's protocol.
    Canary(CanaryRecord, Option<PublicKey>),
    /// A canary rental has ended: what it costs is booked. The end that is written first stays. What it rented is given back,
    /// unless the report says otherwise.
    CanaryEnded {
        /// Which.
        id: LeaseId,
        /// When.
        ended_ms: u64,
        /// What it came to.
        report: Box<Report>,
    },
    /// What an ended canary rental had left is given back, or nobody is asked for it any more.
    CanaryReleased {
        /// Which.
        id: LeaseId,
        /// Whether it is certainly given back.
        confirmed: bool,
    },
    /// What is known of the subnet, for a start without the chain. Replaces the one before.
    SubnetView(SubnetViewRecord),
    /// A setting of the node itself.
    Meta {
        /// Its name.
        key: String,
        /// Its value.
        value: String,
    },
    /// Forget what is older. Live leases, their events, pending weights and running penalties always stay.
    Prune(Retention),
    /// Several records, written together or not at all.
    Batch(Vec<Record>),
}

impl Record {
    /// Whether the acknowledgement must wait for an fsync: what a node must not forget even when the machine loses power. The
    /// others survive the death of the process, and reach the disk with the next durable record or checkpoint.
    pub fn durable(&self) -> bool {
        match self {
            Record::Round(_)
            | Record::MemoryRound(_)
            | Record::Weights(_)
            | Record::WeightsStatus(_)
            | Record::Lease(_)
            | Record::LeaseEvent(_)
            | Record::Penalty(_)
            | Record::PenaltyLifted { .. }
            | Record::Canary(..)
            | Record::Meta { .. }
            // The log's file is synced before the commit that names its end: were the commit lost, records that are
            // acknowledged would be cut off at the next start as if they were not.
            | Record::Evidence(_) => true,
            // The intent must be there after a crash; how the run ended need not.
            Record::ProverRun(run) => run.outcome.is_none(),
            Record::Specs(_)
            | Record::RoundClosed { .. }
            | Record::MemoryRoundClosed { .. }
            | Record::Verdict(_)
            | Record::Score(_)
            | Record::Neurons(_)
            | Record::Judge(_)
            | Record::CanaryEnded { .. }
            | Record::CanaryReleased { .. }
            | Record::SubnetView(_)
            | Record::Prune(_) => false,
            Record::Batch(records) => records.iter().any(Record::durable),
        }
    }
    /// The kind of record, for logs and metrics: snake case, stable.
    pub fn kind(&self) -> &'static str {
        match self {
            Record::Specs(_) => "specs",
            Record::Round(_) => "round",
            Record::RoundClosed { .. } => "round_closed",
            Record::MemoryRound(_) => "memory_round",
            Record::MemoryRoundClosed { .. } => "memory_round_closed",
            Record::Verdict(_) => "verdict",
            Record::Score(_) => "score",
            Record::Weights(_) => "weights",
            Record::WeightsStatus(_) => "weights_status",
            Record::Lease(_) => "lease",
            Record::LeaseEvent(_) => "lease_event",
            Record::Penalty(_) => "penalty",
            Record::PenaltyLifted { .. } => "penalty_lifted",
            Record::Neurons(_) => "neurons",
            Record::ProverRun(_) => "prover_run",
            Record::Evidence(_) => "evidence",
            Record::Judge(_) => "judge",
            Record::Canary(..) => "canary",
            Record::CanaryReleased { .. } => "canary_released",
            Record::CanaryEnded { .. } => "canary_ended",
            Record::SubnetView(_) => "subnet_view",
            Record::Meta { .. } => "meta",
            Record::Prune(_) => "prune",
            Record::Batch(_) => "batch",
        }
    }
    /// A lease's new state and the step that led to it, as one write.
    pub fn lease_step(lease: LeaseRecord, event: LeaseEventRecord) -> Record {
        Record::Batch(vec![Record::Lease(lease), Record::LeaseEvent(event)])
    }
}

/// A machine's specs at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpecsRecord {
    /// Whose machine.
    pub hotkey: Hotkey,
    /// When they were measured or received.
    pub taken_at_ms: u64,
    /// The block at that time.
    pub block: BlockNumber,
    /// The specs as sent, at most [`MAX_JSON`] bytes.
    pub json: Value,
}

/// A round that is about to begin: whom and what it will challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// The epoch it is the round of.
    pub epoch: Epoch,
    /// The head when it began.
    pub block: BlockNumber,
    /// Everything that gets a verdict in it, also if this node does not live to give it; at most [`MAX_PLAN`] bytes. Let go of
    /// once the round is closed.
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
    /// Chosen by the caller, unique; [`super::queries::next_weights_id`] names the next one.
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

/// A lease as this node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The lease.
    pub id: LeaseId,
    /// Goes up with each takeover; an older one is refused.
    pub fencing_epoch: u64,
    /// Which side of the lease this node is.
    pub role: Role,
    /// Whose devices they are.
    pub miner: Hotkey,
    /// Who rents them.
    pub renter: Hotkey,
    /// The devices.
    pub devices: Vec<DeviceId>,
    /// The state's name, snake case.
    pub state: String,
    /// Whether the lease still holds its devices. Only live leases are returned at boot, and only they exclude each other.
    pub live: bool,
    /// When it ends.
    pub expires_at_ms: u64,
    /// Digest of the ownership token; the token itself is never stored.
    pub owner_token_digest: Hash32,
    /// The engine's name for the container, once there is one.
    pub container: Option<String>,
    /// The state machine's own form.
    pub json: Value,
    /// When it changed last.
    pub updated_ms: u64,
}

/// A step in a lease's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseEventRecord {
    /// The lease.
    pub lease: LeaseId,
    /// The step's number within the lease, from 0 or 1 on.
    pub seq: u64,
    /// The step.
    pub event: Value,
    /// When.
    pub at_ms: u64,
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

/// A challenge that this miner accepted, for one device: all that is needed to do it again, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProverRunRecord {
    /// The challenge.
    pub challenge: ChallengeId,
    /// Who asked.
    pub validator: Hotkey,
    /// The device.
    pub device: DeviceId,
    /// The epoch asked for.
    pub epoch: Epoch,
    /// The validator's nonce.
    pub nonce: Hash32,
    /// Rows and columns of the product.
    pub n: u32,
    /// The inner dimension.
    pub k: u32,
    /// Rounds.
    pub rounds: u32,
    /// When it was accepted.
    pub at_ms: u64,
    /// How long the provers of the challenge took, in nanoseconds; none until they have ended.
    pub elapsed_ns: Option<u64>,
    /// The label of how the run ended; none until it has.
    pub outcome: Option<String>,
    /// The prover's last words, if it ended badly.
    pub detail: String,
}

/// What the judge of a validator remembers after an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct JudgeRecord {
    /// The epoch.
    pub epoch: Epoch,
    /// The judge's own form.
    pub json: std::sync::Arc<Value>,
}

/// A canary rental.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRecord {
    /// Its lease.
    pub id: LeaseId,
    /// The miner.
    pub miner: Hotkey,
    /// The devices that are rented.
    pub devices: Vec<DeviceId>,
    /// When it began.
    pub begun_ms: u64,
    /// Whether it is made over the original's protocol, at a miner that speaks no other.
    #[serde(default)]
    pub original: bool,
}

/// A canary rental that perhaps holds what it rented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldCanary {
    /// The rental, and what it came to if it has ended.
    pub row: CanaryRow,
    /// The key that owns the rental, where that was made over the original's protocol.
    pub original_key: Option<PublicKey>,
}

/// A canary rental and what it came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryRow {
    /// The rental.
    #[serde(flatten)]
    pub record: CanaryRecord,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// What it came to, once it has ended.
    pub report: Option<Report>,
}

/// The subnet as it was last read from the chain.
#[derive(Debug, Clone, PartialEq)]
pub struct SubnetViewRecord {
    /// The head that it shows.
    pub block: BlockNumber,
    /// The watcher's own form, at most [`MAX_VIEW`] bytes.
    pub json: std::sync::Arc<Value>,
    /// When it was read from the chain.
    pub at_ms: u64,
}

/// What [`Record::Prune`] forgets. A limit of 0 forgets nothing of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retention {
    /// Verdicts and scores of earlier epochs go.
    pub before_epoch: Epoch,
    /// Earlier ended leases with their events, settled weights, ended penalties, prover runs and specs go; the
    /// latest specs of each hotkey and the latest included weights stay.
    pub before_ms: u64,
}
