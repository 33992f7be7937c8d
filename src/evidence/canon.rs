//! Canonical JSON: one text for one value, so that a hash of the text is a hash of the value. Pure.
//!
//! RFC 8785 for values made of null, booleans, integers, strings, arrays and objects: no white space, members sorted by
//! the UTF-16 code units of their names, strings escaped only where JSON must (`\b \t \n \f \r \" \\`, other controls as
//! `\u00xx` in lower case). Two differences: an integer is written with all its digits (`i64` and `u64`, where the RFC
//! would round above 2⁵³), and a fraction is an error. Nothing that is logged may depend on how a float is printed.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

/// Why a value has no canonical form.
#[derive(Debug, thiserror::Error)]
pub enum CanonError {
    /// A number is no integer of 64 bits.
    #[error("{0} is not an integer from -2^63 to 2^64 - 1")]
    Fraction(serde_json::Number),
    /// The value cannot be expressed in JSON at all.
    #[error("not expressible in JSON")]
    Json(#[from] serde_json::Error),
}

/// The canonical text of a value.
///
/// # Errors
/// [`CanonError::Fraction`] for a number with a fraction or exponent, or out of range.
pub fn encode(value: &Value) -> Result<String, CanonError> {
    let mut out = String::new();
    write(&mut out, value)?;
    Ok(out)
}

/// The value of what serialises, checked to have a canonical form.
///
/// # Errors
/// [`CanonError`].
pub fn value_of(thing: &impl Serialize) -> Result<Value, CanonError> {
    let value = serde_json::to_value(thing)?;
    check(&value)?;
    Ok(value)
}

fn check(value: &Value) -> Result<(), CanonError> {
    match value {
        Value::Number(n) if n.is_f64() => Err(CanonError::Fraction(n.clone())),
        Value::Array(items) => items.iter().try_for_each(check),
        Value::Object(members) => members.values().try_for_each(check),
        _ => Ok(()),
    }
}

fn write(out: &mut String, value: &Value) -> Result<(), CanonError> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(n) if n.is_f64() => return Err(CanonError::Fraction(n.clone())),
        Value::Number(n) => out.push_str(&n.to_string()),
        Value::String(text) => string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write(out, item)?;
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (place, (name, member)) in members.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                string(out, name);
                out.push(':');
                write(out, member)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_examples_of_the_rfc_come_out_as_printed_there() {
        // RFC 8785 §3.2.2, without its numbers, which are fractions.
        let input = r#"{"string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"#;
        let value: Value = serde_json::from_str(input).unwrap();
        let expected = "{\"literals\":[null,true,false],\"string\":\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(encode(&value).unwrap(), expected);
        // §3.2.3: sorted by UTF-16 code units, where an emoji (a surrogate pair) comes before U+FB33.
        let input = r#"{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh",
            "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}"#;
        let value: Value = serde_json::from_str(input).unwrap();
        let text = encode(&value).unwrap();
        let order = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"];
        let places: Vec<usize> = order.iter().map(|name| text.find(name).unwrap()).collect();
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn integers_keep_all_their_digits_and_fractions_are_refused() {
        let value = json!([u64::MAX, i64::MIN, 0, -1, 9_007_199_254_740_993u64]);
        assert_eq!(encode(&value).unwrap(), "[18446744073709551615,-9223372036854775808,0,-1,9007199254740993]");
        for text in ["1.0", "1e3", "0.1", "-0", "18446744073709551616", "[{\"a\":2.5}]"] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert!(matches!(encode(&value), Err(CanonError::Fraction(_))), "{text}");
            assert!(matches!(value_of(&value), Err(CanonError::Fraction(_))), "{text}");
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_canonical_text_reads_back_to_the_same_value_and_is_its_own_canonical_text(value in values()) {
            let text = encode(&value).unwrap();
            let again: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&again, &value);
            prop_assert_eq!(encode(&again).unwrap(), text);
        }
    }
}
