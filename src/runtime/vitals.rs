//! What is known of one actor from outside: its state, restarts, mailbox, last sign of life.
//!
//! Shared by the cell (writes), handles (mailbox slots), the monitor and the view (read). Nothing here blocks.

use super::metrics::{ActorSeries, MessageSeries, RuntimeMetrics};
use super::state::{Cause, Failure, Outcome, Report, State};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{AcquireError, Semaphore, TryAcquireError, watch};
use tokio::time::Instant;

/// One actor's vital signs.
pub struct Vitals {
    name: &'static str,
    epoch: Instant,
    state: watch::Sender<State>,
    restarts: [AtomicU64; Cause::ALL.len()],
    last_failure: Mutex<Option<Failure>>,
    /// Milliseconds since `epoch`.
    beat_ms: AtomicU64,
    /// Milliseconds since `epoch` until which silence is excused.
    excused_ms: AtomicU64,
    born: AtomicBool,
    slots: Semaphore,
    capacity: usize,
    series: ActorSeries,
    /// Message types missing from `MESSAGES`; found when first handled.
    undeclared: Mutex<Vec<Arc<MessageSeries>>>,
    metrics: Arc<RuntimeMetrics>,
}

impl Vitals {
    pub(crate) fn new(
        name: &'static str,
        capacity: usize,
        messages: &[&'static str],
        metrics: Arc<RuntimeMetrics>,
    ) -> Arc<Self> {
        let vitals = Vitals {
            name,
            epoch: Instant::now(),
            state: watch::Sender::new(State::Starting),
            restarts: Cause::ALL.map(|_| AtomicU64::new(0)),
            last_failure: Mutex::new(None),
            beat_ms: AtomicU64::new(0),
            excused_ms: AtomicU64::new(0),
            born: AtomicBool::new(false),
            slots: Semaphore::new(capacity),
            capacity,
            series: metrics.actor(name, messages),
            undeclared: Mutex::new(Vec::new()),
            metrics,
        };
        vitals.series.capacity.set(capacity as i64);
        vitals.set_state(State::Starting);
        Arc::new(vitals)
    }

    // === what anyone may read ===

    /// The actor's name.
    pub fn name(&self) -> &'static str {
        self.name
    }
    /// The actor's state.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }
    /// A receiver that follows the state.
    pub fn watch_state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }
    /// Restarts for this cause since the actor was declared.
    pub fn restarts(&self, cause: Cause) -> u64 {
        self.restarts[cause as usize].load(Relaxed)
    }
    /// Restarts for any cause.
    pub fn restarts_total(&self) -> u64 {
        Cause::ALL.iter().map(|c| self.restarts(*c)).sum()
    }
    /// The last failure, if there was one.
    pub fn last_failure(&self) -> Option<Failure> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Messages admitted and not yet answered.
    pub fn depth(&self) -> usize {
        self.capacity - self.slots.available_permits().min(self.capacity)
    }
    /// Messages admitted at once.
    pub fn capacity(&self) -> usize {
        self.capacity
    }
    /// Time since the actor's last heartbeat.
    pub fn heartbeat_age(&self) -> Duration {
        self.since(self.beat_ms.load(Relaxed))
    }
    /// Time since the last heartbeat or the end of a protected zone, whichever is later.
    pub fn silent_for(&self) -> Duration {
        self.since(self.beat_ms.load(Relaxed).max(self.excused_ms.load(Relaxed)))
    }

    /// All of the above in one value.
    pub fn report(&self) -> Report {
        let restarts = Cause::ALL.map(|c| (c.label(), self.restarts(c)));
        Report {
            name: self.name,
            state: self.state(),
            restarts: restarts.into_iter().filter(|(_, n)| *n > 0).collect(),
            last_failure: self.last_failure(),
            mailbox_depth: self.depth(),
            mailbox_capacity: self.capacity,
            heartbeat_age_ms: self.heartbeat_age().as_millis() as u64,
        }
    }

    // === what the cell and its context write ===

    fn since(&self, ms: u64) -> Duration {
        self.epoch.elapsed().saturating_sub(Duration::from_millis(ms))
    }
    fn ms_now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
    pub(crate) fn set_state(&self, state: State) {
        self.state.send_replace(state);
        for s in State::ALL {
            self.series.states[s as usize].set(i64::from(s == state));
        }
    }
    /// `Starting` becomes `Running`; any other state stays.
    pub(crate) fn up(&self) {
        if self.state() == State::Starting {
            self.set_state(State::Running);
        }
    }
    pub(crate) fn failed(&self, failure: Failure) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
    pub(crate) fn restarted(&self, cause: Cause) {
        self.restarts[cause as usize].fetch_add(1, Relaxed);
        self.series.restarts[cause as usize].inc();
    }
    /// Called from inside the actor's own context, so it stops when the thread is blocked and when the actor is deaf.
    pub(crate) fn beat(&self) {
        self.beat_ms.store(self.ms_now(), Relaxed);
    }
    pub(crate) fn excuse(&self, zone: Duration) {
        let until = self.ms_now().saturating_add(u64::try_from(zone.as_millis()).unwrap_or(u64::MAX));
        self.excused_ms.fetch_max(until, Relaxed);
    }
    /// An incarnation is being made. It inherits no excuse.
    pub(crate) fn reborn(&self) {
        self.excused_ms.store(0, Relaxed);
        self.beat();
        self.born.store(true, Relaxed);
    }
    /// Whether a first incarnation was begun: before, the actor waits for others and owes no heartbeat.
    pub(crate) fn is_born(&self) -> bool {
        self.born.load(Relaxed)
    }
    pub(crate) fn waited(&self, seconds: f64) {
        self.series.queue_wait.observe(seconds);
    }

    // === series ===

    /// The series of message type `M`. Slow (compares names): contexts remember the answer.
    pub(crate) fn message<M>(&self) -> Arc<MessageSeries> {
        let name = short_name(std::any::type_name::<M>());
        if let Some(series) = self.series.messages.iter().find(|s| s.name == name) {
            return series.clone();
        }
        let mut undeclared = self.undeclared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = undeclared.iter().find(|s| s.name == name) {
            return series.clone();
        }
        tracing::warn!(actor = self.name, message = name, "message type is missing from the actor's MESSAGES");
        let series = self.metrics.message(self.name, name);
        undeclared.push(series.clone());
        series
    }
    /// Sets the gauges that only a scrape needs.
    pub(crate) fn refresh(&self) {
        self.series.depth.set(self.depth() as i64);
        self.series.heartbeat_age.set(self.heartbeat_age().as_secs_f64());
    }

    // === mailbox slots ===

    /// No new slots from now on, not even for those who wait for one.
    pub(crate) fn close(&self) {
        self.slots.close();
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").field("name", &self.name).field("state", &self.state()).finish_non_exhaustive()
    }
}

