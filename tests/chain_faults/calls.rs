//! Faults of answers and of what a node tells by itself.

use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::subtensor::rpc::MAX_ANSWER;
use compute_subnet::chain::{Cause, Chain as _, ChainError};
use compute_subnet::ids::Coldkey;
use serde_json::json;
use tokio::time::Instant;

use crate::bench::{Bench, STORAGE, answer, stall};
use crate::fake::{Fault, Refusal, compact};
use crate::table::{Row, answers};

pub(crate) fn rows() -> Vec<Row> {
    let broken = |name, does, noticed, fault: Fault| {
        Row::new(name, does, noticed, answers(3), move || read_meets(fault.clone(), Cause::Broken))
    };
    vec![
        Row::new(
            "dropped in a call",
            "the connection is reset instead of an answer",
            "the read goes on with a new connection",
            answers(3),
            || read_meets(Fault::Drop, Cause::Broken),
        ),
        broken("garbage", "an answer is no JSON", "the connection is given up", Fault::Garbage),
        Row::new(
            "broken frames",
            "bytes that are no WebSocket",
            "the connection is given up",
            answers(3),
            broken_frames,
        ),
        broken("wrong id", "an answer to a question that nobody asked", "the connection is given up", Fault::WrongId),
        Row::new(
            "answer to another call",
            "the right id with another call's result",
            "it does not fit; the connection is given up",
            answers(3),
            || read_meets(Fault::AnswerOf("system_health"), Cause::Garbage),
        ),
        Row::new(
            "another block's values",
            "values of other keys than those asked for",
            "keys are compared; the connection is given up",
            answers(3),
            || read_meets(Fault::Result(json!([{ "block": "0x00", "changes": [["0xaa", "0x01"]] }])), Cause::Garbage),
        ),
        broken(
            "oversized answer",
            "an answer of more than 8 MiB",
            "it is not read; the connection is given up",
            Fault::Oversized(MAX_ANSWER as usize + 1_024),
        ),
        Row::new(
            "answered twice",
            "every answer comes twice",
            "the second is nobody's; the connection is given up",
            answers(3),
            twice,
        ),
        Row::new(
            "silence in a call",
            "one answer never comes, all else goes on",
            "the answer's deadline; the read goes on with a new connection",
            answers(4),
            || read_meets(Fault::Silence, Cause::Timeout),
        ),
        Row::new(
            "slow, within the deadline",
            "every answer takes 6 tenths of its deadline",
            "it is slow, and used",
            answers(7),
            slow_within,
        ),
        Row::new(
            "slow, beyond the deadline",
            "every answer takes 3 deadlines",
            "the answer's deadline; the next endpoint",
            answers(4),
            slow_beyond,
        ),
        Row::new(
            "callers who give up early",
            "each caller waits for a third of a deadline, connecting takes longer",
            "connecting goes on without them",
            answers(3),
            impatient,
        ),
        Row::new(
            "a call that is given up early",
            "its caller goes before its deadline, the node never answers",
            "the deadline passes without him; a new connection",
            answers(4),
            given_up,
        ),
        Row::new(
            "server is busy",
            "the node refuses a read",
            "the caller hears of it; the connection is kept",
            answers(1),
            busy,
        ),
        Row::new(
            "pruned state",
            "the node has dropped the state of a block",
            "the caller hears of it; the connection is kept",
            answers(1),
            pruned,
        ),
        Row::new("reorganisation", "the newest blocks are replaced", "the new head is told", answers(1), reorg),
        Row::new(
            "silent heads",
            "the subscription to heads says nothing",
            "no new head; a new connection",
            answers(3).stall(),
            || silent("chain_subscribeNewHeads", Cause::HeadStill),
        ),
        Row::new(
            "silent finality",
            "the subscription to finalised heads says nothing",
            "asked once nothing was told for the time of a stall; a new connection",
            answers(5).stall(),
            || silent("chain_subscribeFinalizedHeads", Cause::FinalitySilent),
        ),
        Row::new(
            "finality stands still",
            "blocks come, none is finalised",
            "it is asked, and used: calls are signed at newer blocks; weights are confirmed once it goes on, and a warning says so after 20 blocks",
            answers(0),
            no_finality,
        ),
        Row::new(
            "finality is not told",
            "blocks come, none is finalised, and the node refuses to say which one is",
            "it is asked again later; the connection is kept",
            answers(0),
            untold_finality,
        ),
        Row::new(
            "subscription ends",
            "the node ends the subscription to heads",
            "a new connection",
            answers(3),
            || ended("chain_subscribeNewHeads"),
        ),
        Row::new(
            "a flood of heads",
            "a thousand heads at once",
            "all are taken in, or the connection is made anew",
            answers(3),
            flood,
        ),
        Row::new(
            "runtime upgrade",
            "the runtime's version changes",
            "the node tells; its metadata is read, the connection is kept",
            answers(2),
            upgrade,
        ),
        Row::new(
            "unreadable upgrade",
            "the runtime's version changes, its metadata cannot be had at first",
            "the connection is given up",
            answers(3),
            unreadable_upgrade,
        ),
        Row::new(
            "silence after an upgrade",
            "the runtime's version changes, the node never says at which block",
            "the answer's deadline; a new connection",
            answers(4),
            silence_after_an_upgrade,
        ),
        Row::new(
            "between two runtimes",
            "a block has the new code, and its state is still the old one's",
            "nothing is read of it; the next block is read; the connection is kept",
            answers(2),
            between_two_runtimes,
        ),
    ]
}

