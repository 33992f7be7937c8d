//! The chain is away. Nodes that start then know their subnet from the database, and go on with what does not depend on the
//! present block; nodes that have seen the epoch's blocks keep to its slots.

use crate::probe::{LONG, Metrics, Pages, until};
use crate::restarts::Running;
use crate::subnet::{Subnet, quick, secs};
use async_trait::async_trait;
use compute_subnet::chain::ledger::LedgerClient;
use compute_subnet::chain::{
    BlockHead, Chain, ChainError, Hyperparameters, Inclusion, Metagraph, PreparedWeights, Signer, Weights, WeightsShown,
};
use compute_subnet::exit::Exit;
use compute_subnet::ids::{BlockNumber, Coldkey, Hash32, Hotkey, Netuid, Uid};
use compute_subnet::launch;
use compute_subnet::lease::LeaseState;
use compute_subnet::messages::validator::allocation_manager::{ListLeases, Release, Rent, RentError, RentRequest};
use compute_subnet::messages::validator::challenge_runner::LastJudged;
use compute_subnet::runtime::Placement;
use compute_subnet::store::queries;
use compute_subnet::store::read_only::open_read_only;
use compute_subnet::verdict::Verdict;
use compute_subnet::wire::synapse::SpecsRequest;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A chain that can be away.
pub(crate) struct Cut {
    pub(crate) inner: LedgerClient,
    pub(crate) away: Arc<AtomicBool>,
}

impl Cut {
    fn chain(&self) -> Result<&LedgerClient, ChainError> {
        let away = self.away.load(Ordering::SeqCst);
        if away { Err(ChainError::Unreachable("the chain is away".to_owned())) } else { Ok(&self.inner) }
    }
}

