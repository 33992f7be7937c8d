//! Everything that follows from the log, derived again: verdicts that count, scores, weights. Pure but for reading.
//!
//! The same functions that the validator ran ([`Judge::judge`], [`scoring::score_all`], [`scoring::weigh`]) run on what the
//! log says was found; what they give is compared with what the log says they gave. No clock, no database, no chain.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Kind;
use super::read::{Located, LogReader};
use super::record::{
    EpochBody, MinerBody, OutageBody, ReceiptsBody, RulesBody, ScoresBody, State, StateBody, WeightsBody,
    WeightsStatusBody, counted_digest, digest, digest_of_value,
};
use crate::ids::{BlockNumber, DeviceId, Epoch, Hash32, Hotkey, Uid};
use crate::scoring::{self, Judge, Judged, MinerFinding, MinerJudgement, ScoreRow, ScoreTable};
use crate::store::records::WeightsStatus;
use crate::wallet::verify;

/// Epochs whose judgements and scores are kept while reading: weights follow their epoch closely.
const REMEMBER: usize = 64;

/// Something that does not follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The epoch.
    pub epoch: Option<Epoch>,
    /// The neuron, where it is one alone.
    pub uid: Option<Uid>,
    /// What was recorded and what follows.
    pub what: String,
}

/// One epoch of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EpochReplay {
    /// The epoch.
    pub epoch: Epoch,
    /// The block its round began at.
    pub block: u64,
    /// Why nobody was judged, if so.
    pub void: Option<String>,
    /// Verdicts that count.
    pub verdicts: usize,
    /// Penalties that became due.
    pub penalties: usize,
    /// Whether its scores were derived again, and are the same.
    pub scores: Option<bool>,
    /// Weight vectors of it that were derived again, and are the same.
    pub weights: u64,
}

/// A weight vector and whether it follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VectorReplay {
    /// The intent.
    pub id: u64,
    /// The epoch whose scores it expresses.
    pub epoch: Epoch,
    /// The vector as recorded.
    pub entries: Vec<(Uid, u16)>,
    /// Whether it follows from the log; `None` where its epoch is not kept.
    pub follows: Option<bool>,
    /// Whether the validator's seal follows it.
    pub sealed: bool,
    /// What the log says became of it; `None` where it says nothing.
    pub status: Option<WeightsStatus>,
    /// The block that it says they were included in.
    pub included: Option<BlockNumber>,
}

impl VectorReplay {
    fn became(&self) -> String {
        match (self.status, self.included) {
            (Some(WeightsStatus::Included), Some(block)) => format!("included at block {block}"),
            (Some(WeightsStatus::Included), None) => "included".to_owned(),
            (Some(WeightsStatus::Revealed), Some(block)) => format!("revealed by block {block}"),
            (Some(WeightsStatus::Revealed), None) => "revealed".to_owned(),
            (Some(WeightsStatus::Committed), _) => "committed, whether revealed is not known".to_owned(),
            (Some(WeightsStatus::Missed), _) => "committed and not revealed in time".to_owned(),
            (Some(WeightsStatus::Unequal), _) => "the chain shows others in their place".to_owned(),
            (Some(WeightsStatus::Failed), _) => "refused or not included".to_owned(),
            (Some(WeightsStatus::Shadow), _) => "never meant to be sent".to_owned(),
            (Some(WeightsStatus::Pending | WeightsStatus::Sent) | None, _) => {
                "whether included is not known".to_owned()
            }
        }
    }
}

/// What a replay came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// The validator that the log names. Whether it is the right one only the reader can tell.
    pub hotkey: Option<Hotkey>,
    /// Every epoch that was derived again, in order.
    pub epochs: Vec<EpochReplay>,
    /// Every weight vector, in order.
    pub vectors: Vec<VectorReplay>,
    /// Everything that does not follow.
    pub differences: Vec<Difference>,
    /// What a reader should know beside.
    pub notes: Vec<String>,
}

