//! The miner's rentals and proofs against callers that hurry, repeat, and come too late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix::System;
use async_trait::async_trait;
use tokio::sync::watch;

use super::allocation_manager::{AllocationManager, AllocationSetup};
use super::challenge_runner::{ChallengeRunner, ChallengeRunnerSetup};
use super::specs_collector::{SpecsCollector, SpecsCollectorSetup};
use crate::actors::journal::Journal;
use crate::clock::{SharedClock, SystemClock};
use crate::hardware::{OfferedDevice, Probe};
use crate::ids::{ChallengeId, DeviceId, Hash32, Hotkey, LeaseId};
use crate::lease::engine::{Contents, Deed};
use crate::lease::engine::{Faults, SimulatedEngine};
use crate::lease::health::HealthPolicy;
use crate::lease::reconcile::ReconcileRules;
use crate::lease::revival::RevivalPolicy;
use crate::lease::{
    Command, Container, ContainerEngine, ContainerSpec, ContainerState, EngineError, Grant, Lease, LeaseState,
    OwnerToken,
};
use crate::messages::chain_watcher::ChainView;
use crate::messages::miner::allocation_manager::{
    Allocate, AllocateMachine, ChangeError, ChangeMachine, LeaseStatus, ListLeases, ListSetAside, MachineHeard,
    MachineOffer, NotRented, Reconcile, Release, ReleaseMachine, RentedDevices,
};
use crate::messages::miner::challenge_runner::{Open, OpenError, Prove};
use crate::proof::budget::BudgetLimits;
use crate::proof::prover::{InProcessProver, Prover};
use crate::proof::verifier::check_openings;
use crate::proof::{Challenge, Position, Work};
use crate::runtime::{ChildSpec, Handle, RuntimeMetrics, Tree, TreeConfig};
use crate::settings::Live;
use crate::store::{self, Commit, CommitObserver, Role, Writer, WriterConfig};
use crate::telemetry::{BuildInfo, Labels, NodeMetrics};
use crate::wire::synapse::{
    AllocateReply, AllocateRequest, ChallengeRefusal, ChallengeReply, ChallengeRequest, DeviceWork, LeaseRefusal,
    LeaseStatusReply, LeaseStatusRequest, OpeningsRequest, ReleaseReply, ReleaseRequest,
};

mod changes;
mod memory;
mod readiness;
mod seeds;
mod unheard;

const DEADLINE: Duration = Duration::from_secs(10);
const A: Hotkey = Hotkey([1; 32]);
const B: Hotkey = Hotkey([2; 32]);

/// Where a node ends: at a call of its engine or a commit of its journal, before it happens or before the node hears that
/// it did. From then on nothing that the node calls answers, as if its process were gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Never,
    /// At the engine's call with this number, from 1.
    Engine {
        at: usize,
        after: bool,
    },
    /// Once the journal refuses, which [`journal_takes`] sets: what it refuses is not there for the next process.
    BeforeCommit,
    /// Once the commit with this number, from 1, is on disk.
    AfterCommit {
        at: usize,
    },
}

struct Crash {
    end: End,
    calls: AtomicUsize,
    commits: AtomicUsize,
    dead: watch::Sender<bool>,
    /// What the engine tells of changes.
    changes: watch::Sender<u64>,
}

impl Crash {
    fn never() -> Arc<Self> {
        Crash::at(End::Never)
    }
    fn at(end: End) -> Arc<Self> {
        Arc::new(Crash {
            end,
            calls: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
            dead: watch::Sender::new(false),
            changes: watch::Sender::new(0),
        })
    }
    async fn pass(&self, number: usize, after: bool) {
        if self.end == (End::Engine { at: number, after }) {
            self.dead.send_replace(true);
        }
        if *self.dead.borrow() {
            std::future::pending::<()>().await;
        }
    }
    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        let number = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        self.pass(number, false).await;
        let answer = call.await;
        self.pass(number, true).await;
        answer
    }
}

