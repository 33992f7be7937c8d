//! Commits of weights: a payload that is read is written the same, and what opens was sealed to that round.
#![no_main]

use compute_subnet::chain::commit::quicknet::SIGNATURE_BYTES;
use compute_subnet::chain::commit::timelock::OVERHEAD;
use compute_subnet::chain::commit::{WeightsPayload, decrypt};
use libfuzzer_sys::fuzz_target;

/// The round that the seeds are sealed to, and quicknet's signature of it.
const ROUND: u64 = 1000;
const SIGNATURE: &str =
    "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39";

fuzz_target!(|bytes: &[u8]| {
    if let Ok(payload) = WeightsPayload::decode(bytes) {
        assert_eq!(payload.encode(), bytes);
    }
    let mut signature = [0u8; SIGNATURE_BYTES];
    hex::decode_to_slice(SIGNATURE, &mut signature).expect("the signature is written in hex");
    if let Ok(payload) = decrypt(bytes, ROUND, &signature) {
        assert_eq!(bytes.len(), payload.len() + OVERHEAD);
        let mut altered = bytes.to_vec();
        let at = payload.iter().fold(0, |sum, b| sum + usize::from(*b)) % altered.len();
        altered[at] ^= 1;
        assert!(decrypt(&altered, ROUND, &signature).is_err(), "byte {at}");
    }
});
