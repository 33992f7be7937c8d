//! `compute-register probe`, the program.

use std::process::Stdio;

use compute_subnet::sim::keys::DevnetKeys;
use compute_subnet::wallet::Keypair;
use serde_json::Value;
use tokio::process::Command;

use crate::support::*;

/// Runs it with the first validator's key of a devnet; its key, exit code and output.
async fn probe(args: &[&str]) -> (Keypair, Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let keys = DevnetKeys::load(dir.path()).unwrap();
    let receiver = key("Alice").hotkey().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_compute-register"));
    command.arg("probe").args(args).args(["--receiver", &receiver, "--timeout", "10s", "--devnet-keys"]);
    let output = command.arg(dir.path()).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LONG, output).await.unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (keys.validator(0), output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_tells_whether_an_axon_takes_this_key() {
    let server = Server::start(|_| {
        let body = r#"{"output":{"status":true}}"#;
        Answer::Keep(http(200, &["bt_header_axon_status_code: 200"], body))
    })
    .await;
    let address = server.peer.addr.to_string();
    let (caller, code, text) = probe(&[&address]).await;
    assert_eq!(code, Some(0), "{text}");
    for line in ["200 Success", "by nobody", "/Allocate, scheme both", "machine  free", &caller.hotkey().to_string()] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("check"), "{text}");

    let (_, code, text) = probe(&[&address, "--json", "--scheme", "classic"]).await;
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &json["success"], &json["status"]), (Some(0), &true.into(), &200.into()), "{text}");
    assert_eq!((&json["outcome"], &json["signed_by"]), (&"success".into(), &"nobody".into()));
    assert_eq!(json["free"], true);
    let requests = server.requests();
    let body: Value = serde_json::from_str(&requests[0].body).unwrap();
    assert_eq!((&body["checking"], &body["timeline"]), (&true.into(), &1.into()));
    assert!(requests[0].has("x-bittensor-signature") && requests[0].has("bt_header_dendrite_signature"));
    assert!(!requests[1].has("x-bittensor-signature") && requests[1].has("bt_header_dendrite_signature"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_says_what_to_check() {
    let refusal = http(401, &[], r#"{"message":"Not Verified with error: Signature mismatch"}"#);
    let server = Server::start(move |_| Answer::Keep(refusal.clone())).await;
    let (_, code, text) = probe(&[&server.peer.addr.to_string()]).await;
    assert_eq!(code, Some(65), "{text}");
    assert!(
        text.contains("401 Not Verified with error") && text.contains("check    --receiver is the hotkey"),
        "{text}"
    );

    let (_, code, text) = probe(&["127.0.0.1:1"]).await;
    assert_eq!(code, Some(69), "{text}");
    assert!(
        text.contains("503 Service unavailable at 127.0.0.1:1/Allocate") && text.contains("forwards the port"),
        "{text}"
    );

    let (_, code, text) = probe(&["nonsense"]).await;
    assert!(code == Some(64) && text.contains("is not a HOST:PORT"), "{text}");
}
