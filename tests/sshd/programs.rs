//! Programs of sessions: their bytes, their end, and what they find.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use sha2::{Digest, Sha256};

use crate::bed::{Bed, bytes};
use crate::wait::until;

#[test]
fn a_command_has_its_output_its_errors_and_its_exit_status() {
    let bed = Bed::start();
    let done = bed.ssh("echo out; echo err >&2; exit 7");
    assert_eq!((done.status.code(), &done.stdout[..], &done.stderr[..]), (Some(7), &b"out\n"[..], &b"err\n"[..]));
    let silent = bed.ssh("true");
    assert!(silent.status.success() && silent.stdout.is_empty() && silent.stderr.is_empty(), "{silent:?}");
    assert_eq!(bed.ssh("/nowhere").status.code(), Some(127));
    // The server ignores SIGPIPE; its programs do not, and of the others only what whoever started this test had it ignore.
    // 32 and 33 are the C library's own.
    let ignored = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap() & !(3 << 31)
    };
    let pipe = 1 << (rustix::process::Signal::PIPE.as_raw() - 1);
    let ours = ignored(&std::fs::read_to_string("/proc/self/status").unwrap()) & !pipe;
    let theirs = ignored(&bed.prints("cat /proc/self/status"));
    assert_eq!(theirs & !ours, 0, "{theirs:x}, of which {ours:x} are ours");
}

#[test]
fn a_command_that_is_killed_ends_its_session_and_not_the_server() {
    let bed = Bed::start();
    let done = bed.ssh_with(&["-v"], "kill -9 $$").output().unwrap();
    // OpenSSH's client says 255 where a signal was the end.
    assert_eq!(done.status.code(), Some(255));
    assert!(String::from_utf8_lossy(&done.stderr).contains("exit-signal"), "{done:?}");
    assert_eq!(bed.prints("echo again"), "again\n");
}

#[test]
fn a_login_finds_the_images_environment_its_account_and_its_home() {
    let bed = Bed::start();
    let uid = rustix::process::geteuid().as_raw();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let entry: Vec<&str> =
        passwd.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|f| f[2] == uid.to_string()).unwrap();
    let printed = bed.prints(
        "echo $OF_THE_IMAGE $USER $LOGNAME $HOME $SHELL ${SSH_AUTH_SOCK-none}; pwd; echo $SSH_CONNECTION $PATH",
    );
    let mut lines = printed.lines();
    let (name, home, shell) = (entry[0], entry[5], entry[6]);
    assert_eq!(lines.next().unwrap(), format!("yes {name} {name} {home} {shell} none"));
    assert_eq!(lines.next().unwrap(), home);
    let path = std::env::var("PATH").unwrap();
    let rest = lines.next().unwrap();
    assert!(
        rest.starts_with("127.0.0.1 ") && rest.ends_with(&format!(" 127.0.0.1 {} {path}", bed.address.port())),
        "{rest}"
    );
}

#[test]
fn a_client_sets_its_language_and_not_what_programs_are_loaded_by() {
    let bed = Bed::start();
    let mut ssh =
        bed.ssh_with(&["-o", "SendEnv=LANG LC_TIME LD_PRELOAD MINE"], "echo $LANG $LC_TIME ${LD_PRELOAD-none} $MINE");
    ssh.envs([("LANG", "de_DE.UTF-8"), ("LC_TIME", "C"), ("MINE", "a b")]).env("LD_PRELOAD", "");
    assert_eq!(ssh.output().unwrap().stdout, b"de_DE.UTF-8 C none a b\n");
}

#[test]
fn fifty_megabytes_go_both_ways_intact() {
    let bed = Bed::start();
    let all = bytes(50 << 20);
    let sum = format!("{:x}  -\n", Sha256::digest(&all));
    let file = bed.path("all");
    std::fs::write(&file, &all).unwrap();
    let up = bed.ssh_with(&[], "sha256sum").stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&up.stdout), sum, "{up:?}");
    let down = bed.ssh(&format!("cat {}", file.display()));
    assert!(down.stdout == all, "{} bytes came", down.stdout.len());
    // Both at once, with the keys of the connection changed on the way again and again.
    let both =
        bed.ssh_with(&["-o", "RekeyLimit=4M"], "cat").stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert!(both.status.success() && both.stdout == all, "{} bytes came back", both.stdout.len());
}

