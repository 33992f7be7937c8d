//! The JSON of a key file, and which of its secrets is the key. Pure.

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::error::KeyfileErrorKind;
use crate::ids::Hotkey;
use crate::wallet::keypair::Keypair;
use crate::wallet::phrase;

/// `cryptoType` of sr25519 in key files. Old files leave it out.
pub(super) const SR25519: i64 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Fields {
    account_id: Option<String>,
    public_key: Option<String>,
    ss58_address: Option<String>,
    private_key: Option<SecretString>,
    secret_seed: Option<SecretString>,
    secret_phrase: Option<SecretString>,
    crypto_type: Option<i64>,
}

impl Fields {
    /// Reads unencrypted content.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, KeyfileErrorKind> {
        let bare = bytes.trim_ascii();
        if let Some(digits) = bare.strip_prefix(b"0x")
            && digits.iter().all(u8::is_ascii_hexdigit)
        {
            return Err(KeyfileErrorKind::BareHex);
        }
        serde_json::from_slice(bytes).map_err(|e| KeyfileErrorKind::Json { line: e.line(), column: e.column() })
    }

    pub(super) fn crypto_type(&self) -> Option<i64> {
        self.crypto_type
    }

    /// The names of the secret fields that are there.
    pub(super) fn secret_names(&self) -> Vec<&'static str> {
        let named = [
            ("secretSeed", &self.secret_seed),
            ("secretPhrase", &self.secret_phrase),
            ("privateKey", &self.private_key),
        ];
        named.into_iter().filter(|(_, secret)| secret.is_some()).map(|(name, _)| name).collect()
    }

    /// The public key that the file states, if it states one.
    pub(super) fn stated(&self) -> Result<Option<Hotkey>, KeyfileErrorKind> {
        let mut stated = None;
        let hex_key = |text: &str| hex_field::<32>(text).map(|key| Hotkey(*key));
        let found = [
            ("publicKey", self.public_key.as_deref().map(hex_key)),
            ("accountId", self.account_id.as_deref().map(hex_key)),
            ("ss58Address", self.ss58_address.as_deref().map(|text| text.parse().ok())),
        ];
        for (field, key) in found {
            let Some(key) = key else { continue };
            let key = key.ok_or(KeyfileErrorKind::PublicField { field })?;
            if *stated.get_or_insert(key) != key {
                return Err(KeyfileErrorKind::PublicMismatch);
            }
        }
        Ok(stated)
    }

    /// The key that the secrets make.
    pub(super) fn secret(&self) -> Result<Keypair, KeyfileErrorKind> {
        if let Some(other) = self.crypto_type.filter(|&t| t != SR25519) {
            return Err(KeyfileErrorKind::CryptoType(other));
        }
        let stated = self.stated()?;
        let mut first: Option<Keypair> = None;
        // In the order of what they cost to read.
        for read in [Self::seed_key, Self::private_key, Self::phrase_key] {
            let Some(key) = read(self) else { continue };
            if stated == Some(key.hotkey()) {
                return Ok(key);
            }
            match &first {
                Some(first) if stated.is_none() && first.hotkey() != key.hotkey() => {
                    return Err(KeyfileErrorKind::SecretsDisagree);
                }
                _ => first = first.or(Some(key)),
            }
        }
        match (first, stated) {
            (Some(key), None) => Ok(key),
            (Some(_), Some(stated)) => Err(KeyfileErrorKind::WrongSecret { stated }),
            (None, _) if self.secret_names().is_empty() => Err(KeyfileErrorKind::NoSecret),
            (None, _) => Err(KeyfileErrorKind::UnreadableSecret),
        }
    }

    fn seed_key(&self) -> Option<Keypair> {
        let seed = hex_field::<32>(self.secret_seed.as_ref()?.expose_secret())?;
        Some(Keypair::from_seed(&seed))
    }

    fn private_key(&self) -> Option<Keypair> {
        let bytes = hex_field::<64>(self.private_key.as_ref()?.expose_secret())?;
        Keypair::from_private_key(&bytes).ok()
    }

    fn phrase_key(&self) -> Option<Keypair> {
        let mini = phrase::mini_secret(self.secret_phrase.as_ref()?.expose_secret())?;
        Some(Keypair::from_seed(&mini))
    }
}

/// `0x` and exactly `2·N` hex digits; the prefix may be missing.
fn hex_field<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let mut out = Zeroizing::new([0u8; N]);
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), out.as_mut_slice()).ok()?;
    Some(out)
}
