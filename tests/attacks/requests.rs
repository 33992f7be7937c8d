//! Requests under both schemes, signed as they should be and then changed.

use std::time::{SystemTime, UNIX_EPOCH};

use compute_subnet::ids::Hotkey;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::btauth;
use compute_subnet::wire::classic::{ClassicSynapse, Outgoing, sign};
use serde::{Deserialize, Serialize};

pub(crate) const SECOND: u64 = 1_000_000_000;
/// Ours, where an accepted request makes a rental.
pub(crate) const ALLOCATE: &str = "/ComputeAllocate";
/// The original's.
pub(crate) const CLASSIC: &str = "/Allocate";
/// The body of an `Allocate` that would take the machine, with somebody's name in it.
pub(crate) fn taking(named: &Hotkey) -> String {
    format!(
        "{{\"timeline\": 1, \"checking\": false, \"public_key\": \"key\", \"dendrite\": {{\"hotkey\": \"{named}\"}}, \
         \"docker_requirement\": {{\"base_image\": \"ubuntu\", \"ssh_key\": \"\", \"ssh_port\": 4444}}}}"
    )
}
/// The body of an availability probe, which has no effect.
pub(crate) const PROBE: &str = "{\"timeline\": 1, \"checking\": true}";

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

/// The original's class, as far as its headers go.
#[derive(Serialize, Deserialize)]
struct Allocate {}
impl ClassicSynapse for Allocate {
    const NAME: &'static str = "Allocate";
}

/// A request that can be changed after it was signed.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Signed under `btauth/1` at `nonce`.
    pub(crate) fn own(key: &Keypair, to: &Hotkey, path: &str, body: &[u8], nonce: u64) -> Self {
        let headers = btauth::sign(key, "POST", path, body, nonce, to);
        let headers = headers.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Request { path: path.to_owned(), headers, body: body.to_vec() }
    }

    /// Signed under the classic scheme at `nonce`, from an object of its own.
    pub(crate) fn classic(key: &Keypair, to: &Hotkey, body: &[u8], nonce: u64) -> Self {
        let uuid = format!("{:08x}-{:04x}-11f1-8185-02fc00000001", nonce as u32, (nonce >> 32) as u16);
        let at = ([127, 0, 0, 1], 1).into();
        let headers = sign(key, &Allocate {}, &Outgoing { receiver: to, to: at, nonce, uuid: &uuid, timeout_s: 12.0 });
        Request { path: CLASSIC.to_owned(), headers, body: body.to_vec() }
    }

    /// With this header in place of the one that there was.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// Everything before the empty line, without a word about the body's length.
    pub(crate) fn head(&self) -> String {
        let mut head = format!("POST {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n", self.path);
        head.push_str("content-type: application/json\r\n");
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{}content-length: {}\r\n\r\n", self.head(), self.body.len()).into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}
