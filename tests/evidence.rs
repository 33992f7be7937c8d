//! The evidence log of a devnet in one process: what is on the ledger follows from the log alone, bit for bit.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[expect(dead_code, unused_imports, reason = "shared with other tests")]
mod common;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use common::{LONG, PROVER, inside, settings, until};
use compute_subnet::evidence::read::{LogReader, verify};
use compute_subnet::evidence::record::{MemoryBody, MinerBody, WeightsStatusBody};
use compute_subnet::evidence::replay::replay;
use compute_subnet::evidence::sample::{self, Checked};
use compute_subnet::exit::Exit;
use compute_subnet::ids::{BlockNumber, Uid};
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use compute_subnet::store::queries;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::store::records::WeightsStatus;
use serde::Deserialize as _;
use tokio::sync::oneshot;

/// Epochs whose weights must be on the ledger before the devnet is stopped.
const EPOCHS: usize = 20;

fn options(dir: &Path) -> DevnetOptions {
    DevnetOptions { miners: 3, cheaters: 1, ..DevnetOptions::new(dir, PROVER) }
}

/// The validator's weights as the ledger had them, by the block they were set in.
type Seen = BTreeMap<BlockNumber, Vec<(Uid, u16)>>;

/// Runs a devnet until the ledger has taken so many weight vectors, and gives those.
async fn run(dir: &Path, runtime: Arc<tokio::runtime::Runtime>) -> Seen {
    let options = options(dir);
    let settings = Arc::new(settings(dir));
    let devnet = Devnet::start(&options, settings, "127.0.0.1:0".parse().unwrap(), runtime).await.unwrap();
    let ledger = devnet.ledger.clone();
    let seen = Rc::new(RefCell::new(Seen::new()));
    let (into, from) = (seen.clone(), ledger.clone());
    let watch = tokio::task::spawn_local(async move {
        let mut heads = from.subscribe();
        while heads.changed().await.is_ok() {
            let state = from.state();
            let own = state.metagraph().by_uid(Uid(0)).unwrap().clone();
            if !own.weights.is_empty() {
                into.borrow_mut().insert(own.last_update, own.weights);
            }
        }
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::task::spawn_local(devnet.run(options.rentals, async move {
        let _ = stopped.await;
    }));
    until("enough weights are on the ledger", async || (seen.borrow().len() >= EPOCHS).then_some(())).await;
    stop.send(()).unwrap();
    assert_eq!(tokio::time::timeout(LONG, task).await.expect("a devnet ends in time").unwrap(), Exit::Ok);
    watch.abort();
    seen.take()
}

#[test]
fn the_weights_on_the_ledger_follow_from_the_log_alone_and_its_samples_hold() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let on_ledger = run(dir.path(), runtime).await;
        let data = dir.path().join("validator");
        let log = data.join("evidence");

        // Whole, as far as hashes, seals and the database know.
        let head = queries::evidence_head(&open_read_only(&data).unwrap()).unwrap();
        assert!(head.is_some());
        let (report, problems) = verify(&log, head, None).unwrap();
        assert_eq!(problems, [], "{}", report.to_text());
        assert!(report.seals as usize >= EPOCHS, "{}", report.to_text());

        // Derived again: every epoch, every score, every vector.
        let replay = replay(&log, None).unwrap();
        assert!(replay.holds(), "{}", replay.to_text(100));
        assert!(replay.epochs.len() >= EPOCHS, "{}", replay.to_text(100));
        assert!(replay.vectors.iter().all(|v| v.follows == Some(true)), "{}", replay.to_text(100));
        assert!(replay.verdict().ends_with("follows from the log, bit for bit"), "{}", replay.verdict());

        // The same vectors are the ledger's, block for block.
        let mut included = BTreeMap::new();
        let mut cheats = 0;
        for record in LogReader::new(&log).unwrap() {
            let record = record.unwrap();
            if record.kind == "weights_status" {
                let status = WeightsStatusBody::deserialize(&record.body).unwrap();
                if let (WeightsStatus::Included, Some(block)) = (status.status, status.block) {
                    included.insert(block, status.id);
                }
            }
            if record.kind == "miner" {
                let miner = MinerBody::deserialize(&record.body).unwrap();
                cheats += miner
                    .finding
                    .devices
                    .iter()
                    .filter(|d| d.verdict.as_ref().is_some_and(|v| v.reason() == "entry_mismatch"))
                    .count();
            }
        }
        let derived: BTreeMap<u64, Vec<(Uid, u16)>> =
            replay.vectors.iter().map(|v| (v.id, v.entries.clone())).collect();
        let mut compared = 0;
        for (block, mut weights) in on_ledger {
            // The very last may have been taken when the validator was on its way out already.
            let Some(id) = included.get(&block) else { continue };
            let mut expected = derived[id].clone();
            weights.retain(|(_, w)| *w > 0);
            weights.sort_unstable();
            expected.sort_unstable();
            assert_eq!(weights, expected, "block {block}, weights {id}");
            compared += 1;
        }
        assert!(compared + 1 >= EPOCHS, "{compared} of {EPOCHS}");

        // Memory is logged with what was exchanged, and its samples are among those that are checked.
        let mut of_memory = 0;
        for record in LogReader::new(&log).unwrap().map(Result::unwrap).filter(|r| r.kind == "memory") {
            let body = MemoryBody::deserialize(&record.body).unwrap();
            let sampled = body.challenge.iter().flat_map(|c| &c.devices).filter(|d| d.sample.is_some()).count();
            let passed = body.devices.iter().filter(|d| d.verdict.kind() == "pass").count();
            assert_eq!(sampled, passed, "{body:?}");
            of_memory += passed;
        }
        assert!(of_memory > 0, "no memory was proved");

        // The proofs: every pass has a sample that holds, and the cheater's fails are fails to anybody.
        let samples = sample::check(&log, None, None).unwrap();
        assert!(samples.holds(), "{}", samples.to_text());
        let count = |checked| samples.lines.iter().filter(|l| l.result == Ok(checked)).count();
        assert!(count(Checked::Pass) >= 3 * (EPOCHS - 5), "{}", samples.to_text());
        assert_eq!(count(Checked::Fail), cheats, "{}", samples.to_text());
        assert!(cheats > 0);
        assert!(samples.lines.iter().all(|l| l.signed), "{}", samples.to_text());

        the_tool_says_so(&data);
        a_changed_log_says_where(&data, &log);
    });
}

