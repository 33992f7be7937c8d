//! `metagraph`: the subnet's neurons, in a table of at most 100 columns, or one of them in full. No wallet is needed.

use std::cmp::Reverse;

use clap::ValueEnum;
use serde::Serialize;

use super::super::text::{columns, or_dash, row};
use super::super::{Context, complain, parse};
use super::{Asked, Place, money};
use crate::chain::{Metagraph, Neuron, RAO_PER_TAO};
use crate::exit::Exit;
use crate::ids::{BlockNumber, Coldkey, Epoch, Hotkey, Netuid, Uid};
use crate::scoring::decimal;

#[derive(Debug, Default, clap::Args)]
pub(in crate::register) struct Args {
    /// Only this slot; may be given several times.
    #[arg(long, value_name = "UID")]
    uid: Vec<u16>,
    /// Only the neuron with this hotkey, as an SS58 address; may be given several times.
    #[arg(long, value_name = "SS58")]
    hotkey: Vec<String>,
    /// The order. All but uid begin with the highest.
    #[arg(long, value_enum, default_value_t = Sort::Uid)]
    sort: Sort,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Sort {
    /// By slot.
    #[default]
    Uid,
    /// By stake.
    Stake,
    /// By the share of the miners' incentive.
    Incentive,
    /// By the share of the validators' dividends.
    Dividends,
    /// By what was earned in the last epoch.
    Emission,
    /// By the block of the last update, the newest first.
    Updated,
}

/// What is printed. The JSON form is stable.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    network: Place,
    netuid: Netuid,
    block: BlockNumber,
    epoch: Epoch,
    /// How many neurons there are, whatever was asked for.
    neurons_in_all: usize,
    neurons: Vec<Entry>,
}

/// A neuron as it is printed.
#[derive(Debug, Serialize)]
struct Entry {
    uid: Uid,
    hotkey: Hotkey,
    coldkey: Coldkey,
    stake_rao: u64,
    validator_permit: bool,
    active: bool,
    /// `IP:PORT`.
    axon: Option<String>,
    /// The version that the axon claims.
    version: Option<u32>,
    /// `IP:PORT`.
    prometheus: Option<String>,
    registered_at: BlockNumber,
    last_update: BlockNumber,
    /// Blocks since `last_update`.
    updated_blocks_ago: u64,
    /// Parts of 65,535, as all shares here.
    incentive: u16,
    dividends: u16,
    consensus: u16,
    trust: u16,
    validator_trust: Option<u16>,
    /// In the last epoch, in the smallest unit of the subnet's token.
    emission_rao: u64,
    pruning_score: u16,
}

impl Entry {
    fn new(neuron: &Neuron, head: BlockNumber) -> Self {
        let address = |ip: std::net::IpAddr, port| std::net::SocketAddr::new(ip, port).to_string();
        Entry {
            uid: neuron.uid,
            hotkey: neuron.hotkey,
            coldkey: neuron.coldkey,
            stake_rao: neuron.stake_rao,
            validator_permit: neuron.validator_permit,
            active: neuron.active,
            axon: neuron.axon.map(|axon| address(axon.ip, axon.port)),
            version: neuron.axon.map(|axon| axon.version),
            prometheus: neuron.prometheus.map(|at| address(at.ip, at.port)),
            registered_at: neuron.registered_at,
            last_update: neuron.last_update,
            updated_blocks_ago: head.saturating_sub(neuron.last_update),
            incentive: neuron.incentive,
            dividends: neuron.dividends,
            consensus: neuron.standing.consensus,
            trust: neuron.standing.trust,
            validator_trust: neuron.standing.validator_trust,
            emission_rao: neuron.standing.emission_rao,
            pruning_score: neuron.standing.pruning_score,
        }
    }
}

pub(in crate::register) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let hotkeys: Vec<Hotkey> = args.hotkey.iter().map(|text| parse(text, "hotkey")).collect::<Result<_, _>>()?;
    let uids: Vec<Uid> = args.uid.iter().copied().map(Uid).collect();
    let asked = Asked::new(context)?;
    let graph = asked.chain.metagraph().await.map_err(|e| asked.failed("the metagraph cannot be read", &e))?;
    let absent = absent(&graph, &uids, &hotkeys);
    for who in &absent {
        complain(&format!("{who} in subnet {} of {} at block {}", graph.netuid, asked.place(), graph.head.number));
    }
    if !absent.is_empty() {
        return Err(Exit::Data);
    }
    context.answer(&report(asked.place(), &graph, &uids, &hotkeys, args.sort), text)
}

/// What was asked for and is not there.
fn absent(graph: &Metagraph, uids: &[Uid], hotkeys: &[Hotkey]) -> Vec<String> {
    let no_uid = uids.iter().filter(|uid| graph.by_uid(**uid).is_none()).map(|uid| format!("no neuron has uid {uid}"));
    let no_key = hotkeys.iter().filter(|key| graph.by_hotkey(key).is_none());
    no_uid.chain(no_key.map(|key| format!("hotkey {key} is not registered"))).collect()
}

