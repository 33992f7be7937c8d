//! A whole devnet in one process, over real HTTP, with real proofs of tiny work: scores, weights, rentals, and its end.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "devnet/canary.rs"]
mod canary;
mod common;
#[path = "devnet/exclusive.rs"]
mod exclusive;
#[path = "devnet/receipts.rs"]
mod receipts;
#[path = "devnet/validators.rs"]
mod validators;

use std::collections::BTreeMap;
use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use common::{LONG, PROVER, assert_unharmed, free_ports, inside, metrics, settings, until};
use compute_subnet::actors::blacklist_guard::BlacklistGuard;
use compute_subnet::actors::validator::weight_setter::WeightSetter;
use compute_subnet::admission::Refusal;
use compute_subnet::chain::ledger::LedgerHandle;
use compute_subnet::exit::Exit;
use compute_subnet::ids::{BlockNumber, Hotkey, LeaseId, Uid};
use compute_subnet::lease::engine::Deed;
use compute_subnet::lease::{EndReason, LeaseState};
use compute_subnet::messages::blacklist_guard::AdmitMiners;
use compute_subnet::messages::validator::allocation_manager::{RentError, RentRequest};
use compute_subnet::messages::validator::challenge_runner::{EpochJudged, LastJudged};
use compute_subnet::messages::validator::weight_setter::{GetScoreboard, Scoreboard};
use compute_subnet::rental::Requirements;
use compute_subnet::runtime::Handle;
use compute_subnet::scoring::{DeviceJudgement, Points, Scaling};
use compute_subnet::sim::audit;
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use compute_subnet::sim::renter::Rentals as _;
use compute_subnet::store::explain::explain_from_db;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::store::{self, queries};
use compute_subnet::telemetry::error_chain;
use compute_subnet::verdict::{FailReason, PassEvidence, UnknownCause, Verdict};
use serde_json::Value;
use tokio::sync::oneshot;

fn options(dir: &Path) -> DevnetOptions {
    DevnetOptions::new(dir, PROVER)
}

/// A miner as the test knows it.
struct Miner {
    name: String,
    class: String,
    cheats: bool,
    hotkey: Hotkey,
    web: SocketAddr,
    axon: SocketAddr,
    view: compute_subnet::runtime::TreeView,
}

/// A devnet that runs until it is told to stop.
struct Running {
    ledger: LedgerHandle,
    rpc: SocketAddr,
    miners: Vec<Miner>,
    validator: Hotkey,
    web: SocketAddr,
    view: compute_subnet::runtime::TreeView,
    weights: Handle<WeightSetter>,
    guard: Handle<BlacklistGuard>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Exit>,
}

