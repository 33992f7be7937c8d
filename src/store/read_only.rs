//! Reading a node's database from outside, while the node runs or is stopped, without ever writing to it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{DATABASE_FILE, schema};
use crate::exit::Exit;

/// Why a database cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error("there is no database at {}; has a node run with this data directory?", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Its schema is older: the columns that are asked for are not there yet.
    #[error("{} has schema version {found}, older than this program's {}; start the node once, which migrates it after a backup", path.display(), schema::LATEST)]
    Older {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// Its schema is newer.
    #[error("{} has schema version {found}, newer than this program's {}; use the program that came with the node", path.display(), schema::LATEST)]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// It is another program's.
    #[error("{} is not a node's database", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// This user may not read it.
    #[error("cannot open {}; run as the user that the node runs as", path.display())]
    Denied {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
    /// A statement failed, or a value does not read back.
    #[error("cannot read {}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
}

impl ReadError {
    /// The exit code of a program that ends with this error.
    pub fn exit(&self) -> Exit {
        match self {
            ReadError::Missing { .. } | ReadError::Denied { .. } => Exit::Unavailable,
            _ => Exit::Data,
        }
    }
    pub(super) fn at(path: &Path) -> impl FnOnce(rusqlite::Error) -> ReadError {
        let path = path.to_path_buf();
        move |source| match source.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                ReadError::Denied { path, source }
            }
            Some(ErrorCode::NotADatabase) => ReadError::Foreign { path },
            _ => ReadError::Sqlite { path, source },
        }
    }
}

/// The database file of a data directory, or the path itself if it is no directory.
pub fn database_path(dir_or_file: &Path) -> PathBuf {
    if dir_or_file.is_dir() { dir_or_file.join(DATABASE_FILE) } else { dir_or_file.to_path_buf() }
}

/// Opens a data directory's database, or a database file such as a backup, for reading only. The directory's lock is not
/// taken: the node may run, and what it has committed is seen.
pub fn open_read_only(dir_or_file: &Path) -> Result<Connection, ReadError> {
    let path = database_path(dir_or_file);
    if !path.exists() {
        return Err(ReadError::Missing { path });
    }
    let facts = || -> rusqlite::Result<(Connection, i64, i64)> {
        let conn = connect_read_only(&path)?;
        let application = conn.query_row("PRAGMA application_id", [], |r| r.get(0))?;
        let version = schema::version(&conn)?;
        Ok((conn, application, version))
    };
    let (conn, application, found) = facts().map_err(ReadError::at(&path))?;
    if application != i64::from(schema::APPLICATION_ID) {
        return Err(ReadError::Foreign { path });
    }
    match found.cmp(&i64::from(schema::LATEST)) {
        std::cmp::Ordering::Less => Err(ReadError::Older { path, found }),
        std::cmp::Ordering::Greater => Err(ReadError::Newer { path, found }),
        std::cmp::Ordering::Equal => Ok(conn),
    }
}

pub(super) fn connect_read_only(path: &Path) -> rusqlite::Result<Connection> {
    let conn = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(Duration::from_secs(2))?;
    conn.pragma_update(None, "query_only", true)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", -1024)?;
    Ok(conn)
}
