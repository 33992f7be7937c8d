//! What a new devnet does with the directory it finds: never take away what is not an ended devnet's.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::path::Path;
use std::process::{Command, Output};

use compute_subnet::exit::Exit;

/// Starts a devnet in `dir` that has no miners, so that it ends once its directory is prepared.
fn start(dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_compute-devnet"))
        .args(["--miners", "0", "--node.data_dir"])
        .arg(dir)
        .env("HOME", dir.parent().unwrap())
        .output()
        .unwrap()
}

fn ended(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stdout.clone()).unwrap())
}

#[test]
fn an_ended_devnet_is_kept_aside_and_the_one_before_it_goes() {
    let home = tempfile::tempdir().unwrap();
    let (dir, previous) = (home.path().join("net"), home.path().join("net.previous"));
    for run in 0..3 {
        let (code, said) = ended(&start(&dir));
        assert_eq!(code, Exit::Usage.code(), "{said}");
        std::fs::write(dir.join(format!("run-{run}")), "").unwrap();
    }
    assert!(dir.join("run-2").exists() && !dir.join("run-1").exists());
    assert!(previous.join("run-1").exists() && !previous.join("run-0").exists());
}

#[test]
fn a_directory_that_holds_something_else_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    for name in ["net", "net.previous"] {
        let mine = home.path().join(name).join("thesis.tex");
        std::fs::create_dir(mine.parent().unwrap()).unwrap();
        std::fs::write(&mine, "mine").unwrap();
        let dir = home.path().join("net");
        if name == "net.previous" {
            std::fs::remove_dir_all(&dir).unwrap();
            assert_eq!(ended(&start(&dir)).0, Exit::Usage.code(), "a new devnet needs nothing moved");
        }
        let (code, said) = ended(&start(&dir));
        assert_eq!(code, Exit::CannotCreate.code(), "{said}");
        assert!(said.contains("is left alone"), "{said}");
        assert_eq!(std::fs::read_to_string(mine).unwrap(), "mine");
    }
}

#[test]
fn a_devnet_that_runs_keeps_its_directory() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("net");
    assert_eq!(ended(&start(&dir)).0, Exit::Usage.code());
    let lock = std::fs::File::open(dir.join(compute_subnet::sim::aside::LOCK_FILE)).unwrap();
    lock.lock().unwrap();
    let (code, said) = ended(&start(&dir));
    assert_eq!(code, Exit::Unavailable.code(), "{said}");
    assert!(said.contains("another devnet runs"), "{said}");
    assert!(dir.exists() && !home.path().join("net.previous").exists());
    drop(lock);
    assert_eq!(ended(&start(&dir)).0, Exit::Usage.code());
}
