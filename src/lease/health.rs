//! When a lease counts as lost: K misses in the last N rounds, each seen from both vantage points.
//!
//! One vantage point is the miner's engine, the other the renting validator's own TCP and SSH-banner probe. A round in
//! which either still sees the container is no miss, and a round in which we could not look says nothing. A paused
//! container answers no probe and is not gone. The miner itself has only its engine, which is the truth there.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::engine::ContainerState;

/// How many misses end a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthPolicy {
    /// Misses that end it (K), at least 1.
    pub misses: u8,
    /// Among so many last rounds (N), at least K.
    pub rounds: u8,
}

impl Default for HealthPolicy {
    /// 5 of 8: with a round a minute, a reboot of the host is survived.
    fn default() -> Self {
        HealthPolicy { misses: 5, rounds: 8 }
    }
}

/// What the miner's engine shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineView {
    /// The container runs.
    Running,
    /// It is paused.
    Paused,
    /// It is there but ended.
    Exited,
    /// It is not there.
    Gone,
    /// The miner did not answer.
    Unreachable,
    /// We could not ask (our own fault, or the engine is down): says nothing.
    NotSeen,
}

impl From<Option<ContainerState>> for EngineView {
    fn from(state: Option<ContainerState>) -> Self {
        match state {
            None => EngineView::Gone,
            Some(ContainerState::Running) => EngineView::Running,
            Some(ContainerState::Paused) => EngineView::Paused,
            Some(ContainerState::Exited) => EngineView::Exited,
        }
    }
}

/// What the validator's own probe of the endpoint shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeView {
    /// The SSH server answered.
    Answered,
    /// It did not.
    NoAnswer,
    /// We could not probe (our own fault): says nothing.
    NotSeen,
    /// There is no second vantage point: the miner's own records, and engines whose endpoints are not real.
    NotApplicable,
}

/// One round, seen from both vantage points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// The miner's engine.
    pub engine: EngineView,
    /// The validator's own probe.
    pub probe: ProbeView,
}

/// What the rounds so far say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseHealth {
    /// Seen in the last round.
    Healthy,
    /// Paused in the last round.
    Paused,
    /// Missed lately, or the vantage points disagree.
    Suspect,
    /// K of N rounds missed: the lease is lost.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Seen,
    Paused,
    Disagree,
    Miss,
}

impl Observation {
    /// What a miner's own engine shows of its lease.
    pub fn local(engine: EngineView) -> Self {
        Observation { engine, probe: ProbeView::NotApplicable }
    }

    fn round(self) -> Option<Round> {
        use EngineView as E;
        use ProbeView as P;
        match (self.engine, self.probe) {
            (_, P::NotSeen) | (E::NotSeen, _) => None,
            (E::Paused, _) => Some(Round::Paused),
            (E::Running, P::Answered | P::NotApplicable) => Some(Round::Seen),
            (E::Exited | E::Gone | E::Unreachable, P::NoAnswer) => Some(Round::Miss),
            (E::Exited | E::Gone, P::NotApplicable) => Some(Round::Miss),
            // Unreachable alone may be the network: a lease is not lost on one vantage point.
            (E::Unreachable, P::NotApplicable) => None,
            (E::Running, P::NoAnswer) | (E::Exited | E::Gone | E::Unreachable, P::Answered) => Some(Round::Disagree),
        }
    }
}

/// The last rounds of one lease.
#[derive(Debug, Clone, Default)]
pub struct Health {
    rounds: VecDeque<Round>,
}

impl Health {
    /// Takes a round in and says how the lease is. A round that says nothing leaves the answer as it was.
    pub fn observe(&mut self, policy: HealthPolicy, seen: Observation) -> LeaseHealth {
        if let Some(round) = seen.round() {
            self.rounds.push_back(round);
        }
        while self.rounds.len() > usize::from(policy.rounds.max(policy.misses).max(1)) {
            self.rounds.pop_front();
        }
        self.verdict(policy)
    }

    /// How the lease is by the rounds so far. A lease of which nothing was seen yet counts as healthy.
    pub fn verdict(&self, policy: HealthPolicy) -> LeaseHealth {
        match self.rounds.back() {
            None | Some(Round::Seen) => LeaseHealth::Healthy,
            Some(Round::Paused) => LeaseHealth::Paused,
            Some(Round::Miss) if self.misses() >= usize::from(policy.misses.max(1)) => LeaseHealth::Gone,
            Some(Round::Miss | Round::Disagree) => LeaseHealth::Suspect,
        }
    }

    /// Misses among the rounds kept.
    pub fn misses(&self) -> usize {
        self.rounds.iter().filter(|r| **r == Round::Miss).count()
    }
}
