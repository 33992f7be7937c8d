//! A CUDA driver, and a cublasLt, that run the kernels' sources on this machine's processor: in a directory for the dynamic linker
//! to find, with files beside that make their calls fail.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use compute_subnet::proof::frames;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, ChildStdout};

const EMULATOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/proof/prover/cuda/emulator");
/// What the libraries are compiled of.
const SOURCES: [&str; 6] = [
    include_str!("../../src/proof/prover/cuda/emulator/libcuda.c"),
    include_str!("../../src/proof/prover/cuda/emulator/libcublaslt.c"),
    include_str!("../../src/proof/prover/cuda/emulator/emulator.c"),
    include_str!("../../src/proof/prover/cuda/fill.cu"),
    include_str!("../../src/proof/prover/cuda/hash.cu"),
    include_str!("../../src/proof/prover/cuda/gemm.cu"),
];

/// A directory with a driver, and no cublasLt.
pub(crate) struct StandIn(TempDir);

impl StandIn {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The first name that is looked for.
        std::fs::copy(library("libcuda"), dir.path().join("libcuda.so")).unwrap();
        StandIn(dir)
    }

    /// With a cublasLt of CUDA 13 beside.
    pub(crate) fn with_cublaslt() -> Self {
        let here = StandIn::new();
        std::fs::copy(library("libcublaslt"), here.path().join("libcublasLt.so.13")).unwrap();
        here
    }

    /// A prover that finds this driver, greeted over its pipes.
    pub(crate) async fn greeted(&self) -> (Child, ChildStdin, ChildStdout) {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_compute-prover"))
            .args(["--backend", "cuda"])
            .env("LD_LIBRARY_PATH", self.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        stdin.write_all(&frames::HOST_HELLO).await.unwrap();
        frames::read_hello(&mut stdout, frames::PROVER_HELLO).await.unwrap();
        (child, stdin, stdout)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// From now on these lines say which calls fail: see the library's source.
    pub(crate) fn faults(&self, lines: &str) {
        // Put into place at once: a prover may be reading it.
        let fresh = self.path().join("faults.new");
        std::fs::write(&fresh, lines).unwrap();
        std::fs::rename(fresh, self.path().join("faults")).unwrap();
    }

    /// The calls since the last time this was asked, or since they are recorded: from the first time this is asked.
    pub(crate) fn calls(&self) -> Vec<String> {
        let file = self.path().join("calls");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        std::fs::write(&file, "").unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The calls that [`StandIn::calls`] would give, which it gives all the same.
    pub(crate) fn calls_so_far(&self) -> Vec<String> {
        std::fs::read_to_string(self.path().join("calls")).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// A library, compiled where it is not there yet.
fn library(name: &str) -> PathBuf {
    let mut hasher = blake3::Hasher::new();
    SOURCES.iter().for_each(|source| _ = hasher.update(source.as_bytes()));
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let library = dir.join(format!("{name}-{}.so", &hasher.finalize().to_hex()[..16]));
    if !library.is_file() {
        let fresh = tempfile::NamedTempFile::new_in(dir).unwrap().into_temp_path();
        let done = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
            .args(["-shared", "-fPIC", "-std=gnu11", "-O2", "-fno-strict-aliasing", "-D__CUDA_ARCH__=800"])
            .args(["-Wall", "-Wno-unknown-pragmas", "-Werror"])
            .arg(format!("{EMULATOR}/{name}.c"))
            .arg("-o")
            .arg(&fresh)
            .output()
            .expect("a C compiler, as the build needs one");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        fresh.persist(&library).unwrap();
    }
    library
}
