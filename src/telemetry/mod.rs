//! Metrics, logs, redaction.

pub mod names;
