//! Injected faults: state and cause are visible, and the actor is back.

use super::support::*;
use compute_subnet::runtime::*;
use tokio::time::Instant;

#[test]
fn each_fault_shows_its_state_and_cause_in_the_registry_and_the_actor_is_back() {
    for (fault, cause, text) in [
        (Fault::Panic, Cause::Panic, "injected panic"),
        (Fault::Error, Cause::Error, "injected error"),
        (Fault::Deaf, Cause::Unresponsive, "no heartbeat for"),
    ] {
        paused(async {
            let mut node = Node::new();
            let h = node.dummy("victim");
            let bystander = node.dummy("bystander");
            let (view, registry) = (node.view.clone(), node.registry.clone());
            let (_stop, _run) = node.run();
            assert_eq!(h.ask(Incr, S(1)).await, Ok(1));
            assert!(view.inject("victim", fault));
            assert!(view.wait_for("victim", State::BackingOff, S(30)).await, "{fault:?}");
            let state =
                |s: State| sample(&registry, "compute_actor_state", &[("actor", "victim"), ("state", s.label())]);
            assert_eq!((state(State::BackingOff), state(State::Running)), (Some(1.0), Some(0.0)));
            let labels = [("actor", "victim"), ("cause", cause.label())];
            assert_eq!(sample(&registry, "compute_actor_restarts_total", &labels), Some(1.0));
            let failure = view.last_failure("victim").unwrap();
            assert_eq!(failure.cause, cause);
            assert!(failure.text.starts_with(text), "{}", failure.text);
            assert_eq!(bystander.ask(Incr, S(1)).await, Ok(1));
            assert_eq!(h.ask(Incr, S(9)).await, Ok(1));
            assert_eq!((state(State::BackingOff), state(State::Running)), (Some(0.0), Some(1.0)));
            assert_eq!(view.vitals("bystander").unwrap().restarts_total(), 0);
        });
    }
}

#[test]
fn a_deaf_actor_is_restarted_within_its_limits_and_its_caller_hears_of_it() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("d");
        let view = node.view.clone();
        let (_stop, _run) = node.run();
        tokio::time::sleep(S(100)).await;
        assert!(view.all_running(), "an idle actor is not a silent one");
        let t = Instant::now();
        assert_eq!(h.ask(Deaf, S(600)).await, Err(AskError::Crashed));
        // Silence 15 s, counted from the last of the 5 s heartbeats, seen by a 1 s monitor, and one more heartbeat's
        // time to recover.
        assert!((15..=21).contains(&t.elapsed().as_secs()), "{:?}", t.elapsed());
        assert_eq!(h.ask(Incr, S(5)).await, Ok(1));
        assert_eq!(view.restarts("d", Cause::Unresponsive), 1);
    });
}

#[test]
fn silence_in_a_protected_zone_is_excused() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("n");
        let view = node.view.clone();
        let (_stop, _run) = node.run();
        assert_eq!(h.ask(Nap(300), S(600)).await, Ok(300), "twenty times the silence limit");
        assert_eq!(view.vitals("n").unwrap().restarts_total(), 0);
        assert_eq!(h.ask(Deaf, S(600)).await, Err(AskError::Crashed), "the excuse ended with the zone");
    });
}

#[test]
fn a_fault_for_nobody_is_refused() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("only");
        let view = node.view.clone();
        assert!(!view.inject("nobody", Fault::Panic));
        let (stop, run) = node.run();
        assert_eq!(h.ask(Incr, S(1)).await, Ok(1));
        stop.send(()).unwrap();
        run.await.unwrap();
        assert!(!view.inject("only", Fault::Panic), "it has ended");
    });
}
