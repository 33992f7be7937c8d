//! What a rental needs of the machine beside the container engine: rules for what a tenant may reach ([`firewall`]) and a
//! limit of what it may write ([`quota`]); [`guard`] has both in the order of a container's life. [`processes`] ends what an engine that
//! was killed leaves running.
//!
//! The first two work with the system's own programs (`nft` or `iptables`, `mkfs.ext4`, `mount`), by lists of arguments and never
//! through a shell, each with a deadline ([`command`]). All find their state on the machine itself, in the kernel's tables and
//! in the names of files, so that a node that was killed at any point goes on where the machine is.
//!
//! What a machine cannot do is said with its reason; a [`Policy`] decides whether that refuses rentals.

pub mod command;
pub mod firewall;
pub mod guard;
pub mod processes;
pub mod quota;

use serde::{Deserialize, Serialize};

/// What becomes of rentals where the machine cannot hold a protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// No rental without it.
    Enforce,
    /// With it where it can be had; else without, which the log, a metric and `compute-miner doctor` say.
    #[default]
    BestEffort,
    /// It is not even tried.
    Off,
}

/// Free bytes, for whoever is not root, of the file system that this path lies on; `None` where it cannot be seen. Waits for the disk.
pub fn free(path: &std::path::Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
