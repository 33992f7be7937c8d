//! The prover: computes proofs for a node over frames on stdin and stdout, and ends with its input.
//!
//! It prints nothing to stdout but frames (or, for `selftest`, its table); what went wrong goes to stderr.

use std::io::Write;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::{Parser, Subcommand};
use compute_subnet::exit::Exit;
use compute_subnet::ids::{DeviceId, Hotkey};
use compute_subnet::proof::gemm::Kernel;
use compute_subnet::proof::prover;
use compute_subnet::proof::{Challenge, Work, cpu, selftest};

/// Computes proofs of work for a compute-miner, over length-bounded frames on stdin and stdout.
///
/// Without a command it serves frames and ends when its input ends. Exit codes: 0 ended in order, 64 wrong command
/// line, 65 the input is no frames (or a test vector does not hold), 69 a resource cannot be had.
#[derive(Parser)]
#[command(name = "compute-prover", version)]
struct Cli {
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
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    let (exit, result) = match cli.command {
        None => return prover::serve_stdio().into(),
        Some(Subcommands::Selftest { vectors_only }) => match run_selftest(vectors_only) {
            Ok(true) => (Exit::Ok, Ok(())),
            Ok(false) => (Exit::Data, Err(anyhow::anyhow!("a test vector does not hold: this build must not be used"))),
            Err(error) => (Exit::Unavailable, Err(error)),
        },
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
