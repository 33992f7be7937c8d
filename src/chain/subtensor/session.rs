//! One connection in use: what the node told of itself, its heads, and what was read at the newest one.
//!
//! Invariants: a session is of one chain (genesis) and one endpoint from begin to end; once it is condemned it is never used
//! again, and nobody waits for it any longer; reads name the block they are of, so that nothing is put together from two.
//!
//! Design notes: a task follows three subscriptions (best heads, finalised heads, runtime versions) and ends the session
//! when one of them ends, when the connection is lost, or when the head stands still for too long. The subscriptions are
//! why a node is not asked for its head over and over. Finality may stand still on a healthy chain, so silence about it is
//! checked by asking. A call runs as a task of its own on the runtime that all threads share: a caller who gives up early
//! does not keep a dead connection from being noticed, and no answer is parsed on an actor's thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use subxt::ext::jsonrpsee::core::client::Subscription;
use subxt::ext::jsonrpsee::core::params::ArrayParams;
use subxt::ext::jsonrpsee::rpc_params;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::heads::{BlockId, Header, Heads};
use super::rpc::{Connection, RpcCounts, RpcError};
use super::runtime::Runtime;
use crate::chain::ChainError;
use crate::chain::vitals::Cause;
use crate::ids::{BlockNumber, Hash32};

/// The metadata that is asked for: the newest version that every runtime of the list has, with the types of runtime functions.
const METADATA_VERSION: [u8; 4] = [15, 0, 0, 0];
/// A session is opened in so many deadlines at most: the connection, and two rounds of questions.
pub(super) const OPENING: u32 = 3;
/// After the end of a subscription, the time in which a lost connection says so.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What is counted over all sessions of a link.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub calls: RpcCounts,
    ended: Arc<[AtomicU64; Cause::ALL.len()]>,
}

impl Tally {
    fn ended(&self, cause: Cause) {
        let place = Cause::ALL.iter().position(|known| *known == cause);
        if let Some(counter) = place.and_then(|i| self.ended.get(i)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sessions that were condemned, by cause.
    pub(super) fn all_ended(&self) -> Vec<(Cause, u64)> {
        Cause::ALL.iter().zip(self.ended.iter()).map(|(cause, n)| (*cause, n.load(Ordering::Relaxed))).collect()
    }
}

/// What a session is opened with.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// For connecting and for each call.
    pub deadline: Duration,
    /// A head that stands still for longer ends the session.
    pub stalled_after: Duration,
    /// The genesis of the chain that this node follows, once one was seen.
    pub genesis: Option<Hash32>,
    /// Chains that it must not be.
    pub never: Vec<Hash32>,
    /// Counts calls and ends.
    pub tally: Tally,
}

/// Why a session is of no more use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condemnation {
    pub cause: Cause,
    pub why: String,
}

/// Where a session's end is told, once.
#[derive(Debug)]
struct Verdict {
    told: watch::Sender<Option<Condemnation>>,
    tally: Tally,
}

impl Verdict {
    /// Ends the session. The first reason stays.
    fn condemn(&self, cause: Cause, why: &str) {
        self.told.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                self.tally.ended(cause);
                *reason = Some(Condemnation { cause, why: why.to_owned() });
            }
            first
        });
    }

    fn judge(&self, error: &RpcError) {
        if let Some(cause) = cause_of(error) {
            self.condemn(cause, &error.to_string());
        }
    }

    fn passed(&self) -> Option<Condemnation> {
        self.told.borrow().clone()
    }

    /// Resolves once it is condemned, with why.
    async fn wait(&self) -> String {
        let mut told = self.told.subscribe();
        // The sender is this value's own: it cannot be gone.
        let passed = told.wait_for(Option::is_some).await.ok().and_then(|c| c.as_ref().map(|c| c.why.clone()));
        passed.unwrap_or_default()
    }
}

