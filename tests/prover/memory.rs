//! The memory proof through a child process: the honest one, and every way a child can go wrong on the way.

use compute_subnet::proof::memory::keys::ScanNonce;
use compute_subnet::proof::memory::{self, Challenge, Position, Size, sample_positions, verifier};
use compute_subnet::proof::prover::Filled;

use super::*;

const NONCE: ScanNonce = ScanNonce([9; 32]);
/// A shell's `printf` of the frame that says that memory is filled.
const FILLED: &str = r"printf '\000\000\000\000\034'";
const INSIDE: Position = Position { scan: 1, block: 15 };

fn challenge(blocks: u64, iterations: u32, scans: u32) -> Challenge {
    let size = Size::new(blocks, iterations, scans).unwrap();
    Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId([3; 16]), size }
}

/// The challenge of the published vector.
fn small() -> Challenge {
    challenge(16, 8, 2)
}

/// A fill that does not end within any test, of 64 MiB.
fn endless_fill() -> Challenge {
    challenge(1 << 16, 16_384, 1)
}

/// Scans that do not end while a test looks on, of 8 MiB.
fn endless_scans() -> Challenge {
    challenge(1 << 13, 1, 4096)
}

async fn failure_to_fill(prover: &ChildProver, challenge: &Challenge) -> ProverError {
    match tokio::time::timeout(LONG, prover.fill(challenge)).await.expect("an answer in time") {
        Ok(_) => panic!("there should be no memory"),
        Err(error) => error,
    }
}

async fn failure_to_scan(filled: &mut Box<dyn Filled>) -> ProverError {
    let scanned = tokio::time::timeout(LONG, filled.scan(&NONCE)).await.expect("an answer in time");
    scanned.expect_err("there should be no roots")
}

/// The honest child, in a process whose number is written to this file.
fn numbered(file: &Path) -> ChildProver {
    script(LONG, &format!("echo $$ > {}; exec {PROVER}", file.display()))
}

