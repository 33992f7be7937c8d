//! The requests between a validator and a miner, and their replies: typed, one POST path each.
//!
//! Bodies are JSON: lenient in (unknown fields are ignored, unknown reasons become `Other`), exact out. The one
//! exception is the reply to [`OpeningsRequest`], which is raw bytes. Times are milliseconds since the Unix epoch.
//! Nothing here names the caller: that is the verified header's hotkey.

use std::fmt;

use secrecy::zeroize::Zeroizing;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::ids::{ChallengeId, DeviceId, Epoch, Hash32, Hotkey, LeaseId};
use crate::verdict::UnknownCause;

/// A request: the type decides path and reply.
pub trait Synapse: Serialize + DeserializeOwned + Send + 'static {
    /// The path it is posted to.
    const PATH: &'static str;
    /// What answers it.
    type Reply: ReplyBody;
}

/// A reply's body on the wire.
pub trait ReplyBody: Sized + Send + 'static {
    /// The `Content-Type` it is sent with.
    const CONTENT_TYPE: &'static str;
    /// The bytes that are sent and signed.
    ///
    /// # Errors
    /// If the value has no JSON form, a map with keys that are no strings for example.
    fn encode(self) -> Result<Vec<u8>, serde_json::Error>;
    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// If the bytes are not the JSON expected.
    fn decode(bytes: Vec<u8>) -> Result<Self, serde_json::Error>;
}

/// A body of raw bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct RawBytes(pub Vec<u8>);

impl fmt::Debug for RawBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawBytes({} bytes)", self.0.len())
    }
}

impl ReplyBody for RawBytes {
    const CONTENT_TYPE: &'static str = "application/octet-stream";
    fn encode(self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(self.0)
    }
    fn decode(bytes: Vec<u8>) -> Result<Self, serde_json::Error> {
        Ok(RawBytes(bytes))
    }
}

macro_rules! synapses {
    ($($path:literal: $request:ty => $reply:ty;)*) => {
        /// Every path, for routing and for metric labels.
        pub const PATHS: &[&str] = &[$($path),*];
        $(impl Synapse for $request {
            const PATH: &'static str = $path;
            type Reply = $reply;
        })*
    };
}

macro_rules! json_replies {
    ($($reply:ty),* $(,)?) => { $(
        impl ReplyBody for $reply {
            const CONTENT_TYPE: &'static str = "application/json";
            fn encode(self) -> Result<Vec<u8>, serde_json::Error> {
                serde_json::to_vec(&self)
            }
            fn decode(bytes: Vec<u8>) -> Result<Self, serde_json::Error> {
                serde_json::from_slice(&bytes)
            }
        }
    )* };
}

synapses! {
    "/ComputeSpecs": SpecsRequest => SpecsReply;
    "/ComputeChallenge": ChallengeRequest => ChallengeReply;
    "/ComputeOpenings": OpeningsRequest => RawBytes;
    "/ComputeAllocate": AllocateRequest => AllocateReply;
    "/ComputeRelease": ReleaseRequest => ReleaseReply;
    "/ComputeLease": LeaseStatusRequest => LeaseStatusReply;
    "/ComputeRenew": RenewRequest => RenewReply;
}
json_replies!(SpecsReply, ChallengeReply, AllocateReply, ReleaseReply, LeaseStatusReply, RenewReply);

/// What every error reply holds, signed or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Which error, snake case, stable.
    pub error: String,
    /// What exactly, for people.
    #[serde(default)]
    pub detail: String,
}

/// Asks a miner what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecsRequest {}

/// What a miner says it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpecsReply {
    /// Version of the miner's program.
    #[serde(default)]
    pub version: String,
    /// The hardware, in the JSON of [`crate::hardware`].
    #[serde(default)]
    pub specs: serde_json::Value,
    /// The devices it can be challenged on.
    #[serde(default)]
    pub devices: Vec<DeviceOffer>,
    /// The leases whose containers it holds.
    #[serde(default)]
    pub leases: Vec<LeaseId>,
}

