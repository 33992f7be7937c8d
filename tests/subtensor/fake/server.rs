//! Sockets: the upgrade to WebSocket, one task a connection, subscriptions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::Call;
use super::chain::{Chain, Refusal};
use super::fault::{Fault, Script};
use crate::frames::{Message, Opcode, Reader, frame};

/// RFC 6455: what a server adds to the client's key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a connection's task is to do.
#[derive(Debug)]
enum Out {
    Text(String),
    Later(Duration, String),
    Raw(Vec<u8>),
    /// From now on nothing is said or heard; the socket stays open.
    Stall,
    Reset,
}

type Sender = mpsc::UnboundedSender<Out>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    Best,
    Final,
    Version,
}

#[derive(Debug)]
struct Subscription {
    id: String,
    connection: usize,
    out: Sender,
    about: About,
}

#[derive(Debug)]
enum About {
    /// The header, or version, that it heard of last.
    Topic(Topic, Value),
    /// A transaction, whether it was said to be ready, and the block (hash) that was named.
    Watch { extrinsic: String, ready: bool, heard: Option<String> },
    /// What the script says, which was said.
    Script,
}

/// All that the connections share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) chain: Chain,
    pub(super) script: Script,
    pub(super) calls: Vec<Call>,
    pub(super) accepted: usize,
    pub(super) open: usize,
    subscriptions: Vec<Subscription>,
    last_id: usize,
    // Counts up when all connections are to be reset.
    resets: watch::Sender<usize>,
}

impl State {
    pub(super) fn new(chain: Chain) -> Self {
        State {
            chain,
            script: Script::default(),
            calls: Vec::new(),
            accepted: 0,
            open: 0,
            subscriptions: Vec::new(),
            last_id: 0,
            resets: watch::channel(0).0,
        }
    }

    pub(super) fn end_connections(&mut self) {
        self.resets.send_modify(|n| *n += 1);
    }

    /// Tells subscribers what changed since they heard last.
    pub(super) fn announce(&mut self) {
        let chain = &self.chain;
        self.subscriptions.retain_mut(|subscription| {
            let Subscription { id, out, about, .. } = subscription;
            let say = |method: &str, result: Value| notify(out, method, id, result);
            match about {
                About::Script => true,
                About::Topic(topic, heard) => {
                    let (method, now) = match topic {
                        Topic::Best => ("chain_newHead", chain.best_header()),
                        Topic::Final => ("chain_finalizedHead", chain.final_header()),
                        Topic::Version => ("state_runtimeVersion", chain.version()),
                    };
                    if *heard != now {
                        *heard = now.clone();
                        say(method, now);
                    }
                    true
                }
                About::Watch { extrinsic, ready, heard } => {
                    if !std::mem::replace(ready, true) {
                        say("author_extrinsicUpdate", json!("ready"));
                    }
                    let block = chain.block_of(extrinsic);
                    let now = block.map(|block| &block.hash);
                    if let Some(old) = heard.take_if(|old| now != Some(old)) {
                        say("author_extrinsicUpdate", json!({ "retracted": old }));
                    }
                    if let (Some(hash), None) = (now, &heard) {
                        say("author_extrinsicUpdate", json!({ "inBlock": hash }));
                        *heard = Some(hash.clone());
                    }
                    let Some(block) = block.filter(|block| chain.is_final(block)) else { return true };
                    say("author_extrinsicUpdate", json!({ "finalized": block.hash }));
                    false
                }
            }
        });
    }