fn kill(pid: u32) {
    assert!(std::process::Command::new("/bin/kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
}

fn assert_killed(error: &ProverError) {
    let ProverError::Crashed { ended, .. } = error else { panic!("{error:?}") };
    assert!(ended.contains("signal: 9"), "{ended}");
    assert_eq!(error.cause(), UnknownCause::ProverCrashed);
}

#[tokio::test]
async fn the_child_gives_the_same_bytes_as_the_backend_in_this_process_and_scans_again_when_asked() {
    let challenge = small();
    let positions = sample_positions(&challenge.size, 20, &[1; 32]);
    let mut child = honest().fill(&challenge).await.unwrap();
    let mut here = InProcessProver { threads: 1 }.fill(&challenge).await.unwrap();
    for nonce in [ScanNonce([8; 32]), NONCE] {
        let roots = child.scan(&nonce).await.unwrap();
        assert_eq!(roots, here.scan(&nonce).await.unwrap());
        let openings = child.open(&positions).await.unwrap();
        assert_eq!(openings, here.open(&positions).await.unwrap());
        assert_eq!(child.open(&positions).await.unwrap(), openings, "the same positions may be asked again");
        let checked = verifier::check_openings(&challenge, &nonce, &roots, &positions, &openings);
        assert_eq!(checked, Ok(Checked { samples: 20 }));
        if nonce == NONCE {
            let published = "81901788ab1bcf8e4bc1469935d75fd2c6b7a17978590a1f5d84d9e68b467667";
            assert_eq!(roots[0].to_string(), published);
        }
    }
}

#[tokio::test]
async fn a_child_killed_while_it_fills_is_reported_with_the_signal() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pid");
    let prover = numbered(&file);
    let task = tokio::spawn(async move { failure_to_fill(&prover, &endless_fill()).await });
    kill(pid_in(&file).await);
    assert_killed(&task.await.unwrap());
}

#[tokio::test]
async fn a_child_killed_between_ready_and_scan_or_while_it_scans_takes_its_memory_with_it() {
    let dir = tempfile::tempdir().unwrap();
    for scanning in [false, true] {
        let file = dir.path().join(scanning.to_string());
        let mut filled = numbered(&file).fill(&endless_scans()).await.unwrap();
        let pid = pid_in(&file).await;
        let killer = async {
            if scanning {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            kill(pid);
        };
        let error = if scanning {
            tokio::join!(failure_to_scan(&mut filled), killer).0
        } else {
            killer.await;
            failure_to_scan(&mut filled).await
        };
        assert_killed(&error);
        assert!(!exists(pid), "it was reaped");
        for again in [failure_to_scan(&mut filled).await, filled.open(&[INSIDE]).await.unwrap_err()] {
            assert!(again.to_string().contains("it failed in a request before"), "{again}");
        }
    }
}

#[tokio::test]
async fn a_child_that_hangs_at_any_stage_is_killed_and_reaped_before_the_error_returns() {
    let dir = tempfile::tempdir().unwrap();
    let before = |stage: usize| match stage {
        0 => ":".to_owned(),
        1 => HELLO.to_owned(),
        2 => format!("{HELLO}; {FILLED}"),
        _ => format!(r"{HELLO}; {FILLED}; printf '\100\000\000\000\035'; printf '%064d' 0"),
    };
    for stage in 0..4 {
        let file = dir.path().join(stage.to_string());
        let text = format!("echo $$ > {}; {}; exec sleep 1000", file.display(), before(stage));
        let prover = script(SHORT, &text);
        let error = if stage < 2 {
            failure_to_fill(&prover, &small()).await
        } else {
            let mut filled = prover.fill(&small()).await.unwrap();
            if stage == 2 {
                failure_to_scan(&mut filled).await
            } else {
                filled.scan(&NONCE).await.unwrap();
                filled.open(&[INSIDE]).await.unwrap_err()
            }
        };
        assert!(matches!(error, ProverError::TimedOut { limit } if limit == SHORT), "stage {stage}: {error:?}");
        assert_eq!(error.cause(), UnknownCause::ProverHung);
        assert!(!exists(pid_in(&file).await));
    }
}

#[tokio::test]
async fn a_fill_longer_than_the_limit_is_killed() {
    let mut prover = honest();
    prover.limits.time = SHORT;
    assert!(matches!(failure_to_fill(&prover, &endless_fill()).await, ProverError::TimedOut { .. }));
}

#[tokio::test]
async fn answers_that_are_none_are_garbage_at_every_stage() {
    let stay = "exec sleep 1000";
    let to_fill = [
        ("exec yes".to_owned(), "expected the hello of a prover, version 1"),
        (format!(r"{HELLO}; printf '\001\000\000\000\034x'; {stay}"), "filled frame of 1 bytes"),
        (format!(r"{HELLO}; printf '\000\000\000\000\077'; {stay}"), "no frame has kind 63"),
        (format!(r"{HELLO}; printf '\000\000\000\000\021'; {stay}"), "a roots frame is no answer"),
    ];
    for (text, expected) in to_fill {
        let error = failure_to_fill(&script(LONG, &text), &small()).await;
        let ProverError::Garbage { what } = &error else { panic!("{text}: {error:?}") };
        assert!(what.contains(expected), "{text}: {what}");
        assert_eq!(error.cause(), UnknownCause::ProverGarbage);
    }
    let one_root = r"printf '\040\000\000\000\035'; printf '%032d' 0";
    let to_scan = [
        (one_root, "1 roots for 2 scans"),
        (FILLED, "a filled frame is no answer"),
        (r"printf '\001\000\000\000\035x'", "1 bytes are no multiple of 32"),
        (r"printf '\377\377\377\377\035'", "scan roots frame of 4294967295 bytes"),
    ];
    for (answer, expected) in to_scan {
        let prover = script(LONG, &format!("{HELLO}; {FILLED}; {answer}; {stay}"));
        let error = failure_to_scan(&mut prover.fill(&small()).await.unwrap()).await;
        assert!(matches!(&error, ProverError::Garbage { what } if what.contains(expected)), "{answer}: {error:?}");
    }
    let roots = r"printf '\100\000\000\000\035'; printf '%064d' 0";
    for (answer, expected) in [
        (r"printf '\003\000\000\000\036abc'", "3 bytes of openings, expected 112"),
        (r"printf '\003\000\000\000\022abc'", "a openings frame is no answer"),
    ] {
        let prover = script(LONG, &format!("{HELLO}; {FILLED}; {roots}; {answer}; {stay}"));
        let mut filled = prover.fill(&small()).await.unwrap();
        filled.scan(&NONCE).await.unwrap();
        let error = filled.open(&[INSIDE]).await.unwrap_err();
        assert!(matches!(&error, ProverError::Garbage { what } if what.contains(expected)), "{answer}: {error:?}");
    }
}

#[tokio::test]
async fn memory_above_the_limit_is_over_memory_before_it_is_filled() {
    let mut prover = honest();
    prover.limits.memory_bytes = 256 << 20;
    // A fill that would take for ever, and that is refused before it begins.
    for challenge in [challenge(1 << 32, 16_384, 1), challenge(1 << 18, 16_384, 1)] {
        let error = failure_to_fill(&prover, &challenge).await;
        assert!(matches!(error, ProverError::OverMemory { limit_bytes } if limit_bytes == 256 << 20), "{error:?}");
    }
    assert!(prover.fill(&small()).await.is_ok(), "the same limit is enough for little memory");
}

#[tokio::test]
async fn a_child_with_the_memory_that_the_size_is_said_to_take_can_do_it() {
    for (blocks, iterations, scans) in [(4, 1, 1), (2052, 1, 3), (64, 1, 4096)] {
        let challenge = challenge(blocks, iterations, scans);
        let mut prover = honest();
        prover.limits.memory_bytes = memory::cpu::memory_bytes(&challenge.size);
        prover.limits.threads = 16;
        let mut filled = prover.fill(&challenge).await.unwrap();
        filled.scan(&NONCE).await.unwrap();
        filled.open(&sample_positions(&challenge.size, 20, &[1; 32])).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_refused_leaves_the_memory_as_it_is() {
    let mut prover = honest();
    prover.limits.output_bytes = 1000;
    let many = failure_to_fill(&prover, &challenge(4, 1, 32)).await;
    assert_eq!(many.to_string(), "the prover refused: 32 roots are 1024 bytes; at most 1000 bytes are allowed");
    let mut filled = prover.fill(&small()).await.unwrap();
    let early = filled.open(&[INSIDE]).await.unwrap_err();
    assert_eq!(early.to_string(), "the prover refused: nothing is scanned yet");
    filled.scan(&NONCE).await.unwrap();
    for positions in [vec![INSIDE; 9], vec![INSIDE; 5000], vec![Position { scan: 2, ..INSIDE }]] {
        assert!(matches!(filled.open(&positions).await, Err(ProverError::Refused(_))));
    }
    assert_eq!(filled.open(&[INSIDE; 8]).await.unwrap().len(), 8 * small().size.opening_len());
}

#[tokio::test]
async fn dropping_memory_or_a_request_under_way_ends_the_child() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("filled");
    let filled = numbered(&file).fill(&small()).await.unwrap();
    let pid = pid_in(&file).await;
    assert!(exists(pid));
    drop(filled);
    until("the child of dropped memory ends", || !exists(pid)).await;

    let file = dir.path().join("filling");
    let prover = numbered(&file);
    let task = tokio::spawn(async move { prover.fill(&endless_fill()).await.map(drop) });
    let pid = pid_in(&file).await;
    task.abort();
    until("the child of a dropped fill ends", || !exists(pid)).await;

    let file = dir.path().join("scanning");
    let mut filled = numbered(&file).fill(&endless_scans()).await.unwrap();
    let pid = pid_in(&file).await;
    assert!(tokio::time::timeout(SHORT, filled.scan(&NONCE)).await.is_err());
    until("the child of a dropped scan ends", || !exists(pid)).await;
    assert!(failure_to_scan(&mut filled).await.to_string().contains("it failed in a request before"));
}

#[tokio::test]
async fn a_bye_or_the_end_of_its_input_ends_the_prover_in_the_middle_of_filling_and_scanning() {
    let fill = |challenge: Challenge| Frame::Fill { challenge, threads: 1 }.encode().unwrap();
    let scan = Frame::Scan { nonce_0: NONCE }.encode().unwrap();
    let bye = Frame::Bye.encode().unwrap();
    let filled = Frame::Filled.encode().unwrap();
    for requests in [vec![fill(endless_fill())], vec![fill(endless_fill()), bye.clone()]] {
        let (code, stdout, stderr) = run(&[], &[frames::HOST_HELLO.to_vec(), requests.concat()].concat()).await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""));
        assert_eq!(stdout, frames::PROVER_HELLO);
    }
    for last in [None, Some(bye)] {
        let (mut child, mut stdin, mut stdout) = raw().await;
        stdin.write_all(&fill(endless_scans())).await.unwrap();
        let mut answer = vec![0; filled.len()];
        stdout.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, filled);
        stdin.write_all(&scan).await.unwrap();
        if let Some(bye) = &last {
            stdin.write_all(bye).await.unwrap();
        } else {
            drop(stdin);
        }
        let ended = tokio::time::timeout(LONG, child.wait()).await.expect("an end in time").unwrap();
        assert!(ended.success());
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "no roots of scans that were not done");
    }
}

