//! The command about canary rentals.

use std::time::Duration;

use super::text::{columns, or_dash, row, time};
use super::{Context, failed, parse};
use crate::canary::{Outcome, Report};
use crate::exit::Exit;
use crate::scoring::rate_text;
use crate::settings::duration;
use crate::store::records::CanaryRow;
use crate::web::control::api::Canaries;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The miner at which to run one now; without it the last ones are listed.
    #[arg(value_name = "HOTKEY")]
    miner: Option<String>,
    /// Longest wait for its end. A canary that is under way then goes on.
    #[arg(long, default_value = "15m", value_name = "TIME", value_parser = duration::parse)]
    timeout: Duration,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    match args.miner {
        None => {
            let canaries = context.client.canaries().await.map_err(|e| failed(&e))?;
            context.answer(&canaries, list_text)
        }
        Some(miner) => {
            let miner = parse(&miner, "hotkey")?;
            let canary = context.client.canary(miner, args.timeout).await.map_err(|e| failed(&e))?;
            context.answer(&canary, canary_text)
        }
    }
}

fn list_text(Canaries { canaries }: &Canaries) -> String {
    if canaries.is_empty() {
        return "no canary rentals".to_owned();
    }
    let mut rows = vec![row(["begun", "miner", "devices", "result", "stage", "reason", "seconds"])];
    rows.extend(canaries.iter().map(|CanaryRow { record, ended_ms, report }| {
        let outcome = report.as_ref().map(|report| &report.outcome);
        let seconds = ended_ms.map(|ended| (ended.saturating_sub(record.begun_ms) / 1000).to_string());
        row([
            &time(record.begun_ms),
            &record.miner.to_string(),
            &record.devices.len().to_string(),
            outcome.map_or("under way", Outcome::label),
            &or_dash(outcome.filter(|o| o.reason().is_some()).map(Outcome::stage)),
            &or_dash(outcome.and_then(Outcome::reason)),
            &or_dash(seconds),
        ])
    }));
    columns(&rows)
}

fn canary_text(CanaryRow { record, report, .. }: &CanaryRow) -> String {
    let Some(report) = report else { return format!("canary {} is under way", record.id) };
    let mut lines = vec![format!("canary {} at {}", record.id, record.miner)];
    lines.extend(report.stages.iter().map(|s| format!("  {:<9} {:>8.1} s", s.stage, s.took_ms as f64 / 1000.0)));
    lines.extend(report.proved.iter().map(|p| format!("  {} proved {}", p.device, rate_text(p.rate))));
    lines.extend(report.failed.iter().map(|device| format!("  {device} did not prove itself")));
    lines.push(verdict(report));
    if let Some(fault) = &report.unreleased {
        lines.push(format!("not given back yet: {fault}"));
    }
    lines.join("\n")
}

fn verdict(report: &Report) -> String {
    match &report.outcome {
        Outcome::Pass => "pass: a tenant gets what the miner proves".to_owned(),
        Outcome::Fail { stage, reason, detail } => {
            format!("fail at {stage}: {}: {detail}\n{}", reason.text(), reason.remedy())
        }
        Outcome::Unknown { stage, reason, detail } => {
            format!("unknown, at {stage}: {}: {detail}\n{}", reason.text(), reason.remedy())
        }
    }
}
