//! Key files on disk: reading with a look at who else could, writing without ever replacing. Everything here blocks on
//! the file system.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::error::{KeyfileError, KeyfileErrorKind, KeyfileWarning};
use super::fields::SR25519;
use super::{Inspection, MAX_FILE_BYTES, Sealed, decode, decode_public, inspect};
use crate::ids::{Coldkey, Hotkey};
use crate::wallet::keypair::Keypair;

/// A key file that was read and not yet looked into.
pub struct Keyfile {
    path: PathBuf,
    bytes: Zeroizing<Vec<u8>>,
    warnings: Vec<KeyfileWarning>,
}

impl Keyfile {
    /// How it is encrypted; `None` if it is not.
    pub fn sealed(&self) -> Option<Sealed> {
        Sealed::of(&self.bytes)
    }

    /// What the operator should be told about the permissions of the file and its directory.
    pub fn warnings(&self) -> &[KeyfileWarning] {
        &self.warnings
    }

    /// The key in it; see [`decode`]. Blocking, for seconds if it is encrypted.
    ///
    /// # Errors
    /// [`KeyfileError`], naming the file and what to do.
    pub fn open(&self, password: Option<&SecretString>) -> Result<Keypair, KeyfileError> {
        decode(&self.bytes, password).map_err(|kind| at(&self.path, kind))
    }

    /// What can be told without a password; see [`inspect`].
    ///
    /// # Errors
    /// [`KeyfileError`] for a file that is no key file.
    pub fn inspect(&self) -> Result<Inspection, KeyfileError> {
        inspect(&self.bytes).map_err(|kind| at(&self.path, kind))
    }
}

/// Reads a key file.
///
/// # Errors
/// [`KeyfileError`], naming the file and what to do.
pub fn read(path: &Path) -> Result<Keyfile, KeyfileError> {
    let (bytes, mode) = read_bounded(path, MAX_FILE_BYTES).map_err(|error| at(path, error.into()))?;
    let mut warnings = Vec::new();
    if mode & 0o077 != 0 {
        warnings.push(KeyfileWarning::OpenToOthers { mode });
    }
    let dir = parent(path);
    // A directory that cannot be looked at is nobody's danger: the file in it was just read.
    if let Ok(dir_mode) = fs::metadata(dir).map(|dir| dir.mode() & 0o777)
        && dir_mode & 0o066 != 0
    {
        warnings.push(KeyfileWarning::DirectoryOpen { path: dir.to_owned(), mode: dir_mode });
    }
    Ok(Keyfile { path: path.to_owned(), bytes, warnings })
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
    load_public(path).map(|key| Coldkey(key.0))
}

/// Reads the address from a public key file.
///
/// # Errors
/// [`KeyfileError`], naming the file and what to do.
pub fn load_public(path: &Path) -> Result<Hotkey, KeyfileError> {
    let (bytes, _) = read_bounded(path, MAX_FILE_BYTES).map_err(|error| at(path, error.into()))?;
    decode_public(&bytes).map_err(|kind| at(path, kind))
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

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Why a file's content cannot be had.
pub(in crate::wallet) enum ReadError {
    TooLong,
    NotAFile,
    Io { doing: &'static str, source: io::Error },
}

impl From<ReadError> for KeyfileErrorKind {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::TooLong => KeyfileErrorKind::TooLong,
            ReadError::NotAFile => KeyfileErrorKind::NotAFile,
            ReadError::Io { doing, source } => KeyfileErrorKind::Io { doing, source },
        }
    }
}

/// The content, at most `limit` bytes of it, and the permission bits of the file that was read.
pub(in crate::wallet) fn read_bounded(path: &Path, limit: usize) -> Result<(Zeroizing<Vec<u8>>, u32), ReadError> {
    let io_error = |doing| move |source| ReadError::Io { doing, source };
    // A pipe would have its reader wait for a writer; opened so, it is refused below instead.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(io_error("open it"))?;
    let meta = file.metadata().map_err(io_error("read its mode"))?;
    if !meta.is_file() {
        return Err(ReadError::NotAFile);
    }
    // Room for the largest file read, so that the buffer never moves and leaves a copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 32));
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(io_error("read it"))?;
    if bytes.len() > limit {
        return Err(ReadError::TooLong);
    }
    Ok((bytes, meta.mode() & 0o777))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), KeyfileErrorKind> {
    let parent = parent(path);
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
