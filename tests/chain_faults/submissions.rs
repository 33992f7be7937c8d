//! Faults of calls that change the chain: each is sent once, and the client says what became of it if anybody can know.

use std::time::Duration;

use compute_subnet::chain::{Chain as _, ChainError, Inclusion, Rejection};
use serde_json::json;
use tokio::time::Instant;

use crate::bench::{Bench, SUBMISSION, answer, submit_limit, submitted, weights};
use crate::fake::{Fake, Fault, Refusal};
use crate::proxy::Mode;
use crate::table::{Row, answers};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "refused by the pool",
            "1010 with each reason, 1012, 1013, 1014, 1016",
            "the caller hears the chain's name of it; the connection is kept",
            answers(1),
            refused_by_the_pool,
        ),
        Row::new(
            "refused before the pool",
            "the runtime says that it would refuse",
            "nothing is sent",
            answers(1),
            refused_by_the_runtime,
        ),
        Row::new(
            "refused in its block",
            "the call is included and fails",
            "the caller hears the chain's name of it",
            answers(1),
            failed_in_its_block,
        ),
        Row::new(
            "dropped after it was taken",
            "the connection is reset instead of an answer",
            "it is found in its block; sent once",
            answers(4),
            taken_and_dropped,
        ),
        Row::new(
            "dropped before it was taken",
            "the connection is reset, the node never got it",
            "it is looked for until the deadline; sent once; not known",
            answers(0).submit(),
            never_taken,
        ),
        Row::new(
            "dies while it waits for its block",
            "the wire goes dead, the call is included meanwhile",
            "it is found in its block by another endpoint; sent once",
            answers(4).stall(),
            dies_while_it_waits,
        ),
        Row::new(
            "dies after inclusion",
            "the connection is reset when its block is read",
            "its block is read again with a new connection; sent once",
            answers(4),
            dies_after_inclusion,
        ),
        Row::new(
            "never a word of it",
            "the node takes it and says nothing",
            "after 3 blocks it is looked for in them; sent once",
            answers(1),
            silent,
        ),
        Row::new(
            "its subscription ends",
            "the node stops telling of it",
            "it is found in its block; sent once",
            answers(2),
            subscription_ends,
        ),
        Row::new(
            "retracted before it is final",
            "its block is replaced, it comes into another one",
            "it was included; whether it stays is for the finalised weights to say; sent once",
            answers(1),
            retracted,
        ),
        Row::new(
            "retracted before its block is read",
            "its block is replaced at once",
            "the replaced block is read, or the new one; sent once",
            answers(4),
            retracted_early,
        ),
        Row::new(
            "two at a time",
            "a second call while the first hangs",
            "it waits for its turn, and is not sent if that does not come",
            answers(1).submit(),
            two_at_a_time,
        ),
        Row::new(
            "caller goes while it is sent",
            "an actor restarts in between",
            "the call stays sent once; the next one has its turn",
            answers(1),
            caller_goes,
        ),
    ]
}

/// Sends weights, and does this once the node got them; what became of them, and how long after the moment that it names.
async fn sent_while(
    bench: &Bench,
    meanwhile: impl Future<Output = Instant>,
) -> (Result<Inclusion, ChainError>, Duration) {
    let sending = async { (bench.send().await, Instant::now()) };
    let meanwhile = async {
        while bench.submissions() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        meanwhile.await
    };
    let ((sent, end), begin) = tokio::join!(sending, meanwhile);
    (sent, end.saturating_duration_since(begin))
}

/// The call that `node` got will be in the next block of `other`, which may be the same one.
fn pooled(node: &Fake, other: &Fake) {
    let call = submitted(node);
    other.with(|chain| chain.pool.push(call));
}

