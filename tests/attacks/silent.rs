//! Connections that are opened and say nothing, from a process of their own.

use std::cell::RefCell;
use std::io::{BufRead as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{ExitCode, Stdio};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncBufReadExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::stage::Stage;
use crate::wait::LONG;

/// The first argument that makes this program the attacker.
pub(crate) const ATTACKER: &str = "--silent";
/// Connections that are wanted at a time.
const WANTED: usize = 10_000;
/// What the attacker needs beside them.
const SPARE: u64 = 200;
/// Attempts to connect at a time.
const AT_ONCE: u32 = 128;

/// What the attacker says, every quarter of a second.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Said {
    /// Its limit of open files.
    limit: u64,
    /// Connections made so far, and most of them open at a time as the attacker sees it.
    made: u64,
    open: usize,
    /// Of those open now: not closed by the other side.
    alive: usize,
    failed: u64,
}

/// Raises the limit of open files as far as it goes.
fn raise_limit() -> u64 {
    let wanted = WANTED as u64 + SPARE;
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(u64::MAX);
    if hard < wanted {
        // Only a privileged process may; the other one goes as far as it can.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) });
    }
    let hard = getrlimit(Resource::Nofile).maximum;
    let _ = setrlimit(Resource::Nofile, Rlimit { current: hard.map(|h| h.min(1 << 16)), maximum: hard });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many connections there are within a limit of open files.
fn room(limit: u64) -> usize {
    WANTED.min(limit.saturating_sub(SPARE) as usize)
}

/// Opens connections to the address that is given, from one address or many, and opens each again that is closed, until
/// standard input ends.
pub(crate) fn attack(args: &[String]) -> ExitCode {
    let to: SocketAddr = args[0].parse().unwrap();
    let addresses: u32 = args[1].parse().unwrap();
    let limit = raise_limit();
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let room = room(limit);
    let state = Rc::new(RefCell::new((Said { limit, ..Said::default() }, Vec::<TcpStream>::with_capacity(room))));
    let tasks = tokio::task::LocalSet::new();
    for number in 0..AT_ONCE {
        tasks.spawn_local(open_more(to, number, addresses, room, state.clone()));
    }
    tasks.block_on(&runtime, async {
        loop {
            sleep(Duration::from_millis(250)).await;
            let (said, open) = &mut *state.borrow_mut();
            open.retain(|stream| {
                let mut byte = [0];
                matches!(stream.try_read(&mut byte), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
            });
            said.alive = open.len();
            println!("{}", serde_json::to_string(said).unwrap());
            let _ = std::io::stdout().flush();
        }
    })
}

/// Opens connections wherever there is room for one.
async fn open_more(
    to: SocketAddr,
    number: u32,
    addresses: u32,
    room: usize,
    state: Rc<RefCell<(Said, Vec<TcpStream>)>>,
) {
    for round in 0u32.. {
        if state.borrow().1.len() >= room {
            sleep(Duration::from_millis(20)).await;
            continue;
        }
        let offset = round.wrapping_mul(AT_ONCE).wrapping_add(number) % addresses;
        let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 7, 0, 1)) + offset);
        // A full queue at the other side must not stop the attack.
        let made = tokio::time::timeout(Duration::from_secs(2), crate::http::connect(from, to)).await;
        let (said, open) = &mut *state.borrow_mut();
        match made {
            Ok(Ok(stream)) => {
                open.push(stream);
                said.made += 1;
                said.open = said.open.max(open.len());
            }
            _ => said.failed += 1,
        }
    }
}

/// Connections are made as fast as this machine can, on the cores that the miner has: where the system's queue of them runs
/// over, an honest caller's own try is lost, and his system tries again after 1 s and 2 s more.
pub(crate) async fn ten_thousand_silent_connections_keep_nobody_out(mut stage: Stage) -> Stage {
    let seconds = if stage.long { 60 } else { 10 };
    // From one address, and from so many that each has few.
    for addresses in [1, 250] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([ATTACKER, &stage.miner.axon.to_string(), &addresses.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut attacker = command.spawn().unwrap();
        let mut lines = tokio::io::BufReader::new(attacker.stdout.take().unwrap()).lines();
        let mut said = Said::default();
        let begun = Instant::now();
        let (mut answered, mut refused) = (0u32, Vec::new());
        let mut fds = 0;
        // On a busy machine it takes longer to make them all.
        let going = |said: &Said, elapsed: Duration| {
            let all = said.limit > 0 && said.made >= room(said.limit) as u64;
            elapsed < Duration::from_secs(seconds) || !all && elapsed < LONG
        };
        while going(&said, begun.elapsed()) {
            match stage.honest_call(Ipv4Addr::new(127, 0, 0, 2)).await {
                Ok(()) => answered += 1,
                Err(problem) => refused.push(problem),
            }
            fds = fds.max(std::fs::read_dir(format!("/proc/{}/fd", stage.miner.pid())).unwrap().count());
            while let Ok(Ok(Some(line))) = tokio::time::timeout(Duration::from_millis(1), lines.next_line()).await {
                said = serde_json::from_str(&line).unwrap();
            }
            sleep(Duration::from_millis(100)).await;
        }
        drop(attacker.stdin.take());
        let _ = attacker.wait().await;
        println!(
            "     silent connections from {addresses} address(es): limit of open files {}, {} made, {} open at a time, {} \
             of them alive at last, {} failed; the miner held {fds} files; {answered} honest calls, the slowest so far {:?}",
            said.limit,
            said.made,
            said.open,
            said.alive,
            said.failed,
            stage.slowest()
        );
        let wanted = room(said.limit);
        assert!(said.made >= wanted as u64 && answered > 0, "of {wanted}: {said:?}");
        if wanted < WANTED {
            stage.leave_out(format!(
                "{} of {WANTED} connections: {} files may be open here",
                WANTED - wanted,
                said.limit
            ));
        }
        assert!(refused.is_empty(), "{} honest calls failed: {}", refused.len(), refused[0]);
        stage.note(said.made, &format!("{addresses} address(es): {} made, {fds} files held", said.made));
    }
    stage
}
