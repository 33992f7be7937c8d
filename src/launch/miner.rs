//! `compute-miner`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use super::{ChildArgs, DevnetKey, ProverProgram, doctor, selftest};
use crate::actors::miner::engine::{docker_socket, engine};
use crate::actors::miner::node::{MinerInput, start};
use crate::actors::reloader::Layers;
use crate::exit::Exit;
use crate::hardware::{OfferedDevice, Probe};
use crate::ids::DeviceId;
use crate::proof::memory;
use crate::proof::prover::{Forgery, ForgingProver, Prover};
use crate::settings::{self, Cli, Role};
use crate::sim::devnet::MEMORY_OFFERED;

/// What follows the options in `--help`.
const HELP: &str = "\
Start one with the key of miner 2 of a devnet whose ledger is at port 9950:
  compute-miner --subtensor.network ledger=http://127.0.0.1:9950 \\
      --devnet-keys ~/.compute-subnet/devnet:2 --device-class cpu-3 --axon.ip 127.0.1.77 --metrics.port 9465 \\
      --set budget.challenges_per_hotkey=10000 --set budget.time=10m
Would it pass, and for which score? Of the machine alone, before it joins anything:
  compute-miner selftest                   exit code 0 if it would, 1 if not; --json, --quick, --devices
What is missing for rentals, and the command that mends it:
  compute-miner doctor                     exit code 0 if nothing is missing, 1 if something is; --json
Then look at it:
  compute-register --role miner status     ready? why not?
  compute-register --role miner list       who rents what
  curl 127.0.0.1:9465/metrics              what Prometheus sees

Files    database, control.sock, node.lock in ~/.compute-subnet/miner (--node.data_dir)";

/// Offers this machine's devices: measures them, proves them, and runs renters' containers.
///
/// It announces its axon on chain, answers validators' challenges with one compute-prover child for each device, and owns
/// the leases of this machine: they survive its end, and a start compares them with the engine before anything is served.
#[derive(Debug, Parser)]
#[command(name = "compute-miner", version, after_long_help = super::help(HELP))]
struct Args {
    /// Take the key of miner N from this devnet directory instead of the wallet: DIR or DIR:N. Only with a ledger.
    #[arg(long, value_name = "DIR[:N]", global = true)]
    devnet_keys: Option<String>,
    /// Offer the CPU as a device of this class instead of the GPUs. Only with a ledger or a local chain.
    #[arg(long, value_name = "CLASS", global = true)]
    device_class: Option<String>,
    /// Leave this share of the tiles out: a cheater, for a devnet to catch.
    #[arg(long, value_name = "SHARE", hide = true, requires = "devnet_keys")]
    forge: Option<f64>,
    /// Hold half of the memory that is asked for: a cheater, for a devnet to catch.
    #[arg(long, hide = true, requires = "devnet_keys", conflicts_with = "forge")]
    forge_memory: bool,
    /// Where the simulated engine keeps its containers.
    #[arg(long, value_name = "FILE", hide = true, requires = "devnet_keys")]
    engine_file: Option<PathBuf>,
    #[command(flatten)]
    child: ChildArgs,
    #[command(flatten)]
    cli: Cli,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Says what a validator would find here: would this machine pass, what would it score, which line costs it.
    ///
    /// Offline: no chain is asked and no network needed. Each device proves once what a validator would ask of its model. Stop
    /// the miner before, which would share the devices. Nothing is kept.
    Selftest(Box<selftest::Args>),
    /// Says what this machine can do for rentals and what it cannot, each with the command that mends it.
    ///
    /// Driver, container engine, what limits and contains a tenant, ports, disk, wallet. Nothing is changed; to find out whether
    /// a tenant's disk can be limited, a volume of 16 MiB is made and taken away, and a container of the image that callers of the
    /// original's protocol get looks around in itself. Run it as the miner will run.
    Doctor(Box<doctor::Args>),
}

/// Runs a miner with these arguments, the program's name first, until it ends. `prover` says what proves where the
/// settings do not.
pub fn main(args: impl IntoIterator<Item = OsString>, prover: ProverProgram) -> Exit {
    super::without_core_dumps();
    node(args, prover).unwrap_or_else(|exit| exit)
}

fn node(args: impl IntoIterator<Item = OsString>, program: ProverProgram) -> Result<Exit, Exit> {
    let Args { devnet_keys, device_class, forge, forge_memory, engine_file, child, cli, command } =
        super::arguments(args)?;
    let key = devnet_keys.as_deref().map(DevnetKey::from);
    match command {
        Some(Command::Selftest(args)) => {
            let input = selftest::Input { cli, devnet: key, class: device_class, program };
            return Ok(selftest::main(*args, input));
        }
        Some(Command::Doctor(args)) => return Ok(doctor::main(*args, cli, key.as_ref())),
        None => {}
    }
    let loaded = super::load(Role::Miner, &cli)?;
    let logs = super::logs(&loaded.settings, "miner", &child)?;
    super::warn(&loaded.warnings);
    let settings = Arc::new(loaded.settings.clone());
    let layers = Layers { role: Role::Miner, cli, env: settings::process_env(), loaded, logs: Some(logs.control()) };
    let keypair = super::keypair(&settings, key.as_ref(), |keys, number| keys.miner(number))?;
    let classes = super::device_class(&settings, device_class)?
        .map(|model| vec![OfferedDevice { device: DeviceId::cpu(0), model, memory_bytes: MEMORY_OFFERED }]);
    let half = forge_memory.then_some(Forgery::Memory(memory::forging::Forgery::HalfTheMemory));
    let prover: Arc<dyn Prover> = match forge.map(|ratio| Forgery::SkipTiles { ratio }).or(half) {
        Some(forgery) => {
            tracing::warn!(?forgery, "this miner cheats");
            let threads = super::found(super::find_prover(&settings, program))?.limits.threads;
            Arc::new(ForgingProver { forgery, threads })
        }
        None => {
            super::make_cuda_cache(&settings);
            Arc::new(super::found(super::find_device_prover(&settings, program))?)
        }
    };
    Ok(super::run(|runtime| async move {
        let web = SocketAddr::new(settings.metrics.ip, settings.metrics.port);
        let node = match super::node_input("miner", settings.clone(), layers, keypair, runtime, web).await {
            Ok(node) => node,
            Err(exit) => return exit,
        };
        // The containers are the engine's own, so they lie outside the node's database.
        let file = engine_file.unwrap_or_else(|| node.data_dir.join("engine").join("containers.json"));
        let containers =
            engine(&settings, node.keypair.hotkey(), settings.axon.ip, &node.data_dir, file, node.runtime.handle());
        let input = MinerInput {
            node,
            prover,
            engine: containers,
            probe: Probe { docker_socket: docker_socket(&settings), ..Probe::default() },
            device_classes: classes,
        };
        match start(input) {
            Ok(miner) => super::serve(miner.node, &child).await,
            Err(error) => super::failed(&error),
        }
    }))
}
