//! Whether it is this validator that is cut off: what fails then says nothing of the miner.
//!
//! A canary is one long conversation with one host, so a network of ours that is away looks like a miner that is. Others are
//! asked: while a canary runs, and once more when it fails, miners that proved themselves lately are dialled. If not one of them
//! answers, if only to refuse, we are cut off. The rented miner is none of them; nobody makes all of them silent who is not our network.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::reason::{Fault, Reason};
use crate::messages::chain_watcher::ChainView;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// How long one that is dialled may take.
const DIAL: Duration = Duration::from_secs(3);
/// How many are dialled with each look, in turn …
const AT_ONCE: usize = 4;
/// … and at most before it is said that none answers.
const MOST: usize = 64;
/// Fewest that tell anything together.
const FEWEST: usize = 3;

/// Tells whether this validator is cut off.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Whether it is, as seen now. It takes a few seconds at most.
    async fn cut_off(&self) -> bool;
}

/// Others that are there to be reached, and, where they are too few to tell, the chain. Without either it is never cut off.
#[derive(Debug, Default)]
pub struct Others {
    addrs: Vec<SocketAddr>,
    view: Option<watch::Receiver<Option<Arc<ChainView>>>>,
    turn: AtomicUsize,
}

impl Others {
    /// Of these addresses, and of the chain as it is seen.
    pub fn new(addrs: Vec<SocketAddr>, view: watch::Receiver<Option<Arc<ChainView>>>) -> Self {
        Others { addrs, view: Some(view), turn: AtomicUsize::new(0) }
    }
}

/// Whether anybody is there: a refusal comes from afar as well.
async fn reaches(addr: SocketAddr) -> bool {
    match timeout(DIAL, TcpStream::connect(addr)).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset),
        Err(_) => false,
    }
}

#[async_trait]
impl Witness for Others {
    async fn cut_off(&self) -> bool {
        if self.addrs.len() < FEWEST {
            let view = self.view.as_ref().and_then(|view| view.borrow().clone());
            return view.is_some_and(|view| view.is_silent());
        }
        let first = self.turn.fetch_add(AT_ONCE, Ordering::Relaxed) % self.addrs.len();
        let mut turns = self.addrs.iter().cycle().skip(first);
        let few = join_all(turns.by_ref().take(AT_ONCE).map(|addr| reaches(*addr))).await;
        if few.contains(&true) {
            return false;
        }
        // A few may be one owner's.
        let rest = self.addrs.len().min(MOST).saturating_sub(AT_ONCE);
        !join_all(turns.take(rest).map(|addr| reaches(*addr))).await.contains(&true)
    }
}

/// What the witness said while one canary ran.
pub(super) struct Seen<'a> {
    witness: &'a dyn Witness,
    cut_off: AtomicBool,
}

impl<'a> Seen<'a> {
    pub(super) fn by(witness: &'a dyn Witness) -> Self {
        Seen { witness, cut_off: AtomicBool::new(false) }
    }

    /// Looks now and then, for ever.
    pub(super) async fn look(&self) -> Infallible {
        loop {
            sleep(LOOK).await;
            self.now().await;
        }
    }

    async fn now(&self) -> bool {
        if !self.cut_off.load(Ordering::Relaxed) && self.witness.cut_off().await {
            self.cut_off.store(true, Ordering::Relaxed);
        }
        self.cut_off.load(Ordering::Relaxed)
    }

    /// The fault as it counts: our own where the way to the miner may have caused it and we were cut off at any time since the
    /// canary began, for a connection outlives a cut, and dies of it later.
    pub(super) async fn judge(&self, fault: Fault) -> Fault {
        match may_be_the_way(fault.reason) && self.now().await {
            true => Fault::new(Reason::OwnFault, format!("this validator was cut off: {fault}")),
            false => fault,
        }
    }
}

/// Whether a network between the two that is away, or slow, looks like this. A wrong answer is one over any network.
fn may_be_the_way(reason: Reason) -> bool {
    use Reason as R;
    matches!(
        reason,
        R::Unreachable | R::SshFailed | R::NoTransfer | R::NotStarted | R::EndedEarly | R::Deadline | R::TooSlow
    )
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::chain::ledger::GenesisConfig;
    use crate::chain::{BlockHead, EpochClock, Metagraph};
    use crate::ids::{Hash32, Netuid};

    fn others(addrs: Vec<SocketAddr>) -> Others {
        Others { addrs, ..Others::default() }
    }

    #[tokio::test]
    async fn whoever_answers_if_only_to_refuse_shows_that_we_are_not_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        // No host has this address, nor a way to it: connecting fails at once.
        let nowhere: SocketAddr = "255.255.255.255:9".parse().unwrap();
        assert!(reaches(open).await && reaches(closed).await && !reaches(nowhere).await);
        assert!(others(vec![nowhere; 3]).cut_off().await);
        assert!(!others(vec![nowhere, nowhere, closed]).cut_off().await);
        assert!(!others(vec![nowhere; 2]).cut_off().await, "too few to tell");
        let many = others([vec![nowhere; 4], vec![open; 4]].concat());
        assert!(!many.cut_off().await && !many.cut_off().await, "before that is said all are asked");
    }

    #[tokio::test(start_paused = true)]
    async fn where_there_are_few_others_a_chain_that_is_silent_says_it() {
        let netuid = Netuid(1);
        let head = BlockHead { number: 5, hash: Hash32([0; 32]), timestamp_ms: 0 };
        let epochs = EpochClock::Modulo { netuid, tempo: 5 };
        let metagraph = Arc::new(Metagraph { netuid, head, epochs, neurons: Vec::new() });
        let rules = Arc::new(GenesisConfig::new(netuid).hyperparameters);
        let (_publish, view) = watch::channel(Some(Arc::new(ChainView::new(metagraph, rules, 0))));
        let few = Others::new(Vec::new(), view);
        assert!(!few.cut_off().await);
        // Four blocks of 12 s, as long as nobody knows the chain's own time.
        sleep(Duration::from_secs(47)).await;
        assert!(!few.cut_off().await);
        sleep(Duration::from_secs(2)).await;
        assert!(few.cut_off().await);
    }
}
