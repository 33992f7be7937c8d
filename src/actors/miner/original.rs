//! What the miner answers to the original's synapses: the modes of its `Allocate` on our leases.
//!
//! A caller is the hotkey whose signature was verified and nobody else; the hotkeys in the body's `dendrite` and `axon` are
//! never looked at. The original knows one rental at a time, so its callers rent all devices of this machine together, for
//! a lease like any other: journalled, fenced, ended by expiry. The public key that the caller sends owns it: a token
//! derived from the key's text stands in its place, of which the journal keeps the digest ([`OwnerToken::of_public_key`]).
//! Whoever changes something must show that key *and* be the renter; the original asks for neither before it restarts,
//! pauses or evicts. A machine that is rented is not given to a second caller, where the original destroys the first
//! container.
//!
//! # What an eavesdropper can do
//! The classic scheme signs no body ([`crate::wire::classic`]), and there is no encryption on the way.
//! - Whoever only listens sees who rents from whom, for how long, and the public key. The credentials are hidden under that
//!   key, and the key alone changes nothing: a call signed by another hotkey is refused, and a request that was seen is a
//!   replay.
//! - Whoever can hold up and change what is sent can turn a renter's request into any other of the same renter while it is
//!   fresh: put its own key in, so that the credentials are for it; make a return of a probe, with the key it saw; or invent
//!   any reply, since replies are not signed. The original has nothing against that, and nothing here can have.
//!
//! Callers under `btauth/1` sign what they send. `axon.accept_classic=false` refuses all others.
//!
//! # Design notes
//! - The probe is asked by everybody and often. It reads what [`AllocationManager`] publishes, and costs no actor a thing.
//! - `status: true` of a probe means *free*; whoever checks on a rental reads `false` as "it is up". A machine in
//!   maintenance, or that does not know its leases yet, is not free.
//! - Capacities that a caller asks for are not compared: the whole machine is what there is.
//! - The password in the envelope is this module's; the simulated containers have no login at all, so it opens nothing yet.
//! - Any caller that is admitted can hold the machine, for nothing but its stake. `leases.original_max_duration` bounds that.
//!   A validator that only tests the machine (`testing`) asks for a day and returns it within minutes; `leases.test_duration`
//!   bounds what is lost when the two lose sight of each other.
//! - A caller that goes away, or is told no answer, before it has the credentials rents nothing: what was begun is ended
//!   ([`Abandon`]). It would hold the machine until its expiry, since its renter does not know of it.
//! - That the renter is told is on record before it is told ([`MachineHeard`]), so this holds over restarts too. What cannot
//!   be known is whether an answer arrives: a renter that loses it must return the machine with the key it sent, or wait.
//! - Restart and the exchange of keys need an engine that can; until then they fail.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::allocation_manager::AllocationManager;
use super::specs_collector::SpecsCollector;
use crate::actors::duty::Duty;
use crate::ids::{Hotkey, LeaseId};
use crate::lease::OwnerToken;
use crate::messages::miner::allocation_manager::{
    Abandon, AllocateMachine, MachineHeard, MachineOffer, PauseMachine, Release, ReleaseMachine,
};
use crate::messages::miner::specs_collector::GetSpecs;
use crate::runtime::{AskError, Handle};
use crate::settings::Live;
use crate::wire::synapse::original::{Allocate, CallerKey, Challenge, Credentials, Mode, Output, Specs, specs_text};
use crate::wire::synapse::{AllocateReply, LeaseRefusal, ReleaseReply, ReleaseRequest};

/// How long a caller waits for the first measurement of this machine.
const SPECS: Duration = Duration::from_secs(5);
/// Seconds of one day of a `timeline`.
const DAY: u64 = 24 * 60 * 60;

/// Why there is no answer now; the caller may ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// The leases are being loaded.
    #[error("this node does not know its rentals yet, ask again")]
    Loading,
    /// An actor did not answer.
    #[error("this node cannot answer now: {0}")]
    Actor(#[from] AskError),
}

/// For how long callers of the original's protocol may rent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseLimits {
    /// At most; zero: not at all.
    pub longest: Duration,
    /// Who only tests the machine.
    pub test: Duration,
}

