//! How a renter logs in: the host key of the lease, pinned in a file of its own, and the `ssh` command that goes by it.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use super::{Context, complain, failed, parse};
use crate::exit::Exit;
use crate::ids::LeaseId;
use crate::lease::{Endpoint, Lease};

/// The directory of the host keys, below the node's data directory. One file for each lease.
const DIR: &str = "known_hosts";
/// The user that a renter is inside a container.
const USER: &str = "root";
/// The longest host key that is written, in bytes.
const MAX_KEY: usize = 2 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The lease.
    id: String,
    /// Your private SSH key; by default those that ssh tries by itself.
    #[arg(short, long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Log in although the lease has no host key on record: whoever sits in between can read along.
    #[arg(long)]
    unpinned: bool,
    /// What to run there instead of a shell.
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

/// Why nobody can log in by this lease.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    #[error("lease {0} has no login: it is {1}")]
    NoEndpoint(LeaseId, crate::lease::LeaseState),
    #[error("the host key of lease {0} is not one: {1}")]
    HostKey(LeaseId, &'static str),
    #[error("{} cannot be written", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Becomes the system's ssh, connected to the lease.
pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let id = parse(&args.id, "lease")?;
    let lease = context.client.lease(id).await.map_err(|e| failed(&e))?.lease;
    if lease.host_key.is_none() && !args.unpinned {
        complain(&format!("lease {id} has no host key on record, so it cannot be told who answers at its port"));
        complain("--unpinned logs in nevertheless");
        return Err(Exit::Data);
    }
    let mut command = prepare(&context.dir, &lease, args.identity.as_deref()).map_err(|error| {
        complain(&crate::telemetry::error_chain(&error));
        Exit::Data
    })?;
    command.extend(args.command);
    let Some((program, rest)) = command.split_first() else { return Err(Exit::Data) };
    let error = std::process::Command::new(program).args(rest).exec();
    complain(&format!("{program} cannot be started: {error}; install OpenSSH's client"));
    Err(Exit::Unavailable)
}

/// Pins the lease's host key, and gives the words of the command that logs in by it.
///
/// # Errors
/// [`LoginError`].
pub(super) fn prepare(dir: &Path, lease: &Lease, identity: Option<&Path>) -> Result<Vec<String>, LoginError> {
    let at = lease.endpoint.filter(|_| lease.state.is_live());
    let at = at.ok_or(LoginError::NoEndpoint(lease.id, lease.state))?;
    let pinned = match &lease.host_key {
        Some(key) => Some(pin(dir, lease.id, at, key)?),
        None => None,
    };
    Ok(command(at, identity, pinned.as_deref()))
}

/// Removes the pinned host key of a lease that is over.
pub(super) fn forget(dir: &Path, lease: LeaseId) {
    let _ = std::fs::remove_file(path(dir, lease)); // mostly there is none: not everybody logs in
}

fn path(dir: &Path, lease: LeaseId) -> PathBuf {
    dir.join(DIR).join(lease.to_string())
}

/// Writes the file that `UserKnownHostsFile` names: as a whole or not at all, for its owner alone.
fn pin(dir: &Path, lease: LeaseId, at: Endpoint, key: &str) -> Result<PathBuf, LoginError> {
    let line = known_hosts_line(at, key).map_err(|why| LoginError::HostKey(lease, why))?;
    let path = path(dir, lease);
    let write = || {
        DirBuilder::new().recursive(true).mode(0o700).create(dir.join(DIR))?;
        let new = path.with_extension("new");
        let _ = std::fs::remove_file(&new); // of a run that was cut short
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)
    };
    match write() {
        Ok(()) => Ok(path),
        Err(source) => Err(LoginError::File { path, source }),
    }
}

/// One line of a `known_hosts` file. The key came from the miner: what is no key must not become another line.
fn known_hosts_line(at: Endpoint, key: &str) -> Result<String, &'static str> {
    let mut words = key.split(' ');
    let (Some(kind), Some(blob), None) = (words.next(), words.next(), words.next()) else {
        return Err("a kind and a key are needed, and nothing else");
    };
    let of_kind = |c: char| c.is_ascii_alphanumeric() || "-@.".contains(c);
    let of_blob = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    if key.len() > MAX_KEY || kind.is_empty() || blob.is_empty() {
        return Err("it is empty or too long");
    }
    if kind.starts_with(['-', '@']) || !kind.chars().all(of_kind) || !blob.chars().all(of_blob) {
        return Err("it holds characters that no key has");
    }
    let host = match at.ssh_port {
        22 => at.host.to_string(),
        port => format!("[{}]:{port}", at.host),
    };
    Ok(format!("{host} {kind} {blob}\n"))
}

