//! From a command line to a running node: what the programs' `main` functions are.
//!
//! [`validator::main`] and [`miner::main`] are whole programs; `compute-devnet` runs the same code for its child
//! processes. Here is what they share: settings, logs, runtime, signals.

mod address;
pub mod chain;
pub mod devnet;
mod doctor;
mod lines;
pub mod miner;
mod selftest;
mod told;
pub mod validator;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::actors::node::{Node, NodeError, NodeInput};
use crate::actors::reloader::{Layers, Reloader};
use crate::clock::SystemClock;
use crate::exit::Exit;
use crate::proof::prover::{ChildProver, CudaChild, DeviceProver, ProverLimits};
use crate::runtime::Placement;
use crate::settings::{self, Cli, Loaded, LogFormat, Role, Settings};
use crate::sim::keys::DevnetKeys;
use crate::telemetry::logging::{self, Format, LogFile, LogGuard, LogOptions};
use crate::wallet::password::Sources;
use crate::wallet::{Keypair, unlock};

/// Takes from this process the right to leave a core dump: it would hold keys. The first thing in every program that loads
/// one; its children inherit it.
#[expect(clippy::print_stderr, reason = "the logs are not set up yet")]
pub fn without_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // Anybody may lower a limit, so this fails in a sandbox only, whose owner should hear of it.
    if let Err(error) = setrlimit(Resource::Core, none) {
        eprintln!("core dumps of this process cannot be switched off, and one would hold its key: {error}");
    }
}

/// Reads the command line of a program whose arguments are `T`; ends the process with help, version or what was wrong.
pub fn arguments<T: clap::Parser>(args: impl IntoIterator<Item = OsString>) -> Result<T, Exit> {
    settings::parse(args).map_err(|error| {
        // Where not even stderr can be written to, the exit code still tells.
        let _ = error.print();
        settings::exit_code(&error)
    })
}

/// What the `--help` of a node ends with: its own words, then what all nodes share.
fn help(own: &str) -> String {
    format!(
        "{own}
Settings config.yaml < --config FILE < COMPUTE__SECTION__KEY < flags and --set;
         compute-register config lists them with where each was written
Signals  SIGINT or SIGTERM finishes what is in flight within supervision.shutdown_timeout (30 s)
         and keeps the leases; a second one ends the node at once.
         SIGHUP reads the settings again, as compute-register reload does.
Exit      0 ended in order            64 wrong command line       65 a file cannot be used
         69 something cannot be had: a port, a directory or hotkey in use, the chain, the prover
         70 an actor failed too often 71 a thread is blocked      73 a file cannot be made
         75 work was cut at the end   78 wrong configuration     130 a second signal"
    )
}

/// Loads the settings of a role; on failure prints everything that is wrong.
#[expect(clippy::print_stderr, reason = "logs are not set up before the settings are known")]
pub fn load(role: Role, cli: &Cli) -> Result<Loaded, Exit> {
    settings::load(role, cli, settings::process_env()).map_err(|problems| {
        eprintln!("{problems}");
        Exit::Config
    })
}

/// What a devnet tells the nodes that it runs as processes of its own. Nothing that operators need.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ChildArgs {
    /// Write the log to this file instead of standard error.
    #[arg(long, value_name = "FILE", hide = true)]
    log_file: Option<PathBuf>,
    /// End in order, as by SIGTERM, once standard input is closed: whoever started this node has ended.
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Sets up the logs of a node as the settings say, or as the devnet that started it does.
pub fn logs(settings: &Settings, role: &str, child: &ChildArgs) -> Result<LogGuard, Exit> {
    if let Some(path) = &child.log_file {
        return set_up(LogOptions { file: LogFile::at(path), quiet: true, ..log_options(settings) });
    }
    let file = settings.logging.record_log.then(|| LogFile::in_dir(settings.log_dir(role)));
    set_up(LogOptions { file, ..log_options(settings) })
}

