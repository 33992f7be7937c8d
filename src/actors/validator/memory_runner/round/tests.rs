//! A round against miners that answer over real HTTP, each in its own manner, with real fills, scans and openings.

use std::sync::Arc;
use std::time::Duration;

use actix::System;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use tokio::sync::{Mutex, watch};

use super::*;
use crate::actors::validator::memory_runner::plan::MemoryWork;
use crate::chain::ledger::GenesisConfig;
use crate::chain::{BlockHead, EpochClock, Metagraph};
use crate::clock::ManualClock;
use crate::ids::{Coldkey, Netuid, Uid};
use crate::proof::memory::forging::Forgery;
use crate::proof::memory::{self, Size};
use crate::proof::prover::{Filled as FilledMemory, Forgery as Forged, ForgingProver, Prover};
use crate::telemetry::{BuildInfo, Labels};
use crate::wallet::Keypair;
use crate::wire::axon::{AxonGate, AxonLimits, GateRules, NoEvents, Refusal, handle};
use crate::wire::synapse::{ChallengeRefusal, DeviceRoots, ProverFailure, RawBytes, Synapse};

const EPOCH: Epoch = 7;
const NOW: u64 = 1_795_357_297_000_000_000;

/// How a miner behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Proves(Forgery),
    /// Is busy, always.
    Busy,
    /// Is not ready in the time there is.
    Fills,
    /// Its prover crashes while it fills.
    Crashes,
    /// Sends roots when it is asked to fill.
    Hurries,
    /// Was restarted between filling and scanning.
    Restarts,
    /// Its prover hangs while it scans.
    Hangs,
    /// Does not answer the request for its scans.
    Silent,
    /// Answers for another device.
    Mistakes,
    /// Sends roots and refuses to open.
    Withholds,
    /// Is gone after its roots.
    Leaves,
}

type Memories = Vec<(DeviceId, Box<dyn FilledMemory>)>;

struct Miner {
    manner: Manner,
    hotkey: crate::ids::Hotkey,
    held: Mutex<Memories>,
}

type State = web::Data<Miner>;

async fn serve<S, F>(
    gate: web::Data<AxonGate>,
    request: HttpRequest,
    body: web::Payload,
    answer: impl FnOnce(S) -> F,
) -> HttpResponse
where
    S: Synapse,
    F: Future<Output = Result<S::Reply, Refusal>>,
{
    handle(&gate, request, body, |_| Ok(()), |_, asked: S| answer(asked)).await
}

async fn on_fill(gate: web::Data<AxonGate>, miner: State, request: HttpRequest, body: web::Payload) -> HttpResponse {
    serve(gate, request, body, async |asked: MemoryFillRequest| {
        let forgery = match miner.manner {
            Manner::Proves(forgery) => forgery,
            Manner::Busy => return Ok(ChallengeReply::Busy { until_ms: 5 }),
            Manner::Fills => std::future::pending().await,
            Manner::Hurries => return Ok(ChallengeReply::Roots { devices: Vec::new() }),
            Manner::Crashes => {
                let (device, kind, detail) = (asked.devices[0].device, ProverFailure::Crashed, "boom".to_owned());
                return Ok(ChallengeReply::ProverFailed { device, kind, detail });
            }
            _ => Forgery::Honest,
        };
        let prover = ForgingProver { forgery: Forged::Memory(forgery), threads: 1 };
        for d in asked.devices {
            let size = Size::new(d.blocks, d.iterations, d.scans).unwrap();
            let (nonce, epoch, hotkey, device) = (asked.nonce.0, asked.epoch, miner.hotkey, d.device);
            let filled = prover.fill(&memory::Challenge { nonce, epoch, hotkey, device, size }).await.unwrap();
            miner.held.lock().await.push((d.device, filled));
        }
        Ok(ChallengeReply::Ready)
    })
    .await
}

