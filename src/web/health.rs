//! Whether a node is healthy (its listeners accept) and ready (it can do its work), from what actors publish.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::actors::duty::Duty;
use crate::actors::exclusive::Exclusive;
use crate::ids::Hotkey;
use crate::messages::chain_watcher::ChainView;
use crate::messages::listener::ListenerStatus;
use crate::runtime::TreeView;
use crate::store::Health as StoreHealth;

/// One reason why a node is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotReady {
    /// What is not ready: an actor, `chain`, `registration`, `hotkey`, `drain`, `journal` or a listener.
    pub part: String,
    /// Why, for people.
    pub reason: String,
}

/// The answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether there is no reason against it.
    pub ready: bool,
    /// Every reason against it.
    pub reasons: Vec<NotReady>,
    /// Whether the operator keeps new leases away; that alone is no reason against it.
    #[serde(default)]
    pub maintenance: bool,
}

/// What health and readiness are read from.
pub struct Health {
    /// The node's own key.
    pub hotkey: Hotkey,
    /// A chain view older than this is too old to work with.
    pub max_chain_age: Duration,
    /// The listeners' words.
    pub listeners: Vec<watch::Receiver<ListenerStatus>>,
    /// The chain watcher's word.
    pub chain: watch::Receiver<Option<Arc<ChainView>>>,
    /// The database's word.
    pub store: watch::Receiver<StoreHealth>,
    /// The operator's word.
    pub duty: watch::Receiver<Duty>,
    /// Whether another node acts with the same hotkey.
    pub exclusive: Arc<Exclusive>,
}

impl Health {
    /// Each listener's status.
    pub fn listeners(&self) -> Vec<ListenerStatus> {
        self.listeners.iter().map(|l| l.borrow().clone()).collect()
    }

    /// Every reason why the node cannot do its work now.
    pub fn readiness(&self, view: &TreeView) -> Readiness {
        let mut reasons = Vec::new();
        let mut not_ready = |part: &str, reason: String| reasons.push(NotReady { part: part.into(), reason });
        for (name, state) in view.not_running() {
            not_ready(name, format!("the actor is {state}"));
        }
        match self.chain.borrow().as_ref() {
            None => not_ready("chain", "no block was read yet".into()),
            Some(chain) => {
                let age = chain.age();
                if chain.is_stored() {
                    let (age, block) = (age.as_secs(), chain.metagraph.head.number);
                    let known = format!("the subnet is known as it was stored {age} s ago, in block {block}");
                    not_ready("chain", format!("the chain was not read since the start; {known}"));
                } else if age > self.max_chain_age {
                    not_ready("chain", format!("the last block was read {} s ago", age.as_secs()));
                }
                if chain.metagraph.by_hotkey(&self.hotkey).is_none() {
                    not_ready("registration", format!("hotkey {} is not registered on the subnet", self.hotkey));
                }
            }
        }
        if let Some(problem) = self.exclusive.problem() {
            not_ready("hotkey", problem);
        }
        if self.duty.borrow().drain.is_some() {
            not_ready("drain", "the node drains and will end".into());
        }
        if let StoreHealth::Degraded { reason, .. } = &*self.store.borrow() {
            not_ready("journal", format!("degraded: {reason}"));
        }
        for listener in self.listeners() {
            if let Some(problem) = listener.problem {
                not_ready(listener.name, problem);
            }
        }
        let maintenance = self.duty.borrow().maintenance.is_some();
        Readiness { ready: reasons.is_empty(), reasons, maintenance }
    }
}
