//! Commands become events to write down and effects to carry out, in that order.
//!
//! [`effect_of`] reads the unfinished work off the state alone, so a crash between the journal and the engine loses
//! nothing: the same effect is found again at the next boot. Every effect is safe to repeat.

use crate::ids::LeaseId;

use super::engine::{Container, ContainerSpec, EngineError, Grant};
use super::fencing::{Claim, FencingError, Standing, check};
use super::machine::{EndReason, Endpoint, Event, Lease, LeaseState, TransitionError, apply};

/// What somebody wants of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Set the devices aside and create the container.
    Reserve,
    /// End the lease.
    Release {
        /// Why.
        why: EndReason,
    },
    /// Pause the container.
    Pause,
    /// Let it run again.
    Unpause,
    /// End the container's processes and start it again; a paused one runs afterwards.
    Restart,
    /// Change who may log in.
    Grant(Grant),
    /// Make the lease last longer. The caller checks the new end with [`super::machine::check_end`].
    Extend {
        /// The new end, in milliseconds since the Unix epoch.
        expires_at_ms: u64,
    },
}

/// Something to do in the world: at the engine for a miner, at the miner for a renter. Safe to repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Create the container.
    Create(ContainerSpec),
    /// Destroy it.
    Destroy {
        /// The lease.
        lease: LeaseId,
        /// The fencing epoch on the container's labels.
        fencing_epoch: u64,
    },
    /// Pause it.
    Pause {
        /// The lease.
        lease: LeaseId,
        /// The fencing epoch on the container's labels.
        fencing_epoch: u64,
    },
    /// Let it run again.
    Unpause {
        /// The lease.
        lease: LeaseId,
        /// The fencing epoch on the container's labels.
        fencing_epoch: u64,
    },
    /// Restart it.
    Restart {
        /// The lease.
        lease: LeaseId,
        /// The fencing epoch on the container's labels.
        fencing_epoch: u64,
    },
    /// Change who may log in.
    Grant {
        /// The lease.
        lease: LeaseId,
        /// The fencing epoch on the container's labels.
        fencing_epoch: u64,
        /// Who may.
        grant: Grant,
    },
}

impl Effect {
    /// Every [`Effect::label`].
    pub const LABELS: &'static [&'static str] = &["create", "destroy", "pause", "unpause", "restart", "grant"];

    /// The call of the engine: snake case, stable.
    pub fn label(&self) -> &'static str {
        match self {
            Effect::Create(_) => "create",
            Effect::Destroy { .. } => "destroy",
            Effect::Pause { .. } => "pause",
            Effect::Unpause { .. } => "unpause",
            Effect::Restart { .. } => "restart",
            Effect::Grant { .. } => "grant",
        }
    }
}

/// What follows from a command: write the events, in order, then carry out the effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    /// Events for the journal. Empty when the wish is already true.
    pub events: Vec<Event>,
    /// What to do once they are written.
    pub effect: Option<Effect>,
}

