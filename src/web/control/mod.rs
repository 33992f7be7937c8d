//! The control socket: what an operator asks of a running node, and tells it to do. HTTP/1.1 with JSON on
//! `{data_dir}/control.sock`, for the node's own user and root.
//!
//! | method and path, below `/v1` | role | answer |
//! |---|---|---|
//! | `GET /status` | both | [`api::Status`] |
//! | `GET /standing` | both | [`OwnStanding`]: how the node's own neuron stands |
//! | `GET /actors` | both | each actor's vitals and its own snapshot |
//! | `GET /leases`, `GET /leases/{id}` | both | [`api::Leases`], [`api::LeaseHistory`] |
//! | `POST /leases` with [`api::RentWish`] | validator | the lease, once its container runs |
//! | `POST /candidates` with [`api::RentWish`] | validator | [`api::Candidates`]: who would be asked for it, and why |
//! | `DELETE /leases/{id}` with [`api::ReleaseWish`] | both | the lease, once its container is gone |
//! | `POST /leases/{id}/change` with [`LeaseChange`](crate::wire::synapse::LeaseChange), `POST /leases/{id}/renew` with [`api::RenewWish`] | validator | the lease, once its miner has confirmed it |
//! | `GET /penalties`, `POST /penalties`, `DELETE /penalties/{subject}` | both | [`api::Penalties`], [`api::Lifted`] |
//! | `GET /explain/{hotkey}` | validator | [`crate::store::explain::Explanation`] |
//! | `GET /canaries`, `POST /canaries/{hotkey}` | validator | [`api::Canaries`]; the canary rental, once it has ended |
//! | `GET /config`, `POST /reload` | both | [`api::Config`], [`crate::settings::reload::Changes`] |
//! | `POST /maintenance`, `POST /drain` | both | [`Duty`] |
//! | `GET /table` | validator | [`api::Table`] |
//!
//! Errors are [`ErrorReply`] with a [`Code`]. [`ControlClient`] is the other side.
//!
//! Reading order: `socket` (the file), `api` (bodies), `error`, `caller` (who may, and bodies of requests), `node`,
//! `leases` and `table` (the paths), `client`.

pub mod api;
mod caller;
mod canaries;
mod client;
mod error;
mod leases;
mod node;
mod penalties;
pub mod socket;
mod table;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::{HttpResponse, web};
use tokio::sync::watch;

use crate::actors::blacklist_guard::BlacklistGuard;
use crate::actors::duty::Duty;
use crate::actors::journal::Journal;
use crate::actors::miner::allocation_manager::AllocationManager as MinerAllocations;
use crate::actors::reloader::Reloader;
use crate::actors::validator::allocation_manager::AllocationManager as ValidatorAllocations;
use crate::actors::validator::canary_runner::CanaryRunner;
use crate::actors::validator::challenge_runner::ChallengeRunner;
use crate::actors::validator::memory_runner::MemoryRunner;
use crate::actors::validator::weight_setter::WeightSetter;
use crate::chain::standing::OwnStanding;
use crate::clock::SharedClock;
use crate::ids::Hotkey;
use crate::messages::chain_watcher::ChainView;
use crate::messages::miner::allocation_manager as miner;
use crate::messages::validator::allocation_manager as validator;
use crate::runtime::{Handle, TreeView};
use crate::store::Role;
use crate::telemetry::NodeMetrics;
use crate::web::Health;

pub use client::{ClientError, ControlClient};
pub use error::{Code, ControlError, ErrorReply};
pub use table::read_table;

use caller::Caller;

/// Largest body of a request, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// The actors of a validator that the socket asks.
#[derive(Debug, Clone)]
pub struct ValidatorActors {
    /// Whom it asks.
    pub guard: Handle<BlacklistGuard>,
    /// Its judgements.
    pub challenges: Handle<ChallengeRunner>,
    /// Its judgements of memory.
    pub memory: Handle<MemoryRunner>,
    /// Its scores and weights.
    pub weights: Handle<WeightSetter>,
    /// Its rentals.
    pub allocations: Handle<ValidatorAllocations>,
    /// Its canary rentals.
    pub canaries: Handle<CanaryRunner>,
}

/// The actors of one role that the socket asks.
#[derive(Debug, Clone)]
pub enum RoleActors {
    /// A miner's.
    Miner {
        /// Its rentals.
        allocations: Handle<MinerAllocations>,
    },
    /// A validator's.
    Validator(ValidatorActors),
}

