//! A subnet of one miner and one validator on a fast ledger in memory, with proofs that take no time.

use crate::away::Cut;
use compute_subnet::actors::miner::node::{self as miner, MinerInput, MinerNode};
use compute_subnet::actors::node::NodeInput;
use compute_subnet::actors::validator::node::{self as validator, ValidatorInput, ValidatorNode};
use compute_subnet::chain::ledger::{Deadlines, GenesisConfig, LedgerClient, LedgerHandle, LedgerNode};
use compute_subnet::chain::{Chain, RAO_PER_TAO};
use compute_subnet::clock::{Clock, SystemClock};
use compute_subnet::hardware::{OfferedDevice, Probe};
use compute_subnet::ids::{Coldkey, DeviceId, Hotkey};
use compute_subnet::lease::engine::SimulatedEngine;
use compute_subnet::proof::prover::InProcessProver;
use compute_subnet::runtime::Placement;
use compute_subnet::settings::{self, Cli, DeviceClass, Settings};
use compute_subnet::sim::keys::DevnetKeys;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::dendrite::{CallError, Dendrite, Peer};
use compute_subnet::wire::synapse::Synapse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;
pub(crate) const fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}
const CLASS: &str = "cpu-1";

/// The machine's clock, ahead by so many seconds.
#[derive(Debug, Default)]
pub(crate) struct AheadClock(pub(crate) AtomicU64);
impl Clock for AheadClock {
    fn now_ns(&self) -> u64 {
        SystemClock.now_ns() + self.0.load(Ordering::SeqCst) * 1_000_000_000
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Miner,
    Validator,
}

impl Role {
    pub(crate) const ALL: [Role; 2] = [Role::Miner, Role::Validator];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Role::Miner => "miner",
            Role::Validator => "validator",
        }
    }

    /// The actors that the documents name for this role, in alphabetical order.
    pub(crate) fn actors(self) -> &'static [&'static str] {
        match self {
            Role::Miner => &[
                "allocation_manager",
                "auto_updater",
                "axon",
                "blacklist_guard",
                "chain_watcher",
                "challenge_runner",
                "control",
                "journal",
                "specs_collector",
                "web",
            ],
            Role::Validator => &[
                "allocation_manager",
                "auto_updater",
                "blacklist_guard",
                "canary_runner",
                "chain_watcher",
                "challenge_runner",
                "control",
                "journal",
                "memory_runner",
                "specs_collector",
                "web",
                "weight_setter",
            ],
        }
    }
}

/// The shipped settings of a devnet, with blocks of 200 ms, epochs of a second and a proof of almost nothing.
/// Supervision is as shipped.
pub(crate) fn settings() -> Settings {
    let home = ("HOME".to_owned(), "/nonexistent".to_owned()); // every path below it is given anew
    let mut s = settings::load(settings::Role::Devnet, &Cli::default(), [home]).unwrap().settings;
    s.devnet.block_time = MS(200);
    s.devnet.tempo = 4;
    let (memory_blocks, memory_iterations, memory_scans) = (Some(64), Some(1), Some(2));
    let class = DeviceClass { base: 1.0, n: 32, k: 64, rounds: 1, memory_blocks, memory_iterations, memory_scans };
    s.devnet.gpu_scores = BTreeMap::from([(CLASS.to_owned(), class)]);
    s.subtensor.poll_interval = MS(50);
    s.weights.interval_blocks = 1;
    s.budget.challenges_per_hotkey = 10_000;
    s.budget.time = s.budget.window;
    s.leases.health_interval = MS(250);
    // A commitment dies with its prover; the validator asks for it this long before it fails the miner and goes on.
    s.challenge.opening_deadline = secs(1);
    s
}

/// Settings under which every backoff is 500 ms and a drain takes a second at most. Silence is noticed as shipped: a busy
/// machine keeps an actor from its thread for longer than one would like.
pub(crate) fn quick() -> Settings {
    let mut s = settings();
    s.supervision.heartbeat = MS(100);
    s.supervision.drain_timeout = secs(1);
    s.supervision.backoff_first = MS(500);
    s.supervision.backoff_cap = MS(500);
    s
}

/// A running ledger with both nodes registered, and what the nodes are made from.
pub(crate) struct Subnet {
    pub(crate) ledger: LedgerHandle,
    keys: DevnetKeys,
    settings: Arc<Settings>,
    dir: PathBuf,
    runtime: Arc<tokio::runtime::Runtime>,
    /// Whether the nodes cannot reach the chain.
    pub(crate) away: Arc<AtomicBool>,
    /// The nodes' clock.
    pub(crate) clock: Arc<AheadClock>,
    /// Where the miner's axon listens; port 0 takes a free one at each start.
    pub(crate) axon: SocketAddr,
}

