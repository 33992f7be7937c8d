//! When a lease counts as lost: K misses in the last N rounds, each seen from both vantage points.
//!
//! One vantage point is the miner's engine, the other the renting validator's own TCP and SSH-banner probe. A round in
//! which either still sees the container is no miss, and a round in which we could not look says nothing. A container that
//! its renter had paused answers no probe and is not gone; that it is paused counts only where the renter wished so
//! ([`Observation::of_renter`]). The miner itself has only its engine, which is the truth there.

use std::collections::{BTreeMap, VecDeque};

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
    /// The miner did not answer, or would not say: its refusal is an answer that shows no container.
    Unreachable,
    /// We could not ask (our own fault; of one's own engine, that it is down): says nothing.
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
    /// It did not: silence, a closed port, or word from the far side's network that there is no way.
    NoAnswer,
    /// We could not probe (our own fault, seen on this machine): says nothing.
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
    /// Seen in the last round, running or paused as its renter wished.
    Healthy,
    /// Missed lately, or the vantage points disagree.
    Suspect,
    /// K of N rounds missed: the lease is lost.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    Seen,
    Disagree,
    Miss,
}

impl Observation {
    /// What a miner's own engine shows of its lease.
    pub fn local(engine: EngineView) -> Self {
        Observation { engine, probe: ProbeView::NotApplicable }
    }

    /// What a renter saw of its lease, which it wished to be paused or not. The miner alone says that a container is paused,
    /// and is paid meanwhile: where nobody wished it the probe decides whether the container is there to be used.
    pub fn of_renter(engine: EngineView, probe: ProbeView, wished_paused: bool) -> Self {
        let engine = match (engine, probe) {
            (EngineView::Paused, _) if wished_paused => EngineView::Paused,
            (EngineView::Paused, ProbeView::Answered) => EngineView::Running,
            (EngineView::Paused, _) => EngineView::Exited,
            (told, _) => told,
        };
        Observation { engine, probe }
    }

    fn round(self) -> Option<Round> {
        use EngineView as E;
        use ProbeView as P;
        match (self.engine, self.probe) {
            (_, P::NotSeen) | (E::NotSeen, _) => None,
            (E::Paused, _) | (E::Running, P::Answered | P::NotApplicable) => Some(Round::Seen),
            (E::Exited | E::Gone | E::Unreachable, P::NoAnswer) => Some(Round::Miss),
            (E::Exited | E::Gone, P::NotApplicable) => Some(Round::Miss),
            // Unreachable alone may be the network: a lease is not lost on one vantage point.
            (E::Unreachable, P::NotApplicable) => None,
            (E::Running, P::NoAnswer) | (E::Exited | E::Gone | E::Unreachable, P::Answered) => Some(Round::Disagree),
        }
    }
}

/// Miners whose endpoints must have been probed in a round before it can be told whose outage it is.
const OUTAGE_MINERS: usize = 3;
/// Rounds in a row that are put down to our own outage at most: those after them count.
const OUTAGE_ROUNDS: u32 = 60;

/// Tells our own outages from the miners': when most of several miners' endpoints do not answer in one round, it is our
/// side that is cut off, and what did not answer says nothing.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    rounds: u32,
}

impl Outage {
    /// Takes a round in, each lease with its miner, and makes what says nothing say so. Returns whether the round is put
    /// down to our own outage.
    pub fn sift<M: Ord + Copy>(&mut self, seen: &mut [(M, Observation)]) -> bool {
        let mut answered: BTreeMap<M, bool> = BTreeMap::new();
        for (miner, seen) in seen.iter() {
            match seen.probe {
                ProbeView::Answered => drop(answered.insert(*miner, true)),
                ProbeView::NoAnswer => drop(answered.entry(*miner).or_insert(false)),
                ProbeView::NotSeen | ProbeView::NotApplicable => {}
            }
        }
        let silent = answered.values().filter(|answered| !**answered).count();
        if answered.len() < OUTAGE_MINERS || 2 * silent <= answered.len() {
            self.rounds = 0;
            return false;
        }
        self.rounds = self.rounds.saturating_add(1);
        if self.rounds > OUTAGE_ROUNDS {
            return false;
        }
        unseen(seen);
        true
    }
}

