//! Faults that an actor comes back from.

use crate::probe::{LONG, Pages, Watch, assert_all_answered, restart_series, until};
use crate::subnet::{Role, Subnet, quick, secs};
use compute_subnet::actors::node::Node;
use compute_subnet::actors::validator::challenge_runner::ChallengeRunner;
use compute_subnet::exit::Exit;
use compute_subnet::launch;
use compute_subnet::messages::validator::challenge_runner::LastJudged;
use compute_subnet::runtime::{Cause, Fault, Handle, Inspect, Placement, State, TreeView};
use compute_subnet::verdict::Verdict;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Each fault with the cause it must be counted under and the text it must leave.
const FAULTS: [(Fault, Cause, &str); 3] = [
    (Fault::Panic, Cause::Panic, "injected panic"),
    (Fault::Error, Cause::Error, "injected error"),
    (Fault::Deaf, Cause::Unresponsive, "no heartbeat for"),
];

#[test]
fn each_actor_of_a_miner_survives_each_fault_and_nobody_else_notices() {
    survives(Role::Miner);
}

#[test]
fn each_actor_of_a_validator_survives_each_fault_and_nobody_else_notices() {
    survives(Role::Validator);
}

/// A node that runs in the background.
pub(crate) struct Running {
    view: TreeView,
    pub(crate) web: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Exit>,
}

impl Running {
    pub(crate) fn new(node: Node) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (view, web) = (node.view.clone(), node.web);
        let ended = tokio::task::spawn_local(node.run(async {
            let _ = stopped.await;
        }));
        Running { view, web, stop, ended }
    }
    pub(crate) async fn stop(self) -> Exit {
        let _ = self.stop.send(());
        self.ended.await.unwrap()
    }
}

/// Hits each actor of one node with each fault, one after the other, while miner and validator do their work.
fn survives(role: Role) {
    let dir = tempfile::tempdir().unwrap();
    let exit = launch::run(|runtime| async move {
        let subnet = Subnet::start(dir.path(), quick(), runtime.clone()).await;
        let miner = subnet.miner(Placement::PerActor);
        let validator = subnet.validator(Placement::PerActor);
        let judge = validator.challenges.clone();
        let (miner, validator) = (Running::new(miner.node), Running::new(validator.node));
        let (node, peer) = match role {
            Role::Miner => (&miner, &validator),
            Role::Validator => (&validator, &miner),
        };
        let mut names = node.view.names();
        names.sort_unstable();
        assert_eq!(names, role.actors(), "the documented actors of a {} are those of its tree", role.label());
        let ready = until(LONG, async || Pages::of(node.web).get("/readyz").await).await;
        assert!(ready.is_some(), "not ready: {:?}", node.view);
        wait_for_pass(&judge, None).await;

        for victim in names {
            for (fault, cause, text) in FAULTS {
                strike(&runtime, role, node, &peer.view, victim, (fault, cause, text)).await;
            }
        }

        // All the new incarnations together still do what a subnet is for.
        let last = judge.ask(LastJudged, LONG).await.unwrap().map(|judged| judged.epoch);
        wait_for_pass(&judge, last).await;
        let ready = until(LONG, async || Pages::of(node.web).get("/readyz").await).await;
        assert!(ready.is_some(), "not ready after all: {:?}", node.view);
        let exits = (validator.stop().await, miner.stop().await);
        subnet.ledger.stop().await;
        assert_eq!(exits, (Exit::Ok, Exit::Ok));
        Exit::Ok
    });
    assert_eq!(exit, Exit::Ok);
}

