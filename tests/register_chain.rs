//! `compute-register` and the chain: what it reads, a registration, weights, against a ledger.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "common/wait.rs"]
mod wait;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::Chain as _;
use compute_subnet::chain::ledger::{Deadlines, GenesisConfig, LedgerClient, LedgerHandle, LedgerNode, RpcServer};
use compute_subnet::clock::SystemClock;
use compute_subnet::ids::{Coldkey, Netuid};
use compute_subnet::sim::keys::DevnetKeys;
use compute_subnet::wallet::{HotkeyLock, Keypair, keyfile};
use serde_json::Value;
use wait::{LONG, free_ports, until};

const REGISTER: &str = env!("CARGO_BIN_EXE_compute-register");
const DEVNET: &str = env!("CARGO_BIN_EXE_compute-devnet");
const TAO: u64 = 1_000_000_000;
/// The password and the key of the Ansible vault among the vectors.
const PASSWORD: &str = "Correct-Horse-9!";
const ABANDON: &str = "5EPCUjPxiHAcNooYipQFWr9NmmXJKpNG5RhcntXwbtUySrgH";
const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

/// How a program ended, and what it said.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Checks the code, and that nothing secret was said.
    #[track_caller]
    fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.out.contains(PASSWORD) && !self.err.contains(PASSWORD), "{self:?}");
        self
    }

    /// Checks that each of these was said on standard error.
    #[track_caller]
    fn telling(self, told: &[&str]) -> Self {
        for told in told {
            assert!(self.err.contains(told), "{told:?} is missing: {self:?}");
        }
        self
    }
}

