//! Runs wrk and reads what it saw.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

/// What each of wrk's threads runs.
const SCRIPT: &str = include_str!("requests.lua");
/// How long wrk may take beyond its run.
const GRACE: Duration = Duration::from_secs(20);

/// What wrk saw.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    pub(crate) requests: u64,
    /// How long the run took.
    pub(crate) us: u64,
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
    /// Answers of 400 and above.
    pub(crate) status: u64,
    connect: u64,
    read: u64,
    write: u64,
    timeout: u64,
}

impl Seen {
    pub(crate) fn socket_errors(&self) -> u64 {
        self.connect + self.read + self.write + self.timeout
    }
}

/// Sends the requests in `dir` for so many seconds, from as many threads as connections.
pub(crate) async fn run(dir: &Path, to: SocketAddr, threads: usize, seconds: usize) -> Result<Seen, String> {
    let script = dir.join("requests.lua");
    std::fs::write(&script, SCRIPT).map_err(|e| format!("{}: {e}", script.display()))?;
    let mut command = Command::new("wrk");
    command.args([format!("-t{threads}"), format!("-c{threads}"), format!("-d{seconds}s"), "--timeout=5s".to_owned()]);
    command.arg("-s").arg(&script).arg(format!("http://{to}/")).env("REQUESTS", dir.join("requests"));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let limit = Duration::from_secs(seconds as u64) + GRACE;
    let output = tokio::time::timeout(limit, command.output()).await.map_err(|_| "wrk does not end".to_owned())?;
    let output = output.map_err(|e| format!("wrk cannot be run (on Debian: apt-get install wrk): {e}"))?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("wrk ended with {}: {complained}{said}", output.status));
    }
    let line = said.lines().rev().find(|line| line.starts_with('{'));
    line.and_then(|line| serde_json::from_str(line).ok()).ok_or_else(|| format!("wrk said: {complained}{said}"))
}
