//! Messages of [`crate::actors::validator::weight_setter::WeightSetter`].

use std::sync::Arc;

use actix::Message;
use serde::Serialize;

use crate::chain::weights::divergence::Divergence;
use crate::ids::{BlockNumber, Epoch, Uid};
pub use crate::scoring::ScoreRow;

/// The scores of one epoch and the weights that follow from them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Scoreboard {
    /// The epoch that was judged.
    pub epoch: Option<Epoch>,
    /// Every neuron that was judged.
    pub rows: Vec<ScoreRow>,
    /// The weights that follow, largest 65,535; zeros are left out.
    pub weights: Vec<(Uid, u16)>,
    /// The block the weights of this board were included at.
    pub included_at: Option<BlockNumber>,
    /// The epoch whose weights are on the chain.
    pub epoch_on_chain: Option<Epoch>,
    /// Why the last submission was refused or failed.
    pub problem: Option<String>,
    /// Weights on their way whose end is not known yet, oldest first.
    pub open: Vec<OpenWeights>,
    /// How far our weights are from what the validators say on the chain, as of the last epoch that was compared.
    pub comparison: Option<Comparison>,
}

/// Weights whose end is not known yet. Nothing secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenWeights {
    /// The intent.
    pub id: u64,
    /// The epoch whose scores they express.
    pub epoch: Epoch,
    /// How they go: `plain`, `hashed`, `timelocked`.
    pub route: &'static str,
    /// Where they are: `pending`, `sent`, `committed`.
    pub stage: &'static str,
    /// The block that holds the call, once known.
    pub block: Option<BlockNumber>,
    /// For a commit in the block after the one it was prepared at: the blocks of its reveal, the first and the one after the
    /// last.
    pub reveal: Option<(BlockNumber, BlockNumber)>,
}

/// Our weights against those on the chain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The epoch whose scores ours express.
    pub epoch: Epoch,
    /// The head when they were compared.
    pub block: BlockNumber,
    /// Ours, as they would go to the chain.
    pub ours: Vec<(Uid, u16)>,
    /// Each validator that has weights on the chain, ourselves included.
    pub validators: Vec<Divergence>,
}

/// The present scoreboard.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Arc<Scoreboard>")]
pub struct GetScoreboard;
