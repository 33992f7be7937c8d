//! The rules of weights and of the epoch step, in integers only, so that every machine gets the same numbers.
//!
//! The epoch step of the ledger is the stake-weighted mean of the validators' normalised weights, with the masks of the
//! real chain: no weight on oneself, none set before the target registered, none by an inactive neuron or one without a
//! permit. **Left out**: Yuma's clipping of weights at the stake-weighted median, and bonds. So one validator's odd
//! weight counts by its stake here, where the real chain would cut it to the majority's; and dividends are the share of
//! stake among the validators whose weights counted.

use crate::ids::BlockNumber;

/// Scales `values` so that the largest becomes 65,535, to the last bit as the chain does in its 32.32 fixed point:
/// for a largest value above 32,768 the ratio is truncated first, otherwise the product is divided; both round half up.
/// All zeros stay zeros.
pub fn max_upscale(values: &[u16]) -> Vec<u16> {
    let Some(max) = values.iter().copied().max().filter(|m| *m > 0).map(u128::from) else {
        return values.to_vec();
    };
    let full = u128::from(u16::MAX);
    let scale = |value: u16| {
        let value = u128::from(value);
        let fixed = if max > 32_768 { value * ((full << 32) / max) } else { ((value * full) << 32) / max };
        // At most 65,535 and a half before the shift, so this never cuts.
        u16::try_from((fixed + (1 << 31)) >> 32).unwrap_or(u16::MAX)
    };
    values.iter().map(|v| scale(*v)).collect()
}

/// Whether no single value has a larger share of the sum than `limit` / 65,535. All zeros are within every limit.
pub fn within_max_limit(values: &[u16], limit: u16) -> bool {
    let sum: u64 = values.iter().map(|v| u64::from(*v)).sum();
    let max = values.iter().copied().max().map_or(0, u64::from);
    max * u64::from(u16::MAX) <= u64::from(limit) * sum
}

/// What the epoch step needs to know of one neuron.
#[derive(Debug, Clone, Default)]
pub struct Participant<'a> {
    /// The stake behind it, in rao.
    pub stake_rao: u64,
    /// The block of its registration.
    pub registered_at: BlockNumber,
    /// The block in which it last set weights.
    pub last_update: BlockNumber,
    /// Whether that is recent enough.
    pub active: bool,
    /// Its weights: uid (an index into the participants) and value.
    pub weights: &'a [(u16, u16)],
}

/// What the epoch step gives one neuron.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Share of the miners' incentive, 65,535 is all; rounded down, as on chain.
    pub incentive: u16,
    /// Share of the validators' dividends, 65,535 is all; rounded down.
    pub dividends: u16,
    /// Whether it holds a permit from now on.
    pub validator_permit: bool,
}

