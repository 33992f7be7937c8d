//! `compute-devnet`.
//!
//! The program is also its own children: started with `AS_VALIDATOR`, `AS_MINER` or `AS_PROVER` it is that program,
//! so that a devnet of processes needs no other file.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ProverProgram;
use crate::actors::miner::engine::{docker_options, is_docker};
use crate::canary::simulated::SimulatedRemote;
use crate::exit::Exit;
use crate::ids::Hotkey;
use crate::lease::ContainerEngine as _;
use crate::lease::engine::DockerEngine;
use crate::messages::miner::specs_collector::GetSpecs;
use crate::proof::prover;
use crate::settings::{Cli, Loaded, Role, Settings, Source};
use crate::sim::aside;
use crate::sim::audit;
use crate::sim::devnet::{Devnet, DevnetOptions, miner_name};
use crate::sim::keys::DevnetKeys;
use crate::sim::periods;
use crate::sim::processes::{self, Processes, Programs};
use crate::sim::screen::{say, show};
use crate::sim::table::TableSource;
use crate::telemetry::error_chain;

/// The first argument that makes this program a prover child.
const AS_PROVER: &str = "--as-prover";
/// The first argument that makes this program `compute-validator`.
const AS_VALIDATOR: &str = "--as-validator";
/// The first argument that makes this program `compute-miner`.
const AS_MINER: &str = "--as-miner";
/// Where a devnet's containers are published.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The least part of the machine's memory that leases may be given, as the settings have it.
const LEAST_SHARE: f64 = 0.01;
/// How long measuring this machine may take before the devnet goes on without showing it.
const MEASURE: Duration = Duration::from_secs(3);

/// What follows the options in `--help`.
const HELP: &str = "\
Examples:
  compute-devnet                                       a ledger, one validator, four miners, one renter
  compute-devnet --cheaters 1 --epochs 3               a cheater is caught; ends by itself
  compute-devnet --validators 2                        two validators take turns and agree
  compute-devnet --processes --speed 5                 kill -9 any node: it comes back and nothing is lost
  compute-devnet --docker                              rent real containers, log in with ssh
  compute-devnet --resume                              go on where the last one ended
  compute-register status --data-dir ~/.compute-subnet/devnet/validator
  compute-register replay --data-dir ~/.compute-subnet/devnet/validator

Files: each node's directory, the ledger, the renters' logs and log/ in ~/.compute-subnet/devnet (--node.data_dir)";

/// Runs a whole subnet on this machine: a ledger, validators, miners that prove real work on the CPU, and a renter.
///
/// Everything runs in this process, or with --processes each node in one of its own. Ctrl-C ends it.
#[derive(Debug, Parser)]
#[command(name = "compute-devnet", version, after_long_help = HELP)]
struct Args {
    /// Honest miners.
    #[arg(long, default_value_t = 4, value_name = "N")]
    miners: usize,
    /// Miners that leave half of their work out.
    #[arg(long, default_value_t = 0, value_name = "N")]
    cheaters: usize,
    /// Miners that do their work and hold half of the memory they are asked for.
    #[arg(long, default_value_t = 0, value_name = "N")]
    memory_cheaters: usize,
    /// Miners that announce an address which another miner already has.
    #[arg(long, default_value_t = 0, value_name = "N")]
    duplicates: usize,
    /// Validators, up to 12, each with less stake than the one before; they take turns within an epoch.
    #[arg(long, default_value_t = 1, value_name = "N")]
    validators: usize,
    /// Synthetic renters.
    #[arg(long, default_value_t = 1, value_name = "N")]
    rentals: usize,
    /// End after so many judged epochs whose weights are on chain.
    #[arg(long, value_name = "N")]
    epochs: Option<u64>,
    /// Time between two blocks of the ledger.
    #[arg(long, value_name = "TIME")]
    block_time: Option<String>,
    /// Blocks of one epoch, less one.
    #[arg(long, value_name = "N")]
    tempo: Option<u16>,
    /// Make blocks so many times faster.
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    speed: f64,
    /// Continue the devnet of the last run instead of starting a new one beside it.
    #[arg(long)]
    resume: bool,
    /// Port of the ledger on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    ledger_port: u16,
    /// Run each node as a process of its own. One that ends is started again.
    #[arg(long, conflicts_with = "without_validator")]
    processes: bool,
    /// Leave the validator to a process of its own; prints how to start it.
    #[arg(long)]
    without_validator: bool,
    /// Run containers in the Docker Engine of this machine (docker.socket, else DOCKER_HOST's), from this image: a name of
    /// docker.images, or a reference. Needs compute-sshd (scripts/sshd). They are removed when the devnet ends.
    #[arg(long, value_name = "IMAGE", num_args = 0..=1, default_missing_value = "debian", require_equals = true)]
    docker: Option<String>,
    /// Run nothing: compare what renters, validators, miners and engines in this devnet's directory tell of every rental.
    /// Ends with 65 when they do not tell the same.
    #[arg(long, value_name = "DIR")]
    audit: Option<PathBuf>,
    #[command(flatten)]
    cli: Cli,
}

