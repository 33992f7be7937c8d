//! The prover's backend for NVIDIA GPUs: computes the roots on the device; tiles are opened by the cpu backend.
//!
//! `memory` is the proof of memory: what it fills stays on the device until it is dropped, and is opened from there.
//!
//! One round (`rounds`): fill `Bᵀ`; then strip by strip of `A`, in turn on two lanes: fill, multiply, hash the tiles, copy
//! their hashes to the host; then the tree. The product never lies in memory but for the two strips under way. All hashes of
//! tiles end up on the host, so that nothing is left on the device when the roots are known, and opening needs none.
//!
//! `kernels` has the device's programs as PTX, compiled by `scripts/ptx` from the `.cu` beside, and how each is launched.
//! `device` is what a device can do, as a trait: `driver` is CUDA's driver, which is looked for when it is needed and
//! never linked, with `cublaslt` for the product where that is installed; the tests run the same source compiled for this
//! machine's CPU.
//!
//! Invariants: no matrix is allocated before all are known to fit; memory is plain device memory, never managed; `unsafe` is
//! in `driver` and `cublaslt` alone; a device that fails is a [`CudaError`], never a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

use super::super::cpu::{CpuCommitment, CpuError};
use super::super::memory::keys::ScanNonce;
use super::super::memory::{Challenge as MemoryChallenge, Position as Block};
use super::super::work::{Challenge, Root, WorkError};
use crate::ids::DeviceId;

mod cublaslt;
mod device;
mod driver;
mod kernels;
mod memory;
mod rounds;

#[cfg(test)]
mod emulated;
#[cfg(test)]
mod tests;

pub use driver::{Gpu, gpus};
pub use memory::memory_bytes;

/// Why a GPU gave no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// CUDA's driver library is not there.
    #[error(
        "there is no CUDA driver: libcuda.so.1 was not found; install NVIDIA's driver, {} or later (in a container: run it \
         with --gpus)",
        driver::OLDEST_DRIVER
    )]
    NoDriver,
    /// The driver is there and does not start.
    #[error("the CUDA driver does not start: {code}; nvidia-smi may say more")]
    DriverFails {
        /// The driver's name of the error.
        code: String,
    },
    /// The driver is too old for the kernels.
    #[error(
        "the driver supports CUDA {}.{} only; install NVIDIA's driver {} or later",
        .version / 1000, .version % 1000 / 10, driver::OLDEST_DRIVER
    )]
    OldDriver {
        /// The CUDA version it supports, as it tells it: 1000 × major + 10 × minor.
        version: i32,
    },
    /// No GPU has this UUID.
    #[error("the CUDA driver has no device {device}; it has {}", list(.found))]
    NoSuchDevice {
        /// Asked for.
        device: DeviceId,
        /// All there are.
        found: Vec<DeviceId>,
    },
    /// The GPU is too old for the kernels.
    #[error("{device} has compute capability {major}.{minor}; 7.5 (Turing) or later is needed")]
    OldDevice {
        /// The device.
        device: DeviceId,
        /// Its compute capability.
        major: i32,
        /// And the rest of it.
        minor: i32,
    },
    /// The device has too little free memory.
    #[error("the device has {free} bytes of memory free, {needed} are needed")]
    OutOfMemory {
        /// Needed, at the least.
        needed: u64,
        /// Free.
        free: u64,
    },
    /// This machine's own memory does not suffice.
    #[error("out of memory: {bytes} more bytes could not be had on the host")]
    OutOfHostMemory {
        /// Bytes that were asked for.
        bytes: u64,
    },
    /// The device or its driver refused or failed.
    #[error("{what} failed: {code}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// The driver's (or library's) name of the error.
        code: String,
    },
    /// The device is not there any more, or needs a reset.
    #[error("the device is lost ({what}: {code}); nvidia-smi and the kernel's log (Xid) may say why")]
    Vanished {
        /// What was tried.
        what: &'static str,
        /// The driver's name of the error.
        code: String,
    },
    /// The driver or a library lacks something that it should have.
    #[error("the CUDA libraries of this machine cannot be used: {0}")]
    Unusable(String),
    /// The cancel flag was raised.
    #[error("cancelled")]
    Cancelled,
    /// The challenge's work is out of range.
    #[error("the work is out of range")]
    Work(#[from] WorkError),
    /// A block to open is not among those of the scans that were done.
    #[error("no block at scan {}, block {}", .0.scan, .0.block)]
    NoSuchBlock(Block),
}

impl CudaError {
    /// Whether this machine cannot compute on that device at all, whatever the work: then another backend may.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            CudaError::NoDriver
                | CudaError::DriverFails { .. }
                | CudaError::OldDriver { .. }
                | CudaError::NoSuchDevice { .. }
                | CudaError::OldDevice { .. }
        )
    }
}

