//! Our dendrite calls the axons of SDK 9.0.0 and 10.5.0, whose checks are the SDK's defaults: every kind of answer, every
//! kind of failure, and what their handlers saw.

use std::sync::Arc;
use std::time::Duration;

use compute_subnet::clock::SystemClock;
use compute_subnet::wire::classic::headers::zero;
use compute_subnet::wire::classic::{ClassicSynapse, Ping, PyValue, body_hash};
use compute_subnet::wire::dendrite::{ClassicCall, ClassicReply, ReplySigner, Schemes};
use compute_subnet::wire::{Dendrite, Peer};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use crate::checks::Checks;
use crate::common::{LONG, free_ports, inside};
use crate::driver::Driver;
use crate::node::{hotkey, key};

/// What every class here answers with.
#[derive(Debug, Deserialize)]
struct Output {
    output: Value,
}

/// A class of the drivers' `synapses.py`: its name, its fields, and those that are hashed or have no default.
macro_rules! classes {
    ($($name:ident { $($field:ident: $kind:ty),* } hashed [$($hashed:ident),*] required [$($required:ident: $zero:ident),*])*) => { $(
        #[derive(Clone, Serialize, Deserialize)]
        struct $name { $($field: $kind),* }
        impl ClassicSynapse for $name {
            const NAME: &'static str = stringify!($name);
            const REQUIRED: &'static [(&'static str, &'static str)] = &[$((stringify!($required), zero::$zero)),*];
            fn hashed(&self) -> Vec<PyValue> {
                vec![$(self.$hashed.clone().into()),*]
            }
        }
        impl ClassicCall for $name {
            type Output = Output;
        }
    )* };
}

classes! {
    Hashed { text: PyValue, number: PyValue, ratio: PyValue, flag: PyValue, items: PyValue, mapping: PyValue }
        hashed [text, number, ratio, flag, items, mapping] required []
    Needed { word: String, count: i64 } hashed [] required [word: STR, count: INT]
    Slow {} hashed [] required []
    Crash {} hashed [] required []
    Forbidden {} hashed [] required []
    Busy {} hashed [] required []
    Nowhere {} hashed [] required []
}

/// The original's classes as our node has them, and any output.
macro_rules! originals {
    ($($name:ident)*) => { $(
        #[derive(Serialize, Deserialize)]
        #[serde(transparent)]
        struct $name(compute_subnet::wire::synapse::original::$name);
        impl ClassicSynapse for $name {
            const NAME: &'static str = stringify!($name);
        }
        impl ClassicCall for $name {
            type Output = Output;
        }
        impl $name {
            /// With these fields, the others as they are by default.
            fn with(fields: Value) -> Self {
                serde_json::from_value(fields).unwrap()
            }
        }
    )* };
}
originals! { Allocate Challenge }

fn hashed(json: [&str; 6]) -> Hashed {
    let [text, number, ratio, flag, items, mapping] = json.map(|json| serde_json::from_str(json).unwrap());
    Hashed { text, number, ratio, flag, items, mapping }
}

struct Caller {
    dendrite: Dendrite,
    peer: Peer,
}

impl Caller {
    async fn ask<S: ClassicCall>(&self, synapse: &S) -> ClassicReply<S::Output> {
        self.dendrite.ask(&self.peer, synapse, LONG).await
    }

    /// The output of a call that succeeds.
    async fn output<S: ClassicCall<Output = Output>>(&self, checks: &mut Checks, what: &str, synapse: &S) -> Value {
        let reply = self.ask(synapse).await;
        checks.that(&format!("{what}: nobody signs it"), reply.signer == ReplySigner::Nobody, &reply.signer);
        checks.that(what, reply.answer.is_ok(), &reply.answer);
        reply.answer.map(|answer| answer.output).unwrap_or_default()
    }
}

/// That a call failed so, in the SDK's words.
fn failed<T: std::fmt::Debug>(checks: &mut Checks, what: &str, reply: &ClassicReply<T>, code: u16, text: &str) {
    let right = reply.code() == Some(code) && reply.answer.is_err() && reply.text().starts_with(text);
    checks.that(what, right, &(reply.code(), reply.text()));
}

