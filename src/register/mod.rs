//! `compute-register`: the operator's tool. It asks a running node through its control socket, or reads its database.
//!
//! `chain` has the commands that ask the chain itself and need no node.
//!
//! One file for each group of commands: `node` (the node itself), `standing`, `allocate`, `leases`, `login`, `canary`, `penalties`, `explain`, `evidence`,
//! `wallet`, `probe`, `chain`, `models` (what the settings pay for each model), `benchmark` (how fast this machine's prover is); `text` lays tables out. A new group is a file here and a line in `Command`.

mod allocate;
mod benchmark;
mod canary;
mod chain;
mod evidence;
mod explain;
mod leases;
mod login;
mod models;
mod node;
mod penalties;
mod probe;
mod standing;
mod text;
mod wallet;

use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::exit::Exit;
use crate::launch;
use crate::settings::{Cli, FLAGS, Loaded, Role, Settings};
use crate::telemetry::error_chain;
use crate::web::control::{ClientError, Code, ControlClient};
use crate::wire::synapse::LeaseChange;

/// Asks a running node of this machine, and tells it what to do; asks the chain, and registers a hotkey there.
///
/// The node is found by its data directory: the configured one of --role, or --data-dir. Asked is the node's own control
/// socket, which answers its own user and root only. Nothing here ever writes a node's database. The chain is that of
/// --subtensor.network, the subnet --netuid; a key is used only by register, weights set, probe and wallet show --unlock.
#[derive(Debug, Parser)]
#[command(
    name = "compute-register",
    version,
    after_long_help = "\
Examples:
  compute-register status                            is the validator well?
  compute-register --role miner status               and the miner?
  compute-register standing                          is my neuron about to be replaced?
  compute-register explain 5Grwva… --json            why does this miner have its score?
  compute-register replay                            do the weights follow from the evidence?
  compute-register allocate --ssh-key ~/.ssh/id_ed25519.pub --gpu-model 'NVIDIA H200' --gpus 2 --duration 2h
  compute-register allocate --gpu-memory 80GiB --dry-run --explain   who would be asked, and why?
  compute-register maintenance on --note 'new disk'  no new leases; running ones go on
  compute-register drain --wait-for-leases           end the node once its leases have ended
  compute-register reload                            read config.yaml again, as SIGHUP does
  compute-register wallet show default --unlock      does the password open my hotkeys?
  compute-register probe 203.0.113.5:8091 --receiver 5Grwva…   is my axon reachable?
  compute-register benchmark --count 5               how fast is this machine's prover?
  compute-register metagraph --sort stake            who is in the subnet?
  compute-register balance                           what the wallet's coldkey has
  compute-register register --max-cost 1.5           buy the wallet's hotkey a uid, after a question
  compute-register weights set --dry-run w.json      would the chain take these weights?

