//! Canary rentals: what is written and read of them.

use rusqlite::{Connection, Row, params};

use super::apply::{int, json, text};
use super::error::StoreError;
use super::queries::{from_json, list, maybe_unsigned, one, parsed, unsigned};
use super::records::{CanaryRecord, CanaryRow, HeldCanary};
use crate::canary::{Report, standing};
use crate::ids::{DeviceId, Hotkey, LeaseId};
use crate::wire::synapse::original::PublicKey;

macro_rules! select {
    ($rest:literal) => {
        concat!("SELECT id, miner, devices, begun_ms, ended_ms, report, original_key FROM canary ", $rest)
    };
}

/// Reports of a miner that are looked through for canaries in a row.
const LOOK_BACK: u32 = 64;

/// A canary is about to begin.
pub(super) fn begin(conn: &Connection, r: &CanaryRecord, key: Option<&PublicKey>) -> Result<(), StoreError> {
    let added = conn
        .prepare_cached(
            "INSERT INTO canary (id, miner, devices, begun_ms, held, original_key) VALUES (?1, ?2, ?3, ?4, 1, ?5)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            r.id.to_string(),
            r.miner.to_string(),
            json(&r.devices, "devices")?,
            int(r.begun_ms, "begun_ms")?,
            key.map(|key| text(key.text(), "original_key")).transpose()?,
        ])?;
    match added {
        0 => Err(StoreError::Conflict(format!("there is a canary {} already", r.id))),
        _ => Ok(()),
    }
}

/// A canary has ended. One that has ended before stays as it is.
pub(super) fn end(conn: &Connection, id: &LeaseId, ended_ms: u64, report: &Report) -> Result<(), StoreError> {
    let passed = report.outcome.reason().is_none();
    let changed = conn
        .prepare_cached(
            "UPDATE canary SET ended_ms = ?2, passed = ?3, report = ?4, held = ?5 WHERE id = ?1 AND ended_ms IS NULL
             RETURNING miner, original_key IS NULL",
        )?
        .query_row(
            params![
                id.to_string(),
                int(ended_ms, "ended_ms")?,
                passed,
                json(report, "report")?,
                report.unreleased.is_some()
            ],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)),
        );
    let miner = match changed {
        Ok((miner, true)) => miner,
        // Replies of the original's protocol are not signed: what came of one costs no device anything.
        Ok((_, false)) | Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let at_ms = int(ended_ms, "ended_ms")?;
    let mut say = conn.prepare_cached(
        "INSERT INTO canary_device (miner, device, passed, words, at_ms) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET passed = excluded.passed, words = excluded.words, at_ms = excluded.at_ms",
    )?;
    let words = standing::words(&report.outcome);
    for (device, passed) in standing::says(report) {
        say.execute(params![miner, device.to_string(), passed, text(&words, "words")?, at_ms])?;
    }
    if let Some(unreached) = unreached(conn, &miner)? {
        for device in unreached.devices {
            say.execute(params![miner, device.to_string(), false, text(&unreached.words, "words")?, at_ms])?;
        }
    }
    Ok(())
}

/// What the miner's last canaries cost together, if a canary at another miner passed meanwhile: that our own way to rented
/// containers, and the program that is uploaded, are well is not to be assumed.
fn unreached(conn: &Connection, miner: &str) -> Result<Option<standing::Unreached>, StoreError> {
    let sql =
        select!("WHERE miner = ?1 AND ended_ms IS NOT NULL AND original_key IS NULL ORDER BY begun_ms DESC LIMIT ?2");
    let rows = list(conn, sql, params![miner, LOOK_BACK], row)?;
    let reports = rows.iter().filter_map(|row| Some((row.record.begun_ms, row.report.as_ref()?)));
    let Some(unreached) = standing::unreached(reports) else { return Ok(None) };
    let sql = "SELECT EXISTS (SELECT 1 FROM canary WHERE miner <> ?1 AND passed = 1 AND ended_ms >= ?2)";
    let others: bool =
        conn.prepare_cached(sql)?.query_row(params![miner, int(unreached.since_ms, "begun_ms")?], |row| row.get(0))?;
    Ok(others.then_some(unreached))
}

