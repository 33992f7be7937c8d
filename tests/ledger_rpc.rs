//! The ledger over real HTTP: what a node can do with it, and what it refuses.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::ledger::{
    Call, Deadlines, GenesisConfig, LedgerClient, LedgerEndpoint, LedgerHandle, LedgerNode, RpcError, RpcServer,
    SignedCall,
};
use compute_subnet::chain::{Chain, ChainError, Rejection, Weights, is_epoch_block};
use compute_subnet::clock::SystemClock;
use compute_subnet::ids::{Coldkey, Hash32, Hotkey, Netuid, Uid};
use compute_subnet::wallet::Keypair;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NETUID: Netuid = Netuid(27);

struct World {
    ledger: LedgerHandle,
    rpc: RpcServer,
}

fn key(n: u8) -> Arc<Keypair> {
    Arc::new(Keypair::from_seed(&[n; 32]))
}

fn coldkey() -> Arc<Keypair> {
    key(200)
}

async fn world(block_time: Duration) -> World {
    let mut c = GenesisConfig::new(NETUID);
    c.block_time = block_time;
    c.hyperparameters.tempo = 2;
    c.hyperparameters.burn_rao = 1;
    c.hyperparameters.weights_rate_limit = 1;
    c.endowed = vec![(Coldkey(coldkey().hotkey().0), 1_000)];
    c.stakes = vec![(key(0).hotkey(), 100)];
    let ledger = LedgerNode::spawn(c, None, Arc::new(SystemClock)).await.unwrap();
    let rpc = RpcServer::start(ledger.clone(), "127.0.0.1:0".parse().unwrap()).unwrap();
    World { ledger, rpc }
}

/// Blocks often enough that no test waits long.
async fn quick() -> World {
    world(Duration::from_millis(10)).await
}

impl World {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.rpc.address())
    }

    fn client(&self, n: u8) -> LedgerClient {
        let endpoint: LedgerEndpoint = format!("ledger=http://{}", self.rpc.address()).parse().unwrap();
        LedgerClient::http(&endpoint, NETUID, key(n), Deadlines::default()).unwrap()
    }

    fn registration(&self, n: u8, nonce: u64) -> SignedCall {
        let call = Call::BurnedRegister { hotkey: key(n).hotkey() };
        SignedCall::sign(call, NETUID, nonce, self.ledger.state().genesis_head().hash, &*coldkey())
    }

    /// Status and error name of a submission.
    async fn post(&self, body: impl Into<reqwest::Body>) -> (u16, String) {
        let response = reqwest::Client::new().post(self.url("/submit")).body(body).send().await.unwrap();
        let status = response.status().as_u16();
        let body: Value = response.json().await.unwrap();
        (status, body["error"].as_str().unwrap_or("included").to_owned())
    }

    async fn post_call(&self, call: &SignedCall) -> (u16, String) {
        self.post(serde_json::to_vec(call).unwrap()).await
    }

    fn registered(&self) -> usize {
        self.ledger.state().metagraph().neurons.len()
    }
}

#[tokio::test]
async fn a_node_does_all_it_needs_over_http() {
    let w = quick().await;
    let (validator, miner) = (w.client(0), w.client(1));
    validator.register(validator.hotkey(), &*coldkey()).await.unwrap();
    let registered = miner.register(miner.hotkey(), &*coldkey()).await.unwrap();
    miner.serve_axon("127.0.2.1".parse().unwrap(), 8091, 183).await.unwrap();
    miner.serve_prometheus("127.0.2.1".parse().unwrap(), 9100, 183).await.unwrap();
    validator.add_stake(miner.hotkey(), 7, &*coldkey()).await.unwrap();

    // A permit comes with an epoch, incentive with the one after the weights.
    let mut heads = w.ledger.subscribe();
    heads.wait_for(|h| h.number > registered.block + 3).await.unwrap();
    let weights = Weights { entries: vec![(Uid(1), 1)], version_key: 183 };
    let set = validator.set_weights(&weights).await.unwrap();
    heads.wait_for(|h| h.number > set.block && is_epoch_block(h.number, NETUID, 2)).await.unwrap();

    let graph = validator.metagraph().await.unwrap();
    let (v, m) = (&graph.neurons[0], &graph.neurons[1]);
    assert!(v.validator_permit && v.weights == [(Uid(1), 65535)]);
    assert_eq!((m.stake_rao, m.incentive, m.registered_at), (7, 65535, registered.block));
    assert!(m.serves_axon("127.0.2.1".parse().unwrap(), 8091, 183));
    assert!(m.serves_prometheus("127.0.2.1".parse().unwrap(), 9100, 183));

    let head = validator.head().await.unwrap();
    assert_eq!(validator.block_hash(head.number).await.unwrap(), Some(head.hash));
    assert_eq!(validator.block_hash(head.number + 1_000_000).await.unwrap(), None);
    assert_eq!(validator.hyperparameters().await.unwrap(), *w.ledger.state().hyperparameters());
    assert_eq!(validator.balance(&Coldkey(coldkey().hotkey().0)).await.unwrap(), 1_000 - 2 - 7);
    assert_eq!(validator.health().await.unwrap().degraded, None);
}

