//! One node for each hotkey on this machine.
//!
//! Two nodes that act with one hotkey undo each other: two axons are announced in turns, two verdicts are given for one
//! epoch, two leases hold one device. A lock file for each hotkey and subnet, in one directory of this user, keeps the
//! second one out whatever data directory it was given. The kernel releases the lock however the first one ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids::{Hotkey, Netuid};

/// How much of a lock file is read.
const MAX_BYTES: u64 = 8 * 1024;

/// The hotkey's lock; gives it back when dropped.
#[derive(Debug)]
pub struct HotkeyLock {
    path: PathBuf,
    _file: File,
}

/// Who holds a lock, as the lock file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    data_dir: PathBuf,
}

/// Why a node may not act with a hotkey.
#[derive(Debug, thiserror::Error)]
pub enum HotkeyLockError {
    /// Another node does.
    #[error(
        "hotkey {hotkey} is in use by {holder} on this machine: end that node, or give this one a hotkey of its own"
    )]
    InUse {
        /// The hotkey.
        hotkey: Hotkey,
        /// By whom.
        holder: String,
    },
    /// The system refuses.
    #[error("cannot {what} {}; another directory can be set as node.lock_dir", path.display())]
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

impl HotkeyLock {
    /// Takes the lock of a hotkey on a subnet. `data_dir` is told to whoever finds it taken. Blocking, for an instant.
    ///
    /// # Errors
    /// [`HotkeyLockError`].
    pub fn take(dir: &Path, hotkey: Hotkey, netuid: Netuid, data_dir: &Path) -> Result<Self, HotkeyLockError> {
        let failed = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| HotkeyLockError::File { what, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make", dir))?;
        let path = dir.join(format!("{hotkey}-{netuid}.lock"));
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let mut file = file.map_err(failed("open", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(HotkeyLockError::InUse { hotkey, holder: holder(&mut file) });
                }
                Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
            }
            // Whoever held it may have removed the file between our opening and locking it.
            let ours = file.metadata().map_err(failed("read", &path))?;
            if !std::fs::metadata(&path).is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                continue;
            }
            let data_dir = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
            let holder = serde_json::to_vec(&Holder { pid: std::process::id(), data_dir }).unwrap_or_default();
            // Who holds it is a courtesy: on a full disk the lock still holds without it.
            let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&holder));
            return Ok(HotkeyLock { path, _file: file });
        }
    }
}

impl Drop for HotkeyLock {
    fn drop(&mut self) {
        // Still locked: nobody else can hold what is removed here.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn holder(file: &mut File) -> String {
    let mut text = Vec::new();
    let _ = io::Read::by_ref(file).take(MAX_BYTES).read_to_end(&mut text);
    match serde_json::from_slice::<Holder>(&text) {
        Ok(Holder { pid, data_dir }) if pid == std::process::id() => {
            format!("another node of this process with data directory {}", data_dir.display())
        }
        Ok(Holder { pid, data_dir }) => format!("process {pid} with data directory {}", data_dir.display()),
        Err(_) => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Hotkey = Hotkey([7; 32]);

    #[test]
    fn the_second_node_of_a_hotkey_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let take = |netuid, data: &str| HotkeyLock::take(dir.path(), KEY, Netuid(netuid), Path::new(data));
        let first = take(27, "/data/one").unwrap();
        let refused = take(27, "/data/two").unwrap_err().to_string();
        assert!(refused.contains(&KEY.to_string()) && refused.contains("/data/one"), "{refused}");
        take(15, "/data/two").expect("the same hotkey on another subnet is another node");
        drop(first);
        take(27, "/data/two").expect("it is free again");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn a_lock_file_that_was_left_behind_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("{KEY}-27.lock"));
        std::fs::write(&path, "not json").unwrap();
        let _first = HotkeyLock::take(dir.path(), KEY, Netuid(27), Path::new("/data")).unwrap();
        let told: Holder = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(told, Holder { pid: std::process::id(), data_dir: "/data".into() });
    }
}
