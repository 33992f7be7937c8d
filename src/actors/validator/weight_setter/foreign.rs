//! Weights that the chain shows as ours, and whether they are.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{INTENTS, WeightSetter};
use crate::actors::exclusive::Conflict;
use crate::chain::Neuron;
use crate::ids::{BlockNumber, Uid};

impl WeightSetter {
    pub(super) fn intend(&mut self, entries: Vec<(Uid, u16)>) {
        if self.intents.len() == INTENTS {
            self.intents.pop_front();
        }
        self.intents.push_back(entries);
    }

    /// Whether another node is known to act with our hotkey, which is looked for here in the weights that the chain shows.
    pub(super) fn conflicts(&mut self, own: &Neuron) -> bool {
        let known = *self.known_update.get_or_insert(own.last_update);
        // While an attempt of ours is unclear, what the chain shows may be about to become it.
        if self.unclear.is_none() && foreign(own, known, &self.intents) {
            self.setup.exclusive.report(Conflict::ForeignWeights { block: own.last_update });
        }
        let Some(problem) = self.setup.exclusive.problem() else { return false };
        if self.board.problem.as_ref() != Some(&problem) {
            Arc::make_mut(&mut self.board).problem = Some(problem);
        }
        true
    }
}

/// Whether the chain shows weights as ours, set after the block `known`, that are none of our intents.
pub(super) fn foreign(own: &Neuron, known: BlockNumber, intents: &VecDeque<Vec<(Uid, u16)>>) -> bool {
    // A registration counts as an update, and has no weights of its own.
    let set = own.last_update > known.max(own.registered_at) && !own.weights.is_empty();
    set && !intents.iter().any(|entries| shows(own, entries))
}

/// Whether the chain shows these weights as a neuron's. Both sides are scaled so that the largest is 65,535.
pub(super) fn shows(neuron: &Neuron, weights: &[(Uid, u16)]) -> bool {
    let sorted = |weights: &[(Uid, u16)]| {
        let mut sorted: Vec<(Uid, u16)> = weights.iter().copied().filter(|(_, w)| *w > 0).collect();
        sorted.sort_unstable();
        sorted
    };
    sorted(&neuron.weights) == sorted(weights)
}
