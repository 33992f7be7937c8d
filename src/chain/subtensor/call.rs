//! The calls that a node signs, with the chain's names of them and of their arguments.
//!
//! All are free of charge and signed by the hotkey, but the registrations, which the coldkey pays and signs.

use std::net::IpAddr;

use subxt::dynamic::Value;

use crate::chain::ledger::chain_ip;
use crate::ids::{Hash32, Hotkey, Netuid, Uid};

/// A call of the pallet of subnets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Publishes where the axon listens.
    ServeAxon {
        /// The subnet.
        netuid: Netuid,
        /// Free; 183 for the compute subnet.
        version: u32,
        /// Address and port.
        at: (IpAddr, u16),
        /// A public key for TLS: a byte for the algorithm and up to 64 of the key.
        certificate: Option<Vec<u8>>,
    },
    /// Publishes where the metrics are.
    ServePrometheus {
        /// The subnet.
        netuid: Netuid,
        /// Free.
        version: u32,
        /// Address and port.
        at: (IpAddr, u16),
    },
    /// Sets weights that count at once.
    SetWeights {
        /// Where.
        mechanism: Mechanism,
        /// Uid and weight.
        entries: Vec<(Uid, u16)>,
        /// See [`crate::chain::Weights::version_key`].
        version_key: u64,
    },
    /// Commits to the hash of weights, which [`RevealWeights`](Call::RevealWeights) shows later.
    CommitWeights {
        /// Where.
        mechanism: Mechanism,
        /// See [`crate::chain::commit`].
        hash: Hash32,
    },
    /// Shows weights that were committed to.
    RevealWeights {
        /// Where.
        mechanism: Mechanism,
        /// Uid and weight.
        entries: Vec<(Uid, u16)>,
        /// The salt in the hash.
        salt: Vec<u16>,
        /// See [`crate::chain::Weights::version_key`].
        version_key: u64,
    },
    /// Commits to weights that the chain itself decrypts once drand has published a round.
    CommitTimelockedWeights {
        /// Where.
        mechanism: Mechanism,
        /// The encrypted weights, at most [`MAX_CIPHERTEXT`](crate::chain::commit::timelock::MAX_CIPHERTEXT) bytes.
        commit: Vec<u8>,
        /// The round of drand's quicknet.
        round: u64,
        /// The version of commits that the chain takes (`CommitRevealWeightsVersion`).
        version: u16,
    },
    /// Registers a hotkey for what it costs now. Signed and paid by the coldkey.
    BurnedRegister {
        /// The subnet.
        netuid: Netuid,
        /// Who gets the uid.
        hotkey: Hotkey,
    },
    /// Registers a hotkey if it costs no more than that. Signed and paid by the coldkey.
    RegisterLimit {
        /// The subnet.
        netuid: Netuid,
        /// Who gets the uid.
        hotkey: Hotkey,
        /// The most it may cost, in rao.
        limit_rao: u64,
    },
}

/// A subnet's incentive mechanism: each has weights of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mechanism {
    /// The subnet.
    pub netuid: Netuid,
    /// 0 to 15; 0 is the only one of most subnets, and has the calls of the time before there were others.
    pub id: u8,
}

impl Mechanism {
    /// A subnet's first mechanism.
    pub fn first(netuid: Netuid) -> Self {
        Mechanism { netuid, id: 0 }
    }

    fn arguments(self) -> Vec<(String, Value)> {
        let mut of = vec![named("netuid", number(self.netuid.0))];
        if self.id > 0 {
            of.push(named("mecid", number(self.id)));
        }
        of
    }

    fn choose(self, first: &'static str, other: &'static str) -> &'static str {
        if self.id == 0 { first } else { other }
    }
}