    /// Notes the call and says what is to be done.
    fn call(&mut self, connection: usize, out: &Sender, request: &Value) {
        let id = request["id"].clone();
        let method = request["method"].as_str().unwrap_or_default().to_owned();
        let params: Vec<Value> = request["params"].as_array().cloned().unwrap_or_default();
        self.calls.push(Call { connection, method: method.clone(), params: params.clone() });
        let send = |to_send: Out| drop(out.send(to_send));
        let text = |answer: Value| Out::Text(answer.to_string());
        let result = |result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result });
        match self.script.take(&method) {
            None => {
                let answer = self.right(connection, out, &method, &params);
                send(text(whole(&id, answer)));
                self.announce();
            }
            Some(Fault::Drop) => send(Out::Reset),
            Some(Fault::DropAfter) => {
                drop(self.right(connection, out, &method, &params));
                self.announce();
                send(Out::Reset);
            }
            Some(Fault::Silence) => {}
            Some(Fault::Stall) => send(Out::Stall),
            Some(Fault::Slow(time)) => {
                let answer = self.right(connection, out, &method, &params);
                send(Out::Later(time, whole(&id, answer).to_string()));
            }
            Some(Fault::Garbage) => send(Out::Text("}{ \u{fffd}not json".to_owned())),
            // A reserved bit and an unknown opcode, then a length that is none.
            Some(Fault::BrokenFrames) => {
                send(Out::Raw(vec![0xf7, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]))
            }
            Some(Fault::WrongId) => {
                let answer = self.right(connection, out, &method, &params);
                send(text(whole(&json!(id.as_u64().unwrap_or_default() + 1_000_000), answer)));
                self.announce();
            }
            Some(Fault::AnswerOf(other)) => {
                let answer = self.right(connection, out, other, &[]);
                send(text(whole(&id, answer)));
            }
            Some(Fault::Twice) => {
                let answer = whole(&id, self.right(connection, out, &method, &params)).to_string();
                send(Out::Text(answer.clone()));
                send(Out::Text(answer));
                self.announce();
            }
            Some(Fault::Oversized(bytes)) => send(text(result(json!("x".repeat(bytes))))),
            Some(Fault::Refuse(refusal)) => send(text(whole(&id, Err(refusal)))),
            Some(Fault::Result(value)) => send(text(result(value))),
            Some(Fault::SilentSubscription) => {
                let subscription = self.subscribe(connection, out, About::Script);
                send(text(result(json!(subscription))));
            }
            Some(Fault::Says(all)) => {
                let subscription = self.subscribe(connection, out, About::Script);
                send(text(result(json!(subscription))));
                all.into_iter().for_each(|one| notify(out, notification(&method), &subscription, one));
            }
            Some(Fault::EndedSubscription(all)) => {
                let subscription = self.subscribe(connection, out, About::Script);
                send(text(result(json!(subscription))));
                all.into_iter().for_each(|one| notify(out, notification(&method), &subscription, one));
                let end = json!({ "subscription": subscription, "error": "the subscription was closed by the server" });
                send(text(json!({ "jsonrpc": "2.0", "method": notification(&method), "params": end })));
            }
        }
    }

    fn subscribe(&mut self, connection: usize, out: &Sender, about: About) -> String {
        self.last_id += 1;
        let id = format!("sub{}", self.last_id);
        self.subscriptions.push(Subscription { id: id.clone(), connection, out: out.clone(), about });
        id
    }

    /// What a good node answers.
    fn right(&mut self, connection: usize, out: &Sender, method: &str, params: &[Value]) -> Result<Value, Refusal> {
        let topic = match method {
            "chain_subscribeNewHeads" | "chain_subscribeNewHead" | "chain_subscribeAllHeads" => Some(Topic::Best),
            "chain_subscribeFinalizedHeads" => Some(Topic::Final),
            "state_subscribeRuntimeVersion" => Some(Topic::Version),
            _ => None,
        };
        if let Some(topic) = topic {
            // It hears of what there is now with the next announcement, which follows the answer.
            return Ok(json!(self.subscribe(connection, out, About::Topic(topic, Value::Null))));
        }
        match method {
            "author_submitExtrinsic" | "author_submitAndWatchExtrinsic" => {
                let extrinsic = params.first().and_then(Value::as_str).unwrap_or_default().to_owned();
                if self.chain.pool.contains(&extrinsic) || self.chain.block_of(&extrinsic).is_some() {
                    return Err(Refusal::new(1013, "Transaction is already imported", Some("[..]")));
                }
                self.chain.pool.push(extrinsic.clone());
                let answer = if method == "author_submitExtrinsic" {
                    let bytes = hex::decode(extrinsic.trim_start_matches("0x")).unwrap_or_default();
                    let hash: [u8; 32] = blake2::Blake2b::<blake2::digest::consts::U32>::digest(bytes).into();
                    json!(format!("0x{}", hex::encode(hash)))
                } else {
                    json!(self.subscribe(connection, out, About::Watch { extrinsic, ready: false, heard: None }))
                };
                if self.chain.instant {
                    self.chain.new_block();
                }
                Ok(answer)
            }
            _ if method.contains("_unsubscribe") || method == "author_unwatchExtrinsic" => {
                let before = self.subscriptions.len();
                self.subscriptions.retain(|one| params.first().and_then(Value::as_str) != Some(one.id.as_str()));
                Ok(json!(self.subscriptions.len() < before))
            }
            _ => {
                self.chain.answer(method, params).unwrap_or_else(|| Err(Refusal::new(-32601, "Method not found", None)))
            }
        }
    }
}

fn whole(id: &Value, answer: Result<Value, Refusal>) -> Value {
    match answer {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(refusal) => json!({ "jsonrpc": "2.0", "id": id, "error": refusal.json() }),
    }
}

