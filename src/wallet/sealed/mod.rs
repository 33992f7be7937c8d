//! The three encryptions of key files, recognised by their first bytes. Pure: bytes and a password in, plaintext out.
//!
//! Invariants:
//! - the plaintext is used only after its authentication code was found right, so that nothing acts on altered bytes;
//! - what a file costs is fixed by its scheme, never by its content: no length or round count in it is believed.
//!
//! A wrong password and an altered file look alike to all three schemes, hence one error for both.

mod ansible;
mod fernet;
mod nacl;

use std::fmt;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

/// How a key file is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sealed {
    /// `$NACL`, what today's tools write: argon2i with 512 MiB, then XSalsa20-Poly1305.
    Nacl,
    /// `$ANSIBLE_VAULT;1.1;AES256`, of old tools: PBKDF2-SHA256, then AES-256-CTR with HMAC-SHA256.
    Ansible,
    /// `gAAAAA`, of the oldest tools: PBKDF2-SHA256 with ten million rounds, then AES-128-CBC with HMAC-SHA256.
    Fernet,
}

/// Why an encrypted file stays closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The content does not have the scheme's form, so that no password can open it.
    #[error("damaged: {0}")]
    Form(&'static str),
    /// The authentication code is wrong.
    #[error("the password is wrong, or the file was altered")]
    Refused,
    /// The memory that the scheme needs cannot be had.
    #[error("512 MiB of memory to decrypt it cannot be had: free some, or raise the limit of this process")]
    Memory,
}

impl Sealed {
    /// The scheme of these bytes; `None` for content that is not encrypted.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let schemes =
            [(Sealed::Nacl, nacl::PREFIX), (Sealed::Ansible, ansible::PREFIX), (Sealed::Fernet, fernet::PREFIX)];
        schemes.into_iter().find(|(_, prefix)| bytes.starts_with(prefix)).map(|(sealed, _)| sealed)
    }

    /// The stable name for programs: `nacl`, `ansible` or `fernet`.
    pub const fn label(self) -> &'static str {
        match self {
            Sealed::Nacl => "nacl",
            Sealed::Ansible => "ansible",
            Sealed::Fernet => "fernet",
        }
    }

    /// What one try costs, for the log line that explains a slow start.
    pub const fn cost(self) -> &'static str {
        match self {
            Sealed::Nacl => "2 to 5 s and 512 MiB of memory",
            Sealed::Ansible => "some milliseconds",
            Sealed::Fernet => "some seconds",
        }
    }

    /// Decrypts `bytes`, which begin as [`Sealed::of`] saw them. Blocking, for what [`Sealed::cost`] says.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(self, bytes: &[u8], password: &SecretString) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let password = password.expose_secret().as_bytes();
        match self {
            Sealed::Nacl => nacl::open(bytes, password),
            Sealed::Ansible => ansible::open(bytes, password),
            Sealed::Fernet => fernet::open(bytes, password),
        }
    }
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sealed::Nacl => "NaCl",
            Sealed::Ansible => "Ansible vault",
            Sealed::Fernet => "Fernet",
        })
    }
}

#[cfg(test)]
mod tests;
