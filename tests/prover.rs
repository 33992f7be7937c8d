//! The prover as a child process: the honest one, and every way a child can go wrong.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use compute_subnet::ids::{DeviceId, Hotkey};
use compute_subnet::proof::frames::{self, Frame};
use compute_subnet::proof::prover::cuda::{self, CudaError};
use compute_subnet::proof::prover::{ChildProver, Commitment, InProcessProver, Prover, ProverError, ProverLimits};
use compute_subnet::proof::verifier::{Checked, check_openings, check_roots};
use compute_subnet::proof::{Challenge, Position, Work, sample_positions};
use compute_subnet::verdict::UnknownCause;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

#[path = "prover/memory.rs"]
mod memory;

const PROVER: &str = env!("CARGO_BIN_EXE_compute-prover");
/// Longer than any test may take; a test that meets it fails.
const LONG: Duration = Duration::from_secs(60);
/// Too short for what never ends; long enough for a script to begin on a busy machine.
const SHORT: Duration = Duration::from_secs(2);
/// A shell's `printf` of the prover's hello.
const HELLO: &str = r"printf 'cproofP\001'";

fn limits(time: Duration) -> ProverLimits {
    ProverLimits { time, memory_bytes: 1 << 30, output_bytes: 1 << 20, threads: 2 }
}

fn honest() -> ChildProver {
    ChildProver::new(PathBuf::from(PROVER), limits(LONG))
}

/// A child that runs a shell script.
fn script(time: Duration, text: &str) -> ChildProver {
    let args = vec![OsString::from("-c"), OsString::from(text)];
    ChildProver { args, ..ChildProver::new("/bin/sh".into(), limits(time)) }
}

fn challenge(n: u32, k: u32, rounds: u32) -> Challenge {
    let work = Work::new(n, k, rounds).unwrap();
    Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId([3; 16]), work }
}

fn small() -> Challenge {
    challenge(64, 128, 2)
}

/// A computation that does not end within any test.
fn endless() -> Challenge {
    challenge(8192, 4096, 256)
}

async fn failure(prover: &ChildProver, challenge: &Challenge) -> ProverError {
    match tokio::time::timeout(LONG, prover.commit(challenge)).await.expect("an answer in time") {
        Ok(_) => panic!("there should be no commitment"),
        Err(error) => error,
    }
}

/// Waits for a condition, at most [`LONG`].
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let all = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, all).await.unwrap_or_else(|_| panic!("waited too long: {what}"));
}

/// The number a script wrote to this file, once it is there.
async fn pid_in(file: &Path) -> u32 {
    let read = || std::fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'));
    until("the child writes its number", || read().is_some()).await;
    read().unwrap().trim().parse().unwrap()
}

/// Whether the process is there (a zombie is not gone: it was not reaped).
fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn the_child_gives_the_same_bytes_as_the_backend_in_this_process() {
    let challenge = small();
    let positions = sample_positions(&challenge.work, 20, &[1; 32]);
    let mut child = honest().commit(&challenge).await.unwrap();
    let mut here = InProcessProver { threads: 1 }.commit(&challenge).await.unwrap();
    assert_eq!(child.roots(), here.roots());
    assert_eq!(child.roots()[0].to_string(), "020c4f4b9fffb35f8c8c4065c699102c6700d1931e932e76ef5c15cc78ceaa27");
    check_roots(&challenge, child.roots()).unwrap();
    let openings = child.open(&positions).await.unwrap();
    assert_eq!(openings, here.open(&positions).await.unwrap());
    assert_eq!(check_openings(&challenge, child.roots(), &positions, &openings), Ok(Checked { samples: 20 }));
    assert_eq!(child.open(&positions).await.unwrap(), openings, "the same positions may be asked again");
}

fn with_backend(backend: &str) -> ChildProver {
    ChildProver { args: vec!["--backend".into(), backend.into()], ..honest() }
}

/// Whether this machine has CUDA's driver. These children are under a limit on address space that no CUDA lives with.
fn has_cuda() -> bool {
    !matches!(cuda::gpus(), Err(CudaError::NoDriver))
}

