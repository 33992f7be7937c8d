//! A wire that can fail: TCP between a client and a node on loopback, with faults that are switched at run time, and a
//! count of what both sides said.
//!
//! The address stays the same whatever happens behind it, so a client that reconnects finds it again.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::frames::{Opcode, Reader};

/// What the wire does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Everything goes through.
    Pass,
    /// Everything goes through, each piece so much later.
    Delay(Duration),
    /// Answers come at so many bytes a second.
    Trickle(usize),
    /// Connections stay open, are also accepted, and nothing goes through. A connection that was in this is lost for
    /// good, as behind a gateway that has forgotten it: later modes only help new ones.
    Stall,
    /// As [`Mode::Stall`], but what the client says still reaches the node.
    Deaf,
    /// What the node says arrives as other bytes.
    Garble,
    /// Connections are reset, new ones at once.
    Cut,
    /// Connections are reset, and nobody listens.
    Gone,
}

impl Mode {
    fn breaks(self) -> bool {
        matches!(self, Mode::Cut | Mode::Gone)
    }
}

/// What went over the wire, from the start or the last [`Proxy::take`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Connections that were accepted.
    pub(crate) connections: usize,
    /// Requests of the client by method, also those that the node never got.
    pub(crate) requests: BTreeMap<String, usize>,
    /// Notifications of the node by method, also those that the client never got.
    pub(crate) notifications: BTreeMap<String, usize>,
    /// Answers of the node without and with an error.
    pub(crate) answers: usize,
    pub(crate) errors: usize,
    /// Bytes from the node.
    pub(crate) bytes: usize,
}

impl Traffic {
    /// Requests of all methods.
    pub(crate) fn calls(&self) -> usize {
        self.requests.values().sum()
    }

    /// Requests of one method.
    pub(crate) fn calls_of(&self, method: &str) -> usize {
        self.requests.get(method).copied().unwrap_or_default()
    }

    fn see(&mut self, side: Side, message: &Value) {
        if let Value::Array(batch) = message {
            return batch.iter().for_each(|one| self.see(side, one));
        }
        let of =
            |counts: &mut BTreeMap<String, usize>, method: &str| *counts.entry(method.to_owned()).or_default() += 1;
        match (side, message.get("method").and_then(Value::as_str)) {
            (Side::Client, Some(method)) => of(&mut self.requests, method),
            (Side::Node, Some(method)) => of(&mut self.notifications, method),
            (Side::Node, None) if message.get("error").is_some() => self.errors += 1,
            (Side::Node, None) => self.answers += 1,
            (Side::Client, None) => {}
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Node,
}

/// The wire. Its connections are reset when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    node: Arc<Mutex<SocketAddr>>,
    traffic: Arc<Mutex<Traffic>>,
    // Whether a listener is bound, as the task sees it: `set` waits for it.
    listens: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// A wire to a node, in [`Mode::Pass`].
    pub(crate) async fn start(node: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, modes) = watch::channel(Mode::Pass);
        let (listening, listens) = watch::channel(true);
        let (node, traffic) = (Arc::new(Mutex::new(node)), Arc::<Mutex<Traffic>>::default());
        let wires = Wires { node: Arc::clone(&node), traffic: Arc::clone(&traffic), modes };
        let task = tokio::spawn(accept(listener, wires, listening));
        Proxy { address, mode, node, traffic, listens, task }
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Switches. When this returns, [`Mode::Gone`] has closed the port and every other mode listens on it.
    pub(crate) async fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        self.listens.clone().wait_for(|listens| *listens == (mode != Mode::Gone)).await.unwrap();
    }

    /// Resets the connections that there are, and passes new ones.
    pub(crate) async fn cut_once(&self) {
        self.set(Mode::Gone).await;
        self.set(Mode::Pass).await;
    }

    /// New connections go to another node.
    pub(crate) fn lead_to(&self, node: SocketAddr) {
        *self.node.lock().unwrap() = node;
    }

    /// What went over the wire.
    pub(crate) fn traffic(&self) -> Traffic {
        self.traffic.lock().unwrap().clone()
    }

    /// What went over the wire, and begins to count anew.
    pub(crate) fn take(&self) -> Traffic {
        std::mem::take(&mut self.traffic.lock().unwrap())
    }
}

#[derive(Clone)]
struct Wires {
    node: Arc<Mutex<SocketAddr>>,
    traffic: Arc<Mutex<Traffic>>,
    modes: watch::Receiver<Mode>,
}

