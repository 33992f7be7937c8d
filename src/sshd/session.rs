//! A session's program: from its start to its exit status.

use std::ffi::OsString;
use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use pty_process::{OwnedWritePty, Size};
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};
use tokio::sync::{mpsc, oneshot, watch};

use super::account::Account;
use super::connection::Shared;
use super::environment::{self, Login};
use super::inlet::{Outlet, feed};
use super::programs::Program;
use super::terminal::Terminal;
use super::{argv, log};

/// How much of a program's output is read at once, in bytes.
const READ: usize = 32 << 10;
/// How long a terminal may be silent after its program's end before it is closed, though other programs hold it still.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// How long what a program writes is read, and forgotten, when its client is gone.
const UNREAD: Duration = Duration::from_secs(10);

/// What a session is to run.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    /// A login shell.
    Shell,
    /// A command line.
    Command(Vec<u8>),
}

/// How a program is started for this account: the program, what it is called, its arguments.
///
/// # Errors
///
/// There is nothing that could run it: the image has no shell, and this is no plain command line.
fn program(wanted: &Wanted, account: &Account) -> Result<(OsString, OsString, Vec<OsString>), &'static str> {
    use std::os::unix::ffi::OsStringExt;
    match (wanted, &account.shell) {
        (Wanted::Shell, Some(shell)) => {
            let mut name = OsString::from("-");
            name.push(shell.file_name().unwrap_or(shell.as_os_str()));
            Ok((shell.into(), name, Vec::new()))
        }
        (Wanted::Command(line), Some(shell)) => {
            let name = shell.file_name().unwrap_or(shell.as_os_str());
            Ok((shell.into(), name.into(), vec!["-c".into(), OsString::from_vec(line.clone())]))
        }
        (Wanted::Shell, None) => {
            Err("the image has no shell: run its programs with a command line, or copy a shell into it")
        }
        (Wanted::Command(line), None) => {
            let line =
                std::str::from_utf8(line).map_err(|_| "the image has no shell, and the command line is no UTF-8")?;
            let words = argv::split(line)
                .ok_or("the image has no shell, and the command line has no words or an open quote")?;
            let mut words = words.into_iter().map(OsString::from);
            let first = words.next().unwrap_or_default();
            Ok((first.clone(), first, words.collect()))
        }
    }
}

/// A program that runs.
pub(crate) struct Running {
    program: Program,
    terminal: Option<pty_process::Pty>,
}

/// Starts a program for a session. Blocks for as long as the kernel takes to start one.
///
/// # Errors
///
/// It cannot be started.
pub(crate) fn start(
    shared: &Shared,
    wanted: &Wanted,
    account: &Account,
    connection: &[String; 4],
    set: &[(String, String)],
    terminal: Option<Terminal>,
) -> Result<Running, String> {
    let (program, name, arguments) = program(wanted, account)?;
    let login =
        Login { account, connection, terminal: terminal.as_ref().map(|t| (t.kind.as_str(), t.path.as_path())), set };
    let mut command = shared.launcher.command(&program, &name, &arguments);
    command.env_clear().envs(environment::of(&login, std::env::vars_os()));
    match terminal {
        Some(Terminal { pty, pts, .. }) => {
            let command = pty_process::Command::from(command);
            let program = shared.programs.start(|| command.spawn(pts).map_err(|e| e.to_string()))?;
            Ok(Running { program, terminal: Some(pty) })
        }
        None => {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let program = shared.programs.start(|| command.spawn().map_err(|e| e.to_string()))?;
            Ok(Running { program, terminal: None })
        }
    }
}

/// Sees to a program until it has ended and its client has all of its output; to one whose client is gone until it has ended.
pub(crate) async fn attend(running: Running, outlet: Outlet, channel: ChannelWriteHalf<Msg>, handle: Handle) {
    let Running { mut program, terminal } = running;
    let Outlet { mut chunks, signals, size, gone } = outlet;
    let (has_ended, ended) = watch::channel(false);
    let (status, pipes) = if let Some(pty) = terminal {
        let (reader, writer) = pty.into_split();
        let input = typed(&mut chunks, writer, size);
        let output = copy(reader, &channel, None, Some(ended));
        (until_ended(&mut program, signals, gone, input, output, &has_ended).await, None)
    } else {
        let Some((stdin, mut stdout, mut stderr)) = program.pipes() else { return outlast(program, None).await };
        let input = feed(&mut chunks, stdin);
        let output = async {
            tokio::join!(copy(&mut stdout, &channel, None, None), copy(&mut stderr, &channel, Some(1), None));
        };
        (until_ended(&mut program, signals, gone, input, output, &has_ended).await, Some((stdout, stderr)))
    };
    if let Some(status) = status {
        return say_farewell(status, &channel, &handle).await;
    }
    // However long it goes on: what it did not take of what it was sent is not kept.
    drop((chunks, channel, handle));
    outlast(program, pipes).await;
}

