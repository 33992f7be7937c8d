//! Who is connected to a listener, and how many of them may be.
//!
//! Invariants: a connection counts from the moment it was accepted until it is closed, whatever it sends or does not send;
//! one beyond a limit is shut down at once and holds nothing, so ten thousand silent connections from one address keep
//! nobody else out. The fuller it is, the fewer one address may have: all of its share up to half of the room, an eighth of
//! it up to three quarters, and the last quarter is for addresses that have none yet. So whoever wants to keep a newcomer out
//! needs more addresses than a quarter of the room. IPv6 addresses count by their /64, since a host has a whole one to call from.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::Shutdown;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;

use crate::admission::Address;

/// The connections of one listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Crowd(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: usize,
    per_address: usize,
    here: Mutex<Here>,
}

#[derive(Debug, Default)]
struct Here {
    all: usize,
    turned_away: u64,
    by_address: HashMap<Address, usize>,
}

/// A connection that counts until this is dropped.
#[derive(Debug)]
pub(super) struct Member {
    crowd: Arc<Inner>,
    address: Address,
}

impl Crowd {
    /// Nobody yet; at most `limit` connections, and `per_address` from one address.
    pub fn new(limit: usize, per_address: usize) -> Self {
        Crowd(Arc::new(Inner { limit, per_address, here: Mutex::default() }))
    }

    /// Connections at once.
    pub fn limit(&self) -> usize {
        self.0.limit
    }

    /// Connections that are open, and those that were turned away since the start.
    pub fn count(&self) -> (usize, u64) {
        let here = self.0.here();
        (here.all, here.turned_away)
    }

    /// Counts a new connection, or shuts it down if there is no room for it.
    pub(super) fn join(&self, stream: &TcpStream) -> Option<Member> {
        let member = stream.peer_addr().ok().and_then(|peer| self.admit(peer.ip()));
        if member.is_none() {
            // Whoever closed it already has saved us the call.
            let _ = rustix::net::shutdown(stream, Shutdown::Both);
        }
        member
    }

    fn admit(&self, ip: IpAddr) -> Option<Member> {
        let address = Address::of(ip);
        let mut here = self.0.here();
        let from_there = here.by_address.get(&address).copied().unwrap_or(0);
        if from_there >= share(here.all, self.0.limit, self.0.per_address) {
            here.turned_away += 1;
            return None;
        }
        here.all += 1;
        here.by_address.insert(address, from_there + 1);
        Some(Member { crowd: self.0.clone(), address })
    }
}

/// How many connections one address may have while `all` are open.
fn share(all: usize, limit: usize, per_address: usize) -> usize {
    match all {
        _ if all >= limit => 0,
        _ if all >= limit - limit / 4 => 1,
        _ if all >= limit / 2 => (per_address / 8).max(1),
        _ => per_address,
    }
}

/// Lets this process open so many files beside its own, as far as the system allows it; how many connections it may take.
pub fn room(wanted: usize) -> usize {
    const OWN: u64 = 256;
    let limit = getrlimit(Resource::Nofile);
    let needed = wanted as u64 + OWN;
    let now = limit.current.unwrap_or(u64::MAX);
    if now >= needed {
        return wanted;
    }
    let raised = limit.maximum.map_or(needed, |most| most.min(needed)).max(now);
    let now = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
        Ok(()) => raised,
        Err(_) => now,
    };
    let room = usize::try_from(now.saturating_sub(OWN)).unwrap_or(wanted).clamp(8, wanted.max(8));
    if room < wanted {
        tracing::warn!(
            open_files = now,
            connections = room,
            "the limit of open files allows fewer connections than axon.max_connections; raise it (ulimit -n)"
        );
    }
    room
}

impl Inner {
    /// Every change under this lock is whole before it is released.
    fn here(&self) -> std::sync::MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut here = self.crowd.here();
        here.all = here.all.saturating_sub(1);
        if let Some(count) = here.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                here.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_has_its_own_share_and_gets_it_back() {
        let crowd = Crowd::new(100, 2);
        let first = crowd.admit(ip("10.0.0.1")).unwrap();
        let _second = crowd.admit(ip("10.0.0.1")).unwrap();
        assert!(crowd.admit(ip("::ffff:10.0.0.1")).is_none(), "the same address in another spelling");
        let _other = crowd.admit(ip("10.0.0.2")).unwrap();
        drop(first);
        let _again = crowd.admit(ip("10.0.0.1")).unwrap();
        assert_eq!(crowd.count(), (3, 1));
    }

    #[test]
    fn nobody_is_kept_out_by_fewer_addresses_than_a_quarter_of_the_room() {
        let crowd = Crowd::new(2_048, 64);
        // The worst that 250 addresses can do: a few of them take all that they may first, then some more, then the rest.
        let mut held = Vec::new();
        for _ in 0..64 {
            held.extend((0..250u32).filter_map(|n| crowd.admit(IpAddr::V4((n + 1).into()))));
        }
        for n in 0..250u32 {
            held.extend((0..64).map_while(|_| crowd.admit(IpAddr::V4((n + 1).into()))));
        }
        assert!(held.len() >= 1_536, "{}", held.len());
        assert!(crowd.admit(ip("192.0.2.1")).is_some());
        let crowd = Crowd::new(2_048, 64);
        let _held: Vec<_> = (0..250u32)
            .flat_map(|n| (0..64).map(move |_| n))
            .filter_map(|n| crowd.admit(IpAddr::V4((n + 1).into())))
            .collect();
        assert!(crowd.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let crowd = Crowd::new(10, 1);
        let _one = crowd.admit(ip("2001:db8::1")).unwrap();
        assert!(crowd.admit(ip("2001:db8::ffff:2")).is_none());
        assert!(crowd.admit(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn nobody_is_remembered_who_has_left() {
        let crowd = Crowd::new(2, 2);
        for n in 0..1_000u32 {
            let (a, b) = (crowd.admit(IpAddr::V4(n.into())), crowd.admit(IpAddr::V4((n + 1).into())));
            assert!(a.is_some() && b.is_some());
            assert!(crowd.admit(ip("9.9.9.9")).is_none(), "full");
        }
        assert!(crowd.0.here().by_address.is_empty());
        assert_eq!(crowd.count(), (0, 1_000));
    }
}