/// Runs a devnet with these arguments, the program's name first, until it ends.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    super::without_core_dumps();
    let args: Vec<OsString> = args.into_iter().collect();
    // What follows the first argument, behind this name of a program.
    let behind = |program: &str| -> Vec<OsString> {
        std::iter::once(program.into()).chain(args.iter().skip(2).cloned()).collect()
    };
    match args.get(1).and_then(|first| first.to_str()) {
        Some(AS_PROVER) => prover::serve_stdio(prover::Backend::Cpu),
        Some(AS_VALIDATOR) => super::validator::main(behind("compute-validator")),
        Some(AS_MINER) => super::miner::main(behind("compute-miner"), ProverProgram::Own(vec![AS_PROVER.into()])),
        _ => devnet(args).unwrap_or_else(|exit| exit),
    }
}

fn devnet(args: Vec<OsString>) -> Result<Exit, Exit> {
    let mut args: Args = super::arguments(args)?;
    if let Some(dir) = &args.audit {
        return Ok(audit_of(dir));
    }
    if let Some(time) = &args.block_time {
        args.cli = args.cli.with_key("devnet.block_time", time);
    }
    if let Some(tempo) = args.tempo {
        args.cli = args.cli.with_key("devnet.tempo", &tempo.to_string());
    }
    if let Some(image) = &args.docker {
        args.cli = args.cli.with_key("docker.engine", "docker").with_key("docker.default_image", image);
        args.cli = args.cli.with_key("leases.ssh_probe", "true").with_key("docker.disk_gib", "1");
    }
    let loaded = super::load(Role::Devnet, &args.cli)?;
    let mut fitting = periods::fitting(&loaded, args.speed);
    if args.docker.is_some() {
        fitting.extend(share_of_memory(&loaded, miners(&args)));
    }
    for (key, value) in fitting {
        args.cli = args.cli.with_key(key, &value);
    }
    let warnings = loaded.warnings;
    let loaded = super::load(Role::Devnet, &args.cli)?;
    let dir = loaded.settings.node.data_dir.clone();
    // Held until the end: no second devnet may take, or put aside, what this one uses.
    let _held = aside::prepare(&dir, args.resume).map_err(|error| {
        say(&error_chain(&error));
        error.exit()
    })?;
    let _logs = super::logs_in(&loaded.settings, &dir.join("log"))?;
    warnings.iter().for_each(|warning| say(warning));
    Ok(super::run(|runtime| run(args, loaded, dir, runtime)))
}

/// How many miners there are, of all kinds.
fn miners(args: &Args) -> usize {
    args.miners + args.cheaters + args.memory_cheaters + args.duplicates
}

/// The miners of a devnet have one machine together: where nobody else set it, each gives its tenants its part of what the
/// shipped setting gives, so that all tenants together cannot fill the machine's memory.
fn share_of_memory(loaded: &Loaded, miners: usize) -> Option<(&'static str, String)> {
    const KEY: &str = "docker.memory_share";
    let shipped = loaded.sources.get(KEY).is_none_or(|source| *source == Source::Embedded);
    let share = loaded.settings.docker.memory_share / miners.max(1) as f64;
    (shipped && miners > 1).then(|| (KEY, format!("{:.4}", share.max(LEAST_SHARE))))
}