/// What a failed call says of its connection; nothing where the node answered with an error of its own.
fn cause_of(error: &RpcError) -> Option<Cause> {
    match error {
        RpcError::Call { .. } => None,
        RpcError::Deadline { .. } => Some(Cause::Timeout),
        RpcError::Broken(_) => Some(Cause::Broken),
        RpcError::Garbage { .. } => Some(Cause::Garbage),
    }
}

/// Why another runtime was not taken in.
#[derive(Debug)]
enum NotTaken {
    /// A call for it failed.
    Asked(RpcError),
    /// It is none that can be used.
    Unreadable(ChainError),
}

impl NotTaken {
    /// What it says of the connection: one whose runtime cannot be had is of no more use, even if the node says so itself.
    fn cause(&self) -> Cause {
        match self {
            NotTaken::Asked(error) => cause_of(error).unwrap_or(Cause::Runtime),
            NotTaken::Unreadable(_) => Cause::Runtime,
        }
    }
}

impl From<RpcError> for NotTaken {
    fn from(error: RpcError) -> Self {
        NotTaken::Asked(error)
    }
}

impl From<NotTaken> for ChainError {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::Asked(error) => error.into(),
            NotTaken::Unreadable(error) => error,
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Session {
    connection: Arc<Connection>,
    /// Where it goes, without anything secret.
    pub endpoint: String,
    /// The chain.
    pub genesis: Hash32,
    runtime: Mutex<Arc<Runtime>>,
    heads: watch::Receiver<Heads>,
    first: BlockId,
    verdict: Arc<Verdict>,
    follower: Mutex<Option<AbortHandle>>,
}

/// A runtime's version as nodes tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    spec_version: u32,
    transaction_version: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Health {
    is_syncing: bool,
}

impl Session {
    /// Connects, and learns which chain, which runtime and which heads the node has; within [`OPENING`] deadlines.
    pub(super) async fn open(endpoint: &str, terms: Terms) -> Result<Arc<Self>, ChainError> {
        let limit = terms.deadline.saturating_mul(OPENING);
        let opened = tokio::time::timeout(limit, Self::opened(endpoint, terms)).await;
        opened.unwrap_or(Err(ChainError::Deadline(limit)))
    }

    async fn opened(endpoint: &str, terms: Terms) -> Result<Arc<Self>, ChainError> {
        let shown = crate::telemetry::redact_endpoint(endpoint);
        let Terms { deadline, stalled_after, genesis: ours, never, tally } = terms;
        let connection = Arc::new(Connection::open(endpoint, deadline, tally.calls.clone()).await?);
        // Subscribed to before anything is read of it: no head can come in between.
        let (genesis, health, best, finalized, versions, first, last) = tokio::try_join!(
            connection.call::<String>("chain_getBlockHash", rpc_params![0u32]),
            connection.call::<Health>("system_health", rpc_params![]),
            connection.subscribe::<Header>("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads"),
            connection.subscribe::<Header>(
                "chain_subscribeFinalizedHeads",
                rpc_params![],
                "chain_unsubscribeFinalizedHeads"
            ),
            connection.subscribe::<Version>(
                "state_subscribeRuntimeVersion",
                rpc_params![],
                "state_unsubscribeRuntimeVersion"
            ),
            connection.call::<Header>("chain_getHeader", rpc_params![]),
            connection.call::<String>("chain_getFinalizedHead", rpc_params![]),
        )?;
        let genesis = hash(genesis)?;
        if let Some(ours) = ours.filter(|ours| *ours != genesis) {
            return Err(ChainError::Protocol(format!(
                "{shown} is another chain (genesis {genesis}, not {ours}); check subtensor.network and chain_endpoint"
            )));
        }
        if never.contains(&genesis) {
            return Err(ChainError::Protocol(format!(
                "{shown} is a public network (genesis {genesis}), not a local one; name it with subtensor.network"
            )));
        }
        if health.is_syncing {
            return Err(ChainError::Unreachable(format!("{shown} is still catching up with the chain")));
        }
        let first = first.id();
        let last = async { Ok(final_header(&connection, last).await?) };
        let (last, runtime) = tokio::try_join!(last, runtime_at(&connection, genesis, first.hash))?;
        let (told, heads) = watch::channel(Heads { best: first, finalized: last, since: Instant::now() });
        let session = Arc::new(Session {
            connection,
            endpoint: shown,
            genesis,
            runtime: Mutex::new(Arc::new(runtime)),
            heads,
            first,
            verdict: Arc::new(Verdict { told: watch::Sender::new(None), tally }),
            follower: Mutex::new(None),
        });
        // It does not hold the session: one that nobody holds ends, and its task with it.
        let follow = Follow {
            best,
            finalized,
            versions,
            session: Arc::downgrade(&session),
            connection: session.connection.clone(),
            verdict: session.verdict.clone(),
            stalled_after,
            told,
        };
        let task = tokio::spawn(follow.run());
        *session.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        Ok(session)
    }