/// A device that a miner offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOffer {
    /// Which device.
    pub device: DeviceId,
    /// Its model, as NVML spells it, or the class of a CPU device.
    pub model: String,
    /// Its memory in bytes.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// A challenge: work for each device, all of them at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengeRequest {
    /// Which challenge.
    pub challenge: ChallengeId,
    /// The fresh 32 bytes that the seeds are derived from.
    pub nonce: Hash32,
    /// The epoch it counts for.
    pub epoch: Epoch,
    /// The work of each device.
    pub devices: Vec<DeviceWork>,
}

/// The work of one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceWork {
    /// Which device.
    pub device: DeviceId,
    /// Side of the product matrix.
    pub n: u32,
    /// Length of the dot products.
    pub k: u32,
    /// Rounds, each seeded by the root of the one before.
    pub rounds: u32,
}

/// The answer to a challenge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ChallengeReply {
    /// The commitments: from here on the miner is answerable.
    Roots {
        /// One entry for each device asked.
        devices: Vec<DeviceRoots>,
    },
    /// Another window is being served.
    Busy {
        /// When to ask again.
        until_ms: u64,
    },
    /// The miner will not do this work.
    Refused {
        /// Why not.
        reason: ChallengeRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
    /// The miner's own prover failed.
    ProverFailed {
        /// On which device.
        device: DeviceId,
        /// How.
        kind: ProverFailure,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

impl ChallengeReply {
    /// Why this reply leaves the verdict unknown; `None` for roots, which are judged.
    pub fn unknown_cause(&self) -> Option<UnknownCause> {
        match self {
            ChallengeReply::Roots { .. } => None,
            ChallengeReply::Busy { .. } => Some(UnknownCause::Busy),
            ChallengeReply::Refused { reason, .. } => Some(match reason {
                ChallengeRefusal::Budget => UnknownCause::BudgetRefused,
                ChallengeRefusal::NoDevice => UnknownCause::NoDevice,
                ChallengeRefusal::Rented => UnknownCause::Rented,
                ChallengeRefusal::Invalid | ChallengeRefusal::Draining | ChallengeRefusal::Other => {
                    UnknownCause::Refused
                }
            }),
            ChallengeReply::ProverFailed { kind, .. } => Some(match kind {
                ProverFailure::Crashed | ProverFailure::Other => UnknownCause::ProverCrashed,
                ProverFailure::Hung => UnknownCause::ProverHung,
                ProverFailure::Garbage => UnknownCause::ProverGarbage,
            }),
        }
    }
}

/// The roots of one device, one for each round, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRoots {
    /// Which device.
    pub device: DeviceId,
    /// Merkle roots of the rounds.
    pub roots: Vec<Hash32>,
}

/// Why a miner refuses a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChallengeRefusal {
    /// More operations, memory or time than the miner's own budget allows.
    Budget,
    /// A device named is not here.
    NoDevice,
    /// A device named is rented.
    Rented,
    /// The values are outside what a challenge may have.
    Invalid,
    /// The miner is shutting down.
    Draining,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// How a prover failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProverFailure {
    /// Ended early.
    Crashed,
    /// Did not end in its time.
    Hung,
    /// Wrote something that is no answer.
    Garbage,
    /// A failure that this version does not know.
    #[serde(other)]
    Other,
}

/// Asks for tiles of a commitment. The reply is, for each position in this order, the tile followed by its path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpeningsRequest {
    /// Of which challenge.
    pub challenge: ChallengeId,
    /// Of which device.
    pub device: DeviceId,
    /// Round, row and column of an entry in the tile, each from 0.
    pub positions: Vec<[u32; 3]>,
}

/// Asks a miner to run a renter's container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocateRequest {
    /// Which lease; repeats with the same lease and epoch are the same allocation.
    pub lease: LeaseId,
    /// The lease's fencing epoch; a request with an older one than the miner has seen is refused.
    pub fencing_epoch: u64,
    /// When the container ends unless renewed.
    pub expires_at_ms: u64,
    /// For whom.
    pub renter: Hotkey,
    /// The container image.
    pub image: String,
    /// The public key, in OpenSSH's one-line form, that may log in.
    pub ssh_key: String,
    /// The devices the container gets.
    pub devices: Vec<DeviceId>,
    /// The secret that later calls about this lease must show.
    pub owner_token: OwnerToken,
}

