//! What both kinds of node are made of, and how one runs from its first actor to its last.
//!
//! A node is assembled in [`super::miner::node`] or [`super::validator::node`] on a `Frame`: the actors that both
//! roles have, the database, the metrics and the web pages. Start order is the order of the code there; the tree stops
//! in reverse: the chain watcher first, the journal and the web pages last.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Subscriber;
use super::auto_updater::AutoUpdater;
use super::blacklist_guard::{BlacklistGuard, BlacklistGuardSetup};
use super::chain_watcher::{AxonToAnnounce, ChainWatcher, ChainWatcherSetup};
use super::duty::{Drain, Duty, META_MAINTENANCE, Maintenance};
use super::exclusive::{Exclusive, Rival};
use super::journal::Journal;
use super::listener::{Bound, Listener, ListenerSpec, Place};
use super::reloader::{Check, Layers, Reloader};
use crate::admission::{Policy, Refusal, Snapshot, Via};
use crate::chain::Chain;
use crate::chain::serving::{AddressPolicy, announceable};
use crate::chain::standing::OwnStanding;
use crate::clock::SharedClock;
use crate::evidence::{Identity, Limits};
use crate::exit::Exit;
use crate::messages::chain_watcher::{ChainView, MetagraphChanged, NewBlock};
use crate::messages::listener::{ListenerStatus, StopIntake};
use crate::runtime::{
    Backoff, ChildSpec, Handle, Placement, RuntimeMetrics, Seat, StartError, Tree, TreeConfig, TreeView,
};
use crate::settings::{Live, LiveSettings, Settings};
use crate::store::{self, OpenNote, Role, Writer, WriterConfig};
use crate::telemetry::{BuildInfo, Labels, NodeMetrics};
use crate::verdict::UnknownCause;
use crate::wallet::{HotkeyLock, HotkeyLockError, Keypair};
use crate::web::control::{self, ControlState, RoleActors};
use crate::web::{self, Health, WebState};
use crate::wire::axon::AxonOutcome;
use crate::wire::dendrite::Dendrite;

/// A node whose newest block is older than this says that it is not ready: two minutes in which the chain is away, and what its
/// newest block may have been old when it went (a block comes every 12 s).
pub const MAX_CHAIN_AGE: Duration = Duration::from_secs(150);
/// Who is in the subnet, and with which rights, is believed for so long when others ask for something: the chain is away for
/// an hour now and then. Longer than that, somebody who was replaced or has lost his permit would be served all the same.
pub const MAX_SUBNET_AGE: Duration = Duration::from_secs(2 * 60 * 60);
/// What is known of the subnet is believed for so long where only a lease that exists depends on it, and where a node
/// starts without the chain.
pub const MAX_KNOWN_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// A look at the chain asks several times one after the other; a node that needs most of the time that it has for each answer is
/// still read, and a look that takes as long as so many is given up.
const LOOK_ANSWERS: u32 = 4;
/// How long the database may take to write what it accepted when the node stops.
const CLOSE: Duration = Duration::from_secs(10);

