//! Making a container: image, container, network, files, start, and waiting until one can log in.
//!
//! Each step may be the last that a crash lets us take; what is there then is found by its labels, and is finished by the next
//! `create` of the same lease and epoch, or destroyed. Nobody was told of it, so a half-made one is made again.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::CreateContainerOptions;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::archive::Entry;
use super::body::{Plan, body};
use super::fault::{Fault, one_line};
use super::host_key::HostKey;
use super::labels::{self, Found};
use super::ports::can_bind;
use super::protect::BRIDGE_NAME;
use super::pulls::Tally;
use super::session::{CHANGE, LOOK, Session, within};
use super::share::{Share, share};
use super::{DockerEngine, epoch_of};
use crate::host::firewall::Bridge;
use crate::host::quota::{Prepared, VolumeKey};
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::banner::ssh_greets;
use crate::lease::engine::{Container, ContainerSpec, ContainerState, EngineError, Labels};
use crate::telemetry::NodeMetrics;

/// Attempts with other ports, when somebody takes one between the look and the start.
const PORT_ATTEMPTS: usize = 4;
/// Looks for a container whose name is taken, and the time between two.
const NAME_ATTEMPTS: usize = 10;
const NAME_WAIT: Duration = Duration::from_millis(200);
/// Attempts with other addresses for a network.
const SUBNET_ATTEMPTS: u32 = 32;
/// Time between two looks whether the SSH server answers.
const LOOK_AGAIN: Duration = Duration::from_millis(15);

/// What [`DockerEngine::reserve`] found or made.
enum Reserved {
    /// The lease's container was there.
    There(Container),
    /// It has been made now, and not started.
    Made { id: String, port: u16, host_key: HostKey },
    /// There is something of its name that is not listed.
    NameTaken(String),
}

impl DockerEngine {
    pub(super) async fn made(&self, spec: &ContainerSpec) -> Result<Container, EngineError> {
        let session = self.connection.session().await?;
        if let Some(runtime) = &self.options.runtime
            && !session.host.runtimes.contains(runtime)
        {
            let known: Vec<&str> = session.host.runtimes.iter().map(String::as_str).collect();
            return Err(EngineError::Refused(format!(
                "docker.runtime asks for {runtime}, the engine has {}; install it or ask for another",
                known.join(", ")
            )));
        }
        let sshd = self.sshd().await?;
        // One that is there needs no image any more.
        if let Some(there) = same(self.own(&session, spec.lease, spec.fencing_epoch).await?, spec)? {
            return Ok(there);
        }
        self.at_home(&session).await?;
        let offered = self.offered.load(Ordering::Relaxed);
        if offered == 0 {
            let why = "it is not known yet how many devices this machine offers, so not how much of it a lease gets; ask again";
            return Err(EngineError::Unavailable { why: why.to_owned(), source: None });
        }
        let begun = Instant::now();
        let image = self.image(&session, &spec.image).await?;
        self.stage("image", begun);
        let share = share(&self.options.share, session.host.machine, spec.devices.len(), offered)
            .map_err(EngineError::Refused)?;
        let mut refused_ports = BTreeSet::new();
        for attempt in 1.. {
            let begun = Instant::now();
            // From its volume on until its container shows whose that is.
            let making = self.making.share().await?;
            let (id, port, host_key) = match self.reserve(&session, spec, &image, share, &refused_ports).await? {
                Reserved::There(container) => return Ok(container),
                Reserved::Made { id, port, host_key } => (id, port, host_key),
                Reserved::NameTaken(_) if attempt < NAME_ATTEMPTS => {
                    drop(making);
                    tokio::time::sleep(NAME_WAIT).await;
                    continue;
                }
                Reserved::NameTaken(why) => return Err(EngineError::Refused(why)),
            };
            drop(making);
            self.stage("reserve", begun);
            let fault = match self.begin(&session, spec, &id, port, &host_key, &sshd).await {
                Ok(()) => return Ok(container(spec, id, port, host_key)),
                Err(fault) => fault,
            };
            // What was begun is taken back: only then nothing happened.
            if let Err(stays) = self.demolish(&session, &id, key(spec)).await {
                return Err(EngineError::Unclear(format!("{}; and then: {stays}", fault.text())));
            }
            if fault.is_taken_port() && attempt < PORT_ATTEMPTS {
                refused_ports.insert(port);
                continue;
            }
            return Err(match fault {
                Fault::Down(why) => EngineError::Unavailable { why, source: None },
                fault => EngineError::Refused(fault.text().to_owned()),
            });
        }
        Err(EngineError::Refused("no port could be published".to_owned()))
    }

