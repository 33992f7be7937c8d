//! The availability probe under load: how many a miner answers, how fast, and at what cost.
//!
//! A miner in a process of its own, on a ledger with 256 validators that hold stake and permit, is asked by wrk, which
//! sends requests that were signed before, each once. All that stands between a caller and an answer is on: admission,
//! nonce table, limits; the limits that the run raises are printed. wrk shares the cores with the miner.
//!
//! `--day` instead drives both nonce tables through a day of requests and holds their memory against that of the first
//! hour.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "prints what it measured")]

#[path = "../../tests/common/process.rs"]
mod process;
#[path = "../../tests/common/wait.rs"]
mod wait;

mod day;
mod requests;
mod wrk;

use std::process::ExitCode;
use std::time::Duration;

use compute_subnet::exit::Exit;
use compute_subnet::launch;
use compute_subnet::wallet::verify;

use process::{Miner, Subnet};
use requests::Sample;

/// Limits that the run raises. Everything else is as shipped.
const RAISED: &[(&str, &str)] = &[
    // Raised, not off. All callers come from one address here.
    ("axon.rate_per_ip", "100000"),
    ("axon.burst_per_ip", "100000"),
    ("axon.max_connections_per_ip", "256"),
    // 256 of them ask as much as the miner can answer.
    ("axon.rate_per_hotkey", "1000"),
    ("axon.burst_per_hotkey", "1000"),
];

/// The unit of times in `/proc/PID/stat`: Linux shows them in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// What is run.
struct Plan {
    seconds: usize,
    /// Threads and connections of wrk, as many of each.
    threads: usize,
    callers: usize,
    /// Requests that are signed for each second.
    rate: usize,
    /// Which of the original's synapses is asked; all get the body of the first.
    class: String,
}

