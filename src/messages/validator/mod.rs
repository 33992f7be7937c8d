//! Messages of the validator's actors.

pub mod allocation_manager;
pub mod canary_runner;
pub mod challenge_runner;
pub mod memory_runner;
pub mod specs_collector;
pub mod weight_setter;
