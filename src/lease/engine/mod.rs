//! Where containers live. An engine knows only its containers and their labels; leases are ours.
//!
//! The labels are the truth on the host: they name the lease and the fencing epoch that own a container, so that a
//! node that lost everything else still never kills what is not its own.

pub mod docker;
mod file_lock;
pub mod simulated;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::machine::is_key_line;
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::telemetry::NodeMetrics;

pub use docker::DockerEngine;
pub use simulated::{Contents, Deed, Done, Faults, Granted, History, SimulatedEngine};

/// What to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The lease that will own the container.
    pub lease: LeaseId,
    /// The fencing epoch that will own it.
    pub fencing_epoch: u64,
    /// When the lease ends by itself, in milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// The renting validator.
    pub renter: Hotkey,
    /// The devices the container may use, and no others.
    pub devices: Vec<DeviceId>,
    /// The public key that may log in.
    pub ssh_public_key: Option<String>,
    /// The image, as the renter asked for it. Empty: the one that the engine takes when nobody asks.
    #[serde(default)]
    pub image: String,
}

/// Who owns a container, as written on it. Labels never change after creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The lease.
    pub lease: LeaseId,
    /// The fencing epoch it was created in.
    pub fencing_epoch: u64,
    /// The end of the lease when the container was created, in milliseconds since the Unix epoch. The journal may
    /// know a later one.
    pub expires_at_ms: u64,
    /// The renting validator.
    pub renter: Hotkey,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Runs.
    Running,
    /// Exists, its processes are frozen.
    Paused,
    /// Exists, its processes have ended.
    Exited,
}

/// A container of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// The engine's name of it.
    pub id: String,
    /// Who owns it.
    pub labels: Labels,
    /// What it does.
    pub state: ContainerState,
    /// The port of its SSH server on the host.
    pub ssh_port: u16,
    /// The devices it may use.
    pub devices: Vec<DeviceId>,
    /// The public key of its SSH server, one line in OpenSSH's format without a comment. It stays for the container's life.
    /// `None` for containers from before there was one.
    #[serde(default)]
    pub host_key: Option<String>,
}

/// Who may log in to a container from now on. Each replaces what was granted under its name before.
#[derive(Clone, PartialEq, Eq)]
pub enum Grant {
    /// The renter's public key, one line in OpenSSH's format.
    UserKey(String),
    /// The public key of a second party that the renter lets in, one line in OpenSSH's format; `None` ends that.
    TerminalKey(Option<String>),
    /// Password login, with the password of this hash: a PHC string of Argon2id.
    PasswordHash(String),
}

impl Grant {
    /// What is granted: snake case, stable.
    pub fn label(&self) -> &'static str {
        match self {
            Grant::UserKey(_) => "user_key",
            Grant::TerminalKey(_) => "terminal_key",
            Grant::PasswordHash(_) => "password_hash",
        }
    }

    /// Whether this can be granted: a key is one line of printable text of bounded length, a hash is one of Argon2id.
    ///
    /// # Errors
    /// What is wrong, without a word of what was granted.
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Grant::UserKey(key) | Grant::TerminalKey(Some(key)) if !is_key_line(key) => {
                Err("a public key must be one line of printable text in OpenSSH's format")
            }
            Grant::PasswordHash(hash) if !hash.starts_with("$argon2id$") || !is_key_line(hash) => {
                Err("a password's hash must be a PHC string of Argon2id")
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Grant::UserKey(key) => f.debug_tuple("UserKey").field(key).finish(),
            Grant::TerminalKey(key) => f.debug_tuple("TerminalKey").field(key).finish(),
            Grant::PasswordHash(_) => f.write_str("PasswordHash(..)"),
        }
    }
}

