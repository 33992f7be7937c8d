//! One epoch's findings become verdicts that count: the whole memory of a validator, as a value.
//!
//! [`Judge`] holds what earlier epochs left behind; [`Judge::judge`] takes the findings of one epoch in. It has no clock
//! and no randomness: the same state and the same findings give the same verdicts and the same next state, in a running
//! validator and in a replay of its log. The order of the findings changes the order of the result and nothing else.
//!
//! What is decided here, beyond the rules of one device ([`super::history`]):
//! - **Void epochs.** An epoch in which every verdict is our own fault judges nobody, and no weights are made of it. So
//!   does one in which more than 4 of 5 miners that passed the last time, at least 3 of them, are all at once unreachable
//!   or silent, also after their roots: that many do not fail together, our own network does. At most [`MAX_SUSPECTED`] of any
//!   [`SUSPECTED_WINDOW`] epochs, or a subnet that is really gone would be taken for our outage for ever, and miners that
//!   fall silent together could choose when they are judged.
//! - **Duplicates.** A GPU that two hotkeys prove, or that one proves and we rent from another, credits neither.
//! - **Penalties.** At most one of a miner is in force; afterwards it begins without the Fails before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::history::{DeviceHistory, HistoryRules, Sight};
use super::score::{MinerJudgement, duplicate_claims};
use super::table::ScoreTable;
use crate::admission::Refusal;
use crate::ids::{Coldkey, DeviceId, Epoch, Hotkey, ParseIdError, Uid};
use crate::verdict::{FailReason, UnknownCause, Verdict};

/// Judged epochs after which a device that is not seen is forgotten.
pub const FORGET_EPOCHS: u32 = 64;
/// Devices of one hotkey that are remembered; more are those it made up.
const MAX_HISTORIES: usize = 64;
/// Epochs that may be void because miners are unreachable all at once …
pub const MAX_SUSPECTED: usize = 3;
/// … in any so many epochs one after the other.
pub const SUSPECTED_WINDOW: u64 = 64;
/// Fewest miners that passed before from which an outage of our own is suspected.
const MIN_SUSPECTED: usize = 3;

/// What was found out about one device in an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceFinding {
    /// The device.
    pub device: DeviceId,
    /// The model the miner names.
    pub model: String,
    /// A lease of ours (or a receipt that counts) covers it.
    pub leased: bool,
    /// What the round found; `None` for a device that was left alone. One whose lease began in the round may have both.
    pub verdict: Option<Verdict>,
}

/// What was found out about one neuron in an epoch, before the past is taken into account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MinerFinding {
    /// Its uid.
    pub uid: Uid,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its owner.
    pub coldkey: Coldkey,
    /// Why it was not asked at all, if so.
    pub refused: Option<Refusal>,
    /// The verdict on the miner as a whole, where its devices are not known.
    pub whole: Option<Verdict>,
    /// Its devices, in the order it offers them.
    pub devices: Vec<DeviceFinding>,
}

impl MinerFinding {
    fn verdicts(&self) -> impl Iterator<Item = &Verdict> {
        self.whole.iter().chain(self.devices.iter().filter_map(|d| d.verdict.as_ref()))
    }
    fn verdicts_mut(&mut self) -> impl Iterator<Item = &mut Verdict> {
        self.whole.iter_mut().chain(self.devices.iter_mut().filter_map(|d| d.verdict.as_mut()))
    }
}

/// A verdict as it counts: one for each that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// The miner's uid.
    pub uid: Uid,
    /// The miner.
    pub hotkey: Hotkey,
    /// The device; `None` for the miner as a whole.
    pub device: Option<DeviceId>,
    /// Its model as claimed; empty for the miner as a whole.
    pub model: String,
    /// The verdict.
    pub verdict: Verdict,
}

/// A penalty that a miner has brought upon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuePenalty {
    /// The miner.
    pub hotkey: Hotkey,
    /// The label of the reason: [`REPEATED_FAILS`] or [`RELEASE_PROOF_FAILED`].
    pub reason: String,
    /// What was seen, safe to publish.
    pub detail: String,
    /// From when, in milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// Until when.
    pub until_ms: u64,
}

/// K of the last N judgements of a device were Fails, or a device failed in K of the last N epochs of its miner.
pub const REPEATED_FAILS: &str = "repeated_fails";
/// A device failed in its first judgement after a lease.
pub const RELEASE_PROOF_FAILED: &str = "release_proof_failed";

