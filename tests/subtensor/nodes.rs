//! Nodes as operators run them: the programs, a wallet's files, flags. Each is a process that can be killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use compute_subnet::wallet::Keypair;
use compute_subnet::web::control::ControlClient;
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until;

/// Longest wait for a page.
const PAGE: Duration = Duration::from_secs(10);

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Validator,
    Miner,
}

/// A node and, while it runs, its process.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) key: Keypair,
    pub(crate) data: PathBuf,
    /// What `/metrics` and its like are served at, on loopback.
    pub(crate) web: u16,
    /// How often it was killed and started again.
    pub(crate) kills: u32,
    args: Vec<String>,
    home: PathBuf,
    child: Child,
    pages: reqwest::Client,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a wallet as the common tools do: `{home}/wallets/{name}/hotkeys/default`, not encrypted.
fn wallet(home: &Path, name: &str, seed: &[u8; 32], key: &Keypair) {
    let keys = home.join("wallets").join(name).join("hotkeys");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&keys).unwrap();
    let public = format!("0x{}", hex::encode(key.hotkey().0));
    let text = serde_json::json!({
        "accountId": public,
        "publicKey": public,
        "secretSeed": format!("0x{}", hex::encode(seed)),
        "ss58Address": key.hotkey().to_string(),
    });
    let mut options = File::options();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(keys.join("default")).unwrap();
    serde_json::to_writer(file, &text).unwrap();
}

fn program(role: Role) -> &'static str {
    match role {
        Role::Validator => env!("CARGO_BIN_EXE_compute-validator"),
        Role::Miner => env!("CARGO_BIN_EXE_compute-miner"),
    }
}

/// The key of the node of this name: the same in each run.
pub(crate) fn seed(name: &str) -> [u8; 32] {
    *blake3::hash(format!("the subnet's {name}").as_bytes()).as_bytes()
}

impl Node {
    /// Starts a node with a wallet of its own below `home`. `web` is the port of its pages.
    pub(crate) fn start(home: &Path, name: &str, role: Role, web: u16, further: &[String]) -> Self {
        let seed = seed(name);
        let key = Keypair::from_seed(&seed);
        wallet(home, name, &seed, &key);
        let data = home.join(name);
        let mut args: Vec<String> = ["--wallet.name", name, "--wallet.path"].map(str::to_owned).into();
        args.push(home.join("wallets").display().to_string());
        args.extend(["--node.data_dir".to_owned(), data.display().to_string()]);
        args.extend(["--metrics.port".to_owned(), web.to_string()]);
        if role == Role::Miner {
            // The chain is what is real here.
            args.extend(["--set", "docker.engine=simulated"].map(str::to_owned));
        }
        args.extend_from_slice(further);
        let child = spawn(home, name, role, &args);
        let pages = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).timeout(PAGE).build().unwrap();
        Node { name: name.to_owned(), role, key, data, web, kills: 0, args, home: home.to_owned(), child, pages }
    }

    /// A page's status and text; `None` if it is not served.
    pub(crate) async fn page(&self, path: &str) -> Option<(u16, String)> {
        let reply = self.pages.get(format!("http://127.0.0.1:{}{path}", self.web)).send().await.ok()?;
        Some((reply.status().as_u16(), reply.text().await.ok()?))
    }

    /// Waits until the node says that it can do its work.
    pub(crate) async fn ready(&mut self) {
        let mut last = None;
        until(&format!("{} is ready", self.name), async || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended: {ended:?}\n{}", self.name, self.said(30));
            last = self.page("/readyz").await;
            (last.as_ref()?.0 == 200).then_some(())
        })
        .await;
    }

    /// The sum of all series of this name whose labels have every one of these texts.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let (_, text) = self.page("/metrics").await?;
        let of = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) && labels.iter().all(|label| rest.contains(label)))
        };
        let values: Vec<f64> =
            text.lines().filter(of).filter_map(|line| line.rsplit_once(' ')?.1.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }

    /// Its control socket's client.
    pub(crate) fn control(&self) -> ControlClient {
        ControlClient::new(&self.data)
    }

    /// SIGKILL, and starts it again at once.
    pub(crate) fn kill(&mut self) {
        self.alive();
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.home, &self.name, self.role, &self.args);
        self.kills += 1;
    }

    /// Fails unless the process runs.
    pub(crate) fn alive(&mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "{} ended by itself: {ended:?}\n{}", self.name, self.said(60));
    }

    /// How often each actor of this process was restarted.
    pub(crate) async fn restarts(&self) -> f64 {
        self.metric("compute_actor_restarts_total", &[]).await.expect("metrics are served")
    }

    /// The end of its log, over all its lives.
    pub(crate) fn said(&self, lines: usize) -> String {
        let all = self.log();
        let all: Vec<&str> = all.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Its log, over all its lives.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.join(format!("{}.log", self.name))).unwrap_or_default()
    }

    /// Ends it in order.
    pub(crate) async fn end(&mut self) {
        self.alive();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let status = until("it ends", async || self.child.try_wait().unwrap()).await;
        assert!(status.success(), "{}: {status}\n{}", self.name, self.said(60));
    }

    /// Runs a command of `compute-register` on its directory; standard output, and whether all was in order.
    pub(crate) fn register(&self, words: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_compute-register"));
        command.env_clear().env("HOME", &self.home).stdin(Stdio::null());
        command.args(["--role", if self.role == Role::Miner { "miner" } else { "validator" }]);
        command.args(["--data-dir", &self.data.display().to_string()]).args(words);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }
}

fn spawn(home: &Path, name: &str, role: Role, args: &[String]) -> Child {
    let log = File::options().create(true).append(true).open(home.join(format!("{name}.log"))).unwrap();
    let mut command = Command::new(program(role));
    command.env_clear().env("HOME", home).args(args).stdin(Stdio::null());
    command.stderr(log.try_clone().unwrap()).stdout(log);
    command.spawn().unwrap()
}

/// Lines of warnings and errors of all nodes, by how often.
pub(crate) fn complaints<'a>(nodes: impl Iterator<Item = &'a Node>) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for node in nodes {
        for line in node.log().lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR ")) {
            let text = line.split_once("compute_subnet").map_or(line, |(_, text)| text);
            *all.entry(format!("{}: {}", node.name, text.chars().take(220).collect::<String>())).or_default() += 1;
        }
    }
    all
}
