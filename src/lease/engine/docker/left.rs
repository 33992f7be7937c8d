//! Ending what runs in a container past the engine, and the record that this needs: which containers of ours there are, by their ids.
//!
//! An engine that is killed may forget a container whose processes run on. From then on it neither lists it nor ends anything of it, and no
//! label can be asked. So a container's id is on record from before its first start until it is gone and nothing of it runs:
//! an empty file `LEASE-EPOCH.ID` in a directory of the node's own.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;

use super::DockerEngine;
use super::fault::{Fault, one_line};
use super::labels::{Found, key_of};
use super::session::{LOOK, Session, within};
use crate::host::processes::{self, ContainerId};
use crate::host::quota::VolumeKey;
use crate::lease::engine::EngineError;
use crate::telemetry::error_chain;

/// How long processes may take to end.
const END: Duration = Duration::from_secs(10);

/// The record.
#[derive(Debug, Clone)]
pub(super) struct Record {
    dir: PathBuf,
}

impl Record {
    pub(super) fn at(dir: PathBuf) -> Self {
        Record { dir }
    }

    fn file(&self, key: VolumeKey, id: &ContainerId) -> PathBuf {
        self.dir.join(format!("{key}.{id}"))
    }

    /// Puts a container there. One that is there already is fine.
    async fn note(&self, key: VolumeKey, id: &ContainerId) -> io::Result<()> {
        let (dir, file) = (self.dir.clone(), self.file(key, id));
        blocking(move || {
            std::fs::create_dir_all(dir)?;
            std::fs::OpenOptions::new().create(true).append(true).open(file).map(drop)
        })
        .await
    }

    /// All that are there.
    async fn all(&self) -> io::Result<Vec<(VolumeKey, ContainerId)>> {
        let dir = self.dir.clone();
        blocking(move || {
            let entries = match std::fs::read_dir(dir) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let mut all = Vec::new();
            for entry in entries {
                let name = entry?.file_name();
                all.extend(name.to_str().and_then(read));
            }
            all.sort();
            Ok(all)
        })
        .await
    }

    /// Takes a container off it.
    async fn forget(&self, key: VolumeKey, id: &ContainerId) -> io::Result<()> {
        let file = self.file(key, id);
        blocking(move || match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }
}

/// Key and id of a file's name; `None` for what is none of ours.
fn read(name: &str) -> Option<(VolumeKey, ContainerId)> {
    let (key, id) = name.split_once('.')?;
    Some((key.parse().ok()?, id.parse().ok()?))
}

/// Files are read and written beside the actors' threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|ended| Err(io::Error::other(ended)))
}

impl DockerEngine {
    /// Puts a container on record that is about to be started for the first time.
    pub(super) async fn note(&self, key: VolumeKey, id: &str) -> Result<(), Fault> {
        let whole = id.parse::<ContainerId>().map_err(|()| Fault::Failed(not_an_id(id)))?;
        let noted = self.record.note(key, &whole).await;
        noted.map_err(|error| Fault::Failed(self.unusable(&error)))
    }

    /// Ends what still runs in a container after the engine was told to end it.
    pub(super) async fn end_all(&self, id: &str) -> Result<(), EngineError> {
        let whole = id.parse::<ContainerId>().map_err(|()| EngineError::Refused(not_an_id(id)))?;
        end(&whole).await
    }

    /// Ends what still runs in the containers on record for this key that the engine has no more, and takes them off it.
    pub(super) async fn end_forgotten(&self, session: &Session, key: VolumeKey) -> Result<(), EngineError> {
        for (_, id) in self.on_record().await?.iter().filter(|(of, _)| *of == key) {
            self.end_if_gone(session, key, id).await?;
        }
        Ok(())
    }

