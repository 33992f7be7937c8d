//! One machine's score, with a part for each device that says why it counts or not.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::admission::Refusal;
use crate::ids::{Coldkey, DeviceId, Hotkey, Uid};
use crate::verdict::{FailReason, UnknownCause, Verdict};

use super::history::JudgedRate;
use super::points::{Points, decimal};
use super::table::{RateSource, ScoreTable};

/// What a rented machine gets on top, unless the table says otherwise: the mission's rule.
pub const ALLOCATION_BONUS: Points = Points::HUNDRED;
/// A factor of 1, in 10⁻⁹.
pub const FULL_PPB: u64 = 1_000_000_000;

/// What a device brings to its machine's score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceJudgement {
    /// The device.
    pub device: DeviceId,
    /// Its model's name, as NVML spells it or a device class.
    pub model: String,
    /// The verdict of the epoch.
    pub verdict: Verdict,
    /// What a Pass of the epoch is paid for, judged over the last epochs. `None`: the rate of the Pass itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<JudgedRate>,
    /// The rate that the last Pass was paid for, in operations a second, while a lease keeps it paying. It counts only
    /// in place of `Unknown(Rented)`.
    pub kept_rate: Option<u64>,
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
    /// The base score that it is paid, in 10⁻⁶: its row's, or that of the cheapest twin; 0 without a row.
    pub base_micro: u64,
    /// The twin whose base that is, where it is another model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub twin: Option<String>,
    /// Where the row's rates come from, if it has a nominal rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RateSource>,
    /// The rate it is paid for, in operations a second, if any.
    pub rate: Option<u64>,
    /// How that rate was judged, for a Pass of a timed model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judged: Option<JudgedRate>,
    /// The row's nominal rate in operations a second, if any.
    pub nominal: Option<u64>,
    /// `min(1, rate / nominal)` in 10⁻⁹, rounded down; 1 for a device class whose rate does not count, 0 for a device
    /// that is not paid.
    pub factor_ppb: u64,
    /// `base · factor` in 10⁻¹⁵, exact. What of it is paid says `counted`.
    pub credit: u64,
    /// Whether the credit is in the score.
    pub counted: bool,
    /// Why.
    pub reason: PartReason,
}

/// `100 / (max_devices · highest base)`: 3.125 when eight devices count and the highest base is 4.00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scaling {
    /// Devices of one machine that count.
    pub max_devices: u64,
    /// The highest base of the table, in 10⁻⁶.
    pub max_base_micro: u64,
}

impl Scaling {
    /// The points of a sum of credits (10⁻¹⁵): `⌊credit · 100 / (max_devices · highest base)⌋`, at most 100. The units
    /// meet: 10⁻¹⁵ over 10⁻⁶ is 10⁻⁹.
    pub fn points(&self, credit: u128) -> Points {
        let full = u128::from(self.max_devices) * u128::from(self.max_base_micro);
        let points = credit.saturating_mul(100).checked_div(full).unwrap_or(0);
        Points(u64::try_from(points).unwrap_or(u64::MAX)).min(Points::HUNDRED)
    }
}

impl std::fmt::Display for Scaling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "100 / ({} × {})", self.max_devices, decimal(self.max_base_micro.into(), 6, 4))
    }
}

/// One machine's score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// `gpu + bonus`, 0 to 200 points with the mission's bonus.
    pub total: Points,
    /// The counted credits times `scaling`, 0 to 100 points.
    pub gpu: Points,
    /// The table's bonus or 0.
    pub bonus: Points,
    /// The table's scaling.
    pub scaling: Scaling,
    /// The devices: counted ones first, best credit first, then by device.
    pub parts: Vec<DevicePart>,
}

impl Score {
    /// How many devices are counted.
    pub fn counted(&self) -> usize {
        self.parts.iter().filter(|p| p.counted).count()
    }
}

/// What became of one neuron in one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MinerJudgement {
    /// Its uid.
    pub uid: Uid,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// Its owner.
    pub coldkey: Coldkey,
    /// Why it was not asked at all, if so.
    pub refused: Option<Refusal>,
    /// The verdict on the miner as a whole, where its devices are not known: unreachable, no specs, no device.
    pub whole: Option<Verdict>,
    /// Its devices, in the order it offers them, with what each brings to the score.
    pub devices: Vec<DeviceJudgement>,
}