impl Running {
    async fn start(options: DevnetOptions, runtime: Arc<tokio::runtime::Runtime>) -> Self {
        let settings = Arc::new(settings(&options.dir));
        let devnet = Devnet::start(&options, settings, "127.0.0.1:0".parse().unwrap(), runtime).await.unwrap();
        let validator = devnet.validator.as_ref().unwrap();
        let (weights, guard) = (validator.weights.clone(), validator.guard.clone());
        let (web, view) = (validator.node.web, validator.node.view.clone());
        let ledger = devnet.ledger.clone();
        let miner = |m: &compute_subnet::sim::devnet::DevnetMiner| Miner {
            name: m.name.clone(),
            class: m.class.clone(),
            cheats: m.forgery.is_some(),
            hotkey: m.node.hotkey,
            web: m.node.node.web,
            axon: m.node.node.axon_address.unwrap(),
            view: m.node.node.view.clone(),
        };
        let miners = devnet.miners.iter().map(miner).collect();
        let rpc = devnet.rpc.address();
        let validator = ledger.state().metagraph().by_uid(Uid(0)).unwrap().hotkey;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(options.rentals, async move {
            if stopped.await.is_err() {
                pending::<()>().await;
            }
        }));
        Running { ledger, rpc, miners, validator, web, view, weights, guard, stop, task }
    }

    /// A scoreboard that is on the ledger, with what the ledger holds, as of one moment.
    async fn on_chain(&self) -> Option<(Arc<Scoreboard>, BlockNumber, BTreeMap<Uid, u16>)> {
        let board = async || self.weights.ask(GetScoreboard, LONG).await.unwrap();
        let before = board().await;
        if before.epoch.is_none() || before.epoch != before.epoch_on_chain {
            return None;
        }
        let neuron = self.ledger.state().metagraph().by_hotkey(&self.validator).unwrap().clone();
        let same = board().await.epoch == before.epoch && Some(neuron.last_update) == before.included_at;
        same.then(|| (before, neuron.last_update, neuron.weights.into_iter().collect()))
    }

    /// The score of each miner on a board; `None` unless the board has every one.
    fn scores(&self, board: &Scoreboard) -> Option<Vec<Points>> {
        let of = |m: &Miner| board.rows.iter().find(|r| r.hotkey == m.hotkey).map(|r| r.score.total);
        self.miners.iter().map(of).collect()
    }

    fn uid(&self, miner: &Miner) -> Uid {
        self.ledger.state().metagraph().by_hotkey(&miner.hotkey).unwrap().uid
    }

    async fn end(self) -> Exit {
        self.stop.send(()).unwrap();
        tokio::time::timeout(LONG, self.task).await.expect("a devnet ends in time").unwrap()
    }
}

/// The base scores of the shipped classes, written out: the test redoes the arithmetic by hand.
fn base(class: &str) -> u64 {
    match class {
        "cpu-1" => 1,
        "cpu-2" => 2,
        "cpu-3" => 3,
        "cpu-4" => 4,
        other => panic!("no class {other}"),
    }
}

/// `base · 100 / (8 · 4)`, the best class having base 4; 100 more for a machine that is leased.
fn expected(class: &str, leased: bool) -> Points {
    Points(base(class) * 3_125_000_000 + if leased { 100_000_000_000 } else { 0 })
}

/// Points in thousandths.
fn thousandths<const N: usize>(points: [u64; N]) -> [Points; N] {
    points.map(|p| Points(p * 1_000_000))
}

/// The chain's 16-bit form of scores: the largest is 65,535, the rest in proportion, zeros left out. In floating point,
/// by which the node does not compute.
fn in_sixteen_bits(scores: &[(Uid, Points)]) -> BTreeMap<Uid, u16> {
    let highest = scores.iter().map(|s| s.1.0).max().unwrap() as f64;
    let scaled = scores.iter().map(|(uid, p)| (*uid, (p.0 as f64 * 65_535.0 / highest).round_ties_even() as u16));
    scaled.filter(|(_, weight)| *weight > 0).collect()
}

