//! An axon to call, a fake peer that answers as told, and raw requests.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpServer, web};
use compute_subnet::clock::ManualClock;
use compute_subnet::ids::{ChallengeId, Hash32, Hotkey};
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::axon::{method_not_allowed, not_found};
use compute_subnet::wire::btauth;
use compute_subnet::wire::classic::{ClassicSynapse, Outgoing, PyValue, path, sign};
use compute_subnet::wire::synapse::{
    ChallengeReply, ChallengeRequest, OpeningsRequest, RawBytes, SpecsReply, SpecsRequest, Synapse,
};
use compute_subnet::wire::{
    Accepts, AdmissionRefusal, AxonEvents, AxonGate, AxonLimits, AxonOutcome, Declined, Dendrite, GateRules,
    NonceLimits, Peer, Refusal, RequestSeen, handle, handle_classic,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const NOW: u64 = 1_795_357_297_000_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;
/// Generous: no test waits this long unless it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn key(name: &str) -> Keypair {
    Keypair::from_uri(&format!("//{name}")).unwrap()
}

/// Every request that an axon counted, in order.
#[derive(Default)]
pub(crate) struct Recorded(Mutex<Vec<(&'static str, AxonOutcome, Option<Hotkey>)>>);

impl AxonEvents for Recorded {
    fn request(&self, seen: RequestSeen<'_>) {
        self.0.lock().unwrap().push((seen.path, seen.outcome, seen.caller.copied()));
    }
}

impl Recorded {
    pub(crate) fn outcomes(&self) -> Vec<AxonOutcome> {
        self.0.lock().unwrap().iter().map(|(_, outcome, _)| *outcome).collect()
    }
    pub(crate) fn last(&self) -> Option<(&'static str, AxonOutcome, Option<Hotkey>)> {
        self.0.lock().unwrap().last().copied()
    }
}

/// What the challenge handler does with each epoch.
pub(crate) const BUSY: u64 = 0;
pub(crate) const PANICS: u64 = 1;
pub(crate) const NEVER_ANSWERS: u64 = 2;
pub(crate) const REFUSES: u64 = 3;

/// A miner, Alice, who admits everyone but Dave, and has no snapshot when asked by Eve.
pub(crate) struct Axon {
    pub(crate) peer: Peer,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) events: Arc<Recorded>,
    pub(crate) handled: Arc<AtomicUsize>,
}

impl Axon {
    /// With deadlines that no test reaches.
    pub(crate) async fn start() -> Self {
        let limits = AxonLimits { body_deadline: LONG, handler_deadline: LONG, ..AxonLimits::default() };
        Self::with(limits, NonceLimits::default()).await
    }

    pub(crate) async fn with(limits: AxonLimits, nonces: NonceLimits) -> Self {
        Self::under(GateRules { limits, nonces, ..GateRules::default() }, Accepts::BOTH).await
    }

    pub(crate) async fn under(rules: GateRules, accepts: Accepts) -> Self {
        let clock = Arc::new(ManualClock::at_ns(NOW - 60 * SECOND));
        let events = Arc::new(Recorded::default());
        let handled = Arc::new(AtomicUsize::new(0));
        let miner = key("Alice");
        let peer_key = miner.hotkey();
        let gate = AxonGate::new(miner, clock.clone(), rules, events.clone()).accepting(move || accepts);
        let gate = Arc::new(gate);
        clock.set_ns(NOW);
        let count = handled.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::from(gate.clone()))
                .app_data(web::Data::from(count.clone()))
                .route(SpecsRequest::PATH, web::post().to(specs))
                .route(ChallengeRequest::PATH, web::post().to(challenge))
                .route(OpeningsRequest::PATH, web::post().to(openings))
                .route(&path::<Told>(), web::route().to(told))
                .route("/NoMethod", web::route().to(no_method))
                .default_service(web::to(unknown))
        })
        .workers(1)
        .disable_signals()
        .bind(("127.0.0.1", 0))
        .unwrap();
        let addr = server.addrs()[0];
        tokio::task::spawn_local(server.run());
        Axon { peer: Peer { hotkey: peer_key, addr }, clock, events, handled }
    }

    pub(crate) fn handled(&self) -> usize {
        self.handled.load(Ordering::SeqCst)
    }

    /// The body of a specs request, signed by Bob, as raw HTTP.
    pub(crate) fn signed(&self, body: &[u8]) -> Vec<(String, String)> {
        sign_as(&key("Bob"), SpecsRequest::PATH, body, NOW, &self.peer.hotkey)
    }

    pub(crate) async fn post(&self, headers: &[(String, String)], body: &[u8]) -> RawReply {
        raw_post(self.peer.addr, SpecsRequest::PATH, headers, body).await
    }
}

