//! What a device's verdicts over time say in one epoch. All in whole numbers.
//!
//! The rules follow the proof's design, "what the time proves, and what is paid", and its protocol.
//!
//! **How long a Pass holds.**
//! - A `Pass` pays in its own epoch. The device counts as *proved* for 2 epochs, that one included.
//! - A `Fail` pays nothing and ends the proof at once.
//! - An `Unknown` pays nothing for its epoch and neither renews nor ends a proof.
//! - A rented device is not disturbed: its last Pass keeps paying while its lease holds, at most 24 hours. Leased epochs
//!   do not use up the Pass: it comes back as old as it was, but pays again only when renewed.
//! - Epochs in which the validator itself was out stop every clock: of the Pass, of the 24 hours, of the N below.
//!
//! **What rate is paid.** The last [`RATES`] proved rates under one model claim are a window. Its median is paid, so that
//! a single fast epoch earns nothing more; an epoch far below it ([`DeviceHistory::record`]) is paid its own rate, so
//! that a card that is missing is missing at once. The floor is held against the median: one slow epoch of a good card
//! is no `Fail`. Another claim begins another window.
//!
//! **What becomes of failing.**
//! - K misses in a row of the validator's own slot are `Fail(Unresponsive)`, or refusing would be free.
//! - K Fails among the last N judgements make a penalty due, a Fail in the first judgement after a lease at once.
//!   Only what nobody but the miner can cause counts there: see [`FailReason::penalised`]. Device ids are the miner's
//!   own words, so epochs in which any of its devices failed count for the miner as a whole as well, and a device that
//!   appears when one that comes from a lease is gone is judged in its place.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Epoch};
use crate::verdict::{FailReason, Side, UnknownCause, Verdict};

use super::points::decimal;
use super::score::DeviceJudgement;
use super::table::ModelRow;

/// W: proved rates that are remembered.
pub const RATES: usize = 8;
/// Rates from which on the median is trusted; with fewer the lower of it and the present rate is paid.
pub const ENOUGH_RATES: usize = 3;
/// The most judgements that are remembered one by one.
const MAX_RECENT: usize = 64;

/// How long verdicts hold. Durations are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryRules {
    /// Epochs for which a Pass proves a device, its own included.
    pub pass_epochs: u64,
    /// How long a rented device's last Pass keeps paying.
    pub rented_credit_ms: u64,
    /// Misses in a row that become `Fail(Unresponsive)`.
    pub misses: u32,
    /// Fails that make a penalty due (K) …
    pub penalty_fails: u32,
    /// … among so many last judgements (N), at most 64.
    pub penalty_window: u32,
    /// How long a penalty lasts; 0 for none at all.
    pub penalty_ms: u64,
}

impl Default for HistoryRules {
    fn default() -> Self {
        HistoryRules {
            pass_epochs: 2,
            rented_credit_ms: 24 * 60 * 60 * 1_000,
            misses: 3,
            penalty_fails: 3,
            penalty_window: 6,
            penalty_ms: 6 * 60 * 60 * 1_000,
        }
    }
}

/// The last Pass of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The epoch it counts from; moves on while the validator itself is out and while the device is leased.
    pub epoch: Epoch,
    /// When it was given, in milliseconds since the Unix epoch; moves on while the validator itself is out.
    pub at_ms: u64,
    /// The rate it was paid for, in operations a second.
    pub rate: u64,
    /// Since when the device is proved without a break, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A proved rate against those before it, in operations a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgedRate {
    /// The rate that is paid.
    pub paid: u64,
    /// The rate of this epoch's proof.
    pub present: u64,
    /// The median of the window, this one included: of an even number the mean of the middle two, rounded down.
    pub median: u64,
    /// The median of the distances from the median.
    pub mad: u64,
    /// Rates in the window, 1 to [`RATES`].
    pub of: u32,
}

impl JudgedRate {
    /// Judges the last rate of a window that is not empty. Paid is the median, unless the last rate is a low outlier:
    /// below `median − 3 · 1.4826 · max(MAD, 1 % of the median)` (1.4826 makes the MAD of a normal distribution its
    /// standard deviation), which is paid as it is. With fewer than [`ENOUGH_RATES`] the lower of both.
    fn of(window: &VecDeque<u64>) -> Self {
        let present = window.back().copied().unwrap_or(0);
        let median = median(window.iter().copied());
        let mad = self::median(window.iter().map(|rate| rate.abs_diff(median)));
        let wide = |rate: u64| u128::from(rate) * 1_000_000;
        let spread = (u128::from(mad) * 100).max(u128::from(median));
        let low = wide(present) + 3 * 14_826 * spread < wide(median);
        let paid = match window.len() < ENOUGH_RATES {
            true => present.min(median),
            false if low => present,
            false => median,
        };
        JudgedRate { paid, present, median, mad, of: u32::try_from(window.len()).unwrap_or(u32::MAX) }
    }

