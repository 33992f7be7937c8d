//! The operator's tool: what the node knows, read from its database.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use compute_subnet::exit::Exit;
use compute_subnet::ids::Hotkey;
use compute_subnet::launch;
use compute_subnet::settings::{Cli, Role};
use compute_subnet::store::explain::explain_from_db;
use compute_subnet::telemetry::error_chain;

/// Reads a node's database and says what the node knows. Never writes it.
#[derive(Debug, Parser)]
#[command(name = "compute-register", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    cli: Cli,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Why a miner has its score: verdicts, arithmetic, lease, penalties, weight.
    Explain {
        /// The miner's hotkey, as an SS58 address.
        hotkey: String,
        /// The validator's data directory, or its database file; by default the configured one.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> std::process::ExitCode {
    register().unwrap_or_else(|exit| exit).into()
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

fn register() -> Result<Exit, Exit> {
    let args: Args = launch::arguments(std::env::args_os())?;
    let loaded = launch::load(Role::Register, &args.cli)?;
    let Command::Explain { hotkey, data_dir, json } = args.command;
    let hotkey: Hotkey = hotkey.parse().map_err(|error| {
        complain(&format!("'{hotkey}' is not a hotkey: {error}"));
        Exit::Usage
    })?;
    let dir = data_dir.unwrap_or(loaded.settings.node.data_dir);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
    let explanation = explain_from_db(&dir, &hotkey, now_ms).map_err(|error| {
        complain(&format!("the database in {} cannot be read: {}", dir.display(), error_chain(&error)));
        error.exit()
    })?;
    let text = if json {
        serde_json::to_string_pretty(&explanation).map_err(|error| {
            complain(&format!("the explanation cannot be written as JSON: {error}"));
            Exit::Data
        })?
    } else {
        explanation.to_text()
    };
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
    Ok(Exit::Ok)
}
