//! The context of one incarnation: actix's, plus what supervision needs to see.

use super::envelope::{InFlight, Reply};
use super::fault::Fault;
use super::handle::Handle;
use super::metrics::MessageSeries;
use super::vitals::Vitals;
use actix::prelude::*;
use std::any::{Any, TypeId};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tracing::Span;

pub(crate) type BoxFut<A> = Pin<Box<dyn ActorFuture<A, Output = ()>>>;

/// Asks an actor for its own serialisable snapshot, shown by `/debug/actors`. Must be cheap and hold no secret.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "serde_json::Value")]
pub struct Inspect;

/// An actor that a [`Tree`](super::Tree) can supervise. Import it by name: `actix::prelude::*` has a trait of the same
/// name, which nothing here uses.
pub trait Supervised: Actor<Context = Ctx<Self>> + actix::Handler<Inspect> {
    /// The type names (last path segment) of the messages it handles, so that all their series exist from the start.
    /// [`Inspect`] is added by the runtime. A type that is missing here is counted all the same, from its first
    /// message on, with a warning.
    const MESSAGES: &'static [&'static str];
}

/// The context of one incarnation of an actor.
///
/// An ordinary actix context (`spawn`, `wait`, `run_later`, `run_interval`, `notify`, `stop`), to which actors add
/// nothing for their vitals. It dies with its incarnation: timers and futures never reach the next one.
pub struct Ctx<A: Actor> {
    handle: Handle<A>,
    state: ActorState,
    last_spawned: SpawnHandle,
    pub(crate) spawned: Vec<(SpawnHandle, BoxFut<A>)>,
    pub(crate) waits: Vec<BoxFut<A>>,
    pub(crate) cancelled: Vec<SpawnHandle>,
    /// Set only while a handler's return value becomes a reply: a future spawned in that moment *is* the reply,
    /// anything spawned earlier is background work of the actor.
    pub(crate) replying: Option<(InFlight, Span)>,
    /// The reply channel of the message whose handler panicked. Closed with the incarnation, so that its caller
    /// hears `Crashed` only after the actor's state says so.
    pub(crate) last_words: Option<Box<dyn Any>>,
    pub(crate) fault: Option<Fault>,
    failure: Option<String>,
    /// Series of the message types seen by this incarnation. A short list: scanned, not hashed.
    known: Vec<(TypeId, Arc<MessageSeries>)>,
}

impl<A: Actor> Ctx<A> {
    pub(crate) fn new(handle: Handle<A>) -> Self {
        Ctx {
            handle,
            state: ActorState::Running,
            last_spawned: SpawnHandle::default(),
            spawned: Vec::new(),
            waits: Vec::new(),
            cancelled: Vec::new(),
            replying: None,
            last_words: None,
            fault: None,
            failure: None,
            known: Vec::new(),
        }
    }

    /// The actor's name in its node.
    pub fn name(&self) -> &'static str {
        self.vitals().name()
    }

    /// The actor's own handle, to give to others.
    pub fn handle(&self) -> Handle<A> {
        self.handle.clone()
    }

    /// The actor's vital signs.
    pub fn vitals(&self) -> &Arc<Vitals> {
        self.handle.vitals()
    }

    /// Ends this incarnation because of an error it cannot go on with. The message at hand still gets the reply its
    /// handler returns; then the actor restarts with cause `error`, as after a panic: callers in flight hear
    /// `Crashed`, and neither `stopping` nor `stopped` is called. The first error of a turn is the one reported.
    pub fn fail(&mut self, error: impl std::fmt::Display) {
        self.failure.get_or_insert_with(|| error.to_string());
        self.state = ActorState::Stopped;
    }

    /// Declares a protected zone: for `zone` from now on, a missing heartbeat is not taken for deafness or a blocked
    /// thread. For a known long wait, in `started` for example. Zones do not add up; the latest end counts.
    pub fn protect(&self, zone: Duration) {
        self.vitals().excuse(zone);
    }

    pub(crate) fn stopping(&self) -> bool {
        self.state.stopping()
    }
    pub(crate) fn failing(&self) -> bool {
        self.failure.is_some()
    }
    pub(crate) fn take_failure(&mut self) -> Option<String> {
        self.failure.take()
    }
    pub(crate) fn series<M: 'static>(&mut self) -> Arc<MessageSeries> {
        let id = TypeId::of::<M>();
        if let Some((_, series)) = self.known.iter().find(|(known, _)| *known == id) {
            return series.clone();
        }
        let series = self.vitals().message::<M>();
        self.known.push((id, series.clone()));
        series
    }
}

impl<A: Actor<Context = Ctx<A>>> Ctx<A> {
    fn watch(&mut self, fut: impl ActorFuture<A, Output = ()> + 'static) -> BoxFut<A> {
        match self.replying.take() {
            Some((inflight, span)) => Box::pin(Reply::new(Box::pin(fut), inflight, span)),
            None => Box::pin(fut),
        }
    }
}

impl<A: Actor<Context = Self>> ActorContext for Ctx<A> {
    fn stop(&mut self) {
        if self.state.alive() {
            self.state = ActorState::Stopping;
        }
    }
    fn terminate(&mut self) {
        self.state = ActorState::Stopped;
    }
    fn state(&self) -> ActorState {
        self.state
    }
}

impl<A: Actor<Context = Self>> AsyncContext<A> for Ctx<A> {
    fn address(&self) -> Addr<A> {
        self.handle.addr().clone()
    }
    fn spawn<F: ActorFuture<A, Output = ()> + 'static>(&mut self, fut: F) -> SpawnHandle {
        self.last_spawned = self.last_spawned.next();
        let fut = self.watch(fut);
        self.spawned.push((self.last_spawned, fut));
        self.last_spawned
    }
    fn wait<F: ActorFuture<A, Output = ()> + 'static>(&mut self, fut: F) {
        let fut = self.watch(fut);
        self.waits.push(fut);
    }
    fn waiting(&self) -> bool {
        !self.waits.is_empty() || self.stopping()
    }
    fn cancel_future(&mut self, handle: SpawnHandle) -> bool {
        self.cancelled.push(handle);
        true
    }
}

impl<A: Actor> std::fmt::Debug for Ctx<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx").field("vitals", self.vitals()).field("state", &self.state).finish_non_exhaustive()
    }
}
