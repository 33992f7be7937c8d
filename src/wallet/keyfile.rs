//! Hotkey files as Bittensor's tools write them: one JSON object, unencrypted, readable by its owner only.
//!
//! Reading tries `secretSeed`, then `privateKey`, and takes the first whose public key is the one that the file states;
//! one known tool writes a damaged `secretSeed` beside a good `privateKey`. `secretPhrase` alone is refused for now.
//! Writing never replaces a file: the content goes to a temporary file first and is then linked under its name, which
//! fails if the name is taken.
//!
//! Every function here blocks on the file system.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::keypair::Keypair;
use crate::ids::{Coldkey, Hotkey};

/// Key files are a few hundred bytes; anything over this is something else.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// `cryptoType` of sr25519 in key files.
const SR25519: i64 = 1;

/// Why a key file cannot be used or written.
#[derive(Debug)]
pub struct KeyfileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: KeyfileErrorKind,
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
    /// A file of that name is there, and it stays as it is.
    #[error("exists already and is never overwritten: move it away or choose another name")]
    Exists,
    /// Far longer than any key file.
    #[error("longer than 64 KiB, which no key file is")]
    TooLong,
    /// Encrypted content.
    #[error("encrypted ({scheme}): a node needs its hotkey unencrypted, protected by file mode 0600")]
    Encrypted {
        /// The scheme, by its prefix.
        scheme: &'static str,
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
    #[error("cryptoType {0} is not supported: hotkeys are sr25519 (1)")]
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
    /// The file has only a recovery phrase.
    #[error("holds only a secretPhrase, which is not supported yet: recreate the file with secretSeed or privateKey")]
    PhraseOnly,
    /// A public file where a secret is needed.
    #[error("holds no secret: this is a public key file")]
    NoSecret,
    /// No secret in the file belongs to the public key that the file states.
    #[error("no secret in it belongs to its public key {stated}")]
    WrongSecret {
        /// The public key stated.
        stated: Hotkey,
    },
    /// The secrets are there but none can be read.
    #[error("secretSeed or privateKey is present but is not 0x and 64 or 128 hex digits of a valid sr25519 secret")]
    UnreadableSecret,
    /// A public file without a public key.
    #[error("holds none of ss58Address, publicKey and accountId")]
    NoPublic,
}

/// What is unwise about a key file that can nevertheless be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyfileWarning {
    /// Others than the owner may read or change the secret; the mode's permission bits.
    OpenToOthers {
        /// Permission bits, such as `0o644`.
        mode: u32,
    },
}

impl std::fmt::Display for KeyfileWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyfileWarning::OpenToOthers { mode } => {
                write!(f, "hotkey file has mode {mode:04o}, others can read the secret: chmod 600 it")
            }
        }
    }
}

/// A key read from its file.
#[derive(Debug, Clone)]
pub struct LoadedKey {
    /// The key.
    pub keypair: Keypair,
    /// What the operator should be told.
    pub warning: Option<KeyfileWarning>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    account_id: Option<String>,
    public_key: Option<String>,
    ss58_address: Option<String>,
    private_key: Option<SecretString>,
    secret_seed: Option<SecretString>,
    secret_phrase: Option<SecretString>,
    crypto_type: Option<i64>,
}

/// Reads a hotkey's secret file.
///
/// # Errors
/// [`KeyfileError`], naming the file and what to do.
pub fn load(path: &Path) -> Result<LoadedKey, KeyfileError> {
    let (bytes, mode) = read(path).map_err(|kind| at(path, kind))?;
    let keypair = parse_secret(&bytes).map_err(|kind| at(path, kind))?;
    let warning = (mode & 0o077 != 0).then_some(KeyfileWarning::OpenToOthers { mode });
    Ok(LoadedKey { keypair, warning })
}

/// Writes a hotkey's secret file with mode 0600, its missing directories with 0700. Nothing is ever overwritten.
///
/// # Errors
/// [`KeyfileError`]; [`KeyfileErrorKind::Exists`] if the name is taken.
pub fn create(path: &Path, keypair: &Keypair) -> Result<(), KeyfileError> {
    let public = format!("0x{}", hex::encode(keypair.hotkey().0));
    let private = Zeroizing::new(hex::encode(keypair.private_key()));
    let content = Zeroizing::new(format!(
        "{{\"accountId\":\"{public}\",\"publicKey\":\"{public}\",\"privateKey\":\"0x{}\",\"secretPhrase\":null,\
         \"secretSeed\":null,\"ss58Address\":\"{}\",\"cryptoType\":{SR25519}}}\n",
        private.as_str(),
        keypair.hotkey()
    ));
    write_new(path, content.as_bytes(), 0o600).map_err(|kind| at(path, kind))
}

/// Reads the owner's address from a `coldkeypub.txt`.
///
/// # Errors
/// [`KeyfileError`], naming the file and what to do.
pub fn load_coldkeypub(path: &Path) -> Result<Coldkey, KeyfileError> {
    let parse = |bytes: &[u8]| stated_key(&parse_fields(bytes)?)?.ok_or(KeyfileErrorKind::NoPublic);
    let (bytes, _) = read(path).map_err(|kind| at(path, kind))?;
    parse(&bytes).map(|key| Coldkey(key.0)).map_err(|kind| at(path, kind))
}

