//! Measures this machine on a period and keeps the last measurement.
//!
//! Invariants: one measurement at a time, on a blocking thread; a failed section is empty and says why, it never
//! fails the measurement. Callers that come before the first measurement wait for it.
//!
//! On restart: the machine is measured again.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::watch;

use crate::clock::SharedClock;
use crate::hardware::{self, OfferedDevice, Probe};
use crate::messages::miner::specs_collector::{GetSpecs, MachineSpecs, Measure};
use crate::runtime::{Ctx, Inspect, Supervised};
use crate::telemetry::NodeMetrics;

/// How long a measurement may take; a driver that hangs costs one blocking thread, not the actor.
const MEASURE: Duration = Duration::from_secs(30);
/// When a failed measurement is tried again: without a first one the node does nothing.
const RETRY: Duration = Duration::from_secs(10);

/// What the collector works with.
pub struct SpecsCollectorSetup {
    /// What to look at.
    pub probe: Probe,
    /// Time between two measurements.
    pub period: Duration,
    /// Devices offered instead of the measured GPUs: device classes of a devnet.
    pub device_classes: Option<Vec<OfferedDevice>>,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

/// The actor.
pub struct SpecsCollector {
    setup: Arc<SpecsCollectorSetup>,
    last: watch::Sender<Option<MachineSpecs>>,
    measuring: bool,
}

impl SpecsCollector {
    /// A collector that has measured nothing yet.
    pub fn new(setup: Arc<SpecsCollectorSetup>) -> Self {
        SpecsCollector { setup, last: watch::Sender::new(None), measuring: false }
    }

    fn measure(&mut self, ctx: &mut Ctx<Self>) {
        if self.measuring {
            return;
        }
        self.measuring = true;
        let setup = self.setup.clone();
        let work = async move {
            let specs = hardware::collect(&setup.probe, MEASURE).await;
            (specs, setup)
        };
        ctx.spawn(work.into_actor(self).map(|(specs, setup), act, ctx| {
            act.measuring = false;
            match specs {
                Ok(mut specs) => {
                    if let Some(classes) = &setup.device_classes {
                        specs.devices = classes.clone();
                    }
                    setup.metrics.specs(&specs);
                    let taken_at_ms = setup.clock.now_ms();
                    act.last.send_replace(Some(MachineSpecs { specs: Arc::new(specs), taken_at_ms }));
                }
                Err(error) => {
                    tracing::error!(%error, "measuring this machine failed, the last measurement stays");
                    ctx.run_later(RETRY, |act, ctx| act.measure(ctx));
                }
            }
        }));
    }
}

impl Actor for SpecsCollector {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        self.measure(ctx);
        ctx.run_interval(self.setup.period, |act, ctx| act.measure(ctx));
    }
}

impl Supervised for SpecsCollector {
    const MESSAGES: &'static [&'static str] = &["GetSpecs", "Measure"];
}

impl Handler<GetSpecs> for SpecsCollector {
    type Result = ResponseActFuture<Self, MachineSpecs>;
    fn handle(&mut self, _: GetSpecs, _: &mut Ctx<Self>) -> Self::Result {
        let mut last = self.last.subscribe();
        Box::pin(
            async move {
                loop {
                    if let Some(specs) = last.borrow_and_update().clone() {
                        return specs;
                    }
                    if last.changed().await.is_err() {
                        // The sender lives in the actor that polls this future: it cannot be gone.
                        std::future::pending::<()>().await;
                    }
                }
            }
            .into_actor(self),
        )
    }
}

impl Handler<Measure> for SpecsCollector {
    type Result = ();
    fn handle(&mut self, _: Measure, ctx: &mut Ctx<Self>) {
        self.measure(ctx);
    }
}

impl Handler<Inspect> for SpecsCollector {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        let last = self.last.borrow();
        MessageResult(serde_json::json!({
            "measured": last.is_some(),
            "taken_at_ms": last.as_ref().map(|s| s.taken_at_ms),
            "devices": last.as_ref().map(|s| s.specs.devices.iter().map(|d| format!("{} {}", d.device, d.model)).collect::<Vec<_>>()),
        }))
    }
}