/// Sets up the logs of a program whose terminal shows something else: into a file below `dir` only.
pub fn logs_in(settings: &Settings, dir: &Path) -> Result<LogGuard, Exit> {
    set_up(LogOptions { file: Some(LogFile::in_dir(dir)), quiet: true, ..log_options(settings) })
}

fn log_options(settings: &Settings) -> LogOptions {
    LogOptions {
        level: settings.logging.level().into(),
        format: match settings.logging.format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        },
        colour: std::io::stderr().is_terminal(),
        ..LogOptions::default()
    }
}

#[expect(clippy::print_stderr, reason = "without logs there is nowhere else to say so")]
fn set_up(options: LogOptions) -> Result<LogGuard, Exit> {
    logging::init(&options).map_err(|error| {
        eprintln!("{}", crate::telemetry::error_chain(&error));
        Exit::CannotCreate
    })
}

/// Tells the operator what was noticed while the settings were read.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Runs a program's asynchronous part: actix for the actors' arbiters, one shared multi-thread runtime beneath them.
#[expect(clippy::print_stderr, reason = "without a runtime there are no logs")]
pub fn run<F: Future<Output = Exit>>(main: impl FnOnce(Arc<tokio::runtime::Runtime>) -> F) -> Exit {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 8);
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("compute-worker")
        .enable_all()
        .build();
    let runtime = match built {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => {
            eprintln!("cannot start the runtime's threads: {error}");
            return Exit::Unavailable;
        }
    };
    let system = actix::System::new();
    let exit = system.block_on(main(runtime.clone()));
    // Tasks of libraries may still sleep; the process is about to end, they are not waited for.
    if let Some(runtime) = Arc::into_inner(runtime) {
        runtime.shutdown_background();
    }
    exit
}

/// Resolves at the first SIGINT or SIGTERM. From then on a second one ends the process at once, also when this future is
/// dropped because the program ends for another reason: nothing that hangs while it stops can only be killed.
pub async fn stop_signal() {
    let (heard, first) = tokio::sync::oneshot::channel();
    tokio::task::spawn_local(async move {
        // One pair for both signals: none is lost between the first and the wait for the second.
        let pair = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(mut interrupt), Ok(mut terminate)) = pair else {
            tracing::error!("signals cannot be heard; end this program with SIGKILL");
            return std::future::pending().await;
        };
        let mut next = async || {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            }
        };
        let signal = next().await;
        tracing::info!(signal, "stopping; a second signal ends the program at once");
        let _ = heard.send(()); // nobody listens any more when the program is stopping already
        next().await;
        std::process::exit(Exit::Interrupted.code());
    });
    if first.await.is_err() {
        std::future::pending().await
    }
}

/// Resolves once standard input is closed.
async fn stdin_closed() {
    let (closed, wait) = tokio::sync::oneshot::channel();
    // A thread of its own: a read that never returns must not hold up the end of the runtime.
    let reader = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = closed.send(()); // nobody listens any more when the node stops already
    });
    if let Err(error) = reader {
        tracing::error!(%error, "no thread to watch standard input; this node does not notice the end of its starter");
        return std::future::pending().await;
    }
    if wait.await.is_err() {
        std::future::pending::<()>().await;
    }
    tracing::info!("whoever started this node has ended, stopping");
}

/// Reads the settings again at each SIGHUP. What became of it is in the log.
async fn reload_at_hangup(reloader: Arc<Reloader>) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => hangup,
        Err(error) => {
            tracing::error!(%error, "SIGHUP cannot be heard; reload with compute-register");
            return;
        }
    };
    while hangup.recv().await.is_some() {
        tracing::info!("SIGHUP, reading the settings again");
        let _ = reloader.reload().await; // logged there
    }
}

/// Runs a node until a signal, until its starter has ended, or until it has to give up.
pub async fn serve(node: Node, child: &ChildArgs) -> Exit {
    let axon = node.axon_address.map(|a| a.to_string());
    tracing::info!(metrics = format!("http://{}/metrics", node.web), axon, "the node is up");
    let orphaned = child.until_stdin_closes;
    let stop = async move {
        tokio::select! {
            () = stop_signal() => {}
            () = stdin_closed(), if orphaned => {}
        }
    };
    let reloads = tokio::task::spawn_local(reload_at_hangup(node.reloader.clone()));
    let exit = node.run(stop).await;
    reloads.abort();
    tracing::info!(code = exit.code(), "the node ended");
    exit
}

