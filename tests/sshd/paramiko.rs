//! paramiko, in the version that the original's validators log in with.

use std::process::Command;

use crate::bed::{Bed, left_out};

#[test]
fn paramiko_runs_commands_copies_files_and_resizes_terminals() {
    if std::env::var("COMPUTE_TEST_WITHOUT_PYTHON").is_ok_and(|v| v == "1") {
        return left_out("COMPUTE_TEST_WITHOUT_PYTHON: the SSH server is not tried with paramiko");
    }
    let bed = Bed::start();
    let root = env!("CARGO_MANIFEST_DIR");
    let python = format!("{root}/target/python/paramiko/bin/python");
    let mut driver = Command::new("timeout");
    driver.args(["-k", "2", "120", &python, &format!("{root}/tests/sshd/driver.py"), &bed.address.port().to_string()]);
    let done = driver.arg(bed.path("keys/user")).arg(bed.path(".compute/host_key.pub")).arg(bed.dir.path()).output();
    let done = done.unwrap_or_else(|error| panic!("{python}: {error}: run scripts/python-sdks"));
    println!("{}", String::from_utf8_lossy(&done.stdout));
    assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), bed.log());
}
