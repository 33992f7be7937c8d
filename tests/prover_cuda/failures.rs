//! Every way a prover can fail, through the miner's ChallengeRunner with real children: the verdict, its side, what the operator
//! is told, and that the next epoch works. The table is in `docs/proof.md`; `UPDATE_DOCS=1` writes it.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use compute_subnet::verdict::{FailReason, Side, UnknownCause};

use crate::stage::{Judged, Setup, Stage, work};

/// What is expected of a prover.
enum Expected {
    Pass,
    Unknown(UnknownCause),
    Fail(FailReason),
}
use Expected::{Fail, Pass, Unknown};

/// What is wrong, for one epoch.
struct Case {
    /// In words, for the table.
    what: &'static str,
    /// What the prover's shell does instead of being the prover: see [`Stage::shell`].
    shell: &'static str,
    /// What the stand-in for CUDA's driver does: see its source. A case with any is one of a GPU.
    faults: &'static str,
    setup: Setup,
    verdict: Expected,
    /// What the operator's log has, and the verdict's detail.
    told: &'static str,
}

const DEFAULT: Case = Case { what: "", shell: "", faults: "", setup: Setup::ORDINARY, verdict: Pass, told: "" };
const HASTY: Setup = Setup { time: Duration::from_secs(1), ..Setup::ORDINARY };
const GPU: Setup = Setup { gpu: true, ..Setup::ORDINARY };

