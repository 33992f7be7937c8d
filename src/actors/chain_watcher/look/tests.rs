//! Looks at a chain that says what a test wants it to say.

use std::net::IpAddr;
use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::chain::{
    EpochClock, EpochState, Inclusion, PreparedWeights, STATEFUL_EPOCHS, Signer, Weights, WeightsShown,
};
use crate::ids::{Coldkey, Epoch, Hash32, Hotkey, Netuid, Uid};

/// What an endpoint says.
#[derive(Debug, Clone)]
struct Says {
    head: BlockHead,
    finalized: BlockNumber,
    /// The metagraph's own head, where another endpoint answers for it.
    metagraph: Option<BlockHead>,
    /// From this block on its blocks are those of branch 2.
    fork: BlockNumber,
    epochs: EpochClock,
    stake: u64,
    /// How often the hash of block 99 was asked for.
    asked: u32,
}

struct Endpoint(Mutex<Says>);

const NETUID: Netuid = Netuid(1);
const MODULO: EpochClock = EpochClock::Modulo { netuid: NETUID, tempo: 5 };
const HOLDERS: u8 = 13;

fn hash(number: BlockNumber, fork: BlockNumber) -> Hash32 {
    let mut bytes = [if number < fork { 1 } else { 2 }; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Hash32(bytes)
}

fn head(number: BlockNumber, fork: BlockNumber) -> BlockHead {
    BlockHead { number, hash: hash(number, fork), timestamp_ms: number * 1_000 }
}

impl Endpoint {
    fn at(number: BlockNumber) -> Self {
        let fork = BlockNumber::MAX;
        let (head, finalized) = (head(number, fork), number.saturating_sub(3));
        Endpoint(Mutex::new(Says { head, finalized, metagraph: None, fork, epochs: MODULO, stake: 1, asked: 0 }))
    }

    fn says(&self) -> Says {
        self.0.lock().unwrap().clone()
    }

    fn now(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.0.lock().unwrap());
    }
}

#[async_trait]
impl Chain for Endpoint {
    fn netuid(&self) -> Netuid {
        NETUID
    }
    fn hotkey(&self) -> Hotkey {
        Hotkey([0; 32])
    }
    async fn head(&self) -> Result<BlockHead, ChainError> {
        Ok(self.says().head)
    }
    async fn finalized(&self) -> Result<BlockNumber, ChainError> {
        Ok(self.says().finalized)
    }
    async fn block_hash(&self, n: BlockNumber) -> Result<Option<Hash32>, ChainError> {
        self.now(|says| says.asked += u32::from(n == 99));
        let says = self.says();
        Ok((n <= says.head.number).then(|| hash(n, says.fork)))
    }
    async fn metagraph(&self) -> Result<Arc<Metagraph>, ChainError> {
        let says = self.says();
        let neuron = |i: u8| Neuron {
            stake_rao: if i == HOLDERS - 1 { says.stake } else { 10 },
            validator_permit: true,
            ..Neuron::idle(u16::from(i))
        };
        let head = says.metagraph.unwrap_or(says.head);
        let neurons = (0..HOLDERS).map(neuron).collect();
        Ok(Arc::new(Metagraph { netuid: NETUID, head, epochs: says.epochs, neurons }))
    }
    async fn hyperparameters(&self) -> Result<Hyperparameters, ChainError> {
        Ok(Hyperparameters::default())
    }
    async fn balance(&self, _: &Coldkey) -> Result<u64, ChainError> {
        Ok(0)
    }
    async fn serve_axon(&self, _: IpAddr, _: u16, _: u32) -> Result<Inclusion, ChainError> {
        Err(ChainError::Unreachable("read only".to_owned()))
    }
    async fn serve_prometheus(&self, _: IpAddr, _: u16, _: u32) -> Result<Inclusion, ChainError> {
        Err(ChainError::Unreachable("read only".to_owned()))
    }
    async fn prepare_weights(&self, _: &Weights) -> Result<PreparedWeights, ChainError> {
        Err(ChainError::Unreachable("read only".to_owned()))
    }
    async fn submit_weights(&self, _: &PreparedWeights) -> Result<Inclusion, ChainError> {
        Err(ChainError::Unreachable("read only".to_owned()))
    }
    async fn reveal_weights(&self, _: &PreparedWeights) -> Result<Inclusion, ChainError> {
        Err(ChainError::Unreachable("read only".to_owned()))
    }
    async fn weights_shown(&self) -> Result<WeightsShown, ChainError> {
        Err(ChainError::Unreachable("no weights here".to_owned()))
    }
    async fn weights_of_all(&self) -> Result<Vec<(Uid, Vec<(Uid, u16)>)>, ChainError> {
        Err(ChainError::Unreachable("no weights here".to_owned()))
    }
    fn call_lifetime(&self) -> u64 {
        0
    }
    async fn register(&self, _: Hotkey, _: &dyn Signer) -> Result<Inclusion, ChainError> {
        Err(ChainError::Unreachable("read only".to_owned()))
    }
}

