//! Our whole-number weights beside Bittensor's SDK 10.5.0, which computes in floating point: every vector of its three
//! functions, equal as the 16-bit weights that would be sent, or in a table of differences with the reason.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use compute_subnet::ids::{Hotkey, Uid};
use compute_subnet::scoring::weights::MAX_SCORE;
use compute_subnet::scoring::{Points, Scaling, Score, ScoreRow, WeightLimits, weigh, weights};
use proptest::prelude::*;
use serde_json::Value;

type Sent = Vec<(u16, u16)>;

/// The vectors of one of the SDK's functions.
fn vectors(function: &str) -> Vec<Value> {
    let mut file: Value = serde_json::from_str(include_str!("vectors/chain/weights_and_ip.json")).unwrap();
    serde_json::from_value(file[function].take()).unwrap()
}

fn list<T: serde::de::DeserializeOwned>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The SDK's `convert_weights_and_uids_for_emit`, in its own arithmetic; `None` where it raises an error.
fn sdk_emit(uids: &[u16], weights: &[f64]) -> Option<Sent> {
    if weights.iter().any(|w| *w < 0.0) {
        return None;
    }
    let highest = weights.iter().copied().fold(0.0, f64::max);
    if highest == 0.0 {
        return Some(Vec::new());
    }
    let sent = weights.iter().map(|w| (w / highest * 65_535.0).round_ties_even() as u16);
    Some(uids.iter().copied().zip(sent).filter(|(_, w)| *w > 0).collect())
}

/// The same numbers as scores: all times one power of two, by which the highest uses the room there is. What is below a
/// score's unit then, 10^-15 of the highest, is rounded. `None` for a negative number, which no score can be.
fn scores(uids: &[u16], weights: &[f64]) -> Option<Vec<(Uid, Points)>> {
    let highest = weights.iter().copied().fold(0.0, f64::max);
    let scale = if highest > 0.0 { (MAX_SCORE.0 as f64 / highest).log2().floor().exp2() } else { 1.0 };
    let score = |w: f64| (w >= 0.0).then(|| Points((w * scale).round() as u64));
    uids.iter().zip(weights).map(|(uid, w)| Some((Uid(*uid), score(*w)?))).collect()
}

fn plain(sent: Vec<(Uid, u16)>) -> Sent {
    sent.into_iter().map(|(uid, w)| (uid.0, w)).collect()
}

/// What a validator of ours sends for these weights in a subnet of `neurons` with these limits.
fn ours(uids: &[u16], weights: &[f64], neurons: u16, min_allowed: u16, max_weight: u16) -> Sent {
    let neurons: Vec<_> = (0..neurons).map(|uid| (Uid(uid), Hotkey([uid as u8; 32]))).collect();
    let scaling = Scaling { max_devices: 8, max_base_micro: 4_000_000 };
    let row = |(uid, total): (Uid, Points)| {
        let score = Score { total, gpu: total, bonus: Points(0), scaling, parts: Vec::new() };
        ScoreRow { uid, hotkey: Hotkey([uid.0 as u8; 32]), score }
    };
    let rows: Vec<_> = scores(uids, weights).unwrap().into_iter().map(row).collect();
    plain(weigh(&rows, &neurons, &WeightLimits { min_allowed, max_weight }).unwrap())
}

/// A share as the chain has it, in parts of 65,535.
fn parts(limit: f64) -> u16 {
    (limit * 65_535.0).round() as u16
}

/// Where we send something else than the SDK: the vector's number, what we send, and why.
type Difference = (usize, &'static [(u16, u16)], &'static str);

/// Compares all of a function's vectors: those in `differences` and no others send something else than the SDK does.
fn compare(function: &str, both: impl Fn(&Value) -> (Sent, Sent), differences: &[Difference]) {
    let both: Vec<(Sent, Sent)> = vectors(function).iter().map(both).collect();
    let found: Vec<_> = both.iter().enumerate().filter(|(_, (ours, sdk))| ours != sdk).collect();
    let expected: Vec<_> = differences.iter().map(|(at, ours, _)| (*at, ours.to_vec())).collect();
    let ours: Vec<_> = found.iter().map(|(at, (ours, _))| (*at, ours.clone())).collect();
    assert_eq!(ours, expected, "{function}: differences of ours from the SDK: {found:#?}");
}

#[test]
fn emitted_weights_are_the_sdks_bit_for_bit() {
    let vectors = vectors("emit");
    assert_eq!(vectors.len(), 10);
    let mut refused = 0;
    for case in &vectors {
        let (uids, weights_f32) = (list::<u16>(&case["uids"]), list::<f64>(&case["weights_f32"]));
        let scores = scores(&uids, &weights_f32);
        let model = sdk_emit(&uids, &weights_f32);
        if case["result"]["error"].is_string() {
            // A negative weight is an error there; a score cannot be negative.
            assert!(scores.is_none() && model.is_none(), "{case}");
            refused += 1;
            continue;
        }
        let (uids, values) = (list::<u16>(&case["result"]["uids"]), list::<u16>(&case["result"]["weights"]));
        let expected: Sent = uids.into_iter().zip(values).collect();
        assert_eq!(plain(weights(&scores.unwrap()).unwrap()), expected, "{case}");
        assert_eq!(model.unwrap(), expected, "the model of the SDK: {case}");
    }
    assert_eq!(refused, 1);
}

