//! A message on its way: packed with its slot and its caller's span, accounted for from mailbox to reply.
//!
//! Every message of every actor passes through [`Packed`], because [`Ctx`] implements actix's `ToEnvelope` with it.

use super::ctx::{BoxFut, Ctx};
use super::metrics::MessageSeries;
use super::state::Outcome;
use super::vitals::Slot;
use actix::dev::{Envelope, EnvelopeProxy, MessageResponse, OneshotSender, ToEnvelope};
use actix::prelude::*;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use tokio::time::Instant;
use tracing::Span;

thread_local! { static CARRIED: Cell<Option<Slot>> = const { Cell::new(None) }; }

/// Runs `send` so that the envelope packed in it carries `slot` (`ToEnvelope::pack` is static, so it cannot be an
/// argument). A slot that nobody took, because the mailbox was closed, is given back.
pub(crate) fn with_slot<T>(slot: Slot, send: impl FnOnce() -> T) -> T {
    let _ = CARRIED.try_with(|carried| carried.set(Some(slot)));
    let out = send();
    drop(carried());
    out
}

fn carried() -> Option<Slot> {
    // Messages may be sent from destructors at a thread's end, when its locals are gone.
    CARRIED.try_with(Cell::take).ok().flatten()
}

/// A message in the mailbox.
struct Packed<M: Message> {
    msg: Option<M>,
    reply: Option<OneshotSender<M::Result>>,
    slot: Option<Slot>,
    enqueued: Instant,
    span: Span,
}

impl<A, M> ToEnvelope<A, M> for Ctx<A>
where
    A: Actor<Context = Ctx<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn pack(msg: M, reply: Option<OneshotSender<M::Result>>) -> Envelope<A> {
        let (slot, enqueued, span) = (carried(), Instant::now(), Span::current());
        Envelope::with_proxy(Box::new(Packed { msg: Some(msg), reply, slot, enqueued, span }))
    }
}

impl<A, M> EnvelopeProxy<A> for Packed<M>
where
    A: Actor<Context = Ctx<A>> + Handler<M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    fn handle(&mut self, act: &mut A, ctx: &mut Ctx<A>) {
        let Some(msg) = self.msg.take() else { return };
        let series = ctx.series::<M>();
        let since = Instant::now();
        ctx.vitals().waited(since.saturating_duration_since(self.enqueued).as_secs_f64());
        if self.reply.as_ref().is_some_and(|caller| caller.is_closed()) {
            return series.count(Outcome::Abandoned);
        }
        let span = std::mem::replace(&mut self.span, Span::none());
        let slot = self.slot.take();
        let mut inflight = InFlight { series, since, outcome: Outcome::Dropped, _slot: slot };
        let _caller = span.enter();
        match catch_unwind(AssertUnwindSafe(|| <A as Handler<M>>::handle(act, msg, ctx))) {
            Ok(response) => {
                let done = if ctx.failing() { Outcome::Error } else { Outcome::Ok };
                // What the response spawns or waits for while `replying` is set *is* the reply.
                ctx.replying = Some((inflight, span.clone()));
                response.handle(ctx, self.reply.take());
                if let Some((mut inflight, _)) = ctx.replying.take() {
                    inflight.outcome = done;
                }
            }
            Err(panic) => {
                inflight.outcome = Outcome::Panic;
                drop(inflight);
                ctx.last_words = self.reply.take().map(|caller| Box::new(caller) as Box<dyn std::any::Any>);
                resume_unwind(panic)
            }
        }
    }
}

impl<M: Message> Drop for Packed<M> {
    fn drop(&mut self) {
        if self.msg.is_some()
            && let Some(slot) = &self.slot
        {
            slot.lost::<M>();
        }
    }
}

/// One message from the mailbox to its reply. Counted when dropped; gives its slot back.
pub(crate) struct InFlight {
    series: Arc<MessageSeries>,
    since: Instant,
    outcome: Outcome,
    _slot: Option<Slot>,
}
impl Drop for InFlight {
    fn drop(&mut self) {
        self.series.handled(self.outcome, self.since.elapsed().as_secs_f64());
    }
}

/// A reply that takes time: runs in its caller's span, and its message stays in flight until it is done.
pub(crate) struct Reply<A: Actor> {
    fut: BoxFut<A>,
    inflight: InFlight,
    span: Span,
}
impl<A: Actor> Reply<A> {
    pub(crate) fn new(fut: BoxFut<A>, inflight: InFlight, span: Span) -> Self {
        Reply { fut, inflight, span }
    }
}
impl<A: Actor<Context = Ctx<A>>> ActorFuture<A> for Reply<A> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, act: &mut A, ctx: &mut Ctx<A>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let _caller = this.span.enter();
        let failing = ctx.failing();
        match catch_unwind(AssertUnwindSafe(|| this.fut.as_mut().poll(act, ctx, cx))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(())) => {
                this.inflight.outcome = if ctx.failing() && !failing { Outcome::Error } else { Outcome::Ok };
                Poll::Ready(())
            }
            Err(panic) => {
                this.inflight.outcome = Outcome::Panic;
                resume_unwind(panic)
            }
        }
    }
}
