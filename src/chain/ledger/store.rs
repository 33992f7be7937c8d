//! The ledger's files: a snapshot of the state and a journal of the blocks after it.
//!
//! ```text
//! {dir}/ledger.lock          held while a process owns the directory
//! {dir}/snapshot.json        one record: the state after some block
//! {dir}/blocks.log           one record a block, appended and synced before the block is announced
//! {dir}/blocks.log.torn-N    bytes of an unfinished last record, cut off when block N was the last whole one
//!                            (torn-N.1 and so on if that happens there again)
//! ```
//! A record is a line: 16 hex digits (the first 8 bytes of blake2b-256 over the rest), a space, JSON, a line feed.
//!
//! # Invariants
//! - The snapshot is replaced by rename, after a sync; the journal is emptied only after that. Blocks that the snapshot
//!   already has are skipped on replay, so a kill between the two steps loses nothing.
//! - Replay must give the recorded hashes and refusals; otherwise the files are refused, not changed.
//! - Only an unfinished **last** record is ever cut off, and its bytes are kept beside. Damage before whole records is
//!   refused: cutting there would undo blocks that were announced.
//! - Size is bounded: the journal becomes a snapshot after [`COMPACT_BLOCKS`] blocks or [`COMPACT_BYTES`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::blake2b_256;
use super::genesis::{GenesisConfig, GenesisError};
use super::state::{Block, State};
use crate::ids::{BlockNumber, Hash32};

/// Blocks after which the journal becomes a snapshot.
pub const COMPACT_BLOCKS: u64 = 256;
/// The file that is locked while a process owns the directory.
const LOCK_FILE: &str = "ledger.lock";
/// Bytes after which the journal becomes a snapshot.
pub const COMPACT_BYTES: u64 = 16 << 20;
/// The layout that is written, and the only one that is read.
const FORMAT: u32 = 1;

/// Why the ledger's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process has the directory.
    #[error("{} is in use by another process; stop it or choose another directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The configuration makes no ledger.
    #[error("a ledger cannot begin like that")]
    Genesis(#[from] GenesisError),
    /// The directory holds another ledger.
    #[error("{} holds a ledger with other rules or balances (genesis {found}); \
             start with the settings it was made with, or choose another directory", dir.display())]
    OtherGenesis {
        /// The directory.
        dir: PathBuf,
        /// The genesis hash found there.
        found: Hash32,
    },
    /// The files are damaged. They were not changed.
    #[error("{} is damaged at byte {offset}: {what}; it was left as it is, move the directory aside to begin anew",
            path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where, in bytes from its start.
        offset: u64,
        /// What is wrong.
        what: String,
    },
}

#[derive(Serialize)]
struct SnapshotOut<'a> {
    format: u32,
    state: &'a State,
}

#[derive(Deserialize)]
struct SnapshotIn {
    format: u32,
    state: State,
}

/// The open files. All methods block: call them off the async threads.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    journal: File,
    /// Bytes of whole records; whatever a failed append left behind lies after them.
    journal_len: u64,
    journal_blocks: u64,
    /// Whether the last append failed, so that the file may be longer than `journal_len`.
    dirty: bool,
    _lock: File,
}

fn checksum(body: &[u8]) -> String {
    hex::encode(&blake2b_256(&[body]).0[..8])
}

fn record<T: Serialize>(value: &T) -> Vec<u8> {
    // States and blocks are plain data with text keys; serialising them to memory cannot fail.
    let body = serde_json::to_vec(value).expect("ledger records are always JSON");
    let mut line = checksum(&body).into_bytes();
    line.push(b' ');
    line.extend_from_slice(&body);
    line.push(b'\n');
    line
}

/// Reads one line back; the error says what is wrong with it.
fn parse_record<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let line = line.strip_suffix(b"\n").ok_or("the record has no end")?;
    let (sum, rest) = line.split_at_checked(16).ok_or("the record is too short")?;
    let body = rest.strip_prefix(b" ").ok_or("no space after the checksum")?;
    if checksum(body).as_bytes() != sum {
        return Err("the checksum does not match".into());
    }
    serde_json::from_slice(body).map_err(|e| format!("not a record of this version: {e}"))
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> StoreError + use<'a> {
    move |source| StoreError::Io { action, path: path.to_owned(), source }
}

