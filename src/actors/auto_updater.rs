//! Checks for updates on a schedule.
//!
//! There is no update source yet: the actor keeps its schedule, knows the running version, and says `no update source
//! configured` once at its start and in its state. Nothing is downloaded and nothing is replaced.
//!
//! On restart: nothing needs to survive.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use crate::messages::auto_updater::{CheckForUpdate, UpdateState};
use crate::runtime::{Ctx, Inspect, Supervised};
use crate::telemetry::NodeMetrics;

/// The version this binary was built as.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The actor.
pub struct AutoUpdater {
    state: UpdateState,
    interval: Duration,
    checks: u64,
    metrics: Arc<NodeMetrics>,
}

impl AutoUpdater {
    /// An updater that looks every `interval`, or never when it is not `enabled`.
    pub fn new(enabled: bool, interval: Duration, metrics: Arc<NodeMetrics>) -> Self {
        AutoUpdater {
            state: if enabled { UpdateState::Idle } else { UpdateState::Off },
            interval: interval.max(Duration::from_secs(1)),
            checks: 0,
            metrics,
        }
    }

    fn check(&mut self) {
        self.metrics.update_state(self.state.label());
        if self.state == UpdateState::Off {
            return;
        }
        self.checks += 1;
        if self.state != UpdateState::NoSource {
            tracing::info!(version = VERSION, "no update source configured, this version stays");
        }
        self.state = UpdateState::NoSource;
        self.metrics.update_state(self.state.label());
    }
}

impl Actor for AutoUpdater {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.check();
        ctx.run_interval(self.interval, |act, _| act.check());
    }
}

impl Supervised for AutoUpdater {
    const MESSAGES: &'static [&'static str] = &["CheckForUpdate"];
}

impl Handler<CheckForUpdate> for AutoUpdater {
    type Result = MessageResult<CheckForUpdate>;
    fn handle(&mut self, _: CheckForUpdate, _: &mut Ctx<Self>) -> Self::Result {
        self.check();
        MessageResult(self.state.clone())
    }
}

impl Handler<Inspect> for AutoUpdater {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({
            "update": self.state,
            "version": VERSION,
            "interval_seconds": self.interval.as_secs(),
            "checks": self.checks,
        }))
    }
}
