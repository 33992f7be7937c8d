//! Whether the round of memory proofs is due. Pure: a view of the chain goes in.

use std::ops::Range;

use crate::actors::validator::challenge_runner::turn::{Turn, turn_in};
use crate::ids::{BlockNumber, Epoch, Hotkey};
use crate::messages::chain_watcher::ChainView;

/// The memory slot of this epoch, if it is this validator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its blocks.
    pub blocks: Range<BlockNumber>,
    /// Work is proved in the same blocks, before.
    pub shared: bool,
}

/// This validator's memory slot; where nobody holds a permit the whole epoch is everybody's. `None` also while the epoch's
/// beacon could not be read.
pub fn slot(view: &ChainView, own: &Hotkey) -> Option<Slot> {
    let table = view.slots.as_deref()?;
    if table.is_empty() {
        return Some(Slot { blocks: table.epoch_start()..table.epoch_end(), shared: true });
    }
    let slot = table.memory_slot().filter(|slot| slot.owner == *own)?;
    Some(Slot { blocks: slot.blocks, shared: slot.shared })
}

/// Where the head is to the slot. Only blocks that were read count: while the chain is away, no round of memory begins.
pub fn turn(view: &ChainView, slot: Option<&Slot>) -> Turn {
    if view.slots.is_none() {
        return Turn::Wait;
    }
    turn_in(view, slot.map(|slot| slot.blocks.clone()), view.metagraph.head.number)
}

/// Whether the round of this epoch is to begin now. `last`: the newest epoch that has one, whatever became of it. `worked`:
/// the newest epoch of which the proofs of work are judged.
pub fn is_due(view: &ChainView, slot: &Slot, last: Option<Epoch>, worked: Option<Epoch>) -> bool {
    let epoch = view.epoch();
    let is_now = matches!(turn(view, Some(slot)), Turn::Now(_));
    is_now && last < Some(epoch) && (!slot.shared || worked >= Some(epoch))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chain::ledger::GenesisConfig;
    use crate::chain::slots::slots;
    use crate::chain::{BlockHead, EpochClock, Metagraph};
    use crate::ids::{Hash32, Netuid};

    /// Subnet 1: with a tempo of 5 epoch 1 is the blocks 4 to 9, with 359 the blocks 358 to 717.
    fn view(tempo: u16, head: u64, holders: u8) -> ChainView {
        let epochs = EpochClock::Modulo { netuid: Netuid(1), tempo };
        let head = BlockHead { number: head, hash: Hash32([0; 32]), timestamp_ms: 0 };
        let metagraph = Metagraph { netuid: Netuid(1), head, epochs, neurons: Vec::new() };
        let holders: Vec<_> = (1..=holders).map(|i| (Hotkey([i; 32]), 1)).collect();
        let table = slots(Hash32([1; 32]), &holders, Netuid(1), epochs, metagraph.epoch());
        let rules = Arc::new(GenesisConfig::new(Netuid(1)).hyperparameters);
        ChainView { slots: Some(Arc::new(table)), ..ChainView::new(Arc::new(metagraph), rules, 0) }
    }

    fn due(tempo: u16, heads: Range<u64>, own: &Hotkey, last: Option<u64>, worked: Option<u64>) -> Vec<u64> {
        let is_due = |head: &u64| {
            let view = view(tempo, *head, 3);
            slot(&view, own).is_some_and(|slot| is_due(&view, &slot, last, worked))
        };
        heads.filter(is_due).collect()
    }

    #[test]
    fn in_a_slot_of_its_own_the_round_is_due_once_and_waits_for_no_work() {
        let table = view(359, 400, 3).slots.unwrap();
        let (first, owner) = (table.epoch_start(), table.memory_slot().unwrap().owner);
        let epoch = first..first + 360;
        assert_eq!(due(359, epoch.clone(), &owner, None, None), (first + 24..first + 28).collect::<Vec<_>>());
        assert_eq!(due(359, epoch.clone(), &owner, Some(table.epoch), None), Vec::<u64>::new());
        for other in (1..=3).map(|i| Hotkey([i; 32])).filter(|other| *other != owner) {
            assert_eq!(due(359, epoch.clone(), &other, None, None), Vec::<u64>::new());
            let view = view(359, first + 25, 3);
            assert_eq!(turn(&view, slot(&view, &other).as_ref()), Turn::NoSlot);
        }
    }

    #[test]
    fn in_an_epoch_too_short_for_that_it_is_due_in_the_owners_slot_when_its_work_is_judged() {
        let slot = view(5, 4, 3).slots.unwrap().memory_slot().unwrap();
        let blocks: Vec<u64> = slot.blocks.clone().collect();
        assert_eq!(due(5, 4..10, &slot.owner, Some(0), Some(0)), Vec::<u64>::new());
        assert_eq!(due(5, 4..10, &slot.owner, Some(0), Some(1)), blocks);
    }

    #[test]
    fn without_permits_everybody_asks_and_without_a_beacon_nobody() {
        let free = view(5, 5, 0);
        let all = slot(&free, &Hotkey([9; 32])).unwrap();
        assert_eq!(all, Slot { blocks: 4..10, shared: true });
        assert!(is_due(&free, &all, None, Some(1)));
        let unknown = ChainView { slots: None, ..view(5, 5, 1) };
        assert_eq!((slot(&unknown, &Hotkey([1; 32])), turn(&unknown, None)), (None, Turn::Wait));
    }
}
