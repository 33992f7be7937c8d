//! What wallets there are on a machine, and whether a node could use them: for people, without any password.
//!
//! Nothing found here is an error: a file that is no key, or that cannot be read, is reported with the reason. The secret
//! of a coldkey is not even opened; only that it is there is told. At most [`MAX_ENTRIES`] names of a directory are
//! looked at.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::keyfile::{self, KeyfileErrorKind, KeyfileWarning};
use super::password::Sources;
use super::sealed::Sealed;
use super::unlock::{self, UnlockError};
use crate::ids::Hotkey;
use crate::telemetry::error_chain;

/// Most names of one directory that are looked at.
pub const MAX_ENTRIES: usize = 4096;

/// What the public companion of the hotkey `NAME` adds to its name.
pub(super) const PUBLIC_SUFFIX: &str = "pub.txt";

/// The wallets below one directory.
#[derive(Debug, Serialize)]
pub struct Listing {
    /// The directory, `wallet.path`.
    pub path: PathBuf,
    /// Its wallets, by name.
    pub wallets: Vec<Wallet>,
    /// What lies there and is no wallet.
    pub foreign: Vec<Foreign>,
    /// Whether there was more than [`MAX_ENTRIES`].
    pub truncated: bool,
}

/// One wallet.
#[derive(Debug, Serialize)]
pub struct Wallet {
    /// Its name.
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
    /// Its `coldkeypub.txt`, if there is one.
    pub coldkey: Option<Key>,
    /// Whether the coldkey's secret lies here too. No node needs it.
    pub coldkey_secret: bool,
    /// Its hotkeys, by name.
    pub hotkeys: Vec<Key>,
    /// What is unwise about its directories.
    pub warnings: Vec<String>,
    /// Whether there were more hotkeys than [`MAX_ENTRIES`].
    pub truncated: bool,
}

/// Something that is no wallet.
#[derive(Debug, Serialize)]
pub struct Foreign {
    /// Its name.
    pub name: String,
    /// Why it is none.
    pub why: String,
}

/// How a key file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON with a secret.
    Plain,
    /// JSON without one.
    PublicOnly,
    /// Encrypted, `$NACL`.
    Nacl,
    /// Encrypted, `$ANSIBLE_VAULT`.
    Ansible,
    /// Encrypted, `gAAAAA`.
    Fernet,
}

impl Format {
    /// The name in tables.
    pub const fn text(self) -> &'static str {
        match self {
            Format::Plain => "plain",
            Format::PublicOnly => "public only",
            Format::Nacl => "nacl",
            Format::Ansible => "ansible",
            Format::Fernet => "fernet",
        }
    }
}

impl From<Sealed> for Format {
    fn from(sealed: Sealed) -> Self {
        match sealed {
            Sealed::Nacl => Format::Nacl,
            Sealed::Ansible => Format::Ansible,
            Sealed::Fernet => Format::Fernet,
        }
    }
}

/// Whether a node could act with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Usable {
    /// Its secret was read and belongs to its public key.
    Yes,
    /// It is encrypted; nobody tried.
    WithPassword,
    /// There is only an address, and no more is expected of this file.
    AddressOnly,
    /// No.
    No,
}

/// One key file.
#[derive(Debug, Serialize)]
pub struct Key {
    /// The key's name: the file's, for a hotkey.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The address, from the file or from its public companion; unknown where both are silent.
    pub address: Option<Hotkey>,
    /// How it is written; unknown where it is no key file.
    pub format: Option<Format>,
    /// The signature scheme; unknown where it is not written. Old files leave it out and mean sr25519.
    pub crypto_type: Option<String>,
    /// The names of the secret fields in it, never their values; empty while it is encrypted.
    pub secrets: Vec<&'static str>,
    /// Whether its public parts, and those of its companion, are one key; unknown where there are none.
    pub public_parts_agree: Option<bool>,
    /// Whether a node could act with it.
    pub usable: Usable,
    /// Why not.
    pub problem: Option<String>,
    /// What is unwise about it.
    pub warnings: Vec<String>,
}

