//! The calls of `tests/vectors/chain/extrinsics.json`, which subxt and bittensor-core made, and how they are held against ours.

use compute_subnet::chain::subtensor::{Call, Era, Mechanism, Runtime};
use compute_subnet::ids::{Hash32, Netuid, Uid};
use compute_subnet::wallet::Keypair;

fn vectors() -> serde_json::Value {
    serde_json::from_str(include_str!("../vectors/chain/extrinsics.json")).unwrap()
}

/// The genesis hash that the vectors are signed for: finney's.
pub(crate) fn genesis() -> Hash32 {
    let text = vectors()["fixed_inputs"]["genesis_hash"].as_str().unwrap().to_owned();
    Hash32(hex::decode(text.trim_start_matches("0x")).unwrap().try_into().unwrap())
}

/// The calls of the vectors, by their names there.
fn calls() -> Vec<(&'static str, Call)> {
    let netuid = Netuid(27);
    let mechanism = Mechanism::first(netuid);
    let axon =
        |certificate| Call::ServeAxon { netuid, version: 183, at: ("192.0.2.1".parse().unwrap(), 8091), certificate };
    let timelocked = |id| Call::CommitTimelockedWeights {
        mechanism: Mechanism { netuid, id },
        commit: vec![0xaa; 10],
        round: 30_000_000,
        version: 4,
    };
    vec![
        (
            "set_weights",
            Call::SetWeights {
                mechanism,
                entries: vec![(Uid(1), 65_535), (Uid(5), 100), (Uid(9), 7)],
                version_key: 183,
            },
        ),
        (
            "set_mechanism_weights",
            Call::SetWeights {
                mechanism: Mechanism { netuid, id: 1 },
                entries: vec![(Uid(1), 65_535)],
                version_key: 0,
            },
        ),
        ("serve_axon", axon(None)),
        ("serve_axon_tls", axon(Some(vec![1, 2, 3]))),
        (
            "serve_prometheus",
            Call::ServePrometheus { netuid, version: 183, at: ("2001:db8::1".parse().unwrap(), 9100) },
        ),
        ("burned_register", Call::BurnedRegister { netuid, hotkey: Keypair::from_uri("//Bob").unwrap().hotkey() }),
        ("commit_weights", Call::CommitWeights { mechanism, hash: Hash32([0x11; 32]) }),
        (
            "reveal_weights",
            Call::RevealWeights {
                mechanism,
                entries: vec![(Uid(1), 10), (Uid(2), 20)],
                salt: vec![7, 8, 9],
                version_key: 183,
            },
        ),
        ("commit_timelocked_weights", timelocked(0)),
        ("commit_timelocked_mechanism_weights", timelocked(1)),
    ]
}

/// Checks every call of one part of the vectors: its bytes, what is signed, and that the signature is ours; how many there are.
pub(crate) fn hold(runtime: &Runtime, part: &str) -> usize {
    let vectors = vectors();
    let mut held = 0;
    for (name, vector) in vectors[part]["calls"].as_object().unwrap() {
        let (_, call) = calls().into_iter().find(|(known, _)| known == name).expect(name);
        assert_eq!(call.name(), name);
        // The vector is of mechanism 0, for which we use the older call: the byte of the mechanism differs.
        let other_mechanism = name == "commit_timelocked_mechanism_weights";
        let patched = |mut bytes: Vec<u8>| {
            if other_mechanism {
                assert_eq!(std::mem::take(&mut bytes[4]), 1);
            }
            hex::encode(bytes)
        };
        assert_eq!(patched(runtime.call_bytes(&call).unwrap()), vector["call_hex"].as_str().unwrap(), "{name}");
        let eras = [
            ("immortal", Era::Immortal),
            ("mortal128", Era::Mortal { number: 6_000_000, hash: Hash32([0x42; 32]), blocks: 128 }),
        ];
        for (era_name, era) in eras {
            let payload = runtime.signer_payload(&call, 7, era).unwrap();
            assert_eq!(
                patched(payload.clone()),
                vector["signer_payload"][era_name].as_str().unwrap(),
                "{name} {era_name}"
            );
            let alice = Keypair::from_uri("//Alice").unwrap();
            let signed = runtime.sign(&call, &alice, 7, era).unwrap();
            let expected = &vector["signed_extrinsic"][era_name];
            assert_eq!(signed.bytes.len() as u64, expected["len"].as_u64().unwrap(), "{name} {era_name}");
            // Length, version, address and the kind of signature; the signature itself is another each time.
            let head = expected.get("hex").or_else(|| expected.get("head_hex")).unwrap().as_str().unwrap();
            assert_eq!(hex::encode(&signed.bytes[..37]), head[..74], "{name} {era_name}");
            let signature = signed.bytes[37..101].try_into().unwrap();
            assert!(compute_subnet::wallet::verify(&alice.hotkey(), &payload, &signature), "{name} {era_name}");
            held += 1;
        }
    }
    held
}
