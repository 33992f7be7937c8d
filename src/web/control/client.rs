//! The other side of the control socket: typed calls with deadlines.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::api::{
    Canaries, Candidates, Config, DrainWish, LeaseHistory, Leases, Lifted, MaintenanceWish, Penalties, PenaltyWish,
    RenewWish, RentWish, Status, Table,
};
use super::error::ErrorReply;
use super::{ControlError, socket};
use crate::actors::duty::Duty;
use crate::admission::Subject;
use crate::chain::standing::OwnStanding;
use crate::ids::{Hotkey, LeaseId};
use crate::lease::Lease;
use crate::messages::validator::allocation_manager::RentError;
use crate::settings::reload::Changes;
use crate::store::explain::Explanation;
use crate::store::records::CanaryRow;
use crate::telemetry::error_chain;
use crate::wire::synapse::LeaseChange;

/// How long a call may take that has no deadline of its own.
const CALL: Duration = Duration::from_secs(10);
/// Largest answer that is read, in bytes.
const MAX_REPLY: usize = 16 << 20;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens on it: no node runs on this data directory.
    #[error("no node runs in {}: {reason}", dir.display())]
    NotRunning {
        /// The data directory.
        dir: PathBuf,
        /// What was found.
        reason: &'static str,
    },
    /// The socket belongs to another user.
    #[error("no permission to use {}: run this as the user that runs the node", socket.display())]
    Permission {
        /// The socket.
        socket: PathBuf,
    },
    /// No answer in time. Whether the node did what was asked is not known.
    #[error("no answer from the node in {} within {deadline:?}", dir.display())]
    Timeout {
        /// The data directory.
        dir: PathBuf,
        /// How long was waited.
        deadline: Duration,
    },
    /// The connection broke. Whether the node did what was asked is not known.
    #[error("the connection to the node in {} broke: {reason}", dir.display())]
    Broken {
        /// The data directory.
        dir: PathBuf,
        /// How.
        reason: String,
    },
    /// The answer is not one of this program's version.
    #[error("the node in {} answered something unexpected: {reason}", dir.display())]
    Unexpected {
        /// The data directory.
        dir: PathBuf,
        /// What was wrong with it.
        reason: String,
    },
    /// The node answered that it does not do this.
    #[error(transparent)]
    Node(#[from] ControlError),
}

impl ClientError {
    /// Whether the node certainly did nothing, because it was never reached.
    pub fn is_not_running(&self) -> bool {
        matches!(self, ClientError::NotRunning { .. })
    }
}

/// For programs that rent: what the validator said of the rental, or that it did not answer.
impl From<ClientError> for RentError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Node(ControlError { rent: Some(rent), .. }) => *rent,
            other => RentError::Unavailable(other.to_string()),
        }
    }
}

/// Calls a node by its data directory. One connection for each call: the node may end and start again between two.
#[derive(Debug, Clone)]
pub struct ControlClient {
    dir: PathBuf,
}

