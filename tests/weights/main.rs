//! Weights arrive once, by every way the chain takes them: a whole validator on a chain that takes, loses and hides them,
//! and on a ledger with commit and reveal; ended and started again in between.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

#[expect(dead_code, unused_imports, reason = "shared with other tests")]
#[path = "../common/mod.rs"]
mod common;
mod scripted;
mod subnet;

use std::collections::BTreeSet;

use common::{inside, metrics, settings, until};
use compute_subnet::chain::PreparedWeights;
use compute_subnet::ids::BlockNumber;
use compute_subnet::settings::{Settings, WeightsMode};
use compute_subnet::store::records::{WeightsRow, WeightsStatus};
use scripted::Fate;
use subnet::{Subnet, rows};

fn ended(rows: &[WeightsRow], status: WeightsStatus) -> Vec<&WeightsRow> {
    rows.iter().filter(|row| row.status == status).collect()
}

/// No epoch's weights are on the chain twice: each row that arrived is of an epoch of its own.
fn once_each(rows: &[WeightsRow]) {
    use WeightsStatus::{Failed, Shadow};
    let arrived: Vec<u64> =
        rows.iter().filter(|row| ![Failed, Shadow].contains(&row.status)).map(|row| row.weights.epoch).collect();
    let distinct: BTreeSet<u64> = arrived.iter().copied().collect();
    assert_eq!(distinct.len(), arrived.len(), "{arrived:?}");
}

/// Everything that arrived was written before, and arrived once. The last that was written may not have been sent.
fn arrived_once(arrived: &[(BlockNumber, PreparedWeights)], rows: &[WeightsRow]) {
    let mut written: Vec<&PreparedWeights> = rows.iter().filter_map(|row| row.weights.prepared.as_ref()).collect();
    for (block, prepared) in arrived {
        let at = written.iter().position(|of| *of == prepared);
        written.remove(at.unwrap_or_else(|| panic!("sent twice, or never written: block {block}, {prepared:?}")));
    }
}

fn quick(dir: &std::path::Path) -> Settings {
    let mut settings = settings(dir);
    settings.devnet.block_time = std::time::Duration::from_millis(50);
    settings
}

// === a scripted chain ===

#[test]
fn timelocked_weights_are_committed_once_each_and_count_when_the_chain_has_opened_them() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let net = Subnet::start(dir.path(), quick(dir.path()), runtime).await;
        let (mut validator, script) = net.scripted(true);
        until("three commits were opened", async || {
            (ended(&rows(dir.path()), WeightsStatus::Revealed).len() >= 3).then_some(())
        })
        .await;
        let measured = metrics(validator.web()).await;
        assert!(measured["compute_weights_ended_total{outcome=\"revealed\"}"] >= 3.0);
        assert_eq!(measured["compute_weights_ended_total{outcome=\"missed\"}"], 0.0);
        assert_eq!(measured["compute_hotkey_conflict"], 0.0, "a commit moves the update, not the weights");
        validator.end().await;
        once_each(&rows(dir.path()));
        let script = script.lock().unwrap();
        assert_eq!(script.arrived.len(), script.sent.len());
    });
}

#[test]
fn a_commit_that_the_chain_cannot_open_is_missed_told_and_not_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let net = Subnet::start(dir.path(), quick(dir.path()), runtime).await;
        let (mut validator, script) = net.scripted(true);
        script.lock().unwrap().opens = false;
        until("two commits were missed", async || {
            (ended(&rows(dir.path()), WeightsStatus::Missed).len() >= 2).then_some(())
        })
        .await;
        assert!(metrics(validator.web()).await["compute_weights_ended_total{outcome=\"missed\"}"] >= 2.0);
        let all = rows(dir.path());
        let missed = ended(&all, WeightsStatus::Missed)[0];
        assert!(missed.detail.contains("check this machine's clock"), "{}", missed.detail);
        // The next ones are of newer boards only; and can be opened again.
        script.lock().unwrap().opens = true;
        until("one is opened", async || (!ended(&rows(dir.path()), WeightsStatus::Revealed).is_empty()).then_some(()))
            .await;
        validator.end().await;
        once_each(&rows(dir.path()));
    });
}

#[test]
fn weights_are_sent_once_even_if_the_answer_is_lost() {
    for timelocked in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        inside(async |runtime| {
            let net = Subnet::start(dir.path(), quick(dir.path()), runtime).await;
            let (mut validator, script) = net.scripted(timelocked);
            script.lock().unwrap().fate = Fate::AnswerLost;
            let done = if timelocked { WeightsStatus::Revealed } else { WeightsStatus::Included };
            until("three arrived all the same", async || (ended(&rows(dir.path()), done).len() >= 3).then_some(()))
                .await;
            validator.end().await;
            let (all, script) = (rows(dir.path()), script.lock().unwrap());
            once_each(&all);
            arrived_once(&script.arrived, &all);
        });
    }
}

