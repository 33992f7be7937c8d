//! `evidence` and `replay`: the evidence log, read from its files. No node is asked; one that runs is not in the way.

use super::{Context, complain};
use crate::evidence::{DIRECTORY, read, replay, sample};
use crate::exit::Exit;
use crate::ids::{Epoch, Hotkey, Uid};
use crate::store::queries;
use crate::store::read_only::open_read_only;
use crate::telemetry::error_chain;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check every byte: form, hashes, numbers, seals, and the end that the database knows.
    Verify {
        /// Demand that the log is this validator's (SS58). A log names its validator itself: who checks must know which.
        #[arg(long, value_name = "SS58")]
        hotkey: Option<Hotkey>,
    },
    /// Check the logged samples of proofs: recompute tiles, walk their paths to the roots the miner signed.
    Sample {
        /// Only this epoch.
        #[arg(long)]
        epoch: Option<Epoch>,
        /// Only this miner.
        #[arg(long)]
        uid: Option<u16>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// How many of the last epochs are listed; all are derived.
    #[arg(long, default_value_t = 20, value_name = "N")]
    epochs: usize,
    /// Demand that the log is this validator's (SS58).
    #[arg(long, value_name = "SS58")]
    hotkey: Option<Hotkey>,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<(), Exit> {
    let dir = context.dir.join(DIRECTORY);
    match args.command {
        Command::Verify { hotkey } => {
            // Read before the log: a node that runs only adds to it.
            let head = match open_read_only(&context.dir) {
                Ok(conn) => queries::evidence_head(&conn).unwrap_or_else(|error| {
                    complain(&format!("the log's end is not held against the database: {}", error_chain(&error)));
                    None
                }),
                Err(error) => {
                    complain(&format!("the log's end is not held against the database: {}", error_chain(&error)));
                    None
                }
            };
            let (report, problems) = read::verify(&dir, head, hotkey).map_err(|error| unreadable(context, &error))?;
            context.answer(&report, read::Report::to_text)?;
            ended(problems.is_empty())
        }
        Command::Sample { epoch, uid } => {
            let report = sample::check(&dir, epoch, uid.map(Uid)).map_err(|error| unreadable(context, &error))?;
            context.answer(&report, sample::SampleReport::to_text)?;
            ended(report.holds())
        }
    }
}

pub(super) fn replay(context: &Context, args: &ReplayArgs) -> Result<(), Exit> {
    let replay =
        replay::replay(&context.dir.join(DIRECTORY), args.hotkey).map_err(|error| unreadable(context, &error))?;
    context.answer(&replay, |replay| replay.to_text(args.epochs))?;
    ended(replay.holds())
}

fn ended(holds: bool) -> Result<(), Exit> {
    if holds { Ok(()) } else { Err(Exit::Data) }
}

fn unreadable(context: &Context, error: &std::io::Error) -> Exit {
    complain(&format!("the evidence log in {} cannot be read: {error}", context.dir.display()));
    Exit::Unavailable
}
