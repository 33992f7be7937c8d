//! The built programs as an operator meets them: help, wrong input, exit codes, signals.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "common/wait.rs"]
mod wait;

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::Chain as _;
use compute_subnet::chain::ledger::{Deadlines, GenesisConfig, LedgerClient, LedgerHandle, LedgerNode, RpcServer};
use compute_subnet::clock::SystemClock;
use compute_subnet::ids::{ChallengeId, Coldkey, DeviceId, Hash32, Hotkey, Netuid};
use compute_subnet::sim::keys::DevnetKeys;
use compute_subnet::store::{self, Role};
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::dendrite::{Dendrite, Peer};
use compute_subnet::wire::synapse::{ChallengeReply, ChallengeRequest, DeviceWork, SpecsRequest, WhoRequest};
use rustix::process::{Pid, Signal, kill_process};
use wait::{LONG, free_ports, until};

const MINER: &str = env!("CARGO_BIN_EXE_compute-miner");
const VALIDATOR: &str = env!("CARGO_BIN_EXE_compute-validator");
const REGISTER: &str = env!("CARGO_BIN_EXE_compute-register");
const PROVER: &str = env!("CARGO_BIN_EXE_compute-prover");
const DEVNET: &str = env!("CARGO_BIN_EXE_compute-devnet");
const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

/// A program with nothing of this machine's configuration; what it keeps goes below `home`.
fn program(exe: &str, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(exe);
    command.args(args).env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

/// How a program ended, and what it said.
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {:?}\nstdout: {}\nstderr: {}", self.code, self.out, self.err)
    }
}

/// A program that runs; it is killed if the test does not end it.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Started {
    fn new(mut command: Command) -> Self {
        Started(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Waits for its end. What these programs say fits into a pipe.
    async fn end(mut self) -> Ended {
        let status = until("the program ends", async || self.ended()).await;
        let (mut out, mut err) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Ended { code: status.code(), out, err }
    }
}

async fn run(exe: &str, home: &Path, args: &[&str]) -> Ended {
    Started::new(program(exe, home, args)).end().await
}

#[tokio::test]
async fn help_and_version_are_no_errors_and_name_the_program() {
    let home = tempfile::tempdir().unwrap();
    for exe in [MINER, VALIDATOR, REGISTER, PROVER, DEVNET] {
        let name = Path::new(exe).file_name().unwrap().to_str().unwrap();
        let help = run(exe, home.path(), &["--help"]).await;
        assert_eq!(help.code, Some(0), "{help}");
        assert!(help.out.contains(&format!("Usage: {name}")) && help.err.is_empty(), "{help}");
        let version = run(exe, home.path(), &["--version"]).await;
        assert_eq!(version.code, Some(0), "{version}");
        assert_eq!(version.out, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "asking for help makes no files");
}

#[tokio::test]
async fn a_wrong_command_line_ends_with_64_and_names_what_was_meant() {
    let home = tempfile::tempdir().unwrap();
    for (exe, args, told) in [
        (MINER, &["--axon.prot", "8091"][..], "--axon.port"),
        (VALIDATOR, &["--metrics.prot", "1"], "--metrics.port"),
        (DEVNET, &["--miner", "4"], "--miners"),
        (DEVNET, &["--miners", "many"], "--miners"),
        (PROVER, &["selftets"], "selftest"),
        (REGISTER, &[], "explain"),
        (REGISTER, &["explain"], "HOTKEY"),
        (REGISTER, &["explain", "nobody"], "'nobody' is not a hotkey"),
    ] {
        let ended = run(exe, home.path(), args).await;
        assert_eq!(ended.code, Some(64), "{exe} {args:?}: {ended}");
        assert!(ended.err.contains(told) && ended.out.is_empty(), "{exe} {args:?}: {ended}");
    }
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_configuration_is_told_at_once() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("my.yaml");
    let text = "axon:\n  prot: 8091\n  max_workers: many\nmetrics:\n  port: 9464\n  port: 9465\n";
    std::fs::write(&file, text).unwrap();
    for exe in [MINER, VALIDATOR, DEVNET] {
        let args = ["--config", file.to_str().unwrap(), "--logging.debug=perhaps"];
        let ended = run(exe, home.path(), &args).await;
        assert_eq!(ended.code, Some(78), "{ended}");
        for told in ["axon.prot", "axon.port", "axon.max_workers", "metrics.port", "logging.debug", "my.yaml"] {
            assert!(ended.err.contains(told), "{told:?} is missing: {ended}");
        }
        assert!(ended.out.is_empty(), "{ended}");
    }
    let missing = home.path().join("nowhere.yaml");
    let ended = run(VALIDATOR, home.path(), &["--config", missing.to_str().unwrap()]).await;
    assert_eq!(ended.code, Some(78), "{ended}");
    assert!(ended.err.contains("nowhere.yaml"), "{ended}");
}

#[tokio::test]
async fn explain_says_where_it_looked_and_never_makes_or_alters_a_database() {
    let home = tempfile::tempdir().unwrap();
    let (data, file) = (home.path().join("data"), home.path().join("data/node.db"));
    let explain = async || run(REGISTER, home.path(), &["explain", ALICE, "--data-dir", data.to_str().unwrap()]).await;
    let ended = explain().await;
    assert_eq!(ended.code, Some(69), "{ended}");
    let told = format!("there is no database at {}; has a node run with this data directory?", data.display());
    assert!(ended.err.contains(&told), "{ended}");
    assert!(!data.exists(), "reading made a directory");

    drop(store::open(&data, Role::Validator, 0).unwrap());
    let ended = explain().await;
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.out.contains(ALICE) && ended.out.contains("Nothing is known about this hotkey"), "{ended}");
    let json = run(REGISTER, home.path(), &["explain", ALICE, "--json", "--data-dir", data.to_str().unwrap()]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json.out).unwrap()["hotkey"], ALICE, "{json}");

    let garbage = b"no database".repeat(500);
    std::fs::write(&file, &garbage).unwrap();
    let ended = explain().await;
    assert_eq!(ended.code, Some(65), "{ended}");
    assert!(ended.err.contains("is not a node's database"), "{ended}");
    assert!(std::fs::read(&file).unwrap() == garbage);
}

