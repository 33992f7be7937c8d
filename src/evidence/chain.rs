//! What ties a record to all before it: hashes, seals, and the form of one line. Pure.

use serde_json::{Value, json};

use super::canon::{self, CanonError};
use crate::ids::{Hash32, Hotkey};
use crate::wallet::{Keypair, verify};

const GENESIS: &str = "compute-evidence/1 genesis";
const RECORD: &str = "compute-evidence/1 record";
const SEAL: &str = "compute-evidence/1 seal";

/// What the first record of a validator's log follows: `derive_key("compute-evidence/1 genesis", public key 32)`.
pub fn genesis(hotkey: &Hotkey) -> Hash32 {
    Hash32(blake3::derive_key(GENESIS, &hotkey.0))
}

/// The hash of a record: `derive_key("compute-evidence/1 record", hash of the record before 32 ‖ canonical text)`.
pub fn next(prev: &Hash32, canonical: &[u8]) -> Hash32 {
    let mut hasher = blake3::Hasher::new_derive_key(RECORD);
    hasher.update(&prev.0).update(canonical);
    Hash32(*hasher.finalize().as_bytes())
}

/// The canonical text of a record.
///
/// # Errors
/// [`CanonError`] if the body holds a fraction.
pub fn text(seq: u64, at_ms: u64, kind: &str, body: &Value) -> Result<String, CanonError> {
    canon::encode(&json!({ "at_ms": at_ms, "body": body, "kind": kind, "seq": seq }))
}

/// The bytes that a seal of the record `seq` with this hash signs: three lines joined by LF.
fn sealed(seq: u64, hash: &Hash32) -> String {
    format!("{SEAL}\n{seq}\n{hash}")
}

/// The body of a `seal`: the validator's signature (sr25519, context `substrate`) over the record before it.
pub fn seal(keypair: &Keypair, seq: u64, hash: &Hash32) -> Value {
    let signature = keypair.sign(sealed(seq, hash).as_bytes());
    json!({ "of": seq, "hash": hash, "signature": hex::encode(signature) })
}

/// Whether the body of a `seal` is this validator's over the record `seq` with this hash.
pub fn seal_holds(body: &Value, hotkey: &Hotkey, seq: u64, hash: &Hash32) -> bool {
    let signature = || -> Option<[u8; 64]> {
        let mut bytes = [0u8; 64];
        hex::decode_to_slice(body.get("signature")?.as_str()?, &mut bytes).ok()?;
        Some(bytes)
    };
    let names = body.get("of").and_then(Value::as_u64) == Some(seq)
        && body.get("hash").and_then(Value::as_str) == Some(hash.to_string().as_str());
    names && signature().is_some_and(|signature| verify(hotkey, sealed(seq, hash).as_bytes(), &signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_vectors_hold() {
        let genesis = genesis(&Hotkey([2; 32]));
        assert_eq!(genesis.to_string(), "cc6da573520435f634c4965c3223e643da3828141da22fd5857c036aecfddb63");
        let text = text(0, 5, "outage", &json!({"to": 9, "from": 7})).unwrap();
        assert_eq!(text, r#"{"at_ms":5,"body":{"from":7,"to":9},"kind":"outage","seq":0}"#);
        assert_eq!(
            next(&genesis, text.as_bytes()).to_string(),
            "026df6469373494d4501fd81b25940972e1348b02137977bed5569deaf3c9703"
        );
    }

    #[test]
    fn a_seal_holds_for_one_record_of_one_validator() {
        let alice = Keypair::from_uri("//Alice").unwrap();
        let bob = Keypair::from_uri("//Bob").unwrap().hotkey();
        let hash = Hash32([7; 32]);
        let body = seal(&alice, 3, &hash);
        assert!(seal_holds(&body, &alice.hotkey(), 3, &hash));
        assert!(!seal_holds(&body, &bob, 3, &hash), "another validator");
        assert!(!seal_holds(&body, &alice.hotkey(), 4, &hash), "another record");
        assert!(!seal_holds(&body, &alice.hotkey(), 3, &Hash32([8; 32])), "another hash");
        assert!(!seal_holds(&json!({}), &alice.hotkey(), 3, &hash), "no seal at all");
    }
}
