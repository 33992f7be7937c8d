//! The file of a simulated engine: the containers that are there, who may log in to them, and what was done.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use russh::keys::PublicKey;
use russh::keys::ssh_key::private::Ed25519Keypair;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock as _, SystemClock};
use crate::ids::{DeviceId, Hash32, LeaseId};
use crate::lease::engine::{Container, ContainerSpec, ContainerState, EngineError, Grant, Labels};

/// The first port that is given to a container.
const FIRST_PORT: u16 = 40_000;
/// The most containers one file holds.
const MAX_CONTAINERS: usize = 1_024;
/// The longest file that is read, in bytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;
/// The format of the file.
const FORMAT: u32 = 1;
/// The latest deeds that are kept; those before are only counted.
pub(super) const MAX_HISTORY: usize = 2_048;
const HOST_KEY_CONTEXT: &str = "compute-subnet/1 host key of a simulated container";
const GRANT_CONTEXT: &str = "compute-subnet/1 grant of a simulated container";

/// What was done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// It was created.
    Created,
    /// It was destroyed.
    Destroyed,
    /// Somebody else removed it, see [`SimulatedEngine::disappear`](super::SimulatedEngine::disappear).
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

    pub(super) fn take(&mut self, grant: &Grant) {
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
    pub(super) created: u64,
    /// The containers that are there.
    pub containers: Vec<Container>,
    /// Who may log in to them.
    #[serde(default)]
    pub granted: Vec<Granted>,
    /// What was done.
    #[serde(default)]
    pub history: History,
}

impl Contents {
    pub(super) fn empty() -> Self {
        let (containers, granted) = (Vec::new(), Vec::new());
        Contents { format: FORMAT, created: 0, containers, granted, history: History::default() }
    }

    /// Reads an engine's file, from beside the engine: the file is replaced as a whole, so this needs no lock.
    ///
    /// # Errors
    /// [`EngineError::Unavailable`] when it cannot be read or is no engine's. No file is an engine without containers.
    pub fn read(path: &Path) -> Result<Self, EngineError> {
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
    pub(super) fn write(&self, path: &Path) -> Result<(), EngineError> {
        let fresh = beside(path, ".new");
        let before_rename = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
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

    pub(super) fn did(&mut self, deed: Deed, to: &Container) {
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
    pub(super) fn gone(&mut self, deed: Deed, container: &Container) {
        self.granted.retain(|g| g.container != container.id);
        self.did(deed, container);
    }

    /// Who may log in to a container. Files from before there were grants have none.
    pub(super) fn granted(&mut self, container: &str) -> &mut Granted {
        let found = self.granted.iter().position(|g| g.container == container);
        let index = found.unwrap_or_else(|| {
            self.granted.push(Granted { container: container.to_owned(), ..Granted::default() });
            self.granted.len() - 1
        });
        &mut self.granted[index]
    }

    /// The index of the lease's container of this epoch; containers of other epochs only are an error.
    pub(super) fn of(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Option<usize>, EngineError> {
        let mine = |c: &Container| c.labels.lease == lease;
        if let Some(found) = self.containers.iter().position(|c| mine(c) && c.labels.fencing_epoch == fencing_epoch) {
            return Ok(Some(found));
        }
        match self.containers.iter().find(|c| mine(c)) {
            None => Ok(None),
            Some(c) => Err(EngineError::OtherEpoch { lease, present: c.labels.fencing_epoch, asked: fencing_epoch }),
        }
    }

    pub(super) fn create(&mut self, spec: &ContainerSpec) -> Result<Container, EngineError> {
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

/// The public key of the SSH server that such a container would have: a real key, the same whenever it is asked for.
fn host_key(lease: LeaseId, fencing_epoch: u64) -> Result<String, EngineError> {
    let mut seed = blake3::Hasher::new_derive_key(HOST_KEY_CONTEXT);
    seed.update(&lease.0);
    seed.update(&fencing_epoch.to_le_bytes());
    let pair = Ed25519Keypair::from_seed(seed.finalize().as_bytes());
    PublicKey::from(pair.public).to_openssh().map_err(|e| EngineError::Refused(format!("no host key: {e}")))
}

pub(super) fn unavailable(what: &str, path: &Path, source: io::Error) -> EngineError {
    EngineError::Unavailable { why: format!("{what} {}", path.display()), source: Some(source) }
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
