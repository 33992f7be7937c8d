//! The wire's faults are what their names say, seen by the JSON-RPC client that subxt uses.

use std::time::Duration;

use jsonrpsee::core::client::{Client, ClientT as _, Subscription, SubscriptionClientT as _};
use jsonrpsee::rpc_params;
use serde_json::Value;
use subxt::ext::jsonrpsee;
use tokio::time::{Instant, timeout};

use crate::bed::{Bed, Start};
use crate::proxy::{Mode, Proxy};

const SOON: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(30);

/// A client whose own deadline is beyond this test's.
pub(crate) async fn client(url: &str) -> Result<Client, jsonrpsee::core::client::Error> {
    let url = url.parse().unwrap();
    let (send, receive) = jsonrpsee::client_transport::ws::WsTransportClientBuilder::default()
        .build(url)
        .await
        .map_err(|e| jsonrpsee::core::client::Error::Transport(e.into()))?;
    Ok(jsonrpsee::core::client::ClientBuilder::default().request_timeout(LONG * 2).build_with_tokio(send, receive))
}

async fn head(client: &Client) -> Result<Value, jsonrpsee::core::client::Error> {
    client.request("chain_getHeader", rpc_params![]).await
}

#[tokio::test]
async fn the_wire_counts_what_both_sides_say() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let proxy = Proxy::start(bed.address()).await;
    let client = client(&proxy.url()).await.unwrap();
    for _ in 0..3 {
        head(&client).await.unwrap();
    }
    let metadata: String = client.request("state_getMetadata", rpc_params![]).await.unwrap();
    assert!(client.request::<Value, _>("no_such", rpc_params![]).await.is_err());
    let mut heads: Subscription<Value> =
        client.subscribe("chain_subscribeNewHeads", rpc_params![], "chain_unsubscribeNewHeads").await.unwrap();
    heads.next().await.unwrap().unwrap();
    bed.new_blocks(2).await;
    for _ in 0..2 {
        heads.next().await.unwrap().unwrap();
    }
    let seen = proxy.take();
    assert_eq!(seen.connections, 1);
    assert_eq!((seen.calls(), seen.calls_of("chain_getHeader"), seen.calls_of("state_getMetadata")), (6, 3, 1));
    assert_eq!((seen.answers, seen.errors), (5, 1));
    assert_eq!(seen.notifications.get("chain_newHead"), Some(&3), "{seen:?}");
    assert!(seen.bytes > metadata.len());
    head(&client).await.unwrap();
    assert_eq!(proxy.traffic().calls(), 1);
}

#[tokio::test]
async fn the_wire_delays_trickles_stalls_and_goes_deaf() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let proxy = Proxy::start(bed.address()).await;
    let begun = client(&proxy.url()).await.unwrap();
    proxy.set(Mode::Delay(SOON)).await;
    let begin = Instant::now();
    head(&begun).await.unwrap();
    assert!(begin.elapsed() >= SOON * 2, "both ways: {:?}", begin.elapsed());
    proxy.set(Mode::Trickle(1000)).await;
    let begin = Instant::now();
    let header = head(&begun).await.unwrap().to_string();
    assert!(
        begin.elapsed() >= Duration::from_millis(header.len() as u64 / 2),
        "{:?} for {}",
        begin.elapsed(),
        header.len()
    );

    // Deaf: a block is built by a request whose answer never comes.
    proxy.set(Mode::Deaf).await;
    let before = bed.head().await;
    let heard = timeout(SOON, begun.request::<Value, _>("dev_newBlock", rpc_params![])).await;
    assert!(heard.is_err(), "{heard:?}");
    crate::until("the request arrives", async || (bed.head().await == before + 1).then_some(())).await;

    // Stalled: nothing arrives, and a new connection is accepted and hears nothing.
    proxy.set(Mode::Stall).await;
    assert!(timeout(SOON, begun.request::<Value, _>("dev_newBlock", rpc_params![])).await.is_err());
    assert_eq!(bed.head().await, before + 1);
    assert!(timeout(SOON, client(&proxy.url())).await.is_err());

    // What was stalled is lost for good, what comes new is not.
    proxy.set(Mode::Pass).await;
    assert!(timeout(SOON, head(&begun)).await.is_err());
    head(&client(&proxy.url()).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn the_wire_cuts_goes_away_and_comes_back_on_the_same_port() {
    let Some(bed) = Bed::start(Start::default()).await else { return };
    let proxy = Proxy::start(bed.address()).await;
    let first = client(&proxy.url()).await.unwrap();
    head(&first).await.unwrap();
    proxy.set(Mode::Cut).await;
    timeout(LONG, first.on_disconnect()).await.unwrap();
    assert!(head(&first).await.is_err());
    assert!(client(&proxy.url()).await.is_err());
    proxy.set(Mode::Pass).await;
    let second = client(&proxy.url()).await.unwrap();
    head(&second).await.unwrap();
    proxy.set(Mode::Gone).await;
    timeout(LONG, second.on_disconnect()).await.unwrap();
    let refused = client(&proxy.url()).await.map(drop).unwrap_err();
    assert!(format!("{refused:?}").contains("ConnectionRefused"), "{refused:?}");
    // Another node behind the same address.
    let other = Bed::start(Start::default()).await.unwrap();
    other.new_blocks(3).await;
    proxy.lead_to(other.address());
    proxy.set(Mode::Pass).await;
    let third = client(&proxy.url()).await.unwrap();
    assert_eq!(head(&third).await.unwrap()["number"], "0x4");
    proxy.cut_once().await;
    timeout(LONG, third.on_disconnect()).await.unwrap();
    head(&client(&proxy.url()).await.unwrap()).await.unwrap();
}
