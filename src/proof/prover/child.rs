//! A prover in a process of its own, one for each commitment or filled memory, with limits on time, memory and output.
//!
//! The child gets an empty environment and a limit on its address space before it gets its job. Every wait on it has a
//! deadline. On any error it is killed and reaped before the error is returned; dropping the commitment, or a future
//! in the middle of a request, kills it too (the runtime reaps it).

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Commitment, Filled, Prover, ProverError};
use crate::proof::frames::{self, ErrorKind, Frame, FrameError};
use crate::proof::memory;
use crate::proof::work::{Challenge, Position, Root, Work};

mod filled;

use filled::ChildMemory;

/// Most bytes of stderr that are kept.
const STDERR_TAIL: usize = 4096;
/// How long a child that closed its output may take to end by itself, so that its own exit status is seen.
const GRACE: Duration = Duration::from_secs(1);
/// How long to wait for a killed child to be gone.
const REAP: Duration = Duration::from_secs(5);

/// What one child may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProverLimits {
    /// Longest time from its start to the roots, or to filled memory, and again for each request after that.
    pub time: Duration,
    /// Address space, in bytes. On Linux; elsewhere there is no limit.
    pub memory_bytes: u64,
    /// Longest answer, in bytes.
    pub output_bytes: u64,
    /// Threads.
    pub threads: usize,
}

/// Starts a child for each commitment and for each filled memory.
#[derive(Debug, Clone)]
pub struct ChildProver {
    /// The program, `compute-prover`.
    pub exe: PathBuf,
    /// Its arguments: none for `compute-prover`.
    pub args: Vec<OsString>,
    /// What it may use.
    pub limits: ProverLimits,
}

impl ChildProver {
    /// A prover that runs `exe` without arguments.
    pub fn new(exe: PathBuf, limits: ProverLimits) -> Self {
        ChildProver { exe, args: Vec::new(), limits }
    }

    fn spawn(&self) -> Result<Session, ProverError> {
        let failed = |what: &str| {
            let what = format!("{what} {}", self.exe.display());
            move |source| ProverError::Start { what, source }
        };
        let mut child = Command::new(&self.exe)
            .args(&self.args)
            .env_clear()
            // One heap for all threads: each further one would reserve 64 MiB of the address space.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on a terminal goes to the whole group: whether a child ends is for its node to say.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("running"))?;
        limit_memory(&child, self.limits.memory_bytes).map_err(failed("limiting the memory of"))?;
        let missing = || std::io::Error::other("a pipe is missing");
        let stdin = child.stdin.take().ok_or_else(missing).map_err(failed("writing to"))?;
        let stdout = child.stdout.take().ok_or_else(missing).map_err(failed("reading from"))?;
        let stderr = child.stderr.take().ok_or_else(missing).map_err(failed("reading from"))?;
        Ok(Session { child, stdin, stdout, stderr: StderrTail::follow(stderr), limits: self.limits })
    }
}

