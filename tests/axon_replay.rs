//! Every captured request of the real SDKs, byte for byte, against an axon of ours.
//!
//! The captures hold what axons of bittensor 9.0.0, 10.5.0 and of the original subnet (9.0.0) answered, and one request
//! that 10.4.1 accepts. Ours must answer with the same status and text, and where it answers 200, with the same fields in
//! the same order. Where it deliberately does not, [`DIFFERENT`] says so and why: that table is the whole list.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Route, guard, web};
use compute_subnet::clock::ManualClock;
use compute_subnet::ids::Hotkey;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::axon::{
    AdmissionRefusal, AxonGate, Declined, GateRules, NoEvents, handle_classic, method_not_allowed, not_found,
};
use compute_subnet::wire::classic::headers::zero;
use compute_subnet::wire::classic::{ClassicSynapse, Ping, PyValue, lax, path};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CAPTURES: [(&str, &str); 3] = [
    ("9.0.0", include_str!("vectors/axon/sdk_9.0.0.json")),
    ("10.5.0", include_str!("vectors/axon/sdk_10.5.0.json")),
    ("compute 9.0.0", include_str!("vectors/axon/compute_subnet_9.0.0.json")),
];
const UNSIGNED: &str = include_str!("vectors/axon/axon_10.4.1_unsigned_accepted.json");

const SECOND: u64 = 1_000_000_000;
/// Midnight of the day of the captures.
const DAY: u64 = 1_795_305_600 * SECOND;
/// Longer than any answer takes.
const LONG: Duration = Duration::from_secs(20);
/// How long nothing must come where the capture has nothing.
const SILENT: Duration = Duration::from_millis(150);

/// Where we answer differently on purpose: case, captures it concerns (empty: all), our status, our text, why.
const DIFFERENT: &[(&str, &[&str], u16, &str, &str)] = &[
    (
        "raw_nonce_future_1h_ok",
        &[],
        401,
        "Not Verified with error: Nonce is in the future",
        "future nonces are refused",
    ),
    ("raw_old_version_old_nonce_ok", &[], 401, "Not Verified with error: Nonce is too old", FRESHNESS),
    ("raw_no_version_ok", &[], 401, "Not Verified with error: Nonce is too old", FRESHNESS),
    ("raw_huge_timeout_header_ok", &[], 401, "Not Verified with error: Nonce is too old", FRESHNESS),
    ("raw_missing_uuid", &[], 401, "Not Verified with error: Missing UUID", INCOMPLETE),
    ("raw_missing_computed_body_hash", &[], 401, "Not Verified with error: Missing Body Hash", INCOMPLETE),
    ("raw_missing_signature", &["9.0.0", "compute 9.0.0"], 401, "Not Verified with error: Missing Signature", WORDS),
    ("raw_short_signature_401", &["9.0.0", "compute 9.0.0"], 401, "Not Verified with error: Invalid SR25519", WORDS),
    (
        "unsigned",
        &[],
        401,
        "Not Verified with error: Missing Signature",
        "unsigned requests are refused, as before and after 10.4.1",
    ),
    (
        "raw_bytes_wrapped_signature",
        &[],
        401,
        "Not Verified with error: Signature mismatch with",
        "`<Bytes>` is not tried",
    ),
    ("raw_no_content_type", &["10.5.0"], 200, "", "JSON without a content type is read, as the FastAPI of 9.0.0 does"),
    ("ok_streaming", &[], 404, "Synapse name 'Stream' not found.", "no streaming synapse is served"),
    ("err_verify_fn_custom_401", &[], 200, "", HOOKS),
    ("err_priority_timeout_408", &[], 200, "", HOOKS),
    ("err_priority_crash_500", &[], 200, "", HOOKS),
    ("err_blacklist_reason_non_latin1", &[], 403, "Forbidden. Key is blacklisted:", "a reason with any text is told"),
    ("err_blacklist_fn_crash_500", &["compute 9.0.0"], 500, "Internal Server Error #", DROPPED),
    ("err_forward_crash_500", &["compute 9.0.0"], 500, "Internal Server Error #", DROPPED),
    ("raw_body_hash_mismatch_500", &["compute 9.0.0"], 500, "Internal Server Error #", DROPPED),
    ("raw_body_missing_required_field", &["compute 9.0.0"], 500, "Internal Server Error #", DROPPED),
    ("raw_body_wrong_type", &["compute 9.0.0"], 500, "Internal Server Error #", DROPPED),
    ("raw_body_empty", &["compute 9.0.0"], 500, "Internal Server Error #", DROPPED),
    ("raw_text_content_type", &["compute 9.0.0"], 500, "Internal Server Error #", DROPPED),
    ("raw_get_without_body", &["compute 9.0.0"], 500, "Internal Server Error #", DROPPED),
];
const FRESHNESS: &str = "neither version nor timeout is signed: neither switches freshness off";
const INCOMPLETE: &str = "everything that is signed must be there";
const WORDS: &str = "one text for all, that of 10.5.0";
const HOOKS: &str = "there is no such hook here";
const DROPPED: &str = "the original drops the connection here (its status-100 bug)";

