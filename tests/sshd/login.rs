//! Who gets in, and who does not.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Argon2, Params};

use crate::bed::{Bed, copy_program, key};

/// Tries to log in with the key of this name.
fn with_key(bed: &Bed, name: &str) -> Output {
    bed.client_with("ssh", name).args(["root@127.0.0.1", "echo in"]).output().unwrap()
}

/// A server whose file `user_key` nobody has the private half of.
fn closed() -> Bed {
    let bed = Bed::start();
    key(&bed.path("keys/other"), &["ed25519"]);
    fs::copy(bed.path("keys/other.pub"), bed.path(".compute/user_key")).unwrap();
    bed
}

fn is_in(done: &Output) -> bool {
    assert!(done.status.success() == (done.stdout == b"in\n"), "{done:?}");
    done.status.success()
}

fn refuses(done: &Output) -> bool {
    !is_in(done)
        && done.status.code() == Some(255)
        && String::from_utf8_lossy(&done.stderr).contains("Permission denied")
}

#[test]
fn a_renter_logs_in_with_its_key_of_any_kind() {
    let bed = Bed::start();
    for kind in [&["ed25519"][..], &["ecdsa", "-b", "256"], &["ecdsa", "-b", "521"], &["rsa", "-b", "3072"]] {
        let name = kind.join("");
        key(&bed.path(&format!("keys/{name}")), kind);
        fs::copy(bed.path(&format!("keys/{name}.pub")), bed.path(".compute/user_key")).unwrap();
        assert!(is_in(&with_key(&bed, &name)), "{kind:?}\n{}", bed.log());
    }
    assert!(bed.log().contains("logged in with user_key SHA256:"), "{}", bed.log());
}

#[test]
fn a_wrong_key_and_a_wrong_name_are_refused() {
    let bed = closed();
    let done = with_key(&bed, "user");
    assert!(refuses(&done), "{done:?}");
    assert!(is_in(&with_key(&bed, "other")));
    let named = bed.client_with("ssh", "other").args(["nobody@127.0.0.1", "echo in"]).output().unwrap();
    assert!(refuses(&named), "{named:?}");
}

#[test]
fn rsa_with_sha_1_and_short_rsa_keys_are_refused() {
    let bed = Bed::start();
    key(&bed.path("keys/rsa"), &["rsa", "-b", "3072"]);
    fs::copy(bed.path("keys/rsa.pub"), bed.path(".compute/user_key")).unwrap();
    let sha1 = bed
        .client_with("ssh", "rsa")
        .args(["-o", "PubkeyAcceptedAlgorithms=ssh-rsa"])
        .args(["root@127.0.0.1", "echo in"])
        .output()
        .unwrap();
    assert!(refuses(&sha1), "{sha1:?}");
    key(&bed.path("keys/short"), &["rsa", "-b", "1024"]);
    fs::copy(bed.path("keys/short.pub"), bed.path(".compute/user_key")).unwrap();
    assert!(!is_in(&with_key(&bed, "short")));
    assert!(bed.log().contains("too short") || bed.log().contains("refused"), "{}", bed.log());
}

#[test]
fn a_key_that_is_replaced_lets_nobody_in_from_then_on_and_open_sessions_stay() {
    let bed = Bed::start();
    let mut open = bed
        .ssh_with(&[], "echo ready; cat")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(open.stdout.as_mut().unwrap(), &mut ready).unwrap();
    key(&bed.path("keys/other"), &["ed25519"]);
    fs::copy(bed.path("keys/other.pub"), bed.path(".compute/user_key")).unwrap();
    assert!(is_in(&with_key(&bed, "other")));
    assert!(refuses(&with_key(&bed, "user")));
    std::io::Write::write_all(&mut open.stdin.take().unwrap(), b"still here").unwrap();
    assert_eq!(open.wait_with_output().unwrap().stdout, b"still here");
    fs::remove_file(bed.path(".compute/user_key")).unwrap();
    assert!(refuses(&with_key(&bed, "other")));
}

