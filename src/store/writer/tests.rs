//! What the writer promises: order, groups, refusals, health, and an end that loses nothing.

use std::path::Path;
use std::sync::mpsc;

use super::super::fixtures::{self as fx, NOW};
use super::super::records::*;
use super::super::{Role, open, queries};
use super::*;

const LIMIT: Duration = Duration::from_secs(20);

/// Lets a test make a job panic inside the writer.
pub(super) fn panic_if_asked(record: &Record) {
    if matches!(record, Record::Meta { key, .. } if key == "panic") {
        panic!("asked to");
    }
}

fn start(dir: &Path, cfg: WriterConfig) -> Writer {
    Writer::spawn(open(dir, Role::Miner, NOW).unwrap().db, cfg).unwrap()
}

fn meta(key: &str, value: &str) -> Record {
    Record::Meta { key: key.to_owned(), value: value.to_owned() }
}

/// A writer that waits after each group until it is told to go on.
struct Gated {
    writer: Writer,
    groups: mpsc::Receiver<Commit>,
    go: mpsc::Sender<()>,
}

fn gated(dir: &Path, cfg: WriterConfig) -> Gated {
    let (report, groups) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let observer: CommitObserver = Arc::new(move |commit| {
        let _ = report.send(*commit);
        let _ = gate.lock().unwrap().recv_timeout(LIMIT);
    });
    Gated { writer: start(dir, WriterConfig { observer: Some(observer), ..cfg }), groups, go }
}

impl Gated {
    /// The next group is committed, and the writer stands still behind it.
    fn next_group(&self) -> Commit {
        self.groups.recv_timeout(LIMIT).expect("a group is committed")
    }
}

#[tokio::test]
async fn what_waits_is_committed_as_one_group_in_the_order_it_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let gated = gated(dir.path(), WriterConfig { group: 8, ..WriterConfig::default() });
    let mut acks = vec![gated.writer.submit(fx::telemetry(0, 1)).unwrap()];
    let first = gated.next_group();
    assert_eq!((first.jobs, first.durable), (1, false), "telemetry is not synced by itself");
    for n in 1..=9 {
        acks.push(gated.writer.submit(fx::telemetry(n, 1)).unwrap());
    }
    acks.push(gated.writer.submit(meta("k", "v")).unwrap());
    assert_eq!(gated.writer.stats().depth, 11);
    gated.go.send(()).unwrap();
    let second = gated.next_group();
    assert_eq!((second.jobs, second.durable), (8, false));
    gated.go.send(()).unwrap();
    let third = gated.next_group();
    assert_eq!((third.jobs, third.durable), (2, true), "a durable record syncs its group");
    gated.go.send(()).unwrap();
    for ack in acks {
        ack.await.unwrap();
    }
    let stored = gated.writer.query(LIMIT, |c| queries::verdicts_since(c, 0)).await.unwrap();
    let order: Vec<u64> = stored.iter().map(|v| v.epoch).collect();
    assert_eq!(order, (0..=9).collect::<Vec<_>>());
    let stats = gated.writer.stats();
    assert_eq!((stats.depth, stats.commits, stats.written, stats.failed), (0, 3, 11, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_takes_again_when_it_has_room() {
    let dir = tempfile::tempdir().unwrap();
    let gated = gated(dir.path(), WriterConfig { capacity: 3, ..WriterConfig::default() });
    let held = gated.writer.submit(meta("k", "0")).unwrap();
    gated.next_group();
    let waiting: Vec<_> = (1..=3).map(|n| gated.writer.submit(meta("k", &n.to_string())).unwrap()).collect();
    let refused = gated.writer.submit(meta("k", "4")).unwrap_err();
    assert!(matches!(refused, StoreError::Full { capacity: 3 }), "{refused}");
    assert_eq!((gated.writer.stats().refused, gated.writer.stats().depth), (1, 4));
    drop(gated.go); // from now on the writer does not wait
    held.await.unwrap();
    for ack in waiting {
        ack.await.unwrap();
    }
    gated.writer.write(meta("k", "5")).await.unwrap();
    let value = gated.writer.query(LIMIT, |c| queries::meta(c, "k")).await.unwrap();
    assert_eq!(value.as_deref(), Some("5"));
}

#[tokio::test]
async fn a_bad_record_fails_alone_and_its_neighbours_in_the_group_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let gated = gated(dir.path(), WriterConfig::default());
    let hold = gated.writer.submit(Record::Lease(fx::lease(1, 0))).unwrap();
    gated.next_group();
    let before = gated.writer.submit(meta("before", "1")).unwrap();
    let conflict = gated.writer.submit(Record::Lease(fx::lease(2, 0))).unwrap();
    let panics = gated.writer.submit(meta("panic", "1")).unwrap();
    let after = gated.writer.submit(meta("after", "1")).unwrap();
    gated.go.send(()).unwrap();
    assert_eq!((gated.next_group().jobs, gated.writer.stats().failed), (4, 2));
    drop(gated.go);
    hold.await.unwrap();
    before.await.unwrap();
    after.await.unwrap();
    assert!(matches!(conflict.await, Err(StoreError::Conflict(_))));
    assert!(matches!(panics.await, Err(StoreError::Panicked(text)) if text == "asked to"));
    assert_eq!(*gated.writer.health().borrow(), Health::Healthy, "neither concerns the whole database");
    let found = gated
        .writer
        .query(LIMIT, |c| Ok((queries::meta(c, "before")?, queries::meta(c, "after")?, queries::meta(c, "panic")?)));
    assert_eq!(found.await.unwrap(), (Some("1".to_owned()), Some("1".to_owned()), None));
}

#[tokio::test]
async fn a_batch_is_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path(), WriterConfig::default());
    writer.write(Record::lease_step(fx::lease(1, 0), fx::lease_event(1, 1, "reserve"))).await.unwrap();
    let stale = LeaseRecord { fencing_epoch: 0, ..fx::lease(1, 0) };
    let batch = vec![meta("with", "it"), Record::LeaseEvent(fx::lease_event(1, 2, "x")), Record::Lease(stale)];
    let err = writer.write(Record::Batch(batch)).await.unwrap_err();
    assert!(matches!(err, StoreError::Conflict(_)), "{err}");
    let found =
        writer.query(LIMIT, |c| Ok((queries::meta(c, "with")?, queries::lease_events(c, &fx::lease(1, 0).id)?)));
    assert_eq!(found.await.unwrap(), (None, vec![fx::lease_event(1, 1, "reserve")]));
}