/// Passes bytes and signals until the program has ended and its output is sent. `None`: the client is gone, and the program was
/// sent SIGHUP. Its terminal is closed.
async fn until_ended(
    program: &mut Program,
    mut signals: mpsc::Receiver<Signal>,
    gone: oneshot::Receiver<()>,
    input: impl Future<Output = ()>,
    output: impl Future<Output = ()>,
    has_ended: &watch::Sender<bool>,
) -> Option<ExitStatus> {
    let mut status: Option<ExitStatus> = None;
    let (mut fed, mut copied, mut heard) = (false, false, true);
    tokio::pin!(input, output, gone);
    while status.is_none() || !copied {
        tokio::select! {
            ended = program.ended(), if status.is_none() => {
                status = Some(ended);
                has_ended.send_replace(true);
            }
            () = &mut output, if !copied => copied = true,
            () = &mut input, if !fed => fed = true,
            wanted = signals.recv(), if heard => match wanted {
                Some(wanted) => program.signal(wanted),
                None => heard = false,
            },
            _ = &mut gone => {
                program.hang_up();
                return None;
            }
        }
    }
    status
}

/// Waits for a program whose client is gone. What it writes is read for a while: one that writes where nobody reads is ended
/// by that (SIGPIPE), in the middle of what it does when it is hung up.
async fn outlast(mut program: Program, pipes: Option<(ChildStdout, ChildStderr)>) {
    if let Some((stdout, stderr)) = pipes {
        let unread = async { tokio::join!(forget(stdout), forget(stderr)) };
        tokio::select! {
            _ = program.ended() => {}
            _ = tokio::time::timeout(UNREAD, unread) => {}
        }
    }
    program.ended().await;
}

async fn forget(mut from: impl AsyncRead + Unpin) {
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
}

/// Tells the client how the program ended, and closes the channel.
async fn say_farewell(status: ExitStatus, channel: &ChannelWriteHalf<Msg>, handle: &Handle) {
    match (status.code(), status.signal()) {
        (None, Some(number)) => {
            let name = signal_name(number);
            let _ = handle
                .exit_signal_request(channel.id(), name, status.core_dumped(), String::new(), String::new())
                .await;
        }
        (code, _) => {
            let _ = channel.exit_status(code.unwrap_or(255).cast_unsigned()).await;
        }
    }
    let _ = channel.eof().await;
    let _ = channel.close().await;
}

/// Tells a client why its program was not started: as its program's last words, for there is no other way.
pub(crate) async fn refuse(why: &str, channel: ChannelWriteHalf<Msg>) {
    log::say(format_args!("a session's program was not started: {why}"));
    let _ = channel.extended_data_bytes(1, format!("compute-sshd: {why}\n").into_bytes()).await;
    let _ = channel.exit_status(126).await;
    let _ = channel.eof().await;
    let _ = channel.close().await;
}

