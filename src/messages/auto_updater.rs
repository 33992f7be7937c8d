//! Messages of [`crate::actors::auto_updater::AutoUpdater`].

use actix::Message;
use serde::Serialize;

/// Check for an update now; replies with the state after the check.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "UpdateState")]
pub struct CheckForUpdate;

/// Where the updater stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum UpdateState {
    /// Switched off in the configuration.
    Off,
    /// No update source is configured: nothing is checked.
    NoSource,
    /// Not checked yet.
    Idle,
}

impl UpdateState {
    /// The metric label.
    pub fn label(&self) -> &'static str {
        match self {
            UpdateState::Off => "off",
            UpdateState::NoSource => "no_source",
            UpdateState::Idle => "idle",
        }
    }
}
