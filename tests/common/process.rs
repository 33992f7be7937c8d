//! A miner in a process of its own, on a ledger of this process with callers that admission lets in by its ordinary rules.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use compute_subnet::chain::Chain as _;
use compute_subnet::chain::RAO_PER_TAO;
use compute_subnet::chain::ledger::{Deadlines, GenesisConfig, LedgerClient, LedgerHandle, LedgerNode, RpcServer};
use compute_subnet::clock::SystemClock;
use compute_subnet::ids::{Coldkey, Hotkey, Netuid};
use compute_subnet::sim::keys::DevnetKeys;
use compute_subnet::wallet::Keypair;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::{LONG, free_ports, until};

/// The subnet of the ledger.
const NETUID: Netuid = Netuid(27);
/// What each caller has staked: above the original's least stake of 1,024.
const STAKE: u64 = 2_000 * RAO_PER_TAO;
/// Blocks while somebody waits for one, and the real chain's pace.
const QUICK: Duration = Duration::from_millis(20);
const REAL: Duration = Duration::from_secs(12);

/// A ledger with one miner and callers on it.
pub(crate) struct Subnet {
    pub(crate) dir: PathBuf,
    /// Callers with permit and stake.
    pub(crate) callers: Vec<Keypair>,
    pub(crate) miner: Hotkey,
    rpc: RpcServer,
    pace_ms: Arc<AtomicU64>,
}

/// The key of the caller with this number.
fn caller(number: usize) -> Keypair {
    Keypair::from_seed(blake3::hash(format!("caller/{number}").as_bytes()).as_bytes())
}

impl Subnet {
    /// Registers everybody and makes blocks until each caller has its permit. Everything lies in `dir`.
    pub(crate) async fn start(dir: &Path, callers: usize) -> Self {
        let keys = DevnetKeys::load(dir).unwrap();
        let callers: Vec<Keypair> = (0..callers).map(caller).collect();
        let owner = Keypair::from_seed(&[7; 32]);
        let mut genesis = GenesisConfig::new(NETUID);
        genesis.block_time = Duration::ZERO;
        genesis.hyperparameters.tempo = 5;
        genesis.hyperparameters.serving_rate_limit = 1;
        genesis.hyperparameters.max_allowed_uids = 1024;
        genesis.hyperparameters.max_allowed_validators = 1024;
        genesis.endowed = vec![(Coldkey(owner.hotkey().0), 2_000 * RAO_PER_TAO)];
        genesis.stakes = callers.iter().map(|key| (key.hotkey(), STAKE)).collect();
        let ledger = LedgerNode::spawn(genesis, None, Arc::new(SystemClock)).await.unwrap();
        let rpc = RpcServer::start(ledger.clone(), ([127, 0, 0, 1], 0).into()).unwrap();
        let pace_ms = Arc::new(AtomicU64::new(QUICK.as_millis() as u64));
        tokio::task::spawn_local(blocks(ledger.clone(), pace_ms.clone()));

        let miner = keys.miner(0);
        for key in std::iter::once(&miner).chain(&callers) {
            let chain = LedgerClient::in_process(ledger.clone(), NETUID, Arc::new(key.clone()), Deadlines::default());
            chain.register(key.hotkey(), &owner).await.unwrap();
        }
        until("every caller has a permit", async || {
            let graph = ledger.state().metagraph();
            callers.iter().all(|key| graph.by_hotkey(&key.hotkey()).is_some_and(|n| n.validator_permit)).then_some(())
        })
        .await;
        Subnet { dir: dir.to_owned(), callers, miner: miner.hotkey(), rpc, pace_ms }
    }

    /// Blocks come as on the real chain from now on, or quickly.
    pub(crate) fn real_pace(&self, real: bool) {
        let pace = if real { REAL } else { QUICK };
        self.pace_ms.store(pace.as_millis() as u64, Ordering::Relaxed);
    }

