//! The writer: one thread that owns the database, a bounded queue in front of it, and group commit.
//!
//! Jobs are committed in the order they were accepted. The thread takes what is waiting, at most [`WriterConfig::group`] jobs,
//! writes each inside a savepoint of one transaction, commits, and only then acknowledges. One fsync is shared by the group, so
//! throughput rises with load while a lone write is not delayed.
//!
//! When the disk refuses, every job of the group hears it, and the [`Health`] becomes `Degraded` until a write works again: the
//! next job, or a probe with backoff when there is none. Damage of the file is not forgotten before a restart.
//!
//! Nothing here runs on an async thread, and no panic ends the writer: it is caught, rolled back and reported to its job.

mod types;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub use self::types::{Commit, CommitObserver, EvidenceStats, Health, SpawnError, WriterConfig, WriterStats};
use super::apply::{apply_with, evidence_head};
use super::error::{Degradation, StoreError, panic_text};
use super::open::Database;
use super::reader::Reader;
use super::records::Record;
use crate::evidence::log::{Log, LogStats, Mark};
use crate::telemetry::error_chain;

/// How long the end of the last read is waited for when the store closes.
const LAST_READ: Duration = Duration::from_secs(2);

/// The handle of the writer and of the reader beside it. Clones share both; the last one dropped lets the writer flush and end.
#[derive(Clone, Debug)]
pub struct Writer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    jobs: Mutex<Option<SyncSender<Job>>>,
    reader: Reader,
    counters: Arc<Counters>,
    health: Arc<watch::Sender<Health>>,
    ended: watch::Receiver<()>,
    cfg: WriterConfig,
    log: Option<Arc<LogStats>>,
}

#[derive(Debug, Default)]
struct Counters {
    depth: AtomicUsize,
    commits: AtomicU64,
    written: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    last_commit_ns: AtomicU64,
    last_group: AtomicUsize,
}

#[derive(Debug)]
struct Job {
    record: Box<Record>,
    ack: oneshot::Sender<Result<(), StoreError>>,
}

/// The promise of an acknowledgement: resolves once the record is committed, or is certainly not.
#[derive(Debug)]
#[must_use = "the record may still be refused"]
pub struct Ack(oneshot::Receiver<Result<(), StoreError>>);

impl Future for Ack {
    type Output = Result<(), StoreError>;
    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx).map(|ack| ack.unwrap_or(Err(StoreError::Stopped)))
    }
}

