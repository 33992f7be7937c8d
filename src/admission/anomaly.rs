//! What brings a penalty by itself: too much of the same misbehaviour within a window.
//!
//! **Attribution.** What is not proved is never held against a hotkey: anybody can write a victim's hotkey into a header,
//! and whoever sees a victim's request can send it again. [`Seen`] says it as a type:
//!
//! | seen | held against | because |
//! |---|---|---|
//! | signatures and body hashes that do not hold, authentication that cannot be read | the address | the hotkey named is a claim |
//! | replays | the address | the first sender signed it, the second one need not be that |
//! | requests with bodies that are signed and cannot be read | the hotkey | only its holder could make them, and each counts once |
//!
//! Bad proofs are the validator's: its judge gives penalties for them (`challenge.penalty_*`).
//!
//! **Several behind one address.** An address from which an admitted request succeeded within [`REMEMBERED_MS`] is likely to
//! be shared by that caller and others (NAT), or to be that caller with an error in its program: it needs [`SHARED`] times as
//! much. The time is long because validators may ask once in an hour. Who does even more has the penalty, and with it whoever
//! shares the address: a flood must end somewhere. Loopback and our own addresses never have a penalty: what is there is a
//! proxy or a part of us. A proxy elsewhere cannot be told from a caller; `docs/wire.md` says what its operator sets.
//!
//! **Windows slide.** A count is that of the running window and, of the one before, the share that is not over yet, as if
//! that had come evenly. Each subject is told once a window.
//!
//! **Bounds.** Counts lie in tables of a fixed size, see `table`; a flood from everywhere costs memory nothing, and loses
//! the counts of those seen least.

mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use self::table::{Table, Worth};
use super::subject::{Address, Subject};
use crate::ids::Hotkey;

/// How many times as much a shared address may do.
pub const SHARED: u64 = 10;
/// How long a good request makes its address a shared one, in milliseconds: 24 hours.
pub const REMEMBERED_MS: u64 = 24 * 60 * 60 * 1000;
/// Addresses whose misbehaviour is counted at a time.
const ADDRESSES: usize = 8192;
/// Addresses known to have sent good requests at a time.
const GOOD_ADDRESSES: usize = 4096;
/// Hotkeys whose misbehaviour is counted at a time; each is registered or listed, or it would not be admitted.
const HOTKEYS: usize = 2048;

/// How much is too much within a window. 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnomalyLimits {
    /// The window, in milliseconds.
    pub window_ms: u64,
    /// Bad signatures and unreadable authentication of one address.
    pub bad_signatures: u64,
    /// Replays of one address.
    pub replays: u64,
    /// Unreadable bodies of one hotkey.
    pub malformed: u64,
    /// How long a penalty lasts, in milliseconds; 0 gives none.
    pub penalty_ms: u64,
}

/// What one request was, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Admitted and answered.
    Good {
        /// From where.
        from: Address,
    },
    /// Its signature does not hold, or its authentication cannot be read.
    BadSignature {
        /// From where.
        from: Address,
    },
    /// It came before.
    Replay {
        /// From where.
        from: Address,
    },
    /// Signed, admitted, the first of its nonce, and its body cannot be read.
    Malformed {
        /// Who signed it.
        by: Hotkey,
    },
}

/// A kind of misbehaviour that was too much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Anomaly {
    /// See [`Seen::BadSignature`].
    BadSignatures,
    /// See [`Seen::Replay`].
    Replays,
    /// See [`Seen::Malformed`].
    Malformed,
}

impl Anomaly {
    /// Every kind.
    pub const ALL: &'static [Anomaly] = &[Anomaly::BadSignatures, Anomaly::Replays, Anomaly::Malformed];
    /// The label of a penalty's reason: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            Anomaly::BadSignatures => "bad_signatures",
            Anomaly::Replays => "replays",
            Anomaly::Malformed => "malformed",
        }
    }
    /// What was counted, for people.
    fn text(self) -> &'static str {
        match self {
            Anomaly::BadSignatures => "requests whose authentication does not hold",
            Anomaly::Replays => "requests that had come before",
            Anomaly::Malformed => "signed requests whose body cannot be read",
        }
    }
    fn limit(self, limits: &AnomalyLimits) -> u64 {
        match self {
            Anomaly::BadSignatures => limits.bad_signatures,
            Anomaly::Replays => limits.replays,
            Anomaly::Malformed => limits.malformed,
        }
    }
}

/// Somebody did too much of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Whom it is held against.
    pub subject: Subject,
    /// What it did.
    pub anomaly: Anomaly,
    /// How much was allowed in a window.
    pub allowed: u64,
    /// The window, in milliseconds.
    pub window_ms: u64,
}

impl Finding {
    /// What was seen, in words, safe to publish.
    pub fn detail(&self) -> String {
        let window = humantime::format_duration(std::time::Duration::from_millis(self.window_ms));
        format!("more than {} {} within {window}", self.allowed, self.anomaly.text())
    }
}

/// A count over a sliding window.
#[derive(Debug, Clone, Copy, Default)]
struct Meter {
    /// The running window's number since the Unix epoch.
    window: u64,
    now: u32,
    before: u32,
    /// When it was told that this is too much.
    told_ms: Option<u64>,
}

