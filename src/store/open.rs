//! Opening a data directory: one process at a time, repair by moving aside, migrations with a backup before each.
//!
//! Invariants:
//! - nothing is written before the lock is held and the file has been looked at read-only;
//! - a database of a newer version, of another program or of the other role is refused and its bytes stay as they are;
//! - a damaged database is renamed, never deleted, and its name is told;
//! - before a migration touches data there is a backup of it, complete and synced.
//!
//! Blocking: call it before the runtime starts, or from `spawn_blocking`.

mod lock;
mod outcome;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use self::lock::DirLock;
pub use self::outcome::{OpenError, OpenNote};
use super::{DATABASE_FILE, Role, queries, schema};
use crate::evidence::{self, Identity, Limits, Log};

/// How long a statement waits for another process's lock, a reader's checkpoint for example, until the node says otherwise.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The size to which the write-ahead log is cut back after a checkpoint, in bytes.
const WAL_LIMIT: i64 = 16 << 20;

/// A database that this process owns: the connection, the directory's lock and where it is.
#[derive(Debug)]
pub struct Database {
    /// The read-write connection.
    pub conn: Connection,
    /// The database file.
    pub path: PathBuf,
    /// The evidence log that is written with it, see [`Database::with_evidence`].
    pub(super) log: Option<Log>,
    /// Held as long as the database is open; dropped last.
    pub(super) lock: DirLock,
}

impl Database {
    /// How long a statement waits for another process that holds the database, from now on. A database that was just
    /// opened waits 5 s.
    ///
    /// # Errors
    /// [`OpenError::Sqlite`].
    pub fn wait_for_others(&self, longest: Duration) -> Result<(), OpenError> {
        self.conn.busy_timeout(longest).map_err(|source| OpenError::Sqlite { path: self.path.clone(), source })
    }

    /// Keeps an evidence log beside the database from now on. The notes say what was found wrong with it.
    ///
    /// # Errors
    /// [`OpenError::Sqlite`]; [`OpenError::Evidence`] if the log's directory cannot be used.
    pub fn with_evidence(&mut self, identity: Identity, limits: Limits) -> Result<Vec<OpenNote>, OpenError> {
        let sqlite = |source| OpenError::Sqlite { path: self.path.clone(), source };
        let head = queries::evidence_head(&self.conn).map_err(sqlite)?;
        let dir = self.path.with_file_name(evidence::DIRECTORY);
        let (log, notes) = Log::open(&dir, identity, limits, head).map_err(OpenError::Evidence)?;
        self.log = Some(log);
        Ok(notes.into_iter().map(OpenNote::Evidence).collect())
    }
}

/// The result of [`open`].
#[derive(Debug)]
pub struct Opened {
    /// The database, ready for [`Writer::spawn`](super::Writer::spawn).
    pub db: Database,
    /// What an operator should hear about.
    pub notes: Vec<OpenNote>,
}

/// Opens the database of a node, making directory and database where they are missing.
///
/// `now_ms` names backups and files moved aside. See [`OpenError`] for what is refused.
pub fn open(dir: &Path, role: Role, now_ms: u64) -> Result<Opened, OpenError> {
    let mut notes = Vec::new();
    notes.extend(prepare_dir(dir)?);
    let lock = DirLock::take(dir)?;
    let path = dir.join(DATABASE_FILE);

    match inspect(&path, role)? {
        Found::Nothing => notes.push(OpenNote::Created),
        Found::Ours => {}
        Found::Damaged(why) => {
            let to = move_aside(&path, now_ms)?;
            notes.push(OpenNote::MovedAside { to, why });
        }
    }

    let mut conn = connect(&path)?;
    notes.extend(migrate(&mut conn, &path, now_ms)?);
    conn.execute("INSERT INTO meta (key, value) VALUES ('role', ?1) ON CONFLICT DO NOTHING", [role.label()])
        .map_err(|source| OpenError::Sqlite { path: path.clone(), source })?;
    Ok(Opened { db: Database { conn, path, log: None, lock }, notes })
}

