//! The course of one canary: `allocate → login → upload → run → verify → release`. Pure.
//!
//! Whatever fails, the last stage is the release: there is no way to the end but through it. The first failure is what the
//! canary came to; that a release failed is told beside it, for it says nothing of the rented path.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::prove::Proved;
use super::reason::{Fault, Reason};
use crate::ids::DeviceId;
use crate::verdict::Side;

/// A stage of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Rent the devices.
    Allocate,
    /// Log in over SSH.
    Login,
    /// Upload the prover.
    Upload,
    /// Run it: from its start to the roots of every device.
    Run,
    /// Draw positions, read the openings, check them.
    Verify,
    /// Give the devices back.
    Release,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 6] =
        [Stage::Allocate, Stage::Login, Stage::Upload, Stage::Run, Stage::Verify, Stage::Release];
    /// The metric label: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            Stage::Allocate => "allocate",
            Stage::Login => "login",
            Stage::Upload => "upload",
            Stage::Run => "run",
            Stage::Verify => "verify",
            Stage::Release => "release",
        }
    }
    fn next(self) -> Option<Stage> {
        match self {
            Stage::Allocate => Some(Stage::Login),
            Stage::Login => Some(Stage::Upload),
            Stage::Upload => Some(Stage::Run),
            Stage::Run => Some(Stage::Verify),
            Stage::Verify => Some(Stage::Release),
            Stage::Release => None,
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.label())
    }
}

/// What a canary came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "result")]
pub enum Outcome {
    /// A tenant gets what the miner proves.
    Pass,
    /// A tenant does not, and it is not the validator's doing.
    Fail {
        /// Where it ended.
        stage: Stage,
        /// Why.
        reason: Reason,
        /// What was seen, printable.
        detail: String,
    },
    /// Nothing can be said of the miner.
    Unknown {
        /// Where it ended.
        stage: Stage,
        /// Why.
        reason: Reason,
        /// What was seen, printable.
        detail: String,
    },
}

impl Outcome {
    /// What a failure at a stage is: the miner's or nobody's. That a rental is refused, or not answered, says nothing: somebody
    /// else may have rented the devices since they were proved, and our own network may be away.
    pub fn failed(stage: Stage, Fault { reason, detail }: Fault) -> Self {
        let miners = match stage {
            Stage::Allocate => matches!(reason, Reason::NoHostKey | Reason::NoLogin),
            _ => reason.side() == Side::Miner,
        };
        match miners {
            true => Outcome::Fail { stage, reason, detail },
            false => Outcome::Unknown { stage, reason, detail },
        }
    }
    /// `pass`, `fail` or `unknown`: the metric label.
    pub fn label(&self) -> &'static str {
        match self {
            Outcome::Pass => "pass",
            Outcome::Fail { .. } => "fail",
            Outcome::Unknown { .. } => "unknown",
        }
    }
    /// Where it ended; the release for a pass.
    pub fn stage(&self) -> Stage {
        match self {
            Outcome::Pass => Stage::Release,
            Outcome::Fail { stage, .. } | Outcome::Unknown { stage, .. } => *stage,
        }
    }
    /// Why, if it did not pass.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Outcome::Pass => None,
            Outcome::Fail { reason, .. } | Outcome::Unknown { reason, .. } => Some(*reason),
        }
    }
}

/// How long a stage took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageTime {
    /// The stage.
    pub stage: Stage,
    /// How long, in milliseconds.
    pub took_ms: u64,
}

/// What is known of a canary that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What it came to.
    pub outcome: Outcome,
    /// The devices that were rented.
    pub devices: Vec<DeviceId>,
    /// What each device proved, of those whose proof was right.
    pub proved: Vec<Proved>,
    /// The devices whose proof was wrong, too slow, or that cannot be used in the container.
    pub failed: Vec<DeviceId>,
    /// The stages it went through, in order.
    pub stages: Vec<StageTime>,
    /// Whether the SSH server's key was the one that the miner had told before the login.
    pub host_key_pinned: bool,
    /// Why what was rented is perhaps not given back, if so. It is asked for again until it is.
    pub unreleased: Option<Fault>,
}

/// A canary on its course.
#[derive(Debug, Clone)]
pub struct Course {
    at: Option<Stage>,
    outcome: Outcome,
    stages: Vec<StageTime>,
    unreleased: Option<Fault>,
}

impl Default for Course {
    fn default() -> Self {
        Course { at: Some(Stage::Allocate), outcome: Outcome::Pass, stages: Vec::new(), unreleased: None }
    }
}

impl Course {
    /// The stage that is to be done now; `None` at the end.
    pub fn stage(&self) -> Option<Stage> {
        self.at
    }

    /// Takes in what the present stage came to, after this long. After the end nothing changes any more.
    pub fn ended(&mut self, result: Result<(), Fault>, took: Duration) {
        let Some(stage) = self.at else { return };
        self.stages.push(StageTime { stage, took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) });
        self.at = match result {
            Ok(()) => stage.next(),
            Err(fault) if stage == Stage::Release => {
                self.unreleased = Some(fault);
                None
            }
            Err(fault) => {
                self.outcome = Outcome::failed(stage, fault);
                Some(Stage::Release)
            }
        };
    }

    /// What it came to; `proved` and `failed` are the devices' own results.
    pub fn report(
        self,
        devices: Vec<DeviceId>,
        proved: Vec<Proved>,
        failed: Vec<DeviceId>,
        host_key_pinned: bool,
    ) -> Report {
        let Course { outcome, stages, unreleased, .. } = self;
        Report { outcome, devices, proved, failed, stages, host_key_pinned, unreleased }
    }
}