impl Subnet {
    pub(crate) async fn start(dir: &Path, settings: Settings, runtime: Arc<tokio::runtime::Runtime>) -> Self {
        let keys = DevnetKeys::load(dir).unwrap();
        let owners = [keys.miner_owner(0), keys.validator_owner(0), keys.validator_owner(1)];
        let mut genesis = GenesisConfig::new(settings.netuid);
        genesis.block_time = settings.devnet.block_time;
        genesis.hyperparameters.tempo = settings.devnet.tempo;
        genesis.hyperparameters.weights_rate_limit = 1;
        genesis.hyperparameters.serving_rate_limit = 1;
        genesis.endowed = owners.iter().map(|k| (Coldkey(k.hotkey().0), 1_000 * RAO_PER_TAO)).collect();
        let staked = [keys.validator(0).hotkey(), keys.validator(1).hotkey()];
        genesis.stakes = staked.map(|hotkey| (hotkey, 100_000 * RAO_PER_TAO)).into();
        let ledger = LedgerNode::spawn(genesis, None, Arc::new(SystemClock)).await.unwrap();
        let subnet = Subnet {
            ledger,
            keys,
            settings: Arc::new(settings),
            dir: dir.to_owned(),
            runtime,
            away: Arc::default(),
            clock: Arc::default(),
            // The chain refuses to announce 127.0.0.1 itself.
            axon: "127.0.1.1:0".parse().unwrap(),
        };
        let (validator, miner) = (subnet.keys.validator(0), subnet.keys.miner(0));
        subnet.chain(&validator).register(validator.hotkey(), &owners[1]).await.unwrap();
        subnet.chain(&miner).register(miner.hotkey(), &owners[0]).await.unwrap();
        subnet
    }

    /// Registers a second validator, which never runs: the epochs get two slots.
    pub(crate) async fn second_permit(&self) {
        let other = self.keys.validator(1);
        self.chain(&other).register(other.hotkey(), &self.keys.validator_owner(1)).await.unwrap();
    }

    /// Announces an axon of that second validator, which it has not.
    pub(crate) async fn announce_second(&self, axon: SocketAddr) -> Hotkey {
        let other = self.keys.validator(1);
        self.chain(&other).serve_axon(axon.ip(), axon.port(), 1).await.unwrap();
        other.hotkey()
    }

    pub(crate) fn validator_hotkey(&self) -> Hotkey {
        self.keys.validator(0).hotkey()
    }

    fn chain(&self, key: &Keypair) -> Arc<dyn Chain> {
        let key = Arc::new(key.clone());
        let inner = LedgerClient::in_process(self.ledger.clone(), self.settings.netuid, key, Deadlines::default());
        Arc::new(Cut { inner, away: self.away.clone() })
    }

    fn input(&self, role: Role, keypair: Keypair, placement: Placement) -> NodeInput {
        NodeInput {
            layers: None,
            name: role.label().to_owned(),
            settings: self.settings.clone(),
            chain: self.chain(&keypair),
            keypair,
            clock: self.clock.clone(),
            runtime: self.runtime.clone(),
            placement,
            data_dir: self.dir.join(role.label()),
            web: "127.0.0.1:0".parse().unwrap(),
            axon: self.axon,
            announce: None,
        }
    }

    pub(crate) fn miner(&self, placement: Placement) -> MinerNode {
        let device = OfferedDevice { device: DeviceId::cpu(0), model: CLASS.to_owned(), memory_bytes: 1 << 30 };
        miner::start(MinerInput {
            node: self.input(Role::Miner, self.keys.miner(0), placement),
            prover: Arc::new(InProcessProver { threads: 1 }),
            engine: Arc::new(SimulatedEngine::new(self.dir.join("containers.json"))),
            probe: Probe::default(),
            device_classes: Some(vec![device]),
        })
        .unwrap()
    }

    /// Sends the validator's request to a miner, and tells its answer's status where it is none of the kind.
    pub(crate) async fn call<S: Synapse>(
        &self,
        miner: &Hotkey,
        addr: SocketAddr,
        request: &S,
    ) -> Result<S::Reply, Option<u16>> {
        let dendrite = Dendrite::new(self.keys.validator(0), self.clock.clone(), None).unwrap();
        let answer = dendrite.call(&Peer { hotkey: *miner, addr }, request, secs(5), 1 << 20).await;
        answer.map(|reply| reply.body).map_err(|error| match error {
            CallError::Status { code, .. } => Some(code),
            _ => None,
        })
    }

    pub(crate) fn validator(&self, placement: Placement) -> ValidatorNode {
        let node = self.input(Role::Validator, self.keys.validator(0), placement);
        validator::start(ValidatorInput {
            node,
            local_address: None,
            remote: Arc::new(compute_subnet::canary::ssh::Ssh),
        })
        .unwrap()
    }
}
