//! The series of an actor: all there from the start, and they say what happened.

use super::support::*;
use compute_subnet::runtime::*;
use compute_subnet::telemetry::names::Metric;
use prometheus::Registry;

#[test]
fn every_series_exists_before_the_first_message() {
    paused(async {
        let mut node = Node::new();
        let _declared = node.tree.declare::<Dummy>(spec("new"));
        let has = |m: Metric, labels: &[(&str, &str)]| {
            let labels = [&[("actor", "new")], labels].concat();
            assert!(sample(&node.registry, m.name(), &labels).is_some(), "{} {labels:?}", m.name());
        };
        State::ALL.iter().for_each(|s| has(Metric::ActorState, &[("state", s.label())]));
        Cause::ALL.iter().for_each(|c| has(Metric::ActorRestarts, &[("cause", c.label())]));
        for message in Dummy::MESSAGES.iter().chain(&["Inspect"]) {
            has(Metric::ActorHandling, &[("message", message)]);
            Outcome::ALL
                .iter()
                .for_each(|o| has(Metric::ActorMessages, &[("message", message), ("outcome", o.label())]));
        }
        for metric in [Metric::ActorQueueWait, Metric::ActorMailboxDepth, Metric::ActorHeartbeatAge] {
            has(metric, &[]);
        }
        let capacity = sample(&node.registry, Metric::ActorMailboxCapacity.name(), &[("actor", "new")]);
        assert_eq!(capacity, Some(4.0));
    });
}

#[test]
fn messages_are_counted_by_type_and_outcome() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("m");
        let _ = tokio::join!(h.ask(Incr, S(99)), h.ask(Slow(50), S(99)), h.ask(BoomLater, S(99)));
        let _ = h.ask(Fail, S(99)).await;
        let _ = h.ask(FailLater, S(99)).await;
        let _ = h.ask(Unlisted, S(99)).await;
        let count = |message, outcome| messages(&node.registry, "m", message, outcome);
        assert_eq!((count("Incr", "ok"), count("Slow", "dropped"), count("BoomLater", "panic")), (1, 1, 1));
        assert_eq!((count("Fail", "error"), count("FailLater", "error"), count("Slow", "ok")), (1, 1, 0));
        assert_eq!(count("Unlisted", "ok"), 1, "counted although nobody declared it");
        let waits = sample(&node.registry, Metric::ActorQueueWait.name(), &[("actor", "m")]);
        assert_eq!(waits, Some(6.0));
        let handled = sample(&node.registry, Metric::ActorHandling.name(), &[("actor", "m"), ("message", "Slow")]);
        assert_eq!(handled, Some(1.0));
    });
}

#[test]
fn gauges_are_current_after_a_refresh() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("g");
        assert_eq!(h.ask(Incr, S(1)).await, Ok(1));
        h.tell(Nap(60)).unwrap();
        h.tell(Incr).unwrap();
        tokio::time::sleep(S(8)).await;
        node.view.refresh_metrics();
        let gauge = |m: Metric| sample(&node.registry, m.name(), &[("actor", "g")]).unwrap();
        assert_eq!(gauge(Metric::ActorMailboxDepth), 2.0);
        assert!(gauge(Metric::ActorHeartbeatAge) >= 8.0);
    });
}

#[test]
fn nodes_of_one_process_keep_their_figures_apart() {
    paused(async {
        let (mut one, mut two) = (Node::new(), Node::new());
        let (a, _b) = (one.dummy("same"), two.dummy("same"));
        assert_eq!(a.ask(Incr, S(1)).await, Ok(1));
        let count = |r: &Registry| messages(r, "same", "Incr", "ok");
        assert_eq!((count(&one.registry), count(&two.registry)), (1, 0));
        assert!(RuntimeMetrics::register(&one.registry).is_err(), "one set of metrics per registry");
    });
}
