//! What the operator keeps a running node from: maintenance (no new leases, everything else goes on) and a drain, which
//! is maintenance that ends with the node.

use serde::{Deserialize, Serialize};

/// The key of maintenance in the database's table `meta`.
pub const META_MAINTENANCE: &str = "maintenance";

/// Maintenance: it lasts over restarts until the operator ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// The operator's words.
    pub note: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// A drain: the node takes no new leases and ends like after SIGTERM. It does not outlast the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Whether the node first waits until every lease has ended.
    pub wait_for_leases: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// Both, as published to a node's actors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duty {
    /// Maintenance, if it is on.
    pub maintenance: Option<Maintenance>,
    /// The drain, if one was begun.
    pub drain: Option<Drain>,
}

impl Duty {
    /// Why no new lease is made; `None` while they are.
    pub fn refuses_leases(&self) -> Option<String> {
        match (&self.drain, &self.maintenance) {
            (Some(_), _) => Some("this node is draining and will end".to_owned()),
            (None, Some(Maintenance { note, .. })) if note.is_empty() => Some("this node is in maintenance".to_owned()),
            (None, Some(Maintenance { note, .. })) => Some(format!("this node is in maintenance: {note}")),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_says_why_it_takes_no_lease() {
        let mut duty = Duty::default();
        assert_eq!(duty.refuses_leases(), None);
        duty.maintenance = Some(Maintenance { note: "new disk".into(), since_ms: 1 });
        assert_eq!(duty.refuses_leases().unwrap(), "this node is in maintenance: new disk");
        duty.drain = Some(Drain { wait_for_leases: true, since_ms: 2 });
        assert!(duty.refuses_leases().unwrap().contains("draining"));
    }
}
