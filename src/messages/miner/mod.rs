//! Messages of the miner's actors.

pub mod allocation_manager;
pub mod challenge_runner;
pub mod specs_collector;
