//! Key files as Bittensor's tools write them: one JSON object, plain or encrypted.
//!
//! [`decode`] is the pure heart: bytes and a password in, a key or the reason against it out, without clock, files or
//! any size that the content decides. Around it, [`read`] and [`create`] know files.
//!
//! Of the secrets in a file (`secretSeed`, `privateKey`, `secretPhrase`) the first counts that can be read and belongs to
//! the public key that the file states; one known tool writes a damaged `secretSeed` beside a good `privateKey`. A file
//! that states no public key must hold secrets of one key only.
//!
//! Writing never replaces a file: the content goes to a temporary file first and is then linked under its name, which
//! fails if the name is taken.

mod error;
mod fields;
mod files;

use secrecy::SecretString;

pub use error::{KeyfileError, KeyfileErrorKind, KeyfileWarning};
pub use files::{Keyfile, create, create_coldkeypub, load_coldkeypub, load_public, read};

pub(in crate::wallet) use files::{ReadError, read_bounded};

use super::keypair::Keypair;
use super::sealed::Sealed;
use crate::ids::Hotkey;

/// Key files are a few hundred bytes; anything over this is something else.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// The key in a key file's content. Blocking: an encrypted one costs what [`Sealed::cost`] says, and never more.
///
/// # Errors
/// [`KeyfileErrorKind`]; [`KeyfileErrorKind::Encrypted`] if it takes a password and there is none.
pub fn decode(bytes: &[u8], password: Option<&SecretString>) -> Result<Keypair, KeyfileErrorKind> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(KeyfileErrorKind::TooLong);
    }
    let Some(sealed) = Sealed::of(bytes) else { return fields::Fields::parse(bytes)?.secret() };
    let password = password.ok_or(KeyfileErrorKind::Encrypted { sealed })?;
    let plain = sealed.open(bytes, password).map_err(|error| KeyfileErrorKind::Sealed { sealed, error })?;
    fields::Fields::parse(&plain)?.secret()
}

/// The public key that a file states in plain text.
///
/// # Errors
/// [`KeyfileErrorKind`]; [`KeyfileErrorKind::NoPublic`] if it states none.
pub fn decode_public(bytes: &[u8]) -> Result<Hotkey, KeyfileErrorKind> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(KeyfileErrorKind::TooLong);
    }
    if let Some(sealed) = Sealed::of(bytes) {
        return Err(KeyfileErrorKind::Encrypted { sealed });
    }
    fields::Fields::parse(bytes)?.stated()?.ok_or(KeyfileErrorKind::NoPublic)
}

/// What can be told of a file's content without a password.
#[derive(Debug)]
pub struct Inspection {
    /// The encryption, if any. All below is empty for an encrypted file.
    pub sealed: Option<Sealed>,
    /// `cryptoType` as it is written.
    pub crypto_type: Option<i64>,
    /// The names of the secret fields that are there, whether or not they can be read.
    pub secrets: Vec<&'static str>,
    /// The public key that all public parts agree on, if there are any.
    pub public: Result<Option<Hotkey>, KeyfileErrorKind>,
    /// The key as a node would load it, or why it would not.
    pub key: Result<Hotkey, KeyfileErrorKind>,
}

/// Looks at a file's content without a password.
///
/// # Errors
/// [`KeyfileErrorKind`] for content that is no key file.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, KeyfileErrorKind> {
    if bytes.len() > MAX_FILE_BYTES {
        return Err(KeyfileErrorKind::TooLong);
    }
    if let Some(sealed) = Sealed::of(bytes) {
        let key = Err(KeyfileErrorKind::Encrypted { sealed });
        return Ok(Inspection { sealed: Some(sealed), crypto_type: None, secrets: Vec::new(), public: Ok(None), key });
    }
    let fields = fields::Fields::parse(bytes)?;
    Ok(Inspection {
        sealed: None,
        crypto_type: fields.crypto_type(),
        secrets: fields.secret_names(),
        public: fields.stated(),
        key: fields.secret().map(|key| key.hotkey()),
    })
}

#[cfg(test)]
mod tests;