#[test]
fn honest_miners_are_paid_by_the_formula_and_the_ledger_holds_exactly_those_weights() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let net = Running::start(options(dir.path()), runtime).await;
        let classes: Vec<&str> = net.miners.iter().map(|m| m.class.as_str()).collect();
        assert_eq!(classes, ["cpu-1", "cpu-2", "cpu-3", "cpu-4"]);

        let (board, weights) = until("every miner is scored and the weights are on the ledger", async || {
            let (board, _, weights) = net.on_chain().await?;
            let scores = net.scores(&board)?;
            scores.iter().all(|s| s.0 > 0).then_some((board, weights))
        })
        .await;
        assert_eq!(net.scores(&board).unwrap(), thousandths([3_125, 6_250, 9_375, 12_500]));
        let by_uid = |w: [u16; 4]| net.miners.iter().map(|m| net.uid(m)).zip(w).collect::<BTreeMap<_, _>>();
        assert_eq!(weights, by_uid([16_384, 32_768, 49_151, 65_535]));
        for row in &board.rows {
            let scaling = Scaling { max_devices: 8, max_base_micro: 4_000_000 };
            assert_eq!((row.score.scaling, row.score.bonus, row.score.counted()), (scaling, Points(0), 1));
        }

        // The weights become incentive: the epoch's step shares it in the same proportion.
        until("the ledger turns weights into incentive", async || {
            let graph = net.ledger.state().metagraph();
            let of = |m: &Miner| graph.by_hotkey(&m.hotkey).unwrap().incentive;
            let incentives: Vec<u16> = net.miners.iter().map(of).collect();
            incentives.windows(2).all(|w| w[0] < w[1] && w[0] > 0).then_some(())
        })
        .await;

        // What operators see agrees.
        let page = metrics(net.web).await;
        for (miner, score) in net.miners.iter().zip([3.125, 6.25, 9.375, 12.5]) {
            assert_eq!(page[&format!("compute_score_points{{uid=\"{}\"}}", net.uid(miner))], score);
        }
        assert!(page["compute_challenge_total{reason=\"none\",verdict=\"pass\"}"] >= 4.0);
        for m in &net.miners {
            assert_unharmed(&m.name, m.web, &m.view).await;
        }
        assert_unharmed("validator", net.web, &net.view).await;

        let hotkeys: Vec<Hotkey> = net.miners.iter().map(|m| m.hotkey).collect();
        assert_eq!(net.end().await, Exit::Ok);
        specs_are_this_machines(&dir.path().join("validator"), &hotkeys);
    });
}

/// The number of this line of `/proc/meminfo`, in bytes.
fn meminfo(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).unwrap().to_owned();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn specs_are_this_machines(validator: &Path, miners: &[Hotkey]) {
    let conn = open_read_only(validator).unwrap();
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let cpus = cpus.lines().filter(|l| l.starts_with("processor")).count() as u64;
    let nproc = std::process::Command::new("nproc").output().unwrap().stdout;
    let nproc: u64 = String::from_utf8(nproc).unwrap().trim().parse().unwrap();
    let disk = rustix::fs::statvfs("/").unwrap();
    for hotkey in miners {
        let specs =
            queries::specs_of(&conn, hotkey).unwrap().expect("every miner told its specs").json["specs"].clone();
        assert_eq!(specs["ram"]["total"], meminfo("MemTotal"));
        assert_eq!(specs["ram"]["swap_total"], meminfo("SwapTotal"));
        assert_eq!(specs["processor"]["logical_cores"], cpus);
        assert_eq!(specs["processor"]["usable_cores"], nproc);
        assert_eq!(specs["hard_disk"]["total"], disk.f_blocks * disk.f_frsize);
        // Every section but the GPUs', which this machine may not have, was measured.
        let unread: Vec<&String> = specs["problems"].as_object().unwrap().keys().filter(|k| *k != "gpu").collect();
        assert!(unread.is_empty(), "{specs:#}");
    }
}

#[test]
fn memory_is_proved_and_who_does_not_hold_all_of_it_loses_its_pay_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let options = DevnetOptions { miners: 2, memory_cheaters: 1, ..options(dir.path()) };
        let net = Running::start(options, runtime).await;
        let cheater = net.miners[2].hotkey;
        let part = until("the honest miners are paid and the cheater is not, for its memory", async || {
            let (board, _, _) = net.on_chain().await?;
            let part = board.rows.iter().find(|r| r.hotkey == cheater)?.score.parts.first()?.clone();
            let caught = part.reason.label() == "memory_not_proved";
            (caught && net.scores(&board)? == thousandths([3_125, 6_250, 0])).then_some(part)
        })
        .await;
        assert_eq!(part.credit, 0);
        let page = metrics(net.web).await;
        assert!(page["compute_memory_total{reason=\"none\",verdict=\"pass\"}"] >= 2.0);
        assert!(page["compute_memory_total{reason=\"memory_mismatch\",verdict=\"fail\"}"] >= 1.0);
        assert!(page["compute_memory_rounds_total{outcome=\"judged\"}"] >= 1.0);
        assert!(page["compute_memory_bandwidth_bytes_per_second{model=\"cpu-1\"}"] > 0.0);
        assert_eq!(net.end().await, Exit::Ok);

        let db = open_read_only(&dir.path().join("validator")).unwrap();
        for row in queries::memory_history(&db, 1_000).unwrap() {
            let (verdict, hotkey) = (row.record.verdict, row.record.hotkey);
            let right = match verdict.kind() {
                "pass" => hotkey != cheater,
                "fail" => hotkey == cheater && verdict.reason() == "memory_mismatch",
                // A machine that is busy with other tests may keep an answer from coming in time.
                _ => true,
            };
            assert!(right, "epoch {}, {hotkey}: {verdict:?}", row.record.epoch);
        }
        let paid = explain_from_db(&dir.path().join("validator"), &cheater, 0).unwrap().to_text();
        assert!(paid.contains("memory_mismatch") && paid.contains("memory proof"), "{paid}");
    });
}

