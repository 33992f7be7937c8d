//! The control socket's file: where it is, how it is bound, and how it is reached under a path of any length.
//!
//! The kernel takes paths of 107 bytes for a socket. Both sides therefore go through an open descriptor of the data
//! directory (`/proc/self/fd/N/control.sock`), which is short wherever the directory is.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

/// The socket's name in a data directory.
pub const SOCKET_FILE: &str = "control.sock";

/// The control socket of the node with this data directory.
pub fn path(dir: &Path) -> PathBuf {
    dir.join(SOCKET_FILE)
}

/// A data directory that is held open, so that its socket has a short path. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Reach(Arc<OwnedFd>);

impl Reach {
    /// Opens the directory.
    ///
    /// # Errors
    /// If it is not there or may not be entered.
    pub fn new(dir: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Reach(Arc::new(fd)))
    }
    /// The socket's path. Valid only in this process and while this value lives.
    pub fn path(&self) -> PathBuf {
        self.file(SOCKET_FILE)
    }
    fn file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

/// Binds the control socket of `dir`: for its owner only, in place of one that a dead node left. The caller holds the
/// directory's lock, so no living node is robbed of its socket.
///
/// # Errors
/// If something that is no socket has the name, or the directory takes no files.
pub fn bind(dir: &Path) -> io::Result<UnixListener> {
    let reach = Reach::new(dir)?;
    let to = reach.path();
    match std::fs::symlink_metadata(&to) {
        Ok(found) if !found.file_type().is_socket() => {
            let shown = path(dir);
            let text = format!("{} is there and is no socket; move it away", shown.display());
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Under a name of its own first: nobody ever meets it under the known name with other permissions.
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let own = reach.file(&format!("{SOCKET_FILE}.{}", hex::encode(random)));
    let made = UnixListener::bind(&own).and_then(|listener| {
        std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&own, &to)?;
        Ok(listener)
    });
    if made.is_err() {
        let _ = std::fs::remove_file(&own); // perhaps it was never made
    }
    made
}

/// Takes the socket's file away at the end of a node. The caller still holds the directory's lock.
pub fn remove(dir: &Path) {
    match std::fs::remove_file(path(dir)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "the control socket's file stays"),
    }
}

/// Whether this user may command a node that runs as `own`: the node's own user, and root.
pub fn may_command(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn the_socket_is_for_its_owner_only_and_replaces_one_that_nobody_listens_on() {
        let dir = tempfile::tempdir().unwrap();
        drop(bind(dir.path()).unwrap());
        assert!(UnixStream::connect(path(dir.path())).is_err(), "the file stays, nobody listens");
        let _listener = bind(dir.path()).unwrap();
        UnixStream::connect(path(dir.path())).unwrap();
        assert_eq!(mode(&path(dir.path())), 0o600);
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [SOCKET_FILE]);
    }

    #[test]
    fn a_file_of_that_name_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), "mine").unwrap();
        let error = bind(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(path(dir.path())).unwrap(), "mine");
    }

    #[test]
    fn a_path_longer_than_a_socket_address_works() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(200));
        std::fs::create_dir(&long).unwrap();
        assert!(UnixListener::bind(path(&long)).is_err(), "the kernel takes no such path by itself");
        let _listener = bind(&long).unwrap();
        UnixStream::connect(Reach::new(&long).unwrap().path()).unwrap();
        assert_eq!(mode(&path(&long)), 0o600);
    }

    #[test]
    fn only_the_nodes_user_and_root_may_command_it() {
        assert!(may_command(1000, 1000) && may_command(0, 1000) && may_command(0, 0));
        assert!(!may_command(1001, 1000) && !may_command(1000, 0));
    }
}