impl Call {
    /// The chain's name of the call.
    pub fn name(&self) -> &'static str {
        match self {
            Call::ServeAxon { certificate: None, .. } => "serve_axon",
            Call::ServeAxon { certificate: Some(_), .. } => "serve_axon_tls",
            Call::ServePrometheus { .. } => "serve_prometheus",
            Call::SetWeights { mechanism, .. } => mechanism.choose("set_weights", "set_mechanism_weights"),
            Call::CommitWeights { mechanism, .. } => mechanism.choose("commit_weights", "commit_mechanism_weights"),
            Call::RevealWeights { mechanism, .. } => mechanism.choose("reveal_weights", "reveal_mechanism_weights"),
            Call::CommitTimelockedWeights { mechanism, .. } => {
                mechanism.choose("commit_timelocked_weights", "commit_timelocked_mechanism_weights")
            }
            Call::BurnedRegister { .. } => "burned_register",
            Call::RegisterLimit { .. } => "register_limit",
        }
    }

    /// Its arguments by name.
    pub(super) fn arguments(&self) -> Vec<(String, Value)> {
        match self {
            Call::ServeAxon { netuid, version, at, certificate } => {
                let mut served = serving(*netuid, *version, *at);
                // What the Python client sends; nobody reads it.
                served.push(named("protocol", number(4u8)));
                served.extend(["placeholder1", "placeholder2"].map(|name| named(name, number(0u8))));
                served.extend(certificate.as_ref().map(|key| named("certificate", Value::from_bytes(key))));
                served
            }
            Call::ServePrometheus { netuid, version, at } => serving(*netuid, *version, *at),
            Call::SetWeights { mechanism, entries, version_key } => with(
                *mechanism,
                [("dests", uids(entries)), ("weights", values(entries)), ("version_key", number(*version_key))],
            ),
            Call::CommitWeights { mechanism, hash } => with(*mechanism, [("commit_hash", Value::from_bytes(hash.0))]),
            Call::RevealWeights { mechanism, entries, salt, version_key } => with(
                *mechanism,
                [
                    ("uids", uids(entries)),
                    ("values", values(entries)),
                    ("salt", list(salt.iter().copied())),
                    ("version_key", number(*version_key)),
                ],
            ),
            Call::CommitTimelockedWeights { mechanism, commit, round, version } => with(
                *mechanism,
                [
                    ("commit", Value::from_bytes(commit)),
                    ("reveal_round", number(*round)),
                    ("commit_reveal_version", number(*version)),
                ],
            ),
            Call::BurnedRegister { netuid, hotkey } => {
                vec![named("netuid", number(netuid.0)), named("hotkey", Value::from_bytes(hotkey.0))]
            }
            Call::RegisterLimit { netuid, hotkey, limit_rao } => vec![
                named("netuid", number(netuid.0)),
                named("hotkey", Value::from_bytes(hotkey.0)),
                named("limit_price", number(*limit_rao)),
            ],
        }
    }
}

fn serving(netuid: Netuid, version: u32, (ip, port): (IpAddr, u16)) -> Vec<(String, Value)> {
    let (ip, ip_type) = chain_ip(ip);
    vec![
        named("netuid", number(netuid.0)),
        named("version", number(version)),
        named("ip", Value::u128(ip)),
        named("port", number(port)),
        named("ip_type", number(ip_type)),
    ]
}

fn with<const N: usize>(mechanism: Mechanism, others: [(&str, Value); N]) -> Vec<(String, Value)> {
    let mut all = mechanism.arguments();
    all.extend(others.map(|(name, value)| named(name, value)));
    all
}

fn named(name: &str, value: Value) -> (String, Value) {
    (name.to_owned(), value)
}

/// A whole number; the metadata says of how many bytes.
pub(super) fn number(n: impl Into<u128>) -> Value {
    Value::u128(n.into())
}

fn list(numbers: impl Iterator<Item = u16>) -> Value {
    Value::unnamed_composite(numbers.map(number))
}

fn uids(entries: &[(Uid, u16)]) -> Value {
    list(entries.iter().map(|(uid, _)| uid.0))
}

fn values(entries: &[(Uid, u16)]) -> Value {
    list(entries.iter().map(|(_, weight)| *weight))
}