#[test]
fn a_cheater_gets_nothing_and_explain_names_the_check_that_caught_it() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let net = Running::start(DevnetOptions { miners: 2, cheaters: 1, ..options(dir.path()) }, runtime).await;
        let weights = until("the honest miners are paid and the cheater is judged", async || {
            let (board, _, weights) = net.on_chain().await?;
            let scores = net.scores(&board)?;
            let cheater = board.rows.iter().find(|r| r.hotkey == net.miners[2].hotkey)?;
            let judged = cheater.score.parts.first()?.reason.label() == "entry_mismatch";
            (judged && scores == thousandths([3_125, 6_250, 0])).then_some(weights)
        })
        .await;
        let cheater = net.miners.iter().find(|m| m.cheats).unwrap();
        assert_eq!(cheater.name, "cheater-2");
        assert!(!weights.contains_key(&net.uid(cheater)), "no weight for a cheater: {weights:?}");
        let page = metrics(net.web).await;
        assert!(page["compute_challenge_total{reason=\"entry_mismatch\",verdict=\"fail\"}"] >= 1.0);
        for m in &net.miners {
            assert_unharmed(&m.name, m.web, &m.view).await;
        }
        let (honest, cheater) = (net.miners[1].hotkey, cheater.hotkey);
        assert_eq!(net.end().await, Exit::Ok);

        let explain = |hotkey| explain_from_db(&dir.path().join("validator"), hotkey, 0).unwrap();
        let caught = explain(&cheater);
        let newest = &caught.verdicts[0];
        assert_eq!((newest.verdict.as_str(), newest.reason.as_str()), ("fail", "entry_mismatch"));
        let text = caught.to_text();
        assert!(text.contains("entry_mismatch: an entry of an opened tile is not the product's"), "{text}");
        assert!(text.contains("remedy: compute the product"), "{text}");
        assert!(text.contains("\nScore 0.0000 in epoch ") && text.contains("Weight 0 of 65535"), "{text}");

        let text = explain(&honest).to_text();
        for line in [
            "\nScore 6.2500 in epoch ",
            "cpu-2: base 2.0000 × 1.0000 = 2.0000\n",
            "sum 2.0000 × 100 / (8 × 4.0000) = 6.2500\n",
            "allocated bonus 0.0000\n",
            "total 6.2500\n",
            "CPU-0: pass, ",
            "Weight 65535 of 65535 (66.67 % of 2 entries)",
        ] {
            assert!(text.contains(line), "{line:?} is missing in\n{text}");
        }
    });
}