async fn on_scan(gate: web::Data<AxonGate>, miner: State, request: HttpRequest, body: web::Payload) -> HttpResponse {
    serve(gate, request, body, async |asked: MemoryScanRequest| {
        let mut devices = Vec::new();
        match miner.manner {
            Manner::Restarts => {
                return Ok(ChallengeReply::Refused { reason: ChallengeRefusal::Gone, detail: "restarted".into() });
            }
            Manner::Silent => std::future::pending().await,
            Manner::Hangs => {
                let (device, kind) = (DeviceId::cpu(0), ProverFailure::Hung);
                return Ok(ChallengeReply::ProverFailed { device, kind, detail: String::new() });
            }
            _ => {}
        }
        for (device, memory) in miner.held.lock().await.iter_mut() {
            let roots = memory.scan(&ScanNonce(asked.nonce.0)).await.unwrap();
            devices.push(DeviceRoots { device: *device, roots });
        }
        if miner.manner == Manner::Mistakes {
            devices[0].device = DeviceId::cpu(7);
        }
        Ok(ChallengeReply::Roots { devices })
    })
    .await
}

async fn on_open(gate: web::Data<AxonGate>, miner: State, request: HttpRequest, body: web::Payload) -> HttpResponse {
    serve(gate, request, body, async |asked: MemoryOpenRequest| {
        match miner.manner {
            Manner::Withholds => return Err(Refusal::unavailable("not today")),
            Manner::Leaves => std::future::pending().await,
            _ => {}
        }
        let mut held = miner.held.lock().await;
        let (_, memory) = held.iter_mut().find(|(device, _)| *device == asked.device).unwrap();
        let positions: Vec<_> =
            asked.positions.iter().map(|[scan, block]| memory::Position { scan: *scan, block: *block }).collect();
        match memory.open(&positions).await {
            Ok(bytes) => Ok(RawBytes(bytes)),
            Err(error) => Err(Refusal::unavailable(error.to_string())),
        }
    })
    .await
}

fn size() -> Size {
    Size::new(64, 2, 3).unwrap()
}

/// A miner in this manner, as it is planned: with two devices.
fn miner(number: u8, manner: Manner, clock: &Arc<ManualClock>) -> PlannedMiner {
    let keypair = Keypair::from_uri(&format!("//miner{number}")).unwrap();
    let hotkey = keypair.hotkey();
    clock.set_ns(NOW - 60_000_000_000);
    let long = Duration::from_secs(60);
    let limits = AxonLimits { body_deadline: long, handler_deadline: long, ..AxonLimits::default() };
    let gate = AxonGate::new(keypair, clock.clone(), GateRules { limits, ..GateRules::default() }, Arc::new(NoEvents));
    clock.set_ns(NOW);
    let gate = web::Data::new(gate);
    let state = web::Data::new(Miner { manner, hotkey, held: Mutex::default() });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(gate.clone())
            .app_data(state.clone())
            .route(MemoryFillRequest::PATH, web::post().to(on_fill))
            .route(MemoryScanRequest::PATH, web::post().to(on_scan))
            .route(MemoryOpenRequest::PATH, web::post().to(on_open))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(0)
    .bind(("127.0.0.1", 0))
    .unwrap();
    let address = server.addrs()[0];
    tokio::task::spawn_local(server.run());
    let work = MemoryWork { size: size(), floor: Some(1) };
    let device = |n| PlannedDevice { device: DeviceId::cpu(n), model: "alias".into(), row: "row".into(), work };
    let (uid, coldkey, devices) = (Uid(number.into()), Coldkey([number; 32]), vec![device(0), device(1)]);
    PlannedMiner { uid, hotkey, coldkey, address, devices }
}

/// Blocks 24 to 27 are the slot.
fn view(head: u64) -> Arc<ChainView> {
    let (netuid, head) = (Netuid(1), BlockHead { number: head, hash: Hash32([0; 32]), timestamp_ms: 0 });
    let metagraph = Metagraph { netuid, head, epochs: EpochClock::Modulo { netuid, tempo: 359 }, neurons: Vec::new() };
    Arc::new(ChainView::new(Arc::new(metagraph), Arc::new(GenesisConfig::new(netuid).hyperparameters), 0))
}

