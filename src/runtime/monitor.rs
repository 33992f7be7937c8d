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
use tokio::time::{MissedTickBehavior, interval, sleep};

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
    match in_turns(limits.probe, answered).await {
        Some(Ok(_)) => {
            // The whole process may have been paused: then every actor is late, and none is deaf.
            sleep(limits.recovery).await;
            let _ = lane.try_send(Control::Restart { if_silent_for: limits.silence });
            None
        }
        Some(Err(_)) if lane.is_closed() => None,
        Some(Err(_)) | None => {
            tracing::error!(actor = vitals.name(), silent_s = vitals.silent_for().as_secs_f64(), "thread is blocked");
            Some(vitals.name())
        }
    }
}

/// Into how many waits of this task the time for an answer is divided.
const TURNS: u32 = 20;

/// What `answer` comes to within `limit`, counted in turns of this task's own: where the machine stands still or has too much
/// to do, they take longer as those of the thread that is asked do, and nobody is taken for blocked who was given no time.
async fn in_turns<T>(limit: Duration, answer: impl Future<Output = T>) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    for _ in 0..TURNS {
        tokio::select! {
            biased;
            answer = &mut answer => return Some(answer),
            () = sleep((limit / TURNS).max(Duration::from_millis(1))) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_as_many_turns_as_the_monitor_however_long_those_take() {
        let limit = Duration::from_millis(100);
        let threads = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        threads.block_on(async {
            assert_eq!(in_turns(limit, std::future::pending::<()>()).await, None);
            // Something holds every turn up, as a machine does that stands still: the time is over long before the answer.
            let slow = async move {
                for _ in 0..10 {
                    #[expect(clippy::disallowed_methods, reason = "the thread itself stands still")]
                    std::thread::sleep(2 * limit / TURNS * 5);
                    tokio::task::yield_now().await;
                }
                7
            };
            let busy = tokio::spawn(slow);
            let answer = async { busy.await.unwrap() };
            assert_eq!(in_turns(limit, answer).await, Some(7));
        });
    }
}
