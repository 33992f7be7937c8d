//! How far a measured rate may lie from a predicted one: exact bounds for tests, no rule of thumb.

use std::ops::RangeInclusive;

/// The successes of `trials` with probability `p` each that hold 99.9 % of all outcomes: less than 0.05 % lie below, and
/// less than 0.05 % above. Exact: the sum of the binomial distribution's terms.
pub(crate) fn band(trials: u64, p: f64) -> RangeInclusive<u64> {
    const TAIL: f64 = 0.0005;
    // ln of C(n, k)·pᵏ·(1−p)ⁿ⁻ᵏ, from one k to the next. 0·ln 0 is 0 here.
    let times_ln = |count: u64, x: f64| if count == 0 { 0.0 } else { count as f64 * x.ln() };
    let mut ln_choose = 0.0;
    let terms: Vec<f64> = (0..=trials)
        .map(|k| {
            if k > 0 {
                ln_choose += ((trials - k + 1) as f64 / k as f64).ln();
            }
            (ln_choose + times_ln(k, p) + times_ln(trials - k, 1.0 - p)).exp()
        })
        .collect();
    // The outermost outcomes whose tails, themselves included, hold at least that much.
    let outermost = |terms: &mut dyn Iterator<Item = &f64>| {
        let mut tail = 0.0;
        terms
            .take_while(|term| {
                tail += **term;
                tail < TAIL
            })
            .count() as u64
    };
    outermost(&mut terms.iter())..=trials - outermost(&mut terms.iter().rev())
}

#[test]
fn the_band_is_that_of_the_distribution() {
    assert_eq!(band(10, 0.5), 0..=10); // P(0) is 1/1024, more than a tail
    assert_eq!(band(20, 0.5), 3..=17); // P(≤ 2) is 0.00020, P(≤ 3) 0.00129
    assert_eq!(band(1, 0.0004), 0..=0);
    assert_eq!((band(50, 0.0), band(50, 1.0)), (0..=0, 50..=50));
    // Near the normal one for many trials: 3.29 standard deviations of 15.8.
    let (low, high) = band(1000, 0.5).into_inner();
    assert!((447..=449).contains(&low) && (551..=553).contains(&high), "{low} {high}");
}
