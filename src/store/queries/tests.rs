//! What the typed reads promise: everything written reads back as it was, in the order said, with the latest where asked.

use super::super::apply::apply;
use super::super::fixtures::{self as fx, NOW, hotkey};
use super::super::{Role, StoreError, schema};
use super::*;
use crate::admission::Subject;
use crate::ids::{ChallengeId, Coldkey};
use crate::verdict::MemoryVerdict;

fn database() -> Connection {
    let mut conn = Connection::open_in_memory().unwrap();
    for from in 0..schema::LATEST {
        schema::migrate_one(&mut conn, from, NOW).unwrap();
    }
    conn
}

fn write(conn: &Connection, records: impl IntoIterator<Item = Record>) {
    for record in records {
        apply(conn, &record).unwrap_or_else(|e| panic!("{e}: {record:?}"));
    }
}

#[test]
fn every_kind_of_verdict_reads_back_as_it_was_written() {
    let db = database();
    let mut written = Vec::new();
    for (i, reason) in FailReason::ALL.iter().enumerate() {
        written.push(fx::verdict(1, 1, i as u8, Verdict::fail(*reason, "where")));
    }
    for (i, cause) in UnknownCause::ALL.iter().enumerate() {
        written.push(fx::verdict(2, 1, i as u8, Verdict::unknown(*cause, "what")));
    }
    written.push(fx::verdict(3, 1, 0, fx::pass(u64::MAX / 2)));
    write(&db, written.iter().cloned().map(Record::Verdict));
    let mut read = verdicts_since(&db, 0).unwrap();
    read.sort_by_key(|v| (v.epoch, v.device));
    written.sort_by_key(|v| (v.epoch, v.device));
    assert_eq!(read, written);
}

#[test]
fn verdicts_come_newest_first_for_a_miner_and_oldest_first_for_a_rebuild() {
    let db = database();
    let whole = VerdictRecord { device: None, ..fx::verdict(5, 1, 0, Verdict::unknown(UnknownCause::Unreachable, "")) };
    write(&db, (1..5).map(|e| Record::Verdict(fx::verdict(e, 1, 0, fx::pass(e)))));
    write(&db, [Record::Verdict(whole.clone()), Record::Verdict(fx::verdict(4, 2, 0, fx::forged()))]);

    let of_one: Vec<_> = verdicts(&db, &hotkey(1), 3).unwrap();
    assert_eq!(of_one.iter().map(|v| v.epoch).collect::<Vec<_>>(), [5, 4, 3]);
    assert_eq!(of_one[0], whole);
    let rebuild = verdicts_since(&db, 4).unwrap();
    assert_eq!(rebuild.iter().map(|v| (v.epoch, v.uid.0)).collect::<Vec<_>>(), [(4, 1), (4, 2), (5, 1)]);
    let latest = latest_verdicts(&db, &hotkey(1)).unwrap();
    assert_eq!(
        latest.iter().map(|v| (v.device, v.epoch)).collect::<Vec<_>>(),
        [(None, 5), (Some(DeviceId::cpu(0)), 4)]
    );
}

#[test]
fn a_device_is_judged_once_an_epoch_and_what_was_judged_stays() {
    let db = database();
    let first = fx::verdict(1, 1, 0, fx::forged());
    // The same again is a repetition whose first acknowledgement was lost.
    write(&db, [first.clone(), first.clone()].map(Record::Verdict));
    for second in [fx::verdict(1, 1, 0, fx::pass(9)), VerdictRecord { at_ms: first.at_ms + 1, ..first.clone() }] {
        let refused = apply(&db, &Record::Verdict(second));
        assert!(matches!(refused, Err(StoreError::Conflict(_))), "{refused:?}");
    }
    assert_eq!(verdicts(&db, &hotkey(1), 9).unwrap(), [first]);
}

