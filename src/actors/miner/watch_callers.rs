//! Hears of every request at the axon: counts it, and has whoever misbehaves too much penalised.
//!
//! Invariants: it runs in the HTTP workers and waits for nothing but one short lock; what it keeps is bounded
//! ([`anomaly`](crate::admission::anomaly)); a penalty is the guard's to give, who is told at most once for each subject,
//! kind and window. If the guard has no time, the penalty comes with the next window.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::actors::blacklist_guard::BlacklistGuard;
use crate::admission::anomaly::Finding;
use crate::admission::{Anomalies, AnomalyLimits, Seen, Snapshot, Subject};
use crate::clock::SharedClock;
use crate::messages::blacklist_guard::Penalise;
use crate::runtime::Handle;
use crate::settings::Live;
use crate::store::records::PenaltyRecord;
use crate::telemetry::NodeMetrics;
use crate::wire::axon::{AxonEvents, AxonOutcome, RequestSeen};

/// Addresses that may have a penalty at once before no further one is penalised by itself. More are no flood from
/// somewhere but from everywhere, which a list of addresses does not stop.
const MAX_PENALISED_ADDRESSES: usize = 4096;

/// What it works with.
pub struct WatchCallersSetup {
    /// This node's addresses, never penalised.
    pub own: Vec<IpAddr>,
    /// What is too much.
    pub limits: Live<AnomalyLimits>,
    /// Gives the penalties.
    pub guard: Handle<BlacklistGuard>,
    /// The guard's last word.
    pub snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// See the module.
pub struct WatchCallers {
    setup: WatchCallersSetup,
    state: Mutex<State>,
}

struct State {
    anomalies: Anomalies,
    /// When it was last logged that a penalty could not be given.
    complained_ms: u64,
}

impl WatchCallers {
    /// Nobody seen yet.
    pub fn new(setup: WatchCallersSetup) -> Self {
        let anomalies = Anomalies::new(setup.own.iter().copied());
        WatchCallers { setup, state: Mutex::new(State { anomalies, complained_ms: 0 }) }
    }

    fn penalise(&self, state: &mut State, limits: &AnomalyLimits, now_ms: u64, finding: &Finding) {
        let full = matches!(finding.subject, Subject::Address(_))
            && self
                .setup
                .snapshot
                .borrow()
                .as_ref()
                .is_some_and(|s| s.address_penalties.len() >= MAX_PENALISED_ADDRESSES);
        let problem = if full {
            Some(format!("{MAX_PENALISED_ADDRESSES} addresses have a penalty already"))
        } else {
            let penalty = PenaltyRecord {
                subject: finding.subject,
                reason: finding.anomaly.label().to_owned(),
                detail: finding.detail(),
                from_ms: now_ms,
                until_ms: now_ms.saturating_add(limits.penalty_ms),
            };
            self.setup.guard.tell(Penalise(penalty)).err().map(|error| error.to_string())
        };
        // One line a window: an attacker must not be able to fill the log.
        if let Some(problem) = problem
            && state.complained_ms.abs_diff(now_ms) >= limits.window_ms
        {
            state.complained_ms = now_ms;
            tracing::warn!(subject = %finding.subject, problem, "no penalty for a caller that misbehaves");
        }
    }
}

/// What a request was, if that matters. Everything that depends on clocks, load, policy or the network says nothing of
/// the caller: stale requests, a wrong receiver, slow or broken bodies, refusals.
fn seen(anomalies: &Anomalies, request: &RequestSeen<'_>) -> Option<Seen> {
    let from = || request.peer.and_then(|ip| anomalies.held_against(ip));
    match request.outcome {
        AxonOutcome::Ok => from().map(|from| Seen::Good { from }),
        AxonOutcome::BadSignature | AxonOutcome::MalformedAuth | AxonOutcome::BodyHash => {
            from().map(|from| Seen::BadSignature { from })
        }
        AxonOutcome::ReplayedRequest => from().map(|from| Seen::Replay { from }),
        AxonOutcome::MalformedBody => {
            request.caller.filter(|_| request.body_signed).map(|by| Seen::Malformed { by: *by })
        }
        _ => None,
    }
}

impl AxonEvents for WatchCallers {
    fn request(&self, request: RequestSeen<'_>) {
        self.setup.metrics.axon_request(request.path, request.outcome.label());
        let limits = self.setup.limits.get();
        let now_ms = self.setup.clock.now_ms();
        // A panic inside would leave a count that is one off.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = seen(&state.anomalies, &request) else { return };
        if let Some(finding) = state.anomalies.see(&limits, now_ms, seen) {
            self.penalise(&mut state, &limits, now_ms, &finding);
        }
    }
}

#[cfg(test)]
mod tests;
