//! Answers of runtimes against vectors of other clients, with metadata of real chains; what is signed is in `tests/chain_codec.rs`.
//!
//! The metadata are other people's data and stay outside: `SUBTENSOR_METADATA` names the directory that has them. Without it
//! these tests are left out, and say so.

use std::path::PathBuf;

use serde_json::Value as Json;
use subxt::dynamic::Value;
use subxt::ext::scale_decode::DecodeAsType;

use super::neurons::{self, NEURON_API, SELECTIVE, SUBNET_API, Source};
use super::*;
use crate::ids::{Hash32, Hotkey, Netuid, Uid};

/// Finney's metadata at spec 393 (version 16).
const FINNEY_393: (&str, u32) = ("finney_spec393_v16.scale", 393);
/// A runtime of spec 425 (version 15).
const SPEC_425: (&str, u32) = ("metadata_spec425_v15.scale", 425);

fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap()
}

fn answers() -> Json {
    json(include_str!("../../../tests/vectors/chain/runtime_api_decode.json"))
}

fn unhex(text: &Json) -> Vec<u8> {
    let text = text.as_str().unwrap();
    hex::decode(text.strip_prefix("0x").unwrap_or(text)).unwrap()
}

/// A runtime of that metadata; `None`, loudly, where it is not at hand.
fn runtime((file, spec): (&str, u32)) -> Option<Runtime> {
    let Some(dir) = std::env::var_os("SUBTENSOR_METADATA").map(PathBuf::from) else {
        let why = format!("offline decoding with {file}: SUBTENSOR_METADATA names no directory of metadata\n");
        eprint!("LEFT OUT: {why}");
        if let Some(list) = std::env::var_os("COMPUTE_TEST_LEFT_OUT") {
            use std::io::Write;
            let list = std::fs::OpenOptions::new().create(true).append(true).open(list);
            list.unwrap().write_all(why.as_bytes()).unwrap();
        }
        return None;
    };
    let bytes = std::fs::read(dir.join(file)).unwrap();
    Some(Runtime::new(&bytes, spec, 1, Hash32([1; 32])).unwrap())
}

#[test]
fn a_call_that_a_runtime_lacks_is_named() {
    let Some(runtime) = runtime(FINNEY_393) else { return };
    let call = Call::RegisterLimit { netuid: Netuid(27), hotkey: Hotkey([1; 32]), limit_rao: 1 };
    let error = runtime.call_bytes(&call).unwrap_err().to_string();
    assert_eq!(error, "spec 393 of the chain's runtime has no call SubtensorModule.register_limit");
    let Some(newer) = self::runtime(SPEC_425) else { return };
    assert!(newer.call_bytes(&call).is_ok());
}

#[test]
fn metadata_that_is_none_is_refused() {
    assert!(matches!(Runtime::new(b"meta", 1, 1, Hash32([1; 32])), Err(CodecError::Metadata(_))));
    assert!(matches!(Runtime::new(&vec![0; 17 << 20], 1, 1, Hash32([1; 32])), Err(CodecError::Metadata(_))));
}

#[test]
fn epochs_are_found_by_what_the_metadata_has() {
    let Some(old) = runtime(FINNEY_393) else { return };
    let Some(new) = runtime(SPEC_425) else { return };
    assert!(!old.has_storage("SubnetEpochIndex"));
    assert!(new.has_storage("SubnetEpochIndex"));
    assert_eq!(Source::of(&old), Source::Selective);
    assert_eq!(Source::of(&new), Source::Selective);
    assert_eq!(old.block_time().unwrap(), std::time::Duration::from_secs(12));
}

#[test]
fn the_lite_neurons_of_finneys_metadata_are_read_by_name() {
    let Some(runtime) = runtime(FINNEY_393) else { return };
    let vector = &answers()["get_neurons_lite"];
    let neurons = neurons::read(&runtime, Source::Lite, Netuid(27), &unhex(&vector["hex"])).unwrap();
    let expected = &vector["expect"][0];
    assert_eq!(neurons.len(), 1);
    let n = &neurons[0];
    assert_eq!(n.hotkey.0.as_slice(), unhex(&expected["hotkey"]));
    assert_eq!(u64::from(n.uid.0), expected["uid"].as_u64().unwrap());
    assert_eq!(n.stake_rao, expected["stake_rao"].as_u64().unwrap());
    assert_eq!(n.last_update, expected["last_update"].as_u64().unwrap());
    assert_eq!(n.emission_rao, expected["emission"].as_u64().unwrap());
    assert_eq!(u64::from(n.pruning_score), expected["pruning_score"].as_u64().unwrap());
    assert!(n.validator_permit);
    let axon = n.axon.unwrap();
    assert_eq!((axon.ip.to_string().as_str(), axon.port, axon.version, axon.protocol), ("192.0.2.1", 8091, 183, 4));
    assert_eq!(n.prometheus.unwrap().unwrap().port, 9100);
}

