//! The headers of a classic request of ours.

use std::net::SocketAddr;

use super::headers::{AXON_PREFIX, BODY_HASH_HEADER, DENDRITE_PREFIX, INPUT_PREFIX, TIMEOUT_HEADER};
use super::{ClassicSynapse, DENDRITE_VERSION, body_hash};
use crate::ids::Hotkey;
use crate::wallet::Keypair;
use crate::wire::signature::show_signature;

/// Where a request goes and what is particular to it.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Who shall answer.
    pub receiver: &'a Hotkey,
    /// Where.
    pub to: SocketAddr,
    /// Nanoseconds since the Unix epoch; must rise for each `uuid`.
    pub nonce: u64,
    /// Names the calling object.
    pub uuid: &'a str,
    /// Our deadline in seconds.
    pub timeout_s: f64,
}

/// The headers that sign `synapse`, in the SDK's order.
pub fn sign<S: ClassicSynapse>(keypair: &Keypair, synapse: &S, out: &Outgoing<'_>) -> Vec<(String, String)> {
    let caller = keypair.hotkey();
    let hash = body_hash(&synapse.hashed());
    let message = format!("{}.{caller}.{}.{}.{hash}", out.nonce, out.receiver, out.uuid);
    let signature = show_signature(&keypair.sign(message.as_bytes()));
    let axon = |field: &str, value: String| (format!("{AXON_PREFIX}{field}"), value);
    let dendrite = |field: &str, value: String| (format!("{DENDRITE_PREFIX}{field}"), value);
    let mut headers = vec![
        ("name".to_owned(), S::NAME.to_owned()),
        (TIMEOUT_HEADER.to_owned(), format!("{:?}", out.timeout_s)),
        axon("ip", out.to.ip().to_string()),
        axon("port", out.to.port().to_string()),
        axon("hotkey", out.receiver.to_string()),
        dendrite("version", DENDRITE_VERSION.to_string()),
        dendrite("nonce", out.nonce.to_string()),
        dendrite("uuid", out.uuid.to_owned()),
        dendrite("hotkey", caller.to_string()),
        dendrite("signature", signature),
    ];
    headers.extend(S::REQUIRED.iter().map(|(field, zero)| (format!("{INPUT_PREFIX}{field}"), (*zero).to_owned())));
    headers.push((BODY_HASH_HEADER.to_owned(), hash));
    headers
}
