//! The writing side. Owned by the store's writer thread, blocking, in step with its transactions.
//!
//! Records of a transaction are encoded and chained in memory ([`Log::append`]), taken back with their job
//! ([`Log::rewind`]), written and synced before the transaction commits ([`Log::flush`]), and then either final
//! ([`Log::settle`]) or cut off again ([`Log::abandon`]). The database keeps the [`Head`] in the same transaction: after a
//! crash at any point the file is as long as the head says, or longer by what was never acknowledged.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::canon::CanonError;
use super::read::{Located, SegmentReader};
use super::{EvidenceRecord, FORMAT, Kind, chain, segment_name, segments};
use crate::ids::{Epoch, Hash32, Netuid};
use crate::wallet::Keypair;

/// Segments that are always kept, whatever the bound.
const KEEP_AT_LEAST: usize = 2;

/// Whose log it is.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The validator's key, which seals.
    pub keypair: Keypair,
    /// The subnet.
    pub netuid: Netuid,
    /// Name and version of the program that writes.
    pub program: String,
}

/// How large the log grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// A segment of at least so many bytes is followed by another at the next epoch.
    pub segment_bytes: u64,
    /// The oldest segments go when all together exceed this; the last two stay.
    pub keep_bytes: u64,
}

/// Where the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The number of the last segment.
    pub segment: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The number of the last record.
    pub seq: u64,
    /// The last record's hash.
    pub hash: Hash32,
    /// The last epoch that was closed, where that is known.
    pub epoch: Option<Epoch>,
}

/// Something about the log that an operator should hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogNote {
    /// Records at the end were never acknowledged: the node stopped before their transaction was committed.
    TailCut {
        /// Where they are now.
        to: PathBuf,
        /// How many bytes.
        bytes: u64,
    },
    /// The database knows nothing of this log: its end was taken from the log itself.
    Adopted {
        /// The last record's number.
        seq: u64,
    },
    /// The log is not what the database says. It is left as it is and continued in a new segment that says so.
    Broken {
        /// The damaged or missing segment.
        segment: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl std::fmt::Display for LogNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LogNote::TailCut { to, bytes } => {
                write!(
                    f,
                    "the evidence log ended in {bytes} bytes that were never acknowledged, moved to {}",
                    to.display()
                )
            }
            LogNote::Adopted { seq } => {
                write!(f, "the database knows nothing of the evidence log; it is continued after its record {seq}")
            }
            LogNote::Broken { segment, why } => write!(
                f,
                "the evidence log is damaged ({}: {why}); it is continued in a new segment that says so; see \
                 `compute-register evidence verify`",
                segment.display()
            ),
        }
    }
}

/// Figures for metrics.
#[derive(Debug, Default)]
pub struct LogStats {
    /// Records written since the start.
    pub records: AtomicU64,
    /// Bytes of all segments.
    pub bytes: AtomicU64,
    /// Segments.
    pub segments: AtomicU64,
}

/// Why a record cannot be logged, or the log not be written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The body has no canonical form.
    #[error("a {0} record has no canonical form")]
    Canon(&'static str, #[source] CanonError),
    /// The disk refuses.
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
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError {
    let path = path.to_path_buf();
    move |source| LogError::File { what, path, source }
}

/// Where the next record goes.
#[derive(Debug, Clone, Default)]
struct Cursor {
    head: Option<Head>,
    /// The next record needs a new segment: at the very beginning, or after damage (what it says of it).
    begin: Option<Option<Value>>,
    /// Whether the present segment begins with a state.
    has_state: bool,
}

/// Bytes for one segment that are not on disk yet.
#[derive(Debug)]
struct Chunk {
    segment: u64,
    /// The segment's length before.
    start: u64,
    bytes: Vec<u8>,
    /// Whether the file was created, or is about to be extended, by [`Log::flush`]: what [`Log::abandon`] may undo.
    touched: bool,
}

/// A point to [`Log::rewind`] to.
#[derive(Debug)]
pub struct Mark {
    cursor: Cursor,
    chunks: usize,
    last: usize,
    records: u64,
}

/// The log, open for appending.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    identity: Identity,
    limits: Limits,
    /// As of the last [`Log::settle`].
    settled: Cursor,
    cursor: Cursor,
    chunks: Vec<Chunk>,
    pending_records: u64,
    stats: Arc<LogStats>,
}

