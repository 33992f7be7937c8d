//! A small chain of our own: one subnet, embedded, persisted, with the rules and the error names of the real one.
//!
//! Read in this order: [`genesis`] (how a ledger begins), [`call`] (what can be asked of it, and how it is signed),
//! [`state`] (the rules, pure, with [`consensus`] for weights and epochs), [`store`] (its files), [`node`] (who makes the
//! blocks), [`rpc`] (JSON over HTTP, loopback only) and [`client`] (the [`Chain`](super::Chain) of the other side).
//!
//! # Invariants
//! - [`state`] has no clock and no I/O: the same genesis, times and calls give the same blocks, hash for hash. The store
//!   relies on it: it keeps calls, and replays them.
//! - A block is announced only after it is on disk.
//! - Balances, stakes and what was burned always sum to what genesis gave out.
//! - Every call that changes something is signed over the genesis hash, the subnet and the account's nonce.
//!
//! # What it leaves out
//! Consensus between nodes, emission of money, an adjusting registration price, timelocked commits, Yuma's clipping and
//! bonds (see [`consensus`]), unstaking, delegation, other subnets.

pub mod call;
pub mod client;
pub mod consensus;
pub mod genesis;
pub mod node;
pub mod rpc;
pub mod state;
pub mod store;

pub(crate) use self::call::chain_ip;
pub use self::call::{Call, SignedCall};
pub use self::client::{Deadlines, LedgerClient, LedgerEndpoint};
pub use self::genesis::{GenesisConfig, GenesisError};
pub use self::node::{Account, Health, LedgerError, LedgerHandle, LedgerNode};
pub use self::rpc::{RpcError, RpcServer};
pub use self::state::{Block, Event, State};
pub use self::store::StoreError;

use blake2::Digest;
use blake2::digest::consts::U32;

use crate::ids::Hash32;

/// blake2b-256 over the concatenation of `parts`.
pub(crate) fn blake2b_256(parts: &[&[u8]]) -> Hash32 {
    let mut hasher = blake2::Blake2b::<U32>::new();
    for part in parts {
        hasher.update(part);
    }
    Hash32(hasher.finalize().into())
}
