//! A subnet of processes on a real runtime: a validator and miners, registered, staked and served by their own
//! transactions, each with a wire of its own to the chain.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use compute_subnet::evidence;
use compute_subnet::ids::{BlockNumber, Netuid};
use compute_subnet::store::queries;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::wallet::Keypair;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::bed::{Bed, Start, account, left_out};
use crate::nodes::{Node, Role, complaints, seed};
use crate::proxy::Proxy;
use crate::python::{Served, metagraph};
use crate::wait::{free_ports, until};

const PALLET: &str = "SubtensorModule";
/// The settings of all nodes, in the test's directory.
const FILE: &str = "subnet.yaml";
/// What the validator stakes, rao: more than the least stake of callers, 1,024 TAO.
const STAKE: u64 = 20_000_000_000_000;
/// Both sides of the subnet's pool, rao: so deep that staking hardly moves the price.
const POOL: u64 = 1_000_000_000_000_000;
/// One class for each miner: what they are paid differs.
pub(crate) const MINERS: usize = 4;
/// Funded accounts, the coldkeys of validator and miners.
const COLDKEYS: [&str; MINERS + 1] = ["//Bob", "//Charlie", "//Dave", "//Eve", "//Ferdie"];
/// Proofs that cost nothing beside starting the prover: what is tried here is the chain. A class for each miner, with
/// these bases.
fn settings(bases: [u16; MINERS]) -> String {
    let class = |(number, base)| format!("    cpu-{number}: {{ base: {base}, n: 128, k: 64, rounds: 1 }}\n");
    let classes: String = (1..).zip(bases).map(class).collect();
    format!("devnet:\n  gpu_scores:\n{classes}")
}

/// How the chain under a subnet runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Blocks of an epoch, less one.
    pub(crate) tempo: u16,
    /// Real time of a block. On the chain it takes what the runtime says.
    pub(crate) block: Duration,
    /// Whether weights are committed to first, and revealed in the next epoch.
    pub(crate) commit: bool,
}

/// Of 12 blocks each of the six permit holders, which on this runtime are all neurons, has two.
pub(crate) const PACE: Pace = Pace { tempo: 11, block: Duration::from_millis(350), commit: false };

/// Whether the long forms of tests are to be run.
pub(crate) fn long() -> bool {
    std::env::var_os("COMPUTE_TEST_LONG").is_some()
}

/// Weights as stored: uid and weight.
pub(crate) type Entries = Vec<(u16, u16)>;

/// The subnet. Its processes end with this value; its directory is kept, and named, if the test fails.
pub(crate) struct Subnet {
    pub(crate) nodes: Vec<Node>,
    pub(crate) wires: Vec<Proxy>,
    pub(crate) bed: Bed,
    pub(crate) netuid: Netuid,
    pub(crate) pace: Pace,
    /// The first block that the nodes saw.
    pub(crate) from: BlockNumber,
    /// When it began to start.
    pub(crate) begun: Instant,
    dir: Dir,
    _alone: tokio::sync::MutexGuard<'static, ()>,
}

/// One subnet at a time: each is six programs that wait for each other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Dir(Option<tempfile::TempDir>);

impl Drop for Dir {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(dir) = self.0.take()
        {
            println!("kept: {}", dir.keep().display());
        }
    }
}

fn loopback(last: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last as u8)
}