    /// The identity of the image for a renter's wish.
    async fn image(&self, session: &Arc<Session>, wish: &str) -> Result<String, EngineError> {
        let shown = if wish.trim().is_empty() { "(default)".to_owned() } else { one_line(wish) };
        let image = |why: String| EngineError::Image { image: shown.clone(), why };
        let reference = self.options.images.resolve(wish).map_err(image)?;
        match self.pulls.image(session, &reference, self.tally()).await {
            Ok(found) => found.map_err(image),
            Err(fault) => Err(self.fault(fault).await.reading("looking for the image")),
        }
    }

    /// What hears of pulls.
    pub(super) fn tally(&self) -> Arc<dyn Tally> {
        Arc::new(Told(self.metrics.get().cloned()))
    }

    /// Makes the lease's volume and rules, decides under the lock whether it may have its devices, and makes its container.
    async fn reserve(
        &self,
        session: &Session,
        spec: &ContainerSpec,
        image: &str,
        share: Share,
        refused_ports: &BTreeSet<u16>,
    ) -> Result<Reserved, EngineError> {
        // What takes long comes before the lock, for which all leases of this machine wait.
        let all = self.find(session, &[labels::MINER.to_owned()]).await?;
        if let Some(half) = self.own_among(&all, spec)? {
            let id = half.container.id.clone();
            if let Some(there) = same(Some(half), spec)? {
                return Ok(Reserved::There(there));
            }
            self.demolish(session, &id, key(spec)).await?;
        }
        if let Some((device, lease)) = in_use(spec, self.options.miner, &all) {
            return Err(EngineError::DeviceInUse { device, lease });
        }
        // Before anything is held or let go by that name.
        if let Some(other) = same_bridge(spec, self.options.miner, &all) {
            return Err(EngineError::Refused(format!(
                "the network of lease {} would have the bridge of lease {other}; choose a new lease id",
                spec.lease
            )));
        }
        let hostname = format!("lease-{}", hex::encode(&spec.lease.0[..4]));
        let prepared = self.prepare(session, key(spec), spec.devices.len(), &hostname).await?;
        let reserved = self.reserve_prepared(session, spec, image, share, refused_ports, hostname, prepared).await;
        if !matches!(reserved, Ok(Reserved::Made { .. } | Reserved::There(_))) {
            // A container that shows up all the same is half-made: it is removed before it ever runs.
            self.unprotect(session, key(spec)).await?;
        }
        reserved
    }

    /// The lease's container among those of this machine; containers of other epochs only are an error.
    fn own_among(&self, all: &[Found], spec: &ContainerSpec) -> Result<Option<Found>, EngineError> {
        let own = |found: &&Found| found.miner == self.options.miner && found.container.labels.lease == spec.lease;
        epoch_of(all.iter().filter(own).cloned().collect(), spec.lease, spec.fencing_epoch)
    }

