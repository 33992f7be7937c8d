//! Several validators on one devnet: they take turns within an epoch, and come to the same scores.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{LONG, PROVER, inside, settings};
use compute_subnet::chain::epoch_of;
use compute_subnet::exit::Exit;
use compute_subnet::ids::{Coldkey, DeviceId, Epoch, Uid};
use compute_subnet::messages::chain_watcher::ChainView;
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use compute_subnet::sim::keys::DevnetKeys;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::store::records::{PlannedVerdict, RoundOutcome, RoundRecord, VerdictRecord};
use compute_subnet::store::{self, Record, Role, Writer, WriterConfig, queries};
use compute_subnet::verdict::{UnknownCause, Verdict};
use tokio::sync::{oneshot, watch};

/// Epochs in which both validators are to have judged. With `COMPUTE_TEST_LONG` set, as many as honest miners are to go
/// through without a fail.
fn epochs() -> u64 {
    if std::env::var_os("COMPUTE_TEST_LONG").is_some() { 50 } else { 5 }
}

fn options(dir: &Path) -> DevnetOptions {
    DevnetOptions { validators: 2, ..DevnetOptions::new(dir, PROVER) }
}

/// What one validator wrote down.
struct Books {
    verdicts: Vec<VerdictRecord>,
    /// Scores above 0 of the epochs that it judged, by uid.
    scores: BTreeMap<Epoch, BTreeMap<Uid, u64>>,
    weights_set: bool,
}

fn books(dir: &Path) -> Books {
    let db = open_read_only(dir).unwrap();
    let verdicts = queries::verdicts_since(&db, 0).unwrap();
    let epochs: BTreeSet<Epoch> = verdicts.iter().map(|v| v.epoch).collect();
    let judged = |e: &Epoch| queries::round_outcome(&db, *e).unwrap() == Some(RoundOutcome::Judged);
    // Those that score; each validator has a row of 0 for the other.
    let paid = |e: Epoch| queries::scores(&db, e).unwrap().into_iter().filter(|s| s.score.0 > 0);
    let scores = |e: Epoch| paid(e).map(|s| (s.uid, s.score.0)).collect();
    let scores: BTreeMap<Epoch, BTreeMap<Uid, u64>> =
        epochs.into_iter().filter(judged).map(|e| (e, scores(e))).collect();
    let weights_set = queries::last_included_weights(&db).unwrap().is_some();
    Books { verdicts, scores, weights_set }
}

/// Waits until this many epochs have passed, with `most` as the longest.
async fn pass(view: &mut watch::Receiver<Option<Arc<ChainView>>>, epochs: u64, most: Duration) {
    let now = |view: &Option<Arc<ChainView>>| view.as_ref().map(|v| v.epoch());
    view.wait_for(|v| v.is_some()).await.unwrap();
    let until = now(&view.borrow()).unwrap() + epochs;
    let reached = view.wait_for(|v| now(v).is_some_and(|epoch| epoch >= until));
    tokio::time::timeout(most, reached).await.expect("the ledger makes blocks").unwrap();
}

#[test]
fn two_validators_take_turns_agree_on_every_score_and_fail_no_honest_miner() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let options = options(dir.path());
        let mut settings = settings(dir.path());
        // Two slots of four blocks: 800 ms, in which four proofs and their openings fit on a busy machine.
        settings.devnet.block_time = Duration::from_millis(200);
        settings.devnet.tempo = 7;
        let settings = Arc::new(settings);
        let devnet = Devnet::start(&options, settings, "127.0.0.1:0".parse().unwrap(), runtime).await.unwrap();
        let mut view = devnet.validator.as_ref().unwrap().node.chain.clone();
        let ledger = devnet.ledger.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(0, async move {
            let _ = stopped.await;
        }));
        // The first epochs pass until everybody is registered, has a permit and has announced its axon.
        pass(&mut view, epochs() + 4, LONG * 4).await;

        let graph = ledger.state().metagraph();
        let stakes: Vec<u64> = graph.neurons.iter().filter(|n| n.validator_permit).map(|n| n.stake_rao).collect();
        assert!(stakes.len() == 2 && stakes[0] != stakes[1], "{stakes:?}");
        stop.send(()).unwrap();
        assert_eq!(tokio::time::timeout(LONG, task).await.expect("a devnet ends").unwrap(), Exit::Ok);
    });

    let (first, second) = (books(&dir.path().join("validator")), books(&dir.path().join("validator-1")));
    for (name, books) in [("first", &first), ("second", &second)] {
        let fails: Vec<_> = books.verdicts.iter().filter(|v| matches!(v.verdict, Verdict::Fail { .. })).collect();
        assert!(fails.is_empty(), "{name}: honest miners failed: {fails:?}");
        assert!(books.weights_set, "{name} set no weights");
        assert!(books.scores.len() as u64 >= epochs(), "{name} judged {:?}", books.scores.keys());
        // No gap: from the first epoch with a verdict on, each has one for every miner.
        let epochs: BTreeSet<Epoch> = books.verdicts.iter().map(|v| v.epoch).collect();
        let (low, high) = (epochs.first().unwrap(), epochs.last().unwrap());
        assert_eq!(epochs.len() as u64, high - low + 1, "{name}: {epochs:?}");
    }
    // A miner that one of them could not ask in an epoch (a busy machine) has no score there to compare.
    let passed = |books: &Books, epoch: Epoch, uid: Uid| {
        books.verdicts.iter().any(|v| (v.epoch, v.uid) == (epoch, uid) && matches!(v.verdict, Verdict::Pass { .. }))
    };
    let mut whole = 0;
    for (epoch, scores) in &first.scores {
        let Some(others) = second.scores.get(epoch) else { continue };
        let miners: Vec<Uid> = scores.keys().chain(others.keys()).copied().collect();
        let both = |uid: &&Uid| passed(&first, *epoch, **uid) && passed(&second, *epoch, **uid);
        for uid in miners.iter().filter(both) {
            assert_eq!(scores.get(uid), others.get(uid), "epoch {epoch}, uid {uid}");
        }
        whole += u64::from(scores == others && scores.len() == 4);
    }
    assert!(whole * 2 >= epochs(), "{whole} epochs with all four scored: {:?} {:?}", first.scores, second.scores);
}

