//! What a validator is told: leases and refusals in the words of the wire.

use crate::lease::fencing::FencingError;
use crate::lease::ledger::LedgerError;
use crate::lease::machine::TermsError;
use crate::lease::{Lease, LeaseState};
use crate::wire::synapse::{self, AllocateReply, LeaseRefusal};

pub(super) fn refused(reason: LeaseRefusal, detail: impl std::fmt::Display) -> AllocateReply {
    AllocateReply::Refused { reason, detail: detail.to_string() }
}

pub(super) fn fenced(error: &FencingError) -> LeaseRefusal {
    match error {
        FencingError::StaleEpoch { .. } => LeaseRefusal::StaleEpoch,
        FencingError::UnknownLease(_) | FencingError::WrongToken(_) => LeaseRefusal::NotOwner,
    }
}

pub(super) fn terms_refused(error: &TermsError) -> LeaseRefusal {
    match error {
        TermsError::AlreadyOver(_) | TermsError::TooLong { .. } => LeaseRefusal::Expiry,
        TermsError::SshKey => LeaseRefusal::SshKey,
        TermsError::NoDevice | TermsError::TooManyDevices(_) | TermsError::DeviceTwice(_) => LeaseRefusal::NoDevice,
        TermsError::NoEpoch => LeaseRefusal::StaleEpoch,
    }
}

pub(super) fn device_refused(error: &LedgerError) -> LeaseRefusal {
    match error {
        LedgerError::InUse { .. } | LedgerError::Quarantined(_) => LeaseRefusal::DeviceBusy,
        LedgerError::NoSuchDevice(_) | LedgerError::NoDevice | LedgerError::Twice(_) => LeaseRefusal::NoDevice,
    }
}

/// What a renter is told of a lease's state.
pub(super) fn shown(state: LeaseState) -> synapse::ContainerState {
    match state {
        LeaseState::Requested | LeaseState::Reserving | LeaseState::Running => synapse::ContainerState::Running,
        LeaseState::Paused => synapse::ContainerState::Paused,
        LeaseState::Releasing | LeaseState::Released | LeaseState::Lost | LeaseState::Refused => {
            synapse::ContainerState::Gone
        }
    }
}

pub(super) fn running(lease: &Lease) -> AllocateReply {
    match (&lease.endpoint, &lease.container) {
        (Some(at), Some(container)) => AllocateReply::Running {
            ssh_host: at.host.to_string(),
            ssh_port: at.ssh_port,
            container: container.clone(),
        },
        _ => refused(LeaseRefusal::Engine, "the container has no address"),
    }
}
