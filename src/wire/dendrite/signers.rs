//! Peers that have signed a reply: they speak `btauth/1`, so nothing else goes to them any more.
//!
//! A request with both header sets can be stripped on its way of those that sign its body. That cannot be helped while a
//! peer's age is unknown; once it has signed, it need not be known any more. The table is bounded, and who signed longest
//! ago makes room. It is not kept over a restart.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::ids::Hotkey;

/// Peers that are remembered: many times a subnet's.
const MOST: usize = 4096;

/// Who has signed.
#[derive(Debug, Default)]
pub(super) struct Signers(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// With the number of its last signature.
    signed: HashMap<Hotkey, u64>,
    signatures: u64,
}

impl Signers {
    /// Whether this peer's signature was seen.
    pub(super) fn know(&self, peer: &Hotkey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).signed.contains_key(peer)
    }

    /// A signature of this peer held.
    pub(super) fn learn(&self, peer: Hotkey) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.signatures += 1;
        let number = known.signatures;
        if known.signed.len() >= MOST && !known.signed.contains_key(&peer) {
            let oldest = known.signed.iter().min_by_key(|(_, number)| **number).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| known.signed.remove(&oldest));
        }
        known.signed.insert(peer, number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: usize) -> Hotkey {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        Hotkey(bytes)
    }

    #[test]
    fn who_signed_longest_ago_makes_room() {
        let signers = Signers::default();
        (0..MOST).for_each(|n| signers.learn(peer(n)));
        signers.learn(peer(0));
        signers.learn(peer(MOST));
        assert!(signers.know(&peer(0)) && !signers.know(&peer(1)) && signers.know(&peer(2)));
        assert!(signers.know(&peer(MOST)) && !signers.know(&peer(MOST + 1)));
        assert_eq!(signers.0.lock().unwrap().signed.len(), MOST);
    }
}