impl Replay {
    /// Whether there is something to derive, and all of it follows.
    pub fn holds(&self) -> bool {
        self.differences.is_empty() && self.vectors.last().is_some_and(|v| v.follows == Some(true) && v.sealed)
    }

    /// The sentence that a replay ends with.
    pub fn verdict(&self) -> String {
        let Some(last) = self.vectors.last() else {
            return match self.differences.len() {
                0 => "the log holds no weight vector yet".to_owned(),
                n => format!("the log holds no weight vector, and {n} of its statements do not follow"),
            };
        };
        let vector = {
            let (epoch, entries, became) = (last.epoch, last.entries.len(), last.became());
            format!("the last weight vector (epoch {epoch}, {entries} entries, {became})")
        };
        match (last.follows, self.differences.len()) {
            (Some(true), 0) if !last.sealed => format!("{vector} follows from the log, but bears no seal"),
            (Some(true), 0) => format!("{vector} follows from the log, bit for bit"),
            (Some(true), n) => format!("{vector} follows from the log, but {n} other statements of it do not"),
            (Some(false), _) => format!("{vector} does not follow from the log"),
            (None, 0) => format!("{vector} cannot be derived: its epoch lies before what the log keeps"),
            (None, n) => format!("{vector} cannot be derived, and {n} statements of the log do not follow"),
        }
    }

    /// The replay as text: its last `epochs` epochs, the last vector, and the sentence.
    pub fn to_text(&self, epochs: usize) -> String {
        let mut out = String::new();
        if let Some(hotkey) = self.hotkey {
            let _ = writeln!(out, "validator {hotkey}");
        }
        let shown = self.epochs.iter().skip(self.epochs.len().saturating_sub(epochs));
        let _ = writeln!(
            out,
            "{:>10} {:>12} {:>9} {:>9}  {:<8} weights",
            "epoch", "block", "verdicts", "penalties", "scores"
        );
        for e in shown {
            let scores = match e.scores {
                Some(true) => "same",
                Some(false) => "DIFFER",
                None => "none",
            };
            let void = e.void.as_ref().map_or(String::new(), |why| format!("  void: {why}"));
            let (epoch, block, verdicts, penalties) = (e.epoch, e.block, e.verdicts, e.penalties);
            let _ =
                writeln!(out, "{epoch:>10} {block:>12} {verdicts:>9} {penalties:>9}  {scores:<8} {}{void}", e.weights);
        }
        let same = self.vectors.iter().filter(|v| v.follows == Some(true)).count();
        let _ = writeln!(
            out,
            "{} epochs, {} weight vectors, {same} of them derived bit for bit",
            self.epochs.len(),
            self.vectors.len()
        );
        if let Some(last) = self.vectors.last() {
            let entries: Vec<String> = last.entries.iter().map(|(uid, weight)| format!("{uid}:{weight}")).collect();
            let _ = writeln!(out, "last vector: {}", entries.join(" "));
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        for Difference { epoch, uid, what } in &self.differences {
            let epoch = epoch.map_or(String::new(), |e| format!("epoch {e}: "));
            let uid = uid.map_or(String::new(), |u| format!("uid {u}: "));
            let _ = writeln!(out, "difference: {epoch}{uid}{what}");
        }
        let _ = writeln!(out, "{}", self.verdict());
        out
    }
}

/// Derives everything in the log of a directory again. `hotkey` is the validator whose log it must be; without it, any one
/// validator's will do.
///
/// # Errors
/// If the directory cannot be listed.
pub fn replay(dir: &Path, hotkey: Option<Hotkey>) -> std::io::Result<Replay> {
    let mut replayer = Replayer::default();
    for record in LogReader::new(dir)?.of(hotkey) {
        match record {
            Ok(record) => {
                if let Err(what) = replayer.take(&record) {
                    replayer.differ(record.epoch(), None, what);
                }
            }
            Err(problem) if problem.is_declared() => {
                replayer.out.notes.push(format!("{problem}; what follows begins anew with that segment's state"));
                replayer.judge = None;
                replayer.findings.clear();
            }
            Err(problem) => {
                replayer.differ(
                    problem.epoch,
                    None,
                    format!("the log is damaged: {problem}; nothing behind it is derived"),
                );
                break;
            }
        }
    }
    Ok(replayer.out)
}

#[derive(Default)]
struct Replayer {
    judge: Option<Judge>,
    tables: BTreeMap<Hash32, ScoreTable>,
    findings: Vec<MinerFinding>,
    judged: BTreeMap<Epoch, Vec<MinerJudgement>>,
    /// The devices of the receipts that count, of the epochs that are kept.
    receipts: BTreeMap<Epoch, BTreeMap<Hotkey, Vec<DeviceId>>>,
    rows: BTreeMap<Epoch, Vec<ScoreRow>>,
    out: Replay,
}

fn read<T: DeserializeOwned>(body: &Value) -> Result<T, String> {
    T::deserialize(body).map_err(|error| format!("the record cannot be read: {error}"))
}

fn digested(thing: &impl Serialize) -> Result<Hash32, String> {
    digest(thing).map_err(|error| error.to_string())
}

impl Replayer {
    fn differ(&mut self, epoch: Option<Epoch>, uid: Option<Uid>, what: String) {
        self.out.differences.push(Difference { epoch, uid, what });
    }

