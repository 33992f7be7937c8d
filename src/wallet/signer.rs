//! A wallet's key signs calls to the chain.

use super::Keypair;
use crate::chain::Signer;
use crate::ids::Hotkey;

impl Signer for Keypair {
    fn hotkey(&self) -> Hotkey {
        Keypair::hotkey(self)
    }
    fn sign(&self, msg: &[u8]) -> [u8; 64] {
        Keypair::sign(self, msg)
    }
}
