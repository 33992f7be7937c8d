//! Watches the heartbeats of a node's actors from outside their threads.
//!
//! Silence has two reasons. A *deaf* actor waits for something that never comes, but its thread turns: its cell
//! answers a probe, and is told to restart it. A *wedged* thread answers nothing and cannot be stopped from inside the
//! process: the node escalates. Runs on the shared runtime, never on an actor's thread.

use super::cell::Escalation;
use super::fault::Control;
use super::state::State;
use super::view::TreeView;
use super::vitals::Vitals;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// The monitor's limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) period: Duration,
    pub(crate) silence: Duration,
    pub(crate) probe: Duration,
    /// How long an actor whose thread turns again has for a heartbeat, before it counts as deaf.
    pub(crate) recovery: Duration,
}

/// Checks all actors of `view` on a period, for ever.
pub(crate) async fn watch(view: TreeView, limits: Limits, escalate: mpsc::Sender<Escalation>) {
    let mut ticks = interval(limits.period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let silent = view.lanes().into_iter().filter(|(vitals, _)| is_silent(vitals, limits.silence));
        // All at once: one wedged thread must not delay the verdict on another.
        let checks = silent.map(|(vitals, lane)| check(vitals, lane, limits));
        for wedged in futures_util::future::join_all(checks).await.into_iter().flatten() {
            let _ = escalate.try_send(Escalation::Wedged { actor: wedged });
        }
    }
}

/// Only an actor that has an incarnation owes heartbeats; one that drains has its own deadline.
fn is_silent(vitals: &Vitals, limit: Duration) -> bool {
    matches!(vitals.state(), State::Starting | State::Running) && vitals.is_born() && vitals.silent_for() >= limit
}

/// Tells deaf from wedged. `Some`: that actor's thread is wedged.
async fn check(vitals: Arc<Vitals>, lane: mpsc::Sender<Control>, limits: Limits) -> Option<&'static str> {
    let (answer, answered) = oneshot::channel();
    // A full lane is no reason to trust the thread: nobody has read it for a while.
    if let Err(mpsc::error::TrySendError::Closed(_)) = lane.try_send(Control::Probe(answer)) {
        return None;
    }
    match timeout(limits.probe, answered).await {
        Ok(Ok(_)) => {
            // The whole process may have been paused: then every actor is late, and none is deaf.
            tokio::time::sleep(limits.recovery).await;
            let _ = lane.try_send(Control::Restart { if_silent_for: limits.silence });
            None
        }
        Ok(Err(_)) if lane.is_closed() => None,
        Ok(Err(_)) | Err(_) => {
            tracing::error!(actor = vitals.name(), silent_s = vitals.silent_for().as_secs_f64(), "thread is blocked");
            Some(vitals.name())
        }
    }
}
