//! What dashboards, alerts and documents name exists, and what exists is documented.
//!
//! Needs `promtool` (Debian's package `prometheus`); `scripts/test` installs it.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests: a panic is a failed test")]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use compute_subnet::chain::Rejection;
use compute_subnet::chain::Vitals;
use compute_subnet::chain::standing::Change;
use compute_subnet::chain::weights::divergence::divergence;
use compute_subnet::clock::SystemClock;
use compute_subnet::ids::Uid;
use compute_subnet::telemetry::{
    BuildInfo, Kind, Labels, Metric, NodeMetrics, encode, register_chain, register_process,
};
use compute_subnet::verdict::{FailReason, UnknownCause, Verdict};

/// What dashboards and alerts may use beside our own: Prometheus' `up` and the process collector's.
const FOREIGN: &[&str] = &[
    "up",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
];

fn root(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
fn read(path: &str) -> String {
    std::fs::read_to_string(root(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}
fn json(path: &str) -> serde_json::Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A node's registry after some of everything has happened.
fn node() -> prometheus::Registry {
    let registry = prometheus::Registry::new();
    let build = BuildInfo::of("validator");
    let metrics = NodeMetrics::register(&registry, &build, &Labels::default(), Arc::new(SystemClock)).unwrap();
    register_process(&registry).unwrap();
    register_chain(&registry, Vitals::default).unwrap();
    metrics.block(12);
    metrics.challenge(&Verdict::unknown(UnknownCause::Timeout, "late"));
    metrics.challenge_stage("total", Duration::from_millis(700));
    metrics.verify_cpu(Duration::from_millis(2));
    metrics.memory_bandwidth("NVIDIA H200", 3_900_000_000_000);
    metrics.scores(&[(Uid(0), 3.125), (Uid(255), 200.0)]);
    metrics.weights(&[(Uid(0), 0.25), (Uid(255), 0.75)]);
    metrics.weights_set("ok");
    let others = [(Uid(1), 7)];
    metrics.weights_compared(&divergence(Uid(3), &[(Uid(1), 65_535)], &others).into_iter().collect::<Vec<_>>());
    metrics.journal_commit(Duration::from_micros(300));
    metrics.prover_run("ok", Duration::from_secs(1));
    registry
}

/// All words of an expression that could be a metric: snake case, not in a string, not a label of a matcher.
fn names_in(expr: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let (mut word, mut quoted, mut braces) = (String::new(), false, 0);
    for c in expr.chars().chain([' ']) {
        if c == '"' {
            quoted = !quoted;
        }
        if !quoted && (c.is_ascii_alphanumeric() || c == '_') {
            word.push(c);
            continue;
        }
        let prefixed = word.starts_with("compute_") || word.starts_with("process_");
        if braces == 0 && (prefixed || c == '{') && !word.is_empty() {
            names.insert(std::mem::take(&mut word));
        }
        word.clear();
        match c {
            '{' if !quoted => braces += 1,
            '}' if !quoted => braces -= 1,
            _ => {}
        }
    }
    names
}

/// Whether a name in an expression is a series that a node exports.
fn exists(name: &str) -> bool {
    FOREIGN.contains(&name)
        || Metric::ALL.iter().any(|m| match m.kind() {
            Kind::Histogram => {
                name.strip_prefix(m.name()).is_some_and(|suffix| ["_bucket", "_sum", "_count"].contains(&suffix))
            }
            _ => m.name() == name,
        })
}

fn expressions(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                match value {
                    serde_json::Value::String(text) if ["expr", "definition"].contains(&key.as_str()) => {
                        found.push(text.clone());
                    }
                    value => expressions(value, found),
                }
            }
        }
        serde_json::Value::Array(list) => list.iter().for_each(|v| expressions(v, found)),
        _ => {}
    }
}

/// Runs promtool with this input. If it is not installed, fails with what to do, or says what is left out where that
/// was asked for.
fn promtool(args: &[&str], input: &str) {
    let child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir(root(""))
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(_) if std::env::var("COMPUTE_TEST_WITHOUT_PROMTOOL").is_ok_and(|v| v == "1") => {
            println!("LEFT OUT: promtool {}: promtool is not installed", args.join(" "));
            return;
        }
        Err(e) => panic!(
            "promtool cannot be run ({e}): run scripts/test, which installs what the tests need, or install Debian's \
             package prometheus; COMPUTE_TEST_WITHOUT_PROMTOOL=1 leaves these checks out"
        ),
    };
    let mut stdin = child.stdin.take().unwrap();
    let text = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
    let out = child.wait_with_output().unwrap();
    // A tool that stops reading early says why in its output.
    let _ = writer.join().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "promtool {}: {said}", args.join(" "));
}