fn prepare_dir(dir: &Path) -> Result<Option<OpenNote>, OpenError> {
    let failed = |what: &'static str| move |source| OpenError::File { what, path: dir.to_path_buf(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make the directory"))?;
    // The mode of a directory that was there already is its owner's choice: told, not changed.
    let mode = fs::metadata(dir).map_err(failed("read the permissions of"))?.permissions().mode() & 0o7777;
    Ok((mode & 0o077 != 0).then_some(OpenNote::OpenToOthers { mode }))
}

enum Found {
    Nothing,
    Ours,
    Damaged(String),
}

/// Looks at a database without writing to it.
fn inspect(path: &Path, role: Role) -> Result<Found, OpenError> {
    let length = match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(source) => return Err(OpenError::File { what: "read", path: path.to_path_buf(), source }),
        Ok(meta) => meta.len(),
    };
    if length == 0 {
        // SQLite would delete a log without its database; there may be something in it.
        let beside = with_suffix(path, "-wal");
        let log = match fs::metadata(&beside) {
            Ok(meta) => meta.len() > 0,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            // A log that cannot be seen may be there.
            Err(source) => return Err(OpenError::File { what: "read", path: beside, source }),
        };
        return Ok(if log {
            Found::Damaged("there is a write-ahead log but no database".to_owned())
        } else {
            Found::Nothing
        });
    }
    let facts = match read_facts(path, OpenFlags::SQLITE_OPEN_READ_ONLY) {
        // A rollback journal of an interrupted first start can only be played back by a writer.
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            read_facts(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        }
        other => other,
    };
    let facts = match facts {
        Ok(facts) => facts,
        Err(e) if is_damage(&e) => return Ok(Found::Damaged(e.to_string())),
        Err(source) => return Err(OpenError::Sqlite { path: path.to_path_buf(), source }),
    };
    match facts {
        Facts::Empty => Ok(Found::Nothing),
        Facts::Foreign => Err(OpenError::Foreign { path: path.to_path_buf() }),
        Facts::Ours { version, .. } if version > i64::from(schema::LATEST) => {
            Err(OpenError::Newer { path: path.to_path_buf(), found: version })
        }
        Facts::Ours { role: Some(found), .. } if found != role.label() => {
            Err(OpenError::OtherRole { path: path.to_path_buf(), found, wanted: role })
        }
        Facts::Ours { damage: Some(why), .. } => Ok(Found::Damaged(why)),
        Facts::Ours { .. } => Ok(Found::Ours),
    }
}

enum Facts {
    Empty,
    Foreign,
    Ours { version: i64, role: Option<String>, damage: Option<String> },
}

fn read_facts(path: &Path, access: OpenFlags) -> rusqlite::Result<Facts> {
    let conn = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    let application: i64 = conn.query_row("PRAGMA application_id", [], |r| r.get(0))?;
    let version = schema::version(&conn)?;
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))?;
    if tables == 0 && version == 0 {
        return Ok(Facts::Empty);
    }
    if application != i64::from(schema::APPLICATION_ID) {
        return Ok(Facts::Foreign);
    }
    if version > i64::from(schema::LATEST) {
        return Ok(Facts::Ours { version, role: None, damage: None });
    }
    let role = match conn.query_row("SELECT value FROM meta WHERE key = 'role'", [], |r| r.get(0)) {
        Ok(role) => Some(role),
        Err(rusqlite::Error::QueryReturnedNoRows) => None,
        Err(e) => return Err(e),
    };
    let check: String = conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0))?;
    Ok(Facts::Ours { version, role, damage: (check != "ok").then_some(check) })
}

