//! What may be written into a log, a metric or a reply: nothing secret, nothing that changes a terminal.

/// A URL without user name, password, query and fragment: the parts that hold secrets. Text that is no URL comes back
/// without anything before an `@` and after a `?` or `#`.
pub fn redact_url(url: &str) -> String {
    let (scheme, rest) = match url.find("://") {
        Some(at) => url.split_at(at + 3),
        None => ("", url),
    };
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let authority_end = rest.find('/').unwrap_or(end).min(end);
    let host_start = rest[..authority_end].rfind('@').map_or(0, |at| at + 1);
    let mut out = String::with_capacity(url.len());
    out.push_str(scheme);
    out.push_str(&rest[host_start..end]);
    if end < rest.len() {
        out.push_str("?[REDACTED]");
    }
    out
}

/// A chain's endpoint as scheme, host and port: some providers have the key of their customer in the path. Of text that is no
/// address nothing is shown.
pub fn redact_endpoint(endpoint: &str) -> String {
    let shown = |url: reqwest::Url| {
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        Some(format!("{}://{host}:{port}", url.scheme()))
    };
    endpoint.trim().parse().ok().and_then(shown).unwrap_or_else(|| "[REDACTED]".to_owned())
}

/// Outside text as one printable line of at most `max_bytes` bytes: control characters (line ends, terminal escapes)
/// become `?`, a cut is marked with `…`.
pub fn printable(text: &str, max_bytes: usize) -> String {
    let clean = |c: char| if c.is_control() || is_bidi_control(c) { '?' } else { c };
    if text.len() <= max_bytes {
        return text.chars().map(clean).collect();
    }
    let mark = '…';
    let mut out = String::with_capacity(max_bytes);
    for c in text.chars().map(clean) {
        if out.len() + c.len_utf8() + mark.len_utf8() > max_bytes {
            break;
        }
        out.push(c);
    }
    if mark.len_utf8() <= max_bytes {
        out.push(mark);
    }
    out
}

/// Characters that reorder the text around them on a screen.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn credentials_and_queries_are_not_in_a_redacted_url() {
        for (url, expected) in [
            ("https://user:pass@host:8443/path?token=1#x", "https://host:8443/path?[REDACTED]"),
            ("wss://entrypoint-finney.opentensor.ai:443", "wss://entrypoint-finney.opentensor.ai:443"),
            ("https://host?key=a/b@c", "https://host?[REDACTED]"),
            ("https://a@b@host/x@y", "https://host/x@y"),
            ("user:pass@host/path", "host/path"),
            ("http://h/#secret", "http://h/?[REDACTED]"),
        ] {
            assert_eq!(redact_url(url), expected);
        }
    }

    #[test]
    fn an_endpoint_is_shown_without_the_path_that_may_hold_a_key() {
        for (endpoint, expected) in [
            ("wss://entrypoint-finney.opentensor.ai:443", "wss://entrypoint-finney.opentensor.ai:443"),
            ("wss://user:pass@host/v1/KEY?k=KEY#KEY", "wss://host:443"),
            ("ws://[::1]:9944/KEY", "ws://[::1]:9944"),
            ("http://127.0.0.1:9950/", "http://127.0.0.1:9950"),
            ("wss://user:KEY/x@host", "[REDACTED]"),
            ("host/KEY", "[REDACTED]"),
            ("", "[REDACTED]"),
        ] {
            assert_eq!(redact_endpoint(endpoint), expected, "{endpoint}");
        }
    }

    #[test]
    fn outside_text_cannot_start_a_line_or_colour_a_terminal() {
        assert_eq!(printable("a\nb\u{1b}[31mc\u{202e}", 100), "a?b?[31mc?");
        assert_eq!(printable("abcdefgh", 6), "abc…");
        assert_eq!(printable("abcdef", 6), "abcdef");
    }

    proptest! {
        #[test]
        fn printable_text_keeps_its_bound(text in "\\PC*|.*", max in 0usize..64) {
            let out = printable(&text, max);
            prop_assert!(out.len() <= max);
            prop_assert!(!out.chars().any(char::is_control));
        }
        #[test]
        fn no_secret_survives_redaction(user in "[a-z]{6}", secret in "[A-Z]{8}", host in "[a-z]{3}\\.[a-z]{2}") {
            for url in [format!("https://{user}:{secret}@{host}/p"), format!("https://{host}/p?k={secret}")] {
                prop_assert!(!redact_url(&url).contains(&secret));
                prop_assert!(!redact_endpoint(&url).contains(&secret));
            }
            let url = format!("wss://{host}/{secret}");
            prop_assert_eq!(redact_endpoint(&url), format!("wss://{host}:443"));
        }
    }
}
