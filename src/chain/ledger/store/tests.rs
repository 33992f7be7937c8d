//! What is on disk survives; what is damaged is refused and left alone.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::chain::ledger::call::{Call, SignedCall};
use crate::ids::{Coldkey, Hotkey, Netuid};
use crate::wallet::Keypair;

/// Set in the process that is to be killed.
const CHILD_DIR: &str = "COMPUTE_TEST_LEDGER_DIR";

fn payer() -> Keypair {
    Keypair::from_seed(&[1; 32])
}

fn config() -> GenesisConfig {
    let mut c = GenesisConfig::new(Netuid(27));
    c.hyperparameters.burn_rao = 10;
    c.endowed = vec![(Coldkey(payer().hotkey().0), 25)];
    c
}

fn open(dir: &Path) -> Result<(Store, State), StoreError> {
    Store::open(dir, &config(), 1_000)
}

fn registration(state: &State, n: u8) -> SignedCall {
    let nonce = state.nonce(&payer().hotkey());
    let call = Call::BurnedRegister { hotkey: Hotkey([n; 32]) };
    SignedCall::sign(call, Netuid(27), nonce, state.genesis_head().hash, &payer())
}

/// Makes and keeps one block.
fn step(store: &mut Store, state: &mut State, calls: Vec<SignedCall>) {
    let block = state.produce_block(0, calls);
    store.append(&block, state).unwrap();
}

/// Three blocks: two registrations, and one that is refused for lack of money.
fn three_blocks(dir: &Path) -> State {
    let (mut store, mut state) = open(dir).unwrap();
    for n in 0..3 {
        let call = registration(&state, n);
        step(&mut store, &mut state, vec![call]);
    }
    state
}

#[test]
fn a_reopened_ledger_has_every_block_and_refusal() {
    let dir = tempfile::tempdir().unwrap();
    let before = three_blocks(dir.path());
    assert_eq!(before.metagraph().neurons.len(), 2);
    let (mut store, mut after) = open(dir.path()).unwrap();
    assert_eq!(after, before);
    step(&mut store, &mut after, vec![]);
    drop(store);
    assert_eq!(open(dir.path()).unwrap().1, after);
}

#[test]
fn a_torn_last_block_is_cut_off_and_its_bytes_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let before = three_blocks(dir.path());
    let journal = dir.path().join("blocks.log");
    let whole = std::fs::read(&journal).unwrap();
    // A kill may leave any beginning of the record behind.
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    let cuts = [(last + 1, "torn-2"), (last + 20, "torn-2.1"), (whole.len() - 1, "torn-2.2")];
    for (cut, name) in cuts {
        std::fs::write(&journal, &whole[..cut]).unwrap();
        let (store, after) = open(dir.path()).unwrap();
        assert_eq!(after.head().number, 2);
        assert_eq!(Some(after.head().hash), before.block_hash(2));
        drop(store);
        assert_eq!(std::fs::read(&journal).unwrap(), &whole[..last]);
        assert_eq!(std::fs::read(dir.path().join(format!("blocks.log.{name}"))).unwrap(), &whole[last..cut]);
    }
}

#[test]
fn garbage_after_the_last_block_is_cut_off_too() {
    let dir = tempfile::tempdir().unwrap();
    let before = three_blocks(dir.path());
    let journal = dir.path().join("blocks.log");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.extend_from_slice(&[0, 255, b'\n', 7, b'\n', 0]);
    std::fs::write(&journal, bytes).unwrap();
    assert_eq!(open(dir.path()).unwrap().1, before);
    assert_eq!(std::fs::read(dir.path().join("blocks.log.torn-3")).unwrap().len(), 6);
}

#[test]
fn damage_before_whole_blocks_is_refused_and_nothing_is_changed() {
    let dir = tempfile::tempdir().unwrap();
    three_blocks(dir.path());
    let journal = dir.path().join("blocks.log");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("damaged at byte 0") && text.contains("checksum"), "{text}");
    assert_eq!(std::fs::read(&journal).unwrap(), bytes);
}