#[tokio::test]
async fn a_node_without_a_wallet_says_which_file_is_missing_and_dials_nobody() {
    let home = tempfile::tempdir().unwrap();
    for exe in [VALIDATOR, MINER] {
        for network in ["finney", "test", "local"] {
            let ended = run(exe, home.path(), &["--subtensor.network", network]).await;
            assert_eq!(ended.code, Some(65), "{ended}");
            assert!(ended.err.contains("hotkeys/default") && !ended.err.contains("connected"), "{ended}");
        }
        let ended = run(exe, home.path(), &["--devnet-keys", home.path().to_str().unwrap()]).await;
        assert_ne!(ended.code, Some(0), "{ended}");
        assert!(ended.err.contains("--subtensor.network ledger=http://127.0.0.1:PORT"), "{ended}");
    }
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "nothing was made for a node that cannot run");
}

/// A ledger that programs can join, with their keys.
struct Devnet {
    ledger: LedgerHandle,
    rpc: RpcServer,
    dir: tempfile::TempDir,
}

impl Devnet {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = DevnetKeys::load(dir.path()).unwrap();
        let mut genesis = GenesisConfig::new(Netuid(27));
        genesis.block_time = Duration::from_millis(50);
        genesis.hyperparameters.tempo = 5;
        genesis.hyperparameters.serving_rate_limit = 1;
        let nodes: Vec<(Keypair, Keypair)> =
            vec![(keys.validator(0), keys.validator_owner(0)), (keys.miner(0), keys.miner_owner(0))];
        let tao = 1_000_000_000;
        genesis.endowed = nodes.iter().map(|(_, owner)| (Coldkey(owner.hotkey().0), 1_000 * tao)).collect();
        genesis.stakes = vec![(keys.validator(0).hotkey(), 100_000 * tao)];
        let ledger = LedgerNode::spawn(genesis, None, Arc::new(SystemClock)).await.unwrap();
        for (key, owner) in nodes {
            let signer = Arc::new(key.clone());
            let chain = LedgerClient::in_process(ledger.clone(), Netuid(27), signer, Deadlines::default());
            chain.register(key.hotkey(), &owner).await.unwrap();
        }
        let rpc = RpcServer::start(ledger.clone(), "127.0.0.1:0".parse().unwrap()).unwrap();
        Devnet { ledger, rpc, dir }
    }

    fn hotkey(&self, uid: u16) -> Hotkey {
        self.ledger.state().metagraph().neurons[usize::from(uid)].hotkey
    }

    /// A node of its own process, with this data directory, page and more arguments.
    fn node(&self, exe: &str, data: &str, page: u16, more: &[&str]) -> Started {
        let mut command = program(exe, self.dir.path(), &[]);
        command
            .args(["--subtensor.network", &format!("ledger=http://{}", self.rpc.address())])
            .args(["--devnet-keys", self.dir.path().to_str().unwrap()])
            .args(["--node.data_dir", self.dir.path().join(data).to_str().unwrap()])
            .args(["--metrics.port", &page.to_string(), "--set", "subtensor.poll_interval=50ms"])
            .args(more);
        Started::new(command)
    }
}

