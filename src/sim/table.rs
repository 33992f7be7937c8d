//! The devnet's table: one row a miner, as the validator sees it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use tokio::sync::watch;

use super::devnet::{Devnet, DevnetMiner};
use crate::ids::{BlockNumber, Epoch, Hotkey, Uid};
use crate::messages::chain_watcher::ChainView;
use crate::messages::validator::memory_runner::MemoryJudged;
use crate::scoring::{Points, decimal};
use crate::web::control::api::TableRow;
use crate::web::control::{self, ControlClient, ValidatorActors, read_table};

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
    /// The chain's head as the validator sees it.
    pub block: BlockNumber,
    /// The epoch judged last.
    pub epoch: Option<Epoch>,
    /// The epoch whose weights are on the ledger.
    pub on_chain: Option<Epoch>,
    /// What the last round of memory proofs came to.
    pub memory: Option<MemoryJudged>,
    /// The rows, in the order of the miners.
    pub rows: Vec<Row>,
}

/// What the table is read from.
pub struct TableSource {
    miners: Vec<(String, String, Hotkey)>,
    validator: Validator,
}

enum Validator {
    Here(ValidatorActors, watch::Receiver<Option<Arc<ChainView>>>),
    Elsewhere(ControlClient),
}

impl TableSource {
    /// Reads from a devnet that runs its validator itself.
    pub fn of(devnet: &Devnet) -> Option<Self> {
        let validator = devnet.validator.as_ref()?;
        let named = |m: &DevnetMiner| (m.name.clone(), m.class.clone(), m.node.hotkey);
        Some(TableSource {
            miners: devnet.miners.iter().map(named).collect(),
            validator: Validator::Here(
                ValidatorActors {
                    guard: validator.guard.clone(),
                    challenges: validator.challenges.clone(),
                    memory: validator.memory.clone(),
                    weights: validator.weights.clone(),
                    allocations: validator.allocations.clone(),
                    canaries: validator.canaries.clone(),
                },
                validator.node.chain.clone(),
            ),
        })
    }

    /// Reads from a validator in a process of its own. `miners`: name, class, hotkey of each.
    pub fn over(validator: ControlClient, miners: Vec<(String, String, Hotkey)>) -> Self {
        TableSource { miners, validator: Validator::Elsewhere(validator) }
    }

    /// The table now; what an actor does not say in time is left empty. `None` if the validator does not answer.
    pub async fn read(&self) -> Option<Table> {
        let table = match &self.validator {
            Validator::Here(actors, chain) => read_table(actors, chain).await,
            Validator::Elsewhere(client) => client.table().await.ok()?,
        };
        Some(Table::of(table, &self.miners))
    }
}

impl Table {
    /// The validator's table with the names (name, class, hotkey) that the devnet's miners go by, in their order.
    pub fn of(table: control::api::Table, miners: &[(String, String, Hotkey)]) -> Self {
        let mut known: HashMap<Hotkey, TableRow> = table.rows.into_iter().map(|row| (row.hotkey, row)).collect();
        let row = |(name, class, hotkey): &(String, String, Hotkey)| {
            let named = Row { name: name.clone(), class: class.clone(), ..Row::default() };
            let Some(row) = known.remove(hotkey) else { return named };
            Row {
                uid: Some(row.uid),
                verdict: row.verdict,
                rate: row.rate,
                score: row.score,
                weight: row.weight,
                lease: row.leases.last().map(|lease| lease.state.clone()).unwrap_or_default(),
                ..named
            }
        };
        Table {
            block: table.block.unwrap_or_default(),
            epoch: table.judged,
            on_chain: table.on_chain,
            memory: table.memory,
            rows: miners.iter().map(row).collect(),
        }
    }

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
        let memory = self.memory.as_ref().map_or_else(|| "none yet".to_owned(), MemoryJudged::to_string);
        let _ = writeln!(out, "memory proofs: {memory}");
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
            memory: Some(MemoryJudged {
                epoch: 2,
                counts: [("pass".to_owned(), 1), ("memory_mismatch".to_owned(), 1)].into(),
            }),
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
        assert_eq!(rows.len(), 6);
        assert_eq!(rows[5], "memory proofs: epoch 2: 1 memory_mismatch, 1 pass");
        assert!(rows.iter().all(|r| r.chars().count() <= 80), "{text}");
    }
}
