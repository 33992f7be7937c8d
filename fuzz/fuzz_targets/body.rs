//! Bodies of the original's synapses: lenient in, exact out, and nothing in them changes by being read and written.
//!
//! The first byte of the input chooses the class.
#![no_main]

use std::fmt::Debug;

use compute_subnet::wire::classic::{ClassicSynapse, Envelope, Ping};
use compute_subnet::wire::synapse::original::{Allocate, CallerKey, Challenge, Mode, Specs};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let Some((class, body)) = bytes.split_first() else { return };
    match class % 4 {
        0 => {
            let Some(asked) = read::<Allocate>(body, &["output", "device_requirement", "docker_requirement"]) else {
                return;
            };
            let mode = Mode::of(&asked);
            assert!(Mode::ALL.contains(&mode));
            // Whoever may only look changes nothing.
            assert!(!asked.checking || matches!(mode, Mode::Probe | Mode::Owns));
            // Any text may stand where a key is expected.
            let _ = CallerKey::read(asked.public_key.text());
        }
        1 => drop(read::<Challenge>(body, &["output"])),
        2 => drop(read::<Specs>(body, &[])),
        _ => drop(read::<Ping>(body, &[])),
    }
});

/// Reads a body as this class. `objects` are the fields that hold any JSON object, which leave as they came.
fn read<S: ClassicSynapse + PartialEq + Debug>(body: &[u8], objects: &[&str]) -> Option<S> {
    let envelope = Envelope::<S>::read(body).ok()?;
    assert!(envelope.base.timeout.is_finite());
    let written = serde_json::to_vec(&envelope.own).expect("a synapse has a JSON form");
    let again = Envelope::<S>::read(&written).expect("what we write can be read");
    assert_eq!(again.own, envelope.own);
    assert_eq!(again.body_hash(), envelope.body_hash());

    let written: Value = serde_json::from_slice(&written).expect("and is JSON");
    if let Ok(given) = serde_json::from_slice::<Value>(body) {
        for field in objects {
            match &given[*field] {
                object @ Value::Object(_) => assert_eq!(&written[*field], object, "{field}"),
                _ => assert!(written[*field].is_object()),
            }
        }
    }
    Some(envelope.own)
}