#[test]
fn a_ninth_miner_at_anothers_address_is_refused_and_told_so() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let net = Running::start(DevnetOptions { miners: 8, duplicates: 1, ..options(dir.path()) }, runtime).await;
        assert_eq!(net.miners.len(), 9);
        let (first, ninth) = (&net.miners[0], &net.miners[8]);
        assert_eq!(ninth.axon.ip(), first.axon.ip());
        let (first_uid, ninth_uid) = (net.uid(first), net.uid(ninth));

        // Whoever announces first keeps nothing by that: the earlier registration keeps the address.
        let (board, weights) = until("the eight are paid, the ninth is refused", async || {
            let admitted = net.guard.ask(AdmitMiners, LONG).await.unwrap();
            let (_, _, refusal) = admitted.iter().find(|(_, hotkey, _)| *hotkey == ninth.hotkey)?;
            if *refusal != Err(Refusal::DuplicateIp { first: first_uid }) {
                return None;
            }
            let (board, _, weights) = net.on_chain().await?;
            let scores = net.scores(&board)?;
            scores[..8].iter().all(|s| s.0 > 0).then_some((board, weights))
        })
        .await;
        let classes = ["cpu-1", "cpu-2", "cpu-3", "cpu-4", "cpu-1", "cpu-2", "cpu-3", "cpu-4"];
        let wanted: Vec<Points> = classes.iter().map(|c| expected(c, false)).chain([Points(0)]).collect();
        assert_eq!(net.scores(&board).unwrap(), wanted);
        let scores: Vec<(Uid, Points)> = net.miners.iter().map(|m| net.uid(m)).zip(wanted).collect();
        assert_eq!(weights, in_sixteen_bits(&scores));
        assert!(!weights.contains_key(&ninth_uid));
        let page = metrics(ninth.web).await;
        assert_eq!(page["compute_axon_requests_total{outcome=\"ok\",path=\"/ComputeChallenge\"}"], 0.0);

        let ninth = ninth.hotkey;
        assert_eq!(net.end().await, Exit::Ok);
        let explanation = explain_from_db(&dir.path().join("validator"), &ninth, 0).unwrap();
        let admission = explanation.admission.clone().unwrap();
        assert_eq!((admission.admitted, admission.reason.as_str()), (false, "duplicate_ip"));
        let text = explanation.to_text();
        let told = format!(
            "Not admitted: another neuron came first at this IP address (uid {first_uid}) (duplicate_ip)\n  remedy: give \
             each neuron an address of its own\n"
        );
        assert!(text.contains(&told), "{text}");
    });
}

/// The lines of the renter's log.
fn log(dir: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(dir.join("renter.log")).unwrap_or_default();
    // The last line may be half written while the devnet runs.
    text.split_inclusive('\n').filter(|l| l.ends_with('\n')).map(|l| serde_json::from_str(l).unwrap()).collect()
}

fn ids(lines: &[Value], event: &str) -> Vec<String> {
    let of = lines.iter().filter(|l| l["event"] == event);
    of.map(|l| l["lease"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn renter_validator_miner_and_engine_agree_on_every_lease_and_a_lease_pays_while_it_lasts() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let net = Running::start(DevnetOptions { rentals: 1, ..options(dir.path()) }, runtime).await;
        // A leased machine gets 100 points on top, and nobody else anything else.
        let (leased, weights, scores) = until("a leased machine's weights are on the ledger", async || {
            let (board, _, weights) = net.on_chain().await?;
            let scores = net.scores(&board)?;
            let leased: Vec<usize> = (0..4).filter(|i| scores[*i] > Points::HUNDRED).collect();
            (leased.len() == 1 && scores.iter().all(|s| s.0 > 0)).then(|| (leased[0], weights, scores))
        })
        .await;
        let wanted: Vec<Points> = net.miners.iter().enumerate().map(|(i, m)| expected(&m.class, i == leased)).collect();
        assert_eq!(scores, wanted);
        let by_uid: Vec<(Uid, Points)> = net.miners.iter().map(|m| net.uid(m)).zip(wanted).collect();
        assert_eq!(weights, in_sixteen_bits(&by_uid));

        // Ends right after a lease was rented, so that one is running and at least two were released.
        let lines = until("two leases were released and a third was rented", async || {
            let lines = log(dir.path());
            (ids(&lines, "released").len() >= 2 && lines.last()?["event"] == "rented").then_some(lines)
        })
        .await;
        let running = ids(&lines, "rented").pop().unwrap();
        let (ledger, rpc) = (net.ledger.clone(), net.rpc);
        let closed: Vec<SocketAddr> =
            net.miners.iter().flat_map(|m| [m.web, m.axon]).chain([net.web, net.rpc]).collect();
        let views: Vec<_> = net.miners.iter().map(|m| m.view.clone()).chain([net.view.clone()]).collect();
        assert_eq!(net.end().await, Exit::Ok);

        // Everything ended, the ledger last: nobody listens, no actor runs, no directory is locked.
        assert!(ledger.health().degraded.is_some(), "the ledger at {rpc} has stopped");
        for address in closed {
            assert!(tokio::net::TcpStream::connect(address).await.is_err(), "{address} still listens");
        }
        for view in views {
            assert!(view.reports().iter().all(|r| r.state == compute_subnet::runtime::State::Stopped), "{view:?}");
        }
        for (name, role) in [("validator", store::Role::Validator), ("miner-0", store::Role::Miner)] {
            drop(store::open(&dir.path().join(name), role, 0).unwrap());
        }
        agree(dir.path(), &running);
    });
}