    #[expect(clippy::too_many_arguments, reason = "what one request is made of")]
    async fn reserve_prepared(
        &self,
        session: &Session,
        spec: &ContainerSpec,
        image: &str,
        share: Share,
        refused_ports: &BTreeSet<u16>,
        hostname: String,
        prepared: Prepared,
    ) -> Result<Reserved, EngineError> {
        let _held = self.lock.take().await?;
        let all = self.find(session, &[labels::MINER.to_owned()]).await?;
        if let Some(there) = self.own_among(&all, spec)? {
            // Another handle was faster; whoever finds it half-made asks again.
            return same(Some(there), spec)?
                .map(Reserved::There)
                .ok_or_else(|| EngineError::Unclear(format!("the container of lease {} is being made", spec.lease)));
        }
        if let Some((device, lease)) = in_use(spec, self.options.miner, &all) {
            return Err(EngineError::DeviceInUse { device, lease });
        }
        let bind = self.options.bind;
        // Each address has its own ports; on all addresses they are everybody's.
        let shared = |found: &&Found| bind.is_unspecified() || found.miner == self.options.miner;
        let mut taken: BTreeSet<u16> = all.iter().filter(shared).map(|found| found.container.ssh_port).collect();
        taken.extend(refused_ports);
        let port = self.options.ports.pick(&taken, |port| can_bind(bind, port)).ok_or_else(|| {
            EngineError::Refused(format!(
                "no port of {} is free for the container's SSH server; give more with docker.ssh_ports",
                self.options.ports
            ))
        })?;
        let host_key = HostKey::make().map_err(EngineError::Refused)?;
        let name = labels::name(spec.lease, spec.fencing_epoch);
        let request = body(Plan {
            image,
            labels: labels::of(self.options.miner, spec, &host_key.public, port),
            network: &name,
            hostname,
            devices: &spec.devices,
            gpus: session.host.gpus,
            share,
            bind,
            port,
            runtime: self.options.runtime.as_deref(),
            storage: prepared.storage_opt.map(|bytes| ("size".to_owned(), bytes.to_string())).into_iter().collect(),
            binds: &prepared.binds,
        });
        let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        match within(CHANGE, session.docker.create_container(Some(options), request)).await {
            Ok(made) => {
                for warning in made.warnings {
                    tracing::warn!(lease = %spec.lease, warning = one_line(&warning), "the engine warns of a new container");
                }
                Ok(Reserved::Made { id: made.id, port, host_key })
            }
            Err(Fault::Missing(why)) => Err(EngineError::Image { image: one_line(&spec.image), why }),
            // Not listed, and its name is taken: the engine still makes one for a caller that is gone, or it is none of ours.
            Err(Fault::Conflict(why)) => Ok(Reserved::NameTaken(format!("creating {name}: {why}"))),
            Err(fault) => Err(self.fault(fault).await.changing("creating the container")),
        }
    }

    /// From a container that is made to one that can be logged in to.
    async fn begin(
        &self,
        session: &Session,
        spec: &ContainerSpec,
        id: &str,
        port: u16,
        host_key: &HostKey,
        sshd: &[u8],
    ) -> Result<(), Fault> {
        let begun = Instant::now();
        let user_key = spec.ssh_public_key.as_ref().map(|key| format!("{key}\n"));
        let mut files = vec![
            Entry { name: "sshd", mode: 0o700, content: sshd },
            Entry { name: "host_key", mode: 0o600, content: &host_key.private },
        ];
        if let Some(key) = &user_key {
            files.push(Entry { name: "user_key", mode: 0o600, content: key.as_bytes() });
        }
        let filled = async {
            self.note(key(spec), id).await?;
            // Its volume first, or the files would lie below it.
            self.hold(session, key(spec), id).await?;
            self.put(session, id, &files).await
        };
        let (networked, filled) = tokio::join!(self.network(session, spec), filled);
        networked?;
        filled?;
        self.stage("create", begun);
        let begun = Instant::now();
        match within(CHANGE, session.docker.start_container(id, None)).await {
            Ok(()) => {}
            Err(fault) => return Err(self.fault(fault).await),
        }
        self.stage("start", begun);
        let begun = Instant::now();
        self.ready(session, id, port, self.options.ssh_ready).await.map_err(Fault::Failed)?;
        self.stage("ssh_ready", begun);
        // Nobody has been told of it yet.
        self.held(session, key(spec), id).await
    }

