//! What the chain shows as ours, and whether it is.
//!
//! Weights and commits both move the chain's last update; a commit shows only its hash, and its weights appear later
//! without moving it again. So an update is ours if the weights shown are, or if a commit is shown that is; and a commit
//! that is neither ours nor was there at our first look is somebody else's at once, before its weights are seen.

use std::collections::VecDeque;

use crate::chain::weights::intent::same;
use crate::chain::{Neuron, PreparedWeights, WeightsShown};
use crate::ids::{BlockNumber, Hash32, Uid};
use crate::store::records::WeightsRow;

/// Newest settled intents that are known again when the chain shows them.
const INTENTS: usize = 16;

/// Weights that may appear.
#[derive(Debug)]
pub(super) struct Intended {
    entries: Vec<(Uid, u16)>,
    /// Of a commit.
    digest: Option<Hash32>,
}

impl From<&PreparedWeights> for Intended {
    fn from(prepared: &PreparedWeights) -> Self {
        Intended { entries: prepared.weights.entries.clone(), digest: prepared.digest() }
    }
}

impl From<&WeightsRow> for Intended {
    fn from(row: &WeightsRow) -> Self {
        let entries = row.weights.entries.iter().map(|e| (e.uid, e.weight)).collect();
        Intended { entries, digest: row.weights.prepared.as_ref().and_then(PreparedWeights::digest) }
    }
}

/// What the chain may show of us.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The chain's last update when this actor first looked, or of ours since: what is not newer is not judged.
    update: Option<BlockNumber>,
    /// The last intents, the newest last.
    intents: VecDeque<Intended>,
    /// Commits that were there at the first look, and those of ours that were missed and stay.
    there: Option<Vec<Hash32>>,
}

impl Known {
    /// From now on these may appear, also when they are no longer open.
    pub(super) fn intended(&mut self, intended: impl Into<Intended>) {
        if self.intents.len() == INTENTS {
            self.intents.pop_front();
        }
        self.intents.push_back(intended.into());
    }

    /// This commit of ours is over, and stays on the chain.
    pub(super) fn stays(&mut self, digest: Hash32) {
        // The first look keeps all that are there.
        self.there.iter_mut().for_each(|there| there.push(digest));
    }

    /// An update of ours is in this block.
    pub(super) fn updated(&mut self, block: BlockNumber) {
        self.update = self.update.max(Some(block));
    }

    /// Whether the chain's head shows an update that needs a look. Remembers the first one.
    pub(super) fn is_news(&mut self, own: &Neuron) -> bool {
        let known = *self.update.get_or_insert(own.last_update);
        self.there.is_none() || own.last_update > known.max(own.registered_at)
    }

    /// Judges what a finalised block shows, while nothing of ours is on its way unanswered. `open`: the intents whose end is
    /// not known; `registered_at`: a registration counts as an update, and has no weights of its own.
    ///
    /// Gives the block of an update that is somebody else's.
    pub(super) fn judge(
        &mut self,
        shown: &WeightsShown,
        open: &[Intended],
        registered_at: BlockNumber,
    ) -> Option<BlockNumber> {
        let may_appear = || self.intents.iter().chain(open);
        let ours = |digest: &Hash32| may_appear().any(|intended| intended.digest.as_ref() == Some(digest));
        let known = self.update.unwrap_or(shown.last_update);
        let Some(there) = &self.there else {
            // Not before finality has come to the update that the head showed: its commit was there as well.
            if shown.at >= known {
                self.there = Some(shown.commits.iter().map(|c| c.digest).collect());
            }
            return None;
        };
        if let Some(commit) = shown.commits.iter().find(|c| !ours(&c.digest) && !there.contains(&c.digest)) {
            return Some(commit.block.unwrap_or(shown.last_update));
        }
        if shown.last_update <= known.max(registered_at) {
            return None;
        }
        let late = shown.commits.iter().any(|c| ours(&c.digest) && c.block.is_none_or(|b| b == shown.last_update));
        let explained = late
            || !shown.entries.iter().any(|(_, weight)| *weight > 0)
            || may_appear().any(|intended| same(&intended.entries, &shown.entries));
        if explained {
            self.update = Some(shown.last_update);
        }
        (!explained).then_some(shown.last_update)
    }
}
