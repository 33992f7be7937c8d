//! When rented hardware is no longer what was rented: only a proof says so, and K times.
//!
//! A device that is rented is not challenged while it works for its renter, so most epochs say nothing of it, and what
//! says nothing never ends a lease. Three things that the validator proves do say something:
//! - the device itself gave a proof (it was challenged before the lease was known, or its container is paused): of the
//!   model that it was rented as, or of another;
//! - it gave one and failed by what it is: below its model's floor, or without its memory. Under a tenant's load both
//!   may happen to an honest device, so they count only while its container is paused, and at its release;
//! - the miner no longer offers it, and proves as many devices as it had with it: another stands in its place.
//!
//! What says nothing: specs by themselves (a driver that lost a card, a program that lists it otherwise), no answer, an
//! answer that is wrong in any other way, another hotkey's claim of the device (anybody can claim it), epochs that are
//! void for our own faults, and epochs of which no record is left.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Epoch};
use crate::scoring::MinerJudgement;
use crate::verdict::{FailReason, Verdict};

/// A rented device, as it was when its lease was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rented {
    /// The device.
    pub device: DeviceId,
    /// The model it was proved as.
    pub model: String,
    /// Every device that its miner had proved then, this one included.
    pub beside: BTreeSet<DeviceId>,
}

/// What a tenant's work may have to do with a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The container runs: its tenant may use the device.
    Tenant,
    /// The container is paused, or the lease is over: nobody else uses the device.
    None,
}

/// A change that a proof shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It was proved as another model.
    Model(String),
    /// It failed by what it is.
    Failed(FailReason),
    /// The miner proves this one in its place.
    Replaced(DeviceId),
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Change::Model(model) => write!(f, "it was proved as {model}"),
            Change::Failed(reason) => f.write_str(reason.text()),
            Change::Replaced(other) => write!(f, "the miner no longer offers it and proves {other} in its place"),
        }
    }
}

/// What one judged epoch says of a rented device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// It was proved as what it was rented as.
    Same,
    /// A proof shows another.
    Changed(Change),
    /// Nothing.
    Nothing,
}

/// What an epoch says of a rented device. `judged`: what became of its miner in it, `None` where there is no judgement.
/// `void`: nobody was judged, for reasons of our own.
pub fn evidence(rented: &Rented, judged: Option<&MinerJudgement>, void: bool, load: Load) -> Evidence {
    let Some(judged) = judged.filter(|j| !void && j.refused.is_none() && j.whole.is_none()) else {
        return Evidence::Nothing;
    };
    if let Some(seen) = judged.devices.iter().find(|d| d.device == rented.device) {
        return match &seen.verdict {
            Verdict::Pass { .. } if seen.model == rented.model => Evidence::Same,
            Verdict::Pass { .. } => Evidence::Changed(Change::Model(seen.model.clone())),
            Verdict::Fail { reason, .. } if load == Load::None && tells_of_the_device(*reason) => {
                Evidence::Changed(Change::Failed(*reason))
            }
            Verdict::Fail { .. } | Verdict::Unknown { .. } => Evidence::Nothing,
        };
    }
    let proved: BTreeSet<DeviceId> =
        judged.devices.iter().filter(|d| matches!(d.verdict, Verdict::Pass { .. })).map(|d| d.device).collect();
    // Others may be leased and so not challenged: then fewer are proved than there were, which says nothing.
    match proved.iter().find(|d| !rented.beside.contains(d)) {
        Some(other) if proved.len() >= rented.beside.len() => Evidence::Changed(Change::Replaced(*other)),
        _ => Evidence::Nothing,
    }
}

/// Whether a fail with this reason comes of what the device is, and not of how it answered.
fn tells_of_the_device(reason: FailReason) -> bool {
    matches!(reason, FailReason::BelowFloor | FailReason::MemoryMismatch)
}

/// What the epochs so far say of one rented device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    last: Option<Epoch>,
    confirmed: u32,
}

impl Changes {
    /// Takes an epoch in, each once, and says whether the change is confirmed: `needed` epochs showed one since the last
    /// that showed the device as it was.
    pub fn take(&mut self, epoch: Epoch, evidence: &Evidence, needed: u32) -> bool {
        if self.last.is_some_and(|last| last >= epoch) {
            return false;
        }
        self.last = Some(epoch);
        match evidence {
            Evidence::Same => self.confirmed = 0,
            Evidence::Changed(_) => self.confirmed = self.confirmed.saturating_add(1),
            Evidence::Nothing => return false,
        }
        self.confirmed >= needed.max(1)
    }

