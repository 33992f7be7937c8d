//! A devnet: ledger, validator, miners and renter in one process, each node as it would run on its own.
//!
//! Nothing here is simulated but the chain (a ledger with the chain's rules), the container engine and the renter:
//! miners measure this machine, prove real work in child processes, and are asked over HTTP on addresses of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use super::keys::DevnetKeys;
use super::renter::{self, RenterPlan};
use super::screen;
use crate::actors::miner::engine::{docker_socket, engine, is_docker};
use crate::actors::miner::node::{self as miner, MinerInput, MinerNode};
use crate::actors::node::{NodeError, NodeInput};
use crate::actors::validator::node::{self as validator, ValidatorInput, ValidatorNode};
use crate::canary::Remote;
use crate::canary::simulated::SimulatedRemote;
use crate::canary::ssh::Ssh;
use crate::chain::ledger::StoreError;
use crate::chain::ledger::{
    Deadlines, GenesisConfig, GenesisError, LedgerClient, LedgerError, LedgerHandle, LedgerNode, RpcError, RpcServer,
};
use crate::chain::slots::MAX_SLOTS;
use crate::chain::{Chain, ChainError, RAO_PER_TAO, Rejection};
use crate::clock::{SharedClock, SystemClock};
use crate::exit::Exit;
use crate::hardware::{OfferedDevice, Probe};
use crate::ids::{Coldkey, DeviceId};
use crate::proof::memory;
use crate::proof::prover::{ChildProver, Forgery, ForgingProver, Prover, ProverLimits};
use crate::runtime::Placement;
use crate::settings::Settings;
use crate::wallet::Keypair;

/// The ledger's directory below the devnet's.
const LEDGER_DIR: &str = "ledger";
/// The simulated engines' directory below the devnet's.
const ENGINE_DIR: &str = "engine";
/// Most miners of one devnet.
pub const MAX_MINERS: usize = 256;
/// Most validators of one devnet: as many as an epoch has slots.
pub const MAX_VALIDATORS: usize = MAX_SLOTS;
/// Stake of the first validator, in TAO; the n-th has an n-th of it. All well above the original's limit of 1,024.
const VALIDATOR_STAKE_TAO: u64 = 100_000;
/// Balance of each owner, in TAO.
const OWNER_BALANCE_TAO: u64 = 1_000;
/// How long registering everybody may take.
const REGISTRATION: Duration = Duration::from_secs(60);
/// The share of tiles that the devnet's cheater leaves out: it wants to be paid for twice the work it does.
const CHEATER_SKIPS: f64 = 0.5;

/// What kind of devnet.
#[derive(Debug, Clone)]
pub struct DevnetOptions {
    /// Honest miners.
    pub miners: usize,
    /// Miners that forge their proofs.
    pub cheaters: usize,
    /// Miners that do their work and hold half of the memory they are asked for.
    pub memory_cheaters: usize,
    /// Miners that announce an address which another miner already has.
    pub duplicates: usize,
    /// Synthetic renters.
    pub rentals: usize,
    /// Blocks are made so many times faster.
    pub speed: f64,
    /// Where everything lies.
    pub dir: PathBuf,
    /// The ledger's address; port 0 takes a free one.
    pub ledger: SocketAddr,
    /// Validators, from 1 to 12, each with less stake than the one before. The table and the renters are at the first.
    pub validators: usize,
    /// Leave the first validator to a process of its own.
    pub without_validator: bool,
    /// Simulated containers as a validator's canaries log in to them; into real ones they do over SSH.
    pub remote: SimulatedRemote,
    /// The program and arguments that run a prover.
    pub prover: (PathBuf, Vec<std::ffi::OsString>),
}

impl DevnetOptions {
    /// Four honest miners and a validator that all begin in `dir`, on a free port, at the ledger's own pace, with this prover.
    pub fn new(dir: impl Into<PathBuf>, prover: impl Into<PathBuf>) -> Self {
        DevnetOptions {
            miners: 4,
            cheaters: 0,
            memory_cheaters: 0,
            duplicates: 0,
            rentals: 0,
            speed: 1.0,
            dir: dir.into(),
            ledger: SocketAddr::from(([127, 0, 0, 1], 0)),
            validators: 1,
            without_validator: false,
            remote: SimulatedRemote::default(),
            prover: (prover.into(), Vec::new()),
        }
    }
}

