//! Commands about the node itself.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;

use super::text::{away, columns, now_ms, or_dash, row, time};
use super::{Context, complain, failed, say};
use crate::actors::duty::Duty;
use crate::exit::Exit;
use crate::scoring::decimal;
use crate::settings::Line;
use crate::web::control::api::{Config, DrainWish, MaintenanceWish, Status, Table};

/// How often a drain is looked after.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Debug, clap::Args)]
pub(super) struct MaintenanceArgs {
    /// Begin or end it.
    #[arg(value_enum)]
    switch: Switch,
    /// Why, for whoever is refused a lease meanwhile.
    #[arg(long, default_value = "", value_name = "TEXT")]
    note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, clap::Args)]
pub(super) struct DrainArgs {
    /// First wait until every lease has ended. Without it leases stay: the next start of the node finds them again.
    #[arg(long)]
    wait_for_leases: bool,
    /// Return at once instead of when the node has ended.
    #[arg(long)]
    no_follow: bool,
}

pub(super) async fn status(context: &Context) -> Result<(), Exit> {
    let status = context.client.status().await.map_err(|e| failed(&e))?;
    context.answer(&status, |status| status_text(status, now_ms()))
}

/// The duty as lines for people; nothing while there is none.
fn duty_text(duty: &Duty) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    if let Some(maintenance) = &duty.maintenance {
        let note = if maintenance.note.is_empty() { "no note" } else { &maintenance.note };
        let _ = writeln!(out, "maintenance  since {}: {note}", time(maintenance.since_ms));
    }
    if let Some(drain) = &duty.drain {
        let waits = if drain.wait_for_leases { ", waits for its leases" } else { "" };
        let _ = writeln!(out, "draining     since {}{waits}", time(drain.since_ms));
    }
    out
}

fn status_text(status: &Status, now_ms: u64) -> String {
    let mut rows = vec![
        row([&format!("compute-{}", status.role), &format!("{} (process {})", status.version, status.pid)]),
        row(["hotkey", &status.hotkey.to_string()]),
        row(["uid", &or_dash(status.uid)]),
        row(["up since", &format!("{} ({})", time(status.started_at_ms), away(status.started_at_ms, now_ms))]),
        row(["data", &status.data_dir]),
        row(["block", &format!("{}, epoch {}", or_dash(status.block), or_dash(status.epoch))]),
        row(["leases", &or_dash(status.open_leases)]),
        row(["ready", if status.readiness.ready { "yes" } else { "no" }]),
    ];
    let reason = |r: &crate::web::NotReady| row(["", &format!("{}: {}", r.part, r.reason)]);
    rows.extend(status.readiness.reasons.iter().map(reason));
    columns(&rows) + &duty_text(&status.duty)
}

pub(super) async fn actors(context: &Context) -> Result<(), Exit> {
    let actors = context.client.actors().await.map_err(|e| failed(&e))?;
    context.answer(&actors, |actors| {
        let mut rows = vec![row(["actor", "state", "restarts", "queue", "last failure"])];
        for (name, actor) in actors {
            let vitals = &actor["vitals"];
            let restarts = vitals["restarts"].as_object().into_iter().flat_map(|causes| causes.values());
            let restarts: u64 = restarts.filter_map(serde_json::Value::as_u64).sum();
            let queue = format!("{}/{}", vitals["mailbox_depth"], vitals["mailbox_capacity"]);
            let failure = match &vitals["last_failure"] {
                serde_json::Value::Null => "-".to_owned(),
                failure => failure["message"].as_str().map_or_else(|| failure.to_string(), str::to_owned),
            };
            let state = vitals["state"].as_str().unwrap_or("-");
            rows.push(row([name, state, &restarts.to_string(), &queue, &failure]));
        }
        columns(&rows)
    })
}

pub(super) async fn table(context: &Context) -> Result<(), Exit> {
    let table = context.client.table().await.map_err(|e| failed(&e))?;
    context.answer(&table, table_text)
}

fn table_text(table: &Table) -> String {
    let head = format!(
        "block {}, epoch judged {}, weights on chain of epoch {}\n",
        or_dash(table.block),
        or_dash(table.judged),
        or_dash(table.on_chain)
    );
    let problem = table.problem.as_ref().map(|problem| format!("weights: {problem}\n")).unwrap_or_default();
    let memory = table.memory.as_ref().map(|memory| format!("memory proofs: {memory}\n")).unwrap_or_default();
    let mut rows = vec![row(["uid", "hotkey", "model", "devices", "verdict", "Gop/s", "score", "weight", "leases"])];
    for r in &table.rows {
        let leases: Vec<&str> = r.leases.iter().map(|l| l.state.as_str()).collect();
        rows.push(vec![
            r.uid.to_string(),
            r.hotkey.to_string(),
            or_dash(r.model.as_ref()),
            r.devices.to_string(),
            if r.verdict.is_empty() { "-".to_owned() } else { r.verdict.clone() },
            or_dash(r.rate.map(|rate| decimal(rate.into(), 9, 1))),
            or_dash(r.score),
            or_dash(r.weight),
            if leases.is_empty() { "-".to_owned() } else { leases.join(",") },
        ]);
    }
    head + &problem + &memory + &columns(&rows)
}

