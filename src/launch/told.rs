//! What a command that looks at this machine tells: its report on standard output, its complaints on standard error.

use std::io::Write as _;

use serde::Serialize;

/// Prints a report, as one JSON object or as people read it.
pub(super) fn say<R: Serialize>(report: &R, text: impl FnOnce(&R) -> String, json: bool) {
    let text = match json {
        true => serde_json::to_string_pretty(report).map(|text| text + "\n").unwrap_or_else(|error| {
            complain(&format!("the report cannot be written as JSON: {error}"));
            String::new()
        }),
        false => text(report),
    };
    let _ = std::io::stdout().lock().write_all(text.as_bytes()); // a closed pipe is no reason to fail
}

/// Says what is wrong.
pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