/// A watcher that has followed an endpoint.
#[derive(Default)]
struct Watcher {
    heads: Heads,
    last: Option<ChainView>,
}

impl Watcher {
    /// Looks, and follows what is to be followed: the new head and whether the chain was reorganised.
    async fn look(&mut self, chain: &Endpoint) -> Option<(BlockNumber, bool)> {
        match look(chain, &self.heads, self.last.as_ref()).await.unwrap() {
            Looked::Same | Looked::Behind(_) => None,
            Looked::Seen(view, step) => {
                let head = view.metagraph.head;
                self.heads.follow(&head, step);
                self.last = Some(*view);
                Some((head.number, step == Step::Reorganised))
            }
        }
    }

    fn last(&self) -> &ChainView {
        self.last.as_ref().unwrap()
    }
}

#[tokio::test]
async fn each_head_is_seen_once_with_what_is_final() {
    let (chain, mut watcher) = (Endpoint::at(100), Watcher::default());
    assert_eq!(watcher.look(&chain).await, Some((100, false)));
    assert_eq!(watcher.look(&chain).await, None);
    assert_eq!(watcher.last().finalized, 97);
    chain.now(|says| (says.head, says.finalized) = (head(103, says.fork), 96));
    assert_eq!(watcher.look(&chain).await, Some((103, false)));
    assert_eq!(watcher.last().finalized, 97, "what is final stays so");
    chain.now(|says| (says.head, says.finalized) = (head(104, says.fork), 200));
    watcher.look(&chain).await;
    assert_eq!(watcher.last().finalized, 104, "no later than the head of the view");
}

#[tokio::test]
async fn an_endpoint_that_is_behind_does_not_take_the_view_back_in_time() {
    let (chain, mut watcher) = (Endpoint::at(100), Watcher::default());
    watcher.look(&chain).await;
    for behind in [99, 95, 92] {
        chain.now(|says| says.head = head(behind, says.fork));
        assert_eq!(watcher.look(&chain).await, None, "{behind}");
    }
    // Its metagraph may be the one that is behind.
    chain.now(|says| (says.head, says.metagraph) = (head(101, says.fork), Some(head(99, says.fork))));
    assert_eq!(watcher.look(&chain).await, None);
    chain.now(|says| says.metagraph = Some(head(100, says.fork)));
    assert_eq!(watcher.look(&chain).await, None, "the view that is there already");
    chain.now(|says| says.metagraph = None);
    assert_eq!(watcher.look(&chain).await, Some((101, false)));
}

#[tokio::test]
async fn blocks_that_were_replaced_are_noticed_once() {
    let (chain, mut watcher) = (Endpoint::at(100), Watcher::default());
    watcher.look(&chain).await;
    // A longer branch from block 99 on.
    chain.now(|says| (says.fork, says.head) = (99, head(102, 99)));
    assert_eq!(watcher.look(&chain).await, Some((102, true)));
    chain.now(|says| says.head = head(103, 99));
    assert_eq!(watcher.look(&chain).await, Some((103, false)));
    // Another tip of the same height.
    chain.now(|says| (says.fork, says.head) = (BlockNumber::MAX, head(103, BlockNumber::MAX)));
    assert_eq!(watcher.look(&chain).await, Some((103, true)));
}

#[tokio::test]
async fn a_chain_that_was_set_back_is_followed_back_once_it_is_final() {
    let (chain, mut watcher) = (Endpoint::at(98), Watcher::default());
    watcher.look(&chain).await;
    chain.now(|says| says.head = head(100, says.fork));
    watcher.look(&chain).await;
    chain.now(|says| (says.fork, says.head, says.finalized) = (97, head(99, 97), 96));
    assert_eq!(watcher.look(&chain).await, None, "a branch that is shorter still");
    chain.now(|says| says.finalized = 99);
    assert_eq!(watcher.look(&chain).await, Some((99, true)));
    assert_eq!(watcher.last().finalized, 99);
}