/// The status of a node's page; `None` while nobody listens.
async fn status(port: u16, path: &str) -> Option<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let reply = reqwest::Client::new().get(format!("http://{address}{path}")).timeout(LONG).send().await.ok()?;
    Some(reply.status().as_u16())
}

async fn ready(node: &mut Started, port: u16) {
    until("the node is ready", async || {
        assert!(node.ended().is_none(), "the node ended before it was ready");
        (status(port, "/readyz").await == Some(200)).then_some(())
    })
    .await;
}

#[actix_rt::test]
async fn a_validator_joins_a_ledger_keeps_its_directory_to_itself_and_ends_with_0_at_sigterm() {
    let net = Devnet::start().await;
    let (page, other_page) = (free_ports(), free_ports());
    let mut validator = net.node(VALIDATOR, "validator", page, &[]);
    ready(&mut validator, page).await;
    assert_eq!(status(page, "/metrics").await, Some(200));

    // The hotkey is one node's alone, whatever directory the second is given; so is the directory.
    let lock = net.dir.path().join("locks of its own");
    let lock = ["--set", &format!("node.lock_dir={}", lock.display())];
    for (data, more) in [("validator", &[][..]), ("another", &[]), ("validator", &lock)] {
        let ended = net.node(VALIDATOR, data, other_page, more).end().await;
        assert_eq!(ended.code, Some(69), "{ended}");
        let (first, dir) = (validator.0.id(), net.dir.path().join("validator"));
        let told = match more {
            [] => {
                format!("hotkey {} is in use by process {first} with data directory {}", net.hotkey(0), dir.display())
            }
            _ => format!("is in use by process {first}; end it, or give this node a data directory"),
        };
        assert!(ended.err.contains(&told), "{ended}");
    }
    let ended = net.node(VALIDATOR, "elsewhere", page, &[]).end().await;
    assert_eq!(ended.code, Some(69), "{ended}");
    let told = format!("cannot listen on 127.0.0.1:{page} for web: choose another with --metrics.port");
    assert!(ended.err.contains(&told), "{ended}");
    assert_eq!(status(page, "/readyz").await, Some(200), "the first one is not disturbed");

    validator.signal(Signal::TERM);
    let ended = validator.end().await;
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.err.contains("SIGTERM"), "{ended}");
    // The directory is whole and free.
    drop(store::open(&net.dir.path().join("validator"), Role::Validator, 0).unwrap());
    net.rpc.stop().await;
}

