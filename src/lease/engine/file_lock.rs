//! A lock that all processes of this machine share, by a file. It belongs to one opening of the file, so it orders the handles
//! of one process as well as several processes; it is given back when the file is closed, also by the end of the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// How many may hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One.
    Exclusive,
    /// Any number, and no exclusive holder beside them.
    Shared,
}

/// Takes the lock if it is free, without a wait. The file and its folder are made where they are missing.
///
/// # Errors
/// The file or its folder cannot be made or locked.
pub(super) fn try_lock(path: &Path, kind: Kind) -> io::Result<Option<File>> {
    let file = open(path)?;
    let operation = match kind {
        Kind::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Kind::Shared => FlockOperation::NonBlockingLockShared,
    };
    match flock(&file, operation) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes the lock for one holder, and waits for as long as that takes.
///
/// # Errors
/// See [`try_lock`].
pub(super) fn lock(path: &Path) -> io::Result<File> {
    let file = open(path)?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}
