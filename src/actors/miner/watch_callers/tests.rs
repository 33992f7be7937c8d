//! Floods at the axon, with a guard and a journal behind it.

use std::time::Duration;

use actix::System;

use super::*;
use crate::actors::blacklist_guard::BlacklistGuardSetup;
use crate::actors::journal::Journal;
use crate::admission::{Decision, Need, Policy, Refusal, admit_address, admit_caller};
use crate::chain::{BlockHead, EpochClock, Hyperparameters, Metagraph, Neuron};
use crate::clock::{Clock as _, ManualClock};
use crate::ids::{Hash32, Hotkey, Netuid};
use crate::messages::blacklist_guard::Lift;
use crate::messages::chain_watcher::{ChainView, NewBlock};
use crate::messages::journal::{PenaltiesAt, Write};
use crate::runtime::{ChildSpec, RuntimeMetrics, Tree, TreeConfig};
use crate::store::{self, Record, Role, Writer, WriterConfig};
use crate::telemetry::{BuildInfo, Labels};

const LONG: Duration = Duration::from_secs(10);
const NOW_MS: u64 = 1_800_000_000_000;
const VICTIM: Hotkey = Hotkey([7; 32]);
const LIMITS: AnomalyLimits =
    AnomalyLimits { window_ms: 60_000, bad_signatures: 20, replays: 5, malformed: 3, penalty_ms: 900_000 };
/// As a peer that came in over IPv6.
const ATTACKER: &str = "::ffff:203.0.113.9";

/// What of a miner has to do with penalties.
struct Node {
    watch: WatchCallers,
    guard: Handle<BlacklistGuard>,
    journal: Handle<Journal>,
    snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
    clock: Arc<ManualClock>,
    tree: Tree,
    writer: Writer,
    dir: tempfile::TempDir,
}

fn view() -> Arc<ChainView> {
    let victim = Neuron { hotkey: VICTIM, validator_permit: true, ..Neuron::idle(0) };
    let head = BlockHead { number: 10, hash: Hash32([0; 32]), timestamp_ms: 0 };
    let netuid = Netuid(1);
    let metagraph = Metagraph { netuid, head, epochs: EpochClock::Modulo { netuid, tempo: 5 }, neurons: vec![victim] };
    Arc::new(ChainView::new(Arc::new(metagraph), Arc::new(Hyperparameters::default()), 10))
}

async fn node() -> Node {
    node_in(tempfile::tempdir().unwrap(), Arc::new(ManualClock::at_ns(NOW_MS * 1_000_000))).await
}

async fn node_in(dir: tempfile::TempDir, clock: Arc<ManualClock>) -> Node {
    let registry = prometheus::Registry::new();
    let metrics = NodeMetrics::register(&registry, &BuildInfo::of("miner"), &Labels::default(), clock.clone()).unwrap();
    let opened = store::open(&dir.path().join("db"), Role::Miner, clock.now_ms()).unwrap();
    let writer = Writer::spawn(opened.db, WriterConfig::default()).unwrap();
    let mut tree = Tree::here(TreeConfig::default(), RuntimeMetrics::register(&registry).unwrap());
    let spec = |name| ChildSpec { name, mailbox: 64, after: &[], drain: Duration::from_millis(20) };
    let (journal, journal_seat) = tree.declare::<Journal>(spec("journal"));
    let (guard, guard_seat) = tree.declare::<BlacklistGuard>(spec("blacklist_guard"));
    let (c, m, w) = (clock.clone(), metrics.clone(), writer.clone());
    tree.start(journal_seat, move |_| Journal::new(w.clone(), Role::Miner, c.clone(), m.clone())).unwrap();
    let (sender, snapshot) = watch::channel(None);
    let setup = Arc::new(BlacklistGuardSetup {
        hotkey: Hotkey([99; 32]),
        policy: Live::fixed(Arc::new(Policy { min_stake_rao: 0, ..Policy::default() })),
        records_neurons: false,
        snapshot: sender,
        journal: journal.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    });
    tree.start(guard_seat, move |_| BlacklistGuard::new(setup.clone())).unwrap();
    let watch = WatchCallers::new(WatchCallersSetup {
        own: vec!["198.51.100.7".parse().unwrap()],
        limits: Live::fixed(LIMITS),
        guard: guard.clone(),
        snapshot: snapshot.clone(),
        clock: clock.clone(),
        metrics,
    });
    let mut node = Node { watch, guard, journal, snapshot, clock, tree, writer, dir };
    node.guard.ask(NewBlock(view()), LONG).await.unwrap();
    tokio::time::timeout(LONG, node.snapshot.wait_for(Option::is_some)).await.expect("a snapshot in time").unwrap();
    node
}

impl Node {
    /// So many requests that ended like this. A `caller` is what the axon proved, never what a header says.
    fn seen(&self, count: usize, outcome: AxonOutcome, caller: Option<&Hotkey>, peer: &str) {
        let request = RequestSeen { path: "/Challenge", outcome, caller, body_signed: true, peer: peer.parse().ok() };
        (0..count).for_each(|_| self.watch.request(request));
    }

    /// What is on disk and in force, once everything that was told is done.
    async fn penalties(&self) -> Vec<PenaltyRecord> {
        // The guard does one thing after the other, and so does the writer: what was told before this is done after it.
        self.guard.ask(NewBlock(view()), LONG).await.unwrap();
        let last = Record::Meta { key: "last".into(), value: "written".into() };
        self.journal.ask(Write(vec![last]), LONG).await.unwrap().unwrap();
        self.journal.ask(PenaltiesAt(self.clock.now_ms()), LONG).await.unwrap().unwrap()
    }

    fn address(&self, ip: &str) -> Result<(), Refusal> {
        admit_address(self.snapshot.borrow().as_deref(), self.clock.now_ms(), ip.parse().unwrap())
    }

