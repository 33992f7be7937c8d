//! The writer's configuration, and what it tells of itself.

use std::sync::Arc;
use std::time::Duration;

use super::super::error::Degradation;

/// Is told of every committed or failed group, on the writer's thread. Must not block.
pub type CommitObserver = Arc<dyn Fn(&Commit) + Send + Sync>;

/// How the writer works.
#[derive(Clone)]
pub struct WriterConfig {
    /// Jobs that wait at most; more are refused with [`StoreError::Full`](super::StoreError::Full). At least 1.
    pub capacity: usize,
    /// Jobs of one transaction at most. At least 1.
    pub group: usize,
    /// How long [`Writer::write`](super::Writer::write) waits for its acknowledgement.
    pub write_deadline: Duration,
    /// Queries that wait at most.
    pub query_capacity: usize,
    /// The pause before the first probe of a degraded database; it doubles up to `probe_cap`.
    pub probe_first: Duration,
    /// The longest pause between probes.
    pub probe_cap: Duration,
    /// The largest size of the database in bytes, if it is to be bounded below the disk's. Reaching it is `DiskFull`.
    pub max_bytes: Option<u64>,
    /// Wait on tokio's blocking pool and without deadlines, so that a paused clock stands still meanwhile. For simulations: it
    /// costs a pool thread for each waiting caller.
    pub hold_clock: bool,
    /// Is told of every group.
    pub observer: Option<CommitObserver>,
}

impl Default for WriterConfig {
    fn default() -> Self {
        WriterConfig {
            capacity: 4096,
            group: 256,
            write_deadline: Duration::from_secs(30),
            query_capacity: 64,
            probe_first: Duration::from_secs(1),
            probe_cap: Duration::from_secs(30),
            max_bytes: None,
            hold_clock: false,
            observer: None,
        }
    }
}

impl std::fmt::Debug for WriterConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriterConfig")
            .field("capacity", &self.capacity)
            .field("group", &self.group)
            .field("write_deadline", &self.write_deadline)
            .field("max_bytes", &self.max_bytes)
            .field("hold_clock", &self.hold_clock)
            .finish_non_exhaustive()
    }
}

/// What became of a group of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    /// Jobs in the group.
    pub jobs: usize,
    /// Those that were not written.
    pub failed: usize,
    /// Whether it was synced to the disk.
    pub durable: bool,
    /// From the transaction's begin to the end of its commit.
    pub took: Duration,
}

/// Whether the database takes writes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Health {
    /// The last write worked.
    Healthy,
    /// The last write failed for a reason that concerns the whole database. No new leases or weights should be begun.
    Degraded {
        /// What is wrong.
        reason: Degradation,
        /// SQLite's words.
        detail: String,
    },
}

impl Health {
    /// What is wrong, if anything is.
    pub fn degradation(&self) -> Option<Degradation> {
        match self {
            Health::Healthy => None,
            Health::Degraded { reason, .. } => Some(*reason),
        }
    }
}

/// Figures of a writer, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct WriterStats {
    /// Jobs accepted and not yet acknowledged.
    pub depth: usize,
    /// Jobs that may wait.
    pub capacity: usize,
    /// Groups committed.
    pub commits: u64,
    /// Jobs written.
    pub written: u64,
    /// Jobs that failed.
    pub failed: u64,
    /// Jobs refused because the queue was full.
    pub refused: u64,
    /// How long the last commit took.
    pub last_commit: Duration,
    /// How many jobs the last group had.
    pub last_group: usize,
    /// The evidence log, if this node keeps one.
    pub evidence: Option<EvidenceStats>,
}

/// Figures of the evidence log, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct EvidenceStats {
    /// Records written since the start.
    pub records: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
}

/// Why a writer could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The operating system gives no more threads.
    #[error("cannot start the store's threads")]
    Thread(#[source] std::io::Error),
    /// The connection for reads cannot be opened, or the size limit not set.
    #[error("cannot prepare the database's connections")]
    Connection(#[source] rusqlite::Error),
}
