//! A validator, assembled.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::allocation_manager::{AllocationManager, AllocationSetup};
use super::canary_runner::{CanaryRunner, CanaryRunnerSetup};
use super::challenge_runner::plan::WorkTable;
use super::challenge_runner::round::Rules;
use super::challenge_runner::{ChallengeRunner, ChallengeRunnerSetup};
use super::memory_runner::plan::{MemoryTable, MemoryWork};
use super::memory_runner::{MemoryRunner, MemoryRunnerSetup, round};
use super::specs_collector::{SpecsCollector, SpecsCollectorSetup};
use super::under_proof::UnderProof;
use super::verifiers::Verifiers;
use super::weight_setter::{BurnRule, WeightSetter, WeightSetterSetup};
use crate::actors::Subscriber;
use crate::actors::miner::node::lease_health;
use crate::actors::node::{Frame, Node, NodeError, NodeInput, secret};
use crate::canary::schedule::Rhythm;
use crate::canary::{Limits, Remote};
use crate::chain::RAO_PER_TAO;
use crate::clock::millis;
use crate::ids::Uid;
use crate::proof::Work;
use crate::proof::size::size;
use crate::runtime::{Backoff, Handle};
use crate::scoring::receipt::ReceiptRules;
use crate::scoring::{HistoryRules, ModelRow, Points, RateSource, ScoreTable, WHOLE_PPB};
use crate::settings::{Settings, whole};
use crate::store::Role;
use crate::web::control::{RoleActors, ValidatorActors};
use crate::wire::dendrite::Dendrite;

/// The file of the secret that lease tokens are derived from, in the data directory.
const LEASE_SECRET_FILE: &str = "lease.secret";
/// What the manager of leases may take beyond the miner's answer: a check under way, and the journal.
const MANAGER: Duration = Duration::from_secs(20);
/// What the chain's client may take beyond its deadlines.
const CLIENT: Duration = Duration::from_secs(5);

/// What a validator is given beside what every node is given.
pub struct ValidatorInput {
    /// What every node is given.
    pub node: NodeInput,
    /// The address its requests come from, where it matters.
    pub local_address: Option<IpAddr>,
    /// How it logs in to rented containers.
    pub remote: Arc<dyn Remote>,
}

/// A running validator, with the ways in that others need.
pub struct ValidatorNode {
    /// The node.
    pub node: Node,
    /// Its rentals.
    pub allocations: Handle<AllocationManager>,
    /// Its judgements.
    pub challenges: Handle<ChallengeRunner>,
    /// Its judgements of memory.
    pub memory: Handle<MemoryRunner>,
    /// Its scores and weights.
    pub weights: Handle<WeightSetter>,
    /// Its canary rentals.
    pub canaries: Handle<CanaryRunner>,
    /// Whom it asks.
    pub guard: Handle<crate::actors::blacklist_guard::BlacklistGuard>,
}

/// The models with their scores, and the work asked of each. On a ledger the devnet's classes are the whole table, so
/// that the scaling follows from them.
///
/// # Errors
/// [`NodeError::Config`] with every problem of the table.
pub fn tables(settings: &Settings) -> Result<(ScoreTable, WorkTable), NodeError> {
    let mut rows = Vec::new();
    let mut works = HashMap::new();
    let mut problems = Vec::new();
    for (name, class) in &settings.devnet.gpu_scores {
        match Work::new(class.n, class.k, class.rounds) {
            Ok(work) => drop(works.insert(name.clone(), work)),
            Err(error) => problems.push(format!("{name}: {error}")),
        }
        problems.extend(class.memory_size().err().map(|error| format!("{name}: {error}")));
        let base_micro = whole(class.base, 1e6);
        rows.push(ModelRow { name: name.clone(), base_micro, timed: false, ..ModelRow::default() });
    }
    if settings.devnet.gpu_scores.is_empty() {
        for (name, row) in &settings.scoring.gpus {
            let row = row.model(name);
            // Without a rate a pass says nothing about the model: no work is asked, the row is uncalibrated.
            if let Some(nominal) = row.nominal_ops {
                match row.memory.and_then(|memory| size(nominal, memory.best)) {
                    Some(work) => drop(works.insert(name.clone(), work)),
                    None => problems.push(format!("{name}: no proof lasts 3 to 4 s and fits into its memory")),
                }
            }
            rows.push(row);
        }
    }
    let table = ScoreTable::new(rows, settings.scoring.max_devices as usize).map_err(|error| {
        NodeError::Config(format!("the table of models cannot be used: {}", crate::telemetry::error_chain(&error)))
    })?;
    let table = table.with_bonus(Points(whole(settings.scoring.allocated_bonus, 1e9)));
    if problems.is_empty() { Ok((table, works)) } else { Err(NodeError::Config(problems.join("; "))) }
}

