//! The devnet's table: one row a miner, as the validator sees it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::devnet::{Devnet, DevnetMiner};
use crate::actors::blacklist_guard::BlacklistGuard;
use crate::actors::validator::allocation_manager::AllocationManager;
use crate::actors::validator::challenge_runner::ChallengeRunner;
use crate::actors::validator::weight_setter::WeightSetter;
use crate::ids::{BlockNumber, Epoch, Hotkey, Uid};
use crate::messages::blacklist_guard::AdmitMiners;
use crate::messages::validator::allocation_manager::ListLeases;
use crate::messages::validator::challenge_runner::LastJudged;
use crate::messages::validator::weight_setter::GetScoreboard;
use crate::runtime::Handle;
use crate::scoring::{Points, decimal};
use crate::verdict::Verdict;

/// How long an actor may take to answer for the table.
const ASK: Duration = Duration::from_millis(800);

/// One miner in the table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// Its uid, once registered.
    pub uid: Option<Uid>,
    /// Its name.
    pub name: String,
    /// The class of its device.
    pub class: String,
    /// The last verdict with its reason, or why it is not asked.
    pub verdict: String,
    /// The proved rate in operations a second.
    pub rate: Option<u64>,
    /// The score.
    pub score: Option<Points>,
    /// The weight set, 0…65,535.
    pub weight: Option<u16>,
    /// The state of its lease.
    pub lease: String,
}

/// The table at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// The ledger's head.
    pub block: BlockNumber,
    /// The epoch judged last.
    pub epoch: Option<Epoch>,
    /// The epoch whose weights are on the ledger.
    pub on_chain: Option<Epoch>,
    /// The rows, in the order of the miners.
    pub rows: Vec<Row>,
}

/// What the table is read from.
pub struct TableSource {
    ledger: crate::chain::ledger::LedgerHandle,
    miners: Vec<(String, String, Hotkey)>,
    guard: Handle<BlacklistGuard>,
    challenges: Handle<ChallengeRunner>,
    weights: Handle<WeightSetter>,
    allocations: Handle<AllocationManager>,
}

impl TableSource {
    /// Reads from a devnet that runs its validator itself.
    pub fn of(devnet: &Devnet) -> Option<Self> {
        let validator = devnet.validator.as_ref()?;
        let named = |m: &DevnetMiner| (m.name.clone(), m.class.clone(), m.node.hotkey);
        Some(TableSource {
            ledger: devnet.ledger.clone(),
            miners: devnet.miners.iter().map(named).collect(),
            guard: validator.guard.clone(),
            challenges: validator.challenges.clone(),
            weights: validator.weights.clone(),
            allocations: validator.allocations.clone(),
        })
    }

    /// The table now; what an actor does not say in time is left empty.
    pub async fn read(&self) -> Table {
        let (admitted, judged, board, leases) = tokio::join!(
            self.guard.ask(AdmitMiners, ASK),
            self.challenges.ask(LastJudged, ASK),
            self.weights.ask(GetScoreboard, ASK),
            self.allocations.ask(ListLeases, ASK),
        );
        let mut rows: HashMap<Hotkey, Row> = self
            .miners
            .iter()
            .map(|(name, class, hotkey)| (*hotkey, Row { name: name.clone(), class: class.clone(), ..Row::default() }))
            .collect();
        for (uid, hotkey, admitted) in admitted.unwrap_or_default() {
            let Some(row) = rows.get_mut(&hotkey) else { continue };
            row.uid = Some(uid);
            if let Err(refusal) = admitted {
                row.verdict = format!("refused: {}", refusal.label());
            }
        }
        let judged = judged.ok().flatten();
        for miner in judged.iter().flat_map(|j| j.miners.iter()) {
            let Some(row) = rows.get_mut(&miner.hotkey) else { continue };
            if let Some(refusal) = &miner.refused {
                row.verdict = format!("refused: {}", refusal.label());
                continue;
            }
            let device = miner.devices.first();
            row.verdict = match (&miner.whole, device) {
                (Some(verdict), _) => show(verdict),
                (None, Some(device)) if device.kept_rate.is_some() => "leased, last pass counts".to_owned(),
                (None, Some(device)) => show(&device.verdict),
                (None, None) => String::new(),
            };
            row.rate = device.and_then(|d| match &d.verdict {
                Verdict::Pass { evidence } => Some(evidence.rate()),
                _ => d.kept_rate,
            });
        }
        let board = board.unwrap_or_default();
        for score in &board.rows {
            let Some(row) = rows.get_mut(&score.hotkey) else { continue };
            row.score = Some(score.score.total);
            let weight = board.weights.iter().find(|(uid, _)| *uid == score.uid).map_or(0, |(_, w)| *w);
            row.weight = Some(weight);
        }
        for lease in leases.unwrap_or_default() {
            if let Some(row) = rows.get_mut(&lease.miner) {
                row.lease = lease.state.label().to_owned();
            }
        }
        Table {
            block: self.ledger.state().head().number,
            epoch: judged.map(|j| j.epoch),
            on_chain: board.epoch_on_chain,
            rows: self.miners.iter().filter_map(|(_, _, hotkey)| rows.remove(hotkey)).collect(),
        }
    }
}

