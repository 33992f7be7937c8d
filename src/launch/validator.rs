//! `compute-validator`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;

use super::{ChildArgs, DevnetKey};
use crate::actors::reloader::Layers;
use crate::actors::validator::node::{ValidatorInput, start};
use crate::exit::Exit;
use crate::settings::{self, Cli, Role};

/// Proves miners' hardware, scores it, sets weights on chain and rents machines to people.
#[derive(Debug, Parser)]
#[command(name = "compute-validator", version)]
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
        let input = match super::node_input("validator", settings, layers, keypair, runtime, web) {
            Ok(input) => input,
            Err(exit) => return exit,
        };
        match start(ValidatorInput { node: input, local_address: None }) {
            Ok(validator) => super::serve(validator.node, &child).await,
            Err(error) => super::failed(&error),
        }
    }))
}
