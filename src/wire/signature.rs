//! The text of signatures in headers: `0x` and 128 hex digits; the prefix may be missing in what peers send.

/// A signature's text.
pub(super) fn show_signature(signature: &[u8; 64]) -> String {
    format!("0x{}", hex::encode(signature))
}

/// The signature of a text; `None` for anything but its 64 bytes.
pub(super) fn parse_signature(text: &str) -> Option<[u8; 64]> {
    let mut signature = [0u8; 64];
    hex::decode_to_slice(text.strip_prefix("0x").unwrap_or(text), &mut signature).ok()?;
    Some(signature)
}
