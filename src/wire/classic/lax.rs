//! Reading fields as leniently as pydantic 2 does in its default mode. For `#[serde(deserialize_with = "…")]`.
//!
//! Whole numbers may be whole floats, texts of digits or booleans; floats may be whole numbers or texts; booleans may be 0, 1
//! or one of pydantic's words. Strings must be strings. `null` is a value of optional fields only.

use std::fmt;

use serde::Deserializer;
use serde::de::{Error, Visitor};

macro_rules! lax {
    ($(#[$doc:meta])* $name:ident -> $type:ty, $expected:literal, { $($method:item)* }) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// The deserializer's, for anything else.
        pub fn $name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
            struct Lax;
            impl Visitor<'_> for Lax {
                type Value = $type;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str($expected)
                }
                $($method)*
            }
            deserializer.deserialize_any(Lax)
        }
    };
}

lax! {
    /// A whole number of 64 bits.
    int -> i64, "a whole number", {
        fn visit_i64<E: Error>(self, v: i64) -> Result<i64, E> { Ok(v) }
        fn visit_u64<E: Error>(self, v: u64) -> Result<i64, E> { i64::try_from(v).map_err(|_| E::custom("too large")) }
        fn visit_bool<E: Error>(self, v: bool) -> Result<i64, E> { Ok(i64::from(v)) }
        fn visit_f64<E: Error>(self, v: f64) -> Result<i64, E> {
            // Above 2^53 a float is no certain whole number.
            if v.fract() == 0.0 && v.abs() <= 9_007_199_254_740_992.0 { Ok(v as i64) } else { Err(E::custom("not whole")) }
        }
        fn visit_str<E: Error>(self, v: &str) -> Result<i64, E> { v.trim().parse().map_err(|_| E::custom("no whole number")) }
    }
}

lax! {
    /// A float; never NaN or infinite.
    float -> f64, "a number", {
        fn visit_f64<E: Error>(self, v: f64) -> Result<f64, E> { Ok(v) }
        fn visit_i64<E: Error>(self, v: i64) -> Result<f64, E> { Ok(v as f64) }
        fn visit_u64<E: Error>(self, v: u64) -> Result<f64, E> { Ok(v as f64) }
        fn visit_bool<E: Error>(self, v: bool) -> Result<f64, E> { Ok(f64::from(u8::from(v))) }
        fn visit_str<E: Error>(self, v: &str) -> Result<f64, E> {
            v.trim().parse().ok().filter(|v: &f64| v.is_finite()).ok_or(E::custom("no number"))
        }
    }
}

lax! {
    /// A boolean.
    boolean -> bool, "a boolean", {
        fn visit_bool<E: Error>(self, v: bool) -> Result<bool, E> { Ok(v) }
        fn visit_u64<E: Error>(self, v: u64) -> Result<bool, E> { zero_one(v as f64) }
        fn visit_i64<E: Error>(self, v: i64) -> Result<bool, E> { zero_one(v as f64) }
        fn visit_f64<E: Error>(self, v: f64) -> Result<bool, E> { zero_one(v) }
        fn visit_str<E: Error>(self, v: &str) -> Result<bool, E> {
            match v.to_ascii_lowercase().as_str() {
                "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
                "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
                _ => Err(E::custom("no boolean")),
            }
        }
    }
}

fn zero_one<E: Error>(value: f64) -> Result<bool, E> {
    match value {
        0.0 => Ok(false),
        1.0 => Ok(true),
        _ => Err(E::custom("no boolean")),
    }
}
