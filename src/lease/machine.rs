//! The lease as an event-sourced state machine:
//! `Requested → Reserving → Running ⇄ Paused → Releasing → Released | Lost | Refused`.
//!
//! The same machine runs on both sides of a rental ([`Role`]): on the miner its effects go to the container engine, on
//! the renting validator they go to the miner. [`apply`] is total and pure: an event that the state does not allow is
//! an error, an exact repeat of one that was taken changes nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Hash32, Hotkey, LeaseId};

/// The most devices one lease may ask for.
pub const MAX_DEVICES: usize = 64;
/// The longest SSH public key that is taken, in bytes (an RSA key of 16,384 bits has 2,800).
pub const MAX_SSH_KEY: usize = 8 * 1024;
/// The longest name of an image that is taken, in bytes (registry, 255 of a name, a tag of 128, a digest of 71).
pub const MAX_IMAGE: usize = 512;

/// Which side of the rental keeps this record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The miner, whose engine holds the container.
    Provider,
    /// The validator that rents on behalf of its user.
    Renter,
}

/// Where a lease stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseState {
    /// Asked for; nothing is set aside yet.
    Requested,
    /// Devices are set aside and the intent to create the container is written.
    Reserving,
    /// The container runs.
    Running,
    /// The container is meant to be paused. It still exists and still holds its devices.
    Paused,
    /// The intent to destroy the container is written; the devices are still held.
    Releasing,
    /// The container was destroyed, or was never made. Final.
    Released,
    /// The container is gone without our doing. Final, but for [`Event::Found`].
    Lost,
    /// The lease never began. Final.
    Refused,
}

impl LeaseState {
    /// Every state, in the order of a lease's life.
    pub const ALL: &'static [LeaseState] = &[
        LeaseState::Requested,
        LeaseState::Reserving,
        LeaseState::Running,
        LeaseState::Paused,
        LeaseState::Releasing,
        LeaseState::Released,
        LeaseState::Lost,
        LeaseState::Refused,
    ];
    /// The metric label: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            LeaseState::Requested => "requested",
            LeaseState::Reserving => "reserving",
            LeaseState::Running => "running",
            LeaseState::Paused => "paused",
            LeaseState::Releasing => "releasing",
            LeaseState::Released => "released",
            LeaseState::Lost => "lost",
            LeaseState::Refused => "refused",
        }
    }
    /// Whether devices belong to the lease in this state: from the intent to create until the destruction is seen.
    pub fn holds_devices(self) -> bool {
        matches!(self, LeaseState::Reserving | LeaseState::Running | LeaseState::Paused | LeaseState::Releasing)
    }
    /// Whether the renter can use the lease, or could if it were not paused.
    pub fn is_live(self) -> bool {
        matches!(self, LeaseState::Running | LeaseState::Paused)
    }
    /// Whether nothing is to be done any more, and nothing can follow but [`Event::Found`].
    pub fn is_final(self) -> bool {
        matches!(self, LeaseState::Released | LeaseState::Lost | LeaseState::Refused)
    }
}
impl std::fmt::Display for LeaseState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.label())
    }
}

/// Why a lease ends, or never began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// Its owner returned it.
    Returned,
    /// Its time is over.
    Expired,
    /// Both vantage points missed it too often, see [`crate::lease::health`].
    Unhealthy,
    /// The engine did not say whether the container was made, so it is destroyed to be sure.
    CreateUnclear,
    /// The engine refused to make the container.
    EngineRefused,
    /// The image is not one that may run here, or cannot be had.
    ImageRefused,
    /// A device is not free, or not there.
    DeviceNotFree,
    /// The other side refused.
    PeerRefused,
    /// Taken back before anything was set aside, or forgotten by a restart at that point.
    Withdrawn,
    /// The operator of this machine ended it.
    Operator,
    /// Its renter was never told that it has it, and will not ask again.
    Unheard,
    /// Proofs showed that the machine is no longer what was rented, see [`crate::rental::hardware`].
    HardwareChanged,
}

