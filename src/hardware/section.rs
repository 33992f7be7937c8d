//! An absent section is `{}` in JSON, as the original subnet writes it.

use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

pub(super) fn serialize<T: Serialize, S: Serializer>(section: &Option<T>, s: S) -> Result<S::Ok, S::Error> {
    match section {
        Some(section) => section.serialize(s),
        None => Map::new().serialize(s),
    }
}

pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(d: D) -> Result<Option<T>, D::Error> {
    match Value::deserialize(d)? {
        Value::Null => Ok(None),
        // Total failure of the original's script is the empty string.
        Value::String(text) if text.is_empty() => Ok(None),
        Value::Object(map) if map.is_empty() => Ok(None),
        value => serde_json::from_value(value).map(Some).map_err(D::Error::custom),
    }
}
