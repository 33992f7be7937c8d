//! What programs of the original do with a miner of ours: the dendrite of SDK 9.0.0 calls a `compute-miner` that runs containers
//! on the real engine, paramiko logs in to them, and the image is the one that `packaging/legacy-image` arranges.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use compute_subnet::ids::DeviceId;
use compute_subnet::lease::engine::docker::DockerEngine;
use compute_subnet::lease::{ContainerEngine as _, ContainerSpec};
use compute_subnet::wallet::Keypair;
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time::Instant;

use crate::bed::{Bed, left_out};
use crate::driver::Driver;
use crate::process::{Miner, Subnet};
use crate::wait::{free_ports, until};

/// A validator logs in within this time from its request on, or fails the miner.
const LOGIN: Duration = Duration::from_secs(30);
/// What the engine has the image with modules as.
const COMPLETE: &str = "compute-test:complete";
/// The one of the two callers that rents, and the one that has no business with its rental.
const RENTER: &str = "//Bob";
const OTHER: &str = "//Charlie";

/// Makes an image of `legacy` in which torch and numpy can be imported, which is all that the profile asks of them: they are too
/// large to be fetched for a test.
fn with_modules(bed: &Bed) {
    let modules = bed.key.with_file_name("modules");
    std::fs::create_dir_all(&modules).unwrap();
    for name in ["torch", "numpy"] {
        std::fs::write(modules.join(format!("{name}.py")), "__version__ = '0'\n").unwrap();
    }
    changed(bed, COMPLETE, &["ENV PYTHONPATH=/opt/modules"], &modules);
}

/// The image `legacy` with these changes and this directory at `/opt/modules`, under another name.
fn changed(bed: &Bed, name: &str, changes: &[&str], modules: &Path) {
    let id = bed.docker(&["create", "--network", "none", "compute-test:legacy", "true"]);
    let id = id.trim();
    bed.docker(&["cp", modules.to_str().unwrap(), &format!("{id}:/opt/modules")]);
    let changes = changes.iter().flat_map(|change| ["--change", change]);
    bed.docker(&["commit"].into_iter().chain(changes).chain([id, name]).collect::<Vec<_>>());
    bed.docker(&["rm", id]);
}

/// An engine that may have this image only, and gives it to the original's callers.
fn engine(bed: &Bed, image: &str) -> std::sync::Arc<DockerEngine> {
    bed.with(1, |options| {
        options.images.named = [("theirs".to_owned(), image.to_owned())].into();
        options.original_image = Some("theirs".to_owned());
    })
}

pub(crate) async fn an_image_is_tried_for_what_the_originals_validators_need(bed: &mut Bed) {
    let verdict = async |image: &str| engine(bed, image).try_image("theirs").await.unwrap().map(|tried| tried.verdict);
    with_modules(bed);
    let found = verdict(COMPLETE).await.unwrap().unwrap();
    assert!(found.starts_with("Python 3.") && found.ends_with("torch 0, numpy 0"), "{found}");
    // Each lacks something else, and is told what.
    let without = verdict("compute-test:legacy").await.unwrap().unwrap_err();
    assert_eq!(
        without,
        "numpy: ModuleNotFoundError: No module named 'numpy'; torch: ModuleNotFoundError: No module named 'torch'"
    );
    for image in ["compute-test:bookworm", "compute-test:scratch"] {
        let nothing = verdict(image).await.unwrap().unwrap_err();
        assert!(nothing.starts_with("/opt/conda/bin/python cannot be started: "), "{image}: {nothing}");
        assert!(nothing.contains("no such file"), "{image}: {nothing}");
    }
    let noisy = "compute-test:noisy";
    let modules = bed.key.with_file_name("modules");
    std::fs::write(modules.join("sitecustomize.py"), "import sys\nsys.stderr.write('a word too many\\n')\n").unwrap();
    std::fs::write(modules.join("env.sh"), "echo hello\n").unwrap();
    changed(bed, noisy, &["ENV PYTHONPATH=/opt/modules", "ENV BASH_ENV=/opt/modules/env.sh"], &modules);
    let noise = verdict(noisy).await.unwrap().unwrap_err();
    assert!(noise.contains("it prints to standard error: a word too many"), "{noise}");
    assert!(noise.contains("shell: ValueError: /bin/bash -c true ends with 0 and prints b'hello"), "{noise}");
    assert_eq!(verdict("compute-test:not-there").await, None);
    let refused = engine(bed, "compute-test:volume").try_image("theirs").await.unwrap_err();
    assert!(refused.to_string().contains("/data"), "{refused}");

    // What is tried beside a lease does not touch it.
    let lease = ContainerSpec { image: "theirs".to_owned(), devices: vec![DeviceId::cpu(0)], ..bed.spec(1, 0) };
    let engine = engine(bed, COMPLETE);
    let made = engine.create(&lease).await.unwrap();
    assert!(engine.try_image("theirs").await.unwrap().unwrap().verdict.is_ok());
    assert_eq!(engine.list().await.unwrap(), [made]);
    assert!(engine.destroy(lease.lease, 1).await.unwrap());
    bed.docker(&["rmi", COMPLETE, noisy]);
    std::fs::remove_dir_all(modules).unwrap();
}

