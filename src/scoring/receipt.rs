//! Lease receipts: how a machine that one validator rents shows it to the others.
//!
//! A receipt is signed by the renting validator, handed to the miner, and renewed while the lease is healthy. Without
//! it the bonus for rented machines would be free, so it counts only under the rules of [`count`]. Signatures are
//! checked by the function the caller passes in; nothing here does I/O or reads a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::millis;
use crate::ids::{Coldkey, DeviceId, Hotkey, LeaseId};

/// What the signed bytes begin with.
const DOMAIN: &[u8] = b"compute-subnet lease receipt/1";
/// The most devices a receipt names.
const MAX_DEVICES: usize = crate::lease::machine::MAX_DEVICES;

/// A renting validator's word that it holds a lease: what it says, and the signature under it. In JSON both are one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseReceipt {
    /// What it says; a receipt reads like it.
    #[serde(flatten)]
    pub says: Unsigned,
    /// The validator's sr25519 signature over [`Unsigned::signed_bytes`].
    #[serde(with = "hex::serde")]
    pub signature: [u8; 64],
}

/// What a receipt says. Times are milliseconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsigned {
    /// The lease.
    pub lease: LeaseId,
    /// The miner that is rented.
    pub miner: Hotkey,
    /// The devices: sorted, each once, when it is signed.
    pub devices: Vec<DeviceId>,
    /// The lease's fencing epoch.
    pub fencing_epoch: u64,
    /// When the lease began.
    pub began_ms: u64,
    /// When this receipt was signed.
    pub issued_ms: u64,
    /// When this receipt ends, at most two epochs later.
    pub expires_ms: u64,
    /// The renting validator.
    pub validator: Hotkey,
}

impl Deref for LeaseReceipt {
    type Target = Unsigned;
    fn deref(&self) -> &Unsigned {
        &self.says
    }
}

/// Why a receipt is not genuine, or not valid now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptProblem {
    /// No device, too many, or not in strictly ascending order.
    #[error("the devices are not 1 to {MAX_DEVICES} in ascending order")]
    Devices,
    /// The times contradict each other.
    #[error("it must begin before it is issued and be issued before it expires")]
    Times,
    /// It would be valid for too long.
    #[error("it is valid for longer than two epochs")]
    TooLong,
    /// It was issued in the future.
    #[error("it was issued in the future; check the clocks")]
    NotYet,
    /// It is over.
    #[error("it has expired")]
    Expired,
    /// The signature is not the validator's.
    #[error("the signature does not verify")]
    Signature,
}

impl ReceiptProblem {
    /// Every problem.
    pub const ALL: &'static [ReceiptProblem] = &[
        ReceiptProblem::Devices,
        ReceiptProblem::Times,
        ReceiptProblem::TooLong,
        ReceiptProblem::NotYet,
        ReceiptProblem::Expired,
        ReceiptProblem::Signature,
    ];
    /// The metric label: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            ReceiptProblem::Devices => "devices",
            ReceiptProblem::Times => "times",
            ReceiptProblem::TooLong => "too_long",
            ReceiptProblem::NotYet => "not_yet",
            ReceiptProblem::Expired => "expired",
            ReceiptProblem::Signature => "signature",
        }
    }
}

impl Unsigned {
    /// The bytes that are signed: the domain, then every field in order, integers little-endian, the devices preceded
    /// by their number.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(DOMAIN.len() + 120 + 16 * self.devices.len());
        out.extend_from_slice(DOMAIN);
        out.extend_from_slice(&self.lease.0);
        out.extend_from_slice(&self.miner.0);
        out.extend_from_slice(&(self.devices.len() as u64).to_le_bytes());
        for device in &self.devices {
            out.extend_from_slice(&device.0);
        }
        for number in [self.fencing_epoch, self.began_ms, self.issued_ms, self.expires_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.validator.0);
        out
    }
}

impl LeaseReceipt {
    /// A receipt of this validator, signed by `sign`. The devices are put in order.
    pub fn issue(mut says: Unsigned, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Self {
        says.devices.sort_unstable();
        says.devices.dedup();
        let signature = sign(&says.signed_bytes());
        LeaseReceipt { says, signature }
    }

    /// Checks shape, times and signature. `longest` is the length of two epochs, `skew` how far clocks may differ,
    /// `verify(signer, message, signature)` the sr25519 check.
    ///
    /// # Errors
    /// The first [`ReceiptProblem`]; the signature is checked last.
    pub fn verify(
        &self,
        now_ms: u64,
        longest: Duration,
        skew: Duration,
        verify: impl FnOnce(&Hotkey, &[u8], &[u8; 64]) -> bool,
    ) -> Result<(), ReceiptProblem> {
        let ascending = self.devices.windows(2).all(|w| w[0] < w[1]);
        if self.devices.is_empty() || self.devices.len() > MAX_DEVICES || !ascending {
            return Err(ReceiptProblem::Devices);
        }
        if self.began_ms > self.issued_ms || self.issued_ms >= self.expires_ms {
            return Err(ReceiptProblem::Times);
        }
        if self.expires_ms - self.issued_ms > millis(longest) {
            return Err(ReceiptProblem::TooLong);
        }
        if self.issued_ms > now_ms.saturating_add(millis(skew)) {
            return Err(ReceiptProblem::NotYet);
        }
        if now_ms >= self.expires_ms {
            return Err(ReceiptProblem::Expired);
        }
        if verify(&self.validator, &self.signed_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(ReceiptProblem::Signature)
        }
    }
}

/// A neuron as the metagraph shows it, as far as receipts need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Its owner.
    pub coldkey: Coldkey,
    /// Its stake in rao.
    pub stake_rao: u64,
    /// Whether it has a validator permit.
    pub permit: bool,
}

