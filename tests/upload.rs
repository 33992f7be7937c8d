//! The prover as it is uploaded into rented containers: what it is built from, what it asks of the system there, and that it works.
//!
//! `scripts/prover` builds it, with a linker that it installs: a minute or two. `scripts/test` runs this.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use compute_subnet::ids::{DeviceId, Hotkey};
use compute_subnet::proof::prover::{ChildProver, CudaChild, Prover, ProverLimits};
use compute_subnet::proof::verifier::{Checked, check_openings};
use compute_subnet::proof::{Challenge, Work, sample_positions};
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, ElfFile};
use object::{Endianness, SectionIndex};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The newest glibc that the prover may ask for: that of Debian 10, RHEL 8 and Ubuntu 18.10.
const NEWEST_GLIBC: [u32; 2] = [2, 28];
/// Libraries that are glibc's own, and there in every container with a GPU.
const LIBRARIES: [&str; 6] =
    ["libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "ld-linux-x86-64.so.2"];
/// The largest program that is still quickly uploaded, in bytes.
const MOST: u64 = 4 << 20;

/// The program, built once.
fn prover() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let built = Command::new(Path::new(ROOT).join("scripts/prover")).status().unwrap();
        assert!(built.success(), "scripts/prover ends with {built}");
        Path::new(ROOT).join("target/prover/compute-prover")
    })
}

fn cargo(arguments: &[&str]) -> String {
    let done = Command::new(env!("CARGO")).current_dir(ROOT).args(arguments).output().unwrap();
    assert!(done.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn it_asks_for_an_old_glibc_and_for_nothing_else() {
    let bytes = std::fs::read(prover()).unwrap();
    let file = ElfFile::<FileHeader64<Endianness>>::parse(&*bytes).unwrap();
    let (endian, sections) = (file.endian(), file.elf_section_table());

    let strings = |index: SectionIndex| sections.strings(endian, &*bytes, index).unwrap();
    let (dynamic, link) = sections.dynamic(endian, &*bytes).unwrap().expect("it is linked dynamically");
    let needed: Vec<_> = dynamic.iter().filter(|entry| entry.tag32(endian) == Some(DT_NEEDED)).collect();
    assert!(!needed.is_empty(), "a static program could not load CUDA's driver");
    for entry in needed {
        let library = std::str::from_utf8(entry.string(endian, strings(link)).unwrap()).unwrap();
        assert!(LIBRARIES.contains(&library), "it needs {library}");
    }

    let (mut files, link) = sections.gnu_verneed(endian, &*bytes).unwrap().expect("its symbols have versions");
    let mut versions = BTreeSet::new();
    while let Some((_, mut wanted)) = files.next().unwrap() {
        while let Some(version) = wanted.next().unwrap() {
            let name = std::str::from_utf8(version.name(endian, strings(link)).unwrap()).unwrap();
            let number = name.strip_prefix("GLIBC_").unwrap_or_else(|| panic!("{name} is no version of glibc"));
            versions.insert(number.split('.').map(|part| part.parse().unwrap()).collect::<Vec<u32>>());
        }
    }
    let newest = versions.last().expect("it has symbols of glibc");
    println!("{} bytes; the newest symbols are GLIBC_{newest:?}", bytes.len());
    assert!(newest[..2] <= NEWEST_GLIBC[..], "{newest:?}");
    assert!((1 << 20..MOST).contains(&(bytes.len() as u64)), "{} bytes", bytes.len());
}

#[test]
fn its_test_vectors_hold() {
    let done = Command::new(prover()).args(["selftest", "--vectors-only"]).env_clear().output().unwrap();
    let table = String::from_utf8(done.stdout).unwrap();
    assert_eq!(done.status.code(), Some(0), "{table}");
    assert_eq!(table.lines().filter(|line| line.contains(" ok ")).count(), table.lines().count());
    assert!(table.lines().count() >= 21, "{table}");
}

/// Commits and opens over frames, as a child under a node's limits.
async fn proves(cuda: Option<CudaChild>, device: DeviceId) {
    let limits =
        ProverLimits { time: Duration::from_secs(60), memory_bytes: 1 << 30, output_bytes: 1 << 20, threads: 2 };
    let work = Work::new(64, 128, 2).unwrap();
    let challenge = Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device, work };
    let child = ChildProver { cuda, ..ChildProver::new(prover().into(), limits) };
    let mut made = child.commit(&challenge).await.unwrap();
    let positions = sample_positions(&work, 66, &[1; 32]);
    let openings = made.open(&positions).await.unwrap();
    assert_eq!(check_openings(&challenge, made.roots(), &positions, &openings), Ok(Checked { samples: 66 }));
}

#[tokio::test]
async fn it_proves_over_frames() {
    proves(None, DeviceId::cpu(0)).await;
}

/// The driver is a stand-in that runs the kernels' sources on this machine's processor; how it is found is the real way.
#[tokio::test]
async fn it_loads_a_cuda_driver_at_run_time() {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(ROOT).join("src/proof/prover/cuda/emulator/libcuda.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let flags = ["-shared", "-fPIC", "-std=gnu11", "-O2", "-fno-strict-aliasing", "-D__CUDA_ARCH__=800", "-w"];
    let library = dir.path().join("libcuda.so");
    let compiled = Command::new(compiler).args(flags).arg(source).arg("-o").arg(&library).status().unwrap();
    assert!(compiled.success());
    let libraries = Some(dir.path().as_os_str().to_owned());
    proves(Some(CudaChild { cache: None, libraries }), DeviceId([3; 16])).await;
}

#[test]
fn it_is_built_from_nothing_that_only_the_nodes_need() {
    let manifest = std::fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).unwrap();
    // clap brings a copy of its own.
    let nodes: Vec<&str> =
        manifest.split("\"dep:").skip(1).filter_map(|rest| rest.split('"').next()).filter(|n| *n != "strsim").collect();
    for expected in ["actix", "subxt", "reqwest", "rusqlite", "schnorrkel", "rsa"] {
        assert!(nodes.contains(&expected), "{expected} is not the nodes' alone");
    }
    let tree = cargo(&["tree", "--locked", "--no-default-features", "-e", "normal", "--prefix", "none", "-f", "{p}"]);
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("blake3") && crates.contains("cudarc"), "{tree}");
    let both: Vec<_> = nodes.iter().filter(|name| crates.contains(*name)).collect();
    assert!(both.is_empty(), "{both:?} of {} crates", crates.len());
    println!("{} crates", crates.len());
}

#[test]
fn every_other_target_needs_the_nodes() {
    let metadata = cargo(&["metadata", "--locked", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "compute-subnet").unwrap();
    let named = |feature: Option<&str>| -> BTreeSet<&str> {
        let wanted = feature.map_or(serde_json::Value::Null, |feature| serde_json::json!([feature]));
        let targets = package["targets"].as_array().unwrap().iter();
        targets.filter(|t| t["required-features"] == wanted).map(|t| t["name"].as_str().unwrap()).collect()
    };
    assert_eq!(named(None), BTreeSet::from(["build-script-build", "compute-prover", "compute_subnet", "prover"]));
    assert_eq!(named(Some("sshd")), BTreeSet::from(["compute-sshd", "sshd"]));
    let all: BTreeSet<&str> =
        package["targets"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(named(None).len() + named(Some("sshd")).len() + named(Some("node")).len(), all.len());
}