impl Store {
    /// Opens the ledger in `dir`, or begins one there; `now_ms` becomes the genesis time of a new one. Returns the state
    /// after the last block on disk.
    ///
    /// # Errors
    /// See [`StoreError`]. Whatever the error, nothing that was there is lost.
    pub fn open(dir: &Path, config: &GenesisConfig, now_ms: u64) -> Result<(Store, State), StoreError> {
        config.validate()?;
        std::fs::create_dir_all(dir).map_err(io_error("create", dir))?;
        let lock = lock(dir)?;
        let (snapshot, journal_path) = (dir.join("snapshot.json"), dir.join("blocks.log"));

        let existing = match std::fs::read(&snapshot) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(io_error("read", &snapshot)(e)),
        };
        let mut journal = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(&journal_path)
            .map_err(io_error("open", &journal_path))?;
        let mut state = match existing {
            Some(bytes) => read_snapshot(&snapshot, &bytes)?,
            None if journal.metadata().map_err(io_error("read", &journal_path))?.len() > 0 => {
                let what = "there are blocks, but the snapshot they follow is missing".to_owned();
                return Err(StoreError::Damaged { path: snapshot, offset: 0, what });
            }
            None => {
                let state = State::genesis(config, now_ms)?;
                write_snapshot(dir, &state)?;
                state
            }
        };
        let genesis = state.genesis_head();
        if genesis.hash != config.hash(genesis.timestamp_ms) {
            return Err(StoreError::OtherGenesis { dir: dir.to_owned(), found: genesis.hash });
        }
        let (journal_len, journal_blocks) = replay(&journal_path, &mut journal, &mut state)?;
        let store = Store { dir: dir.to_owned(), journal, journal_len, journal_blocks, dirty: false, _lock: lock };
        Ok((store, state))
    }

    /// Puts `block` on disk; `after` is the state it led to. When this returns the block survives a kill and a power cut.
    ///
    /// # Errors
    /// If the disk refuses. The block is then not on disk, and the next append starts where this one did.
    pub fn append(&mut self, block: &Block, after: &State) -> Result<(), StoreError> {
        let path = self.dir.join("blocks.log");
        if self.dirty {
            self.journal.set_len(self.journal_len).map_err(io_error("repair", &path))?;
            self.dirty = false;
        }
        let line = record(block);
        self.dirty = true;
        self.journal.write_all(&line).map_err(io_error("append to", &path))?;
        self.journal.sync_data().map_err(io_error("sync", &path))?;
        self.dirty = false;
        self.journal_len += line.len() as u64;
        self.journal_blocks += 1;
        if self.journal_blocks >= COMPACT_BLOCKS || self.journal_len >= COMPACT_BYTES {
            // The block is safe either way; a failed compaction is tried again with the next block.
            if let Err(error) = self.compact(after) {
                tracing::warn!(error = %error, "ledger snapshot failed, the journal grows on");
            }
        }
        Ok(())
    }

    fn compact(&mut self, state: &State) -> Result<(), StoreError> {
        write_snapshot(&self.dir, state)?;
        self.journal.set_len(0).map_err(io_error("empty", &self.dir.join("blocks.log")))?;
        self.journal_len = 0;
        self.journal_blocks = 0;
        Ok(())
    }
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK_FILE);
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { dir: dir.to_owned() }),
        Err(TryLockError::Error(e)) => Err(io_error("lock", &path)(e)),
    }
}

fn read_snapshot(path: &Path, bytes: &[u8]) -> Result<State, StoreError> {
    let damaged = |what| StoreError::Damaged { path: path.to_owned(), offset: 0, what };
    let snapshot: SnapshotIn = parse_record(bytes).map_err(damaged)?;
    if snapshot.format != FORMAT {
        return Err(damaged(format!("format {} is not {FORMAT}, another version wrote it", snapshot.format)));
    }
    Ok(snapshot.state)
}

