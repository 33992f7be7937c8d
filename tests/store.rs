//! The node's database as an operator meets it: a process killed in the middle of its work, a tool that reads beside it, and
//! files that must not be touched.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use compute_subnet::ids::{DeviceId, Hash32, Hotkey, LeaseId, Uid};
use compute_subnet::store::explain::explain_from_db;
use compute_subnet::store::read_only::{ReadError, open_read_only};
use compute_subnet::store::records::{LeaseEventRecord, LeaseRecord, VerdictRecord};
use compute_subnet::store::{OpenError, Record, Role, Writer, WriterConfig, open, queries};
use compute_subnet::verdict::{FailReason, Verdict};

const NOW: u64 = 1_790_000_000_000;
const LIMIT: Duration = Duration::from_secs(60);
/// Names the data directory to the child that is to be killed.
const CHILD_DIR: &str = "COMPUTE_TEST_STORE_DIR";

fn lease(n: u8) -> LeaseRecord {
    LeaseRecord {
        id: LeaseId([n; 16]),
        fencing_epoch: 1,
        role: Role::Miner,
        miner: Hotkey([1; 32]),
        renter: Hotkey([2; 32]),
        devices: vec![DeviceId::cpu(n)],
        state: "running".to_owned(),
        live: true,
        expires_at_ms: NOW,
        owner_token_digest: Hash32([3; 32]),
        container: None,
        json: serde_json::Value::Null,
        updated_ms: NOW,
    }
}

fn step(lease: &LeaseRecord, seq: u64) -> LeaseEventRecord {
    LeaseEventRecord { lease: lease.id, seq, event: serde_json::json!({ "seq": seq }), at_ms: NOW + seq }
}

fn forged() -> VerdictRecord {
    VerdictRecord {
        epoch: 7,
        uid: Uid(4),
        hotkey: Hotkey([1; 32]),
        device: Some(DeviceId::cpu(0)),
        model: "cpu-1".to_owned(),
        verdict: Verdict::fail(FailReason::PathMismatch, "CPU-0, round 0, tile 3"),
        block: 42,
        at_ms: NOW,
    }
}

fn start(dir: &Path) -> Writer {
    let opened = open(dir, Role::Miner, NOW).expect("the directory opens");
    Writer::spawn(opened.db, WriterConfig::default()).expect("the threads start")
}

/// Not a test by itself: the process that the next test kills. Without its variable it does nothing.
#[tokio::test]
async fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let writer = start(Path::new(&dir));
    let mut out = std::io::stdout();
    for seq in 0..1_000_000u64 {
        let lease = lease((seq % 7) as u8);
        let ack = writer.submit(Record::lease_step(lease.clone(), step(&lease, seq))).unwrap();
        ack.await.unwrap();
        writeln!(out, "acknowledged {seq}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_node_killed_in_the_middle_has_every_record_it_was_told_is_written() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("node"); // made by the node, private
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture", "--test-threads=1"])
        .env(CHILD_DIR, &dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let acknowledged = |line: &str| line.split("acknowledged ").nth(1).and_then(|n| n.trim().parse::<u64>().ok());
    let seen = lines.by_ref().map_while(Result::ok).find_map(|l| acknowledged(&l).filter(|n| *n >= 300));
    assert!(seen.is_some(), "the child writes");
    child.kill().unwrap();
    child.wait().unwrap();
    let last = lines.map_while(Result::ok).filter_map(|l| acknowledged(&l)).last().or(seen).unwrap();

    let opened = open(&dir, Role::Miner, NOW).unwrap();
    assert_eq!(opened.notes, [], "a kill leaves nothing to repair and no stale lock");
    let leases = queries::live_leases(&opened.db.conn, Role::Miner).unwrap();
    assert_eq!(leases, (0..7).map(lease).collect::<Vec<_>>());
    let mut events = BTreeMap::new();
    for lease in &leases {
        for event in queries::lease_events(&opened.db.conn, &lease.id).unwrap() {
            events.insert(event.seq, event);
        }
    }
    for seq in 0..=last {
        assert_eq!(events.get(&seq), Some(&step(&lease((seq % 7) as u8), seq)), "of {last} acknowledged");
    }
    assert_eq!(events.keys().copied().collect::<Vec<_>>(), (0..events.len() as u64).collect::<Vec<_>>(), "no gaps");
}

#[tokio::test]
async fn a_tool_explains_beside_a_running_node_and_after_its_end_without_changing_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path());
    writer.write(Record::Verdict(forged())).await.unwrap();
    let running = explain_from_db(dir.path(), &forged().hotkey, NOW).unwrap().to_text();
    assert!(running.contains("fail path_mismatch: a tile's path does not lead to the committed root"), "{running}");
    assert!(running.contains("seen: CPU-0, round 0, tile 3"), "{running}");

    writer.shutdown(LIMIT).await.unwrap();
    let path = dir.path().join("node.db");
    let before = fs::read(&path).unwrap();
    assert_eq!(explain_from_db(dir.path(), &forged().hotkey, NOW).unwrap().to_text(), running);
    let conn = open_read_only(dir.path()).unwrap();
    conn.execute("DELETE FROM verdict", []).unwrap_err();
    drop(conn);
    assert_eq!(fs::read(&path).unwrap(), before);
    open(dir.path(), Role::Miner, NOW).unwrap();
}

#[test]
fn a_tool_says_what_is_wrong_with_a_database_it_cannot_read() {
    let dir = tempfile::tempdir().unwrap();
    let err = open_read_only(dir.path()).unwrap_err();
    assert!(matches!(err, ReadError::Missing { .. }), "{err}");
    let path = dir.path().join("node.db");
    fs::write(&path, b"not a database at all ".repeat(100)).unwrap();
    let err = open_read_only(dir.path()).unwrap_err();
    assert!(matches!(err, ReadError::Foreign { .. }), "{err}");

    let other = tempfile::tempdir().unwrap();
    drop(open(other.path(), Role::Miner, NOW).unwrap());
    let path = other.path().join("node.db");
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 1).unwrap();
    assert!(matches!(open_read_only(other.path()).unwrap_err(), ReadError::Older { found: 1, .. }));
    conn.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(open_read_only(other.path()).unwrap_err(), ReadError::Newer { found: 99, .. }));
}

#[test]
fn two_nodes_never_share_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path(), Role::Validator, NOW).unwrap();
    assert!(matches!(open(dir.path(), Role::Validator, NOW).unwrap_err(), OpenError::InUse { .. }));
}
