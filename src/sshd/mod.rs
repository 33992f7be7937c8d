//! The SSH server that runs in rented containers, `compute-sshd`: what a renter logs in to, whatever is in the image.
//!
//! It needs nothing of the image: one static program, no shell of its own, no `/etc/passwd`, no user but the one it runs as.
//! The miner puts it and the files of `access` into the container; `docs/rentals.md`, "How login works", says why it is so.
//!
//! Read in this order: [`server`] (connections, and how many), `access` with `keys` (who may log in), `connection` (what
//! a client asks for), `inlet` (what it sends, and how much of that waits), `session` with `terminal`, `account`,
//! `environment`, `argv`, `programs` and [`launch`] (programs), `sftp` (files), `forward` with `resolve` (ports).
//!
//! Design notes:
//! - Everyone who gets in is the user that this process runs as; there is nobody else to become. So a login is no boundary
//!   inside the container, and what the client sets is checked for mistakes rather than attacks. Before the login all input
//!   is an attacker's: connections, time and memory are bounded there.
//! - Nothing is remembered between logins: the files are read at each attempt, so who may log in changes with a file.
//! - Nothing goes to a client that its program did not write, except why its program could not be started.
//! - A session's processes are sent SIGHUP when their connection ends, and are reaped when they end. What they write then is
//!   read for a while, so that they are not ended by that. The server ends after them: it kills those that SIGHUP does not end.

mod access;
mod account;
mod argv;
mod connection;
mod environment;
mod forward;
mod inlet;
mod keys;
pub mod launch;
mod log;
mod programs;
mod resolve;
pub mod server;
mod session;
mod sftp;
mod terminal;

use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What a regular file holds, if that is at most so many bytes. Blocks, but not on a FIFO.
fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::File::options().read(true).custom_flags(nonblocking).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(bytes)
}
