//! The task: when blocks come, what submitters hear, and what a full disk does.

use super::*;
use crate::chain::ledger::call::Call;
use crate::chain::ledger::{Deadlines, LedgerClient};
use crate::chain::{Chain, Weights};
use crate::clock::ManualClock;
use crate::ids::{Netuid, Uid};
use crate::wallet::Keypair;

const NETUID: Netuid = Netuid(27);

fn key(n: u8) -> Arc<Keypair> {
    Arc::new(Keypair::from_seed(&[n; 32]))
}

fn coldkey() -> Arc<Keypair> {
    key(200)
}

fn config(block_time: Duration) -> GenesisConfig {
    let mut c = GenesisConfig::new(NETUID);
    c.block_time = block_time;
    c.hyperparameters.tempo = 5;
    c.hyperparameters.burn_rao = 1;
    c.hyperparameters.weights_rate_limit = 2;
    c.endowed = vec![(Coldkey(coldkey().hotkey().0), 1_000)];
    c.stakes = vec![(key(0).hotkey(), 100)];
    c
}

async fn ledger(block_time: Duration) -> LedgerHandle {
    let clock = Arc::new(ManualClock::at_ns(1_000_000_000));
    LedgerNode::spawn(config(block_time), None, clock).await.unwrap()
}

fn client(ledger: &LedgerHandle, n: u8) -> LedgerClient {
    LedgerClient::in_process(ledger.clone(), NETUID, key(n), Deadlines::default())
}

fn registration(ledger: &LedgerHandle, n: u8, nonce: u64) -> SignedCall {
    let call = Call::BurnedRegister { hotkey: key(n).hotkey() };
    SignedCall::sign(call, NETUID, nonce, ledger.state().genesis_head().hash, &*coldkey())
}

