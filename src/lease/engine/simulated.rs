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

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use russh::keys::PublicKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock as _, SystemClock};
use crate::ids::{DeviceId, Hash32, LeaseId};

use super::file_lock::lock;
use super::{Container, ContainerEngine, ContainerSpec, ContainerState, EngineError, Grant, Labels};

/// The first port that is given to a container.
const FIRST_PORT: u16 = 40_000;
/// The most containers one file holds.
const MAX_CONTAINERS: usize = 1_024;
/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// How long a call may wait for the file and its lock.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// The format of the file.
const FORMAT: u32 = 1;
/// The latest deeds that are kept; those before are only counted.
const MAX_HISTORY: usize = 2_048;
const HOST_KEY_CONTEXT: &str = "compute-subnet/1 host key of a simulated container";
const GRANT_CONTEXT: &str = "compute-subnet/1 grant of a simulated container";

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

/// What was done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It was created.
    Created,
    /// It was destroyed.
    Destroyed,
    /// Somebody else removed it, see [`SimulatedEngine::disappear`].
    Vanished,
}

/// A deed, when and to which container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What.
    pub deed: Deed,
    /// The lease on the container's labels.
    pub lease: LeaseId,
    /// The fencing epoch on its labels.
    pub fencing_epoch: u64,
    /// Its devices.
    pub devices: Vec<DeviceId>,
}

/// Who may log in to a container, as digests: no key and no password lies in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// The container.
    pub container: String,
    /// [`Granted::digest`] of the renter's public key.
    pub user_key: Option<Hash32>,
    /// That of the second party's public key.
    pub terminal_key: Option<Hash32>,
    /// That of the password's hash.
    pub password_hash: Option<Hash32>,
    /// How often the container was started again.
    pub restarts: u64,
}

impl Granted {
    /// What is kept of a key or of a password's hash.
    pub fn digest(secret: &str) -> Hash32 {
        Hash32(blake3::derive_key(GRANT_CONTEXT, secret.as_bytes()))
    }

    fn take(&mut self, grant: &Grant) {
        match grant {
            Grant::UserKey(key) => self.user_key = Some(Granted::digest(key)),
            Grant::TerminalKey(key) => self.terminal_key = key.as_deref().map(Granted::digest),
            Grant::PasswordHash(hash) => self.password_hash = Some(Granted::digest(hash)),
        }
    }
}

/// What was done to containers, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Earlier deeds that are no longer kept.
    pub forgotten: u64,
    /// The latest ones.
    pub done: Vec<Done>,
}

