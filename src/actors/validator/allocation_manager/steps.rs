//! The steps of a lease: what is written before a miner is called, and what after.

use std::sync::Arc;
use std::time::Duration;

use super::calls::{knows_addresses, release_at_miner, token};
use super::look::look;
use super::{ASK, AllocationSetup, MAX_DETAIL, MAX_REPLY};
use crate::actors::lease_book::{Entry, StepError};
use crate::clock::millis;
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::lease::health::Observation;
use crate::lease::machine::LeaseTerms;
use crate::lease::{EndReason, Endpoint, Event, Lease, LeaseState, ProvedDevice};
use crate::messages::journal::GetLease;
use crate::messages::validator::allocation_manager::RentError;
use crate::rental::Outcome;
use crate::scoring::LeaseReceipt;
use crate::store;
use crate::telemetry::printable;
use crate::verdict::UnknownCause;
use crate::wire::dendrite::{CallError, Peer};
use crate::wire::synapse::{AllocateReply, AllocateRequest, LeaseRefusal, Login, ReplySecret};

/// What the next step of one lease came to, and what was seen of it.
pub(super) type Looked = (Result<Entry, String>, Option<Observation>);

pub(super) async fn step(setup: &AllocationSetup, entry: &Entry, events: &[Event]) -> Result<Entry, StepError> {
    entry.step(events, store::Role::Validator, &setup.journal, &setup.metrics, setup.clock.now_ms()).await
}

pub(super) async fn write(setup: &AllocationSetup, entry: &Entry, events: &[Event]) -> Result<Entry, String> {
    step(setup, entry, events).await.map_err(|e| e.to_string())
}

/// Takes the next step of one lease.
pub(super) async fn look_after(setup: &AllocationSetup, entry: Entry, receipt: Option<LeaseReceipt>) -> Looked {
    let now = setup.clock.now_ms();
    let lease = &entry.lease;
    match lease.state {
        LeaseState::Running | LeaseState::Paused if lease.is_expired(now) => {
            let ending = [Event::ReleaseWanted { why: EndReason::Expired }];
            match write(setup, &entry, &ending).await {
                Ok(entry) => (finish_release(setup, entry).await, None),
                Err(problem) => (Err(problem), None),
            }
        }
        LeaseState::Running | LeaseState::Paused => {
            let seen = look(setup, lease, receipt).await;
            (Ok(entry), Some(seen))
        }
        // This node ended while the miner was asked: whether a container was made is not known.
        LeaseState::Requested | LeaseState::Reserving => {
            let ending = match lease.state {
                LeaseState::Requested => {
                    Event::Refused { why: EndReason::Withdrawn, note: "interrupted".into(), at_ms: now }
                }
                _ => Event::ReleaseWanted { why: EndReason::CreateUnclear },
            };
            match write(setup, &entry, &[ending]).await {
                Ok(entry) if entry.lease.state == LeaseState::Releasing => (finish_release(setup, entry).await, None),
                other => (other, None),
            }
        }
        LeaseState::Releasing => (finish_release(setup, entry).await, None),
        LeaseState::Released | LeaseState::Lost | LeaseState::Refused => (Ok(entry), None),
    }
}

/// Takes a releasing lease to its end if the miner confirms, or if its miner has been unreachable for too long.
pub(super) async fn finish_release(setup: &AllocationSetup, entry: Entry) -> Result<Entry, String> {
    let now = setup.clock.now_ms();
    let event = match release_at_miner(setup, &entry.lease).await {
        Ok(()) => Event::Destroyed { at_ms: setup.clock.now_ms() },
        Err(problem) => {
            let over = entry.lease.expires_at_ms.saturating_add(millis(setup.give_up));
            if now < over || !knows_addresses(setup) {
                tracing::info!(lease = %entry.lease.id, problem, "the miner has not released yet, asking again");
                return Ok(entry);
            }
            Event::Lost { note: format!("never confirmed by the miner: {problem}"), at_ms: now }
        }
    };
    write(setup, &entry, &[event]).await
}

/// How long a rental waits for its miner to open a proof that it has committed to: a second or two, if it opens at all.
const OPENING_WAIT: Duration = Duration::from_secs(15);
/// Why a miner was not asked.
pub(super) const IN_PROOF: &str = "the miner's devices are being proved";

/// The miner opens a proof and was not asked; the lease, if another miner was asked before.
pub(super) struct InProof(pub(super) Option<Box<Entry>>);

