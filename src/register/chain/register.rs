//! `register`: a uid for the wallet's hotkey, paid by its coldkey.
//!
//! Order: what can be checked without a key, the offer, the question, the coldkey's file and its password, the price once
//! more, the call. Whatever fails before the call has changed nothing; after the call has gone out, no answer means that
//! nothing is known, and the program says so.
//!
//! Design notes: the price is that of the last block; the chain takes the price of the block that holds the call, which
//! can be another. What is looked at last is never dearer than what was agreed to, and that is as close as it gets.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::time::Duration;

use serde::Serialize;
use tokio::task::spawn_blocking;

use super::super::text::{columns, row};
use super::super::{Context, complain, say};
use super::{Asked, Place, error_text, hotkey_or_own, money, own_coldkey, remedy};
use crate::chain::{ChainError, Hyperparameters, Metagraph};
use crate::exit::Exit;
use crate::ids::{BlockNumber, Coldkey, Hash32, Hotkey, Netuid, Uid};
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
    /// Refuse a price above this.
    #[arg(long, value_name = "TAO", value_parser = money::parse_tao)]
    max_cost: Option<u64>,
    /// Do not ask before paying.
    #[arg(long)]
    yes: bool,
}

/// What is printed at the end. The JSON form is stable.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    network: Place,
    netuid: Netuid,
    hotkey: Hotkey,
    coldkey: Coldkey,
    /// `already_registered`, `registered`, or `unknown`: the call went out and there was no answer.
    outcome: &'static str,
    /// `null` where the chain does not show it yet.
    uid: Option<Uid>,
    /// The block of the registration.
    block: Option<BlockNumber>,
    extrinsic: Option<Hash32>,
    /// The price when it was looked at last, in rao.
    cost_rao: u64,
    /// The coldkey's balance before, in rao.
    balance_rao: u64,
}

/// What the chain says before anything is asked.
struct Offer {
    hotkey: Hotkey,
    coldkey: Coldkey,
    netuid: Netuid,
    block: BlockNumber,
    taken: usize,
    slots: u16,
    cost_rao: u64,
    balance_rao: u64,
    registered: Option<(Uid, Coldkey, BlockNumber)>,
}

/// Why a registration is not tried.
#[derive(Debug, PartialEq, Eq)]
enum No {
    /// Netuid 0.
    Root,
    /// Above `--max-cost`.
    TooDear { cost_rao: u64, limit_rao: u64 },
    /// The balance is less than the price.
    TooPoor { balance_rao: u64, missing_rao: u64 },
    /// The price rose while the person thought.
    Dearer { cost_rao: u64, agreed_rao: u64 },
}

impl std::fmt::Display for No {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            No::Root => {
                f.write_str("the root network (netuid 0) has another way to register; name a subnet: --netuid N")
            }
            No::TooDear { cost_rao, limit_rao } => write!(
                f,
                "a registration costs {} now, more than --max-cost {}; wait until it falls, or raise the limit",
                money::amount(*cost_rao),
                money::tao(*limit_rao)
            ),
            No::TooPoor { balance_rao, missing_rao } => write!(
                f,
                "the coldkey has {}: {} are missing, and the fee",
                money::amount(*balance_rao),
                money::amount(*missing_rao)
            ),
            No::Dearer { cost_rao, agreed_rao } => write!(
                f,
                "the price rose to {}, above {}; nothing was sent, try again",
                money::amount(*cost_rao),
                money::amount(*agreed_rao)
            ),
        }
    }
}

impl Offer {
    fn new(who: (Hotkey, Coldkey), graph: &Metagraph, rules: &Hyperparameters, balance_rao: u64) -> Self {
        let (hotkey, coldkey) = who;
        Offer {
            hotkey,
            coldkey,
            netuid: graph.netuid,
            block: graph.head.number,
            taken: graph.neurons.len(),
            slots: rules.max_allowed_uids,
            cost_rao: rules.burn_rao,
            balance_rao,
            registered: graph.by_hotkey(&hotkey).map(|n| (n.uid, n.coldkey, n.registered_at)),
        }
    }

