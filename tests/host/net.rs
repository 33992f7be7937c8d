//! A host with two tenants behind bridges and the world before it, each in a network namespace of its own.

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use compute_subnet::host::Policy;
use compute_subnet::host::firewall::{Backend, Bridge, Firewall};
use compute_subnet::host::guard::{Guard, GuardOptions};
use compute_subnet::host::quota::{EngineStorage, VolumeKey};
use compute_subnet::ids::{Hotkey, LeaseId};

/// How long a connection is tried; what is refused is refused at once.
const PATIENCE: Duration = Duration::from_millis(1500);
const MINER: Hotkey = Hotkey([0xa1; 32]);
/// The resolver that the rules let through: at a private address, as in most clouds.
const RESOLVER: &str = "192.168.50.7";

fn lease(n: u8) -> Bridge {
    Bridge::of(LeaseId([n; 16]), 1)
}

/// What a tenant must not reach, and by what it is named in a failure.
const CLOSED: &[(&str, &str)] = &[
    ("169.254.169.254:80", "the metadata address"),
    ("192.168.50.7:80", "a private net"),
    ("10.99.0.7:80", "another private net"),
    ("[fd12::7]:80", "a private net of IPv6"),
    ("198.51.100.7:25", "mail"),
    ("198.51.100.7:465", "mail"),
    ("198.51.100.7:587", "mail"),
    ("10.77.1.1:22", "the host at its bridge"),
    ("198.51.100.1:22", "the host at its public address"),
    ("[2001:db8:1::1]:22", "the host at its public address of IPv6"),
    ("10.77.2.2:22", "another lease"),
];
/// What it must reach.
const OPEN: &[&str] = &["198.51.100.7:443", "198.51.100.7:80", "[2001:db8:1::7]:443", "192.168.50.7:53"];

/// The network; it is gone with the value.
struct World {
    /// Distinguishes this run's names from another's.
    tag: String,
    listeners: Vec<Child>,
}

impl World {
    fn new(tag: &str) -> World {
        let world = World { tag: format!("{tag}{}", std::process::id()), listeners: Vec::new() };
        for who in ["host", "world", "a", "b"] {
            ip(&["netns", "add", &world.name(who)]);
            world.ip(who, "link set lo up");
            // Or addresses are tentative for a second.
            ["all", "default"].iter().for_each(|of| world.sysctl(who, &format!("net/ipv6/conf/{of}/accept_dad"), "0"));
        }
        world.link(("host", "out"), ("world", "eth0"));
        for address in ["198.51.100.1/24", "192.168.50.1/24", "10.99.0.1/24", "169.254.169.1/24"] {
            world.ip("host", &format!("addr add {address} dev out"));
        }
        for address in ["198.51.100.7/24", "192.168.50.7/24", "10.99.0.7/24", "169.254.169.254/24"] {
            world.ip("world", &format!("addr add {address} dev eth0"));
        }
        for (host, other) in [("2001:db8:1::1/64", "2001:db8:1::7/64"), ("fd12::1/64", "fd12::7/64")] {
            world.ip("host", &format!("addr add {host} dev out nodad"));
            world.ip("world", &format!("addr add {other} dev eth0 nodad"));
        }
        world.ip("world", "route add 10.77.0.0/16 via 198.51.100.1");
        world.ip("world", "route add 2001:db8:77::/48 via 2001:db8:1::1");
        for (n, who) in [(1, "a"), (2, "b")] {
            let bridge = lease(n);
            world.ip("host", &format!("link add {bridge} type bridge"));
            world.ip("host", &format!("addr add 10.77.{n}.1/24 dev {bridge}"));
            world.ip("host", &format!("addr add 2001:db8:77:{n}::1/64 dev {bridge} nodad"));
            world.ip("host", &format!("link set {bridge} up"));
            world.link(("host", &format!("v{who}")), (who, "eth0"));
            world.ip("host", &format!("link set v{who} master {bridge}"));
            world.ip(who, &format!("addr add 10.77.{n}.2/24 dev eth0"));
            world.ip(who, &format!("addr add 2001:db8:77:{n}::2/64 dev eth0 nodad"));
            world.ip(who, &format!("route add default via 10.77.{n}.1"));
            world.ip(who, &format!("route add default via 2001:db8:77:{n}::1"));
        }
        ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"].iter().for_each(|key| world.sysctl("host", key, "1"));
        world.with_listeners()
    }

    fn with_listeners(mut self) -> World {
        for (who, ports) in [("world", "80 25 465 587 443 53"), ("host", "22"), ("a", "22"), ("b", "22")] {
            let mut arguments = vec!["listen"];
            arguments.extend(ports.split(' '));
            let mut child = self.inside(who, &arguments).stdout(Stdio::piped()).spawn().unwrap();
            let mut ready = [0; 1];
            child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
            self.listeners.push(child);
        }
        self
    }

