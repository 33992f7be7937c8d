//! Weights by commit and reveal, as the real chain has it: a hash first, the weights `reveal_period` epochs later.
//!
//! A commit may be revealed in one epoch only. Before, the reveal is too early; after it the commit has expired, and is
//! removed with the account's next commit or reveal. A commit counts as an update of the neuron, its reveal does not.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::State;
use crate::chain::commit::{commit_hash, storage_index};
use crate::chain::weights::intent::MAX_COMMITS;
use crate::chain::{Rejection, ShownCommit, Weights, WeightsShown, epoch_of};
use crate::ids::{BlockNumber, Epoch, Hash32, Hotkey, Uid};

/// A commit that is not revealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Commit {
    hash: Hash32,
    block: BlockNumber,
}

/// Where an epoch is to the one in which a commit is revealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Window {
    Early,
    Open,
    Expired,
}

impl State {
    fn epoch_at(&self, block: BlockNumber) -> Epoch {
        epoch_of(block, self.netuid, self.hyperparameters.tempo)
    }

    fn window(&self, commit: &Commit) -> Window {
        let reveal = self.epoch_at(commit.block).saturating_add(self.hyperparameters.reveal_period);
        match self.epoch_at(self.next_number()).cmp(&reveal) {
            std::cmp::Ordering::Less => Window::Early,
            std::cmp::Ordering::Equal => Window::Open,
            std::cmp::Ordering::Greater => Window::Expired,
        }
    }

    /// Commits of the account that have not expired in the next block, oldest first.
    fn waiting(&self, account: &Hotkey) -> VecDeque<Commit> {
        let all = self.commits.get(account).into_iter().flatten();
        all.copied().filter(|commit| self.window(commit) != Window::Expired).collect()
    }

    pub(super) fn check_commit(&self, hotkey: &Hotkey) -> Result<(), Rejection> {
        let rules = &self.hyperparameters;
        if !rules.commit_reveal {
            return Err(Rejection::CommitRevealDisabled);
        }
        let uid = self.uid_of(hotkey).ok_or(Rejection::HotKeyNotRegisteredInSubNet)?;
        self.check_stake(hotkey)?;
        let last_update = self.slots[uid].last_update;
        if last_update != 0 && self.next_number().saturating_sub(last_update) < rules.weights_rate_limit {
            return Err(Rejection::CommittingWeightsTooFast);
        }
        if self.waiting(hotkey).len() >= MAX_COMMITS {
            return Err(Rejection::TooManyUnrevealedCommits);
        }
        Ok(())
    }

    /// The place among the waiting commits of the one that these weights reveal.
    pub(super) fn check_reveal(
        &self,
        hotkey: &Hotkey,
        uids: &[u16],
        values: &[u16],
        salt: &[u16],
        version_key: u64,
    ) -> Result<usize, Rejection> {
        if !self.hyperparameters.commit_reveal {
            return Err(Rejection::CommitRevealDisabled);
        }
        let all = self.commits.get(hotkey).filter(|all| !all.is_empty()).ok_or(Rejection::NoWeightsCommitFound)?;
        // Lists of different lengths were never committed to by a client of ours; the real chain finds another hash.
        if uids.len() != values.len() {
            return Err(Rejection::InvalidRevealCommitHashNotMatch);
        }
        let index = storage_index(self.netuid, 0).map_err(|_| Rejection::SubnetNotExists)?;
        let entries = uids.iter().copied().map(Uid).zip(values.iter().copied()).collect();
        let hash = commit_hash(hotkey, index, &Weights { entries, version_key }, salt);
        let Some((at, commit)) = self.waiting(hotkey).into_iter().enumerate().find(|(_, c)| c.hash == hash) else {
            let expired = all.iter().any(|commit| commit.hash == hash);
            return Err(match expired {
                true => Rejection::ExpiredWeightCommit,
                false => Rejection::InvalidRevealCommitHashNotMatch,
            });
        };
        if self.window(&commit) == Window::Early {
            return Err(Rejection::RevealTooEarly);
        }
        self.check_vector(hotkey, uids, values, version_key, false)?;
        Ok(at)
    }

    /// Adds a commit; expired ones go.
    pub(super) fn commit(&mut self, hotkey: &Hotkey, hash: Hash32) {
        let mut waiting = self.waiting(hotkey);
        waiting.push_back(Commit { hash, block: self.next_number() });
        self.commits.insert(*hotkey, waiting);
    }

    /// Takes out the commit at this place and all before it, as the chain does; expired ones go too.
    pub(super) fn take_commits(&mut self, hotkey: &Hotkey, at: usize) {
        let mut waiting = self.waiting(hotkey);
        waiting.drain(..=at.min(waiting.len().saturating_sub(1)));
        match waiting.is_empty() {
            true => self.commits.remove(hotkey),
            false => self.commits.insert(*hotkey, waiting),
        };
    }

    /// What the ledger shows of the hotkey's weights; `None` if it has no uid.
    pub fn weights_shown(&self, hotkey: &Hotkey) -> Option<WeightsShown> {
        let slot = self.slots.get(self.uid_of(hotkey)?)?;
        let commits = self.commits.get(hotkey).into_iter().flatten();
        Some(WeightsShown {
            at: self.head.number,
            last_update: slot.last_update,
            entries: slot.weights.iter().map(|(uid, w)| (Uid(*uid), *w)).collect(),
            commits: commits.map(|c| ShownCommit { digest: c.hash, block: Some(c.block) }).collect(),
        })
    }
}