    fn take(&mut self, record: &Located) -> Result<(), String> {
        let is = |kind: Kind| record.kind == kind.label();
        let body = &record.body;
        match () {
            () if is(Kind::Segment) => self.segment(record),
            () if is(Kind::Rules) => self.rules(read(body)?),
            () if is(Kind::State) => {
                let StateBody { why, judge } = read(body)?;
                self.out.notes.push(format!("record {}: the judge's memory is taken from the log: {why}", record.seq));
                self.judge = Some(judge);
                Ok(())
            }
            () if is(Kind::Outage) => {
                let OutageBody { from, to, lost_ms } = read(body)?;
                if let Some(judge) = &mut self.judge {
                    judge.outage(from, to, lost_ms);
                }
                Ok(())
            }
            () if is(Kind::Miner) => {
                let MinerBody { finding, .. } = read(body)?;
                self.findings.push(finding);
                Ok(())
            }
            () if is(Kind::Receipts) => self.receipts(read(body)?),
            () if is(Kind::Epoch) => self.epoch(read(body)?),
            () if is(Kind::Scores) => self.scores(read(body)?),
            () if is(Kind::Weights) => self.weights(read(body)?),
            () if is(Kind::Seal) => {
                // The reader has checked the signature; a seal follows nothing but weights.
                if let Some(vector) = self.out.vectors.last_mut() {
                    vector.sealed = true;
                }
                Ok(())
            }
            () if is(Kind::WeightsStatus) => {
                let WeightsStatusBody { id, status, block } = read(body)?;
                if let Some(vector) = self.out.vectors.iter_mut().rev().find(|v| v.id == id) {
                    (vector.status, vector.included) = (Some(status), block);
                }
                Ok(())
            }
            // What a proof of memory costs is among the findings of later epochs.
            () if is(Kind::Penalty) || is(Kind::Memory) => Ok(()),
            () => {
                self.out
                    .notes
                    .push(format!("record {}: a {} record says nothing to this program", record.seq, record.kind));
                Ok(())
            }
        }
    }

    fn segment(&mut self, record: &Located) -> Result<(), String> {
        self.out.hotkey = record.hotkey();
        let state = record.body.get("state").filter(|s| !s.is_null());
        let Some(state) = state else { return Ok(()) };
        let State { judge, table } = read(state)?;
        self.tables.insert(digested(&table)?, table);
        match &self.judge {
            None => self.judge = Some(judge),
            Some(own) => {
                let stated = state.get("judge").map(digest_of_value).transpose().map_err(|e| e.to_string())?;
                let own = digested(own)?;
                if stated != Some(own) {
                    let what =
                        format!("segment {} begins with another state than the one that follows", record.segment);
                    self.differ(None, None, what);
                    self.judge = Some(judge);
                }
            }
        }
        Ok(())
    }