impl Writer {
    /// Starts the threads `store-writer`, which takes the database, and `store-reader`.
    pub fn spawn(db: Database, mut cfg: WriterConfig) -> Result<Writer, SpawnError> {
        cfg.capacity = cfg.capacity.max(1);
        cfg.group = cfg.group.max(1);
        if let Some(bytes) = cfg.max_bytes {
            bound_size(&db.conn, bytes).map_err(SpawnError::Connection)?;
        }
        let health = Arc::new(watch::Sender::new(Health::Healthy));
        let (reads, reading) = std::sync::mpsc::channel::<()>();
        let reader = Reader::spawn(&db.path, cfg.query_capacity.max(1), cfg.hold_clock, health.clone(), reads)?;
        let (jobs, queue) = sync_channel(cfg.capacity);
        let (alive, ended) = watch::channel(());
        let counters = Arc::new(Counters::default());
        let log = db.log.as_ref().map(Log::stats);
        let mut thread = WriterThread {
            queue,
            counters: counters.clone(),
            health: health.clone(),
            cfg: cfg.clone(),
            synced: true,
            probe_pause: cfg.probe_first,
            probed: Instant::now(),
            log: None,
            log_failed: false,
        };
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                let Database { mut conn, path: _, log, lock } = db;
                thread.log = log;
                thread.run(&mut conn);
                // The last connection that is closed merges the log into the database, which the reader's may not.
                let _ = reading.recv_timeout(LAST_READ);
                drop(conn);
                drop(lock); // the directory is free before anyone hears that the writer has ended
                drop(alive);
            })
            .map_err(SpawnError::Thread)?;
        Ok(Writer {
            inner: Arc::new(Inner { jobs: Mutex::new(Some(jobs)), reader, counters, health, ended, cfg, log }),
        })
    }

    /// Queues a record, without waiting. [`StoreError::Full`] or [`StoreError::Stopped`] mean that it was not queued.
    pub fn submit(&self, record: Record) -> Result<Ack, StoreError> {
        let (ack, acked) = oneshot::channel();
        let jobs = self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = jobs.as_ref() else {
            return Err(StoreError::Stopped);
        };
        let counters = &self.inner.counters;
        // Counted before it is sent: the writer may have finished it when `try_send` returns.
        counters.depth.fetch_add(1, Ordering::Relaxed);
        match sender.try_send(Job { record: Box::new(record), ack }) {
            Ok(()) => Ok(Ack(acked)),
            Err(refusal) => {
                counters.depth.fetch_sub(1, Ordering::Relaxed);
                match refusal {
                    TrySendError::Full(_) => {
                        counters.refused.fetch_add(1, Ordering::Relaxed);
                        Err(StoreError::Full { capacity: self.inner.cfg.capacity })
                    }
                    TrySendError::Disconnected(_) => Err(StoreError::Stopped),
                }
            }
        }
    }

    /// Writes a record and waits until it is committed, at most [`WriterConfig::write_deadline`]; on
    /// [`StoreError::Deadline`] it may still be written later.
    pub async fn write(&self, record: Record) -> Result<(), StoreError> {
        let ack = self.submit(record)?;
        if self.inner.cfg.hold_clock {
            return tokio::task::spawn_blocking(move || ack.0.blocking_recv())
                .await
                .map_or(Err(StoreError::Stopped), |ack| ack.unwrap_or(Err(StoreError::Stopped)));
        }
        let deadline = self.inner.cfg.write_deadline;
        tokio::time::timeout(deadline, ack).await.unwrap_or(Err(StoreError::Deadline(deadline)))
    }

    /// Runs a read on the reader's thread, with a connection that cannot write; it sees every acknowledged write. A read that is
    /// not done by the deadline, or whose caller goes away, is interrupted.
    ///
    /// ```ignore
    /// let history = writer.query(Duration::from_secs(2), move |c| queries::verdicts_since(c, epoch)).await?;
    /// ```
    pub async fn query<T, F>(&self, deadline: Duration, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.inner.reader.query(deadline, read).await
    }

    /// Figures for metrics.
    pub fn stats(&self) -> WriterStats {
        let c = &self.inner.counters;
        WriterStats {
            depth: c.depth.load(Ordering::Relaxed),
            capacity: self.inner.cfg.capacity,
            commits: c.commits.load(Ordering::Relaxed),
            written: c.written.load(Ordering::Relaxed),
            failed: c.failed.load(Ordering::Relaxed),
            refused: c.refused.load(Ordering::Relaxed),
            last_commit: Duration::from_nanos(c.last_commit_ns.load(Ordering::Relaxed)),
            last_group: c.last_group.load(Ordering::Relaxed),
            evidence: self.inner.log.as_deref().map(|log| EvidenceStats {
                records: log.records.load(Ordering::Relaxed),
                bytes: log.bytes.load(Ordering::Relaxed),
                segments: log.segments.load(Ordering::Relaxed),
            }),
        }
    }

    /// The database's health, now and at every change.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.inner.health.subscribe()
    }

    /// Refuses new records, writes those accepted, closes the database and frees the directory. Later calls wait for the same
    /// end. `Err(Deadline)` when it takes longer; the threads go on then.
    pub async fn shutdown(&self, deadline: Duration) -> Result<(), StoreError> {
        self.inner.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.inner.reader.stop();
        let mut ended = self.inner.ended.clone();
        let mut reader_ended = self.inner.reader.ended();
        let both = async {
            // `wait_for` ends with an error when the thread has dropped its side, which is what is waited for.
            let _ = ended.wait_for(|()| false).await;
            let _ = reader_ended.wait_for(|()| false).await;
        };
        tokio::time::timeout(deadline, both).await.map_err(|_| StoreError::Deadline(deadline))
    }
}