#[tokio::test]
async fn without_a_driver_the_cuda_backend_says_what_to_install() {
    if has_cuda() {
        return;
    }
    let error = failure(&with_backend("cuda"), &small()).await;
    assert_eq!(error.cause(), UnknownCause::DeviceFailed);
    for told in ["the cuda backend: there is no CUDA driver", "libcuda.so.1", "install NVIDIA's driver"] {
        assert!(error.to_string().contains(told), "{error}");
    }
    let (code, stdout, stderr) = run(&["selftest-cuda"], b"").await;
    assert_eq!((code, stdout.len()), (Some(69), 0));
    assert!(stderr.starts_with("compute-prover: there is no CUDA driver: libcuda.so.1 was not found"), "{stderr}");
}

#[tokio::test]
async fn the_auto_backend_proves_on_the_processor_what_no_gpu_here_can() {
    let mut challenges = vec![Challenge { device: DeviceId::cpu(0), ..small() }];
    if !has_cuda() {
        challenges.push(small());
    }
    for challenge in challenges {
        let made = with_backend("auto").commit(&challenge).await.unwrap();
        let expected = InProcessProver { threads: 1 }.commit(&challenge).await.unwrap();
        assert_eq!(made.roots(), expected.roots(), "{}", challenge.device);
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let prover = ChildProver::new("/nowhere/compute-prover".into(), limits(LONG));
    let error = failure(&prover, &small()).await;
    assert_eq!(error.to_string(), "the prover could not be started: running /nowhere/compute-prover");
    assert_eq!(error.cause(), UnknownCause::ProverCrashed);
}

#[tokio::test]
async fn a_child_that_ends_early_is_reported_with_status_and_last_words() {
    let error = failure(&script(LONG, "echo 'no luck' >&2; exit 3"), &small()).await;
    let ProverError::Crashed { ended, stderr_tail } = &error else { panic!("{error:?}") };
    assert_eq!((ended.as_str(), stderr_tail.as_str()), ("exit status: 3", "no luck"));
    assert_eq!(error.cause(), UnknownCause::ProverCrashed);
}

#[tokio::test]
async fn a_child_killed_in_the_middle_of_its_work_is_reported_with_the_signal() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let prover = script(LONG, &format!("echo $$ > {}; exec {PROVER}", file.display()));
    let task = tokio::spawn(async move { failure(&prover, &endless()).await });
    let pid = pid_in(&file).await;
    assert!(std::process::Command::new("/bin/kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    let error = task.await.unwrap();
    let ProverError::Crashed { ended, .. } = &error else { panic!("{error:?}") };
    assert!(ended.contains("signal: 9"), "{ended}");
}

#[tokio::test]
async fn a_child_that_hangs_is_killed_and_reaped_before_the_error_returns() {
    let dir = tempfile::tempdir().unwrap();
    for (i, before) in [":", HELLO].into_iter().enumerate() {
        let file = dir.path().join(i.to_string());
        let text = format!("echo $$ > {}; {before}; exec sleep 1000", file.display());
        let error = failure(&script(SHORT, &text), &small()).await;
        assert!(matches!(error, ProverError::TimedOut { limit } if limit == SHORT), "{error:?}");
        assert_eq!(error.cause(), UnknownCause::ProverHung);
        assert!(!exists(pid_in(&file).await));
    }
}

#[tokio::test]
async fn a_computation_longer_than_the_limit_is_killed() {
    let prover = ChildProver::new(PathBuf::from(PROVER), limits(SHORT));
    assert!(matches!(failure(&prover, &endless()).await, ProverError::TimedOut { .. }));
}

#[tokio::test]
async fn output_that_is_no_answer_is_garbage() {
    let cases = [
        ("exec yes".into(), "expected the hello of a prover, version 1"),
        ("exec cat".into(), "expected the hello of a prover, version 1"),
        (format!(r"{HELLO}; printf '\377\377\377\377\022'; exec sleep 1000"), "openings frame of 4294967295 bytes"),
        (format!(r"{HELLO}; printf '\000\000\000\000\077'; exec sleep 1000"), "no frame has kind 63"),
        (format!(r"{HELLO}; printf '\001\000\000\000\021x'; exec sleep 1000"), "1 bytes are no multiple of 32"),
        (format!(r"{HELLO}; printf '\000\000\000\000\003'; exec sleep 1000"), "a bye frame is no answer"),
    ];
    for (text, expected) in cases {
        let error = failure(&script(LONG, &text), &small()).await;
        let ProverError::Garbage { what } = &error else { panic!("{text}: {error:?}") };
        assert!(what.contains(expected), "{text}: {what}");
        assert_eq!(error.cause(), UnknownCause::ProverGarbage);
    }
}

#[tokio::test]
async fn a_wrong_number_of_roots_is_garbage() {
    let one_root = format!(r"{HELLO}; printf '\040\000\000\000\021'; printf '%032d' 0; exec sleep 1000");
    let error = failure(&script(LONG, &one_root), &small()).await;
    assert!(matches!(&error, ProverError::Garbage { what } if what == "1 roots for 2 rounds"), "{error:?}");
}

#[tokio::test]
async fn a_child_that_stops_after_its_roots_fails_each_opening_and_is_gone_after_the_first() {
    let roots = format!(r"{HELLO}; printf '\100\000\000\000\021'; printf '%064d' 0; exec sleep 1000");
    let mut commitment = script(SHORT, &roots).commit(&small()).await.unwrap();
    let positions = [Position { round: 0, row: 0, col: 0 }];
    assert!(matches!(commitment.open(&positions).await, Err(ProverError::TimedOut { .. })));
    assert!(matches!(commitment.open(&positions).await, Err(ProverError::Crashed { .. })));
}

#[tokio::test]
async fn openings_of_the_wrong_length_are_garbage() {
    let short = format!(
        r"{HELLO}; printf '\100\000\000\000\021'; printf '%064d' 0; printf '\003\000\000\000\022abc'; exec sleep 1000"
    );
    let mut commitment = script(LONG, &short).commit(&small()).await.unwrap();
    let error = commitment.open(&[Position { round: 0, row: 0, col: 0 }]).await.unwrap_err();
    assert!(matches!(&error, ProverError::Garbage { what } if what.starts_with("3 bytes of openings")), "{error:?}");
}

#[tokio::test]
async fn a_flood_on_stderr_neither_blocks_the_child_nor_fills_memory() {
    let text = "head -c 1000000 /dev/zero | tr '\\0' 'x' >&2; echo end >&2; exit 1";
    let error = failure(&script(LONG, text), &small()).await;
    let ProverError::Crashed { stderr_tail, .. } = &error else { panic!("{error:?}") };
    assert!(stderr_tail.len() <= 4096 && stderr_tail.ends_with("xend"), "{} bytes", stderr_tail.len());
}

#[tokio::test]
async fn the_child_gets_an_empty_environment() {
    let error = failure(&script(LONG, "env >&2; exit 1"), &small()).await;
    let ProverError::Crashed { stderr_tail, .. } = &error else { panic!("{error:?}") };
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "or the check below shows nothing");
    assert!(!stderr_tail.contains("CARGO"), "{stderr_tail}");
}

#[tokio::test]
async fn work_above_the_memory_limit_is_over_memory() {
    // B of one round alone is 512 MiB; the child may have 256.
    let mut prover = honest();
    prover.limits.memory_bytes = 256 << 20;
    let error = failure(&prover, &challenge(8192, 65_536, 1)).await;
    assert!(matches!(error, ProverError::OverMemory { limit_bytes } if limit_bytes == 256 << 20), "{error:?}");
    assert!(prover.commit(&small()).await.is_ok(), "the same limit is enough for small work");
}

#[tokio::test]
async fn a_child_with_the_memory_that_the_work_is_said_to_take_can_do_it() {
    for (n, k, rounds) in [(32, 64, 1), (64, 16_384, 1), (256, 64, 4)] {
        let challenge = challenge(n, k, rounds);
        let mut prover = honest();
        prover.limits.memory_bytes = challenge.work.memory_bytes();
        prover.limits.threads = 16;
        let mut commitment = prover.commit(&challenge).await.unwrap();
        commitment.open(&sample_positions(&challenge.work, 20, &[1; 32])).await.unwrap();
    }
}

#[tokio::test]
async fn a_limit_too_small_to_start_in_is_an_error_too() {
    let mut prover = honest();
    prover.limits.memory_bytes = 1 << 20;
    let error = failure(&prover, &small()).await;
    assert!(matches!(error, ProverError::Crashed { .. } | ProverError::OverMemory { .. }), "{error:?}");
}

#[tokio::test]
async fn openings_above_the_output_limit_or_outside_the_work_are_refused_and_cost_nothing() {
    let mut prover = honest();
    prover.limits.output_bytes = 10_000;
    let mut commitment = prover.commit(&small()).await.unwrap();
    let inside = Position { round: 1, row: 63, col: 63 };
    for positions in [vec![inside; 3], vec![inside; 5000], vec![Position { row: 64, ..inside }]] {
        assert!(matches!(commitment.open(&positions).await, Err(ProverError::Refused(_))));
    }
    assert_eq!(commitment.open(&[inside; 2]).await.unwrap().len(), 2 * small().work.opening_len());
}

#[tokio::test]
async fn dropping_a_commitment_or_its_future_ends_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("done");
    let started = |file: &Path| script(LONG, &format!("echo $$ > {}; exec {PROVER}", file.display()));
    let commitment: Box<dyn Commitment> = started(&file).commit(&small()).await.unwrap();
    let pid = pid_in(&file).await;
    assert!(exists(pid));
    drop(commitment);
    until("the child of a dropped commitment ends", || !exists(pid)).await;

    let file = dir.path().join("under-way");
    let prover = started(&file);
    let task = tokio::spawn(async move { prover.commit(&endless()).await.map(drop) });
    let pid = pid_in(&file).await;
    task.abort();
    until("the child of a dropped future ends", || !exists(pid)).await;
}