/// What is asked of each model's memory. A row without all the figures that it takes is not asked.
pub fn memories(settings: &Settings) -> MemoryTable {
    let classes = settings.devnet.gpu_scores.iter();
    let classes = classes.map(|(name, class)| (name, class.memory_size().ok().flatten(), None));
    let gpus = settings.scoring.gpus.iter().filter(|_| settings.devnet.gpu_scores.is_empty());
    let gpus = gpus.map(|(name, row)| {
        let model = row.model(name);
        // A floor that nobody has measured would fail honest cards.
        let floor = model.bandwidth.filter(|_| model.source == RateSource::Measured).map(|limit| limit.floor);
        (name, row.memory_size(), floor)
    });
    classes
        .chain(gpus)
        .filter_map(|(name, size, floor)| Some((name.clone(), MemoryWork { size: size?, floor })))
        .collect()
}

/// Assembles and starts a validator.
///
/// # Errors
/// [`NodeError`]; nothing runs then.
pub fn start(input: ValidatorInput) -> Result<ValidatorNode, NodeError> {
    let ValidatorInput { node: input, local_address, remote } = input;
    let settings = input.settings.clone();
    let dendrite = Dendrite::new(input.keypair.clone(), input.clock.clone(), local_address)
        .map_err(|e| NodeError::Config(format!("no HTTP client: {}", crate::telemetry::error_chain(&e))))?;
    let mut frame =
        Frame::new(&input, Role::Validator, |settings| tables(settings).map(drop).map_err(|e| e.to_string()))?;
    let first = tables(&settings)?;
    // Settings whose tables cannot be used are never published: the first ones only stand in for what cannot be.
    let tables = frame.live.derived(move |settings| {
        let (table, works) = tables(settings).unwrap_or_else(|_| first.clone());
        (Arc::new(table), Arc::new(works), Arc::new(memories(settings)))
    });
    let secret = Arc::new(secret(&input.data_dir.join(LEASE_SECRET_FILE))?);

    let (specs, specs_seat) = frame.tree.declare::<SpecsCollector>(frame.child("specs_collector", &["journal"]));
    let (allocations, allocations_seat) =
        frame.tree.declare::<AllocationManager>(frame.child("allocation_manager", &["journal", "specs_collector"]));
    let (weights, weights_seat) =
        frame.tree.declare::<WeightSetter>(frame.child("weight_setter", &["journal", "allocation_manager"]));
    let after = &["journal", "blacklist_guard", "specs_collector", "allocation_manager"];
    let (challenges, challenges_seat) = frame.tree.declare::<ChallengeRunner>(frame.child("challenge_runner", after));

    let after = &["journal", "blacklist_guard", "specs_collector", "allocation_manager", "challenge_runner"];
    let (memory, memory_seat) = frame.tree.declare::<MemoryRunner>(frame.child("memory_runner", after));

    let after = &["journal", "allocation_manager"];
    let (canaries, canaries_seat) = frame.tree.declare::<CanaryRunner>(frame.child("canary_runner", after));

    let under_proof = UnderProof::default();
    let setup = {
        let (journal, clock) = (frame.journal.clone(), input.clock.clone());
        let dendrite = dendrite.clone();
        frame.live.derived(move |settings| SpecsCollectorSetup {
            dendrite: dendrite.clone(),
            batch: settings.validator.specs_batch_size,
            deadline: settings.specs.timeout,
            journal: journal.clone(),
            clock: clock.clone(),
        })
    };
    frame.tree.start(specs_seat, move |_| SpecsCollector::new(setup.clone()))?;

    let setup = {
        let (journal, clock, metrics) = (frame.journal.clone(), input.clock.clone(), frame.metrics.clone());
        let (dendrite, view, duty) = (dendrite.clone(), frame.chain.clone(), frame.duty.clone());
        let (keypair, specs, under_proof) = (input.keypair.clone(), specs.clone(), under_proof.clone());
        frame.live.derived(move |settings| AllocationSetup {
            hotkey: keypair.hotkey(),
            keypair: keypair.clone(),
            dendrite: dendrite.clone(),
            view: view.clone(),
            secret: secret.clone(),
            longest: settings.leases.max_duration,
            allocate_deadline: settings.leases.request_timeout,
            call_deadline: settings.specs.timeout,
            period: settings.leases.health_interval,
            health: lease_health(settings),
            give_up: settings.leases.grace,
            // A local chain has device classes of its own; its containers may be simulated.
            ssh_probe: settings.leases.ssh_probe.unwrap_or(settings.devnet.gpu_scores.is_empty()),
            candidates: settings.leases.candidates as usize,
            rent_deadline: settings.leases.rent_timeout,
            half_life: settings.leases.trouble_half_life,
            hardware_confirmations: settings.leases.hardware_confirmations,
            under_proof: under_proof.clone(),
            specs: specs.clone(),
            duty: duty.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    };
    frame.tree.start(allocations_seat, move |_| AllocationManager::new(setup.clone()))?;

    let setup = {
        let (journal, clock, metrics) = (frame.journal.clone(), input.clock.clone(), frame.metrics.clone());
        let (chain, allocations) = (input.chain.clone(), allocations.clone());
        let (hotkey, exclusive) = (input.keypair.hotkey(), frame.exclusive.clone());
        frame.live.derived(move |settings| WeightSetterSetup {
            hotkey,
            exclusive: exclusive.clone(),
            chain: chain.clone(),
            // The client's own deadlines end first: one for its turn, one for the call.
            deadline: settings.weights.confirm_timeout.saturating_mul(2).saturating_add(CLIENT),
            version_key: settings.weights.version_key,
            interval_blocks: settings.weights.interval_blocks,
            require_permit: settings.validator.require_permit,
            mode: settings.weights.mode,
            mechanism: settings.weights.mechanism,
            burn: BurnRule {
                share_ppb: whole(settings.weights.burn_share, WHOLE_PPB as f64),
                uid: settings.weights.burn_uid.map(Uid),
            },
            retry: Backoff {
                first: settings.weights.retry_first,
                cap: settings.weights.retry_cap,
                ..Backoff::default()
            },
            allocations: allocations.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    };
    frame.tree.start(weights_seat, move |_| WeightSetter::new(setup.clone()))?;

    // One bound for the proofs of work and of memory.
    let verifiers = Verifiers::new(Verifiers::one_per_core());
    let setup = {
        let verifiers = verifiers.clone();
        let (journal, clock, metrics) = (frame.journal.clone(), input.clock.clone(), frame.metrics.clone());
        let (guard, allocations) = (frame.guard.clone(), allocations.clone());
        let on_judged = vec![
            Subscriber::new("weight_setter", &weights),
            Subscriber::new("allocation_manager", &allocations),
            Subscriber::new("memory_runner", &memory),
            Subscriber::new("canary_runner", &canaries),
        ];
        let (hotkey, view) = (input.keypair.hotkey(), frame.chain.clone());
        let (dendrite, tables, specs) = (dendrite.clone(), tables.clone(), specs.clone());
        let under_proof = under_proof.clone();
        frame.live.derived(move |settings| ChallengeRunnerSetup {
            hotkey,
            under_proof: under_proof.clone(),
            dendrite: dendrite.clone(),
            table: tables.get().0.clone(),
            works: tables.get().1.clone(),
            rules: Rules {
                batch: settings.validator.challenge_batch_size,
                samples: settings.challenge.samples as usize,
                commit_timeout: settings.challenge.commit_timeout,
                opening_deadline: settings.challenge.opening_deadline,
                verifiers: verifiers.clone(),
            },
            history: HistoryRules {
                pass_epochs: settings.challenge.pass_lifetime_epochs,
                misses: settings.challenge.unresponsive_after,
                penalty_fails: settings.challenge.penalty_fails,
                penalty_window: settings.challenge.penalty_window,
                penalty_ms: millis(settings.challenge.penalty),
                ..HistoryRules::default()
            },
            canaries_count: !settings.canary.interval.is_zero(),
            receipts: ReceiptRules {
                min_stake_rao: whole(settings.scoring.receipt_min_stake, RAO_PER_TAO as f64),
                max_per_validator_and_coldkey: settings.scoring.receipts_per_coldkey as usize,
            },
            require_permit: settings.validator.require_permit,
            ask_specs: settings.validator.perform_hardware_query,
            specs_deadline: specs_deadline(settings),
            view: view.clone(),
            guard: guard.clone(),
            specs: specs.clone(),
            allocations: allocations.clone(),
            journal: journal.clone(),
            on_judged: on_judged.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    };
    frame.tree.start(challenges_seat, move |_| ChallengeRunner::new(setup.clone()))?;

    let setup = {
        let (journal, clock, metrics) = (frame.journal.clone(), input.clock.clone(), frame.metrics.clone());
        let (allocations, verifiers, tables) = (allocations.clone(), verifiers.clone(), tables.clone());
        let (dendrite, view, duty) = (dendrite.clone(), frame.chain.clone(), frame.duty.clone());
        frame.live.derived(move |settings| CanaryRunnerSetup {
            rhythm: Rhythm {
                interval: settings.canary.interval,
                retry: settings.canary.retry,
                per_epoch: settings.canary.per_epoch,
            },
            limits: canary_limits(settings),
            longest: settings.leases.max_duration,
            images: settings.canary.images.clone(),
            original: settings.canary.original,
            dendrite: dendrite.clone(),
            view: view.clone(),
            duty: duty.clone(),
            program: settings.canary.prover.clone(),
            remote: remote.clone(),
            verifiers: verifiers.clone(),
            table: tables.get().0.clone(),
            works: tables.get().1.clone(),
            allocations: allocations.clone(),
            journal: journal.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        })
    };
    frame.tree.start(canaries_seat, move |_| CanaryRunner::new(setup.clone()))?;

    let setup = {
        let (journal, clock, metrics) = (frame.journal.clone(), input.clock.clone(), frame.metrics.clone());
        let (guard, allocations) = (frame.guard.clone(), allocations.clone());
        let (hotkey, view) = (input.keypair.hotkey(), frame.chain.clone());
        frame.live.derived(move |settings| {
            let rules = round::Rules {
                batch: settings.validator.challenge_batch_size,
                samples: settings.challenge.samples as usize,
                fill_timeout: settings.challenge.fill_timeout,
                scan_timeout: settings.challenge.commit_timeout,
                opening_deadline: settings.challenge.opening_deadline,
                verifiers: verifiers.clone(),
            };
            let (dendrite, view) = (dendrite.clone(), view.clone());
            let (clock, metrics, under_proof) = (clock.clone(), metrics.clone(), under_proof.clone());
            MemoryRunnerSetup {
                hotkey,
                round: Arc::new(round::RoundSetup { dendrite, under_proof, rules, view, clock, metrics }),
                table: tables.get().0.clone(),
                memories: tables.get().2.clone(),
                require_permit: settings.validator.require_permit,
                guard: guard.clone(),
                specs: specs.clone(),
                allocations: allocations.clone(),
                journal: journal.clone(),
            }
        })
    };
    frame.tree.start(memory_seat, move |_| MemoryRunner::new(setup.clone()))?;

    let on_block = vec![
        Subscriber::new("challenge_runner", &challenges),
        Subscriber::new("memory_runner", &memory),
        Subscriber::new("weight_setter", &weights),
        Subscriber::new("canary_runner", &canaries),
    ];
    let guard = frame.guard.clone();
    frame.control(RoleActors::Validator(ValidatorActors {
        guard: guard.clone(),
        challenges: challenges.clone(),
        memory: memory.clone(),
        weights: weights.clone(),
        allocations: allocations.clone(),
        canaries: canaries.clone(),
    }));
    let node = frame.finish(&input, None, on_block, Vec::new())?;
    Ok(ValidatorNode { node, allocations, challenges, memory, weights, canaries, guard })
}

/// How long each stage of a canary may take. Renting and releasing have the miner's own time, and what the manager takes
/// beyond it: a release that follows a call without an answer.
fn canary_limits(settings: &Settings) -> Limits {
    Limits {
        allocate: settings.leases.request_timeout.saturating_mul(2).saturating_add(MANAGER),
        login: settings.canary.login_timeout,
        upload: settings.canary.upload_timeout,
        run: settings.canary.run_timeout,
        verify: settings.challenge.opening_deadline,
        release: settings.leases.request_timeout.saturating_add(MANAGER),
        samples: settings.challenge.samples as usize,
    }
}

/// Longest a round of specs may take: all neurons are asked nearly at once, and each may run into its deadline. Batches begin
/// a few milliseconds apart: with one neuron in each that is a second or two.
fn specs_deadline(settings: &Settings) -> Duration {
    settings.specs.timeout + Duration::from_secs(10)
}
