//! When the ended container of a live lease is started again: after a crash of the engine's daemon or a reboot of the
//! host a tenant expects its machine back. Bounded, with a growing wait: what ends at once again and again is lost.

use std::time::Duration;

use crate::clock::millis;

/// How often, and with which waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RevivalPolicy {
    /// Starts in a row before the container counts as missed.
    pub attempts: u32,
    /// Wait between the first start and the second; doubles.
    pub first_wait: Duration,
    /// The longest wait.
    pub longest_wait: Duration,
    /// A container that ran for so long is started again as if it never had been.
    pub calm: Duration,
}

impl Default for RevivalPolicy {
    /// 8 starts over about 17 minutes.
    fn default() -> Self {
        RevivalPolicy {
            attempts: 8,
            first_wait: Duration::from_secs(5),
            longest_wait: Duration::from_secs(5 * 60),
            calm: Duration::from_secs(10 * 60),
        }
    }
}

/// What to do with an ended container now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revive {
    /// Start it. Counts as an attempt.
    Now,
    /// The last start is not long ago.
    Later,
    /// It was started often enough.
    No,
}

/// The starts of one lease's container so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Revival {
    attempts: u32,
    last_ms: u64,
}

impl Revival {
    /// The container is seen ended.
    pub fn ended(&mut self, policy: &RevivalPolicy, now_ms: u64) -> Revive {
        let since_ms = now_ms.saturating_sub(self.last_ms);
        if self.attempts > 0 && since_ms >= millis(policy.calm) {
            *self = Revival::default();
        }
        if self.attempts >= policy.attempts {
            return Revive::No;
        }
        if self.attempts > 0 && since_ms < self.wait_ms(policy) {
            return Revive::Later;
        }
        self.attempts += 1;
        self.last_ms = now_ms;
        Revive::Now
    }

    /// The start that was counted last was not tried: the engine or the machine was not ready for it. One stays counted, for the first wait.
    pub fn not_tried(&mut self) {
        self.attempts = self.attempts.saturating_sub(1).max(1);
    }

    fn wait_ms(&self, policy: &RevivalPolicy) -> u64 {
        let doubled = 1u64.checked_shl(self.attempts.saturating_sub(1)).unwrap_or(u64::MAX);
        millis(policy.first_wait).saturating_mul(doubled).min(millis(policy.longest_wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_container_is_started_at_once_then_with_growing_waits_and_not_for_ever() {
        let policy = RevivalPolicy {
            attempts: 4,
            first_wait: Duration::from_millis(10),
            longest_wait: Duration::from_millis(25),
            calm: Duration::from_millis(1_000),
        };
        let mut revival = Revival::default();
        let mut starts = Vec::new();
        let last = (100..1_000).map(|now| {
            let next = revival.ended(&policy, now);
            if next == Revive::Now {
                starts.push(now);
            }
            next
        });
        assert_eq!(last.last(), Some(Revive::No));
        assert_eq!(starts, [100, 110, 130, 155]);
        // One that ran for long begins anew.
        assert_eq!(revival.ended(&policy, 1_154), Revive::No);
        assert_eq!(revival.ended(&policy, 1_155), Revive::Now);
    }

    #[test]
    fn starts_that_the_machine_was_not_ready_for_are_no_reason_to_give_up() {
        let policy = RevivalPolicy::default();
        let mut revival = Revival::default();
        let mut now = 1_000_000;
        for _ in 0..10 * policy.attempts {
            assert_eq!(revival.ended(&policy, now), Revive::Now);
            revival.not_tried();
            assert_eq!(revival.ended(&policy, now), Revive::Later, "but there is a wait");
            now += millis(policy.first_wait);
        }
    }

    #[test]
    fn a_clock_that_goes_back_only_waits() {
        let policy = RevivalPolicy::default();
        let mut revival = Revival::default();
        assert_eq!(revival.ended(&policy, 1_000_000), Revive::Now);
        assert_eq!(revival.ended(&policy, 0), Revive::Later);
        assert_eq!(revival.ended(&policy, u64::MAX), Revive::Now);
    }
}
