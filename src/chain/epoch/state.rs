//! What a stateful chain keeps of a subnet's epochs, its rule when one runs, and when a commitment is revealed.
//!
//! Source: the rule of subtensor's `run_coinbase` from spec 425 on. Not told by the state of one subnet, and so not
//! foreseen here: at most two subnets run an epoch in one block (`MaxEpochsPerBlock`), the others are put off to the next.

use serde::{Deserialize, Serialize};

use super::{EpochClock, epoch_of};
use crate::ids::{BlockNumber, Netuid};

/// The longest tempo that a subnet's owner may set, in blocks; after more blocks without a step an epoch runs in any case.
pub const MAX_TEMPO: u64 = 50_400;
/// The longest reveal period that the chain allows, in epochs.
const MAX_REVEAL_PERIOD: u64 = 100;

/// A subnet's epochs as of the end of one block, by the names of the chain's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochState {
    /// Blocks from one epoch to the next (`Tempo`); with 0 none ever runs.
    pub tempo: u16,
    /// The block in which the last epoch ran (`LastEpochBlock`).
    pub last_epoch_block: BlockNumber,
    /// The block at which one is to run although it is not due yet (`PendingEpochAt`); 0 for none.
    pub pending_epoch_at: BlockNumber,
    /// How many epochs have run (`SubnetEpochIndex`).
    pub subnet_epoch_index: u64,
    /// Blocks since an epoch paid out (`BlocksSinceLastStep`).
    pub blocks_since_last_step: u64,
}

impl EpochState {
    /// Whether an epoch is due in `block`, by this state.
    pub fn runs_at(&self, block: BlockNumber) -> bool {
        self.tempo > 0
            && ((1..=block).contains(&self.pending_epoch_at)
                || self.blocks_since_last_step > MAX_TEMPO
                || block.saturating_sub(self.last_epoch_block) >= u64::from(self.tempo))
    }

    /// The epoch's index as commitments and reveals of `block` see it, if this is the state before it: one that is due in
    /// the block counts already.
    pub fn index_in(&self, block: BlockNumber) -> u64 {
        self.subnet_epoch_index.saturating_add(u64::from(self.runs_at(block)))
    }

    /// Makes the state before `block` the one after it.
    pub fn advance(&mut self, block: BlockNumber) {
        self.blocks_since_last_step = self.blocks_since_last_step.saturating_add(1);
        if self.runs_at(block) {
            self.last_epoch_block = block;
            self.pending_epoch_at = 0;
            self.subnet_epoch_index = self.subnet_epoch_index.saturating_add(1);
            self.blocks_since_last_step = 0;
        }
    }

    /// The first block after `head` in which an epoch is due, if this is the state as of `head`; `None` with a tempo of 0,
    /// and beyond the last block number.
    pub fn next_epoch_block(&self, head: BlockNumber) -> Option<BlockNumber> {
        if self.tempo == 0 {
            return None;
        }
        let next = head.checked_add(1)?;
        let regular = self.last_epoch_block.checked_add(u64::from(self.tempo));
        let wanted = Some(self.pending_epoch_at).filter(|at| *at > 0);
        let overdue = head.checked_add((MAX_TEMPO + 1).saturating_sub(self.blocks_since_last_step));
        [regular, wanted, overdue].into_iter().flatten().min().map(|due| due.max(next))
    }
}

/// The first block whose reveals open a commitment that is sent now, on a chain of the stateful form: the timelocked
/// commitment's version 2. `state` is that of `head`; the commitment is taken to be in the next block, and belongs to the
/// epoch that is seen there; it opens once the epoch's index is higher by `reveal_period` (`RevealPeriodEpochs`, 1 to 100).
///
/// Simulated block by block. `None` if no epoch ever runs, or for a period beyond what the chain allows.
pub fn first_reveal_block(state: &EpochState, head: BlockNumber, reveal_period: u64) -> Option<BlockNumber> {
    if state.tempo == 0 || reveal_period > MAX_REVEAL_PERIOD {
        return None;
    }
    let (mut state, mut block) = (*state, head.checked_add(1)?);
    let opens = state.index_in(block).checked_add(reveal_period)?;
    for _ in 0..=(reveal_period + 1) * MAX_TEMPO {
        if state.index_in(block) == opens {
            return Some(block);
        }
        state.advance(block);
        block = block.checked_add(1)?;
    }
    None
}