/// One fault in one actor.
async fn strike(
    runtime: &Arc<Runtime>,
    role: Role,
    node: &Running,
    peer: &TreeView,
    victim: &'static str,
    (fault, cause, text): (Fault, Cause, &str),
) {
    let context = format!("{} {victim} {fault:?}", role.label());
    let pages = Pages::of(node.web);
    let mut expected = until(LONG, async || pages.metrics().await).await.expect("metrics are served").restarts();
    let restarts = expected.get_mut(&restart_series(victim, cause.label())).expect("all series from the start");
    *restarts += 1;

    let watch = Watch::nobody().and(runtime, role.label(), &node.view, Some(victim)).and(runtime, "peer", peer, None);
    assert!(node.view.inject(victim, fault), "{context}");
    let (mut counted, mut states) = (false, BTreeSet::new());
    let back = until(LONG, async || {
        let metrics = pages.metrics().await?;
        let state = metrics.state(victim);
        states.extend(state.map(State::label));
        // The scrape that first shows the count may have read the state before the fault.
        let back = counted && state == Some(State::Running);
        counted = metrics.restarts() == expected;
        back.then_some(())
    });
    assert!(back.await.is_some(), "{context}: not back ({states:?}, counted: {counted}): {:?}", node.view.reports());
    let answer = node.view.inspect(victim, LONG).await;
    assert!(answer.is_ok(), "{context}: the new incarnation does not answer: {answer:?}");
    let answers = watch.end().await;
    let slowest = assert_all_answered(&context, &answers);

    // The pages themselves are away while `web` is.
    let shown = states.contains(State::BackingOff.label());
    assert!(shown || victim == "web", "{context}: seen only as {states:?}");
    let failure = node.view.last_failure(victim).expect("it failed");
    assert_eq!(failure.cause, cause, "{context}");
    assert!(failure.text.starts_with(text), "{context}: {}", failure.text);
    let located = failure.location.as_deref().is_some_and(|l| l.contains("incarnation.rs:"));
    assert_eq!(located, fault == Fault::Panic, "{context}: {:?}", failure.location);
    println!("{context}: back; slowest answer of the others {:?}, {}", slowest.worst, slowest.actor);
}

/// Waits until an epoch later than `after` is judged in which the miner passed.
async fn wait_for_pass(judge: &Handle<ChallengeRunner>, after: Option<u64>) {
    let passed = until(LONG, async || {
        let judged = judge.ask(LastJudged, LONG).await.ok().flatten()?;
        let mut devices = judged.miners.iter().flat_map(|m| &m.devices);
        let passed = devices.any(|d| matches!(d.verdict, Verdict::Pass { .. }));
        (passed && after.is_none_or(|last| judged.epoch > last)).then_some(())
    });
    assert!(passed.await.is_some(), "the miner is not proved: {:?}", judge.ask(Inspect, LONG).await);
}

/// What a devnet does: all actors of a node on one thread, several nodes in one process.
#[test]
fn a_blocked_thread_takes_its_own_node_down_and_no_other_of_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let exit = launch::run(|runtime| async move {
        let subnet = Subnet::start(dir.path(), quick(), runtime.clone()).await;
        let miner = Running::new(subnet.miner(Placement::PerNode).node);
        let validator = Running::new(subnet.validator(Placement::PerNode).node);
        let pages = Pages::of(validator.web);
        let ready = until(LONG, async || pages.get("/readyz").await).await;
        assert!(ready.is_some() && until(LONG, async || miner.view.all_running().then_some(())).await.is_some());

        let watch = Watch::nobody().and(&runtime, "validator", &validator.view, None);
        assert!(miner.view.inject("specs_collector", Fault::Block(secs(60))));
        let ended = tokio::time::timeout(secs(30), miner.ended).await.expect("the node ends").unwrap();
        assert_eq!(ended, Exit::Wedged);
        let ready = until(LONG, async || pages.get("/readyz").await).await;
        assert!(ready.is_some(), "the other node is still ready: {:?}", validator.view);
        assert_all_answered("validator", &watch.end().await);
        assert_eq!(validator.view.reports().iter().filter(|r| !r.restarts.is_empty()).count(), 0);
        assert_eq!(validator.stop().await, Exit::Ok);
        subnet.ledger.stop().await;
        Exit::Ok
    });
    assert_eq!(exit, Exit::Ok);
}
