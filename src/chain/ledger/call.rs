//! What can be asked of the ledger, and how it is signed.
//!
//! A call is signed over blake2b-256 of its canonical bytes: a domain tag, the genesis hash, the subnet, the account's
//! nonce, the signer, and the call with fixed-width little-endian numbers and length-prefixed lists. JSON is only the
//! envelope; how it is spaced does not matter to the signature.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::blake2b_256;
use crate::ids::{Hash32, Hotkey, Netuid};
use crate::wallet::{Signer, verify};

/// What the signed bytes begin with.
const DOMAIN: &[u8] = b"compute-ledger/1 call";

/// A call, with the names and arguments of the real chain's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Registers a hotkey. Signed by the coldkey that pays and will own it.
    BurnedRegister {
        /// The hotkey to register.
        hotkey: Hotkey,
    },
    /// Publishes an axon. Signed by the hotkey.
    ServeAxon {
        /// The version claimed.
        version: u32,
        /// The address as the chain has it: an IPv4 address as its 32-bit number, an IPv6 address as its 128-bit number.
        #[serde(with = "decimal")]
        ip: u128,
        /// The port.
        port: u16,
        /// 4 or 6.
        ip_type: u8,
        /// The protocol number; 4 from the common clients.
        protocol: u8,
    },
    /// Publishes a metrics address. Signed by the hotkey.
    ServePrometheus {
        /// The version claimed.
        version: u32,
        /// The address, as in `ServeAxon`.
        #[serde(with = "decimal")]
        ip: u128,
        /// The port.
        port: u16,
        /// 4 or 6.
        ip_type: u8,
    },
    /// Sets weights. Signed by the hotkey.
    SetWeights {
        /// Whom the weights are for.
        uids: Vec<u16>,
        /// The weights, in the same order.
        values: Vec<u16>,
        /// The version key.
        version_key: u64,
    },
    /// Commits to weights by their hash. Signed by the hotkey.
    CommitWeights {
        /// See [`commit_hash`](crate::chain::commit::commit_hash).
        hash: Hash32,
    },
    /// Reveals weights that were committed to. Signed by the hotkey.
    RevealWeights {
        /// Whom the weights are for.
        uids: Vec<u16>,
        /// The weights, in the same order.
        values: Vec<u16>,
        /// What the hash was salted with.
        salt: Vec<u16>,
        /// The version key.
        version_key: u64,
    },
    /// Moves balance behind a hotkey. Signed by the coldkey that pays.
    AddStake {
        /// The hotkey to stake to.
        hotkey: Hotkey,
        /// How much, in rao.
        amount_rao: u64,
    },
}

/// 128-bit numbers as decimal text: JSON numbers of that size are lost on many readers.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(value: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(|_| D::Error::custom("expected a number below 2^128 as decimal text"))
    }
}

/// An address as the chain has it: number and type.
pub(crate) fn chain_ip(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 4),
        IpAddr::V6(v6) => (v6.to_bits(), 6),
    }
}

/// Bytes in a fixed layout.
struct Canonical(Vec<u8>);
impl Canonical {
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn list(mut self, values: &[u16]) -> Self {
        self.0.extend_from_slice(&(values.len() as u64).to_le_bytes());
        for v in values {
            self.0.extend_from_slice(&v.to_le_bytes());
        }
        self
    }
}

impl Call {
    /// The call's name, as the real chain has it.
    pub fn name(&self) -> &'static str {
        match self {
            Call::BurnedRegister { .. } => "burned_register",
            Call::ServeAxon { .. } => "serve_axon",
            Call::ServePrometheus { .. } => "serve_prometheus",
            Call::SetWeights { .. } => "set_weights",
            Call::CommitWeights { .. } => "commit_weights",
            Call::RevealWeights { .. } => "reveal_weights",
            Call::AddStake { .. } => "add_stake",
        }
    }

    /// Whether it sets, commits or reveals weights.
    pub fn is_of_weights(&self) -> bool {
        matches!(self, Call::SetWeights { .. } | Call::CommitWeights { .. } | Call::RevealWeights { .. })
    }

    fn canonical(&self, out: Canonical) -> Canonical {
        match self {
            Call::BurnedRegister { hotkey } => out.raw(&[0]).raw(&hotkey.0),
            Call::ServeAxon { version, ip, port, ip_type, protocol } => out
                .raw(&[1])
                .raw(&version.to_le_bytes())
                .raw(&ip.to_le_bytes())
                .raw(&port.to_le_bytes())
                .raw(&[*ip_type, *protocol]),
            Call::ServePrometheus { version, ip, port, ip_type } => out
                .raw(&[2])
                .raw(&version.to_le_bytes())
                .raw(&ip.to_le_bytes())
                .raw(&port.to_le_bytes())
                .raw(&[*ip_type]),
            Call::SetWeights { uids, values, version_key } => {
                out.raw(&[3]).list(uids).list(values).raw(&version_key.to_le_bytes())
            }
            Call::AddStake { hotkey, amount_rao } => out.raw(&[4]).raw(&hotkey.0).raw(&amount_rao.to_le_bytes()),
            Call::CommitWeights { hash } => out.raw(&[5]).raw(&hash.0),
            Call::RevealWeights { uids, values, salt, version_key } => {
                out.raw(&[6]).list(uids).list(values).list(salt).raw(&version_key.to_le_bytes())
            }
        }
    }
}

