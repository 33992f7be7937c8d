//! The fault that no actor comes back from: its thread is blocked, and only the end of the process helps.
//!
//! So each node runs in a process of its own: this test program, started again with [`NODE`] in its environment, runs
//! [`a_node_in_a_process_of_its_own_ends_in_order_when_told`] as a node instead, on the same way in and out as the
//! binaries. Process and test speak in lines:
//!
//! 1. the node: `ready`, once all its actors run;
//! 2. the test: nothing more, or the name of an actor to block;
//! 3. the node: `struck`; then `seen`, once its `/metrics` shows that the actor is silent;
//! 4. the node ends. Its last line is `worst` and the slowest answer of the other actors; what it
//!    measured counts up to the first refusal by an actor that drains, that is: until the node had decided to end.

use crate::probe::{LONG, Pages, Watch, assert_all_answered, until};
use crate::subnet::{Role, Subnet, secs, settings};
use compute_subnet::exit::Exit;
use compute_subnet::launch::{self, ChildArgs};
use compute_subnet::runtime::{Fault, Placement};
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::{Barrier, oneshot};
use tokio::time::{Instant, timeout};

/// From the moment the thread is blocked to the end of the process, also on a busy machine; how long it took is printed.
const ENDED: Duration = secs(30);
/// Far longer than the node may live.
const BLOCKED: Duration = secs(600);

/// The role of the node that this process is to be.
const NODE: &str = "COMPUTE_FAULTS_NODE";
/// Its directory.
const DIR: &str = "COMPUTE_FAULTS_DIR";
/// Begins a line of the node, among those of the test harness.
const MARK: &str = "faults: ";
/// Stands for the slowest answer where no actor was blocked.
const UNMEASURED: &str = "not measured";
const THIS: &str = "blocked::a_node_in_a_process_of_its_own_ends_in_order_when_told";

// === the test's side ===

/// A node's process. Killed when dropped.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    role: Role,
    _dir: tempfile::TempDir,
}

impl Process {
    fn spawn(role: Role) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([THIS, "--exact", "--nocapture", "--test-threads=1"])
            .env(NODE, role.label())
            .env(DIR, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Process { child, lines, role, _dir: dir }
    }

    /// What follows `word` in the node's next line that has it.
    async fn hear(&mut self, word: &str) -> String {
        let looking = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                let said = line.split_once(MARK).and_then(|(_, said)| said.strip_prefix(word));
                if let Some(rest) = said {
                    return Some(rest.trim().to_owned());
                }
            }
            None
        };
        match timeout(LONG, looking).await {
            Ok(Some(said)) => said,
            early => panic!("{} said no {word:?} ({early:?}); {}", self.role.label(), self.log().await),
        }
    }

    async fn log(&mut self) -> String {
        let mut log = String::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            let _ = timeout(secs(30), stderr.read_to_string(&mut log)).await;
        }
        log
    }
}

/// Blocks one actor of a node of its own. `others` are struck at the same time, so that no start disturbs a measurement.
async fn block(role: Role, victim: &'static str, others: Arc<Barrier>) {
    let mut node = Process::spawn(role);
    node.hear("ready").await;
    others.wait().await;
    let mut stdin = node.child.stdin.take().unwrap();
    stdin.write_all(format!("{victim}\n").as_bytes()).await.unwrap();
    node.hear("struck").await;
    let struck = Instant::now();
    let ended = timeout(ENDED, async {
        let seen = node.hear("seen").await;
        let worst = node.hear("worst").await;
        (seen, worst, node.child.wait().await.unwrap())
    });
    let Ok((seen, worst, status)) = ended.await else {
        node.child.start_kill().unwrap();
        panic!("{} lives {ENDED:?} after {victim} was blocked; {}", role.label(), node.log().await);
    };
    let (took, log) = (struck.elapsed(), node.log().await);
    assert_eq!(status.code(), Some(Exit::Wedged.code()), "{} {victim}: {status}; {log}", role.label());
    assert_ne!(worst, UNMEASURED, "{} {victim}: {log}", role.label());
    let blamed = |line: &str| line.contains("thread is blocked, the node stops") && line.contains(victim);
    assert!(log.lines().any(blamed), "{} {victim}: nobody says why; {log}", role.label());
    println!(
        "{} {victim}: ended with {status} after {took:?}; slowest answer of the others {worst}; heartbeat age seen {seen} ms",
        role.label()
    );
}