#[tokio::test]
async fn refusals_come_back_under_the_chains_names() {
    let w = quick().await;
    let node = w.client(5);
    let served = node.serve_axon("10.0.0.1".parse().unwrap(), 8091, 1).await;
    assert_eq!(served, Err(ChainError::Rejected(Rejection::HotKeyNotRegisteredInNetwork)));
    node.register(node.hotkey(), &*coldkey()).await.unwrap();
    let again = node.register(node.hotkey(), &*coldkey()).await;
    assert_eq!(again, Err(ChainError::Rejected(Rejection::HotKeyAlreadyRegisteredInSubNet)));
    let local = node.serve_axon("127.0.0.1".parse().unwrap(), 8091, 1).await;
    assert_eq!(local, Err(ChainError::Rejected(Rejection::InvalidIpAddress)));
}

#[tokio::test]
async fn a_call_that_is_not_the_signers_for_this_ledger_now_is_refused() {
    let w = quick().await;
    let good = w.registration(1, 0);

    let mut forged = good.clone();
    forged.signature[40] ^= 1;
    let altered = SignedCall { call: Call::BurnedRegister { hotkey: key(9).hotkey() }, ..good.clone() };
    let stolen = SignedCall { signer: key(9).hotkey(), ..good.clone() };
    for call in [forged, altered, stolen] {
        assert_eq!(w.post_call(&call).await, (422, "BadSignature".into()));
    }
    let call = Call::BurnedRegister { hotkey: key(1).hotkey() };
    let foreign = SignedCall::sign(call.clone(), NETUID, 0, Hash32([9; 32]), &*coldkey());
    assert_eq!(w.post_call(&foreign).await, (422, "WrongGenesis".into()));
    let elsewhere = SignedCall::sign(call, Netuid(15), 0, good.genesis, &*coldkey());
    assert_eq!(w.post_call(&elsewhere).await, (422, "SubnetNotExists".into()));
    assert_eq!(w.post_call(&w.registration(1, 3)).await, (422, "FutureTransaction".into()));
    assert_eq!(w.registered(), 0);

    assert_eq!(w.post_call(&good).await, (200, "included".into()));
    assert_eq!(w.post_call(&good).await, (422, "StaleTransaction".into()));
    assert_eq!(w.registered(), 1);
}

#[tokio::test]
async fn bodies_that_are_no_call_are_refused_with_what_is_wrong() {
    let w = quick().await;
    assert_eq!(w.post("").await, (400, "Malformed".into()));
    assert_eq!(w.post("{").await, (400, "Malformed".into()));
    let mut call = serde_json::to_value(w.registration(1, 0)).unwrap();
    call["signature"] = json!("abc");
    assert_eq!(w.post(call.to_string()).await, (400, "Malformed".into()));
    call["call"] = json!({ "sudo": {} });
    assert_eq!(w.post(call.to_string()).await, (400, "Malformed".into()));
    assert_eq!(w.post("[".repeat(100_000)).await, (400, "Malformed".into()));
    assert_eq!(w.post(vec![b' '; (1 << 20) + 1]).await, (413, "TooLarge".into()));
    // Still there for the next.
    assert_eq!(w.post_call(&w.registration(1, 0)).await, (200, "included".into()));
}

