//! Who is connected to a listener, and how many of them may be.
//!
//! Invariants: a connection counts from the moment it was accepted until it is closed, whatever it sends or does not send;
//! one beyond a limit is shut down at once and holds nothing, so ten thousand silent connections from one address keep
//! nobody else out. The fuller it is, the fewer one address may have: all of its share up to half of the room, an eighth of
//! it up to three quarters, and two from there on: one that is being closed and the next. When it is full, a newcomer takes the
//! place of the oldest idle connection of the address that has most. IPv6 addresses count by their /64, since a host has a
//! whole one to call from.
//!
//! Nobody keeps a connection by doing nothing with it: [`Crowd::close_idle`] shuts down those on which no request is being
//! worked on for too long. The HTTP server has timers of its own, but none for the head of a second request, and none for a
//! peer that does not read its reply. Nor does the server bound what it reads after it has refused a body: it closes a
//! connection at once, and the connection [lingers](super::linger) here.
//!
//! Design notes: each member holds a second handle of its socket, since the server owns the first; so a connection takes two
//! file descriptors. Shutting it down wakes the server, which drops it and with it the [`Member`]. One that lingers holds its
//! seat until it is closed, and two handles too: the server has let go of its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::Shutdown;
use rustix::net::sockopt::set_tcp_user_timeout;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::linger::{half_close, linger};
use crate::admission::Address;

/// File descriptors of one connection.
const FILES: usize = 2;
/// The slowest that a peer may take its reply, in bytes a second: a large one has more time.
const SLOWEST: u64 = 32 * 1024;
/// How long a peer's machine may leave what it was sent unacknowledged, in milliseconds.
const UNACKNOWLEDGED_MS: u32 = 20_000;

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
    by_address: HashMap<Address, Vec<Arc<Seat>>>,
}

/// One connection.
#[derive(Debug)]
struct Seat {
    /// None only in tests of the arithmetic.
    socket: Option<OwnedFd>,
    /// None while a request is worked on.
    idle_since: Mutex<Option<Instant>>,
    /// It was shut down here: there is nothing to linger for.
    shut: AtomicBool,
}

/// A connection that the server works on. It counts until this is dropped, and while it lingers then.
#[derive(Debug)]
pub(super) struct Member(Arc<Counted>);

/// A connection that counts until this is dropped.
#[derive(Debug)]
struct Counted {
    crowd: Arc<Inner>,
    address: Address,
    seat: Arc<Seat>,
}

/// A request that is worked on until this is dropped.
#[derive(Debug)]
pub(super) struct Busy {
    seat: Arc<Seat>,
    reply: Duration,
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
        let member = stream.peer_addr().ok().and_then(|peer| {
            let socket = stream.as_fd().try_clone_to_owned().ok()?;
            self.admit(peer.ip(), Some(socket), Instant::now())
        });
        match member {
            // A socket on which this cannot be set is closed all the same when it is idle.
            Some(_) => drop(set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS)),
            // Whoever closed it already has saved us the call.
            None => drop(rustix::net::shutdown(stream, Shutdown::Both)),
        }
        member
    }

    /// Shuts down every connection without a request for longer than `limit`; how many.
    pub(super) fn close_idle(&self, limit: Duration, now: Instant) -> usize {
        let here = self.0.here();
        let seats = here.by_address.values().flatten();
        let idle = seats.filter(|seat| seat.idle_since().is_some_and(|since| now.duration_since(since) > limit));
        idle.map(|seat| seat.close()).count()
    }

    fn admit(&self, ip: IpAddr, socket: Option<OwnedFd>, now: Instant) -> Option<Member> {
        let address = Address::of(ip);
        let mut here = self.0.here();
        let from_there = here.by_address.get(&address).map_or(0, Vec::len);
        let full = here.all >= self.0.limit;
        let room = match full {
            true => from_there == 0 && here.evict(),
            false => from_there < share(here.all, self.0.limit, self.0.per_address),
        };
        if !room {
            here.turned_away += 1;
            return None;
        }
        let (idle_since, shut) = (Mutex::new(Some(now)), AtomicBool::new(false));
        let seat = Arc::new(Seat { socket, idle_since, shut });
        here.all += 1;
        here.by_address.entry(address).or_default().push(seat.clone());
        Some(Member(Arc::new(Counted { crowd: self.0.clone(), address, seat })))
    }
}

