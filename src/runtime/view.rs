//! What the rest of a node may see of its actors, from any thread.

use super::fault::{Control, Fault};
use super::handle::AskError;
use super::state::{Cause, Failure, Report, State};
use super::vitals::Vitals;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::mpsc;

/// Asks an actor for its snapshot, whatever its type.
pub(crate) type Inspector =
    Arc<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = Result<serde_json::Value, AskError>> + Send>> + Send + Sync>;

/// One actor as others see it.
#[derive(Clone)]
pub(crate) struct Child {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) lane: mpsc::Sender<Control>,
    pub(crate) inspect: Inspector,
}

/// A window into a [`Tree`](super::Tree). Cheap to clone, stays valid after the tree ended. A name that the tree does
/// not know gives `None`, `0` or [`AskError::Gone`].
#[derive(Clone, Default)]
pub struct TreeView(Arc<RwLock<Vec<Child>>>);

impl TreeView {
    pub(crate) fn add(&self, child: Child) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).push(child);
    }
    fn children(&self) -> Vec<Child> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub(crate) fn child(&self, name: &str) -> Option<Child> {
        let children = self.0.read().unwrap_or_else(PoisonError::into_inner);
        children.iter().find(|c| c.vitals.name() == name).cloned()
    }
    pub(crate) fn lanes(&self) -> Vec<(Arc<Vitals>, mpsc::Sender<Control>)> {
        self.children().into_iter().map(|c| (c.vitals, c.lane)).collect()
    }

    /// The actors, in the order they were declared.
    pub fn names(&self) -> Vec<&'static str> {
        self.children().iter().map(|c| c.vitals.name()).collect()
    }
    /// The actor's vital signs.
    pub fn vitals(&self, name: &str) -> Option<Arc<Vitals>> {
        self.child(name).map(|c| c.vitals)
    }
    /// The actor's state.
    pub fn state(&self, name: &str) -> Option<State> {
        self.child(name).map(|c| c.vitals.state())
    }
    /// The actor's last failure, if it had one.
    pub fn last_failure(&self, name: &str) -> Option<Failure> {
        self.child(name).and_then(|c| c.vitals.last_failure())
    }
    /// Restarts of the actor for this cause.
    pub fn restarts(&self, name: &str, cause: Cause) -> u64 {
        self.child(name).map_or(0, |c| c.vitals.restarts(cause))
    }
    /// The actors that are not running, with their states; empty when the node is ready.
    pub fn not_running(&self) -> Vec<(&'static str, State)> {
        let states = self.children().into_iter().map(|c| (c.vitals.name(), c.vitals.state()));
        states.filter(|(_, state)| *state != State::Running).collect()
    }
    /// Whether every actor is running.
    pub fn all_running(&self) -> bool {
        self.not_running().is_empty()
    }
    /// Waits until the actor is in `state`. `false` if it is not within `limit`, or there is no such actor.
    pub async fn wait_for(&self, name: &str, state: State, limit: Duration) -> bool {
        let Some(child) = self.child(name) else { return false };
        let mut states = child.vitals.watch_state();
        matches!(tokio::time::timeout(limit, states.wait_for(|s| *s == state)).await, Ok(Ok(_)))
    }
    /// Brings the gauges that only a scrape needs up to date: mailbox depth, heartbeat age. Call it before gathering.
    pub fn refresh_metrics(&self) {
        for child in self.children() {
            child.vitals.refresh();
        }
    }
    /// Every actor's report, in the order they were declared.
    pub fn reports(&self) -> Vec<Report> {
        self.children().iter().map(|c| c.vitals.report()).collect()
    }
    /// The actor's own snapshot, asked for through its mailbox like any other message.
    ///
    /// # Errors
    /// Those of [`Handle::ask`](super::Handle::ask); [`AskError::Gone`] for a name that is not there.
    pub async fn inspect(&self, name: &str, deadline: Duration) -> Result<serde_json::Value, AskError> {
        match self.child(name) {
            Some(child) => (child.inspect)(deadline).await,
            None => Err(AskError::Gone),
        }
    }
    /// Injects a fault into the actor's present incarnation, past its mailbox. For drills and tests only. `false` if
    /// there is no such actor or it takes no commands any more; an actor that is just backing off ignores it.
    pub fn inject(&self, name: &str, fault: Fault) -> bool {
        self.child(name).is_some_and(|c| c.lane.try_send(Control::Inject(fault)).is_ok())
    }
}

impl fmt::Debug for TreeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.children().into_iter().map(|c| (c.vitals.name(), c.vitals.state()));
        f.debug_map().entries(states).finish()
    }
}
