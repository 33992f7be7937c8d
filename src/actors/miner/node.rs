//! A miner, assembled.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::allocation_manager::{AllocationManager, AllocationSetup};
use super::axon::{AxonState, routes};
use super::challenge_runner::{ChallengeRunner, ChallengeRunnerSetup};
use super::engine::docker_options;
use super::original::{LeaseLimits, Original, OriginalPolicy};
use super::specs_collector::{SpecsCollector, SpecsCollectorSetup};
use super::watch_callers::{WatchCallers, WatchCallersSetup};
use crate::actors::listener::{Bound, Crowd, Listener, ListenerSpec, Place, Reach, room};
use crate::actors::node::{Frame, MAX_KNOWN_AGE, MAX_SUBNET_AGE, Node, NodeError, NodeInput};
use crate::admission::{AnomalyLimits, admit_address};
use crate::clock::millis;
use crate::hardware::{OfferedDevice, Probe};
use crate::lease::ContainerEngine;
use crate::lease::health::HealthPolicy;
use crate::lease::reconcile::ReconcileRules;
use crate::lease::revival::RevivalPolicy;
use crate::proof::budget::BudgetLimits;
use crate::proof::prover::Prover;
use crate::runtime::{Handle, Placement};
use crate::settings::Settings;
use crate::store::Role;
use crate::web::control::RoleActors;
use crate::wire::axon::{Accepts, AdmissionRefusal, AxonGate, AxonLimits, GateRules, Rate, Rates};
use crate::wire::classic::{ClassicPolicy, EndpointLimits};
use crate::wire::dendrite::Dendrite;
use crate::wire::nonces::NonceLimits;
use crate::wire::synapse::WhoReply;

/// What a miner is given beside what every node is given.
pub struct MinerInput {
    /// What every node is given.
    pub node: NodeInput,
    /// Makes the proofs.
    pub prover: Arc<dyn Prover>,
    /// Runs the containers.
    pub engine: Arc<dyn ContainerEngine>,
    /// What to measure.
    pub probe: Probe,
    /// Devices offered instead of the GPUs: classes of a devnet.
    pub device_classes: Option<Vec<OfferedDevice>>,
}

/// A running miner, with the ways in that others need.
pub struct MinerNode {
    /// The node.
    pub node: Node,
    /// Its rentals.
    pub allocations: Handle<AllocationManager>,
    /// Its measurements.
    pub specs: Handle<SpecsCollector>,
    /// Its key.
    pub hotkey: crate::ids::Hotkey,
}

/// The miner's budget, from the settings.
pub fn budget(settings: &Settings) -> BudgetLimits {
    BudgetLimits {
        ops_per_challenge: settings.budget.operations,
        memory_bytes: settings.budget.memory_mib << 20,
        prover_memory_bytes: settings.prover.memory_limit_bytes(),
        time_per_window: settings.budget.time,
        challenges_per_hotkey_per_window: settings.budget.challenges_per_hotkey,
        window: settings.budget.window,
    }
}

/// How many misses lose a lease, from the settings.
pub fn lease_health(settings: &Settings) -> HealthPolicy {
    HealthPolicy { misses: settings.leases.misses_to_lose, rounds: settings.leases.of_checks }
}

/// What callers of the original's protocol get, from the settings.
fn original_policy(settings: &Settings) -> OriginalPolicy {
    OriginalPolicy { password: settings.leases.original_password, image: settings.leases.original_image.clone() }
}

/// For how long callers of the original's protocol may rent, from the settings.
pub fn lease_limits(settings: &Settings) -> LeaseLimits {
    LeaseLimits { longest: settings.leases.original_max_duration, test: settings.leases.test_duration }
}

/// What callers are penalised for by themselves, from the settings.
pub fn anomaly_limits(settings: &Settings) -> AnomalyLimits {
    AnomalyLimits {
        window_ms: millis(settings.blacklist.anomaly_window),
        bad_signatures: settings.blacklist.max_bad_signatures,
        replays: settings.blacklist.max_replays,
        malformed: settings.blacklist.max_malformed,
        penalty_ms: millis(settings.blacklist.anomaly_penalty),
    }
}

