//! `compute-validator`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;

use super::{ChildArgs, DevnetKey};
use crate::actors::reloader::Layers;
use crate::actors::validator::node::{ValidatorInput, start};
use crate::canary::ssh::Ssh;
use crate::exit::Exit;
use crate::settings::{self, Cli, Role};

/// What follows the options in `--help`.
const HELP: &str = "\
Start one beside a devnet that runs with --without-validator --ledger-port 9950:
  compute-validator --subtensor.network ledger=http://127.0.0.1:9950 \\
      --devnet-keys ~/.compute-subnet/devnet --set weights.interval_blocks=1
Then look at it:
  compute-register status            ready? why not?
  curl 127.0.0.1:9464/metrics        what Prometheus sees

Files    database, evidence/, control.sock, node.lock in ~/.compute-subnet/validator (--node.data_dir)";

/// Proves miners' hardware, scores it, sets weights on chain and rents machines to people.
///
/// Each epoch, in its own slot, it asks every admitted miner for exact integer work that it checks in milliseconds, turns
/// the verdicts into scores and sets weights. What it did and why is in its evidence log, from which anybody can derive
/// the weights again (`compute-register replay`).
#[derive(Debug, Parser)]
#[command(name = "compute-validator", version, after_long_help = super::help(HELP))]
struct Args {
    /// Take the key of validator N from this devnet directory instead of the wallet: DIR or DIR:N. Only with a ledger.
    #[arg(long, value_name = "DIR[:N]")]
    devnet_keys: Option<String>,
    #[command(flatten)]
    child: ChildArgs,
    #[command(flatten)]
    cli: Cli,
}

/// Runs a validator with these arguments, the program's name first, until it ends.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    super::without_core_dumps();
    node(args).unwrap_or_else(|exit| exit)
}

fn node(args: impl IntoIterator<Item = OsString>) -> Result<Exit, Exit> {
    let Args { devnet_keys, child, cli } = super::arguments(args)?;
    let loaded = super::load(Role::Validator, &cli)?;
    let logs = super::logs(&loaded.settings, "validator", &child)?;
    super::warn(&loaded.warnings);
    let settings = Arc::new(loaded.settings.clone());
    let layers =
        Layers { role: Role::Validator, cli, env: settings::process_env(), loaded, logs: Some(logs.control()) };
    let key = devnet_keys.as_deref().map(DevnetKey::from);
    let keypair = super::keypair(&settings, key.as_ref(), |keys, number| keys.validator(number))?;
    Ok(super::run(|runtime| async move {
        let web = SocketAddr::new(settings.metrics.ip, settings.metrics.port);
        let input = match super::node_input("validator", settings, layers, keypair, runtime, web).await {
            Ok(input) => input,
            Err(exit) => return exit,
        };
        match start(ValidatorInput { node: input, local_address: None, remote: Arc::new(Ssh) }) {
            Ok(validator) => super::serve(validator.node, &child).await,
            Err(error) => super::failed(&error),
        }
    }))
}
