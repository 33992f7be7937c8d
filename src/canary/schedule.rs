//! Whose turn it is, and what is asked for so that it looks like a tenant's wish. Pure.

use std::time::Duration;

use rand::Rng;
use rand::seq::{IndexedRandom as _, index};

use crate::clock::millis;
use crate::ids::Hotkey;

/// How often miners are rented for a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rhythm {
    /// Time between two canaries of a miner; zero for none at all.
    pub interval: Duration,
    /// Time until a miner whose last canary did not pass has another.
    pub retry: Duration,
    /// The most canaries that are begun in one epoch.
    pub per_epoch: u32,
}

/// A miner with devices that could be rented now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The miner.
    pub miner: Hotkey,
    /// When its last canary began, in milliseconds since the Unix epoch, and whether it passed.
    pub last: Option<(u64, bool)>,
}

/// The miner that has waited longest beyond its time, if one is due and the epoch has room for it. One that never had a
/// canary is due at once, before all others; among equals the order of the hotkeys decides.
pub fn next(rhythm: &Rhythm, begun: u32, now_ms: u64, candidates: &[Candidate]) -> Option<Hotkey> {
    if rhythm.interval.is_zero() || begun >= rhythm.per_epoch {
        return None;
    }
    let due_ms = |candidate: &Candidate| match candidate.last {
        None => 0,
        Some((at_ms, passed)) => {
            let wait = if passed { rhythm.interval } else { rhythm.retry.min(rhythm.interval) };
            at_ms.saturating_add(millis(wait))
        }
    };
    let due = candidates.iter().map(|c| (due_ms(c), c.miner)).filter(|(due, _)| *due <= now_ms);
    due.min().map(|(_, miner)| miner)
}

/// What tenants rent for, in hours: mostly what `compute-register allocate` takes without being told, else round numbers.
const HOURS: [u64; 12] = [1, 1, 1, 1, 2, 2, 3, 4, 6, 8, 12, 24];

/// How long a canary's lease lasts, should nobody release it: as long as some tenant's, at least `least`, at most `longest`. A
/// canary takes minutes; a lease of just those minutes would tell its miner what it is.
pub fn lasts(random: &mut impl Rng, least: Duration, longest: Duration) -> Duration {
    let hours = HOURS.map(|hours| Duration::from_secs(hours * 3_600));
    let usual: Vec<Duration> = hours.into_iter().filter(|lasts| *lasts >= least && *lasts <= longest).collect();
    usual.choose(random).copied().unwrap_or_else(|| least.max(longest.min(hours[0])))
}

/// Which of so many free devices are rented, in order: half of the time all of them, else any number, as tenants do.
pub fn some(random: &mut impl Rng, devices: usize) -> Vec<usize> {
    let count = if devices < 2 || random.random_bool(0.5) { devices } else { random.random_range(1..devices) };
    let mut chosen = index::sample(random, devices, count).into_vec();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng as _;

    use super::*;

    const RHYTHM: Rhythm =
        Rhythm { interval: Duration::from_secs(1_000), retry: Duration::from_secs(10), per_epoch: 2 };

    fn of(miner: u8, last: Option<(u64, bool)>) -> Candidate {
        Candidate { miner: Hotkey([miner; 32]), last }
    }
    fn at(second: u64, begun: u32, candidates: &[Candidate]) -> Option<u8> {
        next(&RHYTHM, begun, second * 1_000, candidates).map(|miner| miner.0[0])
    }

    #[test]
    fn who_never_had_one_comes_first_then_who_is_longest_overdue() {
        let candidates = [of(1, Some((0, true))), of(2, Some((5_000, true))), of(3, None)];
        assert_eq!(at(2_000, 0, &candidates), Some(3));
        assert_eq!(at(2_000, 0, &candidates[..2]), Some(1));
        assert_eq!(at(1_000, 0, &candidates[1..2]), None, "it was 995 s ago");
        assert_eq!(at(1_005, 0, &candidates[1..2]), Some(2));
    }

    #[test]
    fn who_did_not_pass_has_another_soon_and_never_later_than_who_did() {
        assert_eq!(at(10, 0, &[of(1, Some((0, false)))]), Some(1));
        assert_eq!(at(9, 0, &[of(1, Some((0, false)))]), None);
        let slow = Rhythm { retry: Duration::from_secs(9_999), ..RHYTHM };
        assert!(next(&slow, 0, 1_000_000, &[of(1, Some((0, false)))]).is_some());
    }

    #[test]
    fn a_canary_lasts_as_long_as_tenants_leases_do_and_never_shorter_than_it_takes() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let hours = |n: u64| Duration::from_secs(n * 3_600);
        let (least, longest) = (hours(1) + Duration::from_secs(1), hours(8));
        let seen: BTreeSet<Duration> = (0..500).map(|_| lasts(&mut random, least, longest)).collect();
        assert_eq!(seen, [2, 3, 4, 6, 8].map(hours).into());
        // Rentals may be too short for any of them.
        let minutes = |n: u64| Duration::from_secs(n * 60);
        assert_eq!(lasts(&mut random, minutes(7), minutes(30)), minutes(30));
        assert_eq!(lasts(&mut random, minutes(40), minutes(30)), minutes(40));
        assert_eq!(lasts(&mut random, hours(30), hours(100)), hours(30));
    }

    #[test]
    fn some_devices_are_rented_each_once_and_each_in_the_end() {
        let mut random = rand::rngs::StdRng::seed_from_u64(2);
        assert_eq!((some(&mut random, 0), some(&mut random, 1)), (vec![], vec![0]));
        let many: Vec<Vec<usize>> = (0..300).map(|_| some(&mut random, 8)).collect();
        assert!(many.iter().all(|chosen| !chosen.is_empty() && chosen.is_sorted_by(|a, b| a < b)));
        let sizes: BTreeSet<usize> = many.iter().map(Vec::len).collect();
        assert_eq!(sizes, (1..=8).collect());
        let all = many.iter().filter(|chosen| chosen.len() == 8).count();
        assert!((100..200).contains(&all), "{all}");
        assert!((0..8).all(|device| many.iter().any(|chosen| chosen.len() < 8 && chosen.contains(&device))));
    }

    #[test]
    fn no_more_are_begun_than_an_epoch_has_room_for_and_none_where_they_are_off() {
        assert_eq!((at(1, 1, &[of(1, None)]), at(1, 2, &[of(1, None)])), (Some(1), None));
        let off = Rhythm { interval: Duration::ZERO, ..RHYTHM };
        assert_eq!(next(&off, 0, u64::MAX, &[of(1, None)]), None);
    }
}
