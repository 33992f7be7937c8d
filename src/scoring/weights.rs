//! Scores as the chain takes them: whole numbers up to 65,535, proportional, the largest at 65,535.
//!
//! [`weights`] is the normalisation of Bittensor's SDK; [`fit`] applies a subnet's limits first (the least number of
//! weights, the highest share); [`weigh`] does both for a subnet's neurons. All keep the order given, depend on nothing
//! else and know whole numbers only, so that anybody can redo them and gets the same bits.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::points::Points;
use super::score::ScoreRow;
use crate::ids::{Hotkey, Uid};

/// The floor that lifts zero scores when too few weights would be sent is the sum divided by this: 1e-5, as in the SDK.
const FLOOR_PART: u128 = 100_000;
/// The highest weight: what the largest score becomes, and a share of 1 in [`WeightLimits::max_weight`].
const FULL: u128 = u16::MAX as u128;
/// The highest score of one neuron, a million points: it leaves room for every product below.
pub const MAX_SCORE: Points = Points(1_000_000_000_000_000);

/// Why scores cannot become weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WeightError {
    /// A score above [`MAX_SCORE`].
    #[error("uid {uid}: score {score} is above {MAX_SCORE}; lower scoring.allocated_bonus")]
    TooHigh {
        /// The neuron.
        uid: Uid,
        /// Its score.
        score: Points,
    },
    /// The same neuron twice.
    #[error("uid {0} is listed twice")]
    Twice(Uid),
    /// A share for a neuron that there is not.
    #[error("uid {0} has no neuron in the subnet; check weights.burn_uid")]
    NoNeuron(Uid),
    /// A highest share of 0.
    #[error("the highest share is 0, no weights can keep it")]
    MaxShare,
}

/// A subnet's limits on a weight vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightLimits {
    /// `MinAllowedWeights`: the chain refuses fewer, unless the subnet has fewer neurons.
    pub min_allowed: u16,
    /// `MaxWeightsLimit`: the highest share of the sum in parts of 65,535, at least 1; 65,535 is no limit.
    pub max_weight: u16,
}

fn checked(scores: &[(Uid, Points)]) -> Result<(), WeightError> {
    let mut seen = BTreeSet::new();
    for (uid, score) in scores {
        if *score > MAX_SCORE {
            return Err(WeightError::TooHigh { uid: *uid, score: *score });
        }
        if !seen.insert(*uid) {
            return Err(WeightError::Twice(*uid));
        }
    }
    Ok(())
}

/// `round_half_even(score · 65535 / highest)`, zeros dropped, in the order given. Nothing to send when all are 0.
///
/// # Errors
/// [`WeightError`] for a score above [`MAX_SCORE`], or a neuron listed twice.
pub fn weights(scores: &[(Uid, Points)]) -> Result<Vec<(Uid, u16)>, WeightError> {
    checked(scores)?;
    Ok(scaled(&scores.iter().map(|(uid, score)| (*uid, u128::from(score.0))).collect::<Vec<_>>()))
}

/// Values as weights. Each must be below 2¹¹², so that 65,535 of them fit. Zeros are left out.
pub(super) fn scaled(values: &[(Uid, u128)]) -> Vec<(Uid, u16)> {
    let highest = values.iter().map(|(_, v)| *v).max().unwrap_or(0);
    if highest == 0 {
        return Vec::new();
    }
    let weight = |value: u128| {
        let (whole, rest) = (value * FULL / highest, value * FULL % highest);
        let up = match (rest * 2).cmp(&highest) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => whole % 2 == 1,
            std::cmp::Ordering::Less => false,
        };
        u16::try_from(whole + u128::from(up)).unwrap_or(u16::MAX)
    };
    values.iter().map(|(uid, v)| (*uid, weight(*v))).filter(|(_, w)| *w > 0).collect()
}

