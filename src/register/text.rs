//! Text for people: aligned tables, times, durations.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Rows in columns as wide as their widest cell, two spaces between them. The first row is the heading.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// A heading or a row of a table.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// A time as RFC 3339 text, UTC.
pub(super) fn time(at_ms: u64) -> String {
    // Past the year 9999 the formatter refuses; no clock of ours gets there.
    let at = UNIX_EPOCH.checked_add(Duration::from_millis(at_ms)).unwrap_or(UNIX_EPOCH);
    if at_ms > 253_402_300_799_000 { "never".to_owned() } else { humantime::format_rfc3339_seconds(at).to_string() }
}

/// The wall clock, in milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// How far away a time is, in whole seconds: `in 5m`, `2h 3s ago`.
pub(super) fn away(at_ms: u64, now_ms: u64) -> String {
    let seconds = |ms: u64| humantime::format_duration(Duration::from_secs(ms / 1000)).to_string();
    if at_ms >= now_ms { format!("in {}", seconds(at_ms - now_ms)) } else { format!("{} ago", seconds(now_ms - at_ms)) }
}

/// A value that may be missing.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [row(["uid", "name"]), row(["1", "a miner"]), row(["1234", "x"])];
        assert_eq!(columns(&rows), "uid   name\n1     a miner\n1234  x\n");
    }

    #[test]
    fn times_are_told_from_now_and_never_fail() {
        assert_eq!(away(65_000, 5_000), "in 1m");
        assert_eq!(away(5_000, 65_500), "1m ago");
        assert_eq!(time(1_700_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(time(u64::MAX), "never");
    }
}