#[test]
fn names_are_found_in_expressions() {
    let expr = r#"sum by (le, actor) (rate(compute_a_bucket{job=~"$job", x="compute_no"}[5m])) / up{a="b"} > time()"#;
    assert_eq!(names_in(expr).into_iter().collect::<Vec<_>>(), ["compute_a_bucket", "up"]);
    assert!(exists("compute_actor_handling_seconds_bucket"));
    assert!(!exists("compute_actor_handling_seconds"), "a histogram has no series of its own name");
    assert!(!exists("compute_actor_restarts"));
}

#[test]
fn every_metric_of_the_dashboards_exists() {
    for path in ["dashboards/runtime.json", "dashboards/subnet.json"] {
        let mut found = Vec::new();
        expressions(&json(path), &mut found);
        assert!(found.len() > 10, "{path} has {} expressions", found.len());
        for expr in found {
            let expr = expr.strip_prefix("label_values(").unwrap_or(&expr);
            let names = names_in(expr);
            assert!(!names.is_empty(), "{path}: no metric in {expr:?}");
            for name in names {
                assert!(exists(&name), "{path}: {name} in {expr:?} is no metric of a node");
            }
        }
    }
}

#[test]
fn every_dashboard_lets_one_choose_source_and_node() {
    for path in ["dashboards/runtime.json", "dashboards/subnet.json"] {
        let dashboard = json(path);
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        let names: Vec<_> = variables.iter().map(|v| v["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["datasource", "job", "instance"], "{path}");
        let panels = dashboard["panels"].as_array().unwrap();
        let mut ids = BTreeSet::new();
        for panel in panels {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{path}: two panels with the id of {title:?}");
            if panel["type"] == "row" {
                continue;
            }
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{path}: {title}");
            assert!(panel["description"].as_str().is_some_and(|d| !d.is_empty()), "{path}: {title} has no description");
            for target in panel["targets"].as_array().unwrap() {
                assert!(target["expr"].as_str().unwrap().contains("instance=~\"$instance\""), "{path}: {title}");
            }
        }
    }
}

#[test]
fn every_metric_of_the_alerts_exists() {
    // Expressions are `expr: …` on one line, or `expr: |` and deeper lines below.
    let text = read("dashboards/alerts.yml");
    let (mut found, mut block): (Vec<String>, Option<usize>) = (Vec::new(), None);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if let Some(outer) = block {
            if indent > outer {
                found.last_mut().unwrap().push_str(line);
                continue;
            }
            block = None;
        }
        if let Some(expr) = line.trim_start().strip_prefix("expr:") {
            found.push(expr.trim_start_matches([' ', '|']).to_owned());
            block = expr.trim().starts_with('|').then_some(indent);
        }
    }
    assert_eq!(found.len(), text.matches("- alert:").count());
    for expr in found {
        let names = names_in(&expr);
        assert!(!names.is_empty(), "no metric in {expr:?}");
        for name in names {
            assert!(exists(&name), "dashboards/alerts.yml: {name} in {expr:?} is no metric of a node");
        }
    }
}

#[test]
fn every_alert_is_shown_to_fire_and_to_keep_quiet() {
    let tests = read("dashboards/alerts_test.yml");
    for line in read("dashboards/alerts.yml").lines() {
        let Some(alert) = line.trim_start().strip_prefix("- alert: ") else { continue };
        let cases: Vec<_> = tests.split("  - name: ").filter(|case| case.contains(&format!("\"{alert}\""))).collect();
        let quiet = cases.iter().filter(|case| case.contains("exp_samples: []")).count();
        assert!(quiet > 0 && quiet < cases.len(), "{alert}: {} cases, {quiet} quiet", cases.len());
    }
}

/// Every Rust source below `dir`, as path and text.
fn sources(dir: PathBuf, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

#[test]
fn every_declared_event_is_emitted_somewhere() {
    let events = read("src/telemetry/events.rs");
    let mut all = Vec::new();
    sources(root("src"), &mut all);
    let declared = events.lines().filter_map(|l| l.strip_prefix("pub struct "));
    let declared: Vec<&str> = declared.map(|l| l.split(['<', ' ', '(', ';']).next().unwrap()).collect();
    assert!(declared.len() > 5, "{declared:?}");
    for event in declared {
        let names = |text: &str| text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == event);
        let emitted = all
            .iter()
            .any(|(path, text)| !path.ends_with("telemetry/events.rs") && names(text) && text.contains(".emit("));
        assert!(emitted, "{event} is declared in telemetry::events and never emitted");
    }
}

#[test]
fn the_document_names_what_a_node_exports_and_nothing_else() {
    let text = read("docs/instrumentation.md");
    let documented: BTreeSet<String> =
        text.lines().filter(|line| line.starts_with("| `compute_")).map(str::to_owned).collect();
    let exported: BTreeSet<String> = Metric::ALL
        .iter()
        .map(|m| {
            let labels: Vec<_> = m.labels().iter().map(|l| format!("`{l}`")).collect();
            let labels = if labels.is_empty() { "–".to_owned() } else { labels.join(", ") };
            let kind = format!("{:?}", m.kind()).to_lowercase();
            format!("| `{}` | {kind} | {labels} | {} |", m.name(), m.help())
        })
        .collect();
    let only = |a: &BTreeSet<String>, b: &BTreeSet<String>| a.difference(b).cloned().collect::<Vec<_>>().join("\n");
    assert_eq!(
        documented,
        exported,
        "\nonly in the document:\n{}\nonly in the code:\n{}",
        only(&documented, &exported),
        only(&exported, &documented)
    );
}

#[test]
fn the_document_has_every_reason_with_its_remedy() {
    let text = read("docs/instrumentation.md");
    let fails = FailReason::ALL.iter().map(|r| (r.label(), r.text(), r.remedy()));
    let unknowns = UnknownCause::ALL.iter().map(|c| (c.label(), c.text(), c.remedy()));
    for (label, what, remedy) in fails.chain(unknowns) {
        let row = format!("| `{label}` | {what} | {remedy} |");
        assert!(text.contains(&row), "docs/instrumentation.md lacks\n{row}");
    }
}

#[test]
fn the_document_has_every_refusal_of_the_chain_and_every_event_of_the_own_neuron() {
    let text = read("docs/standing.md");
    for name in Rejection::NAMES {
        let refusal = Rejection::of_name(name).unwrap_or_else(|| match *name {
            "StaleTransaction" => Rejection::StaleTransaction(0),
            "FutureTransaction" => Rejection::FutureTransaction(0),
            other => panic!("{other} carries a number: make one here"),
        });
        let row = format!("| `{name}` | {} |", refusal.text());
        assert!(text.contains(&row), "docs/standing.md lacks\n{row}");
    }
    for event in Change::LABELS {
        assert!(text.contains(&format!("| `{event}`")), "docs/standing.md lacks {event}");
    }
}

#[test]
fn a_node_exports_all_but_the_actors_metrics_under_the_declared_kind_and_labels() {
    let families = node().gather();
    for metric in Metric::ALL.iter().filter(|m| !m.name().starts_with("compute_actor_")) {
        let family = families.iter().find(|f| f.name() == metric.name());
        let family = family.unwrap_or_else(|| panic!("{} is declared and not exported", metric.name()));
        assert_eq!(
            format!("{:?}", family.get_field_type()).to_lowercase(),
            format!("{:?}", metric.kind()).to_lowercase()
        );
        assert_eq!(family.help(), metric.help());
        for series in family.get_metric() {
            let labels: BTreeSet<_> = series.get_label().iter().map(|l| l.name()).collect();
            assert_eq!(labels, metric.labels().iter().copied().collect(), "{}", metric.name());
        }
    }
    for family in &families {
        let name = family.name();
        assert!(name.starts_with("process_") || Metric::ALL.iter().any(|m| m.name() == name), "{name} is not declared");
    }
}

#[test]
fn metrics_pass_promtools_lint() {
    promtool(&["check", "metrics"], &encode(&node()).unwrap());
}

#[test]
fn alert_rules_are_valid_and_fire_when_they_should() {
    promtool(&["check", "rules", "dashboards/alerts.yml"], "");
    promtool(&["test", "rules", "dashboards/alerts_test.yml"], "");
}
