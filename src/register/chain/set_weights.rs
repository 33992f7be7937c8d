//! `weights set`: what would become of weights, and, at the operator's word, sending them once.
//!
//! A running validator sets weights itself, and stops at weights of its hotkey that it never intended. So nothing is sent
//! without `--yes`, nor while a node of this machine holds the hotkey; and nothing that somebody would have to reveal later.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tokio::task::spawn_blocking;

use super::super::probe::wallet_key;
use super::super::text::{columns, row};
use super::super::{Context, complain, failed};
use super::objections::{Objection, objections};
use super::weights::{Entry, entries, table};
use super::{Asked, MAX_ERROR, Place, error_text, hotkey_or_own, input, remedy};
use crate::chain::{ChainError, Hyperparameters, Inclusion, Metagraph, PreparedWeights, Rejection, Route, Weights};
use crate::exit::Exit;
use crate::ids::{BlockNumber, Hash32, Hotkey, Netuid, Uid};
use crate::scoring::{self, WeightLimits};
use crate::telemetry::{error_chain, printable};
use crate::wallet::{HotkeyLock, Keypair};

#[derive(Debug, clap::Args)]
pub(in crate::register) struct Args {
    /// JSON with a share for each uid, {"3": 0.5, "7": 0.25} or [[3, 0.5], [7, 0.25]]; - is standard input.
    ///
    /// Without it, the scores of the running validator, as it would set them.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Send nothing: show what would be sent, by which way, and what the chain would refuse.
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Send them, signed by the wallet's hotkey.
    #[arg(long)]
    yes: bool,
    /// Whose weights, as an SS58 address, without its key: the subnet's rules are compared, the chain itself is not asked.
    ///
    /// By default the wallet's hotkey, whose key signs the call that the chain is asked about.
    #[arg(long, value_name = "SS58", conflicts_with = "yes")]
    hotkey: Option<String>,
    /// The version key to send; by default weights.version_key, or the subnet's least if that is higher.
    #[arg(long, value_name = "N")]
    version_key: Option<u64>,
}

/// What is printed. The JSON form is stable.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    network: Place,
    netuid: Netuid,
    /// The block whose rules were read.
    block: BlockNumber,
    hotkey: Hotkey,
    /// `file`, `stdin` or `node`.
    source: &'static str,
    version_key: u64,
    /// Whether they were made ready, and so, on a real chain, checked by its runtime; else only its rules were compared.
    prepared: bool,
    /// `plain`, `hashed` or `timelocked`.
    route: &'static str,
    /// The round of drand that opens timelocked ones.
    round: Option<u64>,
    /// The blocks in which a commit would be revealed: the first, and the one after the last.
    reveal: Option<(BlockNumber, BlockNumber)>,
    weights: Vec<Entry>,
    /// What the chain would refuse them for, in its order.
    refused: Vec<Objection>,
    /// Where they are, if they were sent.
    sent: Option<Sent>,
}

#[derive(Debug, Serialize)]
struct Sent {
    block: BlockNumber,
    extrinsic: Hash32,
}

impl From<Inclusion> for Sent {
    fn from(Inclusion { block, extrinsic }: Inclusion) -> Self {
        Sent { block, extrinsic }
    }
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    if !args.dry_run && !args.yes {
        complain(
            "nothing was sent: a running validator sets weights itself, and stops at weights that it never intended",
        );
        complain("--dry-run shows what would become of these; --yes sends them once");
        return Err(Exit::Usage);
    }
    let hotkey = hotkey_or_own(context, args.hotkey.as_deref())?;
    let given = match args.file {
        Some(file) => Some(from_json(file).await?),
        None => None,
    };
    let asked = Asked::of(context, hotkey)?;
    let unread = |e| asked.failed("nothing was sent; the subnet cannot be read", &e);
    let graph = asked.chain.metagraph().await.map_err(unread)?;
    let rules = asked.chain.hyperparameters().await.map_err(unread)?;
    let (source, chosen) = match given {
        Some(given) => given,
        None => ("node", from_node(context, &graph, &rules).await?),
    };
    let least = context.settings.weights.version_key.max(rules.weights_version_key);
    let weights = Weights { entries: chosen, version_key: args.version_key.unwrap_or(least) };
    let mut report = Report {
        network: asked.place(),
        netuid: graph.netuid,
        block: graph.head.number,
        hotkey,
        source,
        version_key: weights.version_key,
        prepared: false,
        route: expected(&rules),
        round: None,
        reveal: None,
        weights: entries(&graph, &weights.entries),
        refused: objections(&graph, &rules, &hotkey, &weights, None),
        sent: None,
    };
    // What is refused anyway needs no key; somebody else's weights have none here.
    if report.refused.is_empty() {
        let signing = match args.hotkey {
            Some(_) => asked,
            None => asked.with(Arc::new(own_key(context, hotkey).await?))?,
        };
        if let Some(prepared) = prepare(&signing, &weights, &mut report).await? {
            report.refused = objections(&graph, &rules, &hotkey, &weights, Some(&prepared.route));
            if args.yes && report.refused.is_empty() {
                report.sent = Some(send(context, &signing, &prepared).await?.into());
            }
        }
    }
    context.answer(&report, |report| text(report, args.yes))?;
    if report.refused.is_empty() { Ok(()) } else { Err(Exit::Data) }
}

