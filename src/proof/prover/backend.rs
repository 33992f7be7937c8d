//! Which backend computes: the processor, a GPU, or whichever this machine has for the device.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use super::cuda::{self, CudaError};
use super::held::{Held, OnCpu};
use crate::ids::DeviceId;
use crate::proof::cpu::{self, CpuCommitment, CpuError};
use crate::proof::memory;
use crate::proof::memory::cpu::MemoryError;
use crate::proof::work::Challenge;

/// What computes. Openings of work are always computed by the processor; memory is opened by what holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// The processor, whatever device the challenge names.
    #[default]
    Cpu,
    /// The GPU that the challenge names.
    Cuda,
    /// The GPU that the challenge names if this machine has it and a driver for it, else the processor.
    Auto,
}

/// Why a backend gave no proof.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The processor's.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The processor's, about memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The GPU's.
    #[error("the cuda backend: {0}")]
    Cuda(#[from] CudaError),
}

impl Backend {
    /// Computes all rounds of the challenge.
    ///
    /// # Errors
    /// See [`CpuError`] and [`CudaError`].
    pub fn commit(
        self,
        challenge: &Challenge,
        threads: usize,
        cancel: &AtomicBool,
    ) -> Result<CpuCommitment, BackendError> {
        if self.tries_cuda(challenge.device) {
            match cuda::commit(challenge, threads, cancel) {
                Err(error) if self == Backend::Auto && error.is_absence() => {}
                done => return Ok(done?),
            }
        }
        Ok(cpu::commit(challenge, threads, cancel)?)
    }
}

impl Backend {
    /// Fills memory for the challenge.
    ///
    /// # Errors
    /// See [`MemoryError`] and [`CudaError`].
    pub(crate) fn fill(
        self,
        challenge: &memory::Challenge,
        threads: usize,
        cancel: &AtomicBool,
    ) -> Result<Held, BackendError> {
        if self.tries_cuda(challenge.device) {
            match cuda::fill(challenge, cancel) {
                Err(error) if self == Backend::Auto && error.is_absence() => {}
                done => return Ok(Held::new(challenge.size, Box::new(done?))),
            }
        }
        Ok(OnCpu::held(memory::cpu::fill(challenge, threads, memory_limit(), cancel)?))
    }
}

impl Backend {
    fn tries_cuda(self, device: DeviceId) -> bool {
        match self {
            Backend::Cpu => false,
            Backend::Cuda => true,
            Backend::Auto => device.cpu_index().is_none(),
        }
    }
}

/// Bytes that this process may have: what whoever started it has set as a limit.
#[cfg(target_os = "linux")]
fn memory_limit() -> u64 {
    use rustix::process::{Resource, getrlimit};
    let limit = |resource| getrlimit(resource).current.unwrap_or(u64::MAX);
    limit(Resource::As).min(limit(Resource::Data))
}

#[cfg(not(target_os = "linux"))]
fn memory_limit() -> u64 {
    u64::MAX
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Backend::Cpu => "cpu",
            Backend::Cuda => "cuda",
            Backend::Auto => "auto",
        })
    }
}

/// No backend has this name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected cpu, cuda or auto")]
pub struct ParseBackendError;

impl FromStr for Backend {
    type Err = ParseBackendError;
    fn from_str(text: &str) -> Result<Self, ParseBackendError> {
        let all = [Backend::Cpu, Backend::Cuda, Backend::Auto];
        all.into_iter().find(|backend| backend.to_string() == text).ok_or(ParseBackendError)
    }
}