/// One judged epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Every neuron, in the order of the findings.
    pub miners: Vec<MinerJudgement>,
    /// Every verdict that counts, in the order of the findings, the miner as a whole first.
    pub counted: Vec<Counted>,
    /// Penalties that are due now.
    pub penalties: Vec<DuePenalty>,
    /// Why nobody was judged, if so: no weights are to be made of this epoch.
    pub void: Option<String>,
}

/// What a history is kept of: a device, or (`None`) a miner as a whole. In text `hotkey/device` or `hotkey/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The miner.
    pub hotkey: Hotkey,
    /// The device.
    pub device: Option<DeviceId>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", self.hotkey)?;
        self.device.map_or(Ok(()), |device| write!(f, "{device}"))
    }
}

impl FromStr for Subject {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let (hotkey, device) = text.split_once('/').unwrap_or((text, ""));
        let device = if device.is_empty() { None } else { Some(device.parse()?) };
        Ok(Subject { hotkey: hotkey.parse()?, device })
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        <std::borrow::Cow<'de, str>>::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

/// What a validator remembers of the epochs it judged. Serialises to whole numbers, texts, arrays and objects with text
/// keys only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    rules: HistoryRules,
    last_epoch: Option<Epoch>,
    last_at_ms: Option<u64>,
    /// Who passed with a device in the last epoch that was not void.
    passed: BTreeSet<Hotkey>,
    /// The last epochs that were void because of a suspicion.
    #[serde(deserialize_with = "epochs_or_count")]
    suspected: BTreeSet<Epoch>,
    /// Until when a penalty is in force, in milliseconds since the Unix epoch.
    penalties: BTreeMap<Hotkey, u64>,
    histories: BTreeMap<Subject, DeviceHistory>,
}

/// The epochs; where an earlier program wrote how many there were in a row, none.
fn epochs_or_count<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeSet<Epoch>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Epochs(BTreeSet<Epoch>),
        Count(#[expect(dead_code, reason = "only its form tells it apart")] u32),
    }
    Ok(match Written::deserialize(d)? {
        Written::Epochs(epochs) => epochs,
        Written::Count(_) => BTreeSet::new(),
    })
}

impl Judge {
    /// A judge that remembers nothing.
    pub fn new(rules: HistoryRules) -> Self {
        Judge {
            rules,
            last_epoch: None,
            last_at_ms: None,
            passed: BTreeSet::new(),
            suspected: BTreeSet::new(),
            penalties: BTreeMap::new(),
            histories: BTreeMap::new(),
        }
    }

    /// The rules it judges by.
    pub fn rules(&self) -> &HistoryRules {
        &self.rules
    }

    /// Judges by these rules from now on.
    pub fn set_rules(&mut self, rules: HistoryRules) {
        self.rules = rules;
    }

    /// The last epoch that was judged, or in which we were out.
    pub fn last_epoch(&self) -> Option<Epoch> {
        self.last_epoch
    }

    /// What is remembered of a device, or of a miner as a whole.
    pub fn history(&self, hotkey: Hotkey, device: Option<DeviceId>) -> Option<&DeviceHistory> {
        self.histories.get(&Subject { hotkey, device })
    }

    /// How many histories are kept.
    pub fn histories(&self) -> usize {
        self.histories.len()
    }

    /// Takes one epoch's findings in. `at_ms`: when it is judged, in milliseconds since the Unix epoch. An epoch that
    /// was judged already, or an earlier one, gets the verdicts that count already and changes nothing.
    pub fn judge(&mut self, epoch: Epoch, at_ms: u64, table: &ScoreTable, findings: &[MinerFinding]) -> Judged {
        if self.last_epoch.is_some_and(|last| last >= epoch) {
            self.clone().take_in(epoch, at_ms, table, findings.to_vec(), true)
        } else {
            self.take_in(epoch, at_ms, table, findings.to_vec(), false)
        }
    }

