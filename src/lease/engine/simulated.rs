//! A container engine whose containers are records in a file of their own.
//!
//! Like a daemon, it outlives the node: the file lies outside the node's database, a new handle on the same path shows
//! the same containers, and several handles (in one process or in several) see one another. A file lock orders them,
//! each change is written to a new file, synced and renamed over the old one.
//!
//! The file also keeps what was done to containers, in order ([`History`]), so that an audit can tell what was there at any
//! time and not only at the end.
//!
//! It really refuses the double use of a device, restarts, and takes grants, of which it keeps digests ([`Granted`]). Images
//! are not looked at. Its SSH endpoints are port numbers only: nothing listens there, so a
//! health check of such a lease has [`ProbeView::NotApplicable`](crate::lease::health::ProbeView::NotApplicable).

mod contents;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::ids::LeaseId;

use super::file_lock::lock;
use super::{Container, ContainerEngine, ContainerSpec, ContainerState, EngineError, Grant};
use contents::{beside, unavailable};

pub use contents::{Contents, Deed, Done, Granted, History};

/// How long a call may wait for the file and its lock.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// Failures to inject. All are off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// `create` refuses and creates nothing.
    pub fail_create: bool,
    /// `create` refuses every image and creates nothing.
    pub refuse_image: bool,
    /// `create` creates, but the caller does not learn of it.
    pub lose_create_reply: bool,
    /// `destroy` does nothing and the caller does not learn what came of it.
    pub fail_destroy: bool,
    /// Every call says that the engine is not available.
    pub unavailable: bool,
    /// Every call takes this much longer, by the tokio clock.
    pub delay: Duration,
}

/// A handle on a simulated engine. Clones and other handles on the same path show the same containers.
#[derive(Debug, Clone)]
pub struct SimulatedEngine {
    path: Arc<PathBuf>,
    /// One call of a handle at a time is at the file, so a lock held elsewhere blocks one worker thread and no more.
    gate: Arc<tokio::sync::Mutex<()>>,
    faults: Arc<Mutex<Faults>>,
}

impl SimulatedEngine {
    /// The engine whose containers lie in the file `path`. The file and its folder are made at the first change.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        SimulatedEngine { path: Arc::new(path.into()), gate: Arc::default(), faults: Arc::default() }
    }

    /// The file with the containers.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets the failures to inject, for this handle and its clones.
    pub fn set_faults(&self, faults: Faults) {
        *self.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// Makes the container of a lease vanish, as if somebody else had removed it. `false` when there is none.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when the file cannot be used.
    pub async fn disappear(&self, lease: LeaseId) -> Result<bool, EngineError> {
        self.change(move |c| {
            let (gone, kept): (Vec<_>, _) = c.containers.drain(..).partition(|c| c.labels.lease == lease);
            c.containers = kept;
            gone.iter().for_each(|container| c.gone(Deed::Vanished, container));
            Ok(!gone.is_empty())
        })
        .await
    }

    /// Ends the processes of a lease's container, as if they had crashed. `false` when there is none.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when the file cannot be used.
    pub async fn exit(&self, lease: LeaseId) -> Result<bool, EngineError> {
        self.change(move |c| match c.containers.iter_mut().find(|c| c.labels.lease == lease) {
            None => Ok(false),
            Some(container) => {
                container.state = ContainerState::Exited;
                Ok(true)
            }
        })
        .await
    }

    fn faults(&self) -> Faults {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn begin(&self) -> Result<Faults, EngineError> {
        let faults = self.faults();
        if !faults.delay.is_zero() {
            tokio::time::sleep(faults.delay).await;
        }
        if faults.unavailable {
            return Err(EngineError::Unavailable { why: "switched off by a fault switch".into(), source: None });
        }
        Ok(faults)
    }

    /// Reads the containers under the lock, lets `f` change them, writes them back if it did.
    async fn change<T, F>(&self, f: F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Contents) -> Result<T, EngineError> + Send + 'static,
    {
        let path = Arc::clone(&self.path);
        let gate = tokio::time::timeout(CALL_LIMIT, Arc::clone(&self.gate).lock_owned());
        let gate = gate.await.map_err(|_| EngineError::Unavailable {
            why: format!("{} is in use by calls that do not end", path.display()),
            source: None,
        })?;
        let work = tokio::task::spawn_blocking(move || {
            let _gate = gate;
            let _lock = lock(&beside(&path, ".lock")).map_err(|e| unavailable("cannot lock", &path, e))?;
            let mut contents = Contents::read(&path)?;
            let before = (contents.containers.clone(), contents.granted.clone());
            let out = f(&mut contents)?;
            if (&contents.containers, &contents.granted) != (&before.0, &before.1) {
                contents.write(&path)?;
            }
            Ok(out)
        });
        match tokio::time::timeout(CALL_LIMIT, work).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(EngineError::Unclear("the file worker ended early".into())),
            Err(_) => Err(EngineError::Unclear(format!("no answer in {} s", CALL_LIMIT.as_secs()))),
        }
    }

    async fn set_state(
        &self,
        lease: LeaseId,
        fencing_epoch: u64,
        state: ContainerState,
    ) -> Result<Container, EngineError> {
        self.begin().await?;
        self.change(move |c| {
            let found = c.of(lease, fencing_epoch)?.ok_or(EngineError::NoContainer(lease))?;
            let container = &mut c.containers[found];
            if container.state == ContainerState::Exited {
                return Err(EngineError::Refused(format!("the container of lease {lease} has ended")));
            }
            container.state = state;
            Ok(container.clone())
        })
        .await
    }
}