impl Here {
    /// Shuts down the oldest idle connection of the address that has most of those with two or more; whether there was one.
    fn evict(&mut self) -> bool {
        let oldest = |seats: &[Arc<Seat>]| {
            let idle = seats.iter().filter_map(|seat| Some((seat.idle_since()?, seat)));
            idle.min_by_key(|(since, _)| *since).map(|(_, seat)| seat.clone())
        };
        let several = self.by_address.iter().filter(|(_, seats)| seats.len() > 1);
        let with_idle = several.filter_map(|(address, seats)| Some((seats.len(), *address, oldest(seats)?)));
        let Some((_, address, seat)) = with_idle.max_by_key(|(count, ..)| *count) else { return false };
        seat.close();
        self.leave(address, &seat);
        self.turned_away += 1;
        true
    }

    /// Counts a connection no more, unless it was evicted before.
    fn leave(&mut self, address: Address, seat: &Arc<Seat>) {
        let Some(seats) = self.by_address.get_mut(&address) else { return };
        let Some(at) = seats.iter().position(|other| Arc::ptr_eq(other, seat)) else { return };
        seats.swap_remove(at);
        if seats.is_empty() {
            self.by_address.remove(&address);
        }
        self.all -= 1;
    }
}

impl Seat {
    fn idle_since(&self) -> Option<Instant> {
        *self.mark()
    }

    fn mark(&self) -> MutexGuard<'_, Option<Instant>> {
        self.idle_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.shut.store(true, Ordering::Release);
        if let Some(socket) = &self.socket {
            // The peer may have closed it a moment ago.
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
    }

    /// The socket that the server has let go of, if its peer may still be sending.
    fn half_closed(&self) -> Option<TcpStream> {
        let socket = self.socket.as_ref().filter(|_| !self.shut.load(Ordering::Acquire))?;
        half_close(socket)
    }
}

impl Member {
    /// A request came over this connection.
    pub(super) fn busy(&self) -> Busy {
        *self.0.seat.mark() = None;
        Busy { seat: self.0.seat.clone(), reply: Duration::ZERO }
    }
}

impl Busy {
    /// The reply has so many bytes, which the peer may take its time to read.
    pub(super) fn replied(mut self, bytes: u64) {
        self.reply = Duration::from_secs(bytes / SLOWEST);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        *self.seat.mark() = Some(Instant::now() + self.reply);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Without a runtime the server itself has ended.
        let Ok(runtime) = Handle::try_current() else { return };
        let Some(stream) = self.0.seat.half_closed() else { return };
        let counted = self.0.clone();
        runtime.spawn(async move {
            linger(stream).await;
            drop(counted);
        });
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.crowd.here().leave(self.address, &self.seat);
    }
}

/// How many connections one address may have while `all` are open.
fn share(all: usize, limit: usize, per_address: usize) -> usize {
    match all {
        _ if all >= limit => 0,
        _ if all >= limit - limit / 4 => per_address.min(2),
        _ if all >= limit / 2 => (per_address / 8).max(2).min(per_address),
        _ => per_address,
    }
}