#[test]
fn a_round_is_begun_once_and_closed_once() {
    let db = database();
    let planned = |device| PlannedVerdict {
        uid: Uid(1),
        hotkey: hotkey(1),
        coldkey: Coldkey([7; 32]),
        device,
        model: "cpu-1".into(),
    };
    let planned = vec![planned(None), planned(Some(DeviceId::cpu(3)))];
    let round = |epoch| RoundRecord { epoch, block: 40 + epoch, planned: planned.clone(), at_ms: NOW };
    write(&db, [round(1), round(2), round(2)].map(Record::Round));
    assert_eq!(open_rounds(&db).unwrap(), [round(1), round(2)]);
    assert_eq!(last_judged_epoch(&db).unwrap(), None);
    let other = RoundRecord { at_ms: NOW + 1, ..round(2) };
    assert!(matches!(apply(&db, &Record::Round(other)), Err(StoreError::Conflict(_))));

    let closed = |epoch, outcome| Record::RoundClosed { epoch, outcome, at_ms: NOW };
    write(&db, [closed(2, RoundOutcome::Judged), closed(2, RoundOutcome::Judged), closed(4, RoundOutcome::Void)]);
    assert!(matches!(apply(&db, &closed(2, RoundOutcome::Void)), Err(StoreError::Conflict(_))));
    assert!(matches!(apply(&db, &Record::Round(round(2))), Err(StoreError::Conflict(_))), "no second draw");
    assert_eq!(open_rounds(&db).unwrap(), [round(1)]);
    assert_eq!(last_judged_epoch(&db).unwrap(), Some(4), "an epoch that was void is over too");
    let outcomes = [1, 2, 3, 4].map(|e| round_outcome(&db, e).unwrap());
    assert_eq!(outcomes, [None, Some(RoundOutcome::Judged), None, Some(RoundOutcome::Void)]);

    write(&db, [Record::Prune(Retention { before_epoch: 4, before_ms: 0 })]);
    assert_eq!((open_rounds(&db).unwrap(), round_outcome(&db, 2).unwrap()), (vec![round(1)], None));
}

#[test]
fn the_round_of_a_full_subnet_fits_and_one_without_end_does_not() {
    let db = database();
    let planned = |device: u16, model: usize| PlannedVerdict {
        uid: Uid(u16::MAX),
        hotkey: hotkey(1),
        coldkey: Coldkey([255; 32]),
        device: Some(DeviceId::cpu((device % 16) as u8)),
        model: "\"".repeat(model),
    };
    // 256 miners with 16 devices; each byte of a model may become two in JSON.
    let round = |model| RoundRecord {
        epoch: 1,
        block: 40,
        planned: (0..256 * 16).map(|d| planned(d, model)).collect(),
        at_ms: NOW,
    };
    write(&db, [Record::Round(round(64))]);
    assert_eq!(open_rounds(&db).unwrap(), [round(64)]);
    let refused = apply(&db, &Record::Round(RoundRecord { epoch: 2, ..round(1024) }));
    assert!(matches!(refused, Err(StoreError::Unstorable(_))), "{refused:?}");
}

#[test]
fn a_verdict_nobody_can_read_is_an_error_not_a_gap() {
    let db = database();
    write(&db, [Record::Verdict(fx::verdict(1, 1, 0, fx::forged()))]);
    db.execute("UPDATE verdict SET reason = 'made_up'", []).unwrap();
    let err = verdicts(&db, &hotkey(1), 9).unwrap_err();
    assert!(err.to_string().contains("made_up is no reason of a fail verdict"), "{err}");
}

#[test]
fn scores_are_found_by_epoch_and_by_miner() {
    let db = database();
    write(
        &db,
        [(1, 1, "5"), (2, 1, "6.25"), (2, 3, "12.5"), (1, 4, "1")].map(|(e, m, s)| Record::Score(fx::score(e, m, s))),
    );
    assert_eq!(scores(&db, 1).unwrap(), [fx::score(1, 1, "5"), fx::score(1, 4, "1")]);
    assert_eq!(latest_scores(&db).unwrap(), [fx::score(2, 1, "6.25"), fx::score(2, 3, "12.5")]);
    assert_eq!(latest_score(&db, &hotkey(4)).unwrap(), Some(fx::score(1, 4, "1")));
    assert_eq!(latest_score(&db, &hotkey(5)).unwrap(), None);
}

#[test]
fn a_score_that_the_database_cannot_hold_is_refused() {
    let db = database();
    let high = ScoreRecord { score: Points(u64::MAX), ..fx::score(1, 1, "5") };
    let err = apply(&db, &Record::Score(high)).unwrap_err();
    assert!(matches!(err, StoreError::Unstorable(_)), "{err}");
}

