//! `models`: the table of models in force by the settings, and what it would pay for claims that are not true.

use serde::Serialize;

use super::text::{columns, or_dash, row};
use super::{Context, complain};
use crate::actors::validator::node::tables;
use crate::exit::Exit;
use crate::proof::Work;
use crate::scoring::{Claims, ModelRow, ScoreTable, best_claims, by_rate_alone, decimal};
use crate::telemetry::error_chain;

/// One model of the table.
#[derive(Debug, Serialize)]
struct Model {
    model: String,
    /// In 10⁻⁶.
    base_micro: u64,
    /// What is paid for a claim at full rate, in 10⁻⁶: the lowest base of its twins and its own.
    paid_micro: u64,
    /// `datasheet`, `measured`, `uncalibrated` or, for a class of CPU devices, `untimed`.
    source: &'static str,
    /// Operations a second.
    nominal_ops: Option<u64>,
    floor_ops: Option<u64>,
    /// Bytes.
    floor_memory: Option<u64>,
    /// Bytes a second.
    floor_bandwidth: Option<u64>,
    work: Option<Work>,
    /// How long the work takes at the nominal rate.
    work_ms: Option<u64>,
}

/// A card that is paid better for other claims than for its own.
#[derive(Debug, Serialize)]
struct OverClaim {
    card: String,
    /// The rate that the card is taken to reach: `nominal` or `peak`.
    at: &'static str,
    claims: Vec<String>,
    /// In 10⁻¹⁵, as a base.
    credit: u64,
    /// Credit by the card's base, in 10⁻⁹.
    times_ppb: u64,
}

#[derive(Debug, Serialize)]
struct Models {
    models: Vec<Model>,
    /// With rate, memory and bandwidth proved.
    over_claims: Vec<OverClaim>,
    /// With the rate alone.
    by_rate_alone: Vec<OverClaim>,
}

pub(super) fn run(context: &Context) -> Result<(), Exit> {
    let (table, works) = tables(&context.settings).map_err(|error| {
        complain(&error_chain(&error));
        Exit::Config
    })?;
    context.answer(&models(&table, |model| works.get(model).copied()), text)
}

fn models(table: &ScoreTable, work: impl Fn(&str) -> Option<Work>) -> Models {
    let mut rows: Vec<&ModelRow> = table.rows().iter().collect();
    rows.sort_by(|a, b| b.base_micro.cmp(&a.base_micro).then_with(|| a.name.cmp(&b.name)));
    Models {
        models: rows.iter().map(|row| model(table, row, work(&row.name))).collect(),
        over_claims: rows.iter().flat_map(|row| over_claims(table, row)).collect(),
        by_rate_alone: rows.iter().filter_map(|row| rate_alone(table, row)).collect(),
    }
}

fn model(table: &ScoreTable, row: &ModelRow, work: Option<Work>) -> Model {
    let source = match row.nominal_ops {
        _ if !row.timed => "untimed",
        Some(_) => row.source.label(),
        None => "uncalibrated",
    };
    let work_ms = work.zip(row.nominal_ops).map(|(work, nominal)| {
        let ms = u128::from(work.operations()) * 1_000 / u128::from(nominal.max(1));
        u64::try_from(ms).unwrap_or(u64::MAX)
    });
    Model {
        model: row.name.clone(),
        base_micro: row.base_micro,
        paid_micro: table.paid_base(row).0,
        source,
        nominal_ops: row.nominal_ops,
        floor_ops: row.floor_ops,
        floor_memory: row.memory.map(|memory| memory.floor),
        floor_bandwidth: row.bandwidth.map(|bandwidth| bandwidth.floor),
        work,
        work_ms,
    }
}

/// The claim where it is paid better than the card's own.
fn over_claim(row: &ModelRow, at: &'static str, claims: Vec<String>, credit: u64) -> Option<OverClaim> {
    let times_ppb = credit.checked_div(row.base_micro)?;
    (times_ppb > 1_000_000_000).then(|| OverClaim { card: row.name.clone(), at, claims, credit, times_ppb })
}

fn over_claims(table: &ScoreTable, row: &ModelRow) -> Vec<OverClaim> {
    let Some((nominal, peak)) = row.nominal_ops.zip(row.best()) else { return Vec::new() };
    let best = |at, rate| {
        let Claims { models, credit } = best_claims(table, row, rate)?;
        over_claim(row, at, models, credit)
    };
    [best("nominal", nominal), best("peak", peak)].into_iter().flatten().collect()
}

fn rate_alone(table: &ScoreTable, row: &ModelRow) -> Option<OverClaim> {
    let (model, times, credit) = by_rate_alone(table, row.nominal_ops?)?;
    over_claim(row, "nominal", std::iter::repeat_n(model, usize::try_from(times).ok()?).collect(), credit)
}

fn text(all: &Models) -> String {
    let fixed = |value: Option<u64>, digits, places| or_dash(value.map(|v| decimal(v.into(), digits, places)));
    let mut rows = vec![row(["model", "base", "paid", "rate is", "Top/s", "floor", "GiB", "GB/s", "work", "s"])];
    for m in &all.models {
        rows.push(vec![
            m.model.clone(),
            decimal(m.base_micro.into(), 6, 2),
            decimal(m.paid_micro.into(), 6, 2),
            m.source.to_owned(),
            fixed(m.nominal_ops, 12, 1),
            fixed(m.floor_ops, 12, 1),
            or_dash(m.floor_memory.map(|bytes| decimal(u128::from(bytes) * 10 / (1 << 30), 1, 1))),
            fixed(m.floor_bandwidth, 9, 0),
            or_dash(m.work.map(|work| format!("{}²·{}", work.n, work.rounds))),
            fixed(m.work_ms, 3, 2),
        ]);
    }
    let lines = |claims: &[OverClaim]| {
        let mut rows = vec![row(["card", "at", "paid", "times", "claimed as"])];
        rows.extend(claims.iter().map(|claim| {
            vec![
                claim.card.clone(),
                claim.at.to_owned(),
                decimal(claim.credit.into(), 15, 2),
                decimal(claim.times_ppb.into(), 9, 2),
                counted(&claim.claims),
            ]
        }));
        if claims.is_empty() { "none\n".to_owned() } else { columns(&rows) }
    };
    format!(
        "{}\npaid better for other claims, with rate, memory and bandwidth proved:\n{}\nwith the rate alone:\n{}",
        columns(&rows),
        lines(&all.over_claims),
        lines(&all.by_rate_alone)
    )
}

