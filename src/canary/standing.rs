//! What a failed canary costs. Pure.
//!
//! A device whose proof was wrong or too slow in the container, or that cannot be used there, is judged
//! [`FailReason::CanaryFailed`] in each epoch until it passes one. One canary that ended before the proof costs no device
//! anything: a tenant could not get there, which may pass. [`IN_A_ROW`] of them cost as much as a wrong proof, or who cannot
//! prove in a container would end each canary before it has to; but only if another miner passed one meanwhile
//! ([`crate::store::canaries`] knows), for our own way out may be cut. An unknown is nobody's fault.

use std::collections::{BTreeSet, HashMap};

use crate::ids::{DeviceId, Hotkey};
use crate::verdict::{FailReason, Verdict};

use super::course::{Outcome, Report, Stage};

/// Canaries of a miner in a row that ended before the proof, by its doing, from which on they cost.
pub const IN_A_ROW: usize = 3;

/// Devices that no canary got to, [`IN_A_ROW`] times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// All that were rented for those canaries.
    pub devices: BTreeSet<DeviceId>,
    /// When the first of them began, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// What they are judged with.
    pub words: String,
}

/// What the last canaries of a miner say together: each with when it began, the latest first. Unknowns count for nothing, and
/// a canary that got to the proof begins anew.
pub fn unreached<'a>(latest_first: impl Iterator<Item = (u64, &'a Report)>) -> Option<Unreached> {
    let told = latest_first.filter(|(_, report)| !matches!(report.outcome, Outcome::Unknown { .. }));
    let row: Vec<(u64, &Report)> = told.take_while(|(_, report)| stumbled(report)).take(IN_A_ROW).collect();
    let ((_, last), (since_ms, _)) = (row.first()?, row.get(IN_A_ROW - 1)?);
    let devices = row.iter().flat_map(|(_, report)| &report.devices).copied().collect();
    let words = format!("{IN_A_ROW} canaries in a row did not get to the proof, the last {}", words(&last.outcome));
    Some(Unreached { devices, since_ms: *since_ms, words })
}

/// Whether a canary ended between the rental and the proof, by the miner's doing.
fn stumbled(report: &Report) -> bool {
    matches!(report.outcome, Outcome::Fail { stage: Stage::Login | Stage::Upload | Stage::Run, .. })
        && report.failed.is_empty()
}

/// What a canary says of one device: `true` if it proved itself, `false` if not. Devices that it says nothing of are left out.
pub fn says(report: &Report) -> Vec<(DeviceId, bool)> {
    let proved = report.proved.iter().map(|p| (p.device, true));
    proved.chain(report.failed.iter().map(|device| (*device, false))).collect()
}

/// The words that a failed device is judged with.
pub fn words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Pass => "passed".to_owned(),
        Outcome::Fail { stage, reason, detail } | Outcome::Unknown { stage, reason, detail } => {
            format!("at {stage}: {reason}: {detail}")
        }
    }
}

/// The verdicts that devices get without being asked: those that failed their last canary, each with the words of it.
pub fn costs(failed: impl IntoIterator<Item = (Hotkey, DeviceId, String)>) -> HashMap<(Hotkey, DeviceId), Verdict> {
    let cost = |(miner, device, words)| ((miner, device), Verdict::fail(FailReason::CanaryFailed, words));
    failed.into_iter().map(cost).collect()
}