#[test]
fn a_round_that_was_begun_before_a_restart_is_void_and_nobody_is_asked_again() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("validator");
    let device = DeviceId::cpu(0);
    let mut epoch = 0;
    inside(async |runtime| {
        let options = DevnetOptions { validators: 1, miners: 1, ..options(dir.path()) };
        let settings = Arc::new(settings(dir.path()));
        // What an earlier life left behind: the intent of the first epoch's round, and no verdict.
        epoch = epoch_of(0, settings.netuid, settings.devnet.tempo);
        let miner = DevnetKeys::load(dir.path()).unwrap().miner(0).hotkey();
        let planned = PlannedVerdict {
            uid: Uid(1),
            hotkey: miner,
            coldkey: Coldkey([1; 32]),
            device: Some(device),
            model: "cpu-1".into(),
        };
        let round = RoundRecord { epoch, block: 0, planned: vec![planned], at_ms: 1 };
        let opened = store::open(&home, Role::Validator, 1).unwrap();
        let writer = Writer::spawn(opened.db, WriterConfig::default()).unwrap();
        writer.write(Record::MemoryRound(round.clone())).await.unwrap();
        writer.write(Record::Round(round)).await.unwrap();
        writer.shutdown(LONG).await.unwrap();

        let devnet = Devnet::start(&options, settings, "127.0.0.1:0".parse().unwrap(), runtime).await.unwrap();
        let mut view = devnet.validator.as_ref().unwrap().node.chain.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::task::spawn_local(devnet.run(0, async move {
            let _ = stopped.await;
        }));
        pass(&mut view, 4, LONG).await;
        stop.send(()).unwrap();
        assert_eq!(tokio::time::timeout(LONG, task).await.expect("a devnet ends").unwrap(), Exit::Ok);
    });
    let db = open_read_only(&home).unwrap();
    assert_eq!(queries::round_outcome(&db, epoch).unwrap(), Some(RoundOutcome::Void));
    let books = books(&home);
    let of: Vec<_> = books.verdicts.iter().filter(|v| v.epoch == epoch).collect();
    let why = Verdict::unknown(UnknownCause::OwnFault, "the validator was restarted during its window");
    assert_eq!(of.iter().map(|v| (v.device, &v.verdict)).collect::<Vec<_>>(), [(Some(device), &why)]);
    assert_eq!(queries::scores(&db, epoch).unwrap(), [], "a void epoch has no scores");
    // So is the round of memory proofs.
    let memory = queries::memory_history(&db, 1_000).unwrap();
    let of: Vec<_> = memory.iter().filter(|row| row.record.epoch == epoch).map(|row| &row.record).collect();
    let why = Verdict::unknown(UnknownCause::OwnFault, "the validator was restarted during its round");
    assert_eq!(of.iter().map(|v| (v.device, &v.verdict)).collect::<Vec<_>>(), [(device, &why)]);
    assert!(queries::open_memory_rounds(&db).unwrap().len() <= 1, "only the one that the end cut short may be open");
    let later = books.verdicts.iter().filter(|v| v.epoch > epoch && matches!(v.verdict, Verdict::Pass { .. }));
    assert!(later.count() > 0, "it goes on with the next epoch");
    assert!(queries::open_rounds(&db).unwrap().len() <= 1, "only the round that the end cut short may be open");
}