#[async_trait]
impl ContainerEngine for SimulatedEngine {
    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        self.begin().await?;
        self.change(|c| Ok(c.containers.clone())).await
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        let faults = self.begin().await?;
        if faults.fail_create {
            return Err(EngineError::Refused("switched off by a fault switch".into()));
        }
        if faults.refuse_image {
            let why = "refused by a fault switch".to_owned();
            return Err(EngineError::Image { image: spec.image.clone(), why });
        }
        let spec = spec.clone();
        let made = self.change(move |c| c.create(&spec)).await?;
        if faults.lose_create_reply {
            return Err(EngineError::Unclear("the reply was lost by a fault switch".into()));
        }
        Ok(made)
    }

    async fn destroy(&self, lease: LeaseId, fencing_epoch: u64) -> Result<bool, EngineError> {
        if self.begin().await?.fail_destroy {
            return Err(EngineError::Unclear("the call was lost by a fault switch".into()));
        }
        self.change(move |c| {
            let found = c.of(lease, fencing_epoch)?;
            if let Some(index) = found {
                let gone = c.containers.remove(index);
                c.gone(Deed::Destroyed, &gone);
            }
            Ok(found.is_some())
        })
        .await
    }

    async fn pause(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError> {
        self.set_state(lease, fencing_epoch, ContainerState::Paused).await
    }

    async fn unpause(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError> {
        self.set_state(lease, fencing_epoch, ContainerState::Running).await
    }

    async fn restart(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError> {
        self.begin().await?;
        self.change(move |c| {
            let found = c.of(lease, fencing_epoch)?.ok_or(EngineError::NoContainer(lease))?;
            c.containers[found].state = ContainerState::Running;
            let restarted = c.containers[found].clone();
            c.granted(&restarted.id).restarts += 1;
            Ok(restarted)
        })
        .await
    }

    async fn grant(&self, lease: LeaseId, fencing_epoch: u64, grant: &Grant) -> Result<(), EngineError> {
        self.begin().await?;
        let grant = grant.clone();
        self.change(move |c| {
            let found = c.of(lease, fencing_epoch)?.ok_or(EngineError::NoContainer(lease))?;
            let container = c.containers[found].id.clone();
            c.granted(&container).take(&grant);
            Ok(())
        })
        .await
    }

    async fn available(&self) -> Result<(), EngineError> {
        self.begin().await?;
        self.change(|_| Ok(())).await
    }
}

#[cfg(test)]
mod tests;
