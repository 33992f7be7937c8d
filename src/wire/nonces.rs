//! Which nonces were admitted: a request has an effect at most once.
//!
//! Invariants:
//! - a nonce is remembered for as long as it is fresh; when there is no room the new request is refused, and no live
//!   nonce is ever forgotten to make room;
//! - no sender can take more than its own share, so one sender cannot silence the others;
//! - once a nonce was forgotten, nothing as old as it is admitted, whatever the clocks of two workers say;
//! - what was signed before this table began is refused, since an earlier table may have admitted it.
//!
//! A wall clock that is set back by more than [`AuthPolicy::max_ahead`] keeps callers out for that long at most, rather than
//! until the clock has caught up; see `floor.rs`.

use std::collections::{BTreeSet, HashMap};

use super::btauth::{AuthError, AuthPolicy, Caller, check_freshness};
use super::floor::Floor;
use crate::ids::Hotkey;

/// How many nonces are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceLimits {
    /// Over all senders.
    pub total: usize,
    /// For one sender.
    pub per_hotkey: usize,
}

impl Default for NonceLimits {
    /// 65,536 in all (about 6 MB), 1,024 for one sender: a hundred requests a second from each.
    fn default() -> Self {
        NonceLimits { total: 65_536, per_hotkey: 1_024 }
    }
}

/// The nonces that were admitted and are still fresh.
#[derive(Debug)]
pub struct NonceTable {
    limits: NonceLimits,
    policy: AuthPolicy,
    live: BTreeSet<(u64, Hotkey)>,
    per_hotkey: HashMap<Hotkey, usize>,
    floor: Floor,
}

impl NonceTable {
    /// An empty table. Requests signed before `started_ns` are refused as stale.
    pub fn new(limits: NonceLimits, policy: AuthPolicy, started_ns: u64) -> Self {
        NonceTable { limits, policy, live: BTreeSet::new(), per_hotkey: HashMap::new(), floor: Floor::at(started_ns) }
    }

    /// Remembers the nonce of a request whose signature held. `Ok` at most once for a sender and nonce.
    ///
    /// # Errors
    /// [`AuthError::StaleRequest`], [`AuthError::ReplayedRequest`] or [`AuthError::Overloaded`].
    pub fn admit(&mut self, caller: &Caller, now_ns: u64) -> Result<(), AuthError> {
        check_freshness(caller.nonce, now_ns, &self.policy)?;
        self.forget_stale(now_ns);
        if self.floor.refuses(caller.nonce) {
            return Err(AuthError::StaleRequest("request was signed before this axon began to admit requests"));
        }
        let key = (caller.nonce, caller.hotkey);
        if self.live.contains(&key) {
            return Err(AuthError::ReplayedRequest);
        }
        if self.live.len() >= self.limits.total {
            return Err(AuthError::Overloaded("too many requests in the freshness window, over all hotkeys"));
        }
        let share = self.per_hotkey.entry(caller.hotkey).or_default();
        if *share >= self.limits.per_hotkey {
            return Err(AuthError::Overloaded("too many requests of this hotkey in the freshness window"));
        }
        *share += 1;
        self.live.insert(key);
        Ok(())
    }