fn bound_size(conn: &Connection, bytes: u64) -> rusqlite::Result<()> {
    let page: i64 = conn.query_row("PRAGMA page_size", [], |r| r.get(0))?;
    let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
    conn.query_row(&format!("PRAGMA max_page_count = {}", pages.max(1)), [], |_| Ok(()))
}

struct WriterThread {
    queue: Receiver<Job>,
    counters: Arc<Counters>,
    health: Arc<watch::Sender<Health>>,
    cfg: WriterConfig,
    /// Whether the connection syncs at every commit (`synchronous = FULL`), as `open` leaves it.
    synced: bool,
    probe_pause: Duration,
    /// When the first write failed, or the last probe was made.
    probed: Instant,
    /// The evidence log, if this node keeps one.
    log: Option<Log>,
    /// The log did not take its last write: a commit without evidence says nothing of it.
    log_failed: bool,
}

impl WriterThread {
    fn run(&mut self, conn: &mut Connection) {
        loop {
            let degraded = self.health.borrow().degradation().is_some();
            let first = if degraded {
                // Not only when nothing else is to do: other jobs do not show that the evidence log takes writes again.
                let left = self.probe_pause.saturating_sub(self.probed.elapsed());
                if left.is_zero() {
                    self.probe(conn);
                    continue;
                }
                match self.queue.recv_timeout(left) {
                    Ok(job) => job,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            } else {
                match self.queue.recv() {
                    Ok(job) => job,
                    Err(_) => break,
                }
            };
            let mut group = vec![first];
            group.extend(self.queue.try_iter().take(self.cfg.group - 1));
            self.commit(conn, group);
        }
        // Everything accepted is written; this only spares the next start the log's recovery.
        let _ = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }

    fn commit(&mut self, conn: &mut Connection, group: Vec<Job>) {
        let durable = group.iter().any(|job| job.record.durable());
        let begun = Instant::now();
        let mut outcomes: Vec<Result<(), StoreError>> = Vec::with_capacity(group.len());
        let committed = match catch_unwind(AssertUnwindSafe(|| self.write_group(conn, durable, &group, &mut outcomes)))
        {
            Ok(result) => result,
            Err(panic) => Err(StoreError::Panicked(panic_text(panic))),
        };
        if let Some(log) = &mut self.log {
            match &committed {
                Ok(()) => log.settle(),
                Err(_) => log.abandon(),
            }
        }
        let took = begun.elapsed();
        if let Err(error) = &committed {
            // Those that failed by themselves keep their own reason.
            outcomes.resize_with(group.len(), || Ok(()));
            outcomes.iter_mut().filter(|o| o.is_ok()).for_each(|o| *o = Err(error.clone()));
        }
        self.judge(&committed);

        let failed = outcomes.iter().filter(|o| o.is_err()).count();
        let c = &self.counters;
        c.commits.fetch_add(u64::from(committed.is_ok()), Ordering::Relaxed);
        c.written.fetch_add((group.len() - failed) as u64, Ordering::Relaxed);
        c.failed.fetch_add(failed as u64, Ordering::Relaxed);
        c.last_commit_ns.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        c.last_group.store(group.len(), Ordering::Relaxed);
        if let Some(observer) = &self.cfg.observer {
            let report = Commit { jobs: group.len(), failed, durable, took };
            let _ = catch_unwind(AssertUnwindSafe(|| observer(&report)));
        }
        for (job, outcome) in group.into_iter().zip(outcomes) {
            c.depth.fetch_sub(1, Ordering::Relaxed);
            let _ = job.ack.send(outcome); // nobody waits for this one any more
        }
    }

    /// One transaction. `outcomes` holds what each job came to, as far as it got; an error concerns the whole group.
    fn write_group(
        &mut self,
        conn: &mut Connection,
        durable: bool,
        group: &[Job],
        outcomes: &mut Vec<Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        if self.synced != durable {
            conn.pragma_update(None, "synchronous", if durable { "FULL" } else { "NORMAL" })?;
            self.synced = durable;
        }
        let mut tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in group {
            let savepoint = tx.savepoint()?;
            let mark = self.log.as_ref().map(Log::mark);
            let write = || {
                #[cfg(test)]
                tests::panic_if_asked(&job.record);
                apply_with(&savepoint, self.log.as_mut(), &job.record)
            };
            match catch_unwind(AssertUnwindSafe(write)) {
                Ok(Ok(())) => {
                    savepoint.commit()?;
                    outcomes.push(Ok(()));
                }
                Ok(Err(error @ StoreError::Degraded(..))) => return Err(error),
                Ok(Err(error)) => {
                    savepoint.finish()?; // rolls back to before the job
                    rewind(&mut self.log, mark);
                    outcomes.push(Err(error));
                }
                Err(panic) => {
                    savepoint.finish()?;
                    rewind(&mut self.log, mark);
                    outcomes.push(Err(StoreError::Panicked(panic_text(panic))));
                }
            }
        }
        if let Some(log) = self.log.as_mut().filter(|log| log.is_pending()) {
            // On disk before the commit: the database never names an end that the log does not have.
            log.flush()?;
            self.log_failed = false;
            if let Some(head) = log.head() {
                evidence_head(&tx, &head)?;
            }
        }
        tx.commit()?;
        Ok(())
    }

    /// Writes something large enough to need fresh room, and removes it again.
    fn probe(&mut self, conn: &mut Connection) {
        let write = |conn: &mut Connection| -> rusqlite::Result<()> {
            conn.execute("INSERT OR REPLACE INTO probe (id, filler) VALUES (1, zeroblob(65536))", [])?;
            conn.execute("DELETE FROM probe", [])?;
            Ok(())
        };
        let log = || self.log.as_ref().map_or(Ok(()), |log| log.probe().map_err(StoreError::from));
        let result = write(conn).map_err(StoreError::from).and_then(|()| log());
        if result.is_ok() {
            self.log_failed = false;
        }
        self.judge(&result);
        self.probed = Instant::now();
        self.probe_pause = if result.is_ok() {
            self.cfg.probe_first
        } else {
            self.probe_pause.saturating_mul(2).min(self.cfg.probe_cap)
        };
    }

    fn judge(&mut self, result: &Result<(), StoreError>) {
        match result {
            Ok(()) if self.log_failed => {}
            Ok(()) => {
                self.probe_pause = self.cfg.probe_first;
                self.health.send_if_modified(|health| match health.degradation() {
                    None | Some(Degradation::Corrupt) => false,
                    Some(_) => {
                        *health = Health::Healthy;
                        true
                    }
                });
            }
            Err(error) => {
                self.log_failed |= matches!(error, StoreError::Log(..));
                // Failures after this one do not put off the probe.
                if self.health.borrow().degradation().is_none() {
                    self.probed = Instant::now();
                }
                degrade(&self.health, error);
            }
        }
    }
}

fn rewind(log: &mut Option<Log>, mark: Option<Mark>) {
    if let (Some(log), Some(mark)) = (log, mark) {
        log.rewind(mark);
    }
}

/// Publishes what an error says about the whole database, if it says anything.
pub(super) fn degrade(health: &watch::Sender<Health>, error: &StoreError) {
    let (reason, detail) = match error {
        StoreError::Degraded(reason, source) => (reason, source.to_string()),
        StoreError::Log(reason, source) => (reason, error_chain(source.as_ref())),
        _ => return,
    };
    health.send_if_modified(|health| {
        let known = health.degradation();
        if known == Some(*reason) || known == Some(Degradation::Corrupt) {
            return false;
        }
        *health = Health::Degraded { reason: *reason, detail };
        true
    });
}

#[cfg(test)]
mod tests;
