//! The Docker Engine, by its API over a Unix socket.
//!
//! Read `body` (what a container may do), [`images`] (which images may run), [`share`] (how much of the machine a lease
//! gets), `protect` (what holds its disk and network), then `create` and `remove`.
//!
//! # Invariants
//! - The labels tell everything; of a container only its id is kept on our side. Its name is made of lease and fencing epoch,
//!   so a second one of the same cannot be made.
//! - That a container is gone says nothing of its processes: an engine that was killed may forget it while they run on. They are ended by
//!   their control group, which that id names, before anything that holds them goes (`left`).
//! - The container comes first and goes last: its network and files are never without it for long, and what a crash leaves
//!   behind is found by listing containers. What it leaves behind of networks is swept at the start.
//! - Who gets which device and port is decided under a lock that all engines of this machine share (`lock`).
//! - An engine that is not the one from before, or has another data directory, is not believed (`home`): that its list is empty
//!   says nothing of our containers.
//! - An error that says that nothing was changed is true: what a call began is taken back first, or the error is
//!   [`EngineError::Unclear`].
//! - Nothing inside a container is asked or trusted: it is killed, its files are put there by the engine's archive call. What
//!   [`profile`] runs is an image of the operator's, in a container that is no lease's.

mod archive;
mod body;
mod create;
mod fault;
mod follow;
pub mod gpus;
mod home;
mod host_key;
pub mod images;
mod labels;
mod left;
mod lock;
pub mod ports;
pub mod profile;
mod protect;
mod pulled;
mod pulls;
mod remove;
mod session;
pub mod share;
mod state;
pub mod subnet;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bollard::body_full;
use bollard::query_parameters::{KillContainerOptions, ListContainersOptions, UploadToContainerOptions};
use tokio::sync::watch;

use super::{Container, ContainerEngine, ContainerSpec, ContainerState, EngineError, Grant};
use crate::host::Policy;
use crate::host::guard::{Guard, GuardOptions};
use crate::ids::{Hotkey, LeaseId};
use crate::telemetry::NodeMetrics;
use archive::{Entry, archive};
use fault::Fault;
use home::Home;
use images::{ImagePolicy, Reference};
use labels::{Found, key_of};
use left::Record;
use lock::HostLock;
use ports::PortRange;
use profile::Tried;
pub use pulls::PullLimits;
use pulls::Pulls;
use session::{CHANGE, Connection, LOOK, Session, within};
use share::SharePolicy;
use subnet::AddressBlock;

/// How long the making of a container may take beside the waits that settings bound: locks, files, and the engine's own work.
pub const WORK: Duration = Duration::from_secs(20);
/// The file that says which engine this miner's containers are in.
const HOME: &str = "container-engine.json";
/// The file that says which images renters' wishes brought.
const PULLED: &str = "pulled-images.json";
/// The directory that says which containers there may be processes of.
const RECORD: &str = "containers";
/// The file of the lock that is shared by those who make a container.
const MAKING: &str = "container-making.lock";
/// How long the SSH server of a container that is started again may take before its program is put there anew.
const OWN_SSHD: Duration = Duration::from_secs(5);
/// The largest SSH server that is taken, bytes.
const MAX_SSHD: u64 = 64 << 20;

/// Leases whose container is being made, started or removed by this process: one call at a time, of all handles of a miner. No other
/// process is this miner.
static BUSY: LazyLock<Mutex<HashMap<(Hotkey, LeaseId), Turn>>> = LazyLock::new(Mutex::default);
/// Who holds it has its turn.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// What an engine is told.
#[derive(Debug, Clone)]
pub struct DockerOptions {
    /// Whose containers these are.
    pub miner: Hotkey,
    /// The engine's socket.
    pub socket: PathBuf,
    /// The file of the lock that all engines of this machine share.
    pub lock: PathBuf,
    /// The SSH server that is put into containers.
    pub sshd: PathBuf,
    /// Where SSH servers are published; unspecified: on all addresses.
    pub bind: IpAddr,
    /// At which ports.
    pub ports: PortRange,
    /// How long an SSH server may take to answer after its container was started.
    pub ssh_ready: Duration,
    /// The runtime, where it is not the engine's own choice.
    pub runtime: Option<String>,
    /// The addresses of leases' networks.
    pub subnets: AddressBlock,
    /// How the machine is divided.
    pub share: SharePolicy,
    /// Which images may run.
    pub images: ImagePolicy,
    /// Those to have at hand, in the order in which they are pulled.
    pub at_hand: Vec<Reference>,
    /// The image of the original's callers, as they would get it, to be tried once it is there ([`profile`]); `None`: they get none.
    pub original_image: Option<String>,
    /// Bounds of images and their pulls.
    pub pulls: PullLimits,
    /// Where the volumes of this miner's leases are, and of no other's.
    pub volumes: PathBuf,
    /// What a lease may write for each of its devices, bytes.
    pub disk: u64,
    /// Whether a limit of what tenants write is needed.
    pub disk_quota: Policy,
    /// Whether rules for what tenants reach are needed.
    pub egress: Policy,
    /// The node's own directory: which engine its containers are in, their ids, and which images renters' wishes brought, is kept there.
    pub state: PathBuf,
}

