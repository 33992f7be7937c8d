//! What the writing side promises: nothing half written, nothing lost unseen, bounds kept.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::evidence::Entry;
use crate::evidence::read::verify;

fn identity() -> Identity {
    Identity { keypair: Keypair::from_uri("//Alice").unwrap(), netuid: Netuid(27), program: "test 1".to_owned() }
}

fn open(dir: &Path, head: Option<Head>) -> (Log, Vec<LogNote>) {
    open_bounded(dir, head, Limits { segment_bytes: 1 << 20, keep_bytes: 1 << 30 })
}

fn open_bounded(dir: &Path, head: Option<Head>, limits: Limits) -> (Log, Vec<LogNote>) {
    Log::open(dir, identity(), limits, head).unwrap()
}

fn entry(kind: Kind, n: u64) -> Entry {
    Entry { kind, at_ms: 1_000 + n, body: json!({ "epoch": n, "said": format!("thing {n}") }) }
}

fn epoch(n: u64) -> EvidenceRecord {
    let state = Some(Arc::new(json!({ "before": n })));
    EvidenceRecord { entries: vec![entry(Kind::Miner, n), entry(Kind::Epoch, n)], state, closes: Some(n) }
}

fn weights(n: u64) -> EvidenceRecord {
    EvidenceRecord { entries: vec![entry(Kind::Weights, n)], state: None, closes: None }
}

fn write(log: &mut Log, evidence: &EvidenceRecord) {
    log.append(evidence).unwrap();
    log.flush().unwrap();
    log.settle();
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sound(dir: &Path, head: Option<Head>) -> u64 {
    let (report, problems) = verify(dir, head, None).unwrap();
    assert_eq!(problems, [], "{}", report.to_text());
    report.records
}

#[test]
fn what_is_written_reads_back_in_order_sealed_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("evidence");
    let (mut log, notes) = open(&at, None);
    assert_eq!(notes, []);
    for n in 0..3 {
        write(&mut log, &epoch(n));
        write(&mut log, &weights(n));
    }
    let (report, problems) = verify(&at, log.head(), None).unwrap();
    assert_eq!(problems, []);
    assert_eq!((report.segments, report.records, report.seals), (1, 1 + 3 * 4, 3));
    assert_eq!((report.seqs, report.epochs, report.sealed), (Some((0, 12)), Some((0, 2)), Some(11)));
    assert_eq!(report.bytes, fs::metadata(at.join("0000000001.log")).unwrap().len());
    assert_eq!(
        (log.stats.records.load(Ordering::Relaxed), log.stats.bytes.load(Ordering::Relaxed)),
        (13, report.bytes)
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&at), mode(&at.join("0000000001.log"))), (0o700, 0o600));
}

#[test]
fn what_is_taken_back_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), None);
    log.append(&epoch(0)).unwrap();
    let (mark, head) = (log.mark(), log.head());
    log.append(&epoch(1)).unwrap();
    log.rewind(mark);
    assert_eq!(log.head(), head);
    log.append(&epoch(2)).unwrap();
    log.flush().unwrap();
    log.settle();
    assert_eq!(sound(dir.path(), log.head()), 5);
    let text = fs::read_to_string(dir.path().join("0000000001.log")).unwrap();
    assert!(text.contains("thing 2") && !text.contains("thing 1"));

    // A commit that failed: the file is cut back, and a first segment vanishes.
    let (bytes, head) = (text.len() as u64, log.head());
    log.append(&epoch(3)).unwrap();
    log.flush().unwrap();
    assert!(fs::metadata(dir.path().join("0000000001.log")).unwrap().len() > bytes);
    log.abandon();
    assert_eq!((log.head(), fs::metadata(dir.path().join("0000000001.log")).unwrap().len()), (head, bytes));
    write(&mut log, &epoch(4));
    assert_eq!(sound(dir.path(), log.head()), 7);
    let other = tempfile::tempdir().unwrap();
    let (mut log, _) = open(other.path(), None);
    log.append(&epoch(0)).unwrap();
    log.flush().unwrap();
    log.abandon();
    assert_eq!((names(other.path()).len(), log.head()), (0, None));
    write(&mut log, &epoch(1));
    assert_eq!(sound(other.path(), log.head()), 3);
}

