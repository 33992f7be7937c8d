//! A synthetic renter: rents through the validator, holds, releases, and keeps a log of its own.
//!
//! The log is what a paying user would know: one JSON object a line, written and synced before the next step. Tests
//! compare it with what validator, miner and engine believe.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Serialize;
use tokio::time::sleep;

use crate::actors::validator::allocation_manager::AllocationManager;
use crate::clock::SharedClock;
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::Lease;
use crate::messages::validator::allocation_manager::{Release, Rent, RentError, RentRequest, ShowLease};
use crate::runtime::Handle;

/// How long one call to the validator may take.
const CALL: Duration = Duration::from_secs(90);
/// Time between two attempts.
const RETRY: Duration = Duration::from_millis(500);
/// A public key nobody has the secret of; the simulated engine lets nobody log in.
const SSH_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA devnet-renter";

/// Where rentals are had: a validator in this process, or another one's control socket.
///
/// Each call is safe to repeat. [`RentError::Unavailable`] means that the validator itself could not be asked or did
/// not answer, so that nothing is known of what it did.
#[async_trait]
pub trait Rentals: Send + Sync {
    /// Rents. With [`RentRequest::id`] a repeat is answered with the same lease, or with why it never began.
    async fn rent(&self, request: RentRequest) -> Result<Lease, RentError>;
    /// Ends a lease; the answer is the lease as it ended.
    async fn release(&self, lease: LeaseId) -> Result<Lease, RentError>;
    /// The lease as it is, ended ones included.
    async fn show(&self, lease: LeaseId) -> Result<Lease, RentError>;
}

#[async_trait]
impl Rentals for Handle<AllocationManager> {
    async fn rent(&self, request: RentRequest) -> Result<Lease, RentError> {
        self.ask(Rent(request), CALL).await.unwrap_or_else(|e| Err(RentError::Unavailable(e.to_string())))
    }
    async fn release(&self, lease: LeaseId) -> Result<Lease, RentError> {
        self.ask(Release(lease), CALL).await.unwrap_or_else(|e| Err(RentError::Unavailable(e.to_string())))
    }
    async fn show(&self, lease: LeaseId) -> Result<Lease, RentError> {
        self.ask(ShowLease(lease), CALL).await.unwrap_or_else(|e| Err(RentError::Unavailable(e.to_string())))
    }
}

/// How the renter behaves.
#[derive(Debug, Clone)]
pub struct RenterPlan {
    /// On whose behalf.
    pub renter: Hotkey,
    /// How long a lease is held before it is released.
    pub hold: Duration,
    /// Time between a release and the next rental.
    pub pause: Duration,
    /// Where the log is kept.
    pub log: PathBuf,
}

/// One line of the log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
enum Line<'a> {
    Rented { at_ms: u64, lease: LeaseId, miner: Hotkey, devices: &'a [DeviceId], fencing_epoch: u64 },
    Released { at_ms: u64, lease: LeaseId, state: &'a str },
    NotRented { at_ms: u64, error: &'a str },
    NotReleased { at_ms: u64, lease: LeaseId, error: &'a str },
}

async fn write(path: &Path, line: &Line<'_>) {
    let Ok(mut text) = serde_json::to_string(line) else { return };
    text.push('\n');
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()
    })
    .await;
    if !matches!(written, Ok(Ok(()))) {
        tracing::warn!(?written, "the renter's log cannot be written");
    }
}

/// Rents, holds and releases for ever. A refusal is logged once, until it changes.
pub async fn run(allocations: Arc<dyn Rentals>, clock: SharedClock, plan: RenterPlan) {
    let mut last_error = String::new();
    loop {
        let request = RentRequest {
            id: None,
            renter: plan.renter,
            model: None,
            devices: 1,
            duration: plan.hold * 10 + Duration::from_secs(60),
            image: "ubuntu".into(),
            ssh_key: SSH_KEY.into(),
        };
        let lease = match allocations.rent(request).await {
            Ok(lease) => lease,
            Err(error) => {
                let error = error.to_string();
                if error != last_error {
                    write(&plan.log, &Line::NotRented { at_ms: clock.now_ms(), error: &error }).await;
                    last_error = error;
                }
                sleep(RETRY).await;
                continue;
            }
        };
        last_error.clear();
        let (id, miner) = (lease.id, lease.miner);
        let at_ms = clock.now_ms();
        let line =
            Line::Rented { at_ms, lease: id, miner, devices: &lease.devices, fencing_epoch: lease.fencing_epoch };
        write(&plan.log, &line).await;
        sleep(plan.hold).await;
        release(allocations.as_ref(), &clock, &plan, id).await;
        sleep(plan.pause).await;
    }
}

async fn release(allocations: &dyn Rentals, clock: &SharedClock, plan: &RenterPlan, id: LeaseId) {
    let mut last_error = String::new();
    loop {
        let error = match allocations.release(id).await {
            Ok(lease) => {
                let state = lease.state.label();
                write(&plan.log, &Line::Released { at_ms: clock.now_ms(), lease: id, state }).await;
                return;
            }
            Err(error @ RentError::UnknownLease) => {
                // The validator keeps no record of it: there is nothing left to release.
                let error = error.to_string();
                write(&plan.log, &Line::NotReleased { at_ms: clock.now_ms(), lease: id, error: &error }).await;
                return;
            }
            Err(error) => error.to_string(),
        };
        if error != last_error {
            write(&plan.log, &Line::NotReleased { at_ms: clock.now_ms(), lease: id, error: &error }).await;
            last_error = error;
        }
        sleep(RETRY).await;
    }
}