/// Writes beside, syncs, renames over, syncs the directory.
fn write_snapshot(dir: &Path, state: &State) -> Result<(), StoreError> {
    let (path, new) = (dir.join("snapshot.json"), dir.join("snapshot.json.new"));
    let mut file = File::create(&new).map_err(io_error("create", &new))?;
    file.write_all(&record(&SnapshotOut { format: FORMAT, state })).map_err(io_error("write", &new))?;
    file.sync_all().map_err(io_error("sync", &new))?;
    std::fs::rename(&new, &path).map_err(io_error("replace", &path))?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(io_error("sync", dir))
}

/// Brings `state` up to the journal's last whole record. Returns the journal's length and number of blocks.
fn replay(path: &Path, journal: &mut File, state: &mut State) -> Result<(u64, u64), StoreError> {
    let read_error = || io_error("read", path);
    journal.seek(SeekFrom::Start(0)).map_err(read_error())?;
    let mut reader = BufReader::new(&*journal);
    let (mut offset, mut blocks, mut line) = (0u64, 0u64, Vec::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(read_error())? == 0 {
            return Ok((offset, blocks));
        }
        let damaged = |what: String| StoreError::Damaged { path: path.to_owned(), offset, what };
        let block: Block = match parse_record(&line) {
            Ok(block) => block,
            Err(what) => {
                // Only a torn tail may be cut: no whole record after it.
                let mut rest = Vec::new();
                while reader.read_until(b'\n', &mut rest).map_err(read_error())? > 0 {
                    if parse_record::<serde::de::IgnoredAny>(&rest).is_ok() {
                        return Err(damaged(what));
                    }
                    line.append(&mut rest);
                }
                cut_tail(path, journal, offset, &line, state.head().number)?;
                tracing::warn!(
                    path = %path.display(), offset, bytes = line.len(), reason = what,
                    "ledger journal ended in an unfinished block, cut it off and kept its bytes beside"
                );
                return Ok((offset, blocks));
            }
        };
        redo(state, block).map_err(damaged)?;
        offset += line.len() as u64;
        blocks += 1;
    }
}

fn redo(state: &mut State, block: Block) -> Result<(), String> {
    let (number, head) = (block.head.number, state.head().number);
    if number <= head {
        return Ok(());
    }
    if number != head + 1 {
        return Err(format!("block {number} follows block {head}"));
    }
    let refusals: Vec<_> = block.calls.iter().map(|c| c.refused).collect();
    let again = state.produce_block(block.head.timestamp_ms, block.calls.into_iter().map(|c| c.call).collect());
    if again.head != block.head || !again.calls.iter().map(|c| c.refused).eq(refusals) {
        return Err(format!("replaying block {number} gives another result; another version of the rules wrote it"));
    }
    Ok(())
}

fn cut_tail(path: &Path, journal: &File, at: u64, bytes: &[u8], last: BlockNumber) -> Result<(), StoreError> {
    // A second kill at the same block gets a name of its own.
    let mut beside = path.with_file_name(format!("blocks.log.torn-{last}"));
    let mut again = 0u32;
    let mut kept = loop {
        match OpenOptions::new().write(true).create_new(true).open(&beside) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                again += 1;
                beside = path.with_file_name(format!("blocks.log.torn-{last}.{again}"));
            }
            opened => break opened.map_err(io_error("create", &beside))?,
        }
    };
    kept.write_all(bytes).and_then(|()| kept.sync_all()).map_err(io_error("write", &beside))?;
    journal.set_len(at).map_err(io_error("cut", path))?;
    journal.sync_all().map_err(io_error("sync", path))
}

#[cfg(test)]
impl Store {
    /// Makes every append fail as on a full disk. Returns what [`free_disk`](Store::free_disk) needs.
    pub(crate) fn fill_disk(&mut self) -> File {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        std::mem::replace(&mut self.journal, full)
    }

    /// Makes appends work again.
    pub(crate) fn free_disk(&mut self, sound: File) {
        self.journal = sound;
    }
}

#[cfg(test)]
mod tests;
