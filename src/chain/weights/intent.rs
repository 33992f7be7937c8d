//! One intent to set weights, from the moment it is on disk until the chain's finalised view says what became of it.
//! Pure: what the chain shows comes in, the next stage or the end goes out.
//!
//! ```text
//! written ──▶ sent ──▶ shown                                     in the open
//! written ──▶ sent ──▶ committed ──▶ shown │ missed              by a commit
//!    └──────────┴──▶ lapsed        (the call can no longer be included)
//! ```
//!
//! # Invariants
//! - An answer of the chain to the sending is never needed: each stage follows from [`WeightsShown`] alone, so a node that
//!   was killed anywhere goes on from what is on disk.
//! - [`End::Lapsed`] is said only once no call that was sent for the intent can be included any more. Until then the
//!   intent is [in flight](Intent::in_flight), and no other may be sent.
//! - A reveal is due only while a finalised block shows the commit, so that it cannot come before its commit, and one that
//!   was lost with a block is due again.
//!
//! # Design notes
//! Equal entries prove nothing for a commit that was never gone: a validator often finds the same weights twice, and the
//! chain still shows the ones before. A commit counts as revealed when it is gone and its entries are shown.
//!
//! [`PreparedWeights::reveal`] is right for a commit in the very next block. One that was included later may belong to the
//! next epoch: it certainly does where its block is in what would be its own window, which then begins so much later. Where
//! that is not certain, a commit is given one window more before it counts as missed.

use super::{PreparedWeights, Route, WeightsShown};
use crate::chain::ledger::consensus::max_upscale;
use crate::ids::{BlockNumber, Uid};

/// Commits of one hotkey that the chain keeps unrevealed.
pub const MAX_COMMITS: usize = 10;

/// Where an open intent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// On disk. Whether it was sent, and arrived, is not known.
    Written,
    /// The chain said that this block holds the call.
    Sent {
        /// The block.
        block: BlockNumber,
    },
    /// A finalised block shows the commit.
    Committed {
        /// The block of the commit, as far as it is known.
        block: BlockNumber,
    },
}

/// How an intent ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The chain shows exactly these weights. For a commit: revealed.
    Shown {
        /// The block that set them or, where that is not known, one that shows them.
        block: BlockNumber,
    },
    /// The commit was not revealed in its time, or the chain could not use what was revealed.
    Missed {
        /// Whether the commit is gone from the chain.
        gone: bool,
    },
    /// The chain shows other weights in their place: another node's, or ours as the chain changed them.
    Unequal {
        /// The block of the last update.
        block: BlockNumber,
    },
    /// They did not reach the chain and no longer can.
    Lapsed,
}

/// What a look at the chain came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing new.
    Same,
    /// A stage further.
    Moved(Stage),
    /// Over.
    Ended(End),
}

/// An open intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// What is to be on the chain.
    pub prepared: PreparedWeights,
    /// How far it is.
    pub stage: Stage,
    /// The last head at which the call may have been sent.
    pub sent_until: BlockNumber,
    /// The block that holds our reveal, by the chain's answer.
    pub revealed_in: Option<BlockNumber>,
}

impl Intent {
    /// An intent that is on disk.
    pub fn written(prepared: PreparedWeights) -> Self {
        let sent_until = prepared.until();
        Intent { prepared, stage: Stage::Written, sent_until, revealed_in: None }
    }

    /// Takes in that the sending ended without an answer at this head.
    pub fn unanswered(&mut self, head: BlockNumber) {
        self.sent_until = self.sent_until.max(head);
    }

    /// Whether it is not known yet that the chain has it: nothing else may be sent.
    pub fn in_flight(&self) -> bool {
        !matches!(self.stage, Stage::Committed { .. })
    }

