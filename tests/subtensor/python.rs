//! The chain as the SDK 9.0.0 of the original reads it: the second opinion on what our client wrote.

use std::path::{Path, PathBuf};
use std::time::Duration;

use compute_subnet::ids::Netuid;
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::timeout;

use crate::bed::left_out;

/// Importing the SDK alone takes several seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// What the SDK reads of a subnet.
#[derive(Debug, Deserialize)]
pub(crate) struct Metagraph {
    pub(crate) block: u64,
    /// By uid.
    pub(crate) neurons: Vec<Neuron>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Neuron {
    pub(crate) uid: u16,
    /// SS58, as the next.
    pub(crate) hotkey: String,
    pub(crate) coldkey: String,
    pub(crate) active: bool,
    pub(crate) permit: bool,
    pub(crate) last_update: u64,
    pub(crate) axon: Option<Served>,
    pub(crate) prometheus: Option<Served>,
    /// As the chain stores them: uid and weight.
    pub(crate) weights: Vec<(u16, u16)>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Served {
    pub(crate) ip: String,
    pub(crate) port: u16,
    pub(crate) ip_type: u8,
    pub(crate) version: u32,
    /// Axons only.
    pub(crate) protocol: Option<u8>,
}

/// Reads a subnet with the SDK, from a node or through a proxy. `None`, and said so, where the SDKs are left out.
pub(crate) async fn metagraph(url: &str, netuid: Netuid) -> Option<Metagraph> {
    if std::env::var("COMPUTE_TEST_WITHOUT_PYTHON").is_ok_and(|v| v == "1") {
        left_out("COMPUTE_TEST_WITHOUT_PYTHON: what the SDK 9.0.0 reads is not compared");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sdks = std::env::var_os("COMPUTE_TEST_PYTHON").map_or_else(|| root.join("target/python"), PathBuf::from);
    let python = sdks.join("9.0.0/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/python-sdks", python.display());
    // The SDK writes to its user's home.
    let home = tempfile::tempdir().unwrap();
    let child = Command::new(python)
        .arg(root.join("tests/subtensor/read_chain.py"))
        .args([url, &netuid.0.to_string()])
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BT_NO_PARSE_CLI_ARGS", "1")
        .kill_on_drop(true)
        .output();
    let output = timeout(LIMIT, child).await.expect("the SDK takes too long").unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the SDK fails:\n{said}\n{errors}");
    // The SDK may print a line of its own before the answer.
    let answer =
        said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no answer:\n{said}\n{errors}"));
    Some(serde_json::from_str(answer).unwrap_or_else(|e| panic!("{e}:\n{answer}")))
}
