//! Typed reads. Each takes a connection, so it works in [`Writer::query`](super::Writer::query) and on a read-only database alike.
//!
//! A value that does not read back (written by hand, for example) is an error that names its column, never skipped: a node must
//! not come up with half of its leases. Lists without a natural bound take a limit.

use std::error::Error;
use std::str::FromStr;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};
use serde::de::DeserializeOwned;

use super::records::*;
use crate::chain::STATEFUL_EPOCHS;
use crate::evidence::Head;
use crate::ids::{DeviceId, Epoch, Hotkey, LeaseId, Uid};
use crate::proof::memory;
use crate::scoring::Points;
use crate::verdict::{FailReason, PassEvidence, UnknownCause, Verdict};

type Result<T> = rusqlite::Result<T>;

fn bad(column: usize, error: impl Into<Box<dyn Error + Send + Sync>>) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
}

/// A column that reads back from the text it displays.
pub(super) fn parsed<T: FromStr<Err: Error + Send + Sync + 'static>>(row: &Row<'_>, column: usize) -> Result<T> {
    let value = row.get_ref(column)?.as_str().map_err(|e| bad(column, e))?;
    value.parse().map_err(|e: T::Err| bad(column, e))
}

pub(super) fn from_json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> Result<T> {
    let value = row.get_ref(column)?.as_str().map_err(|e| bad(column, e))?;
    serde_json::from_str(value).map_err(|e| bad(column, e))
}

pub(super) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

pub(super) fn maybe_unsigned(row: &Row<'_>, column: usize) -> Result<Option<u64>> {
    row.get::<_, Option<i64>>(column)?.map(|_| unsigned(row, column)).transpose()
}

fn uid(row: &Row<'_>, column: usize) -> Result<Uid> {
    row.get(column).map(Uid)
}

/// Bounds of ours as SQLite's signed integers; what does not fit is later than everything stored.
fn bound(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn list<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    conn.prepare_cached(sql)?.query_map(params, read)?.collect()
}

