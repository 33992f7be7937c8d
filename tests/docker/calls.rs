//! Every call of the engine when all goes well.

use compute_subnet::ids::{DeviceId, LeaseId};
use compute_subnet::lease::{ContainerEngine as _, ContainerSpec, ContainerState, EngineError};

use crate::bed::{Bed, until};

pub(crate) async fn a_container_is_made_found_paused_restarted_and_removed(bed: &mut Bed) {
    let engine = bed.engine(1);
    engine.available().await.unwrap();
    let spec = bed.spec(1, 0);
    let made = engine.create(&spec).await.unwrap();
    assert_eq!((made.state, made.labels.lease, made.labels.fencing_epoch), (ContainerState::Running, spec.lease, 1));
    assert_eq!((made.labels.renter, made.labels.expires_at_ms), (spec.renter, spec.expires_at_ms));
    assert!((46_000..46_100).contains(&made.ssh_port));
    assert_eq!(engine.list().await.unwrap(), std::slice::from_ref(&made), "what is listed is what was told");

    let paused = engine.pause(spec.lease, 1).await.unwrap();
    assert_eq!(paused.state, ContainerState::Paused);
    assert_eq!(engine.pause(spec.lease, 1).await.unwrap(), paused, "a repeat is harmless");
    let running = engine.unpause(spec.lease, 1).await.unwrap();
    assert_eq!(running, made);
    assert_eq!(engine.unpause(spec.lease, 1).await.unwrap(), made);

    bed.inside(&made, "echo kept > /root/file");
    let restarted = engine.restart(spec.lease, 1).await.unwrap();
    assert_eq!(restarted, made, "port and host key stay");
    assert_eq!(bed.inside(&made, "cat /root/file").1, "kept");
    engine.pause(spec.lease, 1).await.unwrap();
    assert_eq!(
        engine.restart(spec.lease, 1).await.unwrap().state,
        ContainerState::Running,
        "a paused one runs afterwards"
    );

    engine.pause(spec.lease, 1).await.unwrap();
    assert!(engine.destroy(spec.lease, 1).await.unwrap(), "a paused one goes too");
    assert!(!engine.destroy(spec.lease, 1).await.unwrap(), "a repeat says that there was none");
    assert_eq!(engine.list().await.unwrap(), []);
    for gone in
        [engine.pause(spec.lease, 1).await, engine.unpause(spec.lease, 1).await, engine.restart(spec.lease, 1).await]
    {
        assert!(matches!(gone, Err(EngineError::NoContainer(lease)) if lease == spec.lease));
    }
}