impl DockerOptions {
    /// How long the making of a container takes at most on a machine that is well.
    pub fn longest_making(&self) -> Duration {
        self.pulls.wait.saturating_add(self.ssh_ready).saturating_add(WORK)
    }

    /// How long a call may take at most: its own work, after that of the call before it.
    pub fn longest_call(&self) -> Duration {
        self.longest_making().saturating_mul(2).saturating_add(lock::LIMIT)
    }
}

/// A handle on a Docker Engine. Other handles with the same miner, in this process or in others, show the same containers.
pub struct DockerEngine {
    options: DockerOptions,
    connection: Connection,
    lock: HostLock,
    /// Shared by those who make a container, from its volume on; what is nobody's is swept while nobody does.
    making: HostLock,
    home: Home,
    record: Record,
    pulls: Pulls,
    guard: Guard,
    me: Weak<DockerEngine>,
    /// Devices that this machine offers; 0 while it is not known.
    offered: AtomicUsize,
    changes: watch::Sender<u64>,
    tried: watch::Sender<Option<Tried>>,
    metrics: OnceLock<Arc<NodeMetrics>>,
}

impl DockerEngine {
    /// A handle. Nothing is asked of the engine yet.
    pub fn new(options: DockerOptions) -> Arc<Self> {
        let kept: Vec<Reference> = options.at_hand.iter().cloned().chain(options.images.wanted()).collect();
        Arc::new_cyclic(|me| DockerEngine {
            me: me.clone(),
            connection: Connection::to(options.socket.clone()),
            lock: HostLock::at(options.lock.clone()),
            making: HostLock::at(options.state.join(MAKING)),
            home: Home::at(options.state.join(HOME)),
            record: Record::at(options.state.join(RECORD)),
            pulls: Pulls::new(options.pulls, &kept, options.state.join(PULLED)),
            guard: Guard::new(GuardOptions {
                miner: options.miner,
                volumes: options.volumes.clone(),
                egress: options.egress,
                disk_quota: options.disk_quota,
            }),
            offered: AtomicUsize::new(0),
            changes: watch::Sender::new(0),
            tried: watch::Sender::new(None),
            metrics: OnceLock::new(),
            options,
        })
    }

    /// A handle that also follows the engine's events, sweeps what a crash left behind, and has the named images at hand,
    /// until it is dropped. Its tasks run on `runtime`.
    pub fn start(options: DockerOptions, runtime: &tokio::runtime::Handle) -> Arc<Self> {
        let engine = DockerEngine::new(options);
        runtime.spawn(follow::follow(Arc::downgrade(&engine)));
        runtime.spawn(follow::keep_images(Arc::downgrade(&engine)));
        engine
    }

    /// The image of the original's callers; `None` where they get none.
    pub fn original_image(&self) -> Option<&str> {
        self.options.original_image.as_deref()
    }

    /// The containers with these labels, ours and, where the filter allows, other miners' of this machine.
    async fn find(&self, session: &Session, filters: &[String]) -> Result<Vec<Found>, EngineError> {
        let options = ListContainersOptions {
            all: true,
            filters: Some(HashMap::from([("label".to_owned(), filters.to_vec())])),
            ..ListContainersOptions::default()
        };
        let listed = match within(LOOK, session.docker.list_containers(Some(options))).await {
            Ok(listed) => listed,
            Err(fault) => return Err(self.fault(fault).await.reading("listing containers")),
        };
        let mut found: Vec<Found> = listed
            .iter()
            .filter_map(|summary| {
                let read = labels::read(summary);
                if read.is_none() {
                    tracing::warn!(container = ?summary.id, "a container with our label has not all of ours, it is left alone");
                }
                read
            })
            .collect();
        found.sort_by(|a, b| {
            let key = |f: &Found| (f.container.labels.lease, f.container.labels.fencing_epoch);
            (key(a), &a.container.id).cmp(&(key(b), &b.container.id))
        });
        Ok(found)
    }