fn is_damage(e: &rusqlite::Error) -> bool {
    matches!(e.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

/// Renames the database and its companions to `node.db.corrupt.{time}`, so that recovery tools find them together.
fn move_aside(path: &Path, now_ms: u64) -> Result<PathBuf, OpenError> {
    let target = unused(path, &format!("corrupt.{}", timestamp(now_ms)), "");
    for suffix in ["-wal", "-shm", "-journal", ""] {
        let from = with_suffix(path, suffix);
        let to = with_suffix(&target, suffix);
        match fs::rename(&from, &to) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(OpenError::File { what: "move aside", path: from, source }),
        }
    }
    sync_dir(path);
    Ok(target)
}

fn connect(path: &Path) -> Result<Connection, OpenError> {
    // Made here, so that it is private from its first moment; SQLite gives its companions the same mode.
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|source| OpenError::File { what: "open", path: path.to_path_buf(), source })?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(|source| OpenError::File {
        what: "make private",
        path: path.to_path_buf(),
        source,
    })?;
    drop(file);
    let configure = || -> rusqlite::Result<Connection> {
        let conn =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        conn.busy_timeout(BUSY_TIMEOUT)?;
        conn.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        conn.pragma_update(None, "journal_size_limit", WAL_LIMIT)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.pragma_update(None, "trusted_schema", false)?;
        // The writer prepares some thirty statements; negative is KiB of page cache.
        conn.pragma_update(None, "cache_size", -1024)?;
        conn.set_prepared_statement_cache_capacity(48);
        Ok(conn)
    };
    configure().map_err(|source| OpenError::Sqlite { path: path.to_path_buf(), source })
}

fn migrate(conn: &mut Connection, path: &Path, now_ms: u64) -> Result<Vec<OpenNote>, OpenError> {
    let sqlite = |source| OpenError::Sqlite { path: path.to_path_buf(), source };
    let found = schema::version(conn).map_err(sqlite)?;
    let found = u32::try_from(found).map_err(|_| OpenError::Foreign { path: path.to_path_buf() })?;
    let mut notes = Vec::new();
    for from in found..schema::LATEST {
        let step = |conn: &mut Connection| {
            schema::migrate_one(conn, from, now_ms).map_err(|source| OpenError::Migration {
                path: path.to_path_buf(),
                from,
                source,
            })
        };
        // A database without tables has nothing to lose.
        if found == 0 {
            step(conn)?;
            continue;
        }
        let backup = unused(path, &format!("v{from}.{}", timestamp(now_ms)), ".bak");
        back_up(conn, &backup)?;
        step(conn)?;
        notes.push(OpenNote::Migrated { from, to: from + 1, backup });
    }
    Ok(notes)
}

/// A complete copy of the database, private and synced, or no file at all.
fn back_up(conn: &Connection, to: &Path) -> Result<(), OpenError> {
    let file = |what: &'static str| move |source| OpenError::File { what, path: to.to_path_buf(), source };
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(file("make the backup"))?;
    let copied = conn.backup("main", to, None::<fn(rusqlite::backup::Progress)>);
    if let Err(source) = copied {
        let _ = fs::remove_file(to); // an incomplete copy would only pretend to be a backup
        return Err(OpenError::Backup { path: to.to_path_buf(), source });
    }
    File::open(to).and_then(|f| f.sync_all()).map_err(file("sync the backup"))?;
    sync_dir(to);
    Ok(())
}

/// `{path}.{middle}{end}`, with a number in between where that name is taken.
fn unused(path: &Path, middle: &str, end: &str) -> PathBuf {
    let first = with_suffix(path, &format!(".{middle}{end}"));
    let others = (1..).map(|n: u32| with_suffix(path, &format!(".{middle}.{n}{end}")));
    std::iter::once(first).chain(others).find(|p| p.symlink_metadata().is_err()).unwrap_or_else(|| path.to_path_buf())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes renames and new names in the directory of `path` survive a power loss, where the file system can.
fn sync_dir(path: &Path) {
    if let Some(dir) = path.parent() {
        let _ = File::open(dir).and_then(|d| d.sync_all());
    }
}

/// `20260131T235959.123Z`: sorts by time and needs no quoting in a shell.
fn timestamp(ms: u64) -> String {
    // Years beyond 9999 cannot be written in this form.
    let at = UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000));
    humantime::format_rfc3339_millis(at).to_string().replace(['-', ':'], "")
}

#[cfg(test)]
mod tests;