pub(crate) async fn a_container_has_the_limits_and_rights_that_it_was_given_and_no_others(bed: &mut Bed) {
    let engine = bed.engine(1);
    engine.offers(4);
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    let first = |commands: &[&str]| {
        let found = commands.iter().map(|c| bed.inside(&made, c)).find(|(ok, _)| *ok);
        found.unwrap_or_else(|| panic!("none of {commands:?}")).1
    };
    let total: u64 = bed.docker(&["info", "-f", "{{.MemTotal}}"]).trim().parse().unwrap();
    let memory: u64 =
        first(&["cat /sys/fs/cgroup/memory.max", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes"]).parse().unwrap();
    assert_eq!(memory, (total as f64 * 0.5 / 4.0) as u64 / 4096 * 4096, "a quarter of the half that may be rented");
    assert_eq!(first(&["cat /sys/fs/cgroup/pids.max", "cat /sys/fs/cgroup/pids/pids.max"]), "256");
    let quota = first(&["cut -d' ' -f1 /sys/fs/cgroup/cpu.max", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us"]);
    let cpus: f64 = bed.docker(&["info", "-f", "{{.NCPU}}"]).trim().parse().unwrap();
    assert_eq!(quota.parse::<u64>().unwrap(), (cpus * 0.9 / 4.0 * 100_000.0) as u64);
    let shm: u64 = first(&["df -B1 --output=size /dev/shm | tail -1"]).trim().parse().unwrap();
    assert!(shm.abs_diff(memory / 2) <= 8192, "{shm} of {memory}");
    assert_eq!(first(&["grep NoNewPrivs /proc/1/status"]), "NoNewPrivs:\t1");
    assert_eq!(first(&["grep Seccomp: /proc/1/status"]), "Seccomp:\t2", "the engine's own filter");
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, NET_BIND_SERVICE, SYS_CHROOT, SETFCAP.
    let rights = (1u64 << 0)
        | (1 << 1)
        | (1 << 3)
        | (1 << 4)
        | (1 << 5)
        | (1 << 6)
        | (1 << 7)
        | (1 << 10)
        | (1 << 18)
        | (1 << 31);
    assert_eq!(first(&["grep CapBnd /proc/1/status"]), format!("CapBnd:\t{rights:016x}"));
    for forbidden in
        ["mount -t tmpfs x /mnt", "mknod /tmp/d b 8 0", "ip link add x type dummy", "echo 1 > /proc/sys/kernel/sysrq"]
    {
        assert!(!bed.inside(&made, forbidden).0, "{forbidden}");
    }
    assert_eq!(
        first(&["stat -c '%a %U' /.compute /.compute/host_key /.compute/user_key"]),
        "700 root\n600 root\n600 root"
    );
    engine.destroy(made.labels.lease, 1).await.unwrap();
}

pub(crate) async fn a_repeat_of_a_creation_finds_the_same_container(bed: &mut Bed) {
    let (engine, other_handle) = (bed.engine(1), bed.engine(1));
    let spec = bed.spec(1, 0);
    let made = engine.create(&spec).await.unwrap();
    assert_eq!(engine.create(&spec).await.unwrap(), made);
    assert_eq!(other_handle.create(&spec).await.unwrap(), made);
    let other_renter = ContainerSpec { renter: compute_subnet::ids::Hotkey([8; 32]), ..spec.clone() };
    assert!(matches!(engine.create(&other_renter).await, Err(EngineError::Refused(_))));
    let other_devices = ContainerSpec { devices: vec![DeviceId::cpu(7)], ..spec.clone() };
    assert!(matches!(engine.create(&other_devices).await, Err(EngineError::Refused(_))));
    assert_eq!(engine.list().await.unwrap(), [made]);
    assert!(other_handle.destroy(spec.lease, 1).await.unwrap());
}

pub(crate) async fn containers_of_other_miners_are_neither_shown_nor_touched(bed: &mut Bed) {
    let (one, two) = (bed.engine(1), bed.engine(2));
    let spec = bed.spec(1, 0);
    one.create(&spec).await.unwrap();
    assert_eq!(two.list().await.unwrap(), []);
    assert!(!two.destroy(spec.lease, 1).await.unwrap());
    assert!(bed.login(&one.list().await.unwrap()[0], &bed.key, "true").is_some(), "its network is not touched either");
    assert!(matches!(two.restart(spec.lease, 1).await, Err(EngineError::NoContainer(_))));
    // The same device number of another miner is another device.
    let other = ContainerSpec { lease: LeaseId([2; 16]), ..spec.clone() };
    let there = two.create(&other).await.unwrap();
    assert_ne!(there.ssh_port, one.list().await.unwrap()[0].ssh_port, "a port is nobody's twice");
    assert!(one.destroy(spec.lease, 1).await.unwrap());
    assert_eq!(two.list().await.unwrap(), [there]);
    assert!(two.destroy(other.lease, 1).await.unwrap());
}

pub(crate) async fn whoever_watches_hears_when_a_container_ends(bed: &mut Bed) {
    let engine = bed.following(1);
    let mut changes = engine.changes().unwrap();
    until("the first word, since events before it may have been missed", async || *changes.borrow() > 0).await;
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    changes.borrow_and_update();
    bed.docker(&["rm", "-f", &made.id]);
    tokio::time::timeout(crate::bed::LONG, changes.changed()).await.expect("a word").unwrap();
    until("the container is gone", async || engine.list().await.unwrap().is_empty()).await;
    assert!(!engine.destroy(made.labels.lease, 1).await.unwrap(), "and its network goes with the repeat");
}
