//! What a validator is told: leases and refusals in the words of the wire.

use crate::lease::fencing::FencingError;
use crate::lease::ledger::LedgerError;
use crate::lease::machine::TermsError;
use crate::lease::{EndReason, Lease, LeaseState};
use crate::messages::miner::allocation_manager::NotRented;
use crate::wire::synapse::{self, AllocateReply, LeaseRefusal, Login, ReplyKey};

/// Who logs in to a container: it is the renter's own machine.
const USER: &str = "root";

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
        TermsError::Image => LeaseRefusal::Image,
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

/// Why the engine did not make the container of a lease.
pub(super) fn engine_refused(lease: &Lease) -> LeaseRefusal {
    match lease.end {
        Some(EndReason::ImageRefused) => LeaseRefusal::Image,
        Some(EndReason::DeviceNotFree) => LeaseRefusal::DeviceBusy,
        _ => LeaseRefusal::Engine,
    }
}

pub(super) fn not_rented(reason: LeaseRefusal, detail: impl std::fmt::Display) -> NotRented {
    NotRented { reason, detail: detail.to_string() }
}

/// How the renter logs in; nothing before there is a container.
pub(super) fn login(lease: &Lease) -> Option<Login> {
    let at = lease.endpoint?;
    let host_key = lease.host_key.clone();
    Some(Login { user: USER.to_owned(), host: at.host.to_string(), port: at.ssh_port, host_key })
}

/// A caller that sent a key reads there how to log in, and nobody else does.
pub(super) fn running(lease: &Lease, key: Option<ReplyKey>) -> AllocateReply {
    let (Some(login), Some(container)) = (login(lease), lease.container.clone()) else {
        return refused(LeaseRefusal::Engine, "the container has no address");
    };
    let Some(key) = key else {
        return AllocateReply::Running { ssh_host: login.host, ssh_port: login.port, container, login: None };
    };
    match key.seal(&login) {
        Ok(sealed) => AllocateReply::Running { ssh_host: String::new(), ssh_port: 0, container, login: Some(sealed) },
        Err(error) => refused(LeaseRefusal::Other, error),
    }
}
