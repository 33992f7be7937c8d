//! The validator's actors.

pub mod allocation_manager;
pub mod challenge_runner;
pub mod node;
pub mod specs_collector;
pub mod weight_setter;
