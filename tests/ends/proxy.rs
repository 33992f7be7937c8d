//! What lies between the miner and its engine: a socket that hands on every call, and can end the miner or the engine with
//! SIGKILL just before a call is handed on, once it was handed on whole, or once the engine answered and nobody heard it yet.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

/// The longest head of a request that is read.
const MAX_HEAD: usize = 64 << 10;

/// A call of the engine: its form, and which one of that form in a step of a lease's life, from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) form: String,
    pub(crate) nth: usize,
}

impl Call {
    /// Whether it only looks.
    pub(crate) fn looks(&self) -> bool {
        self.form.starts_with("GET ") || self.form.starts_with("HEAD ")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nth {
            1 => write!(f, "{}", self.form),
            nth => write!(f, "{} #{nth}", self.form),
        }
    }
}

/// When, in the course of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// The engine has heard nothing of it.
    Before,
    /// The engine has all of it, and its caller is gone.
    During,
    /// The engine has answered, and its caller has heard nothing.
    After,
}

/// Who ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victim {
    Miner,
    Engine,
}

/// Who ends, and when.
#[derive(Debug, Clone)]
pub(crate) struct Strike {
    pub(crate) call: Call,
    pub(crate) moment: Moment,
    pub(crate) victim: Victim,
}

#[derive(Default)]
struct State {
    counts: BTreeMap<String, usize>,
    armed: Option<Strike>,
    /// The processes of this moment: whoever was ended has another one then.
    processes: BTreeMap<Victim, Pid>,
    struck: Option<Instant>,
    /// The call at which somebody ends is under way.
    striking: bool,
    /// What the proxy cannot hand on; a test that has some shows nothing.
    broken: Option<String>,
}

/// Held while the call at which somebody ends is under way.
struct Striking<'a>(&'a Mutex<State>);

impl Drop for Striking<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).striking = false;
    }
}

pub(crate) struct Proxy {
    path: PathBuf,
    engine: PathBuf,
    state: Arc<Mutex<State>>,
    accepting: Option<tokio::task::JoinHandle<()>>,
    runtime: tokio::runtime::Handle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.close();
    }
}

impl Proxy {
    pub(crate) fn open(path: &Path, engine: &Path, runtime: tokio::runtime::Handle) -> Self {
        let mut proxy =
            Proxy { path: path.to_owned(), engine: engine.to_owned(), state: Arc::default(), accepting: None, runtime };
        proxy.reopen();
        proxy
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This is the victim's process from now on.
    pub(crate) fn is_now(&self, victim: Victim, process: Pid) {
        self.state().processes.insert(victim, process);
    }

    /// Refuses connections, as the socket of an engine that is gone does.
    pub(crate) fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }

