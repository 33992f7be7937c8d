//! Commands that ask the chain: `metagraph`, `hyperparameters`, `balance`, `weights`, `register`.
//!
//! Invariants:
//! - What is only read needs no key: the client is bound to an address that cannot sign ([`AddressOnly`]).
//! - A secret is opened in two places, `register` (the coldkey) and `weights set` (the hotkey), each after everything that
//!   can be checked without it.
//! - What is unknown is said to be unknown, with the command that finds out.
//!
//! One file for each command; `money` has TAO as text, `objections` what the chain would refuse of weights, `input` how
//! weights are given.

mod balance;
mod input;
mod metagraph;
mod money;
mod objections;
mod offer;
mod register;
mod rules;
mod set_weights;
mod weights;

use std::ffi::OsStr;
use std::sync::Arc;

use serde::Serialize;

pub(super) use self::balance::{Args as BalanceArgs, run as balance};
pub(super) use self::metagraph::{Args as MetagraphArgs, run as metagraph};
pub(super) use self::register::{Args as RegisterArgs, run as register};
pub(super) use self::rules::run as hyperparameters;
pub(super) use self::weights::{Args as WeightsArgs, run as weights};
use super::{Context, complain, parse};
use crate::chain::{Chain, ChainError, Rejection, Signer};
use crate::exit::Exit;
use crate::ids::{Coldkey, Hotkey};
use crate::launch;
use crate::settings::{Level, Network};
use crate::telemetry::logging::{self, LogGuard, LogOptions};
use crate::telemetry::{error_chain, printable, redact_endpoint};
use crate::wallet::{Keypair, keyfile, listing};

/// An address in the place of a key, for a client that only reads. What it "signs" carries zeros, which no chain accepts.
struct AddressOnly(Hotkey);

impl Signer for AddressOnly {
    fn hotkey(&self) -> Hotkey {
        self.0
    }
    fn sign(&self, _: &[u8]) -> [u8; 64] {
        [0; 64]
    }
}

/// A chain as one command asks it.
struct Asked<'a> {
    context: &'a Context,
    chain: Arc<dyn Chain>,
    /// Whether its calls carry a signature that holds.
    has_key: bool,
    _logs: Arc<LogGuard>,
}

impl<'a> Asked<'a> {
    /// Bound to nobody.
    fn new(context: &'a Context) -> Result<Self, Exit> {
        Self::of(context, Hotkey([0; 32]))
    }

    /// Bound to the neuron with this hotkey, whose weights are read.
    fn of(context: &'a Context, hotkey: Hotkey) -> Result<Self, Exit> {
        // The client's own words, which programs of nodes have in their logs, are told here too.
        let info = context.settings.logging.level() == Level::Info;
        let options = LogOptions {
            level: context.settings.logging.level().into(),
            filter: info.then(|| "warn".to_owned()),
            ..LogOptions::default()
        };
        let logs = logging::init(&options).map_err(|error| {
            complain(&error_chain(&error));
            Exit::Unavailable
        })?;
        let chain = launch::chain::client(&context.settings, Arc::new(AddressOnly(hotkey)))?;
        Ok(Asked { context, chain, has_key: false, _logs: Arc::new(logs) })
    }

    /// The same chain, bound to the neuron with another hotkey.
    fn with_address(&self, hotkey: Hotkey) -> Result<Self, Exit> {
        self.bound(Arc::new(AddressOnly(hotkey)), false)
    }

    /// The same chain, bound to a key that signs.
    fn with(&self, key: Arc<Keypair>) -> Result<Self, Exit> {
        self.bound(key, true)
    }

    fn bound(&self, signer: Arc<dyn Signer>, has_key: bool) -> Result<Self, Exit> {
        let chain = launch::chain::client(&self.context.settings, signer)?;
        Ok(Asked { context: self.context, chain, has_key, _logs: self._logs.clone() })
    }

    /// Which chain this is.
    fn place(&self) -> Place {
        let subtensor = &self.context.settings.subtensor;
        let network = match &subtensor.network {
            Network::Ledger(_) => "ledger".to_owned(),
            network => network.to_string(),
        };
        Place::new(&network, &subtensor.endpoint())
    }

    /// Says that `what` could not be read, or why it failed, with what helps; and how to end.
    fn failed(&self, what: &str, error: &ChainError) -> Exit {
        complain(&format!("{what}; asked was {}: {}", self.place(), error_text(error)));
        let (exit, remedy) = remedy(error);
        if let Some(remedy) = remedy {
            complain(remedy);
        }
        exit
    }
}

/// Which chain is asked: the network's name, and the address that is dialled without what may be secret in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Place {
    network: String,
    endpoint: String,
}

impl Place {
    fn new(network: &str, endpoint: &str) -> Self {
        Place { network: network.to_owned(), endpoint: redact_endpoint(endpoint) }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.network, self.endpoint)
    }
}