/// What an ended canary had left is given back, or is given up: then its report goes on saying so. Of one that has not ended, or
/// left nothing, this changes nothing.
pub(super) fn released(conn: &Connection, id: &LeaseId, confirmed: bool) -> Result<(), StoreError> {
    let sql = "UPDATE canary SET held = 0, report = iif(?2, json_set(report, '$.unreleased', NULL), report)
               WHERE id = ?1 AND held = 1 AND ended_ms IS NOT NULL";
    conn.prepare_cached(sql)?.execute(params![id.to_string(), confirmed])?;
    Ok(())
}

fn row(row: &Row<'_>) -> rusqlite::Result<CanaryRow> {
    let record = CanaryRecord {
        id: parsed(row, 0)?,
        miner: parsed(row, 1)?,
        devices: from_json(row, 2)?,
        begun_ms: unsigned(row, 3)?,
        original: row.get::<_, Option<String>>(6)?.is_some(),
    };
    let ended_ms = maybe_unsigned(row, 4)?;
    let report = ended_ms.map(|_| from_json(row, 5)).transpose()?;
    Ok(CanaryRow { record, ended_ms, report })
}

/// Canaries that perhaps hold what they rented, oldest first.
pub fn held(conn: &Connection) -> rusqlite::Result<Vec<HeldCanary>> {
    let held =
        |r: &Row<'_>| Ok(HeldCanary { row: row(r)?, original_key: r.get::<_, Option<String>>(6)?.map(PublicKey) });
    list(conn, select!("WHERE held = 1 ORDER BY begun_ms"), [], held)
}

/// The last canaries, of one miner or of all, the latest first, at most so many.
pub fn last(conn: &Connection, miner: Option<&Hotkey>, most: u32) -> rusqlite::Result<Vec<CanaryRow>> {
    match miner {
        Some(miner) => {
            let sql = select!("WHERE miner = ?1 ORDER BY begun_ms DESC LIMIT ?2");
            list(conn, sql, params![miner.to_string(), most], row)
        }
        None => list(conn, select!("ORDER BY begun_ms DESC LIMIT ?1"), [most], row),
    }
}

/// One canary.
pub fn of(conn: &Connection, id: &LeaseId) -> rusqlite::Result<Option<CanaryRow>> {
    one(conn, select!("WHERE id = ?1"), [id.to_string()], row)
}

/// When the last canary of each miner that has ended began, and whether it passed.
pub fn times(conn: &Connection) -> rusqlite::Result<Vec<(Hotkey, u64, bool)>> {
    // SQLite takes the other columns from the row of the maximum.
    let sql = "SELECT miner, max(begun_ms), passed FROM canary WHERE ended_ms IS NOT NULL GROUP BY miner";
    list(conn, sql, [], |row| Ok((parsed(row, 0)?, unsigned(row, 1)?, row.get(2)?)))
}

