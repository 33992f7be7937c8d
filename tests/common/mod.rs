//! What the tests of whole nodes share: settings with tiny work, a place to run in, waits, and HTTP by hand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

pub(crate) mod wait;

use compute_subnet::exit::Exit;
use compute_subnet::launch;
use compute_subnet::runtime::{Cause, TreeView};
use compute_subnet::settings::{Cli, Role, Settings, load};
use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) use wait::{LONG, free_ports, until};

/// The prover that is built with the nodes.
pub(crate) const PROVER: &str = env!("CARGO_BIN_EXE_compute-prover");

/// Settings of a subnet with blocks every 100 ms, epochs of six, and proofs that cost nothing.
pub(crate) fn settings(dir: &Path) -> Settings {
    let cli = Cli::default()
        .with_key("node.data_dir", &dir.display().to_string())
        .with_key("devnet.block_time", "100ms")
        .with_key("devnet.tempo", "5")
        .with_key("subtensor.poll_interval", "25ms")
        .with_key("weights.interval_blocks", "1")
        .with_key("weights.retry_first", "50ms")
        .with_key("budget.challenges_per_hotkey", "10000")
        .with_key("budget.time", "10m")
        .with_key("prover.time_limit", "20s")
        .with_key("leases.health_interval", "100ms");
    let env = [("HOME".to_owned(), dir.display().to_string())];
    let mut settings = load(Role::Devnet, &cli, env).unwrap_or_else(|problems| panic!("{problems}")).settings;
    for class in settings.devnet.gpu_scores.values_mut() {
        (class.n, class.k, class.rounds) = (128, 64, 1);
        (class.memory_blocks, class.memory_iterations, class.memory_scans) = (Some(256), Some(1), Some(2));
    }
    settings
}

/// Runs a test as the binaries run a node: actix here, the actors' tasks on a runtime beneath.
pub(crate) fn inside<F: Future<Output = ()>>(test: impl FnOnce(Arc<tokio::runtime::Runtime>) -> F) {
    let mut failed = None;
    let exit = launch::run(|runtime| {
        let test = AssertUnwindSafe(test(runtime)).catch_unwind();
        let failed = &mut failed;
        async move {
            *failed = test.await.err();
            Exit::Ok
        }
    });
    if let Some(panic) = failed {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(exit, Exit::Ok);
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// In lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends a request head (without its last empty line) and a body, and reads until the other side closes.
pub(crate) async fn exchange(to: SocketAddr, head: &str, body: &[u8]) -> Reply {
    let talk = async {
        let mut stream = TcpStream::connect(to).await.unwrap_or_else(|e| panic!("{to}: {e}"));
        let mut bytes = format!("{head}host: x\r\nconnection: close\r\n\r\n").into_bytes();
        bytes.extend_from_slice(body);
        // The other side may answer and close before it has read everything.
        let _ = stream.write_all(&bytes).await;
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        let end = reply.windows(4).position(|w| w == b"\r\n\r\n").expect("a reply has a head");
        let head = String::from_utf8_lossy(&reply[..end]).to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a reply has a status");
        let mut body = reply.split_off(end + 4);
        if head.contains("transfer-encoding: chunked") {
            body = unchunk(&body);
        }
        Reply { status, head, body }
    };
    tokio::time::timeout(LONG, talk).await.unwrap_or_else(|_| panic!("{to} does not answer and close"))
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let length = std::str::from_utf8(&rest[..end]).ok().and_then(|t| usize::from_str_radix(t, 16).ok());
        let length = length.expect("a chunk has a length");
        out.extend_from_slice(&rest[end + 2..end + 2 + length]);
        rest = &rest[(end + 4 + length).min(rest.len())..];
    }
    out
}

/// A page of a node.
pub(crate) async fn get(web: SocketAddr, path: &str) -> Reply {
    exchange(web, &format!("GET {path} HTTP/1.1\r\n"), b"").await
}

/// Every series of `/metrics` with its value.
pub(crate) async fn metrics(web: SocketAddr) -> BTreeMap<String, f64> {
    let page = get(web, "/metrics").await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.head.contains("content-type: text/plain"), "{}", page.head);
    let text = page.text();
    let series = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.rsplit_once(' '));
    series.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}

/// Fails unless the node is healthy and no actor of it was ever restarted.
pub(crate) async fn assert_unharmed(name: &str, web: SocketAddr, view: &TreeView) {
    let health = get(web, "/healthz").await;
    assert_eq!((health.status, &health.json()["healthy"]), (200, &true.into()), "{name}: {}", health.text());
    assert!(view.all_running(), "{name}: {view:?}");
    for actor in view.names() {
        for cause in Cause::ALL {
            assert_eq!(view.restarts(actor, cause), 0, "{name}: {actor} {cause} {:?}", view.last_failure(actor));
        }
    }
}