impl Log {
    /// Opens the log below `dir`, which is made where it is missing. `head` is what the database says of its end.
    ///
    /// Only the last segment is read. Damage is no error: the log goes on in a new segment, and the notes say so.
    ///
    /// # Errors
    /// [`LogError::File`] if the directory cannot be made or read.
    pub fn open(
        dir: &Path,
        identity: Identity,
        limits: Limits,
        head: Option<Head>,
    ) -> Result<(Log, Vec<LogNote>), LogError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make the directory", dir))?;
        let mut notes = Vec::new();
        let present = segments(dir).map_err(failed("list", dir))?;
        let cursor = match head {
            Some(head) => {
                for later in present.iter().filter(|n| **n > head.segment) {
                    notes.push(set_aside(dir, *later)?);
                }
                end_at(dir, &identity, head, &mut notes)?
            }
            None => match present.last() {
                None => Cursor { begin: Some(None), ..Cursor::default() },
                Some(last) => end_of(dir, &identity, *last, &mut notes)?,
            },
        };
        let log = Log {
            dir: dir.to_path_buf(),
            identity,
            limits,
            settled: cursor.clone(),
            cursor,
            chunks: Vec::new(),
            pending_records: 0,
            stats: Arc::default(),
        };
        log.measure();
        Ok((log, notes))
    }

    /// Figures, as of now.
    pub fn stats(&self) -> Arc<LogStats> {
        self.stats.clone()
    }

    /// Where the log ends with what is pending; `None` while it holds nothing at all.
    pub fn head(&self) -> Option<Head> {
        self.cursor.head
    }

    /// Whether anything waits for [`Log::flush`].
    pub fn is_pending(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// A point to come back to.
    pub fn mark(&self) -> Mark {
        Mark {
            cursor: self.cursor.clone(),
            chunks: self.chunks.len(),
            last: self.chunks.last().map_or(0, |c| c.bytes.len()),
            records: self.pending_records,
        }
    }

    /// Takes back what was appended since the mark and not flushed.
    pub fn rewind(&mut self, mark: Mark) {
        self.cursor = mark.cursor;
        self.chunks.truncate(mark.chunks);
        if let Some(last) = self.chunks.last_mut() {
            last.bytes.truncate(mark.last);
        }
        self.pending_records = mark.records;
    }

    /// Adds entries behind what is there, in memory. Weights are sealed at once. Entries that close an epoch that is closed
    /// already change nothing: a write may be repeated when nobody knows what became of it.
    ///
    /// # Errors
    /// [`LogError::Canon`]; what was added before it is taken back with [`Log::rewind`].
    pub fn append(&mut self, evidence: &EvidenceRecord) -> Result<(), LogError> {
        let Some(first) = evidence.entries.first() else { return Ok(()) };
        let closed = self.cursor.head.and_then(|h| h.epoch);
        if evidence.closes.is_some() && evidence.closes <= closed {
            return Ok(());
        }
        if !self.is_pending() {
            self.look();
        }
        let full = self.cursor.head.is_some_and(|h| h.bytes >= self.limits.segment_bytes) || !self.cursor.has_state;
        if self.cursor.begin.is_some() || (evidence.state.is_some() && full) {
            self.begin_segment(first.at_ms, evidence.state.as_deref())?;
        }
        for entry in &evidence.entries {
            self.push(entry.kind, entry.at_ms, &entry.body)?;
            if let (Kind::Weights, Some(head)) = (entry.kind, self.cursor.head) {
                let seal = chain::seal(&self.identity.keypair, head.seq, &head.hash);
                self.push(Kind::Seal, entry.at_ms, &seal)?;
            }
        }
        if let (Some(head), Some(epoch)) = (&mut self.cursor.head, evidence.closes) {
            head.epoch = Some(epoch);
        }
        Ok(())
    }

    /// Whether the segment is still as long as it was left. If not, somebody else wrote it: the log is continued elsewhere.
    fn look(&mut self) {
        let Some(head) = self.cursor.head.filter(|_| self.cursor.begin.is_none()) else { return };
        let path = self.path(head.segment);
        let why = match fs::metadata(&path) {
            Ok(meta) if meta.len() == head.bytes => return,
            Ok(meta) => format!("the segment has {} bytes, {} were written", meta.len(), head.bytes),
            Err(error) => format!("the segment cannot be looked at: {error}"),
        };
        tracing::error!(segment = %path.display(), why, "the evidence log was altered while the node runs");
        self.cursor.begin = Some(Some(broken(&head, &why)));
    }

    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(segment_name(segment))
    }

    fn begin_segment(&mut self, at_ms: u64, state: Option<&Value>) -> Result<(), LogError> {
        let hotkey = self.identity.keypair.hotkey();
        // What the next record follows: the last one, or the beginning of everything.
        let (segment, seq, prev, epoch) = match self.cursor.head {
            Some(head) => (head.segment + 1, head.seq.wrapping_add(1), head.hash, head.epoch),
            None => (1, 0, chain::genesis(&hotkey), None),
        };
        let body = json!({
            "format": FORMAT,
            "segment": segment,
            "first_seq": seq,
            "prev": prev,
            "hotkey": hotkey,
            "netuid": self.identity.netuid,
            "program": self.identity.program,
            "broken": self.cursor.begin.take().flatten(),
            "state": state,
        });
        self.chunks.push(Chunk { segment, start: 0, bytes: Vec::new(), touched: false });
        self.cursor.head = Some(Head { segment, bytes: 0, seq: seq.wrapping_sub(1), hash: prev, epoch });
        self.cursor.has_state = state.is_some();
        self.push(Kind::Segment, at_ms, &body)
    }

    fn push(&mut self, kind: Kind, at_ms: u64, body: &Value) -> Result<(), LogError> {
        let Some(head) = self.cursor.head.as_mut() else { return Ok(()) };
        let seq = head.seq.wrapping_add(1);
        let text = chain::text(seq, at_ms, kind.label(), body).map_err(|e| LogError::Canon(kind.label(), e))?;
        let hash = chain::next(&head.hash, text.as_bytes());
        let line = format!("{hash} {text}\n");
        let start = head.bytes;
        *head = Head { bytes: start + line.len() as u64, seq, hash, ..*head };
        match self.chunks.last_mut() {
            Some(chunk) if chunk.segment == head.segment => chunk.bytes.extend_from_slice(line.as_bytes()),
            _ => self.chunks.push(Chunk { segment: head.segment, start, bytes: line.into_bytes(), touched: false }),
        }
        self.pending_records += 1;
        Ok(())
    }

    /// Writes what is pending and syncs it. On an error [`Log::abandon`] takes it back.
    ///
    /// # Errors
    /// [`LogError::File`].
    pub fn flush(&mut self) -> Result<(), LogError> {
        for chunk in &mut self.chunks {
            let path = self.dir.join(segment_name(chunk.segment));
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(chunk.start == 0)
                .mode(0o600)
                .open(&path)
                .map_err(failed("open", &path))?;
            chunk.touched = chunk.start == 0; // `create_new`: the file was not there
            let end = file.seek(SeekFrom::End(0)).map_err(failed("read", &path))?;
            if end != chunk.start {
                let source = io::Error::other(format!("it has {end} bytes, {} were written", chunk.start));
                return Err(LogError::File { what: "append to", path, source });
            }
            chunk.touched = true;
            file.write_all(&chunk.bytes).and_then(|()| file.sync_data()).map_err(failed("write", &path))?;
            if chunk.start == 0 {
                sync_dir(&self.dir).map_err(failed("sync", &self.dir))?;
            }
        }
        Ok(())
    }

    /// What was flushed is final. Removes the oldest segments where there are too many bytes.
    pub fn settle(&mut self) {
        let rolled = self.chunks.iter().any(|c| c.start == 0);
        let grown: u64 = self.chunks.iter().map(|c| c.bytes.len() as u64).sum();
        self.settled = self.cursor.clone();
        self.stats.records.fetch_add(std::mem::take(&mut self.pending_records), Ordering::Relaxed);
        self.stats.bytes.fetch_add(grown, Ordering::Relaxed);
        self.chunks.clear();
        if rolled {
            self.retain();
            self.measure();
        }
    }

    /// Takes back everything since the last [`Log::settle`], also from the disk: what [`Log::flush`] put there, never what it
    /// found there.
    pub fn abandon(&mut self) {
        for chunk in std::mem::take(&mut self.chunks).into_iter().filter(|chunk| chunk.touched) {
            let path = self.path(chunk.segment);
            let cut = match chunk.start {
                0 => fs::remove_file(&path),
                start => OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(start)),
            };
            match cut {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // The next append sees the length and says so in a new segment; a restart cuts it as never acknowledged.
                    tracing::error!(segment = %path.display(), %error, "records that were not committed stay in the evidence log");
                }
                _ => {}
            }
        }
        self.pending_records = 0;
        self.cursor = self.settled.clone();
    }

    /// Writes a file of 64 KiB and removes it again, to see whether the disk takes writes.
    ///
    /// # Errors
    /// [`LogError::File`].
    pub fn probe(&self) -> Result<(), LogError> {
        let path = self.dir.join("probe");
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(&[0; 64 << 10])?;
            file.sync_data()
        };
        let written = write();
        let _ = fs::remove_file(&path);
        written.map_err(failed("write", &path))
    }

    fn retain(&self) {
        let Ok(mut present) = segments(&self.dir) else { return };
        let length = |n: &u64| fs::metadata(self.path(*n)).map_or(0, |m| m.len());
        let mut total: u64 = present.iter().map(length).sum();
        present.truncate(present.len().saturating_sub(KEEP_AT_LEAST));
        for oldest in present {
            if total <= self.limits.keep_bytes {
                return;
            }
            total = total.saturating_sub(length(&oldest));
            if let Err(error) = fs::remove_file(self.path(oldest)) {
                tracing::warn!(segment = oldest, %error, "an old segment of the evidence log cannot be removed");
                return;
            }
            self.remove_tails(oldest);
        }
    }

    /// What was cut off a segment goes with it.
    fn remove_tails(&self, segment: u64) {
        let prefix = format!("{segment:010}.");
        let Ok(files) = fs::read_dir(&self.dir) else { return };
        for file in files.flatten() {
            let name = file.file_name();
            if name.to_str().is_some_and(|n| n.starts_with(&prefix) && n.ends_with(".tail")) {
                let _ = fs::remove_file(file.path());
            }
        }
    }

    fn measure(&self) {
        let Ok(present) = segments(&self.dir) else { return };
        let bytes = present.iter().map(|n| fs::metadata(self.path(*n)).map_or(0, |m| m.len())).sum();
        self.stats.bytes.store(bytes, Ordering::Relaxed);
        self.stats.segments.store(present.len() as u64, Ordering::Relaxed);
    }
}

