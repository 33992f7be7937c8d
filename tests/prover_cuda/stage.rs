//! A miner's runner with real children, whose program is a shell that does as it is told, and a validator's part in a few lines.

use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::actors::journal::Journal;
use compute_subnet::actors::miner::allocation_manager::{AllocationManager, AllocationSetup};
use compute_subnet::actors::miner::challenge_runner::{ChallengeRunner, ChallengeRunnerSetup};
use compute_subnet::actors::miner::specs_collector::{SpecsCollector, SpecsCollectorSetup};
use compute_subnet::clock::{SharedClock, SystemClock};
use compute_subnet::hardware::{OfferedDevice, Probe};
use compute_subnet::ids::{ChallengeId, DeviceId, Hash32, Hotkey};
use compute_subnet::lease::engine::SimulatedEngine;
use compute_subnet::lease::health::HealthPolicy;
use compute_subnet::lease::reconcile::ReconcileRules;
use compute_subnet::lease::revival::RevivalPolicy;
use compute_subnet::messages::miner::challenge_runner::{Open, OpenError, Prove};
use compute_subnet::proof::budget::BudgetLimits;
use compute_subnet::proof::frames::{self, Frame};
use compute_subnet::proof::prover::{
    Backend, ChildProver, CudaChild, DeviceProver, InProcessProver, Prover, ProverLimits,
};
use compute_subnet::proof::verifier::check_openings;
use compute_subnet::proof::{Challenge, Work, sample_positions};
use compute_subnet::runtime::{ChildSpec, Handle, RuntimeMetrics, Tree, TreeConfig};
use compute_subnet::settings::Live;
use compute_subnet::store::{self, Role, Writer, WriterConfig};
use compute_subnet::telemetry::{BuildInfo, Labels, NodeMetrics};
use compute_subnet::wire::synapse::{ChallengeReply, ChallengeRequest, DeviceWork, OpeningsRequest};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::failures::side;
use crate::stand_in::StandIn;

const PROVER: &str = env!("CARGO_BIN_EXE_compute-prover");
/// Longer than any answer may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long openings are asked for: a validator's deadline, shortened.
const OPENING: Duration = Duration::from_millis(1500);
/// Between two requests.
const AGAIN: Duration = Duration::from_millis(50);
const SAMPLES: usize = 10;
const US: Hotkey = Hotkey([9; 32]);
const VALIDATOR: Hotkey = Hotkey([1; 32]);

fn encoded(frame: &Frame) -> Vec<u8> {
    frame.encode().unwrap()
}

pub(crate) fn work() -> Work {
    Work::new(64, 64, 1).unwrap()
}

/// What a miner has and allows.
pub(crate) struct Setup {
    pub(crate) gpu: bool,
    /// There is no prover at all.
    pub(crate) missing: bool,
    /// Where the driver should be is none.
    pub(crate) no_driver: bool,
    /// Time and memory of a child.
    pub(crate) time: Duration,
    pub(crate) memory_bytes: u64,
    /// The budget's.
    pub(crate) operations: u64,
    pub(crate) budget_bytes: u64,
    /// Memory of the device.
    pub(crate) device_bytes: u64,
    /// n and k of the first epoch's work, where it is not [`work`].
    pub(crate) first: Option<(u32, u32)>,
}

impl Setup {
    pub(crate) const ORDINARY: Setup = Setup {
        gpu: false,
        missing: false,
        no_driver: false,
        time: Duration::from_secs(30),
        memory_bytes: 1 << 30,
        operations: u64::MAX,
        budget_bytes: 1 << 32,
        device_bytes: 16 << 30,
        first: None,
    };

    fn device(&self) -> DeviceId {
        if self.gpu { DeviceId([3; 16]) } else { DeviceId::cpu(0) }
    }
}

/// A verdict, as the table has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) verdict: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) side: &'static str,
}

