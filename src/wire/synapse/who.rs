//! One node of a hotkey asks another address whether it serves the same hotkey.

use serde::{Deserialize, Serialize};

/// Asks which process serves the hotkey that signed the request. Nobody else is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoRequest {}

/// Which process it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoReply {
    /// Random text for one start of a node.
    pub instance: String,
    /// When it started, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}
