//! A gauge of the time since something happened, computed when it is read: it grows even when nobody is left to
//! update it, which is when it matters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Opts};

use super::names::Metric;
use crate::clock::SharedClock;

/// Time since the last [`touch`](AgeGauge::touch), since it was made before the first.
#[derive(Clone)]
pub(crate) struct AgeGauge {
    gauge: Gauge,
    last_ns: Arc<AtomicU64>,
    clock: SharedClock,
}

impl AgeGauge {
    pub(crate) fn new(metric: Metric, clock: SharedClock) -> Result<Self, prometheus::Error> {
        let gauge = Gauge::with_opts(Opts::new(metric.name(), metric.help()))?;
        let last_ns = Arc::new(AtomicU64::new(clock.now_ns()));
        Ok(AgeGauge { gauge, last_ns, clock })
    }
    /// It happened now.
    pub(crate) fn touch(&self) {
        self.last_ns.store(self.clock.now_ns(), Ordering::Relaxed);
    }
    /// It happened so long ago.
    pub(crate) fn touch_ago(&self, age: Duration) {
        let age_ns = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        self.last_ns.store(self.clock.now_ns().saturating_sub(age_ns), Ordering::Relaxed);
    }
    /// In seconds; 0 if the wall clock went back.
    pub(crate) fn seconds(&self) -> f64 {
        self.clock.now_ns().saturating_sub(self.last_ns.load(Ordering::Relaxed)) as f64 / 1e9
    }
}

impl Collector for AgeGauge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }
    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(self.seconds());
        self.gauge.collect()
    }
}