/// Writes until the database is full, and gives the number of records that fitted.
async fn fill(writer: &Writer) -> u64 {
    for n in 0..1_000 {
        match writer.write(fx::telemetry(n, 16_000)).await {
            Ok(()) => {}
            Err(e) => {
                assert_eq!(e.degradation(), Some(Degradation::DiskFull), "{e}");
                return n;
            }
        }
    }
    panic!("the size limit does not hold");
}

fn small() -> WriterConfig {
    let probe = Duration::from_millis(20);
    WriterConfig { max_bytes: Some(1 << 20), probe_first: probe, probe_cap: probe, ..WriterConfig::default() }
}

#[tokio::test]
async fn a_full_disk_degrades_the_store_and_the_next_write_that_works_heals_it() {
    let dir = tempfile::tempdir().unwrap();
    // No probe in this test: only the write itself can heal.
    let writer = start(dir.path(), WriterConfig { probe_first: LIMIT * 100, probe_cap: LIMIT * 100, ..small() });
    let health = writer.health();
    let fitted = fill(&writer).await;
    assert!(fitted > 2, "{fitted}");
    assert_eq!(health.borrow().degradation(), Some(Degradation::DiskFull));
    let stored = writer.query(LIMIT, |c| queries::verdicts_since(c, 0)).await.unwrap();
    assert_eq!(stored.len() as u64, fitted, "reads go on, and every acknowledged record is there");

    writer.write(Record::Prune(Retention { before_epoch: 2, before_ms: 0 })).await.unwrap();
    assert_eq!(*health.borrow(), Health::Healthy);
    writer.write(fx::telemetry(7, 16_000)).await.unwrap();
}

#[tokio::test]
async fn a_degraded_store_finds_by_itself_that_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path(), small());
    let mut health = writer.health();
    fill(&writer).await;
    assert_eq!(health.borrow_and_update().degradation(), Some(Degradation::DiskFull));
    let other = Connection::open(dir.path().join("node.db")).unwrap();
    other.busy_timeout(LIMIT).unwrap();
    other.execute("DELETE FROM verdict", []).unwrap();
    let healed = tokio::time::timeout(LIMIT, health.wait_for(|h| *h == Health::Healthy)).await;
    healed.expect("the probe finds it in time").expect("the writer lives");
    writer.write(fx::telemetry(1, 16_000)).await.unwrap();
}

