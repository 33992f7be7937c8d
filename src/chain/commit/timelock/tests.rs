//! Timelocks: what Bittensor's tool encrypts we open, what we encrypt opens, and nothing altered does.

use proptest::prelude::*;

use super::super::test_vectors::{ROUND, bytes, signature, timelock};
use super::*;

/// Secrets that depend on `n` alone.
fn secrets(n: u8) -> TimelockSecrets {
    TimelockSecrets::new([n; 32], [n ^ 0x55; 32], [n ^ 0xaa; 12])
}

/// Payload and ciphertext of each vector.
fn vectors() -> Vec<(Vec<u8>, Vec<u8>)> {
    let file = timelock();
    let cases = file["cases"].as_array().unwrap();
    cases.iter().map(|c| (bytes(&c["payload_scale_hex"]), bytes(&c["tle_ciphertext_hex"]))).collect()
}

/// As [`decrypt`], with a signature that was checked before: what an altered ciphertext meets.
fn open(ciphertext: &[u8]) -> Result<Vec<u8>, TimelockError> {
    let point = G1Affine::deserialize_compressed_unchecked(signature().as_slice()).unwrap();
    Parts::read(ciphertext)?.open(ROUND, point)
}

#[test]
fn every_ciphertext_of_bittensors_tool_opens_with_the_rounds_signature() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 3);
    for (payload, ciphertext) in vectors {
        assert_eq!(decrypt(&ciphertext, ROUND, &signature()).unwrap(), payload);
    }
}

#[test]
fn a_ciphertext_is_made_again_bit_for_bit_from_the_secrets_found_in_it() {
    for (payload, ciphertext) in vectors() {
        let parts = Parts::read(&ciphertext).unwrap();
        let point = quicknet::signature_point(ROUND, &signature()).unwrap();
        let u = G2Affine::deserialize_compressed(parts.u).unwrap();
        let sigma = masked(parts.v, &mask_of(&Bls12_381::pairing(point, u)));
        let key = masked(parts.w, &Sha256::digest(sigma.as_slice()).into());
        let again = TimelockSecrets::new(*sigma, *key, *parts.nonce);
        assert_eq!(encrypt(&payload, ROUND, again).unwrap(), ciphertext);
    }
}

#[test]
fn ours_open_too_and_have_the_sizes_of_bittensors() {
    for (payload, ciphertext) in vectors() {
        let ours = encrypt(&payload, ROUND, TimelockSecrets::random().unwrap()).unwrap();
        assert_eq!(ours.len(), 244 + payload.len());
        assert_eq!(ours.len(), ciphertext.len());
        assert_eq!(decrypt(&ours, ROUND, &signature()).unwrap(), payload);
    }
}

#[test]
fn the_shortest_and_the_longest_payload_go_through_and_a_longer_one_is_refused() {
    for payload in [vec![], vec![7; MAX_PAYLOAD]] {
        let ciphertext = encrypt(&payload, ROUND, secrets(1)).unwrap();
        assert_eq!(decrypt(&ciphertext, ROUND, &signature()).unwrap(), payload);
    }
    let long = encrypt(&[7; MAX_PAYLOAD + 1], ROUND, secrets(1)).unwrap_err();
    assert_eq!(long, TimelockError::PayloadTooLong(4757));
    assert_eq!(long.to_string(), "a payload of 4757 bytes: the chain takes commits of up to 4756; send fewer weights");
    assert_eq!(decrypt(&[0; MAX_CIPHERTEXT + 1], ROUND, &signature()), Err(TimelockError::Length(5001)));
}

#[test]
fn nothing_is_encrypted_to_a_round_that_never_is() {
    assert_eq!(encrypt(b"weights", 0, secrets(1)), Err(TimelockError::Round));
}

#[test]
fn another_round_or_another_signature_opens_nothing() {
    let ours = encrypt(b"weights", ROUND + 1, secrets(1)).unwrap();
    assert_eq!(decrypt(&ours, ROUND, &signature()), Err(TimelockError::Refused(ROUND)));
    assert_eq!(decrypt(&ours, ROUND + 1, &signature()), Err(TimelockError::Signature(ROUND + 1)));
    assert_eq!(decrypt(&ours, ROUND, &[0; 48]), Err(TimelockError::Signature(ROUND)));
}