    /// What a finalised view means. `lifetime` is how many blocks a sent call can still be included in, see
    /// [`Chain::call_lifetime`](crate::chain::Chain::call_lifetime); `newer_shown`: weights of ours that are younger than these
    /// are shown, so these would be replaced.
    pub fn look(&self, shown: &WeightsShown, lifetime: u64, newer_shown: bool) -> Look {
        let Some(digest) = self.prepared.digest() else { return self.look_plain(shown, lifetime) };
        if let Some(commit) = shown.commits.iter().find(|c| c.digest == digest) {
            return match self.stage {
                Stage::Committed { block } if self.over(block, shown.at) => Look::Ended(End::Missed { gone: false }),
                Stage::Committed { .. } => Look::Same,
                Stage::Sent { block } => Look::Moved(Stage::Committed { block: commit.block.unwrap_or(block) }),
                Stage::Written => Look::Moved(Stage::Committed { block: commit.block.unwrap_or(shown.last_update) }),
            };
        }
        let gone = |block| match self.is_shown(shown) || newer_shown {
            true => End::Shown { block: self.revealed_in.unwrap_or(shown.at) },
            false if self.revealed_in.is_some() => End::Unequal { block },
            false => End::Missed { gone: true },
        };
        let may_be_gone = shown.at >= self.window().0;
        match self.stage {
            Stage::Committed { block } if shown.at >= block => Look::Ended(gone(block)),
            Stage::Sent { block } if may_be_gone && shown.last_update >= block => Look::Ended(gone(block)),
            Stage::Written if may_be_gone && shown.last_update > self.prepared.at && self.is_shown(shown) => {
                Look::Ended(gone(shown.last_update))
            }
            // Also of a call that the chain said to be in a block: another fork may have it in a lower one.
            Stage::Written | Stage::Sent { .. }
                if self.lapsed(shown, lifetime) && shown.last_update > self.prepared.at =>
            {
                match self.stage {
                    Stage::Sent { block } if shown.last_update >= block => Look::Same,
                    _ if may_be_gone => Look::Ended(gone(shown.last_update)),
                    _ => Look::Ended(End::Unequal { block: shown.last_update }),
                }
            }
            Stage::Written | Stage::Sent { .. } if self.lapsed(shown, lifetime) => Look::Ended(End::Lapsed),
            _ => Look::Same,
        }
    }

    fn look_plain(&self, shown: &WeightsShown, lifetime: u64) -> Look {
        let lapsed = self.lapsed(shown, lifetime);
        let other = Look::Ended(End::Unequal { block: shown.last_update });
        let updated = shown.last_update > self.prepared.at;
        match self.stage {
            // Also of a call that the chain said to be in a block: another fork may have it in a lower one.
            _ if updated && self.is_shown(shown) => Look::Ended(End::Shown { block: shown.last_update }),
            Stage::Sent { block } | Stage::Committed { block } if shown.last_update >= block => other,
            // Ours may still come.
            _ if !lapsed => Look::Same,
            _ if updated => other,
            _ => Look::Ended(End::Lapsed),
        }
    }

    /// Whether the reveal is to be sent at this head: the next block is in the window, a finalised block shows the commit,
    /// and none of our reveals is in a block that is not finalised yet. `finalised`: the newest block that was looked at.
    pub fn reveal_due(&self, head: BlockNumber, finalised: BlockNumber) -> bool {
        let Stage::Committed { block } = self.stage else { return false };
        let hashed = matches!(self.prepared.route, Route::Hashed { .. });
        let next = head.saturating_add(1);
        let inside = next >= self.window_of(block).0 && next < self.end(block);
        hashed && inside && self.revealed_in.is_none_or(|revealed| finalised >= revealed)
    }

    /// Whether the chain shows exactly these weights.
    pub fn is_shown(&self, shown: &WeightsShown) -> bool {
        same(&self.prepared.weights.entries, &shown.entries)
    }

    fn lapsed(&self, shown: &WeightsShown, lifetime: u64) -> bool {
        shown.at > self.sent_until.saturating_add(lifetime)
    }

    fn window(&self) -> (BlockNumber, BlockNumber) {
        self.prepared.reveal.unwrap_or((self.prepared.at, BlockNumber::MAX))
    }

    /// The window of a commit in `block`, as far as it is known.
    fn window_of(&self, block: BlockNumber) -> (BlockNumber, BlockNumber) {
        let Some((first, end)) = self.prepared.reveal else { return self.window() };
        let length = end.saturating_sub(first);
        let Some(windows) = block.checked_sub(first).and_then(|late| late.checked_div(length)) else {
            return (first, end);
        };
        let later = windows.saturating_add(1).saturating_mul(length);
        (first.saturating_add(later), end.saturating_add(later))
    }

    /// The block after the last one that may hold the reveal of a commit in `block`.
    fn end(&self, block: BlockNumber) -> BlockNumber {
        let (window, (first, end)) = (self.window_of(block), self.window());
        let unsure = window == (first, end) && block > self.prepared.at.saturating_add(1);
        window.1.saturating_add(if unsure { end.saturating_sub(first) } else { 0 })
    }

    fn over(&self, block: BlockNumber, finalised: BlockNumber) -> bool {
        finalised.saturating_add(1) >= self.end(block)
    }
}

/// Whether the chain shows `shown` for weights that were sent as `sent`: it scales the largest to 65,535. The order and
/// zeros do not matter.
pub fn same(sent: &[(Uid, u16)], shown: &[(Uid, u16)]) -> bool {
    let sorted = |weights: &[(Uid, u16)]| {
        let values: Vec<u16> = weights.iter().map(|(_, w)| *w).collect();
        let scaled = weights.iter().map(|(uid, _)| *uid).zip(max_upscale(&values)).filter(|(_, w)| *w > 0);
        let mut sorted: Vec<(Uid, u16)> = scaled.collect();
        sorted.sort_unstable();
        sorted
    };
    sorted(sent) == sorted(shown)
}

#[cfg(test)]
mod tests;
