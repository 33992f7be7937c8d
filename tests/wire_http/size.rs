//! What proofs cost on the wire: real requests and replies, every byte of them counted between the two.
//!
//! `UPDATE_DOCS=1 cargo test --test wire_http size` writes the table of `docs/proof.md` instead of comparing it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use compute_subnet::actors::validator::node::tables;
use compute_subnet::clock::ManualClock;
use compute_subnet::ids::{ChallengeId, DeviceId, Hash32};
use compute_subnet::proof::{Work, memory, sample_positions};
use compute_subnet::settings::{Cli, Role, load};
use compute_subnet::wire::synapse::{
    ChallengeReply, ChallengeRequest, DeviceMemory, DeviceRoots, DeviceWork, MemoryFillRequest, MemoryOpenRequest,
    MemoryScanRequest, OpeningsRequest, RawBytes, Synapse,
};
use compute_subnet::wire::{AxonGate, Dendrite, GateRules, Peer, handle};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// Positions opened of each device.
const SAMPLES: usize = 66;
/// Miners of a full subnet.
const MINERS: usize = 256;
const CHALLENGE: ChallengeId = ChallengeId([0xab; 16]);
const NONCE: Hash32 = Hash32([0xcd; 32]);
/// As many digits as epochs have for the next decades.
const EPOCH: u64 = 25_000;

/// What a miner's answers hold: only their lengths matter here.
#[derive(Clone)]
struct Answers {
    devices: Vec<DeviceId>,
    roots: u32,
    opening: usize,
}

impl Answers {
    fn roots(&self) -> ChallengeReply {
        let roots = |device: &DeviceId| DeviceRoots { device: *device, roots: vec![NONCE; self.roots as usize] };
        ChallengeReply::Roots { devices: self.devices.iter().map(roots).collect() }
    }
}

type Gate = web::Data<AxonGate>;

async fn filled(gate: Gate, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    handle(&gate, request, payload, |_| Ok(()), |_, _: MemoryFillRequest| async { Ok(ChallengeReply::Ready) }).await
}
async fn roots<S: Synapse<Reply = ChallengeReply>>(
    gate: Gate,
    answers: web::Data<Answers>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    handle(&gate, request, payload, |_| Ok(()), |_, _: S| async move { Ok(answers.roots()) }).await
}
async fn openings<S: Synapse<Reply = RawBytes>>(
    gate: Gate,
    answers: web::Data<Answers>,
    request: HttpRequest,
    payload: web::Payload,
) -> HttpResponse {
    let bytes = SAMPLES * answers.opening;
    handle(&gate, request, payload, |_| Ok(()), |_, _: S| async move { Ok(RawBytes(vec![7; bytes])) }).await
}

/// Bytes to the miner and from it.
#[derive(Default)]
struct Counted {
    there: AtomicUsize,
    back: AtomicUsize,
}

/// A miner behind a relay that counts.
async fn miner(answers: Answers) -> (Peer, Arc<Counted>) {
    let key = key("Alice");
    let hotkey = key.hotkey();
    let clock = Arc::new(ManualClock::at_ns(NOW - 60 * SECOND));
    let gate = AxonGate::new(key, clock.clone(), GateRules::default(), Arc::new(Recorded::default()));
    let gate = Arc::new(gate);
    clock.set_ns(NOW);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::from(gate.clone()))
            .app_data(web::Data::new(answers.clone()))
            .route(ChallengeRequest::PATH, web::post().to(roots::<ChallengeRequest>))
            .route(OpeningsRequest::PATH, web::post().to(openings::<OpeningsRequest>))
            .route(MemoryFillRequest::PATH, web::post().to(filled))
            .route(MemoryScanRequest::PATH, web::post().to(roots::<MemoryScanRequest>))
            .route(MemoryOpenRequest::PATH, web::post().to(openings::<MemoryOpenRequest>))
    });
    let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let axon = server.addrs()[0];
    tokio::task::spawn_local(server.run());
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    assert!(addr.port() >= 10_000, "the length of the Host header");
    let counted = Arc::new(Counted::default());
    let counts = counted.clone();
    tokio::task::spawn_local(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::task::spawn_local(relay(client, axon, counts.clone()));
        }
    });
    (Peer { hotkey, addr }, counted)
}

async fn relay(client: TcpStream, axon: SocketAddr, counts: Arc<Counted>) {
    let server = TcpStream::connect(axon).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let (mut there, mut back) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            read = from_client.read(&mut there) => {
                let Ok(count @ 1..) = read else { return };
                counts.there.fetch_add(count, Ordering::SeqCst);
                to_server.write_all(&there[..count]).await.unwrap();
            }
            read = from_server.read(&mut back) => {
                let Ok(count @ 1..) = read else { return };
                counts.back.fetch_add(count, Ordering::SeqCst);
                to_client.write_all(&back[..count]).await.unwrap();
            }
        }
    }
}

/// The bytes of one exchange, there and back.
async fn exchange<S: Synapse>(dendrite: &Dendrite, miner: &(Peer, Arc<Counted>), request: &S) -> [usize; 2] {
    let (peer, counted) = miner;
    dendrite.call(peer, request, LONG, 1 << 20).await.unwrap();
    // The reply is whole, and it was counted before it was passed on.
    [counted.there.swap(0, Ordering::SeqCst), counted.back.swap(0, Ordering::SeqCst)]
}

