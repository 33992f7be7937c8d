//! Why a miner has its score: from rows to a text that its operator understands, and to the same as JSON.
//!
//! [`gather`] reads, [`Explanation::to_text`] formats; nothing is recomputed, what is shown is what was stored when the score
//! was made. Everything in it is safe to publish.

mod text;

use std::path::Path;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::queries;
use super::read_only::{ReadError, database_path, open_read_only};
use super::records::*;
use crate::ids::{BlockNumber, Coldkey, Epoch, Hotkey, LeaseId, Uid};
use crate::scoring::Points;
use crate::verdict::{PassEvidence, Side, Verdict};

/// How many epochs' verdicts a text lists per device at most.
const HISTORY: u32 = 64;
/// How many leases are listed.
const LEASES: u32 = 8;

/// Everything that is known about one miner's standing. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The miner.
    pub hotkey: Hotkey,
    /// When this was put together.
    pub at_ms: u64,
    /// Its slot as last seen; none if this node never saw it registered.
    pub uid: Option<Uid>,
    /// Its owner as last seen.
    pub coldkey: Option<Coldkey>,
    /// The block at which it was seen last.
    pub last_seen_block: Option<BlockNumber>,
    /// What admission says.
    pub admission: Option<AdmissionNote>,
    /// Its last score with the arithmetic.
    pub score: Option<ScoreView>,
    /// Its last verdicts, newest epoch first.
    pub verdicts: Vec<VerdictView>,
    /// Leases of its devices, live ones first.
    pub leases: Vec<LeaseView>,
    /// Penalties that have not ended.
    pub penalties: Vec<PenaltyRecord>,
    /// Its place in the last weights that were seen on chain.
    pub weights: Option<WeightView>,
    /// Its place in weights of which the chain has not been heard yet, or that it refused, if later.
    pub attempt: Option<WeightView>,
}

/// A score with its arithmetic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreView {
    /// The epoch it is of.
    pub epoch: Epoch,
    /// The score.
    pub score: Points,
    /// How it came about.
    pub parts: ScoreParts,
}

/// A verdict in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictView {
    /// The epoch.
    pub epoch: Epoch,
    /// The block whose hash the challenge was made from.
    pub block: BlockNumber,
    /// The device as displayed; none when the miner as a whole was judged.
    pub device: Option<String>,
    /// Its model as claimed.
    pub model: String,
    /// `pass`, `fail` or `unknown`.
    pub verdict: String,
    /// The label of the reason; `none` for a pass.
    pub reason: String,
    /// The reason in words; empty for a pass.
    pub text: String,
    /// What to do; empty for a pass.
    pub remedy: String,
    /// Who has to act, for an unknown.
    pub side: Option<Side>,
    /// Where exactly, or what was seen.
    pub detail: String,
    /// What was measured, for a pass.
    pub evidence: Option<PassEvidence>,
    /// When it was decided.
    pub at_ms: u64,
}

impl From<VerdictRecord> for VerdictView {
    fn from(r: VerdictRecord) -> Self {
        let (verdict, reason) = (r.verdict.kind().to_owned(), r.verdict.reason().to_owned());
        let (text, remedy, side, detail, evidence) = match r.verdict {
            Verdict::Pass { evidence } => ("", "", None, String::new(), Some(evidence)),
            Verdict::Fail { reason, detail } => (reason.text(), reason.remedy(), None, detail, None),
            Verdict::Unknown { cause, detail } => (cause.text(), cause.remedy(), Some(cause.side()), detail, None),
        };
        VerdictView {
            epoch: r.epoch,
            block: r.block,
            device: r.device.map(|d| d.to_string()),
            model: r.model,
            verdict,
            reason,
            text: text.to_owned(),
            remedy: remedy.to_owned(),
            side,
            detail,
            evidence,
            at_ms: r.at_ms,
        }
    }
}