Exit codes: 0 done; 64 wrong command line; 65 the node or the chain refuses, or an answer, a file or a database
cannot be used; 69 no node or chain is there, or it does not answer; 78 wrong configuration."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Whose data directory is meant where none is given.
    #[arg(long, global = true, value_enum, default_value_t = NodeRole::Validator)]
    role: NodeRole,
    /// The node's data directory; for explain also its database file. By default the configured one.
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    cli: Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NodeRole {
    Miner,
    Validator,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The node in short: whether it is ready, and why not.
    Status,
    /// The node's own neuron: registered, immune, next to be replaced, with permit and stake or without.
    Standing,
    /// The node's actors: state, restarts, queue, last failure.
    Actors,
    /// What the validator thinks of each miner: verdict, score, weight, leases.
    Table,
    /// The models that are paid, what each must prove, and what a card could gain by claiming to be others.
    Models,
    /// How fast this machine's prover is: time, rate, openings and bytes by backend, device and size.
    ///
    /// Runs the real compute-prover and checks each of its proofs. End a miner that runs here before: it shares the devices.
    Benchmark(benchmark::Args),
    /// Rent a machine through the validator; prints the command that logs in, with the host key pinned.
    Allocate(allocate::Args),
    /// The leases that have not ended, and those that ended against their renters' will; of one lease its history.
    List(leases::ListArgs),
    /// Log in to a lease: becomes ssh, which believes nobody but the host key on record.
    Ssh(login::Args),
    /// Freeze the processes of a lease's container. It goes on holding its devices, and its time goes on.
    Pause(leases::ChangeArgs),
    /// Let a paused container run again.
    Resume(leases::ChangeArgs),
    /// End the processes of a lease's container and start it again; its files, port and host key stay.
    Restart(leases::ChangeArgs),
    /// Change the SSH key that logs in to a lease, or a second one beside it.
    Key(leases::KeyArgs),
    /// Let a lease last longer.
    Renew(leases::RenewArgs),
    /// End a lease, and wait until its container is gone.
    Release(leases::ReleaseArgs),
    /// Canary rentals: list the last ones, or run one at a miner now.
    ///
    /// A canary rents the miner's free devices as a tenant would, logs in over SSH, has the prover that it uploads prove them in
    /// the container, and gives them back. It names the stage that fails.
    Canary(canary::Args),
    /// Penalties: list them, give one, lift one.
    Penalties(penalties::Args),
    /// Why a miner has its score: verdicts, arithmetic, lease, penalties, weight.
    ///
    /// From the running validator, or, when none runs there, from its database, which is only read.
    Explain(explain::Args),
    /// The evidence log: check it, or the samples of proofs in it.
    Evidence(evidence::Args),
    /// Derive every verdict, score and weight again from the evidence log alone, and compare bit for bit.
    Replay(evidence::ReplayArgs),
    /// Read the settings again: says for each changed key whether it is applied, needs a restart, or is refused.
    Reload,
    /// Keep new leases away, or end that. Running leases go on; a miner goes on proving, a validator judging.
    ///
    /// Maintenance outlasts a restart of the node.
    Maintenance(node::MaintenanceArgs),
    /// Take no new leases, finish what is in flight, and end the node as SIGTERM does.
    Drain(node::DrainArgs),
    /// The settings in force, with where each was written.
    Config,
    /// The wallets of this machine: which keys there are, and whether a node could act with them.
    Wallet(wallet::Args),
    /// Asks an axon whether it is reachable and takes this hotkey, and says what to check if not.
    Probe(probe::Args),
    /// Registers the wallet's hotkey in the subnet, paid by its coldkey; shows the price and asks before.
    Register(chain::RegisterArgs),
    /// The neurons of the subnet, as the chain shows them.
    Metagraph(chain::MetagraphArgs),
    /// The rules of the subnet, with what each means for an operator.
    Hyperparameters,
    /// The free balance of an account: the wallet's coldkey, or ADDRESS.
    Balance(chain::BalanceArgs),
    /// Weights on the chain: what a validator has set, or what would become of some.
    Weights(chain::WeightsArgs),
}

/// The flags that are shown, and may also stand behind a command: which wallet, which chain.
const SHOWN: [&str; 6] =
    ["netuid", "wallet.name", "wallet.hotkey", "wallet.path", "subtensor.network", "subtensor.chain_endpoint"];

/// The settings' flags, all understood and few shown: a node's help explains the others.
#[derive(Debug)]
struct Quiet(Cli);

impl clap::Args for Quiet {
    fn augment_args(command: clap::Command) -> clap::Command {
        Cli::augment_args(command).mut_args(|arg| match arg.get_id().as_str() {
            // Only flags of one value: of a list, clap would keep what stands behind the command and drop the rest.
            name if SHOWN.contains(&name) => arg.global(true),
            name if name != "config" && FLAGS.iter().any(|flag| flag.name == name) => arg.hide(true),
            _ => arg,
        })
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Quiet {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        Cli::from_arg_matches(matches).map(Quiet)
    }
    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.0.update_from_arg_matches(matches)
    }
}

/// What a command works with.
struct Context {
    client: ControlClient,
    dir: PathBuf,
    settings: Settings,
    role: NodeRole,
    json: bool,
}

/// Runs the tool with these arguments, the program's name first.
pub fn main(args: impl IntoIterator<Item = OsString>) -> Exit {
    launch::without_core_dumps();
    run(args).unwrap_or_else(|exit| exit)
}

