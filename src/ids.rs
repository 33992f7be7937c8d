//! Newtypes for every identity that crosses a module boundary. Parse at the edge, pass these inside.

use std::fmt;
use std::str::FromStr;

use blake2::{Blake2b512, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A block number of the chain. The genesis block is 0.
pub type BlockNumber = u64;
/// The number of a subnet epoch, which never goes back; see [`crate::chain::epoch`].
pub type Epoch = u64;

/// Address format prefix of Bittensor accounts: SS58 format 42 ("generic substrate").
const SS58_FORMAT: u8 = 42;

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseIdError {
    /// The text is not base58.
    #[error("not base58 text")]
    NotBase58,
    /// The decoded length is not that of an account address.
    #[error("an SS58 address of an account decodes to 35 bytes, this one to {0}")]
    AddressLength(usize),
    /// The address belongs to another network.
    #[error("SS58 format {0}, expected 42")]
    AddressFormat(u8),
    /// The checksum does not match: a mistyped address.
    #[error("SS58 checksum does not match, the address is mistyped")]
    AddressChecksum,
    /// The text is not hex of the right length.
    #[error("expected {expected} hex digits")]
    Hex {
        /// Digits expected.
        expected: usize,
    },
    /// Not a device name of the form `GPU-…` or `CPU-n`.
    #[error("expected GPU- followed by a UUID, or CPU- followed by an index")]
    Device,
}

fn ss58_checksum(payload: &[u8]) -> [u8; 2] {
    let mut h = Blake2b512::new();
    h.update(b"SS58PRE");
    h.update(payload);
    let out = h.finalize();
    [out[0], out[1]]
}

fn to_ss58(key: &[u8; 32]) -> String {
    let mut bytes = Vec::with_capacity(35);
    bytes.push(SS58_FORMAT);
    bytes.extend_from_slice(key);
    let check = ss58_checksum(&bytes);
    bytes.extend_from_slice(&check);
    bs58::encode(bytes).into_string()
}

fn from_ss58(text: &str) -> Result<[u8; 32], ParseIdError> {
    // 35 bytes are at most 48 base58 digits; longer text is refused before it is decoded.
    if text.len() > 64 {
        return Err(ParseIdError::AddressLength(text.len()));
    }
    let bytes = bs58::decode(text).into_vec().map_err(|_| ParseIdError::NotBase58)?;
    let Ok(bytes) = <[u8; 35]>::try_from(bytes.as_slice()) else {
        return Err(ParseIdError::AddressLength(bytes.len()));
    };
    if bytes[0] != SS58_FORMAT {
        return Err(ParseIdError::AddressFormat(bytes[0]));
    }
    if ss58_checksum(&bytes[..33]) != bytes[33..] {
        return Err(ParseIdError::AddressChecksum);
    }
    let mut key = [0u8; 32];
    key.copy_from_slice(&bytes[1..33]);
    Ok(key)
}

macro_rules! account {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&to_ss58(&self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), to_ss58(&self.0))
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                from_ss58(s).map($name)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

account! {
    /// The public sr25519 key a neuron acts with. Displays as an SS58 address.
    Hotkey
}
account! {
    /// The public key of a neuron's owner. Displays as an SS58 address.
    Coldkey
}

/// A neuron's slot in its subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(pub u16);
impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

/// A subnet's number on its chain (27 on finney, 15 on testnet for the compute subnet).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Netuid(pub u16);
impl fmt::Display for Netuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.to_string())
    }
}

fn hex_array<const N: usize>(text: &str) -> Result<[u8; N], ParseIdError> {
    let mut out = [0u8; N];
    hex::decode_to_slice(text, &mut out).map_err(|_| ParseIdError::Hex { expected: 2 * N })?;
    Ok(out)
}

/// A 32-byte hash, as lower-case hex in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash32(pub [u8; 32]);

/// A lease's identity: 16 random bytes chosen by the renting validator, as hex in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub [u8; 16]);

/// The identity of one challenge: 16 random bytes chosen by the validator, as hex in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChallengeId(pub [u8; 16]);

macro_rules! hex_id {
    ($name:ident, $n:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&hex::encode(self.0))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::encode(self.0))
            }
        }
        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, ParseIdError> {
                hex_array::<$n>(s).map($name)
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
hex_id!(Hash32, 32);
hex_id!(LeaseId, 16);
hex_id!(ChallengeId, 16);

impl LeaseId {
    /// A new lease's identity.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(LeaseId(bytes))
    }
}

/// The device a proof is about, as the 16 bytes that enter the proof's seed.
///
/// A GPU is the 16 bytes of its NVML UUID (`GPU-` dropped); a CPU device is zeros with its index in the last byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub [u8; 16]);

impl DeviceId {
    /// The CPU device with this index.
    pub fn cpu(index: u8) -> Self {
        let mut b = [0u8; 16];
        b[15] = index;
        DeviceId(b)
    }
    /// The index, if this is a CPU device.
    pub fn cpu_index(&self) -> Option<u8> {
        (self.0[..15] == [0u8; 15]).then_some(self.0[15])
    }
}
impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.cpu_index() {
            Some(i) => format!("CPU-{i}"),
            None => {
                let h = hex::encode(self.0);
                format!("GPU-{}-{}-{}-{}-{}", &h[..8], &h[8..12], &h[12..16], &h[16..20], &h[20..])
            }
        };
        f.pad(&text)
    }
}
impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}
impl FromStr for DeviceId {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        if let Some(index) = s.strip_prefix("CPU-") {
            return index.parse().map(DeviceId::cpu).map_err(|_| ParseIdError::Device);
        }
        let uuid = s.strip_prefix("GPU-").ok_or(ParseIdError::Device)?;
        hex_array::<16>(&uuid.replace('-', "")).map(DeviceId).map_err(|_| ParseIdError::Device)
    }
}
impl Serialize for DeviceId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

    #[test]
    fn the_development_key_alice_has_her_published_address() {
        let key = hex_array::<32>("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d").unwrap();
        assert_eq!(Hotkey(key).to_string(), ALICE);
        assert_eq!(ALICE.parse::<Hotkey>(), Ok(Hotkey(key)));
    }

    #[test]
    fn a_mistyped_address_is_named_as_such() {
        let wrong = ALICE.replace("GKut", "GKuu");
        assert_eq!(wrong.parse::<Hotkey>(), Err(ParseIdError::AddressChecksum));
        assert_eq!("5Grw0".parse::<Hotkey>(), Err(ParseIdError::NotBase58));
        assert_eq!("5Grw".parse::<Hotkey>(), Err(ParseIdError::AddressLength(3)));
    }

    #[test]
    fn devices_read_back_what_they_print() {
        for text in ["CPU-3", "GPU-03030303-0303-0303-0303-030303030303"] {
            assert_eq!(text.parse::<DeviceId>().unwrap().to_string(), text);
        }
        assert_eq!("TPU-1".parse::<DeviceId>(), Err(ParseIdError::Device));
    }
}
