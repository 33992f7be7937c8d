//! The closed sets of label values. Every combination exists from the start, so that `rate()` and alerts work before
//! the first event.
//!
//! The defaults are the architecture's; a node passes its own [`Labels`] where a module has the list as an enum.

use crate::scoring::ReceiptStanding;

/// Values of the labels that no enum of this crate's vocabulary fixes.
#[derive(Debug, Clone)]
pub struct Labels {
    /// States of a lease.
    pub lease_states: Vec<&'static str>,
    /// State changes of a lease that exist.
    pub lease_transitions: Vec<(&'static str, &'static str)>,
    /// Decision and reason of an admission.
    pub admissions: Vec<(&'static str, &'static str)>,
    /// Paths of the axon. Others are counted as [`OTHER`].
    pub axon_paths: Vec<&'static str>,
    /// Outcomes of a request at the axon.
    pub axon_outcomes: Vec<&'static str>,
    /// Results of setting weights.
    pub weights_results: Vec<&'static str>,
    /// What can become of weights that were sent.
    pub weights_outcomes: Vec<&'static str>,
    /// Stages of a challenge.
    pub challenge_stages: Vec<&'static str>,
    /// Stages of a memory proof.
    pub memory_stages: Vec<&'static str>,
    /// Where the head can be to a validator's slot.
    pub challenge_slots: Vec<&'static str>,
    /// What can become of an epoch.
    pub epoch_outcomes: Vec<&'static str>,
    /// What becomes of lease receipts.
    pub receipt_outcomes: Vec<&'static str>,
    /// Outcomes of a prover's run.
    pub prover_outcomes: Vec<&'static str>,
    /// States of the updater.
    pub update_states: Vec<&'static str>,
}

/// What a value outside a label's closed set is counted as: outside text never becomes a series.
pub const OTHER: &str = "other";

impl Default for Labels {
    fn default() -> Self {
        Labels {
            lease_states: LEASE_STATES.to_vec(),
            lease_transitions: LEASE_TRANSITIONS.to_vec(),
            admissions: vec![("admitted", "none"), ("refused", OTHER)],
            axon_paths: vec!["/Specs", "/Challenge", "/Allocate"],
            axon_outcomes: vec!["ok", "refused", "unauthorized", "malformed", "too_large", "overloaded", "error"],
            weights_results: vec!["ok", "too_soon", "refused", "timeout", "error", "shadow"],
            weights_outcomes: vec!["included", "revealed", "missed", "unequal", "lapsed"],
            challenge_stages: vec!["commit", "open", "verify", "total"],
            memory_stages: vec!["fill", "scan", "open"],
            challenge_slots: vec!["wait", "now", "over", "none"],
            epoch_outcomes: vec!["judged", "void", "empty"],
            receipt_outcomes: ["issued", "kept", "not_kept"].into_iter().chain(ReceiptStanding::labels()).collect(),
            prover_outcomes: vec!["ok", "crashed", "hung", "garbage", "refused", "cancelled"],
            update_states: vec![
                "no_source",
                "idle",
                "checking",
                "staged",
                "waiting",
                "swapping",
                "rolled_back",
                "failed",
            ],
        }
    }
}

const LEASE_STATES: &[&str] =
    &["requested", "reserving", "running", "paused", "releasing", "released", "lost", "refused"];

const LEASE_TRANSITIONS: &[(&str, &str)] = &[
    ("requested", "reserving"),
    ("requested", "refused"),
    ("reserving", "running"),
    ("reserving", "releasing"),
    ("reserving", "refused"),
    ("reserving", "lost"),
    ("running", "paused"),
    ("running", "releasing"),
    ("running", "lost"),
    ("paused", "running"),
    ("paused", "releasing"),
    ("paused", "lost"),
    ("releasing", "released"),
    ("releasing", "lost"),
];