/// The prover itself, after both hellos.
async fn raw() -> (tokio::process::Child, tokio::process::ChildStdin, tokio::process::ChildStdout) {
    let mut child =
        Command::new(PROVER).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(&frames::HOST_HELLO).await.unwrap();
    frames::read_hello(&mut stdout, frames::PROVER_HELLO).await.unwrap();
    (child, stdin, stdout)
}

#[tokio::test]
async fn a_fill_takes_the_place_of_a_commitment_and_a_commitment_that_of_memory() {
    let (_child, mut stdin, mut stdout) = raw().await;
    let mut ask = async |frame: Frame| {
        frames::write_frame(&mut stdin, &frame).await.unwrap();
        match frames::read_frame(&mut stdout, frames::MAX_BODY).await.unwrap().unwrap() {
            Frame::Error { text, .. } => text,
            answer => answer.name().to_owned(),
        }
    };
    let commit = || Frame::Commit { challenge: super::small(), threads: 1 };
    let fill = || Frame::Fill { challenge: small(), threads: 1 };
    let open = || Frame::Open { positions: vec![] };
    let scan = || Frame::Scan { nonce_0: NONCE };
    let open_blocks = |block| Frame::OpenBlocks { positions: vec![Position { scan: 0, block }] };
    for (request, answer) in [
        (scan(), "no memory is filled"),
        (open_blocks(0), "no memory is filled"),
        (commit(), "roots"),
        (scan(), "no memory is filled"),
        (open(), "openings"),
        (fill(), "filled"),
        (open(), "nothing is committed yet"),
        (open_blocks(0), "nothing is scanned yet"),
        (scan(), "scan roots"),
        (open_blocks(16), "Position { scan: 0, block: 16 } is not in the memory"),
        (open_blocks(15), "block openings"),
        (scan(), "scan roots"),
        (fill(), "filled"),
        (open_blocks(0), "nothing is scanned yet"),
        (commit(), "roots"),
        (open_blocks(0), "no memory is filled"),
        (open(), "openings"),
    ] {
        let asked = request.name();
        assert_eq!(ask(request).await, answer, "{asked}");
    }
}

