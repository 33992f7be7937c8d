//! What opening a data directory can come to: notes for the operator, or the reason why not.

use std::io;
use std::path::PathBuf;

use super::super::{DATABASE_FILE, Role, schema};
use crate::evidence::log::{LogError, LogNote};
use crate::exit::Exit;

/// Something that happened while opening and that an operator should hear about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenNote {
    /// There was no database; a fresh one was made.
    Created,
    /// The database was of an older version.
    Migrated {
        /// The version before.
        from: u32,
        /// The version now.
        to: u32,
        /// The copy made before.
        backup: PathBuf,
    },
    /// The database was damaged; it was moved aside and a fresh one made.
    MovedAside {
        /// Where it is now.
        to: PathBuf,
        /// What was found.
        why: String,
    },
    /// The data directory can be entered by other users of this machine. The database itself is private (0600).
    OpenToOthers {
        /// The permission bits.
        mode: u32,
    },
    /// The evidence log was not as it should be.
    Evidence(LogNote),
}

impl OpenNote {
    /// Whether it is worth a warning rather than information.
    pub fn is_warning(&self) -> bool {
        matches!(self, OpenNote::MovedAside { .. } | OpenNote::OpenToOthers { .. } | OpenNote::Evidence(_))
    }
}

impl std::fmt::Display for OpenNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OpenNote::Created => write!(f, "made a new database"),
            OpenNote::Migrated { from, to, backup } => {
                write!(f, "migrated the database from version {from} to {to}, backup in {}", backup.display())
            }
            OpenNote::MovedAside { to, why } => write!(
                f,
                "the database was damaged ({why}): moved it to {}, made a fresh one; leases are found again from the container \
                 engine, scores start anew",
                to.display()
            ),
            OpenNote::Evidence(note) => note.fmt(f),
            OpenNote::OpenToOthers { mode } => {
                write!(f, "other users can enter the data directory (mode {mode:04o}); chmod 0700 it")
            }
        }
    }
}

/// Why a data directory cannot be opened. Nothing in it has been altered, except by the steps that succeeded before.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory or a file in it cannot be made, read or renamed.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process has the directory open.
    #[error("{} is in use by {holder}; end it, or give this node a data directory of its own", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Which process, as far as known.
        holder: String,
    },
    /// The database was written by a newer version of this program.
    #[error(
        "{} has schema version {found}, this program knows up to {}: it was not altered; run the newer program again, or restore \
         a backup ({DATABASE_FILE}.v*.bak) made before its migration", path.display(), schema::LATEST
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// The file is a database of something else.
    #[error("{} is a database of another program and was not altered; move it away, or choose another data directory", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The database belongs to the other kind of node.
    #[error("{} belongs to a {found}, not to a {wanted}; give each node a data directory of its own", path.display())]
    OtherRole {
        /// The database.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Who asked.
        wanted: Role,
    },
    /// The copy before a migration could not be made; the migration was not begun.
    #[error("cannot write the backup {} before the migration; free space or fix the directory's permissions", path.display())]
    Backup {
        /// The copy.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// A migration failed and was rolled back.
    #[error("cannot migrate {} from schema version {from}; it is still of that version", path.display())]
    Migration {
        /// The database.
        path: PathBuf,
        /// Its version.
        from: u32,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
    /// The evidence log's directory cannot be used.
    #[error("cannot open the evidence log")]
    Evidence(#[source] LogError),
    /// SQLite cannot open or read the file, for another reason than damage.
    #[error("cannot open the database {}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
}

impl OpenError {
    /// The exit code of a program that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            OpenError::Newer { .. } | OpenError::Foreign { .. } | OpenError::OtherRole { .. } => Exit::Data,
            OpenError::Migration { .. } => Exit::Data,
            OpenError::InUse { .. } => Exit::Unavailable,
            OpenError::File { .. } | OpenError::Backup { .. } | OpenError::Sqlite { .. } | OpenError::Evidence(_) => {
                Exit::CannotCreate
            }
        }
    }
}
