//! The actors' series in one node's registry, resolved once per actor so that the message path hashes no labels.

use super::state::{Cause, Outcome, State};
use crate::telemetry::names::Metric;
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};
use std::sync::Arc;

/// Seconds; from a bare handler (1 µs) to one that should have been a background task (10 s).
const BUCKETS: [f64; 8] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];

/// The series of all actors of one node. One registry per node: several nodes of a process have equal actor names.
#[derive(Debug)]
pub struct RuntimeMetrics {
    state: IntGaugeVec,
    restarts: IntCounterVec,
    messages: IntCounterVec,
    handling: HistogramVec,
    queue_wait: HistogramVec,
    depth: IntGaugeVec,
    capacity: IntGaugeVec,
    heartbeat_age: GaugeVec,
}

impl RuntimeMetrics {
    /// Makes the metrics of [`Metric`]'s `Actor*` names and registers them.
    ///
    /// # Errors
    /// If the registry already holds one of these names.
    pub fn register(registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let opts = |m: Metric| Opts::new(m.name(), m.help());
        let seconds = |m: Metric| HistogramOpts::new(m.name(), m.help()).buckets(BUCKETS.to_vec());
        let metrics = RuntimeMetrics {
            state: IntGaugeVec::new(opts(Metric::ActorState), Metric::ActorState.labels())?,
            restarts: IntCounterVec::new(opts(Metric::ActorRestarts), Metric::ActorRestarts.labels())?,
            messages: IntCounterVec::new(opts(Metric::ActorMessages), Metric::ActorMessages.labels())?,
            handling: HistogramVec::new(seconds(Metric::ActorHandling), Metric::ActorHandling.labels())?,
            queue_wait: HistogramVec::new(seconds(Metric::ActorQueueWait), Metric::ActorQueueWait.labels())?,
            depth: IntGaugeVec::new(opts(Metric::ActorMailboxDepth), Metric::ActorMailboxDepth.labels())?,
            capacity: IntGaugeVec::new(opts(Metric::ActorMailboxCapacity), Metric::ActorMailboxCapacity.labels())?,
            heartbeat_age: GaugeVec::new(opts(Metric::ActorHeartbeatAge), Metric::ActorHeartbeatAge.labels())?,
        };
        let collectors: [Box<dyn Collector>; 8] = [
            Box::new(metrics.state.clone()),
            Box::new(metrics.restarts.clone()),
            Box::new(metrics.messages.clone()),
            Box::new(metrics.handling.clone()),
            Box::new(metrics.queue_wait.clone()),
            Box::new(metrics.depth.clone()),
            Box::new(metrics.capacity.clone()),
            Box::new(metrics.heartbeat_age.clone()),
        ];
        for collector in collectors {
            registry.register(collector)?;
        }
        Ok(Arc::new(metrics))
    }

    /// The series of one actor, all of them, at their initial values.
    pub(crate) fn actor(&self, actor: &'static str, messages: &[&'static str]) -> ActorSeries {
        ActorSeries {
            states: State::ALL.map(|s| self.state.with_label_values(&[actor, s.label()])),
            restarts: Cause::ALL.map(|c| self.restarts.with_label_values(&[actor, c.label()])),
            messages: messages.iter().map(|m| self.message(actor, m)).collect(),
            queue_wait: self.queue_wait.with_label_values(&[actor]),
            depth: self.depth.with_label_values(&[actor]),
            capacity: self.capacity.with_label_values(&[actor]),
            heartbeat_age: self.heartbeat_age.with_label_values(&[actor]),
        }
    }

    /// The series of one message type of one actor.
    pub(crate) fn message(&self, actor: &'static str, message: &'static str) -> Arc<MessageSeries> {
        Arc::new(MessageSeries {
            name: message,
            outcomes: Outcome::ALL.map(|o| self.messages.with_label_values(&[actor, message, o.label()])),
            handling: self.handling.with_label_values(&[actor, message]),
        })
    }
}

/// One actor's series.
pub(crate) struct ActorSeries {
    pub(crate) states: [IntGauge; State::ALL.len()],
    pub(crate) restarts: [IntCounter; Cause::ALL.len()],
    pub(crate) messages: Vec<Arc<MessageSeries>>,
    pub(crate) queue_wait: Histogram,
    pub(crate) depth: IntGauge,
    pub(crate) capacity: IntGauge,
    pub(crate) heartbeat_age: Gauge,
}

/// One message type's series.
pub(crate) struct MessageSeries {
    pub(crate) name: &'static str,
    outcomes: [IntCounter; Outcome::ALL.len()],
    handling: Histogram,
}

impl MessageSeries {
    /// Counts a message that was never handled.
    pub(crate) fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].inc();
    }
    /// Counts a handled message and how long it took, in seconds.
    pub(crate) fn handled(&self, outcome: Outcome, seconds: f64) {
        self.count(outcome);
        self.handling.observe(seconds);
    }
}
