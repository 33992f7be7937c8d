//! The tables, as a list of migrations that is only ever appended to.
//!
//! A database's version is the number of migrations applied, kept in `PRAGMA user_version` and, with times, in the table
//! `migration`. Every migration runs in one transaction: a database is of one version or of the next, never in between.

use rusqlite::Connection;

/// Marks the file as a node's database (`PRAGMA application_id`): the ASCII text `CSN1`.
pub const APPLICATION_ID: i32 = 0x4353_4E31;

/// A step from one version to the next.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// What it does, for the table `migration`.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
}

/// Every migration; the n-th makes version n + 1.
pub const MIGRATIONS: &[Migration] = &[
    Migration { name: "first tables", sql: V1 },
    Migration { name: "admission of neurons, evidence, verdicts by hotkey", sql: V2 },
    Migration { name: "challenges a prover accepted, with what is needed to do them again", sql: PROOF_INTENTS },
    Migration { name: "rounds", sql: ROUNDS },
    Migration { name: "scores in whole numbers", sql: SCORES_IN_WHOLE_NUMBERS },
    Migration { name: "where the evidence log ends, the judge's memory", sql: EVIDENCE_LOG },
    Migration { name: "penalties of addresses", sql: PENALTIES_OF_ADDRESSES },
    Migration { name: "the last view of the subnet", sql: SUBNET_VIEW },
    Migration { name: "weights by every way the chain takes them", sql: WEIGHTS_BY_EVERY_WAY },
    Migration { name: "proofs of memory", sql: PROOFS_OF_MEMORY },
    Migration { name: "canary rentals", sql: CANARIES },
    Migration { name: "what canary rentals may still hold", sql: CANARIES_THAT_HOLD },
];

/// The version this program reads and writes.
pub const LATEST: u32 = MIGRATIONS.len() as u32;

const V1: &str = "
CREATE TABLE migration (version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at_ms INTEGER NOT NULL) STRICT;

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE neuron (
    hotkey TEXT PRIMARY KEY, uid INTEGER NOT NULL, coldkey TEXT NOT NULL,
    first_seen_block INTEGER NOT NULL, last_seen_block INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX neuron_by_uid ON neuron (uid, last_seen_block);

CREATE TABLE specs (
    hotkey TEXT NOT NULL, taken_at_ms INTEGER NOT NULL, block INTEGER NOT NULL, json TEXT NOT NULL,
    PRIMARY KEY (hotkey, taken_at_ms)
) STRICT;

-- device is '' when the miner as a whole was judged
CREATE TABLE verdict (
    epoch INTEGER NOT NULL, uid INTEGER NOT NULL, hotkey TEXT NOT NULL, device TEXT NOT NULL, model TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('pass', 'fail', 'unknown')), reason TEXT NOT NULL, detail TEXT NOT NULL,
    operations INTEGER, elapsed_ns INTEGER, samples INTEGER,
    block INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (epoch, hotkey, device)
) STRICT, WITHOUT ROWID;

CREATE TABLE score (
    epoch INTEGER NOT NULL, hotkey TEXT NOT NULL, uid INTEGER NOT NULL, score REAL NOT NULL, parts TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (epoch, hotkey)
) STRICT, WITHOUT ROWID;
CREATE INDEX score_by_hotkey ON score (hotkey, epoch);

CREATE TABLE weights (
    id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, block INTEGER NOT NULL, entries TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'included', 'failed')),
    included_block INTEGER, detail TEXT NOT NULL, at_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX weights_by_status ON weights (status, id);

