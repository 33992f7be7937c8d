//! One record → its statements, inside the transaction the writer has opened.

use rusqlite::{Connection, params};
use serde::Serialize;

use super::canaries;
use super::error::StoreError;
use super::records::*;
use crate::evidence::{Head, Log};
use crate::telemetry::error_chain;
use crate::verdict::Verdict;

/// Writes one record. On an error the caller rolls back to before it, in the log too.
pub(super) fn apply_with(conn: &Connection, log: Option<&mut Log>, record: &Record) -> Result<(), StoreError> {
    match record {
        Record::Specs(r) => specs(conn, r),
        Record::Round(r) => round(conn, r),
        Record::RoundClosed { epoch, outcome, at_ms } => round_closed(conn, *epoch, *outcome, *at_ms),
        Record::MemoryRound(r) => memory_round(conn, r),
        Record::MemoryRoundClosed { epoch, verdicts, at_ms } => memory_round_closed(conn, *epoch, verdicts, *at_ms),
        Record::Verdict(r) => verdict(conn, r),
        Record::Score(r) => score(conn, r),
        Record::Weights(r) => weights(conn, r),
        Record::WeightsStatus(r) => weights_status(conn, r),
        Record::Lease(r) => lease(conn, r),
        Record::LeaseEvent(r) => lease_event(conn, r),
        Record::Penalty(r) => penalty(conn, r),
        Record::PenaltyLifted { subject, at_ms } => {
            conn.prepare_cached("UPDATE penalty SET until_ms = ?2 WHERE subject = ?1 AND until_ms > ?2")?
                .execute(params![subject.to_string(), int(*at_ms, "at_ms")?])?;
            Ok(())
        }
        Record::Neurons(r) => neurons(conn, r),
        Record::ProverRun(r) => prover_run(conn, r),
        Record::Evidence(r) => match log {
            Some(log) => log.append(r).map_err(|e| StoreError::Unstorable(error_chain(&e))),
            None => Err(StoreError::Unstorable("this node keeps no evidence log".to_owned())),
        },
        Record::Judge(r) => judge(conn, r),
        Record::Canary(r, key) => canaries::begin(conn, r, key.as_ref()),
        Record::CanaryReleased { id, confirmed } => canaries::released(conn, id, *confirmed),
        Record::CanaryEnded { id, ended_ms, report } => canaries::end(conn, id, *ended_ms, report),
        Record::SubnetView(r) => subnet_view(conn, r),
        Record::Meta { key, value } => {
            conn.prepare_cached(
                "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
            )?
            .execute(params![text(key, "key")?, text(value, "value")?])?;
            Ok(())
        }
        Record::Prune(r) => prune(conn, *r),
        Record::Batch(records) => {
            let mut log = log;
            records.iter().try_for_each(|r| apply_with(conn, log.as_deref_mut(), r))
        }
    }
}

/// [`apply_with`], for a node without an evidence log.
#[cfg(test)]
pub(super) fn apply(conn: &Connection, record: &Record) -> Result<(), StoreError> {
    apply_with(conn, None, record)
}

/// SQLite's integers are signed; none of ours comes near the sign bit, and one that does is a defect worth hearing of.
pub(super) fn int(value: u64, field: &str) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Unstorable(format!("{field} is {value}, above {}", i64::MAX)))
}

pub(super) fn text<'a>(value: &'a str, field: &str) -> Result<&'a str, StoreError> {
    if value.len() > MAX_TEXT {
        return Err(StoreError::Unstorable(format!("{field} has {} bytes, above {MAX_TEXT}", value.len())));
    }
    Ok(value)
}

pub(super) fn json(value: &impl Serialize, field: &str) -> Result<String, StoreError> {
    bounded_json(value, field, MAX_JSON)
}

fn bounded_json(value: &impl Serialize, field: &str, bound: usize) -> Result<String, StoreError> {
    let text = serde_json::to_string(value).map_err(|e| StoreError::Unstorable(format!("{field}: {e}")))?;
    if text.len() > bound {
        return Err(StoreError::Unstorable(format!("{field} has {} bytes of JSON, above {bound}", text.len())));
    }
    Ok(text)
}