/// Asks one miner for a lease, as [`make`] does, and keeps this validator's own proofs out of its way.
pub(super) async fn rent(setup: Arc<AllocationSetup>, call: Call, entry: Option<Entry>) -> Result<Asked, InProof> {
    let renting = setup.under_proof.rent(call.peer.hotkey, &call.devices, OPENING_WAIT).await;
    let Some(renting) = renting else { return Err(InProof(entry.map(Box::new))) };
    let asked = make(setup, call, entry).await;
    if matches!(asked, Asked::Running(_)) {
        renting.made();
    }
    Ok(asked)
}

/// Longest host key kept of a miner, in bytes: one line, of RSA at its longest.
const MAX_HOST_KEY: usize = 2 * 1024;

/// What one miner is to be asked.
pub(super) struct Call {
    /// The miner.
    pub(super) peer: Peer,
    /// The devices that are wanted of it.
    pub(super) devices: Vec<DeviceId>,
    /// On whose behalf.
    pub(super) renter: Hotkey,
    /// The lease, as it would be at this miner.
    pub(super) terms: LeaseTerms,
    /// What the miner has proved.
    pub(super) proved: Vec<ProvedDevice>,
}

/// What came of asking one miner for a lease. The entry is what the journal holds in the end.
pub(super) enum Asked {
    /// The container runs.
    Running(Box<Entry>),
    /// It does not, and this miner certainly holds nothing of the lease, which is still reserving: another may be asked.
    Free {
        /// The lease.
        entry: Box<Entry>,
        /// What it says of the miner.
        outcome: Outcome,
        /// Whether it is the miner's doing, and not that of what was asked for.
        blamed: bool,
        /// What the renter is told if nobody else is left.
        error: RentError,
    },
    /// Nobody else may be asked.
    Over {
        /// The lease, if there is one.
        entry: Option<Box<Entry>>,
        /// What it says of the miner, if anything.
        outcome: Option<Outcome>,
        /// Why.
        error: RentError,
    },
}

/// Asks one miner for a lease: intent, call, outcome. `entry`: the lease, if another miner was asked before.
async fn make(setup: Arc<AllocationSetup>, call: Call, entry: Option<Entry>) -> Asked {
    let Call { peer, devices, renter, terms, proved } = call;
    let now = setup.clock.now_ms();
    let (before, mut events) = match entry {
        None => {
            let opened = Entry::opened(Lease::open(&terms, now));
            (opened, vec![Event::Opened { terms: terms.clone(), at_ms: now }, Event::Reserved])
        }
        Some(entry) => (entry, vec![Event::Moved { miner: peer.hotkey, devices }]),
    };
    events.push(Event::Proved { devices: proved });
    let entry = match step(&setup, &before, &events).await {
        Ok(entry) => entry,
        // Perhaps on record, so it is kept as if it were: the next round ends it.
        Err(StepError::Unclear { next, problem }) => return over(Some(*next), None, RentError::Journal(problem)),
        Err(error) => {
            let known = (before.lease.state == LeaseState::Reserving).then_some(before);
            return over(known, None, RentError::Journal(error.to_string()));
        }
    };
    // For this request alone: where to log in is read by nobody else, and never again.
    let secret = match ReplySecret::generate() {
        Ok(secret) => secret,
        Err(error) => {
            let outcome = Outcome::NoAnswer;
            return Asked::Free {
                entry: Box::new(entry),
                outcome,
                blamed: false,
                error: RentError::Journal(error.to_string()),
            };
        }
    };
    let request = AllocateRequest {
        lease: terms.id,
        fencing_epoch: terms.fencing_epoch,
        expires_at_ms: terms.expires_at_ms,
        renter,
        image: terms.image,
        ssh_key: terms.ssh_public_key.unwrap_or_default(),
        devices: terms.devices,
        owner_token: token(&setup, terms.id),
        reply_key: Some(secret.public()),
    };
    let reply = setup.dendrite.call(&peer, &request, setup.allocate_deadline, MAX_REPLY).await;
    match reply.map(|r| r.body) {
        Ok(AllocateReply::Running { ssh_host, ssh_port, container, login }) => {
            // A miner of an older version tells it to everybody, and no host key.
            let plain = || Login { user: String::new(), host: ssh_host, port: ssh_port, host_key: None };
            let login = match login.map_or_else(|| Ok(plain()), |sealed| secret.open(&sealed)) {
                Ok(login) => login,
                Err(error) => {
                    let error = RentError::NoAnswer(error.to_string());
                    return make_sure(&setup, entry, Outcome::NoAnswer, true, EndReason::CreateUnclear, error).await;
                }
            };
            // Renters log in where the miner says, but only on the host it announced on chain.
            let host = login.host.parse().ok().filter(|ip| *ip == peer.addr.ip()).unwrap_or(peer.addr.ip());
            let endpoint = Some(Endpoint { host, ssh_port: login.port });
            let container = printable(&container, MAX_DETAIL);
            let host_key = login.host_key.map(|key| printable(&key, MAX_HOST_KEY));
            let started = Event::Started { container, endpoint, host_key, at_ms: setup.clock.now_ms() };
            match write(&setup, &entry, &[started]).await {
                Ok(entry) => Asked::Running(Box::new(entry)),
                Err(problem) => over(Some(entry), None, RentError::Journal(problem)),
            }
        }
        Ok(AllocateReply::Refused { reason, detail }) => {
            let error = RentError::Refused(printable(&detail, MAX_DETAIL));
            // A refusal may come after the intent was recorded there: releasing is harmless and makes sure.
            make_sure(&setup, entry, Outcome::Refused, is_its_doing(reason), EndReason::PeerRefused, error).await
        }
        // Nothing was sent.
        Err(CallError::Unreachable(error)) if error.is_connect() => {
            let error = RentError::NoAnswer(crate::telemetry::error_chain(&error));
            Asked::Free { entry: Box::new(entry), outcome: Outcome::Unreachable, blamed: true, error }
        }
        Err(error) => {
            let blamed = error.cause() != UnknownCause::OwnFault;
            let error = RentError::NoAnswer(error.to_string());
            make_sure(&setup, entry, Outcome::NoAnswer, blamed, EndReason::CreateUnclear, error).await
        }
    }
}