#[test]
fn values_above_their_bounds_are_refused_with_the_bound() {
    let db = database();
    let mut long = fx::verdict(1, 1, 0, fx::pass(1));
    long.model = "m".repeat(MAX_TEXT + 1);
    let mut late = fx::specs(1, u64::MAX, 2);
    let err = apply(&db, &Record::Verdict(long)).unwrap_err();
    assert_eq!(err.to_string(), "the record cannot be stored: model has 16385 bytes, above 16384");
    let err = apply(&db, &Record::Specs(late.clone())).unwrap_err();
    assert!(err.to_string().contains("taken_at_ms is 18446744073709551615"), "{err}");
    late.taken_at_ms = 1;
    late.json = serde_json::Value::String("x".repeat(MAX_JSON));
    let err = apply(&db, &Record::Specs(late)).unwrap_err();
    assert!(err.to_string().contains("specs has 1048578 bytes of JSON"), "{err}");
}

#[test]
fn the_latest_specs_of_each_hotkey_are_given() {
    let db = database();
    write(&db, [(1, 10, 2), (1, 20, 4), (2, 5, 8)].map(|(m, t, c)| Record::Specs(fx::specs(m, t, c))));
    let mut latest = latest_specs(&db).unwrap();
    latest.sort_by_key(|s| s.hotkey);
    assert_eq!(latest, [fx::specs(1, 20, 4), fx::specs(2, 5, 8)]);
    assert_eq!(specs_of(&db, &hotkey(1)).unwrap(), Some(fx::specs(1, 20, 4)));
}

#[test]
fn weights_are_pending_until_their_status_is_known() {
    let db = database();
    assert_eq!(next_weights_id(&db).unwrap(), 1);
    write(&db, (1..=3).map(|id| Record::Weights(fx::weights(id, &[(1, 65535), (2, 100)]))));
    write(
        &db,
        [
            Record::WeightsStatus(fx::weights_status(1, WeightsStatus::Included, Some(250), "0xabc")),
            Record::WeightsStatus(fx::weights_status(2, WeightsStatus::Failed, None, "SettingWeightsTooFast")),
        ],
    );
    assert_eq!(next_weights_id(&db).unwrap(), 4);
    let open = || open_weights(&db).unwrap().iter().map(|w| w.weights.id).collect::<Vec<_>>();
    assert_eq!(open(), [3]);
    let included = last_included_weights(&db).unwrap().unwrap();
    assert_eq!((included.weights, included.included_block), (fx::weights(1, &[(1, 65535), (2, 100)]), Some(250)));
    assert_eq!(last_weights(&db).unwrap().unwrap().weights.id, 3);

    assert_eq!(settled_weights_epoch(&db).unwrap(), Some(41), "a failed intent settles nothing");

    // A commit is open until its end is known, and every status reads back.
    for status in WeightsStatus::ALL {
        write(&db, [Record::WeightsStatus(fx::weights_status(3, status, Some(9), ""))]);
        let row = last_weights(&db).unwrap().unwrap();
        assert_eq!((row.status, row.weights), (status, fx::weights(3, &[(1, 65535), (2, 100)])));
        use WeightsStatus::{Committed, Pending, Sent};
        assert_eq!(open() == [3], [Pending, Sent, Committed].contains(&status), "{status:?}");
    }
    assert_eq!(recent_weights(&db, 2).unwrap().iter().map(|w| w.weights.id).collect::<Vec<_>>(), [3, 2]);

    let again = apply(&db, &Record::Weights(fx::weights(3, &[]))).unwrap_err();
    let nobody = fx::weights_status(77, WeightsStatus::Included, None, "");
    let nobody = apply(&db, &Record::WeightsStatus(nobody)).unwrap_err();
    assert_eq!((again.label(), nobody.label()), ("conflict", "conflict"));
}

