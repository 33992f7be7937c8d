//! The miner's journal as the kernel sees it: strace beside the miner counts what it writes and syncs of its database, and can
//! end it with SIGKILL at the entry of one of these calls, before the kernel has done anything of it. No hook in the miner is
//! needed. What was written and not synced survives the end of a process: a loss of power is not shown here.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, SystemTime};

use compute_subnet::store::DATABASE_FILE;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::proxy::Call;

/// The calls that change what is on disk or make it last.
const CALLS: &str = "pwrite64,fdatasync,fsync,ftruncate";

/// How long strace may take to detach.
const DETACHES: Duration = Duration::from_secs(5);

/// strace at the miner, until its end.
pub(crate) struct Trace {
    child: Child,
    file: PathBuf,
    /// Kept open: what it says there must not end it.
    _said: BufReader<ChildStderr>,
}

/// What was seen.
pub(crate) struct Traced {
    pub(crate) calls: Vec<Call>,
    /// When the miner was ended.
    pub(crate) struck: Option<SystemTime>,
}

impl Trace {
    /// Attaches it to every thread of the miner, and to those to come.
    pub(crate) fn attach(miner: Pid, data: &Path, strike: Option<&Call>) -> Self {
        let file = data.with_extension("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-ttt", "-e", "signal=none", "-e", &format!("trace={CALLS}"), "-o"]).arg(&file);
        for path in [DATABASE_FILE.to_owned(), format!("{DATABASE_FILE}-wal")] {
            command.arg("-P").arg(data.join(path));
        }
        if let Some(Call { form, nth }) = strike {
            command.args(["-e", &format!("inject={form}:signal=SIGKILL:when={nth}")]);
        }
        command.args(["-p", &miner.as_raw_nonzero().to_string()]).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("strace: install it");
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(" attached") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "strace does not attach to the miner");
        }
        Trace { child, file, _said: said }
    }

    /// Detaches it, if the miner did not end it.
    #[expect(clippy::disallowed_methods, reason = "it waits for another process, on no actor's thread")]
    pub(crate) fn end(mut self) -> Traced {
        if self.child.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        }
        // It may wait for ever for a thread of a miner that has ended.
        let until = Instant::now() + DETACHES;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        self.child.wait().unwrap();
        let text = std::fs::read_to_string(&self.file).unwrap();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut calls = Vec::new();
        let mut struck = None;
        for line in text.lines() {
            let Some((_thread, line)) = line.trim_start().split_once(' ') else { continue };
            let Some((at, rest)) = line.trim_start().split_once(' ') else { continue };
            // A call that never returned.
            if rest.trim_end().ends_with("= ?") {
                let since = Duration::from_secs_f64(at.parse().unwrap());
                struck = Some(SystemTime::UNIX_EPOCH + since);
            }
            let Some((name, _)) = rest.split_once('(').filter(|(name, _)| CALLS.split(',').any(|c| c == *name)) else {
                continue;
            };
            let nth = counts.entry(name).or_default();
            *nth += 1;
            calls.push(Call { form: name.to_owned(), nth: *nth });
        }
        Traced { calls, struck }
    }
}
