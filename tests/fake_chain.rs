//! The fake chain misbehaves as its script says, and otherwise is a chain, seen by the clients that subxt uses.
//!
//! What wants metadata is left out, and says so, where `SUBTENSOR_METADATA` names no directory with `.scale` files.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[expect(dead_code, reason = "other tests use the rest")]
#[path = "subtensor/fake/mod.rs"]
mod fake;
#[path = "subtensor/frames.rs"]
mod frames;

use std::sync::Arc;
use std::time::Duration;

use fake::{Chain, Fake, Fault, Outcome, Refusal, compact};
use serde_json::{Value, json};
use subxt::backend::LegacyBackend;
use subxt::ext::jsonrpsee::client_transport::ws::WsTransportClientBuilder;
use subxt::ext::jsonrpsee::core::client::{
    Client, ClientBuilder, ClientT as _, Error, Subscription, SubscriptionClientT as _,
};
use subxt::ext::jsonrpsee::rpc_params;
use subxt::{OnlineClient, SubstrateConfig};
use tokio::time::{Instant, timeout};

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);

async fn client(fake: &Fake) -> Client {
    let (send, receive) = WsTransportClientBuilder::default().build(fake.url().parse().unwrap()).await.unwrap();
    ClientBuilder::default().request_timeout(LONG * 2).build_with_tokio(send, receive)
}

async fn ask(client: &Client, method: &str) -> Result<Value, Error> {
    timeout(LONG, client.request(method, rpc_params![])).await.expect("no answer")
}

async fn subscribe(client: &Client, method: &str, params: &[&str]) -> Result<Subscription<Value>, Error> {
    let mut all = rpc_params![];
    params.iter().for_each(|param| all.insert(*param).unwrap());
    client.subscribe(method, all, "chain_unsubscribeNewHeads").await
}

async fn next(subscription: &mut Subscription<Value>) -> Value {
    timeout(LONG, subscription.next()).await.expect("nothing is said").expect("it ended").unwrap()
}

#[tokio::test]
async fn heads_are_a_chain_and_a_reorg_replaces_them() {
    let fake = Fake::start(Chain::new()).await;
    fake.with(|chain| chain.lag = 3);
    let client = client(&fake).await;
    let mut best = subscribe(&client, "chain_subscribeNewHeads", &[]).await.unwrap();
    let mut last = subscribe(&client, "chain_subscribeFinalizedHeads", &[]).await.unwrap();
    assert_eq!(
        (next(&mut best).await["number"].clone(), next(&mut last).await["number"].clone()),
        (json!("0x1"), json!("0x0"))
    );
    for number in 2..=4u64 {
        let parent = fake.with(|chain| chain.head().hash.clone());
        fake.new_block();
        let head = next(&mut best).await;
        assert_eq!((&head["number"], &head["parentHash"]), (&json!(format!("{number:#x}")), &json!(parent)));
    }
    assert_eq!(next(&mut last).await["number"], json!("0x1"));
    let old: String = client.request("chain_getBlockHash", rpc_params![4]).await.unwrap();
    fake.reorg(2);
    assert_eq!(next(&mut best).await["number"], json!("0x5"));
    let new: String = client.request("chain_getBlockHash", rpc_params!["0x4"]).await.unwrap();
    assert_ne!(old, new);
    let header: Value = client.request("chain_getHeader", rpc_params![old]).await.unwrap();
    assert_eq!(header["number"], json!("0x4"), "a replaced block is still known");
    let missing: Value = client.request("chain_getBlockHash", rpc_params![77]).await.unwrap();
    assert_eq!(missing, json!(null));
}

#[tokio::test]
async fn a_watched_transaction_is_retracted_included_again_and_final() {
    let fake = Fake::start(Chain::new()).await;
    fake.with(|chain| chain.lag = 2);
    let client = client(&fake).await;
    let mut watched = subscribe(&client, "author_submitAndWatchExtrinsic", &["0x1234"]).await.unwrap();
    assert_eq!(next(&mut watched).await, json!("ready"));
    let first = fake.with(|chain| chain.head().hash.clone());
    assert_eq!(next(&mut watched).await, json!({ "inBlock": first }));
    fake.reorg(1);
    assert_eq!(next(&mut watched).await, json!({ "retracted": first }));
    fake.new_block();
    let second = fake.with(|chain| chain.head().hash.clone());
    assert_eq!(next(&mut watched).await, json!({ "inBlock": second }));
    fake.new_block();
    fake.new_block();
    assert_eq!(next(&mut watched).await, json!({ "finalized": second }));
    let again: Result<Value, Error> = client.request("author_submitExtrinsic", rpc_params!["0x1234"]).await;
    assert!(matches!(again.unwrap_err(), Error::Call(e) if e.code() == 1013));
    assert_eq!(fake.calls_of("author_submitAndWatchExtrinsic"), 1);
}