#[test]
fn the_selective_metagraph_of_the_vectors_is_read_by_name() {
    #[derive(DecodeAsType)]
    #[decode_as_type(crate_path = "subxt::ext::scale_decode")]
    struct Some_ {
        netuid: u16,
        name: Option<Vec<u8>>,
        tempo: Option<u16>,
        hotkeys: Option<Vec<[u8; 32]>>,
        validator_permit: Option<Vec<bool>>,
        last_update: Option<Vec<u64>>,
        total_stake: Option<Vec<u64>>,
    }
    let Some(runtime) = runtime(FINNEY_393) else { return };
    let vector = &answers()["get_selective_metagraph"];
    let bytes = unhex(&vector["hex"]);
    let read: Option<Some_> = runtime.answer(SUBNET_API, "get_selective_metagraph", &bytes).unwrap();
    let (read, expected) = (read.unwrap(), &vector["expect"]);
    let list = |key: &str| -> Vec<u64> { serde_json::from_value(expected[key].clone()).unwrap() };
    assert_eq!(u64::from(read.netuid), expected["netuid"].as_u64().unwrap());
    assert_eq!(read.name.unwrap(), expected["name"].as_str().unwrap().as_bytes());
    assert_eq!(u64::from(read.tempo.unwrap()), expected["tempo"].as_u64().unwrap());
    assert_eq!(read.hotkeys.unwrap().len() as u64, expected["hotkeys"].as_u64().unwrap());
    assert_eq!(read.validator_permit.unwrap(), [true, false]);
    assert_eq!(read.last_update.unwrap(), list("last_update"));
    assert_eq!(read.total_stake.unwrap(), list("total_stake"));
    // It has not the fields that a node asks for: that is an error, not a subnet without neurons.
    let error = neurons::read(&runtime, Source::Selective, Netuid(27), &bytes).unwrap_err().to_string();
    assert!(error.contains("it has no coldkeys"), "{error}");
}

/// An answer of `get_selective_mechagraph` with so many neurons, made by the metadata.
fn selective(runtime: &Runtime, netuid: u16, count: u16, short: Option<&str>) -> Vec<u8> {
    let some = |value: Value| Value::unnamed_variant("Some", [value]);
    let none = || Value::unnamed_variant("None", []);
    let each = |of: &dyn Fn(u16) -> Value| some(Value::unnamed_composite((0..count).map(of)));
    let n = |number: u128| Value::u128(number);
    let key = |mark: u8, i: u16| {
        let mut key = [mark; 32];
        key[..2].copy_from_slice(&i.to_le_bytes());
        Value::from_bytes(key)
    };
    let axon = |i: u16| {
        Value::named_composite([
            ("block", n(9)),
            ("version", n(183)),
            ("ip", n(if i == 0 { 0 } else { 0x0a00_0000 + u128::from(i) })),
            ("port", n(8000 + u128::from(i))),
            ("ip_type", n(4)),
            ("protocol", n(4)),
            ("placeholder1", n(0)),
            ("placeholder2", n(0)),
        ])
    };
    let fields = runtime.fields_of_answer(SUBNET_API, SELECTIVE).unwrap();
    let value = Value::named_composite(fields.iter().map(|name| {
        let value = match name.as_str() {
            "netuid" => n(u128::from(netuid)),
            name if Some(name) == short => some(Value::unnamed_composite([])),
            "hotkeys" => each(&|i| key(1, i)),
            "coldkeys" => each(&|i| key(2, i)),
            "axons" => each(&axon),
            "active" => each(&|_| Value::bool(true)),
            "validator_permit" => each(&|i| Value::bool(i < 4)),
            "pruning_score" | "dividends" | "incentives" | "consensus" | "trust" => each(&|i| n(u128::from(i))),
            "last_update" | "block_at_registration" => each(&|i| n(6_000_000 + u128::from(i))),
            "emission" | "total_stake" => each(&|i| n(1_000_000_000 * u128::from(i))),
            _ => none(),
        };
        (name.clone(), value)
    }));
    runtime.encode_answer(SUBNET_API, SELECTIVE, &some(value)).unwrap()
}

#[test]
fn a_selective_metagraph_becomes_neurons_with_both_runtimes() {
    for metadata in [FINNEY_393, SPEC_425] {
        let Some(runtime) = runtime(metadata) else { return };
        let bytes = selective(&runtime, 27, 256, None);
        let neurons = neurons::read(&runtime, Source::Selective, Netuid(27), &bytes).unwrap();
        assert_eq!(neurons.len(), 256);
        let n = &neurons[3];
        assert_eq!((n.uid, n.stake_rao, n.validator_permit), (Uid(3), 3_000_000_000, true));
        assert_eq!(n.registered_at, Some(6_000_003));
        assert_eq!(n.axon.unwrap().ip.to_string(), "10.0.0.3");
        assert!(neurons[0].axon.is_none(), "address 0 says that it serves none");
        assert!(!neurons[200].validator_permit);
        assert!(neurons[200].prometheus.is_none(), "the answer does not say");
    }
}

#[test]
fn half_an_answer_about_neurons_is_none() {
    let Some(runtime) = runtime(SPEC_425) else { return };
    let read = |bytes: &[u8]| neurons::read(&runtime, Source::Selective, Netuid(27), bytes);
    let short = selective(&runtime, 27, 5, Some("total_stake"));
    assert!(read(&short).unwrap_err().to_string().contains("5 hotkeys and 0 of total_stake"));
    let other = selective(&runtime, 28, 5, None);
    assert!(read(&other).unwrap_err().to_string().contains("subnet 28 answers for 27"));
    assert!(read(&[0]).unwrap_err().to_string().contains("there is no subnet 27"));
    let whole = selective(&runtime, 27, 5, None);
    for cut in 0..whole.len() {
        assert!(read(&whole[..cut]).is_err(), "cut to {cut} of {} bytes", whole.len());
    }
    let mut longer = whole;
    longer.push(0);
    assert!(read(&longer).unwrap_err().to_string().contains("left over"));
    assert!(!runtime.answers_bytes(NEURON_API, neurons::LITE));
}