/// Makes ports that did not answer such as were not looked at: it was our own network that was away.
pub fn unseen<M>(seen: &mut [(M, Observation)]) {
    for (_, seen) in seen.iter_mut().filter(|(_, seen)| seen.probe == ProbeView::NoAnswer) {
        seen.probe = ProbeView::NotSeen;
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
            Some(Round::Miss) if self.misses() >= usize::from(policy.misses.max(1)) => LeaseHealth::Gone,
            Some(Round::Miss | Round::Disagree) => LeaseHealth::Suspect,
        }
    }

    /// Misses among the rounds kept.
    pub fn misses(&self) -> usize {
        self.rounds.iter().filter(|r| **r == Round::Miss).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(engine: EngineView, probe: ProbeView) -> Observation {
        Observation { engine, probe }
    }

    fn probes(answers: &[(u8, bool)]) -> Vec<(u8, Observation)> {
        let of = |answered| if answered { ProbeView::Answered } else { ProbeView::NoAnswer };
        answers.iter().map(|(miner, answered)| (*miner, seen(EngineView::Unreachable, of(*answered)))).collect()
    }

    #[test]
    fn a_lease_is_lost_only_by_misses_of_both_vantage_points() {
        use {EngineView as E, ProbeView as P};
        let after = |rounds: &[Observation]| {
            let mut health = Health::default();
            let policy = HealthPolicy { misses: 3, rounds: 4 };
            rounds.iter().fold(LeaseHealth::Healthy, |_, seen| health.observe(policy, *seen))
        };
        let miss = seen(E::Unreachable, P::NoAnswer);
        assert_eq!(after(&[miss, miss, miss]), LeaseHealth::Gone);
        assert_eq!(after(&[seen(E::Unreachable, P::Answered); 9]), LeaseHealth::Suspect, "the miner's node is down");
        assert_eq!(after(&[seen(E::Running, P::NoAnswer); 9]), LeaseHealth::Suspect, "the way to the port is cut");
        assert_eq!(after(&[seen(E::Paused, P::NoAnswer); 9]), LeaseHealth::Healthy, "paused is not gone");
        assert_eq!(after(&[seen(E::Unreachable, P::NotSeen); 9]), LeaseHealth::Healthy, "we could not look");
        assert_eq!(after(&[miss, miss, seen(E::Running, P::Answered)]), LeaseHealth::Healthy);
    }

    #[test]
    fn that_a_container_is_paused_is_believed_only_where_its_renter_wished_it() {
        use {EngineView as E, ProbeView as P};
        for probe in [P::Answered, P::NoAnswer, P::NotSeen, P::NotApplicable] {
            assert_eq!(Observation::of_renter(E::Paused, probe, true), seen(E::Paused, probe));
            for told in [E::Running, E::Exited, E::Gone, E::Unreachable, E::NotSeen] {
                assert_eq!(Observation::of_renter(told, probe, false), seen(told, probe));
            }
        }
        assert_eq!(Observation::of_renter(E::Paused, P::Answered, false).engine, E::Running);
        let policy = HealthPolicy { misses: 3, rounds: 4 };
        for silent in [P::NoAnswer, P::NotApplicable] {
            let mut health = Health::default();
            let told = Observation::of_renter(E::Paused, silent, false);
            let last = (0..3).map(|_| health.observe(policy, told)).last();
            assert_eq!(last, Some(LeaseHealth::Gone), "{silent:?}");
        }
        let mut health = Health::default();
        let unseen = Observation::of_renter(E::Paused, P::NotSeen, false);
        assert!((0..9).all(|_| health.observe(policy, unseen) == LeaseHealth::Healthy), "we could not look");
    }

    #[test]
    fn silence_of_most_miners_at_once_is_our_own_outage_and_says_nothing() {
        let mut outage = Outage::default();
        let mut most = probes(&[(1, false), (2, false), (3, true)]);
        assert!(outage.sift(&mut most));
        let views: Vec<ProbeView> = most.iter().map(|(_, seen)| seen.probe).collect();
        assert_eq!(views, [ProbeView::NotSeen, ProbeView::NotSeen, ProbeView::Answered]);
        for few in [
            &[(1, false), (2, true), (3, true)][..],
            &[(1, false), (2, false), (3, true), (4, true)],
            &[(1, false), (2, false)],
            &[(1, false), (1, false), (1, false), (2, true), (3, true)],
            &[],
        ] {
            let before = probes(few);
            let mut after = before.clone();
            assert!(!outage.sift(&mut after), "{few:?}");
            assert_eq!(after, before);
        }
    }

    #[test]
    fn an_outage_that_never_ends_is_the_miners_after_all() {
        let mut outage = Outage::default();
        let mut rounds = || outage.sift(&mut probes(&[(1, false), (2, false), (3, false)]));
        assert!((0..OUTAGE_ROUNDS).all(|_| rounds()));
        assert!(!rounds() && !rounds());
        assert!(!outage.sift(&mut probes(&[(1, true), (2, true), (3, true)])));
        assert!(outage.sift(&mut probes(&[(1, false), (2, false), (3, false)])), "a new one");
    }
}