/// The neurons that were asked for, all if none was named, in this order.
fn report(network: Place, graph: &Metagraph, uids: &[Uid], hotkeys: &[Hotkey], sort: Sort) -> Report {
    let all = uids.is_empty() && hotkeys.is_empty();
    let wanted = graph.neurons.iter().filter(|n| all || uids.contains(&n.uid) || hotkeys.contains(&n.hotkey));
    let mut neurons: Vec<Entry> = wanted.map(|neuron| Entry::new(neuron, graph.head.number)).collect();
    neurons.sort_by_key(|n| {
        let first = match sort {
            Sort::Uid => 0,
            Sort::Stake => n.stake_rao,
            Sort::Incentive => n.incentive.into(),
            Sort::Dividends => n.dividends.into(),
            Sort::Emission => n.emission_rao,
            Sort::Updated => n.last_update,
        };
        (Reverse(first), n.uid)
    });
    Report {
        network,
        netuid: graph.netuid,
        block: graph.head.number,
        epoch: graph.epoch(),
        neurons_in_all: graph.neurons.len(),
        neurons,
    }
}

fn text(report: &Report) -> String {
    let Report { network, netuid, block, epoch, neurons_in_all, neurons } = report;
    let shown = if neurons.len() == *neurons_in_all { String::new() } else { format!("{} of ", neurons.len()) };
    let head = format!("subnet {netuid} of {network}, block {block}, epoch {epoch}, {shown}{neurons_in_all} neurons\n");
    match neurons.as_slice() {
        [] => head,
        [one] if *neurons_in_all > 1 => head + &detail(one),
        several => head + &table(several),
    }
}

/// The widest cells come to 100 columns; what is wider loses its middle.
fn table(neurons: &[Entry]) -> String {
    let mut rows =
        vec![row(["uid", "hotkey", "stake τ", "P", "A", "axon", "vers.", "updated", "inc. %", "div. %", "emission"])];
    let mark = |on: bool| if on { "*" } else { "-" };
    rows.extend(neurons.iter().map(|n| {
        row([
            &n.uid.to_string(),
            &short(&n.hotkey.to_string()),
            &fit(&stake(n.stake_rao), 10),
            mark(n.validator_permit),
            mark(n.active),
            &fit(&or_dash(n.axon.as_ref()), 21),
            &fit(&or_dash(n.version), 5),
            &fit(&n.updated_blocks_ago.to_string(), 7),
            &percent(n.incentive),
            &percent(n.dividends),
            &fit(&decimal(n.emission_rao.into(), 9, 3), 8),
        ])
    }));
    columns(&rows)
        + "P has a validator permit, A active; updated: blocks ago; emission: the subnet's token, last epoch\n"
}

fn detail(n: &Entry) -> String {
    let yes = |on: bool| if on { "yes" } else { "no" };
    columns(&[
        row(["uid", &n.uid.to_string()]),
        row(["hotkey", &n.hotkey.to_string()]),
        row(["coldkey", &n.coldkey.to_string()]),
        row(["stake", &money::amount(n.stake_rao)]),
        row(["permit", yes(n.validator_permit)]),
        row(["active", yes(n.active)]),
        row(["axon", &or_dash(n.axon.as_ref())]),
        row(["version", &or_dash(n.version)]),
        row(["prometheus", &or_dash(n.prometheus.as_ref())]),
        row(["registered", &format!("block {}", n.registered_at)]),
        row(["updated", &format!("block {}, {} blocks ago", n.last_update, n.updated_blocks_ago)]),
        row(["incentive", &format!("{} %", percent(n.incentive))]),
        row(["dividends", &format!("{} %", percent(n.dividends))]),
        row(["consensus", &format!("{} %", percent(n.consensus))]),
        row(["trust", &format!("{} %", percent(n.trust))]),
        row(["val. trust", &or_dash(n.validator_trust.map(|trust| format!("{} %", percent(trust))))]),
        row(["emission", &format!("{} of the subnet's token in the last epoch", decimal(n.emission_rao.into(), 9, 9))]),
        row(["pruning", &n.pruning_score.to_string()]),
    ])
}

/// A share in parts of 65,535 as percent.
fn percent(share: u16) -> String {
    decimal(u128::from(share) * 10_000_000 / 65_535, 5, 2)
}

/// Stake in TAO, with two digits behind the point where there is room.
fn stake(rao: u64) -> String {
    let places = if rao < 1_000_000 * RAO_PER_TAO { 2 } else { 0 };
    decimal(rao.into(), 9, places)
}

/// An address in ten columns: its two ends.
pub(super) fn short(address: &str) -> String {
    fit(address, 10)
}