impl Plan {
    /// From `--seconds N --threads N --callers N --rate N --class NAME`.
    fn from_args(args: &[String]) -> Self {
        let given = |name: &str| Some(args[args.iter().position(|arg| arg == name)? + 1].as_str());
        let number = |name: &str, default: usize| given(name).map_or(default, |text| text.parse().unwrap());
        Plan {
            seconds: number("--seconds", 30),
            threads: number("--threads", 64),
            callers: number("--callers", 256),
            rate: number("--rate", 30_000),
            class: given("--class").unwrap_or("Allocate").to_owned(),
        }
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.iter().any(|arg| arg == "--day") {
        return day::run();
    }
    let plan = Plan::from_args(&args);
    let mut fine = false;
    let exit = launch::run(|_| async {
        fine = load(&plan).await;
        Exit::Ok
    });
    if fine && exit == Exit::Ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// CPU time that this thread has used.
fn cpu_of_this_thread() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// CPU time of one bare check of a signature.
fn bare_check(samples: &[Sample]) -> Duration {
    const ROUNDS: u32 = 40;
    let before = cpu_of_this_thread();
    for _ in 0..ROUNDS {
        assert!(samples.iter().all(|s| verify(&s.hotkey, s.message.as_bytes(), &s.signature)));
    }
    (cpu_of_this_thread() - before) / (ROUNDS * samples.len() as u32)
}

/// CPU time that the miner has used, its threads together: user and system.
fn cpu_of(miner: &Miner) -> (Duration, Duration) {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", miner.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks = |at: usize| TICK * fields[at].parse().unwrap();
    (ticks(11), ticks(12))
}

/// A line of the result, with what was aimed at.
fn line(what: &str, value: String, goal: &str, met: bool) {
    let verdict = if met { "met" } else { "NOT met" };
    println!("{what:<34} {value:>16}   goal {goal:<10} {verdict}");
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

async fn load(plan: &Plan) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let subnet = Subnet::start(dir.path(), plan.callers).await;
    let further: Vec<String> = RAISED.iter().flat_map(|(k, v)| ["--set".to_owned(), format!("{k}={v}")]).collect();
    let miner = subnet.miner(&further).await;
    subnet.real_pace(true);
    let raised: Vec<String> = RAISED.iter().map(|(k, v)| format!("{k}={v}")).collect();
    println!("limits raised: {}", if raised.is_empty() { "none".to_owned() } else { raised.join(", ") });
    println!("{} registered callers with permit and stake, admitted by these", subnet.callers.len());

    let samples = requests::samples(&subnet.callers, &subnet.miner);
    let bare_before = bare_check(&samples);
    let idle = miner.memory();
    // One more than that, since wrk looks at the first request of its first thread before it begins.
    let each = plan.rate * plan.seconds / plan.threads + 1;
    let begun = tokio::time::Instant::now();
    requests::write(dir.path(), &plan.class, &subnet.callers, &miner.hotkey, miner.axon, plan.threads, each);
    println!("{} requests signed in {:.1} s", each * plan.threads, begun.elapsed().as_secs_f64());

    let (counted, (user_before, system_before)) = (miner.metrics().await, cpu_of(&miner));
    let seen = match wrk::run(dir.path(), miner.axon, plan.threads, plan.seconds).await {
        Ok(seen) => seen,
        Err(problem) => {
            eprintln!("{problem}");
            return false;
        }
    };
    let ((user, system), memory) = (cpu_of(&miner), miner.memory());
    let after = miner.metrics().await;
    let bare = (bare_before + bare_check(&samples)) / 2;

    let grown = |(name, value): (&String, &f64)| {
        let by = value - counted.get(name).copied().unwrap_or(0.0);
        let ours = name.starts_with("compute_axon_requests_total") || name.starts_with("compute_admissions_total");
        (ours && by > 0.0).then(|| (name.clone(), by as u64))
    };
    let outcomes: Vec<(String, u64)> = after.iter().filter_map(grown).collect();
    let answered: u64 = outcomes.iter().filter(|(n, _)| n.starts_with("compute_axon")).map(|(_, by)| by).sum();
    let (user, system) = (user - user_before, system - system_before);
    let cpu = (user + system) / u32::try_from(answered.max(1)).unwrap();
    let rate = seen.requests as f64 / (seen.us as f64 / 1e6);
    let mib = |kib: u64| kib as f64 / 1024.0;

    println!("\nwrk -t{0} -c{0} -d{1}s, on the same {2} cores as the miner", plan.threads, plan.seconds, cores());
    line("requests a second", format!("{rate:.0}"), ">= 8000", rate >= 8_000.0);
    println!("{:<34} {:>13.2} ms", "latency p50", seen.p50_us as f64 / 1e3);
    line("latency p99", format!("{:.2} ms", seen.p99_us as f64 / 1e3), "< 20 ms", seen.p99_us < 20_000);
    println!("{:<34} {:>13.2} ms", "latency max", seen.max_us as f64 / 1e3);
    println!("{:<34} {:>16}", "requests", seen.requests);
    line("answers other than 2xx", seen.status.to_string(), "0", seen.status == 0);
    line("socket errors", seen.socket_errors().to_string(), "0", seen.socket_errors() == 0);
    println!("{:<34} {:>13.1} µs", "bare check of a signature (CPU)", micros(bare));
    let ratio = cpu.as_secs_f64() / bare.as_secs_f64();
    line("miner's CPU a request", format!("{:.1} µs = {ratio:.2}x", micros(cpu)), "<= 2x", ratio <= 2.0);
    println!("{:<34} {:>6.1} s / {:>5.1} s", "miner's CPU, user / system", user.as_secs_f64(), system.as_secs_f64());
    line("RSS at the end", format!("{:.1} MiB", mib(memory.now)), "< 60 MB", memory.now * 1024 < 60_000_000);
    println!("{:<34} {:>12.1} MiB (idle: {:.1})", "RSS, peak", mib(memory.peak), mib(idle.now));
    println!("what the miner counted:");
    outcomes.iter().for_each(|(name, by)| println!("  {name} {by}"));
    after.iter().filter(|(name, _)| name.contains("nonce")).for_each(|(name, n)| println!("  {name} {n}"));

    let only_answers = outcomes.iter().all(|(name, _)| {
        !name.starts_with("compute_axon") || name.contains("outcome=\"ok\"") || name.contains("path=\"/ComputeWho\"")
    });
    let fine = seen.status == 0 && seen.socket_errors() == 0 && answered >= seen.requests && only_answers;
    if !fine {
        eprintln!("the run is void: not every request was answered with 200\n{}", miner.said());
    }
    miner.end().await;
    fine
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
