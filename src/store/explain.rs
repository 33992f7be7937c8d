//! Why a miner has its score: from rows to a text that its operator understands, and to the same as JSON.
//!
//! [`gather`] reads, [`Explanation::to_text`] formats; nothing is recomputed, what is shown is what was stored when the score
//! was made. Everything in it is safe to publish.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::queries;
use super::read_only::{ReadError, database_path, open_read_only};
use super::records::*;
use crate::ids::{BlockNumber, Coldkey, Epoch, Hotkey, LeaseId, Uid};
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
    pub score: f64,
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

impl Explanation {
    /// Whether this node has anything at all to say about the hotkey.
    pub fn is_empty(&self) -> bool {
        self.uid.is_none() && self.score.is_none() && self.verdicts.is_empty() && self.leases.is_empty()
    }

    /// The text for a terminal, without colours, ending in a line feed.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        self.write_head(out)?;
        if self.is_empty() {
            return writeln!(out, "\nNothing is known about this hotkey: this node has never seen it registered.");
        }
        self.write_admission(out)?;
        self.write_score(out)?;
        self.write_verdicts(out)?;
        self.write_leases(out)?;
        self.write_weights(out)
    }

    fn write_head(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "hotkey   {}", self.hotkey)?;
        if let Some(uid) = self.uid {
            let seen = self.last_seen_block.map(|b| format!(", seen at block {b}")).unwrap_or_default();
            writeln!(out, "uid      {uid}{seen}")?;
        }
        if let Some(coldkey) = self.coldkey {
            writeln!(out, "coldkey  {coldkey}")?;
        }
        Ok(())
    }

    fn write_admission(&self, out: &mut String) -> fmt::Result {
        match &self.admission {
            None => {}
            Some(a) if a.admitted => writeln!(out, "admitted {} ({})", plain(&a.text), plain(&a.reason))?,
            Some(a) => {
                writeln!(out, "\nNot admitted: {} ({})", plain(&a.text), plain(&a.reason))?;
                remedy(out, "  ", &a.remedy)?;
            }
        }
        for p in &self.penalties {
            let detail = if p.detail.is_empty() { String::new() } else { format!(": {}", plain(&p.detail)) };
            let left = Duration::from_secs(p.until_ms.saturating_sub(self.at_ms) / 1000);
            writeln!(
                out,
                "\nPenalised for {}{detail}\n  until {} ({} left)",
                plain(&p.reason),
                time(p.until_ms),
                humantime::format_duration(left)
            )?;
        }
        Ok(())
    }

    fn write_score(&self, out: &mut String) -> fmt::Result {
        let Some(view) = &self.score else {
            return writeln!(out, "\nNo score yet.");
        };
        let parts = &view.parts;
        writeln!(out, "\nScore {:.4} in epoch {}", view.score, view.epoch)?;
        if parts.devices.is_empty() {
            writeln!(out, "  no device was judged")?;
        }
        let mut sum = 0.0;
        for d in &parts.devices {
            let model = if d.model.is_empty() { "unknown model".into() } else { plain(&d.model) };
            write!(out, "  {}  {model}: ", d.device)?;
            if d.verdict != "pass" {
                write!(out, "{} {}, ", plain(&d.verdict), plain(&d.reason))?;
                if d.credit == 0.0 {
                    writeln!(out, "0")?;
                    continue;
                }
            }
            match (d.rate, d.nominal) {
                (Some(rate), Some(nominal)) => {
                    write!(out, "base {:.4} × min(1, {} / {})", d.base, ops(rate), ops(nominal))?;
                }
                _ => write!(out, "base {:.4} × {:.4}", d.base, d.factor)?,
            }
            write!(out, " = {:.4}", d.credit)?;
            if d.counted {
                sum += d.credit;
                writeln!(out)?;
            } else {
                writeln!(out, ", not counted: only the best eight are")?;
            }
        }
        writeln!(
            out,
            "  sum {sum:.4} × scaling {:.4} = {:.4}\n  allocated bonus {:.4}\n  total {:.4}",
            parts.scaling,
            sum * parts.scaling,
            parts.allocated_bonus,
            parts.total
        )?;
        parts.notes.iter().try_for_each(|note| writeln!(out, "  note: {}", plain(note)))
    }

    fn write_verdicts(&self, out: &mut String) -> fmt::Result {
        let Some(newest) = self.verdicts.first().map(|v| v.epoch) else {
            return writeln!(out, "\nNo verdicts yet.");
        };
        writeln!(out, "\nVerdicts of epoch {newest}")?;
        for v in self.verdicts.iter().filter(|v| v.epoch == newest) {
            let device = v.device.as_deref().unwrap_or("whole miner");
            match &v.evidence {
                Some(e) => writeln!(
                    out,
                    "  {device}: pass, {} operations in {:.3} s ({}), {} samples checked",
                    e.operations,
                    e.elapsed_ns as f64 / 1e9,
                    ops(e.rate()),
                    e.samples
                )?,
                None => {
                    writeln!(out, "  {device}: {} {}: {}", v.verdict, v.reason, v.text)?;
                    if !v.detail.is_empty() {
                        writeln!(out, "    seen: {}", plain(&v.detail))?;
                    }
                    if let Some(side) = v.side {
                        writeln!(
                            out,
                            "    side: {}; an unknown pays nothing for its epoch and is no penalty",
                            side_text(side)
                        )?;
                    }
                    remedy(out, "    ", &v.remedy)?;
                }
            }
        }
        self.write_history(out, newest)
    }

    /// One line for each earlier epoch.
    fn write_history(&self, out: &mut String, newest: Epoch) -> fmt::Result {
        let mut epochs: Vec<Epoch> = self.verdicts.iter().map(|v| v.epoch).filter(|e| *e != newest).collect();
        epochs.dedup();
        for epoch in epochs.into_iter().take(8) {
            let of: Vec<String> = self
                .verdicts
                .iter()
                .filter(|v| v.epoch == epoch)
                .map(|v| {
                    let device = v.device.as_deref().unwrap_or("whole miner");
                    if v.verdict == "pass" {
                        format!("{device} pass")
                    } else {
                        format!("{device} {} {}", v.verdict, v.reason)
                    }
                })
                .collect();
            writeln!(out, "  epoch {epoch}: {}", of.join(", "))?;
        }
        Ok(())
    }

    fn write_leases(&self, out: &mut String) -> fmt::Result {
        if self.leases.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nLeases")?;
        for l in &self.leases {
            let when = if l.live {
                format!("until {}", time(l.expires_at_ms))
            } else {
                format!("since {}", time(l.updated_ms))
            };
            writeln!(out, "  {} {} {when}, {}, renter {}", l.id, plain(&l.state), l.devices.join(" "), l.renter)?;
        }
        Ok(())
    }

    fn write_weights(&self, out: &mut String) -> fmt::Result {
        match &self.weights {
            None => writeln!(out, "\nThis node has not set weights yet.")?,
            Some(w) => {
                let at = w.included_block.map_or_else(|| "an unknown block".to_owned(), |b| format!("block {b}"));
                writeln!(
                    out,
                    "\nWeight {} of 65535 ({:.2} % of {} entries) for epoch {}, on chain since {at}",
                    w.weight,
                    w.share * 100.0,
                    w.entries,
                    w.epoch
                )?;
            }
        }
        if let Some(w) = &self.attempt {
            let detail = if w.detail.is_empty() { String::new() } else { format!(": {}", plain(&w.detail)) };
            writeln!(
                out,
                "Weight {} for epoch {} was made at block {}, {}{detail}",
                w.weight,
                w.epoch,
                w.block,
                w.status.label()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

fn remedy(out: &mut String, indent: &str, text: &str) -> fmt::Result {
    if text.is_empty() { Ok(()) } else { writeln!(out, "{indent}remedy: {}", plain(text)) }
}

/// Text that peers may have had a hand in, on one line and without control characters: what is printed here must not move
/// the cursor, change colours or look like another line.
fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

fn side_text(side: Side) -> &'static str {
    match side {
        Side::Miner => "miner",
        Side::Validator => "validator",
        Side::Network => "network",
    }
}

fn time(ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000));
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A rate with a decimal prefix.
fn ops(rate: f64) -> String {
    const PREFIXES: [(f64, &str); 5] = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match PREFIXES.iter().find(|(unit, _)| rate >= *unit) {
        Some((unit, prefix)) => format!("{:.3} {prefix}op/s", rate / unit),
        None => format!("{rate:.3} op/s"),
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
