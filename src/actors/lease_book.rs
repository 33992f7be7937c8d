//! The leases a node keeps, and how a step of one becomes records of the journal. Used by both allocation managers.
//!
//! Invariant: a lease in the book shows only what the journal has acknowledged. Whoever wants to change one takes it
//! ([`LeaseBook::take`]), writes the records of the step, and puts the result back; meanwhile others find it busy.
//!
//! A write may end without an answer and be on disk all the same ([`StepError::Unclear`]). Each attempt therefore takes
//! event numbers of its own: what is written next never meets the number of an event that may be there already.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::actors::journal::Journal;
use crate::ids::{DeviceId, Hash32, Hotkey, LeaseId};
use crate::lease::{EndReason, Event, Lease, LeaseState, TransitionError, apply};
use crate::messages::journal::{EndedLeases, LiveLeases, Write};
use crate::runtime::{AskError, Handle};
use crate::store::records::{LeaseEventRecord, LeaseRecord};
use crate::store::{Record, Role, StoreError};
use crate::telemetry::events::LeaseTransition;
use crate::telemetry::{NodeMetrics, error_chain};

/// How long the journal may take to acknowledge a step.
const JOURNAL: Duration = Duration::from_secs(10);

/// A lease with the number of its last step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The lease.
    pub lease: Lease,
    /// Numbers of steps taken, or at least attempted.
    seq: Numbers,
}

/// The last number that was given to a step of a lease; copies of its entry share it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
struct Numbers(Arc<AtomicU64>);

impl Numbers {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }
}
impl From<u64> for Numbers {
    fn from(last: u64) -> Self {
        Numbers(Arc::new(AtomicU64::new(last)))
    }
}
impl From<Numbers> for u64 {
    fn from(numbers: Numbers) -> u64 {
        numbers.0.load(Ordering::Relaxed)
    }
}
impl PartialEq for Numbers {
    fn eq(&self, other: &Self) -> bool {
        u64::from(self.clone()) == u64::from(other.clone())
    }
}

/// Why a step was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StepError {
    /// The state does not allow it.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// The journal refused it: it is certainly not written.
    #[error("the journal did not take the step: {0}")]
    Journal(String),
    /// The journal did not answer: the step may be written, or be written yet.
    #[error("the journal did not acknowledge the step: {problem}")]
    Unclear {
        /// What the lease is if it was written.
        next: Box<Entry>,
        /// What came instead of an answer.
        problem: String,
    },
}

impl Entry {
    /// A lease that has just been opened; the opening itself is the first step.
    pub fn opened(lease: Lease) -> Self {
        Entry { lease, seq: Numbers::default() }
    }

    /// Reads an entry back from its record.
    ///
    /// # Errors
    /// If the record's JSON is not an entry: a newer version's, or damaged.
    pub fn from_record(record: &LeaseRecord) -> Result<Self, serde_json::Error> {
        Entry::deserialize(&record.json)
    }

    fn record(&self, role: Role, now_ms: u64) -> LeaseRecord {
        let lease = &self.lease;
        LeaseRecord {
            id: lease.id,
            fencing_epoch: lease.fencing_epoch,
            role,
            miner: lease.miner,
            renter: lease.renter,
            devices: lease.devices.clone(),
            state: lease.state.label().into(),
            live: lease.state.holds_devices(),
            expires_at_ms: lease.expires_at_ms,
            owner_token_digest: lease.owner_token_digest,
            container: lease.container.clone(),
            json: serde_json::json!(self),
            updated_ms: now_ms,
        }
    }

    /// The entry after `events`, written to the journal as one batch. `metrics` count the transitions.
    ///
    /// # Errors
    /// [`StepError`]; the journal then holds nothing of the step, or, when [`StepError::Unclear`], perhaps all of it. The
    /// caller keeps the old entry either way, and reconciles; only a lease that is being opened has no old entry, and
    /// goes on as if it had been written.
    pub async fn step(
        &self,
        events: &[Event],
        role: Role,
        journal: &Handle<Journal>,
        metrics: &NodeMetrics,
        now_ms: u64,
    ) -> Result<Entry, StepError> {
        let mut next = self.clone();
        let mut records = Vec::with_capacity(events.len() + 1);
        let mut path = vec![(self.lease.state, "")];
        for event in events {
            next.lease = apply(&next.lease, event)?;
            let seq = next.seq.next();
            path.push((next.lease.state, cause(event)));
            let event = serde_json::json!(event);
            let id = next.lease.id;
            records.push(Record::LeaseEvent(LeaseEventRecord { lease: id, seq, event, at_ms: now_ms }));
        }
        records.insert(0, Record::Lease(next.record(role, now_ms)));
        match journal.ask(Write(records), JOURNAL).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ (StoreError::Deadline(_) | StoreError::Stopped))) => {
                return Err(StepError::Unclear { next: Box::new(next), problem: error_chain(&error) });
            }
            Ok(Err(error)) => return Err(StepError::Journal(error_chain(&error))),
            Err(error @ AskError::Overloaded) => return Err(StepError::Journal(error.to_string())),
            Err(error) => return Err(StepError::Unclear { next: Box::new(next), problem: error.to_string() }),
        }
        for pair in path.windows(2).filter(|p| p[0].0 != p[1].0) {
            let (lease, from, (to, cause)) = (next.lease.id, pair[0].0.label(), pair[1]);
            LeaseTransition { lease, from, to: to.label(), cause }.emit(metrics);
        }
        if next.lease.state.is_final() && !self.lease.state.is_final() {
            metrics.lease_ended(match next.lease.state {
                LeaseState::Lost => LeaseState::Lost.label(),
                _ => next.lease.end.map_or("other", EndReason::label),
            });
        }
        Ok(next)
    }
}