#[actix_rt::test]
async fn a_miner_joins_a_ledger_and_ends_with_0_at_sigint() {
    let net = Devnet::start().await;
    let (page, axon) = (free_ports(), free_ports());
    let axon_flags = ["--device-class", "cpu-1", "--axon.ip", "127.0.9.1", "--axon.port", &axon.to_string()];
    let mut miner = net.node(MINER, "miner", page, &axon_flags);
    ready(&mut miner, page).await;
    let hotkey = net.hotkey(1);
    until("its axon is on the ledger", async || {
        let at = net.ledger.state().metagraph().by_hotkey(&hotkey)?.axon?;
        (at.port == axon).then_some(())
    })
    .await;
    miner.signal(Signal::INT);
    let ended = miner.end().await;
    assert_eq!(ended.code, Some(0), "{ended}");

    let wrong = ["--device-class", "cpu-9", "--axon.port", &axon.to_string()];
    let ended = net.node(MINER, "miner", page, &wrong).end().await;
    assert_eq!(ended.code, Some(64), "{ended}");
    assert!(ended.err.contains("no device class") && ended.err.contains("cpu-4"), "{ended}");

    let conn = rusqlite::Connection::open(net.dir.path().join("miner/node.db")).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let ended = net.node(MINER, "miner", page, &axon_flags).end().await;
    assert_eq!(ended.code, Some(65), "{ended}");
    assert!(ended.err.contains("has schema version 99") && ended.err.contains("it was not altered"), "{ended}");
    net.rpc.stop().await;
}

/// A page of a node as text.
async fn text(port: u16, path: &str) -> String {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let page = reqwest::Client::new().get(format!("http://{address}{path}")).timeout(LONG).send().await.unwrap();
    page.text().await.unwrap()
}

#[actix_rt::test]
async fn a_hotkey_has_one_miner_also_across_machines_and_what_another_announced_is_not_taken_back() {
    let net = Devnet::start().await;
    let hotkey = net.hotkey(1);
    let announced = || net.ledger.state().metagraph().by_hotkey(&hotkey).unwrap().axon.map(|a| (a.ip, a.port));
    // Another machine is one with another directory of locks.
    let miner = |name: &str, page: u16, at: SocketAddr| {
        let lock = format!("node.lock_dir={}", net.dir.path().join(name).join("locks").display());
        let (ip, port) = (at.ip().to_string(), at.port().to_string());
        let flags = ["--device-class", "cpu-1", "--axon.ip", &ip, "--axon.port", &port, "--set", &lock];
        net.node(MINER, name, page, &flags)
    };
    let pages = (free_ports(), free_ports());
    let one = SocketAddr::from(([127, 0, 9, 4], free_ports()));
    let two = SocketAddr::from(([127, 0, 9, 5], free_ports()));
    let mut first = miner("one", pages.0, one);
    ready(&mut first, pages.0).await;
    until("its axon is on the ledger", async || (announced() == Some((one.ip(), one.port()))).then_some(())).await;

    let refused = miner("two", pages.1, two).end().await;
    assert_eq!(refused.code, Some(69), "{refused}");
    let told = format!("hotkey {hotkey} is already served at {one} since 20");
    assert!(refused.err.contains(&told) && refused.err.contains("end that node or use another hotkey"), "{refused}");
    assert_eq!(announced(), Some((one.ip(), one.port())), "the first one is not disturbed");
    assert_eq!(status(pages.0, "/readyz").await, Some(200));
    assert!(text(pages.0, "/metrics").await.contains("compute_hotkey_conflict 0\n"));

    // Nobody else is told which process it is.
    let key = DevnetKeys::load(net.dir.path()).unwrap().validator(0);
    let stranger = Dendrite::new(key, Arc::new(SystemClock), None).unwrap();
    let asked = stranger.call(&Peer { hotkey, addr: one }, &WhoRequest {}, LONG, 1 << 10).await;
    let refusal = asked.unwrap_err().to_string();
    assert!(refusal.contains("403 not_this_hotkey"), "{refusal}");

    // Nobody answers for one that was killed: the next one takes its place.
    first.signal(Signal::KILL);
    drop(first.end().await);
    let mut second = miner("two", pages.1, two);
    ready(&mut second, pages.1).await;
    until("the new axon is on the ledger", async || (announced() == Some((two.ip(), two.port()))).then_some(())).await;
    let seen = net.ledger.state().head().number;
    until("the miner has seen it", async || {
        let page = text(pages.1, "/metrics").await;
        let block = page.lines().find_map(|l| l.strip_prefix("compute_chain_block ")?.parse::<u64>().ok())?;
        (block > seen).then_some(())
    })
    .await;

    // A node that could not ask announces the same hotkey elsewhere.
    let key = Arc::new(DevnetKeys::load(net.dir.path()).unwrap().miner(0));
    let elsewhere = LedgerClient::in_process(net.ledger.clone(), Netuid(27), key, Deadlines::default());
    until("it is announced elsewhere", async || elsewhere.serve_axon(one.ip(), 7, 183).await.ok()).await;
    until("the miner is not ready", async || (status(pages.1, "/readyz").await == Some(503)).then_some(())).await;
    let told = text(pages.1, "/readyz").await;
    assert!(told.contains(&format!("another node announced hotkey {hotkey} at {}:7 in block ", one.ip())), "{told}");
    assert!(text(pages.1, "/metrics").await.contains("compute_hotkey_conflict 1\n"));
    let until_block = net.ledger.state().head().number + 20;
    until("blocks pass", async || (net.ledger.state().head().number >= until_block).then_some(())).await;
    assert_eq!(announced(), Some((one.ip(), 7)), "it is not taken back");
    second.signal(Signal::TERM);
    let ended = second.end().await;
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(ended.err.matches("another node acts with this hotkey").count(), 1, "{ended}");
    net.rpc.stop().await;
}