fn audit_of(dir: &Path) -> Exit {
    let (sides, mut found) = audit::read(dir);
    found.extend(audit::compare(&sides));
    found.iter().for_each(|disagreement| say(&disagreement.to_string()));
    let leases: usize = sides.validators.iter().map(|v| v.leases.len()).sum();
    let (renters, miners, engines) = (sides.renters.len(), sides.miners.len(), sides.engines.len());
    say(&format!(
        "{leases} leases of {renters} renters at {miners} miners with {engines} engines: {} disagreements",
        found.len()
    ));
    if found.is_empty() { Exit::Ok } else { Exit::Data }
}

async fn run(args: Args, loaded: Loaded, dir: PathBuf, runtime: Arc<tokio::runtime::Runtime>) -> Exit {
    let begun = Instant::now();
    let exe = match std::env::current_exe() {
        Ok(exe) => exe,
        Err(error) => {
            say(&format!("this program does not find itself, so it cannot start provers: {error}"));
            return Exit::Unavailable;
        }
    };
    let programs = Programs { exe: exe.clone(), validator: AS_VALIDATOR, miner: AS_MINER };
    let options = DevnetOptions {
        miners: args.miners,
        cheaters: args.cheaters,
        memory_cheaters: args.memory_cheaters,
        duplicates: args.duplicates,
        rentals: args.rentals,
        speed: args.speed,
        dir: dir.clone(),
        ledger: SocketAddr::from(([127, 0, 0, 1], args.ledger_port)),
        validators: args.validators,
        without_validator: args.without_validator,
        remote: SimulatedRemote::default(),
        prover: (exe, vec![OsString::from(AS_PROVER)]),
    };
    let given = loaded.sources.get("metrics.port").is_some_and(|s| *s != Source::Embedded);
    let port = if given { loaded.settings.metrics.port } else { 0 };
    let web = SocketAddr::new(loaded.settings.metrics.ip, port);
    let settings = Arc::new(loaded.settings);
    if is_docker(&settings)
        && let Err(problem) = containers_can_run(&settings).await
    {
        say(&format!("no containers can be run: {problem}"));
        return Exit::Unavailable;
    }
    let exit = match args.processes {
        true => run_processes(&args, &options, &settings, web, &programs, begun).await,
        false => run_here(&args, &options, settings.clone(), web, runtime, begun).await,
    };
    if is_docker(&settings) {
        remove_containers(&options, &settings).await;
    }
    exit
}

async fn run_here(
    args: &Args,
    options: &DevnetOptions,
    settings: Arc<Settings>,
    web: SocketAddr,
    runtime: Arc<tokio::runtime::Runtime>,
    begun: Instant,
) -> Exit {
    let dir = &options.dir;
    let devnet = match Devnet::start(options, settings.clone(), web, runtime).await {
        Ok(devnet) => devnet,
        Err(error) => {
            say(&format!("the devnet does not start: {}", error_chain(&error)));
            return error.exit();
        }
    };
    introduce(&devnet, dir).await;
    if devnet.validator.is_some() {
        say_how_to_rent(&settings, dir);
    }
    let stop = until_enough(TableSource::of(&devnet), args.epochs, begun);
    let had_validator = devnet.validator.is_some();
    let exit = devnet.run(args.rentals, stop).await;
    say(&format!("\nended after {:.1} s; databases and log are in {}", begun.elapsed().as_secs_f64(), dir.display()));
    if had_validator {
        let database = dir.join("validator");
        say(&format!("why a miner has its score: compute-register explain HOTKEY --data-dir {}", database.display()));
    }
    exit
}

/// Shows the table, and resolves at a signal or once the weights of so many epochs are on chain.
async fn until_enough(source: Option<TableSource>, epochs: Option<u64>, begun: Instant) {
    let (enough, mut done) = watch::channel(false);
    let table = source.map(|source| tokio::task::spawn_local(show(source, epochs, enough, begun)));
    let ended = async {
        if done.wait_for(|enough| *enough).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = super::stop_signal() => {}
        () = ended => {}
    }
    // What the table reads from is about to end.
    if let Some(table) = table {
        table.abort();
    }
}

