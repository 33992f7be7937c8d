//! The log file: a bounded queue, a thread that owns the file, rotation by size.

use std::fs::{DirBuilder, File, OpenOptions, rename};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::logging::LogFile;

/// Lines that may wait for the disk.
const QUEUE: usize = 4096;
/// Longest line that is kept whole.
const MAX_LINE: usize = 64 * 1024;

enum Entry {
    Line(Vec<u8>),
    End,
}

/// The current file, put aside when it would grow beyond its bound.
struct Rolling {
    path: PathBuf,
    max_bytes: u64,
    keep: usize,
    file: File,
    written: u64,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Rolling {
    fn open(options: &LogFile) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&options.dir)?;
        let path = options.dir.join(&options.name);
        let file = open(&path)?;
        let written = file.metadata()?.len();
        Ok(Rolling { path, max_bytes: options.max_bytes, keep: options.keep, file, written })
    }

    fn aside(&self, n: usize) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.written > 0 && self.written + line.len() as u64 > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.written += line.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        if self.keep == 0 {
            self.file.set_len(0)?;
        } else {
            for n in (1..self.keep).rev() {
                // Missing files are the usual case until all are in use.
                let _ = rename(self.aside(n), self.aside(n + 1));
            }
            rename(&self.path, self.aside(1))?;
            self.file = open(&self.path)?;
        }
        self.written = 0;
        Ok(())
    }
}

/// The sending side of the queue.
#[derive(Debug)]
pub(crate) struct FileWriter {
    queue: SyncSender<Entry>,
    dropped: AtomicU64,
}

impl FileWriter {
    /// A writer for one line.
    pub(crate) fn handle(this: &Arc<Self>) -> LineWriter {
        LineWriter(Arc::clone(this))
    }
}

/// Sends each write, which is one whole line, to the file's thread; never waits.
pub(crate) struct LineWriter(Arc<FileWriter>);

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut line = bytes[..bytes.len().min(MAX_LINE)].to_vec();
        if line.len() < bytes.len() {
            line.push(b'\n');
        }
        if self.0.queue.try_send(Entry::Line(line)).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The file's thread.
#[derive(Debug)]
pub(crate) struct FileLog {
    writer: Arc<FileWriter>,
    thread: Option<JoinHandle<()>>,
}

impl FileLog {
    pub(crate) fn open(options: &LogFile) -> io::Result<Self> {
        let rolling = Rolling::open(options)?;
        let (queue, entries) = sync_channel(QUEUE);
        let writer = Arc::new(FileWriter { queue, dropped: AtomicU64::new(0) });
        let counts = Arc::downgrade(&writer);
        let dropped = move || counts.upgrade().map_or(0, |w| w.dropped.load(Ordering::Relaxed));
        let thread =
            std::thread::Builder::new().name("log-file".into()).spawn(move || run(rolling, entries, dropped))?;
        Ok(FileLog { writer, thread: Some(thread) })
    }
    pub(crate) fn writer(&self) -> Arc<FileWriter> {
        Arc::clone(&self.writer)
    }
    pub(crate) fn dropped(&self) -> u64 {
        self.writer.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        // Blocks only until the thread has written what is queued.
        if self.writer.queue.send(Entry::End).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

fn run(mut file: Rolling, entries: Receiver<Entry>, dropped: impl Fn() -> u64) {
    let mut reported = 0;
    for entry in entries {
        let Entry::Line(line) = entry else { return };
        // A full disk loses lines of the file; standard error still has them.
        let _ = file.write(&line);
        let lost = dropped();
        if lost > reported {
            let _ = file.write(format!("{} lines were dropped: the disk is too slow\n", lost - reported).as_bytes());
            reported = lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_together_never_exceed_their_bound() {
        let dir = tempfile::tempdir().unwrap();
        let options = LogFile { max_bytes: 100, keep: 2, ..LogFile::in_dir(dir.path()) };
        let mut file = Rolling::open(&options).unwrap();
        for i in 0..100 {
            file.write(format!("line {i:03} 20 bytes ...\n").as_bytes()).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["node.log", "node.log.1", "node.log.2"]);
        for name in &names {
            assert!(std::fs::metadata(dir.path().join(name)).unwrap().len() <= 100, "{name}");
        }
        let newest = std::fs::read_to_string(dir.path().join("node.log")).unwrap();
        assert!(newest.contains("line 099"), "{newest}");
        let older = std::fs::read_to_string(dir.path().join("node.log.1")).unwrap();
        assert!(older.contains("line 095") || older.contains("line 094"), "{older}");
    }

    #[test]
    fn a_restart_appends_and_counts_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let options = LogFile { max_bytes: 30, keep: 1, ..LogFile::in_dir(dir.path()) };
        Rolling::open(&options).unwrap().write(b"before the restart\n").unwrap();
        let mut again = Rolling::open(&options).unwrap();
        again.write(b"after the restart\n").unwrap();
        assert_eq!(std::fs::read_to_string(dir.path().join("node.log.1")).unwrap(), "before the restart\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("node.log")).unwrap(), "after the restart\n");
    }

    #[test]
    fn a_full_queue_drops_lines_and_never_waits() {
        let (queue, _entries) = sync_channel(1);
        let writer = Arc::new(FileWriter { queue, dropped: AtomicU64::new(0) });
        for _ in 0..3 {
            FileWriter::handle(&writer).write_all(b"line\n").unwrap();
        }
        assert_eq!(writer.dropped.load(Ordering::Relaxed), 2);
    }
}