fn specs(conn: &Connection, r: &SpecsRecord) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO specs (hotkey, taken_at_ms, block, json) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT DO UPDATE SET block = excluded.block, json = excluded.json",
    )?
    .execute(params![
        r.hotkey.to_string(),
        int(r.taken_at_ms, "taken_at_ms")?,
        int(r.block, "block")?,
        json(&r.json, "specs")?
    ])?;
    // A miner that says something else every time must not fill the disk.
    conn.prepare_cached(
        "DELETE FROM specs WHERE hotkey = ?1 AND taken_at_ms <
             (SELECT taken_at_ms FROM specs WHERE hotkey = ?1 ORDER BY taken_at_ms DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![r.hotkey.to_string(), MAX_SPECS_OF_ONE - 1])?;
    Ok(())
}

fn verdict(conn: &Connection, r: &VerdictRecord) -> Result<(), StoreError> {
    let (detail, evidence) = match &r.verdict {
        Verdict::Pass { evidence } => ("", Some(evidence)),
        Verdict::Fail { detail, .. } | Verdict::Unknown { detail, .. } => (detail.as_str(), None),
    };
    let device = r.device.map(|d| d.to_string()).unwrap_or_default();
    let added = conn
        .prepare_cached(
            "INSERT INTO verdict (epoch, uid, hotkey, device, model, kind, reason, detail, operations, elapsed_ns, samples, block, at_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            int(r.epoch, "epoch")?,
            r.uid.0,
            r.hotkey.to_string(),
            device,
            text(&r.model, "model")?,
            r.verdict.kind(),
            r.verdict.reason(),
            text(detail, "detail")?,
            evidence.map(|e| int(e.operations, "operations")).transpose()?,
            evidence.map(|e| int(e.elapsed_ns, "elapsed_ns")).transpose()?,
            evidence.map(|e| e.samples),
            int(r.block, "block")?,
            int(r.at_ms, "at_ms")?,
        ])?;
    if added == 0 && super::queries::verdict_of(conn, r.epoch, &r.hotkey, r.device)?.as_ref() != Some(r) {
        let (epoch, hotkey) = (r.epoch, r.hotkey);
        return Err(StoreError::Conflict(format!("{hotkey} {device} has another verdict in epoch {epoch}")));
    }
    Ok(())
}