impl ControlClient {
    /// A client of the node with this data directory. Nothing is opened yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        ControlClient { dir: dir.into() }
    }

    /// The data directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The node in short.
    ///
    /// # Errors
    /// [`ClientError`], as for every other call.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// How the node's own neuron stands.
    ///
    /// # Errors
    /// [`ClientError`]; [`Code::Unavailable`](super::Code::Unavailable) before the chain was read.
    pub async fn standing(&self) -> Result<OwnStanding, ClientError> {
        self.get("/v1/standing").await
    }

    /// Each actor's vitals and its own snapshot, by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn actors(&self) -> Result<serde_json::Map<String, serde_json::Value>, ClientError> {
        self.get("/v1/actors").await
    }

    /// The leases that have not ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn leases(&self) -> Result<Leases, ClientError> {
        self.get("/v1/leases").await
    }

    /// One lease with its steps.
    ///
    /// # Errors
    /// [`ClientError`]; [`Code::UnknownLease`](super::Code::UnknownLease) if there is none.
    pub async fn lease(&self, id: LeaseId) -> Result<LeaseHistory, ClientError> {
        self.get(&format!("/v1/leases/{id}")).await
    }

    /// Rents; answers when the container runs.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::Timeout`] and [`ClientError::Broken`] a lease may have been made.
    pub async fn rent(&self, wish: &RentWish, deadline: Duration) -> Result<Lease, ClientError> {
        self.send(Method::POST, "/v1/leases", Some(wish), deadline).await
    }

    /// Who would be asked for this rental now, in which order and why. Nothing is set aside.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn candidates(&self, wish: &RentWish) -> Result<Candidates, ClientError> {
        self.send(Method::POST, "/v1/candidates", Some(wish), CALL).await
    }

    /// Ends a lease; answers when the miner confirmed it. A repeat is answered the same.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn release(&self, id: LeaseId, deadline: Duration) -> Result<Lease, ClientError> {
        self.send(Method::DELETE, &format!("/v1/leases/{id}"), None::<&()>, deadline).await
    }

    /// Changes the container of a running lease; answers when the miner confirmed it.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::Timeout`] and [`ClientError::Broken`] it may have been done.
    pub async fn change(&self, id: LeaseId, change: &LeaseChange, deadline: Duration) -> Result<Lease, ClientError> {
        self.send(Method::POST, &format!("/v1/leases/{id}/change"), Some(change), deadline).await
    }

    /// Lets a lease last longer; answers when the miner confirmed it.
    ///
    /// # Errors
    /// [`ClientError`]. After [`ClientError::Timeout`] and [`ClientError::Broken`] it may have been done.
    pub async fn renew(&self, id: LeaseId, wish: &RenewWish, deadline: Duration) -> Result<Lease, ClientError> {
        self.send(Method::POST, &format!("/v1/leases/{id}/renew"), Some(wish), deadline).await
    }

    /// Ends a lease of this miner against its renter's will; answers when the container is gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn force_release(&self, id: LeaseId, reason: &str, deadline: Duration) -> Result<Lease, ClientError> {
        let encoded: String = reason.bytes().map(|b| format!("%{b:02x}")).collect();
        let path = format!("/v1/leases/{id}?force=true&reason={encoded}");
        self.send(Method::DELETE, &path, None::<&()>, deadline).await
    }

    /// What the validator thinks of each neuron.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn table(&self) -> Result<Table, ClientError> {
        self.get("/v1/table").await
    }

    /// The settings in force, without secrets.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn config(&self) -> Result<Config, ClientError> {
        self.get("/v1/config").await
    }

    /// Reads the settings again.
    ///
    /// # Errors
    /// [`ClientError`]; [`Code::Refused`](super::Code::Refused) when nothing was changed because of a problem.
    pub async fn reload(&self) -> Result<Changes, ClientError> {
        self.send(Method::POST, "/v1/reload", None::<&()>, CALL).await
    }

    /// Begins or ends maintenance.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn maintenance(&self, wish: &MaintenanceWish) -> Result<Duty, ClientError> {
        self.send(Method::POST, "/v1/maintenance", Some(wish), CALL).await
    }

    /// Begins a drain; the answer comes at once, the end later.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain(&self, wish: DrainWish) -> Result<Duty, ClientError> {
        self.send(Method::POST, "/v1/drain", Some(&wish), CALL).await
    }

    /// The last canary rentals, the latest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn canaries(&self) -> Result<Canaries, ClientError> {
        self.get("/v1/canaries").await
    }

    /// Runs a canary rental at this miner; answers when it has ended.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn canary(&self, miner: Hotkey, deadline: Duration) -> Result<CanaryRow, ClientError> {
        self.send(Method::POST, &format!("/v1/canaries/{miner}"), None::<&()>, deadline).await
    }

    /// The penalties in force.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn penalties(&self) -> Result<Penalties, ClientError> {
        self.get("/v1/penalties").await
    }

    /// Refuses a peer for a while.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn penalise(&self, wish: &PenaltyWish) -> Result<Penalties, ClientError> {
        self.send(Method::POST, "/v1/penalties", Some(wish), CALL).await
    }

    /// Ends every penalty of a hotkey or an address.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn lift(&self, subject: Subject) -> Result<Lifted, ClientError> {
        self.send(Method::DELETE, &format!("/v1/penalties/{subject}"), None::<&()>, CALL).await
    }

    /// Why a miner has its score.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn explain(&self, hotkey: Hotkey) -> Result<Explanation, ClientError> {
        self.get(&format!("/v1/explain/{hotkey}")).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None::<&()>, CALL).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        deadline: Duration,
    ) -> Result<T, ClientError> {
        // Held until the answer is there: the socket's short path goes through it.
        let reach = socket::Reach::new(&self.dir).map_err(|error| self.unreachable(&error))?;
        if let Err(error) = std::fs::symlink_metadata(reach.path()) {
            return Err(self.unreachable(&error));
        }
        let client = Client::builder().no_proxy().unix_socket(reach.path()).build();
        let client = client.map_err(|e| self.broken(error_chain(&e)))?;
        let request = client.request(method, format!("http://control{path}"));
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        match tokio::time::timeout(deadline, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Timeout { dir: self.dir.clone(), deadline }),
        }
    }

    async fn exchange<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ClientError> {
        let mut reply = request.send().await.map_err(|error| match io_kind(&error) {
            Some(
                kind @ (io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused),
            ) => self.unreachable(&kind.into()),
            _ => self.broken(error_chain(&error)),
        })?;
        let mut bytes = Vec::new();
        while let Some(chunk) = reply.chunk().await.map_err(|e| self.broken(error_chain(&e)))? {
            if bytes.len() + chunk.len() > MAX_REPLY {
                return Err(self.unexpected(format!("more than {MAX_REPLY} bytes")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if reply.status().is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| self.unexpected(e.to_string()));
        }
        match serde_json::from_slice::<ErrorReply>(&bytes) {
            Ok(reply) => Err(ClientError::Node(reply.error)),
            Err(_) => Err(self.unexpected(format!("status {}", reply.status()))),
        }
    }

    fn unreachable(&self, error: &io::Error) -> ClientError {
        let not_running = |reason| ClientError::NotRunning { dir: self.dir.clone(), reason };
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => not_running("there is no control.sock"),
            io::ErrorKind::ConnectionRefused => not_running("nobody listens on control.sock any more"),
            io::ErrorKind::PermissionDenied => ClientError::Permission { socket: socket::path(&self.dir) },
            _ => self.broken(error.to_string()),
        }
    }
    fn broken(&self, reason: String) -> ClientError {
        ClientError::Broken { dir: self.dir.clone(), reason }
    }
    fn unexpected(&self, reason: String) -> ClientError {
        ClientError::Unexpected { dir: self.dir.clone(), reason }
    }
}

/// The kind of the I/O error at the bottom of an error, if there is one.
fn io_kind(error: &(dyn std::error::Error + 'static)) -> Option<io::ErrorKind> {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>())
        .map(io::Error::kind)
}
