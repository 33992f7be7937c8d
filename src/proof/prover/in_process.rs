//! The cpu backend in this process: for tests and simulations, where a child for each proof would be slow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::{Commitment, Prover, ProverError};
use crate::proof::cpu::{self, CpuCommitment, CpuError};
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
    job: impl FnOnce(&AtomicBool) -> Result<T, CpuError> + Send + 'static,
) -> Result<T, ProverError> {
    let cancel = CancelOnDrop::new();
    let flag = cancel.0.clone();
    match tokio::task::spawn_blocking(move || job(&flag)).await {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(from_cpu(&error)),
        Err(ended) => Err(ProverError::Crashed { ended: ended.to_string(), stderr_tail: String::new() }),
    }
}

fn from_cpu(error: &CpuError) -> ProverError {
    match error {
        CpuError::OutOfMemory { .. } | CpuError::Cancelled => {
            ProverError::Crashed { ended: error.to_string(), stderr_tail: String::new() }
        }
        CpuError::Work(why) => ProverError::Refused(format!("{error}: {why}")),
        CpuError::NoSuchEntry(_) => ProverError::Refused(error.to_string()),
    }
}

#[async_trait]
impl Prover for InProcessProver {
    async fn commit(&self, challenge: &Challenge) -> Result<Box<dyn Commitment>, ProverError> {
        let (challenge, threads) = (challenge.clone(), self.threads);
        let made = compute(move |cancel| cpu::commit(&challenge, threads, cancel)).await?;
        Ok(Box::new(InProcessCommitment(Arc::new(made))))
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
        compute(move |cancel| made.open(&positions, cancel)).await
    }
}
