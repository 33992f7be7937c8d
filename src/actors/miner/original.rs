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
//! - What a caller asks for is compared with what this machine is ([`demand`]); whoever asks for more is not served. An image
//!   is a wish that the engine's policy judges; build commands are not run. The images that the original's own programs
//!   name without meaning them stand for `leases.original_image`. That one is tried beforehand
//!   ([`crate::lease::engine::docker::profile`]): where it lacks what a validator's test runs, tests are refused. Renters are
//!   served: a login works in any image, and what they want of it nobody here knows.
//! - The password in the envelope is made here, once the container is there: the engine is given its hash, and nobody keeps
//!   it. An operator who wants keys only says so (`leases.original_password`).
//! - Any caller that is admitted can hold the machine, for nothing but its stake. `leases.original_max_duration` bounds that.
//!   A validator that only tests the machine (`testing`) asks for a day and returns it within minutes; `leases.test_duration`
//!   bounds what is lost when the two lose sight of each other.
//! - A caller that goes away, or is told no answer, before it has the credentials rents nothing: what was begun is ended
//!   ([`Abandon`]). It would hold the machine until its expiry, since its renter does not know of it.
//! - That the renter is told is on record before it is told ([`MachineHeard`]), so this holds over restarts too. What cannot
//!   be known is whether an answer arrives: a renter that loses it must return the machine with the key it sent, or wait.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::allocation_manager::AllocationManager;
use super::specs_collector::SpecsCollector;
use crate::actors::duty::Duty;
use crate::ids::{Hotkey, LeaseId};
use crate::lease::engine::docker::profile::Tried;
use crate::lease::{Command, Grant, Lease, OwnerToken};
use crate::messages::miner::allocation_manager::{
    Abandon, AllocateMachine, ChangeMachine, MachineHeard, MachineOffer, NotRented, Release, ReleaseMachine,
};
use crate::messages::miner::specs_collector::GetSpecs;
use crate::runtime::{AskError, Handle};
use crate::settings::Live;
use crate::wire::synapse::original::{
    Allocate, CallerKey, Challenge, Credentials, DockerRequirement, Mode, Output, Specs, demand, specs_text,
};
use crate::wire::synapse::{LeaseRefusal, ReleaseReply, ReleaseRequest};

/// How long a caller waits for the first measurement of this machine.
const SPECS: Duration = Duration::from_secs(5);
/// Seconds of one day of a `timeline`.
const DAY: u64 = 24 * 60 * 60;
/// The images that the original's own programs name, and its miners never look at.
const UNMEANT: &[&str] = &["", "ubuntu", "pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime"];

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

/// What callers of the original's protocol get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalPolicy {
    /// Whether they may log in with a password.
    pub password: bool,
    /// The image for those who ask for none; empty for the engine's default.
    pub image: String,
}

