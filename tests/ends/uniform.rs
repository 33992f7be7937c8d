//! Ends at random moments: a devnet of processes on a real engine, whose renters rent while its validator, its miners and its
//! engine are killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use compute_subnet::host::firewall::Bridge;
use compute_subnet::lease::engine::History;
use compute_subnet::lease::engine::docker::{DockerEngine, DockerOptions};
use compute_subnet::lease::{ContainerEngine as _, EndReason, LeaseState};
use compute_subnet::sim::audit::{self, Engine};
use compute_subnet::sim::processes::{ChildRole, Listing};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use crate::bed::{Bed, run};
use crate::net::Net;
use crate::wait::until;
use crate::watch::{self, Watch};

/// Longest quiet time before a kill, and longest time without an engine.
const CALM: Duration = Duration::from_millis(2_500);
const AWAY: Duration = Duration::from_millis(1_500);
/// Blocks of an epoch, less one, and their pace: an epoch takes 2.4 s.
const TEMPO: u16 = 11;
const SPEED: &str = "5";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

pub(crate) async fn kills_at_random_moments(bed: &mut Bed, long: bool) {
    let seed = number("COMPUTE_TEST_SEED").unwrap_or_else(|| {
        let mut random = [0u8; 8];
        getrandom::fill(&mut random).unwrap();
        u64::from_le_bytes(random)
    });
    let kills = number("COMPUTE_TEST_KILLS").unwrap_or(if long { 20 } else { 2 });
    println!("uniform over time: COMPUTE_TEST_SEED={seed} COMPUTE_TEST_KILLS={kills}");
    let mut rng = StdRng::seed_from_u64(seed);
    let watch = Watch::begin(&bed.socket(), &tokio::runtime::Handle::current());

    let dir = tempfile::Builder::new().prefix("ends").tempdir_in(bed.socket().parent().unwrap()).unwrap();
    let data = dir.path().join("net");
    let socket = format!("docker.socket={}", bed.socket().display());
    let sshd = format!("docker.sshd={}", bed.sshd.display());
    let quota = format!("docker.disk_quota={}", if bed.has_volumes() { "enforce" } else { "best_effort" });
    let mut arguments = vec!["--docker=docker.io/library/compute-test:bookworm"];
    for setting in [&socket, &sshd, &quota, "docker.egress=enforce", "docker.subnets=10.216.0.0/20", "leases.grace=1s"]
    {
        arguments.extend(["--set", setting]);
    }
    arguments.extend(["--set", "docker.ssh_ports=47200-47231"]);
    let mut net = Net::start_in(dir, SPEED, TEMPO, &arguments).await;

    // Each process, and the engine, so often.
    let names: Vec<String> = net.listing().children.iter().map(|child| child.name.clone()).collect();
    let mut victims: Vec<Option<&String>> =
        names.iter().map(Some).chain([None]).flat_map(|name| (0..kills).map(move |_| name)).collect();
    victims.shuffle(&mut rng);
    let begun = Instant::now();
    for victim in victims {
        sleep(CALM.mul_f64(rng.random())).await;
        let killed = Instant::now();
        match victim {
            Some(name) => drop(net.kill(name).await),
            None => {
                bed.kill_engine();
                sleep(AWAY.mul_f64(rng.random())).await;
                bed.start_engine(true).await;
            }
        }
        let name = victim.map_or("engine", String::as_str);
        println!(
            "{:>6.1} s  {name} killed, back after {:.2} s",
            begun.elapsed().as_secs_f64(),
            killed.elapsed().as_secs_f64()
        );
    }
    // What was under way is finished, and what is nobody's is swept.
    sleep(Duration::from_secs(4)).await;
    net.weights_go_on().await;
    let (listing, dir) = abandoned(net).await;

    books_agree(bed, &listing, &data).await;
    let (wrong, looks) = watch.told();
    assert!(wrong.is_empty(), "seen meanwhile: {wrong:#?}");

    // All of them are gone, and the tenants run on: a devnet that goes on has them, and takes them away at its end.
    let mut resumed = arguments.clone();
    resumed.push("--resume");
    let net = Net::start_in(dir, SPEED, TEMPO, &resumed).await;
    net.weights_go_on().await;
    let left = net.end().await;
    nothing_left(bed, &watch, &left.listing, &data).await;
    println!(
        "uniform: {} kills in {:.0} s, looked at from beside {looks} times",
        kills as usize * (names.len() + 1),
        begun.elapsed().as_secs_f64()
    );
}