    /// The rate that the floor is held against: the median, or the present rate while there are few.
    pub fn held(&self) -> u64 {
        if (self.of as usize) < ENOUGH_RATES { self.present } else { self.median }
    }
}

/// The median; of an even number the mean of the middle two, rounded down; of nothing 0.
fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut sorted: Vec<u64> = values.collect();
    sorted.sort_unstable();
    let at = |i: usize| sorted.get(i).copied().unwrap_or(0);
    match sorted.len() {
        0 => 0,
        n if n % 2 == 1 => at(n / 2),
        n => at(n / 2 - 1).midpoint(at(n / 2)),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Pass,
    Fail,
    Unknown,
}

/// The verdict that counts in the epoch that was judged last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Latest {
    epoch: Epoch,
    #[serde(flatten)]
    verdict: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate: Option<JudgedRate>,
}

/// One look at a device: when, and as what it was claimed.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The epoch.
    pub epoch: Epoch,
    /// When it is judged, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What goes by from one judgement to the next, in milliseconds: so long clocks stand still for an own fault.
    pub since_last_ms: u64,
    /// The model that is claimed.
    pub model: &'a str,
    /// Its row, if the table has one.
    pub row: Option<&'a ModelRow>,
}

/// What became of a verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// The verdict as it counts.
    pub verdict: Verdict,
    /// Whether it is a Fail in the first judgement after a lease.
    pub failed_release: bool,
    /// Whether it counts as a Fail among the last N judgements; `None` if it is none of them.
    pub counts: Option<bool>,
}

/// The verdicts of one device, as far as they still matter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceHistory {
    /// The model it was claimed as when it was judged last.
    model: String,
    kept: Option<Kept>,
    latest: Option<Latest>,
    /// The last proved rates under that claim, oldest first.
    rates: VecDeque<u64>,
    misses: u32,
    recent: VecDeque<Outcome>,
    /// It was leased, and neither passed nor failed since.
    after_lease: bool,
    /// Epochs judged since it was seen.
    idle: u32,
    /// Of a miner as a whole: the last epoch whose devices were summed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    summed: Option<Epoch>,
}

impl DeviceHistory {
    /// Takes the verdict of an epoch in and returns it as it counts: a Pass whose rate does not hold the floor becomes
    /// `Fail(BelowFloor)`, the K-th miss in a row `Fail(Unresponsive)`. One verdict counts for each epoch: a second one
    /// for the same epoch, or one for an earlier epoch, changes nothing and the verdict that counts is returned.
    pub fn record(&mut self, sight: &Sight<'_>, verdict: Verdict, rules: &HistoryRules) -> Recorded {
        self.idle = 0;
        if let Some(latest) = self.latest.as_ref().filter(|latest| latest.epoch >= sight.epoch) {
            return Recorded { verdict: latest.verdict.clone(), failed_release: false, counts: None };
        }
        let (verdict, rate) = self.settle(sight, verdict, rules);
        let mut failed_release = false;
        let outcome = match &verdict {
            Verdict::Pass { evidence } => {
                let was_proved = self.proved(sight.epoch, rules);
                let since_ms = self.kept.filter(|_| was_proved).map_or(sight.at_ms, |k| k.since_ms);
                let rate = rate.map_or_else(|| evidence.rate(), |r| r.paid);
                self.kept = Some(Kept { epoch: sight.epoch, at_ms: sight.at_ms, rate, since_ms });
                self.after_lease = false;
                Some(Outcome::Pass)
            }
            Verdict::Fail { reason, .. } => {
                self.kept = None;
                if reason.penalised() {
                    failed_release = std::mem::take(&mut self.after_lease);
                }
                Some(if reason.penalised() { Outcome::Fail } else { Outcome::Unknown })
            }
            Verdict::Unknown { cause, .. } => {
                if *cause == UnknownCause::OwnFault {
                    self.freeze(sight.epoch, 1, sight.since_last_ms, rules);
                }
                (cause.side() != Side::Validator).then_some(Outcome::Unknown)
            }
        };
        if let Some(outcome) = outcome {
            self.push(outcome);
        }
        let counts = outcome.map(|outcome| outcome == Outcome::Fail);
        self.latest = Some(Latest { epoch: sight.epoch, verdict: verdict.clone(), rate });
        Recorded { verdict, failed_release, counts }
    }

