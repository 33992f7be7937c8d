//! Which epoch a block belongs to and where epochs begin, whichever way the chain counts them.
//!
//! In the stateful form only the present epoch is certain: it has the chain's own number and began in `LastEpochBlock`.
//! From there the clock is affine: the next epoch begins when it is due by the state (earlier if the owner asked for it),
//! later ones every `tempo` blocks, and earlier ones are taken to have been as long. When the schedule moves, the next
//! state read from the chain says so, and a clock made of that.

use serde::{Deserialize, Serialize};

use super::{EpochState, epoch_of, first_reveal_block, first_reveal_block_modulo, next_epoch_block};
use crate::ids::{BlockNumber, Epoch, Netuid};

/// What a stateful chain's own index is numbered above; see the module's text.
pub const STATEFUL_EPOCHS: Epoch = 1 << 32;
/// Most blocks for which a state is carried forward to a later head.
const MAX_AHEAD: u64 = 1 << 16;

/// A subnet's epochs, as of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "form", rename_all = "snake_case")]
pub enum EpochClock {
    /// By the block's number alone.
    Modulo {
        /// The subnet, which shifts the start.
        netuid: Netuid,
        /// The length of an epoch less one, in blocks.
        tempo: u16,
    },
    /// By what the chain keeps of them.
    Stateful {
        /// What it keeps.
        state: EpochState,
        /// The block that this is the state of.
        at: BlockNumber,
    },
}

/// A place on the line of blocks as a block's number.
fn block_at(place: i128) -> BlockNumber {
    BlockNumber::try_from(place.max(0)).unwrap_or(BlockNumber::MAX)
}

impl EpochClock {
    /// The blocks of an ordinary epoch, at least 1: `tempo + 1` in the modulo form, `tempo` in the stateful one. One that is
    /// asked for early is shorter.
    pub fn length(&self) -> u64 {
        match self {
            EpochClock::Modulo { tempo, .. } => u64::from(*tempo) + 1,
            EpochClock::Stateful { state, .. } => u64::from(state.tempo).max(1),
        }
    }

    /// The epoch that `block` belongs to; a forecast for blocks to come of the stateful form. Saturates at 0.
    pub fn epoch_of(&self, block: BlockNumber) -> Epoch {
        match self {
            EpochClock::Modulo { netuid, tempo } => epoch_of(block, *netuid, *tempo),
            EpochClock::Stateful { .. } => {
                let (present, first, next) = self.present();
                let (block, length) = (i128::from(block), i128::from(self.length()));
                let epochs = |blocks: i128| Epoch::try_from(blocks / length).unwrap_or(Epoch::MAX);
                if block >= next {
                    present.saturating_add(1).saturating_add(epochs(block - next))
                } else if block >= first {
                    present
                } else {
                    present.saturating_sub(epochs(first - block + length - 1))
                }
            }
        }
    }

    /// The first block of an epoch, 0 for one that began before the chain: the least block that
    /// [`epoch_of`](EpochClock::epoch_of) puts into it. Saturates at the last block number.
    pub fn first_block(&self, epoch: Epoch) -> BlockNumber {
        block_at(self.start(epoch))
    }

    /// The first block **after** `block` that begins an epoch. Saturates at the last block number.
    pub fn next_epoch_block(&self, block: BlockNumber) -> BlockNumber {
        match self {
            EpochClock::Modulo { netuid, tempo } => next_epoch_block(block, *netuid, *tempo),
            EpochClock::Stateful { .. } => self.first_block(self.epoch_of(block).saturating_add(1)).max(block),
        }
    }

    /// The block whose hash is the epoch's beacon: the one before its first, or block 0.
    pub fn beacon_block(&self, epoch: Epoch) -> BlockNumber {
        self.first_block(epoch).saturating_sub(1)
    }

    /// The first block whose reveals open a commitment sent at `head`, see [`first_reveal_block`]. In the stateful form
    /// `head` is the block of the state, or one a few after it.
    pub fn first_reveal_block(&self, head: BlockNumber, reveal_period: u64) -> Option<BlockNumber> {
        match self {
            EpochClock::Modulo { netuid, tempo } => first_reveal_block_modulo(*netuid, *tempo, head, reveal_period),
            EpochClock::Stateful { state, at } => {
                let blocks = at.checked_add(1)?..=head;
                if head < *at || head - at > MAX_AHEAD {
                    return None;
                }
                let mut state = *state;
                blocks.for_each(|block| state.advance(block));
                first_reveal_block(&state, head, reveal_period)
            }
        }
    }