/// What the journal knows of this node's leases: those that are live, and the latest that ended.
///
/// A live one that cannot be read fails all: it may hold devices. One that ended holds nothing, and is left out.
///
/// # Errors
/// Why the journal did not tell, in words. It is asked twice, `limit` each.
pub async fn stored(journal: &Handle<Journal>, limit: Duration) -> Result<(Vec<Entry>, Vec<Entry>), String> {
    let live = journal.ask(LiveLeases, limit).await.map_err(|e| e.to_string())?.map_err(|e| error_chain(&e))?;
    let ended = journal.ask(EndedLeases(REMEMBER_ENDED), limit).await;
    let ended = ended.map_err(|e| e.to_string())?.map_err(|e| error_chain(&e))?;
    let live = live.iter().map(|r| Entry::from_record(r).map_err(|e| format!("lease {}: {e}", r.id)));
    let ended = ended.iter().filter_map(|r| {
        let read = Entry::from_record(r);
        read.inspect_err(|error| tracing::error!(lease = %r.id, %error, "an ended lease cannot be read")).ok()
    });
    Ok((live.collect::<Result<_, _>>()?, ended.collect()))
}

/// Why a lease changed its state, for the log.
fn cause(event: &Event) -> &str {
    match event {
        Event::Refused { note, .. } | Event::Lost { note, .. } => note,
        Event::ReleaseWanted { why } => why.label(),
        other => other.label(),
    }
}

/// The leases a node keeps, ended ones for a while.
#[derive(Debug, Default)]
pub struct LeaseBook {
    entries: HashMap<LeaseId, Entry>,
    busy: HashSet<LeaseId>,
}

/// Ended leases that are remembered, so that a repeated call is answered the same.
const REMEMBER_ENDED: u32 = 1024;

impl LeaseBook {
    /// The lease, busy or not.
    pub fn get(&self, id: LeaseId) -> Option<&Entry> {
        self.entries.get(&id)
    }
    /// The lease for a change, unless it is unknown or somebody else changes it. Ends with [`LeaseBook::put`].
    pub fn take(&mut self, id: LeaseId) -> Option<Entry> {
        if self.busy.contains(&id) {
            return None;
        }
        let entry = self.entries.get(&id)?.clone();
        self.busy.insert(id);
        Some(entry)
    }
    /// Marks a lease that is about to be opened, so that nobody else opens it.
    pub fn begin(&mut self, id: LeaseId) {
        self.busy.insert(id);
    }
    /// Ends a change: `Some` is what the lease is now, `None` leaves it as it was.
    pub fn put(&mut self, id: LeaseId, entry: Option<Entry>) {
        self.busy.remove(&id);
        if let Some(entry) = entry {
            self.entries.insert(id, entry);
        }
        self.forget_old();
    }
    /// Whether this lease is being opened: there is nothing of it yet, but there may be at any moment.
    pub fn is_opening(&self, id: LeaseId) -> bool {
        self.busy.contains(&id) && !self.entries.contains_key(&id)
    }
    /// Whether somebody changes this lease.
    pub fn is_busy(&self, id: LeaseId) -> bool {
        self.busy.contains(&id)
    }
    /// Every lease that has not ended.
    pub fn open(&self) -> impl Iterator<Item = &Lease> {
        self.entries.values().map(|e| &e.lease).filter(|l| !l.state.is_final())
    }
    /// The renter's lease that this token owns: one that has not ended before one that has, the latest first. Another may
    /// have rented under the same token.
    pub fn of_token(&self, renter: Hotkey, digest: Hash32) -> Option<&Lease> {
        let owned =
            self.entries.values().map(|e| &e.lease).filter(|l| l.renter == renter && l.owner_token_digest == digest);
        owned.max_by_key(|l| (!l.state.is_final(), l.requested_at_ms))
    }
    /// How many leases are in this state.
    pub fn count(&self, state: LeaseState) -> usize {
        self.entries.values().filter(|e| e.lease.state == state).count()
    }
    /// The devices that leases hold, and by which lease.
    pub fn held(&self) -> Vec<(DeviceId, LeaseId)> {
        self.open()
            .filter(|l| l.state.holds_devices())
            .flat_map(|l| l.devices.iter().map(move |d| (*d, l.id)))
            .collect()
    }
    /// Shows the number of leases in each state.
    pub fn show(&self, metrics: &NodeMetrics) {
        metrics.leases(|label| self.entries.values().filter(|e| e.lease.state.label() == label).count());
    }