#[async_trait]
impl Chain for Cut {
    fn netuid(&self) -> Netuid {
        self.inner.netuid()
    }
    fn hotkey(&self) -> Hotkey {
        self.inner.hotkey()
    }
    async fn head(&self) -> Result<BlockHead, ChainError> {
        self.chain()?.head().await
    }
    async fn finalized(&self) -> Result<BlockNumber, ChainError> {
        self.chain()?.finalized().await
    }
    async fn block_hash(&self, n: BlockNumber) -> Result<Option<Hash32>, ChainError> {
        self.chain()?.block_hash(n).await
    }
    async fn metagraph(&self) -> Result<Arc<Metagraph>, ChainError> {
        self.chain()?.metagraph().await
    }
    async fn hyperparameters(&self) -> Result<Hyperparameters, ChainError> {
        self.chain()?.hyperparameters().await
    }
    async fn balance(&self, coldkey: &Coldkey) -> Result<u64, ChainError> {
        self.chain()?.balance(coldkey).await
    }
    async fn serve_axon(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError> {
        self.chain()?.serve_axon(ip, port, version).await
    }
    async fn serve_prometheus(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError> {
        self.chain()?.serve_prometheus(ip, port, version).await
    }
    async fn prepare_weights(&self, weights: &Weights) -> Result<PreparedWeights, ChainError> {
        self.chain()?.prepare_weights(weights).await
    }
    async fn submit_weights(&self, weights: &PreparedWeights) -> Result<Inclusion, ChainError> {
        self.chain()?.submit_weights(weights).await
    }
    async fn reveal_weights(&self, weights: &PreparedWeights) -> Result<Inclusion, ChainError> {
        self.chain()?.reveal_weights(weights).await
    }
    async fn weights_shown(&self) -> Result<WeightsShown, ChainError> {
        self.chain()?.weights_shown().await
    }
    async fn weights_of_all(&self) -> Result<Vec<(Uid, Vec<(Uid, u16)>)>, ChainError> {
        self.chain()?.weights_of_all().await
    }
    async fn register(&self, hotkey: Hotkey, coldkey: &dyn Signer) -> Result<Inclusion, ChainError> {
        self.chain()?.register(hotkey, coldkey).await
    }
    fn call_lifetime(&self) -> u64 {
        self.inner.call_lifetime()
    }
}

fn wish() -> Rent {
    Rent(RentRequest {
        id: None,
        renter: Hotkey([9; 32]),
        miner: None,
        requirements: compute_subnet::rental::Requirements::any(1),
        duration: secs(36_000),
        image: "ubuntu".into(),
        ssh_key: "ssh-ed25519 AAAA".into(),
    })
}

/// The block that a stored view in this directory shows.
fn kept(dir: &Path) -> Option<BlockNumber> {
    let db = open_read_only(dir).ok()?;
    queries::subnet_view(&db).unwrap().map(|kept| kept.block)
}

async fn metrics(node: &Running) -> Metrics {
    until(LONG, async || Pages::of(node.web).metrics().await).await.expect("metrics are served")
}

#[test]
fn nodes_that_start_while_the_chain_is_away_know_their_subnet_and_judge_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let exit = launch::run(|runtime| async move {
        let mut subnet = Subnet::start(dir.path(), quick(), runtime.clone()).await;
        let axon = {
            let (miner, validator) = (subnet.miner(Placement::PerNode), subnet.validator(Placement::PerNode));
            let (axon, rentals) = (miner.node.axon_address.unwrap(), validator.allocations.clone());
            let (miner, validator) = (Running::new(miner.node), Running::new(validator.node));
            let lease = until(LONG, async || rentals.ask(wish(), LONG).await.unwrap().ok()).await;
            assert_eq!(lease.expect("a device is proved and rented").state, LeaseState::Running);
            let head = subnet.ledger.state().head().number;
            let directories = ["miner", "validator"].map(|role| dir.path().join(role));
            let shown = until(LONG, async || {
                // It is written once an epoch. The miner's axon, by which it was found, is in it.
                let all = directories.iter().all(|dir| kept(dir) > Some(head));
                all.then_some(())
            });
            assert!(shown.await.is_some(), "the view is kept");
            assert_eq!(metrics(&miner).await.sum("compute_chain_view_stored"), 0.0);
            assert_eq!((validator.stop().await, miner.stop().await), (Exit::Ok, Exit::Ok));
            axon
        };

        // Ten minutes later.
        subnet.axon = axon;
        subnet.away.store(true, Ordering::SeqCst);
        subnet.clock.0.store(600, Ordering::SeqCst);
        let (miner, validator) = (subnet.miner(Placement::PerNode), subnet.validator(Placement::PerNode));
        let (rentals, judge, hotkey) = (validator.allocations.clone(), validator.challenges.clone(), miner.hotkey);
        let (miner, validator) = (Running::new(miner.node), Running::new(validator.node));
        for node in [&miner, &validator] {
            let pages = Pages::of(node.web);
            let told = until(LONG, async || {
                let page = pages.text("/readyz").await?;
                page.contains("the chain was not read since the start; the subnet is known as it was stored 6")
                    .then_some(())
            });
            assert!(told.await.is_some(), "{:?}", pages.text("/readyz").await);
            let shown = metrics(node).await;
            let (stored, age) = (shown.sum("compute_chain_view_stored"), shown.sum("compute_chain_view_age_seconds"));
            assert!(stored == 1.0 && (600.0..660.0).contains(&age), "{stored} {age}");
            assert_eq!((shown.sum("compute_chain_block"), shown.sum("compute_metagraph_neurons")), (0.0, 2.0));
        }

        // Epochs pass on the chain: there is no round, no weights, no new lease, and the old one is not lost.
        let head = subnet.ledger.state().head().number;
        until(LONG, async || (subnet.ledger.state().head().number > head + 15).then_some(())).await.unwrap();
        let lease = rentals.ask(ListLeases, LONG).await.unwrap().pop().expect("the lease is known");
        assert_eq!(lease.state, LeaseState::Running);
        assert!(
            matches!(rentals.ask(wish(), LONG).await.unwrap(), Err(RentError::NoneFree(why)) if why.contains("chain"))
        );
        assert!(judge.ask(LastJudged, LONG).await.unwrap().is_none());
        let shown = metrics(&validator).await;
        assert_eq!((shown.sum("compute_epochs_total"), shown.sum("compute_weights_set_total")), (0.0, 0.0));
        let specs = async || subnet.call(&hotkey, axon, &SpecsRequest::default()).await.map(|_| ());
        assert_eq!(specs().await, Ok(()), "a validator that it knows is answered");

        // An hour without the chain, by the clock of both: the lease is looked after, and is not lost.
        subnet.clock.0.store(4_200, Ordering::SeqCst);
        let answered = "compute_axon_requests_total{outcome=\"ok\",path=\"/ComputeLease\"}";
        let checks = async || metrics(&miner).await.sum(answered);
        let before = checks().await;
        assert!(until(LONG, async || (checks().await > before + 5.0).then_some(())).await.is_some(), "it is asked");
        let lease = rentals.ask(ListLeases, LONG).await.unwrap().pop().expect("the lease is known");
        assert_eq!(lease.state, LeaseState::Running);
        assert_eq!(specs().await, Ok(()));

        // More than two: what is no matter of a lease is not answered on knowledge as old as that.
        subnet.clock.0.store(8_000, Ordering::SeqCst);
        assert_eq!(specs().await, Err(Some(503)));

        // The validator is known to the miner by what it stored: it may end the lease.
        let ended = rentals.ask(Release(lease.id), LONG).await.unwrap().unwrap();
        assert_eq!(ended.state, LeaseState::Released);

        // The chain is back, and so is everything else.
        subnet.away.store(false, Ordering::SeqCst);
        let judged = until(LONG, async || judge.ask(LastJudged, LONG).await.ok().flatten()).await;
        assert!(judged.is_some_and(|judged| !judged.void), "an epoch is judged");
        for node in [&miner, &validator] {
            let shown = metrics(node).await;
            assert_eq!(shown.sum("compute_chain_view_stored"), 0.0);
            assert!(shown.sum("compute_chain_finalized_block") > 0.0);
            assert_eq!(shown.sum("compute_chain_reorgs_total"), 0.0);
            assert!(until(LONG, async || Pages::of(node.web).get("/readyz").await).await.is_some());
        }
        assert_eq!((validator.stop().await, miner.stop().await), (Exit::Ok, Exit::Ok));
        subnet.ledger.stop().await;
        Exit::Ok
    });
    assert_eq!(exit, Exit::Ok);
}

#[test]
fn a_slot_that_is_known_comes_by_the_clock_while_the_chain_is_away() {
    let dir = tempfile::tempdir().unwrap();
    let exit = launch::run(|runtime| async move {
        // Two slots of 4.8 s: of the second one some is still to come when nothing was heard of the chain for 3 s.
        let mut settings = quick();
        (settings.devnet.block_time, settings.devnet.tempo) = (Duration::from_millis(600), 15);
        // No prover is ended here, and a busy machine needs its time.
        settings.challenge.opening_deadline = secs(5);
        let subnet = Subnet::start(dir.path(), settings, runtime.clone()).await;
        subnet.second_permit().await;
        let (miner, validator) = (subnet.miner(Placement::PerNode), subnet.validator(Placement::PerNode));
        let judge = validator.challenges.clone();
        let (miner, validator) = (Running::new(miner.node), Running::new(validator.node));
        let judged = async || judge.ask(LastJudged, LONG).await.ok().flatten();
        assert!(until(LONG, async || judged().await.filter(|judged| !judged.void)).await.is_some());

        let waits = async || metrics(&validator).await.sum("compute_challenge_slot{state=\"wait\"}") == 1.0;
        let unseen = async || {
            assert!(until(secs(60), async || waits().await.then_some(())).await.is_some(), "the second slot is ours");
            subnet.away.store(true, Ordering::SeqCst);
            // A look at the chain may be on its way.
            tokio::time::sleep(secs(1)).await;
            let block = metrics(&validator).await.sum("compute_chain_block");
            let begun = async || judged().await.filter(|judged| judged.block as f64 == block);
            let round = if waits().await { until(secs(10), begun).await } else { None };
            subnet.away.store(round.is_some(), Ordering::SeqCst);
            round.map(|round| (round, block))
        };
        // A busy machine may sleep through what is left of the slot.
        let (round, block) = until(secs(100), unseen).await.expect("a round without a block of its slot");
        let verdicts: Vec<_> =
            round.miners.iter().flat_map(|m| &m.devices).map(|device| device.verdict.clone()).collect();
        assert!(!round.void && matches!(verdicts[..], [Verdict::Pass { .. }]), "{verdicts:?}");
        assert_eq!(metrics(&validator).await.sum("compute_chain_block"), block, "the chain is away still");

        subnet.away.store(false, Ordering::SeqCst);
        let next = async || judged().await.filter(|judged| judged.epoch > round.epoch);
        assert_eq!(until(LONG, next).await.map(|next| next.epoch), Some(round.epoch + 1), "once, and none is left out");
        assert_eq!((validator.stop().await, miner.stop().await), (Exit::Ok, Exit::Ok));
        subnet.ledger.stop().await;
        Exit::Ok
    });
    assert_eq!(exit, Exit::Ok);
}