impl Meter {
    fn turn(&mut self, at_ms: u64, window_ms: u64) {
        let window = at_ms / window_ms;
        if window != self.window {
            // A clock that was set back begins anew.
            self.before = if window == self.window + 1 { self.now } else { 0 };
            (self.window, self.now) = (window, 0);
        }
    }

    /// Counts one more, and tells whether that is more than `allowed` for the first time in a window.
    fn exceeds(&mut self, at_ms: u64, window_ms: u64, allowed: u64) -> bool {
        self.turn(at_ms, window_ms);
        self.now = self.now.saturating_add(1);
        let left = window_ms - at_ms % window_ms;
        let (now, before) = (u128::from(self.now), u128::from(self.before));
        let count = now * u128::from(window_ms) + before * u128::from(left);
        if count <= u128::from(allowed) * u128::from(window_ms) {
            return false;
        }
        if self.told_ms.is_some_and(|told| told.abs_diff(at_ms) < window_ms) {
            return false;
        }
        self.told_ms = Some(at_ms);
        true
    }

    fn seen(&self) -> u64 {
        u64::from(self.now) + u64::from(self.before)
    }
}

#[derive(Debug, Default)]
struct OfAddress {
    bad_signatures: Meter,
    replays: Meter,
    /// From when on none of it counts.
    over_ms: u64,
}

#[derive(Debug, Default)]
struct OfHotkey {
    malformed: Meter,
    /// From when on none of it counts.
    over_ms: u64,
}

/// When an admitted request of an address succeeded last.
#[derive(Debug, Default)]
struct Good(Option<u64>);

fn worth(seen: u64, over_ms: u64, now_ms: u64) -> u64 {
    if now_ms < over_ms { seen } else { 0 }
}

impl Worth for OfAddress {
    fn worth(&self, now_ms: u64) -> u64 {
        worth(self.bad_signatures.seen().max(self.replays.seen()), self.over_ms, now_ms)
    }
}
impl Worth for OfHotkey {
    fn worth(&self, now_ms: u64) -> u64 {
        worth(self.malformed.seen(), self.over_ms, now_ms)
    }
}
impl Worth for Good {
    fn worth(&self, _: u64) -> u64 {
        self.0.unwrap_or(0)
    }
}

/// What was seen of whom.
#[derive(Debug)]
pub struct Anomalies {
    own: Vec<Address>,
    addresses: Table<Address, OfAddress>,
    good: Table<Address, Good>,
    hotkeys: Table<Hotkey, OfHotkey>,
}

impl Anomalies {
    /// Nothing seen yet. `own` are this node's addresses, which never have a penalty.
    pub fn new(own: impl IntoIterator<Item = IpAddr>) -> Self {
        Anomalies {
            own: own.into_iter().filter(|ip| !ip.is_unspecified()).map(Address::of).collect(),
            addresses: Table::new(ADDRESSES),
            good: Table::new(GOOD_ADDRESSES),
            hotkeys: Table::new(HOTKEYS),
        }
    }

    /// The address that misbehaviour from `ip` is held against; none for loopback and our own.
    pub fn held_against(&self, ip: IpAddr) -> Option<Address> {
        let ip = ip.to_canonical();
        let address = Address::of(ip);
        (!ip.is_loopback() && !self.own.contains(&address)).then_some(address)
    }

    /// Counts one request, and says when that was too much, once for each subject, kind and window. `now_ms` is in
    /// milliseconds since the Unix epoch.
    pub fn see(&mut self, limits: &AnomalyLimits, now_ms: u64, seen: Seen) -> Option<Finding> {
        let window_ms = limits.window_ms.max(1);
        let over_ms = now_ms.saturating_add(2 * window_ms);
        let (subject, anomaly, meter) = match seen {
            Seen::Good { from } => {
                self.good.entry(from, now_ms).0 = Some(now_ms);
                return None;
            }
            _ if limits.penalty_ms == 0 => return None,
            Seen::BadSignature { from } => {
                let entry = self.addresses.entry(from, now_ms);
                entry.over_ms = over_ms;
                (Subject::Address(from), Anomaly::BadSignatures, &mut entry.bad_signatures)
            }
            Seen::Replay { from } => {
                let entry = self.addresses.entry(from, now_ms);
                entry.over_ms = over_ms;
                (Subject::Address(from), Anomaly::Replays, &mut entry.replays)
            }
            Seen::Malformed { by } => {
                let entry = self.hotkeys.entry(by, now_ms);
                entry.over_ms = over_ms;
                (Subject::Hotkey(by), Anomaly::Malformed, &mut entry.malformed)
            }
        };
        let limit = anomaly.limit(limits);
        if limit == 0 {
            return None;
        }
        let last_good = match subject {
            Subject::Address(from) => self.good.get(&from).and_then(|good| good.0),
            Subject::Hotkey(_) => None,
        };
        let shared = last_good.is_some_and(|last| last.abs_diff(now_ms) < REMEMBERED_MS);
        let allowed = if shared { limit.saturating_mul(SHARED) } else { limit };
        meter.exceeds(now_ms, window_ms, allowed).then_some(Finding { subject, anomaly, allowed, window_ms })
    }
}