impl EndReason {
    /// Every reason.
    pub const ALL: &'static [EndReason] = &[
        EndReason::Returned,
        EndReason::Expired,
        EndReason::Unhealthy,
        EndReason::CreateUnclear,
        EndReason::EngineRefused,
        EndReason::ImageRefused,
        EndReason::DeviceNotFree,
        EndReason::PeerRefused,
        EndReason::Withdrawn,
        EndReason::Operator,
        EndReason::Unheard,
        EndReason::HardwareChanged,
    ];
    /// The metric label: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            EndReason::Returned => "returned",
            EndReason::Expired => "expired",
            EndReason::Unhealthy => "unhealthy",
            EndReason::CreateUnclear => "create_unclear",
            EndReason::EngineRefused => "engine_refused",
            EndReason::ImageRefused => "image_refused",
            EndReason::DeviceNotFree => "device_not_free",
            EndReason::PeerRefused => "peer_refused",
            EndReason::Withdrawn => "withdrawn",
            EndReason::Operator => "operator",
            EndReason::Unheard => "unheard",
            EndReason::HardwareChanged => "hardware_changed",
        }
    }
}

/// Where a renter logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// The miner's address as seen from outside.
    pub host: IpAddr,
    /// The TCP port of the container's SSH server on that address.
    pub ssh_port: u16,
}

/// A device with the model it was proved as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedDevice {
    /// Which.
    pub device: DeviceId,
    /// The model, as NVML spells it or a device class.
    pub model: String,
}

/// What a renter asks for. The token's digest, never the token, is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTerms {
    /// The lease, chosen at random by the renting validator.
    pub id: LeaseId,
    /// Which side keeps this record.
    pub role: Role,
    /// The first fencing epoch, from 1. A later call with a higher one takes the lease over.
    pub fencing_epoch: u64,
    /// The renting validator.
    pub renter: Hotkey,
    /// The miner whose devices are rented.
    pub miner: Hotkey,
    /// The devices, each once.
    pub devices: Vec<DeviceId>,
    /// When the lease ends by itself, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// Digest of the owner's token, see [`crate::lease::OwnerToken::digest`].
    pub owner_token_digest: Hash32,
    /// The public key that may log in, one line in OpenSSH's format.
    pub ssh_public_key: Option<String>,
    /// The image that the renter asked for; empty: the miner's default.
    #[serde(default)]
    pub image: String,
    /// Digest of all that the user asked for, on the renter's side: what tells a repeat from another wish under the same id.
    #[serde(default)]
    pub wish: Option<Hash32>,
    /// The renter neither knows the lease's id nor asks again: unless it hears that it has the lease, nobody ever returns
    /// it. Callers of the original's protocol are such renters; records without this field are of others.
    #[serde(default)]
    pub unheard: bool,
}

/// Why terms are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// No device was named.
    #[error("the lease names no device")]
    NoDevice,
    /// Too many devices.
    #[error("the lease names {0} devices, at most {MAX_DEVICES} are allowed")]
    TooManyDevices(usize),
    /// A device was named twice.
    #[error("the lease names device {0} twice")]
    DeviceTwice(DeviceId),
    /// Fencing epochs count from 1.
    #[error("fencing epoch 0, they count from 1")]
    NoEpoch,
    /// The end lies in the past.
    #[error("the lease would have ended {0} ms ago")]
    AlreadyOver(u64),
    /// The end lies too far ahead.
    #[error("the lease would last {asked_ms} ms, at most {limit_ms} ms are allowed")]
    TooLong {
        /// Asked for, in milliseconds.
        asked_ms: u64,
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The SSH key is not one line of printable text.
    #[error("the SSH public key must be one line of printable text of at most {MAX_SSH_KEY} bytes")]
    SshKey,
    /// The image's name is not one.
    #[error("the image must be named by at most {MAX_IMAGE} letters, digits and characters of -._/:@")]
    Image,
}

impl LeaseTerms {
    /// Checks what a renter sent: devices named once, an end in the future and within `longest`, a key of one line.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self, now_ms: u64, longest: Duration) -> Result<(), TermsError> {
        match self.devices.len() {
            0 => return Err(TermsError::NoDevice),
            n if n > MAX_DEVICES => return Err(TermsError::TooManyDevices(n)),
            _ => {}
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.devices.iter().find(|d| !seen.insert(**d)) {
            return Err(TermsError::DeviceTwice(*twice));
        }
        if self.fencing_epoch == 0 {
            return Err(TermsError::NoEpoch);
        }
        check_end(self.expires_at_ms, now_ms, longest)?;
        if self.ssh_public_key.as_deref().is_some_and(|key| !is_key_line(key)) {
            return Err(TermsError::SshKey);
        }
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || "-._/:@".contains(c);
        if self.image.len() > MAX_IMAGE || !self.image.chars().all(of_a_name) {
            return Err(TermsError::Image);
        }
        Ok(())
    }
}

