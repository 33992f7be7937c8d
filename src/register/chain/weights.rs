//! `weights`: what validators have on the chain (`show`). Setting is `set_weights`.

use serde::Serialize;

use super::super::text::{columns, row};
use super::super::{Context, complain, parse};
use super::{Asked, Place, own_hotkey, set_weights};
use crate::chain::{Metagraph, Neuron, ShownCommit, WeightsShown};
use crate::exit::Exit;
use crate::ids::{BlockNumber, Hotkey, Netuid, Uid};
use crate::scoring::decimal;

#[derive(Debug, clap::Args)]
pub(in crate::register) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What a validator has on the chain; by default the wallet's hotkey.
    Show(ShowArgs),
    /// Shows what would be sent and what the chain would refuse (--dry-run), or sends weights once (--yes).
    ///
    /// A running validator sets weights itself, and stops at weights that it never intended: this is for trying out, and for
    /// a hotkey that no validator runs with.
    Set(set_weights::Args),
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// The validator in this slot.
    #[arg(long, value_name = "UID", conflicts_with = "hotkey")]
    uid: Option<u16>,
    /// The validator with this hotkey, as an SS58 address.
    #[arg(long, value_name = "SS58")]
    hotkey: Option<String>,
    /// Every validator that has set weights, one line each; with --json also the weights.
    #[arg(long, conflicts_with_all = ["uid", "hotkey"])]
    all: bool,
}

/// What is printed of one validator. The JSON form is stable.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    network: Place,
    netuid: Netuid,
    /// The finalised block whose state this is.
    block: BlockNumber,
    uid: Uid,
    hotkey: Hotkey,
    /// The block in which it last set or committed weights, or registered.
    last_update: BlockNumber,
    weights: Vec<Entry>,
    /// Commits that are not revealed yet.
    commits: Vec<ShownCommit>,
}

/// One weight.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Entry {
    pub(super) uid: Uid,
    /// `null` for a uid that no neuron has.
    pub(super) hotkey: Option<Hotkey>,
    /// As on the chain; the largest is 65,535.
    pub(super) weight: u16,
    /// The part of the sum, 0 to 1.
    pub(super) share: f64,
}

/// What is printed of all validators. The JSON form is stable.
#[derive(Debug, Serialize)]
struct AllReport {
    #[serde(flatten)]
    network: Place,
    netuid: Netuid,
    block: BlockNumber,
    validators: Vec<Validator>,
}

#[derive(Debug, Serialize)]
struct Validator {
    uid: Uid,
    /// `null` if the neuron went between two reads.
    hotkey: Option<Hotkey>,
    validator_permit: bool,
    last_update: Option<BlockNumber>,
    weights: Vec<Entry>,
}

pub(in crate::register) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    match args.command {
        Command::Show(ShowArgs { all: true, .. }) => show_all(context).await,
        Command::Show(args) => show(context, args).await,
        Command::Set(args) => set_weights::run(context, args).await,
    }
}

async fn show(context: &Context, args: ShowArgs) -> Result<(), Exit> {
    let (asked, graph) = match (args.uid.map(Uid), args.hotkey) {
        (Some(uid), _) => {
            let asked = Asked::new(context)?;
            let graph = asked.chain.metagraph().await.map_err(|e| asked.failed(UNREAD, &e))?;
            let hotkey = graph
                .by_uid(uid)
                .map(|neuron| neuron.hotkey)
                .ok_or_else(|| absent(&asked, &graph, &format!("uid {uid}")))?;
            (asked.with_address(hotkey)?, graph)
        }
        (None, hotkey) => {
            let hotkey = hotkey.map_or_else(|| own_hotkey(context), |text| parse(&text, "hotkey"))?;
            let asked = Asked::of(context, hotkey)?;
            let graph = asked.chain.metagraph().await.map_err(|e| asked.failed(UNREAD, &e))?;
            (asked, graph)
        }
    };
    let hotkey = asked.chain.hotkey();
    let neuron = graph.by_hotkey(&hotkey).ok_or_else(|| absent(&asked, &graph, &format!("hotkey {hotkey}")))?;
    let shown = asked.chain.weights_shown().await.map_err(|e| asked.failed(UNREAD, &e))?;
    context.answer(&report(asked.place(), &graph, neuron, shown), text)
}

const UNREAD: &str = "the weights cannot be read";

fn absent(asked: &Asked<'_>, graph: &Metagraph, who: &str) -> Exit {
    complain(&format!(
        "no neuron has {who} in subnet {} of {} at block {}",
        graph.netuid,
        asked.place(),
        graph.head.number
    ));
    complain("compute-register metagraph lists them; --netuid names another subnet");
    Exit::Data
}

async fn show_all(context: &Context) -> Result<(), Exit> {
    let asked = Asked::new(context)?;
    let failed = |e| asked.failed(UNREAD, &e);
    let graph = asked.chain.metagraph().await.map_err(failed)?;
    let block = asked.chain.finalized().await.map_err(failed)?;
    let all = asked.chain.weights_of_all().await.map_err(failed)?;
    context.answer(&all_report(asked.place(), &graph, block, all), all_text)
}

fn report(network: Place, graph: &Metagraph, neuron: &Neuron, shown: WeightsShown) -> Report {
    Report {
        network,
        netuid: graph.netuid,
        block: shown.at,
        uid: neuron.uid,
        hotkey: neuron.hotkey,
        last_update: shown.last_update,
        weights: entries(graph, &shown.entries),
        commits: shown.commits,
    }
}