#[test]
fn live_leases_and_their_history_come_back() {
    let db = database();
    let (running, released) = (fx::lease(1, 0), fx::ended(fx::lease(2, 1)));
    write(&db, [Record::Lease(running.clone()), Record::Lease(fx::lease(2, 1)), Record::Lease(released.clone())]);
    write(&db, (0..3).map(|n| Record::LeaseEvent(fx::lease_event(1, n, "step"))));
    assert_eq!(live_leases(&db, Role::Miner).unwrap(), std::slice::from_ref(&running));
    assert_eq!(live_leases(&db, Role::Validator).unwrap(), []);
    assert_eq!(lease(&db, &released.id).unwrap(), Some(released.clone()));
    assert_eq!(leases_of(&db, &hotkey(1), 9).unwrap(), [running, released]);
    let events = lease_events(&db, &LeaseId([1; 16])).unwrap();
    assert_eq!(events, (0..3).map(|n| fx::lease_event(1, n, "step")).collect::<Vec<_>>());
}

#[test]
fn an_old_fencing_epoch_never_overwrites_a_newer_one() {
    let db = database();
    let newer = LeaseRecord { fencing_epoch: 5, ..fx::lease(1, 0) };
    let older = LeaseRecord { fencing_epoch: 4, ..fx::ended(fx::lease(1, 0)) };
    write(&db, [Record::Lease(newer.clone())]);
    let err = apply(&db, &Record::Lease(older)).unwrap_err();
    assert!(err.to_string().contains("newer fencing epoch than 4"), "{err}");
    assert_eq!(lease(&db, &newer.id).unwrap(), Some(newer));
}

#[test]
fn a_device_has_one_live_lease_and_is_free_again_when_that_ends() {
    let db = database();
    write(&db, [Record::Lease(fx::lease(1, 0))]);
    let second = Record::Lease(fx::lease(2, 0));
    let err = db_savepoint(&db, &second).unwrap_err();
    assert!(err.to_string().contains("CPU-0 of"), "{err}");
    assert_eq!(lease(&db, &LeaseId([2; 16])).unwrap(), None);

    let elsewhere = LeaseRecord { miner: hotkey(2), ..fx::lease(3, 0) };
    write(&db, [Record::Lease(elsewhere), Record::Lease(fx::ended(fx::lease(1, 0))), second]);
    assert_eq!(live_leases(&db, Role::Miner).unwrap().len(), 2);
}

/// Applies as the writer does: what fails leaves nothing behind.
fn db_savepoint(conn: &Connection, record: &Record) -> std::result::Result<(), StoreError> {
    let tx = conn.unchecked_transaction()?;
    apply(&tx, record)?;
    Ok(tx.commit()?)
}

#[test]
fn the_same_event_again_is_accepted_and_another_one_under_its_number_is_not() {
    let db = database();
    let first = Record::LeaseEvent(fx::lease_event(1, 1, "reserve"));
    write(&db, [first.clone(), first]);
    let err = apply(&db, &Record::LeaseEvent(fx::lease_event(1, 1, "release"))).unwrap_err();
    assert!(err.to_string().contains("another event under number 1"), "{err}");
    assert_eq!(lease_events(&db, &LeaseId([1; 16])).unwrap(), [fx::lease_event(1, 1, "reserve")]);
}

#[test]
fn a_penalty_holds_until_its_end_or_until_it_is_lifted() {
    let db = database();
    write(&db, [(1, 100), (2, 200), (3, 300)].map(|(m, until)| Record::Penalty(fx::penalty(m, 0, until))));
    assert_eq!(penalties(&db, 100).unwrap(), [fx::penalty(2, 0, 200), fx::penalty(3, 0, 300)]);
    write(&db, [Record::PenaltyLifted { subject: hotkey(3).into(), at_ms: 150 }]);
    assert_eq!(penalties(&db, 150).unwrap(), [fx::penalty(2, 0, 200)]);
    assert_eq!(penalties_of(&db, &hotkey(2), 150).unwrap(), [fx::penalty(2, 0, 200)]);
    assert_eq!(penalties_of(&db, &hotkey(3), 150).unwrap(), []);

    let address: Subject = "2001:db8::7".parse().unwrap();
    let of_address = PenaltyRecord { subject: address, ..fx::penalty(1, 0, 500) };
    write(&db, [Record::Penalty(of_address.clone())]);
    assert_eq!(penalties(&db, 150).unwrap(), [fx::penalty(2, 0, 200), of_address]);
    write(&db, [Record::PenaltyLifted { subject: address, at_ms: 160 }]);
    assert_eq!(penalties(&db, 160).unwrap(), [fx::penalty(2, 0, 200)]);
}