    /// How many nonces are remembered.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    fn forget_stale(&mut self, now_ns: u64) {
        self.floor.follow(now_ns, self.policy.max_ahead, self.policy.max_age);
        let oldest = now_ns.saturating_sub(self.policy.max_age.as_nanos() as u64);
        while let Some(&(nonce, hotkey)) = self.live.first()
            && nonce < oldest
        {
            self.live.pop_first();
            self.floor.forgot(nonce);
            if let Some(share) = self.per_hotkey.get_mut(&hotkey) {
                *share -= 1;
                if *share == 0 {
                    self.per_hotkey.remove(&hotkey);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const SECOND: u64 = 1_000_000_000;
    const T: u64 = 1_000_000 * SECOND;

    fn caller(who: u8, nonce: u64) -> Caller {
        Caller { hotkey: Hotkey([who; 32]), nonce }
    }

    fn table(total: usize, per_hotkey: usize) -> NonceTable {
        NonceTable::new(NonceLimits { total, per_hotkey }, AuthPolicy::default(), T)
    }

    #[test]
    fn a_nonce_counts_once_for_its_sender() {
        let mut nonces = table(10, 10);
        assert_eq!(nonces.admit(&caller(1, T), T), Ok(()));
        assert_eq!(nonces.admit(&caller(1, T), T), Err(AuthError::ReplayedRequest));
        assert_eq!(nonces.admit(&caller(2, T), T), Ok(()), "another sender may use the same number");
        assert_eq!(nonces.admit(&caller(1, T), T + 10 * SECOND), Err(AuthError::ReplayedRequest));
        let late = nonces.admit(&caller(1, T), T + 10 * SECOND + 1);
        assert!(matches!(late, Err(AuthError::StaleRequest(_))), "{late:?}");
    }

    #[test]
    fn a_full_table_refuses_and_forgets_nothing_live() {
        let mut nonces = table(3, 2);
        assert_eq!(nonces.admit(&caller(1, T), T), Ok(()));
        assert_eq!(nonces.admit(&caller(1, T + 1), T), Ok(()));
        assert!(matches!(nonces.admit(&caller(1, T + 2), T), Err(AuthError::Overloaded(_))), "its own share");
        assert_eq!(nonces.admit(&caller(2, T), T), Ok(()), "others are not affected");
        assert!(matches!(nonces.admit(&caller(3, T), T), Err(AuthError::Overloaded(_))), "all shares");
        assert_eq!(nonces.admit(&caller(1, T), T), Err(AuthError::ReplayedRequest));
        // Both nonces of time T expire; the one after them does not.
        let later = T + 10 * SECOND + 1;
        assert_eq!(nonces.admit(&caller(3, later), later), Ok(()));
        assert_eq!(nonces.len(), 2);
        assert_eq!(nonces.admit(&caller(1, T + 1), later), Err(AuthError::ReplayedRequest));
    }

    #[test]
    fn a_restart_does_not_reopen_the_window() {
        let mut nonces = NonceTable::new(NonceLimits::default(), AuthPolicy::default(), T);
        let before = nonces.admit(&caller(1, T - 1), T + SECOND);
        assert!(matches!(before, Err(AuthError::StaleRequest(_))), "{before:?}");
        assert_eq!(nonces.admit(&caller(1, T), T + SECOND), Ok(()));
    }

    #[test]
    fn a_worker_with_an_older_now_cannot_readmit_what_was_forgotten() {
        let mut nonces = table(10, 10);
        assert_eq!(nonces.admit(&caller(1, T + 5), T + 5), Ok(()));
        let later = T + 5 + 10 * SECOND + 1;
        assert_eq!(nonces.admit(&caller(2, later), later), Ok(()));
        assert!(nonces.admit(&caller(1, T + 5), later - 1).is_err());
    }

    #[test]
    fn a_clock_set_back_costs_seconds_not_hours() {
        let mut nonces = table(10, 10);
        assert!(nonces.admit(&caller(1, T - 3600 * SECOND), T - 3600 * SECOND).is_err());
        let soon = T - 3598 * SECOND;
        assert_eq!(nonces.admit(&caller(1, soon), soon), Ok(()));
    }

    proptest! {
        #[test]
        fn nothing_is_admitted_twice_and_the_bounds_hold(
            steps in proptest::collection::vec((0u8..3, 0u64..14, 0u64..3), 1..200)
        ) {
            let mut nonces = table(8, 4);
            let mut admitted = HashSet::new();
            let mut now = T + 20 * SECOND;
            for (who, back, forward) in steps {
                now += forward * SECOND;
                let caller = caller(who, now + 2 * SECOND - back * SECOND);
                if nonces.admit(&caller, now).is_ok() {
                    prop_assert!(admitted.insert(caller), "{caller:?} admitted twice");
                }
                prop_assert!(nonces.len() <= 8);
                let shares: usize = nonces.per_hotkey.values().sum();
                prop_assert_eq!(shares, nonces.len());
                prop_assert!(nonces.per_hotkey.values().all(|&n| (1..=4).contains(&n)));
            }
        }
    }
}
