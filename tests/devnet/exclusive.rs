//! A validator whose hotkey is used by somebody else as well.

use std::sync::Arc;

use crate::common::{LONG, get, inside, metrics, settings, until};
use crate::{Running, options};
use compute_subnet::chain::ledger::{Deadlines, LedgerClient};
use compute_subnet::chain::{Chain as _, Weights};
use compute_subnet::exit::Exit;
use compute_subnet::ids::Uid;
use compute_subnet::messages::validator::weight_setter::GetScoreboard;
use compute_subnet::sim::devnet::DevnetOptions;
use compute_subnet::sim::keys::DevnetKeys;

#[test]
fn a_validator_sets_no_more_weights_once_somebody_else_sets_some_with_its_hotkey() {
    let dir = tempfile::tempdir().unwrap();
    inside(async |runtime: Arc<tokio::runtime::Runtime>| {
        let options = DevnetOptions { miners: 2, ..options(dir.path()) };
        let net = Running::start(options.clone(), runtime.clone()).await;
        let own = |net: &Running| net.ledger.state().metagraph().by_hotkey(&net.validator).unwrap().clone();
        until("weights are on the ledger", async || net.on_chain().await).await;
        assert_eq!(metrics(net.web).await["compute_hotkey_conflict"], 0.0);

        let key = Arc::new(DevnetKeys::load(dir.path()).unwrap().validator(0));
        let netuid = settings(dir.path()).netuid;
        let elsewhere = LedgerClient::in_process(net.ledger.clone(), netuid, key, Deadlines::default());
        let weights = Weights { entries: vec![(Uid(1), 65_535), (Uid(2), 7)], version_key: u64::MAX };
        // The rate limit may let our own come first; and they may come again before ours were looked at.
        let set = until("weights are set by somebody else, and found", async || {
            let _ = elsewhere.set_weights(&weights).await;
            let found = metrics(net.web).await["compute_hotkey_conflict"] == 1.0;
            found.then(|| own(&net).last_update)
        })
        .await;
        let ready = get(net.web, "/readyz").await;
        assert_eq!(ready.status, 503);
        let told = format!("weights of hotkey {} were set in block ", net.validator);
        assert!(ready.text().contains(&told), "{}", ready.text());

        // Epochs are judged as before, and nothing is set.
        let epoch = async || net.weights.ask(GetScoreboard, LONG).await.unwrap().epoch;
        let then = epoch().await;
        until("two more epochs are judged", async || (epoch().await >= then.map(|e| e + 2)).then_some(())).await;
        let shown = own(&net);
        assert_eq!((shown.last_update, &shown.weights), (set, &weights.entries));
        assert_eq!(net.end().await, Exit::Ok);

        // What is there at a start is nobody's fault: an operator may have moved the node. It sets its own again.
        let net = Running::start(options, runtime).await;
        until("its own weights are on the ledger again", async || net.on_chain().await).await;
        assert_ne!(own(&net).weights, weights.entries);
        assert_eq!(metrics(net.web).await["compute_hotkey_conflict"], 0.0);
        assert_eq!(net.end().await, Exit::Ok);
    });
}
