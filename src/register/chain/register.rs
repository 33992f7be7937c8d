//! `register`: a uid for the wallet's hotkey, paid by its coldkey.
//!
//! Order: what can be checked without a key, the offer, the question, the coldkey's file and its password, the price once
//! more, the call. Whatever fails before the call has changed nothing; after the call has gone out, no answer means that
//! nothing is known, and the program says so.
//!
//! Design notes: the price is that of the last block; the chain takes the price of the block that holds the call, which
//! can be another. So the call carries what was agreed to, and the chain refuses a higher price; where the chain has no such
//! call, the price is looked at right before the call is sent, and that is as close as it gets.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::super::{Context, complain, say};
use super::offer::{No, Offer, text};
use super::{Asked, error_text, hotkey_or_own, money, own_coldkey, remedy};
use crate::exit::Exit;
use crate::ids::{BlockNumber, Hotkey, Uid};
use crate::telemetry::error_chain;
use crate::wallet::password::Sources;
use crate::wallet::{Keypair, unlock};

/// How long the new uid is looked for after the block, and how often.
const LOOK_FOR: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);
/// The longest answer to the question that is read, in bytes.
const MAX_ANSWER: u64 = 64;

#[derive(Debug, clap::Args)]
pub(in crate::register) struct Args {
    /// The hotkey to register, as an SS58 address; by default the wallet's. Its secret is not needed.
    #[arg(long, value_name = "SS58")]
    hotkey: Option<String>,
    /// The most it may cost; by default what is shown when you are asked.
    #[arg(long, value_name = "TAO", value_parser = money::parse_tao)]
    max_cost: Option<u64>,
    /// Do not ask before paying.
    #[arg(long)]
    yes: bool,
}

pub(in crate::register) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let hotkey = hotkey_or_own(context, args.hotkey.as_deref())?;
    let coldkey = own_coldkey(context, "")?;
    let asked = Asked::new(context)?;
    let look = async || {
        let failed = |e| asked.failed("nothing was done; the chain does not tell what is needed", &e);
        let graph = asked.chain.metagraph().await.map_err(failed)?;
        let rules = asked.chain.hyperparameters().await.map_err(failed)?;
        let balance = asked.chain.balance(&coldkey).await.map_err(failed)?;
        Ok::<_, Exit>(Offer::new((hotkey, coldkey), &graph, &rules, balance))
    };
    let offer = look().await?;
    if let Some(report) = offer.already(asked.place()) {
        return context.answer(&report, text);
    }
    let refused = |no: No| {
        complain(&no.to_string());
        Exit::Data
    };
    let told = offer.text(&asked.place());
    if context.json {
        complain(told.trim_end())
    } else {
        say(told.trim_end())
    }
    offer.check(args.max_cost, None).map_err(refused)?;
    secret_is_there(context)?;
    let limit_rao = offer.limit(args.max_cost);
    if !args.yes {
        agreed(&offer.question(limit_rao)).await?;
    }
    let payer = coldkey_secret(context, &offer).await?;
    let last = look().await?;
    if let Some(report) = last.already(asked.place()) {
        return context.answer(&report, text);
    }
    last.check(args.max_cost, Some(offer.cost_rao)).map_err(refused)?;
    send(context, &asked, last, limit_rao, payer).await
}

/// Sends the call and says what became of it.
async fn send(context: &Context, asked: &Asked<'_>, offer: Offer, limit_rao: u64, payer: Keypair) -> Result<(), Exit> {
    if !context.json {
        say("sent; waiting for a block");
    }
    let sent = asked.chain.register_within(offer.hotkey, limit_rao, &payer).await;
    drop(payer);
    match sent {
        Ok(inclusion) => {
            let uid = uid_of(asked, &offer.hotkey, inclusion.block).await;
            context.answer(&offer.registered(asked.place(), inclusion, uid), text)
        }
        Err(error) if !error.is_unclear() => Err(asked.failed("not registered", &error)),
        // The call may still get into a block.
        Err(error) => {
            let problem = error_text(&error);
            complain(&format!(
                "it is NOT known whether the registration went through; asked was {}: {problem}",
                asked.place()
            ));
            complain(&format!(
                "before trying again, look: compute-register metagraph --hotkey {}, compute-register balance",
                offer.hotkey
            ));
            if context.json {
                context.answer(&offer.unknown(asked.place()), text)?;
            }
            Err(remedy(&error).0)
        }
    }
}

