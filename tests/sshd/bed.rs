//! A server in a directory of its own, and clients for it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::wait::until;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Longer takes nothing here unless something is wrong, in seconds.
const LIMIT: &str = "60";

/// The program, built once.
pub(crate) fn program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = Command::new(Path::new(ROOT).join("scripts/sshd")).status().unwrap();
        assert!(built.success(), "scripts/sshd ends with {built}");
        Path::new(ROOT).join("target/sshd/compute-sshd")
    })
}

/// Copies a program that is to be run. Another process does it: what is open here to be written, a program that another test
/// starts may hold open for a moment, and so long it cannot be run.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status().unwrap();
    assert!(copied.success(), "{}: {copied}", to.display());
}

/// Makes a key without a passphrase; its public half is beside it.
pub(crate) fn key(path: &Path, kind: &[&str]) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "a comment", "-t"])
        .args(kind)
        .arg("-f")
        .arg(path)
        .status();
    assert!(made.unwrap().success(), "ssh-keygen {kind:?}");
}

pub(crate) struct Bed {
    pub(crate) dir: TempDir,
    pub(crate) server: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

impl Bed {
    /// A server that lets the key `user` in.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self::prepare(dir.path());
        Self::launch(dir, &[], |path| path.to_owned())
    }

    /// Puts the server with its files into a directory, and the key `user` beside them.
    pub(crate) fn prepare(dir: &Path) {
        let compute = dir.join(".compute");
        fs::create_dir(&compute).unwrap();
        copy_program(program(), &compute.join("sshd"));
        key(&compute.join("host_key"), &["ed25519"]);
        fs::create_dir(dir.join("keys")).unwrap();
        key(&dir.join("keys/user"), &["ed25519"]);
        fs::copy(dir.join("keys/user.pub"), compute.join("user_key")).unwrap();
    }

    /// Starts it, by another program if `prefix` names one with its arguments, which sees the directory elsewhere.
    pub(crate) fn launch(dir: TempDir, prefix: &[&str], seen: impl Fn(&Path) -> PathBuf) -> Self {
        let compute = seen(&dir.path().join(".compute"));
        let own = compute.join("sshd").display().to_string();
        let words: Vec<&str> = prefix.iter().copied().chain([own.as_str()]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg("--dir").arg(&compute).args(["--listen", "127.0.0.1:0"]);
        // What an image might set.
        command.env("OF_THE_IMAGE", "yes").env("SSH_AUTH_SOCK", "/nowhere");
        let mut server = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        let address = first.split(' ').nth(3).and_then(|word| word.trim_end_matches(',').parse().ok());
        let address: SocketAddr = address.unwrap_or_else(|| panic!("{first}"));
        let log = Arc::new(Mutex::new(first));
        let written = log.clone();
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                written.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let host = fs::read_to_string(dir.path().join(".compute/host_key.pub")).unwrap();
        fs::write(dir.path().join("known_hosts"), format!("[127.0.0.1]:{} {host}", address.port())).unwrap();
        Self { dir, server, address, log }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// One of OpenSSH's clients, which checks the host's key, reads nobody's settings, and logs in with this key of `keys`.
    pub(crate) fn client_with(&self, name: &str, key: &str) -> Command {
        let mut command = self.client_without_a_login(name);
        command.arg("-i").arg(self.path("keys").join(key)).args(["-o", "PasswordAuthentication=no"]);
        command
    }

    /// The same with the key `user`.
    pub(crate) fn client(&self, name: &str) -> Command {
        self.client_with(name, "user")
    }

    /// The same that has yet to be told how to log in.
    pub(crate) fn client_without_a_login(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        let port = if name == "ssh" { "-p" } else { "-P" };
        command.args(["-k", "2", LIMIT, name, "-F", "none", port, &self.address.port().to_string()]);
        for option in ["StrictHostKeyChecking=yes", "IdentitiesOnly=yes", "IdentityAgent=none", "LogLevel=ERROR"] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("UserKnownHostsFile={}", self.path("known_hosts").display()));
        command.stdin(Stdio::null());
        command
    }

    /// `ssh` with options before the host.
    pub(crate) fn ssh_with(&self, options: &[&str], command: &str) -> Command {
        let mut ssh = self.client("ssh");
        ssh.args(options).args(["root@127.0.0.1", command]);
        ssh
    }

    /// Runs a command.
    pub(crate) fn ssh(&self, command: &str) -> Output {
        self.ssh_with(&[], command).output().unwrap()
    }

    /// What a command prints.
    #[track_caller]
    pub(crate) fn prints(&self, command: &str) -> String {
        let done = self.ssh(command);
        assert!(done.status.success(), "{command}: {done:?}\n{}", self.log());
        assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{command}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// Runs lines of `sftp`.
    pub(crate) fn sftp(&self, lines: &str) -> Output {
        let mut sftp = self.client("sftp");
        sftp.args(["-b", "-", "root@127.0.0.1"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut sftp = sftp.spawn().unwrap();
        sftp.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        sftp.wait_with_output().unwrap()
    }

    /// A connection that says nothing.
    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// A line of the server's `/proc/PID/status`, in the units of that file.
    pub(crate) fn status(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').split_ascii_whitespace().next().unwrap().parse().unwrap()
    }

    /// The server's resident memory, in MiB.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS") >> 10
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.server.id() as i32).unwrap(), signal).unwrap();
    }

    /// Waits until a file has been written to.
    pub(crate) async fn written(&self, name: &str) -> String {
        until(name, async || fs::read_to_string(self.path(name)).ok().filter(|text| !text.is_empty())).await
    }
}

/// Names something that cannot be tested here, for the table of `scripts/test`.
pub(crate) fn left_out(what: &str) {
    println!("LEFT OUT: {what}");
    if let Some(path) = std::env::var_os("COMPUTE_TEST_LEFT_OUT") {
        let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{what}").unwrap();
    }
}

/// Bytes that are the same each time and compress badly.
pub(crate) fn bytes(length: usize) -> Vec<u8> {
    let mut all = vec![0; length];
    blake3::Hasher::new().update(b"bytes of tests").finalize_xof().fill(&mut all);
    all
}
