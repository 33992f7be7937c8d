//! From a key's file to the key, with whatever password it takes.

use std::path::{Path, PathBuf};

use super::keyfile::{self, Keyfile, KeyfileError, KeyfileErrorKind, KeyfileWarning};
use super::keypair::Keypair;
use super::listing::PUBLIC_SUFFIX;
use super::password::{Found, PasswordError, Source, Sources};
use super::sealed::{SealError, Sealed};
use crate::ids::Hotkey;
use crate::telemetry::error_chain;

/// A key read from its file.
#[derive(Debug, Clone)]
pub struct LoadedKey {
    /// The key.
    pub keypair: Keypair,
    /// What the operator should be told.
    pub warnings: Vec<KeyfileWarning>,
}

/// Why a key cannot be had from its file.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    /// The file cannot be used.
    #[error(transparent)]
    Keyfile(#[from] KeyfileError),
    /// The file's public companion states another key: one of the two was put there by mistake.
    #[error("the secret in key file {} is that of {own}, but {} states another key, {stated}: remove the one that is wrong",
        path.display(), companion.display())]
    AnotherKey {
        /// The key file.
        path: PathBuf,
        /// The public companion, the key file's name with `pub.txt` behind it.
        companion: PathBuf,
        /// The key whose secret it is.
        own: Hotkey,
        /// The key that the companion states.
        stated: Hotkey,
    },
    /// A source of passwords cannot be used.
    #[error("key file {} is encrypted ({sealed})", path.display())]
    Password {
        /// The key file.
        path: PathBuf,
        /// Its scheme.
        sealed: Sealed,
        /// What is wrong with the source.
        #[source]
        source: PasswordError,
    },
    /// No source has a password.
    #[error("key file {} is encrypted ({sealed}), and there is no password: {places}", path.display())]
    NoPassword {
        /// The key file.
        path: PathBuf,
        /// Its scheme.
        sealed: Sealed,
        /// How it can be given.
        places: String,
    },
    /// The password does not open the file.
    #[error("the password from {from} does not open key file {} ({sealed}): it is wrong, or the file was altered; {places}",
        path.display())]
    WrongPassword {
        /// The key file.
        path: PathBuf,
        /// Its scheme.
        sealed: Sealed,
        /// Where the password came from.
        from: Source,
        /// How another one can be given.
        places: String,
    },
}

/// Reads the file of a hotkey or coldkey, and the password if it takes one, and compares the key with its public companion, if there is
/// one. `before` is told of a decryption before it begins. Blocking:
/// on files, on the person at the terminal, and for what [`Sealed::cost`] says.
///
/// # Errors
/// [`UnlockError`], naming the file, the source of the password, and what to do.
pub fn load(
    path: &Path,
    sources: &Sources<'_>,
    before: impl FnOnce(Sealed, &Source),
) -> Result<LoadedKey, UnlockError> {
    let file = keyfile::read(path)?;
    let mut warnings = file.warnings().to_vec();
    let keypair = match file.sealed() {
        None => file.open(None)?,
        Some(sealed) => {
            let path = path.to_owned();
            let found = match sources.find(&path) {
                Err(source) => return Err(UnlockError::Password { path, sealed, source }),
                Ok(None) => return Err(UnlockError::NoPassword { places: sources.places(&path), path, sealed }),
                Ok(Some(found)) => found,
            };
            before(sealed, &found.source);
            warnings.extend(found.warning.clone());
            match open(&file, &found)? {
                Some(keypair) => keypair,
                None => {
                    let places = sources.places(&path);
                    return Err(UnlockError::WrongPassword { path, sealed, from: found.source, places });
                }
            }
        }
    };
    let companion = companion(path);
    match keyfile::load_public(&companion) {
        Ok(stated) if stated == keypair.hotkey() => {}
        Ok(stated) => {
            let (path, own) = (path.to_owned(), keypair.hotkey());
            return Err(UnlockError::AnotherKey { path, companion, own, stated });
        }
        Err(error) if error.is_missing() => {}
        Err(error) => warnings.push(KeyfileWarning::Companion { problem: error_chain(&error) }),
    }
    Ok(LoadedKey { keypair, warnings })
}

/// Where a key's public companion lies: its own name with `pub.txt` behind it.
fn companion(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PUBLIC_SUFFIX);
    name.into()
}

/// The key by the first reading of the password that opens the file; `None` if none does.
fn open(file: &Keyfile, found: &Found) -> Result<Option<Keypair>, KeyfileError> {
    for reading in &found.readings {
        match file.open(Some(reading)) {
            Err(KeyfileError { kind: KeyfileErrorKind::Sealed { error: SealError::Refused, .. }, .. }) => {}
            other => return other.map(Some),
        }
    }
    Ok(None)
}
