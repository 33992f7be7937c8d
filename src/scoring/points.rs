//! Points as whole numbers, and how whole numbers are shown with a decimal point.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A score, counted in 10⁻⁹ points. Displays with four decimals, or with as many as the format asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Points(pub u64);

impl Points {
    /// Decimal places of one unit.
    pub const DIGITS: u32 = 9;
    /// What a full machine of the best model scores.
    pub const HUNDRED: Points = Points(100_000_000_000);

    /// The sum; stays at the largest number where it does not fit.
    #[must_use]
    pub fn plus(self, other: Points) -> Points {
        Points(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Points {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = f.precision().and_then(|p| u32::try_from(p).ok()).unwrap_or(4);
        let text = decimal(u128::from(self.0), Self::DIGITS, places);
        match f.width() {
            Some(width) => write!(f, "{text:>width$}"),
            None => f.write_str(&text),
        }
    }
}

/// `value · 10^-digits` in decimal notation, rounded half up to `places`, at most `digits` of them. `digits` is at
/// most 30.
pub fn decimal(value: u128, digits: u32, places: u32) -> String {
    let digits = digits.min(30);
    let places = places.min(digits);
    let unit = 10u128.pow(digits - places);
    let rounded = value / unit + u128::from(value % unit >= unit.div_ceil(2) && unit > 1);
    let one = 10u128.pow(places);
    if places == 0 {
        return rounded.to_string();
    }
    format!("{}.{:0>width$}", rounded / one, rounded % one, width = places as usize)
}

/// Operations a second as people read them, in a unit that suits them.
pub fn rate_text(ops: u64) -> String {
    match ops {
        0..100_000_000 => format!("{ops} op/s"),
        100_000_000..1_000_000_000_000 => format!("{} Gop/s", decimal(ops.into(), 9, 1)),
        _ => format!("{} Top/s", decimal(ops.into(), 12, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_shown_rounded_with_a_decimal_point() {
        assert_eq!(Points(6_250_000_000).to_string(), "6.2500");
        assert_eq!(format!("{:.3}", Points(103_125_000_000)), "103.125");
        assert_eq!(format!("{:>9.2}", Points(1_005_000_000)), "     1.01");
        assert_eq!(Points(49_999).to_string(), "0.0000");
        assert_eq!(Points(50_000).to_string(), "0.0001");
        assert_eq!(decimal(u128::MAX, 0, 0), u128::MAX.to_string());
        assert_eq!(decimal(1_999_999, 6, 2), "2.00");
        assert_eq!(decimal(4_000_000, 6, 6), "4.000000");
    }

    #[test]
    fn rates_are_shown_in_a_unit_that_suits_them() {
        let texts = [9_999_999, 168_000_000, 183_900_000_000, 1_187_400_000_000_000].map(rate_text);
        assert_eq!(texts, ["9999999 op/s", "0.2 Gop/s", "183.9 Gop/s", "1187.4 Top/s"]);
    }

    #[test]
    fn points_are_written_as_a_whole_number() {
        assert_eq!(serde_json::to_string(&Points(5)).unwrap(), "5");
        assert_eq!(serde_json::from_str::<Points>("7").unwrap(), Points(7));
        assert_eq!(Points(u64::MAX).plus(Points(1)), Points(u64::MAX));
    }
}
