//! Locks that all engines on this machine share: one change of who has which device and port at a time, and no sweep of what
//! containers bring with them while one is being made.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::lease::engine::EngineError;
use crate::lease::engine::file_lock::{Kind, try_lock};

use super::session::{CHANGE, LOOK};

/// How long to wait for others' changes. Longer than the slowest change that a sound engine carries out under the lock.
pub(super) const LIMIT: Duration = CHANGE.saturating_add(LOOK).saturating_add(Duration::from_secs(5));
/// Time between two looks at a lock that another process holds.
const LOOK_AGAIN: Duration = Duration::from_millis(15);

/// A lock of this machine's engines, for one process.
#[derive(Debug, Clone)]
pub(super) struct HostLock {
    path: PathBuf,
    /// One caller of this process at a time waits for the lock as its only holder.
    gate: Arc<Mutex<()>>,
}

/// The lock, held until it is dropped.
pub(super) struct Held {
    _file: File,
    _gate: Option<OwnedMutexGuard<()>>,
}

impl HostLock {
    pub(super) fn at(path: PathBuf) -> Self {
        HostLock { path, gate: Arc::default() }
    }

    /// Takes the lock as its only holder.
    pub(super) async fn take(&self) -> Result<Held, EngineError> {
        self.within_limit(async {
            let gate = self.gate.clone().lock_owned().await;
            Ok(Held { _file: self.wait(Kind::Exclusive).await?, _gate: Some(gate) })
        })
        .await
    }

    /// Takes the lock beside others who share it.
    pub(super) async fn share(&self) -> Result<Held, EngineError> {
        self.within_limit(async { Ok(Held { _file: self.wait(Kind::Shared).await?, _gate: None }) }).await
    }

    /// Takes the lock as its only holder if nobody has it now.
    pub(super) async fn take_if_free(&self) -> Result<Option<Held>, EngineError> {
        let free =
            self.tried(Kind::Exclusive).await.map_err(|error| self.unavailable("cannot be locked", Some(error)))?;
        Ok(free.map(|file| Held { _file: file, _gate: None }))
    }

    async fn within_limit(&self, work: impl Future<Output = io::Result<Held>>) -> Result<Held, EngineError> {
        match tokio::time::timeout(LIMIT, work).await {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(error)) => Err(self.unavailable("cannot be locked", Some(error))),
            Err(_) => Err(self.unavailable("is held by another process that does not end", None)),
        }
    }

    async fn wait(&self, kind: Kind) -> io::Result<File> {
        loop {
            if let Some(file) = self.tried(kind).await? {
                return Ok(file);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn tried(&self, kind: Kind) -> io::Result<Option<File>> {
        let path = self.path.clone();
        let tried = tokio::task::spawn_blocking(move || try_lock(&path, kind)).await;
        tried.unwrap_or_else(|ended| Err(io::Error::other(ended)))
    }

    fn unavailable(&self, why: &str, source: Option<io::Error>) -> EngineError {
        EngineError::Unavailable { why: format!("{}: {why}", self.path.display()), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_taker_waits_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks/engine.lock");
        let (one, other_process) = (HostLock::at(path.clone()), HostLock::at(path));
        let held = one.take().await.unwrap();
        let second = tokio::spawn(async move { other_process.take().await.is_ok() });
        assert!(tokio::time::timeout(Duration::from_millis(60), one.take()).await.is_err());
        assert!(!second.is_finished());
        drop(held);
        assert!(second.await.unwrap());
    }

    #[tokio::test]
    async fn those_who_share_it_keep_an_only_holder_out_and_not_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let lock = HostLock::at(dir.path().join("making.lock"));
        let (one, two) = (lock.share().await.unwrap(), lock.share().await.unwrap());
        assert!(lock.take_if_free().await.unwrap().is_none());
        drop((one, two));
        let only = lock.take_if_free().await.unwrap().unwrap();
        assert!(lock.take_if_free().await.unwrap().is_none());
        assert!(tokio::time::timeout(Duration::from_millis(60), lock.share()).await.is_err());
        drop(only);
        assert!(lock.share().await.is_ok());
    }

    #[tokio::test]
    async fn a_lock_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let lock = HostLock::at(dir.path().join("file/engine.lock"));
        let Err(error) = lock.take().await else { panic!("no folder to make it in") };
        assert!(error.to_string().contains("file/engine.lock"), "{error}");
    }
}