/// The score of one neuron, and what it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRow {
    /// Its uid.
    pub uid: Uid,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// The score with its parts.
    pub score: Score,
}

/// The score of every neuron that was judged, in the order given. `allocated`: the devices of live leases that count,
/// by miner; a miner without one is not allocated.
pub fn score_all(
    table: &ScoreTable,
    miners: &[MinerJudgement],
    allocated: &BTreeMap<Hotkey, Vec<DeviceId>>,
) -> Vec<ScoreRow> {
    let row = |m: &MinerJudgement| {
        let allocated = allocated.get(&m.hotkey).is_some_and(|devices| !devices.is_empty());
        ScoreRow { uid: m.uid, hotkey: m.hotkey, score: machine_score(table, &m.devices, allocated) }
    };
    miners.iter().map(row).collect()
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
    parts.sort_by(|a, b| b.counted.cmp(&a.counted).then(b.credit.cmp(&a.credit)).then(a.device.cmp(&b.device)));
    for beyond in parts.iter_mut().filter(|p| p.counted).skip(table.max_devices()) {
        beyond.counted = false;
        beyond.reason = PartReason::BeyondLimit;
    }
    let credit: u128 = parts.iter().filter(|p| p.counted).map(|p| u128::from(p.credit)).sum();
    let gpu = table.scaling().points(credit);
    let rented = PartReason::Unknown(UnknownCause::Rented);
    let vouched = parts.iter().any(|p| p.counted || p.reason == rented);
    let bonus = if allocated && vouched { table.bonus() } else { Points(0) };
    Score { total: gpu.plus(bonus), gpu, bonus, scaling: table.scaling(), parts }
}

fn part(table: &ScoreTable, judged: &DeviceJudgement, named_twice: bool) -> DevicePart {
    let row = table.find(&judged.model);
    let nominal = row.and_then(|r| r.nominal_ops);
    let (rate, paid_as) = match (&judged.verdict, judged.kept_rate) {
        (Verdict::Pass { evidence }, _) => {
            (Some(judged.rate.map_or_else(|| evidence.rate(), |r| r.paid)), PartReason::Proved)
        }
        (Verdict::Unknown { cause: UnknownCause::Rented, .. }, Some(kept)) => (Some(kept), PartReason::RentedPass),
        (Verdict::Unknown { cause, .. }, _) => (None, PartReason::Unknown(*cause)),
        (Verdict::Fail { reason, .. }, _) => (None, PartReason::Failed(*reason)),
    };
    let uncalibrated = PartReason::Unknown(UnknownCause::UncalibratedModel);
    let paid = match (rate, row) {
        (None, _) => Err(paid_as),
        _ if named_twice => Err(PartReason::Failed(FailReason::DuplicateDevice)),
        (Some(_), None) => Err(uncalibrated),
        (Some(_), Some(row)) if !row.timed => Ok(FULL_PPB),
        (Some(rate), Some(_)) => nominal.map(|nominal| factor_ppb(rate, nominal)).ok_or(uncalibrated),
    };
    let (base_micro, twin) = row.map_or((0, None), |row| table.paid_base(row));
    let (factor_ppb, reason, counted) = match paid {
        Ok(factor) => (factor, paid_as, true),
        Err(reason) => (0, reason, false),
    };
    DevicePart {
        device: judged.device,
        model: judged.model.clone(),
        base_micro,
        twin: twin.map(str::to_owned),
        source: row.filter(|row| row.nominal_ops.is_some()).map(|row| row.source),
        rate,
        judged: judged.rate,
        nominal,
        factor_ppb,
        // At most 10⁹ · 10⁹: a table's bases are at most 1,000.
        credit: base_micro.saturating_mul(factor_ppb),
        counted,
        reason,
    }
}

/// `min(1, rate / nominal)` in 10⁻⁹, rounded down.
pub(super) fn factor_ppb(rate: u64, nominal: u64) -> u64 {
    let ppb = (u128::from(rate) * u128::from(FULL_PPB)).checked_div(nominal.into()).unwrap_or(0);
    u64::try_from(ppb).unwrap_or(FULL_PPB).min(FULL_PPB)
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
