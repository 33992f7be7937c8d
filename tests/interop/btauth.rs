//! `btauth/1` with SDK 11: each side accepts what the other signs, and refuses what was changed, is old or comes again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use compute_subnet::clock::SystemClock;
use compute_subnet::wire::btauth;
use compute_subnet::wire::reply::verify_reply;
use compute_subnet::wire::synapse::{SpecsRequest, Synapse as _};
use compute_subnet::wire::{CallError, Dendrite, Peer};
use serde_json::{Value, json};

use crate::checks::Checks;
use crate::common::{LONG, Reply, exchange, inside};
use crate::driver::Driver;
use crate::node::{Node, hotkey, key};

const SDK: &str = "11.3.0";
const SECOND: u64 = 1_000_000_000;
const PATH: &str = SpecsRequest::PATH;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

type Headers = BTreeMap<String, String>;

/// Has the SDK sign a request to our node.
async fn signed(sdk: &mut Driver, node: &Node, more: Value) -> Headers {
    let mut job = json!({
        "as": "//Bob", "method": "POST", "path": PATH, "body": "{}", "receiver": node.hotkey.to_string()
    });
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(sdk.ask(json!({ "sign": job })).await).unwrap()
}

async fn post(node: &Node, headers: &Headers, body: &str) -> Reply {
    let mut head = format!("POST {PATH} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    exchange(node.axon, &head, body.as_bytes()).await
}

/// Status and error of a reply.
fn refusal(reply: &Reply) -> (u16, String) {
    (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn our_axon_accepts_what_the_sdk_signs_and_nothing_else() {
    inside(async |runtime| {
        let mut checks = Checks::new("bittensor 11.3.0, its btauth/1 at our axon");
        let node = Node::start(runtime).await;
        let mut sdk = Driver::start(SDK, "btauth.py");

        let headers = signed(&mut sdk, &node, json!({})).await;
        let reply = post(&node, &headers, "{}").await;
        checks.same("a signed request is answered", reply.status, 200);
        checks.that("with specs", reply.json()["devices"][0]["model"].is_string(), &reply.text());
        let signature = reply.head.lines().find_map(|l| l.strip_prefix("x-compute-reply-signature: "));
        let nonce = headers["X-Bittensor-Nonce"].parse().unwrap();
        let holds = |s| verify_reply(s, 200, &reply.body, nonce, &node.hotkey, &hotkey("Bob"));
        checks.that("and the reply is signed", signature.is_some_and(holds), &reply.head);

        let reply = post(&node, &headers, "{}").await;
        checks.same("a replay", refusal(&reply), (401, "replayed_request".into()));

        let unauthorized = [
            ("another path", json!({ "path": "/ComputeWho" }), "bad_signature"),
            ("a query that was not signed", json!({ "path": format!("{PATH}?x=1") }), "bad_signature"),
            ("another method", json!({ "method": "GET" }), "bad_signature"),
            ("another body", json!({ "body": "{ }" }), "bad_signature"),
            ("ed25519", json!({ "crypto": 0 }), "bad_signature"),
            ("signed for another", json!({ "receiver": hotkey("Charlie").to_string() }), "wrong_receiver"),
            ("signed for nobody", json!({ "receiver": null }), "wrong_receiver"),
            ("a nonce that is 11 s old", json!({ "nonce": now() - 11 * SECOND }), "stale_request"),
            ("a nonce that is 10 s ahead", json!({ "nonce": now() + 10 * SECOND }), "stale_request"),
        ];
        for (what, change, error) in unauthorized {
            let headers = signed(&mut sdk, &node, change).await;
            let reply = post(&node, &headers, "{}").await;
            checks.same(what, refusal(&reply), (401, error.into()));
        }
        for name in ["X-Bittensor-Version", "X-Bittensor-Hotkey", "X-Bittensor-Nonce", "X-Bittensor-Signature"] {
            let mut headers = signed(&mut sdk, &node, json!({})).await;
            headers.remove(name);
            let reply = post(&node, &headers, "{}").await;
            checks.same(&format!("without {name}"), reply.status, 401);
        }
        let mut headers = signed(&mut sdk, &node, json!({ "as": "//Charlie" })).await;
        let reply = post(&node, &headers, "{}").await;
        checks.same("somebody whom nobody knows", reply.status, 403);
        headers.insert("X-Bittensor-Hotkey".into(), hotkey("Bob").to_string());
        let reply = post(&node, &headers, "{}").await;
        checks.same("who takes another's name", refusal(&reply), (401, "bad_signature".into()));
        node.end().await;
        checks.end();
    });
}

#[test]
fn the_sdk_accepts_what_we_sign_and_nothing_else() {
    inside(async |_| {
        let mut checks = Checks::new("bittensor 11.3.0, our btauth/1 at its verifier");
        let mut sdk = Driver::start(SDK, "btauth.py");
        let (alice, bob) = (hotkey("Alice"), key("Bob"));
        let sign = |nonce| -> BTreeMap<&'static str, String> {
            let headers = btauth::sign(&bob, "POST", PATH, b"{}", nonce, &alice);
            headers.iter().map(|(name, value)| (name, value.to_owned())).collect()
        };
        let job = |headers: &BTreeMap<&'static str, String>| json!({ "headers": headers, "body": "{}", "method": "POST", "path": PATH, "receiver": alice.to_string() });
        let accepted = json!({ "caller": bob.hotkey().to_string() });
        let refused = |class: &str| json!({ "error": class });

        let headers = sign(now());
        checks.same("what we sign", sdk.ask(json!({ "verify": job(&headers) })).await, accepted.clone());
        checks.same("a replay", sdk.ask(json!({ "verify": job(&headers) })).await, refused("ReplayedRequest"));
        let changes = [
            ("another body", "body", json!("{ }"), "BadSignature"),
            ("another path", "path", json!("/ComputeWho"), "BadSignature"),
            ("another method", "method", json!("PUT"), "BadSignature"),
            ("for another", "receiver", json!(hotkey("Charlie").to_string()), "WrongReceiver"),
        ];
        for (what, field, value, class) in changes {
            let mut job = job(&sign(now()));
            job[field] = value;
            checks.same(what, sdk.ask(json!({ "verify": job })).await, refused(class));
        }
        for (what, nonce) in [("11 s old", now() - 11 * SECOND), ("10 s ahead", now() + 10 * SECOND)] {
            let said = sdk.ask(json!({ "verify": job(&sign(nonce)) })).await;
            checks.same(what, said, refused("StaleRequest"));
        }
        let mut headers = sign(now());
        headers.insert(btauth::HOTKEY_HEADER, hotkey("Charlie").to_string());
        checks.same("another's name", sdk.ask(json!({ "verify": job(&headers) })).await, refused("BadSignature"));
        headers.remove(btauth::SIGNATURE_HEADER);
        checks.same("unsigned", sdk.ask(json!({ "verify": job(&headers) })).await, refused("MalformedAuth"));

        // The same over HTTP, with our dendrite as it calls.
        let server = sdk.ask(json!({ "listen": { "as": "//Alice" } })).await;
        let port = u16::try_from(server["port"].as_u64().unwrap()).unwrap();
        let peer = Peer { hotkey: alice, addr: ([127, 0, 0, 1], port).into() };
        let dendrite = Dendrite::new(bob.clone(), Arc::new(SystemClock), None).unwrap();
        for _ in 0..3 {
            let reply = dendrite.call(&peer, &SpecsRequest {}, LONG, 1_000).await;
            checks.that("an SDK's reply is unsigned", matches!(reply, Err(CallError::UnsignedReply(200))), &reply);
        }
        let elsewhere = Peer { hotkey: hotkey("Charlie"), ..peer };
        let reply = dendrite.call(&elsewhere, &SpecsRequest {}, Duration::from_secs(10), 1_000).await;
        checks.that("and so for another receiver", reply.is_err(), &reply);
        let heard = sdk.ask(json!({ "heard": true })).await["heard"].take();
        let expected = json!([accepted, accepted, accepted, refused("WrongReceiver")]);
        checks.same("what our dendrite sends over HTTP", heard, expected);
        checks.end();
    });
}
