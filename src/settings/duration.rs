//! Durations as people write them: `90s`, `5m`, `1h 30m`, `250ms`. A bare number has no unit and is refused.

use std::time::Duration;

/// Reads a duration.
///
/// # Errors
/// A text that says what is wrong with it, and shows how a duration is written.
pub fn parse(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return Err(format!("{text:?} has no unit; write \"{text}s\" for seconds, or \"250ms\", \"5m\", \"1h 30m\""));
    }
    humantime::parse_duration(text).map_err(|wrong| {
        format!("{text:?} is not a duration ({wrong}); write for example \"90s\", \"250ms\" or \"1h 30m\"")
    })
}

/// Writes a duration so that [`parse`] reads the same one.
pub fn show(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_written_back() {
        for (text, seconds) in
            [("90s", 90.0), ("5m", 300.0), ("1h 30m", 5_400.0), ("250ms", 0.25), ("2days", 172_800.0)]
        {
            let read = parse(text).unwrap();
            assert_eq!(read.as_secs_f64(), seconds, "{text}");
            assert_eq!(parse(&show(read)), Ok(read), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_is_refused_with_the_way_to_write_it() {
        assert!(parse("90").unwrap_err().contains("\"90s\""));
        assert!(parse("soon").unwrap_err().contains("not a duration"));
        assert!(parse("").is_err());
        assert!(parse("-5s").is_err());
    }
}
