//! The reader: a second thread with a connection that cannot write, so that reads never wait behind commits.
//!
//! In write-ahead logging a reader sees the state of the last commit and blocks nobody. Every read has a deadline; when it
//! passes, or when the caller goes away, the running statement is interrupted, and a read that has not begun is skipped. A read
//! of several statements that is hit between two of them goes on with the next: keep each of them bounded.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, InterruptHandle};
use tokio::sync::{oneshot, watch};

use super::error::{StoreError, panic_text};
use super::read_only::connect_read_only;
use super::writer::{Health, SpawnError, degrade};

type Run = Box<dyn FnOnce(&Connection) + Send>;

struct Job {
    id: u64,
    cancelled: Arc<AtomicBool>,
    run: Run,
}

pub(super) struct Reader {
    jobs: Mutex<Option<SyncSender<Job>>>,
    running: Arc<Running>,
    health: Arc<watch::Sender<Health>>,
    next_id: AtomicU64,
    ended: watch::Receiver<()>,
    capacity: usize,
    hold_clock: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// Which job runs, and how to interrupt it. The lock is held while interrupting, so that the next job is never the one hit.
struct Running {
    current: Mutex<Option<u64>>,
    interrupt: InterruptHandle,
}

impl Running {
    fn set(&self, job: Option<u64>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = job;
    }
    fn interrupt(&self, job: u64) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == Some(job) {
            self.interrupt.interrupt();
        }
    }
}

/// Interrupts its job when dropped. After the job has ended this does nothing.
struct Cancel {
    id: u64,
    cancelled: Arc<AtomicBool>,
    running: Arc<Running>,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.running.interrupt(self.id);
    }
}

impl Reader {
    /// Starts the thread. `reads` is dropped when its connection is closed.
    pub(super) fn spawn(
        path: &Path,
        capacity: usize,
        hold_clock: bool,
        health: Arc<watch::Sender<Health>>,
        reads: std::sync::mpsc::Sender<()>,
    ) -> Result<Reader, SpawnError> {
        let conn = connect_read_only(path).map_err(SpawnError::Connection)?;
        let running = Arc::new(Running { current: Mutex::new(None), interrupt: conn.get_interrupt_handle() });
        let (jobs, queue) = sync_channel(capacity);
        let (alive, ended) = watch::channel(());
        let thread_running = running.clone();
        std::thread::Builder::new()
            .name("store-reader".to_owned())
            .spawn(move || {
                run(&queue, &conn, &thread_running);
                drop(conn);
                drop(reads);
                drop(alive);
            })
            .map_err(SpawnError::Thread)?;
        let jobs = Mutex::new(Some(jobs));
        Ok(Reader { jobs, running, health, next_id: AtomicU64::new(0), ended, capacity, hold_clock })
    }

    pub(super) async fn query<T, F>(&self, deadline: Duration, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, replied) = oneshot::channel();
        let run: Run = Box::new(move |conn| {
            let result = match catch_unwind(AssertUnwindSafe(|| read(conn))) {
                Ok(result) => result.map_err(read_error),
                Err(panic) => Err(StoreError::Panicked(panic_text(panic))),
            };
            let _ = reply.send(result);
        });
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let cancelled = Arc::new(AtomicBool::new(false));
        self.submit(Job { id, cancelled: cancelled.clone(), run })?;
        let _cancel = Cancel { id, cancelled, running: self.running.clone() };

        let result = if self.hold_clock {
            tokio::task::spawn_blocking(move || replied.blocking_recv())
                .await
                .map_or(Err(StoreError::Stopped), |reply| reply.unwrap_or(Err(StoreError::Stopped)))
        } else {
            match tokio::time::timeout(deadline, replied).await {
                Ok(reply) => reply.unwrap_or(Err(StoreError::Stopped)),
                Err(_) => Err(StoreError::Deadline(deadline)),
            }
        };
        if let Err(error) = &result {
            // A read tells of damage; that the disk takes no writes is for the writer to find.
            if error.degradation() == Some(super::Degradation::Corrupt) {
                degrade(&self.health, error);
            }
        }
        result
    }

    fn submit(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = jobs.as_ref().ok_or(StoreError::Stopped)?;
        sender.try_send(job).map_err(|refusal| match refusal {
            TrySendError::Full(_) => StoreError::Full { capacity: self.capacity },
            TrySendError::Disconnected(_) => StoreError::Stopped,
        })
    }

    /// Refuses new reads; those accepted are still done.
    pub(super) fn stop(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Its sender is dropped when the thread has ended.
    pub(super) fn ended(&self) -> watch::Receiver<()> {
        self.ended.clone()
    }
}

/// A read that tries to write is a defect of the read, and says nothing about the disk.
fn read_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly) => StoreError::Sql(Arc::new(error)),
        _ => StoreError::from(error),
    }
}

fn run(queue: &Receiver<Job>, conn: &Connection, running: &Running) {
    while let Ok(job) = queue.recv() {
        running.set(Some(job.id));
        // Read after `set`: whoever cancels later finds the job running and interrupts it.
        if !job.cancelled.load(Ordering::Relaxed) {
            (job.run)(conn);
        }
        running.set(None);
    }
}
