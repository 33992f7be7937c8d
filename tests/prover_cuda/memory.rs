//! The memory of a GPU, by a child on the driver that stands in for CUDA's.

use std::time::Duration;

use compute_subnet::ids::{DeviceId, Hotkey};
use compute_subnet::proof::frames::{self, Frame};
use compute_subnet::proof::memory::keys::ScanNonce;
use compute_subnet::proof::memory::{Challenge, Position, Size, sample_positions};
use compute_subnet::proof::prover::{
    Backend, ChildProver, CudaChild, DeviceProver, InProcessProver, Prover, ProverError, ProverLimits,
};
use tokio::process::Command;

use crate::stand_in::StandIn;

const PROVER: &str = env!("CARGO_BIN_EXE_compute-prover");
/// Longer than any test may take; a test that meets it fails.
const LONG: Duration = Duration::from_secs(60);
/// A GPU of the stand-in.
const GPU: DeviceId = DeviceId([3; 16]);
const NONCE: ScanNonce = ScanNonce([9; 32]);

fn challenge(blocks: u64, iterations: u32, scans: u32) -> Challenge {
    let size = Size::new(blocks, iterations, scans).unwrap();
    Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: GPU, size }
}

/// The challenge of the published vector.
fn small() -> Challenge {
    challenge(16, 8, 2)
}

fn prover(driver: &StandIn) -> DeviceProver {
    let limits = ProverLimits { time: LONG, memory_bytes: 1 << 30, output_bytes: 1 << 20, threads: 2 };
    let cuda = CudaChild { cache: None, libraries: Some(driver.path().into()) };
    DeviceProver::new(Backend::Auto, ChildProver::new(PROVER.into(), limits), cuda)
}

#[tokio::test]
async fn nothing_but_the_scans_lies_between_nonce_and_roots() {
    let driver = StandIn::new();
    let challenge = small();
    let mut filled = prover(&driver).fill(&challenge).await.unwrap();
    driver.calls(); // recorded from here on
    let roots = filled.scan(&NONCE).await.unwrap();
    let mut calls = driver.calls();
    assert_eq!(roots[0].to_string(), "81901788ab1bcf8e4bc1469935d75fd2c6b7a17978590a1f5d84d9e68b467667");
    // Of each scan: coefficients, leaves, two levels, the root.
    let scan = ["cuLaunchKernel"; 4].into_iter().chain(["cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"]);
    let expected: Vec<&str> = scan.clone().chain(scan).collect();
    calls.retain(|call| !call.starts_with("cuCtx"));
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn a_child_that_waits_on_the_device_is_gone_before_its_memory_is_filled() {
    let (driver, dir) = (StandIn::new(), tempfile::tempdir().unwrap());
    let file = dir.path().join("pids");
    // Each child writes its number, and the second one which of all of them are there.
    let text = format!(
        "echo $$ >> {0}; for p in $(cat {0}); do [ -d /proc/$p ] && echo $p >> {0}.there; done",
        file.display()
    );
    let args = vec!["-c".into(), format!("{text}; exec {PROVER} \"$@\"").into(), "prover".into()];
    let limits = ProverLimits { time: LONG, memory_bytes: 1 << 30, output_bytes: 1 << 20, threads: 2 };
    let cuda = CudaChild { cache: None, libraries: Some(driver.path().into()) };
    let child = ChildProver { args, ..ChildProver::new("/bin/sh".into(), limits) };
    let prover = DeviceProver::new(Backend::Auto, child, cuda);
    prover.stand_by(&[GPU], true);
    let numbers = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    };
    let begun = async {
        while numbers("pids.there").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, begun).await.expect("a child starts in time");
    prover.fill(&small()).await.unwrap();
    // The first alone, then the second alone.
    assert_eq!(numbers("pids.there"), numbers("pids"));
    assert_eq!(numbers("pids").len(), 2);
}

#[tokio::test]
async fn a_device_that_fails_at_any_stage_is_told_and_the_next_memory_is_filled() {
    let driver = StandIn::new();
    let prover = prover(&driver);
    let told = |error: ProverError, expected: &str| {
        assert!(matches!(&error, ProverError::Device(text) if text.contains(expected)), "{error:?}");
    };
    for (fault, expected) in [
        ("cuMemAlloc_v2 1 2", "nvidia-smi shows what else uses it"),
        ("cuLaunchKernel 1 719", "launching a kernel failed: CUDA_ERROR_LAUNCH_FAILED"),
        ("cuStreamSynchronize 1 214", "the device is lost (waiting for the device: CUDA_ERROR_ECC_UNCORRECTABLE)"),
        ("memory 65536", "the device has 65536 bytes of memory free"),
    ] {
        driver.faults(&fault.replace("memory", "memory 0"));
        told(prover.fill(&small()).await.map(drop).unwrap_err(), expected);
        driver.faults("");
        let mut filled = prover.fill(&small()).await.unwrap();
        if fault.starts_with("cuMemAlloc") || fault.starts_with("memory") {
            continue;
        }
        driver.faults(fault);
        told(filled.scan(&NONCE).await.unwrap_err(), expected);
        assert!(filled.scan(&NONCE).await.unwrap_err().to_string().contains("it failed in a request before"));
        driver.faults("");
        drop(filled);
        let mut filled = prover.fill(&small()).await.unwrap();
        filled.scan(&NONCE).await.unwrap();
        driver.faults(fault);
        told(filled.open(&[Position { scan: 0, block: 0 }]).await.unwrap_err(), expected);
        driver.faults("");
    }
}

/// What the driver says at its end when all was given back.
const NOTHING_LEFT: &str = "left: 0 contexts, 0 modules, 0 streams, 0 allocations, 0 landings\n";

#[tokio::test]
async fn the_cuda_backend_proves_memory_through_a_drivers_interface() {
    let driver = StandIn::new();
    let (child, mut stdin, mut stdout) = driver.greeted().await;
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
    let driver = StandIn::new();
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
