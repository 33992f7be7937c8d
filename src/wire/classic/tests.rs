//! The pure parts against what the real SDKs did.

use serde_json::Value;

use super::*;
use crate::ids::Hotkey;
use crate::wallet::Keypair;
use crate::wire::btauth::Caller;

const CAPTURES: [&str; 3] = [
    include_str!("../../../tests/vectors/axon/sdk_9.0.0.json"),
    include_str!("../../../tests/vectors/axon/sdk_10.5.0.json"),
    include_str!("../../../tests/vectors/axon/compute_subnet_9.0.0.json"),
];
const PYTHON: &str = include_str!("../../../tests/vectors/python_str_body_hash.json");
const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_795_359_316 * SECOND;

fn key(name: &str) -> Keypair {
    Keypair::from_uri(&format!("//{name}")).unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap()
}

#[test]
fn every_value_prints_and_hashes_as_in_python() {
    let vectors: Value = serde_json::from_str(PYTHON).unwrap();
    let mut seen = 0;
    for v in vectors["values"].as_array().unwrap() {
        let json = text(v, "json_as_sent");
        let value: PyValue = serde_json::from_str(json).unwrap();
        assert_eq!(value.pystr(), text(v, "python_str"), "{json}");
        assert_eq!(body_hash(std::slice::from_ref(&value)), text(v, "body_hash"), "{json}");
        let again: PyValue = serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap();
        assert_eq!(again.pystr(), value.pystr(), "{json}");
        seen += 1;
    }
    assert_eq!(seen, 77);
    assert_eq!(body_hash(&[]), text(&vectors, "empty_body_hash"));
    // What is no JSON is no value: a hash over it could not be told again.
    for v in vectors["non_json_floats"].as_array().unwrap() {
        assert!(serde_json::from_str::<PyValue>(text(v, "json_as_sent")).is_err());
    }
}

#[test]
fn a_value_nested_too_deep_is_refused() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(serde_json::from_str::<PyValue>(&nested(32)).is_ok());
    for depth in [33, 100, 50_000] {
        assert!(serde_json::from_str::<PyValue>(&nested(depth)).is_err());
    }
    let doubled: PyValue = serde_json::from_str(r#"{"a": 1, "b": 2, "a": 3}"#).unwrap();
    assert_eq!(doubled.pystr(), "{'a': 3, 'b': 2}");
}

/// The headers of a captured request, as pairs.
fn pairs(request: &Value) -> Vec<(&str, &[u8])> {
    let headers = request["headers"].as_array().unwrap();
    headers.iter().map(|h| (h[0].as_str().unwrap(), h[1].as_str().unwrap().as_bytes())).collect()
}

#[test]
fn every_captured_signature_has_the_recorded_verdict() {
    let alice = key("Alice").hotkey();
    let mut counts = (0, 0, 0);
    for capture in CAPTURES {
        let capture: Value = serde_json::from_str(capture).unwrap();
        for v in capture["vectors"].as_array().unwrap() {
            let (id, signed) = (text(v, "id"), &v["request_signature"]);
            let Ok(headers) = ClassicHeaders::collect(v.get("request").map(pairs).unwrap_or_default()) else {
                continue;
            };
            // Looked at when it was signed, so that only the signature is judged.
            let now = headers.dendrite.nonce.unwrap_or(NOW);
            let Ok(claimed) = check_shape(&headers, now, &alice, &ClassicPolicy::default()) else {
                counts.2 += 1;
                continue;
            };
            let wrapped = id == "raw_bytes_wrapped_signature" || id == "raw_signature_no_0x";
            let expected = signed["verifies"].as_bool().is_some_and(|verifies| verifies && !wrapped);
            assert_eq!(verify(claimed).is_ok(), expected, "{id}: {signed}");
            if expected { counts.0 += 1 } else { counts.1 += 1 }
        }
    }
    assert!(counts.0 >= 150 && counts.1 >= 12, "{counts:?}");
}

fn headers_of(list: &[(String, String)]) -> ClassicHeaders {
    ClassicHeaders::collect(list.iter().map(|(n, v)| (n.as_str(), v.as_bytes()))).unwrap()
}

fn signed_by(name: &str, nonce: u64, timeout_s: f64) -> Vec<(String, String)> {
    let alice = key("Alice").hotkey();
    let to = "127.0.0.1:8091".parse().unwrap();
    sign(&key(name), &Ping {}, &Outgoing { receiver: &alice, to, nonce, uuid: "an-uuid", timeout_s })
}

fn judge(headers: &ClassicHeaders, now: u64, us: &str) -> Result<ClassicCaller, ClassicError> {
    check_shape(headers, now, &key(us).hotkey(), &ClassicPolicy::default()).and_then(verify)
}

