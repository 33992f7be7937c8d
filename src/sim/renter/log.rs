//! A renter's own record: one JSON object a line, synced before the next step is taken. It is what a paying user would
//! have in hand, so it is the side that the others are compared with.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::{EndReason, LeaseState};
use crate::messages::validator::allocation_manager::RentRequest;
use crate::rental::Requirements;

/// The longest log that is read, in bytes.
const MAX_LOG: u64 = 64 << 20;
/// The most renters that share a directory.
const MAX_RENTERS: usize = 1_024;

/// One line of the log. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Line {
    /// The renter is about to ask for a lease under this id, for the first time.
    Wanted {
        /// When.
        at_ms: u64,
        /// The id it chose.
        lease: LeaseId,
        /// Which model, if not any.
        model: Option<String>,
        /// How many devices.
        devices: usize,
        /// How long, in milliseconds.
        duration_ms: u64,
        /// The image.
        image: String,
        /// The key that may log in.
        ssh_key: String,
    },
    /// The lease runs.
    Rented {
        /// When it was heard.
        at_ms: u64,
        /// The lease.
        lease: LeaseId,
        /// Whose devices.
        miner: Hotkey,
        /// The devices.
        devices: Vec<DeviceId>,
        /// The lease's fencing epoch.
        fencing_epoch: u64,
    },
    /// Not yet: it is asked for again under the same id.
    NotRented {
        /// When it was heard.
        at_ms: u64,
        /// The lease.
        lease: LeaseId,
        /// Why.
        error: String,
    },
    /// It never began and never will.
    Refused {
        /// When it was heard.
        at_ms: u64,
        /// The lease.
        lease: LeaseId,
        /// Why.
        error: String,
    },
    /// It has ended.
    Released {
        /// When it was heard.
        at_ms: u64,
        /// The lease.
        lease: LeaseId,
        /// How.
        state: LeaseState,
        /// Why.
        end: Option<EndReason>,
    },
    /// Its release is not confirmed yet: it is asked for again.
    NotReleased {
        /// When it was heard.
        at_ms: u64,
        /// The lease.
        lease: LeaseId,
        /// Why.
        error: String,
    },
    /// The validator knows nothing of a lease that it had rented out.
    Forgotten {
        /// When it was heard.
        at_ms: u64,
        /// The lease.
        lease: LeaseId,
    },
}

impl Line {
    /// The wish, as its renter is about to ask for it. `None` without an id.
    pub fn wanted(request: &RentRequest, at_ms: u64) -> Option<Line> {
        Some(Line::Wanted {
            at_ms,
            lease: request.id?,
            model: request.requirements.model.clone(),
            devices: request.requirements.devices,
            duration_ms: millis(request.duration),
            image: request.image.clone(),
            ssh_key: request.ssh_key.clone(),
        })
    }

    /// The lease it is about.
    pub fn lease(&self) -> LeaseId {
        match self {
            Line::Wanted { lease, .. }
            | Line::Rented { lease, .. }
            | Line::NotRented { lease, .. }
            | Line::Refused { lease, .. }
            | Line::Released { lease, .. }
            | Line::NotReleased { lease, .. }
            | Line::Forgotten { lease, .. } => *lease,
        }
    }
}

/// What a log leaves to be done: a renter has one lease at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// To be asked for (again).
    Wanted(RentRequest),
    /// To be held until it is released.
    Rented {
        /// The lease.
        lease: LeaseId,
        /// Since when, in milliseconds since the Unix epoch.
        since_ms: u64,
    },
}

/// What is open after these lines.
pub fn open_after(lines: &[Line], renter: Hotkey) -> Option<Open> {
    lines.iter().fold(None, |open, line| match line {
        Line::Wanted { lease, model, devices, duration_ms, image, ssh_key, .. } => Some(Open::Wanted(RentRequest {
            id: Some(*lease),
            renter,
            miner: None,
            requirements: Requirements { model: model.clone(), ..Requirements::any(*devices) },
            duration: Duration::from_millis(*duration_ms),
            image: image.clone(),
            ssh_key: ssh_key.clone(),
        })),
        Line::Rented { lease, at_ms, .. } => Some(Open::Rented { lease: *lease, since_ms: *at_ms }),
        Line::NotRented { .. } | Line::NotReleased { .. } => open,
        Line::Refused { .. } | Line::Released { .. } | Line::Forgotten { .. } => None,
    })
}

/// Reads the whole lines of a log; a line that a crash cut short was never acted on.
///
/// # Errors
/// If the file cannot be read, or a whole line is none of ours.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    parse(&mut File::open(path)?).map(|(lines, _)| lines)
}

