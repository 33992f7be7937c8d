//! Faults of calls that change the chain: each is sent once, and the client says what became of it if anybody can know.

use std::time::Duration;

use compute_subnet::chain::{Chain as _, ChainError, Inclusion, Rejection};
use compute_subnet::ids::Hotkey;
use compute_subnet::wallet::Keypair;
use serde_json::json;
use tokio::time::Instant;

use crate::bench::{Bench, SUBMISSION, answer, submit_limit, submitted, weights};
use crate::fake::{Fake, Fault, Outcome, Refusal};
use crate::proxy::Mode;
use crate::table::{Row, answers};

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row::new(
            "refused by the pool",
            "1010 with each reason, 1012, 1014, 1016",
            "the caller hears the chain's name of it; the connection is kept",
            answers(1),
            refused_by_the_pool,
        ),
        Row::new(
            "in the pool already",
            "1013: the node has the same call",
            "it may be this one: it is found in its block; sent once",
            answers(2),
            in_the_pool_already,
        ),
        Row::new(
            "fails before it is sent",
            "the account's nonce is refused, then never answered",
            "it is told that nothing was sent",
            answers(4),
            fails_before,
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
            "refused in a block that is replaced",
            "the call is included and fails, and succeeds in another block",
            "a refusal counts once its block is final; sent once",
            answers(2),
            failed_and_replaced,
        ),
        Row::new(
            "refused in a block that is never final",
            "the call is included and fails, finality stands still",
            "it is followed until the deadline; sent once; not known",
            answers(0).submit(),
            failed_and_never_final,
        ),
        Row::new(
            "refused, and never a word of it",
            "the node takes it and says nothing, the call is included and fails",
            "it is looked for in the blocks, and counts once its block is final; sent once",
            answers(1),
            failed_in_silence,
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

/// What came of it, and when.
async fn timed<T>(sending: impl Future<Output = T>) -> (T, Instant) {
    (sending.await, Instant::now())
}

/// Sends weights, and does this once the node got them; what became of them, and how long after the moment that it names.
async fn sent_while(
    bench: &Bench,
    meanwhile: impl Future<Output = Instant>,
) -> (Result<Inclusion, ChainError>, Duration) {
    let meanwhile = async {
        while bench.submissions() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        meanwhile.await
    };
    let ((sent, end), begin) = tokio::join!(timed(bench.send()), meanwhile);
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

async fn in_the_pool_already() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().fault(SUBMISSION, Fault::Refuse(Refusal::new(1013, "Transaction is already imported", None)));
    let meanwhile = async {
        pooled(bench.node(), bench.node());
        bench.node().new_block();
        Instant::now()
    };
    let (sent, took) = sent_while(&bench, meanwhile).await;
    assert_eq!(sent.unwrap().block, 2);
    assert_eq!((bench.submissions(), bench.node().connections()), (1, 1));
    bench.check().await;
    took
}

async fn fails_before() -> Duration {
    const NONCE: &str = "system_accountNextIndex";
    let bench = Bench::connected(1).await;
    let unsent = |error: ChainError| matches!(&error, ChainError::Unsent { .. }) && !error.is_unclear();
    bench.node().fault(NONCE, Fault::Refuse(Refusal::new(-32000, "server is busy", None)));
    assert!(unsent(bench.send().await.unwrap_err()));
    assert_eq!(bench.node().connections(), 1);
    // Once more on another connection, as with a read.
    bench.node().fault_many(NONCE, 0, 2, Fault::Silence);
    let begin = Instant::now();
    assert!(unsent(bench.send().await.unwrap_err()));
    let took = begin.elapsed();
    assert_eq!(bench.submissions(), 0);
    bench.check().await;
    took
}

async fn refused_by_the_runtime() -> Duration {
    let bench = Bench::connected(1).await;
    let begin = Instant::now();
    for (bytes, expected) in [
        ("0x01000706", Rejection::RateLimitExceeded.into()),
        // Of a call that was sent this would leave open which one came first.
        ("0x010003", ChainError::from(Rejection::Outdated).unsent()),
        ("0x010005", Rejection::AncientBirthBlock.into()),
        ("0x010004", Rejection::BadSignature.into()),
    ] {
        let method = "TaggedTransactionQueue_validate_transaction".to_owned();
        bench.node().with(|chain| chain.runtime.insert(method, bytes.to_owned()));
        assert_eq!(bench.send().await.unwrap_err(), expected);
    }
    let took = begin.elapsed() / 4;
    assert_eq!(bench.submissions(), 0);
    bench.node().with(|chain| chain.runtime.clear());
    bench.check().await;
    took
}

/// A call that fails in its block: SubtensorModule is pallet 7 in all versions that are known.
const FAILED: Outcome = Outcome::Failed { pallet: 7, error: 0 };

async fn failed_and_replaced() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().with(|chain| (chain.lag, chain.outcome) = (5, FAILED));
    let meanwhile = async {
        // It is told of the failure, which is not final.
        tokio::time::sleep(answer() / 5).await;
        let begin = Instant::now();
        bench.node().with(|chain| chain.outcome = Outcome::Success);
        bench.node().reorg(1);
        bench.node().new_block();
        begin
    };
    let (sent, took) = sent_while(&bench, meanwhile).await;
    assert_eq!(sent.unwrap().block, 4);
    assert_eq!(bench.submissions(), 1);
    bench.check().await;
    took
}

