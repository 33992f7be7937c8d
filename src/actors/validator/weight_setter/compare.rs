//! How far our weights are from what the validators say on the chain: looked at once for each judged epoch, to be shown
//! and measured. Nothing depends on it.

use std::sync::Arc;

use actix::prelude::*;

use super::{WeightSetter, rules};
use crate::chain::ChainError;
use crate::chain::weights::divergence::divergence;
use crate::ids::Uid;
use crate::messages::chain_watcher::ChainView;
use crate::messages::validator::weight_setter::Comparison;
use crate::runtime::Ctx;
use crate::telemetry::error_chain;

impl WeightSetter {
    /// Compares the board's weights with those on the chain, unless that was done.
    pub(super) fn compare(&mut self, view: &ChainView, ctx: &mut Ctx<Self>) {
        let Some(epoch) = self.board.epoch else { return };
        if self.comparing || self.board.comparison.as_ref().is_some_and(|done| done.epoch >= epoch) {
            return;
        }
        let burn = self.setup.burn.resolve(view).ok().flatten();
        // What is wrong with them is told where they are set.
        let Ok(ours) = rules::entries(&self.board.rows, view, burn.as_ref()) else { return };
        self.comparing = true;
        let (chain, deadline, block) = (self.setup.chain.clone(), self.setup.deadline, view.metagraph.head.number);
        let work = async move {
            let all = tokio::time::timeout(deadline, chain.weights_of_all()).await;
            all.unwrap_or(Err(ChainError::Deadline(deadline)))
        };
        ctx.spawn(work.into_actor(self).map(move |all, act, _| {
            act.comparing = false;
            match all {
                Ok(all) => act.compared(epoch, block, ours, &all),
                Err(error) => {
                    act.setup.metrics.weights_error(&error);
                    let error = error_chain(&error);
                    tracing::debug!(error, "weights are compared with those of others with the next block");
                }
            }
        }));
    }

    fn compared(&mut self, epoch: u64, block: u64, ours: Vec<(Uid, u16)>, all: &[(Uid, Vec<(Uid, u16)>)]) {
        let validators: Vec<_> = all.iter().filter_map(|(uid, theirs)| divergence(*uid, &ours, theirs)).collect();
        self.setup.metrics.weights_compared(&validators);
        Arc::make_mut(&mut self.board).comparison = Some(Comparison { epoch, block, ours, validators });
    }
}
