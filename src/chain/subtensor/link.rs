//! The way to the chain: several endpoints, of which one is used at a time.
//!
//! Invariants: every call ends within its deadline, whatever the endpoints do; there is one connection at most; a list of
//! dead endpoints is tried again and again with a growing pause, and callers in the pause hear at once why there is nothing.
//!
//! Design notes: connecting is done by whoever needs a connection, under a lock that others wait for no longer than their
//! own deadline. Which endpoint is next is noted before it is tried: an attempt that is given up half-way does not come
//! again first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::rpc::RpcCounts;
use super::session::{Session, Terms};
use crate::chain::ChainError;
use crate::ids::Hash32;
use crate::runtime::Backoff;

/// How the chain is reached.
#[derive(Debug, Clone)]
pub struct LinkSettings {
    /// WebSocket addresses, at least one; the first is tried first.
    pub endpoints: Vec<String>,
    /// The chain's genesis, if it must be that one.
    pub genesis: Option<Hash32>,
    /// Chains that it must not be.
    pub never: Vec<Hash32>,
    /// Longest wait for one answer.
    pub deadline: Duration,
    /// A head that stands still for longer makes the next endpoint worth a try.
    pub stalled_after: Duration,
    /// Pause after all endpoints failed.
    pub retry: Backoff,
}

/// See the module's text.
#[derive(Debug)]
pub struct Link {
    settings: LinkSettings,
    counts: RpcCounts,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<Session>>,
    /// Which endpoint is next.
    next: usize,
    /// Tried in a row without success.
    failures: usize,
    not_before: Option<Instant>,
    last_error: Option<String>,
    /// The first chain that was seen: another one is never followed.
    genesis: Option<Hash32>,
    /// Connections made since the start.
    made: u64,
}

impl Link {
    /// A link that connects when it is first needed.
    pub fn new(settings: LinkSettings) -> Self {
        let genesis = settings.genesis;
        Link { settings, counts: RpcCounts::default(), state: Mutex::new(State { genesis, ..State::default() }) }
    }

    /// What was called how often.
    pub fn counts(&self) -> &RpcCounts {
        &self.counts
    }

    /// Longest wait for a read, connecting included: every endpoint may let its deadline pass, in connecting or in any of
    /// the few questions that a connection begins with.
    pub fn patience(&self) -> Duration {
        let endpoints = u32::try_from(self.settings.endpoints.len()).unwrap_or(u32::MAX);
        self.settings.deadline.saturating_mul(endpoints.saturating_add(1))
    }

    /// A session that was in order a moment ago.
    ///
    /// # Errors
    /// [`ChainError::Unreachable`] with what the endpoints said, at once while the pause after a failure lasts.
    pub(super) async fn session(&self) -> Result<Arc<Session>, ChainError> {
        let mut state = self.state.lock().await;
        if let Some(session) = &state.session {
            match session.condemnation() {
                None => return Ok(session.clone()),
                Some(why) => {
                    tracing::warn!(endpoint = session.endpoint, why, "the connection to the chain is given up");
                    state.session = None;
                }
            }
        }
        if state.not_before.is_some_and(|at| Instant::now() < at) {
            let why = state.last_error.clone().unwrap_or_default();
            return Err(ChainError::Unreachable(why));
        }
        let count = self.settings.endpoints.len();
        for _ in 0..count {
            let Some(endpoint) = self.settings.endpoints.get(state.next % count.max(1)) else { break };
            state.next = (state.next + 1) % count;
            let terms = Terms {
                deadline: self.settings.deadline,
                stalled_after: self.settings.stalled_after,
                genesis: state.genesis,
                never: self.settings.never.clone(),
                counts: self.counts.clone(),
            };
            match Session::open(endpoint, terms).await {
                Ok(session) => {
                    tracing::info!(
                        endpoint = session.endpoint,
                        block = session.heads().best.number,
                        spec = session.runtime().spec_version(),
                        genesis = %session.genesis,
                        "connected to the chain"
                    );
                    state.genesis = Some(session.genesis);
                    (state.failures, state.not_before, state.last_error) = (0, None, None);
                    state.made += 1;
                    state.session = Some(session.clone());
                    return Ok(session);
                }
                Err(error) => {
                    let why = crate::telemetry::error_chain(&error);
                    let endpoint = crate::telemetry::redact_url(endpoint);
                    tracing::debug!(endpoint, why, "no connection to this endpoint of the chain");
                    state.last_error = Some(format!("{endpoint}: {why}"));
                }
            }
        }
        state.failures += 1;
        state.not_before = Some(Instant::now() + self.settings.retry.delay(state.failures, 0.0, 0.0));
        Err(ChainError::Unreachable(state.last_error.clone().unwrap_or_else(|| "no endpoint is configured".to_owned())))
    }

    /// Connections made since the start.
    pub async fn connections(&self) -> u64 {
        self.state.lock().await.made
    }
}