impl LeaseLimits {
    /// How long a lease for so many days lasts; nothing if there is none.
    fn lasts(self, days: i64, testing: bool) -> Option<Duration> {
        let asked = Duration::from_secs(u64::try_from(days).unwrap_or_default().saturating_mul(DAY));
        let lasts = asked.min(self.longest);
        Some(if testing { lasts.min(self.test) } else { lasts }).filter(|lasts| !lasts.is_zero())
    }
}

/// Answers the original's synapses.
pub struct Original {
    /// Keeps the leases.
    pub allocations: Handle<AllocationManager>,
    /// Measures this machine.
    pub specs: Handle<SpecsCollector>,
    /// What `allocations` publishes.
    pub offer: watch::Receiver<Option<MachineOffer>>,
    /// The operator's word on new leases.
    pub duty: watch::Receiver<Duty>,
    /// The port that is told beside every answer.
    pub ssh_port: Live<Arc<u16>>,
    /// For how long the machine is rented.
    pub limits: Live<LeaseLimits>,
    /// How long a change of a lease may take.
    pub deadline: Duration,
}

impl Original {
    /// The output to a verified caller's `request`.
    ///
    /// # Errors
    /// [`NotNow`].
    pub async fn allocate(&self, caller: Hotkey, request: &Allocate) -> Result<Output, NotNow> {
        let output = match Mode::of(request) {
            Mode::Probe => Output::of(self.is_free()),
            Mode::Owns => Output::of(self.owns(request)?),
            Mode::Allocate => self.rent(caller, request).await?,
            Mode::Deallocate => Output::of(self.give_back(caller, request).await?),
            Mode::Pause => Output::of(self.set_paused(caller, request, true).await?),
            Mode::Unpause => Output::of(self.set_paused(caller, request, false).await?),
            mode @ (Mode::Restart | Mode::ExchangeKey) => {
                tracing::warn!(%caller, mode = mode.label(), "refused: the container engine of this version cannot do that");
                Output::of(false)
            }
            Mode::OtherAction => {
                let action: String = request.docker_action.action().chars().take(64).collect();
                tracing::info!(%caller, action, "nothing done: this version does not know the action");
                Output::default()
            }
        };
        Ok(output.with_port(*self.ssh_port.get()))
    }

    /// The output to a `Challenge`: nothing, as in the original, whatever is asked.
    pub fn challenge(&self, _: &Challenge) -> Output {
        Output::default()
    }

