//! A ledger of its own for each test, and real nodes on it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use compute_subnet::actors::miner::node::{self as miner, MinerInput};
use compute_subnet::actors::node::{Node, NodeError, NodeInput};
use compute_subnet::actors::validator::node::{self as validator, ValidatorInput};
use compute_subnet::chain::Chain;
use compute_subnet::chain::ledger::{
    Deadlines, GenesisConfig, LedgerClient, LedgerEndpoint, LedgerHandle, LedgerNode, RpcServer,
};
use compute_subnet::clock::SystemClock;
use compute_subnet::exit::Exit;
use compute_subnet::hardware::{OfferedDevice, Probe};
use compute_subnet::ids::{Coldkey, DeviceId, Hotkey};
use compute_subnet::lease::engine::SimulatedEngine;
use compute_subnet::proof::prover::{ChildProver, Prover, ProverLimits};
use compute_subnet::runtime::{Placement, TreeView};
use compute_subnet::settings::Settings;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::btauth;
use tokio::sync::oneshot;

use crate::common::{LONG, PROVER, Reply, exchange, settings};

/// Runs everything that a test runs.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) settings: Settings,
    runtime: Arc<tokio::runtime::Runtime>,
    /// The last part of the next node's address.
    next: AtomicU16,
}

pub(crate) fn key(name: &str) -> Keypair {
    Keypair::from_uri(&format!("//{name}")).unwrap()
}

/// A validator with permit and enough stake. There are two of them.
pub(crate) fn validator_key() -> Keypair {
    key("Validator")
}

/// A prover's child with this program.
pub(crate) fn child(exe: &str, args: &[&str], time: Duration) -> Arc<dyn Prover> {
    let limits = ProverLimits { time, memory_bytes: 4 << 30, output_bytes: 16 << 20, threads: 1 };
    Arc::new(ChildProver { args: args.iter().map(Into::into).collect(), ..ChildProver::new(exe.into(), limits) })
}

pub(crate) fn honest() -> Arc<dyn Prover> {
    child(PROVER, &[], LONG)
}

impl World {
    pub(crate) fn new(runtime: Arc<tokio::runtime::Runtime>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        World { dir, settings, runtime, next: AtomicU16::new(1) }
    }

    /// A ledger in this process, in which these neurons are registered: by name, with stake in TAO.
    pub(crate) async fn ledger(&self, neurons: &[(&str, u64)]) -> LedgerHandle {
        let tao = 1_000_000_000;
        let mut genesis = GenesisConfig::new(self.settings.netuid);
        genesis.block_time = self.settings.devnet.block_time;
        genesis.hyperparameters.tempo = self.settings.devnet.tempo;
        genesis.hyperparameters.weights_rate_limit = 2;
        genesis.hyperparameters.serving_rate_limit = 1;
        let owner = key("Owner");
        genesis.endowed = vec![(Coldkey(owner.hotkey().0), 1_000 * tao)];
        genesis.stakes = neurons.iter().map(|(name, stake)| (key(name).hotkey(), stake * tao)).collect();
        let ledger = LedgerNode::spawn(genesis, None, Arc::new(SystemClock)).await.unwrap();
        for (name, _) in neurons {
            let key = key(name);
            self.in_process(&ledger, &key).register(key.hotkey(), &owner).await.unwrap();
        }
        ledger
    }

    /// The chain as a node in the ledger's process sees it.
    pub(crate) fn in_process(&self, ledger: &LedgerHandle, key: &Keypair) -> Arc<dyn Chain> {
        let signer = Arc::new(key.clone());
        Arc::new(LedgerClient::in_process(ledger.clone(), self.settings.netuid, signer, Deadlines::default()))
    }

    /// The chain as a node in another process sees it.
    pub(crate) fn over_http(&self, ledger: SocketAddr, key: &Keypair) -> Arc<dyn Chain> {
        let endpoint: LedgerEndpoint = format!("http://{ledger}").parse().unwrap();
        let deadlines = Deadlines { read: Duration::from_secs(1), ..Deadlines::default() };
        Arc::new(LedgerClient::http(&endpoint, self.settings.netuid, Arc::new(key.clone()), deadlines).unwrap())
    }