    fn rules(&mut self, rules: RulesBody) -> Result<(), String> {
        let derived = digested(&rules.table)?;
        if derived != rules.digest {
            return Err(format!("the rules are named {}, their digest is {derived}", rules.digest));
        }
        self.tables.insert(rules.digest, rules.table);
        if let (Some(judge), Some(history)) = (&mut self.judge, rules.history) {
            judge.set_rules(history);
        }
        Ok(())
    }

    /// Which receipts count follows from them, what the log says of the parties, and the judge before the epoch.
    fn receipts(&mut self, ReceiptsBody { presented, standings }: ReceiptsBody) -> Result<(), String> {
        let epoch = presented.epoch;
        let Some(judge) = &self.judge else { return Ok(()) };
        let derived = presented.standings(judge, verify);
        for (place, (receipt, follows)) in presented.receipts.iter().zip(&derived).enumerate() {
            let recorded = standings.get(place).map_or("nothing", |standing| standing.label());
            if recorded != follows.label() {
                let (lease, follows) = (receipt.lease, follows.label());
                let what = format!("the receipt of lease {lease}: {recorded} is recorded, {follows} follows");
                self.differ(Some(epoch), None, what);
            }
        }
        self.receipts.insert(epoch, presented.devices(&derived));
        while self.receipts.len() > REMEMBER {
            self.receipts.pop_first();
        }
        Ok(())
    }

    fn epoch(&mut self, body: EpochBody) -> Result<(), String> {
        let findings = std::mem::take(&mut self.findings);
        let EpochBody { epoch, block, judged_ms, void, miners, rules, before, after, counted, penalties } = body;
        let Some(mut judge) = self.judge.take() else {
            self.out.notes.push(format!("epoch {epoch} cannot be derived: the log keeps no state before it"));
            return Ok(());
        };
        if findings.len() as u64 != miners {
            self.differ(Some(epoch), None, format!("{} miners are recorded, {miners} are named", findings.len()));
        }
        let derived = digested(&judge)?;
        if derived != before {
            let what = format!("it was judged from the state {before}, the log leads to {derived}");
            self.differ(Some(epoch), None, what);
        }
        let Some(table) = self.tables.get(&rules) else {
            self.judge = Some(judge);
            return Err(format!("it was judged by the rules {rules}, which the log does not hold"));
        };
        let now = judge.judge(epoch, judged_ms, table, &findings);
        let Judged { miners, counted: verdicts, penalties: due, void: derived_void } = now;
        let mut compare = |same: bool, what: &str, recorded: String, follows: String| {
            if !same {
                let what = format!("{what}: {recorded} is recorded, {follows} follows");
                self.out.differences.push(Difference { epoch: Some(epoch), uid: None, what });
            }
        };
        let derived = counted_digest(&verdicts).map_err(|e| e.to_string())?;
        compare(derived == counted, "the verdicts", counted.to_string(), derived.to_string());
        compare(derived_void == void, "whether it is void", format!("{void:?}"), format!("{derived_void:?}"));
        compare(due == penalties, "the penalties", format!("{penalties:?}"), format!("{due:?}"));
        let derived = digested(&judge)?;
        compare(derived == after, "the state afterwards", after.to_string(), derived.to_string());
        self.out.epochs.push(EpochReplay {
            epoch,
            block,
            void,
            verdicts: verdicts.len(),
            penalties: due.len(),
            scores: None,
            weights: 0,
        });
        self.judge = Some(judge);
        self.judged.insert(epoch, miners);
        while self.judged.len() > REMEMBER {
            self.judged.pop_first();
        }
        Ok(())
    }

    /// The line of an epoch, if it was derived.
    fn line(&mut self, epoch: Epoch) -> Option<&mut EpochReplay> {
        self.out.epochs.iter_mut().rev().take(REMEMBER).find(|e| e.epoch == epoch)
    }