#[tokio::test]
async fn a_read_past_its_deadline_is_interrupted_and_the_next_one_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path(), WriterConfig::default());
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let deadline = Duration::from_millis(50);
    let err = writer.query(deadline, move |c| c.query_row(endless, [], |r| r.get::<_, i64>(0))).await.unwrap_err();
    assert!(matches!(err, StoreError::Deadline(d) if d == deadline), "{err}");
    let dropped = writer.query(LIMIT, move |c| c.query_row(endless, [], |r| r.get::<_, i64>(0)));
    assert!(tokio::time::timeout(deadline, dropped).await.is_err(), "the caller goes away");
    assert_eq!(writer.query(LIMIT, |c| queries::meta(c, "role")).await.unwrap().as_deref(), Some("miner"));
}

#[tokio::test]
async fn a_read_that_panics_or_writes_gets_an_error_and_nothing_else_happens() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path(), WriterConfig::default());
    let err = writer.query(LIMIT, |_| -> rusqlite::Result<()> { panic!("in a read") }).await.unwrap_err();
    assert!(matches!(&err, StoreError::Panicked(text) if text == "in a read"), "{err}");
    let err = writer.query(LIMIT, |c| c.execute("DELETE FROM meta", [])).await.unwrap_err();
    assert!(matches!(err, StoreError::Sql(_)), "{err}");
    assert_eq!(*writer.health().borrow(), Health::Healthy, "a refused read says nothing about the disk");
    assert_eq!(writer.query(LIMIT, |c| queries::meta(c, "role")).await.unwrap().as_deref(), Some("miner"));
}

#[tokio::test]
async fn shutdown_writes_what_was_accepted_refuses_the_rest_and_frees_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path(), WriterConfig::default());
    let acks: Vec<_> = (0..200).map(|n| writer.submit(fx::telemetry(n, 10)).unwrap()).collect();
    writer.shutdown(LIMIT).await.unwrap();
    for ack in acks {
        ack.await.unwrap();
    }
    assert!(matches!(writer.submit(meta("k", "v")), Err(StoreError::Stopped)));
    assert!(matches!(writer.query(LIMIT, |c| queries::meta(c, "k")).await, Err(StoreError::Stopped)));
    writer.shutdown(LIMIT).await.unwrap();
    assert!(!dir.path().join("node.db-wal").exists(), "the log is merged into the database");
    let again = start(dir.path(), WriterConfig::default());
    assert_eq!(again.query(LIMIT, |c| queries::verdicts_since(c, 0)).await.unwrap().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_stands_still_while_the_store_works() {
    let dir = tempfile::tempdir().unwrap();
    let cfg = WriterConfig { hold_clock: true, write_deadline: Duration::from_millis(1), ..WriterConfig::default() };
    let writer = start(dir.path(), cfg);
    let begun = Instant::now();
    // A timer that a clock running ahead would fire.
    let timer = tokio::spawn(tokio::time::sleep(Duration::from_secs(1)));
    for n in 0..20 {
        writer.write(fx::telemetry(n, 10)).await.unwrap();
    }
    let stored = writer.query(Duration::from_millis(1), |c| queries::verdicts_since(c, 0)).await.unwrap();
    assert_eq!((stored.len(), begun.elapsed()), (20, Duration::ZERO));
    assert!(!timer.is_finished());
}

/// The writer's thread without its thread.
fn thread(cfg: WriterConfig) -> WriterThread {
    WriterThread {
        queue: sync_channel(1).1,
        counters: Arc::default(),
        health: Arc::new(watch::Sender::new(Health::Healthy)),
        probe_pause: cfg.probe_first,
        probed: Instant::now(),
        cfg,
        synced: true,
        log: None,
        log_failed: false,
    }
}

#[test]
fn groups_with_a_durable_record_are_synced_at_their_commit_and_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut conn = open(dir.path(), Role::Miner, NOW).unwrap().db.conn;
    let mut thread = thread(WriterConfig::default());
    let telemetry = || fx::telemetry(0, 1);
    let (normal, full) = (1, 2); // SQLite's numbers for `synchronous`
    for (records, expected) in [
        (vec![telemetry()], normal),
        (vec![telemetry(), Record::Lease(fx::lease(1, 0)), telemetry()], full),
        (vec![Record::Verdict(fx::verdict(1, 1, 0, fx::forged()))], normal),
        (vec![Record::Batch(vec![telemetry(), Record::Weights(fx::weights(1, &[]))])], full),
        (vec![telemetry()], normal),
        (vec![evidence(1)], full), // refused: this node keeps no log
    ] {
        let jobs = records.into_iter().map(|r| Job { record: Box::new(r), ack: oneshot::channel().0 }).collect();
        thread.counters.depth.store(9, Ordering::Relaxed);
        thread.commit(&mut conn, jobs);
        let level: i64 = conn.query_row("PRAGMA synchronous", [], |r| r.get(0)).unwrap();
        assert_eq!(level, expected);
    }
    assert_eq!(
        (thread.counters.written.load(Ordering::Relaxed), thread.counters.failed.load(Ordering::Relaxed)),
        (7, 1)
    );
}

