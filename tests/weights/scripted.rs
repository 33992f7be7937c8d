//! A chain that takes weights as a test says, over a ledger that does all the rest.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use compute_subnet::chain::{
    BlockHead, Chain, ChainError, Hyperparameters, Inclusion, Metagraph, PreparedWeights, Rejection, Route,
    ShownCommit, Signer, Weights, WeightsShown,
};
use compute_subnet::ids::{BlockNumber, Coldkey, Hash32, Hotkey, Netuid, Uid};

/// What becomes of the next weights that are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The chain takes them and says so.
    Taken,
    /// The chain takes them, and the answer is lost.
    AnswerLost,
    /// They are lost on their way.
    Lost,
}

/// What the chain was told and shows.
#[derive(Debug)]
pub(crate) struct Script {
    /// Weights are sealed, and the chain opens them `REVEAL` blocks after the commit.
    pub(crate) timelocked: bool,
    /// Whether it can open them.
    pub(crate) opens: bool,
    pub(crate) fate: Fate,
    /// Everything that arrived: the block, and the weights.
    pub(crate) arrived: Vec<(BlockNumber, PreparedWeights)>,
    /// Everything that was sent, arrived or not, by the head.
    pub(crate) sent: Vec<BlockNumber>,
    commits: Vec<(BlockNumber, PreparedWeights)>,
    last_update: BlockNumber,
    entries: Vec<(Uid, u16)>,
}

/// Blocks from a commit to its reveal, and to the end of its window.
const REVEAL: u64 = 5;
const WINDOW: u64 = 10;

/// The chain.
pub(crate) struct Scripted {
    inner: Arc<dyn Chain>,
    script: Arc<Mutex<Script>>,
}

impl Scripted {
    pub(crate) fn new(inner: Arc<dyn Chain>, timelocked: bool) -> (Arc<Self>, Arc<Mutex<Script>>) {
        let script = Script {
            timelocked,
            opens: true,
            fate: Fate::Taken,
            arrived: vec![],
            sent: vec![],
            commits: vec![],
            last_update: 0,
            entries: vec![],
        };
        let script = Arc::new(Mutex::new(script));
        (Arc::new(Scripted { inner, script: script.clone() }), script)
    }
}

impl Script {
    /// What blocks do by themselves: commits whose block has come are opened, or are of no use.
    fn pass(&mut self, head: BlockNumber) {
        while self.commits.first().is_some_and(|(block, _)| head >= block + REVEAL) {
            let (_, prepared) = self.commits.remove(0);
            if self.opens {
                self.entries = prepared.weights.entries;
            }
        }
    }
}

#[async_trait]
impl Chain for Scripted {
    fn netuid(&self) -> Netuid {
        self.inner.netuid()
    }
    fn hotkey(&self) -> Hotkey {
        self.inner.hotkey()
    }
    async fn head(&self) -> Result<BlockHead, ChainError> {
        self.inner.head().await
    }
    async fn finalized(&self) -> Result<BlockNumber, ChainError> {
        self.inner.finalized().await
    }
    async fn block_hash(&self, n: BlockNumber) -> Result<Option<Hash32>, ChainError> {
        self.inner.block_hash(n).await
    }
    async fn metagraph(&self) -> Result<Arc<Metagraph>, ChainError> {
        let mut graph = Metagraph::clone(&*self.inner.metagraph().await?);
        let mut script = self.script.lock().unwrap();
        script.pass(graph.head.number);
        if let Some(own) = graph.neurons.iter_mut().find(|n| n.hotkey == self.hotkey()) {
            own.last_update = own.last_update.max(script.last_update);
            own.weights = script.entries.clone();
        }
        Ok(Arc::new(graph))
    }
    async fn hyperparameters(&self) -> Result<Hyperparameters, ChainError> {
        self.inner.hyperparameters().await
    }
    async fn balance(&self, coldkey: &Coldkey) -> Result<u64, ChainError> {
        self.inner.balance(coldkey).await
    }
    async fn serve_axon(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError> {
        self.inner.serve_axon(ip, port, version).await
    }
    async fn serve_prometheus(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError> {
        self.inner.serve_prometheus(ip, port, version).await
    }
    async fn prepare_weights(&self, weights: &Weights) -> Result<PreparedWeights, ChainError> {
        let at = self.inner.head().await?.number;
        let timelocked = self.script.lock().unwrap().timelocked;
        let (route, reveal) = match timelocked {
            // No two commits are alike.
            true => {
                let commit = [at.to_le_bytes().to_vec(), vec![7; 300]].concat();
                (Route::Timelocked { commit, round: at, version: 4 }, Some((at + 1 + REVEAL, at + 1 + WINDOW)))
            }
            false => (Route::Plain, None),
        };
        Ok(PreparedWeights { weights: weights.clone(), mechanism: 0, route, at, reveal })
    }
    async fn submit_weights(&self, prepared: &PreparedWeights) -> Result<Inclusion, ChainError> {
        let block = self.inner.head().await?.number + 1;
        let fate = {
            let mut script = self.script.lock().unwrap();
            script.sent.push(block - 1);
            let fate = script.fate;
            if fate != Fate::Lost {
                script.pass(block);
                script.arrived.push((block, prepared.clone()));
                script.last_update = block;
                match script.timelocked {
                    true => script.commits.push((block, prepared.clone())),
                    false => script.entries = prepared.weights.entries.clone(),
                }
            }
            fate
        };
        while self.inner.head().await?.number < block {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        match fate {
            Fate::Taken => Ok(Inclusion { block, extrinsic: Hash32([0; 32]) }),
            Fate::AnswerLost | Fate::Lost => Err(ChainError::Deadline(Duration::from_secs(1))),
        }
    }
    async fn reveal_weights(&self, _: &PreparedWeights) -> Result<Inclusion, ChainError> {
        Err(Rejection::NoWeightsCommitFound.into())
    }
    fn call_lifetime(&self) -> u64 {
        4
    }
    async fn weights_shown(&self) -> Result<WeightsShown, ChainError> {
        let graph = self.metagraph().await?;
        let own = graph.by_hotkey(&self.hotkey()).ok_or(Rejection::HotKeyNotRegisteredInSubNet)?;
        let script = self.script.lock().unwrap();
        let commit = |(block, prepared): &(BlockNumber, PreparedWeights)| {
            Some(ShownCommit { digest: prepared.digest()?, block: Some(*block) })
        };
        Ok(WeightsShown {
            at: graph.head.number,
            last_update: own.last_update,
            entries: own.weights.clone(),
            commits: script.commits.iter().filter_map(commit).collect(),
        })
    }
    async fn weights_of_all(&self) -> Result<Vec<(Uid, Vec<(Uid, u16)>)>, ChainError> {
        let graph = self.metagraph().await?;
        let set = graph.neurons.iter().filter(|n| !n.weights.is_empty());
        Ok(set.map(|n| (n.uid, n.weights.clone())).collect())
    }
    async fn register(&self, hotkey: Hotkey, coldkey: &dyn Signer) -> Result<Inclusion, ChainError> {
        self.inner.register(hotkey, coldkey).await
    }
}
