//! One actor: failures, backoff, restarts, the end.

use super::support::*;
use compute_subnet::exit::Exit;
use compute_subnet::runtime::*;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

#[test]
fn backoff_doubles_exactly_then_the_node_gives_up() {
    paused(async {
        let mut node = Node::new();
        let (h, sibling, view) = (node.dummy("c"), node.dummy("sibling"), node.view.clone());
        let (_stop, run) = node.run();
        let mut delays = vec![];
        for _ in 0..8 {
            assert_eq!(h.ask(Boom, S(600)).await, Err(AskError::Crashed));
            assert_eq!(view.state("c"), Some(State::BackingOff), "the caller never knows before the supervisor");
            let t = Instant::now();
            assert_eq!(h.ask(Incr, S(600)).await, Ok(1), "a new actor, not the poisoned one");
            delays.push(t.elapsed().as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(h.ask(Boom, S(600)).await, Err(AskError::Gone), "given up, not restarted");
        assert_eq!(run.await.unwrap(), Exit::Escalated);
        assert_eq!((view.state("c"), view.state("sibling")), (Some(State::Failed), Some(State::Stopped)));
        assert_eq!(view.restarts("c", Cause::Panic), 8);
        assert_eq!(h.ask(Incr, S(1)).await, Err(AskError::Gone));
        assert_eq!(sibling.tell(Incr), Err(TellError::Gone));
    });
}

#[test]
fn jitter_shortens_delays_within_its_share_and_a_seed_repeats_them() {
    let delays = || {
        paused(async {
            let mut node = Node::with(TreeConfig { jitter: 0.5, ..config() });
            let h = node.dummy("j");
            let mut delays = vec![];
            for base in [1u64, 2, 4, 8] {
                assert_eq!(h.ask(Boom, S(600)).await, Err(AskError::Crashed));
                let t = Instant::now();
                assert_eq!(h.ask(Incr, S(600)).await, Ok(1));
                let delay = t.elapsed();
                assert!(delay >= S(base) / 2 && delay <= S(base) + S(1) / 100, "{delay:?} of {base} s");
                delays.push(delay);
            }
            delays
        })
    };
    let once = delays();
    assert_eq!(once, delays());
    assert!(once.iter().zip([1, 2, 4, 8]).any(|(d, base)| *d < S(base)), "some delay was shortened: {once:?}");
}

#[test]
fn messages_queued_behind_a_crash_are_served_after_the_restart() {
    paused(async {
        let h = Node::new().dummy("q");
        let replies = tokio::join!(h.ask(Boom, S(30)), h.ask(Incr, S(30)), h.ask(Incr, S(30)));
        assert_eq!(replies, (Err(AskError::Crashed), Ok(1), Ok(2)));
    });
}

#[test]
fn a_crash_ends_every_reply_in_flight_at_once() {
    paused(async {
        let h = Node::new().dummy("f");
        let t = Instant::now();
        let replies = tokio::join!(h.ask(Slow(100), S(600)), h.ask(BoomLater, S(600)), h.ask(Slow(2), S(600)));
        assert_eq!(replies, (Err(AskError::Crashed), Err(AskError::Crashed), Ok(2)));
        assert_eq!(t.elapsed().as_secs(), 3);
    });
}

#[test]
fn panics_in_factory_started_stopping_and_drop_are_contained() {
    paused(async {
        let mut node = Node::new();
        let h = node.add(spec("p"), |life| {
            assert!(life != 0, "boom in factory");
            Dummy {
                boom_in_started: life == 1,
                _bomb: Bomb(life == 2),
                boom_in_stopping: life == 3,
                ..Dummy::default()
            }
        });
        let view = node.view.clone();
        let (stop, run) = node.run();
        let t = Instant::now();
        assert_eq!(h.ask(Incr, S(600)).await, Ok(1), "the third incarnation answers");
        assert_eq!(t.elapsed().as_secs(), 1 + 2);
        assert_eq!(h.ask(Boom, S(600)).await, Err(AskError::Crashed), "and its Drop panics");
        assert_eq!(h.ask(Incr, S(600)).await, Ok(1), "the fourth answers");
        stop.send(()).unwrap(); // and its stopping() panics
        assert_eq!(run.await.unwrap(), Exit::Ok);
        assert_eq!(view.state("p"), Some(State::Stopped));
        assert_eq!((view.restarts("p", Cause::PanicInFactory), view.restarts("p", Cause::Panic)), (1, 2));
    });
}

#[test]
fn a_panic_is_reported_with_its_text_and_place() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("p");
        assert_eq!(node.view.last_failure("p"), None);
        assert_eq!(h.ask(Incr, S(1)).await, Ok(1));
        assert_eq!(h.ask(Boom, S(1)).await, Err(AskError::Crashed));
        let failure = node.view.last_failure("p").unwrap();
        assert_eq!((failure.cause, failure.text.as_str()), (Cause::Panic, "boom 1"));
        let report = serde_json::to_value(&node.view.reports()[0]).unwrap();
        assert_eq!(report["restarts"], serde_json::json!({ "panic": 1 }));
        assert_eq!((&report["state"], &report["last_failure"]["cause"]), (&"backing_off".into(), &"panic".into()));
        let location = failure.location.unwrap();
        assert!(location.contains(&format!("supervision/support.rs:{BOOM_LINE}:")), "{location}");
    });
}

