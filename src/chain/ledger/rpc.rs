//! The ledger over HTTP: JSON, on loopback addresses only.
//!
//! | request | answer |
//! |---|---|
//! | `GET /head` | [`BlockHead`](crate::chain::BlockHead) |
//! | `GET /block/{n}` | `{"hash": hex or null}`; null for a block that does not exist yet or is too old |
//! | `GET /metagraph` | [`Metagraph`](crate::chain::Metagraph) |
//! | `GET /hyperparameters` | [`Hyperparameters`](crate::chain::Hyperparameters) |
//! | `GET /weights/{address}` | [`WeightsShown`](crate::chain::WeightsShown), or null for a hotkey without a uid |
//! | `GET /account/{address}` | [`Account`](super::Account): nonce, balance, genesis hash |
//! | `GET /health` | [`Health`](super::Health); 503 while no blocks can be made |
//! | `POST /submit` | takes a [`SignedCall`], answers [`Inclusion`](crate::chain::Inclusion) once it is in a block |
//!
//! Errors are `{"error", "detail", "rejection"}`: 422 with the chain's error name and the rejection; 400 `Malformed`,
//! 404 `NotFound`, 405 `MethodNotAllowed`, 408 `SlowBody`, 413 `TooLarge`, 503 `Stopped`, 504 `NoBlock`. Reads need no
//! key: everything on a chain is public. Changes need a signature, so being able to reach the port is no power.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{App, HttpResponse, HttpServer, web};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::call::SignedCall;
use super::node::LedgerHandle;
use super::state::State;
use crate::chain::{ChainError, Rejection};
use crate::ids::{BlockNumber, Hash32, Hotkey};

/// The largest request body that is read, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// How long a request body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);
/// How long a submitted call may wait for its block; the caller's own deadline is usually shorter.
const INCLUSION_DEADLINE: Duration = Duration::from_secs(120);
/// Connections at once.
const MAX_CONNECTIONS: usize = 256;

/// The answer of `GET /block/{n}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockHash {
    /// The hash, if the block exists and is not too old.
    pub hash: Option<Hash32>,
}

/// The body of every error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The error's name; the chain's for a refused call.
    pub error: String,
    /// What was wrong and what helps.
    pub detail: String,
    /// The refusal, if the chain refused.
    pub rejection: Option<Rejection>,
}

/// Why the RPC did not start.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// The address can be reached from elsewhere.
    #[error("the ledger listens on loopback addresses only, {0} is none; use 127.0.0.1:PORT")]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A running RPC server. It ends when this is dropped.
#[derive(Debug)]
pub struct RpcServer {
    address: SocketAddr,
    handle: actix_web::dev::ServerHandle,
    task: tokio::task::JoinHandle<()>,
}

impl RpcServer {
    /// Serves `ledger` on `address`; port 0 takes a free one. One worker thread is enough: it only reads published state
    /// and waits.
    ///
    /// # Errors
    /// If the address is not loopback or cannot be had.
    pub fn start(ledger: LedgerHandle, address: SocketAddr) -> Result<Self, RpcError> {
        if !address.ip().is_loopback() {
            return Err(RpcError::NotLoopback(address));
        }
        let bind = |source| RpcError::Bind { address, source };
        let listener = TcpListener::bind(address).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let server = HttpServer::new(move || App::new().app_data(web::Data::new(ledger.clone())).configure(routes))
            .workers(1)
            .max_connections(MAX_CONNECTIONS)
            .client_request_timeout(Duration::from_secs(5))
            .shutdown_timeout(2)
            .disable_signals()
            .listen(listener)
            .map_err(bind)?
            .run();
        let handle = server.handle();
        let task = tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "ledger rpc ended");
            }
        });
        Ok(RpcServer { address, handle, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops taking requests and ends; calls that wait for a block get 2 s.
    pub async fn stop(mut self) {
        self.handle.stop(true).await;
        let _ = (&mut self.task).await;
    }
}

impl Drop for RpcServer {
    fn drop(&mut self) {
        // The stop command is on its way as soon as `stop` is called; the future only waits for the end.
        drop(self.handle.stop(false));
    }
}

fn routes(app: &mut web::ServiceConfig) {
    let route = |path: &str, route: actix_web::Route| {
        web::resource(path).route(route).default_service(web::to(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this path takes another method".into())
        }))
    };
    app.service(route("/head", web::get().to(async |l: Ledger| read(&l, |s| s.head()))))
        .service(route("/block/{n}", web::get().to(block)))
        .service(route("/metagraph", web::get().to(async |l: Ledger| read(&l, |s| s.metagraph()))))
        .service(route("/hyperparameters", web::get().to(async |l: Ledger| read(&l, |s| s.hyperparameters().clone()))))
        .service(route("/weights/{address}", web::get().to(weights)))
        .service(route("/account/{address}", web::get().to(account)))
        .service(route("/health", web::get().to(health)))
        .service(route("/submit", web::post().to(submit)))
        .default_service(web::to(async || {
            refuse(StatusCode::NOT_FOUND, "NotFound", "the ledger has no such path".into())
        }));
}

