//! The dendrites of SDK 9.0.0 and 10.5.0 call a miner of ours as the compute subnet's validators of 1.8.3 do: every
//! synapse, every mode of `Allocate`, and what has to be refused.

use serde_json::{Map, Value, json};

use crate::checks::Checks;
use crate::common::inside;
use crate::driver::Driver;
use crate::node::{Node, hotkey};

/// The dendrite and whom it calls.
struct Caller<'a> {
    sdk: Driver,
    node: &'a Node,
}

impl Caller<'_> {
    fn job(&self, synapse: &str, fields: &Value, more: Value) -> Value {
        let axon = json!({
            "ip": self.node.axon.ip().to_string(), "port": self.node.axon.port(), "hotkey": self.node.hotkey.to_string()
        });
        let mut job = json!({ "as": "//Bob", "synapse": synapse, "fields": fields, "axon": axon });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    }

    /// What the dendrite makes of the answer to `//Bob`'s call, or to one that is changed by `more`.
    async fn call(&mut self, synapse: &str, fields: &Value, more: Value) -> Value {
        let job = self.job(synapse, fields, more);
        self.sdk.ask(json!({ "call": job })).await
    }

    /// A call of `Allocate` that the dendrite calls a success, whose other fields come back as they went: its `output`.
    async fn allocate(&mut self, checks: &mut Checks, what: &str, fields: Value) -> Map<String, Value> {
        let reply = self.call("Allocate", &fields, json!({})).await;
        checks.that(&format!("{what}: is_success"), succeeded(&reply), &reply);
        let same = fields.as_object().unwrap().iter().all(|(name, value)| reply["fields"][name] == *value);
        checks.that(&format!("{what}: the request comes back"), same, &reply["fields"]);
        reply["fields"]["output"].as_object().cloned().unwrap_or_default()
    }

    /// An output with the port that stands beside every answer which tells of no container: the configured one.
    fn status(&self, status: bool) -> Map<String, Value> {
        outputs(json!({ "status": status, "port": self.node.ssh_port }))
    }
}

fn succeeded(reply: &Value) -> bool {
    reply["is_success"] == true && reply["status"] == 200 && reply["axon_status"] == 200
}

fn outputs(output: Value) -> Map<String, Value> {
    output.as_object().cloned().unwrap()
}

fn action(action: &str, key: &str) -> Value {
    let action =
        json!({ "action": action, "ssh_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK other", "key_type": "user" });
    json!({ "checking": false, "timeline": 0, "docker_change": true, "docker_action": action, "public_key": key })
}

/// What a validator of 1.8.3 asks for when it tests a miner.
fn requirement() -> Value {
    json!({
        "cpu": { "count": 1 }, "gpu": { "count": 1, "capacity": 0, "type": "" },
        "hard_disk": { "capacity": 1_073_741_824_u64 }, "ram": { "capacity": 1_073_741_824.0 }, "testing": true
    })
}

fn rent(key: &str) -> Value {
    let docker = json!({
        "base_image": "ubuntu", "ssh_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIK test", "ssh_port": 4444,
        "volume_path": "/tmp", "dockerfile": ""
    });
    json!({
        "checking": false, "timeline": 1, "device_requirement": requirement(), "public_key": key,
        "docker_requirement": docker
    })
}

fn probe(timeline: i64, key: &str) -> Value {
    json!({ "checking": true, "timeline": timeline, "device_requirement": requirement(), "public_key": key })
}

fn give_back(key: &str) -> Value {
    json!({ "checking": false, "timeline": 0, "public_key": key })
}