/// The next read meets this fault: the same read ends well, on a connection that was made for it.
async fn read_meets(fault: Fault, cause: Cause) -> Duration {
    let bench = Bench::connected(1).await;
    bench.told().await;
    bench.node().fault(STORAGE, fault);
    let begin = Instant::now();
    bench.read().await.unwrap();
    let took = begin.elapsed();
    assert_eq!(bench.ended(cause), 1, "{:?}", bench.client.vitals());
    assert_eq!(bench.node().connections(), 2);
    bench.check().await;
    took
}

async fn broken_frames() -> Duration {
    let bench = Bench::bare().await;
    bench.told().await;
    bench.node().fault(STORAGE, Fault::BrokenFrames);
    let took = bench.whole_since(Instant::now()).await;
    assert_eq!(bench.ended(Cause::Broken), 1, "{:?}", bench.client.vitals());
    bench.check().await;
    took
}

async fn twice() -> Duration {
    let bench = Bench::connected(1).await;
    bench.told().await;
    bench.node().fault_many(STORAGE, 0, 3, Fault::Twice);
    let took = bench.whole_since(Instant::now()).await;
    bench.check().await;
    took
}

async fn slow_within() -> Duration {
    let bench = Bench::new(1).await;
    bench.node().fault_many("*", 0, usize::MAX, Fault::Slow(answer() * 6 / 10));
    let begin = Instant::now();
    bench.read().await.unwrap();
    bench.read().await.unwrap();
    let took = begin.elapsed();
    assert_eq!(bench.client.vitals().connected, 1);
    assert!(bench.client.vitals().ended.iter().all(|(_, n)| *n == 0), "{:?}", bench.client.vitals());
    bench.node().heal();
    bench.check().await;
    took
}

async fn slow_beyond() -> Duration {
    let bench = Bench::connected(2).await;
    bench.told().await;
    bench.node().fault_many("*", 0, usize::MAX, Fault::Slow(3 * answer()));
    let begin = Instant::now();
    bench.read().await.unwrap();
    let took = begin.elapsed();
    assert_eq!((bench.ended(Cause::Timeout), bench.client.vitals().endpoint), (1, Some(2)));
    bench.check().await;
    took
}

async fn impatient() -> Duration {
    let bench = Bench::new(2).await;
    // Each round of the greeting is within its deadline, all together are beyond the callers' patience.
    bench.node().fault_many("*", 0, usize::MAX, Fault::Slow(answer() * 4 / 10));
    let begin = Instant::now();
    while tokio::time::timeout(answer() / 3, bench.client.finalized()).await.is_err() {
        assert!(begin.elapsed() < 20 * answer(), "it is never connected");
    }
    let took = begin.elapsed();
    assert_eq!(bench.client.vitals().endpoint, Some(1));
    assert_eq!((bench.nodes[0].connections(), bench.nodes[1].connections()), (1, 0), "one attempt, for all callers");
    bench.node().heal();
    bench.check().await;
    took
}

async fn given_up() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault("chain_getBlockHash", Fault::Silence);
    let begin = Instant::now();
    assert!(tokio::time::timeout(answer() / 3, bench.client.block_hash(1)).await.is_err());
    bench.noticed_since(begin, &[Cause::Timeout]).await;
    let took = bench.whole_since(begin).await;
    bench.check().await;
    took
}