/// A miner and the original's programs.
struct Stage<'a> {
    bed: &'a Bed,
    miner: Miner,
    /// SDK 9.0.0.
    sdk: Driver,
    /// The validators' other libraries: cryptography and paramiko.
    ssh: Driver,
    /// What the miner is told with `--ssh.port`.
    port: u16,
}

/// An RSA pair, as every allocation has one of its own.
struct Pair {
    number: Value,
    public: String,
}

impl Stage<'_> {
    /// The whole output of an `Allocate`, which the SDK calls a success.
    async fn output(&mut self, caller: &str, fields: Value) -> Value {
        let axon = json!({
            "ip": self.miner.axon.ip().to_string(), "port": self.miner.axon.port(), "hotkey": self.miner.hotkey.to_string()
        });
        let call = json!({ "as": caller, "synapse": "Allocate", "fields": fields, "axon": axon, "timeout": 60 });
        let reply = self.sdk.ask(json!({ "call": call })).await;
        let seen = (&reply["is_success"], &reply["status"], &reply["message"], &reply["axon_status"]);
        assert_eq!(
            seen,
            (&json!(true), &json!(200), &json!("Success"), &json!(200)),
            "{fields}: {}",
            self.miner.said()
        );
        reply["fields"]["output"].clone()
    }

    async fn pair(&mut self) -> Pair {
        let made = self.ssh.ask(json!({ "pair": true })).await;
        Pair { number: made["pair"].clone(), public: made["public"].as_str().unwrap().to_owned() }
    }

    /// What an allocation that succeeded tells its renter. The port is beside it, and the same.
    async fn credentials(&mut self, pair: &Pair, mut output: Value) -> Value {
        let info = output["info"].take();
        assert_eq!(output, json!({ "status": true, "info": null, "port": output["port"] }), "{}", self.miner.said());
        let opened = self.ssh.ask(json!({ "open": { "pair": pair.number, "info": info } })).await;
        assert_eq!(opened["bytes"], 256);
        let told = opened["credentials"].clone();
        assert_eq!(
            (&told["username"], &told["version"], &told["port"]),
            (&json!("root"), &json!(183), &output["port"])
        );
        told
    }

    async fn login(&mut self, how: Value) -> Value {
        self.ssh.ask(json!({ "login": how })).await
    }

    /// Logs in, and gives the session's number.
    async fn session(&mut self, how: Value) -> Value {
        let seen = self.login(how).await;
        assert!(seen["session"].is_u64(), "{seen}: {}", self.miner.said());
        seen["session"].clone()
    }

    /// What a command prints; nothing on standard error, and it succeeds.
    async fn run(&mut self, session: &Value, command: &str) -> String {
        let seen = self.ssh.ask(json!({ "run": { "session": session, "command": command } })).await;
        assert_eq!((&seen["err"], &seen["status"]), (&json!(""), &json!(0)), "{command}: {seen}");
        seen["out"].as_str().unwrap().trim().to_owned()
    }

    fn no(&self) -> Value {
        json!({ "status": false, "port": self.port })
    }

    fn yes(&self) -> Value {
        json!({ "status": true, "port": self.port })
    }

    /// The password is known to its renter: it is in no file and no log of the miner, and nothing that the engine tells.
    fn assert_unknown(&self, password: &str) {
        assert!(password.len() >= 10 && password.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let holds = |bytes: &[u8]| bytes.windows(password.len()).any(|part| part == password.as_bytes());
        let mut folders = vec![self.bed.key.with_file_name("original")];
        let mut files = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                // What the tenant writes is the tenant's.
                if path.is_dir() && !path.ends_with("volumes") {
                    folders.push(path);
                } else if path.is_file() {
                    assert!(!holds(&std::fs::read(&path).unwrap()), "{}", path.display());
                    files += 1;
                }
            }
        }
        // The log and the database with its journal at least.
        assert!(files >= 3, "{files}");
        let containers = self.bed.docker(&["ps", "-q"]);
        let shown = self.bed.docker(&["inspect", containers.trim()]);
        assert!(shown.contains("compute-subnet.lease") && !holds(shown.as_bytes()));
    }

    /// Nothing of any lease is there.
    fn assert_empty(&self) {
        assert_eq!(self.bed.docker(&["ps", "-aq"]).trim(), "");
        let volumes = self.bed.key.with_file_name("original").join("miner/volumes");
        let left = std::fs::read_dir(volumes).map(|files| files.flatten().map(|f| f.file_name()).collect::<Vec<_>>());
        assert!(left.as_ref().is_ok_and(Vec::is_empty) || left.is_err(), "{left:?}");
    }
}

