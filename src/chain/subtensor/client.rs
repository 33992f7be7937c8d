//! [`Chain`] over a subtensor node.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::call::{Call, Mechanism};
use super::link::{Link, LinkSettings};
use super::own_weights::{self, Timing};
use super::reader::{self, Facts, Memory, Scope};
use super::rpc::RpcCounts;
use super::session::Session;
use super::submit;
use crate::chain::commit::storage_index;
use crate::chain::{
    BlockHead, Chain, ChainError, Hyperparameters, Inclusion, Metagraph, PreparedWeights, Rejection, Signer, Vitals,
    Weights, WeightsShown, register_at_most,
};
use crate::clock::SharedClock;
use crate::ids::{BlockNumber, Coldkey, Hash32, Hotkey, Netuid, Uid};

/// What a client is made with.
#[derive(Clone)]
pub struct ClientSettings {
    /// The way to the chain.
    pub link: LinkSettings,
    /// Subnet and mechanism.
    pub mechanism: Mechanism,
    /// Longest wait for a call to be included.
    pub submit: Duration,
    /// The wall clock, by which the round that opens a timelocked commit is chosen.
    pub clock: SharedClock,
}

/// A subtensor chain as one node sees it: bound to a subnet and a signing hotkey.
pub struct SubtensorChain {
    link: Link,
    scope: Scope,
    mechanism: Mechanism,
    signer: Arc<dyn Signer>,
    clock: SharedClock,
    submit: Duration,
    read: Mutex<Read>,
    submitting: Mutex<()>,
}

/// What was read last.
#[derive(Debug, Default)]
struct Read {
    memory: Memory,
    facts: Option<Facts>,
    metagraph: Option<Arc<Metagraph>>,
}

impl std::fmt::Debug for SubtensorChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SubtensorChain").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl SubtensorChain {
    /// A client that connects with its first call.
    ///
    /// # Errors
    /// [`ChainError::Protocol`] for a mechanism that no subnet can have.
    pub fn new(settings: ClientSettings, signer: Arc<dyn Signer>) -> Result<Self, ChainError> {
        let mechanism = settings.mechanism;
        let index = storage_index(mechanism.netuid, mechanism.id).map_err(|e| ChainError::Protocol(e.to_string()))?;
        let scope =
            Scope { netuid: mechanism.netuid, index: index.get(), mechanism: mechanism.id, hotkey: signer.hotkey() };
        Ok(SubtensorChain {
            link: Link::new(settings.link),
            scope,
            mechanism,
            signer,
            clock: settings.clock,
            submit: settings.submit,
            read: Mutex::default(),
            submitting: Mutex::new(()),
        })
    }

    /// What was called how often since the start.
    pub fn counts(&self) -> &RpcCounts {
        self.link.counts()
    }

    /// The connections' state, for metrics.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Reads, and reads once more where the connection broke meanwhile: reading twice does no harm. Both together take
    /// [`Link::patience`] at most.
    async fn reading<T, F>(&self, answer: impl Fn(Arc<Session>) -> F) -> Result<T, ChainError>
    where
        F: Future<Output = Result<T, ChainError>>,
    {
        within(self.link.patience(), async {
            let session = self.link.session().await?;
            match answer(session.clone()).await {
                Err(error) if session.condemnation().is_some() => match self.link.session().await {
                    Ok(session) => answer(session).await,
                    // What broke the connection says more than the pause that follows.
                    Err(_) => Err(error),
                },
                told => told,
            }
        })
        .await
    }

    /// Submits, one call after the other: waiting for the turn takes a deadline, and so do checking, sending and being included
    /// together. What fails before the call is sent is told apart.
    ///
    /// `carried`: the weights that it carries, which are not signed too late.
    async fn submitting(
        &self,
        call: Call,
        signer: &dyn Signer,
        carried: Option<&PreparedWeights>,
    ) -> Result<Inclusion, ChainError> {
        let turn = tokio::time::timeout(self.submit, self.submitting.lock()).await;
        let _alone =
            turn.map_err(|_| ChainError::Unreachable("another call of this node is on its way".to_owned()).unsent())?;
        let begin = Instant::now();
        let ready = within(self.submit, submit::ready(&self.link, &call, signer, carried)).await;
        let ready = ready.map_err(ChainError::unsent)?;
        let left = self.submit.saturating_sub(begin.elapsed());
        let sent = tokio::time::timeout(left, submit::submit(&self.link, ready)).await;
        sent.unwrap_or(Err(ChainError::Deadline(self.submit)))
    }

    /// The facts of the newest block, read once for each.
    async fn facts<'r>(&self, session: &Session, read: &'r mut Read) -> Result<&'r Facts, ChainError> {
        let id = session.heads().best;
        if read.facts.as_ref().is_none_or(|facts| facts.id.hash != id.hash) {
            read.facts = None;
            read.facts = Some(reader::facts(session, &self.scope, &read.memory, id).await?);
        }
        read.facts.as_ref().ok_or_else(|| ChainError::Protocol("nothing was read".to_owned()))
    }

    async fn metagraph_at(&self, session: &Session) -> Result<Arc<Metagraph>, ChainError> {
        let mut read = self.read.lock().await;
        let facts = self.facts(session, &mut read).await?.clone();
        if let Some(known) = read.metagraph.as_ref().filter(|known| known.head.hash == facts.head.hash) {
            return Ok(known.clone());
        }
        let graph = Arc::new(reader::metagraph(session, &self.scope, &mut read.memory, &facts).await?);
        read.metagraph = Some(graph.clone());
        Ok(graph)
    }
}

