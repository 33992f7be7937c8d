//! What a canary needs of a login: upload a file, run it, talk to it. [`super::ssh`] is the real one.

use std::net::SocketAddr;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::reason::Fault;

/// How a tenant shows who it is.
#[derive(Clone)]
pub enum Login {
    /// By the secret half of a key: the seed of an ed25519 key that was made for this one login.
    Key(std::sync::Arc<secrecy::SecretBox<[u8; 32]>>),
    /// By a password.
    Password(SecretString),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Login::Key(_) => "Key(redacted)",
            Login::Password(_) => "Password(redacted)",
        })
    }
}

/// Where and how to log in.
#[derive(Debug, Clone)]
pub struct Access {
    /// The SSH server.
    pub addr: SocketAddr,
    /// The user there.
    pub user: String,
    /// How.
    pub login: Login,
    /// The server's public key as the miner told it, one line in OpenSSH's format. `None` where the protocol tells none: then
    /// any key is taken.
    pub host_key: Option<String>,
}

/// Logs in.
#[async_trait]
pub trait Remote: Send + Sync {
    /// Logs in. The caller keeps the time.
    ///
    /// # Errors
    /// A [`Fault`] that says what kept it.
    async fn login(&self, to: &Access) -> Result<Box<dyn Session>, Fault>;
}

/// A login. Dropping it closes the connection and ends what was started through it.
#[async_trait]
pub trait Session: Send + Sync {
    /// Makes a program of these bytes, whole and executable: where it lies is the session's matter.
    ///
    /// # Errors
    /// A [`Fault`] that says what kept it.
    async fn upload(&self, program: &[u8]) -> Result<(), Fault>;

    /// Starts the uploaded program with these arguments, each a plain word.
    ///
    /// # Errors
    /// A [`Fault`] that says what kept it.
    async fn start(&self, arguments: &[&str]) -> Result<Process, Fault>;
}

/// A program that runs at the other end.
pub struct Process {
    /// Its standard output.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard input.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// How it ended, with the end of what it wrote to standard error; `None` while it runs.
    pub ended: watch::Receiver<Option<Ended>>,
}

/// How a program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit status, if one was told.
    pub status: Option<u32>,
    /// The end of what it wrote to standard error.
    pub words: String,
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => write!(f, "exit status {status}")?,
            None => f.write_str("no exit status")?,
        }
        if self.words.is_empty() { Ok(()) } else { write!(f, ": {}", self.words) }
    }
}
