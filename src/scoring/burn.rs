//! A fixed share of the weights for one neuron: on Bittensor the usual way to leave a part of the miners' incentive
//! unpaid is a weight on the subnet owner's uid, whose incentive is burned.
//!
//! Exact: with `s` the share in 10⁻⁹, `w` the weights that the scores come to and `S` their sum, each becomes
//! `w · (10⁹ − s)` and the burn's neuron gets `s · S` on top. Their sum is `10⁹ · S`, so the burn has the share `s` to the
//! last digit before all are rounded to 16 bits once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::score::ScoreRow;
use super::weights::{WeightError, WeightLimits, scaled, weigh};
use crate::ids::{Hotkey, Uid};

/// A share of 1.
pub const WHOLE_PPB: u64 = 1_000_000_000;

/// Who gets which share before the rest is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Burn {
    /// The neuron.
    pub uid: Uid,
    /// The share, in 10⁻⁹; more than [`WHOLE_PPB`] counts as that.
    pub share_ppb: u64,
}

/// As [`weigh`], with a share for the burn's neuron. Where scores make no weights there is no burn either: nothing known,
/// nothing said.
///
/// A weight that the burn makes smaller than 1 becomes 1, so that a subnet's least number of weights is kept; under a
/// share of 1 nobody else has any.
///
/// # Errors
/// As for [`weigh`], and [`WeightError::NoNeuron`] where the burn's uid has no neuron.
pub fn weigh_with(
    rows: &[ScoreRow],
    neurons: &[(Uid, Hotkey)],
    limits: &WeightLimits,
    burn: Option<&Burn>,
) -> Result<Vec<(Uid, u16)>, WeightError> {
    let plain = weigh(rows, neurons, limits)?;
    match burn {
        Some(burn) if burn.share_ppb > 0 => burned(&plain, neurons, burn),
        _ => Ok(plain),
    }
}

fn burned(plain: &[(Uid, u16)], neurons: &[(Uid, Hotkey)], burn: &Burn) -> Result<Vec<(Uid, u16)>, WeightError> {
    if !neurons.iter().any(|(uid, _)| *uid == burn.uid) {
        return Err(WeightError::NoNeuron(burn.uid));
    }
    let sum: u128 = plain.iter().map(|(_, w)| u128::from(*w)).sum();
    let share = u128::from(burn.share_ppb.min(WHOLE_PPB));
    let kept = u128::from(WHOLE_PPB) - share;
    let by_uid: BTreeMap<Uid, u16> = plain.iter().copied().collect();
    let value = |uid: Uid| {
        let own = by_uid.get(&uid).map_or(0, |w| u128::from(*w) * kept);
        own + if uid == burn.uid { share * sum } else { 0 }
    };
    let values: Vec<(Uid, u128)> = neurons.iter().map(|(uid, _)| (*uid, value(*uid))).collect();
    let rounded: BTreeMap<Uid, u16> = scaled(&values).into_iter().collect();
    let positive = values.into_iter().filter(|(_, value)| *value > 0);
    Ok(positive.map(|(uid, _)| (uid, rounded.get(&uid).copied().unwrap_or(1))).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scoring::{Points, Scaling, Score};

    fn row(uid: u16, points: u64) -> ScoreRow {
        let total = Points(points);
        let scaling = Scaling { max_devices: 8, max_base_micro: 4_000_000 };
        ScoreRow {
            uid: Uid(uid),
            hotkey: Hotkey([uid as u8; 32]),
            score: Score { total, gpu: total, bonus: Points(0), scaling, parts: vec![] },
        }
    }

    fn neurons(n: u16) -> Vec<(Uid, Hotkey)> {
        (0..n).map(|uid| (Uid(uid), Hotkey([uid as u8; 32]))).collect()
    }

    const LIMITS: WeightLimits = WeightLimits { min_allowed: 1, max_weight: u16::MAX };

    fn with(rows: &[ScoreRow], share_ppb: u64) -> Vec<(u16, u16)> {
        let burn = Burn { uid: Uid(0), share_ppb };
        let weights = weigh_with(rows, &neurons(4), &LIMITS, Some(&burn)).unwrap();
        weights.into_iter().map(|(uid, w)| (uid.0, w)).collect()
    }

    #[test]
    fn the_burn_takes_its_share_and_the_others_keep_their_proportion() {
        let rows = [row(1, 300), row(2, 100)];
        assert_eq!(with(&rows, 0), [(1, 65_535), (2, 21_845)]);
        // Half for the burn: 4 parts to 3 and 1.
        assert_eq!(with(&rows, 500_000_000), [(0, 65_535), (1, 49_151), (2, 16_384)]);
        // A fifth: 1 part to 3 and 1.
        assert_eq!(with(&rows, 200_000_000), [(0, 21_845), (1, 65_535), (2, 21_845)]);
        assert_eq!(with(&rows, WHOLE_PPB), [(0, 65_535)]);
        assert_eq!(with(&rows, u64::MAX), [(0, 65_535)]);
    }

    #[test]
    fn a_burns_neuron_that_is_a_miner_too_keeps_what_it_earned() {
        // 1 part of 4 is its own: half of that stays, half of all is added.
        assert_eq!(with(&[row(0, 100), row(1, 300)], 500_000_000), [(0, 65_535), (1, 39_321)]);
    }

    #[test]
    fn nothing_known_burns_nothing_and_nobody_is_lost_to_rounding() {
        assert_eq!(with(&[row(1, 0)], 500_000_000), []);
        assert_eq!(with(&[row(1, 1_000_000), row(2, 10)], 999_000_000), [(0, 65_535), (1, 66), (2, 1)]);
        let nobody = Burn { uid: Uid(9), share_ppb: 1 };
        let refused = weigh_with(&[row(1, 1)], &neurons(4), &LIMITS, Some(&nobody));
        assert_eq!(refused, Err(WeightError::NoNeuron(Uid(9))));
    }

    proptest! {
        #[test]
        fn the_burns_share_is_the_one_asked_for_to_the_rounding_of_16_bits(
            scores in proptest::collection::vec(1u64..1_000_000_000_000, 1..40), share in 1u64..WHOLE_PPB
        ) {
            let rows: Vec<ScoreRow> = scores.iter().enumerate().map(|(i, s)| row(i as u16 + 1, *s)).collect();
            let neurons = neurons(rows.len() as u16 + 1);
            let burn = Burn { uid: Uid(0), share_ppb: share };
            let plain = weigh(&rows, &neurons, &LIMITS).unwrap();
            let weights = weigh_with(&rows, &neurons, &LIMITS, Some(&burn)).unwrap();
            prop_assert!(plain.iter().all(|(uid, _)| weights.iter().any(|(u, w)| u == uid && *w > 0)));
            prop_assert!(weights.is_sorted_by_key(|(uid, _)| *uid));
            let sum: u64 = weights.iter().map(|(_, w)| u64::from(*w)).sum();
            let got = weights.iter().find(|(uid, _)| uid.0 == 0).map_or(0, |(_, w)| u64::from(*w));
            // Half a step for each weight, one for those kept at 1.
            let off = (u128::from(got) * u128::from(WHOLE_PPB)).abs_diff(u128::from(share) * u128::from(sum));
            prop_assert!(off <= weights.len() as u128 * u128::from(WHOLE_PPB), "{got} of {sum} for {share}");
        }
    }
}
