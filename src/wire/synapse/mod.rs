//! The requests between a validator and a miner, and between two nodes of one hotkey, and their replies: typed, one POST path each.
//!
//! Bodies are JSON: lenient in (unknown fields are ignored, unknown reasons become `Other`), exact out. The
//! exceptions are the replies to [`OpeningsRequest`] and [`MemoryOpenRequest`], which are raw bytes. Times are milliseconds since the Unix epoch.
//! Nothing here names the caller: that is the verified header's hotkey.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

mod challenge;
mod lease;
mod login;
pub mod original;
mod who;

pub use crate::lease::OwnerToken;
pub use challenge::{
    ChallengeRefusal, ChallengeReply, ChallengeRequest, DeviceMemory, DeviceOffer, DeviceRoots, DeviceWork,
    MemoryFillRequest, MemoryOpenRequest, MemoryScanRequest, OpeningsRequest, ProverFailure, SpecsReply, SpecsRequest,
};
pub use lease::{
    AllocateReply, AllocateRequest, ContainerState, LeaseChange, LeaseChangeReply, LeaseChangeRequest, LeaseRefusal,
    LeaseStatusReply, LeaseStatusRequest, ReleaseReply, ReleaseRequest, RenewReply, RenewRequest,
};
pub use login::{Login, LoginError, ReplyKey, ReplySecret, SealedLogin};
pub use who::{WhoReply, WhoRequest};

/// A request: the type decides path and reply.
pub trait Synapse: Serialize + DeserializeOwned + Send + Sync + 'static {
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
    "/ComputeMemoryFill": MemoryFillRequest => ChallengeReply;
    "/ComputeMemoryScan": MemoryScanRequest => ChallengeReply;
    "/ComputeMemoryOpenings": MemoryOpenRequest => RawBytes;
    "/ComputeAllocate": AllocateRequest => AllocateReply;
    "/ComputeRelease": ReleaseRequest => ReleaseReply;
    "/ComputeLease": LeaseStatusRequest => LeaseStatusReply;
    "/ComputeLeaseChange": LeaseChangeRequest => LeaseChangeReply;
    "/ComputeRenew": RenewRequest => RenewReply;
    "/ComputeWho": WhoRequest => WhoReply;
}
json_replies!(
    SpecsReply,
    ChallengeReply,
    AllocateReply,
    ReleaseReply,
    LeaseStatusReply,
    LeaseChangeReply,
    RenewReply,
    WhoReply
);

