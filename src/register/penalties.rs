//! Commands about penalties.

use std::time::Duration;

use clap::Subcommand;

use super::text::{away, columns, now_ms, row};
use super::{Context, failed, parse};
use crate::exit::Exit;
use crate::ids::Hotkey;
use crate::settings::duration;
use crate::web::control::api::{Lifted, Penalties, PenaltyWish};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The penalties in force; also without a word.
    List,
    /// Refuse a peer for a while.
    Add {
        /// Whom: an SS58 address.
        hotkey: String,
        /// Why; anybody may read it.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For how long: "90s", "6h", "2days".
        #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
        lasting: Duration,
    },
    /// End every penalty of a peer.
    Lift {
        /// Whose: an SS58 address.
        hotkey: String,
    },
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let client = &context.client;
    match args.command.unwrap_or(Command::List) {
        Command::List => {
            let penalties = client.penalties().await.map_err(|e| failed(&e))?;
            context.answer(&penalties, |penalties| list_text(penalties, now_ms()))
        }
        Command::Add { hotkey, reason, lasting } => {
            let wish = PenaltyWish { hotkey: parse(&hotkey, "hotkey")?, reason, duration_s: lasting.as_secs() };
            let penalties = client.penalise(&wish).await.map_err(|e| failed(&e))?;
            context.answer(&penalties, |penalties| list_text(penalties, now_ms()))
        }
        Command::Lift { hotkey } => {
            let hotkey: Hotkey = parse(&hotkey, "hotkey")?;
            let lifted = client.lift(hotkey).await.map_err(|e| failed(&e))?;
            context.answer(&lifted, |Lifted { lifted }| match lifted {
                true => format!("{hotkey} has no penalty any more"),
                false => format!("{hotkey} had no penalty"),
            })
        }
    }
}

fn list_text(Penalties { penalties }: &Penalties, now_ms: u64) -> String {
    if penalties.is_empty() {
        return "no penalties".to_owned();
    }
    let mut rows = vec![row(["hotkey", "reason", "ends", "detail"])];
    rows.extend(
        penalties.iter().map(|p| row([&p.hotkey.to_string(), &p.reason, &away(p.until_ms, now_ms), &p.detail])),
    );
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::PenaltyRecord;

    #[test]
    fn penalties_are_listed_with_their_ends() {
        let penalty = PenaltyRecord {
            hotkey: Hotkey([1; 32]),
            reason: "operator".into(),
            detail: "spam".into(),
            from_ms: 0,
            until_ms: 61_000,
        };
        let text = list_text(&Penalties { penalties: vec![penalty] }, 1_000);
        let (hotkey, rest) = text.lines().nth(1).unwrap().split_once("  ").unwrap();
        assert_eq!((hotkey, rest), (Hotkey([1; 32]).to_string().as_str(), "operator  in 1m  spam"));
        assert_eq!(list_text(&Penalties { penalties: Vec::new() }, 0), "no penalties");
    }
}
