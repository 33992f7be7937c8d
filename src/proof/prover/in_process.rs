//! The cpu backend in this process: for tests and simulations, where a child for each proof would be slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::held::Held;
use super::{Backend, BackendError, Commitment, Filled, Prover, ProverError};
use crate::proof::cpu::{self, CpuCommitment, CpuError};
use crate::proof::memory;
use crate::proof::memory::cpu::MemoryError;
use crate::proof::memory::keys::ScanNonce;
use crate::proof::work::{Challenge, Position, Root};

/// A prover without a process of its own: no limits on time or memory, and no protection from its crash but that of
/// the blocking pool.
#[derive(Debug, Clone, Copy)]
pub struct InProcessProver {
    /// Threads to use.
    pub threads: usize,
}

/// Raises the flag of a computation when it is dropped.
pub(super) struct CancelOnDrop(pub(super) Arc<AtomicBool>);

impl CancelOnDrop {
    pub(super) fn new() -> Self {
        CancelOnDrop(Arc::new(AtomicBool::new(false)))
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs a computation on the blocking pool; dropping the future cancels it.
pub(super) async fn compute<T: Send + 'static>(
    job: impl FnOnce(&AtomicBool) -> Result<T, BackendError> + Send + 'static,
) -> Result<T, ProverError> {
    let cancel = CancelOnDrop::new();
    let flag = cancel.0.clone();
    match tokio::task::spawn_blocking(move || job(&flag)).await {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(from_backend(&error)),
        Err(ended) => Err(ProverError::Crashed { ended: ended.to_string(), stderr_tail: String::new() }),
    }
}

fn from_backend(error: &BackendError) -> ProverError {
    match error {
        BackendError::Cpu(CpuError::Work(why)) => ProverError::Refused(format!("{error}: {why}")),
        BackendError::Cpu(CpuError::NoSuchEntry(_)) | BackendError::Memory(MemoryError::NoSuchBlock(_)) => {
            ProverError::Refused(error.to_string())
        }
        BackendError::Memory(MemoryError::OverLimit { limit, .. }) => ProverError::OverMemory { limit_bytes: *limit },
        BackendError::Cpu(CpuError::OutOfMemory { .. } | CpuError::Cancelled)
        | BackendError::Memory(MemoryError::OutOfMemory { .. } | MemoryError::Cancelled)
        | BackendError::Cuda(_) => ProverError::Crashed { ended: error.to_string(), stderr_tail: String::new() },
    }
}

#[async_trait]
impl Prover for InProcessProver {
    async fn commit(&self, challenge: &Challenge) -> Result<Box<dyn Commitment>, ProverError> {
        let (challenge, threads) = (challenge.clone(), self.threads);
        let made = compute(move |cancel| Ok(cpu::commit(&challenge, threads, cancel)?)).await?;
        Ok(Box::new(InProcessCommitment(Arc::new(made))))
    }

    async fn fill(&self, challenge: &memory::Challenge) -> Result<Box<dyn Filled>, ProverError> {
        let (challenge, threads) = (challenge.clone(), self.threads);
        let held = compute(move |cancel| Backend::Cpu.fill(&challenge, threads, cancel)).await?;
        Ok(Box::new(InProcessMemory::new(held)))
    }
}

pub(super) struct InProcessCommitment(pub(super) Arc<CpuCommitment>);

#[async_trait]
impl Commitment for InProcessCommitment {
    fn roots(&self) -> &[Root] {
        self.0.roots()
    }

    async fn open(&mut self, positions: &[Position]) -> Result<Vec<u8>, ProverError> {
        let (made, positions) = (self.0.clone(), positions.to_vec());
        compute(move |cancel| Ok(made.open(&positions, cancel)?)).await
    }
}

/// Out of its place while a request is under way: if that is dropped half-way or fails, the memory goes with it.
pub(super) struct InProcessMemory(Option<Held>);

impl InProcessMemory {
    pub(super) fn new(held: Held) -> Self {
        InProcessMemory(Some(held))
    }
}

#[async_trait]
impl Filled for InProcessMemory {
    async fn scan(&mut self, nonce_0: &ScanNonce) -> Result<Vec<Root>, ProverError> {
        let (held, nonce_0) = (self.0.take().ok_or_else(ProverError::gone)?, *nonce_0);
        let (held, roots) = compute(move |cancel| held.scan(nonce_0, cancel)).await?;
        self.0 = Some(held);
        Ok(roots)
    }

    async fn open(&mut self, positions: &[memory::Position]) -> Result<Vec<u8>, ProverError> {
        if let Some(why) = self.0.as_ref().ok_or_else(ProverError::gone)?.refuses(positions) {
            return Err(ProverError::Refused(why));
        }
        let (held, positions) = (self.0.take().ok_or_else(ProverError::gone)?, positions.to_vec());
        let (held, bytes) = compute(move |cancel| held.open(&positions, cancel)).await?;
        self.0 = Some(held);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hotkey};

    async fn filled() -> Box<dyn Filled> {
        let size = memory::Size::new(16, 8, 2).unwrap();
        let challenge =
            memory::Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId([3; 16]), size };
        InProcessProver { threads: 2 }.fill(&challenge).await.unwrap()
    }

    #[tokio::test]
    async fn memory_is_scanned_again_with_another_nonce_and_opened_for_the_last() {
        let mut memory = filled().await;
        let first = memory.scan(&ScanNonce([9; 32])).await.unwrap();
        assert_eq!(first[0].to_string(), "81901788ab1bcf8e4bc1469935d75fd2c6b7a17978590a1f5d84d9e68b467667");
        let positions = [memory::Position { scan: 1, block: 15 }];
        let opened = memory.open(&positions).await.unwrap();
        let other = memory.scan(&ScanNonce([8; 32])).await.unwrap();
        assert_ne!(other, first);
        assert_ne!(memory.open(&positions).await.unwrap(), opened);
        assert_eq!(memory.scan(&ScanNonce([9; 32])).await.unwrap(), first);
        assert_eq!(memory.open(&positions).await.unwrap(), opened);
        assert_eq!(memory.open(&positions).await.unwrap(), opened, "the same positions may be asked again");
    }

    #[tokio::test]
    async fn what_is_refused_leaves_the_memory_as_it_is() {
        let mut memory = filled().await;
        let inside = memory::Position { scan: 0, block: 0 };
        let early = memory.open(&[inside]).await.unwrap_err();
        assert!(matches!(&early, ProverError::Refused(why) if why == "nothing is scanned yet"), "{early:?}");
        memory.scan(&ScanNonce([9; 32])).await.unwrap();
        let outside = memory.open(&[memory::Position { scan: 2, block: 0 }]).await.unwrap_err();
        assert!(matches!(&outside, ProverError::Refused(why) if why.ends_with("is not in the memory")), "{outside:?}");
        assert_eq!(memory.open(&[inside]).await.unwrap().len(), 48 + 2 * 32);
    }
}