/// A program that does not read before it has written must not stop its own output, however much is sent to it meanwhile.
#[test]
fn a_program_may_write_before_it_reads_what_it_was_sent() {
    let bed = Bed::start();
    let file = bed.path("all");
    std::fs::write(&file, bytes(60 << 20)).unwrap();
    let command = "sleep 1; head -c 40000000 /dev/zero; wc -c >&2";
    let done = bed.ssh_with(&[], command).stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stderr).trim(), (60 << 20).to_string());
    assert_eq!(done.stdout.len(), 40_000_000);
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_no_memory() {
    let bed = Bed::start();
    let mut ssh = bed.ssh_with(&[], "cat /dev/zero").stdout(Stdio::piped()).spawn().unwrap();
    ssh.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
    let most = watch_memory(&bed).await;
    println!("a client that does not read: {most} MiB at most");
    assert!(most < 48, "{most} MiB");
    ssh.kill().unwrap();
    ssh.wait().unwrap();
}

#[tokio::test]
async fn a_program_that_does_not_read_costs_bounded_memory() {
    let bed = Bed::start();
    let mut ssh = bed.ssh_with(&[], "echo ready; sleep 100");
    let mut ssh = ssh.stdin(std::fs::File::open("/dev/zero").unwrap()).stdout(Stdio::piped()).spawn().unwrap();
    ssh.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let most = watch_memory(&bed).await;
    println!("a program that does not read: {most} MiB at most");
    assert!(most < 64, "{most} MiB");
    ssh.kill().unwrap();
    ssh.wait().unwrap();
}

/// The most memory of the server within three seconds, in MiB.
async fn watch_memory(bed: &Bed) -> u64 {
    let mut most = 0;
    for _ in 0..60 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        most = most.max(bed.memory());
    }
    most
}

/// A command that says that it is ready, and does `last` when it is hung up.
fn until_hung_up(last: &str) -> String {
    format!("trap '{last}; exit' HUP; echo ready; while :; do sleep 0.05; done")
}

/// A session whose command has said that it is ready.
fn ready(bed: &Bed, options: &[&str], command: &str) -> Child {
    let mut ssh = bed.ssh_with(options, command).stdout(Stdio::piped()).spawn().unwrap();
    ssh.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    ssh
}

/// Ends a client at once.
fn leave(mut ssh: Child) {
    // `timeout` passes it on.
    rustix::process::kill_process(rustix::process::Pid::from_child(&ssh), rustix::process::Signal::TERM).unwrap();
    ssh.wait().unwrap();
}

#[tokio::test]
async fn a_session_is_hung_up_when_its_client_is_gone() {
    let bed = Bed::start();
    leave(ready(&bed, &[], &until_hung_up(&format!("echo hung up > {}", bed.path("said").display()))));
    assert_eq!(bed.written("said").await, "hung up\n");
    until("no child of the server is left, not even a dead one", async || {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", bed.server.id())).unwrap();
        children.trim().is_empty().then_some(())
    })
    .await;
}

/// More than a pipe holds, and where nobody reads any more.
#[tokio::test]
async fn a_program_is_not_ended_by_what_it_writes_when_its_client_is_gone() {
    let bed = Bed::start();
    let file = bed.path("said");
    let last = format!("head -c 3000000 /dev/zero && echo last words >&2 && echo done > {}", file.display());
    leave(ready(&bed, &[], &until_hung_up(&last)));
    assert_eq!(bed.written("said").await, "done\n");
}

#[tokio::test]
async fn the_server_ends_in_order_when_it_is_told_to_and_hangs_up() {
    let mut bed = Bed::start();
    let command = |name: &str| until_hung_up(&format!("sleep 0.2; echo hung up > {}", bed.path(name).display()));
    let sessions: Vec<(String, Child)> = (0..4)
        .map(|index| {
            let (name, options) = (format!("said{index}"), if index % 2 == 0 { &[][..] } else { &["-tt"][..] });
            let ssh = ready(&bed, options, &command(&name));
            (name, ssh)
        })
        .collect();
    let _silent = bed.connect();
    bed.signal(rustix::process::Signal::TERM);
    let ended = until("the server ends", async || bed.server.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(0));
    for (name, mut ssh) in sessions {
        // Its programs have ended before it has.
        assert_eq!(std::fs::read_to_string(bed.path(&name)).unwrap(), "hung up\n", "{name}");
        assert_eq!(ssh.wait().unwrap().code(), Some(255));
    }
}