/// A class of the captures: its fields with their defaults, and what its handler answers.
macro_rules! class {
    ($name:ident { $($(#[$attr:meta])* $field:ident: $type:ty),* $(,)? } $($rest:tt)*) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        struct $name { $($(#[$attr])* $field: $type),* }
        impl ClassicSynapse for $name {
            const NAME: &'static str = stringify!($name);
            $($rest)*
        }
    };
}

fn half() -> f64 {
    0.5
}
fn yes() -> bool {
    true
}
fn list() -> PyValue {
    PyValue::List(Vec::new())
}
fn none() -> PyValue {
    PyValue::None
}

class! {
    HashedVector {
        text: String,
        #[serde(deserialize_with = "lax::int")]
        number: i64,
        #[serde(default = "half", deserialize_with = "lax::float")]
        ratio: f64,
        #[serde(default = "yes", deserialize_with = "lax::boolean")]
        flag: bool,
        #[serde(default = "list")]
        items: PyValue,
        #[serde(default = "PyValue::dict")]
        mapping: PyValue,
        #[serde(default = "none")]
        maybe: PyValue,
        #[serde(default = "PyValue::dict")]
        output: PyValue,
    }
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("text", zero::STR), ("number", zero::INT)];
    fn hashed(&self) -> Vec<PyValue> {
        let HashedVector { text, number, ratio, flag, items, mapping, maybe, .. } = self.clone();
        vec![text.as_str().into(), number.into(), ratio.into(), flag.into(), items, mapping, maybe]
    }
}

class! {
    LegacyHashed {
        #[serde(default = "list")]
        required_hash_fields: PyValue,
        #[serde(default)]
        b: String,
        #[serde(default, deserialize_with = "lax::int")]
        a: i64,
        #[serde(default)]
        out: String,
    }
    /// In the order of the class's fields, whatever the order of the list is.
    fn hashed(&self) -> Vec<PyValue> {
        vec![self.b.as_str().into(), self.a.into()]
    }
}

macro_rules! with_x {
    ($($name:ident)*) => {
        $(class! { $name { #[serde(default, deserialize_with = "lax::int")] x: i64 } })*
    };
}
with_x! { Blacklisted BlacklistCrash VerifyCustom PrioTimeout PrioCrash ForwardCrash ForwardStatus UnicodeReason Slow }

class! {
    Allocate {
        timeline: PyValue,
        device_requirement: PyValue,
        checking: PyValue,
        output: PyValue,
        public_key: PyValue,
        docker_requirement: PyValue,
        docker_change: PyValue,
        docker_action: PyValue,
    }
}
class! {
    Challenge {
        challenge_hash: PyValue,
        challenge_salt: PyValue,
        challenge_mode: PyValue,
        challenge_chars: PyValue,
        challenge_mask: PyValue,
        challenge_difficulty: PyValue,
        output: PyValue,
    }
}
class! { Specs { specs_input: PyValue, specs_output: PyValue } }

/// What the captures' handlers and hooks do with a class.
trait Answers: ClassicSynapse {
    fn admission(_: &Hotkey) -> Result<(), AdmissionRefusal> {
        Ok(())
    }
    async fn answer(self) -> Result<Self, Declined<Self>> {
        Ok(self)
    }
}

fn dict(items: &[(&str, PyValue)]) -> PyValue {
    PyValue::Dict(items.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn forbidden(detail: &str) -> Result<(), AdmissionRefusal> {
    Err(AdmissionRefusal::Forbidden { reason: "denied", detail: detail.to_owned() })
}

impl Answers for Ping {}
impl Answers for VerifyCustom {}
impl Answers for PrioTimeout {}
impl Answers for PrioCrash {}
impl Answers for HashedVector {
    async fn answer(self) -> Result<Self, Declined<Self>> {
        let output = dict(&[("echo", self.text.as_str().into()), ("sum", (self.number + 1).into())]);
        Ok(HashedVector { output, ..self })
    }
}
impl Answers for LegacyHashed {
    async fn answer(self) -> Result<Self, Declined<Self>> {
        Ok(LegacyHashed { out: format!("{}-{}", self.b, self.a), ..self })
    }
}
impl Answers for Blacklisted {
    fn admission(_: &Hotkey) -> Result<(), AdmissionRefusal> {
        forbidden("Unrecognized hotkey")
    }
}
impl Answers for UnicodeReason {
    fn admission(_: &Hotkey) -> Result<(), AdmissionRefusal> {
        forbidden("verboten ✗")
    }
}
impl Answers for BlacklistCrash {
    fn admission(_: &Hotkey) -> Result<(), AdmissionRefusal> {
        panic!("a hook's bug")
    }
}
impl Answers for ForwardCrash {
    async fn answer(self) -> Result<Self, Declined<Self>> {
        panic!("a handler's bug")
    }
}
impl Answers for ForwardStatus {
    async fn answer(self) -> Result<Self, Declined<Self>> {
        Err(Declined::With { status: 429, message: "Busy".to_owned(), synapse: self })
    }
}
impl Answers for Slow {
    async fn answer(self) -> Result<Self, Declined<Self>> {
        std::future::pending().await
    }
}
impl Answers for Allocate {
    async fn answer(self) -> Result<Self, Declined<Self>> {
        Ok(Allocate { output: dict(&[("status", true.into()), ("info", "ok".into())]), ..self })
    }
}
impl Answers for Challenge {
    async fn answer(self) -> Result<Self, Declined<Self>> {
        let output =
            [("password", "hunter2".into()), ("local_execution_time", 1.25.into()), ("hashrate", 1234.5.into())];
        Ok(Challenge { output: dict(&output), ..self })
    }
}
impl Answers for Specs {
    async fn answer(self) -> Result<Self, Declined<Self>> {
        Ok(Specs { specs_output: "{}".into(), ..self })
    }
}

type Gate = web::Data<AxonGate>;

async fn serve<S: Answers>(gate: Gate, request: HttpRequest, body: web::Payload) -> HttpResponse {
    handle_classic(&gate, request, body, S::admission, |_, synapse: S| synapse.answer()).await
}

async fn unknown(gate: Gate, request: HttpRequest, body: web::Payload) -> HttpResponse {
    not_found(&gate, request, body, &["Synapse", "HashedVector"]).await
}

async fn other_method(gate: Gate, request: HttpRequest, body: web::Payload) -> HttpResponse {
    method_not_allowed(&gate, request, body).await
}

fn class<S: Answers>(config: &mut web::ServiceConfig) {
    let route = || -> Route { web::route().to(serve::<S>) };
    let resource = web::resource(path::<S>()).route(route().guard(guard::Post())).route(route().guard(guard::Get()));
    config.service(resource.default_service(web::to(other_method)));
}

fn classes(config: &mut web::ServiceConfig) {
    class::<Ping>(config);
    class::<HashedVector>(config);
    class::<LegacyHashed>(config);
    class::<Blacklisted>(config);
    class::<BlacklistCrash>(config);
    class::<VerifyCustom>(config);
    class::<PrioTimeout>(config);
    class::<PrioCrash>(config);
    class::<ForwardCrash>(config);
    class::<ForwardStatus>(config);
    class::<UnicodeReason>(config);
    class::<Slow>(config);
    class::<Allocate>(config);
    class::<Challenge>(config);
    class::<Specs>(config);
    config.default_service(web::to(unknown));
}

/// An axon of //Alice that was started before the captures.
fn start() -> (SocketAddr, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at_ns(DAY));
    let gate =
        AxonGate::new(Keypair::from_uri("//Alice").unwrap(), clock.clone(), GateRules::default(), Arc::new(NoEvents));
    let gate = web::Data::new(gate);
    let server = HttpServer::new(move || App::new().app_data(gate.clone()).configure(classes));
    let server = server.workers(1).disable_signals().bind(("127.0.0.1", 0)).unwrap();
    let at = server.addrs()[0];
    tokio::task::spawn_local(server.run());
    (at, clock)
}

/// The time of a capture: what its refusal tells of the nonce's age, else the second that its reply names, else `last`.
fn captured_at(case: &Value, last: u64) -> u64 {
    let nonce = || -> u64 { header(&case["request"], "bt_header_dendrite_nonce").unwrap().parse().unwrap() };
    let response = &case["response"];
    if let Some((_, rest)) = message(response).unwrap_or_default().split_once("but request was ") {
        let seconds: f64 = rest.split(' ').next().unwrap().parse().unwrap();
        return nonce() + (seconds * 1e9) as u64;
    }
    let Some(date) = header(response, "date") else { return last };
    assert!(date.starts_with("Sun, 22 Nov 2026 "), "{date}");
    let of_day: Vec<u64> = date[17..25].split(':').map(|part| part.parse().unwrap()).collect();
    DAY + (of_day[0] * 3600 + of_day[1] * 60 + of_day[2]) * SECOND
}

fn header(message: &Value, name: &str) -> Option<String> {
    let headers = message["headers"].as_array()?;
    let found = headers.iter().find(|h| h[0].as_str().unwrap().eq_ignore_ascii_case(name))?;
    Some(found[1].as_str().unwrap().to_owned())
}

fn message(response: &Value) -> Option<String> {
    Some(response["body_json"]["message"].as_str()?.to_owned())
}

fn status(response: &Value) -> Option<u16> {
    response["start_line"].as_str()?.split(' ').nth(1)?.parse().ok()
}

struct Answered {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answered {
    fn message(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends bytes and reads one reply; none if nothing comes.
async fn exchange(at: SocketAddr, bytes: &[u8], wait: Duration) -> Option<Answered> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut got = Vec::new();
    let read = async {
        loop {
            if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8(got[..end].to_vec()).unwrap();
                let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")).unwrap_or("0");
                let length: usize = length.parse().unwrap();
                if got.len() >= end + 4 + length {
                    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                    return Answered { status, head, body: got[end + 4..].to_vec() };
                }
            }
            assert_ne!(stream.read_buf(&mut got).await.unwrap(), 0, "closed without an answer");
        }
    };
    tokio::time::timeout(wait, read).await.ok()
}

fn bytes(request: &Value) -> Vec<u8> {
    base64(request["raw_b64"].as_str().unwrap())
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for digit in text.bytes().filter(|b| *b != b'=') {
        held = held << 6 | DIGITS.iter().position(|d| *d == digit).unwrap() as u32;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits) as u8);
            held &= (1 << bits) - 1;
        }
    }
    out
}

/// A text without the number that names one failure, and without the names that depend on what else is served.
fn class_of(text: &str) -> String {
    let text = text.split(" #").next().unwrap();
    text.split("Available synapses").next().unwrap().trim().to_owned()
}

fn items(value: &PyValue) -> &[(String, PyValue)] {
    match value {
        PyValue::Dict(items) => items,
        other => panic!("no object: {other:?}"),
    }
}

fn keys(value: &PyValue) -> Vec<&str> {
    items(value).iter().map(|(key, _)| key.as_str()).collect()
}

fn at<'a>(value: &'a PyValue, key: &str) -> &'a PyValue {
    &items(value).iter().find(|(k, _)| k == key).unwrap().1
}

/// A whole synapse has the captured one's fields in their order, and the same own fields.
fn same_synapse(id: &str, ours: &[u8], theirs: &Value) {
    let ours: PyValue = serde_json::from_slice(ours).unwrap();
    let theirs: PyValue = serde_json::from_str(theirs["body_text"].as_str().unwrap()).unwrap();
    assert_eq!(keys(&ours), keys(&theirs), "{id}");
    for terminal in ["dendrite", "axon"] {
        assert_eq!(keys(at(&ours, terminal)), keys(at(&theirs, terminal)), "{id}: {terminal}");
    }
    for field in ["status_code", "status_message"] {
        assert_eq!(at(at(&ours, "axon"), field), at(at(&theirs, "axon"), field), "{id}: {field}");
    }
    for (key, value) in items(&theirs).iter().filter(|(key, _)| key != "dendrite" && key != "axon") {
        assert_eq!(at(&ours, key), value, "{id}: {key}");
    }
}

/// The reply has the captured headers of the scheme. A refusal has no proof of the axon, which nobody reads, and no
/// fields, so nothing that stands for them.
fn same_headers(id: &str, ours: &Answered, theirs: &Value) {
    let left_out = ["bt_header_axon_signature", "bt_header_axon_nonce", "bt_header_axon_uuid"];
    for header in theirs["headers"].as_array().unwrap() {
        let name = header[0].as_str().unwrap();
        let of_fields = ours.status == 401 && name.starts_with("bt_header_input_obj_");
        if name.starts_with("bt_header_") && !of_fields && !left_out.contains(&name) {
            assert!(ours.head.contains(&format!("\r\n{name}: ")), "{id}: no {name} in {}", ours.head);
        }
    }
}

#[actix_web::test]
async fn every_captured_request_is_answered_as_captured_or_as_the_table_says() {
    let (mut same, mut different) = (0, BTreeMap::<&str, usize>::new());
    let mut used = BTreeSet::new();
    let (mut without_request, mut wrong) = (0, Vec::new());
    let mut cases: Vec<(&str, Vec<Value>)> = Vec::new();
    for (name, capture) in CAPTURES {
        let capture: Value = serde_json::from_str(capture).unwrap();
        cases.push((name, capture["vectors"].as_array().unwrap().clone()));
    }
    let mut unsigned = serde_json::from_str::<Value>(UNSIGNED).unwrap()["vector"].clone();
    unsigned["id"] = "unsigned".into();
    cases.push(("10.4.1", vec![unsigned]));

    for (capture, cases) in &cases {
        let (address, clock) = start();
        let mut now = DAY;
        for case in cases {
            let id = case["id"].as_str().unwrap();
            if case.get("request").is_none() {
                without_request += 1;
                continue;
            }
            now = captured_at(case, now);
            clock.set_ns(now);
            let (response, name) = (&case["response"], format!("{capture} {id}"));
            let row = DIFFERENT.iter().find(|row| row.0 == id && (row.1.is_empty() || row.1.contains(capture)));
            let silent = status(response).is_none() && row.is_none();
            let answered = exchange(address, &bytes(&case["request"]), if silent { SILENT } else { LONG }).await;
            match (answered, row) {
                (None, _) if silent => same += 1,
                (None, _) => wrong.push(format!("{name}: no answer")),
                (Some(ours), Some((_, _, status, text, why))) => {
                    used.insert(id);
                    *different.entry(*why).or_default() += 1;
                    if ours.status != *status || !ours.message().starts_with(text) {
                        wrong.push(format!(
                            "{name}: {} {:?}, the table says {status} {text:?}",
                            ours.status,
                            ours.message()
                        ));
                    }
                }
                (Some(ours), None) => {
                    let (expected, text) = (status(response), message(response).unwrap_or_default());
                    if Some(ours.status) != expected || class_of(&ours.message()) != class_of(&text) {
                        wrong.push(format!(
                            "{name}: {} {:?}, captured {expected:?} {text:?}",
                            ours.status,
                            ours.message()
                        ));
                        continue;
                    }
                    same += 1;
                    if ours.status == 200 || ours.status == 429 {
                        same_synapse(&name, &ours.body, response);
                        same_headers(&name, &ours, response);
                    }
                    if ours.status == 401 {
                        same_headers(&name, &ours, response);
                    }
                    if ours.status == 422 || ours.status == 405 {
                        let ours: Value = serde_json::from_slice(&ours.body).unwrap();
                        let (ours, theirs) = (&ours["detail"], &response["body_json"]["detail"]);
                        assert!(ours == theirs || ours[0]["type"] == theirs[0]["type"], "{name}: {ours}");
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let replayed = same + different.values().sum::<usize>();
    println!("replayed {replayed}, same {same}, without a request {without_request}");
    for (why, count) in &different {
        println!("different {count}: {why}");
    }
    assert_eq!((replayed, without_request), (66 + 66 + 70 + 1 - 3, 3));
    let unused: Vec<_> = DIFFERENT.iter().filter(|row| !used.contains(row.0)).map(|row| row.0).collect();
    assert!(unused.is_empty(), "in the table, but never seen: {unused:?}");
}

/// What a Python dendrite of 9.0.0 and 10.5.0 makes of a reply's shape: the status it ends with. The rules are read off the
/// canned replies that the real dendrites judged; [`a_python_dendrite_accepts_our_replies`] first holds them to those.
fn dendrite_status(status: u16, head: &str, body: &[u8]) -> Option<u64> {
    // Names are compared as they stand: other case or dashes are other headers.
    let header = |name: &str| head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "));
    if head.lines().any(|line| line.len() > 8_190 + 64) {
        return Some(400);
    }
    let json = header("content-type").is_some_and(|v| v.split(';').next() == Some("application/json"));
    let body: Option<Value> = serde_json::from_slice(body).ok();
    let Some(body) = body.filter(|body| json && body.is_object()) else { return Some(422) };
    if status != 200 {
        return Some(u64::from(status));
    }
    // A field of a wrong type, or null, is refused by the class.
    if body.get("output").is_some_and(|output| !output.is_object()) {
        return Some(422);
    }
    match header("bt_header_axon_status_code") {
        Some(code) => Some(code.parse().unwrap_or(422)),
        None => body["axon"]["status_code"].as_u64(),
    }
}

#[actix_web::test]
async fn a_python_dendrite_accepts_our_replies() {
    let mut judged = 0;
    for capture in [
        include_str!("vectors/axon/dendrite_vs_stub_9.0.0.json"),
        include_str!("vectors/axon/dendrite_vs_stub_10.5.0.json"),
    ] {
        let capture: Value = serde_json::from_str(capture).unwrap();
        for case in capture["cases"].as_array().unwrap() {
            let (id, reply) = (case["id"].as_str().unwrap(), base64(case["response_b64"].as_str().unwrap()));
            // What breaks off, is chunked or no HTTP is no shape of ours.
            if ["close_without_response", "garbage", "truncated_body", "chunked_body", "redirect_307"].contains(&id) {
                continue;
            }
            let end = reply.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
            let head = std::str::from_utf8(&reply[..end]).unwrap();
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            let expected = case["result"]["dendrite_status_code"].as_u64();
            assert_eq!(dendrite_status(status, head, &reply[end + 4..]), expected, "{id}");
            judged += 1;
        }
    }
    assert_eq!(judged, 2 * 28);

    let capture: Value = serde_json::from_str(CAPTURES[1].1).unwrap();
    let (address, clock) = start();
    let mut now = DAY;
    for (id, expected) in [
        ("ok_hashed_fields", 200),
        ("ok_base_synapse", 200),
        ("err_unknown_synapse_404", 404),
        ("err_blacklisted_403", 403),
        ("forward_sets_status_429", 429),
        ("err_blacklist_reason_non_latin1", 403),
        ("raw_bad_signature_401", 401),
        ("raw_body_hash_mismatch_500", 500),
    ] {
        let case = capture["vectors"].as_array().unwrap().iter().find(|case| case["id"] == id).unwrap();
        now = captured_at(case, now);
        clock.set_ns(now);
        let ours = exchange(address, &bytes(&case["request"]), LONG).await.unwrap();
        assert_eq!(dendrite_status(ours.status, &ours.head, &ours.body), Some(expected), "{id}");
        let one_line = |line: &str| line.len() <= 8_190 && line.is_ascii();
        assert!(ours.head.lines().all(one_line), "{id}: {}", ours.head);
    }
}