#[test]
fn an_error_ends_the_incarnation_but_its_own_caller_still_gets_the_reply() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("e");
        let replies = tokio::join!(h.ask(Slow(50), S(99)), h.ask(Incr, S(99)), h.ask(Fail, S(99)), h.ask(Incr, S(99)));
        assert_eq!(replies, (Err(AskError::Crashed), Ok(1), Ok(Err("sorry".into())), Ok(1)));
        let failure = node.view.last_failure("e").unwrap();
        assert_eq!((failure.cause, failure.text.as_str(), failure.location), (Cause::Error, "the disk is full", None));
        assert_eq!(h.ask(FailLater, S(99)).await, Ok(5), "from an asynchronous reply as well");
        assert_eq!(h.ask(Incr, S(99)).await, Ok(1));
        assert_eq!(node.view.restarts("e", Cause::Error), 2);
        let hooks = node.journal.lock().unwrap().clone();
        assert_eq!(hooks, ["e started"; 3], "neither stopping nor stopped ran for a failed actor");
    });
}

#[test]
fn an_actor_that_stops_itself_is_replaced_after_its_own_goodbye() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("s");
        assert_eq!(h.ask(Incr, S(9)).await, Ok(1));
        assert_eq!(h.ask(StopSelf, S(9)).await, Ok(()));
        assert_eq!(h.ask(Incr, S(9)).await, Ok(1));
        assert_eq!(node.view.restarts("s", Cause::Stopped), 1);
        assert_eq!(*node.journal.lock().unwrap(), ["s started", "s stopping", "s stopped", "s started"]);
    });
}

#[test]
fn a_cancel_asked_for_by_a_dead_incarnation_does_not_reach_the_next() {
    paused(async {
        let ticks = Arc::new(Mutex::new(0));
        let (mut node, counted) = (Node::new(), ticks.clone());
        let h = node.add(spec("x"), move |_| Dummy { ticks: Some(counted.clone()), ..Dummy::default() });
        assert_eq!(h.ask(CancelThenBoom, S(5)).await, Err(AskError::Crashed));
        tokio::time::sleep(S(1)).await;
        let before = *ticks.lock().unwrap();
        tokio::time::sleep(S(10)).await;
        let ticked = *ticks.lock().unwrap() - before;
        assert!(ticked >= 9, "{ticked} ticks");
    });
}

#[test]
fn a_drain_finishes_admitted_work_and_refuses_new() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("g");
        let (view, journal) = (node.view.clone(), node.journal.clone());
        let (stop, run) = node.run();
        let asking = h.clone();
        let work = tokio::task::spawn_local(async move { asking.ask(Slow(7), S(60)).await });
        tokio::time::sleep(S(1)).await;
        stop.send(()).unwrap();
        let t = Instant::now();
        assert!(view.wait_for("g", State::Draining, S(1)).await);
        assert_eq!(h.ask(Incr, S(1)).await, Err(AskError::Gone));
        assert_eq!(run.await.unwrap(), Exit::Ok);
        assert_eq!(work.await.unwrap(), Ok(7));
        assert_eq!(t.elapsed().as_secs(), 6);
        assert_eq!(*journal.lock().unwrap(), ["g started", "g stopping", "g stopped"]);
    });
}

#[test]
fn a_drain_ends_at_its_deadline_and_unfinished_callers_hear_of_it() {
    paused(async {
        let mut node = Node::new();
        let h = node.add(ChildSpec { drain: S(3), ..spec("g") }, |_| Dummy::default());
        let registry = node.registry.clone();
        let (stop, run) = node.run();
        let asking = h.clone();
        let work = tokio::task::spawn_local(async move { asking.ask(Slow(700), S(900)).await });
        tokio::time::sleep(S(1)).await;
        drop(stop);
        let t = Instant::now();
        assert_eq!(run.await.unwrap(), Exit::Unfinished);
        assert_eq!((t.elapsed().as_secs(), work.await.unwrap()), (3, Err(AskError::Gone)));
        assert_eq!(messages(&registry, "g", "Slow", "dropped"), 1);
    });
}

#[test]
fn a_drain_during_backoff_ends_at_once_and_counts_what_was_queued() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("b");
        let registry = node.registry.clone();
        let (stop, run) = node.run();
        assert_eq!(h.ask(Boom, S(9)).await, Err(AskError::Crashed));
        h.tell(Incr).unwrap();
        let asking = h.clone();
        let queued = tokio::task::spawn_local(async move { asking.ask(Incr, S(60)).await });
        tokio::task::yield_now().await;
        let t = Instant::now();
        stop.send(()).unwrap();
        assert_eq!(run.await.unwrap(), Exit::Ok);
        assert_eq!(queued.await.unwrap(), Err(AskError::Gone));
        assert!(t.elapsed() < S(1));
        assert_eq!((messages(&registry, "b", "Incr", "dropped"), h.depth()), (2, 0));
    });
}
