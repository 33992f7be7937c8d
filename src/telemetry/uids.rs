//! Gauges with one series for each uid: bounded, and without series of neurons that are gone.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{GaugeVec, Opts, Registry};

use super::names::Metric;
use crate::ids::Uid;

/// The most uids that one gauge keeps. A subnet has 256; the bound is for a chain that misreports.
pub const MAX_UID_SERIES: usize = 1024;

pub(crate) struct UidGauge {
    gauge: GaugeVec,
    known: Mutex<BTreeSet<Uid>>,
}

impl UidGauge {
    pub(crate) fn register(metric: Metric, registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = GaugeVec::new(Opts::new(metric.name(), metric.help()), metric.labels())?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(UidGauge { gauge, known: Mutex::new(BTreeSet::new()) })
    }

    pub(crate) fn set(&self, uid: Uid, value: f64) {
        self.set_locked(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner), uid, value);
    }

    fn set_locked(&self, known: &mut BTreeSet<Uid>, uid: Uid, value: f64) {
        if known.contains(&uid) || known.len() < MAX_UID_SERIES {
            known.insert(uid);
            self.gauge.with_label_values(&[uid.to_string()]).set(value);
        }
    }

    /// Sets these and removes all others.
    pub(crate) fn replace(&self, values: &[(Uid, f64)]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let named: BTreeSet<Uid> = values.iter().map(|(uid, _)| *uid).collect();
        let gone: Vec<Uid> = known.difference(&named).copied().collect();
        for uid in gone {
            self.remove_locked(&mut known, uid);
        }
        for (uid, value) in values {
            self.set_locked(&mut known, *uid, *value);
        }
    }

    pub(crate) fn remove(&self, uid: Uid) {
        self.remove_locked(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner), uid);
    }

    fn remove_locked(&self, known: &mut BTreeSet<Uid>, uid: Uid) {
        if known.remove(&uid) {
            // The only error is that the series is not there, which is what is wanted.
            let _ = self.gauge.remove_label_values(&[uid.to_string()]);
        }
    }
}