#[test]
fn a_slot_belongs_to_whoever_was_seen_in_it_last() {
    let db = database();
    let at = |block, neurons: Vec<NeuronEntry>| Record::Neurons(NeuronsRecord { block, neurons });
    let note = AdmissionNote {
        admitted: false,
        reason: "duplicate_ip".to_owned(),
        text: "another uid has this address".to_owned(),
        remedy: "use an address of its own".to_owned(),
    };
    let refused = NeuronEntry { admission: Some(note), ..fx::neuron(4, 3) };
    write(&db, [at(10, vec![fx::neuron(3, 1), fx::neuron(4, 2)]), at(20, vec![fx::neuron(3, 1), refused.clone()])]);
    write(&db, [at(15, vec![fx::neuron(9, 1)])]); // an answer that was overtaken

    let row = |neuron, first_seen_block, last_seen_block| NeuronRow { neuron, first_seen_block, last_seen_block };
    assert_eq!(neuron_by_uid(&db, Uid(4)).unwrap(), Some(row(refused.clone(), 20, 20)));
    assert_eq!(neuron_by_hotkey(&db, &hotkey(1)).unwrap(), Some(row(fx::neuron(3, 1), 10, 20)));
    assert_eq!(neuron_by_hotkey(&db, &hotkey(2)).unwrap(), Some(row(fx::neuron(4, 2), 10, 10)));
    assert_eq!(neurons(&db).unwrap(), [row(fx::neuron(3, 1), 10, 20), row(refused, 20, 20)]);
}

#[test]
fn prover_runs_and_settings_read_back() {
    let db = database();
    write(&db, [1, 2, 3].map(|n| Record::ProverRun(fx::prover_run(n))));
    write(&db, ["a", "b"].map(|v| Record::Meta { key: "k".to_owned(), value: v.to_owned() }));
    assert_eq!(prover_runs(&db, 2).unwrap(), [fx::prover_run(3), fx::prover_run(2)]);
    assert_eq!(prover_runs(&db, 9).unwrap()[2].challenge, ChallengeId([1; 16]));
    // How a run ended is added to what it began with; the last challenge is the last that began.
    let ended = ProverRunRecord { elapsed_ns: Some(5), outcome: Some("ok".to_owned()), ..fx::prover_run(2) };
    write(&db, [Record::ProverRun(ended.clone())]);
    assert_eq!(prover_runs(&db, 2).unwrap(), [fx::prover_run(3), ended]);
    assert_eq!(last_proof(&db, &hotkey(9)).unwrap(), [fx::prover_run(3)]);
    assert_eq!(last_proof(&db, &hotkey(1)).unwrap(), []);
    assert_eq!(meta(&db, "k").unwrap().as_deref(), Some("b"));
    assert_eq!(meta(&db, "none").unwrap(), None);
}

#[test]
fn the_judges_memory_is_never_replaced_by_an_earlier_one() {
    let db = database();
    let record = |epoch: u64| JudgeRecord { epoch, json: std::sync::Arc::new(serde_json::json!({ "after": epoch })) };
    assert_eq!(judge(&db).unwrap(), None);
    for epoch in [4, 5, 3] {
        write(&db, [Record::Judge(record(epoch))]);
    }
    assert_eq!(judge(&db).unwrap(), Some(record(5)));
}

#[test]
fn the_last_view_of_the_subnet_replaces_the_one_before_and_has_a_bound() {
    let db = database();
    let record = |block: u64, text: &str| {
        let json = std::sync::Arc::new(serde_json::json!({ "neurons": text }));
        SubnetViewRecord { block, json, at_ms: NOW + block }
    };
    assert_eq!(subnet_view(&db).unwrap(), None);
    // Also by an earlier block: the chain may have been set back.
    for block in [4, 5, 3] {
        write(&db, [Record::SubnetView(record(block, "a few"))]);
        assert_eq!(subnet_view(&db).unwrap(), Some(record(block, "a few")));
    }
    let error = apply(&db, &Record::SubnetView(record(6, &"x".repeat(MAX_VIEW)))).unwrap_err();
    assert!(matches!(error, StoreError::Unstorable(_)), "{error}");
    assert_eq!(subnet_view(&db).unwrap(), Some(record(3, "a few")));
}