/// Whether this is one line of printable text that can be a public key.
pub(super) fn is_key_line(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_SSH_KEY && !text.chars().any(char::is_control)
}

/// Checks the end of a lease, at its beginning or when it is extended: in the future and within `longest` of `now_ms`.
///
/// # Errors
/// [`TermsError::AlreadyOver`] or [`TermsError::TooLong`].
pub fn check_end(expires_at_ms: u64, now_ms: u64, longest: Duration) -> Result<(), TermsError> {
    if expires_at_ms <= now_ms {
        return Err(TermsError::AlreadyOver(now_ms - expires_at_ms));
    }
    let (asked_ms, limit_ms) = (expires_at_ms - now_ms, u64::try_from(longest.as_millis()).unwrap_or(u64::MAX));
    if asked_ms > limit_ms { Err(TermsError::TooLong { asked_ms, limit_ms }) } else { Ok(()) }
}

/// One rental as its record stands. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The lease.
    pub id: LeaseId,
    /// Which side keeps this record.
    pub role: Role,
    /// The highest fencing epoch that commanded this lease; calls with a lower one are refused.
    pub fencing_epoch: u64,
    /// The fencing epoch on the container's labels: the one in force when devices were reserved.
    pub container_epoch: Option<u64>,
    /// The renting validator.
    pub renter: Hotkey,
    /// The miner whose devices are rented.
    pub miner: Hotkey,
    /// The devices, each once.
    pub devices: Vec<DeviceId>,
    /// On the renter's side: what the miner had proved when they were set aside, the rented ones among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proved: Vec<ProvedDevice>,
    /// When the lease was asked for.
    pub requested_at_ms: u64,
    /// When its container started.
    pub began_at_ms: Option<u64>,
    /// When the lease ends by itself.
    pub expires_at_ms: u64,
    /// When it reached its final state.
    pub ended_at_ms: Option<u64>,
    /// Digest of the owner's token.
    pub owner_token_digest: Hash32,
    /// The public key that may log in at the beginning.
    pub ssh_public_key: Option<String>,
    /// The image that was asked for; empty: the miner's default.
    #[serde(default)]
    pub image: String,
    /// Digest of the user's wish, see [`LeaseTerms::wish`].
    #[serde(default)]
    pub wish: Option<Hash32>,
    /// Nobody but us knows of the lease, see [`LeaseTerms::unheard`]; until [`Event::Heard`].
    #[serde(default)]
    pub unheard: bool,
    /// The engine's name of the container.
    pub container: Option<String>,
    /// Where the renter logs in.
    pub endpoint: Option<Endpoint>,
    /// The public key of the container's SSH server, see [`Container::host_key`](super::Container::host_key).
    #[serde(default)]
    pub host_key: Option<String>,
    /// Where the lease stands.
    pub state: LeaseState,
    /// Why it ends or ended.
    pub end: Option<EndReason>,
    /// What was seen then, safe to publish.
    pub note: Option<String>,
}

impl Lease {
    /// A new lease in state [`LeaseState::Requested`]. `terms` were checked by [`LeaseTerms::check`].
    pub fn open(terms: &LeaseTerms, at_ms: u64) -> Lease {
        Lease {
            id: terms.id,
            role: terms.role,
            fencing_epoch: terms.fencing_epoch,
            container_epoch: None,
            renter: terms.renter,
            miner: terms.miner,
            devices: terms.devices.clone(),
            proved: Vec::new(),
            requested_at_ms: at_ms,
            began_at_ms: None,
            expires_at_ms: terms.expires_at_ms,
            ended_at_ms: None,
            owner_token_digest: terms.owner_token_digest,
            ssh_public_key: terms.ssh_public_key.clone(),
            image: terms.image.clone(),
            wish: terms.wish,
            unheard: terms.unheard,
            container: None,
            endpoint: None,
            host_key: None,
            state: LeaseState::Requested,
            end: None,
            note: None,
        }
    }

