//! Which engine this is. One that is started with another data directory, as when a disk is not mounted, shows no container; that
//! says nothing of the containers that the one from before has, so it is not believed.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::ids::LeaseId;
use crate::lease::engine::EngineError;

/// What tells an engine with its containers from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Its own name for itself. Older ones keep it beside their configuration, so that it says nothing of their data.
    pub(super) engine: String,
    /// Its data directory, where that can be seen from here.
    pub(super) root: Option<Root>,
}

/// A directory, by what no other one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Root {
    /// Its number in its file system.
    pub(super) inode: u64,
    /// When it was made, in nanoseconds since the Unix epoch, where the file system keeps that.
    pub(super) born_ns: Option<i128>,
}

impl Identity {
    /// Whether `now` is the engine on record with the same data. Where the directory was never seen its name must do; where it was, and
    /// cannot be now, that is no sign that it is the same: its list may be empty because its disk is away.
    fn is(&self, now: &Identity) -> bool {
        let same_root = self.root.is_none() || self.root == now.root;
        self.engine == now.engine && same_root
    }
}

/// The directory at `path`, if it can be seen.
pub(super) fn root_at(path: &std::path::Path) -> Option<Root> {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let seen = statx(CWD, path, AtFlags::empty(), StatxFlags::INO | StatxFlags::BTIME).ok()?;
    let born = StatxFlags::from_bits_retain(seen.stx_mask).contains(StatxFlags::BTIME);
    let born_ns = born.then(|| i128::from(seen.stx_btime.tv_sec) * 1_000_000_000 + i128::from(seen.stx_btime.tv_nsec));
    Some(Root { inode: seen.stx_ino, born_ns })
}

/// The engine that this miner works with, on record.
pub(super) struct Home {
    file: PathBuf,
    /// Leases of which there may be containers, once somebody told.
    expected: Mutex<Option<Vec<LeaseId>>>,
}

impl Home {
    pub(super) fn at(file: PathBuf) -> Self {
        Home { file, expected: Mutex::new(None) }
    }

    /// Of these leases there may be containers.
    pub(super) fn expects(&self, leases: &[LeaseId]) {
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = Some(leases.to_vec());
    }

    /// Whether the engine is the one on record. The first one is put there.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] with what to do.
    pub(super) async fn is(&self, now: &Identity) -> Result<(), EngineError> {
        match self.recorded().await? {
            None => self.record(now).await,
            Some(known) if known.is(now) => Ok(()),
            Some(_) => Err(self.stranger()),
        }
    }

    /// The same for an engine that just listed containers of these leases: another one is taken where nothing is expected of the one
    /// on record, or where this one shows what is.
    ///
    /// # Errors
    /// See [`Home::is`].
    pub(super) async fn shows(&self, now: &Identity, listed: &[LeaseId]) -> Result<(), EngineError> {
        match self.is(now).await {
            Err(EngineError::Unavailable { .. }) if self.moved(listed) => {
                tracing::warn!(
                    engine = now.engine,
                    "the container engine or its data directory is another one from now on"
                );
                self.record(now).await
            }
            other => other,
        }
    }

    fn moved(&self, listed: &[LeaseId]) -> bool {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.as_ref().is_some_and(|leases| leases.is_empty() || leases.iter().any(|lease| listed.contains(lease)))
    }

    fn stranger(&self) -> EngineError {
        let why = format!(
            "this is not the Docker Engine that this miner's containers are in, or its data directory is another one, or cannot be seen: is \
             its disk mounted? Until it is back, leases stay as they are and nothing is rented; if those containers are gone for \
             good, delete {}",
            self.file.display()
        );
        EngineError::Unavailable { why, source: None }
    }

    async fn recorded(&self) -> Result<Option<Identity>, EngineError> {
        match tokio::fs::read(&self.file).await {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| EngineError::Unavailable {
                why: format!(
                    "{} does not say which engine this is; delete it if it is the right one",
                    self.file.display()
                ),
                source: Some(error.into()),
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.cannot("read", error)),
        }
    }

    async fn record(&self, now: &Identity) -> Result<(), EngineError> {
        let text = serde_json::to_vec_pretty(now).map_err(|error| self.cannot("write", error.into()))?;
        super::state::replace(&self.file, text).await.map_err(|error| self.cannot("write", error))
    }

    fn cannot(&self, what: &str, source: std::io::Error) -> EngineError {
        EngineError::Unavailable { why: format!("cannot {what} {}", self.file.display()), source: Some(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LeaseId = LeaseId([1; 16]);
    const B: LeaseId = LeaseId([2; 16]);

    fn engine(name: &str, inode: Option<u64>) -> Identity {
        Identity { engine: name.into(), root: inode.map(|inode| Root { inode, born_ns: Some(7) }) }
    }

    #[tokio::test]
    async fn the_first_engine_is_taken_and_another_only_where_nothing_is_lost_by_it() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("data/engine.json"));
        home.is(&engine("one", Some(1))).await.unwrap();
        home.is(&engine("one", Some(1))).await.unwrap();
        for other in [engine("one", Some(2)), engine("two", Some(1)), engine("one", None)] {
            let refused = home.shows(&other, &[]).await.unwrap_err();
            assert!(refused.to_string().contains("engine.json") && refused.to_string().contains("is its disk mounted"));
        }
        home.expects(&[A]);
        assert!(home.shows(&engine("two", Some(2)), &[]).await.is_err());
        assert!(home.shows(&engine("two", Some(2)), &[B]).await.is_err(), "somebody else's container");
        home.is(&engine("one", Some(1))).await.expect("it is back");
        home.shows(&engine("two", Some(2)), &[B, A]).await.expect("the data was moved there");
        assert!(home.is(&engine("one", Some(1))).await.is_err());
        home.expects(&[]);
        assert!(home.is(&engine("one", Some(1))).await.is_err(), "only a list makes another one the right one");
        home.shows(&engine("one", Some(1)), &[]).await.expect("nothing is expected");
    }

    #[tokio::test]
    async fn an_engine_whose_directory_was_never_seen_is_known_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path().join("engine.json"));
        home.is(&engine("one", None)).await.unwrap();
        home.is(&engine("one", Some(1))).await.unwrap();
        assert!(home.is(&engine("two", None)).await.is_err());
    }

    #[tokio::test]
    async fn a_record_that_is_none_is_named_and_deleting_it_takes_the_engine_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("engine.json");
        let home = Home::at(file.clone());
        std::fs::write(&file, "{").unwrap();
        assert!(home.is(&engine("one", None)).await.unwrap_err().to_string().contains("engine.json"));
        std::fs::remove_file(&file).unwrap();
        home.is(&engine("one", None)).await.unwrap();
    }

    #[test]
    fn a_directory_is_told_from_another_by_its_number_and_birth() {
        let dir = tempfile::tempdir().unwrap();
        let one = root_at(dir.path()).unwrap();
        assert_eq!(root_at(dir.path()), Some(one));
        assert_ne!(root_at(dir.path().parent().unwrap()), Some(one));
        assert_eq!(root_at(&dir.path().join("none")), None);
    }
}
