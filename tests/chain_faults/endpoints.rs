//! Faults of endpoints and of the wire to them.

use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::{Cause, Chain as _, ChainError};
use serde_json::json;
use tokio::time::Instant;

use crate::bench::{Bench, STORAGE, answer, client, pause, stall};
use crate::fake::Fault;
use crate::proxy::Mode;
use crate::table::{Row, answers};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new("refused", "nobody listens", "the next endpoint is tried", answers(3), refused),
        Row::new(
            "all refused, then back",
            "no endpoint listens for a while",
            "tried again with a growing pause",
            answers(3).pause(),
            all_refused,
        ),
        Row::new(
            "reset, then back",
            "the connection is reset",
            "connected again, the next endpoint first",
            answers(3),
            reset,
        ),
        Row::new(
            "half-dead, idle",
            "the socket stays open, nothing goes through, nobody asks",
            "pings without a pong, or no new head",
            answers(3).stall(),
            half_dead_idle,
        ),
        Row::new(
            "half-dead, in a call",
            "the socket stays open, nothing goes through",
            "the answer's deadline; the read goes on at the next endpoint",
            answers(4),
            half_dead_in_a_call,
        ),
        Row::new(
            "half-dead before the greeting",
            "connections are accepted and swallowed",
            "the deadline of connecting; the next endpoint",
            answers(4),
            || greeted(Mode::Stall),
        ),
        Row::new(
            "a trickle",
            "answers come at 1 kB/s",
            "the deadline of connecting's questions; the next endpoint",
            answers(4),
            || greeted(Mode::Trickle(1_000)),
        ),
        Row::new(
            "head stands still",
            "the node answers, and has no new block",
            "no new head; the next endpoint",
            answers(3).stall(),
            head_still,
        ),
        Row::new(
            "still syncing",
            "the node says that it catches up",
            "asked when connecting; the next endpoint",
            answers(4),
            syncing,
        ),
        Row::new(
            "another chain",
            "the endpoint has another genesis",
            "asked when connecting; the next endpoint; alone, an error that names both",
            answers(4),
            another_chain,
        ),
        Row::new(
            "fail-over and back",
            "the first endpoint dies and is well again, later the second dies",
            "the second stays in use until it fails",
            answers(3),
            over_and_back,
        ),
        Row::new(
            "greets, then breaks, always",
            "every connection breaks with its first call",
            "after the second time, a pause that grows",
            answers(3).pause(),
            flapping,
        ),
    ]
}

async fn refused() -> Duration {
    let bench = Bench::new(2).await;
    bench.wires[0].set(Mode::Gone).await;
    let begin = Instant::now();
    // One call: a caller need not come again.
    bench.read().await.unwrap();
    assert_eq!(bench.client.vitals().endpoint, Some(2));
    assert_eq!((bench.client.vitals().connected, bench.client.vitals().failed), (1, 1));
    bench.check().await;
    begin.elapsed()
}