/// The rules by which receipts count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptRules {
    /// The least stake of a renting validator, in rao.
    pub min_stake_rao: u64,
    /// At most so many receipts of one validator for one coldkey's miners.
    pub max_per_validator_and_coldkey: usize,
}

/// Why a genuine receipt does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ineligible {
    /// The renting validator or the miner is not registered.
    NotRegistered,
    /// The renting validator has no permit.
    NoPermit,
    /// The renting validator has too little stake.
    NotEnoughStake,
    /// Renter and miner have one owner.
    SelfRental,
    /// A device was not proved before the lease began, or is not now.
    NotProvedBefore,
    /// Another receipt for the same lease, or for one of its devices, counts already.
    Superseded,
    /// The validator vouches for too many miners of this owner.
    TooMany,
}

impl Ineligible {
    /// Every reason.
    pub const ALL: &'static [Ineligible] = &[
        Ineligible::NotRegistered,
        Ineligible::NoPermit,
        Ineligible::NotEnoughStake,
        Ineligible::SelfRental,
        Ineligible::NotProvedBefore,
        Ineligible::Superseded,
        Ineligible::TooMany,
    ];
    /// The label in explanations: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            Ineligible::NotRegistered => "not_registered",
            Ineligible::NoPermit => "no_permit",
            Ineligible::NotEnoughStake => "not_enough_stake",
            Ineligible::SelfRental => "self_rental",
            Ineligible::NotProvedBefore => "not_proved_before",
            Ineligible::Superseded => "superseded",
            Ineligible::TooMany => "too_many",
        }
    }
}

/// Which of these verified receipts count, in the order given.
///
/// `party` is the metagraph; `proved_before(miner, device, began_ms)` says whether the miner's device was proved when
/// the lease began and has not failed since ([`super::DeviceHistory::proved_before`]). Of several receipts for one
/// lease the one with the highest fencing epoch, then the latest issue counts; of several leases for one device, and
/// of those above the cap, the one that began first.
pub fn count(
    receipts: &[LeaseReceipt],
    rules: &ReceiptRules,
    party: impl Fn(&Hotkey) -> Option<Party>,
    proved_before: impl Fn(&Hotkey, &DeviceId, u64) -> bool,
) -> Vec<Result<(), Ineligible>> {
    let newest: BTreeMap<(Hotkey, LeaseId), (u64, u64, usize)> =
        receipts.iter().enumerate().fold(BTreeMap::new(), |mut newest, (i, r)| {
            let this = (r.fencing_epoch, r.issued_ms, usize::MAX - i);
            let best = newest.entry((r.validator, r.lease)).or_insert(this);
            *best = this.max(*best);
            newest
        });
    let mut order: Vec<usize> = (0..receipts.len()).collect();
    order.sort_by_key(|i| (receipts[*i].began_ms, receipts[*i].lease, receipts[*i].validator, *i));

    let mut verdicts = vec![Err(Ineligible::Superseded); receipts.len()];
    let mut devices: BTreeSet<(Hotkey, DeviceId)> = BTreeSet::new();
    let mut counted: BTreeMap<(Hotkey, Coldkey), usize> = BTreeMap::new();
    for i in order {
        let r = &receipts[i];
        let is_newest = newest.get(&(r.validator, r.lease)).is_some_and(|(_, _, best)| *best == usize::MAX - i);
        if !is_newest || r.devices.iter().any(|d| devices.contains(&(r.miner, *d))) {
            continue;
        }
        verdicts[i] = parties(r, rules, &party, &proved_before).and_then(|miner| {
            let used = counted.entry((r.validator, miner.coldkey)).or_default();
            if *used >= rules.max_per_validator_and_coldkey {
                return Err(Ineligible::TooMany);
            }
            *used += 1;
            devices.extend(r.devices.iter().map(|d| (r.miner, *d)));
            Ok(())
        });
    }
    verdicts
}

fn parties(
    receipt: &LeaseReceipt,
    rules: &ReceiptRules,
    party: &impl Fn(&Hotkey) -> Option<Party>,
    proved_before: &impl Fn(&Hotkey, &DeviceId, u64) -> bool,
) -> Result<Party, Ineligible> {
    let (Some(renter), Some(miner)) = (party(&receipt.validator), party(&receipt.miner)) else {
        return Err(Ineligible::NotRegistered);
    };
    if !renter.permit {
        return Err(Ineligible::NoPermit);
    }
    if renter.stake_rao < rules.min_stake_rao {
        return Err(Ineligible::NotEnoughStake);
    }
    if renter.coldkey == miner.coldkey {
        return Err(Ineligible::SelfRental);
    }
    let proved = |d: &DeviceId| proved_before(&receipt.miner, d, receipt.began_ms);
    if receipt.devices.iter().all(proved) { Ok(miner) } else { Err(Ineligible::NotProvedBefore) }
}
