//! Lines of what was looked at on this machine, for people and programs, each with what to do.

use std::fmt::Write as _;

use serde::Serialize;

use crate::scoring::decimal;

/// How a line stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::launch) enum Status {
    /// Nothing is to be done.
    Ok,
    /// A validator would not mind, or not yet; the operator should.
    Warn,
    /// It costs the machine its pass, or a part of its score.
    Fail,
}

impl Status {
    fn text(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warn => "WARN",
            Status::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::launch) struct Line {
    /// What: stable names, a device's with the device in front (`GPU-… rate`).
    pub check: String,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What it was compared with; empty where it is compared with nothing.
    pub against: String,
    /// What to do; empty for [`Status::Ok`].
    pub remedy: String,
}

impl Line {
    /// A line that needs nothing done.
    pub(in crate::launch) fn ok(check: impl Into<String>, found: impl Into<String>) -> Self {
        let (check, found) = (check.into(), found.into());
        Line { check, status: Status::Ok, found, against: String::new(), remedy: String::new() }
    }

    /// The same, compared with this.
    #[must_use]
    pub(in crate::launch) fn against(self, against: impl Into<String>) -> Self {
        Line { against: against.into(), ..self }
    }

    /// The same as a warning, or as a failure, with what to do.
    #[must_use]
    pub(in crate::launch) fn needs(self, status: Status, remedy: impl Into<String>) -> Self {
        Line { status, remedy: remedy.into(), ..self }
    }
}

/// The lines below one another, as people read them.
pub(in crate::launch) fn table(lines: &[Line]) -> String {
    let width = |of: fn(&Line) -> &str| lines.iter().map(|line| of(line).chars().count()).max().unwrap_or(0);
    let (checks, found) = (width(|line| &line.check), width(|line| &line.found).min(48));
    let mut out = String::new();
    for Line { check, status, found: text, against, remedy } in lines {
        // Writing to a String cannot fail, here and below.
        let line = format!("{:<5} {check:<checks$}  {text:<found$}  {against}", status.text());
        let _ = writeln!(out, "{}", line.trim_end());
        for (number, part) in remedy.lines().enumerate() {
            let _ = writeln!(out, "      {} {part}", if number == 0 { "->" } else { "  " });
        }
    }
    out
}

/// Bytes as people read them.
pub(in crate::launch) fn gib(bytes: u64) -> String {
    format!("{} GiB", decimal(u128::from(bytes) * 10 / (1 << 30), 1, 1))
}