#[tokio::test]
async fn an_epoch_begins_when_the_chain_says_and_its_slots_stay_as_they_were_first_seen() {
    let state = |first, index| EpochState {
        tempo: 360,
        last_epoch_block: first,
        pending_epoch_at: 0,
        subnet_epoch_index: index,
        blocks_since_last_step: 0,
    };
    let (chain, mut watcher) = (Endpoint::at(1_000), Watcher::default());
    let mut seen = async |number, state: EpochState, stake| {
        let epochs = EpochClock::Stateful { state, at: number };
        chain.now(|says| (says.head, says.epochs, says.stake) = (head(number, says.fork), epochs, stake));
        watcher.look(&chain).await;
        let slots = watcher.last().slots.clone().unwrap();
        assert_eq!(slots.epoch, watcher.last().epoch());
        (watcher.last().epoch(), slots)
    };
    let now: Epoch = STATEFUL_EPOCHS + 7;
    let (epoch, first) = seen(1_000, state(990, 7), 1).await;
    assert_eq!((epoch, first.epoch_start(), first.beacon), (now, 990, hash(989, BlockNumber::MAX)));
    // Another twelve have the most stake, the owner changes the tempo: this epoch's turns are fixed.
    let (epoch, same) = seen(1_002, EpochState { tempo: 720, ..state(990, 7) }, 50).await;
    assert_eq!((epoch, &same), (now, &first));
    // The owner asks for an epoch long before it is due.
    let (epoch, early) = seen(1_010, state(1_009, 8), 50).await;
    assert_eq!((epoch, early.epoch_start(), early.beacon), (now + 1, 1_009, hash(1_008, BlockNumber::MAX)));
    // The next one is due in 1,369 and slips by two blocks.
    let (epoch, slipped) = seen(1_370, EpochState { pending_epoch_at: 1_371, ..state(1_009, 8) }, 50).await;
    assert_eq!((epoch, slipped), (now + 1, early));
    let (epoch, late) = seen(1_371, state(1_371, 9), 50).await;
    assert_eq!((epoch, late.epoch_start()), (now + 2, 1_371));
}

#[tokio::test]
async fn slots_follow_a_replaced_beacon_until_the_first_block_of_their_epoch_is_final() {
    let (chain, mut watcher) = (Endpoint::at(100), Watcher::default());
    let mut seen = async |number, fork, finalized, stake| {
        chain.now(|says| {
            (says.head, says.fork, says.finalized, says.stake) = (head(number, fork), fork, finalized, stake)
        });
        watcher.look(&chain).await;
        (watcher.last().slots.clone().unwrap(), chain.says().asked)
    };
    // Tempo 5: the epoch of block 100 is the blocks 100 to 105, its beacon block 99.
    let (first, _) = seen(100, BlockNumber::MAX, 97, 1).await;
    assert_eq!((first.epoch_start(), first.beacon), (100, hash(99, BlockNumber::MAX)));
    let (same, _) = seen(101, BlockNumber::MAX, 98, 50).await;
    assert_eq!(same, first, "other stakes, the same beacon");
    let (replaced, _) = seen(102, 99, 98, 50).await;
    assert_eq!((replaced.epoch_start(), replaced.beacon), (100, hash(99, 99)));
    // Whoever sees the new branch only has the same slots.
    let (fresh, mut late) = (Endpoint::at(102), Watcher::default());
    fresh.now(|says| (says.head, says.fork, says.stake) = (head(102, 99), 99, 50));
    late.look(&fresh).await;
    assert_eq!(late.last().slots.as_ref(), Some(&replaced));
    // Read a last time at a head that knows the first block as final; from then on they are not asked about.
    let (_, before) = seen(103, 99, 100, 50).await;
    let (last, after) = seen(104, 99, 101, 1).await;
    assert_eq!((last, after), (replaced, before));
}

#[tokio::test]
async fn an_upgrade_to_stateful_epochs_begins_a_later_epoch() {
    let (chain, mut watcher) = (Endpoint::at(6_000), Watcher::default());
    watcher.look(&chain).await;
    let before = watcher.last().epoch();
    let state = EpochState {
        tempo: 5,
        last_epoch_block: 6_001,
        pending_epoch_at: 0,
        subnet_epoch_index: 0,
        blocks_since_last_step: 0,
    };
    let epochs = EpochClock::Stateful { state, at: 6_001 };
    chain.now(|says| (says.head, says.epochs) = (head(6_001, says.fork), epochs));
    watcher.look(&chain).await;
    assert_eq!((before, watcher.last().epoch()), (1_000, STATEFUL_EPOCHS));
    assert_eq!(watcher.last().slots.as_ref().unwrap().epoch, STATEFUL_EPOCHS);
}