/// The way that a subnet with these rules takes weights, as [`Route::label`] names it.
fn expected(rules: &Hyperparameters) -> &'static str {
    match (rules.commit_reveal, rules.commit_reveal_version) {
        (false, _) => "plain",
        (true, 0) => "hashed",
        (true, _) => "timelocked",
    }
}

/// Makes them ready, and asks a real chain's runtime whether it would take the signed call. `None`: that was
/// refused, as the report says then, or cannot be done for want of a key.
async fn prepare(signing: &Asked<'_>, weights: &Weights, report: &mut Report) -> Result<Option<PreparedWeights>, Exit> {
    let ready = async {
        let prepared = signing.chain.prepare_weights(weights).await?;
        signing.chain.check_weights(&prepared).await?;
        Ok(prepared)
    };
    let prepared = match ready.await {
        Ok(prepared) => prepared,
        // The signature is what a runtime looks at first: one of zeros gets no further.
        Err(ChainError::Rejected(Rejection::BadSignature)) if !signing.has_key => return Ok(None),
        Err(ChainError::Rejected(rejection)) => {
            report.refused.push(Objection::new(rejection, "so the chain itself".to_owned()));
            return Ok(None);
        }
        Err(ChainError::Refused(words)) => {
            report.refused.push(Objection::unknown(printable(&words, MAX_ERROR)));
            return Ok(None);
        }
        Err(error) => return Err(signing.failed("nothing was sent; the weights cannot be made ready", &error)),
    };
    report.prepared = true;
    report.route = prepared.route.label();
    report.reveal = prepared.reveal;
    report.round = match prepared.route {
        Route::Timelocked { round, .. } => Some(round),
        Route::Plain | Route::Hashed { .. } => None,
    };
    Ok(Some(prepared))
}

/// The wallet's hotkey, which must be the one that the wallet's public parts state.
async fn own_key(context: &Context, stated: Hotkey) -> Result<Keypair, Exit> {
    let key = wallet_key(context)?;
    if key.hotkey() != stated {
        complain(&format!("nothing was sent: the wallet's hotkey is {}, its public file says {stated}", key.hotkey()));
        return Err(Exit::Data);
    }
    Ok(key)
}

/// The weights in a file or on standard input.
async fn from_json(file: PathBuf) -> Result<(&'static str, Vec<(Uid, u16)>), Exit> {
    let stdin = file == Path::new("-");
    let source = if stdin { "stdin" } else { "file" };
    let path = file.clone();
    let bytes = spawn_blocking(move || {
        let mut bytes = Vec::new();
        let most = input::MAX_BYTES as u64 + 1;
        if stdin {
            io::stdin().lock().take(most).read_to_end(&mut bytes)?;
        } else {
            std::fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
        }
        Ok::<_, io::Error>(bytes)
    });
    let name = if stdin { "standard input".to_owned() } else { file.display().to_string() };
    let wrong = |problem: String| {
        complain(&format!("no weights in {name}: {problem}"));
        Exit::Data
    };
    let bytes = bytes.await.map_err(|_| wrong("the reading broke off".to_owned()))?;
    let bytes = bytes.map_err(|error| wrong(error.to_string()))?;
    input::read(&bytes).map(|weights| (source, weights)).map_err(wrong)
}

/// What the running validator's scores come to, by the rule that it sets weights by.
async fn from_node(context: &Context, graph: &Metagraph, rules: &Hyperparameters) -> Result<Vec<(Uid, u16)>, Exit> {
    let table = context.client.table().await.map_err(|error| {
        complain("without FILE the weights are those of the running validator");
        failed(&error)
    })?;
    let totals = table.rows.iter().filter_map(|row| Some((row.uid, row.hotkey, row.score?)));
    let neurons: Vec<(Uid, Hotkey)> = graph.neurons.iter().map(|n| (n.uid, n.hotkey)).collect();
    let limits = WeightLimits { min_allowed: rules.min_allowed_weights, max_weight: rules.max_weights_limit };
    let none = |problem: String| {
        complain(&format!("the validator has no weights to set: {problem}"));
        Exit::Data
    };
    let weights = scoring::weigh_totals(totals, &neurons, &limits).map_err(|error| none(error.to_string()))?;
    if weights.is_empty() {
        return Err(none("no neuron has a score above 0; compute-register table says why".to_owned()));
    }
    Ok(weights)
}

