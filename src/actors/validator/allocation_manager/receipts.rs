//! Receipts: this validator's word that it holds a lease, for others, who pay the miner as this one does.

use std::time::Duration;

use super::AllocationManager;
use super::watch::Watched;
use crate::clock::millis;
use crate::lease::Lease;
use crate::messages::chain_watcher::ChainView;
use crate::scoring::LeaseReceipt;
use crate::scoring::receipt::Unsigned;

impl AllocationManager {
    /// The receipt that goes to the lease's miner with the next check, as long as it confirms the lease. It is renewed when
    /// half of its time is over, so that one is always valid. A canary has none: nobody rents the machine.
    pub(super) fn receipt(&mut self, lease: &Lease) -> Option<LeaseReceipt> {
        let confirmed = self.health.get(&lease.id).is_none_or(Watched::confirmed);
        if !lease.state.is_live() || !confirmed || self.canaries.contains(&lease.id) {
            return None;
        }
        let now = self.setup.clock.now_ms();
        let known = self.receipts.get(&lease.id);
        let fresh = |r: &&LeaseReceipt| r.expires_ms.saturating_sub(now) > r.expires_ms.saturating_sub(r.issued_ms) / 2;
        if let Some(known) = known.filter(fresh) {
            return Some(known.clone());
        }
        let lasts = lasts(self.setup.view.borrow().as_deref()?)?;
        let unsigned = Unsigned {
            lease: lease.id,
            miner: lease.miner,
            devices: lease.devices.clone(),
            fencing_epoch: lease.fencing_epoch,
            began_ms: lease.began_at_ms?,
            issued_ms: now,
            expires_ms: now.saturating_add(millis(lasts)).min(lease.expires_at_ms),
            validator: self.setup.hotkey,
        };
        if unsigned.expires_ms <= now {
            return None;
        }
        let receipt = LeaseReceipt::issue(unsigned, |bytes| self.setup.keypair.sign(bytes));
        self.setup.metrics.receipt("issued");
        self.receipts.insert(lease.id, receipt.clone());
        Some(receipt)
    }
}

/// How long a receipt lasts: an epoch and a half. Others take two epochs at most, by their own measure of a block's time.
/// `None` until the chain's pace is known.
fn lasts(view: &ChainView) -> Option<Duration> {
    let blocks = u32::try_from(view.metagraph.epochs.length()).unwrap_or(u32::MAX);
    Some(view.block_time?.saturating_mul(blocks).saturating_mul(3) / 2)
}