/// A driver that runs the kernels' sources on this machine's processor.
async fn stand_in() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proof/prover/cuda/emulator/libcuda.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let flags = ["-shared", "-fPIC", "-std=gnu11", "-O2", "-fno-strict-aliasing", "-D__CUDA_ARCH__=800"];
    let library = dir.path().join("libcuda.so"); // the first name that is looked for
    let compiled = Command::new(compiler).args(flags).arg(source).arg("-o").arg(&library).output().await.unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    dir
}

/// What the driver says at its end when all was given back.
const NOTHING_LEFT: &str = "left: 0 contexts, 0 modules, 0 streams, 0 allocations, 0 landings\n";

#[tokio::test]
async fn the_cuda_backend_proves_memory_through_a_drivers_interface() {
    let driver = stand_in().await;
    let mut child = Command::new(PROVER)
        .args(["--backend", "cuda"])
        .env("LD_LIBRARY_PATH", driver.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    stdin.write_all(&frames::HOST_HELLO).await.unwrap();
    frames::read_hello(&mut stdout, frames::PROVER_HELLO).await.unwrap();
    let mut ask = async |frame: Frame| {
        frames::write_frame(&mut stdin, &frame).await.unwrap();
        frames::read_frame(&mut stdout, frames::MAX_BODY).await.unwrap().unwrap()
    };
    let fill = |challenge: Challenge| Frame::Fill { challenge, threads: 1 };
    // The driver says that 16 GiB are free.
    let Frame::Error { text, .. } = ask(fill(challenge(1 << 24, 1, 1))).await else { panic!("that does not fit") };
    let told = "the cuda backend: the device has 17179869184 bytes of memory free, 17548968960 are needed";
    assert!(text.starts_with(told), "{text}");
    for (challenge, nonce) in [(small(), NONCE), (challenge(132, 2, 3), ScanNonce([8; 32]))] {
        let mut here = InProcessProver { threads: 1 }.fill(&challenge).await.unwrap();
        let expected = here.scan(&nonce).await.unwrap();
        assert_eq!(ask(fill(challenge.clone())).await, Frame::Filled);
        assert_eq!(ask(Frame::Scan { nonce_0: nonce }).await, Frame::ScanRoots { roots: expected });
        let positions = sample_positions(&challenge.size, 20, &[1; 32]);
        let expected = here.open(&positions).await.unwrap();
        let openings = ask(Frame::OpenBlocks { positions }).await;
        assert_eq!(openings, Frame::BlockOpenings { bytes: expected });
    }
    frames::write_frame(&mut stdin, &Frame::Bye).await.unwrap();
    let ended = tokio::time::timeout(LONG, child.wait_with_output()).await.unwrap().unwrap();
    assert!(ended.status.success());
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(stderr, NOTHING_LEFT);
}

#[tokio::test]
async fn the_selftest_of_gpus_compares_memory_and_measures_it() {
    let driver = stand_in().await;
    let device = DeviceId([3; 16]).to_string();
    let command = ["selftest-cuda", "--device", &device, "--memory-only"];
    let size = ["--memory-mib", "1", "--iterations", "1", "--scans", "2"];
    let path = driver.path();
    let ended = Command::new(PROVER).args(command).args(size).env("LD_LIBRARY_PATH", path).output().await.unwrap();
    let stdout = String::from_utf8(ended.stdout).unwrap();
    let stderr = String::from_utf8(ended.stderr).unwrap();
    assert_eq!((ended.status.code(), stderr.as_str()), (Some(0), NOTHING_LEFT), "{stdout}");
    let lines = |told: &str| stdout.lines().filter(|line| line.contains(told)).count();
    assert_eq!((lines(&device), lines("  memory      ")), (1, 9), "{stdout}");
    assert_eq!((lines(" scans  ok"), lines(" s  ok"), lines("WRONG")), (4, 1, 0), "{stdout}");
    assert_eq!((lines("filled in"), lines("GB/s proved"), lines("% of a copy's")), (1, 1, 1), "{stdout}");
}