#[test]
fn a_fraction_is_refused_and_nothing_of_its_record_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), None);
    let mark = log.mark();
    let mut bad = epoch(0);
    bad.entries[1].body = json!({ "score": 1.5 });
    assert!(matches!(log.append(&bad), Err(LogError::Canon("epoch", _))));
    log.rewind(mark);
    assert!(!log.is_pending() && log.head().is_none());
    write(&mut log, &epoch(0));
    assert_eq!(sound(dir.path(), log.head()), 3);
}

#[test]
fn a_full_segment_ends_before_an_epoch_and_the_oldest_go_beyond_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 1_500, keep_bytes: 6_000 };
    let (mut log, _) = open_bounded(dir.path(), None, limits);
    for n in 0..40 {
        write(&mut log, &epoch(n));
        write(&mut log, &weights(n));
    }
    let total: u64 = names(dir.path()).iter().map(|n| fs::metadata(dir.path().join(n)).unwrap().len()).sum();
    assert!((3_000..=6_000).contains(&total), "{total}");
    assert_eq!(log.stats.bytes.load(Ordering::Relaxed), total);
    assert_eq!(log.stats.segments.load(Ordering::Relaxed), names(dir.path()).len() as u64);
    let kept = segments(dir.path()).unwrap();
    assert!(kept[0] > 1 && kept.len() >= KEEP_AT_LEAST, "{kept:?}");
    sound(dir.path(), log.head());
    for segment in kept {
        let text = fs::read_to_string(dir.path().join(segment_name(segment))).unwrap();
        let mut lines = text.lines();
        assert!(lines.next().unwrap().contains("\"state\":{\"before\":"), "a replay can begin at any segment");
        assert!(lines.next().unwrap().contains("\"kind\":\"miner\""), "a segment begins with an epoch");
    }
    // One segment larger than the whole bound: the last two stay.
    let (mut log, _) = open_bounded(dir.path(), log.head(), Limits { segment_bytes: 1, keep_bytes: 1 });
    for n in 40..45 {
        write(&mut log, &epoch(n));
    }
    assert_eq!(names(dir.path()).len(), KEEP_AT_LEAST);
    sound(dir.path(), log.head());
}

#[test]
fn a_log_goes_on_after_a_restart_and_what_was_never_acknowledged_is_kept_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), None);
    write(&mut log, &epoch(0));
    let head = log.head();
    log.append(&epoch(1)).unwrap();
    log.flush().unwrap(); // and the machine stops before the database commits
    let (mut log, notes) = open(dir.path(), head);
    let [LogNote::TailCut { to, bytes }] = notes.as_slice() else { panic!("{notes:?}") };
    assert_eq!(fs::metadata(to).unwrap().len(), *bytes);
    assert!(fs::read_to_string(to).unwrap().contains("thing 1"));
    write(&mut log, &epoch(2));
    assert_eq!(sound(dir.path(), log.head()), 5);
    let (_, notes) = open(dir.path(), log.head());
    assert_eq!(notes, []);
}

#[test]
fn a_segment_that_was_begun_and_never_acknowledged_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 1, keep_bytes: 1 << 30 };
    let (mut log, _) = open_bounded(dir.path(), None, limits);
    write(&mut log, &epoch(0));
    let head = log.head();
    log.append(&epoch(1)).unwrap();
    log.flush().unwrap();
    let (mut log, notes) = open_bounded(dir.path(), head, limits);
    assert!(matches!(notes.as_slice(), [LogNote::TailCut { .. }]), "{notes:?}");
    write(&mut log, &epoch(1));
    assert_eq!(names(dir.path()), ["0000000001.log", "0000000002.0.tail", "0000000002.log"]);
    assert_eq!(sound(dir.path(), log.head()), 6);
}

