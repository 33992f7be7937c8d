//! Python's own words on what body hashes are made of: values drawn at random, their text and hash as the SDK has them.

use compute_subnet::wire::classic::{PyValue, body_hash};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::checks::Checks;
use crate::common::inside;
use crate::driver::Driver;

const VALUES: usize = 2_000;

fn text(rng: &mut StdRng) -> String {
    // Blocks that were full long before any Python in use, so that all of them know the same characters.
    const BLOCKS: [(u32, u32); 9] = [
        (0x00, 0x7f),
        (0x20, 0x7e),
        (0x80, 0x24f),
        (0x400, 0x44f),
        (0x2000, 0x2064),
        (0x3000, 0x3040),
        (0xe000, 0xe010),
        (0xfeff, 0xfeff),
        (0x1f600, 0x1f64f),
    ];
    let one = |rng: &mut StdRng| {
        let (first, last) = BLOCKS[rng.random_range(0..BLOCKS.len())];
        char::from_u32(rng.random_range(first..=last)).unwrap()
    };
    (0..rng.random_range(0..12)).map(|_| one(rng)).collect()
}

/// JSON of a value; `deep` more levels below it.
fn value(rng: &mut StdRng, deep: u32) -> String {
    let quoted = |rng: &mut StdRng| serde_json::to_string(&text(rng)).unwrap();
    match rng.random_range(0..if deep == 0 { 8 } else { 11 }) {
        0 => ["null", "true", "false"][rng.random_range(0..3)].to_owned(),
        1 => rng.random::<i64>().to_string(),
        2 => rng.random_range(-1000..1000).to_string(),
        3 => (0..rng.random_range(1..40)).map(|_| char::from(rng.random_range(b'1'..=b'9'))).collect(),
        4 => json!(Some(f64::from_bits(rng.random())).filter(|f| f.is_finite()).unwrap_or(0.5)).to_string(),
        5 => format!("{}e{}", rng.random_range(-99..99), rng.random_range(-30..30)),
        6 | 7 => quoted(rng),
        8 | 9 => {
            let items: Vec<String> = (0..rng.random_range(0..4)).map(|_| value(rng, deep - 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let one = |rng: &mut StdRng| format!("{}:{}", quoted(rng), value(rng, deep - 1));
            let items: Vec<String> = (0..rng.random_range(0..4)).map(|_| one(rng)).collect();
            format!("{{{}}}", items.join(","))
        }
    }
}

#[test]
fn a_value_has_the_text_and_the_hash_that_python_gives_it() {
    inside(async |_| {
        for version in ["9.0.0", "10.5.0"] {
            let mut checks = Checks::new(&format!("bittensor {version}, its body hashes"));
            let mut rng = StdRng::seed_from_u64(1);
            let values: Vec<String> = (0..VALUES).map(|_| value(&mut rng, 3)).collect();
            let mut sdk = Driver::start(version, "dendrite.py");
            let said = sdk.ask(json!({ "hash": values })).await;
            checks.same("an answer to each", said.as_array().map(Vec::len), Some(VALUES));
            for (json, said) in values.iter().zip(said.as_array().unwrap()) {
                let ours: PyValue = serde_json::from_str(json).unwrap();
                let ours = json!({ "str": ours.pystr(), "body_hash": body_hash(&[ours]) });
                checks.same::<&Value>(json, &ours, said);
            }
            checks.end();
        }
    });
}
