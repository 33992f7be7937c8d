//! `benchmark`: how fast this machine's prover is, by backend, device and size, and what a validator spends on it.
//!
//! The real `compute-prover` is run as a child, as a miner does, and its answers are verified as a validator does.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::text::{columns, row};
use super::{Context, complain};
use crate::exit::Exit;
use crate::hardware::{self, Probe};
use crate::ids::{ChallengeId, DeviceId, Hash32, Hotkey};
use crate::launch::{ProverProgram, find_prover};
use crate::proof::prover::{Backend, ChildProver, Prover, ProverLimits};
use crate::proof::verifier::check_openings;
use crate::proof::{Challenge, Work, sample_positions};
use crate::scoring::{decimal, rate_text};
use crate::telemetry::error_chain;
use crate::wire::synapse::{ChallengeReply, ChallengeRequest, DeviceRoots, DeviceWork, OpeningsRequest};

/// Products that a core makes within seconds, and those that are asked of GPUs.
const CPU_SIZES: [(u32, u32, u32); 4] = [(256, 4096, 4), (1024, 4096, 4), (1024, 16_384, 2), (2048, 16_384, 1)];
const GPU_SIZES: [(u32, u32, u32); 4] =
    [(8192, 65_536, 8), (16_384, 65_536, 4), (32_768, 65_536, 2), (65_536, 65_536, 1)];
/// How long listing the GPUs may take.
const MEASURE: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Sizes to prove, each as n:k:rounds; by default four that suit the backend.
    #[arg(long, value_name = "n:k:r,…", value_delimiter = ',')]
    sizes: Vec<Size>,
    /// Repetitions of each, 1 to 1000: the median is shown, with the lowest and the highest.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// What computes. auto: the GPUs if there are any, else the processor.
    #[arg(long, value_name = "cpu|cuda|auto,…", value_delimiter = ',', default_value = "auto")]
    backend: Vec<Backend>,
    /// The GPUs to prove with, as GPU-UUID; all of them if none is named.
    #[arg(long, value_name = "A,B,…", value_delimiter = ',')]
    devices: Vec<DeviceId>,
    /// Threads of the prover; by default those of prover.threads.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

#[derive(Debug, Clone, Copy)]
struct Size(Work);

impl FromStr for Size {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Option<Vec<u32>> = text.split(':').map(|part| part.trim().parse().ok()).collect();
        let Some([n, k, rounds]) = numbers.as_deref() else { return Err("expected n:k:rounds".to_owned()) };
        Work::new(*n, *k, *rounds).map(Size).map_err(|error| error.to_string())
    }
}

/// The middle and the ends of some times, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Spread {
    median: u64,
    min: u64,
    max: u64,
}

impl Spread {
    /// Of an even number the lower one of the middle two.
    fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let at = |i: usize| times.get(i).copied().unwrap_or(0);
        let last = times.len().saturating_sub(1);
        Spread { median: at(last / 2), min: at(0), max: at(last) }
    }
}

/// Bytes of one proof of one device on the wire, without the envelopes of requests and replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct WireBytes {
    /// The challenge and the request for openings.
    requests: u64,
    /// The reply with the roots.
    roots: u64,
    /// The reply with the openings.
    openings: u64,
}

impl WireBytes {
    fn total(self) -> u64 {
        self.requests + self.roots + self.openings
    }
}

/// One size on one device.
#[derive(Debug, Serialize)]
struct Run {
    backend: String,
    device: DeviceId,
    n: u32,
    k: u32,
    rounds: u32,
    threads: usize,
    count: u32,
    /// 2·n²·k·rounds.
    operations: u64,
    /// From the start of the child until its roots were there.
    commit_ns: Spread,
    /// Operations a second by the median of `commit_ns`.
    rate_ops: u64,
    opening_ns: Spread,
    verification_ns: Spread,
    /// Openings of each proof.
    samples: u32,
    wire_bytes: WireBytes,
}

