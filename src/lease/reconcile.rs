//! What to do when the journal and the engine do not show the same: after a crash, and once in a while.
//!
//! [`reconcile`] is pure and safe to repeat: it compares a miner's leases with the containers that its engine lists
//! and names the next step for each. The engine's list must have been had after the journal was read, and an engine
//! that could not be asked is no empty list.
//!
//! # Invariants
//! - The container of a lease that is live in the journal is destroyed by expiry only, or when nobody heard of it.
//! - The container of a lost lease that shows up again is set aside: its renter takes it back, or ends it.
//! - A container of a fencing epoch above the journal's, or of a lease (by id and renter) that the journal does not
//!   know, or that it knows never to have made a container, is set aside
//!   ([`Action::Quarantine`]): another node, or one with a newer journal, may own it.
//! - What is set aside is kept for [`ReconcileRules::claim_grace`] from when it was first seen so, whatever its label says: the lease may
//!   have been extended, which only the lost journal knew. Then it ends.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::ids::LeaseId;

use super::aside::Sightings;
use super::decide::{Effect, effect_of, expire};
use super::engine::{Container, ContainerState};
use super::health::EngineView;
use super::machine::{EndReason, Event, Lease, LeaseState, Role};

/// The graces of a reconciliation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReconcileRules {
    /// A request of which nothing was set aside is dropped after so long.
    pub request_grace: Duration,
    /// A lease that nobody heard of ([`LeaseTerms::unheard`](super::LeaseTerms::unheard)) ends so long after it was asked
    /// for.
    pub unheard_grace: Duration,
    /// A container without a record is destroyed so long after the latest end that is known of it, its label's mostly.
    pub orphan_grace: Duration,
    /// But not before so long after it was first seen without a record, or its renter was last heard of.
    pub claim_grace: Duration,
}

