//! What earlier rentals at a miner came to: trouble in points, which halve with every half-life.
//!
//! A record chooses among miners that fit and keeps none away: who has the only machine that fits is asked, whatever its
//! record. It pays nobody and fails nobody; verdicts and penalties are [`crate::scoring`]'s.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::ids::Hotkey;
use crate::lease::{EndReason, Lease, LeaseState};

/// The most miners of whom anything is remembered: several subnets of them.
const MAX_MINERS: usize = 4_096;
/// Half-lives after which nothing is left.
const FORGOTTEN: u64 = 32;

/// What one rental came to, as far as it tells of its miner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ran until it was returned or its time was over.
    Completed,
    /// The miner refused it.
    Refused,
    /// The miner could not be reached.
    Unreachable,
    /// The miner took the request and did not say what became of it.
    NoAnswer,
    /// It was lost, or ended early without its renter's doing.
    Broken,
    /// A proof showed that the hardware had been changed.
    HardwareChanged,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: &'static [Outcome] = &[
        Outcome::Completed,
        Outcome::Refused,
        Outcome::Unreachable,
        Outcome::NoAnswer,
        Outcome::Broken,
        Outcome::HardwareChanged,
    ];

    /// The metric label: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            Outcome::Completed => "completed",
            Outcome::Refused => "refused",
            Outcome::Unreachable => "unreachable",
            Outcome::NoAnswer => "no_answer",
            Outcome::Broken => "broken",
            Outcome::HardwareChanged => "hardware_changed",
        }
    }

    /// Points of trouble, in thousandths.
    fn trouble(self) -> u64 {
        match self {
            Outcome::Completed => 0,
            Outcome::Refused => 1_000,
            Outcome::Unreachable | Outcome::NoAnswer => 2_000,
            Outcome::Broken => 4_000,
            Outcome::HardwareChanged => 16_000,
        }
    }

    /// What a lease of the renter's side came to; `None` while it has not ended, and where its end tells nothing of the
    /// miner.
    pub fn of(lease: &Lease) -> Option<Outcome> {
        match (lease.state, lease.end) {
            (LeaseState::Released | LeaseState::Lost, Some(EndReason::HardwareChanged)) => {
                Some(Outcome::HardwareChanged)
            }
            (LeaseState::Released, Some(EndReason::PeerRefused))
            | (LeaseState::Refused, Some(EndReason::PeerRefused)) => Some(Outcome::Refused),
            (LeaseState::Released | LeaseState::Lost, Some(EndReason::CreateUnclear)) => Some(Outcome::NoAnswer),
            // Not there for its renter, or returned and never confirmed by the miner.
            (LeaseState::Released, Some(EndReason::Unhealthy)) | (LeaseState::Lost, _) => Some(Outcome::Broken),
            (LeaseState::Released, Some(EndReason::Returned | EndReason::Expired)) => Some(Outcome::Completed),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Trouble {
    /// In thousandths of a point, as of `at_ms`.
    points: u64,
    at_ms: u64,
}

impl Trouble {
    fn at(self, now_ms: u64, half_life: Duration) -> u64 {
        let half = millis(half_life).max(1);
        let gone = now_ms.saturating_sub(self.at_ms);
        let (halvings, rest) = (gone / half, gone % half);
        if halvings >= FORGOTTEN {
            return 0;
        }
        // Between two halvings along a straight line: whole numbers, the same on every machine.
        let (points, rest, half) = (u128::from(self.points >> halvings), u128::from(rest), u128::from(half));
        u64::try_from(points - points * rest / half / 2).unwrap_or(u64::MAX)
    }
}

/// The record of every miner that had trouble lately.
#[derive(Debug, Clone, Default)]
pub struct Record {
    miners: HashMap<Hotkey, Trouble>,
}

impl Record {
    /// Takes an outcome in, which is `at_ms` old or new; older ones may follow newer ones.
    pub fn take(&mut self, miner: Hotkey, outcome: Outcome, at_ms: u64, half_life: Duration) {
        let new = Trouble { points: outcome.trouble(), at_ms };
        if new.points == 0 {
            return;
        }
        if self.miners.len() >= MAX_MINERS && !self.miners.contains_key(&miner) {
            self.miners.retain(|_, known| known.at(at_ms, half_life) > 0);
            let least = self.miners.iter().min_by_key(|(hotkey, known)| (known.at(at_ms, half_life), **hotkey));
            if self.miners.len() >= MAX_MINERS
                && let Some((least, _)) = least.map(|(hotkey, known)| (*hotkey, *known))
            {
                self.miners.remove(&least);
            }
        }
        let known = self.miners.entry(miner).or_insert(Trouble { points: 0, at_ms });
        let latest = known.at_ms.max(at_ms);
        let points = known.at(latest, half_life).saturating_add(new.at(latest, half_life));
        *known = Trouble { points, at_ms: latest };
    }

    /// The trouble with this miner now, in thousandths of a point; 0 for who never gave any.
    pub fn trouble(&self, miner: &Hotkey, now_ms: u64, half_life: Duration) -> u64 {
        self.miners.get(miner).map_or(0, |known| known.at(now_ms, half_life))
    }

    /// How many miners it knows.
    pub fn len(&self) -> usize {
        self.miners.len()
    }

    /// Whether it knows nobody.
    pub fn is_empty(&self) -> bool {
        self.miners.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const HALF: Duration = Duration::from_secs(6 * 3_600);

    fn miner(n: u64) -> Hotkey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        Hotkey(key)
    }

    #[test]
    fn trouble_halves_with_every_half_life_and_is_forgotten_in_the_end() {
        let mut record = Record::default();
        record.take(miner(1), Outcome::Broken, 0, HALF);
        let after = |hours: u64| record.trouble(&miner(1), hours * HOUR, HALF);
        assert_eq!([after(0), after(3), after(6), after(12), after(18)], [4_000, 3_000, 2_000, 1_000, 500]);
        assert_eq!(after(6 * 40), 0);
        assert_eq!(record.trouble(&miner(2), 0, HALF), 0);
        let falling: Vec<u64> = (0..200).map(after).collect();
        assert!(falling.is_sorted_by(|a, b| a >= b));
    }

    #[test]
    fn outcomes_add_up_in_any_order_of_their_times() {
        let (mut forth, mut back) = (Record::default(), Record::default());
        forth.take(miner(1), Outcome::Unreachable, 0, HALF);
        forth.take(miner(1), Outcome::Refused, 6 * HOUR, HALF);
        back.take(miner(1), Outcome::Refused, 6 * HOUR, HALF);
        back.take(miner(1), Outcome::Unreachable, 0, HALF);
        assert_eq!(forth.trouble(&miner(1), 6 * HOUR, HALF), 2_000);
        assert_eq!(back.trouble(&miner(1), 6 * HOUR, HALF), 2_000);
        back.take(miner(1), Outcome::Completed, 6 * HOUR, HALF);
        assert_eq!(back.trouble(&miner(1), 6 * HOUR, HALF), 2_000, "a good one takes nothing back: time does");
    }

    #[test]
    fn it_is_bounded_and_keeps_those_with_the_most_trouble() {
        let mut record = Record::default();
        record.take(miner(0), Outcome::HardwareChanged, 0, HALF);
        for n in 1..2 * MAX_MINERS as u64 {
            record.take(miner(n), Outcome::Refused, n, HALF);
        }
        assert_eq!(record.len(), MAX_MINERS);
        assert!(record.trouble(&miner(0), 0, HALF) > 0);
    }

    #[test]
    fn clocks_that_go_back_and_extremes_do_no_harm() {
        let mut record = Record::default();
        record.take(miner(1), Outcome::HardwareChanged, u64::MAX, Duration::ZERO);
        assert_eq!(record.trouble(&miner(1), 0, Duration::MAX), 16_000);
        for _ in 0..100 {
            record.take(miner(1), Outcome::HardwareChanged, 5, HALF);
        }
        assert!(record.trouble(&miner(1), u64::MAX, HALF) <= 101 * 16_000);
    }
}
