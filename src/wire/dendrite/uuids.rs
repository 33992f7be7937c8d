//! The uuid that a classic request carries.
//!
//! Classic servers want rising nonces for each pair of hotkey and uuid, and remember each pair for ever. Requests that are
//! under way at the same time may overtake each other, so they must not share a uuid; a fresh one for each request would
//! grow the servers' tables without end. So a uuid is lent to one request at a time: an axon sees as many of them as there
//! ever were requests to it at once, nearly always one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Peer;

/// Uuids of one dendrite.
pub(super) struct Uuids {
    base: [u8; 16],
    /// Which ones are lent, for each peer with any: a bit for each.
    lent: Mutex<HashMap<Peer, u64>>,
}

/// A uuid, until it is dropped.
pub(super) struct Lent<'a> {
    uuids: &'a Uuids,
    peer: Peer,
    number: u32,
}

impl Uuids {
    /// Requests to one peer that can be under way at the same time.
    pub(super) const AT_ONCE: u32 = u64::BITS;

    /// # Errors
    /// If the system has no randomness.
    pub(super) fn new() -> Result<Self, getrandom::Error> {
        let mut base = [0; 16];
        getrandom::fill(&mut base)?;
        // What a random uuid (version 4) looks like.
        base[6] = base[6] & 0x0f | 0x40;
        base[8] = base[8] & 0x3f | 0x80;
        Ok(Uuids { base, lent: Mutex::new(HashMap::new()) })
    }

    /// A uuid that no other request to this peer has; `None` if there are too many. The nonce must be drawn after.
    pub(super) fn lend(&self, peer: Peer) -> Option<Lent<'_>> {
        let mut lent = self.lent.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = lent.entry(peer).or_default();
        let number = of_peer.trailing_ones();
        if number == Self::AT_ONCE {
            return None;
        }
        *of_peer |= 1 << number;
        Some(Lent { uuids: self, peer, number })
    }
}

impl std::fmt::Display for Lent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut bytes = self.uuids.base;
        bytes[15] = self.number as u8;
        let text = hex::encode(bytes);
        write!(f, "{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut lent = self.uuids.lent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_peer) = lent.get_mut(&self.peer) {
            *of_peer &= !(1 << self.number);
            if *of_peer == 0 {
                lent.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Hotkey;

    fn peer(n: u8) -> Peer {
        Peer { hotkey: Hotkey([n; 32]), addr: ([127, 0, 0, 1], 8091).into() }
    }

    #[test]
    fn a_peer_sees_one_uuid_unless_requests_overlap() {
        let uuids = Uuids::new().unwrap();
        let first = uuids.lend(peer(1)).unwrap();
        let (text, other) = (first.to_string(), uuids.lend(peer(2)).unwrap().to_string());
        assert_eq!(text, other, "peers do not share their tables");
        let second = uuids.lend(peer(1)).unwrap();
        assert_ne!(text, second.to_string());
        drop(first);
        assert_eq!(uuids.lend(peer(1)).unwrap().to_string(), text);
        drop(second);
        assert!(uuids.lent.lock().unwrap().is_empty(), "nothing is kept of peers that are not being asked");
        assert_eq!(text.len(), 36);
        assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }

    #[test]
    fn no_two_requests_under_way_share_a_uuid_and_too_many_are_refused() {
        let uuids = Uuids::new().unwrap();
        let lent: Vec<_> = (0..Uuids::AT_ONCE).map(|_| uuids.lend(peer(1)).unwrap()).collect();
        let texts: std::collections::HashSet<_> = lent.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 64);
        assert!(uuids.lend(peer(1)).is_none() && uuids.lend(peer(2)).is_some());
    }
}
