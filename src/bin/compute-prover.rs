//! The prover: computes proofs for a node over frames on stdin and stdout, and ends with its input.
//!
//! It prints nothing to stdout but frames (or, for `selftest`, its table); what went wrong goes to stderr.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use clap::{Parser, Subcommand};
use compute_subnet::exit::Exit;
use compute_subnet::ids::{DeviceId, Hotkey};
use compute_subnet::proof::frames::FrameError;
use compute_subnet::proof::gemm::Kernel;
use compute_subnet::proof::prover::{self, ServeError};
use compute_subnet::proof::{Challenge, Work, cpu, selftest};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;

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
        None => serve(),
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

/// Serves frames until the input ends. The work's own threads are the backend's; this needs one for the pipe.
fn serve() -> (Exit, anyhow::Result<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().thread_stack_size(512 * 1024).enable_io().build();
    let runtime = match runtime.context("starting the runtime") {
        Ok(runtime) => runtime,
        Err(error) => return (Exit::Unavailable, Err(error)),
    };
    let served = runtime.block_on(async {
        let input: Box<dyn AsyncRead + Send + Unpin> = match pipe::Receiver::from_owned_fd(own(std::io::stdin())?) {
            Ok(pipe) => Box::new(pipe),
            Err(_) => Box::new(tokio::fs::File::from_std(own(std::io::stdin())?.into())),
        };
        let output: Box<dyn AsyncWrite + Send + Unpin> = match pipe::Sender::from_owned_fd(own(std::io::stdout())?) {
            Ok(pipe) => Box::new(pipe),
            Err(_) => Box::new(tokio::fs::File::from_std(own(std::io::stdout())?.into())),
        };
        prover::serve(input, output).await
    });
    // A read of a file or terminal that is under way cannot be cancelled; nothing is lost by leaving it.
    runtime.shutdown_background();
    match served {
        Ok(()) => (Exit::Ok, Ok(())),
        Err(error @ (ServeError::Frame(_) | ServeError::Unexpected(..))) => (Exit::Data, Err(error.into())),
    }
}

/// A standard stream without the buffer and the lock of the standard library. A pipe then needs no thread of its own,
/// which a tight memory limit might refuse; files and terminals do.
fn own(stream: impl AsFd) -> Result<OwnedFd, FrameError> {
    stream.as_fd().try_clone_to_owned().map_err(FrameError::Io)
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