#[test]
fn damage_is_not_forgotten_before_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut conn = open(dir.path(), Role::Miner, NOW).unwrap().db.conn;
    let mut thread = thread(WriterConfig::default());
    let health = thread.health.clone();
    let failure = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    let seen = |thread: &mut WriterThread, code| thread.judge(&Err(failure(code).into()));
    seen(&mut thread, rusqlite::ffi::SQLITE_IOERR);
    assert_eq!(health.borrow().degradation(), Some(Degradation::Io));
    thread.probe(&mut conn);
    assert_eq!(health.borrow().degradation(), None, "the disk works again");
    seen(&mut thread, rusqlite::ffi::SQLITE_CORRUPT);
    seen(&mut thread, rusqlite::ffi::SQLITE_FULL);
    thread.probe(&mut conn);
    assert_eq!(health.borrow().degradation(), Some(Degradation::Corrupt));
}

#[test]
fn probes_of_a_disk_that_stays_full_come_ever_later_up_to_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let mut conn = open(dir.path(), Role::Miner, NOW).unwrap().db.conn;
    bound_size(&conn, 1).unwrap();
    let mut thread = thread(WriterConfig { probe_cap: Duration::from_secs(5), ..WriterConfig::default() });
    let pauses: Vec<u64> = (0..5)
        .map(|_| {
            thread.probe(&mut conn);
            thread.probe_pause.as_secs()
        })
        .collect();
    assert_eq!(pauses, [2, 4, 5, 5, 5]);
    assert_eq!(thread.health.borrow().degradation(), Some(Degradation::DiskFull));
}

/// A writer that keeps an evidence log.
fn start_with_evidence(dir: &Path, cfg: WriterConfig) -> Writer {
    let mut db = open(dir, Role::Validator, NOW).unwrap().db;
    let keypair = crate::wallet::Keypair::from_uri("//Alice").unwrap();
    let identity = crate::evidence::Identity { keypair, netuid: crate::ids::Netuid(1), program: "t".to_owned() };
    let limits = crate::evidence::Limits { segment_bytes: 1 << 20, keep_bytes: 1 << 30 };
    assert_eq!(db.with_evidence(identity, limits).unwrap(), []);
    Writer::spawn(db, cfg).unwrap()
}

fn evidence(n: u64) -> Record {
    Record::Evidence(EvidenceRecord::one(crate::evidence::Kind::Outage, NOW + n, serde_json::json!({ "n": n })))
}

/// The `n` of what is in the log, which must be whole and end where the database says.
async fn logged(writer: &Writer, dir: &Path) -> Vec<u64> {
    let head = writer.query(LIMIT, queries::evidence_head).await.unwrap();
    let log = dir.join(crate::evidence::DIRECTORY);
    let (report, problems) = crate::evidence::read::verify(&log, head, None).unwrap();
    assert_eq!(problems, []);
    assert_eq!(report.hash, head.map(|h| h.hash));
    let records = crate::evidence::read::LogReader::new(&log).unwrap().map(Result::unwrap);
    records.filter_map(|r| r.body.get("n")?.as_u64()).collect()
}

