//! Provers that crash, hang, write nonsense or lie, in real miners before a real validator.

use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::ledger::LedgerHandle;
use compute_subnet::ids::{Hash32, Hotkey, Uid};
use compute_subnet::proof::Work;
use compute_subnet::proof::frames::{self, Frame};
use compute_subnet::proof::prover::{ChildProver, Forgery, ForgingProver, Prover, ProverLimits};
use compute_subnet::store::queries;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::verdict::Verdict;

use crate::common::{PROVER, assert_unharmed, get, inside, metrics, until};
use crate::world::{World, child, honest, key};

/// The time limit of a prover that is to run into it.
const SHORT: Duration = Duration::from_secs(3);
/// Of one that is not.
const LONG: Duration = Duration::from_secs(20);

/// A program that plays these frames to whoever asks, whatever is asked, and then waits.
async fn recording(world: &World, name: &str, time: Duration, answers: &[Frame]) -> Arc<dyn Prover> {
    let mut bytes = frames::PROVER_HELLO.to_vec();
    for frame in answers {
        frames::write_frame(&mut bytes, frame).await.unwrap();
    }
    let file = world.dir.path().join(format!("{name}.frames"));
    std::fs::write(&file, bytes).unwrap();
    let script = format!("/bin/cat {}; exec /bin/sleep 1000", file.display());
    child("/bin/sh", &["-c", &script], time)
}

#[test]
fn every_prover_that_fails_or_lies_has_its_verdict_and_the_miner_and_the_rest_go_on() {
    inside(async |runtime| {
        let mut world = World::new(runtime);
        world.settings.challenge.opening_deadline = SHORT * 2;
        let class = &world.settings.devnet.gpu_scores["cpu-1"];
        let work = Work::new(class.n, class.k, class.rounds).unwrap();
        let openings = vec![0; work.opening_len() * world.settings.challenge.samples as usize];
        let roots = |count| Frame::Roots { roots: vec![Hash32([7; 32]); count] };
        let forging = |forgery| Arc::new(ForgingProver { forgery, threads: 1 }) as Arc<dyn Prover>;
        let shell = |script: &str| child("/bin/sh", &["-c", script], LONG);
        let limits = ProverLimits { time: LONG, memory_bytes: 4 << 20, output_bytes: 16 << 20, threads: 1 };
        let no_memory = Arc::new(ChildProver::new(PROVER.into(), limits));
        let half = Forgery::SkipTiles { ratio: 0.5 };
        let made_up = recording(&world, "made-up", LONG, &[roots(1), Frame::Openings { bytes: openings }]).await;
        let short = recording(&world, "short", LONG, &[roots(1), Frame::Openings { bytes: vec![0; 10] }]).await;
        let silent = recording(&world, "silent", SHORT, &[roots(1)]).await;
        let two_roots = recording(&world, "two-roots", LONG, &[roots(2)]).await;

        let cases: Vec<(&str, Arc<dyn Prover>, &str, &str)> = vec![
            ("Honest", honest(), "pass", "none"),
            ("EndsAtOnce", child("/bin/false", &[], LONG), "unknown", "prover_crashed"),
            ("Killed", shell("kill -KILL $$"), "unknown", "prover_crashed"),
            ("NotThere", child("/nowhere/compute-prover", &[], LONG), "unknown", "prover_crashed"),
            ("NoMemory", no_memory, "unknown", "prover_crashed"),
            ("Hangs", child("/bin/sleep", &["1000"], SHORT), "unknown", "prover_hung"),
            ("Echoes", child("/bin/cat", &[], LONG), "unknown", "prover_garbage"),
            ("Noise", child("/bin/cat", &["/dev/urandom"], LONG), "unknown", "prover_garbage"),
            ("TwoRoots", two_roots, "unknown", "prover_garbage"),
            ("Silent", silent, "fail", "opening_withheld"),
            ("TooShort", short, "fail", "opening_withheld"),
            ("MadeUp", made_up, "fail", "path_mismatch"),
            ("SkipsHalf", forging(half), "fail", half.expected().label()),
            ("RandomRoots", forging(Forgery::RandomRoots), "fail", Forgery::RandomRoots.expected().label()),
            ("MissingRound", forging(Forgery::MissingRound), "fail", Forgery::MissingRound.expected().label()),
        ];
        let neurons: Vec<(&str, u64)> =
            [("Validator", 100_000)].into_iter().chain(cases.iter().map(|(name, ..)| (*name, 0))).collect();
        let ledger = world.ledger(&neurons).await;
        let chain = |name: &str| world.in_process(&ledger, &key(name));
        let mut miners = Vec::new();
        for (name, prover, ..) in &cases {
            miners.push(world.miner(world.input(name, chain(name)), prover.clone()).unwrap());
        }
        all_announced(&ledger, miners.len()).await;
        let input = world.input("Validator", chain("Validator"));
        let database = input.data_dir.clone();
        let validator = world.validator(input).unwrap();

        // A busy machine may miss its first slots, which says nothing of a miner.
        let first_of = |conn: &rusqlite::Connection, hotkey: &Hotkey| {
            let verdicts = queries::verdicts(conn, hotkey, 100).unwrap().into_iter().map(|v| v.verdict);
            verdicts.rev().find(|verdict| verdict.reason() != "own_fault")
        };
        until("every miner is judged", async || {
            let conn = open_read_only(&database).ok()?;
            miners.iter().all(|m| first_of(&conn, &m.hotkey).is_some()).then_some(())
        })
        .await;
        let conn = open_read_only(&database).unwrap();
        for ((name, _, kind, reason), miner) in cases.iter().zip(&miners) {
            let first = &first_of(&conn, &miner.hotkey).unwrap();
            assert_eq!((first.kind(), first.reason()), (*kind, *reason), "{name}: {first:?}");
            if let Verdict::Unknown { detail, .. } | Verdict::Fail { detail, .. } = first {
                assert!(!detail.is_empty(), "{name}: a verdict says what was seen");
            }
            assert_unharmed(name, miner.web, &miner.view).await;
            assert_eq!(get(miner.web, "/readyz").await.status, 200, "{name}");
            if reason.starts_with("prover_") {
                let page = metrics(miner.web).await;
                assert!(page[&format!("compute_prover_runs_total{{outcome=\"{reason}\"}}")] >= 1.0, "{name}");
            }
        }
        // Only the honest one is worth anything, and it is paid in full.
        let scores = until("the scores are stored", async || {
            let scores = queries::latest_scores(&conn).unwrap();
            (scores.len() == miners.len()).then_some(scores)
        })
        .await;
        for score in scores {
            let honest = score.hotkey == miners[0].hotkey;
            assert_eq!(score.score.0, if honest { 3_125_000_000 } else { 0 }, "uid {}", score.uid);
        }
        until("the weights are on the ledger", async || {
            let graph = ledger.state().metagraph();
            let uid = graph.by_hotkey(&miners[0].hotkey)?.uid;
            (graph.by_uid(Uid(0))?.weights == [(uid, 65_535)]).then_some(())
        })
        .await;
        assert_unharmed("validator", validator.web, &validator.view).await;
        validator.end().await;
        for miner in miners {
            miner.end().await;
        }
    });
}

/// Waits until the ledger knows the axon of every miner, so that the first round asks them all.
async fn all_announced(ledger: &LedgerHandle, miners: usize) {
    until("every axon is announced", async || {
        let neurons = ledger.state().metagraph().neurons;
        (neurons.iter().filter(|n| n.axon.is_some()).count() == miners).then_some(())
    })
    .await;
}