    /// Which engine answers now.
    async fn identity(&self, session: &Session) -> Result<home::Identity, EngineError> {
        match session.identity().await {
            Ok(identity) => Ok(identity),
            Err(fault) => Err(self.fault(fault).await.reading("asking which engine it is")),
        }
    }

    /// Sees that this is the engine that our containers are in, before that there is none of a lease means anything.
    async fn at_home(&self, session: &Session) -> Result<(), EngineError> {
        self.home.is(&self.identity(session).await?).await
    }

    /// This miner's containers of a lease.
    async fn of_lease(&self, session: &Session, lease: LeaseId) -> Result<Vec<Found>, EngineError> {
        let filters = [self.mine(), format!("{}={lease}", labels::LEASE)];
        self.find(session, &filters).await
    }

    /// This miner's container of a lease and fencing epoch; containers of other epochs only are an error.
    async fn own(&self, session: &Session, lease: LeaseId, epoch: u64) -> Result<Option<Found>, EngineError> {
        epoch_of(self.of_lease(session, lease).await?, lease, epoch)
    }

    async fn must(&self, session: &Session, lease: LeaseId, epoch: u64) -> Result<Found, EngineError> {
        self.own(session, lease, epoch).await?.ok_or(EngineError::NoContainer(lease))
    }

    /// The filter for this miner's containers, networks and events.
    fn mine(&self) -> String {
        format!("{}={}", labels::MINER, self.options.miner)
    }

    /// Notes what a fault says about the connection, and hands it on.
    async fn fault(&self, fault: Fault) -> Fault {
        let other_version = matches!(&fault, Fault::Refused(why) if why.contains("client version"));
        if matches!(fault, Fault::Down(_)) || other_version {
            self.connection.forget().await;
        }
        fault
    }

    /// The SSH server's program.
    async fn sshd(&self) -> Result<Vec<u8>, EngineError> {
        let path = &self.options.sshd;
        let unavailable = |source| EngineError::Unavailable {
            why: format!(
                "the SSH server of containers cannot be read at {}; install compute-sshd or set docker.sshd",
                path.display()
            ),
            source: Some(source),
        };
        let size = tokio::fs::metadata(path).await.map_err(unavailable)?.len();
        if size == 0 || size > MAX_SSHD {
            let why = format!("{} is no SSH server: it has {size} bytes", path.display());
            return Err(EngineError::Unavailable { why, source: None });
        }
        tokio::fs::read(path).await.map_err(unavailable)
    }

    /// Puts files into a container, running or not.
    async fn put(&self, session: &Session, id: &str, entries: &[Entry<'_>]) -> Result<(), Fault> {
        let options = UploadToContainerOptions { path: "/".to_owned(), ..UploadToContainerOptions::default() };
        let archive = body_full(archive(entries).into());
        match within(CHANGE, session.docker.upload_to_container(id, Some(options), archive)).await {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.fault(fault).await),
        }
    }

    /// Pauses or unpauses.
    async fn set_paused(&self, lease: LeaseId, epoch: u64, paused: bool) -> Result<Container, EngineError> {
        let session = self.connection.session().await?;
        let found = self.must(&session, lease, epoch).await?.container;
        let wanted = if paused { ContainerState::Paused } else { ContainerState::Running };
        if found.state == wanted {
            return Ok(found);
        }
        if found.state == ContainerState::Exited {
            return Err(EngineError::Refused(format!("the container of lease {lease} has ended; restart it")));
        }
        let (what, done) = match paused {
            true => ("pausing", within(CHANGE, session.docker.pause_container(&found.id)).await),
            false => ("unpausing", within(CHANGE, session.docker.unpause_container(&found.id)).await),
        };
        match done {
            // Another handle was faster, or the container ended: what it is now decides.
            Ok(()) | Err(Fault::Conflict(_)) => {
                let now = self.must(&session, lease, epoch).await?.container;
                match now.state == wanted {
                    true => Ok(now),
                    false => {
                        Err(EngineError::Unclear(format!("the container of lease {lease} is {:?} now", now.state)))
                    }
                }
            }
            Err(Fault::Missing(_)) => Err(EngineError::NoContainer(lease)),
            Err(fault) => Err(self.fault(fault).await.changing(what)),
        }
    }