/// Why a devnet does not start.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    /// The options make no devnet.
    #[error("{0}")]
    Options(String),
    /// The rules make no ledger.
    #[error("the ledger cannot begin")]
    Genesis(#[from] GenesisError),
    /// The ledger cannot be opened.
    #[error("the ledger in {} cannot be opened", dir.display())]
    Ledger {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: LedgerError,
    },
    /// The ledger's address cannot be had.
    #[error("the ledger cannot be served")]
    Rpc(#[from] RpcError),
    /// A node cannot be registered.
    #[error("{who} cannot be registered on the ledger")]
    Register {
        /// Which node.
        who: String,
        /// Why.
        #[source]
        source: ChainError,
    },
    /// A node cannot be started.
    #[error("{who} cannot be started")]
    Node {
        /// Which node.
        who: String,
        /// Why.
        #[source]
        source: Box<NodeError>,
    },
    /// A directory cannot be made.
    #[error("cannot use {}", path.display())]
    Directory {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl DevnetError {
    /// The exit code of a program that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            DevnetError::Options(_) => Exit::Usage,
            DevnetError::Genesis(_) => Exit::Config,
            DevnetError::Ledger { source: LedgerError::Store(StoreError::InUse { .. }), .. } => Exit::Unavailable,
            DevnetError::Ledger { .. } => Exit::Data,
            DevnetError::Rpc(_) | DevnetError::Register { .. } => Exit::Unavailable,
            DevnetError::Node { source, .. } => source.exit(),
            DevnetError::Directory { .. } => Exit::CannotCreate,
        }
    }
}

/// One miner of a devnet.
pub struct DevnetMiner {
    /// What it is called in logs and tables.
    pub name: String,
    /// The class of its device.
    pub class: String,
    /// How it cheats, if it does.
    pub forgery: Option<Forgery>,
    /// The running node.
    pub node: MinerNode,
}

/// A running devnet.
pub struct Devnet {
    /// The ledger.
    pub ledger: LedgerHandle,
    /// The ledger's HTTP server.
    pub rpc: RpcServer,
    /// The first validator, unless it is left to a process of its own.
    pub validator: Option<ValidatorNode>,
    /// The other validators, with what they are called.
    pub others: Vec<(String, ValidatorNode)>,
    /// The miners, in the order of their numbers.
    pub miners: Vec<DevnetMiner>,
    plan: Option<RenterPlan>,
    clock: SharedClock,
}

/// What a miner of a devnet is before it runs.
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) class: String,
    pub(crate) forgery: Option<Forgery>,
    pub(crate) axon: SocketAddr,
    announce: Option<IpAddr>,
}

/// What a devnet's nodes stand on: a ledger on which everybody is registered.
pub(crate) struct Ground {
    pub(crate) ledger: LedgerHandle,
    pub(crate) rpc: RpcServer,
    pub(crate) keys: DevnetKeys,
    pub(crate) roles: Vec<Role>,
    pub(crate) block_time: Duration,
    pub(crate) clock: SharedClock,
}

impl Ground {
    /// Makes or continues the ledger and registers validators and miners on it, the first validator first, so that it has
    /// uid 0, the other validators last.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub(crate) async fn lay(options: &DevnetOptions, settings: &Settings) -> Result<Self, DevnetError> {
        let roles = roles(options, settings)?;
        let clock: SharedClock = Arc::new(SystemClock);
        for sub in [LEDGER_DIR, ENGINE_DIR] {
            directory(&options.dir.join(sub))?;
        }
        let in_dir = |e: NodeError| DevnetError::Node { who: "the devnet's keys".into(), source: Box::new(e) };
        let keys = DevnetKeys::load(&options.dir).map_err(in_dir)?;
        let genesis = genesis(settings, &keys, options.speed)?;
        let block_time = genesis.block_time;
        let ledger_dir = options.dir.join(LEDGER_DIR);
        let ledger = LedgerNode::spawn(genesis, Some(&ledger_dir), clock.clone())
            .await
            .map_err(|source| DevnetError::Ledger { dir: ledger_dir, source })?;
        let rpc = RpcServer::start(ledger.clone(), options.ledger)?;
        let ground = Ground { ledger, rpc, keys, roles, block_time, clock };