fn cases() -> Vec<Case> {
    use FailReason as F;
    use UnknownCause as U;
    let crashed = || Unknown(U::ProverCrashed);
    let on_gpu =
        |what, faults, told| Case { what, faults, setup: GPU, verdict: Unknown(U::DeviceFailed), told, ..DEFAULT };
    let script = |what, shell, verdict, told| Case { what, shell, verdict, told, ..DEFAULT };
    let slow = |what, shell, verdict, told| Case { setup: HASTY, ..script(what, shell, verdict, told) };
    vec![
        script("nothing", "", Pass, ""),
        Case {
            setup: Setup { missing: true, ..Setup::ORDINARY },
            ..script("the prover is not there", "", crashed(), "could not be started: running")
        },
        script("killed before its hello", "kill -KILL $$", crashed(), "signal: 9 (SIGKILL)"),
        script("killed after its hello", "HELLO; kill -KILL $$", crashed(), "signal: 9 (SIGKILL)"),
        Case {
            faults: "cuLaunchKernel 3 kill",
            setup: GPU,
            ..script("killed while it commits", "", crashed(), "signal: 9 (SIGKILL)")
        },
        script(
            "killed between roots and openings, once: the commitment is made again",
            "ONCE REQUEST; ROOTS; kill -KILL $$",
            Pass,
            "",
        ),
        script("killed while it opens, once: likewise", "ONCE REQUEST; ROOTS; OPENING; kill -KILL $$", Pass, ""),
        script(
            "killed at every opening",
            "REQUEST; ROOTS; OPENING; kill -KILL $$",
            Fail(F::OpeningWithheld),
            "the prover ended early",
        ),
        slow("hangs before its hello", "exec sleep 1000", Unknown(U::ProverHung), "did not answer within 1s"),
        slow("hangs after its hello", "HELLO; exec sleep 1000", Unknown(U::ProverHung), "did not answer within 1s"),
        Case {
            faults: "cuStreamSynchronize 2 hang",
            setup: Setup { gpu: true, ..HASTY },
            ..script("hangs in the driver", "", Unknown(U::ProverHung), "did not answer within 1s")
        },
        slow(
            "a frame that comes byte by byte",
            r"HELLO; printf '\040\000\000\000\021'; while :; do printf x; sleep 0.2; done",
            Unknown(U::ProverHung),
            "did not answer within 1s",
        ),
        slow(
            "hangs at every opening",
            "REQUEST; ROOTS; exec sleep 1000",
            Fail(F::OpeningWithheld),
            "did not answer within 1s",
        ),
        script(
            "a frame that is cut short",
            r"HELLO; printf '\040\000\000\000\021abc'",
            crashed(),
            "the prover ended early (exit status: 0)",
        ),
        script(
            "a frame of 4 GiB",
            r"HELLO; printf '\377\377\377\377\022'; exec sleep 1000",
            Unknown(U::ProverGarbage),
            "openings frame of 4294967295 bytes",
        ),
        script(
            "a frame of no known kind",
            r"HELLO; printf '\000\000\000\000\077'; exec sleep 1000",
            Unknown(U::ProverGarbage),
            "no frame has kind 63",
        ),
        script("noise", "exec cat /dev/urandom", Unknown(U::ProverGarbage), "expected the hello of a prover"),
        script(
            "a root too many",
            "HELLO; TWO_ROOTS; exec sleep 1000",
            Unknown(U::ProverGarbage),
            "2 roots for 1 rounds",
        ),
        script(
            "openings of another length",
            r"REQUEST; ROOTS; printf '\003\000\000\000\022abc'; exec sleep 1000",
            Fail(F::OpeningWithheld),
            "3 bytes of openings, expected",
        ),
        script("openings that are zeros", "REQUEST; ROOTS; OPENING; ZEROS; exec sleep 1000", Fail(F::PathMismatch), ""),
        Case {
            setup: Setup { memory_bytes: 256 << 20, first: Some((8192, 65_536)), ..Setup::ORDINARY },
            ..script(
                "too little memory of the host, on the processor",
                "",
                crashed(),
                "the prover needs more memory than its limit of 268435456 bytes; raise prover.memory_limit_mib",
            )
        },
        Case {
            setup: Setup { memory_bytes: 6 << 20, ..GPU },
            ..script(
                "too little memory of the host, for a GPU",
                "",
                crashed(),
                "the prover needs more memory than its limit of 6291456 bytes; raise prover.memory_limit_mib",
            )
        },
        on_gpu(
            "too little free memory of the device",
            "memory 0 268435456",
            "the device has 268435456 bytes of memory free, 268",
        ),
        on_gpu(
            "the device refuses memory that it said was free",
            "cuMemAlloc_v2 2 2",
            "nvidia-smi shows what else uses it",
        ),
        on_gpu(
            "page-locked memory is refused for another reason",
            "cuMemHostAlloc 1 719",
            "allocating page-locked memory failed: CUDA_ERROR_LAUNCH_FAILED",
        ),
        on_gpu(
            "a driver that is too old",
            "version 0 11080",
            "the driver supports CUDA 11.8 only; install NVIDIA's driver 525 or later",
        ),
        on_gpu("a driver that does not start", "cuInit 1 999", "the CUDA driver does not start: CUDA_ERROR_UNKNOWN"),
        Case {
            setup: Setup { no_driver: true, ..GPU },
            ..on_gpu("no driver", "", "there is no CUDA driver: libcuda.so.1 was not found; install NVIDIA's driver")
        },
        on_gpu(
            "the GPU is not there any more",
            "cuInit 1 100",
            "the CUDA driver has no device GPU-03030303-0303-0303-0303-030303030303; it has none",
        ),
        on_gpu(
            "the GPU vanishes",
            "cuLaunchKernel 4 100",
            "the device is lost (launching a kernel: CUDA_ERROR_NO_DEVICE); nvidia-smi and the kernel's log (Xid) may say why",
        ),
        on_gpu(
            "the GPU has an error of its memory",
            "cuStreamSynchronize 3 214",
            "the device is lost (waiting for the device: CUDA_ERROR_ECC_UNCORRECTABLE)",
        ),
        on_gpu(
            "a kernel fails",
            "cuStreamSynchronize 2 719",
            "waiting for the device failed: CUDA_ERROR_LAUNCH_FAILED",
        ),
        on_gpu(
            "a kernel reaches for memory that is none",
            "cuMemcpyDtoHAsync_v2 1 700",
            "copying to the host failed: CUDA_ERROR_ILLEGAL_ADDRESS",
        ),
        Case {
            setup: Setup { operations: work().operations() - 1, ..Setup::ORDINARY },
            ..script(
                "a validator asks for more operations than the budget has",
                "",
                Unknown(U::BudgetRefused),
                "operations, at most",
            )
        },
        Case {
            setup: Setup { budget_bytes: work().memory_bytes() - 1, ..Setup::ORDINARY },
            ..script(
                "for more memory than a prover may have",
                "",
                Unknown(U::BudgetRefused),
                "bytes of memory, at most",
            )
        },
        Case {
            setup: Setup { device_bytes: 1 << 30, ..GPU },
            ..script(
                "for more memory than the GPU has",
                "",
                Unknown(U::BudgetRefused),
                "bytes of device memory, the device has 1073741824",
            )
        },
    ]
}

pub(crate) fn side(side: Side) -> &'static str {
    match side {
        Side::Miner => "miner",
        Side::Validator => "validator",
        Side::Network => "network",
    }
}