/// `compute-register` with nothing of this machine's configuration.
fn register(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(REGISTER);
    command.args(args).env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

async fn ended(command: Command, input: Option<&str>) -> Ended {
    let mut command = tokio::process::Command::from(command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().unwrap();
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that does not read it has closed it.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await;
    }
    let output = tokio::time::timeout(LONG, child.wait_with_output()).await.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A ledger with a validator and a miner in subnet 27, and a home without wallets.
struct Net {
    ledger: LedgerHandle,
    rpc: RpcServer,
    home: tempfile::TempDir,
    keys: DevnetKeys,
}

impl Net {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut GenesisConfig)) -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join("seed")).unwrap();
        let keys = DevnetKeys::load(&home.path().join("seed")).unwrap();
        let mut genesis = GenesisConfig::new(Netuid(27));
        genesis.block_time = Duration::from_millis(20);
        genesis.hyperparameters.tempo = 5;
        genesis.hyperparameters.weights_rate_limit = 1;
        genesis.hyperparameters.burn_rao = 3 * TAO / 2;
        let owner = Coldkey(keys.validator_owner(0).hotkey().0);
        genesis.endowed = vec![(owner, 1_000 * TAO), (ABANDON.parse().unwrap(), 2 * TAO)];
        genesis.stakes = vec![(keys.validator(0).hotkey(), 100_000 * TAO)];
        change(&mut genesis);
        let ledger = LedgerNode::spawn(genesis, None, Arc::new(SystemClock)).await.unwrap();
        let rpc = RpcServer::start(ledger.clone(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let net = Net { ledger, rpc, home, keys };
        for key in [net.keys.validator(0), net.keys.miner(0)] {
            let chain = net.client(&key);
            chain.register(key.hotkey(), &net.keys.validator_owner(0)).await.unwrap();
        }
        net
    }

    fn client(&self, key: &Keypair) -> LedgerClient {
        let signer = Arc::new(key.clone());
        LedgerClient::in_process(self.ledger.clone(), Netuid(27), signer, Deadlines::default())
    }

    fn wallets(&self) -> PathBuf {
        self.home.path().join(".bittensor/wallets")
    }

    /// A wallet whose coldkey is the Ansible vault's, and whose hotkey is this one, if any.
    fn wallet(&self, hotkey: Option<&Keypair>) {
        let vectors = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wallets");
        let dir = self.wallets().join("default");
        fs::create_dir_all(dir.join("hotkeys")).unwrap();
        fs::copy(vectors.join("legacy/hotkeys/hk_ansible_vault"), dir.join("coldkey")).unwrap();
        fs::copy(vectors.join("watch/coldkeypub.txt"), dir.join("coldkeypub.txt")).unwrap();
        for (file, mode) in [("", 0o700), ("hotkeys", 0o700), ("coldkey", 0o600)] {
            fs::set_permissions(dir.join(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        if let Some(hotkey) = hotkey {
            keyfile::create(&dir.join("hotkeys/default"), hotkey).unwrap();
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = register(self.home.path(), args);
        command.args(["--subtensor.network", &format!("ledger=http://{}", self.rpc.address())]);
        command
    }

    async fn run(&self, args: &[&str]) -> Ended {
        ended(self.command(args), None).await
    }

    fn balance(&self) -> u64 {
        self.ledger.state().balance(&ABANDON.parse().unwrap())
    }

    fn neurons(&self) -> usize {
        self.ledger.state().metagraph().neurons.len()
    }
}

#[tokio::test]
async fn what_is_on_the_chain_is_read_without_any_wallet() {
    let net = Net::start().await;
    let (validator, miner) = (net.keys.validator(0).hotkey(), net.keys.miner(0).hotkey());

    let graph = net.run(&["metagraph"]).await.with(0);
    assert!(graph.out.contains("2 neurons\nuid  hotkey") && graph.err.is_empty(), "{graph:?}");
    assert!(graph.out.lines().all(|line| line.chars().count() <= 100), "{graph:?}");
    let json = net.run(&["metagraph", "--json", "--sort", "stake"]).await.with(0).json();
    assert_eq!(json["neurons"][0]["hotkey"], validator.to_string());
    assert_eq!(json["neurons"][0]["stake_rao"], 100_000 * TAO);
    assert_eq!(json["neurons_in_all"], 2);
    let one = net.run(&["metagraph", "--hotkey", &miner.to_string()]).await.with(0);
    assert!(one.out.contains(&miner.to_string()) && !one.out.contains(&validator.to_string()), "{one:?}");
    net.run(&["metagraph", "--uid", "9", "--hotkey", ALICE])
        .await
        .with(65)
        .telling(&["no neuron has uid 9", &format!("hotkey {ALICE} is not registered in subnet 27")]);

    let rules = net.run(&["hyperparameters", "--json"]).await.with(0).json();
    let burn = rules["hyperparameters"].as_array().unwrap().iter().find(|rule| rule["name"] == "Burn").unwrap();
    assert_eq!(burn["value"], 1_500_000_000u64);
    let text = net.run(&["hyperparameters"]).await.with(0);
    assert!(text.out.contains("1.5 TAO") && text.out.lines().all(|l| l.chars().count() <= 100), "{text:?}");

    let balance = net.run(&["balance", ABANDON]).await.with(0);
    assert!(balance.out.contains("2 TAO (2000000000 rao)"), "{balance:?}");
    assert_eq!(net.run(&["balance", ALICE, "--json"]).await.with(0).json()["balance_rao"], 0);
    net.run(&["balance"]).await.with(65).telling(&["coldkeypub.txt", "compute-register balance SS58", "--wallet.name"]);

    let none = net.run(&["weights", "show", "--uid", "0"]).await.with(0);
    assert!(none.out.contains("no weights count yet"), "{none:?}");
    let all = net.run(&["weights", "show", "--all"]).await.with(0);
    assert!(all.out.contains("nobody has set weights"), "{all:?}");
    net.run(&["weights", "show", "--hotkey", ALICE])
        .await
        .with(65)
        .telling(&["no neuron has hotkey", "metagraph lists"]);
    net.run(&["weights", "show"]).await.with(65).telling(&["no wallet \"default\"", "--hotkey SS58"]);
    net.rpc.stop().await;
}

#[tokio::test]
async fn a_wrong_command_line_is_refused_before_the_chain_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("weights.json");
    fs::write(&file, "{\"1\": -1}").unwrap();
    let file = file.to_str().unwrap();
    for (args, code, told) in [
        (&["metagraph", "--uid", "65536"][..], 64, "--uid"),
        (&["metagraph", "--uid", "-1"], 64, "'-1'"),
        (&["metagraph", "--hotkey", "nobody"], 64, "'nobody' is not a hotkey"),
        (&["metagraph", "--sort", "name"], 64, "emission"),
        (&["balance", "nobody"], 64, "'nobody' is not a coldkey's address"),
        (&["weights"], 64, "show"),
        (&["weights", "show", "--uid", "1", "--all"], 64, "cannot be used with"),
        (&["weights", "show", "--uid", "1", "--hotkey", ALICE], 64, "cannot be used with"),
        (&["weights", "show", "--hotkey", "nobody"], 64, "'nobody' is not a hotkey"),
        (&["weights", "set"], 64, "a running validator sets weights itself"),
        (&["weights", "set", "--dry-run", "--yes"], 64, "cannot be used with"),
        (&["weights", "set", "--yes", "--hotkey", ALICE], 64, "cannot be used with"),
        (&["weights", "set", "--dry-run", "--hotkey", ALICE, "/none.json"], 65, "no weights in /none.json"),
        (&["weights", "set", "--dry-run", "--hotkey", ALICE, file], 65, "the share of uid 1 is -1"),
        (&["weights", "set", "--dry-run", "--hotkey", ALICE, "-"], 65, "no weights in standard input"),
        (&["register", "--max-cost", "cheap"], 64, "expected TAO"),
        (&["register", "--max-cost", "1e9"], 64, "expected TAO"),
        (&["register", "--hotkey", "nobody"], 64, "'nobody' is not a hotkey"),
        (&["register"], 65, "no wallet \"default\""),
        (&["register", "--hotkey", ALICE], 65, "coldkeypub.txt"),
        (&["metagraph", "--netuid", "many"], 78, "netuid"),
        (&["metagraph", "--subtensor.network", "fineny"], 78, "finney"),
    ] {
        let mut command = register(home.path(), args);
        // Nobody is there; a flag wins over it.
        command.env("COMPUTE__SUBTENSOR__NETWORK", "ledger=http://127.0.0.1:1");
        let ended = ended(command, None).await.with(code).telling(&[told]);
        assert!(ended.out.is_empty(), "{args:?}: {ended:?}");
    }
}

#[tokio::test]
async fn a_chain_that_is_away_or_another_is_told_with_its_address_and_what_helps() {
    let net = Net::start().await;
    net.wallet(Some(&net.keys.miner(1)));
    let weights = net.home.path().join("weights.json");
    fs::write(&weights, "{\"1\": 1}").unwrap();
    let away = format!("ledger=http://127.0.0.1:{}", free_ports());
    for args in [
        &["metagraph"][..],
        &["hyperparameters"],
        &["balance"],
        &["weights", "show"],
        &["weights", "set", "--dry-run", weights.to_str().unwrap()],
        &["register", "--yes"],
    ] {
        let mut command = register(net.home.path(), args);
        command.args(["--subtensor.network", &away]);
        let told = [&away["ledger=".len()..], "cannot be reached", "--subtensor.chain_endpoint"];
        let away = ended(command, None).await.with(69).telling(&told);
        assert!(away.out.is_empty(), "{away:?}");
        // The balance is an account's, of no subnet.
        if args != ["balance"] {
            net.run(&[args, &["--netuid", "15"]].concat()).await.with(65).telling(&["subnet 27", "--netuid"]);
        }
    }
    assert_eq!((net.balance(), net.neurons()), (2 * TAO, 2));
    net.rpc.stop().await;
}

#[tokio::test]
async fn nothing_is_paid_without_a_yes_and_no_key_is_opened_for_a_registration_that_cannot_be() {
    let net = Net::start().await;
    net.wallet(Some(&net.keys.miner(1)));
    let hotkey = net.keys.miner(1).hotkey().to_string();
    // The answer of the pipe is no answer.
    let refused = ended(net.command(&["register"]), Some("y\n")).await.with(64).telling(&["no terminal", "--yes"]);
    for told in [hotkey.as_str(), ABANDON, "1.5 TAO (1500000000 rao), burned", "0.5 TAO (500000000 rao), less the fee"]
    {
        assert!(refused.out.contains(told), "{told}: {refused:?}");
    }
    assert!(!refused.err.contains("Password"), "{refused:?}");
    net.run(&["register", "--yes", "--max-cost", "1.499999999"])
        .await
        .with(65)
        .telling(&["more than --max-cost 1.499999999"]);
    // No source of a hotkey's password is tried for the coldkey.
    let password = net.home.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    let set = format!("wallet.password_file={}", password.display());
    net.run(&["--set", &set, "register", "--yes"]).await.with(65).telling(&[
        "nothing was sent",
        "there is no password: give it at a terminal",
        "BT_PW_",
    ]);
    fs::remove_file(net.wallets().join("default/coldkey")).unwrap();
    net.run(&["register", "--yes"]).await.with(65).telling(&["its secret is not here", "--hotkey SS58"]);
    assert_eq!((net.balance(), net.neurons()), (2 * TAO, 2));
    net.rpc.stop().await;

    let poor = Net::with(|genesis| genesis.endowed[1].1 = TAO).await;
    poor.wallet(None);
    let said = poor.run(&["register", "--yes", "--hotkey", ALICE]).await.with(65);
    said.telling(&["the coldkey has 1 TAO", "0.5 TAO (500000000 rao) are missing"]);
    // A plain file where the secret should be would be opened; it was not looked into.
    poor.rpc.stop().await;
}

#[tokio::test]
async fn a_hotkey_is_registered_once_and_the_second_time_costs_nothing() {
    let net = Net::start().await;
    net.wallet(Some(&net.keys.miner(1)));
    let variable = compute_subnet::wallet::password::variable(&net.wallets().join("default/coldkey"));
    let with_password = |args: &[&str], password: &str| {
        let mut command = net.command(args);
        command.env(&variable, password);
        command
    };
    let all = ["register", "--yes", "--json", "--max-cost", "1.5"];
    ended(with_password(&all, "wrong"), None).await.with(65).telling(&["nothing was sent", "does not open key file"]);
    assert_eq!((net.balance(), net.neurons()), (2 * TAO, 2));
    let done = ended(with_password(&all, PASSWORD), None).await.with(0).telling(&["decrypting", "0.5 TAO"]);
    let json = done.json();
    assert_eq!((&json["outcome"], &json["uid"]), (&Value::from("registered"), &Value::from(2)));
    assert_eq!(json["hotkey"], net.keys.miner(1).hotkey().to_string());
    let shown = net.ledger.state().metagraph();
    assert_eq!(json["block"], shown.neurons[2].registered_at);
    assert_eq!((shown.neurons[2].coldkey.to_string().as_str(), net.balance()), (ABANDON, TAO / 2));
    // Neither money nor a password is needed to hear that there is nothing to do.
    let again = net.run(&["register"]).await.with(0);
    assert!(again.out.contains("already registered") && again.out.contains("uid 2 in subnet 27"), "{again:?}");
    assert_eq!(net.run(&["register", "--json"]).await.with(0).json()["outcome"], "already_registered");
    assert_eq!(net.balance(), TAO / 2);
    net.rpc.stop().await;
}

#[tokio::test]
async fn a_coldkey_that_is_not_the_one_whose_balance_was_shown_pays_nothing() {
    let net = Net::start().await;
    net.wallet(Some(&net.keys.miner(1)));
    let coldkey = net.wallets().join("default/coldkey");
    fs::remove_file(&coldkey).unwrap();
    keyfile::create(&coldkey, &net.keys.validator_owner(0)).unwrap();
    let before = net.ledger.state().balance(&Coldkey(net.keys.validator_owner(0).hotkey().0));
    net.run(&["register", "--yes"]).await.with(65).telling(&["nothing was sent", "states another key", ABANDON]);
    assert_eq!(net.ledger.state().balance(&Coldkey(net.keys.validator_owner(0).hotkey().0)), before);
    assert_eq!(net.neurons(), 2);
    net.rpc.stop().await;
}

#[tokio::test]
async fn a_call_without_an_answer_is_told_as_unknown_with_how_to_find_out() {
    // No block is made after the first ones: the call waits for one.
    let net = Net::start().await;
    net.wallet(Some(&net.keys.miner(1)));
    let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, to) = (mute.local_addr().unwrap(), net.rpc.address());
    // Reads go through; the call itself is swallowed.
    let between = tokio::spawn(async move {
        loop {
            let (mut near, _) = mute.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = vec![0; 1 << 16];
                while let Ok(read @ 1..) = tokio::io::AsyncReadExt::read(&mut near, &mut head).await {
                    if head.starts_with(b"POST") {
                        tokio::time::sleep(LONG).await;
                    }
                    let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                    let once = String::from_utf8_lossy(&head[..read]).replacen("\r\n", "\r\nconnection: close\r\n", 1);
                    tokio::io::AsyncWriteExt::write_all(&mut far, once.as_bytes()).await.unwrap();
                    if tokio::io::copy(&mut far, &mut near).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    let mut command =
        register(net.home.path(), &["--set", "weights.confirm_timeout=1s", "register", "--yes", "--json"]);
    let variable = compute_subnet::wallet::password::variable(&net.wallets().join("default/coldkey"));
    command.args(["--subtensor.network", &format!("ledger=http://{at}")]).env(variable, PASSWORD);
    let unknown = ended(command, None).await.with(69);
    let unknown = unknown.telling(&["it is NOT known whether", "did not answer within 1s", "metagraph --hotkey"]);
    assert_eq!(unknown.json()["outcome"], "unknown");
    between.abort();
    net.rpc.stop().await;
}

/// A terminal: the end that a person types at, and the program's.
fn pseudoterminal() -> (fs::File, fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (controller.into(), terminal)
}

/// Reads standard error until it ends like this.
fn asked(child: &mut Child, question: &str) -> String {
    let stderr = child.stderr.as_mut().unwrap();
    let mut said = Vec::new();
    while !said.ends_with(question.as_bytes()) {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&said));
        said.push(byte[0]);
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_is_asked_first_for_consent_and_only_then_for_the_password() {
    let net = Net::start().await;
    net.wallet(Some(&net.keys.miner(1)));
    let session = |answer: &'static str, password: Option<&'static str>| {
        let mut command = net.command(&["register"]);
        let (mut controller, terminal) = pseudoterminal();
        command.stdin(terminal).stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            let question = asked(&mut child, "[y/N] ");
            assert!(question.contains("Burn 1.5 TAO (1500000000 rao)") && !question.contains("Password"), "{question}");
            controller.write_all(answer.as_bytes()).unwrap();
            if let Some(password) = password {
                asked(&mut child, "default/coldkey: ");
                controller.write_all(password.as_bytes()).unwrap();
            }
            let output = child.wait_with_output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
        })
    };
    for answer in ["n\n", "\n", "yo\n", "\x04"] {
        let ended = session(answer, None).await.unwrap().with(65).telling(&["nothing was done"]);
        assert!(!ended.err.contains("Password"), "{answer:?}: {ended:?}");
    }
    session("yes\n", Some("\x03")).await.unwrap().with(65).telling(&["no password was entered"]);
    session("y\n", Some("wrong\r")).await.unwrap().with(65).telling(&["does not open key file"]);
    assert_eq!((net.balance(), net.neurons()), (2 * TAO, 2));
    let done = session("y\n", Some("Correct-Horse-9!\r")).await.unwrap().with(0);
    assert!(done.out.contains("registered: uid 2, block "), "{done:?}");
    assert_eq!((net.balance(), net.neurons()), (TAO / 2, 3));
    net.rpc.stop().await;
}

#[tokio::test]
async fn weights_are_tried_out_without_being_sent_and_sent_once_at_a_word() {
    let net = Net::start().await;
    let (validator, miner) = (net.keys.validator(0), net.keys.miner(0));
    net.wallet(Some(&validator));
    until("the validator has its permit", async || {
        net.ledger.state().metagraph().neurons[0].validator_permit.then_some(())
    })
    .await;
    let locks = net.home.path().join("locks");
    let at = format!("node.lock_dir={}", locks.display());
    let set = async |args: &[&str], json: &str| {
        ended(net.command(&[&["--set", &at, "weights", "set", "-"], args].concat()), Some(json)).await
    };
    let dry = set(&["--dry-run"], r#"{"1": 3, "0": 1}"#).await.with(0);
    for told in ["way      in the open", "65535   75.0000 %", "nothing was sent", &miner.hotkey().to_string()] {
        assert!(dry.out.contains(told), "{told}: {dry:?}");
    }
    assert!(dry.out.lines().all(|line| line.chars().count() <= 100), "{dry:?}");
    let json = set(&["--dry-run", "--json"], "[[1, 0.5]]").await.with(0).json();
    assert_eq!((&json["route"], &json["sent"]), (&Value::from("plain"), &Value::Null));
    assert_eq!(json["refused"].as_array().unwrap().len(), 0);
    // What the chain would refuse is told in its words, for others too, whose key is not here.
    let json = set(&["--dry-run", "--json", "--hotkey", &miner.hotkey().to_string()], r#"{"0": 1, "7": 1}"#).await;
    let json = json.with(65).json();
    let names: Vec<&str> = json["refused"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["NeuronNoValidatorPermit", "UidVecContainInvalidOne"]);
    assert!(net.ledger.state().metagraph().neurons[0].weights.is_empty(), "nothing was sent so far");

    // A node of this machine that holds the hotkey is not disturbed.
    let lock = HotkeyLock::take(&locks, validator.hotkey(), Netuid(27), Path::new("/data")).unwrap();
    let busy = set(&["--yes"], r#"{"1": 1}"#).await;
    busy.with(69).telling(&["nothing was sent", "is in use by process"]);
    drop(lock);
    let sent = set(&["--yes", "--json"], r#"{"1": 1, "0": 0.5}"#).await.with(0).json();
    assert!(sent["sent"]["block"].as_u64().is_some(), "{sent}");
    let shown = net.run(&["weights", "show", "--json"]).await.with(0).json();
    assert_eq!((&shown["weights"][0]["weight"], &shown["weights"][1]["weight"]), (&65_535.into(), &32_768.into()));
    assert_eq!(shown["last_update"], sent["sent"]["block"]);
    assert_eq!(net.run(&["weights", "show", "--uid", "0", "--json"]).await.with(0).json()["weights"], shown["weights"]);
    let all = net.run(&["weights", "show", "--all", "--json"]).await.with(0).json();
    assert_eq!(all["validators"][0]["weights"], shown["weights"]);
    // Without a node there is no scoreboard.
    net.run(&["weights", "set", "--dry-run"])
        .await
        .with(69)
        .telling(&["those of the running validator", "is the node running?"]);
    net.rpc.stop().await;
}

#[tokio::test]
async fn a_running_validators_scores_become_the_weights_that_it_sets_itself() {
    let home = tempfile::tempdir().unwrap();
    let (data, port) = (home.path().join("devnet"), free_ports());
    let file = home.path().join("tiny.yaml");
    fs::write(&file, "devnet:\n  gpu_scores:\n    cpu-1: { base: 1, n: 128, k: 64, rounds: 1 }\n").unwrap();
    let mut devnet = Command::new(DEVNET);
    devnet.env_clear().env("HOME", home.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    devnet.args(["--miners", "1", "--rentals", "0", "--block-time", "100ms", "--config", file.to_str().unwrap()]);
    devnet.args(["--node.data_dir", data.to_str().unwrap(), "--metrics.port", &port.to_string()]);
    devnet.args(["--ledger-port", &(port + 9).to_string()]);
    let mut devnet = tokio::process::Command::from(devnet).kill_on_drop(true).spawn().unwrap();
    let network = format!("ledger=http://127.0.0.1:{}", port + 9);
    let validator = data.join("validator");
    let ask = async |args: &[&str]| {
        let mut command = register(home.path(), args);
        command.args(["--json", "--subtensor.network", &network, "--data-dir", validator.to_str().unwrap()]);
        ended(command, None).await
    };
    until("its weights are on the chain", async || {
        let table = ask(&["table"]).await;
        (table.code == Some(0) && !table.json()["on_chain"].is_null()).then_some(())
    })
    .await;
    let status = ask(&["status"]).await.with(0).json();
    let hotkey = status["hotkey"].as_str().unwrap();
    // It sets them every few blocks, so a dry run may fall between two settings: what is compared is the weights.
    let dry = ask(&["weights", "set", "--dry-run", "--hotkey", hotkey]).await.json();
    let shown = ask(&["weights", "show", "--hotkey", hotkey]).await.with(0).json();
    assert_eq!(dry["source"], "node");
    assert!(!shown["weights"].as_array().unwrap().is_empty(), "{shown}");
    assert_eq!(dry["weights"], shown["weights"]);
    devnet.kill().await.unwrap();
}