#[test]
fn a_damaged_log_is_left_as_it_is_and_continued_in_a_segment_that_says_so() {
    for damage in ["short", "other", "gone"] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = open(dir.path(), None);
        write(&mut log, &epoch(0));
        write(&mut log, &epoch(1));
        let path = dir.path().join("0000000001.log");
        let mut content = fs::read(&path).unwrap();
        match damage {
            "short" => content.truncate(content.len() - 10),
            "other" => content[200] ^= 1,
            _ => fs::remove_file(&path).unwrap(),
        }
        if damage != "gone" {
            fs::write(&path, &content).unwrap();
        }
        let head = log.head();
        let (mut log, notes) = open(dir.path(), head);
        assert!(matches!(notes.as_slice(), [LogNote::Broken { .. }]), "{damage}: {notes:?}");
        write(&mut log, &epoch(2));
        if damage != "gone" {
            assert_eq!(fs::read(&path).unwrap(), content, "{damage}");
        }
        let (report, problems) = verify(dir.path(), log.head(), None).unwrap();
        assert!(problems.iter().any(|p| p.segment == 2 && p.is_declared()), "{damage}: {}", report.to_text());
        assert_eq!(problems.iter().any(|p| p.segment == 1), damage != "gone", "{damage}: {}", report.to_text());
        assert_eq!(log.head().unwrap().seq, head.unwrap().seq + 3, "{damage}: the numbers go on");
        let (_, notes) = open(dir.path(), log.head());
        assert_eq!(notes, [], "{damage}: the new segment is sound");
    }
}

#[test]
fn a_log_that_is_cut_while_the_node_runs_is_continued_in_a_segment_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), None);
    write(&mut log, &epoch(0));
    fs::write(dir.path().join("0000000001.log"), b"").unwrap();
    write(&mut log, &epoch(1));
    assert_eq!(names(dir.path()).len(), 2);
    let (report, problems) = verify(dir.path(), log.head(), None).unwrap();
    assert!(problems.iter().any(|p| p.is_declared()), "{}", report.to_text());
}

#[test]
fn a_log_that_the_database_knows_nothing_of_is_continued_or_declared_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), None);
    write(&mut log, &epoch(0));
    let head = log.head();
    let (mut log, notes) = open(dir.path(), None);
    assert_eq!((notes, log.head()), (vec![LogNote::Adopted { seq: 2 }], head));
    write(&mut log, &epoch(1));
    assert_eq!(sound(dir.path(), log.head()), 5);
    let other = Identity { keypair: Keypair::from_uri("//Bob").unwrap(), ..identity() };
    let limits = Limits { segment_bytes: 1 << 20, keep_bytes: 1 << 30 };
    let (_, notes) = Log::open(dir.path(), other, limits, None).unwrap();
    assert!(matches!(notes.as_slice(), [LogNote::Broken { .. }]), "{notes:?}");
}

#[test]
fn an_epoch_is_closed_once_however_often_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), None);
    write(&mut log, &epoch(4));
    write(&mut log, &epoch(4));
    write(&mut log, &epoch(3));
    let head = log.head();
    let (mut log, _) = open(dir.path(), head);
    write(&mut log, &epoch(4));
    assert_eq!((log.head(), sound(dir.path(), head)), (head, 3));
}

#[test]
fn a_write_that_failed_takes_back_nothing_that_it_did_not_write() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = open(dir.path(), None);
    let first = dir.path().join(segment_name(1));
    // Somebody else's file where the first segment should begin.
    fs::write(&first, "not ours").unwrap();
    log.append(&epoch(0)).unwrap();
    log.flush().unwrap_err();
    log.abandon();
    assert_eq!(fs::read_to_string(&first).unwrap(), "not ours");
    fs::remove_file(&first).unwrap();
    write(&mut log, &epoch(0));
    // Somebody else's bytes behind ours, since the segment was looked at.
    log.append(&epoch(1)).unwrap();
    let longer = fs::read_to_string(&first).unwrap() + "not ours";
    fs::write(&first, &longer).unwrap();
    log.flush().unwrap_err();
    log.abandon();
    assert_eq!(fs::read_to_string(&first).unwrap(), longer);
}
