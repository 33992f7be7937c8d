//! Whether this node alone acts with its hotkey, as far as the chain and another node's own word show it.
//!
//! On one machine a lock file keeps the second node of a hotkey out ([`crate::wallet::HotkeyLock`]); here is what can be
//! known of other machines. A miner asks the address that the chain shows for its hotkey before it announces its own
//! ([`Rival::ask`]), and never takes back an announcement that another node has replaced; one that was in a block that
//! was itself replaced has never been, and is made again. A validator sets no more
//! weights once the chain shows some that it never meant to set.
//!
//! Design notes: a conflict is published and lasts until the process ends. Two nodes that each correct the chain in turn
//! do more harm than one that stands still and says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;

use crate::ids::{BlockNumber, Hotkey};
use crate::telemetry::NodeMetrics;
use crate::telemetry::events::HotkeyConflict;
use crate::wire::dendrite::{CallError, Dendrite, Peer};
use crate::wire::synapse::{WhoReply, WhoRequest};

/// How long the other address may take to answer.
const ASK: Duration = Duration::from_secs(2);
/// Longest answer that is read, in bytes.
const MAX_REPLY: usize = 4 * 1024;

/// How it became known that another node acts with our hotkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Another node answered as our hotkey before we announced our axon: this node ends.
    Served {
        /// Where.
        at: SocketAddr,
        /// When it started, in milliseconds since the Unix epoch, by its own word.
        since_ms: u64,
    },
    /// The chain had our axon, and shows another address since.
    AxonMoved {
        /// Which.
        to: SocketAddr,
        /// The block in which it was announced.
        block: BlockNumber,
    },
    /// The chain shows weights as ours that this node never meant to set.
    ForeignWeights {
        /// The block in which they were set.
        block: BlockNumber,
    },
}

/// What a node knows of others with its hotkey, published.
#[derive(Debug)]
pub struct Exclusive {
    hotkey: Hotkey,
    metrics: Arc<NodeMetrics>,
    conflict: watch::Sender<Option<Conflict>>,
    axon: watch::Sender<Option<BlockNumber>>,
}

impl Exclusive {
    /// Nothing is known yet.
    pub fn new(hotkey: Hotkey, metrics: Arc<NodeMetrics>) -> Self {
        metrics.hotkey_conflict(false);
        Exclusive { hotkey, metrics, conflict: watch::Sender::new(None), axon: watch::Sender::new(None) }
    }

    /// Publishes a conflict and tells of it, once: the first one stays.
    pub fn report(&self, conflict: Conflict) {
        let problem = text(&self.hotkey, &conflict);
        let first = self.conflict.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(conflict);
            first
        });
        if first {
            HotkeyConflict { hotkey: self.hotkey, problem: &problem }.emit(&self.metrics);
        }
    }

    /// What is wrong, for people; `None` while nothing is.
    pub fn problem(&self) -> Option<String> {
        self.conflict.borrow().as_ref().map(|conflict| text(&self.hotkey, conflict))
    }

    /// Resolves once this node must end because another one was there first.
    pub async fn must_end(&self) {
        let mut conflict = self.conflict.subscribe();
        // The sender lives as long as `self`.
        let _ = conflict.wait_for(|c| matches!(c, Some(Conflict::Served { .. }))).await;
    }

    /// Whether this node must end because another one was there first.
    pub fn ends(&self) -> bool {
        matches!(*self.conflict.borrow(), Some(Conflict::Served { .. }))
    }

    /// The chain shows our axon as announced in this block.
    pub fn axon_shown(&self, block: BlockNumber) {
        self.axon.send_replace(Some(block));
    }

    /// The block that showed our axon was replaced for good: the chain has never shown it.
    pub fn axon_retracted(&self) {
        self.axon.send_replace(None);
    }

    /// The block of our newest announcement that the chain has shown to this process.
    pub fn shown_at(&self) -> Option<BlockNumber> {
        *self.axon.borrow()
    }
}

