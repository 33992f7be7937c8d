//! What metrics are made of: series whose labels are closed sets, each there from the start.

use prometheus::core::Collector;
use prometheus::{Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::labels::OTHER;
use super::names::Metric;

/// A counter whose label values are a closed set.
pub(super) struct Counts {
    vec: IntCounterVec,
    known: Vec<Vec<&'static str>>,
    other: Vec<&'static str>,
}

impl Counts {
    pub(super) fn new(r: &Registry, metric: Metric, known: Vec<Vec<&'static str>>) -> Result<Self, prometheus::Error> {
        let vec = IntCounterVec::new(Opts::new(metric.name(), metric.help()), metric.labels())?;
        r.register(Box::new(vec.clone()))?;
        for values in &known {
            vec.get_metric_with_label_values(values)?;
        }
        Ok(Counts { vec, known, other: vec![OTHER; metric.labels().len()] })
    }
    pub(super) fn add(&self, values: &[&str]) {
        let known = self.known.iter().find(|k| k.as_slice() == values).unwrap_or(&self.other);
        self.vec.with_label_values(known).inc();
    }
    pub(super) fn count(&self, values: &[&str]) -> u64 {
        self.vec.with_label_values(values).get()
    }
}

/// A gauge that is 1 for one of its states.
pub(super) struct State {
    vec: GaugeVec,
    known: Vec<&'static str>,
}

impl State {
    pub(super) fn new(r: &Registry, metric: Metric, known: &[&'static str]) -> Result<Self, prometheus::Error> {
        let vec = GaugeVec::new(Opts::new(metric.name(), metric.help()), metric.labels())?;
        r.register(Box::new(vec.clone()))?;
        known.iter().for_each(|state| vec.with_label_values(&[*state]).set(0.0));
        Ok(State { vec, known: known.to_vec() })
    }
    pub(super) fn is(&self, state: &str) {
        for known in &self.known {
            self.vec.with_label_values(&[*known]).set(f64::from(u8::from(*known == state)));
        }
    }
    pub(super) fn each(&self, count: impl Fn(&str) -> f64) {
        for known in &self.known {
            self.vec.with_label_values(&[*known]).set(count(known));
        }
    }
}

pub(super) fn registered<C: Collector + Clone + 'static>(r: &Registry, c: C) -> Result<C, prometheus::Error> {
    r.register(Box::new(c.clone()))?;
    Ok(c)
}

pub(super) fn counter(r: &Registry, metric: Metric) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(metric.name(), metric.help())?;
    r.register(Box::new(counter.clone()))?;
    Ok(counter)
}

pub(super) fn gauge(r: &Registry, metric: Metric) -> Result<Gauge, prometheus::Error> {
    registered(r, Gauge::with_opts(Opts::new(metric.name(), metric.help()))?)
}

fn histogram_opts(metric: Metric, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(metric.name(), metric.help()).buckets(buckets.to_vec())
}

pub(super) fn histogram(r: &Registry, metric: Metric, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    registered(r, Histogram::with_opts(histogram_opts(metric, buckets))?)
}

/// A histogram of which every series exists from the start.
pub(super) fn histograms<'a>(
    r: &Registry,
    metric: Metric,
    buckets: &[f64],
    values: impl IntoIterator<Item = &'a str>,
) -> Result<HistogramVec, prometheus::Error> {
    let vec = registered(r, HistogramVec::new(histogram_opts(metric, buckets), metric.labels())?)?;
    for value in values {
        vec.get_metric_with_label_values(&[value])?;
    }
    Ok(vec)
}
