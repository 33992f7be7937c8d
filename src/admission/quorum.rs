//! Whether enough of a group run a version for those below it to be left out.
//!
//! Counted once for each snapshot, so that a request costs a comparison. A share at or below the threshold means that the
//! network has not moved on yet: then there is no rule about versions. Nor is there one while no least version is known
//! (0): nobody is refused because we could not learn what to ask for.

use std::collections::HashMap;

use super::policy::Policy;
use super::snapshot::Peer;
use crate::ids::Hotkey;

/// How many of a group run at least the least version. The default has no least version and so no rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quorum {
    /// The least version, in the original's whole-number form (183 for 1.8.3); 0 when none is asked for.
    pub minimal: u32,
    /// Those who run it or a later one.
    pub updated: usize,
    /// Those counted.
    pub all: usize,
}

impl Quorum {
    /// Counts the versions of a group; 0 stands for one that is not known.
    pub fn count(minimal: u32, versions: impl Iterator<Item = u32>) -> Self {
        versions.fold(Quorum { minimal, ..Quorum::default() }, |counted, version| Quorum {
            updated: counted.updated + usize::from(version >= minimal),
            all: counted.all + 1,
            ..counted
        })
    }

    /// The least version, if more than `threshold` percent (0 to 100) of the group run it.
    pub fn in_force(&self, threshold: u8) -> Option<u32> {
        (self.minimal > 0 && self.updated * 100 > usize::from(threshold) * self.all).then_some(self.minimal)
    }

    /// Of those who act as validators, by permit or by stake: the version that each announced with its metrics address.
    pub fn of_validators(policy: &Policy, peers: &HashMap<Hotkey, Peer>) -> Self {
        let validators = peers.values().filter(|p| p.permit || p.stake_rao >= policy.min_stake_rao);
        Quorum::count(policy.minimal_validator_version, validators.map(|p| p.prometheus_version))
    }

    /// Of all who serve an axon, refused or not: the version that each announced with it.
    pub fn of_miners(policy: &Policy, peers: &HashMap<Hotkey, Peer>) -> Self {
        let miners = peers.values().filter(|p| p.axon_ip().is_some());
        Quorum::count(policy.minimal_miner_version, miners.map(|p| p.axon_version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_reached_above_its_threshold_and_not_at_it() {
        let reached = |updated: usize, all: usize, threshold: u8| {
            Quorum { minimal: 183, updated, all }.in_force(threshold).is_some()
        };
        let table = [
            // (updated, all, threshold) → reached
            ((0, 0, 0), false),
            ((0, 0, 60), false),
            ((0, 5, 0), false),
            ((1, 256, 0), true),
            ((3, 5, 60), false),
            ((4, 5, 60), true),
            ((60, 100, 60), false),
            ((61, 100, 60), true),
            ((5, 5, 99), true),
            ((5, 5, 100), false),
        ];
        for ((updated, all, threshold), expected) in table {
            assert_eq!(reached(updated, all, threshold), expected, "{updated} of {all}, {threshold} %");
        }
    }

    #[test]
    fn without_a_least_version_there_is_no_rule() {
        let quorum = Quorum::count(0, [0, 183, 9].into_iter());
        assert_eq!(quorum, Quorum { minimal: 0, updated: 3, all: 3 });
        assert_eq!(quorum.in_force(0), None);
        assert_eq!(Quorum::default().in_force(0), None);
    }
}