impl From<CpuError> for CudaError {
    fn from(error: CpuError) -> Self {
        match error {
            CpuError::Cancelled => CudaError::Cancelled,
            CpuError::OutOfMemory { bytes } => CudaError::OutOfHostMemory { bytes: bytes as u64 },
            CpuError::Work(why) => CudaError::Work(why),
            CpuError::NoSuchEntry(_) => CudaError::Unusable(error.to_string()),
        }
    }
}

fn list(devices: &[DeviceId]) -> String {
    if devices.is_empty() {
        return "none".to_owned();
    }
    devices.iter().map(DeviceId::to_string).collect::<Vec<_>>().join(", ")
}

/// What multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Multiplier {
    /// cublasLt where it is found and takes the work, else the own kernel.
    #[default]
    Best,
    /// The own kernel.
    Own,
    /// cublasLt; an error where it is not found.
    CublasLt,
}

/// Computes all rounds of the challenge on the GPU that it names. The commitment holds nothing of the device: it is opened
/// by the cpu backend, with `threads` threads.
///
/// # Errors
/// See [`CudaError`]; [`CudaError::Cancelled`] within a strip's time of `cancel` being raised.
pub fn commit(challenge: &Challenge, threads: usize, cancel: &AtomicBool) -> Result<CpuCommitment, CudaError> {
    commit_on(challenge.device, Multiplier::Best, challenge, threads, cancel).map(|(made, _)| made)
}

/// [`commit`] on a GPU and with a multiplier of choice, whatever device the challenge names: for measurements and checks.
/// Also tells what multiplied.
///
/// # Errors
/// As [`commit`].
pub fn commit_on(
    device: DeviceId,
    multiplier: Multiplier,
    challenge: &Challenge,
    threads: usize,
    cancel: &AtomicBool,
) -> Result<(CpuCommitment, &'static str), CudaError> {
    unwinding(|| {
        let mut gpu = driver::Cuda::open(device, multiplier)?;
        let made = rounds::commit(&mut gpu, challenge, threads, cancel)?;
        Ok((made, gpu.multiplied_by()))
    })
}

/// Memory of a GPU, filled for a challenge. It is given back when this is dropped.
pub struct GpuMemory(memory::Filled<driver::Cuda>);

/// Fills memory of the GPU that the challenge names, and makes all ready that the scans need.
///
/// # Errors
/// See [`CudaError`]; [`CudaError::OutOfMemory`] before anything is allocated if less is free than [`memory_bytes`];
/// [`CudaError::Cancelled`] within some milliseconds of `cancel` being raised.
pub fn fill(challenge: &MemoryChallenge, cancel: &AtomicBool) -> Result<GpuMemory, CudaError> {
    fill_on(challenge.device, challenge, cancel)
}

/// [`fill`] on a GPU of choice, whatever device the challenge names: for measurements and checks.
///
/// # Errors
/// As [`fill`].
pub fn fill_on(device: DeviceId, challenge: &MemoryChallenge, cancel: &AtomicBool) -> Result<GpuMemory, CudaError> {
    unwinding(|| {
        let gpu = driver::Cuda::open(device, Multiplier::Own)?;
        memory::Filled::fill(gpu, challenge, &memory::Cut::GPU, cancel).map(GpuMemory)
    })
}

impl GpuMemory {
    /// Does all scans, the first with `nonce_0`, each later one with the nonce that the root before it gives: one root for
    /// each. They replace those before. The memory cannot be used after an error.
    ///
    /// # Errors
    /// See [`CudaError`]; [`CudaError::Cancelled`] within one scan's time of `cancel` being raised.
    pub fn scan(&mut self, nonce_0: ScanNonce, cancel: &AtomicBool) -> Result<Vec<Root>, CudaError> {
        unwinding(|| {
            self.0.device.enter()?;
            self.0.scan(nonce_0, cancel)
        })
    }

    /// For each position in the last scans, in the order asked, the digests of the group's three other blocks and the path, of
    /// what the device holds. The memory cannot be used after an error.
    ///
    /// # Errors
    /// See [`CudaError`].
    pub fn open(&mut self, positions: &[Block], cancel: &AtomicBool) -> Result<Vec<u8>, CudaError> {
        unwinding(|| {
            self.0.device.enter()?;
            self.0.open(positions, cancel)
        })
    }
}

/// Copies `bytes` bytes within the device's memory `times` times, and waits for the end. For measurements: each copy reads
/// and writes so many bytes.
///
/// # Errors
/// See [`CudaError`]. `started` is called when all is allocated and one copy is done.
pub fn copy_on(device: DeviceId, bytes: u64, times: u32, started: impl FnOnce()) -> Result<(), CudaError> {
    unwinding(|| {
        let mut gpu = driver::Cuda::open(device, Multiplier::Own)?;
        gpu.copy(bytes, times, started)
    })
}

/// A driver or library that lacks a function makes cudarc panic: that is an error here.
fn unwinding<T>(job: impl FnOnce() -> Result<T, CudaError>) -> Result<T, CudaError> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(CudaError::Unusable(text.unwrap_or_else(|| "a panic without words".to_owned())))
    })
}
