//! Our client reads what a real runtime stores, and what it writes is what other clients read.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::subtensor::neurons::{self, Source};
use compute_subnet::chain::subtensor::{ClientSettings, LinkSettings, Mechanism, Runtime, SubtensorChain};
use compute_subnet::chain::{Chain, ChainError, Metagraph, Rejection, Route, Weights};
use compute_subnet::clock::SystemClock;
use compute_subnet::ids::{Coldkey, Hash32, Netuid, Uid};
use compute_subnet::runtime::Backoff;
use compute_subnet::wallet::Keypair;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::bed::{Bed, Seed, Start, coldkey, hotkey};
use crate::proxy::Proxy;
use crate::python;

const PALLET: &str = "SubtensorModule";

/// A client as a node has it.
pub(crate) fn client(urls: &[String], netuid: Netuid, uri: &str) -> SubtensorChain {
    let link = LinkSettings {
        endpoints: urls.to_vec(),
        genesis: None,
        never: vec![],
        deadline: Duration::from_secs(15),
        stalled_after: Duration::from_secs(300),
        retry: Backoff::default(),
    };
    let settings = ClientSettings {
        link,
        mechanism: Mechanism::first(netuid),
        submit: Duration::from_secs(60),
        clock: Arc::new(SystemClock),
    };
    SubtensorChain::new(settings, Arc::new(Keypair::from_uri(uri).unwrap())).unwrap()
}

fn hotkey_uri(uid: usize) -> String {
    format!("//n{uid}//hot")
}

/// Weights that pay these neurons.
fn weights(entries: &[(u16, u16)]) -> Weights {
    Weights { entries: entries.iter().map(|(uid, w)| (Uid(*uid), *w)).collect(), version_key: 183 }
}

fn rejection<T: std::fmt::Debug>(answer: Result<T, ChainError>) -> Rejection {
    answer.unwrap_err().rejection().expect("a refusal that has a name")
}

