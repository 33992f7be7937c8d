//! The way to the chain: several endpoints, of which one is used at a time.
//!
//! Invariants: every call ends within its deadline, whatever the endpoints do; there is one connection at most; a list of
//! dead endpoints is tried again and again with a growing pause, and callers in the pause hear at once why there is nothing.
//!
//! Design notes: connecting begins when somebody needs a connection, and is then done by a task of its own, on the runtime
//! that all threads share: a caller who gives up early does not end the attempt, so that one whose patience is shorter than
//! a slow node's greeting finds the connection made when it comes again. Callers wait for the one attempt that is under way;
//! no lock is held while anything is waited for.
//!
//! The endpoint in use stays in use until it fails, also where it is not the first of the list: all of them are the same
//! chain, and a change costs a connection. Then the next one in the list is tried first, the failed one last. Whichever is
//! tried, an endpoint that greets well and then breaks before it told of a single head counts as a failure like one that
//! does not greet, or a node behind it would be connected to in a loop without a pause.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::rpc::RpcCounts;
use super::session::{OPENING, Session, Tally, Terms};
use crate::chain::ChainError;
use crate::chain::vitals::Vitals;
use crate::ids::Hash32;
use crate::runtime::Backoff;
use crate::telemetry::redact_endpoint;

/// Answers that a read may need of a connection that is there.
const ANSWERS: u32 = 4;

/// How the chain is reached.
#[derive(Clone)]
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

/// Without what may be secret in the endpoints.
impl std::fmt::Debug for LinkSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let LinkSettings { endpoints, genesis, never, deadline, stalled_after, retry } = self;
        let endpoints: Vec<String> = endpoints.iter().map(|endpoint| redact_endpoint(endpoint)).collect();
        f.debug_struct("LinkSettings")
            .field("endpoints", &endpoints)
            .field("genesis", genesis)
            .field("never", never)
            .field("deadline", deadline)
            .field("stalled_after", stalled_after)
            .field("retry", retry)
            .finish()
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    settings: LinkSettings,
    tally: Tally,
    // Held for a few assignments at a time, never while anything is waited for.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<(usize, Arc<Session>)>,
    connecting: Option<Connecting>,
    /// Which endpoint is next.
    next: usize,
    /// Rounds of all endpoints, or connections that were of no use, in a row.
    failures: usize,
    not_before: Option<Instant>,
    last_error: Option<String>,
    /// The first chain that was seen: another one is never followed.
    genesis: Option<Hash32>,
    /// Connections made, and endpoints that did not let us, since the start.
    connected: u64,
    failed: u64,
}

/// An attempt that is under way, and where its end is told.
#[derive(Debug)]
struct Connecting {
    told: watch::Receiver<Option<Answer>>,
    task: AbortHandle,
}

type Answer = Result<Arc<Session>, ChainError>;

/// What a caller who needs a session finds.
enum Found {
    Now(Answer),
    Soon(watch::Receiver<Option<Answer>>),
}

impl Link {
    /// A link that connects when it is first needed.
    pub fn new(settings: LinkSettings) -> Self {
        let state = Mutex::new(State { genesis: settings.genesis, ..State::default() });
        Link { shared: Arc::new(Shared { settings, tally: Tally::default(), state }) }
    }

    /// What was called how often.
    pub fn counts(&self) -> &RpcCounts {
        &self.shared.tally.calls
    }

    /// Longest wait for a read: each endpoint may take its whole time to greet, and each answer its deadline.
    pub fn patience(&self) -> Duration {
        let endpoints = u32::try_from(self.shared.settings.endpoints.len()).unwrap_or(u32::MAX);
        self.shared.settings.deadline.saturating_mul(endpoints.saturating_mul(OPENING).saturating_add(ANSWERS))
    }

    /// Longest wait for one answer.
    pub(super) fn deadline(&self) -> Duration {
        self.shared.settings.deadline
    }

    /// A session that was in order a moment ago. The caller holds the deadline: what is under way goes on without it.
    ///
    /// # Errors
    /// [`ChainError::Unreachable`] with what the endpoints said, at once while the pause after a failure lasts.
    pub(super) async fn session(&self) -> Result<Arc<Session>, ChainError> {
        let mut told = match self.shared.find() {
            Found::Now(answer) => return answer,
            Found::Soon(told) => told,
        };
        let answer = told.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
        answer.unwrap_or_else(|| Err(ChainError::Unreachable("the attempt to connect was given up".to_owned())))
    }