/// All wallets below `path`.
///
/// # Errors
/// The system's, if the directory itself cannot be read.
pub fn list(path: &Path) -> io::Result<Listing> {
    let (names, truncated) = names(path)?;
    let mut listing = Listing { path: path.to_owned(), wallets: Vec::new(), foreign: Vec::new(), truncated };
    for name in names {
        match show(path, &name) {
            Ok(wallet) => listing.wallets.push(wallet),
            Err(why) => listing.foreign.push(Foreign { name: name.to_string_lossy().into_owned(), why }),
        }
    }
    Ok(listing)
}

/// The wallet `name` below `path`.
///
/// # Errors
/// Why there is no wallet of this name.
pub fn show(path: &Path, name: &std::ffi::OsStr) -> Result<Wallet, String> {
    let dir = path.join(name);
    match fs::metadata(&dir) {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return Err("not a directory".to_owned()),
        Err(error) => return Err(format!("cannot be looked at: {error}")),
    }
    let (pub_file, secret, hot_dir) = (dir.join("coldkeypub.txt"), dir.join("coldkey"), dir.join("hotkeys"));
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    // A directory that may not be searched hides all three.
    if let Err(error) = fs::read_dir(&dir) {
        return Err(format!("cannot be read: {error}"));
    }
    if ![&pub_file, &secret, &hot_dir].into_iter().any(|path| exists(path)) {
        return Err("no wallet: holds neither coldkeypub.txt nor coldkey nor hotkeys".to_owned());
    }
    let mut wallet = Wallet {
        name: name.to_string_lossy().into_owned(),
        coldkey: exists(&pub_file).then(|| public_key("coldkeypub", &pub_file)),
        coldkey_secret: exists(&secret),
        hotkeys: Vec::new(),
        warnings: Vec::new(),
        truncated: false,
        path: dir,
    };
    let names = match names(&hot_dir) {
        Ok((names, truncated)) => {
            wallet.truncated = truncated;
            names
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            wallet.warnings.push(format!("its hotkeys cannot be listed: {error}"));
            Vec::new()
        }
    };
    let mut companions = BTreeMap::new();
    let mut files = Vec::new();
    for name in &names {
        let text = name.to_string_lossy();
        match text.strip_suffix(PUBLIC_SUFFIX).filter(|of| !of.is_empty()) {
            Some(of) => drop(companions.insert(of.to_owned(), public_key(of, &hot_dir.join(name)))),
            None => files.push((text.into_owned(), hot_dir.join(name))),
        }
    }
    for (name, path) in files {
        let (mut key, dir_warning) = secret_key(&name, &path);
        if let Some(warning) = dir_warning
            && !wallet.warnings.contains(&warning)
        {
            wallet.warnings.push(warning);
        }
        if let Some(companion) = companions.remove(&name) {
            accompany(&mut key, &companion);
        }
        wallet.hotkeys.push(key);
    }
    wallet.hotkeys.extend(companions.into_values());
    wallet.hotkeys.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(wallet)
}

impl Key {
    /// Decrypts it and checks that its secret belongs to its public key. Does nothing to a key that is not encrypted.
    /// Blocking, as [`unlock::load`].
    pub fn unlock(&mut self, sources: &Sources<'_>, before: impl FnOnce(Sealed, &super::password::Source)) {
        if self.usable != Usable::WithPassword {
            return;
        }
        match unlock::load(&self.path, sources, before) {
            Ok(loaded) => (self.address, self.usable) = (Some(loaded.keypair.hotkey()), Usable::Yes),
            Err(error) => {
                if matches!(error, UnlockError::AnotherKey { .. }) {
                    self.public_parts_agree = Some(false);
                }
                self.refuse(error_chain(&error));
            }
        }
    }

    fn refuse(&mut self, problem: String) {
        (self.usable, self.problem) = (Usable::No, Some(problem));
    }
}