    async fn restarted(&self, lease: LeaseId, epoch: u64) -> Result<Container, EngineError> {
        let session = self.connection.session().await?;
        let found = self.must(&session, lease, epoch).await?;
        let id = &found.container.id;
        if found.half_made {
            return Err(EngineError::Refused(format!(
                "the container of lease {lease} was never finished; create it again"
            )));
        }
        let sshd = self.sshd().await?;
        let key = key_of(&found);
        self.end_processes(&session, id, lease).await?;
        // From here on the container is not what it was: whatever fails leaves the outcome open.
        let unclear = |what: &str, why: &str| EngineError::Unclear(format!("restarting, {what}: {why}"));
        if let Err(fault) = self.hold(&session, key, id).await {
            return Err(match found.container.state {
                // It had ended, and is as it was. What its volume or its rules lack is not the tenant's doing.
                ContainerState::Exited => {
                    let why = format!("lease {}: its protections: {}", key.lease, fault.text());
                    EngineError::Unavailable { why, source: None }
                }
                ContainerState::Running | ContainerState::Paused => unclear("its protections", fault.text()),
            });
        }
        let port = found.container.ssh_port;
        // What is there is started first: where the tenant filled its disk there is no room to put anything.
        if let Err(fault) = self.started(&session, id, port, OWN_SSHD).await {
            if fault.keeps_port() {
                return Err(match found.container.state {
                    // Nothing changed, and nothing of it is the tenant's doing.
                    ContainerState::Exited => EngineError::Unavailable { why: kept_port(lease, port), source: None },
                    ContainerState::Running | ContainerState::Paused => unclear("its start", &kept_port(lease, port)),
                });
            }
            let why = fault.text();
            tracing::info!(%lease, why, "the SSH server in the container does not start, it is put there anew");
            // The tenant's root may have changed or deleted it.
            self.end_processes(&session, id, lease).await?;
            let files = [Entry { name: "sshd", mode: 0o700, content: &sshd }];
            self.put(&session, id, &files).await.map_err(|f| unclear("its SSH server", f.text()))?;
            let limit = self.options.ssh_ready;
            self.started(&session, id, port, limit).await.map_err(|fault| unclear("its start", fault.text()))?;
        }
        self.held(&session, key, id).await.map_err(|f| unclear("its protections", f.text()))?;
        Ok(Container { state: ContainerState::Running, ..found.container })
    }

    /// Ends a container's processes, if it has any.
    async fn end_processes(&self, session: &Session, id: &str, lease: LeaseId) -> Result<(), EngineError> {
        let kill = KillContainerOptions { signal: "SIGKILL".to_owned() };
        match within(CHANGE, session.docker.kill_container(id, Some(kill))).await {
            // It has ended already, or an engine that was killed thinks so.
            Ok(()) | Err(Fault::Conflict(_)) => self.end_all(id).await,
            Err(Fault::Missing(_)) => Err(EngineError::NoContainer(lease)),
            Err(fault) => Err(self.fault(fault).await.changing("ending the container's processes")),
        }
    }

    /// Starts a container and waits until one can log in, so long at most.
    async fn started(&self, session: &Session, id: &str, port: u16, limit: Duration) -> Result<(), Fault> {
        match within(CHANGE, session.docker.start_container(id, None)).await {
            Ok(()) => {
                let ready = self.ready(session, id, port, limit.min(self.options.ssh_ready));
                ready.await.map_err(Fault::Failed)
            }
            Err(fault) => Err(self.fault(fault).await),
        }
    }

    async fn granted(&self, lease: LeaseId, epoch: u64, grant: &Grant) -> Result<(), EngineError> {
        grant.check().map_err(|why| EngineError::Refused(why.to_owned()))?;
        let session = self.connection.session().await?;
        let found = self.must(&session, lease, epoch).await?;
        let (name, content) = match grant {
            Grant::UserKey(key) => ("user_key", format!("{key}\n")),
            Grant::TerminalKey(Some(key)) => ("terminal_key", format!("{key}\n")),
            // An archive cannot take a file away; an empty one lets nobody in.
            Grant::TerminalKey(None) => ("terminal_key", String::new()),
            Grant::PasswordHash(hash) => ("password_hash", format!("{hash}\n")),
        };
        let files = [Entry { name, mode: 0o600, content: content.as_bytes() }];
        match self.put(&session, &found.container.id, &files).await {
            Ok(()) => Ok(()),
            Err(Fault::Missing(_)) => Err(EngineError::NoContainer(lease)),
            // One small file either is there or is not, and a repeat is harmless; what was before may still hold.
            Err(fault) => Err(fault.changing("changing who may log in")),
        }
    }

