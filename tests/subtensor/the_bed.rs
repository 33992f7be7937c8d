//! The chain under the tests does what they build on.

use std::time::Duration;

use serde_json::{Value, json};
use subxt::ext::jsonrpsee::core::client::{Subscription, SubscriptionClientT as _};
use subxt::ext::jsonrpsee::rpc_params;
use tokio::time::timeout;

use crate::bed::{Bed, DispatchError, Seed, Start, account, coldkey, hotkey, left_out};
use crate::python::{Served, metagraph};
use crate::the_wire::client;
use crate::wait::LONG;

const PALLET: &str = "SubtensorModule";

fn refused(name: &str) -> Option<DispatchError> {
    Some(DispatchError { pallet: Some(PALLET.to_owned()), name: name.to_owned() })
}

#[tokio::test]
async fn a_subnet_is_registered_serves_axons_and_refuses_by_name() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let info = bed.info().await;
    println!("spec {}, ready in {:?}, {} MiB, slots of {} ms", info.spec, bed.took, info.rss_mib, info.slot_ms);
    let netuid = bed.register_subnet().await;
    assert_eq!(bed.storage(PALLET, "Tempo", json!([netuid.0])).await, json!(10));
    assert_eq!(bed.storage(PALLET, "CommitRevealWeightsEnabled", json!([netuid.0])).await, json!(false));

    let bob = account(&compute_subnet::wallet::Keypair::from_uri("//Bob//hot").unwrap());
    let sent = bed.submit("//Bob", PALLET, "burned_register", json!([netuid.0, bob])).await.unwrap();
    assert_eq!(sent.error, None);
    assert!(sent.events.iter().any(|event| event.name == "SubtensorModule.NeuronRegistered"), "{:?}", sent.events);
    assert_eq!(bed.storage(PALLET, "Uids", json!([netuid.0, bob])).await, json!(1));

    let axon = |ip: u32| json!([netuid.0, 1, ip, 8091, 4, 4, 0, 0]);
    let sent = bed.submit("//Bob//hot", PALLET, "serve_axon", axon(0x7f00_0002)).await.unwrap();
    assert_eq!(sent.error, None);
    assert_eq!(bed.storage(PALLET, "Axons", json!([netuid.0, bob])).await["port"], json!(8091));

    let tempo = json!([{ "call": ["AdminUtils", "sudo_set_tempo", [netuid.0, 20]] }]);
    assert_eq!(bed.submit("//Alice", "Sudo", "sudo", tempo).await.unwrap().error, None);
    assert_eq!(bed.storage(PALLET, "Tempo", json!([netuid.0])).await, json!(20));

    // 127.0.0.1 is the one loopback address that the pallet does not take.
    let sent = bed.submit("//Bob//hot", PALLET, "serve_axon", axon(0x7f00_0001)).await;
    let name = sent.map(|sent| sent.error).map_err(|e| (e.code, e.data));
    assert!(
        name == Ok(refused("InvalidIpAddress")) || name == Err((1010, Some("Custom error: 11".into()))),
        "{name:?}"
    );
    let sent = bed.submit("//Charlie", PALLET, "burned_register", json!([60_000, bob])).await;
    let name = sent.map(|sent| sent.error).map_err(|e| (e.code, e.data));
    assert!(
        [Ok(refused("SubNetworkDoesNotExist")), Ok(refused("MechanismDoesNotExist")), Ok(refused("SubnetNotExists"))]
            .contains(&name),
        "{name:?}"
    );
}

/// SCALE's compact form of a length below 2^14.
fn compact(length: usize) -> Vec<u8> {
    if length < 64 { vec![(length as u8) << 2] } else { ((length as u16) << 2 | 1).to_le_bytes().to_vec() }
}

#[tokio::test]
async fn neurons_are_seeded_and_read_back_through_the_runtime() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    let begin = tokio::time::Instant::now();
    bed.seed(netuid, Seed::default()).await;
    println!("256 neurons in {:?}", begin.elapsed());
    // Both spellings of state_call's data are a node's.
    for data in [format!("0x{}", hex::encode(netuid.0.to_le_bytes())), hex::encode(netuid.0.to_le_bytes())] {
        let answer = bed.rpc.ask("state_call", json!(["NeuronInfoRuntimeApi_get_neurons_lite", data])).await;
        let bytes = hex::decode(answer.as_str().unwrap().strip_prefix("0x").unwrap()).unwrap();
        // Old runtimes wrap the list in bytes: one more length in front, of four bytes at this size.
        let list = if bytes.starts_with(&compact(256)) { bytes.as_slice() } else { &bytes[4..] };
        let mut rest = list.strip_prefix(compact(256).as_slice()).expect("256 neurons");
        for uid in 0..256 {
            let key = hotkey(uid).hotkey().0;
            let at = rest.windows(32).position(|part| part == key).unwrap_or_else(|| panic!("uid {uid} is missing"));
            rest = &rest[at + 32..];
        }
    }
}