/// Values in the proportion of the scores, in the order given, that keep the subnet's limits; as weights they are what
/// [`weigh`] sends. `scores` lists every neuron of the subnet, those without a score as 0.
///
/// As in the SDK: with fewer non-zero scores than the subnet asks for, all neurons get `1e-5` of the sum on top; shares
/// above the limit are cut to it. Unlike there, all scores 0 gives an empty vector: a validator that knows nothing says
/// nothing, rather than paying everybody alike.
///
/// # Errors
/// [`WeightError`] as for [`weights`], and for a share limit of 0.
pub fn fit(scores: &[(Uid, Points)], limits: &WeightLimits) -> Result<Vec<(Uid, u128)>, WeightError> {
    checked(scores)?;
    if limits.max_weight == 0 {
        return Err(WeightError::MaxShare);
    }
    let sum: u128 = scores.iter().map(|(_, s)| u128::from(s.0)).sum();
    let non_zero = scores.iter().filter(|(_, s)| s.0 > 0).count();
    if non_zero == 0 {
        return Ok(Vec::new());
    }
    let needed = usize::from(limits.min_allowed).min(scores.len());
    // score / sum + 1e-5, times sum · 100,000: exact.
    let floor = if non_zero < needed { sum } else { 0 };
    let lifted = scores.iter().map(|(uid, s)| (*uid, u128::from(s.0) * FLOOR_PART + floor));
    let mut kept: Vec<(Uid, u128)> = lifted.filter(|(_, v)| *v > 0).collect();
    cut(&mut kept, limits.max_weight);
    Ok(kept)
}

/// Clips the highest values so that none is above `max_weight / 65535` of the clipped sum. Where that cannot be, all
/// are alike. The values may be scaled by a common factor, below 2¹⁶.
fn cut(values: &mut [(Uid, u128)], max_weight: u16) {
    let limit = u128::from(max_weight);
    if values.len() as u128 * limit <= FULL {
        values.iter_mut().for_each(|(_, v)| *v = 1);
        return;
    }
    let mut down: Vec<u128> = values.iter().map(|(_, v)| *v).collect();
    down.sort_unstable_by(|a, b| b.cmp(a));
    let mut rest: u128 = down.iter().sum();
    // With the `clipped` highest cut to c, and L = limit / 65535: c = L · (clipped · c + rest), so
    // c = limit · rest / (65535 − clipped · limit). Everything is scaled by that denominator to stay exact.
    let mut ceiling: Option<(u128, u128)> = None;
    for (clipped, next) in down.iter().enumerate() {
        let Some(denominator) = FULL.checked_sub(clipped as u128 * limit).filter(|d| *d > 0) else { break };
        ceiling = Some((limit * rest, denominator));
        if *next * denominator <= limit * rest {
            break;
        }
        rest -= next;
    }
    if let Some((numerator, denominator)) = ceiling {
        values.iter_mut().for_each(|(_, v)| *v = (*v * denominator).min(numerator));
    }
}

/// The weights that the scores come to for the neurons of the subnet as they are now, in the order of `neurons`: of
/// those that still have the slot they were judged in, within the limits. Empty when nothing is to be sent.
///
/// The plain [`weights`] are kept where they are enough of them and none is above the highest share.
///
/// # Errors
/// [`WeightError`]; a highest share of 0 counts as 1 / 65535, as the chain's.
pub fn weigh(
    rows: &[ScoreRow],
    neurons: &[(Uid, Hotkey)],
    limits: &WeightLimits,
) -> Result<Vec<(Uid, u16)>, WeightError> {
    let totals = rows.iter().map(|r| (r.uid, r.hotkey, r.score.total));
    weigh_totals(totals, neurons, limits)
}

/// [`weigh`] from the totals of the scores alone.
///
/// # Errors
/// As there.
pub fn weigh_totals(
    totals: impl IntoIterator<Item = (Uid, Hotkey, Points)>,
    neurons: &[(Uid, Hotkey)],
    limits: &WeightLimits,
) -> Result<Vec<(Uid, u16)>, WeightError> {
    let judged: BTreeMap<(Uid, Hotkey), Points> =
        totals.into_iter().map(|(uid, hotkey, total)| ((uid, hotkey), total)).collect();
    let scores: Vec<(Uid, Points)> =
        neurons.iter().map(|(uid, hotkey)| (*uid, judged.get(&(*uid, *hotkey)).copied().unwrap_or_default())).collect();
    let plain = weights(&scores)?;
    let limits = WeightLimits { max_weight: limits.max_weight.max(1), ..*limits };
    let enough = plain.len() >= usize::from(limits.min_allowed).min(scores.len());
    let sum: u128 = plain.iter().map(|(_, w)| u128::from(*w)).sum();
    let within = |w: u16| u128::from(w) * FULL <= u128::from(limits.max_weight) * sum;
    if plain.is_empty() || (enough && plain.iter().all(|(_, w)| within(*w))) {
        return Ok(plain);
    }
    Ok(scaled(&fit(&scores, &limits)?))
}
