//! The uuid that a classic request carries.
//!
//! Classic servers want rising nonces for each pair of hotkey and uuid, and remember each pair for ever. Requests that are
//! under way at the same time may overtake each other, so they must not share a uuid; a fresh one for each request would
//! grow the servers' tables without end. So a uuid is lent to one request at a time: an axon sees as many of them as there
//! ever were requests to it at once, nearly always one. Only when nonces begin again (`stamps`) do all of them change.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::Peer;
use super::stamps::Stamp;
use crate::wire::uuid::Uuid;

/// Uuids of one dendrite.
pub(super) struct Uuids {
    base: Uuid,
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
        Ok(Uuids { base: Uuid::random()?, lent: Mutex::new(HashMap::new()) })
    }

    /// A uuid that no other request to this peer has; `None` if there are too many. The stamp must be drawn after.
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

impl Lent<'_> {
    /// What the request with this stamp carries.
    pub(super) fn uuid(&self, stamp: Stamp) -> Uuid {
        let mut bytes = self.uuids.base.0;
        for (byte, of_era) in bytes[11..15].iter_mut().zip(stamp.era.to_be_bytes()) {
            *byte ^= of_era;
        }
        bytes[15] = self.number as u8;
        Uuid(bytes)
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

    fn text(lent: &Lent<'_>, era: u32) -> String {
        lent.uuid(Stamp { nonce: 0, era }).to_string()
    }

    #[test]
    fn a_peer_sees_one_uuid_unless_requests_overlap() {
        let uuids = Uuids::new().unwrap();
        let first = uuids.lend(peer(1)).unwrap();
        let (of_first, other) = (text(&first, 0), text(&uuids.lend(peer(2)).unwrap(), 0));
        assert_eq!(of_first, other, "peers do not share their tables");
        let second = uuids.lend(peer(1)).unwrap();
        assert_ne!(of_first, text(&second, 0));
        drop(first);
        assert_eq!(text(&uuids.lend(peer(1)).unwrap(), 0), of_first);
        drop(second);
        assert!(uuids.lent.lock().unwrap().is_empty(), "nothing is kept of peers that are not being asked");
    }

    #[test]
    fn no_uuid_of_one_era_is_one_of_another() {
        let uuids = Uuids::new().unwrap();
        let lent: Vec<_> = (0..Uuids::AT_ONCE).map(|_| uuids.lend(peer(1)).unwrap()).collect();
        let eras = [0, 1, 255, 256, u32::MAX];
        let texts: std::collections::HashSet<_> = eras.iter().flat_map(|e| lent.iter().map(|l| text(l, *e))).collect();
        assert_eq!(texts.len(), 5 * 64);
    }

    #[test]
    fn no_two_requests_under_way_share_a_uuid_and_too_many_are_refused() {
        let uuids = Uuids::new().unwrap();
        let lent: Vec<_> = (0..Uuids::AT_ONCE).map(|_| uuids.lend(peer(1)).unwrap()).collect();
        let texts: std::collections::HashSet<_> = lent.iter().map(|lent| text(lent, 0)).collect();
        assert_eq!(texts.len(), 64);
        assert!(uuids.lend(peer(1)).is_none() && uuids.lend(peer(2)).is_some());
    }
}
