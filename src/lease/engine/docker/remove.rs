//! Taking a container away with all that is its own, and seeing that it is gone.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bollard::models::{ContainerUpdateBody, NetworkDisconnectRequest, RestartPolicy, RestartPolicyNameEnum};
use bollard::query_parameters::{KillContainerOptions, ListNetworksOptions, RemoveContainerOptions};
use tokio::time::Instant;

use super::fault::Fault;
use super::labels::{self, Found};
use super::session::{CHANGE, LOOK, Session, within};
use super::{DockerEngine, epoch_of};
use crate::host::quota::VolumeKey;
use crate::ids::LeaseId;
use crate::lease::engine::EngineError;

/// How long a removal may take until it is seen.
const GONE: Duration = Duration::from_secs(20);
/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl DockerEngine {
    pub(super) async fn removed(&self, lease: LeaseId, fencing_epoch: u64) -> Result<bool, EngineError> {
        let session = self.connection.session().await?;
        let found = epoch_of(self.of_lease(&session, lease).await?, lease, fencing_epoch)?;
        let key = VolumeKey { lease, epoch: fencing_epoch };
        match found {
            Some(found) => {
                self.demolish(&session, &found.container.id, key).await?;
                Ok(true)
            }
            None => {
                // An engine that is not ours has none of ours, and ours may still have it.
                self.at_home(&session).await?;
                // One that it forgot may have processes.
                self.end_forgotten(&session, key).await?;
                // Of one that somebody else removed, network, volume and rules are left. Another miner's network of the same
                // name is not ours.
                let name = labels::name(lease, fencing_epoch);
                if self.owns_network(&session, &name).await? {
                    self.drop_network(&session, &name).await?;
                }
                self.unprotect(&session, key).await?;
                Ok(false)
            }
        }
    }

    /// Kills a container, sees that no process of it is left, takes its network away, then the container itself with what it wrote, sees that
    /// it is gone, and takes back its volume and rules. What is left of those is found by their names.
    pub(super) async fn demolish(&self, session: &Session, id: &str, key: VolumeKey) -> Result<(), EngineError> {
        // The engine must not start it again in between.
        let never = RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None };
        let update = ContainerUpdateBody { restart_policy: Some(never), ..ContainerUpdateBody::default() };
        match within(CHANGE, session.docker.update_container(id, update)).await {
            Ok(()) | Err(Fault::Missing(_) | Fault::Conflict(_)) => {}
            Err(fault @ (Fault::Down(_) | Fault::Silent(_))) => {
                return Err(self.fault(fault).await.changing("removing the container"));
            }
            // It is removed all the same.
            Err(fault) => tracing::debug!(why = fault.text(), "a container's restart policy stays"),
        }
        let kill = KillContainerOptions { signal: "SIGKILL".to_owned() };
        match within(CHANGE, session.docker.kill_container(id, Some(kill))).await {
            // It may have ended already; whether it is gone is seen below.
            Ok(()) | Err(Fault::Missing(_) | Fault::Conflict(_) | Fault::Refused(_) | Fault::Failed(_)) => {}
            Err(fault) => return Err(self.fault(fault).await.changing("killing the container")),
        }
        // An engine that was killed may think that it has ended.
        self.end_all(id).await?;
        self.drop_network(session, &labels::name(key.lease, key.epoch)).await?;
        self.drop_container(session, id).await?;
        self.unprotect(session, key).await
    }

    /// Removes a container, and sees that it is gone.
    async fn drop_container(&self, session: &Session, id: &str) -> Result<(), EngineError> {
        let begun = Instant::now();
        loop {
            let options = RemoveContainerOptions { v: true, force: true, link: false };
            let why = match within(CHANGE, session.docker.remove_container(id, Some(options))).await {
                Ok(()) => "it is still there".to_owned(),
                Err(Fault::Missing(_)) => return Ok(()),
                // Somebody removes it already, or the storage is still busy.
                Err(Fault::Conflict(why) | Fault::Failed(why)) => why,
                Err(fault) => return Err(self.fault(fault).await.changing("removing the container")),
            };
            match within(LOOK, session.docker.inspect_container(id, None)).await {
                Err(Fault::Missing(_)) => return Ok(()),
                Ok(_) | Err(_) if begun.elapsed() < GONE => tokio::time::sleep(LOOK_AGAIN).await,
                _ => return Err(EngineError::Unclear(format!("the container is not gone after {GONE:?}: {why}"))),
            }
        }
    }

    /// Whether there is such a network, and it is this miner's.
    async fn owns_network(&self, session: &Session, name: &str) -> Result<bool, EngineError> {
        match within(LOOK, session.docker.inspect_network(name, None)).await {
            Ok(network) => {
                let miner = network.labels.as_ref().and_then(|labels| labels.get(labels::MINER));
                Ok(miner.is_some_and(|miner| *miner == self.options.miner.to_string()))
            }
            Err(Fault::Missing(_)) => Ok(false),
            Err(fault) => Err(self.fault(fault).await.reading("looking for the network")),
        }
    }

    /// Takes a network away. One that is not there is fine.
    async fn drop_network(&self, session: &Session, name: &str) -> Result<(), EngineError> {
        let begun = Instant::now();
        loop {
            let why = match within(CHANGE, session.docker.remove_network(name)).await {
                Ok(()) | Err(Fault::Missing(_)) => return Ok(()),
                Err(fault @ (Fault::Down(_) | Fault::Silent(_))) => {
                    return Err(self.fault(fault).await.changing("removing the network"));
                }
                Err(fault) => fault.text().to_owned(),
            };
            if begun.elapsed() > GONE {
                return Err(EngineError::Unclear(format!("the network {name} stays: {why}")));
            }
            // An endpoint that the engine forgot to take away when a container ended.
            if let Ok(network) = within(LOOK, session.docker.inspect_network(name, None)).await {
                for id in network.containers.into_iter().flatten().map(|(id, _)| id) {
                    let request = NetworkDisconnectRequest { container: id, force: Some(true) };
                    // Whether it helped is seen when the network is removed again.
                    let _ = within(CHANGE, session.docker.disconnect_network(name, request)).await;
                }
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Takes networks of this miner away that have no container: what is left when a container was removed by other hands.
    pub(super) async fn sweep_networks(&self, session: &Session) -> Result<(), EngineError> {
        let options = ListNetworksOptions { filters: Some(HashMap::from([("label".to_owned(), vec![self.mine()])])) };
        // Before the containers: a network is made after its container.
        let networks = match within(LOOK, session.docker.list_networks(Some(options))).await {
            Ok(networks) => networks,
            Err(fault) => return Err(self.fault(fault).await.reading("listing networks")),
        };
        let owned: HashSet<String> = self.find(session, &[self.mine()]).await?.iter().map(name_of).collect();
        for network in networks {
            let lease = network.labels.as_ref().and_then(|labels| labels.get(labels::LEASE)?.parse::<LeaseId>().ok());
            let (Some(name), Some(lease)) = (network.name, lease) else { continue };
            if owned.contains(&name) {
                continue;
            }
            // It may have been made anew meanwhile, with its container.
            let _turn = self.turn(lease).await?;
            if self.of_lease(session, lease).await?.iter().any(|found| name_of(found) == name) {
                continue;
            }
            self.drop_network(session, &name).await?;
            tracing::info!(network = name, "a network without a container is removed");
        }
        Ok(())
    }
}

/// The name of a container and of its network.
fn name_of(found: &Found) -> String {
    labels::name(found.container.labels.lease, found.container.labels.fencing_epoch)
}