/// What every error reply holds, signed or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Which error, snake case, stable.
    pub error: String,
    /// What exactly, for people.
    #[serde(default)]
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChallengeId, DeviceId, Hash32, LeaseId};
    use crate::verdict::UnknownCause;
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
    fn the_wire_form_of_a_challenge_of_memory_is_fixed() {
        let challenge = ChallengeId([1; 16]);
        let devices = vec![DeviceMemory { device: DeviceId::cpu(3), blocks: 1 << 32, iterations: 256, scans: 64 }];
        let fill = MemoryFillRequest { challenge, nonce: Hash32([2; 32]), epoch: 7, devices };
        let wire = json!({
            "challenge": "01".repeat(16), "nonce": "02".repeat(32), "epoch": 7,
            "devices": [{"device": "CPU-3", "blocks": 4_294_967_296u64, "iterations": 256, "scans": 64}],
        });
        assert_eq!(serde_json::to_value(&fill).unwrap(), wire);
        assert_eq!(serde_json::from_value::<MemoryFillRequest>(wire).unwrap(), fill);
        let scan = MemoryScanRequest { challenge, nonce: Hash32([2; 32]) };
        let wire = json!({"challenge": "01".repeat(16), "nonce": "02".repeat(32)});
        assert_eq!(serde_json::to_value(&scan).unwrap(), wire);
        let open = MemoryOpenRequest { challenge, device: DeviceId::cpu(3), positions: vec![[63, u32::MAX]] };
        let wire = json!({"challenge": "01".repeat(16), "device": "CPU-3", "positions": [[63, u32::MAX]]});
        assert_eq!(serde_json::to_value(&open).unwrap(), wire);
        assert_eq!(serde_json::to_value(ChallengeReply::Ready).unwrap(), json!({"outcome": "ready"}));
        let gone = ChallengeReply::Refused { reason: ChallengeRefusal::Gone, detail: String::new() };
        assert_eq!(serde_json::to_value(&gone).unwrap(), json!({"outcome": "refused", "reason": "gone", "detail": ""}));
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
        assert_eq!(ChallengeReply::Ready.unknown_cause(), None);
        assert_eq!(refused(ChallengeRefusal::Gone).unknown_cause(), Some(U::Refused));
        assert_eq!(ChallengeReply::Busy { until_ms: 0 }.unknown_cause(), Some(U::Busy));
        assert_eq!(refused(ChallengeRefusal::Budget).unknown_cause(), Some(U::BudgetRefused));
        assert_eq!(refused(ChallengeRefusal::NoDevice).unknown_cause(), Some(U::NoDevice));
        assert_eq!(refused(ChallengeRefusal::Rented).unknown_cause(), Some(U::Rented));
        assert_eq!(failed(ProverFailure::Hung).unknown_cause(), Some(U::ProverHung));
        assert_eq!(failed(ProverFailure::Garbage).unknown_cause(), Some(U::ProverGarbage));
        assert_eq!(failed(ProverFailure::Device).unknown_cause(), Some(U::DeviceFailed));
    }

    #[test]
    fn the_wire_form_of_a_lease_is_what_old_peers_know_and_a_login_more() {
        let secret = ReplySecret::generate().unwrap();
        let request = AllocateRequest {
            lease: LeaseId([1; 16]),
            fencing_epoch: 2,
            expires_at_ms: 3,
            renter: crate::ids::Hotkey([4; 32]),
            image: "ubuntu".into(),
            ssh_key: "ssh-ed25519 A".into(),
            devices: vec![DeviceId::cpu(0)],
            owner_token: OwnerToken::from_bytes([5; 32]),
            reply_key: None,
        };
        let old = serde_json::to_value(&request).unwrap();
        assert!(old.get("reply_key").is_none(), "{old}");
        assert_eq!(serde_json::from_value::<AllocateRequest>(old).unwrap(), request);
        let request = AllocateRequest { reply_key: Some(secret.public()), ..request };
        let new = serde_json::to_value(&request).unwrap();
        assert_eq!(new["reply_key"].as_str().map(str::len), Some(64));
        assert_eq!(serde_json::from_value::<AllocateRequest>(new).unwrap(), request);

        let old = br#"{"outcome":"running","ssh_host":"192.0.2.1","ssh_port":4444,"container":"c"}"#.to_vec();
        let running =
            AllocateReply::Running { ssh_host: "192.0.2.1".into(), ssh_port: 4444, container: "c".into(), login: None };
        assert_eq!(AllocateReply::decode(old.clone()).unwrap(), running);
        assert_eq!(running.encode().unwrap(), old);
        let known = br#"{"outcome":"known","state":"paused","expires_at_ms":7}"#.to_vec();
        let status = LeaseStatusReply::Known { state: ContainerState::Paused, expires_at_ms: 7, login: None };
        assert_eq!(LeaseStatusReply::decode(known).unwrap(), status);

        let change = LeaseChangeRequest {
            lease: LeaseId([1; 16]),
            fencing_epoch: 2,
            owner_token: OwnerToken::from_bytes([5; 32]),
            key: [6; 16],
            change: LeaseChange::UserKey { ssh_key: "ssh-ed25519 B".into() },
        };
        let wire = json!({
            "lease": "01".repeat(16), "fencing_epoch": 2, "owner_token": "05".repeat(32), "key": "06".repeat(16),
            "change": {"do": "user_key", "ssh_key": "ssh-ed25519 B"},
        });
        assert_eq!(serde_json::to_value(&change).unwrap(), wire);
        assert_eq!(serde_json::from_value::<LeaseChangeRequest>(wire).unwrap(), change);
        assert_eq!(serde_json::to_value(LeaseChange::Resume).unwrap(), json!({"do": "resume"}));
    }

    #[test]
    fn an_owner_token_crosses_the_wire_and_shows_nowhere_else() {
        let request = ReleaseRequest {
            lease: LeaseId([1; 16]),
            fencing_epoch: 2,
            owner_token: OwnerToken::from_bytes([0xab; 32]),
        };
        let text = format!("{request:?} {request:#?}");
        assert!(!text.contains("abab") && !text.contains("171") && text.contains("redacted"), "{text}");
        let wire = serde_json::to_string(&request).unwrap();
        assert!(wire.contains(&"ab".repeat(32)));
        assert_eq!(serde_json::from_str::<ReleaseRequest>(&wire).unwrap(), request);
        assert_ne!(request.owner_token.digest().0, [0xab; 32]);
        assert_ne!(OwnerToken::generate().unwrap(), OwnerToken::generate().unwrap());
        let short = serde_json::from_str::<OwnerToken>(r#""abcd""#).unwrap_err().to_string();
        assert!(!short.contains("abcd"), "{short}");
    }
}