/// Asks a miner's process for a proof until one is being computed that takes its time.
async fn proof_under_way(
    net: &Devnet,
    miner: Peer,
) -> tokio::task::JoinHandle<Result<ChallengeReply, compute_subnet::wire::dendrite::CallError>> {
    let key = DevnetKeys::load(net.dir.path()).unwrap().validator(0);
    let dendrite = Dendrite::new(key, Arc::new(SystemClock), None).unwrap();
    until("a proof is being computed", async || {
        let mut id = [0u8; 32];
        getrandom::fill(&mut id).unwrap();
        let devices = vec![DeviceWork { device: DeviceId::cpu(0), n: 512, k: 4096, rounds: 1 }];
        let epoch = net.ledger.state().metagraph().epoch();
        let challenge = ChallengeId(id[..16].try_into().unwrap());
        let request = ChallengeRequest { challenge, nonce: Hash32(id), epoch, devices };
        let dendrite = dendrite.clone();
        let asked = tokio::spawn(async move { Ok(dendrite.call(&miner, &request, LONG, 1 << 20).await?.body) });
        // What is refused (no permit yet, the epoch just ended) is refused at once.
        tokio::time::sleep(Duration::from_millis(200)).await;
        (!asked.is_finished()).then_some(asked)
    })
    .await
}

#[actix_rt::test]
async fn a_proof_under_way_is_answered_before_a_miner_ends_and_a_second_signal_waits_for_nothing() {
    let net = Devnet::start().await;
    let (page, axon) = (free_ports(), free_ports());
    let flags = ["--device-class", "cpu-1", "--axon.ip", "127.0.9.3", "--axon.port", &axon.to_string()];
    for signals in [1, 2] {
        let mut miner = net.node(MINER, "miner", page, &flags);
        ready(&mut miner, page).await;
        let peer = Peer { hotkey: net.hotkey(1), addr: SocketAddr::from(([127, 0, 9, 3], axon)) };
        let asked = proof_under_way(&net, peer).await;
        miner.signal(Signal::TERM);
        if signals == 1 {
            let reply = asked.await.unwrap().unwrap();
            assert!(matches!(reply, ChallengeReply::Roots { .. }), "{reply:?}");
            let ended = miner.end().await;
            assert_eq!(ended.code, Some(0), "{ended}");
        } else {
            // The first one is being heeded.
            until("it drains", async || (status(page, "/readyz").await == Some(503)).then_some(())).await;
            miner.signal(Signal::TERM);
            let ended = miner.end().await;
            assert_eq!(ended.code, Some(130), "{ended}");
            let reply = asked.await.unwrap();
            assert!(!matches!(reply, Ok(ChallengeReply::Roots { .. })), "it waited for the proof: {reply:?}");
        }
    }
    net.rpc.stop().await;
}

