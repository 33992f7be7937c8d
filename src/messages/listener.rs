//! Messages of [`crate::actors::listener::Listener`].

use actix::Message;
use serde::Serialize;

/// Stop accepting connections and finish the requests in flight; replies when the server has ended.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct StopIntake;

/// Try a connection to the own address now; replies whether it was accepted.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "bool")]
pub struct CheckSelf;

/// What a listener publishes of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerStatus {
    /// The listener's name: `axon`, `web` or `control`.
    pub name: &'static str,
    /// Where it listens, once bound: an address or a path.
    pub address: Option<String>,
    /// Whether the last self-connection was accepted.
    pub accepting: bool,
    /// Why not, if not.
    pub problem: Option<String>,
}

impl ListenerStatus {
    /// A listener that is not bound yet.
    pub fn unbound(name: &'static str) -> Self {
        ListenerStatus { name, address: None, accepting: false, problem: Some("not bound yet".into()) }
    }
}
