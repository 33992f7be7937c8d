//! Calls to a subtensor chain are other clients' bit for bit, with metadata of real chains.
//!
//! The metadata are other people's data and stay outside: `SUBTENSOR_METADATA` names the directory that has them. Without it
//! this is left out, and says so. A real runtime of spec 218 is held against its vectors by `tests/subtensor`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[path = "common/chain_vectors.rs"]
mod chain_vectors;

use std::path::PathBuf;

use compute_subnet::chain::subtensor::Runtime;

#[test]
fn calls_and_what_is_signed_are_other_clients_bit_for_bit() {
    let Some(dir) = std::env::var_os("SUBTENSOR_METADATA").map(PathBuf::from) else {
        let why = "calls of specs 393 and 425: SUBTENSOR_METADATA names no directory of metadata\n";
        eprint!("LEFT OUT: {why}");
        if let Some(list) = std::env::var_os("COMPUTE_TEST_LEFT_OUT") {
            use std::io::Write;
            let list = std::fs::OpenOptions::new().create(true).append(true).open(list);
            list.unwrap().write_all(why.as_bytes()).unwrap();
        }
        return;
    };
    let runtimes = [
        ("finney_spec393_v16.scale", 393, "spec_393"),
        // The same with the fee's extension as it is named from spec 425 on.
        ("synthetic_spec393_fee_wrapper.scale", 425, "synthetic_425_like"),
        ("metadata_spec425_v15.scale", 425, "synthetic_425_like"),
    ];
    for (file, spec, part) in runtimes {
        let metadata = std::fs::read(dir.join(file)).unwrap();
        let runtime = Runtime::new(&metadata, spec, 1, chain_vectors::genesis()).unwrap();
        assert_eq!(chain_vectors::hold(&runtime, part), 20, "{file}");
    }
}
