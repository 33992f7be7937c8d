//! Tenants that mean harm: each stays inside, its lease can be ended, the next one works.

use std::time::Duration;

use compute_subnet::lease::engine::Grant;
use compute_subnet::lease::engine::docker::DockerEngine;
use compute_subnet::lease::{Container, ContainerEngine as _, ContainerSpec, ContainerState};

use crate::bed::{Bed, until};

/// The harmful tenant's lease ends in time, and another one on the same device works.
pub(crate) async fn the_next_lease_works(bed: &Bed, engine: &DockerEngine, harmful: &Container) {
    let begun = tokio::time::Instant::now();
    assert!(engine.destroy(harmful.labels.lease, 1).await.unwrap());
    println!("       released in {:.2} s", begun.elapsed().as_secs_f64());
    let next = engine.create(&bed.spec(200, 0)).await.unwrap();
    assert_eq!(bed.login(&next, &bed.key, "echo in").as_deref(), Some("in"));
    assert!(engine.destroy(next.labels.lease, 1).await.unwrap());
}

pub(crate) async fn a_fork_bomb_ends_at_the_limit_of_processes(bed: &mut Bed) {
    let engine = bed.engine(1);
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    bed.docker(&["exec", "-d", &made.id, "sh", "-c", "b() { b | b & }; b; sleep 600"]);
    bed.docker(&[
        "exec",
        "-d",
        &made.id,
        "sh",
        "-c",
        "i=0; while [ $i -lt 2000 ]; do sleep 600 & i=$((i+1)); done; wait",
    ]);
    until("the limit is reached", async || {
        let listed = bed.docker(&["top", &made.id, "-eo", "pid"]);
        listed.lines().count() > 200
    })
    .await;
    for _ in 0..20 {
        let now = bed.docker(&["top", &made.id, "-eo", "pid"]).lines().count();
        assert!(now <= 257, "{now} processes in a container that may have 256");
    }
    assert_eq!(bed.found(1, made.labels.lease).await.unwrap().state, ContainerState::Running);
    the_next_lease_works(bed, &engine, &made).await;
}

pub(crate) async fn a_memory_bomb_ends_at_the_limit_of_memory(bed: &mut Bed) {
    let engine = bed.engine(1);
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    let limit: u64 = bed.docker(&["inspect", "-f", "{{.HostConfig.Memory}}", &made.id]).trim().parse().unwrap();
    let (ok, _) = bed.inside(&made, "python3 -c 'x = bytearray(1 << 40)'");
    assert!(!ok);
    // Page by page until something gives: the process, never the host.
    let (ok, _) = bed.inside(&made, "python3 -c '\nheld = []\nwhile True: held.append(bytearray(16 << 20))'");
    assert!(!ok, "a process took more than {} MiB", limit >> 20);
    assert!(bed.login(&made, &bed.key, "true").is_some(), "the SSH server still answers");
    the_next_lease_works(bed, &engine, &made).await;
}

pub(crate) async fn a_tenant_that_ends_everything_inside_is_started_again(bed: &mut Bed) {
    let engine = bed.engine(1);
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    let starts =
        |bed: &Bed| bed.docker(&["inspect", "-f", "{{.RestartCount}}", &made.id]).trim().parse::<u32>().unwrap();
    bed.inside(&made, "kill -9 -1; kill -TERM 1");
    until("it was started again", async || starts(bed) >= 1).await;
    until("one can log in", async || bed.login(&made, &bed.key, "echo in").as_deref() == Some("in")).await;
    the_next_lease_works(bed, &engine, &made).await;
}

pub(crate) async fn a_tenant_that_deletes_the_ssh_server_gets_it_back_at_a_restart(bed: &mut Bed) {
    let engine = bed.engine(1);
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    bed.inside(&made, "rm -f /.compute/sshd; kill -9 -1; kill -TERM 1");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(engine.restart(made.labels.lease, 1).await.unwrap().state, ContainerState::Running);
    assert_eq!(bed.login(&made, &bed.key, "echo in").as_deref(), Some("in"));
    // Whoever moves the server's own key away has a container that nobody can log in to, and nothing else.
    bed.inside(&made, "mv /.compute /c");
    let impatient = bed.with(1, |options| options.ssh_ready = Duration::from_secs(2));
    let restarted = impatient.restart(made.labels.lease, 1).await;
    assert!(restarted.is_err_and(|error| !error.nothing_happened()));
    the_next_lease_works(bed, &engine, &made).await;
}

/// What a tenant tries to reach the host by; each must fail.
const WAYS_OUT: &[&str] = &[
    "echo x > /proc/sys/kernel/core_pattern",
    "echo h > /proc/sysrq-trigger",
    "echo x > /sys/kernel/uevent_helper",
    "mount -o remount,rw /sys",
    "mount -o remount,rw /proc/sys",
    "mount -t tmpfs x /mnt",
    "mount --bind / /mnt",
    "umount /proc/sys",
    "umount /etc/hosts",
    "for f in /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes; do test -e $f && echo 1T > $f && exit; done; exit 1",
    "for d in /sys/fs/cgroup/pids /sys/fs/cgroup; do test -e $d/cgroup.procs && mkdir $d/x && exit; done; exit 1",
    "mknod /tmp/disk b 254 0",
    "unshare -U true",
    "unshare -m true",
    "nsenter -t 1 -m true",
    "chroot /proc/1/root/../.. test -e /etc/docker",
    "test -S /var/run/docker.sock -o -S /run/docker.sock",
    "test -e /dev/mem -o -e /dev/kmsg -o -e /dev/loop0",
    "dmesg",
];

pub(crate) async fn a_tenant_that_writes_outside_its_mounts_changes_nothing_of_the_host(bed: &mut Bed) {
    let engine = bed.engine(1);
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    let pattern = || std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let before = pattern();
    for way in WAYS_OUT {
        assert!(!bed.inside(&made, way).0, "{way}");
    }
    assert_eq!(pattern(), before);
    // Where its files are put it sets links to the host's: they mean places of its own.
    let host = bed.dir().join("host");
    std::fs::create_dir_all(&host).unwrap();
    std::fs::write(host.join("file"), "the host's").unwrap();
    let to = host.display();
    for trap in [
        format!("rm /.compute/user_key; ln -s {to}/file /.compute/user_key"),
        format!("rm -rf /.compute; ln -s {to} /.compute"),
        format!("rm /.compute; ln -s ../../../../../../../../..{to} /.compute"),
    ] {
        assert!(bed.inside(&made, &trap).0, "{trap}");
        // Whether it works does not matter.
        let _ = engine.grant(made.labels.lease, 1, &Grant::UserKey(bed.public_key.clone())).await;
        let names: Vec<_> = std::fs::read_dir(&host).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["file"], "{trap}");
        assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "the host's", "{trap}");
    }
    std::fs::remove_dir_all(&host).unwrap();
    the_next_lease_works(bed, &engine, &made).await;
}

pub(crate) async fn a_key_with_quotes_and_commands_is_a_line_in_a_file(bed: &mut Bed) {
    let engine = bed.engine(1);
    let key = format!("{} '\"; touch /pwned; $(touch /pwned) `touch /pwned` \\x", bed.public_key);
    let spec = ContainerSpec { ssh_public_key: Some(key.clone()), ..bed.spec(1, 0) };
    let made = engine.create(&spec).await.unwrap();
    assert_eq!(bed.inside(&made, "cat /.compute/user_key").1, key);
    assert!(!bed.inside(&made, "test -e /pwned").0);
    the_next_lease_works(bed, &engine, &made).await;
}
