//! How far weight vectors are from each other: what a validator would say against what others say on the chain.
//!
//! Only to look at: nothing is paid or set by it. Shares are whole numbers in 10⁻⁹; the cosine alone is a fraction.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::Uid;

/// A share of 1.
const WHOLE_PPB: i64 = 1_000_000_000;

/// One vector against another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// Whose vector it is compared with.
    pub validator: Uid,
    /// The cosine of the angle between them: 1 for the same proportions, 0 where they have nobody in common.
    pub cosine: f64,
    /// By neuron that has a share in either: our share less theirs, in 10⁻⁹ of the sum. Equal ones are left out.
    pub differences: Vec<(Uid, i64)>,
}

impl Divergence {
    /// 1 less the cosine: 0 for the same proportions.
    pub fn distance(&self) -> f64 {
        (1.0 - self.cosine).max(0.0)
    }

    /// The neuron with the largest difference and our share less theirs, in 10⁻⁹; of equals the lowest uid.
    pub fn worst(&self) -> Option<(Uid, i64)> {
        self.differences.iter().copied().max_by_key(|(uid, d)| (d.unsigned_abs(), std::cmp::Reverse(*uid)))
    }
}

/// Compares our vector with another one. Vectors without a weight have no proportions: `None`.
pub fn divergence(validator: Uid, ours: &[(Uid, u16)], theirs: &[(Uid, u16)]) -> Option<Divergence> {
    let (ours, theirs) = (by_uid(ours), by_uid(theirs));
    let sum = |of: &BTreeMap<Uid, u64>| of.values().sum::<u64>();
    let (our_sum, their_sum) = (sum(&ours), sum(&theirs));
    if our_sum == 0 || their_sum == 0 {
        return None;
    }
    let of = |vector: &BTreeMap<Uid, u64>, uid: &Uid| vector.get(uid).copied().unwrap_or(0);
    let mut uids: Vec<Uid> = ours.keys().chain(theirs.keys()).copied().collect();
    uids.sort_unstable();
    uids.dedup();
    // 2^32 squared times 65,536 uids stay below 2^128.
    let product = |a: &BTreeMap<Uid, u64>, b: &BTreeMap<Uid, u64>| -> u128 {
        uids.iter().map(|uid| u128::from(of(a, uid)) * u128::from(of(b, uid))).sum()
    };
    let norms = (product(&ours, &ours) as f64).sqrt() * (product(&theirs, &theirs) as f64).sqrt();
    let cosine = (product(&ours, &theirs) as f64 / norms).clamp(0.0, 1.0);
    let share = |weight: u64, sum: u64| {
        let share = u128::from(weight) * WHOLE_PPB as u128 / u128::from(sum);
        i64::try_from(share).unwrap_or(WHOLE_PPB)
    };
    let difference = |uid: Uid| (uid, share(of(&ours, &uid), our_sum) - share(of(&theirs, &uid), their_sum));
    let differences = uids.iter().copied().map(difference).filter(|(_, d)| *d != 0).collect();
    Some(Divergence { validator, cosine, differences })
}

/// By uid; one that is listed twice has the sum.
fn by_uid(weights: &[(Uid, u16)]) -> BTreeMap<Uid, u64> {
    let mut by_uid = BTreeMap::new();
    for (uid, weight) in weights.iter().filter(|(_, w)| *w > 0) {
        *by_uid.entry(*uid).or_insert(0) += u64::from(*weight);
    }
    by_uid
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vector(weights: &[(u16, u16)]) -> Vec<(Uid, u16)> {
        weights.iter().map(|(uid, w)| (Uid(*uid), *w)).collect()
    }

    fn compare(ours: &[(u16, u16)], theirs: &[(u16, u16)]) -> Option<Divergence> {
        divergence(Uid(7), &vector(ours), &vector(theirs))
    }

    #[test]
    fn the_same_proportions_do_not_diverge_whatever_their_scale_and_order() {
        let same = compare(&[(1, 2), (2, 4)], &[(2, 65_535), (1, 32_767), (5, 0)]).unwrap();
        assert!(same.distance() < 1e-9, "{same:?}");
        assert!(same.worst().is_none_or(|(_, d)| d.abs() < 10_000), "{same:?}");
        let exact = compare(&[(1, 1), (2, 1)], &[(1, 9), (2, 9)]).unwrap();
        assert_eq!((exact.worst(), exact.validator), (None, Uid(7)));
    }

    #[test]
    fn vectors_with_nobody_in_common_are_as_far_apart_as_can_be() {
        let apart = compare(&[(1, 5)], &[(2, 5)]).unwrap();
        assert_eq!((apart.cosine, apart.distance()), (0.0, 1.0));
        assert_eq!(apart.differences, [(Uid(1), WHOLE_PPB), (Uid(2), -WHOLE_PPB)]);
        assert_eq!(apart.worst(), Some((Uid(1), WHOLE_PPB)));
    }

    #[test]
    fn a_difference_is_ours_less_theirs_in_shares() {
        let d = compare(&[(1, 3), (2, 1)], &[(1, 1), (2, 1), (3, 2)]).unwrap();
        assert_eq!(d.differences, [(Uid(1), 500_000_000), (Uid(3), -500_000_000)]);
        // (3·1 + 1·1) / (√10 · √6)
        assert!((d.cosine - 4.0 / 60f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_vector_without_weights_is_compared_with_nothing() {
        assert_eq!(compare(&[], &[(1, 1)]), None);
        assert_eq!(compare(&[(1, 1)], &[(2, 0)]), None);
    }

    proptest! {
        #[test]
        fn differences_even_out_and_the_cosine_is_the_same_both_ways(
            a in proptest::collection::vec((0u16..30, any::<u16>()), 0..30),
            b in proptest::collection::vec((0u16..30, any::<u16>()), 0..30)
        ) {
            let (ab, ba) = (compare(&a, &b), compare(&b, &a));
            prop_assert_eq!(ab.is_some(), ba.is_some());
            if let (Some(ab), Some(ba)) = (ab, ba) {
                prop_assert!((ab.cosine - ba.cosine).abs() < 1e-12);
                prop_assert!(ab.differences.iter().map(|(_, d)| d).sum::<i64>().abs() <= 64);
                prop_assert!((0.0..=1.0).contains(&ab.cosine));
            }
        }
    }
}
