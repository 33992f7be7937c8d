//! Availability probes as a Python validator sends them, signed ahead of the run.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use compute_subnet::ids::Hotkey;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::classic::{ClassicSynapse, EMPTY_BODY_HASH, Outgoing, sign};
use serde::{Deserialize, Serialize};

/// The timeout that each request states, in seconds: what is signed now may be sent so much later.
const TIMEOUT_S: f64 = 60.0;

/// The class's name and that it hashes nothing are all that its headers need.
#[derive(Serialize, Deserialize)]
struct Allocate {}

impl ClassicSynapse for Allocate {
    const NAME: &'static str = "Allocate";
}

/// Nanoseconds since the Unix epoch.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// A request to verify by hand.
pub(crate) struct Sample {
    pub(crate) hotkey: Hotkey,
    pub(crate) message: String,
    pub(crate) signature: [u8; 64],
}

/// Signs one request, as the SDK's dendrite of 9.0.0 writes it.
fn request(class: &str, key: &Keypair, receiver: &Hotkey, to: SocketAddr, uuid: &str, nonce: u64) -> String {
    let headers = sign(key, &Allocate {}, &Outgoing { receiver, to, nonce, uuid, timeout_s: TIMEOUT_S });
    let named = |name: &str| headers.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value);
    let signature = named("bt_header_dendrite_signature");
    let (ip, port, caller) = (to.ip(), to.port(), key.hotkey());
    let nobody = r#""status_code": null, "status_message": null, "process_time": null"#;
    let body = format!(
        "{{\"name\": \"Allocate\", \"timeout\": {TIMEOUT_S:?}, \"total_size\": 6014, \"header_size\": 0, \"dendrite\": \
         {{{nobody}, \"ip\": \"203.0.113.5\", \"port\": null, \"version\": 9000000, \"nonce\": {nonce}, \"uuid\": \
         \"{uuid}\", \"hotkey\": \"{caller}\", \"signature\": \"{signature}\"}}, \"axon\": {{{nobody}, \"ip\": \"{ip}\", \
         \"port\": {port}, \"version\": null, \"nonce\": null, \"uuid\": null, \"hotkey\": \"{receiver}\", \
         \"signature\": null}}, \"computed_body_hash\": \"\", \"timeline\": 1, \"device_requirement\": {{\"cpu\": \
         {{\"count\": 1}}, \"gpu\": {{\"count\": 1, \"capacity\": 0, \"type\": \"\"}}, \"hard_disk\": {{\"capacity\": \
         1073741824}}, \"ram\": {{\"capacity\": 1073741824}}, \"testing\": true}}, \"checking\": true, \"output\": {{}}, \
         \"public_key\": \"\", \"docker_requirement\": {{\"base_image\": \"ubuntu\", \"ssh_key\": \"\", \"ssh_port\": \
         4444, \"volume_path\": \"/tmp\", \"dockerfile\": \"\"}}, \"docker_change\": false, \"docker_action\": \
         {{\"action\": \"\", \"ssh_key\": \"\", \"key_type\": \"\"}}}}"
    );
    let mut text = format!("POST /{class} HTTP/1.1\r\nHost: {to}\r\n");
    for (name, value) in &headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!(
        "header_size: 464\r\ntotal_size: 6014\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nUser-Agent: \
         Python/3.11 aiohttp/3.14.5\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n{body}",
        body.len()
    ));
    text
}

/// Writes one file for each of `threads` threads, each with its own share of `callers`, and `each` requests in a file: a
/// line with the length before every request. No request of one caller is in two files, so nonces rise on each connection.
pub(crate) fn write(
    dir: &Path,
    class: &str,
    callers: &[Keypair],
    receiver: &Hotkey,
    to: SocketAddr,
    threads: usize,
    each: usize,
) -> Vec<PathBuf> {
    let path = |thread: usize| dir.join(format!("requests.{thread}"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for worker in 0..cores {
            scope.spawn(move || {
                for thread in (worker..threads).step_by(cores) {
                    let share = callers.len() / threads;
                    let own = &callers[thread * share..(thread + 1) * share];
                    let mut file = BufWriter::with_capacity(1 << 20, File::create(path(thread)).unwrap());
                    for number in 0..each {
                        let at = number % own.len();
                        let uuid = format!("{thread:08x}-{at:04x}-11f1-8185-02fc00000001");
                        let text = request(class, &own[at], receiver, to, &uuid, now_ns());
                        write!(file, "{}\n{text}", text.len()).unwrap();
                    }
                    file.into_inner().unwrap().sync_data().unwrap();
                }
            });
        }
    });
    (0..threads).map(path).collect()
}

/// Signatures to measure the bare check with, over messages of the same form.
pub(crate) fn samples(callers: &[Keypair], receiver: &Hotkey) -> Vec<Sample> {
    let sample = |(number, key): (usize, &Keypair)| {
        let (hotkey, nonce) = (key.hotkey(), now_ns());
        let uuid = format!("{number:08x}-0000-11f1-8185-02fc00000001");
        let message = format!("{nonce}.{hotkey}.{receiver}.{uuid}.{EMPTY_BODY_HASH}");
        Sample { hotkey, signature: key.sign(message.as_bytes()), message }
    };
    callers.iter().enumerate().map(sample).collect()
}
