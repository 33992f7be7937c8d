//! Hotkey and coldkeypub files: a key that is read is the one that the file states, and no error tells a secret.
//!
//! Without a password: what an encrypted file costs to try is far beyond what a fuzzer can pay.
#![no_main]

use compute_subnet::ids::Hotkey;
use compute_subnet::wallet::keyfile::{self, KeyfileErrorKind};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const PUBLIC: [&str; 3] = ["publicKey", "accountId", "ss58Address"];
const SECRET: [&str; 3] = ["privateKey", "secretSeed", "secretPhrase"];

/// The public key that a JSON file states in this field.
fn stated(fields: &Value, field: &str) -> Option<Hotkey> {
    let text = fields.get(field)?.as_str()?;
    if field == "ss58Address" {
        return text.parse().ok();
    }
    let mut key = [0u8; 32];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut key).ok()?;
    Some(Hotkey(key))
}

/// No error's text holds what the file has in its secret fields.
fn tells_nothing(error: &KeyfileErrorKind, fields: &Value) {
    let text = format!("{error} {error:?}");
    for field in SECRET {
        let secret = fields.get(field).and_then(Value::as_str).unwrap_or_default();
        let secret = secret.strip_prefix("0x").unwrap_or(secret);
        // Public fields may be quoted, and may hold the same text; short texts may stand in any message.
        let holds = |public: &str| fields.get(public).and_then(Value::as_str).is_some_and(|t| t.contains(secret));
        let said = secret.len() >= 24 && text.contains(secret) && !PUBLIC.into_iter().any(holds);
        assert!(!said, "{field} in: {text}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    let fields: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let is_stated = |key: Hotkey| {
        for field in PUBLIC {
            assert!(stated(&fields, field).is_none_or(|stated| stated == key), "{field} is another key");
        }
    };
    let decoded = keyfile::decode(bytes, None).map(|key| key.hotkey());
    match &decoded {
        Ok(key) => is_stated(*key),
        Err(error) => tells_nothing(error, &fields),
    }
    let public = keyfile::decode_public(bytes);
    match &public {
        Ok(key) => is_stated(*key),
        Err(error) => tells_nothing(error, &fields),
    }
    // A file has one key: a secret that is accepted belongs to the address that is shown.
    if let (Ok(secret), Ok(public)) = (&decoded, &public) {
        assert_eq!(secret, public);
    }
    match keyfile::inspect(bytes) {
        Ok(seen) => {
            assert_eq!(seen.key.as_ref().ok(), decoded.as_ref().ok());
            if seen.sealed.is_none() {
                assert_eq!(seen.public.as_ref().ok().copied().flatten(), public.ok());
            }
        }
        Err(error) => {
            assert!(decoded.is_err() && public.is_err());
            tells_nothing(&error, &fields);
        }
    }
});
