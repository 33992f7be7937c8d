//! Who computes a proof: a trait, a child process with limits, this process, and an adversary.
//!
//! A [`Commitment`] is bound to its challenge and can be opened until it is dropped, which ends whatever computes it; so is
//! [`Filled`] memory, which is scanned before it is opened.
//! A prover's crash, hang or nonsense is a [`ProverError`]: an `Unknown` for the device, never a panic of the node.

use std::time::Duration;

use async_trait::async_trait;

use super::budget::Demand;
use super::memory;
use super::memory::keys::ScanNonce;
use super::work::{Challenge, Position, Root, Work};
use crate::ids::DeviceId;
use crate::verdict::UnknownCause;

mod backend;
mod child;
pub mod cuda;
mod desk;
mod devices;
pub mod forging;
mod held;
mod in_process;
mod serve;
mod stdio;
mod warm;

pub use backend::{Backend, BackendError, ParseBackendError};
pub use child::{ChildProver, CudaChild, ProverLimits};
pub use devices::{Computes, DeviceProver};
pub use forging::{Forgery, ForgingProver};
pub use in_process::InProcessProver;
pub use serve::{ServeError, serve};
pub use stdio::serve_stdio;

/// Something that can compute proofs.
#[async_trait]
pub trait Prover: Send + Sync {
    /// Computes all rounds of the challenge. Dropping the future ends the computation.
    ///
    /// # Errors
    /// See [`ProverError`].
    async fn commit(&self, challenge: &Challenge) -> Result<Box<dyn Commitment>, ProverError>;

    /// Fills memory with the challenge's blocks, and makes all ready that the scans need. Dropping the future ends it.
    ///
    /// # Errors
    /// See [`ProverError`].
    async fn fill(&self, challenge: &memory::Challenge) -> Result<Box<dyn Filled>, ProverError>;

    /// What this work needs on this device.
    fn needs(&self, _device: DeviceId, work: &Work) -> Demand {
        Demand::of_processor(*work)
    }

    /// What a proof of this device's memory needs.
    fn needs_for_memory(&self, _device: DeviceId, size: &memory::Size) -> Demand {
        Demand::of_own_memory(size)
    }

    /// Lets go of what is ready on any other device, and, where `begin` says so, begins to make these ready: a later commit
    /// is shorter by what was done before. Returns at once; a device that cannot be made ready is one that is not.
    fn stand_by(&self, _devices: &[DeviceId], _begin: bool) {}

    /// Makes these devices ready for this work and waits until they are, for measurements: a commit that follows is not
    /// longer by the start. A device that cannot be made ready is one that is not.
    async fn make_ready(&self, _works: &[(DeviceId, Work)]) {}

    /// What computes for each of these devices and why, for people. Empty where there is nothing to choose.
    async fn explain(&self, _devices: &[DeviceId]) -> Vec<Computes> {
        Vec::new()
    }
}

/// A computed proof, to be opened. Dropping it ends whatever holds it.
#[async_trait]
pub trait Commitment: Send {
    /// One root for each round.
    fn roots(&self) -> &[Root];
    /// `tile ‖ path` of each position, in the order asked. May be called again.
    ///
    /// # Errors
    /// See [`ProverError`]. After any error but [`ProverError::Refused`] the commitment is gone.
    async fn open(&mut self, positions: &[Position]) -> Result<Vec<u8>, ProverError>;
}

/// Filled memory: the prover is ready. Dropping it ends whatever holds the memory.
#[async_trait]
pub trait Filled: Send {
    /// Does all scans, the first with this nonce: one root for each. A second call does them again, and they replace the
    /// first ones.
    ///
    /// # Errors
    /// See [`ProverError`]. After any error but [`ProverError::Refused`] the memory is gone; so it is when the future is
    /// dropped before its end.
    async fn scan(&mut self, nonce_0: &ScanNonce) -> Result<Vec<Root>, ProverError>;

    /// `three other digests ‖ path` of each position in the last scans, in the order asked. May be called again.
    ///
    /// # Errors
    /// As [`Filled::scan`]; [`ProverError::Refused`] for positions outside and before the first scans.
    async fn open(&mut self, positions: &[memory::Position]) -> Result<Vec<u8>, ProverError>;
}

/// Why a prover gave no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProverError {
    /// It could not be started.
    #[error("the prover could not be started: {what}")]
    Start {
        /// What was tried.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It ended before it answered.
    #[error("the prover ended early ({ended}); its last words: {stderr_tail:?}")]
    Crashed {
        /// How it ended.
        ended: String,
        /// The end of what it wrote to stderr.
        stderr_tail: String,
    },
    /// It did not answer in time, and was killed.
    #[error("the prover did not answer within {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// It wrote something that is no answer.
    #[error("the prover wrote something that is no answer: {what}")]
    Garbage {
        /// What was wrong with it.
        what: String,
    },
    /// It needed more memory than it may have.
    #[error("the prover needs more memory than its limit of {limit_bytes} bytes; raise prover.memory_limit_mib")]
    OverMemory {
        /// The limit.
        limit_bytes: u64,
    },
    /// The device cannot be used, failed, was lost, or has too little memory.
    #[error("the device cannot prove: {0}")]
    Device(String),
    /// It will not do this.
    #[error("the prover refused: {0}")]
    Refused(String),
}

impl ProverError {
    /// Of a request after one that failed: what would have to answer is gone.
    fn gone() -> ProverError {
        ProverError::Crashed { ended: "it failed in a request before".to_owned(), stderr_tail: String::new() }
    }

    /// What the validator can say about the device.
    pub fn cause(&self) -> UnknownCause {
        match self {
            ProverError::Start { .. } | ProverError::Crashed { .. } | ProverError::OverMemory { .. } => {
                UnknownCause::ProverCrashed
            }
            ProverError::TimedOut { .. } => UnknownCause::ProverHung,
            ProverError::Garbage { .. } => UnknownCause::ProverGarbage,
            ProverError::Device(_) => UnknownCause::DeviceFailed,
            ProverError::Refused(_) => UnknownCause::Refused,
        }
    }
}