/// Says why a node did not start.
fn failed(error: &NodeError) -> Exit {
    tracing::error!("{}", crate::telemetry::error_chain(error));
    error.exit()
}

/// Which key of a devnet a node acts with: `DIR` or `DIR:N`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevnetKey {
    /// The devnet's directory.
    pub dir: PathBuf,
    /// The number of the miner or validator, from 0.
    pub number: usize,
}

impl From<&str> for DevnetKey {
    fn from(text: &str) -> Self {
        match text.rsplit_once(':').and_then(|(dir, n)| Some((dir, n.parse().ok()?))) {
            Some((dir, number)) => DevnetKey { dir: PathBuf::from(dir), number },
            None => DevnetKey { dir: PathBuf::from(text), number: 0 },
        }
    }
}

impl std::fmt::Display for DevnetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.dir.display(), self.number)
    }
}

/// The hotkey of a node, before any actor starts: from the wallet, decrypted if it must be, or from a devnet's directory.
fn keypair(
    settings: &Settings,
    devnet: Option<&DevnetKey>,
    pick: impl FnOnce(&DevnetKeys, usize) -> Keypair,
) -> Result<Keypair, Exit> {
    if let Some(DevnetKey { dir, number }) = devnet {
        if !settings.subtensor.network.is_ledger() {
            tracing::error!("--devnet-keys needs a ledger: --subtensor.network ledger=http://127.0.0.1:PORT");
            return Err(Exit::Usage);
        }
        return DevnetKeys::load(dir).map(|keys| pick(&keys, *number)).map_err(|error| failed(&error));
    }
    let file = settings.wallet.hotkey_file();
    let passwords = Sources::of_process(settings.wallet.password_file.as_deref());
    let loaded = unlock::load(&file, &passwords, |sealed, source| {
        tracing::info!(file = %file.display(), %sealed, password = %source, takes = sealed.cost(), "decrypting the hotkey");
    });
    let loaded = loaded.map_err(|error| {
        tracing::error!("the hotkey cannot be used: {}", crate::telemetry::error_chain(&error));
        Exit::Data
    })?;
    for warning in loaded.warnings {
        tracing::warn!(file = %file.display(), "{warning}");
    }
    Ok(loaded.keypair)
}

/// What a node in a process of its own is given.
async fn node_input(
    name: &str,
    settings: Arc<Settings>,
    layers: Layers,
    keypair: Keypair,
    runtime: Arc<tokio::runtime::Runtime>,
    web: SocketAddr,
) -> Result<NodeInput, Exit> {
    let client = chain::client(&settings, Arc::new(keypair.clone()))?;
    let axon = SocketAddr::new(settings.axon.ip, settings.axon.port);
    // A validator serves no axon, and its metrics need an address only where they are open to others.
    let announce = match name == "miner" || settings.metrics.ip.is_unspecified() {
        true => address::find(&settings).await,
        false => None,
    };
    Ok(NodeInput {
        name: name.to_owned(),
        keypair,
        chain: client,
        clock: Arc::new(SystemClock),
        runtime,
        placement: Placement::PerActor,
        data_dir: settings.node.data_dir.clone(),
        web,
        axon,
        announce,
        settings,
        layers: Some(layers),
    })
}

/// Checks that a device class exists on this network.
fn device_class(settings: &Settings, class: Option<String>) -> Result<Option<String>, Exit> {
    let Some(class) = class else { return Ok(None) };
    match known_class(settings, &class) {
        Ok(()) => Ok(Some(class)),
        Err(what) => {
            tracing::error!("{what}");
            Err(Exit::Usage)
        }
    }
}

