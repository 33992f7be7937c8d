//! Why a key file cannot be used, and what is unwise about one that can. No secret is ever part of either.

use std::io;
use std::path::PathBuf;

use crate::ids::Hotkey;
use crate::wallet::sealed::{SealError, Sealed};

/// Why a key file cannot be used or written.
#[derive(Debug)]
pub struct KeyfileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: KeyfileErrorKind,
}

impl KeyfileError {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(&self.kind, KeyfileErrorKind::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl std::fmt::Display for KeyfileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "key file {}: {}", self.path.display(), self.kind)
    }
}

impl std::error::Error for KeyfileError {
    // The kind is part of this error's own text, so the chain goes on with what caused the kind.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.kind.source()
    }
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyfileErrorKind {
    /// The file system refused.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("not a regular file")]
    NotAFile,
    /// A file of that name is there, and it stays as it is.
    #[error("exists already and is never overwritten: move it away or choose another name")]
    Exists,
    /// Far longer than any key file.
    #[error("longer than 64 KiB, which no key file is")]
    TooLong,
    /// Encrypted content, and no password.
    #[error("encrypted ({sealed}), and there is no password")]
    Encrypted {
        /// The scheme.
        sealed: Sealed,
    },
    /// Encrypted content that does not open.
    #[error("encrypted ({sealed}): {error}")]
    Sealed {
        /// The scheme.
        sealed: Sealed,
        /// Why not. Part of this error's own text.
        error: SealError,
    },
    /// Only `0x` and hex digits: tools disagree whether that is a secret or a public key.
    #[error("holds only a hex number, which some tools read as a seed and others as a public key: recreate it as JSON")]
    BareHex,
    /// Not a JSON object of the expected shape. The parser's words are left out: they may quote the content.
    #[error("not a JSON key file (line {line}, column {column})")]
    Json {
        /// Line of the first problem, from 1.
        line: usize,
        /// Column of the first problem, from 1.
        column: usize,
    },
    /// Another signature scheme.
    #[error("cryptoType {0} is not supported (0 is ed25519): a hotkey here is sr25519 (1)")]
    CryptoType(i64),
    /// A public field is no key.
    #[error("{field} is not a valid public key")]
    PublicField {
        /// The field.
        field: &'static str,
    },
    /// The public fields contradict each other.
    #[error("publicKey, accountId and ss58Address are not the same key")]
    PublicMismatch,
    /// A public file where a secret is needed.
    #[error(
        "holds no secret, it is a public key file (as coldkeypub.txt and a hotkey's pub.txt are): name the hotkey's own file"
    )]
    NoSecret,
    /// No secret in the file belongs to the public key that the file states.
    #[error("no secret in it belongs to its public key {stated}")]
    WrongSecret {
        /// The public key stated.
        stated: Hotkey,
    },
    /// The secrets are of several keys, and no public key says which is meant.
    #[error("its secrets belong to different keys, and it states no public key: leave only the right one in it")]
    SecretsDisagree,
    /// The secrets are there but none can be read.
    #[error(
        "none of its secrets can be read: secretSeed is 0x and 64 hex digits, privateKey 0x and 128 in schnorrkel's \
         form, secretPhrase 12 to 24 English words"
    )]
    UnreadableSecret,
    /// A public file without a public key.
    #[error("holds none of ss58Address, publicKey and accountId")]
    NoPublic,
}

/// What is unwise about files that can nevertheless be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyfileWarning {
    /// Others than the owner may read or change the secret; the mode's permission bits.
    OpenToOthers {
        /// Permission bits, such as `0o644`.
        mode: u32,
    },
    /// Others than the owner may look into the file's directory, or put another file into the key's place.
    DirectoryOpen {
        /// The directory.
        path: PathBuf,
        /// Permission bits, such as `0o755`.
        mode: u32,
    },
    /// The public file beside a hotkey's cannot be used.
    Companion {
        /// Which file it is, and why.
        problem: String,
    },
    /// Others than the owner may read the password.
    PasswordOpen {
        /// The file of the password.
        path: PathBuf,
        /// Permission bits, such as `0o644`.
        mode: u32,
    },
}

impl std::fmt::Display for KeyfileWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyfileWarning::OpenToOthers { mode } => {
                let what = if mode & 0o022 == 0 { "read the secret" } else { "change the file" };
                write!(f, "the key file has mode {mode:04o}, others can {what}: chmod 600 it")
            }
            KeyfileWarning::DirectoryOpen { path, mode } => {
                let what = if mode & 0o022 == 0 { "see its files" } else { "put another key there" };
                write!(f, "directory {} has mode {mode:04o}, others can {what}: chmod 700 it", path.display())
            }
            KeyfileWarning::Companion { problem } => {
                write!(f, "whether this is the right key is not known from the public file beside it: {problem}")
            }
            KeyfileWarning::PasswordOpen { path, mode } => {
                write!(f, "password file {} has mode {mode:04o}, others can use it: chmod 600 it", path.display())
            }
        }
    }
}
