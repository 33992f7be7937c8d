//! One connection in use: what the node told of itself, its heads, and what was read at the newest one.
//!
//! Invariants: a session is of one chain (genesis) and one endpoint from begin to end; once it is condemned it is never used
//! again; reads name the block they are of, so that nothing is put together from two.
//!
//! Design notes: a task follows three subscriptions (best heads, finalised heads, runtime versions) and ends the session
//! when one of them ends, when the connection is lost, or when the head stands still for too long. The subscriptions are
//! why a node is not asked for its head over and over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use subxt::ext::jsonrpsee::core::client::Subscription;
use subxt::ext::jsonrpsee::core::params::ArrayParams;
use subxt::ext::jsonrpsee::rpc_params;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::heads::{Header, Heads};
use super::rpc::{Connection, RpcCounts, RpcError};
use super::runtime::Runtime;
use crate::chain::ChainError;
use crate::ids::{BlockNumber, Hash32};

/// The metadata that is asked for: the newest version that every runtime of the list has, with the types of runtime functions.
const METADATA_VERSION: [u8; 4] = [15, 0, 0, 0];

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
    /// Counts calls.
    pub counts: RpcCounts,
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
    condemned: Arc<watch::Sender<Option<String>>>,
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
    /// Connects, and learns which chain, which runtime and which heads the node has.
    pub(super) async fn open(endpoint: &str, terms: Terms) -> Result<Arc<Self>, ChainError> {
        let shown = crate::telemetry::redact_url(endpoint);
        let connection = Arc::new(Connection::open(endpoint, terms.deadline, terms.counts).await?);
        let genesis: Hash32 = hash(connection.call::<String>("chain_getBlockHash", rpc_params![0u32]).await?)?;
        if let Some(ours) = terms.genesis.filter(|ours| *ours != genesis) {
            return Err(ChainError::Protocol(format!(
                "{shown} is another chain (genesis {genesis}, not {ours}); check subtensor.network and chain_endpoint"
            )));
        }
        if terms.never.contains(&genesis) {
            return Err(ChainError::Protocol(format!(
                "{shown} is a public network (genesis {genesis}), not a local one; name it with subtensor.network"
            )));
        }
        let health: Health = connection.call("system_health", rpc_params![]).await?;
        if health.is_syncing {
            return Err(ChainError::Unreachable(format!("{shown} is still catching up with the chain")));
        }
        let best = connection
            .subscribe::<Header>("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads")
            .await?;
        let finalized = connection
            .subscribe::<Header>("chain_subscribeFinalizedHeads", rpc_params![], "chain_unsubscribeFinalizedHeads")
            .await?;
        let versions = connection
            .subscribe::<Version>("state_subscribeRuntimeVersion", rpc_params![], "state_unsubscribeRuntimeVersion")
            .await?;
        let follow = Follow { best, finalized, versions };
        let (first, version) = place(&connection).await?;
        let runtime = runtime_at(&connection, genesis, version, first.best.hash).await?;
        let (told, heads) = watch::channel(first);
        let session = Arc::new(Session {
            connection,
            endpoint: shown,
            genesis,
            runtime: Mutex::new(Arc::new(runtime)),
            heads,
            condemned: Arc::new(watch::Sender::new(None)),
            follower: Mutex::new(None),
        });
        // It does not hold the session: one that nobody holds ends, and its task with it.
        let followed = Followed {
            session: Arc::downgrade(&session),
            connection: session.connection.clone(),
            condemned: session.condemned.clone(),
            stalled_after: terms.stalled_after,
        };
        let task = tokio::spawn(async move { follow.run(followed, told).await });
        *session.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        Ok(session)
    }

    /// The newest heads.
    pub(super) fn heads(&self) -> Heads {
        *self.heads.borrow()
    }

    /// The runtime of the newest head.
    pub(super) fn runtime(&self) -> Arc<Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why this session is of no more use.
    pub(super) fn condemnation(&self) -> Option<String> {
        self.condemned.borrow().clone()
    }

    /// Ends the session. The first reason stays.
    pub(super) fn condemn(&self, why: &str) {
        condemn(&self.condemned, why);
    }

    /// Calls a method of the node.
    ///
    /// # Errors
    /// [`RpcError`]; one that condemns the connection has ended the session.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: ArrayParams,
    ) -> Result<T, RpcError> {
        if let Some(why) = self.condemnation() {
            return Err(RpcError::Broken(why));
        }
        self.connection.call(method, params).await.inspect_err(|e| self.judge(e))
    }

    /// Subscribes to notices of the node.
    ///
    /// # Errors
    /// As for [`call`](Self::call).
    pub(super) async fn subscribe<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: ArrayParams,
        unsubscribe: &'static str,
    ) -> Result<Subscription<T>, RpcError> {
        self.connection.subscribe(method, params, unsubscribe).await.inspect_err(|e| self.judge(e))
    }

    fn judge(&self, error: &RpcError) {
        if error.condemns() {
            self.condemn(&error.to_string());
        }
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
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let asked: Vec<String> = keys.iter().map(|key| hex0x(key)).collect();
        let sets: Vec<Changes> = self.call(METHOD, rpc_params![asked, hex0x(&at.0)]).await?;
        let garbage = |why: &str| RpcError::Garbage { method: METHOD, why: why.to_owned() };
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
        unhex(&answer).ok_or_else(|| RpcError::Garbage { method: METHOD, why: "the answer is no hex".to_owned() })
    }

    /// The hash of a block; `None` if there is none with this number.
    ///
    /// # Errors
    /// [`ChainError`].
    pub(super) async fn block_hash(&self, n: BlockNumber) -> Result<Option<Hash32>, ChainError> {
        let answer: Option<String> = self.call("chain_getBlockHash", rpc_params![n]).await?;
        answer.map(hash).transpose()
    }

    /// Takes in that the runtime may be another now.
    ///
    /// # Errors
    /// [`ChainError`] if its metadata cannot be had; the session is of no use then.
    pub(super) async fn upgraded(&self, version: Version) -> Result<(), ChainError> {
        if self.runtime().spec_version() == version.spec_version {
            return Ok(());
        }
        let at = self.heads().best.hash;
        let runtime = runtime_at(&self.connection, self.genesis, version, at).await;
        let runtime = runtime.inspect_err(|e| self.condemn(&format!("the new runtime cannot be read: {e}")))?;
        tracing::info!(spec = version.spec_version, endpoint = self.endpoint, "the chain's runtime was upgraded");
        *self.runtime.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(runtime);
        Ok(())
    }

    /// Asks which runtime the block has and takes it in.
    ///
    /// # Errors
    /// [`ChainError`].
    pub(super) async fn refresh_runtime(&self, at: Hash32) -> Result<(), ChainError> {
        let version: Version = self.call("state_getRuntimeVersion", rpc_params![hex0x(&at.0)]).await?;
        self.upgraded(version).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(task) = self.follower.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// Where the node is now. Its subscriptions tell where it goes from there; whether they begin with this is the node's choice.
async fn place(connection: &Connection) -> Result<(Heads, Version), ChainError> {
    let best: Header = connection.call("chain_getHeader", rpc_params![]).await?;
    let finalized: String = connection.call("chain_getFinalizedHead", rpc_params![]).await?;
    let finalized: Header = connection.call("chain_getHeader", rpc_params![finalized]).await?;
    let best = best.id();
    let version: Version = connection.call("state_getRuntimeVersion", rpc_params![hex0x(&best.hash.0)]).await?;
    Ok((Heads { best, finalized: finalized.id(), since: Instant::now() }, version))
}

/// The three subscriptions of a session.
struct Follow {
    best: Subscription<Header>,
    finalized: Subscription<Header>,
    versions: Subscription<Version>,
}

impl Follow {
    async fn run(mut self, of: Followed, told: watch::Sender<Heads>) {
        let mut condemned = of.condemned.subscribe();
        let why = loop {
            let stalled = tokio::time::sleep_until(told.borrow().since + of.stalled_after);
            let step = tokio::select! {
                head = self.best.next() => notice("chain_subscribeNewHeads", head).map(|head| {
                    let best = head.id();
                    told.send_modify(|heads| {
                        if heads.best.hash != best.hash {
                            (heads.best, heads.since) = (best, Instant::now());
                        }
                    });
                }),
                head = self.finalized.next() => notice("chain_subscribeFinalizedHeads", head).map(|head| {
                    let finalized = head.id();
                    // Notices of one connection come in order; what cannot be taken back does not go back.
                    told.send_if_modified(|heads| {
                        let newer = finalized.number > heads.finalized.number;
                        if newer {
                            heads.finalized = finalized;
                        }
                        newer
                    });
                }),
                version = self.versions.next() => match (notice("state_subscribeRuntimeVersion", version), of.session.upgrade()) {
                    (Ok(version), Some(session)) => session.upgraded(version).await,
                    (Ok(_), None) => return,
                    (Err(why), _) => Err(why),
                },
                why = of.connection.lost() => Err(ChainError::Unreachable(why)),
                () = async { drop(condemned.wait_for(Option::is_some).await) } => return,
                () = stalled => Err(ChainError::Unreachable(format!(
                    "its head has stood still for {}",
                    humantime::format_duration(of.stalled_after)
                ))),
            };
            if let Err(why) = step {
                break why;
            }
        };
        condemn(&of.condemned, &why.to_string());
    }
}

/// What the follower of a session knows of it.
struct Followed {
    session: std::sync::Weak<Session>,
    connection: Arc<Connection>,
    condemned: Arc<watch::Sender<Option<String>>>,
    stalled_after: Duration,
}

/// Ends a session. The first reason stays.
fn condemn(condemned: &watch::Sender<Option<String>>, why: &str) {
    condemned.send_if_modified(|reason| {
        let first = reason.is_none();
        if first {
            *reason = Some(why.to_owned());
        }
        first
    });
}

fn notice<T>(what: &'static str, told: Option<Result<T, serde_json::Error>>) -> Result<T, ChainError> {
    match told {
        Some(Ok(notice)) => Ok(notice),
        Some(Err(why)) => Err(ChainError::Protocol(format!("{what}: {why}"))),
        None => Err(ChainError::Unreachable(format!("{what}: the subscription ended"))),
    }
}

/// Reads the runtime's metadata as of one block.
async fn runtime_at(
    connection: &Connection,
    genesis: Hash32,
    version: Version,
    at: Hash32,
) -> Result<Runtime, ChainError> {
    use subxt::ext::codec::Decode;
    let call = rpc_params!["Metadata_metadata_at_version", hex0x(&METADATA_VERSION), hex0x(&at.0)];
    let answer: String = connection.call("state_call", call).await?;
    let bytes = unhex(&answer).and_then(|bytes| Option::<Vec<u8>>::decode(&mut bytes.as_slice()).ok().flatten());
    let bytes = bytes.ok_or_else(|| ChainError::Protocol("the node has no metadata of version 15".to_owned()))?;
    let made = tokio::task::spawn_blocking(move || {
        Runtime::new(&bytes, version.spec_version, version.transaction_version, genesis)
    });
    let made = made.await.map_err(|e| ChainError::Protocol(e.to_string()))?;
    made.map_err(ChainError::from)
}

pub(super) fn hex0x(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    hex::decode(text.strip_prefix("0x")?).ok()
}

fn hash(text: String) -> Result<Hash32, ChainError> {
    let bytes = unhex(&text).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.map(Hash32).ok_or_else(|| ChainError::Protocol(format!("{text:?} is no hash of a block")))
}
