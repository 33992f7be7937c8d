//! When devices are made ready, and when they are let go.

use std::sync::Mutex;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::chain::ledger::GenesisConfig;
use crate::chain::slots::slots;
use crate::chain::{BlockHead, EpochClock, Metagraph};
use crate::ids::{Epoch, Netuid};
use crate::proof::memory;
use crate::proof::prover::{Backend, Commitment, Computes, Filled, ProverError};

/// A prover that says it is CUDA's, notes what it is told, and proves when it is let.
struct Noting {
    told: Mutex<(Vec<DeviceId>, bool)>,
    may_prove: Semaphore,
    /// One for each proof under way.
    proving: Arc<()>,
}

#[async_trait]
impl Prover for Noting {
    async fn commit(&self, challenge: &Challenge) -> Result<Box<dyn Commitment>, ProverError> {
        let _under_way = self.proving.clone();
        self.may_prove.acquire().await.unwrap().forget();
        InProcessProver { threads: 1 }.commit(challenge).await
    }
    async fn fill(&self, challenge: &memory::Challenge) -> Result<Box<dyn Filled>, ProverError> {
        InProcessProver { threads: 1 }.fill(challenge).await
    }
    fn stand_by(&self, devices: &[DeviceId], begin: bool) {
        *self.told.lock().unwrap() = (devices.to_vec(), begin);
    }
    async fn explain(&self, devices: &[DeviceId]) -> Vec<Computes> {
        let computes =
            |device: &DeviceId| Computes { device: *device, by: Backend::Cuda, why: String::new(), remedy: None };
        devices.iter().map(computes).collect()
    }
}

impl Noting {
    fn new() -> Arc<Self> {
        Arc::new(Noting { told: Mutex::default(), may_prove: Semaphore::new(0), proving: Arc::default() })
    }

    async fn hears(&self, devices: &[u8], begin: bool) {
        let wanted = (devices.iter().map(|n| DeviceId::cpu(*n)).collect(), begin);
        let heard = async {
            while *self.told.lock().unwrap() != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(DEADLINE, heard).await;
        assert!(in_time.is_ok(), "{wanted:?} is wanted, {:?} was told", self.told.lock().unwrap());
    }
}

/// Subnet 1, tempo 100: epoch 1 is the blocks 99 to 199, and its slots are A's alone.
fn view(head: u64) -> Option<Arc<ChainView>> {
    const EPOCHS: EpochClock = EpochClock::Modulo { netuid: Netuid(1), tempo: 100 };
    let block = BlockHead { number: head, hash: Hash32([0; 32]), timestamp_ms: head * 1000 };
    let metagraph = Metagraph { netuid: Netuid(1), head: block, epochs: EPOCHS, neurons: Vec::new() };
    let epoch: Epoch = metagraph.epoch();
    let rules = Arc::new(GenesisConfig::new(Netuid(1)).hyperparameters);
    let table = slots(Hash32([1; 32]), &[(A, 1)], Netuid(1), EPOCHS, epoch);
    Some(Arc::new(ChainView { slots: Some(Arc::new(table)), ..ChainView::new(Arc::new(metagraph), rules, head) }))
}

#[test]
fn free_devices_are_ready_while_a_turn_is_near_and_nothing_is_begun_while_one_is_proved() {
    run(async {
        let prover = Noting::new();
        let (head, heads) = watch::channel(view(100));
        let miner = miner_like(tempfile::tempdir().unwrap(), Crash::never(), |setup| {
            (setup.prover, setup.view) = (prover.clone(), heads);
        });
        miner.ready().await;
        prover.hears(&[0, 1], true).await;

        let made = miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap();
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
        prover.hears(&[1], true).await;
        assert_eq!(miner.release(1).await, ReleaseReply::Released);
        prover.hears(&[0, 1], true).await;

        let (reply, ()) = tokio::join!(miner.prove(A, 1), async {
            prover.hears(&[0, 1], false).await;
            prover.may_prove.add_permits(1);
        });
        assert!(matches!(reply, ChallengeReply::Roots { .. }), "{reply:?}");
        prover.hears(&[0, 1], true).await;

        head.send_replace(view(180));
        prover.hears(&[], false).await;
        head.send_replace(None);
        prover.hears(&[], false).await;
    });
}

#[test]
fn a_rental_ends_a_proof_under_way_and_the_validator_hears_why() {
    run(async {
        let prover = Noting::new();
        let (_head, heads) = watch::channel(view(100));
        let miner = miner_like(tempfile::tempdir().unwrap(), Crash::never(), |setup| {
            (setup.prover, setup.view) = (prover.clone(), heads);
        });
        miner.ready().await;
        let (reply, made) = tokio::join!(miner.prove(A, 1), async {
            while Arc::strong_count(&prover.proving) == 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            miner.leases.ask(miner.allocate(1, &[0]), DEADLINE).await.unwrap()
        });
        assert!(matches!(made, AllocateReply::Running { .. }), "{made:?}");
        assert!(matches!(reply, ChallengeReply::Refused { reason: ChallengeRefusal::Rented, .. }), "{reply:?}");
        assert_eq!(Arc::strong_count(&prover.proving), 1, "the prover went with it");
        prover.hears(&[1], true).await;
    });
}