async fn all_refused() -> Duration {
    let bench = Bench::connected(2).await;
    for wire in &bench.wires {
        wire.set(Mode::Gone).await;
    }
    let away = Instant::now();
    bench.noticed_since(away, &[Cause::Broken]).await;
    while away.elapsed() < 3 * pause() {
        let begin = Instant::now();
        let error = bench.read().await.unwrap_err();
        assert!(matches!(error, ChainError::Unreachable(_)), "{error}");
        assert!(begin.elapsed() < answer(), "a refused connection is heard of at once");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let tried = bench.client.vitals().failed;
    assert!((4..=40).contains(&tried), "{tried} attempts in {:?}", 3 * pause());
    for wire in &bench.wires {
        wire.set(Mode::Pass).await;
    }
    let took = bench.whole_since(Instant::now()).await;
    bench.check().await;
    took
}

async fn reset() -> Duration {
    let bench = Bench::connected(1).await;
    let begin = Instant::now();
    bench.wires[0].cut_once().await;
    bench.noticed_since(begin, &[Cause::Broken]).await;
    let took = bench.whole_since(begin).await;
    assert_eq!(bench.ended(Cause::Broken), 1);
    bench.check().await;
    took
}

async fn half_dead_idle() -> Duration {
    let bench = Arc::new(Bench::connected(1).await);
    let _blocks = bench.blocks(stall() / 5);
    let begin = Instant::now();
    bench.wires[0].set(Mode::Stall).await;
    bench.noticed_since(begin, &[Cause::Broken, Cause::HeadStill]).await;
    bench.wires[0].set(Mode::Pass).await;
    let took = bench.whole_since(begin).await;
    bench.check().await;
    took
}

async fn half_dead_in_a_call() -> Duration {
    let bench = Bench::connected(2).await;
    bench.told().await;
    bench.node().fault(STORAGE, Fault::Stall);
    let begin = Instant::now();
    bench.read().await.unwrap(); // the call itself, not a later one
    let took = begin.elapsed();
    assert_eq!(bench.ended(Cause::Timeout), 1, "{:?}", bench.client.vitals());
    assert_eq!(bench.client.vitals().endpoint, Some(2));
    bench.check().await;
    took
}

/// The first endpoint's wire is in this mode before anybody connects.
async fn greeted(mode: Mode) -> Duration {
    let bench = Bench::new(2).await;
    bench.wires[0].set(mode).await;
    let begin = Instant::now();
    bench.read().await.unwrap();
    let took = begin.elapsed();
    assert_eq!(bench.client.vitals().endpoint, Some(2));
    bench.check().await;
    took
}

async fn head_still() -> Duration {
    let bench = Bench::connected(2).await;
    let begin = Instant::now();
    while bench.client.vitals().endpoint != Some(2) {
        // It answers all the time: only its head says that it is of no use.
        bench.read().await.unwrap();
        bench.nodes[1].new_block();
        assert!(begin.elapsed() < 10 * stall(), "nobody noticed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(bench.ended(Cause::HeadStill), 1);
    let took = begin.elapsed();
    bench.check().await;
    took
}

async fn syncing() -> Duration {
    let bench = Bench::new(2).await;
    bench.node().fault_many("system_health", 0, usize::MAX, Fault::Result(json!({ "peers": 1, "isSyncing": true })));
    let begin = Instant::now();
    bench.read().await.unwrap();
    let took = begin.elapsed();
    assert_eq!(bench.client.vitals().endpoint, Some(2));
    let alone = client(&[bench.wires[0].url()]);
    let error = alone.head().await.unwrap_err();
    assert!(error.to_string().contains("still catching up"), "{error}");
    bench.check().await;
    took
}

async fn another_chain() -> Duration {
    let bench = Bench::connected(2).await;
    // The node behind the first endpoint is replaced by one of another chain, and the connection ends with it.
    let other = format!("0x{}", "77".repeat(32));
    bench.node().fault_many("chain_getBlockHash", 0, usize::MAX, Fault::Result(json!(other)));
    bench.wires[1].set(Mode::Gone).await;
    let begin = Instant::now();
    bench.node().drop_connections();
    let error = loop {
        let Err(error) = bench.read().await else { continue };
        if error.to_string().contains("another chain") {
            break error.to_string();
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(error.contains(&other[2..12]) && error.contains("check subtensor.network"), "{error}");
    bench.wires[1].set(Mode::Pass).await;
    let begin = Instant::now();
    let took = bench.whole_since(begin).await;
    assert_eq!(bench.client.vitals().endpoint, Some(2));
    bench.check().await;
    took
}

async fn over_and_back() -> Duration {
    let bench = Bench::connected(2).await;
    assert_eq!(bench.client.vitals().endpoint, Some(1));
    bench.wires[0].set(Mode::Gone).await;
    let over = bench.whole_since(Instant::now()).await;
    assert_eq!(bench.client.vitals().endpoint, Some(2));
    bench.wires[0].set(Mode::Pass).await;
    for node in &bench.nodes {
        node.new_block(); // a head was told: the second endpoint has been good for something
    }
    bench.check().await;
    assert_eq!(bench.client.vitals().endpoint, Some(2), "it stays until it fails");
    bench.wires[1].set(Mode::Gone).await;
    let back = bench.whole_since(Instant::now()).await;
    assert_eq!(bench.client.vitals().endpoint, Some(1));
    assert_eq!(bench.client.vitals().connected, 3);
    bench.check().await;
    over.max(back)
}

async fn flapping() -> Duration {
    let bench = Bench::new(1).await;
    bench.node().fault_many(STORAGE, 0, usize::MAX, Fault::Drop);
    let begin = Instant::now();
    while bench.node().connections() < 6 {
        bench.read().await.unwrap_err();
        assert!(begin.elapsed() < Duration::from_secs(60), "it is no longer tried");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The second is made at once, then after pauses of 50, 100, 200 and 400 ms.
    assert!(begin.elapsed() > Duration::from_millis(700), "6 connections in {:?}", begin.elapsed());
    bench.node().heal();
    let took = bench.whole_since(Instant::now()).await;
    bench.check().await;
    took
}