/// What a node of either role is given.
#[derive(Clone)]
pub struct NodeInput {
    /// The node's name in logs.
    pub name: String,
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The hotkey it acts with.
    pub keypair: Keypair,
    /// The chain, bound to that hotkey.
    pub chain: Arc<dyn Chain>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The runtime that the actors' threads share.
    pub runtime: Arc<tokio::runtime::Runtime>,
    /// Where the actors run.
    pub placement: Placement,
    /// Where database and files lie.
    pub data_dir: PathBuf,
    /// Where the web pages are served; port 0 takes a free one.
    pub web: SocketAddr,
    /// Where peers send their requests; port 0 takes a free one. A validator serves no axon yet.
    pub axon: SocketAddr,
    /// The axon's address as others reach it, where it differs.
    pub announce: Option<SocketAddr>,
    /// Where the settings came from, if this node can read them again by itself.
    pub layers: Option<Layers>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The database cannot be used.
    #[error("the database in {} cannot be used", dir.display())]
    Store {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: store::OpenError,
    },
    /// The database's threads cannot be started.
    #[error("the database's threads cannot be started")]
    Writer(#[source] store::writer::SpawnError),
    /// The hotkey cannot be had for this node alone.
    #[error(transparent)]
    Hotkey(#[from] HotkeyLockError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {listener}: choose another with {flag}, or end the program that uses it")]
    Bind {
        /// `axon` or `web`.
        listener: &'static str,
        /// The address.
        address: SocketAddr,
        /// The setting that changes it.
        flag: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The control socket cannot be had.
    #[error("cannot listen on the control socket in {}", dir.display())]
    Control {
        /// The data directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The operating system gave no randomness.
    #[error("no randomness from the system")]
    Random(#[source] getrandom::Error),
    /// An actor cannot be started.
    #[error("an actor cannot be started")]
    Start(#[from] StartError),
    /// Metrics cannot be registered.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// The configuration cannot be worked with.
    #[error("{0}")]
    Config(String),
    /// A file in the data directory cannot be made.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl NodeError {
    /// The exit code of a program that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            NodeError::Store { source, .. } => source.exit(),
            NodeError::Bind { .. } | NodeError::Hotkey(HotkeyLockError::InUse { .. }) => Exit::Unavailable,
            NodeError::Hotkey(HotkeyLockError::File { .. }) => Exit::CannotCreate,
            NodeError::Config(_) => Exit::Config,
            NodeError::File { .. } | NodeError::Control { .. } => Exit::CannotCreate,
            NodeError::Random(_) | NodeError::Writer(_) | NodeError::Start(_) | NodeError::Metrics(_) => {
                Exit::Unavailable
            }
        }
    }
}

/// A node that is running. Ends with [`Node::run`].
pub struct Node {
    tree: Tree,
    writer: Writer,
    hotkey: HotkeyLock,
    exclusive: Arc<Exclusive>,
    duty: watch::Receiver<Duty>,
    role_actors: Arc<OnceLock<RoleActors>>,
    axon: Option<Handle<Listener>>,
    shutdown: Duration,
    data_dir: PathBuf,
    /// Reads the settings again.
    pub reloader: Arc<Reloader>,
    /// The actors, seen from outside.
    pub view: TreeView,
    /// The node's metrics.
    pub registry: prometheus::Registry,
    /// Where the web pages are.
    pub web: SocketAddr,
    /// Where the axon is, if there is one.
    pub axon_address: Option<SocketAddr>,
    /// The chain as the node sees it.
    pub chain: watch::Receiver<Option<Arc<ChainView>>>,
}

impl Node {
    /// Runs until `stop` resolves, the node has to give up, or another node was found to serve its hotkey; then stops the intake, drains the actors in reverse start
    /// order, and closes the database.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Exit {
        let (axon, bound) = (self.axon, self.shutdown);
        let intake_cut = Arc::new(AtomicBool::new(false));
        let cut = intake_cut.clone();
        let drained = drained(self.duty, self.role_actors);
        let (exclusive, rival) = (self.exclusive.clone(), self.exclusive);
        let stop = async move {
            tokio::select! {
                () = stop => {}
                () = drained => tracing::info!("drained, the node ends"),
                () = rival.must_end() => {} // told when it was found
            }
            let until = Instant::now() + bound;
            if let Some(axon) = axon
                && let Err(error) = axon.ask(StopIntake, bound).await
            {
                tracing::warn!(%error, "the axon did not finish its requests in time");
                cut.store(true, Ordering::Relaxed);
            }
            Some(until)
        };
        let exit = match self.tree.run_until(stop).await {
            Exit::Ok if exclusive.ends() => Exit::Unavailable,
            Exit::Ok if intake_cut.load(Ordering::Relaxed) => Exit::Unfinished,
            exit => exit,
        };
        control::socket::remove(&self.data_dir);
        if let Err(error) = self.writer.shutdown(CLOSE).await {
            tracing::error!(error = crate::telemetry::error_chain(&error), "the database did not close in time");
        }
        drop(self.hotkey); // from here on another node may act with it
        exit
    }
}

/// How often a drain looks whether the last lease has ended.
const DRAIN_LOOK: Duration = Duration::from_millis(250);

/// Resolves once a drain was asked for and, if so wished, every lease has ended.
async fn drained(mut duty: watch::Receiver<Duty>, actors: Arc<OnceLock<RoleActors>>) {
    loop {
        let drain = duty.borrow_and_update().drain;
        let changed = match drain {
            Some(Drain { wait_for_leases: false, .. }) => return,
            Some(Drain { wait_for_leases: true, .. }) => {
                let open = match actors.get() {
                    Some(actors) => actors.open_leases().await,
                    None => None,
                };
                if open == Some(0) {
                    return;
                }
                tokio::time::timeout(DRAIN_LOOK, duty.changed()).await.unwrap_or(Ok(()))
            }
            None => duty.changed().await,
        };
        if changed.is_err() {
            std::future::pending::<()>().await; // nobody can ask any more: the node ends otherwise
        }
    }
}

/// Maintenance as the last run left it.
fn maintenance(db: &store::Database) -> Result<Option<Maintenance>, store::OpenError> {
    let stored = store::queries::meta(&db.conn, META_MAINTENANCE)
        .map_err(|source| store::OpenError::Sqlite { path: db.path.clone(), source })?;
    Ok(stored.and_then(|text| match serde_json::from_str(&text) {
        Ok(maintenance) => maintenance,
        Err(error) => {
            // Whatever it said, an operator meant to keep leases away.
            tracing::error!(%error, "maintenance is recorded but cannot be read; it is on until it is ended");
            Some(Maintenance { note: String::new(), since_ms: 0 })
        }
    }))
}

/// The parts that both roles have, while a node is being assembled.
pub(crate) struct Frame {
    pub(crate) tree: Tree,
    pub(crate) registry: prometheus::Registry,
    pub(crate) metrics: Arc<NodeMetrics>,
    /// The settings in force.
    pub(crate) live: LiveSettings,
    pub(crate) policy: Live<Arc<Policy>>,
    pub(crate) duty: watch::Receiver<Duty>,
    reloader: Arc<Reloader>,
    pub(crate) journal: Handle<Journal>,
    pub(crate) guard: Handle<BlacklistGuard>,
    pub(crate) snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
    pub(crate) chain: watch::Receiver<Option<Arc<ChainView>>>,
    view: watch::Sender<Option<Arc<ChainView>>>,
    standing: watch::Sender<Option<Arc<OwnStanding>>>,
    writer: Writer,
    hotkey: HotkeyLock,
    pub(crate) exclusive: Arc<Exclusive>,
    /// Random text for this start of the node.
    pub(crate) instance: String,
    /// When that was, in milliseconds since the Unix epoch.
    pub(crate) started_at_ms: u64,
    web: SocketAddr,
    role_actors: Arc<OnceLock<RoleActors>>,
    axon_status: watch::Sender<ListenerStatus>,
    axon: Option<(Handle<Listener>, SocketAddr)>,
    mailbox: usize,
    drain: Duration,
}

/// The label sets of the node's metrics, from the enums that own them.
fn labels() -> Labels {
    let mut admissions: Vec<_> = Via::ALL.iter().map(|v| ("admitted", v.label())).collect();
    admissions.extend(Refusal::LABELS.iter().map(|l| ("refused", *l)));
    let mut prover_outcomes = vec!["ok"];
    prover_outcomes.extend(
        [
            UnknownCause::ProverCrashed,
            UnknownCause::ProverHung,
            UnknownCause::ProverGarbage,
            UnknownCause::DeviceFailed,
            UnknownCause::Refused,
        ]
        .map(UnknownCause::label),
    );
    Labels {
        admissions,
        axon_paths: crate::wire::synapse::PATHS.iter().chain(super::miner::axon::ORIGINAL).copied().collect(),
        axon_outcomes: AxonOutcome::ALL.iter().map(|o| o.label()).collect(),
        weights_results: vec!["ok", "too_soon", "refused", "timeout", "error"],
        challenge_stages: vec!["commit", "open", "round"],
        prover_outcomes,
        update_states: vec!["off", "no_source", "idle"],
        ..Labels::default()
    }
}

/// What the operator wants of peers, from the settings.
fn policy(settings: &Settings) -> Policy {
    Policy {
        allow_hotkeys: settings.whitelist.hotkeys.iter().copied().collect(),
        allow_coldkeys: settings.whitelist.coldkeys.iter().copied().collect(),
        trusted_hotkeys: settings.whitelist.trusted_hotkeys.iter().copied().collect(),
        deny_hotkeys: settings.blacklist.hotkeys.iter().copied().collect(),
        deny_coldkeys: settings.blacklist.coldkeys.iter().copied().collect(),
        exploiters: settings.blacklist.exploiters,
        exploiter_hotkeys: settings.blacklist.exploiter_hotkeys.iter().copied().collect(),
        exploiter_coldkeys: settings.blacklist.exploiter_coldkeys.iter().copied().collect(),
        min_stake_rao: settings.miner.min_stake_rao(),
        allow_not_enough_stake: settings.miner.whitelist_not_enough_stake,
        require_permit: settings.miner.require_permit,
        one_ip_per_uid: settings.validator.one_ip_per_uid,
        minimal_validator_version: settings.update.minimal_validator_version,
        validators_updated_threshold: settings.miner.whitelist_updated_threshold,
        allow_not_updated: settings.miner.whitelist_not_updated,
        minimal_miner_version: settings.update.minimal_miner_version,
        miners_updated_threshold: settings.validator.whitelist_updated_threshold,
        allow_unrecognised: settings.validator.whitelist_unrecognized,
    }
}

/// What a stored view of the subnet belongs to: the network by name. A ledger's address says nothing of it.
fn network(settings: &Settings) -> String {
    match &settings.subtensor.network {
        network if network.is_ledger() => "ledger".to_owned(),
        network => network.to_string(),
    }
}

fn supervision(input: &NodeInput) -> TreeConfig {
    let s = &input.settings.supervision;
    TreeConfig {
        node: input.name.clone(),
        placement: input.placement,
        backoff: Backoff {
            first: s.backoff_first,
            cap: s.backoff_cap,
            max_failures: s.max_failures as usize,
            window: s.window,
        },
        heartbeat: s.heartbeat,
        silence_limit: s.silence_limit,
        probe_timeout: s.probe_timeout,
        monitor_period: s.heartbeat,
        jitter: s.jitter,
        seed: None,
    }
}

impl Frame {
    /// Binds the address of the web pages, takes the hotkey for this node alone, opens the database, registers the metrics, and starts the journal and the
    /// blacklist guard: an address in use or a database that cannot be used ends the start before any actor runs.
    ///
    /// `usable` checks what only this role can tell of settings, now and at each reload.
    pub(crate) fn new(input: &NodeInput, role: Role, usable: Check) -> Result<Self, NodeError> {
        let settings = &input.settings;
        usable(settings).map_err(NodeError::Config)?;
        let web = bind("web", input.web, "--metrics.port")?;
        let netuid = settings.netuid;
        let hotkey = HotkeyLock::take(&settings.node.lock_dir, input.keypair.hotkey(), netuid, &input.data_dir)?;
        let unusable = |source| NodeError::Store { dir: input.data_dir.clone(), source };
        let mut opened = store::open(&input.data_dir, role, input.clock.now_ms()).map_err(unusable)?;
        opened.db.wait_for_others(settings.store.busy_timeout).map_err(unusable)?;
        if role == Role::Validator {
            const MIB: u64 = 1 << 20;
            let identity = Identity {
                keypair: input.keypair.clone(),
                netuid: settings.netuid,
                program: concat!("compute-subnet ", env!("CARGO_PKG_VERSION")).to_owned(),
            };
            let limits = Limits {
                segment_bytes: settings.evidence.segment_mib * MIB,
                keep_bytes: settings.evidence.keep_mib * MIB,
            };
            opened.notes.extend(opened.db.with_evidence(identity, limits).map_err(unusable)?);
        }
        report(&opened.notes);
        let maintenance = maintenance(&opened.db).map_err(unusable)?;

        let registry = prometheus::Registry::new();
        let runtime_metrics = RuntimeMetrics::register(&registry)?;
        let build = BuildInfo::of(role.label());
        let metrics = NodeMetrics::register(&registry, &build, &labels(), input.clock.clone())?;
        crate::telemetry::register_process(&registry)?;
        let chain = input.chain.clone();
        crate::telemetry::register_chain(&registry, move || chain.vitals())?;
        let commits = metrics.clone();
        let config = WriterConfig {
            capacity: settings.store.queue,
            group: settings.store.group_commit,
            observer: Some(Arc::new(move |commit: &store::writer::Commit| commits.journal_commit(commit.took))),
            ..WriterConfig::default()
        };
        // The lock of the directory is held from here on: no living node loses its socket.
        let socket = control::socket::bind(&input.data_dir)
            .map_err(|source| NodeError::Control { dir: input.data_dir.clone(), source })?;
        let (instance, started_at_ms) = (instance()?, input.clock.now_ms());
        let exclusive = Arc::new(Exclusive::new(input.keypair.hotkey(), metrics.clone()));
        let writer = Writer::spawn(opened.db, config).map_err(NodeError::Writer)?;

        let mut tree = Tree::new(supervision(input), runtime_metrics, input.runtime.clone());
        let (mailbox, drain) = (settings.supervision.mailbox, settings.supervision.drain_timeout);
        let spec = |name, after| ChildSpec { name, mailbox, after, drain };
        let (web_handle, web_seat) = tree.declare::<Listener>(spec("web", &[]));
        drop(web_handle);
        let (control_handle, control_seat) = tree.declare::<Listener>(spec("control", &[]));
        drop(control_handle);
        let (journal, journal_seat) = tree.declare::<Journal>(spec("journal", &[]));
        let (guard, guard_seat) = tree.declare::<BlacklistGuard>(spec("blacklist_guard", &["journal"]));
        let (view, chain) = watch::channel(None);
        let (standing, standing_seen) = watch::channel(None);
        let (snapshot_sender, snapshot) = watch::channel(None);
        let (in_force, live) = LiveSettings::new(settings.clone());
        let policy = live.derived(policy);
        let reloader = Arc::new(Reloader::new(input.layers.clone(), in_force, usable));
        metrics.maintenance(maintenance.is_some());
        if let Some(Maintenance { note, .. }) = &maintenance {
            tracing::warn!(note, "maintenance is on: no new leases");
        }
        let duty = Arc::new(watch::Sender::new(Duty { maintenance, drain: None }));

        // The pages come first and so stop last: a node that starts or drains can be watched.
        let (web_status, web_seen) = watch::channel(ListenerStatus::unbound("web"));
        let (axon_status, axon_seen) = watch::channel(ListenerStatus::unbound("axon"));
        let (control_status, control_seen) = watch::channel(ListenerStatus::unbound("control"));
        let listeners = match role {
            Role::Miner => vec![web_seen, control_seen, axon_seen],
            Role::Validator => vec![web_seen, control_seen],
        };
        let health = Health {
            hotkey: input.keypair.hotkey(),
            max_chain_age: MAX_CHAIN_AGE,
            listeners,
            chain: chain.clone(),
            store: writer.health(),
            duty: duty.subscribe(),
            exclusive: exclusive.clone(),
        };
        let health = Arc::new(health);
        let state =
            WebState { role: role.label(), view: tree.view(), registry: registry.clone(), health: health.clone() };
        let (web, listener) = web;
        let routes = Arc::new(web::routes(state));
        let spec = Arc::new(ListenerSpec::bound("web", Bound::Tcp(listener), Place::Tcp(web), 1, routes));
        tree.start(web_seat, move |_| Listener::new(spec.clone(), web_status.clone()))?;

        let role_actors = Arc::new(OnceLock::new());
        let state = ControlState {
            role,
            hotkey: input.keypair.hotkey(),
            instance: instance.clone(),
            started_at_ms,
            data_dir: input.data_dir.clone(),
            view: tree.view(),
            health,
            chain: chain.clone(),
            standing: standing_seen,
            journal: journal.clone(),
            guard: guard.clone(),
            clock: input.clock.clone(),
            metrics: metrics.clone(),
            reloader: reloader.clone(),
            duty: duty.clone(),
            actors: role_actors.clone(),
        };
        let (place, routes) = (Place::Control(input.data_dir.clone()), Arc::new(control::routes(state)));
        let spec = Arc::new(ListenerSpec::bound("control", Bound::Unix(socket), place, 1, routes));
        tree.start(control_seat, move |_| Listener::new(spec.clone(), control_status.clone()))?;

        let (journal_writer, journal_clock, journal_metrics) = (writer.clone(), input.clock.clone(), metrics.clone());
        tree.start(journal_seat, move |_| {
            Journal::new(journal_writer.clone(), role, journal_clock.clone(), journal_metrics.clone())
        })?;
        let guard_setup = Arc::new(BlacklistGuardSetup {
            hotkey: input.keypair.hotkey(),
            policy: policy.clone(),
            records_neurons: role == Role::Validator,
            snapshot: snapshot_sender,
            journal: journal.clone(),
            clock: input.clock.clone(),
            metrics: metrics.clone(),
        });
        tree.start(guard_seat, move |_| BlacklistGuard::new(guard_setup.clone()))?;
        Ok(Frame {
            tree,
            registry,
            metrics,
            live,
            policy,
            duty: duty.subscribe(),
            reloader,
            journal,
            guard,
            snapshot,
            chain,
            view,
            standing,
            writer,
            hotkey,
            exclusive,
            instance,
            started_at_ms,
            web,
            role_actors,
            axon_status,
            axon: None,
            mailbox,
            drain,
        })
    }

    /// The specification of an actor of this node.
    pub(crate) fn child(&self, name: &'static str, after: &'static [&'static str]) -> ChildSpec {
        ChildSpec { name, mailbox: self.mailbox, after, drain: self.drain }
    }

    /// Where a validator's metrics are for others; loopback is for nobody else. `others` is this machine's address as others
    /// reach it.
    fn public_metrics(&self, others: Option<IpAddr>) -> Option<SocketAddr> {
        let address = self.web;
        let validator = self.axon.is_none();
        match address.ip() {
            ip if !validator || ip.is_loopback() => None,
            ip if ip.is_unspecified() => Some(SocketAddr::new(others?, address.port())),
            _ => Some(address),
        }
    }

    /// Tells the control socket whom to ask; until then it says that the node starts.
    pub(crate) fn control(&self, actors: RoleActors) {
        let told = self.role_actors.set(actors);
        debug_assert!(told.is_ok(), "a node is assembled once");
    }

    /// Declares the axon's listener and binds its address.
    pub(crate) fn bind_axon(&mut self, input: &NodeInput) -> Result<BoundAxon, NodeError> {
        let (address, listener) = bind("axon", input.axon, "--axon.port")?;
        let (handle, seat) = self.tree.declare::<Listener>(self.child("axon", &["blacklist_guard"]));
        self.axon = Some((handle, address));
        Ok(BoundAxon { seat, status: self.axon_status.clone(), listener, address })
    }

    /// Starts what is left, the chain watcher last: it wakes everybody else. `announce` is the axon's address as others
    /// reach it, with what asks another such address.
    pub(crate) fn finish(
        mut self,
        input: &NodeInput,
        announce: Option<(SocketAddr, Dendrite)>,
        on_block: Vec<Subscriber<NewBlock>>,
        on_metagraph: Vec<Subscriber<MetagraphChanged>>,
    ) -> Result<Node, NodeError> {
        let settings = &input.settings;
        let (updater_handle, updater_seat) = self.tree.declare::<AutoUpdater>(self.child("auto_updater", &[]));
        drop(updater_handle);
        let (watcher_handle, watcher_seat) =
            self.tree.declare::<ChainWatcher>(self.child("chain_watcher", &["journal", "blacklist_guard"]));
        drop(watcher_handle);

        let (enabled, interval) = (settings.update.auto_update, settings.update.interval);
        let metrics = self.metrics.clone();
        self.tree.start(updater_seat, move |_| AutoUpdater::new(enabled, interval, metrics.clone()))?;

        let mut blocks = vec![Subscriber::new("blacklist_guard", &self.guard)];
        blocks.extend(on_block);
        let mut metagraphs = vec![Subscriber::new("blacklist_guard", &self.guard)];
        metagraphs.extend(on_metagraph);
        let instance = self.instance.clone();
        let policy = settings.address_policy();
        let others = input.announce.map(|at| at.ip()).or(settings.axon.external_ip);
        let axon = announce.filter(|(at, _)| may_announce("axon", *at, policy)).map(|(address, dendrite)| {
            AxonToAnnounce { address, version: settings.axon.version, rival: Rival { dendrite, instance } }
        });
        let prometheus = self.public_metrics(others).filter(|at| may_announce("metrics endpoint", *at, policy));
        let prometheus = prometheus.map(|at| (at, settings.axon.version));
        let watcher = Arc::new(ChainWatcherSetup {
            chain: input.chain.clone(),
            hotkey: input.keypair.hotkey(),
            period: settings.subtensor.poll_interval,
            deadline: settings.subtensor.request_timeout.saturating_mul(LOOK_ANSWERS),
            stalled_after: MAX_CHAIN_AGE,
            axon,
            exclusive: self.exclusive.clone(),
            prometheus,
            force_prometheus: settings.validator.force_update_prometheus,
            on_block: blocks,
            on_metagraph: metagraphs,
            view: self.view,
            standing: self.standing,
            validator: self.axon.is_none(),
            network: network(settings),
            journal: self.journal.clone(),
            clock: input.clock.clone(),
            metrics: self.metrics.clone(),
        });
        self.tree.start(watcher_seat, move |_| ChainWatcher::new(watcher.clone()))?;

        let view = self.tree.view();
        Ok(Node {
            tree: self.tree,
            writer: self.writer,
            hotkey: self.hotkey,
            exclusive: self.exclusive,
            axon_address: self.axon.as_ref().map(|(_, address)| *address),
            axon: self.axon.map(|(handle, _)| handle),
            shutdown: settings.supervision.shutdown_timeout,
            duty: self.duty,
            role_actors: self.role_actors,
            reloader: self.reloader,
            data_dir: input.data_dir.clone(),
            view,
            registry: self.registry,
            web: self.web,
            chain: self.chain,
        })
    }
}

/// Whether peers could reach this address; if not, it is told why it is not announced.
fn may_announce(endpoint: &str, at: SocketAddr, policy: AddressPolicy) -> bool {
    let judged = announceable(at.ip(), policy);
    if let Err(refusal) = judged {
        tracing::warn!(endpoint, address = %at, reason = %refusal, "not announced on chain, so peers do not find it");
    }
    judged.is_ok()
}

/// An axon whose address is taken, waiting for its routes.
pub(crate) struct BoundAxon {
    pub(crate) seat: Seat<Listener>,
    pub(crate) status: watch::Sender<ListenerStatus>,
    pub(crate) listener: std::net::TcpListener,
    pub(crate) address: SocketAddr,
}

fn bind(
    listener: &'static str,
    address: SocketAddr,
    flag: &'static str,
) -> Result<(SocketAddr, std::net::TcpListener), NodeError> {
    let failed = |source| NodeError::Bind { listener, address, flag, source };
    let bound = std::net::TcpListener::bind(address).map_err(failed)?;
    Ok((bound.local_addr().map_err(failed)?, bound))
}

fn report(notes: &[OpenNote]) {
    for note in notes {
        if note.is_warning() {
            tracing::warn!("{note}");
        } else {
            tracing::info!("{note}");
        }
    }
}

/// Random text for one start of a node.
fn instance() -> Result<String, NodeError> {
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(NodeError::Random)?;
    Ok(hex::encode(random))
}

/// Reads a secret of 32 bytes from `path`, or makes it: owner-only, never overwritten.
pub(crate) fn secret(path: &Path) -> Result<secrecy::SecretBox<[u8; 32]>, NodeError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let failed = |source| NodeError::File { path: path.to_owned(), source };
    let wrong = || std::io::Error::new(std::io::ErrorKind::InvalidData, "expected 64 hex digits; move the file away");
    let mut bytes = Box::new([0u8; 32]);
    match std::fs::read_to_string(path) {
        Ok(text) => hex::decode_to_slice(text.trim(), bytes.as_mut_slice()).map_err(|_| failed(wrong()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            getrandom::fill(bytes.as_mut_slice()).map_err(|e| failed(std::io::Error::other(e)))?;
            let mut file =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
            file.write_all(hex::encode(bytes.as_slice()).as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    Ok(secrecy::SecretBox::new(bytes))
}

#[cfg(test)]
mod tests;
