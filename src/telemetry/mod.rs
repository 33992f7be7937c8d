//! What a node tells about itself: metrics, log lines, and the care for what must not be in either.
//!
//! - [`names`]: every metric's name, kind, help and labels; nothing else spells one.
//! - [`NodeMetrics`]: a typed handle for everything that is not an actor's vitals (those are in [`crate::runtime`]).
//! - [`encode`]: the text that `/metrics` serves.
//! - [`events`]: notable things as structs whose `emit` logs and counts together.
//! - [`logging`]: levels, formats and the log file.
//!
//! `docs/instrumentation.md` is the contract with dashboards; `tests/observability.rs` holds the two together.

mod age;
mod build;
mod chain;
mod encode;
pub mod events;
mod file;
pub mod labels;
pub mod logging;
mod metrics;
pub mod names;
mod neuron;
mod redact;
mod rentals;
mod series;
mod uids;

pub use crate::error::error_chain;
pub use build::BuildInfo;
pub use chain::register_chain;
pub use encode::{CONTENT_TYPE, EncodeError, encode};
pub use labels::Labels;
pub use metrics::{NodeMetrics, register_process};
pub use names::{Kind, Metric};
pub use redact::{printable, redact_endpoint, redact_url};
pub use uids::MAX_UID_SERIES;
