//! A client with short deadlines in front of fakes, and the checks that every fault has in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use compute_subnet::chain::subtensor::{ClientSettings, LinkSettings, Mechanism, SubtensorChain};
use compute_subnet::chain::{BlockHead, Cause, Chain as _, ChainError, Inclusion, PreparedWeights, Route, Weights};
use compute_subnet::clock::SystemClock;
use compute_subnet::ids::{Netuid, Uid};
use compute_subnet::runtime::Backoff;
use compute_subnet::wallet::Keypair;
use tokio::time::Instant;

use crate::fake::{Chain, Fake};
use crate::proxy::Proxy;

/// How many times longer everything may take: more where a row is run again, on a machine that has other work.
pub(crate) static PATIENCE: AtomicU32 = AtomicU32::new(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms) * PATIENCE.load(Ordering::SeqCst)
}
/// Longest wait for one answer, in these tests.
pub(crate) fn answer() -> Duration {
    ms(800)
}
/// A head may stand still for so long.
pub(crate) fn stall() -> Duration {
    ms(2_500)
}
/// Longest wait for a call to be included.
pub(crate) fn submit_limit() -> Duration {
    ms(4_000)
}
/// Longest pause between two rounds of endpoints that fail.
pub(crate) fn pause() -> Duration {
    ms(400)
}
/// What a busy machine adds to a bound.
pub(crate) fn slack() -> Duration {
    ms(1_500)
}

pub(crate) const SUBMISSION: &str = "author_submitAndWatchExtrinsic";
pub(crate) const STORAGE: &str = "state_queryStorageAt";

/// A good chain; `None`, and said so, where there is no metadata for one.
pub(crate) fn chain() -> Option<Chain> {
    let chain = Chain::with_metadata("metadata_spec425_v15.scale", 425);
    if chain.is_none() {
        const WHY: &str = "SUBTENSOR_METADATA names no directory with metadata of subtensor runtimes";
        println!("LEFT OUT: {WHY}");
        if let Some(file) = std::env::var_os("COMPUTE_TEST_LEFT_OUT") {
            std::fs::write(file, format!("{WHY}\n")).unwrap();
        }
    }
    chain
}

/// A fake node.
pub(crate) async fn node() -> Fake {
    Fake::start(chain().expect("asked for before")).await
}

/// A client of these endpoints.
pub(crate) fn client(endpoints: &[String]) -> Arc<SubtensorChain> {
    client_with(endpoints, submit_limit())
}

pub(crate) fn client_with(endpoints: &[String], submit: Duration) -> Arc<SubtensorChain> {
    let retry = Backoff { first: Duration::from_millis(50), cap: pause(), ..Backoff::default() };
    let link = LinkSettings {
        endpoints: endpoints.to_vec(),
        genesis: None,
        never: Vec::new(),
        deadline: answer(),
        stalled_after: stall(),
        retry,
    };
    let mechanism = Mechanism::first(Netuid(27));
    let settings = ClientSettings { link, mechanism, submit, clock: Arc::new(SystemClock) };
    Arc::new(SubtensorChain::new(settings, Arc::new(Keypair::from_uri("//Alice").unwrap())).unwrap())
}

/// A client, nodes of the same chain, and the wires in between: one endpoint for each node.
pub(crate) struct Bench {
    pub(crate) client: Arc<SubtensorChain>,
    pub(crate) nodes: Vec<Fake>,
    pub(crate) wires: Vec<Proxy>,
}

impl Bench {
    /// A client that is connected to the first of so many nodes.
    pub(crate) async fn connected(count: usize) -> Self {
        let bench = Self::new(count).await;
        bench.read().await.unwrap();
        bench
    }