/// What a segment's header says of the damage before it.
fn broken(expected: &Head, why: &str) -> Value {
    json!({
        "segment": expected.segment,
        "bytes": expected.bytes,
        "seq": expected.seq,
        "hash": expected.hash,
        "why": why,
    })
}

/// The cursor at the end that the database names, after cutting off what is beyond it.
fn end_at(dir: &Path, identity: &Identity, head: Head, notes: &mut Vec<LogNote>) -> Result<Cursor, LogError> {
    let path = dir.join(segment_name(head.segment));
    match read_to(&path, head.bytes) {
        Err(error) => Ok(broken_at(head, path, format!("cannot be read: {error}"), notes)),
        Ok(content) => {
            let (last, problem) = walk(&path, head.segment, &content);
            if let Some(problem) = problem {
                return Ok(broken_at(head, path, problem, notes));
            }
            let Some(last) = last.filter(|l| (l.seq, l.hash) == (head.seq, head.hash)) else {
                let why = format!("its {} bytes do not end with record {} {}", head.bytes, head.seq, head.hash);
                return Ok(broken_at(head, path, why, notes));
            };
            notes.extend(cut_tail(dir, head)?);
            if last.hotkey != identity.keypair.hotkey().to_string() {
                let why = format!("the log so far is of {}", last.hotkey);
                return Ok(broken_at(head, path, why, notes));
            }
            Ok(Cursor { head: Some(head), begin: None, has_state: last.has_state })
        }
    }
}

