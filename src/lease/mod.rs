//! Rentals: the state machine, fencing epochs and the container engines.
//!
//! Read in this order: [`machine`] (what a lease is and which changes it may take), [`decide`] (commands become events
//! to write down and effects to carry out), [`fencing`] (who may command), [`ledger`] (which device belongs to whom),
//! [`health`] (when a lease is lost), [`revival`] (when an ended container is started again), [`reconcile`] (what to do after a crash),
//! [`aside`] (containers that no record explains) and [`engine`] (where containers live).
//!
//! Everything but [`engine`] and [`banner`] is pure: it takes `now` and returns values. The order of work is always the same: write
//! the event, carry out the effect, write what came of it. A crash between any two of these steps is repaired by
//! [`reconcile::reconcile`], which compares the journal with the labels of the containers that the engine shows.
//!
//! # Invariants
//! - No device has two leases ([`ledger::DeviceLedger`], and each engine again on its own).
//! - No running lease is destroyed by a crash; what another fencing epoch may own is set aside, not killed.
//! - Every container that was created has an owner or is destroyed in the end.
//! - [`LeaseState::Released`] is reached only by [`Event::Destroyed`]: a release is reported when it happened.

pub mod aside;
pub mod banner;
pub mod decide;
pub mod engine;
pub mod fencing;
pub mod health;
pub mod ledger;
pub mod machine;
pub mod reconcile;
pub mod revival;

#[cfg(test)]
mod tests;

pub use decide::{Command, Decision, Effect};
pub use engine::{Container, ContainerEngine, ContainerSpec, ContainerState, EngineError, Grant, Labels};
pub use fencing::{Claim, FencingError, OwnerToken};
pub use ledger::DeviceLedger;
pub use machine::{
    EndReason, Endpoint, Event, Lease, LeaseState, LeaseTerms, ProvedDevice, Role, TermsError, TransitionError, apply,
};