/// The devices that the last canary with a word on them says failed, with its words.
pub fn failures(conn: &Connection) -> rusqlite::Result<Vec<(Hotkey, DeviceId, String)>> {
    let sql = "SELECT miner, device, words FROM canary_device WHERE passed = 0";
    list(conn, sql, [], |row| Ok((parsed(row, 0)?, parsed(row, 1)?, row.get(2)?)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::canary::{Course, Fault, Proved, Reason};
    use crate::store::schema::{LATEST, migrate_one};

    fn database() -> Connection {
        let mut conn = Connection::open_in_memory().unwrap();
        (0..LATEST).for_each(|from| migrate_one(&mut conn, from, 1).unwrap());
        conn
    }

    fn record(id: u8, miner: u8, begun_ms: u64) -> CanaryRecord {
        let devices = vec![DeviceId::cpu(0), DeviceId::cpu(1)];
        CanaryRecord { id: LeaseId([id; 16]), miner: Hotkey([miner; 32]), devices, begun_ms, original: false }
    }

    fn begin(conn: &Connection, r: &CanaryRecord) -> Result<(), StoreError> {
        super::begin(conn, r, None)
    }
    fn open(conn: &Connection) -> Vec<CanaryRow> {
        held(conn).unwrap().into_iter().map(|held| held.row).collect()
    }

    /// A report of a canary that fails at its first stage or passes, with these devices proved and failed.
    fn report(fails: Option<Reason>, proved: &[u8], failed: &[u8]) -> Report {
        let mut course = Course::default();
        while course.stage().is_some() {
            let fault = fails.filter(|_| course.stage() == Some(crate::canary::Stage::Allocate));
            course.ended(fault.map_or(Ok(()), |why| Err(Fault::new(why, "seen"))), Duration::ZERO);
        }
        let of = |device: &u8| Proved { device: DeviceId::cpu(*device), rate: 5, elapsed_ms: 1, samples: 8 };
        let failed = failed.iter().map(|device| DeviceId::cpu(*device)).collect();
        course.report(Vec::new(), proved.iter().map(of).collect(), failed, true)
    }

    #[test]
    fn a_canary_is_open_until_it_ends_and_ends_once() {
        let conn = database();
        begin(&conn, &record(1, 7, 10)).unwrap();
        assert!(begin(&conn, &record(1, 7, 10)).is_err(), "an id is used once");
        assert_eq!(open(&conn), [CanaryRow { record: record(1, 7, 10), ended_ms: None, report: None }]);
        let passed = report(None, &[0, 1], &[]);
        end(&conn, &LeaseId([1; 16]), 20, &passed).unwrap();
        end(&conn, &LeaseId([1; 16]), 30, &report(Some(Reason::OwnFault), &[], &[0])).unwrap();
        assert!(open(&conn).is_empty() && failures(&conn).unwrap().is_empty());
        let expected = CanaryRow { record: record(1, 7, 10), ended_ms: Some(20), report: Some(passed) };
        assert_eq!(last(&conn, None, 9).unwrap(), std::slice::from_ref(&expected));
        assert_eq!(of(&conn, &LeaseId([1; 16])).unwrap(), Some(expected));
        assert_eq!(last(&conn, Some(&Hotkey([8; 32])), 9).unwrap(), []);
    }

    #[test]
    fn a_canary_that_was_not_given_back_costs_what_it_costs_and_is_held_until_it_is() {
        let conn = database();
        super::begin(&conn, &record(1, 7, 10), Some(&PublicKey("a key".into()))).unwrap();
        let unreleased = Some(Fault::new(Reason::NoAnswer, "silent"));
        let of = Report { unreleased, ..report(Some(Reason::NoAnswer), &[], &[0]) };
        begin(&conn, &record(9, 7, 1)).unwrap();
        end(&conn, &LeaseId([9; 16]), 20, &of).unwrap();
        assert_eq!(failures(&conn).unwrap().len(), 1, "at once");
        released(&conn, &LeaseId([9; 16]), false).unwrap();
        let given_up = super::of(&conn, &LeaseId([9; 16])).unwrap().unwrap();
        assert_eq!(given_up.report.as_ref(), Some(&of));
        end(&conn, &LeaseId([1; 16]), 20, &Report { failed: vec![DeviceId::cpu(1)], ..of.clone() }).unwrap();
        assert_eq!(failures(&conn).unwrap().len(), 1, "nothing over the original's protocol");
        let of = Report { failed: vec![DeviceId::cpu(1)], ..of };
        let [HeldCanary { row, original_key }] = &held(&conn).unwrap()[..] else { panic!() };
        assert_eq!((row.report.as_ref(), original_key.as_ref().map(PublicKey::text)), (Some(&of), Some("a key")));
        assert!(row.record.original);
        released(&conn, &LeaseId([1; 16]), true).unwrap();
        assert!(held(&conn).unwrap().is_empty());
        let row = super::of(&conn, &LeaseId([1; 16])).unwrap().unwrap();
        assert_eq!((row.ended_ms, row.report.unwrap().unreleased), (Some(20), None));
        // One that goes on is not closed by it.
        begin(&conn, &record(2, 7, 30)).unwrap();
        released(&conn, &LeaseId([2; 16]), true).unwrap();
        assert_eq!(open(&conn).len(), 1);
    }

    #[test]
    fn canaries_in_a_row_that_do_not_get_to_the_proof_cost_where_others_pass_meanwhile() {
        use crate::canary::Stage;
        let stumbles = |at: Stage, reason| {
            let mut course = Course::default();
            while let Some(stage) = course.stage() {
                let fault = (stage == at).then(|| Fault::new(reason, "seen"));
                course.ended(fault.map_or(Ok(()), Err), Duration::ZERO);
            }
            course.report(vec![DeviceId::cpu(0), DeviceId::cpu(1)], Vec::new(), Vec::new(), true)
        };
        let unreachable = stumbles(Stage::Login, Reason::Unreachable);
        let run = |conn: &Connection, id: u8, miner, report: &Report| {
            begin(conn, &record(id, miner, u64::from(id) * 10)).unwrap();
            end(conn, &LeaseId([id; 16]), u64::from(id) * 10 + 5, report).unwrap();
            failures(conn).unwrap().len()
        };
        let passed = report(None, &[0, 1], &[]);
        // Nobody else passed meanwhile: it may be our own way out.
        let alone = database();
        run(&alone, 1, 8, &passed);
        assert_eq!((2..9).map(|id| run(&alone, id, 7, &unreachable)).sum::<usize>(), 0);
        assert_eq!(run(&alone, 9, 8, &passed), 0);
        assert_eq!(run(&alone, 10, 7, &unreachable), 2, "somebody else is reached");
        assert!(failures(&alone).unwrap()[0].2.starts_with("3 canaries in a row"), "{:?}", failures(&alone).unwrap());
        assert_eq!(run(&alone, 11, 7, &passed), 0, "one that passes clears it");

        let conn = database();
        run(&conn, 1, 7, &unreachable);
        run(&conn, 2, 8, &passed);
        assert_eq!(run(&conn, 3, 7, &stumbles(Stage::Run, Reason::NotStarted)), 0);
        // What is nobody's fault neither counts nor begins anew.
        assert_eq!(run(&conn, 4, 7, &report(Some(Reason::NotFree), &[], &[])), 0);
        assert_eq!(run(&conn, 5, 7, &stumbles(Stage::Upload, Reason::OwnFault)), 0);
        assert_eq!(run(&conn, 6, 7, &stumbles(Stage::Upload, Reason::Altered)), 2);
        // A pass in between begins anew.
        let conn = database();
        run(&conn, 1, 8, &passed);
        for id in [2, 3] {
            run(&conn, id, 7, &unreachable);
        }
        run(&conn, 4, 7, &passed);
        assert_eq!([5, 6].map(|id| run(&conn, id, 7, &unreachable)), [0, 0]);
    }

    #[test]
    fn a_device_stands_as_the_last_canary_with_a_word_on_it_says() {
        let conn = database();
        let run = |id: u8, at, report: &Report| {
            begin(&conn, &record(id, 7, at)).unwrap();
            end(&conn, &LeaseId([id; 16]), at + 1, report).unwrap();
            let failed: Vec<u64> = failures(&conn)
                .unwrap()
                .iter()
                .filter_map(|(_, device, _)| device.cpu_index())
                .map(u64::from)
                .collect();
            failed
        };
        assert_eq!(run(1, 10, &report(Some(Reason::Refused), &[1], &[0])), [0]);
        assert_eq!(failures(&conn).unwrap()[0].2, "at allocate: refused: seen");
        // One that says nothing of a device changes nothing.
        assert_eq!(run(2, 20, &report(Some(Reason::NoAnswer), &[], &[])), [0]);
        assert_eq!(run(3, 30, &report(None, &[1], &[])), [0]);
        assert_eq!(run(4, 40, &report(None, &[0], &[])), [] as [u64; 0]);
        assert_eq!(times(&conn).unwrap(), [(Hotkey([7; 32]), 40, true)]);
    }
}
