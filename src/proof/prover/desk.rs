//! The one thread of a prover that computes commitments. What is ready on a device belongs to it, from one request to the next.

use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::cuda::Ready;
use super::{Backend, BackendError};
use crate::proof::workers::STACK;

/// Stack of the thread where it calls CUDA's libraries: as much as a process has by default, since they compile kernels on it.
const CUDA_STACK: usize = 8 << 20;

type Task = Box<dyn FnOnce(&mut Option<Ready>) + Send>;

/// A computation on a thread of its own: a pool might hold it back for ever where no more threads can be had.
pub(super) type Job<T> = std::io::Result<oneshot::Receiver<Result<T, BackendError>>>;

/// Stack of a thread that computes with this backend.
pub(super) fn stack(backend: Backend) -> usize {
    if backend == Backend::Cpu { STACK } else { CUDA_STACK }
}

/// The way to the thread.
pub(super) struct Desk {
    backend: Backend,
    running: Option<(mpsc::Sender<Task>, JoinHandle<()>)>,
}

impl Desk {
    /// A desk without a thread: the first request starts it.
    pub(super) fn new(backend: Backend) -> Self {
        Desk { backend, running: None }
    }

    /// Begins a computation. Its result is there before what it has on the device is given back.
    pub(super) fn begin<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Option<Ready>) -> Result<T, BackendError> + Send + 'static,
        keep: bool,
    ) -> Job<T> {
        let (done, result) = oneshot::channel();
        let task: Task = Box::new(move |ready| {
            let made = work(ready);
            let kept = keep && made.is_ok();
            let _ = done.send(made);
            if !kept {
                *ready = None;
            }
        });
        let unsent = match &self.running {
            Some((tasks, _)) => tasks.send(task).err().map(|mpsc::SendError(task)| task),
            None => Some(task),
        };
        // No thread yet, or the last one panicked.
        if let Some(task) = unsent {
            let running = self.start()?;
            let _ = running.0.send(task); // the thread has just been started
            self.running = Some(running);
        }
        Ok(result)
    }

    fn start(&self) -> std::io::Result<(mpsc::Sender<Task>, JoinHandle<()>)> {
        let (tasks, coming) = mpsc::channel::<Task>();
        let thread =
            std::thread::Builder::new().name("commit".into()).stack_size(stack(self.backend)).spawn(move || {
                let mut ready = None;
                coming.into_iter().for_each(|task| task(&mut ready));
            })?;
        Ok((tasks, thread))
    }
}

impl Drop for Desk {
    /// Waits until nothing is left on the device.
    fn drop(&mut self) {
        if let Some((tasks, thread)) = self.running.take() {
            drop(tasks);
            let _ = thread.join(); // a panic there was told where it was waited for
        }
    }
}
