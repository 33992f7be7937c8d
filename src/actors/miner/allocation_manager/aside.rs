//! Containers that are set aside: kept for whom they may belong to, ended by their renter, or taken back into the books when it shows
//! that its lease goes on.

use super::*;
use crate::lease::ContainerState;
use crate::lease::aside::{Shown, end_of, lost_lease, unknown_lease};
use crate::lease::reconcile::QuarantineReason;
use crate::messages::journal::Note;
use crate::store::Record;
use crate::wire::synapse::ReleaseReply;

/// The key of [`Sightings`] in the journal's table `meta`.
pub(super) const META_SET_ASIDE: &str = "set_aside";

/// What a renter is told of a container that the records do not explain.
pub(super) fn told(aside: &SetAside) -> String {
    format!("the records do not know this lease, its container {} is there", aside.container)
}

impl AllocationManager {
    /// The container of this lease that is set aside, if it is this renter's by its label.
    pub(super) fn aside_of(&self, id: LeaseId, renter: Hotkey) -> Option<SetAside> {
        self.set_aside.iter().find(|aside| aside.lease == id && aside.renter == renter).cloned()
    }

    /// Keeps in the journal since when containers are set aside.
    pub(super) fn keep_sightings(&self) {
        let value = serde_json::json!(self.sightings).to_string();
        if let Err(error) = self.setup.journal.tell(Note(Record::Meta { key: META_SET_ASIDE.to_owned(), value })) {
            tracing::warn!(%error, "since when containers are set aside is not kept");
        }
    }

    /// The renter of a container that is set aside shows that it is still its own, and when its lease ends: it is kept for longer, and the
    /// lease goes on where nothing speaks against it. `true` where it is being taken back.
    pub(super) fn shown(&mut self, aside: &SetAside, claim: &Claim, said_ms: Option<u64>, ctx: &mut Ctx<Self>) -> bool {
        let (id, now) = (aside.lease, self.setup.clock.now_ms());
        let known = self.book.get(id).map(|entry| &entry.lease);
        let known_ms = match (known, aside.why) {
            (None, QuarantineReason::UnknownLease) => Some(aside.expires_at_ms),
            // One that ended whenever it was started is lost for good; one that was out of sight runs again.
            (Some(lease), QuarantineReason::LostLease) if aside.state != ContainerState::Exited => {
                Some(lease.expires_at_ms.max(aside.expires_at_ms))
            }
            _ => None,
        };
        let end = known_ms.zip(said_ms).and_then(|(known, said)| end_of(known, said, now, self.setup.longest));
        // What cannot go on, or is over by its renter's word, is not kept for longer.
        let Some(expires_at_ms) = end else { return false };
        if self.sightings.shown(&aside.container, now) {
            self.keep_sightings();
        }
        let lost = known.is_some();
        if self.book.is_busy(id) {
            return true;
        }
        if self.ending_aside.contains(&aside.container) {
            return false;
        }
        if let Err(error) = self.ledger.take_back(id, &aside.container, &aside.devices) {
            tracing::warn!(lease = %id, container = aside.container, %error, "a container that is set aside stays so");
            return false;
        }
        let before = if lost { self.book.take(id) } else { None };
        if !lost {
            self.book.begin(id);
        }
        let shown = Shown { lease: id, epoch: claim.epoch, token: claim.token.digest(), expires_at_ms };
        let (setup, aside) = (self.setup.clone(), aside.clone());
        let work = async move {
            let taken = taken_back(&setup, before, &aside, &shown).await;
            (aside, taken)
        };
        ctx.spawn(work.into_actor(self).map(move |(aside, taken), act, ctx| {
            match taken {
                Ok(entry) => {
                    tracing::warn!(lease = %id, container = aside.container, "its renter shows that the lease goes on, it is taken back");
                    if act.sightings.forget(&aside.container) {
                        act.keep_sightings();
                    }
                    act.no_longer_aside(&aside.container);
                    act.settle(id, Ok(Some(entry)));
                }
                Err(problem) => {
                    act.ledger.release(id);
                    act.ledger.quarantine(id, &aside.container, &aside.devices);
                    act.settle(id, Err(problem));
                }
            }
            act.compare(ctx);
        }));
        true
    }

    /// Destroys a container that is set aside, for the renter that its label names.
    pub(super) fn end_set_aside(&mut self, aside: SetAside, epoch: u64) -> ResponseActFuture<Self, ReleaseReply> {
        let SetAside { container, lease, fencing_epoch, .. } = aside;
        if epoch < fencing_epoch {
            let detail = format!("the lease's container belongs to fencing epoch {fencing_epoch}, not {epoch}");
            return self.answer(ReleaseReply::Refused { reason: LeaseRefusal::StaleEpoch, detail });
        }
        tracing::warn!(%lease, container, "its renter ends a lease whose container was set aside");
        // From here on it cannot be taken back.
        self.ending_aside.insert(container.clone());
        let setup = self.setup.clone();
        let work = async move { called(&setup, "destroy", setup.engine.destroy(lease, fencing_epoch)).await };
        Box::pin(work.into_actor(self).map(move |gone, act, _| {
            act.ending_aside.remove(&container);
            match gone {
                Ok(_) => {
                    act.no_longer_aside(&container);
                    let still_there = act.set_aside.iter().map(|other| other.container.clone()).collect();
                    act.ledger.end_quarantine(&still_there);
                    act.publish();
                    ReleaseReply::Released
                }
                Err(error) => {
                    let detail = format!("the lease's container is still there: {error}");
                    ReleaseReply::Refused { reason: LeaseRefusal::Other, detail }
                }
            }
        }))
    }

    fn no_longer_aside(&mut self, container: &str) {
        self.set_aside.retain(|other| other.container != container);
        self.setup.metrics.containers_set_aside(self.set_aside.len());
    }
}

/// Looks at the container once more, and writes the lease as it goes on.
async fn taken_back(
    setup: &AllocationSetup,
    before: Option<Entry>,
    aside: &SetAside,
    shown: &Shown,
) -> Result<Entry, String> {
    let listed = called(setup, "list", setup.engine.list()).await.map_err(|error| error.to_string())?;
    let container = listed.into_iter().find(|container| container.id == aside.container);
    let container = container.ok_or("its container is not there any more")?;
    let (entry, events) = match before {
        Some(entry) if container.state == ContainerState::Exited => {
            return Err(format!("the container of lost lease {} has ended again", entry.lease.id));
        }
        Some(entry) => {
            let events = lost_lease(&entry.lease, &container, shown);
            (entry, events)
        }
        None => {
            let at = endpoint(setup, &container);
            let (lease, events) = unknown_lease(&container, setup.hotkey, shown, at, setup.clock.now_ms());
            (Entry::opened(lease), events)
        }
    };
    match write(setup, &entry, &events).await {
        Ok(entry) => Ok(entry),
        // Perhaps on record, so it is kept as if it were: what is on record must have somebody to end it.
        Err(StepError::Unclear { next, .. }) => Ok(*next),
        Err(error) => Err(error.to_string()),
    }
}