    fn push(&mut self, outcome: Outcome) {
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(outcome);
    }

    /// For a miner as a whole: what its devices' judgements of an epoch come to, one of the last N. Told again of the
    /// same epoch, a Fail stays one.
    pub fn sums_up(&mut self, epoch: Epoch, failed: bool) {
        if self.summed == Some(epoch) {
            if failed && let Some(last) = self.recent.back_mut() {
                *last = Outcome::Fail;
            }
            return;
        }
        self.summed = Some(epoch);
        self.push(if failed { Outcome::Fail } else { Outcome::Unknown });
    }

    /// A device that was never seen takes the place of one that is not offered any more: so does its first judgement.
    pub fn succeeds(&mut self, gone: &mut DeviceHistory) {
        self.after_lease |= std::mem::take(&mut gone.after_lease);
    }

    /// Whether it was leased, and neither passed nor failed since.
    pub fn is_after_lease(&self) -> bool {
        self.after_lease
    }

    fn settle(&mut self, sight: &Sight<'_>, verdict: Verdict, rules: &HistoryRules) -> (Verdict, Option<JudgedRate>) {
        match &verdict {
            Verdict::Unknown { cause, detail } => {
                if !self.is_miss(*cause, sight.at_ms, rules) {
                    return (verdict, None);
                }
                self.misses = self.misses.saturating_add(1);
                if self.misses < rules.misses.max(1) {
                    return (verdict, None);
                }
                let detail = format!("{} misses in a row, the last: {} {detail}", self.misses, cause.label());
                (Verdict::fail(FailReason::Unresponsive, detail.trim_end()), None)
            }
            Verdict::Fail { .. } => {
                self.misses = 0;
                self.claim(sight.model);
                (verdict, None)
            }
            Verdict::Pass { evidence } => {
                self.misses = 0;
                self.claim(sight.model);
                let Some(row) = sight.row.filter(|row| row.timed) else { return (verdict, None) };
                if self.rates.len() == RATES {
                    self.rates.pop_front();
                }
                self.rates.push_back(evidence.rate());
                let rate = JudgedRate::of(&self.rates);
                match below_floor(row, &rate) {
                    Some(fail) => (fail, Some(rate)),
                    None => (verdict, Some(rate)),
                }
            }
        }
    }

    /// Whether an Unknown is a miss of the miner. A device that it calls rented, though no lease of ours says so, may be
    /// rented by another validator: that is believed as long as a rented device's last Pass would pay, no longer, or the
    /// word alone would keep a miner from ever being judged.
    fn is_miss(&self, cause: UnknownCause, now_ms: u64, rules: &HistoryRules) -> bool {
        match cause {
            UnknownCause::Rented => !self.kept.is_some_and(|k| pays_rented(&k, now_ms, rules)),
            cause => cause.side() != Side::Validator,
        }
    }

    /// Another claim begins anew: it inherits neither rates nor a Pass.
    fn claim(&mut self, model: &str) {
        if self.model != model {
            model.clone_into(&mut self.model);
            self.rates.clear();
            self.kept = None;
        }
    }

    /// Whether a Pass at this rate, claimed as this row, would hold the floor.
    pub fn would_hold(&self, model: &str, row: Option<&ModelRow>, rate: u64) -> bool {
        let Some(row) = row.filter(|row| row.timed) else { return true };
        let before = self.rates.iter().copied().filter(|_| self.model == model);
        let mut window: VecDeque<u64> = before.chain([rate]).collect();
        if window.len() > RATES {
            window.pop_front();
        }
        below_floor(row, &JudgedRate::of(&window)).is_none()
    }

    /// The device is leased and left alone: its next judgement is the first after a lease.
    pub fn rests(&mut self) {
        self.idle = 0;
        self.after_lease = true;
    }

    /// Lets the proof's clocks stand still for `epochs` epochs that end with `last` and for `lost_ms` milliseconds. A
    /// proof that had run out before stays so.
    pub fn freeze(&mut self, last: Epoch, epochs: u64, lost_ms: u64, rules: &HistoryRules) {
        // The last epoch before the outage in which we looked.
        let before = last.saturating_sub(epochs);
        if let Some(kept) = self.kept.as_mut() {
            kept.at_ms = kept.at_ms.saturating_add(lost_ms);
            // Valid then, else there is nothing to keep.
            if before.saturating_sub(kept.epoch) < rules.pass_epochs {
                kept.epoch = kept.epoch.saturating_add(last.saturating_sub(before.max(kept.epoch)));
            }
        }
    }

