//! JSON-RPC by HTTP, for tests: what they ask the node must not depend on the client that they test.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

/// No call of a test takes longer. A block of 256 neurons with an epoch is a few seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// The node's error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Option<String>,
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}{}",
            self.code,
            self.message,
            self.data.as_ref().map(|d| format!(" ({d})")).unwrap_or_default()
        )
    }
}

/// Where to ask.
#[derive(Debug)]
pub(crate) struct Rpc {
    url: String,
    http: reqwest::Client,
    last: AtomicU64,
}

impl Rpc {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
        Rpc { url: format!("http://{address}"), http, last: AtomicU64::new(0) }
    }

    /// The result, or the node's error. Anything else fails the test.
    pub(crate) async fn call(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        #[derive(Deserialize)]
        struct Answer {
            id: u64,
            result: Option<Value>,
            error: Option<RpcError>,
        }
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        let sent = self.http.post(&self.url).json(&request).send().await;
        let reply = sent.unwrap_or_else(|e| panic!("{method}: {e:?}"));
        let answer: Answer = reply.json().await.unwrap_or_else(|e| panic!("{method}: {e:?}"));
        assert_eq!(answer.id, id, "{method}: the answer to another request");
        match answer.error {
            Some(error) => Err(error),
            None => Ok(answer.result.unwrap_or(Value::Null)),
        }
    }

    /// The result of a call that the node must not refuse.
    pub(crate) async fn ask(&self, method: &str, params: Value) -> Value {
        self.call(method, params).await.unwrap_or_else(|e| panic!("{method}: {e}"))
    }
}
