//! What tenants may reach: everything public but mail servers, and nothing of the host, of private networks, of cloud metadata,
//! or of another lease (`rules`).
//!
//! Each lease has a network of its own, a bridge whose name we choose ([`Bridge`]); rules go by that name. They stand in a table
//! of `nft` that carries the miner's short name, or, where `nft` does not work, in chains of `iptables`, hooked into `DOCKER-USER`.
//! Each is replaced as a whole in one transaction, so that no crash leaves half of it.
//!
//! **Invariants.** What is written is read back, and an answer of `Ok` means that it was found. A call repeated changes nothing.
//! Rules of a bridge that is gone match nothing. Where no lease is left, no rule is left. Rules of others are never touched.
//!
//! A service that flushes all rules (`nft flush ruleset`, a restart of `nftables.service`) takes ours with it: whoever
//! keeps leases calls [`Firewall::ensure`] for all of them from time to time, and counts what [`Inspection::missing`] names.

mod iptables;
mod nft;
mod rules;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, LazyLock, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;

use super::command::CommandError;
use crate::ids::{Hotkey, LeaseId};

/// How long one program may take.
const LIMIT: Duration = Duration::from_secs(15);

/// What a bridge's name is made of, all that fits into an interface's name beside `cs`: 13 letters of 5 bits.
const LETTERS: usize = 13;
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BRIDGE_CONTEXT: &str = "compute-subnet/1 name of a lease's bridge";

/// The name of a lease's bridge: `cs` and 13 letters or digits of a hash, so that no other interface has it. Renters choose the names of
/// their leases, so the whole of a lease's name counts: nobody finds one whose bridge is another's. Those that an older version
/// made have `cs` and eight hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bridge(String);

impl Bridge {
    /// The bridge of this lease's container of this fencing epoch, as it is made now.
    pub fn of(lease: LeaseId, fencing_epoch: u64) -> Bridge {
        let mut hasher = blake3::Hasher::new_derive_key(BRIDGE_CONTEXT);
        hasher.update(&lease.0);
        hasher.update(&fencing_epoch.to_le_bytes());
        let digest = *hasher.finalize().as_bytes();
        let letters = digest.iter().take(LETTERS).map(|byte| char::from(ALPHABET[usize::from(byte & 31)]));
        Bridge(std::iter::once("cs".to_owned()).chain(letters.map(String::from)).collect())
    }
    /// As the kernel knows it.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Bridge {
    type Err = FirewallError;
    fn from_str(text: &str) -> Result<Self, FirewallError> {
        let is_one = |rest: &str| match rest.len() {
            LETTERS => rest.bytes().all(|b| ALPHABET.contains(&b)),
            8 => rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
            _ => false,
        };
        match text.strip_prefix("cs").is_some_and(is_one) {
            true => Ok(Bridge(text.to_owned())),
            false => Err(FirewallError::NotABridge(text.chars().take(32).collect())),
        }
    }
}

/// Why tenants' traffic is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum FirewallError {
    /// Neither program works here.
    #[error("neither nft nor iptables can hold rules here ({nft}; {iptables}): install nftables and run as root")]
    Unavailable {
        /// What is wrong with the first.
        nft: String,
        /// What is wrong with the second.
        iptables: String,
    },
    /// A program did not do it; the rules are as before.
    #[error("changing the rules for tenants")]
    Command(#[from] CommandError),
    /// The rules were written, and are not there.
    #[error("the rules were written, but {0} cannot be found in them: does another service change them?")]
    NotThere(String),
    /// No name of a lease's bridge.
    #[error("'{0}' is no bridge of a lease: cs and 13 letters or digits, or eight hexadecimal digits")]
    NotABridge(String),
}

/// What holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// A table of nftables.
    Nft,
    /// Chains of iptables; `v6`: ip6tables too, which a machine without IPv6 does not need.
    Iptables {
        /// Whether IPv6 has rules.
        v6: bool,
    },
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Backend::Nft => "nftables",
            Backend::Iptables { v6: true } => "iptables and ip6tables",
            Backend::Iptables { v6: false } => "iptables (this machine has no IPv6)",
        })
    }
}

