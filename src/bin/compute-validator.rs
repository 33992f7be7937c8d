//! A validator's node.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use compute_subnet::actors::validator::node::{ValidatorInput, start};
use compute_subnet::exit::Exit;
use compute_subnet::launch::{self, Started};
use compute_subnet::settings::{Cli, Role};

/// Proves miners' hardware, scores it, sets weights on chain and rents machines to people.
#[derive(Debug, Parser)]
#[command(name = "compute-validator", version)]
struct Args {
    /// Take the validator's key from this devnet directory instead of the wallet. Only with a ledger.
    #[arg(long, value_name = "DIR")]
    devnet_keys: Option<PathBuf>,
    #[command(flatten)]
    cli: Cli,
}

fn main() -> std::process::ExitCode {
    node().unwrap_or_else(|exit| exit).into()
}

fn node() -> Result<Exit, Exit> {
    let args: Args = launch::arguments(std::env::args_os())?;
    let loaded = launch::load(Role::Validator, &args.cli)?;
    let _logs = launch::logs(&loaded.settings, "validator")?;
    launch::warn(&loaded.warnings);
    let settings = Arc::new(loaded.settings);
    let keypair = launch::keypair(&settings, args.devnet_keys.as_deref(), |keys| keys.validator(0))?;
    Ok(launch::run(|runtime| async move {
        let web = SocketAddr::new(settings.metrics.ip, settings.metrics.port);
        let input = match launch::node_input("validator", settings, keypair, runtime, web) {
            Ok(input) => input,
            Err(exit) => return exit,
        };
        match start(ValidatorInput { node: input, local_address: None }) {
            Ok(validator) => launch::serve(Started::from(validator.node)).await,
            Err(error) => launch::failed(&error),
        }
    }))
}
