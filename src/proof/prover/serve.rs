//! The prover's side of the pipe: what `compute-prover` does between its start and its end.
//!
//! One host, one commitment or one filled memory at a time. The end of the input ends everything, a computation in progress included: a
//! prover never outlives its node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::cuda::CudaError;
use super::held::Held;
use super::{Backend, BackendError};
use crate::proof::cpu::{CpuCommitment, CpuError};
use crate::proof::frames::{self, ErrorKind, Frame, FrameError};
use crate::proof::memory::cpu::MemoryError;
use crate::proof::workers::STACK;

/// Why serving ended before the host said so.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The host's bytes are no frames, or the pipe failed.
    #[error("the host's side of the pipe failed")]
    Frame(#[from] FrameError),
    /// A frame that makes no sense here.
    #[error("a {0} frame, while {1}")]
    Unexpected(&'static str, &'static str),
}

type Incoming = mpsc::Receiver<Result<Frame, FrameError>>;

/// Answers the host on `reader` and `writer` until it says bye or its side ends; `backend` computes.
///
/// # Errors
/// If the host breaks the protocol or the pipe fails; nothing is left running then.
pub async fn serve<R, W>(mut reader: R, mut writer: W, backend: Backend) -> Result<(), ServeError>
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Send + Unpin,
{
    writer.write_all(&frames::PROVER_HELLO).await.map_err(FrameError::Io)?;
    writer.flush().await.map_err(FrameError::Io)?;
    frames::read_hello(&mut reader, frames::HOST_HELLO).await?;

    // Reading a frame cannot be cancelled, so a task of its own reads: one frame ahead, no more.
    let (to_us, mut incoming) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        loop {
            let frame = frames::read_frame(&mut reader, frames::MAX_BODY).await.transpose();
            let Some(frame) = frame else { break };
            let last = frame.is_err();
            if to_us.send(frame).await.is_err() || last {
                break;
            }
        }
    });
    let result = requests(&mut incoming, &mut writer, backend).await;
    task.abort();
    result
}

/// What is there to be opened: the answer to the last request that asked for something new.
#[derive(Default)]
enum Made {
    #[default]
    Nothing,
    Commitment(Arc<CpuCommitment>),
    Memory(Held),
}

async fn requests(
    incoming: &mut Incoming,
    writer: &mut (impl AsyncWrite + Unpin),
    backend: Backend,
) -> Result<(), ServeError> {
    let mut made = Made::Nothing;
    while let Some(frame) = incoming.recv().await.transpose()? {
        let flag = Arc::new(AtomicBool::new(false));
        let cancel = flag.clone();
        let refused = |text: &str| Frame::Error { kind: ErrorKind::Request, text: text.to_owned() };
        let answer = match (frame, std::mem::take(&mut made)) {
            (Frame::Bye, _) => return Ok(()),
            (Frame::Commit { challenge, threads }, before) => {
                drop(before);
                let job = start(move || backend.commit(&challenge, threads as usize, &cancel));
                match finish(job, &flag, incoming).await? {
                    None => return Ok(()),
                    Some(Ok(commitment)) => {
                        let roots = commitment.roots().to_vec();
                        made = Made::Commitment(Arc::new(commitment));
                        Frame::Roots { roots }
                    }
                    Some(Err(error)) => error,
                }
            }
            (Frame::Open { positions }, Made::Commitment(commitment)) => {
                made = Made::Commitment(commitment.clone());
                let job = start(move || Ok(commitment.open(&positions, &cancel)?));
                match finish(job, &flag, incoming).await? {
                    None => return Ok(()),
                    Some(Ok(bytes)) => Frame::Openings { bytes },
                    Some(Err(error)) => error,
                }
            }
            (Frame::Open { .. }, other) => {
                made = other;
                refused("nothing is committed yet")
            }
            (Frame::Fill { challenge, threads }, before) => {
                drop(before);
                let job = start(move || backend.fill(&challenge, threads as usize, &cancel));
                match finish(job, &flag, incoming).await? {
                    None => return Ok(()),
                    Some(Ok(memory)) => {
                        made = Made::Memory(memory);
                        Frame::Filled
                    }
                    Some(Err(error)) => error,
                }
            }
            (Frame::Scan { nonce_0 }, Made::Memory(memory)) => {
                let job = start(move || memory.scan(nonce_0, &cancel));
                match finish(job, &flag, incoming).await? {
                    None => return Ok(()),
                    Some(Ok((memory, roots))) => {
                        made = Made::Memory(memory);
                        Frame::ScanRoots { roots }
                    }
                    Some(Err(error)) => error,
                }
            }
            (Frame::OpenBlocks { positions }, Made::Memory(memory)) => {
                if let Some(why) = memory.refuses(&positions) {
                    made = Made::Memory(memory);
                    refused(&why)
                } else {
                    let job = start(move || memory.open(&positions, &cancel));
                    match finish(job, &flag, incoming).await? {
                        None => return Ok(()),
                        Some(Ok((memory, bytes))) => {
                            made = Made::Memory(memory);
                            Frame::BlockOpenings { bytes }
                        }
                        Some(Err(error)) => error,
                    }
                }
            }
            (Frame::Scan { .. } | Frame::OpenBlocks { .. }, other) => {
                made = other;
                refused("no memory is filled")
            }
            (other, _) => return Err(ServeError::Unexpected(other.name(), "a request was expected")),
        };
        frames::write_frame(writer, &answer).await?;
    }
    Ok(())
}