/// Lets this process open so many files beside its own, as far as the system allows it; how many connections it may take.
pub fn room(wanted: usize) -> usize {
    const OWN: u64 = 256;
    let limit = getrlimit(Resource::Nofile);
    let needed = (wanted * FILES) as u64 + OWN;
    let now = limit.current.unwrap_or(u64::MAX);
    if now >= needed {
        return wanted;
    }
    let raised = limit.maximum.map_or(needed, |most| most.min(needed)).max(now);
    let now = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
        Ok(()) => raised,
        Err(_) => now,
    };
    let files = usize::try_from(now.saturating_sub(OWN)).unwrap_or(usize::MAX);
    let room = (files / FILES).clamp(8, wanted.max(8));
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
    fn here(&self) -> MutexGuard<'_, Here> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admit(crowd: &Crowd, ip: IpAddr) -> Option<Member> {
        crowd.admit(ip, None, Instant::now())
    }

    #[test]
    fn a_newcomer_takes_the_place_of_the_oldest_idle_connection_of_the_most_populous_address() {
        let (crowd, start) = (Crowd::new(8, 8), Instant::now());
        let at = |ip_: &str, second: u64| crowd.admit(ip(ip_), None, start + Duration::from_secs(second));
        let mut many: Vec<_> = (0..4).map(|n| at("10.0.0.1", n).unwrap()).collect();
        let _working = many[0].busy();
        let _others: Vec<_> = (2..6).map(|n| at(&format!("10.0.0.{n}"), 0).unwrap()).collect();
        assert!(at("10.0.0.1", 9).is_none() && at("10.0.0.2", 9).is_none(), "those who are there get no more");
        let _newcomer = at("10.0.0.9", 9).expect("has none yet");
        let still = |member: &Member| {
            let here = crowd.0.here();
            here.by_address.values().flatten().any(|seat| Arc::ptr_eq(seat, &member.0.seat))
        };
        assert_eq!(many.iter().map(still).collect::<Vec<_>>(), [true, false, true, true], "the oldest idle one");
        assert_eq!(crowd.count().0, 8);
        drop(many.remove(1));
        assert_eq!(crowd.count().0, 8, "it has left already");
        // One connection each, or one that works: nobody has too many.
        let _more: Vec<_> = (10..12).map(|n| at(&format!("10.0.0.{n}"), 9).unwrap()).collect();
        assert!(at("10.0.0.12", 9).is_none());
    }

    #[test]
    fn whoever_asks_nothing_for_too_long_is_closed() {
        let (crowd, start) = (Crowd::new(8, 8), Instant::now());
        let member = admit(&crowd, ip("10.0.0.1")).unwrap();
        let (limit, later) = (Duration::from_secs(10), start + Duration::from_secs(60));
        assert_eq!(crowd.close_idle(limit, start + Duration::from_secs(5)), 0);
        let busy = member.busy();
        assert_eq!(crowd.close_idle(limit, later), 0, "its request is being worked on");
        busy.replied(1024 * 1024);
        assert_eq!(crowd.close_idle(limit, start + Duration::from_secs(40)), 0, "a large reply may take 32 s more");
        assert_eq!(crowd.close_idle(limit, later), 1);
    }

    #[test]
    fn one_address_has_its_own_share_and_gets_it_back() {
        let crowd = Crowd::new(100, 2);
        let first = admit(&crowd, ip("10.0.0.1")).unwrap();
        let _second = admit(&crowd, ip("10.0.0.1")).unwrap();
        assert!(admit(&crowd, ip("::ffff:10.0.0.1")).is_none(), "the same address in another spelling");
        let _other = admit(&crowd, ip("10.0.0.2")).unwrap();
        drop(first);
        let _again = admit(&crowd, ip("10.0.0.1")).unwrap();
        assert_eq!(crowd.count(), (3, 1));
    }

    #[test]
    fn nobody_is_kept_out_by_fewer_addresses_than_an_eighth_of_the_room() {
        let crowd = Crowd::new(2_048, 64);
        // The worst that 250 addresses can do: a few of them take all that they may first, then some more, then the rest.
        let mut held = Vec::new();
        for _ in 0..64 {
            held.extend((0..250u32).filter_map(|n| admit(&crowd, IpAddr::V4((n + 1).into()))));
        }
        for n in 0..250u32 {
            held.extend((0..64).map_while(|_| admit(&crowd, IpAddr::V4((n + 1).into()))));
        }
        assert!(held.len() >= 1_536, "{}", held.len());
        assert!(admit(&crowd, ip("192.0.2.1")).is_some());
        let crowd = Crowd::new(2_048, 64);
        let _held: Vec<_> = (0..250u32)
            .flat_map(|n| (0..64).map(move |_| n))
            .filter_map(|n| admit(&crowd, IpAddr::V4((n + 1).into())))
            .collect();
        assert!(admit(&crowd, ip("192.0.2.1")).is_some());
    }

    #[test]
    fn an_ipv6_network_counts_as_one() {
        let crowd = Crowd::new(10, 1);
        let _one = admit(&crowd, ip("2001:db8::1")).unwrap();
        assert!(admit(&crowd, ip("2001:db8::ffff:2")).is_none());
        assert!(admit(&crowd, ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn nobody_is_remembered_who_has_left() {
        let crowd = Crowd::new(2, 2);
        for n in 0..1_000u32 {
            let (a, b) = (admit(&crowd, IpAddr::V4(n.into())), admit(&crowd, IpAddr::V4((n + 1).into())));
            assert!(a.is_some() && b.is_some());
            assert!(admit(&crowd, ip("9.9.9.9")).is_none(), "full");
        }
        assert!(crowd.0.here().by_address.is_empty());
        assert_eq!(crowd.count(), (0, 1_000));
    }
}
