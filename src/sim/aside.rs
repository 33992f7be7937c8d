//! The directory of a devnet: made, continued, or put aside for a new run, and held by one process at a time.
//!
//! Invariants: nothing is moved or removed that is not a devnet's own, by the file [`LOCK_FILE`] in it; a directory that
//! a running devnet uses is left alone. Only the run before the last is removed, and only by a new run.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Marks a devnet's directory; locked while a devnet uses it.
pub const LOCK_FILE: &str = "devnet.lock";

/// A devnet's directory, held until this is dropped or the process ends.
#[derive(Debug)]
pub struct HeldDir {
    _lock: File,
}

/// Why a directory cannot be a devnet's.
#[derive(Debug, thiserror::Error)]
pub enum AsideError {
    /// It holds something else.
    #[error("{} is not empty and no devnet's directory, so it is left alone: choose another with --node.data_dir", .0.display())]
    Foreign(PathBuf),
    /// A devnet runs in it.
    #[error("another devnet runs in {}: end it, or choose another directory with --node.data_dir", .0.display())]
    InUse(PathBuf),
    /// The system refuses.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AsideError {
    let path = path.to_owned();
    move |source| AsideError::File { what, path, source }
}

/// Makes `dir` ready for a devnet and holds it. With `resume` a devnet that is there is continued; without, it is put
/// aside beside it as `NAME.previous`, in place of the one that was put aside before.
///
/// # Errors
/// [`AsideError`]; what was there is then untouched.
pub fn prepare(dir: &Path, resume: bool) -> Result<HeldDir, AsideError> {
    if holds_something(dir)? {
        if !is_devnets(dir) {
            return Err(AsideError::Foreign(dir.to_owned()));
        }
        let held = hold(dir)?;
        if resume {
            return Ok(held);
        }
        return make(&put_aside(dir)?);
    }
    make(dir)
}

fn make(dir: &Path) -> Result<HeldDir, AsideError> {
    // Others on this machine have no business in a node's databases.
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make", dir))?;
    hold(dir)
}

fn holds_something(dir: &Path) -> Result<bool, AsideError> {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("read", dir)(error)),
    }
}

/// By its lock file, or by the seed of a devnet from before there was one.
fn is_devnets(dir: &Path) -> bool {
    [LOCK_FILE, super::keys::SEED_FILE].iter().any(|name| dir.join(name).is_file())
}

fn hold(dir: &Path) -> Result<HeldDir, AsideError> {
    let path = dir.join(LOCK_FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = file.map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(HeldDir { _lock: file }),
        Err(TryLockError::WouldBlock) => Err(AsideError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
    }
}

/// The place that is free now.
fn put_aside(dir: &Path) -> Result<PathBuf, AsideError> {
    // The directory itself, not a link to it, `.` or `..`.
    let real = dir.canonicalize().map_err(failed("find", dir))?;
    let Some(name) = real.file_name() else { return Err(AsideError::Foreign(real)) };
    let mut aside = OsString::from(name);
    aside.push(".previous");
    let previous = real.with_file_name(aside);
    if previous.symlink_metadata().is_ok() {
        if previous.is_symlink() || !is_devnets(&previous) {
            return Err(AsideError::Foreign(previous));
        }
        let _held = hold(&previous)?;
        std::fs::remove_dir_all(&previous).map_err(failed("remove the run before the last,", &previous))?;
    }
    std::fs::rename(&real, &previous).map_err(failed("put aside", &real))?;
    Ok(real)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn a_new_run_puts_the_last_one_aside_and_removes_only_the_one_before() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("net.v1");
        for run in ["one", "two", "three"] {
            let held = prepare(&dir, false).unwrap();
            assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "a new run begins with its lock only");
            put(&dir.join("ledger/run"), run);
            drop(held);
        }
        let aside = temp.path().join("net.v1.previous");
        assert_eq!(std::fs::read_to_string(aside.join("ledger/run")).unwrap(), "two");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2, "nothing else was made or removed");
    }

    #[test]
    fn a_resumed_run_finds_what_the_last_one_left() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("net");
        drop(prepare(&dir, true).unwrap());
        put(&dir.join("ledger/run"), "one");
        let _held = prepare(&dir, true).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("ledger/run")).unwrap(), "one");
    }

    #[test]
    fn what_is_not_a_devnets_is_never_touched() {
        let temp = tempfile::tempdir().unwrap();
        let (home, link) = (temp.path().join("home"), temp.path().join("link"));
        put(&home.join("thesis.txt"), "years of work");
        std::os::unix::fs::symlink(&home, &link).unwrap();
        for dir in [home.clone(), home.join("."), home.join("sub/.."), link, PathBuf::from("/")] {
            std::fs::create_dir_all(home.join("sub")).unwrap();
            for resume in [false, true] {
                assert!(matches!(prepare(&dir, resume), Err(AsideError::Foreign(_))), "{}", dir.display());
            }
        }
        // A directory of that name that somebody else made.
        let net = temp.path().join("net");
        drop(prepare(&net, false).unwrap());
        put(&temp.path().join("net.previous/thesis.txt"), "years of work");
        assert!(matches!(prepare(&net, false), Err(AsideError::Foreign(_))));
        for kept in [home.join("thesis.txt"), temp.path().join("net.previous/thesis.txt")] {
            assert_eq!(std::fs::read_to_string(kept).unwrap(), "years of work");
        }
    }

    #[test]
    fn a_devnet_behind_a_link_or_a_dot_is_put_aside_itself() {
        let temp = tempfile::tempdir().unwrap();
        let net = temp.path().join("net");
        drop(prepare(&net, false).unwrap());
        put(&net.join("ledger/run"), "one");
        drop(prepare(&net.join("."), false).unwrap());
        assert!(temp.path().join("net.previous/ledger/run").is_file() && !net.join("ledger").exists());
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&net, &link).unwrap();
        put(&net.join("ledger/run"), "two");
        drop(prepare(&link, false).unwrap());
        assert_eq!(std::fs::read_to_string(temp.path().join("net.previous/ledger/run")).unwrap(), "two");
        assert!(link.join(LOCK_FILE).is_file() && !net.join("ledger").exists());
    }

    #[test]
    fn a_devnet_that_runs_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("net");
        let _held = prepare(&dir, false).unwrap();
        for resume in [false, true] {
            assert!(matches!(prepare(&dir, resume), Err(AsideError::InUse(_))));
        }
    }
}