#[test]
fn what_we_sign_is_ours_for_one_receiver() {
    let headers = headers_of(&signed_by("Bob", NOW, 12.0));
    assert_eq!(headers.timeout_s, 12.0);
    assert_eq!(judge(&headers, NOW, "Alice").unwrap().caller, Caller { hotkey: key("Bob").hotkey(), nonce: NOW });
    assert!(matches!(judge(&headers, NOW, "Charlie"), Err(ClassicError::SignatureMismatch { .. })));
    // Every part of the message is signed.
    for field in ["nonce", "uuid", "hotkey"] {
        let mut list = signed_by("Bob", NOW, 12.0);
        let other = match field {
            "nonce" => (NOW + 1).to_string(),
            "uuid" => "other".to_owned(),
            _ => key("Charlie").hotkey().to_string(),
        };
        list.iter_mut().find(|(n, _)| *n == format!("bt_header_dendrite_{field}")).unwrap().1 = other;
        let refused = judge(&headers_of(&list), NOW, "Alice");
        assert!(matches!(refused, Err(ClassicError::SignatureMismatch { .. })), "{field}: {refused:?}");
    }
}

#[test]
fn freshness_is_asked_of_every_request_whatever_it_claims() {
    let at = |age_s: i64, timeout_s: f64, version: Option<&str>| {
        let nonce = NOW.checked_add_signed(-age_s * SECOND as i64).unwrap();
        let mut list = signed_by("Bob", nonce, timeout_s);
        list.retain(|(n, _)| n != "bt_header_dendrite_version");
        list.extend(version.map(|v| ("bt_header_dendrite_version".to_owned(), v.to_owned())));
        judge(&headers_of(&list), NOW, "Alice")
    };
    assert!(at(15, 12.0, Some("9000000")).is_ok());
    let late = at(17, 12.0, Some("9000000")).unwrap_err();
    assert_eq!(
        late.message(),
        "Not Verified with error: Nonce is too old: acceptable delta is 16.00 seconds but request was 17.00 seconds old"
    );
    assert!(at(5, 0.0, Some("9000000")).is_err());
    // The timeout is not signed: it widens the window only so far.
    assert!(at(63, 1e9, Some("9000000")).is_ok());
    assert!(at(65, 1e9, Some("9000000")).is_err());
    // Nor is the version.
    assert!(at(17, 12.0, Some("694")).is_err() && at(17, 12.0, None).is_err());
    assert!(at(1, 12.0, None).is_ok());
    assert!(at(-10, 12.0, None).is_ok());
    assert!(matches!(at(-11, 12.0, None), Err(ClassicError::TooFarAhead { .. })));
}

#[test]
fn a_header_that_could_be_read_in_two_ways_is_not_read() {
    let base = signed_by("Bob", NOW, 12.0);
    let with = |name: &str, value: &str| {
        let mut list = base.clone();
        list.push((name.to_owned(), value.to_owned()));
        ClassicHeaders::collect(list.iter().map(|(n, v)| (n.as_str(), v.as_bytes())))
    };
    assert!(with("bt_header_dendrite_colour", "blue").is_ok(), "unknown fields are ignored");
    assert!(with("BT_HEADER_DENDRITE_NONCE", "7").is_err(), "twice, in another case");
    assert!(with("computed_body_hash", EMPTY_BODY_HASH).is_err());
    assert!(with("bt_header_axon_port", "8091").is_err());
    assert!(with("bt_header_axon_nonce", "-1").is_err());
    assert!(with("bt_header_axon_nonce", "1_000").is_err());
    assert!(with("bt_header_axon_nonce", "18446744073709551616").is_err());
    assert!(with("bt_header_axon_uuid", &"x".repeat(257)).is_err());
    assert!(with("bt_header_axon_uuid", "a\nb").is_err());
    assert!(with("timeout", "nan").is_err());
    assert!(!ClassicHeaders::present(["name", "timeout", "content-type", "x-bittensor-hotkey"]));
    assert!(ClassicHeaders::present(["name", "Bt_Header_Dendrite_Nonce"]));
}

#[test]
fn refusals_repeat_no_more_of_a_peer_than_a_header_holds() {
    let mut list = signed_by("Bob", NOW, 12.0);
    for (name, value) in &mut list {
        if name.ends_with("_uuid") || name == "computed_body_hash" {
            *value = "u".repeat(256);
        }
        if name.ends_with("_signature") {
            *value = format!("0x{}", "0".repeat(128));
        }
    }
    let message = judge(&headers_of(&list), NOW, "Alice").unwrap_err().message();
    assert!(message.starts_with("Not Verified with error: Signature mismatch with 1795"), "{message}");
    assert!(message.len() <= 700, "{}", message.len());
}

mod nonces {
    use super::*;
    use crate::wire::classic::endpoints::EndpointLimits;

    fn table(total: usize, per_hotkey: usize) -> Endpoints {
        Endpoints::new(EndpointLimits { total, per_hotkey }, ClassicPolicy::default(), NOW - 100 * SECOND)
    }
    fn caller(who: u8, uuid: u8, nonce: u64) -> ClassicCaller {
        ClassicCaller { caller: Caller { hotkey: Hotkey([who; 32]), nonce }, endpoint: [uuid; 16] }
    }

