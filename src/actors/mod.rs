//! The actors: thin shells that receive messages, call the domain and send on.
//!
//! Shared ones are here; where a concern differs by role it is two actors, in [`miner`] and [`validator`]. Each file
//! starts with what the actor owns, its invariants and what survives a restart. Nobody but the runtime holds an
//! actor's address; actors meet through [`crate::runtime::Handle`]s.

pub mod auto_updater;
pub mod blacklist_guard;
pub mod chain_watcher;
pub mod duty;
pub mod exclusive;
pub mod journal;
pub mod lease_book;
pub mod listener;
pub mod miner;
pub mod node;
pub mod reloader;
pub mod validator;

use std::sync::Arc;

use actix::dev::ToEnvelope;
use actix::prelude::*;

use crate::runtime::{Ctx, Handle, Supervised, TellError};

/// A way to tell one kind of message to some actor, without knowing which.
pub struct Subscriber<M> {
    /// The name of the actor, for the log.
    pub name: &'static str,
    tell: Arc<dyn Fn(M) -> Result<(), TellError> + Send + Sync>,
}

impl<M: Message + Send + 'static> Subscriber<M> {
    /// Subscribes the actor behind `handle`.
    pub fn new<A>(name: &'static str, handle: &Handle<A>) -> Self
    where
        A: Supervised + Handler<M>,
        Ctx<A>: ToEnvelope<A, M>,
        M::Result: Send,
    {
        let handle = handle.clone();
        Subscriber { name, tell: Arc::new(move |m| handle.tell(m)) }
    }
}

impl<M> Clone for Subscriber<M> {
    fn clone(&self) -> Self {
        Subscriber { name: self.name, tell: self.tell.clone() }
    }
}

impl<M: Clone> Subscriber<M> {
    /// Tells every subscriber; one that is full or gone is logged and passed over: the next message reaches it.
    pub fn publish(subscribers: &[Subscriber<M>], message: &M) {
        for s in subscribers {
            if let Err(error) = (s.tell)(message.clone()) {
                tracing::warn!(subscriber = s.name, message = std::any::type_name::<M>(), %error, "not delivered");
            }
        }
    }
}
