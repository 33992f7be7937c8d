//! An epoch as the evidence log has it: what was found, what it came to, and the judge's memory before and after.
//!
//! All of an epoch is recorded together when it is judged, after every miner's window is over: nonces and seeds are no
//! secret any more then.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::evidence::canon::{CanonError, value_of};
use crate::evidence::record::{
    EpochBody, MinerBody, OutageBody, ReceiptsBody, RulesBody, StateBody, Trace, counted_digest, digest,
    digest_of_value, entry,
};
use crate::evidence::{Entry, EvidenceRecord, Kind};
use crate::ids::{BlockNumber, Epoch, Hash32, Hotkey};
use crate::scoring::{HistoryRules, Judge, Judged, MinerFinding, ScoreTable};
use crate::store::Record;
use crate::store::records::JudgeRecord;

/// Remembers what the log knows already.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The judge as the log has it, before what is pending.
    logged: Option<Arc<Value>>,
    /// What goes in front of the next epoch.
    pending: Vec<Entry>,
    /// The rules that were logged last by this recorder.
    rules: Option<(Hash32, HistoryRules)>,
}

/// An epoch that is about to be judged.
pub struct Begun {
    state: Option<Arc<Value>>,
    before: Hash32,
    rules: Hash32,
    entries: Vec<Entry>,
}

/// What an epoch was and came to.
pub struct Closed<'a> {
    /// The epoch.
    pub epoch: Epoch,
    /// The block its round began at.
    pub block: BlockNumber,
    /// When it was judged.
    pub at_ms: u64,
    /// The receipts that miners presented, and what became of them.
    pub receipts: Option<ReceiptsBody>,
    /// What was found.
    pub findings: &'a [MinerFinding],
    /// How, by miner.
    pub traces: HashMap<Hotkey, Trace>,
    /// What it came to.
    pub judged: &'a Judged,
    /// The judge afterwards.
    pub judge: &'a Judge,
}

impl Recorder {
    /// The judge as it was found at the start. `rebuilt`: why it does not follow from the log, if it does not.
    ///
    /// # Errors
    /// [`CanonError`] if the judge has no canonical form.
    pub fn remembered(&mut self, judge: &Judge, rebuilt: Option<&str>, at_ms: u64) -> Result<(), CanonError> {
        *self = Recorder { logged: Some(Arc::new(value_of(judge)?)), ..Recorder::default() };
        if let Some(why) = rebuilt {
            let body = StateBody { why: why.to_owned(), judge: judge.clone() };
            self.pending.push(entry(Kind::State, at_ms, &body)?);
        }
        Ok(())
    }

    /// This validator was out; the judge was told so.
    ///
    /// # Errors
    /// Never: the body is three numbers.
    pub fn outage(&mut self, outage: OutageBody, at_ms: u64) -> Result<(), CanonError> {
        self.pending.push(entry(Kind::Outage, at_ms, &outage)?);
        Ok(())
    }

    /// Looks at judge and table before an epoch is judged.
    ///
    /// # Errors
    /// [`CanonError`] if one of them has no canonical form.
    pub fn begin(&self, judge: &Judge, table: &ScoreTable, at_ms: u64) -> Result<Begun, CanonError> {
        let rules = (digest(table)?, judge.rules().clone());
        let mut entries = self.pending.clone();
        if self.rules.as_ref() != Some(&rules) {
            let (digest, history) = rules.clone();
            let body = RulesBody { digest, table: table.clone(), history: Some(history) };
            entries.push(entry(Kind::Rules, at_ms, &body)?);
        }
        let state = match &self.logged {
            Some(judge) => Some(Arc::new(json!({ "judge": &**judge, "table": value_of(table)? }))),
            None => None,
        };
        Ok(Begun { state, before: digest_of_value(&value_of(judge)?)?, rules: rules.0, entries })
    }

    /// The records of a judged epoch: for the log, and the judge's memory for the next start.
    ///
    /// # Errors
    /// [`CanonError`] if something has no canonical form.
    pub fn close(&mut self, begun: Begun, closed: Closed<'_>) -> Result<[Record; 2], CanonError> {
        let Begun { state, before, rules, mut entries } = begun;
        let Closed { epoch, block, at_ms, receipts, findings, mut traces, judged, judge } = closed;
        // Before the findings: what is rented is left alone in them.
        if let Some(receipts) = receipts {
            entries.push(entry(Kind::Receipts, at_ms, &receipts)?);
        }
        for finding in findings {
            let challenge = traces.remove(&finding.hotkey);
            let body = MinerBody { epoch, finding: finding.clone(), challenge };
            entries.push(entry(Kind::Miner, at_ms, &body)?);
        }
        let after = Arc::new(value_of(judge)?);
        let body = EpochBody {
            epoch,
            block,
            judged_ms: at_ms,
            void: judged.void.clone(),
            miners: findings.len() as u64,
            rules,
            before,
            after: digest_of_value(&after)?,
            counted: counted_digest(&judged.counted)?,
            penalties: judged.penalties.clone(),
        };
        entries.push(entry(Kind::Epoch, at_ms, &body)?);
        self.logged = Some(after.clone());
        self.pending.clear();
        self.rules = Some((rules, judge.rules().clone()));
        let evidence = EvidenceRecord { entries, state, closes: Some(epoch) };
        Ok([Record::Evidence(evidence), Record::Judge(JudgeRecord { epoch, json: after })])
    }
}