    #[test]
    fn nonces_rise_for_each_caller_and_uuid() {
        let mut t = table(10, 10);
        assert_eq!(t.admit(&caller(1, 1, NOW), NOW), Ok(()));
        assert_eq!(t.look(&caller(1, 1, NOW), NOW), Err(ClassicError::Replayed));
        assert_eq!(t.admit(&caller(1, 1, NOW), NOW), Err(ClassicError::Replayed));
        assert_eq!(t.admit(&caller(1, 1, NOW - 1), NOW), Err(ClassicError::Overtaken));
        assert_eq!(t.admit(&caller(1, 2, NOW - 1), NOW), Ok(()), "another object of the same caller");
        assert_eq!(t.admit(&caller(2, 1, NOW - 1), NOW), Ok(()), "another caller with the same uuid");
        assert_eq!(t.admit(&caller(1, 1, NOW + 1), NOW), Ok(()));
        assert_eq!(t.len(), 3);
    }

    #[test]
    fn a_pair_is_forgotten_only_when_its_nonce_is_stale_for_every_request() {
        let mut t = table(2, 2);
        assert_eq!(t.admit(&caller(1, 1, NOW), NOW), Ok(()));
        assert_eq!(t.admit(&caller(1, 2, NOW + SECOND), NOW), Ok(()));
        assert!(matches!(t.admit(&caller(2, 1, NOW), NOW), Err(ClassicError::Overloaded(_))), "no room");
        let later = NOW + 64 * SECOND;
        assert!(matches!(t.admit(&caller(2, 1, later), later), Err(ClassicError::Overloaded(_))), "still live");
        assert_eq!(t.admit(&caller(2, 1, later), later + 1), Ok(()), "one made room");
        // A worker whose clock is behind cannot let the forgotten one in again.
        assert_eq!(t.admit(&caller(1, 1, NOW), later), Err(ClassicError::Overtaken));
    }

    #[test]
    fn one_hotkey_cannot_take_the_room_of_others() {
        let mut t = table(10, 2);
        assert_eq!(t.admit(&caller(1, 1, NOW), NOW), Ok(()));
        assert_eq!(t.admit(&caller(1, 2, NOW), NOW), Ok(()));
        assert!(matches!(t.admit(&caller(1, 3, NOW), NOW), Err(ClassicError::Overloaded(_))));
        assert_eq!(t.admit(&caller(2, 3, NOW), NOW), Ok(()));
    }

    #[test]
    fn nothing_signed_before_the_start_is_admitted() {
        let mut t = Endpoints::new(EndpointLimits::default(), ClassicPolicy::default(), NOW);
        assert_eq!(t.admit(&caller(1, 1, NOW - 1), NOW), Err(ClassicError::Overtaken));
        assert_eq!(
            t.look(&caller(1, 1, NOW - 1), NOW),
            Err(ClassicError::Overtaken),
            "before any signature is checked"
        );
        assert_eq!(t.admit(&caller(1, 1, NOW), NOW), Ok(()));
    }

    #[test]
    fn a_clock_that_jumps_back_and_forth_lets_nothing_in_again() {
        let hour = 3_600 * SECOND;
        let mut t = table(10, 10);
        assert_eq!(t.admit(&caller(1, 1, NOW), NOW), Ok(()));
        assert_eq!(t.admit(&caller(2, 1, NOW + hour), NOW + hour), Ok(()), "the first is forgotten");
        let served = caller(2, 2, NOW - hour + 10 * SECOND);
        assert_eq!(t.look(&served, NOW - hour), Ok(()), "callers are served again, also at the first look");
        assert_eq!(t.admit(&served, NOW - hour), Ok(()));
        assert_eq!(t.admit(&caller(1, 1, NOW), NOW), Err(ClassicError::Overtaken));
        assert_eq!(t.admit(&caller(1, 1, NOW + 1), NOW + 1), Ok(()));
    }

    #[test]
    fn a_day_of_requests_leaves_the_table_as_small_as_a_minute_of_them() {
        // 256 callers, a fresh uuid each time, every half minute for a day.
        let mut t = table(65_536, 1_024);
        let mut largest = 0;
        for step in 0..2_880u64 {
            let now = NOW + step * 30 * SECOND;
            for who in 0..=255 {
                let mut one = caller(who, 0, now);
                one.endpoint = u128::from(step).to_le_bytes();
                t.admit(&one, now).unwrap();
            }
            largest = largest.max(t.len());
        }
        assert!(largest <= 256 * 4, "{largest}");
    }
}

#[test]
fn bodies_are_told_apart_as_the_sdk_does() {
    assert!(Envelope::<Ping>::read(b"{}").is_ok());
    assert!(Envelope::<Ping>::read(br#"{"timeout": "3", "dendrite": 7, "anything": []}"#).is_ok());
    for not_json in [&b"{"[..], b"nonsense", b"{\"timeout\": NaN}", b"[1", b"\xff"] {
        assert!(matches!(Envelope::<Ping>::read(not_json), Err(BodyError::NotJson { .. })), "{not_json:?}");
    }
    for wrong in [&b""[..], b" ", b"[]", b"7", b"null", br#"{"timeout": "soon"}"#, br#"{"total_size": {}}"#] {
        assert!(matches!(Envelope::<Ping>::read(wrong), Err(BodyError::Fields { .. })), "{wrong:?}");
    }
}