/// Assembles and starts a miner.
///
/// # Errors
/// [`NodeError`]; nothing runs then.
pub fn start(input: MinerInput) -> Result<MinerNode, NodeError> {
    let MinerInput { node: input, prover, engine, probe, device_classes } = input;
    let settings = input.settings.clone();
    let dendrite = Dendrite::new(input.keypair.clone(), input.clock.clone(), None)
        .map_err(|e| NodeError::Config(format!("no HTTP client: {}", crate::telemetry::error_chain(&e))))?;
    let mut frame = Frame::new(&input, Role::Miner, |_| Ok(()))?;
    let axon = frame.bind_axon(&input)?;
    let announce = input.announce.unwrap_or(axon.address);

    let (specs, specs_seat) = frame.tree.declare::<SpecsCollector>(frame.child("specs_collector", &[]));
    let (allocations, allocations_seat) =
        frame.tree.declare::<AllocationManager>(frame.child("allocation_manager", &["journal", "specs_collector"]));
    let (challenges, challenges_seat) =
        frame.tree.declare::<ChallengeRunner>(frame.child("challenge_runner", &["specs_collector"]));

    let setup = Arc::new(SpecsCollectorSetup {
        probe,
        period: settings.specs.refresh,
        device_classes,
        clock: input.clock.clone(),
        metrics: frame.metrics.clone(),
    });
    frame.tree.start(specs_seat, move |_| SpecsCollector::new(setup.clone()))?;

    engine.report_to(&frame.metrics);
    let tried = engine.tried();
    let (offer, offered) = watch::channel(None);
    let (hold, held) = watch::channel(Vec::new());
    let setup = {
        let (journal, clock, metrics) = (frame.journal.clone(), input.clock.clone(), frame.metrics.clone());
        let (specs, duty) = (specs.clone(), frame.duty.clone());
        let (hotkey, host) = (input.keypair.hotkey(), host(announce.ip()));
        frame.live.derived(move |settings| AllocationSetup {
            hotkey,
            engine: engine.clone(),
            host,
            longest: settings.leases.max_duration,
            period: settings.leases.health_interval,
            engine_deadline: docker_options(settings, hotkey, host, &settings.node.data_dir).longest_call(),
            health: lease_health(settings),
            revival: RevivalPolicy::default(),
            rules: ReconcileRules {
                orphan_grace: settings.leases.grace,
                // A caller is waited for twice: while the container is made, and while it is told.
                unheard_grace: settings.leases.request_timeout * 3,
                ..ReconcileRules::default()
            },
            specs: specs.clone(),
            offer: offer.clone(),
            held: hold.clone(),
            duty: duty.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    };
    frame.tree.start(allocations_seat, move |_| AllocationManager::new(setup.clone()))?;

    let setup = {
        let (journal, clock, metrics) = (frame.journal.clone(), input.clock.clone(), frame.metrics.clone());
        let (specs, allocations, view) = (specs.clone(), allocations.clone(), frame.chain.clone());
        let hotkey = input.keypair.hotkey();
        frame.live.derived(move |settings| ChallengeRunnerSetup {
            hotkey,
            prover: prover.clone(),
            limits: budget(settings),
            // Longer than a validator's opening deadline, so that a retry at its very end still finds the commitment.
            keep: settings.challenge.opening_deadline * 2,
            fill_timeout: settings.challenge.fill_timeout,
            // Not longer than a validator asks: it is the device's own memory.
            keep_memory: settings.challenge.opening_deadline,
            // A memory slot and a block: some validator waits for others until its slot is over.
            keep_ready: Duration::from_secs(60),
            specs: specs.clone(),
            allocations: allocations.clone(),
            held: held.clone(),
            view: view.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    };
    frame.tree.start(challenges_seat, move |_| ChallengeRunner::new(setup.clone()))?;

    let prove_deadline = settings.prover.time_limit + settings.leases.request_timeout;
    let events = Arc::new(WatchCallers::new(WatchCallersSetup {
        own: vec![announce.ip(), axon.address.ip()],
        limits: frame.live.value(anomaly_limits),
        guard: frame.guard.clone(),
        snapshot: frame.snapshot.clone(),
        clock: input.clock.clone(),
        metrics: frame.metrics.clone(),
    }));
    let rules = gate_rules(&settings, prove_deadline * 2);
    let accepts = frame
        .live
        .value(|settings| Accepts { btauth: settings.axon.accept_btauth, classic: settings.axon.accept_classic });
    let (snapshot, clock, metrics) = (frame.snapshot.clone(), input.clock.clone(), frame.metrics.clone());
    let gate = AxonGate::new(input.keypair.clone(), input.clock.clone(), rules, events)
        .accepting(move || accepts.get())
        .admitting(move |ip| {
            let refusal = match admit_address(snapshot.borrow().as_deref(), clock.now_ms(), ip) {
                Ok(()) => return Ok(()),
                Err(refusal) => refusal,
            };
            metrics.admission("refused", refusal.label());
            Err(AdmissionRefusal::Forbidden { reason: refusal.label(), detail: refusal.to_string() })
        });
    let gate = Arc::new(gate);
    let original = Original {
        allocations: allocations.clone(),
        specs: specs.clone(),
        offer: offered,
        duty: frame.duty.clone(),
        ssh_port: frame.live.derived(|settings| settings.miner.ssh_port),
        limits: frame.live.value(lease_limits),
        policy: frame.live.derived(original_policy),
        tried,
        deadline: settings.leases.request_timeout,
    };
    let state = Arc::new(AxonState {
        gate: gate.clone(),
        policy: frame.policy.clone(),
        snapshot: frame.snapshot.clone(),
        max_snapshot_age: MAX_SUBNET_AGE,
        max_known_age: MAX_KNOWN_AGE,
        prove_deadline,
        deadline: settings.leases.request_timeout,
        who: WhoReply { instance: frame.instance.clone(), since_ms: frame.started_at_ms },
        clock: input.clock.clone(),
        metrics: frame.metrics.clone(),
        specs: specs.clone(),
        challenges,
        allocations: allocations.clone(),
        original,
    });
    let place = Place::Tcp(axon.address);
    let routes = Arc::new(routes(state));
    let mut spec = ListenerSpec::bound("axon", Bound::Tcp(axon.listener), place, workers(input.placement), routes);
    spec.request_timeout = settings.axon.read_timeout;
    let crowd = Crowd::new(room(settings.axon.max_connections), settings.axon.max_connections_per_ip);
    let (chain, hotkey) = (frame.chain.clone(), input.keypair.hotkey());
    let on_chain = move || {
        let shown = chain.borrow().as_ref().and_then(|view| view.metagraph.by_hotkey(&hotkey)?.axon);
        shown.is_some_and(|axon| SocketAddr::new(axon.ip, axon.port) == announce)
    };
    spec.reach = Some(Reach {
        announced: announce,
        on_chain: Box::new(on_chain),
        gate,
        crowd: crowd.clone(),
        metrics: frame.metrics.clone(),
    });
    spec.crowd = Some(crowd);
    // A proof may take as long as the node's end.
    spec.drain = settings.supervision.shutdown_timeout.max(Duration::from_secs(1));
    let spec = Arc::new(spec);
    let status = axon.status;
    frame.tree.start(axon.seat, move |_| Listener::new(spec.clone(), status.clone()))?;

    frame.control(RoleActors::Miner { allocations: allocations.clone() });
    let node = frame.finish(&input, Some((announce, dendrite)), Vec::new(), Vec::new())?;
    Ok(MinerNode { node, allocations, specs, hotkey: input.keypair.hotkey() })
}

/// Threads of the axon's HTTP server: signatures are checked there. A devnet's miners share the machine.
fn workers(placement: Placement) -> usize {
    match placement {
        Placement::PerActor => std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4)),
        _ => 1,
    }
}

/// How the axon judges requests, from the settings.
fn gate_rules(settings: &Settings, handler_deadline: Duration) -> GateRules {
    GateRules {
        version: u64::from(settings.axon.version),
        classic: ClassicPolicy { max_timeout: settings.axon.classic_max_timeout, ..ClassicPolicy::default() },
        limits: AxonLimits {
            max_headers: settings.axon.max_headers,
            max_header_bytes: settings.axon.max_header_bytes,
            max_body_bytes: settings.axon.max_body_bytes,
            body_deadline: settings.axon.read_timeout,
            handler_deadline,
            at_once: settings.axon.max_workers,
        },
        nonces: NonceLimits { total: settings.axon.nonces, per_hotkey: settings.axon.nonces_per_hotkey },
        endpoints: EndpointLimits { total: settings.axon.nonces, per_hotkey: settings.axon.nonces_per_hotkey },
        rates: Rates {
            per_ip: Rate::new(settings.axon.rate_per_ip, settings.axon.burst_per_ip),
            per_hotkey: Rate::new(settings.axon.rate_per_hotkey, settings.axon.burst_per_hotkey),
        },
        ..GateRules::default()
    }
}

/// Where renters log in: the announced address, or the loopback one where none is announced.
fn host(announced: IpAddr) -> IpAddr {
    if announced.is_unspecified() { std::net::Ipv4Addr::LOCALHOST.into() } else { announced }
}