/// A lease in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The lease.
    pub id: LeaseId,
    /// Its state's name.
    pub state: String,
    /// Whether it still holds its devices.
    pub live: bool,
    /// Who rents.
    pub renter: Hotkey,
    /// The devices as displayed.
    pub devices: Vec<String>,
    /// When it ends.
    pub expires_at_ms: u64,
    /// When it changed last.
    pub updated_ms: u64,
}

impl From<LeaseRecord> for LeaseView {
    fn from(r: LeaseRecord) -> Self {
        LeaseView {
            id: r.id,
            state: r.state,
            live: r.live,
            renter: r.renter,
            devices: r.devices.iter().map(ToString::to_string).collect(),
            expires_at_ms: r.expires_at_ms,
            updated_ms: r.updated_ms,
        }
    }
}

/// A miner's place in a weight vector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightView {
    /// The epoch whose scores the vector expresses.
    pub epoch: Epoch,
    /// What became of the vector.
    pub status: WeightsStatus,
    /// The block at which it was made.
    pub block: BlockNumber,
    /// The block of inclusion.
    pub included_block: Option<BlockNumber>,
    /// The miner's weight; 0 when it has no entry.
    pub weight: u16,
    /// The weight over the vector's sum, 0…1.
    pub share: f64,
    /// Entries of the vector.
    pub entries: usize,
    /// What was seen last: the extrinsic's hash, or the chain's error.
    pub detail: String,
}

impl WeightView {
    fn of(row: &WeightsRow, hotkey: &Hotkey) -> Self {
        let entries = &row.weights.entries;
        let weight = entries.iter().find(|e| e.hotkey == *hotkey).map_or(0, |e| e.weight);
        let sum: u64 = entries.iter().map(|e| u64::from(e.weight)).sum();
        WeightView {
            epoch: row.weights.epoch,
            status: row.status,
            block: row.weights.block,
            included_block: row.included_block,
            weight,
            share: if sum == 0 { 0.0 } else { f64::from(weight) / sum as f64 },
            entries: entries.len(),
            detail: row.detail.clone(),
        }
    }
}

/// Reads what is known about a miner, all of it as of one commit.
pub fn gather(conn: &Connection, hotkey: &Hotkey, now_ms: u64) -> rusqlite::Result<Explanation> {
    let conn = &*conn.unchecked_transaction()?;
    let neuron = queries::neuron_by_hotkey(conn, hotkey)?;
    let score = queries::latest_score(conn, hotkey)?;
    let included = queries::last_included_weights(conn)?;
    let last = queries::last_weights(conn)?;
    let attempt = last.filter(|l| included.as_ref().is_none_or(|i| l.weights.id != i.weights.id));
    Ok(Explanation {
        hotkey: *hotkey,
        at_ms: now_ms,
        uid: neuron.as_ref().map(|n| n.neuron.uid).or(score.as_ref().map(|s| s.uid)),
        coldkey: neuron.as_ref().map(|n| n.neuron.coldkey),
        last_seen_block: neuron.as_ref().map(|n| n.last_seen_block),
        admission: neuron.and_then(|n| n.neuron.admission),
        score: score.map(|s| ScoreView { epoch: s.epoch, score: s.score, parts: s.parts }),
        verdicts: queries::verdicts(conn, hotkey, HISTORY)?.into_iter().map(VerdictView::from).collect(),
        leases: queries::leases_of(conn, hotkey, LEASES)?.into_iter().map(LeaseView::from).collect(),
        penalties: queries::penalties_of(conn, hotkey, now_ms)?,
        weights: included.map(|row| WeightView::of(&row, hotkey)),
        attempt: attempt.map(|row| WeightView::of(&row, hotkey)),
    })
}

/// [`gather`] on a data directory or database file that is opened read-only.
pub fn explain_from_db(dir_or_file: &Path, hotkey: &Hotkey, now_ms: u64) -> Result<Explanation, ReadError> {
    let conn = open_read_only(dir_or_file)?;
    gather(&conn, hotkey, now_ms).map_err(ReadError::at(&database_path(dir_or_file)))
}

#[cfg(test)]
mod tests;
