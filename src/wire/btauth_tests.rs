//! `btauth/1` against the vectors recorded from SDK 11.3.0, and against edges they do not have.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::*;
use crate::wire::nonces::{NonceLimits, NonceTable};

#[derive(Deserialize)]
struct Vectors {
    signed: Vec<Signed>,
    verify_cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Signed {
    id: String,
    method: String,
    path: String,
    body_utf8: String,
    headers: BTreeMap<String, String>,
    signed_payload: String,
    verify_as_alice: Outcome,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    headers: BTreeMap<String, String>,
    body_utf8: String,
    method: String,
    path: String,
    now_ns: u64,
    calls: usize,
    result_of_last_call: Outcome,
}

#[derive(Deserialize)]
struct Outcome {
    ok: bool,
    error: Option<String>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../tests/vectors/btauth1.json")).unwrap()
}

fn collect(headers: &BTreeMap<String, String>) -> AuthHeaders {
    AuthHeaders::collect(headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))).unwrap()
}

/// The SDK's name of the error class.
fn class(error: &AuthError) -> &'static str {
    match error {
        AuthError::MalformedAuth(_) => "MalformedAuth",
        AuthError::WrongReceiver(_) => "WrongReceiver",
        AuthError::StaleRequest(_) => "StaleRequest",
        AuthError::BadSignature(_) => "BadSignature",
        AuthError::ReplayedRequest => "ReplayedRequest",
        AuthError::Overloaded(_) => "Overloaded",
    }
}

fn alice() -> Keypair {
    Keypair::from_uri("//Alice").unwrap()
}

fn bob() -> Keypair {
    Keypair::from_uri("//Bob").unwrap()
}

const NOW: u64 = 1_795_357_297_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn check(headers: &AuthHeaders, body: &[u8], now: u64) -> Result<Caller, AuthError> {
    verify(headers, "POST", "/x", body, now, &alice().hotkey(), &AuthPolicy::default())
}

#[test]
fn requests_signed_by_the_sdk_are_judged_as_the_sdk_judges_them() {
    let vectors = vectors();
    assert_eq!(vectors.signed.len(), 5);
    for v in vectors.signed {
        let now: u64 = v.headers["X-Bittensor-Nonce"].parse().unwrap();
        let body = v.body_utf8.as_bytes();
        let policy = AuthPolicy::default();
        let result = verify(&collect(&v.headers), &v.method, &v.path, body, now, &alice().hotkey(), &policy);
        if v.id == "ed25519_bound" {
            // The SDK lets the header choose the scheme. Here it is pinned, and this is refused.
            assert!(matches!(result, Err(AuthError::BadSignature(_))), "{}: {result:?}", v.id);
            continue;
        }
        match result {
            Ok(caller) => {
                assert!(v.verify_as_alice.ok, "{}", v.id);
                assert_eq!(caller, Caller { hotkey: bob().hotkey(), nonce: now });
            }
            Err(e) => assert_eq!(Some(class(&e)), v.verify_as_alice.error.as_deref(), "{}", v.id),
        }
    }
}

#[test]
fn the_signed_bytes_are_the_sdks_byte_for_byte() {
    for v in vectors().signed.into_iter().filter(|v| v.id != "ed25519_bound") {
        let receiver = v.headers.get("X-Bittensor-Receiver").map_or("-", String::as_str);
        let (nonce, sender) = (&v.headers["X-Bittensor-Nonce"], &v.headers["X-Bittensor-Hotkey"]);
        let ours = payload(&v.method, &v.path, v.body_utf8.as_bytes(), nonce, sender, receiver);
        assert_eq!(ours, v.signed_payload, "{}", v.id);
    }
}

#[test]
fn every_recorded_verification_has_its_documented_result() {
    let vectors = vectors();
    assert_eq!(vectors.verify_cases.len(), 22);
    for v in vectors.verify_cases {
        let mut nonces = NonceTable::new(NonceLimits::default(), AuthPolicy::default(), 0);
        let mut last = None;
        for _ in 0..v.calls {
            let (body, policy) = (v.body_utf8.as_bytes(), AuthPolicy::default());
            let result = verify(&collect(&v.headers), &v.method, &v.path, body, v.now_ns, &alice().hotkey(), &policy);
            last = Some(result.and_then(|caller| nonces.admit(&caller, v.now_ns)));
        }
        let error = last.unwrap().err();
        assert_eq!(error.is_none(), v.result_of_last_call.ok, "{}: {error:?}", v.id);
        assert_eq!(error.as_ref().map(class), v.result_of_last_call.error.as_deref(), "{}", v.id);
    }
}