    /// Sets what is the namespace's own, through a process that is in it.
    fn sysctl(&self, who: &str, key: &str, value: &str) {
        let done = self.inside(who, &["write", &format!("/proc/sys/{key}"), value]).status().unwrap();
        assert!(done.success(), "{key}");
    }

    fn name(&self, who: &str) -> String {
        format!("cs-{}-{who}", self.tag)
    }

    fn ip(&self, who: &str, arguments: &str) {
        let name = self.name(who);
        let family = if arguments.contains("::") { "-6" } else { "-4" };
        let mut all = vec!["-n", &name, family];
        all.extend(arguments.split(' '));
        ip(&all);
    }

    fn link(&self, (one, first): (&str, &str), (other, second): (&str, &str)) {
        let (one, other) = (self.name(one), self.name(other));
        ip(&["-n", &one, "link", "add", first, "type", "veth", "peer", "name", second, "netns", &other]);
        for (name, device) in [(&one, first), (&other, second)] {
            ip(&["-n", name, "link", "set", device, "up"]);
        }
    }

    /// This program in a namespace.
    fn inside(&self, who: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name(who)));
        command.arg(std::env::current_exe().unwrap()).arg("inside").args(arguments);
        command
    }

    fn reaches(&self, who: &str, address: &str) -> bool {
        self.inside(who, &["connect", address]).status().unwrap().success()
    }

    /// Calls the firewall of this backend in the host's namespace, and returns what it printed.
    fn firewall(&self, backend: &str, call: &str, bridges: &[Bridge]) -> String {
        let mut arguments = vec!["firewall", backend, call];
        arguments.extend(bridges.iter().map(Bridge::name));
        let out = self.inside("host", &arguments).output().unwrap();
        assert!(out.status.success(), "{call}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    /// What a program says in the host's namespace.
    fn says(&self, argv: &[&str]) -> String {
        let mut command = Command::new("nsenter");
        let out = command.arg(format!("--net=/run/netns/{}", self.name("host"))).args(argv).output().unwrap();
        assert!(out.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn assert_all_open(&self, who: &str) {
        // A tenant's own network is its own lease's, so that one address is another lease's for one of them only.
        for (address, what) in CLOSED.iter().filter(|(address, _)| who == "a" || !address.starts_with("10.77.")) {
            assert!(self.reaches(who, address), "without rules {who} reaches {what} at {address}");
        }
        OPEN.iter().for_each(|address| assert!(self.reaches(who, address), "without rules {who} reaches {address}"));
    }

    fn assert_closed(&self, who: &str) {
        for (address, what) in CLOSED.iter().filter(|(address, _)| who == "a" || !address.starts_with("10.77.")) {
            assert!(!self.reaches(who, address), "{who} reaches {what} at {address}");
        }
        OPEN.iter().for_each(|address| assert!(self.reaches(who, address), "{who} does not reach {address}"));
        for caller in ["world", "host"] {
            assert!(
                self.reaches(caller, "10.77.1.2:22"),
                "{caller} reaches the tenant's SSH port, and gets its answer"
            );
        }
        assert!(self.reaches("world", "[2001:db8:77:1::2]:22"), "and by IPv6");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.listeners {
            let _ = child.kill();
            let _ = child.wait();
        }
        for who in ["host", "world", "a", "b"] {
            let _ = Command::new("ip").args(["netns", "del", &self.name(who)]).stderr(Stdio::null()).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    let out = Command::new("ip").args(arguments).output().unwrap();
    assert!(out.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// What runs in a namespace: a listener, a caller, the firewall.
pub(crate) fn inside(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["connect", address] => {
            let address: SocketAddr = address.parse().unwrap();
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(_) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
        ["listen", ref ports @ ..] => {
            let all: Vec<TcpListener> =
                ports.iter().map(|port| TcpListener::bind(("::", port.parse().unwrap())).unwrap()).collect();
            println!("ready");
            // The kernel takes the connections; nobody needs to answer.
            loop {
                std::thread::park();
                assert!(!all.is_empty());
            }
        }
        ["write", path, text] => {
            std::fs::write(path, text).unwrap();
            ExitCode::SUCCESS
        }
        ["firewall", backend, call, ref bridges @ ..] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(firewall(backend, call, bridges.iter().map(|name| name.parse().unwrap()).collect()));
            ExitCode::SUCCESS
        }
        ["guard", dir] => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(guard(dir.into()));
            ExitCode::SUCCESS
        }
        _ => panic!("not known: {words:?}"),
    }
}

async fn firewall(backend: &str, call: &str, bridges: Vec<Bridge>) {
    let resolvers = vec![RESOLVER.parse().unwrap()];
    let firewall = match backend {
        "detected" => Firewall::detect(MINER, resolvers).await.unwrap(),
        "iptables" => Firewall::with(MINER, resolvers, Backend::Iptables { v6: true }),
        other => panic!("no backend {other}"),
    };
    match call {
        "ensure" => firewall.ensure(&bridges).await.unwrap(),
        "remove" => firewall.remove(&bridges[0]).await.unwrap(),
        "retain" => firewall.retain(&bridges).await.unwrap(),
        "inspect" => {}
        other => panic!("no call {other}"),
    }
    let found = firewall.inspect().await.unwrap();
    let names: Vec<&str> = found.bridges.iter().map(Bridge::name).collect();
    println!("{} | {} | {} missing", firewall.backend(), names.join(" "), found.missing.len());
}

/// A lease's life with both protections, and what is left of it.
async fn guard(dir: PathBuf) {
    let volumes = dir.join("volumes");
    let (egress, disk_quota) = (Policy::Enforce, Policy::Enforce);
    let guard = Guard::new(GuardOptions { miner: MINER, volumes: volumes.clone(), egress, disk_quota });
    let engine = EngineStorage { driver: "overlay2".into(), root: dir, status: vec![] };
    let [first, second] = [1, 2].map(|n| VolumeKey { lease: LeaseId([n; 16]), epoch: 1 });
    let firewall = guard.firewall().await.unwrap().unwrap();
    let held = async || firewall.inspect().await.unwrap().bridges;
    let there = || std::fs::read_dir(&volumes).unwrap().count();
    for key in [first, second] {
        let prepared = guard.before_create(key, &engine, 32 << 20, "tenant").await.unwrap();
        assert_eq!(prepared.binds.len(), 3, "{prepared:?}");
    }
    assert_eq!((held().await, there()), (vec![lease(1), lease(2)], 4));
    guard.after_remove(first).await.unwrap();
    assert_eq!((held().await, there()), (vec![lease(2)], 2));
    // The second's container was never made, and a miner that starts again finds what is left.
    firewall.remove_all().await.unwrap();
    assert_eq!(guard.keep(&[(second, lease(2))], &engine).await.unwrap(), []);
    assert_eq!((held().await, there()), (vec![lease(2)], 2), "rules that were gone are back");
    assert_eq!(guard.keep(&[], &engine).await.unwrap(), [second]);
    assert_eq!((held().await, there()), (vec![], 0));
}

fn hold_and_leave_nothing(tag: &str, backend: &str, ruleset: &[&[&str]]) {
    let world = World::new(tag);
    let rules = || ruleset.iter().map(|argv| world.says(argv)).collect::<String>();
    let none = rules();
    assert!(!none.contains("compute"), "{none}");
    world.assert_all_open("a");

    let (a, b) = (lease(1), lease(2));
    let said = world.firewall(backend, "ensure", &[a.clone(), b.clone()]);
    assert!(said.ends_with(&format!(" | {a} {b} | 0 missing\n")), "{said}");
    world.assert_closed("a");
    world.assert_closed("b");
    let once = rules();
    world.firewall(backend, "ensure", std::slice::from_ref(&a));
    assert_eq!(rules(), once, "a repeat changes nothing, and no other lease");

    world.firewall(backend, "remove", std::slice::from_ref(&b));
    world.assert_all_open("b");
    assert!(!world.reaches("a", "169.254.169.254:80"), "the other lease is held");
    world.firewall(backend, "retain", &[]);
    assert_eq!(rules(), none, "nothing is left");
    world.assert_all_open("a");
}

pub(crate) fn tenants_reach_the_internet_and_nothing_else_by_nftables() {
    hold_and_leave_nothing("n", "detected", &[&["nft", "list", "ruleset"]]);
}

pub(crate) fn tenants_reach_the_internet_and_nothing_else_by_iptables() {
    // The first listing makes the tables that it lists.
    hold_and_leave_nothing("i", "iptables", &[&["iptables", "-S"], &["ip6tables", "-S"]]);
}

pub(crate) fn a_guarded_lease_has_rules_and_a_volume_and_leaves_neither() {
    let world = World::new("g");
    let dir = tempfile::tempdir().unwrap();
    let done = world.inside("host", &["guard", dir.path().to_str().unwrap()]).status().unwrap();
    assert!(done.success());
    assert!(!world.says(&["nft", "list", "ruleset"]).contains("compute"));
}

pub(crate) fn rules_that_another_service_flushed_come_back() {
    let world = World::new("f");
    let a = lease(1);
    world.firewall("detected", "ensure", std::slice::from_ref(&a));
    world.says(&["nft", "flush", "ruleset"]);
    let said = world.firewall("detected", "inspect", &[]);
    assert!(!said.ends_with(" 0 missing\n"), "what was flushed is seen: {said}");
    assert!(world.reaches("a", "169.254.169.254:80"));
    world.firewall("detected", "ensure", std::slice::from_ref(&a));
    assert!(!world.reaches("a", "169.254.169.254:80"));
}
