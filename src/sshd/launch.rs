//! What starts a session's program: this same program in a process of its own, which sets that process up and becomes the program.
//!
//! Between a fork and the program's start only a program of its own may do more than a handful of calls. It is hidden behind
//! `compute-sshd launch`.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Where the kernel keeps how likely a process is to be ended when memory runs out: −1000 (never) to 1000.
const OOM: &str = "/proc/self/oom_score_adj";
/// The server's: ending it would end the container.
const OOM_OF_SERVER: &str = "-900";

/// How the server starts programs.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// This program.
    own: PathBuf,
    /// What programs get back of the server's place among those that are ended when memory runs out.
    oom: Option<String>,
}

impl Launcher {
    /// Makes the server one of the last to be ended when memory runs out, if that is allowed. Blocks.
    pub fn prepare() -> Self {
        let link = Path::new("/proc/self/exe");
        // A link that holds even if the file is replaced; without /proc the name it was started by.
        let own = if link.exists() { link.into() } else { std::env::args_os().next().unwrap_or_default().into() };
        let before = std::fs::read_to_string(OOM).ok().map(|text| text.trim().to_owned());
        let lowered = std::fs::write(OOM, OOM_OF_SERVER).is_ok();
        Self { own, oom: before.filter(|_| lowered) }
    }

    /// The command that starts a program, in a session of its own, with `name` as what it is called.
    pub fn command(&self, program: &OsStr, name: &OsStr, arguments: &[OsString]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.own);
        command.arg("launch").arg(format!("--oom={}", self.oom.as_deref().unwrap_or_default()));
        command.arg("--").arg(program).arg(name).args(arguments);
        command
    }
}

/// Becomes the program. Returns only if that cannot be, having said why on stderr, with a shell's exit codes: 127 if there
/// is no such program, else 126.
pub fn become_program(oom: &str, home: &Path, program: &OsStr, name: &OsStr, arguments: &[OsString]) -> ExitCode {
    // Of a terminal's program it is done already.
    let _ = rustix::process::setsid();
    if !oom.is_empty() {
        let _ = std::fs::write(OOM, oom);
    }
    // An image may name a home that is not there.
    let _ = std::env::set_current_dir(home).or_else(|_| std::env::set_current_dir("/"));
    let error = Command::new(program).arg0(name).args(arguments).exec();
    let _ = writeln!(std::io::stderr(), "{}: {error}", program.display());
    ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}
