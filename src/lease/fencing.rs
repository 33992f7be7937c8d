//! Who may command a lease: the bearer of its token, in the newest fencing epoch.
//!
//! Every mutating call carries a [`Claim`]. The lease remembers the highest epoch that commanded it; a call with a
//! lower one comes from a renter that was replaced meanwhile and is refused. The token is compared first and in
//! constant time, so a stranger learns nothing about epochs. Only the token's digest is stored.
//!
//! [`Repeats`] makes repeated calls harmless: the same key with the same request gets the first answer again.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::{Hash32, Hotkey, LeaseId, ParseIdError};

use super::machine::Lease;

const DERIVE_CONTEXT: &str = "compute-subnet/1 lease owner token";
const PUBLIC_KEY_CONTEXT: &str = "compute-subnet/1 lease owner token of the original's public key";
const DIGEST_CONTEXT: &str = "compute-subnet/1 lease owner token digest";

/// The secret that owns a lease: 32 bytes, as 64 hex digits on the wire. Never printed, wiped when dropped.
pub struct OwnerToken(SecretBox<[u8; 32]>);

impl OwnerToken {
    /// A token of these bytes, from a secure generator.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        OwnerToken(SecretBox::new(Box::new(bytes)))
    }

    /// The token that a renter with this secret uses for this lease. Nothing but the secret has to survive a restart.
    pub fn derive(secret: &[u8; 32], lease: LeaseId) -> Self {
        let mut h = blake3::Hasher::new_derive_key(DERIVE_CONTEXT);
        h.update(secret);
        h.update(&lease.0);
        OwnerToken::from_bytes(*h.finalize().as_bytes())
    }

    /// The token of a renter who speaks the original's protocol and shows a public key where ours show a token. `text` is
    /// the key's PEM text without the white space around it.
    pub fn of_public_key(text: &str) -> Self {
        OwnerToken::from_bytes(blake3::derive_key(PUBLIC_KEY_CONTEXT, text.as_bytes()))
    }

    /// A fresh token from the operating system's randomness.
    ///
    /// # Errors
    /// If the operating system gives none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0u8; 32];
        getrandom::fill(&mut bytes)?;
        Ok(OwnerToken::from_bytes(bytes))
    }

    /// What is stored of the token.
    pub fn digest(&self) -> Hash32 {
        Hash32(blake3::derive_key(DIGEST_CONTEXT, self.0.expose_secret()))
    }

    /// The token as hex, for the body of a signed call. Must not reach a log.
    pub fn expose_hex(&self) -> String {
        hex::encode(self.0.expose_secret())
    }
}
impl Clone for OwnerToken {
    fn clone(&self) -> Self {
        OwnerToken::from_bytes(*self.0.expose_secret())
    }
}
impl PartialEq for OwnerToken {
    fn eq(&self, other: &Self) -> bool {
        // blake3::Hash compares in constant time.
        blake3::Hash::from_bytes(self.digest().0) == blake3::Hash::from_bytes(other.digest().0)
    }
}
impl Eq for OwnerToken {}
impl Serialize for OwnerToken {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&Zeroizing::new(self.expose_hex()))
    }
}
impl<'de> Deserialize<'de> for OwnerToken {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        // The error never repeats what was sent: it may be most of a token.
        text.parse().map_err(|_| serde::de::Error::custom("an owner token is 64 hex digits"))
    }
}
impl fmt::Debug for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerToken(redacted)")
    }
}
impl FromStr for OwnerToken {
    type Err = ParseIdError;
    fn from_str(s: &str) -> Result<Self, ParseIdError> {
        let mut bytes = [0u8; 32];
        hex::decode_to_slice(s, &mut bytes).map_err(|_| ParseIdError::Hex { expected: 64 })?;
        Ok(OwnerToken::from_bytes(bytes))
    }
}

/// What a mutating call presents.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The lease it is about.
    pub lease: LeaseId,
    /// The caller's fencing epoch.
    pub epoch: u64,
    /// The owner's token.
    pub token: OwnerToken,
}

/// How an accepted claim stands to the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The epoch in force.
    Current,
    /// A higher epoch: the caller takes the lease over, [`super::Event::EpochRaised`] has to be written.
    Newer,
}