impl Subnet {
    /// A chain with a subnet, and the nodes on it, each of them ready. `None`, and said so, where there is no runtime.
    pub(crate) async fn start(pace: Pace) -> Option<Self> {
        let (alone, begun) = (ALONE.lock().await, Instant::now());
        let bed = Bed::start(Start::default()).await?;
        let netuid = bed.register_subnet().await;
        let rule = |item, value| (PALLET, item, json!([netuid.0]), value);
        bed.set_storage(&[
            rule("Tempo", json!(pace.tempo)),
            rule("CommitRevealWeightsEnabled", json!(pace.commit)),
            rule("RevealPeriodEpochs", json!(1)),
        ])
        .await;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), settings([1, 2, 3, 4])).unwrap();
        let names: Vec<String> = std::iter::once("validator".to_owned())
            .chain((1..=MINERS).map(|number| format!("miner-{number}")))
            .collect();
        for (uid, (name, coldkey)) in names.iter().zip(COLDKEYS).enumerate() {
            let hotkey = account(&Keypair::from_seed(&seed(name)));
            let sent = bed.submit(coldkey, PALLET, "burned_register", json!([netuid.0, hotkey])).await.unwrap();
            assert_eq!(sent.error, None, "burned_register of {name}");
            assert_eq!(bed.storage(PALLET, "Uids", json!([netuid.0, hotkey])).await, json!(uid + 1));
        }
        let validator = account(&Keypair::from_seed(&seed("validator")));
        bed.set_storage(&[rule("SubnetTAO", json!(POOL)), rule("SubnetAlphaIn", json!(POOL))]).await;
        let sent = bed.submit(COLDKEYS[0], PALLET, "add_stake", json!([validator, netuid.0, STAKE])).await.unwrap();
        assert_eq!(sent.error, None, "add_stake");
        // An epoch gives the permit.
        bed.new_blocks(u64::from(pace.tempo) + 1).await;
        let from = bed.head().await + 1;
        bed.every(pace.block).await;
        let port = free_ports();
        let (mut nodes, mut wires) = (Vec::new(), Vec::new());
        for (number, name) in names.iter().enumerate() {
            let wire = Proxy::start(bed.address()).await;
            nodes.push(node(dir.path(), name, number, port, netuid, &wire, pace));
            wires.push(wire);
        }
        let dir = Dir(Some(dir));
        let mut subnet = Subnet { nodes, wires, bed, netuid, pace, from, begun, dir, _alone: alone };
        for node in &mut subnet.nodes {
            node.ready().await;
        }
        println!("up in {:.1} s", begun.elapsed().as_secs_f64());
        Some(subnet)
    }

    pub(crate) fn validator(&self) -> &Node {
        &self.nodes[0]
    }

    /// The epoch of a block: what the runtime computes while its epochs are stateless.
    pub(crate) fn epoch(&self, block: BlockNumber) -> u64 {
        (block + u64::from(self.netuid.0) + 1) / (u64::from(self.pace.tempo) + 1)
    }

    /// The weights of a uid as stored now, or at a block.
    pub(crate) async fn stored(&self, uid: u16, at: Option<&str>) -> Entries {
        let asked = match at {
            Some(hash) => json!([PALLET, "Weights", [self.netuid.0, uid], hash]),
            None => json!([PALLET, "Weights", [self.netuid.0, uid]]),
        };
        sorted(serde_json::from_value(self.bed.rpc.ask("test_get", asked).await["value"].take()).unwrap())
    }

    async fn last_update(&self) -> BlockNumber {
        self.bed.storage(PALLET, "LastUpdate", json!([self.netuid.0])).await[1].as_u64().unwrap()
    }

    /// What the validator's table says that the weights are, if it says that they are on the chain.
    pub(crate) async fn table(&self) -> Option<Entries> {
        let table = self.validator().control().table().await.ok()?;
        let all: Entries = table.rows.iter().filter_map(|row| Some((row.uid.0, row.weight?))).collect();
        (table.judged.is_some() && table.judged == table.on_chain).then(|| sorted(all))
    }

    /// Waits until weights that were not there before are on the chain, and are what the validator's table says, one for
    /// each miner. How long it took.
    pub(crate) async fn whole(&self) -> Duration {
        let (begun, before) = (Instant::now(), self.last_update().await);
        until("new weights are on the chain and in the table", async || {
            let (update, stored) = (self.last_update().await, self.stored(1, None).await);
            let same = self.table().await.is_some_and(|table| table == stored);
            (update > before && stored.len() == MINERS && same).then_some(())
        })
        .await;
        begun.elapsed()
    }

    /// Gives the classes other bases, and waits until the weights on the chain follow. How long it took.
    pub(crate) async fn reprice(&self, bases: [u16; MINERS]) -> Duration {
        let begun = Instant::now();
        std::fs::write(self.dir.0.as_ref().unwrap().path().join(FILE), settings(bases)).unwrap();
        until("the validator reads its settings again", async || self.validator().control().reload().await.ok()).await;
        let largest = f64::from(bases.into_iter().max().unwrap());
        until("the weights follow the scores", async || {
            let stored = self.stored(1, None).await;
            // The miners' uids begin with 2. What counts is the ratio to the largest, to a unit.
            let near = |((uid, weight), (number, base)): (&(u16, u16), (u16, u16))| {
                *uid == number && (f64::from(*weight) - 65_535.0 * f64::from(base) / largest).abs() <= 1.0
            };
            let follow = stored.len() == MINERS && stored.iter().zip((2..).zip(bases)).all(near);
            (follow && self.table().await.is_some_and(|table| table == stored)).then_some(())
        })
        .await;
        begun.elapsed()
    }

    /// What the SDK of the original reads is what the table says, and every endpoint that the nodes announced.
    pub(crate) async fn the_sdk_agrees(&self) {
        let weights = self.stored(1, None).await;
        let Some(seen) = metagraph(&self.bed.url(), self.netuid).await else { return };
        // Weights may have been set meanwhile; they seldom change.
        let after = self.stored(1, None).await;
        let read = sorted(seen.neurons[1].weights.clone());
        assert!(read == weights || read == after, "{read:?} is neither {weights:?} nor {after:?}");
        assert!(seen.neurons[1].permit && seen.neurons[1].active);
        for (number, node) in self.nodes.iter().enumerate() {
            let neuron = &seen.neurons[number + 1];
            assert_eq!(neuron.hotkey, node.key.hotkey().to_string());
            let axon = neuron.axon.as_ref().map(|axon| (axon.ip.clone(), axon.version));
            let prometheus = neuron.prometheus.as_ref().map(|at| at.ip.clone());
            let own = loopback(10 + number).to_string();
            match node.role {
                Role::Miner => assert_eq!((axon, prometheus), (Some((own, 183)), None)),
                Role::Validator => {
                    let at = Served { ip: own, port: node.web, ip_type: 4, version: 183, protocol: None };
                    assert_eq!((axon, neuron.prometheus.as_ref()), (None, Some(&at)));
                }
            }
        }
        println!("the SDK 9.0.0 reads the same weights, {} axons and the validator's metrics", MINERS);
    }

    /// The incentive that the runtime pays follows the weights: 65,535 is all of it.
    pub(crate) async fn incentive_follows(&self) {
        let weights = self.stored(1, None).await;
        let all: f64 = weights.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let shares = self.bed.storage(PALLET, "Incentive", json!([self.netuid.0])).await;
        let paid: Vec<u16> = serde_json::from_value(shares).unwrap();
        println!("weights {weights:?}, incentive {paid:?}");
        if paid.iter().all(|share| *share == 0) {
            // As in `the_bed`.
            return left_out("this runtime's epochs do not look at weights: what miners are paid is not seen");
        }
        for (uid, weight) in weights {
            let share = f64::from(paid[usize::from(uid)]) / 65_535.0;
            assert!((share - f64::from(weight) / all).abs() < 0.01, "uid {uid}: {share} of {paid:?}");
        }
    }

    /// No actor of the processes that run now was ever restarted, and no process ended by itself.
    pub(crate) async fn unharmed(&mut self) {
        for node in &mut self.nodes {
            node.alive();
            assert_eq!(node.restarts().await, 0.0, "actors of {} were restarted\n{}", node.name, node.said(60));
        }
    }

    /// Every setting of weights that the chain took, by block, is an intent of the validator's database with exactly these
    /// entries; each epoch has at most one. The nodes must have ended.
    pub(crate) async fn weights_were_set_once(&self) -> Settings {
        let intents = intents(&self.validator().data);
        // The node ended before it saw what became of the last ones.
        let (mut open, ended): (Vec<&Intent>, Vec<&Intent>) =
            intents.iter().partition(|i| ["pending", "sent", "committed"].contains(&i.status.as_str()));
        let included: BTreeMap<BlockNumber, &Intent> = ended.iter().filter_map(|i| Some((i.block?, *i))).collect();
        let head = self.bed.head().await;
        let (mut found, mut unseen, mut commits) = (0, 0, 0);
        let (mut served, mut epochs) = (BTreeMap::<String, usize>::new(), BTreeSet::new());
        for number in self.from..=head {
            let hash = self.bed.rpc.ask("chain_getBlockHash", json!([number])).await;
            let events = self.bed.rpc.ask("test_events", json!([hash])).await;
            for event in events.as_array().unwrap() {
                let (name, data) = (event["name"].as_str().unwrap(), &event["data"]);
                if ["SubtensorModule.AxonServed", "SubtensorModule.PrometheusServed"].contains(&name) {
                    *served.entry(name.to_owned()).or_default() += 1;
                }
                commits += usize::from(name == "SubtensorModule.WeightsCommitted");
                assert_ne!(name, "System.ExtrinsicFailed", "in block {number}: {data}");
                if name != "SubtensorModule.WeightsSet" || data != &json!([self.netuid.0, 1]) {
                    continue;
                }
                found += 1;
                let stored = self.stored(1, hash.as_str()).await;
                let intent = included.get(&number).copied().or_else(|| {
                    let at = open.iter().position(|intent| intent.entries == stored)?;
                    unseen += 1;
                    Some(open.remove(at))
                });
                let intent = intent.unwrap_or_else(|| {
                    panic!("weights {stored:?} were set in block {number}, which no intent says: {intents:#?}")
                });
                assert_eq!(intent.entries, stored, "block {number}");
                assert!(epochs.insert(intent.epoch), "epoch {} was set twice: {intents:#?}", intent.epoch);
            }
        }
        assert_eq!(found, included.len() + unseen, "as many settings as intents that were included: {intents:#?}");
        let (first, last) = (self.epoch(self.from), self.epoch(head));
        Settings {
            blocks: head - self.from + 1,
            epochs: last - first,
            set: found,
            commits,
            intents: intents.len(),
            served,
        }
    }

    /// The validator's evidence log is whole, and every weight in it follows from it alone. The node must have ended.
    pub(crate) fn evidence_holds(&self) -> String {
        let (ok, said) = self.validator().register(&["evidence", "verify"]);
        assert!(ok, "{said}");
        let data = &self.validator().data;
        let head = queries::evidence_head(&open_read_only(data).unwrap()).unwrap();
        let log = data.join(evidence::DIRECTORY);
        let (report, problems) = evidence::read::verify(&log, head, None).unwrap();
        assert_eq!(problems, [], "{}", report.to_text());
        let replay = evidence::replay::replay(&log, None).unwrap();
        assert!(replay.holds(), "{}", replay.to_text(1_000));
        format!("{} records, {} epochs; {}", report.records, replay.epochs.len(), replay.verdict())
    }

    /// Verdicts by kind and reason, over all that the validator's database has.
    pub(crate) fn verdicts(&self) -> BTreeMap<String, usize> {
        let all = queries::verdicts_since(&open_read_only(&self.validator().data).unwrap(), 0).unwrap();
        let mut kinds = BTreeMap::new();
        for verdict in all {
            *kinds.entry(format!("{}: {}", verdict.verdict.kind(), verdict.verdict.reason())).or_default() += 1;
        }
        kinds
    }

    /// Ends the nodes in order, the validator first.
    pub(crate) async fn end(&mut self) {
        for node in &mut self.nodes {
            node.end().await;
        }
    }
}

