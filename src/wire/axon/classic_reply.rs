//! Replies in the form of the SDK's axon.
//!
//! What a reply says of the caller is what its signature proved (in a refusal: what it claimed) and the address it came
//! from; nothing of the body's `dendrite` object comes back. Header values are visible ASCII of bounded length: a Python
//! client refuses a reply with longer ones, and the SDK's own server breaks on other bytes.
//!
//! Unlike the SDK, a refusal is not signed by the axon: nobody checks that signature, and making one costs as much as the
//! request that was refused.

use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use actix_web::web::Payload;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use tokio::time::Instant;

use super::body::respond;
use super::gate::AxonGate;
use crate::wire::btauth::Caller;
use crate::wire::classic::envelope::{TerminalJson, Whole};
use crate::wire::classic::headers::INPUT_PREFIX;
use crate::wire::classic::{Base, ClassicHeaders, ClassicSynapse, Terminal, body_hash};
use crate::wire::reply::{REPLY_SIGNATURE_HEADER, sign_reply};

/// Longest value of a header, in bytes: aiohttp takes 8,190.
const MAX_VALUE: usize = 4_096;

macro_rules! names {
    ($($name:ident = $text:literal;)*) => { $(static $name: HeaderName = HeaderName::from_static($text);)* };
}

names! {
    NAME = "name";
    TIMEOUT = "timeout";
    HEADER_SIZE = "header_size";
    TOTAL_SIZE = "total_size";
    BODY_HASH = "computed_body_hash";
    AXON_STATUS_CODE = "bt_header_axon_status_code";
    AXON_STATUS_MESSAGE = "bt_header_axon_status_message";
    AXON_PROCESS_TIME = "bt_header_axon_process_time";
    AXON_IP = "bt_header_axon_ip";
    AXON_PORT = "bt_header_axon_port";
    AXON_VERSION = "bt_header_axon_version";
    AXON_HOTKEY = "bt_header_axon_hotkey";
    DENDRITE_IP = "bt_header_dendrite_ip";
    DENDRITE_PORT = "bt_header_dendrite_port";
    DENDRITE_VERSION = "bt_header_dendrite_version";
    DENDRITE_NONCE = "bt_header_dendrite_nonce";
    DENDRITE_UUID = "bt_header_dendrite_uuid";
    DENDRITE_HOTKEY = "bt_header_dendrite_hotkey";
    DENDRITE_SIGNATURE = "bt_header_dendrite_signature";
}

/// What a reply repeats of its request.
pub(super) struct Echo {
    timeout_s: f64,
    dendrite: Terminal,
    axon_ip: Option<String>,
    axon_port: Option<u64>,
}

impl Echo {
    /// Of a classic request.
    pub(super) fn of(request: &HttpRequest, headers: Option<&ClassicHeaders>) -> Self {
        let (ip, port) = peer(request);
        let Some(headers) = headers else {
            let dendrite = Terminal { ip, port, ..Terminal::default() };
            return Echo { timeout_s: 0.0, dendrite, axon_ip: None, axon_port: None };
        };
        let Terminal { version, nonce, uuid, hotkey, signature, .. } = headers.dendrite.clone();
        let dendrite =
            Terminal { status_code: None, status_message: None, ip, port, version, nonce, uuid, hotkey, signature };
        let (axon_ip, axon_port) = (headers.axon.ip.clone(), headers.axon.port);
        Echo { timeout_s: headers.timeout_s, dendrite, axon_ip, axon_port }
    }

    /// Of a request under `btauth/1`.
    pub(super) fn of_btauth(request: &HttpRequest, caller: &Caller) -> Self {
        let (ip, port) = peer(request);
        let (nonce, hotkey) = (Some(caller.nonce), Some(caller.hotkey.to_string()));
        let dendrite = Terminal { ip, port, nonce, hotkey, ..Terminal::default() };
        Echo { timeout_s: 0.0, dendrite, axon_ip: None, axon_port: None }
    }
}

fn peer(request: &HttpRequest) -> (Option<String>, Option<u64>) {
    let peer = request.peer_addr();
    (peer.map(|p| p.ip().to_canonical().to_string()), peer.map(|p| u64::from(p.port())))
}

/// Answers one request.
pub(super) struct Reply<'a> {
    pub(super) gate: &'a AxonGate,
    pub(super) name: &'static str,
    pub(super) started: Instant,
    pub(super) echo: Echo,
}