impl Crash {
    /// Hears of each commit of the journal before whoever waits for it does.
    fn committed(&self, commit: &Commit) {
        if !commit.durable {
            return;
        }
        let number = self.commits.fetch_add(1, Ordering::SeqCst) + 1;
        let refused = self.end == End::BeforeCommit && commit.failed > 0;
        if refused || self.end == (End::AfterCommit { at: number }) {
            self.dead.send_replace(true);
        }
    }
}

/// The engine of a node that ends at one of its calls. Looking is no call: it changes nothing.
struct Crashing {
    engine: SimulatedEngine,
    crash: Arc<Crash>,
}

#[async_trait]
impl ContainerEngine for Crashing {
    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        self.engine.list().await
    }
    async fn create(&self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        self.crash.call(self.engine.create(spec)).await
    }
    async fn destroy(&self, lease: LeaseId, epoch: u64) -> Result<bool, EngineError> {
        self.crash.call(self.engine.destroy(lease, epoch)).await
    }
    async fn pause(&self, lease: LeaseId, epoch: u64) -> Result<Container, EngineError> {
        self.crash.call(self.engine.pause(lease, epoch)).await
    }
    async fn unpause(&self, lease: LeaseId, epoch: u64) -> Result<Container, EngineError> {
        self.crash.call(self.engine.unpause(lease, epoch)).await
    }
    async fn restart(&self, lease: LeaseId, epoch: u64) -> Result<Container, EngineError> {
        self.crash.call(self.engine.restart(lease, epoch)).await
    }
    async fn grant(&self, lease: LeaseId, epoch: u64, grant: &Grant) -> Result<(), EngineError> {
        self.crash.call(self.engine.grant(lease, epoch, grant)).await
    }
    async fn available(&self) -> Result<(), EngineError> {
        self.engine.available().await
    }
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.crash.changes.subscribe())
    }
}

struct Miner {
    offer: watch::Receiver<Option<MachineOffer>>,
    specs: Handle<SpecsCollector>,
    engine: SimulatedEngine,
    leases: Handle<AllocationManager>,
    proofs: Handle<ChallengeRunner>,
    clock: SharedClock,
    tree: Tree,
    writer: Writer,
    dir: tempfile::TempDir,
}

/// Challenges of one validator in a window.
const PER_WINDOW: u32 = 100;

fn work() -> Work {
    Work::new(32, 64, 1).unwrap()
}

fn miner() -> Miner {
    miner_in(tempfile::tempdir().unwrap(), Crash::never())
}

fn miner_in(dir: tempfile::TempDir, crash: Arc<Crash>) -> Miner {
    miner_like(dir, crash, |_| {})
}

/// A miner whose proofs run with another setup.
fn miner_like(dir: tempfile::TempDir, crash: Arc<Crash>, change: impl FnOnce(&mut ChallengeRunnerSetup)) -> Miner {
    // It compares only when told, or after a step.
    miner_with(dir, crash, Duration::from_secs(3600), change)
}

