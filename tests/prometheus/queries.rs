//! What dashboards and alert rules ask Prometheus, as text that it takes.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// Something to ask.
pub(crate) struct Query {
    /// Whose query it is, for messages.
    pub(crate) of: String,
    /// In PromQL, without variables.
    pub(crate) expr: String,
}

/// An alert rule of the repository.
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expr: String,
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn dashboard(path: &str) -> Value {
    serde_json::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// An expression as Grafana sends it where everything is chosen.
fn filled(expr: &str) -> String {
    let expr = [
        ("$__rate_interval", "15s"),
        ("$__interval", "5s"),
        ("$__range", "1m"),
        ("${job}", ".+"),
        ("$job", ".+"),
        ("${instance}", ".+"),
        ("$instance", ".+"),
    ]
    .iter()
    .fold(expr.to_owned(), |expr, (variable, value)| expr.replace(variable, value));
    assert!(!expr.contains('$'), "a variable that nobody fills: {expr}");
    expr
}

/// The query of every target of every panel. Fails for a panel without one.
pub(crate) fn panels(path: &str) -> Vec<Query> {
    let dashboard = dashboard(path);
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|p| p["type"] != "row") {
        let of = format!("{path}: {}", panel["title"].as_str().unwrap());
        let targets = panel["targets"].as_array().filter(|t| !t.is_empty());
        for target in targets.unwrap_or_else(|| panic!("{of} asks nothing")) {
            queries.push(Query { of: of.clone(), expr: filled(target["expr"].as_str().unwrap()) });
        }
    }
    queries
}

/// Series and label of each variable that is a query: `label_values(SERIES, LABEL)`.
pub(crate) fn variables(path: &str) -> Vec<(String, String)> {
    let dashboard = dashboard(path);
    let list = dashboard["templating"]["list"].as_array().unwrap();
    let queries = list.iter().filter(|v| v["type"] == "query").map(|v| v["definition"].as_str().unwrap());
    let pairs = queries.map(|text| {
        let inner = text.strip_prefix("label_values(").and_then(|t| t.strip_suffix(')'));
        let (series, label) = inner.unwrap_or_else(|| panic!("{path}: {text}")).rsplit_once(',').unwrap();
        (filled(series.trim()), label.trim().to_owned())
    });
    pairs.collect()
}

/// The alert rules, in the order of the file. Expressions are `expr: …` on one line, or `expr: |` and deeper lines below.
pub(crate) fn alerts() -> Vec<Alert> {
    let text = read("dashboards/alerts.yml");
    let mut alerts: Vec<Alert> = Vec::new();
    let mut block = None;
    for line in text.lines() {
        let (indent, line) = (line.len() - line.trim_start().len(), line.trim());
        if let Some(outer) = block {
            if indent > outer {
                let expr = &mut alerts.last_mut().unwrap().expr;
                expr.push(' ');
                expr.push_str(line);
                continue;
            }
            block = None;
        }
        if let Some(name) = line.strip_prefix("- alert: ") {
            alerts.push(Alert { name: name.to_owned(), expr: String::new() });
        } else if let Some(expr) = line.strip_prefix("expr: ") {
            alerts.last_mut().unwrap().expr = expr.trim_start_matches('|').trim().to_owned();
            block = (expr == "|").then_some(indent);
        }
    }
    assert!(!alerts.is_empty() && alerts.iter().all(|a| !a.expr.is_empty()));
    alerts
}

/// The series that an expression looks at, with their matchers: a matcher of alternatives (`=~"a|b"`) once for each, so
/// that one which no node exports is found.
pub(crate) fn selectors(expr: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = expr;
    while let Some(at) = ["compute_", "process_", "up{"].iter().filter_map(|p| rest.find(p)).min() {
        let tail = &rest[at..];
        let name = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
        let end = match tail[name..].strip_prefix('{') {
            Some(matchers) => name + 2 + matchers.find('}').expect("matchers end"),
            None => name,
        };
        found.extend(alternatives(&tail[..end]));
        rest = &tail[end..];
    }
    found
}

fn alternatives(selector: &str) -> Vec<String> {
    let Some((begin, regex)) = selector.split_once("=~\"") else { return vec![selector.to_owned()] };
    let (regex, end) = regex.split_once('"').expect("a quoted matcher ends");
    // The rest may have alternatives of its own.
    let ends = alternatives(end);
    regex.split('|').flat_map(|one| ends.iter().map(move |end| format!("{begin}=~\"{one}\"{end}"))).collect()
}

#[test]
fn selectors_are_found_with_each_alternative() {
    let expr =
        r#"sum by (job) (rate(compute_a_total{x=~"b|c", y!="d"}[5m])) / compute_e > 0 and up{job=~"compute.*"} == 0"#;
    let found: Vec<String> = selectors(expr).into_iter().collect();
    let wanted = [
        r#"compute_a_total{x=~"b", y!="d"}"#,
        r#"compute_a_total{x=~"c", y!="d"}"#,
        "compute_e",
        r#"up{job=~"compute.*"}"#,
    ];
    assert_eq!(found, wanted);
}