    fn take_in(
        &mut self,
        epoch: Epoch,
        at_ms: u64,
        table: &ScoreTable,
        mut findings: Vec<MinerFinding>,
        again: bool,
    ) -> Judged {
        let void = if again { None } else { self.void(epoch, &mut findings) };
        if !again && void.is_none() {
            self.settle_duplicates(table, &mut findings);
        }
        let since_last_ms = self.last_at_ms.map_or(0, |last| at_ms.saturating_sub(last));
        if void.is_some() {
            self.stand_still(epoch, since_last_ms, &findings);
        }
        self.pardon(at_ms, &findings);
        let mut judged =
            Judged { miners: Vec::with_capacity(findings.len()), counted: Vec::new(), penalties: Vec::new(), void };
        let mut seen = BTreeSet::new();
        let now = Sight { epoch, at_ms, since_last_ms, model: "", row: None };
        for finding in findings {
            let MinerFinding { uid, hotkey, coldkey, refused, whole, devices } = finding;
            let mut failed_release = None;
            let whole = whole.map(|verdict| {
                seen.insert(Subject { hotkey, device: None });
                let history = self.histories.entry(Subject { hotkey, device: None }).or_default();
                let verdict = history.record(&now, verdict, &self.rules).verdict;
                let counted = Counted { uid, hotkey, device: None, model: String::new(), verdict: verdict.clone() };
                judged.counted.push(counted);
                verdict
            });
            if whole.is_none()
                && !devices.is_empty()
                && let Some(history) = self.histories.get_mut(&Subject { hotkey, device: None })
            {
                seen.insert(Subject { hotkey, device: None });
                history.answered();
            }
            if !again && judged.void.is_none() {
                self.succeed(hotkey, &devices);
            }
            let mut failed = None;
            let mut judgements = Vec::with_capacity(devices.len());
            for DeviceFinding { device, model, leased, verdict } in devices {
                let subject = Subject { hotkey, device: Some(device) };
                seen.insert(subject);
                let history = self.histories.entry(subject).or_default();
                match verdict {
                    Some(verdict) => {
                        let sight = Sight { model: &model, row: table.find(&model), ..now };
                        let recorded = history.record(&sight, verdict, &self.rules);
                        failed = failed.max(recorded.counts);
                        if recorded.failed_release {
                            failed_release = failed_release.or(Some(device));
                        }
                        let verdict = recorded.verdict;
                        let gave_up = matches!(verdict, Verdict::Unknown { cause: UnknownCause::Rented, .. });
                        if leased && gave_up {
                            history.rests();
                            history.freeze(epoch, 1, 0, &self.rules);
                        }
                        let counted = Counted { uid, hotkey, device: Some(device), model: model.clone(), verdict };
                        judged.counted.push(counted);
                    }
                    None if leased => {
                        history.rests();
                        if judged.void.is_none() {
                            // Its Pass does not age. In a void epoch no Pass does.
                            history.freeze(epoch, 1, 0, &self.rules);
                        }
                    }
                    None => {}
                }
                judgements.push(history.judgement(device, &model, epoch, at_ms, leased, &self.rules));
            }
            if let Some(failed) = failed {
                seen.insert(Subject { hotkey, device: None });
                self.sum_up(hotkey, epoch, failed);
            }
            if !again {
                judged.penalties.extend(self.penalty(hotkey, failed_release, at_ms));
            }
            judged.miners.push(MinerJudgement { uid, hotkey, coldkey, refused, whole, devices: judgements });
        }
        if !again {
            if judged.void.is_none() {
                let passes = judged.counted.iter().filter(|c| matches!(c.verdict, Verdict::Pass { .. }));
                self.passed = passes.map(|c| c.hotkey).collect();
            }
            self.forget(&seen);
            self.last_epoch = Some(epoch);
            self.last_at_ms = Some(at_ms);
        }
        judged
    }

    /// This validator was out from epoch `from` to epoch `to`, both included, for `lost_ms` milliseconds: the clocks of
    /// every Pass and of the rented credit stand still, nothing becomes a judgement. Epochs judged already stay so.
    pub fn outage(&mut self, from: Epoch, to: Epoch, lost_ms: u64) {
        let from = self.last_epoch.map_or(from, |last| from.max(last.saturating_add(1)));
        if from > to {
            return;
        }
        let epochs = to.saturating_sub(from).saturating_add(1);
        for history in self.histories.values_mut() {
            history.freeze(to, epochs, lost_ms, &self.rules);
        }
        self.last_epoch = Some(to);
        self.last_at_ms = self.last_at_ms.map(|at| at.saturating_add(lost_ms));
    }

    /// Takes a verdict that counted in an earlier epoch in as it is, for a start without a stored judge. Oldest first.
    pub fn recall(&mut self, epoch: Epoch, at_ms: u64, table: &ScoreTable, counted: &Counted) {
        let Counted { hotkey, device, model, verdict, .. } = counted;
        let sight = Sight { epoch, at_ms, since_last_ms: 0, model, row: table.find(model) };
        let history = self.histories.entry(Subject { hotkey: *hotkey, device: *device }).or_default();
        let counts = history.record(&sight, verdict.clone(), &self.rules).counts;
        if let Some(failed) = counts.filter(|_| device.is_some()) {
            self.sum_up(*hotkey, epoch, failed);
        }
        if self.last_epoch < Some(epoch) {
            self.last_epoch = Some(epoch);
            self.passed.clear();
        }
        self.last_at_ms = self.last_at_ms.max(Some(at_ms));
        if matches!(verdict, Verdict::Pass { .. }) {
            self.passed.insert(*hotkey);
        }
    }