#[test]
fn the_last_epochs_are_found_also_where_the_chain_began_to_count_anew() {
    let db = database();
    let judged = |epoch: u64| {
        let round = RoundRecord { epoch, block: epoch, planned: Vec::new(), at_ms: NOW };
        let closed = Record::RoundClosed { epoch, outcome: RoundOutcome::Judged, at_ms: NOW };
        write(&db, [Record::Round(round), closed]);
    };
    assert_eq!(since_epochs(&db, 3).unwrap(), None);
    (100..=120).for_each(judged);
    assert_eq!(since_epochs(&db, 3).unwrap(), Some(118));
    // The upgrade: what was judged before it is still among the last ten.
    (0..4).for_each(|n| judged(STATEFUL_EPOCHS + n));
    assert_eq!(since_epochs(&db, 10).unwrap(), Some(115));
    assert_eq!(since_epochs(&db, 3).unwrap(), Some(STATEFUL_EPOCHS + 1));
    assert_eq!(since_epochs(&db, 2_000).unwrap(), Some(0), "there are not so many");
}

#[test]
fn pruning_forgets_the_old_and_never_what_a_node_still_needs() {
    let db = database();
    for epoch in 1..=4 {
        write(&db, [Record::Verdict(fx::verdict(epoch, 1, 0, fx::pass(1))), Record::Score(fx::score(epoch, 1, "1"))]);
    }
    write(&db, [Record::Lease(fx::lease(1, 0)), Record::Lease(fx::ended(fx::lease(2, 1)))]);
    write(&db, [1, 2].map(|l| Record::LeaseEvent(fx::lease_event(l, 1, "step"))));
    write(&db, (1..=4).map(|id| Record::Weights(fx::weights(id, &[]))));
    write(&db, [1, 2, 4].map(|id| Record::WeightsStatus(fx::weights_status(id, WeightsStatus::Included, None, ""))));
    write(&db, [10, 20].map(|t| Record::Specs(fx::specs(1, t, 1))));
    write(&db, [Record::Penalty(fx::penalty(1, 0, NOW)), Record::Penalty(fx::penalty(2, 0, NOW * 2))]);
    write(&db, [Record::ProverRun(fx::prover_run(1))]);

    write(&db, [Record::Prune(Retention { before_epoch: 3, before_ms: NOW + 1_000 })]);
    assert_eq!(verdicts_since(&db, 0).unwrap().iter().map(|v| v.epoch).collect::<Vec<_>>(), [3, 4]);
    assert_eq!((scores(&db, 2).unwrap().len(), scores(&db, 3).unwrap().len()), (0, 1));
    assert_eq!(live_leases(&db, Role::Miner).unwrap().len(), 1);
    assert_eq!(lease(&db, &LeaseId([2; 16])).unwrap(), None);
    assert_eq!(lease_events(&db, &LeaseId([1; 16])).unwrap().len(), 1);
    assert_eq!(lease_events(&db, &LeaseId([2; 16])).unwrap().len(), 0);
    assert_eq!(open_weights(&db).unwrap().len(), 1);
    assert_eq!(last_included_weights(&db).unwrap().unwrap().weights.id, 4);
    assert_eq!(next_weights_id(&db).unwrap(), 5);
    assert_eq!(latest_specs(&db).unwrap(), [fx::specs(1, 20, 1)]);
    assert_eq!(penalties(&db, 0).unwrap(), [fx::penalty(2, 0, NOW * 2)]);
    assert_eq!(prover_runs(&db, 9).unwrap().len(), 0);
}

#[test]
fn a_validator_that_challenges_without_end_fills_a_bounded_room() {
    let db = database();
    let run = |i: u32| {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&i.to_le_bytes());
        Record::ProverRun(ProverRunRecord { challenge: ChallengeId(id), ..fx::prover_run(1) })
    };
    write(&db, (0..MAX_RUNS_OF_ONE + 8).map(run));
    write(&db, [Record::ProverRun(ProverRunRecord { validator: hotkey(1), ..fx::prover_run(1) })]);
    let runs = prover_runs(&db, 10_000).unwrap();
    assert_eq!(runs.len() as u32, MAX_RUNS_OF_ONE + 1);
    assert!(runs.iter().all(|r| u32::from_le_bytes([
        r.challenge.0[0],
        r.challenge.0[1],
        r.challenge.0[2],
        r.challenge.0[3]
    ]) >= 8));
}