/// At most `width` columns, without the middle if it is more.
fn fit(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let (front, back) = (width / 2, width.saturating_sub(width / 2 + 1));
    text.chars().take(front).chain(['…']).chain(text.chars().skip(count - back)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{AxonInfo, BlockHead, EpochClock, Standing};
    use crate::ids::Hash32;

    fn neuron(uid: u16, stake_rao: u64) -> Neuron {
        let ip = "203.0.113.200".parse().unwrap();
        Neuron {
            stake_rao,
            validator_permit: uid == 0,
            active: uid != 2,
            axon: (uid == 1).then_some(AxonInfo { block: 3, version: 183, ip, port: 8091, protocol: 4 }),
            last_update: 10 + u64::from(uid),
            incentive: if uid == 1 { 65_535 } else { 0 },
            dividends: if uid == 0 { 32_768 } else { 0 },
            standing: Standing { emission_rao: 148_029_300_000 * u64::from(uid), ..Standing::default() },
            ..Neuron::idle(uid)
        }
    }

    fn graph(neurons: Vec<Neuron>) -> Metagraph {
        let head = BlockHead { number: 17, hash: Hash32([0; 32]), timestamp_ms: 0 };
        let epochs = EpochClock::Modulo { netuid: Netuid(27), tempo: 5 };
        Metagraph { netuid: Netuid(27), head, epochs, neurons }
    }

    fn shown(graph: &Metagraph, uids: &[Uid], hotkeys: &[Hotkey], sort: Sort) -> Report {
        report(Place::new("ledger", "http://127.0.0.1:9950/"), graph, uids, hotkeys, sort)
    }

    #[test]
    fn the_neurons_are_told_in_a_table() {
        let graph = graph(vec![neuron(0, 1_234_567_890_000), neuron(1, 0), neuron(2, 5)]);
        insta::assert_snapshot!(text(&shown(&graph, &[], &[], Sort::Uid)));
    }

    #[test]
    fn one_neuron_is_told_in_full() {
        let graph = graph(vec![neuron(0, 1_234_567_890_000), neuron(1, 0), neuron(2, 5)]);
        insta::assert_snapshot!(text(&shown(&graph, &[], &[Hotkey([1; 32])], Sort::Uid)));
    }

    #[test]
    fn the_widest_table_has_100_columns() {
        let mut wide = neuron(1, u64::MAX);
        wide.uid = Uid(u16::MAX);
        wide.last_update = 0;
        wide.dividends = u16::MAX;
        wide.standing.emission_rao = u64::MAX;
        let ip = "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap();
        wide.axon = Some(AxonInfo { block: 3, version: u32::MAX, ip, port: 65_535, protocol: 4 });
        let mut graph = graph(vec![neuron(0, 0), wide]);
        graph.head.number = 123_456_789;
        let text = text(&shown(&graph, &[], &[], Sort::Uid));
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert_eq!(widest, Some(100), "{text}");
    }

    #[test]
    fn neurons_are_chosen_and_ordered() {
        let graph = graph(vec![neuron(0, 5), neuron(1, 9), neuron(2, 5)]);
        let uids = |uids: &[Uid], keys: &[Hotkey], sort| {
            shown(&graph, uids, keys, sort).neurons.iter().map(|n| n.uid.0).collect::<Vec<_>>()
        };
        assert_eq!(uids(&[], &[], Sort::Uid), [0, 1, 2]);
        assert_eq!(uids(&[], &[], Sort::Stake), [1, 0, 2]);
        assert_eq!(uids(&[], &[], Sort::Updated), [2, 1, 0]);
        assert_eq!(uids(&[], &[], Sort::Emission), [2, 1, 0]);
        assert_eq!(uids(&[], &[], Sort::Incentive), [1, 0, 2]);
        assert_eq!(uids(&[], &[], Sort::Dividends), [0, 1, 2]);
        assert_eq!(uids(&[Uid(2)], &[Hotkey([0; 32])], Sort::Uid), [0, 2]);
        assert_eq!(absent(&graph, &[Uid(0), Uid(7)], &[Hotkey([8; 32])]).len(), 2);
    }

    #[test]
    fn the_json_of_a_neuron_keeps_its_fields() {
        let json = serde_json::to_value(shown(&graph(vec![neuron(1, 0)]), &[], &[], Sort::Uid)).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&json).unwrap());
    }

    #[test]
    fn what_is_too_wide_loses_its_middle() {
        assert_eq!(fit("abcdefghij", 10), "abcdefghij");
        assert_eq!(fit("abcdefghijk", 10), "abcde…hijk");
        assert_eq!(fit("τττττ", 3), "τ…τ");
        assert_eq!(percent(65_535), "100.00");
        assert_eq!(percent(32_768), "50.00");
    }
}