/// The miner.
pub(crate) struct Stage {
    device: DeviceId,
    first: Option<(u32, u32)>,
    proofs: Handle<ChallengeRunner>,
    dir: tempfile::TempDir,
    stand_in: StandIn,
    healing: Healing,
    _tree: Tree,
    _writer: Writer,
}

/// What the next epoch needs to be there.
struct Healing {
    no_driver: bool,
    memory_bytes: u64,
    setup: watch::Sender<Arc<ChallengeRunnerSetup>>,
}

fn prover(dir: &std::path::Path, stand_in: &StandIn, time: Duration, memory_bytes: u64) -> Arc<dyn Prover> {
    let limits = ProverLimits { time, memory_bytes, output_bytes: 1 << 20, threads: 1 };
    // What the miner's log says of its devices at the start is no proof.
    let told = format!("case \"$*\" in *report-cuda*) exec {PROVER} \"$@\";; esac");
    let script = format!("{told}; : > {0}/started; . {0}/mode", dir.display());
    let args = vec!["-c".into(), script.into(), "prover".into()];
    let child = ChildProver { args, ..ChildProver::new(dir.join("prover"), limits) };
    let cuda = CudaChild { cache: None, libraries: Some(stand_in.path().into()) };
    Arc::new(DeviceProver::new(Backend::Auto, child, cuda))
}

