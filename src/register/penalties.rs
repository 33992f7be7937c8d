//! Commands about penalties.

use std::time::Duration;

use clap::Subcommand;

use super::text::{away, columns, now_ms, row};
use super::{Context, failed, parse};
use crate::admission::Subject;
use crate::exit::Exit;
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
    /// Refuse a hotkey or an address for a while.
    Add {
        /// Whom: an SS58 address, or an IP address. An IPv6 address stands for its /64.
        subject: String,
        /// Why; anybody may read it.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For how long: "90s", "6h", "2days".
        #[arg(long = "for", value_name = "TIME", value_parser = duration::parse)]
        lasting: Duration,
    },
    /// End every penalty of a hotkey or an address.
    Lift {
        /// Whose: an SS58 address, or an IP address.
        subject: String,
    },
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let client = &context.client;
    match args.command.unwrap_or(Command::List) {
        Command::List => {
            let penalties = client.penalties().await.map_err(|e| failed(&e))?;
            context.answer(&penalties, |penalties| list_text(penalties, now_ms()))
        }
        Command::Add { subject, reason, lasting } => {
            let wish = PenaltyWish { subject: parse(&subject, "peer")?, reason, duration_s: lasting.as_secs() };
            let penalties = client.penalise(&wish).await.map_err(|e| failed(&e))?;
            context.answer(&penalties, |penalties| list_text(penalties, now_ms()))
        }
        Command::Lift { subject } => {
            let subject: Subject = parse(&subject, "peer")?;
            let lifted = client.lift(subject).await.map_err(|e| failed(&e))?;
            context.answer(&lifted, |Lifted { lifted }| match lifted {
                true => format!("{subject} has no penalty any more"),
                false => format!("{subject} had no penalty"),
            })
        }
    }
}

fn list_text(Penalties { penalties }: &Penalties, now_ms: u64) -> String {
    if penalties.is_empty() {
        return "no penalties".to_owned();
    }
    let mut rows = vec![row(["peer", "reason", "ends", "detail"])];
    rows.extend(
        penalties.iter().map(|p| row([&p.subject.to_string(), &p.reason, &away(p.until_ms, now_ms), &p.detail])),
    );
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Hotkey;
    use crate::store::records::PenaltyRecord;

    #[test]
    fn penalties_are_listed_with_their_ends() {
        let penalty = PenaltyRecord {
            subject: Hotkey([1; 32]).into(),
            reason: "operator".into(),
            detail: "spam".into(),
            from_ms: 0,
            until_ms: 61_000,
        };
        let text = list_text(&Penalties { penalties: vec![penalty] }, 1_000);
        let (hotkey, rest) = text.lines().nth(1).unwrap().split_once("  ").unwrap();
        assert_eq!((hotkey, rest), (Hotkey([1; 32]).to_string().as_str(), "operator  in 1m  spam"));
        assert_eq!(list_text(&Penalties { penalties: Vec::new() }, 0), "no penalties");
        let address = PenaltyRecord {
            subject: "203.0.113.9".parse().unwrap(),
            reason: "replays".into(),
            detail: "more than 20".into(),
            from_ms: 0,
            until_ms: 61_000,
        };
        let text = list_text(&Penalties { penalties: vec![address] }, 1_000);
        assert_eq!(text.lines().nth(1), Some("203.0.113.9  replays  in 1m  more than 20"));
    }
}