    fn forget_old(&mut self) {
        let mut ended: Vec<(u64, LeaseId)> = self
            .entries
            .values()
            .filter(|e| e.lease.state.is_final() && !self.busy.contains(&e.lease.id))
            .map(|e| (e.lease.ended_at_ms.unwrap_or(0), e.lease.id))
            .collect();
        let remember = REMEMBER_ENDED as usize;
        if ended.len() > remember {
            ended.sort_unstable();
            for (_, id) in &ended[..ended.len() - remember] {
                self.entries.remove(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::lease::LeaseTerms;
    use crate::runtime::{ChildSpec, RuntimeMetrics, Tree, TreeConfig};
    use crate::telemetry::{BuildInfo, Labels};

    fn entry() -> Entry {
        let terms = LeaseTerms {
            id: LeaseId([1; 16]),
            role: crate::lease::Role::Provider,
            fencing_epoch: 1,
            renter: Hotkey([1; 32]),
            miner: Hotkey([2; 32]),
            devices: vec![DeviceId::cpu(0)],
            expires_at_ms: 1_000,
            owner_token_digest: Hash32([3; 32]),
            ssh_public_key: None,
            image: String::new(),
            wish: None,
            unheard: false,
        };
        Entry::opened(Lease::open(&terms, 0))
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_without_an_answer_leaves_its_numbers_unused_and_says_what_the_lease_may_be() {
        let registry = prometheus::Registry::new();
        let clock = std::sync::Arc::new(SystemClock);
        let metrics = NodeMetrics::register(&registry, &BuildInfo::of("miner"), &Labels::default(), clock).unwrap();
        let mut tree = Tree::here(TreeConfig::default(), RuntimeMetrics::register(&registry).unwrap());
        let spec = ChildSpec { name: "journal", mailbox: 1, after: &[], drain: JOURNAL };
        // Declared, never started: what is asked of it stays in its mailbox.
        let (journal, _seat) = tree.declare::<Journal>(spec);
        let entry = entry();
        let step = entry.step(&[Event::Reserved], Role::Miner, &journal, &metrics, 0).await;
        let Err(StepError::Unclear { next, .. }) = step else { panic!("{step:?}") };
        assert_eq!((entry.lease.state, next.lease.state), (LeaseState::Requested, LeaseState::Reserving));
        assert_eq!(entry.seq.next(), 2, "number 1 may be on disk");
        // The only slot is taken now: nothing was sent, so nothing can be written.
        let wish = Event::Refused { why: EndReason::Withdrawn, note: String::new(), at_ms: 0 };
        let step = entry.step(&[wish], Role::Miner, &journal, &metrics, 0).await;
        assert!(matches!(step, Err(StepError::Journal(_))), "{step:?}");
    }

    #[test]
    fn a_token_finds_only_the_leases_of_its_renter() {
        let mut book = LeaseBook::default();
        let first = entry();
        let mut second = entry();
        (second.lease.id, second.lease.renter, second.lease.requested_at_ms) = (LeaseId([2; 16]), Hotkey([4; 32]), 9);
        let token = first.lease.owner_token_digest;
        assert_eq!(second.lease.owner_token_digest, token, "both showed the same");
        for entry in [first, second] {
            book.put(entry.lease.id, Some(entry));
        }
        let of = |renter, token| book.of_token(Hotkey([renter; 32]), token).map(|l| l.id);
        assert_eq!([of(1, token), of(4, token)], [Some(LeaseId([1; 16])), Some(LeaseId([2; 16]))]);
        assert_eq!([of(2, token), of(1, Hash32([9; 32]))], [None, None]);
    }

    #[test]
    fn an_entry_reads_back_from_its_record_with_the_numbers_it_had() {
        let entry = entry();
        assert_eq!([entry.seq.next(), entry.seq.next(), entry.seq.next()], [1, 2, 3]);
        let back = Entry::from_record(&entry.record(Role::Miner, 5)).unwrap();
        assert_eq!(back, entry);
        assert_eq!(back.seq.next(), 4);
        assert_eq!(serde_json::json!(entry)["seq"], 3);
    }
}