/// Why a claim is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FencingError {
    /// The claim names another lease, or one that is not known here.
    #[error("lease {0} is not known here")]
    UnknownLease(LeaseId),
    /// The token is not the owner's.
    #[error("the token does not own lease {0}; present the token the lease was opened with")]
    WrongToken(LeaseId),
    /// The caller was replaced by a newer epoch.
    #[error(
        "fencing epoch {presented} of lease {lease} was superseded by {current}; take the lease over with a higher epoch or give it up"
    )]
    StaleEpoch {
        /// The lease.
        lease: LeaseId,
        /// The epoch of the call.
        presented: u64,
        /// The epoch in force.
        current: u64,
    },
}

impl FencingError {
    /// The metric label: snake case, stable.
    pub fn label(&self) -> &'static str {
        match self {
            FencingError::UnknownLease(_) => "unknown_lease",
            FencingError::WrongToken(_) => "wrong_token",
            FencingError::StaleEpoch { .. } => "stale_epoch",
        }
    }
}

/// Checks a claim against the lease it names.
///
/// # Errors
/// [`FencingError`], the token before the epoch.
pub fn check(lease: &Lease, claim: &Claim) -> Result<Standing, FencingError> {
    if claim.lease != lease.id {
        return Err(FencingError::UnknownLease(claim.lease));
    }
    // blake3::Hash compares in constant time.
    let presented = blake3::Hash::from_bytes(claim.token.digest().0);
    if presented != blake3::Hash::from_bytes(lease.owner_token_digest.0) {
        return Err(FencingError::WrongToken(lease.id));
    }
    match claim.epoch.cmp(&lease.fencing_epoch) {
        std::cmp::Ordering::Less => {
            Err(FencingError::StaleEpoch { lease: lease.id, presented: claim.epoch, current: lease.fencing_epoch })
        }
        std::cmp::Ordering::Equal => Ok(Standing::Current),
        std::cmp::Ordering::Greater => Ok(Standing::Newer),
    }
}

/// The key of one call, chosen by the caller: 16 random bytes, the same for every attempt at the same call.
pub type CallKey = [u8; 16];

/// What is known of a call's key.
#[derive(Debug, PartialEq, Eq)]
pub enum Repeat<'a, R> {
    /// Not seen before: carry the call out, then [`Repeats::remember`] the answer.
    New,
    /// Seen with the same request: give this answer again.
    Same(&'a R),
    /// Seen with another request: refuse, the caller reuses keys.
    Conflict,
}

/// Answers of recent calls by (caller, key), at most `capacity`; the oldest is forgotten first.
#[derive(Debug)]
pub struct Repeats<R> {
    capacity: usize,
    answers: HashMap<(Hotkey, CallKey), (Hash32, R)>,
    order: VecDeque<(Hotkey, CallKey)>,
}

impl<R> Repeats<R> {
    /// A table for `capacity` answers (at least one).
    pub fn new(capacity: usize) -> Self {
        Repeats { capacity: capacity.max(1), answers: HashMap::new(), order: VecDeque::new() }
    }

    /// What is known of this key. `request` is the digest of the request's bytes.
    pub fn look_up(&self, caller: Hotkey, key: CallKey, request: Hash32) -> Repeat<'_, R> {
        match self.answers.get(&(caller, key)) {
            None => Repeat::New,
            Some((seen, answer)) if *seen == request => Repeat::Same(answer),
            Some(_) => Repeat::Conflict,
        }
    }

    /// Keeps the answer of a call. The first answer to a key stays.
    pub fn remember(&mut self, caller: Hotkey, key: CallKey, request: Hash32, answer: R) {
        if self.answers.contains_key(&(caller, key)) {
            return;
        }
        while self.order.len() >= self.capacity {
            if let Some(oldest) = self.order.pop_front() {
                self.answers.remove(&oldest);
            }
        }
        self.order.push_back((caller, key));
        self.answers.insert((caller, key), (request, answer));
    }

    /// How many answers are kept.
    pub fn len(&self) -> usize {
        self.answers.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }
}
