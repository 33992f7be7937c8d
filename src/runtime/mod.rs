//! Supervision on actix: actors that are restarted, bounded, watched and stopped in order.
//!
//! Stock actix runs an actor as one future; a panic ends it and closes its mailbox for good. Here each actor is
//! owned by a *cell* for the life of the process. The cell holds the mailbox and at most one *incarnation* (actor,
//! context, its futures), polls it under `catch_unwind` and, on a failure, drops it, backs off and builds a **new**
//! actor from its factory. Addresses and queued messages survive; state does not.
//!
//! The pieces, in the order a reader should take:
//!
//! * [`State`], [`Cause`], [`Failure`]: the words. [`Backoff`]: how long and how often (pure).
//! * [`Handle`]: the only way in. Bounded exactly, asks have deadlines, errors are typed.
//! * [`Ctx`]: actix's context of one incarnation; sees every message and reply, so actors carry no vitals code.
//! * [`Tree`]: declares and starts the actors of a node, monitors them, stops them in reverse order.
//! * [`TreeView`]: what `/metrics`, `/readyz` and `/debug/actors` read. [`Fault`]: drills.
//!
//! # Invariants
//!
//! * Nobody outside a cell drops, polls or replaces an actor; nobody outside a [`Handle`] sends to one.
//! * A caller in flight hears [`AskError::Crashed`] at once when the incarnation fails, and never before the
//!   actor's state says so.
//! * A mailbox never admits more than its capacity, however many clones of its handle exist; a message occupies its
//!   slot until its *reply* is done.
//! * `stopping` and `stopped` run only on an orderly end. Panics in factory, `started`, `stopping`, `stopped` and
//!   `Drop` are failures like any other; none reaches the arbiter.
//! * A turn handles at most 128 messages, then other tasks of the thread get theirs.
//! * A blocked thread cannot be cured from inside: it escalates as [`Exit::Wedged`](crate::exit::Exit::Wedged).
//!
//! No design in one process survives a stack overflow, an out-of-memory kill or a panic while panicking: a node runs
//! under a service manager, and what must survive is on disk.
//!
//! # Writing an actor
//!
//! ```
//! use actix::prelude::*; // its own `Supervised` gives way to the one named here
//! use compute_subnet::runtime::{Ctx, Inspect, Supervised};
//!
//! #[derive(Message)]
//! #[rtype(result = "u64")]
//! struct Add(u64);
//!
//! struct Counter(u64);
//! impl Actor for Counter {
//!     type Context = Ctx<Self>;
//! }
//! impl Supervised for Counter {
//!     const MESSAGES: &'static [&'static str] = &["Add"];
//! }
//! impl Handler<Add> for Counter {
//!     type Result = u64;
//!     fn handle(&mut self, add: Add, _: &mut Ctx<Self>) -> u64 {
//!         self.0 += add.0;
//!         self.0
//!     }
//! }
//! impl Handler<Inspect> for Counter {
//!     type Result = MessageResult<Inspect>;
//!     fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
//!         MessageResult(serde_json::json!({ "total": self.0 }))
//!     }
//! }
//! ```

mod backoff;
mod cell;
mod ctx;
mod envelope;
mod fault;
mod handle;
mod incarnation;
mod metrics;
mod monitor;
mod panics;
mod shutdown;
mod state;
mod tree;
mod view;
mod vitals;

#[cfg(test)]
mod tests;

pub use backoff::Backoff;
pub(crate) use backoff::Failures;
pub use ctx::{Ctx, Inspect, Supervised};
pub use fault::Fault;
pub use handle::{AskError, Handle, TellError};
pub use metrics::RuntimeMetrics;
pub use state::{Cause, Failure, Outcome, Report, State};
pub use tree::{ChildSpec, Placement, Seat, StartError, Tree, TreeConfig};
pub use view::TreeView;
pub use vitals::Vitals;
