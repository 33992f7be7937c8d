//! Where containers live. An engine knows only its containers and their labels; leases are ours.
//!
//! The labels are the truth on the host: they name the lease and the fencing epoch that own a container, so that a
//! node that lost everything else still never kills what is not its own.

pub mod simulated;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Hotkey, LeaseId};

pub use simulated::{Contents, Deed, Done, Faults, History, SimulatedEngine};

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
    /// The engine refused; nothing was changed.
    #[error("the container engine refused: {0}")]
    Refused(String),
    /// The engine did not say what came of the call: look before acting on it.
    #[error("the outcome is not known: {0}")]
    Unclear(String),
}

impl EngineError {
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
    /// unless its renter or devices are others: that is refused.
    async fn create(&self, spec: &ContainerSpec) -> Result<Container, EngineError>;
    /// Destroys the container of this lease and fencing epoch. `false` when there was none; a container of another
    /// epoch is an error and stays.
    async fn destroy(&self, lease: LeaseId, fencing_epoch: u64) -> Result<bool, EngineError>;
    /// Freezes the container's processes. A repeat is harmless.
    async fn pause(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError>;
    /// Lets them run again. A repeat is harmless.
    async fn unpause(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError>;
    /// The container of this lease, the newest epoch's if there are several.
    async fn inspect(&self, lease: LeaseId) -> Result<Option<Container>, EngineError>;
    /// Whether the engine can be used now.
    async fn available(&self) -> Result<(), EngineError>;
}
