//! A ledger with one miner and one validator, which can be ended and started again, on a chain that a test gives it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use compute_subnet::actors::miner::node::{self as miner, MinerInput, MinerNode};
use compute_subnet::actors::node::NodeInput;
use compute_subnet::actors::validator::node::{self as validator, ValidatorInput, ValidatorNode};
use compute_subnet::chain::ledger::{Deadlines, GenesisConfig, LedgerClient, LedgerHandle, LedgerNode};
use compute_subnet::chain::{Chain, RAO_PER_TAO, WeightsShown};
use compute_subnet::clock::SystemClock;
use compute_subnet::hardware::{OfferedDevice, Probe};
use compute_subnet::ids::{Coldkey, DeviceId, Uid};
use compute_subnet::lease::engine::SimulatedEngine;
use compute_subnet::messages::validator::weight_setter::{GetScoreboard, Scoreboard};
use compute_subnet::proof::prover::InProcessProver;
use compute_subnet::runtime::Placement;
use compute_subnet::settings::Settings;
use compute_subnet::sim::keys::DevnetKeys;
use compute_subnet::store::queries::recent_weights;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::store::records::WeightsRow;
use compute_subnet::wallet::Keypair;

use crate::common::LONG;
use crate::scripted::{Script, Scripted};

pub(crate) struct Subnet {
    ledger: LedgerHandle,
    keys: DevnetKeys,
    settings: Arc<Settings>,
    dir: PathBuf,
    runtime: Arc<tokio::runtime::Runtime>,
    _miner: MinerNode,
}

/// A running validator.
pub(crate) struct Validator {
    node: Option<ValidatorNode>,
    chain: Arc<dyn Chain>,
}

/// The validator's weights, oldest first; none before it has a database.
pub(crate) fn rows(dir: &Path) -> Vec<WeightsRow> {
    let Ok(db) = open_read_only(&dir.join("validator")) else { return Vec::new() };
    let mut rows = recent_weights(&db, 1_000).unwrap();
    rows.reverse();
    rows
}

impl Subnet {
    pub(crate) async fn start(dir: &Path, settings: Settings, runtime: Arc<tokio::runtime::Runtime>) -> Self {
        let keys = DevnetKeys::load(dir).unwrap();
        let owners = [keys.miner_owner(0), keys.validator_owner(0)];
        let mut genesis = GenesisConfig::new(settings.netuid);
        genesis.block_time = settings.devnet.block_time;
        genesis.hyperparameters.tempo = settings.devnet.tempo;
        genesis.hyperparameters.commit_reveal = settings.devnet.commit_reveal;
        genesis.hyperparameters.weights_rate_limit = 1;
        genesis.hyperparameters.serving_rate_limit = 1;
        genesis.endowed = owners.iter().map(|k| (Coldkey(k.hotkey().0), 1_000 * RAO_PER_TAO)).collect();
        genesis.stakes = vec![(keys.validator(0).hotkey(), 100_000 * RAO_PER_TAO)];
        let ledger = LedgerNode::spawn(genesis, None, Arc::new(SystemClock)).await.unwrap();
        let settings = Arc::new(settings);
        for (key, owner) in [(keys.validator(0), &owners[1]), (keys.miner(0), &owners[0])] {
            client(&ledger, &settings, &key).register(key.hotkey(), owner).await.unwrap();
        }
        let class = settings.devnet.gpu_scores.keys().next().unwrap().clone();
        let device = OfferedDevice { device: DeviceId::cpu(0), model: class, memory_bytes: 1 << 30 };
        let key = keys.miner(0);
        let chain = client(&ledger, &settings, &key);
        let miner = miner::start(MinerInput {
            node: input(dir, "miner", &settings, chain, key, runtime.clone()),
            prover: Arc::new(InProcessProver { threads: 1 }),
            engine: Arc::new(SimulatedEngine::new(dir.join("containers.json"))),
            probe: Probe::default(),
            device_classes: Some(vec![device]),
        })
        .unwrap();
        Subnet { ledger, keys, settings, dir: dir.to_owned(), runtime, _miner: miner }
    }

    /// A client of the ledger with the validator's key.
    pub(crate) fn ledger_chain(&self) -> Arc<dyn Chain> {
        client(&self.ledger, &self.settings, &self.keys.validator(0))
    }

    /// A validator on this chain.
    pub(crate) fn validator(&self, chain: Arc<dyn Chain>) -> Validator {
        let key = self.keys.validator(0);
        let node = input(&self.dir, "validator", &self.settings, chain.clone(), key, self.runtime.clone());
        let node = validator::start(ValidatorInput {
            node,
            local_address: None,
            remote: Arc::new(compute_subnet::canary::ssh::Ssh),
        })
        .unwrap();
        Validator { node: Some(node), chain }
    }

    /// A validator on a scripted chain, and the script.
    pub(crate) fn scripted(&self, timelocked: bool) -> (Validator, Arc<Mutex<Script>>) {
        let (chain, script) = Scripted::new(self.ledger_chain(), timelocked);
        (self.validator(chain), script)
    }

    /// What the ledger shows of the validator.
    pub(crate) fn shown(&self) -> WeightsShown {
        self.ledger.state().weights_shown(&self.keys.validator(0).hotkey()).unwrap()
    }

    pub(crate) fn uid_of_validator(&self) -> Uid {
        self.ledger.state().metagraph().by_hotkey(&self.keys.validator(0).hotkey()).unwrap().uid
    }

    /// The miner's incentive.
    pub(crate) fn incentive(&self) -> u16 {
        self.ledger.state().metagraph().by_hotkey(&self.keys.miner(0).hotkey()).unwrap().incentive
    }
}

fn client(ledger: &LedgerHandle, settings: &Settings, key: &Keypair) -> Arc<dyn Chain> {
    let key = Arc::new(key.clone());
    Arc::new(LedgerClient::in_process(ledger.clone(), settings.netuid, key, Deadlines::default()))
}

fn input(
    dir: &Path,
    name: &str,
    settings: &Arc<Settings>,
    chain: Arc<dyn Chain>,
    keypair: Keypair,
    runtime: Arc<tokio::runtime::Runtime>,
) -> NodeInput {
    NodeInput {
        layers: None,
        name: name.to_owned(),
        settings: settings.clone(),
        chain,
        keypair,
        clock: Arc::new(SystemClock),
        runtime,
        placement: Placement::Here,
        data_dir: dir.join(name),
        web: "127.0.0.1:0".parse().unwrap(),
        // The chain refuses to announce 127.0.0.1 itself.
        axon: "127.0.1.1:0".parse().unwrap(),
        announce: None,
    }
}

impl Validator {
    pub(crate) fn web(&self) -> std::net::SocketAddr {
        self.node.as_ref().unwrap().node.web
    }

    pub(crate) fn chain(&self) -> Arc<dyn Chain> {
        self.chain.clone()
    }

    pub(crate) async fn board(&self) -> Arc<Scoreboard> {
        self.node.as_ref().unwrap().weights.ask(GetScoreboard, LONG).await.unwrap()
    }

    /// Ends it in order; its database is closed then.
    pub(crate) async fn end(&mut self) {
        let node = self.node.take().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        stop.send(()).unwrap();
        node.node
            .run(async move {
                let _ = stopped.await;
            })
            .await;
    }
}
