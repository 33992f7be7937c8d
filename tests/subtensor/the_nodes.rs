//! A miner and a validator on a real runtime while the wire to it fails in the worst ways: no actor misses a heartbeat, none
//! is restarted, and the view moves again when the wire is well.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::actors::miner::node::{self as miner, MinerInput};
use compute_subnet::actors::node::{Node, NodeInput};
use compute_subnet::actors::validator::node::{self as validator, ValidatorInput};
use compute_subnet::chain::Chain;
use compute_subnet::clock::SystemClock;
use compute_subnet::exit::Exit;
use compute_subnet::hardware::Probe;
use compute_subnet::ids::Netuid;
use compute_subnet::launch;
use compute_subnet::lease::engine::SimulatedEngine;
use compute_subnet::proof::prover::InProcessProver;
use compute_subnet::runtime::Placement;
use compute_subnet::settings::{self, Cli, Settings};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::bed::hotkey;
use crate::proxy::{Mode, Proxy};
use crate::the_faults::{ANSWER, client, subnet};
use crate::until;

/// Each fault lasts this long: more than the time after which a silent actor is restarted, and than an answer's deadline.
const LASTS: Duration = Duration::from_secs(4);

fn settings(netuid: Netuid) -> Settings {
    let home = ("HOME".to_owned(), "/nonexistent".to_owned()); // every path below it is given anew
    let mut s = settings::load(settings::Role::Devnet, &Cli::default(), [home]).unwrap().settings;
    s.netuid = netuid;
    s.subtensor.poll_interval = Duration::from_millis(100);
    s.subtensor.request_timeout = ANSWER;
    s
}

fn input(
    role: &str,
    uid: usize,
    settings: &Arc<Settings>,
    endpoints: Vec<String>,
    dir: &Path,
    runtime: &Arc<tokio::runtime::Runtime>,
) -> NodeInput {
    let data_dir = dir.join(role);
    let mut settings = Settings::clone(settings);
    settings.node.lock_dir = dir.join("locks");
    NodeInput {
        layers: None,
        name: role.to_owned(),
        chain: client(settings.netuid, uid, endpoints) as Arc<dyn Chain>,
        settings: Arc::new(settings),
        keypair: hotkey(uid),
        clock: Arc::new(SystemClock),
        runtime: runtime.clone(),
        placement: Placement::PerActor,
        data_dir,
        web: "127.0.0.1:0".parse().unwrap(),
        axon: "127.0.0.2:0".parse().unwrap(),
        announce: None,
    }
}

/// The values of one metric by actor, from the node's page.
async fn page(web: SocketAddr, metric: &str) -> BTreeMap<String, f64> {
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build().unwrap();
    let text = http.get(format!("http://{web}/metrics")).send().await.unwrap().text().await.unwrap();
    let of = text.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    of.map(|rest| {
        let (labels, value) = rest.split_once("} ").unwrap();
        (labels.to_owned(), value.parse().unwrap())
    })
    .collect()
}

/// The oldest heartbeat that any actor ever had, by its page, while `during` goes on.
async fn oldest(webs: &[SocketAddr], during: Duration) -> (String, f64) {
    let (begin, mut oldest) = (Instant::now(), (String::new(), 0.0));
    while begin.elapsed() < during {
        for web in webs {
            for (actor, age) in page(*web, "compute_actor_heartbeat_age_seconds").await {
                if age > oldest.1 {
                    oldest = (actor, age);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    oldest
}

#[test]
fn no_actor_misses_a_heartbeat_whatever_the_chain_does() {
    let dir = tempfile::tempdir().unwrap();
    let exit = launch::run(|runtime| async move {
        let Some((bed, netuid)) = subnet().await else { return Exit::Ok };
        let wires = [Proxy::start(bed.address()).await, Proxy::start(bed.address()).await];
        let endpoints: Vec<String> = wires.iter().map(Proxy::url).collect();
        let settings = Arc::new(settings(netuid));
        let of = |role, uid| input(role, uid, &settings, endpoints.clone(), dir.path(), &runtime);
        let miner = miner::start(MinerInput {
            node: of("miner", 4),
            prover: Arc::new(InProcessProver { threads: 1 }),
            engine: Arc::new(SimulatedEngine::new(dir.path().join("containers.json"))),
            probe: Probe::default(),
            device_classes: Some(Vec::new()),
        })
        .unwrap();
        let validator = validator::start(ValidatorInput {
            node: of("validator", 0),
            local_address: None,
            remote: Arc::new(compute_subnet::canary::ssh::Ssh),
        })
        .unwrap();
        let nodes = [miner.node, validator.node];
        let webs = [nodes[0].web, nodes[1].web];
        let views = nodes.each_ref().map(|node| node.chain.clone());
        let mut running = Vec::new();
        for node in nodes {
            running.push(run(node));
        }
        bed.every(Duration::from_millis(1_000)).await;
        let limit = settings.supervision.silence_limit.as_secs_f64();
        for mode in [Mode::Stall, Mode::Trickle(300), Mode::Garble, Mode::Delay(Duration::from_secs(1)), Mode::Gone] {
            for wire in &wires {
                wire.set(mode).await;
            }
            let (actor, age) = oldest(&webs, LASTS).await;
            for wire in &wires {
                wire.set(Mode::Pass).await;
            }
            let (head, begin) = (bed.head().await, Instant::now());
            for view in &views {
                let seen = || view.borrow().as_ref().map_or(0, |view| view.metagraph.head.number);
                until("the view moves again", async || (seen() >= head).then_some(())).await;
            }
            println!("{mode:?}: oldest heartbeat {age:.2} s ({actor}), whole {:?} after it", begin.elapsed());
            assert!(age < limit, "{mode:?}: {actor} had no heartbeat for {age} s");
        }
        for web in webs {
            let restarts = page(web, "compute_actor_restarts_total").await;
            assert!(!restarts.is_empty() && restarts.values().all(|n| *n == 0.0), "{restarts:?}");
            let ended = page(web, "compute_chain_connections_ended_total").await;
            assert!(ended.values().sum::<f64>() >= 2.0, "{ended:?}");
            let sent: f64 = page(web, "compute_chain_rpc_calls_total")
                .await
                .iter()
                .filter(|(labels, _)| labels.contains("author_submitAndWatchExtrinsic"))
                .map(|(_, n)| n)
                .sum();
            println!("{web}: {sent} calls submitted, connections ended {ended:?}");
        }
        for (stop, ended) in running {
            assert_eq!(stop.send(()), Ok(()), "the node ended by itself");
            assert_eq!(ended.await.unwrap(), Exit::Ok);
        }
        Exit::Ok
    });
    assert_eq!(exit, Exit::Ok);
}

fn run(node: Node) -> (oneshot::Sender<()>, tokio::task::JoinHandle<Exit>) {
    let (stop, stopped) = oneshot::channel::<()>();
    (stop, tokio::task::spawn_local(node.run(async { drop(stopped.await) })))
}
