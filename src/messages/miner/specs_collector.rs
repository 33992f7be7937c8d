//! Messages of [`crate::actors::miner::specs_collector::SpecsCollector`].

use std::sync::Arc;

use actix::Message;

use crate::hardware::Specs;

/// What this machine is and offers.
#[derive(Debug, Clone)]
pub struct MachineSpecs {
    /// The measurement, with the devices offered.
    pub specs: Arc<Specs>,
    /// When it was measured, in milliseconds since the Unix epoch.
    pub taken_at_ms: u64,
}

/// The last measurement; waits for the first one.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "MachineSpecs")]
pub struct GetSpecs;

/// Measure again now.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Measure;
