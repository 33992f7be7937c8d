//! The original's synapses at a real miner: every mode over HTTP, signed under the classic scheme, and who may do what.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "shared with other tests")]
mod common;
#[path = "bad_input/world.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Reply, inside, until};
use compute_subnet::chain::ledger::LedgerHandle;
use compute_subnet::clock::{Clock as _, SystemClock};
use compute_subnet::ids::Hotkey;
use compute_subnet::lease::{Lease, LeaseState};
use compute_subnet::wallet::Keypair;
use compute_subnet::web::control::ControlClient;
use compute_subnet::web::control::api::MaintenanceWish;
use compute_subnet::wire::classic::{ClassicSynapse, Outgoing, Ping, path, sign};
use compute_subnet::wire::synapse::original::{Allocate, Challenge, Specs};
use rsa::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding};
use rsa::{Oaep, RsaPrivateKey};
use serde_json::{Value, json};
use world::{Running, World, honest, key, now_ns, validator_key};

const KEY: &str = include_str!("vectors/rsa_2048_of_tests.pem");
/// The port that is told beside every answer: not the default.
const PORT: u16 = 4_555;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

fn private() -> RsaPrivateKey {
    RsaPrivateKey::from_pkcs8_pem(KEY).unwrap()
}

/// The renter's public key, as Python writes it.
fn pem() -> String {
    private().to_public_key().to_public_key_pem(LineEnding::LF).unwrap()
}

/// A miner that admits two validators, on a ledger that outlives it.
struct Subnet {
    world: World,
    ledger: LedgerHandle,
    miner: Running,
}

impl Subnet {
    async fn start(runtime: std::sync::Arc<tokio::runtime::Runtime>) -> Self {
        Self::start_with(runtime, |_| {}).await
    }

    async fn start_with(
        runtime: std::sync::Arc<tokio::runtime::Runtime>,
        set: impl FnOnce(&mut compute_subnet::settings::Settings),
    ) -> Self {
        let mut world = World::new(runtime);
        world.settings.miner.ssh_port = PORT;
        world.settings.leases.max_duration = std::time::Duration::from_secs(3 * DAY_MS / 1_000);
        set(&mut world.settings);
        let ledger = world.ledger(&[("Validator", 100_000), ("Second", 100_000), ("Poor", 10), ("Miner", 0)]).await;
        let miner = Self::miner(&world, &ledger).await;
        Subnet { world, ledger, miner }
    }

    async fn miner(world: &World, ledger: &LedgerHandle) -> Running {
        let input = world.input("Miner", world.in_process(ledger, &key("Miner")));
        let miner = world.miner(input, honest()).unwrap();
        until("the miner admits both validators and knows its leases", async || {
            for caller in [validator_key(), key("Second")] {
                let reply = ask(&miner, &caller, &Allocate { timeline: 0, ..Allocate::default() }).await;
                if reply.status != 200 {
                    return None;
                }
            }
            Some(())
        })
        .await;
        miner
    }

    async fn restart(self) -> Self {
        let Subnet { world, ledger, miner } = self;
        miner.end().await;
        let miner = Self::miner(&world, &ledger).await;
        Subnet { world, ledger, miner }
    }

    fn control(&self) -> ControlClient {
        ControlClient::new(self.world.dir.path().join("Miner"))
    }

    /// The leases that the control socket shows.
    async fn leases(&self) -> Vec<Lease> {
        self.control().leases().await.unwrap().leases
    }