struct Bench {
    setup: Arc<RoundSetup>,
    publish: watch::Sender<Option<Arc<ChainView>>>,
    clock: Arc<ManualClock>,
}

fn bench() -> Bench {
    let clock = Arc::new(ManualClock::at_ns(NOW));
    let registry = prometheus::Registry::new();
    let build = BuildInfo::of("validator");
    let metrics = NodeMetrics::register(&registry, &build, &Labels::default(), clock.clone()).unwrap();
    let (publish, view) = watch::channel(Some(view(24)));
    let dendrite = Dendrite::new(Keypair::from_uri("//validator").unwrap(), clock.clone(), None).unwrap();
    let rules = Rules {
        batch: 64,
        samples: 66,
        // As long as a busy machine needs for what is honest; what is silent takes as long.
        fill_timeout: Duration::from_millis(4_500),
        scan_timeout: Duration::from_secs(3),
        opening_deadline: Duration::from_secs(3),
        verifiers: Verifiers::new(2),
    };
    let under_proof = UnderProof::default();
    let setup = Arc::new(RoundSetup { dendrite, under_proof, rules, view, clock: clock.clone(), metrics });
    Bench { setup, publish, clock }
}

const OWN: Slot = Slot { blocks: 24..28, shared: false };
const SHARED: Slot = Slot { blocks: 24..28, shared: true };

fn reasons(findings: &[Finding]) -> Vec<&'static str> {
    let of = |f: &Finding| {
        assert_eq!(f.verdicts.len(), f.plan.devices.len());
        assert!(f.verdicts.iter().all(|v| v.reason() == f.verdicts[0].reason()), "{:?}", f.verdicts);
        if f.verdicts[0].kind() == "pass" { "pass" } else { f.verdicts[0].reason() }
    };
    findings.iter().map(of).collect()
}

#[test]
fn every_manner_to_prove_memory_or_not_to_has_its_verdict() {
    System::new().block_on(async {
        let bench = bench();
        let cases = [
            (Manner::Proves(Forgery::Honest), "pass"),
            (Manner::Proves(Forgery::HalfTheMemory), "memory_mismatch"),
            (Manner::Proves(Forgery::WrongSeed), "memory_mismatch"),
            (Manner::Proves(Forgery::WrongNonce), "memory_mismatch"),
            (Manner::Proves(Forgery::MissingScan), "wrong_scans"),
            (Manner::Proves(Forgery::ShortOpenings), "wrong_length"),
            (Manner::Proves(Forgery::Garbage), "memory_mismatch"),
            (Manner::Mistakes, "wrong_devices"),
            (Manner::Withholds, "opening_withheld"),
            (Manner::Leaves, "opening_unanswered"),
            (Manner::Busy, "busy"),
            (Manner::Fills, "timeout"),
            (Manner::Crashes, "prover_crashed"),
            (Manner::Hurries, "malformed_reply"),
            (Manner::Restarts, "refused"),
            (Manner::Hangs, "prover_hung"),
            (Manner::Silent, "timeout"),
        ];
        let mut plans: Vec<PlannedMiner> =
            (1..).zip(&cases).map(|(number, (manner, _))| miner(number, *manner, &bench.clock)).collect();
        // Nobody listens there.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        plans.push(PlannedMiner { address: nobody, ..plans[0].clone() });
        let findings = judge_all(&bench.setup, EPOCH, &OWN, plans).await;
        let expected: Vec<&str> = cases.iter().map(|(_, reason)| *reason).chain(["unreachable"]).collect();
        assert_eq!(reasons(&findings), expected);

        let honest = &findings[0];
        let Verdict::Pass { evidence } = &honest.verdicts[0] else { panic!("no pass") };
        assert_eq!((evidence.size, evidence.samples), (size(), 66));
        assert!(evidence.elapsed_ns > 0 && evidence.bandwidth() > 0);
        // What is logged is enough for a third party to check.
        let trace = honest.trace.as_ref().unwrap();
        assert!(trace.reply.as_ref().is_some_and(|p| p.holds(&honest.plan.hotkey, &bench.setup.dendrite.hotkey())));
        assert!(trace.devices.iter().all(|d| d.sample.is_some() && d.roots.len() == 3 && d.seed.is_some()));
    });
}

