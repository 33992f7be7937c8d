//! What a device's proofs of memory cost it: the judgements of one validator's rounds of memory, in order. Pure.
//!
//! A validator owns the memory slot in one of so many epochs as there are holders, so a proof of memory is no verdict of an
//! epoch: it is a *standing*, which is read when work is planned.
//! - One Fail costs the device its next round of work: the first that begins after the Fail was stored.
//! - [`FAILS`] Fails without a Pass between, or [`MISSES`] misses in a row (unknown by the miner's or the network's side; then
//!   the reason is `unresponsive`), cost every round until it passes.
//! - Unknown by the validator's side changes nothing, and a device that was never proved is paid as before. So does a device
//!   that is called rented: another validator's lease must not count against the miner, and its other devices are refused
//!   with it. The word keeps a miner from this proof as long as it gives it; what its work is paid then, work's own rules say.
//!
//! What it costs is a settled `Fail` of its own reason, which is no offence of that epoch: the detail names the proof's reason,
//! epoch and numbers.

use std::collections::HashMap;

use crate::ids::{DeviceId, Epoch, Hotkey};
use crate::verdict::{FailReason, MemoryVerdict, Side, Verdict};

/// Fails without a Pass in between from which on every epoch is lost.
pub const FAILS: u32 = 2;
/// Misses in a row from which on every epoch is lost.
pub const MISSES: u32 = 3;

/// The last Fail.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failed {
    epoch: Epoch,
    reason: FailReason,
    detail: String,
    after_round: Option<Epoch>,
}

/// How a device stands with its memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStanding {
    proved: bool,
    fails: u32,
    failed: Option<Failed>,
    misses: u32,
    missed: Option<(Epoch, &'static str)>,
}

impl MemoryStanding {
    /// Takes the next judgement in. `after_round`: the newest epoch whose round of work had begun when it was stored.
    pub fn take(&mut self, epoch: Epoch, after_round: Option<Epoch>, verdict: &MemoryVerdict) {
        match verdict {
            Verdict::Pass { .. } => *self = MemoryStanding { proved: true, ..MemoryStanding::default() },
            Verdict::Fail { reason, detail } => {
                self.fails = self.fails.saturating_add(1);
                self.failed = Some(Failed { epoch, reason: *reason, detail: detail.clone(), after_round });
                self.misses = 0;
            }
            Verdict::Unknown { cause, .. } if cause.side() != Side::Validator => {
                self.misses = self.misses.saturating_add(1);
                self.missed = Some((epoch, cause.label()));
            }
            Verdict::Unknown { .. } => {}
        }
    }

    /// Whether its memory was proved, at some time.
    pub fn is_proved(&self) -> bool {
        self.proved
    }

    /// The verdict that it gets instead of a challenge, if any, in the round of work that follows `last_round`, the newest
    /// epoch whose round of work is closed.
    pub fn cost(&self, last_round: Option<Epoch>) -> Option<Verdict> {
        if let Some(Failed { epoch, reason, detail, after_round }) = &self.failed {
            if self.fails >= FAILS {
                let detail = format!(
                    "{} memory proofs without a pass, the last in epoch {epoch}: {reason}: {detail}",
                    self.fails
                );
                return Some(Verdict::fail(FailReason::MemoryNotProved, detail));
            }
            if last_round <= *after_round {
                let detail = format!("the memory proof of epoch {epoch}: {reason}: {detail}");
                return Some(Verdict::fail(FailReason::MemoryNotProved, detail));
            }
        }
        let (epoch, cause) = self.missed.filter(|_| self.misses >= MISSES)?;
        let detail =
            format!("{} memory proofs in a row without an answer, the last in epoch {epoch}: {cause}", self.misses);
        Some(Verdict::fail(FailReason::MemoryNotProved, detail))
    }
}

/// The standings of all devices that were judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryStandings(HashMap<(Hotkey, DeviceId), MemoryStanding>);

impl MemoryStandings {
    /// The standing of this device; a new one if it has none.
    pub fn of(&mut self, hotkey: Hotkey, device: DeviceId) -> &mut MemoryStanding {
        self.0.entry((hotkey, device)).or_default()
    }

    /// What each device gets instead of a challenge, by [`MemoryStanding::cost`]; those that get none are left out.
    pub fn costs(&self, last_round: Option<Epoch>) -> HashMap<(Hotkey, DeviceId), Verdict> {
        self.0.iter().filter_map(|(device, standing)| Some((*device, standing.cost(last_round)?))).collect()
    }

