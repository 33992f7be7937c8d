//! Scores as the chain takes them: whole numbers up to 65,535, proportional, the largest at 65,535.
//!
//! [`weights`] is the normalisation of Bittensor's SDK; [`fit`] applies a subnet's limits first (the least number of
//! weights, the highest share). Both keep the order given and depend on nothing else, so that a person can redo them.

use std::collections::BTreeSet;

use crate::ids::Uid;

/// The floor that lifts zero scores when too few weights would be sent, as the SDK has it.
const FLOOR: f64 = 1e-5;

/// Why scores cannot become weights.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum WeightError {
    /// A score below 0.
    #[error("uid {uid}: score {score} is negative")]
    Negative {
        /// The neuron.
        uid: Uid,
        /// Its score.
        score: f64,
    },
    /// A score that is no finite number.
    #[error("uid {0}: the score is not a finite number")]
    NotFinite(Uid),
    /// The same neuron twice.
    #[error("uid {0} is listed twice")]
    Twice(Uid),
    /// A highest share outside (0, 1].
    #[error("the highest share {0} is not in (0, 1]")]
    MaxShare(f64),
}

/// A subnet's limits on a weight vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightLimits {
    /// `MinAllowedWeights`: the chain refuses fewer, unless the subnet has fewer neurons.
    pub min_allowed: u16,
    /// `MaxWeightsLimit` as a share of the sum, in (0, 1]; 1 is no limit.
    pub max_share: f64,
}

fn checked(scores: &[(Uid, f64)]) -> Result<(), WeightError> {
    let mut seen = BTreeSet::new();
    for (uid, score) in scores {
        if !score.is_finite() {
            return Err(WeightError::NotFinite(*uid));
        }
        if *score < 0.0 {
            return Err(WeightError::Negative { uid: *uid, score: *score });
        }
        if !seen.insert(*uid) {
            return Err(WeightError::Twice(*uid));
        }
    }
    Ok(())
}

/// `round_half_even(score / highest · 65535)`, zeros dropped, in the order given. Nothing to send when all are 0.
///
/// # Errors
/// [`WeightError`] for a negative or not finite score, or a neuron listed twice.
pub fn weights(scores: &[(Uid, f64)]) -> Result<Vec<(Uid, u16)>, WeightError> {
    checked(scores)?;
    let highest = scores.iter().map(|(_, s)| *s).fold(0.0, f64::max);
    if highest <= 0.0 {
        return Ok(Vec::new());
    }
    let scaled = scores.iter().map(|(uid, s)| (*uid, (s / highest * 65_535.0).round_ties_even() as u16));
    Ok(scaled.filter(|(_, w)| *w > 0).collect())
}

/// Each weight's share of the sum, in (0, 1], in the order given. Empty when there is none.
pub fn shares(weights: &[(Uid, u16)]) -> Vec<(Uid, f64)> {
    let sum: f64 = weights.iter().map(|(_, w)| f64::from(*w)).sum();
    if sum <= 0.0 {
        return Vec::new();
    }
    weights.iter().map(|(uid, w)| (*uid, f64::from(*w) / sum)).collect()
}

/// Shares (summing to 1, in the order given) that keep the subnet's limits, for [`weights`]. `scores` lists every
/// neuron of the subnet, those without a score as 0.
///
/// As in the SDK: with fewer non-zero scores than the subnet asks for, all neurons get `1e-5` of the sum on top; shares
/// above the limit are cut to it. Unlike there, all scores 0 gives an empty vector: a validator that knows nothing says
/// nothing, rather than paying everybody alike.
///
/// # Errors
/// [`WeightError`] as for [`weights`], and for a share limit outside (0, 1].
pub fn fit(scores: &[(Uid, f64)], limits: &WeightLimits) -> Result<Vec<(Uid, f64)>, WeightError> {
    checked(scores)?;
    if !(limits.max_share > 0.0 && limits.max_share <= 1.0) {
        return Err(WeightError::MaxShare(limits.max_share));
    }
    let sum: f64 = scores.iter().map(|(_, s)| *s).sum();
    let non_zero = scores.iter().filter(|(_, s)| *s > 0.0).count();
    if non_zero == 0 || !sum.is_finite() {
        return Ok(Vec::new());
    }
    let needed = usize::from(limits.min_allowed).min(scores.len());
    let floor = if non_zero < needed { FLOOR } else { 0.0 };
    let mut kept: Vec<(Uid, f64)> =
        scores.iter().map(|(uid, s)| (*uid, s / sum + floor)).filter(|(_, s)| *s > 0.0).collect();
    cut(&mut kept, limits.max_share);
    let sum: f64 = kept.iter().map(|(_, s)| *s).sum();
    for (_, share) in &mut kept {
        *share /= sum;
    }
    Ok(kept)
}

/// Clips the highest values so that none is above `max_share` of the clipped sum. Where that cannot be, all are alike.
fn cut(values: &mut [(Uid, f64)], max_share: f64) {
    if values.len() as f64 * max_share <= 1.0 {
        values.iter_mut().for_each(|(_, v)| *v = 1.0);
        return;
    }
    let mut down: Vec<f64> = values.iter().map(|(_, v)| *v).collect();
    down.sort_by(|a, b| b.total_cmp(a));
    let mut rest: f64 = down.iter().sum();
    // With the `clipped` highest cut to c: c = L · (clipped · c + rest), so c = L · rest / (1 − clipped · L).
    let mut ceiling = f64::INFINITY;
    for (clipped, next) in down.iter().enumerate() {
        let denominator = 1.0 - clipped as f64 * max_share;
        if denominator <= 0.0 {
            break;
        }
        ceiling = max_share * rest / denominator;
        if *next <= ceiling {
            break;
        }
        rest -= next;
    }
    values.iter_mut().for_each(|(_, v)| *v = v.min(ceiling));
}
