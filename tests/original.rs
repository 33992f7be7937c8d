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
use compute_subnet::lease::engine::{Contents, Granted};
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

    /// What was done to the only container that is there.
    fn granted(&self) -> Granted {
        let contents = Contents::read(&self.world.dir.path().join("Miner-engine.json")).unwrap();
        let [granted] = &contents.granted[..] else { panic!("{contents:?}") };
        granted.clone()
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
        assert_eq!(rented["status"], true, "{rented}");
        let hidden = STANDARD.decode(rented["info"].as_str().unwrap()).unwrap();
        let opened = private().decrypt(Oaep::new::<sha2::Sha256>(), &hidden).unwrap();
        let opened: Value = serde_json::from_slice(&opened).unwrap();
        let leases = subnet.leases().await;
        let [lease] = &leases[..] else { panic!("{leases:?}") };
        assert_eq!((opened["username"].as_str(), opened["version"].as_u64()), (Some("root"), Some(183)));
        assert_eq!((&opened["port"], &rented["port"]), (&json!(lease.endpoint.unwrap().ssh_port), &opened["port"]));
        let host_key = russh::keys::PublicKey::from_openssh(lease.host_key.as_deref().unwrap()).unwrap();
        assert_eq!(opened["host_key"], host_key.fingerprint(russh::keys::HashAlg::Sha256).to_string());
        // Of the password the engine has a hash, which was made before anybody was told.
        let granted = subnet.granted();
        assert!(
            granted.password_hash.is_some() && granted.user_key == Some(Granted::digest("ssh-ed25519 AAAA renter"))
        );
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

        let port = subnet.leases().await[0].endpoint.unwrap().ssh_port;
        let done = json!({"status": true, "port": port});
        assert_eq!(subnet.output(&renter, action("unpause", &pem())).await, done, "it runs already");
        assert_eq!(subnet.output(&renter, action("pause", &pem())).await, done);
        assert_eq!(subnet.output(&renter, action("pause", &pem())).await, done, "a repeat");
        assert_eq!(state().await, LeaseState::Paused);
        assert_eq!(subnet.output(&renter, owns(&pem())).await, no(), "it does not run");
        assert_eq!(subnet.output(&renter, probe()).await, no(), "nor is the machine free");
        assert_eq!(subnet.output(&second, action("resume", &pem())).await, no());
        assert_eq!(subnet.output(&renter, action("resume", &pem())).await, done);
        assert_eq!(state().await, LeaseState::Running);

        assert_eq!(subnet.output(&second, action("restart", &pem())).await, no());
        assert_eq!(subnet.output(&renter, action("restart", "another")).await, no());
        assert_eq!(subnet.granted().restarts, 0);
        assert_eq!(subnet.output(&renter, action("restart", &pem())).await, done);
        assert_eq!((subnet.granted().restarts, state().await), (1, LeaseState::Running));
        assert_eq!(subnet.output(&renter, action("pause", &pem())).await, done);
        assert_eq!(subnet.output(&renter, action("restart", &pem())).await, done, "a paused one runs afterwards");
        assert_eq!((subnet.granted().restarts, state().await), (2, LeaseState::Running));

        let exchange = |key_type: &str, ssh_key: &str| {
            let mut fields = action("exchange_key", &pem());
            fields["docker_action"]["key_type"] = json!(key_type);
            fields["docker_action"]["ssh_key"] = json!(ssh_key);
            fields
        };
        let password_hash = subnet.granted().password_hash;
        for (key_type, ssh_key, user, terminal) in [
            ("user", "ssh-ed25519 BBBB", "ssh-ed25519 BBBB", None),
            ("terminal", "ssh-ed25519 CCCC", "ssh-ed25519 BBBB", Some("ssh-ed25519 CCCC")),
            ("", "ssh-ed25519 DDDD", "ssh-ed25519 DDDD", Some("ssh-ed25519 CCCC")),
        ] {
            assert_eq!(subnet.output(&renter, exchange(key_type, ssh_key)).await, done, "{key_type}");
            let granted = subnet.granted();
            let keys = (granted.user_key, granted.terminal_key);
            assert_eq!(keys, (Some(Granted::digest(user)), terminal.map(Granted::digest)), "{key_type}");
            assert_eq!((granted.password_hash, granted.restarts), (password_hash, 2), "nothing else changes");
        }
        for (key_type, ssh_key) in [("root", "ssh-ed25519 E"), ("user", ""), ("user", "ssh-ed25519 E\nssh-ed25519 F")] {
            assert_eq!(subnet.output(&renter, exchange(key_type, ssh_key)).await, no(), "{key_type} {ssh_key}");
        }
        assert_eq!(subnet.output(&second, exchange("user", "ssh-ed25519 E")).await, no());
        assert_eq!(subnet.granted().user_key, Some(Granted::digest("ssh-ed25519 DDDD")));
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
fn whoever_asks_for_more_than_the_machine_has_or_for_what_policy_forbids_is_not_served() {
    inside(async |runtime| {
        let subnet = Subnet::start_with(runtime.clone(), |settings| {
            settings.leases.original_image = "compute/legacy:1".to_owned();
        })
        .await;
        let renter = validator_key();
        let wish = |section: &str, fields: Value| {
            let mut wish = rent(1);
            wish[section] = fields;
            wish
        };
        let ssh_key = "ssh-ed25519 AAAA renter";
        for fields in [
            wish("device_requirement", json!({"cpu": {"count": 100_000}})),
            wish("device_requirement", json!({"ram": {"capacity": 1e18}})),
            wish("device_requirement", json!({"hard_disk": {"capacity": 1e18}})),
            wish("device_requirement", json!({"gpu": {"count": 99}})),
            wish("docker_requirement", json!({"ssh_key": ssh_key, "dockerfile": "\"; touch /tmp/x #"})),
            wish("docker_requirement", json!({"ssh_key": ssh_key, "base_image": "x; $(id)"})),
        ] {
            assert_eq!(subnet.output(&renter, fields.clone()).await, no(), "{fields}");
        }
        assert!(subnet.leases().await.is_empty());
        for (asked, image) in [
            (json!({"ssh_key": ssh_key, "base_image": "ubuntu"}), "compute/legacy:1"),
            (json!({"ssh_key": ssh_key, "base_image": "debian:12"}), "debian:12"),
        ] {
            assert_eq!(subnet.output(&renter, wish("docker_requirement", asked)).await["status"], true);
            assert_eq!(subnet.leases().await[0].image, image);
            assert_eq!(subnet.output(&renter, give_back(&pem())).await, yes());
        }
        subnet.miner.end().await;

        let subnet = Subnet::start_with(runtime, |settings| settings.leases.original_password = false).await;
        assert_eq!(subnet.output(&renter, wish("docker_requirement", json!({}))).await, no(), "no way to log in");
        let rented = subnet.output(&renter, rent(1)).await;
        let hidden = STANDARD.decode(rented["info"].as_str().unwrap()).unwrap();
        let opened = private().decrypt(Oaep::new::<sha2::Sha256>(), &hidden).unwrap();
        let opened: Value = serde_json::from_slice(&opened).unwrap();
        assert_eq!((&opened["password"], subnet.granted().password_hash), (&json!(""), None));
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

#[test]
fn the_tests_that_the_document_names_are_there() {
    fn gather(dir: &std::path::Path, all: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, all);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                all.push_str(&std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    ["src", "tests"].iter().for_each(|dir| gather(&root.join(dir), &mut code));
    let text = std::fs::read_to_string(root.join("docs/legacy.md")).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let tests: Vec<&str> = quoted.filter(|name| name.matches('_').count() >= 4).collect();
    assert!(tests.len() > 30, "{tests:?}");
    for name in tests {
        assert!(code.contains(&format!("fn {name}(")), "docs/legacy.md names a test that is not there: {name}");
    }
}