    /// The miner answered, if not about this: its misses are not in a row any more.
    pub fn answered(&mut self) {
        self.idle = 0;
        self.misses = 0;
    }

    /// Another epoch was judged without a word about this device. Returns in how many that was so by now.
    pub fn unseen(&mut self) -> u32 {
        self.idle = self.idle.saturating_add(1);
        self.idle
    }

    /// Epochs judged since it was seen.
    pub fn idle(&self) -> u32 {
        self.idle
    }

    /// The Fails before a penalty count no longer.
    pub fn forgive(&mut self) {
        self.recent.clear();
    }

    /// Whether the device counts as proved in this epoch: its last Pass is not over and no Fail came after it.
    pub fn proved(&self, epoch: Epoch, rules: &HistoryRules) -> bool {
        self.kept.is_some_and(|k| epoch.saturating_sub(k.epoch) < rules.pass_epochs)
    }

    /// Whether the device was proved when a lease began, in the epoch `began` and at `began_ms` (milliseconds since
    /// the Unix epoch), and has not failed since.
    pub fn proved_before(&self, began: Epoch, began_ms: u64, rules: &HistoryRules) -> bool {
        self.proved(began, rules) && self.kept.is_some_and(|k| k.since_ms <= began_ms)
    }

    /// The last Pass, while no Fail came after it.
    pub fn kept(&self) -> Option<Kept> {
        self.kept
    }

    /// The verdict of this epoch, if there is one yet.
    pub fn verdict(&self, epoch: Epoch) -> Option<&Verdict> {
        self.latest.as_ref().filter(|latest| latest.epoch == epoch).map(|latest| &latest.verdict)
    }

    /// Misses in a row so far.
    pub fn misses(&self) -> u32 {
        self.misses
    }

    /// How many of the last N judgements are Fails, once they are K or more: a penalty beyond the lost epochs is due.
    pub fn penalty_due(&self, rules: &HistoryRules) -> Option<u32> {
        let last = self.recent.iter().rev().take(rules.penalty_window as usize);
        let fails = last.filter(|o| **o == Outcome::Fail).count() as u32;
        (rules.penalty_fails > 0 && fails >= rules.penalty_fails).then_some(fails)
    }

    /// What the device brings to its machine's score in this epoch. `leased`: a lease that this validator granted, or a
    /// receipt that counts, covers the device now; its last Pass then pays in place of a new one, see [`HistoryRules`].
    /// Without a verdict in the epoch the device is `Unknown(NoSpecs)`.
    pub fn judgement(
        &self,
        device: DeviceId,
        model: &str,
        epoch: Epoch,
        now_ms: u64,
        leased: bool,
        rules: &HistoryRules,
    ) -> DeviceJudgement {
        let verdict = match self.verdict(epoch) {
            Some(verdict) => verdict.clone(),
            None if leased => Verdict::unknown(UnknownCause::Rented, "not disturbed"),
            None => Verdict::unknown(UnknownCause::NoSpecs, "not judged in this epoch"),
        };
        let rate = self.latest.as_ref().filter(|latest| latest.epoch == epoch).and_then(|latest| latest.rate);
        let pays = |k: &Kept| leased && self.model == model && pays_rented(k, now_ms, rules);
        let kept_rate = self.kept.filter(pays).map(|k| k.rate);
        DeviceJudgement { device, model: model.to_owned(), verdict, rate, kept_rate }
    }
}

fn pays_rented(kept: &Kept, now_ms: u64, rules: &HistoryRules) -> bool {
    now_ms.saturating_sub(kept.at_ms) <= rules.rented_credit_ms
}

/// The Fail of a rate that does not hold its row's floor.
fn below_floor(row: &ModelRow, rate: &JudgedRate) -> Option<Verdict> {
    let floor = row.floor_ops.filter(|floor| row.timed && rate.held() < *floor)?;
    let shown = |rate: u64| decimal(rate.into(), 12, 3);
    let median = match (rate.of as usize) < ENOUGH_RATES {
        true => String::new(),
        false => format!(", the median of the last {}", rate.of),
    };
    let detail = format!("{}{median}, the floor is {} (10^12 operations a second)", shown(rate.held()), shown(floor));
    Some(Verdict::fail(FailReason::BelowFloor, detail))
}
