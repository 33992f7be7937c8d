//! The script: which call meets which fault.

use std::time::Duration;

use serde_json::Value;

use super::chain::Refusal;

/// What happens instead of the right answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// The connection is reset, before the call has any effect.
    Drop,
    /// The call has its effect, and the connection is reset instead of an answer.
    DropAfter,
    /// No answer; everything else goes on.
    Silence,
    /// No answer, and nothing ever again on this connection, which stays open.
    Stall,
    /// The right answer, so much later; others overtake it.
    Slow(Duration),
    /// An answer that is no JSON.
    Garbage,
    /// Bytes that are no WebSocket.
    BrokenFrames,
    /// The right answer to a request that was never made.
    WrongId,
    /// The right id with the result of another call.
    AnswerOf(&'static str),
    /// The right answer, twice.
    Twice,
    /// A result of so many bytes.
    Oversized(usize),
    /// This error; the call has no effect.
    Refuse(Refusal),
    /// This result; the call has no effect.
    Result(Value),
    /// A subscription that is accepted and never says anything.
    SilentSubscription,
    /// A subscription that is accepted, says these and ends.
    EndedSubscription(Vec<Value>),
    /// A subscription that says these and nothing else, and stays open.
    Says(Vec<Value>),
}

#[derive(Debug)]
struct Rule {
    method: &'static str,
    skip: usize,
    times: usize,
    fault: Fault,
}

#[derive(Debug, Default)]
pub(super) struct Script(Vec<Rule>);

impl Script {
    pub(super) fn add(&mut self, method: &'static str, skip: usize, times: usize, fault: Fault) {
        self.0.push(Rule { method, skip, times, fault });
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The fault that this call meets.
    pub(super) fn take(&mut self, method: &str) -> Option<Fault> {
        for rule in self.0.iter_mut().filter(|rule| rule.times > 0 && (rule.method == "*" || rule.method == method)) {
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            rule.times -= 1;
            return Some(rule.fault.clone());
        }
        None
    }
}
