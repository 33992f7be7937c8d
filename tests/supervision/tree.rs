//! Several actors: start order, stop order, mistakes in either.

use super::support::*;
use compute_subnet::exit::Exit;
use compute_subnet::runtime::*;

#[test]
fn an_actor_begins_only_when_everything_it_needs_runs() {
    paused(async {
        let mut node = Node::new();
        node.add(spec("store"), |_| Dummy { start_takes: S(5), ..Dummy::default() });
        node.add(spec("chain"), |life| Dummy { boom_in_started: life == 0, ..Dummy::default() });
        let last = node.add(ChildSpec { after: &["store", "chain"], ..spec("last") }, |_| Dummy::default());
        tokio::time::sleep(S(4)).await;
        assert_eq!(node.view.not_running(), [("store", State::Starting), ("last", State::Starting)]);
        assert_eq!(*node.journal.lock().unwrap(), ["store started", "chain started"]);
        assert_eq!(last.ask(Incr, S(9)).await, Ok(1));
        assert!(node.view.all_running());
        assert_eq!(node.journal.lock().unwrap()[2..], ["last started"]);
    });
}

#[test]
fn a_restart_of_a_dependency_does_not_restart_its_dependants() {
    paused(async {
        let mut node = Node::new();
        let base = node.dummy("base");
        let user = node.add(ChildSpec { after: &["base"], ..spec("user") }, |_| Dummy::default());
        assert_eq!(user.ask(Incr, S(1)).await, Ok(1));
        assert_eq!(base.ask(Boom, S(1)).await, Err(AskError::Crashed));
        assert_eq!(user.ask(Incr, S(1)).await, Ok(2));
        assert_eq!(node.view.vitals("user").unwrap().restarts_total(), 0);
    });
}

#[test]
fn actors_stop_in_reverse_order_of_their_start() {
    paused(async {
        let mut node = Node::new();
        for name in ["journal", "chain", "listener"] {
            node.dummy(name);
        }
        let (journal, view) = (node.journal.clone(), node.view.clone());
        let (stop, run) = node.run();
        assert!(view.wait_for("listener", State::Running, S(1)).await);
        journal.lock().unwrap().clear();
        stop.send(()).unwrap();
        assert_eq!(run.await.unwrap(), Exit::Ok);
        let stopped: Vec<String> = journal.lock().unwrap().iter().filter(|l| l.ends_with("stopped")).cloned().collect();
        assert_eq!(stopped, ["listener stopped", "chain stopped", "journal stopped"]);
        assert_eq!(view.not_running().len(), 3);
    });
}

#[test]
fn an_actor_that_still_waits_for_its_dependencies_can_be_stopped() {
    paused(async {
        let mut node = Node::new();
        node.add(ChildSpec { drain: S(2), ..spec("slow") }, |_| Dummy { start_takes: S(500), ..Dummy::default() });
        let waiting = node.add(ChildSpec { after: &["slow"], ..spec("waiting") }, |_| Dummy::default());
        let (view, journal) = (node.view.clone(), node.journal.clone());
        let (stop, run) = node.run();
        tokio::time::sleep(S(1)).await;
        stop.send(()).unwrap();
        assert_eq!(run.await.unwrap(), Exit::Ok);
        assert_eq!((view.state("waiting"), waiting.tell(Incr)), (Some(State::Stopped), Err(TellError::Gone)));
        assert_eq!(*journal.lock().unwrap(), ["slow started", "slow stopping", "slow stopped"]);
    });
}

#[test]
fn mistakes_in_the_order_or_the_names_are_said_at_the_start() {
    paused(async {
        let mut node = Node::new();
        let (handle, seat) = node.tree.declare::<Dummy>(ChildSpec { after: &["store"], ..spec("chain") });
        let error = node.tree.start(seat, |_| Dummy::default()).unwrap_err();
        assert_eq!(error.to_string(), "actor chain starts after store, which was not started yet: start store first");
        assert_eq!(handle.tell(Incr), Err(TellError::Gone));

        node.dummy("twin");
        let (_, seat) = node.tree.declare::<Dummy>(spec("twin"));
        let error = node.tree.start(seat, |_| Dummy::default()).unwrap_err();
        assert_eq!(error.to_string(), "actor twin is declared twice: give it a name of its own");
        assert_eq!(node.view.names(), ["chain", "twin"]);
        assert_eq!(node.view.state("nobody"), None);
    });
}