/// The same, which compares leases and engine every period.
fn miner_with(
    dir: tempfile::TempDir,
    crash: Arc<Crash>,
    period: Duration,
    change: impl FnOnce(&mut ChallengeRunnerSetup),
) -> Miner {
    let clock: SharedClock = Arc::new(SystemClock);
    let registry = prometheus::Registry::new();
    let metrics = NodeMetrics::register(&registry, &BuildInfo::of("miner"), &Labels::default(), clock.clone()).unwrap();
    let opened = store::open(&dir.path().join("db"), Role::Miner, clock.now_ms()).unwrap();
    let observer = {
        let crash = crash.clone();
        Some(Arc::new(move |commit: &Commit| crash.committed(commit)) as CommitObserver)
    };
    let writer = Writer::spawn(opened.db, WriterConfig { observer, ..WriterConfig::default() }).unwrap();
    let engine = SimulatedEngine::new(dir.path().join("engine.json"));

    let mut tree = Tree::here(TreeConfig::default(), RuntimeMetrics::register(&registry).unwrap());
    let spec = |name| ChildSpec { name, mailbox: 64, after: &[], drain: Duration::from_millis(20) };
    let (journal, journal_seat) = tree.declare::<Journal>(spec("journal"));
    let (specs, specs_seat) = tree.declare::<SpecsCollector>(spec("specs_collector"));
    let (leases, leases_seat) = tree.declare::<AllocationManager>(spec("allocation_manager"));
    let (proofs, proofs_seat) = tree.declare::<ChallengeRunner>(spec("challenge_runner"));

    let (c, m, w) = (clock.clone(), metrics.clone(), writer.clone());
    tree.start(journal_seat, move |_| Journal::new(w.clone(), Role::Miner, c.clone(), m.clone())).unwrap();
    let device = |n| OfferedDevice { device: DeviceId::cpu(n), model: "cpu-1".into(), memory_bytes: 0 };
    let setup = Arc::new(SpecsCollectorSetup {
        probe: Probe::default(),
        period: Duration::from_secs(3600),
        device_classes: Some(vec![device(0), device(1)]),
        clock: clock.clone(),
        metrics: metrics.clone(),
    });
    tree.start(specs_seat, move |_| SpecsCollector::new(setup.clone())).unwrap();
    let (offer, offered) = watch::channel(None);
    let (hold, held) = watch::channel(Vec::new());
    let setup = Arc::new(AllocationSetup {
        hotkey: Hotkey([9; 32]),
        engine: Arc::new(Crashing { engine: engine.clone(), crash }),
        host: std::net::Ipv4Addr::LOCALHOST.into(),
        longest: Duration::from_secs(3600),
        period,
        engine_deadline: Duration::from_secs(60),
        health: HealthPolicy::default(),
        revival: RevivalPolicy::default(),
        rules: ReconcileRules::default(),
        specs: specs.clone(),
        offer,
        held: hold,
        duty: tokio::sync::watch::Sender::new(Default::default()).subscribe(),
        journal: journal.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    });
    tree.start(leases_seat, move |_| AllocationManager::new(Live::fixed(setup.clone()))).unwrap();
    let mut setup = ChallengeRunnerSetup {
        hotkey: Hotkey([9; 32]),
        prover: Arc::new(InProcessProver { threads: 1 }),
        limits: BudgetLimits {
            ops_per_challenge: u64::MAX,
            memory_bytes: work().memory_bytes() * 3 / 2,
            prover_memory_bytes: work().memory_bytes(),
            time_per_window: Duration::from_secs(3600),
            challenges_per_hotkey_per_window: PER_WINDOW,
            window: Duration::from_secs(3600),
        },
        keep: Duration::from_secs(60),
        fill_timeout: Duration::from_secs(30),
        keep_memory: Duration::from_secs(30),
        keep_ready: Duration::from_secs(30),
        specs: specs.clone(),
        allocations: leases.clone(),
        held,
        view: watch::channel(None).1,
        journal,
        clock: clock.clone(),
        metrics,
    };
    change(&mut setup);
    let setup = Arc::new(setup);
    tree.start(proofs_seat, move |_| ChallengeRunner::new(Live::fixed(setup.clone()))).unwrap();
    Miner { offer: offered, specs, engine, leases, proofs, clock, tree, writer, dir }
}

fn token() -> OwnerToken {
    OwnerToken::from_bytes([7; 32])
}