/// Why an engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The engine cannot be reached or used at all; nothing was changed.
    #[error("the container engine is not available: {why}")]
    Unavailable {
        /// What is wrong, and what to do.
        why: String,
        /// The cause, where there is one.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A device belongs to another container; nothing was changed.
    #[error("device {device} is used by the container of lease {lease}")]
    DeviceInUse {
        /// The device.
        device: DeviceId,
        /// The lease on that container's labels.
        lease: LeaseId,
    },
    /// The lease's container belongs to another fencing epoch; nothing was changed.
    #[error("the container of lease {lease} belongs to fencing epoch {present}, not {asked}")]
    OtherEpoch {
        /// The lease.
        lease: LeaseId,
        /// The epoch on the container's labels.
        present: u64,
        /// The epoch of the call.
        asked: u64,
    },
    /// There is no such container; nothing was changed.
    #[error("lease {0} has no container")]
    NoContainer(LeaseId),
    /// The image is not one that may run here, or cannot be had; nothing was changed.
    #[error("image {image}: {why}")]
    Image {
        /// The image that was asked for.
        image: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The engine refused; nothing was changed.
    #[error("the container engine refused: {0}")]
    Refused(String),
    /// The engine did not say what came of the call: look before acting on it.
    #[error("the outcome is not known: {0}")]
    Unclear(String),
}

/// The calls of an engine, as metrics name them.
pub const CALLS: &[&str] = &["list", "create", "destroy", "pause", "unpause", "restart", "grant"];
/// The stages of making a container, in order, as metrics name them.
pub const STAGES: &[&str] = &["image", "reserve", "create", "start", "ssh_ready"];

impl EngineError {
    /// Every [`EngineError::label`].
    pub const LABELS: &'static [&'static str] =
        &["unavailable", "device_in_use", "other_epoch", "no_container", "image", "refused", "unclear"];

    /// Whether the engine's containers are certainly as they were before the call.
    pub fn nothing_happened(&self) -> bool {
        !matches!(self, EngineError::Unclear(_))
    }
    /// The metric label: snake case, stable.
    pub fn label(&self) -> &'static str {
        match self {
            EngineError::Unavailable { .. } => "unavailable",
            EngineError::DeviceInUse { .. } => "device_in_use",
            EngineError::OtherEpoch { .. } => "other_epoch",
            EngineError::NoContainer(_) => "no_container",
            EngineError::Image { .. } => "image",
            EngineError::Refused(_) => "refused",
            EngineError::Unclear(_) => "unclear",
        }
    }
}

/// A container engine: Docker, or a simulated one. Every call has a deadline of its own.
#[async_trait]
pub trait ContainerEngine: Send + Sync {
    /// All containers that carry our labels, and no others, in a fixed order.
    async fn list(&self) -> Result<Vec<Container>, EngineError>;
    /// Creates and starts a container. A repeat with the same lease and fencing epoch returns the one that is there,
    /// unless its renter or devices are others: that is refused. [`EngineError::Image`] when the image is not one that may
    /// run here.
    async fn create(&self, spec: &ContainerSpec) -> Result<Container, EngineError>;
    /// Destroys the container of this lease and fencing epoch. `false` when there was none; a container of another
    /// epoch is an error and stays.
    async fn destroy(&self, lease: LeaseId, fencing_epoch: u64) -> Result<bool, EngineError>;
    /// Freezes the container's processes. A repeat is harmless.
    async fn pause(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError>;
    /// Lets them run again. A repeat is harmless.
    async fn unpause(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError>;
    /// Ends the container's processes, if there are any, and starts it again; a paused one runs afterwards. Its files, port,
    /// host key and grants stay.
    async fn restart(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError>;
    /// Changes who may log in, without a restart: it holds from the next login on, sessions go on. A repeat is harmless.
    /// [`Grant::check`] has passed.
    async fn grant(&self, lease: LeaseId, fencing_epoch: u64, grant: &Grant) -> Result<(), EngineError>;
    /// Whether the engine can be used now.
    async fn available(&self) -> Result<(), EngineError>;
    /// A number that grows when containers of ours may have changed without our doing, for an engine that tells. The
    /// change itself is found by [`ContainerEngine::list`].
    fn changes(&self) -> Option<watch::Receiver<u64>> {
        None
    }
    /// What became of the trial of the image that the original's callers get, for an engine that tries it; `None` inside until it did.
    fn tried(&self) -> Option<watch::Receiver<Option<docker::profile::Tried>>> {
        None
    }
    /// Tells how many devices this machine offers, for an engine that divides the machine among leases.
    fn offers(&self, _devices: usize) {}
    /// Tells of which leases there may be containers, before a [`ContainerEngine::list`]: an engine that is not the one from before
    /// and shows none of them is not believed. Nothing of them is taken for gone then.
    fn expects(&self, _leases: &[LeaseId]) {}
    /// Gives the node's metrics to an engine that has something to report.
    fn report_to(&self, _metrics: &Arc<NodeMetrics>) {}
}