fn register(data: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compute-register"));
    let output = command.arg("--data-dir").arg(data).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

fn the_tool_says_so(data: &Path) {
    let (code, text) = register(data, &["replay"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.trim_end().ends_with("follows from the log, bit for bit"), "{text}");
    let (code, text) = register(data, &["evidence", "verify"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("every seal is the validator's"), "{text}");
    let hotkey = text.lines().find_map(|l| l.strip_prefix("validator ")).unwrap().to_owned();
    for command in [&["evidence", "verify"][..], &["replay"]] {
        let (code, text) = register(data, &[command, &["--hotkey", &hotkey]].concat());
        assert_eq!(code, Some(0), "{text}");
        let stranger = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
        assert_ne!(hotkey, stranger);
        let (code, text) = register(data, &[command, &["--hotkey", stranger, "--json"]].concat());
        assert_eq!(code, Some(65), "{text}");
        assert!(text.contains(&hotkey), "{text}");
    }
    let (code, text) = register(data, &["evidence", "sample", "--json"]);
    assert_eq!(code, Some(0), "{text}");
}

fn a_changed_log_says_where(data: &Path, log: &Path) {
    let path = log.join("0000000001.log");
    let sound = std::fs::read(&path).unwrap();
    let at = sound.len() / 2;
    let mut changed = sound.clone();
    changed[at] ^= 1;
    std::fs::write(&path, &changed).unwrap();
    let (_, problems) = verify(log, None, None).unwrap();
    assert!(problems.iter().any(|p| p.bytes.contains(&(at as u64))), "byte {at}: {problems:?}");
    let (code, text) = register(data, &["evidence", "verify"]);
    assert_eq!(code, Some(65), "{text}");
    let (code, text) = register(data, &["replay"]);
    assert_eq!(code, Some(65), "{text}");
    assert!(text.contains("the log is damaged"), "{text}");
    std::fs::write(&path, &sound).unwrap();
}
