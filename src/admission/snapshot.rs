//! What the chain and the penalties say, at one moment. Never changed once made: a new one replaces it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::quorum::Quorum;
use super::subject::Address;
use crate::ids::{BlockNumber, Coldkey, Hotkey, Uid};

/// A registered neuron.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its slot.
    pub uid: Uid,
    /// Its owner.
    pub coldkey: Coldkey,
    /// Its stake in rao (10⁻⁹ τ).
    pub stake_rao: u64,
    /// Whether it has a validator permit.
    pub permit: bool,
    /// The address of its axon; none (or 0.0.0.0) when it serves nothing.
    pub ip: Option<IpAddr>,
    /// The version announced with its axon; 0 when none was.
    pub axon_version: u32,
    /// The version announced with its metrics address; 0 when none was.
    pub prometheus_version: u32,
    /// The block of its registration.
    pub registered_at: BlockNumber,
}

impl Peer {
    /// The axon's address in one spelling: none when unspecified, IPv4 also where it was written as IPv6.
    pub fn axon_ip(&self) -> Option<IpAddr> {
        self.ip.map(|ip| ip.to_canonical()).filter(|ip| !ip.is_unspecified())
    }
}

/// A penalty in force until it runs out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Penalty {
    /// Why, safe to publish.
    pub reason: String,
    /// Until when, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

/// The neurons of the subnet and the penalties, as of one block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The block it shows.
    pub taken_block: BlockNumber,
    /// When it was taken, in milliseconds since the Unix epoch.
    pub taken_at_ms: u64,
    /// The registered neurons by hotkey.
    pub peers: Arc<HashMap<Hotkey, Peer>>,
    /// How many of the validators are updated.
    pub validators: Quorum,
    /// How many of the miners are updated.
    pub miners: Quorum,
    /// The penalties by hotkey, those that ran out too.
    pub penalties: HashMap<Hotkey, Penalty>,
    /// The penalties by address, those that ran out too.
    pub address_penalties: Arc<HashMap<Address, Penalty>>,
}

impl Snapshot {
    /// The penalty in force against this hotkey.
    pub fn penalty(&self, hotkey: &Hotkey, now_ms: u64) -> Option<&Penalty> {
        self.penalties.get(hotkey).filter(|p| p.until_ms > now_ms)
    }
    /// The penalty in force against this address.
    pub fn address_penalty(&self, address: Address, now_ms: u64) -> Option<&Penalty> {
        self.address_penalties.get(&address).filter(|p| p.until_ms > now_ms)
    }
}