#[test]
fn clipped_weights_are_the_sdks() {
    assert_eq!(vectors("normalize_max_weight").len(), 6);
    compare(
        "normalize_max_weight",
        |case| {
            let x = list::<f64>(&case["x"]);
            let uids: Vec<u16> = (0..x.len() as u16).collect();
            let sdk = sdk_emit(&uids, &list::<f64>(&case["y"])).unwrap();
            (ours(&uids, &x, x.len() as u16, 0, parts(case["limit"].as_f64().unwrap())), sdk)
        },
        &[
            (
                0,
                &[(0, 65_535), (1, 58_981), (2, 39_321)],
                "an exact half, 58,981.5, of decimal numbers that are not binary ones: 0.3 and 0.5 as scores come out below \
                 it, the SDK's cut (by 10^-7 too low) above",
            ),
            (3, &[], "all 0: the SDK pays everybody alike, we send nothing"),
            (
                5,
                &[(0, 65_535), (1, 65_535), (2, 61_679)],
                "a limit of 0.34 is 22,281.9 parts of 65,535; ours is the chain's whole number, 22,282",
            ),
        ],
    );
}

#[test]
fn processed_weights_are_the_sdks() {
    assert_eq!(vectors("process_weights").len(), 5);
    compare(
        "process_weights",
        |case| {
            let number = |field: &str| case[field].as_u64().unwrap() as u16;
            let sdk = sdk_emit(&list::<u16>(&case["out_uids"]), &list::<f64>(&case["out_weights"])).unwrap();
            let limit = parts(case["max_weight_limit"].as_f64().unwrap());
            let (uids, weights) = (list::<u16>(&case["uids"]), list::<f64>(&case["weights"]));
            (ours(&uids, &weights, number("num_neurons"), number("min_allowed_weights"), limit), sdk)
        },
        &[
            (1, &[], "all 0: the SDK pays everybody alike, we send nothing"),
            (
                2,
                &[(0, 13_108), (1, 1), (2, 52_428), (3, 65_535)],
                "8 weights asked for, 4 neurons: the SDK pays everybody alike; the chain asks for no more than there are \
                 neurons, so ours lifts the one that is 0",
            ),
            (
                4,
                &[(0, 65_535), (1, 21_844), (2, 21_844), (3, 21_844)],
                "a limit of 0.5 is 32,767.5 parts of 65,535; ours is the chain's whole number, 32,768",
            ),
        ],
    );
}

#[test]
fn every_exact_half_goes_to_the_even_neighbour_in_both() {
    for odd in (1..131_070).step_by(2) {
        let ours = plain(weights(&[(Uid(0), Points(131_070)), (Uid(1), Points(odd))]).unwrap());
        assert_eq!(Some(ours), sdk_emit(&[0, 1], &[131_070.0, odd as f64]), "{odd} / 131,070");
    }
}

proptest! {
    /// The SDK's numbers have 24 bits. Their quotient in 53 bits is never rounded across a half.
    #[test]
    fn weights_of_single_precision_are_the_sdks_bit_for_bit(
        values in proptest::collection::vec((0u32..1 << 24, 0u32..24).prop_map(|(bits, down)| bits >> down), 1..64),
    ) {
        let uids: Vec<u16> = (0..values.len() as u16).collect();
        let ours = uids.iter().zip(&values).map(|(uid, v)| (Uid(*uid), Points(u64::from(*v)))).collect::<Vec<_>>();
        let sdk: Vec<f64> = values.iter().map(|v| f64::from(*v as f32)).collect();
        prop_assert_eq!(Some(plain(weights(&ours).unwrap())), sdk_emit(&uids, &sdk));
    }

    /// Scores have up to 50 bits. The SDK would round them to 24 first, which moves a weight by 1 at most.
    #[test]
    fn scores_that_the_sdk_would_round_first_differ_by_1_at_most(
        scores in proptest::collection::vec(0..=MAX_SCORE.0, 1..64),
    ) {
        let uids: Vec<u16> = (0..scores.len() as u16).collect();
        let ours = uids.iter().zip(&scores).map(|(uid, s)| (Uid(*uid), Points(*s))).collect::<Vec<_>>();
        let ours = plain(weights(&ours).unwrap());
        let sdk = sdk_emit(&uids, &scores.iter().map(|s| f64::from(*s as f32)).collect::<Vec<_>>()).unwrap();
        let of = |sent: &Sent, uid: u16| sent.iter().find(|(u, _)| *u == uid).map_or(0, |(_, w)| *w);
        for uid in uids {
            prop_assert!(of(&ours, uid).abs_diff(of(&sdk, uid)) <= 1, "uid {uid}: {ours:?} {sdk:?}");
        }
    }
}
