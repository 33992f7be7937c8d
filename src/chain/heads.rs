//! Which of the heads that an endpoint names are followed, pure.
//!
//! Endpoints of one chain may be a few blocks apart, and the newest blocks may still be replaced by others. Whoever follows
//! a chain must tell the two: an endpoint that is behind says nothing new, a reorganisation does.
//!
//! # Rules
//! - A higher head is followed. Where the last followed block is not on its chain, the chain was reorganised.
//! - Another head of the same height is followed: the chain was reorganised at its tip.
//! - A lower head on the chain that was followed is an endpoint that is behind, and is never followed.
//! - A lower head on another branch is not followed either: what replaced our blocks will soon be as long as they were. It
//!   is followed if it is finalised, for then ours are gone, or if it is lower by more than [`BEHIND`] blocks: that
//!   chain is another one, or was set back.
//! - A lower head of which it is not known where it belongs is followed if it is lower by more than [`BEHIND`] blocks.
//!
//! Whether a head is on the chain that was followed is known from a block of it that was followed, no higher than the
//! head: [`Heads::anchor`] names the newest, and the endpoint is asked for its hash. A higher head whose endpoint cannot say is taken to be.

use std::collections::VecDeque;

use super::types::BlockHead;
use crate::ids::{BlockNumber, Hash32};

/// A head on an unknown chain that is lower than the last by at most so many blocks is an endpoint that is behind.
pub const BEHIND: u64 = 8;
/// Followed heads that are remembered: 51 minutes of blocks of 12 s.
const REMEMBERED: usize = 256;

/// What a head is to those followed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The last one again.
    Same,
    /// The chain went on.
    Next,
    /// Blocks that were followed have been replaced; follow this one.
    Reorganised,
    /// Not to be followed: the endpoint is behind, or on a shorter branch.
    Behind,
}

/// The heads that were followed, the newest of them at most.
#[derive(Debug, Clone, Default)]
pub struct Heads {
    /// Numbers and hashes, both rising.
    followed: VecDeque<(BlockNumber, Hash32)>,
}

impl Heads {
    /// The block whose hash at the endpoint tells whether `head` is on the chain that was followed: the newest followed one
    /// that is not above `head`. `None` where nothing needs to be asked or can be.
    pub fn anchor(&self, head: &BlockHead) -> Option<BlockNumber> {
        let (number, _) = self.known_below(head)?;
        (number < head.number).then_some(number)
    }

    /// What `head` is. `there` is the endpoint's hash of the [`anchor`](Heads::anchor), if it could say; `finalized` its
    /// newest finalised block.
    pub fn judge(&self, head: &BlockHead, there: Option<Hash32>, finalized: BlockNumber) -> Step {
        let Some((last, last_hash)) = self.followed.back().copied() else { return Step::Next };
        if (last, last_hash) == (head.number, head.hash) {
            return Step::Same;
        }
        let same_chain = self.known_below(head).and_then(|(number, hash)| {
            let there = if number == head.number { Some(head.hash) } else { there };
            there.map(|there| there == hash)
        });
        if head.number > last {
            return if same_chain == Some(false) { Step::Reorganised } else { Step::Next };
        }
        let follow = match same_chain {
            Some(true) => false,
            Some(false) => head.number == last || finalized >= head.number || last - head.number > BEHIND,
            None => last - head.number > BEHIND,
        };
        if follow { Step::Reorganised } else { Step::Behind }
    }

    /// Remembers a head that is followed, as [`judge`](Heads::judge) found it.
    pub fn follow(&mut self, head: &BlockHead, step: Step) {
        if step == Step::Reorganised {
            // How far down the blocks were replaced is not known.
            self.followed.clear();
        }
        if self.followed.back().is_some_and(|(last, _)| *last >= head.number) {
            return;
        }
        if self.followed.len() == REMEMBERED {
            self.followed.pop_front();
        }
        self.followed.push_back((head.number, head.hash));
    }