CREATE TABLE lease (
    id TEXT PRIMARY KEY, fencing_epoch INTEGER NOT NULL, role TEXT NOT NULL CHECK (role IN ('miner', 'validator')),
    miner TEXT NOT NULL, renter TEXT NOT NULL, devices TEXT NOT NULL, state TEXT NOT NULL,
    live INTEGER NOT NULL CHECK (live IN (0, 1)), expires_at_ms INTEGER NOT NULL, owner_token_digest TEXT NOT NULL,
    container TEXT, json TEXT NOT NULL, updated_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_live ON lease (role) WHERE live = 1;
CREATE INDEX lease_by_miner ON lease (miner, updated_ms);

-- the devices of live leases: a device has one of them at most
CREATE TABLE lease_device (
    miner TEXT NOT NULL, device TEXT NOT NULL, lease TEXT NOT NULL,
    PRIMARY KEY (miner, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_device_by_lease ON lease_device (lease);

CREATE TABLE lease_event (
    lease TEXT NOT NULL, seq INTEGER NOT NULL, event TEXT NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (lease, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE penalty (
    hotkey TEXT NOT NULL, reason TEXT NOT NULL, detail TEXT NOT NULL, from_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL,
    PRIMARY KEY (hotkey, reason, from_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX penalty_by_end ON penalty (until_ms);

CREATE TABLE prover_run (
    challenge TEXT NOT NULL, device TEXT NOT NULL, validator TEXT NOT NULL, epoch INTEGER NOT NULL,
    operations INTEGER NOT NULL, elapsed_ns INTEGER NOT NULL, outcome TEXT NOT NULL, detail TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (challenge, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX prover_run_by_time ON prover_run (at_ms);

-- written and emptied by the writer to see whether the disk takes writes again
CREATE TABLE probe (id INTEGER PRIMARY KEY, filler BLOB NOT NULL) STRICT;
";

const V2: &str = "
ALTER TABLE neuron ADD COLUMN admission TEXT;

CREATE TABLE evidence (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, hotkey TEXT, json TEXT NOT NULL, at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX evidence_by_hotkey ON evidence (hotkey, id);
CREATE INDEX evidence_by_time ON evidence (at_ms);

CREATE INDEX verdict_by_hotkey ON verdict (hotkey, epoch);
";

// Nothing was ever written to the first form of the table. outcome and elapsed_ns are null until the provers have ended.
const PROOF_INTENTS: &str = "
DROP TABLE prover_run;
CREATE TABLE prover_run (
    id INTEGER PRIMARY KEY, validator TEXT NOT NULL, challenge TEXT NOT NULL, device TEXT NOT NULL, epoch INTEGER NOT NULL,
    nonce TEXT NOT NULL, n INTEGER NOT NULL, k INTEGER NOT NULL, rounds INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    elapsed_ns INTEGER, outcome TEXT, detail TEXT NOT NULL,
    UNIQUE (validator, challenge, device)
) STRICT;
CREATE INDEX prover_run_by_validator ON prover_run (validator, id);
CREATE INDEX prover_run_by_time ON prover_run (at_ms);
";

const ROUNDS: &str = "
-- outcome is NULL while the round is open: begun, and not all of its verdicts stored
CREATE TABLE round (
    epoch INTEGER PRIMARY KEY, block INTEGER NOT NULL, planned TEXT NOT NULL, at_ms INTEGER NOT NULL,
    outcome TEXT CHECK (outcome IN ('judged', 'void')), closed_ms INTEGER
) STRICT;
CREATE INDEX round_open ON round (epoch) WHERE outcome IS NULL;
";

/// Scores in 10⁻⁹ points, bases in 10⁻⁶, factors in 10⁻⁹, credits in 10⁻¹⁵, rates in whole operations a second. The
/// scaling was kept as a number; eight devices, then always, make a fraction of it again.
const SCORES_IN_WHOLE_NUMBERS: &str = "
CREATE TABLE score_whole (
    epoch INTEGER NOT NULL, hotkey TEXT NOT NULL, uid INTEGER NOT NULL, score INTEGER NOT NULL, parts TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (epoch, hotkey)
) STRICT, WITHOUT ROWID;
INSERT INTO score_whole (epoch, hotkey, uid, score, parts, at_ms)
SELECT epoch, hotkey, uid, CAST(round(score * 1e9) AS INTEGER),
    json_object(
        'devices', json((SELECT json_group_array(json_object(
            'device', d.value ->> 'device', 'model', d.value ->> 'model',
            'base_micro', CAST(round((d.value ->> 'base') * 1e6) AS INTEGER),
            'rate', CAST(d.value ->> 'rate' AS INTEGER), 'nominal', CAST(d.value ->> 'nominal' AS INTEGER),
            'factor_ppb', CAST(round((d.value ->> 'factor') * 1e9) AS INTEGER),
            'credit', CAST(round((d.value ->> 'credit') * 1e15) AS INTEGER),
            'counted', json(iif(d.value ->> 'counted', 'true', 'false')),
            'verdict', d.value ->> 'verdict', 'reason', d.value ->> 'reason'))
            FROM json_each(parts, '$.devices') AS d)),
        'scaling', json_object('max_devices', 8, 'max_base_micro',
            CAST(coalesce(round(100e6 / (8 * nullif(parts ->> 'scaling', 0))), 0) AS INTEGER)),
        'gpu', CAST(round((parts ->> 'total' - parts ->> 'allocated_bonus') * 1e9) AS INTEGER),
        'bonus', CAST(round((parts ->> 'allocated_bonus') * 1e9) AS INTEGER),
        'total', CAST(round((parts ->> 'total') * 1e9) AS INTEGER),
        'notes', json(parts -> 'notes')),
    at_ms FROM score;
DROP TABLE score;
ALTER TABLE score_whole RENAME TO score;
CREATE INDEX score_by_hotkey ON score (hotkey, epoch);
";

/// The table `evidence` of version 2 was never written. The log itself lies in files.
const EVIDENCE_LOG: &str = "
DROP TABLE evidence;
CREATE TABLE evidence_head (
    id INTEGER PRIMARY KEY CHECK (id = 1), segment INTEGER NOT NULL, bytes INTEGER NOT NULL, seq INTEGER NOT NULL,
    hash TEXT NOT NULL, epoch INTEGER
) STRICT;
CREATE TABLE judge (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL, json TEXT NOT NULL) STRICT;
";

/// A subject is a hotkey or an address as text; no text is both.
const PENALTIES_OF_ADDRESSES: &str = "ALTER TABLE penalty RENAME COLUMN hotkey TO subject;";

/// `prepared` is what was about to be sent, salt and sealed bytes included; NULL for weights from before. Which statuses
/// there are the program says: a CHECK would ask for a new table with each new one.
const WEIGHTS_BY_EVERY_WAY: &str = "
CREATE TABLE weights_by_way (
    id INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, block INTEGER NOT NULL, entries TEXT NOT NULL, prepared TEXT,
    status TEXT NOT NULL, included_block INTEGER, detail TEXT NOT NULL, at_ms INTEGER NOT NULL, updated_ms INTEGER NOT NULL
) STRICT;
INSERT INTO weights_by_way (id, epoch, block, entries, status, included_block, detail, at_ms, updated_ms)
SELECT id, epoch, block, entries, status, included_block, detail, at_ms, updated_ms FROM weights;
DROP TABLE weights;
ALTER TABLE weights_by_way RENAME TO weights;
CREATE INDEX weights_by_status ON weights (status, id);
";

const SUBNET_VIEW: &str = "
CREATE TABLE subnet_view (
    id INTEGER PRIMARY KEY CHECK (id = 1), block INTEGER NOT NULL, json TEXT NOT NULL, at_ms INTEGER NOT NULL
) STRICT;
";

/// `closed_ms` is NULL while the round is open. `after_round` is the newest epoch whose round of work had begun when it was
/// closed.
const PROOFS_OF_MEMORY: &str = "
CREATE TABLE memory_round (
    epoch INTEGER PRIMARY KEY, block INTEGER NOT NULL, planned TEXT NOT NULL, at_ms INTEGER NOT NULL, closed_ms INTEGER,
    after_round INTEGER
) STRICT;
CREATE INDEX memory_round_open ON memory_round (epoch) WHERE closed_ms IS NULL;
CREATE TABLE memory_verdict (
    epoch INTEGER NOT NULL, uid INTEGER NOT NULL, hotkey TEXT NOT NULL, device TEXT NOT NULL, model TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('pass', 'fail', 'unknown')), reason TEXT NOT NULL, detail TEXT NOT NULL,
    blocks INTEGER, iterations INTEGER, scans INTEGER, elapsed_ns INTEGER, samples INTEGER,
    block INTEGER NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (epoch, hotkey, device)
) STRICT, WITHOUT ROWID;
";

/// `report` is NULL until the canary has ended. `canary_device` has what the last canary that says something of a device said.
const CANARIES: &str = "
CREATE TABLE canary (
    id TEXT PRIMARY KEY, miner TEXT NOT NULL, devices TEXT NOT NULL, begun_ms INTEGER NOT NULL,
    ended_ms INTEGER, passed INTEGER CHECK (passed IN (0, 1)), report TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX canary_by_time ON canary (begun_ms);
CREATE INDEX canary_by_miner ON canary (miner, begun_ms);
CREATE INDEX canary_open ON canary (id) WHERE ended_ms IS NULL;
CREATE TABLE canary_device (
    miner TEXT NOT NULL, device TEXT NOT NULL, passed INTEGER NOT NULL CHECK (passed IN (0, 1)), words TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (miner, device)
) STRICT, WITHOUT ROWID;
";

/// `held` is 1 while what the canary rented is perhaps not given back, also after its end: `report` is then there already, and
/// what it costs is booked. `original_key` is the public key that owns a rental made over the original's protocol.
const CANARIES_THAT_HOLD: &str = "
ALTER TABLE canary ADD COLUMN held INTEGER NOT NULL DEFAULT 0 CHECK (held IN (0, 1));
ALTER TABLE canary ADD COLUMN original_key TEXT;
UPDATE canary SET held = 1 WHERE ended_ms IS NULL;
DROP INDEX canary_open;
CREATE INDEX canary_held ON canary (id) WHERE held = 1;
";

/// The version of a database, 0 for one without tables.
pub(super) fn version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// Brings a database from `from` to the next version, in one transaction.
pub(super) fn migrate_one(conn: &mut Connection, from: u32, now_ms: u64) -> rusqlite::Result<()> {
    let Some(step) = MIGRATIONS.get(from as usize) else {
        return Ok(());
    };
    let to = from + 1;
    let tx = conn.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    tx.execute_batch(step.sql)?;
    tx.execute(
        "INSERT INTO migration (version, name, applied_at_ms) VALUES (?1, ?2, ?3)",
        (to, step.name, i64::try_from(now_ms).unwrap_or(i64::MAX)),
    )?;
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", to)?;
    tx.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_applies_in_order_and_leaves_its_mark() {
        let mut conn = Connection::open_in_memory().unwrap();
        for from in 0..LATEST {
            assert_eq!(version(&conn).unwrap(), i64::from(from));
            migrate_one(&mut conn, from, 1_000 + u64::from(from)).unwrap();
        }
        assert_eq!(version(&conn).unwrap(), i64::from(LATEST));
        let mut names = conn.prepare("SELECT name FROM migration ORDER BY version").unwrap();
        let names: Vec<String> = names.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(names, MIGRATIONS.iter().map(|m| m.name).collect::<Vec<_>>());
    }

    #[test]
    fn scores_in_floating_point_are_read_back_in_whole_numbers() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_one(&mut conn, 0, 1).unwrap();
        migrate_one(&mut conn, 1, 2).unwrap();
        let parts = r#"{"devices":[{"device":"CPU-0","model":"cpu-2","base":2.0,"rate":31400000000.75,"nominal":null,
            "factor":1.0,"credit":2.0,"counted":true,"verdict":"pass","reason":"none"},{"device":"CPU-1","model":"x",
            "base":0.34,"rate":1e14,"nominal":1.5e14,"factor":0.6666666666666666,"credit":0.22666666666666666,
            "counted":false,"verdict":"pass","reason":"none"}],"scaling":3.125,"allocated_bonus":100.0,"total":106.25,
            "notes":["a note"]}"#;
        let empty = r#"{"devices":[],"scaling":0.0,"allocated_bonus":0.0,"total":0.0,"notes":[]}"#;
        let hotkey = crate::ids::Hotkey([1; 32]);
        for (epoch, score, parts) in [(4, 106.25, parts), (5, 0.0, empty)] {
            conn.execute(
                "INSERT INTO score (epoch, hotkey, uid, score, parts, at_ms) VALUES (?1, ?2, 1, ?3, ?4, 7)",
                (epoch, hotkey.to_string(), score, parts),
            )
            .unwrap();
        }
        (2..LATEST).for_each(|from| migrate_one(&mut conn, from, 3).unwrap());

        let read = &super::super::queries::scores(&conn, 4).unwrap()[0];
        let points = crate::scoring::Points;
        assert_eq!((read.score, read.at_ms, read.parts.total), (points(106_250_000_000), 7, points(106_250_000_000)));
        assert_eq!((read.parts.gpu, read.parts.bonus), (points(6_250_000_000), points(100_000_000_000)));
        assert_eq!(read.parts.scaling.to_string(), "100 / (8 × 4.0000)");
        assert_eq!(read.parts.notes, ["a note"]);
        let [first, second] = read.parts.devices.as_slice() else { panic!("{read:?}") };
        assert_eq!((first.base_micro, first.rate, first.nominal), (2_000_000, Some(31_400_000_000), None));
        assert_eq!((first.factor_ppb, first.credit, first.counted), (1_000_000_000, 2_000_000_000_000_000, true));
        assert_eq!((second.nominal, second.factor_ppb), (Some(150_000_000_000_000), 666_666_667));
        assert_eq!((second.base_micro, second.counted), (340_000, false));
        assert_eq!(super::super::queries::scores(&conn, 5).unwrap()[0].score, points(0));
    }

    #[test]
    fn penalties_of_hotkeys_are_kept_when_addresses_may_have_them_too() {
        let mut conn = Connection::open_in_memory().unwrap();
        (0..6).for_each(|from| migrate_one(&mut conn, from, 1).unwrap());
        let hotkey = crate::ids::Hotkey([1; 32]);
        conn.execute(
            "INSERT INTO penalty (hotkey, reason, detail, from_ms, until_ms) VALUES (?1, 'operator', 'spam', 5, 90)",
            [hotkey.to_string()],
        )
        .unwrap();
        (6..LATEST).for_each(|from| migrate_one(&mut conn, from, 2).unwrap());
        let read = super::super::queries::penalties(&conn, 6).unwrap();
        let expected = super::super::records::PenaltyRecord {
            subject: hotkey.into(),
            reason: "operator".into(),
            detail: "spam".into(),
            from_ms: 5,
            until_ms: 90,
        };
        assert_eq!(read, [expected]);
    }

    #[test]
    fn weights_of_which_nothing_was_known_are_still_open_after_the_migration() {
        let mut conn = Connection::open_in_memory().unwrap();
        (0..8).for_each(|from| migrate_one(&mut conn, from, 1).unwrap());
        conn.execute_batch(
            "INSERT INTO weights VALUES (1, 4, 240, '[]', 'included', 250, 'fine', 5, 6);
             INSERT INTO weights VALUES (2, 5, 246, '[]', 'pending', NULL, '', 7, 7);",
        )
        .unwrap();
        (8..LATEST).for_each(|from| migrate_one(&mut conn, from, 2).unwrap());
        let open = super::super::queries::open_weights(&conn).unwrap();
        assert_eq!(
            open.iter().map(|row| (row.weights.id, row.weights.prepared.is_none())).collect::<Vec<_>>(),
            [(2, true)]
        );
        let last = super::super::queries::last_included_weights(&conn).unwrap().unwrap();
        assert_eq!((last.weights.id, last.included_block, last.detail.as_str()), (1, Some(250), "fine"));
    }

    #[test]
    fn a_migration_that_fails_leaves_the_version_and_the_tables_as_they_were() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_one(&mut conn, 0, 1).unwrap();
        conn.execute_batch("CREATE TABLE evidence (in_the_way INTEGER)").unwrap();
        migrate_one(&mut conn, 1, 2).unwrap_err();
        assert_eq!(version(&conn).unwrap(), 1);
        let admission: i64 = conn
            .query_row("SELECT count(*) FROM pragma_table_info('neuron') WHERE name = 'admission'", [], |r| r.get(0))
            .unwrap();
        assert_eq!(admission, 0, "the column of the failed migration is gone again");
    }
}
