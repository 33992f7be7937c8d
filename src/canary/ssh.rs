//! The login of a canary over real SSH: a pinned host key, SFTP, programs by `exec`.
//!
//! What the server sends is bounded: by the channel's window while it is read, by the length expected where a file is read
//! back, by `STDERR_TAIL` for words. Keeping the time is the caller's matter; a connection that goes silent ends by itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use russh::client::{self, Handle};
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{ChannelMsg, Disconnect};
use russh_sftp::client::SftpSession;
use russh_sftp::protocol::{FileAttributes, OpenFlags};
use secrecy::{ExposeSecret as _, SecretBox};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, watch};
use tokio::time::{sleep, timeout};

use super::reason::{Fault, Reason};
use super::remote::{Access, Ended, Login, Process, Remote, Session};
use crate::telemetry::printable;

/// Bytes of standard error that are kept.
const STDERR_TAIL: usize = 2048;
/// Bytes of standard output that wait to be read.
const PIPE: usize = 64 * 1024;
/// A connection is given up after so many unanswered signs of life, one each interval.
const KEEPALIVE: (Duration, usize) = (Duration::from_secs(10), 3);
/// Waits between attempts to connect: a server that has just been started may need a moment to listen.
const CONNECT_RETRY: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a server may take for one request of SFTP, in seconds.
const SFTP_REQUEST: u64 = 60;
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// Exit status of what could not be run, as shells have it.
const CANNOT_RUN: u32 = 127;

/// A key for one login: the secret half, and the public half as one line in OpenSSH's format.
///
/// # Errors
/// If the system has no randomness.
pub fn fresh_key() -> Result<(Login, String), Fault> {
    let own = |what: String| Fault::new(Reason::OwnFault, what);
    let mut seed = Box::new([0u8; 32]);
    getrandom::fill(&mut *seed).map_err(|e| own(format!("no randomness from the system: {e}")))?;
    let seed = Arc::new(SecretBox::new(seed));
    let public = key_of(&seed)?.public_key().to_openssh().map_err(|e| own(format!("the key has no text: {e}")))?;
    Ok((Login::Key(seed), public))
}

fn key_of(seed: &SecretBox<[u8; 32]>) -> Result<PrivateKey, Fault> {
    let pair = Ed25519Keypair::from_seed(seed.expose_secret());
    PrivateKey::new(KeypairData::Ed25519(pair), "")
        .map_err(|e| Fault::new(Reason::OwnFault, format!("the key cannot be used: {e}")))
}

/// Logs in with russh.
#[derive(Debug, Clone, Default)]
pub struct Ssh;

/// Takes the pinned key and no other.
struct Pin(Option<PublicKey>);

impl client::Handler for Pin {
    type Error = russh::Error;
    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        let Some(pinned) = &self.0 else { return Ok(true) };
        Ok(matches!(shown, PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == pinned.key_data()))
    }
}

fn failed(error: &russh::Error) -> Fault {
    match error {
        russh::Error::UnknownKey => Fault::new(Reason::WrongHostKey, "the connection was given up before any login"),
        error => Fault::new(Reason::SshFailed, error.to_string()),
    }
}

async fn connect(addr: SocketAddr) -> Result<TcpStream, Fault> {
    let mut waits = CONNECT_RETRY.iter();
    loop {
        let why = match timeout(CONNECT, TcpStream::connect(addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CONNECT:?}"),
        };
        match waits.next() {
            Some(wait) => sleep(*wait).await,
            None => return Err(Fault::new(Reason::Unreachable, format!("{addr}: {why}"))),
        }
    }
}

#[async_trait]
impl Remote for Ssh {
    async fn login(&self, to: &Access) -> Result<Box<dyn Session>, Fault> {
        let pinned = to.host_key.as_deref().map(PublicKey::from_openssh).transpose();
        let pinned = pinned.map_err(|e| Fault::new(Reason::NoHostKey, format!("what it told is no key: {e}")))?;
        let stream = connect(to.addr).await?;
        let _ = stream.set_nodelay(true); // only a matter of speed
        let config = client::Config {
            keepalive_interval: Some(KEEPALIVE.0),
            keepalive_max: KEEPALIVE.1,
            nodelay: true,
            ..client::Config::default()
        };
        let connected = client::connect_stream(Arc::new(config), stream, Pin(pinned)).await;
        let mut handle = connected.map_err(|error| failed(&error))?;
        let answer = match &to.login {
            Login::Key(seed) => {
                let key = PrivateKeyWithHashAlg::new(Arc::new(key_of(seed)?), None);
                handle.authenticate_publickey(&to.user, key).await
            }
            Login::Password(password) => handle.authenticate_password(&to.user, password.expose_secret()).await,
        };
        let answer = answer.map_err(|error| failed(&error))?;
        if !answer.success() {
            return Err(Fault::new(Reason::LoginRefused, format!("as {} with {:?}", to.user, to.login)));
        }
        Ok(Box::new(SshSession { handle: Some(handle), program: OnceCell::new() }))
    }
}

/// A login over SSH.
struct SshSession {
    handle: Option<Handle<Pin>>,
    /// Where the program lies at the other end.
    program: OnceCell<String>,
}