async fn busy() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault("chain_getBlockHash", Fault::Refuse(Refusal::new(-32000, "server is busy", None)));
    let begin = Instant::now();
    let error = bench.client.block_hash(1).await.unwrap_err();
    assert!(matches!(&error, ChainError::Protocol(why) if why.contains("server is busy")), "{error}");
    assert!(bench.client.block_hash(1).await.unwrap().is_some());
    let took = begin.elapsed();
    assert_eq!(bench.node().connections(), 1);
    bench.check().await;
    took
}

async fn pruned() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().with(|chain| chain.pruned_below = chain.head().number + 1);
    let error = bench.client.weights_of_all().await.unwrap_err();
    assert!(matches!(&error, ChainError::Protocol(why) if why.contains("State already discarded")), "{error}");
    let begin = Instant::now();
    bench.node().new_block();
    let took = bench.whole_since(begin).await;
    assert_eq!(bench.client.weights_of_all().await, Ok(Vec::new()));
    assert_eq!(bench.node().connections(), 1);
    bench.check().await;
    took
}

async fn reorg() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().with(|chain| chain.lag = 4);
    for _ in 0..6 {
        bench.node().new_block();
    }
    bench.whole_since(Instant::now()).await;
    let (before, final_before) = (bench.read().await.unwrap(), bench.client.finalized().await.unwrap());
    let begin = Instant::now();
    bench.node().reorg(2);
    let took = bench.whole_since(begin).await;
    let after = bench.read().await.unwrap();
    assert!(after.number == before.number + 1 && after.hash != before.hash);
    assert!(bench.client.finalized().await.unwrap() >= final_before, "what is final stays");
    let replaced = bench.client.block_hash(before.number).await.unwrap();
    assert_ne!(replaced, Some(before.hash));
    assert_eq!(bench.node().connections(), 1);
    bench.check().await;
    took
}

const FINALITY: &str = "chain_getFinalizedHead";

