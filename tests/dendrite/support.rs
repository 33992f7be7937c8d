//! A server that answers as told, and a class to ask it for.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use compute_subnet::clock::SystemClock;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::classic::ClassicSynapse;
use compute_subnet::wire::dendrite::{ClassicCall, Keep};
use compute_subnet::wire::{Dendrite, Peer};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Generous: no test waits this long unless it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn key(name: &str) -> Keypair {
    Keypair::from_uri(&format!("//{name}")).unwrap()
}

pub(crate) fn bob() -> Dendrite {
    Dendrite::new(key("Bob"), Arc::new(SystemClock), None).unwrap()
}

pub(crate) fn keeping(keep: Keep) -> Dendrite {
    Dendrite::keeping(key("Bob"), Arc::new(SystemClock), None, keep).unwrap()
}

/// The class of the captured dendrite cases.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Echo {
    #[serde(default)]
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) output: BTreeMap<String, serde_json::Value>,
}

/// What is read of its replies.
#[derive(Debug, Deserialize)]
pub(crate) struct EchoOutput {
    #[serde(default)]
    pub(crate) output: BTreeMap<String, serde_json::Value>,
}

impl ClassicSynapse for Echo {
    const NAME: &'static str = "Echo";
}
impl ClassicCall for Echo {
    type Output = EchoOutput;
}

pub(crate) fn echo() -> Echo {
    Echo { text: "hi".to_owned(), ..Echo::default() }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    /// Which connection it came on, from 0.
    pub(crate) connection: usize,
    /// First line and headers, lower case but for values.
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Arrived {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let (_, value) = found.next().unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        assert!(found.next().is_none(), "{name} is there twice");
        value
    }
    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(n, _)| n == name)
    }
}

/// What to do about a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Send this and wait for the next request.
    Keep(Vec<u8>),
    /// Send this and close.
    Close(Vec<u8>),
    /// Wait, then as before.
    After(Duration, Box<Answer>),
}

/// A server.
pub(crate) struct Server {
    pub(crate) peer: Peer,
    pub(crate) arrived: Arc<Mutex<Vec<Arrived>>>,
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Arrived) -> Answer + Send + Sync + 'static) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), answer).await
    }

    pub(crate) async fn at(address: SocketAddr, answer: impl Fn(&Arrived) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let peer = Peer { hotkey: key("Alice").hotkey(), addr: listener.local_addr().unwrap() };
        let (arrived, connections, answer) = (Arc::default(), Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let server = Server { peer, arrived: Arc::clone(&arrived), connections: connections.clone() };
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, number, arrived.clone(), answer.clone()));
            }
        });
        server
    }

    pub(crate) fn requests(&self) -> Vec<Arrived> {
        self.arrived.lock().unwrap().clone()
    }
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    arrived: Arc<Mutex<Vec<Arrived>>>,
    answer: Arc<impl Fn(&Arrived) -> Answer>,
) {
    let mut bytes = Vec::new();
    while let Some(request) = read(&mut stream, &mut bytes, connection).await {
        arrived.lock().unwrap().push(request.clone());
        let mut what = answer(&request);
        while let Answer::After(wait, then) = what {
            tokio::time::sleep(wait).await;
            what = *then;
        }
        let (reply, close) = match what {
            Answer::Keep(reply) => (reply, false),
            Answer::Close(reply) => (reply, true),
            Answer::After(..) => unreachable!(),
        };
        if stream.write_all(&reply).await.is_err() || close {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

/// The next request; `None` when the caller has closed.
async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>, connection: usize) -> Option<Arrived> {
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let mut lines = head.split("\r\n");
            let line = lines.next().unwrap().to_owned();
            let headers: Vec<(String, String)> = lines
                .map(|l| l.split_once(": ").unwrap())
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
            if bytes.len() >= end + 4 + length {
                let body = String::from_utf8(bytes[end + 4..end + 4 + length].to_vec()).unwrap();
                bytes.drain(..end + 4 + length);
                return Some(Arrived { connection, line, headers, body });
            }
        }
        let mut buffer = [0; 8192];
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
    }
}

/// A reply with these extra header lines.
pub(crate) fn http(status: u16, headers: &[&str], body: &str) -> Vec<u8> {
    let mut head =
        format!("HTTP/1.1 {status} Some\r\ncontent-type: application/json\r\ncontent-length: {}\r\n", body.len());
    for line in headers {
        head.push_str(&format!("{line}\r\n"));
    }
    (head + "\r\n" + body).into_bytes()
}

/// What an axon of the SDK answers to a class without output.
pub(crate) fn success() -> Vec<u8> {
    http(200, &["bt_header_axon_status_code: 200", "bt_header_axon_status_message: Success"], "{}")
}
