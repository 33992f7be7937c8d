//! The chain client's connections as metrics. The client counts; this reads when it is asked, so nothing has to be told, and
//! the figures are right also when every actor hangs.

use std::sync::{Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, IntCounterVec, Opts, Registry};

use super::names::Metric;
use crate::chain::Vitals;

/// Registers the metrics of the client's connections, all of their series at once.
///
/// # Errors
/// If the registry already has them.
pub fn register_chain(
    registry: &Registry,
    vitals: impl Fn() -> Vitals + Send + Sync + 'static,
) -> Result<(), prometheus::Error> {
    let opts = |metric: Metric| Opts::new(metric.name(), metric.help());
    let counters = |metric: Metric| IntCounterVec::new(opts(metric), metric.labels());
    let series = Series {
        calls: counters(Metric::ChainRpcCalls)?,
        connections: counters(Metric::ChainConnections)?,
        ended: counters(Metric::ChainConnectionsEnded)?,
        endpoint: Gauge::with_opts(opts(Metric::ChainEndpoint))?,
        head_age: Gauge::with_opts(opts(Metric::ChainHeadAge))?,
    };
    let desc = series.all().iter().flat_map(|of| of.desc()).cloned().collect();
    registry.register(Box::new(ChainCollector { vitals: Box::new(vitals), desc, series: Mutex::new(series) }))
}

struct ChainCollector {
    vitals: Box<dyn Fn() -> Vitals + Send + Sync>,
    desc: Vec<Desc>,
    // Two scrapes at once would count the same calls twice.
    series: Mutex<Series>,
}

struct Series {
    calls: IntCounterVec,
    connections: IntCounterVec,
    ended: IntCounterVec,
    endpoint: Gauge,
    head_age: Gauge,
}

impl Series {
    fn all(&self) -> [&dyn Collector; 5] {
        [&self.calls, &self.connections, &self.ended, &self.endpoint, &self.head_age]
    }

    fn follow(&self, now: &Vitals) {
        let count = |vec: &IntCounterVec, labels: &[&str], total: u64| {
            let counter = vec.with_label_values(labels);
            counter.inc_by(total.saturating_sub(counter.get()));
        };
        for (method, outcome, total) in &now.calls {
            count(&self.calls, &[method, outcome], *total);
        }
        count(&self.connections, &["ok"], now.connected);
        count(&self.connections, &["failed"], now.failed);
        for (cause, total) in &now.ended {
            count(&self.ended, &[cause.label()], *total);
        }
        self.endpoint.set(now.endpoint.unwrap_or(0) as f64);
        self.head_age.set(now.head_age.unwrap_or_default().as_secs_f64());
    }
}

impl Collector for ChainCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }
    fn collect(&self) -> Vec<MetricFamily> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.follow(&(self.vitals)());
        series.all().iter().flat_map(|of| of.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::chain::Cause;
    use crate::telemetry::encode;

    #[test]
    fn every_series_is_there_before_anything_was_called_and_follows_the_client() {
        let (registry, vitals) = (Registry::new(), Arc::new(Mutex::new(Vitals::default())));
        let of = vitals.clone();
        register_chain(&registry, move || of.lock().unwrap().clone()).unwrap();
        let text = encode(&registry).unwrap();
        assert!(
            text.contains("compute_chain_rpc_calls_total{method=\"state_call\",outcome=\"timeout\"} 0\n"),
            "{text}"
        );
        for cause in Cause::ALL {
            let line = format!("compute_chain_connections_ended_total{{cause=\"{}\"}} 0\n", cause.label());
            assert!(text.contains(&line), "{line}");
        }
        assert!(text.contains("compute_chain_endpoint 0\n"));
        {
            let mut vitals = vitals.lock().unwrap();
            vitals.calls[0].2 = 7;
            (vitals.connected, vitals.failed) = (2, 3);
            (vitals.endpoint, vitals.head_age) = (Some(2), Some(Duration::from_millis(1_500)));
        }
        for _ in 0..2 {
            let text = encode(&registry).unwrap();
            assert!(text.contains("{method=\"author_submitAndWatchExtrinsic\",outcome=\"ok\"} 7\n"), "{text}");
            assert!(text.contains("compute_chain_connections_total{result=\"failed\"} 3\n"));
            assert!(
                text.contains("compute_chain_endpoint 2\n") && text.contains("compute_chain_head_age_seconds 1.5\n")
            );
        }
        assert!(register_chain(&registry, Vitals::default).is_err(), "one registry holds one node");
    }
}