    /// The standing of this device, if it was judged.
    pub fn get(&self, hotkey: Hotkey, device: DeviceId) -> Option<&MemoryStanding> {
        self.0.get(&(hotkey, device))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::memory::{Evidence, Size};
    use crate::verdict::UnknownCause;

    fn pass() -> MemoryVerdict {
        Verdict::Pass { evidence: Evidence { size: Size::new(4, 1, 1).unwrap(), elapsed_ns: 1, samples: 66 } }
    }

    fn fail() -> MemoryVerdict {
        Verdict::fail(FailReason::MemoryMismatch, "CPU-0, scan 1, block 7")
    }

    fn unknown(cause: UnknownCause) -> MemoryVerdict {
        Verdict::unknown(cause, "seen")
    }

    /// Judged in every tenth epoch, each time before the next round of work.
    fn after(verdicts: &[MemoryVerdict]) -> MemoryStanding {
        let mut standing = MemoryStanding::default();
        for (number, verdict) in verdicts.iter().enumerate() {
            let epoch = 10 * (number as u64 + 1);
            standing.take(epoch, Some(epoch), verdict);
        }
        standing
    }

    fn cost(verdicts: &[MemoryVerdict], last_round: Epoch) -> Option<&'static str> {
        after(verdicts).cost(Some(last_round)).map(|verdict| verdict.reason())
    }

    #[test]
    fn one_fail_costs_the_next_round_of_work_and_no_other() {
        let once = [fail()];
        assert_eq!(cost(&once, 10), Some("memory_not_proved"), "planning epoch 11");
        assert_eq!(cost(&once, 11), None, "planning epoch 12");
        let Some(Verdict::Fail { detail, .. }) = after(&once).cost(Some(10)) else { panic!("no fail") };
        assert_eq!(detail, "the memory proof of epoch 10: memory_mismatch: CPU-0, scan 1, block 7");
    }

    #[test]
    fn a_fail_that_is_stored_while_the_next_round_of_work_runs_costs_the_one_after_it() {
        let mut standing = MemoryStanding::default();
        standing.take(10, Some(11), &fail());
        assert!(standing.cost(Some(10)).is_some(), "epoch 11 could not know of it, but may be planned again");
        assert!(standing.cost(Some(11)).is_some(), "planning epoch 12");
        assert_eq!(standing.cost(Some(12)), None);
        let mut first = MemoryStanding::default();
        first.take(10, None, &fail());
        assert!(first.cost(None).is_some(), "before any round of work");
    }

    #[test]
    fn two_fails_without_a_pass_between_cost_every_round_until_it_passes() {
        for between in [vec![], vec![unknown(UnknownCause::Timeout)], vec![unknown(UnknownCause::OwnFault)]] {
            let mut verdicts = vec![fail()];
            verdicts.extend(between);
            verdicts.push(fail());
            assert_eq!(cost(&verdicts, 1_000), Some("memory_not_proved"));
            verdicts.push(unknown(UnknownCause::Timeout));
            assert_eq!(cost(&verdicts, 1_000), Some("memory_not_proved"), "not answering does not clear it");
            verdicts.push(pass());
            assert_eq!(cost(&verdicts, 1_000), None);
            assert!(after(&verdicts).is_proved());
        }
        assert_eq!(cost(&[fail(), pass(), fail()], 1_000), None);
    }

    #[test]
    fn three_misses_in_a_row_cost_every_round_until_it_passes() {
        use UnknownCause::{Busy, ProverCrashed, Rented, Timeout, Unreachable};
        let rented = [unknown(Rented), unknown(Rented), unknown(Rented)];
        assert_eq!(cost(&rented, 1_000), None, "perhaps by another validator");
        let misses = [unknown(Busy), unknown(Unreachable), unknown(ProverCrashed)];
        assert_eq!(cost(&misses[..2], 1_000), None);
        assert_eq!(cost(&misses, 1_000), Some("memory_not_proved"));
        let [a, b, c] = misses.clone();
        assert_eq!(cost(&[a.clone(), b.clone(), pass(), c.clone()], 1_000), None, "not in a row");
        assert_eq!(cost(&[a.clone(), b.clone(), fail(), c.clone()], 1_000), None, "a fail is an answer");
        assert_eq!(cost(&[a, b, c, unknown(Timeout), pass()], 1_000), None);
    }

    #[test]
    fn what_is_the_validators_own_fault_changes_nothing() {
        use UnknownCause::{OwnFault, Timeout};
        let own = [unknown(OwnFault), unknown(OwnFault), unknown(OwnFault)];
        assert_eq!(after(&own), MemoryStanding::default());
        let mut verdicts = vec![unknown(Timeout), unknown(Timeout)];
        verdicts.extend(own);
        assert_eq!(cost(&verdicts, 1_000), None);
        verdicts.push(unknown(Timeout));
        assert_eq!(cost(&verdicts, 1_000), Some("memory_not_proved"), "nor does it break the row");
    }

    #[test]
    fn a_device_that_was_never_judged_costs_nothing_and_is_not_proved() {
        let new = MemoryStanding::default();
        assert_eq!((new.cost(Some(7)), new.cost(None), new.is_proved()), (None, None, false));
    }
}
