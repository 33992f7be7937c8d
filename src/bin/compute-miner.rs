//! A miner's node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use compute_subnet::actors::miner::node::{MinerInput, start};
use compute_subnet::exit::Exit;
use compute_subnet::hardware::{OfferedDevice, Probe};
use compute_subnet::ids::DeviceId;
use compute_subnet::launch::{self, Started};
use compute_subnet::lease::engine::SimulatedEngine;
use compute_subnet::settings::{Cli, Role};

/// Offers this machine's devices: measures them, proves them, and runs renters' containers.
#[derive(Debug, Parser)]
#[command(name = "compute-miner", version)]
struct Args {
    /// Take the key of miner N from this devnet directory instead of the wallet: DIR or DIR:N. Only with a ledger.
    #[arg(long, value_name = "DIR[:N]")]
    devnet_keys: Option<String>,
    /// Offer the CPU as a device of this class instead of the GPUs. Only with a ledger.
    #[arg(long, value_name = "CLASS")]
    device_class: Option<String>,
    #[command(flatten)]
    cli: Cli,
}

fn main() -> std::process::ExitCode {
    node().unwrap_or_else(|exit| exit).into()
}

fn node() -> Result<Exit, Exit> {
    let args: Args = launch::arguments(std::env::args_os())?;
    let loaded = launch::load(Role::Miner, &args.cli)?;
    let _logs = launch::logs(&loaded.settings, "miner")?;
    launch::warn(&loaded.warnings);
    let settings = Arc::new(loaded.settings);
    let (dir, number) = split(args.devnet_keys.as_deref());
    let keypair = launch::keypair(&settings, dir.as_deref(), |keys| keys.miner(number))?;
    let classes = launch::device_class(&settings, args.device_class)?
        .map(|model| vec![OfferedDevice { device: DeviceId::cpu(0), model, memory_bytes: 0 }]);
    let prover = launch::child_prover(&settings)?;
    Ok(launch::run(|runtime| async move {
        let web = SocketAddr::new(settings.metrics.ip, settings.metrics.port);
        let node = match launch::node_input("miner", settings, keypair, runtime, web) {
            Ok(node) => node,
            Err(exit) => return exit,
        };
        // The containers are the engine's own, so they lie outside the node's database, as a daemon's would.
        let engine = SimulatedEngine::new(node.data_dir.join("engine").join("containers.json"));
        let input = MinerInput {
            node,
            prover: Arc::new(prover),
            engine: Arc::new(engine),
            probe: Probe::default(),
            device_classes: classes,
        };
        match start(input) {
            Ok(miner) => launch::serve(Started::from(miner.node)).await,
            Err(error) => launch::failed(&error),
        }
    }))
}

/// `DIR` or `DIR:N`.
fn split(text: Option<&str>) -> (Option<PathBuf>, usize) {
    let Some(text) = text else { return (None, 0) };
    match text.rsplit_once(':').and_then(|(dir, n)| Some((dir, n.parse().ok()?))) {
        Some((dir, number)) => (Some(PathBuf::from(dir)), number),
        None => (Some(PathBuf::from(text)), 0),
    }
}