/// The runtime of the bed, from its own metadata.
async fn runtime(bed: &Bed, genesis: Hash32) -> Runtime {
    let answer = bed.rpc.ask("state_call", json!(["Metadata_metadata_at_version", "0x0f000000"])).await;
    let bytes = hex::decode(answer.as_str().unwrap().trim_start_matches("0x")).unwrap();
    let start = bytes.windows(4).position(|four| four == b"meta").unwrap();
    Runtime::new(&bytes[start..], bed.info().await.spec, 1, genesis).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_what_is_signed_are_other_clients_bit_for_bit() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let runtime = runtime(&bed, crate::chain_vectors::genesis()).await;
    if runtime.spec_version() != 218 {
        return crate::bed::left_out("the vectors of old runtimes are of spec 218, this one is another");
    }
    assert_eq!(crate::chain_vectors::hold(&runtime, "spec_218"), 14);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_subnet_is_read_as_it_was_stored() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    let seed = Seed::default();
    bed.seed(netuid, seed).await;
    bed.new_blocks(1).await;
    let chain = client(&[bed.url()], netuid, &hotkey_uri(0));
    let graph: Arc<Metagraph> = chain.metagraph().await.unwrap();
    assert_eq!(graph.neurons.len(), seed.neurons);
    for (uid, n) in graph.neurons.iter().enumerate() {
        assert_eq!(usize::from(n.uid.0), uid);
        assert_eq!(n.hotkey, hotkey(uid).hotkey());
        assert_eq!(n.coldkey, Coldkey(coldkey(uid).hotkey().0));
        assert_eq!(n.registered_at, 0, "uid {uid}");
        let axon = n.axon.map(|axon| SocketAddr::new(axon.ip, axon.port).to_string());
        let served = (uid >= seed.validators).then(|| format!("127.0.0.2:{}", 8100 + uid));
        assert_eq!(axon, served, "uid {uid}");
        assert!(n.stake_rao >= if uid < seed.validators { seed.stake } else { 0 }, "uid {uid}: {}", n.stake_rao);
    }
    let head = chain.head().await.unwrap();
    assert_eq!(graph.head, head);
    assert_eq!(head.number, bed.head().await);
    assert_eq!(head.timestamp_ms, bed.info().await.now_ms);
    assert_eq!(chain.block_hash(head.number).await.unwrap(), Some(head.hash));
    assert_eq!(chain.block_hash(head.number + 1000).await.unwrap(), None);
    let rules = chain.hyperparameters().await.unwrap();
    assert_eq!((rules.tempo, rules.weights_rate_limit, rules.commit_reveal), (10, 0, false));
    assert_eq!(rules.owner_hotkey, Some(Keypair::from_uri("//Alice//hot").unwrap().hotkey()));
    let rich = Keypair::from_uri("//Dave").unwrap().hotkey();
    assert!(chain.balance(&Coldkey(rich.0)).await.unwrap() > 1_000_000_000_000);
    assert_eq!(chain.balance(&Coldkey([7; 32])).await.unwrap(), 0);
    let elsewhere = client(&[bed.url()], Netuid(4000), &hotkey_uri(0));
    assert_eq!(rejection(elsewhere.metagraph().await), Rejection::SubnetNotExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_write_is_what_the_python_sdk_reads() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed { neurons: 8, ..Seed::default() }).await;
    let chain = client(&[bed.url()], netuid, &hotkey_uri(0));
    let ip: IpAddr = "192.0.2.1".parse().unwrap();
    let six: IpAddr = "2001:db8::7".parse().unwrap();
    chain.serve_axon(ip, 8091, 183).await.unwrap();
    chain.serve_prometheus(six, 9100, 183).await.unwrap();
    let set = chain.set_weights(&weights(&[(4, 65_535), (6, 100)])).await.unwrap();
    let shown = chain.weights_shown().await.unwrap();
    assert_eq!(shown.entries, [(Uid(4), 65_535), (Uid(6), 100)]);
    assert_eq!((shown.last_update, shown.commits.len()), (set.block, 0));
    assert_eq!(chain.weights_of_all().await.unwrap(), [(Uid(0), shown.entries)]);
    let graph = chain.metagraph().await.unwrap();
    let own = &graph.neurons[0];
    assert!(own.serves_axon(ip, 8091, 183) && own.serves_prometheus(six, 9100, 183), "{own:?}");
    assert_eq!(own.weights, [(Uid(4), 65_535), (Uid(6), 100)]);

    // A new neuron, paid by somebody else's coldkey.
    let (payer, new) = (Keypair::from_uri("//Eve").unwrap(), Keypair::from_uri("//Eve//new").unwrap());
    let cost = chain.hyperparameters().await.unwrap().burn_rao;
    let too_dear = chain.register_within(new.hotkey(), cost - 1, &payer).await;
    assert_eq!(rejection(too_dear), Rejection::RegistrationPriceLimitExceeded);
    chain.register_within(new.hotkey(), cost, &payer).await.unwrap();
    assert_eq!(rejection(chain.register(new.hotkey(), &payer).await), Rejection::HotKeyAlreadyRegisteredInSubNet);
    let known = chain.metagraph().await.unwrap().by_hotkey(&new.hotkey()).map(|n| (n.uid, n.coldkey));
    assert_eq!(known, Some((Uid(8), Coldkey(payer.hotkey().0))));

    let Some(read) = python::metagraph(&bed.url(), netuid).await else { return };
    let n = &read.neurons[0];
    assert_eq!(n.weights, [(4, 65_535), (6, 100)]);
    let axon = n.axon.as_ref().unwrap();
    assert_eq!((axon.ip.as_str(), axon.port, axon.version, axon.protocol), ("192.0.2.1", 8091, 183, Some(4)));
    let prometheus = n.prometheus.as_ref().unwrap();
    assert_eq!((prometheus.port, prometheus.ip_type, prometheus.version), (9100, 6, 183));
    assert_eq!(read.neurons[8].hotkey, new.hotkey().to_string());
    assert_eq!(n.last_update, set.block);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_refuses_by_name_and_a_refused_call_changes_nothing() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed { neurons: 8, ..Seed::default() }).await;
    bed.set_storage(&[
        (PALLET, "WeightsSetRateLimit", json!([netuid.0]), json!(50)),
        (PALLET, "ServingRateLimit", json!([netuid.0]), json!(50)),
        (PALLET, "WeightsVersionKey", json!([netuid.0]), json!(100)),
    ])
    .await;
    bed.jump(200).await;
    let (validator, stranger) =
        (client(&[bed.url()], netuid, &hotkey_uri(0)), client(&[bed.url()], netuid, "//Stranger"));
    let good = weights(&[(4, 65_535)]);
    validator.set_weights(&good).await.unwrap();
    let before = validator.weights_shown().await.unwrap();
    for (what, said) in [
        ("too soon", validator.set_weights(&weights(&[(5, 65_535)])).await),
        ("a stranger", stranger.set_weights(&good).await),
        ("a uid twice", client(&[bed.url()], netuid, &hotkey_uri(1)).set_weights(&weights(&[(4, 1), (4, 2)])).await),
        ("a uid of nobody", client(&[bed.url()], netuid, &hotkey_uri(2)).set_weights(&weights(&[(99, 1)])).await),
        (
            "an old version",
            client(&[bed.url()], netuid, &hotkey_uri(3))
                .set_weights(&Weights { version_key: 99, ..good.clone() })
                .await,
        ),
        ("loopback", validator.serve_axon("127.0.0.1".parse().unwrap(), 8091, 183).await),
        ("port 0", validator.serve_axon("192.0.2.1".parse().unwrap(), 0, 183).await),
        ("a stranger's axon", stranger.serve_axon("192.0.2.1".parse().unwrap(), 1, 183).await),
    ] {
        println!("{what}: {}", said.as_ref().unwrap_err());
        let expected: &[Rejection] = match what {
            "too soon" => &[Rejection::SettingWeightsTooFast, Rejection::RateLimitExceeded],
            "a stranger" => &[Rejection::HotKeyNotRegisteredInSubNet],
            "a uid twice" => &[Rejection::DuplicateUids],
            "a uid of nobody" => &[Rejection::UidVecContainInvalidOne, Rejection::UidNotFound],
            "an old version" => &[Rejection::IncorrectWeightVersionKey],
            "loopback" => &[Rejection::InvalidIpAddress],
            "port 0" => &[Rejection::InvalidPort],
            _ => &[Rejection::HotKeyNotRegisteredInNetwork],
        };
        assert!(expected.contains(&rejection(said)), "{what}");
    }
    let after = validator.weights_shown().await.unwrap();
    assert_eq!((after.entries, after.last_update), (before.entries, before.last_update));
}

