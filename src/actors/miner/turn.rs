//! Whose challenge a miner serves at this head. Pure: a view of the chain goes in.
//!
//! A validator is served in its own slot. Its head and ours may be one block apart, so the block before and the block after
//! ours count as well: two validators may then both be let in at the border of their slots, and the budget, which admits
//! one challenge at a time, lets the second wait. While the chain is away the blocks that should have come count like it.

use crate::chain::STATEFUL_EPOCHS;
use crate::ids::{BlockNumber, Epoch, Hotkey};
use crate::messages::chain_watcher::ChainView;
use crate::wire::synapse::{ChallengeRefusal, ChallengeReply};

/// What is asked to be proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Work, in the caller's own slot.
    Work,
    /// Memory, in the epoch's memory slot, which has one owner.
    Memory,
}

/// Whether `caller` may challenge for `epoch` now.
///
/// Without a view, or where the epoch's beacon could not be read or nobody holds a permit, every admitted validator may.
/// With one of an earlier run nobody's turn is known, and the caller is asked to come again.
///
/// # Errors
/// What it is answered: `Busy` until its slot, or why it is refused.
pub(crate) fn may_challenge(
    view: Option<&ChainView>,
    caller: &Hotkey,
    epoch: Epoch,
    asked: Asked,
) -> Result<(), ChallengeReply> {
    let Some(view) = view else { return Ok(()) };
    let (head, ours) = (view.metagraph.head.number, view.epoch());
    let busy = |block| Err(ChallengeReply::Busy { until_ms: view.due_ms(block) });
    if view.is_stored() {
        return busy(head + 1);
    }
    if epoch != ours {
        // Its head is one block ahead of ours, and in an epoch whose slots we do not know yet; or it has seen the chain's
        // upgrade to stateful epochs.
        let next = epoch == ours + 1 && view.metagraph.epochs.next_epoch_block(head) == head + 1;
        if next || (ours < STATEFUL_EPOCHS && STATEFUL_EPOCHS <= epoch) {
            return busy(head + 1);
        }
        let detail = format!("epoch {epoch} is not the current one, {ours}");
        return Err(ChallengeReply::Refused { reason: ChallengeRefusal::WrongEpoch, detail });
    }
    if view.slots.is_none() && asked == Asked::Memory {
        return busy(head + 1); // no validator asks then, and memory is held for long
    }
    let Some(table) = view.slots.as_deref().filter(|t| !t.is_empty()) else { return Ok(()) };
    let slot = match asked {
        Asked::Work => table.slot_of(caller),
        Asked::Memory => table.memory_slot().filter(|slot| slot.owner == *caller).map(|slot| slot.blocks),
    };
    let Some(slot) = slot else {
        let detail = match asked {
            Asked::Work => {
                format!("{caller} has no slot in epoch {epoch}: they go to the permit holders with the most stake")
            }
            Asked::Memory => format!("{caller} does not own the memory slot of epoch {epoch}: it has one owner"),
        };
        return Err(ChallengeReply::Refused { reason: ChallengeRefusal::NoSlot, detail });
    };
    let comes_at = |head: BlockNumber| slot.start <= head.saturating_add(1) && head <= slot.end;
    if comes_at(head) || comes_at(view.reckoned()) { Ok(()) } else { busy(table.come_at(Some(slot), head)) }
}

/// How many blocks before a turn devices are made ready for it: more time than that takes.
const LEAD: u64 = 3;