/// A conflict with what to do about it.
fn text(hotkey: &Hotkey, conflict: &Conflict) -> String {
    match conflict {
        Conflict::Served { at, since_ms } => {
            // A peer's word: far from any year that can be written, it is left out.
            let since = UNIX_EPOCH + Duration::from_millis((*since_ms).min(4_102_444_800_000));
            let since = humantime::format_rfc3339_seconds(since);
            format!("hotkey {hotkey} is already served at {at} since {since}: end that node or use another hotkey")
        }
        Conflict::AxonMoved { to, block } => format!(
            "another node announced hotkey {hotkey} at {to} in block {block}: end that node, then restart this one, or \
             use another hotkey"
        ),
        Conflict::ForeignWeights { block } => format!(
            "weights of hotkey {hotkey} were set in block {block} by somebody else: end whatever else uses the hotkey, \
             then restart this node"
        ),
    }
}

/// How an address is asked whether another node serves our hotkey there.
#[derive(Debug, Clone)]
pub struct Rival {
    /// Calls as our hotkey.
    pub dendrite: Dendrite,
    /// This process.
    pub instance: String,
}

impl Rival {
    /// Asks once. Only an answer signed with our own hotkey by another process counts; no answer, or anybody else's, is
    /// nobody: the address is an old one.
    pub async fn ask(&self, at: SocketAddr) -> Option<Conflict> {
        let peer = Peer { hotkey: self.dendrite.hotkey(), addr: at };
        let answer = self.dendrite.call(&peer, &WhoRequest {}, ASK, MAX_REPLY).await.map(|reply| reply.body);
        match &answer {
            Ok(who) => tracing::info!(%at, ?who, "the address that the chain shows for this hotkey answers"),
            Err(error) => tracing::info!(%at, %error, "nobody serves this hotkey at the address that the chain shows"),
        }
        other(at, &self.instance, answer)
    }
}

fn other(at: SocketAddr, us: &str, answer: Result<WhoReply, CallError>) -> Option<Conflict> {
    answer.ok().filter(|who| who.instance != us).map(|who| Conflict::Served { at, since_ms: who.since_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::telemetry::{BuildInfo, Labels, encode};

    const AT: ([u8; 4], u16) = ([10, 0, 0, 1], 8091);

    #[test]
    fn only_another_process_with_our_key_is_a_rival() {
        let at = SocketAddr::from(AT);
        let who = |instance: &str| Ok(WhoReply { instance: instance.to_owned(), since_ms: 5 });
        assert_eq!(other(at, "a", who("b")), Some(Conflict::Served { at, since_ms: 5 }));
        assert_eq!(other(at, "a", who("a")), None, "that is ourselves");
        assert_eq!(other(at, "a", Err(CallError::Deadline(ASK))), None);
        assert_eq!(other(at, "a", Err(CallError::BadReplySignature(200))), None);
    }

    #[test]
    fn the_first_conflict_stays_and_only_a_rival_at_the_start_ends_the_node() {
        let registry = prometheus::Registry::new();
        let build = BuildInfo::of("miner");
        let metrics =
            NodeMetrics::register(&registry, &build, &Labels::default(), Arc::new(SystemClock)).expect("metrics");
        let page = || encode(&registry).expect("a page");
        let exclusive = Exclusive::new(Hotkey([1; 32]), metrics);
        assert!(exclusive.problem().is_none() && page().contains("compute_hotkey_conflict 0\n"));
        exclusive.report(Conflict::AxonMoved { to: SocketAddr::from(AT), block: 7 });
        exclusive.report(Conflict::Served { at: SocketAddr::from(AT), since_ms: u64::MAX });
        let problem = exclusive.problem().expect("a problem");
        assert!(problem.contains("10.0.0.1:8091 in block 7"), "{problem}");
        assert!(!exclusive.ends() && page().contains("compute_hotkey_conflict 1\n"));
        let served = text(&Hotkey([1; 32]), &Conflict::Served { at: SocketAddr::from(AT), since_ms: 0 });
        assert!(served.contains("already served at 10.0.0.1:8091 since 1970-01-01T00:00:00Z"), "{served}");
    }
}
