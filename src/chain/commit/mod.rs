//! Commits of weights: what is sealed, how, and when it opens. Pure: bytes, times and randomness come in, values go out.
//!
//! A subnet with commit and reveal takes weights in two steps, so that nobody can copy what others found. Since version
//! [`COMMIT_REVEAL_VERSION`] the chain reveals by itself: [`payload`] has what is sealed, [`timelock`] seals it to a
//! round of the beacon [`quicknet`], [`round`] tells which round will be out when the chain looks. The older way, a
//! hash first and the weights later, is [`commit_hash`].
//!
//! # Invariants
//! - No bytes from outside panic here, and nothing is allocated by a length that they state.
//! - Randomness is handed in; [`TimelockSecrets::random`] alone asks the operating system for it.
//! - Payload, ciphertext and hash are those of Bittensor's SDK bit for bit (`tests/vectors/chain`).

pub mod payload;
pub mod quicknet;
pub mod round;
pub mod timelock;

pub use self::payload::{PayloadError, StorageIndex, StorageIndexError, WeightsPayload, commit_hash, storage_index};
pub use self::round::{RoundError, round_for};
pub use self::timelock::{TimelockError, TimelockSecrets, decrypt, encrypt};

/// The scheme of timelocked commits that this is, to be compared with the chain's `CommitRevealWeightsVersion` and sent
/// with each commit: with another number the chain answers `IncorrectCommitRevealVersion`.
pub const COMMIT_REVEAL_VERSION: u16 = 4;

/// What Bittensor's own tools computed, for the tests of this module.
#[cfg(test)]
mod test_vectors {
    use serde_json::Value;

    /// The round that all ciphertexts of the vectors are made for.
    pub(super) const ROUND: u64 = 1000;

    /// Ciphertexts and reveal rounds of bittensor-core 0.1.5.
    pub(super) fn timelock() -> Value {
        serde_json::from_str(include_str!("../../../tests/vectors/chain/timelock_tle.json")).unwrap()
    }

    /// Weights, hashes and addresses of bittensor 10.5.0.
    pub(super) fn sdk() -> Value {
        serde_json::from_str(include_str!("../../../tests/vectors/chain/weights_and_ip.json")).unwrap()
    }

    /// The beacon's real signature of [`ROUND`].
    pub(super) fn signature() -> [u8; 48] {
        bytes(&timelock()["drand"]["signature"]).try_into().unwrap()
    }

    /// Bytes of hex text, with or without `0x`.
    pub(super) fn bytes(text: &Value) -> Vec<u8> {
        let text = text.as_str().unwrap();
        hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap()
    }

    /// A list of 16-bit numbers.
    pub(super) fn numbers(list: &Value) -> Vec<u16> {
        serde_json::from_value(list.clone()).unwrap()
    }
}