    /// A client that has not been used yet.
    pub(crate) async fn new(count: usize) -> Self {
        let (mut nodes, mut wires) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let node = node().await;
            wires.push(Proxy::start(node.url().trim_start_matches("ws://").parse().unwrap()).await);
            nodes.push(node);
        }
        let urls: Vec<String> = wires.iter().map(Proxy::url).collect();
        Bench { client: client(&urls), nodes, wires }
    }

    /// A connected client with nothing in between, for what is no WebSocket.
    pub(crate) async fn bare() -> Self {
        let nodes = vec![node().await];
        let bench = Bench { client: client(&[nodes[0].url()]), nodes, wires: Vec::new() };
        bench.read().await.unwrap();
        bench
    }

    /// The node that is asked first.
    pub(crate) fn node(&self) -> &Fake {
        &self.nodes[0]
    }

    /// A read of several calls, which must not outlive its deadline.
    pub(crate) async fn read(&self) -> Result<BlockHead, ChainError> {
        let begin = Instant::now();
        let head = self.client.head().await;
        let limit = self.client.link().patience() + slack();
        assert!(begin.elapsed() < limit, "a read took {:?}, more than {limit:?}: {head:?}", begin.elapsed());
        head
    }

    /// Sends weights, once, within the deadline.
    pub(crate) async fn send(&self) -> Result<Inclusion, ChainError> {
        let begin = Instant::now();
        let sent = self.client.submit_weights(&weights()).await;
        let limit = submit_limit() + slack();
        assert!(begin.elapsed() < limit, "weights took {:?}, more than {limit:?}: {sent:?}", begin.elapsed());
        sent
    }

    /// A new block of the first node, which the client has been told of.
    pub(crate) async fn told(&self) {
        self.node().new_block();
        // The node has said so on the connection that is in use; a moment for the client to read it.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    /// Asks until the client reads the newest head of one of the nodes, and gets an answer to a question of now; how long
    /// that took since `begin`.
    pub(crate) async fn whole_since(&self, begin: Instant) -> Duration {
        let limit = Duration::from_secs(60);
        loop {
            let read = self.read().await;
            if let Ok(head) = &read
                && self.client.block_hash(head.number).await == Ok(Some(head.hash))
            {
                let hash = format!("0x{}", hex::encode(head.hash.0));
                if self.nodes.iter().any(|node| node.with(|chain| chain.head().hash == hash)) {
                    return begin.elapsed();
                }
            }
            assert!(begin.elapsed() < limit, "never whole again: {read:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks until a connection was given up for this cause; how long that took since `begin`.
    pub(crate) async fn noticed_since(&self, begin: Instant, causes: &[Cause]) -> Duration {
        while !causes.iter().any(|cause| self.ended(*cause) > 0) {
            assert!(begin.elapsed() < Duration::from_secs(60), "never noticed: {:?}", self.client.vitals().ended);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        begin.elapsed()
    }

    /// Connections that were given up for this cause.
    pub(crate) fn ended(&self, cause: Cause) -> u64 {
        self.client.vitals().ended.iter().find(|(of, _)| *of == cause).unwrap().1
    }

    /// Submissions that the nodes got, all together.
    pub(crate) fn submissions(&self) -> usize {
        self.nodes.iter().map(|node| node.calls_of(SUBMISSION)).sum()
    }

    /// Blocks on every node, as on one chain, so often; until it is dropped.
    pub(crate) fn blocks(self: &Arc<Self>, every: Duration) -> Blocks {
        let bench = self.clone();
        Blocks(tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                bench.nodes.iter().for_each(Fake::new_block);
            }
        }))
    }

    /// The client is whole: it reads, and sends weights exactly once.
    pub(crate) async fn check(&self) {
        self.whole_since(Instant::now()).await;
        let before = self.submissions();
        self.send().await.unwrap_or_else(|e| panic!("weights after the fault: {e}"));
        assert_eq!(self.submissions(), before + 1, "weights were sent more than once");
    }
}

/// See [`Bench::blocks`].
pub(crate) struct Blocks(tokio::task::JoinHandle<()>);

impl Drop for Blocks {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Weights that go in the open.
pub(crate) fn weights() -> PreparedWeights {
    let weights = Weights { entries: vec![(Uid(4), 1), (Uid(5), 65_535)], version_key: 0 };
    // Of a block to come: they are never sent too late.
    PreparedWeights { weights, mechanism: 0, route: Route::Plain, at: 1 << 32, reveal: None }
}

/// The transaction that was submitted last to this node.
pub(crate) fn submitted(node: &Fake) -> String {
    let calls = node.calls();
    let call = calls.iter().rev().find(|call| call.method == SUBMISSION).expect("a submission");
    call.params[0].as_str().unwrap().to_owned()
}