#[test]
fn a_rental_is_the_same_lease_however_often_it_is_asked_for_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime: Arc<tokio::runtime::Runtime>| {
        let start = async || {
            let settings = Arc::new(settings(dir.path()));
            let options = DevnetOptions { miners: 2, ..options(dir.path()) };
            let devnet =
                Devnet::start(&options, settings, "127.0.0.1:0".parse().unwrap(), runtime.clone()).await.unwrap();
            let rentals = devnet.validator.as_ref().unwrap().allocations.clone();
            let (stop, stopped) = oneshot::channel::<()>();
            let task = tokio::task::spawn_local(devnet.run(0, async {
                let _ = stopped.await;
            }));
            (rentals, stop, task)
        };
        let id = |n| LeaseId([n; 16]);
        let wish = |n| RentRequest {
            id: Some(id(n)),
            renter: Hotkey([9; 32]),
            miner: None,
            requirements: Requirements::any(1),
            duration: std::time::Duration::from_secs(600),
            image: "ubuntu".into(),
            ssh_key: "ssh-ed25519 AAAA".into(),
        };
        let (rentals, stop, task) = start().await;
        let first = until("a device is proved and rented", async || rentals.rent(wish(1)).await.ok()).await;
        // The other device may be proved in a later epoch only.
        let second = until("another device is proved and rented", async || rentals.rent(wish(2)).await.ok()).await;
        assert_eq!((rentals.rent(wish(1)).await.unwrap().id, first.state), (id(1), LeaseState::Running));
        let other = RentRequest { requirements: Requirements::any(2), ..wish(1) };
        assert_eq!(rentals.rent(other.clone()).await, Err(RentError::OtherWish(id(1))));
        let released = rentals.release(id(2)).await.unwrap();
        assert_eq!((released.miner, released.state), (second.miner, LeaseState::Released));
        assert_eq!(rentals.show(id(3)).await, Err(RentError::UnknownLease));
        stop.send(()).unwrap();
        assert_eq!(task.await.unwrap(), Exit::Ok);

        let (rentals, stop, task) = start().await;
        let again = until("the leases are loaded", async || rentals.rent(wish(1)).await.ok()).await;
        assert_eq!((&again.container, again.state), (&first.container, LeaseState::Running));
        assert_eq!(rentals.rent(other).await, Err(RentError::OtherWish(id(1))));
        // What ended before is known as ended, whatever is asked of it, and to nobody as anything else.
        for answer in [rentals.rent(wish(2)).await, rentals.release(id(2)).await, rentals.show(id(2)).await] {
            assert_eq!(answer.as_ref(), Ok(&released));
        }
        assert_eq!(rentals.release(id(3)).await, Err(RentError::UnknownLease));
        stop.send(()).unwrap();
        assert_eq!(task.await.unwrap(), Exit::Ok);
        let (sides, problems) = audit::read(dir.path());
        assert_eq!(problems, []);
        let made: usize =
            sides.engines.iter().map(|e| e.history.done.iter().filter(|d| d.deed == Deed::Created).count()).sum();
        assert_eq!(made, 2, "each lease has had one container");
    });
}

