//! What goes out, what is taken from a reply, and what failures are called.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use compute_subnet::clock::ManualClock;
use compute_subnet::verdict::UnknownCause;
use compute_subnet::wire::btauth::{self, AuthHeaders, AuthPolicy};
use compute_subnet::wire::classic::{ClassicHeaders, ClassicPolicy, Envelope, Ping, check_shape, verify};
use compute_subnet::wire::dendrite::{AskError, MAX_CLASSIC_REPLY, ReplySigner, Schemes};
use compute_subnet::wire::reply::sign_reply;
use compute_subnet::wire::{Dendrite, Peer};
use tokio::net::TcpListener;

use crate::support::*;

fn classic(request: &Arrived) -> Result<u64, String> {
    let pairs = request.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes()));
    let headers = ClassicHeaders::collect(pairs).map_err(|e| e.to_string())?;
    let now = headers.dendrite.nonce.unwrap_or_default();
    let claimed = check_shape(&headers, now, &key("Alice").hotkey(), &ClassicPolicy::default());
    let caller = claimed.and_then(verify).map_err(|e| e.to_string())?;
    assert_eq!(caller.caller.hotkey, key("Bob").hotkey());
    Ok(caller.caller.nonce)
}

fn btauth(request: &Arrived) -> Result<u64, String> {
    let pairs = request.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes()));
    let headers = AuthHeaders::collect(pairs).map_err(|e| e.to_string())?;
    let target = request.line.split(' ').nth(1).unwrap();
    let nonce: u64 =
        request.headers.iter().find(|(n, _)| n == btauth::NONCE_HEADER).map_or(0, |(_, v)| v.parse().unwrap());
    let us = key("Alice").hotkey();
    let caller = btauth::verify(&headers, "POST", target, request.body.as_bytes(), nonce, &us, &AuthPolicy::default());
    let caller = caller.map_err(|e| e.to_string())?;
    assert_eq!(caller.hotkey, key("Bob").hotkey());
    Ok(caller.nonce)
}

#[tokio::test]
async fn a_request_is_signed_by_both_schemes_with_one_nonce() {
    let server = Server::start(|_| Answer::Keep(success())).await;
    let bob = bob();
    for schemes in [Schemes::Both, Schemes::Classic, Schemes::Btauth] {
        let reply = bob.ask_signed(&server.peer, &echo(), LONG, schemes).await;
        assert!(reply.answer.is_ok() && reply.signer == ReplySigner::Nobody, "{reply:?}");
    }
    let [both, old, new]: [Arrived; 3] = server.requests().try_into().unwrap();
    assert_eq!(both.line, "POST /Echo HTTP/1.1");
    assert_eq!(both.header("content-type"), "application/json");
    assert_eq!(both.header("timeout"), "20.0");
    assert_eq!(classic(&both).unwrap(), btauth(&both).unwrap());
    assert!(classic(&old).is_ok() && btauth(&old).is_err());
    assert!(classic(&new).is_err() && btauth(&new).is_ok());
    assert!(!old.has(btauth::HOTKEY_HEADER) && !new.has("bt_header_dendrite_signature"));
    // The body is the whole object, which both sides' parsers know.
    let body: serde_json::Value = serde_json::from_str(&both.body).unwrap();
    assert_eq!((&body["name"], &body["text"], &body["timeout"]), (&"Echo".into(), &"hi".into(), &20.0.into()));
    assert_eq!(body["axon"]["hotkey"], key("Alice").hotkey().to_string());
    assert_eq!(body["dendrite"].as_object().unwrap().len(), 10);
    assert_eq!(Envelope::<Echo>::read(both.body.as_bytes()).unwrap().own.text, "hi");
}

#[tokio::test]
async fn requests_that_overlap_have_uuids_of_their_own_and_others_have_not() {
    let wait = Duration::from_millis(100);
    let server = Server::start(move |_| Answer::After(wait, Box::new(Answer::Keep(success())))).await;
    let bob = bob();
    let ask = async || assert!(bob.ask(&server.peer, &Ping {}, LONG).await.answer.is_ok());
    tokio::join!(ask(), ask());
    ask().await;
    let uuids: Vec<_> = server.requests().iter().map(|r| r.header("bt_header_dendrite_uuid").to_owned()).collect();
    assert_ne!(uuids[0], uuids[1]);
    assert!(uuids[..2].contains(&uuids[2]), "{uuids:?}");
}