/// Why a call that presented a claim is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The caller may not command this lease.
    #[error(transparent)]
    Fencing(#[from] FencingError),
    /// The lease's state does not allow it.
    #[error(transparent)]
    Transition(#[from] TransitionError),
}

/// The unfinished work of a lease: create while reserving, destroy while releasing, else none.
pub fn effect_of(lease: &Lease) -> Option<Effect> {
    let fencing_epoch = lease.container_epoch?;
    match lease.state {
        LeaseState::Reserving => Some(Effect::Create(ContainerSpec {
            lease: lease.id,
            fencing_epoch,
            expires_at_ms: lease.expires_at_ms,
            renter: lease.renter,
            devices: lease.devices.clone(),
            ssh_public_key: lease.ssh_public_key.clone(),
            image: lease.image.clone(),
        })),
        LeaseState::Releasing => Some(Effect::Destroy { lease: lease.id, fencing_epoch }),
        _ => None,
    }
}

/// What a command of this node itself leads to (its own expiry, its operator). Calls of peers go through [`call`].
///
/// A command whose wish is already true, such as the release of an ended lease, leads to an empty decision.
///
/// # Errors
/// [`TransitionError`] when the lease's state does not allow the command.
pub fn decide(lease: &Lease, command: &Command, now_ms: u64) -> Result<Decision, TransitionError> {
    use LeaseState as S;
    let lease_epoch = lease.container_epoch;
    let event = match (command, lease.state) {
        (Command::Reserve, S::Requested) if lease.is_expired(now_ms) => {
            Event::Refused { why: EndReason::Expired, note: "over before it began".into(), at_ms: now_ms }
        }
        (Command::Reserve, S::Running | S::Paused) => return Ok(Decision::default()),
        (Command::Reserve, _) => Event::Reserved,
        (Command::Release { why }, S::Requested) => {
            Event::Refused { why: *why, note: "taken back before it began".into(), at_ms: now_ms }
        }
        (Command::Release { .. }, state) if state.is_final() => return Ok(Decision::default()),
        (Command::Release { why }, _) => Event::ReleaseWanted { why: *why },
        (Command::Pause, _) => Event::Paused,
        (Command::Unpause, _) => Event::Unpaused,
        // A restarted container runs, so a lease that was paused is no longer.
        (Command::Restart, _) => Event::Unpaused,
        (Command::Grant(grant), S::Running | S::Paused) => {
            let (lease, grant) = (lease.id, grant.clone());
            let effect = |fencing_epoch| Effect::Grant { lease, fencing_epoch, grant };
            return Ok(Decision { events: Vec::new(), effect: lease_epoch.map(effect) });
        }
        (Command::Grant(_), from) => {
            return Err(TransitionError::NotAllowed { lease: lease.id, from, event: "granted" });
        }
        (Command::Extend { expires_at_ms }, S::Running | S::Paused) if *expires_at_ms <= lease.expires_at_ms => {
            return Ok(Decision::default());
        }
        (Command::Extend { expires_at_ms }, _) => Event::Extended { expires_at_ms: *expires_at_ms },
    };
    let next = apply(lease, &event)?;
    let effect = effect_of(&next).or(match (command, next.container_epoch) {
        // Repeated even when the state did not change: the engine may have missed the first one.
        (Command::Pause, Some(fencing_epoch)) => Some(Effect::Pause { lease: lease.id, fencing_epoch }),
        (Command::Unpause, Some(fencing_epoch)) => Some(Effect::Unpause { lease: lease.id, fencing_epoch }),
        (Command::Restart, Some(fencing_epoch)) => Some(Effect::Restart { lease: lease.id, fencing_epoch }),
        _ => None,
    });
    let events = if next == *lease { Vec::new() } else { vec![event] };
    Ok(Decision { events, effect })
}

/// What a peer's call leads to: its claim is checked first, and a higher fencing epoch takes the lease over.
///
/// # Errors
/// [`CallError::Fencing`] for a foreign token or an old epoch, [`CallError::Transition`] for a wrong moment.
pub fn call(lease: &Lease, claim: &Claim, command: &Command, now_ms: u64) -> Result<Decision, CallError> {
    let raised = match check(lease, claim)? {
        Standing::Newer if !lease.state.is_final() => Some(Event::EpochRaised { epoch: claim.epoch }),
        _ => None,
    };
    let current = match &raised {
        Some(event) => apply(lease, event)?,
        None => lease.clone(),
    };
    let mut decision = decide(&current, command, now_ms)?;
    if let Some(event) = raised {
        decision.events.insert(0, event);
    }
    Ok(decision)
}

/// What the engine's answer to [`Effect::Create`] means. `None` when the lease moved on meanwhile.
///
/// An error after which the container may exist releases the lease, so that it is destroyed to be sure; only an error
/// after which there is none refuses it. An engine that is not available did nothing now, but says nothing of an earlier
/// attempt whose end nobody saw, so it counts among the former. `endpoint` is where the renter logs in, from the container's port.
pub fn after_create(
    lease: &Lease,
    outcome: &Result<Container, EngineError>,
    endpoint: Option<Endpoint>,
    now_ms: u64,
) -> Option<Event> {
    if lease.state != LeaseState::Reserving {
        return None;
    }
    Some(match outcome {
        Ok(made) => {
            let (container, host_key) = (made.id.clone(), made.host_key.clone());
            Event::Started { container, endpoint, host_key, at_ms: now_ms }
        }
        Err(e) if e.nothing_happened() && !matches!(e, EngineError::Unavailable { .. }) => {
            let why = match e {
                EngineError::DeviceInUse { .. } => EndReason::DeviceNotFree,
                EngineError::Image { .. } => EndReason::ImageRefused,
                _ => EndReason::EngineRefused,
            };
            Event::Refused { why, note: e.to_string(), at_ms: now_ms }
        }
        Err(_) => Event::ReleaseWanted { why: EndReason::CreateUnclear },
    })
}

/// What the engine's answer to [`Effect::Destroy`] of this fencing epoch means. `None` when it has to be tried again,
/// and when it was another epoch's container that went: that one says nothing of the lease's own.
pub fn after_destroy(
    lease: &Lease,
    fencing_epoch: u64,
    outcome: &Result<bool, EngineError>,
    now_ms: u64,
) -> Option<Event> {
    let own = lease.container_epoch == Some(fencing_epoch);
    (own && lease.state == LeaseState::Releasing && outcome.is_ok()).then_some(Event::Destroyed { at_ms: now_ms })
}

/// The end of a lease whose time is over; `None` while it has time, and for leases that end or ended already.
pub fn expire(lease: &Lease, now_ms: u64) -> Option<Event> {
    if !lease.is_expired(now_ms) {
        return None;
    }
    match lease.state {
        LeaseState::Requested => {
            Some(Event::Refused { why: EndReason::Expired, note: "over before it began".into(), at_ms: now_ms })
        }
        LeaseState::Reserving | LeaseState::Running | LeaseState::Paused => {
            Some(Event::ReleaseWanted { why: EndReason::Expired })
        }
        _ => None,
    }
}
