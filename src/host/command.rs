//! Runs a program of the system: a list of arguments, no shell, a deadline, a bound on what it may say.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Where programs are looked for: an administrator's directories too, which an ordinary user's `PATH` leaves out.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What is read of a program's output at most, in bytes; a longer one is an error.
const MAX_OUTPUT: u64 = 4 << 20;
/// What is kept of a program's complaints, in bytes.
const MAX_COMPLAINT: usize = 600;

/// Why a program did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It is not installed.
    #[error("{program} is not installed")]
    Missing {
        /// The program's name.
        program: String,
    },
    /// It could not be started or spoken to.
    #[error("running {program}")]
    Io {
        /// The program's name.
        program: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed: {said}")]
    Failed {
        /// The program's name, and its first argument.
        program: String,
        /// What it complained of, or how it ended.
        said: String,
    },
    /// It was still running at the deadline, and was ended.
    #[error("{program} did not end within {limit:?}")]
    Deadline {
        /// The program's name.
        program: String,
        /// The deadline.
        limit: Duration,
    },
    /// It said more than anybody wants to read.
    #[error("{program} wrote more than {MAX_OUTPUT} bytes")]
    TooMuch {
        /// The program's name.
        program: String,
    },
}

impl CommandError {
    /// Whether the program is not there at all.
    pub fn is_missing(&self) -> bool {
        matches!(self, CommandError::Missing { .. })
    }
}

/// Runs `program` with these arguments, gives it `input`, and returns what it wrote. It is ended at `limit`, and when the caller no
/// longer waits.
///
/// # Errors
/// See [`CommandError`]; a program that ended with another status than 0 failed.
pub async fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: &[A],
    input: &str,
    limit: Duration,
) -> Result<String, CommandError> {
    let name = || program.to_owned();
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => CommandError::Missing { program: name() },
            _ => CommandError::Io { program: name(), source },
        })?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let wrote = async {
        if let Some(mut pipe) = stdin.take() {
            // A program that ends without reading says why in its status.
            let _ = pipe.write_all(input.as_bytes()).await;
        }
    };
    let all = async {
        let (out, complaint, ()) = tokio::join!(read(stdout), read(stderr), wrote);
        Ok::<_, std::io::Error>((out?, complaint?, child.wait().await?))
    };
    let (out, complaint, status) = tokio::time::timeout(limit, all)
        .await
        .map_err(|_| CommandError::Deadline { program: name(), limit })?
        .map_err(|source| CommandError::Io { program: name(), source })?;
    if !status.success() {
        let first = arguments.first().map(|a| format!(" {}", a.as_ref().to_string_lossy())).unwrap_or_default();
        let said = match complaint.trim() {
            "" => status.to_string(),
            text => shortened(text),
        };
        return Err(CommandError::Failed { program: format!("{program}{first}"), said });
    }
    if out.len() as u64 > MAX_OUTPUT {
        return Err(CommandError::TooMuch { program: name() });
    }
    Ok(out)
}

/// What a pipe says, one byte more than is allowed at most.
async fn read(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MAX_OUTPUT + 1).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One line of a complaint, without control characters.
fn shortened(text: &str) -> String {
    let line: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    line.join("; ").chars().filter(|c| !c.is_control()).take(MAX_COMPLAINT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_program_gets_its_input_and_its_output_is_returned() {
        assert_eq!(run::<&str>("cat", &[], "a $(b) 'c'\n", LIMIT).await.unwrap(), "a $(b) 'c'\n");
        assert_eq!(run("printf", &["%s", "$HOME; `id`"], "", LIMIT).await.unwrap(), "$HOME; `id`", "no shell reads it");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_named() {
        let missing = run::<&str>("no-such-program-here", &[], "", LIMIT).await.unwrap_err();
        assert!(missing.is_missing());
        let failed = run("cat", &["/no/such/file"], "", LIMIT).await.unwrap_err();
        assert_eq!(failed.to_string(), "cat /no/such/file failed: cat: /no/such/file: No such file or directory");
        let late = run("sleep", &["60"], "", Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(late.to_string(), "sleep did not end within 50ms");
        let much = run("head", &["-c", "5000000", "/dev/zero"], "", LIMIT).await.unwrap_err();
        assert!(matches!(much, CommandError::TooMuch { .. } | CommandError::Failed { .. }), "{much}");
    }
}
