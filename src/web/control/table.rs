//! The table: what the validator's actors say of each neuron, put together row by row.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::ValidatorActors;
use super::api::{Table, TableLease, TableRow};
use crate::ids::{Hotkey, Uid};
use crate::messages::blacklist_guard::AdmitMiners;
use crate::messages::chain_watcher::ChainView;
use crate::messages::validator::allocation_manager::ListLeases;
use crate::messages::validator::challenge_runner::LastJudged;
use crate::messages::validator::memory_runner::LastMemory;
use crate::messages::validator::weight_setter::GetScoreboard;
use crate::verdict::Verdict;

/// How long an actor may take to answer for the table.
const ASK: Duration = Duration::from_millis(800);

/// The table now; what an actor does not say in time is left empty.
pub async fn read_table(actors: &ValidatorActors, chain: &watch::Receiver<Option<Arc<ChainView>>>) -> Table {
    let (admitted, judged, memory, board, leases) = tokio::join!(
        actors.guard.ask(AdmitMiners, ASK),
        actors.challenges.ask(LastJudged, ASK),
        actors.memory.ask(LastMemory, ASK),
        actors.weights.ask(GetScoreboard, ASK),
        actors.allocations.ask(ListLeases, ASK),
    );
    let mut rows: BTreeMap<Hotkey, TableRow> = BTreeMap::new();
    for (uid, hotkey, admitted) in admitted.unwrap_or_default() {
        let row = rows.entry(hotkey).or_insert_with(|| empty(uid, hotkey));
        if let Err(refusal) = admitted {
            row.verdict = format!("refused: {}", refusal.label());
        }
    }
    let judged = judged.ok().flatten();
    for miner in judged.iter().flat_map(|j| j.miners.iter()) {
        let row = rows.entry(miner.hotkey).or_insert_with(|| empty(miner.uid, miner.hotkey));
        let first = miner.devices.first();
        row.devices = miner.devices.len();
        row.model = first.map(|d| d.model.clone());
        row.verdict = match (&miner.refused, &miner.whole, first) {
            (Some(refusal), ..) => format!("refused: {}", refusal.label()),
            (None, Some(verdict), _) => show(verdict),
            (None, None, Some(device)) if device.kept_rate.is_some() => "leased, last pass counts".to_owned(),
            (None, None, Some(device)) => show(&device.verdict),
            (None, None, None) => String::new(),
        };
        row.rate = first.and_then(|d| match &d.verdict {
            Verdict::Pass { evidence } => Some(evidence.rate()),
            _ => d.kept_rate,
        });
    }
    let board = board.unwrap_or_default();
    for score in &board.rows {
        let row = rows.entry(score.hotkey).or_insert_with(|| empty(score.uid, score.hotkey));
        row.score = Some(score.score.total);
        row.weight = Some(board.weights.iter().find(|(uid, _)| *uid == score.uid).map_or(0, |(_, w)| *w));
    }
    for lease in leases.unwrap_or_default() {
        if let Some(row) = rows.get_mut(&lease.miner) {
            let (id, state, devices) = (lease.id, lease.state.label().to_owned(), lease.devices);
            row.leases.push(TableLease { id, state, devices });
        }
    }
    let mut rows: Vec<TableRow> = rows.into_values().collect();
    rows.sort_by_key(|row| (row.uid, row.hotkey));
    rows.iter_mut().for_each(|row| row.leases.sort_by_key(|lease| lease.id));
    Table {
        block: chain.borrow().as_ref().map(|view| view.metagraph.head.number),
        judged: judged.map(|j| j.epoch),
        on_chain: board.epoch_on_chain,
        memory: memory.ok().flatten(),
        problem: board.problem.clone(),
        rows,
    }
}

fn empty(uid: Uid, hotkey: Hotkey) -> TableRow {
    TableRow {
        uid,
        hotkey,
        model: None,
        devices: 0,
        verdict: String::new(),
        rate: None,
        score: None,
        weight: None,
        leases: Vec::new(),
    }
}

fn show(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass { .. } => "pass".to_owned(),
        other => format!("{}: {}", other.kind(), other.reason()),
    }
}