/// The uid of the hotkey, once the chain shows a block that is not older than `block`.
async fn uid_of(asked: &Asked<'_>, hotkey: &Hotkey, block: BlockNumber) -> Option<Uid> {
    let look = async {
        loop {
            // Reads may lag; one that fails is no reason to call a registration failed.
            if let Ok(graph) = asked.chain.metagraph().await
                && graph.head.number >= block
                && let Some(neuron) = graph.by_hotkey(hotkey)
            {
                return neuron.uid;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(LOOK_FOR, look).await.ok()
}

/// Whether the coldkey's file lies where it is looked for. It is not opened.
fn secret_is_there(context: &Context) -> Result<(), Exit> {
    let file = context.settings.wallet.coldkey_file();
    match file.symlink_metadata() {
        Ok(_) => Ok(()),
        Err(error) => {
            complain(&format!("the coldkey pays and signs, and its secret is not here: {}: {error}", file.display()));
            complain(
                "run this where the coldkey is; the hotkey's secret is not needed there, its address is enough: --hotkey SS58",
            );
            Err(Exit::Data)
        }
    }
}

/// Asks at the terminal. The wait is as long as the person takes: nothing has begun.
async fn agreed(question: &str) -> Result<(), Exit> {
    if !io::stdin().is_terminal() {
        complain(
            "nothing was done: there is no terminal to ask at, and this costs money; say --yes, best with --max-cost",
        );
        return Err(Exit::Usage);
    }
    let question = format!("{question} [y/N] ");
    // A thread of its own: the connection to the chain goes on meanwhile.
    let answer = spawn_blocking(move || {
        let mut told = io::stderr().lock();
        told.write_all(question.as_bytes())?;
        told.flush()?;
        let mut line = String::new();
        io::stdin().lock().take(MAX_ANSWER).read_line(&mut line)?;
        Ok::<_, io::Error>(line)
    });
    let yes = match answer.await {
        Ok(Ok(line)) => is_yes(&line),
        Ok(Err(error)) => {
            complain(&format!("the answer cannot be read: {error}"));
            false
        }
        Err(_) => false,
    };
    if yes {
        return Ok(());
    }
    complain("nothing was done");
    Err(Exit::Data)
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// Opens the coldkey, with a password if it takes one. It must be the one whose balance was shown.
async fn coldkey_secret(context: &Context, offer: &Offer) -> Result<Keypair, Exit> {
    let file = context.settings.wallet.coldkey_file();
    let path = file.clone();
    let opened = spawn_blocking(move || {
        unlock::load(&path, &Sources::of_coldkey(), |sealed, source| {
            complain(&format!("decrypting with the password from {source}: {}", sealed.cost()));
        })
    });
    let wrong = |problem: String| {
        complain(&format!("nothing was sent; the coldkey cannot be used: {problem}"));
        Exit::Data
    };
    let loaded = opened.await.map_err(|_| wrong("its decryption broke off".to_owned()))?;
    let loaded = loaded.map_err(|error| wrong(error_chain(&error)))?;
    for warning in loaded.warnings {
        complain(&format!("{}: {warning}", file.display()));
    }
    let own = loaded.keypair.hotkey();
    if own.0 != offer.coldkey.0 {
        return Err(wrong(format!("{} is the secret of {own}, not of {}", file.display(), offer.coldkey)));
    }
    Ok(loaded.keypair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for yes in ["y\n", "Y", " yes \r\n", "YES\n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "no\n", "yep\n", "yes please\n", "1\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
