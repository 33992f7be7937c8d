//! The prover: computes proofs for a node over frames on stdin and stdout, and ends with its input.
//!
//! It prints nothing to stdout but frames (or, for `selftest` and `selftest-cuda`, a table); what went wrong goes to stderr.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::{Parser, Subcommand};
use compute_subnet::exit::Exit;
use compute_subnet::ids::{DeviceId, Hotkey};
use compute_subnet::proof::gemm::Kernel;
use compute_subnet::proof::memory::keys::ScanNonce;
use compute_subnet::proof::prover::{self, Backend, cuda};
use compute_subnet::proof::verifier::check_openings;
use compute_subnet::proof::{Challenge, Work, cpu, memory, sample_positions, selftest};

/// Computes proofs of work for a compute-miner, over length-bounded frames on stdin and stdout.
///
/// Without a command it serves frames and ends when its input ends. Exit codes: 0 ended in order, 64 wrong command
/// line, 65 the input is no frames (or a test vector does not hold), 69 a resource cannot be had.
#[derive(Parser)]
#[command(name = "compute-prover", version)]
struct Cli {
    /// What computes: the processor; the GPU that a challenge names; or that GPU if it is there, else the processor.
    #[arg(long, default_value_t, value_name = "cpu|cuda|auto")]
    backend: Backend,
    #[command(subcommand)]
    command: Option<Subcommands>,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Checks the proof's test vectors on this machine and measures the rate of one thread.
    Selftest {
        /// Checks the vectors only.
        #[arg(long)]
        vectors_only: bool,
    },
    /// Compares the cuda backend with the cpu backend on this machine's GPUs, and measures their rates.
    SelftestCuda {
        /// The GPU to use, as GPU-UUID; all of them if none is named.
        #[arg(long, value_name = "GPU-UUID")]
        device: Option<DeviceId>,
        /// The size of the measured products: n.
        #[arg(long, default_value_t = 32_768)]
        n: u32,
        /// The size of the measured products: k.
        #[arg(long, default_value_t = 65_536)]
        k: u32,
        /// Leaves the products out.
        #[arg(long)]
        memory_only: bool,
        /// MiB of the measured memory proof. Nothing larger is compared.
        #[arg(long, default_value_t = 4096)]
        memory_mib: u32,
        /// Iterations of the measured fill.
        #[arg(long, default_value_t = 256)]
        iterations: u32,
        /// Scans of the measured memory.
        #[arg(long, default_value_t = 64)]
        scans: u32,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let result = match cli.command {
        None => return prover::serve_stdio(cli.backend).into(),
        Some(Subcommands::Selftest { vectors_only }) => run_selftest(vectors_only),
        Some(Subcommands::SelftestCuda { device, n, k, memory_only, memory_mib, iterations, scans }) => {
            let product = (!memory_only).then_some((n, k));
            let size = memory::Size::new(u64::from(memory_mib) << 10, iterations, scans);
            size.context("the size of the measured memory").and_then(|size| run_selftest_cuda(device, product, &size))
        }
    };
    let (exit, result) = match result {
        Ok(true) => (Exit::Ok, Ok(())),
        Ok(false) => (Exit::Data, Err(anyhow::anyhow!("a test vector does not hold: this build must not be used"))),
        Err(error) => (Exit::Unavailable, Err(error)),
    };
    if let Err(error) = result {
        let _ = writeln!(std::io::stderr(), "compute-prover: {error:#}");
    }
    exit.into()
}

/// Whether every vector holds.
fn run_selftest(vectors_only: bool) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let checks = selftest::run().context("computing the test vectors")?;
    for check in &checks {
        let verdict = if check.holds() { "ok" } else { "WRONG" };
        writeln!(out, "{:<28} {verdict:<6} {}", check.name, check.found)?;
        if !check.holds() {
            writeln!(out, "{:<28} {:<6} {}", "", "", check.expected)?;
        }
    }
    let all_hold = checks.iter().all(selftest::Check::holds);
    if vectors_only {
        return Ok(all_hold);
    }
    let work = Work::new(512, 4096, 1).context("the size of the measured work")?;
    let challenge = Challenge { nonce: [0; 32], epoch: 0, hotkey: Hotkey([0; 32]), device: DeviceId::cpu(0), work };
    for kernel in [Some(Kernel::scalar()), Kernel::avx2()].into_iter().flatten() {
        let start = tokio::time::Instant::now();
        cpu::commit_with(&challenge, 1, kernel, &AtomicBool::new(false)).context("measuring the rate")?;
        let seconds = start.elapsed().as_secs_f64();
        let rate = work.operations() as f64 / seconds / 1e9;
        writeln!(out, "rate, one thread, {:<10} {rate:.1} G operations/s (n 512, k 4096)", kernel.name())?;
    }
    Ok(all_hold)
}

