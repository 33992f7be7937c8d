//! Whom a penalty is for: a hotkey whose signature proved what it did, or the address that a request came from.
//!
//! Which of the two is the point of it. Anybody can write a stranger's hotkey into a header, or send a stranger's request
//! a second time, so what no signature proves is held against the address and never against the hotkey
//! ([`anomaly`](super::anomaly) says what counts against which).

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Hotkey, ParseIdError};

/// Bits of an IPv6 address that name whoever has it: a subscriber gets a /64 at least, and chooses the rest at will.
const IPV6_PREFIX: u32 = 64;

/// An address as penalties know it: an IPv4 address, also where it was written as IPv6, or the /64 of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(IpAddr);

impl Address {
    /// The address that this one belongs to.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V6(v6) => {
                Address(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << (128 - IPV6_PREFIX)))))
            }
            v4 @ IpAddr::V4(_) => Address(v4),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(v4) => v4.fmt(f),
            IpAddr::V6(v6) => write!(f, "{v6}/{IPV6_PREFIX}"),
        }
    }
}

/// Whom a penalty is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A neuron.
    Hotkey(Hotkey),
    /// Everybody at an address.
    Address(Address),
}

impl Subject {
    /// The metric labels of both kinds.
    pub const KINDS: &'static [&'static str] = &["hotkey", "address"];
    /// The metric label of its kind: snake case, stable.
    pub fn kind(&self) -> &'static str {
        match self {
            Subject::Hotkey(_) => "hotkey",
            Subject::Address(_) => "address",
        }
    }
    /// The hotkey, if it is one.
    pub fn hotkey(&self) -> Option<Hotkey> {
        match self {
            Subject::Hotkey(hotkey) => Some(*hotkey),
            Subject::Address(_) => None,
        }
    }
}

impl From<Hotkey> for Subject {
    fn from(hotkey: Hotkey) -> Self {
        Subject::Hotkey(hotkey)
    }
}
impl From<Address> for Subject {
    fn from(address: Address) -> Self {
        Subject::Address(address)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Hotkey(hotkey) => hotkey.fmt(f),
            Subject::Address(address) => address.fmt(f),
        }
    }
}

/// A text that names neither a hotkey nor an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "neither an IP address nor a hotkey ({hotkey}); write an SS58 address, an IPv4 or IPv6 address, or an IPv6 /64"
)]
pub struct ParseSubjectError {
    /// What is wrong with it as a hotkey.
    hotkey: ParseIdError,
}

impl FromStr for Subject {
    type Err = ParseSubjectError;
    fn from_str(text: &str) -> Result<Self, ParseSubjectError> {
        let network = text.strip_suffix("/64").and_then(|ip| ip.parse::<Ipv6Addr>().ok()).map(IpAddr::V6);
        match network.or_else(|| text.parse::<IpAddr>().ok()) {
            Some(ip) => Ok(Subject::Address(Address::of(ip))),
            None => text.parse().map(Subject::Hotkey).map_err(|hotkey| ParseSubjectError { hotkey }),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(text: &str) -> Subject {
        text.parse().unwrap()
    }

    #[test]
    fn every_subject_is_read_back_from_its_text() {
        let hotkey = Hotkey([7; 32]);
        assert_eq!(subject(&hotkey.to_string()), Subject::Hotkey(hotkey));
        for (text, shown) in [
            ("203.0.113.9", "203.0.113.9"),
            ("::ffff:203.0.113.9", "203.0.113.9"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(subject(text).to_string(), shown);
            assert_eq!(subject(shown), subject(text));
            let json = serde_json::to_string(&subject(text)).unwrap();
            assert_eq!(serde_json::from_str::<Subject>(&json).unwrap(), subject(text));
            assert_eq!((subject(text).kind(), subject(text).hotkey()), ("address", None));
        }
        for wrong in ["", "203.0.113.9/64", "2001:db8::/48", "203.0.113.300", "5Grwva", "localhost"] {
            let error = wrong.parse::<Subject>().unwrap_err().to_string();
            assert!(error.contains("neither an IP address nor a hotkey"), "{error}");
        }
    }

    #[test]
    fn whoever_has_a_64_is_one_subject_and_the_next_64_is_another() {
        let of = |text: &str| Address::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("203.0.113.1"), of("203.0.113.2"));
    }
}
