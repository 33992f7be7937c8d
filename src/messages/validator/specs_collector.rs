//! Messages of [`crate::actors::validator::specs_collector::SpecsCollector`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix::Message;

use crate::ids::{BlockNumber, Hotkey};
use crate::verdict::UnknownCause;
use crate::wire::synapse::SpecsReply;

/// Whom to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The miner.
    pub hotkey: Hotkey,
    /// Its axon.
    pub address: SocketAddr,
}

/// What became of asking one miner.
pub type SpecsResult = Result<Arc<SpecsReply>, (UnknownCause, String)>;

/// Ask these miners for their specs, in batches; replies when every one has answered or run into its deadline, or the time
/// is over. A miner that is not ready is asked again, and what one said before stands in for an answer that does not come.
#[derive(Debug, Clone, Message)]
#[rtype(result = "HashMap<Hotkey, SpecsResult>")]
pub struct CollectSpecs {
    /// Whom.
    pub targets: Vec<Target>,
    /// The block it is now.
    pub block: BlockNumber,
    /// How long it may take in all.
    pub within: Duration,
}

/// The last specs known of each miner.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "HashMap<Hotkey, Arc<SpecsReply>>")]
pub struct KnownSpecs;
