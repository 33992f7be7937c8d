//! The headers of a signed request, in both schemes: only its signer's signature over exactly this request is accepted.
//!
//! In `btauth/1` that is method, target and body too; the classic scheme signs nonce, caller, receiver, uuid and body hash.
//! The input is a request in text: `METHOD TARGET`, header lines, an empty line, the body; LF ends lines.
#![no_main]

use std::sync::LazyLock;

use compute_subnet::ids::Hotkey;
use compute_subnet::wallet::{Keypair, verify as verify_signature};
use compute_subnet::wire::btauth::{self, AuthHeaders, AuthPolicy, NONCE_HEADER, SIGNATURE_HEADER};
use compute_subnet::wire::classic::headers::{BODY_HASH_HEADER, DENDRITE_PREFIX};
use compute_subnet::wire::classic::{self, ClassicCaller, ClassicHeaders, ClassicPolicy, Outgoing, Ping};
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
    classic_as_given(&request);
    classic_changed(bytes);
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

/// The n-th byte of the input from its end.
fn pick(seed: &[u8], n: usize) -> usize {
    usize::from(seed[seed.len() - 1 - n.min(seed.len() - 1)])
}

/// Changes one byte as the input says. `false` if only the case of a letter is another: hex digits have none.
fn change(value: &mut [u8], seed: &[u8]) -> bool {
    let place = pick(seed, 1) % value.len();
    let before = value[place];
    value[place] ^= (pick(seed, 2) % 255 + 1) as u8;
    !value[place].eq_ignore_ascii_case(&before)
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
    let mut lines: Vec<(String, Vec<u8>)> =
        headers.iter().map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec())).collect();
    let which = pick(seed, 0) % lines.len();
    if !change(&mut lines[which].1, seed) {
        return;
    }
    let lines = lines.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    let Ok(headers) = AuthHeaders::collect(lines) else { return };
    assert!(check(&headers, method, target, body).is_err(), "another header");
}

fn classic_check(headers: &ClassicHeaders) -> Option<ClassicCaller> {
    let claimed = classic::check_shape(headers, NOW, &ALICE.hotkey(), &ClassicPolicy::default()).ok()?;
    classic::verify(claimed).ok()
}

/// As [`as_given`].
fn classic_as_given(request: &Request<'_>) {
    let Ok(headers) = ClassicHeaders::collect(request.headers.iter().copied()) else { return };
    assert!(headers.timeout_s.is_finite() && headers.timeout_s >= 0.0);
    let Some(proved) = classic_check(&headers) else { return };
    let from = &headers.dendrite;
    let text = |field: &Option<String>| field.clone().expect("an accepted request has it");
    let mut raw = [0u8; 64];
    hex::decode_to_slice(&text(&from.signature)[2..], &mut raw).expect("0x and 64 bytes of hex");
    let (sender, us, nonce) = (proved.caller.hotkey, ALICE.hotkey(), proved.caller.nonce);
    let signed = format!("{nonce}.{sender}.{us}.{}.{}", text(&from.uuid), text(&headers.body_hash));
    assert!(verify_signature(&sender, signed.as_bytes(), &raw), "accepted without a signature");
}

/// What our dendrite sends is accepted, and with another byte in what it signed it is not.
fn classic_changed(seed: &[u8]) {
    let us = ALICE.hotkey();
    let to = ([127, 0, 0, 1], 8091).into();
    let uuid = hex::encode(&seed[..seed.len().min(16)]);
    let out = Outgoing { receiver: &us, to, nonce: NOW, uuid: &uuid, timeout_s: 12.0 };
    let mut lines: Vec<(String, Vec<u8>)> =
        classic::sign(&BOB, &Ping {}, &out).into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    let collect = |lines: &[(String, Vec<u8>)]| {
        ClassicHeaders::collect(lines.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    };
    let headers = collect(&lines).expect("own headers can be read");
    assert_eq!(classic_check(&headers).map(|proved| proved.caller.hotkey), Some(BOB.hotkey()));

    let signed = ["nonce", "uuid", "hotkey", "signature"].map(|field| format!("{DENDRITE_PREFIX}{field}"));
    let mut signed: Vec<&mut (String, Vec<u8>)> =
        lines.iter_mut().filter(|(name, _)| name == BODY_HASH_HEADER || signed.contains(name)).collect();
    let which = pick(seed, 0) % signed.len();
    if !change(&mut signed[which].1, seed) {
        return;
    }
    let accepted = collect(&lines).ok().and_then(|headers| classic_check(&headers));
    assert!(accepted.is_none(), "another header");
}
