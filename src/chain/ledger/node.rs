//! Who makes the blocks: one task that owns the state, the pool of waiting calls and the store.
//!
//! A submitted call is checked at once (signature, envelope, rules as of now), waits in the pool, and is included in the
//! next block; the submitter hears when that block is on disk. A call whose submitter has given up is included all the
//! same, as on the real chain. Readers never ask the task: each block publishes the whole state.
//!
//! If the disk refuses a block, the block does not happen: calls stay in the pool, [`Health::degraded`] says why, and the
//! next tick tries again.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::MissedTickBehavior;

use super::call::SignedCall;
use super::genesis::GenesisConfig;
use super::state::State;
use super::store::{Store, StoreError};
use crate::chain::{BlockHead, ChainError, Inclusion, Metagraph, Rejection};
use crate::clock::SharedClock;
use crate::ids::{Coldkey, Hash32, Hotkey};

/// Calls that wait for a block at most.
pub const POOL_LIMIT: usize = 1024;
/// Calls of one account that wait for a block at most.
pub const POOL_LIMIT_PER_ACCOUNT: usize = 64;
/// Commands on their way to the task at most.
const COMMANDS: usize = 256;

/// Why a ledger did not start.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Its files, or its configuration.
    #[error("the ledger cannot be opened")]
    Store(#[from] StoreError),
    /// The thread that opened the files died.
    #[error("the thread that opened the ledger's files ended early: {0}")]
    Thread(String),
}

/// An account as the ledger sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Account {
    /// The nonce that its next call must carry, waiting calls counted.
    pub nonce: u64,
    /// Its free balance, in rao.
    pub balance_rao: u64,
    /// The hash of the ledger's block 0, which calls are signed over.
    pub genesis: Hash32,
}

/// How the ledger is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Health {
    /// The newest block.
    pub head: BlockHead,
    /// Why no blocks can be made, if so.
    pub degraded: Option<String>,
}

enum Command {
    Submit(Box<SignedCall>, oneshot::Sender<Result<Inclusion, Rejection>>),
    Nonce(Hotkey, oneshot::Sender<u64>),
    Produce(oneshot::Sender<BlockHead>),
    Stop(oneshot::Sender<()>),
}

/// Starts ledgers.
#[derive(Debug)]
pub struct LedgerNode(());

impl LedgerNode {
    /// Opens the ledger in `dir` (or keeps it in memory only) and makes blocks every `genesis.block_time` from now on,
    /// until [`LedgerHandle::stop`] or until every handle is gone. `clock` gives the blocks' times. The ledger lives on the
    /// runtime that this is called on.
    ///
    /// # Errors
    /// If the files cannot be used.
    pub async fn spawn(
        genesis: GenesisConfig,
        dir: Option<&Path>,
        clock: SharedClock,
    ) -> Result<LedgerHandle, LedgerError> {
        let now_ms = clock.now_ms();
        let (store, state) = match dir {
            None => (None, State::genesis(&genesis, now_ms).map_err(StoreError::from)?),
            Some(dir) => {
                let (dir, config) = (dir.to_owned(), genesis.clone());
                let opened = tokio::task::spawn_blocking(move || Store::open(&dir, &config, now_ms)).await;
                let (store, state) = opened.map_err(|e| LedgerError::Thread(e.to_string()))??;
                (Some(store), state)
            }
        };
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (heads, heads_seen) = watch::channel(state.head());
        let state = Arc::new(state);
        let (states, states_seen) = watch::channel(Shown::new(state.clone()));
        let (degraded, degraded_seen) = watch::channel(None);
        let handle = LedgerHandle {
            commands,
            states: states_seen,
            heads: heads_seen,
            degraded: degraded_seen,
            block_time: genesis.block_time,
        };
        let task = Task { state, store, memory_only: dir.is_none(), pool: Vec::new(), clock, states, heads, degraded };
        tokio::spawn(task.run(inbox, genesis.block_time));
        Ok(handle)
    }
}

/// What a block publishes.
#[derive(Debug)]
struct Shown {
    state: Arc<State>,
    /// Made when first asked for: in a devnet every node asks for the same, once for each block.
    metagraph: OnceLock<Arc<Metagraph>>,
}