/// The cursor at the end of what is there, where the database knows of nothing.
fn end_of(dir: &Path, identity: &Identity, segment: u64, notes: &mut Vec<LogNote>) -> Result<Cursor, LogError> {
    let path = dir.join(segment_name(segment));
    let content = fs::read(&path).map_err(failed("read", &path))?;
    let (last, problem) = walk(&path, segment, &content);
    let head = last.as_ref().map(|l| Head { segment, bytes: l.end, seq: l.seq, hash: l.hash, epoch: l.epoch });
    match (problem, last) {
        (None, Some(last)) if last.hotkey == identity.keypair.hotkey().to_string() => {
            notes.push(LogNote::Adopted { seq: last.seq });
            Ok(Cursor { head, begin: None, has_state: last.has_state })
        }
        (problem, _) => {
            let why =
                problem.unwrap_or_else(|| "the database knows nothing of it, and it is not this validator's".into());
            let genesis = chain::genesis(&identity.keypair.hotkey());
            let head = head.unwrap_or(Head { segment, bytes: 0, seq: u64::MAX, hash: genesis, epoch: None });
            Ok(broken_at(head, path, why, notes))
        }
    }
}

fn broken_at(head: Head, segment: PathBuf, why: String, notes: &mut Vec<LogNote>) -> Cursor {
    let begin = Some(Some(broken(&head, &why)));
    notes.push(LogNote::Broken { segment, why });
    Cursor { head: Some(head), begin, has_state: false }
}