/// What a validator asks a machine for when it tests it.
fn test_requirement() -> Value {
    json!({
        "cpu": { "count": 1 }, "gpu": { "count": 1, "capacity": 0, "type": "" },
        "hard_disk": { "capacity": 1_073_741_824 }, "ram": { "capacity": 1_073_741_824 }, "testing": true
    })
}

fn test(key: &str) -> Value {
    json!({
        "checking": false, "timeline": 1, "device_requirement": test_requirement(), "public_key": key,
        "docker_requirement": { "base_image": "pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime" }
    })
}

/// What the original's API asks for on behalf of its users: capacities are floats there.
fn rental(key: &str, ssh_key: &str) -> Value {
    json!({
        "checking": false, "timeline": 60, "public_key": key,
        "device_requirement": {
            "cpu": { "count": 1 }, "gpu": { "count": 1, "capacity": 0.0, "type": "gpu" },
            "hard_disk": { "capacity": 1_073_741_824.0 }, "ram": { "capacity": 1_073_741_824.0 }
        },
        "docker_requirement": {
            "base_image": "ubuntu", "ssh_key": ssh_key, "ssh_port": 4444, "volume_path": "/tmp", "dockerfile": ""
        }
    })
}

fn probe() -> Value {
    json!({ "checking": true, "timeline": 1, "device_requirement": test_requirement() })
}

fn owns(key: &str) -> Value {
    json!({ "checking": true, "timeline": 0, "public_key": key })
}

fn give_back(key: &str) -> Value {
    json!({ "checking": false, "timeline": 0, "public_key": key })
}

fn action(name: &str, key: &str, key_type: &str, ssh_key: &str) -> Value {
    let timeline = i32::from(name == "exchange_key");
    json!({
        "checking": false, "timeline": timeline, "docker_change": true, "public_key": key,
        "docker_action": { "action": name, "ssh_key": ssh_key, "key_type": key_type }
    })
}

