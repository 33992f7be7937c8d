//! The SSH server of rented containers, against OpenSSH's clients and paramiko: `ssh`, `scp`, `sftp`, `ssh-keygen`.
//!
//! `scripts/sshd` builds it: a minute or two. `scripts/test` runs this, and installs what it needs: OpenSSH's client, busybox,
//! paramiko (`scripts/python-sdks`; without `COMPUTE_TEST_WITHOUT_PYTHON`).
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

#[path = "../common/wait.rs"]
mod wait;

mod bed;
mod files;
mod forwards;
mod images;
mod limits;
mod login;
mod paramiko;
mod program;
mod programs;
