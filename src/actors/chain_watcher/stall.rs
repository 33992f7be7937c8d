//! Whether blocks keep coming, and whether they become final.

use std::time::Duration;

use tokio::time::Instant;

use crate::ids::BlockNumber;

/// Blocks above the final one beyond which finality is behind: four minutes of blocks of 12 s, where two or three are usual.
const FAR: u64 = 20;
/// Blocks above the final one with which it has caught up.
const NEAR: u64 = 10;

/// Whether blocks keep coming; each standstill is told once.
pub(super) struct Stall {
    after: Duration,
    since: Instant,
    told: bool,
}

impl Stall {
    pub(super) fn new(after: Duration, now: Instant) -> Self {
        Stall { after, since: now, told: false }
    }

    /// Whether a standstill is to be told now.
    pub(super) fn is_news(&mut self, now: Instant) -> bool {
        let standing = now.saturating_duration_since(self.since) >= self.after;
        standing && !std::mem::replace(&mut self.told, true)
    }

    /// Takes in a new block; whether that ends a standstill that was told.
    pub(super) fn moved(&mut self, now: Instant) -> bool {
        self.since = now;
        std::mem::take(&mut self.told)
    }
}

/// Whether finality keeps up with the head; each time it falls behind is told once, and so is its end.
#[derive(Debug, Default)]
pub(super) struct Finality {
    behind: bool,
}

/// What is to be told of finality.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FinalityNews {
    /// Blocks come, and are not final for long.
    Behind,
    /// They are again.
    CaughtUp,
}

impl Finality {
    /// Takes in a head and the newest final block.
    pub(super) fn news(&mut self, head: BlockNumber, finalized: BlockNumber) -> Option<FinalityNews> {
        let ahead = head.saturating_sub(finalized);
        let before = self.behind;
        self.behind = ahead > if before { NEAR } else { FAR };
        match (before, self.behind) {
            (false, true) => Some(FinalityNews::Behind),
            (true, false) => Some(FinalityNews::CaughtUp),
            (true, true) | (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_standstill_is_told_once_and_so_is_its_end() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut stall = Stall::new(Duration::from_secs(120), begin);
        assert!(!stall.is_news(at(119)));
        assert!(stall.is_news(at(120)), "also before the first block");
        assert!(!stall.is_news(at(500)));
        assert!(stall.moved(at(501)));
        assert!(!stall.moved(at(513)), "an ordinary block is no news");
        assert!(!stall.is_news(at(632)));
        assert!(stall.is_news(at(633)));
    }

    #[test]
    fn finality_that_stands_still_while_blocks_come_is_told_once_and_so_is_its_end() {
        let mut finality = Finality::default();
        let mut told = Vec::new();
        // It stands at block 100 from 103 to 130, then lags by 15, then by 3.
        let finals = (90..130).map(|head: u64| (head, (head - 3).min(100)));
        for (head, finalized) in finals.chain([(131, 116), (132, 117), (133, 130), (134, 131)]) {
            told.extend(finality.news(head, finalized).map(|news| (head, news)));
        }
        assert_eq!(told, [(121, FinalityNews::Behind), (133, FinalityNews::CaughtUp)]);
    }
}
