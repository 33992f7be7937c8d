//! What holds a tenant's disk and network, seen from inside a real container.

use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use compute_subnet::host::Policy;
use compute_subnet::host::firewall::Bridge;
use compute_subnet::lease::{Container, ContainerEngine as _, ContainerSpec, ContainerState, EngineError};

use crate::bed::{self, Bed, DISK, run, until};
use crate::tenants::the_next_lease_works;

/// What lies on the host's disk below this directory, bytes, with what is allocated and not written. What others on the machine
/// write meanwhile does not count, nor what is mounted there.
fn on_disk(path: &Path) -> u64 {
    let said = run("du", &["-s", "-x", "-B1", path.to_str().unwrap()]);
    said.split_whitespace().next().unwrap().parse().unwrap()
}

/// Says that a test needs volumes, where there cannot be any.
fn left_out(bed: &Bed, what: &str) -> bool {
    if bed.has_volumes() {
        return false;
    }
    bed::left_out(&format!("{what} (this disk is an overlay)"));
    true
}

/// The size of the container's root as the tenant sees it, bytes.
fn size(bed: &Bed, container: &Container) -> u64 {
    bed.inside(container, "df -B1 --output=size / | tail -1").1.trim().parse().unwrap()
}

/// Whether the tenant gets a connection.
fn reaches(bed: &Bed, container: &Container, host: &str, port: u16) -> bool {
    bed.inside(container, &format!("timeout 3 bash -c '</dev/tcp/{host}/{port}'")).0
}

pub(crate) async fn a_tenant_that_fills_its_disk_fills_its_own(bed: &mut Bed) {
    if left_out(bed, "a tenant that fills its disk") {
        return;
    }
    let engine = bed.engine(1);
    let before = on_disk(bed.dir());
    let made = engine.create(&bed.spec(1, 0)).await.unwrap();
    assert!(on_disk(bed.dir()) - before >= DISK, "its room is taken from the host at once");
    assert!(size(bed, &made) < DISK, "df shows the volume's size");
    // What is taken away of the SSH server's program gives no room back.
    assert!(bed.inside(&made, "ln /.compute/sshd /root/kept").0);
    let host = on_disk(bed.dir());
    let (ok, said) = bed.inside(&made, "dd if=/dev/zero of=/root/big bs=1M 2>&1");
    assert!(!ok && said.contains("No space left on device"), "{said}");
    // Nor at any other place that it can write to.
    for place in ["/tmp/more", "/var/more", "/.compute/more", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"] {
        let (ok, said) =
            bed.inside(&made, &format!("dd if=/dev/zero bs=1M count=64 oflag=append conv=notrunc of={place} 2>&1"));
        assert!(!ok && said.contains("No space left on device"), "{place}: {said}");
    }
    let lost = on_disk(bed.dir()).saturating_sub(host);
    assert!(lost < 8 << 20, "the host lost {lost} bytes while the tenant wrote");
    println!("       the tenant's {} MiB are full, the host lost {} KiB", DISK >> 20, lost >> 10);
    assert_eq!(bed.login(&made, &bed.key, "echo in").as_deref(), Some("in"), "the SSH server still answers");
    let begun = tokio::time::Instant::now();
    engine.restart(made.labels.lease, 1).await.unwrap();
    println!("       a restart with a full disk: {:.2} s", begun.elapsed().as_secs_f64());
    assert_eq!(bed.login(&made, &bed.key, "echo in").as_deref(), Some("in"));
    the_next_lease_works(bed, &engine, &made).await;
}

/// A world behind the host, for tenants of one bridge: whatever address they call, it answers at ports 80 and 25.
struct World {
    bridge: String,
    listener: Child,
}

const WORLD: &str = "compute-test-world";
const TABLE: &str = "7714";