/// What stands in the kernel's tables now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// The bridges that the rules are for, sorted.
    pub bridges: Vec<Bridge>,
    /// Rules and hooks that should be there, and are not; all of them where there is no lease.
    pub missing: Vec<String>,
}

impl Inspection {
    /// Whether there are rules for this bridge, and all of them.
    pub fn holds(&self, bridge: &Bridge) -> bool {
        self.missing.is_empty() && self.bridges.contains(bridge)
    }
}

/// The rules of one miner's tenants.
#[derive(Debug)]
pub struct Firewall {
    /// The miner's short name, which tells its rules from another's on the same machine.
    short: String,
    resolvers: Vec<IpAddr>,
    backend: Backend,
    /// Reading and replacing are two steps.
    one_at_a_time: Arc<Mutex<()>>,
}

/// The turns of each miner's rules in this process, by its short name. No other process is this miner.
static TURNS: LazyLock<StdMutex<BTreeMap<String, Arc<Mutex<()>>>>> = LazyLock::new(StdMutex::default);

impl Firewall {
    /// Finds out what can hold rules here, without changing any. `resolvers`: the name servers that tenants ask, which are let
    /// through at port 53 also where they have a closed address.
    ///
    /// # Errors
    /// [`FirewallError::Unavailable`].
    pub async fn detect(miner: Hotkey, resolvers: Vec<IpAddr>) -> Result<Firewall, FirewallError> {
        let short = hex::encode(&miner.0[..4]);
        let backend = match nft::works(&short, &resolvers).await {
            Ok(()) => Backend::Nft,
            Err(nft) => match iptables::works().await {
                Ok(v6) => Backend::Iptables { v6 },
                Err(iptables) => {
                    let [nft, iptables] = [nft, iptables].map(|error| crate::telemetry::error_chain(&error));
                    return Err(FirewallError::Unavailable { nft, iptables });
                }
            },
        };
        Ok(Firewall::with(miner, resolvers, backend))
    }

    /// One that uses this backend, whether it works or not.
    pub fn with(miner: Hotkey, resolvers: Vec<IpAddr>, backend: Backend) -> Firewall {
        let short = hex::encode(&miner.0[..4]);
        let mut turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let one_at_a_time = turns.entry(short.clone()).or_default().clone();
        Firewall { short, resolvers, backend, one_at_a_time }
    }

    /// What holds the rules.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// Sees to it that there are rules for these bridges, beside those there are; the bridges need not exist yet.
    ///
    /// # Errors
    /// See [`FirewallError`]. The rules are as before, or complete; only after [`FirewallError::NotThere`] nobody knows.
    pub async fn ensure(&self, bridges: &[Bridge]) -> Result<(), FirewallError> {
        let _turn = self.one_at_a_time.lock().await;
        let now = self.read().await?;
        if now.missing.is_empty() && bridges.iter().all(|bridge| now.bridges.contains(bridge)) {
            return Ok(());
        }
        let mut wanted: Vec<Bridge> = now.bridges.into_iter().chain(bridges.iter().cloned()).collect();
        wanted.sort();
        wanted.dedup();
        self.replace(&wanted).await
    }

    /// Takes the rules of this bridge away, and everything with the last.
    ///
    /// # Errors
    /// See [`Firewall::ensure`].
    pub async fn remove(&self, bridge: &Bridge) -> Result<(), FirewallError> {
        let _turn = self.one_at_a_time.lock().await;
        let now = self.read().await?;
        if !now.bridges.contains(bridge) {
            return Ok(());
        }
        let wanted: Vec<Bridge> = now.bridges.into_iter().filter(|other| other != bridge).collect();
        self.replace(&wanted).await
    }