    /// What speaks against it. `agreed_rao`: the price that was agreed to, if one was.
    fn check(&self, max_cost: Option<u64>, agreed_rao: Option<u64>) -> Result<(), No> {
        let Offer { cost_rao, balance_rao, .. } = *self;
        if self.netuid.0 == 0 {
            return Err(No::Root);
        }
        if let Some(limit_rao) = max_cost.filter(|limit| cost_rao > *limit) {
            return Err(No::TooDear { cost_rao, limit_rao });
        }
        // Whoever names a limit agrees to every price below it.
        if let Some(agreed_rao) = agreed_rao.filter(|agreed| max_cost.is_none() && cost_rao > *agreed) {
            return Err(No::Dearer { cost_rao, agreed_rao });
        }
        match cost_rao.checked_sub(balance_rao) {
            Some(missing_rao) if missing_rao > 0 => Err(No::TooPoor { balance_rao, missing_rao }),
            _ => Ok(()),
        }
    }

    fn text(&self, network: &Place) -> String {
        let left = self.balance_rao.saturating_sub(self.cost_rao);
        let mut out = columns(&[
            row(["network", &network.to_string()]),
            row([
                "subnet",
                &format!("{}, {} of {} uids taken at block {}", self.netuid, self.taken, self.slots, self.block),
            ]),
            row(["hotkey", &self.hotkey.to_string()]),
            row(["coldkey", &self.coldkey.to_string()]),
            row(["balance", &money::amount(self.balance_rao)]),
            row(["cost", &format!("{}, burned", money::amount(self.cost_rao))]),
            row(["leaves", &format!("{}, less the fee", money::amount(left))]),
        ]);
        if self.taken >= usize::from(self.slots) {
            out.push_str(
                "every uid is taken: the lowest neuron out of its immunity period is replaced, or the chain refuses\n",
            );
        }
        out
    }

    /// What there is to say where nothing is to be done.
    fn already(&self, network: Place) -> Option<Report> {
        let (uid, coldkey, block) = self.registered?;
        let report = self.report(network, "already_registered");
        Some(Report { uid: Some(uid), block: Some(block), coldkey, ..report })
    }

    fn report(&self, network: Place, outcome: &'static str) -> Report {
        let Offer { hotkey, coldkey, netuid, cost_rao, balance_rao, .. } = *self;
        let (uid, block, extrinsic) = (None, None, None);
        Report { network, netuid, hotkey, coldkey, outcome, uid, block, extrinsic, cost_rao, balance_rao }
    }
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
    if !args.yes {
        agreed(&format!("Burn {} to register this hotkey in subnet {}?", money::amount(offer.cost_rao), offer.netuid))
            .await?;
    }
    let payer = coldkey_secret(context, &offer).await?;
    let last = look().await?;
    if let Some(report) = last.already(asked.place()) {
        return context.answer(&report, text);
    }
    last.check(args.max_cost, Some(offer.cost_rao)).map_err(refused)?;
    send(context, &asked, last, payer).await
}