/// One epoch step. `participants` in the order of uids; stakes must sum to at most `u64::MAX`.
///
/// Permits go to the `permits` neurons with the most stake, of at least `threshold_rao` and above 0; of equals the lower
/// uid wins. They are in force for this step already, as on chain.
pub fn epoch_step(participants: &[Participant<'_>], permits: usize, threshold_rao: u64) -> Vec<Outcome> {
    let mut out = vec![Outcome::default(); participants.len()];
    let mut by_stake: Vec<usize> = (0..participants.len())
        .filter(|i| participants[*i].stake_rao > 0 && participants[*i].stake_rao >= threshold_rao)
        .collect();
    by_stake.sort_by_key(|i| (std::cmp::Reverse(participants[*i].stake_rao), *i));
    for i in by_stake.into_iter().take(permits) {
        out[i].validator_permit = true;
    }

    // Ranks: stake times share of the row, the share with 32 fractional bits. With all stakes below 2^64 in sum, all
    // ranks together stay below 2^96.
    let mut ranks = vec![0u128; participants.len()];
    let mut voting_stake = vec![0u128; participants.len()];
    for (i, p) in participants.iter().enumerate().filter(|(i, p)| out[*i].validator_permit && p.active) {
        let counts = |uid: u16| {
            let target = participants.get(usize::from(uid));
            usize::from(uid) != i && target.is_some_and(|t| p.last_update > t.registered_at)
        };
        let row: Vec<(u16, u16)> = p.weights.iter().copied().filter(|(uid, w)| *w > 0 && counts(*uid)).collect();
        let sum: u128 = row.iter().map(|(_, w)| u128::from(*w)).sum();
        if sum == 0 {
            continue;
        }
        voting_stake[i] = u128::from(p.stake_rao);
        for (uid, w) in row {
            ranks[usize::from(uid)] += u128::from(p.stake_rao) * ((u128::from(w) << 32) / sum);
        }
    }
    for (share, o) in shares(&ranks).into_iter().zip(&mut out) {
        o.incentive = share;
    }
    for (share, o) in shares(&voting_stake).into_iter().zip(&mut out) {
        o.dividends = share;
    }
    out
}

/// Each value's share of the sum, 65,535 being all, rounded down. All zeros give zeros.
fn shares(values: &[u128]) -> Vec<u16> {
    let sum: u128 = values.iter().sum();
    let share = |v: &u128| v.saturating_mul(u128::from(u16::MAX)).checked_div(sum).unwrap_or(0);
    values.iter().map(|v| u16::try_from(share(v)).unwrap_or(u16::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn voter(stake_rao: u64, weights: &[(u16, u16)]) -> Participant<'_> {
        Participant { stake_rao, registered_at: 1, last_update: 5, active: true, weights }
    }

    fn miner() -> Participant<'static> {
        voter(0, &[])
    }

    fn incentives(out: &[Outcome]) -> Vec<u16> {
        out.iter().map(|o| o.incentive).collect()
    }

    #[test]
    fn the_largest_weight_becomes_65535() {
        assert_eq!(max_upscale(&[1, 2, 4]), vec![16384, 32768, 65535]);
        assert_eq!(max_upscale(&[0, 0]), vec![0, 0]);
        assert_eq!(max_upscale(&[65535, 1]), vec![65535, 1]);
        assert_eq!(max_upscale(&[]), Vec::<u16>::new());
    }

    #[test]
    fn incentive_is_the_stake_weighted_mean_of_normalised_weights() {
        // 3/4 of the stake splits 1:1, 1/4 gives all to uid 3: 3/8 and 5/8.
        let all = [voter(300, &[(2, 10), (3, 10)]), voter(100, &[(3, 65535)]), miner(), miner()];
        let out = epoch_step(&all, 64, 0);
        assert_eq!(incentives(&out), vec![0, 0, 24575, 40959]);
        assert_eq!((out[0].dividends, out[1].dividends), (49151, 16383));
    }

    #[test]
    fn permits_go_to_the_most_stake_at_or_above_the_threshold_and_ties_to_the_lower_uid() {
        let all = [voter(10, &[]), voter(30, &[]), voter(30, &[]), voter(40, &[]), miner()];
        let permits =
            |k, threshold| -> Vec<bool> { epoch_step(&all, k, threshold).iter().map(|o| o.validator_permit).collect() };
        assert_eq!(permits(2, 0), [false, true, false, true, false]);
        assert_eq!(permits(64, 30), [false, true, true, true, false]);
        assert_eq!(permits(64, 0), [true, true, true, true, false]);
    }

    #[test]
    fn weights_that_must_not_count_do_not() {
        let on_self = [voter(10, &[(0, 1)]), miner()];
        assert_eq!(incentives(&epoch_step(&on_self, 64, 0)), vec![0, 0]);

        let no_permit = [voter(10, &[(1, 1)]), miner()];
        assert_eq!(incentives(&epoch_step(&no_permit, 0, 0)), vec![0, 0]);

        let mut replaced = [voter(10, &[(1, 1), (2, 1)]), miner(), miner()];
        replaced[1].registered_at = 5;
        assert_eq!(incentives(&epoch_step(&replaced, 64, 0)), vec![0, 0, 65535]);

        let mut asleep = [voter(10, &[(1, 1)]), miner()];
        asleep[0].active = false;
        assert_eq!(incentives(&epoch_step(&asleep, 64, 0)), vec![0, 0]);

        let unknown = [voter(10, &[(1, 1), (9, 1)]), miner()];
        assert_eq!(incentives(&epoch_step(&unknown, 64, 0)), vec![0, 65535]);
    }

    #[test]
    fn the_limit_is_on_the_share_of_the_sum() {
        assert!(within_max_limit(&[1, 1], 32768));
        assert!(!within_max_limit(&[1, 1], 32767));
        assert!(within_max_limit(&[0, 0], 0));
        assert!(within_max_limit(&[7], u16::MAX));
    }

    proptest! {
        #[test]
        fn upscaling_keeps_order_and_zeros(values in proptest::collection::vec(any::<u16>(), 0..40)) {
            let up = max_upscale(&values);
            prop_assert_eq!(up.len(), values.len());
            if values.iter().any(|v| *v > 0) {
                prop_assert_eq!(up.iter().max(), Some(&u16::MAX));
            }
            for (a, b) in values.iter().zip(&up) {
                prop_assert!(b >= a && (*a != 0 || *b == 0));
            }
        }

        #[test]
        fn nobody_gets_more_than_everything(
            neurons in proptest::collection::vec(
                (0u64..u64::MAX / 16, 0u64..9, any::<bool>(), proptest::collection::vec((0u16..20, any::<u16>()), 0..8)), 0..16)
        ) {
            let all: Vec<Participant<'_>> = neurons.iter().map(|(stake, at, active, weights)| Participant {
                stake_rao: *stake, registered_at: *at, last_update: 5, active: *active, weights,
            }).collect();
            let out = epoch_step(&all, 8, 0);
            prop_assert!(out.iter().map(|o| u32::from(o.incentive)).sum::<u32>() <= 65535);
            prop_assert!(out.iter().map(|o| u32::from(o.dividends)).sum::<u32>() <= 65535);
            prop_assert!(out.iter().filter(|o| o.validator_permit).count() <= 8);
        }
    }
}