    /// Epochs that showed a change since the last that showed none.
    pub fn confirmed(&self) -> u32 {
        self.confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Refusal;
    use crate::ids::{Coldkey, Hotkey, Uid};
    use crate::scoring::DeviceJudgement;
    use crate::verdict::{PassEvidence, UnknownCause};

    const MODEL: &str = "NVIDIA H200";

    fn id(n: u8) -> DeviceId {
        DeviceId([n; 16])
    }

    /// Device 1 of a machine that had proved 1, 2 and 3.
    fn rented() -> Rented {
        Rented { device: id(1), model: MODEL.into(), beside: [id(1), id(2), id(3)].into() }
    }

    fn pass() -> Verdict {
        Verdict::Pass { evidence: PassEvidence { operations: 1, elapsed_ns: 1, samples: 1 } }
    }

    fn judged(devices: &[(u8, &str, Verdict)]) -> MinerJudgement {
        let of = |(n, model, verdict): &(u8, &str, Verdict)| DeviceJudgement {
            device: id(*n),
            model: (*model).to_owned(),
            verdict: verdict.clone(),
            rate: None,
            kept_rate: None,
        };
        MinerJudgement {
            uid: Uid(1),
            hotkey: Hotkey([1; 32]),
            coldkey: Coldkey([1; 32]),
            refused: None,
            whole: None,
            devices: devices.iter().map(of).collect(),
        }
    }

    fn says(devices: &[(u8, &str, Verdict)], load: Load) -> Evidence {
        evidence(&rented(), Some(&judged(devices)), false, load)
    }

    #[test]
    fn a_proof_as_the_same_model_says_so_and_one_as_another_is_a_change() {
        for load in [Load::Tenant, Load::None] {
            assert_eq!(says(&[(1, MODEL, pass())], load), Evidence::Same);
            let other = says(&[(1, "NVIDIA L40", pass())], load);
            assert_eq!(other, Evidence::Changed(Change::Model("NVIDIA L40".into())));
        }
    }

    #[test]
    fn a_fail_counts_by_what_the_device_is_and_only_where_no_tenant_works() {
        for reason in FailReason::ALL {
            let seen = [(1, MODEL, Verdict::fail(*reason, "seen"))];
            let counts = matches!(reason, FailReason::BelowFloor | FailReason::MemoryMismatch);
            let wanted = if counts { Evidence::Changed(Change::Failed(*reason)) } else { Evidence::Nothing };
            assert_eq!(says(&seen, Load::None), wanted, "{reason}");
            assert_eq!(says(&seen, Load::Tenant), Evidence::Nothing, "{reason}");
        }
    }

    #[test]
    fn no_unknown_says_anything() {
        for cause in UnknownCause::ALL {
            let seen = [(1, MODEL, Verdict::unknown(*cause, "seen")), (2, MODEL, pass()), (3, MODEL, pass())];
            assert_eq!(says(&seen, Load::None), Evidence::Nothing, "{cause}");
        }
    }

    #[test]
    fn specs_that_no_longer_list_the_device_say_nothing_until_another_is_proved_in_its_place() {
        let two = [(2, MODEL, pass()), (3, MODEL, pass())];
        assert_eq!(says(&two, Load::None), Evidence::Nothing, "a driver may have lost it");
        assert_eq!(says(&[], Load::None), Evidence::Nothing, "or the specs may be empty");
        let claimed = [two[0].clone(), two[1].clone(), (4, MODEL, Verdict::unknown(UnknownCause::Timeout, "late"))];
        assert_eq!(says(&claimed, Load::None), Evidence::Nothing, "claimed is not proved");
        let fewer = [two[0].clone(), (4, MODEL, pass())];
        assert_eq!(says(&fewer, Load::None), Evidence::Nothing, "perhaps a new one beside it");
        let replaced = [two[0].clone(), two[1].clone(), (4, MODEL, pass())];
        assert_eq!(says(&replaced, Load::Tenant), Evidence::Changed(Change::Replaced(id(4))));
        let beside =
            [replaced.as_slice(), &[(1, MODEL, Verdict::unknown(UnknownCause::Rented, "not disturbed"))]].concat();
        assert_eq!(says(&beside, Load::Tenant), Evidence::Nothing, "it is still offered, the new one stands beside it");
    }

    #[test]
    fn our_own_outage_a_missing_record_and_a_miner_that_was_not_asked_say_nothing() {
        let changed = judged(&[(1, "NVIDIA L40", pass())]);
        assert_eq!(evidence(&rented(), Some(&changed), true, Load::None), Evidence::Nothing, "void");
        assert_eq!(evidence(&rented(), None, false, Load::None), Evidence::Nothing, "an empty database");
        let whole = Some(Verdict::unknown(UnknownCause::Unreachable, "gone"));
        let silent = MinerJudgement { whole, ..judged(&[]) };
        assert_eq!(evidence(&rented(), Some(&silent), false, Load::None), Evidence::Nothing);
        let refused = MinerJudgement { refused: Some(Refusal::Penalised { until_ms: 1 }), ..changed };
        assert_eq!(evidence(&rented(), Some(&refused), false, Load::None), Evidence::Nothing);
    }

    #[test]
    fn a_change_needs_its_confirmations_since_the_device_was_last_seen_as_it_was() {
        let other = Evidence::Changed(Change::Replaced(id(4)));
        let after = |seen: &[(Epoch, &Evidence)]| {
            let mut changes = Changes::default();
            seen.iter().map(|(epoch, evidence)| changes.take(*epoch, evidence, 3)).collect::<Vec<_>>()
        };
        assert_eq!(after(&[(1, &other), (2, &other), (3, &other)]), [false, false, true]);
        assert_eq!(after(&[(1, &other), (1, &other), (1, &other)]), [false; 3], "an epoch counts once");
        assert_eq!(after(&[(3, &other), (2, &other), (1, &other)]), [false; 3], "and never backwards");
        let nothing = Evidence::Nothing;
        assert_eq!(after(&[(1, &other), (2, &nothing), (3, &other), (4, &other)]), [false, false, false, true]);
        let same = Evidence::Same;
        assert_eq!(after(&[(1, &other), (2, &other), (3, &same), (4, &other)]), [false; 4]);
        assert!(Changes::default().take(1, &other, 0), "at least one is needed");
    }
}
