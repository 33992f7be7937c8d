//! Messages of [`crate::actors::chain_watcher::ChainWatcher`].

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use tokio::time::Instant;

use crate::chain::{Hyperparameters, Metagraph, SlotTable};
use crate::ids::{BlockNumber, Epoch};

/// The subnet as of one block: an immutable snapshot that is handed around.
#[derive(Debug, Clone)]
pub struct ChainView {
    /// Neurons and head.
    pub metagraph: Arc<Metagraph>,
    /// The rules of the subnet, re-read once an epoch.
    pub hyperparameters: Arc<Hyperparameters>,
    /// Whose turn it is in this epoch, fixed by the first block of it that was seen; `None` while its beacon could not be
    /// read.
    pub slots: Option<Arc<SlotTable>>,
    /// Time between two blocks, over the last ones seen; `None` before there were two.
    pub block_time: Option<Duration>,
    /// When it was read.
    pub seen_at: Instant,
}

impl ChainView {
    /// The epoch the head is in.
    pub fn epoch(&self) -> Epoch {
        self.metagraph.epoch()
    }

    /// When that block is due, in milliseconds since the Unix epoch; for one that is there already, or without a measured
    /// block time, the head's own time.
    pub fn due_ms(&self, block: BlockNumber) -> u64 {
        let head = self.metagraph.head;
        let ahead = u32::try_from(block.saturating_sub(head.number)).unwrap_or(u32::MAX);
        head.timestamp_ms
            .saturating_add(crate::clock::millis(self.block_time.unwrap_or_default().saturating_mul(ahead)))
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
