//! What a selftest says: lines for people and programs, each with what to do; the same object as JSON (`docs/selftest.md`).

use std::fmt::Write as _;

use serde::Serialize;

use crate::ids::DeviceId;
use crate::launch::lines::table;
pub(super) use crate::launch::lines::{Line, Status, gib};
use crate::proof::Work;
use crate::scoring::{Points, decimal};

/// A device as a validator would judge it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Device {
    /// The device.
    pub device: DeviceId,
    /// Its model, as NVML spells it, or its class.
    pub model: String,
    /// Its memory in bytes, as it is told; not proved here.
    pub memory_bytes: u64,
    /// The work that it was asked for; none for a model without a calibrated row.
    pub work: Option<Work>,
    /// `pass`, `fail` or `unknown`, by the validator's own judging.
    pub verdict: &'static str,
    /// The label of the reason; `none` for a pass.
    pub reason: &'static str,
    /// From before the provers were started until all devices' roots were there, in nanoseconds.
    pub elapsed_ns: Option<u64>,
    /// Until the openings were there, in nanoseconds.
    pub opening_ns: Option<u64>,
    /// What their verification took, in nanoseconds.
    pub verification_ns: Option<u64>,
    /// The proved rate in operations a second.
    pub rate_ops: Option<u64>,
    /// The row's nominal rate and floor in operations a second; none where rates do not count.
    pub nominal_ops: Option<u64>,
    /// See `nominal_ops`.
    pub floor_ops: Option<u64>,
    /// The base that is paid, in 10⁻⁶.
    pub base_micro: u64,
    /// The twin whose base that is, where it is another model's.
    pub twin: Option<String>,
    /// `min(1, rate ÷ nominal)` in 10⁻⁹; 0 for a device that is not paid.
    pub factor_ppb: u64,
    /// Whether it is among the devices that are paid.
    pub counted: bool,
    /// Its memory proof; none for a model whose row has not what that takes.
    pub memory: Option<Memory>,
}

/// A device's memory proof.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Memory {
    /// Blocks of 1 KiB.
    pub blocks: u64,
    /// Iterations of each.
    pub iterations: u32,
    /// How often all of it was read.
    pub scans: u32,
    /// `pass`, `fail` or `unknown`, by the validator's own judging.
    pub verdict: &'static str,
    /// The label of the reason; `none` for a pass.
    pub reason: &'static str,
    /// What the fill of all devices took, in nanoseconds.
    pub fill_ns: Option<u64>,
    /// What the scans of all devices took, in nanoseconds.
    pub scan_ns: Option<u64>,
    /// Proved, in bytes a second.
    pub bandwidth: Option<u64>,
    /// What a claim of the model needs, in bytes a second.
    pub floor_bandwidth: Option<u64>,
}

/// The score that a validator with this table would compute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Score {
    /// Of 100 points, in 10⁻⁹.
    pub points: Points,
    /// What is added while the machine is rented, in 10⁻⁹ points.
    pub bonus_if_rented: Points,
    /// Devices that are paid.
    pub counted: usize,
    /// Devices of one machine that are paid at most.
    pub max_devices: usize,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// Whether every device would pass, and nothing would keep the miner from answering: no line is a failure.
    pub passes: bool,
    /// Whether rounds were left out, so that rates are less exact.
    pub quick: bool,
    /// What was looked at, in this order.
    pub lines: Vec<Line>,
    /// The devices, in the order offered.
    pub devices: Vec<Device>,
    /// None where no device was proved.
    pub score: Option<Score>,
}

impl Report {
    /// A report of these lines, without devices.
    pub(super) fn of(lines: Vec<Line>, quick: bool) -> Self {
        let mut report = Report { passes: false, quick, lines, devices: Vec::new(), score: None };
        report.conclude();
        report
    }

    /// Says whether it passes, by its lines.
    pub(super) fn conclude(&mut self) {
        self.passes = self.lines.iter().all(|line| line.status != Status::Fail);
    }

    fn count(&self, status: Status) -> usize {
        self.lines.iter().filter(|line| line.status == status).count()
    }

    /// As people read it.
    pub(super) fn text(&self) -> String {
        let mut out = table(&self.lines);
        out.push('\n');
        if self.quick {
            out.push_str(
                "--quick: one round and few scans for each device; its rates are lower than those of whole proofs\n",
            );
        }
        if let Some(score) = &self.score {
            let _ = writeln!(
                out,
                "score {} of 100, {} more while it is rented; {} of at most {} devices paid",
                score.points, score.bonus_if_rented, score.counted, score.max_devices
            );
        }
        let _ = match (self.count(Status::Fail), self.count(Status::Warn)) {
            (0, 0) => writeln!(out, "would pass"),
            (0, warnings) => writeln!(out, "would pass; warnings: {warnings}"),
            (fails, _) => writeln!(out, "would NOT pass; lines that cost: {fails}"),
        };
        out
    }
}

/// Nanoseconds as people read them.
pub(super) fn seconds(ns: u64) -> String {
    format!("{} s", decimal(ns.into(), 9, 3))
}