impl Shown {
    fn new(state: Arc<State>) -> Arc<Self> {
        Arc::new(Shown { state, metagraph: OnceLock::new() })
    }
}

/// A running ledger.
#[derive(Clone, Debug)]
pub struct LedgerHandle {
    commands: mpsc::Sender<Command>,
    states: watch::Receiver<Arc<Shown>>,
    heads: watch::Receiver<BlockHead>,
    degraded: watch::Receiver<Option<String>>,
    block_time: Duration,
}

fn stopped<E>(_: E) -> ChainError {
    ChainError::Unreachable("the ledger has stopped".into())
}

impl LedgerHandle {
    /// The state after the newest block, also of a ledger that has stopped.
    pub fn state(&self) -> Arc<State> {
        self.states.borrow().state.clone()
    }

    /// The state after the newest block, while there may be a newer one.
    ///
    /// # Errors
    /// `Unreachable` if the ledger has stopped: an old state must not pass for news.
    pub fn live_state(&self) -> Result<Arc<State>, ChainError> {
        if self.commands.is_closed() { Err(stopped(())) } else { Ok(self.state()) }
    }

    /// The subnet after the newest block, made once for everybody in this process that asks.
    ///
    /// # Errors
    /// As for [`live_state`](Self::live_state).
    pub fn live_metagraph(&self) -> Result<Arc<Metagraph>, ChainError> {
        self.live_state()?;
        let shown = self.states.borrow().clone();
        Ok(shown.metagraph.get_or_init(|| Arc::new(shown.state.metagraph())).clone())
    }

    /// Follows the blocks: the receiver holds the newest, and changes with each.
    pub fn subscribe(&self) -> watch::Receiver<BlockHead> {
        self.heads.clone()
    }

    /// The time between two blocks; zero if they are only made when asked.
    pub fn block_time(&self) -> Duration {
        self.block_time
    }

    /// How the ledger is.
    pub fn health(&self) -> Health {
        let stopped = || self.commands.is_closed().then(|| "the ledger has stopped".to_owned());
        Health { head: self.state().head(), degraded: stopped().or_else(|| self.degraded.borrow().clone()) }
    }

    /// Nonce and balance of an account.
    ///
    /// # Errors
    /// `Unreachable` if the ledger has stopped.
    pub async fn account(&self, who: Hotkey) -> Result<Account, ChainError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Nonce(who, reply)).await.map_err(stopped)?;
        let nonce = answer.await.map_err(stopped)?;
        let state = self.state();
        Ok(Account { nonce, balance_rao: state.balance(&Coldkey(who.0)), genesis: state.genesis_head().hash })
    }

    /// Submits a signed call and waits until it is included; at most a block's time if all is well.
    ///
    /// # Errors
    /// `Rejected` if the signature, the envelope or a rule does not hold, or if the pool is full. `Unreachable` if the
    /// ledger has stopped.
    pub async fn submit(&self, signed: SignedCall) -> Result<Inclusion, ChainError> {
        if !signed.signature_holds() {
            return Err(Rejection::BadSignature.into());
        }
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Submit(Box::new(signed), reply)).await.map_err(stopped)?;
        Ok(answer.await.map_err(stopped)??)
    }

    /// Makes a block now. For tests, simulations and ledgers with a block time of zero.
    ///
    /// # Errors
    /// `Unreachable` if the ledger has stopped or the disk refused the block.
    pub async fn produce_block(&self) -> Result<BlockHead, ChainError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Produce(reply)).await.map_err(stopped)?;
        answer.await.map_err(|_| ChainError::Unreachable("the ledger made no block; see its health".into()))
    }

    /// Stops the ledger and waits until its files are closed. Waiting calls are dropped.
    pub async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Stop(reply)).await.is_ok() {
            let _ = answer.await;
        }
    }
}

struct Waiting {
    call: SignedCall,
    reply: oneshot::Sender<Result<Inclusion, Rejection>>,
}

