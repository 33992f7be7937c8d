//! What can be written: plain records, one struct per table, without behaviour of the domains they come from.
//!
//! Times are milliseconds since the Unix epoch. Identities are stored as the text they display, so that a person can read the
//! database with the `sqlite3` program. JSON columns hold serde's form of the struct or the value given.

mod leases;
mod rounds;
mod subnet;
mod weights;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admission::Subject;
use crate::canary::Report;
use crate::ids::{BlockNumber, ChallengeId, DeviceId, Epoch, Hash32, Hotkey, LeaseId};
use crate::wire::synapse::original::PublicKey;

pub use crate::evidence::EvidenceRecord;
pub use leases::{CanaryRecord, CanaryRow, HeldCanary, LeaseEventRecord, LeaseRecord};
pub use rounds::{
    DevicePart, JudgeRecord, MemoryVerdictRecord, MemoryVerdictRow, PlannedVerdict, RoundOutcome, RoundRecord,
    ScoreParts, ScoreRecord, VerdictRecord,
};
pub use subnet::{AdmissionNote, NeuronEntry, NeuronRow, NeuronsRecord, PenaltyRecord, SubnetViewRecord};
pub use weights::{WeightEntry, WeightsRecord, WeightsRow, WeightsStatus, WeightsStatusRecord};

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

/// What [`Record::Prune`] forgets. A limit of 0 forgets nothing of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Retention {
    /// Verdicts and scores of earlier epochs go.
    pub before_epoch: Epoch,
    /// Earlier ended leases with their events, settled weights, ended penalties, prover runs and specs go; the
    /// latest specs of each hotkey and the latest included weights stay.
    pub before_ms: u64,
}
