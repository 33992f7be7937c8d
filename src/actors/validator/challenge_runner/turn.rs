//! Which epoch's round is due, and whether it is this validator's turn. Pure: a view of the chain goes in.
//!
//! An epoch that begins, or whose slot has not passed, while this node looks on is *owed*: it ends with verdicts, if only
//! with unknown ones. What passed while nobody looked is an outage and is never judged afterwards.

use std::ops::Range;

use crate::chain::STATEFUL_EPOCHS;
use crate::ids::{BlockNumber, Epoch, Hotkey};
use crate::messages::chain_watcher::ChainView;

/// Most epochs that are settled as void one by one after the chain could not be read for long; older ones are an outage.
const MAX_BEHIND: u64 = 64;

/// Where the head is, seen from this validator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Its slot is still to come, or nobody's turn is known because the epoch's beacon could not be read.
    Wait,
    /// In its slot, these blocks.
    Now(Range<BlockNumber>),
    /// Its slot of this epoch has passed.
    Over,
    /// It has no slot in this epoch.
    NoSlot,
}

impl Turn {
    /// The label of the metric.
    pub fn label(&self) -> &'static str {
        match self {
            Turn::Wait => "wait",
            Turn::Now(_) => "now",
            Turn::Over => "over",
            Turn::NoSlot => "none",
        }
    }
    /// Every label.
    pub const LABELS: &'static [&'static str] = &["wait", "now", "over", "none"];
}

/// Whose turn it is. Where nobody holds a permit there are no turns: the whole epoch is everybody's.
///
/// While the chain is away a turn is where the [reckoned](ChainView::reckoned) head is in the slot. Only a block that was read
/// says that it is over: what was reckoned may be wrong by a few, and nothing is missed for that.
pub fn turn(view: &ChainView, own: &Hotkey) -> Turn {
    let Some(table) = &view.slots else { return Turn::Wait };
    let slot = if table.is_empty() { Some(table.epoch_start()..table.epoch_end()) } else { table.slot_of(own) };
    turn_in(view, slot, view.reckoned())
}

/// Where the head, or the block that the chain should have come to, is to a slot.
pub fn turn_in(view: &ChainView, slot: Option<Range<BlockNumber>>, at: BlockNumber) -> Turn {
    match slot {
        None => Turn::NoSlot,
        Some(slot) if view.metagraph.head.number >= slot.end => Turn::Over,
        Some(slot) if slot.contains(&at) => Turn::Now(slot),
        Some(_) => Turn::Wait,
    }
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Nothing now.
    Nothing,
    /// The round of this epoch, within these blocks.
    Round(Epoch, Range<BlockNumber>),
    /// The slot of this epoch passed without a round.
    Missed(Epoch),
}

/// Which epochs are owed a judgement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Epochs {
    /// The next epoch to be judged; `None` before the first look.
    next: Option<Epoch>,
    /// The last epoch that closed, by a judgement or as void.
    last: Option<Epoch>,
    /// An epoch in which we have no slot.
    slotless: Option<Epoch>,
    /// The epoch of the last look.
    seen: Option<Epoch>,
}

impl Epochs {
    /// The books after `last` was the last epoch that closed.
    pub fn after(last: Option<Epoch>) -> Self {
        Epochs { next: None, last, slotless: None, seen: None }
    }

    /// The last epoch that closed.
    pub fn last(&self) -> Option<Epoch> {
        self.last
    }

    /// An epoch was judged, or is void.
    pub fn close(&mut self, epoch: Epoch) {
        self.last = self.last.max(Some(epoch));
    }