pub(crate) fn sign_as(who: &Keypair, path: &str, body: &[u8], nonce: u64, to: &Hotkey) -> Vec<(String, String)> {
    let headers = btauth::sign(who, "POST", path, body, nonce, to);
    headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The headers of a classic request for Alice.
pub(crate) fn classic_as<S: ClassicSynapse>(who: &str, synapse: &S, nonce: u64, uuid: &str) -> Vec<(String, String)> {
    let (receiver, to) = (key("Alice").hotkey(), "127.0.0.1:8091".parse().unwrap());
    sign(&key(who), synapse, &Outgoing { receiver: &receiver, to, nonce, uuid, timeout_s: 12.0 })
}

fn admit(hotkey: &Hotkey) -> Result<(), AdmissionRefusal> {
    if *hotkey == key("Dave").hotkey() {
        return Err(AdmissionRefusal::Forbidden { reason: "denied_hotkey", detail: "on the deny-list".to_owned() });
    }
    if *hotkey == key("Eve").hotkey() {
        return Err(AdmissionRefusal::NotReady { detail: "no metagraph yet".to_owned() });
    }
    Ok(())
}

async fn specs(
    gate: web::Data<AxonGate>,
    count: web::Data<AtomicUsize>,
    request: HttpRequest,
    payload: web::Payload,
) -> actix_web::HttpResponse {
    let from = request.peer_addr().map_or_else(String::new, |a| a.ip().to_string());
    let work = |caller: btauth::Caller, _: SpecsRequest| async move {
        count.fetch_add(1, Ordering::SeqCst);
        let specs = serde_json::json!({ "caller": caller.hotkey, "from": from });
        Ok(SpecsReply { version: "1".to_owned(), specs, devices: vec![], leases: vec![], receipts: vec![] })
    };
    handle(&gate, request, payload, admit, work).await
}

async fn challenge(gate: web::Data<AxonGate>, request: HttpRequest, payload: web::Payload) -> actix_web::HttpResponse {
    let work = |_, asked: ChallengeRequest| async move {
        match asked.epoch {
            BUSY => Ok(ChallengeReply::Busy { until_ms: 5 }),
            PANICS => panic!("a handler's bug"),
            NEVER_ANSWERS => pending().await,
            _ => Err(Refusal::new(409, "conflict", "not twice")),
        }
    };
    handle(&gate, request, payload, admit, work).await
}

/// A class of the original's kind: one field that is hashed, and one that tells the handler what to do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    #[serde(default)]
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) act: String,
}

impl ClassicSynapse for Told {
    const NAME: &'static str = "Told";
    fn hashed(&self) -> Vec<PyValue> {
        vec![self.text.as_str().into()]
    }
}

async fn told(
    gate: web::Data<AxonGate>,
    count: web::Data<AtomicUsize>,
    request: HttpRequest,
    payload: web::Payload,
) -> actix_web::HttpResponse {
    let work = |caller: Hotkey, asked: Told| async move {
        count.fetch_add(1, Ordering::SeqCst);
        match asked.act.as_str() {
            "busy" => Err(Declined::With { status: 429, message: "Busy ✓".to_owned(), synapse: asked }),
            "fail" => Err(Declined::Failed("a secret of ours".to_owned())),
            "panic" => panic!("a handler's bug"),
            "never" => pending().await,
            _ => Ok(Told { act: caller.to_string(), ..asked }),
        }
    };
    handle_classic(&gate, request, payload, admit, work).await
}