#[test]
fn a_ciphertext_whose_u_does_not_follow_from_its_secrets_is_refused() {
    let right = secrets(1).scalar();
    let sealed = |r: &Fr| open(&seal(b"weights", ROUND, &secrets(1), r).unwrap());
    assert_eq!(sealed(&right), Ok(b"weights".to_vec()));
    // Every mask fits this one, and its body opens: only the last look tells.
    assert_eq!(sealed(&(*right + Fr::from(1u8))), Err(TimelockError::Refused(ROUND)));
}

#[test]
fn fresh_secrets_differ_and_are_never_printed() {
    let (one, two) = (TimelockSecrets::random().unwrap(), TimelockSecrets::random().unwrap());
    assert!(one.sigma != two.sigma && one.key != two.key && one.nonce != two.nonce);
    assert_eq!(format!("{one:?}"), "TimelockSecrets(..)");
}

#[test]
fn every_part_of_a_ciphertext_is_an_error_and_so_is_one_with_more_behind() {
    let (_, ciphertext) = vectors().swap_remove(0);
    for length in 0..ciphertext.len() {
        assert!(open(&ciphertext[..length]).is_err(), "{length} bytes");
        assert!(open(&ciphertext[length + 1..]).is_err(), "without the first {}", length + 1);
    }
    assert!(open(&[ciphertext.as_slice(), &[0]].concat()).is_err());
}

#[test]
fn each_byte_altered_is_an_error_that_names_the_field_where_there_is_one() {
    let (_, ciphertext) = vectors().swap_remove(0);
    for at in 0..ciphertext.len() {
        let mut altered = ciphertext.clone();
        altered[at] ^= 1 << (at % 8);
        let error = open(&altered).unwrap_err();
        let expected = match at {
            0..96 => matches!(error, TimelockError::Point | TimelockError::Refused(ROUND)),
            96..104 | 136..144 | 176..192 | 263..271 | 283..291 => {
                matches!(error, TimelockError::FieldLength { at: field, .. } if field / 8 * 8 <= at && at < field + 8)
            }
            291.. => matches!(error, TimelockError::Suite(_)),
            _ => error == TimelockError::Refused(ROUND),
        };
        assert!(expected, "byte {at}: {error}");
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let (_, ciphertext) = vectors().swap_remove(0);
    let error = |at: usize, byte: u8| {
        let mut altered = ciphertext.clone();
        altered[at] = byte;
        open(&altered).unwrap_err().to_string()
    };
    assert_eq!(error(97, 1), "the length of v at byte 96 is 288, in this ciphertext it can only be 32");
    assert_eq!(error(200, !ciphertext[200]), "the ciphertext was altered, or made for another round than 1000");
    assert_eq!(error(298, b'\n'), "the cipher suite is AES_GCM\\n, expected AES_GCM_");
    assert_eq!(open(&ciphertext[..243]).unwrap_err().to_string(), "a ciphertext of 243 bytes, expected 244 to 5000");
}

proptest! {
    // A case costs milliseconds.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The fuzzer's promise: any bytes at all end in an error or in what was encrypted.
    #[test]
    fn flipped_bits_and_cut_ends_never_open_and_never_panic(
        payload in proptest::collection::vec(any::<u8>(), 0..200),
        flips in proptest::collection::btree_set(0usize..8 * 244, 0..4),
        cut in 0usize..3,
        n: u8,
    ) {
        let good = encrypt(&payload, ROUND, secrets(n)).unwrap();
        let mut bytes = good.clone();
        for bit in flips {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes.truncate(bytes.len() - cut);
        let opened = open(&bytes);
        if bytes == good {
            prop_assert_eq!(opened, Ok(payload));
        } else {
            prop_assert!(opened.is_err());
        }
    }

    #[test]
    fn bytes_from_anybody_are_an_error(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(open(&noise).is_err());
    }
}