async fn within<T>(deadline: Duration, answer: impl Future<Output = Result<T, ChainError>>) -> Result<T, ChainError> {
    tokio::time::timeout(deadline, answer).await.unwrap_or(Err(ChainError::Deadline(deadline)))
}

#[async_trait]
impl Chain for SubtensorChain {
    fn netuid(&self) -> Netuid {
        self.scope.netuid
    }

    fn hotkey(&self) -> Hotkey {
        self.scope.hotkey
    }

    fn vitals(&self) -> Vitals {
        self.link.vitals()
    }

    async fn head(&self) -> Result<BlockHead, ChainError> {
        self.reading(|session| async move {
            let mut read = self.read.lock().await;
            Ok(self.facts(&session, &mut read).await?.head)
        })
        .await
    }

    async fn finalized(&self) -> Result<BlockNumber, ChainError> {
        self.reading(|session| async move { Ok(session.heads().finalized.number) }).await
    }

    async fn block_hash(&self, n: BlockNumber) -> Result<Option<Hash32>, ChainError> {
        self.reading(|session| async move { session.block_hash(n).await }).await
    }

    async fn metagraph(&self) -> Result<Arc<Metagraph>, ChainError> {
        self.reading(|session| async move { self.metagraph_at(&session).await }).await
    }

    async fn hyperparameters(&self) -> Result<Hyperparameters, ChainError> {
        self.reading(|session| async move {
            reader::hyperparameters(&session, self.scope.netuid, &session.heads().best).await
        })
        .await
    }

    async fn balance(&self, coldkey: &Coldkey) -> Result<u64, ChainError> {
        let account = Hotkey(coldkey.0);
        self.reading(|session| async move { submit::free_balance(&session, &account).await }).await
    }

    async fn serve_axon(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError> {
        let call = Call::ServeAxon { netuid: self.scope.netuid, version, at: (ip, port), certificate: None };
        self.submitting(call, &*self.signer, None).await
    }

    async fn serve_prometheus(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError> {
        let call = Call::ServePrometheus { netuid: self.scope.netuid, version, at: (ip, port) };
        self.submitting(call, &*self.signer, None).await
    }

    async fn prepare_weights(&self, weights: &Weights) -> Result<PreparedWeights, ChainError> {
        self.reading(|session| async move {
            let graph = self.metagraph_at(&session).await?;
            let best = session.heads().best;
            let rules = reader::hyperparameters(&session, self.scope.netuid, &best).await?;
            let runtime = session.runtime();
            let now = Timing { now_ms: self.clock.now_ms(), block_time: runtime.block_time()? };
            own_weights::prepare(&runtime, self.mechanism, self.scope.hotkey, weights, &graph, &rules, now)
        })
        .await
    }

    async fn check_weights(&self, weights: &PreparedWeights) -> Result<(), ChainError> {
        let call = &own_weights::call(self.mechanism, weights);
        self.reading(|session| async move { submit::check(&session, call, &*self.signer).await.map(drop) }).await
    }

    async fn submit_weights(&self, weights: &PreparedWeights) -> Result<Inclusion, ChainError> {
        self.submitting(own_weights::call(self.mechanism, weights), &*self.signer, Some(weights)).await
    }

    async fn reveal_weights(&self, weights: &PreparedWeights) -> Result<Inclusion, ChainError> {
        let call = own_weights::reveal(self.mechanism, weights).ok_or(Rejection::NoWeightsCommitFound)?;
        self.submitting(call, &*self.signer, None).await
    }

    fn call_lifetime(&self) -> u64 {
        submit::ERA_BLOCKS
    }

    async fn weights_shown(&self) -> Result<WeightsShown, ChainError> {
        self.reading(|session| async move { own_weights::shown(&session, &self.scope).await }).await
    }

    async fn weights_of_all(&self) -> Result<Vec<(Uid, Vec<(Uid, u16)>)>, ChainError> {
        self.reading(|session| async move { own_weights::of_all(&session, &self.scope).await }).await
    }

    async fn register(&self, hotkey: Hotkey, coldkey: &dyn Signer) -> Result<Inclusion, ChainError> {
        self.submitting(Call::BurnedRegister { netuid: self.scope.netuid, hotkey }, coldkey, None).await
    }

    async fn register_within(
        &self,
        hotkey: Hotkey,
        limit_rao: u64,
        coldkey: &dyn Signer,
    ) -> Result<Inclusion, ChainError> {
        let limited = Call::RegisterLimit { netuid: self.scope.netuid, hotkey, limit_rao };
        let name = limited.name();
        let known = self.reading(|session| async move { Ok(session.runtime().has_call(name)) }).await;
        match known.map_err(ChainError::unsent)? {
            // The chain compares the price of the very block.
            true => self.submitting(limited, coldkey, None).await,
            false => register_at_most(self, hotkey, limit_rao, coldkey).await,
        }
    }
}