    /// Waits until nothing else is made, started or removed for a lease by this process.
    async fn turn(&self, lease: LeaseId) -> Result<tokio::sync::OwnedMutexGuard<()>, EngineError> {
        let turn = {
            let mut busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
            busy.retain(|_, turn| Arc::strong_count(turn) > 1);
            busy.entry((self.options.miner, lease)).or_default().clone()
        };
        let limit = self.options.longest_making().saturating_add(lock::LIMIT);
        match tokio::time::timeout(limit, turn.lock_owned()).await {
            Ok(turn) => Ok(turn),
            Err(_) => {
                Err(EngineError::Unclear(format!("another call for lease {lease} has not ended within {limit:?}")))
            }
        }
    }

    /// Reports how long a stage of making a container took.
    fn stage(&self, stage: &'static str, begun: tokio::time::Instant) {
        if let Some(metrics) = self.metrics.get() {
            metrics.engine_stage(stage, begun.elapsed());
        }
    }
}

/// What to do about a port that the engine does not give up.
fn kept_port(lease: LeaseId, port: u16) -> String {
    format!(
        "the container of lease {lease} cannot start while the engine takes its port {port} for taken; an engine that was \
         killed keeps port {port} until it is started anew: restart the Docker Engine"
    )
}

/// The container of this fencing epoch among those of a lease; containers of other epochs only are an error.
fn epoch_of(found: Vec<Found>, lease: LeaseId, asked: u64) -> Result<Option<Found>, EngineError> {
    let other = found.first().map(|f| f.container.labels.fencing_epoch);
    match found.into_iter().find(|f| f.container.labels.fencing_epoch == asked) {
        Some(found) => Ok(Some(found)),
        None => match other {
            None => Ok(None),
            Some(present) => Err(EngineError::OtherEpoch { lease, present, asked }),
        },
    }
}

#[async_trait]
impl ContainerEngine for DockerEngine {
    async fn list(&self) -> Result<Vec<Container>, EngineError> {
        let session = self.connection.session().await?;
        let listed: Vec<Container> =
            self.find(&session, &[self.mine()]).await?.into_iter().map(|found| found.container).collect();
        let leases: Vec<LeaseId> = listed.iter().map(|container| container.labels.lease).collect();
        self.home.shows(&self.identity(&session).await?, &leases).await?;
        Ok(listed)
    }

    async fn create(&self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        // A caller that does not wait any longer must not leave half of the calls undone, or one under way that nobody sees.
        let (me, spec) = (self.me.clone(), spec.clone());
        let made = tokio::spawn(async move {
            let Some(engine) = me.upgrade() else { return Err(EngineError::Unclear("the engine is put away".into())) };
            let _turn = engine.turn(spec.lease).await?;
            engine.made(&spec).await
        });
        made.await.unwrap_or_else(|_| Err(EngineError::Unclear("the call ended early".into())))
    }

    async fn destroy(&self, lease: LeaseId, fencing_epoch: u64) -> Result<bool, EngineError> {
        let _turn = self.turn(lease).await?;
        self.removed(lease, fencing_epoch).await
    }

    async fn pause(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError> {
        self.set_paused(lease, fencing_epoch, true).await
    }

    async fn unpause(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError> {
        self.set_paused(lease, fencing_epoch, false).await
    }

    async fn restart(&self, lease: LeaseId, fencing_epoch: u64) -> Result<Container, EngineError> {
        let _turn = self.turn(lease).await?;
        self.restarted(lease, fencing_epoch).await
    }

    async fn grant(&self, lease: LeaseId, fencing_epoch: u64, grant: &Grant) -> Result<(), EngineError> {
        self.granted(lease, fencing_epoch, grant).await
    }

    async fn available(&self) -> Result<(), EngineError> {
        self.connection.ping().await
    }

    fn changes(&self) -> Option<watch::Receiver<u64>> {
        Some(self.changes.subscribe())
    }

    fn tried(&self) -> Option<watch::Receiver<Option<Tried>>> {
        Some(self.tried.subscribe())
    }

    fn offers(&self, devices: usize) {
        self.offered.store(devices, Ordering::Relaxed);
    }

    fn expects(&self, leases: &[LeaseId]) {
        self.home.expects(leases);
    }

    fn report_to(&self, metrics: &Arc<NodeMetrics>) {
        // A second node on one handle would be a mistake of the caller; the first keeps its numbers.
        let _ = self.metrics.set(metrics.clone());
        self.tell_protections();
    }
}