#[test]
fn a_miner_that_says_something_else_every_time_fills_a_bounded_room() {
    let db = database();
    let of = |miner| (1..=100).map(move |t| Record::Specs(fx::specs(miner, t, t as u32)));
    write(&db, of(1).chain(of(2).take(3)));
    let count = |miner| -> u32 {
        db.query_row("SELECT count(*) FROM specs WHERE hotkey = ?1", [hotkey(miner).to_string()], |r| r.get(0)).unwrap()
    };
    assert_eq!((count(1), count(2)), (MAX_SPECS_OF_ONE, 3));
    assert_eq!(specs_of(&db, &hotkey(1)).unwrap(), Some(fx::specs(1, 100, 100)));
}

fn memory_verdict(epoch: u64, device: u8, verdict: MemoryVerdict) -> MemoryVerdictRecord {
    MemoryVerdictRecord {
        epoch,
        uid: Uid(1),
        hotkey: hotkey(1),
        device: DeviceId::cpu(device),
        model: "cpu-1".to_owned(),
        verdict,
        block: epoch * 6,
        at_ms: NOW + epoch,
    }
}

fn memory_round(epoch: u64) -> RoundRecord {
    RoundRecord { epoch, block: epoch * 6, planned: Vec::new(), at_ms: NOW }
}

#[test]
fn verdicts_on_memory_read_back_with_the_round_of_work_that_had_begun_before_them() {
    let db = database();
    let size = memory::Size::new(1 << 32, 256, 4096).unwrap();
    let pass = Verdict::Pass { evidence: memory::Evidence { size, elapsed_ns: u64::MAX / 4, samples: 66 } };
    let fail = Verdict::fail(FailReason::MemoryMismatch, "CPU-1, scan 0, block 7");
    let unknown = Verdict::unknown(UnknownCause::Busy, "until then");
    let close = |epoch, verdicts: &[MemoryVerdictRecord]| Record::MemoryRoundClosed {
        epoch,
        verdicts: verdicts.to_vec(),
        at_ms: NOW,
    };
    let first = [memory_verdict(7, 0, pass), memory_verdict(7, 1, fail)];
    let second = [memory_verdict(9, 0, unknown)];
    write(&db, [Record::MemoryRound(memory_round(7)), close(7, &first)]);
    assert_eq!(last_memory_epoch(&db).unwrap(), Some(7));
    write(&db, [Record::Round(memory_round(9)), Record::MemoryRound(memory_round(9))]);
    assert_eq!((open_memory_rounds(&db).unwrap(), last_memory_epoch(&db).unwrap()), (vec![memory_round(9)], Some(9)));
    write(&db, [Record::Round(memory_round(10)), close(9, &second)]);
    assert_eq!(open_memory_rounds(&db).unwrap(), []);

    let row = |record: &MemoryVerdictRecord, after_round| MemoryVerdictRow { record: record.clone(), after_round };
    let all = [row(&first[0], None), row(&first[1], None), row(&second[0], Some(10))];
    assert_eq!(memory_history(&db, 2).unwrap(), all);
    assert_eq!(memory_history(&db, 1).unwrap(), all[2..], "the last rounds");
    write(&db, [Record::Prune(Retention { before_epoch: 9, before_ms: 0 })]);
    assert_eq!(memory_history(&db, 2).unwrap(), all[2..]);
}

#[test]
fn an_epoch_has_one_round_of_memory_proofs_and_it_is_closed_once() {
    let db = database();
    let close = Record::MemoryRoundClosed { epoch: 7, verdicts: Vec::new(), at_ms: NOW };
    let conflicts = |record: &Record| matches!(apply(&db, record), Err(StoreError::Conflict(_)));
    assert!(conflicts(&close), "it was not begun");
    write(&db, [Record::MemoryRound(memory_round(7))]);
    assert!(conflicts(&Record::MemoryRound(memory_round(7))), "nor is the same one begun again");
    write(&db, [close.clone()]);
    assert!(conflicts(&close) && conflicts(&Record::MemoryRound(memory_round(7))));
}