impl Miner {
    /// Until leases and engine have been compared for the first time.
    async fn ready(&self) {
        tokio::time::timeout(DEADLINE, async {
            while let AllocateReply::Refused { reason: LeaseRefusal::Degraded, .. } =
                self.leases.ask(self.allocate(99, &[]), DEADLINE).await.unwrap()
            {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the first comparison is made in time");
    }

    fn allocate(&self, id: u8, devices: &[u8]) -> Allocate {
        Allocate {
            caller: A,
            request: AllocateRequest {
                lease: LeaseId([id; 16]),
                fencing_epoch: 1,
                expires_at_ms: self.clock.now_ms() + 60_000,
                renter: A,
                image: "ubuntu".into(),
                ssh_key: "ssh-ed25519 AAAA renter".into(),
                devices: devices.iter().map(|n| DeviceId::cpu(*n)).collect(),
                owner_token: token(),
                reply_key: None,
            },
        }
    }

    /// Ends all actors and the writer, and starts new ones on the same files.
    async fn restarted(self) -> Miner {
        self.restarted_with(Crash::never()).await
    }

    async fn restarted_with(self, crash: Arc<Crash>) -> Miner {
        let Miner { tree, writer, dir, .. } = self;
        tree.run(async {}).await;
        writer.shutdown(DEADLINE).await.unwrap();
        let next = miner_in(dir, crash);
        next.ready().await;
        next
    }

    /// Asks for openings as a validator does: again until they come, or an error that is final.
    async fn opened(&self, caller: Hotkey, id: u8) -> Result<Vec<u8>, OpenError> {
        tokio::time::timeout(DEADLINE, async {
            loop {
                match self.open(caller, id, 66).await {
                    Err(OpenError::Busy) => tokio::time::sleep(Duration::from_millis(5)).await,
                    other => return other,
                }
            }
        })
        .await
        .expect("an answer in time")
    }

    async fn release(&self, id: u8) -> ReleaseReply {
        let request = ReleaseRequest { lease: LeaseId([id; 16]), fencing_epoch: 1, owner_token: token() };
        self.leases.ask(Release { caller: A, request }, DEADLINE).await.unwrap()
    }

    async fn status(&self, id: u8) -> LeaseStatusReply {
        let request = LeaseStatusRequest {
            lease: LeaseId([id; 16]),
            fencing_epoch: 1,
            owner_token: token(),
            receipt: None,
            reply_key: None,
            expires_at_ms: None,
        };
        self.leases.ask(LeaseStatus { caller: A, request }, DEADLINE).await.unwrap()
    }

    async fn prove(&self, caller: Hotkey, id: u8) -> ChallengeReply {
        let devices = vec![DeviceWork { device: DeviceId::cpu(0), n: 32, k: 64, rounds: 1 }];
        let request =
            ChallengeRequest { challenge: ChallengeId([id; 16]), nonce: Hash32([id; 32]), epoch: id.into(), devices };
        self.proofs.ask(Prove { caller, request }, DEADLINE).await.unwrap()
    }

    async fn open(&self, caller: Hotkey, id: u8, positions: usize) -> Result<Vec<u8>, OpenError> {
        let (challenge, device) = (ChallengeId([id; 16]), DeviceId::cpu(0));
        let request = OpeningsRequest { challenge, device, positions: vec![[0, 0, 0]; positions] };
        self.proofs.ask(Open { caller, request }, DEADLINE).await.unwrap()
    }
}

impl Miner {
    async fn rent_machine(&self, caller: Hotkey, key: &str) -> Result<Lease, NotRented> {
        let owner_token = OwnerToken::of_public_key(key);
        let lasts = Duration::from_secs(u64::MAX / 1_000);
        let mut lease = LeaseId([0; 16]);
        getrandom::fill(&mut lease.0).unwrap();
        let wish = AllocateMachine { caller, lease, owner_token, ssh_key: None, image: String::new(), lasts };
        let reply = self.leases.ask(wish, DEADLINE).await.unwrap();
        if reply.is_ok() {
            self.leases.ask(MachineHeard { caller, lease }, DEADLINE).await.unwrap().unwrap();
        }
        reply
    }

    async fn return_machine(&self, caller: Hotkey, key: &str) -> ReleaseReply {
        let owner_token = OwnerToken::of_public_key(key);
        self.leases.ask(ReleaseMachine { caller, owner_token }, DEADLINE).await.unwrap()
    }

    async fn change_machine(&self, caller: Hotkey, key: &str, command: Command) -> Result<LeaseState, ChangeError> {
        let owner_token = OwnerToken::of_public_key(key);
        let changed = self.leases.ask(ChangeMachine { caller, owner_token, command }, DEADLINE).await.unwrap();
        changed.map(|lease| lease.state)
    }

    fn offered(&self) -> MachineOffer {
        self.offer.borrow().clone().expect("an offer is published after the first comparison")
    }
}

fn run(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

#[test]
fn a_lease_that_is_still_being_made_is_neither_unknown_nor_free_to_prove() {
    run(async {
        let miner = miner();
        miner.ready().await;
        miner.engine.set_faults(Faults { delay: Duration::from_millis(300), ..Faults::default() });
        let making = async { miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap() };
        let meanwhile = async {
            tokio::task::yield_now().await;
            let rented = miner.leases.ask(RentedDevices, DEADLINE).await.unwrap();
            assert_eq!(rented, vec![(DeviceId::cpu(0), LeaseId([1; 16]))]);
            let released = miner.release(1).await;
            assert!(matches!(released, ReleaseReply::Refused { .. }), "{released:?}");
            let status = miner.status(1).await;
            assert!(matches!(status, LeaseStatusReply::Refused { .. }), "{status:?}");
        };
        let (made, ()) = tokio::join!(making, meanwhile);
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
        miner.engine.set_faults(Faults::default());
        assert_eq!(miner.release(1).await, ReleaseReply::Released);
        assert!(miner.engine.list().await.unwrap().is_empty());
        assert!(miner.leases.ask(RentedDevices, DEADLINE).await.unwrap().is_empty());
    });
}

#[test]
fn a_request_that_comes_after_its_own_release_makes_nothing() {
    run(async {
        let miner = miner();
        miner.ready().await;
        assert_eq!(miner.release(1).await, ReleaseReply::UnknownLease);
        let late = miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap();
        assert!(matches!(late, AllocateReply::Refused { reason: LeaseRefusal::Other, .. }), "{late:?}");
        assert!(miner.engine.list().await.unwrap().is_empty());
        let other = miner.leases.ask(miner.allocate(2, &[0]), DEADLINE).await.unwrap();
        assert!(matches!(other, AllocateReply::Running { .. }), "{other:?}");
    });
}

#[test]
fn a_comparison_during_a_release_neither_ends_it_nor_lets_a_second_one_in() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let made = miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap();
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
        // The list is asked for first and answered while the release is under way.
        miner.engine.set_faults(Faults { delay: Duration::from_millis(200), ..Faults::default() });
        miner.leases.tell(Reconcile).unwrap();
        let (first, second) = tokio::join!(miner.release(1), async {
            tokio::time::sleep(Duration::from_millis(250)).await;
            miner.release(1).await
        });
        assert_eq!(first, ReleaseReply::Released);
        assert!(matches!(second, ReleaseReply::Refused { .. } | ReleaseReply::Released), "{second:?}");
        assert!(miner.leases.ask(ListLeases, DEADLINE).await.unwrap().is_empty());
        // Nothing was set aside on account of the list that was made before the release.
        let again = miner.leases.ask(miner.allocate(2, &[0]), DEADLINE).await.unwrap();
        assert!(matches!(again, AllocateReply::Running { .. }), "{again:?}");
        let leases = miner.leases.ask(ListLeases, DEADLINE).await.unwrap();
        assert_eq!(leases.iter().map(|l| l.state).collect::<Vec<_>>(), [LeaseState::Running]);
    });
}

#[test]
fn commitments_that_are_kept_count_against_the_memory_and_a_callers_new_one_takes_the_place_of_its_last() {
    run(async {
        let miner = miner();
        miner.ready().await;
        assert!(matches!(miner.prove(A, 1).await, ChallengeReply::Roots { .. }));
        let other = miner.prove(B, 1).await;
        assert!(matches!(other, ChallengeReply::Busy { .. }), "there is room for one and a half: {other:?}");
        assert!(miner.open(A, 1, 66).await.is_ok());
        assert!(matches!(miner.prove(A, 2).await, ChallengeReply::Roots { .. }));
        assert_eq!(miner.open(A, 1, 66).await, Err(OpenError::Unknown));
        assert_eq!(miner.open(B, 2, 66).await, Err(OpenError::Unknown), "it is another's");
        assert!(miner.open(A, 2, 66).await.is_ok());
    });
}

#[test]
fn a_challenge_without_room_costs_its_caller_nothing_and_has_room_when_the_others_commitment_was_opened() {
    run(async {
        let miner = miner();
        miner.ready().await;
        assert!(matches!(miner.prove(A, 1).await, ChallengeReply::Roots { .. }));
        // As often as a caller may challenge in a window, and once more.
        for _ in 0..=PER_WINDOW {
            let waits = miner.prove(B, 1).await;
            assert!(matches!(waits, ChallengeReply::Busy { .. }), "A's commitment was not opened yet: {waits:?}");
        }
        assert!(miner.open(A, 1, 66).await.is_ok());
        let roots = miner.prove(B, 1).await;
        assert!(matches!(roots, ChallengeReply::Roots { .. }), "{roots:?}");
        assert_eq!(miner.open(A, 1, 66).await, Err(OpenError::Busy), "B's is there now, and was not opened");
        assert!(miner.open(B, 1, 66).await.is_ok());
    });
}

#[test]
fn a_commitment_is_not_opened_without_end() {
    run(async {
        let miner = miner();
        miner.ready().await;
        assert!(matches!(miner.prove(A, 1).await, ChallengeReply::Roots { .. }));
        let mut opened = 0;
        while miner.open(A, 1, 1024).await.is_ok() {
            opened += 1;
            assert!(opened <= 16, "16 × 1,024 positions are the limit");
        }
        assert!(matches!(miner.open(A, 1, 1024).await, Err(OpenError::Positions(_))));
        assert_eq!(opened, 16);
    });
}

#[test]
fn a_validator_has_one_challenge_an_epoch() {
    run(async {
        let miner = miner();
        miner.ready().await;
        assert!(matches!(miner.prove(A, 1).await, ChallengeReply::Roots { .. }));
        let again = miner.prove(A, 1).await;
        let reason = ChallengeRefusal::AlreadyChallenged;
        assert!(matches!(&again, ChallengeReply::Refused { reason: r, .. } if *r == reason), "{again:?}");
        assert!(miner.open(A, 1, 66).await.is_ok(), "the commitment is still there");
        assert!(matches!(miner.prove(A, 2).await, ChallengeReply::Roots { .. }), "the next epoch's");
    });
}

#[test]
fn a_miner_that_was_restarted_between_roots_and_openings_opens_the_same_commitment() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let ChallengeReply::Roots { devices } = miner.prove(A, 1).await else { panic!("no roots") };
        let miner = miner.restarted().await;
        assert_eq!(miner.open(A, 1, 66).await, Err(OpenError::Busy), "it is made again");
        let bytes = miner.opened(A, 1).await.unwrap();
        // What the validator does with the roots it got from the process before.
        let challenge =
            Challenge { nonce: [1; 32], epoch: 1, hotkey: Hotkey([9; 32]), device: DeviceId::cpu(0), work: work() };
        let positions = vec![Position { round: 0, row: 0, col: 0 }; 66];
        check_openings(&challenge, &devices[0].roots, &positions, &bytes).unwrap();
        // Nobody else's, no other challenge, and not what was never asked.
        assert_eq!(miner.opened(B, 1).await, Err(OpenError::Unknown));
        assert_eq!(miner.opened(A, 2).await, Err(OpenError::Unknown));
        // It is kept again, and the next challenge takes its place here as on record.
        assert_eq!(miner.open(A, 1, 66).await.unwrap(), bytes);
        assert!(matches!(miner.prove(A, 2).await, ChallengeReply::Roots { .. }));
        let miner = miner.restarted().await;
        assert_eq!(miner.opened(A, 1).await, Err(OpenError::Unknown));
        assert!(miner.opened(A, 2).await.is_ok());
    });
}