    /// Starts the miner with further arguments, and waits until it is ready. It listens on all addresses of loopback, and
    /// keeps addresses and directory over its restarts.
    pub(crate) async fn miner(&self, further: &[String]) -> Miner {
        let port = free_ports();
        self.miner_at(port, &self.dir.join("miner"), further).await
    }

    /// As [`Self::miner`], at this port and the next one.
    pub(crate) async fn miner_at(&self, port: u16, data: &Path, further: &[String]) -> Miner {
        let mut miner = self.spawn(port, data, further);
        until("the miner is ready", async || {
            assert!(!miner.has_ended(), "the miner ended:\n{}", miner.said());
            miner.is_ready().await.then_some(())
        })
        .await;
        miner
    }

    /// Starts it, and waits for nothing.
    pub(crate) fn spawn(&self, port: u16, data: &Path, further: &[String]) -> Miner {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compute-miner"));
        command.env_clear().env("HOME", &self.dir).stdin(Stdio::null());
        command.args(["--subtensor.network", &format!("ledger=http://{}", self.rpc.address())]);
        command.arg("--devnet-keys").arg(&self.dir).args(["--device-class", "cpu-1"]);
        command.arg("--engine-file").arg(self.dir.join("containers.json"));
        command.arg("--node.data_dir").arg(data);
        command.args(["--axon.ip", "0.0.0.0", "--axon.external_ip", "127.0.1.1"]);
        command.args(["--axon.port", &port.to_string(), "--metrics.port", &(port + 1).to_string()]);
        command.args(["--set", "subtensor.poll_interval=1s"]).args(further);
        let log = self.dir.join("miner.log");
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        command.stderr(file.try_clone().unwrap()).stdout(file);
        let child = command.spawn().unwrap();
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Miner {
            pages: reqwest::Client::builder().pool_max_idle_per_host(0).timeout(LONG).build().unwrap(),
            child,
            axon: local(port),
            web: local(port + 1),
            hotkey: self.miner,
            log,
        }
    }
}

/// Makes blocks at a pace that others set.
async fn blocks(ledger: LedgerHandle, pace_ms: Arc<AtomicU64>) {
    while ledger.produce_block().await.is_ok() {
        let mut waited = 0;
        while waited < pace_ms.load(Ordering::Relaxed) {
            tokio::time::sleep(QUICK).await;
            waited += QUICK.as_millis() as u64;
        }
    }
}

/// A running miner. Ends with this value.
pub(crate) struct Miner {
    child: Child,
    pages: reqwest::Client,
    pub(crate) axon: SocketAddr,
    pub(crate) web: SocketAddr,
    pub(crate) hotkey: Hotkey,
    log: PathBuf,
}

impl Drop for Miner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the kernel says of a process's memory, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Miner {
    /// Whether its process is over.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Whether its page says that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        self.page("/readyz").await.is_some_and(|(status, _)| status == 200)
    }

    /// A page's status and text; `None` if it is not served.
    pub(crate) async fn page(&self, path: &str) -> Option<(u16, String)> {
        let reply = self.pages.get(format!("http://{}{path}", self.web)).send().await.ok()?;
        Some((reply.status().as_u16(), reply.text().await.ok()?))
    }

    /// Every series of `/metrics` with its value.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        let (status, text) = self.page("/metrics").await.unwrap();
        assert_eq!(status, 200, "{text}");
        let series = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' '));
        series.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
    }

    /// Its memory now, and the most that it ever had.
    pub(crate) fn memory(&self) -> Memory {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        Memory { now: kib("VmRSS:"), peak: kib("VmHWM:") }
    }

    /// The end of its log.
    pub(crate) fn said(&self) -> String {
        let all = std::fs::read_to_string(&self.log).unwrap_or_default();
        all.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order.
    pub(crate) async fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = until("the miner ends", async || self.child.try_wait().unwrap()).await;
        assert!(status.success(), "{status}\n{}", self.said());
    }
}