    /// An epoch counts for the miner as a whole, from the first in which a device of it failed.
    fn sum_up(&mut self, hotkey: Hotkey, epoch: Epoch, failed: bool) {
        let subject = Subject { hotkey, device: None };
        if failed {
            self.histories.entry(subject).or_default().sums_up(epoch, true);
        } else if let Some(history) = self.histories.get_mut(&subject) {
            history.sums_up(epoch, false);
        }
    }

    /// Devices of a miner that appear for the first time take the place of those that come from a lease and are not
    /// offered any more, one each: another id does not spare a miner the first judgement after a lease.
    fn succeed(&mut self, hotkey: Hotkey, devices: &[DeviceFinding]) {
        let of = |device| Subject { hotkey, device: Some(device) };
        let offered: BTreeSet<DeviceId> = devices.iter().map(|d| d.device).collect();
        let first = Subject { hotkey, device: None };
        let own = self.histories.range(first..).take_while(|(s, _)| s.hotkey == hotkey);
        let is_gone = |s: &Subject| s.device.is_some_and(|device| !offered.contains(&device));
        let gone: Vec<Subject> = own.filter(|(s, h)| is_gone(s) && h.is_after_lease()).map(|(s, _)| *s).collect();
        let new: Vec<Subject> =
            devices.iter().map(|d| of(d.device)).filter(|s| !self.histories.contains_key(s)).collect();
        for (gone, new) in gone.into_iter().zip(new) {
            if let Some(gone) = self.histories.get_mut(&gone) {
                let mut heir = DeviceHistory::default();
                heir.succeeds(gone);
                self.histories.insert(new, heir);
            }
        }
    }

    /// Whether nobody is to be judged in this epoch; its verdicts are then rewritten to our own fault.
    fn void(&mut self, epoch: Epoch, findings: &mut [MinerFinding]) -> Option<String> {
        let own = |v: &Verdict| matches!(v, Verdict::Unknown { cause: UnknownCause::OwnFault, .. });
        let verdicts = || findings.iter().flat_map(MinerFinding::verdicts);
        verdicts().next()?;
        if verdicts().all(own) {
            return Some("every verdict of the epoch is the validator's own fault".to_owned());
        }
        let silent = |v: &Verdict| {
            matches!(
                v,
                Verdict::Unknown { cause: UnknownCause::Unreachable | UnknownCause::Timeout, .. }
                    | Verdict::Fail { reason: FailReason::OpeningUnanswered, .. }
            ) || own(v)
        };
        let asked = findings.iter().filter(|f| self.passed.contains(&f.hotkey) && f.verdicts().next().is_some());
        let (mut of, mut lost) = (0usize, 0usize);
        for finding in asked {
            of += 1;
            lost += usize::from(finding.verdicts().all(silent));
        }
        self.suspected.retain(|at| epoch.saturating_sub(*at) < SUSPECTED_WINDOW);
        // More than 80 %.
        if of < MIN_SUSPECTED || lost * 5 <= of * 4 || self.suspected.len() >= MAX_SUSPECTED {
            return None;
        }
        self.suspected.insert(epoch);
        let why = format!("{lost} of {of} miners unreachable at once: suspected own outage");
        for verdict in findings.iter_mut().flat_map(MinerFinding::verdicts_mut).filter(|v| !own(v)) {
            *verdict = Verdict::unknown(UnknownCause::OwnFault, why.clone());
        }
        Some(why)
    }

    /// In a void epoch the clocks of those that have no verdict stand still too.
    fn stand_still(&mut self, epoch: Epoch, lost_ms: u64, findings: &[MinerFinding]) {
        let recorded: BTreeSet<Subject> = findings
            .iter()
            .flat_map(|f| {
                let whole = f.whole.iter().map(|_| Subject { hotkey: f.hotkey, device: None });
                let judged = f.devices.iter().filter(|d| d.verdict.is_some());
                whole.chain(judged.map(|d| Subject { hotkey: f.hotkey, device: Some(d.device) }))
            })
            .collect();
        for (_, history) in self.histories.iter_mut().filter(|(subject, _)| !recorded.contains(subject)) {
            history.freeze(epoch, 1, lost_ms, &self.rules);
        }
    }