    /// What the miner answers to an `Allocate` with these fields.
    async fn output(&self, caller: &Keypair, fields: Value) -> Value {
        let reply = ask(&self.miner, caller, &allocate(fields)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["output"].clone()
    }
}

/// An `Allocate` with these fields, and defaults elsewhere.
fn allocate(fields: Value) -> Allocate {
    serde_json::from_value(fields).unwrap()
}

/// The body that carries `synapse`, as its dendrite would send it.
fn body_of<S: ClassicSynapse>(synapse: &S, claimed: Hotkey) -> Vec<u8> {
    let mut body = serde_json::to_value(synapse).unwrap();
    let base = json!({
        "name": S::NAME, "timeout": 30.0, "total_size": 6014, "header_size": 0, "computed_body_hash": "",
        "dendrite": {"hotkey": claimed.to_string(), "ip": "203.0.113.5", "port": null}, "axon": {"port": 1},
    });
    body.as_object_mut().unwrap().extend(base.as_object().unwrap().clone());
    serde_json::to_vec(&body).unwrap()
}

async fn ask<S: ClassicSynapse>(miner: &Running, caller: &Keypair, synapse: &S) -> Reply {
    send(miner, caller, synapse, &body_of(synapse, caller.hotkey())).await
}

async fn send<S: ClassicSynapse>(miner: &Running, caller: &Keypair, synapse: &S, body: &[u8]) -> Reply {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let nonce = now_ns().max(LAST.load(Ordering::SeqCst) + 1);
    LAST.store(nonce, Ordering::SeqCst);
    let to = miner.axon.unwrap();
    let out = Outgoing { receiver: &miner.hotkey, to, nonce, uuid: "c6dd8022-e684-11f1", timeout_s: 30.0 };
    let mut headers = sign(caller, synapse, &out);
    headers.push(("content-type".to_owned(), "application/json".to_owned()));
    miner.post(&path::<S>(), &headers, body).await
}

fn rent(days: i64) -> Value {
    json!({
        "checking": false, "timeline": days, "public_key": pem(),
        "device_requirement": {"cpu": {"count": 1}, "gpu": {}, "ram": {"capacity": 1073741824.0}},
        "docker_requirement": {"ssh_key": "ssh-ed25519 AAAA renter\n"},
    })
}

fn give_back(key: &str) -> Value {
    json!({"checking": false, "timeline": 0, "public_key": key})
}

fn action(name: &str, key: &str) -> Value {
    json!({
        "checking": false, "timeline": 0, "docker_change": true, "public_key": key,
        "docker_action": {"action": name, "ssh_key": "", "key_type": ""},
    })
}

fn probe() -> Value {
    json!({"checking": true, "timeline": 1, "device_requirement": ""})
}

fn owns(key: &str) -> Value {
    json!({"checking": true, "timeline": 0, "public_key": key})
}

fn yes() -> Value {
    json!({"status": true, "port": PORT})
}

fn no() -> Value {
    json!({"status": false, "port": PORT})
}

#[test]
fn a_rental_of_the_originals_goes_from_its_probe_to_its_return_and_over_a_restart() {
    inside(async |runtime| {
        let subnet = Subnet::start(runtime).await;
        let renter = validator_key();
        assert_eq!(subnet.output(&renter, probe()).await, yes(), "free");
        assert_eq!(subnet.output(&renter, owns(&pem())).await, no());
        assert_eq!(subnet.output(&renter, give_back(&pem())).await, no(), "nothing to return");

        let before = SystemClock.now_ms();
        let rented = subnet.output(&renter, rent(60)).await;
        assert_eq!((&rented["status"], &rented["port"]), (&json!(true), &json!(PORT)), "{rented}");
        let hidden = STANDARD.decode(rented["info"].as_str().unwrap()).unwrap();
        let opened = private().decrypt(Oaep::new::<sha2::Sha256>(), &hidden).unwrap();
        let opened: Value = serde_json::from_slice(&opened).unwrap();
        let leases = subnet.leases().await;
        let [lease] = &leases[..] else { panic!("{leases:?}") };
        assert_eq!((opened["username"].as_str(), opened["version"].as_u64()), (Some("root"), Some(183)));
        assert_eq!(opened["port"], lease.endpoint.unwrap().ssh_port);
        assert!(opened["password"].as_str().is_some_and(|p| p.len() >= 10), "a password");

        // A lease as any other, for the whole machine, no longer than the operator allows.
        assert_eq!((lease.renter, lease.state), (renter.hotkey(), LeaseState::Running));
        assert_eq!(lease.ssh_public_key.as_deref(), Some("ssh-ed25519 AAAA renter"));
        assert!((before + 3 * DAY_MS..=SystemClock.now_ms() + 3 * DAY_MS).contains(&lease.expires_at_ms), "{lease:?}");
        assert_eq!(subnet.output(&renter, probe()).await, no(), "rented");
        assert_eq!(subnet.output(&renter, owns(&format!("\n {} ", pem().trim()))).await, yes());
        assert_eq!(subnet.output(&renter, owns("another")).await, no());
        assert_eq!(subnet.output(&renter, rent(1)).await, no(), "busy");

        let subnet = subnet.restart().await;
        assert_eq!(subnet.leases().await, leases);
        assert_eq!(subnet.output(&renter, probe()).await, no(), "rented still");
        assert_eq!(subnet.output(&renter, owns(&pem())).await, yes());

        assert_eq!(subnet.output(&renter, give_back("another")).await, no());
        assert_eq!(subnet.output(&renter, give_back("")).await, no());
        assert_eq!(subnet.output(&renter, json!({"checking": false, "public_key": null})).await, no());
        assert_eq!(subnet.output(&renter, give_back(&pem())).await, yes());
        assert_eq!(subnet.output(&renter, give_back(&pem())).await, yes(), "a repeat is told the same");
        assert!(subnet.leases().await.is_empty());
        assert_eq!(subnet.output(&renter, owns(&pem())).await, no());
        assert_eq!(subnet.output(&renter, probe()).await, yes(), "free again");
        // The same key again, and no way to log in but the password.
        let bare = json!({"checking": false, "timeline": 1, "public_key": pem()});
        assert_eq!(subnet.output(&renter, bare).await["status"], true);
        assert_eq!(subnet.leases().await[0].ssh_public_key, None);
        assert_eq!(subnet.output(&renter, give_back(&pem())).await, yes());
        subnet.miner.end().await;
    });
}

#[test]
fn only_the_renter_with_its_key_changes_a_rental() {
    inside(async |runtime| {
        let subnet = Subnet::start(runtime).await;
        let (renter, second) = (validator_key(), key("Second"));
        assert_eq!(subnet.output(&renter, rent(1)).await["status"], true);
        let state = async || subnet.leases().await[0].state;

        // Another validator that saw the key, under its own name and under the renter's.
        for fields in [give_back(&pem()), action("pause", &pem()), rent(1)] {
            assert_eq!(subnet.output(&second, fields.clone()).await, no(), "{fields}");
            let synapse = allocate(fields.clone());
            let reply = send(&subnet.miner, &second, &synapse, &body_of(&synapse, renter.hotkey())).await;
            assert_eq!((reply.status, &reply.json()["output"]), (200, &no()), "{fields}");
        }
        // The renter without its key, or whoever speaks for it without knowing it.
        for fields in [give_back("another"), action("pause", ""), action("pause", "another"), action("unpause", "")] {
            assert_eq!(subnet.output(&renter, fields.clone()).await, no(), "{fields}");
        }
        assert_eq!(state().await, LeaseState::Running);

        assert_eq!(subnet.output(&renter, action("unpause", &pem())).await, yes(), "it runs already");
        assert_eq!(subnet.output(&renter, action("pause", &pem())).await, yes());
        assert_eq!(subnet.output(&renter, action("pause", &pem())).await, yes(), "a repeat");
        assert_eq!(state().await, LeaseState::Paused);
        assert_eq!(subnet.output(&renter, owns(&pem())).await, no(), "it does not run");
        assert_eq!(subnet.output(&renter, probe()).await, no(), "nor is the machine free");
        assert_eq!(subnet.output(&second, action("resume", &pem())).await, no());
        assert_eq!(subnet.output(&renter, action("resume", &pem())).await, yes());
        assert_eq!(state().await, LeaseState::Running);

        // What no engine can do yet, and what nobody knows.
        assert_eq!(subnet.output(&renter, action("restart", &pem())).await, no());
        assert_eq!(subnet.output(&renter, action("exchange_key", &pem())).await, no());
        assert_eq!(subnet.output(&renter, action("defragment", &pem())).await, json!({"port": PORT}));
        assert_eq!(subnet.output(&renter, give_back(&pem())).await, yes());
        assert_eq!(subnet.output(&renter, action("pause", &pem())).await, no(), "it has ended");
        subnet.miner.end().await;
    });
}

#[test]
fn the_operator_bounds_the_originals_rentals_and_its_tests_of_the_machine() {
    inside(async |runtime| {
        let subnet = Subnet::start_with(runtime.clone(), |settings| {
            settings.leases.original_max_duration = std::time::Duration::from_millis(DAY_MS);
        })
        .await;
        let renter = validator_key();
        let mut test = rent(1);
        test["device_requirement"]["testing"] = json!(true);
        for (fields, lasts) in [(rent(2), DAY_MS), (test, 15 * 60_000)] {
            let before = SystemClock.now_ms();
            assert_eq!(subnet.output(&renter, fields).await["status"], true);
            let ends = subnet.leases().await[0].expires_at_ms;
            assert!((before + lasts..=SystemClock.now_ms() + lasts).contains(&ends), "{lasts}: {ends}");
            assert_eq!(subnet.output(&renter, give_back(&pem())).await, yes());
        }
        subnet.miner.end().await;

        let subnet = Subnet::start_with(runtime, |settings| {
            settings.leases.original_max_duration = std::time::Duration::ZERO;
        })
        .await;
        assert_eq!(subnet.output(&renter, probe()).await, no(), "not free for them");
        assert_eq!(subnet.output(&renter, rent(1)).await, no());
        assert!(subnet.leases().await.is_empty());
        subnet.miner.end().await;
    });
}

#[test]
fn nothing_is_rented_under_a_key_that_hides_nothing_or_while_the_operator_says_no() {
    inside(async |runtime| {
        let subnet = Subnet::start(runtime).await;
        let renter = validator_key();
        let mut weak = rent(1);
        for key in ["", "-----BEGIN PUBLIC KEY-----\nMFww\n-----END PUBLIC KEY-----\n", &"x".repeat(9_000)] {
            weak["public_key"] = json!(key);
            assert_eq!(subnet.output(&renter, weak.clone()).await, no(), "{key}");
        }
        let mut two_lines = rent(1);
        two_lines["docker_requirement"]["ssh_key"] = json!("ssh-ed25519 AAAA me\nssh-ed25519 AAAA another");
        assert_eq!(subnet.output(&renter, two_lines).await, no());
        assert!(subnet.leases().await.is_empty());

        let wish = |on| MaintenanceWish { on, note: "new disk".to_owned() };
        subnet.control().maintenance(&wish(true)).await.unwrap();
        assert_eq!(subnet.output(&renter, probe()).await, no());
        assert_eq!(subnet.output(&renter, rent(1)).await, no());
        subnet.control().maintenance(&wish(false)).await.unwrap();
        assert_eq!(subnet.output(&renter, probe()).await, yes());

        let poor = ask(&subnet.miner, &key("Poor"), &allocate(rent(1))).await;
        assert_eq!(poor.status, 403, "{}", poor.text());
        subnet.miner.end().await;
    });
}

#[test]
fn the_other_synapses_are_answered_as_the_original_does_and_better() {
    inside(async |runtime| {
        let subnet = Subnet::start(runtime).await;
        let (miner, caller) = (&subnet.miner, validator_key());
        let asked = Challenge {
            challenge_hash: "abc".to_owned(),
            output: serde_json::from_value(json!({"password": "the caller's own"})).unwrap(),
            ..Challenge::default()
        };
        let reply = ask(miner, &caller, &asked).await;
        assert_eq!((reply.status, &reply.json()["output"]), (200, &json!({})), "{}", reply.text());
        assert_eq!(reply.json()["challenge_hash"], "abc");

        let told = until("the machine is measured", async || {
            let reply = ask(miner, &caller, &Specs::default()).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            let text = reply.json()["specs_output"].as_str().unwrap().to_owned();
            (!text.is_empty()).then_some(text)
        })
        .await;
        let told: Value = serde_json::from_str(&told).unwrap();
        assert!(told["cpu"]["count"].as_u64().is_some_and(|n| n > 0), "{told}");
        assert!(told["ram"]["total"].as_u64().is_some_and(|n| n > 0) && told["has_docker"].is_boolean(), "{told}");

        // The whole object comes back, with every field, and nothing of what the caller wrote as its answer.
        let mut asked = allocate(probe());
        asked.output = serde_json::from_value(json!({"status": "mine", "info": "mine"})).unwrap();
        let body = ask(miner, &caller, &asked).await.json();
        assert_eq!(body["output"], yes());
        for field in ["timeline", "device_requirement", "checking", "public_key", "docker_requirement", "docker_action"]
        {
            assert!(body.get(field).is_some(), "{field}: {body}");
        }
        assert_eq!((&body["name"], &body["axon"]["status_code"]), (&json!("Allocate"), &json!(200)));
        assert_eq!(ask(miner, &caller, &Ping::default()).await.status, 200);
        subnet.miner.end().await;
    });
}
