//! What opening promises: see the invariants in `open.rs`.

use super::*;
use crate::exit::Exit;

const NOW: u64 = 1_790_000_000_123;

/// A directory that only its owner can enter, whatever the umask.
fn private() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

fn modes(dir: &Path) -> Vec<(String, u32)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), e.metadata().unwrap().permissions().mode() & 0o777))
        .collect();
    all.sort();
    all
}

/// A data directory with a database of an older version that holds a neuron.
fn at_version(dir: &Path, version: u32) {
    let mut conn = connect(&dir.join(DATABASE_FILE)).unwrap();
    for from in 0..version {
        schema::migrate_one(&mut conn, from, NOW).unwrap();
    }
    conn.execute_batch(
        "INSERT INTO meta VALUES ('role', 'miner');
         INSERT INTO neuron (hotkey, uid, coldkey, first_seen_block, last_seen_block) VALUES ('kept', 3, 'cold', 7, 8);",
    )
    .unwrap();
}

fn kept(conn: &Connection) -> i64 {
    conn.query_row("SELECT count(*) FROM neuron WHERE hotkey = 'kept' AND uid = 3", [], |r| r.get(0)).unwrap()
}

#[test]
fn a_new_directory_gets_a_private_database_of_the_latest_version() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("state/node");
    let opened = open(&dir, Role::Miner, NOW).unwrap();
    assert_eq!(opened.notes, [OpenNote::Created]);
    assert_eq!(schema::version(&opened.db.conn).unwrap(), i64::from(schema::LATEST));
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let names = modes(&dir);
    assert!(names.iter().any(|(n, _)| n == "node.db-wal"), "{names:?}");
    assert!(names.iter().all(|(_, mode)| *mode == 0o600), "{names:?}");
}

#[test]
fn opening_again_changes_nothing_and_says_nothing() {
    let dir = private();
    drop(open(dir.path(), Role::Miner, NOW).unwrap());
    assert_eq!(open(dir.path(), Role::Miner, NOW).unwrap().notes, []);
}

#[test]
fn an_older_version_is_migrated_after_a_backup_of_it() {
    let dir = private();
    at_version(dir.path(), 1);
    let opened = open(dir.path(), Role::Miner, NOW).unwrap();
    assert_eq!(schema::version(&opened.db.conn).unwrap(), i64::from(schema::LATEST));
    assert_eq!(kept(&opened.db.conn), 1);

    // One note and one backup for each version in between, however many there are by now.
    let backup = |from: u32| dir.path().join(format!("node.db.v{from}.20260921T141320.123Z.bak"));
    let migrated = |from| OpenNote::Migrated { from, to: from + 1, backup: backup(from) };
    assert_eq!(opened.notes, (1..schema::LATEST).map(migrated).collect::<Vec<_>>());
    let backup = backup(1);
    assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
    let copy = Connection::open(&backup).unwrap();
    assert_eq!(schema::version(&copy).unwrap(), 1);
    assert_eq!(kept(&copy), 1);
}

#[test]
fn without_a_backup_there_is_no_migration() {
    let dir = private();
    at_version(dir.path(), 1);
    let path = dir.path().join(DATABASE_FILE);
    let mut conn = connect(&path).unwrap();
    let missing = dir.path().join("gone").join(DATABASE_FILE);
    let err = migrate(&mut conn, &missing, NOW).unwrap_err();
    assert!(matches!(err, OpenError::File { what: "make the backup", .. }), "{err}");
    assert_eq!(schema::version(&conn).unwrap(), 1);
}

#[test]
fn a_newer_version_is_refused_and_not_one_byte_of_it_changes() {
    let dir = private();
    at_version(dir.path(), schema::LATEST);
    let path = dir.path().join(DATABASE_FILE);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&path).unwrap();

    let err = open(dir.path(), Role::Miner, NOW).unwrap_err();
    assert!(matches!(err, OpenError::Newer { found: 99, .. }), "{err}");
    assert_eq!(err.exit(), Exit::Data);
    assert!(err.to_string().contains("run the newer program again"), "{err}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_database_of_another_program_is_refused_unaltered() {
    let dir = private();
    let path = dir.path().join(DATABASE_FILE);
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x); PRAGMA user_version = 1").unwrap();
    let before = fs::read(&path).unwrap();
    let err = open(dir.path(), Role::Miner, NOW).unwrap_err();
    assert!(matches!(err, OpenError::Foreign { .. }), "{err}");
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn the_other_kind_of_node_is_refused() {
    let dir = private();
    drop(open(dir.path(), Role::Miner, NOW).unwrap());
    let err = open(dir.path(), Role::Validator, NOW).unwrap_err();
    assert!(matches!(err, OpenError::OtherRole { .. }), "{err}");
    assert_eq!(err.exit(), Exit::Data);
}

