//! The program itself: what it is linked against and built from.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use object::Endianness;
use object::elf::{FileHeader64, PT_INTERP};
use object::read::elf::{ElfFile, ProgramHeader as _};

use crate::bed::program;

/// The largest program that is still quickly put into a container, in bytes.
const MOST: u64 = 8 << 20;

#[test]
fn it_needs_no_loader_and_no_library() {
    let bytes = std::fs::read(program()).unwrap();
    let file = ElfFile::<FileHeader64<Endianness>>::parse(&*bytes).unwrap();
    let kinds: Vec<u32> = file.elf_program_headers().iter().map(|header| header.p_type(file.endian())).collect();
    assert!(!kinds.is_empty() && !kinds.contains(&PT_INTERP), "it asks for a loader");
    let needed = file.elf_section_table().dynamic(file.endian(), &*bytes).unwrap();
    let needed = needed.map_or(0, |(entries, _)| {
        entries
            .iter()
            .filter(|e| object::read::elf::Dyn::tag32(*e, file.endian()) == Some(object::elf::DT_NEEDED))
            .count()
    });
    assert_eq!(needed, 0, "it asks for libraries");
    println!("{} bytes", bytes.len());
    assert!((1 << 20..MOST).contains(&(bytes.len() as u64)), "{} bytes", bytes.len());
}

#[test]
fn it_is_built_without_the_nodes() {
    let arguments = [
        "tree",
        "--locked",
        "--no-default-features",
        "--features",
        "sshd",
        "-e",
        "normal",
        "--prefix",
        "none",
        "-f",
        "{p}",
    ];
    let tree = Command::new(env!("CARGO")).current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).output().unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(crates.contains("russh") && crates.contains("pty-process"), "{tree}");
    for nodes in ["actix", "actix-web", "subxt", "reqwest", "rusqlite", "bollard", "schnorrkel", "openssl-sys"] {
        assert!(!crates.contains(nodes), "{nodes}");
    }
    println!("{} crates", crates.len());
}

#[test]
fn it_says_what_it_is_and_refuses_what_it_does_not_know() {
    let version = Command::new(program()).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap(), format!("compute-sshd {}\n", env!("CARGO_PKG_VERSION")));
    let wrong = Command::new(program()).arg("--port").output().unwrap();
    assert_eq!(wrong.status.code(), Some(64));
}

#[test]
fn without_its_host_key_it_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let run =
        |dir: &Path| Command::new(program()).arg("--dir").arg(dir).args(["--listen", "127.0.0.1:0"]).output().unwrap();
    let none = run(dir.path());
    assert_eq!(none.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&none.stderr).contains("host_key: No such file"), "{none:?}");
    std::fs::write(dir.path().join("host_key"), "secret words").unwrap();
    let wrong = run(dir.path());
    assert_eq!(wrong.status.code(), Some(65));
    assert!(!String::from_utf8_lossy(&wrong.stderr).contains("secret"), "{wrong:?}");
}