    /// Looks at the chain: what is due, and the epochs that passed without us since the last one that closed, which can only
    /// be known at the first look after a start (or after very long without a chain).
    ///
    /// When a chain is upgraded to stateful epochs the numbers jump. What was owed by the old count is settled; the numbers
    /// between the last epoch seen of it and the first of the new count stand for no epoch. They are told as passed without
    /// us, which stops the clocks that count in epochs, so that a proof is no older after the jump than before.
    pub fn look(&mut self, view: &ChainView, turn: &Turn) -> (Due, Option<Range<Epoch>>) {
        let epoch = view.epoch();
        let seen = self.seen.replace(epoch);
        if let (Some(seen), Some(next)) = (seen, self.next)
            && seen < STATEFUL_EPOCHS
            && STATEFUL_EPOCHS <= epoch
        {
            self.seen = Some(seen);
            let owed = next.max(self.last.map_or(0, |last| last.saturating_add(1)));
            if let Some(owed) = (owed..=seen).find(|owed| self.slotless != Some(*owed)) {
                self.next = Some(owed);
                return (Due::Missed(owed), None);
            }
            (self.seen, self.next) = (Some(epoch), Some(epoch));
            return (self.due(epoch, epoch, turn), self.last.map(|last| last + 1..epoch));
        }
        let mut outage = None;
        let after_last = self.last.map_or(0, |last| last.saturating_add(1));
        let next = match self.next {
            Some(next) => next.max(after_last).max(epoch.saturating_sub(MAX_BEHIND)),
            None if matches!(turn, Turn::Over | Turn::NoSlot) => epoch.saturating_add(1).max(after_last),
            None => epoch.max(after_last),
        };
        let from = self.next.map_or(after_last, |next| next.max(after_last));
        if self.last.is_some() && from < next {
            outage = Some(from..next);
        }
        self.next = Some(next);
        (self.due(epoch, next, turn), outage)
    }

    fn due(&mut self, epoch: Epoch, next: Epoch, turn: &Turn) -> Due {
        if next > epoch {
            return Due::Nothing;
        }
        if next < epoch {
            if self.slotless == Some(next) {
                self.next = Some(next + 1);
                return self.due(epoch, next + 1, turn);
            }
            return Due::Missed(next);
        }
        match turn {
            Turn::Wait => Due::Nothing,
            Turn::Now(slot) => Due::Round(epoch, slot.clone()),
            Turn::Over => Due::Missed(epoch),
            Turn::NoSlot => {
                self.slotless = Some(epoch);
                Due::Nothing
            }
        }
    }
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

    const EPOCHS: EpochClock = EpochClock::Modulo { netuid: Netuid(1), tempo: 5 };
    const OWN: Hotkey = Hotkey([1; 32]);
    const OTHER: Hotkey = Hotkey([2; 32]);

    /// Subnet 1, tempo 5: epoch 1 is the blocks 4 to 9.
    fn view(head: u64, holders: Option<&[Hotkey]>) -> ChainView {
        let head = BlockHead { number: head, hash: Hash32([0; 32]), timestamp_ms: 0 };
        let metagraph = Metagraph { netuid: Netuid(1), head, epochs: EPOCHS, neurons: Vec::new() };
        let table = holders.map(|holders| {
            let holders: Vec<_> = holders.iter().map(|h| (*h, 1)).collect();
            Arc::new(slots(Hash32([1; 32]), &holders, Netuid(1), EPOCHS, metagraph.epoch()))
        });
        let rules = Arc::new(GenesisConfig::new(Netuid(1)).hyperparameters);
        ChainView { slots: table, ..ChainView::new(Arc::new(metagraph), rules, 0) }
    }

    /// The same subnet after the chain's upgrade, in its n-th epoch of the new form, which began in block `first`.
    fn upgraded(head: u64, first: u64, n: u64, holders: &[Hotkey]) -> ChainView {
        let state = EpochState {
            tempo: 6,
            last_epoch_block: first,
            pending_epoch_at: 0,
            subnet_epoch_index: n,
            blocks_since_last_step: head - first,
        };
        let mut view = view(head, None);
        let epochs = EpochClock::Stateful { state, at: head };
        Arc::make_mut(&mut view.metagraph).epochs = epochs;
        let holders: Vec<_> = holders.iter().map(|h| (*h, 1)).collect();
        view.slots = Some(Arc::new(slots(Hash32([1; 32]), &holders, Netuid(1), epochs, view.epoch())));
        view
    }

    fn look(epochs: &mut Epochs, view: &ChainView) -> (Due, Option<Range<Epoch>>) {
        epochs.look(view, &turn(view, &OWN))
    }

