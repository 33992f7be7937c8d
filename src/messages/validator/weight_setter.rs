//! Messages of [`crate::actors::validator::weight_setter::WeightSetter`].

use std::sync::Arc;

use actix::Message;
use serde::Serialize;

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
}

/// The present scoreboard.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Arc<Scoreboard>")]
pub struct GetScoreboard;
