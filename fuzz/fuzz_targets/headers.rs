//! The headers of a signed request: only its signer's signature over exactly this request is accepted.
//!
//! The input is a request in text: `METHOD TARGET`, header lines, an empty line, the body; LF ends lines.
#![no_main]

use std::sync::LazyLock;

use compute_subnet::ids::Hotkey;
use compute_subnet::wallet::{Keypair, verify as verify_signature};
use compute_subnet::wire::btauth::{self, AuthHeaders, AuthPolicy, NONCE_HEADER, SIGNATURE_HEADER};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

static ALICE: LazyLock<Keypair> = LazyLock::new(|| Keypair::from_uri("//Alice").expect("a development key"));
static BOB: LazyLock<Keypair> = LazyLock::new(|| Keypair::from_uri("//Bob").expect("a development key"));
const NOW: u64 = 1_795_357_298_000_000_000;

struct Request<'a> {
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a [u8])>,
    body: &'a [u8],
}

fn parse(mut bytes: &[u8]) -> Option<Request<'_>> {
    let mut line = || {
        let end = bytes.iter().position(|&b| b == b'\n')?;
        let (line, rest) = bytes.split_at(end);
        bytes = &rest[1..];
        Some(line)
    };
    let (method, target) = std::str::from_utf8(line()?).ok()?.split_once(' ')?;
    let mut headers = Vec::new();
    loop {
        let line = line()?;
        if line.is_empty() {
            return Some(Request { method, target, headers, body: bytes });
        }
        let colon = line.iter().position(|&b| b == b':')?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        headers.push((name, line[colon + 1..].trim_ascii()));
    }
}

/// The signed bytes of `btauth/1`, from its description alone.
fn payload(request: &Request<'_>, nonce: u64, sender: &Hotkey, receiver: &Hotkey) -> String {
    let (method, target) = (request.method.to_ascii_uppercase(), request.target);
    let body = hex::encode(Sha256::digest(request.body));
    format!("btauth/1\nsr25519\n{method}\n{target}\n{body}\n{nonce}\n{sender}\n{receiver}")
}

/// The value of one header, which is there once.
fn header<'a>(headers: &'a AuthHeaders, name: &str) -> &'a str {
    headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value).expect("an accepted request has it")
}

fuzz_target!(|bytes: &[u8]| {
    let Some(request) = parse(bytes) else { return };
    as_given(&request);
    changed(&request, bytes);
});

/// What is accepted as it stands was signed by whom it names.
fn as_given(request: &Request<'_>) {
    let Ok(headers) = AuthHeaders::collect(request.headers.iter().copied()) else { return };
    let same = AuthHeaders::collect(headers.iter().map(|(name, value)| (name, value.as_bytes())));
    assert_eq!(same.as_ref(), Ok(&headers), "headers that were read can be sent and read again");

    let us = ALICE.hotkey();
    let verified =
        btauth::verify(&headers, request.method, request.target, request.body, NOW, &us, &AuthPolicy::default());
    let Ok(caller) = verified else { return };
    let signature = header(&headers, SIGNATURE_HEADER);
    let mut raw = [0u8; 64];
    hex::decode_to_slice(signature.strip_prefix("0x").unwrap_or(signature), &mut raw).expect("64 bytes of hex");
    assert_eq!(header(&headers, NONCE_HEADER), caller.nonce.to_string());
    let signed = payload(request, caller.nonce, &caller.hotkey, &us);
    assert!(verify_signature(&caller.hotkey, signed.as_bytes(), &raw), "accepted without a signature");
}

/// A request signed by us is accepted, and with any one header or byte of it changed it is not.
fn changed(request: &Request<'_>, seed: &[u8]) {
    let us = ALICE.hotkey();
    let check = |headers: &AuthHeaders, method: &str, target: &str, body: &[u8]| {
        btauth::verify(headers, method, target, body, NOW, &us, &AuthPolicy::default())
    };
    let Request { method, target, body, .. } = *request;
    let headers = btauth::sign(&BOB, method, target, body, NOW, &us);
    let caller = check(&headers, method, target, body).expect("what was signed is accepted");
    assert_eq!(caller.hotkey, BOB.hotkey());

    let mut other = body.to_vec();
    other.push(0);
    assert!(check(&headers, method, target, &other).is_err(), "another body");
    assert!(check(&headers, method, &format!("{target}?"), body).is_err(), "another target");

    // One character of one header, chosen by the input.
    let pick = |i: usize| usize::from(seed[seed.len() - 1 - i.min(seed.len() - 1)]);
    let mut lines: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
    let (which, bits) = (pick(0) % lines.len(), (pick(2) % 255 + 1) as u8);
    let place = pick(1) % lines[which].1.len();
    let before = lines[which].1[place];
    lines[which].1[place] ^= bits;
    // The case of a hex digit is no change.
    if lines[which].1[place].eq_ignore_ascii_case(&before) {
        return;
    }
    let lines = lines.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let Ok(headers) = AuthHeaders::collect(lines) else { return };
    assert!(check(&headers, method, target, body).is_err(), "another header");
}
