//! A devnet of processes: the ledger in this one, every node as a child of its own.
//!
//! Invariants: a child that ends is started again with the same arguments, on the same addresses, until the devnet stops
//! or the child ends too often; children end with the devnet, also if that is killed: each watches its standard input,
//! which closes then. Children are in process groups of their own, so Ctrl-C reaches the devnet alone.
//!
//! Design notes: one task for each child owns its process; all they have to say goes through one channel to the devnet,
//! which prints it and keeps [`FILE`] true.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::devnet::{DevnetError, DevnetOptions, Ground, validator_name};
use super::renter::{self, Rentals, RenterPlan};
use super::screen::say;
use super::table::TableSource;
use crate::exit::Exit;
use crate::ids::{Hotkey, LeaseId};
use crate::lease::Lease;
use crate::messages::validator::allocation_manager::{RentError, RentRequest};
use crate::proof::prover::Forgery;
use crate::runtime::{Backoff, Failures};
use crate::settings::{Cli, Settings};
use crate::telemetry::error_chain;
use crate::web::control::ControlClient;
use crate::web::control::api::RentWish;

/// The file in the devnet's directory that says which processes run. Replaced as a whole with each change.
pub const FILE: &str = "processes.json";
/// How often a child is started again: 100 ms after its first end, doubling to 5 s; the eleventh end within a minute is
/// the devnet's. A child that lived for [`SETTLED`] begins anew.
const RESTARTS: Backoff = Backoff {
    first: Duration::from_millis(100),
    cap: Duration::from_secs(5),
    max_failures: 10,
    window: Duration::from_secs(60),
};
/// A child that lived so long did not end because of how it started.
const SETTLED: Duration = Duration::from_secs(5);
/// What a child may take beyond its own bound to end, its database included, before it is killed.
const GRACE: Duration = Duration::from_secs(15);
/// How long one call to a validator about a lease may take.
const CALL: Duration = Duration::from_secs(90);
/// Ports that are tried for the children: below those that the system gives to others.
const PORTS: std::ops::Range<u16> = 28_200..32_600;

/// What a child is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChildRole {
    /// A validator.
    Validator,
    /// A miner.
    Miner,
}

/// One child as [`FILE`] describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChildInfo {
    /// What it is called in logs and tables.
    pub name: String,
    /// What it is.
    pub role: ChildRole,
    /// Its process, while it has one.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u64,
    /// Its hotkey.
    pub hotkey: Hotkey,
    /// The class of its device, if it is a miner.
    pub class: Option<String>,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its control socket.
    pub control: PathBuf,
    /// Its log.
    pub log: PathBuf,
    /// Its pages.
    pub web: SocketAddr,
    /// Its axon, if it is a miner.
    pub axon: Option<SocketAddr>,
}

/// What [`FILE`] holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The devnet's own process.
    pub devnet: u32,
    /// Where the ledger is.
    pub ledger: SocketAddr,
    /// The children, validators first.
    pub children: Vec<ChildInfo>,
}

impl Listing {
    /// Reads the listing in a devnet's directory.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub fn read(dir: &Path) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(dir.join(FILE))?)?)
    }

    fn write(&self, dir: &Path) -> std::io::Result<()> {
        let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
        std::fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        std::fs::rename(new, path)
    }
}

/// How a devnet starts programs that are its nodes.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The program.
    pub exe: PathBuf,
    /// The first argument that makes it a validator.
    pub validator: &'static str,
    /// The first argument that makes it a miner.
    pub miner: &'static str,
}

/// What a child is started with.
#[derive(Debug)]
struct ChildSpec {
    info: ChildInfo,
    exe: PathBuf,
    args: Vec<OsString>,
    /// How long it may take to end in order.
    bound: Duration,
}

/// Rentals over a validator's control socket. While there is no validator its renters hear that it cannot be asked.
#[async_trait]
impl Rentals for ControlClient {
    async fn rent(&self, request: RentRequest) -> Result<Lease, RentError> {
        let wish = RentWish {
            id: request.id,
            renter: request.renter,
            miner: request.miner,
            requirements: request.requirements,
            duration_s: request.duration.as_secs(),
            image: request.image,
            ssh_key: request.ssh_key,
        };
        Ok(ControlClient::rent(self, &wish, CALL).await?)
    }
    async fn release(&self, lease: LeaseId) -> Result<Lease, RentError> {
        Ok(ControlClient::release(self, lease, CALL).await?)
    }
    async fn show(&self, lease: LeaseId) -> Result<Lease, RentError> {
        Ok(self.lease(lease).await?.lease)
    }
}