/// The stages of one machine's proof, in order, and the openings of each of its devices.
struct Cost {
    what: String,
    stages: Vec<[usize; 2]>,
}

impl Cost {
    fn line(&self) -> String {
        let [asked, roots, opened] = [0, 1, 2].map(|stage| self.stages.get(stage).copied().unwrap_or_default());
        let total: usize = self.stages.iter().flatten().sum();
        let stage = |[there, back]: [usize; 2]| format!("{there} + {back}");
        let per_epoch = (total * MINERS) as f64 / 1e6;
        format!(
            "{:<44}{:>14}{:>14}{:>17}{total:>11}{per_epoch:>11.1}\n",
            self.what,
            stage(asked),
            if roots == [0; 2] { "-".to_owned() } else { stage(roots) },
            stage(opened)
        )
    }
}

fn devices(count: u8) -> Vec<DeviceId> {
    (0..count).map(|number| DeviceId([0x10 + number; 16])).collect()
}

async fn work(name: &str, count: u8, work: Work) -> Cost {
    let devices = devices(count);
    let (dendrite, _) = caller("Bob");
    let miner = miner(Answers { devices: devices.clone(), roots: work.rounds, opening: work.opening_len() }).await;
    let asked = |device: &DeviceId| DeviceWork { device: *device, n: work.n, k: work.k, rounds: work.rounds };
    let request = ChallengeRequest {
        challenge: CHALLENGE,
        nonce: NONCE,
        epoch: EPOCH,
        devices: devices.iter().map(asked).collect(),
    };
    let first = exchange(&dendrite, &miner, &request).await;
    let mut opened = [0; 2];
    for device in &devices {
        let positions = sample_positions(&work, SAMPLES, &[1; 32]);
        let positions = positions.iter().map(|p| [p.round, p.row, p.col]).collect();
        let request = OpeningsRequest { challenge: CHALLENGE, device: *device, positions };
        let one = exchange(&dendrite, &miner, &request).await;
        opened = [opened[0] + one[0], opened[1] + one[1]];
    }
    let what = format!("work, {count} × {name}, {}²·{}", work.n, work.rounds);
    Cost { what, stages: vec![first, [0; 2], opened] }
}

async fn memory(name: &str, count: u8, size: memory::Size) -> Cost {
    let devices = devices(count);
    let (dendrite, _) = caller("Bob");
    let miner = miner(Answers { devices: devices.clone(), roots: size.scans(), opening: size.opening_len() }).await;
    let asked = |device: &DeviceId| DeviceMemory {
        device: *device,
        blocks: size.blocks(),
        iterations: size.iterations(),
        scans: size.scans(),
    };
    let fill = MemoryFillRequest {
        challenge: CHALLENGE,
        nonce: NONCE,
        epoch: EPOCH,
        devices: devices.iter().map(asked).collect(),
    };
    let filled = exchange(&dendrite, &miner, &fill).await;
    let scanned = exchange(&dendrite, &miner, &MemoryScanRequest { challenge: CHALLENGE, nonce: NONCE }).await;
    let mut opened = [0; 2];
    for device in &devices {
        let positions = memory::sample_positions(&size, SAMPLES, &[1; 32]);
        let positions = positions.iter().map(|p| [p.scan, p.block]).collect();
        let one =
            exchange(&dendrite, &miner, &MemoryOpenRequest { challenge: CHALLENGE, device: *device, positions }).await;
        opened = [opened[0] + one[0], opened[1] + one[1]];
    }
    let what = format!("memory, {count} × {name}, {} MiB, {} scans", size.bytes() >> 20, size.scans());
    Cost { what, stages: vec![filled, scanned, opened] }
}

#[actix_web::test]
async fn the_document_shows_what_proofs_cost_on_the_wire() {
    let settings = load(Role::Validator, &Cli::default(), [("HOME".to_owned(), "/home/op".to_owned())]).unwrap();
    let (_, works) = tables(&settings.settings).unwrap();
    let of = |model: &str| works[model];
    // 0.92 of the cards' memory.
    let size = |blocks, iterations| memory::Size::new(blocks, iterations, 64).unwrap();
    let costs = [
        work("H200", 8, of("NVIDIA H200")).await,
        work("RTX 4090", 1, of("NVIDIA GeForce RTX 4090")).await,
        work("processor", 1, Work::new(1024, 4096, 12).unwrap()).await,
        memory("H200", 8, size(126_679_684, 256)).await,
        memory("RTX 4090", 1, size(23_152_556, 1024)).await,
        memory("processor", 1, memory::Size::new(4096, 8, 4).unwrap()).await,
    ];
    let mut wanted = format!(
        "{:<44}{:>14}{:>14}{:>17}{:>11}{:>11}\n",
        "bytes, there + back", "challenge", "scans", "openings", "a machine", "256, MB"
    );
    wanted.extend(costs.iter().map(Cost::line));

    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/proof.md");
    let document = std::fs::read_to_string(path).unwrap();
    let begin = "```text\nbytes, there + back";
    let (before, rest) = document.split_once(begin).expect("docs/proof.md has the table");
    let (shown, after) = rest.split_once("```").unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}```text\n{wanted}```{after}")).unwrap();
        return;
    }
    let shown = format!("{}{shown}", begin.trim_start_matches("```text\n"));
    assert_eq!(shown, wanted, "run the test again with UPDATE_DOCS=1, and read what changed");
}