    fn known_below(&self, head: &BlockHead) -> Option<(BlockNumber, Hash32)> {
        self.followed.iter().rev().find(|(number, _)| *number <= head.number).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Block `number` of a branch.
    fn head(number: u64, branch: u8) -> BlockHead {
        BlockHead { number, hash: hash(number, branch), timestamp_ms: 0 }
    }

    fn hash(number: u64, branch: u8) -> Hash32 {
        let mut bytes = [branch; 32];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Hash32(bytes)
    }

    /// Heads that followed these blocks of branch 1.
    fn after(numbers: impl IntoIterator<Item = u64>) -> Heads {
        let mut heads = Heads::default();
        numbers.into_iter().for_each(|n| heads.follow(&head(n, 1), Step::Next));
        heads
    }

    /// What a head is whose endpoint is on `branch` from block `fork` on, and finalises nothing of late.
    fn seen(heads: &Heads, number: u64, branch: u8, fork: u64) -> Step {
        let of = |n: u64| if n < fork { 1 } else { branch };
        let there = heads.anchor(&head(number, branch)).map(|n| hash(n, of(n)));
        heads.judge(&head(number, of(number)), there, 80)
    }

    #[test]
    fn a_chain_that_goes_on_is_followed_also_over_blocks_that_were_not_seen() {
        assert_eq!(Heads::default().judge(&head(90, 1), None, 0), Step::Next);
        let heads = after([90, 91]);
        assert_eq!(
            (seen(&heads, 91, 1, 0), seen(&heads, 92, 1, 0), seen(&heads, 99, 1, 0)),
            (Step::Same, Step::Next, Step::Next)
        );
        assert_eq!(heads.anchor(&head(99, 1)), Some(91));
        assert_eq!(heads.judge(&head(99, 1), None, 0), Step::Next, "an endpoint that does not say is believed");
    }

    #[test]
    fn a_block_that_was_replaced_is_noticed_at_the_same_height_and_later() {
        let heads = after([90, 91, 92]);
        assert_eq!(seen(&heads, 92, 2, 92), Step::Reorganised);
        assert_eq!(seen(&heads, 95, 2, 91), Step::Reorganised);
    }

    #[test]
    fn an_endpoint_that_is_behind_takes_nobody_back() {
        let heads = after(90..=110);
        for number in 90..110 {
            assert_eq!(seen(&heads, number, 1, 0), Step::Behind, "{number}");
        }
        // Not even where it calls its head final, as a chain of one author does.
        assert_eq!(heads.judge(&head(100, 1), None, 100), Step::Behind);
        // Right after a start nothing below the first head is known.
        let young = after([100]);
        assert_eq!(young.anchor(&head(95, 1)), None);
        assert_eq!(seen(&young, 92, 1, 0), Step::Behind);
        // A head between two that were followed: the lower of them tells.
        let gap = after([90, 100]);
        assert_eq!(gap.anchor(&head(97, 1)), Some(90));
        assert_eq!((seen(&gap, 97, 1, 0), seen(&gap, 97, 2, 95)), (Step::Behind, Step::Behind));
    }

    #[test]
    fn a_shorter_branch_is_followed_once_it_is_as_long_or_final_or_far_below() {
        let heads = after(90..=100);
        assert_eq!(seen(&heads, 98, 2, 96), Step::Behind, "it will be as long soon");
        assert_eq!(heads.judge(&head(98, 2), None, 98), Step::Reorganised, "final: ours is gone");
        assert_eq!(seen(&heads, 100, 2, 96), Step::Reorganised);
        assert_eq!(seen(&heads, 91, 2, 91), Step::Reorganised, "set back by more than a few");
        assert_eq!(seen(&after([100]), 91, 2, 0), Step::Reorganised, "another chain");
    }

    #[test]
    fn after_a_reorganisation_the_new_branch_is_the_chain() {
        let mut heads = after(90..=100);
        heads.follow(&head(97, 2), Step::Reorganised);
        assert_eq!((seen(&heads, 97, 2, 95), seen(&heads, 98, 2, 95)), (Step::Same, Step::Next));
        assert_eq!(heads.judge(&head(100, 1), Some(hash(97, 1)), 80), Step::Reorganised, "and back");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let heads = after(1..=10_000);
        assert_eq!(heads.followed.len(), REMEMBERED);
        assert_eq!(heads.anchor(&head(10_000 - REMEMBERED as u64, 2)), None);
    }
}