#[test]
fn weights_that_were_lost_on_their_way_are_sent_anew_only_when_the_old_ones_cannot_come_any_more() {
    for timelocked in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        inside(async |runtime| {
            let net = Subnet::start(dir.path(), quick(dir.path()), runtime).await;
            let (mut validator, script) = net.scripted(timelocked);
            script.lock().unwrap().fate = Fate::Lost;
            until("weights were lost, and given up", async || (script.lock().unwrap().sent.len() >= 2).then_some(()))
                .await;
            let sent = script.lock().unwrap().sent.clone();
            // 16 blocks for the sending, and the four that a call lives.
            let at = rows(dir.path()).first().unwrap().weights.block;
            assert!(sent[1] - at > 20, "prepared in block {at}, sent in {sent:?}");
            script.lock().unwrap().fate = Fate::Taken;
            until("they arrive", async || {
                let all = rows(dir.path());
                let done = if timelocked { WeightsStatus::Revealed } else { WeightsStatus::Included };
                (!ended(&all, done).is_empty()).then_some(())
            })
            .await;
            validator.end().await;
            let all = rows(dir.path());
            once_each(&all);
            assert!(ended(&all, WeightsStatus::Failed)[0].detail.contains("too old to be included"), "{all:?}");
        });
    }
}

#[test]
fn a_validator_that_ended_while_weights_were_on_their_way_neither_forgets_nor_repeats_them() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let net = Subnet::start(dir.path(), quick(dir.path()), runtime).await;
        let (mut validator, script) = net.scripted(true);
        script.lock().unwrap().fate = Fate::AnswerLost;
        let chain = validator.chain();
        for round in 1..=3 {
            // Ended after the commit and before its reveal.
            until("a commit waits", async || {
                let all = rows(dir.path());
                all.last().is_some_and(|row| row.status == WeightsStatus::Committed).then_some(())
            })
            .await;
            let waiting = rows(dir.path()).last().unwrap().weights.clone();
            assert!(waiting.prepared.is_some());
            validator.end().await;
            validator = net.validator(chain.clone());
            until("it is opened and known", async || {
                let all = rows(dir.path());
                let row = all.iter().find(|row| row.weights.id == waiting.id)?;
                (row.status == WeightsStatus::Revealed).then_some(())
            })
            .await;
            assert!(ended(&rows(dir.path()), WeightsStatus::Revealed).len() >= round);
        }
        validator.end().await;
        let all = rows(dir.path());
        once_each(&all);
        arrived_once(&script.lock().unwrap().arrived, &all);
        assert!(ended(&all, WeightsStatus::Missed).is_empty(), "{all:?}");
    });
}

// === the ledger ===

#[test]
fn a_subnet_with_commit_and_reveal_pays_by_hashed_weights_also_across_a_restart_in_between() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let mut settings = settings(dir.path());
        settings.devnet.commit_reveal = true;
        let net = Subnet::start(dir.path(), settings, runtime).await;
        let mut validator = net.validator(net.ledger_chain());
        until("two commits were revealed", async || {
            (ended(&rows(dir.path()), WeightsStatus::Revealed).len() >= 2).then_some(())
        })
        .await;
        let own = net.shown();
        assert_eq!(own.entries.len(), 1, "one miner is paid");
        until("the ledger turns them into incentive", async || (net.incentive() == 65_535).then_some(())).await;

        // Restarted between commit and reveal, as soon as the ledger has the commit.
        let waiting = until("a commit waits", async || net.shown().commits.first().copied()).await;
        validator.end().await;
        validator = net.validator(net.ledger_chain());
        until("it is revealed", async || {
            let all = rows(dir.path());
            let of = |row: &&WeightsRow| row.weights.prepared.as_ref().unwrap().digest() == Some(waiting.digest);
            (all.iter().find(of)?.status == WeightsStatus::Revealed).then_some(())
        })
        .await;
        let measured = metrics(validator.web()).await;
        assert_eq!(measured["compute_hotkey_conflict"], 0.0);
        assert_eq!(measured["compute_weights_ended_total{outcome=\"missed\"}"], 0.0);
        validator.end().await;
        once_each(&rows(dir.path()));
        // What the log and the pages say holds no salt.
        let all = rows(dir.path());
        assert!(all.iter().all(|row| !format!("{row:?}").contains("salt")));
    });
}

#[test]
fn in_shadow_nothing_is_sent_and_every_epoch_is_compared_with_what_the_chain_shows() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime| {
        let mut settings = settings(dir.path());
        settings.weights.mode = WeightsMode::Shadow;
        let net = Subnet::start(dir.path(), settings, runtime).await;
        let chain = net.ledger_chain();
        let mut validator = net.validator(chain.clone());
        until("two epochs are stored", async || {
            (ended(&rows(dir.path()), WeightsStatus::Shadow).len() >= 2).then_some(())
        })
        .await;
        assert!(net.shown().entries.is_empty(), "nothing is sent");
        // The one that sets: it says something else.
        let others =
            compute_subnet::chain::Weights { entries: vec![(net.uid_of_validator(), 65_535)], version_key: 183 };
        chain.set_weights(&others).await.unwrap();
        let distance = format!("compute_weights_divergence{{validator_uid=\"{}\"}}", net.uid_of_validator());
        until("the difference is measured", async || {
            let measured = metrics(validator.web()).await;
            (measured.get(&distance).copied()? == 1.0).then_some(())
        })
        .await;
        let board = validator.board().await;
        let comparison = board.comparison.as_ref().unwrap();
        assert_eq!(comparison.validators.len(), 1);
        assert_eq!(comparison.validators[0].worst().unwrap().1.abs(), 1_000_000_000);
        validator.end().await;
        let all = rows(dir.path());
        assert!(all.iter().all(|row| row.status == WeightsStatus::Shadow && row.weights.prepared.is_some()), "{all:?}");
    });
}
