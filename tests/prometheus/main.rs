//! A real Prometheus scrapes a running devnet with the repository's rules: every panel of the dashboards shows
//! something, every alert looks at series that exist, and on a healthy subnet none is active.
//!
//! Needs `prometheus` (Debian's package of that name); `scripts/test` installs it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests: a panic is a failed test")]

#[path = "../common/mod.rs"]
#[expect(dead_code, unused_imports, reason = "not every test needs all that is shared")]
mod common;
mod queries;
mod server;

use std::collections::BTreeSet;
use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use common::{LONG, PROVER, assert_unharmed, inside, settings};
use compute_subnet::exit::Exit;
use compute_subnet::sim::devnet::{Devnet, DevnetOptions};
use queries::{Query, alerts, panels, selectors, variables};
use server::Prometheus;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Scrapes, one a second, after which everything that is going to be seen has been seen.
const SCRAPES: u32 = 25;

fn options(dir: &tempfile::TempDir) -> DevnetOptions {
    let base = DevnetOptions::new(dir.path().join("devnet"), PROVER);
    DevnetOptions { miners: 3, cheaters: 1, rentals: 1, speed: 0.5, ..base }
}

#[test]
fn dashboards_and_alerts_work_on_a_running_devnet() {
    let dir = tempfile::tempdir().unwrap();
    let Some(program) = server::installed() else { return };
    inside(async |runtime| {
        let options = options(&dir);
        let any = "127.0.0.1:0".parse().unwrap();
        let devnet = Devnet::start(&options, settings(&options.dir).into(), any, runtime).await.unwrap();
        let validator = devnet.validator.as_ref().unwrap();
        let mut nodes = vec![("validator".to_owned(), validator.node.web, validator.node.view.clone())];
        nodes.extend(devnet.miners.iter().map(|m| (m.name.clone(), m.node.node.web, m.node.node.view.clone())));
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::task::spawn_local(devnet.run(options.rentals, async move {
            if stopped.await.is_err() {
                pending::<()>().await;
            }
        }));

        let targets: Vec<SocketAddr> = nodes.iter().map(|(_, web, _)| *web).collect();
        let prometheus = Prometheus::start(&program, &dir.path().join("prometheus"), &targets).await;
        prometheus.scraped(&targets, SCRAPES).await;
        every_query_shows_something(&prometheus).await;
        the_alerts_are_loaded_and_quiet(&prometheus).await;

        for (name, web, view) in &nodes {
            assert_unharmed(name, *web, view).await;
        }
        stop.send(()).unwrap();
        assert_eq!(tokio::time::timeout(LONG, running).await.expect("a devnet ends in time").unwrap(), Exit::Ok);
    });
}

/// Every panel's and variable's query, and every series that an alert looks at.
async fn every_query_shows_something(prometheus: &Prometheus) {
    let mut queries = Vec::new();
    for dashboard in ["dashboards/runtime.json", "dashboards/subnet.json"] {
        for variable in variables(dashboard) {
            let values = prometheus.label_values(&variable).await;
            assert!(!values.is_empty(), "{dashboard}: no choice for {variable:?}");
        }
        queries.extend(panels(dashboard));
    }
    for alert in alerts() {
        for selector in selectors(&alert.expr) {
            queries.push(Query { of: format!("alert {}", alert.name), expr: selector });
        }
    }
    println!("{} queries", queries.len());
    // What only comes with a rental or an epoch may be late by some of them; nothing may stay away.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let mut missing = Vec::new();
        for query in &queries {
            let (now, range) = (prometheus.instant(query).await, prometheus.range(query).await);
            if now == 0 || range == 0 {
                missing.push(format!("{}: {now} series now, {range} in the range: {}", query.of, query.expr));
            }
        }
        if missing.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "queries without series:\n{}", missing.join("\n"));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// All rules are loaded and can be evaluated, and none is active, not even one that only waits for its `for:`. The
/// cheater's fails are no burst: there is no usual to compare them with yet.
async fn the_alerts_are_loaded_and_quiet(prometheus: &Prometheus) {
    let rules = prometheus.rules().await;
    let loaded: BTreeSet<&str> = rules.iter().map(|r| r.name.as_str()).collect();
    let alerts = alerts();
    assert_eq!(loaded, alerts.iter().map(|a| a.name.as_str()).collect());
    for rule in &rules {
        assert_eq!((rule.health.as_str(), rule.error.as_str()), ("ok", ""), "{}", rule.name);
    }
    let active: BTreeSet<&str> = rules.iter().filter(|r| r.state != "inactive").map(|r| r.name.as_str()).collect();
    assert_eq!(active, BTreeSet::new());
}