async fn unknown(gate: web::Data<AxonGate>, request: HttpRequest, payload: web::Payload) -> actix_web::HttpResponse {
    not_found(&gate, request, payload, &["Synapse", "Told"]).await
}

async fn no_method(gate: web::Data<AxonGate>, request: HttpRequest, payload: web::Payload) -> actix_web::HttpResponse {
    method_not_allowed(&gate, request, payload).await
}

async fn openings(gate: web::Data<AxonGate>, request: HttpRequest, payload: web::Payload) -> actix_web::HttpResponse {
    let work = |_, asked: OpeningsRequest| async move { Ok(RawBytes(vec![7; asked.positions.len() * 100])) };
    handle(&gate, request, payload, admit, work).await
}

pub(crate) fn challenge_of(epoch: u64) -> ChallengeRequest {
    ChallengeRequest { challenge: ChallengeId([1; 16]), nonce: Hash32([2; 32]), epoch, devices: vec![] }
}

/// Somebody who calls, with a clock of their own.
pub(crate) fn caller(name: &str) -> (Dendrite, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at_ns(NOW));
    (Dendrite::new(key(name), clock.clone(), None).unwrap(), clock)
}

#[derive(Debug)]
pub(crate) struct RawReply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl RawReply {
    fn parse(bytes: &[u8]) -> Self {
        let end = find(bytes, b"\r\n\r\n").expect("a reply has a head");
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        RawReply { status, head, body: bytes[end + 4..].to_vec() }
    }
    pub(crate) fn is_signed(&self) -> bool {
        self.head.contains("x-compute-reply-signature: 0x")
    }
    /// The `error` of the JSON body.
    pub(crate) fn error(&self) -> String {
        serde_json::from_slice::<serde_json::Value>(&self.body).unwrap()["error"].as_str().unwrap().to_owned()
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

pub(crate) async fn raw_post(addr: SocketAddr, path: &str, headers: &[(String, String)], body: &[u8]) -> RawReply {
    let mut head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    raw(addr, &bytes).await
}

/// Sends bytes and reads until the other side closes.
pub(crate) async fn raw(addr: SocketAddr, bytes: &[u8]) -> RawReply {
    let exchange = async {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // The axon may refuse and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        RawReply::parse(&reply)
    };
    tokio::time::timeout(LONG, exchange).await.expect("the axon answers and closes")
}

/// What a fake peer received.
pub(crate) struct Asked {
    pub(crate) nonce: u64,
    pub(crate) caller: Hotkey,
}

/// A peer that reads one request, answers with the bytes that `answer` makes of it, and closes.
pub(crate) async fn fake_peer<F, A>(answer: A) -> Peer
where
    A: FnOnce(Asked) -> F + 'static,
    F: Future<Output = Vec<u8>>,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        // The tests' requests are `{}` bodies.
        while !bytes.ends_with(b"\r\n\r\n{}") {
            let n = stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "the caller sends a whole request");
            bytes.extend_from_slice(&buffer[..n]);
        }
        let text = String::from_utf8(bytes).unwrap();
        let header = |name: &str| {
            let line = text.lines().find(|l| l.to_ascii_lowercase().starts_with(name)).unwrap();
            line.split_once(": ").unwrap().1.to_owned()
        };
        let nonce = header(btauth::NONCE_HEADER).parse().unwrap();
        let caller = header(btauth::HOTKEY_HEADER).parse().unwrap();
        let reply = answer(Asked { nonce, caller }).await;
        let _ = stream.write_all(&reply).await;
        let _ = stream.shutdown().await;
    });
    Peer { hotkey: key("Alice").hotkey(), addr }
}

/// An HTTP reply with these extra header lines.
pub(crate) fn http(status: u16, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Some\r\ncontent-length: {}\r\n", body.len());
    for line in headers {
        head.push_str(&format!("{line}\r\n"));
    }
    let mut bytes = (head + "\r\n").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