#[tokio::test]
async fn a_program_that_does_not_end_when_it_is_hung_up_is_killed_with_the_server() {
    let mut bed = Bed::start();
    let file = bed.path("pid");
    let command = format!("trap '' HUP; echo $$ > {}; echo ready; while :; do sleep 0.05; done", file.display());
    // The client of one is there, that of the other is not.
    let mut there = ready(&bed, &[], &command);
    let first = std::fs::read_to_string(&file).unwrap();
    leave(ready(&bed, &[], &command));
    let second = std::fs::read_to_string(&file).unwrap();
    let runs = |pid: &str| Path::new("/proc").join(pid.trim()).exists();
    assert!(first != second && runs(&first) && runs(&second));
    bed.signal(rustix::process::Signal::TERM);
    let ended = until("the server ends", async || bed.server.try_wait().unwrap()).await;
    assert_eq!(ended.code(), Some(0));
    assert!(!runs(&first) && !runs(&second), "{}", bed.log());
    there.wait().unwrap();
}

#[test]
fn sessions_of_one_connection_do_not_wait_for_each_other() {
    let bed = Bed::start();
    let control = format!("ControlPath={}", bed.path("control").display());
    let mut master = bed.client("ssh");
    master.args(["-M", "-N", "-f", "-o", &control, "root@127.0.0.1"]);
    assert!(master.status().unwrap().success());
    // One takes nothing of what it is sent.
    let shared = |command: &str| bed.ssh_with(&["-o", &control], command);
    let mut stuck = shared("sleep 100");
    let mut stuck = stuck.stdin(std::fs::File::open("/dev/zero").unwrap()).spawn().unwrap();
    let file = bed.path("all");
    std::fs::write(&file, bytes(1 << 20)).unwrap();
    for _ in 0..5 {
        let done = shared("wc -c").stdin(std::fs::File::open(&file).unwrap()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), (1 << 20).to_string());
    }
    stuck.kill().unwrap();
    stuck.wait().unwrap();
    let _ = bed.client("ssh").args(["-O", "exit", "-o", &control, "root@127.0.0.1"]).output();
}

#[test]
fn a_terminal_is_a_terminal() {
    let bed = Bed::start();
    let done = bed.ssh_with(&["-tt"], "test -t 0 && test -t 1 && test -t 2 && tty && echo $TERM $SSH_TTY; exit 3");
    let done = {
        let mut done = done;
        done.env("TERM", "xterm-256color").output().unwrap()
    };
    assert_eq!(done.status.code(), Some(3));
    let printed = String::from_utf8(done.stdout).unwrap();
    let tty = printed.split("\r\n").next().unwrap();
    assert!(tty.starts_with("/dev/pts/"), "{printed}");
    assert_eq!(printed, format!("{tty}\r\nxterm-256color {tty}\r\n"));
}

#[test]
fn a_shell_is_a_login_shell_and_ends_with_what_is_typed() {
    let bed = Bed::start();
    let mut ssh = bed
        .client("ssh")
        .args(["-tt", "root@127.0.0.1"])
        .env("TERM", "dumb")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    ssh.stdin.as_mut().unwrap().write_all(b"echo I am $0 in $PWD; exit 5\n").unwrap();
    let done = ssh.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(5));
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(printed.contains("I am -") && !printed.contains("Last login"), "{printed}");
    // Without a terminal, commands come from what is sent.
    let mut ssh =
        bed.client("ssh").args(["-T", "root@127.0.0.1"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    ssh.stdin.take().unwrap().write_all(b"echo from a script\nexit 6\n").unwrap();
    let done = ssh.wait_with_output().unwrap();
    assert_eq!((done.status.code(), &done.stdout[..]), (Some(6), &b"from a script\n"[..]));
}

#[test]
fn a_terminal_is_closed_though_a_program_in_the_background_holds_it() {
    let bed = Bed::start();
    // The client would be ended first, and fail.
    let done = bed.ssh_with(&["-tt"], "trap '' HUP; sleep 1000 & echo $! away").output().unwrap();
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && printed.ends_with(" away\r\n"), "{done:?}");
    let pid: i32 = printed.split(' ').next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
}

#[test]
fn agents_and_screens_are_not_forwarded() {
    let bed = Bed::start();
    let done = bed
        .ssh_with(&["-A", "-X"], "echo ${SSH_AUTH_SOCK-none} ${DISPLAY-none}")
        .env_remove("DISPLAY")
        .output()
        .unwrap();
    assert_eq!(done.stdout, b"none none\n");
}
