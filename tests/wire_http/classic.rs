//! The original's synapses: either scheme on one port, the SDK's texts, and whom a handler hears of.

use std::time::Duration;

use compute_subnet::wire::classic::EndpointLimits;
use compute_subnet::wire::synapse::{SpecsRequest, Synapse};
use compute_subnet::wire::{Accepts, AxonLimits, AxonOutcome, GateRules, Rate, Rates};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

fn told(text: &str, act: &str) -> Told {
    Told { text: text.to_owned(), act: act.to_owned() }
}

/// A body that names somebody else as its sender.
fn body_of(synapse: &Told) -> Vec<u8> {
    let mut body = serde_json::to_value(synapse).unwrap();
    body["dendrite"] = serde_json::json!({ "hotkey": key("Eve").hotkey(), "ip": "9.9.9.9" });
    serde_json::to_vec(&body).unwrap()
}

async fn ask(axon: &Axon, headers: &[(String, String)], body: &[u8]) -> RawReply {
    raw_post(axon.peer.addr, "/Told", headers, body).await
}

async fn ask_as(axon: &Axon, who: &str, synapse: &Told, uuid: &str) -> RawReply {
    ask(axon, &classic_as(who, synapse, NOW, uuid), &body_of(synapse)).await
}

fn json(reply: &RawReply) -> Value {
    serde_json::from_slice(&reply.body).unwrap()
}