fn show(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass { .. } => "pass".to_owned(),
        other => format!("{}: {}", other.kind(), other.reason()),
    }
}

impl Table {
    /// The table as text, one line a row, for a terminal or a log.
    pub fn render(&self) -> String {
        let mut out = String::new();
        let epoch = |e: Option<Epoch>| e.map_or_else(|| "-".to_owned(), |e| e.to_string());
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        // Writing to a String cannot fail. The rows are 80 columns wide.
        let _ = writeln!(
            out,
            "block {}, epoch judged {}, weights on chain of epoch {}\n\
             time floors are off for device classes: the rate does not change the score",
            self.block,
            epoch(self.epoch),
            epoch(self.on_chain)
        );
        let _ = writeln!(
            out,
            "{:>3} {:<11} {:<5} {:<25} {:>6} {:>8} {:>6} lease",
            "uid", "miner", "class", "last verdict", "Gop/s", "score", "weight"
        );
        for row in &self.rows {
            let _ = writeln!(
                out,
                "{:>3} {:<11} {:<5} {:<25} {:>6} {:>8} {:>6} {}",
                or_dash(row.uid.map(|u| u.to_string())),
                cut(&row.name, 11),
                cut(&row.class, 5),
                cut(&row.verdict, 25),
                or_dash(row.rate.map(|r| decimal(r.into(), 9, 1))),
                or_dash(row.score.map(|s| format!("{s:.3}"))),
                or_dash(row.weight.map(|w| w.to_string())),
                if row.lease.is_empty() { "-" } else { &row.lease },
            );
        }
        out
    }
}

fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width - 1).chain(['…']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_each_miner_with_what_the_validator_thinks_of_it() {
        let table = Table {
            block: 17,
            epoch: Some(2),
            on_chain: Some(1),
            rows: vec![
                Row {
                    uid: Some(Uid(1)),
                    name: "miner-0".into(),
                    class: "cpu-1".into(),
                    verdict: "pass".into(),
                    rate: Some(31_400_000_000),
                    score: Some(Points(103_125_000_000)),
                    weight: Some(65_535),
                    lease: "running".into(),
                },
                Row { name: "cheater-1".into(), class: "cpu-2".into(), verdict: "x".repeat(60), ..Row::default() },
            ],
        };
        let text = table.render();
        assert!(text.contains("time floors are off"), "{text}");
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[3].contains("31.4") && rows[3].contains("103.125") && rows[3].contains("running"), "{text}");
        assert!(rows[4].starts_with("  - cheater-1") && rows[4].contains('…'), "{text}");
        assert_eq!(rows.len(), 5);
        assert!(rows.iter().all(|r| r.chars().count() <= 80), "{text}");
    }
}
