//! What a device's verdicts over time say in one epoch.
//!
//! - A `Pass` pays in its own epoch. The device counts as *proved* for 2 epochs, that one included.
//! - A `Fail` pays nothing and ends the proof at once.
//! - An `Unknown` pays nothing for its epoch and neither renews nor ends a proof. When the fault is the validator's
//!   own, the proof's clock stands still for that epoch.
//! - A rented device is not disturbed: its last Pass keeps paying while its lease holds, at most 24 hours.
//! - K misses in a row of the validator's own slot are `Fail(Unresponsive)`, or refusing would be free.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Epoch};
use crate::verdict::{FailReason, Side, UnknownCause, Verdict};

use super::score::DeviceJudgement;

/// How long verdicts hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRules {
    /// Epochs for which a Pass proves a device, its own included.
    pub pass_epochs: u64,
    /// How long a rented device's last Pass keeps paying.
    pub rented_credit: Duration,
    /// Misses in a row that become `Fail(Unresponsive)`.
    pub misses: u32,
    /// Fails that make a penalty due (K) …
    pub penalty_fails: usize,
    /// … among so many last judgements (N), at most 64.
    pub penalty_window: usize,
}

impl Default for HistoryRules {
    fn default() -> Self {
        HistoryRules {
            pass_epochs: 2,
            rented_credit: Duration::from_secs(24 * 60 * 60),
            misses: 3,
            penalty_fails: 3,
            penalty_window: 6,
        }
    }
}

/// The last Pass of a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The epoch it counts from; moves on while the validator itself is out.
    pub epoch: Epoch,
    /// When it was given, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The proved rate in operations a second.
    pub rate: f64,
    /// Since when the device is proved without a break, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Pass,
    Fail,
    Unknown,
}

/// The verdicts of one device, as far as they still matter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceHistory {
    kept: Option<Kept>,
    latest: Option<(Epoch, Verdict)>,
    misses: u32,
    recent: VecDeque<Outcome>,
}

/// The most judgements that are remembered one by one.
const MAX_RECENT: usize = 64;

impl DeviceHistory {
    /// Takes the verdict of an epoch in and returns it as it counts: the K-th miss in a row becomes
    /// `Fail(Unresponsive)`. One verdict counts for each epoch: a second one for the same epoch, or one for an earlier
    /// epoch, changes nothing and the verdict that counts is returned.
    pub fn record(&mut self, epoch: Epoch, at_ms: u64, verdict: Verdict, rules: &HistoryRules) -> Verdict {
        if let Some((_, counts)) = self.latest.as_ref().filter(|(latest, _)| *latest >= epoch) {
            return counts.clone();
        }
        let verdict = self.settle(verdict, rules);
        let outcome = match &verdict {
            Verdict::Pass { evidence } => {
                let since_ms = self.kept.filter(|_| self.proved(epoch, rules)).map_or(at_ms, |k| k.since_ms);
                self.kept = Some(Kept { epoch, at_ms, rate: evidence.rate(), since_ms });
                Outcome::Pass
            }
            Verdict::Fail { .. } => {
                self.kept = None;
                Outcome::Fail
            }
            Verdict::Unknown { cause, .. } => {
                if *cause == UnknownCause::OwnFault {
                    self.freeze(epoch, 1, rules);
                }
                Outcome::Unknown
            }
        };
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(outcome);
        self.latest = Some((epoch, verdict.clone()));
        verdict
    }

    fn settle(&mut self, verdict: Verdict, rules: &HistoryRules) -> Verdict {
        match &verdict {
            // A validator's own fault, a rented device, a missing row: neither a miss nor an answer.
            Verdict::Unknown { cause, .. } if cause.side() == Side::Validator => verdict,
            Verdict::Unknown { cause, detail } => {
                self.misses = self.misses.saturating_add(1);
                if self.misses < rules.misses.max(1) {
                    return verdict;
                }
                let detail = format!("{} misses in a row, the last: {} {detail}", self.misses, cause.label());
                Verdict::fail(FailReason::Unresponsive, detail.trim_end())
            }
            Verdict::Pass { .. } | Verdict::Fail { .. } => {
                self.misses = 0;
                verdict
            }
        }
    }

    /// Lets the proof's clock stand still for `epochs` epochs that end with `last`: the validator itself was out. A
    /// proof that had run out before stays so.
    pub fn freeze(&mut self, last: Epoch, epochs: u64, rules: &HistoryRules) {
        // The last epoch before the outage in which we looked.
        let before = last.saturating_sub(epochs);
        if let Some(kept) = self.kept.as_mut() {
            // Valid then, else there is nothing to keep.
            if before.saturating_sub(kept.epoch) < rules.pass_epochs {
                kept.epoch = kept.epoch.saturating_add(last.saturating_sub(before.max(kept.epoch)));
            }
        }
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
        self.latest.as_ref().filter(|(e, _)| *e == epoch).map(|(_, v)| v)
    }

    /// The latest verdict and its epoch.
    pub fn latest(&self) -> Option<(Epoch, &Verdict)> {
        self.latest.as_ref().map(|(e, v)| (*e, v))
    }

    /// Misses in a row so far.
    pub fn misses(&self) -> u32 {
        self.misses
    }

    /// Whether K of the last N judgements are Fails: a penalty beyond the lost epochs is due.
    pub fn penalty_due(&self, rules: &HistoryRules) -> bool {
        let fails = self.recent.iter().rev().take(rules.penalty_window).filter(|o| **o == Outcome::Fail).count();
        rules.penalty_fails > 0 && fails >= rules.penalty_fails
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
        let limit_ms = u64::try_from(rules.rented_credit.as_millis()).unwrap_or(u64::MAX);
        let kept_rate = self.kept.filter(|k| leased && now_ms.saturating_sub(k.at_ms) <= limit_ms).map(|k| k.rate);
        DeviceJudgement { device, model: model.to_owned(), verdict, kept_rate }
    }
}