/// The prover itself, without the node's side: runs it with these bytes on stdin, then closes stdin.
async fn run(arguments: &[&str], input: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let mut child = Command::new(PROVER)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = tokio::time::timeout(LONG, child.wait_with_output()).await.expect("an end in time").unwrap();
    (output.status.code(), output.stdout, String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn the_end_of_its_input_ends_the_prover_even_in_the_middle_of_its_work() {
    let mut input = frames::HOST_HELLO.to_vec();
    input.extend(Frame::Commit { challenge: endless(), threads: 1 }.encode().unwrap());
    let (code, stdout, stderr) = run(&[], &input).await;
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, frames::PROVER_HELLO);
}

#[tokio::test]
async fn bytes_that_are_no_frames_end_the_prover_with_the_code_for_bad_data() {
    let (code, _, stderr) = run(&[], b"GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(code, Some(65));
    assert!(stderr.contains("expected the hello of a host, version 1"), "{stderr}");
    let mut input = frames::HOST_HELLO.to_vec();
    input.extend(Frame::Roots { roots: vec![] }.encode().unwrap());
    let (code, _, stderr) = run(&[], &input).await;
    assert_eq!(code, Some(65));
    assert!(stderr.contains("a roots frame, while a request was expected"), "{stderr}");
}

#[tokio::test]
async fn opening_before_committing_is_an_error_and_not_the_end() {
    let mut child =
        Command::new(PROVER).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(&frames::HOST_HELLO).await.unwrap();
    frames::read_hello(&mut stdout, frames::PROVER_HELLO).await.unwrap();
    frames::write_frame(&mut stdin, &Frame::Open { positions: vec![] }).await.unwrap();
    let answer = frames::read_frame(&mut stdout, frames::MAX_BODY).await.unwrap().unwrap();
    assert!(matches!(&answer, Frame::Error { text, .. } if text == "nothing is committed yet"), "{answer:?}");
    frames::write_frame(&mut stdin, &Frame::Bye).await.unwrap();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test]
async fn the_command_line_has_help_version_and_named_exit_codes() {
    let (code, stdout, _) = run(&["--help"], b"").await;
    assert_eq!(code, Some(0));
    assert!(String::from_utf8(stdout).unwrap().contains("selftest"));
    let (code, stdout, _) = run(&["--version"], b"").await;
    assert_eq!((code, stdout.starts_with(b"compute-prover 0.")), (Some(0), true));
    assert_eq!(run(&["--nonsense"], b"").await.0, Some(64));
    let (code, _, stderr) = run(&["--backend", "opencl"], b"").await;
    assert_eq!(code, Some(64));
    assert!(stderr.contains("expected cpu, cuda or auto"), "{stderr}");
    let (code, stdout, _) = run(&["selftest", "--vectors-only"], b"").await;
    assert_eq!(code, Some(0));
    let table = String::from_utf8(stdout).unwrap();
    assert_eq!(table.lines().filter(|line| line.contains(" ok ")).count(), 21, "{table}");
}