impl World {
    fn behind(bridge: &str) -> World {
        World::remove(bridge);
        run("ip", &["netns", "add", WORLD]);
        let inside = |words: &str| run("ip", &[&["-n", WORLD], &words.split(' ').collect::<Vec<_>>()[..]].concat());
        let host = |words: &str| run("ip", &words.split(' ').collect::<Vec<_>>());
        host(&format!("link add cswt0 type veth peer name eth0 netns {WORLD}"));
        host("addr add 10.215.0.1/24 dev cswt0");
        host("link set cswt0 up");
        inside("addr add 10.215.0.2/24 dev eth0");
        inside("link set eth0 up");
        inside("link set lo up");
        inside("route add local 0.0.0.0/0 dev lo");
        host(&format!("route add default via 10.215.0.2 table {TABLE}"));
        host(&format!("rule add iif {bridge} lookup {TABLE} pref 100"));
        // Answers come from addresses that the host itself has other ways to.
        let strict = std::fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap().trim() == "1";
        std::fs::write("/proc/sys/net/ipv4/conf/cswt0/rp_filter", if strict { "2" } else { "0" }).unwrap();
        let mut listener = Command::new("ip")
            .args(["netns", "exec", WORLD])
            .arg(std::env::current_exe().unwrap())
            .args(["listen", "80", "25", "465", "587", "443"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        listener.stdout.take().unwrap().read_exact(&mut ready).unwrap();
        World { bridge: bridge.to_owned(), listener }
    }

    fn remove(bridge: &str) {
        // What is not there cannot be removed.
        let quietly = |words: &str| drop(Command::new("ip").args(words.split(' ')).stderr(Stdio::null()).status());
        quietly(&format!("rule del iif {bridge} lookup {TABLE} pref 100"));
        quietly(&format!("route flush table {TABLE}"));
        quietly("link del cswt0");
        quietly(&format!("netns del {WORLD}"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.listener.kill();
        let _ = self.listener.wait();
        World::remove(&self.bridge);
    }
}

/// Listens on these ports until it is killed.
pub(crate) fn listen(ports: impl Iterator<Item = String>) -> ! {
    let all: Vec<TcpListener> =
        ports.map(|port| TcpListener::bind(("0.0.0.0", port.parse().unwrap())).unwrap()).collect();
    println!("ready");
    // The kernel takes the connections; nobody needs to answer.
    loop {
        std::thread::park();
        assert!(!all.is_empty());
    }
}

const CLOSED: &[(&str, u16, &str)] = &[
    ("169.254.169.254", 80, "the cloud's metadata"),
    ("10.1.2.3", 80, "a private network"),
    ("172.16.0.1", 443, "a private network"),
    ("192.168.1.1", 80, "a private network"),
    ("100.64.0.1", 80, "the provider's network"),
    ("1.1.1.1", 25, "a mail server"),
    ("1.1.1.1", 465, "a mail server"),
    ("1.1.1.1", 587, "a mail server"),
];
const OPEN: &[(&str, u16)] = &[("1.1.1.1", 80), ("8.8.8.8", 443)];

pub(crate) async fn a_tenant_reaches_the_internet_and_nothing_else(bed: &mut Bed) {
    let (spec, other) = (bed.spec(1, 0), bed.spec(2, 1));
    let [bridge, others] = [&spec, &other].map(|spec| Bridge::of(spec.lease, 1));
    let world = World::behind(bridge.name());
    let on_host = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = on_host.local_addr().unwrap().port();
    let gateway = "ip route show default | cut -d' ' -f3";
    // Without rules all of it is reached, or the test would show nothing.
    let open = bed.with(1, |options| options.egress = Policy::Off);
    let made = open.create(&spec).await.unwrap();
    let host = bed.inside(&made, gateway).1;
    assert!(reaches(bed, &made, &host, port), "without rules the host is reached at {host}");
    for (address, port, what) in CLOSED {
        assert!(reaches(bed, &made, address, *port), "without rules {what} is reached at {address}:{port}");
    }
    assert!(open.destroy(spec.lease, 1).await.unwrap());

    let engine = bed.engine(1);
    let made = engine.create(&spec).await.unwrap();
    let neighbour = engine.create(&other).await.unwrap();
    let host = bed.inside(&made, gateway).1;
    assert!(!reaches(bed, &made, &host, port), "the host is reached at {host}");
    assert!(!reaches(bed, &made, "10.215.0.1", port), "the host is reached by another address");
    for (address, port, what) in CLOSED {
        assert!(!reaches(bed, &made, address, *port), "{what} is reached at {address}:{port}");
    }
    for (address, port) in OPEN {
        assert!(reaches(bed, &made, address, *port), "{address}:{port} is public");
    }
    let address =
        bed.docker(&["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &neighbour.id]);
    assert!(!reaches(bed, &made, address.trim(), 22), "another lease is reached");
    assert_eq!(bed.login(&made, &bed.key, "echo in").as_deref(), Some("in"), "who calls it gets its answers");
    let table = run("nft", &["list", "table", "inet", "compute_subnet_01010101"]);
    assert!(table.contains(bridge.name()) && table.contains(others.name()), "{table}");
    assert!(engine.destroy(other.lease, 1).await.unwrap());
    assert!(!reaches(bed, &made, "169.254.169.254", 80), "the end of one lease opens nothing for another");
    assert!(engine.destroy(spec.lease, 1).await.unwrap());
    drop(world);
}

pub(crate) async fn a_miner_that_starts_again_keeps_volumes_and_rules_and_clears_what_is_nobodys(bed: &mut Bed) {
    if left_out(bed, "a miner that starts again") {
        return;
    }
    let engine = bed.engine(1);
    let (kept, lost) = (bed.spec(1, 0), bed.spec(2, 1));
    let made = engine.create(&kept).await.unwrap();
    let gone = engine.create(&lost).await.unwrap();
    bed.inside(&made, "echo mine > /root/file");
    bed.docker(&["rm", "-f", &gone.id]);
    let file = |lease| format!("{lease}-1");
    // As a kill leaves it: a file that was being made.
    std::fs::write(bed.volumes(1).join(format!("{}-1.part", bed.spec(3, 0).lease)), [0; 4096]).unwrap();
    // Another service flushed the rules.
    run("nft", &["delete", "table", "inet", "compute_subnet_01010101"]);
    drop(engine);
    let following = bed.following(1);
    let wanted = [file(kept.lease), format!("{}.img", file(kept.lease))].into();
    until("only the volume of the lease is there", async || bed.in_volumes(1) == wanted).await;
    let table = run("nft", &["list", "table", "inet", "compute_subnet_01010101"]);
    let bridge = |spec: &ContainerSpec| Bridge::of(spec.lease, 1);
    assert!(table.contains(bridge(&kept).name()) && !table.contains(bridge(&lost).name()), "{table}");
    assert_eq!(bed.login(&made, &bed.key, "cat /root/file").as_deref(), Some("mine"));
    assert!(following.destroy(kept.lease, 1).await.unwrap());
    assert!(!following.destroy(lost.lease, 1).await.unwrap());
}

pub(crate) async fn volumes_stay_through_a_crash_and_a_restart_of_the_engine(bed: &mut Bed) {
    if left_out(bed, "volumes through a restart of the engine") {
        return;
    }
    let engine = bed.engine(1);
    let spec = bed.spec(1, 0);
    let made = engine.create(&spec).await.unwrap();
    let limit = size(bed, &made);
    bed.inside(&made, "echo mine > /root/file");
    bed.kill_engine();
    bed.start_engine(true).await;
    assert_eq!((size(bed, &made), limit < DISK), (limit, true), "the processes go on in their volume");
    // An engine without live restore that ends takes the mounts below its layers away.
    let following = bed.following(1);
    bed.stop_engine();
    bed.start_engine(false).await;
    bed.stop_engine();
    bed.start_engine(false).await;
    until("one can log in", async || bed.login(&made, &bed.key, "cat /root/file").as_deref() == Some("mine")).await;
    assert_eq!(size(bed, &made), limit);
    assert_eq!(engine.restart(spec.lease, 1).await.unwrap(), made);
    assert_eq!((size(bed, &made), bed.inside(&made, "cat /root/file").1.as_str()), (limit, "mine"));
    assert!(engine.destroy(spec.lease, 1).await.unwrap());
    drop(following);
    bed.stop_engine();
    bed.start_engine(true).await;
}

pub(crate) async fn after_the_machines_start_containers_run_on_their_volumes_again(bed: &mut Bed) {
    if left_out(bed, "volumes after the machine's start") {
        return;
    }
    let engine = bed.engine(1);
    let spec = bed.spec(1, 0);
    let made = engine.create(&spec).await.unwrap();
    let limit = size(bed, &made);
    bed.inside(&made, "echo mine > /root/file; echo 10.9.9.9 far >> /etc/hosts");
    drop(engine);
    // What the machine's end does: no process, no mount, no rules; the files stay.
    bed.stop_engine();
    bed.start_engine(false).await;
    bed.stop_engine();
    bed.unmount_volumes();
    run("nft", &["delete", "table", "inet", "compute_subnet_01010101"]);
    bed.start_engine(false).await;
    until("without its volume it ends at once", async || {
        bed.engine(1).list().await.unwrap()[0].state == ContainerState::Exited
    })
    .await;
    let following = bed.following(1);
    until("one can log in", async || bed.login(&made, &bed.key, "cat /root/file").as_deref() == Some("mine")).await;
    assert_eq!(size(bed, &made), limit);
    assert!(bed.inside(&made, "grep -q far /etc/hosts").0);
    assert!(run("nft", &["list", "tables"]).contains("compute_subnet_01010101"));
    assert_eq!(following.list().await.unwrap(), [made]);
    assert!(following.destroy(spec.lease, 1).await.unwrap());
    drop(following);
    bed.stop_engine();
    bed.start_engine(true).await;
}

pub(crate) async fn what_cannot_be_held_is_refused_where_the_policy_says_so(bed: &mut Bed) {
    let spec = bed.spec(1, 0);
    // More than the disk has.
    if bed.has_volumes() {
        let greedy = bed.with(1, |options| options.disk = 1 << 50).create(&spec).await.unwrap_err();
        assert!(greedy.nothing_happened() && greedy.to_string().contains("docker.disk_gib"), "{greedy}");
    }
    // Volumes cannot lie below a file.
    let nowhere = |policy| {
        bed.with(1, |options| {
            options.volumes = bed.socket().join("volumes");
            options.disk_quota = policy;
        })
    };
    let refused = nowhere(Policy::Enforce).create(&spec).await.unwrap_err();
    assert!(
        matches!(refused, EngineError::Refused(_)) && refused.to_string().contains("docker.disk_quota"),
        "{refused}"
    );
    for policy in [Policy::BestEffort, Policy::Off] {
        let engine = nowhere(policy);
        let made = engine.create(&spec).await.unwrap();
        assert_eq!(bed.login(&made, &bed.key, "echo in").as_deref(), Some("in"));
        assert!(engine.destroy(spec.lease, 1).await.unwrap());
    }
    assert_eq!(bed.engine(1).list().await.unwrap(), []);
}