/// Whether a validator's turn is on, or begins within [`LEAD`] blocks. The next epoch's slots are not known before it begins;
/// the first of them begins with it.
pub(crate) fn turn_is_near(view: &ChainView) -> bool {
    let Some(table) = view.slots.as_deref().filter(|t| !t.is_empty() && !view.is_stored()) else { return false };
    let soon = view.reckoned().saturating_add(LEAD);
    let last = table.holders().last().and_then(|hotkey| table.slot_of(hotkey));
    soon >= table.epoch_end() || (soon >= table.epoch_start() && last.is_some_and(|slot| view.reckoned() <= slot.end))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::chain::ledger::GenesisConfig;
    use crate::chain::slots::slots;
    use crate::chain::{BlockHead, EpochClock, EpochState, Metagraph};
    use crate::ids::{Hash32, Netuid};
    use crate::messages::chain_watcher::Source;

    /// Work, as most of what is tested here.
    fn may_challenge(view: Option<&ChainView>, caller: &Hotkey, epoch: Epoch) -> Result<(), ChallengeReply> {
        super::may_challenge(view, caller, epoch, Asked::Work)
    }

    const BLOCK: u64 = 1000;
    const EPOCHS: EpochClock = EpochClock::Modulo { netuid: Netuid(1), tempo: 5 };

    /// Subnet 1, tempo 5: epoch 1 is the blocks 4 to 9, block n is made at n seconds.
    fn view(head: u64, holders: u8) -> ChainView {
        let block = BlockHead { number: head, hash: Hash32([0; 32]), timestamp_ms: head * BLOCK };
        let metagraph = Metagraph { netuid: Netuid(1), head: block, epochs: EPOCHS, neurons: Vec::new() };
        let holders: Vec<_> = (1..=holders).map(|i| (Hotkey([i; 32]), 1)).collect();
        let table = slots(Hash32([1; 32]), &holders, Netuid(1), EPOCHS, metagraph.epoch());
        let rules = Arc::new(GenesisConfig::new(Netuid(1)).hyperparameters);
        let (slots, block_time) = (Some(Arc::new(table)), Some(Duration::from_millis(BLOCK)));
        ChainView { slots, block_time, ..ChainView::new(Arc::new(metagraph), rules, head) }
    }

    fn refusal(reply: Result<(), ChallengeReply>) -> Option<ChallengeRefusal> {
        match reply {
            Err(ChallengeReply::Refused { reason, .. }) => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn a_validator_is_served_in_its_slot_and_a_block_to_either_side_and_else_hears_when_to_come() {
        let order = view(4, 3).slots.unwrap().holders().to_vec();
        // Slots of two blocks: 4–5, 6–7, 8–9.
        let served = |caller: &Hotkey| {
            (4..10).filter(|head| may_challenge(Some(&view(*head, 3)), caller, 1).is_ok()).collect::<Vec<_>>()
        };
        assert_eq!(served(&order[0]), [4, 5, 6]);
        assert_eq!(served(&order[1]), [5, 6, 7, 8]);
        assert_eq!(served(&order[2]), [7, 8, 9]);
        let busy = |until_ms| Err(ChallengeReply::Busy { until_ms });
        assert_eq!(may_challenge(Some(&view(4, 3)), &order[2], 1), busy(8 * BLOCK));
        assert_eq!(may_challenge(Some(&view(9, 3)), &order[0], 1), busy(10 * BLOCK), "not before the next epoch");
    }

    #[tokio::test(start_paused = true)]
    async fn without_blocks_slots_come_by_the_clock() {
        let (view, order) = (view(4, 3), view(4, 3).slots.unwrap().holders().to_vec());
        let served = |caller: &Hotkey| may_challenge(Some(&view), caller, 1).is_ok();
        assert!(!served(&order[2]));
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(served(&order[2]) && view.reckoned() == 8, "slots of two blocks: 8 and 9");
        assert!(served(&order[0]), "no block says that this one is over");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!served(&order[2]), "the next epoch's slots are not known");
    }

    #[test]
    fn without_turns_everyone_is_served_in_the_current_epoch() {
        let caller = Hotkey([9; 32]);
        assert_eq!(may_challenge(None, &caller, 77), Ok(()));
        assert_eq!(may_challenge(Some(&view(4, 0)), &caller, 1), Ok(()));
        let unknown = ChainView { slots: None, ..view(4, 1) };
        assert_eq!(may_challenge(Some(&unknown), &caller, 1), Ok(()));
        assert_eq!(refusal(may_challenge(Some(&unknown), &caller, 3)), Some(ChallengeRefusal::WrongEpoch));
    }

    #[test]
    fn a_validator_without_a_slot_is_refused_and_told_so() {
        assert_eq!(refusal(may_challenge(Some(&view(4, 3)), &Hotkey([9; 32]), 1)), Some(ChallengeRefusal::NoSlot));
    }

    #[test]
    fn memory_is_proved_for_the_slots_owner_alone_and_a_block_to_either_side_of_it() {
        let asked = |head, caller: &Hotkey| super::may_challenge(Some(&view(head, 3)), caller, 1, Asked::Memory);
        let slot = view(4, 3).slots.unwrap().memory_slot().unwrap();
        assert!(slot.shared, "six blocks have no room for a slot of its own");
        let served: Vec<u64> = (4..10).filter(|head| asked(*head, &slot.owner).is_ok()).collect();
        let expected: Vec<u64> = (4..10).filter(|h| (slot.blocks.start - 1..=slot.blocks.end).contains(h)).collect();
        assert_eq!(served, expected);
        for other in (1..=3).map(|i| Hotkey([i; 32])).filter(|other| *other != slot.owner) {
            for head in 4..10 {
                assert_eq!(refusal(asked(head, &other)), Some(ChallengeRefusal::NoSlot), "{head}");
            }
        }
    }

    #[test]
    fn the_owner_of_a_memory_slot_that_is_still_to_come_hears_when_it_comes() {
        let long = EpochClock::Modulo { netuid: Netuid(1), tempo: 359 };
        let at = |head: u64| {
            let mut view = view(4, 3);
            let metagraph = Arc::make_mut(&mut view.metagraph);
            (metagraph.epochs, metagraph.head.number, metagraph.head.timestamp_ms) = (long, head, head * BLOCK);
            let holders: Vec<_> = (1..=3).map(|i| (Hotkey([i; 32]), 1)).collect();
            ChainView { slots: Some(Arc::new(slots(Hash32([1; 32]), &holders, Netuid(1), long, 1))), ..view }
        };
        let table = at(400).slots.unwrap();
        let (first, owner) = (table.epoch_start(), table.memory_slot().unwrap().owner);
        let asked = |head| super::may_challenge(Some(&at(head)), &owner, 1, Asked::Memory);
        assert_eq!(asked(first + 22), Err(ChallengeReply::Busy { until_ms: (first + 24) * BLOCK }));
        assert!((23..=28).all(|into| asked(first + into).is_ok()));
        assert_eq!(
            asked(first + 29),
            Err(ChallengeReply::Busy { until_ms: (first + 360) * BLOCK }),
            "in the next epoch"
        );
    }

    #[test]
    fn another_epoch_is_refused_but_the_one_that_begins_with_the_next_block() {
        let caller = Hotkey([1; 32]);
        let asked = |head, epoch| may_challenge(Some(&view(head, 1)), &caller, epoch);
        assert_eq!(asked(9, 2), Err(ChallengeReply::Busy { until_ms: 10 * BLOCK }));
        for (head, epoch) in [(8, 2), (9, 3), (10, 1), (9, 0)] {
            assert_eq!(refusal(asked(head, epoch)), Some(ChallengeRefusal::WrongEpoch), "{head} {epoch}");
        }
    }

    #[test]
    fn on_a_stateful_chain_the_next_epoch_is_the_one_that_the_chain_is_to_begin() {
        let state = EpochState {
            tempo: 360,
            last_epoch_block: 1_000,
            pending_epoch_at: 1_050,
            subnet_epoch_index: 7,
            blocks_since_last_step: 49,
        };
        let (caller, now) = (Hotkey([1; 32]), STATEFUL_EPOCHS + 7);
        let asked = |head, epoch| {
            let epochs = EpochClock::Stateful { state, at: head };
            let mut view = view(head, 1);
            Arc::make_mut(&mut view.metagraph).epochs = epochs;
            view.slots = Some(Arc::new(slots(Hash32([1; 32]), &[(caller, 1)], Netuid(1), epochs, now)));
            may_challenge(Some(&view), &caller, epoch)
        };
        assert_eq!(asked(1_001, now), Ok(()));
        assert_eq!(asked(1_049, now + 1), Err(ChallengeReply::Busy { until_ms: 1_050 * BLOCK }));
        assert_eq!(refusal(asked(1_048, now + 1)), Some(ChallengeRefusal::WrongEpoch));
        // A validator that saw the upgrade a block before us.
        assert_eq!(may_challenge(Some(&view(8, 1)), &caller, now), Err(ChallengeReply::Busy { until_ms: 9 * BLOCK }));
    }

    #[test]
    fn a_turn_is_near_from_three_blocks_before_the_first_slot_to_the_end_of_the_last() {
        // Tempo 30: epoch 1 is the blocks 29 to 59; the slots of two holders are its first four.
        const EPOCHS: EpochClock = EpochClock::Modulo { netuid: Netuid(1), tempo: 30 };
        let near = |head: &u64| {
            let mut view = view(*head, 0);
            Arc::make_mut(&mut view.metagraph).epochs = EPOCHS;
            let holders: Vec<_> = (1..=2).map(|i| (Hotkey([i; 32]), 1)).collect();
            view.slots = Some(Arc::new(slots(Hash32([1; 32]), &holders, Netuid(1), EPOCHS, view.epoch())));
            turn_is_near(&view)
        };
        assert_eq!((29..=61).filter(near).collect::<Vec<_>>(), (29..=33).chain(57..=61).collect::<Vec<_>>());
        assert!(!turn_is_near(&view(4, 0)), "nobody has a turn");
        let stored = ChainView { source: Source::Store { age: Duration::from_secs(60) }, ..view(4, 3) };
        assert!(!turn_is_near(&stored));
    }

    #[test]
    fn a_view_of_an_earlier_run_makes_nobody_a_turn() {
        let stored = ChainView { source: Source::Store { age: Duration::from_secs(60) }, ..view(4, 0) };
        let caller = Hotkey([1; 32]);
        for epoch in 0..4 {
            let again = Err(ChallengeReply::Busy { until_ms: 5 * BLOCK });
            assert_eq!(may_challenge(Some(&stored), &caller, epoch), again);
        }
    }
}