    /// The newest heads.
    pub(super) fn heads(&self) -> Heads {
        *self.heads.borrow()
    }

    /// Whether a new head came since it was opened: an endpoint that told of one was good for something.
    pub(super) fn has_moved(&self) -> bool {
        self.heads().best.hash != self.first.hash
    }

    /// Waits until the best head is another one than `seen`, or the session has ended.
    pub(super) async fn head_after(&self, seen: Hash32) {
        let mut heads = self.heads.clone();
        let moved = async { drop(heads.wait_for(|heads| heads.best.hash != seen).await) };
        tokio::select! {
            () = moved => {}
            _ = self.verdict.wait() => {}
        }
    }

    /// The runtime of the newest head.
    pub(super) fn runtime(&self) -> Arc<Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why this session is of no more use.
    pub(super) fn condemnation(&self) -> Option<Condemnation> {
        let follower_gone =
            || Condemnation { cause: Cause::Broken, why: "nobody follows its heads any more".to_owned() };
        self.verdict.passed().or_else(|| self.heads.has_changed().is_err().then(follower_gone))
    }

    /// Waits for `answer`, but no longer than the session lasts.
    ///
    /// # Errors
    /// [`RpcError::Broken`] with why it has ended.
    pub(super) async fn while_good<T>(&self, answer: impl Future<Output = T>) -> Result<T, RpcError> {
        tokio::select! {
            biased;
            answer = answer => Ok(answer),
            why = self.verdict.wait() => Err(RpcError::Broken(why)),
        }
    }

    /// Runs a call to its end, whether or not it is still waited for: within the connection's deadline.
    async fn run<T: Send + 'static>(
        &self,
        call: impl Future<Output = Result<T, RpcError>> + Send + 'static,
    ) -> Result<T, RpcError> {
        if let Some(Condemnation { why, .. }) = self.condemnation() {
            return Err(RpcError::Broken(why));
        }
        let (tell, told) = oneshot::channel();
        let verdict = self.verdict.clone();
        tokio::spawn(async move {
            let answer = call.await;
            let error = answer.as_ref().err().cloned();
            // The caller hears of the error itself, and only then others of the session's end.
            drop(tell.send(answer));
            if let Some(error) = error {
                verdict.judge(&error);
            }
        });
        let gone = || RpcError::Broken("this node's runtime is shutting down".to_owned());
        self.while_good(told).await?.unwrap_or_else(|_| Err(gone()))
    }

