//! What settings of a validator do, seen on a running devnet with tiny work.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::exit::Exit;
use compute_subnet::launch;
use compute_subnet::messages::validator::challenge_runner::{EpochJudged, LastJudged};
use compute_subnet::messages::validator::weight_setter::GetScoreboard;
use compute_subnet::settings::{Cli, Role, Settings, load};
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use compute_subnet::verdict::{UnknownCause, Verdict};
use futures_util::FutureExt as _;

/// No wait of a test reaches this unless something is wrong.
const LONG: Duration = Duration::from_secs(60);

/// A subnet with blocks every 100 ms and proofs that cost nothing, and these keys.
fn settings(dir: &Path, keys: &[(&str, &str)]) -> Arc<Settings> {
    let quick = [
        ("devnet.block_time", "100ms"),
        ("subtensor.poll_interval", "25ms"),
        ("weights.interval_blocks", "1"),
        ("weights.retry_first", "100ms"),
        ("budget.challenges_per_hotkey", "10000"),
        ("budget.time", "10m"),
    ];
    let cli = Cli::default().with_key("node.data_dir", &dir.display().to_string());
    let cli = quick.iter().chain(keys).fold(cli, |cli, (key, value)| cli.with_key(key, value));
    let env = [("HOME".to_owned(), dir.display().to_string())];
    let mut settings = load(Role::Devnet, &cli, env).unwrap_or_else(|problems| panic!("{problems}")).settings;
    for class in settings.devnet.gpu_scores.values_mut() {
        (class.n, class.k, class.rounds) = (64, 64, 1);
    }
    Arc::new(settings)
}

/// Runs `look` on a devnet of three miners with these keys, then ends it.
fn on_devnet<F: Future<Output = Devnet>>(keys: &[(&str, &str)], web: &str, look: impl FnOnce(Devnet) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let options = DevnetOptions {
        miners: 3,
        cheaters: 0,
        memory_cheaters: 0,
        duplicates: 0,
        rentals: 0,
        speed: 1.0,
        dir: dir.path().to_owned(),
        ledger: "127.0.0.1:0".parse().unwrap(),
        validators: 1,
        without_validator: false,
        remote: Default::default(),
        prover: (PathBuf::from(env!("CARGO_BIN_EXE_compute-prover")), Vec::new()),
    };
    let settings = settings(dir.path(), keys);
    let web: SocketAddr = web.parse().unwrap();
    let mut failed = None;
    let exit = launch::run(|runtime| {
        let test = async {
            let devnet = look(Devnet::start(&options, settings, web, runtime).await.unwrap()).await;
            assert_eq!(devnet.run(0, async {}).await, Exit::Ok);
        };
        let failed = &mut failed;
        async move {
            *failed = AssertUnwindSafe(test).catch_unwind().await.err();
            Exit::Ok
        }
    });
    if let Some(panic) = failed {
        std::panic::resume_unwind(panic);
    }
    assert_eq!(exit, Exit::Ok);
}

/// Looks again and again until there is something to see, at most [`LONG`].
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let all = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, all).await.unwrap_or_else(|_| panic!("waited too long: {what}"))
}

/// The first judged epoch in which all three miners announced themselves in time.
async fn judged(devnet: &Devnet) -> EpochJudged {
    let challenges = devnet.validator.as_ref().unwrap().challenges.clone();
    until("an epoch with all miners", async || {
        challenges
            .ask(LastJudged, LONG)
            .await
            .unwrap()
            .filter(|judged| judged.miners.len() == 3 && judged.miners.iter().all(|m| m.refused.is_none()))
    })
    .await
}

#[test]
fn a_batch_of_one_still_judges_every_miner_in_the_order_of_uids() {
    on_devnet(&[("validator.challenge_batch_size", "1")], "127.0.0.1:0", async |devnet| {
        let judged = judged(&devnet).await;
        let uids: Vec<u16> = judged.miners.iter().map(|m| m.uid.0).collect();
        assert!(uids.is_sorted(), "{uids:?}");
        for miner in judged.miners.iter() {
            let verdicts: Vec<&Verdict> = miner.devices.iter().map(|d| &d.verdict).collect();
            assert!(matches!(verdicts[..], [Verdict::Pass { .. }]), "{verdicts:?}");
        }
        devnet
    });
}

#[test]
fn without_hardware_queries_nobody_is_known_and_nobody_scored() {
    on_devnet(&[("validator.perform_hardware_query", "false")], "127.0.0.1:0", async |devnet| {
        let judged = judged(&devnet).await;
        for miner in judged.miners.iter() {
            assert!(miner.devices.is_empty());
            let whole = miner.whole.as_ref();
            assert!(matches!(whole, Some(Verdict::Unknown { cause: UnknownCause::NoSpecs, .. })), "{whole:?}");
        }
        let weights = devnet.validator.as_ref().unwrap().weights.clone();
        let board = until("scores", async || {
            let board = weights.ask(GetScoreboard, LONG).await.unwrap();
            (board.epoch >= Some(judged.epoch)).then_some(board)
        })
        .await;
        assert!(board.rows.iter().all(|row| row.score.total.0 == 0) && board.weights.is_empty(), "{board:?}");
        devnet
    });
}

#[test]
fn a_validator_announces_metrics_that_are_not_on_loopback() {
    on_devnet(&[("axon.external_ip", "127.0.9.9")], "0.0.0.0:0", async |devnet| {
        let port = devnet.validator.as_ref().unwrap().node.web.port();
        let ledger = devnet.ledger.clone();
        let shown = until("the announcement", async || {
            ledger.state().metagraph().neurons.iter().find(|n| n.uid.0 == 0).and_then(|n| n.prometheus)
        })
        .await;
        assert_eq!((shown.ip, shown.port), ("127.0.9.9".parse().unwrap(), port));
        // Miners keep theirs to themselves.
        assert!(ledger.state().metagraph().neurons.iter().skip(1).all(|n| n.prometheus.is_none()));
        devnet
    });
}
