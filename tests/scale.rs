//! How a devnet of one process grows: every verdict is right at each size, and the cost of a miner stays the same.
//!
//! `scripts/test` runs two sizes; `scripts/bench --scale` runs three, longer, for the figures. Proofs are as small as
//! they can be, each still in a child process of its own, so what is measured is everything around them.
//!
//! Environment: `COMPUTE_SCALE_MINERS` (sizes, ascending, such as `16,64,256`), `COMPUTE_SCALE_EPOCHS` (epochs measured
//! after the first), `COMPUTE_SCALE_PROGRAM` (the `compute-devnet` to run instead of the tests' own).

#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is a failed test")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use compute_subnet::ids::{Epoch, Hotkey};
use compute_subnet::sim::keys::DevnetKeys;
use compute_subnet::store::queries;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::verdict::{FailReason, Verdict};
use tokio::time::Instant;

/// Blocks of an epoch less one, and their time. A round of 256 miners takes two to three seconds on two cores, and all
/// sizes get the same epoch, so that what nodes cost by time alone weighs the same in each.
const TEMPO: &str = "9";
const BLOCK_TIME: &str = "1s";
/// The longest wait for the next judged epoch.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much more a miner may cost at the largest size than at the smallest. The bench's figures are far below; this
/// catches costs that grow with the number of miners, and nothing that a busy machine does.
const BOUND: f64 = 1.5;
/// The classes of the shipped configuration, with the smallest proofs.
const WORK: &str = "\
devnet:
  gpu_scores:
    cpu-1: { base: 1, n: 128, k: 64, rounds: 1 }
    cpu-2: { base: 2, n: 128, k: 64, rounds: 1 }
    cpu-3: { base: 3, n: 128, k: 64, rounds: 1 }
    cpu-4: { base: 4, n: 128, k: 64, rounds: 1 }
";

fn listed(name: &str, default: &str) -> Vec<usize> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(|n| n.trim().parse().unwrap_or_else(|e| panic!("{name}={text}: {e}"))).collect()
}

/// What the miners of one devnet are: a few of each kind that must not pass.
#[derive(Clone, Copy)]
struct Mix {
    honest: usize,
    cheaters: usize,
    duplicates: usize,
}

impl Mix {
    fn of(miners: usize) -> Self {
        let few = (miners / 32).max(1);
        Mix { honest: miners - 2 * few, cheaters: few, duplicates: few }
    }
}

/// A devnet's process and its children, from `/proc`.
#[derive(Debug, Clone, Copy)]
struct Usage {
    /// CPU seconds of the process and of the children that have ended.
    cpu: f64,
    /// Of these, the children's.
    children: f64,
    /// Resident memory of the process, in MiB.
    rss: f64,
    threads: u64,
}

/// The clock ticks of `/proc/PID/stat`: 100 a second on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

impl Usage {
    fn of(pid: u32) -> Self {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The program's name stands in brackets and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks = |field: usize| fields[field].parse::<f64>().unwrap() / TICKS;
        let (own, children) = (ticks(11) + ticks(12), ticks(13) + ticks(14));
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = |name: &str| {
            let rest = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
            rest.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        Usage { cpu: own + children, children, rss: line("VmRSS:") as f64 / 1024.0, threads: line("Threads:") }
    }
}

/// A devnet in a process of its own, ended with this value.
struct Devnet {
    child: Child,
    lines: Receiver<String>,
    begun: Instant,
}

impl Drop for Devnet {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Devnet {
    fn start(mix: Mix, dir: &Path) -> Self {
        let work = dir.join("work.yaml");
        std::fs::write(&work, WORK).unwrap();
        let own = || env!("CARGO_BIN_EXE_compute-devnet").into();
        let program = std::env::var_os("COMPUTE_SCALE_PROGRAM").unwrap_or_else(own);
        let count = |n: usize| n.to_string();
        let mut child = Command::new(program)
            .args(["--miners", &count(mix.honest), "--cheaters", &count(mix.cheaters)])
            .args(["--duplicates", &count(mix.duplicates), "--rentals", "0"])
            .args(["--tempo", TEMPO, "--block-time", BLOCK_TIME])
            // A cheater is judged in every epoch instead of being left out after some.
            .args(["--set", "challenge.penalty=0s"])
            .arg("--config")
            .arg(work)
            .arg("--node.data_dir")
            .arg(dir.join("devnet"))
            .env("HOME", dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = follow(child.stdout.take().unwrap());
        Devnet { child, lines, begun: Instant::now() }
    }

    /// Waits for the next epoch whose weights are on chain.
    fn epoch(&mut self) -> Usage {
        let deadline = Instant::now() + PATIENCE;
        let mut last = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                // The devnet prints its table for each such epoch, below a line that ends so.
                Ok(line) if line.ends_with(" s after the start:") => return Usage::of(self.child.id()),
                Ok(line) => last.push(line),
                Err(RecvTimeoutError::Timeout) => panic!("no epoch within {PATIENCE:?}:\n{}", last.join("\n")),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("the devnet ended ({:?}):\n{}", self.child.wait().unwrap(), last.join("\n"))
                }
            }
        }
    }

