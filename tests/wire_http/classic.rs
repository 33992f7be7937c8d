//! The original's synapses: either scheme on one port, the SDK's texts, and whom a handler hears of.

use compute_subnet::wire::{Accepts, AxonOutcome, GateRules};
use serde_json::Value;

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
    both.extend(sign_as(&key("Charlie"), "/Told", &body, NOW, &axon.peer.hotkey));
    let reply = ask(&axon, &both, &body).await;
    assert_eq!((reply.status, reply.is_signed()), (200, true));
    assert_eq!(json(&reply)["act"], key("Charlie").hotkey().to_string());
    let reply = ask(&axon, &both, b"{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "bad_signature"));
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
