//! Real threads, real clock: blocked threads, crash storms, the end of arbiters. Limits are generous, because the
//! machine that runs this may be busy; nothing asserts how fast anything was.

use super::support::*;
use actix::System;
use compute_subnet::exit::Exit;
use compute_subnet::runtime::*;
use prometheus::Registry;
use std::sync::Arc;
use std::time::Duration;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn quick(placement: Placement) -> TreeConfig {
    TreeConfig {
        node: "threads".into(),
        placement,
        backoff: Backoff { first: MS(1), cap: MS(5), max_failures: 100_000, window: S(600) },
        heartbeat: MS(20),
        silence_limit: MS(800),
        probe_timeout: MS(400),
        monitor_period: MS(20),
        jitter: 0.5,
        seed: None,
    }
}

/// A tree of two dummies, run by `drive` on an actix system beside a shared runtime.
fn node<F: Future<Output = ()>>(
    cfg: TreeConfig,
    drive: impl FnOnce(TreeView, Handle<Dummy>, Handle<Dummy>, Registry) -> F,
) -> (Exit, TreeView) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let runtime = Arc::new(runtime);
    System::new().block_on(async {
        let registry = Registry::new();
        let mut tree = Tree::new(cfg, RuntimeMetrics::register(&registry).unwrap(), runtime.clone());
        let mut add = |name| {
            let (handle, seat) = tree.declare::<Dummy>(ChildSpec { mailbox: 64, drain: MS(500), ..spec(name) });
            tree.start(seat, |_| Dummy::default()).unwrap();
            handle
        };
        let (first, second) = (add("first"), add("second"));
        let view = tree.view();
        let exit = tree.run(drive(view.clone(), first, second, registry)).await;
        (exit, view)
    })
}

#[test]
fn an_orderly_stop_ends_all_threads() {
    let (exit, view) = node(quick(Placement::PerActor), |_, first, second, _| async move {
        assert_eq!(first.ask(Incr, S(5)).await, Ok(1));
        assert_eq!(second.ask(Incr, S(5)).await, Ok(1));
    });
    assert_eq!(exit, Exit::Ok, "not Wedged: all were joined");
    assert_eq!((view.state("first"), view.state("second")), (Some(State::Stopped), Some(State::Stopped)));
}

#[test]
fn a_blocked_thread_brings_the_node_down_and_the_others_still_work_and_drain() {
    let (exit, view) = node(quick(Placement::PerActor), |view, first, second, _| async move {
        assert_eq!(first.ask(Incr, S(5)).await, Ok(1));
        assert!(view.inject("first", Fault::Block(S(30))));
        // The fault comes by a way of its own: a question may overtake it.
        let mut answer = Ok(2);
        while answer.is_ok() {
            answer = first.ask(Incr, MS(100)).await;
        }
        assert_eq!(answer, Err(AskError::Deadline), "a deadline needs no help from the thread");
        assert_eq!(second.ask(Incr, S(5)).await, Ok(1));
        std::future::pending::<()>().await;
    });
    assert_eq!(exit, Exit::Wedged);
    assert_eq!((view.state("first"), view.state("second")), (Some(State::Running), Some(State::Stopped)));
}

#[test]
fn on_a_shared_thread_one_blocked_actor_is_the_nodes_wedge() {
    let (exit, _) = node(quick(Placement::PerNode), |view, first, second, _| async move {
        assert_eq!((first.ask(Incr, S(5)).await, second.ask(Incr, S(5)).await), (Ok(1), Ok(1)));
        assert!(view.inject("first", Fault::Block(S(30))));
        std::future::pending::<()>().await;
    });
    assert_eq!(exit, Exit::Wedged);
}

#[test]
fn a_thread_found_blocked_during_an_orderly_stop_is_left_behind() {
    let (exit, view) = node(quick(Placement::PerActor), |view, first, _, _| async move {
        assert_eq!(first.ask(Incr, S(5)).await, Ok(1));
        assert!(view.inject("first", Fault::Block(S(30))));
    });
    assert_eq!(exit, Exit::Wedged);
    assert_eq!(view.state("second"), Some(State::Stopped));
}

#[test]
fn a_deaf_actor_is_restarted_while_its_thread_lives_on() {
    let (exit, view) = node(quick(Placement::PerActor), |_, first, second, _| async move {
        assert_eq!(first.ask(Deaf, S(20)).await, Err(AskError::Crashed));
        assert_eq!(first.ask(Incr, S(5)).await, Ok(1));
        assert_eq!(second.ask(Incr, S(5)).await, Ok(1));
    });
    assert_eq!(exit, Exit::Ok);
    assert_eq!(view.restarts("first", Cause::Unresponsive), 1);
}

#[test]
fn in_a_crash_storm_every_ask_ends_and_every_message_is_counted_once() {
    let cfg = TreeConfig { silence_limit: S(30), ..quick(Placement::PerActor) };
    let (exit, view) = node(cfg, |view, first, _, registry| async move {
        let askers = (0..8u64).map(|k| {
            let first = first.clone();
            tokio::spawn(async move {
                let (mut answered, mut crashed) = (0u64, 0u64);
                for i in 0..200 {
                    let reply =
                        if (i + k) % 40 == 0 { first.ask(Boom, S(60)).await } else { first.ask(Incr, S(60)).await };
                    match reply {
                        Ok(_) => answered += 1,
                        Err(AskError::Crashed) => crashed += 1,
                        Err(other) => panic!("{other}"),
                    }
                }
                (answered, crashed)
            })
        });
        let mut sums = (0, 0);
        for asker in askers.collect::<Vec<_>>() {
            let (answered, crashed) = asker.await.unwrap();
            sums = (sums.0 + answered, sums.1 + crashed);
        }
        assert_eq!(sums.0 + sums.1, 8 * 200);
        assert_eq!(sums.1, 8 * 5, "a crash is heard by the message that caused it, and by no queued one");
        // The last reply is sent a moment before its message is counted: wait for the mailbox to be empty.
        while first.depth() > 0 {
            tokio::time::sleep(MS(1)).await;
        }
        assert_eq!(messages(&registry, "first", "Incr", "ok"), sums.0);
        assert_eq!(messages(&registry, "first", "Boom", "panic"), sums.1);
        assert_eq!(view.restarts("first", Cause::Panic), sums.1);
    });
    assert_eq!(exit, Exit::Ok);
    assert_eq!(view.state("first"), Some(State::Stopped));
}

#[test]
fn without_a_system_there_is_an_error_not_a_panic() {
    let runtime = Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap());
    let metrics = RuntimeMetrics::register(&Registry::new()).unwrap();
    let mut tree = Tree::new(quick(Placement::PerActor), metrics, runtime);
    let (_, seat) = tree.declare::<Dummy>(spec("lonely"));
    let error = tree.start(seat, |_| Dummy::default()).unwrap_err();
    assert!(matches!(error, StartError::NoSystem { actor: "lonely" }), "{error}");
}