#[derive(Debug, Serialize)]
struct Benchmark {
    prover: PathBuf,
    runs: Vec<Run>,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let settings = &context.settings;
    let base = find_prover(settings, ProverProgram::Beside).map_err(|what| {
        complain(&what);
        Exit::Unavailable
    })?;
    let threads = args.threads.map_or(base.limits.threads, usize::from);
    let mut answer = Benchmark { prover: base.exe.clone(), runs: Vec::new() };
    let mut failures = 0;
    for (backend, devices) in lists(&args.backend, &args.devices, gpus().await)? {
        let sizes = match (args.sizes.is_empty(), backend) {
            (false, _) => args.sizes.iter().map(|size| size.0).collect(),
            (true, Backend::Cpu) => defaults(&CPU_SIZES)?,
            (true, _) => defaults(&GPU_SIZES)?,
        };
        for (device, work) in devices.iter().flat_map(|device| sizes.iter().map(move |work| (*device, *work))) {
            let prover = child(&base, backend, threads, &work);
            let samples = settings.challenge.samples as usize;
            match measure(&prover, device, work, args.count, samples).await {
                Ok(measured) => answer.runs.push(measured.run(backend, device, work, threads, args.count, samples)),
                Err(what) => {
                    failures += 1;
                    complain(&format!("{backend} {device} {}:{}:{}: {what}", work.n, work.k, work.rounds));
                }
            }
        }
    }
    context.answer(&answer, text)?;
    if failures > 0 { Err(Exit::Unavailable) } else { Ok(()) }
}

fn defaults(sizes: &[(u32, u32, u32)]) -> Result<Vec<Work>, Exit> {
    let work = |(n, k, rounds): &(u32, u32, u32)| Work::new(*n, *k, *rounds);
    sizes.iter().map(work).collect::<Result<_, _>>().map_err(|error| {
        complain(&error.to_string());
        Exit::Usage
    })
}

/// The GPUs of this machine, or why there are none.
async fn gpus() -> Result<Vec<DeviceId>, String> {
    let specs = hardware::collect(&Probe::default(), MEASURE).await.map_err(|error| error.to_string())?;
    match specs.devices.is_empty() {
        true => Err(specs.problems.get("gpu").cloned().unwrap_or(specs.nvidia.status)),
        false => Ok(specs.devices.iter().map(|offer| offer.device).collect()),
    }
}

/// Which backends prove with which devices.
fn lists(
    backends: &[Backend],
    wanted: &[DeviceId],
    gpus: Result<Vec<DeviceId>, String>,
) -> Result<Vec<(Backend, Vec<DeviceId>)>, Exit> {
    let on_gpus = |gpus: &[DeviceId]| {
        if let Some(missing) = wanted.iter().find(|device| !gpus.contains(device)) {
            complain(&format!("there is no {missing} here; nvidia-smi -L lists the GPUs"));
            return Err(Exit::Usage);
        }
        Ok((Backend::Cuda, if wanted.is_empty() { gpus.to_vec() } else { wanted.to_vec() }))
    };
    let mut lists: Vec<(Backend, Vec<DeviceId>)> = Vec::new();
    for backend in backends {
        let list = match (backend, &gpus) {
            (Backend::Cuda | Backend::Auto, Ok(gpus)) => on_gpus(gpus)?,
            (Backend::Cuda, Err(why)) => {
                complain(&format!("the cuda backend needs a GPU: {why}"));
                return Err(Exit::Unavailable);
            }
            (Backend::Auto, Err(why)) if !wanted.is_empty() => {
                complain(&format!("there is none of these devices: {why}"));
                return Err(Exit::Unavailable);
            }
            (Backend::Cpu, _) | (Backend::Auto, Err(_)) => (Backend::Cpu, vec![DeviceId::cpu(0)]),
        };
        if !lists.contains(&list) {
            lists.push(list);
        }
    }
    Ok(lists)
}

/// The configured prover with this backend. The size is chosen here, so memory is no less than it takes.
fn child(base: &ChildProver, backend: Backend, threads: usize, work: &Work) -> ChildProver {
    let memory_bytes = match backend {
        Backend::Cpu => base.limits.memory_bytes.max(2 * work.memory_bytes()),
        // A driver reserves addresses without end.
        Backend::Cuda | Backend::Auto => u64::MAX,
    };
    let args = ["--backend".to_owned(), backend.to_string()];
    ChildProver {
        args: base.args.iter().cloned().chain(args.map(Into::into)).collect(),
        limits: ProverLimits { memory_bytes, threads, ..base.limits },
        ..base.clone()
    }
}