#[tokio::test]
async fn evidence_is_logged_with_its_batch_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start_with_evidence(dir.path(), WriterConfig::default());
    writer.write(Record::Batch(vec![meta("a", "1"), evidence(1)])).await.unwrap();
    writer.write(Record::Lease(fx::lease(1, 0))).await.unwrap();
    let conflict = Record::Batch(vec![evidence(2), Record::Lease(fx::lease(2, 0)), evidence(3)]);
    assert!(matches!(writer.write(conflict).await, Err(StoreError::Conflict(_))));
    let fraction = EvidenceRecord::one(crate::evidence::Kind::Outage, NOW, serde_json::json!({ "n": 0.5 }));
    assert!(matches!(writer.write(Record::Evidence(fraction)).await, Err(StoreError::Unstorable(_))));
    writer.write(evidence(5)).await.unwrap();
    assert_eq!(logged(&writer, dir.path()).await, [1, 5]);
    assert_eq!(writer.stats().evidence.unwrap().records, 3, "the segment's first record counts");
    writer.shutdown(LIMIT).await.unwrap();
    let writer = start_with_evidence(dir.path(), WriterConfig::default());
    writer.write(evidence(6)).await.unwrap();
    assert_eq!(logged(&writer, dir.path()).await, [1, 5, 6]);
    let miner = tempfile::tempdir().unwrap();
    let refused = start(miner.path(), WriterConfig::default()).write(evidence(1)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unstorable(_)), "{refused}");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_degrades_the_store_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let probe = Duration::from_millis(20);
    let cfg = WriterConfig { probe_first: probe, probe_cap: probe, ..WriterConfig::default() };
    let writer = start_with_evidence(dir.path(), cfg);
    let log = dir.path().join(crate::evidence::DIRECTORY);
    std::fs::rename(&log, dir.path().join("elsewhere")).unwrap();
    let failed = writer.write(Record::Batch(vec![meta("with", "it"), evidence(1)])).await.unwrap_err();
    assert_eq!(failed.degradation(), Some(Degradation::Io), "{failed}");
    assert!(writer.health().borrow().degradation().is_some());
    assert_eq!(
        writer.query(LIMIT, |c| queries::meta(c, "with")).await.unwrap(),
        None,
        "nothing of the batch is stored"
    );
    std::fs::rename(dir.path().join("elsewhere"), &log).unwrap();
    let mut health = writer.health();
    tokio::time::timeout(LIMIT, health.wait_for(|h| *h == Health::Healthy)).await.unwrap().unwrap();
    writer.write(evidence(2)).await.unwrap();
    assert_eq!(logged(&writer, dir.path()).await, [2]);
}

#[tokio::test]
async fn a_log_that_cannot_be_written_is_not_forgotten_over_writes_without_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let hour = Duration::from_secs(3_600);
    let cfg = WriterConfig { probe_first: hour, probe_cap: hour, ..WriterConfig::default() };
    let writer = start_with_evidence(dir.path(), cfg);
    let log = dir.path().join(crate::evidence::DIRECTORY);
    std::fs::rename(&log, dir.path().join("elsewhere")).unwrap();
    writer.write(evidence(1)).await.unwrap_err();
    writer.write(meta("without", "it")).await.unwrap();
    assert_eq!(writer.health().borrow().degradation(), Some(Degradation::Io));
    std::fs::rename(dir.path().join("elsewhere"), &log).unwrap();
    writer.write(meta("still", "without")).await.unwrap();
    assert_eq!(writer.health().borrow().degradation(), Some(Degradation::Io), "nobody has looked");
    writer.write(evidence(2)).await.unwrap();
    assert_eq!(*writer.health().borrow(), Health::Healthy, "evidence was written");
}

#[tokio::test]
async fn a_log_is_probed_however_busy_the_store_is_with_other_records() {
    let dir = tempfile::tempdir().unwrap();
    let probe = Duration::from_millis(20);
    let cfg = WriterConfig { probe_first: probe, probe_cap: probe, ..WriterConfig::default() };
    let writer = start_with_evidence(dir.path(), cfg);
    let log = dir.path().join(crate::evidence::DIRECTORY);
    std::fs::rename(&log, dir.path().join("elsewhere")).unwrap();
    writer.write(evidence(1)).await.unwrap_err();
    std::fs::rename(dir.path().join("elsewhere"), &log).unwrap();
    let mut health = writer.health();
    let busy = async {
        loop {
            writer.write(fx::telemetry(0, 1)).await.unwrap();
        }
    };
    tokio::select! {
        healed = tokio::time::timeout(LIMIT, health.wait_for(|h| *h == Health::Healthy)) => drop(healed.unwrap().unwrap()),
        () = busy => {}
    }
}