    /// Makes the lease's network: a bridge of its own, whose containers do not see one another.
    async fn network(&self, session: &Session, spec: &ContainerSpec) -> Result<(), Fault> {
        let name = labels::name(spec.lease, spec.fencing_epoch);
        let options = [
            (BRIDGE_NAME, Bridge::of(spec.lease, spec.fencing_epoch).name().to_owned()),
            ("com.docker.network.bridge.enable_icc", "false".to_owned()),
        ];
        let mut attempt = 0;
        loop {
            let subnet = self.options.subnets.network(spec.lease, attempt);
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".to_owned()),
                ipam: Some(Ipam {
                    driver: Some("default".to_owned()),
                    config: Some(vec![IpamConfig { subnet: Some(subnet), ..IpamConfig::default() }]),
                    ..Ipam::default()
                }),
                options: Some(options.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()),
                labels: Some(labels::of_belongings(self.options.miner, spec.lease)),
                ..NetworkCreateRequest::default()
            };
            match within(CHANGE, session.docker.create_network(request)).await {
                Ok(_) => return Ok(()),
                Err(fault) if fault.is_taken_subnet() && attempt < SUBNET_ATTEMPTS => attempt += 1,
                Err(fault) => return Err(self.fault(fault).await),
            }
        }
    }

    /// Waits until the SSH server of a container that was started answers at its port.
    ///
    /// # Errors
    /// Why it does not, within `limit`.
    pub(super) async fn ready(&self, session: &Session, id: &str, port: u16, limit: Duration) -> Result<(), String> {
        let bind = self.options.bind;
        let host = if bind.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bind };
        let waiting = async {
            loop {
                if greets(SocketAddr::new(host, port)).await {
                    return;
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        match timeout(limit, waiting).await {
            Ok(()) => Ok(()),
            Err(_) => {
                let seen = within(LOOK, session.docker.inspect_container(id, None)).await;
                let state = seen.ok().and_then(|seen| seen.state);
                let status = state.as_ref().and_then(|state| state.status).map(|s| s.to_string()).unwrap_or_default();
                let code = state.as_ref().and_then(|state| state.exit_code).unwrap_or_default();
                Err(format!(
                    "the container's SSH server did not answer at {host}:{port} within {limit:?} (docker.ssh_ready); the \
                     container is {status:?}, exit code {code}"
                ))
            }
        }
    }
}

/// Tells the node's metrics of pulls, if there are any.
struct Told(Option<Arc<NodeMetrics>>);

impl Tally for Told {
    fn waiting(&self, count: usize) {
        if let Some(metrics) = &self.0 {
            metrics.image_pulls_waiting(count);
        }
    }
    fn ended(&self, outcome: &'static str) {
        if let Some(metrics) = &self.0 {
            metrics.image_pull(outcome);
        }
    }
}

/// Whose volume and rules those of this container are.
fn key(spec: &ContainerSpec) -> VolumeKey {
    VolumeKey { lease: spec.lease, epoch: spec.fencing_epoch }
}

/// Whether an SSH server greets at this address, now.
async fn greets(at: SocketAddr) -> bool {
    let greeting = async { ssh_greets(&mut TcpStream::connect(at).await.ok()?).await.then_some(()) };
    matches!(timeout(Duration::from_secs(1), greeting).await, Ok(Some(())))
}

/// The container of a lease that is there, if it is the one that is wanted; `None` for none and for a half-made one.
fn same(found: Option<Found>, spec: &ContainerSpec) -> Result<Option<Container>, EngineError> {
    let Some(found) = found else { return Ok(None) };
    let there = found.container;
    if there.labels.renter != spec.renter || there.devices != spec.devices {
        let why = format!("lease {} has a container of another renter or with other devices", spec.lease);
        return Err(EngineError::Refused(why));
    }
    Ok((!found.half_made).then_some(there))
}

/// A lease of another container whose network has the bridge that this one's would get: another miner's of the same id, say.
fn same_bridge(spec: &ContainerSpec, miner: Hotkey, containers: &[Found]) -> Option<LeaseId> {
    let wanted = Bridge::of(spec.lease, spec.fencing_epoch);
    let own = |found: &Found| found.miner == miner && labels::key_of(found) == key(spec);
    let mut others = containers.iter().filter(|found| !own(found)).map(labels::key_of);
    others.find(|other| Bridge::of(other.lease, other.epoch) == wanted).map(|other| other.lease)
}

/// A device of the wish that a container has, with that container's lease. A GPU is the same one whoever rents it out; processors
/// are numbered by each miner for itself.
fn in_use(spec: &ContainerSpec, miner: Hotkey, containers: &[Found]) -> Option<(DeviceId, LeaseId)> {
    // One of the lease's own is half-made, and was taken away a moment ago.
    let others = containers.iter().filter(|found| found.miner != miner || found.container.labels.lease != spec.lease);
    let mut used = others.flat_map(|found| found.container.devices.iter().map(move |device| (*device, found)));
    let found = used.find(|(device, found)| {
        spec.devices.contains(device) && (found.miner == miner || device.cpu_index().is_none())
    })?;
    Some((found.0, found.1.container.labels.lease))
}

fn container(spec: &ContainerSpec, id: String, port: u16, host_key: HostKey) -> Container {
    Container {
        id,
        labels: Labels {
            lease: spec.lease,
            fencing_epoch: spec.fencing_epoch,
            expires_at_ms: spec.expires_at_ms,
            renter: spec.renter,
        },
        state: ContainerState::Running,
        ssh_port: port,
        devices: spec.devices.clone(),
        host_key: Some(host_key.public),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Hotkey = Hotkey([1; 32]);
    const OTHERS: Hotkey = Hotkey([2; 32]);
    const GPU: DeviceId = DeviceId([3; 16]);

    fn spec(lease: u8, devices: &[DeviceId]) -> ContainerSpec {
        ContainerSpec {
            lease: LeaseId([lease; 16]),
            fencing_epoch: 1,
            expires_at_ms: 1_000,
            renter: Hotkey([9; 32]),
            devices: devices.to_vec(),
            ssh_public_key: None,
            image: String::new(),
        }
    }

    fn found(miner: Hotkey, lease: u8, devices: &[DeviceId]) -> Found {
        let host_key = HostKey { private: Vec::new(), public: "ssh-ed25519 AAAA".into() };
        let container = container(&spec(lease, devices), "c".into(), 4444, host_key);
        Found { container, miner, half_made: false }
    }

    #[test]
    fn a_lease_gets_no_bridge_that_another_container_has() {
        let wish = spec(1, &[GPU]);
        assert_eq!(same_bridge(&wish, OURS, &[found(OURS, 1, &[GPU]), found(OTHERS, 2, &[GPU])]), None);
        assert_eq!(same_bridge(&wish, OURS, &[found(OTHERS, 1, &[])]), Some(LeaseId([1; 16])), "of another miner");
    }

    #[test]
    fn a_gpu_is_rented_once_on_a_machine_and_a_processor_once_by_each_miner() {
        let cpu = DeviceId::cpu(0);
        let wish = spec(1, &[cpu, GPU]);
        let used = |there: &[Found]| in_use(&wish, OURS, there);
        assert_eq!(used(&[]), None);
        assert_eq!(used(&[found(OURS, 2, &[cpu])]), Some((cpu, LeaseId([2; 16]))));
        assert_eq!(used(&[found(OTHERS, 2, &[cpu])]), None, "another miner's first processor is another device");
        assert_eq!(used(&[found(OTHERS, 2, &[cpu, GPU])]), Some((GPU, LeaseId([2; 16]))), "a card is one card");
        assert_eq!(used(&[found(OURS, 1, &[cpu, GPU])]), None, "the lease's own half-made one");
        assert_eq!(
            used(&[found(OTHERS, 1, &[GPU])]),
            Some((GPU, LeaseId([1; 16]))),
            "a lease of the same name elsewhere"
        );
    }
}
