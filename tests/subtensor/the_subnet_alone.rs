//! The chain is away while the nodes run: what a subnet knows of itself goes on, what needs a block waits for one.

use std::sync::Arc;
use std::time::Duration;

use compute_subnet::clock::SystemClock;
use compute_subnet::ids::LeaseId;
use compute_subnet::lease::{Lease, LeaseState};
use compute_subnet::rental::Requirements;
use compute_subnet::web::control::api::RentWish;
use compute_subnet::wire::dendrite::{CallError, Dendrite, Peer};
use compute_subnet::wire::synapse::{ChallengeRequest, SpecsRequest, Synapse};
use tokio::time::{Instant, sleep};

use crate::proxy::Mode;
use crate::subnet::{PACE, Subnet, axon, compare, long};
use crate::wait::until;

const CALL: Duration = Duration::from_secs(10);
/// A node whose newest block is older says that it is not ready.
const MAX_CHAIN_AGE: f64 = 150.0;

/// Calls a miner as the validator does.
async fn call<S: Synapse>(subnet: &Subnet, number: usize, request: &S) -> Result<S::Reply, CallError> {
    let dendrite = Dendrite::new(subnet.nodes[0].key.clone(), Arc::new(SystemClock), None).unwrap();
    let miner = &subnet.nodes[number];
    let peer = Peer { hotkey: miner.key.hotkey(), addr: axon(number, miner) };
    dendrite.call(&peer, request, CALL, 1 << 20).await.map(|reply| reply.body)
}

/// A device of the best class, rented for an hour.
async fn rent(subnet: &Subnet) -> Lease {
    let wish = RentWish {
        id: None,
        renter: subnet.nodes[0].key.hotkey(),
        miner: None,
        requirements: Requirements { model: Some("cpu-4".to_owned()), ..Requirements::any(1) },
        duration_s: 3_600,
        image: "ubuntu".to_owned(),
        ssh_key: "ssh-ed25519 AAAA".to_owned(),
    };
    until("a device is rented", async || subnet.validator().control().rent(&wish, CALL * 3).await.ok()).await
}

async fn state(subnet: &Subnet, node: usize, lease: LeaseId) -> LeaseState {
    subnet.nodes[node].control().lease(lease).await.unwrap().lease.state
}

async fn age(subnet: &Subnet, node: usize) -> f64 {
    subnet.nodes[node].metric("compute_chain_view_age_seconds", &[]).await.unwrap()
}

#[tokio::test]
async fn a_subnet_whose_chain_is_away_keeps_its_leases_and_answers_whom_it_knows() {
    let Some(mut subnet) = Subnet::start(PACE).await else { return };
    subnet.whole().await;
    let lease = rent(&subnet).await;
    let renting = 4;
    assert_eq!((lease.state, lease.miner), (LeaseState::Running, subnet.nodes[renting].key.hotkey()));
    subnet.whole().await;

    for wire in &subnet.wires {
        wire.set(Mode::Gone).await;
    }
    // The last block that they all saw may be the one before.
    let epoch = subnet.epoch(subnet.bed.head().await);
    let (gone, weights) = (Instant::now(), subnet.stored(1, None).await);
    let away = Duration::from_secs(if long() { 120 } else { 10 });
    let mut asked = 0;
    while gone.elapsed() < away {
        for number in 1..subnet.nodes.len() {
            let specs = call(&subnet, number, &SpecsRequest::default()).await;
            assert!(specs.is_ok(), "{number} after {:?}: {specs:?}", gone.elapsed());
            asked += 1;
        }
        for node in 0..subnet.nodes.len() {
            let (code, said) = subnet.nodes[node].page("/readyz").await.unwrap();
            assert_eq!(code, 200, "{node} after {:?}: {said}", gone.elapsed());
        }
        let states = (state(&subnet, 0, lease.id).await, state(&subnet, renting, lease.id).await);
        assert_eq!(states, (LeaseState::Running, LeaseState::Running));
        sleep(Duration::from_secs(1)).await;
    }
    // A challenge is no matter of the chain either: the miner knows validator, epoch and turn, and says what it does.
    let request = ChallengeRequest {
        challenge: compute_subnet::ids::ChallengeId([7; 16]),
        nonce: compute_subnet::ids::Hash32([7; 32]),
        epoch,
        devices: Vec::new(),
    };
    let reply = call(&subnet, 1, &request).await.unwrap();
    let ages = (age(&subnet, 0).await, age(&subnet, renting).await);
    println!("{asked} requests for specs answered in {:?} without a chain, a challenge with {reply:?}", gone.elapsed());
    assert!(ages.0 >= away.as_secs_f64() && ages.1 >= away.as_secs_f64(), "{ages:?}");
    if long() {
        while age(&subnet, 0).await < MAX_CHAIN_AGE + 2.0 || age(&subnet, renting).await < MAX_CHAIN_AGE + 2.0 {
            sleep(Duration::from_secs(1)).await;
        }
        for node in 0..subnet.nodes.len() {
            let (code, said) = subnet.nodes[node].page("/readyz").await.unwrap();
            assert!(code == 503 && said.contains("the last block was read 15"), "{code} {said}");
        }
        let specs = call(&subnet, 1, &SpecsRequest::default()).await;
        assert!(specs.is_ok(), "{specs:?}");
        assert_eq!(state(&subnet, 0, lease.id).await, LeaseState::Running);
        println!("after {:?} no node is ready, and a validator is served", gone.elapsed());
    }

    let back = Instant::now();
    for wire in &subnet.wires {
        wire.set(Mode::Pass).await;
    }
    for node in &mut subnet.nodes {
        node.ready().await;
    }
    let whole = subnet.whole().await;
    println!("ready and new weights {:.1} s after the chain was back", back.elapsed().as_secs_f64());
    assert!(whole < Duration::from_secs(60));
    // The rented device is not challenged and goes on to be paid: the same four, with the bonus.
    assert_eq!(subnet.stored(1, None).await.len(), weights.len());
    let ended = subnet.validator().control().release(lease.id, CALL * 3).await.unwrap();
    assert_eq!(ended.state, LeaseState::Released);
    compare(subnet).await;
}