/// How notifications of a subscription are named.
fn notification(method: &str) -> &'static str {
    match method {
        "chain_subscribeFinalizedHeads" => "chain_finalizedHead",
        "state_subscribeRuntimeVersion" => "state_runtimeVersion",
        "author_submitAndWatchExtrinsic" => "author_extrinsicUpdate",
        _ => "chain_newHead",
    }
}

fn notify(out: &Sender, method: &str, id: &str, result: Value) {
    let said = json!({ "jsonrpc": "2.0", "method": method, "params": { "subscription": id, "result": result } });
    // A connection that is gone hears nothing.
    drop(out.send(Out::Text(said.to_string())));
}

/// Serves until it is aborted; the connections end with it.
pub(super) async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = listener.accept() => {
                let number = {
                    let mut state = state.lock().unwrap();
                    state.accepted += 1;
                    state.open += 1;
                    state.accepted
                };
                connections.spawn(connection(socket, number, Arc::clone(&state)));
            }
            Some(ended) = connections.join_next(), if !connections.is_empty() => ended.unwrap(),
        }
    }
}

async fn connection(mut socket: TcpStream, number: usize, state: Arc<Mutex<State>>) {
    let mut resets = state.lock().unwrap().resets.subscribe();
    let (out, mut outs) = mpsc::unbounded_channel();
    let begin = *resets.borrow_and_update();
    let reset = tokio::select! {
        reset = talk(&mut socket, number, &state, &out, &mut outs) => reset,
        _ = resets.wait_for(|n| *n > begin) => true,
    };
    {
        let mut state = state.lock().unwrap();
        state.subscriptions.retain(|one| one.connection != number);
        state.open -= 1;
    }
    if reset {
        socket.set_zero_linger().unwrap();
    }
}

/// Until the client goes (`false`) or the script resets the connection (`true`).
async fn talk(
    socket: &mut TcpStream,
    number: usize,
    state: &Arc<Mutex<State>>,
    out: &Sender,
    outs: &mut mpsc::UnboundedReceiver<Out>,
) -> bool {
    socket.set_nodelay(true).unwrap();
    let Some(mut rest) = upgrade(socket).await else { return false };
    let (mut reader, mut piece, mut stalled) = (Reader::default(), vec![0; 16 << 10], false);
    loop {
        // A client that sends no frames is a client to leave.
        let Ok(messages) = reader.push(&std::mem::take(&mut rest)) else { return true };
        for Message { opcode, payload } in messages.into_iter().filter(|_| !stalled) {
            match opcode {
                Opcode::Close => return false,
                Opcode::Ping => drop(out.send(Out::Raw(frame(Opcode::Pong, &payload)))),
                Opcode::Text => heard(number, state, out, &payload),
                _ => {}
            }
        }
        tokio::select! {
            biased;
            Some(next) = outs.recv() => {
                let sent = match next {
                    _ if stalled => Ok(()),
                    Out::Text(text) => socket.write_all(&frame(Opcode::Text, text.as_bytes())).await,
                    Out::Raw(bytes) => socket.write_all(&bytes).await,
                    Out::Reset => return true,
                    Out::Stall => {
                        stalled = true;
                        Ok(())
                    }
                    Out::Later(time, text) => {
                        let (out, state) = (out.clone(), Arc::clone(state));
                        tokio::spawn(async move {
                            tokio::time::sleep(time).await;
                            drop(out.send(Out::Text(text)));
                            state.lock().unwrap().announce();
                        });
                        Ok(())
                    }
                };
                if sent.is_err() {
                    return false;
                }
            }
            read = socket.read(&mut piece) => match read {
                Ok(0) | Err(_) => return false,
                Ok(read) => rest = piece[..read].to_vec(),
            },
        }
    }
}

fn heard(number: usize, state: &Mutex<State>, out: &Sender, payload: &[u8]) {
    let mut state = state.lock().unwrap();
    match serde_json::from_slice(payload) {
        // Answers of a batch come one by one; subxt sends none.
        Ok(Value::Array(batch)) => batch.iter().for_each(|request| state.call(number, out, request)),
        Ok(request) => state.call(number, out, &request),
        Err(_) => {
            drop(out.send(Out::Text(whole(&Value::Null, Err(Refusal::new(-32700, "Parse error", None))).to_string())));
        }
    }
}

/// Answers the HTTP request; what came behind it. `None` if that is no upgrade.
async fn upgrade(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > 16 << 10 || socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    })?;
    let accept = STANDARD.encode(Sha1::digest(format!("{key}{GUID}")));
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    socket.write_all(answer.as_bytes()).await.ok()?;
    Some(bytes.split_off(end))
}