#[tokio::test]
async fn an_epoch_pays_those_whom_validators_weigh() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    let seed = Seed { neurons: 64, ..Seed::default() };
    bed.seed(netuid, seed).await;
    let weights: Vec<(u16, u16)> = (4..8).map(|uid| (uid, uid * 100)).collect();
    for validator in 0..4 {
        bed.set_storage(&[(PALLET, "Weights", json!([netuid.0, validator]), json!(weights))]).await;
    }
    let begin = tokio::time::Instant::now();
    bed.new_blocks(24).await;
    println!("24 blocks with epochs of 64 neurons in {:?}", begin.elapsed());
    let of = async |item: &str| -> Vec<u64> {
        let all = bed.storage(PALLET, item, json!([netuid.0])).await;
        all.as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect()
    };
    let stake = bed.storage(PALLET, "TotalHotkeyAlpha", json!([account(&hotkey(0)), netuid.0])).await;
    assert!(stake.as_u64().unwrap() > seed.stake, "no epoch has paid: {stake}");
    let (incentive, dividends) = (of("Incentive").await, of("Dividends").await);
    if incentive.iter().all(|paid| *paid == 0) {
        // The runtime of raonet (spec 218) has an epoch in each block that pays by stake and does not look at weights.
        return left_out("this runtime's epochs do not look at weights: what miners are paid is not seen");
    }
    assert!(incentive[4] > 0 && incentive[4] < incentive[7], "{incentive:?}");
    assert!(incentive[8..].iter().all(|paid| *paid == 0), "{incentive:?}");
    assert!(dividends[..4].iter().all(|paid| *paid > 0), "{dividends:?}");
}

#[tokio::test]
async fn weights_that_come_too_fast_are_refused_until_blocks_have_passed() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed { neurons: 8, ..Seed::default() }).await;
    let set = json!([netuid.0, [4, 5], [1, 65_535], 0]);
    let sent = bed.submit("//n0//hot", PALLET, "set_weights", set.clone()).await.unwrap();
    assert_eq!(sent.error, None);
    assert_eq!(bed.storage(PALLET, "Weights", json!([netuid.0, 0])).await, json!([[4, 1], [5, 65_535]]));
    bed.set_storage(&[(PALLET, "WeightsSetRateLimit", json!([netuid.0]), json!(100))]).await;
    // Newer runtimes say so in the pool already.
    let again = bed.submit("//n0//hot", PALLET, "set_weights", set.clone()).await;
    let why = again.map(|sent| sent.error).map_err(|e| (e.code, e.message, e.data));
    let in_the_pool = Err((1010, "Invalid Transaction".to_owned(), Some("Custom error: 6".to_owned())));
    assert!(why == Ok(refused("SettingWeightsTooFast")) || why == in_the_pool, "{why:?}");
    // Time is blocks: after a jump the same call is fine.
    bed.jump(sent.block.number + 150).await;
    assert_eq!(bed.submit("//n0//hot", PALLET, "set_weights", set).await.unwrap().error, None);
    // What the jump left out does not exist.
    let hash = bed.rpc.ask("chain_getBlockHash", json!([sent.block.number + 50])).await;
    assert_eq!(hash, json!(null));
}

#[tokio::test]
async fn time_moves_with_blocks_jumps_and_by_itself() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let first = bed.info().await;
    bed.new_blocks(2).await;
    assert_eq!(bed.info().await.now_ms, first.now_ms + 2 * first.slot_ms);
    let later = first.now_ms + 1_000_000 * first.slot_ms;
    bed.time_travel(later).await;
    bed.new_blocks(1).await;
    assert_eq!(bed.info().await.now_ms, later + first.slot_ms);
    let begin = bed.head().await;
    bed.every(Duration::from_millis(100)).await;
    crate::until("blocks come by themselves", async || (bed.head().await >= begin + 5).then_some(())).await;
    bed.at_once().await;
}

#[tokio::test]
async fn a_reorg_takes_back_what_was_not_final() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed { neurons: 8, ..Seed::default() }).await;
    bed.finality(6).await;
    bed.new_blocks(8).await;
    let set = json!([netuid.0, [4], [65_535], 0]);
    let weights = async || bed.storage(PALLET, "Weights", json!([netuid.0, 0])).await;
    let sent = bed.submit("//n0//hot", PALLET, "set_weights", set.clone()).await.unwrap();
    assert_eq!(weights().await, json!([[4, 65_535]]));
    assert_eq!(bed.reorg(2, true).await, 1);
    assert_eq!(weights().await, json!([]));
    let now = bed.rpc.ask("chain_getBlockHash", json!([sent.block.number])).await;
    assert_ne!(now, json!(sent.block.hash));
    // The replaced block can still be read by its hash.
    assert!(bed.rpc.ask("chain_getHeader", json!([sent.block.hash])).await.is_object());

    bed.submit("//n0//hot", PALLET, "set_weights", set).await.unwrap();
    assert_eq!(bed.reorg(1, false).await, 1);
    crate::until("it is in a block again", async || (weights().await == json!([[4, 65_535]])).then_some(())).await;
    // What is final stays.
    assert!(bed.rpc.call("test_reorg", json!([7])).await.unwrap_err().message.contains("is final"));
}

