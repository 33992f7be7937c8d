//! What a validator counts of its rentals: requests, the miners asked for them, its own looks, and what proofs
//! say of rented hardware.

use std::time::Duration;

use prometheus::{Histogram, Registry};

use super::names::Metric;
use super::series::{Counts, histogram};
use crate::rental::Outcome;

/// From a request to a running container: 50 ms to 10 min.
const RENT_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 150.0, 600.0];
/// What comes of a request for a rental.
const RESULTS: &[&str] = &["rented", "none_free", "refused", "no_answer", "invalid", "not_made"];
/// What an own look at an SSH port finds; `not_seen` is our own fault.
const PROBES: &[&str] = &["answered", "no_answer", "not_seen"];
/// What comes of asking one miner for a rental.
const OUTCOMES: &[&str] = &["running", "refused", "unreachable", "no_answer"];
/// What a proof says of a rented device.
const HARDWARE: &[&str] = &["same", "changed", "ended", "changed_at_release"];

/// The metrics.
pub struct RentalMetrics {
    rentals: Counts,
    duration: Histogram,
    candidates: Counts,
    probes: Counts,
    hardware: Counts,
}

impl RentalMetrics {
    pub(super) fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        let each = |labels: &[&'static str]| labels.iter().map(|label| vec![*label]).collect::<Vec<_>>();
        Ok(RentalMetrics {
            rentals: Counts::new(r, Metric::Rentals, each(RESULTS))?,
            duration: histogram(r, Metric::RentalDuration, RENT_BUCKETS)?,
            candidates: Counts::new(r, Metric::RentalCandidates, each(OUTCOMES))?,
            probes: Counts::new(r, Metric::LeaseProbes, each(PROBES))?,
            hardware: Counts::new(r, Metric::LeaseHardware, each(HARDWARE))?,
        })
    }

    /// A request was answered: `rented` after so long, or one of the other results.
    pub fn request(&self, result: &str, took: Duration) {
        self.rentals.add(&[result]);
        if result == "rented" {
            self.duration.observe(took.as_secs_f64());
        }
    }
    /// A miner was asked for a rental; `None`: it runs.
    pub fn candidate(&self, outcome: Option<Outcome>) {
        self.candidates.add(&[outcome.map_or("running", Outcome::label)]);
    }
    /// An SSH port was dialled: `answered`, `no_answer` or `not_seen`.
    pub fn probe(&self, result: &str) {
        self.probes.add(&[result]);
    }
    /// A proof said this of a rented device: `same`, `changed`, `ended` (the lease ends for it) or `changed_at_release`.
    pub fn hardware(&self, result: &str) {
        self.hardware.add(&[result]);
    }
}