/// What the children's tasks have to say.
#[derive(Debug)]
enum Word {
    Started(usize, u32),
    /// It ended, and is started again after this time; `None`: it is given up.
    Ended(usize, String, Option<Duration>),
}

/// A running devnet of processes.
pub struct Processes {
    pub(crate) ground: Ground,
    dir: PathBuf,
    listing: Listing,
    validators: Vec<Keeper>,
    miners: Vec<Keeper>,
    plan: Option<RenterPlan>,
    words: mpsc::Receiver<Word>,
}

/// The task that owns a child.
struct Keeper {
    stop: watch::Sender<bool>,
    task: JoinHandle<Exit>,
}

impl Keeper {
    fn of(index: usize, spec: ChildSpec, words: mpsc::Sender<Word>) -> Self {
        let (stop, stopping) = watch::channel(false);
        Keeper { stop, task: tokio::task::spawn_local(keep(index, spec, stopping, words)) }
    }

    /// Ends the child. The first thing that was not in order, if any.
    async fn end(self) -> Exit {
        self.stop.send_replace(true);
        self.task.await.unwrap_or(Exit::Escalated)
    }
}

/// Ports that nobody uses now, each given once. They begin anywhere, so that two devnets seldom look at the same ones.
struct Ports {
    next: u16,
}

impl Ports {
    fn new() -> std::io::Result<Self> {
        let mut random = [0u8; 2];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        Ok(Ports { next: u16::from_le_bytes(random) % (PORTS.end - PORTS.start) })
    }

