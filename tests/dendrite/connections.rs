//! Which connections are used again.

use std::time::Duration;

use compute_subnet::verdict::UnknownCause;
use compute_subnet::wire::classic::Ping;
use compute_subnet::wire::dendrite::{AskError, Keep};
use compute_subnet::wire::synapse::SpecsRequest;

use crate::support::*;

#[tokio::test]
async fn an_idle_connection_is_used_again_and_an_old_one_is_not() {
    let server = Server::start(|_| Answer::Keep(success())).await;
    let idle = Duration::from_millis(200);
    let bob = keeping(Keep { idle, ..Keep::default() });
    let ask = async || assert!(bob.ask(&server.peer, &Ping {}, LONG).await.answer.is_ok());
    ask().await;
    ask().await;
    assert_eq!(server.connections(), 1);
    tokio::time::sleep(idle * 2).await;
    ask().await;
    assert_eq!(server.connections(), 2, "idle for longer than allowed");
    let nonces: Vec<u64> =
        server.requests().iter().map(|r| r.header("bt_header_dendrite_nonce").parse().unwrap()).collect();
    assert!(nonces.is_sorted_by(|a, b| a < b), "{nonces:?}");
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_costs_no_request() {
    let server = Server::start(|_| Answer::Close(success())).await;
    let bob = bob();
    for _ in 0..3 {
        assert!(bob.ask(&server.peer, &Ping {}, LONG).await.answer.is_ok());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!((server.connections(), server.requests().len()), (3, 3));
}

#[tokio::test]
async fn a_request_that_meets_a_closing_server_is_not_sent_again_and_says_nothing_about_the_peer() {
    // The server reads the second request on a connection and closes without an answer.
    let second = |r: &Arrived| r.connection == 0 && r.header("x-bittensor-nonce").len() > 1;
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let nth = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if nth > 0 && second(request) { Answer::Close(Vec::new()) } else { Answer::Keep(success()) }
    })
    .await;
    let bob = bob();
    assert!(bob.ask(&server.peer, &Ping {}, LONG).await.answer.is_ok());
    let lost = bob.ask(&server.peer, &Ping {}, LONG).await.answer.unwrap_err();
    assert_eq!((&lost, lost.cause()), (&AskError::Disconnected, UnknownCause::Unreachable));
    assert_eq!((server.connections(), server.requests().len()), (1, 2), "it went out once");
    assert!(bob.ask(&server.peer, &Ping {}, LONG).await.answer.is_ok(), "the next one takes a fresh connection");
    assert_eq!(server.connections(), 2);

    // Our own calls judge it alike.
    let hangs_up = Server::start(|_| Answer::Close(Vec::new())).await;
    let error = bob.call(&hangs_up.peer, &SpecsRequest {}, LONG, 1000).await.unwrap_err();
    assert_eq!(error.cause(), UnknownCause::Unreachable);
    assert_eq!(hangs_up.requests().len(), 1);
}

#[tokio::test]
async fn no_more_connections_are_kept_than_allowed() {
    let wait = Duration::from_millis(100);
    let server = Server::start(move |_| Answer::After(wait, Box::new(Answer::Keep(success())))).await;
    let bob = keeping(Keep { per_axon: 1, axons: 1, ..Keep::default() });
    let ask = async |server: &Server| assert!(bob.ask(&server.peer, &Ping {}, LONG).await.answer.is_ok());
    tokio::join!(ask(&server), ask(&server));
    tokio::join!(ask(&server), ask(&server));
    assert_eq!(server.connections(), 3, "one of two was kept");

    let other = Server::start(|_| Answer::Keep(success())).await;
    ask(&other).await;
    ask(&other).await;
    assert_eq!(other.connections(), 2, "no place for a second axon");
}

#[tokio::test]
async fn a_call_that_was_given_up_leaves_no_connection_behind_whose_reply_could_be_taken_for_another() {
    let late = Duration::from_millis(150);
    let server = Server::start(move |request| {
        let reply = Answer::Keep(success());
        if request.connection == 0 { Answer::After(late, Box::new(reply)) } else { reply }
    })
    .await;
    let bob = bob();
    assert_eq!(bob.ask(&server.peer, &Ping {}, Duration::from_millis(50)).await.code(), Some(408));
    assert!(bob.ask(&server.peer, &Ping {}, LONG).await.answer.is_ok());
    assert_eq!(server.connections(), 2);
}
