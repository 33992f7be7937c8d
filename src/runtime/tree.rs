//! The actors of one node: declared, started in order, monitored, stopped in reverse order.

use super::backoff::Backoff;
use super::cell::{Cell, Escalation, Parts, Policy};
use super::ctx::{Ctx, Inspect, Supervised};
use super::fault::{CONTROL_LANE, Control};
use super::handle::Handle;
use super::metrics::RuntimeMetrics;
use super::monitor::{self, Limits};
use super::panics;
use super::shutdown::{Ended, Shutdown, Started};
use super::state::State;
use super::view::{Child, TreeView};
use super::vitals::Vitals;
use super::vitals::short_name;
use crate::exit::Exit;
use actix::dev::channel::{AddressReceiver, channel};
use actix::prelude::*;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::Instrument as _;

/// Where a node's actors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Each actor on a thread of its own: one that blocks its thread blocks only itself. Production.
    PerActor,
    /// All actors on one thread of the node. For many nodes in one process.
    PerNode,
    /// On the calling thread (which must be inside a `LocalSet` or an actix `System`). For tests and simulations with
    /// a paused clock; a blocked thread cannot be noticed.
    Here,
}

/// How a node supervises its actors.
#[derive(Debug, Clone)]
pub struct TreeConfig {
    /// The node's name in logs.
    pub node: String,
    /// Where its actors run.
    pub placement: Placement,
    /// When and how often they restart.
    pub backoff: Backoff,
    /// How often an actor shows that it lives.
    pub heartbeat: Duration,
    /// Silence after which the monitor acts; several heartbeats.
    pub silence_limit: Duration,
    /// How long a silent actor's thread may take to answer before it counts as blocked.
    pub probe_timeout: Duration,
    /// How often the monitor looks.
    pub monitor_period: Duration,
    /// Share, 0..=1, by which a backoff delay may be shortened at random.
    pub jitter: f64,
    /// Seed of the jitter, for reproducible runs; `None` takes one from the operating system.
    pub seed: Option<u64>,
}

impl Default for TreeConfig {
    /// Own thread each, heartbeat 250 ms, silence 3 s, probe 1 s, monitor 500 ms, jitter 0.2, default [`Backoff`].
    fn default() -> Self {
        TreeConfig {
            node: "node".to_owned(),
            placement: Placement::PerActor,
            backoff: Backoff::default(),
            heartbeat: Duration::from_millis(250),
            silence_limit: Duration::from_secs(3),
            probe_timeout: Duration::from_secs(1),
            monitor_period: Duration::from_millis(500),
            jitter: 0.2,
            seed: None,
        }
    }
}

/// What a tree must know of an actor.
#[derive(Debug, Clone, Copy)]
pub struct ChildSpec {
    /// Its name, unique in the node, in metrics and logs.
    pub name: &'static str,
    /// Messages admitted at once.
    pub mailbox: usize,
    /// Actors, started earlier, that must run before its first incarnation is made.
    pub after: &'static [&'static str],
    /// How long it may take to finish admitted messages when the node stops.
    pub drain: Duration,
}

