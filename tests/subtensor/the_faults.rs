//! The node's client on a real runtime, over a wire that fails: what it sends is sent once, and it knows what became of it.

use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::subtensor::{ClientSettings, LinkSettings, Mechanism, SubtensorChain};
use compute_subnet::chain::{Cause, Chain as _, ChainError, PreparedWeights, Route, Weights};
use compute_subnet::clock::SystemClock;
use compute_subnet::ids::{Netuid, Uid};
use compute_subnet::runtime::Backoff;
use serde_json::json;
use tokio::time::Instant;

use crate::bed::{Bed, Seed, Start, hotkey};
use crate::proxy::{Mode, Proxy};
use crate::until;

/// Longest wait for an answer: this node needs more than half a second to check a call.
pub(crate) const ANSWER: Duration = Duration::from_secs(4);
const SUBMIT: Duration = Duration::from_secs(30);
const SUBMISSION: &str = "author_submitAndWatchExtrinsic";
const PALLET: &str = "SubtensorModule";

/// A client that signs with the hotkey of this neuron.
pub(crate) fn client(netuid: Netuid, uid: usize, endpoints: Vec<String>) -> Arc<SubtensorChain> {
    let link = LinkSettings {
        endpoints,
        genesis: None,
        never: Vec::new(),
        deadline: ANSWER,
        stalled_after: Duration::from_secs(60),
        retry: Backoff { first: Duration::from_millis(100), cap: Duration::from_secs(1), ..Backoff::default() },
    };
    let mechanism = Mechanism::first(netuid);
    let settings = ClientSettings { link, mechanism, submit: SUBMIT, clock: Arc::new(SystemClock) };
    Arc::new(SubtensorChain::new(settings, Arc::new(hotkey(uid))).unwrap())
}

fn weights(target: u16) -> PreparedWeights {
    let weights = Weights { entries: vec![(Uid(target), 65_535)], version_key: 0 };
    // Of a block to come: they are never sent too late.
    PreparedWeights { weights, mechanism: 0, route: Route::Plain, at: 1 << 32, reveal: None }
}

/// A chain with eight neurons, of which the first may set weights.
pub(crate) async fn subnet() -> Option<(Bed, Netuid)> {
    let bed = Bed::start(Start::default()).await?;
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed { neurons: 8, validators: 1, ..Seed::default() }).await;
    bed.new_blocks(1).await;
    Some((bed, netuid))
}

#[tokio::test]
async fn weights_are_sent_once_and_found_though_the_answer_never_comes() {
    let Some((bed, netuid)) = subnet().await else { return };
    let wire = Proxy::start(bed.address()).await;
    let client = client(netuid, 0, vec![wire.url()]);
    let graph = client.metagraph().await.unwrap();
    assert_eq!(graph.neurons.len(), 8);
    for (mode, target) in [(Mode::Deaf, 4), (Mode::Cut, 5)] {
        wire.take();
        let prepared = weights(target);
        let sending = client.submit_weights(&prepared);
        let breaking = async {
            until("the call is on its way", async || (wire.traffic().calls_of(SUBMISSION) > 0).then_some(())).await;
            if mode == Mode::Cut {
                // The node has it, and has not told yet what became of it.
                until("the node has it", async || has(&bed, netuid, target).await.then_some(())).await;
            }
            wire.set(mode).await;
            tokio::time::sleep(ANSWER / 4).await;
            wire.set(Mode::Pass).await;
        };
        let begin = Instant::now();
        let (sent, ()) = tokio::join!(sending, breaking);
        let sent = sent.unwrap_or_else(|e| panic!("{mode:?}: {e}"));
        println!("{mode:?}: included in block {} after {:?}", sent.block, begin.elapsed());
        assert!(has(&bed, netuid, target).await);
        assert_eq!(wire.traffic().calls_of(SUBMISSION), 1, "{mode:?}: sent once");
        assert_eq!(bed.storage(PALLET, "LastUpdate", json!([netuid.0])).await[0], json!(sent.block));
    }
}

async fn has(bed: &Bed, netuid: Netuid, target: u16) -> bool {
    bed.storage(PALLET, "Weights", json!([netuid.0, 0])).await == json!([[target, 65_535]])
}

