//! One life of an actor: the actor, its context and its futures, polled in turns.

use super::ctx::{BoxFut, Ctx};
use super::fault::Fault;
use actix::dev::EnvelopeProxy;
use actix::dev::channel::AddressReceiver;
use actix::prelude::*;
use futures_util::Stream;
use std::pin::Pin;
use std::task::{self, Poll};

/// Messages handled in one turn before other tasks of the thread get theirs.
const BUDGET: usize = 128;

/// How a turn ended.
pub(crate) enum Turn {
    /// Nothing to do until something wakes it.
    Idle,
    /// More messages are queued; come back.
    Yield,
    /// The actor stopped itself.
    Stopped,
    /// The actor called [`Ctx::fail`].
    Failed(String),
}

/// One life of an actor. Dropping it ends every reply in flight.
pub(crate) struct Incarnation<A: Actor> {
    act: A,
    pub(crate) ctx: Ctx<A>,
    items: Vec<(SpawnHandle, BoxFut<A>)>,
    /// The `wait` future being polled. Kept here, so that a panic in it drops it, and closes its caller's reply
    /// channel, only with the incarnation.
    polling: Option<BoxFut<A>>,
    started: bool,
    up: bool,
}

impl<A: Actor<Context = Ctx<A>>> Incarnation<A> {
    pub(crate) fn new(act: A, ctx: Ctx<A>) -> Self {
        Incarnation { act, ctx, items: Vec::new(), polling: None, started: false, up: false }
    }

    /// One turn, in actix's order: `wait` futures (newest first), the mailbox, spawned futures. May panic.
    pub(crate) fn turn(&mut self, mailbox: &mut AddressReceiver<A>, cx: &mut task::Context<'_>) -> Turn {
        if !self.started {
            self.started = true;
            self.act.started(&mut self.ctx);
        }
        if let Some(fault) = self.ctx.fault.take() {
            self.strike(fault);
        }
        let mut budget = BUDGET;
        loop {
            if !self.waits_done(cx) {
                return self.settle(Turn::Idle);
            }
            if !self.up && !self.ctx.stopping() {
                // What `started` waits on is done as well: only now do others depend on it.
                self.up = true;
                self.ctx.vitals().up();
            }
            while budget > 0 && !self.ctx.waiting() {
                let Poll::Ready(Some(mut envelope)) = Pin::new(&mut *mailbox).poll_next(cx) else { break };
                envelope.handle(&mut self.act, &mut self.ctx);
                budget -= 1;
            }
            if self.must_wait() {
                continue;
            }
            self.poll_spawned(cx);
            if self.must_wait() {
                continue;
            }
            return self.settle(if budget == 0 { Turn::Yield } else { Turn::Idle });
        }
    }

    /// Ends in order: `stopping`, `stopped`. May panic. The answer of `stopping` is not asked for: a drain cannot be
    /// refused, and an actor that stopped itself is replaced.
    pub(crate) fn say_goodbye(&mut self) {
        self.ctx.stop();
        self.act.stopping(&mut self.ctx);
        self.act.stopped(&mut self.ctx);
    }

    /// `true` when nothing is waited for any more (or the actor is ending).
    fn waits_done(&mut self, cx: &mut task::Context<'_>) -> bool {
        while !self.ctx.stopping() {
            let Some(wait) = self.ctx.waits.pop() else { return true };
            let below = self.ctx.waits.len();
            let polling = self.polling.insert(wait);
            let pending = polling.as_mut().poll(&mut self.act, &mut self.ctx, cx).is_pending();
            if let Some(wait) = self.polling.take().filter(|_| pending) {
                // Under what it may have begun to wait for itself: that comes first.
                self.ctx.waits.insert(below, wait);
                if self.ctx.waits.len() == below + 1 {
                    return false;
                }
            }
        }
        true
    }

    fn poll_spawned(&mut self, cx: &mut task::Context<'_>) {
        loop {
            self.items.append(&mut self.ctx.spawned);
            for handle in std::mem::take(&mut self.ctx.cancelled) {
                self.items.retain(|(h, _)| *h != handle);
            }
            let mut i = 0;
            while i < self.items.len() && !self.ctx.stopping() {
                match self.items[i].1.as_mut().poll(&mut self.act, &mut self.ctx, cx) {
                    Poll::Ready(()) => drop(self.items.swap_remove(i)),
                    Poll::Pending => i += 1,
                }
                if !self.ctx.cancelled.is_empty() {
                    break;
                }
                if self.must_wait() {
                    return;
                }
            }
            if self.ctx.stopping() || (self.ctx.spawned.is_empty() && self.ctx.cancelled.is_empty()) {
                return;
            }
        }
    }

    fn must_wait(&self) -> bool {
        !self.ctx.waits.is_empty() && !self.ctx.stopping()
    }

    fn settle(&mut self, otherwise: Turn) -> Turn {
        match self.ctx.take_failure() {
            Some(text) => Turn::Failed(text),
            None if self.ctx.stopping() => Turn::Stopped,
            None => otherwise,
        }
    }

    fn strike(&mut self, fault: Fault) {
        tracing::warn!(actor = self.ctx.name(), ?fault, "injected fault strikes");
        match fault {
            Fault::Panic => panic!("injected panic"),
            Fault::Error => self.ctx.fail("injected error"),
            Fault::Deaf => self.ctx.wait(actix::fut::wrap_future::<_, A>(std::future::pending())),
            #[expect(clippy::disallowed_methods, reason = "blocking the thread is what this fault is")]
            Fault::Block(time) => std::thread::sleep(time),
        }
    }
}
