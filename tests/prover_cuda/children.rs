//! What the children get, what they do, and what is done before a challenge comes.

use std::path::PathBuf;
use std::time::Duration;

use compute_subnet::ids::{DeviceId, Hotkey};
use compute_subnet::proof::frames::{self, Frame};
use compute_subnet::proof::memory::keys::ScanNonce;
use compute_subnet::proof::prover::{
    Backend, ChildProver, Commitment, CudaChild, DeviceProver, InProcessProver, Prover, ProverError, ProverLimits,
};
use compute_subnet::proof::verifier::{Checked, check_openings};
use compute_subnet::proof::{Challenge, Root, Work, memory, sample_positions};

use crate::stand_in::StandIn;

const PROVER: &str = env!("CARGO_BIN_EXE_compute-prover");
/// Longer than any test may take; a test that meets it fails.
const LONG: Duration = Duration::from_secs(60);
/// A GPU of the stand-in.
const GPU: DeviceId = DeviceId([3; 16]);

fn limits() -> ProverLimits {
    ProverLimits { time: LONG, memory_bytes: 1 << 30, output_bytes: 1 << 20, threads: 2 }
}

fn challenge(device: DeviceId, n: u32, nonce: u8) -> Challenge {
    let work = Work::new(n, 128, 2).unwrap();
    Challenge { nonce: [nonce; 32], epoch: 7, hotkey: Hotkey([2; 32]), device, work }
}

fn cuda(stand_in: &StandIn) -> CudaChild {
    CudaChild { cache: None, libraries: Some(stand_in.path().into()) }
}

fn prover(stand_in: &StandIn) -> DeviceProver {
    DeviceProver::new(Backend::Auto, ChildProver::new(PathBuf::from(PROVER), limits()), cuda(stand_in))
}

async fn expected(challenge: &Challenge) -> Vec<Root> {
    InProcessProver { threads: 1 }.commit(challenge).await.unwrap().roots().to_vec()
}

