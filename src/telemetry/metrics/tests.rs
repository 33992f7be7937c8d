//! What is there from the start, and what outside text cannot do.

use std::time::Duration;

use super::*;
use crate::clock::ManualClock;
use crate::ids::Uid;
use crate::telemetry::encode;

fn node(registry: &Registry) -> (Arc<NodeMetrics>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at_ns(1_000_000_000_000));
    let build = BuildInfo { version: "1.2.3".into(), commit: "abc".into(), role: "validator".into() };
    (NodeMetrics::register(registry, &build, &Labels::default(), clock.clone()).unwrap(), clock)
}

#[test]
fn every_combination_of_a_closed_set_is_there_from_the_start_at_zero() {
    let registry = Registry::new();
    let _node = node(&registry);
    let text = encode(&registry).unwrap();
    for values in verdicts() {
        let line = format!("compute_challenge_total{{reason=\"{}\",verdict=\"{}\"}} 0\n", values[1], values[0]);
        assert!(text.contains(&line), "{line}");
    }
    for state in Labels::default().lease_states {
        assert!(text.contains(&format!("compute_leases{{state=\"{state}\"}} 0\n")), "{state}");
    }
    assert!(text.contains(r#"compute_build_info{commit="abc",role="validator",version="1.2.3"} 1"#));
    assert!(text.contains(r#"compute_axon_requests_total{outcome="ok",path="/Challenge"} 0"#));
}

#[test]
fn a_second_node_needs_its_own_registry() {
    let registry = Registry::new();
    let (_first, clock) = node(&registry);
    assert!(NodeMetrics::register(&registry, &BuildInfo::of("miner"), &Labels::default(), clock).is_err());
}

#[test]
fn ages_grow_without_anybody_updating_them() {
    let registry = Registry::new();
    let (metrics, clock) = node(&registry);
    metrics.block(7);
    clock.advance(Duration::from_secs(90));
    let text = encode(&registry).unwrap();
    assert!(text.contains("compute_chain_block_age_seconds 90\n"), "{text}");
    assert!(text.contains("compute_chain_block 7\n"));
    metrics.chain_view(Duration::from_secs(30), true);
    clock.advance(Duration::from_secs(5));
    let text = encode(&registry).unwrap();
    assert!(text.contains("compute_chain_view_age_seconds 35\n") && text.contains("compute_chain_view_stored 1\n"));
    clock.set_ns(0);
    assert!(encode(&registry).unwrap().contains("compute_chain_block_age_seconds 0\n"), "a clock that went back");
}

#[test]
fn neurons_that_are_gone_lose_their_series() {
    let registry = Registry::new();
    let (metrics, _) = node(&registry);
    metrics.scores(&[(Uid(1), 3.5), (Uid(2), 100.0)]);
    metrics.scores(&[(Uid(2), 50.0)]);
    let text = encode(&registry).unwrap();
    assert!(!text.contains(r#"compute_score_points{uid="1"}"#));
    assert!(text.contains("compute_score_points{uid=\"2\"} 50\n"));
    metrics.forget(Uid(2));
    assert!(!encode(&registry).unwrap().contains("compute_score_points{"));
}

#[test]
fn a_chain_that_misreports_cannot_grow_the_series_without_bound() {
    let registry = Registry::new();
    let (metrics, _) = node(&registry);
    let many: Vec<(Uid, f64)> = (0..=u16::MAX).map(|uid| (Uid(uid), 0.1)).collect();
    metrics.weights(&many);
    let text = encode(&registry).unwrap();
    assert_eq!(text.matches("compute_weight_ratio{").count(), crate::telemetry::MAX_UID_SERIES);
}

#[test]
fn a_path_that_a_caller_made_up_is_counted_as_other() {
    let registry = Registry::new();
    let (metrics, _) = node(&registry);
    metrics.axon_request("/../../etc/passwd", "malformed");
    let text = encode(&registry).unwrap();
    assert!(text.contains("compute_axon_requests_total{outcome=\"malformed\",path=\"other\"} 1\n"));
    assert!(!text.contains("passwd"));
}

#[test]
fn the_figures_of_the_process_are_there_once() {
    let registry = Registry::new();
    register_process(&registry).unwrap();
    assert!(encode(&registry).unwrap().contains("process_resident_memory_bytes "));
    assert!(register_process(&registry).is_err());
}

#[test]
fn the_text_of_a_full_subnet_stays_small() {
    let registry = Registry::new();
    let (metrics, _) = node(&registry);
    let all: Vec<(Uid, f64)> = (0..256).map(|uid| (Uid(uid), 1.0 / 256.0)).collect();
    metrics.scores(&all);
    metrics.weights(&all);
    let text = encode(&registry).unwrap();
    assert!(text.len() < 96 * 1024, "{} bytes", text.len());
}
