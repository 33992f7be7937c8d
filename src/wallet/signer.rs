//! Who signs: sr25519 in the context `substrate`, as every Bittensor key does.

use super::Keypair;
use crate::ids::Hotkey;

/// A key that can sign. Implementations never print their secret.
pub trait Signer: Send + Sync {
    /// The public key. A coldkey that signs is asked the same way: the bytes are an account's either way.
    fn hotkey(&self) -> Hotkey;
    /// The sr25519 signature over `msg`. Two signatures over the same message differ.
    fn sign(&self, msg: &[u8]) -> [u8; 64];
}

impl Signer for Keypair {
    fn hotkey(&self) -> Hotkey {
        Keypair::hotkey(self)
    }
    fn sign(&self, msg: &[u8]) -> [u8; 64] {
        Keypair::sign(self, msg)
    }
}