async fn opens(made: &mut Box<dyn Commitment>, challenge: &Challenge) {
    let positions = sample_positions(&challenge.work, 20, &[1; 32]);
    let openings = made.open(&positions).await.unwrap();
    assert_eq!(check_openings(challenge, made.roots(), &positions, &openings), Ok(Checked { samples: 20 }));
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

/// What goes through the driver's interface arrives, and all of it is given back.
#[tokio::test]
async fn the_cuda_backend_gives_the_published_roots_through_a_drivers_interface() {
    let stand_in = StandIn::new();
    let small = challenge(GPU, 64, 1);
    let other = Challenge { device: DeviceId([9; 16]), ..small.clone() };
    for (challenge, expected) in [
        (small.clone(), None),
        (other, Some("the CUDA driver has no device GPU-09090909-0909-0909-0909-090909090909; it has GPU-02020202-")),
    ] {
        let (child, mut stdin, mut stdout) = stand_in.greeted().await;
        frames::write_frame(&mut stdin, &Frame::Commit { challenge, threads: 1 }).await.unwrap();
        let answer = frames::read_frame(&mut stdout, frames::MAX_BODY).await.unwrap().unwrap();
        match (&answer, expected) {
            (Frame::Roots { roots }, None) => {
                assert_eq!(*roots, self::expected(&small).await);
                assert_eq!(roots[0].to_string(), "020c4f4b9fffb35f8c8c4065c699102c6700d1931e932e76ef5c15cc78ceaa27");
            }
            (Frame::Error { text, .. }, Some(told)) => assert!(text.contains(told), "{text}"),
            _ => panic!("{answer:?}"),
        }
        frames::write_frame(&mut stdin, &Frame::Bye).await.unwrap();
        let ended = tokio::time::timeout(LONG, child.wait_with_output()).await.unwrap().unwrap();
        assert!(ended.status.success());
        let stderr = String::from_utf8(ended.stderr).unwrap();
        let nothing = "left: 0 contexts, 0 modules, 0 streams, 0 allocations, 0 landings";
        assert!(stderr.lines().all(|line| line == nothing) && !stderr.is_empty(), "{stderr}");
    }
}

#[tokio::test]
async fn each_device_is_proved_by_what_it_needs() {
    let stand_in = StandIn::new();
    stand_in.calls();
    let prover = prover(&stand_in);
    for (device, uses_cuda) in [(GPU, true), (DeviceId::cpu(0), false)] {
        let challenge = challenge(device, 64, 1);
        let mut made = prover.commit(&challenge).await.unwrap();
        assert_eq!(made.roots(), expected(&challenge).await, "{device}");
        opens(&mut made, &challenge).await;
        assert_eq!(!stand_in.calls().is_empty(), uses_cuda, "{device}");
    }
}

#[tokio::test]
async fn what_computes_for_a_device_is_told_with_the_remedy() {
    let stand_in = StandIn::with_cublaslt();
    let gone = DeviceId([9; 16]);
    let told = async || {
        let all = prover(&stand_in).explain(&[GPU, gone, DeviceId::cpu(0)]).await;
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    // A driver of CUDA 12 takes no library of CUDA 13, and what else this machine may have is not for this test.
    let old = told().await;
    let gpu = "GPU-03030303-0303-0303-0303-030303030303: cuda, compute capability 8.6, driver for CUDA";
    assert!(old[0].starts_with(&format!("{gpu} 12.0, products by ")), "{old:?}");
    assert!(old[1].contains("it is not among the GPUs that CUDA's driver offers (2); look at nvidia-smi"), "{old:?}");
    assert_eq!(old[2], "CPU-0: cpu, it is a CPU");
    stand_in.faults("version 0 13000");
    assert_eq!(told().await[0], format!("{gpu} 13.0, products by cublasLt 13 (libcublasLt.so.13)"));
    stand_in.faults("version 0 11080");
    let refused = told().await;
    assert!(
        refused[0].contains("the driver supports CUDA 11.8 only; install NVIDIA's driver 525 or later"),
        "{refused:?}"
    );
    stand_in.faults("cuInit 1 999");
    assert!(told().await[0].contains("the CUDA driver does not start: CUDA_ERROR_UNKNOWN"), "{:?}", told().await);
    let nowhere = ChildProver::new("/nowhere/compute-prover".into(), limits());
    let all = DeviceProver::new(Backend::Auto, nowhere, cuda(&stand_in)).explain(&[GPU]).await;
    assert!(all[0].why.contains("could not be asked: the prover could not be started"), "{all:?}");
}

#[tokio::test]
async fn products_by_cublaslt_of_cuda_13_are_those_of_the_processor() {
    let stand_in = StandIn::with_cublaslt();
    stand_in.faults("version 0 13000");
    let prover = prover(&stand_in);
    // The library takes the larger one and has nothing for the smaller, which the own kernel does then.
    for n in [64, 32] {
        stand_in.calls();
        let challenge = challenge(GPU, n, 5);
        let made = prover.commit(&challenge).await.unwrap();
        assert_eq!(made.roots(), expected(&challenge).await, "n {n}");
        let launches = stand_in.calls().iter().filter(|call| *call == "cuLaunchKernel").count();
        // Of two rounds: B, A, the product, the hashes, and each level of the tree.
        let (tree, product) = (challenge.work.depth() as usize, usize::from(n < 64));
        assert_eq!(launches, 2 * (3 + product + tree), "n {n}");
    }
}

#[tokio::test]
async fn a_child_for_gpus_gets_what_cuda_needs_and_nothing_else() {
    // The limits are set by then: the host speaks afterwards.
    let args = vec![
        "-c".into(),
        "head -c 8 >/dev/null; env | sort >&2; ulimit -v >&2; ulimit -d >&2; exit 1".into(),
        "prover".into(),
    ];
    let child = ChildProver { args, ..ChildProver::new("/bin/sh".into(), limits()) };
    let told = async |cuda: CudaChild| {
        let prover = DeviceProver::new(Backend::Auto, child.clone(), cuda);
        let error = prover.commit(&challenge(GPU, 64, 1)).await.map(drop).unwrap_err();
        let ProverError::Crashed { stderr_tail, .. } = error else { panic!("{error:?}") };
        // What the shell sets by itself.
        let lines = stderr_tail.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with("_="));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let device = "CUDA_VISIBLE_DEVICES=GPU-03030303-0303-0303-0303-030303030303";
    // The address space has no limit; private memory has that of a child, in KiB.
    let limits = ["unlimited", "1048576"];
    let bare = told(CudaChild::default()).await;
    assert_eq!(bare, ["CUDA_CACHE_DISABLE=1", device, "MALLOC_ARENA_MAX=1", limits[0], limits[1]]);
    let full = told(CudaChild { cache: Some("/var/cache".into()), libraries: Some("/opt/a:/opt/b".into()) }).await;
    let cache = "CUDA_CACHE_PATH=/var/cache";
    assert_eq!(full, [cache, device, "LD_LIBRARY_PATH=/opt/a:/opt/b", "MALLOC_ARENA_MAX=1", limits[0], limits[1]]);
}

#[tokio::test]
async fn a_device_that_was_made_ready_has_nothing_left_to_do_but_the_proof() {
    let stand_in = StandIn::with_cublaslt();
    stand_in.faults("version 0 13000");
    let prover = prover(&stand_in);
    // What it did last is what it is made ready for.
    prover.commit(&challenge(GPU, 64, 1)).await.unwrap();
    stand_in.calls();
    prover.stand_by(&[GPU, DeviceId::cpu(0)], true);
    let is_ready = || {
        let calls = stand_in.calls_so_far();
        calls.iter().any(|call| call == "cuMemcpyDtoHAsync_v2")
            && calls.ends_with(&["cuLaunchKernel".into(), "cuStreamSynchronize".into()])
    };
    until("the device is ready", is_ready).await;
    let before = stand_in.calls();
    prover.stand_by(&[GPU], true);

    let next = challenge(GPU, 64, 2);
    let mut made = prover.commit(&next).await.unwrap();
    let during = stand_in.calls();
    assert_eq!(made.roots(), expected(&next).await);
    opens(&mut made, &next).await;
    for slow in
        ["cuInit", "cuDevicePrimaryCtxRetain", "cuModuleLoadData", "cuMemAlloc_v2", "cuMemHostAlloc", "cuStreamCreate"]
    {
        assert!(before.iter().any(|call| call == slow), "{slow} is done before: {before:?}");
        assert!(!during.iter().any(|call| call == slow), "{slow} is not done again: {during:?}");
    }
    // It was handed over: the next one starts anew, also for work of another size.
    let third = challenge(GPU, 128, 3);
    assert_eq!(prover.commit(&third).await.unwrap().roots(), expected(&third).await);
    assert!(stand_in.calls().iter().any(|call| call == "cuInit"));
}

#[tokio::test]
async fn a_child_that_waits_is_gone_when_its_device_is_not_wanted_any_more() {
    let (stand_in, dir) = (StandIn::new(), tempfile::tempdir().unwrap());
    let file = dir.path().join("pid");
    let script = format!("echo $$ > {}; exec {PROVER} \"$@\"", file.display());
    let child = ChildProver {
        args: vec!["-c".into(), script.into(), "prover".into()],
        ..ChildProver::new("/bin/sh".into(), limits())
    };
    let prover = DeviceProver::new(Backend::Auto, child, cuda(&stand_in));
    let pid = || std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'));
    let exists = |pid: &str| std::path::Path::new("/proc").join(pid.trim()).exists();

    prover.stand_by(&[GPU], false);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(pid().is_none(), "a proof is under way: nothing is begun");
    prover.stand_by(&[GPU], true);
    until("the child starts", || pid().is_some()).await;
    let first = pid().unwrap();
    assert!(exists(&first));
    // It is rented, or no turn is near any more.
    prover.stand_by(&[], false);
    until("the child ends", || !exists(&first)).await;
}

#[tokio::test]
async fn memory_that_is_filled_has_its_device_alone() {
    let stand_in = StandIn::new();
    let prover = prover(&stand_in);
    stand_in.calls();
    prover.stand_by(&[GPU], true);
    until("it is opened", || stand_in.calls_so_far().iter().any(|call| call == "cuModuleGetFunction")).await;
    let size = memory::Size::new(16, 8, 2).unwrap();
    let challenge = memory::Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: GPU, size };
    let mut filled = prover.fill(&challenge).await.unwrap();
    stand_in.calls();
    prover.stand_by(&[GPU], true);
    let nonce = ScanNonce([9; 32]);
    let roots = filled.scan(&nonce).await.unwrap();
    let mut here = InProcessProver { threads: 1 }.fill(&challenge).await.unwrap();
    assert_eq!(roots, here.scan(&nonce).await.unwrap());
    let positions = memory::sample_positions(&size, 20, &[1; 32]);
    assert_eq!(filled.open(&positions).await.unwrap(), here.open(&positions).await.unwrap());
    assert!(!stand_in.calls().contains(&"cuInit".to_owned()), "no other child opens the device");
    drop(filled);
    prover.stand_by(&[GPU], true);
    until("a child opens it again", || stand_in.calls_so_far().contains(&"cuInit".to_owned())).await;
}

#[tokio::test]
async fn a_child_that_cannot_be_made_ready_or_dies_while_it_waits_costs_its_device_nothing() {
    let stand_in = StandIn::new();
    let prover = prover(&stand_in);
    stand_in.calls();
    stand_in.faults("cuModuleLoadData 1 kill");
    prover.stand_by(&[GPU], true);
    until("it is tried", || stand_in.calls_so_far().iter().any(|call| call == "cuModuleLoadData")).await;
    stand_in.faults("");
    let first = challenge(GPU, 64, 1);
    assert_eq!(prover.commit(&first).await.unwrap().roots(), expected(&first).await);

    // The device was lost while it waited, and is there again for a new child.
    let another = self::prover(&stand_in);
    stand_in.calls();
    another.stand_by(&[GPU], true);
    until("it is ready", || stand_in.calls_so_far().iter().filter(|call| *call == "cuModuleGetFunction").count() >= 4)
        .await;
    stand_in.faults("cuMemGetInfo_v2 1 46");
    let second = challenge(GPU, 64, 2);
    let lost = another.commit(&second).await.map(drop).unwrap_err();
    assert!(lost.to_string().contains("CUDA_ERROR_DEVICE_UNAVAILABLE"), "{lost}: the new child fails as well");
    stand_in.faults("");
    assert_eq!(another.commit(&second).await.unwrap().roots(), expected(&second).await);
}

#[tokio::test]
async fn a_limit_on_private_memory_holds_for_a_child_that_reserves_a_tebibyte() {
    let stand_in = StandIn::new();
    let small = ProverLimits { memory_bytes: 6 << 20, ..limits() };
    let of =
        |limits| DeviceProver::new(Backend::Auto, ChildProver::new(PathBuf::from(PROVER), limits), cuda(&stand_in));
    let challenge = challenge(GPU, 64, 1);
    let error = of(small).commit(&challenge).await.map(drop).unwrap_err();
    assert!(matches!(error, ProverError::OverMemory { limit_bytes } if limit_bytes == 6 << 20), "{error:?}");
    assert!(of(limits()).commit(&challenge).await.is_ok(), "although the driver has reserved more than that");
}
