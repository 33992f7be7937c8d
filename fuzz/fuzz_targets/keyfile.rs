//! Hotkey and coldkeypub files: a key that is loaded is the one that the file states, and no error tells a secret.
#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use compute_subnet::ids::Hotkey;
use compute_subnet::wallet::keyfile::{self, KeyfileError};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// The file that is written and read, in memory where the system has that.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = if std::path::Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    dir.join(format!("compute-fuzz-{}", std::process::id()))
});

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
fn tells_nothing(error: &KeyfileError, fields: &Value) {
    let text = format!("{error} {error:?}");
    for field in ["privateKey", "secretSeed", "secretPhrase"] {
        let secret = fields.get(field).and_then(Value::as_str).unwrap_or_default();
        let secret = secret.strip_prefix("0x").unwrap_or(secret);
        // Public fields may be quoted, and may hold the same text; short texts may stand in any message.
        let public = ["publicKey", "accountId", "ss58Address"]
            .iter()
            .any(|f| fields.get(*f).and_then(Value::as_str).is_some_and(|t| t.contains(secret)));
        assert!(secret.len() < 24 || public || !text.contains(secret), "{field} in: {text}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    std::fs::write(&*FILE, bytes).expect("the file can be written");
    let fields: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let is_stated = |key: &Hotkey| {
        for field in ["publicKey", "accountId", "ss58Address"] {
            assert!(stated(&fields, field).is_none_or(|stated| stated == *key), "{field} is another key");
        }
    };
    match keyfile::load(&FILE) {
        Ok(loaded) => is_stated(&loaded.keypair.hotkey()),
        Err(error) => tells_nothing(&error, &fields),
    }
    match keyfile::load_coldkeypub(&FILE) {
        Ok(coldkey) => is_stated(&Hotkey(coldkey.0)),
        Err(error) => tells_nothing(&error, &fields),
    }
});
