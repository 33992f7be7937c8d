//! Ends the processes of a container past its engine, found by their control group: a tenant cannot leave it, and it names the container
//! also when the engine was killed and has forgotten it.
//!
//! A process is taken hold of by a `pidfd` before it is looked at for the last time, so that nothing else ends whose number the kernel gave
//! away meanwhile. It is over when two looks in a row find none: whoever was forked behind the back of one is seen by the next.
//!
//! A miner that does not see the engine's processes (another host, another namespace, `hidepid`) finds none, and leaves them to the engine.

mod told;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

pub use told::ContainerId;
use told::{Life, freezer, is_in, life};

/// Where the kernel tells of processes.
const PROC: &str = "/proc";
/// Where the freezer of the first version of control groups is mounted.
const FREEZER: &str = "/sys/fs/cgroup/freezer";
/// How long one look may take.
const LOOK: Duration = Duration::from_secs(10);
/// Time from a look that found some to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Looks in a row that must find none.
const QUIET: usize = 2;
/// How many processes an error names.
const NAMED: usize = 8;

/// Why processes of a container may be left.
#[derive(Debug, thiserror::Error)]
pub enum ProcessesError {
    /// They were told to end, and some have not.
    #[error("{left} processes of container {id} have not ended within {limit:?}: {pids}")]
    Left {
        /// Whose.
        id: ContainerId,
        /// How many.
        left: usize,
        /// Some of them.
        pids: String,
        /// The deadline.
        limit: Duration,
    },
    /// They belong to somebody else.
    #[error(
        "{left} processes of container {id} run on, and this miner may not end them: run it as root, or end them as root with: kill -9 {pids}"
    )]
    Denied {
        /// Whose.
        id: ContainerId,
        /// How many.
        left: usize,
        /// Some of them.
        pids: String,
    },
    /// The system does not let one look.
    #[error("looking for the processes of container {id}")]
    Io {
        /// Whose.
        id: ContainerId,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Ends every process of a container with SIGKILL, and waits until none is left; how many there were.
///
/// # Errors
/// See [`ProcessesError`]; a repeat goes on where it stopped.
pub async fn end(id: &ContainerId, limit: Duration) -> Result<usize, ProcessesError> {
    end_in(Path::new(PROC), id, limit).await
}

async fn end_in(proc: &Path, id: &ContainerId, limit: Duration) -> Result<usize, ProcessesError> {
    let begun = Instant::now();
    let (mut ended, mut quiet) = (BTreeSet::new(), 0);
    loop {
        let look = looked(proc.to_owned(), id.clone()).await;
        let look = look.map_err(|source| ProcessesError::Io { id: id.clone(), source })?;
        if look.found.is_empty() {
            quiet += 1;
            if quiet == QUIET {
                return Ok(ended.len());
            }
            continue;
        }
        quiet = 0;
        if begun.elapsed() >= limit {
            let pids: Vec<String> = look.found.iter().take(NAMED).map(ToString::to_string).collect();
            let (id, left, pids) = (id.clone(), look.found.len(), pids.join(" "));
            return Err(match look.denied {
                true => ProcessesError::Denied { id, left, pids },
                false => ProcessesError::Left { id, left, pids, limit },
            });
        }
        ended.extend(look.found);
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A look beside the actors' threads.
async fn looked(proc: PathBuf, id: ContainerId) -> io::Result<Look> {
    let look = tokio::task::spawn_blocking(move || strike(&proc, &id));
    match tokio::time::timeout(LOOK, look).await {
        Ok(looked) => looked.unwrap_or_else(|ended| Err(io::Error::other(ended))),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("/proc does not answer within {LOOK:?}"))),
    }
}

/// What one look found.
#[derive(Debug, Default)]
struct Look {
    /// The processes that had not ended.
    found: Vec<i32>,
    /// Some of them may not be ended by this user.
    denied: bool,
}

/// Looks at all processes, and tells those of the container to end.
fn strike(proc: &Path, id: &ContainerId) -> io::Result<Look> {
    let mut look = Look::default();
    let mut frozen = None;
    for entry in std::fs::read_dir(proc)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        let Some(pid) = number.filter(|number| *number > 0).and_then(Pid::from_raw) else { continue };
        let Some(cgroup) = member(proc, pid, id)? else { continue };
        match kill(proc, pid, id)? {
            Struck::Gone => continue,
            Struck::Told => {}
            Struck::Denied => look.denied = true,
        }
        look.found.push(pid.as_raw_nonzero().get());
        frozen = frozen.or_else(|| freezer(&cgroup, id).map(|path| format!("{FREEZER}{path}/freezer.state")));
    }
    if let Some(state) = frozen {
        // What is frozen there ends only once it thaws; where it cannot be thawed it is left, which is told.
        let _ = std::fs::write(state, "THAWED");
    }
    Ok(look)
}

/// What became of a signal.
enum Struck {
    /// The kernel has it.
    Told,
    /// The process is gone, or its number is another one's now.
    Gone,
    /// The process is another user's.
    Denied,
}