/// Everything that gets an answer.
async fn served(caller: &mut Caller<'_>, checks: &mut Checks) {
    let keys = caller.sdk.ask(json!({ "keys": 2 })).await["public"].take();
    let (key, other) = (keys[0].as_str().unwrap(), keys[1].as_str().unwrap());

    let reply = caller.call("Synapse", &json!({}), json!({})).await;
    checks.that("Synapse", succeeded(&reply), &reply);
    let reply =
        caller.call("Challenge", &json!({ "challenge_difficulty": 9, "challenge_mask": "?1" }), json!({})).await;
    checks.that("Challenge", succeeded(&reply), &reply);
    let fields = &reply["fields"];
    let same = fields["output"] == json!({}) && fields["challenge_difficulty"] == 9 && fields["challenge_mask"] == "?1";
    checks.that("Challenge is answered with nothing, as the original does", same, fields);
    let reply = caller.call("Specs", &json!({}), json!({})).await;
    checks.that("Specs", succeeded(&reply), &reply);
    let specs = serde_json::from_str::<Value>(reply["fields"]["specs_output"].as_str().unwrap_or_default());
    checks.that("Specs are JSON", specs.is_ok_and(|s| s["cpu"].is_object()), &reply["fields"]);

    let output = caller.allocate(checks, "probe, free", probe(1, "")).await;
    checks.same("probe, free", output, caller.status(true));
    let output = caller.allocate(checks, "ownership, free", probe(0, key)).await;
    checks.same("ownership, free", output, caller.status(false));
    let output = caller.allocate(checks, "deallocate, free", give_back(key)).await;
    checks.same("deallocate, free", output, caller.status(false));

    rented(caller, checks, key, other).await;

    let output = caller.allocate(checks, "probe, free again", probe(1, "")).await;
    checks.same("probe, free again", output, caller.status(true));
    at_once(caller, checks, key).await;
}

async fn rented(caller: &mut Caller<'_>, checks: &mut Checks, key: &str, other: &str) {
    let mut output = caller.allocate(checks, "allocate", rent(key)).await;
    let info = output.remove("info").unwrap_or_default();
    let port = output.remove("port").unwrap_or_default();
    checks.same("allocate", output, outputs(json!({ "status": true })));
    let read = caller.sdk.ask(json!({ "decrypt": { "key": 0, "info": info } })).await;
    checks.same("the credentials are one RSA block", read["bytes"].clone(), json!(256));
    let info: Value = serde_json::from_str(read["text"].as_str().unwrap()).unwrap();
    let password = info["password"].as_str().unwrap_or_default();
    let good = password.len() >= 10 && password.bytes().all(|b| b.is_ascii_alphanumeric());
    // A password is no news for whoever reads a test's output, but there is no need for it either.
    checks.that("a password", good, &password.len());
    let rest = json!({ "username": info["username"], "version": info["version"] });
    checks.same("user and version", rest, json!({ "username": "root", "version": 183 }));
    // The engine gives each container a port number of its own, which is not the configured one.
    checks.same("the container's port, in the credentials and beside them", &info["port"], &port);
    let own = port.as_u64().is_some_and(|p| (1..=65_535).contains(&p) && p != u64::from(caller.node.ssh_port));
    checks.that("the container's port is its own", own, &port);

    let (status, changed) = (|status| caller.status(status), outputs(json!({ "status": true, "port": port })));
    let asked = [
        ("probe, rented", probe(1, ""), status(false)),
        ("ownership, the renter's key", probe(0, key), status(true)),
        ("ownership, with white space around", probe(0, &format!("\n{key}\n ")), status(true)),
        ("ownership, another key", probe(0, other), status(false)),
        ("exchange_key", action("exchange_key", key), changed.clone()),
        ("restart", action("restart", key), changed.clone()),
        ("pause", action("pause", key), changed.clone()),
        ("unpause", action("unpause", key), changed.clone()),
        ("pause, again", action("pause", key), changed.clone()),
        ("resume", action("resume", key), changed),
        ("an action that nobody knows", action("dance", key), outputs(json!({ "port": caller.node.ssh_port }))),
        ("allocate, rented", rent(other), status(false)),
        ("ownership, after another's allocate", probe(0, key), status(true)),
        ("pause, another key", action("pause", other), status(false)),
        ("deallocate, another key", give_back(other), status(false)),
        ("ownership, after another's deallocate", probe(0, key), status(true)),
        ("deallocate, the renter's key", give_back(key), status(true)),
        ("ownership, given back", probe(0, key), status(false)),
    ];
    for (what, fields, expected) in asked {
        let output = caller.allocate(checks, what, fields).await;
        checks.same(what, output, expected);
    }
}

