//! Owns one actor for the life of the process: its mailbox, and one incarnation after another.

use super::backoff::{Backoff, Failures};
use super::ctx::Ctx;
use super::fault::Control;
use super::handle::Handle;
use super::incarnation::{Incarnation, Turn};
use super::panics::{Caught, contain};
use super::state::{Cause, Failure, State};
use super::vitals::Vitals;
use actix::dev::channel::AddressReceiver;
use actix::prelude::*;
use futures_util::Stream;
use rand::Rng as _;
use rand::rngs::SmallRng;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep};

/// Builds an incarnation's actor.
pub(crate) type Factory<A> = Box<dyn FnMut(&mut Ctx<A>) -> A + Send>;

/// Why a node must come down.
#[derive(Debug, Clone)]
pub(crate) enum Escalation {
    /// An actor failed more often than its backoff allows.
    Failed { actor: &'static str },
    /// An actor's thread is blocked.
    Wedged { actor: &'static str },
}

/// How a cell behaves; fixed at start.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    pub(crate) backoff: Backoff,
    pub(crate) jitter: f64,
    pub(crate) heartbeat: Duration,
}

enum Phase {
    /// No incarnation; the next one is made when this is over (dependencies up, or backoff elapsed).
    Away(Pin<Box<dyn Future<Output = ()> + Send>>),
    Running,
    Draining(Pin<Box<Sleep>>),
}

/// Why an incarnation ended.
struct Death {
    cause: Cause,
    text: String,
    location: Option<String>,
    backtrace: Option<String>,
}
impl Death {
    fn of(cause: Cause, text: impl Into<String>) -> Self {
        Death { cause, text: text.into(), location: None, backtrace: None }
    }
    fn panic(cause: Cause, caught: Caught) -> Self {
        Death { cause, text: caught.text, location: caught.location, backtrace: caught.backtrace }
    }
}

/// The supervisor of one actor; a future that lives on the actor's thread.
pub(crate) struct Cell<A: Actor> {
    handle: Handle<A>,
    vitals: Arc<Vitals>,
    mailbox: AddressReceiver<A>,
    live: Option<Incarnation<A>>,
    phase: Phase,
    factory: Factory<A>,
    policy: Policy,
    failures: Failures,
    rng: SmallRng,
    control: mpsc::Receiver<Control>,
    drained: Vec<oneshot::Sender<bool>>,
    /// Admitted messages were left at the drain's deadline.
    cut: bool,
    escalate: mpsc::Sender<Escalation>,
}

/// What a cell is made of.
pub(crate) struct Parts<A: Actor> {
    pub(crate) handle: Handle<A>,
    pub(crate) mailbox: AddressReceiver<A>,
    pub(crate) control: mpsc::Receiver<Control>,
    pub(crate) escalate: mpsc::Sender<Escalation>,
    pub(crate) policy: Policy,
    pub(crate) rng: SmallRng,
    /// Resolves when everything this actor depends on is up.
    pub(crate) ready: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<A: Actor<Context = Ctx<A>>> Cell<A> {
    pub(crate) fn new(parts: Parts<A>, factory: Factory<A>) -> Self {
        Cell {
            vitals: parts.handle.vitals().clone(),
            handle: parts.handle,
            mailbox: parts.mailbox,
            live: None,
            // The first start takes the same path as every later one, so its failures are failures like any other.
            phase: Phase::Away(parts.ready),
            factory,
            policy: parts.policy,
            failures: Failures::default(),
            rng: parts.rng,
            control: parts.control,
            drained: Vec::new(),
            cut: false,
            escalate: parts.escalate,
        }
    }

    fn incarnate(&mut self) -> Result<(), Death> {
        self.vitals.reborn();
        self.vitals.set_state(State::Starting);
        let mut ctx = Ctx::new(self.handle.clone());
        let act = match contain(|| (self.factory)(&mut ctx)) {
            Ok(act) => act,
            Err(caught) => {
                let _ = contain(move || drop(ctx)); // what the factory spawned may panic in its Drop
                return Err(Death::panic(Cause::PanicInFactory, caught));
            }
        };
        let vitals = self.vitals.clone();
        // Armed inside the actor's own context: silent when the thread is blocked, and when the actor is deaf.
        ctx.run_interval(self.policy.heartbeat, move |_, _| vitals.beat());
        self.live = Some(Incarnation::new(act, ctx));
        self.phase = Phase::Running;
        Ok(())
    }

    /// Ends this incarnation. Its futures are dropped here, so every caller with a message in flight hears of it at
    /// once. `false` when the actor is given up.
    fn failed(&mut self, death: Death) -> bool {
        let Death { cause, text, location, backtrace } = death;
        let verdict = self.failures.note(Instant::now(), &self.policy.backoff);
        let failure = Failure { cause, text, location, at: SystemTime::now() };
        let delay = verdict.map(|n| self.policy.backoff.delay(n, self.policy.jitter, self.rng.random()));
        tracing::error!(
            actor = self.vitals.name(),
            %cause,
            text = %failure.text,
            location = failure.location.as_deref(),
            backtrace,
            failures_in_window = verdict,
            restart_in_ms = delay.map(|d| d.as_millis() as u64),
            "{}", if delay.is_some() { "actor failed, restarting" } else { "actor failed too often, giving up" }
        );
        self.vitals.failed(failure);
        self.vitals.set_state(if delay.is_some() { State::BackingOff } else { State::Failed });
        let Some(delay) = delay else {
            let _ = self.escalate.try_send(Escalation::Failed { actor: self.vitals.name() });
            return false;
        };
        self.vitals.restarted(cause);
        self.bury();
        self.phase = Phase::Away(Box::pin(sleep(delay)));
        true
    }

    /// Drops the incarnation, whatever its destructors do.
    fn bury(&mut self) {
        if let Some(dead) = self.live.take()
            && let Err(caught) = contain(move || drop(dead))
        {
            tracing::error!(actor = self.vitals.name(), text = %caught.text, location = caught.location, "panic in drop");
        }
    }

    /// Runs `stopping` and `stopped`: only for an orderly end, never for an actor that failed.
    fn say_goodbye(&mut self) {
        if let Some(live) = self.live.as_mut()
            && let Err(caught) = contain(|| live.say_goodbye())
        {
            tracing::error!(actor = self.vitals.name(), text = %caught.text, location = caught.location, "panic in stopping");
        }
    }

    /// The end: the mailbox closes, what is still queued is dropped (and counted), who waits for it hears of it.
    fn finish(&mut self, state: State, cx: &mut task::Context<'_>) -> Poll<()> {
        self.vitals.close();
        self.vitals.set_state(state);
        self.bury();
        while let Poll::Ready(Some(envelope)) = Pin::new(&mut self.mailbox).poll_next(cx) {
            let _ = contain(move || drop(envelope));
        }
        for done in self.drained.drain(..) {
            let _ = done.send(!self.cut);
        }
        Poll::Ready(())
    }

    /// Follows the control lane. `Some`: it ended the cell.
    fn obey(&mut self, cx: &mut task::Context<'_>) -> Option<Poll<()>> {
        while let Poll::Ready(Some(command)) = self.control.poll_recv(cx) {
            match command {
                Control::Probe(answer) => {
                    let _ = answer.send(self.vitals.state());
                }
                Control::Restart { if_silent_for } => {
                    let silence = self.vitals.silent_for();
                    if matches!(self.phase, Phase::Running) && silence >= if_silent_for {
                        let text = format!("no heartbeat for {:.1} s", silence.as_secs_f64());
                        if !self.failed(Death::of(Cause::Unresponsive, text)) {
                            return Some(self.finish(State::Failed, cx));
                        }
                    }
                }
                Control::Inject(fault) => {
                    if let Some(live) = self.live.as_mut() {
                        live.ctx.fault = Some(fault);
                    }
                }
                Control::Drain { deadline, done } => {
                    self.drained.push(done);
                    self.vitals.close();
                    if self.live.is_none() {
                        return Some(self.finish(State::Stopped, cx));
                    }
                    if !matches!(self.phase, Phase::Draining(_)) {
                        self.vitals.set_state(State::Draining);
                        self.phase = Phase::Draining(Box::pin(sleep(deadline)));
                    }
                }
            }
        }
        None
    }

    /// Polls the incarnation once. A panic in it is a death.
    fn turn(&mut self, cx: &mut task::Context<'_>) -> Result<Turn, Death> {
        let Cell { live, mailbox, .. } = self;
        let Some(live) = live.as_mut() else { return Ok(Turn::Stopped) };
        contain(|| live.turn(mailbox, cx)).map_err(|caught| Death::panic(Cause::Panic, caught))
    }
}

impl<A: Actor> Unpin for Cell<A> {}

impl<A: Actor> Drop for Cell<A> {
    /// A cell that is dropped without a drain (its thread was stopped) must not leave callers waiting.
    fn drop(&mut self) {
        self.vitals.close();
        if !matches!(self.vitals.state(), State::Stopped | State::Failed) {
            self.vitals.set_state(State::Stopped);
        }
    }
}

impl<A: Actor<Context = Ctx<A>>> Future for Cell<A> {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if let Some(end) = this.obey(cx) {
            return end;
        }
        loop {
            let death = match &mut this.phase {
                Phase::Away(until) => {
                    if until.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    match this.incarnate() {
                        Ok(()) => continue,
                        Err(death) => death,
                    }
                }
                Phase::Running => match this.turn(cx) {
                    Ok(Turn::Idle) => return Poll::Pending,
                    Ok(Turn::Yield) => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Ok(Turn::Failed(text)) => Death::of(Cause::Error, text),
                    Ok(Turn::Stopped) => {
                        this.say_goodbye();
                        Death::of(Cause::Stopped, "the actor stopped itself")
                    }
                    Err(death) => death,
                },
                Phase::Draining(deadline) => {
                    let over = deadline.as_mut().poll(cx).is_ready();
                    match this.turn(cx) {
                        Ok(Turn::Idle) if !over && this.vitals.depth() > 0 => return Poll::Pending,
                        Ok(Turn::Yield) if !over => {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        Ok(Turn::Idle | Turn::Yield | Turn::Stopped) => {
                            if over && this.vitals.depth() > 0 {
                                let unfinished = this.vitals.depth();
                                this.cut = true;
                                tracing::warn!(actor = this.vitals.name(), unfinished, "drain deadline passed");
                            }
                            this.say_goodbye();
                        }
                        Ok(Turn::Failed(text)) => {
                            tracing::error!(actor = this.vitals.name(), %text, "actor failed while draining");
                        }
                        Err(death) => {
                            let (text, location) = (death.text, death.location);
                            tracing::error!(actor = this.vitals.name(), %text, location, "actor panicked while draining");
                        }
                    }
                    return this.finish(State::Stopped, cx);
                }
            };
            if !this.failed(death) {
                return this.finish(State::Failed, cx);
            }
        }
    }
}