#[test]
fn a_lease_ends_for_changed_hardware_by_three_proofs_of_it_and_by_nothing_less() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime: Arc<tokio::runtime::Runtime>| {
        let settings = Arc::new(settings(dir.path()));
        let options = DevnetOptions { miners: 1, ..options(dir.path()) };
        let devnet = Devnet::start(&options, settings, "127.0.0.1:0".parse().unwrap(), runtime.clone()).await.unwrap();
        let validator = devnet.validator.as_ref().unwrap();
        let (rentals, challenges) = (validator.allocations.clone(), validator.challenges.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(0, async {
            let _ = stopped.await;
        }));
        let wish = |n| RentRequest {
            id: Some(LeaseId([n; 16])),
            renter: Hotkey([9; 32]),
            miner: None,
            requirements: Requirements::any(1),
            duration: std::time::Duration::from_secs(600),
            image: String::new(),
            ssh_key: "ssh-ed25519 AAAA".into(),
        };
        let lease = until("a device is proved and rented", async || rentals.rent(wish(1)).await.ok()).await;
        let judged = challenges.ask(LastJudged, LONG).await.unwrap().unwrap();
        let device = lease.devices[0];
        // What epochs far ahead would say: the node's own are older and change nothing any more.
        let epoch = |n: u64, verdict: Option<Verdict>, model: &str, void: bool| {
            let mut miners = judged.miners.as_ref().clone();
            let miner = miners.iter_mut().find(|m| m.hotkey == lease.miner).unwrap();
            miner.devices.retain(|d| d.device != device);
            let (model, rate, kept_rate) = (model.to_owned(), None, None);
            miner.devices.extend(verdict.map(|verdict| DeviceJudgement { device, model, verdict, rate, kept_rate }));
            EpochJudged { epoch: 1 << 40 | n, miners: Arc::new(miners), void, ..judged.clone() }
        };
        let pass = || Verdict::Pass { evidence: PassEvidence { operations: 1, elapsed_ns: 1, samples: 1 } };
        let model = lease.proved[0].model.as_str();
        for n in 0..10 {
            // Specs without the device, no answer, a fail under its tenant's load, our own outage.
            let nothing = match n % 4 {
                0 => epoch(n, None, model, false),
                1 => epoch(n, Some(Verdict::unknown(UnknownCause::Timeout, "late")), model, false),
                2 => epoch(n, Some(Verdict::fail(FailReason::BelowFloor, "slow")), model, false),
                _ => epoch(n, Some(pass()), "cpu-other", true),
            };
            rentals.ask(nothing, LONG).await.unwrap();
        }
        for (n, model) in [(10, "cpu-other"), (11, "cpu-other"), (12, model), (13, "cpu-other"), (14, "cpu-other")] {
            rentals.ask(epoch(n, Some(pass()), model, false), LONG).await.unwrap();
        }
        // The same epoch is told with every block.
        rentals.ask(epoch(14, Some(pass()), "cpu-other", false), LONG).await.unwrap();
        assert_eq!(rentals.show(lease.id).await.unwrap().state, LeaseState::Running);
        rentals.ask(epoch(15, Some(pass()), "cpu-other", false), LONG).await.unwrap();
        let ended =
            until("the lease ends", async || rentals.show(lease.id).await.ok().filter(|lease| lease.state.is_final()))
                .await;
        assert_eq!((ended.state, ended.end), (LeaseState::Released, Some(EndReason::HardwareChanged)));
        let note = ended.note.unwrap();
        assert!(note.contains(&device.to_string()) && note.contains("cpu-other"), "{note}");
        stop.send(()).unwrap();
        assert_eq!(task.await.unwrap(), Exit::Ok);
        let (sides, _) = audit::read(dir.path());
        assert!(sides.engines.iter().all(|engine| engine.containers.is_empty()), "its container is gone");
    });
}

