//! The arithmetic of epochs, pure.
//!
//! A chain counts a subnet's epochs in one of two forms, and [`EpochClock`] answers for both; what a node does with epochs
//! goes through it.
//!
//! **Modulo**, the runtimes up to spec 393 and [`ledger`](super::ledger): the index is `(block + netuid + 1) / (tempo + 1)`
//! (integer division), as the chain's commit-reveal counts it; an epoch is `tempo + 1` blocks long and subnets take turns
//! because `netuid` shifts the start. Here the step that pays an epoch runs on the **first** block of the next index, where
//! `(block + netuid + 1) % (tempo + 1) == 0`. Those runtimes run it one block earlier, on the last block of the index.
//! Nothing in a node may rely on the exact block of the step.
//!
//! **Stateful**, from spec 425 on: the chain keeps when the last epoch ran and how many there were ([`EpochState`]). An
//! epoch is `tempo` blocks long, unless the subnet's owner asks for one early, the tempo changes, or too many subnets are
//! due in one block and ours is put off. So where the next epoch begins is a forecast, and only the present one is known.
//!
//! # Numbers never go back
//! Duties and the database compare epochs by `>`. The chain's own count starts anew with the stateful form, so a stateful
//! epoch is numbered [`STATEFUL_EPOCHS`] (2³²) above the chain's index: above every modulo number (which would take three
//! thousand years to come there), the same for every node, and one after the other. The numbers between the last modulo
//! epoch and the first stateful one that is seen belong to no epoch.

mod clock;
mod state;

pub use self::clock::{EpochClock, STATEFUL_EPOCHS};
pub use self::state::{EpochState, MAX_TEMPO, first_reveal_block, first_reveal_block_modulo};
use crate::ids::{BlockNumber, Epoch, Netuid};

fn shifted(block: BlockNumber, netuid: Netuid) -> u64 {
    block.saturating_add(u64::from(netuid.0)).saturating_add(1)
}

fn length(tempo: u16) -> u64 {
    u64::from(tempo) + 1
}

/// The epoch that `block` belongs to in the modulo form: `(block + netuid + 1) / (tempo + 1)`.
pub fn epoch_of(block: BlockNumber, netuid: Netuid, tempo: u16) -> Epoch {
    shifted(block, netuid) / length(tempo)
}

/// Whether `block` is the first of its epoch in the modulo form, on which the ledger runs the epoch step. Never with a tempo of 0.
pub fn is_epoch_block(block: BlockNumber, netuid: Netuid, tempo: u16) -> bool {
    tempo > 0 && shifted(block, netuid).is_multiple_of(length(tempo))
}

/// The first block **after** `block` that begins an epoch in the modulo form. Saturates at the last block number.
pub fn next_epoch_block(block: BlockNumber, netuid: Netuid, tempo: u16) -> BlockNumber {
    block.saturating_add(length(tempo) - shifted(block, netuid) % length(tempo))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_compute_subnet_on_finney_has_its_epochs_where_the_formula_puts_them() {
        let (netuid, tempo) = (Netuid(27), 360);
        // 6,000,000 + 28 = 361 * 16,620 + 208
        assert_eq!(epoch_of(6_000_000, netuid, tempo), 16_620);
        assert_eq!(next_epoch_block(6_000_000, netuid, tempo), 6_000_153);
        assert!(is_epoch_block(6_000_153, netuid, tempo));
        assert_eq!(epoch_of(6_000_152, netuid, tempo), 16_620);
        assert_eq!(epoch_of(6_000_153, netuid, tempo), 16_621);
    }

    #[test]
    fn from_an_epoch_block_the_next_one_is_a_whole_epoch_away() {
        // netuid 1, tempo 5: (b + 2) % 6 == 0
        assert!(is_epoch_block(4, Netuid(1), 5));
        assert_eq!(next_epoch_block(4, Netuid(1), 5), 10);
        assert_eq!(next_epoch_block(9, Netuid(1), 5), 10);
        assert_eq!(epoch_of(0, Netuid(1), 5), 0);
        assert_eq!(epoch_of(4, Netuid(1), 5), 1);
    }

    #[test]
    fn a_tempo_of_zero_never_runs_an_epoch() {
        assert!((0..100).all(|b| !is_epoch_block(b, Netuid(3), 0)));
    }

    proptest! {
        #[test]
        fn the_next_epoch_block_begins_the_next_epoch(block in 0u64..u64::MAX / 2, netuid: u16, tempo in 1u16..) {
            let (netuid, next) = (Netuid(netuid), next_epoch_block(block, Netuid(netuid), tempo));
            prop_assert!(is_epoch_block(next, netuid, tempo));
            prop_assert_eq!(epoch_of(next, netuid, tempo), epoch_of(block, netuid, tempo) + 1);
            prop_assert_eq!(epoch_of(next - 1, netuid, tempo), epoch_of(block, netuid, tempo));
        }

        #[test]
        fn no_block_number_is_too_large(block: u64, netuid: u16, tempo: u16) {
            let _ = epoch_of(block, Netuid(netuid), tempo);
            let _ = is_epoch_block(block, Netuid(netuid), tempo);
            prop_assert!(next_epoch_block(block, Netuid(netuid), tempo) >= block);
        }
    }
}