fn round(conn: &Connection, r: &RoundRecord) -> Result<(), StoreError> {
    let (epoch, planned) = (int(r.epoch, "epoch")?, bounded_json(&r.planned, "planned", MAX_PLAN)?);
    let added = conn
        .prepare_cached(
            "INSERT INTO round (epoch, block, planned, at_ms) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute(params![epoch, int(r.block, "block")?, planned, int(r.at_ms, "at_ms")?])?;
    if added == 0 && !super::queries::open_rounds(conn)?.contains(r) {
        return Err(StoreError::Conflict(format!("epoch {epoch} has a round already")));
    }
    Ok(())
}

fn round_closed(conn: &Connection, epoch: u64, outcome: RoundOutcome, at_ms: u64) -> Result<(), StoreError> {
    let (epoch, at_ms) = (int(epoch, "epoch")?, int(at_ms, "at_ms")?);
    conn.prepare_cached(
        "INSERT INTO round (epoch, block, planned, at_ms, outcome, closed_ms) VALUES (?1, 0, '[]', ?3, ?2, ?3)
         ON CONFLICT DO UPDATE SET planned = '[]', outcome = excluded.outcome, closed_ms = excluded.closed_ms
         WHERE outcome IS NULL",
    )?
    .execute(params![epoch, outcome.label(), at_ms])?;
    let stored: String =
        conn.prepare_cached("SELECT outcome FROM round WHERE epoch = ?1")?.query_row([epoch], |row| row.get(0))?;
    if stored != outcome.label() {
        return Err(StoreError::Conflict(format!("the round of epoch {epoch} is closed as {stored}")));
    }
    Ok(())
}

fn memory_round(conn: &Connection, r: &RoundRecord) -> Result<(), StoreError> {
    let (epoch, planned) = (int(r.epoch, "epoch")?, bounded_json(&r.planned, "planned", MAX_PLAN)?);
    let added = conn
        .prepare_cached(
            "INSERT INTO memory_round (epoch, block, planned, at_ms) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute(params![epoch, int(r.block, "block")?, planned, int(r.at_ms, "at_ms")?])?;
    match added {
        0 => Err(StoreError::Conflict(format!("epoch {epoch} has a round of memory proofs already"))),
        _ => Ok(()),
    }
}

fn memory_round_closed(
    conn: &Connection,
    epoch: u64,
    verdicts: &[MemoryVerdictRecord],
    at_ms: u64,
) -> Result<(), StoreError> {
    let changed = conn
        .prepare_cached(
            "UPDATE memory_round SET planned = '[]', closed_ms = ?2, after_round = (SELECT max(epoch) FROM round)
             WHERE epoch = ?1 AND closed_ms IS NULL",
        )?
        .execute(params![int(epoch, "epoch")?, int(at_ms, "at_ms")?])?;
    if changed == 0 {
        return Err(StoreError::Conflict(format!("epoch {epoch} has no open round of memory proofs")));
    }
    let mut add = conn.prepare_cached(
        "INSERT INTO memory_verdict (epoch, uid, hotkey, device, model, kind, reason, detail, blocks, iterations, scans,
             elapsed_ns, samples, block, at_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )?;
    for r in verdicts {
        let (detail, evidence) = match &r.verdict {
            Verdict::Pass { evidence } => ("", Some(evidence)),
            Verdict::Fail { detail, .. } | Verdict::Unknown { detail, .. } => (detail.as_str(), None),
        };
        add.execute(params![
            int(r.epoch, "epoch")?,
            r.uid.0,
            r.hotkey.to_string(),
            r.device.to_string(),
            text(&r.model, "model")?,
            r.verdict.kind(),
            r.verdict.reason(),
            text(detail, "detail")?,
            evidence.map(|e| int(e.size.blocks(), "blocks")).transpose()?,
            evidence.map(|e| e.size.iterations()),
            evidence.map(|e| e.size.scans()),
            evidence.map(|e| int(e.elapsed_ns, "elapsed_ns")).transpose()?,
            evidence.map(|e| e.samples),
            int(r.block, "block")?,
            int(r.at_ms, "at_ms")?,
        ])?;
    }
    Ok(())
}

fn score(conn: &Connection, r: &ScoreRecord) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO score (epoch, hotkey, uid, score, parts, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET uid = excluded.uid, score = excluded.score, parts = excluded.parts, at_ms = excluded.at_ms",
    )?
    .execute(params![
        int(r.epoch, "epoch")?,
        r.hotkey.to_string(),
        r.uid.0,
        int(r.score.0, "score")?,
        json(&r.parts, "parts")?,
        int(r.at_ms, "at_ms")?
    ])?;
    Ok(())
}

fn weights(conn: &Connection, r: &WeightsRecord) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO weights (id, epoch, block, entries, prepared, status, included_block, detail, at_ms, updated_ms)
         VALUES (?1, ?2, ?3, ?4, ?5, 'pending', NULL, '', ?6, ?6)",
    )?
    .execute(params![
        int(r.id, "id")?,
        int(r.epoch, "epoch")?,
        int(r.block, "block")?,
        json(&r.entries, "entries")?,
        r.prepared.as_ref().map(|prepared| json(prepared, "prepared")).transpose()?,
        int(r.at_ms, "at_ms")?
    ])?;
    Ok(())
}

fn weights_status(conn: &Connection, r: &WeightsStatusRecord) -> Result<(), StoreError> {
    let changed = conn
        .prepare_cached(
            "UPDATE weights SET status = ?2, included_block = coalesce(?3, included_block), detail = ?4, updated_ms = ?5 WHERE id = ?1",
        )?
        .execute(params![
            int(r.id, "id")?,
            r.status.label(),
            r.included_block.map(|b| int(b, "included_block")).transpose()?,
            text(&r.detail, "detail")?,
            int(r.at_ms, "at_ms")?
        ])?;
    if changed == 0 {
        return Err(StoreError::Conflict(format!("no weights with id {}", r.id)));
    }
    Ok(())
}

