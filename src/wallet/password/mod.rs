//! Where the password of an encrypted hotkey comes from. The first source that has one counts:
//!
//! 1. the file of `wallet.password_file`, or, where that is not set, `hotkey-password` in the directory that systemd
//!    names in `CREDENTIALS_DIRECTORY` (`LoadCredential=hotkey-password:/path`);
//! 2. the variable `BT_PW_` and the key file's path in upper case, `/` and `.` as `_`, as Bittensor's own tools have it;
//! 3. a prompt, only if standard input is a terminal.
//!
//! A coldkey's password comes from the last two only: file and credential have a hotkey's.
//!
//! Design notes:
//! - A password is never taken from the command line, where every user of the machine could read it.
//! - A source that has a password which turns out wrong ends the search: a node that silently went on to another one
//!   would run for years on the one that its operator thinks replaced.
//! - Bittensor's tools write the variable obfuscated: base64 of the password XOR the variable's name. People write plain
//!   text. A value that is base64 of something that becomes text by the XOR is tried as obfuscated first and then as it
//!   stands; any other value only as it stands. So the authentication code of the file decides, at the price of a second
//!   try for plain passwords that happen to look obfuscated.
//! - One line end at the end of a password file is not part of the password; anything else is.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use super::keyfile::{KeyfileWarning, ReadError, read_bounded};
use super::terminal;

/// Longest password, in bytes.
pub(super) const MAX_PASSWORD_BYTES: usize = 4096;

/// The name that the password has among systemd's credentials.
pub const CREDENTIAL: &str = "hotkey-password";

/// What the variables with passwords begin with. None of them is ever kept or passed on.
pub const VARIABLE_PREFIX: &str = "BT_PW_";

/// Where a password came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The file that the settings name.
    File(PathBuf),
    /// A credential of systemd.
    Credential(PathBuf),
    /// An environment variable.
    Environment(String),
    /// The person at the terminal.
    Terminal,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "{} (wallet.password_file)", path.display()),
            Source::Credential(path) => write!(f, "{} (a credential of systemd)", path.display()),
            Source::Environment(name) => write!(f, "the variable {name}"),
            Source::Terminal => f.write_str("the terminal"),
        }
    }
}

/// Why a source that should have a password has none.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// The file cannot be used.
    #[error("password file {}: cannot {doing}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The password is no text, empty, or too long.
    #[error("the password from {from} {wrong}")]
    Content {
        /// Where it came from.
        from: Source,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// The terminal cannot be read, or the person there gave up.
    #[error("no password was entered")]
    Terminal(#[source] std::io::Error),
}

/// Whose password is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A hotkey's, from every source.
    Hotkey,
    /// A coldkey's: only from the variable or the person at the terminal.
    Coldkey,
}

/// The sources as this process has them.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Whose password it is.
    pub whose: Whose,
    /// `wallet.password_file`.
    pub file: Option<&'a Path>,
    /// The environment.
    pub environment: &'a dyn Fn(&str) -> Option<OsString>,
    /// Whether a person may be asked: standard input is a terminal.
    pub terminal: bool,
}

impl fmt::Debug for Sources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Sources");
        shown.field("whose", &self.whose).field("file", &self.file).field("terminal", &self.terminal);
        shown.finish_non_exhaustive()
    }
}

/// A password, and where it came from.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) source: Source,
    /// What to try, in this order: several readings of one value.
    pub(super) readings: Vec<SecretString>,
    pub(super) warning: Option<KeyfileWarning>,
}

impl<'a> Sources<'a> {
    /// The sources of this process for a hotkey: its environment, and its terminal if it has one.
    pub fn of_process(file: Option<&'a Path>) -> Self {
        let environment = &|name: &str| std::env::var_os(name);
        Sources { whose: Whose::Hotkey, file, environment, terminal: terminal::is_there() }
    }

    /// The sources of this process for a coldkey.
    pub fn of_coldkey() -> Self {
        Sources { whose: Whose::Coldkey, ..Self::of_process(None) }
    }

