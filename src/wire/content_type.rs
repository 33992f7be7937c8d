//! What a content type says of a body.

/// `application/json` or `application/…+json`, with or without parameters.
pub(super) fn is_json(value: &[u8]) -> bool {
    let essence = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    essence.strip_prefix(b"application/").is_some_and(|sub| sub == b"json" || sub.ends_with(b"+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_everything_else() {
        for json in ["application/json", "Application/JSON ; charset=utf-8", " application/problem+json"] {
            assert!(is_json(json.as_bytes()), "{json}");
        }
        for other in
            ["", "json", "text/json", "application/jsonp", "application/x-json", "text/plain; application/json"]
        {
            assert!(!is_json(other.as_bytes()), "{other}");
        }
    }
}