async fn run_processes(
    args: &Args,
    options: &DevnetOptions,
    settings: &Settings,
    web: SocketAddr,
    programs: &Programs,
    begun: Instant,
) -> Exit {
    let devnet = match Processes::start(options, settings, &args.cli, web, programs).await {
        Ok(devnet) => devnet,
        Err(error) => {
            say(&format!("the devnet does not start: {}", error_chain(&error)));
            return error.exit();
        }
    };
    let listing = devnet.listing();
    say(&format!("data and logs {}", options.dir.display()));
    say(&format!("processes     {}", options.dir.join(processes::FILE).display()));
    say(&format!("ledger        http://{}", listing.ledger));
    for child in &listing.children {
        let axon = child.axon.map(|at| format!("axon {at:<17} ")).unwrap_or_default();
        say(&format!("{:<13} http://{}/metrics   {axon}hotkey {}", child.name, child.web, child.hotkey));
    }
    say_how_to_rent(settings, &options.dir);
    let stop = until_enough(Some(devnet.table()), args.epochs, begun);
    let exit = devnet.run(args.rentals, stop).await;
    say(&format!(
        "\nended after {:.1} s; databases and logs are in {}",
        begun.elapsed().as_secs_f64(),
        options.dir.display()
    ));
    exit
}

/// Asks the Docker Engine for a sign of life, and looks for the SSH server that containers get.
async fn containers_can_run(settings: &Settings) -> Result<(), String> {
    let options = docker_options(settings, Hotkey([0; 32]), LOOPBACK, &settings.node.data_dir);
    if !options.sshd.is_file() {
        let mend = "build it with scripts/sshd, or name it with --set docker.sshd=FILE";
        return Err(format!("their SSH server is not there: {}; {mend}", options.sshd.display()));
    }
    DockerEngine::new(options).available().await.map_err(|error| error.to_string())
}

/// How to rent one of the containers, for who has just started a devnet with a Docker Engine.
fn say_how_to_rent(settings: &Settings, dir: &Path) {
    if is_docker(settings) {
        let validator = dir.join("validator");
        say(&format!(
            "\nrent a container, once the table shows a pass:\n  \
             compute-register allocate --ssh-key ~/.ssh/id_ed25519.pub --data-dir {}\nand log in with the command that it prints",
            validator.display()
        ));
    }
}

/// Removes what containers this devnet's miners left: nobody would ever look after them again.
async fn remove_containers(options: &DevnetOptions, settings: &Settings) {
    let miners = options.miners + options.cheaters + options.memory_cheaters + options.duplicates;
    let keys = match DevnetKeys::load(&options.dir) {
        Ok(keys) => keys,
        Err(error) => return say(&format!("containers of this devnet may be left: {}", error_chain(&error))),
    };
    for number in 0..miners {
        let data_dir = options.dir.join(miner_name(options, number));
        let engine = DockerEngine::new(docker_options(settings, keys.miner(number).hotkey(), LOOPBACK, &data_dir));
        let left = match engine.list().await {
            Ok(left) => left,
            Err(error) => {
                say(&format!("containers of this devnet's miner {number} may be left: {error}"));
                continue;
            }
        };
        for container in left {
            let labels = container.labels;
            match engine.destroy(labels.lease, labels.fencing_epoch).await {
                Ok(_) => tracing::info!(lease = %labels.lease, "removed at the devnet's end"),
                Err(error) => say(&format!("the container {} is left: {error}", container.id)),
            }
        }
    }
}

/// Says where everything is, and what this machine is as its miners measured it.
async fn introduce(devnet: &Devnet, dir: &Path) {
    if let Some(miner) = devnet.miners.first()
        && let Ok(machine) = miner.node.specs.ask(GetSpecs, MEASURE).await
    {
        say(&format!("{}\n", machine.specs.summary()));
    }
    say(&format!("data and log {}", dir.display()));
    say(&format!("ledger       http://{}", devnet.rpc.address()));
    match &devnet.validator {
        Some(validator) => say(&format!("{:<12} http://{}/metrics", "validator", validator.node.web)),
        None => say(&format!(
            "validator    not here; start it with:\n  compute-validator --subtensor.network ledger=http://{} --devnet-keys {}",
            devnet.rpc.address(),
            dir.display()
        )),
    }
    for (name, other) in &devnet.others {
        say(&format!("{name:<12} http://{}/metrics", other.node.web));
    }
    for miner in &devnet.miners {
        let axon = miner.node.node.axon_address.map(|a| a.to_string()).unwrap_or_default();
        let hotkey = miner.node.hotkey;
        say(&format!("{:<12} http://{}/metrics   axon {axon:<17} hotkey {hotkey}", miner.name, miner.node.node.web));
    }
}