fn run(args: impl IntoIterator<Item = OsString>) -> Result<Exit, Exit> {
    let Args { command, role, data_dir, json, cli } = launch::arguments(args)?;
    let settings_of = match role {
        NodeRole::Miner => Role::Miner,
        NodeRole::Validator => Role::Register,
    };
    let Loaded { settings, .. } = launch::load(settings_of, &cli.0)?;
    let dir = data_dir.unwrap_or_else(|| settings.node.data_dir.clone());
    let context = Context { client: ControlClient::new(&dir), dir, settings, role, json };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        complain(&format!("cannot start: {error}"));
        Exit::Unavailable
    })?;
    runtime.block_on(carry_out(&context, command))?;
    Ok(Exit::Ok)
}

async fn carry_out(context: &Context, command: Command) -> Result<(), Exit> {
    match command {
        Command::Status => node::status(context).await,
        Command::Standing => standing::run(context).await,
        Command::Actors => node::actors(context).await,
        Command::Table => node::table(context).await,
        Command::Models => models::run(context),
        Command::Benchmark(args) => benchmark::run(context, args).await,
        Command::Allocate(args) => allocate::run(context, args).await,
        Command::List(args) => leases::list(context, args).await,
        Command::Ssh(args) => login::run(context, args).await,
        Command::Pause(args) => leases::change(context, args, LeaseChange::Pause).await,
        Command::Resume(args) => leases::change(context, args, LeaseChange::Resume).await,
        Command::Restart(args) => leases::change(context, args, LeaseChange::Restart).await,
        Command::Key(args) => leases::key(context, args).await,
        Command::Renew(args) => leases::renew(context, args).await,
        Command::Release(args) => leases::release(context, args).await,
        Command::Canary(args) => canary::run(context, args).await,
        Command::Penalties(args) => penalties::run(context, args).await,
        Command::Explain(args) => explain::run(context, args).await,
        Command::Evidence(args) => evidence::run(context, &args),
        Command::Replay(args) => evidence::replay(context, &args),
        Command::Reload => node::reload(context).await,
        Command::Maintenance(args) => node::maintenance(context, args).await,
        Command::Drain(args) => node::drain(context, args).await,
        Command::Config => node::config(context).await,
        Command::Wallet(args) => wallet::run(context, args),
        Command::Probe(args) => probe::run(context, args).await,
        Command::Register(args) => chain::register(context, args).await,
        Command::Metagraph(args) => chain::metagraph(context, args).await,
        Command::Hyperparameters => chain::hyperparameters(context).await,
        Command::Balance(args) => chain::balance(context, args).await,
        Command::Weights(args) => chain::weights(context, args).await,
    }
}

impl Context {
    /// Prints the answer: as JSON, or as the text that `text` makes of it.
    fn answer<T: Serialize>(&self, answer: &T, text: impl FnOnce(&T) -> String) -> Result<(), Exit> {
        if !self.json {
            say(text(answer).trim_end());
            return Ok(());
        }
        let json = serde_json::to_string_pretty(answer).map_err(|error| {
            complain(&format!("the answer cannot be written as JSON: {error}"));
            Exit::Data
        })?;
        say(&json);
        Ok(())
    }
}

/// Says why there is no answer, and what to do; the exit code says it to programs.
fn failed(error: &ClientError) -> Exit {
    complain(&error_chain(error));
    match error {
        ClientError::NotRunning { .. } => {
            complain("is the node running? Start it, or name its directory: --role, --data-dir");
            Exit::Unavailable
        }
        ClientError::Permission { .. } | ClientError::Timeout { .. } | ClientError::Broken { .. } => Exit::Unavailable,
        ClientError::Unexpected { .. } => {
            complain("check that node and compute-register are of one version");
            Exit::Data
        }
        ClientError::Node(error) => {
            if !error.remedy.is_empty() {
                complain(&error.remedy);
            }
            if error.code == Code::Unavailable { Exit::Unavailable } else { Exit::Data }
        }
    }
}

/// Reads something that has a text form; what is wrong with it is a wrong command line.
fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str, what: &str) -> Result<T, Exit> {
    text.parse().map_err(|error| {
        complain(&format!("'{text}' is not a {what}: {error}"));
        Exit::Usage
    })
}

fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}"); // a closed pipe is no reason to fail
}

fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