    /// What a node called `name` is given: its key, directory and log name follow from that, its address is its own.
    pub(crate) fn input(&self, name: &str, chain: Arc<dyn Chain>) -> NodeInput {
        let ip = IpAddr::from(Ipv4Addr::new(127, 0, 99, self.next.fetch_add(1, Ordering::SeqCst) as u8));
        NodeInput {
            layers: None,
            name: name.to_owned(),
            settings: Arc::new(self.settings.clone()),
            keypair: key(name),
            chain,
            clock: Arc::new(SystemClock),
            runtime: self.runtime.clone(),
            placement: Placement::PerNode,
            data_dir: self.dir.path().join(name),
            web: SocketAddr::new(ip, 0),
            axon: SocketAddr::new(ip, 0),
            announce: None,
        }
    }

    /// A miner with one device of class cpu-1.
    pub(crate) fn miner(&self, node: NodeInput, prover: Arc<dyn Prover>) -> Result<Running, NodeError> {
        let engine = SimulatedEngine::new(self.dir.path().join(format!("{}-engine.json", node.name)));
        let device = OfferedDevice { device: DeviceId::cpu(0), model: "cpu-1".into(), memory_bytes: 1 << 30 };
        let (name, hotkey) = (node.name.clone(), node.keypair.hotkey());
        let probe = Probe::default();
        let device_classes = Some(vec![device]);
        let started = miner::start(MinerInput { node, prover, engine: Arc::new(engine), probe, device_classes })?;
        Ok(Running::run(name, hotkey, started.node))
    }

    pub(crate) fn validator(&self, node: NodeInput) -> Result<Running, NodeError> {
        let (name, hotkey) = (node.name.clone(), node.keypair.hotkey());
        let started = validator::start(ValidatorInput {
            node,
            local_address: None,
            remote: Arc::new(compute_subnet::canary::ssh::Ssh),
        })?;
        Ok(Running::run(name, hotkey, started.node))
    }
}

/// A node that runs until it is ended.
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) hotkey: Hotkey,
    pub(crate) web: SocketAddr,
    /// Not set for a validator.
    pub(crate) axon: Option<SocketAddr>,
    pub(crate) view: TreeView,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Exit>,
}

impl Running {
    fn run(name: String, hotkey: Hotkey, node: Node) -> Self {
        let (web, axon, view) = (node.web, node.axon_address, node.view.clone());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::task::spawn_local(node.run(async move {
            let _ = stopped.await;
        }));
        Running { name, hotkey, web, axon, view, stop, task }
    }

    pub(crate) async fn end(self) {
        let _ = self.stop.send(());
        let exit = tokio::time::timeout(LONG, self.task).await.expect("a node ends in time").unwrap();
        assert_eq!(exit, Exit::Ok, "{}", self.name);
    }

    /// Posts `body` with these headers.
    pub(crate) async fn post(&self, path: &str, headers: &[(String, String)], body: &[u8]) -> Reply {
        let mut head = format!("POST {path} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        exchange(self.axon.unwrap(), &head, body).await
    }

    /// Posts `body` as `caller` would.
    pub(crate) async fn call(&self, caller: &Keypair, path: &str, body: &[u8]) -> Reply {
        self.post(path, &signed(caller, path, body, &self.hotkey), body).await
    }
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// The headers of a request, signed now.
pub(crate) fn signed(caller: &Keypair, path: &str, body: &[u8], to: &Hotkey) -> Vec<(String, String)> {
    signed_at(now_ns(), caller, path, body, to)
}

pub(crate) fn signed_at(nonce: u64, caller: &Keypair, path: &str, body: &[u8], to: &Hotkey) -> Vec<(String, String)> {
    let headers = btauth::sign(caller, "POST", path, body, nonce, to);
    headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The RPC of a ledger at this address.
pub(crate) fn serve(ledger: &LedgerHandle, at: SocketAddr) -> RpcServer {
    RpcServer::start(ledger.clone(), at).unwrap()
}

/// The counters that went up, with by how much.
pub(crate) fn counted(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let counts =
        |name: &str| name.starts_with("compute_axon_requests_total") || name.starts_with("compute_admissions_total");
    let grown = after.iter().filter(|(name, _)| counts(name)).map(|(name, value)| {
        let was = before.get(name).unwrap_or_else(|| panic!("{name} was not there from the start"));
        (name.clone(), value - was)
    });
    grown.filter(|(_, by)| *by != 0.0).collect()
}
