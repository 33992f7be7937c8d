//! `compute-register` against a subtensor runtime: what it reads, a registration, weights tried out and sent.

use std::path::Path;
use std::process::Stdio;

use compute_subnet::ids::Netuid;
use compute_subnet::wallet::{Keypair, keyfile};
use serde_json::{Value, json};

use crate::bed::{Bed, Seed, Start, account, hotkey};
use crate::wait::LONG;

/// The chain's tool with a wallet of these keys, in a subnet of its own.
struct Tool<'a> {
    bed: &'a Bed,
    netuid: Netuid,
    home: tempfile::TempDir,
}

impl<'a> Tool<'a> {
    fn new(bed: &'a Bed, netuid: Netuid, cold: &Keypair, hot: &Keypair) -> Self {
        let home = tempfile::tempdir().unwrap();
        let wallet = home.path().join(".bittensor/wallets/default");
        keyfile::create(&wallet.join("coldkey"), cold).unwrap();
        let owner = compute_subnet::ids::Coldkey(cold.hotkey().0);
        keyfile::create_coldkeypub(&wallet.join("coldkeypub.txt"), &owner).unwrap();
        keyfile::create(&wallet.join("hotkeys/default"), hot).unwrap();
        Tool { bed, netuid, home }
    }

    async fn run(&self, code: i32, args: &[&str]) -> Value {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_compute-register"));
        command.args(args).arg("--json").env_clear().env("HOME", self.home.path());
        command.args(["--subtensor.network", "local", "--subtensor.chain_endpoint", &self.bed.url()]);
        command.args(["--netuid", &self.netuid.to_string()]).stdin(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(LONG, command.output()).await.expect("it ends").unwrap();
        let err = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(code), "{args:?}: {err} {}", String::from_utf8_lossy(&ended.stdout));
        serde_json::from_slice(&ended.stdout).unwrap_or(Value::String(err))
    }

    fn weights(&self, json: &Value) -> String {
        let file = self.home.path().join("weights.json");
        std::fs::write(&file, json.to_string()).unwrap();
        Path::to_str(&file).unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hotkey_is_registered_and_shown_by_the_operators_tool() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    let (cold, hot) = (Keypair::from_uri("//Alice").unwrap(), Keypair::from_uri("//tool//hot").unwrap());
    let tool = Tool::new(&bed, netuid, &cold, &hot);

    let rules = tool.run(0, &["hyperparameters"]).await;
    let burn = rules["hyperparameters"].as_array().unwrap().iter().find(|rule| rule["name"] == "Burn").unwrap();
    let burn = burn["value"].as_u64().unwrap();
    assert!(burn > 0, "{rules}");
    let before = tool.run(0, &["balance"]).await["balance_rao"].as_u64().unwrap();
    let dear = tool.run(65, &["register", "--yes", "--max-cost", "0.000000001"]).await;
    assert!(dear.as_str().unwrap().contains("more than --max-cost"), "{dear}");

    let done = tool.run(0, &["register", "--yes"]).await;
    assert_eq!(done["outcome"], "registered", "{done}");
    let uid = done["uid"].as_u64().unwrap();
    assert_eq!(bed.storage("SubtensorModule", "Uids", json!([netuid.0, account(&hot)])).await, uid);
    let after = tool.run(0, &["balance"]).await["balance_rao"].as_u64().unwrap();
    assert!(after <= before - burn && before - after < burn + 1_000_000_000, "{before} {after} {burn}");
    assert_eq!(tool.run(0, &["register"]).await["outcome"], "already_registered");

    let shown = tool.run(0, &["metagraph", "--uid", &uid.to_string()]).await;
    assert_eq!(shown["neurons"][0]["hotkey"], hot.hotkey().to_string());
    let absent = tool.run(0, &["weights", "show"]).await;
    assert_eq!(absent["weights"], json!([]));

    let nowhere = Tool { netuid: Netuid(4_000), ..tool };
    for args in [&["metagraph"][..], &["hyperparameters"], &["register", "--yes"]] {
        let told = nowhere.run(65, args).await;
        assert!(told.as_str().unwrap().contains("--netuid"), "{args:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_tried_out_and_sent_as_the_runtime_takes_them() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let netuid = bed.register_subnet().await;
    bed.seed(netuid, Seed { neurons: 6, validators: 2, ..Seed::default() }).await;
    let cold = Keypair::from_uri("//n0").unwrap();
    let tool = Tool::new(&bed, netuid, &cold, &hotkey(0));
    let file = tool.weights(&json!({ "2": 1.0, "3": 0.5 }));

    let dry = tool.run(0, &["weights", "set", "--dry-run", &file]).await;
    assert_eq!((&dry["route"], &dry["prepared"], &dry["sent"]), (&json!("plain"), &json!(true), &Value::Null), "{dry}");
    // Without a key the runtime cannot be asked.
    let other = hotkey(1).hotkey().to_string();
    let dry = tool.run(0, &["weights", "set", "--dry-run", "--hotkey", &other, &file]).await;
    assert_eq!((&dry["route"], &dry["prepared"]), (&json!("plain"), &json!(false)), "{dry}");
    let miner = hotkey(4).hotkey().to_string();
    let dry = tool.run(65, &["weights", "set", "--dry-run", "--hotkey", &miner, &file]).await;
    assert_eq!(dry["refused"][0]["name"], "NeuronNoValidatorPermit", "{dry}");

    let sent = tool.run(0, &["weights", "set", "--yes", &file]).await;
    assert!(sent["sent"]["block"].is_u64(), "{sent}");
    bed.new_blocks(1).await;
    let shown = tool.run(0, &["weights", "show", "--uid", "0"]).await;
    assert_eq!((&shown["weights"][0]["weight"], &shown["weights"][1]["weight"]), (&json!(65_535), &json!(32_768)));
    assert_eq!(tool.run(0, &["weights", "show", "--all"]).await["validators"][0]["weights"], shown["weights"]);

    bed.set_storage(&[("SubtensorModule", "CommitRevealWeightsEnabled", json!([netuid.0]), json!(true))]).await;
    bed.new_blocks(1).await;
    let dry = tool.run(0, &["weights", "set", "--dry-run", &file]).await;
    assert!(["hashed", "timelocked"].contains(&dry["route"].as_str().unwrap()), "{dry}");
    assert!(dry["reveal"][0].as_u64() > dry["block"].as_u64(), "{dry}");
}
