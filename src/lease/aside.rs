//! Containers that are set aside: since when, until when, and how one is taken back. Pure.
//!
//! The end on a container's label is the one that it was made with; a renewal is in the journal alone. Where the journal does not
//! explain a container its label is a lower bound and no more: its lease may be running and paid for. So its renter has
//! [`ReconcileRules::claim_grace`] to show that the lease goes on, counted from when this miner first saw the container without a record.
//! The count outlives the process, so that the end comes for certain; after each start there is [`START_GRACE`] at least.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::ids::{Hash32, Hotkey, LeaseId};

use super::engine::{Container, ContainerState};
use super::machine::{Endpoint, Event, Lease, LeaseTerms, Role};
use super::reconcile::ReconcileRules;

/// What a renter has at least after a start of the miner: while it was away nobody could show anything.
pub const START_GRACE: Duration = Duration::from_secs(60 * 60);
/// A renter that shows again and again that a container is its own is noted no more often.
const NOTED: Duration = Duration::from_secs(10 * 60);

/// Since when containers are set aside, by the engine's names of them, in milliseconds since the Unix epoch: since they were first seen
/// so, or since their renter was last heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sightings(BTreeMap<String, u64>);

impl Sightings {
    /// What holds after a start, of what was kept: [`START_GRACE`] is left for each.
    #[must_use]
    pub fn at_start(self, now_ms: u64, rules: &ReconcileRules) -> Sightings {
        let used = rules.claim_grace.saturating_sub(START_GRACE);
        let earliest = now_ms.saturating_sub(millis(used));
        Sightings(self.0.into_iter().map(|(container, since)| (container, since.max(earliest).min(now_ms))).collect())
    }

    /// Since when this container is set aside; one that was not seen so yet is from now on.
    pub fn since_ms(&self, container: &str, now_ms: u64) -> u64 {
        self.0.get(container).copied().unwrap_or(now_ms)
    }

    /// Takes note of those that are set aside now, and forgets those that are not there any more. `true` if anything changed.
    pub fn note<'a>(&mut self, aside: impl Iterator<Item = &'a str>, there: &BTreeSet<String>, now_ms: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|container, _| there.contains(container));
        let mut changed = self.0.len() != before;
        for container in aside {
            if !self.0.contains_key(container) {
                self.0.insert(container.to_owned(), now_ms);
                changed = true;
            }
        }
        changed
    }

    /// Its renter was heard of: the count begins anew. `true` if that is worth a note.
    pub fn shown(&mut self, container: &str, now_ms: u64) -> bool {
        match self.0.get_mut(container) {
            Some(since) if now_ms.saturating_sub(*since) >= millis(NOTED) => {
                *since = now_ms;
                true
            }
            _ => false,
        }
    }

    /// It is in the books again. `true` if it was not.
    pub fn forget(&mut self, container: &str) -> bool {
        self.0.remove(container).is_some()
    }
}

/// When a lease that is taken back ends: when its renter says, within `longest` from now, and not before what is known of it. `None`
/// when the renter says that it is over.
pub fn end_of(known_ms: u64, said_ms: u64, now_ms: u64, longest: Duration) -> Option<u64> {
    let latest = now_ms.saturating_add(millis(longest));
    (said_ms > now_ms).then(|| said_ms.min(latest).max(known_ms))
}

/// What a renter showed of a container that is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// The lease.
    pub lease: LeaseId,
    /// The fencing epoch of its call, the container's or a later one.
    pub epoch: u64,
    /// Digest of the owner's token.
    pub token: Hash32,
    /// When the lease ends, see [`end_of`].
    pub expires_at_ms: u64,
}

/// The lease of a container that no record knows, and the steps from its opening to what the container does now. What its labels
/// do not say (the image, the first key) is not known any more.
pub fn unknown_lease(
    container: &Container,
    miner: Hotkey,
    shown: &Shown,
    endpoint: Option<Endpoint>,
    now_ms: u64,
) -> (Lease, Vec<Event>) {
    let labels = container.labels;
    let terms = LeaseTerms {
        id: labels.lease,
        role: Role::Provider,
        fencing_epoch: labels.fencing_epoch,
        renter: labels.renter,
        miner,
        devices: container.devices.clone(),
        expires_at_ms: shown.expires_at_ms,
        owner_token_digest: shown.token,
        ssh_public_key: None,
        image: String::new(),
        wish: None,
        unheard: false,
    };
    let lease = Lease::open(&terms, now_ms);
    let (name, host_key) = (container.id.clone(), container.host_key.clone());
    let begun = [
        Event::Opened { terms, at_ms: now_ms },
        Event::Reserved,
        Event::Started { container: name, endpoint, host_key, at_ms: now_ms },
    ];
    let now = as_it_is(container, shown, labels.fencing_epoch);
    (lease, begun.into_iter().chain(now).collect())
}

/// The steps by which a lease that was lost goes on.
pub fn lost_lease(lease: &Lease, container: &Container, shown: &Shown) -> Vec<Event> {
    let found = Event::Found { expires_at_ms: shown.expires_at_ms };
    std::iter::once(found).chain(as_it_is(container, shown, lease.fencing_epoch)).collect()
}

/// From a lease that runs to what its container does, and to the epoch that commands it.
fn as_it_is(container: &Container, shown: &Shown, epoch: u64) -> impl Iterator<Item = Event> + use<> {
    let paused = (container.state == ContainerState::Paused).then_some(Event::Paused);
    let raised = (shown.epoch > epoch).then_some(Event::EpochRaised { epoch: shown.epoch });
    paused.into_iter().chain(raised)
}