impl SshSession {
    async fn channel(&self) -> Result<russh::Channel<client::Msg>, Fault> {
        let handle = self.handle.as_ref().ok_or_else(|| Fault::new(Reason::SshFailed, "the connection is closed"))?;
        handle.channel_open_session().await.map_err(|error| failed(&error))
    }

    async fn put(&self, sftp: &SftpSession, path: &str, program: &[u8]) -> Result<(), Fault> {
        let broken = |what: &str, error: &dyn std::fmt::Display| {
            Fault::new(Reason::NoTransfer, format!("{what} {path}: {error}"))
        };
        let flags = OpenFlags::CREATE | OpenFlags::EXCLUDE | OpenFlags::WRITE;
        let mode = FileAttributes { permissions: Some(0o700), ..FileAttributes::empty() };
        let file = sftp.open_with_flags_and_attributes(path, flags, mode.clone()).await;
        let mut file = file.map_err(|e| broken("making", &e))?;
        file.write_all(program).await.map_err(|e| broken("writing", &e))?;
        file.flush().await.map_err(|e| broken("writing", &e))?;
        file.close().await.map_err(|e| broken("closing", &e))?;
        // A server may apply its mask to the mode of a new file.
        sftp.set_metadata(path, mode).await.map_err(|e| broken("making executable", &e))?;
        let file = sftp.open(path).await.map_err(|e| broken("reading back", &e))?;
        let mut read = Vec::with_capacity(program.len());
        let most = program.len() as u64 + 1;
        file.take(most).read_to_end(&mut read).await.map_err(|e| broken("reading back", &e))?;
        if read != program {
            let detail = format!("{path}: {} bytes were written, {} read back", program.len(), read.len());
            return Err(Fault::new(Reason::Altered, detail));
        }
        Ok(())
    }
}

#[async_trait]
impl Session for SshSession {
    async fn upload(&self, program: &[u8]) -> Result<(), Fault> {
        let broken = |error: &dyn std::fmt::Display| Fault::new(Reason::NoTransfer, error.to_string());
        let channel = self.channel().await?;
        channel.request_subsystem(true, "sftp").await.map_err(|e| broken(&e))?;
        let sftp = SftpSession::new(channel.into_stream()).await.map_err(|e| broken(&e))?;
        sftp.set_timeout(SFTP_REQUEST);
        let mut name = [0u8; 8];
        getrandom::fill(&mut name).map_err(|e| Fault::new(Reason::OwnFault, format!("no randomness: {e}")))?;
        let path = format!("/tmp/compute-prover-{}", hex::encode(name));
        self.put(&sftp, &path, program).await?;
        let _ = sftp.close().await; // what was written is closed and was read back
        self.program.set(path).map_err(|_| Fault::new(Reason::OwnFault, "the program is uploaded already"))
    }

    async fn start(&self, arguments: &[&str]) -> Result<Process, Fault> {
        let path = self.program.get().ok_or_else(|| Fault::new(Reason::OwnFault, "nothing is uploaded"))?;
        let channel = self.channel().await?;
        // SSH carries one line; its words are ours, and none needs quoting.
        let command = std::iter::once(path.as_str()).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" ");
        channel.exec(true, command).await.map_err(|error| failed(&error))?;
        let (mut incoming, outgoing) = channel.split();
        let stdin = Box::new(outgoing.make_writer());
        let (mut pipe, stdout) = tokio::io::duplex(PIPE);
        let (end, ended) = watch::channel(None);
        tokio::spawn(async move {
            // Whoever holds the writing half keeps the channel open: this task, until the other end closes it.
            let _outgoing = outgoing;
            let mut words = Vec::new();
            let mut status = None;
            loop {
                let message = tokio::select! {
                    message = incoming.wait() => message,
                    () = end.closed() => break,
                };
                match message {
                    // Nobody reads any more: its status is still of interest.
                    Some(ChannelMsg::Data { data }) => _ = pipe.write_all(&data).await,
                    Some(ChannelMsg::ExtendedData { data, .. }) => {
                        words.extend_from_slice(&data);
                        let surplus = words.len().saturating_sub(STDERR_TAIL);
                        words.drain(..surplus);
                    }
                    Some(ChannelMsg::Failure) => {
                        status = Some(CANNOT_RUN);
                        words = b"the SSH server runs no programs".to_vec();
                        break;
                    }
                    Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
                    Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                        words.extend_from_slice(format!(" ended by signal {signal_name:?}").as_bytes());
                    }
                    Some(ChannelMsg::Close) | None => break,
                    Some(_) => {}
                }
            }
            let words = printable(String::from_utf8_lossy(&words).trim(), STDERR_TAIL);
            end.send_replace(Some(Ended { status, words }));
        });
        Ok(Process { stdout: Box::new(stdout), stdin, ended })
    }
}

impl Drop for SshSession {
    fn drop(&mut self) {
        let (Some(handle), Ok(runtime)) = (self.handle.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(async move {
            let goodbye = handle.disconnect(Disconnect::ByApplication, "done", "en");
            let _ = timeout(GOODBYE, goodbye).await; // dropping the handle ends the connection all the same
        });
    }
}