    fn scores(&mut self, body: ScoresBody) -> Result<(), String> {
        let ScoresBody { epoch, rules, allocated, rows } = body;
        let Some(miners) = self.judged.get(&epoch) else {
            self.out.notes.push(format!("the scores of epoch {epoch} cannot be derived: it lies before what is kept"));
            return Ok(());
        };
        let Some(table) = self.tables.get(&rules) else {
            return Err(format!("it was scored by the rules {rules}, which the log does not hold"));
        };
        for (miner, devices) in self.receipts.get(&epoch).into_iter().flatten() {
            let scored = allocated.get(miner).is_some_and(|a| devices.iter().all(|device| a.contains(device)));
            if !scored {
                let what = format!("{miner} has receipts that count, and is scored as if it had none");
                self.out.differences.push(Difference { epoch: Some(epoch), uid: None, what });
            }
        }
        let derived = scoring::score_all(table, miners, &allocated);
        let follows = ScoresBody::rows_of(&derived);
        let mut differences = Vec::new();
        for (place, of) in follows.iter().enumerate() {
            let recorded = rows.get(place);
            if recorded != Some(of) {
                let recorded =
                    recorded.map_or("nothing".to_owned(), |(uid, _, points)| format!("{points} for uid {uid}"));
                differences.push((of.0, format!("the score: {recorded} is recorded, {} follows", of.2)));
            }
        }
        for (uid, _, points) in rows.iter().skip(follows.len()) {
            differences.push((*uid, format!("the score: {points} is recorded, nothing follows")));
        }
        let same = differences.is_empty();
        for (uid, what) in differences {
            self.differ(Some(epoch), Some(uid), what);
        }
        if let Some(line) = self.line(epoch) {
            line.scores = Some(same && line.scores != Some(false));
        }
        self.rows.insert(epoch, derived);
        while self.rows.len() > REMEMBER {
            self.rows.pop_first();
        }
        Ok(())
    }

    fn weights(&mut self, body: WeightsBody) -> Result<(), String> {
        let WeightsBody { id, epoch, neurons, limits, burn, entries, .. } = body;
        let Some(rows) = self.rows.get(&epoch) else {
            self.out
                .notes
                .push(format!("weights {id} of epoch {epoch} cannot be derived: it lies before what is kept"));
            self.out.vectors.push(VectorReplay {
                id,
                epoch,
                entries,
                follows: None,
                sealed: false,
                status: None,
                included: None,
            });
            return Ok(());
        };
        let derived = scoring::weigh_with(rows, &neurons, &limits, burn.as_ref()).map_err(|error| error.to_string());
        let follows = derived.as_ref() == Ok(&entries);
        match derived {
            Ok(_) if follows => {
                if let Some(line) = self.line(epoch) {
                    line.weights += 1;
                }
            }
            Ok(derived) => {
                let of = |vector: &[(Uid, u16)]| vector.iter().copied().collect::<BTreeMap<Uid, u16>>();
                let (recorded, derived) = (of(&entries), of(&derived));
                let mut uids: Vec<Uid> = recorded.keys().chain(derived.keys()).copied().collect();
                uids.sort_unstable();
                uids.dedup();
                uids.retain(|uid| recorded.get(uid) != derived.get(uid));
                let show = |weight: Option<&u16>| weight.map_or("none".to_owned(), u16::to_string);
                for uid in &uids {
                    let (is, should) = (show(recorded.get(uid)), show(derived.get(uid)));
                    self.differ(Some(epoch), Some(*uid), format!("the weight: {is} is recorded, {should} follows"));
                }
                if uids.is_empty() {
                    self.differ(Some(epoch), None, format!("weights {id} are recorded in another order than follows"));
                }
            }
            Err(error) => {
                self.differ(Some(epoch), None, format!("weights {id} are recorded, but none follow: {error}"))
            }
        }
        self.out.vectors.push(VectorReplay {
            id,
            epoch,
            entries,
            follows: Some(follows),
            sealed: false,
            status: None,
            included: None,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