/// An error's text on one line. Where it names an address, that may hold what is secret.
fn error_text(error: &ChainError) -> String {
    let text = error_chain(error);
    let words = text.split_whitespace().map(|word| if word.contains("://") { redact(word) } else { word.to_owned() });
    printable(&words.collect::<Vec<_>>().join(" "), MAX_ERROR)
}

/// The longest text of an error that is shown, in bytes.
const MAX_ERROR: usize = 1000;

/// A word that holds an address, with only what may be shown of it.
fn redact(word: &str) -> String {
    let start = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(0);
    let end = word.rfind(|c: char| c.is_ascii_alphanumeric() || c == '/').map_or(word.len(), |at| at + 1);
    match (word.get(..start), word.get(start..end), word.get(end..)) {
        (Some(before), Some(url), Some(after)) => format!("{before}{}{after}", redact_endpoint(url)),
        _ => "[REDACTED]".to_owned(),
    }
}

/// How to end, and what helps.
fn remedy(error: &ChainError) -> (Exit, Option<&'static str>) {
    match error {
        ChainError::Unsent { .. } => (Exit::Unavailable, Some("the chain has not got it: try again")),
        ChainError::Unreachable(_) => (
            Exit::Unavailable,
            Some("does it run, and is the address right? --subtensor.network, --subtensor.chain_endpoint"),
        ),
        ChainError::Deadline(_) => (
            Exit::Unavailable,
            Some(
                "ask again, or wait longer: compute-register --set subtensor.request_timeout=60s (calls: weights.confirm_timeout)",
            ),
        ),
        ChainError::Upgrading(_) => (Exit::Unavailable, Some("ask again in a minute, once the upgrade is through")),
        ChainError::Rejected(Rejection::SubnetNotExists) => (Exit::Data, Some("name the subnet: --netuid N")),
        ChainError::Rejected(_) | ChainError::Refused(_) => (Exit::Data, None),
        ChainError::Protocol(_) => (
            Exit::Data,
            Some("check --netuid and --subtensor.network, and that this program is not older than the chain"),
        ),
    }
}

/// The address of the wallet's hotkey, told without any password.
fn own_hotkey(context: &Context) -> Result<Hotkey, Exit> {
    let settings = &context.settings.wallet;
    let wallet = listing::show(&settings.path, OsStr::new(&settings.name));
    let file = settings.hotkey_file();
    let found = match wallet {
        Err(why) => Err(format!("no wallet {:?} in {}: {why}", settings.name, settings.path.display())),
        Ok(wallet) => match wallet.hotkeys.into_iter().find(|key| key.name == settings.hotkey) {
            None => Err(format!("wallet {:?} has no hotkey {:?}", settings.name, settings.hotkey)),
            Some(key) => key.address.ok_or_else(|| match key.problem {
                Some(problem) => format!("{} cannot be used: {problem}", file.display()),
                None => {
                    format!("{} is encrypted, and no {}pub.txt beside it tells its address", file.display(), key.name)
                }
            }),
        },
    };
    found.map_err(|problem| {
        complain(&problem);
        complain("name the address: --hotkey SS58; or the wallet: --wallet.name, --wallet.hotkey, --wallet.path (compute-register wallet lists them)");
        Exit::Data
    })
}

/// The hotkey of `--hotkey`, or the wallet's.
fn hotkey_or_own(context: &Context, given: Option<&str>) -> Result<Hotkey, Exit> {
    given.map_or_else(|| own_hotkey(context), |text| parse(text, "hotkey"))
}

/// The address of the wallet's coldkey, from `coldkeypub.txt` alone.
fn own_coldkey(context: &Context, instead: &str) -> Result<Coldkey, Exit> {
    keyfile::load_coldkeypub(&context.settings.wallet.coldkeypub_file()).map_err(|error| {
        complain(&format!("the coldkey's address cannot be read: {}", error_chain(&error)));
        complain(&format!("{instead}name the wallet: --wallet.name NAME, --wallet.path DIR"));
        Exit::Data
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_error_repeats_of_the_address_holds_no_secret() {
        let error =
            ChainError::Unreachable("error sending request for url (wss://me:pass@host:1/path?key=1): refused".into());
        let text = error_text(&error);
        assert!(text.contains("(wss://host:1)") && text.ends_with("refused"), "{text}");
        assert!(!text.contains("pass") && !text.contains("path") && !text.contains("key=1"), "{text}");
    }

    #[test]
    fn a_chain_that_is_away_ends_otherwise_than_one_that_refuses() {
        let ends = |error: ChainError| remedy(&error).0;
        assert_eq!(ends(ChainError::Unreachable(String::new())), Exit::Unavailable);
        assert_eq!(ends(ChainError::Deadline(std::time::Duration::ZERO)), Exit::Unavailable);
        assert_eq!(ends(ChainError::Deadline(std::time::Duration::ZERO).unsent()), Exit::Unavailable);
        assert_eq!(ends(ChainError::Upgrading(String::new())), Exit::Unavailable);
        assert_eq!(ends(Rejection::SubnetNotExists.into()), Exit::Data);
        assert_eq!(ends(ChainError::Protocol(String::new())), Exit::Data);
    }
}