/// Why an actor cannot be started. Both its specification and its order among the others are the program's own, so
/// every case but the last is a mistake in the program.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another actor has this name.
    #[error("actor {actor} is declared twice: give it a name of its own")]
    Duplicate {
        /// The name.
        actor: &'static str,
    },
    /// An entry of `after` was not started before.
    #[error("actor {actor} starts after {needs}, which was not started yet: start {needs} first")]
    UnmetDependency {
        /// The actor.
        actor: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Threads of actors belong to an actix `System`, and the calling thread has none, or the tree has no runtime.
    #[error("actor {actor} needs a thread: start it from inside an actix System, in a tree with a runtime")]
    NoSystem {
        /// The actor.
        actor: &'static str,
    },
    /// The operating system gave no thread.
    #[error("actor {actor} got no thread")]
    Thread {
        /// The actor.
        actor: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A declared actor's place, waiting for its factory. Messages queue in its mailbox meanwhile; dropped, it closes it.
pub struct Seat<A: Actor> {
    spec: ChildSpec,
    duplicate: bool,
    handle: Handle<A>,
    mailbox: AddressReceiver<A>,
    control: mpsc::Receiver<Control>,
    closer: Closer,
}
/// Closes the mailbox of a seat that is never started.
struct Closer(Option<Arc<Vitals>>);
impl Drop for Closer {
    fn drop(&mut self) {
        if let Some(vitals) = self.0.take() {
            vitals.close();
            vitals.set_state(State::Stopped);
        }
    }
}

/// The supervision tree of one node.
pub struct Tree {
    cfg: TreeConfig,
    metrics: Arc<RuntimeMetrics>,
    runtime: Option<Arc<tokio::runtime::Runtime>>,
    view: TreeView,
    started: Vec<Started>,
    arbiters: Vec<Arbiter>,
    escalate: mpsc::Sender<Escalation>,
    escalations: mpsc::Receiver<Escalation>,
}

impl Tree {
    /// A tree whose arbiters run on `runtime`: one multi-thread runtime for all of a process, so that background
    /// tasks of client libraries never stall behind an actor. Make and drop it outside any `block_on`.
    pub fn new(cfg: TreeConfig, metrics: Arc<RuntimeMetrics>, runtime: Arc<tokio::runtime::Runtime>) -> Self {
        Self::with(cfg, metrics, Some(runtime))
    }

    /// A tree on the calling thread, with [`Placement::Here`] whatever `cfg` says.
    pub fn here(cfg: TreeConfig, metrics: Arc<RuntimeMetrics>) -> Self {
        Self::with(TreeConfig { placement: Placement::Here, ..cfg }, metrics, None)
    }

    fn with(cfg: TreeConfig, metrics: Arc<RuntimeMetrics>, runtime: Option<Arc<tokio::runtime::Runtime>>) -> Self {
        panics::install_hook();
        // Whoever escalates first ends the node; the rest is history.
        let (escalate, escalations) = mpsc::channel(16);
        Tree {
            cfg,
            metrics,
            runtime,
            view: TreeView::default(),
            started: Vec::new(),
            arbiters: Vec::new(),
            escalate,
            escalations,
        }
    }

    /// A window into this tree.
    pub fn view(&self) -> TreeView {
        self.view.clone()
    }

    /// Makes an actor's mailbox and all its series. The handle works at once: messages queue until the actor starts,
    /// so handles can be given to other actors' factories in any order, cycles included.
    pub fn declare<A: Supervised>(&mut self, spec: ChildSpec) -> (Handle<A>, Seat<A>) {
        let duplicate = self.view.child(spec.name).is_some();
        let mut messages: Vec<&'static str> = A::MESSAGES.to_vec();
        let inspect = short_name(std::any::type_name::<Inspect>());
        if !messages.contains(&inspect) {
            messages.push(inspect);
        }
        // 0: actix's own bound is off, the semaphore in the vitals is the bound.
        let (sender, mailbox) = channel(0);
        let vitals = Vitals::new(spec.name, spec.mailbox, &messages, self.metrics.clone());
        let handle = Handle::new(Addr::new(sender), vitals.clone());
        let (lane, control) = mpsc::channel(CONTROL_LANE);
        if !duplicate {
            let asked = handle.clone();
            let inspect = Arc::new(move |deadline| {
                let asked = asked.clone();
                Box::pin(async move { asked.ask(Inspect, deadline).await }) as _
            });
            self.view.add(Child { vitals: vitals.clone(), lane, inspect });
        }
        (handle.clone(), Seat { spec, duplicate, handle, mailbox, control, closer: Closer(Some(vitals)) })
    }

    /// Starts a declared actor. Its first incarnation is made by `factory` once everything in `after` runs; later ones
    /// after each failure. The order of these calls is the start order, its reverse the stop order.
    ///
    /// # Errors
    /// See [`StartError`]; the actor's mailbox is then closed.
    pub fn start<A: Supervised>(
        &mut self,
        seat: Seat<A>,
        factory: impl FnMut(&mut Ctx<A>) -> A + Send + 'static,
    ) -> Result<(), StartError> {
        let Seat { spec, duplicate, handle, mailbox, control, mut closer } = seat;
        let actor = spec.name;
        let child = self.view.child(actor).filter(|_| !duplicate).ok_or(StartError::Duplicate { actor })?;
        let mut needs = Vec::new();
        for &name in spec.after {
            let dependency = self.started.iter().find(|s| s.vitals.name() == name);
            let dependency = dependency.ok_or(StartError::UnmetDependency { actor, needs: name })?;
            needs.push(dependency.vitals.watch_state());
        }
        let ready = Box::pin(async move {
            for mut state in needs {
                if state.wait_for(|s| *s == State::Running).await.is_err() {
                    std::future::pending::<()>().await; // it is gone for good, and so is the node
                }
            }
        });
        let policy = Policy {
            backoff: self.cfg.backoff.clone(),
            jitter: self.cfg.jitter,
            heartbeat: self.cfg.heartbeat.max(Duration::from_millis(1)),
        };
        // A given seed is made distinct per actor, the same in every run. Without randomness there is no jitter.
        let seed = self.cfg.seed.unwrap_or_else(|| getrandom::u64().unwrap_or_default());
        let rng = SmallRng::seed_from_u64(seed.wrapping_add(self.started.len() as u64));
        let arbiter = self.arbiter(actor)?;
        let escalate = self.escalate.clone();
        let span = tracing::info_span!("node", node = %self.cfg.node);
        let factory = Box::new(factory);
        let launch = move || {
            let cell = Cell::new(Parts { handle, mailbox, control, escalate, policy, rng, ready }, factory);
            tokio::task::spawn_local(cell.instrument(span));
        };
        match arbiter {
            None => launch(),
            Some(index) => {
                self.arbiters[index].spawn_fn(launch);
            }
        }
        closer.0 = None;
        self.started.push(Started { vitals: child.vitals, lane: child.lane, drain: spec.drain, arbiter });
        Ok(())
    }

    /// The thread for one more actor.
    fn arbiter(&mut self, actor: &'static str) -> Result<Option<usize>, StartError> {
        match self.cfg.placement {
            Placement::Here => return Ok(None),
            Placement::PerNode if !self.arbiters.is_empty() => return Ok(Some(0)),
            Placement::PerNode | Placement::PerActor => {}
        }
        let runtime = self.runtime.clone().filter(|_| System::try_current().is_some());
        let runtime = runtime.ok_or(StartError::NoSystem { actor })?;
        let arbiter =
            Arbiter::try_with_tokio_rt(move || Ok(runtime)).map_err(|source| StartError::Thread { actor, source })?;
        self.arbiters.push(arbiter);
        Ok(Some(self.arbiters.len() - 1))
    }

    /// Runs the node until `stop` resolves, an actor fails too often, or a thread is blocked. Then drains the actors
    /// in reverse start order, each within its own deadline (all together within 2 s when a thread is blocked), and ends
    /// their threads. Actors are monitored only while this runs.
    ///
    /// Returns [`Exit::Ok`], [`Exit::Escalated`] or [`Exit::Wedged`]; the last also if a thread turned out to be blocked
    /// during an orderly stop. A blocked thread is left behind: only the end of the process ends it.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Exit {
        let stop = async move {
            stop.await;
            None
        };
        self.run_until(stop).await
    }

    /// As [`Tree::run`]; `stop` says until when all drains together must be over, whatever each may take by itself.
    /// [`Exit::Unfinished`] if an actor had to be ended with messages left.
    pub async fn run_until(mut self, stop: impl Future<Output = Option<Instant>>) -> Exit {
        let limits = Limits {
            period: self.cfg.monitor_period,
            silence: self.cfg.silence_limit,
            probe: self.cfg.probe_timeout,
            recovery: self.cfg.heartbeat,
        };
        let watch = monitor::watch(self.view(), limits, self.escalate.clone());
        let watch = watch.instrument(tracing::info_span!("node", node = %self.cfg.node));
        let monitor = AbortOnDrop(match &self.runtime {
            Some(runtime) => runtime.spawn(watch),
            None => tokio::task::spawn_local(watch),
        });
        let (escalation, until) = tokio::select! {
            biased;
            escalation = self.escalations.recv() => (escalation, None),
            until = stop => (None, until),
        };
        drop(monitor);
        let mut shutdown = Shutdown::new(std::mem::take(&mut self.started), std::mem::take(&mut self.arbiters));
        if let Some(until) = until {
            shutdown.by(until);
        }
        let exit = match escalation {
            None => Exit::Ok,
            Some(Escalation::Failed { actor }) => {
                tracing::error!(node = %self.cfg.node, actor, "an actor failed too often, the node stops");
                Exit::Escalated
            }
            Some(Escalation::Wedged { actor }) => {
                tracing::error!(node = %self.cfg.node, actor, "an actor's thread is blocked, the node stops");
                shutdown.without(actor);
                Exit::Wedged
            }
        };
        match (exit, shutdown.run().await) {
            (Exit::Ok, Ended::Lost) => Exit::Wedged,
            (Exit::Ok, Ended::Cut) => Exit::Unfinished,
            (exit, _) => exit,
        }
    }
}

impl Drop for Tree {
    /// A tree that never ran leaves no threads behind.
    fn drop(&mut self) {
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);
impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree").field("node", &self.cfg.node).field("actors", &self.view).finish_non_exhaustive()
    }
}
impl<A: Actor> std::fmt::Debug for Seat<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Seat").field(&self.spec.name).finish()
    }
}