    /// Calls a method of the node.
    ///
    /// # Errors
    /// [`RpcError`]; one that condemns the connection has ended the session.
    pub(super) async fn call<T: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        params: ArrayParams,
    ) -> Result<T, RpcError> {
        let connection = self.connection.clone();
        self.run(async move { connection.call(method, params).await }).await
    }

    /// Subscribes to notices of the node.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub(super) async fn subscribe<T: DeserializeOwned + Send + 'static>(
        &self,
        method: &'static str,
        params: ArrayParams,
        unsubscribe: &'static str,
    ) -> Result<Subscription<T>, RpcError> {
        let connection = self.connection.clone();
        self.run(async move { connection.subscribe(method, params, unsubscribe).await }).await
    }

    /// Ends the session because of an answer that is none.
    pub(super) fn garbage(&self, method: &'static str, why: &str) -> RpcError {
        let error = RpcError::Garbage { method, why: why.to_owned() };
        self.verdict.judge(&error);
        error
    }

    /// Values of storage as of one block, in the order of the keys.
    ///
    /// # Errors
    /// [`RpcError`]; also for an answer that is of other keys.
    pub(super) async fn storage(&self, keys: &[Vec<u8>], at: Hash32) -> Result<Vec<Option<Vec<u8>>>, RpcError> {
        const METHOD: &str = "state_queryStorageAt";
        #[derive(Deserialize)]
        struct Changes {
            changes: Vec<(String, Option<String>)>,
        }
        let asked: Vec<String> = keys.iter().map(|key| hex0x(key)).collect();
        let sets: Vec<Changes> = self.call(METHOD, rpc_params![asked, hex0x(&at.0)]).await?;
        let garbage = |why: &str| self.garbage(METHOD, why);
        let mut values = std::collections::HashMap::new();
        for (key, value) in sets.into_iter().flat_map(|set| set.changes) {
            let value = value.map(|text| unhex(&text).ok_or_else(|| garbage("a value is no hex"))).transpose()?;
            values.insert(unhex(&key).ok_or_else(|| garbage("a key is no hex"))?, value);
        }
        keys.iter().map(|key| values.get(key).cloned().ok_or_else(|| garbage("a key is missing in it"))).collect()
    }

    /// What a function of the runtime answers, as of one block.
    ///
    /// # Errors
    /// [`RpcError`].
    pub(super) async fn function(
        &self,
        api: &str,
        function: &str,
        arguments: &[u8],
        at: Hash32,
    ) -> Result<Vec<u8>, RpcError> {
        const METHOD: &str = "state_call";
        let name = format!("{api}_{function}");
        let answer: String = self.call(METHOD, rpc_params![name, hex0x(arguments), hex0x(&at.0)]).await?;
        unhex(&answer).ok_or_else(|| self.garbage(METHOD, "the answer is no hex"))
    }

    /// The hash of a block; `None` if there is none with this number.
    ///
    /// # Errors
    /// [`ChainError`].
    pub(super) async fn block_hash(&self, n: BlockNumber) -> Result<Option<Hash32>, ChainError> {
        let answer: Option<String> = self.call("chain_getBlockHash", rpc_params![n]).await?;
        answer.map(hash).transpose()
    }

    /// Asks which runtime a block has, and takes it in if it is a newer one.
    ///
    /// # Errors
    /// [`ChainError`] if it cannot be had; the session is of no use then.
    pub(super) async fn refresh_runtime(&self, at: Hash32) -> Result<(), ChainError> {
        let version = self.version_at(at).await?;
        if version.spec_version <= self.runtime().spec_version() {
            return Ok(());
        }
        self.take_runtime(version, at).await.map_err(|why| {
            let cause = why.cause();
            let error = ChainError::from(why);
            self.verdict.condemn(cause, &unreadable(&error));
            error
        })
    }

    /// The node told of a version. It is read as of the node's best block, which may be newer than the newest head that
    /// was heard of: the block before the upgrade still has the old one. An older one is taken in too: the block with the
    /// upgrade may have been replaced.
    async fn told_of(&self, version: Version) -> Result<(), (Cause, String)> {
        if self.runtime().spec_version() == version.spec_version {
            return Ok(());
        }
        self.take_best_runtime().await.map_err(|why| (why.cause(), unreadable(&why.into())))
    }

    async fn take_best_runtime(&self) -> Result<(), NotTaken> {
        const METHOD: &str = "chain_getBlockHash";
        let best: String = self.call(METHOD, rpc_params![]).await?;
        let best = hash(best).map_err(|e| self.garbage(METHOD, &e.to_string()))?;
        let version = self.version_at(best).await?;
        if version.spec_version == self.runtime().spec_version() {
            return Ok(());
        }
        self.take_runtime(version, best).await
    }

    async fn version_at(&self, at: Hash32) -> Result<Version, RpcError> {
        self.call("state_getRuntimeVersion", rpc_params![hex0x(&at.0)]).await
    }

    /// Reads a block's runtime, and uses it from now on.
    async fn take_runtime(&self, version: Version, at: Hash32) -> Result<(), NotTaken> {
        let connection = self.connection.clone();
        let metadata = self.run(async move { metadata_at(&connection, at).await }).await?;
        let runtime = runtime_of(metadata, version, self.genesis).await.map_err(NotTaken::Unreadable)?;
        tracing::info!(spec = version.spec_version, endpoint = self.endpoint, "the chain's runtime was upgraded");
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(runtime);
        Ok(())
    }
}