/// Writes a `coldkeypub.txt`: the address only. Nothing is ever overwritten.
///
/// # Errors
/// [`KeyfileError`]; [`KeyfileErrorKind::Exists`] if the name is taken.
pub fn create_coldkeypub(path: &Path, coldkey: &Coldkey) -> Result<(), KeyfileError> {
    let public = format!("0x{}", hex::encode(coldkey.0));
    let content = format!(
        "{{\"accountId\":\"{public}\",\"publicKey\":\"{public}\",\"privateKey\":null,\"secretPhrase\":null,\
         \"secretSeed\":null,\"ss58Address\":\"{coldkey}\",\"cryptoType\":{SR25519}}}\n"
    );
    write_new(path, content.as_bytes(), 0o644).map_err(|kind| at(path, kind))
}

fn at(path: &Path, kind: KeyfileErrorKind) -> KeyfileError {
    KeyfileError { path: path.to_owned(), kind }
}

fn io_error(doing: &'static str) -> impl Fn(io::Error) -> KeyfileErrorKind {
    move |source| KeyfileErrorKind::Io { doing, source }
}

/// The content, and the permission bits of the file that was read.
fn read(path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), KeyfileErrorKind> {
    let file = File::open(path).map_err(io_error("open it"))?;
    let mode = file.metadata().map_err(io_error("read its mode"))?.mode() & 0o777;
    // Room for the largest file read, so that the buffer never moves and leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 32));
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_error("read it"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(KeyfileErrorKind::TooLong);
    }
    Ok((bytes, mode))
}

fn parse_fields(bytes: &[u8]) -> Result<Fields, KeyfileErrorKind> {
    for (prefix, scheme) in
        [("$NACL", "NaCl secretbox"), ("$ANSIBLE_VAULT", "Ansible vault"), ("gAAAAA", "Fernet, legacy")]
    {
        if bytes.starts_with(prefix.as_bytes()) {
            return Err(KeyfileErrorKind::Encrypted { scheme });
        }
    }
    let bare = bytes.trim_ascii();
    if let Some(digits) = bare.strip_prefix(b"0x")
        && digits.iter().all(u8::is_ascii_hexdigit)
    {
        return Err(KeyfileErrorKind::BareHex);
    }
    serde_json::from_slice(bytes).map_err(|e| KeyfileErrorKind::Json { line: e.line(), column: e.column() })
}

/// The public key that the file states, if it states one.
fn stated_key(fields: &Fields) -> Result<Option<Hotkey>, KeyfileErrorKind> {
    let mut stated = None;
    let hex_key = |text: &str| hex_field::<32>(text).map(|key| Hotkey(*key));
    let found = [
        ("publicKey", fields.public_key.as_deref().map(hex_key)),
        ("accountId", fields.account_id.as_deref().map(hex_key)),
        ("ss58Address", fields.ss58_address.as_deref().map(|text| text.parse().ok())),
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

fn parse_secret(bytes: &[u8]) -> Result<Keypair, KeyfileErrorKind> {
    let fields = parse_fields(bytes)?;
    if let Some(other) = fields.crypto_type.filter(|&t| t != SR25519) {
        return Err(KeyfileErrorKind::CryptoType(other));
    }
    let stated = stated_key(&fields)?;
    let seed = fields.secret_seed.as_ref().and_then(|s| hex_field::<32>(s.expose_secret()));
    let seed = seed.map(|seed| Keypair::from_seed(&seed));
    let private = fields.private_key.as_ref().and_then(|s| hex_field::<64>(s.expose_secret()));
    let private = private.and_then(|bytes| Keypair::from_private_key(&bytes).ok());

    let mut readable = false;
    for key in [seed, private].into_iter().flatten() {
        readable = true;
        if stated.is_none_or(|stated| stated == key.hotkey()) {
            return Ok(key);
        }
    }
    Err(match stated {
        Some(stated) if readable => KeyfileErrorKind::WrongSecret { stated },
        _ if fields.secret_seed.is_some() || fields.private_key.is_some() => KeyfileErrorKind::UnreadableSecret,
        _ if fields.secret_phrase.is_some() => KeyfileErrorKind::PhraseOnly,
        _ => KeyfileErrorKind::NoSecret,
    })
}

/// `0x` and exactly `2·N` hex digits; the prefix may be missing.
fn hex_field<const N: usize>(text: &str) -> Option<Zeroizing<[u8; N]>> {
    let mut out = Zeroizing::new([0u8; N]);
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), out.as_mut_slice()).ok()?;
    Some(out)
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), KeyfileErrorKind> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(io_error("create its directory"))?;
    if path.symlink_metadata().is_ok() {
        return Err(KeyfileErrorKind::Exists);
    }
    let mut tag = [0u8; 8];
    getrandom::fill(&mut tag).map_err(|e| KeyfileErrorKind::Io { doing: "name a temporary file", source: e.into() })?;
    let temporary = parent.join(format!(".new-{}", hex::encode(tag)));
    let result = write_and_link(&temporary, path, parent, content, mode);
    // Gone already only if it could not be created; in every other case the name must not stay behind.
    let _ = fs::remove_file(&temporary);
    result
}

fn write_and_link(
    temporary: &Path,
    path: &Path,
    parent: &Path,
    content: &[u8],
    mode: u32,
) -> Result<(), KeyfileErrorKind> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)
        .map_err(io_error("create a temporary file beside it"))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io_error("write it"))?;
    // A link, unlike a rename, fails when the name is taken.
    fs::hard_link(temporary, path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => KeyfileErrorKind::Exists,
        _ => KeyfileErrorKind::Io { doing: "link it under its name", source },
    })?;
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(io_error("sync its directory"))
}

#[cfg(test)]
#[path = "keyfile_tests.rs"]
mod tests;