/// The last good record of a segment.
struct Last {
    seq: u64,
    hash: Hash32,
    end: u64,
    hotkey: String,
    has_state: bool,
    epoch: Option<Epoch>,
}

/// Walks a segment's bytes to their end, or to the first problem.
fn walk(path: &Path, segment: u64, content: &[u8]) -> (Option<Last>, Option<String>) {
    let mut last: Option<Last> = None;
    for record in SegmentReader::new(segment, content, None) {
        match record {
            Ok(record) => {
                let epoch = record.epoch().filter(|_| record.kind == Kind::Epoch.label());
                let epoch = epoch.or(last.as_ref().and_then(|l| l.epoch));
                let Located { seq, hash, bytes, kind, body, .. } = record;
                let (hotkey, has_state) = match (&last, kind.as_str()) {
                    (Some(last), _) => (last.hotkey.clone(), last.has_state),
                    (None, _) => (
                        body.get("hotkey").and_then(Value::as_str).unwrap_or_default().to_owned(),
                        body.get("state").is_some_and(|s| !s.is_null()),
                    ),
                };
                last = Some(Last { seq, hash, end: bytes.end, hotkey, has_state, epoch });
            }
            Err(problem) if problem.is_declared() => {}
            Err(problem) => return (last, Some(problem.to_string())),
        }
    }
    let empty = last.is_none().then(|| format!("{} is empty", path.display()));
    (last, empty)
}

/// The first `bytes` bytes of a file.
fn read_to(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length < bytes {
        return Err(io::Error::other(format!("it has {length} bytes, the database knows of {bytes}")));
    }
    let mut content = Vec::new();
    file.take(bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// Moves what lies beyond the head to a file of its own.
fn cut_tail(dir: &Path, head: Head) -> Result<Option<LogNote>, LogError> {
    let path = dir.join(segment_name(head.segment));
    let length = fs::metadata(&path).map_err(failed("read", &path))?.len();
    if length <= head.bytes {
        return Ok(None);
    }
    let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed("open", &path))?;
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(head.bytes)).and_then(|_| file.read_to_end(&mut tail)).map_err(failed("read", &path))?;
    let to = unused(dir, head.segment, head.bytes);
    let keep = || -> io::Result<()> {
        let mut kept = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to)?;
        kept.write_all(&tail)?;
        kept.sync_all()
    };
    keep().map_err(failed("write", &to))?;
    file.set_len(head.bytes).and_then(|()| file.sync_all()).map_err(failed("cut", &path))?;
    Ok(Some(LogNote::TailCut { to, bytes: tail.len() as u64 }))
}

/// Moves a whole segment aside that no acknowledged record lies in.
fn set_aside(dir: &Path, segment: u64) -> Result<LogNote, LogError> {
    let path = dir.join(segment_name(segment));
    let to = unused(dir, segment, 0);
    let length = fs::metadata(&path).map_err(failed("read", &path))?.len();
    fs::rename(&path, &to).map_err(failed("move aside", &path))?;
    Ok(LogNote::TailCut { to, bytes: length })
}

/// A name that is not taken, for what a segment had behind `bytes` bytes.
fn unused(dir: &Path, segment: u64, bytes: u64) -> PathBuf {
    let first = dir.join(format!("{segment:010}.{bytes}.tail"));
    let others = (1..).map(|n: u32| dir.join(format!("{segment:010}.{bytes}.{n}.tail")));
    std::iter::once(first.clone()).chain(others).find(|p| p.symlink_metadata().is_err()).unwrap_or(first)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