impl Reply<'_> {
    /// A refusal: a text and no synapse.
    pub(super) fn error(
        &self,
        status: u16,
        message: &str,
        retry_after_s: Option<u16>,
        unread: Option<Payload>,
    ) -> HttpResponse {
        let body = serde_json::to_vec(&serde_json::json!({ "message": message })).unwrap_or_default();
        let mut response = self.head(status, message, self.started.elapsed().as_secs_f64());
        put(&mut response, &TIMEOUT, &format!("{:?}", self.echo.timeout_s));
        put(&mut response, &AXON_VERSION, &self.gate.rules.version.to_string());
        if let Some(seconds) = retry_after_s {
            response.insert_header((RETRY_AFTER, u64::from(seconds)));
        }
        respond(response, body, unread)
    }

    /// FastAPI's refusal of a body that is not JSON.
    pub(super) fn not_json(&self, line: usize, column: usize) -> HttpResponse {
        let error = format!("not JSON at line {line}, column {column}");
        let body = serde_json::json!({ "detail": [{
            "type": "json_invalid", "loc": ["body", column], "msg": "JSON decode error", "input": {}, "ctx": { "error": error },
        }] });
        HttpResponse::UnprocessableEntity().json(body)
    }

    /// The whole synapse.
    pub(super) fn whole<S: ClassicSynapse>(
        &self,
        status: u16,
        message: &str,
        base: &Base,
        own: &S,
    ) -> Result<HttpResponse, serde_json::Error> {
        let (mut response, body) = self.encoded(status, message, base, own)?;
        Ok(response.body(body))
    }

    /// The whole synapse, signed for a caller of `btauth/1`.
    pub(super) fn whole_signed<S: ClassicSynapse>(
        &self,
        status: u16,
        message: &str,
        base: &Base,
        own: &S,
        caller: &Caller,
    ) -> Result<HttpResponse, serde_json::Error> {
        let (mut response, body) = self.encoded(status, message, base, own)?;
        let signature = sign_reply(&self.gate.keypair, status, &body, caller.nonce, &caller.hotkey);
        response.insert_header((REPLY_SIGNATURE_HEADER, signature));
        Ok(response.body(body))
    }

    fn encoded<S: ClassicSynapse>(
        &self,
        status: u16,
        message: &str,
        base: &Base,
        own: &S,
    ) -> Result<(HttpResponseBuilder, Vec<u8>), serde_json::Error> {
        let process_time = self.started.elapsed().as_secs_f64();
        let axon = TerminalJson {
            status_code: Some(u64::from(status)),
            status_message: Some(message.to_owned()),
            process_time: Some(process_time),
            ip: self.echo.axon_ip.clone(),
            port: self.echo.axon_port,
            hotkey: Some(self.gate.address.clone()),
            ..TerminalJson::default()
        };
        let body = Whole::new(base, TerminalJson::from(&self.echo.dendrite), axon, own).encode()?;
        let mut response = self.head(status, message, process_time);
        put(&mut response, &TIMEOUT, &format!("{:?}", base.timeout));
        for (field, zero) in S::REQUIRED {
            response.insert_header((format!("{INPUT_PREFIX}{field}"), *zero));
        }
        put(&mut response, &HEADER_SIZE, &base.header_size.to_string());
        put(&mut response, &TOTAL_SIZE, &base.total_size.to_string());
        put(&mut response, &BODY_HASH, &body_hash(&own.hashed()));
        Ok((response, body))
    }

    /// What all replies with the scheme's headers have.
    fn head(&self, status: u16, message: &str, process_time: f64) -> HttpResponseBuilder {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = HttpResponseBuilder::new(status);
        response.insert_header((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        response.insert_header((NAME.clone(), HeaderValue::from_static(self.name)));
        put(&mut response, &AXON_STATUS_CODE, status.as_str());
        put(&mut response, &AXON_STATUS_MESSAGE, message);
        put(&mut response, &AXON_PROCESS_TIME, &process_time.to_string());
        put(&mut response, &AXON_HOTKEY, &self.gate.address);
        let mut some = |name: &HeaderName, value: Option<&str>| {
            if let Some(value) = value {
                put(&mut response, name, value);
            }
        };
        let Echo { dendrite, axon_ip, axon_port, .. } = &self.echo;
        let number = |value: Option<u64>| value.map(|v| v.to_string());
        some(&AXON_IP, axon_ip.as_deref());
        some(&AXON_PORT, number(*axon_port).as_deref());
        some(&DENDRITE_IP, dendrite.ip.as_deref());
        some(&DENDRITE_PORT, number(dendrite.port).as_deref());
        some(&DENDRITE_VERSION, number(dendrite.version).as_deref());
        some(&DENDRITE_NONCE, number(dendrite.nonce).as_deref());
        some(&DENDRITE_UUID, dendrite.uuid.as_deref());
        some(&DENDRITE_HOTKEY, dendrite.hotkey.as_deref());
        some(&DENDRITE_SIGNATURE, dendrite.signature.as_deref());
        response
    }
}

fn put(response: &mut HttpResponseBuilder, name: &HeaderName, value: &str) {
    let visible = |b: u8| b == b' ' || b.is_ascii_graphic();
    let value = match value.len() <= MAX_VALUE && value.bytes().all(visible) {
        true => HeaderValue::from_str(value),
        false => {
            let shown =
                value.chars().take(MAX_VALUE).map(|c| u8::try_from(c).ok().filter(|b| visible(*b)).unwrap_or(b'?'));
            HeaderValue::from_bytes(&shown.collect::<Vec<_>>())
        }
    };
    if let Ok(value) = value {
        response.insert_header((name.clone(), value));
    }
}

/// A fresh uuid of version 4, which names one failure in our log.
pub(super) fn error_id() -> String {
    let mut bytes = [0u8; 16];
    if getrandom::fill(&mut bytes).is_err() {
        return "unknown".to_owned(); // no randomness: the text says nothing, the refusal stands
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