fn kill(proc: &Path, pid: Pid, id: &ContainerId) -> io::Result<Struck> {
    let struck = |error: Errno| match error {
        Errno::SRCH => Ok(Struck::Gone),
        Errno::PERM | Errno::ACCESS => Ok(Struck::Denied),
        other => Err(other.into()),
    };
    let held = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(held) => held,
        Err(error) => return struck(error),
    };
    // From here on the number is this process's own, or nobody's.
    if member(proc, pid, id)?.is_none() {
        return Ok(Struck::Gone);
    }
    pidfd_send_signal(&held, Signal::KILL).map_or_else(struck, |()| Ok(Struck::Told))
}

/// The control groups of a process of the container that has not ended; `None` for any other.
fn member(proc: &Path, pid: Pid, id: &ContainerId) -> io::Result<Option<String>> {
    let at = proc.join(pid.as_raw_nonzero().to_string());
    let Some(stat) = read(&at.join("stat"))? else { return Ok(None) };
    let cgroup = match life(&stat) {
        Life::Ended => None,
        Life::Runs => read(&at.join("cgroup"))?.filter(|cgroup| is_in(cgroup, id)),
        // Of a thread that ended the first version tells no groups.
        Life::Headless => of_threads(&at.join("task"), id)?,
    };
    Ok(cgroup)
}

fn of_threads(tasks: &Path, id: &ContainerId) -> io::Result<Option<String>> {
    let threads = match std::fs::read_dir(tasks) {
        Ok(threads) => threads,
        Err(error) if is_not_shown(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    for thread in threads {
        let cgroup = match thread {
            Ok(thread) => read(&thread.path().join("cgroup"))?,
            Err(error) if is_not_shown(&error) => None,
            Err(error) => return Err(error),
        };
        if let Some(cgroup) = cgroup.filter(|cgroup| is_in(cgroup, id)) {
            return Ok(Some(cgroup));
        }
    }
    Ok(None)
}

/// What a file of a process says; `None` when it is gone, or not shown to this user.
fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read(path) {
        // Names are bytes.
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_not_shown(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_not_shown(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A process whose name in the table of processes is this, until the end of the test.
    struct Process(Child);

    impl Process {
        fn named(name: &str) -> Process {
            let mut command = Command::new("sleep");
            std::os::unix::process::CommandExt::arg0(&mut command, name);
            Process(command.arg("600").stdin(Stdio::null()).spawn().unwrap())
        }
        fn pid(&self) -> u32 {
            self.0.id()
        }
        fn runs(&mut self) -> bool {
            self.0.try_wait().unwrap().is_none()
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Tells of a process what the kernel tells, but that it is in this group.
    fn tell(proc: &Path, pid: u32, group: &str) {
        let at = proc.join(pid.to_string());
        std::fs::create_dir(&at).unwrap();
        std::os::unix::fs::symlink(format!("/proc/{pid}/stat"), at.join("stat")).unwrap();
        std::fs::write(at.join("cgroup"), format!("4:memory:{group}\n0::/\n")).unwrap();
    }

    #[tokio::test]
    async fn every_process_of_the_container_is_ended_and_no_other() {
        let proc = tempfile::tempdir().unwrap();
        let mut own = [Process::named("sshd"), Process::named("its child")];
        // The names of programs are the tenants' to choose.
        let mut others = [Process::named(ID), Process::named(&format!("0::/docker/{ID}"))];
        tell(proc.path(), own[0].pid(), &format!("/docker/{ID}"));
        tell(proc.path(), own[1].pid(), &format!("/docker/{ID}/below"));
        for other in &others {
            tell(proc.path(), other.pid(), &format!("/docker/{}", ID.replace('0', "1")));
        }
        let ended = end_in(proc.path(), &ID.parse().unwrap(), Duration::from_secs(20)).await.unwrap();
        assert_eq!(ended, 2);
        assert!(own.iter_mut().all(|process| !process.runs()));
        assert!(others.iter_mut().all(Process::runs));
        assert_eq!(end_in(proc.path(), &ID.parse().unwrap(), Duration::ZERO).await.unwrap(), 0, "none is left");
    }

    #[tokio::test]
    async fn one_that_does_not_end_in_time_is_counted_and_named() {
        let proc = tempfile::tempdir().unwrap();
        let own = Process::named("stuck");
        tell(proc.path(), own.pid(), &format!("/system.slice/docker-{ID}.scope"));
        // What the kernel told of it before it was ended.
        let stat = proc.path().join(format!("{}/stat", own.pid()));
        let text = std::fs::read(&stat).unwrap();
        std::fs::remove_file(&stat).unwrap();
        std::fs::write(&stat, text).unwrap();
        let left = end_in(proc.path(), &ID.parse().unwrap(), Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(left, ProcessesError::Left { left: 1, .. }), "{left:?}");
        assert!(left.to_string().contains(&own.pid().to_string()), "{left}");
    }

    #[tokio::test]
    async fn where_no_process_is_seen_none_is_left() {
        let none = end(&ID.parse().unwrap(), Duration::ZERO).await.unwrap();
        assert_eq!(none, 0);
    }
}
