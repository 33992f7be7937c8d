//! A GPU compute subnet's miner and validator, as supervised actors over actor-free domain code.
//!
//! Read in this order: [`ids`] and [`verdict`] (the words), [`proof`], [`lease`], [`scoring`] and [`admission`]
//! (the rules, pure), [`chain`], [`wire`], [`wallet`], [`hardware`], [`store`], [`evidence`] (the outside world), [`runtime`]
//! (supervision), [`messages`] and [`actors`] (who talks to whom), [`web`], [`telemetry`], [`settings`] (how people
//! see and steer it), [`launch`] (what the programs share) and [`sim`] (a whole subnet in one process).
//!
//! This version runs a devnet, or a node on a subtensor chain: [`chain`] is an embedded ledger or the real one. The only
//! container engine is simulated, and proofs of GPUs are untested on hardware. `ARCHITECTURE.md` has the map, the invariants, and a walk of a challenge and of a rental;
//! `docs/proof.md` says what a proof shows.

pub mod clock;
pub mod exit;
pub mod ids;
pub mod verdict;

pub mod admission;
pub mod lease;
pub mod proof;
pub mod scoring;

pub mod chain;
pub mod evidence;
pub mod hardware;
pub mod store;
pub mod wallet;
pub mod wire;

pub mod actors;
pub mod messages;
pub mod runtime;

pub mod launch;
pub mod register;
pub mod settings;
pub mod sim;
pub mod telemetry;
pub mod web;

#[cfg(test)]
mod cheats;
