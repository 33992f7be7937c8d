//! Messages of [`crate::actors::journal::Journal`].

use actix::Message;

use crate::ids::{DeviceId, Epoch, Hotkey, LeaseId};
use crate::store::explain::Explanation;
use crate::store::records::{
    CanaryRow, HeldCanary, JudgeRecord, LeaseEventRecord, LeaseRecord, MemoryVerdictRow, PenaltyRecord,
    ProverRunRecord, RoundRecord, SubnetViewRecord, VerdictRecord, WeightsRow,
};
use crate::store::{Record, StoreError};

/// Write these records, together or not at all, and reply when they are on disk.
#[derive(Debug, Message)]
#[rtype(result = "Result<(), StoreError>")]
pub struct Write(pub Vec<Record>);

/// Write this record when there is time; a failure is logged and counted, and that is all.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Note(pub Record);

/// The verdicts of the last so many epochs that have any, oldest first.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<VerdictRecord>, StoreError>")]
pub struct RecentVerdicts(pub u64);

/// Rounds that were begun and not closed, and the last epoch that is closed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Rounds, StoreError>")]
pub struct OpenRounds;

/// What the journal remembers of rounds.
#[derive(Debug, Clone)]
pub struct Rounds {
    /// Begun and never closed, oldest first.
    pub open: Vec<RoundRecord>,
    /// The newest epoch that was judged, or is void.
    pub last_closed: Option<Epoch>,
    /// What the judge remembered after the newest epoch that was judged with it.
    pub judge: Option<JudgeRecord>,
}

/// Rounds of memory proofs that were begun and not closed, and the newest epoch that has one.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<MemoryRounds, StoreError>")]
pub struct GetMemoryRounds;

/// What the journal remembers of rounds of memory proofs.
#[derive(Debug, Clone)]
pub struct MemoryRounds {
    /// Begun and never closed, oldest first.
    pub open: Vec<RoundRecord>,
    /// The newest epoch that has one, open or closed.
    pub last: Option<Epoch>,
}

/// The judgements of the last rounds of memory proofs, as many as a standing needs, oldest first.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<MemoryVerdictRow>, StoreError>")]
pub struct MemoryHistory;

/// Every lease that has not ended.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<LeaseRecord>, StoreError>")]
pub struct LiveLeases;

/// One lease, ended or not, with its steps.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Option<(LeaseRecord, Vec<LeaseEventRecord>)>, StoreError>")]
pub struct LeaseWithEvents(pub LeaseId);

/// The last so many leases that have ended, the latest first.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<LeaseRecord>, StoreError>")]
pub struct EndedLeases(pub u32);

/// One lease, live or ended.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Option<LeaseRecord>, StoreError>")]
pub struct GetLease(pub LeaseId);

/// Canaries that perhaps hold what they rented, oldest first: those that have not ended, and those that were not given back.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<HeldCanary>, StoreError>")]
pub struct HeldCanaries;

/// The last canaries of a miner, or of all, the latest first, at most so many.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<CanaryRow>, StoreError>")]
pub struct LastCanaries(pub Option<Hotkey>, pub u32);

/// When the last canary of each miner began, in milliseconds since the Unix epoch, and whether it passed.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<(Hotkey, u64, bool)>, StoreError>")]
pub struct CanaryTimes;

/// The devices that did not prove themselves in their last canary that says something of them, with its words.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<(Hotkey, DeviceId, String)>, StoreError>")]
pub struct CanaryFailures;

/// What was recorded of the last challenge that this validator sent to this miner, by device.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<ProverRunRecord>, StoreError>")]
pub struct LastProof(pub Hotkey);

/// Why a miner has its score, from the records, as of this time (milliseconds since the Unix epoch).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Explanation, StoreError>")]
pub struct Explain(pub Hotkey, pub u64);

/// The penalties that hold at this time (milliseconds since the Unix epoch).
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Vec<PenaltyRecord>, StoreError>")]
pub struct PenaltiesAt(pub u64);

/// The last weights that were to be set, and the number for the next ones.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<LastWeights, StoreError>")]
pub struct GetLastWeights;

/// What is kept under this key of the table `meta`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Option<String>, StoreError>")]
pub struct ReadMeta(pub &'static str);

/// The subnet as it was last read from the chain.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<Option<SubnetViewRecord>, StoreError>")]
pub struct LastView;

/// What the journal remembers of weights.
#[derive(Debug, Clone)]
pub struct LastWeights {
    /// The newest intents with their status, at most 16, the newest first.
    pub recent: Vec<WeightsRow>,
    /// Those whose end is not known, oldest first.
    pub open: Vec<WeightsRow>,
    /// The newest epoch that needs no other weights.
    pub settled: Option<Epoch>,
    /// The newest that is certainly on the chain.
    pub included: Option<WeightsRow>,
    /// The id for the next intent.
    pub next_id: u64,
}
