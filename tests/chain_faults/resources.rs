//! What faults cost, and what they must not show.

use std::time::Duration;

use compute_subnet::chain::Chain as _;
use compute_subnet::chain::subtensor::rpc::{Connection, RpcCounts};
use serde_json::Value;
use subxt::ext::jsonrpsee::rpc_params;

use crate::bench::{Bench, answer, chain, client};
use crate::fake::{Chain, Fake};

/// Resident memory of this process, in KiB.
fn rss() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_node_that_connects_ten_thousand_times_does_not_grow() {
    // Memory is a process's: this one runs other tests meanwhile.
    let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
    alone.args(["--exact", "resources::connects_alone", "--ignored", "--nocapture"]);
    let out = alone.output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&out.stderr));
    said.lines().filter(|line| line.contains("connections:")).for_each(|line| println!("{line}"));
}

#[ignore = "in a process of its own"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connects_alone() {
    let fake = Fake::start(Chain::new()).await;
    let counts = RpcCounts::default();
    let round = async |times: usize| {
        for _ in 0..times {
            let connection = Connection::open(&fake.url(), Duration::from_secs(10), counts.clone()).await.unwrap();
            let _subscription = connection
                .subscribe::<Value>("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads")
                .await
                .unwrap();
            connection.call::<Value>("system_health", rpc_params![]).await.unwrap();
        }
        fake.forget_calls();
    };
    let times = if std::env::var_os("COMPUTE_TEST_LONG").is_some() { 10_000 } else { 2_000 };
    round(500).await;
    let before = rss();
    round(times).await;
    let grown = rss() - before;
    println!("{times} connections: {grown} KiB more, {} open in the node", fake.open());
    assert!(grown < 8 * 1_024, "{grown} KiB more after {times} connections");
    assert_eq!(counts.of("system_health"), times as u64 + 500);
    // The last ones may still be closing.
    for _ in 0..100 {
        if fake.open() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} connections are still open", fake.open());
}

#[tokio::test]
async fn what_an_endpoints_address_hides_is_in_no_error_and_no_metric() {
    if chain().is_none() {
        return;
    }
    let bench = Bench::new(1).await;
    let dead = "ws://operator:hunter2@127.0.0.1:1/c0rrecth0rse/v1?key=tr0ub4dor".to_owned();
    let client = client(&[dead, bench.wires[0].url()]);
    client.head().await.unwrap();
    bench.wires[0].set(crate::proxy::Mode::Gone).await;
    let mut said = String::new();
    for _ in 0..20 {
        if let Err(error) = client.head().await {
            said.push_str(&error.to_string());
        }
        tokio::time::sleep(answer() / 20).await;
    }
    said.push_str(&format!("{:?} {client:?}", client.vitals()));
    assert!(said.contains("cannot be reached"), "{said}");
    for secret in ["hunter2", "c0rrecth0rse", "tr0ub4dor", "operator:"] {
        assert!(!said.contains(secret), "{said}");
    }
}
