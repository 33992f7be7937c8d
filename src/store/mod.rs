//! The node's database: one SQLite file per data directory, owned by one process and written by one thread.
//!
//! A node [`open`](open::open)s its directory (lock, repair, migrations), hands the [`Database`] to a [`Writer`], and from then
//! on only speaks to that: [`Writer::submit`] and [`Writer::write`] for [`Record`]s, [`Writer::query`] with the functions of
//! [`queries`] for reads. Tools that must never write use [`read_only`].
//!
//! Invariants:
//! - a write is acknowledged after its transaction has committed, and after an fsync for what a node must not forget
//!   ([`Record::durable`]): leases, weights, penalties, evidence, settings of the node;
//! - a batch is written whole or not at all; one bad record never takes its neighbours down;
//! - nothing a person may want back is deleted: a corrupt file is moved aside, a database of a newer version is not touched,
//!   and every migration is preceded by a backup;
//! - two live leases never share a device, and an old fencing epoch never overwrites a newer one: the schema itself refuses;
//! - no caller waits for ever and no queue grows without bound.

pub mod canaries;
pub mod explain;
pub mod open;
pub mod queries;
pub mod read_only;
pub mod records;
pub mod schema;
pub mod writer;

mod apply;
mod error;
#[cfg(test)]
mod fixtures;
mod reader;

pub use error::{Degradation, StoreError};
pub use open::{Database, OpenError, OpenNote, Opened, open};
pub use records::Record;
pub use writer::{Ack, Commit, CommitObserver, Health, Writer, WriterConfig, WriterStats};

/// The database's file name in a data directory.
pub const DATABASE_FILE: &str = "node.db";
/// The lock file's name in a data directory.
pub const LOCK_FILE: &str = "node.lock";

/// Which kind of node a database belongs to. A directory keeps the role it was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A miner.
    Miner,
    /// A validator.
    Validator,
}

impl Role {
    /// The text in the database: `miner` or `validator`.
    pub fn label(self) -> &'static str {
        match self {
            Role::Miner => "miner",
            Role::Validator => "validator",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.label())
    }
}

impl std::str::FromStr for Role {
    type Err = UnknownRole;
    fn from_str(s: &str) -> Result<Self, UnknownRole> {
        match s {
            "miner" => Ok(Role::Miner),
            "validator" => Ok(Role::Validator),
            _ => Err(UnknownRole),
        }
    }
}

/// A text is neither `miner` nor `validator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a role, expected miner or validator")]
pub struct UnknownRole;
