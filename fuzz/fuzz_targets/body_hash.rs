//! Body hashes: a value has one text and one hash, however its JSON was written.
#![no_main]

use compute_subnet::wire::classic::{PyValue, body_hash};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = serde_json::from_slice::<PyValue>(bytes) else { return };
    // A list's text tells what is in it, so this looks at `repr` as well as at `str`.
    let list = PyValue::List(vec![value.clone(), PyValue::Str("'".into())]);
    for value in [&value, &list] {
        let compact = serde_json::to_string(value).expect("a Python value has a JSON form");
        let pretty = serde_json::to_string_pretty(value).expect("and a long one");
        for json in [compact, pretty] {
            let again: PyValue = serde_json::from_str(&json).expect("which can be read");
            assert_eq!(again.pystr(), value.pystr(), "{json}");
            assert_eq!(body_hash(&[again]), body_hash(std::slice::from_ref(value)), "{json}");
        }
    }
    assert_ne!(body_hash(&[value.clone(), list.clone()]), body_hash(&[list, value.clone()]), "the order counts");

    match serde_json::from_slice::<Value>(bytes) {
        Ok(same) => alike(&value, &same, bytes),
        // Python's whole numbers have no end.
        Err(error) => assert!(bytes.len() > 300, "what is a Python value is JSON: {error}"),
    }
});

/// A Python value and the same JSON as another reader sees it.
fn alike(value: &PyValue, other: &Value, json: &[u8]) {
    match (value, other) {
        (PyValue::None, Value::Null) => assert_eq!(value.pystr(), "None"),
        (PyValue::Bool(b), Value::Bool(same)) => {
            assert!(b == same && value.pystr().eq_ignore_ascii_case(&b.to_string()))
        }
        (PyValue::Str(text), Value::String(same)) => assert!(text == same && value.pystr() == *text),
        (PyValue::Int(digits), Value::Number(_)) => {
            assert!(digits.strip_prefix('-').unwrap_or(digits).bytes().all(|b| b.is_ascii_digit()));
        }
        (PyValue::Float(float), Value::Number(_)) => {
            // Rust reads the nearest float, as Python does.
            let text = std::str::from_utf8(json).expect("JSON is UTF-8").trim();
            assert_eq!(text.parse::<f64>().ok(), Some(*float));
            assert_eq!(value.pystr().parse::<f64>().ok(), Some(*float));
        }
        (PyValue::List(items), Value::Array(same)) => assert_eq!(items.len(), same.len()),
        (PyValue::Dict(items), Value::Object(same)) => assert_eq!(items.len(), same.len()),
        other => panic!("two readings of one text: {other:?}"),
    }
}
