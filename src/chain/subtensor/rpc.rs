//! One connection to a node of the chain: JSON-RPC over a WebSocket.
//!
//! Invariants: every wait has a deadline; what the node sends is bounded in size; every call is counted. A connection that
//! broke stays broken: whoever holds it opens another one ([`super::link`]).
//!
//! Design notes: a socket whose other side is gone without a word is found out by pings of the WebSocket, also while
//! nothing is asked, and by the deadlines of calls. A deadline that passes condemns the connection: the node may be slow,
//! but whether it is cannot be told from here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use subxt::ext::jsonrpsee::core::client::{Client, ClientT, Error as ClientError, Subscription, SubscriptionClientT};
use subxt::ext::jsonrpsee::core::params::ArrayParams;
use subxt::ext::jsonrpsee::ws_client::{PingConfig, WsClientBuilder};

use crate::chain::ChainError;

/// The largest answer that is read, in bytes: the metadata in hex is the largest, below one mebibyte.
pub const MAX_ANSWER: u32 = 8 << 20;
/// Calls of one connection that may wait for an answer.
const CONCURRENT: usize = 64;
/// Notices of one subscription that may wait to be read; the connection's reader drops a subscription beyond it.
const NOTICES: usize = 256;
/// Silence after which the other side counts as gone, in deadlines; a ping goes out with each deadline. It is looked at once in as
/// much time again, so a socket that died without a word is given up after [`SILENCE`] to twice that.
const SILENCE: u32 = 2;

/// Every method that is called: the values of a metric's label.
pub const METHODS: [&str; 14] = [
    "author_submitAndWatchExtrinsic",
    "chain_getBlock",
    "chain_getBlockHash",
    "chain_getFinalizedHead",
    "chain_getHeader",
    "chain_subscribeFinalizedHeads",
    "chain_subscribeNewHeads",
    "state_call",
    "state_getKeysPaged",
    "state_getRuntimeVersion",
    "state_queryStorageAt",
    "state_subscribeRuntimeVersion",
    "system_accountNextIndex",
    "system_health",
];
/// What a call can come to, as a metric's label: an answer, an error of the node or an answer that is none, a deadline that
/// passed, a connection that broke.
pub const OUTCOMES: [&str; 4] = ["ok", "error", "timeout", "broken"];

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The node answered with an error of its own.
    #[error("{method}: the node says {message:?} (code {code}){}", data.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
    Call {
        /// What was called.
        method: &'static str,
        /// The JSON-RPC code.
        code: i32,
        /// The node's words.
        message: String,
        /// What it adds to them.
        data: Option<String>,
    },
    /// No answer in time.
    #[error("{method}: no answer within {}", humantime::format_duration(*after))]
    Deadline {
        /// What was called.
        method: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The connection broke, or could not be made.
    #[error("{0}")]
    Broken(String),
    /// An answer that is none.
    #[error("{method}: {why}")]
    Garbage {
        /// What was called.
        method: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl From<RpcError> for ChainError {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Deadline { after, .. } => ChainError::Deadline(after),
            RpcError::Broken(why) => ChainError::Unreachable(why),
            other => ChainError::Protocol(other.to_string()),
        }
    }
}

/// How often each method was called, by all connections of a node's client.
#[derive(Debug, Clone, Default)]
pub struct RpcCounts(Arc<[[AtomicU64; OUTCOMES.len()]; METHODS.len()]>);

impl RpcCounts {
    fn add(&self, method: &'static str, outcome: &'static str) {
        let place = |all: &[&str], one| all.iter().position(|known| *known == one);
        let counter = place(&METHODS, method)
            .and_then(|method| self.0.get(method))
            .zip(place(&OUTCOMES, outcome))
            .and_then(|(of_method, outcome)| of_method.get(outcome));
        debug_assert!(counter.is_some(), "{method} is missing in METHODS, or {outcome} in OUTCOMES");
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Method of [`METHODS`], outcome of [`OUTCOMES`] and count, for all of them.
    pub fn all(&self) -> Vec<(&'static str, &'static str, u64)> {
        let rows = METHODS.iter().zip(self.0.iter());
        rows.flat_map(|(method, counts)| {
            OUTCOMES.iter().zip(counts).map(|(outcome, count)| (*method, *outcome, count.load(Ordering::Relaxed)))
        })
        .collect()
    }

    /// How often a method was called, whatever came of it.
    pub fn of(&self, method: &str) -> u64 {
        self.all().iter().filter(|(of, ..)| *of == method).map(|(.., count)| count).sum()
    }
}

/// A connection. It ends when it is dropped.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    deadline: Duration,
    counts: RpcCounts,
}