fn lease(conn: &Connection, r: &LeaseRecord) -> Result<(), StoreError> {
    let id = r.id.to_string();
    let miner = r.miner.to_string();
    let changed = conn
        .prepare_cached(
            "INSERT INTO lease (id, fencing_epoch, role, miner, renter, devices, state, live, expires_at_ms, owner_token_digest,
                 container, json, updated_ms)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT DO UPDATE SET fencing_epoch = excluded.fencing_epoch, role = excluded.role, miner = excluded.miner,
                 renter = excluded.renter, devices = excluded.devices, state = excluded.state, live = excluded.live,
                 expires_at_ms = excluded.expires_at_ms, owner_token_digest = excluded.owner_token_digest,
                 container = excluded.container, json = excluded.json, updated_ms = excluded.updated_ms
             WHERE excluded.fencing_epoch >= lease.fencing_epoch",
        )?
        .execute(params![
            id,
            int(r.fencing_epoch, "fencing_epoch")?,
            r.role.label(),
            miner,
            r.renter.to_string(),
            json(&r.devices, "devices")?,
            text(&r.state, "state")?,
            r.live,
            int(r.expires_at_ms, "expires_at_ms")?,
            r.owner_token_digest.to_string(),
            r.container.as_deref().map(|c| text(c, "container")).transpose()?,
            json(&r.json, "lease")?,
            int(r.updated_ms, "updated_ms")?,
        ])?;
    if changed == 0 {
        return Err(StoreError::Conflict(format!(
            "lease {id} is stored with a newer fencing epoch than {}",
            r.fencing_epoch
        )));
    }
    conn.prepare_cached("DELETE FROM lease_device WHERE lease = ?1")?.execute([&id])?;
    if r.live {
        let mut claim = conn.prepare_cached(
            "INSERT INTO lease_device (miner, device, lease) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )?;
        for device in &r.devices {
            if claim.execute(params![miner, device.to_string(), id])? == 0 {
                return Err(StoreError::Conflict(format!(
                    "{device} of {miner} is held by another live lease, or named twice"
                )));
            }
        }
    }
    Ok(())
}

fn lease_event(conn: &Connection, r: &LeaseEventRecord) -> Result<(), StoreError> {
    let id = r.lease.to_string();
    let seq = int(r.seq, "seq")?;
    let event = json(&r.event, "event")?;
    let added = conn
        .prepare_cached(
            "INSERT INTO lease_event (lease, seq, event, at_ms) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
        )?
        .execute(params![id, seq, event, int(r.at_ms, "at_ms")?])?;
    if added == 0 {
        let stored: String = conn
            .prepare_cached("SELECT event FROM lease_event WHERE lease = ?1 AND seq = ?2")?
            .query_row(params![id, seq], |row| row.get(0))?;
        if stored != event {
            return Err(StoreError::Conflict(format!("lease {id} has another event under number {seq}")));
        }
    }
    Ok(())
}

fn penalty(conn: &Connection, r: &PenaltyRecord) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO penalty (subject, reason, detail, from_ms, until_ms) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET detail = excluded.detail, until_ms = excluded.until_ms",
    )?
    .execute(params![
        r.subject.to_string(),
        text(&r.reason, "reason")?,
        text(&r.detail, "detail")?,
        int(r.from_ms, "from_ms")?,
        int(r.until_ms, "until_ms")?
    ])?;
    Ok(())
}

fn neurons(conn: &Connection, r: &NeuronsRecord) -> Result<(), StoreError> {
    let block = int(r.block, "block")?;
    let mut upsert = conn.prepare_cached(
        "INSERT INTO neuron (hotkey, uid, coldkey, first_seen_block, last_seen_block, admission) VALUES (?1, ?2, ?3, ?4, ?4, ?5)
         ON CONFLICT DO UPDATE SET uid = excluded.uid, coldkey = excluded.coldkey, last_seen_block = excluded.last_seen_block,
             admission = excluded.admission
         WHERE excluded.last_seen_block >= neuron.last_seen_block",
    )?;
    for n in &r.neurons {
        let admission = n.admission.as_ref().map(|a| json(a, "admission")).transpose()?;
        upsert.execute(params![n.hotkey.to_string(), n.uid.0, n.coldkey.to_string(), block, admission])?;
    }
    Ok(())
}