/// A computation on a thread of its own: a pool might hold it back for ever where no more threads can be had.
type Job<T> = std::io::Result<oneshot::Receiver<Result<T, BackendError>>>;

fn start<T: Send + 'static>(work: impl FnOnce() -> Result<T, BackendError> + Send + 'static) -> Job<T> {
    let (done, result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("request".into()).stack_size(STACK);
    thread.spawn(move || _ = done.send(work()))?;
    Ok(result)
}

/// Waits for a computation, and cancels it when the host says bye or goes: then there is no result.
async fn finish<T>(
    job: Job<T>,
    cancel: &AtomicBool,
    incoming: &mut Incoming,
) -> Result<Option<Result<T, Frame>>, ServeError> {
    let error = |kind, text: String| Ok(Some(Err(Frame::Error { kind, text })));
    let mut job = match job {
        Ok(job) => job,
        Err(why) => return error(ErrorKind::OutOfMemory, format!("a thread cannot be had: {why}")),
    };
    let done = tokio::select! {
        done = &mut job => done,
        frame = incoming.recv() => {
            cancel.store(true, Ordering::Relaxed);
            let _ = job.await;
            return match frame.transpose()? {
                None | Some(Frame::Bye) => Ok(None),
                Some(other) => Err(ServeError::Unexpected(other.name(), "the request before is not answered yet")),
            };
        }
    };
    match done {
        Ok(Ok(made)) => Ok(Some(Ok(made))),
        Ok(Err(failed)) => error(kind(&failed), failed.to_string()),
        // The sender went without a word: the thread panicked, and said so on stderr.
        Err(_) => error(ErrorKind::Internal, "the computation panicked".into()),
    }
}

/// What an error is about. A device that this machine has not, or a driver, is the request's matter: nothing has failed.
fn kind(error: &BackendError) -> ErrorKind {
    match error {
        BackendError::Cpu(CpuError::OutOfMemory { .. })
        | BackendError::Memory(MemoryError::OutOfMemory { .. } | MemoryError::OverLimit { .. })
        | BackendError::Cuda(CudaError::OutOfMemory { .. } | CudaError::OutOfHostMemory { .. }) => {
            ErrorKind::OutOfMemory
        }
        BackendError::Cpu(CpuError::NoSuchEntry(_) | CpuError::Work(_))
        | BackendError::Memory(MemoryError::NoSuchBlock(_))
        | BackendError::Cuda(CudaError::Work(_) | CudaError::NoSuchBlock(_)) => ErrorKind::Request,
        BackendError::Cuda(error) if error.is_absence() => ErrorKind::Request,
        BackendError::Cpu(CpuError::Cancelled)
        | BackendError::Memory(MemoryError::Cancelled)
        | BackendError::Cuda(_) => ErrorKind::Internal,
    }
}