async fn failed_and_never_final() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().with(|chain| (chain.lag, chain.outcome) = (1_000, FAILED));
    let begin = Instant::now();
    assert_eq!(bench.send().await, Err(ChainError::Deadline(submit_limit())));
    let took = begin.elapsed();
    assert_eq!(bench.submissions(), 1);
    bench.node().with(|chain| chain.outcome = Outcome::Success);
    bench.check().await;
    took
}

async fn failed_in_silence() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().with(|chain| (chain.lag, chain.outcome) = (4, FAILED));
    bench.node().fault(SUBMISSION, Fault::SilentSubscription);
    let meanwhile = async {
        pooled(bench.node(), bench.node());
        // In block 2, which is final with block 6.
        for _ in 2..=6 {
            tokio::time::sleep(answer() / 5).await;
            bench.node().new_block();
        }
        Instant::now()
    };
    let (sent, took) = sent_while(&bench, meanwhile).await;
    let error = sent.unwrap_err();
    assert!(matches!(error, ChainError::Rejected(_) | ChainError::Refused(_)), "{error:?}");
    assert!(!took.is_zero(), "it was told before its block was final");
    assert_eq!((bench.submissions(), bench.node().connections()), (1, 1));
    bench.node().with(|chain| chain.outcome = Outcome::Success);
    bench.check().await;
    took
}

async fn failed_in_its_block() -> Duration {
    let bench = Bench::connected(1).await;
    bench.node().with(|chain| chain.outcome = FAILED);
    let begin = Instant::now();
    let error = bench.send().await.unwrap_err();
    let took = begin.elapsed();
    assert!(matches!(error, ChainError::Rejected(_) | ChainError::Refused(_)), "{error:?}");
    assert_eq!(bench.submissions(), 1);
    bench.node().with(|chain| chain.outcome = Outcome::Success);
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
    bench.node().fault_many(SUBMISSION, 0, 2, Fault::SilentSubscription);
    let begin = Instant::now();
    let first = async { bench.client.submit_weights(&weights()).await };
    let after = async |times: u32| {
        tokio::time::sleep(answer() / 5 * times).await;
        timed(bench.client.serve_axon("127.0.0.2".parse().unwrap(), 8091, 183)).await
    };
    let (first, (second, _), (third, end)) = tokio::join!(first, after(1), after(2));
    assert_eq!(first, Err(ChainError::Deadline(submit_limit())));
    // Its turn comes as the first one's deadline passes, and it meets the same; for the third that is too late.
    assert_eq!(second, Err(ChainError::Deadline(submit_limit())));
    assert!(matches!(third, Err(ChainError::Unsent { .. })), "{third:?}");
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

#[tokio::test]
async fn a_registration_carries_its_limit_to_the_chain() {
    if crate::bench::chain().is_none() {
        return;
    }
    let bench = Bench::connected(1).await;
    let payer = Keypair::from_uri("//Bob").unwrap();
    bench.client.register_within(Hotkey([7; 32]), 0x0102_0304, &payer).await.unwrap();
    let call = submitted(bench.node());
    assert!(call.ends_with(&format!("{}0403020100000000", "07".repeat(32))), "{call}");
    assert_eq!(bench.submissions(), 1);
}