        let key = ground.keys.validator(0);
        ground.register(settings, "the validator", &key, &ground.keys.validator_owner(0)).await?;
        let miners = ground.roles.iter().map(|role| async {
            let (key, owner) = (ground.keys.miner(role.index), ground.keys.miner_owner(role.index));
            ground.register(settings, &role.name, &key, &owner).await
        });
        try_join_all(miners).await?;
        for number in 1..options.validators {
            let (key, owner) = (ground.keys.validator(number), ground.keys.validator_owner(number));
            ground.register(settings, &validator_name(number), &key, &owner).await?;
        }
        Ok(ground)
    }

    async fn register(
        &self,
        settings: &Settings,
        who: &str,
        key: &Keypair,
        owner: &Keypair,
    ) -> Result<(), DevnetError> {
        register(who, self.client(settings, key).as_ref(), key, owner).await
    }

    /// A chain client of one key, in the ledger's own process.
    fn client(&self, settings: &Settings, key: &Keypair) -> Arc<dyn Chain> {
        let deadlines =
            Deadlines { read: settings.subtensor.request_timeout, submit: settings.weights.confirm_timeout };
        Arc::new(LedgerClient::in_process(self.ledger.clone(), settings.netuid, Arc::new(key.clone()), deadlines))
    }

    /// How the renters of this devnet behave, if it has any.
    pub(crate) fn plan(&self, options: &DevnetOptions, settings: &Settings) -> Option<RenterPlan> {
        let epoch = self.block_time * (u32::from(settings.devnet.tempo) + 1);
        (options.rentals > 0).then(|| RenterPlan {
            renter: self.keys.renter().hotkey(),
            hold: epoch * 2,
            pause: epoch,
            log: options.dir.join("renter.log"),
        })
    }

    /// The file of a miner's simulated engine: the devnet's own, as a daemon's would be.
    pub(crate) fn engine_file(dir: &Path, name: &str) -> PathBuf {
        dir.join(ENGINE_DIR).join(format!("{name}.json"))
    }
}

/// The address of the miner with this number: each has one of its own, so that the one-IP rule holds.
fn own_address(index: usize) -> IpAddr {
    let (high, low) = (index / 200, index % 200);
    Ipv4Addr::new(127, 0, 1 + high as u8, 1 + low as u8).into()
}

/// What the validator with this number is called, and its directory.
pub(crate) fn validator_name(number: usize) -> String {
    if number == 0 { "validator".into() } else { format!("validator-{number}") }
}

/// What the miner with this number is called, and its directory.
pub(crate) fn miner_name(options: &DevnetOptions, index: usize) -> String {
    let cheaters = options.cheaters + options.memory_cheaters;
    match index {
        honest if honest < options.miners => format!("miner-{honest}"),
        cheater if cheater < options.miners + cheaters => format!("cheater-{cheater}"),
        other => format!("duplicate-{other}"),
    }
}

fn roles(options: &DevnetOptions, settings: &Settings) -> Result<Vec<Role>, DevnetError> {
    if options.validators == 0 || options.validators > MAX_VALIDATORS {
        let text = format!("a devnet has from 1 to {MAX_VALIDATORS} validators, not {}", options.validators);
        return Err(DevnetError::Options(text));
    }
    let cheaters = options.cheaters + options.memory_cheaters;
    let total = options.miners + cheaters + options.duplicates;
    if total == 0 || total > MAX_MINERS {
        return Err(DevnetError::Options(format!("a devnet has from 1 to {MAX_MINERS} miners, not {total}")));
    }
    if options.duplicates > 0 && options.miners == 0 {
        return Err(DevnetError::Options("--duplicates needs a miner whose address it can take: --miners 1".into()));
    }
    let classes: Vec<&String> = settings.devnet.gpu_scores.keys().collect();
    if classes.is_empty() {
        return Err(DevnetError::Options("devnet.gpu_scores has no device class".into()));
    }
    let role = |index: usize| {
        let (forgery, announce) = if index < options.miners {
            (None, None)
        } else if index < options.miners + options.cheaters {
            (Some(Forgery::SkipTiles { ratio: CHEATER_SKIPS }), None)
        } else if index < options.miners + cheaters {
            (Some(Forgery::Memory(memory::forging::Forgery::HalfTheMemory)), None)
        } else {
            (None, Some(own_address(0)))
        };
        Role {
            name: miner_name(options, index),
            index,
            class: classes[index % classes.len()].clone(),
            forgery,
            axon: SocketAddr::new(announce.unwrap_or_else(|| own_address(index)), 0),
            announce,
        }
    };
    Ok((0..total).map(role).collect())
}