pub(crate) async fn the_originals_programs_test_rent_log_in_and_return(bed: &mut Bed) {
    if std::env::var("COMPUTE_TEST_WITHOUT_PYTHON").is_ok_and(|v| v == "1") {
        return left_out("COMPUTE_TEST_WITHOUT_PYTHON: the original's programs rent nothing on a real engine");
    }
    with_modules(bed);
    let dir = bed.key.with_file_name("original");
    std::fs::create_dir_all(&dir).unwrap();
    LocalSet::new()
        .run_until(async {
            let subnet = Subnet::start(&dir, 1).await;
            let port = free_ports();
            let stage = Stage {
                bed,
                miner: miner(bed, &subnet, port, "compute-test:legacy", Some((port + 1, port + 3))).await,
                sdk: Driver::start("9.0.0", "dendrite.py"),
                ssh: Driver::start("paramiko", "../docker/legacy.py"),
                port,
            };
            let mut stage = over_a_range_with_an_image_that_lacks_modules(stage).await;
            stage.miner.end().await;
            stage.miner = miner(bed, &subnet, port, COMPLETE, None).await;
            until("the image is tried", async || stage.miner.said().contains("is what they expect").then_some(()))
                .await;
            tested(&mut stage).await;
            refused(&mut stage).await;
            rented(&mut stage).await;
            stage.miner.end().await;
        })
        .await;
    bed.docker(&["rmi", COMPLETE]);
    std::fs::remove_dir_all(bed.key.with_file_name("modules")).unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

/// A miner with this image for the original's callers, at one port or at a range of them.
async fn miner(bed: &Bed, subnet: &Subnet, port: u16, image: &str, range: Option<(u16, u16)>) -> Miner {
    let ports = range.map_or("null".to_owned(), |(first, last)| format!("\"{first}-{last}\""));
    let config = subnet.dir.join("config.yaml");
    let text = format!(
        "docker:\n  engine: docker\n  socket: {socket}\n  sshd: {sshd}\n  subnets: 10.214.0.0/20\n  disk_gib: 1\n  ssh_ports: {ports}\n  \
         images:\n    \"theirs\": {{ reference: \"{image}\" }}\nleases:\n  original_image: theirs\n  health_interval: 500ms\n",
        socket = bed.socket().display(),
        sshd = bed.sshd.display(),
    );
    std::fs::write(&config, text).unwrap();
    let callers = [RENTER, OTHER].map(|uri| Keypair::from_uri(uri).unwrap().hotkey().to_string()).join(",");
    let flags =
        ["--config", config.to_str().unwrap(), "--ssh.port", &port.to_string(), "--whitelist.hotkeys", &callers];
    subnet.miner(&flags.map(str::to_owned)).await
}

/// An image that a test could not pass in is none for tests; renters are served, at a port of the range.
async fn over_a_range_with_an_image_that_lacks_modules(mut stage: Stage<'_>) -> Stage<'_> {
    until("the image is tried", async || stage.miner.said().contains("lacks what their validators need").then_some(()))
        .await;
    let (pair, (yes, no)) = (stage.pair().await, (stage.yes(), stage.no()));
    assert_eq!(stage.output(RENTER, probe()).await, yes);
    assert_eq!(stage.output(RENTER, test(&pair.public)).await, no, "a test could only fail");
    assert!(stage.miner.said().contains("No module named 'torch'"), "{}", stage.miner.said());
    assert_eq!(stage.output(RENTER, probe()).await, yes, "and nothing was begun");

    // Somebody else has the range's first port.
    let _taken = TcpListener::bind(("0.0.0.0", stage.port + 1)).unwrap();
    let rented = stage.output(RENTER, rental(&pair.public, "")).await;
    let told = stage.credentials(&pair, rented).await;
    assert_eq!(told["port"], stage.port + 2);
    let session = stage.session(json!({ "port": told["port"], "password": told["password"] })).await;
    assert_eq!(stage.run(&session, "id -un").await, "root");
    assert_eq!(stage.output(RENTER, give_back(&pair.public)).await, yes);
    stage.assert_empty();
    stage
}

/// A validator's visit from its probe to its return.
async fn tested(stage: &mut Stage<'_>) {
    let (pair, other) = (stage.pair().await, stage.pair().await);
    let (yes, no) = (stage.yes(), stage.no());
    assert_eq!(stage.output(RENTER, probe()).await, yes, "free");
    assert_eq!(stage.output(RENTER, owns(&pair.public)).await, no);
    let begun = Instant::now();
    let output = stage.output(RENTER, test(&pair.public)).await;
    let told = stage.credentials(&pair, output).await;
    let answered = begun.elapsed();
    assert_eq!(told["port"], stage.port, "the one port");
    let seen = stage.login(json!({ "port": told["port"], "password": told["password"] })).await;
    assert!(begun.elapsed() < LOGIN, "{:?}", begun.elapsed());
    println!("       allocated in {} ms, logged in after {} ms", answered.as_millis(), begun.elapsed().as_millis());
    assert_eq!(seen["host_key"], told["host_key"], "the key that the envelope names is the server's");
    let session = seen["session"].clone();

    let done = stage.ssh.ask(json!({ "test": session })).await;
    for (step, seen) in done["steps"].as_object().unwrap() {
        assert_eq!((&seen["err"], &seen["status"]), (&json!(""), &json!(0)), "{step}: {seen}");
    }
    let all = ["hashed", "rooted", "answered"].map(|what| done[what] == true);
    assert_eq!(all, [true; 3], "{done}");
    for interpreter in ["/opt/conda/bin/python", "/usr/local/bin/python3", "python3"] {
        assert!(stage.run(&session, &format!("{interpreter} --version")).await.starts_with("Python 3."));
    }

    // Whoever comes meanwhile: the tenant stays, whatever key is shown.
    assert_eq!(stage.output(OTHER, probe()).await, no);
    assert_eq!(stage.output(OTHER, test(&other.public)).await, no, "busy");
    assert_eq!(stage.output(RENTER, test(&other.public)).await, no, "busy for the renter too");
    assert_eq!(stage.run(&session, "echo still").await, "still");
    assert_eq!(stage.output(RENTER, owns(&pair.public)).await, yes);
    assert_eq!(stage.output(RENTER, give_back(&pair.public)).await, yes);
    stage.assert_empty();
    let after = stage.login(json!({ "port": stage.port, "password": told["password"], "patience": 3 })).await;
    assert!(after["failed"].is_string(), "{after}");
    assert_eq!(stage.output(RENTER, probe()).await, yes, "free again");
}

/// What is asked for is held against the machine and the policy, and nothing is begun.
async fn refused(stage: &mut Stage<'_>) {
    let pair = stage.pair().await;
    let (yes, no) = (stage.yes(), stage.no());
    let asks = |section: &str, key: &str, value: Value| {
        let mut wish = rental(&pair.public, "");
        wish[section][key] = value;
        wish
    };
    let marker = stage.bed.key.with_file_name("marker");
    let evil = format!("\"; touch {} #\n$(touch {})", marker.display(), marker.display());
    let table = [
        asks("device_requirement", "cpu", json!({ "count": 100_000 })),
        asks("device_requirement", "ram", json!({ "capacity": 1e18 })),
        asks("device_requirement", "hard_disk", json!({ "capacity": 1e18 })),
        asks("device_requirement", "gpu", json!({ "count": 9 })),
        asks("docker_requirement", "dockerfile", json!("RUN true")),
        asks("docker_requirement", "dockerfile", json!(evil)),
        asks("docker_requirement", "base_image", json!("debian:12; id")),
        asks("docker_requirement", "base_image", json!("docker.io/somebody/else:1")),
        asks("docker_requirement", "ssh_key", json!("ssh-ed25519 AAAA me\ncommand=\"id\" ssh-ed25519 AAAA other")),
    ];
    for wish in table {
        assert_eq!(stage.output(RENTER, wish.clone()).await, no, "{wish}");
    }
    let mut no_key = rental("", "");
    no_key["public_key"] = json!("");
    assert_eq!(stage.output(RENTER, no_key).await, no);
    let another = stage.pair().await;
    assert_eq!(stage.output(RENTER, give_back(&another.public)).await, no, "there is nothing to return");
    assert_eq!(stage.output(RENTER, probe()).await, yes);
    assert!(!marker.exists());
    stage.assert_empty();
}

/// A user's rental by the original's API: key and password, every docker action, and what is refused on the way.
async fn rented(stage: &mut Stage<'_>) {
    let (pair, other) = (stage.pair().await, stage.pair().await);
    let (yes, no) = (stage.yes(), stage.no());
    let port = stage.port;
    let mut keys = Vec::new();
    for kind in ["ed25519", "ed25519", "rsa"] {
        keys.push(stage.ssh.ask(json!({ "key": kind })).await);
    }
    let line = |key: &Value| key["public"].as_str().unwrap().to_owned();
    let by_key = |key: &Value| json!({ "port": port, "key": key["key"], "patience": 5 });

    let output = stage.output(RENTER, rental(&pair.public, &line(&keys[0]))).await;
    let told = stage.credentials(&pair, output).await;
    let by_password = json!({ "port": port, "password": told["password"] });
    let session = stage.session(by_password.clone()).await;
    stage.run(&session, "echo kept >/root/file").await;
    let first = stage.session(by_key(&keys[0])).await;
    assert_eq!(stage.run(&first, "cat /root/file").await, "kept");
    assert!(stage.login(by_key(&keys[1])).await["failed"].is_string(), "nobody let this key in");
    let wrong = stage.login(json!({ "port": port, "password": "not this one" })).await;
    assert!(wrong["failed"].is_string(), "{wrong}");

    // Keys: the user's is replaced, the terminal's is another one beside it.
    let exchange = |kind: &str, line: &str| action("exchange_key", &pair.public, kind, line);
    assert_eq!(stage.output(RENTER, exchange("user", &line(&keys[1]))).await, yes);
    assert!(stage.login(by_key(&keys[0])).await["failed"].is_string(), "replaced");
    stage.session(by_key(&keys[1])).await;
    assert_eq!(stage.output(RENTER, exchange("terminal", &line(&keys[2]))).await, yes);
    stage.session(by_key(&keys[2])).await;
    stage.session(by_key(&keys[1])).await;
    for (kind, line) in [("root", line(&keys[0])), ("user", "\"; id #".to_owned() + "\nx"), ("user", String::new())] {
        assert_eq!(stage.output(RENTER, exchange(kind, &line)).await, no, "{kind} {line:?}");
    }
    stage.session(by_key(&keys[1])).await;
    assert_eq!(stage.run(&session, "echo as before").await, "as before", "no session ended for it");

    // Paused: neither free nor up, as the original tells it; a session waits.
    let act = |name: &str| action(name, &pair.public, "", "");
    assert_eq!(stage.output(RENTER, act("pause")).await, yes);
    assert_eq!(stage.output(RENTER, probe()).await, no);
    assert_eq!(stage.output(RENTER, owns(&pair.public)).await, no);
    let silent = stage.login(json!({ "port": port, "password": told["password"], "patience": 2 })).await;
    assert!(silent["failed"].is_string(), "{silent}");
    assert_eq!(stage.output(RENTER, act("resume")).await, yes);
    assert_eq!(stage.output(RENTER, owns(&pair.public)).await, yes);
    assert_eq!(stage.run(&session, "cat /root/file").await, "kept");
    assert_eq!(stage.output(RENTER, act("pause")).await, yes);
    assert_eq!(stage.output(RENTER, act("unpause")).await, yes);
    assert_eq!(stage.run(&session, "cat /root/file").await, "kept");

    // Restarted: processes end, files, keys, password and port stay.
    assert_eq!(stage.output(RENTER, act("restart")).await, yes);
    let session = stage.session(by_password).await;
    assert_eq!(stage.run(&session, "cat /root/file").await, "kept");
    stage.session(by_key(&keys[1])).await;
    assert_eq!(stage.output(RENTER, act("defragment")).await, json!({ "port": port }), "nobody knows this one");

    // Another validator with the renter's key, the renter with another key or none.
    for fields in [act("pause"), act("restart"), exchange("user", &line(&keys[0])), give_back(&pair.public)] {
        assert_eq!(stage.output(OTHER, fields.clone()).await, no, "{fields}");
    }
    for key in [other.public.as_str(), ""] {
        for fields in [action("pause", key, "", ""), action("restart", key, "", ""), give_back(key)] {
            assert_eq!(stage.output(RENTER, fields.clone()).await, no, "{fields}");
        }
        assert_eq!(stage.output(RENTER, owns(key)).await, no);
    }
    assert_eq!(stage.run(&session, "cat /root/file").await, "kept", "nothing happened to it");

    // A tenant that takes the programs away by which the original ends a container, and does not want to end, is ended: paused, too.
    stage.assert_unknown(told["password"].as_str().unwrap());
    stage.run(&session, "rm -f /bin/kill /usr/bin/kill; (trap '' TERM HUP INT; sleep 1000) >/dev/null 2>&1 &").await;
    assert_eq!(stage.output(RENTER, act("pause")).await, yes);

    // Returned with the key as a database may have kept it, and once more, as callers do that lost the answer.
    assert_eq!(stage.output(RENTER, give_back(&format!("\n{}\n", pair.public.trim()))).await, yes);
    stage.assert_empty();
    assert_eq!(stage.output(RENTER, give_back(&pair.public)).await, yes);
    assert_eq!(stage.output(RENTER, act("pause")).await, no, "it has ended");
    assert_eq!(stage.output(RENTER, owns(&pair.public)).await, no);
    assert_eq!(stage.output(RENTER, probe()).await, yes);
}
