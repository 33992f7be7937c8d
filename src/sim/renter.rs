//! A synthetic renter: rents through the validator, holds, releases, and keeps a log of its own.
//!
//! Invariants: a wish is in the [`log`], synced, before the validator hears of it, and keeps its lease id until its end
//! is known; so whoever dies on the way, renter or validator, the renter goes on where its log ends, and no wish
//! becomes two leases.

pub mod log;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::sleep;

use crate::actors::validator::allocation_manager::AllocationManager;
use crate::clock::{SharedClock, millis};
use crate::ids::{Hotkey, LeaseId};
use crate::lease::Lease;
use crate::messages::validator::allocation_manager::{Release, Rent, RentError, RentRequest, ShowLease};
use crate::rental::Requirements;
use crate::runtime::Handle;
use log::{Line, Log, Open, open_after};

/// How long one call to the validator may take.
const CALL: Duration = Duration::from_secs(90);
/// Time between two attempts.
const RETRY: Duration = Duration::from_millis(500);
/// Looks at a lease while it is held: so many, evenly.
const LOOKS: u32 = 4;
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
    /// Where the log is kept. The next renter of the same plan takes the same name with a number.
    pub log: PathBuf,
}

/// Rents, holds and releases for ever, beginning with what the log says is open.
pub async fn run(rentals: Arc<dyn Rentals>, clock: SharedClock, plan: RenterPlan) {
    let (log, lines) = match Log::open(&plan.log) {
        Ok(opened) => opened,
        Err(error) => {
            tracing::error!(%error, log = %plan.log.display(), "the renter's log cannot be used, so nothing is rented");
            return;
        }
    };
    let open = open_after(&lines, plan.renter);
    let renter = Renter { rentals, clock, plan, log };
    let mut open = open;
    loop {
        open = match open.take() {
            None => {
                sleep(renter.plan.pause).await;
                renter.wish().await
            }
            Some(Open::Wanted(request)) => renter.rent(request).await,
            Some(Open::Rented { lease, since_ms }) => {
                renter.hold(lease, since_ms).await;
                renter.release(lease).await;
                None
            }
        };
    }
}

struct Renter {
    rentals: Arc<dyn Rentals>,
    clock: SharedClock,
    plan: RenterPlan,
    log: Log,
}

impl Renter {
    /// Writes a line; nothing goes on before it is on disk.
    async fn note(&self, line: Line) {
        let mut told = false;
        while let Err(error) = self.log.write(&line).await {
            if !told {
                tracing::error!(%error, "the renter's log cannot be written, the renter waits");
                told = true;
            }
            sleep(RETRY).await;
        }
    }