    fn victim(&self) -> Decision {
        let policy = Policy { min_stake_rao: 0, ..Policy::default() };
        let snapshot = self.snapshot.borrow().clone();
        admit_caller(&policy, snapshot.as_deref(), self.clock.now_ms(), LONG * 1000, &VICTIM, Need::Validator)
    }

    async fn restarted(self) -> Node {
        let Node { tree, writer, dir, clock, .. } = self;
        tree.run(async {}).await;
        writer.shutdown(LONG).await.unwrap();
        node_in(dir, clock).await
    }
}

fn run(test: impl Future<Output = ()>) {
    System::new().block_on(test);
}

#[test]
fn a_flood_of_bad_signatures_in_a_victims_name_penalises_the_address_and_never_the_hotkey() {
    run(async {
        let node = node().await;
        // The headers name the victim; no signature holds, so nobody is proved.
        node.seen(1000, AxonOutcome::BadSignature, None, ATTACKER);
        // And even where a proved hotkey comes with an outcome that is not its doing, as with its replayed request.
        node.seen(1000, AxonOutcome::ReplayedRequest, Some(&VICTIM), "2001:db8::6");
        let penalties = node.penalties().await;
        let told: Vec<_> = penalties.iter().map(|p| (p.subject.to_string(), p.reason.as_str())).collect();
        assert_eq!(told, [("2001:db8::/64".to_owned(), "replays"), ("203.0.113.9".to_owned(), "bad_signatures")]);
        let (from_ms, until_ms) = (NOW_MS, NOW_MS + LIMITS.penalty_ms);
        assert!(penalties.iter().all(|p| (p.from_ms, p.until_ms) == (from_ms, until_ms)), "{penalties:?}");
        assert_eq!(penalties[1].detail, "more than 20 requests whose authentication does not hold within 1m");

        assert_eq!(node.address("203.0.113.9"), Err(Refusal::PenalisedAddress { until_ms }));
        assert_eq!(node.address("2001:db8::1234"), Err(Refusal::PenalisedAddress { until_ms }));
        assert_eq!(node.address("203.0.113.10"), Ok(()));
        assert!(node.victim().is_admitted(), "{:?}", node.victim());
        node.clock.advance(Duration::from_millis(LIMITS.penalty_ms));
        assert_eq!(node.address("203.0.113.9"), Ok(()), "it runs out");
    });
}

#[test]
fn bodies_that_cannot_be_read_are_held_against_whoever_signed_them() {
    run(async {
        let node = node().await;
        // Under the classic scheme whoever is in between may have put another body to the victim's headers.
        let swapped = RequestSeen {
            path: "Challenge",
            outcome: AxonOutcome::MalformedBody,
            caller: Some(&VICTIM),
            body_signed: false,
            peer: ATTACKER.parse().ok(),
        };
        (0..1000).for_each(|_| node.watch.request(swapped));
        node.seen(3, AxonOutcome::MalformedBody, Some(&VICTIM), ATTACKER);
        assert_eq!(node.penalties().await, []);
        node.seen(1, AxonOutcome::MalformedBody, Some(&VICTIM), ATTACKER);
        let penalties = node.penalties().await;
        assert_eq!((penalties.len(), penalties[0].subject), (1, VICTIM.into()));
        let until_ms = NOW_MS + LIMITS.penalty_ms;
        assert_eq!(node.victim(), Decision::Refused(Refusal::Penalised { until_ms }));
        assert_eq!(node.address(ATTACKER), Ok(()));
    });
}

#[test]
fn what_is_not_the_callers_doing_brings_no_penalty() {
    run(async {
        let node = node().await;
        for outcome in AxonOutcome::ALL {
            node.seen(1000, *outcome, Some(&VICTIM), "127.0.0.1");
            node.seen(1000, *outcome, Some(&Hotkey([8; 32])), "198.51.100.7");
        }
        let of_hotkeys = [VICTIM, Hotkey([8; 32])].map(Subject::Hotkey);
        let penalties = node.penalties().await;
        assert!(penalties.iter().all(|p| of_hotkeys.contains(&p.subject) && p.reason == "malformed"), "{penalties:?}");
        use AxonOutcome::{BadSignature, BodyHash, MalformedAuth, MalformedBody, ReplayedRequest};
        for outcome in AxonOutcome::ALL {
            if !matches!(outcome, BadSignature | BodyHash | MalformedAuth | MalformedBody | ReplayedRequest) {
                node.seen(1000, *outcome, Some(&Hotkey([6; 32])), ATTACKER);
            }
        }
        assert_eq!(node.penalties().await, penalties);
    });
}

#[test]
fn penalties_survive_a_restart_and_are_lifted_for_good() {
    run(async {
        let node = node().await;
        node.seen(21, AxonOutcome::MalformedAuth, None, ATTACKER);
        node.seen(4, AxonOutcome::MalformedBody, Some(&VICTIM), "203.0.113.77");
        let before = node.penalties().await;
        assert_eq!(before.len(), 2);

        let node = node.restarted().await;
        assert_eq!(node.penalties().await, before);
        assert!(node.address(ATTACKER).is_err() && !node.victim().is_admitted());
        for penalty in before {
            assert!(node.guard.ask(Lift(penalty.subject), LONG).await.unwrap().unwrap(), "it was there");
            assert!(!node.guard.ask(Lift(penalty.subject), LONG).await.unwrap().unwrap(), "and is gone");
        }
        assert!(node.address(ATTACKER).is_ok() && node.victim().is_admitted());

        let node = node.restarted().await;
        assert_eq!(node.penalties().await, []);
        assert!(node.address(ATTACKER).is_ok() && node.victim().is_admitted());
    });
}