/// Weights with hotkeys and shares, in the order given.
pub(super) fn entries(graph: &Metagraph, weights: &[(Uid, u16)]) -> Vec<Entry> {
    let sum: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let share = |weight: u16| if sum == 0 { 0.0 } else { f64::from(weight) / sum as f64 };
    let entry = |(uid, weight): &(Uid, u16)| Entry {
        uid: *uid,
        hotkey: graph.by_uid(*uid).map(|neuron| neuron.hotkey),
        weight: *weight,
        share: share(*weight),
    };
    weights.iter().map(entry).collect()
}

fn all_report(network: Place, graph: &Metagraph, block: BlockNumber, all: Vec<(Uid, Vec<(Uid, u16)>)>) -> AllReport {
    let mut validators: Vec<Validator> = all
        .into_iter()
        .map(|(uid, weights)| {
            let neuron = graph.by_uid(uid);
            Validator {
                uid,
                hotkey: neuron.map(|n| n.hotkey),
                validator_permit: neuron.is_some_and(|n| n.validator_permit),
                last_update: neuron.map(|n| n.last_update),
                weights: entries(graph, &weights),
            }
        })
        .collect();
    validators.sort_by_key(|validator| validator.uid);
    AllReport { network, netuid: graph.netuid, block, validators }
}

/// The table of weights; shares are exact in it.
pub(super) fn table(entries: &[Entry]) -> String {
    let sum: u128 = entries.iter().map(|entry| u128::from(entry.weight)).sum();
    let mut rows = vec![row(["uid", "hotkey", "weight", "share"])];
    rows.extend(entries.iter().map(|entry| {
        let share = (u128::from(entry.weight) * 10_000_000_000).checked_div(sum).unwrap_or(0);
        let hotkey = entry.hotkey.map_or_else(|| "no neuron".to_owned(), |hotkey| hotkey.to_string());
        row([&entry.uid.to_string(), &hotkey, &entry.weight.to_string(), &format!("{} %", decimal(share, 8, 4))])
    }));
    columns(&rows)
}

fn text(report: &Report) -> String {
    let Report { network, netuid, block, uid, hotkey, last_update, weights, commits } = report;
    let mut out = format!(
        "subnet {netuid} of {network}, finalised block {block}\nuid {uid}, hotkey {hotkey}, last update in block {last_update}\n"
    );
    match weights.as_slice() {
        [] => out.push_str("no weights count yet\n"),
        weights => out.push_str(&table(weights)),
    }
    for commit in commits {
        let held = commit.block.map(|block| format!(" of block {block}")).unwrap_or_default();
        out.push_str(&format!("commit 0x{}{held}, not revealed\n", commit.digest));
    }
    out
}

fn all_text(report: &AllReport) -> String {
    let AllReport { network, netuid, block, validators } = report;
    let head = format!("subnet {netuid} of {network}, finalised block {block}\n");
    if validators.is_empty() {
        return head + "nobody has set weights\n";
    }
    let mut rows = vec![row(["uid", "hotkey", "permit", "updated", "weights", "highest"])];
    rows.extend(validators.iter().map(|v| {
        let highest = v
            .weights
            .iter()
            .max_by_key(|entry| entry.weight)
            .map_or_else(|| "-".to_owned(), |e| format!("uid {}", e.uid));
        let hotkey = v.hotkey.map_or_else(|| "no neuron".to_owned(), |hotkey| hotkey.to_string());
        let updated = super::super::text::or_dash(v.last_update);
        let permit = if v.validator_permit { "yes" } else { "no" };
        row([&v.uid.to_string(), &hotkey, permit, &updated, &v.weights.len().to_string(), &highest])
    }));
    head + &columns(&rows)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::chain::{BlockHead, EpochClock};
    use crate::ids::Hash32;

    pub(in crate::register::chain) fn graph() -> Metagraph {
        let neuron = |uid: u16| Neuron {
            hotkey: Hotkey([uid as u8 + 1; 32]),
            validator_permit: uid == 0,
            last_update: 11,
            ..Neuron::idle(uid)
        };
        let epochs = EpochClock::Modulo { netuid: Netuid(27), tempo: 5 };
        let head = BlockHead { number: 17, hash: Hash32([0; 32]), timestamp_ms: 0 };
        Metagraph { netuid: Netuid(27), head, epochs, neurons: (0..3).map(neuron).collect() }
    }

    fn network() -> Place {
        Place::new("ledger", "http://127.0.0.1:9950/")
    }

    #[test]
    fn a_validators_weights_are_told_with_hotkeys_shares_and_commits() {
        let commits = vec![ShownCommit { digest: Hash32([7; 32]), block: Some(15) }];
        let shown = WeightsShown {
            at: 16,
            last_update: 11,
            entries: vec![(Uid(1), 65_535), (Uid(2), 6_554), (Uid(9), 0)],
            commits,
        };
        let graph = graph();
        let told = report(network(), &graph, &graph.neurons[0], shown);
        let text = text(&told);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        insta::assert_snapshot!(text);
        insta::assert_snapshot!("a_validators_weights_json", serde_json::to_string_pretty(&told).unwrap());
    }

    #[test]
    fn all_validators_are_told_one_line_each() {
        let graph = graph();
        let all = vec![(Uid(2), vec![(Uid(0), 1), (Uid(1), 2)]), (Uid(0), vec![(Uid(1), 65_535)])];
        let report = all_report(network(), &graph, 16, all);
        let text = all_text(&report);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        insta::assert_snapshot!(text);
        assert_eq!(serde_json::to_value(&report).unwrap()["validators"][1]["weights"][1]["weight"], 2);
        assert!(all_text(&all_report(network(), &graph, 16, vec![])).contains("nobody"));
    }
}
