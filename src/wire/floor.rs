//! The least nonce that a table of nonces admits, also when the wall clock jumps.
//!
//! A table forgets what is stale, and must never admit again what it forgot: its floor rises with everything forgotten.
//! When the clock is set back, the floor would refuse everybody until the clock has caught up; so it comes down with
//! the clock, and the last window below where it was stays barred: whoever kept a request cannot have it admitted again
//! by a clock that jumps back and forth.
//!
//! What remains: after a clock was set back for longer than a window, a request that was signed in what had become the future
//! and was admitted before the jump could be admitted once more when that time comes, if it is older than the barred window.
//! Its sender's clock must have been wrong by as much as ours.

use std::time::Duration;

/// Barred windows that are kept; with more jumps than that the widest span of them is barred as a whole.
const MAX_BARRED: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Floor {
    least: u64,
    /// First and last nonce of each window that stays refused.
    barred: Vec<(u64, u64)>,
}

impl Floor {
    /// Refuses nonces below `least`.
    pub(super) fn at(least: u64) -> Self {
        Floor { least, barred: Vec::new() }
    }

    /// Whether this nonce may have been forgotten.
    pub(super) fn refuses(&self, nonce: u64) -> bool {
        nonce < self.least || self.barred.iter().any(|(first, last)| (*first..=*last).contains(&nonce))
    }

    /// This nonce is forgotten now.
    pub(super) fn forgot(&mut self, nonce: u64) {
        self.least = self.least.max(nonce.saturating_add(1));
    }

    /// Follows a clock that was set back. `ahead` is how far nonces may lie in its future, `window` how long one is fresh
    /// at most.
    pub(super) fn follow(&mut self, now_ns: u64, ahead: Duration, window: Duration) {
        let window = window.as_nanos() as u64;
        let oldest = now_ns.saturating_sub(window);
        self.barred.retain(|(_, last)| *last >= oldest);
        let ahead = now_ns.saturating_add(ahead.as_nanos() as u64);
        if self.least <= ahead {
            return;
        }
        let last = self.least - 1;
        self.barred.push((last.saturating_sub(window), last));
        self.least = ahead;
        if self.barred.len() > MAX_BARRED {
            let first = self.barred.iter().map(|(first, _)| *first).min().unwrap_or(last);
            let last = self.barred.iter().map(|(_, last)| *last).max().unwrap_or(last);
            self.barred = vec![(first, last)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const SECOND: u64 = 1_000_000_000;
    const HOUR: u64 = 3_600 * SECOND;
    const T: u64 = 1_000_000 * SECOND;

    #[test]
    fn what_was_forgotten_stays_refused_while_the_clock_jumps_back_and_forth() {
        let mut floor = Floor::at(T - 100 * SECOND);
        floor.forgot(T);
        assert!(floor.refuses(T) && !floor.refuses(T + 1));
        floor.follow(T - HOUR, 10 * S, 64 * S);
        assert!(!floor.refuses(T - HOUR + 10 * SECOND), "callers are served by the clock there is");
        assert!(floor.refuses(T), "and what was forgotten is not");
        floor.follow(T, 10 * S, 64 * S);
        assert!(floor.refuses(T) && floor.refuses(T - 64 * SECOND));
        assert!(!floor.refuses(T + 1));
        floor.follow(T + 65 * SECOND, 10 * S, 64 * S);
        assert!(floor.barred.is_empty(), "nothing is kept that freshness refuses");
    }

    #[test]
    fn any_number_of_jumps_is_remembered_in_a_few_windows() {
        let mut floor = Floor::at(0);
        for jump in 0..100 {
            floor.forgot(T - jump * HOUR);
            floor.follow(T - (jump + 1) * HOUR, 10 * S, 64 * S);
            assert!(floor.barred.len() <= MAX_BARRED);
            assert!((0..=jump).all(|j| floor.refuses(T - j * HOUR)));
        }
    }
}
