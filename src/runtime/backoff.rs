//! How long to wait before the next incarnation, and when to give up. Pure: `now` and the random number come in.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The restart policy of a node's actors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure in a window; doubles with each further one.
    pub first: Duration,
    /// Longest delay.
    pub cap: Duration,
    /// Failures within `window` that are still followed by a restart; one more escalates.
    pub max_failures: usize,
    /// Sliding window in which failures count.
    pub window: Duration,
}

impl Default for Backoff {
    /// 100 ms doubling to 30 s; the ninth failure within 5 minutes escalates.
    fn default() -> Self {
        Backoff {
            first: Duration::from_millis(100),
            cap: Duration::from_secs(30),
            max_failures: 8,
            window: Duration::from_secs(300),
        }
    }
}

impl Backoff {
    /// The delay after the `nth` failure of a window (1 is the first): `min(first · 2^(nth-1), cap)`, shortened by
    /// up to `jitter` of itself. `jitter` and `random` are in 0..=1; the result is in
    /// `[base · (1 - jitter), base]`, so the cap holds.
    pub fn delay(&self, nth: usize, jitter: f64, random: f64) -> Duration {
        let doublings = nth.saturating_sub(1).min(31) as u32;
        let base = self.first.saturating_mul(1 << doublings).min(self.cap);
        let keep = 1.0 - jitter.clamp(0.0, 1.0) * random.clamp(0.0, 1.0);
        Duration::try_from_secs_f64(base.as_secs_f64() * keep).map_or(base, |d| d.min(base))
    }
}

/// The failures of one actor that still count.
#[derive(Debug, Default)]
pub(crate) struct Failures(VecDeque<Instant>);

impl Failures {
    /// Notes a failure at `now` and forgets those that left the window. `Some(n)`: it is the `n`th, restart after
    /// [`Backoff::delay`]; `None`: too many, give up.
    pub(crate) fn note(&mut self, now: Instant, policy: &Backoff) -> Option<usize> {
        self.0.push_back(now);
        while self.0.front().is_some_and(|t| now.saturating_duration_since(*t) > policy.window) {
            self.0.pop_front();
        }
        (self.0.len() <= policy.max_failures).then_some(self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;
    fn policy() -> Backoff {
        Backoff { first: S(1), cap: S(60), max_failures: 3, window: S(100) }
    }

    #[test]
    fn delays_double_up_to_the_cap_and_never_overflow() {
        let delays: Vec<u64> = (1..=8).map(|n| policy().delay(n, 0.0, 0.7).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(policy().delay(usize::MAX, 0.0, 0.0), S(60));
        let huge = Backoff { first: Duration::MAX, cap: Duration::MAX, ..policy() };
        assert!(huge.delay(9, 0.0, 0.0) >= S(60));
    }

    #[test]
    fn jitter_only_shortens_and_by_no_more_than_its_share() {
        for n in 1..=8 {
            let base = policy().delay(n, 0.0, 0.0);
            for step in 0..=10 {
                let d = policy().delay(n, 0.3, f64::from(step) / 10.0);
                assert!(d <= base && d >= base.mul_f64(0.699), "failure {n}: {d:?} of {base:?}");
            }
            assert!(policy().delay(n, 0.3, 1.0) < policy().delay(n, 0.3, 0.0));
        }
        assert_eq!(policy().delay(1, 7.0, 3.0), Duration::ZERO, "wild inputs are clamped");
    }

    #[test]
    fn failures_outside_the_window_are_forgiven() {
        let (mut failures, t0) = (Failures::default(), Instant::now());
        let seen: Vec<_> = [0, 1, 2, 3].map(|s| failures.note(t0 + S(s), &policy())).into();
        assert_eq!(seen, [Some(1), Some(2), Some(3), None]);
        assert_eq!(failures.note(t0 + S(200), &policy()), Some(1));
    }
}
