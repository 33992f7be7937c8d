//! The end of a node: drain in reverse start order, then end the threads.
//!
//! Every wait is bounded. A thread that does not answer is *lost*: it is passed over and left to the end of the process,
//! because nothing inside the process can end it.

use super::fault::Control;
use super::vitals::Vitals;
use actix::Arbiter;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// How long a cell may take, past its own drain deadline, to say that it ended.
const GRACE: Duration = Duration::from_secs(1);
/// What all drains together may take once a thread is known to be blocked: whoever waits for it waits in vain.
const WEDGED_LIMIT: Duration = Duration::from_secs(2);
/// How long all threads together may take to end.
const JOIN_LIMIT: Duration = Duration::from_secs(2);

/// How the end of a node went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Every actor finished what it had admitted.
    Whole,
    /// An actor was ended with messages left.
    Cut,
    /// A thread was lost.
    Lost,
}

/// A started actor.
pub(crate) struct Started {
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) lane: mpsc::Sender<Control>,
    pub(crate) drain: Duration,
    /// Its thread; `None` is the caller's.
    pub(crate) arbiter: Option<usize>,
}

/// The actors to end, in start order, and their threads.
pub(crate) struct Shutdown {
    started: Vec<Started>,
    arbiters: Vec<Arbiter>,
    /// One per arbiter.
    lost: Vec<bool>,
    /// Until when all drains must be over, if not by their own deadlines.
    until: Option<Instant>,
    /// An actor was ended with messages left.
    cut: bool,
}

impl Shutdown {
    pub(crate) fn new(started: Vec<Started>, arbiters: Vec<Arbiter>) -> Self {
        let lost = vec![false; arbiters.len()];
        Shutdown { started, arbiters, lost, until: None, cut: false }
    }

    /// Gives up the thread of this actor, which is known to be blocked.
    pub(crate) fn without(&mut self, actor: &str) {
        let arbiter = self.started.iter().find(|s| s.vitals.name() == actor).and_then(|s| s.arbiter);
        self.lose(arbiter);
        self.until = Some(Instant::now() + WEDGED_LIMIT);
    }

    /// Bounds all drains together.
    pub(crate) fn by(&mut self, until: Instant) {
        self.until = Some(self.until.map_or(until, |earlier| earlier.min(until)));
    }

    /// Ends everything, and says how well that went.
    pub(crate) async fn run(mut self) -> Ended {
        for started in std::mem::take(&mut self.started).iter().rev() {
            self.drain(started).await;
        }
        let joined = self.join().await;
        match (joined && !self.lost.contains(&true), self.cut) {
            (false, _) => Ended::Lost,
            (true, true) => Ended::Cut,
            (true, false) => Ended::Whole,
        }
    }

    fn lose(&mut self, arbiter: Option<usize>) {
        if let Some(lost) = arbiter.and_then(|index| self.lost.get_mut(index)) {
            *lost = true;
        }
    }

    async fn drain(&mut self, started: &Started) {
        let actor = started.vitals.name();
        if started.arbiter.is_some_and(|index| self.lost[index]) {
            tracing::warn!(actor, "not drained, its thread is blocked");
            return;
        }
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()));
        let deadline = left.map_or(started.drain, |left| left.min(started.drain));
        let (done, drained) = oneshot::channel();
        let ended = match started.lane.try_send(Control::Drain { deadline, done }) {
            // An answer, or the cell's end without one.
            Ok(()) => match timeout(deadline.saturating_add(GRACE), drained).await {
                Ok(finished) => {
                    self.cut |= finished == Ok(false);
                    true
                }
                Err(_) => false,
            },
            Err(mpsc::error::TrySendError::Closed(_)) => true, // it had ended before
            Err(mpsc::error::TrySendError::Full(_)) => false,
        };
        if ended {
            tracing::debug!(actor, "drained");
        } else {
            tracing::error!(actor, "did not end in time, its thread is blocked");
            self.lose(started.arbiter);
        }
    }

    /// Stops and joins the threads that are not lost. `false` if one did not end in time.
    async fn join(&mut self) -> bool {
        let arbiters = std::mem::take(&mut self.arbiters).into_iter().zip(&self.lost);
        let healthy: Vec<Arbiter> = arbiters.filter(|(_, lost)| !**lost).map(|(arbiter, _)| arbiter).collect();
        if healthy.is_empty() {
            return true;
        }
        for arbiter in &healthy {
            arbiter.stop();
        }
        let (done, joined) = oneshot::channel();
        // Joining blocks, and a pool thread that never came back would hold up the runtime's own end.
        let joiner = std::thread::Builder::new().name("arbiter-join".to_owned()).spawn(move || {
            for arbiter in healthy {
                let _ = arbiter.join();
            }
            let _ = done.send(());
        });
        joiner.is_ok() && timeout(JOIN_LIMIT, joined).await.is_ok()
    }
}
