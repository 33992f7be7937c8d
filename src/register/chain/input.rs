//! Weights as an operator writes them: JSON with a share for each uid. Pure.
//!
//! `{"3": 0.5, "7": 0.25}`, `[[3, 0.5], [7, 0.25]]` or `[{"uid": 3, "share": 0.5}, …]`. Only ratios matter.

use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};

use crate::ids::Uid;
use crate::scoring::{self, Points};

/// The largest file that is read, in bytes: 65,536 entries have room.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// The largest share becomes this, so that all are whole numbers.
const SCALE: f64 = 1e15;

/// Reads weights: those that go to the chain, the largest 65,535, in the order given. Zeros are left out.
///
/// # Errors
/// What is wrong with the text, and where.
pub(super) fn read(text: &[u8]) -> Result<Vec<(Uid, u16)>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let Shares(shares) = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if let Some((uid, share)) = shares.iter().find(|(_, share)| !share.is_finite() || *share < 0.0) {
        return Err(format!("the share of uid {uid} is {share}; expected a number from 0 on"));
    }
    let highest = shares.iter().map(|(_, share)| *share).fold(0.0, f64::max);
    if highest == 0.0 {
        return Err("no share is above 0; there is nothing to set".to_owned());
    }
    // From 0 to 10^15, well within a u64.
    let points = |share: f64| Points((share / highest * SCALE).round() as u64);
    let scores: Vec<(Uid, Points)> = shares.into_iter().map(|(uid, share)| (uid, points(share))).collect();
    scoring::weights(&scores).map_err(|error| error.to_string())
}

/// The shares in the order given; a uid that is written twice stays twice, to be refused.
struct Shares(Vec<(Uid, f64)>);

/// An entry of a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Pair(u16, f64),
    Named(Named),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    uid: u16,
    share: f64,
}

impl<'de> Deserialize<'de> for Shares {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Shares;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("weights as {\"UID\": SHARE, …}, [[UID, SHARE], …] or [{\"uid\": UID, \"share\": SHARE}, …]")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shares, A::Error> {
        let mut shares = Vec::new();
        while let Some((uid, share)) = map.next_entry::<String, f64>()? {
            let uid = uid.parse().map_err(|_| A::Error::custom(format!("{uid:?} is not a uid from 0 to 65535")))?;
            shares.push((Uid(uid), share));
        }
        Ok(Shares(shares))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shares, A::Error> {
        let mut shares = Vec::new();
        loop {
            let next = list.next_element::<Entry>();
            // What serde says of an entry that has neither form names the types of this program.
            let next = next.map_err(|_| {
                let form = "expected [UID, SHARE] or {\"uid\": UID, \"share\": SHARE}";
                A::Error::custom(format!("entry {} of the list: {form}", shares.len()))
            })?;
            let Some(entry) = next else { return Ok(Shares(shares)) };
            shares.push(match entry {
                Entry::Pair(uid, share) | Entry::Named(Named { uid, share }) => (Uid(uid), share),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Vec<(u16, u16)>, String> {
        read(text.as_bytes()).map(|weights| weights.into_iter().map(|(uid, weight)| (uid.0, weight)).collect())
    }

    #[test]
    fn every_form_gives_the_same_weights() {
        let expected = Ok(vec![(7, 32_768), (3, 65_535)]);
        for text in [
            r#"{"7": 0.25, "3": 0.5, "9": 0}"#,
            "[[7, 0.25], [3, 0.5], [9, 0]]",
            r#"[{"uid": 7, "share": 25}, {"share": 50, "uid": 3}, {"uid": 9, "share": 0.0}]"#,
            r#"[{"uid": 7, "share": 1e-300}, [3, 2e-300]]"#,
        ] {
            assert_eq!(read_text(text), expected, "{text}");
        }
        assert_eq!(read_text(r#"{"0": 1}"#), Ok(vec![(0, 65_535)]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, told) in [
            ("", "EOF"),
            ("5", "expected weights as {"),
            (r#"{"x": 1}"#, "\"x\" is not a uid"),
            (r#"{"65536": 1}"#, "is not a uid"),
            (r#"{"1": "a"}"#, "line 1"),
            (r#"{"1": -0.5}"#, "the share of uid 1 is -0.5"),
            (r#"{"1": 1e999}"#, "number out of range"),
            (r#"{"1": 1, "1": 2}"#, "uid 1 is listed twice"),
            ("[[1, 1], [1, 2]]", "uid 1 is listed twice"),
            ("[[1, 1], [1]]", "entry 1 of the list: expected [UID, SHARE]"),
            (r#"[{"uid": 1, "shar": 2}]"#, "entry 0 of the list"),
            ("[0.5, 0.5]", "entry 0 of the list"),
            ("{}", "nothing to set"),
            (r#"{"1": 0}"#, "nothing to set"),
            (r#"{"1": 1} x"#, "trailing"),
        ] {
            let wrong = read_text(text).unwrap_err();
            assert!(wrong.contains(told), "{text}: {wrong}");
        }
        assert!(read(&vec![b' '; MAX_BYTES + 1]).unwrap_err().contains("longer"));
    }
}