struct Task {
    state: Arc<State>,
    /// `None` for a ledger in memory, and after the store's thread died.
    store: Option<Store>,
    memory_only: bool,
    pool: Vec<Waiting>,
    clock: SharedClock,
    states: watch::Sender<Arc<Shown>>,
    heads: watch::Sender<BlockHead>,
    degraded: watch::Sender<Option<String>>,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>, block_time: Duration) {
        let periodic = !block_time.is_zero();
        // Without a period the interval is never waited for; it only must not be zero.
        let mut ticks = tokio::time::interval(if periodic { block_time } else { Duration::from_secs(3600) });
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once, the first block one period later.
        ticks.tick().await;
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    None => return,
                    Some(Command::Stop(done)) => {
                        // Close the files before saying so.
                        self.store = None;
                        let _ = done.send(());
                        return;
                    }
                    Some(Command::Submit(call, reply)) => self.submit(*call, reply),
                    Some(Command::Nonce(who, reply)) => {
                        let _ = reply.send(self.state.nonce(&who).saturating_add(self.waiting_of(&who) as u64));
                    }
                    Some(Command::Produce(reply)) => {
                        if self.produce().await {
                            let _ = reply.send(self.state.head());
                        }
                    }
                },
                _ = ticks.tick(), if periodic => { self.produce().await; }
            }
        }
    }

    fn waiting_of(&self, who: &Hotkey) -> usize {
        self.pool.iter().filter(|w| w.call.signer == *who).count()
    }

    fn submit(&mut self, call: SignedCall, reply: oneshot::Sender<Result<Inclusion, Rejection>>) {
        let ahead = self.waiting_of(&call.signer);
        let verdict = self
            .state
            .check_envelope(&call, ahead as u64)
            .and_then(|()| self.state.check(call.netuid, &call.call, &call.signer))
            .and_then(|()| {
                let full = self.pool.len() >= POOL_LIMIT || ahead >= POOL_LIMIT_PER_ACCOUNT;
                if full { Err(Rejection::PoolFull) } else { Ok(()) }
            });
        match verdict {
            Ok(()) => self.pool.push(Waiting { call, reply }),
            Err(rejection) => {
                let _ = reply.send(Err(rejection));
            }
        }
    }

    /// Makes a block and announces it once it is on disk. False if the disk refused.
    async fn produce(&mut self) -> bool {
        let mut next = State::clone(&self.state);
        let calls = self.pool.iter().map(|w| w.call.clone()).collect();
        let block = next.produce_block(self.clock.now_ms(), calls);
        let next = Arc::new(next);
        if let Err(reason) = self.persist(&block, &next).await {
            tracing::error!(reason, block = block.head.number, "ledger cannot write a block, will try again");
            self.degraded.send_replace(Some(reason));
            return false;
        }
        self.degraded.send_if_modified(|d| d.take().is_some());
        self.state = next.clone();
        self.states.send_replace(Shown::new(next));
        for waiting in self.pool.drain(..) {
            let hash = waiting.call.hash();
            let found = block.calls.iter().find(|c| c.call == waiting.call);
            let answer = match found.map(|c| c.refused) {
                Some(None) => Ok(Inclusion { block: block.head.number, extrinsic: hash }),
                Some(Some(rejection)) => Err(rejection),
                // Left out: an earlier call of the account did not fit either.
                None => Err(Rejection::StaleTransaction(self.state.nonce(&waiting.call.signer))),
            };
            let _ = waiting.reply.send(answer);
        }
        self.heads.send_replace(block.head);
        true
    }

    async fn persist(&mut self, block: &super::state::Block, after: &Arc<State>) -> Result<(), String> {
        if self.memory_only {
            return Ok(());
        }
        let mut store = self.store.take().ok_or("the ledger's files were lost; restart it")?;
        let (block, after) = (block.clone(), after.clone());
        let written = tokio::task::spawn_blocking(move || {
            let result = store.append(&block, &after);
            (store, result)
        });
        let (store, result) = written.await.map_err(|e| format!("the writing thread ended early: {e}"))?;
        self.store = Some(store);
        result.map_err(|e| match std::error::Error::source(&e) {
            Some(source) => format!("{e}: {source}"),
            None => e.to_string(),
        })
    }
}

#[cfg(test)]
mod tests;