fn block_each(role: Role) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let together = Arc::new(Barrier::new(role.actors().len()));
    runtime.block_on(join_all(role.actors().iter().map(|victim| block(role, victim, together.clone()))));
}

#[test]
fn each_blocked_thread_of_a_miner_ends_its_process_with_the_documented_code() {
    block_each(Role::Miner);
}

#[test]
fn each_blocked_thread_of_a_validator_ends_its_process_with_the_documented_code() {
    block_each(Role::Validator);
}

#[test]
fn a_node_in_a_process_of_its_own_ends_in_order_when_told() {
    if let Some(role) = std::env::var_os(NODE) {
        let role = Role::ALL.into_iter().find(|r| role == r.label()).unwrap();
        let dir = PathBuf::from(std::env::var_os(DIR).unwrap());
        std::process::exit(be_a_node(role, &dir).code());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(join_all(Role::ALL.into_iter().map(async |role| {
        let mut node = Process::spawn(role);
        node.hear("ready").await;
        let pid = Pid::from_raw(node.child.id().unwrap() as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        node.hear("worst").await;
        let status = timeout(LONG, node.child.wait()).await.expect("it ends").unwrap();
        assert_eq!(status.code(), Some(Exit::Ok.code()), "{} {status}; {}", role.label(), node.log().await);
    })));
}

// === the node's side ===

fn say(word: &str) {
    println!("{MARK}{word}");
}

/// Runs a node until it is told to stop or gives up, as the binaries do. Supervision is as shipped.
fn be_a_node(role: Role, dir: &Path) -> Exit {
    let settings = settings();
    let _logs = launch::logs(&settings, role.label(), &ChildArgs::default()).unwrap();
    launch::run(|runtime| async move {
        let subnet = Subnet::start(dir, settings, runtime.clone()).await;
        let node = match role {
            Role::Miner => subnet.miner(Placement::PerActor).node,
            Role::Validator => subnet.validator(Placement::PerActor).node,
        };
        let (view, pages) = (node.view.clone(), Pages::of(node.web));
        // Without an order nothing is measured, and nothing waited for.
        let ordered = Rc::new(Cell::new(false));
        let told = ordered.clone();
        let watching = tokio::task::spawn_local(async move {
            let ready = until(secs(30), async || {
                let shown = pages.get("/readyz").await;
                shown.filter(|_| view.all_running())
            });
            assert!(ready.await.is_some(), "not ready: {view:?}");
            say("ready");
            let victim = order().await?;
            told.set(true);
            let watch = Watch::nobody().and(&runtime, role.label(), &view, Some(&victim));
            assert!(view.inject(&victim, Fault::Block(BLOCKED)));
            say("struck");
            let seen = until(secs(30), async || {
                let age = pages.metrics().await?.heartbeat_age(&victim);
                (age > secs(2)).then_some(age)
            });
            if let Some(age) = seen.await {
                say(&format!("seen {}", age.as_millis()));
            }
            Some(watch)
        });
        let exit = launch::serve(node, &ChildArgs::default()).await;
        let worst = match timeout(if ordered.get() { secs(30) } else { Duration::ZERO }, watching).await {
            Ok(watch) => match watch.unwrap() {
                Some(watch) => {
                    let answers = watch.end().await;
                    let slowest = assert_all_answered(role.label(), &answers);
                    format!("{:?}, {}", slowest.worst, slowest.actor)
                }
                None => UNMEASURED.to_owned(),
            },
            Err(_) => UNMEASURED.to_owned(),
        };
        say(&format!("worst {worst}"));
        exit
    })
}

/// The actor to block, if any. Read on a thread of its own: whoever waits for a line must not hold up the node's end.
async fn order() -> Option<String> {
    let (given, order) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = std::io::stdin().read_line(&mut line);
        let _ = given.send(read.ok().map(|_| line.trim().to_owned()).filter(|name| !name.is_empty()));
    });
    order.await.ok().flatten()
}