    /// Ends it as an operator does.
    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "the devnet ended with {status}");
                return;
            }
            // Its output is read to the end, so that it never waits for us.
            let _ = self.lines.recv_timeout(Duration::from_millis(20));
        }
        panic!("the devnet did not end within {PATIENCE:?} of its signal");
    }
}

fn follow(out: ChildStdout) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Checks every verdict from the second judged epoch on: in the first, some miners were not announced yet. Returns how
/// many verdicts and epochs were looked at.
fn verdicts_are_right(dir: &Path, mix: Mix) -> (usize, usize) {
    let keys = DevnetKeys::load(dir).unwrap();
    let conn = open_read_only(&dir.join("validator")).unwrap();
    let mut epochs: BTreeMap<Epoch, BTreeMap<Hotkey, Vec<Verdict>>> = BTreeMap::new();
    for record in queries::verdicts_since(&conn, 0).unwrap() {
        epochs.entry(record.epoch).or_default().entry(record.hotkey).or_default().push(record.verdict);
    }
    let seen: Vec<Epoch> = epochs.keys().copied().collect();
    assert!(seen.windows(2).all(|w| w[1] == w[0] + 1), "epochs are missing: {seen:?}");
    let mut looked_at = 0;
    for (epoch, verdicts) in epochs.iter().skip(1) {
        for index in 0..mix.honest + mix.cheaters + mix.duplicates {
            let given = verdicts.get(&keys.miner(index).hotkey()).map_or(&[][..], Vec::as_slice);
            let right = if index < mix.honest {
                matches!(given, [Verdict::Pass { .. }])
            } else if index < mix.honest + mix.cheaters {
                matches!(given, [Verdict::Fail { reason: FailReason::EntryMismatch, .. }])
            } else {
                given.is_empty()
            };
            assert!(right, "epoch {epoch}, miner {index}: {given:?}");
            looked_at += given.len();
        }
    }
    // Who has no verdict was refused, and for the right reason.
    for index in mix.honest + mix.cheaters..mix.honest + mix.cheaters + mix.duplicates {
        let row = queries::neuron_by_hotkey(&conn, &keys.miner(index).hotkey()).unwrap().unwrap();
        let note = row.neuron.admission.unwrap();
        assert_eq!((note.admitted, note.reason.as_str()), (false, "duplicate_ip"), "miner {index}");
    }
    (looked_at, seen.len() - 1)
}

/// What a size cost.
struct Cost {
    miners: usize,
    first: f64,
    rss: f64,
    /// Resident memory for each miner, in MiB.
    rss_each: f64,
    /// CPU for each miner and epoch, in milliseconds, children included.
    cpu_each: f64,
    children_each: f64,
    threads: u64,
    verdicts: (usize, usize),
}

fn measure(miners: usize, epochs: usize) -> Cost {
    let dir = tempfile::tempdir().unwrap();
    let mix = Mix::of(miners);
    let mut devnet = Devnet::start(mix, dir.path());
    devnet.epoch();
    let first = devnet.begun.elapsed().as_secs_f64();
    // The second is where everybody is announced and has been asked once.
    let begin = devnet.epoch();
    let end = (0..epochs).map(|_| devnet.epoch()).last().expect("at least one epoch");
    devnet.stop();
    let each = |seconds: f64| seconds * 1000.0 / (miners * epochs) as f64;
    Cost {
        miners,
        first,
        rss: end.rss,
        rss_each: end.rss / miners as f64,
        cpu_each: each(end.cpu - begin.cpu),
        children_each: each(end.children - begin.children),
        threads: end.threads,
        verdicts: verdicts_are_right(&dir.path().join("devnet"), mix),
    }
}

#[test]
fn every_verdict_is_right_and_a_miner_costs_the_same_at_every_size() {
    let sizes = listed("COMPUTE_SCALE_MINERS", "64,256");
    let epochs = listed("COMPUTE_SCALE_EPOCHS", "2")[0].max(1);
    println!("miners  first weights  threads      RSS  RSS/miner  CPU/miner/epoch (provers)  verdicts, all right");
    let mut costs = Vec::new();
    for miners in sizes {
        let c = measure(miners, epochs);
        println!(
            "{:>6}  {:>11.1} s  {:>7}  {:>5.0} M  {:>7.2} M  {:>12.2} ms {:>9.2} ms  {:>6} in {} epochs",
            c.miners, c.first, c.threads, c.rss, c.rss_each, c.cpu_each, c.children_each, c.verdicts.0, c.verdicts.1
        );
        costs.push(c);
    }
    // The smallest size carries the process's own share on few miners, so it is compared with the one before the last.
    if let [.., small, large] = &costs[..] {
        let (cpu, rss) = (large.cpu_each / small.cpu_each, large.rss_each / small.rss_each);
        println!("{} to {} miners: CPU for each × {cpu:.2}, memory for each × {rss:.2}", small.miners, large.miners);
        assert!(cpu < BOUND && rss < BOUND, "the cost of a miner grows with their number");
    }
}