    /// The first block of our slot, of two, in an epoch.
    fn slot(epoch: u64) -> Range<u64> {
        view(epoch * 6 - 2, Some(&[OWN, OTHER])).slots.unwrap().slot_of(&OWN).unwrap()
    }

    #[test]
    fn a_turn_is_ones_own_slot_and_everybodys_where_nobody_holds_a_permit() {
        let of_two = slot(1);
        for head in 4..10 {
            let expected = match head {
                _ if of_two.contains(&head) => Turn::Now(of_two.clone()),
                _ if head < of_two.start => Turn::Wait,
                _ => Turn::Over,
            };
            assert_eq!(turn(&view(head, Some(&[OWN, OTHER])), &OWN), expected, "{head}");
            assert_eq!(turn(&view(head, Some(&[OWN])), &OWN), Turn::Now(4..10));
            assert_eq!(turn(&view(head, Some(&[])), &OWN), Turn::Now(4..10));
            assert_eq!(turn(&view(head, Some(&[OTHER])), &OWN), Turn::NoSlot);
            assert_eq!(turn(&view(head, None), &OWN), Turn::Wait, "without a beacon nobody challenges");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_blocks_a_turn_that_is_known_begins_by_the_clock_and_is_never_missed_by_it() {
        let order = view(4, Some(&[OWN, OTHER])).slots.unwrap().holders().to_vec();
        // Slots of three blocks: 4 to 6, 7 to 9.
        let at = |block_time| ChainView { block_time, ..view(4, Some(&[OWN, OTHER])) };
        let (seen, untimed) = (at(Some(Duration::from_secs(12))), at(None));
        let stored = ChainView { source: Source::Store { age: Duration::ZERO }, ..seen.clone() };
        for second in 0..200u64 {
            let silent = if second < 24 { 0 } else { second / 12 };
            assert_eq!(seen.reckoned(), 4 + silent, "{second}");
            let of_second = if (7..10).contains(&(4 + silent)) { Turn::Now(7..10) } else { Turn::Wait };
            assert_eq!(turn(&seen, &order[1]), of_second, "{second}");
            let of_first = if 4 + silent < 7 { Turn::Now(4..7) } else { Turn::Wait };
            assert_eq!(turn(&seen, &order[0]), of_first, "{second}");
            assert_eq!((turn(&untimed, &order[1]), turn(&stored, &order[1])), (Turn::Wait, Turn::Wait));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
    }

    #[test]
    fn an_epoch_is_due_in_its_slot_once() {
        let mut epochs = Epochs::after(None);
        for epoch in 1..20u64 {
            let slot = slot(epoch);
            for head in epoch * 6 - 2..epoch * 6 + 4 {
                let (due, outage) = look(&mut epochs, &view(head, Some(&[OWN, OTHER])));
                assert_eq!(outage, None);
                if head == slot.start {
                    assert_eq!(due, Due::Round(epoch, slot.clone()));
                    epochs.close(epoch);
                } else {
                    assert_eq!(due, Due::Nothing, "epoch {epoch} block {head}");
                }
            }
        }
    }

    #[test]
    fn a_slot_that_passes_while_we_look_on_is_missed_and_one_that_passed_before_is_not_ours() {
        let alone: Option<&[Hotkey]> = Some(&[OWN]);
        let mut epochs = Epochs::after(None);
        assert_eq!(look(&mut epochs, &view(4, alone)).0, Due::Round(1, 4..10));
        // Nothing came of it, and then the chain jumped: three epochs passed while this node was up.
        for epoch in 1..4 {
            assert_eq!(look(&mut epochs, &view(23, alone)), (Due::Missed(epoch), None));
            epochs.close(epoch);
        }
        assert_eq!(look(&mut epochs, &view(23, alone)).0, Due::Round(4, 22..28));
    }

    #[test]
    fn after_a_start_what_passed_is_an_outage_up_to_the_epoch_that_can_still_be_judged() {
        let alone: Option<&[Hotkey]> = Some(&[OWN]);
        let mut epochs = Epochs::after(Some(3));
        // Epoch 8 is the blocks 46 to 51.
        assert_eq!(look(&mut epochs, &view(47, alone)), (Due::Round(8, 46..52), Some(4..8)));
        assert_eq!(look(&mut epochs, &view(48, alone)), (Due::Round(8, 46..52), None), "told once");
        // An epoch of two in which ours is the first slot, and the head is past it.
        let early = (8..40).find(|epoch| slot(*epoch).end < epoch * 6 + 4).unwrap();
        let passed = view(slot(early).end, Some(&[OWN, OTHER]));
        assert_eq!(turn(&passed, &OWN), Turn::Over);
        assert_eq!(look(&mut Epochs::after(Some(3)), &passed), (Due::Nothing, Some(4..early + 1)));
        assert_eq!(look(&mut Epochs::after(Some(7)), &view(47, alone)), (Due::Round(8, 46..52), None));
        assert_eq!(look(&mut Epochs::after(None), &view(47, alone)), (Due::Round(8, 46..52), None), "a new node");
    }

    #[test]
    fn an_epoch_without_a_slot_is_not_owed() {
        let mut epochs = Epochs::after(None);
        assert_eq!(look(&mut epochs, &view(4, Some(&[OTHER]))).0, Due::Nothing);
        assert_eq!(look(&mut epochs, &view(10, Some(&[OTHER]))).0, Due::Nothing);
        assert_eq!(look(&mut epochs, &view(16, Some(&[OWN]))).0, Due::Round(3, 16..22));
    }

    #[test]
    fn an_epoch_whose_beacon_was_never_read_is_missed() {
        let mut epochs = Epochs::after(None);
        assert_eq!(look(&mut epochs, &view(5, None)).0, Due::Nothing);
        assert_eq!(look(&mut epochs, &view(10, Some(&[OWN]))).0, Due::Missed(1));
    }

    #[test]
    fn an_upgrade_to_stateful_epochs_owes_what_was_owed_before_and_nothing_for_the_numbers_that_it_skips() {
        let alone: Option<&[Hotkey]> = Some(&[OWN]);
        let first = STATEFUL_EPOCHS + 3;
        // Epoch 2 is judged, and epoch 3 (blocks 16 to 21) was seen but not judged when the count changed.
        let mut epochs = Epochs::after(Some(1));
        assert_eq!(look(&mut epochs, &view(10, alone)).0, Due::Round(2, 10..16));
        epochs.close(2);
        assert_eq!(look(&mut epochs, &view(16, alone)).0, Due::Round(3, 16..22));
        for _ in 0..2 {
            assert_eq!(look(&mut epochs, &upgraded(19, 18, 3, &[OWN])), (Due::Missed(3), None), "until it is closed");
        }
        epochs.close(3);
        let due = Due::Round(first, 18..24);
        assert_eq!(look(&mut epochs, &upgraded(19, 18, 3, &[OWN])), (due.clone(), Some(4..first)), "bridged");
        assert_eq!(look(&mut epochs, &upgraded(20, 18, 3, &[OWN])), (due, None), "told once");
        epochs.close(first);
        assert_eq!(look(&mut epochs, &upgraded(24, 24, 4, &[OWN])), (Due::Round(first + 1, 24..30), None));

        // Where the last one was closed, or not ours, nothing is owed.
        let mut epochs = Epochs::after(None);
        assert_eq!(look(&mut epochs, &view(4, Some(&[OTHER]))).0, Due::Nothing);
        let (due, bridged) = look(&mut epochs, &upgraded(19, 18, 3, &[OWN]));
        assert_eq!((due, bridged), (Due::Round(first, 18..24), None));
        // And a validator that was away meanwhile has been out.
        let mut epochs = Epochs::after(Some(2));
        let back = look(&mut epochs, &upgraded(19, 18, 3, &[OWN]));
        assert_eq!(back, (Due::Round(first, 18..24), Some(3..first)));
    }

    #[test]
    fn after_a_very_long_time_without_a_chain_the_oldest_epochs_are_an_outage() {
        let mut epochs = Epochs::after(Some(1));
        assert_eq!(look(&mut epochs, &view(10, Some(&[OWN]))).0, Due::Round(2, 10..16));
        let (due, outage) = look(&mut epochs, &view(6 * 200, Some(&[OWN])));
        assert_eq!((due, outage), (Due::Missed(136), Some(2..136)));
    }
}