#[test]
fn our_own_signature_verifies_and_every_signed_part_matters() {
    let (method, target, body) = ("post", "/x?y=%20", b"body".as_slice());
    let headers = sign(&bob(), method, target, body, NOW, &alice().hotkey());
    let verify_as = |method: &str, target: &str, body: &[u8]| {
        verify(&headers, method, target, body, NOW, &alice().hotkey(), &AuthPolicy::default())
    };
    assert_eq!(verify_as("POST", target, body), Ok(Caller { hotkey: bob().hotkey(), nonce: NOW }));
    for result in [verify_as("PUT", target, body), verify_as("POST", "/x", body), verify_as("POST", target, b"bodx")] {
        assert!(matches!(result, Err(AuthError::BadSignature(_))), "{result:?}");
    }
    let stranger = verify(&headers, "POST", target, body, NOW, &bob().hotkey(), &AuthPolicy::default());
    assert!(matches!(stranger, Err(AuthError::WrongReceiver(_))));
}

#[test]
fn another_nonce_or_sender_under_the_same_signature_is_refused() {
    let mut headers = sign(&bob(), "POST", "/x", b"", NOW, &alice().hotkey());
    headers.nonce = Some((NOW + 1).to_string());
    assert!(matches!(check(&headers, b"", NOW), Err(AuthError::BadSignature(_))));
    let mut headers = sign(&bob(), "POST", "/x", b"", NOW, &alice().hotkey());
    headers.hotkey = Some(alice().hotkey().to_string());
    assert!(matches!(check(&headers, b"", NOW), Err(AuthError::BadSignature(_))));
}

#[test]
fn the_window_ends_one_nanosecond_after_its_edges() {
    let headers = sign(&bob(), "POST", "/x", b"", NOW, &alice().hotkey());
    assert!(check(&headers, b"", NOW + 10 * SECOND).is_ok());
    assert!(matches!(check(&headers, b"", NOW + 10 * SECOND + 1), Err(AuthError::StaleRequest(_))));
    assert!(check(&headers, b"", NOW - 2 * SECOND).is_ok());
    assert!(matches!(check(&headers, b"", NOW - 2 * SECOND - 1), Err(AuthError::StaleRequest(_))));
    // A clock that stands at 1970 admits nothing.
    assert!(matches!(check(&headers, b"", 0), Err(AuthError::StaleRequest(_))));
}

#[test]
fn shape_is_judged_before_receiver_freshness_and_signature() {
    let mut headers = sign(&bob(), "POST", "/x", b"", NOW, &bob().hotkey());
    headers.signature = Some("0xzz".to_owned());
    let late = NOW + 60 * SECOND;
    assert!(matches!(check(&headers, b"", late), Err(AuthError::MalformedAuth(_))));
    headers.signature = Some("00".repeat(64));
    assert!(matches!(check(&headers, b"", late), Err(AuthError::WrongReceiver(_))));
    headers.receiver = Some(alice().hotkey().to_string());
    assert!(matches!(check(&headers, b"", late), Err(AuthError::StaleRequest(_))));
    assert!(matches!(check(&headers, b"", NOW), Err(AuthError::BadSignature(_))));
}

#[test]
fn no_scheme_but_sr25519_is_accepted_from_the_header() {
    let mut headers = sign(&bob(), "POST", "/x", b"", NOW, &alice().hotkey());
    headers.crypto = Some("sr25519".to_owned());
    assert!(check(&headers, b"", NOW).is_ok());
    headers.crypto = Some("ed25519".to_owned());
    assert!(matches!(check(&headers, b"", NOW), Err(AuthError::BadSignature(_))));
    for other in ["rsa", "hashed", "mldsa", "SR25519", ""] {
        headers.crypto = Some(other.to_owned());
        assert!(matches!(check(&headers, b"", NOW), Err(AuthError::MalformedAuth(_))), "{other:?}");
    }
}

#[test]
fn a_nonce_has_one_spelling() {
    for text in ["", "+1", "-1", " 1", "1 ", "01", "1_0", "0x1", "1.0", "18446744073709551616", &"9".repeat(5000)] {
        assert!(matches!(parse_nonce(text), Err(AuthError::MalformedAuth(_))), "{text:?}");
    }
    assert_eq!(parse_nonce("18446744073709551615"), Ok(u64::MAX));
}

#[test]
fn a_header_given_twice_or_not_ascii_is_malformed() {
    let twice = [("X-Bittensor-Hotkey", b"a".as_slice()), ("x-bittensor-hotkey", b"b")];
    assert!(matches!(AuthHeaders::collect(twice), Err(AuthError::MalformedAuth(_))));
    let odd = [("X-Bittensor-Nonce", b"1\xff".as_slice())];
    assert!(matches!(AuthHeaders::collect(odd), Err(AuthError::MalformedAuth(_))));
    let foreign = [("accept", b"a".as_slice()), ("accept", b"\xff")];
    assert_eq!(AuthHeaders::collect(foreign), Ok(AuthHeaders::default()));
}

proptest::proptest! {
    #[test]
    fn no_header_text_panics_the_verifier(texts in proptest::array::uniform6(proptest::option::of(".{0,80}"))) {
        let [version, hotkey, receiver, nonce, signature, crypto] = texts;
        let version = version.map(|_| "1".to_owned());
        let headers = AuthHeaders { version, hotkey, receiver, nonce, signature, crypto };
        proptest::prop_assert!(check(&headers, b"", NOW).is_err());
    }
}