#[test]
fn a_file_that_is_no_database_is_moved_aside_with_its_content() {
    let dir = private();
    let path = dir.path().join(DATABASE_FILE);
    let garbage = b"this was a database once ".repeat(400);
    fs::write(&path, &garbage).unwrap();
    fs::write(dir.path().join("node.db-wal"), b"its log").unwrap();

    let opened = open(dir.path(), Role::Miner, NOW).unwrap();
    let [OpenNote::MovedAside { to, .. }] = &opened.notes[..] else { panic!("{:?}", opened.notes) };
    assert_eq!(*to, dir.path().join("node.db.corrupt.20260921T141320.123Z"));
    assert_eq!(fs::read(to).unwrap(), garbage);
    assert_eq!(fs::read(with_suffix(to, "-wal")).unwrap(), b"its log");
    assert_eq!(schema::version(&opened.db.conn).unwrap(), i64::from(schema::LATEST));
}

#[test]
fn a_damaged_page_is_found_and_two_damaged_files_in_the_same_moment_are_both_kept() {
    let dir = private();
    let path = dir.path().join(DATABASE_FILE);
    for round in 0..2 {
        {
            let opened = open(dir.path(), Role::Miner, NOW).unwrap();
            let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                 INSERT INTO meta SELECT 'key ' || i, hex(randomblob(40)) FROM n";
            opened.db.conn.execute_batch(fill).unwrap();
            opened.db.conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        }
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8192].fill(0xA5);
        fs::write(&path, &bytes).unwrap();

        let notes = open(dir.path(), Role::Miner, NOW).unwrap().notes;
        let moved = notes.iter().find_map(|n| match n {
            OpenNote::MovedAside { to, .. } => Some(to.clone()),
            _ => None,
        });
        let moved = moved.unwrap_or_else(|| panic!("round {round}: {notes:?}"));
        assert_eq!(fs::read(moved).unwrap(), bytes);
    }
    let kept = modes(dir.path()).into_iter().filter(|(n, _)| n.starts_with("node.db.corrupt.")).count();
    assert!(kept >= 2, "{:?}", modes(dir.path()));
}

#[test]
fn a_second_opener_is_refused_and_told_who_holds_the_directory() {
    let dir = private();
    let first = open(dir.path(), Role::Miner, NOW).unwrap();
    let err = open(dir.path(), Role::Miner, NOW).unwrap_err();
    assert!(matches!(&err, OpenError::InUse { holder, .. } if holder == "this process"), "{err}");
    assert_eq!(err.exit(), Exit::Unavailable);
    drop(first);
    open(dir.path(), Role::Miner, NOW).unwrap();
}

#[test]
fn a_directory_that_others_can_enter_is_told_of_and_not_changed() {
    let dir = private();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let notes = open(dir.path(), Role::Miner, NOW).unwrap().notes;
    assert!(notes.contains(&OpenNote::OpenToOthers { mode: 0o755 }), "{notes:?}");
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_path_that_cannot_be_a_directory_is_named() {
    let dir = private();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let err = open(&file, Role::Miner, NOW).unwrap_err();
    assert_eq!(err.to_string(), format!("cannot make the directory {}", file.display()));
    assert_eq!(err.exit(), Exit::CannotCreate);
}

#[test]
fn a_log_without_its_database_is_kept() {
    let dir = private();
    fs::write(dir.path().join("node.db-wal"), b"whatever was in it").unwrap();
    let notes = open(dir.path(), Role::Miner, NOW).unwrap().notes;
    let [OpenNote::MovedAside { to, .. }] = &notes[..] else { panic!("{notes:?}") };
    assert_eq!(fs::read(with_suffix(to, "-wal")).unwrap(), b"whatever was in it");
}
