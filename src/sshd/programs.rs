//! The programs of all sessions in one list, which is the server's: when it ends, it tells each of them itself, whatever became
//! of the connections.
//!
//! Whoever sees to a program waits for it to its end, also when its client is gone. So none is left dead and unreaped, and a
//! number in the list is that program's and no other's: it is taken off the list in the same step in which it is reaped.

use std::collections::HashMap;
use std::future::poll_fn;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::Notify;

use super::log;

/// How long programs may take to end in order when the server does. Engines kill the whole container after ten seconds.
const GRACE: Duration = Duration::from_secs(3);
/// How long those that are killed are waited for then.
const KILLED: Duration = Duration::from_secs(1);

/// The programs that run.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    list: Mutex<List>,
    /// Told when one has ended.
    fewer: Notify,
}

#[derive(Debug, Default)]
struct List {
    /// By their number, which is their group's too, once they have one; and whether they were hung up.
    running: HashMap<Pid, bool>,
    /// No more are started.
    closed: bool,
}

impl Programs {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a program with `spawn`. It is to become the first of a group of its own.
    ///
    /// # Errors
    ///
    /// It cannot be started, or the server is ending.
    pub(crate) fn start(self: &Arc<Self>, spawn: impl FnOnce() -> Result<Child, String>) -> Result<Program, String> {
        // Held until it is on the list: the end must not come between.
        let mut list = self.list();
        if list.closed {
            return Err("the container is ending".into());
        }
        let child = spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or("it has no number")?;
        list.running.insert(pid, false);
        drop(list);
        Ok(Program { child, pid, status: None, programs: self.clone() })
    }

    /// Hangs all programs up, kills those that do not end by that, and returns when all have ended, or cannot be ended. None can
    /// be started any more.
    pub(crate) async fn end(&self) {
        {
            let mut list = self.list();
            list.closed = true;
            for (pid, told) in &mut list.running {
                hang_up(*pid, told);
            }
        }
        if tokio::time::timeout(GRACE, self.none_left()).await.is_ok() {
            return;
        }
        {
            let list = self.list();
            log::say(format_args!("killing {} programs that did not end when they were hung up", list.running.len()));
            for pid in list.running.keys() {
                send(*pid, Signal::KILL);
            }
        }
        if tokio::time::timeout(KILLED, self.none_left()).await.is_err() {
            log::say(format_args!("{} programs cannot be killed", self.list().running.len()));
        }
    }

    async fn none_left(&self) {
        loop {
            let fewer = self.fewer.notified();
            if self.list().running.is_empty() {
                return;
            }
            fewer.await;
        }
    }
}

/// A program that was started. It is to be waited for with [`Program::ended`].
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    pid: Pid,
    /// How it ended, once it has.
    status: Option<ExitStatus>,
    programs: Arc<Programs>,
}

impl Program {
    /// Its input, output and errors, if they are pipes. They are there once.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout, ChildStderr)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?, self.child.stderr.take()?))
    }

    /// How it ended, once it has. May be dropped and called again.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        if let Some(status) = self.status {
            return status;
        }
        let Self { child, pid, programs, .. } = self;
        let waited = {
            let mut waited = pin!(child.wait());
            poll_fn(|context| {
                // Here it is reaped: afterwards the number may be another's.
                let mut list = programs.list();
                let ended = waited.as_mut().poll(context);
                if ended.is_ready() {
                    list.running.remove(pid);
                    programs.fewer.notify_waiters();
                }
                ended
            })
            .await
        };
        // Nothing can be said of one that cannot be waited for.
        let status = waited.unwrap_or_else(|_| ExitStatus::from_raw(255 << 8));
        self.status = Some(status);
        status
    }

    /// Sends a signal to it and its group, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.status.is_none() {
            send(self.pid, signal);
        }
    }

    /// Tells it and its group, once, that its client is gone, unless it has ended.
    pub(crate) fn hang_up(&self) {
        if self.status.is_none()
            && let Some(told) = self.programs.list().running.get_mut(&self.pid)
        {
            hang_up(self.pid, told);
        }
    }
}

fn hang_up(pid: Pid, told: &mut bool) {
    if !std::mem::replace(told, true) {
        send(pid, Signal::HUP);
        // One that is stopped sees the first only when it goes on.
        send(pid, Signal::CONT);
    }
}

fn send(pid: Pid, signal: Signal) {
    // Right after its start it may not have a group yet: then it is alone.
    if kill_process_group(pid, signal).is_err() {
        let _ = kill_process(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncReadExt;
    use tokio::process::Command;

    use super::*;

    /// A shell's program that has said that it is ready, and its outputs: a shell tells of what a signal ended, and would end itself where
    /// nobody can hear it.
    async fn ready(programs: &Arc<Programs>, lines: &str) -> (Program, (ChildStdout, ChildStderr)) {
        // As in the server: whoever runs the tests may ignore it.
        let _hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", lines]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = programs.start(|| command.process_group(0).spawn().map_err(|e| e.to_string()));
        let mut program = started.unwrap();
        let (_, mut stdout, stderr) = program.pipes().unwrap();
        stdout.read_exact(&mut [0; 6]).await.unwrap();
        (program, (stdout, stderr))
    }

    /// Ends the server while its programs are waited for.
    async fn end(programs: &Programs, program: &mut Program) -> ExitStatus {
        tokio::join!(programs.end(), program.ended()).1
    }

    #[tokio::test]
    async fn the_end_hangs_programs_up_and_waits_for_them() {
        let programs = Arc::new(Programs::default());
        let (mut program, _outputs) = ready(&programs, "echo ready; exec sleep 1000").await;
        assert_eq!(end(&programs, &mut program).await.signal(), Some(Signal::HUP.as_raw()));
        assert!(programs.list().running.is_empty());
    }

    #[tokio::test]
    async fn one_that_is_stopped_is_hung_up_too() {
        let programs = Arc::new(Programs::default());
        let (mut program, _outputs) = ready(&programs, "echo ready; exec sleep 1000").await;
        program.signal(Signal::STOP);
        assert_eq!(end(&programs, &mut program).await.signal(), Some(Signal::HUP.as_raw()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_end_when_it_is_hung_up_is_killed() {
        let programs = Arc::new(Programs::default());
        let (mut program, _outputs) = ready(&programs, "trap '' HUP; echo ready; exec sleep 1000").await;
        assert_eq!(end(&programs, &mut program).await.signal(), Some(Signal::KILL.as_raw()));
    }

    #[tokio::test]
    async fn one_is_hung_up_once_whoever_tells_it() {
        let programs = Arc::new(Programs::default());
        let lines = "trap 'n=$((n+1))' HUP; echo ready; for i in 1 2 3 4 5; do sleep 0.1; done; exit $n";
        let (mut program, _outputs) = ready(&programs, lines).await;
        program.hang_up();
        tokio::time::sleep(Duration::from_millis(200)).await;
        program.hang_up();
        assert_eq!(end(&programs, &mut program).await.code(), Some(1));
    }

    #[tokio::test]
    async fn after_the_end_nothing_is_started() {
        let programs = Arc::new(Programs::default());
        programs.end().await;
        assert!(programs.start(|| unreachable!("it is started")).unwrap_err().contains("ending"));
    }
}