impl Connection {
    /// Connects; `deadline` is for that, and for each call later.
    ///
    /// # Errors
    /// [`RpcError::Broken`] with the reason, or [`RpcError::Deadline`].
    pub async fn open(endpoint: &str, deadline: Duration, counts: RpcCounts) -> Result<Self, RpcError> {
        let every = deadline.max(Duration::from_millis(1));
        let pings =
            PingConfig::new().ping_interval(every).inactive_limit(every.saturating_mul(SILENCE)).max_failures(1);
        let builder = WsClientBuilder::default()
            .max_response_size(MAX_ANSWER)
            .max_concurrent_requests(CONCURRENT)
            .max_buffer_capacity_per_subscription(NOTICES)
            .request_timeout(deadline)
            .connection_timeout(deadline)
            .set_tcp_no_delay(true)
            .enable_ws_ping(pings);
        match tokio::time::timeout(deadline, builder.build(endpoint)).await {
            Ok(Ok(client)) => Ok(Connection { client, deadline, counts }),
            Ok(Err(error)) => Err(RpcError::Broken(shortened(&crate::telemetry::error_chain(&error)))),
            Err(_) => Err(RpcError::Deadline { method: "connect", after: deadline }),
        }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn call<T: DeserializeOwned>(&self, method: &'static str, params: ArrayParams) -> Result<T, RpcError> {
        let answer = tokio::time::timeout(self.deadline, self.client.request::<T, _>(method, params)).await;
        self.told(method, answer)
    }

    /// Subscribes to notices.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn subscribe<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: ArrayParams,
        unsubscribe: &'static str,
    ) -> Result<Subscription<T>, RpcError> {
        let answer =
            tokio::time::timeout(self.deadline, self.client.subscribe::<T, _>(method, params, unsubscribe)).await;
        self.told(method, answer)
    }

    /// Waits until the connection is lost; says why.
    pub async fn lost(&self) -> String {
        shortened(&crate::telemetry::error_chain(&self.client.on_disconnect().await))
    }

    fn told<T>(
        &self,
        method: &'static str,
        answer: Result<Result<T, ClientError>, tokio::time::error::Elapsed>,
    ) -> Result<T, RpcError> {
        let told = match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.error(method, error)),
            Err(_) => Err(RpcError::Deadline { method, after: self.deadline }),
        };
        self.counts.add(
            method,
            match &told {
                Ok(_) => "ok",
                Err(RpcError::Call { .. } | RpcError::Garbage { .. }) => "error",
                Err(RpcError::Deadline { .. }) => "timeout",
                Err(RpcError::Broken(_)) => "broken",
            },
        );
        told
    }

    fn error(&self, method: &'static str, error: ClientError) -> RpcError {
        match error {
            ClientError::Call(said) => RpcError::Call {
                method,
                code: said.code(),
                message: shortened(said.message()),
                data: said.data().map(|data| shortened(data.get().trim_matches('"'))),
            },
            ClientError::RequestTimeout => RpcError::Deadline { method, after: self.deadline },
            ClientError::ParseError(why) => RpcError::Garbage { method, why: shortened(&why.to_string()) },
            ClientError::InvalidSubscriptionId => {
                RpcError::Garbage { method, why: "the subscription has no usable id".to_owned() }
            }
            other => RpcError::Broken(format!("{method}: {}", shortened(&crate::telemetry::error_chain(&other)))),
        }
    }
}

/// A node's words go to the log: as one line, and not all of them, if there are many.
fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    crate::telemetry::printable(text, MOST)
}
