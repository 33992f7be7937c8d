//! The headers of a classic request.
//!
//! Names are compared without case, as the SDK's server does. `bt_header_axon_…`, `bt_header_dendrite_…` and
//! `bt_header_input_obj_…` carry one field each; unknown fields and unknown headers are ignored. Each text is bounded, so
//! that what is signed, remembered and echoed is too.

use std::collections::BTreeSet;

use super::error::ClassicError;

/// Names start so where they tell of the receiver.
pub const AXON_PREFIX: &str = "bt_header_axon_";
/// Names start so where they tell of the caller.
pub const DENDRITE_PREFIX: &str = "bt_header_dendrite_";
/// Names start so where they stand for a field without default.
pub const INPUT_PREFIX: &str = "bt_header_input_obj_";
/// Header of the body hash.
pub const BODY_HASH_HEADER: &str = "computed_body_hash";
/// Header of the caller's deadline, in seconds.
pub const TIMEOUT_HEADER: &str = "timeout";

/// Longest value of a header that is kept, in bytes; the SDK's longest is a signature of 130.
const MAX_VALUE: usize = 256;
/// Fields without default that are kept; no known class has as many.
const MAX_INPUTS: usize = 64;

/// base64 of the JSON of a type's zero value, for [`ClassicSynapse::REQUIRED`](super::ClassicSynapse::REQUIRED).
pub mod zero {
    /// `""`
    pub const STR: &str = "IiI=";
    /// `0`
    pub const INT: &str = "MA==";
    /// `0.0`
    pub const FLOAT: &str = "MC4w";
    /// `false`
    pub const BOOL: &str = "ZmFsc2U=";
    /// `[]`
    pub const LIST: &str = "W10=";
    /// `{}`
    pub const DICT: &str = "e30=";
}

/// One side of the exchange, as the headers tell of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terminal {
    /// HTTP status, in replies.
    pub status_code: Option<u64>,
    /// What it means, in replies.
    pub status_message: Option<String>,
    /// Address, as text.
    pub ip: Option<String>,
    /// Port.
    pub port: Option<u64>,
    /// Version integer.
    pub version: Option<u64>,
    /// Nanoseconds, of the wall clock since SDK 7.2.
    pub nonce: Option<u64>,
    /// Names one dendrite or axon object.
    pub uuid: Option<String>,
    /// SS58 address.
    pub hotkey: Option<String>,
    /// `0x` and hex.
    pub signature: Option<String>,
}

/// What the headers of a request say. Nothing of it is proved.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClassicHeaders {
    /// The caller's deadline in seconds; 0 where absent. Finite and not negative.
    pub timeout_s: f64,
    /// The caller.
    pub dendrite: Terminal,
    /// The receiver, as the caller sees it.
    pub axon: Terminal,
    /// The body hash that was signed.
    pub body_hash: Option<String>,
    /// Fields without default for which a header was given.
    pub inputs: BTreeSet<String>,
}

impl ClassicHeaders {
    /// Whether one of these header names belongs to the scheme.
    pub fn present<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
        names.into_iter().any(|name| {
            after(name, DENDRITE_PREFIX).is_some()
                || after(name, AXON_PREFIX).is_some()
                || name.eq_ignore_ascii_case(BODY_HASH_HEADER)
        })
    }

    /// Picks the scheme's headers out of a request's headers.
    ///
    /// # Errors
    /// [`ClassicError::Headers`] if a value is too long, no visible ASCII, no number where one is expected, or given twice.
    pub fn collect<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Self, ClassicError> {
        let mut found = ClassicHeaders::default();
        let mut timeout = None;
        for (name, value) in headers {
            if let Some(field) = after(name, DENDRITE_PREFIX) {
                found.dendrite.set(field, value)?;
            } else if let Some(field) = after(name, AXON_PREFIX) {
                found.axon.set(field, value)?;
            } else if let Some(field) = after(name, INPUT_PREFIX) {
                if found.inputs.len() >= MAX_INPUTS || field.len() > MAX_VALUE {
                    return Err(ClassicError::Headers("too many input objects"));
                }
                found.inputs.insert(field.to_ascii_lowercase());
            } else if name.eq_ignore_ascii_case(BODY_HASH_HEADER) {
                once(&mut found.body_hash, text(value)?)?;
            } else if name.eq_ignore_ascii_case(TIMEOUT_HEADER) {
                let seconds: f64 = text(value)?.parse().map_err(|_| ClassicError::Headers("timeout is no number"))?;
                if !seconds.is_finite() || seconds < 0.0 {
                    return Err(ClassicError::Headers("timeout is no time"));
                }
                once(&mut timeout, seconds)?;
            }
        }
        found.timeout_s = timeout.unwrap_or(0.0);
        Ok(found)
    }
}

impl Terminal {
    fn set(&mut self, field: &str, value: &[u8]) -> Result<(), ClassicError> {
        match field.to_ascii_lowercase().as_str() {
            "status_code" => once(&mut self.status_code, number(value)?),
            "status_message" => once(&mut self.status_message, text(value)?),
            "ip" => once(&mut self.ip, text(value)?),
            "port" => once(&mut self.port, number(value)?),
            "version" => once(&mut self.version, number(value)?),
            "nonce" => once(&mut self.nonce, number(value)?),
            "uuid" => once(&mut self.uuid, text(value)?),
            "hotkey" => once(&mut self.hotkey, text(value)?),
            "signature" => once(&mut self.signature, text(value)?),
            _ => Ok(()),
        }
    }
}

fn after<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = name.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), ClassicError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ClassicError::Headers("given twice")),
    }
}

fn text(value: &[u8]) -> Result<String, ClassicError> {
    if value.len() > MAX_VALUE {
        return Err(ClassicError::Headers("too long"));
    }
    let text = std::str::from_utf8(value).map_err(|_| ClassicError::Headers("no text"))?.trim();
    match text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err(ClassicError::Headers("not visible ASCII")),
    }
}

/// Decimal digits; leading zeros are allowed, as Python's `int` has it.
fn number(value: &[u8]) -> Result<u64, ClassicError> {
    let text = text(value)?;
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ClassicError::Headers("no number"));
    }
    text.parse().map_err(|_| ClassicError::Headers("number too large"))
}
