//! What judged epochs say of rented hardware. The decision is [`crate::rental::hardware`]'s.
//!
//! Confirmations are counted since the start: a restart forgets them, which never ends a lease.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::AllocationManager;
use super::watch::Watched;
use crate::ids::{DeviceId, Epoch, Hotkey, LeaseId};
use crate::lease::{EndReason, Lease, ProvedDevice};
use crate::messages::validator::challenge_runner::EpochJudged;
use crate::rental::Outcome;
use crate::rental::hardware::{Changes, Evidence, Load, Rented, evidence};
use crate::runtime::Ctx;
use crate::telemetry::events::HardwareChanged;

/// Devices whose first proof after a lease is waited for at most.
const MAX_RELEASED: usize = 1_024;
/// Judged epochs for which it is waited for.
const RELEASE_EPOCHS: u64 = 16;

/// What is known of rented hardware.
#[derive(Default)]
pub(super) struct HardwareWatch {
    changes: HashMap<(LeaseId, DeviceId), Changes>,
    /// Devices whose lease has ended, until a proof shows what they are.
    released: BTreeMap<(Hotkey, DeviceId), Released>,
    /// The epoch that was looked at last.
    last: Option<Epoch>,
}

struct Released {
    lease: LeaseId,
    rented: Rented,
    /// The epoch that was judged last when the lease ended.
    after: Option<Epoch>,
}

impl HardwareWatch {
    /// A lease has ended: what it held is to be proved anew.
    pub(super) fn ended(&mut self, lease: &Lease) {
        self.changes.retain(|(id, _), _| *id != lease.id);
        // A change that ended the lease needs no further proof.
        if lease.began_at_ms.is_none() || lease.end == Some(EndReason::HardwareChanged) {
            return;
        }
        for rented in rented(lease) {
            let released = Released { lease: lease.id, rented: rented.clone(), after: self.last };
            self.released.insert((lease.miner, rented.device), released);
        }
        while self.released.len() > MAX_RELEASED {
            self.released.pop_first();
        }
    }
}

/// The devices of a lease as they were proved when it was made; those of which that is not on record are left out.
fn rented(lease: &Lease) -> Vec<Rented> {
    let beside: BTreeSet<DeviceId> = lease.proved.iter().map(|p| p.device).collect();
    let of = |ProvedDevice { device, model }: &ProvedDevice| {
        let (device, model, beside) = (*device, model.clone(), beside.clone());
        lease.devices.contains(&device).then_some(Rented { device, model, beside })
    };
    lease.proved.iter().filter_map(of).collect()
}

impl AllocationManager {
    /// Takes a judged epoch in, each once.
    pub(super) fn judge_hardware(&mut self, judged: &EpochJudged, ctx: &mut Ctx<Self>) {
        if judged.void || self.hardware.last.is_some_and(|last| last >= judged.epoch) {
            return;
        }
        self.hardware.last = Some(judged.epoch);
        let of = |miner: &Hotkey| judged.miners.iter().find(|m| m.hotkey == *miner);
        let needed = u32::from(self.setup.hardware_confirmations);
        for lease in self.book.open().filter(|l| l.state.is_live()) {
            let paused = self.health.get(&lease.id).is_some_and(Watched::paused);
            let load = if paused { Load::None } else { Load::Tenant };
            for rented in rented(lease) {
                let evidence = evidence(&rented, of(&lease.miner), judged.void, load);
                let changes = self.hardware.changes.entry((lease.id, rented.device)).or_default();
                let confirmed = changes.take(judged.epoch, &evidence, needed);
                match &evidence {
                    Evidence::Nothing => {}
                    Evidence::Same => self.setup.metrics.rentals().hardware("same"),
                    Evidence::Changed(change) => {
                        self.setup.metrics.rentals().hardware("changed");
                        let seen = changes.confirmed();
                        tracing::warn!(lease = %lease.id, device = %rented.device, %change, seen, needed, "rented hardware seems changed");
                        if confirmed {
                            let (device, model) = (rented.device, &rented.model);
                            let note = format!("{device}, rented as {model}: {change} (seen in {seen} judged epochs)");
                            self.due.insert(lease.id, note);
                        }
                    }
                }
            }
        }
        self.judge_released(judged);
        self.end_due(ctx);
    }

    /// The first proof of a device after its lease.
    fn judge_released(&mut self, judged: &EpochJudged) {
        let now = self.setup.clock.now_ms();
        let held = self.devices(|l| l.state.holds_devices());
        let (setup, record) = (&self.setup, &mut self.record);
        self.hardware.released.retain(|(miner, device), released| {
            if released.after.is_some_and(|after| judged.epoch > after.saturating_add(RELEASE_EPOCHS)) {
                return false;
            }
            // Rented again before it was proved: the next lease's record is that of the same proof.
            if held.get(miner).is_some_and(|held| held.contains(device)) {
                return false;
            }
            let seen = judged.miners.iter().find(|m| m.hotkey == *miner);
            match evidence(&released.rented, seen, judged.void, Load::None) {
                Evidence::Nothing => true,
                Evidence::Same => {
                    setup.metrics.rentals().hardware("same");
                    false
                }
                Evidence::Changed(change) => {
                    let note = format!("{device}, rented as {}: {change}", released.rented.model);
                    HardwareChanged { lease: released.lease, miner: *miner, note: &note, at_release: true }
                        .emit(&setup.metrics);
                    record.take(*miner, Outcome::HardwareChanged, now, setup.half_life);
                    false
                }
            }
        });
    }

    /// Ends the leases whose hardware was shown to be changed. One that somebody else changes now comes with the next call.
    pub(super) fn end_due(&mut self, ctx: &mut Ctx<Self>) {
        let due: Vec<(LeaseId, String)> = self.due.iter().map(|(id, note)| (*id, note.clone())).collect();
        for (id, note) in due {
            if self.book.is_busy(id) {
                continue;
            }
            self.due.remove(&id);
            let Some(miner) = self.book.get(id).filter(|e| e.lease.state.is_live()).map(|e| e.lease.miner) else {
                continue;
            };
            HardwareChanged { lease: id, miner, note: &note, at_release: false }.emit(&self.setup.metrics);
            self.end_with(id, note, EndReason::HardwareChanged, ctx);
        }
    }
}
