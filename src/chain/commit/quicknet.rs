//! The beacon that opens timelocks: drand's chain "quicknet" of scheme `bls-unchained-g1-rfc9380`.
//!
//! Every 3 seconds it publishes a BLS signature over the number of its round and nothing else. What is encrypted to a
//! round opens with that round's signature (identity-based encryption, the identity being the round).
//!
//! The constants are those of <https://docs.drand.love/docs/cryptography/quicknet>, compiled into every Bittensor tool
//! and into the chain; the chain's hash covers them all.

use std::sync::LazyLock;

use ark_bls12_381::{Bls12_381, G1Affine, G1Projective, G2Affine, g1};
use ark_ec::AffineRepr as _;
use ark_ec::hashing::HashToCurve as _;
use ark_ec::hashing::curve_maps::wb::WBMap;
use ark_ec::hashing::map_to_curve_hasher::MapToCurveBasedHasher;
use ark_ec::pairing::Pairing as _;
use ark_ff::field_hashers::DefaultFieldHasher;
use ark_serialize::CanonicalDeserialize as _;
use sha2::{Digest as _, Sha256};

/// When round 1 was published: seconds since the Unix epoch.
pub const GENESIS_SECONDS: u64 = 1_692_803_367;
/// Seconds from one round to the next.
pub const PERIOD_SECONDS: u64 = 3;
/// The chain's hash, its name at drand's servers.
pub const CHAIN_HASH: &str = "52db9ba70e0cc0f6eaf7803dd07447a1f5477735fd3f661792ba94600c84e971";
/// The group key: a point of G2, compressed as ZCash does, in hex.
pub const PUBLIC_KEY: &str = "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d1064510d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a";
/// A signature's length in bytes: a point of G1, compressed.
pub const SIGNATURE_BYTES: usize = 48;

/// The domain of the hash to G1 (RFC 9380).
const DOMAIN: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

/// [`PUBLIC_KEY`] as a point.
pub(super) static KEY: LazyLock<G2Affine> = LazyLock::new(|| {
    let bytes = hex::decode(PUBLIC_KEY).expect("the key is written in hex");
    G2Affine::deserialize_compressed(bytes.as_slice()).expect("the key is a point of G2")
});

/// What the beacon signs in this round: the hash of the round's number, big endian, as a point of G1.
pub(super) fn identity(round: u64) -> G1Affine {
    type ToG1 = MapToCurveBasedHasher<G1Projective, DefaultFieldHasher<Sha256, 128>, WBMap<g1::Config>>;
    let message = Sha256::digest(round.to_be_bytes());
    let hashed = ToG1::new(DOMAIN).and_then(|to_g1| to_g1.hash(&message));
    hashed.expect("every message hashes to a point of G1")
}

/// The signature as a point, if it is the beacon's of this round.
pub(super) fn signature_point(round: u64, signature: &[u8; SIGNATURE_BYTES]) -> Option<G1Affine> {
    let point = G1Affine::deserialize_compressed(signature.as_slice()).ok()?;
    // e(signature, generator) = e(identity, key), as one product that must be 1.
    let product = Bls12_381::multi_pairing([point, -identity(round)], [G2Affine::generator(), *KEY]);
    (product.0 == ark_ff::Field::ONE).then_some(point)
}

/// Whether this is the beacon's signature of this round. Two pairings, some milliseconds.
pub fn is_signature(round: u64, signature: &[u8; SIGNATURE_BYTES]) -> bool {
    signature_point(round, signature).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::test_vectors::{ROUND, signature, timelock};
    use super::*;

    #[test]
    fn the_constants_are_those_of_bittensors_tool() {
        let drand = &timelock()["drand"];
        assert_eq!(drand["public_key"], PUBLIC_KEY);
        assert_eq!(drand["genesis_time"], GENESIS_SECONDS);
        assert_eq!(drand["period"], PERIOD_SECONDS);
    }

    #[test]
    fn a_signature_is_good_for_its_own_round_only_and_unaltered() {
        let good = signature();
        assert!(is_signature(ROUND, &good));
        for round in [0, ROUND - 1, ROUND + 1, u64::MAX] {
            assert!(!is_signature(round, &good), "round {round}");
        }
        for bit in (0..8 * SIGNATURE_BYTES).step_by(29).chain([0, 1, 2]) {
            let mut altered = good;
            altered[bit / 8] ^= 0x80 >> (bit % 8);
            assert!(!is_signature(ROUND, &altered), "bit {bit}");
        }
    }

    #[test]
    fn neither_infinity_nor_zeros_nor_a_point_outside_the_group_is_a_signature() {
        let mut infinity = [0; SIGNATURE_BYTES];
        infinity[0] = 0xc0;
        assert!(!is_signature(ROUND, &infinity));
        assert!(!is_signature(ROUND, &[0; SIGNATURE_BYTES]));
        assert!(!is_signature(ROUND, &[0xff; SIGNATURE_BYTES]));
        // The curve has points of other orders, with small numbers for x among them.
        let mut stray = [0; SIGNATURE_BYTES];
        let parsed = (1..=u8::MAX).find_map(|x| {
            (stray[0], stray[SIGNATURE_BYTES - 1]) = (0x80, x);
            G1Affine::deserialize_compressed_unchecked(stray.as_slice()).ok()
        });
        let parsed = parsed.unwrap();
        assert!(parsed.is_on_curve() && !parsed.is_in_correct_subgroup_assuming_on_curve());
        assert!(!is_signature(ROUND, &stray));
    }
}