    /// How a password can be given, for a message.
    pub(super) fn places(&self, keyfile: &Path) -> String {
        let variable = variable(keyfile);
        match self.whose {
            Whose::Hotkey => format!(
                "give it by wallet.password_file, the systemd credential {CREDENTIAL}, the variable {variable}, or at a terminal"
            ),
            Whose::Coldkey => format!("give it at a terminal, or by the variable {variable}"),
        }
    }

    /// The password for a key file; `None` if no source has one.
    pub(super) fn find(&self, keyfile: &Path) -> Result<Option<Found>, PasswordError> {
        let of_hotkey = self.whose == Whose::Hotkey;
        if let Some(path) = self.file.filter(|_| of_hotkey) {
            return from_file(Source::File(path.to_owned()), path, 0o077).map(Some);
        }
        let credentials = (self.environment)("CREDENTIALS_DIRECTORY").filter(|dir| of_hotkey && !dir.is_empty());
        if let Some(dir) = credentials {
            let path = Path::new(&dir).join(CREDENTIAL);
            if path.symlink_metadata().is_ok() {
                // The group's bits show the access list by which systemd lets the service in.
                return from_file(Source::Credential(path.clone()), &path, 0o007).map(Some);
            }
        }
        let name = variable(keyfile);
        if let Some(value) = (self.environment)(&name).filter(|value| !value.is_empty()) {
            let source = Source::Environment(name.clone());
            let value = value.into_string().map(Zeroizing::new);
            let value = value.map_err(|_| content(&source, "is not UTF-8 text"))?;
            if value.len() > MAX_PASSWORD_BYTES {
                return Err(content(&source, "is longer than 4096 bytes"));
            }
            return Ok(Some(Found { source, readings: readings(&name, &value), warning: None }));
        }
        if !self.terminal {
            return Ok(None);
        }
        let entered =
            terminal::ask(&format!("Password of {}: ", keyfile.display())).map_err(PasswordError::Terminal)?;
        let source = Source::Terminal;
        let password = as_text(&source, &entered)?;
        Ok(Some(Found { source, readings: vec![password], warning: None }))
    }
}

/// The variable that has the password of a key file, by the name that Bittensor's tools give it.
pub fn variable(keyfile: &Path) -> String {
    format!("{VARIABLE_PREFIX}{}", keyfile.display().to_string().replace(['/', '.'], "_").to_uppercase())
}

/// The readings of a variable's value, the likelier first.
fn readings(name: &str, value: &str) -> Vec<SecretString> {
    let plain = SecretString::from(value);
    let Ok(masked) = STANDARD.decode(value.trim()).map(Zeroizing::new) else { return vec![plain] };
    let bytes = Zeroizing::new(masked.iter().zip(name.bytes().cycle()).map(|(b, key)| b ^ key).collect::<Vec<u8>>());
    match std::str::from_utf8(&bytes) {
        Ok(text) if !text.is_empty() => vec![SecretString::from(text), plain],
        _ => vec![plain],
    }
}

fn from_file(source: Source, path: &Path, forbidden: u32) -> Result<Found, PasswordError> {
    let (bytes, mode) = read_bounded(path, MAX_PASSWORD_BYTES).map_err(|refused| match refused {
        ReadError::TooLong => content(&source, "is longer than 4096 bytes"),
        ReadError::NotAFile => content(&source, "is in no regular file"),
        ReadError::Io { doing, source } => PasswordError::File { doing, path: path.to_owned(), source },
    })?;
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let password = as_text(&source, text.strip_suffix(b"\r").unwrap_or(text))?;
    let warning = (mode & forbidden != 0).then(|| KeyfileWarning::PasswordOpen { path: path.to_owned(), mode });
    Ok(Found { source, readings: vec![password], warning })
}

fn as_text(source: &Source, bytes: &[u8]) -> Result<SecretString, PasswordError> {
    match std::str::from_utf8(bytes) {
        Ok("") => Err(content(source, "is empty")),
        Ok(text) => Ok(SecretString::from(text)),
        Err(_) => Err(content(source, "is not UTF-8 text")),
    }
}

fn content(from: &Source, wrong: &'static str) -> PasswordError {
    PasswordError::Content { from: from.clone(), wrong }
}

#[cfg(test)]
mod tests;