/// Sizes that are compared: one tile, the vectors' own, strips on both lanes, each lane more than once, long rows.
const COMPARED: [(u32, u32, u32); 6] =
    [(32, 64, 2), (64, 128, 2), (256, 1024, 2), (4096, 64, 1), (8192, 128, 2), (512, 65_536, 1)];

/// Sizes of memory that are compared: the vectors' own, the smallest, padding, less than a block of threads does and more.
const COMPARED_MEMORY: [(u64, u32, u32); 6] =
    [(16, 8, 2), (4, 1, 1), (36, 2, 3), (516, 16, 2), (4100, 8, 3), (65_536, 32, 8)];

/// Whether every root and opening of every GPU is the processor's. `product` is n and k of the measured products, if any are.
fn run_selftest_cuda(
    device: Option<DeviceId>,
    product: Option<(u32, u32)>,
    size: &memory::Size,
) -> anyhow::Result<bool> {
    let mut out = std::io::stdout().lock();
    let gpus = cuda::gpus()?;
    let gpus: Vec<_> = gpus.into_iter().filter(|gpu| device.is_none_or(|device| gpu.device == device)).collect();
    anyhow::ensure!(!gpus.is_empty(), "there is no such GPU; nvidia-smi -L lists them");
    let never = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut all_equal = true;
    for gpu in &gpus {
        let (major, minor) = gpu.capability;
        writeln!(out, "{}, {}, {major}.{minor}, {} MiB", gpu.device, gpu.name, gpu.memory >> 20)?;
        all_equal &= selftest_memory(&mut out, gpu.device, size)?;
        let Some((n, k)) = product else { continue };
        let measured = |rounds| Work::new(n, k, rounds).context("the size of the measured work");
        let (one, three) = (measured(1)?, measured(3)?);
        for multiplier in [cuda::Multiplier::Own, cuda::Multiplier::CublasLt] {
            let on_gpu = |challenge: &Challenge| cuda::commit_on(gpu.device, multiplier, challenge, threads, &never);
            let mut compared = 0;
            for (n, k, rounds) in COMPARED {
                let work = Work::new(n, k, rounds).context("a size that is compared")?;
                let challenge = Challenge { work, ..selftest::challenge().context("the vectors' challenge")? };
                let (made, by) = match on_gpu(&challenge) {
                    Ok(made) => made,
                    Err(error @ cuda::CudaError::Unusable(_)) if multiplier == cuda::Multiplier::CublasLt => {
                        writeln!(out, "  cublasLt    n {n:<6} k {k:<6} rounds {rounds}  left out: {error}")?;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let expected = cpu::commit(&challenge, threads, &never).context("the processor's roots")?;
                let positions = sample_positions(&work, 66, &[1; 32]);
                let openings = made.open(&positions, &never).context("the openings")?;
                let equal = made.roots() == expected.roots()
                    && check_openings(&challenge, made.roots(), &positions, &openings).is_ok();
                all_equal &= equal;
                compared += 1;
                let verdict = if equal { "ok" } else { "WRONG" };
                writeln!(out, "  {by:<10}  n {n:<6} k {k:<6} rounds {rounds}  {verdict}")?;
            }
            if compared == 0 {
                continue;
            }
            let time = |work: Work| -> anyhow::Result<(f64, &'static str)> {
                let challenge = Challenge { work, ..selftest::challenge().context("the vectors' challenge")? };
                let start = tokio::time::Instant::now();
                let (_, by) = on_gpu(&challenge).context("measuring the rate")?;
                Ok((start.elapsed().as_secs_f64(), by))
            };
            // The start is in both, so the difference is two rounds.
            let ((first, by), (all, _)) = (time(one)?, time(three)?);
            let round = (all - first) / 2.0;
            let rate = one.operations() as f64 / round / 1e12;
            writeln!(out, "  {by:<10}  n {n:<6} k {k:<6} {rate:.1} T operations/s")?;
            writeln!(out, "  {by:<10}  {round:.3} s a round; {first:.3} s for one round and the start")?;
        }
    }
    Ok(all_equal)
}

/// Whether every root and opening of this GPU's memory is the processor's; measures a proof of this size.
fn selftest_memory(out: &mut impl Write, gpu: DeviceId, measured: &memory::Size) -> anyhow::Result<bool> {
    let never = AtomicBool::new(false);
    let nonce_0 = ScanNonce([9; 32]);
    let vectors = selftest::memory_challenge().context("the vectors' challenge")?;
    let mut all_equal = true;
    for (blocks, iterations, scans) in COMPARED_MEMORY.into_iter().filter(|(blocks, ..)| *blocks <= measured.blocks()) {
        let size = memory::Size::new(blocks, iterations, scans).context("a size that is compared")?;
        let challenge = memory::Challenge { size, ..vectors.clone() };
        let expected = memory::cpu::fill(&challenge, 1, u64::MAX, &never)
            .and_then(|filled| filled.scan(nonce_0, &never))
            .context("the processor's roots")?;
        let positions = memory::sample_positions(&size, 66, &[1; 32]);
        let mut filled = cuda::fill_on(gpu, &challenge, &never)?;
        let equal = filled.scan(nonce_0, &never)? == expected.roots()
            && filled.open(&positions, &never)? == expected.open(&positions, &never).context("the openings")?;
        all_equal &= equal;
        let verdict = if equal { "ok" } else { "WRONG" };
        writeln!(out, "  memory      {blocks} blocks, {iterations} iterations, {scans} scans  {verdict}")?;
    }

    let (mib, iterations, scans) = (measured.bytes() >> 20, measured.iterations(), measured.scans());
    let challenge = memory::Challenge { size: *measured, ..vectors };
    let start = tokio::time::Instant::now();
    let mut filled = cuda::fill_on(gpu, &challenge, &never).context("measuring the fill")?;
    let seconds = start.elapsed().as_secs_f64();
    writeln!(out, "  memory      {mib} MiB, {iterations} iterations: filled in {seconds:.3} s, the start included")?;
    let start = tokio::time::Instant::now();
    let roots = filled.scan(nonce_0, &never).context("measuring the scans")?;
    let seconds = start.elapsed().as_secs_f64();
    let proved = measured.bytes() as f64 * f64::from(scans) / seconds;
    let rate = proved / 1e9;
    writeln!(out, "  memory      {mib} MiB, {scans} scans in {seconds:.3} s: {rate:.1} GB/s proved")?;
    let positions = memory::sample_positions(measured, 66, &[1; 32]);
    let start = tokio::time::Instant::now();
    let openings = filled.open(&positions, &never).context("measuring the openings")?;
    let seconds = start.elapsed().as_secs_f64();
    let holds = memory::verifier::check_openings(&challenge, &nonce_0, &roots, &positions, &openings).is_ok();
    let verdict = if holds { "ok" } else { "WRONG" };
    writeln!(out, "  memory      66 openings in {seconds:.3} s  {verdict}")?;
    drop(filled);

    // As much as fits twice, and enough that a launch is nothing beside it.
    let (bytes, times) = ((measured.bytes() / 2).min(2 << 30), 32u32);
    let mut start = tokio::time::Instant::now();
    cuda::copy_on(gpu, bytes, times, || start = tokio::time::Instant::now()).context("measuring a copy")?;
    let copied = 2.0 * bytes as f64 * f64::from(times) / start.elapsed().as_secs_f64();
    let (rate, share) = (copied / 1e9, 100.0 * proved / copied);
    writeln!(out, "  memory      a copy on the device reads and writes {rate:.1} GB/s")?;
    writeln!(out, "  memory      proved: {share:.1} % of a copy's")?;
    Ok(all_equal && holds)
}
