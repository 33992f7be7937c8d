//! The node under test: the miner of a devnet, as its operator would run it.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use compute_subnet::exit::Exit;
use compute_subnet::ids::Hotkey;
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use compute_subnet::wallet::Keypair;
use tokio::sync::oneshot;

use crate::common::{PROVER, get, settings, until};

/// A published development key.
pub(crate) fn key(name: &str) -> Keypair {
    Keypair::from_uri(&format!("//{name}")).unwrap()
}

/// The address of a published development key.
pub(crate) fn hotkey(name: &str) -> Hotkey {
    key(name).hotkey()
}

/// A miner that admits `//Bob`, on a ledger where it is alone.
pub(crate) struct Node {
    pub(crate) axon: SocketAddr,
    pub(crate) hotkey: Hotkey,
    /// What it is configured to call its containers' port.
    pub(crate) ssh_port: u16,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Exit>,
    _dir: tempfile::TempDir,
}

impl Node {
    pub(crate) async fn start(runtime: Arc<tokio::runtime::Runtime>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = DevnetOptions::new(dir.path(), PROVER);
        (options.miners, options.without_validator) = (1, true);
        let mut settings = settings(dir.path());
        settings.whitelist.hotkeys = vec![hotkey("Bob")];
        let ssh_port = settings.miner.ssh_port;
        let web = "127.0.0.1:0".parse().unwrap();
        let devnet = Devnet::start(&options, Arc::new(settings), web, runtime).await.unwrap();
        let miner = &devnet.miners[0].node;
        let (axon, hotkey, page) = (miner.node.axon_address.unwrap(), miner.hotkey, miner.node.web);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(0, async move {
            if stopped.await.is_err() {
                pending::<()>().await;
            }
        }));
        until("the miner is ready", async || (get(page, "/readyz").await.status == 200).then_some(())).await;
        Node { axon, hotkey, ssh_port, stop, task, _dir: dir }
    }

    pub(crate) async fn end(self) {
        self.stop.send(()).unwrap();
        assert_eq!(self.task.await.unwrap(), Exit::Ok);
    }
}
