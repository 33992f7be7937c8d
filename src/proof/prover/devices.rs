//! The prover of a machine: for each device the backend that proves it, each commitment in a child of its own.
//!
//! GPUs are proved by children for CUDA, which can be made ready before their challenge (`super::warm`); a CPU device by
//! children on the processor. [`Computes`] says for each device which it is and why, with the remedy where it will not do.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::cuda::Report;
use super::warm::{WarmChildren, Without};
use super::{Backend, ChildProver, Commitment, CudaChild, Filled, Prover, ProverError};
use crate::ids::DeviceId;
use crate::proof::budget::Demand;
use crate::proof::memory;
use crate::proof::memory::keys::ScanNonce;
use crate::proof::work::{Challenge, Root, Work};

/// How long a child may take to say what it finds for GPUs: a driver that was not used for a while starts slowly.
const REPORT: Duration = Duration::from_secs(30);

/// Proves what this machine has.
pub struct DeviceProver {
    backend: Backend,
    processor: ChildProver,
    gpu: ChildProver,
    warm: WarmChildren,
}

impl DeviceProver {
    /// A prover by this backend. `child` says which program, and what it may use; `cuda` what it is told for GPUs.
    pub fn new(backend: Backend, child: ChildProver, cuda: CudaChild) -> Self {
        let gpu = ChildProver { cuda: Some(cuda), ..child.clone() };
        DeviceProver { backend, processor: ChildProver { cuda: None, ..child }, gpu, warm: WarmChildren::new() }
    }

    /// The program that is started.
    pub fn program(&self) -> &Path {
        &self.processor.exe
    }

    fn is_by_cuda(&self, device: DeviceId) -> bool {
        self.backend.of(device) == Backend::Cuda
    }
}

#[async_trait]
impl Prover for DeviceProver {
    async fn commit(&self, challenge: &Challenge) -> Result<Box<dyn Commitment>, ProverError> {
        let device = challenge.device;
        if !self.is_by_cuda(device) {
            return self.processor.commit(challenge).await;
        }
        if let Some(ready) = self.warm.take(device, challenge.work).await {
            match ready.commit(challenge).await {
                // What happened while it waited is not the proof's.
                Err(error @ (ProverError::Crashed { .. } | ProverError::Device(_))) => {
                    let error = crate::error::error_chain(&error);
                    tracing::warn!(%device, error, "the prover that was ready failed, another one is started");
                }
                done => return done,
            }
        }
        self.gpu.commit(challenge).await
    }

    async fn fill(&self, challenge: &memory::Challenge) -> Result<Box<dyn Filled>, ProverError> {
        if !self.is_by_cuda(challenge.device) {
            return self.processor.fill(challenge).await;
        }
        // The fill is not timed, and needs what a child that waits has taken.
        let without = self.warm.without(challenge.device).await;
        let filled = self.gpu.fill(challenge).await?;
        Ok(Box::new(Alone { filled, _without: without }))
    }

    fn needs(&self, device: DeviceId, work: &Work) -> Demand {
        if self.is_by_cuda(device) { Demand::of_gpu(*work) } else { Demand::of_processor(*work) }
    }

    fn needs_for_memory(&self, device: DeviceId, size: &memory::Size) -> Demand {
        if self.is_by_cuda(device) { Demand::of_gpu_memory(size) } else { Demand::of_own_memory(size) }
    }

    fn stand_by(&self, devices: &[DeviceId], begin: bool) {
        let gpus: Vec<DeviceId> = devices.iter().copied().filter(|device| self.is_by_cuda(*device)).collect();
        self.warm.keep(&self.gpu, &gpus, begin);
    }

    async fn make_ready(&self, works: &[(DeviceId, Work)]) {
        let gpus: Vec<_> = works.iter().copied().filter(|(device, _)| self.is_by_cuda(*device)).collect();
        self.warm.ready(&self.gpu, &gpus).await;
    }

    async fn explain(&self, devices: &[DeviceId]) -> Vec<Computes> {
        let asks = devices.iter().any(|device| device.cpu_index().is_none() && self.is_by_cuda(*device));
        let found = if asks { self.gpu.report(REPORT).await } else { Ok(Report::default()) };
        devices.iter().map(|device| computes(self.backend, *device, &found)).collect()
    }
}

/// Filled memory of a GPU, for which no other child is made ready while it is there.
struct Alone {
    filled: Box<dyn Filled>,
    _without: Without,
}

#[async_trait]
impl Filled for Alone {
    async fn scan(&mut self, nonce_0: &ScanNonce) -> Result<Vec<Root>, ProverError> {
        self.filled.scan(nonce_0).await
    }

    async fn open(&mut self, positions: &[memory::Position]) -> Result<Vec<u8>, ProverError> {
        self.filled.open(positions).await
    }
}

/// What computes for a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computes {
    /// The device.
    pub device: DeviceId,
    /// The processor, or CUDA.
    pub by: Backend,
    /// Why, and how.
    pub why: String,
    /// What to do, where proofs will fail or be slower than they could.
    pub remedy: Option<String>,
}

impl fmt::Display for Computes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, {}", self.device, self.by, self.why)?;
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