#[tokio::test]
async fn a_peer_that_signed_once_is_sent_nothing_that_could_be_stripped_of_its_bodys_signature() {
    let signing = |by: &'static str| {
        Server::start(move |request| {
            let signature = sign_reply(&key(by), 200, b"{}", btauth(request).unwrap(), &key("Bob").hotkey());
            let line = format!("x-compute-reply-signature: {signature}");
            Answer::Keep(http(200, &[&line, "bt_header_axon_status_code: 200"], "{}"))
        })
    };
    let (peer, liar) = (signing("Alice").await, signing("Charlie").await);
    let moved = Server::start(|_| Answer::Keep(success())).await;
    let bob = bob();
    let old = |server: &Server| -> Vec<bool> {
        server.requests().iter().map(|r| r.has("bt_header_dendrite_signature")).collect()
    };
    for server in [&liar, &moved, &liar, &peer, &peer, &moved] {
        assert!(bob.ask(&server.peer, &Ping {}, LONG).await.answer.is_ok());
    }
    assert_eq!((old(&liar), old(&peer)), (vec![true, true], vec![true, false]), "only its own signature teaches");
    assert_eq!(old(&moved), [true, false], "known by its hotkey, wherever it is");
    assert!(btauth(&moved.requests()[1]).is_ok());
    let reply = bob.ask_signed(&moved.peer, &Ping {}, LONG, Schemes::Classic).await;
    assert!(reply.answer.is_ok() && old(&moved) == [true, false, true], "unless told otherwise");
}

#[tokio::test]
async fn a_clock_that_is_set_back_an_hour_costs_no_peer_of_any_age() {
    // As servers of the SDK judge: nonces of a pair of hotkey and uuid rise, and a pair is kept for ever.
    let pairs = Mutex::new(HashMap::<String, u64>::new());
    let rising = move |request: &Arrived| {
        let nonce = classic(request).unwrap();
        let mut pairs = pairs.lock().unwrap();
        let last = pairs.insert(request.header("bt_header_dendrite_uuid").to_owned(), nonce);
        Answer::Keep(if last.is_none_or(|last| last < nonce) { success() } else { http(401, &[], "{}") })
    };
    let server = Server::start(rising).await;
    let hour = Duration::from_secs(3600).as_nanos() as u64;
    let now = 1_800_000_000_000_000_000;
    let clock = Arc::new(ManualClock::at_ns(now));
    let bob = Dendrite::new(key("Bob"), clock.clone(), None).unwrap();
    let clocks = [now, now - 1_000, now - hour, now - hour, now - 2 * hour, now, now - hour];
    for now in clocks {
        clock.set_ns(now);
        let reply = bob.ask(&server.peer, &Ping {}, LONG).await;
        assert!(reply.answer.is_ok(), "{now}: {reply:?}");
    }
    for (request, now) in server.requests().iter().zip(clocks) {
        let nonce = btauth(request).unwrap();
        assert!(nonce.abs_diff(now) < 1_000_000_000, "{nonce} is fresh at {now}");
    }
    let uuids: HashSet<_> = server.requests().iter().map(|r| r.header("bt_header_dendrite_uuid").to_owned()).collect();
    assert_eq!(uuids.len(), 4, "one more for each jump back, and no more than that");
}

#[tokio::test]
async fn a_reply_changes_nothing_of_what_was_asked_or_of_whom() {
    // The type has no place for it: only the output can be read.
    let body = r#"{"text":"CHANGED","output":{"a":1},"axon":{"hotkey":"5Evil"},"dendrite":7,"timeout":"soon"}"#;
    let server = Server::start(move |_| Answer::Keep(http(200, &["bt_header_axon_status_code: 200"], body))).await;
    let asked = echo();
    let reply = bob().ask(&server.peer, &asked, LONG).await;
    assert_eq!(reply.answer.unwrap().output["a"], 1);
    assert_eq!(asked.text, "hi");
}

