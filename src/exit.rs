//! The exit codes of the binaries, after `sysexits.h` where it has a name for the case.

/// How a program ended. `README.md` documents the numbers; service managers may rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Ended in order.
    Ok = 0,
    /// A selftest found that the machine would not pass, or the doctor that rentals cannot run on it.
    WouldNotPass = 1,
    /// Wrong command line (`EX_USAGE`).
    Usage = 64,
    /// A file's content cannot be used, a database of a newer version for example (`EX_DATAERR`).
    Data = 65,
    /// A resource cannot be had, a port in use or no chain for example (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// An actor failed too often, the node drained and gave up (`EX_SOFTWARE`).
    Escalated = 70,
    /// An actor's thread is blocked for good; only a new process helps (`EX_OSERR`).
    Wedged = 71,
    /// A file or directory cannot be made (`EX_CANTCREAT`).
    CannotCreate = 73,
    /// Ended when asked to, but not all work that was under way was finished within `supervision.shutdown_timeout`
    /// (`EX_TEMPFAIL`).
    Unfinished = 75,
    /// Wrong configuration (`EX_CONFIG`).
    Config = 78,
    /// A second signal ended the program at once (128 + SIGINT).
    Interrupted = 130,
}

impl Exit {
    /// The number the process ends with.
    pub fn code(self) -> i32 {
        self as u8 as i32
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}