#[tokio::test(flavor = "multi_thread")]
async fn hashed_weights_are_committed_revealed_in_their_window_and_never_twice() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed { neurons: 8, ..Seed::default() }).await;
    bed.set_storage(&[
        (PALLET, "CommitRevealWeightsEnabled", json!([netuid.0]), json!(true)),
        (PALLET, "RevealPeriodEpochs", json!([netuid.0]), json!(1)),
    ])
    .await;
    bed.new_blocks(1).await;
    let chain = client(&[bed.url()], netuid, &hotkey_uri(0));
    let prepared = chain.prepare_weights(&weights(&[(4, 65_535), (5, 7)])).await.unwrap();
    assert!(matches!(prepared.route, Route::Hashed { .. }), "{:?}", prepared.route.label());
    chain.submit_weights(&prepared).await.unwrap();
    let shown = chain.weights_shown().await.unwrap();
    assert_eq!(shown.commits.iter().map(|c| Some(c.digest)).collect::<Vec<_>>(), [prepared.digest()]);
    assert!(shown.entries.is_empty(), "committed weights do not count yet");
    let early = rejection(chain.reveal_weights(&prepared).await);
    assert!([Rejection::RevealTooEarly, Rejection::CommitBlockNotInRevealRange].contains(&early), "{early}");
    let (first, after) = prepared.reveal.unwrap();
    // Included in the first block of the window at the earliest: the call itself makes the next block.
    bed.new_blocks(first - 1 - bed.head().await).await;
    chain.reveal_weights(&prepared).await.unwrap();
    let shown = chain.weights_shown().await.unwrap();
    assert!((first..after).contains(&shown.at), "revealed in block {} of {first}..{after}", shown.at);
    assert_eq!(shown.entries, [(Uid(4), 65_535), (Uid(5), 7)]);
    assert_eq!(shown.commits, []);
    assert_eq!(rejection(chain.reveal_weights(&prepared).await), Rejection::NoWeightsCommitFound);

    let late = chain.prepare_weights(&weights(&[(6, 1)])).await.unwrap();
    chain.submit_weights(&late).await.unwrap();
    let (_, after) = late.reveal.unwrap();
    bed.new_blocks(after - bed.head().await).await;
    let refused = rejection(chain.reveal_weights(&late).await);
    println!("after its window: {refused}");
    assert_eq!(chain.weights_shown().await.unwrap().entries, [(Uid(4), 65_535), (Uid(5), 7)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_costs_a_node_at_most_three_calls() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed { neurons: 64, ..Seed::default() }).await;
    let proxy = Proxy::start(bed.address()).await;
    let chain = client(&[proxy.url()], netuid, &hotkey_uri(0));
    chain.metagraph().await.unwrap();
    bed.new_blocks(1).await;
    settle(&chain, &bed).await;
    chain.metagraph().await.unwrap();
    proxy.take();
    let blocks = 10;
    for _ in 0..blocks {
        bed.new_blocks(1).await;
        settle(&chain, &bed).await;
        // What a watcher asks with each look, several times between two blocks.
        for _ in 0..4 {
            let head = chain.head().await.unwrap();
            chain.finalized().await.unwrap();
            chain.metagraph().await.unwrap();
            assert_eq!(head.number, bed.head().await);
        }
        let head = chain.head().await.unwrap();
        chain.block_hash(head.number - 1).await.unwrap();
    }
    let traffic = proxy.take();
    println!(
        "{blocks} blocks of 64 neurons: {} calls, {} bytes: {:?}",
        traffic.calls(),
        traffic.bytes,
        traffic.requests
    );
    assert!(traffic.calls() <= 3 * blocks, "{:?}", traffic.requests);
    assert_eq!(traffic.connections, 0, "the connection stays");
}

