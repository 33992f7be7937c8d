//! How long a validator needs to ask 256 miners for their specs.
//!
//! Miners are sockets on loopback, served by a runtime of their own, that answer 50 ms after the request with a signed reply;
//! the validator signs, sends, reads and verifies. Everything shares this machine's cores. Targets: all 256 within 400 ms; with
//! 64 of them silent, 64 refusing or 64 with a full backlog it ends at the deadline and no answer of the others is late.
//!
//! Arguments: rounds (default 9).
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends where it cannot"
)]

use std::sync::Arc;
use std::time::Duration;

use compute_subnet::clock::SystemClock;
use compute_subnet::ids::Hotkey;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::btauth::{HOTKEY_HEADER, NONCE_HEADER};
use compute_subnet::wire::dendrite::{FanOut, Unanswered, fan_out};
use compute_subnet::wire::reply::{REPLY_SIGNATURE_HEADER, sign_reply};
use compute_subnet::wire::synapse::SpecsRequest;
use compute_subnet::wire::{Dendrite, Peer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};

const MINERS: usize = 256;
const WORK: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_secs(1);
const BODY: &[u8] = br#"{"version":"1"}"#;

fn key(name: &str) -> Keypair {
    Keypair::from_uri(&format!("//{name}")).unwrap()
}

async fn serve(mut stream: TcpStream, key: Arc<Keypair>) -> Option<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        // Requests have the body `{}`.
        while !bytes.ends_with(b"\r\n\r\n{}") {
            let n = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
            bytes.extend_from_slice(&buffer[..n]);
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        bytes.clear();
        let header = |name: &str| {
            let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with(name))?;
            line.split_once(": ").map(|(_, value)| value.to_owned())
        };
        let (nonce, caller): (u64, Hotkey) =
            (header(NONCE_HEADER)?.parse().ok()?, header(HOTKEY_HEADER)?.parse().ok()?);
        sleep(WORK).await;
        let signature = sign_reply(&key, 200, BODY, nonce, &caller);
        let length = BODY.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n{REPLY_SIGNATURE_HEADER}: {signature}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), BODY].concat()).await.ok()?;
    }
}

/// What some of the miners do instead of answering.
#[derive(Clone, Copy)]
enum Bad {
    Silent,
    Refusing,
    Full,
}

/// What must be held for a miner to stay as it is.
#[expect(dead_code, reason = "held, not read")]
enum Held {
    Listener(TcpListener),
    Socket(TcpSocket),
    Full(TcpListener, Vec<tokio::task::JoinHandle<std::io::Result<TcpStream>>>),
}

async fn miner(key: Arc<Keypair>) -> Peer {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let peer = Peer { hotkey: key.hotkey(), addr: listener.local_addr().unwrap() };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, key.clone()));
        }
    });
    peer
}

async fn bad_miner(hotkey: Hotkey, kind: Bad) -> (Peer, Held) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = socket.local_addr().unwrap();
    let held = match kind {
        Bad::Silent => Held::Listener(socket.listen(128).unwrap()),
        Bad::Refusing => Held::Socket(socket),
        Bad::Full => {
            let listener = socket.listen(1).unwrap();
            Held::Full(listener, (0..4).map(|_| tokio::spawn(TcpStream::connect(addr))).collect())
        }
    };
    (Peer { hotkey, addr }, held)
}

/// Asks all; how many answered, when the last of them did, and when it was over.
async fn round(dendrite: &Dendrite, peers: &[Peer], within: Duration) -> (usize, Duration, Duration) {
    let start = Instant::now();
    let ask = |peer: Peer| {
        let dendrite = dendrite.clone();
        async move { dendrite.call(&peer, &SpecsRequest {}, within * 2, 1 << 10).await.map(|_| start.elapsed()) }
    };
    let answers = fan_out(peers.to_vec(), ask, within, FanOut::default()).await;
    let took = start.elapsed();
    let at: Vec<Duration> = answers
        .into_iter()
        .filter_map(|(_, answer)| match answer {
            Ok(Ok(at)) => Some(at),
            Ok(Err(_)) | Err(Unanswered::Late | Unanswered::NotAsked | Unanswered::Panicked) => None,
        })
        .collect();
    (at.len(), at.iter().max().copied().unwrap_or_default(), took)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

async fn case(name: &str, rounds: usize, peers: &[Peer], within: Duration, kept: bool) {
    let new = || Dendrite::new(key("Bob"), Arc::new(SystemClock), None).unwrap();
    let mut dendrite = new();
    if kept {
        round(&dendrite, peers, within).await;
    }
    let mut seen = Vec::new();
    for _ in 0..rounds {
        if !kept {
            dendrite = new();
        }
        seen.push(round(&dendrite, peers, within).await);
    }
    let answered = seen.iter().map(|(n, ..)| *n).min().unwrap_or_default();
    let middle = |mut of: Vec<Duration>| {
        of.sort_unstable();
        (ms(of[of.len() / 2]), ms(of[of.len() - 1]))
    };
    let (last, worst_last) = middle(seen.iter().map(|(_, last, _)| *last).collect());
    let (over, worst_over) = middle(seen.iter().map(|(.., over)| *over).collect());
    println!(
        "{name:<34} {answered:>3} answered; last answer {last:6.1} ms (worst {worst_last:6.1}); over {over:6.1} ms (worst {worst_over:6.1})"
    );
}

fn main() {
    let rounds = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(9).max(1);
    let miners = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let validator = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let alice = Arc::new(key("Alice"));
    let well: Vec<Peer> = miners.block_on(async {
        let mut well = Vec::new();
        for _ in 0..MINERS {
            well.push(miner(alice.clone()).await);
        }
        well
    });
    let long = Duration::from_secs(10);
    println!("{MINERS} miners on loopback, each answering after {} ms; {rounds} rounds", ms(WORK));
    validator.block_on(case("all well, fresh connections", rounds, &well, long, false));
    validator.block_on(case("all well, kept connections", rounds, &well, long, true));
    println!("deadline {} ms", ms(DEADLINE));
    for (name, kind) in
        [("64 silent", Bad::Silent), ("64 refusing", Bad::Refusing), ("64 with a full backlog", Bad::Full)]
    {
        let (bad, held): (Vec<Peer>, Vec<Held>) = miners.block_on(async {
            let mut bad = Vec::new();
            for _ in 0..64 {
                bad.push(bad_miner(alice.hotkey(), kind).await);
            }
            sleep(Duration::from_millis(100)).await;
            bad.into_iter().unzip()
        });
        // The bad ones come first, so that their batch is before all others.
        let peers: Vec<Peer> = bad.into_iter().chain(well.iter().copied().take(MINERS - 64)).collect();
        validator.block_on(case(name, rounds, &peers, DEADLINE, false));
        drop(held);
    }
    validator.shutdown_background();
    miners.shutdown_background();
}