    /// What is to be told of the connections.
    pub fn vitals(&self) -> Vitals {
        let state = self.shared.state();
        let session = state.session.as_ref().filter(|(_, session)| session.condemnation().is_none());
        Vitals {
            calls: self.shared.tally.calls.all(),
            connected: state.connected,
            failed: state.failed,
            ended: self.shared.tally.all_ended(),
            endpoint: session.map(|(endpoint, _)| endpoint + 1),
            head_age: session.map(|(_, session)| session.heads().since.elapsed()),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(connecting) = self.shared.state().connecting.take() {
            connecting.task.abort();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, the attempt that is under way, a new one, or why there is none of them now.
    fn find(self: &Arc<Self>) -> Found {
        let mut state = self.state();
        if let Some((_, session)) = &state.session {
            let Some(condemned) = session.condemnation() else { return Found::Now(Ok(session.clone())) };
            let why = condemned.why;
            tracing::warn!(endpoint = session.endpoint, why, "the connection to the chain is given up");
            let failures = if session.has_moved() { 0 } else { state.failures + 1 };
            state.last_error = Some(format!("{}: {why}", session.endpoint));
            state.session = None;
            state.failures = failures;
            // Once it is tried again at once: most connections that end can be made again.
            state.not_before = (failures > 1).then(|| Instant::now() + self.pause(failures - 1));
        }
        // One that ended without a word, because its runtime did.
        state.connecting.take_if(|attempt| attempt.task.is_finished() && attempt.told.borrow().is_none());
        if let Some(connecting) = &state.connecting {
            return Found::Soon(connecting.told.clone());
        }
        if state.not_before.is_some_and(|at| Instant::now() < at) {
            return Found::Now(Err(ChainError::Unreachable(state.last_error.clone().unwrap_or_default())));
        }
        let (tell, told) = watch::channel(None);
        let shared = self.clone();
        let task = tokio::spawn(async move {
            let answer = shared.connect().await;
            shared.state().connecting = None;
            tell.send_replace(Some(answer));
        });
        state.connecting = Some(Connecting { told: told.clone(), task: task.abort_handle() });
        Found::Soon(told)
    }

    fn pause(&self, failures: usize) -> Duration {
        self.settings.retry.delay(failures, 0.0, 0.0)
    }

    /// Tries each endpoint once.
    async fn connect(&self) -> Answer {
        let settings = &self.settings;
        let mut said = Vec::with_capacity(settings.endpoints.len());
        for _ in 0..settings.endpoints.len() {
            let (at, genesis) = {
                let mut state = self.state();
                let at = state.next % settings.endpoints.len();
                state.next = at + 1;
                (at, state.genesis)
            };
            let Some(endpoint) = settings.endpoints.get(at) else { break };
            let terms = Terms {
                deadline: settings.deadline,
                stalled_after: settings.stalled_after,
                genesis,
                never: settings.never.clone(),
                tally: self.tally.clone(),
            };
            let opened = Session::open(endpoint, terms).await;
            let mut state = self.state();
            match opened {
                Ok(session) => {
                    tracing::info!(
                        endpoint = session.endpoint,
                        block = session.heads().best.number,
                        spec = session.runtime().spec_version(),
                        genesis = %session.genesis,
                        "connected to the chain"
                    );
                    state.genesis = Some(session.genesis);
                    state.not_before = None;
                    state.connected += 1;
                    state.session = Some((at, session.clone()));
                    return Ok(session);
                }
                Err(error) => {
                    let why = crate::telemetry::error_chain(&error);
                    let endpoint = redact_endpoint(endpoint);
                    tracing::debug!(endpoint, why, "no connection to this endpoint of the chain");
                    state.failed += 1;
                    said.push(format!("{endpoint}: {why}"));
                }
            }
        }
        let mut state = self.state();
        state.failures += 1;
        state.not_before = Some(Instant::now() + self.pause(state.failures));
        let why = if said.is_empty() { "no endpoint is configured".to_owned() } else { said.join("; ") };
        state.last_error = Some(why.clone());
        Err(ChainError::Unreachable(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_can_be_logged_although_an_endpoint_holds_a_key() {
        let settings = LinkSettings {
            endpoints: vec![
                "wss://me:word@one.example:443/v1/KEY".to_owned(),
                "wss://two.example/KEY?k=KEY".to_owned(),
            ],
            genesis: None,
            never: Vec::new(),
            deadline: Duration::from_secs(1),
            stalled_after: Duration::from_secs(1),
            retry: Backoff::default(),
        };
        let shown = format!("{:?}", Link::new(settings));
        assert!(shown.contains(r#"["wss://one.example:443", "wss://two.example:443"]"#), "{shown}");
        assert!(!shown.contains("KEY") && !shown.contains("word"), "{shown}");
    }
}