/// The times of all repetitions, in nanoseconds, and the bytes of the last.
#[derive(Default)]
struct Measured {
    commits: Vec<u64>,
    openings: Vec<u64>,
    verifications: Vec<u64>,
    wire: Option<WireBytes>,
}

impl Measured {
    fn run(self, backend: Backend, device: DeviceId, work: Work, threads: usize, count: u32, samples: usize) -> Run {
        let commit_ns = Spread::of(self.commits);
        let rate = u128::from(work.operations()) * 1_000_000_000 / u128::from(commit_ns.median.max(1));
        Run {
            backend: backend.to_string(),
            device,
            n: work.n,
            k: work.k,
            rounds: work.rounds,
            threads,
            count,
            operations: work.operations(),
            commit_ns,
            rate_ops: u64::try_from(rate).unwrap_or(u64::MAX),
            opening_ns: Spread::of(self.openings),
            verification_ns: Spread::of(self.verifications),
            samples: u32::try_from(samples).unwrap_or(u32::MAX),
            wire_bytes: self.wire.unwrap_or(WireBytes { requests: 0, roots: 0, openings: 0 }),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn random() -> Result<[u8; 32], String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map(|()| bytes).map_err(|error| format!("no randomness from the system: {error}"))
}

/// Proves so many times, each with a seed of its own, and checks every proof.
async fn measure(
    prover: &ChildProver,
    device: DeviceId,
    work: Work,
    count: u32,
    samples: usize,
) -> Result<Measured, String> {
    let mut measured = Measured::default();
    for _ in 0..count {
        let challenge = Arc::new(Challenge { nonce: random()?, epoch: 0, hotkey: Hotkey([0; 32]), device, work });
        let begun = Instant::now();
        let mut made = prover.commit(&challenge).await.map_err(|error| error_chain(&error))?;
        measured.commits.push(nanos(begun.elapsed()));
        let positions = sample_positions(&work, samples, &random()?);
        let begun = Instant::now();
        let openings = made.open(&positions).await.map_err(|error| error_chain(&error))?;
        measured.openings.push(nanos(begun.elapsed()));
        let roots = made.roots().to_vec();
        drop(made);
        measured.wire = Some(wire(&challenge, &roots, &positions, openings.len()));
        let verified = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let checked = check_openings(&challenge, &roots, &positions, &openings);
            (checked, begun.elapsed())
        });
        let (checked, took) = verified.await.map_err(|error| format!("the verifier ended: {error}"))?;
        checked.map_err(|rejection| format!("the proof does not hold: {rejection}"))?;
        measured.verifications.push(nanos(took));
    }
    Ok(measured)
}

/// What goes over the wire, by the messages themselves.
fn wire(challenge: &Challenge, roots: &[Hash32], positions: &[crate::proof::Position], openings: usize) -> WireBytes {
    fn length<T: Serialize>(message: &T) -> u64 {
        serde_json::to_vec(message).map_or(0, |bytes| bytes.len() as u64)
    }
    let Work { n, k, rounds } = challenge.work;
    let (id, device) = (ChallengeId([0xff; 16]), challenge.device);
    let asked = ChallengeRequest {
        challenge: id,
        nonce: Hash32(challenge.nonce),
        epoch: challenge.epoch,
        devices: vec![DeviceWork { device, n, k, rounds }],
    };
    let to_open = OpeningsRequest {
        challenge: id,
        device,
        positions: positions.iter().map(|p| [p.round, p.row, p.col]).collect(),
    };
    let answer = ChallengeReply::Roots { devices: vec![DeviceRoots { device, roots: roots.to_vec() }] };
    WireBytes { requests: length(&asked) + length(&to_open), roots: length(&answer), openings: openings as u64 }
}