    /// Takes the rules of all bridges away that are not among these: those of leases that are no more.
    ///
    /// # Errors
    /// See [`Firewall::ensure`].
    pub async fn retain(&self, bridges: &[Bridge]) -> Result<(), FirewallError> {
        let _turn = self.one_at_a_time.lock().await;
        let now = self.read().await?;
        let wanted: Vec<Bridge> = now.bridges.iter().filter(|bridge| bridges.contains(bridge)).cloned().collect();
        match wanted == now.bridges {
            true => Ok(()),
            false => self.replace(&wanted).await,
        }
    }

    /// Takes all rules of this miner away.
    ///
    /// # Errors
    /// See [`FirewallError`].
    pub async fn remove_all(&self) -> Result<(), FirewallError> {
        let _turn = self.one_at_a_time.lock().await;
        self.replace(&[]).await
    }

    /// What stands there now.
    ///
    /// # Errors
    /// [`FirewallError::Command`].
    pub async fn inspect(&self) -> Result<Inspection, FirewallError> {
        let _turn = self.one_at_a_time.lock().await;
        self.read().await
    }

    async fn read(&self) -> Result<Inspection, FirewallError> {
        Ok(match self.backend {
            Backend::Nft => nft::read(&self.short, &self.resolvers).await?,
            Backend::Iptables { v6 } => iptables::read(&self.short, &self.resolvers, v6).await?,
        })
    }

    async fn replace(&self, bridges: &[Bridge]) -> Result<(), FirewallError> {
        match self.backend {
            Backend::Nft => nft::replace(&self.short, bridges, &self.resolvers).await?,
            Backend::Iptables { v6 } => iptables::replace(&self.short, bridges, &self.resolvers, v6).await?,
        }
        if bridges.is_empty() {
            return Ok(());
        }
        let found = self.read().await?;
        if let Some(missing) = found.missing.first() {
            return Err(FirewallError::NotThere(missing.clone()));
        }
        match bridges.iter().find(|bridge| !found.bridges.contains(bridge)) {
            Some(missing) => Err(FirewallError::NotThere(missing.to_string())),
            None => Ok(()),
        }
    }
}

/// The name servers that a file like `/etc/resolv.conf` names and that a tenant can reach: those on loopback are this machine's
/// alone. For `systemd-resolved` read `/run/systemd/resolve/resolv.conf`, which has those behind it.
pub fn resolvers(resolv_conf: &str) -> Vec<IpAddr> {
    let named = |line: &str| line.trim().strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
    let mut found: Vec<IpAddr> = resolv_conf.lines().filter_map(named).filter(|ip| !ip.is_loopback()).collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lease_s_own_bridge_is_ever_named_in_a_rule() {
        let bridge = Bridge::of(LeaseId([0xab; 16]), 1);
        assert_eq!(bridge.name().len(), 15, "the kernel takes 15 characters: {bridge}");
        assert_eq!(bridge.name().parse::<Bridge>().unwrap(), bridge);
        assert!("csabababab".parse::<Bridge>().is_ok(), "an older version's");
        let wrong = [
            "docker0",
            "cs",
            "csABABABAB",
            "csabababab0",
            "cs\" } drop",
            "csabababa\n",
            "br-0123456789ab",
            "csabcdefghijkl1",
            "csabcdefghijkl\n",
        ];
        for wrong in wrong {
            assert!(wrong.parse::<Bridge>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_lease_named_after_another_has_a_bridge_of_its_own() {
        let mut alike = [0xab; 16];
        alike[15] = 0;
        let bridges =
            [Bridge::of(LeaseId([0xab; 16]), 1), Bridge::of(LeaseId([0xab; 16]), 2), Bridge::of(LeaseId(alike), 1)];
        let different: std::collections::BTreeSet<&Bridge> = bridges.iter().collect();
        assert_eq!(different.len(), bridges.len(), "{bridges:?}");
    }

    #[test]
    fn resolvers_that_only_the_host_reaches_are_left_out() {
        let text = "# made by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nsearch x.y\nnameserver\t2001:db8::1\nnameserver evil\n";
        assert_eq!(resolvers(text), ["10.0.0.2", "2001:db8::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    }
}