/// Renter, validator, miners and engines tell the same of every lease, and `running` is the one that was not released.
fn agree(dir: &Path, running: &str) {
    let disagreements: Vec<String> = audit::audit(dir).iter().map(ToString::to_string).collect();
    assert!(disagreements.is_empty(), "{disagreements:#?}");
    // The audit saw what there was to see.
    let (sides, _) = audit::read(dir);
    let (validator, miners) = (&sides.validators[0], &sides.miners);
    assert_eq!((sides.validators.len(), miners.len(), sides.renters.len()), (1, 4, 1));
    assert!(validator.leases.len() >= 3, "{validator:?}");
    let live = |node: &audit::Node| {
        let live = node.leases.iter().filter(|(_, kept)| kept.lease.state.is_live());
        live.map(|(id, _)| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(live(validator), [running]);
    assert_eq!(miners.iter().flat_map(live).collect::<Vec<_>>(), [running]);
    let containers = sides.engines.iter().flat_map(|e| &e.containers);
    assert_eq!(containers.map(|c| c.labels.lease.to_string()).collect::<Vec<_>>(), [running]);
}

#[test]
fn a_devnet_that_cannot_be_says_why() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime: Arc<tokio::runtime::Runtime>| {
        let wrong = [
            (DevnetOptions { miners: 0, ..options(dir.path()) }, "from 1 to 256 miners, not 0"),
            (DevnetOptions { miners: 257, ..options(dir.path()) }, "from 1 to 256 miners, not 257"),
            (DevnetOptions { miners: 0, duplicates: 1, ..options(dir.path()) }, "--miners 1"),
            (DevnetOptions { speed: 0.0, ..options(dir.path()) }, "--speed must be a number above 0, not 0"),
        ];
        for (options, why) in wrong {
            let settings = Arc::new(settings(dir.path()));
            let web = "127.0.0.1:0".parse().unwrap();
            let error = match Devnet::start(&options, settings, web, runtime.clone()).await {
                Ok(_) => panic!("{options:?} must not start"),
                Err(error) => error,
            };
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(error.exit(), Exit::Usage);
        }

        // A port is taken, the ledger's or a miner's page: what had started by then ends again.
        let address = SocketAddr::from(([127, 0, 0, 1], free_ports() + 2));
        let _taken = std::net::TcpListener::bind(address).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (ledger, page) = (DevnetOptions { ledger: address, ..options(dir.path()) }, options(dir.path()));
        let before_it = SocketAddr::new(address.ip(), address.port() - 2);
        for (options, web, who) in [(ledger, any, "the ledger"), (page, before_it, "miner-1")] {
            let start = async |options: &DevnetOptions, web| {
                Devnet::start(options, Arc::new(settings(dir.path())), web, runtime.clone()).await
            };
            let error = until("the directory is free", async || match start(&options, web).await {
                Ok(_) => panic!("{address} is taken"),
                Err(error) => Some(error).filter(|e| !error_chain(e).contains("is in use by")),
            })
            .await;
            let text = error_chain(&error);
            assert!(text.starts_with(who) && text.contains(&address.to_string()), "{text}");
            assert_eq!(error.exit(), Exit::Unavailable);
            let elsewhere = DevnetOptions { ledger: any, ..options };
            let devnet = until("all is free again", async || start(&elsewhere, any).await.ok()).await;
            assert_eq!(devnet.run(0, async {}).await, Exit::Ok);
        }
    });
}