#[tokio::test]
async fn transactions_wait_in_the_pool_where_blocks_are_made_by_hand() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    bed.by_hand().await;
    let remark = async |what: &str| bed.sign("//Alice", "System", "remark", json!([what])).await;
    let (one, rival) = (remark("0x11").await, remark("0x22").await);
    let send = async |extrinsic: &str| bed.rpc.call("author_submitExtrinsic", json!([extrinsic])).await;
    send(&one).await.unwrap();
    assert_eq!(bed.rpc.ask("author_pendingExtrinsics", json!([])).await, json!([one]));
    let refused = async |extrinsic: &str| {
        let error = send(extrinsic).await.unwrap_err();
        (error.code, error.data)
    };
    assert_eq!(refused(&one).await.0, 1013);
    assert_eq!(refused(&rival).await.0, 1014);
    bed.new_blocks(1).await;
    assert_eq!(bed.rpc.ask("author_pendingExtrinsics", json!([])).await, json!([]));
    assert_eq!(refused(&one).await, (1010, Some("Transaction is outdated".to_owned())));
    assert_eq!(refused("0x1100").await.0, 1002);
}

#[tokio::test]
async fn a_watched_transaction_goes_through_a_reorg_to_finality() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    bed.by_hand().await;
    bed.finality(4).await;
    bed.new_blocks(6).await;
    let client = client(&bed.url()).await.unwrap();
    let extrinsic = bed.sign("//Alice", "System", "remark", json!(["0x11"])).await;
    let mut watched: Subscription<Value> = client
        .subscribe("author_submitAndWatchExtrinsic", rpc_params![extrinsic], "author_unwatchExtrinsic")
        .await
        .unwrap();
    let mut next = async || timeout(LONG, watched.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(next().await, json!("ready"));
    assert!(next().await["broadcast"].is_array());
    bed.new_blocks(1).await;
    let first = next().await["inBlock"].clone();
    assert_eq!(first, bed.rpc.ask("chain_getBlockHash", json!([])).await);
    assert_eq!(bed.reorg(1, false).await, 1);
    assert_eq!(next().await, json!({ "retracted": first }));
    bed.new_blocks(1).await;
    let second = next().await["inBlock"].clone();
    assert_ne!(second, first);
    bed.new_blocks(4).await;
    assert_eq!(next().await, json!({ "finalized": second }));
    assert_eq!(bed.rpc.ask("chain_getFinalizedHead", json!([])).await, second);
}

#[tokio::test]
async fn the_sdk_of_the_original_reads_what_the_chain_has() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed { neurons: 8, ..Seed::default() }).await;
    bed.new_blocks(1).await;
    let sent = bed.submit("//n0//hot", PALLET, "set_weights", json!([netuid.0, [4, 5], [1, 65_535], 0])).await.unwrap();
    assert_eq!(sent.error, None);
    let metrics = json!([netuid.0, 1, 0x7f00_0002, 9_100, 4]);
    assert_eq!(bed.submit("//n4//hot", PALLET, "serve_prometheus", metrics).await.unwrap().error, None);
    let Some(seen) = metagraph(&bed.url(), netuid).await else { return };
    assert_eq!(seen.block, bed.head().await);
    assert_eq!(seen.neurons.len(), 8);
    for (uid, neuron) in seen.neurons.iter().enumerate() {
        let keys = (hotkey(uid).hotkey().to_string(), coldkey(uid).hotkey().to_string());
        assert_eq!((usize::from(neuron.uid), &neuron.hotkey, &neuron.coldkey), (uid, &keys.0, &keys.1));
        assert!(neuron.active, "{neuron:?}");
        let at = |port, protocol| Served { ip: "127.0.0.2".into(), port, ip_type: 4, version: 1, protocol };
        assert_eq!(neuron.axon, (uid >= 4).then(|| at(8_100 + uid as u16, Some(4))));
        assert_eq!(neuron.prometheus, (uid == 4).then(|| at(9_100, None)));
        assert!(neuron.permit || uid >= 4, "{neuron:?}");
    }
    assert_eq!(seen.neurons[0].weights, [(4, 1), (5, 65_535)]);
    assert_eq!(seen.neurons[0].last_update, sent.block.number);
    assert!(seen.neurons[1].weights.is_empty());
}