/// The answer to an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum AllocateReply {
    /// The container runs and its SSH port answers.
    Running {
        /// Host to log in to.
        ssh_host: String,
        /// Port to log in to.
        ssh_port: u16,
        /// The container's identity at the engine.
        container: String,
    },
    /// Nothing was started.
    Refused {
        /// Why not.
        reason: LeaseRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

/// Why a call about a lease is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseRefusal {
    /// A device has a lease already.
    DeviceBusy,
    /// A device named is not here.
    NoDevice,
    /// The fencing epoch is older than one seen.
    StaleEpoch,
    /// The token or the calling hotkey is not the owner's.
    NotOwner,
    /// The expiry is in the past or too far ahead.
    Expiry,
    /// The image is not one that this miner runs, or cannot be had.
    Image,
    /// The SSH key is not a single valid public key.
    SshKey,
    /// The container engine failed.
    Engine,
    /// The miner cannot record leases now.
    Degraded,
    /// The miner is shutting down.
    Draining,
    /// A reason that this version does not know.
    #[serde(other)]
    Other,
}

/// Asks a miner to end a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRequest {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing epoch.
    pub fencing_epoch: u64,
    /// Its secret.
    pub owner_token: OwnerToken,
}

/// The answer to a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ReleaseReply {
    /// The container is gone.
    Released,
    /// This miner knows no such lease.
    UnknownLease,
    /// The lease goes on.
    Refused {
        /// Why.
        reason: LeaseRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

/// Asks a miner how a lease is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatusRequest {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing epoch.
    pub fencing_epoch: u64,
    /// Its secret.
    pub owner_token: OwnerToken,
}

/// How a lease is on its miner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum LeaseStatusReply {
    /// The miner holds it.
    Known {
        /// The engine's state of the container.
        state: ContainerState,
        /// When it ends.
        expires_at_ms: u64,
    },
    /// This miner knows no such lease.
    UnknownLease,
    /// The miner does not answer this caller about it.
    Refused {
        /// Why.
        reason: LeaseRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

/// The engine's state of a lease's container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Runs.
    Running,
    /// Stopped for now; it is still there.
    Paused,
    /// No longer there.
    Gone,
}

/// Asks a miner to let a lease run longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewRequest {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing epoch.
    pub fencing_epoch: u64,
    /// Its secret.
    pub owner_token: OwnerToken,
    /// The new end.
    pub expires_at_ms: u64,
}

/// The answer to a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum RenewReply {
    /// The lease runs until then.
    Renewed {
        /// The end that now holds.
        expires_at_ms: u64,
    },
    /// This miner knows no such lease.
    UnknownLease,
    /// The old end stands.
    Refused {
        /// Why.
        reason: LeaseRefusal,
        /// For people.
        #[serde(default)]
        detail: String,
    },
}

/// The secret that proves ownership of a lease, 32 random bytes, as hex on the wire.
///
/// It travels over plain HTTP, so it is a second factor: the calling hotkey must match as well. Peers keep only its
/// [`digest`](Self::digest).
#[derive(Clone)]
pub struct OwnerToken(Zeroizing<[u8; 32]>);

impl OwnerToken {
    /// A fresh token from the operating system's randomness.
    ///
    /// # Errors
    /// If the operating system gives none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut token = OwnerToken(Zeroizing::new([0; 32]));
        getrandom::fill(token.0.as_mut_slice())?;
        Ok(token)
    }

    /// The token of these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        OwnerToken(Zeroizing::new(bytes))
    }

    /// The bytes, for the owner's own storage.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// What a peer keeps of it: SHA-256 over `compute-owner-token/1` and the token. Comparing digests leaks nothing
    /// about the token.
    pub fn digest(&self) -> Hash32 {
        Hash32(Sha256::new().chain_update(b"compute-owner-token/1").chain_update(*self.0).finalize().into())
    }
}

impl PartialEq for OwnerToken {
    fn eq(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }
}
impl Eq for OwnerToken {}

impl fmt::Debug for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerToken(hidden)")
    }
}