/// Whether a device class exists on this network; if not, what to say.
fn known_class(settings: &Settings, class: &str) -> Result<(), String> {
    if settings.devnet.gpu_scores.contains_key(class) {
        return Ok(());
    }
    let known: Vec<&str> = settings.devnet.gpu_scores.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(format!(
        "no device class {class:?} (known: {known}); classes exist with a ledger or a local chain only (devnet.gpu_scores)"
    ))
}

/// How prover children are run where the settings name no program of their own.
#[derive(Debug, Clone)]
pub enum ProverProgram {
    /// `compute-prover`, beside this program.
    Beside,
    /// This program itself, with these arguments.
    Own(Vec<OsString>),
}

/// What was found; a node that lacks it says so and ends.
fn found<T>(found: Result<T, String>) -> Result<T, Exit> {
    found.map_err(|what| {
        tracing::error!("{what}");
        Exit::Unavailable
    })
}

/// The prover of a miner in a process of its own: children of the configured program, or of the one given; if there is none,
/// what to say.
pub(crate) fn find_device_prover(settings: &Settings, program: ProverProgram) -> Result<DeviceProver, String> {
    let child = find_prover(settings, program)?;
    Ok(DeviceProver::new(settings.prover.backend, child, cuda_child(settings)?))
}

/// The prover children of a program: the configured prover, or the one given; if there is none, what to say.
pub(crate) fn find_prover(settings: &Settings, program: ProverProgram) -> Result<ChildProver, String> {
    let own = || {
        std::env::current_exe().map_err(|error| format!("this program does not find itself ({error}); set prover.path"))
    };
    let (exe, args) = match (&settings.prover.path, program) {
        (Some(path), _) => (path.clone(), Vec::new()),
        (None, ProverProgram::Beside) => (own()?.with_file_name("compute-prover"), Vec::new()),
        (None, ProverProgram::Own(args)) => (own()?, args),
    };
    if !exe.is_file() {
        return Err(format!("there is no prover at {}; install compute-prover or set prover.path", exe.display()));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let limits = ProverLimits {
        time: settings.prover.time_limit,
        memory_bytes: settings.prover.memory_limit_bytes(),
        output_bytes: settings.prover.output_limit_bytes(),
        threads: settings.prover.threads_for(cores, 1),
    };
    Ok(ChildProver { args, ..ChildProver::new(exe, limits) })
}

/// What children for GPUs are told.
///
/// # Errors
/// What to say of `prover.library_path`, if it cannot be used.
pub(crate) fn cuda_child(settings: &Settings) -> Result<CudaChild, String> {
    let libraries = match &settings.prover.library_path[..] {
        // Whoever starts the node where CUDA is installed in a place of its own has set this, or NVML finds no GPU either.
        [] => std::env::var_os("LD_LIBRARY_PATH").filter(|path| !path.is_empty()),
        paths => {
            let joined = std::env::join_paths(paths);
            Some(joined.map_err(|error| format!("prover.library_path cannot be used: {error}"))?)
        }
    };
    // Nothing is made here: a selftest keeps nothing.
    Ok(CudaChild { cache: Some(cuda_cache(settings)).filter(|directory| directory.is_dir()), libraries })
}

/// Where the driver keeps the kernels that it compiled.
fn cuda_cache(settings: &Settings) -> PathBuf {
    settings.node.data_dir.join("cuda-cache")
}

/// Makes that directory.
fn make_cuda_cache(settings: &Settings) {
    let directory = cuda_cache(settings);
    if let Err(error) = std::fs::create_dir_all(&directory) {
        tracing::warn!(%error, path = %directory.display(), "CUDA compiles its kernels at every start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devnets_key_is_a_directory_with_or_without_a_number() {
        let key = |text: &str| DevnetKey::from(text);
        assert_eq!(key("/x/net:3"), DevnetKey { dir: "/x/net".into(), number: 3 });
        assert_eq!(key("/x/net"), DevnetKey { dir: "/x/net".into(), number: 0 });
        assert_eq!(key("/x/a:b"), DevnetKey { dir: "/x/a:b".into(), number: 0 });
        assert_eq!(DevnetKey::from(key("/x/a:b:7").to_string().as_str()), key("/x/a:b:7"));
    }
}
