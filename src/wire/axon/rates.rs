//! How often one address and one hotkey may ask.
//!
//! Invariants: memory is bounded whatever comes. Addresses fall into [`BUCKETS`] buckets by a hash that outsiders cannot
//! predict: beyond as many some share their rate. Each hotkey has a row of its own, so that none uses up another's: only
//! requests count that its key signed and that are admitted, so there are as many as the subnet has, and those that asked
//! nothing for a while are forgotten.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::admission::Address;
use crate::ids::Hotkey;

/// Rows of one table, about 1 MB when all are in use.
const BUCKETS: u64 = 16_384;

/// Rows of hotkeys from which on those at rest are forgotten.
const HOTKEYS: usize = 1_024;
/// Requests between two such sweeps.
const SWEEP: u64 = 4_096;

/// Requests a second, and how many may come at once after a silence. None: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second, lasting.
    pub per_second: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// A rate; none if either is 0.
    pub fn new(per_second: u32, burst: u32) -> Option<Self> {
        Some(Rate { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst)? })
    }
}

/// The rates of one axon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// Of one address, an IPv6 one by its /64. Every request counts.
    pub per_ip: Option<Rate>,
    /// Of one hotkey. Requests that it signed count.
    pub per_hotkey: Option<Rate>,
}

/// Counts requests.
pub(super) struct Limiters {
    hasher: RandomState,
    clock: DefaultClock,
    per_ip: Option<DefaultKeyedRateLimiter<u64>>,
    per_hotkey: Option<DefaultKeyedRateLimiter<Hotkey>>,
    signed: AtomicU64,
}

impl Limiters {
    pub(super) fn new(rates: Rates) -> Self {
        let quota = |rate: Rate| Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Limiters {
            hasher: RandomState::new(),
            clock: DefaultClock::default(),
            per_ip: rates.per_ip.map(|rate| RateLimiter::keyed(quota(rate))),
            per_hotkey: rates.per_hotkey.map(|rate| RateLimiter::keyed(quota(rate))),
            signed: AtomicU64::new(0),
        }
    }

    /// Counts a request from this address. If it is one too many: when the next one may come.
    pub(super) fn address(&self, ip: IpAddr) -> Result<(), Duration> {
        let Some(limiter) = &self.per_ip else { return Ok(()) };
        let bucket = self.hasher.hash_one(Address::of(ip)) % BUCKETS;
        limiter.check_key(&bucket).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Counts a request that this hotkey signed. If it is one too many: when the next one may come.
    pub(super) fn hotkey(&self, hotkey: &Hotkey) -> Result<(), Duration> {
        let Some(limiter) = &self.per_hotkey else { return Ok(()) };
        if self.signed.fetch_add(1, Ordering::Relaxed).is_multiple_of(SWEEP) && limiter.len() > HOTKEYS {
            limiter.retain_recent();
        }
        limiter.check_key(hotkey).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn limiters(per_second: u32, burst: u32) -> Limiters {
        let rate = Rate::new(per_second, burst);
        Limiters::new(Rates { per_ip: rate, per_hotkey: rate })
    }

    #[test]
    fn a_burst_passes_and_the_next_request_hears_when_to_come() {
        let limiters = limiters(1, 3);
        let (one, other) = (Hotkey([1; 32]), Hotkey([2; 32]));
        for _ in 0..3 {
            assert_eq!(limiters.hotkey(&one), Ok(()));
        }
        let wait = limiters.hotkey(&one).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(limiters.hotkey(&other), Ok(()), "another hotkey has its own rate");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_share_their_rate() {
        let limiters = limiters(1, 1);
        let at = |text: &str| limiters.address(text.parse::<Ipv6Addr>().unwrap().into());
        assert!(at("2001:db8::1").is_ok());
        assert!(at("2001:db8::2:3").is_err());
        assert!(at("2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn a_million_addresses_take_no_more_room_than_the_table_has() {
        let limiters = limiters(1_000, 1_000);
        for ip in 0..1_000_000u32 {
            let _ = limiters.address(IpAddr::V4(ip.into()));
        }
        assert!(limiters.per_ip.as_ref().unwrap().len() as u64 <= BUCKETS);
    }

    #[test]
    fn hotkeys_do_not_share_a_rate_and_those_at_rest_are_forgotten() {
        let limiters = limiters(1, 1);
        let key = |n: u32| Hotkey(*blake3::hash(&n.to_le_bytes()).as_bytes());
        assert!((0..40_000).all(|n| limiters.hotkey(&key(n)).is_ok()), "more than there are buckets");
        let quick = Limiters::new(Rates { per_ip: None, per_hotkey: Rate::new(1_000_000, 1) });
        assert!((0..40_000).all(|n| quick.hotkey(&key(n)).is_ok()));
        let rows = quick.per_hotkey.as_ref().unwrap().len();
        assert!(rows <= HOTKEYS + SWEEP as usize, "{rows}");
    }

    #[test]
    fn without_a_rate_nobody_is_counted() {
        let limiters = Limiters::new(Rates { per_ip: Rate::new(0, 5), per_hotkey: Rate::new(5, 0) });
        assert!((0..1_000).all(|_| limiters.hotkey(&Hotkey([1; 32])).is_ok()));
    }
}