impl OriginalPolicy {
    /// The image that a caller gets, or why none. The engine judges what a caller names.
    fn image(&self, asked: &DockerRequirement) -> Result<String, &'static str> {
        let (commands, image) = (asked.dockerfile().trim(), asked.base_image().trim());
        if !commands.is_empty() {
            return Err("build commands are not run here; ask for an image by its name (base_image)");
        }
        Ok(if UNMEANT.contains(&image) { self.image.clone() } else { image.to_owned() })
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
    /// What its renters get.
    pub policy: Live<Arc<OriginalPolicy>>,
    /// What became of the trial of their image, where the engine tries it.
    pub tried: Option<watch::Receiver<Option<Tried>>>,
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
            Mode::Pause => self.change(caller, request, Command::Pause).await?,
            Mode::Unpause => self.change(caller, request, Command::Unpause).await?,
            Mode::Restart => self.change(caller, request, Command::Restart).await?,
            Mode::ExchangeKey => match exchange(request) {
                Ok(grant) => self.change(caller, request, Command::Grant(grant)).await?,
                Err(problem) => {
                    tracing::info!(%caller, problem, "no key is exchanged");
                    Output::of(false)
                }
            },
            Mode::OtherAction => {
                let action: String = request.docker_action.action().chars().take(64).collect();
                tracing::info!(%caller, action, "nothing done: this version does not know the action");
                Output::default()
            }
        };
        Ok(if output.port().is_some() { output } else { output.with_port(*self.ssh_port.get()) })
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
        let policy = self.policy.get();
        let ssh_key = request.docker_requirement.ssh_key();
        let wanted = match policy.image(&request.docker_requirement) {
            Ok(image) => self.suits(&policy, request, &image).await.map(|()| image),
            Err(problem) => Err(problem.to_owned()),
        };
        let image = match wanted {
            Ok(image) => image,
            Err(problem) => {
                tracing::info!(%caller, problem, "not rented");
                return Ok(Output::of(false));
            }
        };
        let mut lease = LeaseId([0; 16]);
        if let Err(error) = getrandom::fill(&mut lease.0) {
            tracing::error!(%caller, %error, "not rented: the system gives no randomness");
            return Ok(Output::of(false));
        }
        let wish = AllocateMachine {
            caller,
            lease,
            owner_token: token(request),
            ssh_key: (!ssh_key.is_empty()).then(|| ssh_key.to_owned()),
            image,
            lasts,
        };
        let mut unheard = Unheard { allocations: &self.allocations, release: Some(release(caller, lease, request)) };
        let rented = match self.allocations.ask(wish, self.deadline).await? {
            Ok(rented) => rented,
            Err(NotRented { reason, detail }) => {
                tracing::info!(%caller, ?reason, detail, "not rented");
                // Nothing was begun, but where something failed on the way: that must not be finished later.
                if reason != LeaseRefusal::Other {
                    unheard.release = None;
                }
                return Ok(Output::of(false));
            }
        };
        let credentials = match self.credentials(caller, request, &rented, policy.password).await? {
            Ok(credentials) => credentials,
            Err(problem) => {
                tracing::error!(%caller, %lease, problem, "the renter could not log in, the machine is taken back");
                return Ok(Output::of(false));
            }
        };
        let info = match seal(&key, credentials, &rented) {
            Ok(info) => info,
            Err(problem) => {
                tracing::error!(%caller, problem, "the credentials could not be sent, the machine is taken back");
                return Ok(Output::of(false));
            }
        };
        if let Err(error) = self.allocations.ask(MachineHeard { caller, lease }, self.deadline).await? {
            tracing::warn!(%caller, %lease, %error, "not rented");
            return Ok(Output::of(false));
        }
        unheard.release = None;
        Ok(with_port_of(Output::of(true).with_info(info), &rented))
    }

    /// Whether the machine is what the caller asks for, and the caller could do with it what it is about to.
    async fn suits(&self, policy: &OriginalPolicy, request: &Allocate, image: &str) -> Result<(), String> {
        if !policy.password && request.docker_requirement.ssh_key().is_empty() {
            return Err("only keys log in here (leases.original_password: false), and none was sent".to_owned());
        }
        if request.device_requirement.is_testing() {
            passes_tests(self.tried.as_ref().and_then(|tried| tried.borrow().clone()).as_ref(), image)?;
        }
        // Not measured yet: then nothing is known that the machine has not.
        match self.specs.ask(GetSpecs, SPECS).await {
            Ok(measured) => demand::unmet(&request.device_requirement, &measured.specs).map_or(Ok(()), Err),
            Err(_) => Ok(()),
        }
    }

    /// How the renter logs in. The password's hash is in the container before anybody is told the password.
    async fn credentials(
        &self,
        caller: Hotkey,
        request: &Allocate,
        rented: &Lease,
        password: bool,
    ) -> Result<Result<Credentials, String>, NotNow> {
        let Some(at) = rented.endpoint else { return Ok(Err("the container has no address".to_owned())) };
        if !password {
            return Ok(Ok(Credentials::without_password(at.ssh_port)));
        }
        let made = tokio::task::spawn_blocking(move || {
            let credentials = Credentials::generate(at.ssh_port).map_err(|e| e.to_string())?;
            let hash = credentials.password_hash().map_err(|e| e.to_string())?;
            Ok::<_, String>((credentials, hash))
        });
        let (credentials, hash) = match made.await {
            Ok(Ok(made)) => made,
            Ok(Err(problem)) => return Ok(Err(problem)),
            Err(_) => return Ok(Err("the password's worker ended early".to_owned())),
        };
        let command = Command::Grant(Grant::PasswordHash(hash));
        let wish = ChangeMachine { caller, owner_token: token(request), command };
        Ok(self.allocations.ask(wish, self.deadline).await?.map(|_| credentials).map_err(|e| e.to_string()))
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

    async fn change(&self, caller: Hotkey, request: &Allocate, command: Command) -> Result<Output, NotNow> {
        let mode = Mode::of(request).label();
        let wish = ChangeMachine { caller, owner_token: token(request), command };
        Ok(match self.allocations.ask(wish, self.deadline).await? {
            Ok(lease) => with_port_of(Output::of(true), &lease),
            Err(error) => {
                tracing::info!(%caller, mode, %error, "the container stays as it is");
                Output::of(false)
            }
        })
    }
}