#[tokio::test(start_paused = true)]
async fn a_block_comes_every_block_time() {
    let ledger = ledger(Duration::from_secs(12)).await;
    let mut heads = ledger.subscribe();
    let start = tokio::time::Instant::now();
    for number in 1..=3u32 {
        heads.changed().await.unwrap();
        assert_eq!(heads.borrow_and_update().number, u64::from(number));
        let after = start.elapsed();
        let due = Duration::from_secs(12) * number;
        assert!(after >= due && after < due + Duration::from_millis(50), "block {number} after {after:?}");
    }
    assert_eq!(heads.borrow().hash, ledger.state().head().hash);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_answered_with_the_block_that_holds_it() {
    let ledger = ledger(Duration::from_secs(12)).await;
    let node = client(&ledger, 0);
    let registered = node.register(node.hotkey(), &*coldkey()).await.unwrap();
    assert_eq!(registered.block, 1);
    let served = node.serve_axon("127.0.1.1".parse().unwrap(), 8091, 183).await.unwrap();
    assert_eq!(served.block, 2);
    let graph = node.metagraph().await.unwrap();
    assert!(graph.neurons[0].serves_axon("127.0.1.1".parse().unwrap(), 8091, 183));
    assert_eq!(node.balance(&Coldkey(coldkey().hotkey().0)).await.unwrap(), 999);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_costs_more_than_its_limit_is_not_sent() {
    let ledger = ledger(Duration::from_secs(1)).await;
    let node = client(&ledger, 0);
    let within = async |limit| node.register_within(node.hotkey(), limit, &*coldkey()).await;
    assert_eq!(within(0).await, Err(Rejection::RegistrationPriceLimitExceeded.into()));
    assert_eq!(node.balance(&Coldkey(coldkey().hotkey().0)).await.unwrap(), 1000);
    assert!(within(1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_validator_gets_its_permit_sets_weights_and_the_miner_its_incentive() {
    let ledger = ledger(Duration::from_secs(1)).await;
    let (validator, miner) = (client(&ledger, 0), client(&ledger, 1));
    validator.register(validator.hotkey(), &*coldkey()).await.unwrap();
    miner.register(miner.hotkey(), &*coldkey()).await.unwrap();
    let weights = Weights { entries: vec![(Uid(1), 3)], version_key: 0 };
    let mut heads = ledger.subscribe();
    loop {
        match validator.set_weights(&weights).await {
            Ok(_) => break,
            Err(ChainError::Rejected(Rejection::NeuronNoValidatorPermit | Rejection::SettingWeightsTooFast)) => {
                heads.changed().await.unwrap();
            }
            Err(other) => panic!("{other}"),
        }
    }
    let epoch = validator.metagraph().await.unwrap().epoch();
    heads.wait_for(|h| crate::chain::epoch_of(h.number, NETUID, 5) > epoch).await.unwrap();
    assert_eq!(validator.metagraph().await.unwrap().neurons[1].incentive, 65535);
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_account_submitted_together_all_arrive() {
    let ledger = ledger(Duration::from_secs(12)).await;
    let node = client(&ledger, 0);
    let key = coldkey();
    let all = futures_util::future::join_all((0..4).map(|n| node.register(self::key(n).hotkey(), &*key))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    assert_eq!(ledger.state().metagraph().neurons.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_call_is_refused_at_once_and_costs_no_nonce() {
    let ledger = ledger(Duration::from_secs(12)).await;
    let start = tokio::time::Instant::now();
    let mut forged = registration(&ledger, 1, 0);
    forged.signature[5] ^= 1;
    assert_eq!(ledger.submit(forged).await, Err(Rejection::BadSignature.into()));
    let early = registration(&ledger, 1, 1);
    assert_eq!(ledger.submit(early).await, Err(Rejection::FutureTransaction(0).into()));
    let refused = client(&ledger, 9).serve_axon("10.0.0.1".parse().unwrap(), 1, 1).await;
    assert_eq!(refused, Err(Rejection::HotKeyNotRegisteredInNetwork.into()));
    assert_eq!(ledger.account(key(9).hotkey()).await.unwrap().nonce, 0);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn the_pool_is_bounded_per_account() {
    let ledger = ledger(Duration::ZERO).await;
    let mut waiting = Vec::new();
    for n in 0..POOL_LIMIT_PER_ACCOUNT as u8 {
        let (submitter, call) = (ledger.clone(), registration(&ledger, n, u64::from(n)));
        waiting.push(tokio::spawn(async move { submitter.submit(call).await }));
        // Nonces must arrive in order.
        while ledger.account(coldkey().hotkey()).await.unwrap().nonce <= u64::from(n) {
            tokio::task::yield_now().await;
        }
    }
    let one_more = registration(&ledger, 150, POOL_LIMIT_PER_ACCOUNT as u64);
    assert_eq!(ledger.submit(one_more.clone()).await, Err(Rejection::PoolFull.into()));
    ledger.produce_block().await.unwrap();
    for call in waiting {
        assert_eq!(call.await.unwrap().unwrap().block, 1);
    }
    let (submitter, late) = (ledger.clone(), tokio::spawn(async move { ledger.submit(one_more).await }));
    while submitter.account(coldkey().hotkey()).await.unwrap().nonce <= POOL_LIMIT_PER_ACCOUNT as u64 {
        tokio::task::yield_now().await;
    }
    submitter.produce_block().await.unwrap();
    assert_eq!(late.await.unwrap().unwrap().block, 2);
}

#[tokio::test(start_paused = true)]
async fn a_submitter_that_gives_up_hears_deadline_and_its_call_is_included_all_the_same() {
    let ledger = ledger(Duration::from_secs(12)).await;
    let deadlines = Deadlines { submit: Duration::from_secs(1), ..Deadlines::default() };
    let hasty = LedgerClient::in_process(ledger.clone(), NETUID, key(0), deadlines);
    let answer = hasty.register(hasty.hotkey(), &*coldkey()).await;
    assert_eq!(answer, Err(ChainError::Deadline(Duration::from_secs(1))));
    ledger.subscribe().wait_for(|h| h.number == 1).await.unwrap();
    assert!(hasty.metagraph().await.unwrap().by_hotkey(&hasty.hotkey()).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_node_set_to_another_subnet_is_told_so() {
    let ledger = ledger(Duration::from_secs(1)).await;
    let other = LedgerClient::in_process(ledger, Netuid(15), key(0), Deadlines::default());
    let text = other.metagraph().await.unwrap_err().to_string();
    assert!(text.contains("has subnet 27, this node is set to 15"), "{text}");
    assert_eq!(other.register(other.hotkey(), &*coldkey()).await, Err(Rejection::SubnetNotExists.into()));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_ledger_is_unreachable_not_silent() {
    let ledger = ledger(Duration::from_secs(1)).await;
    let node = client(&ledger, 0);
    ledger.stop().await;
    ledger.stop().await;
    assert!(matches!(node.register(node.hotkey(), &*coldkey()).await, Err(ChainError::Unreachable(_))));
    assert!(matches!(ledger.produce_block().await, Err(ChainError::Unreachable(_))));
    assert!(matches!(node.head().await, Err(ChainError::Unreachable(_))));
    assert_eq!(ledger.health().degraded.as_deref(), Some("the ledger has stopped"));
}

#[tokio::test]
async fn a_ledger_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at_ns(1_000_000_000));
    let open = || LedgerNode::spawn(config(Duration::ZERO), Some(dir.path()), clock.clone());
    let first = open().await.unwrap();
    assert!(matches!(open().await, Err(LedgerError::Store(StoreError::InUse { .. }))));
    let head = first.produce_block().await.unwrap();
    first.stop().await;
    let second = open().await.unwrap();
    assert_eq!(second.state().head(), head);
    assert_eq!(second.produce_block().await.unwrap().number, 2);
}

#[tokio::test]
async fn while_the_disk_is_full_there_are_no_blocks_and_then_the_waiting_calls_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, state) = Store::open(dir.path(), &config(Duration::ZERO), 1_000).unwrap();
    let sound = store.fill_disk();
    let state = Arc::new(state);
    let (states, _) = watch::channel(Shown::new(state.clone()));
    let (heads, _) = watch::channel(state.head());
    let (degraded, health) = watch::channel(None);
    let clock: SharedClock = Arc::new(ManualClock::at_ns(1_000_000_000));
    let mut task = Task {
        state: state.clone(),
        store: Some(store),
        memory_only: false,
        pool: Vec::new(),
        clock,
        states,
        heads,
        degraded,
    };
    let call = Call::BurnedRegister { hotkey: key(0).hotkey() };
    let call = SignedCall::sign(call, NETUID, 0, state.genesis_head().hash, &*coldkey());
    let (reply, mut answer) = oneshot::channel();
    task.submit(call, reply);

    assert!(!task.produce().await);
    let reason = health.borrow().clone().unwrap();
    assert!(reason.contains("cannot append to") && reason.contains("No space left"), "{reason}");
    assert_eq!(task.state.head().number, 0);
    assert!(answer.try_recv().is_err());

    task.store.as_mut().unwrap().free_disk(sound);
    assert!(task.produce().await);
    assert_eq!(*health.borrow(), None);
    assert_eq!(answer.await.unwrap().unwrap().block, 1);
    drop(task);
    assert_eq!(Store::open(dir.path(), &config(Duration::ZERO), 1_000).unwrap().1.head().number, 1);
}