#[test]
fn the_terminal_key_lets_in_beside_the_users() {
    let bed = Bed::start();
    key(&bed.path("keys/terminal"), &["ed25519"]);
    assert!(refuses(&with_key(&bed, "terminal")));
    fs::copy(bed.path("keys/terminal.pub"), bed.path(".compute/terminal_key")).unwrap();
    assert!(is_in(&with_key(&bed, "terminal")) && is_in(&with_key(&bed, "user")));
    assert!(bed.log().contains("logged in with terminal_key"), "{}", bed.log());
}

#[test]
fn keys_with_options_and_what_is_no_key_let_nobody_in_and_are_named_in_the_log() {
    let bed = Bed::start();
    let mine = fs::read_to_string(bed.path("keys/user.pub")).unwrap();
    let try_file = |content: &[u8]| {
        fs::write(bed.path(".compute/user_key"), content).unwrap();
        with_key(&bed, "user")
    };
    for options in ["command=\"echo owned\"", "restrict", "cert-authority"] {
        let done = try_file(format!("{options} {mine}").as_bytes());
        assert!(refuses(&done), "{options}: {done:?}");
    }
    assert!(bed.log().contains("user_key, line 1, lets nobody in: it has options"), "{}", bed.log());
    for content in [
        &b"\0\xff\xfe not a key"[..],
        b"ssh-ed25519",
        b"ssh-ed25519 AAAA",
        &[b'\n'; 60_000],
        mine.repeat(1000).as_bytes(),
    ] {
        let done = try_file(content);
        assert!(refuses(&done), "{} bytes: {done:?}", content.len());
    }
    assert!(bed.log().contains("user_key cannot be read"), "a file of {} bytes: {}", mine.len() * 1000, bed.log());
    fs::remove_file(bed.path(".compute/user_key")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(bed.path(".compute/user_key")).status().unwrap().success());
    assert!(refuses(&with_key(&bed, "user")), "a FIFO that nobody writes to");
    fs::remove_file(bed.path(".compute/user_key")).unwrap();
    // Each line for itself: a bad one does not shut out the good.
    assert!(is_in(&try_file(format!("# a comment\ncommand=\"x\" {mine}{mine}").as_bytes())));
}

/// Tries to log in with a password alone.
fn with_password(bed: &Bed, password: &str) -> Output {
    let (text, answer) = (bed.path("text"), bed.path("answer"));
    fs::write(&text, format!("#!/bin/sh\necho '{password}'\n")).unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o700)).unwrap();
    copy_program(&text, &answer);
    let mut ssh = bed.client_without_a_login("ssh");
    ssh.args(["-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", "root@127.0.0.1", "echo in"]);
    ssh.env("SSH_ASKPASS", answer).env("SSH_ASKPASS_REQUIRE", "force").output().unwrap()
}

#[test]
fn a_password_opens_only_where_there_is_a_hash_of_it() {
    let bed = Bed::start();
    let hash = |password: &str| {
        let hasher =
            Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, Params::new(19_456, 2, 1, None).unwrap());
        hasher
            .hash_password(password.as_bytes(), &SaltString::encode_b64(b"salt of tests").unwrap())
            .unwrap()
            .to_string()
    };
    let done = with_password(&bed, "right");
    assert!(
        refuses(&done) && String::from_utf8_lossy(&done.stderr).contains("(publickey)"),
        "not even offered: {done:?}"
    );
    fs::write(bed.path(".compute/password_hash"), hash("right")).unwrap();
    assert!(is_in(&with_password(&bed, "right")), "{}", bed.log());
    let done = with_password(&bed, "wrong");
    assert!(refuses(&done), "{done:?}");
    assert!(is_in(&with_key(&bed, "user")), "the key still opens");
    fs::write(bed.path(".compute/password_hash"), hash("another")).unwrap();
    assert!(refuses(&with_password(&bed, "right")) && is_in(&with_password(&bed, "another")));
    assert!(!bed.log().contains("argon2") && !bed.log().contains("right"), "{}", bed.log());
}

#[test]
fn the_server_is_the_one_with_its_host_key() {
    let bed = Bed::start();
    key(&bed.path("keys/other"), &["ed25519"]);
    let other = fs::read_to_string(bed.path("keys/other.pub")).unwrap();
    fs::write(bed.path("known_hosts"), format!("[127.0.0.1]:{} {other}", bed.address.port())).unwrap();
    assert_eq!(bed.ssh("echo in").status.code(), Some(255), "another host key is taken for its own");
}
