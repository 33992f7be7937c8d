//! What holds a tenant's disk and network, put into force in the course of a container's life (`host::guard`).
//!
//! `DockerEngine::prepare` before the container is made, [`DockerEngine::hold`] before each start, [`DockerEngine::held`] after
//! it, `DockerEngine::unprotect` when it is gone; [`DockerEngine::keep_protections`] now and then for all of them, and
//! `DockerEngine::bring_back` after the machine's start, when no volume is mounted.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{KillContainerOptions, ListNetworksOptions};
use tokio::time::Instant;

use super::DockerEngine;
use super::fault::{Fault, one_line};
use super::labels::{self, Found, key_of};
use super::session::{CHANGE, LOOK, Session, within};
use crate::host::firewall::Bridge;
use crate::host::guard::GuardError;
use crate::host::quota::{Prepared, QuotaError, VolumeKey};
use crate::lease::engine::{ContainerState, EngineError};
use crate::telemetry::error_chain;

/// How long a volume may stay busy after its container is gone.
const BUSY: Duration = Duration::from_secs(5);
/// How long it may take until a container that was started has a process to look at.
const STARTED: Duration = Duration::from_secs(5);
/// The option of a network that names its bridge.
pub(super) const BRIDGE_NAME: &str = "com.docker.network.bridge.name";
/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl DockerEngine {
    /// Makes the volume and the rules of a container that is about to be made, under the lock. What is there by its name is of one
    /// that is gone, and goes first.
    pub(super) async fn prepare(
        &self,
        session: &Session,
        key: VolumeKey,
        devices: usize,
        hostname: &str,
    ) -> Result<Prepared, EngineError> {
        self.unprotect(session, key).await?;
        let bytes = self.options.disk.saturating_mul(devices.max(1) as u64);
        let prepared = self.guard.before_create(key, &session.host.storage, bytes, hostname).await;
        self.tell_protections();
        let error = match prepared {
            Ok(prepared) => return Ok(prepared),
            Err(error) => error,
        };
        let more = match &error {
            GuardError::Disk(QuotaError::NoRoom { .. }) => "; make room, or lower docker.disk_gib",
            _ => "; compute-miner doctor says what to do",
        };
        self.unprotect(session, key).await?;
        Err(EngineError::Refused(format!("{}{more}", error_chain(&error))))
    }

    /// Puts a container's protections into force before it is started. `true`: its volume was not mounted, so it has not run
    /// since the machine started, or never.
    pub(super) async fn hold(&self, session: &Session, key: VolumeKey, id: &str) -> Result<bool, Fault> {
        let seen = self.look(session, id).await?;
        // Of drivers that have no such directory nothing is asked.
        let upper =
            seen.graph_driver.and_then(|driver| driver.data.get("UpperDir").map(PathBuf::from)).unwrap_or_default();
        let bridge = self.bridge(session, key).await?;
        let held = self.guard.before_start(key, bridge, &upper).await;
        self.tell_protections();
        held.map_err(|error| Fault::Failed(error_chain(&error)))
    }

    /// Sees that a started container writes into its volume; one that does not is killed.
    pub(super) async fn held(&self, session: &Session, key: VolumeKey, id: &str) -> Result<(), Fault> {
        let begun = Instant::now();
        loop {
            let pid = self.look(session, id).await?.state.and_then(|state| state.pid);
            let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
            let why = match pid {
                None => "the container has no process".to_owned(),
                Some(pid) => match self.guard.after_start(key, pid).await {
                    Ok(()) => return Ok(()),
                    // Its first process ended, and the engine starts another.
                    Err(GuardError::Disk(error @ QuotaError::Io { .. })) => error_chain(&error),
                    Err(error) => {
                        self.kill(session, id).await;
                        return Err(Fault::Failed(error_chain(&error)));
                    }
                },
            };
            if begun.elapsed() > STARTED {
                self.kill(session, id).await;
                return Err(Fault::Failed(format!("where the container writes cannot be seen: {why}")));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The bridge of a container's network: what the engine has, or else what is about to be made.
    async fn bridge(&self, session: &Session, key: VolumeKey) -> Result<Bridge, Fault> {
        let name = labels::name(key.lease, key.epoch);
        match within(LOOK, session.docker.inspect_network(&name, None)).await {
            Ok(network) => Ok(bridge_of(network.options.as_ref(), key)),
            Err(Fault::Missing(_)) => Ok(bridge_of(None, key)),
            Err(fault) => Err(self.fault(fault).await),
        }
    }

    /// The bridges of this miner's networks, by the networks' names.
    async fn bridges(&self, session: &Session) -> Result<HashMap<String, HashMap<String, String>>, EngineError> {
        let options = ListNetworksOptions { filters: Some(HashMap::from([("label".to_owned(), vec![self.mine()])])) };
        match within(LOOK, session.docker.list_networks(Some(options))).await {
            Ok(networks) => Ok(networks.into_iter().filter_map(|n| Some((n.name?, n.options?))).collect()),
            Err(fault) => Err(self.fault(fault).await.reading("listing networks")),
        }
    }

    async fn look(&self, session: &Session, id: &str) -> Result<ContainerInspectResponse, Fault> {
        match within(LOOK, session.docker.inspect_container(id, None)).await {
            Ok(seen) => Ok(seen),
            Err(fault) => Err(self.fault(fault).await),
        }
    }

    async fn kill(&self, session: &Session, id: &str) {
        let kill = KillContainerOptions { signal: "SIGKILL".to_owned() };
        if let Err(fault) = within(CHANGE, session.docker.kill_container(id, Some(kill))).await {
            tracing::error!(container = id, why = fault.text(), "a container without its limits could not be killed");
        }
    }

    /// Takes back the volume and the rules of a container that is gone, or was never made, once no process of it is left.
    pub(super) async fn unprotect(&self, session: &Session, key: VolumeKey) -> Result<(), EngineError> {
        self.end_forgotten(session, key).await?;
        let begun = Instant::now();
        loop {
            match self.guard.after_remove(key).await {
                Ok(()) => return Ok(()),
                // The kernel lets go of a container's mounts a moment after its last process.
                Err(_) if begun.elapsed() < BUSY => tokio::time::sleep(LOOK_AGAIN).await,
                Err(error) => {
                    let why = one_line(&error_chain(&error));
                    return Err(EngineError::Unclear(format!("the container is gone, and not what held it: {why}")));
                }
            }
        }
    }

    /// Makes processes, volumes and rules match the containers that are there: takes away what is nobody's, brings back what is gone.
    pub(super) async fn keep_protections(&self, session: &Session) -> Result<(), EngineError> {
        // A volume is there before its container: what is nobody's is known only while none is made.
        let Some(_only) = self.making.take_if_free().await? else { return Ok(()) };
        let found = self.find(session, &[self.mine()]).await?;
        let mut keys: Vec<VolumeKey> = found.iter().map(key_of).collect();
        keys.extend(self.keep_record(session, &found).await?);
        let bridges = self.bridges(session).await?;
        let bridge = |key: VolumeKey| bridge_of(bridges.get(&labels::name(key.lease, key.epoch)), key);
        let leases: Vec<(VolumeKey, Bridge)> = keys.into_iter().map(|key| (key, bridge(key))).collect();
        let kept = self.guard.keep(&leases, &session.host.storage).await;
        self.tell_protections();
        match kept {
            Ok(swept) => {
                for key in swept {
                    tracing::info!(volume = %key, "a volume without a container is removed");
                }
                Ok(())
            }
            Err(error) => Err(EngineError::Refused(format!("keeping what holds tenants: {}", error_chain(&error)))),
        }
    }

    /// Starts the containers that have no processes, as after the machine's start, when no volume is mounted: the engine alone
    /// starts none of them.
    pub(super) async fn bring_back(&self, session: &Session) -> Result<(), EngineError> {
        let ended = |found: &Found| found.container.state == ContainerState::Exited && !found.half_made;
        for found in self.find(session, &[self.mine()]).await?.into_iter().filter(ended) {
            let lease = found.container.labels.lease;
            let _turn = self.turn(lease).await?;
            if let Err(fault) = self.start_again(session, &found).await {
                tracing::error!(%lease, why = fault.text(), "a container that ended with the machine does not start");
            }
        }
        Ok(())
    }

    async fn start_again(&self, session: &Session, found: &Found) -> Result<(), Fault> {
        let (key, id) = (key_of(found), found.container.id.as_str());
        // The engine may be trying to start it again and again; from here on it does not.
        let kill = KillContainerOptions { signal: "SIGKILL".to_owned() };
        match within(CHANGE, session.docker.kill_container(id, Some(kill))).await {
            Ok(()) | Err(Fault::Conflict(_)) => {}
            // It was removed meanwhile.
            Err(Fault::Missing(_)) => return Ok(()),
            Err(fault) => return Err(self.fault(fault).await),
        }
        self.end_all(id).await.map_err(|error| Fault::Failed(error.to_string()))?;
        let was_missing = self.hold(session, key, id).await?;
        if let Err(fault) = within(CHANGE, session.docker.start_container(id, None)).await {
            return Err(self.fault(fault).await);
        }
        if was_missing {
            tracing::info!(lease = %key.lease, "its volume is mounted again, and its container runs");
        }
        self.held(session, key, id).await
    }

    /// Reports which protections are wanted and missing.
    pub(super) fn tell_protections(&self) {
        if let Some(metrics) = self.metrics.get() {
            metrics.protections_missing(|name| self.guard.missing().contains(&name));
        }
    }
}

/// The bridge by a network's options. One that an older version made has the name that it gave it.
fn bridge_of(options: Option<&HashMap<String, String>>, key: VolumeKey) -> Bridge {
    let named = options.and_then(|options| options.get(BRIDGE_NAME)?.parse().ok());
    named.unwrap_or_else(|| Bridge::of(key.lease, key.epoch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LeaseId;

    #[test]
    fn rules_go_by_the_bridge_that_a_network_really_has() {
        let key = VolumeKey { lease: LeaseId([7; 16]), epoch: 1 };
        let named = |name: &str| bridge_of(Some(&HashMap::from([(BRIDGE_NAME.to_owned(), name.to_owned())])), key);
        assert_eq!(named("cs07070707").name(), "cs07070707", "made by an older version");
        for other in [named("docker0"), bridge_of(None, key), bridge_of(Some(&HashMap::new()), key)] {
            assert_eq!(other, Bridge::of(key.lease, 1));
        }
    }
}
