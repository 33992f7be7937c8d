//! A ledger that is not there yet, and one that goes away.

use std::net::SocketAddr;

use crate::common::{assert_unharmed, free_ports, get, inside, until};
use crate::world::{Running, World, honest, key, serve};

/// The parts that `/readyz` names, and its status.
async fn parts(node: &Running) -> (u16, Vec<String>) {
    let page = get(node.web, "/readyz").await;
    let reasons = page.json()["reasons"].as_array().unwrap().clone();
    (page.status, reasons.iter().map(|r| r["part"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn nodes_start_without_their_ledger_say_so_and_join_when_it_comes() {
    inside(async |runtime| {
        let world = World::new(runtime);
        let at: SocketAddr = ([127, 0, 0, 1], free_ports()).into();
        let chain = |name: &str| world.over_http(at, &key(name));
        let miner = world.miner(world.input("Miner", chain("Miner")), honest()).unwrap();
        let validator = world.validator(world.input("Validator", chain("Validator"))).unwrap();
        let stranger = world.miner(world.input("Stranger", chain("Stranger")), honest()).unwrap();
        for node in [&miner, &validator, &stranger] {
            until("the chain is all that is missing", async || {
                (parts(node).await == (503, vec!["chain".to_owned()])).then_some(())
            })
            .await;
            let told = until("the failed look is told", async || {
                let actors = get(node.web, "/debug/actors").await.json();
                actors["chain_watcher"]["snapshot"]["last_error"].as_str().map(str::to_owned)
            })
            .await;
            assert!(told.contains("refused"), "{}: {told}", node.name);
            assert_unharmed(&node.name, node.web, &node.view).await;
        }

        let ledger = world.ledger(&[("Validator", 100_000), ("Miner", 0)]).await;
        let rpc = serve(&ledger, at);
        for node in [&miner, &validator] {
            until("the node is ready", async || (parts(node).await == (200, vec![])).then_some(())).await;
        }
        until("who is not registered is told that", async || {
            (parts(&stranger).await == (503, vec!["registration".to_owned()])).then_some(())
        })
        .await;
        until("the miner's axon is on the ledger", async || {
            ledger.state().metagraph().by_hotkey(&miner.hotkey)?.axon.map(|a| SocketAddr::new(a.ip, a.port))
        })
        .await;

        // The ledger goes away: the nodes keep the last view, and follow on when it is back.
        rpc.stop().await;
        for node in [&miner, &validator] {
            until("the loss is told", async || {
                let actors = get(node.web, "/debug/actors").await.json();
                actors["chain_watcher"]["snapshot"]["last_error"].as_str().map(str::to_owned)
            })
            .await;
            assert_eq!(parts(node).await, (200, vec![]), "a view of seconds ago is good enough");
        }
        let rpc = serve(&ledger, at);
        for node in [&miner, &validator] {
            let head = ledger.state().head().number;
            until("the node follows again", async || {
                let actors = get(node.web, "/debug/actors").await.json();
                (actors["chain_watcher"]["snapshot"]["block"].as_u64()? > head).then_some(())
            })
            .await;
        }
        for node in [miner, validator, stranger] {
            assert_unharmed(&node.name, node.web, &node.view).await;
            node.end().await;
        }
        rpc.stop().await;
    });
}
