//! Those who do not get in, in numbers.

use std::io::{Read, Write};
use std::time::Duration;

use tokio::time::Instant;

use crate::bed::{Bed, key};

#[test]
fn a_flood_of_connections_keeps_nobody_out_and_costs_little() {
    let bed = Bed::start();
    let mut idle: Vec<_> = (0..1000).map(|_| bed.connect()).collect();
    assert_eq!(bed.prints("echo in"), "in\n");
    let files = std::fs::read_dir(format!("/proc/{}/fd", bed.server.id())).unwrap().count();
    println!("1000 idle connections: {files} files, {} MiB, {} threads", bed.memory(), bed.status("Threads"));
    assert!(files < 120 && bed.memory() < 48, "{files} files, {} MiB", bed.memory());
    // The first were ended for the last.
    let mut said = Vec::new();
    idle[0].read_to_end(&mut said).unwrap();
    assert!(said.is_empty() || said.starts_with(b"SSH-2.0-compute-sshd"), "{said:?}");
}

#[test]
fn a_flood_of_nonsense_does_not_end_the_server() {
    let bed = Bed::start();
    for round in 0..200usize {
        let mut stream = bed.connect();
        let nonsense: &[u8] = match round % 4 {
            0 => b"GET / HTTP/1.1\r\n\r\n",
            1 => b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff\xff\xff",
            2 => b"SSH-2.0-x\r\n\0\0\0\x0c\x06\x14aaaaaaaaaaaaaaa",
            _ => &[b'x'; 70_000],
        };
        let _ = stream.write_all(nonsense);
    }
    assert_eq!(bed.prints("echo in"), "in\n");
    assert!(bed.memory() < 48, "{} MiB", bed.memory());
}

#[test]
fn a_connection_has_six_attempts() {
    let bed = Bed::start();
    let mut ssh = bed.client_without_a_login("ssh");
    for index in 0..8 {
        key(&bed.path(&format!("keys/wrong{index}")), &["ed25519"]);
        ssh.arg("-i").arg(bed.path(&format!("keys/wrong{index}")));
    }
    // The right key would have been the ninth.
    let done = ssh.arg("-i").arg(bed.path("keys/user")).args(["root@127.0.0.1", "echo in"]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(255) && said.contains("Too many authentication"), "{done:?}");
}

#[test]
fn an_idle_server_is_small_and_a_login_costs_little() {
    let bed = Bed::start();
    let mut greetings: Vec<Duration> = (0..50)
        .map(|_| {
            let begin = Instant::now();
            bed.connect().read_exact(&mut [0; 7]).unwrap();
            begin.elapsed()
        })
        .collect();
    let mut logins: Vec<Duration> = (0..50)
        .map(|_| {
            let begin = Instant::now();
            assert_eq!(bed.prints("true"), "");
            begin.elapsed()
        })
        .collect();
    greetings.sort();
    logins.sort();
    println!(
        "the greeting after {:?}, a login with `true` in {:?} (p50 of 50); {} MiB",
        greetings[25],
        logins[25],
        bed.memory()
    );
    assert!(bed.memory() < 24, "{} MiB", bed.memory());
}