/// This subscription says nothing, while blocks come.
async fn silent(method: &'static str, cause: Cause) -> Duration {
    let bench = Arc::new(Bench::new(1).await);
    bench.node().fault(method, Fault::SilentSubscription);
    bench.read().await.unwrap();
    let begin = Instant::now();
    let _blocks = bench.blocks(stall() / 5);
    bench.noticed_since(begin, &[cause]).await;
    bench.whole_since(begin).await;
    // What was not told is known again.
    loop {
        let newest = bench.node().with(|chain| chain.finalised().number);
        if bench.client.finalized().await.unwrap() == newest {
            break;
        }
        assert!(begin.elapsed() < 20 * stall(), "finality is not told");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = begin.elapsed();
    bench.check().await;
    took
}

async fn untold_finality() -> Duration {
    let bench = Arc::new(Bench::connected(1).await);
    bench.node().with(|chain| chain.lag = 1_000);
    let refusal = Refusal::new(-32000, "server is busy", None);
    bench.node().fault_many(FINALITY, 0, usize::MAX, Fault::Refuse(refusal));
    let asked = bench.node().calls_of(FINALITY);
    let blocks = bench.blocks(stall() / 5);
    tokio::time::sleep(stall() * 3 / 2).await;
    drop(blocks);
    assert!(bench.node().calls_of(FINALITY) > asked, "nobody asks");
    assert_eq!(bench.node().connections(), 1, "{:?}", bench.client.vitals());
    let took = bench.whole_since(Instant::now()).await;
    bench.check().await;
    took
}

async fn no_finality() -> Duration {
    let bench = Arc::new(Bench::connected(1).await);
    bench.node().with(|chain| chain.lag = 1_000);
    for _ in 0..80 {
        bench.node().new_block();
    }
    bench.whole_since(Instant::now()).await;
    let _blocks = bench.blocks(stall() / 5);
    tokio::time::sleep(stall() * 3 / 2).await;
    assert_eq!(bench.node().connections(), 1, "{:?}", bench.client.vitals());
    let begin = Instant::now();
    // Signed at block 1 it would be too old; the fake does not judge that, so look at what it was signed for.
    bench.send().await.unwrap();
    let took = begin.elapsed();
    let bytes = hex::decode(crate::bench::submitted(bench.node()).trim_start_matches("0x")).unwrap();
    // A compact length of two bytes, the version, the account (33), the signature (65), then the era.
    let era = u16::from_le_bytes([bytes[2 + 1 + 33 + 65], bytes[2 + 1 + 33 + 65 + 1]]);
    let (period, phase) = (2u64 << (era & 0xf), u64::from(era >> 4));
    assert_eq!(period, 64);
    let head = bench.node().with(|chain| chain.head().number);
    assert!((head + period - phase) % period < 40, "signed at a block with phase {phase}, the head is {head}");
    bench.check().await;
    took
}

async fn ended(method: &'static str) -> Duration {
    let bench = Bench::new(1).await;
    let header = bench.node().with(|chain| chain.best());
    bench.node().fault(method, Fault::EndedSubscription(vec![header]));
    let begin = Instant::now();
    bench.read().await.ok();
    bench.noticed_since(begin, &[Cause::SubscriptionEnded]).await;
    let took = bench.whole_since(begin).await;
    bench.check().await;
    took
}

async fn flood() -> Duration {
    let bench = Bench::connected(1).await;
    let begin = Instant::now();
    for _ in 0..1_000 {
        bench.node().new_block();
    }
    let took = bench.whole_since(begin).await;
    bench.check().await;
    took
}

async fn upgrade() -> Duration {
    let bench = Bench::connected(1).await;
    let asked = || {
        bench.node().calls().iter().filter(|c| c.params.first() == Some(&json!("Metadata_metadata_at_version"))).count()
    };
    assert_eq!(asked(), 1);
    let begin = Instant::now();
    bench.node().with(|chain| chain.spec_version += 1);
    bench.node().new_block();
    while asked() < 2 {
        assert!(begin.elapsed() < Duration::from_secs(60), "nobody asks for the new metadata");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = bench.whole_since(begin).await;
    bench.check().await;
    assert_eq!((bench.node().connections(), asked()), (1, 2), "read once, on the same connection");
    took
}

async fn silence_after_an_upgrade() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault("chain_getBlockHash", Fault::Silence);
    let begin = Instant::now();
    bench.node().with(|chain| chain.spec_version += 1);
    bench.noticed_since(begin, &[Cause::Timeout, Cause::Runtime]).await;
    assert_eq!((bench.ended(Cause::Timeout), bench.ended(Cause::Runtime)), (1, 0));
    let took = bench.whole_since(begin).await;
    assert_eq!(bench.node().connections(), 2);
    bench.check().await;
    took
}

/// `System.LastRuntimeUpgrade` of this version.
fn last_upgrade(spec: u32) -> (String, String) {
    let key = "0x26aa394eea5630e07c48ae0c9558cef7f9cce9c888469bb1a0dceaa129672ef8".to_owned();
    let name = [compact(4), b"node".to_vec()].concat();
    (key, format!("0x{}", hex::encode([compact(spec.into()), name].concat())))
}

async fn between_two_runtimes() -> Duration {
    let bench = Bench::connected(1).await;
    let ran = |spec: u32| {
        let (key, value) = last_upgrade(spec);
        bench.node().with(|chain| chain.storage.insert(key, value));
        bench.node().new_block();
    };
    let new = bench.node().with(|chain| chain.spec_version);
    ran(new - 1);
    tokio::time::sleep(answer() / 5).await;
    let client = &bench.client;
    let reads = [
        client.head().await.err(),
        client.metagraph().await.err(),
        client.hyperparameters().await.err(),
        client.balance(&Coldkey([1; 32])).await.err(),
        client.weights_shown().await.err(),
        // There are none: that too is not believed.
        client.weights_of_all().await.err(),
    ];
    for error in reads {
        assert!(matches!(error, Some(ChainError::Upgrading(_))), "{error:?}");
    }
    let meanwhile = async {
        while bench.submissions() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(answer() / 5).await;
        let begin = Instant::now();
        ran(new);
        begin
    };
    let (sent, begin) = tokio::join!(bench.send(), meanwhile);
    let took = begin.elapsed();
    sent.unwrap();
    assert_eq!(client.weights_of_all().await, Ok(Vec::new()));
    assert_eq!((bench.submissions(), bench.node().connections()), (1, 1));
    bench.check().await;
    took
}

async fn unreadable_upgrade() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault("state_call", Fault::Refuse(Refusal::new(-32000, "not now", None)));
    let begin = Instant::now();
    bench.node().with(|chain| chain.spec_version += 1);
    bench.noticed_since(begin, &[Cause::Runtime]).await;
    let took = bench.whole_since(begin).await;
    assert_eq!(bench.node().connections(), 2);
    bench.check().await;
    took
}