/// Adds what a hotkey's public companion says.
fn accompany(key: &mut Key, companion: &Key) {
    match (key.address, companion.address) {
        (_, None) => key.warnings.push(format!(
            "{}{PUBLIC_SUFFIX} beside it cannot be used: {}",
            key.name,
            companion.problem.as_deref().unwrap_or("it states no key")
        )),
        (None, address) => key.address = address,
        (Some(own), Some(other)) if own != other => {
            key.public_parts_agree = Some(false);
            let problem = format!("{}{PUBLIC_SUFFIX} beside it states another key, {other}", key.name);
            match key.usable {
                Usable::No => key.warnings.push(problem),
                _ => key.refuse(problem),
            }
        }
        (Some(_), Some(_)) => {}
    }
}

fn unknown(name: &str, path: &Path) -> Key {
    Key {
        name: name.to_owned(),
        path: path.to_owned(),
        address: None,
        format: None,
        crypto_type: None,
        secrets: Vec::new(),
        public_parts_agree: None,
        usable: Usable::No,
        problem: None,
        warnings: Vec::new(),
    }
}

/// A file that needs no secret.
fn public_key(name: &str, path: &Path) -> Key {
    let (mut key, _) = secret_key(name, path);
    if matches!(key.format, Some(Format::PublicOnly)) {
        match key.address {
            Some(_) => (key.usable, key.problem) = (Usable::AddressOnly, None),
            None => key.problem = key.problem.or_else(|| Some(KeyfileErrorKind::NoPublic.to_string())),
        }
    }
    key
}

/// A file that should hold a secret; and what is unwise about its directory.
fn secret_key(name: &str, path: &Path) -> (Key, Option<String>) {
    let mut key = unknown(name, path);
    let file = match keyfile::read(path) {
        Ok(file) => file,
        Err(error) => {
            // The path is said already.
            key.problem = Some(match std::error::Error::source(&error) {
                Some(source) => format!("{}: {source}", error.kind),
                None => error.kind.to_string(),
            });
            return (key, None);
        }
    };
    let mut dir_warning = None;
    let mut warnings = Vec::new();
    for warning in file.warnings() {
        match warning {
            KeyfileWarning::DirectoryOpen { .. } => dir_warning = Some(warning.to_string()),
            _ => warnings.push(warning.clone()),
        }
    }
    let seen = match file.inspect() {
        Ok(seen) => seen,
        Err(error) => {
            key.problem = Some(error.kind.to_string());
            return (key, dir_warning);
        }
    };
    key.crypto_type = seen.crypto_type.map(|scheme| match scheme {
        1 => "sr25519".to_owned(),
        0 => "ed25519".to_owned(),
        other => other.to_string(),
    });
    key.format = Some(match seen.sealed {
        Some(sealed) => sealed.into(),
        None if seen.secrets.is_empty() => Format::PublicOnly,
        None => Format::Plain,
    });
    // Anybody may read a public key, though not everybody should change it.
    warnings.retain(|warning| match warning {
        KeyfileWarning::OpenToOthers { mode } => key.format != Some(Format::PublicOnly) || mode & 0o022 != 0,
        _ => true,
    });
    key.warnings = warnings.iter().map(ToString::to_string).collect();
    key.secrets = seen.secrets;
    key.public_parts_agree = match &seen.public {
        Ok(public) => public.map(|_| true),
        Err(KeyfileErrorKind::PublicMismatch) => Some(false),
        Err(_) => None,
    };
    key.address = seen.public.ok().flatten();
    match seen.key {
        Ok(address) => (key.address, key.usable) = (Some(address), Usable::Yes),
        Err(KeyfileErrorKind::Encrypted { .. }) => key.usable = Usable::WithPassword,
        Err(problem) => key.problem = Some(problem.to_string()),
    }
    (key, dir_warning)
}

/// The names in a directory, in order, without hidden ones; and whether there were too many.
fn names(dir: &Path) -> io::Result<(Vec<OsString>, bool)> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if names.len() == MAX_ENTRIES {
            return Ok((sorted(names), true));
        }
        names.push(name);
    }
    Ok((sorted(names), false))
}

fn sorted(mut names: Vec<OsString>) -> Vec<OsString> {
    names.sort();
    names
}
