//! TAO as text, exactly: no amount of money goes through a floating-point number.

use crate::chain::RAO_PER_TAO;

/// An amount in TAO, without the zeros at its end: `1.5`.
pub(super) fn tao(rao: u64) -> String {
    let (whole, rest) = (rao / RAO_PER_TAO, rao % RAO_PER_TAO);
    let fraction = format!("{rest:09}");
    match fraction.trim_end_matches('0') {
        "" => whole.to_string(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// An amount with its unit, in TAO and in rao.
pub(super) fn amount(rao: u64) -> String {
    format!("{} TAO ({rao} rao)", tao(rao))
}

/// Reads an amount in TAO as rao: digits, with at most nine behind a point.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn parse_tao(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected TAO with at most nine digits behind the point, for example 1.5, not {text:?}");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let rest: u64 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    let rao = whole.checked_mul(RAO_PER_TAO).and_then(|rao| rao.checked_add(rest));
    rao.ok_or_else(|| format!("{text} TAO is more than there can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_in_both_directions() {
        for (text, rao) in [("0", 0), ("1", 1_000_000_000), ("1.5", 1_500_000_000), ("0.000000001", 1)] {
            assert_eq!(parse_tao(text), Ok(rao), "{text}");
            assert_eq!(tao(rao), text);
        }
        assert_eq!(parse_tao("18446744073.709551615"), Ok(u64::MAX));
        assert_eq!(tao(u64::MAX), "18446744073.709551615");
        assert_eq!(amount(2_000_000_001), "2.000000001 TAO (2000000001 rao)");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in
            ["", ".", "1.", ".5", "-1", "+1", "1e9", "1,5", "1.0000000001", "18446744073.709551616", " 1", "NaN"]
        {
            assert!(parse_tao(text).is_err(), "{text:?}");
        }
    }
}
