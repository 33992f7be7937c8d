//! The leases a node keeps, and how a step of one becomes records of the journal. Used by both allocation managers.
//!
//! Invariant: a lease in the book shows only what the journal has acknowledged. Whoever wants to change one takes it
//! ([`LeaseBook::take`]), writes the records of the step, and puts the result back; meanwhile others find it busy.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::actors::journal::Journal;
use crate::ids::{DeviceId, LeaseId};
use crate::lease::{Event, Lease, LeaseState, TransitionError, apply};
use crate::messages::journal::Write;
use crate::runtime::Handle;
use crate::store::records::{LeaseEventRecord, LeaseRecord};
use crate::store::{Record, Role};
use crate::telemetry::{NodeMetrics, error_chain};

/// How long the journal may take to acknowledge a step.
const JOURNAL: std::time::Duration = std::time::Duration::from_secs(10);

/// A lease with the number of its last step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The lease.
    pub lease: Lease,
    /// Steps taken so far.
    pub seq: u64,
}

/// Why a step was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StepError {
    /// The state does not allow it.
    #[error(transparent)]
    Transition(#[from] TransitionError),
    /// The journal did not acknowledge it.
    #[error("the journal did not acknowledge the step: {0}")]
    Journal(String),
}

impl Entry {
    /// A lease that has just been opened; the opening itself is the first step.
    pub fn opened(lease: Lease) -> Self {
        Entry { lease, seq: 0 }
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
    /// [`StepError`]; the journal then holds nothing of the step, or, after a deadline, perhaps all of it. The caller
    /// keeps the old entry either way, and reconciles.
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
        let mut path = vec![self.lease.state];
        for event in events {
            next.lease = apply(&next.lease, event)?;
            next.seq += 1;
            path.push(next.lease.state);
            let event = serde_json::json!(event);
            let id = next.lease.id;
            records.push(Record::LeaseEvent(LeaseEventRecord { lease: id, seq: next.seq, event, at_ms: now_ms }));
        }
        records.insert(0, Record::Lease(next.record(role, now_ms)));
        match journal.ask(Write(records), JOURNAL).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(StepError::Journal(error_chain(&error))),
            Err(error) => return Err(StepError::Journal(error.to_string())),
        }
        for pair in path.windows(2).filter(|p| p[0] != p[1]) {
            metrics.lease_transition(pair[0].label(), pair[1].label());
        }
        Ok(next)
    }
}

/// The leases a node keeps, ended ones for a while.
#[derive(Debug, Default)]
pub struct LeaseBook {
    entries: HashMap<LeaseId, Entry>,
    busy: HashSet<LeaseId>,
}

/// Ended leases that are remembered, so that a repeated release is answered the same.
const REMEMBER_ENDED: usize = 1024;

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
    /// Whether somebody changes this lease.
    pub fn is_busy(&self, id: LeaseId) -> bool {
        self.busy.contains(&id)
    }
    /// Every lease that has not ended.
    pub fn open(&self) -> impl Iterator<Item = &Lease> {
        self.entries.values().map(|e| &e.lease).filter(|l| !l.state.is_final())
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
        if ended.len() > REMEMBER_ENDED {
            ended.sort_unstable();
            for (_, id) in &ended[..ended.len() - REMEMBER_ENDED] {
                self.entries.remove(id);
            }
        }
    }
}