impl Stage {
    pub(crate) fn new(setup: &Setup) -> Self {
        let (dir, stand_in) = (tempfile::tempdir().unwrap(), StandIn::new());
        if !setup.missing {
            symlink("/bin/sh", dir.path().join("prover")).unwrap();
        }
        if setup.no_driver {
            // Neither name that this machine's own driver may have leads to one.
            for name in ["libcuda.so", "libcuda.so.1"] {
                std::fs::write(stand_in.path().join(name), "no library").unwrap();
            }
        }
        let clock: SharedClock = Arc::new(SystemClock);
        let registry = prometheus::Registry::new();
        let build = BuildInfo::of("miner");
        let metrics = NodeMetrics::register(&registry, &build, &Labels::default(), clock.clone()).unwrap();
        let opened = store::open(&dir.path().join("db"), Role::Miner, clock.now_ms()).unwrap();
        let writer = Writer::spawn(opened.db, WriterConfig::default()).unwrap();
        let mut tree = Tree::here(TreeConfig::default(), RuntimeMetrics::register(&registry).unwrap());
        let spec = |name| ChildSpec { name, mailbox: 64, after: &[], drain: Duration::from_millis(20) };
        let (journal, journal_seat) = tree.declare::<Journal>(spec("journal"));
        let (specs, specs_seat) = tree.declare::<SpecsCollector>(spec("specs_collector"));
        let (leases, leases_seat) = tree.declare::<AllocationManager>(spec("allocation_manager"));
        let (proofs, proofs_seat) = tree.declare::<ChallengeRunner>(spec("challenge_runner"));

        let (c, m, w) = (clock.clone(), metrics.clone(), writer.clone());
        tree.start(journal_seat, move |_| Journal::new(w.clone(), Role::Miner, c.clone(), m.clone())).unwrap();
        let (device, memory_bytes) = (setup.device(), setup.device_bytes);
        let collector = Arc::new(SpecsCollectorSetup {
            probe: Probe::default(),
            period: Duration::from_secs(3600),
            device_classes: Some(vec![OfferedDevice { device, model: "a model".into(), memory_bytes }]),
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        tree.start(specs_seat, move |_| SpecsCollector::new(collector.clone())).unwrap();
        let manager = Arc::new(AllocationSetup {
            hotkey: US,
            engine: Arc::new(SimulatedEngine::new(dir.path().join("engine.json"))),
            host: std::net::Ipv4Addr::LOCALHOST.into(),
            longest: Duration::from_secs(3600),
            period: Duration::from_secs(3600),
            engine_deadline: Duration::from_secs(60),
            health: HealthPolicy::default(),
            revival: RevivalPolicy::default(),
            rules: ReconcileRules::default(),
            specs: specs.clone(),
            offer: watch::channel(None).0,
            held: watch::channel(Vec::new()).0,
            duty: watch::Sender::new(Default::default()).subscribe(),
            journal: journal.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        tree.start(leases_seat, move |_| AllocationManager::new(Live::fixed(manager.clone()))).unwrap();
        let runner = Arc::new(ChallengeRunnerSetup {
            hotkey: US,
            prover: prover(dir.path(), &stand_in, setup.time, setup.memory_bytes),
            limits: BudgetLimits {
                ops_per_challenge: setup.operations,
                memory_bytes: setup.budget_bytes,
                prover_memory_bytes: setup.budget_bytes,
                time_per_window: Duration::from_secs(3600),
                challenges_per_hotkey_per_window: 10_000,
                window: Duration::from_secs(3600),
            },
            keep: Duration::from_secs(60),
            fill_timeout: Duration::from_secs(60),
            keep_memory: Duration::from_secs(60),
            keep_ready: Duration::from_secs(60),
            specs,
            allocations: leases,
            held: watch::channel(Vec::new()).1,
            view: watch::channel(None).1,
            journal,
            clock,
            metrics,
        });
        let (next, live) = watch::channel(runner);
        let live = Live::from_fn(move || live.borrow().clone());
        tree.start(proofs_seat, move |_| ChallengeRunner::new(live.clone())).unwrap();
        let healing = Healing { no_driver: setup.no_driver, memory_bytes: setup.memory_bytes, setup: next };
        Stage { device, first: setup.first, proofs, dir, stand_in, healing, _tree: tree, _writer: writer }
    }

    fn challenge(&self, epoch: u64) -> Challenge {
        let nonce = Hash32([epoch as u8; 32]);
        Challenge { nonce: nonce.0, epoch, hotkey: US, device: self.device, work: work() }
    }

    /// What the prover's shell does in epoch 1; nothing: it becomes the prover. The words that stand for more are put into their
    /// place here.
    pub(crate) async fn shell(&self, script: &str) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let honest = InProcessProver { threads: 1 }.commit(&self.challenge(1)).await.unwrap();
        let roots = honest.roots().to_vec();
        let two = vec![roots[0]; 2];
        std::fs::write(at("roots"), [frames::PROVER_HELLO.to_vec(), encoded(&Frame::Roots { roots })].concat())
            .unwrap();
        std::fs::write(at("two-roots"), encoded(&Frame::Roots { roots: two })).unwrap();
        let zeros = vec![0; SAMPLES * work().opening_len()];
        std::fs::write(at("zeros"), encoded(&Frame::Openings { bytes: zeros })).unwrap();
        let become_it = format!("exec {PROVER} \"$@\"");
        // A request to commit with the hello before it, and one to open.
        let commit =
            frames::HOST_HELLO.len() + encoded(&Frame::Commit { challenge: self.challenge(1), threads: 1 }).len();
        let open = 5 + 12 * SAMPLES;
        let once = format!("if [ -e {0} ]; then {become_it}; fi; : > {0};", at("once"));
        let script = script
            .replace("TWO_ROOTS", &format!("cat {}", at("two-roots")))
            .replace("ONCE", &once)
            .replace("HELLO", r"printf 'cproofP\001'")
            .replace("REQUEST", &format!("head -c {commit} > /dev/null"))
            .replace("OPENING", &format!("head -c {open} > /dev/null"))
            .replace("ROOTS", &format!("cat {}", at("roots")))
            .replace("ZEROS", &format!("cat {}", at("zeros")));
        std::fs::write(at("mode"), if script.is_empty() { become_it } else { script }).unwrap();
    }

    pub(crate) fn faults(&self, lines: &str) {
        self.stand_in.faults(lines);
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.stand_in.calls()
    }

    /// Whether a prover was started at all.
    pub(crate) fn was_started(&self) -> bool {
        self.dir.path().join("started").exists()
    }

    /// Whatever was wrong is so no longer. The miner goes on as it is; where its limits were to blame, they are raised as its
    /// operator would.
    pub(crate) async fn heal(&self) {
        if !self.dir.path().join("prover").exists() {
            symlink("/bin/sh", self.dir.path().join("prover")).unwrap();
        }
        if self.healing.no_driver {
            let fresh = StandIn::new();
            std::fs::remove_file(self.stand_in.path().join("libcuda.so.1")).unwrap();
            std::fs::copy(fresh.path().join("libcuda.so"), self.stand_in.path().join("libcuda.so")).unwrap();
        }
        self.faults("");
        self.shell("").await;
        if self.healing.memory_bytes < Setup::ORDINARY.memory_bytes {
            let Setup { time, memory_bytes, .. } = Setup::ORDINARY;
            let prover = prover(self.dir.path(), &self.stand_in, time, memory_bytes);
            self.healing.setup.send_modify(|setup| {
                let old = setup.as_ref();
                *setup = Arc::new(ChallengeRunnerSetup {
                    prover,
                    limits: old.limits,
                    hotkey: old.hotkey,
                    keep: old.keep,
                    fill_timeout: old.fill_timeout,
                    keep_memory: old.keep_memory,
                    keep_ready: old.keep_ready,
                    specs: old.specs.clone(),
                    allocations: old.allocations.clone(),
                    held: old.held.clone(),
                    view: old.view.clone(),
                    journal: old.journal.clone(),
                    clock: old.clock.clone(),
                    metrics: old.metrics.clone(),
                });
            });
        }
    }

    /// What a validator makes of this epoch, and the detail.
    pub(crate) async fn judged(&self, epoch: u64) -> (Judged, String) {
        let id = ChallengeId([epoch as u8; 16]);
        let mut challenge = self.challenge(epoch);
        if let Some((n, k)) = self.first.filter(|_| epoch == 1) {
            challenge.work = Work::new(n, k, 1).unwrap();
        }
        let Work { n, k, rounds } = challenge.work;
        let devices = vec![DeviceWork { device: self.device, n, k, rounds }];
        let nonce = Hash32(challenge.nonce);
        let request = ChallengeRequest { challenge: id, nonce, epoch, devices };
        // A miner that is busy with what came before is asked again.
        let until = Instant::now() + DEADLINE;
        let reply = loop {
            let request = request.clone();
            match self.proofs.ask(Prove { caller: VALIDATOR, request }, DEADLINE).await.unwrap() {
                ChallengeReply::Busy { .. } if Instant::now() < until => tokio::time::sleep(AGAIN).await,
                reply => break reply,
            }
        };
        if let Some(cause) = reply.unknown_cause() {
            let side = side(cause.side());
            return (Judged { verdict: "unknown", reason: cause.label(), side }, format!("{reply:?}"));
        }
        let ChallengeReply::Roots { devices } = reply else { panic!("{reply:?}") };
        let positions = sample_positions(&challenge.work, SAMPLES, &[7; 32]);
        let asked: Vec<[u32; 3]> = positions.iter().map(|p| [p.round, p.row, p.col]).collect();
        let until = Instant::now() + OPENING;
        // As the validator does: the same positions, until its deadline. What counts is what it hears last of a prover.
        let mut last = String::new();
        loop {
            let request = OpeningsRequest { challenge: id, device: self.device, positions: asked.clone() };
            match self.proofs.ask(Open { caller: VALIDATOR, request }, DEADLINE).await.unwrap() {
                Ok(openings) => {
                    return match check_openings(&challenge, &devices[0].roots, &positions, &openings) {
                        Ok(_) => (Judged { verdict: "pass", reason: "none", side: "–" }, String::new()),
                        Err(wrong) => {
                            let reason = wrong.reason.label();
                            (Judged { verdict: "fail", reason, side: "miner" }, wrong.detail)
                        }
                    };
                }
                Err(error @ OpenError::Prover(_)) => {
                    last = error.to_string();
                }
                Err(_) => {}
            }
            if Instant::now() >= until {
                return (Judged { verdict: "fail", reason: "opening_withheld", side: "miner" }, last);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
