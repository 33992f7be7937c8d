//! Messages of [`crate::actors::chain_watcher::ChainWatcher`].

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use tokio::time::Instant;

use crate::chain::{Hyperparameters, Metagraph, SlotTable};
use crate::ids::{BlockNumber, Epoch};

/// The least time without a block after which blocks are reckoned with that nobody has seen.
const SILENCE: Duration = Duration::from_secs(3);
/// Blocks that are missing when the chain is silent …
const SILENT_BLOCKS: u32 = 4;
/// … and the least time for that, however fast it is.
const SILENT: Duration = Duration::from_secs(20);
/// The time between blocks where it is not known yet: the chain's own.
const UNKNOWN_BLOCK: Duration = Duration::from_secs(12);

/// The subnet as of one block: an immutable snapshot that is handed around.
#[derive(Debug, Clone)]
pub struct ChainView {
    /// Neurons and head.
    pub metagraph: Arc<Metagraph>,
    /// The rules of the subnet, re-read once an epoch.
    pub hyperparameters: Arc<Hyperparameters>,
    /// Whose turn it is in this epoch, by the first block of it that was seen; made anew if the beacon is replaced before
    /// that block is final. `None` while the beacon could not be read.
    pub slots: Option<Arc<SlotTable>>,
    /// Time between two blocks, over the last ones seen; `None` before there were two.
    pub block_time: Option<Duration>,
    /// The newest finalised block, never above the head.
    pub finalized: BlockNumber,
    /// When it was read, from the chain or from the database.
    pub seen_at: Instant,
    /// From which of them.
    pub source: Source,
}

/// Where a view comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The chain.
    Chain,
    /// The database, from an earlier run: the chain was not read since this process started. Who is in the subnet is taken
    /// from it, nothing that depends on the present block is.
    Store {
        /// How old it was when it was read from there, by the wall clock.
        age: Duration,
    },
}

impl ChainView {
    /// A view read from the chain just now, without what is only known over time: the turns and the block time.
    pub fn new(metagraph: Arc<Metagraph>, hyperparameters: Arc<Hyperparameters>, finalized: BlockNumber) -> Self {
        let finalized = finalized.min(metagraph.head.number);
        let (seen_at, source) = (Instant::now(), Source::Chain);
        ChainView { metagraph, hyperparameters, slots: None, block_time: None, finalized, seen_at, source }
    }

    /// How long ago the chain was as it is shown here.
    pub fn age(&self) -> Duration {
        let before = match self.source {
            Source::Chain => Duration::ZERO,
            Source::Store { age } => age,
        };
        before.saturating_add(self.seen_at.elapsed())
    }

    /// Whether the chain is silent for so long that it is this node's own network, rather than the chain, that is away: four blocks,
    /// and 20 s at least. Nobody among the neurons can bring that about.
    pub fn is_silent(&self) -> bool {
        let block = self.block_time.filter(|block| !block.is_zero()).unwrap_or(UNKNOWN_BLOCK);
        self.age() > block.saturating_mul(SILENT_BLOCKS).max(SILENT)
    }

    /// Whether it is from an earlier run, see [`Source::Store`].
    pub fn is_stored(&self) -> bool {
        matches!(self.source, Source::Store { .. })
    }

    /// The epoch the head is in.
    pub fn epoch(&self) -> Epoch {
        self.metagraph.epoch()
    }

    /// The block that the chain should have come to by now. Where none was read for the time of two, and for 3 s at least,
    /// those that should have come since are counted on by the time between the last ones; else, in a view of an earlier run
    /// too, it is the head.
    ///
    /// So a turn that is known to come in this epoch comes also while the chain cannot be read.
    pub fn reckoned(&self) -> BlockNumber {
        let (head, silent) = (self.metagraph.head.number, self.seen_at.elapsed());
        match self.block_time {
            Some(block) if !self.is_stored() && !block.is_zero() && silent >= SILENCE.max(block.saturating_mul(2)) => {
                let unseen = silent.as_nanos() / block.as_nanos();
                head.saturating_add(u64::try_from(unseen).unwrap_or(u64::MAX))
            }
            _ => head,
        }
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