async fn answered(caller: &Caller, checks: &mut Checks) {
    let reply = caller.ask(&Ping {}).await;
    checks.that("Synapse", reply.answer.is_ok(), &reply.answer);

    let wish = json!({ "cpu": { "count": 1 }, "ram": { "capacity": 1_073_741_824.0 } });
    let asked = [
        ("probe", json!({ "timeline": 1, "device_requirement": wish }), json!({ "status": true, "port": 4444 })),
        ("ownership", json!({ "timeline": 0, "public_key": "a key" }), json!({ "status": false, "port": 4444 })),
        (
            "allocate",
            json!({ "timeline": 1, "checking": false, "public_key": "the key" }),
            json!({ "status": true, "info": "aW5mbw==", "port": 4444 }),
        ),
        (
            "deallocate",
            json!({ "timeline": 0, "checking": false, "public_key": "the key" }),
            json!({ "status": true, "port": 4444 }),
        ),
    ];
    for (what, fields, expected) in asked {
        let output = caller.output(checks, what, &Allocate::with(fields)).await;
        checks.same(what, output, expected);
    }
    let challenge = Challenge::with(json!({ "challenge_difficulty": 9, "challenge_mask": "?1" }));
    let output = caller.output(checks, "Challenge", &challenge).await;
    checks.same("Challenge", output, json!({ "password": "found", "local_execution_time": 1.5 }));

    let values = [
        [r#""""#, "0", "0.0", "false", "[]", "{}"],
        [
            r#""h\u00e9llo \"w\" 'q' \n\t""#,
            "42",
            "0.1",
            "true",
            r#"[1,"two",3.0,null,[true,{"k":"v's"}]]"#,
            r#"{"b":1,"a":{"x":[1.5,1e16,1e-7]}}"#,
        ],
        [
            r#""\u0000\ud83d\ude00""#,
            "-7",
            "1e22",
            "false",
            r#"["\u200b\u00a0"]"#,
            r#"{"z":-0.0,"big":123456789012345678901234567890}"#,
        ],
    ];
    for (i, json) in values.into_iter().enumerate() {
        let synapse = hashed(json);
        let ours = body_hash(&synapse.hashed());
        let output = caller.output(checks, &format!("hashed fields {i}"), &synapse).await;
        checks.same(&format!("the hash of hashed fields {i}"), output["body_hash"].clone(), json!(ours));
    }
    let output = caller.output(checks, "fields without default", &Needed { word: "w".into(), count: 3 }).await;
    checks.same("fields without default", output, json!({ "word": "w", "count": 3 }));
}

async fn unanswered(caller: &Caller, checks: &mut Checks) {
    failed(checks, "a handler that crashes", &caller.ask(&Crash {}).await, 500, "Internal Server Error #");
    let refused = "Forbidden. Key is blacklisted: Unrecognized hotkey.";
    failed(checks, "a caller who is refused", &caller.ask(&Forbidden {}).await, 403, refused);
    failed(checks, "a handler's own status", &caller.ask(&Busy {}).await, 429, "Busy");
    let missing = "Synapse name 'Nowhere' not found. Available synapses [";
    failed(checks, "a class that is not served", &caller.ask(&Nowhere {}).await, 404, missing);
    let slow = caller.dendrite.ask(&caller.peer, &Slow {}, Duration::from_secs(1)).await;
    failed(checks, "a handler that is too slow", &slow, 408, "Request timeout after 1.0 seconds");

    let probe = Allocate::with(json!({ "timeline": 1 }));
    let stranger = Peer { hotkey: hotkey("Charlie"), ..caller.peer };
    let reply = caller.dendrite.ask(&stranger, &probe, LONG).await;
    failed(checks, "another axon's address", &reply, 401, "Not Verified with error: Signature mismatch with ");
    let reply = caller.dendrite.ask_signed(&caller.peer, &probe, LONG, Schemes::Btauth).await;
    failed(checks, "btauth/1 alone, which it does not know", &reply, 401, "Not Verified with error: ");
    let reply = caller.dendrite.ask_signed(&caller.peer, &probe, LONG, Schemes::Classic).await;
    checks.that("classic headers alone", reply.answer.is_ok(), &reply.answer);

    // Somebody who accepts and hangs up, and nobody.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let hangs_up = Peer { addr, ..caller.peer };
    let accept = tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 65_536];
        assert!(stream.read(&mut buffer).await.unwrap() > 0, "it is asked first");
    });
    let reply = caller.dendrite.ask(&hangs_up, &probe, LONG).await;
    failed(checks, "a server that hangs up", &reply, 503, "Service disconnected: Server disconnected");
    accept.await.unwrap();
    let reply = caller.dendrite.ask(&hangs_up, &probe, LONG).await;
    failed(checks, "nobody", &reply, 503, &format!("Service unavailable at {addr}/Allocate"));
}

fn axon_of(version: &'static str) {
    inside(async |_| {
        let mut checks = Checks::new(&format!("bittensor {version}, our dendrite at its axon"));
        let mut sdk = Driver::start(version, "axon.py");
        let port = free_ports();
        let served = sdk.ask(json!({ "serve": { "as": "//Alice", "port": port } })).await;
        checks.same("its hotkey", served["hotkey"].clone(), json!(hotkey("Alice").to_string()));
        let dendrite = Dendrite::new(key("Bob"), Arc::new(SystemClock), None).unwrap();
        let caller = Caller { dendrite, peer: Peer { hotkey: hotkey("Alice"), addr: ([127, 0, 0, 1], port).into() } };

        answered(&caller, &mut checks).await;
        unanswered(&caller, &mut checks).await;
        // Nonces of one caller may overtake each other on the way.
        let many = join_all((0..16).map(|_| async { caller.ask(&Ping {}).await.answer.is_ok() })).await;
        checks.same("16 at the same time", many, vec![true; 16]);

        let seen = sdk.ask(json!({ "seen": true })).await["seen"].take();
        let classes: Vec<&str> = seen.as_array().unwrap().iter().map(|one| one["class"].as_str().unwrap()).collect();
        let expected = [
            "Allocate",
            "Allocate",
            "Allocate",
            "Allocate",
            "Challenge",
            "Hashed",
            "Hashed",
            "Hashed",
            "Needed",
            "Allocate",
        ];
        checks.same("what its handlers saw", classes, expected.to_vec());
        checks.same("who they heard it was", seen[0]["body_says"].clone(), json!(hotkey("Bob").to_string()));
        checks.same("what they were asked for", seen[0]["requirement"]["cpu"]["count"].clone(), json!(1));
        checks.same("and which challenge", seen[4]["mask"].clone(), json!("?1"));
        checks.end();
    });
}

#[test]
fn the_axon_of_9_0_0_serves_our_dendrite_and_its_failures_are_told_as_the_sdk_tells_them() {
    axon_of("9.0.0");
}

#[test]
fn the_axon_of_10_5_0_serves_our_dendrite_and_its_failures_are_told_as_the_sdk_tells_them() {
    axon_of("10.5.0");
}