#[tokio::test]
async fn transactions_are_refused_as_a_node_words_it() {
    let fake = Fake::start(Chain::new()).await;
    let client = client(&fake).await;
    for (refusal, code, data) in [
        (Refusal::custom(6), 1010, "\"Custom error: 6\""),
        (Refusal::custom(255), 1010, "\"Custom error: 255\""),
        (Refusal::outdated(), 1010, "\"Transaction is outdated\""),
        (Refusal::priority_too_low(), 1014, "too low priority"),
    ] {
        fake.fault("author_submitAndWatchExtrinsic", Fault::Refuse(refusal));
        let refused = subscribe(&client, "author_submitAndWatchExtrinsic", &["0x77"]).await.map(drop);
        let Err(Error::Call(error)) = refused else { panic!("{refused:?}") };
        assert_eq!(error.code(), code);
        assert!(error.data().unwrap().get().contains(data), "{error:?}");
    }
    assert!(fake.with(|chain| chain.pool.is_empty() && chain.head().number == 1), "a refused call has no effect");
    subscribe(&client, "author_submitAndWatchExtrinsic", &["0x77"]).await.unwrap();
    assert_eq!(fake.with(|chain| chain.head().number), 2);
}

#[tokio::test]
async fn answers_are_late_wrong_garbled_or_never_come() {
    let fake = Fake::start(Chain::new()).await;
    let client = client(&fake).await;
    fake.fault("system_chain", Fault::Silence);
    assert!(timeout(SHORT, client.request::<Value, _>("system_chain", rpc_params![])).await.is_err());
    assert_eq!(ask(&client, "system_chain").await.unwrap(), json!("Bittensor"), "the connection is fine");

    fake.fault("system_chain", Fault::Slow(SHORT));
    let begin = Instant::now();
    let (slow, fast) = tokio::join!(ask(&client, "system_chain"), ask(&client, "system_health"));
    assert!(slow.is_ok() && fast.is_ok() && begin.elapsed() >= SHORT);

    fake.fault("system_chain", Fault::AnswerOf("system_health"));
    assert_eq!(ask(&client, "system_chain").await.unwrap()["peers"], json!(8));

    fake.fault("system_chain", Fault::Result(json!([1, 2])));
    assert_eq!(ask(&client, "system_chain").await.unwrap(), json!([1, 2]));

    fake.fault_many("*", 1, 1, Fault::Refuse(Refusal::new(-32000, "server is busy", None)));
    ask(&client, "system_chain").await.unwrap();
    assert!(ask(&client, "system_chain").await.unwrap_err().to_string().contains("server is busy"));

    fake.fault_many("system_chain", 0, usize::MAX, Fault::Silence);
    fake.heal();
    ask(&client, "system_chain").await.unwrap();
}

#[tokio::test]
async fn what_is_no_json_rpc_ends_the_clients_connection_or_its_patience() {
    // Each with a connection of its own: what a client does about it is its affair, that it can not take it for an answer is ours.
    for fault in [Fault::Garbage, Fault::BrokenFrames, Fault::WrongId, Fault::Drop, Fault::DropAfter, Fault::Stall] {
        let fake = Fake::start(Chain::new()).await;
        let client = client(&fake).await;
        fake.fault("system_chain", fault.clone());
        let answer = timeout(SHORT * 5, client.request::<Value, _>("system_chain", rpc_params![])).await;
        assert!(!matches!(answer, Ok(Ok(_))), "{fault:?}: {answer:?}");
        assert_eq!(fake.calls_of("system_chain"), 1);
        ask(&self::client(&fake).await, "system_chain").await.unwrap();
        assert_eq!(fake.connections(), 2);
    }
    let fake = Fake::start(Chain::new()).await;
    let client = client(&fake).await;
    fake.fault("system_chain", Fault::Oversized(12 << 20));
    let answer = timeout(LONG, client.request::<Value, _>("system_chain", rpc_params![])).await;
    assert!(!matches!(answer, Ok(Ok(_))), "jsonrpsee takes ten MiB");

    let fake = Fake::start(Chain::new()).await;
    let client = self::client(&fake).await;
    fake.fault("system_chain", Fault::Twice);
    assert_eq!(ask(&client, "system_chain").await.unwrap(), json!("Bittensor"));
}

#[tokio::test]
async fn a_drop_after_the_call_had_its_effect_leaves_the_effect() {
    let fake = Fake::start(Chain::new()).await;
    let first = client(&fake).await;
    fake.fault("author_submitAndWatchExtrinsic", Fault::DropAfter);
    assert!(subscribe(&first, "author_submitAndWatchExtrinsic", &["0x55"]).await.is_err());
    assert_eq!(fake.with(|chain| chain.head().extrinsics.clone()), ["0x55"]);
    let second = client(&fake).await;
    fake.drop_connections();
    timeout(LONG, second.on_disconnect()).await.unwrap();
    ask(&client(&fake).await, "system_chain").await.unwrap();
    assert_eq!(fake.calls().iter().map(|call| call.connection).collect::<Vec<_>>(), [1, 3]);
}