/// Sends them. No node of this machine may be using the hotkey.
async fn send(context: &Context, signing: &Asked<'_>, prepared: &PreparedWeights) -> Result<Inclusion, Exit> {
    if matches!(prepared.route, Route::Hashed { .. }) {
        complain(
            "nothing was sent: the subnet takes a hash now and the weights later, which only a running validator reveals",
        );
        return Err(Exit::Data);
    }
    let (hotkey, netuid) = (signing.chain.hotkey(), signing.chain.netuid());
    let _lock = HotkeyLock::take(&context.settings.node.lock_dir, hotkey, netuid, &context.dir).map_err(|error| {
        complain(&format!("nothing was sent: {}", error_chain(&error)));
        Exit::Unavailable
    })?;
    signing.chain.submit_weights(prepared).await.map_err(|error| match error {
        error if !error.is_unclear() => signing.failed("the weights were not set", &error),
        // The call may still get into a block.
        error => {
            let problem = error_text(&error);
            complain(&format!("it is NOT known whether the weights arrived; asked was {}: {problem}", signing.place()));
            complain("before trying again, look: compute-register weights show");
            remedy(&error).0
        }
    })
}

fn text(report: &Report, sending: bool) -> String {
    // The second block is the one after the last.
    let blocks = report.reveal.map(|(first, end)| format!("{first} to {}", end.saturating_sub(1)));
    let way = match (report.route, report.round, blocks) {
        ("plain", ..) => "in the open; they count at once".to_owned(),
        ("hashed", _, Some(blocks)) => format!("as a hash, to be revealed in blocks {blocks}"),
        ("hashed", ..) => "as a hash, to be revealed later".to_owned(),
        ("timelocked", Some(round), Some(blocks)) => {
            format!("sealed to drand's round {round}, opened by the chain in blocks {blocks}")
        }
        ("timelocked", ..) => "sealed to a round of drand, opened by the chain".to_owned(),
        (route, ..) => route.to_owned(),
    };
    let source = match report.source {
        "node" => "the running validator's scores",
        "stdin" => "standard input",
        _ => "a file",
    };
    let mut out = columns(&[
        row(["network", &report.network.to_string()]),
        row(["subnet", &format!("{}, block {}", report.netuid, report.block)]),
        row(["hotkey", &report.hotkey.to_string()]),
        row(["from", source]),
        row(["version", &report.version_key.to_string()]),
        row(["way", &way]),
    ]);
    out.push_str(&table(&report.weights));
    for Objection { name, text, detail } in &report.refused {
        out.push_str(&format!("refused: {name}: {detail}\n  {text}\n"));
    }
    match &report.sent {
        Some(sent) => out.push_str(&format!("sent: block {}, call 0x{}\n", sent.block, sent.extrinsic)),
        None if !report.refused.is_empty() && !sending => {}
        None if !report.refused.is_empty() => out.push_str("nothing was sent\n"),
        None if report.prepared => out.push_str("nothing speaks against them; nothing was sent\n"),
        None => out.push_str("no rule speaks against them, the chain itself was not asked; nothing was sent\n"),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Rejection;

    fn report() -> Report {
        let graph = super::super::weights::tests::graph();
        Report {
            network: Place::new("finney", "wss://entrypoint-finney.opentensor.ai:443"),
            netuid: Netuid(27),
            block: 17,
            hotkey: Hotkey([1; 32]),
            source: "file",
            version_key: 183,
            prepared: true,
            route: "timelocked",
            round: Some(26_000_000),
            reveal: Some((6_000_000, 6_000_361)),
            weights: entries(&graph, &[(Uid(1), 65_535), (Uid(2), 32_768)]),
            refused: vec![Objection::new(Rejection::NeuronNoValidatorPermit, "uid 0 has none".into())],
            sent: None,
        }
    }

    #[test]
    fn a_dry_run_says_what_would_be_sent_how_and_what_speaks_against_it() {
        let report = report();
        let text = text(&report, false);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        insta::assert_snapshot!(text);
        insta::assert_snapshot!("weights_set_json", serde_json::to_string_pretty(&report).unwrap());
    }

    #[test]
    fn every_way_is_told_in_words() {
        for (route, told) in [("plain", "count at once"), ("hashed", "as a hash"), ("timelocked", "round 26000000")] {
            let told_text = text(&Report { route, ..report() }, false);
            assert!(told_text.contains(told), "{told_text}");
        }
        for (route, told) in
            [("plain", "in the open"), ("hashed", "revealed later"), ("timelocked", "a round of drand")]
        {
            let unprepared = Report { prepared: false, route, round: None, reveal: None, refused: vec![], ..report() };
            let told_text = text(&unprepared, false);
            assert!(told_text.contains(told) && told_text.contains("the chain itself was not asked"), "{told_text}");
        }
        assert_eq!(text(&report(), true).lines().last(), Some("nothing was sent"));
    }
}