fn text(all: &Benchmark) -> String {
    let mut rows = vec![row([
        "backend",
        "device",
        "n",
        "k",
        "rounds",
        "threads",
        "count",
        "commit s",
        "min",
        "max",
        "rate",
        "open ms",
        "verify ms",
        "wire bytes",
    ])];
    let seconds = |ns: u64| decimal(ns.into(), 9, 3);
    let ms = |ns: u64| decimal(ns.into(), 6, 2);
    rows.extend(all.runs.iter().map(|run| {
        vec![
            run.backend.clone(),
            run.device.to_string(),
            run.n.to_string(),
            run.k.to_string(),
            run.rounds.to_string(),
            run.threads.to_string(),
            run.count.to_string(),
            seconds(run.commit_ns.median),
            seconds(run.commit_ns.min),
            seconds(run.commit_ns.max),
            rate_text(run.rate_ops),
            ms(run.opening_ns.median),
            ms(run.verification_ns.median),
            run.wire_bytes.total().to_string(),
        ]
    }));
    format!("prover {}\n{}", all.prover.display(), columns(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        let size: Size = "64:128:2".parse().unwrap();
        assert_eq!((size.0.n, size.0.k, size.0.rounds), (64, 128, 2));
        for wrong in ["", "64", "64:128", "64:128:2:1", "64:128:x", "33:64:1", "64:64:0"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
        assert!(defaults(&CPU_SIZES).is_ok() && defaults(&GPU_SIZES).is_ok());
    }

    #[test]
    fn the_median_stands_between_the_ends() {
        assert_eq!(Spread::of(vec![3, 1, 2]), Spread { median: 2, min: 1, max: 3 });
        assert_eq!(Spread::of(vec![4, 1, 3, 2]), Spread { median: 2, min: 1, max: 4 });
        assert_eq!(Spread::of(Vec::new()), Spread { median: 0, min: 0, max: 0 });
    }

    #[test]
    fn each_backend_proves_with_the_devices_it_has_and_none_twice() {
        let gpu = |n: u8| DeviceId([n; 16]);
        let two = || Ok(vec![gpu(1), gpu(2)]);
        let none = || Err("no NVIDIA driver".to_owned());
        let on_cpu = (Backend::Cpu, vec![DeviceId::cpu(0)]);
        assert_eq!(lists(&[Backend::Auto], &[], none()), Ok(vec![on_cpu.clone()]));
        assert_eq!(lists(&[Backend::Auto, Backend::Cpu], &[], none()), Ok(vec![on_cpu.clone()]));
        let both = lists(&[Backend::Cpu, Backend::Auto], &[], two());
        assert_eq!(both, Ok(vec![on_cpu, (Backend::Cuda, vec![gpu(1), gpu(2)])]));
        assert_eq!(lists(&[Backend::Cuda], &[gpu(2)], two()), Ok(vec![(Backend::Cuda, vec![gpu(2)])]));
        assert_eq!(lists(&[Backend::Cuda], &[gpu(3)], two()), Err(Exit::Usage));
        assert_eq!(lists(&[Backend::Cuda], &[], none()), Err(Exit::Unavailable));
        assert_eq!(lists(&[Backend::Auto], &[gpu(1)], none()), Err(Exit::Unavailable));
    }

    #[test]
    fn the_table_has_a_line_for_each_run() {
        let times = Measured {
            commits: vec![2_000_000_000, 1_000_000_000, 4_000_000_000],
            openings: vec![3_000_000],
            verifications: vec![1_350_000],
            wire: Some(WireBytes { requests: 500, roots: 300, openings: 4_000 }),
        };
        let work = Work::new(1024, 4096, 4).unwrap();
        let run = times.run(Backend::Cpu, DeviceId::cpu(0), work, 2, 3, 66);
        let shown = text(&Benchmark { prover: "/opt/compute-prover".into(), runs: vec![run] });
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3, "{shown}");
        let cells: Vec<&str> = lines[2].split_whitespace().collect();
        let expected = [
            "cpu", "CPU-0", "1024", "4096", "4", "2", "3", "2.000", "1.000", "4.000", "17.2", "Gop/s", "3.00", "1.35",
            "4800",
        ];
        assert_eq!(cells, expected);
    }
}