/// Pure: `found` is what a child for GPUs finds, or why it could not be asked.
fn computes(backend: Backend, device: DeviceId, found: &Result<Report, String>) -> Computes {
    let (by, is_gpu) = (backend.of(device), device.cpu_index().is_none());
    let told = |why: String, remedy: Option<&str>| Computes { device, by, why, remedy: remedy.map(str::to_owned) };
    match (by, is_gpu) {
        (Backend::Cuda, true) => {}
        (Backend::Cuda, false) => {
            let why = "prover.backend is cuda, which proves no CPU".to_owned();
            return told(why, Some("set prover.backend to auto"));
        }
        (_, false) => return told("it is a CPU".to_owned(), None),
        (_, true) => {
            let why = "prover.backend is cpu, which takes far longer than a validator waits for a GPU".to_owned();
            return told(why, Some("set prover.backend to auto"));
        }
    }
    let report = match found {
        Ok(report) => report,
        Err(why) => {
            return told(format!("the prover could not be asked: {why}"), Some("run compute-prover report-cuda"));
        }
    };
    if let Some(problem) = &report.problem {
        return told(problem.clone(), Some("until then its proofs fail"));
    }
    let version = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    let driver = report.driver.map_or_else(|| "an unknown version".to_owned(), version);
    let Some(gpu) = report.gpus.iter().find(|gpu| gpu.device == device) else {
        let why = format!("but it is not among the GPUs that CUDA's driver offers ({})", report.gpus.len());
        return told(why, Some("look at nvidia-smi; in a container, give it the device"));
    };
    let (major, minor) = gpu.capability;
    if gpu.capability < super::cuda::OLDEST_CAPABILITY {
        let why = format!("but its compute capability is {major}.{minor}, and 7.5 (Turing) or later is needed");
        return told(why, Some("it cannot be proved"));
    }
    let gpu = format!("compute capability {major}.{minor}, driver for CUDA {driver}");
    match (&report.cublaslt, &report.no_cublaslt) {
        (Some(library), _) => told(format!("{gpu}, products by {library}"), None),
        (None, why) => {
            let slower = format!("{gpu}, products by the own kernel, which is slower than cublasLt");
            told(slower, Some(why.as_deref().unwrap_or("install CUDA's cuBLAS")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::cuda::Gpu;
    use super::*;

    const GPU: DeviceId = DeviceId([3; 16]);

    fn found(capability: (i32, i32), cublaslt: Option<&str>) -> Result<Report, String> {
        let gpu = Gpu { device: GPU, name: "NVIDIA H200".into(), capability, memory: 1 << 37 };
        let no_cublaslt = cublaslt.is_none().then(|| "cublasLt was not found".to_owned());
        Ok(Report {
            gpus: vec![gpu],
            driver: Some(12_080),
            problem: None,
            cublaslt: cublaslt.map(str::to_owned),
            no_cublaslt,
        })
    }

    #[test]
    fn every_device_is_told_what_computes_for_it_and_what_to_do_where_that_will_not_do() {
        let no_driver = Ok(Report { problem: Some("there is no CUDA driver".into()), ..Report::default() });
        let full = found((9, 0), Some("cublasLt 12 (libcublasLt.so.12)"));
        let cases = [
            (Backend::Auto, DeviceId::cpu(0), &full, "CPU-0: cpu, it is a CPU"),
            (Backend::Cpu, DeviceId::cpu(0), &no_driver, "CPU-0: cpu, it is a CPU"),
            (
                Backend::Cuda,
                DeviceId::cpu(0),
                &full,
                "CPU-0: cuda, prover.backend is cuda, which proves no CPU; set prover.backend to auto",
            ),
            (
                Backend::Cpu,
                GPU,
                &full,
                "GPU-03030303-0303-0303-0303-030303030303: cpu, prover.backend is cpu, which takes far longer than a \
                 validator waits for a GPU; set prover.backend to auto",
            ),
            (
                Backend::Auto,
                GPU,
                &full,
                "GPU-03030303-0303-0303-0303-030303030303: cuda, compute capability 9.0, driver for CUDA 12.8, products by \
                 cublasLt 12 (libcublasLt.so.12)",
            ),
            (
                Backend::Auto,
                GPU,
                &found((8, 6), None),
                "GPU-03030303-0303-0303-0303-030303030303: cuda, compute capability 8.6, driver for CUDA 12.8, products by \
                 the own kernel, which is slower than cublasLt; cublasLt was not found",
            ),
            (
                Backend::Cuda,
                GPU,
                &found((7, 0), None),
                "GPU-03030303-0303-0303-0303-030303030303: cuda, but its compute capability is 7.0, and 7.5 (Turing) or \
                 later is needed; it cannot be proved",
            ),
            (
                Backend::Auto,
                DeviceId([4; 16]),
                &full,
                "GPU-04040404-0404-0404-0404-040404040404: cuda, but it is not among the GPUs that CUDA's driver \
                 offers (1); look at nvidia-smi; in a container, give it the device",
            ),
            (
                Backend::Auto,
                GPU,
                &no_driver,
                "GPU-03030303-0303-0303-0303-030303030303: cuda, there is no CUDA driver; until then its proofs fail",
            ),
            (
                Backend::Auto,
                GPU,
                &Err("it is not there".into()),
                "GPU-03030303-0303-0303-0303-030303030303: cuda, the prover could not be asked: it is not there; run \
                 compute-prover report-cuda",
            ),
        ];
        for (backend, device, found, expected) in cases {
            assert_eq!(computes(backend, device, found).to_string(), expected);
        }
    }
}