    /// Where the epoch starts; below 0 for one that began before the chain.
    pub(in crate::chain) fn start(&self, epoch: Epoch) -> i128 {
        match self {
            EpochClock::Modulo { netuid, tempo } => {
                i128::from(epoch) * (i128::from(*tempo) + 1) - i128::from(netuid.0) - 1
            }
            EpochClock::Stateful { .. } => {
                let (present, first, next) = self.present();
                let ahead = i128::from(epoch) - i128::from(present);
                match ahead {
                    1.. => next + (ahead - 1) * i128::from(self.length()),
                    _ => first + ahead * i128::from(self.length()),
                }
            }
        }
    }

    /// The number of the stateful form's present epoch, its first block, and the next one's.
    fn present(&self) -> (Epoch, i128, i128) {
        let EpochClock::Stateful { state, at } = self else { return (0, 0, i128::from(BlockNumber::MAX) + 1) };
        let next = state.next_epoch_block(*at).map_or(i128::from(BlockNumber::MAX) + 1, i128::from);
        // No epoch can have run after the block that this is the state of.
        let first = i128::from(state.last_epoch_block.min(*at));
        (STATEFUL_EPOCHS.saturating_add(state.subnet_epoch_index), first, next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATE: EpochState = EpochState {
        tempo: 360,
        last_epoch_block: 1_000,
        pending_epoch_at: 0,
        subnet_epoch_index: 7,
        blocks_since_last_step: 200,
    };
    const NOW: Epoch = STATEFUL_EPOCHS + 7;

    fn at(state: EpochState, at: BlockNumber) -> EpochClock {
        EpochClock::Stateful { state, at }
    }

    #[test]
    fn the_present_epoch_began_with_the_last_one_that_ran_and_the_next_is_due_by_the_tempo() {
        let clock = at(STATE, 1_200);
        assert_eq!(
            [999, 1_000, 1_359, 1_360, 1_719, 1_720].map(|b| clock.epoch_of(b)),
            [-1, 0, 0, 1, 1, 2].map(|d| NOW.checked_add_signed(d).unwrap())
        );
        assert_eq!([NOW - 1, NOW, NOW + 1, NOW + 2].map(|e| clock.first_block(e)), [640, 1_000, 1_360, 1_720]);
        assert_eq!((clock.next_epoch_block(1_200), clock.next_epoch_block(1_360)), (1_360, 1_720));
        assert_eq!((clock.beacon_block(NOW), clock.length()), (999, 360));
    }

    #[test]
    fn an_epoch_that_is_asked_for_begins_early_and_the_later_ones_with_it() {
        let clock = at(EpochState { pending_epoch_at: 1_250, ..STATE }, 1_200);
        assert_eq!([NOW, NOW + 1, NOW + 2].map(|e| clock.first_block(e)), [1_000, 1_250, 1_610]);
        assert_eq!((clock.epoch_of(1_249), clock.epoch_of(1_250)), (NOW, NOW + 1));
    }

    #[test]
    fn an_epoch_that_slips_stays_the_present_one_until_the_chain_runs_it() {
        // Due in 1,360; two other subnets were first, and the chain put ours off by a block.
        let slipped = at(EpochState { pending_epoch_at: 1_361, ..STATE }, 1_360);
        assert_eq!((slipped.epoch_of(1_360), slipped.epoch_of(1_361)), (NOW, NOW + 1));
        // Whatever a chain keeps, what it calls the present epoch is that.
        let overdue = at(STATE, 2_000);
        assert_eq!((overdue.epoch_of(2_000), overdue.next_epoch_block(2_000)), (NOW, 2_001));
        let ran = EpochState { last_epoch_block: 1_361, subnet_epoch_index: 8, blocks_since_last_step: 0, ..STATE };
        assert_eq!((at(ran, 1_361).epoch_of(1_361), at(ran, 1_361).first_block(NOW + 1)), (NOW + 1, 1_361));
    }

    #[test]
    fn a_chain_that_is_upgraded_goes_on_with_a_higher_number() {
        let (netuid, tempo, head) = (Netuid(27), 360, 6_000_000);
        let before = EpochClock::Modulo { netuid, tempo };
        // The count of the stateful form begins at 0, far below the 16,620 that were counted before.
        let first = EpochState {
            tempo,
            last_epoch_block: head,
            pending_epoch_at: 0,
            subnet_epoch_index: 0,
            blocks_since_last_step: 0,
        };
        let after = at(first, head + 1);
        assert_eq!(before.epoch_of(head), 16_620);
        assert!(after.epoch_of(head + 1) > before.epoch_of(head));
        // Every node that is upgraded sees the same numbers, and no gap between them.
        let numbers: Vec<Epoch> = (0..4).map(|e| after.epoch_of(head + e * 360)).collect();
        assert_eq!(numbers, [STATEFUL_EPOCHS, STATEFUL_EPOCHS + 1, STATEFUL_EPOCHS + 2, STATEFUL_EPOCHS + 3]);
    }

    #[test]
    fn a_subnet_without_epochs_stays_in_the_one_it_is_in() {
        let clock = at(EpochState { tempo: 0, ..STATE }, 1_200);
        assert_eq!(
            (clock.epoch_of(1_200), clock.epoch_of(u64::MAX), clock.next_epoch_block(1_200)),
            (NOW, NOW, u64::MAX)
        );
        assert_eq!(clock.first_reveal_block(1_200, 1), None);
    }

    #[test]
    fn a_commitment_of_either_form_is_revealed_where_its_own_arithmetic_says() {
        let clock = at(STATE, 1_200);
        assert_eq!(clock.first_reveal_block(1_200, 1), Some(1_360));
        assert_eq!(clock.first_reveal_block(1_359, 1), Some(1_720), "carried on to the head that is asked about");
        assert_eq!((clock.first_reveal_block(1_199, 1), clock.first_reveal_block(1 << 40, 1)), (None, None));
        let modulo = EpochClock::Modulo { netuid: Netuid(27), tempo: 360 };
        assert_eq!(modulo.first_reveal_block(6_000_000, 1), Some(6_000_153));
    }

    #[test]
    fn both_forms_are_read_back_from_what_they_are_written_as() {
        for clock in [at(STATE, 1_200), EpochClock::Modulo { netuid: Netuid(27), tempo: 360 }] {
            let text = serde_json::to_string(&clock).unwrap();
            assert_eq!(serde_json::from_str::<EpochClock>(&text).unwrap(), clock, "{text}");
        }
    }

    fn any_clock() -> impl Strategy<Value = (EpochClock, BlockNumber)> {
        let modulo = (any::<u16>(), 1u16.., 0u64..1 << 40)
            .prop_map(|(netuid, tempo, head)| (EpochClock::Modulo { netuid: Netuid(netuid), tempo }, head));
        let stateful = (1u16..=50_400, 0u64..60_000, 0u64..120_000, 0u64..1 << 20, 0u64..60_000, 60_000u64..1 << 40)
            .prop_map(|(tempo, since, pending, subnet_epoch_index, blocks_since_last_step, head)| {
                let pending_epoch_at = if pending % 2 == 0 { 0 } else { head - 60_000 + pending };
                let last_epoch_block = head - since;
                let state = EpochState {
                    tempo,
                    last_epoch_block,
                    pending_epoch_at,
                    subnet_epoch_index,
                    blocks_since_last_step,
                };
                (EpochClock::Stateful { state, at: head }, head)
            });
        prop_oneof![modulo, stateful]
    }

    proptest! {
        #[test]
        fn epochs_follow_each_other_without_a_gap((clock, head) in any_clock(), from in -200_000i64..200_000) {
            let block = head.saturating_add_signed(from);
            let epoch = clock.epoch_of(block);
            let (first, next) = (clock.first_block(epoch), clock.next_epoch_block(block));
            prop_assert!(first <= block && block < next);
            prop_assert_eq!(next, clock.first_block(epoch + 1));
            prop_assert_eq!(clock.epoch_of(first), epoch);
            prop_assert_eq!(clock.epoch_of(next - 1), epoch);
            prop_assert_eq!(clock.epoch_of(next), epoch + 1);
        }

        #[test]
        fn the_present_epoch_has_the_chains_own_number((clock, head) in any_clock()) {
            if let EpochClock::Stateful { state, .. } = clock {
                prop_assert_eq!(clock.epoch_of(head), STATEFUL_EPOCHS + state.subnet_epoch_index);
                prop_assert_eq!(clock.first_block(clock.epoch_of(head)), state.last_epoch_block);
            }
        }

        #[test]
        fn the_forecast_of_the_next_epoch_is_what_the_chain_does((clock, head) in any_clock()) {
            if let EpochClock::Stateful { mut state, at } = clock {
                let next = clock.next_epoch_block(head);
                (at + 1..=next).for_each(|block| state.advance(block));
                prop_assert_eq!(state.last_epoch_block, next);
                let then = EpochClock::Stateful { state, at: next };
                prop_assert_eq!(then.epoch_of(next), clock.epoch_of(next));
                prop_assert_eq!(then.next_epoch_block(next), clock.next_epoch_block(next));
            }
        }

        #[test]
        fn no_number_is_too_large(
            tempo: u16, last_epoch_block: u64, pending_epoch_at: u64, subnet_epoch_index: u64,
            blocks_since_last_step: u64, at: u64, block: u64, epoch: u64,
        ) {
            let state =
                EpochState { tempo, last_epoch_block, pending_epoch_at, subnet_epoch_index, blocks_since_last_step };
            let clock = EpochClock::Stateful { state, at };
            let _ = (clock.epoch_of(block), clock.first_block(epoch), clock.beacon_block(epoch));
            prop_assert!(clock.next_epoch_block(block) >= block);
        }
    }
}