fn message(reply: &RawReply) -> String {
    json(reply)["message"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn the_handler_and_the_reply_know_the_proved_caller_only() {
    let axon = Axon::start().await;
    let reply = ask_as(&axon, "Bob", &told("hello", ""), "u").await;
    let (bob, alice) = (key("Bob").hotkey().to_string(), key("Alice").hotkey().to_string());
    let body = json(&reply);
    assert_eq!((reply.status, body["act"].as_str()), (200, Some(bob.as_str())));
    assert_eq!(body["dendrite"]["hotkey"], bob);
    assert_eq!(body["dendrite"]["ip"], "127.0.0.1");
    assert_eq!((&body["axon"]["hotkey"], &body["axon"]["status_code"]), (&Value::from(alice), &Value::from(200)));
    assert!(reply.head.contains(&format!("bt_header_dendrite_hotkey: {}", bob.to_lowercase())), "{}", reply.head);
    assert!(reply.head.contains("bt_header_axon_status_code: 200") && !reply.is_signed());
    assert_eq!(axon.events.last(), Some(("Told", AxonOutcome::Ok, Some(key("Bob").hotkey()))));
}

#[actix_web::test]
async fn what_is_not_as_signed_is_refused_in_the_words_of_the_sdk() {
    let axon = Axon::start().await;
    let good = told("hello", "");
    let replay = ask_as(&axon, "Bob", &good, "u").await;
    assert_eq!(replay.status, 200);
    let replay = ask_as(&axon, "Bob", &good, "u").await;
    assert_eq!(replay.status, 401);
    assert_eq!(message(&replay), "Not Verified with error: Nonce is too old, a newer one was last processed");

    let headers = classic_as("Bob", &good, NOW, "v");
    let reply = ask(&axon, &headers, &body_of(&told("goodbye", ""))).await;
    assert_eq!(reply.status, 500);
    assert!(message(&reply).starts_with("Internal Server Error #"), "{}", message(&reply));
    assert_eq!(axon.events.last(), Some(("Told", AxonOutcome::BodyHash, Some(key("Bob").hotkey()))));

    let dave = ask_as(&axon, "Dave", &good, "w").await;
    assert_eq!((dave.status, message(&dave).as_str()), (403, "Forbidden. Key is blacklisted: on the deny-list."));
    assert_eq!(axon.events.last(), Some(("Told", AxonOutcome::NotAdmitted, None)), "nobody was proved");
    assert_eq!(ask_as(&axon, "Eve", &good, "w").await.status, 503);
    assert_eq!(axon.handled(), 1);
}

#[actix_web::test]
async fn a_handler_that_declines_sends_the_whole_synapse_and_one_that_fails_a_number() {
    let axon = Axon::start().await;
    let reply = ask_as(&axon, "Bob", &told("hello", "busy"), "u").await;
    assert_eq!((reply.status, json(&reply)["text"].as_str()), (429, Some("hello")));
    assert_eq!(json(&reply)["axon"]["status_message"], "Busy ✓");
    assert!(reply.head.contains("bt_header_axon_status_message: busy ?"), "{}", reply.head);
    for act in ["fail", "panic"] {
        let reply = ask_as(&axon, "Bob", &told("hello", act), act).await;
        assert_eq!(reply.status, 500);
        assert!(message(&reply).starts_with("Internal Server Error #") && !message(&reply).contains("secret"));
    }
    assert_eq!(axon.events.outcomes(), [AxonOutcome::Refused, AxonOutcome::Failed, AxonOutcome::Panic]);
}

#[actix_web::test]
async fn a_request_under_btauth_never_falls_back_to_the_classic_scheme() {
    let axon = Axon::start().await;
    let synapse = told("hello", "");
    let body = body_of(&synapse);
    let mut both = classic_as("Bob", &synapse, NOW, "u");
    both.extend(sign_as(&key("Bob"), "/Told", &body, NOW, &axon.peer.hotkey));
    let reply = ask(&axon, &both, b"{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "bad_signature"));
    let reply = ask(&axon, &both, &body).await;
    assert_eq!((reply.status, reply.is_signed()), (200, true));
}

#[actix_web::test]
async fn what_was_served_under_btauth_is_used_up_under_the_classic_scheme_too() {
    let axon = Axon::start().await;
    let synapse = told("hello", "");
    let body = body_of(&synapse);
    let classic = classic_as("Bob", &synapse, NOW, "u");
    let mut both = classic.clone();
    both.extend(sign_as(&key("Bob"), "/Told", &body, NOW, &axon.peer.hotkey));
    assert_eq!(ask(&axon, &both, &body).await.status, 200);
    // Whoever saw it takes away what signs the body, and sends another one: no classic hash covers `act`.
    let taken = ask(&axon, &classic, &body_of(&told("hello", "something else"))).await;
    assert_eq!(taken.status, 401);
    assert!(message(&taken).ends_with("Nonce is too old, a newer one was last processed"), "{}", message(&taken));

    // Another nonce or hotkey beside would be another request, which nothing uses up.
    for (who, nonce) in [("Charlie", NOW + 1), ("Bob", NOW + 2)] {
        let mut both = classic_as(who, &synapse, nonce, "u");
        both.extend(sign_as(&key("Bob"), "/Told", &body, NOW + 1, &axon.peer.hotkey));
        let reply = ask(&axon, &both, &body).await;
        assert_eq!((reply.status, reply.error().as_str()), (401, "malformed_auth"), "{who}");
    }
}

#[actix_web::test]
async fn a_scheme_that_is_not_accepted_is_named() {
    let synapse = told("hello", "");
    let body = body_of(&synapse);
    let classic = classic_as("Bob", &synapse, NOW, "u");
    let signed = |axon: &Axon| sign_as(&key("Bob"), "/Told", &body, NOW, &axon.peer.hotkey);

    let axon = Axon::under(GateRules::default(), Accepts { btauth: true, classic: false }).await;
    let reply = ask(&axon, &classic, &body).await;
    assert_eq!(reply.status, 401);
    assert!(message(&reply).contains("classic scheme is not accepted"), "{}", message(&reply));
    assert_eq!(ask(&axon, &signed(&axon), &body).await.status, 200);

    let axon = Axon::under(GateRules::default(), Accepts { btauth: false, classic: true }).await;
    let reply = ask(&axon, &signed(&axon), &body).await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "scheme_refused"));
    let mut both = signed(&axon);
    both.extend(classic.clone());
    assert_eq!(ask(&axon, &both, &body).await.status, 200, "judged by the scheme that is accepted");
    let own = axon.post(&axon.signed(b"{}"), b"{}").await;
    assert_eq!((own.status, own.error().as_str()), (401, "scheme_refused"));
}

#[actix_web::test]
async fn an_unknown_synapse_hears_what_there_is() {
    let axon = Axon::start().await;
    let reply = raw_post(axon.peer.addr, "/Nope?x=1", &[], b"{}").await;
    assert_eq!(reply.status, 404);
    assert_eq!(message(&reply), "Synapse name 'Nope' not found. Available synapses ['Synapse', 'Told']");
    let reply = raw_post(axon.peer.addr, "/Told/extra", &[], b"{}").await;
    assert_eq!((reply.status, json(&reply)["detail"].as_str()), (404, Some("Not Found")));
}

async fn with_limits(limits: AxonLimits) -> Axon {
    Axon::under(GateRules { limits, ..GateRules::default() }, Accepts::BOTH).await
}

#[actix_web::test]
async fn bodies_and_heads_beyond_the_limits_are_refused_before_they_cost_anything() {
    let axon = with_limits(AxonLimits { max_body_bytes: 2_000, max_headers: 30, ..AxonLimits::default() }).await;
    let synapse = told(&"x".repeat(3_000), "");
    let reply = ask_as(&axon, "Bob", &synapse, "u").await;
    assert_eq!((reply.status, message(&reply).as_str()), (413, "the body exceeds 2000 bytes"));

    let synapse = told("hello", "");
    let mut many = classic_as("Bob", &synapse, NOW, "v");
    many.extend((0..20).map(|n| (format!("x-{n}"), "y".to_owned())));
    assert_eq!(ask(&axon, &many, &body_of(&synapse)).await.status, 431);
    let mut large = classic_as("Bob", &synapse, NOW, "v");
    large.push(("x-large".to_owned(), "y".repeat(17_000)));
    assert_eq!(ask(&axon, &large, &body_of(&synapse)).await.status, 431);
    let own = axon.post(&large, b"{}").await;
    assert_eq!((own.status, own.error().as_str()), (431, "headers_too_large"));
    use AxonOutcome::{HeadersTooLarge, TooLarge};
    assert_eq!(axon.events.outcomes(), [TooLarge, HeadersTooLarge, HeadersTooLarge, HeadersTooLarge]);
    assert_eq!(axon.handled(), 0);
}

#[actix_web::test]
async fn header_bombs_are_stopped_by_the_server_itself() {
    let axon = Axon::start().await;
    let many: Vec<_> = (0..200).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    assert_eq!(ask(&axon, &many, b"{}").await.status, 431);
    let large = [("x-large".to_owned(), "y".repeat(1 << 20))];
    assert_eq!(ask(&axon, &large, b"{}").await.status, 431);
    assert!(axon.events.outcomes().is_empty(), "the gate never heard of them");
}

#[actix_web::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let axon = with_limits(AxonLimits { body_deadline: Duration::from_millis(50), ..AxonLimits::default() }).await;
    let synapse = told("hello", "");
    let mut head = "POST /Told HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n".to_owned();
    for (name, value) in classic_as("Bob", &synapse, NOW, "u") {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = TcpStream::connect(axon.peer.addr).await.unwrap();
    stream.write_all((head + "\r\n{").as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut reply)).await.expect("answered and closed").unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 408"));
    assert_eq!(axon.events.outcomes(), [AxonOutcome::SlowBody]);
}