impl Expected {
    fn judged(&self) -> Judged {
        match self {
            Pass => Judged { verdict: "pass", reason: "none", side: "–" },
            Unknown(cause) => Judged { verdict: "unknown", reason: cause.label(), side: side(cause.side()) },
            // The miner is answerable for every fail.
            Fail(reason) => Judged { verdict: "fail", reason: reason.label(), side: "miner" },
        }
    }
}

/// The table as it is in the document.
fn table(cases: &[Case]) -> String {
    let mut out = "| what goes wrong | verdict | side | what the operator is told |\n|---|---|---|---|\n".to_owned();
    for case in cases {
        let Judged { verdict, reason, side } = case.verdict.judged();
        let verdict = if reason == "none" { verdict.to_owned() } else { format!("{verdict}, `{reason}`") };
        let told = if case.told.is_empty() { "–".to_owned() } else { format!("… {} …", case.told) };
        out += &format!("| {} | {verdict} | {side} | {told} |\n", case.what);
    }
    out
}

#[test]
fn the_document_has_the_table_of_failures() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proof.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let begin = "<!-- failures: made by tests/prover_cuda/failures.rs -->\n";
    let (before, rest) = document.split_once(begin).expect("docs/proof.md has a place for the table");
    let (shown, after) = rest.split_once("<!-- end -->").unwrap();
    let wanted = table(&cases());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{begin}{wanted}<!-- end -->{after}")).unwrap();
        return;
    }
    assert_eq!(shown, wanted, "run the test again with UPDATE_DOCS=1, and read what changed");
}

/// Does each of the jobs, eight at a time: most of them wait.
fn at_once<T: Send>(jobs: Vec<T>, job: impl Fn(T) + Sync) {
    let jobs = Mutex::new(jobs.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some(next) = { jobs.lock().unwrap().next() } {
                    job(next);
                }
            });
        }
    });
}

#[test]
fn every_failure_has_its_verdict_and_the_next_epoch_works() {
    at_once(cases(), |case| {
        actix::System::new().block_on(async {
            let stage = Stage::new(&case.setup);
            stage.shell(case.shell).await;
            stage.faults(case.faults);
            let (judged, detail) = stage.judged(1).await;
            assert_eq!(judged, case.verdict.judged(), "{}: {detail}", case.what);
            assert!(detail.contains(case.told), "{}: {detail}", case.what);
            let refused = matches!(case.verdict, Unknown(UnknownCause::BudgetRefused));
            assert_eq!(stage.was_started(), !refused && !case.setup.missing, "{}", case.what);
            if refused {
                return;
            }
            stage.heal().await;
            let (next, detail) = stage.judged(2).await;
            assert_eq!(next, Pass.judged(), "the epoch after {}: {detail}", case.what);
        });
    });
}

/// Calls whose failure nobody can do anything about: what they give back is gone with the process.
const GIVING_BACK: [&str; 5] =
    ["cuMemFree_v2", "cuMemFreeHost", "cuStreamDestroy_v2", "cuModuleUnload", "cuDevicePrimaryCtxRelease_v2"];

#[test]
fn a_device_that_fails_at_any_call_in_any_way_is_unknown_and_the_next_epoch_works() {
    // CUDA_ERROR_DEVICE_UNAVAILABLE, NO_DEVICE, ECC_UNCORRECTABLE, ILLEGAL_ADDRESS, LAUNCH_FAILED.
    at_once(vec![46, 100, 214, 700, 719], |code| {
        actix::System::new().block_on(async {
            let stage = Stage::new(&GPU);
            stage.shell("").await;
            stage.calls();
            assert_eq!(stage.judged(1).await.0, Pass.judged());
            // What is only told to people is no part of a proof.
            let told = ["cuDeviceGetName", "cuDeviceTotalMem_v2"];
            let calls = stage.calls().into_iter().filter(|call| !told.contains(&call.as_str()));
            let calls: BTreeSet<String> = calls.collect();
            assert!(calls.len() >= 20, "{calls:?}");
            let mut epoch = 2;
            for call in &calls {
                stage.faults(&format!("{call} 1 {code}"));
                let (judged, detail) = stage.judged(epoch).await;
                let expected = match GIVING_BACK.contains(&call.as_str()) {
                    true => Pass,
                    false => Unknown(UnknownCause::DeviceFailed),
                };
                assert_eq!(judged, expected.judged(), "{call} {code}: {detail}");
                assert!(
                    matches!(expected, Pass) || detail.contains("CUDA_ERROR_") || detail.contains("it has none"),
                    "{call}: {detail}"
                );
                epoch += 1;
            }
            stage.faults("");
            assert_eq!(stage.judged(epoch).await.0, Pass.judged());
        });
    });
}