#[test]
fn a_block_that_the_rules_do_not_give_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut state) = open(dir.path()).unwrap();
    let call = registration(&state, 0);
    let mut block = state.produce_block(0, vec![call]);
    block.calls[0].refused = Some(crate::chain::Rejection::NoNeuronIdAvailable);
    store.append(&block, &state).unwrap();
    drop(store);
    let text = open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("replaying block 1 gives another result"), "{text}");
}

#[test]
fn a_damaged_or_missing_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    three_blocks(dir.path());
    let snapshot = dir.path().join("snapshot.json");
    let bytes = std::fs::read(&snapshot).unwrap();
    std::fs::write(&snapshot, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::Damaged { .. })));
    std::fs::remove_file(&snapshot).unwrap();
    assert!(open(dir.path()).unwrap_err().to_string().contains("the snapshot they follow is missing"));
    std::fs::write(&snapshot, &bytes).unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn another_genesis_is_refused_and_another_pace_is_not() {
    let dir = tempfile::tempdir().unwrap();
    three_blocks(dir.path());
    let mut other = config();
    other.hyperparameters.tempo = 7;
    let refused = Store::open(dir.path(), &other, 1_000);
    assert!(matches!(refused, Err(StoreError::OtherGenesis { .. })));
    Store::open(dir.path(), &config().sped_up(100.0), 99_000).unwrap();
}

#[test]
fn a_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(StoreError::InUse { .. })));
    drop(first);
    open(dir.path()).unwrap();
}

#[test]
fn the_journal_becomes_a_snapshot_and_stays_small() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut state) = open(dir.path()).unwrap();
    for _ in 0..COMPACT_BLOCKS - 1 {
        step(&mut store, &mut state, vec![]);
    }
    let journal = dir.path().join("blocks.log");
    let full = std::fs::read(&journal).unwrap();
    step(&mut store, &mut state, vec![]);
    assert_eq!(std::fs::metadata(&journal).unwrap().len(), 0);
    step(&mut store, &mut state, vec![]);
    drop(store);
    assert_eq!(open(dir.path()).unwrap().1, state);

    // A kill between the new snapshot and the emptied journal: the old blocks are skipped.
    let newest = std::fs::read(&journal).unwrap();
    std::fs::write(&journal, [full, newest].concat()).unwrap();
    // The block at which the snapshot was made is in neither part, but is in the snapshot.
    assert_eq!(open(dir.path()).unwrap().1, state);
}

#[test]
fn a_block_that_the_disk_refused_can_be_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, mut state) = open(dir.path()).unwrap();
    step(&mut store, &mut state, vec![]);
    let block = state.produce_block(0, vec![]);
    let sound = store.fill_disk();
    assert!(matches!(store.append(&block, &state), Err(StoreError::Io { action: "append to", .. })));
    store.free_disk(sound);
    // What a half-written record would leave behind.
    OpenOptions::new().append(true).open(dir.path().join("blocks.log")).unwrap().write_all(b"half").unwrap();
    store.append(&block, &state).unwrap();
    drop(store);
    assert_eq!(open(dir.path()).unwrap().1, state);
}

/// Not a test by itself: makes blocks as fast as it can until it is killed, and says each once it is kept.
#[test]
fn child_that_is_killed() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let (mut store, mut state) = open(Path::new(&dir)).unwrap();
    for _ in 0..100_000 {
        step(&mut store, &mut state, vec![]);
        println!("\nkept {} {}", state.head().number, state.head().hash);
    }
}

#[test]
fn every_block_that_was_announced_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "chain::ledger::store::tests::child_that_is_killed", "--nocapture"])
        .env(CHILD_DIR, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut kept = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        if let Some(block) = line.unwrap().strip_prefix("kept ") {
            kept.push(block.to_owned());
            if kept.len() == 300 {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(kept.len() >= 300, "the child ended early after {} blocks", kept.len());
    let (_store, state) = open(dir.path()).unwrap();
    for text in kept {
        let (number, hash) = text.split_once(' ').unwrap();
        assert_eq!(state.block_hash(number.parse().unwrap()), Some(hash.parse().unwrap()));
    }
}