async fn refused_by_the_pool() -> Duration {
    let bench = Bench::connected(1).await;
    let invalid = |data: &str| Refusal::new(1010, "Invalid Transaction", Some(data));
    let rejected = |r: Rejection| ChainError::from(r);
    let named = |name: &str| ChainError::Refused(name.to_owned());
    let mut all: Vec<(Refusal, ChainError)> = vec![
        (Refusal::outdated(), rejected(Rejection::Outdated)),
        (invalid("Transaction has an ancient birth block"), rejected(Rejection::AncientBirthBlock)),
        (invalid("Transaction has a bad signature"), rejected(Rejection::BadSignature)),
        (invalid("Inability to pay some fees (e.g. account balance too low)"), rejected(Rejection::Payment)),
        (invalid("Transaction would exhaust the block limits"), rejected(Rejection::ExhaustsResources)),
        (invalid("something of the future"), named("something of the future")),
        (Refusal::new(1012, "Transaction is temporarily banned", None), rejected(Rejection::Banned)),
        (Refusal::new(1013, "Transaction is already imported", None), rejected(Rejection::Priority)),
        (Refusal::priority_too_low(), rejected(Rejection::Priority)),
        (Refusal::new(1016, "Immediately Dropped", None), rejected(Rejection::PoolFull)),
    ];
    // The list of the runtime's own numbers is tested where it is; here, that each gets through.
    all.extend(
        (0..=u8::MAX)
            .step_by(5)
            .chain([1, 6, 12, 16])
            .map(|n| (Refusal::custom(n), compute_subnet::chain::subtensor::refusal::custom(n))),
    );
    let count = all.len();
    let begin = Instant::now();
    for (refusal, expected) in all {
        bench.node().fault(SUBMISSION, Fault::Refuse(refusal));
        assert_eq!(bench.send().await.unwrap_err(), expected);
    }
    let took = begin.elapsed() / count as u32;
    assert_eq!(bench.submissions(), count, "each once");
    assert_eq!(bench.node().connections(), 1);
    bench.check().await;
    took
}

async fn refused_by_the_runtime() -> Duration {
    let bench = Bench::connected(1).await;
    let begin = Instant::now();
    for (bytes, expected) in [
        ("0x01000706", Rejection::RateLimitExceeded),
        ("0x010003", Rejection::Outdated),
        ("0x010005", Rejection::AncientBirthBlock),
        ("0x010004", Rejection::BadSignature),
    ] {
        let method = "TaggedTransactionQueue_validate_transaction".to_owned();
        bench.node().with(|chain| chain.runtime.insert(method, bytes.to_owned()));
        assert_eq!(bench.send().await.unwrap_err(), expected.into());
    }
    let took = begin.elapsed() / 4;
    assert_eq!(bench.submissions(), 0);
    bench.node().with(|chain| chain.runtime.clear());
    bench.check().await;
    took
}

async fn failed_in_its_block() -> Duration {
    let bench = Bench::connected(1).await;
    let pallet = 7; // SubtensorModule in all versions that are known
    bench.node().with(|chain| chain.outcome = crate::fake::Outcome::Failed { pallet, error: 0 });
    let begin = Instant::now();
    let error = bench.send().await.unwrap_err();
    let took = begin.elapsed();
    assert!(matches!(error, ChainError::Rejected(_) | ChainError::Refused(_)), "{error:?}");
    assert_eq!(bench.submissions(), 1);
    bench.node().with(|chain| chain.outcome = crate::fake::Outcome::Success);
    bench.check().await;
    took
}

async fn taken_and_dropped() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault(SUBMISSION, Fault::DropAfter);
    let begin = Instant::now();
    let included = bench.send().await.unwrap();
    let took = begin.elapsed();
    assert_eq!(included.block, bench.node().with(|chain| chain.head().number));
    assert_eq!(bench.submissions(), 1);
    bench.check().await;
    took
}

async fn never_taken() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault(SUBMISSION, Fault::Drop);
    let begin = Instant::now();
    assert_eq!(bench.send().await, Err(ChainError::Deadline(submit_limit())));
    let took = begin.elapsed();
    assert_eq!(bench.submissions(), 1);
    bench.check().await;
    took
}