/// Waits until the client's node has told it of the newest block.
async fn settle(chain: &SubtensorChain, bed: &Bed) {
    let newest = bed.head().await;
    crate::until("the client hears of the newest block", async || {
        chain.finalized().await.ok().filter(|at| *at >= newest)
    })
    .await;
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// In a process of its own: what else runs here would be measured too.
#[test]
fn a_full_subnet_costs_little_and_a_hundred_readings_no_more_than_one() {
    let name = "the_client::readings_of_a_full_subnet";
    let run =
        Command::new(std::env::current_exe().unwrap()).args(["--ignored", "--exact", name, "--nocapture"]).status();
    assert!(run.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test above"]
async fn readings_of_a_full_subnet() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed::default()).await;
    bed.new_blocks(1).await;
    let runtime = runtime(&bed, Hash32([0x45; 32])).await;
    let data = format!("0x{}", hex::encode(netuid.0.to_le_bytes()));
    let answer = bed.rpc.ask("state_call", json!(["NeuronInfoRuntimeApi_get_neurons_lite", data])).await;
    let bytes = hex::decode(answer.as_str().unwrap().trim_start_matches("0x")).unwrap();
    let begin = thread_cpu();
    for _ in 0..10 {
        assert_eq!(neurons::read(&runtime, Source::Lite, netuid, &bytes).unwrap().len(), 256);
    }
    let decode = (thread_cpu() - begin) / 10;

    let readings = if std::env::var_os("COMPUTE_TEST_LONG").is_some() { 100 } else { 12 };
    let chain = client(&[bed.url()], netuid, &hotkey_uri(0));
    let mut after_few = 0;
    for reading in 0..readings {
        bed.new_blocks(1).await;
        settle(&chain, &bed).await;
        assert_eq!(chain.metagraph().await.unwrap().neurons.len(), 256);
        if reading == readings / 4 {
            after_few = resident();
        }
    }
    let grown = resident().saturating_sub(after_few);
    println!("256 neurons: {} bytes decoded in {decode:?} of CPU (this build is not optimised)", bytes.len());
    println!("{readings} readings: resident memory grew by {grown} KiB after the first quarter of them");
    assert!(grown < 1024, "{grown} KiB");
}
