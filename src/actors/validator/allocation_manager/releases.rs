//! Releases that a miner has not confirmed: when it is asked again, and what its devices are meanwhile. Pure.
//!
//! Its first attempts are the miner's time to remove the container, and its devices are left alone. After
//! [`UNCONFIRMED_CHECKS`] of them nobody rents there any more: the devices are proved again like any other, or a miner would be
//! paid unproved for keeping quiet. An honest one that is not done yet says that they are rented, which costs it nothing but
//! the epoch. They are rented to nobody else before the end: what runs there is not known. Attempts are counted since the start;
//! their end is the lease's own, [`super::AllocationSetup::give_up`] after its time.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::UNCONFIRMED_CHECKS;
use crate::ids::LeaseId;
use crate::lease::{EndReason, Lease, LeaseState};
use crate::runtime::Backoff;

/// The longest wait between two attempts, in rounds.
const LONGEST_WAIT: u32 = 16;

struct Unconfirmed {
    attempts: u32,
    next: Instant,
}

/// The leases whose miners were asked to release and did not confirm.
#[derive(Default)]
pub(super) struct Releases(HashMap<LeaseId, Unconfirmed>);

impl Releases {
    /// A lease is as it is after its last step. If it is releasing, its miner has just been asked in vain.
    pub(super) fn stands(&mut self, lease: &Lease, period: Duration, now: Instant) {
        if lease.state != LeaseState::Releasing {
            self.0.remove(&lease.id);
            return;
        }
        let known = self.0.entry(lease.id).or_insert(Unconfirmed { attempts: 0, next: now });
        // Asked again before its time, as by an impatient renter: the miner had no more time for that.
        if known.attempts > 0 && now < known.next {
            return;
        }
        known.attempts = known.attempts.saturating_add(1);
        // A little less than whole rounds: the next one must not come too early for it.
        let retry = Backoff { first: period / 2, cap: period.saturating_mul(LONGEST_WAIT), ..Backoff::default() };
        let wait = retry.delay(usize::try_from(known.attempts).unwrap_or(usize::MAX), 0.0, 0.0);
        known.next = now + wait;
        if known.attempts == UNCONFIRMED_CHECKS {
            tracing::warn!(lease = %lease.id, miner = %lease.miner, "a release is not confirmed: its devices are proved again");
        }
    }

    /// Whether the miner is to be asked now.
    pub(super) fn is_due(&self, id: LeaseId, now: Instant) -> bool {
        self.0.get(&id).is_none_or(|known| known.next <= now)
    }

    /// Whether the lease's devices are left alone: a lease of ours runs there, or did until a moment ago. Not where it ends
    /// for not being seen, or perhaps never began.
    pub(super) fn leave_alone(&self, lease: &Lease) -> bool {
        match lease.state {
            LeaseState::Releasing => {
                let attempts = self.0.get(&lease.id).map_or(0, |known| known.attempts);
                let began = lease.began_at_ms.is_some() && lease.end != Some(EndReason::Unhealthy);
                began && attempts < UNCONFIRMED_CHECKS
            }
            state => state.holds_devices(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hash32, Hotkey};
    use crate::lease::{Event, LeaseTerms, Role, apply};

    const PERIOD: Duration = Duration::from_secs(30);

    fn lease(events: &[Event]) -> Lease {
        let terms = LeaseTerms {
            id: LeaseId([1; 16]),
            role: Role::Renter,
            fencing_epoch: 1,
            renter: Hotkey([1; 32]),
            miner: Hotkey([2; 32]),
            devices: vec![DeviceId::cpu(0)],
            expires_at_ms: 1_000,
            owner_token_digest: Hash32([1; 32]),
            ssh_public_key: None,
            image: String::new(),
            wish: None,
            unheard: false,
        };
        events.iter().fold(Lease::open(&terms, 1), |lease, event| apply(&lease, event).unwrap())
    }

    fn started() -> Event {
        Event::Started { container: "c".into(), endpoint: None, host_key: None, at_ms: 2 }
    }

    fn ending(why: EndReason) -> Lease {
        lease(&[Event::Reserved, started(), Event::ReleaseWanted { why }])
    }

    #[tokio::test]
    async fn devices_of_a_release_that_is_not_confirmed_twice_are_proved_again() {
        let (mut releases, now) = (Releases::default(), Instant::now());
        let (running, ended) = (lease(&[Event::Reserved, started()]), ending(EndReason::Returned));
        assert!(releases.leave_alone(&running) && releases.leave_alone(&ended), "it has not been asked yet");
        releases.stands(&ended, PERIOD, now);
        assert!(releases.leave_alone(&ended), "a container takes its time");
        releases.stands(&ended, PERIOD, now);
        assert!(releases.leave_alone(&ended), "it was asked again before its time");
        releases.stands(&ended, PERIOD, now + PERIOD);
        assert!(!releases.leave_alone(&ended));
        assert!(releases.leave_alone(&running), "a lease that runs is left alone for as long as it does");
    }

    #[tokio::test]
    async fn a_lease_that_was_not_seen_or_perhaps_never_began_hides_no_device_at_all() {
        let releases = Releases::default();
        assert!(!releases.leave_alone(&ending(EndReason::Unhealthy)));
        let unclear = [Event::Reserved, Event::ReleaseWanted { why: EndReason::CreateUnclear }];
        assert!(!releases.leave_alone(&lease(&unclear)));
        assert!(releases.leave_alone(&lease(&[Event::Reserved])), "it is being made");
    }

    #[tokio::test]
    async fn a_miner_is_asked_again_with_growing_waits_and_anew_for_another_release() {
        let (mut releases, mut now, ended) = (Releases::default(), Instant::now(), ending(EndReason::Expired));
        assert!(releases.is_due(ended.id, now));
        let mut waits = Vec::new();
        for _ in 0..8 {
            releases.stands(&ended, PERIOD, now);
            let begun = now;
            while !releases.is_due(ended.id, now) {
                now += PERIOD / 2;
            }
            waits.push((now - begun).as_secs());
        }
        assert_eq!(waits, [15, 30, 60, 120, 240, 480, 480, 480]);
        releases.stands(&lease(&[Event::Reserved, started()]), PERIOD, now);
        assert!(releases.is_due(ended.id, now) && releases.leave_alone(&ended));
    }
}