/// Ends the devnet itself with SIGKILL; its nodes see that, and end in order. What they leave stays.
async fn abandoned(mut net: Net) -> (Listing, tempfile::TempDir) {
    let listing = net.listing();
    net.devnet.0.kill().unwrap();
    net.devnet.0.wait().unwrap();
    for pid in listing.children.iter().filter_map(|child| child.pid) {
        let gone = async || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(());
        until("the nodes end", gone).await;
    }
    (listing, net.dir.0.take().unwrap())
}

/// Renters, validator, miners and the real engine tell the same of every lease, and none was lost.
async fn books_agree(bed: &Bed, listing: &Listing, data: &Path) {
    let (mut sides, mut wrong) = audit::read(data);
    for miner in listing.children.iter().filter(|child| child.role == ChildRole::Miner) {
        let engine = DockerEngine::new(DockerOptions { miner: miner.hotkey, ..bed.options(1) });
        let containers = engine.list().await.unwrap();
        // A real engine keeps no history.
        let history = History { forgotten: 1, done: Vec::new() };
        sides.engines.push(Engine { name: miner.name.clone(), containers, history });
    }
    wrong.extend(audit::compare(&sides));
    assert!(wrong.is_empty(), "{}", wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
    let listed = watch::list(&bed.socket()).await.unwrap();
    assert!(listed.iter().all(|c| c.state == "running"), "{listed:?}");
    let containers: usize = sides.engines.iter().map(|engine| engine.containers.len()).sum();
    assert_eq!(listed.len(), containers, "a container of nobody's: {listed:?}");

    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for kept in sides.validators.iter().chain(&sides.miners).flat_map(|node| node.leases.values()) {
        let lost = kept.lease.state == LeaseState::Lost || kept.lease.end == Some(EndReason::Unhealthy);
        assert!(!lost, "a lease was lost: {kept:?}");
    }
    for kept in sides.validators.iter().flat_map(|node| node.leases.values()) {
        *states.entry(kept.lease.state.label()).or_default() += 1;
    }
    assert!(states.values().sum::<usize>() > 2, "the renters rented: {states:?}");
    println!("books: {states:?}, {containers} containers, all four sides agree on each");
}

/// Of the devnet's miners nothing is on the host any more.
async fn nothing_left(bed: &Bed, watch: &Watch, listing: &Listing, data: &Path) {
    assert_eq!(watch::list(&bed.socket()).await.unwrap().len(), 0);
    assert_eq!(watch.left_running(&[]), [""; 0]);
    for miner in listing.children.iter().filter(|child| child.role == ChildRole::Miner) {
        let label = format!("label=compute-subnet.miner={}", miner.hotkey);
        assert_eq!(bed.docker(&["network", "ls", "-q", "-f", &label]), "");
        let table = format!("compute_subnet_{}", hex::encode(&miner.hotkey.0[..4]));
        assert!(!run("nft", &["list", "tables"]).contains(&table), "{table} stays");
        let volumes: Vec<_> = std::fs::read_dir(miner.data_dir.join("volumes")).into_iter().flatten().collect();
        assert!(volumes.is_empty(), "{volumes:?}");
    }
    let dir = data.to_str().unwrap();
    assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(dir), "a volume is mounted");
    assert!(!run("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"]).contains(dir), "a loop device stays");
    // An engine that is killed between a bridge and its record of it leaves the bridge.
    let links = run("ip", &["-o", "link", "show", "type", "bridge"]);
    let miners = audit::read(data).0.miners;
    let bridges: Vec<String> =
        miners.iter().flat_map(|miner| miner.leases.keys()).map(|id| Bridge::of(*id, 1).name().to_owned()).collect();
    for name in links.lines().filter_map(|l| l.split(": ").nth(1)).filter(|l| bridges.iter().any(|b| b == l)) {
        run("ip", &["link", "del", name]);
        println!("       left by the killed engine itself: the bridge {name}");
    }
}