    /// A new wish, on record before anybody hears of it.
    async fn wish(&self) -> Option<Open> {
        let id = match LeaseId::random() {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(%error, "no randomness from the system");
                return None;
            }
        };
        let request = RentRequest {
            id: Some(id),
            renter: self.plan.renter,
            miner: None,
            requirements: Requirements::any(1),
            duration: Duration::from_millis(millis(self.plan.hold * 10 + Duration::from_secs(60))),
            // The miner's own: what else it offers is its matter.
            image: String::new(),
            ssh_key: SSH_KEY.into(),
        };
        self.note(Line::wanted(&request, self.clock.now_ms())?).await;
        Some(Open::Wanted(request))
    }

    /// Asks until the wish is a lease, or cannot become one. What stands in the way is logged once, until it changes.
    async fn rent(&self, request: RentRequest) -> Option<Open> {
        let lease = request.id?;
        let mut last_error = String::new();
        loop {
            let error = match self.rentals.rent(request.clone()).await {
                Ok(made) => {
                    let at_ms = self.clock.now_ms();
                    let (miner, devices, fencing_epoch) = (made.miner, made.devices, made.fencing_epoch);
                    self.note(Line::Rented { at_ms, lease, miner, devices, fencing_epoch }).await;
                    return Some(Open::Rented { lease, since_ms: at_ms });
                }
                Err(error) => error,
            };
            let (text, at_ms) = (error.to_string(), self.clock.now_ms());
            if error.is_final() {
                self.note(Line::Refused { at_ms, lease, error: text }).await;
                return None;
            }
            if text != last_error {
                self.note(Line::NotRented { at_ms, lease, error: text.clone() }).await;
                last_error = text;
            }
            sleep(RETRY).await;
        }
    }

    /// Holds the lease for its time, or until it is seen to have ended before.
    async fn hold(&self, lease: LeaseId, since_ms: u64) {
        let until_ms = since_ms.saturating_add(millis(self.plan.hold));
        loop {
            let left = Duration::from_millis(until_ms.saturating_sub(self.clock.now_ms()));
            if left.is_zero() {
                return;
            }
            sleep(left.min(self.plan.hold / LOOKS)).await;
            // A validator that does not answer is no end: the lease goes on without it.
            if matches!(self.rentals.show(lease).await, Ok(seen) if seen.state.is_final()) {
                return;
            }
        }
    }

    /// Asks until the end is known.
    async fn release(&self, lease: LeaseId) {
        let mut last_error = String::new();
        loop {
            let answer = self.rentals.release(lease).await;
            let at_ms = self.clock.now_ms();
            let error = match answer {
                Ok(Lease { state, end, .. }) => return self.note(Line::Released { at_ms, lease, state, end }).await,
                Err(RentError::UnknownLease) => return self.note(Line::Forgotten { at_ms, lease }).await,
                Err(error) => error.to_string(),
            };
            if error != last_error {
                self.note(Line::NotReleased { at_ms, lease, error: error.clone() }).await;
                last_error = error;
            }
            sleep(RETRY).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::clock::Clock;
    use crate::ids::{DeviceId, Hash32};
    use crate::lease::{EndReason, Event, LeaseTerms, Role, apply};

    /// Goes with tokio's paused clock.
    struct Paused(tokio::time::Instant);
    impl Clock for Paused {
        fn now_ns(&self) -> u64 {
            self.0.elapsed().as_nanos() as u64
        }
    }

    /// A validator that now and then does what it is asked and does not say so.
    #[derive(Default)]
    struct Forgetful {
        leases: Mutex<BTreeMap<LeaseId, (Hash32, Lease)>>,
        calls: std::sync::atomic::AtomicUsize,
    }

    impl Forgetful {
        fn unavailable(&self) -> bool {
            !self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(3)
        }
    }

    #[async_trait]
    impl Rentals for Forgetful {
        async fn rent(&self, request: RentRequest) -> Result<Lease, RentError> {
            let id = request.id.unwrap();
            let terms = LeaseTerms {
                id,
                role: Role::Renter,
                fencing_epoch: 1,
                renter: request.renter,
                miner: Hotkey([2; 32]),
                devices: vec![DeviceId::cpu(0)],
                expires_at_ms: u64::MAX,
                owner_token_digest: Hash32([0; 32]),
                ssh_public_key: None,
                image: String::new(),
                wish: Some(request.wish()),
                unheard: false,
            };
            let began = Event::Started { container: "c".into(), endpoint: None, host_key: None, at_ms: 1 };
            let lease = [Event::Reserved, began].iter().fold(Lease::open(&terms, 1), |l, e| apply(&l, e).unwrap());
            let mut leases = self.leases.lock().unwrap();
            let (wish, lease) = leases.entry(id).or_insert((request.wish(), lease)).clone();
            assert_eq!(wish, request.wish(), "a repeat is the same wish");
            if self.unavailable() { Err(RentError::Unavailable("it died".into())) } else { Ok(lease) }
        }
        async fn release(&self, id: LeaseId) -> Result<Lease, RentError> {
            let mut leases = self.leases.lock().unwrap();
            let (_, lease) = leases.get_mut(&id).ok_or(RentError::UnknownLease)?;
            for event in [Event::ReleaseWanted { why: EndReason::Returned }, Event::Destroyed { at_ms: 2 }] {
                *lease = apply(lease, &event).unwrap_or_else(|_| lease.clone());
            }
            let lease = lease.clone();
            if self.unavailable() { Err(RentError::Unavailable("it died".into())) } else { Ok(lease) }
        }
        async fn show(&self, id: LeaseId) -> Result<Lease, RentError> {
            self.leases.lock().unwrap().get(&id).map(|(_, l)| l.clone()).ok_or(RentError::UnknownLease)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renter_that_is_ended_anywhere_goes_on_where_its_log_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("renter.log");
        let plan = RenterPlan {
            renter: Hotkey([1; 32]),
            hold: Duration::from_millis(40),
            pause: Duration::from_millis(10),
            log: path.clone(),
        };
        let validator = Arc::new(Forgetful::default());
        let clock = Arc::new(Paused(tokio::time::Instant::now()));
        // Ended again and again, each time a little later; a new one starts on the same log.
        for life in 1..60 {
            let renter = run(validator.clone(), clock.clone(), plan.clone());
            let _ = tokio::time::timeout(Duration::from_millis(life * 37), renter).await;
            // A line that was being written then is finished by its own thread, as the system would for a process.
            while std::fs::File::open(&path).unwrap().try_lock().is_err() {
                tokio::task::yield_now().await;
            }
        }
        let lines = log::read(&path).unwrap();
        let ids = |of: fn(&Line) -> bool| lines.iter().filter(|l| of(l)).map(Line::lease).collect::<Vec<_>>();
        let wanted = ids(|l| matches!(l, Line::Wanted { .. }));
        let rented = ids(|l| matches!(l, Line::Rented { .. }));
        let released = ids(|l| matches!(l, Line::Released { state: crate::lease::LeaseState::Released, .. }));
        assert!(released.len() > 5, "{lines:?}");
        // Each step of each lease once, in one order, and only the last one may be open.
        assert_eq!(wanted[..rented.len()], rented);
        assert_eq!(rented[..released.len()], released);
        assert!(wanted.len() - released.len() <= 1, "{lines:?}");
        let known: Vec<LeaseId> = validator.leases.lock().unwrap().keys().copied().collect();
        assert!(known.iter().all(|id| wanted.contains(id)), "nothing was asked for that is not on record");
        assert!(lines.iter().any(|l| matches!(l, Line::NotRented { .. })));
    }
}
