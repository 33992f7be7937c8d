//! Who sent a classic request, as its signature proves.

use std::time::Duration;

use blake2::digest::consts::U16;
use blake2::{Blake2b, Digest};

use super::error::ClassicError;
use super::headers::ClassicHeaders;
use crate::ids::{Hotkey, ParseIdError};
use crate::wallet::verify as verify_signature;
use crate::wire::btauth::Caller;

/// The freshness window of classic requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClassicPolicy {
    /// A nonce may be this old, and as much older as the request's own timeout says, up to `max_timeout`.
    pub max_age: Duration,
    /// The part of a request's timeout that counts. The SDK counts all of it, though it is not signed.
    pub max_timeout: Duration,
    /// A nonce may lie this far ahead of our clock.
    pub max_ahead: Duration,
}

impl Default for ClassicPolicy {
    /// The SDK's 4 s, timeouts up to 60 s, 10 s ahead.
    fn default() -> Self {
        ClassicPolicy {
            max_age: Duration::from_secs(4),
            max_timeout: Duration::from_secs(60),
            max_ahead: Duration::from_secs(10),
        }
    }
}

impl ClassicPolicy {
    /// The age allowed to a request with this timeout, in seconds.
    pub fn allowed_age(&self, timeout_s: f64) -> Duration {
        let timeout = Duration::try_from_secs_f64(timeout_s).unwrap_or(self.max_timeout);
        self.max_age + timeout.min(self.max_timeout)
    }

    /// The age beyond which every request is stale.
    pub fn longest_age(&self) -> Duration {
        self.max_age + self.max_timeout
    }
}

/// A proved caller, and which of its endpoints: nonces rise for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassicCaller {
    /// Who.
    pub caller: Caller,
    /// BLAKE2b-128 of the uuid's text.
    pub endpoint: [u8; 16],
}

fn endpoint_of(uuid: &str) -> [u8; 16] {
    Blake2b::<U16>::digest(uuid.as_bytes()).into()
}

/// What classic headers beside a proved `btauth/1` request would be worth without it. Neither scheme signs the other's
/// headers, so whoever sees such a request could take the first away and send the rest again, with another body and to
/// another route: what is admitted under the one is used up under the other.
///
/// None if the rest is no classic request.
///
/// # Errors
/// [`ClassicError::Headers`] if it could be read in two ways, or names another nonce or hotkey than the proved one.
pub fn twin(headers: &ClassicHeaders, proved: &Caller) -> Result<Option<ClassicCaller>, ClassicError> {
    let from = &headers.dendrite;
    let (Some(_), Some(uuid)) = (&from.signature, from.uuid.as_deref()) else { return Ok(None) };
    let same = from.nonce == Some(proved.nonce)
        && from.hotkey.as_deref().is_some_and(|address| address.parse() == Ok(proved.hotkey));
    match same {
        true => Ok(Some(ClassicCaller { caller: *proved, endpoint: endpoint_of(uuid) })),
        false => Err(ClassicError::Headers("not the nonce and hotkey of the btauth/1 headers beside")),
    }
}

/// What stands in the headers, complete and fresh, before the signature was looked at: nobody's word yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// Who, if the signature holds.
    pub caller: ClassicCaller,
    signature: String,
    message: String,
}

/// Checks that everything is there and fresh. `now_ns` is the wall clock in nanoseconds since the Unix epoch, `us` the
/// hotkey that serves. Cheap: what it refuses costs no signature check.
///
/// # Errors
/// The first thing that is wrong, in the order nonce, signature, uuid, body hash, caller, freshness.
pub fn check_shape(
    headers: &ClassicHeaders,
    now_ns: u64,
    us: &Hotkey,
    policy: &ClassicPolicy,
) -> Result<Claimed, ClassicError> {
    let from = &headers.dendrite;
    let nonce = from.nonce.ok_or(ClassicError::MissingNonce)?;
    let signature = from.signature.clone().ok_or(ClassicError::MissingSignature)?;
    let uuid = from.uuid.as_deref().ok_or(ClassicError::MissingUuid)?;
    let body_hash = headers.body_hash.as_deref().ok_or(ClassicError::MissingBodyHash)?;
    let address = from.hotkey.as_deref().filter(|text| !text.is_empty()).ok_or(ClassicError::MissingHotkey)?;
    let hotkey: Hotkey = address.parse().map_err(|e: ParseIdError| {
        ClassicError::BadHotkey(match e {
            ParseIdError::AddressLength(_) => "Length is bad",
            ParseIdError::AddressChecksum => "Checksum is bad",
            ParseIdError::AddressFormat(_) => "Format is not 42",
            _ => "Not base58",
        })
    })?;
    check_freshness(nonce, headers.timeout_s, now_ns, policy)?;
    // The message is rebuilt from what was parsed: the nonce as a number, our own hotkey in the receiver's place.
    let message = format!("{nonce}.{address}.{us}.{uuid}.{body_hash}");
    let endpoint = endpoint_of(uuid);
    Ok(Claimed { caller: ClassicCaller { caller: Caller { hotkey, nonce }, endpoint }, signature, message })
}

/// Checks the signature.
///
/// # Errors
/// [`ClassicError::SignatureFormat`], [`ClassicError::SignatureLength`] or [`ClassicError::SignatureMismatch`].
pub fn verify(claimed: Claimed) -> Result<ClassicCaller, ClassicError> {
    let Claimed { caller, signature, message } = claimed;
    let digits = signature.strip_prefix("0x").ok_or(ClassicError::SignatureFormat)?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(ClassicError::SignatureFormat);
    }
    let mut bytes = [0u8; 64];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| ClassicError::SignatureLength)?;
    match verify_signature(&caller.caller.hotkey, message.as_bytes(), &bytes) {
        true => Ok(caller),
        false => Err(ClassicError::SignatureMismatch { message, signature }),
    }
}

fn check_freshness(nonce: u64, timeout_s: f64, now_ns: u64, policy: &ClassicPolicy) -> Result<(), ClassicError> {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let allowed = policy.allowed_age(timeout_s);
    let age = now_ns.saturating_sub(nonce);
    if u128::from(age) >= allowed.as_nanos() {
        return Err(ClassicError::TooOld { allowed_s: allowed.as_secs_f64(), age_s: seconds(age) });
    }
    let ahead = nonce.saturating_sub(now_ns);
    if u128::from(ahead) > policy.max_ahead.as_nanos() {
        return Err(ClassicError::TooFarAhead { allowed_s: policy.max_ahead.as_secs_f64(), ahead_s: seconds(ahead) });
    }
    Ok(())
}
