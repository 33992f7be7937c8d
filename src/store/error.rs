//! Why a write or a read did not happen.

use std::time::Duration;

use rusqlite::ErrorCode;

use crate::evidence::log::LogError;

/// What is wrong with the database as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Degradation {
    /// The disk, or the database's own size limit, is full.
    DiskFull,
    /// The operating system reports an I/O error, or the file cannot be opened or written any more.
    Io,
    /// The file's content is damaged. It is moved aside at the next start.
    Corrupt,
    /// Another process holds the database's lock.
    Locked,
    /// SQLite could not get memory.
    Memory,
}

impl Degradation {
    /// The metric label: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            Degradation::DiskFull => "disk_full",
            Degradation::Io => "io",
            Degradation::Corrupt => "corrupt",
            Degradation::Locked => "locked",
            Degradation::Memory => "memory",
        }
    }
    /// What an operator should do.
    pub fn remedy(self) -> &'static str {
        match self {
            Degradation::DiskFull => "free space on the data directory's disk; writes resume by themselves",
            Degradation::Io => "see the kernel's log for the disk, and the directory's mount and permissions",
            Degradation::Corrupt => "restart the node: it moves the damaged file aside and starts a fresh one",
            Degradation::Locked => "end the other program that has the database open for writing",
            Degradation::Memory => "free memory on this machine",
        }
    }
    /// The state of the whole database that an error of SQLite speaks of, if it does.
    pub(super) fn of(error: &rusqlite::Error) -> Option<Degradation> {
        Some(match error.sqlite_error_code()? {
            ErrorCode::DiskFull => Degradation::DiskFull,
            ErrorCode::SystemIoFailure
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::FileLockingProtocolFailed => Degradation::Io,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Degradation::Corrupt,
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Degradation::Locked,
            ErrorCode::OutOfMemory => Degradation::Memory,
            _ => return None,
        })
    }
}

impl std::fmt::Display for Degradation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Degradation::DiskFull => "the disk is full",
            Degradation::Io => "the disk does not take writes",
            Degradation::Corrupt => "the database file is damaged",
            Degradation::Locked => "another process has locked the database",
            Degradation::Memory => "out of memory",
        })
    }
}

/// Why a record was not written, or a question not answered. Cheap to clone: it goes to every job of a failed group.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The queue is full: nothing was queued, try again later or drop the record.
    #[error("the store's queue of {capacity} is full")]
    Full {
        /// Jobs the queue holds.
        capacity: usize,
    },
    /// The writer has been shut down.
    #[error("the store is shut down")]
    Stopped,
    /// No acknowledgement in time. A write may still happen; a read was interrupted.
    #[error("no answer from the store within {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The database as a whole cannot be written or read; nothing of this job was written.
    #[error("the database is degraded: {0}")]
    Degraded(Degradation, #[source] std::sync::Arc<rusqlite::Error>),
    /// The evidence log cannot be written; nothing of this job was written.
    #[error("the evidence log is degraded: {0}")]
    Log(Degradation, #[source] std::sync::Arc<LogError>),
    /// The record contradicts what is stored; nothing of this job was written.
    #[error("the record contradicts the database: {0}")]
    Conflict(String),
    /// The record cannot be stored as it is: a number out of range, or a text above its bound.
    #[error("the record cannot be stored: {0}")]
    Unstorable(String),
    /// SQLite refused for another reason: a defect of this program, or a value that does not read back.
    #[error("a statement failed")]
    Sql(#[source] std::sync::Arc<rusqlite::Error>),
    /// The job panicked; it was rolled back.
    #[error("the job panicked: {0}")]
    Panicked(String),
}

impl StoreError {
    /// The metric label of the kind of error.
    pub fn label(&self) -> &'static str {
        match self {
            StoreError::Full { .. } => "full",
            StoreError::Stopped => "stopped",
            StoreError::Deadline(_) => "deadline",
            StoreError::Degraded(..) | StoreError::Log(..) => "degraded",
            StoreError::Conflict(_) => "conflict",
            StoreError::Unstorable(_) => "unstorable",
            StoreError::Sql(_) => "sql",
            StoreError::Panicked(_) => "panicked",
        }
    }
    /// What is wrong with the whole database, if this error says so.
    pub fn degradation(&self) -> Option<Degradation> {
        match self {
            StoreError::Degraded(reason, _) | StoreError::Log(reason, _) => Some(*reason),
            _ => None,
        }
    }
}

impl From<LogError> for StoreError {
    fn from(error: LogError) -> Self {
        let full = |e: &std::io::Error| {
            matches!(e.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        };
        let reason = match &error {
            LogError::File { source, .. } if full(source) => Degradation::DiskFull,
            _ => Degradation::Io,
        };
        StoreError::Log(reason, std::sync::Arc::new(error))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) {
            return StoreError::Conflict(error.to_string());
        }
        match Degradation::of(&error) {
            Some(reason) => StoreError::Degraded(reason, std::sync::Arc::new(error)),
            None => StoreError::Sql(std::sync::Arc::new(error)),
        }
    }
}

/// The text of a caught panic.
pub(super) fn panic_text(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other.downcast_ref::<&str>().map_or_else(|| "no message".to_owned(), |s| (*s).to_owned()),
    }
}