fn prover_run(conn: &Connection, r: &ProverRunRecord) -> Result<(), StoreError> {
    let validator = r.validator.to_string();
    conn.prepare_cached(
        "INSERT INTO prover_run (validator, challenge, device, epoch, nonce, n, k, rounds, at_ms, elapsed_ns, outcome, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         ON CONFLICT DO UPDATE SET elapsed_ns = coalesce(excluded.elapsed_ns, elapsed_ns),
             outcome = coalesce(excluded.outcome, outcome), detail = excluded.detail",
    )?
    .execute(params![
        validator,
        r.challenge.to_string(),
        r.device.to_string(),
        int(r.epoch, "epoch")?,
        r.nonce.to_string(),
        r.n,
        r.k,
        r.rounds,
        int(r.at_ms, "at_ms")?,
        r.elapsed_ns.map(|ns| int(ns, "elapsed_ns")).transpose()?,
        r.outcome.as_deref().map(|o| text(o, "outcome")).transpose()?,
        text(&r.detail, "detail")?,
    ])?;
    // A validator that challenges without end must not fill the disk.
    conn.prepare_cached(
        "DELETE FROM prover_run WHERE validator = ?1 AND id <
             (SELECT id FROM prover_run WHERE validator = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![validator, MAX_RUNS_OF_ONE - 1])?;
    Ok(())
}

fn judge(conn: &Connection, r: &JudgeRecord) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO judge (id, epoch, json) VALUES (1, ?1, ?2)
         ON CONFLICT DO UPDATE SET epoch = excluded.epoch, json = excluded.json WHERE excluded.epoch >= judge.epoch",
    )?
    .execute(params![int(r.epoch, "epoch")?, bounded_json(&r.json, "judge", MAX_JUDGE)?])?;
    Ok(())
}

fn subnet_view(conn: &Connection, r: &SubnetViewRecord) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO subnet_view (id, block, json, at_ms) VALUES (1, ?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET block = excluded.block, json = excluded.json, at_ms = excluded.at_ms",
    )?
    .execute(params![int(r.block, "block")?, bounded_json(&r.json, "view", MAX_VIEW)?, int(r.at_ms, "at_ms")?])?;
    Ok(())
}

/// Where the evidence log ends once this transaction is committed.
pub(super) fn evidence_head(conn: &Connection, head: &Head) -> Result<(), StoreError> {
    // A number in SQLite is signed; u64::MAX stands for "before the first record".
    let seq = i64::try_from(head.seq).unwrap_or(-1);
    conn.prepare_cached(
        "INSERT INTO evidence_head (id, segment, bytes, seq, hash, epoch) VALUES (1, ?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET segment = excluded.segment, bytes = excluded.bytes, seq = excluded.seq,
             hash = excluded.hash, epoch = excluded.epoch",
    )?
    .execute(params![
        int(head.segment, "segment")?,
        int(head.bytes, "bytes")?,
        seq,
        head.hash.to_string(),
        head.epoch.map(|e| int(e, "epoch")).transpose()?,
    ])?;
    Ok(())
}

fn prune(conn: &Connection, r: Retention) -> Result<(), StoreError> {
    let epoch = int(r.before_epoch, "before_epoch")?;
    let ms = int(r.before_ms, "before_ms")?;
    for sql in [
        "DELETE FROM verdict WHERE epoch < ?1",
        "DELETE FROM score WHERE epoch < ?1",
        "DELETE FROM round WHERE epoch < ?1 AND outcome IS NOT NULL",
        "DELETE FROM memory_verdict WHERE epoch < ?1",
        "DELETE FROM memory_round WHERE epoch < ?1 AND closed_ms IS NOT NULL",
    ] {
        conn.execute(sql, [epoch])?;
    }
    for sql in [
        "DELETE FROM lease_event WHERE lease IN (SELECT id FROM lease WHERE live = 0 AND updated_ms < ?1)",
        "DELETE FROM lease WHERE live = 0 AND updated_ms < ?1",
        "DELETE FROM weights WHERE status NOT IN ('pending', 'sent', 'committed') AND updated_ms < ?1
             AND id NOT IN (SELECT coalesce(max(id), -1) FROM weights WHERE status IN ('included', 'revealed'))
             AND id <> (SELECT max(id) FROM weights)",
        "DELETE FROM penalty WHERE until_ms < ?1",
        "DELETE FROM prover_run WHERE at_ms < ?1",
        "DELETE FROM canary WHERE begun_ms < ?1 AND ended_ms IS NOT NULL AND held = 0",
        "DELETE FROM canary_device WHERE at_ms < ?1",
        "DELETE FROM specs WHERE taken_at_ms < ?1
             AND taken_at_ms < (SELECT max(s.taken_at_ms) FROM specs s WHERE s.hotkey = specs.hotkey)",
    ] {
        conn.execute(sql, [ms])?;
    }
    Ok(())
}