/// [`first_reveal_block`] for a chain of the modulo form: the first block of the epoch that comes `reveal_period` epochs
/// after the one of the block `head + 1`.
pub fn first_reveal_block_modulo(
    netuid: Netuid,
    tempo: u16,
    head: BlockNumber,
    reveal_period: u64,
) -> Option<BlockNumber> {
    if tempo == 0 || reveal_period > MAX_REVEAL_PERIOD {
        return None;
    }
    let opens = epoch_of(head.checked_add(1)?, netuid, tempo).checked_add(reveal_period)?;
    Some(EpochClock::Modulo { netuid, tempo }.first_block(opens))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    /// One case of `reveal_round_v2`, as the reference implementation of timelocked commitments computed it.
    #[derive(Deserialize)]
    struct Case {
        last_epoch_block: u64,
        pending_epoch_at: u64,
        subnet_epoch_index: u64,
        tempo: u16,
        blocks_since_last_step: u64,
        current_block: u64,
        rp: u64,
        now_unix: f64,
        block_time: f64,
        reveal_round: u64,
        implied_blocks_until_ingest: f64,
    }

    #[derive(Deserialize)]
    struct Vectors {
        reveal_round_v2: Vec<Case>,
    }

    #[test]
    fn the_reveal_is_where_the_reference_implementation_expects_it() {
        let text = include_str!("../../../tests/vectors/chain/timelock_tle.json");
        let cases = serde_json::from_str::<Vectors>(text).unwrap().reveal_round_v2;
        assert_eq!(cases.len(), 5);
        let mut reveals = Vec::new();
        for case in cases {
            let state = EpochState {
                tempo: case.tempo,
                last_epoch_block: case.last_epoch_block,
                pending_epoch_at: case.pending_epoch_at,
                subnet_epoch_index: case.subnet_epoch_index,
                blocks_since_last_step: case.blocks_since_last_step,
            };
            let head = case.current_block;
            let reveal = first_reveal_block(&state, head, case.rp).unwrap();
            // A round is 3 s; what it implies is short of whole blocks by the part of a round that was cut off.
            let ahead = (reveal + 3 - head) as f64;
            assert!((0.0..0.25).contains(&(ahead - case.implied_blocks_until_ingest)), "{head}: {ahead}");
            // Drand's quicknet: the first round at 1,692,803,367, one every 3 s.
            let round = ((case.now_unix + ahead * case.block_time - 1_692_803_367.0) / 3.0).floor();
            assert_eq!(round as u64, case.reveal_round, "{head}");
            reveals.push((head, reveal));
        }
        assert_eq!(reveals, [(120, 460), (458, 460), (459, 820), (91, 95), (10, 110)]);
    }

    #[test]
    fn a_modulo_chain_reveals_at_the_first_block_of_the_epoch() {
        // Subnet 27, tempo 360: epoch 16,621 begins at 6,000,153, the one after it 361 blocks later.
        let reveal = |head, period| first_reveal_block_modulo(Netuid(27), 360, head, period);
        assert_eq!(reveal(6_000_000, 1), Some(6_000_153));
        assert_eq!(reveal(6_000_151, 1), Some(6_000_153));
        assert_eq!(reveal(6_000_152, 1), Some(6_000_514), "in the next block it is another epoch's commitment");
        assert_eq!(reveal(6_000_000, 2), Some(6_000_514));
        assert_eq!(first_reveal_block_modulo(Netuid(27), 0, 6_000_000, 1), None);
    }

    const STATE: EpochState = EpochState {
        tempo: 360,
        last_epoch_block: 1_000,
        pending_epoch_at: 0,
        subnet_epoch_index: 7,
        blocks_since_last_step: 3,
    };

    #[test]
    fn an_epoch_runs_when_it_is_due_when_it_is_asked_for_and_when_none_ran_for_a_week() {
        assert!(!STATE.runs_at(1_359) && STATE.runs_at(1_360));
        let wanted = EpochState { pending_epoch_at: 1_100, ..STATE };
        assert!(!wanted.runs_at(1_099) && wanted.runs_at(1_100) && wanted.runs_at(1_101));
        let stuck = EpochState { tempo: u16::MAX, blocks_since_last_step: MAX_TEMPO + 1, ..STATE };
        assert!(stuck.runs_at(1_004));
        assert!(!EpochState { tempo: 0, pending_epoch_at: 5, ..stuck }.runs_at(1_000_000));
        let mut after = wanted;
        after.advance(1_100);
        let expected = EpochState {
            last_epoch_block: 1_100,
            pending_epoch_at: 0,
            subnet_epoch_index: 8,
            blocks_since_last_step: 0,
            ..STATE
        };
        assert_eq!(after, expected);
    }

    #[test]
    fn a_chain_that_runs_no_epochs_reveals_nothing_and_no_search_goes_on_for_ever() {
        assert_eq!(first_reveal_block(&EpochState { tempo: 0, ..STATE }, 1_003, 1), None);
        assert_eq!(first_reveal_block(&STATE, 1_003, u64::MAX), None);
        assert_eq!(first_reveal_block(&STATE, u64::MAX, 1), None);
        assert_eq!(first_reveal_block(&STATE, 1_003, MAX_REVEAL_PERIOD), Some(1_000 + 360 * MAX_REVEAL_PERIOD));
    }

    proptest! {
        #[test]
        fn the_next_epoch_is_the_one_that_the_simulation_comes_to(
            tempo in 1u16..500, since in 0u64..600, pending in 0u64..1_200, idle in 0u64..60_000,
        ) {
            let head = 10_000;
            let pending_epoch_at = if pending == 0 { 0 } else { head - 600 + pending };
            let mut state = EpochState {
                tempo,
                last_epoch_block: head - since,
                pending_epoch_at,
                subnet_epoch_index: 40,
                blocks_since_last_step: idle,
            };
            let foreseen = state.next_epoch_block(head).unwrap();
            let mut block = head;
            while state.subnet_epoch_index == 40 {
                block += 1;
                state.advance(block);
            }
            prop_assert_eq!(foreseen, block);
        }

        #[test]
        fn no_state_makes_the_arithmetic_overflow(
            tempo: u16, last_epoch_block: u64, pending_epoch_at: u64, subnet_epoch_index: u64,
            blocks_since_last_step: u64, head: u64,
        ) {
            let mut state = EpochState {
                tempo, last_epoch_block, pending_epoch_at, subnet_epoch_index, blocks_since_last_step,
            };
            prop_assert!(state.next_epoch_block(head).is_none_or(|next| next > head));
            prop_assert!(first_reveal_block(&state, head, 1).is_none_or(|reveal| reveal > head));
            state.advance(head);
            prop_assert!(state.index_in(head) >= subnet_epoch_index);
        }
    }
}
