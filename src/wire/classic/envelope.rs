//! The JSON around a synapse's own fields.
//!
//! The SDK sends the whole object: base fields, both terminals, own fields. Of a request only the own fields and a few base
//! fields are read; its `dendrite` and `axon` objects are anybody's word and are ignored. A reply is written in full.

use serde::{Deserialize, Serialize};

use super::headers::Terminal;
use super::{ClassicSynapse, lax};

/// Why a body is not the request expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not JSON: the SDK's server answers 422.
    #[error("not JSON (line {line}, column {column})")]
    NotJson {
        /// Line of the first problem, from 1.
        line: usize,
        /// Column of the first problem, from 1.
        column: usize,
    },
    /// JSON, but a field is missing or of a wrong type: the SDK's server answers 500.
    #[error("not the fields of the class (line {line}, column {column})")]
    Fields {
        /// Line of the first problem, from 1.
        line: usize,
        /// Column of the first problem, from 1.
        column: usize,
    },
}

impl From<serde_json::Error> for BodyError {
    fn from(e: serde_json::Error) -> Self {
        let (line, column) = (e.line(), e.column());
        match e.is_data() {
            true => BodyError::Fields { line, column },
            false => BodyError::NotJson { line, column },
        }
    }
}

/// The base fields of a request that are echoed in its reply. They decide nothing.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Base {
    /// The caller's deadline in seconds.
    #[serde(default = "default_timeout", deserialize_with = "lax::float")]
    pub timeout: f64,
    /// Python's idea of a size.
    #[serde(default, deserialize_with = "lax::int")]
    pub total_size: i64,
    /// Python's idea of a size.
    #[serde(default, deserialize_with = "lax::int")]
    pub header_size: i64,
}

fn default_timeout() -> f64 {
    12.0
}

/// A request's body.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope<S> {
    /// What is echoed.
    pub base: Base,
    /// What is asked.
    pub own: S,
}

impl<S: ClassicSynapse> Envelope<S> {
    /// Reads a body.
    ///
    /// # Errors
    /// [`BodyError`].
    pub fn read(body: &[u8]) -> Result<Self, BodyError> {
        // Structs could be read from lists too, by position.
        if body.trim_ascii_start().first().is_some_and(|b| *b != b'{') {
            serde_json::from_slice::<serde::de::IgnoredAny>(body)?;
            return Err(BodyError::Fields { line: 1, column: 1 });
        }
        if body.trim_ascii().is_empty() {
            return Err(BodyError::Fields { line: 1, column: 1 });
        }
        Ok(Envelope { base: serde_json::from_slice(body)?, own: serde_json::from_slice(body)? })
    }

    /// The body hash of the own fields.
    pub fn body_hash(&self) -> String {
        super::body_hash(&self.own.hashed())
    }
}

/// A terminal as a JSON object, every field of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TerminalJson {
    /// HTTP status.
    pub status_code: Option<u64>,
    /// What it means.
    pub status_message: Option<String>,
    /// Seconds.
    pub process_time: Option<f64>,
    /// Address.
    pub ip: Option<String>,
    /// Port.
    pub port: Option<u64>,
    /// Version integer.
    pub version: Option<u64>,
    /// Nanoseconds.
    pub nonce: Option<u64>,
    /// Names the object.
    pub uuid: Option<String>,
    /// SS58 address.
    pub hotkey: Option<String>,
    /// `0x` and hex.
    pub signature: Option<String>,
}

impl Default for TerminalJson {
    fn default() -> Self {
        TerminalJson::from(&Terminal::default())
    }
}

impl From<&Terminal> for TerminalJson {
    fn from(terminal: &Terminal) -> Self {
        let Terminal { status_code, status_message, ip, port, version, nonce, uuid, hotkey, signature } = terminal;
        TerminalJson {
            status_code: *status_code,
            status_message: status_message.clone(),
            process_time: None,
            ip: ip.clone(),
            port: *port,
            version: *version,
            nonce: *nonce,
            uuid: uuid.clone(),
            hotkey: hotkey.clone(),
            signature: signature.clone(),
        }
    }
}

/// A whole synapse as it is written, request or reply.
#[derive(Debug, Serialize)]
pub struct Whole<'a, S> {
    name: &'static str,
    timeout: f64,
    total_size: i64,
    header_size: i64,
    dendrite: TerminalJson,
    axon: TerminalJson,
    computed_body_hash: &'static str,
    #[serde(flatten)]
    own: &'a S,
}

impl<'a, S: ClassicSynapse> Whole<'a, S> {
    /// `own` with everything around it.
    pub fn new(base: &Base, dendrite: TerminalJson, axon: TerminalJson, own: &'a S) -> Self {
        let Base { timeout, total_size, header_size } = *base;
        Whole { name: S::NAME, timeout, total_size, header_size, dendrite, axon, computed_body_hash: "", own }
    }

    /// Its JSON.
    ///
    /// # Errors
    /// If an own field has no JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

/// The base class, which every axon serves as an echo.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ping {}

impl ClassicSynapse for Ping {
    const NAME: &'static str = "Synapse";
}