/// A call with everything its signature covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedCall {
    /// The call.
    pub call: Call,
    /// The subnet it is for.
    pub netuid: Netuid,
    /// The account that signs: a hotkey, or a coldkey's bytes.
    pub signer: Hotkey,
    /// The account's nonce: how many of its calls the ledger has taken before.
    pub nonce: u64,
    /// The hash of the ledger's block 0.
    pub genesis: Hash32,
    /// The sr25519 signature over [`message`](SignedCall::message), as hex in text.
    #[serde(with = "hex::serde")]
    pub signature: [u8; 64],
}

impl SignedCall {
    /// Signs a call.
    pub fn sign(call: Call, netuid: Netuid, nonce: u64, genesis: Hash32, signer: &dyn Signer) -> Self {
        let mut signed = SignedCall { call, netuid, signer: signer.hotkey(), nonce, genesis, signature: [0; 64] };
        signed.signature = signer.sign(&signed.message().0);
        signed
    }

    /// What is signed: blake2b-256 of the canonical bytes.
    pub fn message(&self) -> Hash32 {
        let out = Canonical(Vec::with_capacity(256))
            .raw(DOMAIN)
            .raw(&self.genesis.0)
            .raw(&self.netuid.0.to_le_bytes())
            .raw(&self.nonce.to_le_bytes())
            .raw(&self.signer.0);
        blake2b_256(&[&self.call.canonical(out).0])
    }

    /// Whether the signature is the signer's over this call.
    pub fn signature_holds(&self) -> bool {
        verify(&self.signer, &self.message().0, &self.signature)
    }

    /// The extrinsic's hash: blake2b-256 of the message and the signature.
    pub fn hash(&self) -> Hash32 {
        blake2b_256(&[&self.message().0, &self.signature])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::Keypair;

    fn signed(call: Call) -> SignedCall {
        SignedCall::sign(call, Netuid(27), 3, Hash32([7; 32]), &Keypair::from_seed(&[1; 32]))
    }

    fn calls() -> Vec<Call> {
        vec![
            Call::BurnedRegister { hotkey: Hotkey([2; 32]) },
            Call::AddStake { hotkey: Hotkey([2; 32]), amount_rao: 5 },
            Call::ServeAxon { version: 1, ip: 2, port: 3, ip_type: 4, protocol: 5 },
            Call::ServePrometheus { version: 1, ip: u128::MAX, port: 3, ip_type: 4 },
            Call::SetWeights { uids: vec![1, 2], values: vec![3], version_key: 4 },
            Call::SetWeights { uids: vec![1], values: vec![2, 3], version_key: 4 },
            Call::CommitWeights { hash: Hash32([2; 32]) },
            Call::RevealWeights { uids: vec![1, 2], values: vec![3], salt: vec![], version_key: 4 },
            Call::RevealWeights { uids: vec![1], values: vec![2], salt: vec![3], version_key: 4 },
        ]
    }

    #[test]
    fn calls_survive_json_with_their_signature() {
        for call in calls() {
            let before = signed(call);
            let json = serde_json::to_string(&before).unwrap();
            let after: SignedCall = serde_json::from_str(&json).unwrap();
            assert_eq!(after, before);
            assert!(after.signature_holds());
        }
    }

    #[test]
    fn no_two_calls_have_the_same_signed_message() {
        let messages: std::collections::BTreeSet<_> = calls().into_iter().map(|c| signed(c).message()).collect();
        assert_eq!(messages.len(), calls().len());
    }

    #[test]
    fn the_signature_covers_every_field_of_the_envelope() {
        let good = signed(calls().remove(0));
        let mut cases = vec![good.clone(); 5];
        cases[0].nonce += 1;
        cases[1].netuid = Netuid(28);
        cases[2].genesis = Hash32([8; 32]);
        cases[3].signer = Keypair::from_seed(&[2; 32]).hotkey();
        cases[4].call = Call::BurnedRegister { hotkey: Hotkey([3; 32]) };
        assert!(good.signature_holds());
        assert!(cases.iter().all(|c| !c.signature_holds()));
    }

    #[test]
    fn addresses_are_numbers_as_the_sdk_has_them() {
        let file = include_str!("../../../tests/vectors/chain/weights_and_ip.json");
        let file: serde_json::Value = serde_json::from_str(file).unwrap();
        let cases = file["ip"].as_array().unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let (ip, ip_type) = chain_ip(case["ip"].as_str().unwrap().parse().unwrap());
            assert_eq!(ip.to_string(), case["int"], "{case}");
            assert_eq!(ip_type, case["version"], "{case}");
            assert_eq!(hex::encode(ip.to_le_bytes()), case["u128_le_hex"], "{case}");
        }
        assert_eq!(chain_ip("::1".parse().unwrap()), (1, 6));
    }
}
