//! The devnet under test, from outside: its processes, its ledger, its pages.

use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::Chain as _;
use compute_subnet::chain::epoch_of;
use compute_subnet::chain::ledger::{Deadlines, LedgerClient, LedgerEndpoint};
use compute_subnet::ids::{BlockNumber, Epoch, Netuid};
use compute_subnet::sim::processes::{self, ChildInfo, ChildRole, Listing};
use compute_subnet::wallet::Keypair;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::wait::{LONG, until};

pub(crate) const MINERS: usize = 3;
const NETUID: Netuid = Netuid(27);
/// Blocks of an epoch, less one. Blocks come every 50 ms (1 s, 20 times faster).
const TEMPO: u16 = 11;
const TEMPO_SPEED: &str = "20";
/// Proofs that cost nothing beside starting the prover.
const TINY: &str = "devnet:\n  gpu_scores:\n    cpu-1: { base: 1, n: 128, k: 64, rounds: 1 }\n    cpu-2: { base: 2, n: 128, k: 64, rounds: 1 }\n    cpu-3: { base: 3, n: 128, k: 64, rounds: 1 }\n    cpu-4: { base: 4, n: 128, k: 64, rounds: 1 }\n";

/// A time in which a process was not at work, in blocks.
#[derive(Debug)]
pub(crate) struct Down {
    pub(crate) name: String,
    pub(crate) role: ChildRole,
    /// The ledger's head just before the kill.
    pub(crate) from: BlockNumber,
    /// The head when it had recovered.
    pub(crate) to: BlockNumber,
    pub(crate) took: Duration,
}

pub(crate) struct Net {
    pub(crate) devnet: Devnet,
    pub(crate) dir: Dir,
    ledger: LedgerClient,
    /// The first epoch that is looked at.
    first: Epoch,
}

/// The process; killed if the test does not end it. Its children end with it.
pub(crate) struct Devnet(pub(crate) Child);
impl Drop for Devnet {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The test's directory; kept, and named, if the test fails.
pub(crate) struct Dir(pub(crate) Option<tempfile::TempDir>);
impl Dir {
    fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}
impl Drop for Dir {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            println!("kept: {}", dir.keep().display());
        }
    }
}

/// What a devnet left.
pub(crate) struct Left {
    pub(crate) dir: Dir,
    pub(crate) listing: Listing,
    epochs: Range<Epoch>,
}

impl Left {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
    /// The epochs that were over before the devnet ended.
    pub(crate) fn epochs(&self) -> Range<Epoch> {
        self.epochs.clone()
    }
}

/// The epoch of a block.
pub(crate) fn epoch(block: BlockNumber) -> Epoch {
    epoch_of(block, NETUID, TEMPO)
}

impl Net {
    pub(crate) async fn start() -> Self {
        Self::start_with(TEMPO, &[]).await
    }

    /// With epochs of `tempo` blocks and one more, and further arguments.
    pub(crate) async fn start_with(tempo: u16, further: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), TEMPO_SPEED, tempo, further).await
    }

    /// In this directory, where one that was there goes on if `further` says so; blocks come so many times faster.
    pub(crate) async fn start_in(dir: tempfile::TempDir, speed: &str, tempo: u16, further: &[&str]) -> Self {
        let dir = Dir(Some(dir));
        std::fs::write(dir.path().join("tiny.yaml"), TINY).unwrap();
        let data = dir.path().join("net");
        // Of a devnet that went before: its processes are others.
        let _ = std::fs::remove_file(data.join(processes::FILE));
        let mut command = Command::new(env!("CARGO_BIN_EXE_compute-devnet"));
        command.args(["--processes", "--speed", speed, "--rentals", "2", "--miners", &MINERS.to_string()]);
        command.args(["--tempo", &tempo.to_string()]).args(further);
        command.args(["--config", dir.path().join("tiny.yaml").to_str().unwrap()]);
        command.args(["--node.data_dir", data.to_str().unwrap()]);
        let out = std::fs::File::create(dir.path().join("devnet.out")).unwrap();
        command.env_clear().env("HOME", dir.path()).stdin(Stdio::null()).stdout(out);
        let mut devnet = Devnet(command.spawn().unwrap());
        let listing = until("the devnet lists its processes", async || {
            assert!(devnet.0.try_wait().unwrap().is_none(), "the devnet ended");
            Listing::read(&data).ok().filter(|l| l.children.iter().all(|child| child.pid.is_some()))
        })
        .await;
        let endpoint: LedgerEndpoint = format!("http://{}", listing.ledger).parse().unwrap();
        let nobody = Arc::new(Keypair::from_seed(&[1; 32]));
        let ledger = LedgerClient::http(&endpoint, NETUID, nobody, Deadlines::default()).unwrap();
        let mut net = Net { devnet, dir, ledger, first: 0 };
        for child in &listing.children {
            net.ready(&child.name).await;
        }
        net.weights_go_on().await;
        net.first = epoch(net.head().await) + 1;
        net
    }

    pub(crate) fn listing(&self) -> Listing {
        Listing::read(&self.dir.path().join("net")).unwrap()
    }

    fn child(&self, name: &str) -> ChildInfo {
        self.listing().children.into_iter().find(|child| child.name == name).unwrap()
    }

    async fn head(&self) -> BlockNumber {
        self.ledger.head().await.unwrap().number
    }

    /// The directory of a child, while the devnet runs.
    pub(crate) fn data_of(&self, name: &str) -> std::path::PathBuf {
        self.child(name).data_dir
    }

    async fn last_update(&self) -> BlockNumber {
        let validator = self.child("validator").hotkey;
        self.ledger.metagraph().await.unwrap().by_hotkey(&validator).unwrap().last_update
    }

    /// Waits until the child's page says that it is ready.
    async fn ready(&mut self, name: &str) {
        let page = format!("http://{}/readyz", self.child(name).web);
        let client = reqwest::Client::new();
        until(&format!("{name} is ready"), async || {
            let reply = client.get(&page).timeout(LONG).send().await.ok()?;
            (reply.status() == 200).then_some(())
        })
        .await;
        assert!(self.devnet.0.try_wait().unwrap().is_none(), "the devnet ended");
    }

    /// Waits until weights are set that were not on the ledger before.
    pub(crate) async fn weights_go_on(&self) {
        let last = self.last_update().await;
        until("weights go on", async || (self.last_update().await > last).then_some(())).await;
    }

    /// Kills a child and waits until it is another process, ready, and the next weights are on the ledger.
    pub(crate) async fn kill(&mut self, name: &str) -> Down {
        let before = self.child(name);
        let pid = before.pid.unwrap();
        let (from, begun) = (self.head().await, Instant::now());
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
        until("it is started again", async || self.child(name).pid.filter(|now| *now != pid)).await;
        self.ready(name).await;
        let to = self.head().await;
        self.weights_go_on().await;
        Down { name: name.to_owned(), role: before.role, from, to, took: begun.elapsed() }
    }

    /// Ends the devnet in order.
    pub(crate) async fn end(mut self) -> Left {
        let (listing, over) = (self.listing(), epoch(self.head().await));
        let devnet = Pid::from_child(&self.devnet.0);
        kill_process(devnet, Signal::TERM).unwrap();
        let status = until("the devnet ends", async || self.devnet.0.try_wait().unwrap()).await;
        let said = std::fs::read_to_string(self.dir.path().join("devnet.out")).unwrap();
        assert!(status.success(), "{status}: {}", said.lines().rev().take(30).collect::<Vec<_>>().join("\n"));
        Left { dir: self.dir, listing, epochs: self.first..over }
    }
}