#[tokio::test]
async fn a_signed_reply_is_told_from_an_unsigned_and_from_a_falsely_signed_one() {
    let signed = |by: &'static str, over: &'static str| {
        Server::start(move |request| {
            let (nonce, bob) = (classic(request).unwrap(), key("Bob").hotkey());
            let signature = sign_reply(&key(by), 200, over.as_bytes(), nonce, &bob);
            let line = format!("x-compute-reply-signature: {signature}");
            Answer::Keep(http(200, &[&line, "bt_header_axon_status_code: 200"], "{}"))
        })
    };
    let held = bob().ask(&signed("Alice", "{}").await.peer, &Ping {}, LONG).await;
    let ReplySigner::Peer(proof) = held.signer else { panic!("{held:?}") };
    assert!(proof.holds(&key("Alice").hotkey(), &key("Bob").hotkey()));
    for (by, over) in [("Charlie", "{}"), ("Alice", "{ }")] {
        let reply = bob().ask(&signed(by, over).await.peer, &Ping {}, LONG).await;
        assert!(reply.answer.is_ok() && reply.signer == ReplySigner::Unknown, "{reply:?}");
    }
}

#[tokio::test]
async fn an_axon_at_an_address_of_ipv6_is_asked() {
    let server = Server::at("[::1]:0".parse().unwrap(), |_| Answer::Keep(success())).await;
    assert!(bob().ask(&server.peer, &Ping {}, LONG).await.answer.is_ok());
    let requests = server.requests();
    assert_eq!(requests[0].header("host"), server.peer.addr.to_string());
    assert_eq!(requests[0].header("bt_header_axon_ip"), "::1");
    let gone = Peer { addr: "[::1]:1".parse().unwrap(), ..server.peer };
    assert_eq!(bob().ask(&gone, &Ping {}, LONG).await.text(), "Service unavailable at [::1]:1/Synapse");
}

#[tokio::test]
async fn failures_have_the_status_and_the_text_that_the_sdk_gives_them() {
    let nobody = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let closed = Peer { hotkey: key("Alice").hotkey(), addr: nobody.local_addr().unwrap() };
    drop(nobody);
    let reply = bob().ask(&closed, &echo(), LONG).await;
    assert_eq!((reply.code(), reply.text()), (Some(503), format!("Service unavailable at {}/Echo", closed.addr)));

    let silent = Server::start(|_| Answer::After(LONG, Box::new(Answer::Close(Vec::new())))).await;
    let reply = bob().ask(&silent.peer, &echo(), Duration::from_millis(50)).await;
    assert_eq!((reply.code(), reply.text()), (Some(408), "Request timeout after 0.05 seconds".to_owned()));
    assert_eq!(reply.answer.unwrap_err().cause(), UnknownCause::Timeout);

    let huge = format!("{{\"output\":{{\"a\":\"{}\"}}}}", "x".repeat(MAX_CLASSIC_REPLY));
    let huge = Server::start(move |_| Answer::Keep(http(200, &["bt_header_axon_status_code: 200"], &huge))).await;
    let reply = bob().ask(&huge.peer, &echo(), LONG).await;
    assert!(matches!(reply.answer, Err(AskError::Parse(_))) && reply.code() == Some(422), "{reply:?}");

    // A head without end: cut off by the HTTP library.
    let bomb = Server::start(|_| Answer::Close(http(200, &["x: y"; 5_000], "{}"))).await;
    let reply = bob().ask(&bomb.peer, &echo(), LONG).await;
    assert!(matches!(reply.answer, Err(AskError::ClientResponse(_))), "{reply:?}");

    // TEST-NET-1: no machine has it.
    let elsewhere = Some([192, 0, 2, 1].into());
    let bob = Dendrite::new(key("Bob"), std::sync::Arc::new(compute_subnet::clock::SystemClock), elsewhere).unwrap();
    let reply = bob.ask(&silent.peer, &echo(), LONG).await;
    assert!(matches!(reply.answer, Err(AskError::Own(_))) && reply.code().is_none(), "{reply:?}");
}

#[tokio::test]
async fn an_error_whose_headers_say_200_is_no_success() {
    let reply = http(500, &["bt_header_axon_status_code: 200"], r#"{"message":"no"}"#);
    let server = Server::start(move |_| Answer::Keep(reply.clone())).await;
    let reply = bob().ask(&server.peer, &echo(), LONG).await;
    assert_eq!(reply.answer.unwrap_err(), AskError::Server { code: 500, message: "no".to_owned() });
    // A status given twice could be read in two ways.
    let twice = http(200, &["bt_header_axon_status_code: 200", "bt_header_axon_status_code: 403"], "{}");
    let server = Server::start(move |_| Answer::Keep(twice.clone())).await;
    assert_eq!(bob().ask(&server.peer, &echo(), LONG).await.code(), Some(422));
}
