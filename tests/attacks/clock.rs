//! A machine whose clock jumps while requests come in. The node runs in this process, on the machine's clock with an
//! offset: no such seam exists in the programs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use compute_subnet::actors::miner::node::{self as miner, MinerInput};
use compute_subnet::actors::node::NodeInput;
use compute_subnet::chain::ledger::{Deadlines, GenesisConfig, LedgerClient, LedgerNode};
use compute_subnet::chain::{Chain as _, RAO_PER_TAO};
use compute_subnet::clock::{Clock, SystemClock};
use compute_subnet::exit::Exit;
use compute_subnet::hardware::{OfferedDevice, Probe};
use compute_subnet::ids::{Coldkey, DeviceId, Hotkey, Netuid};
use compute_subnet::lease::engine::SimulatedEngine;
use compute_subnet::proof::prover::{ChildProver, ProverLimits};
use compute_subnet::runtime::{Cause, Placement};
use compute_subnet::settings::{Cli, Role, load};
use compute_subnet::wallet::Keypair;
use tokio::time::Instant;

use crate::http::{HOME, Whole, exchange};
use crate::requests::{PROBE, Request, SECOND, now_ns};
use crate::stage::{Row, own_memory};
use crate::wait::{LONG, until};

/// For no longer may a jump keep callers out whose clocks agree with the miner's: it takes seconds, on a busy machine more,
/// and never as long as the jump was.
const BACK: Duration = Duration::from_secs(30);

/// The machine's clock, and how far it was set away from the true time, in nanoseconds.
#[derive(Default)]
struct Jumping(AtomicI64);

impl Jumping {
    fn jump(&self, seconds: i64) {
        self.0.fetch_add(seconds * SECOND as i64, Ordering::SeqCst);
    }
}

impl Clock for Jumping {
    fn now_ns(&self) -> u64 {
        SystemClock.now_ns().saturating_add_signed(self.0.load(Ordering::SeqCst))
    }
}

struct Caller {
    key: Keypair,
    to: Hotkey,
    axon: SocketAddr,
}

impl Caller {
    /// Requests under both schemes, signed by a clock.
    fn signed(&self, now_ns: u64) -> [Request; 2] {
        [
            Request::own(&self.key, &self.to, "/ComputeSpecs", b"{}", now_ns),
            Request::classic(&self.key, &self.to, PROBE.as_bytes(), now_ns).with("timeout", "60.0"),
        ]
    }

    async fn send(&self, requests: &[Request]) -> Vec<u16> {
        let mut statuses = Vec::new();
        for request in requests {
            statuses.push(exchange(HOME, self.axon, Whole(Some(request.bytes()))).await.status);
        }
        statuses
    }
}