    /// Makes the record match the containers that the engine lists, while none is made: ends what still runs in those that it has no more.
    /// Returns whose processes go on all the same: what holds those must stay.
    ///
    /// # Errors
    /// Nobody knows whose processes run.
    pub(super) async fn keep_record(&self, session: &Session, found: &[Found]) -> Result<Vec<VolumeKey>, EngineError> {
        let all = self.on_record().await?;
        let whole = |found: &Found| Some((key_of(found), found.container.id.parse::<ContainerId>().ok()?));
        let listed: Vec<(VolumeKey, ContainerId)> = found.iter().filter_map(whole).collect();
        // Made by a version that kept no record, or before the record was lost.
        for (key, id) in listed.iter().filter(|one| !all.contains(one)) {
            if let Err(error) = self.record.note(*key, id).await {
                tracing::warn!(container = %id, why = self.unusable(&error), "a container is not on record");
            }
        }
        let gone = all.iter().filter(|one| !listed.contains(one));
        let ends = gone.map(|(key, id)| async move {
            let error = self.end_if_gone(session, *key, id).await.err()?;
            tracing::error!(volume = %key, %error, "a container is gone, and its processes may not be");
            Some(*key)
        });
        Ok(join_all(ends).await.into_iter().flatten().collect())
    }

    async fn end_if_gone(&self, session: &Session, key: VolumeKey, id: &ContainerId) -> Result<(), EngineError> {
        match within(LOOK, session.docker.inspect_container(&id.to_string(), None)).await {
            // Its labels cannot be read, or it came between: what holds it stays, and it is not gone.
            Ok(_) => {
                let there =
                    format!("container {id} is on record, and the engine has it without listing it as this miner's");
                return Err(EngineError::Unclear(there));
            }
            Err(Fault::Missing(_)) => {}
            Err(fault) => {
                let fault = self.fault(fault).await;
                return Err(EngineError::Unclear(format!("looking for a container on record: {}", fault.text())));
            }
        }
        end(id).await?;
        self.record.forget(key, id).await.map_err(|error| EngineError::Unclear(self.unusable(&error)))
    }

    async fn on_record(&self) -> Result<Vec<(VolumeKey, ContainerId)>, EngineError> {
        self.record.all().await.map_err(|error| EngineError::Unclear(self.unusable(&error)))
    }

    fn unusable(&self, error: &io::Error) -> String {
        format!("{}, where containers are on record, cannot be used: {error}", self.record.dir.display())
    }
}

fn not_an_id(id: &str) -> String {
    format!("the engine names a container {:?}, which is no id of Docker's", one_line(id))
}

async fn end(id: &ContainerId) -> Result<(), EngineError> {
    match processes::end(id, END).await {
        Ok(0) => Ok(()),
        Ok(ended) => {
            tracing::info!(container = %id, ended, "processes went on after their container was ended, and were ended too");
            Ok(())
        }
        Err(error) => Err(EngineError::Unclear(format!("ending what runs in the container: {}", error_chain(&error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LeaseId;

    #[tokio::test]
    async fn a_container_is_on_record_until_it_is_taken_off() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::at(dir.path().join("node/containers"));
        assert_eq!(record.all().await.unwrap(), [], "there is no directory before the first container");
        let id = |digit: &str| digit.repeat(64).parse::<ContainerId>().unwrap();
        let key = |lease| VolumeKey { lease: LeaseId([lease; 16]), epoch: 7 };
        for (lease, digit) in [(1, "a"), (2, "b"), (1, "c"), (1, "a")] {
            record.note(key(lease), &id(digit)).await.unwrap();
        }
        // What is none of ours says nothing.
        std::fs::write(dir.path().join("node/containers/lost+found"), "").unwrap();
        std::fs::write(dir.path().join(format!("node/containers/{}.abc", key(1))), "").unwrap();
        let again = Record::at(dir.path().join("node/containers"));
        assert_eq!(again.all().await.unwrap(), [(key(1), id("a")), (key(1), id("c")), (key(2), id("b"))]);
        again.forget(key(1), &id("a")).await.unwrap();
        again.forget(key(1), &id("a")).await.expect("it is off already");
        assert_eq!(record.all().await.unwrap(), [(key(1), id("c")), (key(2), id("b"))]);
    }
}
