//! The text that `/metrics` serves.

use prometheus::{Registry, TextEncoder};

/// The content type of [`encode`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why metrics could not be written as text: a collector returned an empty or inconsistent family.
#[derive(Debug, thiserror::Error)]
#[error("metrics could not be encoded")]
pub struct EncodeError(#[source] prometheus::Error);

/// All series of a registry in Prometheus' text format. Reading `/proc` for the process figures blocks for a fraction
/// of a millisecond; everything else is memory.
///
/// # Errors
/// [`EncodeError`] if a collector of the registry is faulty.
pub fn encode(registry: &Registry) -> Result<String, EncodeError> {
    let families = registry.gather();
    // A histogram's line is about 100 bytes; growing a string this long copies it several times.
    let mut text = String::with_capacity(256 * 1024);
    TextEncoder::new().encode_utf8(&families, &mut text).map_err(EncodeError)?;
    text.shrink_to_fit();
    Ok(text)
}