    /// A claim is one that was proved at a rate that holds its floor, or a lease of ours. Naming another's GPU costs
    /// nothing, nor does proving it with a slow machine, and must not cost the other its pay.
    fn settle_duplicates(&self, table: &ScoreTable, findings: &mut [MinerFinding]) {
        let claims = findings.iter().flat_map(|f| f.devices.iter().map(|d| (&f.hotkey, d))).filter(|(hotkey, d)| {
            let evidence = match &d.verdict {
                // Left alone for a lease, or given up for one that began meanwhile: its last Pass is paid.
                None | Some(Verdict::Unknown { cause: UnknownCause::Rented, .. }) => return d.leased,
                Some(Verdict::Pass { evidence }) => evidence,
                Some(_) => return false,
            };
            let unseen = DeviceHistory::default();
            let history = self.history(**hotkey, Some(d.device)).unwrap_or(&unseen);
            history.would_hold(&d.model, table.find(&d.model), evidence.rate())
        });
        let duplicates = duplicate_claims(claims.map(|(hotkey, d)| (hotkey, &d.device)));
        for device in findings.iter_mut().flat_map(|f| &mut f.devices).filter(|d| duplicates.contains(&d.device)) {
            if let Some(verdict @ Verdict::Pass { .. }) = &mut device.verdict {
                let detail = format!("{} is claimed by two hotkeys", device.device);
                *verdict = Verdict::fail(FailReason::DuplicateDevice, detail);
            }
        }
    }

    /// Ends penalties: those that are over, and those of miners that are asked all the same, because a person lifted
    /// them. What failed before counts no longer.
    fn pardon(&mut self, at_ms: u64, findings: &[MinerFinding]) {
        let asked: BTreeSet<Hotkey> = findings.iter().filter(|f| f.refused.is_none()).map(|f| f.hotkey).collect();
        let over: Vec<Hotkey> = self
            .penalties
            .iter()
            .filter(|(hotkey, until)| **until <= at_ms || asked.contains(hotkey))
            .map(|(hotkey, _)| *hotkey)
            .collect();
        for hotkey in over {
            self.penalties.remove(&hotkey);
            self.forgive(hotkey);
        }
    }

    fn forgive(&mut self, hotkey: Hotkey) {
        let first = Subject { hotkey, device: None };
        self.histories.range_mut(first..).take_while(|(s, _)| s.hotkey == hotkey).for_each(|(_, h)| h.forgive());
    }

    /// The penalty that a miner's verdicts make due, unless one is in force.
    fn penalty(&mut self, hotkey: Hotkey, failed_release: Option<DeviceId>, at_ms: u64) -> Option<DuePenalty> {
        if self.rules.penalty_ms == 0 || self.penalties.contains_key(&hotkey) {
            return None;
        }
        let first = Subject { hotkey, device: None };
        let all = self.histories.range(first..).take_while(|(s, _)| s.hotkey == hotkey);
        let (reason, detail) = match failed_release {
            Some(device) => (RELEASE_PROOF_FAILED, format!("{device} failed its first proof after a lease")),
            None => {
                let (subject, fails) = all
                    .filter_map(|(s, h)| Some((s, h.penalty_due(&self.rules)?)))
                    .min_by_key(|(s, _)| s.device.is_none())?;
                let of = self.rules.penalty_window;
                let device = subject.device.map_or_else(|| "the miner".to_owned(), |d| d.to_string());
                (REPEATED_FAILS, format!("{device} failed {fails} of its last {of} judgements"))
            }
        };
        let until_ms = at_ms.saturating_add(self.rules.penalty_ms);
        self.penalties.insert(hotkey, until_ms);
        self.forgive(hotkey);
        Some(DuePenalty { hotkey, reason: reason.to_owned(), detail, from_ms: at_ms, until_ms })
    }

    /// Forgets devices that were not seen for long, and the longest unseen of a hotkey that shows too many, so that what
    /// peers say cannot fill the memory.
    fn forget(&mut self, seen: &BTreeSet<Subject>) {
        self.histories.retain(|subject, history| seen.contains(subject) || history.unseen() < FORGET_EPOCHS);
        let mut of: BTreeMap<Hotkey, Vec<(u32, Subject)>> = BTreeMap::new();
        for (subject, history) in &self.histories {
            of.entry(subject.hotkey).or_default().push((history.idle(), *subject));
        }
        for mut subjects in of.into_values().filter(|all| all.len() > MAX_HISTORIES) {
            subjects.sort_unstable();
            for (_, subject) in subjects.drain(MAX_HISTORIES..) {
                self.histories.remove(&subject);
            }
        }
    }
}

#[cfg(test)]
mod tests;