#[actix_rt::test]
async fn an_operator_commands_a_running_node_reloads_it_and_drains_it() {
    let net = Devnet::start().await;
    let (page, axon) = (free_ports(), free_ports());
    let at: SocketAddr = format!("127.0.9.2:{axon}").parse().unwrap();
    let data = net.dir.path().join("miner");
    let file = net.dir.path().join("my.yaml");
    std::fs::write(&file, "blacklist: { hotkeys: [] }\n").unwrap();
    let flags = ["--device-class", "cpu-1", "--axon.ip", "127.0.9.2", "--axon.port", &axon.to_string()];
    let flags = [&flags[..], &["--config", file.to_str().unwrap()]].concat();
    let mut miner = net.node(MINER, "miner", page, &flags);
    ready(&mut miner, page).await;
    let register = async |args: &[&str]| {
        run(REGISTER, net.dir.path(), &[args, &["--data-dir", data.to_str().unwrap()]].concat()).await
    };

    let status = register(&["status"]).await;
    assert_eq!(status.code, Some(0), "{status}");
    assert!(status.out.contains("compute-miner") && status.out.contains("ready          yes"), "{status}");
    let json = register(&["status", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["pid"], miner.0.id());
    for (args, told) in [
        (&["actors"][..], "allocation_manager  running"),
        (&["list"], "no leases"),
        (&["penalties"], "no penalties"),
        (&["config"], "axon.ip = 127.0.9.2  # flag --axon.ip"),
    ] {
        let ended = register(args).await;
        assert_eq!(ended.code, Some(0), "{ended}");
        assert!(ended.out.contains(told) && ended.err.is_empty(), "{ended}");
    }
    let ended = register(&["table"]).await;
    assert_eq!(ended.code, Some(65), "{ended}");
    assert!(ended.err.contains("this node is a miner"), "{ended}");

    // A validator that is admitted is refused as soon as the miner's operator has it so: by SIGHUP.
    let keys = DevnetKeys::load(net.dir.path()).unwrap();
    let dendrite = Dendrite::new(keys.validator(0), Arc::new(SystemClock), None).unwrap();
    let peer = Peer { hotkey: net.hotkey(1), addr: at };
    let ask = async || dendrite.call(&peer, &SpecsRequest::default(), LONG, 1 << 20).await.map_err(|e| e.to_string());
    until("the validator is admitted", async || ask().await.ok()).await;
    std::fs::write(&file, format!("blacklist: {{ hotkeys: [{}] }}\n", keys.validator(0).hotkey())).unwrap();
    miner.signal(Signal::HUP);
    until("the validator is refused", async || ask().await.err().filter(|e| e.contains("denied_hotkey"))).await;
    std::fs::write(&file, "metrics: { port: 9999 }\nwallet: { hotkey: other }\nminer: { min_stake: 5 }\n").unwrap();
    let reload = register(&["reload"]).await;
    assert_eq!(reload.code, Some(0), "{reload}");
    for told in [
        "applied          blacklist.hotkeys",
        "applied          miner.min_stake: 1024 → 5",
        "refused          wallet.hotkey",
    ] {
        assert!(reload.out.contains(told), "{told}: {reload}");
    }
    // The port is given by a flag, which wins over the file: nothing changed there.
    assert!(!reload.out.contains("metrics.port"), "{reload}");
    ask().await.unwrap();
    std::fs::write(&file, "miner: { min_stake: -1 }\nleases: { grace: soon }\n").unwrap();
    let reload = register(&["reload"]).await;
    assert_eq!(reload.code, Some(65), "{reload}");
    assert!(reload.err.contains("2 problems") && reload.err.contains("nothing has changed"), "{reload}");
    assert!(register(&["config"]).await.out.contains("miner.min_stake = 5 "));
    std::fs::write(&file, "{}").unwrap();

    // Maintenance outlasts a restart; the node is ready all the same.
    let on = register(&["maintenance", "on", "--note", "new disk"]).await;
    assert!(on.code == Some(0) && on.out.contains("new disk"), "{on}");
    miner.signal(Signal::TERM);
    assert_eq!(miner.end().await.code, Some(0));
    let mut miner = net.node(MINER, "miner", page, &flags);
    ready(&mut miner, page).await;
    let metrics = reqwest::get(format!("http://127.0.0.1:{page}/metrics")).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("compute_maintenance 1"), "{metrics}");
    assert!(register(&["status"]).await.out.contains("new disk"));
    let off = register(&["maintenance", "off"]).await;
    assert!(off.code == Some(0) && off.out.contains("new leases are taken"), "{off}");

    let drain = register(&["drain"]).await;
    assert_eq!(drain.code, Some(0), "{drain}");
    assert!(drain.out.contains("the node has ended"), "{drain}");
    let ended = miner.end().await;
    assert_eq!(ended.code, Some(0), "{ended}");
    let status = register(&["status"]).await;
    assert_eq!(status.code, Some(69), "{status}");
    assert!(status.err.contains("no node runs in") && status.err.contains("--data-dir"), "{status}");
    net.rpc.stop().await;
}