pub(super) async fn config(context: &Context) -> Result<(), Exit> {
    let config = context.client.config().await.map_err(|e| failed(&e))?;
    context.answer(&config, |Config { settings }| {
        let line = |Line { key, value, source }: &Line| match source.is_empty() {
            true => format!("{key} = {value}\n"),
            false => format!("{key} = {value}  # {source}\n"),
        };
        settings.iter().map(line).collect()
    })
}

pub(super) async fn reload(context: &Context) -> Result<(), Exit> {
    let changes = context.client.reload().await.map_err(|e| failed(&e))?;
    context.answer(&changes, crate::settings::reload::Changes::to_text)
}

pub(super) async fn maintenance(context: &Context, args: MaintenanceArgs) -> Result<(), Exit> {
    let wish = MaintenanceWish { on: args.switch == Switch::On, note: args.note };
    let duty = context.client.maintenance(&wish).await.map_err(|e| failed(&e))?;
    context.answer(&duty, |duty| match duty_text(duty) {
        text if text.is_empty() => "no maintenance: new leases are taken".to_owned(),
        text => text,
    })
}

pub(super) async fn drain(context: &Context, args: DrainArgs) -> Result<(), Exit> {
    let wish = DrainWish { wait_for_leases: args.wait_for_leases };
    let duty = context.client.drain(wish).await.map_err(|e| failed(&e))?;
    context.answer(&duty, duty_text)?;
    if args.no_follow {
        return Ok(());
    }
    let mut shown = None;
    loop {
        match context.client.status().await {
            Ok(status) if status.duty.drain.is_none() => {
                complain("another node has been started in this directory meanwhile");
                return Ok(());
            }
            Ok(status) => {
                if args.wait_for_leases && status.open_leases != shown && !context.json {
                    say(&format!("waiting     {} leases have not ended", or_dash(status.open_leases)));
                    shown = status.open_leases;
                }
            }
            Err(error) if error.is_not_running() => {
                if !context.json {
                    say("the node has ended");
                }
                return Ok(());
            }
            // It may just be closing the connection.
            Err(_) => {}
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::duty::{Drain, Maintenance};
    use crate::ids::{Hotkey, Uid};
    use crate::messages::validator::memory_runner::MemoryJudged;
    use crate::scoring::Points;
    use crate::store::Role;
    use crate::web::control::api::{TableLease, TableRow};
    use crate::web::{NotReady, Readiness};

    #[test]
    fn a_status_reads_as_what_an_operator_asks_first() {
        let reason = NotReady { part: "chain".into(), reason: "no block was read yet".into() };
        let status = Status {
            role: Role::Validator,
            hotkey: Hotkey([1; 32]),
            uid: Some(Uid(3)),
            version: "0.1.0".into(),
            pid: 7,
            instance: "00".into(),
            started_at_ms: 1_700_000_000_000,
            data_dir: "/var/lib/v".into(),
            block: None,
            epoch: None,
            readiness: Readiness { ready: false, reasons: vec![reason], maintenance: true },
            duty: Duty {
                maintenance: Some(Maintenance { note: "new disk".into(), since_ms: 1_700_000_100_000 }),
                drain: Some(Drain { wait_for_leases: true, since_ms: 1_700_000_200_000 }),
            },
            open_leases: Some(2),
        };
        insta::assert_snapshot!(status_text(&status, 1_700_000_300_000), @r"
        compute-validator  0.1.0 (process 7)
        hotkey             5C62Ck4UrFPiBtoCmeSrgF7x9yv9mn38446dhCpsi2mLHiFT
        uid                3
        up since           2023-11-14T22:13:20Z (5m ago)
        data               /var/lib/v
        block              -, epoch -
        leases             2
        ready              no
                           chain: no block was read yet
        maintenance  since 2023-11-14T22:15:00Z: new disk
        draining     since 2023-11-14T22:16:40Z, waits for its leases
        ");
    }

    #[test]
    fn a_table_shows_each_neuron_with_what_follows_for_it() {
        let lease = TableLease { id: crate::ids::LeaseId([1; 16]), state: "running".into(), devices: Vec::new() };
        let table = Table {
            memory: Some(MemoryJudged { epoch: 2, counts: [("pass".to_owned(), 4)].into() }),
            block: Some(17),
            judged: Some(2),
            on_chain: None,
            problem: Some("too soon".into()),
            rows: vec![TableRow {
                uid: Uid(1),
                hotkey: Hotkey([1; 32]),
                model: Some("cpu-1".into()),
                devices: 1,
                verdict: "pass".into(),
                rate: Some(31_400_000_000),
                score: Some(Points(103_125_000_000)),
                weight: Some(65_535),
                leases: vec![lease],
            }],
        };
        insta::assert_snapshot!(table_text(&table), @r"
        block 17, epoch judged 2, weights on chain of epoch -
        weights: too soon
        memory proofs: epoch 2: 4 pass
        uid  hotkey                                            model  devices  verdict  Gop/s  score     weight  leases
        1    5C62Ck4UrFPiBtoCmeSrgF7x9yv9mn38446dhCpsi2mLHiFT  cpu-1  1        pass     31.4   103.1250  65535   running
        ");
    }
}