pub(super) fn one<T>(
    conn: &Connection,
    sql: &str,
    params: impl Params,
    read: fn(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    conn.prepare_cached(sql)?.query_row(params, read).optional()
}

// === meta ===

/// A setting of the node itself.
pub fn meta(conn: &Connection, key: &str) -> Result<Option<String>> {
    one(conn, "SELECT value FROM meta WHERE key = ?1", [key], |r| r.get(0))
}

// === verdicts ===

macro_rules! select_verdicts {
    ($rest:literal) => {
        concat!(
            "SELECT epoch, uid, hotkey, device, model, kind, reason, detail, operations, elapsed_ns, samples, block, at_ms FROM verdict ",
            $rest
        )
    };
}

/// A verdict whose kind, reason and detail are in three columns from this one on; `pass` reads what a pass shows.
fn judgement<E>(row: &Row<'_>, column: usize, pass: impl Fn() -> Result<E>) -> Result<Verdict<E>> {
    let kind = row.get_ref(column)?.as_str().map_err(|e| bad(column, e))?;
    let reason = row.get_ref(column + 1)?.as_str().map_err(|e| bad(column + 1, e))?;
    let unknown_label = || bad(column + 1, format!("{reason} is no reason of a {kind} verdict"));
    match kind {
        "pass" => Ok(Verdict::Pass { evidence: pass()? }),
        "fail" => {
            let found = FailReason::ALL.iter().find(|r| r.label() == reason).ok_or_else(unknown_label)?;
            Ok(Verdict::Fail { reason: *found, detail: row.get(column + 2)? })
        }
        "unknown" => {
            let found = UnknownCause::ALL.iter().find(|c| c.label() == reason).ok_or_else(unknown_label)?;
            Ok(Verdict::Unknown { cause: *found, detail: row.get(column + 2)? })
        }
        other => Err(bad(column, format!("{other} is no kind of verdict"))),
    }
}

fn verdict(row: &Row<'_>) -> Result<VerdictRecord> {
    let verdict = judgement(row, 5, || {
        Ok(PassEvidence { operations: unsigned(row, 8)?, elapsed_ns: unsigned(row, 9)?, samples: row.get(10)? })
    })?;
    let device = match row.get_ref(3)?.as_str().map_err(|e| bad(3, e))? {
        "" => None,
        text => Some(text.parse::<DeviceId>().map_err(|e| bad(3, e))?),
    };
    Ok(VerdictRecord {
        epoch: unsigned(row, 0)?,
        uid: uid(row, 1)?,
        hotkey: parsed(row, 2)?,
        device,
        model: row.get(4)?,
        verdict,
        block: unsigned(row, 11)?,
        at_ms: unsigned(row, 12)?,
    })
}

/// The last `n` verdicts of a miner, newest epoch first.
pub fn verdicts(conn: &Connection, hotkey: &Hotkey, n: u32) -> Result<Vec<VerdictRecord>> {
    let sql = select_verdicts!("WHERE hotkey = ?1 ORDER BY epoch DESC, device LIMIT ?2");
    list(conn, sql, params![hotkey.to_string(), n], verdict)
}

/// Every verdict from an epoch on, oldest first: what a score keeper needs to rebuild itself after a start.
pub fn verdicts_since(conn: &Connection, epoch: Epoch) -> Result<Vec<VerdictRecord>> {
    list(conn, select_verdicts!("WHERE epoch >= ?1 ORDER BY epoch, hotkey, device"), [bound(epoch)], verdict)
}

/// The verdict of one device, or of a miner as a whole, in an epoch.
pub fn verdict_of(
    conn: &Connection,
    epoch: Epoch,
    hotkey: &Hotkey,
    device: Option<DeviceId>,
) -> Result<Option<VerdictRecord>> {
    let device = device.map(|d| d.to_string()).unwrap_or_default();
    let sql = select_verdicts!("WHERE epoch = ?1 AND hotkey = ?2 AND device = ?3");
    one(conn, sql, params![bound(epoch), hotkey.to_string(), device], verdict)
}

/// The newest epoch that is over for us: it has a verdict, or a round that is closed.
pub fn last_judged_epoch(conn: &Connection) -> Result<Option<Epoch>> {
    let sql = "SELECT max(epoch) FROM
         (SELECT max(epoch) AS epoch FROM verdict UNION ALL SELECT max(epoch) FROM round WHERE outcome IS NOT NULL)";
    conn.query_row(sql, [], |r| r.get::<_, Option<i64>>(0)).map(|epoch| epoch.and_then(|e| Epoch::try_from(e).ok()))
}

/// Where the last `n` epochs that closed begin; `None` if none did.
///
/// By the numbers, which follow each other, unless the chain was upgraded to stateful epochs among them
/// ([`STATEFUL_EPOCHS`]): then by the rounds, which are one for each epoch.
pub fn since_epochs(conn: &Connection, n: u64) -> Result<Option<Epoch>> {
    let Some(last) = last_judged_epoch(conn)? else { return Ok(None) };
    let first = last.saturating_add(1).saturating_sub(n);
    if last < STATEFUL_EPOCHS || first >= STATEFUL_EPOCHS {
        return Ok(Some(first));
    }
    let sql = "SELECT epoch FROM round WHERE outcome IS NOT NULL ORDER BY epoch DESC LIMIT 1 OFFSET ?1";
    let nth = one(conn, sql, [bound(n.saturating_sub(1))], |row| unsigned(row, 0))?;
    Ok(Some(nth.unwrap_or(0)))
}

// === rounds ===

/// Rounds that were begun and never closed, oldest first.
pub fn open_rounds(conn: &Connection) -> Result<Vec<RoundRecord>> {
    list(conn, "SELECT epoch, block, planned, at_ms FROM round WHERE outcome IS NULL ORDER BY epoch", [], round)
}

fn round(row: &Row<'_>) -> Result<RoundRecord> {
    Ok(RoundRecord {
        epoch: unsigned(row, 0)?,
        block: unsigned(row, 1)?,
        planned: from_json(row, 2)?,
        at_ms: unsigned(row, 3)?,
    })
}

/// What became of an epoch's round; `None` if there is none, or it is open.
pub fn round_outcome(conn: &Connection, epoch: Epoch) -> Result<Option<RoundOutcome>> {
    let sql = "SELECT outcome FROM round WHERE epoch = ?1 AND outcome IS NOT NULL";
    one(conn, sql, [bound(epoch)], |row| {
        let label = row.get_ref(0)?.as_str().map_err(|e| bad(0, e))?;
        let found = RoundOutcome::ALL.iter().find(|o| o.label() == label).copied();
        found.ok_or_else(|| bad(0, format!("{label} is no outcome of a round")))
    })
}

// === rounds of memory proofs ===

/// Rounds of memory proofs that were begun and never closed, oldest first.
pub fn open_memory_rounds(conn: &Connection) -> Result<Vec<RoundRecord>> {
    list(
        conn,
        "SELECT epoch, block, planned, at_ms FROM memory_round WHERE closed_ms IS NULL ORDER BY epoch",
        [],
        round,
    )
}

/// The newest epoch with a round of memory proofs, open or closed.
pub fn last_memory_epoch(conn: &Connection) -> Result<Option<Epoch>> {
    conn.query_row("SELECT max(epoch) FROM memory_round", [], |row| maybe_unsigned(row, 0))
}

/// The judgements of the last `rounds` rounds of memory proofs that are closed, oldest first.
pub fn memory_history(conn: &Connection, rounds: u32) -> Result<Vec<MemoryVerdictRow>> {
    let sql = "SELECT v.epoch, uid, hotkey, device, model, kind, reason, detail, blocks, iterations, scans, elapsed_ns, samples,
             v.block, v.at_ms, r.after_round
         FROM (SELECT epoch, after_round FROM memory_round WHERE closed_ms IS NOT NULL ORDER BY epoch DESC LIMIT ?1) AS r
         JOIN memory_verdict AS v ON v.epoch = r.epoch ORDER BY v.epoch, hotkey, device";
    list(conn, sql, [rounds], |row| {
        let verdict = judgement(row, 5, || {
            let size = memory::Size::new(unsigned(row, 8)?, row.get(9)?, row.get(10)?).map_err(|e| bad(8, e))?;
            Ok(memory::Evidence { size, elapsed_ns: unsigned(row, 11)?, samples: row.get(12)? })
        })?;
        let record = MemoryVerdictRecord {
            epoch: unsigned(row, 0)?,
            uid: uid(row, 1)?,
            hotkey: parsed(row, 2)?,
            device: parsed(row, 3)?,
            model: row.get(4)?,
            verdict,
            block: unsigned(row, 13)?,
            at_ms: unsigned(row, 14)?,
        };
        Ok(MemoryVerdictRow { record, after_round: maybe_unsigned(row, 15)? })
    })
}

// === latest verdicts ===

/// The verdict each device of a miner had last.
pub fn latest_verdicts(conn: &Connection, hotkey: &Hotkey) -> Result<Vec<VerdictRecord>> {
    let sql = select_verdicts!(
        "AS v WHERE hotkey = ?1 AND epoch =
             (SELECT max(epoch) FROM verdict WHERE hotkey = v.hotkey AND device = v.device) ORDER BY device"
    );
    list(conn, sql, [hotkey.to_string()], verdict)
}

// === scores ===

fn score(row: &Row<'_>) -> Result<ScoreRecord> {
    Ok(ScoreRecord {
        epoch: unsigned(row, 0)?,
        uid: uid(row, 1)?,
        hotkey: parsed(row, 2)?,
        score: Points(unsigned(row, 3)?),
        parts: from_json(row, 4)?,
        at_ms: unsigned(row, 5)?,
    })
}

/// Every score of an epoch, by slot.
pub fn scores(conn: &Connection, epoch: Epoch) -> Result<Vec<ScoreRecord>> {
    let sql = "SELECT epoch, uid, hotkey, score, parts, at_ms FROM score WHERE epoch = ?1 ORDER BY uid, hotkey";
    list(conn, sql, [bound(epoch)], score)
}

/// A miner's last score.
pub fn latest_score(conn: &Connection, hotkey: &Hotkey) -> Result<Option<ScoreRecord>> {
    let sql = "SELECT epoch, uid, hotkey, score, parts, at_ms FROM score WHERE hotkey = ?1 ORDER BY epoch DESC LIMIT 1";
    one(conn, sql, [hotkey.to_string()], score)
}

/// Every score of the last epoch that has any, by slot.
pub fn latest_scores(conn: &Connection) -> Result<Vec<ScoreRecord>> {
    let sql = "SELECT epoch, uid, hotkey, score, parts, at_ms FROM score
         WHERE epoch = (SELECT max(epoch) FROM score) ORDER BY uid, hotkey";
    list(conn, sql, [], score)
}

// === specs ===

fn specs(row: &Row<'_>) -> Result<SpecsRecord> {
    Ok(SpecsRecord {
        hotkey: parsed(row, 0)?,
        taken_at_ms: unsigned(row, 1)?,
        block: unsigned(row, 2)?,
        json: from_json(row, 3)?,
    })
}

/// The last specs of every hotkey.
pub fn latest_specs(conn: &Connection) -> Result<Vec<SpecsRecord>> {
    let sql = "SELECT hotkey, taken_at_ms, block, json FROM specs AS s
         WHERE taken_at_ms = (SELECT max(taken_at_ms) FROM specs WHERE hotkey = s.hotkey) ORDER BY hotkey";
    list(conn, sql, [], specs)
}

/// The last specs of one hotkey.
pub fn specs_of(conn: &Connection, hotkey: &Hotkey) -> Result<Option<SpecsRecord>> {
    let sql = "SELECT hotkey, taken_at_ms, block, json FROM specs WHERE hotkey = ?1 ORDER BY taken_at_ms DESC LIMIT 1";
    one(conn, sql, [hotkey.to_string()], specs)
}

// === weights ===

macro_rules! select_weights {
    ($rest:literal) => {
        concat!(
            "SELECT id, epoch, block, entries, at_ms, status, included_block, detail, updated_ms, prepared FROM weights ",
            $rest
        )
    };
}

fn weights(row: &Row<'_>) -> Result<WeightsRow> {
    let label = row.get_ref(5)?.as_str().map_err(|e| bad(5, e))?;
    let status = WeightsStatus::of_label(label).ok_or_else(|| bad(5, format!("{label} is no status of weights")))?;
    let prepared: Option<String> = row.get(9)?;
    let prepared = prepared.map(|text| serde_json::from_str(&text).map_err(|e| bad(9, e))).transpose()?;
    Ok(WeightsRow {
        weights: WeightsRecord {
            id: unsigned(row, 0)?,
            epoch: unsigned(row, 1)?,
            block: unsigned(row, 2)?,
            entries: from_json(row, 3)?,
            prepared,
            at_ms: unsigned(row, 4)?,
        },
        status,
        included_block: maybe_unsigned(row, 6)?,
        detail: row.get(7)?,
        updated_ms: unsigned(row, 8)?,
    })
}

/// Weights of which it is not known yet what becomes of them, oldest first.
pub fn open_weights(conn: &Connection) -> Result<Vec<WeightsRow>> {
    list(conn, select_weights!("WHERE status IN ('pending', 'sent', 'committed') ORDER BY id"), [], weights)
}

/// The newest epoch whose weights are on the chain, or were and are done with: it needs no others. Open ones are not
/// counted.
pub fn settled_weights_epoch(conn: &Connection) -> Result<Option<u64>> {
    let sql = "SELECT max(epoch) FROM weights WHERE status IN ('included', 'revealed', 'missed', 'unequal')";
    conn.query_row(sql, [], |row| maybe_unsigned(row, 0))
}

/// The newest intents, at most `limit`, the newest first.
pub fn recent_weights(conn: &Connection, limit: u32) -> Result<Vec<WeightsRow>> {
    list(conn, select_weights!("ORDER BY id DESC LIMIT ?1"), [limit], weights)
}

/// The last intent, whatever became of it.
pub fn last_weights(conn: &Connection) -> Result<Option<WeightsRow>> {
    one(conn, select_weights!("ORDER BY id DESC LIMIT 1"), [], weights)
}

/// The last weights seen on chain.
pub fn last_included_weights(conn: &Connection) -> Result<Option<WeightsRow>> {
    one(conn, select_weights!("WHERE status IN ('included', 'revealed') ORDER BY id DESC LIMIT 1"), [], weights)
}

/// An id that no stored intent has.
pub fn next_weights_id(conn: &Connection) -> Result<u64> {
    conn.query_row("SELECT coalesce(max(id), 0) + 1 FROM weights", [], |r| unsigned(r, 0))
}

// === leases ===

macro_rules! select_leases {
    ($rest:literal) => {
        concat!(
            "SELECT id, fencing_epoch, role, miner, renter, devices, state, live, expires_at_ms, owner_token_digest, container, json,
                 updated_ms FROM lease ",
            $rest
        )
    };
}

fn lease_row(row: &Row<'_>) -> Result<LeaseRecord> {
    Ok(LeaseRecord {
        id: parsed(row, 0)?,
        fencing_epoch: unsigned(row, 1)?,
        role: parsed(row, 2)?,
        miner: parsed(row, 3)?,
        renter: parsed(row, 4)?,
        devices: from_json(row, 5)?,
        state: row.get(6)?,
        live: row.get(7)?,
        expires_at_ms: unsigned(row, 8)?,
        owner_token_digest: parsed(row, 9)?,
        container: row.get(10)?,
        json: from_json(row, 11)?,
        updated_ms: unsigned(row, 12)?,
    })
}

/// Every lease of this node that still holds its devices: where a start begins.
pub fn live_leases(conn: &Connection, role: super::Role) -> Result<Vec<LeaseRecord>> {
    list(conn, select_leases!("WHERE live = 1 AND role = ?1 ORDER BY id"), [role.label()], lease_row)
}

/// The last `n` leases of this node that no longer hold their devices, the latest change first.
pub fn ended_leases(conn: &Connection, role: super::Role, n: u32) -> Result<Vec<LeaseRecord>> {
    let sql = select_leases!("WHERE live = 0 AND role = ?1 ORDER BY updated_ms DESC, id LIMIT ?2");
    list(conn, sql, params![role.label(), n], lease_row)
}

/// One lease, live or ended.
pub fn lease(conn: &Connection, id: &LeaseId) -> Result<Option<LeaseRecord>> {
    one(conn, select_leases!("WHERE id = ?1"), [id.to_string()], lease_row)
}

/// The last `n` leases of a miner's devices, live ones first, then the latest change first.
pub fn leases_of(conn: &Connection, miner: &Hotkey, n: u32) -> Result<Vec<LeaseRecord>> {
    let sql = select_leases!("WHERE miner = ?1 ORDER BY live DESC, updated_ms DESC, id LIMIT ?2");
    list(conn, sql, params![miner.to_string(), n], lease_row)
}

/// A lease's history, in order.
pub fn lease_events(conn: &Connection, id: &LeaseId) -> Result<Vec<LeaseEventRecord>> {
    let sql = "SELECT lease, seq, event, at_ms FROM lease_event WHERE lease = ?1 ORDER BY seq";
    list(conn, sql, [id.to_string()], |row| {
        Ok(LeaseEventRecord {
            lease: parsed(row, 0)?,
            seq: unsigned(row, 1)?,
            event: from_json(row, 2)?,
            at_ms: unsigned(row, 3)?,
        })
    })
}

// === penalties ===

fn penalty(row: &Row<'_>) -> Result<PenaltyRecord> {
    Ok(PenaltyRecord {
        subject: parsed(row, 0)?,
        reason: row.get(1)?,
        detail: row.get(2)?,
        from_ms: unsigned(row, 3)?,
        until_ms: unsigned(row, 4)?,
    })
}

/// Every penalty that has not ended, the one that ends first first.
pub fn penalties(conn: &Connection, now_ms: u64) -> Result<Vec<PenaltyRecord>> {
    let sql =
        "SELECT subject, reason, detail, from_ms, until_ms FROM penalty WHERE until_ms > ?1 ORDER BY until_ms, subject";
    list(conn, sql, [bound(now_ms)], penalty)
}

/// A hotkey's penalties that have not ended.
pub fn penalties_of(conn: &Connection, hotkey: &Hotkey, now_ms: u64) -> Result<Vec<PenaltyRecord>> {
    let sql = "SELECT subject, reason, detail, from_ms, until_ms FROM penalty WHERE subject = ?1 AND until_ms > ?2 ORDER BY until_ms";
    list(conn, sql, params![hotkey.to_string(), bound(now_ms)], penalty)
}

// === neurons ===

macro_rules! select_neurons {
    ($rest:literal) => {
        concat!("SELECT hotkey, uid, coldkey, first_seen_block, last_seen_block, admission FROM neuron ", $rest)
    };
}

fn neuron(row: &Row<'_>) -> Result<NeuronRow> {
    let admission = match row.get_ref(5)?.as_str_or_null().map_err(|e| bad(5, e))? {
        None => None,
        Some(_) => Some(from_json(row, 5)?),
    };
    Ok(NeuronRow {
        neuron: NeuronEntry { uid: uid(row, 1)?, hotkey: parsed(row, 0)?, coldkey: parsed(row, 2)?, admission },
        first_seen_block: unsigned(row, 3)?,
        last_seen_block: unsigned(row, 4)?,
    })
}

/// A neuron by its key.
pub fn neuron_by_hotkey(conn: &Connection, hotkey: &Hotkey) -> Result<Option<NeuronRow>> {
    one(conn, select_neurons!("WHERE hotkey = ?1"), [hotkey.to_string()], neuron)
}

/// The neuron seen last in a slot.
pub fn neuron_by_uid(conn: &Connection, uid: Uid) -> Result<Option<NeuronRow>> {
    one(conn, select_neurons!("WHERE uid = ?1 ORDER BY last_seen_block DESC LIMIT 1"), [uid.0], neuron)
}

/// The neurons of the last block that was recorded, by slot.
pub fn neurons(conn: &Connection) -> Result<Vec<NeuronRow>> {
    let sql = select_neurons!("WHERE last_seen_block = (SELECT max(last_seen_block) FROM neuron) ORDER BY uid");
    list(conn, sql, [], neuron)
}

// === prover runs, evidence ===

macro_rules! select_runs {
    ($rest:literal) => {
        concat!(
            "SELECT challenge, validator, device, epoch, nonce, n, k, rounds, at_ms, elapsed_ns, outcome, detail FROM prover_run ",
            $rest
        )
    };
}

fn prover_run(row: &Row<'_>) -> Result<ProverRunRecord> {
    Ok(ProverRunRecord {
        challenge: parsed(row, 0)?,
        validator: parsed(row, 1)?,
        device: parsed(row, 2)?,
        epoch: unsigned(row, 3)?,
        nonce: parsed(row, 4)?,
        n: row.get(5)?,
        k: row.get(6)?,
        rounds: row.get(7)?,
        at_ms: unsigned(row, 8)?,
        elapsed_ns: maybe_unsigned(row, 9)?,
        outcome: row.get(10)?,
        detail: row.get(11)?,
    })
}

/// The last `n` runs of this miner's prover, newest first.
pub fn prover_runs(conn: &Connection, n: u32) -> Result<Vec<ProverRunRecord>> {
    list(conn, select_runs!("ORDER BY id DESC LIMIT ?1"), [n], prover_run)
}

/// The runs of the last challenge that a validator sent, by device.
pub fn last_proof(conn: &Connection, validator: &Hotkey) -> Result<Vec<ProverRunRecord>> {
    let sql = select_runs!(
        "WHERE validator = ?1 AND challenge =
             (SELECT challenge FROM prover_run WHERE validator = ?1 ORDER BY id DESC LIMIT 1) ORDER BY device"
    );
    list(conn, sql, [validator.to_string()], prover_run)
}

// === the subnet ===

/// The subnet as it was last read from the chain.
pub fn subnet_view(conn: &Connection) -> Result<Option<SubnetViewRecord>> {
    let read = |row: &Row<'_>| {
        let json = std::sync::Arc::new(from_json(row, 1)?);
        Ok(SubnetViewRecord { block: unsigned(row, 0)?, json, at_ms: unsigned(row, 2)? })
    };
    one(conn, "SELECT block, json, at_ms FROM subnet_view WHERE id = 1", [], read)
}

// === the judge and the evidence log ===

/// What the judge remembered after the last epoch that was stored.
pub fn judge(conn: &Connection) -> Result<Option<JudgeRecord>> {
    let read =
        |row: &Row<'_>| Ok(JudgeRecord { epoch: unsigned(row, 0)?, json: std::sync::Arc::new(from_json(row, 1)?) });
    one(conn, "SELECT epoch, json FROM judge WHERE id = 1", [], read)
}

/// Where the evidence log ends; `None` before its first record.
pub fn evidence_head(conn: &Connection) -> Result<Option<Head>> {
    let read = |row: &Row<'_>| {
        let seq: i64 = row.get(2)?;
        Ok(Head {
            segment: unsigned(row, 0)?,
            bytes: unsigned(row, 1)?,
            seq: u64::try_from(seq).unwrap_or(u64::MAX),
            hash: parsed(row, 3)?,
            epoch: maybe_unsigned(row, 4)?,
        })
    };
    one(conn, "SELECT segment, bytes, seq, hash, epoch FROM evidence_head WHERE id = 1", [], read)
}

#[cfg(test)]
mod tests;