impl Default for ReconcileRules {
    fn default() -> Self {
        ReconcileRules {
            request_grace: Duration::from_secs(60),
            unheard_grace: Duration::from_secs(5 * 60),
            orphan_grace: Duration::from_secs(24 * 60 * 60),
            claim_grace: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl ReconcileRules {
    /// When a container that is set aside since `since_ms` is destroyed, in milliseconds since the Unix epoch; `lease` is what is known of
    /// its renter's lease.
    fn orphan_until_ms(&self, container: &Container, lease: Option<&Lease>, since_ms: u64) -> u64 {
        let known = container.labels.expires_at_ms.max(lease.map_or(0, |lease| lease.expires_at_ms));
        let shown = since_ms.saturating_add(millis(self.claim_grace));
        known.saturating_add(millis(self.orphan_grace)).max(shown)
    }
}

/// Why a container is set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineReason {
    /// The journal does not know its lease, by id and renter, or knows that it made no container.
    UnknownLease,
    /// Its fencing epoch is higher than any the journal knows of its lease.
    NewerEpoch,
    /// Its lease was taken for lost, and it is here again: its tenant may be in it, and a disk may have been away.
    LostLease,
}

/// The next step for one lease or one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The container was created but the journal does not say so yet: write [`Event::Started`].
    Adopt {
        /// The lease.
        lease: LeaseId,
        /// Its container; the caller adds the endpoint by its port.
        container: Container,
    },
    /// The intent to create is written but there is no container, or one that may be half-made: create it.
    FinishCreate {
        /// The lease.
        lease: LeaseId,
        /// The creation.
        effect: Effect,
    },
    /// The intent to destroy is written: destroy the container, or what is left of it.
    FinishDestroy {
        /// The lease.
        lease: LeaseId,
        /// The destruction.
        effect: Effect,
    },
    /// Write this event: what it says is seen to be so, or due (expiry, a dropped request).
    Record {
        /// The lease.
        lease: LeaseId,
        /// The event.
        event: Event,
    },
    /// The container should be paused and is not, or the other way round: tell the engine again.
    SetPaused {
        /// The lease.
        lease: LeaseId,
        /// The pause or its end.
        effect: Effect,
    },
    /// The container of a live lease has ended: start it again, as often as its [`super::revival::Revival`] says.
    Revive {
        /// The lease.
        lease: LeaseId,
        /// The start.
        effect: Effect,
    },
    /// A live lease as the engine shows it, for its [`super::health::Health`]: also when all is well.
    Observe {
        /// The lease.
        lease: LeaseId,
        /// What the engine shows.
        seen: EngineView,
    },
    /// Nobody here owns the container, but somebody may: keep it and hold its devices.
    Quarantine {
        /// The container.
        container: Container,
        /// Why.
        why: QuarantineReason,
        /// When it is destroyed unless its renter is heard of, in milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// Nobody owns the container any more: destroy it.
    DestroyOrphan {
        /// The container.
        container: Container,
        /// The destruction.
        effect: Effect,
    },
}

/// The next steps, leases first, each in the order of their ids. Records of [`Role::Renter`] are skipped. `seen` is since when containers
/// are set aside.
///
/// After the steps were carried out a second call names only observations, quarantines and starts of what ended again, or the step that a lease
/// takes next (recording a destruction after destroying, say).
pub fn reconcile(
    leases: &[Lease],
    containers: &[Container],
    now_ms: u64,
    rules: &ReconcileRules,
    seen: &Sightings,
) -> Vec<Action> {
    let ours: BTreeMap<LeaseId, &Lease> =
        leases.iter().filter(|l| l.role == Role::Provider).map(|l| (l.id, l)).collect();
    let mut actions: Vec<Action> = ours
        .values()
        .filter_map(|lease| {
            let own = containers.iter().find(|c| is_own(lease, c));
            let nothing = !containers.iter().any(|c| c.labels.lease == lease.id);
            step_of_lease(lease, own, nothing, now_ms, rules)
        })
        .collect();
    let mut rest: Vec<&Container> = containers.iter().collect();
    rest.sort_by(|a, b| {
        (a.labels.lease, a.labels.fencing_epoch, &a.id).cmp(&(b.labels.lease, b.labels.fencing_epoch, &b.id))
    });
    actions.extend(rest.into_iter().filter_map(|c| {
        let since_ms = seen.since_ms(&c.id, now_ms);
        step_of_container(c, ours.get(&c.labels.lease).copied(), now_ms, since_ms, rules)
    }));
    actions
}

/// Whether this is the container that the lease made, or is about to make.
fn is_own(lease: &Lease, container: &Container) -> bool {
    let labels = container.labels;
    labels.lease == lease.id && Some(labels.fencing_epoch) == lease.container_epoch && labels.renter == lease.renter
}

/// The step of a lease with this container of its own; `nothing`: no container at all bears its name.
fn step_of_lease(
    lease: &Lease,
    own: Option<&Container>,
    nothing: bool,
    now_ms: u64,
    rules: &ReconcileRules,
) -> Option<Action> {
    let id = lease.id;
    if let Some(event) = expire(lease, now_ms) {
        return Some(Action::Record { lease: id, event });
    }
    let begun = matches!(lease.state, LeaseState::Reserving | LeaseState::Running | LeaseState::Paused);
    if begun && lease.unheard && now_ms.saturating_sub(lease.requested_at_ms) >= millis(rules.unheard_grace) {
        return Some(Action::Record { lease: id, event: Event::ReleaseWanted { why: EndReason::Unheard } });
    }
    match (lease.state, own) {
        (LeaseState::Requested, _) => {
            let dropped = now_ms.saturating_sub(lease.requested_at_ms) > millis(rules.request_grace);
            let note = "nothing was set aside in time".to_owned();
            dropped.then_some(Action::Record {
                lease: id,
                event: Event::Refused { why: EndReason::Withdrawn, note, at_ms: now_ms },
            })
        }
        (LeaseState::Reserving, Some(made)) if made.state != ContainerState::Exited => {
            Some(Action::Adopt { lease: id, container: made.clone() })
        }
        // One without processes may be half-made: the engine finishes it, or says that it is there.
        (LeaseState::Reserving, _) => effect_of(lease).map(|effect| Action::FinishCreate { lease: id, effect }),
        // Also where there is no container any more: its disk and its rules may be left, and it is released when they are gone.
        (LeaseState::Releasing, own) if own.is_some() || nothing => {
            effect_of(lease).map(|effect| Action::FinishDestroy { lease: id, effect })
        }
        // What is there is another's, and not to be touched.
        (LeaseState::Releasing, _) => Some(Action::Record { lease: id, event: Event::Destroyed { at_ms: now_ms } }),
        (LeaseState::Running | LeaseState::Paused, own) => {
            let fencing_epoch = own.map(|c| c.labels.fencing_epoch).unwrap_or_default();
            match (lease.state, own.map(|c| c.state)) {
                (LeaseState::Paused, Some(ContainerState::Running)) => {
                    Some(Action::SetPaused { lease: id, effect: Effect::Pause { lease: id, fencing_epoch } })
                }
                (LeaseState::Running, Some(ContainerState::Paused)) => {
                    Some(Action::SetPaused { lease: id, effect: Effect::Unpause { lease: id, fencing_epoch } })
                }
                (_, Some(ContainerState::Exited)) => {
                    Some(Action::Revive { lease: id, effect: Effect::Restart { lease: id, fencing_epoch } })
                }
                (_, seen) => Some(Action::Observe { lease: id, seen: seen.into() }),
            }
        }
        (LeaseState::Released | LeaseState::Lost | LeaseState::Refused, _) => None,
    }
}

/// The step for a container that is not the one its lease is looked after by. `None` when it is.
fn step_of_container(
    container: &Container,
    lease: Option<&Lease>,
    now_ms: u64,
    since_ms: u64,
    rules: &ReconcileRules,
) -> Option<Action> {
    let labels = container.labels;
    let effect = Effect::Destroy { lease: labels.lease, fencing_epoch: labels.fencing_epoch };
    let destroy = Action::DestroyOrphan { container: container.clone(), effect };
    let lease = lease.filter(|l| l.renter == labels.renter);
    let set_aside = |why| {
        let until_ms = rules.orphan_until_ms(container, lease, since_ms);
        if now_ms >= until_ms {
            destroy.clone()
        } else {
            Action::Quarantine { container: container.clone(), why, until_ms }
        }
    };
    let Some(lease) = lease else {
        return Some(set_aside(QuarantineReason::UnknownLease));
    };
    if labels.fencing_epoch > lease.fencing_epoch {
        return Some(set_aside(QuarantineReason::NewerEpoch));
    }
    // Nothing of ours made this container: the lease was asked for again after the journal was lost, perhaps.
    let Some(own_epoch) = lease.container_epoch.filter(|_| lease.state != LeaseState::Refused) else {
        return Some(set_aside(QuarantineReason::UnknownLease));
    };
    if labels.fencing_epoch == own_epoch && lease.state.holds_devices() {
        return None;
    }
    if labels.fencing_epoch == own_epoch && lease.state == LeaseState::Lost {
        return Some(set_aside(QuarantineReason::LostLease));
    }
    // The lease ended, or this is what an epoch left behind that was superseded since.
    Some(destroy)
}