/// What [`Subnet::weights_were_set_once`] counted.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) blocks: u64,
    pub(crate) epochs: u64,
    pub(crate) set: usize,
    pub(crate) intents: usize,
    /// Commits to weights.
    pub(crate) commits: usize,
    /// Axons and metrics that were announced.
    pub(crate) served: BTreeMap<String, usize>,
}

/// An intent to set weights as the database has it.
#[derive(Debug)]
struct Intent {
    epoch: u64,
    entries: Entries,
    status: String,
    block: Option<BlockNumber>,
}

fn intents(data: &Path) -> Vec<Intent> {
    let conn = open_read_only(data).unwrap();
    let mut read = conn.prepare("SELECT epoch, entries, status, included_block FROM weights ORDER BY id").unwrap();
    let rows = read.query_map([], |row| {
        let entries: Value = serde_json::from_str(&row.get::<_, String>(1)?).unwrap();
        let entry = |e: &Value| (e["uid"].as_u64().unwrap() as u16, e["weight"].as_u64().unwrap() as u16);
        Ok(Intent {
            epoch: row.get::<_, i64>(0)? as u64,
            entries: sorted(entries.as_array().unwrap().iter().map(entry).collect()),
            status: row.get(2)?,
            block: row.get::<_, Option<i64>>(3)?.map(|block| block as u64),
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn sorted(mut entries: Entries) -> Entries {
    entries.retain(|(_, weight)| *weight > 0);
    entries.sort_unstable();
    entries
}

/// A node's process. The validator serves metrics, each miner an axon, at addresses of their own of loopback: the pallet
/// takes all but 127.0.0.1.
fn node(dir: &Path, name: &str, number: usize, port: u16, netuid: Netuid, wire: &Proxy, pace: Pace) -> Node {
    let role = if number == 0 { Role::Validator } else { Role::Miner };
    let own = loopback(10 + number);
    let mut args: Vec<String> =
        ["--subtensor.network", "local", "--netuid", &netuid.0.to_string(), "--config"].map(str::to_owned).into();
    args.push(dir.join(FILE).display().to_string());
    args.extend(["--subtensor.chain_endpoint".to_owned(), wire.url()]);
    args.extend(["--axon.external_ip".to_owned(), own.to_string()]);
    let poll = format!("{}ms", (pace.block / 3).as_millis());
    let mut set = vec![("subtensor.poll_interval", poll.as_str()), ("subtensor.request_timeout", "5s")];
    match role {
        Role::Validator => {
            args.extend(["--metrics.ip", "0.0.0.0"].map(str::to_owned));
            set.extend([
                ("weights.interval_blocks", "1"),
                ("weights.retry_first", "500ms"),
                ("weights.retry_cap", "2s"),
                ("weights.confirm_timeout", "10s"),
                ("challenge.opening_deadline", "5s"),
                ("leases.health_interval", "1s"),
            ]);
        }
        Role::Miner => {
            args.extend(["--axon.ip".to_owned(), own.to_string()]);
            args.extend(["--axon.port".to_owned(), (port + 5 + number as u16).to_string()]);
            args.extend(["--device-class".to_owned(), format!("cpu-{number}")]);
            set.extend([("budget.challenges_per_hotkey", "10000"), ("budget.time", "10m")]);
        }
    }
    args.extend(set.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]));
    Node::start(dir, name, role, port + number as u16, &args)
}

/// Where the axon of the miner with this number, from 1, is.
pub(crate) fn axon(number: usize, node: &Node) -> SocketAddr {
    SocketAddr::from((loopback(10 + number), node.web + 5))
}

/// Ends the nodes, and compares everything that is on record with the chain.
pub(crate) async fn compare(mut subnet: Subnet) -> Settings {
    subnet.incentive_follows().await;
    subnet.the_sdk_agrees().await;
    subnet.unharmed().await;
    subnet.end().await;
    let settings = subnet.weights_were_set_once().await;
    println!(
        "{} blocks, {} epochs, weights set {} times of {} intents, {} commits, announced {:?}",
        settings.blocks, settings.epochs, settings.set, settings.intents, settings.commits, settings.served
    );
    println!("verdicts {:?}\nevidence {}", subnet.verdicts(), subnet.evidence_holds());
    println!("complaints {:#?}", complaints(subnet.nodes.iter()));
    println!("{:.0} s in all", subnet.begun.elapsed().as_secs_f64());
    settings
}