fn unreadable(error: &ChainError) -> String {
    format!("the chain's new runtime cannot be read: {error}")
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = self.follower.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// The header of the newest final block, whose hash the node told.
async fn final_header(connection: &Connection, told: String) -> Result<BlockId, RpcError> {
    const METHOD: &str = "chain_getHeader";
    let garbage = |why: String| RpcError::Garbage { method: METHOD, why };
    let hash = hash(told).map_err(|e| garbage(e.to_string()))?;
    let header: Option<Header> = connection.call(METHOD, rpc_params![hex0x(&hash.0)]).await?;
    match header.map(|header| header.id()) {
        Some(id) if id.hash == hash => Ok(id),
        Some(id) => Err(garbage(format!("block {} instead of block {hash}", id.hash))),
        None => Err(garbage(format!("the node does not know block {hash}, which it finalised"))),
    }
}

/// The three subscriptions of a session, and where what they tell goes.
struct Follow {
    best: Subscription<Header>,
    finalized: Subscription<Header>,
    versions: Subscription<Version>,
    session: std::sync::Weak<Session>,
    connection: Arc<Connection>,
    verdict: Arc<Verdict>,
    stalled_after: Duration,
    told: watch::Sender<Heads>,
}

impl Follow {
    async fn run(mut self) {
        let verdict = self.verdict.clone();
        if let Some((cause, why)) = self.followed().await {
            verdict.condemn(cause, &why);
        }
    }

    /// Until the session is to end, with why; `None` if it has ended by itself.
    async fn followed(&mut self) -> Option<(Cause, String)> {
        // When finality was last told of or asked for.
        let mut settled = Instant::now();
        loop {
            let stalled = tokio::time::sleep_until(self.told.borrow().since + self.stalled_after);
            let unsettled = tokio::time::sleep_until(settled + self.stalled_after);
            let step = tokio::select! {
                head = self.best.next() => notice("chain_subscribeNewHeads", head).map(|head| {
                    let best = head.id();
                    self.told.send_if_modified(|heads| {
                        let moved = heads.best.hash != best.hash;
                        if moved {
                            (heads.best, heads.since) = (best, Instant::now());
                        }
                        moved
                    });
                }),
                head = self.finalized.next() => notice("chain_subscribeFinalizedHeads", head).map(|head| {
                    settled = Instant::now();
                    let finalized = head.id();
                    // Notices of one connection come in order; what cannot be taken back does not go back.
                    self.told.send_if_modified(|heads| {
                        let newer = finalized.number > heads.finalized.number;
                        if newer {
                            heads.finalized = finalized;
                        }
                        newer
                    });
                }),
                version = self.versions.next() => match notice("state_subscribeRuntimeVersion", version) {
                    Ok(version) => self.session.upgrade()?.told_of(version).await,
                    Err(why) => Err(why),
                },
                why = self.connection.lost() => Err((Cause::Broken, why)),
                _ = self.verdict.wait() => return None,
                () = unsettled => {
                    settled = Instant::now();
                    self.ask_finality().await
                }
                () = stalled => Err((Cause::HeadStill, format!(
                    "its head has stood still for {}",
                    humantime::format_duration(self.stalled_after)
                ))),
            };
            if let Err((cause, why)) = step {
                return Some(match cause {
                    // A connection that is lost ends its subscriptions too; which is heard of first is chance.
                    Cause::SubscriptionEnded => match tokio::time::timeout(LAST_WORDS, self.connection.lost()).await {
                        Ok(why) => (Cause::Broken, why),
                        Err(_) => (cause, why),
                    },
                    _ => (cause, why),
                });
            }
        }
    }

    /// Nothing was told of finality for long: does it stand still, or is it the node that says nothing? One that will not say
    /// either is asked again later.
    async fn ask_finality(&self) -> Result<(), (Cause, String)> {
        let Some(session) = self.session.upgrade() else { return Ok(()) };
        let known = self.told.borrow().finalized.number;
        let asked = async {
            let last: String = session.call("chain_getFinalizedHead", rpc_params![]).await?;
            Ok::<_, RpcError>(final_header(&self.connection, last).await?.number)
        };
        match asked.await {
            Ok(now) if now > known => Err((
                Cause::FinalitySilent,
                format!("its newest finalised block is {now}, but the last that it told of is {known}"),
            )),
            Ok(_) => Ok(()),
            Err(error) => cause_of(&error).map_or(Ok(()), |cause| Err((cause, error.to_string()))),
        }
    }
}

fn notice<T>(what: &'static str, told: Option<Result<T, serde_json::Error>>) -> Result<T, (Cause, String)> {
    match told {
        Some(Ok(notice)) => Ok(notice),
        Some(Err(why)) => Err((Cause::Garbage, format!("{what}: {why}"))),
        None => Err((Cause::SubscriptionEnded, format!("{what}: the subscription ended"))),
    }
}

/// Reads the runtime that a block has.
async fn runtime_at(connection: &Connection, genesis: Hash32, at: Hash32) -> Result<Runtime, ChainError> {
    let version = connection.call::<Version>("state_getRuntimeVersion", rpc_params![hex0x(&at.0)]);
    let (version, metadata) = tokio::try_join!(version, metadata_at(connection, at))?;
    runtime_of(metadata, version, genesis).await
}

/// The metadata as of one block, in hex and in the chain's wrapping.
async fn metadata_at(connection: &Connection, at: Hash32) -> Result<String, RpcError> {
    let call = rpc_params!["Metadata_metadata_at_version", hex0x(&METADATA_VERSION), hex0x(&at.0)];
    connection.call("state_call", call).await
}

async fn runtime_of(metadata: String, version: Version, genesis: Hash32) -> Result<Runtime, ChainError> {
    use subxt::ext::codec::Decode;
    // Tens of milliseconds: not on the thread of whoever connects.
    let made = tokio::task::spawn_blocking(move || {
        let bytes = unhex(&metadata).and_then(|bytes| Option::<Vec<u8>>::decode(&mut bytes.as_slice()).ok().flatten());
        let bytes = bytes.ok_or_else(|| ChainError::Protocol("the node has no metadata of version 15".to_owned()))?;
        Runtime::new(&bytes, version.spec_version, version.transaction_version, genesis).map_err(ChainError::from)
    });
    made.await.map_err(|e| ChainError::Protocol(e.to_string()))?
}

pub(super) fn hex0x(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// The bytes of `0x`-hex.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x")?).ok()
}

/// A hash of a block as nodes write it.
pub(super) fn hash(text: String) -> Result<Hash32, ChainError> {
    let bytes = unhex(&text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.map(Hash32).ok_or_else(|| ChainError::Protocol(format!("{text:?} is no hash of a block")))
}
