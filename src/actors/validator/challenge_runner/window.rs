//! One round's time: the slot it belongs to, by the blocks that are seen while it runs.

use std::ops::Range;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::turn::{Turn, turn};
use crate::ids::{BlockNumber, Epoch, Hotkey};
use crate::messages::chain_watcher::ChainView;

/// Between two looks whether the others have answered, once the next slot has begun.
const LOOK: Duration = Duration::from_millis(50);
/// A miner that takes so many times as long as the slowest that answered is not waited for when the next slot begins.
const STRAGGLES: u32 = 3;
/// Every miner is waited for so long, however fast the others are and however short an epoch is.
const LEAST_WAIT: Duration = Duration::from_secs(5);

/// A round's slot, and how far its miners are.
pub struct Window {
    epoch: Epoch,
    own: Hotkey,
    slot: Range<BlockNumber>,
    view: watch::Receiver<Option<Arc<ChainView>>>,
    asked: usize,
    answered: Mutex<Answered>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Answered {
    miners: usize,
    slowest: Duration,
}

/// Whether a miner that was waited for so long should not be waited for any more, now that the validator's next slot has
/// begun: at least half of all have answered, and it takes [`STRAGGLES`] times as long as the slowest of them. Where
/// nobody is done the work, or the machine, is too slow for the epoch, and no miner is to blame.
fn straggles(waited: Duration, asked: usize, answered: usize, slowest: Duration) -> bool {
    answered > 0 && answered * 2 >= asked && waited > (slowest * STRAGGLES).max(LEAST_WAIT)
}

impl Window {
    /// The window of `epoch`'s round in `slot`, in which `asked` miners will be challenged.
    pub fn new(
        epoch: Epoch,
        own: Hotkey,
        slot: Range<BlockNumber>,
        view: watch::Receiver<Option<Arc<ChainView>>>,
        asked: usize,
    ) -> Self {
        Window { epoch, own, slot, view, asked, answered: Mutex::default() }
    }

    fn head(&self) -> Option<BlockNumber> {
        self.view.borrow().as_ref().map(|v| v.metagraph.head.number)
    }

    /// Whether the slot is not over.
    pub fn is_open(&self) -> bool {
        self.head().is_some_and(|head| head < self.slot.end)
    }

    /// Whether the slot has only just begun: who asks from now until its end has asked through the whole of it. Not while no
    /// block says that it has.
    pub fn is_young(&self) -> bool {
        let half = (self.slot.end - self.slot.start).div_ceil(2);
        self.head().is_some_and(|head| (self.slot.start..self.slot.start + half).contains(&head))
    }

    /// Whether no block has said that the slot has begun: it did by the clock.
    pub fn is_reckoned(&self) -> bool {
        self.head().is_none_or(|head| head < self.slot.start)
    }

    /// The time between two blocks, if it is known.
    pub fn block_time(&self) -> Option<Duration> {
        self.view.borrow().as_ref().and_then(|v| v.block_time)
    }

    /// Waits for the end of the slot.
    pub async fn closed(&self) {
        self.seen(|view| view.metagraph.head.number >= self.slot.end).await;
    }

    /// Waits until this validator's next slot has begun, and then until a miner that was asked at `since` straggles.
    pub async fn straggler(&self, since: Instant) {
        self.seen(|view| view.epoch() > self.epoch && matches!(turn(view, &self.own), Turn::Now(_) | Turn::Over)).await;
        loop {
            let Answered { miners, slowest } = *self.answered();
            if straggles(since.elapsed(), self.asked, miners, slowest) {
                return;
            }
            sleep(LOOK).await;
        }
    }

    /// A miner answered, if with roots after so long.
    pub fn answered_after(&self, took: Option<Duration>) {
        let mut answered = self.answered();
        answered.miners += 1;
        answered.slowest = answered.slowest.max(took.unwrap_or_default());
    }

    fn answered(&self) -> std::sync::MutexGuard<'_, Answered> {
        self.answered.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn seen(&self, is: impl Fn(&ChainView) -> bool) {
        let mut view = self.view.clone();
        if view.wait_for(|view| view.as_deref().is_some_and(&is)).await.is_err() {
            // Nobody publishes any more: the node is ending, and the deadlines of the calls hold.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_far_longer_than_the_others_straggles_but_nobody_does_where_all_are_slow() {
        let s = Duration::from_secs;
        assert!(straggles(s(7), 4, 3, s(2)));
        assert!(!straggles(s(6), 4, 3, s(2)), "three times as long may be the machine");
        assert!(!straggles(s(60), 4, 1, s(2)), "most are not done");
        assert!(!straggles(s(60), 1, 0, s(0)), "there is nobody to compare with");
        assert!(straggles(s(7), 2, 1, s(2)));
        assert!(!straggles(s(4), 4, 3, Duration::ZERO), "a few seconds are nothing yet");
    }
}