    /// What `Specs` tells: this machine in the original's JSON, nothing while it is not measured.
    ///
    /// # Errors
    /// [`NotNow::Actor`].
    pub async fn specs(&self, _: &Specs) -> Result<String, NotNow> {
        match self.specs.ask(GetSpecs, SPECS).await {
            Ok(measured) => Ok(specs_text(&measured.specs)),
            Err(AskError::Deadline) => Ok(String::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn is_free(&self) -> bool {
        let free = self.offer.borrow().as_ref().is_some_and(|offer| offer.free);
        free && !self.limits.get().longest.is_zero() && self.duty.borrow().refuses_leases().is_none()
    }

    fn owns(&self, request: &Allocate) -> Result<bool, NotNow> {
        let digest = token(request).digest();
        match &*self.offer.borrow() {
            // Not knowing is no answer: whoever checks on a rental would take it for lost.
            None => Err(NotNow::Loading),
            Some(offer) => Ok(offer.running.contains(&digest)),
        }
    }

    async fn rent(&self, caller: Hotkey, request: &Allocate) -> Result<Output, NotNow> {
        let testing = request.device_requirement.is_testing();
        let Some(lasts) = self.limits.get().lasts(request.timeline, testing) else {
            tracing::info!(%caller, "not rented: leases.original_max_duration leaves the original's callers no time");
            return Ok(Output::of(false));
        };
        // Before anything is made: without this key nobody could log in, nor give the machine back.
        let key = match CallerKey::read(request.public_key.text()) {
            Ok(key) => key,
            Err(error) => {
                tracing::warn!(%caller, %error, "not rented: the credentials could not be sent");
                return Ok(Output::of(false));
            }
        };
        let mut lease = LeaseId([0; 16]);
        if let Err(error) = getrandom::fill(&mut lease.0) {
            tracing::error!(%caller, %error, "not rented: the system gives no randomness");
            return Ok(Output::of(false));
        }
        let ssh_key = request.docker_requirement.ssh_key();
        let wish = AllocateMachine {
            caller,
            lease,
            owner_token: token(request),
            ssh_key: (!ssh_key.is_empty()).then(|| ssh_key.to_owned()),
            lasts,
        };
        let mut unheard = Unheard { allocations: &self.allocations, release: Some(release(caller, lease, request)) };
        let port = match self.allocations.ask(wish, self.deadline).await? {
            AllocateReply::Running { ssh_port, .. } => ssh_port,
            AllocateReply::Refused { reason, detail } => {
                tracing::info!(%caller, ?reason, detail, "not rented");
                // Nothing was begun, but where something failed on the way: that must not be finished later.
                if reason != LeaseRefusal::Other {
                    unheard.release = None;
                }
                return Ok(Output::of(false));
            }
        };
        let sealed = Credentials::generate(port).map_err(|e| e.to_string());
        match sealed.and_then(|credentials| key.seal(&credentials).map_err(|e| e.to_string())) {
            Ok(info) => {
                if let Err(error) = self.allocations.ask(MachineHeard { caller, lease }, self.deadline).await? {
                    tracing::warn!(%caller, %lease, %error, "not rented");
                    return Ok(Output::of(false));
                }
                unheard.release = None;
                Ok(Output::of(true).with_info(info))
            }
            Err(problem) => {
                tracing::error!(%caller, problem, "the credentials could not be sent, the machine is taken back");
                Ok(Output::of(false))
            }
        }
    }

    async fn give_back(&self, caller: Hotkey, request: &Allocate) -> Result<bool, NotNow> {
        let wish = ReleaseMachine { caller, owner_token: token(request) };
        Ok(match self.allocations.ask(wish, self.deadline).await? {
            ReleaseReply::Released => true,
            ReleaseReply::UnknownLease => {
                tracing::info!(%caller, "not returned: no lease belongs to this key");
                false
            }
            ReleaseReply::Refused { reason, detail } => {
                tracing::info!(%caller, ?reason, detail, "not returned");
                false
            }
        })
    }

    async fn set_paused(&self, caller: Hotkey, request: &Allocate, paused: bool) -> Result<bool, NotNow> {
        let wish = PauseMachine { caller, owner_token: token(request), paused };
        let done = self.allocations.ask(wish, self.deadline).await?;
        if let Err(error) = &done {
            tracing::info!(%caller, paused, %error, "the container stays as it is");
        }
        Ok(done.is_ok())
    }
}

/// A rental whose renter has not heard of it yet; ended when this is dropped, whatever the reason.
struct Unheard<'a> {
    allocations: &'a Handle<AllocationManager>,
    release: Option<Release>,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if let Some(release) = self.release.take()
            && let Err(error) = self.allocations.tell(Abandon(release))
        {
            tracing::error!(%error, "a rental that nobody heard of is ended by a later comparison");
        }
    }
}

fn release(caller: Hotkey, lease: LeaseId, request: &Allocate) -> Release {
    Release { caller, request: ReleaseRequest { lease, fencing_epoch: 1, owner_token: token(request) } }
}

fn token(request: &Allocate) -> OwnerToken {
    OwnerToken::of_public_key(request.public_key.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_as_asked_within_the_limits_and_a_test_never_long() {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        let limits = LeaseLimits { longest: minutes(2 * 24 * 60), test: minutes(15) };
        assert_eq!(limits.lasts(1, false), Some(minutes(24 * 60)));
        assert_eq!([limits.lasts(3, false), limits.lasts(i64::MAX, false)], [Some(limits.longest); 2]);
        assert_eq!([limits.lasts(1, true), limits.lasts(90, true)], [Some(limits.test); 2]);
        let short = LeaseLimits { longest: minutes(5), ..limits };
        assert_eq!([short.lasts(1, false), short.lasts(1, true)], [Some(minutes(5)); 2]);
        let none = LeaseLimits { longest: Duration::ZERO, ..limits };
        assert_eq!(
            [none.lasts(1, false), none.lasts(1, true), limits.lasts(0, false), limits.lasts(-1, true)],
            [None; 4]
        );
    }
}