/// Sends the call and says what became of it.
async fn send(context: &Context, asked: &Asked<'_>, offer: Offer, payer: Keypair) -> Result<(), Exit> {
    if !context.json {
        say("sent; waiting for a block");
    }
    let sent = asked.chain.register(offer.hotkey, &payer).await;
    drop(payer);
    match sent {
        Ok(inclusion) => {
            let uid = uid_of(asked, &offer.hotkey, inclusion.block).await;
            let report = offer.report(asked.place(), "registered");
            let report = Report { uid, block: Some(inclusion.block), extrinsic: Some(inclusion.extrinsic), ..report };
            context.answer(&report, text)
        }
        Err(error @ (ChainError::Deadline(_) | ChainError::Unreachable(_))) => {
            complain(&format!(
                "it is NOT known whether the registration went through; asked was {}: {}",
                asked.place(),
                error_text(&error)
            ));
            complain(&format!(
                "before trying again, look: compute-register metagraph --hotkey {}, compute-register balance",
                offer.hotkey
            ));
            if context.json {
                context.answer(&offer.report(asked.place(), "unknown"), text)?;
            }
            Err(Exit::Unavailable)
        }
        Err(error) => {
            complain(&format!("not registered; asked was {}: {}", asked.place(), error_text(&error)));
            let (exit, remedy) = remedy(&error);
            remedy.into_iter().for_each(complain);
            Err(exit)
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

fn text(report: &Report) -> String {
    let uid = report.uid.map_or_else(
        || format!("a uid that is not shown yet: compute-register metagraph --hotkey {}", report.hotkey),
        |uid| format!("uid {uid}"),
    );
    let block = report.block.map(|block| format!(", block {block}")).unwrap_or_default();
    let call = report.extrinsic.map(|hash| format!(", call 0x{hash}")).unwrap_or_default();
    match report.outcome {
        "already_registered" => format!(
            "already registered: hotkey {} has {uid} in subnet {}{block}\nits owner is coldkey {}; nothing was paid",
            report.hotkey, report.netuid, report.coldkey
        ),
        "registered" => format!("registered: {uid}{block}{call}"),
        _ => "unknown".to_owned(),
    }
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

    fn offer(netuid: u16, cost_rao: u64, balance_rao: u64) -> Offer {
        Offer {
            hotkey: Hotkey([1; 32]),
            coldkey: Coldkey([2; 32]),
            netuid: Netuid(netuid),
            block: 17,
            taken: 3,
            slots: 256,
            cost_rao,
            balance_rao,
            registered: None,
        }
    }

    #[test]
    fn what_speaks_against_a_registration_is_found_without_a_key() {
        let check = |cost, balance, limit, agreed| offer(27, cost, balance).check(limit, agreed);
        assert_eq!(offer(0, 1, 9).check(None, None), Err(No::Root));
        assert_eq!(check(5, 5, None, None), Ok(()));
        assert_eq!(check(5, 3, None, None), Err(No::TooPoor { balance_rao: 3, missing_rao: 2 }));
        assert_eq!(check(5, 9, Some(4), None), Err(No::TooDear { cost_rao: 5, limit_rao: 4 }));
        assert_eq!(check(5, 9, Some(5), None), Ok(()));
        // The price moved between the question and the call.
        assert_eq!(check(6, 9, None, Some(5)), Err(No::Dearer { cost_rao: 6, agreed_rao: 5 }));
        assert_eq!(check(6, 9, Some(7), Some(5)), Ok(()));
        assert_eq!(check(8, 9, Some(7), Some(5)), Err(No::TooDear { cost_rao: 8, limit_rao: 7 }));
        assert_eq!(check(4, 9, None, Some(5)), Ok(()));
    }

    #[test]
    fn an_offer_says_what_it_costs_and_what_it_leaves() {
        insta::assert_snapshot!(
            offer(27, 1_500_000_000, 10_000_000_001).text(&Place::new("ledger", "http://127.0.0.1:9950/"))
        );
        let full = Offer { slots: 3, ..offer(27, 1, 1) };
        let text = full.text(&Place::new("finney", "wss://entrypoint-finney.opentensor.ai:443"));
        assert!(text.contains("every uid is taken"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }

    #[test]
    fn only_a_clear_yes_is_one() {
        for yes in ["y\n", "Y", " yes \r\n", "YES\n"] {
            assert!(is_yes(yes), "{yes:?}");
        }
        for no in ["", "\n", "n\n", "no\n", "yep\n", "yes please\n", "1\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }

    #[test]
    fn the_json_of_a_registration_keeps_its_fields() {
        let report = Report {
            uid: Some(Uid(3)),
            block: Some(18),
            extrinsic: Some(Hash32([7; 32])),
            ..offer(27, 5, 9).report(Place::new("ledger", "http://127.0.0.1:9950/"), "registered")
        };
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
        insta::assert_snapshot!(text(&report), @"registered: uid 3, block 18, call 0x0707070707070707070707070707070707070707070707070707070707070707");
    }
}
