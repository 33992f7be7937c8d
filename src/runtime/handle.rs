//! The way in: bounded, with deadlines and typed errors.
//!
//! actix's own bound is per clone of an address (each clone is granted one extra slot) and `do_send` ignores it. Here
//! a semaphore is the bound, and its permit travels with the message until the reply is done.

use super::ctx::Ctx;
use super::envelope::with_slot;
use super::state::State;
use super::vitals::{Slot, Vitals};
use actix::dev::ToEnvelope;
use actix::prelude::*;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::TryAcquireError;
use tokio::time::{Instant, timeout_at};

/// Why an ask has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AskError {
    /// No slot within the deadline: the actor is alive but behind, or in backoff. The message was not sent.
    #[error("mailbox full until the deadline")]
    Overloaded,
    /// Admitted, but no reply within the deadline. It may still be handled, unless it was yet queued.
    #[error("no reply within the deadline")]
    Deadline,
    /// The actor failed while the message was in its hands. It is being restarted.
    #[error("the actor crashed while it handled the message")]
    Crashed,
    /// The actor is shut down, or was given up.
    #[error("the actor is gone")]
    Gone,
}

/// Why a tell was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TellError {
    /// The mailbox holds its capacity.
    #[error("mailbox full")]
    Full,
    /// The actor is shut down, or was given up.
    #[error("the actor is gone")]
    Gone,
}

/// The only way to reach a supervised actor. Stays valid over restarts; cloning it does not widen the mailbox.
pub struct Handle<A: Actor> {
    addr: Addr<A>,
    vitals: Arc<Vitals>,
}

impl<A: Actor> Handle<A> {
    pub(crate) fn new(addr: Addr<A>, vitals: Arc<Vitals>) -> Self {
        Handle { addr, vitals }
    }
    pub(crate) fn addr(&self) -> &Addr<A> {
        &self.addr
    }
    /// Messages admitted and not yet answered.
    pub fn depth(&self) -> usize {
        self.vitals.depth()
    }
    /// Messages admitted at once.
    pub fn capacity(&self) -> usize {
        self.vitals.capacity()
    }
    /// The actor's vital signs.
    pub fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }
}

impl<A: Actor<Context = Ctx<A>>> Handle<A> {
    /// Sends `msg` and waits for its reply, both within `deadline`. The caller's tracing span goes along.
    ///
    /// # Errors
    /// See [`AskError`]. Never waits longer than `deadline`, whatever the actor's thread does.
    pub async fn ask<M>(&self, msg: M, deadline: Duration) -> Result<M::Result, AskError>
    where
        A: actix::Handler<M>,
        Ctx<A>: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let now = Instant::now();
        let until = now.checked_add(deadline).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365 * 30));
        let slot = match Slot::try_take(&self.vitals) {
            Ok(slot) => slot,
            Err(TryAcquireError::Closed) => return Err(AskError::Gone),
            Err(TryAcquireError::NoPermits) => match timeout_at(until, Slot::take(&self.vitals)).await {
                Ok(Ok(slot)) => slot,
                Ok(Err(_closed)) => return Err(AskError::Gone),
                Err(_elapsed) => return Err(AskError::Overloaded),
            },
        };
        #[expect(clippy::disallowed_methods, reason = "this is the method that the ban points to")]
        let request = with_slot(slot, || self.addr.send(msg));
        match timeout_at(until, request).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_closed)) => match self.vitals.state() {
                State::Draining | State::Stopped | State::Failed => Err(AskError::Gone),
                State::Starting | State::Running | State::BackingOff => Err(AskError::Crashed),
            },
            Err(_elapsed) => Err(AskError::Deadline),
        }
    }

    /// Sends `msg` without waiting for a reply.
    ///
    /// # Errors
    /// If the mailbox is full or the actor is gone; the message is then dropped.
    pub fn tell<M>(&self, msg: M) -> Result<(), TellError>
    where
        A: actix::Handler<M>,
        Ctx<A>: ToEnvelope<A, M>,
        M: Message + Send + 'static,
        M::Result: Send,
    {
        let slot = Slot::try_take(&self.vitals).map_err(|e| match e {
            TryAcquireError::Closed => TellError::Gone,
            TryAcquireError::NoPermits => TellError::Full,
        })?;
        if !self.addr.connected() {
            return Err(TellError::Gone);
        }
        #[expect(clippy::disallowed_methods, reason = "this is the method that the ban points to")]
        with_slot(slot, || self.addr.do_send(msg));
        Ok(())
    }
}

impl<A: Actor> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Handle { addr: self.addr.clone(), vitals: self.vitals.clone() }
    }
}
impl<A: Actor> fmt::Debug for Handle<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.vitals.name()).finish()
    }
}
