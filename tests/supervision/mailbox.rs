//! Admission, deadlines, fairness, spans.

use super::support::*;
use compute_subnet::runtime::*;
use std::cell::Cell;
use std::rc::Rc;
use tokio::time::Instant;
use tracing::Instrument as _;

#[test]
fn admission_is_exact_whatever_the_number_of_clones() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("a");
        let told = (0..100).filter(|_| h.clone().tell(Slow(10)).is_ok()).count();
        assert_eq!((told, h.depth(), h.capacity()), (4, 4, 4));
        assert_eq!(h.tell(Incr), Err(TellError::Full));
        assert_eq!(h.ask(Incr, S(9)).await, Err(AskError::Overloaded));
        assert_eq!(h.ask(Incr, S(2)).await, Ok(1), "slots come back when the replies are done");
        assert_eq!(h.depth(), 0);
    });
}

#[test]
fn an_ask_never_outlives_its_deadline_and_an_abandoned_message_is_not_handled() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("d");
        let t = Instant::now();
        let replies = tokio::join!(h.ask(Nap(10), S(60)), h.ask(Incr, S(3)));
        assert_eq!(replies, (Ok(10), Err(AskError::Deadline)));
        assert_eq!(t.elapsed().as_secs(), 10);
        assert_eq!(h.ask(Incr, S(1)).await, Ok(1), "the abandoned one did not count");
        assert_eq!(messages(&node.registry, "d", "Incr", "abandoned"), 1);
        assert_eq!(h.ask(Incr, std::time::Duration::MAX).await, Ok(2), "no deadline is too far");
    });
}

#[test]
fn messages_sent_before_the_start_wait_for_it() {
    paused(async {
        let mut node = Node::new();
        let (h, seat) = node.tree.declare::<Dummy>(spec("early"));
        h.tell(Incr).unwrap();
        assert_eq!(node.view.state("early"), Some(State::Starting));
        node.tree.start(seat, |_| Dummy::default()).unwrap();
        assert_eq!(h.ask(Incr, S(1)).await, Ok(2));
    });
}

#[test]
fn a_seat_that_is_never_taken_closes_its_mailbox() {
    paused(async {
        let mut node = Node::new();
        let (h, seat) = node.tree.declare::<Dummy>(spec("never"));
        drop(seat);
        assert_eq!(h.ask(Incr, S(1)).await, Err(AskError::Gone));
        assert_eq!(node.view.state("never"), Some(State::Stopped));
    });
}

#[test]
fn a_flooded_actor_does_not_starve_its_neighbours() {
    paused(async {
        let mut node = Node::new();
        let h = node.add(ChildSpec { mailbox: 100_000, ..spec("flood") }, |_| Dummy::default());
        let neighbour = node.dummy("neighbour");
        assert_eq!(h.ask(Incr, S(1)).await, Ok(1));
        for _ in 0..30_000 {
            h.tell(Incr).unwrap();
        }
        let answered = Rc::new(Cell::new(0u64));
        let count = answered.clone();
        let asker = tokio::task::spawn_local(async move {
            while neighbour.ask(Incr, S(1)).await.is_ok() {
                count.set(count.get() + 1);
            }
        });
        while h.depth() > 0 {
            tokio::task::yield_now().await;
        }
        asker.abort();
        // 128 messages a turn: the neighbour gets its turn in between.
        assert!(answered.get() > 100, "{} asks answered", answered.get());
    });
}

#[test]
fn handlers_and_their_replies_run_in_the_callers_span() {
    let _logs = tracing::subscriber::set_default(tracing_subscriber::registry());
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("t");
        let asked = h.ask(SpanNow, S(9)).instrument(tracing::info_span!("request")).await;
        assert_eq!(asked.unwrap(), ["request", "request"], "in the handler, and after its await");
        assert_eq!(h.ask(SpanNow, S(9)).await.unwrap(), ["node", "node"], "without one, in the node's own");
    });
}

#[test]
fn an_actor_shows_its_own_snapshot() {
    paused(async {
        let mut node = Node::new();
        let h = node.dummy("i");
        assert_eq!(h.ask(Incr, S(1)).await, Ok(1));
        assert_eq!(node.view.inspect("i", S(1)).await, Ok(serde_json::json!({ "name": "i", "n": 1 })));
        assert_eq!(node.view.inspect("nobody", S(1)).await, Err(AskError::Gone));
    });
}
