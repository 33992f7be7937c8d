//! JSON values as Python sees and prints them: what body hashes are made of.
//!
//! JSON keeps apart what Python keeps apart: whole numbers of any size from floats, and the order of keys. [`PyValue`] is
//! read from JSON text without losing either; [`PyValue::pystr`] is Python's `str()`. The rules of `repr` for strings and
//! floats are `rustpython-literal`'s.

use std::fmt;

use rustpython_literal::escape::UnicodeEscape;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// Values nested deeper are refused.
const MAX_DEPTH: usize = 32;

/// A value that JSON carries between two Python programs.
#[derive(Debug, Clone, PartialEq)]
pub enum PyValue {
    /// `None`
    None,
    /// `True`, `False`
    Bool(bool),
    /// A whole number of any size: an optional minus sign and digits.
    Int(String),
    /// A float; never NaN or infinite, which JSON has not.
    Float(f64),
    /// A string.
    Str(String),
    /// A list.
    List(Vec<PyValue>),
    /// A dictionary in its order of insertion. Keys are unique.
    Dict(Vec<(String, PyValue)>),
}

impl PyValue {
    /// An empty dictionary.
    pub fn dict() -> Self {
        PyValue::Dict(Vec::new())
    }

    /// Python's `str()`.
    pub fn pystr(&self) -> String {
        match self {
            PyValue::Str(text) => text.clone(),
            other => {
                let mut out = String::new();
                other.repr(&mut out);
                out
            }
        }
    }

    fn repr(&self, out: &mut String) {
        match self {
            PyValue::None => out.push_str("None"),
            PyValue::Bool(true) => out.push_str("True"),
            PyValue::Bool(false) => out.push_str("False"),
            PyValue::Int(digits) => out.push_str(digits),
            PyValue::Float(value) => out.push_str(&rustpython_literal::float::to_string(*value)),
            PyValue::Str(text) => repr_str(text, out),
            PyValue::List(items) => {
                out.push('[');
                separated(items, out, |item, out| item.repr(out));
                out.push(']');
            }
            PyValue::Dict(items) => {
                out.push('{');
                separated(items, out, |(key, value), out| {
                    repr_str(key, out);
                    out.push_str(": ");
                    value.repr(out);
                });
                out.push('}');
            }
        }
    }

    fn parse(json: &str, depth: usize) -> Result<Self, serde_json::Error> {
        if depth > MAX_DEPTH {
            return Err(<serde_json::Error as serde::de::Error>::custom("nested too deep"));
        }
        Ok(match json.trim_start().as_bytes().first() {
            Some(b'{') => {
                let fields: Fields<'_> = serde_json::from_str(json)?;
                let mut dict: Vec<(String, PyValue)> = Vec::with_capacity(fields.0.len());
                let mut places = std::collections::HashMap::with_capacity(fields.0.len());
                for (key, raw) in fields.0 {
                    let value = Self::parse(raw.get(), depth + 1)?;
                    // As in Python, a key that comes again keeps its first place and takes the last value.
                    match places.get(&key) {
                        Some(&place) => {
                            let entry: &mut (String, PyValue) = &mut dict[place];
                            entry.1 = value;
                        }
                        None => {
                            places.insert(key.clone(), dict.len());
                            dict.push((key, value));
                        }
                    }
                }
                PyValue::Dict(dict)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(json)?;
                let items = items.into_iter().map(|raw| Self::parse(raw.get(), depth + 1));
                PyValue::List(items.collect::<Result<_, _>>()?)
            }
            Some(b'"') => PyValue::Str(serde_json::from_str(json)?),
            Some(b't' | b'f') => PyValue::Bool(serde_json::from_str(json)?),
            Some(b'n') => PyValue::None,
            _ => number(json.trim())?,
        })
    }
}

/// The text was accepted as a JSON number before.
fn number(json: &str) -> Result<PyValue, serde_json::Error> {
    if json.contains(['.', 'e', 'E']) {
        let value: f64 = serde_json::from_str(json)?;
        return Ok(PyValue::Float(value));
    }
    Ok(PyValue::Int(if json == "-0" { "0" } else { json }.to_owned()))
}

fn separated<T>(items: &[T], out: &mut String, mut one: impl FnMut(&T, &mut String)) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        one(item, out);
    }
}

fn repr_str(text: &str, out: &mut String) {
    let escape = UnicodeEscape::new_repr(text.into());
    // Writing to a string cannot fail.
    let _ = escape.str_repr().write(out);
}

/// The fields of a JSON object in their order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry::<String, &'de RawValue>()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl<'de> Deserialize<'de> for PyValue {
    /// From JSON text only.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        PyValue::parse(raw.get(), 0).map_err(D::Error::custom)
    }
}

impl Serialize for PyValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            PyValue::None => serializer.serialize_unit(),
            PyValue::Bool(value) => serializer.serialize_bool(*value),
            PyValue::Int(digits) => {
                RawValue::from_string(digits.clone()).map_err(S::Error::custom)?.serialize(serializer)
            }
            PyValue::Float(value) => serializer.serialize_f64(*value),
            PyValue::Str(text) => serializer.serialize_str(text),
            PyValue::List(items) => items.serialize(serializer),
            PyValue::Dict(items) => {
                let mut map = serializer.serialize_map(Some(items.len()))?;
                for (key, value) in items {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
        }
    }
}

impl From<&str> for PyValue {
    fn from(text: &str) -> Self {
        PyValue::Str(text.to_owned())
    }
}
impl From<i64> for PyValue {
    fn from(value: i64) -> Self {
        PyValue::Int(value.to_string())
    }
}
impl From<f64> for PyValue {
    fn from(value: f64) -> Self {
        PyValue::Float(value)
    }
}
impl From<bool> for PyValue {
    fn from(value: bool) -> Self {
        PyValue::Bool(value)
    }
}
