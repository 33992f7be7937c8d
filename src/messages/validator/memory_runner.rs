//! Messages of [`crate::actors::validator::memory_runner::MemoryRunner`].

use std::collections::BTreeMap;

use actix::Message;
use serde::{Deserialize, Serialize};

use crate::ids::Epoch;

/// The last round of memory proofs since the start, if any.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Option<MemoryJudged>")]
pub struct LastMemory;

/// What a round of memory proofs came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryJudged {
    /// Its epoch.
    pub epoch: Epoch,
    /// Devices by verdict: `pass`, or the label of the reason.
    pub counts: BTreeMap<String, u32>,
}
