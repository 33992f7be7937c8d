//! Which device belongs to whom on this machine: at most one lease per device.
//!
//! A device is held from the intent to create a container until its destruction was seen, or while a container of
//! unknown ownership uses it. The ledger is rebuilt from the journal at boot, see [`DeviceLedger::from_leases`].

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{DeviceId, LeaseId};

use super::machine::Lease;

/// Who holds a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A lease of this machine's journal.
    Lease(LeaseId),
    /// A container that no record explains, see [`super::reconcile::Action::Quarantine`].
    Quarantined {
        /// The lease on its labels.
        lease: LeaseId,
        /// The engine's name of the container.
        container: String,
    },
}

impl Holder {
    /// The lease that the record or the container's labels name.
    pub fn lease(&self) -> LeaseId {
        match self {
            Holder::Lease(lease) | Holder::Quarantined { lease, .. } => *lease,
        }
    }
}

/// Why devices cannot be set aside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The device is held already.
    #[error("device {device} is held by lease {holder}")]
    InUse {
        /// The device.
        device: DeviceId,
        /// The lease that holds it.
        holder: LeaseId,
    },
    /// The machine has no such device.
    #[error("this machine has no device {0}")]
    NoSuchDevice(DeviceId),
    /// A lease of no device makes no sense.
    #[error("no device was named")]
    NoDevice,
    /// A container of that lease is there which no record explains.
    #[error("a container of lease {0} is there that no record explains; choose a new lease id")]
    Quarantined(LeaseId),
    /// The same device twice in one wish.
    #[error("device {0} was named twice")]
    Twice(DeviceId),
}

/// The devices of one machine and who holds them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceLedger {
    devices: BTreeSet<DeviceId>,
    held: BTreeMap<DeviceId, Holder>,
}

impl DeviceLedger {
    /// A machine with these devices, all free.
    pub fn new(devices: impl IntoIterator<Item = DeviceId>) -> Self {
        DeviceLedger { devices: devices.into_iter().collect(), held: BTreeMap::new() }
    }

    /// The ledger as the journal's leases leave it. Before new leases are taken, [`DeviceLedger::quarantine`] has to
    /// add what the first [`reconcile`](super::reconcile::reconcile) sets aside. A device that a lease holds but the
    /// machine no longer shows (a driver that is not up yet, say) stays held.
    ///
    /// # Errors
    /// [`LedgerError::InUse`] when two leases hold one device: the journal is not to be trusted, new leases must be
    /// refused until an operator has looked.
    pub fn from_leases<'a>(
        devices: impl IntoIterator<Item = DeviceId>,
        leases: impl IntoIterator<Item = &'a Lease>,
    ) -> Result<Self, LedgerError> {
        let mut ledger = DeviceLedger::new(devices);
        for lease in leases.into_iter().filter(|l| l.state.holds_devices()) {
            ledger.refuse_if_held(lease.id, &lease.devices)?;
            ledger.take(&Holder::Lease(lease.id), &lease.devices);
        }
        Ok(ledger)
    }

    /// Sets all these devices aside for the lease, or none. A lease of which a container is quarantined gets none:
    /// its new commands would reach the old container. A repeat by the same lease is harmless.
    ///
    /// # Errors
    /// [`LedgerError`], and nothing was set aside.
    pub fn reserve(&mut self, lease: LeaseId, devices: &[DeviceId]) -> Result<(), LedgerError> {
        if devices.is_empty() {
            return Err(LedgerError::NoDevice);
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = devices.iter().find(|d| !seen.insert(**d)) {
            return Err(LedgerError::Twice(*twice));
        }
        if let Some(unknown) = devices.iter().find(|d| !self.devices.contains(d)) {
            return Err(LedgerError::NoSuchDevice(*unknown));
        }
        let confused = |h: &Holder| matches!(h, Holder::Quarantined { lease: l, .. } if *l == lease);
        if self.held.values().any(confused) {
            return Err(LedgerError::Quarantined(lease));
        }
        self.refuse_if_held(lease, devices)?;
        self.take(&Holder::Lease(lease), devices);
        Ok(())
    }

    /// Holds the devices of a container that no record explains. Devices that a lease holds stay with the lease.
    pub fn quarantine(&mut self, lease: LeaseId, container: &str, devices: &[DeviceId]) {
        for device in devices {
            self.held.entry(*device).or_insert_with(|| Holder::Quarantined { lease, container: container.to_owned() });
        }
    }

    /// Gives the devices of a quarantined container to its lease, all or none: the lease is in the books again.
    ///
    /// # Errors
    /// [`LedgerError::InUse`] when another lease holds one of them, and nothing was changed.
    pub fn take_back(&mut self, lease: LeaseId, container: &str, devices: &[DeviceId]) -> Result<(), LedgerError> {
        for device in devices {
            match self.held.get(device) {
                Some(Holder::Quarantined { container: held_by, .. }) if held_by == container => {}
                Some(holder) if *holder != Holder::Lease(lease) => {
                    return Err(LedgerError::InUse { device: *device, holder: holder.lease() });
                }
                _ => {}
            }
        }
        self.take(&Holder::Lease(lease), devices);
        Ok(())
    }

    /// Ends the hold of quarantined containers that are not in `still_there`, by the engine's name.
    pub fn end_quarantine(&mut self, still_there: &BTreeSet<String>) {
        self.held.retain(|_, holder| match holder {
            Holder::Lease(_) => true,
            Holder::Quarantined { container, .. } => still_there.contains(container),
        });
    }

    /// Frees the devices of a lease whose container was seen destroyed.
    pub fn release(&mut self, lease: LeaseId) {
        self.held.retain(|_, holder| *holder != Holder::Lease(lease));
    }

    /// Takes note of what the machine shows now: a device that came up later can be leased, one that is gone cannot.
    /// What is held stays held.
    pub fn set_devices(&mut self, devices: impl IntoIterator<Item = DeviceId>) {
        self.devices = devices.into_iter().collect();
    }

    /// Every device that is held, in order, also one that the machine does not show at the moment.
    pub fn held(&self) -> impl Iterator<Item = (DeviceId, &Holder)> {
        self.held.iter().map(|(device, holder)| (*device, holder))
    }

    /// Who holds the device.
    pub fn holder(&self, device: DeviceId) -> Option<&Holder> {
        self.held.get(&device)
    }

    /// The devices that nobody holds, in order.
    pub fn free(&self) -> Vec<DeviceId> {
        self.devices.iter().copied().filter(|d| !self.held.contains_key(d)).collect()
    }

    /// All devices of this machine, in order.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.devices.iter().copied()
    }

    fn refuse_if_held(&self, lease: LeaseId, devices: &[DeviceId]) -> Result<(), LedgerError> {
        for device in devices {
            if let Some(holder) = self.held.get(device).filter(|h| **h != Holder::Lease(lease)) {
                return Err(LedgerError::InUse { device: *device, holder: holder.lease() });
            }
        }
        Ok(())
    }

    fn take(&mut self, holder: &Holder, devices: &[DeviceId]) {
        self.held.extend(devices.iter().map(|d| (*d, holder.clone())));
    }
}