/// Listens unless the mode is `Gone`; the connections end with this task.
async fn accept(listener: TcpListener, wires: Wires, listening: watch::Sender<bool>) {
    let address = listener.local_addr().unwrap();
    let mut modes = wires.modes.clone();
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        if *modes.borrow_and_update() == Mode::Gone {
            listener = None;
            while connections.join_next().await.is_some() {}
            listening.send_replace(false);
        } else if listener.is_none() {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            listener = Some(socket.listen(64).unwrap());
            listening.send_replace(true);
        }
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = modes.changed() => if changed.is_err() { return },
            Ok((client, _)) = next => {
                wires.traffic.lock().unwrap().connections += 1;
                connections.spawn(connection(client, wires.clone()));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// One connection, until either side ends it or the mode breaks it.
async fn connection(mut client: TcpStream, wires: Wires) {
    let mut modes = wires.modes.clone();
    if modes.borrow().breaks() {
        client.set_zero_linger().unwrap();
        return;
    }
    let address = *wires.node.lock().unwrap();
    // A node that is not there looks like one that resets.
    let Ok(mut node) = TcpStream::connect(address).await else { return client.set_zero_linger().unwrap() };
    for socket in [&client, &node] {
        socket.set_nodelay(true).unwrap();
    }
    let broken = {
        let ((from_client, to_client), (from_node, to_node)) = (client.split(), node.split());
        let client = relay(from_client, to_node, Side::Client, &wires);
        let node = relay(from_node, to_client, Side::Node, &wires);
        tokio::select! {
            () = client => false,
            () = node => false,
            _ = modes.wait_for(|mode| mode.breaks()) => true,
        }
    };
    if broken {
        client.set_zero_linger().unwrap();
        node.set_zero_linger().unwrap();
    }
}

/// Carries bytes one way, until that way ends.
async fn relay(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, side: Side, wires: &Wires) {
    let mut count = Counter { side, headers: Some(Vec::new()), frames: Reader::default() };
    let mut piece = vec![0; 16 << 10];
    let mut lost = false;
    loop {
        let read = match from.read(&mut piece).await {
            // The other side of a connection that nothing goes through does not hear of its end either.
            Ok(0) | Err(_) if lost => std::future::pending().await,
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let piece = &piece[..read];
        count.see(piece, &wires.traffic);
        let mode = *wires.modes.borrow();
        lost |= mode == Mode::Stall || (mode == Mode::Deaf && side == Side::Node);
        if lost {
            continue;
        }
        let sent = match mode {
            Mode::Delay(time) => {
                tokio::time::sleep(time).await;
                to.write_all(piece).await
            }
            Mode::Garble if side == Side::Node => {
                let garbled: Vec<u8> = piece.iter().map(|byte| byte ^ 0x5a).collect();
                to.write_all(&garbled).await
            }
            Mode::Trickle(rate) if side == Side::Node => trickle(&mut to, piece, rate).await,
            _ => to.write_all(piece).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// A twentieth of a second's bytes at a time.
async fn trickle(to: &mut WriteHalf<'_>, piece: &[u8], rate: usize) -> std::io::Result<()> {
    for part in piece.chunks((rate / 20).max(1)) {
        to.write_all(part).await?;
        tokio::time::sleep(Duration::from_secs_f64(part.len() as f64 / rate as f64)).await;
    }
    Ok(())
}

/// Reads along: the HTTP headers of the upgrade, then frames with JSON-RPC.
struct Counter {
    side: Side,
    // `None` once the headers are over.
    headers: Option<Vec<u8>>,
    frames: Reader,
}

impl Counter {
    fn see(&mut self, mut bytes: &[u8], traffic: &Mutex<Traffic>) {
        let mut traffic = traffic.lock().unwrap();
        if self.side == Side::Node {
            traffic.bytes += bytes.len();
        }
        if let Some(mut headers) = self.headers.take() {
            let before = headers.len();
            headers.extend_from_slice(bytes);
            let Some(end) = headers.windows(4).position(|four| four == b"\r\n\r\n") else {
                self.headers = Some(headers);
                return;
            };
            bytes = &bytes[end + 4 - before..];
        }
        let messages = self.frames.push(bytes).unwrap_or_else(|why| panic!("the wire carries no WebSocket: {why}"));
        for message in messages.into_iter().filter(|message| message.opcode == Opcode::Text) {
            if let Ok(message) = serde_json::from_slice(&message.payload) {
                traffic.see(self.side, &message);
            }
        }
    }
}
