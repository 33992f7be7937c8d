//! The receipts of this machine's leases: what it shows other validators, so that they know that it is rented.

use std::collections::HashMap;

use crate::ids::{Hotkey, LeaseId};
use crate::lease::Lease;
use crate::scoring::LeaseReceipt;
use crate::wallet::verify;

/// The newest receipt of each lease.
#[derive(Debug, Default)]
pub(super) struct Receipts(HashMap<LeaseId, LeaseReceipt>);

impl Receipts {
    /// Keeps a receipt that the lease's renter handed over, if it is about this lease and newer than what is here. Says what
    /// became of it: `kept` or `not_kept`, as the metric has it.
    pub(super) fn take(&mut self, receipt: LeaseReceipt, lease: &Lease, own: Hotkey, now_ms: u64) -> &'static str {
        let mut devices = lease.devices.clone();
        devices.sort_unstable();
        let about_this = receipt.lease == lease.id
            && receipt.validator == lease.renter
            && receipt.miner == own
            && receipt.fencing_epoch == lease.fencing_epoch
            && receipt.devices == devices
            && receipt.expires_ms > now_ms
            && lease.state.is_live();
        if !about_this || !verify(&receipt.validator, &receipt.signed_bytes(), &receipt.signature) {
            return "not_kept";
        }
        match self.0.get(&receipt.lease) {
            Some(known) if known.issued_ms >= receipt.issued_ms => {}
            _ => drop(self.0.insert(receipt.lease, receipt)),
        }
        "kept"
    }

    /// Those of live leases that are valid now, by lease; all others are forgotten.
    pub(super) fn valid(&mut self, now_ms: u64, live: impl Fn(LeaseId) -> bool) -> Vec<LeaseReceipt> {
        self.0.retain(|id, receipt| receipt.expires_ms > now_ms && live(*id));
        let mut all: Vec<LeaseReceipt> = self.0.values().cloned().collect();
        all.sort_unstable_by_key(|receipt| receipt.lease);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hash32};
    use crate::lease::{Event, LeaseTerms, Role, apply};
    use crate::scoring::receipt::Unsigned;
    use crate::wallet::Keypair;

    const OWN: Hotkey = Hotkey([2; 32]);

    fn lease(renter: Hotkey) -> Lease {
        let terms = LeaseTerms {
            id: LeaseId([1; 16]),
            role: Role::Provider,
            fencing_epoch: 1,
            renter,
            miner: OWN,
            devices: vec![DeviceId::cpu(1), DeviceId::cpu(0)],
            expires_at_ms: 1_000_000,
            owner_token_digest: Hash32([3; 32]),
            ssh_public_key: None,
            image: String::new(),
            wish: None,
            unheard: false,
        };
        let mut lease = Lease::open(&terms, 0);
        for event in
            [Event::Reserved, Event::Started { container: "c".into(), endpoint: None, host_key: None, at_ms: 5 }]
        {
            lease = apply(&lease, &event).unwrap();
        }
        lease
    }

    fn receipt(lease: &Lease, key: &Keypair, issued_ms: u64) -> LeaseReceipt {
        let unsigned = Unsigned {
            lease: lease.id,
            miner: OWN,
            devices: lease.devices.clone(),
            fencing_epoch: 1,
            began_ms: 5,
            issued_ms,
            expires_ms: issued_ms + 100,
            validator: key.hotkey(),
        };
        LeaseReceipt::issue(unsigned, |bytes| key.sign(bytes))
    }

    #[test]
    fn the_newest_receipt_of_a_lease_is_shown_until_it_or_the_lease_ends() {
        let key = Keypair::from_uri("//Renter").unwrap();
        let lease = lease(key.hotkey());
        let mut held = Receipts::default();
        assert_eq!(held.take(receipt(&lease, &key, 20), &lease, OWN, 20), "kept");
        assert_eq!(held.take(receipt(&lease, &key, 30), &lease, OWN, 30), "kept");
        // One that overtook another on its way.
        assert_eq!(held.take(receipt(&lease, &key, 20), &lease, OWN, 31), "kept");
        let shown =
            |held: &mut Receipts, now| held.valid(now, |_| true).iter().map(|r| r.issued_ms).collect::<Vec<_>>();
        assert_eq!((shown(&mut held, 129), shown(&mut held, 130)), (vec![30], vec![]));
        held.take(receipt(&lease, &key, 40), &lease, OWN, 40);
        assert!(held.valid(41, |_| false).is_empty());
    }

    #[test]
    fn what_is_not_the_renters_word_on_this_very_lease_is_not_kept() {
        let (key, other) = (Keypair::from_uri("//Renter").unwrap(), Keypair::from_uri("//Other").unwrap());
        let lease = lease(key.hotkey());
        let good = receipt(&lease, &key, 20);
        let but = |change: fn(&mut Unsigned)| {
            let mut changed = good.clone();
            change(&mut changed.says);
            changed
        };
        let wrong = [
            but(|says| says.expires_ms = 9_999),
            but(|says| says.lease = LeaseId([9; 16])),
            but(|says| says.devices = vec![DeviceId::cpu(0)]),
            but(|says| says.fencing_epoch = 2),
            but(|says| says.miner = Hotkey([7; 32])),
            receipt(&lease, &other, 20),
        ];
        for wrong in wrong {
            assert_eq!(Receipts::default().take(wrong.clone(), &lease, OWN, 20), "not_kept", "{wrong:?}");
        }
        assert_eq!(Receipts::default().take(good, &lease, OWN, 120), "not_kept", "it is over");
    }
}