/// Against a node in this process.
pub(crate) async fn a_clock_that_jumps_readmits_nothing_and_costs_seconds(
    dir: &Path,
    runtime: Arc<tokio::runtime::Runtime>,
) -> Row {
    let (key, us, owner) = (Keypair::from_seed(&[1; 32]), Keypair::from_seed(&[2; 32]), Keypair::from_seed(&[3; 32]));
    let dir = dir.join("clock");
    let cli = Cli::default()
        .with_key("node.data_dir", &dir.display().to_string())
        .with_key("subtensor.poll_interval", "100ms");
    let env = [("HOME".to_owned(), dir.display().to_string())];
    let settings = load(Role::Devnet, &cli, env).unwrap_or_else(|problems| panic!("{problems}")).settings;

    let netuid = Netuid(27);
    let mut genesis = GenesisConfig::new(netuid);
    genesis.block_time = Duration::from_millis(100);
    genesis.hyperparameters.tempo = 5;
    genesis.hyperparameters.serving_rate_limit = 1;
    genesis.endowed = vec![(Coldkey(owner.hotkey().0), 100 * RAO_PER_TAO)];
    genesis.stakes = vec![(key.hotkey(), 2_000 * RAO_PER_TAO)];
    // The chain's clock is not this machine's.
    let ledger = LedgerNode::spawn(genesis, None, Arc::new(SystemClock)).await.unwrap();
    let client =
        |key: &Keypair| LedgerClient::in_process(ledger.clone(), netuid, Arc::new(key.clone()), Deadlines::default());
    for key in [&us, &key] {
        client(key).register(key.hotkey(), &owner).await.unwrap();
    }
    let clock = Arc::new(Jumping::default());
    let at = SocketAddr::from(([127, 0, 1, 2], 0));
    let limits = ProverLimits { time: LONG, memory_bytes: 1 << 30, output_bytes: 16 << 20, threads: 1 };
    let node = miner::start(MinerInput {
        node: NodeInput {
            name: "miner".to_owned(),
            settings: Arc::new(settings),
            keypair: us.clone(),
            chain: Arc::new(client(&us)),
            clock: clock.clone(),
            runtime,
            placement: Placement::PerNode,
            data_dir: dir.clone(),
            web: at,
            axon: at,
            announce: None,
            layers: None,
        },
        prover: Arc::new(ChildProver::new(env!("CARGO_BIN_EXE_compute-prover").into(), limits)),
        engine: Arc::new(SimulatedEngine::new(dir.join("engine.json"))),
        probe: Probe::default(),
        device_classes: Some(vec![OfferedDevice {
            device: DeviceId::cpu(0),
            model: "cpu-1".into(),
            memory_bytes: 1 << 30,
        }]),
    })
    .unwrap();
    let (web, view) = (node.node.web, node.node.view.clone());
    let caller = Caller { key, to: us.hotkey(), axon: node.node.axon_address.unwrap() };
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::task::spawn_local(node.node.run(async move {
        let _ = stopped.await;
    }));
    let before = own_memory();

    let answered = async |what: &str| {
        let begun = Instant::now();
        let last = std::cell::RefCell::new(Vec::new());
        let answered = tokio::time::timeout(BACK, async {
            loop {
                let statuses = caller.send(&caller.signed(clock.now_ns())).await;
                if statuses == [200, 200] {
                    return;
                }
                *last.borrow_mut() = statuses;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        answered.await.unwrap_or_else(|_| panic!("{what}: still {:?} after {BACK:?}", last.borrow()));
        begun.elapsed()
    };
    until("the miner admits", async || (caller.send(&caller.signed(now_ns())).await == [200, 200]).then_some(())).await;
    let (mut sent, mut slowest, mut told) = (0, Duration::ZERO, Vec::new());

    // Ahead and back again, back and ahead again, and by less than a window: what was admitted is never admitted again.
    for jumps in [[3600, -3600], [-3600, 3600], [7, -7], [-90, 90]] {
        let old = caller.signed(now_ns());
        assert_eq!(caller.send(&old).await, [200, 200]);
        for jump in jumps {
            clock.jump(jump);
            for _ in 0..5 {
                let statuses = caller.send(&old).await;
                assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{jump:+} s: {statuses:?}");
                sent += 2;
            }
            if jump.abs() > 100 && clock.0.load(Ordering::SeqCst) != 0 {
                // Callers whose clocks did not jump hear which of the two is wrong, as far as a miner can tell.
                let statuses = caller.send(&caller.signed(now_ns())).await;
                assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{jump:+} s: {statuses:?}");
                sent += 2;
            }
            let took = answered(&format!("{jump:+} s")).await;
            slowest = slowest.max(took);
            told.push(format!("{jump:+} s: {:.1} s", took.as_secs_f64()));
            let health = reqwest::get(format!("http://{web}/healthz")).await.unwrap().status();
            assert_eq!(health, 200, "{jump:+} s");
            let again = caller.send(&old).await;
            assert_eq!(again, [401, 401], "{jump:+} s: admitted again");
            sent += 2;
        }
    }
    assert_eq!(clock.0.load(Ordering::SeqCst), 0);
    until("the node is ready", async || {
        let ready = reqwest::get(format!("http://{web}/readyz")).await.ok()?;
        (ready.status() == 200).then_some(())
    })
    .await;
    for actor in view.names() {
        for cause in Cause::ALL {
            assert_eq!(view.restarts(actor, cause), 0, "{actor} {cause} {:?}", view.last_failure(actor));
        }
    }
    println!("     answered again after jumps of {}", told.join(", "));
    let after = own_memory();
    stop.send(()).unwrap();
    let exit = tokio::time::timeout(LONG, running).await.unwrap().unwrap();
    assert_eq!(exit, Exit::Ok);
    let refused_by = "401 (503 until the chain was seen again)".to_owned();
    Row { sent, refused_by, less: None, slowest, before, after }
}
