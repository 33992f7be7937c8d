//! A subtensor chain of one's own: the real runtime in a process beside the test, driven by it.
//!
//! `node/` has the process, `scripts/subtensor` what it needs. What is asked here goes by HTTP past every proxy and
//! client, so it can say what is true while they fail. Storage is written and read by the names of the runtime's metadata.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use compute_subnet::ids::{BlockNumber, Netuid};
use compute_subnet::wallet::Keypair;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::rpc::{Rpc, RpcError};

/// Starting takes two to four seconds, more beside other work.
const START_LIMIT: Duration = Duration::from_secs(60);

const PALLET: &str = "SubtensorModule";

/// An item of storage: pallet, item, keys, value (`null` deletes, `{"hex": ..}` are raw bytes).
pub(crate) type Item = (&'static str, &'static str, Value, Value);

/// Says what a test cannot see here, also in the table of `scripts/test`; each reason once.
pub(crate) fn left_out(why: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    println!("LEFT OUT: {why}");
    if SAID.lock().unwrap().insert(why.to_owned())
        && let Some(file) = std::env::var_os("COMPUTE_TEST_LEFT_OUT")
    {
        let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "{why}").unwrap();
    }
}

/// The directory with packages and genesis; `None`, and said so, where no raw spec was given to make it from.
///
/// # Panics
/// If there should be one and `scripts/subtensor` was not run.
fn made() -> Option<PathBuf> {
    if std::env::var_os("SUBTENSOR_SPEC").is_none_or(|spec| spec.is_empty()) {
        left_out("SUBTENSOR_SPEC names no raw chain spec with a subtensor runtime (see scripts/subtensor)");
        return None;
    }
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/subtensor");
    assert!(dir.join("genesis.stamp").exists(), "{} is not complete: run scripts/subtensor", dir.display());
    Some(dir)
}

/// How a chain starts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Start {
    /// A block every so often. Without it there is one with each transaction, and with [`Bed::new_blocks`].
    pub(crate) every: Option<Duration>,
}

/// What runs.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Info {
    pub(crate) spec: u32,
    pub(crate) block: BlockNumber,
    /// The chain's time, ms since 1970.
    pub(crate) now_ms: u64,
    /// What time a block takes on the chain, ms, whatever it takes here.
    pub(crate) slot_ms: u64,
    /// Memory of the process.
    pub(crate) rss_mib: u64,
}