#[tokio::test]
async fn an_endless_chunked_body_is_cut_at_the_limit() {
    let w = quick().await;
    let mut stream = TcpStream::connect(w.rpc.address()).await.unwrap();
    stream.write_all(b"POST /submit HTTP/1.1\r\nhost: l\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let (mut read, mut write) = stream.split();
    let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
    let flood = async { while write.write_all(&chunk).await.is_ok() {} };
    let mut answer = [0u8; 12];
    let answered = async { read.read_exact(&mut answer).await.unwrap() };
    tokio::pin!(flood, answered);
    let both = async {
        tokio::select! {
            _ = &mut answered => {}
            _ = &mut flood => { answered.await; }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), both).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn a_stopped_ledger_answers_503_to_everything() {
    let w = quick().await;
    let node = w.client(0);
    w.ledger.stop().await;
    for path in ["/head", "/block/0", "/metagraph", "/hyperparameters", "/health"] {
        assert_eq!(reqwest::get(w.url(path)).await.unwrap().status().as_u16(), 503, "{path}");
    }
    assert_eq!(w.post_call(&w.registration(1, 0)).await, (503, "Stopped".into()));
    assert_eq!(node.health().await.unwrap().degraded.as_deref(), Some("the ledger has stopped"));
    assert!(matches!(node.head().await, Err(ChainError::Unreachable(_))));
}

#[tokio::test]
async fn wrong_paths_methods_and_arguments_say_so_in_json() {
    let w = quick().await;
    let http = reqwest::Client::new();
    let cases = [
        (http.get(w.url("/nothing")), 404, "NotFound"),
        (http.get(w.url("/submit")), 405, "MethodNotAllowed"),
        (http.post(w.url("/head")), 405, "MethodNotAllowed"),
        (http.get(w.url("/block/-1")), 400, "Malformed"),
        (http.get(w.url("/account/5Grw")), 400, "Malformed"),
    ];
    for (request, status, error) in cases {
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{error}");
        assert_eq!(response.json::<Value>().await.unwrap()["error"], error);
    }
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() {
    let w = quick().await;
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let address: SocketAddr = address.parse().unwrap();
        let refused = RpcServer::start(w.ledger.clone(), address);
        assert!(matches!(refused, Err(RpcError::NotLoopback(a)) if a == address));
    }
    let taken = RpcServer::start(w.ledger.clone(), w.rpc.address());
    assert!(matches!(taken, Err(RpcError::Bind { .. })));
}

#[tokio::test]
async fn a_ledger_that_is_not_there_is_unreachable_within_the_deadline() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint: LedgerEndpoint = format!("http://{closed}").parse().unwrap();
    let deadlines = Deadlines { read: Duration::from_secs(5), submit: Duration::from_secs(5) };
    let node = LedgerClient::http(&endpoint, NETUID, key(0), deadlines).unwrap();
    assert!(matches!(node.head().await, Err(ChainError::Unreachable(_))));
    let registered = node.register(node.hotkey(), &*coldkey()).await;
    assert!(matches!(registered, Err(ChainError::Unreachable(_))), "{registered:?}");
}

#[tokio::test]
async fn a_ledger_that_takes_the_connection_and_is_silent_meets_the_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint: LedgerEndpoint = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
    let deadlines = Deadlines { read: Duration::from_millis(100), submit: Duration::from_millis(200) };
    let node = LedgerClient::http(&endpoint, NETUID, key(0), deadlines).unwrap();
    assert_eq!(node.head().await, Err(ChainError::Deadline(deadlines.read)));
    let registered = node.register(node.hotkey(), &*coldkey()).await;
    assert_eq!(registered, Err(ChainError::Deadline(deadlines.submit)));
}

#[tokio::test]
async fn something_else_on_the_port_is_told_from_a_ledger() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0u8; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await;
        }
    });
    let endpoint: LedgerEndpoint = format!("http://{address}").parse().unwrap();
    let node = LedgerClient::http(&endpoint, NETUID, key(0), Deadlines::default()).unwrap();
    assert!(matches!(node.head().await, Err(ChainError::Protocol(_))));
}

#[tokio::test]
async fn a_client_does_not_sign_for_another_ledger_that_took_the_place() {
    let w = quick().await;
    let node = w.client(0);
    node.register(node.hotkey(), &*coldkey()).await.unwrap();
    let address = w.rpc.address();
    w.rpc.stop().await;
    w.ledger.stop().await;

    let other = LedgerNode::spawn(
        GenesisConfig { block_time: Duration::from_millis(10), ..GenesisConfig::new(NETUID) },
        None,
        Arc::new(SystemClock),
    )
    .await
    .unwrap();
    let _rpc = RpcServer::start(other, address).unwrap();
    let served = node.serve_axon("10.0.0.1".parse().unwrap(), 8091, 1).await;
    assert!(matches!(&served, Err(ChainError::Protocol(text)) if text.contains("another ledger")), "{served:?}");
}

#[tokio::test]
async fn stopping_the_rpc_frees_its_port() {
    let w = quick().await;
    let address = w.rpc.address();
    w.rpc.stop().await;
    let again = RpcServer::start(w.ledger.clone(), address).unwrap();
    assert_eq!(again.address(), address);
    let who = Hotkey([1; 32]);
    let body: Value = reqwest::get(format!("http://{address}/account/{who}")).await.unwrap().json().await.unwrap();
    assert_eq!(body["nonce"], 0);
}
