//! What the backends for processors share: threads that end before the call returns, and memory that may be refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Most threads one prover uses, whatever it is asked for.
pub(super) const MAX_THREADS: usize = 256;
/// Stack of a worker thread: it needs a tile and a few frames of hashing.
pub(super) const STACK: usize = 512 * 1024;

/// The cancel flag was raised.
pub(super) struct Cancelled;

/// Memory could not be had.
pub(super) struct OutOfMemory {
    /// Bytes that were asked for.
    pub(super) bytes: usize,
}

/// Does `job` on every item, with one thread for each worker. Fewer threads than workers is no error: where the
/// system gives none, this thread does the work.
pub(super) fn share_out<W: Send, T: Send>(
    workers: Vec<W>,
    items: impl Iterator<Item = T> + Send,
    cancel: &AtomicBool,
    job: impl Fn(&mut W, T) + Sync,
) -> Result<(), Cancelled> {
    let items = Mutex::new(items);
    let run = |mut worker: W| {
        while !cancel.load(Ordering::Relaxed) {
            let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(item) = item else { break };
            job(&mut worker, item);
        }
    };
    let mut workers = workers.into_iter();
    let own = workers.next();
    std::thread::scope(|scope| {
        let run = &run;
        for worker in workers {
            let thread = std::thread::Builder::new().name("prover".into()).stack_size(STACK);
            if thread.spawn_scoped(scope, move || run(worker)).is_err() {
                break;
            }
        }
        if let Some(worker) = own {
            run(worker);
        }
    });
    if cancel.load(Ordering::Relaxed) { Err(Cancelled) } else { Ok(()) }
}

/// A vector of `length` copies, or an error where the system has no memory for it (under a limit, for example).
pub(super) fn filled<T: Clone>(length: usize, value: T) -> Result<Vec<T>, OutOfMemory> {
    let mut out = reserved(length)?;
    out.resize(length, value);
    Ok(out)
}

/// An empty vector with room for `length`.
pub(super) fn reserved<T>(length: usize) -> Result<Vec<T>, OutOfMemory> {
    let mut out = Vec::new();
    out.try_reserve_exact(length).map_err(|_| OutOfMemory { bytes: length.saturating_mul(size_of::<T>()) })?;
    Ok(out)
}