#[test]
fn a_proof_below_the_floor_of_its_model_fails_with_both_numbers() {
    System::new().block_on(async {
        let bench = bench();
        let mut plan = miner(1, Manner::Proves(Forgery::Honest), &bench.clock);
        plan.devices.iter_mut().for_each(|d| d.work.floor = Some(u64::MAX));
        let findings = judge_all(&bench.setup, EPOCH, &OWN, vec![plan]).await;
        assert_eq!(reasons(&findings), ["below_floor"]);
        let Verdict::Fail { detail, .. } = &findings[0].verdicts[0] else { panic!("no fail") };
        assert!(detail.contains("65536 bytes read at ") && detail.ends_with(&format!("is {}", u64::MAX)), "{detail}");
    });
}

#[test]
fn where_work_goes_before_in_the_same_slot_a_miner_that_is_busy_until_its_end_is_not_to_blame() {
    System::new().block_on(async {
        let bench = bench();
        let plans = || vec![miner(1, Manner::Busy, &bench.clock), miner(2, Manner::Fills, &bench.clock)];
        let (setup, asked) = (bench.setup.clone(), plans());
        let round = tokio::task::spawn_local(async move { judge_all(&setup, EPOCH, &SHARED, asked).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.publish.send_replace(Some(view(28)));
        assert_eq!(reasons(&round.await.unwrap()), ["own_fault", "own_fault"]);

        bench.publish.send_replace(Some(view(24)));
        let (setup, asked) = (bench.setup.clone(), plans());
        let round = tokio::task::spawn_local(async move { judge_all(&setup, EPOCH, &OWN, asked).await });
        tokio::time::sleep(Duration::from_millis(200)).await;
        bench.publish.send_replace(Some(view(28)));
        assert_eq!(reasons(&round.await.unwrap()), ["busy", "timeout"], "it had the whole of the slot");
    });
}

#[test]
fn where_every_miner_is_silent_it_is_our_own_network() {
    System::new().block_on(async {
        let bench = bench();
        let plans = |n| (1..=n).map(|i| miner(i, Manner::Silent, &bench.clock)).collect::<Vec<_>>();
        assert_eq!(reasons(&judge_all(&bench.setup, EPOCH, &OWN, plans(3)).await), ["own_fault"; 3]);
        assert_eq!(reasons(&judge_all(&bench.setup, EPOCH, &OWN, plans(2)).await), ["timeout"; 2], "two may be");
    });
}

#[test]
fn a_miner_that_a_rental_of_ours_met_as_it_sent_its_roots_is_not_to_blame_for_what_it_does_not_open() {
    System::new().block_on(async {
        let bench = bench();
        let meets = async |made: bool| {
            let plan = miner(1, Manner::Withholds, &bench.clock);
            let devices: Vec<DeviceId> = plan.devices.iter().map(|d| d.device).collect();
            let renting = bench.setup.under_proof.rent(plan.hotkey, &devices, Duration::ZERO).await.unwrap();
            let rental = tokio::task::spawn_local(async move {
                // Its roots are here by then, and its openings are asked for.
                tokio::time::sleep(Duration::from_millis(700)).await;
                if made {
                    renting.made();
                }
            });
            let findings = judge_all(&bench.setup, EPOCH, &OWN, vec![plan]).await;
            rental.await.unwrap();
            reasons(&findings)
        };
        assert_eq!(meets(true).await, ["rented"]);
        assert_eq!(meets(false).await, ["opening_withheld"], "it refused the rental");
    });
}
