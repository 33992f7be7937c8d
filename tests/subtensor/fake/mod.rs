//! A node that misbehaves on request: JSON-RPC over WebSocket as a Substrate node has it, a small consistent chain
//! behind it, and a script of faults.
//!
//! It is for what no real node does when asked to: answers that belong to another request, garbage, silence, refusals of
//! every kind, reorgs at will. Where a real runtime must judge, there is [`bed`](../bed.rs) instead. Needs nothing but
//! this process; only a client that wants metadata needs a file of them ([`Chain::with_metadata`]).
//!
//! ```ignore
//! let fake = Fake::start(Chain::new()).await;
//! fake.fault("author_submitAndWatchExtrinsic", Fault::Refuse(Refusal::custom(6)));   // the next one
//! fake.fault_many("chain_getHeader", 0, usize::MAX, Fault::Silence);                 // every one
//! fake.new_block();
//! assert_eq!(fake.calls_of("author_submitAndWatchExtrinsic"), 1);
//! ```

mod chain;
mod fault;
mod server;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::task::JoinHandle;

pub(crate) use chain::{Chain, Outcome, Refusal, compact};
pub(crate) use fault::Fault;
use server::State;

/// A request that came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// Which connection it came on: 1 is the first.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) params: Vec<Value>,
}

/// A node on loopback. It ends with this value, and resets its connections.
pub(crate) struct Fake {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// Serves a chain on a port of its own.
    pub(crate) async fn start(chain: Chain) -> Self {
        let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::new(chain)));
        let task = tokio::spawn(server::accept(listener, Arc::clone(&state)));
        Fake { address, state, task }
    }

    /// Where clients connect.
    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The next call of this method (`*`: of any) meets the fault; one call meets at most one, the oldest.
    pub(crate) fn fault(&self, method: &'static str, fault: Fault) {
        self.fault_many(method, 0, 1, fault);
    }

    /// So many calls of this method meet the fault, after so many that do not.
    pub(crate) fn fault_many(&self, method: &'static str, skip: usize, times: usize, fault: Fault) {
        self.state.lock().unwrap().script.add(method, skip, times, fault);
    }

    /// Forgets all faults that were not met yet.
    pub(crate) fn heal(&self) {
        self.state.lock().unwrap().script.clear();
    }

    /// Resets every connection; new ones are served.
    pub(crate) fn drop_connections(&self) {
        self.state.lock().unwrap().end_connections();
    }

    /// The next block, with what is in the pool; subscribers hear of it.
    pub(crate) fn new_block(&self) {
        self.with(Chain::new_block);
    }

    /// Replaces the newest blocks by one more; subscribers hear of the new head, watchers of what was retracted. The
    /// transactions of the old blocks are in the pool again.
    pub(crate) fn reorg(&self, depth: usize) {
        self.with(|chain| chain.reorg(depth));
    }

    /// Changes the chain; subscribers hear of heads that changed.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Chain) -> T) -> T {
        let mut state = self.state.lock().unwrap();
        let out = change(&mut state.chain);
        state.announce();
        out
    }

    /// What was asked, in order, also what met a fault.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    /// How often this was asked.
    pub(crate) fn calls_of(&self, method: &str) -> usize {
        self.state.lock().unwrap().calls.iter().filter(|call| call.method == method).count()
    }

    /// Forgets what was asked: a long test would fill the memory with it.
    pub(crate) fn forget_calls(&self) {
        self.state.lock().unwrap().calls.clear();
    }

    /// Connections that are open now.
    pub(crate) fn open(&self) -> usize {
        self.state.lock().unwrap().open
    }

    /// Connections that were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().accepted
    }
}
