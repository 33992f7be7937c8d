//! Whether blocks keep coming.

use std::time::Duration;

use tokio::time::Instant;

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
}
