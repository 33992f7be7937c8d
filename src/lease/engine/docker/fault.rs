//! What an answer of the Docker Engine, or its silence, says about what was done.

use std::time::Duration;

use bollard::errors::Error;

use crate::lease::engine::EngineError;

/// Why a call did not succeed, by what is known of its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The call never reached the engine: nothing happened.
    Down(String),
    /// There is no such thing (404): nothing happened.
    Missing(String),
    /// It is in another state than the call needs (409): nothing happened.
    Conflict(String),
    /// The engine says that the call is wrong (other 4xx): nothing happened.
    Refused(String),
    /// The engine tried and failed (5xx): part of it may have happened.
    Failed(String),
    /// The call was sent and no answer was understood: it may still be carried out.
    Silent(String),
}

impl Fault {
    /// What bollard's error means.
    pub(super) fn of(error: Error) -> Self {
        match error {
            Error::DockerResponseServerError { status_code, message } => {
                let message = one_line(&message);
                match status_code {
                    404 => Fault::Missing(message),
                    409 => Fault::Conflict(message),
                    400..=499 => Fault::Refused(message),
                    _ => Fault::Failed(message),
                }
            }
            Error::SocketNotFoundError(path) => {
                Fault::Down(format!("there is no socket at {path}; is Docker installed and running?"))
            }
            Error::HyperLegacyError { err } if err.is_connect() => {
                Fault::Down(format!("nobody answers at its socket ({}); start Docker", chain(&err)))
            }
            Error::DockerStreamError { error } => Fault::Failed(one_line(&error)),
            other => Fault::Silent(one_line(&chain(&other))),
        }
    }

    /// A call that did not end in time.
    pub(super) fn late(limit: Duration) -> Self {
        Fault::Silent(format!("no answer within {limit:?}"))
    }

    /// What the engine said.
    pub(super) fn text(&self) -> &str {
        match self {
            Fault::Down(text)
            | Fault::Missing(text)
            | Fault::Conflict(text)
            | Fault::Refused(text)
            | Fault::Failed(text)
            | Fault::Silent(text) => text,
        }
    }

    /// The error of a call that changes nothing.
    pub(super) fn reading(self, what: &str) -> EngineError {
        match self {
            Fault::Down(why) => EngineError::Unavailable { why, source: None },
            Fault::Silent(why) => EngineError::Unavailable { why: format!("{what}: {why}"), source: None },
            other => EngineError::Refused(format!("{what}: {}", other.text())),
        }
    }

    /// The error of a call that changes something.
    pub(super) fn changing(self, what: &str) -> EngineError {
        match self {
            Fault::Down(why) => EngineError::Unavailable { why, source: None },
            Fault::Missing(why) | Fault::Conflict(why) | Fault::Refused(why) => {
                EngineError::Refused(format!("{what}: {why}"))
            }
            Fault::Failed(why) | Fault::Silent(why) => EngineError::Unclear(format!("{what}: {why}")),
        }
    }

    /// Whether the port that a container was to be published at belongs to somebody else.
    pub(super) fn is_taken_port(&self) -> bool {
        let text = self.text();
        ["port is already allocated", "address already in use"].iter().any(|said| text.contains(said))
    }

    /// Whether the engine itself counts the port as taken, by this container's own endpoint of before or by another's. An
    /// engine with live-restore that was killed in a restart of a container keeps that endpoint's port until it is started
    /// anew; no call gives it up (seen with Docker 20.10).
    pub(super) fn keeps_port(&self) -> bool {
        self.text().contains("port is already allocated")
    }

    /// Whether a network's addresses are in use already.
    pub(super) fn is_taken_subnet(&self) -> bool {
        let text = self.text();
        ["Pool overlaps", "conflicts with network", "overlapping"].iter().any(|said| text.contains(said))
    }
}

/// An error with its causes.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    crate::telemetry::error_chain(error)
}

/// The longest text of the engine that goes into an error.
const MAX_TEXT: usize = 400;

/// A text of the engine as one bounded line.
pub(super) fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TEXT).collect();
    clean.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status_code: u16, message: &str) -> Fault {
        Fault::of(Error::DockerResponseServerError { status_code, message: message.into() })
    }

    #[test]
    fn only_silence_and_a_failure_half_way_leave_the_outcome_of_a_change_open() {
        let nothing_happened = |fault: Fault| fault.changing("start").nothing_happened();
        assert!(nothing_happened(said(404, "no such container")));
        assert!(nothing_happened(said(409, "is paused")));
        assert!(nothing_happened(said(400, "bad parameter")));
        assert!(nothing_happened(Fault::of(Error::SocketNotFoundError("/run/x".into()))));
        assert!(!nothing_happened(said(500, "driver failed")));
        assert!(!nothing_happened(Fault::of(Error::RequestTimeoutError)));
        assert!(!nothing_happened(Fault::late(Duration::from_secs(1))));
    }

    #[test]
    fn a_look_that_fails_changes_nothing_and_says_so() {
        assert!(said(500, "x").reading("list").nothing_happened());
        assert!(matches!(Fault::late(Duration::from_secs(1)).reading("list"), EngineError::Unavailable { .. }));
    }

    #[test]
    fn what_the_engine_says_becomes_one_bounded_line() {
        let text = said(400, &format!("a\nb\u{1b}[31m{}", "x".repeat(10_000))).text().to_owned();
        assert!(text.starts_with("a b [31m") && text.len() <= MAX_TEXT && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_taken_port_is_told_from_other_failures() {
        assert!(said(500, "Bind for 0.0.0.0:4444 failed: port is already allocated").is_taken_port());
        assert!(said(500, "listen tcp4 0.0.0.0:4444: bind: address already in use").is_taken_port());
        assert!(!said(500, "could not select device driver \"nvidia\"").is_taken_port());
        assert!(said(500, "Bind for 0.0.0.0:4444 failed: port is already allocated").keeps_port());
        assert!(!said(500, "listen tcp4 0.0.0.0:4444: bind: address already in use").keeps_port());
    }
}