/// One place in a mailbox, from admission to the end of the reply. It also tells a message whose it is.
pub(crate) struct Slot(Arc<Vitals>);

impl Slot {
    pub(crate) fn try_take(vitals: &Arc<Vitals>) -> Result<Slot, TryAcquireError> {
        vitals.slots.try_acquire()?.forget();
        Ok(Slot(vitals.clone()))
    }
    pub(crate) async fn take(vitals: &Arc<Vitals>) -> Result<Slot, AcquireError> {
        vitals.slots.acquire().await?.forget();
        Ok(Slot(vitals.clone()))
    }
    /// Counts a message of type `M` that ended with its mailbox.
    pub(crate) fn lost<M>(&self) {
        self.0.message::<M>().count(Outcome::Dropped);
    }
}
impl Drop for Slot {
    fn drop(&mut self) {
        self.0.slots.add_permits(1);
    }
}

/// `a::b::Poll<c::D>` → `Poll`.
pub(crate) fn short_name(full: &'static str) -> &'static str {
    let plain = full.split('<').next().unwrap_or(full);
    plain.rsplit("::").next().unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_names_are_the_last_path_segment() {
        assert_eq!(short_name("compute_subnet::messages::chain::NewBlock"), "NewBlock");
        assert_eq!(short_name("alloc::sync::Arc<a::b::C>"), "Arc");
        assert_eq!(short_name("Bare"), "Bare");
    }
}
