//! A Python driver with an SDK: one job a line, one answer a line.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::wait::LONG;

/// What the driver and its SDK say beside their answers, in its home.
const SAID: &str = "stderr";

/// A driver's process. It is killed when this is dropped.
pub(crate) struct Driver {
    name: String,
    _child: Child,
    jobs: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    home: tempfile::TempDir,
}

impl Driver {
    /// Starts `script` with the SDK of this version. Importing the SDK takes seconds, which the first answer includes.
    pub(crate) fn start(version: &str, script: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let sdks = std::env::var_os("COMPUTE_TEST_PYTHON").map_or_else(|| root.join("target/python"), PathBuf::from);
        let python = sdks.join(version).join("bin/python");
        assert!(python.exists(), "{} is missing: run scripts/python-sdks", python.display());
        // The SDK writes to its user's home.
        let home = tempfile::tempdir().unwrap();
        let mut child = Command::new(python)
            .arg(root.join("tests/interop").join(script))
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("BT_NO_PARSE_CLI_ARGS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(home.path().join(SAID)).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (jobs, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let answers = BufReader::new(answers).lines();
        Driver { name: format!("{script} of {version}"), _child: child, jobs, answers, home }
    }

    /// The answer to a job. A job that raises in Python fails the test.
    pub(crate) async fn ask(&mut self, job: Value) -> Value {
        let talk = async {
            self.jobs.write_all(format!("{job}\n").as_bytes()).await.unwrap();
            self.answers.next_line().await.unwrap()
        };
        let line = timeout(LONG, talk).await.ok().flatten();
        let line = line.unwrap_or_else(|| panic!("{} gives no answer to {job}:\n{}", self.name, self.said()));
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.name));
        assert!(answer.get("raised").is_none(), "{}: {answer} at {job}:\n{}", self.name, self.said());
        answer
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.home.path().join(SAID)).unwrap_or_default()
    }
}
