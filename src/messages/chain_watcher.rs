//! Messages of [`crate::actors::chain_watcher::ChainWatcher`].

use std::sync::Arc;

use actix::Message;
use tokio::time::Instant;

use crate::chain::{Hyperparameters, Metagraph};
use crate::ids::Epoch;

/// The subnet as of one block: an immutable snapshot that is handed around.
#[derive(Debug, Clone)]
pub struct ChainView {
    /// Neurons and head.
    pub metagraph: Arc<Metagraph>,
    /// The rules of the subnet, re-read once an epoch.
    pub hyperparameters: Arc<Hyperparameters>,
    /// When it was read.
    pub seen_at: Instant,
}

impl ChainView {
    /// The epoch the head is in.
    pub fn epoch(&self) -> Epoch {
        self.metagraph.epoch()
    }
}

/// A new head was seen. Told to every subscriber, once for each head.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct NewBlock(pub Arc<ChainView>);

/// Neurons, stakes, permits or endpoints changed since the last view.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct MetagraphChanged(pub Arc<ChainView>);

/// Look at the chain now instead of at the next period.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Poll;