fn parse(file: &mut File) -> io::Result<(Vec<Line>, u64)> {
    let mut text = String::new();
    file.take(MAX_LOG).read_to_string(&mut text)?;
    let whole = text.rfind('\n').map_or(0, |end| end + 1);
    let lines = text[..whole].lines().enumerate().map(|(number, line)| {
        let wrong = |e| io::Error::new(io::ErrorKind::InvalidData, format!("line {}: {e}", number + 1));
        serde_json::from_str(line).map_err(wrong)
    });
    Ok((lines.collect::<io::Result<_>>()?, whole as u64))
}

/// A log that one renter writes.
#[derive(Debug, Clone)]
pub struct Log {
    file: Arc<File>,
}

impl Log {
    /// Opens the first of `path`, `path` with `-1`, `-2`, … that no other renter holds, and reads what is in it. It is held
    /// until the last clone is dropped.
    ///
    /// # Errors
    /// If none can be opened or read.
    pub fn open(path: &Path) -> io::Result<(Log, Vec<Line>)> {
        for number in 0..MAX_RENTERS {
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(numbered(path, number))?;
            match file.try_lock() {
                Ok(()) => {
                    let (lines, whole) = parse(&mut file)?;
                    file.set_len(whole)?;
                    file.seek(SeekFrom::End(0))?;
                    return Ok((Log { file: Arc::new(file) }, lines));
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::other(format!("{MAX_RENTERS} renters write logs at {} already", path.display())))
    }

    /// Adds a line; when this returns it is on disk.
    ///
    /// # Errors
    /// If it cannot be written or synced.
    pub async fn write(&self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let file = self.file.clone();
        let write = move || {
            let before = file.metadata()?.len();
            (&*file).write_all(text.as_bytes()).and_then(|()| file.sync_data()).inspect_err(|_| {
                // Half a line would spoil the next one.
                let _ = file.set_len(before);
            })
        };
        tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
    }
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{number}"));
    let mut numbered = path.with_file_name(name);
    if let Some(extension) = path.extension() {
        numbered.set_extension(extension);
    }
    numbered
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(n: u8) -> RentRequest {
        RentRequest {
            id: Some(LeaseId([n; 16])),
            renter: Hotkey([1; 32]),
            miner: None,
            requirements: Requirements::any(1),
            duration: Duration::from_secs(5),
            image: "ubuntu".into(),
            ssh_key: "key".into(),
        }
    }

    #[tokio::test]
    async fn a_log_is_continued_where_it_ended_and_a_cut_line_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("renter.log");
        let (log, lines) = Log::open(&path).unwrap();
        assert_eq!(lines, []);
        let wanted = Line::wanted(&request(1), 5).unwrap();
        log.write(&wanted).await.unwrap();
        // Another renter in the same place writes its own.
        let (other, _) = Log::open(&path).unwrap();
        other.write(&Line::wanted(&request(2), 6).unwrap()).await.unwrap();
        drop((log, other));
        assert_eq!(read(&dir.path().join("renter-1.log")).unwrap()[0].lease(), LeaseId([2; 16]));

        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":\"ren").unwrap();
        assert_eq!(read(&path).unwrap(), std::slice::from_ref(&wanted));
        let (log, lines) = Log::open(&path).unwrap();
        assert_eq!(lines, std::slice::from_ref(&wanted));
        let refused = Line::Refused { at_ms: 7, lease: LeaseId([1; 16]), error: "no".into() };
        log.write(&refused).await.unwrap();
        assert_eq!(read(&path).unwrap(), [wanted, refused]);
    }

    #[test]
    fn what_is_open_follows_from_the_lines() {
        let (lease, renter) = (LeaseId([1; 16]), Hotkey([1; 32]));
        let wanted = Line::wanted(&request(1), 5).unwrap();
        let not = Line::NotRented { at_ms: 6, lease, error: "none free".into() };
        let rented = Line::Rented { at_ms: 7, lease, miner: Hotkey([2; 32]), devices: vec![], fencing_epoch: 1 };
        let released = Line::Released { at_ms: 8, lease, state: LeaseState::Released, end: Some(EndReason::Returned) };
        let lines = [wanted, not, rented, released];
        // The same wish to the last field, or the validator would take it for another.
        assert_eq!(open_after(&lines[..2], renter), Some(Open::Wanted(request(1))));
        assert_eq!(open_after(&lines[..3], renter), Some(Open::Rented { lease, since_ms: 7 }));
        assert_eq!(open_after(&lines, renter), None);
    }
}
