//! The secret of a lease's owner.

use std::fmt;

use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::ids::Hash32;

/// The secret that proves ownership of a lease, 32 random bytes, as hex on the wire.
///
/// It travels over plain HTTP, so it is a second factor: the calling hotkey must match as well. Peers keep only its
/// [`digest`](Self::digest).
#[derive(Clone)]
pub struct OwnerToken(Zeroizing<[u8; 32]>);

impl OwnerToken {
    /// A fresh token from the operating system's randomness.
    ///
    /// # Errors
    /// If the operating system gives none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut token = OwnerToken(Zeroizing::new([0; 32]));
        getrandom::fill(token.0.as_mut_slice())?;
        Ok(token)
    }

    /// The token of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        OwnerToken(Zeroizing::new(bytes))
    }

    /// The bytes, for the owner's own storage.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What a peer keeps of it: SHA-256 over `compute-owner-token/1` and the token. Comparing digests leaks nothing
    /// about the token.
    pub fn digest(&self) -> Hash32 {
        Hash32(Sha256::new().chain_update(b"compute-owner-token/1").chain_update(*self.0).finalize().into())
    }
}

impl PartialEq for OwnerToken {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}
impl Eq for OwnerToken {}

impl fmt::Debug for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerToken(hidden)")
    }
}

impl Serialize for OwnerToken {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&Zeroizing::new(hex::encode(*self.0)))
    }
}

impl<'de> Deserialize<'de> for OwnerToken {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        let mut token = OwnerToken(Zeroizing::new([0; 32]));
        hex::decode_to_slice(text.as_bytes(), token.0.as_mut_slice())
            .map_err(|_| serde::de::Error::custom("an owner token is 64 hex digits"))?;
        Ok(token)
    }
}