/// Has the miner that was just asked release the lease: if it confirms, it holds nothing, and if it does not, nobody else
/// may be asked, since one lease never has two containers.
async fn make_sure(
    setup: &AllocationSetup,
    entry: Entry,
    outcome: Outcome,
    blamed: bool,
    why: EndReason,
    error: RentError,
) -> Asked {
    if release_at_miner(setup, &entry.lease).await.is_ok() {
        return Asked::Free { entry: Box::new(entry), outcome, blamed, error };
    }
    let outcome = blamed.then_some(outcome);
    match write(setup, &entry, &[Event::ReleaseWanted { why }]).await {
        Ok(entry) => over(Some(entry), outcome, error),
        Err(problem) => over(Some(entry), outcome, RentError::Journal(problem)),
    }
}

/// Whether the miner could have rented out, had it been well: not where it refuses what was asked for.
fn is_its_doing(reason: LeaseRefusal) -> bool {
    use LeaseRefusal as R;
    !matches!(reason, R::Image | R::SshKey | R::Expiry | R::NotOwner | R::StaleEpoch)
}

fn over(entry: Option<Entry>, outcome: Option<Outcome>, error: RentError) -> Asked {
    Asked::Over { entry: entry.map(Box::new), outcome, error }
}

/// Ends a lease that nobody is left to be asked for, and that nobody holds.
pub(super) async fn refuse(setup: &AllocationSetup, entry: Entry, note: String) -> Entry {
    let refused = Event::Refused { why: EndReason::PeerRefused, note, at_ms: setup.clock.now_ms() };
    match write(setup, &entry, &[refused]).await {
        Ok(entry) => entry,
        Err(problem) => {
            // Reserving still: the next round ends it.
            tracing::warn!(lease = %entry.lease.id, problem, "the end of a request is not recorded yet");
            entry
        }
    }
}

/// A lease that is not in the book: one that ended before this actor started, or longer ago than the book remembers.
pub(super) async fn on_record(setup: &AllocationSetup, id: LeaseId) -> Result<Option<Lease>, RentError> {
    let record = setup.journal.ask(GetLease(id), ASK).await.map_err(|e| RentError::Journal(e.to_string()))?;
    let record = record.map_err(|e| RentError::Journal(crate::telemetry::error_chain(&e)))?;
    let entry = record.map(|r| Entry::from_record(&r)).transpose();
    let entry = entry.map_err(|e| RentError::Journal(format!("the record of lease {id} cannot be read: {e}")))?;
    Ok(entry.map(|e| e.lease))
}