impl RoleActors {
    /// How many leases have not ended; `None` if the actor does not say so now.
    pub(crate) async fn open_leases(&self) -> Option<usize> {
        const ASK: Duration = Duration::from_secs(2);
        let leases = match self {
            RoleActors::Miner { allocations } => allocations.ask(miner::ListLeases, ASK).await,
            RoleActors::Validator(actors) => actors.allocations.ask(validator::ListLeases, ASK).await,
        };
        leases.ok().map(|leases| leases.len())
    }
}

/// What the paths share.
pub struct ControlState {
    /// Miner or validator.
    pub role: Role,
    /// The key the node acts with.
    pub hotkey: Hotkey,
    /// Random text that no other start of any node has.
    pub instance: String,
    /// When the node started, in milliseconds since the Unix epoch.
    pub started_at_ms: u64,
    /// The data directory.
    pub data_dir: PathBuf,
    /// The node's actors.
    pub view: TreeView,
    /// Whether the node is ready.
    pub health: Arc<Health>,
    /// The chain as the node sees it.
    pub chain: watch::Receiver<Option<Arc<ChainView>>>,
    /// How its own neuron stands.
    pub standing: watch::Receiver<Option<Arc<OwnStanding>>>,
    /// The way to the database.
    pub journal: Handle<Journal>,
    /// Who may call and who is asked.
    pub guard: Handle<BlacklistGuard>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
    /// Reads the settings again.
    pub reloader: Arc<Reloader>,
    /// The operator's word on new leases and on the node's end.
    pub duty: Arc<watch::Sender<Duty>>,
    /// The actors of its role, once the node is assembled.
    pub actors: Arc<OnceLock<RoleActors>>,
}

impl ControlState {
    fn actors(&self) -> Result<&RoleActors, ControlError> {
        let starting = || ControlError::new(Code::Unavailable, "the node is starting", "ask again in a moment");
        self.actors.get().ok_or_else(starting)
    }

    fn validator(&self) -> Result<&ValidatorActors, ControlError> {
        match self.actors()? {
            RoleActors::Validator(actors) => Ok(actors),
            RoleActors::Miner { .. } => {
                Err(ControlError::new(Code::WrongRole, "this node is a miner", "ask a validator: --role validator"))
            }
        }
    }
}

/// Registers the paths.
pub fn routes(state: ControlState) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + Sync + 'static {
    let state = Arc::new(state);
    move |config: &mut web::ServiceConfig| {
        let at = |path: &str| web::resource(path).default_service(web::to(no_such_path));
        config
            .app_data(web::Data::new(state.clone()))
            .service(at("/v1/status").route(web::get().to(node::status)))
            .service(at("/v1/standing").route(web::get().to(node::standing)))
            .service(at("/v1/actors").route(web::get().to(node::actors)))
            .service(at("/v1/config").route(web::get().to(node::config)))
            .service(at("/v1/reload").route(web::post().to(node::reload)))
            .service(at("/v1/maintenance").route(web::post().to(node::maintenance)))
            .service(at("/v1/drain").route(web::post().to(node::drain)))
            .service(at("/v1/penalties").route(web::get().to(penalties::list)).route(web::post().to(penalties::add)))
            .service(at("/v1/penalties/{subject:.+}").route(web::delete().to(penalties::lift)))
            .service(at("/v1/explain/{hotkey}").route(web::get().to(node::explain)))
            .service(at("/v1/table").route(web::get().to(node::table)))
            .service(at("/v1/canaries").route(web::get().to(canaries::list)))
            .service(at("/v1/canaries/{hotkey}").route(web::post().to(canaries::run)))
            .service(at("/v1/candidates").route(web::post().to(leases::candidates)))
            .service(at("/v1/leases").route(web::get().to(leases::list)).route(web::post().to(leases::rent)))
            .service(at("/v1/leases/{id}/change").route(web::post().to(leases::change)))
            .service(at("/v1/leases/{id}/renew").route(web::post().to(leases::renew)))
            .service(at("/v1/leases/{id}").route(web::get().to(leases::show)).route(web::delete().to(leases::release)))
            .default_service(web::to(no_such_path));
    }
}

async fn no_such_path(caller: Caller, request: actix_web::HttpRequest) -> Result<HttpResponse, ControlError> {
    drop(caller);
    let message = format!("there is no {} {}", request.method(), request.path());
    Err(ControlError::new(Code::NoSuchPath, message, "check that program and node are of one version"))
}