/// The words of the command: with a pinned key nobody else is believed, without one ssh asks its user.
fn command(at: Endpoint, identity: Option<&Path>, pinned: Option<&Path>) -> Vec<String> {
    let mut words = vec!["ssh".to_owned()];
    if let Some(key) = identity {
        words.extend(["-i".to_owned(), key.display().to_string()]);
    }
    words.extend(["-p".to_owned(), at.ssh_port.to_string()]);
    if let Some(file) = pinned {
        let option = |text: String| ["-o".to_owned(), text];
        words.extend(option(format!("UserKnownHostsFile={}", escaped(file))));
        words.extend(option("StrictHostKeyChecking=yes".to_owned()));
    }
    words.push(format!("{USER}@{}", at.host));
    words
}

/// A path as ssh reads it in an option: it splits at spaces and expands `%`.
fn escaped(path: &Path) -> String {
    let text = path.display().to_string().replace('%', "%%");
    if text.contains([' ', '\t']) { format!("\"{text}\"") } else { text }
}

/// The command as a person pastes it into a shell.
pub(super) fn shown(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let quoted = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::leases::tests::running;
    use super::*;

    #[test]
    fn the_command_believes_nobody_but_the_key_on_record() {
        let dir = tempfile::tempdir().unwrap();
        let lease = running();
        let words = prepare(dir.path(), &lease, Some(Path::new("/home/op/my key"))).unwrap();
        let file = dir.path().join("known_hosts").join(lease.id.to_string());
        let shown = shown(&words).replace(&dir.path().display().to_string(), "DIR");
        assert_eq!(
            shown,
            format!(
                "ssh -i '/home/op/my key' -p 40022 -o UserKnownHostsFile=DIR/known_hosts/{} \
                 -o StrictHostKeyChecking=yes root@203.0.113.7",
                lease.id
            )
        );
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text, "[203.0.113.7]:40022 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA\n");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        prepare(dir.path(), &lease, None).unwrap();
        forget(dir.path(), lease.id);
        assert!(!file.exists());
        forget(dir.path(), lease.id);
    }

    #[test]
    fn a_host_key_is_a_key_and_never_another_line() {
        let at = running().endpoint.unwrap();
        for wrong in [
            "",
            "ssh-ed25519",
            "ssh-ed25519  ",
            "ssh-ed25519 AA x",
            "a b\n* ssh-ed25519 AA",
            "@revoked AA",
            "a AA\u{1b}",
        ] {
            assert!(known_hosts_line(at, wrong).is_err(), "{wrong:?}");
        }
        let plain = Endpoint { host: "2001:db8::7".parse().unwrap(), ssh_port: 22 };
        assert_eq!(known_hosts_line(plain, "ssh-ed25519 AA==").unwrap(), "2001:db8::7 ssh-ed25519 AA==\n");
    }

    #[test]
    fn without_a_host_key_nothing_is_pinned_and_without_a_login_there_is_no_command() {
        let dir = tempfile::tempdir().unwrap();
        let words = prepare(dir.path(), &Lease { host_key: None, ..running() }, None).unwrap();
        assert_eq!(words, ["ssh", "-p", "40022", "root@203.0.113.7"]);
        assert!(!dir.path().join("known_hosts").exists());
        let over = Lease { state: crate::lease::LeaseState::Released, ..running() };
        let error = prepare(dir.path(), &over, None).unwrap_err().to_string();
        assert_eq!(error, format!("lease {} has no login: it is released", over.id));
    }

    #[test]
    fn what_a_shell_would_read_otherwise_is_quoted() {
        let words = ["ssh", "a b", "it's", "$(x)", ""].map(str::to_owned);
        assert_eq!(shown(&words), r"ssh 'a b' 'it'\''s' '$(x)' ''");
        assert_eq!(escaped(Path::new("/a b/%h")), "\"/a b/%%h\"");
    }
}