type Ledger = web::Data<LedgerHandle>;

fn refuse(status: StatusCode, error: &str, detail: String) -> HttpResponse {
    HttpResponse::build(status).json(Refusal { error: error.to_owned(), detail, rejection: None })
}

fn refuse_for(error: &ChainError) -> HttpResponse {
    match error {
        ChainError::Rejected(r) => HttpResponse::UnprocessableEntity().json(Refusal {
            error: r.name().to_owned(),
            detail: r.text().to_owned(),
            rejection: Some(*r),
        }),
        ChainError::Unreachable(why) => refuse(StatusCode::SERVICE_UNAVAILABLE, "Stopped", why.clone()),
        other => refuse(StatusCode::SERVICE_UNAVAILABLE, "Stopped", other.to_string()),
    }
}

fn read<T: Serialize>(ledger: &LedgerHandle, value: impl FnOnce(&State) -> T) -> HttpResponse {
    match ledger.live_state() {
        Ok(state) => HttpResponse::Ok().json(value(&state)),
        Err(error) => refuse_for(&error),
    }
}

async fn block(ledger: Ledger, n: web::Path<String>) -> HttpResponse {
    match n.parse::<BlockNumber>() {
        Ok(n) => read(&ledger, |s| BlockHash { hash: s.block_hash(n) }),
        Err(_) => refuse(StatusCode::BAD_REQUEST, "Malformed", "expected a block number after /block/".into()),
    }
}

async fn weights(ledger: Ledger, address: web::Path<String>) -> HttpResponse {
    match address.parse::<Hotkey>() {
        Ok(who) => read(&ledger, |s| s.weights_shown(&who)),
        Err(e) => refuse(StatusCode::BAD_REQUEST, "Malformed", format!("the address after /weights/: {e}")),
    }
}

async fn account(ledger: Ledger, address: web::Path<String>) -> HttpResponse {
    match address.parse::<Hotkey>() {
        Ok(who) => match ledger.account(who).await {
            Ok(account) => HttpResponse::Ok().json(account),
            Err(error) => refuse_for(&error),
        },
        Err(e) => refuse(StatusCode::BAD_REQUEST, "Malformed", format!("the address after /account/: {e}")),
    }
}

async fn health(ledger: Ledger) -> HttpResponse {
    let health = ledger.health();
    let status = if health.degraded.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).json(health)
}

async fn submit(ledger: Ledger, body: web::Payload) -> HttpResponse {
    let body = match tokio::time::timeout(BODY_DEADLINE, read_body(body)).await {
        Ok(Ok(body)) => body,
        Ok(Err(refusal)) => return refusal,
        Err(_) => return refuse(StatusCode::REQUEST_TIMEOUT, "SlowBody", "the body took too long".into()),
    };
    let signed: SignedCall = match serde_json::from_slice(&body) {
        Ok(signed) => signed,
        Err(e) => return refuse(StatusCode::BAD_REQUEST, "Malformed", format!("not a signed call: {e}")),
    };
    match tokio::time::timeout(INCLUSION_DEADLINE, ledger.submit(signed)).await {
        Ok(Ok(inclusion)) => HttpResponse::Ok().json(inclusion),
        Ok(Err(error)) => refuse_for(&error),
        Err(_) => refuse(
            StatusCode::GATEWAY_TIMEOUT,
            "NoBlock",
            "no block took the call in time; it may still be included".into(),
        ),
    }
}

async fn read_body(mut payload: web::Payload) -> Result<Vec<u8>, HttpResponse> {
    let mut body = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|e| refuse(StatusCode::BAD_REQUEST, "Malformed", format!("the body: {e}")))?;
        if body.len() + chunk.len() > MAX_BODY {
            let detail = format!("a call has at most {MAX_BODY} bytes");
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", detail));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