impl Serialize for OwnerToken {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&Zeroizing::new(hex::encode(*self.0)))
    }
}

impl<'de> Deserialize<'de> for OwnerToken {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        let mut token = OwnerToken(Zeroizing::new([0; 32]));
        hex::decode_to_slice(text.as_bytes(), token.0.as_mut_slice())
            .map_err(|_| serde::de::Error::custom("an owner token is 64 hex digits"))?;
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_wire_form_of_a_challenge_is_fixed() {
        let request = ChallengeRequest {
            challenge: ChallengeId([1; 16]),
            nonce: Hash32([2; 32]),
            epoch: 7,
            devices: vec![DeviceWork { device: DeviceId::cpu(3), n: 64, k: 128, rounds: 2 }],
        };
        let wire = json!({
            "challenge": "01".repeat(16), "nonce": "02".repeat(32), "epoch": 7,
            "devices": [{"device": "CPU-3", "n": 64, "k": 128, "rounds": 2}],
        });
        assert_eq!(serde_json::to_value(&request).unwrap(), wire);
        assert_eq!(serde_json::from_value::<ChallengeRequest>(wire).unwrap(), request);

        let reply = ChallengeReply::Busy { until_ms: 9 };
        assert_eq!(serde_json::to_value(&reply).unwrap(), json!({"outcome": "busy", "until_ms": 9}));
    }

    #[test]
    fn newer_peers_are_understood_as_far_as_possible() {
        let refused = br#"{"outcome":"refused","reason":"full_moon","detail":"x","added":1}"#.to_vec();
        let reply = ChallengeReply::decode(refused).unwrap();
        assert_eq!(reply, ChallengeReply::Refused { reason: ChallengeRefusal::Other, detail: "x".to_owned() });
        assert_eq!(reply.unknown_cause(), Some(UnknownCause::Refused));
        assert!(SpecsReply::decode(b"{}".to_vec()).is_ok());
        assert!(ChallengeReply::decode(br#"{"outcome":"new_kind"}"#.to_vec()).is_err());
    }

    #[test]
    fn every_reply_without_roots_names_its_cause() {
        use UnknownCause as U;
        let refused = |reason| ChallengeReply::Refused { reason, detail: String::new() };
        let failed = |kind| ChallengeReply::ProverFailed { device: DeviceId::cpu(0), kind, detail: String::new() };
        assert_eq!(ChallengeReply::Roots { devices: vec![] }.unknown_cause(), None);
        assert_eq!(ChallengeReply::Busy { until_ms: 0 }.unknown_cause(), Some(U::Busy));
        assert_eq!(refused(ChallengeRefusal::Budget).unknown_cause(), Some(U::BudgetRefused));
        assert_eq!(refused(ChallengeRefusal::NoDevice).unknown_cause(), Some(U::NoDevice));
        assert_eq!(refused(ChallengeRefusal::Rented).unknown_cause(), Some(U::Rented));
        assert_eq!(failed(ProverFailure::Hung).unknown_cause(), Some(U::ProverHung));
        assert_eq!(failed(ProverFailure::Garbage).unknown_cause(), Some(U::ProverGarbage));
    }

    #[test]
    fn an_owner_token_crosses_the_wire_and_shows_nowhere_else() {
        let request = ReleaseRequest {
            lease: LeaseId([1; 16]),
            fencing_epoch: 2,
            owner_token: OwnerToken::from_bytes([0xab; 32]),
        };
        let text = format!("{request:?} {request:#?}");
        assert!(!text.contains("abab") && !text.contains("171") && text.contains("hidden"), "{text}");
        let wire = serde_json::to_string(&request).unwrap();
        assert!(wire.contains(&"ab".repeat(32)));
        assert_eq!(serde_json::from_str::<ReleaseRequest>(&wire).unwrap(), request);
        assert_ne!(request.owner_token.digest().0, [0xab; 32]);
        assert_ne!(OwnerToken::generate().unwrap(), OwnerToken::generate().unwrap());
        let short = serde_json::from_str::<OwnerToken>(r#""abcd""#).unwrap_err().to_string();
        assert!(!short.contains("abcd"), "{short}");
    }
}