#[tokio::test]
async fn a_devnet_of_its_own_process_judges_its_epochs_and_ends_with_0() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("devnet");
    let port = free_ports();
    let classes = "devnet:\n  gpu_scores:\n    cpu-1: { base: 1, n: 128, k: 64, rounds: 1 }\n    cpu-2: { base: 2, n: 128, k: 64, rounds: 1 }\n";
    let file = home.path().join("tiny.yaml");
    std::fs::write(&file, classes).unwrap();
    let mut command = program(DEVNET, home.path(), &["--miners", "1", "--cheaters", "1", "--rentals", "0"]);
    command.args(["--epochs", "2", "--block-time", "100ms", "--node.data_dir", data.to_str().unwrap()]);
    command.args(["--metrics.port", &port.to_string(), "--config", file.to_str().unwrap()]);
    let running = Started::new(command);
    // It holds the keys of everybody.
    until("it can leave no core dump", async || {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", running.0.id())).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).map(str::to_owned)?;
        core.split_whitespace().eq(["0", "0", "bytes"]).then_some(())
    })
    .await;
    let ended = running.end().await;
    assert_eq!(ended.code, Some(0), "{ended}");
    for told in ["weights on chain of epoch", "miner-0", "cheater-1", "fail: entry_mismatch", "/metrics", "65535"] {
        assert!(ended.out.contains(told), "{told:?} is missing: {ended}");
    }
    // Afterwards its directory can be audited, and an audit that cannot see says so.
    let audit =
        async |dir: &Path| Started::new(program(DEVNET, home.path(), &["--audit", dir.to_str().unwrap()])).end().await;
    let ended = audit(&data).await;
    assert_eq!(ended.code, Some(0), "{ended}");
    assert!(ended.out.contains("0 leases of 0 renters at 2 miners"), "{ended}");
    let ended = audit(&home.path().join("none")).await;
    assert_eq!(ended.code, Some(65), "{ended}");
}

/// A selftest of a miner on a ledger that is not there, with this many more arguments, as JSON.
async fn selftest(home: &Path, more: &[&str]) -> (Ended, serde_json::Value) {
    let file = home.join("small.yaml");
    // A class whose work takes a moment also where nothing is optimised.
    let text = "devnet:\n  gpu_scores:\n    tiny: { base: 4, n: 64, k: 64, rounds: 2, memory_blocks: 64, memory_iterations: 8, memory_scans: 6 }\n";
    std::fs::write(&file, text).unwrap();
    let port = free_ports();
    let (axon, page) = (port.to_string(), (port + 1).to_string());
    let mut args = vec!["--config", file.to_str().unwrap(), "--subtensor.network", "ledger=http://127.0.0.1:1"];
    args.extend(["selftest", "--json", "--axon.ip", "127.0.1.1", "--axon.port", &axon, "--metrics.port", &page]);
    args.extend(more);
    let ended = run(MINER, home, &args).await;
    let report = serde_json::from_str(&ended.out).unwrap_or_default();
    (ended, report)
}

/// The line of this check.
fn line<'a>(report: &'a serde_json::Value, check: &str) -> &'a serde_json::Value {
    let lines = report["lines"].as_array().unwrap();
    lines.iter().find(|line| line["check"] == check).unwrap_or_else(|| panic!("{check}: {report}"))
}