fn genesis(settings: &Settings, keys: &DevnetKeys, speed: f64) -> Result<GenesisConfig, DevnetError> {
    if !(speed.is_finite() && speed > 0.0) {
        return Err(DevnetError::Options(format!("--speed must be a number above 0, not {speed}")));
    }
    let mut genesis = GenesisConfig::new(settings.netuid);
    genesis.block_time = settings.devnet.block_time;
    genesis.hyperparameters.tempo = settings.devnet.tempo;
    genesis.hyperparameters.commit_reveal = settings.devnet.commit_reveal;
    // A devnet's epochs are short: limits in blocks are scaled down with them.
    genesis.hyperparameters.weights_rate_limit = 2;
    genesis.hyperparameters.serving_rate_limit = 1;
    genesis.hyperparameters.max_allowed_uids = (MAX_MINERS + MAX_VALIDATORS) as u16;
    genesis.max_registrations_per_block = (MAX_MINERS + MAX_VALIDATORS) as u16;
    // All that there may be, so that a devnet can be continued with another number of them.
    let validators = 0..MAX_VALIDATORS;
    let owners = validators.clone().map(|i| keys.validator_owner(i));
    let owners = (0..MAX_MINERS).map(|i| keys.miner_owner(i)).chain(owners);
    genesis.endowed = owners.map(|k| (Coldkey(k.hotkey().0), OWNER_BALANCE_TAO * RAO_PER_TAO)).collect();
    let stake = |i: usize| VALIDATOR_STAKE_TAO / (i as u64 + 1) * RAO_PER_TAO;
    genesis.stakes = validators.map(|i| (keys.validator(i).hotkey(), stake(i))).collect();
    Ok(genesis.sped_up(speed))
}

async fn register(who: &str, chain: &dyn Chain, key: &Keypair, owner: &Keypair) -> Result<(), DevnetError> {
    let failed = |source| DevnetError::Register { who: who.to_owned(), source };
    match tokio::time::timeout(REGISTRATION, chain.register(key.hotkey(), owner)).await {
        Ok(Ok(_)) => Ok(()),
        // A devnet that is continued finds its nodes registered.
        Ok(Err(ChainError::Rejected(Rejection::HotKeyAlreadyRegisteredInSubNet))) => Ok(()),
        Ok(Err(error)) => Err(failed(error)),
        Err(_) => Err(failed(ChainError::Deadline(REGISTRATION))),
    }
}

fn directory(path: &Path) -> Result<(), DevnetError> {
    std::fs::create_dir_all(path).map_err(|source| DevnetError::Directory { path: path.to_owned(), source })
}

impl Devnet {
    /// Starts ledger, validator and miners. `web` is the first address of the nodes' pages: the validator takes it,
    /// miner i the i-th after it; port 0 takes free ones.
    ///
    /// # Errors
    /// [`DevnetError`].
    pub async fn start(
        options: &DevnetOptions,
        settings: Arc<Settings>,
        web: SocketAddr,
        runtime: Arc<tokio::runtime::Runtime>,
    ) -> Result<Self, DevnetError> {
        let ground = Ground::lay(options, &settings).await?;
        let clock = ground.clock.clone();
        let input = |name: &str, keypair: Keypair, number: u16, axon: SocketAddr| NodeInput {
            name: name.to_owned(),
            settings: settings.clone(),
            layers: None,
            chain: ground.client(&settings, &keypair),
            keypair,
            clock: clock.clone(),
            runtime: runtime.clone(),
            placement: Placement::PerNode,
            data_dir: options.dir.join(name),
            web: SocketAddr::new(web.ip(), if web.port() == 0 { 0 } else { web.port().saturating_add(number) }),
            axon,
            announce: None,
        };
        let local = ground.roles.len();
        let mut miners = Vec::with_capacity(local);
        for role in &ground.roles {
            let node = input(&role.name, ground.keys.miner(role.index), role.index as u16 + 1, role.axon);
            let file = Ground::engine_file(&options.dir, &role.name);
            let engine =
                engine(&settings, node.keypair.hotkey(), role.axon.ip(), &node.data_dir, file, runtime.handle());
            let device =
                OfferedDevice { device: DeviceId::cpu(0), model: role.class.clone(), memory_bytes: MEMORY_OFFERED };
            let node = miner::start(MinerInput {
                node,
                prover: prover(options, &settings, local, role.forgery),
                engine,
                probe: Probe { docker_socket: docker_socket(&settings), ..Probe::default() },
                device_classes: Some(vec![device]),
            })
            .map_err(|e| DevnetError::Node { who: role.name.clone(), source: Box::new(e) })?;
            debug_assert!(role.announce.is_none_or(|ip| Some(ip) == node.node.axon_address.map(|a| a.ip())));
            miners.push(DevnetMiner {
                name: role.name.clone(),
                class: role.class.clone(),
                forgery: role.forgery,
                node,
            });
        }
        let remote: Arc<dyn Remote> =
            if is_docker(&settings) { Arc::new(Ssh) } else { Arc::new(options.remote.clone()) };
        let start_validator = |number: usize| {
            let name = validator_name(number);
            // The pages of the others follow those of the miners.
            let page = if number == 0 { 0 } else { local + number };
            let node = input(&name, ground.keys.validator(number), page as u16, SocketAddr::new(web.ip(), 0));
            match validator::start(ValidatorInput { node, local_address: None, remote: remote.clone() }) {
                Ok(started) => Ok((name, started)),
                Err(source) => Err(DevnetError::Node { who: name, source: Box::new(source) }),
            }
        };
        let first = if options.without_validator { None } else { Some(start_validator(0)?.1) };
        let others = (1..options.validators).map(start_validator).collect::<Result<_, _>>()?;
        let plan = ground.plan(options, &settings);
        Ok(Devnet { ledger: ground.ledger, rpc: ground.rpc, validator: first, others, miners, plan, clock })
    }