    /// The lease that a list of events, oldest first, leads to.
    ///
    /// # Errors
    /// [`TransitionError::NotOpened`] when the first event is not [`Event::Opened`], else what [`apply`] says.
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Lease, TransitionError> {
        let mut events = events.into_iter();
        let Some(Event::Opened { terms, at_ms }) = events.next() else {
            return Err(TransitionError::NotOpened);
        };
        events.try_fold(Lease::open(terms, *at_ms), |lease, event| apply(&lease, event))
    }

    /// Whether the lease's time is over.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        now_ms >= self.expires_at_ms
    }

    fn end(&mut self, state: LeaseState, at_ms: u64) {
        self.state = state;
        self.ended_at_ms = Some(at_ms);
    }
}

/// Something that happened to a lease, or was decided about it. Written to the journal before it takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The lease was asked for. The first event of every lease, and never a later one.
    Opened {
        /// What was asked.
        terms: LeaseTerms,
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// Devices are set aside; the container is about to be created.
    Reserved,
    /// On the renter's side: another miner is asked, since the one before certainly holds nothing of the lease.
    Moved {
        /// Who is asked from now on.
        miner: Hotkey,
        /// The devices set aside there, each once.
        devices: Vec<DeviceId>,
    },
    /// On the renter's side: what the miner had proved when the devices were set aside.
    Proved {
        /// All of its devices, the rented ones among them.
        devices: Vec<ProvedDevice>,
    },
    /// Something was seen that the lease's renter is to know.
    Noted {
        /// What, safe to publish.
        note: String,
    },
    /// The container runs.
    Started {
        /// The engine's name of it.
        container: String,
        /// Where the renter logs in.
        endpoint: Option<Endpoint>,
        /// The public key of its SSH server, one line in OpenSSH's format.
        #[serde(default)]
        host_key: Option<String>,
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// The renter is told that it has the lease. Written before it is told: whoever hears of a lease has one.
    Heard,
    /// The lease will not begin, and nothing was created.
    Refused {
        /// Why not.
        why: EndReason,
        /// What was seen, safe to publish.
        note: String,
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// The container is to be paused.
    Paused,
    /// The container is to run again.
    Unpaused,
    /// The lease lasts longer. It is never made shorter.
    Extended {
        /// The new end, in milliseconds since the Unix epoch.
        expires_at_ms: u64,
    },
    /// A call with a higher fencing epoch took the lease over.
    EpochRaised {
        /// The epoch in force from now on.
        epoch: u64,
    },
    /// The container is about to be destroyed.
    ReleaseWanted {
        /// Why.
        why: EndReason,
    },
    /// The container is seen to be destroyed, or was never there.
    Destroyed {
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// The container is gone without our doing.
    Lost {
        /// What was seen, safe to publish.
        note: String,
        /// When, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// On the miner's side: the container of a lost lease is there again and runs, and its renter showed that the lease goes on.
    Found {
        /// When the lease ends, as its renter says; never before the end that was known.
        expires_at_ms: u64,
    },
}

impl Event {
    /// The event's name in logs and metrics: snake case, stable.
    pub fn label(&self) -> &'static str {
        match self {
            Event::Opened { .. } => "opened",
            Event::Reserved => "reserved",
            Event::Moved { .. } => "moved",
            Event::Proved { .. } => "proved",
            Event::Noted { .. } => "noted",
            Event::Started { .. } => "started",
            Event::Heard => "heard",
            Event::Refused { .. } => "refused",
            Event::Paused => "paused",
            Event::Unpaused => "unpaused",
            Event::Extended { .. } => "extended",
            Event::EpochRaised { .. } => "epoch_raised",
            Event::ReleaseWanted { .. } => "release_wanted",
            Event::Destroyed { .. } => "destroyed",
            Event::Lost { .. } => "lost",
            Event::Found { .. } => "found",
        }
    }
}

/// Why an event cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The state does not allow it.
    #[error("lease {lease} is {from}: {event} cannot follow")]
    NotAllowed {
        /// The lease.
        lease: LeaseId,
        /// Its state.
        from: LeaseState,
        /// The event's label.
        event: &'static str,
    },
    /// A list of events does not begin with the lease's opening.
    #[error("the first event of a lease must open it")]
    NotOpened,
}

/// The lease after `event`. An exact repeat of an event that was taken before returns the lease unchanged.
///
/// # Errors
/// [`TransitionError::NotAllowed`] when the state does not allow the event.
pub fn apply(lease: &Lease, event: &Event) -> Result<Lease, TransitionError> {
    use LeaseState as S;
    let mut next = lease.clone();
    match (lease.state, event) {
        _ if is_repeat(lease, event) => {}
        (S::Requested, Event::Reserved) => {
            next.state = S::Reserving;
            next.container_epoch = Some(lease.fencing_epoch);
        }
        (S::Reserving, Event::Moved { miner, devices }) if lease.role == Role::Renter && !devices.is_empty() => {
            next.miner = *miner;
            next.devices = devices.clone();
            next.proved = Vec::new();
        }
        (S::Requested | S::Reserving, Event::Proved { devices }) if lease.role == Role::Renter => {
            next.proved = devices.clone();
        }
        (from, Event::Noted { note }) if !from.is_final() => next.note = Some(note.clone()),
        (S::Requested | S::Reserving, Event::Refused { why, note, at_ms }) => {
            next.end = Some(*why);
            next.note = Some(note.clone());
            next.end(S::Refused, *at_ms);
        }
        (S::Reserving, Event::Started { container, endpoint, host_key, at_ms }) => {
            next.state = S::Running;
            next.container = Some(container.clone());
            next.endpoint = *endpoint;
            next.host_key = host_key.clone();
            next.began_at_ms = Some(*at_ms);
        }
        (S::Running | S::Paused, Event::Heard) => next.unheard = false,
        (S::Running, Event::Paused) => next.state = S::Paused,
        (S::Paused, Event::Unpaused) => next.state = S::Running,
        (S::Running | S::Paused, Event::Extended { expires_at_ms }) if *expires_at_ms > lease.expires_at_ms => {
            next.expires_at_ms = *expires_at_ms;
        }
        (from, Event::EpochRaised { epoch }) if !from.is_final() && *epoch > lease.fencing_epoch => {
            next.fencing_epoch = *epoch;
        }
        (S::Reserving | S::Running | S::Paused, Event::ReleaseWanted { why }) => {
            next.state = S::Releasing;
            next.end = Some(*why);
        }
        (S::Releasing, Event::Destroyed { at_ms }) => next.end(S::Released, *at_ms),
        (S::Running | S::Paused, Event::Lost { note, at_ms }) => {
            next.note = Some(note.clone());
            next.end(S::Lost, *at_ms);
        }
        // A renter may never hear whether its miner destroyed the container; the miner itself can always look.
        (S::Reserving | S::Releasing, Event::Lost { note, at_ms }) if lease.role == Role::Renter => {
            next.note = Some(note.clone());
            next.end(S::Lost, *at_ms);
        }
        (S::Lost, Event::Found { expires_at_ms }) if lease.role == Role::Provider => {
            next.state = S::Running;
            next.expires_at_ms = lease.expires_at_ms.max(*expires_at_ms);
            (next.ended_at_ms, next.note) = (None, None);
        }
        (from, event) => {
            return Err(TransitionError::NotAllowed { lease: lease.id, from, event: event.label() });
        }
    }
    Ok(next)
}

/// Whether the lease already shows what the event says.
fn is_repeat(lease: &Lease, event: &Event) -> bool {
    use LeaseState as S;
    match (lease.state, event) {
        (_, Event::Opened { terms, at_ms }) => *lease == Lease::open(terms, *at_ms),
        (S::Reserving, Event::Reserved) => true,
        (S::Reserving, Event::Moved { miner, devices }) => lease.miner == *miner && lease.devices == *devices,
        (_, Event::Proved { devices }) => lease.proved == *devices,
        (_, Event::Noted { note }) => lease.note.as_ref() == Some(note),
        (S::Running | S::Paused, Event::Started { container, .. }) => lease.container.as_ref() == Some(container),
        (S::Paused, Event::Paused) | (S::Running, Event::Unpaused) => true,
        (S::Running | S::Paused, Event::Extended { expires_at_ms } | Event::Found { expires_at_ms }) => {
            lease.expires_at_ms == *expires_at_ms
        }
        (_, Event::EpochRaised { epoch }) => lease.fencing_epoch == *epoch,
        (S::Releasing | S::Released, Event::ReleaseWanted { .. }) => true,
        (S::Released, Event::Destroyed { .. })
        | (S::Lost, Event::Lost { .. })
        | (S::Refused, Event::Refused { .. }) => true,
        _ => false,
    }
}
