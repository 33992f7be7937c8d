//! A GPU compute subnet's miner and validator, as supervised actors over actor-free domain code.
//!
//! Read in this order: [`ids`] and [`verdict`] (the words), [`proof`], [`lease`], [`rental`], [`scoring`] and [`admission`]
//! (the rules, pure), [`chain`], [`wire`], [`wallet`], [`hardware`], [`host`], [`store`], [`evidence`] (the outside world), [`runtime`]
//! (supervision), [`messages`] and [`actors`] (who talks to whom), [`web`], [`telemetry`], [`settings`] (how people
//! see and steer it), [`launch`] (what the programs share) and [`sim`] (a whole subnet in one process).
//!
//! This version runs a devnet, or a node on a subtensor chain: [`chain`] is an embedded ledger or the real one. The only
//! container engine is simulated, and proofs of GPUs are untested on hardware. `ARCHITECTURE.md` has the map, the invariants, and a walk of a challenge and of a rental;
//! `docs/proof.md` says what a proof shows.
//!
//! Everything but [`proof`] and the words is behind the feature `node`, which is on by default: `compute-prover` is built without.
//! The module `sshd`, behind a feature of that name, is the SSH server that runs in rented containers.

pub mod clock;
pub mod error;
pub mod exit;
pub mod ids;
pub mod verdict;

pub mod proof;

#[cfg(feature = "node")]
pub mod admission;
#[cfg(feature = "node")]
pub mod lease;
#[cfg(feature = "node")]
pub mod rental;
#[cfg(feature = "node")]
pub mod scoring;

#[cfg(feature = "node")]
pub mod chain;
#[cfg(feature = "node")]
pub mod evidence;
#[cfg(feature = "node")]
pub mod hardware;
#[cfg(feature = "node")]
pub mod host;
#[cfg(feature = "node")]
pub mod store;
#[cfg(feature = "node")]
pub mod wallet;
#[cfg(feature = "node")]
pub mod wire;

#[cfg(feature = "node")]
pub mod canary;

#[cfg(feature = "node")]
pub mod actors;
#[cfg(feature = "node")]
pub mod messages;
#[cfg(feature = "node")]
pub mod runtime;

#[cfg(feature = "sshd")]
pub mod sshd;

#[cfg(feature = "node")]
pub mod launch;
#[cfg(feature = "node")]
pub mod register;
#[cfg(feature = "node")]
pub mod settings;
#[cfg(feature = "node")]
pub mod sim;
#[cfg(feature = "node")]
pub mod telemetry;
#[cfg(feature = "node")]
pub mod web;

#[cfg(test)]
#[cfg(feature = "node")]
mod cheats;