/// `2 × this, that`.
fn counted(names: &[String]) -> String {
    let mut runs: Vec<(&str, usize)> = Vec::new();
    for name in names {
        match runs.iter_mut().find(|run| run.0 == name) {
            Some(run) => run.1 += 1,
            None => runs.push((name, 1)),
        }
    }
    let one =
        |(name, times): &(&str, usize)| if *times == 1 { (*name).to_owned() } else { format!("{times} × {name}") };
    runs.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::size::{MEMORY_TENTHS, SECONDS, gpu_memory_bytes};
    use crate::scoring::RateSource;
    use crate::settings::{Cli, Role, Settings, load};

    fn shipped() -> Settings {
        load(Role::Validator, &Cli::default(), [("HOME".to_owned(), "/home/op".to_owned())]).unwrap().settings
    }

    /// `UPDATE_DOCS=1` writes the section instead of comparing it.
    #[test]
    fn the_document_shows_what_the_shipped_table_comes_to() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proof.md");
        let document = std::fs::read_to_string(&path).unwrap();
        let (table, works) = tables(&shipped()).unwrap();
        let wanted = text(&models(&table, |model| works.get(model).copied()));
        let begin = "```text\n$ compute-register models\n";
        let (before, rest) = document.split_once(begin).expect("docs/proof.md shows the command's output");
        let (shown, after) = rest.split_once("```").unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, format!("{before}{begin}{wanted}```{after}")).unwrap();
            return;
        }
        assert_eq!(shown, wanted, "run the test again with UPDATE_DOCS=1, and read what changed");
    }

    #[test]
    fn every_work_of_the_shipped_table_lasts_three_to_four_seconds_and_leaves_a_tenth_of_the_memory() {
        let (table, works) = tables(&shipped()).unwrap();
        let mut seen = 0;
        for row in table.rows() {
            let Some(nominal) = row.nominal_ops else {
                assert!(!works.contains_key(&row.name), "{} is uncalibrated", row.name);
                continue;
            };
            let (work, memory) = (works[&row.name], row.memory.unwrap().best);
            let seconds = (nominal * SECONDS.0, nominal * SECONDS.1);
            assert!(work.operations() >= seconds.0 && work.operations() <= seconds.1, "{} {work:?}", row.name);
            assert!(gpu_memory_bytes(&work) * 10 <= memory * MEMORY_TENTHS, "{} {work:?}", row.name);
            assert!(work.n <= if memory < 12_000_000_000 { 32_768 } else { 65_536 }, "{} {work:?}", row.name);
            assert_eq!(work.k, 65_536, "{}", row.name);
            seen += 1;
        }
        assert!(seen >= 20, "{seen}");
    }

    #[test]
    fn the_shipped_estimates_are_the_share_of_the_peak_that_config_yaml_states() {
        let (table, _) = tables(&shipped()).unwrap();
        for row in table.rows().iter().filter(|row| row.nominal_ops.is_some()) {
            assert_eq!(row.source, RateSource::Datasheet, "{}: nothing has been measured yet", row.name);
            let (nominal, peak) = (row.nominal_ops.unwrap(), row.best_ops.unwrap());
            assert!(nominal.abs_diff(peak / 10 * 6) <= 60_000_000_000, "{}", row.name);
        }
        let uncalibrated: Vec<&str> =
            table.rows().iter().filter(|row| row.nominal_ops.is_none()).map(|row| row.name.as_str()).collect();
        assert_eq!(uncalibrated, ["NVIDIA L4", "Tesla T4", "Tesla V100-SXM2-16GB", "Tesla V100-SXM2-32GB"]);
    }

    /// What the shipped table gives away, so that a change of a floor or a base shows whom it invites.
    #[test]
    fn no_card_of_the_shipped_table_gains_by_other_claims_but_those_that_are_known() {
        let (table, works) = tables(&shipped()).unwrap();
        let all = models(&table, |model| works.get(model).copied());
        let gains = |at| {
            let of = all.over_claims.iter().filter(move |claim| claim.at == at);
            of.map(|claim| (claim.card.as_str(), claim.times_ppb / 10_000_000)).collect::<Vec<_>>()
        };
        assert_eq!(gains("nominal"), [("NVIDIA B200", 194), ("NVIDIA H200", 102)]);
        let known = ["NVIDIA B200", "NVIDIA H200", "NVIDIA H100 NVL", "NVIDIA A100 80GB PCIe"];
        assert_eq!(gains("peak").iter().map(|gain| gain.0).collect::<Vec<_>>(), known);
        assert!(gains("peak").iter().all(|(_, percent)| *percent <= 198));
    }

    #[test]
    fn claims_of_one_model_are_counted() {
        let names = ["a", "b", "a"].map(str::to_owned);
        assert_eq!(counted(&names), "2 × a, b");
    }
}
