//! The receipts that miners presented in one epoch, and which of them count. Pure: the live round and a replay of its log
//! ask the same function.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::judge::Judge;
use super::receipt::{Ineligible, LeaseReceipt, Party, ReceiptProblem, ReceiptRules, count};
use crate::ids::{DeviceId, Epoch, Hotkey};

/// How far the clocks of two validators may differ.
pub const SKEW: Duration = Duration::from_secs(30);
/// The most receipts of one miner that are looked at: one for each device of a large machine.
pub const MAX_OF_ONE: usize = 16;

/// The receipts of an epoch with everything by which they are judged but the verdict histories.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Presented {
    /// The epoch.
    pub epoch: Epoch,
    /// When they were looked at, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How long an epoch is, in milliseconds.
    pub epoch_ms: u64,
    /// The rules.
    pub rules: ReceiptRules,
    /// The miners and the renting validators that are registered.
    pub parties: BTreeMap<Hotkey, Party>,
    /// The receipts, in the order in which they were presented.
    pub receipts: Vec<LeaseReceipt>,
}

/// What became of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptStanding {
    /// It counts: its devices are rented.
    Counts,
    /// It is not genuine, or not valid now.
    Invalid(ReceiptProblem),
    /// It is genuine and does not count.
    Ineligible(Ineligible),
}

impl ReceiptStanding {
    /// The metric label: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            ReceiptStanding::Counts => "counts",
            ReceiptStanding::Invalid(problem) => problem.label(),
            ReceiptStanding::Ineligible(why) => why.label(),
        }
    }
    /// Every label.
    pub fn labels() -> Vec<&'static str> {
        let invalid = ReceiptProblem::ALL.iter().map(|p| p.label());
        ["counts"].into_iter().chain(invalid).chain(Ineligible::ALL.iter().map(|i| i.label())).collect()
    }
}

impl Presented {
    /// What becomes of each receipt, in their order. `judge` is the one before the epoch; `verify(signer, message, signature)`
    /// the sr25519 check.
    pub fn standings(&self, judge: &Judge, verify: impl Fn(&Hotkey, &[u8], &[u8; 64]) -> bool) -> Vec<ReceiptStanding> {
        let longest = Duration::from_millis(self.epoch_ms.saturating_mul(2));
        let checked: Vec<Result<(), ReceiptProblem>> =
            self.receipts.iter().map(|r| r.verify(self.at_ms, longest, SKEW, &verify)).collect();
        let genuine: Vec<LeaseReceipt> =
            self.receipts.iter().zip(&checked).filter(|(_, ok)| ok.is_ok()).map(|(r, _)| r.clone()).collect();
        let proved = |miner: &Hotkey, device: &DeviceId, began_ms: u64| {
            let history = judge.history(*miner, Some(*device));
            history.is_some_and(|h| h.proved_before(self.epoch_at(began_ms), began_ms, judge.rules()))
        };
        let party = |hotkey: &Hotkey| self.parties.get(hotkey).copied();
        let mut counted = count(&genuine, &self.rules, party, proved).into_iter();
        let standing = |ok: Result<(), ReceiptProblem>| match ok {
            Err(problem) => ReceiptStanding::Invalid(problem),
            // One for each that is genuine.
            Ok(()) => match counted.next() {
                Some(Err(why)) => ReceiptStanding::Ineligible(why),
                Some(Ok(())) => ReceiptStanding::Counts,
                None => ReceiptStanding::Ineligible(Ineligible::Superseded),
            },
        };
        checked.into_iter().map(standing).collect()
    }

    /// Without those that nobody needs to derive which count: what is not genuine or not valid now, and the word of signers
    /// that are not registered. Anybody can make as many of them as he likes.
    #[must_use]
    pub fn settled(mut self, standings: Vec<ReceiptStanding>) -> (Self, Vec<ReceiptStanding>) {
        let needed = |standing: &ReceiptStanding| {
            !matches!(standing, ReceiptStanding::Invalid(_) | ReceiptStanding::Ineligible(Ineligible::NotRegistered))
        };
        let (receipts, standings) = self.receipts.into_iter().zip(standings).filter(|(_, s)| needed(s)).unzip();
        self.receipts = receipts;
        (self, standings)
    }

    /// The epoch that a time lay in, reckoned back from this one.
    fn epoch_at(&self, at_ms: u64) -> Epoch {
        let ago = self.at_ms.saturating_sub(at_ms).checked_div(self.epoch_ms).unwrap_or(0);
        self.epoch.saturating_sub(ago)
    }

    /// The devices of the receipts that count, by miner.
    pub fn devices(&self, standings: &[ReceiptStanding]) -> BTreeMap<Hotkey, Vec<DeviceId>> {
        let mut devices: BTreeMap<Hotkey, BTreeSet<DeviceId>> = BTreeMap::new();
        for (receipt, _) in self.receipts.iter().zip(standings).filter(|(_, s)| **s == ReceiptStanding::Counts) {
            devices.entry(receipt.miner).or_default().extend(&receipt.devices);
        }
        devices.into_iter().map(|(miner, devices)| (miner, devices.into_iter().collect())).collect()
    }
}

#[cfg(test)]
mod tests;
