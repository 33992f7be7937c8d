//! The nonces of one dendrite: nanoseconds of the wall clock, but never the same or an earlier one twice in an era.
//!
//! Peers refuse nonces far from their own clock, so when ours is set back by more than [`SLACK_NS`], nonces follow it and a
//! new era begins. Within one they rise, which classic servers want of each pair of hotkey and uuid; they remember a pair
//! for ever, so that a new era needs other uuids. Servers of `btauth/1` want no nonce twice, which a clock that tells
//! nanoseconds gives them again after a jump in all but one case in many millions; that request is refused as a replay.

use std::sync::{Mutex, PoisonError};

/// A clock set back by no more than this is waited for, in nanoseconds: half of what `btauth/1` lets a nonce be ahead.
const SLACK_NS: u64 = 1_000_000_000;

/// What makes a request one of a kind, beside its uuid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Nanoseconds since the Unix epoch.
    pub(super) nonce: u64,
    /// How often the clock was set back far before.
    pub(super) era: u32,
}

impl Stamp {
    fn next(self, now_ns: u64) -> Self {
        match self.nonce > now_ns.saturating_add(SLACK_NS) {
            true => Stamp { nonce: now_ns, era: self.era.wrapping_add(1) },
            false => Stamp { nonce: now_ns.max(self.nonce.saturating_add(1)), era: self.era },
        }
    }
}

/// The last one that was given.
#[derive(Debug, Default)]
pub(super) struct Stamps(Mutex<Stamp>);

impl Stamps {
    /// The next one, at `now_ns` nanoseconds since the Unix epoch.
    pub(super) fn next(&self, now_ns: u64) -> Stamp {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = last.next(now_ns);
        *last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u64 = 1_800_000_000_000_000_000;

    #[test]
    fn nonces_rise_while_the_clock_stands_or_slips() {
        let stamps = Stamps::default();
        let nonces: Vec<_> = [T, T, T - SLACK_NS + 1, T + 9].map(|now| stamps.next(now)).into();
        let expected = [T, T + 1, T + 2, T + 9].map(|nonce| Stamp { nonce, era: 0 });
        assert_eq!(nonces, expected);
    }

    #[test]
    fn a_clock_set_back_far_is_followed_and_each_time_begins_an_era() {
        let hour = 3600 * SLACK_NS;
        let stamps = Stamps::default();
        let given: Vec<_> = [T, T - hour, T - hour, T, T - hour].map(|now| stamps.next(now)).into();
        let expected = [(T, 0), (T - hour, 1), (T - hour + 1, 1), (T, 1), (T - hour, 2)];
        assert_eq!(given, expected.map(|(nonce, era)| Stamp { nonce, era }));
        assert_eq!(stamps.next(T - hour - SLACK_NS), Stamp { nonce: T - hour + 1, era: 2 }, "a second is not far");
        assert_eq!(stamps.next(T - hour - SLACK_NS), Stamp { nonce: T - hour - SLACK_NS, era: 3 }, "and more is");
    }
}
