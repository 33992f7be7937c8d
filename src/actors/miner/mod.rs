//! The miner's actors, and the axon that feeds them.

pub mod allocation_manager;
pub mod axon;
pub mod challenge_runner;
pub mod engine;
pub mod node;
pub mod original;
pub mod specs_collector;
mod turn;
pub mod watch_callers;

#[cfg(test)]
mod tests;