#[tokio::test]
async fn subscriptions_are_silent_end_or_say_what_they_like() {
    let fake = Fake::start(Chain::new()).await;
    let client = client(&fake).await;
    fake.fault("chain_subscribeNewHeads", Fault::SilentSubscription);
    let mut silent = subscribe(&client, "chain_subscribeNewHeads", &[]).await.unwrap();
    fake.new_block();
    assert!(timeout(SHORT, silent.next()).await.is_err());

    fake.fault("chain_subscribeNewHeads", Fault::EndedSubscription(vec![json!({ "number": "0x9" })]));
    let mut ended = subscribe(&client, "chain_subscribeNewHeads", &[]).await.unwrap();
    assert_eq!(next(&mut ended).await["number"], json!("0x9"));
    assert!(timeout(LONG, ended.next()).await.unwrap().is_none());

    fake.fault("author_submitAndWatchExtrinsic", Fault::Says(vec![json!("ready"), json!("dropped")]));
    let mut told = subscribe(&client, "author_submitAndWatchExtrinsic", &["0x99"]).await.unwrap();
    assert_eq!((next(&mut told).await, next(&mut told).await), (json!("ready"), json!("dropped")));
}

#[tokio::test]
async fn storage_and_runtime_calls_give_what_was_put_there_until_it_is_pruned() {
    let fake = Fake::start(Chain::new()).await;
    let client = client(&fake).await;
    fake.with(|chain| {
        chain.storage.insert("0xaa01".into(), "0x07".into());
        chain.storage.insert("0xaa02".into(), "0x08".into());
        chain.runtime.insert("SubnetInfoRuntimeApi_get_metagraph".into(), "0x00".into());
    });
    let value: Value = client.request("state_getStorage", rpc_params!["0xaa01"]).await.unwrap();
    assert_eq!(value, json!("0x07"));
    let keys: Value = client.request("state_getKeysPaged", rpc_params!["0xaa", 10, "0xaa01"]).await.unwrap();
    assert_eq!(keys, json!(["0xaa02"]));
    let called = async || {
        client.request::<Value, _>("state_call", rpc_params!["SubnetInfoRuntimeApi_get_metagraph", "0x0100"]).await
    };
    assert_eq!(called().await.unwrap(), json!("0x00"));
    let old = fake.with(|chain| chain.head().hash.clone());
    fake.new_block();
    fake.with(|chain| chain.pruned_below = chain.head().number);
    let pruned = client.request::<Value, _>("state_getStorage", rpc_params!["0xaa01", old]).await.unwrap_err();
    assert!(pruned.to_string().contains("State already discarded"), "{pruned}");
    called().await.unwrap();
}

#[test]
fn lengths_are_scale_compacts() {
    assert_eq!([compact(1), compact(69), compact(65_535)], [vec![4], vec![0x15, 0x01], vec![0xfe, 0xff, 0x03, 0x00]]);
}

#[tokio::test]
async fn subxt_takes_the_fake_for_a_chain() {
    let Some(chain) = Chain::with_metadata("finney_spec393_v16.scale", 393) else {
        const WHY: &str = "SUBTENSOR_METADATA names no directory with metadata of subtensor runtimes";
        println!("LEFT OUT: {WHY}");
        if let Some(file) = std::env::var_os("COMPUTE_TEST_LEFT_OUT") {
            std::fs::write(file, format!("{WHY}\n")).unwrap();
        }
        return;
    };
    let fake = Fake::start(chain).await;
    let rpc = subxt::rpcs::RpcClient::from_insecure_url(fake.url()).await.unwrap();
    let backend = Arc::new(LegacyBackend::<SubstrateConfig>::builder().build(rpc));
    let api = OnlineClient::<SubstrateConfig>::from_backend(backend).await.unwrap();
    let mut blocks = api.stream_best_blocks().await.unwrap();
    assert_eq!(timeout(LONG, blocks.next()).await.unwrap().unwrap().unwrap().number(), 1);
    fake.with(|chain| chain.outcome = Outcome::Failed { pallet: 7, error: 0 });
    fake.with(|chain| chain.pool.push("0x041234".into()));
    fake.new_block();
    let block = timeout(LONG, blocks.next()).await.unwrap().unwrap().unwrap();
    // subxt hashes the header itself, so it must be a header.
    assert_eq!(format!("{:?}", block.hash()), fake.with(|chain| chain.head().hash.clone()));
    let at = api.at_current_block().await.unwrap();
    assert_eq!((at.block_number(), at.spec_version()), (2, 393));
    let events = at.events().fetch().await.unwrap();
    let names: Vec<String> = events.iter().map(|event| event.unwrap().event_name().to_owned()).collect();
    assert_eq!(names, ["ExtrinsicFailed"]);
}
