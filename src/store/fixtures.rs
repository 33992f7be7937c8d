//! Records for tests, as short as their differences.

use serde_json::json;

use super::Role;
use super::records::*;
use crate::chain::{PreparedWeights, Route, Weights};
use crate::ids::{ChallengeId, Coldkey, DeviceId, Hash32, Hotkey, LeaseId, Uid};
use crate::scoring::{Points, Scaling};
use crate::verdict::{FailReason, PassEvidence, Verdict};

pub(super) const NOW: u64 = 1_790_000_000_123;

pub(super) fn hotkey(n: u8) -> Hotkey {
    Hotkey([n; 32])
}

pub(super) fn verdict(epoch: u64, miner: u8, device: u8, verdict: Verdict) -> VerdictRecord {
    VerdictRecord {
        epoch,
        uid: Uid(u16::from(miner)),
        hotkey: hotkey(miner),
        device: Some(DeviceId::cpu(device)),
        model: "cpu-1".to_owned(),
        verdict,
        block: epoch * 6,
        at_ms: NOW + epoch,
    }
}

pub(super) fn pass(operations: u64) -> Verdict {
    Verdict::Pass { evidence: PassEvidence { operations, elapsed_ns: 500_000_000, samples: 66 } }
}

pub(super) fn forged() -> Verdict {
    Verdict::fail(FailReason::EntryMismatch, "CPU-0, round 0, tile 12, entry 7: 41 is not 40")
}

pub(super) fn lease(id: u8, device: u8) -> LeaseRecord {
    LeaseRecord {
        id: LeaseId([id; 16]),
        fencing_epoch: 1,
        role: Role::Miner,
        miner: hotkey(1),
        renter: hotkey(9),
        devices: vec![DeviceId::cpu(device)],
        state: "running".to_owned(),
        live: true,
        expires_at_ms: NOW + 3_600_000,
        owner_token_digest: Hash32([7; 32]),
        container: Some("c0ffee".to_owned()),
        json: json!({"step": 1}),
        updated_ms: NOW,
    }
}

pub(super) fn ended(mut lease: LeaseRecord) -> LeaseRecord {
    lease.live = false;
    lease.state = "released".to_owned();
    lease
}

pub(super) fn lease_event(lease: u8, seq: u64, event: &str) -> LeaseEventRecord {
    LeaseEventRecord { lease: LeaseId([lease; 16]), seq, event: json!({ "event": event }), at_ms: NOW + seq }
}

/// Points as a person writes them.
pub(super) fn points(text: &str) -> Points {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    Points(format!("{whole}{part:0<9}").parse().unwrap())
}

/// A table whose best device has base 2: a scaling of 6.25.
pub(super) const SCALING: Scaling = Scaling { max_devices: 8, max_base_micro: 2_000_000 };

pub(super) fn score(epoch: u64, miner: u8, total: &str) -> ScoreRecord {
    let total = points(total);
    let parts =
        ScoreParts { devices: Vec::new(), scaling: SCALING, gpu: total, bonus: Points(0), total, notes: Vec::new() };
    ScoreRecord { epoch, uid: Uid(u16::from(miner)), hotkey: hotkey(miner), score: total, parts, at_ms: NOW + epoch }
}

pub(super) fn weights(id: u64, entries: &[(u8, u16)]) -> WeightsRecord {
    let entry = |(miner, weight): &(u8, u16)| WeightEntry {
        uid: Uid(u16::from(*miner)),
        hotkey: hotkey(*miner),
        weight: *weight,
    };
    WeightsRecord {
        id,
        epoch: 40 + id,
        block: 240 + 6 * id,
        entries: entries.iter().map(entry).collect(),
        prepared: Some(PreparedWeights {
            weights: Weights {
                entries: entries.iter().map(|(m, w)| (Uid(u16::from(*m)), *w)).collect(),
                version_key: 183,
            },
            mechanism: 0,
            route: Route::Hashed { salt: vec![1, 65_535], hash: Hash32([id as u8; 32]) },
            at: 240 + 6 * id,
            reveal: Some((300, 306)),
        }),
        at_ms: NOW + id,
    }
}

pub(super) fn weights_status(id: u64, status: WeightsStatus, block: Option<u64>, detail: &str) -> WeightsStatusRecord {
    WeightsStatusRecord { id, status, included_block: block, detail: detail.to_owned(), at_ms: NOW + 100 + id }
}

pub(super) fn penalty(miner: u8, from_ms: u64, until_ms: u64) -> PenaltyRecord {
    PenaltyRecord {
        subject: hotkey(miner).into(),
        reason: "forged_proof".to_owned(),
        detail: "epoch 40".to_owned(),
        from_ms,
        until_ms,
    }
}

pub(super) fn specs(miner: u8, taken_at_ms: u64, cpus: u32) -> SpecsRecord {
    SpecsRecord { hotkey: hotkey(miner), taken_at_ms, block: 5, json: json!({"cpu": {"count": cpus}}) }
}

pub(super) fn neuron(uid: u16, miner: u8) -> NeuronEntry {
    NeuronEntry { uid: Uid(uid), hotkey: hotkey(miner), coldkey: Coldkey([100 + miner; 32]), admission: None }
}

/// Something that is not synced by itself, of this size: the verdict of an epoch of its own.
pub(super) fn telemetry(n: u64, bytes: usize) -> Record {
    Record::Verdict(verdict(n, 1, 0, Verdict::fail(FailReason::EntryMismatch, "x".repeat(bytes))))
}

pub(super) fn prover_run(n: u8) -> ProverRunRecord {
    ProverRunRecord {
        challenge: ChallengeId([n; 16]),
        validator: hotkey(9),
        device: DeviceId::cpu(0),
        epoch: 41,
        nonce: Hash32([n; 32]),
        n: 128,
        k: 64,
        rounds: 2,
        at_ms: NOW + u64::from(n),
        elapsed_ns: None,
        outcome: None,
        detail: String::new(),
    }
}
