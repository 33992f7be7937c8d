//! The labels of our containers: written once, read back by whoever finds them.

use std::collections::HashMap;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State};

use crate::host::quota::VolumeKey;
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::engine::{Container, ContainerSpec, ContainerState, Labels};

/// The miner that a container, a network or a volume belongs to. What lacks it is not ours.
pub(super) const MINER: &str = "compute-subnet.miner";
/// The lease.
pub(super) const LEASE: &str = "compute-subnet.lease";
const EPOCH: &str = "compute-subnet.epoch";
const EXPIRES: &str = "compute-subnet.expires_at_ms";
const RENTER: &str = "compute-subnet.renter";
const DEVICES: &str = "compute-subnet.devices";
const HOST_KEY: &str = "compute-subnet.host_key";
const SSH_PORT: &str = "compute-subnet.ssh_port";

/// The name of a lease's container and of its network. A second one of the same lease and fencing epoch cannot be made.
pub(super) fn name(lease: LeaseId, fencing_epoch: u64) -> String {
    format!("compute-{lease}-{fencing_epoch}")
}

/// The labels of a new container.
pub(super) fn of(miner: Hotkey, spec: &ContainerSpec, host_key: &str, ssh_port: u16) -> HashMap<String, String> {
    let devices: Vec<String> = spec.devices.iter().map(ToString::to_string).collect();
    let pairs = [
        (MINER, miner.to_string()),
        (LEASE, spec.lease.to_string()),
        (EPOCH, spec.fencing_epoch.to_string()),
        (EXPIRES, spec.expires_at_ms.to_string()),
        (RENTER, spec.renter.to_string()),
        (DEVICES, devices.join(",")),
        (HOST_KEY, host_key.to_owned()),
        (SSH_PORT, ssh_port.to_string()),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The labels of what belongs to a lease beside its container.
pub(super) fn of_belongings(miner: Hotkey, lease: LeaseId) -> HashMap<String, String> {
    HashMap::from([(MINER.to_owned(), miner.to_string()), (LEASE.to_owned(), lease.to_string())])
}

/// A container as the engine lists it, with what only this module's callers need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// As everybody knows it.
    pub(super) container: Container,
    /// Whose it is.
    pub(super) miner: Hotkey,
    /// It was made and never started: whoever made it did not come to the end.
    pub(super) half_made: bool,
}

/// Whose volume and rules are this container's.
pub(super) fn key_of(found: &Found) -> VolumeKey {
    VolumeKey { lease: found.container.labels.lease, epoch: found.container.labels.fencing_epoch }
}

/// Reads a listed container. `None` when its labels are not ours, or not whole.
pub(super) fn read(summary: &ContainerSummary) -> Option<Found> {
    let labels = summary.labels.as_ref()?;
    let text = |key: &str| labels.get(key).map(String::as_str);
    let devices: Result<Vec<DeviceId>, _> =
        text(DEVICES)?.split(',').filter(|name| !name.is_empty()).map(str::parse).collect();
    let state = summary.state.unwrap_or(State::EMPTY);
    Some(Found {
        container: Container {
            id: summary.id.clone()?,
            labels: Labels {
                lease: text(LEASE)?.parse().ok()?,
                fencing_epoch: text(EPOCH)?.parse().ok()?,
                expires_at_ms: text(EXPIRES)?.parse().ok()?,
                renter: text(RENTER)?.parse().ok()?,
            },
            state: match state {
                State::RUNNING => ContainerState::Running,
                State::PAUSED => ContainerState::Paused,
                // One that the engine is about to start again has no processes at this moment.
                _ => ContainerState::Exited,
            },
            ssh_port: text(SSH_PORT)?.parse().ok()?,
            devices: devices.ok()?,
            host_key: text(HOST_KEY).map(str::to_owned),
        },
        miner: text(MINER)?.parse().ok()?,
        half_made: state == State::CREATED,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec {
            lease: LeaseId([0xab; 16]),
            fencing_epoch: 7,
            expires_at_ms: 1_000,
            renter: Hotkey([2; 32]),
            devices: vec![DeviceId::cpu(0), DeviceId([9; 16])],
            ssh_public_key: None,
            image: String::new(),
        }
    }

    fn summary(state: State) -> ContainerSummary {
        ContainerSummary {
            id: Some("c1".into()),
            labels: Some(of(Hotkey([1; 32]), &spec(), "ssh-ed25519 AAAA", 4444)),
            state: Some(state),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn a_container_tells_by_its_labels_what_it_was_made_for() {
        let found = read(&summary(State::RUNNING)).unwrap();
        assert_eq!(found.miner, Hotkey([1; 32]));
        assert_eq!(found.container.labels.lease, spec().lease);
        assert_eq!((found.container.labels.fencing_epoch, found.container.labels.expires_at_ms), (7, 1_000));
        assert_eq!(found.container.labels.renter, spec().renter);
        assert_eq!(found.container.devices, spec().devices);
        assert_eq!(found.container.host_key.as_deref(), Some("ssh-ed25519 AAAA"));
        assert_eq!((found.container.ssh_port, found.container.state), (4444, ContainerState::Running));
    }

    #[test]
    fn only_running_and_paused_containers_have_processes() {
        let state = |state| read(&summary(state)).unwrap().container.state;
        assert_eq!(state(State::PAUSED), ContainerState::Paused);
        for ended in [State::CREATED, State::RESTARTING, State::EXITED, State::REMOVING, State::DEAD, State::EMPTY] {
            assert_eq!(state(ended), ContainerState::Exited);
        }
        assert!(read(&summary(State::CREATED)).unwrap().half_made);
        assert!(!read(&summary(State::EXITED)).unwrap().half_made);
    }

    #[test]
    fn a_container_without_whole_labels_is_not_ours() {
        let whole = summary(State::RUNNING);
        for key in [MINER, LEASE, EPOCH, EXPIRES, RENTER, DEVICES, SSH_PORT] {
            let mut without = whole.clone();
            without.labels.as_mut().unwrap().remove(key);
            assert_eq!(read(&without), None, "{key}");
            let mut wrong = whole.clone();
            wrong.labels.as_mut().unwrap().insert(key.into(), "no such thing".into());
            assert_eq!(read(&wrong), None, "{key}");
        }
        assert_eq!(read(&ContainerSummary::default()), None);
    }

    #[test]
    fn names_are_the_leases_own() {
        assert_eq!(name(LeaseId([0xab; 16]), 7), format!("compute-{}-7", "ab".repeat(16)));
    }
}
