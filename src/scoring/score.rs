//! One machine's score, with a part for each device that says why it counts or not.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Hotkey};
use crate::verdict::{FailReason, UnknownCause, Verdict};

use super::table::{ScoreTable, judge_rate};

/// What a rented machine gets on top, unless the table says otherwise: the mission's rule.
pub const ALLOCATION_BONUS: f64 = 100.0;

/// What a device brings to its machine's score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceJudgement {
    /// The device.
    pub device: DeviceId,
    /// Its model's name, as NVML spells it or a device class.
    pub model: String,
    /// The verdict of the epoch.
    pub verdict: Verdict,
    /// The rate of the last Pass, in operations a second, while a lease keeps it paying. It counts only in place of
    /// `Unknown(Rented)`.
    pub kept_rate: Option<f64>,
}

/// Why a device's part is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartReason {
    /// Proved in this epoch and counted.
    Proved,
    /// Rented: its last Pass counts.
    RentedPass,
    /// Proved, but the machine's best devices fill the limit without it.
    BeyondLimit,
    /// Failed.
    Failed(FailReason),
    /// Nothing can be said.
    Unknown(UnknownCause),
}

impl PartReason {
    /// The label in explanations: snake case, stable; of a fail or unknown the reason's own.
    pub fn label(self) -> &'static str {
        match self {
            PartReason::Proved => "proved",
            PartReason::RentedPass => "rented_pass",
            PartReason::BeyondLimit => "beyond_limit",
            PartReason::Failed(reason) => reason.label(),
            PartReason::Unknown(cause) => cause.label(),
        }
    }
}

/// One device's part of a score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DevicePart {
    /// The device.
    pub device: DeviceId,
    /// Its model, as claimed.
    pub model: String,
    /// The base score of its row, 0 without a row.
    pub base: f64,
    /// The proved rate in operations a second, if any.
    pub rate: Option<f64>,
    /// The row's nominal rate in operations a second, if any.
    pub nominal: Option<f64>,
    /// `min(1, rate / nominal)`; 1 for a device class whose rate does not count, 0 for a device that is not paid.
    pub factor: f64,
    /// `base · factor`. What of it is paid says `counted`.
    pub credit: f64,
    /// Whether the credit is in the score.
    pub counted: bool,
    /// Why.
    pub reason: PartReason,
}

/// One machine's score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// `gpu + bonus`, 0 to 200 with the mission's bonus.
    pub total: f64,
    /// The counted credits times `scaling`, 0 to 100.
    pub gpu: f64,
    /// The table's bonus or 0.
    pub bonus: f64,
    /// The table's scaling.
    pub scaling: f64,
    /// The devices: counted ones first, best credit first, then by device.
    pub parts: Vec<DevicePart>,
}

impl Score {
    /// How many devices are counted.
    pub fn counted(&self) -> usize {
        self.parts.iter().filter(|p| p.counted).count()
    }
}

/// A machine's score in one epoch.
///
/// `allocated`: a lease that this validator holds, or a receipt that counts, covers the machine. The bonus is paid when
/// at least one device is counted or is left alone because it is rented (its last Pass may be too old to be paid by
/// then): a machine none of whose devices can be vouched for gets none. A device that is named twice fails as
/// [`FailReason::DuplicateDevice`], each time.
pub fn machine_score(table: &ScoreTable, devices: &[DeviceJudgement], allocated: bool) -> Score {
    let mut times: BTreeMap<DeviceId, usize> = BTreeMap::new();
    for judged in devices {
        *times.entry(judged.device).or_default() += 1;
    }
    let mut parts: Vec<DevicePart> = devices.iter().map(|d| part(table, d, times[&d.device] > 1)).collect();
    parts.sort_by(|a, b| {
        let by_credit = b.credit.partial_cmp(&a.credit).unwrap_or(Ordering::Equal);
        b.counted.cmp(&a.counted).then(by_credit).then(a.device.cmp(&b.device))
    });
    for beyond in parts.iter_mut().filter(|p| p.counted).skip(table.max_devices()) {
        beyond.counted = false;
        beyond.reason = PartReason::BeyondLimit;
    }
    let credit: f64 = parts.iter().filter(|p| p.counted).map(|p| p.credit).sum();
    // Rounding may lift a full machine a hair above 100.
    let gpu = (credit * table.scaling()).min(100.0);
    let rented = PartReason::Unknown(UnknownCause::Rented);
    let vouched = parts.iter().any(|p| p.counted || p.reason == rented);
    let bonus = if allocated && vouched { table.bonus() } else { 0.0 };
    Score { total: gpu + bonus, gpu, bonus, scaling: table.scaling(), parts }
}

fn part(table: &ScoreTable, judged: &DeviceJudgement, named_twice: bool) -> DevicePart {
    let row = table.find(&judged.model);
    let nominal = row.and_then(|r| r.nominal_ops);
    let (rate, paid_as) = match (&judged.verdict, judged.kept_rate) {
        (Verdict::Pass { evidence }, _) => (Some(evidence.rate()), PartReason::Proved),
        (Verdict::Unknown { cause: UnknownCause::Rented, .. }, Some(kept)) => (Some(kept), PartReason::RentedPass),
        (Verdict::Unknown { cause, .. }, _) => (None, PartReason::Unknown(*cause)),
        (Verdict::Fail { reason, .. }, _) => (None, PartReason::Failed(*reason)),
    };
    let judged_rate = match (rate, row) {
        (None, _) => Err(paid_as),
        _ if named_twice => Err(PartReason::Failed(FailReason::DuplicateDevice)),
        (Some(_), None) => Err(PartReason::Unknown(UnknownCause::UncalibratedModel)),
        (Some(_), Some(row)) if !row.timed => Ok(1.0),
        (Some(rate), Some(row)) => match (judge_rate(row, rate), row.nominal_ops) {
            (Some(reason), _) => Err(PartReason::Failed(reason)),
            (None, None) => Err(PartReason::Unknown(UnknownCause::UncalibratedModel)),
            (None, Some(_)) if rate.is_nan() => Ok(0.0),
            (None, Some(nominal)) => Ok((rate / nominal).clamp(0.0, 1.0)),
        },
    };
    let base = row.map_or(0.0, |r| r.base);
    let (factor, reason, counted) = match judged_rate {
        Ok(factor) => (factor, paid_as, true),
        Err(reason) => (0.0, reason, false),
    };
    DevicePart {
        device: judged.device,
        model: judged.model.clone(),
        base,
        rate,
        nominal,
        factor,
        credit: base * factor,
        counted,
        reason,
    }
}

/// The devices that more than one hotkey claims. They credit nobody: [`FailReason::DuplicateDevice`]. CPU devices are
/// numbered by each machine for itself and cannot be told apart, so they are never duplicates.
pub fn duplicate_claims<'a>(claims: impl IntoIterator<Item = (&'a Hotkey, &'a DeviceId)>) -> BTreeSet<DeviceId> {
    let mut first: BTreeMap<DeviceId, Hotkey> = BTreeMap::new();
    let mut twice = BTreeSet::new();
    for (hotkey, device) in claims.into_iter().filter(|(_, d)| d.cpu_index().is_none()) {
        if first.entry(*device).or_insert(*hotkey) != hotkey {
            twice.insert(*device);
        }
    }
    twice
}