async fn dies_while_it_waits() -> Duration {
    let bench = Bench::connected(2).await;
    bench.node().with(|chain| chain.instant = false);
    let meanwhile = async {
        bench.wires[0].set(Mode::Stall).await;
        let begin = Instant::now();
        // The other node has the block.
        pooled(bench.node(), &bench.nodes[1]);
        bench.nodes[1].new_block();
        begin
    };
    let (sent, took) = sent_while(&bench, meanwhile).await;
    assert_eq!(sent.unwrap().block, 2);
    assert_eq!(bench.client.vitals().endpoint, Some(2));
    assert_eq!(bench.submissions(), 1);
    bench.check().await;
    took
}

async fn dies_after_inclusion() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault("chain_getBlock", Fault::Drop);
    let begin = Instant::now();
    assert_eq!(bench.send().await.unwrap().block, 2);
    let took = begin.elapsed();
    assert_eq!(bench.submissions(), 1);
    bench.check().await;
    took
}

async fn silent() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault(SUBMISSION, Fault::SilentSubscription);
    let meanwhile = async {
        pooled(bench.node(), bench.node());
        for _ in 0..3 {
            bench.node().new_block();
            tokio::time::sleep(answer() / 5).await;
        }
        Instant::now()
    };
    let (sent, took) = sent_while(&bench, meanwhile).await;
    assert_eq!(sent.unwrap().block, 2);
    assert_eq!((bench.submissions(), bench.node().connections()), (1, 1));
    bench.check().await;
    took
}

async fn subscription_ends() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault(SUBMISSION, Fault::EndedSubscription(vec![json!("ready")]));
    let meanwhile = async {
        pooled(bench.node(), bench.node());
        bench.node().new_block();
        Instant::now()
    };
    let (sent, took) = sent_while(&bench, meanwhile).await;
    assert_eq!(sent.unwrap().block, 2);
    assert_eq!(bench.submissions(), 1);
    bench.check().await;
    took
}

async fn retracted() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().with(|chain| chain.lag = 5);
    let begin = Instant::now();
    let first = bench.send().await.unwrap();
    let took = begin.elapsed();
    bench.node().reorg(1);
    bench.node().new_block();
    let call = submitted(bench.node());
    let at =
        bench.node().with(|chain| (1..=chain.head().number).filter(|n| chain.holds(*n, &call)).collect::<Vec<_>>());
    assert_eq!(at, [first.block + 2], "it is in one block, another one");
    assert_eq!(bench.submissions(), 1);
    bench.check().await;
    took
}

async fn retracted_early() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().with(|chain| chain.lag = 5);
    // Its block is read late: by then it has been replaced.
    bench.node().fault("chain_getBlock", Fault::Slow(answer() / 2));
    let begin = Instant::now();
    let meanwhile = async {
        tokio::time::sleep(answer() / 10).await;
        bench.node().reorg(1);
        bench.node().new_block();
        begin
    };
    let (sent, took) = sent_while(&bench, meanwhile).await;
    assert!([2, 4].contains(&sent.as_ref().unwrap().block), "{sent:?}");
    assert_eq!(bench.submissions(), 1);
    bench.check().await;
    took
}

async fn two_at_a_time() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault(SUBMISSION, Fault::SilentSubscription);
    let begin = Instant::now();
    let first = async { bench.client.submit_weights(&weights()).await };
    let second = async {
        tokio::time::sleep(answer() / 5).await;
        (bench.client.serve_axon("127.0.0.2".parse().unwrap(), 8091, 183).await, Instant::now())
    };
    let (first, (second, end)) = tokio::join!(first, second);
    assert_eq!(first, Err(ChainError::Deadline(submit_limit())));
    // Its turn comes as the first one's deadline passes, if it comes.
    assert!(second.is_ok(), "{second:?}");
    assert_eq!(bench.submissions(), 2, "each once");
    bench.check().await;
    end.duration_since(begin)
}

async fn caller_goes() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().with(|chain| chain.instant = false);
    assert!(tokio::time::timeout(answer() / 2, bench.client.submit_weights(&weights())).await.is_err());
    assert_eq!(bench.submissions(), 1);
    bench.node().with(|chain| chain.instant = true);
    bench.node().new_block();
    let begin = Instant::now();
    bench.check().await;
    begin.elapsed()
}