    fn free(&mut self, ip: IpAddr) -> std::io::Result<SocketAddr> {
        let mut last = std::io::Error::from(std::io::ErrorKind::AddrInUse);
        for _ in PORTS {
            let address = SocketAddr::new(ip, PORTS.start + self.next);
            self.next = (self.next + 1) % (PORTS.end - PORTS.start);
            match TcpListener::bind(address) {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Processes {
    /// Starts the ledger and every node as a child. `cli` is what the devnet itself was given, with the periods that fit:
    /// its children get the same. `web` is as for [`super::devnet::Devnet::start`].
    ///
    /// # Errors
    /// [`DevnetError`].
    pub async fn start(
        options: &DevnetOptions,
        settings: &Settings,
        cli: &Cli,
        web: SocketAddr,
        programs: &Programs,
    ) -> Result<Self, DevnetError> {
        let ground = Ground::lay(options, settings).await?;
        let dir = std::path::absolute(&options.dir)
            .map_err(|source| DevnetError::Directory { path: options.dir.clone(), source })?;
        let specs = specs(&ground, options.validators, &dir, settings, cli, web, programs)
            .map_err(|source| DevnetError::Directory { path: dir.clone(), source })?;
        let listing = Listing {
            devnet: std::process::id(),
            ledger: ground.rpc.address(),
            children: specs.iter().map(|spec| spec.info.clone()).collect(),
        };
        listing.write(&dir).map_err(|source| DevnetError::Directory { path: dir.join(FILE), source })?;
        let (say, words) = mpsc::channel(64);
        let (mut validators, mut miners) = (Vec::new(), Vec::new());
        for (index, spec) in specs.into_iter().enumerate() {
            let kind = if spec.info.role == ChildRole::Validator { &mut validators } else { &mut miners };
            kind.push(Keeper::of(index, spec, say.clone()));
        }
        let plan = ground.plan(options, settings);
        Ok(Processes { ground, dir, listing, validators, miners, plan, words })
    }

    /// Which processes there are.
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Where the table of the first validator is read.
    pub fn table(&self) -> TableSource {
        let named = |child: &ChildInfo| Some((child.name.clone(), child.class.clone()?, child.hotkey));
        TableSource::over(self.validator(), self.listing.children.iter().filter_map(named).collect())
    }

    /// The first validator.
    fn validator(&self) -> ControlClient {
        let first = self.listing.children.iter().find(|child| child.role == ChildRole::Validator);
        ControlClient::new(first.map(|child| child.data_dir.clone()).unwrap_or_default())
    }

    /// Runs until `stop` resolves or a child is given up, with `rentals` renters at the first validator. Then the renters
    /// end, the validators, the miners, and the ledger last.
    pub async fn run(mut self, rentals: usize, stop: impl Future<Output = ()>) -> Exit {
        let mut exits = Vec::new();
        let at: Arc<dyn Rentals> = Arc::new(self.validator());
        let renters: Vec<_> = (0..rentals)
            .filter_map(|_| self.plan.clone())
            .map(|plan| tokio::task::spawn_local(renter::run(at.clone(), self.ground.clock.clone(), plan)))
            .collect();
        {
            let mut stop = std::pin::pin!(stop);
            loop {
                let word = tokio::select! {
                    () = &mut stop => break,
                    word = self.words.recv() => word,
                };
                let Some(word) = word else { break };
                if let Some(name) = note(&mut self.listing, &self.dir, word) {
                    say(&format!("{name} cannot be kept running, the devnet ends"));
                    exits.push(Exit::Escalated);
                    break;
                }
            }
        }
        renters.iter().for_each(JoinHandle::abort);
        let Processes { ground, dir, mut listing, validators, miners, mut words, .. } = self;
        let noted = async {
            while let Some(word) = words.recv().await {
                note(&mut listing, &dir, word);
            }
        };
        let ended = async {
            let mut ended = join_all(validators.into_iter().map(Keeper::end)).await;
            ended.extend(join_all(miners.into_iter().map(Keeper::end)).await);
            ended
        };
        // The words end once the last child has.
        let (ended, ()) = tokio::join!(ended, noted);
        ground.rpc.stop().await;
        ground.ledger.stop().await;
        exits.extend(ended);
        exits.into_iter().find(|exit| *exit != Exit::Ok).unwrap_or(Exit::Ok)
    }
}

/// Takes a word into the listing, and prints what people should know. The name of a child that is given up.
fn note(listing: &mut Listing, dir: &Path, word: Word) -> Option<String> {
    let mut given_up = None;
    match word {
        Word::Started(index, pid) => {
            let child = listing.children.get_mut(index)?;
            child.pid = Some(pid);
            tracing::info!(child = child.name, pid, "started");
        }
        Word::Ended(index, how, again) => {
            let child = listing.children.get_mut(index)?;
            child.pid = None;
            tracing::info!(child = child.name, how, ?again, "ended");
            match again {
                Some(_) => {
                    child.restarts += 1;
                    say(&format!("{} ended {how}, started again; its log is {}", child.name, child.log.display()));
                }
                None => {
                    say(&format!("{} ended {how}; its log is {}", child.name, child.log.display()));
                    given_up = Some(child.name.clone());
                }
            }
        }
    }
    if let Err(error) = listing.write(dir) {
        tracing::warn!(%error, "{FILE} cannot be written");
    }
    given_up
}

fn specs(
    ground: &Ground,
    validators: usize,
    dir: &Path,
    settings: &Settings,
    cli: &Cli,
    web: SocketAddr,
    programs: &Programs,
) -> std::io::Result<Vec<ChildSpec>> {
    let (mut ports, mut axons) = (Ports::new()?, Ports::new()?);
    let mut page = |number: u16| match web.port() {
        0 => ports.free(web.ip()),
        first => Ok(SocketAddr::new(web.ip(), first.saturating_add(number))),
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = settings.prover.threads_for(cores, ground.roles.len());
    let spec = |name: &str, role, hotkey, web: SocketAddr, more: Vec<String>| {
        let data_dir = dir.join(name);
        let log = dir.join("log").join(format!("{name}.log"));
        let mut args: Vec<OsString> = Vec::new();
        args.push(if role == ChildRole::Validator { programs.validator } else { programs.miner }.into());
        args.extend(["--until-stdin-closes".into(), "--log-file".into(), log.clone().into()]);
        args.extend(cli.to_args());
        args.extend(more.into_iter().map(OsString::from));
        for (key, value) in [
            ("subtensor.network", format!("ledger=http://{}", ground.rpc.address())),
            ("node.data_dir", data_dir.display().to_string()),
            ("metrics.ip", web.ip().to_string()),
            ("metrics.port", web.port().to_string()),
            ("prover.threads", threads.to_string()),
        ] {
            args.extend(["--set".into(), format!("{key}={value}").into()]);
        }
        let info = ChildInfo {
            name: name.to_owned(),
            role,
            pid: None,
            restarts: 0,
            hotkey,
            class: None,
            control: data_dir.join("control.sock"),
            data_dir,
            log,
            web,
            axon: None,
        };
        ChildSpec { info, exe: programs.exe.clone(), args, bound: settings.supervision.shutdown_timeout + GRACE }
    };
    let keys = |number: usize| format!("{}:{number}", dir.display());
    let mut specs = Vec::new();
    let more = vec!["--devnet-keys".to_owned(), keys(0)];
    specs.push(spec("validator", ChildRole::Validator, ground.keys.validator(0).hotkey(), page(0)?, more));
    for number in 1..validators {
        // Their pages follow those of the miners.
        let web = page((ground.roles.len() + number) as u16)?;
        let more = vec!["--devnet-keys".to_owned(), keys(number)];
        let hotkey = ground.keys.validator(number).hotkey();
        specs.push(spec(&validator_name(number), ChildRole::Validator, hotkey, web, more));
    }
    for role in &ground.roles {
        let axon = axons.free(role.axon.ip())?;
        let mut more = vec!["--devnet-keys".to_owned(), keys(role.index)];
        more.extend(["--device-class".to_owned(), role.class.clone()]);
        more.extend(["--engine-file".to_owned(), Ground::engine_file(dir, &role.name).display().to_string()]);
        match role.forgery {
            Some(Forgery::SkipTiles { ratio }) => more.extend(["--forge".to_owned(), ratio.to_string()]),
            Some(Forgery::Memory(_)) => more.push("--forge-memory".to_owned()),
            _ => {}
        }
        for (key, value) in [("axon.ip", axon.ip().to_string()), ("axon.port", axon.port().to_string())] {
            more.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        let hotkey = ground.keys.miner(role.index).hotkey();
        let mut spec = spec(&role.name, ChildRole::Miner, hotkey, page(role.index as u16 + 1)?, more);
        (spec.info.axon, spec.info.class) = (Some(axon), Some(role.class.clone()));
        specs.push(spec);
    }
    Ok(specs)
}

/// Runs one child until it is stopped or given up.
async fn keep(index: usize, spec: ChildSpec, mut stop: watch::Receiver<bool>, words: mpsc::Sender<Word>) -> Exit {
    let mut failures = Failures::default();
    loop {
        let begun = Instant::now();
        let how = match start(&spec) {
            Ok((mut child, stdin)) => {
                // Nobody listens any more when the devnet ends already; the child is ended all the same.
                let _ = words.send(Word::Started(index, child.id().unwrap_or_default())).await;
                let how = tokio::select! {
                    status = child.wait() => match status {
                        Ok(status) => describe(status),
                        Err(error) => format!("nobody knows how ({error})"),
                    },
                    _ = stop.wait_for(|s| *s) => return end(&spec, child).await,
                };
                drop(stdin); // open until here
                how
            }
            Err(error) => format!("before it began: {}", error_chain(&error)),
        };
        if begun.elapsed() >= SETTLED {
            failures = Failures::default();
        }
        let delay = failures.note(Instant::now(), &RESTARTS).map(|nth| RESTARTS.delay(nth, 0.0, 0.0));
        let _ = words.send(Word::Ended(index, how, delay)).await;
        let Some(delay) = delay else {
            return Exit::Escalated;
        };
        if timeout(delay, stop.wait_for(|s| *s)).await.is_ok() {
            return Exit::Ok;
        }
    }
}

fn start(spec: &ChildSpec) -> std::io::Result<(Child, Option<ChildStdin>)> {
    let stderr = std::fs::OpenOptions::new().create(true).append(true).open(spec.info.log.with_extension("err"))?;
    let mut child = Command::new(&spec.exe)
        .args(&spec.args)
        // Held open as long as this process lives: the child ends when it closes.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // What is not logged: a configuration that cannot be used, a panic without logs.
        .stderr(stderr)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    // Taken, since waiting for a child closes what it holds.
    let stdin = child.stdin.take();
    Ok((child, stdin))
}

/// Ends a child in order, or kills it once its time is over.
async fn end(spec: &ChildSpec, mut child: Child) -> Exit {
    let name = &spec.info.name;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        && let Err(error) = kill_process(pid, Signal::TERM)
    {
        tracing::warn!(child = name, %error, "SIGTERM cannot be sent");
    }
    match timeout(spec.bound, child.wait()).await {
        Ok(Ok(status)) if status.success() => Exit::Ok,
        Ok(Ok(status)) => {
            say(&format!("{name} ended {}; its log is {}", describe(status), spec.info.log.display()));
            Exit::Escalated
        }
        Ok(Err(error)) => {
            tracing::error!(child = name, %error, "nobody knows how it ended");
            Exit::Escalated
        }
        Err(_) => {
            say(&format!(
                "{name} did not end within {:?} and was killed; its log is {}",
                spec.bound,
                spec.info.log.display()
            ));
            let _ = child.start_kill();
            let _ = timeout(GRACE, child.wait()).await;
            Exit::Escalated
        }
    }
}

/// How a process ended: `with exit code 0`, `by SIGKILL`.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(code), _) => format!("with exit code {code}"),
        (None, Some(Signal::KILL)) => "by SIGKILL".to_owned(),
        (None, Some(Signal::TERM)) => "by SIGTERM".to_owned(),
        (None, Some(Signal::SEGV)) => "by SIGSEGV".to_owned(),
        (None, Some(Signal::ABORT)) => "by SIGABRT".to_owned(),
        (None, _) => status.to_string(),
    }
}