/// Whether nothing is known that a test in this image would lack. One that was not tried may have everything.
fn passes_tests(tried: Option<&Tried>, image: &str) -> Result<(), String> {
    let verdict = tried.filter(|tried| tried.wish == image).map(|tried| &tried.verdict);
    match verdict {
        Some(Err(why)) => {
            Err(format!("a test could only fail, the image lacks what it needs (leases.original_image): {why}"))
        }
        _ => Ok(()),
    }
}

/// With the port where this lease's SSH server really is.
fn with_port_of(output: Output, lease: &Lease) -> Output {
    match lease.endpoint {
        Some(at) => output.with_port(at.ssh_port),
        None => output,
    }
}

/// Hides the credentials, with the fingerprint of the host's key where it fits.
fn seal(key: &CallerKey, credentials: Credentials, lease: &Lease) -> Result<String, String> {
    let with_host_key = credentials.clone().with_host_key(lease.host_key.as_deref());
    key.seal(&with_host_key).or_else(|_| key.seal(&credentials)).map_err(|e| e.to_string())
}

/// The key that is exchanged. The original's renters have one, the terminal of its web page another; no kind means the
/// first.
fn exchange(request: &Allocate) -> Result<Grant, &'static str> {
    let key = request.docker_action.ssh_key();
    match request.docker_action.key_type() {
        "" | "user" if key.is_empty() => Err("no key was sent"),
        "" | "user" => Ok(Grant::UserKey(key.to_owned())),
        "terminal" => Ok(Grant::TerminalKey((!key.is_empty()).then(|| key.to_owned()))),
        _ => Err("key_type is neither user nor terminal"),
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

    #[test]
    fn what_the_originals_programs_name_without_meaning_it_is_the_operators_image_and_no_commands_are_run() {
        let policy = OriginalPolicy { password: true, image: "legacy".to_owned() };
        let image = |base_image: &str, dockerfile: &str| {
            let asked = serde_json::json!({"base_image": base_image, "dockerfile": dockerfile});
            policy.image(&serde_json::from_value(asked).unwrap())
        };
        for unmeant in ["", "ubuntu", " ubuntu\n", "pytorch/pytorch:2.5.1-cuda12.4-cudnn9-runtime"] {
            assert_eq!(image(unmeant, "  "), Ok("legacy".to_owned()), "{unmeant:?}");
        }
        assert_eq!(image("ghcr.io/a/b:1", ""), Ok("ghcr.io/a/b:1".to_owned()));
        assert_eq!(policy.image(&serde_json::from_value(serde_json::json!({})).unwrap()), Ok("legacy".to_owned()));
        assert!(image("ubuntu", "touch /tmp/x").is_err());
        assert!(image("ubuntu", "\"; $(id)").is_err());
    }

    #[test]
    fn a_test_is_refused_only_where_its_very_image_is_known_to_lack_something() {
        let tried = |verdict| Tried { wish: "legacy".to_owned(), id: "sha256:1".to_owned(), verdict };
        let lacks = tried(Err("torch: ModuleNotFoundError".to_owned()));
        let why = passes_tests(Some(&lacks), "legacy").unwrap_err();
        assert!(why.contains("leases.original_image") && why.ends_with("torch: ModuleNotFoundError"), "{why}");
        // Another one since a reload, and one that was not tried yet.
        assert_eq!((passes_tests(Some(&lacks), "newer"), passes_tests(None, "legacy")), (Ok(()), Ok(())));
        assert_eq!(passes_tests(Some(&tried(Ok("Python 3".to_owned()))), "legacy"), Ok(()));
    }

    #[test]
    fn a_key_is_exchanged_for_the_user_or_the_terminal_and_for_nobody_else() {
        let wish = |key_type: &str, ssh_key: &str| {
            let action = serde_json::json!({"action": "exchange_key", "ssh_key": ssh_key, "key_type": key_type});
            exchange(&Allocate { docker_action: serde_json::from_value(action).unwrap(), ..Allocate::default() })
        };
        for key_type in ["", "user"] {
            assert_eq!(wish(key_type, "ssh-ed25519 A\n"), Ok(Grant::UserKey("ssh-ed25519 A".to_owned())));
            assert!(wish(key_type, " ").is_err());
        }
        assert_eq!(wish("terminal", "ssh-ed25519 A"), Ok(Grant::TerminalKey(Some("ssh-ed25519 A".to_owned()))));
        assert_eq!(wish("terminal", ""), Ok(Grant::TerminalKey(None)));
        assert!(wish("root", "ssh-ed25519 A").is_err());
    }
}