#[cfg(target_os = "linux")]
fn limit_memory(child: &Child, bytes: u64) -> std::io::Result<()> {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let Some(pid) = pid else { return Ok(()) };
    let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    match prlimit(Some(pid), Resource::As, limit) {
        // It has ended already; whoever reads from it will see how.
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_memory(_child: &Child, _bytes: u64) -> std::io::Result<()> {
    Ok(())
}

#[async_trait]
impl Prover for ChildProver {
    async fn commit(&self, challenge: &Challenge) -> Result<Box<dyn Commitment>, ProverError> {
        let session = self.spawn()?;
        let threads = u32::try_from(self.limits.threads).unwrap_or(u32::MAX).max(1);
        let request = Frame::Commit { challenge: challenge.clone(), threads };
        let (session, answer) = session.ask(&request, true).await?;
        let asked = challenge.work.rounds as usize;
        match answer {
            Frame::Roots { roots } if roots.len() == asked => {
                Ok(Box::new(ChildCommitment { roots, work: challenge.work, session: Some(session) }))
            }
            Frame::Roots { roots } => {
                let what = format!("{} roots for {asked} rounds", roots.len());
                Err(session.end(ProverError::Garbage { what }).await)
            }
            other => Err(session.unexpected(other).await),
        }
    }

    async fn fill(&self, challenge: &memory::Challenge) -> Result<Box<dyn Filled>, ProverError> {
        ChildMemory::fill(self, challenge).await.map(|filled| Box::new(filled) as Box<dyn Filled>)
    }
}

struct ChildCommitment {
    roots: Vec<Root>,
    work: Work,
    /// Out of its place while a request is under way: if that is dropped half-way, the child goes with it.
    session: Option<Session>,
}

#[async_trait]
impl Commitment for ChildCommitment {
    fn roots(&self) -> &[Root] {
        &self.roots
    }

    async fn open(&mut self, positions: &[Position]) -> Result<Vec<u8>, ProverError> {
        let expected = positions.len().saturating_mul(self.work.opening_len());
        let session = self.session.as_ref().ok_or_else(ProverError::gone)?;
        let most = session.limits.output_bytes;
        if positions.len() > frames::MAX_POSITIONS || expected as u64 > most {
            let count = positions.len();
            let text = format!(
                "{count} openings are {expected} bytes; at most {} openings and {most} bytes are allowed",
                frames::MAX_POSITIONS
            );
            return Err(ProverError::Refused(text));
        }
        if let Some(outside) = positions.iter().find(|p| !p.is_within(&self.work)) {
            return Err(ProverError::Refused(format!("{outside:?} is not in the product")));
        }
        let session = self.session.take().ok_or_else(ProverError::gone)?;
        let (session, answer) = session.ask(&Frame::Open { positions: positions.to_vec() }, false).await?;
        match answer {
            Frame::Openings { bytes } if bytes.len() == expected => {
                self.session = Some(session);
                Ok(bytes)
            }
            Frame::Openings { bytes } => {
                let what = format!("{} bytes of openings, expected {expected}", bytes.len());
                Err(session.end(ProverError::Garbage { what }).await)
            }
            other => Err(session.unexpected(other).await),
        }
    }
}

/// A running child and its pipes.
struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: StderrTail,
    limits: ProverLimits,
}

impl Session {
    /// Sends a request and reads its answer, within the time limit.
    async fn ask(mut self, request: &Frame, with_hello: bool) -> Result<(Session, Frame), ProverError> {
        let max_body = usize::try_from(self.limits.output_bytes).unwrap_or(usize::MAX);
        let (stdin, stdout) = (&mut self.stdin, &mut self.stdout);
        let talk = async {
            if with_hello {
                stdin.write_all(&frames::HOST_HELLO).await.map_err(FrameError::Io)?;
            }
            frames::write_frame(stdin, request).await?;
            if with_hello {
                frames::read_hello(stdout, frames::PROVER_HELLO).await?;
            }
            frames::read_frame(stdout, max_body).await?.ok_or(FrameError::Ended)
        };
        match within(self.limits.time, talk).await {
            Ok(Ok(frame)) => Ok((self, frame)),
            Ok(Err(FrameError::Ended | FrameError::Io(_))) => Err(self.crashed().await),
            Ok(Err(error)) => Err(self.end(ProverError::Garbage { what: error.to_string() }).await),
            Err(limit) => Err(self.end(ProverError::TimedOut { limit }).await),
        }
    }

    /// The child closed its side: how did it end?
    async fn crashed(mut self) -> ProverError {
        let ended = match timeout(GRACE, self.child.wait()).await {
            Ok(Ok(status)) => describe(status),
            Ok(Err(error)) => format!("its status cannot be read: {error}"),
            Err(_) => "it closed its output but did not end, and was killed".to_owned(),
        };
        let limit_bytes = self.limits.memory_bytes;
        let stderr_tail = self.kill().await;
        // What Rust's allocator prints before it aborts.
        if stderr_tail.contains("memory allocation of ") {
            return ProverError::OverMemory { limit_bytes };
        }
        ProverError::Crashed { ended, stderr_tail }
    }

    /// An answer that is none, or an error.
    async fn unexpected(self, answer: Frame) -> ProverError {
        let error = match answer {
            Frame::Error { kind: ErrorKind::OutOfMemory, .. } => {
                ProverError::OverMemory { limit_bytes: self.limits.memory_bytes }
            }
            Frame::Error { kind: ErrorKind::Request, text } => ProverError::Refused(printable(text.as_bytes())),
            Frame::Error { kind: ErrorKind::Internal, text } => {
                ProverError::Crashed { ended: printable(text.as_bytes()), stderr_tail: String::new() }
            }
            other => ProverError::Garbage { what: format!("a {} frame is no answer to this request", other.name()) },
        };
        self.end(error).await
    }

    /// Ends the child for this reason.
    async fn end(self, error: ProverError) -> ProverError {
        let tail = self.kill().await;
        match error {
            ProverError::Crashed { ended, .. } => ProverError::Crashed { ended, stderr_tail: tail },
            other => other,
        }
    }

    /// Kills and reaps the child; the end of what it wrote to stderr.
    async fn kill(mut self) -> String {
        let _ = self.child.start_kill();
        if timeout(REAP, self.child.wait()).await.is_err() {
            tracing::warn!(pid = self.child.id(), "a killed prover is still there; it hangs in the kernel");
        }
        self.stderr.text().await
    }
}

/// The result in time, or the limit.
async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Duration> {
    timeout(limit, work).await.map_err(|_| limit)
}

fn describe(status: ExitStatus) -> String {
    // Reads "exit status: 1" or "signal: 9 (SIGKILL)".
    status.to_string()
}

/// Reads a child's stderr to its end and keeps the last bytes.
struct StderrTail {
    kept: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

impl StderrTail {
    fn follow(mut stderr: ChildStderr) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let ours = kept.clone();
        let task = tokio::spawn(async move {
            let mut buffer = [0u8; 1024];
            while let Ok(count @ 1..) = stderr.read(&mut buffer).await {
                let mut kept = ours.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..count]);
                let surplus = kept.len().saturating_sub(STDERR_TAIL);
                kept.drain(..surplus);
            }
        });
        StderrTail { kept, task }
    }

    /// What was kept, once the stream has ended or a second has passed (a grandchild may hold it open).
    async fn text(&mut self) -> String {
        let _ = timeout(GRACE, &mut self.task).await;
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        printable(&kept)
    }
}

impl Drop for StderrTail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Text that can go to a log: no control characters but line ends, at most [`STDERR_TAIL`] bytes of source.
fn printable(bytes: &[u8]) -> String {
    let tail = &bytes[bytes.len().saturating_sub(STDERR_TAIL)..];
    String::from_utf8_lossy(tail).trim().replace(|c: char| c.is_control() && c != '\n', " ")
}
