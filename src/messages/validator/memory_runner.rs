//! Messages of [`crate::actors::validator::memory_runner::MemoryRunner`].

use std::collections::BTreeMap;
use std::fmt;

use actix::Message;
use serde::{Deserialize, Serialize};

use crate::ids::Epoch;

/// The last round of memory proofs since the start, if any.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<MemoryJudged>")]
pub struct LastMemory;

/// What a round of memory proofs came to. Displays as `epoch 7: 3 pass, 1 memory_mismatch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryJudged {
    /// Its epoch.
    pub epoch: Epoch,
    /// Devices by verdict: `pass`, or the label of the reason.
    pub counts: BTreeMap<String, u32>,
}

impl fmt::Display for MemoryJudged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.counts.iter().map(|(label, count)| format!("{count} {label}")).collect();
        write!(f, "epoch {}: {}", self.epoch, counts.join(", "))
    }
}
