//! The evidence log: what a validator saw and decided, so that others can check it without trusting the validator.
//!
//! An append-only, hash-chained, signed log of one JSON record a line, in segments below `{data_dir}/evidence/`. The format
//! is `docs/evidence.md`, exact enough to write another verifier from. Read in this order: [`canon`] (one text for one
//! value), [`chain`] (hashes and seals), [`log`] (writing), [`read`] (reading and checking).
//!
//! Invariants:
//! - a record is on disk, synced, before the transaction that it belongs to is committed, and what the database says is the
//!   log's end is never beyond the log's real end;
//! - nothing is ever rewritten: an unacknowledged end is kept beside the log, a damaged log is continued in a new segment
//!   that says so;
//! - a nonce or a seed is logged only after its miner's window is over;
//! - no float in any record.

pub mod canon;
pub mod chain;
pub mod log;
pub mod read;
pub mod record;
pub mod replay;
pub mod sample;

pub use log::{Head, Identity, Limits, Log, LogNote, LogStats};

/// The log's directory in a data directory.
pub const DIRECTORY: &str = "evidence";
/// The version of the format.
pub const FORMAT: u64 = 1;

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Begins a segment.
    Segment,
    /// The rules by which verdicts become scores.
    Rules,
    /// One miner in one epoch.
    Miner,
    /// One miner's memory in one epoch.
    Memory,
    /// The lease receipts that miners presented in an epoch, and which count.
    Receipts,
    /// Closes an epoch: what its verdicts came to.
    Epoch,
    /// The scores of an epoch.
    Scores,
    /// The state of the judge, where it does not follow from the log.
    State,
    /// Weights about to be set.
    Weights,
    /// What became of weights.
    WeightsStatus,
    /// The validator was out.
    Outage,
    /// A miner is penalised.
    Penalty,
    /// The validator's signature over all before.
    Seal,
}

impl Kind {
    /// The text in the log.
    pub fn label(self) -> &'static str {
        match self {
            Kind::Segment => "segment",
            Kind::Rules => "rules",
            Kind::Miner => "miner",
            Kind::Memory => "memory",
            Kind::Receipts => "receipts",
            Kind::Epoch => "epoch",
            Kind::Scores => "scores",
            Kind::State => "state",
            Kind::Weights => "weights",
            Kind::WeightsStatus => "weights_status",
            Kind::Outage => "outage",
            Kind::Penalty => "penalty",
            Kind::Seal => "seal",
        }
    }
}

/// One thing to log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What it is about. `Segment` and `Seal` are the log's own.
    pub kind: Kind,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The rest, without floats.
    pub body: serde_json::Value,
}

/// Things to log together, in this order.
#[derive(Debug, Clone, PartialEq)]
pub struct EvidenceRecord {
    /// The things.
    pub entries: Vec<Entry>,
    /// The state before the first of them, from which a replay can begin: a new segment may begin here.
    pub state: Option<std::sync::Arc<serde_json::Value>>,
    /// The epoch that they close: once only, however often they are written.
    pub closes: Option<crate::ids::Epoch>,
}

impl EvidenceRecord {
    /// One thing alone.
    pub fn one(kind: Kind, at_ms: u64, body: serde_json::Value) -> Self {
        EvidenceRecord { entries: vec![Entry { kind, at_ms, body }], state: None, closes: None }
    }
}

/// The file name of a segment.
pub(crate) fn segment_name(number: u64) -> String {
    format!("{number:010}.log")
}

/// The number of the segment with this file name; `None` for any other file.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|d| d.len() == 10 && d.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok()
}

/// The segments in a directory, in order; none if there is no such directory.
pub(crate) fn segments(dir: &std::path::Path) -> std::io::Result<Vec<u64>> {
    let files = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut numbers = Vec::new();
    for file in files {
        numbers.extend(file?.file_name().to_str().and_then(segment_number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