#[actix_web::test]
async fn one_too_many_hears_when_to_come_again() {
    let rates = Rates { per_ip: None, per_hotkey: Rate::new(1, 2) };
    let axon = Axon::under(GateRules { rates, ..GateRules::default() }, Accepts::BOTH).await;
    let synapse = told("hello", "");
    for uuid in ["a", "b"] {
        assert_eq!(ask_as(&axon, "Bob", &synapse, uuid).await.status, 200);
    }
    let reply = ask_as(&axon, "Bob", &synapse, "c").await;
    assert_eq!(reply.status, 429);
    assert!(message(&reply).starts_with("too many requests of this hotkey, come again in "), "{}", message(&reply));
    assert!(reply.head.contains("retry-after: "), "{}", reply.head);
    assert_eq!(axon.events.last(), Some(("Told", AxonOutcome::TooManyOfHotkey, Some(key("Bob").hotkey()))));
    let own = axon.post(&axon.signed(b"{}"), b"{}").await;
    assert_eq!((own.status, own.error().as_str(), own.is_signed()), (429, "too_many_of_hotkey", true));
    // Nobody uses up the rate of a hotkey with which they cannot sign.
    for _ in 0..5 {
        let mut forged = classic_as("Bob", &synapse, NOW, "d");
        forged.iter_mut().find(|(n, _)| n.ends_with("_hotkey") && n.contains("dendrite")).unwrap().1 =
            key("Charlie").hotkey().to_string();
        assert_eq!(ask(&axon, &forged, &body_of(&synapse)).await.status, 401);
    }
    assert_eq!(ask_as(&axon, "Charlie", &synapse, "e").await.status, 200);

    let rates = Rates { per_ip: Rate::new(1, 2), per_hotkey: None };
    let axon = Axon::under(GateRules { rates, ..GateRules::default() }, Accepts::BOTH).await;
    assert_eq!(raw_post(axon.peer.addr, "/Nope", &[], b"{}").await.status, 404);
    assert_eq!(ask_as(&axon, "Bob", &synapse, "a").await.status, 200);
    assert_eq!(ask_as(&axon, "Bob", &synapse, "b").await.status, 429);
    assert_eq!(raw_post(axon.peer.addr, SpecsRequest::PATH, &[], b"{}").await.error(), "too_many_of_address");
    assert_eq!(raw_post(axon.peer.addr, "/Nope", &[], b"{}").await.status, 429);
}

#[actix_web::test]
async fn the_table_of_nonces_is_bounded() {
    let endpoints = EndpointLimits { total: 3, per_hotkey: 2 };
    let axon = Axon::under(GateRules { endpoints, ..GateRules::default() }, Accepts::BOTH).await;
    let synapse = told("hello", "");
    assert_eq!(ask_as(&axon, "Bob", &synapse, "a").await.status, 200);
    assert_eq!(ask_as(&axon, "Bob", &synapse, "b").await.status, 200);
    let reply = ask_as(&axon, "Bob", &synapse, "c").await;
    assert_eq!((reply.status, axon.events.last().unwrap().1), (503, AxonOutcome::Overloaded));
    assert_eq!(ask_as(&axon, "Charlie", &synapse, "a").await.status, 200);
}
