//! Which chain a node belongs to, and what follows from it: end point and subnet number.

use std::fmt;
use std::str::FromStr;

use reqwest::Url;

use super::problem::nearest;
use crate::ids::{Hash32, Netuid};

/// The first block of Bittensor's main network.
const FINNEY_GENESIS: Hash32 = Hash32([
    0x2f, 0x05, 0x55, 0xcc, 0x76, 0xfc, 0x28, 0x40, 0xa2, 0x5a, 0x6e, 0xa3, 0xb9, 0x63, 0x71, 0x46, 0x80, 0x6f, 0x1f,
    0x44, 0xb0, 0x90, 0xc1, 0x75, 0xff, 0xde, 0x2a, 0x7e, 0x5a, 0xb3, 0x6c, 0x03,
]);

/// The chain a node belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Bittensor's main network.
    Finney,
    /// Bittensor's test network.
    Test,
    /// A subtensor node on this machine.
    Local,
    /// The embedded ledger of a devnet, by the address of its RPC (HTTP on a loopback address).
    Ledger(Url),
}

/// Why a text names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct ParseNetworkError {
    /// What is wrong.
    pub reason: String,
    /// The network that was most likely meant.
    pub nearest: Option<String>,
}

impl Network {
    /// The subnet number that is taken when none is given: 27 on finney, 15 on test, 27 elsewhere.
    pub fn default_netuid(&self) -> Netuid {
        match self {
            Network::Test => Netuid(15),
            Network::Finney | Network::Local | Network::Ledger(_) => Netuid(27),
        }
    }

    /// The address that is dialled when `subtensor.chain_endpoint` is not given.
    pub fn default_endpoint(&self) -> String {
        match self {
            Network::Finney => "wss://entrypoint-finney.opentensor.ai:443".to_owned(),
            Network::Test => "wss://test.finney.opentensor.ai:443".to_owned(),
            Network::Local => "ws://127.0.0.1:9944".to_owned(),
            Network::Ledger(url) => url.to_string(),
        }
    }

    /// Further addresses of the same network, tried in turn when the first fails.
    pub fn fallback_endpoints(&self) -> &'static [&'static str] {
        match self {
            Network::Finney => &["wss://lite.chain.opentensor.ai:443", "wss://lite.sub.latent.to:443"],
            Network::Test | Network::Local | Network::Ledger(_) => &[],
        }
    }

    /// The hash of the network's first block, where it is known: a node follows no other chain under that name.
    pub fn genesis(&self) -> Option<Hash32> {
        matches!(self, Network::Finney).then_some(FINNEY_GENESIS)
    }

    /// The first blocks of networks that this must not be.
    pub fn never(&self) -> Vec<Hash32> {
        match self {
            Network::Finney => Vec::new(),
            Network::Test | Network::Local | Network::Ledger(_) => vec![FINNEY_GENESIS],
        }
    }

    /// Whether a devnet's tables have a meaning there: on chains that pay nobody.
    pub fn may_prove_cpus(&self) -> bool {
        matches!(self, Network::Local | Network::Ledger(_))
    }

    /// Whether this is the devnet's embedded ledger.
    pub fn is_ledger(&self) -> bool {
        matches!(self, Network::Ledger(_))
    }

    /// A ledger whose address is not known yet: the devnet puts the real one in once it has started it.
    pub(crate) const LEDGER_TO_COME: &str = "ledger=http://127.0.0.1/";
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Network::Finney => f.write_str("finney"),
            Network::Test => f.write_str("test"),
            Network::Local => f.write_str("local"),
            Network::Ledger(url) => write!(f, "ledger={url}"),
        }
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;
    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let wrong = |reason: String| ParseNetworkError { reason, nearest: None };
        if let Some(address) = text.strip_prefix("ledger=") {
            let url: Url = address.parse().map_err(|e| wrong(format!("{address:?} is not an address ({e})")))?;
            if url.scheme() != "http" {
                return Err(wrong(format!("the ledger speaks http, not {}", url.scheme())));
            }
            let loopback = url.host_str().is_some_and(|host| {
                let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
                host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
            });
            if !loopback {
                return Err(wrong("the ledger is only served on a loopback address (127.0.0.0/8, [::1])".to_owned()));
            }
            return Ok(Network::Ledger(url));
        }
        match text {
            "finney" => Ok(Network::Finney),
            "test" => Ok(Network::Test),
            "local" => Ok(Network::Local),
            "ledger" => Err(wrong("the ledger needs its address: ledger=http://127.0.0.1:PORT".to_owned())),
            other => Err(ParseNetworkError {
                reason: format!(
                    "no network is called {other:?}; known are finney, test, local and ledger=http://127.0.0.1:PORT"
                ),
                nearest: nearest(other, ["finney", "test", "local"]),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_read_back_what_they_print_and_know_their_subnet() {
        for (text, netuid) in [("finney", 27), ("test", 15), ("local", 27), ("ledger=http://127.0.0.1:9950/", 27)] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), text);
            assert_eq!(network.default_netuid(), Netuid(netuid));
        }
    }

    #[test]
    fn a_ledger_away_from_this_machine_is_refused() {
        for text in ["ledger=http://192.0.2.1:80", "ledger=https://127.0.0.1:80", "ledger=:", "ledger"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
        assert!("ledger=http://[::1]:80".parse::<Network>().is_ok());
    }

    #[test]
    fn a_misspelt_network_names_the_nearest() {
        assert_eq!("fineny".parse::<Network>().unwrap_err().nearest.as_deref(), Some("finney"));
    }
}