#[tokio::test]
async fn weights_that_are_lost_on_the_way_are_not_known_and_not_sent_again() {
    let Some((bed, netuid)) = subnet().await else { return };
    let wire = Proxy::start(bed.address()).await;
    let client = client(netuid, 0, vec![wire.url()]);
    bed.by_hand().await;
    client.head().await.unwrap();
    // In the pool, and in no block until the caller's patience is over.
    let prepared = weights(6);
    let sending = tokio::time::timeout(ANSWER * 2, client.submit_weights(&prepared));
    let cutting = async {
        until("the call is on its way", async || (wire.traffic().calls_of(SUBMISSION) > 0).then_some(())).await;
        until("it waits in the pool", async || {
            let waiting = bed.rpc.ask("author_pendingExtrinsics", json!([])).await;
            (waiting.as_array().unwrap().len() == 1).then_some(())
        })
        .await;
        wire.cut_once().await;
    };
    let (sent, ()) = tokio::join!(sending, cutting);
    assert!(sent.is_err(), "nobody can know yet: {sent:?}");
    assert_eq!(wire.traffic().calls_of(SUBMISSION), 1);
    bed.new_blocks(1).await;
    until("the chain shows them", async || {
        let shown = client.weights_shown().await.unwrap();
        (shown.entries == [(Uid(6), 65_535)]).then_some(())
    })
    .await;
    assert_eq!(wire.traffic().calls_of(SUBMISSION), 1, "whoever looks need not send again");
}

#[tokio::test]
async fn weights_whose_block_is_replaced_are_in_the_chain_once() {
    let Some((bed, netuid)) = subnet().await else { return };
    let wire = Proxy::start(bed.address()).await;
    let client = client(netuid, 0, vec![wire.url()]);
    bed.finality(6).await;
    bed.new_blocks(8).await;
    let sent = client.submit_weights(&weights(4)).await.unwrap();
    assert_eq!(bed.reorg(1, false).await, 1);
    until("they are in a block again", async || has(&bed, netuid, 4).await.then_some(())).await;
    let head = bed.head().await;
    assert!(head > sent.block, "{head}");
    until("the client follows", async || (client.head().await.unwrap().number >= head).then_some(())).await;
    assert_eq!(wire.traffic().calls_of(SUBMISSION), 1);
    assert!(client.vitals().ended.iter().all(|(_, n)| *n == 0), "{:?}", client.vitals());
    // A validator that weighs too fast is told so by the chain's own name, and nothing is in the way of the next one.
    bed.set_storage(&[(PALLET, "WeightsSetRateLimit", json!([netuid.0]), json!(100))]).await;
    bed.new_blocks(1).await;
    // The block that refuses it has to be final.
    let more_blocks = async {
        loop {
            tokio::time::sleep(ANSWER / 20).await;
            bed.new_blocks(1).await;
        }
    };
    let too_fast = weights(5);
    let error = tokio::select! {
        sent = client.submit_weights(&too_fast) => sent.unwrap_err(),
        () = more_blocks => unreachable!("they come for ever"),
    };
    assert!(matches!(error, ChainError::Rejected(_)), "{error:?}");
}

#[tokio::test]
async fn a_read_goes_on_at_the_second_endpoint_when_the_first_goes_dead() {
    let Some((bed, netuid)) = subnet().await else { return };
    let wires = [Proxy::start(bed.address()).await, Proxy::start(bed.address()).await];
    let client = client(netuid, 0, wires.iter().map(Proxy::url).collect());
    client.metagraph().await.unwrap();
    wires[0].set(Mode::Stall).await;
    bed.new_blocks(1).await;
    let begin = Instant::now();
    assert_eq!(client.block_hash(1).await.map(|hash| hash.is_some()), Ok(true));
    println!("dead socket, a read took {:?}", begin.elapsed());
    assert!(begin.elapsed() < SUBMIT, "the read hangs");
    assert_eq!((client.vitals().endpoint, client.vitals().connected), (Some(2), 2));
    let timeouts = client.vitals().ended.into_iter().find(|(cause, _)| *cause == Cause::Timeout);
    assert_eq!(timeouts, Some((Cause::Timeout, 1)));
    assert_eq!(client.metagraph().await.unwrap().head.number, bed.head().await);
}