/// Sends what a program writes, no faster than the client takes it. With `ended` it stops some time after the program's end,
/// for a terminal that other programs hold on to.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    channel: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
    mut ended: Option<watch::Receiver<bool>>,
) {
    let mut buffer = vec![0; READ];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = silence(&mut ended) => return,
        };
        // A terminal that no program holds any more cannot be read (EIO): that is its end.
        let Ok(read @ 1..) = read else { return };
        let bytes = buffer[..read].to_vec();
        let sent = match stream {
            None => channel.data_bytes(bytes).await,
            Some(stream) => channel.extended_data_bytes(stream, bytes).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Ends when nothing more is expected after the program's end.
async fn silence(ended: &mut Option<watch::Receiver<bool>>) {
    if let Some(ended) = ended
        && ended.wait_for(|ended| *ended).await.is_ok()
    {
        tokio::time::sleep(LAST_WORDS).await;
    } else {
        std::future::pending::<()>().await;
    }
}

/// Types what the client sends at a terminal, and changes its size. The end of what it sends means nothing there: programs see
/// what is typed for the end.
async fn typed(
    chunks: &mut mpsc::UnboundedReceiver<super::inlet::Chunk>,
    writer: OwnedWritePty,
    mut size: watch::Receiver<Size>,
) {
    let mut writer = Typist { pty: writer, open: true };
    let mut sizes = true;
    loop {
        tokio::select! {
            chunk = chunks.recv() => match chunk {
                Some(chunk) => writer.write(&chunk, &mut size).await,
                None => return,
            },
            changed = size.changed(), if sizes => match changed {
                Ok(()) => writer.resize(&mut size),
                Err(_) => sizes = false,
            },
        }
    }
}

struct Typist {
    pty: OwnedWritePty,
    open: bool,
}

impl Typist {
    /// The size still changes while a program does not read what is typed.
    async fn write(&mut self, mut bytes: &[u8], size: &mut watch::Receiver<Size>) {
        use tokio::io::AsyncWriteExt;
        while self.open && !bytes.is_empty() {
            tokio::select! {
                written = self.pty.write(bytes) => match written {
                    Ok(written @ 1..) => bytes = &bytes[written..],
                    _ => self.open = false,
                },
                Ok(()) = size.changed() => { let to = *size.borrow_and_update(); let _ = self.pty.resize(to); }
            }
        }
    }

    fn resize(&self, size: &mut watch::Receiver<Size>) {
        let to = *size.borrow_and_update();
        let _ = self.pty.resize(to);
    }
}

/// The kernel's signal for a name of RFC 4254; `None` for one that it has not.
pub(crate) fn signal_of(name: &Sig) -> Option<Signal> {
    Some(match name {
        Sig::ABRT => Signal::ABORT,
        Sig::ALRM => Signal::ALARM,
        Sig::FPE => Signal::FPE,
        Sig::HUP => Signal::HUP,
        Sig::ILL => Signal::ILL,
        Sig::INT => Signal::INT,
        Sig::KILL => Signal::KILL,
        Sig::PIPE => Signal::PIPE,
        Sig::QUIT => Signal::QUIT,
        Sig::SEGV => Signal::SEGV,
        Sig::TERM => Signal::TERM,
        Sig::USR1 => Signal::USR1,
        Sig::Custom(name) if name == "USR2" => Signal::USR2,
        Sig::Custom(_) => return None,
    })
}

/// The name in RFC 4254 of what ended a program; `SIG` and its number, local to this server, where it has none.
fn signal_name(number: i32) -> Sig {
    match number {
        1 => Sig::HUP,
        2 => Sig::INT,
        3 => Sig::QUIT,
        4 => Sig::ILL,
        6 => Sig::ABRT,
        8 => Sig::FPE,
        9 => Sig::KILL,
        10 => Sig::USR1,
        11 => Sig::SEGV,
        12 => Sig::Custom("USR2".into()),
        13 => Sig::PIPE,
        14 => Sig::ALRM,
        15 => Sig::TERM,
        other => Sig::Custom(format!("SIG{other}@compute-sshd")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(shell: Option<&str>) -> Account {
        Account { name: "root".into(), home: "/root".into(), shell: shell.map(Into::into) }
    }

    fn words(wanted: &Wanted, shell: Option<&str>) -> Result<Vec<String>, &'static str> {
        let (program, name, arguments) = program(wanted, &account(shell))?;
        Ok([program, name].into_iter().chain(arguments).map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn a_shell_is_a_login_shell_and_a_command_is_the_shells() {
        assert_eq!(words(&Wanted::Shell, Some("/bin/bash")).unwrap(), ["/bin/bash", "-bash"]);
        let command = Wanted::Command(b"echo $HOME | wc".to_vec());
        assert_eq!(words(&command, Some("/bin/ash")).unwrap(), ["/bin/ash", "ash", "-c", "echo $HOME | wc"]);
    }

    #[test]
    fn without_a_shell_a_command_is_started_itself() {
        let command = Wanted::Command(b"/app 'a b' $X".to_vec());
        assert_eq!(words(&command, None).unwrap(), ["/app", "/app", "a b", "$X"]);
        assert!(words(&Wanted::Shell, None).unwrap_err().contains("no shell"));
        for line in [&b""[..], b"/app '", b"\xff"] {
            assert!(words(&Wanted::Command(line.to_vec()), None).unwrap_err().contains("no shell"));
        }
    }

    #[test]
    fn signals_keep_their_names_there_and_back() {
        for number in [1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15] {
            assert_eq!(signal_of(&signal_name(number)).unwrap().as_raw(), number);
        }
        assert_eq!(signal_of(&Sig::Custom("STOP".into())), None);
    }
}