/// What a validator does with a lease.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wish {
    Rent,
    Release,
}

impl Miner {
    /// Carries out the wish until the node dies at it, or until it is answered and the answer is lost.
    async fn attempt(&self, wish: Wish, crash: &Crash) {
        let mut dead = crash.dead.subscribe();
        let call = async {
            match wish {
                Wish::Rent => drop(self.leases.ask(self.allocate(1, &[0]), DEADLINE).await),
                Wish::Release => drop(self.release(1).await),
            }
        };
        tokio::select! {
            () = call => {}
            _ = dead.wait_for(|dead| *dead) => {}
        }
    }

    /// What the validator hears in the end, asking again as it does.
    async fn settled(&self, wish: Wish) {
        tokio::time::timeout(DEADLINE, async {
            loop {
                let done = match wish {
                    Wish::Rent => {
                        let reply = self.leases.ask(self.allocate(1, &[0]), DEADLINE).await.unwrap();
                        matches!(reply, AllocateReply::Running { .. })
                    }
                    Wish::Release => {
                        let reply = self.release(1).await;
                        if reply == ReleaseReply::Released {
                            assert_eq!(self.engine.list().await.unwrap(), [], "released is said when it is so");
                        }
                        reply == ReleaseReply::Released
                    }
                };
                if done {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{wish:?} is not settled: {:?}", self.engine.path()));
    }

    fn deeds(&self) -> Vec<Deed> {
        Contents::read(self.engine.path()).unwrap().history.done.iter().map(|d| d.deed).collect()
    }
}

#[test]
fn a_miner_that_ends_at_any_step_of_a_lease_finishes_it_once_and_loses_nothing() {
    // Steps of a rental: intent written, container made, start written, answer; of a release the same. Between any two of
    // them lies a call of the engine or an answer, so these are all the places a process can end at; `None` loses the answer.
    let places = [Some(false), Some(true), None];
    for (wish, place) in [Wish::Rent, Wish::Release].into_iter().flat_map(|w| places.map(|p| (w, p))) {
        run(async {
            let crash = place.map_or_else(Crash::never, |after| Crash::at(End::Engine { at: 1, after }));
            let mut miner = miner_in(tempfile::tempdir().unwrap(), Crash::never());
            miner.ready().await;
            if wish == Wish::Release {
                miner.settled(Wish::Rent).await;
            }
            miner = miner.restarted_with(crash.clone()).await;
            let running = miner.engine.list().await.unwrap();
            miner.attempt(wish, &crash).await;
            assert_eq!(*crash.dead.borrow(), place.is_some(), "{wish:?} {place:?}");
            if wish == Wish::Rent {
                assert!(running.is_empty());
            }

            miner = miner.restarted().await;
            miner.settled(wish).await;
            // A second start changes nothing more.
            miner = miner.restarted().await;
            let (deeds, containers) = (miner.deeds(), miner.engine.list().await.unwrap());
            let rented = miner.leases.ask(RentedDevices, DEADLINE).await.unwrap();
            match wish {
                Wish::Rent => {
                    assert_eq!(deeds, [Deed::Created], "{place:?}");
                    assert_eq!(containers.len(), 1);
                    assert_eq!(rented, [(DeviceId::cpu(0), LeaseId([1; 16]))]);
                }
                Wish::Release => {
                    assert_eq!(deeds, [Deed::Created, Deed::Destroyed], "{place:?}");
                    assert_eq!(rented, []);
                    // A late repeat of the request makes nothing, although the lease ended before this start.
                    let late = miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap();
                    assert!(matches!(late, AllocateReply::Refused { .. }), "{late:?}");
                    assert_eq!(miner.deeds(), [Deed::Created, Deed::Destroyed]);
                }
            }
            assert!(miner.leases.ask(ListSetAside, DEADLINE).await.unwrap().is_empty());
        });
    }
}

#[test]
fn a_container_that_no_record_explains_is_listed_with_the_time_until_which_it_is_kept() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let now = miner.clock.now_ms();
        let spec = ContainerSpec {
            lease: LeaseId([8; 16]),
            fencing_epoch: 3,
            expires_at_ms: now + 60_000,
            renter: B,
            devices: vec![DeviceId::cpu(1)],
            ssh_public_key: None,
            image: String::new(),
        };
        miner.engine.create(&spec).await.unwrap();
        let miner = miner.restarted().await;
        let aside = miner.leases.ask(ListSetAside, DEADLINE).await.unwrap();
        assert_eq!(aside.len(), 1, "{aside:?}");
        assert_eq!((aside[0].lease, aside[0].fencing_epoch, aside[0].renter), (spec.lease, 3, B));
        assert_eq!(aside[0].until_ms, spec.expires_at_ms + ReconcileRules::default().orphan_grace.as_millis() as u64);
        let refused = miner.leases.ask(miner.allocate(2, &[1]), DEADLINE).await.unwrap();
        assert!(matches!(refused, AllocateReply::Refused { reason: LeaseRefusal::DeviceBusy, .. }), "{refused:?}");
    });
}

#[test]
fn the_machine_is_offered_and_rented_as_a_whole_or_not_at_all() {
    run(async {
        let miner = miner();
        assert_eq!(*miner.offer.borrow(), None);
        miner.ready().await;
        let free = MachineOffer { free: true, running: vec![] };
        assert_eq!(miner.offered(), free);

        let one = miner.leases.ask(miner.allocate(1, &[1]), DEADLINE).await.unwrap();
        assert!(matches!(one, AllocateReply::Running { .. }), "{one:?}");
        assert_eq!(miner.offered(), MachineOffer { free: false, running: vec![token().digest()] });
        let whole = miner.rent_machine(A, "key").await;
        assert!(matches!(whole, Err(NotRented { reason: LeaseRefusal::DeviceBusy, .. })), "{whole:?}");
        assert_eq!(miner.release(1).await, ReleaseReply::Released);
        assert_eq!(miner.offered(), free);

        // Both at once: one of them has it.
        let (first, second) = tokio::join!(miner.rent_machine(A, "key"), miner.rent_machine(B, "other key"));
        assert!(first.is_ok(), "{first:?}");
        assert!(matches!(second, Err(NotRented { reason: LeaseRefusal::DeviceBusy, .. })), "{second:?}");
        let leases = miner.leases.ask(ListLeases, DEADLINE).await.unwrap();
        assert_eq!((leases.len(), &leases[0].devices), (1, &vec![DeviceId::cpu(0), DeviceId::cpu(1)]));
        let latest = miner.clock.now_ms() + 3_600_000;
        assert!((latest - 10_000..=latest).contains(&leases[0].expires_at_ms), "{leases:?}");
        let digest = OwnerToken::of_public_key("key").digest();
        assert_eq!(miner.offered(), MachineOffer { free: false, running: vec![digest] });

        assert_eq!(miner.return_machine(B, "key").await, ReleaseReply::UnknownLease);
        assert_eq!(miner.return_machine(A, "other key").await, ReleaseReply::UnknownLease);
        assert_eq!(miner.change_machine(B, "key", Command::Pause).await, Err(ChangeError::Unknown));
        assert_eq!(miner.change_machine(A, "other key", Command::Pause).await, Err(ChangeError::Unknown));
        assert_eq!(miner.return_machine(A, "key").await, ReleaseReply::Released);
        assert_eq!(miner.offered(), free);
    });
}

#[test]
fn a_pause_that_the_engine_did_not_hear_of_is_made_later_and_a_restart_keeps_it() {
    run(async {
        let miner = miner();
        miner.ready().await;
        let made = miner.rent_machine(A, "key").await;
        assert!(made.is_ok(), "{made:?}");
        let state = async |miner: &Miner| miner.engine.list().await.unwrap().first().map(|container| container.state);
        miner.engine.set_faults(Faults { unavailable: true, ..Faults::default() });
        let paused = miner.change_machine(A, "key", Command::Pause).await;
        assert!(matches!(paused, Err(ChangeError::NotDone(_))), "{paused:?}");
        miner.engine.set_faults(Faults::default());
        assert_eq!(state(&miner).await, Some(ContainerState::Running));
        assert_eq!(miner.offered().running, vec![], "it is paused on record");

        let miner = miner.restarted().await;
        tokio::time::timeout(DEADLINE, async {
            while state(&miner).await != Some(ContainerState::Paused) {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("the comparison pauses it");
        assert_eq!(miner.change_machine(A, "key", Command::Unpause).await, Ok(LeaseState::Running));
        assert_eq!(state(&miner).await, Some(ContainerState::Running));
        assert_eq!(miner.offered().running, vec![OwnerToken::of_public_key("key").digest()]);
        assert_eq!(miner.return_machine(A, "key").await, ReleaseReply::Released);
        assert_eq!(state(&miner).await, None);
    });
}