/// Three ask for the one device at the same time.
async fn at_once(caller: &mut Caller<'_>, checks: &mut Checks, key: &str) {
    let job = caller.job("Allocate", &rent(key), json!({ "timeout": 30 }));
    let replies = caller.sdk.ask(json!({ "calls": [job, job, job] })).await;
    let replies = replies.as_array().unwrap();
    checks.that("at the same time: is_success", replies.iter().all(succeeded), &replies);
    let got = replies.iter().filter(|r| r["fields"]["output"]["status"] == true).count();
    let none = replies.iter().filter(|r| r["fields"]["output"]["status"] == false).count();
    checks.same("at the same time: one is given it, two are not", (got, none), (1, 2));
    let output = caller.allocate(checks, "deallocate, the one", give_back(key)).await;
    checks.same("deallocate, the one", output, caller.status(true));
}

/// What is asked, what is different about the request, and the status and the beginning of the text of its refusal.
async fn refused(caller: &mut Caller<'_>, checks: &mut Checks) {
    const MISMATCH: &str = "Not Verified with error: Signature mismatch with ";
    const STALE: &str = "Not Verified with error: Nonce is too old";
    let bob = hotkey("Bob").to_string();
    let elsewhere = json!({
        "ip": caller.node.axon.ip().to_string(), "port": caller.node.axon.port(), "hotkey": hotkey("Charlie").to_string()
    });
    let cases = [
        ("a caller whom nobody knows", json!({ "as": "//Charlie" }), 403, "Forbidden. Key is blacklisted: "),
        ("another's name", json!({ "as": "//Charlie", "after_signing": { "hotkey": bob } }), 401, MISMATCH),
        ("signed for another axon", json!({ "axon": elsewhere }), 401, MISMATCH),
        ("another uuid", json!({ "after_signing": { "uuid": "not-the-one" } }), 401, MISMATCH),
        (
            "an unsigned request",
            json!({ "after_signing": { "signature": null } }),
            401,
            "Not Verified with error: Missing Signature",
        ),
        (
            "a signature without 0x",
            json!({ "after_signing": { "signature": "ab".repeat(64) } }),
            401,
            "Not Verified with error: ",
        ),
        ("no nonce", json!({ "after_signing": { "nonce": null } }), 401, "Not Verified with error: Missing Nonce"),
        ("a nonce that is 60 s old", json!({ "clock_s": -60 }), 401, STALE),
        ("a nonce that is an hour old, with a long timeout", json!({ "clock_s": -3600, "timeout": 36000 }), 401, STALE),
        ("a nonce that is an hour ahead", json!({ "clock_s": 3600 }), 401, "Not Verified with error: "),
    ];
    for (what, more, code, text) in cases {
        let reply = caller.call("Allocate", &probe(1, ""), more).await;
        let says = reply["message"].as_str().unwrap_or_default();
        let right = reply["status"] == code && reply["is_success"] == false && says.starts_with(text);
        checks.that(what, right, &reply);
        checks.same(&format!("{what}: no output"), reply["fields"]["output"].clone(), json!({}));
    }
    let first = caller.call("Allocate", &probe(1, ""), json!({})).await;
    checks.that("a call after all these", succeeded(&first), &first);
    let again = caller.call("Allocate", &probe(1, ""), json!({ "again": true })).await;
    let says = again["message"].as_str().unwrap_or_default();
    checks.that("a replay", again["status"] == 401 && says.starts_with(STALE), &again);
    let unknown = caller.call("Slow", &json!({}), json!({})).await;
    let says = unknown["message"].as_str().unwrap_or_default();
    let right = unknown["status"] == 404 && says.starts_with("Synapse name 'Slow' not found. Available synapses [");
    checks.that("a synapse that nobody knows", right && says.contains("'Allocate'"), &unknown);
}

fn dendrite_of(version: &'static str) {
    inside(async |runtime| {
        let mut checks = Checks::new(&format!("bittensor {version}, its dendrite at our axon"));
        let node = Node::start(runtime).await;
        let mut caller = Caller { sdk: Driver::start(version, "dendrite.py"), node: &node };
        served(&mut caller, &mut checks).await;
        refused(&mut caller, &mut checks).await;
        drop(caller);
        node.end().await;
        checks.end();
    });
}

#[test]
fn the_dendrite_of_9_0_0_is_served_and_refused_as_by_a_miner_of_1_8_3() {
    dendrite_of("9.0.0");
}

#[test]
fn the_dendrite_of_10_5_0_is_served_and_refused_as_by_a_miner_of_1_8_3() {
    dendrite_of("10.5.0");
}