    /// Takes connections again.
    pub(crate) fn reopen(&mut self) {
        self.close();
        let _ = std::fs::remove_file(&self.path);
        let _entered = self.runtime.enter();
        let listener = UnixListener::bind(&self.path).unwrap();
        let (engine, state) = (self.engine.clone(), self.state.clone());
        self.accepting = Some(self.runtime.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (engine, state) = (engine.clone(), state.clone());
                connections.spawn(async move {
                    if let Err(problem) = hand_on(client, &engine, &state).await {
                        state.lock().unwrap_or_else(PoisonError::into_inner).broken.get_or_insert(problem);
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        }));
    }

    /// Counts calls from now on, and strikes at one of them.
    pub(crate) fn arm(&self, strike: Option<Strike>) {
        let mut state = self.state();
        (state.counts, state.struck) = (BTreeMap::new(), None);
        state.armed = strike;
    }

    /// Whether the call at which somebody ends has come, and nobody has ended yet.
    pub(crate) fn is_striking(&self) -> bool {
        self.state().striking
    }

    /// Strikes no more: the calls since it was armed, and when it struck.
    pub(crate) fn disarm(&self) -> (Vec<Call>, Option<Instant>) {
        let mut state = self.state();
        state.armed = None;
        assert!(state.broken.is_none(), "a call could not be handed on: {:?}", state.broken);
        let counts = std::mem::take(&mut state.counts);
        let calls = counts.into_iter().flat_map(|(form, n)| (1..=n).map(move |nth| Call { form: form.clone(), nth }));
        (calls.collect(), state.struck)
    }
}

/// Hands on one request and its answer. The connection ends with it, so that requests are told apart.
async fn hand_on(mut client: UnixStream, engine: &Path, state: &Mutex<State>) -> Result<(), String> {
    let Some((head, rest)) = head(&mut client).await? else { return Ok(()) };
    let lower = head.to_ascii_lowercase();
    let header = |name: &str| lower.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':').map(str::trim));
    if header("transfer-encoding").is_some() {
        return Err(format!("a body of unknown length: {head}"));
    }
    let length: usize = header("content-length").map_or(Ok(0), str::parse).map_err(|e| format!("{e}: {head}"))?;
    let form = form(&head);
    let strike = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let nth = state.counts.entry(form.clone()).or_default();
        *nth += 1;
        let call = Call { form, nth: *nth };
        let hit = state.armed.as_ref().is_some_and(|armed| armed.call == call);
        state.striking |= hit;
        if hit { state.armed.take() } else { None }
    };
    let _striking = strike.as_ref().map(|_| Striking(state));
    let strikes = |moment| strike.as_ref().is_some_and(|s| s.moment == moment);
    if strikes(Moment::Before) {
        end(&strike, state).await;
        return Ok(());
    }
    // An engine that is gone: so is the connection.
    let Ok(mut engine) = UnixStream::connect(engine).await else { return Ok(()) };
    let (first, others) = head.split_once("\r\n").ok_or("a head without a line")?;
    let others: Vec<&str> = others.lines().filter(|l| !l.to_ascii_lowercase().starts_with("connection:")).collect();
    let head = format!("{first}\r\nConnection: close\r\n{}\r\n", others.join("\r\n"));
    let sent = async {
        engine.write_all(head.as_bytes()).await?;
        engine.write_all(&rest).await?;
        let mut left = length.saturating_sub(rest.len());
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let n = client.read(&mut buffer).await?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            engine.write_all(&buffer[..n]).await?;
            left = left.saturating_sub(n);
        }
        Ok::<_, std::io::Error>(())
    };
    // Either side may end while it is sent; then both do.
    let whole = sent.await.is_ok();
    if strikes(Moment::During) {
        end(&strike, state).await;
        return Ok(());
    }
    let mut buffer = vec![0; 64 << 10];
    let mut answered = false;
    while whole || !answered {
        // A caller that goes away, of a stream of events say, takes the connection along.
        let mut gone = [0; 1];
        let n = tokio::select! {
            n = engine.read(&mut buffer) => n,
            _ = client.read(&mut gone) => return Ok(()),
        };
        let Ok(n @ 1..) = n else { break };
        if !answered && strikes(Moment::After) {
            end(&strike, state).await;
            return Ok(());
        }
        answered = true;
        if client.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// The head of a request, with its empty line, and what was read of its body. `None` when nothing is asked.
async fn head(client: &mut UnixStream) -> Result<Option<(String, Vec<u8>)>, String> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(at + 4);
            return Ok(Some((String::from_utf8(bytes).map_err(|e| e.to_string())?, rest)));
        }
        if bytes.len() > MAX_HEAD {
            return Err("a head without end".to_owned());
        }
        match client.read(&mut buffer).await {
            Ok(n @ 1..) => bytes.extend_from_slice(&buffer[..n]),
            _ => return Ok(None),
        }
    }
}

/// A request's method and path, without what differs from lease to lease.
fn form(head: &str) -> String {
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.first().is_some_and(|first| first.starts_with("v1.")) {
        parts.remove(0);
    }
    match parts[..] {
        ["images", .., last] => parts = vec!["images", "{}", last],
        [kind @ ("containers" | "networks"), name, ..] if !["json", "create"].contains(&name) => {
            parts = [&[kind, "{}"], &parts[2..]].concat();
        }
        _ => {}
    }
    format!("{method} /{}", parts.join("/"))
}

/// Ends the victim, and waits until it is gone.
async fn end(strike: &Option<Strike>, state: &Mutex<State>) {
    let Some(strike) = strike else { return };
    let processes = state.lock().unwrap_or_else(PoisonError::into_inner).processes.clone();
    let Some(victim) = processes.get(&strike.victim).copied() else { return };
    let begun = Instant::now();
    if kill_process(victim, Signal::KILL).is_err() {
        return;
    }
    while is_alive(victim) && begun.elapsed() < Duration::from_secs(30) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    state.lock().unwrap_or_else(PoisonError::into_inner).struck = Some(begun);
}

/// Whether a process runs: neither gone nor only waiting for its parent.
pub(crate) fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