#[tokio::test]
async fn a_miners_selftest_says_by_its_exit_code_whether_it_would_pass_and_needs_no_network() {
    let home = tempfile::tempdir().unwrap();
    let (ended, report) = selftest(home.path(), &["--device-class", "tiny"]).await;
    assert_eq!(ended.code, Some(0), "{ended}");
    assert_eq!(report["passes"], true, "{ended}");
    assert_eq!(report["devices"][0]["verdict"], "pass", "{ended}");
    let memory = &report["devices"][0]["memory"];
    assert_eq!((&memory["verdict"], &memory["blocks"]), (&"pass".into(), &64.into()), "{ended}");
    // One device of the best class of a table that has cpu-1 to cpu-4 beside.
    assert_eq!(report["score"]["points"], 12_500_000_000u64, "{ended}");
    assert_eq!(line(&report, "hotkey")["status"], "warn");
    let made: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(made, ["small.yaml"], "a selftest keeps nothing");

    let (ended, report) = selftest(home.path(), &["--device-class", "tiny", "--quick", "--devices", "CPU-0"]).await;
    assert_eq!((ended.code, &report["quick"]), (Some(0), &true.into()), "{ended}");
    assert_eq!(report["devices"][0]["work"]["rounds"], 1, "{ended}");
}

#[tokio::test]
async fn a_selftest_that_fails_names_the_line_and_the_remedy() {
    let home = tempfile::tempdir().unwrap();
    for (more, check, remedy) in [
        (&["--device-class", "tiny", "--set", "prover.path=/nowhere/prover"][..], "prover", "set prover.path"),
        (&["--device-class", "tiny", "--set", "budget.operations=1000000"], "budget", "set budget.operations to "),
        (&["--device-class", "gpu-1"], "devices", "--device-class"),
        (&["--device-class", "tiny", "--devices", "CPU-7"], "devices", "choose of CPU-0"),
        (&["--device-class", "tiny", "--wallet.name", "mine"], "hotkey", "--wallet.name"),
    ] {
        let (ended, report) = selftest(home.path(), more).await;
        assert_eq!((ended.code, &report["passes"]), (Some(1), &false.into()), "{more:?}: {ended}");
        let line = line(&report, check);
        assert_eq!(line["status"], "fail", "{more:?}: {ended}");
        assert!(line["remedy"].as_str().unwrap().contains(remedy), "{more:?}: {ended}");
    }
    let ended = run(MINER, home.path(), &["selftest", "--set", "axon.port=many"]).await;
    assert_eq!(ended.code, Some(78), "{ended}");
    assert!(ended.err.contains("axon.port") && ended.out.contains("would NOT pass"), "{ended}");
}

#[tokio::test]
async fn a_benchmark_runs_the_real_prover_and_checks_what_it_proves() {
    let home = tempfile::tempdir().unwrap();
    let args = ["benchmark", "--sizes", "64:64:2,128:64:1", "--count", "2", "--backend", "cpu", "--threads", "1"];
    let ended = run(REGISTER, home.path(), &args).await;
    assert_eq!(ended.code, Some(0), "{ended}");
    let lines: Vec<&str> = ended.out.lines().collect();
    assert!(lines[0].ends_with("/compute-prover") && lines[1].starts_with("backend"), "{ended}");
    assert!(lines[2].starts_with("cpu") && lines.len() == 4, "{ended}");

    let json = run(REGISTER, home.path(), &[&args[..], &["--json"]].concat()).await;
    let told: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let first = &told["runs"][0];
    assert_eq!((&first["n"], &first["count"], &first["samples"]), (&64.into(), &2.into(), &66.into()), "{json}");
    // 66 tiles with the two siblings of each.
    assert_eq!(first["wire_bytes"]["openings"], 66 * (4096 + 2 * 32), "{json}");
    for spread in ["commit_ns", "opening_ns", "verification_ns"] {
        let of = |what: &str| first[spread][what].as_u64().unwrap();
        assert!(0 < of("min") && of("min") <= of("median") && of("median") <= of("max"), "{json}");
    }

    let wrong = run(REGISTER, home.path(), &["benchmark", "--sizes", "65:64:2"]).await;
    assert_eq!(wrong.code, Some(64), "{wrong}");
    let missing = run(REGISTER, home.path(), &["--set", "prover.path=/nowhere/prover", "benchmark"]).await;
    assert_eq!(missing.code, Some(69), "{missing}");
    assert!(missing.err.contains("/nowhere/prover"), "{missing}");
}