/// The engine's file: what is there, and how it came to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    format: u32,
    created: u64,
    /// The containers that are there.
    pub containers: Vec<Container>,
    /// Who may log in to them.
    #[serde(default)]
    pub granted: Vec<Granted>,
    /// What was done.
    #[serde(default)]
    pub history: History,
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
            let mut contents = read(&path)?;
            let before = (contents.containers.clone(), contents.granted.clone());
            let out = f(&mut contents)?;
            if (&contents.containers, &contents.granted) != (&before.0, &before.1) {
                write(&path, &contents)?;
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

impl Contents {
    fn empty() -> Self {
        let (containers, granted) = (Vec::new(), Vec::new());
        Contents { format: FORMAT, created: 0, containers, granted, history: History::default() }
    }

    /// Reads an engine's file, from beside the engine: the file is replaced as a whole, so this needs no lock.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when it cannot be read or is no engine's. No file is an engine without containers.
    pub fn read(path: &Path) -> Result<Self, EngineError> {
        read(path)
    }

    fn did(&mut self, deed: Deed, to: &Container) {
        let History { forgotten, done } = &mut self.history;
        if done.is_empty() && *forgotten == 0 {
            // A file from before there was a history.
            *forgotten = self.created.saturating_sub(u64::from(deed == Deed::Created));
        }
        done.push(Done {
            at_ms: SystemClock.now_ms(),
            deed,
            lease: to.labels.lease,
            fencing_epoch: to.labels.fencing_epoch,
            devices: to.devices.clone(),
        });
        let excess = done.len().saturating_sub(MAX_HISTORY);
        done.drain(..excess);
        *forgotten += excess as u64;
    }

    /// Takes note that the container, which is not in the list any more, is gone.
    fn gone(&mut self, deed: Deed, container: &Container) {
        self.granted.retain(|g| g.container != container.id);
        self.did(deed, container);
    }

    /// Who may log in to a container. Files from before there were grants have none.
    fn granted(&mut self, container: &str) -> &mut Granted {
        let found = self.granted.iter().position(|g| g.container == container);
        let index = found.unwrap_or_else(|| {
            self.granted.push(Granted { container: container.to_owned(), ..Granted::default() });
            self.granted.len() - 1
        });
        &mut self.granted[index]
    }

    /// The index of the lease's container of this epoch; containers of other epochs only are an error.
    fn of(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Option<usize>, EngineError> {
        let mine = |c: &Container| c.labels.lease == lease;
        if let Some(found) = self.containers.iter().position(|c| mine(c) && c.labels.fencing_epoch == fencing_epoch) {
            return Ok(Some(found));
        }
        match self.containers.iter().find(|c| mine(c)) {
            None => Ok(None),
            Some(c) => Err(EngineError::OtherEpoch { lease, present: c.labels.fencing_epoch, asked: fencing_epoch }),
        }
    }

    fn create(&mut self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        if let Some(found) = self.of(spec.lease, spec.fencing_epoch)? {
            let there = &self.containers[found];
            if there.labels.renter != spec.renter || there.devices != spec.devices {
                let why = format!("lease {} has a container of another renter or with other devices", spec.lease);
                return Err(EngineError::Refused(why));
            }
            return Ok(there.clone());
        }
        for device in &spec.devices {
            if let Some(user) = self.containers.iter().find(|c| c.devices.contains(device)) {
                return Err(EngineError::DeviceInUse { device: *device, lease: user.labels.lease });
            }
        }
        if self.containers.len() >= MAX_CONTAINERS {
            return Err(EngineError::Refused(format!("{MAX_CONTAINERS} containers are there already")));
        }
        let ssh_port = (FIRST_PORT..u16::MAX)
            .find(|port| self.containers.iter().all(|c| c.ssh_port != *port))
            .ok_or_else(|| EngineError::Refused("no port is left".into()))?;
        self.created += 1;
        let container = Container {
            id: format!("sim-{}-{}", spec.lease, self.created),
            labels: Labels {
                lease: spec.lease,
                fencing_epoch: spec.fencing_epoch,
                expires_at_ms: spec.expires_at_ms,
                renter: spec.renter,
            },
            state: ContainerState::Running,
            ssh_port,
            devices: spec.devices.clone(),
            host_key: Some(host_key(spec.lease, spec.fencing_epoch)?),
        };
        self.did(Deed::Created, &container);
        let granted = self.granted(&container.id);
        granted.user_key = spec.ssh_public_key.as_deref().map(Granted::digest);
        self.containers.push(container.clone());
        Ok(container)
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

/// The public key of the SSH server that such a container would have: a real key, the same whenever it is asked for.
fn host_key(lease: LeaseId, fencing_epoch: u64) -> Result<String, EngineError> {
    let mut seed = blake3::Hasher::new_derive_key(HOST_KEY_CONTEXT);
    seed.update(&lease.0);
    seed.update(&fencing_epoch.to_le_bytes());
    let pair = Ed25519Keypair::from_seed(seed.finalize().as_bytes());
    PublicKey::from(pair.public).to_openssh().map_err(|e| EngineError::Refused(format!("no host key: {e}")))
}

fn unavailable(what: &str, path: &Path, source: io::Error) -> EngineError {
    EngineError::Unavailable { why: format!("{what} {}", path.display()), source: Some(source) }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn read(path: &Path) -> Result<Contents, EngineError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Contents::empty()),
        Err(e) => return Err(unavailable("cannot open", path, e)),
    };
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).map_err(|e| unavailable("cannot read", path, e))?;
    if text.len() as u64 > MAX_FILE {
        return Err(EngineError::Unavailable { why: format!("{} is too long", path.display()), source: None });
    }
    let contents: Contents = serde_json::from_slice(&text).map_err(|e| EngineError::Unavailable {
        why: format!("{} holds no containers; move it aside to start with none", path.display()),
        source: Some(e.into()),
    })?;
    if contents.format != FORMAT {
        let why = format!("{} has format {}, this program knows {FORMAT}", path.display(), contents.format);
        return Err(EngineError::Unavailable { why, source: None });
    }
    Ok(contents)
}

/// Replaces the file as a whole: readers see the old containers or the new ones, also after a power cut.
fn write(path: &Path, contents: &Contents) -> Result<(), EngineError> {
    let fresh = beside(path, ".new");
    let before_rename = || -> io::Result<()> {
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec_pretty(contents)?)?;
        file.sync_all()
    };
    before_rename().map_err(|e| unavailable("cannot write", &fresh, e))?;
    fs::rename(&fresh, path).map_err(|e| unavailable("cannot replace", path, e))?;
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        // The new name is there; whether it survives a power cut is not known if this fails.
        File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(|e| EngineError::Unclear(format!("cannot sync {}: {e}", folder.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hotkey};

    fn spec(lease: u8, epoch: u64, device: u8) -> ContainerSpec {
        ContainerSpec {
            lease: LeaseId([lease; 16]),
            fencing_epoch: epoch,
            expires_at_ms: 1,
            renter: Hotkey([1; 32]),
            devices: vec![DeviceId::cpu(device)],
            ssh_public_key: None,
            image: String::new(),
        }
    }

    fn engine() -> (tempfile::TempDir, SimulatedEngine) {
        let dir = tempfile::tempdir().unwrap();
        let engine = SimulatedEngine::new(dir.path().join("host/containers.json"));
        (dir, engine)
    }

    #[tokio::test]
    async fn containers_outlive_the_handle_that_made_them() {
        let (_dir, first) = engine();
        let made = first.create(&spec(1, 1, 0)).await.unwrap();
        let path = first.path().to_owned();
        drop(first);
        assert_eq!(SimulatedEngine::new(path).list().await.unwrap(), [made]);
    }

    #[tokio::test]
    async fn the_file_tells_what_was_done_in_order_and_counts_what_it_no_longer_keeps() {
        let (_dir, engine) = engine();
        engine.create(&spec(1, 1, 0)).await.unwrap();
        engine.create(&spec(1, 1, 0)).await.unwrap();
        engine.destroy(LeaseId([1; 16]), 1).await.unwrap();
        engine.destroy(LeaseId([1; 16]), 1).await.unwrap();
        engine.create(&spec(2, 3, 0)).await.unwrap();
        engine.disappear(LeaseId([2; 16])).await.unwrap();
        let history = Contents::read(engine.path()).unwrap().history;
        let told: Vec<_> = history.done.iter().map(|d| (d.deed, d.lease.0[0], d.fencing_epoch)).collect();
        assert_eq!(
            told,
            [(Deed::Created, 1, 1), (Deed::Destroyed, 1, 1), (Deed::Created, 2, 3), (Deed::Vanished, 2, 3)]
        );
        assert_eq!(history.forgotten, 0);

        let mut contents = Contents { created: 7, ..Contents::empty() };
        let made = contents.create(&spec(1, 1, 0)).unwrap();
        assert_eq!(contents.history.forgotten, 7, "what was created before there was a history");
        (0..MAX_HISTORY).for_each(|_| contents.did(Deed::Destroyed, &made));
        assert_eq!((contents.history.done.len(), contents.history.forgotten), (MAX_HISTORY, 8));
    }

    #[tokio::test]
    async fn handles_at_work_at_once_lose_nothing_and_share_no_device_or_port() {
        let (_dir, first) = engine();
        let second = SimulatedEngine::new(first.path());
        let calls = (0..16u8).map(|i| {
            let engine = if i % 2 == 0 { first.clone() } else { second.clone() };
            // Each device is asked for twice, by different leases and handles.
            async move { engine.create(&spec(i, 1, i / 2)).await }
        });
        let outcomes = futures_util::future::join_all(calls).await;
        let refused = outcomes.iter().filter(|o| matches!(o, Err(EngineError::DeviceInUse { .. }))).count();
        assert_eq!((outcomes.iter().filter(|o| o.is_ok()).count(), refused), (8, 8));
        let all = second.list().await.unwrap();
        let ports: std::collections::BTreeSet<u16> = all.iter().map(|c| c.ssh_port).collect();
        assert_eq!((all.len(), ports.len()), (8, 8));
    }

    #[tokio::test]
    async fn creation_is_idempotent_by_lease_and_epoch() {
        let (_dir, engine) = engine();
        let made = engine.create(&spec(1, 1, 0)).await.unwrap();
        assert_eq!(engine.create(&spec(1, 1, 0)).await.unwrap(), made);
        let other_devices = engine.create(&spec(1, 1, 3)).await;
        assert!(matches!(other_devices, Err(EngineError::Refused(_))));
        let other_renter = ContainerSpec { renter: Hotkey([2; 32]), ..spec(1, 1, 0) };
        assert!(matches!(engine.create(&other_renter).await, Err(EngineError::Refused(_))));
        let newer = engine.create(&spec(1, 2, 1)).await;
        assert!(matches!(newer, Err(EngineError::OtherEpoch { present: 1, asked: 2, .. })));
    }

    #[tokio::test]
    async fn another_epochs_container_is_neither_destroyed_nor_paused() {
        let (_dir, engine) = engine();
        let lease = LeaseId([1; 16]);
        engine.create(&spec(1, 2, 0)).await.unwrap();
        assert!(matches!(engine.destroy(lease, 1).await, Err(EngineError::OtherEpoch { .. })));
        assert!(matches!(engine.pause(lease, 1).await, Err(EngineError::OtherEpoch { .. })));
        assert!(engine.destroy(lease, 2).await.unwrap());
        assert!(!engine.destroy(lease, 2).await.unwrap(), "a repeat says that there was none");
    }

    #[tokio::test]
    async fn a_container_pauses_and_goes_on() {
        let (_dir, engine) = engine();
        let lease = LeaseId([1; 16]);
        assert!(matches!(engine.pause(lease, 1).await, Err(EngineError::NoContainer(_))));
        engine.create(&spec(1, 1, 0)).await.unwrap();
        assert_eq!(engine.pause(lease, 1).await.unwrap().state, ContainerState::Paused);
        assert_eq!(engine.unpause(lease, 1).await.unwrap().state, ContainerState::Running);
        assert!(engine.exit(lease).await.unwrap());
        assert!(matches!(engine.unpause(lease, 1).await, Err(EngineError::Refused(_))));
        assert_eq!(engine.list().await.unwrap()[0].state, ContainerState::Exited);
    }

    #[tokio::test]
    async fn a_restart_runs_an_ended_container_again_with_its_port_key_and_grants() {
        let (_dir, engine) = engine();
        let lease = LeaseId([1; 16]);
        assert!(matches!(engine.restart(lease, 1).await, Err(EngineError::NoContainer(_))));
        let made = engine.create(&ContainerSpec { ssh_public_key: Some("old".into()), ..spec(1, 1, 0) }).await.unwrap();
        let key = PublicKey::from_openssh(made.host_key.as_deref().unwrap()).unwrap();
        assert_eq!(key.algorithm(), russh::keys::Algorithm::Ed25519);
        engine.grant(lease, 1, &Grant::UserKey("new".into())).await.unwrap();
        engine.exit(lease).await.unwrap();
        assert!(matches!(engine.restart(lease, 2).await, Err(EngineError::OtherEpoch { .. })));
        assert_eq!(engine.restart(lease, 1).await.unwrap(), made);
        let kept = Contents::read(engine.path()).unwrap().granted;
        let user_key = Some(Granted::digest("new"));
        assert_eq!(kept, [Granted { container: made.id, user_key, restarts: 1, ..Granted::default() }]);
    }

    #[tokio::test]
    async fn a_grant_replaces_the_one_of_its_name_and_goes_with_the_container() {
        let (_dir, engine) = engine();
        let lease = LeaseId([1; 16]);
        engine.create(&spec(1, 1, 0)).await.unwrap();
        let granted = async || Contents::read(engine.path()).unwrap().granted.first().cloned().unwrap_or_default();
        for (grant, again) in [(Grant::TerminalKey(Some("a".into())), false), (Grant::TerminalKey(None), true)] {
            engine.grant(lease, 1, &grant).await.unwrap();
            engine.grant(lease, 1, &grant).await.unwrap();
            assert_eq!(granted().await.terminal_key.is_none(), again);
        }
        engine.grant(lease, 1, &Grant::PasswordHash("$argon2id$x".into())).await.unwrap();
        assert_eq!(granted().await.password_hash, Some(Granted::digest("$argon2id$x")));
        let text = fs::read_to_string(engine.path()).unwrap();
        assert!(!text.contains("argon2id"), "{text}");
        assert!(matches!(engine.grant(lease, 2, &Grant::TerminalKey(None)).await, Err(EngineError::OtherEpoch { .. })));
        engine.destroy(lease, 1).await.unwrap();
        assert!(Contents::read(engine.path()).unwrap().granted.is_empty());
    }

    #[tokio::test]
    async fn faults_do_what_they_say() {
        let (_dir, engine) = engine();
        let lease = LeaseId([1; 16]);
        engine.set_faults(Faults { fail_create: true, ..Faults::default() });
        assert!(engine.create(&spec(1, 1, 0)).await.unwrap_err().nothing_happened());
        assert_eq!(engine.list().await.unwrap(), []);
        engine.set_faults(Faults { refuse_image: true, ..Faults::default() });
        assert!(matches!(engine.create(&spec(1, 1, 0)).await, Err(EngineError::Image { .. })));
        assert_eq!(engine.list().await.unwrap(), []);
        engine.set_faults(Faults { lose_create_reply: true, ..Faults::default() });
        assert!(!engine.create(&spec(1, 1, 0)).await.unwrap_err().nothing_happened());
        assert_eq!(engine.list().await.unwrap().len(), 1, "it is there all the same");
        engine.set_faults(Faults { fail_destroy: true, ..Faults::default() });
        assert!(!engine.destroy(lease, 1).await.unwrap_err().nothing_happened());
        assert!(engine.disappear(lease).await.unwrap());
        assert_eq!(engine.list().await.unwrap(), []);
        engine.set_faults(Faults { unavailable: true, ..Faults::default() });
        assert!(matches!(engine.available().await, Err(EngineError::Unavailable { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_engine_takes_its_time_on_the_tokio_clock() {
        let (_dir, engine) = engine();
        engine.set_faults(Faults { delay: Duration::from_secs(3), ..Faults::default() });
        let before = tokio::time::Instant::now();
        engine.available().await.unwrap();
        assert!(before.elapsed() >= Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_is_held_elsewhere_ends_in_an_error_by_the_deadline() {
        let (_dir, engine) = engine();
        engine.available().await.unwrap();
        let held = lock(&beside(engine.path(), ".lock")).unwrap();
        let (one, two) = (spec(1, 1, 0), spec(2, 1, 1));
        let calls = async { tokio::join!(engine.create(&one), engine.create(&two)) };
        let (waits, queues) = {
            tokio::pin!(calls);
            // A blocked worker thread keeps the paused clock from moving by itself.
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut calls => break outcome,
                    () = tokio::task::yield_now() => tokio::time::advance(Duration::from_millis(100)).await,
                }
            }
        };
        assert!(matches!(waits, Err(EngineError::Unclear(_))), "it may still be carried out");
        assert!(queues.unwrap_err().nothing_happened());
        drop(held);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_reported_and_left_as_it_is() {
        let (_dir, engine) = engine();
        fs::create_dir_all(engine.path().parent().unwrap()).unwrap();
        for text in ["{\"format\":1", "{\"format\":2,\"created\":0,\"containers\":[]}"] {
            fs::write(engine.path(), text).unwrap();
            assert!(matches!(engine.list().await, Err(EngineError::Unavailable { .. })));
            assert!(matches!(engine.create(&spec(1, 1, 0)).await, Err(EngineError::Unavailable { .. })));
            assert_eq!(fs::read_to_string(engine.path()).unwrap(), text);
        }
    }
}