/// What became of a transaction that is in a block.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Sent {
    pub(crate) block: At,
    /// The runtime's error; `None` if the call did what it says.
    pub(crate) error: Option<DispatchError>,
    pub(crate) events: Vec<Event>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct At {
    pub(crate) number: BlockNumber,
    pub(crate) hash: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct DispatchError {
    pub(crate) pallet: Option<String>,
    pub(crate) name: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Event {
    /// Pallet and name, `SubtensorModule.AxonServed`.
    pub(crate) name: String,
    pub(crate) data: Value,
}

/// The key of a seeded neuron's hotkey.
pub(crate) fn hotkey(uid: usize) -> Keypair {
    Keypair::from_uri(&format!("//n{uid}//hot")).unwrap()
}

/// The key of a seeded neuron's coldkey.
pub(crate) fn coldkey(uid: usize) -> Keypair {
    Keypair::from_uri(&format!("//n{uid}")).unwrap()
}

/// An account as the node takes it.
pub(crate) fn account(key: &Keypair) -> String {
    format!("0x{}", hex::encode(key.hotkey().0))
}

/// What [`Bed::seed`] makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seed {
    /// Neurons; uid n is [`hotkey`]`(n)` of [`coldkey`]`(n)`.
    pub(crate) neurons: usize,
    /// The first so many have a permit and stake, and no axon; the others an axon at 127.0.0.2, port 8100 + uid.
    pub(crate) validators: usize,
    /// Stake of each validator, rao.
    pub(crate) stake: u64,
}

impl Default for Seed {
    fn default() -> Self {
        Seed { neurons: 256, validators: 4, stake: 1_000_000_000_000 }
    }
}

/// A chain. Its process ends with this value, and with this test's process however that ends.
pub(crate) struct Bed {
    _node: Child,
    address: SocketAddr,
    /// Straight to the node.
    pub(crate) rpc: Rpc,
    /// What starting took.
    pub(crate) took: Duration,
}

impl Bed {
    /// A chain at block 1; `None`, and said so, where there is no runtime to run.
    pub(crate) async fn start(start: Start) -> Option<Self> {
        let dir = made()?;
        let begin = tokio::time::Instant::now();
        let mut node = Command::new("node")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/subtensor/node/node.cjs"))
            .arg("--genesis")
            .arg(dir.join("genesis.json"))
            .args(["--every", &start.every.unwrap_or_default().as_millis().to_string()])
            .env("NODE_PATH", dir.join("node_modules"))
            .env_remove("NODE_OPTIONS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| panic!("node does not start ({e}): run scripts/subtensor"));
        let mut said = BufReader::new(node.stdout.take().unwrap());
        let ready = async {
            let mut line = String::new();
            while said.read_line(&mut line).await.unwrap() > 0 {
                let answer = serde_json::from_str::<Value>(&line).ok();
                if let Some(address) = answer.as_ref().and_then(|a| a["ready"].as_str()) {
                    return address.parse().unwrap();
                }
                line.clear();
            }
            panic!("the chain's process ended before it was ready: see what it said above");
        };
        let address = tokio::time::timeout(START_LIMIT, ready).await.expect("the chain is not ready in time");
        // What it says later goes nowhere, but must be taken.
        tokio::spawn(async move { while said.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {} });
        Some(Bed { _node: node, address, rpc: Rpc::new(address), took: begin.elapsed() })
    }

    /// Where the node listens: for a [`Proxy`](crate::proxy::Proxy).
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect without one.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) async fn info(&self) -> Info {
        self.answer("test_info", json!([])).await
    }

    /// The newest block.
    pub(crate) async fn head(&self) -> BlockNumber {
        self.info().await.block
    }

    /// Builds blocks, with what is in the pool in the first of them. Returns the newest.
    pub(crate) async fn new_blocks(&self, count: u64) -> BlockNumber {
        let before = self.head().await;
        self.rpc.ask("dev_newBlock", json!([{ "count": count }])).await;
        let after = self.head().await;
        assert!(after >= before + count, "the runtime refuses to build blocks: {before} is still at {after}");
        after
    }

    /// One block whose number is `to`, as if all between had been left out.
    pub(crate) async fn jump(&self, to: BlockNumber) {
        self.rpc.ask("dev_newBlock", json!([{ "unsafeBlockHeight": to }])).await;
        assert_eq!(self.head().await, to);
    }

    /// The time that the next block is one slot after, ms since 1970.
    pub(crate) async fn time_travel(&self, now_ms: u64) {
        self.rpc.ask("dev_timeTravel", json!([now_ms])).await;
    }

    /// A block every so often, also without transactions.
    pub(crate) async fn every(&self, time: Duration) {
        self.rpc.ask("test_every", json!([time.as_millis() as u64])).await;
    }

    /// Blocks with transactions only, and by [`new_blocks`](Self::new_blocks).
    pub(crate) async fn at_once(&self) {
        self.rpc.ask("test_every", json!([0])).await;
    }

    /// Blocks by [`new_blocks`](Self::new_blocks) alone: transactions wait in the pool.
    pub(crate) async fn by_hand(&self) {
        self.at_once().await;
        self.rpc.ask("dev_setBlockBuildMode", json!(["Manual"])).await;
    }

    /// From now on a block is final once so many are on top of it.
    pub(crate) async fn finality(&self, lag: u64) {
        self.rpc.ask("test_finality", json!([lag])).await;
    }

    /// Replaces the newest `depth` blocks, none of them final, by one more without transactions. What was in them goes
    /// back to the pool, or is lost. Returns how many transactions that were.
    pub(crate) async fn reorg(&self, depth: u64, lose: bool) -> u64 {
        self.rpc.ask("test_reorg", json!([depth, lose])).await.as_u64().unwrap()
    }

    /// Writes storage of the newest block, which is also the ground of the next one.
    pub(crate) async fn set_storage(&self, items: &[Item]) {
        self.rpc.ask("test_set", json!([items])).await;
    }

    /// Whether this runtime has such storage: items come and go with versions.
    pub(crate) async fn has(&self, pallet: &str, item: &str) -> bool {
        self.rpc.ask("test_has", json!([pallet, item])).await == json!(true)
    }

    /// Reads one item of the newest block; the runtime's default, or `null` where it has none, if it is not set.
    pub(crate) async fn storage(&self, pallet: &str, item: &str, keys: Value) -> Value {
        self.rpc.ask("test_get", json!([pallet, item, keys])).await["value"].take()
    }

    /// Signs a call with the key of this URI, sends it and waits for its block. `Err` is the pool's refusal. A call within
    /// the call is `{"call": [pallet, call, args]}`.
    pub(crate) async fn submit(&self, uri: &str, pallet: &str, call: &str, args: Value) -> Result<Sent, RpcError> {
        let sent = self.rpc.call("test_submit", json!([uri, pallet, call, args])).await?;
        Ok(serde_json::from_value(sent).unwrap())
    }

    /// The transaction that [`submit`](Self::submit) would send now, as hex.
    pub(crate) async fn sign(&self, uri: &str, pallet: &str, call: &str, args: Value) -> String {
        let signed = self.rpc.ask("test_sign", json!([uri, pallet, call, args])).await;
        signed.as_str().unwrap().to_owned()
    }

    /// Registers a subnet of `//Alice`, with the hotkey `//Alice//hot` as uid 0, and makes it easy to test in: no rate
    /// limits, no commit-reveal, tempo 10, started.
    pub(crate) async fn register_subnet(&self) -> Netuid {
        self.set_storage(&[(PALLET, "NetworkRateLimit", json!([]), json!(0))]).await;
        let hotkey = account(&Keypair::from_uri("//Alice//hot").unwrap());
        // Until the mechanism went away from the call it was an argument.
        let mut sent = self.submit("//Alice", PALLET, "register_network", json!([hotkey, 1])).await;
        if sent.as_ref().is_err_and(|e| e.message.contains("arguments")) {
            sent = self.submit("//Alice", PALLET, "register_network", json!([hotkey])).await;
        }
        let sent = sent.unwrap_or_else(|e| panic!("register_network: {e}"));
        assert_eq!(sent.error, None, "register_network");
        let added = sent.events.iter().find(|event| event.name == "SubtensorModule.NetworkAdded").unwrap();
        let netuid = Netuid(added.data[0].as_u64().unwrap() as u16);
        let rule = |item, value| (PALLET, item, json!([netuid.0]), value);
        self.set_storage(&[
            rule("MaxRegistrationsPerBlock", json!(256)),
            rule("TargetRegistrationsPerInterval", json!(256)),
            rule("ServingRateLimit", json!(0)),
            rule("WeightsSetRateLimit", json!(0)),
            rule("CommitRevealWeightsEnabled", json!(false)),
            rule("Tempo", json!(10)),
            rule("MinAllowedWeights", json!(1)),
            rule("ActivityCutoff", json!(65_535)),
        ])
        .await;
        // The least stake to set weights has had two names; newer runtimes pay nobody before a subnet's owner starts it.
        for (item, keys, value) in [
            ("WeightsMinStake", json!([]), json!(0)),
            ("StakeThreshold", json!([]), json!(0)),
            ("SubtokenEnabled", json!([netuid.0]), json!(true)),
            ("FirstEmissionBlockNumber", json!([netuid.0]), json!(1)),
        ] {
            if self.has(PALLET, item).await {
                self.set_storage(&[(PALLET, item, keys, value)]).await;
            }
        }
        netuid
    }

    /// Replaces the subnet's neurons in one step.
    pub(crate) async fn seed(&self, netuid: Netuid, seed: Seed) {
        let neurons: Vec<Value> = (0..seed.neurons)
            .map(|uid| {
                let validator = uid < seed.validators;
                json!({
                    "hotkey": account(&hotkey(uid)),
                    "coldkey": account(&coldkey(uid)),
                    "validator": validator,
                    "stake": if validator { seed.stake } else { 0 }.to_string(),
                    "axon": (!validator).then(|| json!({ "ip": 0x7f00_0002, "port": 8100 + uid })),
                })
            })
            .collect();
        self.rpc.ask("test_seedNeurons", json!([netuid.0, neurons])).await;
    }

    async fn answer<T: serde::de::DeserializeOwned>(&self, method: &str, params: Value) -> T {
        serde_json::from_value(self.rpc.ask(method, params).await).unwrap_or_else(|e| panic!("{method}: {e}"))
    }
}