    /// Runs until `stop` resolves or one of the nodes gives up. Stops the renter, the validators, the miners and the
    /// ledger, in this order.
    pub async fn run(self, rentals: usize, stop: impl Future<Output = ()>) -> Exit {
        let renters: Vec<_> = match (&self.validator, &self.plan) {
            (Some(validator), Some(plan)) => (0..rentals)
                .map(|_| {
                    tokio::task::spawn_local(renter::run(
                        Arc::new(validator.allocations.clone()),
                        self.clock.clone(),
                        plan.clone(),
                    ))
                })
                .collect(),
            _ => Vec::new(),
        };
        let (stopping, _) = watch::channel(false);
        let mut miners: FuturesUnordered<_> = self
            .miners
            .into_iter()
            .map(|miner| {
                let mut stopping = stopping.subscribe();
                let stop = async move {
                    // An error means that the sender is gone, which is a stop as well.
                    let _ = stopping.wait_for(|s| *s).await;
                };
                let run = tokio::task::spawn_local(miner.node.node.run(stop));
                async move { (miner.name, run.await.unwrap_or(Exit::Escalated)) }
            })
            .collect();
        let (others_stop, _) = watch::channel(false);
        let mut others: FuturesUnordered<_> = self
            .others
            .into_iter()
            .map(|(name, node)| {
                let mut stopping = others_stop.subscribe();
                let run = tokio::task::spawn_local(node.node.run(async move {
                    // As for the miners.
                    let _ = stopping.wait_for(|s| *s).await;
                }));
                async move { (name, run.await.unwrap_or(Exit::Escalated)) }
            })
            .collect();
        let mut gave_up = Exit::Ok;
        let stop = async {
            tokio::select! {
                () = stop => {}
                Some((name, exit)) = others.next() => {
                    screen::say(&format!("{name} gave up with exit code {}, the devnet ends", exit.code()));
                    gave_up = exit;
                }
                Some((name, exit)) = miners.next() => {
                    screen::say(&format!("{name} gave up with exit code {}, the devnet ends", exit.code()));
                    gave_up = exit;
                }
            }
            renters.iter().for_each(tokio::task::JoinHandle::abort);
        };
        let validator = match self.validator {
            Some(validator) => validator.node.run(stop).await,
            None => {
                stop.await;
                Exit::Ok
            }
        };
        renters.iter().for_each(tokio::task::JoinHandle::abort); // the validator may have given up by itself
        others_stop.send_replace(true);
        let mut ended: Vec<(String, Exit)> = others.collect().await;
        stopping.send_replace(true);
        ended.extend(miners.collect::<Vec<_>>().await);
        self.rpc.stop().await;
        self.ledger.stop().await;
        let exits = [gave_up, validator].into_iter().chain(ended.into_iter().map(|(_, exit)| exit));
        exits.fold(Exit::Ok, |first, exit| if first == Exit::Ok { exit } else { first })
    }
}

/// The memory a CPU device offers, in bytes. Nothing rests on it.
pub(crate) const MEMORY_OFFERED: u64 = 1 << 30;

fn prover(options: &DevnetOptions, settings: &Settings, miners: usize, forgery: Option<Forgery>) -> Arc<dyn Prover> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = settings.prover.threads_for(cores, miners);
    if let Some(forgery) = forgery {
        return Arc::new(ForgingProver { forgery, threads });
    }
    let limits = ProverLimits {
        time: settings.prover.time_limit,
        memory_bytes: settings.prover.memory_limit_bytes(),
        output_bytes: settings.prover.output_limit_bytes(),
        threads,
    };
    let (exe, args) = options.prover.clone();
    Arc::new(ChildProver { args, ..ChildProver::new(exe, limits) })
}
